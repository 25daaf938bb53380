//! Calls: a message to a device and its answer in one HTTP request, on one gateway or over two.
#![allow(
    clippy::disallowed_methods,
    reason = "tests spawn onto the runtime of their test"
)]

use std::time::{Duration, Instant};

use fastsock::{
    Bridge, BrokerKind, CallMatch, ClientId, CloseReason, Config, DownlinkFull, ErrorKind,
    MetricsFormat, Payload,
};
use serde_json::{Value, json};
use support::{
    Answer, Backend, DEADLINE, Device, Frame, RawDevice, TempCluster, TempRedis, call, eventually,
    opcode,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const RESET: &str = r#"[2,"17","Reset",{"type":"Soft"}]"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_sends_an_ocpp_call_and_gets_its_result_which_is_an_uplink_too() {
    let backend = Backend::start().await;
    let bridge = start(config().remote_url(Some(backend.url()))).await;
    let mut station = Device::connect(bridge.local_addr(), "CP001").await;
    let (answer, ()) = tokio::join!(ocpp(&bridge, "CP001", RESET), async {
        assert_eq!(station.recv_text().await, RESET);
        station.send(r#"[2,"x","Heartbeat",{}]"#).await;
        station.send(r#"[3,"16",{"status":"Rejected"}]"#).await;
        station.send(r#"[3,"17",{"status":"Accepted"}]"#).await;
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.json(),
        json!({ "data": r#"[3,"17",{"status":"Accepted"}]"# })
    );
    let uplinks = backend.wait_delivered("CP001", 3).await;
    assert_eq!(uplinks[2], r#"[3,"17",{"status":"Accepted"}]"#);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callerror_is_an_answer_as_well() {
    let bridge = start(config()).await;
    let mut station = Device::connect(bridge.local_addr(), "CP001").await;
    let error = r#"[4,"17","NotSupported","",{}]"#;
    let (answer, ()) = tokio::join!(ocpp(&bridge, "CP001", RESET), async {
        station.recv_text().await;
        station.send(error).await;
    });
    assert_eq!(
        (answer.status, answer.json()),
        (200, json!({ "data": error }))
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_at_a_pointer_is_found_in_text_and_in_binary() {
    let bridge = start(config()).await;
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    let body = json!({ "data": "AP8=", "encoding": "base64", "match": { "pointer": "/re/0", "value": 7 } });
    let (answer, ()) = tokio::join!(ask(&bridge, "dev", body), async {
        assert_eq!(&device.recv().await.into_data()[..], b"\x00\xff");
        device.send(r#"{"re":["7"]}"#).await;
        device.send("no JSON").await;
        device.send_binary(&br#"{"re":[7]}"#[..]).await;
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.json(),
        json!({ "data": "eyJyZSI6WzddfQ==", "encoding": "base64" })
    );
    bridge.stop(DEADLINE).await;
}

/// The device answers from the thread that reads, so there is nothing between the call's arrival and its answer. Were the matcher armed
/// after the send, some of these would be missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_answers_at_once_is_never_missed() {
    let redis = TempRedis::new().await;
    let (here, there) = (
        start_on(config(), &redis).await,
        start_on(config(), &redis).await,
    );
    let device = Device::connect(here.local_addr(), "dev").await;
    let echo = tokio::spawn(echo(device));
    redis.wait_field("fastsock:owner", "dev").await;
    for n in 0..300 {
        let bridge = if n % 3 == 0 { &there } else { &here };
        let matcher = CallMatch::pointer("/n", &n.to_string()).unwrap();
        let payload = Payload::text(json!({ "n": n }).to_string());
        let time = Some(Duration::from_secs(5));
        let answer = bridge.call(&id("dev"), payload, &matcher, time).await;
        assert_eq!(answer.unwrap().to_text(), json!({ "n": n }).to_string());
    }
    here.stop(DEADLINE).await;
    there.stop(DEADLINE).await;
    echo.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_need_not_be_the_gateway_that_has_the_device() {
    let redis = TempRedis::new().await;
    let (asked, other) = (
        start_on(config(), &redis).await,
        start_on(config(), &redis).await,
    );
    let mut station = Device::connect(other.local_addr(), "CP001").await;
    redis.wait_field("fastsock:owner", "CP001").await;
    for answer in [
        r#"[3,"17",{"status":"Accepted"}]"#,
        r#"[4,"17","GenericError","",{}]"#,
    ] {
        let (answered, ()) = tokio::join!(ocpp(&asked, "CP001", RESET), async {
            assert_eq!(station.recv_text().await, RESET);
            station.send(r#"[3,"16",{}]"#).await;
            station.send(answer).await;
        });
        assert_eq!(answered.status, 200, "{}", answered.text());
        assert_eq!(answered.json(), json!({ "data": answer }));
    }
    // What is refused there is refused here, and what ends there ends here.
    let waiting = tokio::spawn({
        let asked = asked.clone();
        async move { ocpp(&asked, "CP001", RESET).await }
    });
    station.recv_text().await;
    let second = ocpp(&asked, "CP001", r#"[2,"18","Reset",{"type":"Soft"}]"#).await;
    assert_eq!(second.status, 429, "{}", second.text());
    assert!(second.text().contains("OCPP call"), "{}", second.text());
    let owner = redis.wait_field("fastsock:owner", "CP001").await;
    drop(station);
    let ended = waiting.await.unwrap();
    assert_eq!(ended.status, 504, "{}", ended.text());
    assert!(ended.text().contains("ended before"), "{}", ended.text());
    let mut station = Device::connect(other.local_addr(), "CP001").await;
    eventually("its new session is known", async || {
        let now = redis.hget("fastsock:owner", "CP001").await;
        now.is_some_and(|now| now != owner)
    })
    .await;
    // Time enough for the call to get there, however busy the machine is.
    let body = json!({ "data": RESET, "ocpp": true, "timeout": 1000 });
    let late = ask(&asked, "CP001", body).await;
    assert_eq!(late.status, 504, "{}", late.text());
    assert_eq!(station.recv_text().await, RESET);
    asked.stop(DEADLINE).await;
    other.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_gone_or_frozen_has_nobody_waiting_for_long() {
    let redis = TempRedis::new().await;
    let bridge = start_on(config(), &redis).await;
    // As a gateway that was killed leaves it.
    let owner = redis.cmd::<u64>(&["HSET", "fastsock:owner", "gone", "nobody:1:1"]);
    assert_eq!(owner.await, 1);
    let answer = ocpp(&bridge, "gone", RESET).await;
    assert_eq!(answer.status, 410, "{}", answer.text());
    // As one that hears and says nothing.
    let mut listener = TcpStream::connect(("127.0.0.1", redis.port()))
        .await
        .unwrap();
    let subscribe = listener.write_all(b"SUBSCRIBE fastsock:probe:frozen\r\n");
    subscribe.await.unwrap();
    redis.wait_subscribed("fastsock:probe:frozen", 1).await;
    let owner = redis.cmd::<u64>(&["HSET", "fastsock:owner", "held", "frozen:1:1"]);
    assert_eq!(owner.await, 1);
    let began = Instant::now();
    let answer = ocpp(&bridge, "held", RESET).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(8));
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_carries_calls_too() {
    let cluster = TempCluster::new().await;
    let on = || {
        config()
            .broker(BrokerKind::Redis)
            .redis_url(Some(cluster.url().into()))
    };
    let (asked, other) = (start_up(on()).await, start_up(on()).await);
    let mut station = Device::connect(other.local_addr(), "CP001").await;
    let (answered, ()) = tokio::join!(ocpp(&asked, "CP001", RESET), async {
        assert_eq!(station.recv_text().await, RESET);
        station.send(r#"[3,"17",{}]"#).await;
    });
    assert_eq!(answered.status, 200, "{}", answered.text());
    asked.stop(DEADLINE).await;
    other.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_to_who_is_offline_and_no_answer_is_another_thing() {
    let bridge = start(config()).await;
    assert_eq!(ocpp(&bridge, "CP001", RESET).await.status, 410);
    let mut station = Device::connect(bridge.local_addr(), "CP001").await;
    let began = Instant::now();
    let body = json!({ "data": RESET, "ocpp": true, "timeout": 200 });
    let answer = ask(&bridge, "CP001", body).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("in time"), "{}", answer.text());
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert_eq!(station.recv_text().await, RESET);
    // The time is over, so the next call may be made; a late answer is nobody's.
    station.send(r#"[3,"17",{"late":true}]"#).await;
    let next = r#"[2,"18","Reset",{"type":"Soft"}]"#;
    let (answer, ()) = tokio::join!(ocpp(&bridge, "CP001", next), async {
        station.recv_text().await;
        station.send(r#"[3,"18",{}]"#).await;
    });
    assert_eq!(answer.json(), json!({ "data": r#"[3,"18",{}]"# }));
    let metrics = bridge.metrics(MetricsFormat::Text);
    for sample in [
        r#"fastsock_calls_total{result="answered"} 1"#,
        r#"fastsock_calls_total{result="offline"} 1"#,
        r#"fastsock_calls_total{result="timed_out"} 1"#,
        r#"fastsock_calls_total{result="failed"} 0"#,
        "fastsock_calls_waiting 0",
        "fastsock_call_seconds_count 1",
    ] {
        assert!(metrics.contains(sample), "{sample} in {metrics}");
    }
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_ends_its_calls_at_once() {
    let bridge = start(config()).await;
    let mut station = Device::connect(bridge.local_addr(), "CP001").await;
    let (answer, ()) = tokio::join!(ocpp(&bridge, "CP001", RESET), async {
        station.recv_text().await;
        assert!(bridge.disconnect(&id("CP001"), CloseReason::Kicked));
    });
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("ended before"), "{}", answer.text());
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_replaces_another_answers_its_calls() {
    let bridge = start(config()).await;
    let mut old = Device::connect(bridge.local_addr(), "CP001").await;
    let (answer, _new) = tokio::join!(ocpp(&bridge, "CP001", RESET), async {
        old.recv_text().await;
        let mut new = Device::connect(bridge.local_addr(), "CP001").await;
        new.send(r#"[3,"17",{"status":"Accepted"}]"#).await;
        new
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_limited_for_each_device_and_gateway() {
    let limits = config().limit_calls(3usize).limit_calls_per_device(2usize);
    let bridge = start(limits).await;
    let mut devices = Vec::new();
    for name in ["a", "b"] {
        devices.push(Device::connect(bridge.local_addr(), name).await);
    }
    let of = |name: &'static str, n: u32| {
        let bridge = bridge.clone();
        tokio::spawn(async move { ask(&bridge, name, numbered(n)).await })
    };
    let first = [of("a", 1), of("a", 2)];
    devices[0].recv_texts(2).await;
    let third = of("a", 3).await.unwrap();
    assert_eq!(third.status, 429, "{}", third.text());
    assert!(third.text().contains("FASTSOCK_LIMIT_CALLS_PER_DEVICE"));
    let second = of("b", 4);
    devices[1].recv_text().await;
    let fifth = of("b", 5).await.unwrap();
    assert_eq!(fifth.status, 429, "{}", fifth.text());
    assert!(fifth.text().contains("FASTSOCK_LIMIT_CALLS:"));
    // Each that is answered makes room for another.
    for n in [1, 2] {
        devices[0].send(json!({ "n": n }).to_string()).await;
    }
    for call in first {
        assert_eq!(call.await.unwrap().status, 200);
    }
    let sixth = of("a", 6);
    devices[0].recv_text().await;
    devices[0].send(json!({ "n": 6 }).to_string()).await;
    devices[1].send(json!({ "n": 4 }).to_string()).await;
    assert_eq!(sixth.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    bridge.stop(DEADLINE).await;
}

/// A station must not get a second call while it has one to answer, whether the first caller waits for that or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_station_has_one_call_at_a_time_also_when_who_asked_has_gone() {
    let bridge = start(config()).await;
    let mut station = Device::connect(bridge.local_addr(), "CP001").await;
    let gone = tokio::spawn({
        let bridge = bridge.clone();
        async move { ocpp(&bridge, "CP001", RESET).await }
    });
    station.recv_text().await;
    gone.abort();
    let _ = gone.await;
    let next = r#"[2,"18","Reset",{"type":"Soft"}]"#;
    let refused = ocpp(&bridge, "CP001", next).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    // Calls of another kind are not OCPP's business.
    let (other, ()) = tokio::join!(ask(&bridge, "CP001", numbered(1)), async {
        station.recv_text().await;
        station.send(r#"{"n":1}"#).await;
    });
    assert_eq!(other.status, 200);
    station.send(r#"[3,"17",{}]"#).await;
    let (answer, ()) = tokio::join!(
        async {
            eventually("the answer ends the first call", async || {
                let answer = ocpp(&bridge, "CP001", next).await;
                (answer.status != 429).then_some(answer)
            })
            .await
        },
        async {
            station.recv_text().await;
            station.send(r#"[3,"18",{}]"#).await;
        }
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_cannot_be_is_refused_before_anything_is_sent() {
    let bridge = start(config()).await;
    let device = Device::connect(bridge.local_addr(), "dev").await.attend();
    let big = "x".repeat((16 << 20) + 1);
    for (body, status) in [
        (json!({ "data": "x" }), 400),
        (json!({ "data": "x", "ocpp": true }), 400),
        (json!({ "data": r#"[3,"1",{}]"#, "ocpp": true }), 400),
        (json!({ "data": RESET, "ocpp": true, "timeout": 0 }), 400),
        (
            json!({ "data": RESET, "ocpp": true, "timeout": 600_001 }),
            400,
        ),
        (json!({ "data": RESET, "ocpp": true, "x": 1 }), 400),
        (
            json!({ "data": "x", "match": { "pointer": "id", "value": 1 } }),
            400,
        ),
        (json!({ "data": "x", "match": { "pointer": "/id" } }), 400),
        (
            json!({ "data": RESET, "ocpp": true, "match": { "pointer": "/id", "value": 1 } }),
            400,
        ),
        (
            json!({ "data": "?", "encoding": "base64", "match": { "pointer": "/id", "value": 1 } }),
            400,
        ),
        (
            json!({ "data": big, "match": { "pointer": "/id", "value": 1 } }),
            413,
        ),
    ] {
        let answer = ask(&bridge, "dev", body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let path = "/api/v1/clients/dev/call";
    let admin = bridge.admin_addr().unwrap();
    assert_eq!(call(admin, "GET", path, &[], "").await.status, 405);
    let raw = [("content-type", "application/octet-stream")];
    assert_eq!(call(admin, "POST", path, &raw, RESET).await.status, 415);
    bridge.send(&id("dev"), "last".into()).await.unwrap();
    assert_eq!(device.wait_texts(1).await, ["last"]);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_outbox_refuses_a_call() {
    let limits = config()
        .outbox_messages(1usize)
        .outbox_total_bytes(0usize)
        .downlink_full(DownlinkFull::DropNewest);
    let bridge = start(limits).await;
    // It reads nothing, so its socket fills, and then its outbox.
    let stalled = RawDevice::seated(bridge.local_addr(), "dev").await;
    let large = Payload::binary(vec![0; 1 << 20]);
    eventually("its outbox is full", async || {
        bridge.send(&id("dev"), large.clone()).await.is_err()
    })
    .await;
    let answer = ask(&bridge, "dev", numbered(1)).await;
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert!(answer.text().contains("outbox"), "{}", answer.text());
    drop(stalled);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_an_envelope_is_found_and_acknowledged() {
    let backend = Backend::start().await;
    let bridge = start(config().ack(true).remote_url(Some(backend.url()))).await;
    let offer = [("sec-websocket-protocol", "fastsock.v2.ack")];
    let connected = Device::request(bridge.local_addr(), "/?token=dev", &offer).await;
    let mut device = connected.unwrap();
    let (answer, ()) = tokio::join!(ask(&bridge, "dev", numbered(1)), async {
        assert_eq!(device.recv_text().await, r#"{"data":"{\"n\":1}"}"#);
        device.send(r#"{"id":"u1","data":"{\"n\":1}"}"#).await;
        assert_eq!(device.recv_text().await, r#"{"ack":"u1"}"#);
    });
    assert_eq!(answer.json(), json!({ "data": r#"{"n":1}"# }));
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_that_stops_ends_the_calls_that_wait() {
    let redis = TempRedis::new().await;
    let (asked, other) = (
        start_on(config(), &redis).await,
        start_on(config(), &redis).await,
    );
    let mut here = RawDevice::seated(asked.local_addr(), "here").await;
    let mut there = RawDevice::seated(other.local_addr(), "there").await;
    redis.wait_field("fastsock:owner", "there").await;
    let (asked_too, bridge) = (asked.clone(), asked.clone());
    let matcher = CallMatch::pointer("/n", "1").unwrap();
    let (of_here, of_there) = (matcher.clone(), matcher);
    let calls = [
        tokio::spawn(async move { bridge.call(&id("here"), "x".into(), &of_here, None).await }),
        tokio::spawn(async move {
            asked_too
                .call(&id("there"), "x".into(), &of_there, None)
                .await
        }),
    ];
    for device in [&mut here, &mut there] {
        assert_eq!(device.frame().await.opcode, opcode::TEXT);
    }
    asked.request_stop();
    assert_eq!(here.frame().await.opcode, opcode::CLOSE);
    here.send(&Frame::close(1001, "")).await;
    asked.stop(DEADLINE).await;
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        let kind = error.kind();
        assert!(
            matches!(kind, ErrorKind::Stopped | ErrorKind::Unanswered),
            "{error}"
        );
    }
    other.stop(DEADLINE).await;
}

/// As many calls wait as the listener has places for others, and it still answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_hold_no_place_of_the_admin_listener() {
    let bridge = start(config().limit_calls_per_device(1000usize)).await;
    let device = RawDevice::seated(bridge.local_addr(), "dev").await;
    let calls: Vec<_> = (0..300)
        .map(|n| {
            let bridge = bridge.clone();
            tokio::spawn(async move { ask(&bridge, "dev", numbered(n)).await })
        })
        .collect();
    eventually("they wait", async || {
        let waiting = bridge.stats().downlink;
        waiting.received == 300
    })
    .await;
    let stats = support::get(bridge.admin_addr().unwrap(), "/api/v1/stats").await;
    assert_eq!(stats.status, 200);
    drop(device);
    for call in calls {
        assert_eq!(call.await.unwrap().status, 504);
    }
    bridge.stop(DEADLINE).await;
}

/// Says back what it hears, until the end.
async fn echo(mut device: Device) {
    while let Some(message) = device.next().await {
        if message.is_text() {
            device.send_message(message).await;
        }
    }
}

fn numbered(n: u32) -> Value {
    let data = json!({ "n": n }).to_string();
    json!({ "data": data, "match": { "pointer": "/n", "value": n } })
}

async fn ocpp(bridge: &Bridge, client_id: &str, data: &str) -> Answer {
    ask(bridge, client_id, json!({ "data": data, "ocpp": true })).await
}

async fn ask(bridge: &Bridge, client_id: &str, body: Value) -> Answer {
    let path = format!("/api/v1/clients/{client_id}/call");
    let json = [("content-type", "application/json")];
    let admin = bridge.admin_addr().expect("an admin listener");
    call(admin, "POST", &path, &json, body.to_string()).await
}

/// Without a heartbeat: its first ping may come at any moment.
fn config() -> Config {
    support::loopback()
        .websocket_ping_interval(Duration::ZERO)
        .admin_addr(Some(([127, 0, 0, 1], 0).into()))
}

async fn start(config: Config) -> Bridge {
    let config = config.broker(BrokerKind::Embedded);
    Bridge::builder(config).start().await.expect("it starts")
}

async fn start_on(config: Config, redis: &TempRedis) -> Bridge {
    start_up(config.broker(BrokerKind::Redis).redis_port(redis.port())).await
}

/// A bridge whose links are up.
async fn start_up(config: Config) -> Bridge {
    let bridge = Bridge::builder(config).start().await.expect("it starts");
    eventually("its links are up", async || {
        let redis = bridge.status().redis;
        redis.is_some_and(|redis| redis.is_cmd_up && redis.is_sub_up)
    })
    .await;
    bridge
}

fn id(name: &str) -> ClientId {
    ClientId::new(name).expect("a name")
}
