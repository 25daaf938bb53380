//! More downlinks at once than anyone would wish: what is read in time arrives whole and in order, and what is not is told.

use std::time::{Duration, SystemTime};

use fastsock::Bridge;
use support::{DEADLINE, Device, Gateway, TempRedis, eventually, eventually_within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_to_a_thousand_devices_arrives_whole_and_in_order() {
    let redis = TempRedis::new().await;
    let config = support::on_redis(&redis);
    let bridge = Bridge::builder(config).start().await.expect("it starts");
    redis.wait_subscribed("fastsock:control", 2).await;
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        let device = Device::connect(bridge.local_addr(), &format!("dev{n}")).await;
        devices.push(device.attend());
    }
    let publishing = async {
        let mut connection = redis.connection().await;
        for text in 0..MESSAGES {
            let mut round = redis::pipe();
            for n in 0..DEVICES {
                round
                    .publish(format!("fastsock:client:dev{n}"), text)
                    .ignore();
            }
            let published = round.exec_async(&mut connection).await;
            published.expect("redis-server takes them");
        }
    };
    let all = (DEVICES * MESSAGES) as u64;
    let delivered = eventually_within(Duration::from_secs(60), "all are delivered", async || {
        let downlink = bridge.stats().downlink;
        let known = downlink.delivered + downlink.held + downlink.lost.total();
        assert_eq!(downlink.received, known, "in every snapshot: {downlink:?}");
        downlink.delivered == all
    });
    tokio::join!(publishing, delivered);
    let expected: Vec<_> = (0..MESSAGES).map(|text| text.to_string()).collect();
    for device in &devices {
        assert_eq!(device.wait_texts(MESSAGES).await, expected);
    }
    let stats = bridge.stats();
    assert_eq!((stats.downlink.received, stats.downlink.held), (all, 0));
    assert_eq!(stats.downlink.lost.total(), 0);
    let counters = &stats.counters;
    let strays = counters.pushes_elsewhere + counters.pushes_bad;
    assert_eq!(
        (strays, counters.broker_links_lost, counters.broker_gaps),
        (0, 0, 0)
    );
    drop(devices);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_falls_behind_is_cut_off_and_tells_of_the_gap() {
    let redis = TempRedis::new().await;
    let gateway = Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .start()
        .await;
    let device = Device::connect(gateway.addr(), "dev").await.attend();
    redis.wait_field("fastsock:clients", "dev").await;
    redis.publish("fastsock:client:dev", "before").await;
    device.wait_text("before").await;

    gateway.process().freeze();
    let (frozen, large) = (unix_ms(), vec![b'x'; 1 << 20]);
    // Redis gives a subscriber 32 MiB, and the sockets take some more.
    eventually("redis-server closes the link", async || {
        redis.publish("fastsock:client:someone", &large).await == 0
    })
    .await;
    redis.publish("fastsock:client:dev", "lost").await;
    gateway.process().thaw();

    let gap = "gap: downlinks published in this span may not have arrived";
    let line = gateway.wait_line(gap).await;
    let at = |field: &str| line[field].as_u64().expect("milliseconds");
    assert!(
        at("from_ms") <= frozen && frozen < at("from_ms") + 7_000,
        "{line} {frozen}"
    );
    assert!(at("to_ms") > frozen && at("to_ms") <= unix_ms(), "{line}");
    redis.wait_subscribed("fastsock:control", 2).await;
    redis.publish("fastsock:client:dev", "after").await;
    device.wait_text("after").await;
    assert_eq!(device.texts(), ["before", "after"]);
    redis.wait_field("fastsock:clients", "dev").await;
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}

const DEVICES: usize = 1000;
const MESSAGES: usize = 60;
