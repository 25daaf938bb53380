//! `sharded` and `exact+sharded`: shard channels, in a cluster and on one server.

use std::{collections::BTreeSet, time::SystemTime};

use fastsock::{Bridge, BrokerKind, ClientId, Config, MailboxKind, Sent, Subscribe, unix_ms};
use support::{Device, Gateway, TempCluster, TempRedis, eventually, eventually_within};

use super::{DEADLINE, bridge, has_client, is_gap};

const BOTH: [Subscribe; 2] = [Subscribe::Sharded, Subscribe::ExactAndSharded];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_carries_all_that_goes_down_by_shard_channels() {
    for mode in BOTH {
        let redis = TempRedis::new().await;
        let [one, two] = [
            standalone(&redis, mode).await,
            standalone(&redis, mode).await,
        ];
        let a = Device::connect(one.local_addr(), "a").await.attend();
        let b = Device::connect(two.local_addr(), "b").await.attend();
        // Each is listened to before its 101.
        assert_eq!(spublish(&redis, "client:a", "1").await, 1);
        let plain = redis.publish("fastsock:client:a", "2").await;
        assert_eq!(plain, u64::from(mode == Subscribe::ExactAndSharded));
        let mut expected = vec!["1"];
        expected.extend((plain == 1).then_some("2"));
        redis.wait_field("fastsock:owner", "b").await;
        redis.wait_field("fastsock:clients", "b").await;
        assert_eq!(
            one.send(&id("b"), "x".into()).await.unwrap(),
            Sent::Elsewhere
        );
        assert_eq!(
            one.join_group(&id("b"), "g").await.unwrap(),
            Sent::Elsewhere
        );
        redis.wait_listeners("fastsock:group:g", 1).await;
        assert_eq!(redis.publish("fastsock:group:g", "group").await, 1);
        assert_eq!(redis.publish("fastsock:broadcast", "all").await, 2);
        assert_eq!(b.wait_texts(3).await, ["x", "group", "all"]);
        expected.push("all");
        assert_eq!(a.wait_texts(expected.len()).await, expected);

        // Kept messages, with the bell of either kind.
        let add = ["XADD", "fastsock:mbox:{a}", "*", "data"];
        redis.cmd::<String>(&[&add[..], &["kept 1"]].concat()).await;
        assert_eq!(redis.publish("fastsock:bell:a", "1").await, 1);
        a.wait_text("kept 1").await;
        redis.cmd::<String>(&[&add[..], &["kept 2"]].concat()).await;
        assert_eq!(spublish(&redis, "bell:a", "1").await, 1);
        a.wait_text("kept 2").await;

        // A takeover: the new gateway listens, the old one no longer does.
        let moved = Device::connect(two.local_addr(), "a").await.attend();
        assert_eq!(a.wait_closed().await.code, Some(4509));
        shard_listeners(&redis, "client:a", 1).await;
        assert_eq!(spublish(&redis, "client:a", "here").await, 1);
        assert_eq!(moved.wait_texts(1).await, ["here"]);
        drop(moved);
        shard_listeners(&redis, "client:a", 0).await;
        shard_listeners(&redis, "bell:a", 0).await;
        for bridge in [one, two] {
            assert!(bridge.stop(DEADLINE).await.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_lost_subscribes_again_and_tells_the_gap() {
    let redis = TempRedis::new().await;
    let gateway = Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("FASTSOCK_REDIS_SUBSCRIBE", "sharded")
        .start()
        .await;
    let device = Device::connect(gateway.addr(), "d").await.attend();
    shard_listeners(&redis, "client:d", 1).await;
    redis.kill_clients("pubsub").await;
    gateway
        .wait_line_where("a gap is told", |line| is_gap(&line))
        .await;
    shard_listeners(&redis, "client:d", 1).await;
    assert_eq!(spublish(&redis, "client:d", "again").await, 1);
    device.wait_text("again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_moves_gateway_by_gateway_and_its_messages_arrive_once() {
    let cluster = TempCluster::new().await;
    use Subscribe::{Exact, ExactAndSharded, Sharded};
    for modes in [[Exact, ExactAndSharded], [ExactAndSharded, Sharded]] {
        for modes in [modes, [modes[1], modes[0]]] {
            let [from, to] = [
                bridge(&cluster, modes[0]).await,
                bridge(&cluster, modes[1]).await,
            ];
            // Devices of its own: a server may pass on late what was published before.
            let name = |n| format!("{:?}-{:?}-{n}", modes[0], modes[1]);
            let mut devices = Vec::new();
            for n in 0..8 {
                let device = Device::connect(to.local_addr(), &name(n)).await;
                devices.push(device.attend());
            }
            for (n, device) in devices.iter().enumerate() {
                let id = id(&name(n));
                has_client(&cluster, id.as_str(), true).await;
                for text in ["one", "two"] {
                    let sent = from.send(&id, text.into()).await.unwrap();
                    assert_eq!(sent, Sent::Elsewhere, "{id}");
                }
                device.wait_text("two").await;
                assert_eq!(device.texts(), ["one", "two"], "{id}");
            }
            // What publishers do while a fleet listens to both: some PUBLISH, some SPUBLISH.
            if modes[1] == ExactAndSharded {
                for (n, device) in devices.iter().enumerate() {
                    let channel = format!("fastsock:client:{}", name(n));
                    for n in 0..10 {
                        let by = ["PUBLISH", "SPUBLISH"][n % 2];
                        let text = n.to_string();
                        cluster.cmd::<u64>(&[by, &channel, &text]).await;
                    }
                    let texts: BTreeSet<_> = device.wait_texts(12).await.into_iter().collect();
                    assert_eq!(texts.len(), 12, "each of them once");
                }
            }
            for bridge in [from, to] {
                assert!(bridge.stop(DEADLINE).await.is_empty());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed_and_what_was_lost_is_in_the_gap() {
    for mode in ["sharded", "exact+sharded"] {
        let mut cluster = TempCluster::new().await;
        let gateway = Gateway::builder()
            .var("FASTSOCK_REDIS_URL", cluster.url())
            .var("FASTSOCK_REDIS_SUBSCRIBE", mode);
        let gateway = gateway.start().await;
        gateway.wait_line("Connected to Redis as subscriber").await;
        let mut devices = Vec::new();
        for n in 0..30 {
            let device = Device::connect(gateway.addr(), &format!("s{n}")).await;
            devices.push(device.attend());
        }
        let moving = id_at(&mut cluster, 1, 30).await;
        let channel = format!("fastsock:client:s{moving}");
        assert_eq!(
            cluster.cmd::<u64>(&["SPUBLISH", &channel, "before"]).await,
            1
        );
        devices[moving].wait_text("before").await;
        let gaps = gateway.lines().iter().filter(is_gap).count();

        let mut sent = Vec::new();
        let mut publish = async |cluster: &TempCluster| {
            let (at, text) = (unix_ms(SystemTime::now()), format!("m{}", sent.len()));
            cluster.cmd::<u64>(&["SPUBLISH", &channel, &text]).await;
            sent.push((at, text));
        };
        publish(&cluster).await;
        cluster.move_slot(&channel, 1, 2).await;
        publish(&cluster).await;
        let gap = eventually_within(DEADLINE, "a gap is told", async || {
            publish(&cluster).await;
            gateway.lines().iter().filter(is_gap).nth(gaps).cloned()
        })
        .await;
        assert_eq!(
            cluster.cmd::<u64>(&["SPUBLISH", &channel, "after"]).await,
            1
        );
        devices[moving].wait_text("after").await;
        let (from, to) = (gap["from_ms"].as_u64(), gap["to_ms"].as_u64());
        let texts = devices[moving].texts();
        for (at, text) in &sent {
            let came = texts.iter().filter(|other| *other == text).count();
            let is_told = from <= Some(*at) && Some(*at) <= to;
            assert!(came == 1 || came == 0 && is_told, "{text} at {at}: {gap}");
        }
        // The others were not disturbed, and nobody was told that the link was down.
        for (n, device) in devices.iter().enumerate() {
            let channel = format!("fastsock:client:s{n}");
            assert_eq!(cluster.cmd::<u64>(&["SPUBLISH", &channel, "all"]).await, 1);
            device.wait_text("all").await;
        }
        let connected = gateway.lines_with("Connected to Redis as subscriber");
        assert_eq!(connected.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shard_channels_of_a_master_that_dies_are_heard_at_its_replica() {
    let mut cluster = TempCluster::new().await;
    let one = bridge(&cluster, Subscribe::Sharded).await;
    let mut devices = Vec::new();
    for n in 0..30 {
        let device = Device::connect(one.local_addr(), &format!("s{n}")).await;
        devices.push(device.attend());
    }
    cluster.fail_over().await;
    for (n, device) in devices.iter().enumerate() {
        let channel = format!("fastsock:client:s{n}");
        eventually_within(DEADLINE, "it is reached again", async || {
            cluster.cmd::<u64>(&["SPUBLISH", &channel, "again"]).await == 1
        })
        .await;
        device.wait_text("again").await;
    }
    assert!(one.stats().counters.broker_gaps >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_shard_channels_is_named() {
    let redis = TempRedis::builder().args(["--rename-command", "SSUBSCRIBE", ""]);
    let redis = redis
        .args(["--rename-command", "SUNSUBSCRIBE", ""])
        .start()
        .await;
    let gateway = || {
        Gateway::builder()
            .var("REDIS_PORT", redis.port().to_string())
            .var("FASTSOCK_REDIS_SUBSCRIBE", "sharded")
    };
    let needs = "FASTSOCK_REDIS_SUBSCRIBE=sharded needs SSUBSCRIBE: Redis 7 or Valkey";
    let mut check = gateway().arg("--check").launch();
    assert_eq!(check.exit_code().await, Some(2));
    assert!(check.output().contains(needs), "{}", check.output());
    let running = gateway().start().await;
    let _device = Device::connect(running.addr(), "d").await;
    running
        .wait_line_where(needs, |line| {
            line["error"].as_str().is_some_and(|e| e.ends_with(needs))
        })
        .await;
}

/// A device among `s0`, `s1`, … whose channel is at this master, in a slot without keys.
async fn id_at(cluster: &mut TempCluster, at: usize, count: usize) -> usize {
    for n in 0..count {
        let channel = format!("fastsock:client:s{n}");
        let heard: (String, u64) = cluster.servers()[at]
            .cmd(&["PUBSUB", "SHARDNUMSUB", &channel])
            .await;
        if heard.1 == 1 {
            return n;
        }
    }
    panic!("none of {count}");
}

async fn standalone(redis: &TempRedis, mode: Subscribe) -> Bridge {
    let config = Config::default()
        .websocket_port(0u16)
        .broker(BrokerKind::Redis)
        .redis_port(redis.port())
        .mailbox(MailboxKind::Redis)
        .redis_subscribe(mode);
    let bridge = Bridge::builder(config).start().await.unwrap();
    super::is_up(&bridge).await;
    bridge
}

async fn spublish(redis: &TempRedis, channel: &str, text: &str) -> u64 {
    let channel = format!("fastsock:{channel}");
    redis.cmd(&["SPUBLISH", &channel, text]).await
}

async fn shard_listeners(redis: &TempRedis, channel: &str, count: u64) {
    let channel = format!("fastsock:{channel}");
    let what = format!("{count} listen to {channel}");
    eventually(&what, async || {
        let ask = ["PUBSUB", "SHARDNUMSUB", &channel];
        let (_, heard): (String, u64) = redis.cmd(&ask).await;
        heard == count
    })
    .await;
}

fn id(text: &str) -> ClientId {
    ClientId::new(text).expect("it is an id")
}
