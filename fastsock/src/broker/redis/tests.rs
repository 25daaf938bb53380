//! The broker against a real redis-server, which is stopped, frozen, restarted and demoted under it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::RedisBroker;
use crate::{
    broker::{Broker, Deliver, Link, LinkChange, Seated},
    config::{Config, Secret, Subscribe},
    error::ErrorKind,
    node::NodeId,
    redis::temp_redis::TempRedis,
    stats::Running,
    tasks::Tasks,
    types::{ClientId, Sent, SessionId, unix_ms},
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
        self.broker.seated(&client_id, session_id).await;
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

async fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, is_so).await;
}

async fn within(deadline: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
    redis.publish("fastsock:control", r#"{"op":"kick"}"#);
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
    let session_id = gateway.connect("a").await;
    within(Duration::from_millis(500), "the field", || {
        redis.hget("fastsock:clients", "a").is_some()
    })
    .await;
    gateway.see("a", 77);
    eventually("it moves", || {
        redis.hget("fastsock:clients", "a").as_deref() == Some("77")
    })
    .await;
    gateway.leave("a", session_id);
    eventually("it goes", || redis.hlen("fastsock:clients") == 0).await;
    assert_eq!(redis.hlen("fastsock:owner"), 0);
    eventually("the set goes", || {
        redis.strings(&["KEYS", "fastsock:node:*"]).is_empty()
    })
    .await;
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
    assert!(start.elapsed() < Duration::from_secs(1));
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_redis_gets_everything_back() {
    for mode in [Subscribe::Pattern, Subscribe::Exact] {
        let mut redis = TempRedis::start();
        let gateway = Gateway::start_up(&config(&redis).redis_subscribe(mode)).await;
        for n in 0..1200 {
            gateway.connect(&format!("d{n}")).await;
        }
        gateway.see("d0", 4242);
        eventually("all are there", || redis.hlen("fastsock:clients") == 1200).await;
        redis.kill();
        eventually("it is noticed", || gateway.broker.link() == Link::Down).await;
        let late = Instant::now();
        gateway.connect("late").await;
        assert!(
            late.elapsed() < Duration::from_millis(500),
            "a device does not wait"
        );
        let error = gateway
            .broker
            .publish(ClientId::new("x").unwrap(), "x".into())
            .await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Broker);
        assert!(std::error::Error::source(&error).is_some(), "{error:?}");
        tokio::time::sleep(Duration::from_secs(2)).await; // how long it is away

        redis.start_again();
        within(Duration::from_secs(2), "all are back", || {
            redis.hlen("fastsock:clients") == 1201
        })
        .await;
        assert_eq!(
            redis.hget("fastsock:clients", "d0").as_deref(),
            Some("4242")
        );
        redis.publish("fastsock:client:d7", "x");
        redis.publish("fastsock:client:late", "x");
        eventually("messages arrive", || {
            (gateway.got("d7"), gateway.got("late")) == (1, 1)
        })
        .await;
        gateway.is_up().await;
        assert_eq!(gateway.running.broker_links_lost.load(), 2);
        assert_eq!(gateway.running.broker_gaps.load(), 1);
        let changes = gateway.seats.changes.lock().clone();
        let [
            LinkChange::Up,
            LinkChange::Down,
            LinkChange::Gap { from, to },
            LinkChange::Up,
        ] = changes[..]
        else {
            panic!("{changes:?}");
        };
        let lasted = to.duration_since(from).unwrap();
        assert!(
            lasted > Duration::from_secs(2) && lasted < Duration::from_secs(10),
            "{lasted:?}"
        );
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_clients_come_back() {
    let redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    gateway.connect("a").await;
    for _ in 0..3 {
        let lost = gateway.running.broker_links_lost.load();
        redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        eventually("both are lost", || {
            gateway.running.broker_links_lost.load() == lost + 2
        })
        .await;
        within(Duration::from_secs(2), "both are back", || {
            gateway.broker.link() == Link::Up
        })
        .await;
    }
    redis.publish("fastsock:client:a", "x");
    eventually("it arrives", || gateway.got("a") == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_is_noticed_holds_nobody_up_and_reaps_nobody() {
    let redis = TempRedis::start();
    let one = Gateway::start_up(&exact(&redis)).await;
    let two = Gateway::start_up(&exact(&redis)).await;
    one.connect("a").await;
    two.connect("b").await;
    eventually("both are there", || redis.hlen("fastsock:clients") == 2).await;
    redis.freeze();
    let frozen = Instant::now();
    let first = Instant::now();
    one.connect("c").await;
    assert!(
        first.elapsed() < Duration::from_millis(1600),
        "{:?}",
        first.elapsed()
    );
    let second = Instant::now();
    one.connect("d").await;
    assert!(
        second.elapsed() < Duration::from_millis(700),
        "one waiting in vain is enough"
    );
    within(Duration::from_secs(5), "it is noticed", || {
        one.broker.link() == Link::Down
    })
    .await;
    within(Duration::from_secs(10), "the sub link too", || {
        one.running.broker_links_lost.load() == 2
    })
    .await;
    tokio::time::sleep_until(frozen + Duration::from_secs(10)).await;
    redis.thaw();
    for gateway in [&one, &two] {
        within(Duration::from_secs(2), "up again", || {
            gateway.broker.link() == Link::Up
        })
        .await;
    }
    eventually("all four", || redis.hlen("fastsock:clients") == 4).await;
    // Longer than a lease: had anyone been taken for dead, it would show now.
    for _ in 0..45 {
        assert_eq!(redis.hlen("fastsock:clients"), 4);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    redis.publish("fastsock:client:a", "x");
    redis.publish("fastsock:client:d", "x");
    redis.publish("fastsock:client:b", "x");
    eventually("they arrive", || {
        (one.got("a"), one.got("d"), two.got("b")) == (1, 1, 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_becomes_a_replica_is_left_until_it_is_master_again() {
    let (master, redis) = (TempRedis::start(), TempRedis::start());
    let gateway = Gateway::start_up(&config(&redis)).await;
    gateway.connect("a").await;
    redis.run(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    within(Duration::from_secs(4), "it is left", || {
        gateway.broker.link() == Link::Down
    })
    .await;
    redis.run(&["REPLICAOF", "NO", "ONE"]);
    within(Duration::from_secs(4), "it is back", || {
        gateway.broker.link() == Link::Up
    })
    .await;
    eventually("so is presence", || {
        redis.hget("fastsock:clients", "a").is_some()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_never_delete_each_others_entries() {
    let redis = TempRedis::start();
    let one = Gateway::start_up(&config(&redis)).await;
    let two = Gateway::start_up(&config(&redis)).await;
    let first = one.connect("a").await;
    eventually("it is there", || {
        redis.hget("fastsock:clients", "a").is_some()
    })
    .await;
    let second = two.connect("a").await;
    eventually("the first gateway is told", || {
        *one.seats.replaced.lock() == [("a".to_owned(), first)]
    })
    .await;
    one.see("a", unix_ms(SystemTime::now()) + 5); // still said something
    one.leave("a", first);
    let owner = || redis.hget("fastsock:owner", "a");
    eventually("the first has let go", || {
        redis.strings(&["KEYS", "fastsock:node:*"]).len() == 1
    })
    .await;
    assert!(redis.hget("fastsock:clients", "a").is_some());
    assert!(owner().is_some_and(|o| o.starts_with(&*two.broker.shared.node)));
    two.leave("a", second);
    eventually("nobody has it", || {
        redis.hlen("fastsock:clients") == 0 && owner().is_none()
    })
    .await;
    assert!(two.seats.replaced.lock().is_empty());

    // What someone else wrote into the hash is not ours to remove.
    let third = one.connect("b").await;
    eventually("it is there", || {
        redis.hget("fastsock:clients", "b").is_some()
    })
    .await;
    redis.run(&["HSET", "fastsock:clients", "b", "1"]);
    one.leave("b", third);
    eventually("the seat is given up", || {
        redis.hget("fastsock:owner", "b").is_none()
    })
    .await;
    one.connect("c").await;
    eventually("a later batch", || {
        redis.hget("fastsock:clients", "c").is_some()
    })
    .await;
    assert_eq!(redis.hget("fastsock:clients", "b").as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_wanders_between_gateways_leaves_no_ghost() {
    let redis = TempRedis::start();
    let gateways = [
        Gateway::start_up(&exact(&redis)).await,
        Gateway::start_up(&exact(&redis)).await,
    ];
    let mut last = [None, None];
    for n in 0..100 {
        let at = n % 2;
        last[at] = Some(gateways[at].connect("a").await);
        gateways[at].see("a", unix_ms(SystemTime::now()));
        let old = 1 - at;
        if let Some(session_id) = last[old].take() {
            gateways[old].see("a", unix_ms(SystemTime::now()));
            gateways[old].leave("a", session_id);
        }
    }
    eventually("it is there", || {
        redis.hget("fastsock:clients", "a").is_some()
    })
    .await;
    for (gateway, session_id) in gateways.iter().zip(last) {
        if let Some(session_id) = session_id {
            gateway.leave("a", session_id);
        }
        assert_eq!(gateway.stop().await, 0);
    }
    assert_eq!(redis.strings(&["KEYS", "*"]), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_hash_ends_as_the_seats_are() {
    let redis = TempRedis::start();
    let gateways = [
        Gateway::start_up(&exact(&redis)).await,
        Gateway::start_up(&config(&redis)).await,
    ];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut newest = HashMap::new(); // id -> where it connected last
    let heed = |newest: &HashMap<String, usize>| {
        for (at, gateway) in gateways.iter().enumerate() {
            for (id, session_id) in std::mem::take(&mut *gateway.seats.replaced.lock()) {
                let seated = gateway.seats.seated.lock().get(&id).map(|s| s.session_id);
                if seated == Some(session_id) {
                    assert_ne!(
                        newest.get(&id),
                        Some(&at),
                        "{id} was closed though it is the newest"
                    );
                    gateway.leave(&id, session_id);
                }
            }
        }
    };
    for _ in 0..1500 {
        let id = format!("d{}", random.u8(..30));
        let at = random.usize(..2);
        match random.u8(..100) {
            0..55 => {
                if newest.insert(id.clone(), at) == Some(1 - at) {
                    // No device connects twice within the error of two clocks.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                gateways[at].connect(&id).await;
            }
            55..75 => {
                let seated = gateways[at].seats.seated.lock().get(&id).cloned();
                if let Some(seated) = seated {
                    gateways[at].leave(&id, seated.session_id);
                }
            }
            75..97 => gateways[at].see(&id, unix_ms(SystemTime::now())),
            97 => drop(redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])),
            98 => drop(redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"])),
            _ => tokio::time::sleep(Duration::from_millis(random.u64(..200))).await,
        }
        heed(&newest);
    }
    let seated = || {
        let seats = gateways.iter().flat_map(|g| g.seats.everyone());
        let mut ids: Vec<_> = seats.map(|s| s.client_id.to_string()).collect();
        ids.sort();
        ids
    };
    within(Duration::from_secs(15), "the hash is as the seats", || {
        heed(&newest);
        let (mut clients, mut owned) = (
            redis.strings(&["HKEYS", "fastsock:clients"]),
            redis.strings(&["HKEYS", "fastsock:owner"]),
        );
        clients.sort();
        owned.sort();
        clients == seated() && owned == clients
    })
    .await;
    for gateway in &gateways {
        for seat in gateway.seats.everyone() {
            gateway.leave(seat.client_id.as_str(), seat.session_id);
        }
        assert_eq!(gateway.stop().await, 0);
    }
    assert_eq!(redis.strings(&["KEYS", "*"]), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returning_gateway_stands_back_behind_a_newer_seat() {
    let redis = TempRedis::start();
    let old = Gateway::start_up(&config(&redis)).await;
    let new = Gateway::start_up(&config(&redis)).await;
    let session_id = old.connect("a").await;
    eventually("it is there", || {
        redis.hget("fastsock:owner", "a").is_some()
    })
    .await;
    new.connect("a").await;
    eventually("it is told", || old.seats.replaced.lock().len() == 1).await;
    // Its session is still there when it restores everything.
    redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually("it is told again", || {
        old.seats.replaced.lock().get(1) == Some(&("a".to_owned(), session_id))
    })
    .await;
    let owner = redis.hget("fastsock:owner", "a").unwrap();
    assert!(owner.starts_with(&*new.broker.shared.node), "{owner}");
    assert!(new.seats.replaced.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_devices_of_a_dead_gateway_are_removed_by_a_restarted_one() {
    let redis = TempRedis::start();
    let dead = Gateway::start_up(&config(&redis)).await;
    for n in 0..1500 {
        dead.connect(&format!("d{n}")).await;
    }
    eventually("all are there", || redis.hlen("fastsock:clients") == 1500).await;
    dead.kill().await;
    let started = Instant::now();
    let next = Gateway::start_up(&config(&redis)).await;
    next.connect("d0").await; // it came back before the lease ended
    within(Duration::from_secs(5), "the ghosts go", || {
        redis.hlen("fastsock:clients") == 1
    })
    .await;
    assert!(
        started.elapsed() > Duration::from_secs(2),
        "not before the lease was watched"
    );
    assert!(redis.hget("fastsock:clients", "d0").is_some());
    eventually("its keys go", || {
        redis.strings(&["KEYS", "fastsock:node:*"]).len() == 1
            && redis
                .strings(&["ZRANGE", "fastsock:nodes", "0", "-1"])
                .len()
                == 1
    })
    .await;
    assert_eq!(redis.hlen("fastsock:owner"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_taken_for_dead_writes_everything_again() {
    let redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    gateway.connect("a").await;
    eventually("it is there", || redis.hlen("fastsock:clients") == 1).await;
    for key in ["fastsock:nodes", "fastsock:clients", "fastsock:owner"] {
        redis.run(&["DEL", key]);
    }
    within(Duration::from_secs(3), "it is back", || {
        redis.hlen("fastsock:clients") == 1
    })
    .await;
}

#[tokio::test]
async fn a_redis_without_rights_is_tried_rarely_and_logged_once() {
    let redis = TempRedis::start_with(&["--requirepass", "right"]);
    let log = Log::capture();
    let url = |password: &str| {
        let url = format!("redis://:{password}@127.0.0.1:{}/0", redis.port);
        Config::default().redis_url(Some(Secret::new(url)))
    };
    let gateway = Gateway::start(&url("wrong"));
    let denials = || redis.errors("WRONGPASS");
    eventually("each link was refused", || denials() >= 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(denials(), 2, "the next try is after five seconds");
    within(Duration::from_secs(5), "they try again", || denials() >= 4).await;
    assert_eq!(gateway.seats.changes.lock()[..], [LinkChange::Down]);
    gateway.stop().await;
    let mine =
        |line: &&String| line.contains("WRONGPASS") && line.contains(&redis.port.to_string());
    let lines: Vec<_> = log.lines().into_iter().filter(|line| mine(&line)).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("wrong@")));

    let gateway = Gateway::start_up(&url("right")).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test]
async fn a_redis_too_old_is_named_as_such() {
    // No such Redis is at hand, but what it answers is known.
    let old = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = old.local_addr().unwrap().port();
    let log = Log::capture();
    let gateway = Gateway::start(&Config::default().redis_port(port));
    let answering = async {
        loop {
            let (mut stream, _) = old.accept().await.unwrap();
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            let answer = b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n";
            stream.write_all(&answer.repeat(3)).await.unwrap();
        }
    };
    let mine = |line: &String| line.contains("before 6.0") && line.contains(&port.to_string());
    tokio::select! {
        () = answering => {}
        () = eventually("both links say so", || log.lines().iter().filter(|l| mine(l)).count() == 2) => {}
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_forbidden_is_an_error_of_the_link() {
    let redis = TempRedis::start();
    redis.run(&[
        "ACL",
        "SETUSER",
        "u",
        "on",
        ">p",
        "~*",
        "+@all",
        "resetchannels",
    ]);
    let url = format!("redis://u:p@127.0.0.1:{}", redis.port);
    let gateway = Gateway::start(&Config::default().redis_url(Some(Secret::new(url))));
    eventually("the cmd link is up", || {
        gateway.broker.shared.cmd.lock().is_some()
    })
    .await;
    eventually("it is told", || {
        gateway.seats.changes.lock()[..] == [LinkChange::Down]
    })
    .await;
    assert_eq!(gateway.broker.link(), Link::Down);
    // It still does what it may.
    gateway.connect("a").await;
    eventually("presence is written", || {
        redis.hlen("fastsock:clients") == 1
    })
    .await;
}

#[tokio::test]
async fn an_optional_redis_is_used_from_the_moment_it_answers() {
    let mut redis = TempRedis::start();
    redis.kill();
    let log = Log::capture();
    let gateway = Gateway::start_as(&exact(&redis), true);
    let session_id = gateway.connect("early").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        (gateway.broker.name(), gateway.broker.link()),
        ("embedded", Link::Alone)
    );
    let sent = gateway
        .broker
        .publish(ClientId::new("x").unwrap(), "x".into())
        .await;
    assert_eq!(sent.unwrap(), Sent::Offline);
    assert!(gateway.seats.changes.lock().is_empty());
    redis.start_again();
    within(Duration::from_secs(3), "it is used", || {
        gateway.broker.link() == Link::Up
    })
    .await;
    assert_eq!(gateway.broker.name(), "redis");
    eventually("who was there before is in the hash", || {
        redis.hget("fastsock:clients", "early").is_some()
    })
    .await;
    redis.publish("fastsock:client:early", "x");
    eventually("and is heard", || gateway.got("early") == 1).await;
    redis.kill();
    eventually("from now on it is missed", || {
        gateway.broker.link() == Link::Down
    })
    .await;
    gateway.leave("early", session_id);
    let start = Instant::now();
    assert_eq!(gateway.stop().await, 1, "its field could not be removed");
    assert!(start.elapsed() < Duration::from_secs(2));
    let warnings = log.lines();
    let warnings = warnings.iter().filter(|l| l.contains("embedded broker"));
    assert_eq!(
        warnings
            .filter(|l| l.contains(&redis.port.to_string()))
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_tries_once_more_to_write_what_is_left() {
    let mut redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    let session_id = gateway.connect("a").await;
    eventually("it is there", || redis.hlen("fastsock:clients") == 1).await;
    redis.kill();
    eventually("it is noticed", || gateway.broker.link() == Link::Down).await;
    gateway.leave("a", session_id);
    redis.start_again();
    redis.run(&["HSET", "fastsock:clients", "b", "1"]);
    assert_eq!(gateway.stop().await, 0);
    assert_eq!(redis.strings(&["KEYS", "*"]), ["fastsock:clients"]);
    assert_eq!(redis.hlen("fastsock:clients"), 1, "what is of others stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_ends_in_time_with_a_frozen_redis() {
    let redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    let session_id = gateway.connect("a").await;
    eventually("it is there", || redis.hlen("fastsock:clients") == 1).await;
    redis.freeze();
    gateway.leave("a", session_id);
    let start = Instant::now();
    let left = gateway.broker.stop(start + Duration::from_secs(1)).await;
    assert_eq!(left, 1);
    assert!(start.elapsed() < Duration::from_millis(1500));
    gateway.tasks.wait().await;
    redis.thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_new_master() {
    let one = TempRedis::start();
    let two = TempRedis::start_with(&["--replicaof", "127.0.0.1", &one.port.to_string()]);
    let sentinel = TempRedis::sentinel("house", one.port);
    let url = format!(
        "redis+sentinel://127.0.0.1:1,127.0.0.1:{}/house/0",
        sentinel.port
    );
    let config = Config::default().redis_url(Some(Secret::new(url)));
    let gateway = Gateway::start_up(&config).await;
    gateway.connect("a").await;
    eventually("it is there", || one.hlen("fastsock:clients") == 1).await;
    let replicas = || {
        sentinel
            .strings(&["INFO", "sentinel"])
            .concat()
            .contains("slaves=1")
    };
    within(
        Duration::from_secs(30),
        "the sentinel knows the replica",
        replicas,
    )
    .await;
    eventually("the replica follows", || two.hlen("fastsock:clients") == 1).await;
    drop(one);
    within(Duration::from_secs(40), "the other is master", || {
        two.strings(&["INFO", "replication"])
            .concat()
            .contains("role:master")
    })
    .await;
    within(Duration::from_secs(10), "the links follow", || {
        gateway.broker.link() == Link::Up
    })
    .await;
    two.publish("fastsock:client:a", "x");
    eventually("it arrives", || gateway.got("a") == 1).await;
    eventually("presence is there", || {
        two.hget("fastsock:clients", "a").is_some()
    })
    .await;
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rediss_trusts_the_certificate_it_is_given_and_no_other() {
    let redis = TempRedis::start_with_tls();
    let url = format!("rediss://localhost:{}", redis.tls_port.unwrap());
    let config = Config::default().redis_url(Some(Secret::new(url)));
    let stranger = Gateway::start(&config);
    let trusted = config.redis_ca(Some(redis.path("ca.crt")));
    let gateway = Gateway::start_up(&trusted).await;
    gateway.connect("a").await;
    redis.publish("fastsock:client:a", "x");
    eventually("it arrives", || gateway.got("a") == 1).await;
    assert_eq!(stranger.broker.link(), Link::Down);
}

/// What is logged while it lives, on this thread: for tests whose runtime has no other.
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    fn capture() -> Self {
        use tracing_subscriber::layer::SubscriberExt;
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let all = tracing_subscriber::registry().with(Lines(Arc::clone(&lines)));
        Self {
            lines,
            _guard: tracing::subscriber::set_default(all),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }
}

struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        if event.metadata().target().starts_with("fastsock") {
            let mut line = Line(format!("{} ", event.metadata().level()));
            event.record(&mut line);
            self.0.lock().push(line.0);
        }
    }
}
