//! Several gateways on a Redis Cluster, and what they make of a master that dies.

#[path = "cluster/sharded.rs"]
mod sharded;

use std::time::{Duration, SystemTime};

use fastsock::{Bridge, BrokerKind, ClientId, Secret, Sent, State, Subscribe, unix_ms};
use support::{Device, Gateway, TempCluster, eventually, eventually_within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_reached_and_known_through_a_cluster() {
    let cluster = TempCluster::new().await;
    for (mode, publish) in [
        (Subscribe::Pattern, "PUBLISH"),
        (Subscribe::Exact, "PUBLISH"),
        (Subscribe::Sharded, "SPUBLISH"),
    ] {
        let [one, two] = [bridge(&cluster, mode).await, bridge(&cluster, mode).await];
        // Devices of its own: a server may pass on late what was published before.
        let name = |n| format!("{mode:?}-{n}");
        let mut devices = Vec::new();
        for n in 0..20 {
            devices.push(Device::connect(one.local_addr(), &name(n)).await);
        }
        for (n, device) in devices.iter_mut().enumerate() {
            let id = ClientId::new(name(n)).unwrap();
            has_client(&cluster, id.as_str(), true).await;
            assert_eq!(two.send(&id, "x".into()).await.unwrap(), Sent::Elsewhere);
            assert_eq!(device.recv_text().await, "x");
            let channel = format!("fastsock:client:{id}");
            cluster.cmd::<u64>(&[publish, &channel, "y"]).await;
            assert_eq!(device.recv_text().await, "y");
        }
        // It moves to the other one, and leaves.
        let mut moved = Device::connect(two.local_addr(), &name(0)).await;
        assert_eq!(devices[0].closed().await.code, Some(4509));
        let channel = format!("fastsock:client:{}", name(0));
        cluster.cmd::<u64>(&[publish, &channel, "z"]).await;
        assert_eq!(moved.recv_text().await, "z");
        drop(moved);
        has_client(&cluster, &name(0), false).await;
        for bridge in [one, two] {
            assert!(bridge.stop(DEADLINE).await.is_empty());
        }
        has_client(&cluster, &name(1), false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_the_place_of_a_dead_master_is_found() {
    let mut cluster = TempCluster::new().await;
    let [one, two] = [
        bridge(&cluster, Subscribe::Pattern).await,
        bridge(&cluster, Subscribe::Exact).await,
    ];
    let mut device = Device::connect(one.local_addr(), "d").await;
    has_client(&cluster, "d", true).await;
    cluster.fail_over().await;
    for bridge in [&one, &two] {
        is_up(bridge).await;
    }
    let _late = Device::connect(two.local_addr(), "late").await;
    has_client(&cluster, "late", true).await;
    has_client(&cluster, "d", true).await;
    let d = ClientId::new("d").unwrap();
    assert_eq!(two.send(&d, "x".into()).await.unwrap(), Sent::Elsewhere);
    assert_eq!(device.recv_text().await, "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_that_is_named_leads_to_all() {
    let mut cluster = TempCluster::new().await;
    let [first, second] = [0, 1].map(|n| cluster.servers()[n].port());
    let url = format!("redis+cluster://127.0.0.1:1,127.0.0.1:{first}");
    let bridge = start(&url, Subscribe::Pattern).await;
    let _device = Device::connect(bridge.local_addr(), "d").await;
    has_client(&cluster, "d", true).await;
    // The one that led here dies; the others are known by now.
    cluster.fail_over().await;
    is_up(&bridge).await;
    let id = ClientId::new("nobody").unwrap();
    assert_eq!(bridge.send(&id, "x".into()).await.unwrap(), Sent::Offline);
    assert_ne!(first, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gap_of_a_server_that_left_the_cluster_is_told_whole() {
    let mut cluster = TempCluster::new().await;
    let gateway = Gateway::builder().var("FASTSOCK_REDIS_URL", cluster.url());
    let gateway = gateway.start().await;
    gateway.wait_line("Connected to Redis as subscriber").await;
    // Until it listens to the second or third master: those have no replica that would hold on to them.
    let at = eventually_within(DEADLINE, "it listens to another server", async || {
        for (n, server) in cluster.servers().iter().enumerate() {
            let clients: String = server.cmd(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
            if clients.is_empty() {
                continue;
            }
            if n == 1 || n == 2 {
                return Some(n);
            }
            server.kill_clients("pubsub").await;
        }
        None
    })
    .await;
    let device = Device::connect(gateway.addr(), "d").await.attend();
    let reaches = async |cluster: &mut TempCluster| {
        for server in cluster.servers() {
            let text = format!("by {}", server.port());
            server.publish("fastsock:client:d", &text).await;
            device.wait_text(&text).await;
        }
    };
    reaches(&mut cluster).await;
    let gaps = gateway.lines().iter().filter(is_gap).count();

    let left_ms = unix_ms(SystemTime::now());
    cluster.leave(at).await;
    let gap = eventually_within(DEADLINE, "the gap is told", async || {
        gateway.lines().iter().filter(is_gap).nth(gaps).cloned()
    })
    .await;
    let (from_ms, to_ms) = (
        gap["from_ms"].as_u64().unwrap(),
        gap["to_ms"].as_u64().unwrap(),
    );
    println!(
        "deaf for {} ms, told {} ms",
        to_ms.saturating_sub(left_ms),
        to_ms - from_ms
    );
    assert!(
        from_ms <= left_ms + 200,
        "told from {} ms after it",
        from_ms - left_ms
    );
    assert!(
        from_ms + 20_000 > left_ms,
        "and not from long before: {gap}"
    );
    // It listens to one that is in the cluster, and stays there.
    let servers = cluster.servers();
    let other = &servers[3 - at];
    eventually_within(DEADLINE, "it hears again", async || {
        other.publish("fastsock:client:d", "again").await;
        device.texts().iter().any(|text| text == "again")
    })
    .await;
}

fn is_gap(line: &&serde_json::Value) -> bool {
    line["lasted_ms"].is_number()
}

async fn bridge(cluster: &TempCluster, mode: Subscribe) -> Bridge {
    start(&cluster.url(), mode).await
}

async fn start(url: &str, mode: Subscribe) -> Bridge {
    let config = support::loopback()
        .broker(BrokerKind::Redis)
        .redis_url(Some(Secret::new(url)))
        .redis_subscribe(mode);
    let bridge = Bridge::builder(config).start().await.unwrap();
    is_up(&bridge).await;
    bridge
}

/// Its links are up, and stay so for as long as it takes to publish by them.
async fn is_up(bridge: &Bridge) {
    let nobody = ClientId::new("nobody at all").unwrap();
    eventually_within(DEADLINE, "its links are up", async || {
        bridge.state() == State::Running && bridge.send(&nobody, "x".into()).await.is_ok()
    })
    .await;
}

async fn has_client(cluster: &TempCluster, id: &str, is_there: bool) {
    let what = format!("{id} is in the hash: {is_there}");
    eventually(&what, async || {
        let seen: Option<String> = cluster.cmd(&["HGET", "fastsock:clients", id]).await;
        seen.is_some() == is_there
    })
    .await;
}

const DEADLINE: Duration = Duration::from_secs(30);
