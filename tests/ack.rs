//! The subprotocol `fastsock.v1.ack`: a device learns that its uplink is taken, and what it sends again is not taken twice.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use fastsock::{
    Answer, Bridge, ClientId, CloseReason, Config, Decision, DownlinkBinary, Hooks, Sent,
    SpoolKind, Ticket, Uplink, UplinkAction, UplinkBinary,
};
use parking_lot::Mutex;
use support::{Backend, Closed, DEADLINE, Device, Frame, RawDevice, Reply, eventually, opcode};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_speaks_it_when_it_offers_it_and_the_gateway_has_it_on() {
    let backend = Backend::start().await;
    for (is_on, offered, chosen) in [
        (true, "fastsock.v1.ack", Some("fastsock.v1.ack")),
        (true, "chat, fastsock.v1.ack", Some("fastsock.v1.ack")),
        (true, "chat", Some("chat")),
        (false, "chat, fastsock.v1.ack", Some("chat")),
        // Were it told so, it would wait for ever.
        (false, "fastsock.v1.ack, chat", Some("chat")),
        (false, "fastsock.v1.ack", None),
    ] {
        let bridge = start(config(&backend).ack(is_on), ()).await;
        let protocols = format!("Sec-WebSocket-Protocol: {offered}");
        let request = RawDevice::upgrade_request("/?token=dev", &[&protocols]);
        let mut device = RawDevice::connect(bridge.local_addr()).await;
        device.write(request).await;
        let head = device.read_head().await;
        let expected = chosen.map(|p| format!("Sec-WebSocket-Protocol: {p}\r\n"));
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(head.contains("Sec-WebSocket-Protocol"), chosen.is_some());
        assert!(head.contains(&expected.unwrap_or_default()), "{head}");
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_does_not_ask_for_it_notices_nothing() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend), ()).await;
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    let message = r#"{"id":"1","data":"x"}"#;
    for _ in 0..2 {
        device.send(message).await;
    }
    device.send_binary(b"raw".to_vec()).await;
    let delivered = backend.wait_delivered("dev", 3).await;
    assert_eq!(delivered, [message, message, "raw"]);
    assert_eq!(send(&bridge, "down").await, Sent::Here);
    assert_eq!(device.recv_text().await, "down");
    let keys: std::collections::HashSet<_> = keys(&backend).into_iter().collect();
    assert_eq!(keys.len(), 3);
    end(bridge, &backend, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uplink_that_is_taken_is_acknowledged_and_posted_as_any_other() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend).uplink_binary(UplinkBinary::Base64), ()).await;
    let mut device = connect(bridge.local_addr()).await;
    for n in 0..100 {
        device
            .send(envelope(&n.to_string(), &format!("temp#{n}")))
            .await;
    }
    for n in 0..100 {
        assert_eq!(device.recv_text().await, ack(&n.to_string()));
    }
    backend.wait_delivered("dev", 100).await;
    backend.assert_in_order();
    let first = &backend.requests()[0];
    assert_eq!(first.body, r#"{"client_id":"dev","data":"temp#0"}"#);
    // As docs/device.md says: made of both names.
    let key = first.header("idempotency-key").unwrap();
    assert_eq!(key, "26d3d06f-d557-8cea-bd5d-87e2ad2f7d55");
    device
        .send(r#"{"id":"é\"","encoding":"base64","data":"AP8="}"#)
        .await;
    assert_eq!(device.recv_text().await, ack("é\\\""));
    let all = backend.wait_for(101).await;
    assert_eq!(
        all[100].body,
        r#"{"client_id":"dev","data":"AP8=","encoding":"base64"}"#
    );
    end(bridge, &backend, 101).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_after_a_reconnect_or_a_takeover_is_acknowledged_and_not_taken_twice() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::ok().after(Duration::from_millis(20)));
    let bridge = start(config(&backend), ()).await;
    let addr = bridge.local_addr();
    let mut first = connect(addr).await;
    first.send(envelope("1", "temp#1")).await;
    // It never hears of it: the connection breaks.
    eventually("it is taken", async || bridge.stats().uplink.received == 1).await;
    drop(first);
    let mut second = connect(addr).await;
    for (id, data) in [("1", "temp#1"), ("2", "temp#2"), ("2", "temp#2")] {
        second.send(envelope(id, data)).await;
        assert_eq!(second.recv_text().await, ack(id));
    }
    let mut third = connect(addr).await;
    assert_eq!(second.closed().await.code, Some(4509));
    for (id, data) in [("2", "temp#2"), ("3", "temp#3")] {
        third.send(envelope(id, data)).await;
        assert_eq!(third.recv_text().await, ack(id));
    }
    // The ids of another device are its own.
    let mut other = connect_as(addr, "other").await;
    other.send(envelope("1", "temp#1")).await;
    assert_eq!(other.recv_text().await, ack("1"));
    backend.wait_delivered("dev", 3).await;
    backend.wait_delivered("other", 1).await;
    backend.assert_in_order();
    assert_eq!(bridge.stats().counters.uplinks_repeated, 3);
    end(bridge, &backend, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_after_a_restart_has_the_same_key() {
    let backend = Backend::start().await;
    for _ in 0..2 {
        let bridge = start(config(&backend), ()).await;
        let mut device = connect(bridge.local_addr()).await;
        device.send(envelope("7", "temp#7")).await;
        assert_eq!(device.recv_text().await, ack("7"));
        bridge.stop(DEADLINE).await;
    }
    let keys = keys(&backend);
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_durable_spool_what_was_acknowledged_outlives_the_gateway() {
    let backend = Backend::start().await;
    backend.go_down().await;
    let data_dir = tempfile::tempdir().unwrap();
    let config = || {
        let config = config(&backend).spool(SpoolKind::Disk);
        config.data_dir(Some(data_dir.path().to_owned()))
    };
    let bridge = start(config(), ()).await;
    let mut device = connect(bridge.local_addr()).await;
    for n in 0..20 {
        device
            .send(envelope(&n.to_string(), &format!("temp#{n}")))
            .await;
        assert_eq!(device.recv_text().await, ack(&n.to_string()));
    }
    let left = bridge.stop(Duration::ZERO).await;
    assert_eq!((left.spooled, left.uplinks), (20, 0), "{left:?}");
    backend.come_back();
    let bridge = start(config(), ()).await;
    backend.wait_delivered("dev", 20).await;
    backend.assert_in_order();
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_ids_are_remembered() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend).ack_window(2usize), ()).await;
    let mut device = connect(bridge.local_addr()).await;
    for id in ["1", "2", "3", "2", "1"] {
        device.send(envelope(id, "x")).await;
        assert_eq!(device.recv_text().await, ack(id));
    }
    assert_eq!(bridge.stats().counters.uplinks_repeated, 1, "of 2");
    end(bridge, &backend, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_before_the_hook_has_decided() {
    let backend = Backend::start().await;
    let host = Arc::new(Host::default());
    let bridge = start_shared(config(&backend), host.clone()).await;
    let addr = bridge.local_addr();
    let mut device = connect(addr).await;
    for (id, answer) in [
        ("forwarded", Answer::Uplink(UplinkAction::Forward)),
        (
            "replaced",
            Answer::Uplink(UplinkAction::Replace("y".into())),
        ),
        ("dropped", Answer::Uplink(UplinkAction::Drop)),
        ("replied", Answer::Uplink(UplinkAction::Reply("hi".into()))),
    ] {
        device.send(envelope(id, "x")).await;
        let ticket = host.ticket().await;
        // A pong comes after whatever was said before it.
        device.ping("").await;
        bridge.resolve(ticket, answer).unwrap();
        let mut texts = vec![device.recv_text().await];
        if id == "replied" {
            texts.push(device.recv_text().await);
            texts.sort();
            assert_eq!(texts.pop().unwrap(), r#"{"data":"hi"}"#);
        }
        assert_eq!(texts, [ack(id)]);
    }
    device.send(envelope("failed", "x")).await;
    bridge.resolve(host.ticket().await, Answer::Failed).unwrap();
    let nack = r#"{"nack":"failed","reason":"hook_failed"}"#;
    assert_eq!(device.recv_text().await, nack);
    // It is lost, so it is not known when it comes again.
    device.send(envelope("failed", "x")).await;
    let forward = Answer::Uplink(UplinkAction::Forward);
    bridge.resolve(host.ticket().await, forward).unwrap();
    assert_eq!(device.recv_text().await, ack("failed"));
    let delivered = backend.wait_delivered("dev", 3).await;
    assert_eq!(delivered, ["x", "y", "x"]);
    let books = bridge.stats().uplink;
    assert_eq!((books.received, books.lost.hook_failed), (6, 1));
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undecided_uplink_that_is_sent_again_waits_for_the_same_decision() {
    let backend = Backend::start().await;
    let host = Arc::new(Host::default());
    let config = config(&backend).hook_timeout(Duration::from_secs(60));
    let bridge = start_shared(config, host.clone()).await;
    let addr = bridge.local_addr();
    for (id, answer, word) in [
        ("1", Answer::Uplink(UplinkAction::Forward), ack("1")),
        (
            "2",
            Answer::Failed,
            r#"{"nack":"2","reason":"hook_failed"}"#.into(),
        ),
    ] {
        let mut old = connect(addr).await;
        old.send(envelope(id, "x")).await;
        let ticket = host.ticket().await;
        let mut new = connect(addr).await;
        assert_eq!(old.closed().await.code, Some(4509));
        let before = bridge.stats().counters.uplinks_repeated;
        new.send(envelope(id, "x")).await;
        eventually("it is recognised", async || {
            bridge.stats().counters.uplinks_repeated == before + 1
        })
        .await;
        bridge.resolve(ticket, answer).unwrap();
        assert_eq!(new.recv_text().await, word);
    }
    assert_eq!(backend.wait_delivered("dev", 1).await, ["x"]);
    assert_eq!(host.0.lock().len(), 0, "nobody was asked twice");
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_backend_each_is_refused() {
    let bridge = start(support::loopback().ack(true), ()).await;
    let mut device = connect(bridge.local_addr()).await;
    for _ in 0..2 {
        device.send(envelope("1", "x")).await;
        let nack = r#"{"nack":"1","reason":"no_remote_url"}"#;
        assert_eq!(device.recv_text().await, nack);
    }
    assert_eq!(bridge.stats().uplink.lost.no_remote_url, 2);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_lane_acknowledges_what_it_has_and_the_rest_once_it_has_room() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let bridge = start(
        config(&backend)
            .uplink_lane_bytes(1500usize)
            .remote_timeout(Duration::from_secs(1)),
        (),
    )
    .await;
    let device = connect(bridge.local_addr()).await.attend();
    for n in 0..40 {
        device
            .send(envelope(&n.to_string(), &format!("temp#{n}")))
            .await;
    }
    eventually("the lane is full", async || {
        bridge.stats().counters.reads_paused > 0
    })
    .await;
    let received = bridge.stats().uplink.received as usize;
    assert!(received < 40);
    let acks = device.wait_texts(received).await;
    assert_eq!(acks.len(), received, "and not one more");
    backend.answer_all(Reply::ok());
    let acks = device.wait_texts(40).await;
    assert_eq!(
        acks,
        (0..40).map(|n| ack(&n.to_string())).collect::<Vec<_>>()
    );
    backend.wait_delivered("dev", 40).await;
    backend.assert_in_order();
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_reads_no_answers_is_not_read_and_what_it_gets_is_whole() {
    let backend = Backend::start().await;
    let config = config(&backend)
        .uplink_lane_bytes(64usize << 20)
        .outbox_bytes(64usize << 20)
        .websocket_ping_interval(Duration::ZERO)
        .write_timeout(Duration::from_secs(120));
    let bridge = start(config, ()).await;
    let mut device = RawDevice::connect_with_buffer(bridge.local_addr(), 4096).await;
    let offer = "Sec-WebSocket-Protocol: fastsock.v1.ack";
    device
        .write(RawDevice::upgrade_request("/?token=dev", &[offer]))
        .await;
    device.read_head().await;
    const COUNT: usize = 3000;
    // Long ids make long answers.
    let id = |n: usize| format!("{n:0>128}");
    let frames: Vec<u8> = (0..COUNT)
        .flat_map(|n| Frame::text(envelope(&id(n), "x")).encode())
        .collect();
    device.write(frames).await; // the kernels take more than the gateway reads
    let mut read = 0;
    eventually("the gateway reads no further", async || {
        tokio::time::sleep(Duration::from_millis(300)).await; // nobody says that nothing moves any more
        let before = std::mem::replace(&mut read, bridge.stats().uplink.received);
        before > 0 && read == before
    })
    .await;
    assert!(read < COUNT as u64);
    // An answer is in the socket in part; what comes now has to wait for the rest of it.
    for n in 0..200 {
        let text = format!("{n}{}", "y".repeat(999));
        assert_eq!(send(&bridge, &text).await, Sent::Here);
    }
    let (mut acks, mut downlinks) = (0, 0);
    while acks < COUNT || downlinks < 200 {
        let frame = device.frame().await;
        assert_eq!(frame.opcode, opcode::TEXT);
        let text = String::from_utf8(frame.payload).unwrap();
        if text == ack(&id(acks)) {
            acks += 1;
        } else {
            assert!(
                text.starts_with(&format!(r#"{{"data":"{downlinks}y"#)),
                "{text}"
            );
            downlinks += 1;
        }
    }
    device.reset();
    let downlink = bridge.stats().downlink;
    assert_eq!(
        (downlink.received, downlink.delivered),
        (200, 200),
        "no answer is a downlink"
    );
    bridge.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downlinks_come_in_envelopes() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend).downlink_binary(DownlinkBinary::Auto), ()).await;
    let mut device = connect(bridge.local_addr()).await;
    assert_eq!(send(&bridge, "a \"b\"").await, Sent::Here);
    assert_eq!(device.recv_text().await, r#"{"data":"a \"b\""}"#);
    let binary = fastsock::Payload::binary(vec![0, 255]);
    bridge.send(&id("dev"), binary).await.unwrap();
    let text = device.recv_text().await;
    assert_eq!(text, r#"{"data":"AP8=","encoding":"base64"}"#);
    bridge.disconnect(&id("dev"), CloseReason::Kicked);
    assert_eq!(device.closed().await.code, Some(4510));
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plain_session_left_behind_its_successor_gets_in_envelopes() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend).outbox_bytes(64usize << 20), ()).await;
    let mut stuck = RawDevice::connect_with_buffer(bridge.local_addr(), 4096).await;
    stuck
        .write(RawDevice::upgrade_request("/?token=dev", &[]))
        .await;
    stuck.read_head().await;
    let mut sent = 0;
    eventually("its outbox holds some", async || {
        for _ in 0..8 {
            let text = format!("{sent}{}", "y".repeat(100_000));
            assert_eq!(send(&bridge, &text).await, Sent::Here);
            sent += 1;
        }
        bridge.stats().downlink.held >= 16
    })
    .await;
    let mut device = connect(bridge.local_addr()).await;
    send(&bridge, "last").await;
    loop {
        let text = device.recv_text().await;
        if text == r#"{"data":"last"}"# {
            break;
        }
        assert!(text.starts_with(r#"{"data":""#) && text.ends_with(r#"yy"}"#));
    }
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_no_envelope_ends_the_session() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend), ()).await;
    let malformed = Closed {
        code: Some(1002),
        reason: "protocol_error".into(),
    };
    for bad in [
        "hello",
        "{}",
        r#"{"id":1,"data":"x"}"#,
        r#"{"id":"","data":"x"}"#,
        r#"{"id":"1"}"#,
        r#"{"id":"1","data":"?","encoding":"base64"}"#,
    ] {
        let mut device = connect(bridge.local_addr()).await;
        device.send(bad).await;
        assert_eq!(device.closed().await, malformed, "{bad}");
    }
    let mut device = connect(bridge.local_addr()).await;
    device.send_binary(envelope("1", "x")).await;
    assert_eq!(device.closed().await, malformed);
    end(bridge, &backend, 0).await;
}

/// A host that decides later.
#[derive(Default)]
struct Host(Mutex<Vec<Ticket>>);

impl Host {
    /// The ticket of the next uplink.
    async fn ticket(&self) -> Ticket {
        eventually("the host is asked", async || self.0.lock().pop()).await
    }
}

impl Hooks for Host {
    fn on_uplink(&self, _: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        self.0.lock().push(ticket);
        Decision::Later(ticket)
    }
}

fn config(backend: &Backend) -> Config {
    support::config(backend).ack(true)
}

async fn start(config: Config, hooks: impl Hooks) -> Bridge {
    start_shared(config, Arc::new(hooks)).await
}

async fn start_shared(config: Config, hooks: Arc<dyn Hooks>) -> Bridge {
    let builder = Bridge::builder(config).shared_hooks(hooks);
    builder.start().await.unwrap()
}

async fn connect(addr: SocketAddr) -> Device {
    connect_as(addr, "dev").await
}

async fn connect_as(addr: SocketAddr, token: &str) -> Device {
    let offer = [("sec-websocket-protocol", "fastsock.v1.ack")];
    let target = format!("/?token={token}");
    let device = Device::request(addr, &target, &offer).await.unwrap();
    let chosen = &device.response_headers()["sec-websocket-protocol"];
    assert_eq!(chosen, "fastsock.v1.ack");
    device
}

async fn send(bridge: &Bridge, text: &str) -> Sent {
    bridge.send(&id("dev"), text.into()).await.unwrap()
}

/// Waits until so many uplinks were delivered, and looks at the books.
async fn end(bridge: Bridge, backend: &Backend, count: u64) {
    let left = bridge.stop(DEADLINE).await;
    assert!(left.is_empty(), "{left:?}");
    let books = bridge.stats().uplink;
    let expected = (count, count, 0);
    assert_eq!(
        (books.received, books.delivered, books.lost.total()),
        expected
    );
    assert_eq!(backend.count() as u64, count);
}

fn envelope(id: &str, data: &str) -> String {
    format!(r#"{{"id":"{id}","data":"{data}"}}"#)
}

fn ack(id: &str) -> String {
    format!(r#"{{"ack":"{id}"}}"#)
}

fn id(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

fn keys(backend: &Backend) -> Vec<String> {
    let requests = backend.requests().into_iter();
    requests
        .map(|r| r.header("idempotency-key").unwrap().to_owned())
        .collect()
}
