//! Several gateways on one Redis: they know who has which device, clear up after each other, and never after the living.

#[path = "nodes/claims.rs"]
mod claims;
#[path = "nodes/fleet.rs"]
mod fleet;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fastsock::{Bridge, ClientId, ErrorKind, Sent, Subscribe};
use futures_util::future::join_all;
use support::{
    Attended, Backend, DEADLINE, Device, Gateway, TempRedis, TempSentinel, eventually,
    eventually_within,
};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_there_are_others_is_told_once_however_often_the_link_breaks() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let start = async || {
        let builder = Gateway::builder().var("REDIS_PORT", redis.port().to_string());
        builder.var("REMOTE_URL", backend.url()).start().await
    };
    let gateways = [start().await, start().await];
    let is_told = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("Several gateways share this Redis")
    };
    let connected = "Connected to Redis as publisher";
    for round in 1..=3 {
        for gateway in &gateways {
            eventually(connected, async || {
                gateway.lines_with(connected).len() >= round
            })
            .await;
            let what = "that there are others";
            gateway.wait_line_where(what, is_told).await;
        }
        redis.kill_clients("normal").await;
    }
    for gateway in &gateways {
        let lines = gateway.lines();
        assert_eq!(lines.iter().filter(|line| is_told(line)).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_and_started_again_leaves_no_ghost_after_five_seconds() {
    let redis = TempRedis::new().await;
    let mut gateway = gateway(&redis, "pattern").await;
    let devices = fleet(&gateway, 0..200).await;
    has_clients(&redis, 200, DEADLINE).await;
    gateway.kill();
    drop(devices);
    let restarted = Instant::now();
    let next = self::gateway(&redis, "pattern").await;
    let back = fleet(&next, 0..50).await; // some come back before the lease ends
    has_clients(&redis, 50, Duration::from_secs(5)).await;
    assert!(restarted.elapsed() < Duration::from_secs(6));
    assert_eq!(redis.hgetall("fastsock:owner").await.len(), 50);
    assert!(back.iter().all(Attended::is_open));
    nodes(&redis, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_devices_of_a_killed_gateway_are_removed_by_another_which_keeps_its_own() {
    let redis = TempRedis::new().await;
    let mut dies = gateway(&redis, "exact").await;
    let lives = gateway(&redis, "exact").await;
    let _theirs = fleet(&dies, 0..100).await;
    let ours = fleet(&lives, 100..200).await;
    has_clients(&redis, 200, DEADLINE).await;
    dies.kill();
    let moved = fleet(&lives, 0..30).await;
    has_clients(&redis, 130, Duration::from_secs(5)).await;
    nodes(&redis, 1).await;
    for n in (0..30).chain(100..200) {
        let channel = format!("fastsock:client:dev{n}");
        assert_eq!(redis.publish(&channel, "x").await, 1, "dev{n}");
    }
    for device in moved.iter().chain(&ours) {
        device.wait_text("x").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_died_between_giving_up_a_seat_and_its_field_leaves_no_ghost() {
    let redis = TempRedis::new().await;
    // What it leaves then: its lease and its id, and a field without an owner.
    let left: [&[&str]; 3] = [
        &["ZADD", "fastsock:nodes", "1795000000000", "dead"],
        &["SADD", "fastsock:node:dead", "dev"],
        &["HSET", "fastsock:clients", "dev", "1795000000000"],
    ];
    for words in left {
        redis.cmd::<()>(words).await;
    }
    let _gateway = gateway(&redis, "pattern").await;
    has_clients(&redis, 0, DEADLINE).await;
    nodes(&redis, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seat_from_the_future_holds_nobody_out() {
    let redis = TempRedis::new().await;
    // Taken before the clock of Redis was set back by a day.
    redis
        .cmd::<()>(&["HSET", "fastsock:owner", "dev", "other:1:4102444800000"])
        .await;
    let gateway = gateway(&redis, "pattern").await;
    let device = Device::connect(gateway.addr(), "dev").await.attend();
    redis.wait_field("fastsock:clients", "dev").await;
    let owner = redis.wait_field("fastsock:owner", "dev").await;
    assert!(!owner.starts_with("other"), "{owner}");
    assert!(device.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_connects_elsewhere_is_closed_where_it_was() {
    for mode in MODES {
        let redis = TempRedis::new().await;
        let [one, two] = [gateway(&redis, mode).await, gateway(&redis, mode).await];
        let mut at = [&one, &two].into_iter().cycle();
        let mut before = None;
        for round in 0..10 {
            let gateway = at.next().expect("for ever");
            let device = Device::connect(gateway.addr(), "dev").await.attend();
            if let Some(before) = before.replace(device) {
                let closed = before.wait_closed().await;
                assert_eq!(closed.code, Some(4509), "{closed:?}");
            }
            let text = format!("message {round}");
            redis.publish("fastsock:client:dev", &text).await;
            before.as_ref().expect("just set").wait_text(&text).await;
        }
        let now = before.expect("it connected");
        assert!(now.is_open());
        redis.wait_field("fastsock:clients", "dev").await;
        drop(now);
        has_clients(&redis, 0, DEADLINE).await;
        assert_eq!(redis.hgetall("fastsock:owner").await, BTreeMap::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_wander_quickly_are_known_while_they_are_there_and_not_after() {
    for mode in MODES {
        let redis = TempRedis::new().await;
        let gateways = [gateway(&redis, mode).await, gateway(&redis, mode).await];
        let wandering = (0..10).map(|n| {
            let addrs = [gateways[0].addr(), gateways[1].addr()];
            async move {
                let (id, mut before) = (format!("dev{n}"), None);
                for round in 0..40 {
                    let mut device = Device::connect(addrs[(n + round) % 2], &id).await;
                    device.send("here I am").await;
                    // Sometimes it hangs up first, sometimes it only vanishes, sometimes the old socket stays half open.
                    match (round + n) % 3 {
                        0 => drop(before.replace(device)),
                        1 => drop(device),
                        _ => drop(device.close(1000).await),
                    }
                }
                (addrs[n % 2], id, before)
            }
        });
        let mut devices = Vec::new();
        // The clocks of two gateways agree to a millisecond or so; here some time has passed since its last move.
        for (addr, id, _before) in join_all(wandering).await {
            devices.push(Device::connect(addr, &id).await.attend());
        }
        eventually("all are known", async || {
            for device in &devices {
                assert!(device.is_open(), "the newest session stays");
            }
            redis.hgetall("fastsock:clients").await.len() == 10
        })
        .await;
        for n in 0..10 {
            redis
                .publish(&format!("fastsock:client:dev{n}"), "last")
                .await;
        }
        for device in &devices {
            device.wait_text("last").await;
        }
        drop(devices);
        has_clients(&redis, 0, DEADLINE).await;
        assert_eq!(redis.hgetall("fastsock:owner").await, BTreeMap::new());
        let mut ids: Vec<String> = redis.cmd(&["KEYS", "fastsock:node:*"]).await;
        ids.retain(|key| key != "fastsock:node:cards");
        assert_eq!(ids, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_a_freeze_nor_a_restart_of_redis_reaps_anyone() {
    let mut redis = TempRedis::new().await;
    let [one, two] = [
        gateway(&redis, "exact").await,
        gateway(&redis, "pattern").await,
    ];
    let _devices = (fleet(&one, 0..20).await, fleet(&two, 20..40).await);
    has_clients(&redis, 40, DEADLINE).await;
    let before = redis.hgetall("fastsock:clients").await;

    redis.freeze();
    sleep(Duration::from_secs(4)).await; // longer than a lease
    redis.thaw();
    stays(&redis, &before).await;

    redis.cmd::<()>(&["SAVE"]).await; // the leases of before are in it
    redis.kill();
    sleep(Duration::from_secs(4)).await; // longer than a lease
    redis.start().await;
    stays(&redis, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_reaped_by_a_failover() {
    let (mut one, two) = (TempRedis::new().await, TempRedis::new().await);
    two.follow(&one).await;
    let sentinel = TempSentinel::watch(&one).await;
    sentinel.wait_replicas(1).await;
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let gateway = Gateway::builder().var("FASTSOCK_REDIS_URL", sentinel.url());
        gateways.push(gateway.start().await);
    }
    let _devices = (
        fleet(&gateways[0], 0..20).await,
        fleet(&gateways[1], 20..40).await,
    );
    has_clients(&one, 40, DEADLINE).await;
    let before = one.hgetall("fastsock:clients").await;
    one.kill();
    sentinel.wait_master(&two).await;
    stays(&two, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn send_says_where_the_device_is() {
    let mut redis = TempRedis::new().await;
    let [one, two] = [bridge(&redis).await, bridge(&redis).await];
    let id = ClientId::new("dev").expect("an id");
    let sent = async |bridge: &Bridge| bridge.send(&id, "x".into()).await;
    for bridge in [&one, &two] {
        eventually("it can be asked", async || {
            sent(bridge).await.is_ok_and(|sent| sent == Sent::Offline)
        })
        .await;
    }

    let device = Device::connect(one.local_addr(), "dev").await.attend();
    redis.wait_field("fastsock:clients", "dev").await;
    assert_eq!(sent(&one).await.expect("asked"), Sent::Here);
    assert_eq!(sent(&two).await.expect("asked"), Sent::Elsewhere);
    device.wait_texts(2).await;

    let moved = Device::connect(two.local_addr(), "dev").await.attend();
    assert_eq!(device.wait_closed().await.code, Some(4509));
    eventually("it is elsewhere now", async || {
        sent(&one).await.is_ok_and(|sent| sent == Sent::Elsewhere)
    })
    .await;
    assert_eq!(sent(&two).await.expect("asked"), Sent::Here);

    redis.kill();
    eventually("nobody can be asked", async || {
        sent(&one)
            .await
            .is_err_and(|e| e.kind() == ErrorKind::Broker)
    })
    .await;
    assert_eq!(sent(&two).await.expect("not asked"), Sent::Here);
    redis.start().await;
    eventually("it is elsewhere again", async || {
        sent(&one).await.is_ok_and(|sent| sent == Sent::Elsewhere)
    })
    .await;

    drop(moved);
    redis.wait_no_field("fastsock:clients", "dev").await;
    for bridge in [&one, &two] {
        assert_eq!(sent(bridge).await.expect("asked"), Sent::Offline);
        assert!(bridge.stop(DEADLINE).await.is_empty());
    }
    assert_eq!(redis.cmd::<Vec<String>>(&["KEYS", "*"]).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_answers_with_the_number_of_gateways_that_hold_the_id() {
    let redis = TempRedis::new().await;
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(gateway(&redis, "exact").await);
    }
    redis.wait_subscribed("fastsock:control", 3).await;
    let receivers = async |n: usize| redis.publish(&format!("fastsock:client:dev{n}"), "x").await;
    let mut devices = Vec::new();
    for n in 0..30 {
        assert_eq!(receivers(n).await, 0);
        let device = Device::connect(gateways[n % 3].addr(), &format!("dev{n}")).await;
        assert_eq!(receivers(n).await, 1, "from the moment of the 101");
        devices.push(device.attend());
    }
    for device in &devices {
        device.wait_texts(1).await;
        assert_eq!(device.texts(), ["x"], "once");
    }
    drop(devices);
    for n in 0..30 {
        eventually("nobody holds it", async || receivers(n).await == 0).await;
    }
}

/// All there is stays so for longer than a lease and its watch, to the millisecond.
async fn stays(redis: &TempRedis, expected: &BTreeMap<String, String>) {
    eventually_within(Duration::from_secs(3), "everyone is there", async || {
        redis.hgetall("fastsock:clients").await == *expected
    })
    .await;
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        assert_eq!(redis.hgetall("fastsock:clients").await, *expected);
        sleep(Duration::from_millis(50)).await; // between two looks at what must not change
    }
    nodes(redis, 2).await;
}

/// As when a gateway takes a device over and dies, or loses its link, before it can say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_that_nobody_told_of_is_found() {
    let redis = TempRedis::new().await;
    let gateway = gateway(&redis, "exact").await;
    let devices = fleet(&gateway, 0..2).await;
    has_clients(&redis, 2, DEADLINE).await;
    // A gateway writes all of them again soon after its start: that has to be over.
    eventually_within(DEADLINE * 6, "it has looked once", async || {
        let calls: String = redis.cmd(&["INFO", "commandstats"]).await;
        calls.contains("cmdstat_hmget")
    })
    .await;
    let name = redis.hgetall("fastsock:owner").await;
    let name = name.keys().min().expect("there are two").clone();
    let later = std::time::SystemTime::now() + Duration::from_secs(1);
    let later = later.duration_since(std::time::UNIX_EPOCH).unwrap();
    let owner = format!("elsewhere:1:{}", later.as_millis());
    let set: u64 = redis.cmd(&["HSET", "fastsock:owner", &name, &owner]).await;
    assert_eq!(set, 0, "it was there");
    eventually_within(DEADLINE * 6, "one of them is closed", async || {
        devices.iter().filter(|device| !device.is_open()).count() == 1
    })
    .await;
    let closed = devices.iter().find(|device| !device.is_open()).unwrap();
    assert_eq!(closed.wait_closed().await.code, Some(4509));
}

async fn gateway(redis: &TempRedis, mode: &str) -> Gateway {
    Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("FASTSOCK_REDIS_SUBSCRIBE", mode)
        .start()
        .await
}

/// A bridge whose links are up.
async fn bridge(redis: &TempRedis) -> Bridge {
    let config = support::on_redis(redis).redis_subscribe(Subscribe::Exact);
    let bridge = Bridge::builder(config).start().await.expect("it starts");
    eventually("its links are up", async || {
        let redis = bridge.status().redis;
        redis.is_some_and(|redis| redis.is_cmd_up && redis.is_sub_up)
    })
    .await;
    bridge
}

async fn fleet(gateway: &Gateway, numbers: std::ops::Range<usize>) -> Vec<Attended> {
    let mut devices = Vec::new();
    for n in numbers {
        let device = Device::connect(gateway.addr(), &format!("dev{n}")).await;
        devices.push(device.attend());
    }
    devices
}

async fn has_clients(redis: &TempRedis, count: usize, time: Duration) {
    let what = format!("{count} devices are known");
    eventually_within(time, &what, async || {
        redis.hgetall("fastsock:clients").await.len() == count
    })
    .await;
}

/// Waits until so many leases are left, and the ids of no other node.
async fn nodes(redis: &TempRedis, count: usize) {
    let what = format!("{count} nodes are left");
    eventually(&what, async || {
        let leases: usize = redis.cmd(&["ZCARD", "fastsock:nodes"]).await;
        let mut ids: Vec<String> = redis.cmd(&["KEYS", "fastsock:node:*"]).await;
        ids.retain(|key| key != "fastsock:node:cards");
        leases == count && ids.len() <= count
    })
    .await;
}

const MODES: [&str; 3] = ["pattern", "exact", "exact+sharded"];
