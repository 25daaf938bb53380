//! The spool against a real redis-server, with lanes that only note what they are told.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use uuid::Uuid;

use super::{RedisSpool, SHARDS, shards::shard_of};
use crate::{
    config::Config,
    locks::Mutex,
    node::NodeId,
    redis::temp_redis::TempRedis,
    spool::{Backlog, Place, Record, Settle, Spool},
    tasks::Tasks,
    types::{ClientId, DeadLetter, LostReason, SessionId, Uplink},
};

/// What the backend got, in order: device, what it said, its key.
type Backend = Arc<Mutex<Vec<(String, String, Uuid)>>>;

/// Lanes that deliver at once, or hold while told to, or keep in flight.
struct Lanes {
    state: Mutex<State>,
    is_open: AtomicBool,
    is_failing: AtomicBool,
    spool: OnceLock<Weak<RedisSpool>>,
    backend: Backend,
}

#[derive(Default)]
struct State {
    next: u64,
    held: BTreeMap<u64, Uplink>,
    in_flight: HashSet<u64>,
    leaving: HashSet<u64>,
    appending: HashSet<u64>,
    recovered: u64,
    passed_on: u64,
    vanished: u64,
    buried: (u64, u64),
}

impl Lanes {
    fn deliver(&self, state: &mut State) {
        let spool = self.spool.get().and_then(Weak::upgrade).expect("it runs");
        let ready = |(number, uplink): (&u64, &Uplink)| {
            let is_ready =
                !state.in_flight.contains(number) && spool.may_deliver(&uplink.client_id);
            is_ready.then_some(*number)
        };
        let ready: Vec<_> = match self.is_open.load(SeqCst) {
            true => state.held.iter().filter_map(ready).collect(),
            false => return,
        };
        for number in ready {
            self.settle(state, &spool, number);
        }
    }

    fn settle(&self, state: &mut State, spool: &RedisSpool, number: u64) {
        let uplink = state.held.remove(&number).expect("held");
        let client_id = uplink.client_id.clone();
        let said = uplink.payload.to_text().into_owned();
        let mut backend = self.backend.lock();
        backend.push((client_id.to_string(), said, uplink.id));
        spool.remove(Place { client_id, number });
    }
}

impl Settle for Lanes {
    fn copies(&self, places: &[Place]) -> Vec<Record> {
        let state = self.state.lock();
        let copy = |place: &Place| {
            let uplink = state.held.get(&place.number)?.clone();
            let number = place.number;
            Some(Record { number, uplink })
        };
        places.iter().filter_map(copy).collect()
    }

    fn vanished(&self, count: u64) {
        self.state.lock().vanished += count;
    }

    fn reserve(&self, count: u64) -> u64 {
        let mut state = self.state.lock();
        state.next += count;
        state.next - count
    }

    fn backlog(&self, _: Vec<Backlog>, _: u64) {
        panic!("not of this spool");
    }

    fn committed(&self, _: &[Place]) {
        panic!("not of this spool");
    }

    fn passed_on(&self, places: &[Place]) {
        let mut state = self.state.lock();
        for place in places {
            assert!(state.appending.remove(&place.number));
        }
    }

    fn withdraw(&self, places: &[Place]) {
        let spool = self.spool.get().and_then(Weak::upgrade).expect("it runs");
        let mut state = self.state.lock();
        for place in places {
            if state.in_flight.contains(&place.number) {
                state.leaving.insert(place.number);
            } else if state.held.remove(&place.number).is_some() {
                state.passed_on += 1;
                spool.returned(place.clone());
            }
        }
    }

    fn resume(&self) {
        self.deliver(&mut self.state.lock());
    }

    fn has_room(&self) -> bool {
        self.state.lock().held.len() < 1000
    }

    fn recovered(&self, records: Vec<Record>) {
        let mut state = self.state.lock();
        for record in records {
            state.recovered += 1;
            state.held.insert(record.number, record.uplink);
        }
        self.deliver(&mut state);
    }

    fn loaded(&self, _: &ClientId, _: Vec<Record>) {
        panic!("not of this spool");
    }

    fn buried(&self, kept: u64, dropped: u64) {
        let mut state = self.state.lock();
        state.buried = (kept, state.buried.1 + dropped);
    }

    fn failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, SeqCst);
    }
}

/// A gateway without sockets and POSTs.
struct Node {
    lanes: Arc<Lanes>,
    spool: Arc<RedisSpool>,
    tasks: Tasks,
}

impl Node {
    fn start(redis: &TempRedis, backend: &Backend) -> Self {
        Self::start_with(redis, backend, |_| {})
    }

    fn start_with(
        redis: &TempRedis,
        backend: &Backend,
        adjust: impl FnOnce(&mut super::Shared),
    ) -> Self {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let config = Config::default().redis_port(redis.port);
        let mut spool = RedisSpool::new(&config, &NodeId::random(), &tasks).unwrap();
        adjust(Arc::get_mut(&mut spool.shared).expect("not started"));
        let lanes = Arc::new(Lanes {
            state: Mutex::default(),
            is_open: AtomicBool::new(true),
            is_failing: AtomicBool::new(false),
            spool: OnceLock::new(),
            backend: backend.clone(),
        });
        let spool = Arc::new(spool);
        assert!(lanes.spool.set(Arc::downgrade(&spool)).is_ok());
        let settle: Arc<dyn Settle> = lanes.clone();
        spool.start(Arc::downgrade(&settle));
        Self {
            lanes,
            spool,
            tasks,
        }
    }

    async fn owns(&self, count: usize) {
        let what = format!("it owns {count} shards");
        eventually(&what, || self.owned() == count).await;
    }

    fn owned(&self) -> usize {
        self.spool.shared.shards.lock().owned().len()
    }

    /// Hands over what a device says.
    fn say(&self, id: &str, text: impl ToString) -> Uuid {
        let client_id = ClientId::new(id).unwrap();
        let uplink = Uplink::new(client_id, SessionId(1), 1, text.to_string().into());
        let key = uplink.id;
        let mut state = self.lanes.state.lock();
        let number = state.next;
        state.next += 1;
        state.appending.insert(number);
        self.spool.append(Record { number, uplink });
        key
    }

    async fn all_taken(&self) {
        eventually("all are taken", || self.state(|s| s.appending.is_empty())).await;
    }

    fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lanes.state.lock())
    }

    fn open(&self, is_open: bool) {
        self.lanes.is_open.store(is_open, SeqCst);
        self.lanes.resume();
    }

    /// Ends as a killed process does: without a word.
    async fn kill(self) {
        self.lanes.is_open.store(false, SeqCst);
        self.tasks.stop();
        self.tasks.wait().await;
    }

    async fn stop(&self) {
        self.spool.stop(Instant::now() + DEADLINE).await;
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    fastsock_servers::eventually_within(DEADLINE, what, async || is_so()).await;
}

/// What is in all streams.
fn entries(redis: &TempRedis) -> usize {
    let lens = (0..SHARDS).map(|n| redis.run(&["XLEN", &format!("fastsock:uplink:{{{n}}}")]));
    lens.map(|len| redis::from_redis_value::<usize>(len).unwrap())
        .sum()
}

/// Each device's sayings in the order of their first delivery; every further one must have a key that was there.
fn heard(backend: &Backend) -> HashMap<String, Vec<String>> {
    let (mut keys, mut heard) = (HashSet::new(), HashMap::<_, Vec<_>>::new());
    for (id, said, key) in backend.lock().iter() {
        if keys.insert(*key) {
            heard.entry(id.clone()).or_default().push(said.clone());
        }
    }
    heard
}

fn is_complete(backend: &Backend, devices: usize, each: usize) -> bool {
    let heard = heard(backend);
    let said: Vec<_> = (0..each).map(|n| n.to_string()).collect();
    for (id, heard) in &heard {
        assert!(said.starts_with(heard), "{id}: {heard:?}");
    }
    heard.len() == devices && heard.values().all(|heard| *heard == said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_takes_the_owner_delivers_and_removes() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    let one = Node::start(&redis, &backend);
    one.owns(SHARDS).await;
    let two = Node::start(&redis, &backend);
    two.owns(8).await;
    one.owns(8).await;
    for n in 0..10 {
        for id in 0..50 {
            one.say(&format!("d{id}"), n);
        }
        one.all_taken().await;
    }
    eventually("all arrive", || is_complete(&backend, 50, 10)).await;
    assert_eq!(backend.lock().len(), 500, "each once");
    assert!(two.state(|s| s.recovered) > 0);
    eventually("all are removed", || entries(&redis) == 0).await;
    let left = redis.strings(&["KEYS", "fastsock:uplink:*:bytes"]);
    assert_eq!(left, [""; 0]);
    one.stop().await;
    two.owns(SHARDS).await;
    two.stop().await;
    assert_eq!(redis.strings(&["KEYS", "fastsock:uplink:nodes"]), [""; 0]);
    one.tasks.wait().await;
    eventually("the connections end", || redis.connections() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_outlives_a_redis_that_was_emptied() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    let nodes = [Node::start(&redis, &backend), Node::start(&redis, &backend)];
    for node in &nodes {
        node.owns(8).await;
        node.open(false);
    }
    for n in 0..10 {
        for id in 0..20 {
            nodes[n % 2].say(&format!("d{id}"), n);
        }
        nodes[n % 2].all_taken().await;
    }
    let held = || {
        nodes
            .iter()
            .map(|n| n.state(|s| s.held.len()))
            .sum::<usize>()
    };
    eventually("all are held", || held() == 200).await;
    redis.run(&["FLUSHALL"]);
    eventually("they are in Redis again", || {
        entries(&redis) == 200 && held() == 200
    })
    .await;
    nodes.iter().for_each(|node| node.open(true));
    eventually("all arrive", || is_complete(&backend, 20, 10)).await;
    eventually("all are removed", || entries(&redis) == 0).await;
    assert!(nodes.iter().all(|node| node.state(|s| s.vanished) == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_held_when_redis_was_emptied_is_counted() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    let one = Node::start_with(&redis, &backend, |shared| shared.count = 50);
    one.owns(SHARDS).await;
    one.open(false);
    for n in 0..1500 {
        one.say("d", n);
    }
    one.all_taken().await;
    eventually("it holds what it has room for", || {
        one.state(|s| s.held.len()) >= 1000
    })
    .await;
    eventually("it has counted them", || {
        one.spool.shared.shards.lock().length_of("d") == 1500
    })
    .await;
    let held = one.state(|s| s.held.len()); // a read may go past the bound
    redis.run(&["FLUSHALL"]);
    eventually("the rest is counted", || {
        one.state(|s| s.vanished) == 1500 - held as u64
    })
    .await;
    one.open(true);
    eventually("the others arrive", || {
        heard(&backend).get("d").is_some_and(|d| d.len() == held)
    })
    .await;
    one.say("d", "after");
    eventually("and what comes after", || {
        heard(&backend)["d"]
            .last()
            .is_some_and(|last| last == "after")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_one_held_the_other_delivers_in_order() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    let one = Node::start(&redis, &backend);
    one.owns(SHARDS).await;
    one.open(false);
    let two = Node::start(&redis, &backend);
    two.open(false);
    two.owns(8).await;
    for n in 0..5 {
        for id in 0..40 {
            let by = if n % 2 == 0 { &one } else { &two };
            by.say(&format!("d{id}"), n);
        }
        one.all_taken().await;
        two.all_taken().await;
    }
    eventually("the owner has them", || one.state(|s| !s.held.is_empty())).await;
    one.kill().await;
    two.open(true);
    eventually("all arrive", || is_complete(&backend, 40, 5)).await;
    two.owns(SHARDS).await;
    eventually("all are removed", || entries(&redis) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_one_gets_its_share_but_nothing_that_is_in_flight() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    let one = Node::start(&redis, &backend);
    one.owns(SHARDS).await;
    one.open(false);
    for n in 0..3 {
        for id in 0..64 {
            one.say(&format!("d{id}"), n);
        }
        one.all_taken().await;
    }
    eventually("it holds all", || one.state(|s| s.held.len()) == 192).await;
    // One device of a shard that will be left: its first message is with the backend.
    let (slow, number) = one.state(|s| {
        let mut held = s.held.iter();
        let found = held.find(|(_, uplink)| shard_of(uplink.client_id.as_str()) == 12);
        let (number, uplink) = found.expect("some of each shard");
        (uplink.client_id.to_string(), *number)
    });
    one.lanes.state.lock().in_flight.insert(number);
    let two = Node::start(&redis, &backend);
    two.owns(7).await;
    eventually("what it left is delivered", || heard(&backend).len() >= 20).await;
    assert!(!heard(&backend).contains_key(&slow), "in flight elsewhere");
    assert_eq!(one.owned(), 9);
    assert!(one.state(|s| s.leaving.contains(&number)));
    // The backend has it at last.
    one.lanes
        .settle(&mut one.lanes.state.lock(), &one.spool, number);
    two.owns(8).await;
    one.open(true);
    eventually("all arrive", || is_complete(&backend, 64, 3)).await;
    assert_eq!(backend.lock().len(), 192, "each once");
    assert_eq!(one.state(|s| s.recovered), 192);
    assert_eq!(one.state(|s| s.passed_on), two.state(|s| s.recovered));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_redis_costs_nobody_a_shard_and_doubles_nothing() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    let [one, two] = [Node::start(&redis, &backend), Node::start(&redis, &backend)];
    one.owns(8).await;
    two.owns(8).await;
    let keys: Vec<_> = (0..SHARDS)
        .map(|n| format!("fastsock:uplink:{{{n}}}:owner"))
        .collect();
    let owners = || {
        let keys = keys.iter().map(String::as_str);
        redis.strings(&["MGET"].into_iter().chain(keys).collect::<Vec<_>>())
    };
    // What a node thinks it owns may be on its way to the other one.
    eventually("each has its half, and Redis says so", || {
        let owners = owners();
        [&one, &two].iter().all(|node| {
            let is_its = |owner: &&String| owner.starts_with(&*node.spool.shared.node);
            node.owned() == 8 && owners.iter().filter(is_its).count() == 8
        })
    })
    .await;
    let before = owners();
    redis.freeze();
    for id in 0..40 {
        one.say(&format!("d{id}"), 0);
    }
    eventually("that is noticed", || {
        one.lanes.is_failing.load(SeqCst)
            && !one.spool.shared.has_lease()
            && !two.spool.shared.has_lease()
    })
    .await;
    let d0 = ClientId::new("d0").unwrap();
    assert!(!one.spool.may_deliver(&d0) && !two.spool.may_deliver(&d0));
    redis.thaw();
    one.all_taken().await;
    eventually("all arrive", || is_complete(&backend, 40, 1)).await;
    assert_eq!(owners(), before);
    assert!(!one.lanes.is_failing.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_with_its_log_loses_nothing() {
    let mut redis = TempRedis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let backend = Backend::default();
    let one = Node::start(&redis, &backend);
    one.owns(SHARDS).await;
    one.open(false);
    for n in 0..3 {
        for id in 0..20 {
            one.say(&format!("d{id}"), n);
        }
        one.all_taken().await;
        redis.kill();
        eventually("that is noticed", || one.lanes.is_failing.load(SeqCst)).await;
        redis.start_again();
    }
    one.say("d0", 3);
    one.all_taken().await;
    one.open(true);
    eventually("all arrive", || {
        heard(&backend).values().map(Vec::len).sum::<usize>() == 61
    })
    .await;
    assert_eq!(heard(&backend)["d0"], ["0", "1", "2", "3"]);
    eventually("all are removed", || entries(&redis) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_replica_nothing_is_taken_that_it_has_not() {
    let redis = TempRedis::start_with(&["--repl-diskless-sync-delay", "0"]);
    let backend = Backend::default();
    let port = redis.port.to_string();
    let replica = TempRedis::start_with(&["--replicaof", "127.0.0.1", &port]);
    let one = Node::start_with(&redis, &backend, |shared| shared.replicas = 1);
    one.owns(SHARDS).await;
    one.open(false);
    for id in 0..20 {
        one.say(&format!("d{id}"), 0);
    }
    one.all_taken().await;

    replica.freeze();
    for id in 0..20 {
        one.say(&format!("d{id}"), 1);
    }
    eventually("that is noticed", || one.lanes.is_failing.load(SeqCst)).await;
    assert_eq!(one.state(|state| state.appending.len()), 20);
    replica.thaw();
    one.all_taken().await;

    drop(redis); // without a last word to its replica
    let kept = entries(&replica);
    assert!(kept >= 40, "{kept}"); // those that were written twice have the same key
    replica.run(&["REPLICAOF", "NO", "ONE"]);
    one.kill().await;
    let two = Node::start(&replica, &backend);
    eventually("all arrive", || is_complete(&backend, 20, 2)).await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_all_the_time_lose_and_double_nothing() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    let one = Node::start(&redis, &backend);
    one.owns(SHARDS).await;
    for n in 0..10 {
        for id in 0..20 {
            one.say(&format!("d{id}"), n);
        }
        redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        one.all_taken().await;
    }
    eventually("all arrive", || is_complete(&backend, 20, 10)).await;
    eventually("all are removed", || entries(&redis) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_taken_over_from_delivers_and_removes_nothing() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    let one = Node::start(&redis, &backend);
    one.owns(SHARDS).await;
    one.open(false);
    one.say("d", 0);
    one.all_taken().await;
    eventually("it holds it", || one.state(|s| s.held.len()) == 1).await;
    let number = one.state(|s| *s.held.first_key_value().unwrap().0);
    one.lanes.state.lock().in_flight.insert(number);
    let owner = format!("fastsock:uplink:{{{}}}:owner", shard_of("d"));
    redis.run(&["ZADD", "fastsock:uplink:nodes", "99999999999999", "other"]);
    redis.run(&["SET", &owner, "other 9"]);
    // Its POST ends, and it does not know yet.
    one.lanes
        .settle(&mut one.lanes.state.lock(), &one.spool, number);
    eventually("it learns", || {
        !one.spool.may_deliver(&ClientId::new("d").unwrap())
    })
    .await;
    assert_eq!(entries(&redis), 1, "it is the other's to remove");
    assert_eq!(redis.strings(&["GET", &owner]), ["other 9"]);
    // The other is never heard of again.
    eventually("it is taken back", || one.owned() == SHARDS).await;
    one.lanes.state.lock().in_flight.clear();
    one.open(true);
    eventually("it is delivered", || entries(&redis) == 0).await;
    assert_eq!(heard(&backend)["d"], ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_takes_no_more_until_there_is_room_and_loses_nothing() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    for most in [(2, u64::MAX), (u64::MAX, 200)] {
        let one = Node::start_with(&redis, &backend, |shared| shared.most = most);
        one.owns(SHARDS).await;
        one.open(false);
        for n in 0..5 {
            one.say("d", n);
        }
        one.say("other", 0);
        eventually("two of it, and what is of others", || {
            one.state(|s| s.appending.len()) == 3
        })
        .await;
        assert_eq!(entries(&redis), 3);
        one.open(true);
        one.all_taken().await;
        eventually("all arrive", || {
            heard(&backend).get("d").is_some_and(|d| d.len() == 5)
        })
        .await;
        assert_eq!(heard(&backend)["d"], ["0", "1", "2", "3", "4"]);
        one.stop().await;
        backend.lock().clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_kept_found_replayed_dropped_and_bounded() {
    let (redis, backend) = (TempRedis::start(), Backend::default());
    let one = Node::start_with(&redis, &backend, |shared| shared.most_letters.0 = 3);
    one.owns(SHARDS).await;
    one.open(false);
    let keys: Vec<_> = (0..4).map(|n| one.say("d", n)).collect();
    one.all_taken().await;
    eventually("it holds them", || one.state(|s| s.held.len()) == 4).await;
    let held = std::mem::take(&mut one.lanes.state.lock().held);
    for (number, uplink) in held {
        one.spool.bury(number, letter(uplink));
    }
    eventually("three are kept", || one.state(|s| s.buried) == (3, 1)).await;
    assert_eq!(entries(&redis), 0);
    let ids = async |after, limit| {
        let letters = one.spool.dead_letters(after, limit).await.unwrap();
        letters.iter().map(|l| l.uplink.id).collect::<Vec<_>>()
    };
    let all = ids(None, 9).await;
    assert_eq!(all, keys[1..]);
    assert_eq!(ids(None, 2).await, keys[1..3]);
    assert_eq!(ids(Some(keys[1]), 9).await, keys[2..]);
    let found = one.spool.dead_letter(keys[2]).await.unwrap().unwrap();
    assert_eq!(
        (found.status, found.uplink.payload),
        (Some(404), "2".into())
    );
    assert!(one.spool.dead_letter(keys[0]).await.unwrap().is_none());
    assert!(!one.spool.replay(keys[0]).await.unwrap());
    one.open(true);
    assert!(one.spool.replay(keys[2]).await.unwrap());
    eventually("it comes back", || heard(&backend).contains_key("d")).await;
    assert_eq!(backend.lock()[0].2, keys[2]);
    assert!(one.spool.drop_letter(keys[3]).await.unwrap());
    assert!(!one.spool.drop_letter(keys[3]).await.unwrap());
    // A look at the shard from just before may be told after this; the next look puts it right.
    eventually("one is left", || one.state(|s| s.buried) == (1, 2)).await;
    // The next one sees what is left; what is too old goes.
    one.stop().await;
    let two = Node::start_with(&redis, &backend, |shared| shared.most_letters.1 = 1);
    eventually("it knows", || two.state(|s| s.buried.0) == 1).await;
    eventually("it is gone", || two.state(|s| s.buried.0) == 0).await;
}

fn letter(uplink: Uplink) -> DeadLetter {
    DeadLetter {
        uplink,
        reason: LostReason::Rejected,
        status: Some(404),
        error: "no".into(),
        attempts: 1,
        first_attempt_at: None,
        last_attempt_at: None,
        given_up_at: SystemTime::now(),
        headers: Vec::new(),
    }
}

const DEADLINE: Duration = Duration::from_secs(30);
