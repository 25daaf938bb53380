//! A host's own subscriber may ask the bridge whatever it likes, whenever it gets a line: no lock of ours is held then.
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start threads"
)]

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use fastsock::events::{Event as QueueEvent, EventOptions, EventQueue, Uplinks};
use fastsock::{
    Answer, Bridge, BrokerKind, ClientId, CloseReason, Config, DownlinkFull, ErrorKind, RemoteGone,
    SpoolKind, Ticket, UplinkAction, UplinkFull,
};
use parking_lot::Mutex;
use support::{Backend, DEADLINE, Device, RawDevice, Reply, TempRedis, eventually};
use tempfile::TempDir;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
};

#[test]
fn the_uplinks_of_a_bridge_are_logged_without_a_lock() {
    for spool in [SpoolKind::Memory, SpoolKind::Disk] {
        let heard = with_a_curious_subscriber(async move |host| uplinks(host, spool).await);
        for message in [
            "Client connected",
            "Forwarded message to remote",
            "Failed to forward message to remote",
            "Failed to deliver an event",
            HELD_BACK,
            "the remote refuses every message; check REMOTE_URL and REMOTE_HEADERS",
            "Client disconnected",
        ] {
            assert!(heard.contains(message), "{message} is not in {heard:#?}");
        }
    }
}

#[test]
fn the_life_of_a_redis_broker_is_logged_without_a_lock() {
    let heard = with_a_curious_subscriber(redis);
    for message in [
        "Connected to Redis as publisher",
        "Connected to Redis as subscriber",
        "Message sent to client",
        "Lost a message from Redis: its channel names no device",
    ] {
        assert!(heard.contains(message), "{message} is not in {heard:#?}");
    }
}

#[test]
fn lost_downlinks_are_logged_without_a_lock() {
    for policy in [
        DownlinkFull::Close,
        DownlinkFull::DropOldest,
        DownlinkFull::DropNewest,
    ] {
        let heard = with_a_curious_subscriber(async move |host| downlinks(host, policy).await);
        for message in ["Lost downlinks", "Client disconnected"] {
            assert!(heard.contains(message), "{message} is not in {heard:#?}");
        }
    }
}

async fn downlinks(host: &Host, policy: DownlinkFull) {
    let config = config()
        .downlink_full(policy)
        .outbox_bytes(1usize)
        .outbox_total_bytes(8usize << 20);
    let bridge = host.start(config).await;
    let mut deaf = Vec::new();
    for name in ["deaf", "deafer"] {
        deaf.push(RawDevice::seated(bridge.local_addr(), name).await);
    }
    // What the kernel takes, what all may hold beyond their bounds, and more.
    for _ in 0..40 {
        for name in ["deaf", "deafer"] {
            let client_id = ClientId::new(name).unwrap();
            let _ = bridge.send_here(&client_id, vec![b'x'; 1 << 20].into());
        }
    }
    eventually("they lose some", async || {
        bridge.stats().downlink.lost.full > 1 && host.heard("Lost downlinks")
    })
    .await;
    deaf.into_iter().for_each(RawDevice::reset);
    eventually("they have left", async || bridge.clients().is_empty()).await;
    bridge.stop(DEADLINE).await;
}

#[test]
fn what_a_host_decides_and_what_it_misses_is_logged_without_a_lock() {
    let heard = with_a_curious_subscriber(hooks);
    for message in [
        "Message forwarding skipped: no REMOTE_URL set",
        "the hook's reply is lost",
        "the device has left before the hook's reply",
        "Event queue dropped its oldest notices: the host fell behind",
    ] {
        assert!(heard.contains(message), "{message} is not in {heard:#?}");
    }
}

/// A host that decides late, answers too much, and misses notices.
async fn hooks(host: &Host) {
    let options = EventOptions::default().uplinks(Uplinks::Decide);
    let (hooks, queue) = EventQueue::new(options.capacity(1)).unwrap();
    let builder = Bridge::builder(config()).shared_hooks(hooks);
    let bridge = builder.start().await.unwrap();
    host.bridge.set(bridge.clone()).expect("the first");
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    let _other = Device::connect(bridge.local_addr(), "other").await; // the second notice
    let ticket = async || {
        let mut events = Vec::new();
        eventually("a message is to be decided", async || {
            queue.drain(8, &mut events);
            events.drain(..).find_map(|event| match event {
                QueueEvent::Uplink { ticket, .. } => ticket,
                _ => None,
            })
        })
        .await
    };
    for action in [
        UplinkAction::Forward,
        UplinkAction::Reply(vec![0; (16 << 20) + 1].into()),
        UplinkAction::Reply("too late".into()),
    ] {
        device.send("x").await;
        let ticket = ticket().await;
        if action == UplinkAction::Reply("too late".into()) {
            bridge.disconnect(&ClientId::new("dev").unwrap(), CloseReason::Kicked);
            eventually("it has left", async || bridge.clients().len() == 1).await;
        }
        bridge.resolve(ticket, Answer::Uplink(action)).unwrap();
    }
    bridge.stop(DEADLINE).await;
}

const HELD_BACK: &str = "the remote takes no messages; the gateway holds them until it does";

async fn uplinks(host: &Host, spool: SpoolKind) {
    let (backend, events) = (Backend::start().await, Backend::start().await);
    events.answer_all(Reply::new(500));
    let data = TempDir::new().unwrap();
    let config = config()
        .remote_url(Some(backend.url()))
        .events_url(Some(events.url()))
        .spool(spool)
        .data_dir(Some(data.path().to_owned()))
        .uplink_full(UplinkFull::DropOldest)
        .remote_gone(RemoteGone::Close);
    let bridge = host.start(config).await;
    let addr = bridge.local_addr();

    // Refused to everyone: that is the remote's own doing. With so many known devices it is left alone for a while.
    let mut devices = Vec::new();
    for n in 0..20 {
        devices.push(Device::connect(addr, &format!("many{n}")).await);
    }
    for (round, answer) in [(1, 200), (2, 401)] {
        backend.answer_all(Reply::new(answer));
        for device in &mut devices {
            device.send("x").await;
        }
        if answer == 401 {
            eventually("the remote is left alone", async || host.heard(HELD_BACK)).await;
            backend.answer_all(Reply::new(200));
        }
        eventually("all is delivered", async || {
            bridge.stats().uplink.delivered == 20 * round
        })
        .await;
    }

    let mut device = Device::connect(addr, "dev1").await;
    backend.queue([Reply::new(400), Reply::new(500)]);
    device.send("refused").await;
    device.send("put off").await;
    backend.wait_delivered("dev1", 1).await;
    backend.queue([Reply::new(410)]);
    device.send("is gone").await;
    assert_eq!(device.closed().await.code, Some(4410));

    let mut replaced = Device::connect(addr, "dev1").await;
    let _replacing = Device::connect(addr, "dev1").await;
    assert_eq!(replaced.closed().await.code, Some(4509));
    bridge.disconnect(&ClientId::new("many0").unwrap(), CloseReason::Kicked);
    bridge.stop(Duration::from_secs(1)).await;
}

async fn redis(host: &Host) {
    let mut redis = TempRedis::new().await;
    let backend = Backend::start().await;
    let config = config()
        .broker(BrokerKind::Redis)
        .redis_port(redis.port())
        .remote_url(Some(backend.url()));
    let bridge = host.start(config).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    redis.wait_field("fastsock:clients", "dev1").await;
    redis.publish("fastsock:client:dev1", "x").await;
    assert_eq!(device.recv_text().await, "x");

    redis.publish("fastsock:client:", "to nobody").await;
    redis.restart().await;
    eventually("the bridge is back", async || {
        redis.publish("fastsock:client:dev1", "y").await == 1
    })
    .await;
    assert_eq!(device.recv_text().await, "y");
    bridge.stop(DEADLINE).await;
}

fn config() -> Config {
    support::loopback()
}

/// The bridge of a host, and what its subscriber heard.
#[derive(Clone, Default)]
struct Host {
    bridge: Arc<OnceLock<Bridge>>,
    heard: Arc<Mutex<BTreeSet<String>>>,
}

impl Host {
    async fn start(&self, config: Config) -> Bridge {
        let bridge = Bridge::builder(config).start().await.expect("it starts");
        self.bridge.set(bridge.clone()).expect("the first");
        bridge
    }

    fn heard(&self, message: &str) -> bool {
        self.heard.lock().contains(message)
    }
}

/// Runs it under a subscriber that asks its bridge everything at each line. Returns what was logged. A call that waits for
/// itself would never return: that is a failure, too.
fn with_a_curious_subscriber(run: impl AsyncFnOnce(&Host) + Send + 'static) -> BTreeSet<String> {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let host = Host::default();
        let subscriber = tracing_subscriber::registry().with(host.clone());
        let _ours = tracing::subscriber::set_default(subscriber);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run(&host));
        let heard = host.heard.lock().clone();
        done.send(heard).unwrap();
    });
    ended
        .recv_timeout(DEADLINE * 3) // a run waits for several things, each no longer than that
        .expect("no call waits for itself, and no check failed")
}

impl<S: Subscriber> Layer<S> for Host {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local!(static IS_INSIDE: Cell<bool> = const { Cell::new(false) });
        if !event.metadata().target().starts_with("fastsock") || IS_INSIDE.replace(true) {
            return;
        }
        let mut message = Message::default();
        event.record(&mut message);
        self.heard.lock().insert(message.0);
        if let Some(bridge) = self.bridge.get() {
            ask_everything(bridge);
        }
        IS_INSIDE.set(false);
    }
}

fn ask_everything(bridge: &Bridge) {
    let unknown = bridge.resolve(Ticket(u64::MAX), Answer::Failed);
    assert!(unknown.is_err_and(|error| error.kind() == ErrorKind::Ticket));
    let _ = (bridge.stats(), bridge.clients(), bridge.state());
    let nobody = ClientId::new("nobody").unwrap();
    let _ = bridge.send_here(&nobody, "x".into());
    bridge.disconnect(&nobody, CloseReason::Kicked);
}

/// The fixed sentence of a line.
#[derive(Default)]
struct Message(String);

impl tracing::field::Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
