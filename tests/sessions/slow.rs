//! Devices that do not read.

use std::{fs, time::Duration};

use fastsock::{Bridge, ClientId, Config, DownlinkFull, Payload, Sent};
use support::{
    DEADLINE, Device, End, Frame, Gateway, GatewayBuilder, RawDevice, TempRedis, eventually, opcode,
};
use tokio::time::Instant;

#[tokio::test]
async fn a_device_that_never_reads_192_mib_is_closed_and_nobody_else_notices() {
    let (redis, gateway) = start(Gateway::builder()).await;
    let mut deaf = deaf(&gateway, "deaf").await;
    let grown = flood(&redis, &gateway).await;
    assert!(grown < MOST_SURPLUS + MOST_GROWTH, "{grown} bytes");
    let line = gateway.wait_line("Client disconnected").await;
    assert_eq!(
        (&line["client_id"], &line["reason"]),
        (&"deaf".into(), &"slow_consumer".into())
    );
    assert_eq!(line["code"], 4413);
    redis.wait_no_field("fastsock:clients", "deaf").await;
    // It was told, as far as it can be told: its socket was full.
    let (frames, end) = deaf.drain().await;
    assert!(frames.iter().all(|frame| frame.opcode == opcode::TEXT));
    assert!(
        matches!(end, End::Close(Some(4413), _) | End::Eof | End::Reset),
        "{end:?}"
    );
}

#[tokio::test]
async fn with_drop_oldest_it_stays_and_costs_no_more_than_its_outbox() {
    let builder = Gateway::builder()
        .var("FASTSOCK_DOWNLINK_FULL", "drop_oldest")
        .var("FASTSOCK_OUTBOX_TOTAL_BYTES", "0")
        .var("FASTSOCK_WRITE_TIMEOUT", "60000");
    let (redis, gateway) = start(builder).await;
    let mut deaf = deaf(&gateway, "deaf").await;
    let grown = flood(&redis, &gateway).await;
    assert!(grown < MOST_GROWTH, "{grown} bytes");
    redis.publish("fastsock:client:deaf", "the last").await;
    let mut frames = 0;
    loop {
        let frame = deaf.frame().await;
        frames += 1;
        if frame.payload == b"the last" {
            break;
        }
    }
    assert!(frames < FLOOD, "some were dropped");
}

#[tokio::test]
async fn a_full_outbox_that_is_read_in_time_brings_the_code() {
    let bridge = bridge(Config::default().outbox_total_bytes(0usize)).await;
    let mut deaf = deaf_of(&bridge).await;
    let mut sent = 0;
    while bridge.send(&id(), message(sent)).await.is_ok() {
        sent += 1;
    }
    let (frames, end) = deaf.drain().await;
    assert_eq!(end, End::Close(Some(4413), "slow_consumer".into()));
    assert!(
        numbers(&frames).eq(0..frames.len()),
        "what came before it is in order"
    );
    eventually("it has left", async || bridge.clients().is_empty()).await;
    let downlink = bridge.stats().downlink;
    assert_eq!(downlink.received, sent as u64 + 1);
    assert_eq!(downlink.lost.full, 1);
    assert_eq!(
        downlink.delivered + downlink.lost.total(),
        downlink.received
    );
    assert_eq!(bridge.stats().sessions.closed["slow_consumer"], 1);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn drop_oldest_keeps_the_newest_and_the_order() {
    let bridge = bridge(strict(DownlinkFull::DropOldest)).await;
    let mut deaf = deaf_of(&bridge).await;
    for number in 0..1000 {
        bridge.send(&id(), message(number)).await.unwrap();
    }
    let lost = bridge.stats().downlink.lost.full as usize;
    assert!(lost > 0, "the kernel took it all");
    let mut seen = Vec::new();
    while seen.last() != Some(&999) {
        seen.extend(numbers(&[deaf.frame().await]));
    }
    assert!(seen.is_sorted());
    assert_eq!(seen.len() + lost, 1000);
    let kept: Vec<_> = (936..1000).collect(); // 16 KiB each in an outbox of 1 MiB
    assert!(seen.ends_with(&kept[2..]), "{:?}", &seen[seen.len() - 80..]);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn drop_newest_keeps_the_oldest_and_the_order() {
    let bridge = bridge(strict(DownlinkFull::DropNewest)).await;
    let mut deaf = deaf_of(&bridge).await;
    let mut taken = 0;
    for number in 0..1000 {
        match bridge.send(&id(), message(number)).await {
            Ok(_) => taken += 1,
            Err(error) => assert_eq!(error.kind(), fastsock::ErrorKind::OutboxFull),
        }
    }
    let lost = bridge.stats().downlink.lost.full as usize;
    assert_eq!((taken + lost, lost > 0), (1000, true));
    let mut seen = Vec::new();
    while seen.len() < taken {
        seen.extend(numbers(&[deaf.frame().await]));
    }
    assert!(seen.is_sorted());
    assert!(
        seen.iter().take(taken / 2).copied().eq(0..taken / 2),
        "the first ones are all there"
    );
    bridge
        .send(&id(), "there is room again".into())
        .await
        .unwrap();
    assert_eq!(deaf.frame().await.payload, b"there is room again");
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_device_that_takes_no_byte_for_the_write_timeout_is_closed() {
    const TIMEOUT: Duration = Duration::from_millis(1500);
    let bridge = bridge(Config::default().write_timeout(TIMEOUT)).await;
    let mut deaf = deaf_of(&bridge).await;
    let took = fill(&bridge).await;
    eventually("it has left", async || bridge.clients().is_empty()).await;
    assert!(took.elapsed() >= TIMEOUT, "{:?}", took.elapsed());
    assert_eq!(
        deaf.end().await,
        End::Close(Some(4413), "slow_consumer".into())
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_device_that_reads_slowly_but_steadily_is_not_closed() {
    let bridge = bridge(Config::default().write_timeout(Duration::from_millis(1500))).await;
    let mut slow = deaf_of(&bridge).await;
    fill(&bridge).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(4000) {
        slow.read_exact(64 << 10).await;
        tokio::time::sleep(Duration::from_millis(50)).await; // slowness is what is tested
        while bridge.stats().downlink.held < 32 {
            let sent = bridge.send(&id(), message(0)).await.unwrap();
            assert_eq!(sent, Sent::Here, "{:?}", bridge.stats());
        }
    }
    assert_eq!(bridge.clients().len(), 1);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_stuck_device_does_not_hold_up_the_end() {
    let bridge = bridge(Config::default().close_timeout(Duration::from_millis(300))).await;
    let _deaf = deaf_of(&bridge).await;
    fill(&bridge).await;
    let begun = Instant::now();
    assert!(bridge.stop(DEADLINE).await.is_empty());
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    let stats = bridge.stats();
    let (downlink, told) = (stats.downlink, stats.counters.downlinks_late);
    assert_eq!((downlink.held, downlink.passed_on), (0, told));
    assert!(told > 0);
}

#[tokio::test]
async fn a_device_that_pings_and_never_reads_fills_no_memory() {
    let (_redis, gateway) = start(Gateway::builder().var("FASTSOCK_WRITE_TIMEOUT", "600000")).await;
    let mut deaf = deaf(&gateway, "deaf").await;
    let before = most_resident(&gateway);
    let many = Frame::ping(vec![b'x'; 125]).encode().repeat(500);
    for _ in 0..PINGS_BYTES / many.len() {
        deaf.write(&many).await;
    }
    deaf.send(&Frame::ping("the last")).await;
    deaf.send(&Frame::text("all pings are read by now")).await;
    gateway
        .wait_line("Message forwarding skipped: no REMOTE_URL set")
        .await;
    let grown = most_resident(&gateway) - before;
    assert!(grown < MOST_GROWTH / 2, "{grown} bytes");
    // RFC 6455 §5.5.3: only the latest ping needs its pong.
    loop {
        let frame = deaf.frame().await;
        assert_eq!(frame.opcode, opcode::PONG);
        if frame.payload == b"the last" {
            break;
        }
    }
}

/// Publishes 192 MiB to `deaf` as fast as Redis takes them, and looks meanwhile after a device that reads. Tells how much
/// the gateway has grown at its greatest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_downlink_waits_for_the_rest_of_a_pong() {
    const PINGS: usize = 10_000;
    let bridge = bridge(Config::default().write_timeout(Duration::from_secs(120))).await;
    let mut device = deaf_of(&bridge).await;
    let pings: Vec<u8> = (0..PINGS)
        .flat_map(|_| Frame::ping([b'p'; 125]).encode())
        .collect();
    device.write(pings).await;
    device.send(&Frame::text("that was all")).await;
    // Pongs fill the socket, and the last of them is in it in part.
    eventually("all pings are read", async || {
        bridge.stats().uplink.received == 1
    })
    .await;
    let client_id = ClientId::new("deaf").unwrap();
    for _ in 0..200 {
        let sent = bridge.send(&client_id, "d".repeat(999).into()).await;
        assert_eq!(sent.unwrap(), Sent::Here);
    }
    let (mut pongs, mut downlinks) = (0, 0);
    while downlinks < 200 {
        let frame = device.frame().await;
        match (frame.opcode, frame.payload.len()) {
            (opcode::PONG, 125) => pongs += 1,
            (opcode::TEXT, 999) => downlinks += 1,
            other => panic!("after {pongs} pongs and {downlinks} downlinks: {other:?}"),
        }
    }
    assert!(pongs < PINGS, "more than the socket takes");
    bridge.stop(DEADLINE).await;
}

async fn flood(redis: &TempRedis, gateway: &Gateway) -> u64 {
    let mut other = Device::connect(gateway.addr(), "other").await;
    let (before, mut longest) = (most_resident(gateway), Duration::ZERO);
    let payload = "x".repeat(64 << 10);
    let mut connection = redis.connection().await;
    for _ in 0..FLOOD / 16 {
        let mut publish = redis::pipe();
        for _ in 0..16 {
            publish.publish("fastsock:client:deaf", &payload).ignore();
        }
        publish.publish("fastsock:client:other", "tick").ignore();
        publish.exec_async(&mut connection).await.unwrap();
        let published = Instant::now();
        assert_eq!(other.recv_text().await, "tick");
        longest = longest.max(published.elapsed());
    }
    assert!(
        longest < Duration::from_secs(3),
        "another device waited for {longest:?}"
    );
    most_resident(gateway) - before
}

pub(crate) async fn start(builder: GatewayBuilder) -> (TempRedis, Gateway) {
    let redis = TempRedis::new().await;
    let gateway = builder
        .var("REDIS_PORT", redis.port().to_string())
        .var("WEBSOCKET_PING_INTERVAL", "0")
        .var("FASTSOCK_LOG_PAYLOADS", "none")
        .start()
        .await;
    gateway.wait_line("Connected to Redis as subscriber").await;
    (redis, gateway)
}

pub(crate) async fn deaf(gateway: &Gateway, token: &str) -> RawDevice {
    let mut device = RawDevice::connect_with_buffer(gateway.addr(), 4096).await;
    let request = RawDevice::upgrade_request(&format!("/?token={token}"), &[]);
    device.write(request).await;
    assert!(device.read_head().await.starts_with("HTTP/1.1 101 "));
    device
}

/// Nothing beyond the bounds of an outbox.
fn strict(policy: DownlinkFull) -> Config {
    Config::default()
        .downlink_full(policy)
        .outbox_total_bytes(0usize)
}

async fn bridge(config: Config) -> Bridge {
    let config = config
        .websocket_port(0u16)
        .websocket_ping_interval(Duration::ZERO);
    Bridge::builder(config).start().await.unwrap()
}

async fn deaf_of(bridge: &Bridge) -> RawDevice {
    let mut device = RawDevice::connect_with_buffer(bridge.local_addr(), 4096).await;
    device
        .write(RawDevice::upgrade_request("/?token=deaf", &[]))
        .await;
    device.read_head().await;
    device
}

/// Sends until the socket takes no more and the outbox holds some. Returns a moment after which it still took something.
async fn fill(bridge: &Bridge) -> Instant {
    let (mut number, mut taken) = (0, 0);
    let (mut looked, mut took) = (Instant::now(), Instant::now());
    eventually("its outbox holds some", async || {
        for _ in 0..4 {
            bridge.send(&id(), message(number)).await.unwrap();
            number += 1;
        }
        let downlink = bridge.stats().downlink;
        if downlink.delivered > taken {
            (taken, took) = (downlink.delivered, looked);
        }
        looked = Instant::now();
        downlink.held >= 16
    })
    .await;
    took
}

fn message(number: usize) -> Payload {
    format!("{number}:{}", "x".repeat(16 << 10)).into()
}

fn numbers(frames: &[Frame]) -> impl Iterator<Item = usize> {
    frames.iter().map(|frame| {
        let text = std::str::from_utf8(&frame.payload).unwrap();
        text.split(':').next().unwrap().parse().unwrap()
    })
}

/// The greatest resident size so far, in bytes.
fn most_resident(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.process().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().strip_suffix("kB").unwrap().trim();
    kib.parse::<u64>().unwrap() * 1024
}

fn id() -> ClientId {
    ClientId::new("deaf").unwrap()
}

/// Bytes of pings.
const PINGS_BYTES: usize = 48 << 20;
/// Messages of 64 KiB: 192 MiB.
const FLOOD: usize = 3072;
/// An outbox of 1 MiB, what one read from Redis brings at once, and what an allocator keeps.
const MOST_GROWTH: u64 = 24 << 20;
/// FASTSOCK_OUTBOX_TOTAL_BYTES: it may have that until it has read nothing for a second.
const MOST_SURPLUS: u64 = 64 << 20;
