//! More for a device at once than its outbox holds: one that reads gets all of it, one that does not is dealt with alone.

use std::{net::SocketAddr, time::Duration};

use fastsock::{
    Bridge, BrokerKind, ClientId, CloseReason, Config, DownlinkFull, ErrorKind, Payload,
};
use futures_util::future::join_all;
use support::{DEADLINE, Device, End, RawDevice, TempRedis, eventually, eventually_within};
use tokio::time::{Instant, sleep};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_reads_gets_a_burst_whole_and_in_order() {
    for (count, length) in [(20_000, 100), (200, 10_000), (2048, 4096)] {
        let (redis, bridge) = with_redis().await;
        let device = Device::connect(bridge.local_addr(), "dev0").await.attend();
        publish(&redis, 1, count, length).await;
        let texts = device.wait_texts(count).await;
        assert!(are_whole(&texts, length), "{count} of {length} bytes");
        let downlink = bridge.stats().downlink;
        assert_eq!((downlink.lost.total(), downlink.surplus_bytes), (0, 0));
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_devices_that_read_get_their_bursts_at_once() {
    const DEVICES: usize = 6;
    let (redis, bridge) = with_redis().await;
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        let device = Device::connect(bridge.local_addr(), &format!("dev{n}")).await;
        devices.push(device.attend());
    }
    publish(&redis, DEVICES, 800, 4096).await;
    for device in &devices {
        eventually_within(DEADLINE * 3, "all have come", async || {
            device.texts().len() == 800
        })
        .await;
        assert!(are_whole(&device.texts(), 4096) && device.is_open());
    }
    let downlink = bridge.stats().downlink;
    assert_eq!((downlink.lost.total(), downlink.surplus_bytes), (0, 0));
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_reads_slowly_stays_however_much_waits_for_it() {
    let bridge = bridge(Config::default()).await;
    let mut slow = small(bridge.local_addr(), "slow").await;
    let other = Device::connect(bridge.local_addr(), "other").await.attend();
    for number in 0..512 {
        bridge.send_here(&id("slow"), message(number)).unwrap();
    }
    assert!(bridge.stats().downlink.surplus_bytes > 6 << 20);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        slow.read_exact(5 << 10).await;
        sleep(Duration::from_millis(100)).await; // slowness is what is tested
    }
    assert!(bridge.stats().downlink.surplus_bytes > 5 << 20);
    bridge.send_here(&id("other"), "tick".into()).unwrap();
    other.wait_text("tick").await;
    let downlink = bridge.stats().downlink;
    assert_eq!((bridge.clients().len(), downlink.lost.total()), (2, 0));
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_byte_a_second_is_not_reading() {
    let bridge = bridge(Config::default().write_timeout(Duration::from_secs(600))).await;
    let mut trickling = small(bridge.local_addr(), "trickling").await;
    let reading = Device::connect(bridge.local_addr(), "reading").await;
    let reading = reading.attend();
    for number in 0..256 {
        bridge.send_here(&id("trickling"), message(number)).unwrap();
        bridge.send_here(&id("reading"), message(number)).unwrap();
    }
    reading.wait_texts(256).await;
    while bridge.clients().len() == 2 {
        trickling.take(1).await;
        sleep(Duration::from_secs(1)).await; // slowness is what is tested
    }
    let downlink = bridge.stats().downlink;
    assert!(downlink.lost.full > 100, "{downlink:?}"); // at most its own MiB was left
    assert_eq!(downlink.surplus_bytes, 0);
    let (frames, end) = trickling.drain().await;
    assert_eq!(end, End::Close(Some(4413), "slow_consumer".into()));
    assert!(!frames.is_empty());
    assert!(reading.is_open());
    bridge.stop(DEADLINE).await;
}

/// The clock alone finds it: nothing more is sent.
#[tokio::test]
async fn the_surplus_of_a_device_that_stops_reading_is_dropped_by_its_policy() {
    for (policy, first, last) in [
        (DownlinkFull::DropOldest, 450, 511),
        (DownlinkFull::DropNewest, 0, 63),
    ] {
        let config = Config::default().downlink_full(policy);
        let bridge = bridge(config.write_timeout(Duration::from_secs(600))).await;
        let mut deaf = small(bridge.local_addr(), "deaf").await;
        for number in 0..512 {
            bridge.send_here(&id("deaf"), message(number)).unwrap();
        }
        let held = bridge.stats().downlink;
        assert_eq!((held.held, held.lost.full), (512, 0), "it may yet read");
        eventually("its surplus is dropped", async || {
            bridge.stats().downlink.surplus_bytes == 0
        })
        .await;
        let lost = bridge.stats().downlink.lost.full as usize;
        let mut numbers = Vec::new();
        while numbers.len() + lost < 512 {
            numbers.push(number(&deaf.frame().await.payload));
        }
        assert!(numbers.is_sorted());
        // What is in the kernel's buffers comes besides.
        assert!(
            numbers.contains(&first) && numbers.contains(&last),
            "{policy:?} {numbers:?}"
        );
        assert_eq!(numbers.contains(&511), policy == DownlinkFull::DropOldest);
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test]
async fn when_the_total_is_full_the_largest_pays_and_nobody_within_its_own_bound() {
    let config = Config::default()
        .outbox_bytes(64usize << 10)
        .outbox_total_bytes(2usize << 20);
    let bridge = bridge(config).await;
    let mut devices = Vec::new();
    for name in ["large", "small", "modest"] {
        devices.push(small(bridge.local_addr(), name).await);
    }
    let send = |name: &str, count: usize| {
        for number in 0..count {
            bridge.send_here(&id(name), message(number))?;
        }
        Ok::<(), fastsock::Error>(())
    };
    // None of them is read meanwhile: sending does not wait, and the sessions run on this thread.
    send("large", 90).unwrap();
    send("small", 30).unwrap();
    send("modest", 3).unwrap();
    assert_eq!(bridge.stats().downlink.lost.total(), 0);
    send("small", 30).unwrap(); // the total is full: it is not the largest
    let lost = bridge.stats().downlink.lost.full;
    assert!(
        (80..90).contains(&lost),
        "the surplus of the large one: {lost}"
    );
    send("modest", 1).unwrap();
    let full = send("small", 200).unwrap_err(); // now it is
    assert_eq!(full.kind(), ErrorKind::OutboxFull);
    let (frames, end) = devices.remove(0).drain().await;
    assert_eq!(end, End::Close(Some(4413), "slow_consumer".into()));
    assert!(!frames.is_empty());
    let (_, end) = devices.remove(0).drain().await;
    assert_eq!(end, End::Close(Some(4413), "slow_consumer".into()));
    eventually("two have left", async || bridge.clients().len() == 1).await;
    for expected in 0..3 {
        assert_eq!(number(&devices[0].frame().await.payload), expected);
    }
    assert_eq!(bridge.stats().downlink.surplus_bytes, 0);
    assert_eq!(bridge.stats().sessions.closed["slow_consumer"], 2);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn when_the_total_is_full_the_policies_that_drop_close_nobody() {
    for policy in [DownlinkFull::DropOldest, DownlinkFull::DropNewest] {
        let config = Config::default()
            .downlink_full(policy)
            .outbox_bytes(64usize << 10)
            .outbox_total_bytes(1usize << 20);
        let bridge = bridge(config).await;
        let mut devices = Vec::new();
        for name in ["one", "two", "modest"] {
            devices.push(small(bridge.local_addr(), name).await);
        }
        for number in 0..300 {
            for name in ["one", "two"] {
                let _ = bridge.send_here(&id(name), message(number));
            }
            if number % 100 == 0 {
                bridge.send_here(&id("modest"), message(number)).unwrap();
            }
        }
        let downlink = bridge.stats().downlink;
        assert!(
            downlink.surplus_bytes < (1 << 20) + (17 << 10),
            "{downlink:?}"
        );
        for (device, name) in devices.iter_mut().zip(["one", "two", "modest"]) {
            let mut seen = Vec::new();
            bridge.send_here(&id(name), "999:".into()).ok();
            let end = match (policy, name) {
                (_, "modest") => 200,
                (DownlinkFull::DropNewest, _) => 30,
                _ => 299,
            };
            while seen.last().is_none_or(|last| *last < end) {
                seen.push(number(&device.frame().await.payload));
            }
            assert!(seen.is_sorted(), "{policy:?} {name} {seen:?}");
            assert!(name != "modest" || seen == [0, 100, 200]);
        }
        assert_eq!(bridge.clients().len(), 3);
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test]
async fn what_several_devices_wait_for_together_counts_once() {
    let config = Config::default()
        .outbox_bytes(1usize)
        .outbox_total_bytes(3usize << 20);
    let bridge = bridge(config).await;
    let mut devices = Vec::new();
    for n in 0..20 {
        devices.push(small(bridge.local_addr(), &format!("dev{n}")).await);
    }
    let shared = Payload::text("x".repeat(1 << 20));
    for n in 0..20 {
        bridge
            .send_here(&id(&format!("dev{n}")), "first".into())
            .unwrap();
        bridge
            .send_here(&id(&format!("dev{n}")), shared.clone())
            .unwrap();
    }
    let downlink = bridge.stats().downlink;
    assert_eq!((downlink.held, downlink.lost.total()), (40, 0));
    assert!(
        downlink.surplus_bytes < (1 << 20) + (16 << 10),
        "{downlink:?}"
    );
    for device in &mut devices {
        assert_eq!(device.frame().await.payload, b"first");
        assert_eq!(device.frame().await.payload.len(), 1 << 20);
    }
    eventually("all is written", async || {
        bridge.stats().downlink.surplus_bytes == 0
    })
    .await;
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_successor_takes_the_surplus_over() {
    let bridge = bridge(Config::default()).await;
    let mut old = small(bridge.local_addr(), "dev").await;
    for number in 0..256 {
        bridge.send_here(&id("dev"), message(number)).unwrap();
    }
    let before = bridge.stats().downlink.surplus_bytes;
    assert!(before > 2 << 20);
    let new = Device::connect(bridge.local_addr(), "dev").await.attend();
    let texts = new.wait_texts(200).await;
    let first = number(texts[0].as_bytes());
    let end = old.drain().await.1;
    assert_eq!(
        end,
        End::Close(
            Some(CloseReason::Replaced.code().unwrap()),
            "replaced".into()
        )
    );
    let texts = new.wait_texts(256 - first).await;
    assert!(
        texts
            .iter()
            .map(|text| number(text.as_bytes()))
            .eq(first..256)
    );
    let downlink = bridge.stats().downlink;
    assert_eq!((downlink.surplus_bytes, downlink.lost.total()), (0, 0));
    bridge.stop(DEADLINE).await;
}

/// Publishes numbered texts to so many devices, to each in one piece.
async fn publish(redis: &TempRedis, devices: usize, count: usize, length: usize) {
    join_all((0..devices).map(async |device| {
        let channel = format!("fastsock:client:dev{device}");
        let mut pipe = redis::pipe();
        for number in 0..count {
            pipe.publish(&channel, text(number, length)).ignore();
        }
        let mut connection = redis.connection().await;
        pipe.exec_async(&mut connection).await.unwrap();
    }))
    .await;
}

fn text(number: usize, length: usize) -> String {
    format!("{number:>8}:{}", "x".repeat(length - 9))
}

fn are_whole(texts: &[String], length: usize) -> bool {
    let expected = (0..texts.len()).map(|number| text(number, length));
    expected.eq(texts.iter().cloned())
}

async fn with_redis() -> (TempRedis, Bridge) {
    let redis = TempRedis::new().await;
    let config = Config::default()
        .broker(BrokerKind::Redis)
        .redis_port(redis.port());
    let bridge = bridge(config).await;
    redis.wait_subscribed("fastsock:control", 2).await;
    (redis, bridge)
}

async fn bridge(config: Config) -> Bridge {
    let config = config
        .websocket_port(0u16)
        .websocket_ping_interval(Duration::ZERO);
    Bridge::builder(config).start().await.unwrap()
}

/// A device with a small buffer that does not read by itself.
async fn small(addr: SocketAddr, token: &str) -> RawDevice {
    let mut device = RawDevice::connect_with_buffer(addr, 4096).await;
    let request = RawDevice::upgrade_request(&format!("/?token={token}"), &[]);
    device.write(request).await;
    device.read_head().await;
    device
}

fn message(number: usize) -> Payload {
    format!("{number}:{}", "x".repeat(16 << 10)).into()
}

fn number(payload: &[u8]) -> usize {
    let text = std::str::from_utf8(payload).unwrap();
    text.split(':').next().unwrap().trim().parse().unwrap()
}

fn id(client_id: &str) -> ClientId {
    ClientId::new(client_id).unwrap()
}
