//! Mailboxes in Redis: what is kept for a device that is away reaches it at least once and in its order, whoever dies in between.
#![allow(clippy::print_stdout, reason = "a test prints what it measures")]

#[path = "mailbox/limits.rs"]
mod limits;

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use fastsock::{
    Bridge, BrokerKind, ClientId, Config, ErrorKind, KeepOptions, MailboxKind, Payload, Secret,
    Sent, Stats, Subscribe, unix_ms,
};
use support::{
    Backend, DEADLINE, Device, Frame, Gateway, LostKept, RawDevice, TempCluster, TempRedis, call,
    eventually, get, opcode,
};

const SEND_LUA: &str = include_str!("../docs/redis/send.lua");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_anyone_adds_to_the_stream_reaches_the_device_when_it_comes_and_while_it_is_there() {
    for mode in [Subscribe::Pattern, Subscribe::Exact] {
        let redis = TempRedis::new().await;
        let bridge = start(config(&redis).redis_subscribe(mode)).await;
        add(&redis, "dev", "one").await;
        add(&redis, "dev", "two").await;
        let device = Device::connect(bridge.local_addr(), "dev").await.attend();
        device.wait_texts(2).await;
        add(&redis, "dev", "three").await;
        assert!(ring(&redis, "dev").await >= 1);
        assert_eq!(device.wait_texts(3).await, ["one", "two", "three"]);
        is_empty(&redis, "dev").await;
        // Redis is a moment ahead of the books.
        eventually("all are counted", async || {
            bridge.stats().mailbox.delivered >= 3
        })
        .await;
        let books = bridge.stats().mailbox;
        assert_eq!((books.read, books.delivered), (3, 3));
        assert_eq!(redis.cmd::<Vec<String>>(&["KEYS", "*mbox*"]).await.len(), 0);
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_pong_to_a_ping_written_after_it_proves_that_a_message_has_come() {
    let redis = TempRedis::new().await;
    let bridge = start(config(&redis)).await;
    add(&redis, "dev", "one").await;
    let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
    assert_eq!(text(&mut device).await, "one");
    let ping = device.frame().await;
    assert_eq!(ping.opcode, opcode::PING);
    for unasked in [&b""[..], b"kept", b"kept\0\0\0\0"] {
        device.send(&Frame::pong(unasked)).await;
    }
    device.send(&Frame::close(1000, "")).await;
    device.end().await;
    assert_eq!(length(&redis, "dev").await, 1);
    let mut again = RawDevice::seated(bridge.local_addr(), "dev").await;
    assert_eq!(text(&mut again).await, "one");
    pong(&mut again).await;
    is_empty(&redis, "dev").await;
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_our_close_frame_proves_it_too() {
    let redis = TempRedis::new().await;
    let bridge = start(config(&redis)).await;
    add(&redis, "dev", "one").await;
    add(&redis, "other", "one").await;
    let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
    let mut other = RawDevice::seated(bridge.local_addr(), "other").await;
    for device in [&mut device, &mut other] {
        assert_eq!(text(device).await, "one");
        assert_eq!(device.frame().await.opcode, opcode::PING);
    }
    bridge.request_stop();
    for device in [&mut device, &mut other] {
        assert_eq!(device.frame().await.opcode, opcode::CLOSE);
    }
    device.send(&Frame::close(1001, "")).await;
    drop(other);
    bridge.stop(DEADLINE).await;
    assert_eq!(length(&redis, "dev").await, 0);
    assert_eq!(length(&redis, "other").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_of_v2_gets_ids_and_acknowledges_each() {
    let redis = TempRedis::new().await;
    let bridge = start(config(&redis).ack(true)).await;
    let addr = bridge.local_addr();
    let first = add(&redis, "dev", "one").await;
    let named: (String, u64, u64, u64) = redis
        .cmd(&[
            "EVAL",
            SEND_LUA,
            "1",
            "fastsock:mbox:{dev}",
            "fastsock:bell:dev",
            "two",
            "id",
            "order \"7\"",
        ])
        .await;
    assert_eq!(named, ("order \"7\"".into(), 0, 0, 1));
    let mut device = v2(addr, "dev").await;
    let one = format!(r#"{{"id":"{first}","data":"one"}}"#);
    let two = r#"{"id":"order \"7\"","data":"two"}"#;
    assert_eq!(device.recv_texts(2).await, [one.as_str(), two]);
    // The second alone, and one that nobody knows; an uplink between them is acknowledged as ever.
    device.send(r#"{"ack":"order \"7\""}"#).await;
    device.send(r#"{"ack":"nobody"}"#).await;
    device.send(r#"{"id":"u1","data":"up"}"#).await;
    assert_eq!(
        device.recv_text().await,
        r#"{"nack":"u1","reason":"no_remote_url"}"#
    );
    eventually("the second is removed", async || {
        length(&redis, "dev").await == 1
    })
    .await;
    bridge.send(&id("dev"), "plain".into()).await.unwrap();
    assert_eq!(device.recv_text().await, r#"{"data":"plain"}"#);
    drop(device);
    let mut again = v2(addr, "dev").await;
    assert_eq!(again.recv_text().await, one);
    again.send(format!(r#"{{"ack":"{first}"}}"#)).await;
    is_empty(&redis, "dev").await;
    // v1 stays as it is: no id, and the pong counts.
    add(&redis, "dev", "three").await;
    let offer = [("sec-websocket-protocol", "fastsock.v1.ack")];
    let mut v1 = Device::request(addr, "/?token=dev", &offer).await.unwrap();
    assert_eq!(v1.recv_text().await, r#"{"data":"three"}"#);
    let _reads = v1.attend();
    is_empty(&redis, "dev").await;
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_to_a_device_that_reads_is_delivered_and_does_not_close_it() {
    let redis = TempRedis::new().await;
    let limits = config(&redis)
        .outbox_messages(100usize)
        .outbox_total_bytes(0usize);
    let bridge = start(limits).await;
    let device = Device::connect(bridge.local_addr(), "dev").await.attend();
    let mut connection = redis.connection().await;
    for chunk in 0..20 {
        let mut adds = redis::pipe();
        for n in 0..1000 {
            let data = (chunk * 1000 + n).to_string();
            adds.cmd("XADD")
                .arg("fastsock:mbox:{dev}")
                .arg("*")
                .arg("data")
                .arg(data)
                .ignore();
            adds.cmd("PUBLISH").arg("fastsock:bell:dev").arg(1).ignore();
        }
        adds.exec_async(&mut connection).await.unwrap();
    }
    let texts = device.wait_texts(20_000).await;
    assert!(
        texts
            .iter()
            .enumerate()
            .all(|(n, text)| *text == n.to_string())
    );
    assert!(device.is_open());
    is_empty(&redis, "dev").await;
    assert_eq!(bridge.stats().mailbox.lost.total(), 0);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_between_delivery_and_removal_costs_nothing() {
    let redis = TempRedis::new().await;
    let mut dies = gateway(&redis).await;
    for n in 0..50 {
        add(&redis, "dev", &n.to_string()).await;
    }
    let mut device = RawDevice::seated(dies.addr(), "dev").await;
    for n in 0..50 {
        assert_eq!(text(&mut device).await, n.to_string());
    }
    dies.kill();
    assert_eq!(length(&redis, "dev").await, 50);
    let next = gateway(&redis).await;
    let device = Device::connect(next.addr(), "dev").await.attend();
    let again: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(device.wait_texts(50).await, again);
    is_empty(&redis, "dev").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_slept_removes_nothing_of_the_next_owner() {
    let redis = TempRedis::new().await;
    let (sleeps, wakes) = (gateway(&redis).await, gateway(&redis).await);
    add(&redis, "dev", "one").await;
    let mut old = RawDevice::seated(sleeps.addr(), "dev").await;
    assert_eq!(text(&mut old).await, "one");
    let ping = old.frame().await;
    sleeps.process().freeze();
    old.send(&Frame::pong(ping.payload)).await;
    let mut new = RawDevice::seated(wakes.addr(), "dev").await;
    assert_eq!(text(&mut new).await, "one");
    sleeps.process().thaw();
    let (_, end) = old.drain().await;
    drop(end);
    assert_eq!(length(&redis, "dev").await, 1, "it is not theirs to remove");
    pong(&mut new).await;
    is_empty(&redis, "dev").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_freezes_and_links_that_break_lose_nothing_and_change_no_order() {
    let redis = TempRedis::new().await;
    let bridge = start(config(&redis)).await;
    let device = Device::connect(bridge.local_addr(), "dev").await.attend();
    for n in 0..300 {
        add(&redis, "dev", &n.to_string()).await;
        match n {
            50 | 150 => drop(redis.kill_clients("pubsub").await), // it hears no bell, and looks when it is back
            100 | 200 => drop(redis.kill_clients("normal").await),
            250 => {
                ring(&redis, "dev").await;
                redis.freeze();
                tokio::time::sleep(Duration::from_millis(500)).await; // how long it is frozen
                redis.thaw();
            }
            _ if n % 10 == 0 => drop(ring(&redis, "dev").await),
            _ => {}
        }
    }
    ring(&redis, "dev").await;
    is_empty(&redis, "dev").await;
    let mut last = -1;
    for text in device.texts() {
        let n: i64 = text.parse().unwrap();
        assert!(n <= last + 1, "{n} after {last}"); // again, perhaps; never one before its turn
        last = last.max(n);
    }
    assert_eq!(last, 299);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_each_mailbox_in_one_slot() {
    let cluster = TempCluster::new().await;
    let config = support::loopback()
        .broker(BrokerKind::Redis)
        .redis_url(Some(Secret::new(cluster.url())))
        .mailbox(MailboxKind::Redis);
    let bridge = start(config).await;
    for name in ["dev", "a{b}c", "}{", "50%"] {
        let options = || KeepOptions {
            id: Some("m".into()),
            ..KeepOptions::default()
        };
        for is_repeated in [false, true] {
            let kept = bridge
                .send_kept(&id(name), "hello".into(), options())
                .await
                .unwrap();
            assert_eq!(
                (kept.sent, kept.id.as_str(), kept.is_repeated),
                (Sent::Kept, "m", is_repeated)
            );
        }
        assert_eq!(bridge.mailbox(&id(name)).await.unwrap().messages, 1);
        let device = Device::connect(bridge.local_addr(), name).await.attend();
        device.wait_text("hello").await;
        eventually("it is removed", async || {
            bridge.mailbox(&id(name)).await.unwrap().messages == 0
        })
        .await;
    }
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_names_its_message_bounds_its_life_and_is_told_where_it_is() {
    let redis = TempRedis::new().await;
    let bridge = start(config(&redis).admin_addr(Some("127.0.0.1:0".parse().unwrap()))).await;
    let other = start(config(&redis)).await;
    let dev = id("dev");
    let soon = KeepOptions {
        ttl: Some(Duration::from_millis(1)),
        ..KeepOptions::default()
    };
    bridge.send_kept(&dev, "late".into(), soon).await.unwrap();
    let kept = bridge
        .send_kept(&dev, Payload::binary(vec![0, 255]), KeepOptions::default())
        .await
        .unwrap();
    assert!(
        kept.id.contains('-') && kept.sent == Sent::Kept && !kept.is_repeated,
        "{kept:?}"
    );
    // Over HTTP.
    let admin = bridge.admin_addr().unwrap();
    let json = [("content-type", "application/json")];
    let post = async |body: &'static str| {
        let path = "/api/v1/clients/dev/messages";
        let answer = call(admin, "POST", path, &json, body).await;
        (answer.status, answer.json())
    };
    let (status, answer) = post(r#"{"data":"a","keep":true}"#).await;
    assert_eq!(
        (status, &answer["sent"], &answer["repeated"]),
        (202, &"kept".into(), &false.into())
    );
    for is_repeated in [false, true] {
        let (status, answer) = post(r#"{"data":"b","id":"7","ttl":3600.5}"#).await;
        assert_eq!(
            (status, &answer["id"], &answer["repeated"]),
            (202, &"7".into(), &is_repeated.into())
        );
    }
    for bad in [
        r#"{"data":"b","ttl":-1}"#,
        r#"{"data":"b","ttl":0}"#,
        r#"{"data":"b","id":""}"#,
    ] {
        assert_eq!(post(bad).await.0, 400, "{bad}");
    }
    let state = get(admin, "/api/v1/clients/dev/mailbox").await.json();
    assert_eq!(state["messages"], 4);
    assert!(
        state["oldest_ms"].as_u64() > Some(1_700_000_000_000)
            && state["bytes"].as_u64() > Some(100)
    );
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    assert_eq!(device.recv().await.into_data().as_ref(), [0, 255]);
    assert_eq!(device.recv_texts(2).await, ["a", "b"]);
    let device = device.attend();
    assert_eq!(
        bridge
            .send_kept(&dev, "c".into(), KeepOptions::default())
            .await
            .unwrap()
            .sent,
        Sent::Here
    );
    device.wait_text("c").await;
    redis.wait_field("fastsock:owner", "dev").await;
    assert_eq!(
        other
            .send_kept(&dev, "d".into(), KeepOptions::default())
            .await
            .unwrap()
            .sent,
        Sent::Elsewhere
    );
    device.wait_text("d").await;
    is_empty(&redis, "dev").await;
    let lost = bridge.stats().mailbox.lost;
    assert_eq!((lost.expired, lost.total()), (1, 1));
    // Emptied by hand.
    bridge
        .send_kept(&id("away"), "x".into(), KeepOptions::default())
        .await
        .unwrap();
    let path = "/api/v1/clients/away/mailbox";
    let answer = call(admin, "DELETE", path, &json, "").await;
    assert_eq!(
        (answer.status, answer.json()["removed"].as_u64()),
        (200, Some(1))
    );
    assert_eq!(bridge.mailbox(&id("away")).await.unwrap().oldest, None);
    for bridge in [bridge, other] {
        bridge.stop(DEADLINE).await;
    }
    // Without a mailbox all that is an error that names the setting.
    let plain = start(config(&redis).mailbox(MailboxKind::Off)).await;
    let error = plain
        .send_kept(&dev, "x".into(), KeepOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_line().contains("FASTSOCK_MAILBOX"), "{error}");
    plain.stop(DEADLINE).await;
}

/// The figures of docs/mailbox.md, printed; `--nocapture` shows them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mailbox_costs_is_about_what_the_docs_say() {
    const MAILBOXES: u64 = 3;
    let redis = TempRedis::new().await;
    let used = async || {
        let mut bytes = 0;
        for key in redis.cmd::<Vec<String>>(&["KEYS", "*"]).await {
            let usage = ["MEMORY", "USAGE", &key, "SAMPLES", "0"];
            bytes += redis.cmd::<u64>(&usage).await;
        }
        bytes
    };
    let data = "x".repeat(100);
    for (node_bytes, expected) in [
        ("4096", [4_450, 4_470, 12_900]),
        ("512", [870, 2_070, 14_700]),
    ] {
        let set = ["CONFIG", "SET", "stream-node-max-bytes", node_bytes];
        redis.cmd::<()>(&set).await;
        for (messages, expected) in [1, 10, 100].into_iter().zip(expected) {
            redis.cmd::<()>(&["FLUSHALL"]).await;
            for mailbox in 0..MAILBOXES {
                let key = format!("fastsock:mbox:{{{mailbox:08}}}");
                for _ in 0..messages {
                    let send = ["EVAL", SEND_LUA, "1", &key, "bell", &data];
                    redis.cmd::<(String, u64, u64, i64)>(&send).await;
                }
            }
            let each = used().await / MAILBOXES;
            println!(
                "stream-node-max-bytes {node_bytes}: {messages} messages of 100 B: {each} B a mailbox, {} B a message",
                each / messages
            );
            let known = expected / 2..expected * 2;
            assert!(
                known.contains(&each),
                "{each} B, and the docs say {expected}"
            );
        }
    }
}

/// Without a heartbeat, whose first ping may come at any moment: the gateway asks all the same whether a message has come.
fn config(redis: &TempRedis) -> Config {
    support::on_redis(redis)
        .websocket_ping_interval(Duration::ZERO)
        .mailbox(MailboxKind::Redis)
}

/// A bridge whose links are up.
async fn start(config: Config) -> Bridge {
    let bridge = Bridge::builder(config).start().await.expect("it starts");
    eventually("its links are up", async || {
        bridge.send(&id("nobody"), "x".into()).await.is_ok()
    })
    .await;
    bridge
}

async fn gateway(redis: &TempRedis) -> Gateway {
    let gateway = Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("FASTSOCK_MAILBOX", "redis")
        .var("WEBSOCKET_PING_INTERVAL", "0")
        .start()
        .await;
    gateway.wait_line("Connected to Redis as publisher").await;
    gateway
}

async fn v2(addr: SocketAddr, token: &str) -> Device {
    let offer = [("sec-websocket-protocol", "fastsock.v1.ack, fastsock.v2.ack")];
    let device = Device::request(addr, &format!("/?token={token}"), &offer)
        .await
        .unwrap();
    assert_eq!(
        device.response_headers()["sec-websocket-protocol"],
        "fastsock.v2.ack"
    );
    device
}

fn id(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

/// As docs/mailbox.md has a backend type it.
async fn add(redis: &TempRedis, name: &str, data: &str) -> String {
    let key = format!("fastsock:mbox:{{{name}}}");
    redis
        .cmd(&["XADD", &key, "MAXLEN", "~", "1000", "*", "data", data])
        .await
}

async fn ring(redis: &TempRedis, name: &str) -> u64 {
    redis.publish(&format!("fastsock:bell:{name}"), "1").await
}

async fn length(redis: &TempRedis, name: &str) -> u64 {
    redis
        .cmd(&["XLEN", &format!("fastsock:mbox:{{{name}}}")])
        .await
}

async fn is_empty(redis: &TempRedis, name: &str) {
    eventually("the mailbox is empty", async || {
        length(redis, name).await == 0
    })
    .await;
}

/// The next message, as text.
async fn text(device: &mut RawDevice) -> String {
    loop {
        let frame = device.frame().await;
        match frame.opcode {
            opcode::TEXT => return String::from_utf8(frame.payload).unwrap(),
            opcode::PING => {} // not answered
            other => panic!("{other}"),
        }
    }
}

/// Answers the next ping.
async fn pong(device: &mut RawDevice) {
    let ping = device.frame().await;
    assert_eq!(ping.opcode, opcode::PING);
    device.send(&Frame::pong(ping.payload)).await;
}
