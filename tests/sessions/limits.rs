//! What one peer can take, and what happens when there is nothing left to take.

use std::time::Duration;

use support::{
    Backend, Device, End, Frame, Gateway, GatewayBuilder, RawDevice, TempRedis, eventually, opcode,
};
use tokio::time::Instant;

#[tokio::test]
async fn a_handshake_that_does_not_end_is_dropped_after_its_time() {
    let gateway = alone()
        .var("FASTSOCK_LIMIT_HANDSHAKE_TIME", "1500")
        .start()
        .await;
    let request = RawDevice::upgrade_request("/?token=dev1", &[]);
    let begun = Instant::now();
    let mut silent = RawDevice::connect(gateway.addr()).await;
    let mut half = RawDevice::connect(gateway.addr()).await;
    half.write(&request[..request.len() / 2]).await;
    let mut dripping = RawDevice::connect(gateway.addr()).await;
    let drip = async {
        for byte in request.bytes().cycle() {
            if dripping.try_write([byte]).await.is_err() {
                return; // the time is not begun anew by each byte
            }
            tokio::time::sleep(Duration::from_millis(10)).await; // slowness is what is tested
        }
    };
    let (rest_of_silent, rest_of_half, ()) =
        tokio::join!(silent.read_to_end(), half.read_to_end(), drip);
    assert_eq!((rest_of_silent, rest_of_half), (vec![], vec![]));
    assert!(begun.elapsed() > Duration::from_millis(1490));
    Device::connect(gateway.addr(), "dev1").await;
}

#[tokio::test]
async fn many_half_open_handshakes_hold_up_nobody() {
    let gateway = alone()
        .var("FASTSOCK_LIMIT_HANDSHAKE_TIME", "2000")
        .start()
        .await;
    let mut half_open = Vec::new();
    for _ in 0..300 {
        let mut device = RawDevice::connect(gateway.addr()).await;
        device.write("GET /?token=").await;
        half_open.push(device);
    }
    Device::connect(gateway.addr(), "dev1").await;
    let open_files = gateway.process().open_files();
    assert!(open_files > 300, "{open_files}");
    eventually("they are gone", async || {
        gateway.process().open_files() < open_files - 299
    })
    .await;
}

#[tokio::test]
async fn a_head_without_end_is_refused_at_its_limit_and_the_answer_is_not_overtaken_by_a_reset() {
    let gateway = alone().start().await;
    let before = gateway.process().resident_bytes();
    for _ in 0..20 {
        let mut device = RawDevice::connect(gateway.addr()).await;
        let endless = ["GET /?token=x HTTP/1.1\r\nA: ", &"a".repeat(4 << 20)].concat();
        let _ = device.try_write(endless).await;
        let answer = device.read_to_end().await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let grown = gateway.process().resident_bytes().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
}

#[tokio::test]
async fn a_head_may_be_just_as_long_as_its_limit() {
    let gateway = alone()
        .var("FASTSOCK_LIMIT_HEAD_BYTES", "400")
        .start()
        .await;
    let padded = |length: usize| {
        let bare = RawDevice::upgrade_request("/?token=dev1", &["A: "]).len();
        RawDevice::upgrade_request(
            "/?token=dev1",
            &[&format!("A: {}", "a".repeat(length - bare))],
        )
    };
    for (length, status) in [(399, 101), (400, 101), (401, 431), (4000, 431)] {
        let mut device = RawDevice::connect(gateway.addr()).await;
        device.write(padded(length)).await;
        let head = device.read_head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{length}: {head}"
        );
    }
    // The request has five header fields of its own; 100 is the limit.
    let gateway = alone().start().await;
    for (more, status) in [(95, 101), (96, 431)] {
        let lines = vec!["A: b"; more];
        let mut device = RawDevice::connect(gateway.addr()).await;
        device
            .write(RawDevice::upgrade_request("/?token=dev1", &lines))
            .await;
        let head = device.read_head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{more} more: {head}"
        );
    }
}

#[tokio::test]
async fn a_message_may_be_just_as_long_as_its_limit() {
    let backend = Backend::start().await;
    let gateway = alone()
        .var("REMOTE_URL", backend.url())
        .var("FASTSOCK_LIMIT_MESSAGE_BYTES", "1000")
        .start()
        .await;
    let mut device = RawDevice::seated(gateway.addr(), "dev1").await;
    device.send(&Frame::text("x".repeat(1000))).await;
    device
        .send(&Frame::text("x".repeat(600)).unfinished())
        .await;
    device.send(&Frame::continuation("x".repeat(400))).await;
    assert_eq!(
        backend.wait_delivered("dev1", 2).await,
        ["x".repeat(1000), "x".repeat(1000)]
    );
    device.send(&Frame::text("x".repeat(1001))).await;
    assert_eq!(device.end().await, End::Close(Some(1009), "too_big".into()));

    let mut device = RawDevice::seated(gateway.addr(), "dev2").await;
    device
        .send(&Frame::text("x".repeat(600)).unfinished())
        .await;
    device
        .send(&Frame::continuation("x".repeat(401)).unfinished())
        .await;
    assert_eq!(device.end().await, End::Close(Some(1009), "too_big".into()));
    assert!(backend.requests_of("dev2").is_empty());
}

#[tokio::test]
async fn without_descriptors_it_serves_who_is_there_waits_without_spinning_and_recovers() {
    let redis = TempRedis::new().await;
    let gateway = alone()
        .without("FASTSOCK_BROKER")
        .var("REDIS_PORT", redis.port().to_string())
        .var("WEBSOCKET_PING_INTERVAL", "0")
        .var("FASTSOCK_LIMIT_CONNECTIONS", "1000000") // so that it is the descriptors that end
        .var("FASTSOCK_LIMIT_HANDSHAKE_TIME", "60000")
        .descriptors(100, 100)
        .start()
        .await;
    gateway.wait_line("Connected to Redis as subscriber").await;
    let mut device = Device::connect(gateway.addr(), "first").await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(RawDevice::connect(gateway.addr()).await); // the kernel accepts them for it
    }
    gateway
        .wait_line_where("it says so", |line| {
            line["level"] == "warn"
                && line["message"]
                    .as_str()
                    .unwrap()
                    .contains("out of descriptors")
        })
        .await;
    let (before, begun) = (gateway.process().cpu_time(), Instant::now());
    let mut served = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        redis
            .publish("fastsock:client:first", served.to_string())
            .await;
        assert_eq!(device.recv_text().await, served.to_string());
        served += 1;
        tokio::time::sleep(Duration::from_millis(20)).await; // so that it could idle
    }
    let used = gateway.process().cpu_time() - before;
    assert!(
        used < Duration::from_millis(800),
        "{used:?} in {:?}",
        begun.elapsed()
    );
    let told = gateway
        .lines()
        .iter()
        .filter(|line| {
            line["message"]
                .as_str()
                .unwrap()
                .contains("out of descriptors")
        })
        .count();
    assert!(told < 5, "{told} lines");

    drop(crowd);
    // While none are left, a connection that waits may be reset to make room: who comes then has to try again.
    let mut late = eventually("it serves again", async || {
        let late = RawDevice::try_seated(gateway.addr(), "late");
        tokio::time::timeout(Duration::from_secs(1), late)
            .await
            .ok()?
            .ok()
    })
    .await;
    redis.publish("fastsock:client:late", "welcome").await;
    assert_eq!(late.frame().await.payload, b"welcome"[..]);
    redis.publish("fastsock:client:first", "still here").await;
    assert_eq!(device.recv_text().await, "still here");
}

#[tokio::test]
async fn a_crowd_at_the_door_leaves_descriptors_for_the_backend() {
    let backend = Backend::start().await;
    let gateway = alone()
        .var("REMOTE_URL", backend.url())
        .var("WEBSOCKET_PING_INTERVAL", "0")
        .var("FASTSOCK_CLOSE_TIMEOUT", "20000") // the refused ones stay as long as they may
        .descriptors(120, 120)
        .start()
        .await;
    let mut seated = Vec::new();
    let mut refused = Vec::new();
    for number in 0..300 {
        let mut device = RawDevice::connect(gateway.addr()).await;
        let request = RawDevice::upgrade_request(&format!("/?token=dev{number}"), &[]);
        let _ = device.try_write(request).await;
        if seated.len() < 56 {
            let head = device.read_head().await;
            assert!(head.starts_with("HTTP/1.1 101 "), "{number}: {head}");
            seated.push(device);
        } else {
            refused.push(device); // does not read, does not go
        }
    }
    // Each of them is told, or cut where there are too many to wait for; none is left waiting.
    let mut told = 0;
    for device in &mut refused {
        let answer = String::from_utf8(device.read_to_end().await).unwrap();
        if !answer.is_empty() {
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.contains("\r\nRetry-After: "), "{answer}");
            told += 1;
        }
    }
    assert!(told >= 16, "{told}");
    for (number, device) in seated.iter_mut().enumerate().take(10) {
        device.send(&Frame::text("hello")).await;
        assert_eq!(
            backend.wait_delivered(&format!("dev{number}"), 1).await,
            ["hello"]
        );
    }
    seated[0].send(&Frame::ping("")).await;
    assert_eq!(seated[0].frame().await.opcode, opcode::PONG);
}

fn alone() -> GatewayBuilder {
    Gateway::builder().var("FASTSOCK_BROKER", "embedded")
}
