//! Whoever gets a POST finds its device in the hash, as long as Redis answers.
#![allow(clippy::disallowed_methods, reason = "this is a host")]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use fastsock::{Answer, Bridge, Decision, Hooks, Ticket, Uplink, UplinkAction, WeakBridge};
use parking_lot::Mutex;
use support::{Backend, DEADLINE, Device, Gateway, Received, Reply, TempRedis, eventually_within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_finds_the_device_of_a_first_uplink_in_the_hash() {
    for mode in ["pattern", "exact"] {
        for spool in ["memory", "disk", "redis"] {
            let (redis, backend) = (TempRedis::new().await, Backend::start().await);
            let looked = looks_up(&redis, &backend, |received| received.client_id.clone());
            let mut gateways = Vec::new();
            for _ in 0..2 {
                let gateway = Gateway::builder()
                    .var("REDIS_PORT", redis.port().to_string())
                    .var("REMOTE_URL", backend.url())
                    .var("FASTSOCK_REDIS_SUBSCRIBE", mode)
                    .var("FASTSOCK_SPOOL", spool);
                let data = gateway.dir().join("data").display().to_string();
                let gateway = gateway.var("FASTSOCK_DATA_DIR", data).start().await;
                gateway.wait_line("Connected to Redis as publisher").await;
                gateways.push(gateway);
            }
            let mut devices = Vec::new();
            for n in 0..60 {
                let at = gateways[n % 2].addr();
                let mut device = Device::connect(at, &format!("d{n}")).await;
                for said in 0..3 {
                    device.send(said.to_string()).await;
                }
                devices.push(device);
            }
            backend
                .wait_until_within(LONG, "all arrive", |all| all.len() >= 180)
                .await;
            assert_eq!(missed(&looked, 60).await, [""; 0], "{mode} {spool}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_finds_the_device_of_an_event_in_the_hash() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let looked = looks_up(&redis, &backend, |received| {
        received.json()["client_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    let gateway = Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("FASTSOCK_EVENTS_URL", backend.url())
        .start()
        .await;
    gateway.wait_line("Connected to Redis as publisher").await;
    let mut devices = Vec::new();
    for n in 0..60 {
        devices.push(Device::connect(gateway.addr(), &format!("d{n}")).await);
    }
    backend
        .wait_until_within(LONG, "all arrive", |all| all.len() >= 60)
        .await;
    assert_eq!(missed(&looked, 60).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_decides_now_or_later_changes_nothing_about_that() {
    for is_late in [false, true] {
        let (redis, backend) = (TempRedis::new().await, Backend::start().await);
        let looked = looks_up(&redis, &backend, |received| received.client_id.clone());
        let hooks = Arc::new(Decides {
            is_late,
            bridge: Mutex::default(),
            asked: AtomicUsize::new(0),
        });
        let config = support::on_redis(&redis).remote_url(Some(backend.url()));
        let bridge = Bridge::builder(config).shared_hooks(hooks.clone());
        let bridge = bridge.start().await.unwrap();
        redis.wait_subscribed("fastsock:control", 2).await;
        let mut devices = Vec::new();
        for n in 0..60 {
            let mut device = Device::connect(bridge.local_addr(), &format!("d{n}")).await;
            device.send("hello").await;
            devices.push(device);
        }
        // Every third one is dropped by the hook.
        backend
            .wait_until_within(LONG, "the others arrive", |all| all.len() >= 40)
            .await;
        assert_eq!(missed(&looked, 40).await, [""; 0], "late: {is_late}");
        bridge.stop(DEADLINE).await;
        let books = bridge.stats().uplink;
        assert_eq!(
            (books.received, books.delivered, books.dropped_by_hook),
            (60, 40, 20)
        );
        assert_eq!(hooks.asked.load(SeqCst), 60);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_redis_that_is_away_or_takes_no_presence() {
    for refuse in [None, Some(["CONFIG", "SET", "maxmemory", "1"])] {
        let (mut redis, backend) = (TempRedis::new().await, Backend::start().await);
        let gateway = Gateway::builder()
            .var("REDIS_PORT", redis.port().to_string())
            .var("REMOTE_URL", backend.url())
            .start()
            .await;
        gateway.wait_line("Connected to Redis as publisher").await;
        let _known = Device::connect(gateway.addr(), "known").await;
        redis.wait_field("fastsock:clients", "known").await;
        match refuse {
            Some(refuse) => redis.cmd::<()>(&refuse).await,
            None => redis.kill(),
        }
        let _unknown = Device::connect(gateway.addr(), "unknown").await;
        gateway
            .wait_line_where("it is noticed", |line| line["level"] == "error")
            .await;
        let error = |line: &serde_json::Value| {
            let error = line["error"].as_str().unwrap_or_default();
            refuse.is_none() || error.starts_with("presence is not written")
        };
        gateway.wait_line_where("presence is refused", error).await;
        let start = Instant::now();
        for n in 0..30 {
            let id = format!("d{n}");
            let mut device = Device::connect(gateway.addr(), &id).await;
            device.send("hello").await;
            backend.wait_delivered(&id, 1).await;
        }
        // A second each would be half a minute.
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uplink_that_waits_outlives_its_device_and_a_redis_that_freezes() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let gateway = Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("REMOTE_URL", backend.url())
        .start()
        .await;
    gateway.wait_line("Connected to Redis as publisher").await;
    redis.freeze(); // which nobody has noticed yet
    for n in 0..5 {
        let mut device = Device::connect(gateway.addr(), &format!("d{n}")).await;
        device.send("one").await;
        device.send("two").await;
        device.close(1000).await;
    }
    for n in 0..5 {
        let said = backend.wait_delivered(&format!("d{n}"), 2).await;
        assert_eq!(said, ["one", "two"]);
    }
    redis.thaw();
}

/// Looks each device up in the hash when its first request comes, as a handler does, and notes whether it is there.
fn looks_up(
    redis: &TempRedis,
    backend: &Backend,
    id_of: impl Fn(&Received) -> String + Send + 'static,
) -> Arc<Mutex<HashMap<String, bool>>> {
    let looked = Arc::<Mutex<HashMap<String, bool>>>::default();
    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut connection = client.get_connection().expect("it answers");
    let notes = Arc::clone(&looked);
    backend.answer(move |received| {
        let id = id_of(received);
        let seen: Option<String> = redis::cmd("HGET")
            .arg("fastsock:clients")
            .arg(&id)
            .query(&mut connection)
            .expect("it answers");
        notes.lock().entry(id).or_insert(seen.is_some());
        Reply::ok()
    });
    looked
}

/// Waits until so many devices were looked up. Returns those that were not there.
async fn missed(looked: &Mutex<HashMap<String, bool>>, count: usize) -> Vec<String> {
    eventually_within(LONG, "all are looked up", async || {
        looked.lock().len() == count
    })
    .await;
    let looked = looked.lock();
    let missed = looked.iter().filter(|(_, found)| !**found);
    missed.map(|(id, _)| id.clone()).collect()
}

/// Drops every third uplink, at once or from another thread.
struct Decides {
    is_late: bool,
    bridge: Mutex<Option<WeakBridge>>,
    asked: AtomicUsize,
}

impl Hooks for Decides {
    fn on_start(&self, bridge: &WeakBridge) {
        *self.bridge.lock() = Some(bridge.clone());
    }

    fn on_uplink(&self, _: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        let action = match self.asked.fetch_add(1, SeqCst) % 3 {
            0 => UplinkAction::Drop,
            _ => UplinkAction::Forward,
        };
        if !self.is_late {
            return Decision::Now(action);
        }
        let bridge = self.bridge.lock().clone().expect("it has started");
        std::thread::spawn(move || bridge.resolve(ticket, Answer::Uplink(action)));
        Decision::Later(ticket)
    }
}

const LONG: Duration = Duration::from_secs(DEADLINE.as_secs() * 3);
