//! `FASTSOCK_SPOOL=redis`: what one gateway has taken, any other delivers, in order, whatever is killed or frozen.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use fastsock::{Bridge, Config, Secret, SpoolKind};
use support::{
    Backend, DEADLINE, Device, Gateway, GatewayBuilder, Received, Reply, TempCluster, TempRedis,
    eventually, eventually_within, get,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_gateway_had_taken_the_other_delivers() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let mut dies = gateway(&redis, &backend).start().await;
    let lives = gateway(&redis, &backend).start().await;
    shares(&redis, 2).await;
    backend.go_down().await;
    let mut devices = Vec::new();
    for n in 0..20 {
        let at = if n % 2 == 0 { &dies } else { &lives };
        devices.push(Device::connect(at.addr(), &format!("d{n}")).await);
    }
    say(&mut devices, 0..10).await;
    holds(&redis, 200).await;
    dies.kill();
    // They come to the one that is left, and go on.
    for n in (0..20).step_by(2) {
        devices[n] = Device::connect(lives.addr(), &format!("d{n}")).await;
    }
    say(&mut devices, 10..15).await;
    backend.come_back();
    complete(&backend, 20, 15).await;
    holds(&redis, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_wakes_up_after_it_was_taken_over_from_reorders_nothing() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let sleeps = gateway(&redis, &backend).start().await;
    let lives = gateway(&redis, &backend).start().await;
    shares(&redis, 2).await;
    backend.answer(|_| Reply::new(503).header("Retry-After", "1"));
    let mut devices = Vec::new();
    for n in 0..20 {
        devices.push(Device::connect(lives.addr(), &format!("d{n}")).await);
    }
    say(&mut devices, 0..5).await;
    holds(&redis, 100).await;
    sleeps.process().freeze();
    backend.answer_all(Reply::ok());
    complete(&backend, 20, 5).await;
    holds(&redis, 0).await;
    say(&mut devices, 5..10).await;
    complete(&backend, 20, 10).await;
    sleeps.process().thaw();
    // It learns that its shards are another's, gets its share again, and takes part.
    shares(&redis, 2).await;
    say(&mut devices, 10..20).await;
    complete(&backend, 20, 20).await;
    holds(&redis, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_nothing_is_taken_and_it_goes_on_by_itself() {
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut redis = TempRedis::builder().args(durable).start().await;
    let backend = Backend::start().await;
    let gateway = gateway(&redis, &backend).admin().start().await;
    let mut device = [Device::connect(gateway.addr(), "d0").await];
    say(&mut device, 0..20).await;
    complete(&backend, 1, 20).await;
    redis.kill();
    readiness(&gateway, 503).await;
    say(&mut device, 20..60).await;
    redis.start().await;
    readiness(&gateway, 200).await;
    complete(&backend, 1, 60).await;
    redis.freeze();
    readiness(&gateway, 503).await;
    say(&mut device, 60..80).await;
    redis.thaw();
    readiness(&gateway, 200).await;
    complete(&backend, 1, 80).await;
    let line = "the spool in Redis is away; uplinks wait until it is back";
    assert!(gateway.lines_with(line).len() <= 4, "{}", gateway.output());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_holds_its_devices_up_and_loses_nothing() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let bridge = bridge(&redis.url(), &backend, 16).await;
    backend.go_down().await;
    let mut devices = [Device::connect(bridge.local_addr(), "d0").await];
    say(&mut devices, 0..30).await;
    eventually("it is full", async || held(&redis).await == 1).await;
    backend.come_back();
    complete(&backend, 1, 30).await;
    let books = bridge.stats().uplink;
    assert_eq!((books.received, books.lost.total()), (30, 0));
    let leftover = bridge.stop(DEADLINE).await;
    assert!(leftover.is_empty(), "{leftover:?}");
    let books = bridge.stats().uplink;
    assert_eq!(
        (books.passed_on, books.recovered, books.delivered),
        (30, 30, 30)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_leaves_what_it_holds_to_the_next() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    backend.go_down().await;
    let first = bridge(&redis.url(), &backend, 1000).await;
    let mut devices = [Device::connect(first.local_addr(), "d0").await];
    say(&mut devices, 0..10).await;
    holds(&redis, 10).await;
    eventually("it reads them", async || {
        first.stats().uplink.recovered == 10
    })
    .await;
    let leftover = first.stop(DEADLINE).await;
    assert_eq!(
        (leftover.uplinks, leftover.spooled),
        (0, 0),
        "they are another's now"
    );
    let books = first.stats().uplink;
    assert_eq!((books.passed_on, books.recovered, books.held), (20, 10, 0));
    backend.come_back();
    let next = bridge(&redis.url(), &backend, 1000).await;
    complete(&backend, 1, 10).await;
    assert_eq!(next.stats().uplink.received, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_a_master_may_die() {
    let (mut cluster, backend) = (TempCluster::new().await, Backend::start().await);
    let [one, two] = [
        bridge(&cluster.url(), &backend, 100_000).await,
        bridge(&cluster.url(), &backend, 100_000).await,
    ];
    let mut devices = Vec::new();
    for n in 0..20 {
        let at = if n % 2 == 0 { &one } else { &two };
        devices.push(Device::connect(at.local_addr(), &format!("d{n}")).await);
    }
    say(&mut devices, 0..10).await;
    complete(&backend, 20, 10).await;
    cluster.fail_over().await;
    say(&mut devices, 10..20).await;
    complete(&backend, 20, 20).await;
    drop(devices);
    for bridge in [one, two] {
        assert_eq!(bridge.stop(LONG).await.uplinks, 0);
        assert_eq!(bridge.stats().uplink.lost.total(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_have_outlives_a_master_of_the_cluster() {
    let (mut cluster, backend) = (TempCluster::replicated().await, Backend::start().await);
    let config = config(&cluster.url(), &backend, 100_000).spool_replicas(1usize);
    let bridge = Bridge::builder(config).start().await.unwrap();
    let mut devices = Vec::new();
    for n in 0..20 {
        devices.push(Device::connect(bridge.local_addr(), &format!("d{n}")).await);
    }
    say(&mut devices, 0..10).await;
    cluster.fail_over().await; // whatever is on its way
    say(&mut devices, 10..20).await;
    cluster.servers()[0].start().await; // the new master has a replica again, so devices are heard again
    complete(&backend, 20, 20).await;
    drop(devices);
    assert_eq!(bridge.stop(LONG).await.uplinks, 0);
    assert_eq!(bridge.stats().uplink.lost.total(), 0);
}

fn gateway(redis: &TempRedis, backend: &Backend) -> GatewayBuilder {
    Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("REMOTE_URL", backend.url())
        .var("FASTSOCK_SPOOL", "redis")
}

async fn bridge(redis_url: &str, backend: &Backend, messages: usize) -> Bridge {
    let config = config(redis_url, backend, messages);
    Bridge::builder(config).start().await.unwrap()
}

fn config(redis_url: &str, backend: &Backend, messages: usize) -> Config {
    support::config(backend)
        .redis_url(Some(Secret::new(redis_url)))
        .spool(SpoolKind::Redis)
        .spool_max_messages(messages)
}

/// Each device says these numbers.
async fn say(devices: &mut [Device], numbers: std::ops::Range<usize>) {
    for n in numbers {
        for device in devices.iter_mut() {
            device.send(n.to_string()).await;
        }
    }
}

/// Waits until the backend has everything, each device's in order; what came twice has the key of the first.
async fn complete(backend: &Backend, devices: usize, each: usize) {
    let expected: Vec<_> = (0..each).map(|n| n.to_string()).collect();
    eventually_within(LONG, "everything is delivered", async || {
        let heard = heard(&backend.requests());
        for (id, heard) in &heard {
            assert!(expected.starts_with(heard), "{id}: {heard:?}");
        }
        heard.len() == devices && heard.values().all(|heard| *heard == expected)
    })
    .await;
}

/// What each device said, in the order of the first delivery.
fn heard(requests: &[Received]) -> BTreeMap<String, Vec<String>> {
    let (mut keys, mut heard) = (HashSet::new(), BTreeMap::<_, Vec<_>>::new());
    for request in requests.iter().filter(|request| request.is_delivered()) {
        let key = request.header("idempotency-key").expect("each has one");
        if keys.insert(key.to_owned()) {
            let of_device = heard.entry(request.client_id.clone()).or_default();
            of_device.push(request.data.clone());
        }
    }
    heard
}

/// Waits until so many gateways have an equal share of the streams.
async fn shares(redis: &TempRedis, gateways: usize) {
    let what = format!("{gateways} have their share");
    eventually_within(LONG, &what, async || {
        let mut shares = BTreeMap::<String, usize>::new();
        for n in 0..16 {
            let key = format!("fastsock:uplink:{{{n}}}:owner");
            let owner: Option<String> = redis.cmd(&["GET", &key]).await;
            let owner = owner.unwrap_or_default();
            let node = owner.split(' ').next().unwrap_or_default().to_owned();
            *shares.entry(node).or_default() += 1;
        }
        shares.len() == gateways && shares.values().all(|share| *share == 16 / gateways)
    })
    .await;
}

async fn holds(redis: &TempRedis, count: usize) {
    let what = format!("Redis holds {count} uplinks");
    eventually_within(LONG, &what, async || held(redis).await == count).await;
}

async fn held(redis: &TempRedis) -> usize {
    let mut held = 0;
    for n in 0..16 {
        let key = format!("fastsock:uplink:{{{n}}}");
        held += redis.cmd::<usize>(&["XLEN", &key]).await;
    }
    held
}

async fn readiness(gateway: &Gateway, status: u16) {
    let what = format!("/readyz is {status}");
    eventually_within(LONG, &what, async || {
        get(gateway.admin_addr(), "/readyz").await.status == status
    })
    .await;
}

const LONG: Duration = Duration::from_secs(60);
