//! What devices say, on its way to the backend: order, fairness, retries, the breaker, backpressure (DESIGN §5).
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks"
)]

#[path = "uplink/failing.rs"]
mod failing;
#[path = "uplink/full.rs"]
mod full;

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
    time::Duration,
};

use fastsock::{Bridge, ClientId, Config, Hooks, LostReason, RemoteGone, Sent, Stats, UplinkFull};
use futures_util::future::join_all;
use support::{
    Backend, DEADLINE, Device, Frame, LostUplinks, RawDevice, Received, Reply, config, eventually,
    eventually_within, opcode, start,
};
use tokio::time::{Instant, sleep};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_device_keeps_its_order_with_one_post_in_flight() {
    let backend = Backend::start().await;
    backend.answer(|_| Reply::ok().after(Duration::from_millis(fastrand::u64(0..8))));
    let bridge = start(config(&backend)).await;
    let mut devices = connect(&bridge, 20).await;
    for n in 0..30 {
        for device in &mut devices {
            device.send(format!("temp#{n}")).await;
        }
    }
    delivered(&bridge, 600).await;
    backend.assert_in_order();
    backend.assert_one_in_flight();
    assert!(most_at_once(&backend.requests()) > 4, "side by side");
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_with_ten_thousand_queued_does_not_delay_another() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::ok().after(Duration::from_millis(10)));
    let bridge = start(
        config(&backend)
            .remote_concurrency(4usize)
            .uplink_lane_bytes(64usize << 20),
    )
    .await;
    let mut devices = connect(&bridge, 2).await;
    for n in 0..10_000 {
        devices[0].send(format!("greedy#{n}")).await;
    }
    received(&bridge, 10_000).await;
    let before = backend.count();
    devices[1].send("modest#0").await;
    let all = backend
        .wait_until("the other's message", |all| {
            all.iter().any(|request| request.client_id == "dev1")
        })
        .await;
    let place = all
        .iter()
        .position(|request| request.client_id == "dev1")
        .unwrap();
    let ahead = place - before;
    assert!(ahead < 16, "after {ahead} others");
    drop(devices);
    bridge.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_posts_at_once_and_no_more() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::ok().after(Duration::from_millis(20)));
    let bridge = start(config(&backend).remote_concurrency(4usize)).await;
    let mut devices = connect(&bridge, 30).await;
    for n in 0..3 {
        for device in &mut devices {
            device.send(format!("temp#{n}")).await;
        }
    }
    delivered(&bridge, 90).await;
    assert_eq!(most_at_once(&backend.requests()), 4);
    assert!(
        backend.connections() <= 8,
        "{} connections",
        backend.connections()
    );
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_has_a_deadline_of_its_own() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(); // takes the connection, never shakes hands
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let backend = Backend::start().await;
    let bridge = start(
        config(&backend)
            .remote_url(Some(url))
            .remote_connect_timeout(Duration::from_millis(200)),
    )
    .await;
    let mut devices = connect(&bridge, 1).await;
    let begun = Instant::now();
    devices[0].send("x#0").await;
    eventually("an attempt has failed", async || {
        bridge.stats().counters.posts_failed > 0
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(bridge.stats().uplink.held, 1);
    bridge.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uplink_outlives_its_device_and_a_reconnect_continues_its_order() {
    let backend = Backend::start().await;
    backend.go_down().await;
    let bridge = start(config(&backend)).await;
    for session in 0..5 {
        let mut device = Device::connect(bridge.local_addr(), "dev").await;
        for n in 0..4 {
            device.send(format!("temp#{}", session * 4 + n)).await;
        }
        received(&bridge, (session + 1) * 4).await;
        drop(device);
    }
    eventually("it has gone", async || bridge.clients().is_empty()).await;
    backend.come_back();
    delivered(&bridge, 20).await;
    backend.assert_in_order();
    backend.assert_one_in_flight();
    let requests = backend.requests();
    let sessions: HashSet<_> = requests
        .iter()
        .map(|r| r.header("x-fastsock-session"))
        .collect();
    assert_eq!(sessions.len(), 5);
    end(bridge).await;
}

async fn start_with(config: Config, hooks: Arc<dyn Hooks>) -> Bridge {
    let builder = Bridge::builder(config).shared_hooks(hooks);
    builder.start().await.expect("it starts")
}

/// Devices `dev0`, `dev1` and so on.
async fn connect(bridge: &Bridge, count: usize) -> Vec<Device> {
    let mut devices = Vec::new();
    for n in 0..count {
        devices.push(Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
    }
    devices
}

async fn received(bridge: &Bridge, count: u64) {
    eventually_within(3 * DEADLINE, "all received", async || {
        bridge.stats().uplink.received >= count
    })
    .await;
}

/// Waits until so many are delivered; at least one more in each [`DEADLINE`].
async fn delivered(bridge: &Bridge, count: u64) {
    let mut before = 0;
    while before < count {
        let what = format!("more than {before} of {count} delivered");
        before = eventually_within(2 * DEADLINE, &what, async || {
            Some(bridge.stats().uplink.delivered).filter(|now| *now > before)
        })
        .await;
    }
}

fn lost(bridge: &Bridge) -> u64 {
    bridge.stats().uplink.lost.total()
}

/// Stops it and sees that nothing was left and the books are even.
async fn end(bridge: Bridge) {
    let leftover = bridge.stop(DEADLINE).await;
    assert!(leftover.is_empty(), "{leftover:?}");
    let Stats { uplink, .. } = bridge.stats();
    assert_eq!(uplink.held, 0);
    assert_eq!(uplink.received, uplink.delivered + uplink.lost.total());
}

/// How many requests were open at the same time at the most.
fn most_at_once(requests: &[Received]) -> usize {
    let mut edges: Vec<(Instant, i32)> = Vec::new();
    for request in requests {
        edges.push((request.at, 1));
        edges.extend(request.done.map(|done| (done, -1)));
    }
    edges.sort();
    let mut now = 0;
    let depths = edges.iter().map(|(_, step)| {
        now += step;
        now
    });
    depths.max().unwrap_or(0) as usize
}

fn count_delivered(requests: &[Received], prefix: &str) -> usize {
    requests
        .iter()
        .filter(|r| r.client_id.starts_with(prefix) && r.is_delivered())
        .count()
}

/// What a device said, in the order in which it was first tried.
fn first_tries(backend: &Backend, client_id: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for request in backend.requests_of(client_id) {
        if !seen.contains(&request.data) {
            seen.push(request.data);
        }
    }
    seen
}

/// Every attempt of a message has the key of the first, and no two messages share one.
fn assert_same_keys(backend: &Backend) {
    let mut keys = HashMap::new();
    for request in backend.requests() {
        let key = request.header("idempotency-key").expect("there is one");
        let message = (request.client_id.clone(), request.data.clone());
        let known = keys.entry(key.to_owned()).or_insert(message.clone());
        assert_eq!(*known, message);
    }
    let messages: HashSet<_> = keys.values().collect();
    assert_eq!(messages.len(), keys.len());
}
