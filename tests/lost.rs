//! Devices of a gateway that died are told to the backend of events: once, by whoever clears up, and not those who are back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::Value;
use support::{
    Attended, Backend, Device, Gateway, GatewayBuilder, Received, Reply, TempRedis, eventually,
    eventually_within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_killed_gateway_each_device_is_told_once_unless_it_is_back() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let mut dies = gateway(&redis, &backend, GRACE).await;
    let lives = [
        gateway(&redis, &backend, GRACE).await,
        gateway(&redis, &backend, GRACE).await,
    ];
    let devices = fleet(&dies, 0..500).await;
    wait(&redis, 500).await;
    eventually("500 connects", async || {
        told(&backend, "connect").len() == 500
    })
    .await;
    let connects = epochs(&told(&backend, "connect"));
    let killed = Instant::now();
    dies.kill();
    drop(devices);
    let _back = fleet(&lives[0], 0..60).await;
    eventually_within(PATIENCE, "440 are told", async || {
        lost(&backend).len() >= 440
    })
    .await;
    let within = killed.elapsed();
    nodes(&redis, 2).await; // nobody has anything left to tell
    let events = lost(&backend);
    assert_eq!(events.len(), 440, "none twice, and none that is back");
    let told = epochs(&events);
    assert_eq!(told.len(), 440);
    for (id, epoch) in &told {
        assert_eq!(connects.get(id), Some(epoch), "{id}");
        let number: usize = id.trim_start_matches("dev").parse().unwrap();
        assert!(number >= 60, "{id} is back");
    }
    let node = &events[0]["lost_node"];
    assert!(
        events
            .iter()
            .all(|e| e["lost_node"] == *node && e["node"] != *node)
    );
    println!("440 of 500 told within {within:?} (lease 3 s, grace {GRACE:?})");
    // The bound is lease + grace + 2 s; a busy machine is given as much again.
    assert!(within < (LEASE + GRACE + Duration::from_secs(2)) * 2);
    assert_eq!(redis.hgetall("fastsock:owner").await.len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reporter_that_dies_has_not_told_another_tells() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let mut dies = gateway(&redis, &backend, Duration::ZERO).await;
    let devices = fleet(&dies, 0..100).await;
    wait(&redis, 100).await;
    eventually("100 connects", async || {
        told(&backend, "connect").len() == 100
    })
    .await;
    // It takes 30 losses, and then none for as long as the reporter lives.
    let mut taken = BTreeSet::new();
    backend.answer(move |post| {
        let id = post.json()["client_id"].to_string();
        if taken.len() < 30 || taken.contains(&id) {
            taken.insert(id);
            return Reply::ok();
        }
        Reply::new(503)
    });
    let mut reporter = gateway(&redis, &backend, Duration::ZERO).await;
    dies.kill();
    drop(devices);
    eventually_within(PATIENCE, "30 are told", async || lost(&backend).len() == 30).await;
    reporter.kill();
    backend.answer_all(Reply::ok());
    let _next = gateway(&redis, &backend, Duration::ZERO).await;
    eventually_within(PATIENCE, "all are told", async || {
        epochs(&lost(&backend)).len() == 100
    })
    .await;
    nodes(&redis, 1).await;
    // What the first had told and not yet crossed out comes again, under the same key.
    let mut keys = BTreeMap::<String, BTreeSet<String>>::new();
    for post in delivered(&backend) {
        if post.json()["cause"] == "node_lost" {
            let key = post.header("idempotency-key").unwrap().to_owned();
            keys.entry(post.json()["client_id"].to_string())
                .or_default()
                .insert(key);
        }
    }
    assert!(keys.values().all(|keys| keys.len() == 1), "{keys:?}");
    let different: BTreeSet<_> = keys.values().flatten().collect();
    assert_eq!(different.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_alone_that_is_started_again_tells_of_those_it_had() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let mut gateway = gateway(&redis, &backend, GRACE).await;
    let devices = fleet(&gateway, 0..20).await;
    wait(&redis, 20).await;
    gateway.kill();
    drop(devices);
    let next = self::gateway(&redis, &backend, GRACE).await;
    let _back = fleet(&next, 0..5).await;
    eventually_within(PATIENCE, "15 are told", async || lost(&backend).len() == 15).await;
    nodes(&redis, 1).await;
    assert_eq!(epochs(&lost(&backend)).len(), 15);
    let has_company = |line: &Value| {
        line["message"]
            .as_str()
            .is_some_and(|m| m.contains("share"))
    };
    assert!(!next.lines().iter().any(has_company), "it is alone");
}

/// Without Redis a file of the data directory knows them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_without_redis_that_was_killed_tells_of_those_it_had() {
    let (data, backend) = (tempfile::tempdir().unwrap(), Backend::start().await);
    let start = async || {
        Gateway::builder()
            .var("FASTSOCK_BROKER", "embedded")
            .var("FASTSOCK_DATA_DIR", data.path().to_str().unwrap())
            .var("FASTSOCK_EVENTS_URL", backend.url())
            .var("FASTSOCK_EVENTS_GRACE", GRACE.as_millis().to_string())
            .start()
            .await
    };
    let mut gateway = start().await;
    let devices = fleet(&gateway, 0..100).await;
    let told_of = async |kind: &str, count: usize| {
        eventually_within(PATIENCE, &format!("{count} {kind}"), async || {
            told(&backend, kind).len() == count
        })
        .await;
    };
    told_of("connect", 100).await;
    let connects = epochs(&told(&backend, "connect"));
    // Ten leave, which is told before the gateway dies.
    let mut devices = devices;
    drop(devices.split_off(90));
    told_of("disconnect", 10).await;
    // What was told is crossed out by a thread: the file says when.
    let file = data.path().join("devices.jsonl");
    eventually("it is crossed out", async || {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().filter(|line| line.contains("over")).count() == 10
    })
    .await;
    let node = told(&backend, "connect")[0]["node"].clone();
    gateway.kill();
    drop(devices);

    let mut next = start().await;
    let back = fleet(&next, 0..20).await;
    told_of("disconnect", 80).await;
    let events = lost(&backend);
    assert_eq!(events.len(), 70, "none twice, and none that is back");
    for (id, epoch) in &epochs(&events) {
        assert_eq!(connects.get(id), Some(epoch), "{id}");
        let number: usize = id.trim_start_matches("dev").parse().unwrap();
        assert!((20..90).contains(&number), "{id}");
    }
    let is_told = |event: &Value| event["lost_node"] == node && event["node"] != node;
    assert!(events.iter().all(is_told));
    // A stop tells all by itself, and nothing is left to tell after it.
    assert_eq!(next.stop().await, Some(0));
    drop(back);
    told_of("disconnect", 100).await;
    let third = start().await;
    let _here = fleet(&third, 200..201).await;
    eventually("it has begun", async || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("dev200"))
    })
    .await;
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_only_frozen_tells_that_its_devices_are_there() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let freezes = gateway(&redis, &backend, Duration::ZERO).await;
    let lives = gateway(&redis, &backend, Duration::ZERO).await;
    let devices = fleet(&freezes, 0..10).await;
    wait(&redis, 10).await;
    freezes.process().freeze();
    eventually_within(PATIENCE, "10 are told", async || lost(&backend).len() == 10).await;
    freezes.process().thaw();
    eventually_within(PATIENCE, "10 are there", async || {
        let last = |id: &str| {
            let of = |event: &&Value| event["client_id"] == id;
            let events = events(&backend);
            events.iter().rfind(of).unwrap()["type"].clone()
        };
        (0..10).all(|n| last(&format!("dev{n}")) == "connect")
    })
    .await;
    wait(&redis, 10).await;
    assert!(devices.iter().all(Attended::is_open));
    drop(lives);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_backend_for_events_nothing_is_kept_to_be_told() {
    let redis = TempRedis::new().await;
    let builder = || Gateway::builder().var("REDIS_PORT", redis.port().to_string());
    let mut dies = builder().start().await;
    let _lives = builder().start().await;
    let _devices = fleet(&dies, 0..10).await;
    wait(&redis, 10).await;
    dies.kill();
    nodes(&redis, 1).await;
    assert!(redis.hgetall("fastsock:clients").await.is_empty());
}

async fn gateway(redis: &TempRedis, backend: &Backend, grace: Duration) -> Gateway {
    builder(redis, backend, grace).start().await
}

fn builder(redis: &TempRedis, backend: &Backend, grace: Duration) -> GatewayBuilder {
    Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("FASTSOCK_EVENTS_URL", backend.url())
        .var("FASTSOCK_EVENTS_GRACE", grace.as_millis().to_string())
}

async fn fleet(gateway: &Gateway, numbers: std::ops::Range<usize>) -> Vec<Attended> {
    let connect = numbers.map(async |n| {
        let device = Device::connect(gateway.addr(), &format!("dev{n}")).await;
        device.attend()
    });
    join_all(connect).await
}

/// Waits until so many devices are known.
async fn wait(redis: &TempRedis, count: usize) {
    let what = format!("{count} devices are known");
    eventually(&what, async || {
        redis.hgetall("fastsock:clients").await.len() == count
    })
    .await;
}

/// Waits until so many leases are left, and nothing of any other node.
async fn nodes(redis: &TempRedis, count: usize) {
    let what = format!("{count} nodes are left");
    eventually_within(PATIENCE, &what, async || {
        let leases: usize = redis.cmd(&["ZCARD", "fastsock:nodes"]).await;
        let lost: Vec<String> = redis.cmd(&["KEYS", "fastsock:node:*:lost"]).await;
        leases == count && lost.is_empty()
    })
    .await;
}

/// The POSTs that were answered with 2xx.
fn delivered(backend: &Backend) -> Vec<Received> {
    let mut posts = backend.requests();
    posts.retain(Received::is_delivered);
    posts
}

fn events(backend: &Backend) -> Vec<Value> {
    delivered(backend).iter().map(Received::json).collect()
}

fn told(backend: &Backend, kind: &str) -> Vec<Value> {
    let mut events = events(backend);
    events.retain(|event| event["type"] == kind);
    events
}

fn lost(backend: &Backend) -> Vec<Value> {
    let mut events = told(backend, "disconnect");
    events.retain(|event| event["cause"] == "node_lost");
    events
}

/// Each device with the epoch that is told of it.
fn epochs(events: &[Value]) -> BTreeMap<String, u64> {
    let epoch = |event: &Value| {
        let id = event["client_id"].as_str().unwrap().to_owned();
        (id, event["epoch"].as_u64().unwrap())
    };
    events.iter().map(epoch).collect()
}

const LEASE: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(40);
