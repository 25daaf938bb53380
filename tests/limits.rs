//! Limits that are off unless set: who may have how many connections, how fast they may come, and what a device may say.

use std::{net::Ipv4Addr, time::Duration};

use fastsock::{Config, Stats};
use support::{Backend, Device, End, Frame, RawDevice, eventually, opcode, start};
use tokio::time::Instant;

#[tokio::test]
async fn an_address_may_have_so_many_connections_and_costs_no_other_address_a_place() {
    let bridge = start(config().limit_connections_per_ip(2usize)).await;
    let addr = bridge.local_addr();
    let seated = RawDevice::seated(addr, "dev1").await;
    let _half_open = RawDevice::connect(addr).await; // does not even begin a head
    let head = answer(RawDevice::connect(addr).await).await;
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    assert!(head.contains("\r\nRetry-After: 5\r\n"), "{head}");
    assert!(bridge.stats().sessions.refused[&429] >= 1);

    let other = RawDevice::connect_from(Ipv4Addr::new(127, 0, 0, 2), addr).await;
    assert!(upgrade(other, "dev2").await.starts_with("HTTP/1.1 101 "));

    drop(seated);
    eventually("its place is free again", async || {
        let head = upgrade(RawDevice::connect(addr).await, "dev3").await;
        head.starts_with("HTTP/1.1 101 ")
    })
    .await;
}

#[tokio::test]
async fn connections_that_come_too_fast_are_told_when_to_come_back() {
    let bridge = start(config().limit_accepts(1u32)).await;
    let addr = bridge.local_addr();
    let head = eventually("two come within a second", async || {
        let (first, second) = (
            RawDevice::connect(addr).await,
            RawDevice::connect(addr).await,
        );
        drop(first);
        let head = upgrade(second, "dev1").await;
        head.starts_with("HTTP/1.1 503 ").then_some(head)
    })
    .await;
    assert!(head.contains("\r\nRetry-After: 1\r\n"), "{head}");
    assert!(bridge.stats().sessions.refused[&503] >= 1);
    eventually("the next second takes the next one", async || {
        let head = upgrade(RawDevice::connect(addr).await, "dev1").await;
        head.starts_with("HTTP/1.1 101 ")
    })
    .await;
}

#[tokio::test]
async fn handshakes_at_once_are_bounded_and_sessions_are_none() {
    let bridge = start(config().limit_handshakes(2usize)).await;
    let addr = bridge.local_addr();
    let mut sessions = Vec::new();
    for n in 0..4 {
        sessions.push(Device::connect(addr, &format!("dev{n}")).await);
    }
    let mut half_open = RawDevice::connect(addr).await;
    let _another = RawDevice::connect(addr).await;
    let head = answer(RawDevice::connect(addr).await).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("\r\nRetry-After: 5\r\n"), "{head}");

    half_open
        .write(RawDevice::upgrade_request("/?token=last", &[]))
        .await;
    assert!(half_open.read_head().await.starts_with("HTTP/1.1 101 "));
    Device::connect(addr, "next").await;
    assert_eq!(bridge.stats().sessions.opened, 6);
}

#[tokio::test]
async fn a_device_that_says_too_much_is_slowed_down_and_loses_nothing() {
    let backend = Backend::start().await;
    let bridge = start(
        config()
            .limit_uplinks(10u32)
            .remote_url(Some(backend.url())),
    )
    .await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    let begun = Instant::now();
    let said: Vec<_> = (0..25).map(|n| n.to_string()).collect();
    for text in &said {
        device.send(text.clone()).await;
    }
    bridge
        .send(&"dev1".parse().unwrap(), "still heard".into())
        .await
        .unwrap();
    assert_eq!(device.recv_text().await, "still heard");
    assert_eq!(backend.wait_delivered("dev1", 25).await, said);
    // 10 at once, then 10 a second; the one that was too many has been read as well.
    assert!(
        begun.elapsed() > Duration::from_millis(1390),
        "{:?}",
        begun.elapsed()
    );
    let stats = bridge.stats();
    assert!(stats.counters.rates_exceeded > 0);
    assert_eq!(stats.sessions.connected, 1);
}

#[tokio::test]
async fn bytes_are_limited_too_and_pings_are_among_them() {
    let bridge = start(config().limit_uplink_bytes(1000u64)).await;
    let mut device = RawDevice::seated(bridge.local_addr(), "dev1").await;
    let begun = Instant::now();
    device.send(&Frame::text("x".repeat(1500))).await;
    for _ in 0..10 {
        device.send(&Frame::ping("x".repeat(100))).await;
    }
    device.send(&Frame::text("the next")).await;
    for _ in 0..10 {
        assert_eq!(device.frame().await.opcode, opcode::PONG);
    }
    eventually("the next message is read", async || {
        bridge.stats().uplink.received == 2
    })
    .await;
    // 1000 at once; 1500 more are owed before it.
    assert!(
        begun.elapsed() > Duration::from_millis(1390),
        "{:?}",
        begun.elapsed()
    );
    assert!(bridge.stats().counters.rates_exceeded > 0);
}

#[tokio::test]
async fn a_device_that_stays_beyond_its_rate_for_30_s_is_closed_with_4429() {
    let config = config()
        .limit_uplink_bytes(100u64)
        .websocket_ping_interval(Duration::from_secs(1));
    let bridge = start(config).await;
    let mut device = RawDevice::seated(bridge.local_addr(), "dev1").await;
    let begun = Instant::now();
    device.send(&Frame::text("x".repeat(10_000))).await;
    // It answers no ping meanwhile, but who is not read cannot show that it lives.
    assert_eq!(
        device.end().await,
        End::Close(Some(4429), "too_many".into())
    );
    assert!(
        begun.elapsed() > Duration::from_millis(29_900),
        "{:?}",
        begun.elapsed()
    );
    eventually("it is counted", async || {
        closed(&bridge.stats(), "too_many") == 1
    })
    .await;
}

fn config() -> Config {
    support::loopback()
        .websocket_ping_interval(Duration::ZERO)
        .listen_addr(Some(Ipv4Addr::LOCALHOST.into()))
}

/// What a connection is told unasked.
async fn answer(mut device: RawDevice) -> String {
    device.read_head().await
}

/// Asks for an upgrade. Returns the head of the answer.
async fn upgrade(mut device: RawDevice, token: &str) -> String {
    let request = RawDevice::upgrade_request(&format!("/?token={token}"), &[]);
    let _ = device.try_write(request).await; // it may be refused already
    device.read_head().await
}

fn closed(stats: &Stats, reason: &str) -> u64 {
    stats
        .sessions
        .closed
        .get(reason)
        .copied()
        .unwrap_or_default()
}
