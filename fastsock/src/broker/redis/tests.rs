//! The broker against a real redis-server, which is stopped, frozen, restarted and demoted under it.

mod faults;
mod gateways;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::RedisBroker;
use crate::{
    broker::{Broker, Claimed, Deliver, Link, LinkChange, Load, Seated},
    calls::{Call, CallEnd, PendingCall},
    config::{Config, Secret, Subscribe},
    error::ErrorKind,
    locks::Mutex,
    node::NodeId,
    redis::temp_redis::TempRedis,
    stats::Running,
    tasks::Tasks,
    types::{ClientId, CloseReason, Sent, SessionId, unix_ms},
};

/// A registry that notes what it is told.
#[derive(Default)]
struct Seats {
    seated: Mutex<HashMap<String, Seated>>,
    got: Mutex<Vec<(String, Bytes)>>,
    changes: Mutex<Vec<LinkChange>>,
    replaced: Mutex<Vec<(String, SessionId)>>,
}

impl Deliver for Seats {
    fn deliver(&self, client_id: &str, payload: Bytes) -> bool {
        let is_here = self.is_seated(client_id);
        if is_here {
            self.got.lock().push((client_id.to_owned(), payload));
        }
        is_here
    }

    fn call(&self, _: &str, _: Call) -> Result<PendingCall, CallEnd> {
        Err(CallEnd::Offline)
    }

    fn is_seated(&self, client_id: &str) -> bool {
        self.seated.lock().contains_key(client_id)
    }

    fn everyone(&self) -> Vec<Seated> {
        self.seated.lock().values().cloned().collect()
    }

    fn replaced_elsewhere(&self, client_id: &str, session_id: SessionId) {
        self.replaced
            .lock()
            .push((client_id.to_owned(), session_id));
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn kicked_elsewhere(&self, client_id: &str, session_id: SessionId, _: CloseReason) {
        self.replaced_elsewhere(client_id, session_id);
    }

    fn bell(&self, _: &str) {}

    fn bells_missed(&self) {}

    fn link_changed(&self, change: LinkChange) {
        self.changes.lock().push(change);
    }
}

/// A gateway without its sockets.
struct Gateway {
    seats: Arc<Seats>,
    broker: Arc<RedisBroker>,
    tasks: Tasks,
    running: Arc<Running>,
    sessions: AtomicU64,
}

impl Gateway {
    fn start(config: &Config) -> Self {
        Self::start_as(config, false)
    }

    fn start_as(config: &Config, is_optional: bool) -> Self {
        let seats = Arc::new(Seats::default());
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let running = Arc::new(Running::default());
        let deliver: Arc<dyn Deliver> = Arc::clone(&seats) as _;
        let deliver = Arc::downgrade(&deliver);
        let broker = RedisBroker::start(
            config,
            &NodeId::random(),
            deliver,
            &tasks,
            Arc::clone(&running),
            is_optional,
        );
        Self {
            seats,
            broker: broker.unwrap(),
            tasks,
            running,
            sessions: AtomicU64::new(1),
        }
    }

    async fn start_up(config: &Config) -> Self {
        let gateway = Self::start(config);
        gateway.is_up().await;
        gateway
    }

    async fn is_up(&self) {
        eventually("the links are up", || self.broker.link() == Link::Up).await;
    }

    /// Seats a device as the gateway does, up to its 101 and the presence after it.
    async fn connect(&self, id: &str) -> SessionId {
        let session_id = SessionId(self.sessions.fetch_add(1, SeqCst));
        let client_id = ClientId::new(id).unwrap();
        let seen_ms = unix_ms(SystemTime::now());
        let seated = Seated {
            client_id: client_id.clone(),
            session_id,
            seen_ms,
        };
        self.seats.seated.lock().insert(id.into(), seated);
        self.broker.seated(&client_id, session_id, false).await;
        self.broker.seen(&client_id, seen_ms);
        session_id
    }

    fn see(&self, id: &str, seen_ms: u64) {
        if let Some(seated) = self.seats.seated.lock().get_mut(id) {
            seated.seen_ms = seen_ms;
        }
        self.broker.seen(&ClientId::new(id).unwrap(), seen_ms);
    }

    fn leave(&self, id: &str, session_id: SessionId) {
        self.seats.seated.lock().remove(id);
        let client_id = ClientId::new(id).unwrap();
        self.broker.unseated(&client_id, session_id);
    }

    fn got(&self, id: &str) -> usize {
        let got = self.seats.got.lock();
        got.iter().filter(|(to, _)| to == id).count()
    }

    /// Ends as a killed process does: without a word.
    async fn kill(self) {
        self.tasks.stop();
        self.tasks.wait().await;
    }

    async fn stop(&self) -> u64 {
        let left = self.broker.stop(Instant::now() + Duration::from_secs(8));
        left.await
    }
}

/// The sets in which gateways keep whom they have.
fn sets(redis: &TempRedis) -> Vec<String> {
    let mut keys = redis.strings(&["KEYS", "fastsock:node:*"]);
    keys.retain(|key| key != "fastsock:node:cards");
    keys
}

async fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, is_so).await;
}

async fn within(deadline: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    fastsock_servers::eventually_within(deadline, what, async || is_so()).await;
}

fn config(redis: &TempRedis) -> Config {
    Config::default().redis_port(redis.port)
}

fn exact(redis: &TempRedis) -> Config {
    config(redis).redis_subscribe(Subscribe::Exact)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_its_device_in_both_modes_and_nobody_else() {
    let redis = TempRedis::start();
    for config in [config(&redis), exact(&redis)] {
        let gateway = Gateway::start_up(&config).await;
        gateway.connect("a:b*").await;
        gateway.connect("other").await;
        redis.publish("fastsock:client:a:b*", "hello");
        redis.publish("fastsock:client:nobody", "hello");
        eventually("it arrives", || gateway.got("a:b*") == 1).await;
        assert_eq!(gateway.seats.got.lock()[0].1, "hello");
        assert_eq!(gateway.got("other"), 0);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_for_others_and_nonsense_are_counted() {
    let redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    redis.publish("fastsock:client:nobody", "x");
    redis.publish("fastsock:client:", "x");
    redis.publish("fastsock:control", "not json");
    redis.publish("fastsock:control", r#"{"op":"of a later version"}"#);
    redis.publish(b"fastsock:client:\xff".as_slice(), "x");
    eventually("they are counted", || {
        (
            gateway.running.pushes_elsewhere.load(),
            gateway.running.pushes_bad.load(),
        ) == (1, 3)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_published_after_the_seat_or_after_the_hash_is_never_lost() {
    let redis = TempRedis::start();
    for config in [config(&redis), exact(&redis)] {
        let gateway = Gateway::start_up(&config).await;
        for n in 0..200 {
            let id = format!("d{n}");
            let session_id = gateway.connect(&id).await;
            redis.publish(&*format!("fastsock:client:{id}"), "1");
            eventually("the field", || {
                redis.hget("fastsock:clients", &id).is_some()
            })
            .await;
            redis.publish(&*format!("fastsock:client:{id}"), "2");
            eventually("both arrive", || gateway.got(&id) == 2).await;
            gateway.leave(&id, session_id);
        }
        eventually("the hash is empty", || redis.hlen("fastsock:clients") == 0).await;
        assert_eq!(gateway.stop().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_subscribes_who_is_here_and_nobody_who_left() {
    let redis = TempRedis::start();
    let gateway = Gateway::start_up(&exact(&redis)).await;
    let stays = gateway.connect("stays").await;
    let leaves = gateway.connect("leaves").await;
    gateway.leave("leaves", leaves);
    gateway.leave("stays", stays);
    gateway.connect("stays").await;
    let channels = || {
        let mut channels = redis.strings(&["PUBSUB", "CHANNELS", "fastsock:client:*"]);
        channels.sort();
        channels
    };
    eventually("one is subscribed", || {
        channels() == ["fastsock:client:stays"]
    })
    .await;
    assert_eq!(redis.publish("fastsock:client:stays", "x"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_follows_seat_and_signs() {
    let redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    let (mut sessions, mut fastest) = (Vec::new(), Duration::MAX);
    for id in ["a", "b", "c"] {
        sessions.push((id, gateway.connect(id).await));
        let start = Instant::now();
        eventually("the field", || redis.hget("fastsock:clients", id).is_some()).await;
        fastest = fastest.min(start.elapsed());
    }
    // What the machine is busy with does not hold up all of them.
    assert!(fastest < Duration::from_millis(500), "{fastest:?}");
    gateway.see("a", 77);
    eventually("it moves", || {
        redis.hget("fastsock:clients", "a").as_deref() == Some("77")
    })
    .await;
    for (id, session_id) in sessions {
        gateway.leave(id, session_id);
    }
    eventually("they go", || redis.hlen("fastsock:clients") == 0).await;
    assert_eq!(redis.hlen("fastsock:owner"), 0);
    eventually("the set goes", || sets(&redis).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_clears_presence_and_lease_and_leaves_no_task_nor_connection() {
    let redis = TempRedis::start();
    let before = redis.connections();
    let gateway = Gateway::start_up(&exact(&redis)).await;
    let sessions: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|id| (id, gateway.connect(id)))
        .collect();
    for (id, connecting) in sessions {
        let session_id = connecting.await;
        gateway.leave(id, session_id);
    }
    let start = Instant::now();
    assert_eq!(gateway.stop().await, 0);
    assert!(start.elapsed() < Duration::from_secs(4));
    assert_eq!(redis.strings(&["KEYS", "*"]), [""; 0]);
    gateway.tasks.wait().await;
    eventually("the connections end", || redis.connections() == before).await;
    let left = Arc::downgrade(&gateway.broker.shared);
    drop(gateway);
    eventually("nothing holds the broker", || {
        Weak::strong_count(&left) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_dropped_without_stop_ends_its_links() {
    let redis = TempRedis::start();
    let before = redis.connections();
    let gateway = Gateway::start_up(&config(&redis)).await;
    assert!(redis.connections() > before);
    gateway.tasks.stop();
    gateway.tasks.wait().await;
    eventually("the connections end", || redis.connections() == before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_knows_who_is_elsewhere() {
    let redis = TempRedis::start();
    let [one, two] = [
        Gateway::start_up(&config(&redis)).await,
        Gateway::start_up(&config(&redis)).await,
    ];
    two.connect("a").await;
    eventually("the field", || {
        redis.hget("fastsock:clients", "a").is_some()
    })
    .await;
    let a = ClientId::new("a").unwrap();
    let send = |id: &str| one.broker.publish(ClientId::new(id).unwrap(), "x".into());
    assert_eq!(send("a").await.unwrap(), Sent::Elsewhere);
    eventually("it arrives", || two.got("a") == 1).await;
    assert_eq!(send("nobody").await.unwrap(), Sent::Offline);
    assert_eq!(
        two.broker.publish(a, "x".into()).await.unwrap(),
        Sent::Offline
    );
}
