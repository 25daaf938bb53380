//! Devices whose messages wait: their pings are answered, their end is noticed, and what is read ahead for that is bounded.

use std::{sync::Arc, time::Duration};

use fastsock::{
    Answer, Bridge, Config, Decision, Hooks, Payload, Ticket, Uplink, UplinkAction, WeakBridge,
};
use parking_lot::Mutex;
use support::{
    Backend, DEADLINE, End, Frame, Gateway, RawDevice, Reply, eventually, opcode, start,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_while_the_lane_is_full() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let bridge = start(full(&backend)).await;
    let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
    say(&mut device, 0..20).await;
    eventually("its lane is full", async || {
        bridge.stats().counters.reads_paused == 1
    })
    .await;
    // Far more than may be read ahead: a ping that is answered takes no room.
    for n in 0..1000 {
        ping(&mut device, &format!("{n:0>120}")).await;
    }
    say(&mut device, 20..40).await;
    ping(&mut device, "behind more messages").await;
    device.send(&Frame::text("half#4").unfinished()).await;
    ping(&mut device, "within a message").await;
    device.send(&Frame::continuation("0")).await;
    let stats = bridge.stats();
    assert_eq!(stats.uplink.received, 8, "nothing was taken");
    assert!(stats.sessions.read_ahead_bytes > 0);

    recover(&backend).await;
    assert_eq!(
        backend.wait_delivered("dev", 41).await.last().unwrap(),
        "half#40"
    );
    backend.assert_in_order();
    assert_eq!(bridge.stats().sessions.read_ahead_bytes, 0);
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_kib_are_read_ahead_and_no_more() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    for message_bytes in [0, 100, 30_000, 500_000] {
        let bridge = start(full(&backend)).await;
        let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
        say(&mut device, 0..20).await;
        let one = Frame::binary(vec![0; message_bytes]).encode();
        let many = one.repeat((32 << 20) / one.len());
        let written = device
            .write_until_full(&many, Duration::from_millis(500))
            .await;
        assert!(written < many.len(), "TCP has pushed back");
        if message_bytes < 30_000 {
            eventually("as much as may be is read ahead", async || {
                bridge.stats().sessions.read_ahead_bytes > 50 << 10
            })
            .await;
        }
        let stats = bridge.stats();
        assert_eq!(stats.uplink.received, 8, "nothing was taken");
        let ahead = stats.sessions.read_ahead_bytes;
        assert!(ahead <= (64 << 10) + 1024, "{message_bytes}: {ahead}");
        drop(device);
        bridge.stop(Duration::ZERO).await;
        assert_eq!(bridge.stats().sessions.read_ahead_bytes, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sessions_together_read_a_quarter_of_the_bound_of_all_lanes_ahead() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let bridge = start(full(&backend).uplink_total_bytes(400_000usize)).await;
    let mut devices = Vec::new();
    for n in 0..20 {
        let mut device = RawDevice::seated(bridge.local_addr(), &format!("dev{n}")).await;
        say(&mut device, 0..20).await;
        let many = Frame::text("x".repeat(1000)).encode().repeat(40);
        device.write(&many).await;
        devices.push(device);
    }
    eventually("all that may be is read ahead", async || {
        bridge.stats().sessions.read_ahead_bytes >= 100_000
    })
    .await;
    let ahead = bridge.stats().sessions.read_ahead_bytes;
    assert!(ahead < 100_000 + 2 * 1100, "{ahead}"); // a message of each thread
    drop(devices);
    bridge.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_behind_messages_that_wait_is_answered_and_they_are_delivered() {
    let backend = Backend::start().await;
    let bridge = start(full(&backend)).await;
    for (how, code) in [("close", Some(4321)), ("empty-close", None), ("end", None)] {
        backend.answer_all(Reply::hang());
        let mut device = RawDevice::seated(bridge.local_addr(), how).await;
        say(&mut device, 0..40).await;
        match how {
            "close" => device.send(&Frame::close(4321, "bye")).await,
            "empty-close" => device.send(&Frame::empty_close()).await,
            _ => device.half_close().await,
        }
        match how {
            "end" => {}
            _ => assert_eq!(device.end().await, End::Close(code, String::new()), "{how}"),
        }
        eventually("it has left", async || bridge.clients().is_empty()).await;
        assert_eq!(bridge.stats().uplink.held, 40, "{how}: all were taken");
        recover(&backend).await;
        backend.wait_delivered(how, 40).await;
        eventually("all is settled", async || bridge.stats().uplink.held == 0).await;
    }
    backend.assert_in_order();
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_closes_and_comes_back_does_not_grow_its_lane_without_end() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let bridge = start(full(&backend)).await;
    for _ in 0..10 {
        let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
        let many = Frame::text("x".repeat(3000)).encode().repeat(20);
        device.write(&many).await;
        device.send(&Frame::close(1000, "")).await;
        eventually("it is read", async || {
            let stats = bridge.stats();
            stats.sessions.read_ahead_bytes > 0 || stats.sessions.connected == 0
        })
        .await;
    }
    let held = bridge.stats().uplink.held_bytes;
    assert!(held < 1000 + 3200 + (64 << 10) * 3200 / 3000, "{held}");
    bridge.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_hook_decides_pings_are_answered_and_a_close_comes_last() {
    let backend = Backend::start().await;
    let host = Arc::new(Slow::default());
    let bridge = Bridge::builder(config(&backend))
        .shared_hooks(host.clone())
        .start()
        .await
        .unwrap();
    let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
    say(&mut device, 0..3).await;
    eventually("the first is asked about", async || host.asked().len() == 1).await;
    ping(&mut device, "while it waits").await;
    device.send(&Frame::close(1000, "bye")).await;
    for n in 0..3 {
        eventually("the next is asked about", async || {
            host.asked().len() == n + 1
        })
        .await;
        if n == 2 {
            host.decide(UplinkAction::Forward);
            break;
        }
        host.decide(UplinkAction::Reply(Payload::text(format!("reply {n}"))));
        let frame = device.frame().await;
        let reply = format!("reply {n}").into_bytes();
        assert_eq!((frame.opcode, frame.payload), (opcode::TEXT, reply));
    }
    assert_eq!(device.end().await, End::Close(Some(1000), String::new()));
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_device_is_over_its_rate_its_pings_are_answered() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend).limit_uplinks(5u32)).await;
    let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
    say(&mut device, 0..20).await;
    eventually("it is over its rate", async || {
        bridge.stats().counters.rates_exceeded == 1
    })
    .await;
    ping(&mut device, "while it waits").await;
    assert!(
        bridge.stats().uplink.received < 20,
        "behind messages that wait"
    );
    device.send(&Frame::close(1000, "")).await;
    assert_eq!(device.end().await, End::Close(Some(1000), String::new()));
    backend.wait_delivered("dev", 20).await;
    backend.assert_in_order();
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_takes_nothing_pings_are_answered() {
    let backend = Backend::start().await;
    let gateway = Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_SPOOL", "disk")
        .var("FASTSOCK_DATA_DIR", "data")
        .var("FASTSOCK_LOG_FILE", "off")
        .var("REMOTE_URL", backend.url())
        .heeds_file_limit()
        .start()
        .await;
    let mut device = RawDevice::seated(gateway.addr(), "dev").await;
    gateway.limit_files(Some(0));
    say(&mut device, 0..5).await;
    gateway
        .wait_line_where("the disk is full", |line| {
            line["level"] == "error" && line["message"].as_str().unwrap().contains("spool")
        })
        .await;
    for n in 0..20 {
        ping(&mut device, &format!("{n}")).await;
    }
    gateway.limit_files(None);
    backend.wait_delivered("dev", 5).await;
    backend.assert_in_order();
}

/// A host that thinks about each message until it is told what to say.
#[derive(Default)]
struct Slow {
    bridge: Mutex<Option<WeakBridge>>,
    asked: Mutex<Vec<Ticket>>,
}

impl Slow {
    fn asked(&self) -> Vec<Ticket> {
        self.asked.lock().clone()
    }

    /// Answers the last ticket.
    fn decide(&self, action: UplinkAction) {
        let bridge = self.bridge.lock().clone().unwrap();
        let ticket = *self.asked.lock().last().unwrap();
        bridge.resolve(ticket, Answer::Uplink(action)).unwrap();
    }
}

impl Hooks for Slow {
    fn on_start(&self, bridge: &WeakBridge) {
        *self.bridge.lock() = Some(bridge.clone());
    }

    fn on_uplink(&self, _: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        self.asked.lock().push(ticket);
        Decision::Later(ticket)
    }
}

fn config(backend: &Backend) -> Config {
    support::config(backend).websocket_ping_interval(Duration::ZERO)
}

/// Eight short messages fill a lane.
fn full(backend: &Backend) -> Config {
    config(backend)
        .uplink_lane_bytes(1000usize)
        .remote_timeout(Duration::from_secs(60))
}

async fn say(device: &mut RawDevice, numbers: std::ops::Range<u32>) {
    for n in numbers {
        device.send(&Frame::text(format!("temp#{n}"))).await;
    }
}

async fn ping(device: &mut RawDevice, payload: &str) {
    device.send(&Frame::ping(payload)).await;
    let frame = device.frame().await;
    assert_eq!(
        (frame.opcode, &frame.payload[..]),
        (opcode::PONG, payload.as_bytes())
    );
}

/// A backend that hung takes what comes.
async fn recover(backend: &Backend) {
    backend.go_down().await; // cuts the hanging request
    backend.answer_all(Reply::ok());
    backend.come_back();
}

/// Stops it and sees that nothing was left and the books are even.
async fn end(bridge: Bridge) {
    let leftover = bridge.stop(DEADLINE).await;
    assert!(leftover.is_empty(), "{leftover:?}");
    let stats = bridge.stats();
    let up = stats.uplink;
    assert_eq!(
        (up.held, up.lost.total(), stats.sessions.read_ahead_bytes),
        (0, 0, 0)
    );
    assert_eq!(up.received, up.delivered + up.dropped_by_hook);
}
