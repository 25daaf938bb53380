//! The disk spool against a model, on disks that fail, fill up, and forget what was not synced.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use super::*;
use crate::{
    config::Fsync,
    data_file::disk_in_memory::Disk,
    types::{LostReason, Payload, SessionId, Uplink},
};
use fastrand::Rng;
use futures_util::FutureExt;

fn store(disk: &Disk, config: &Config) -> Store {
    Store::new(config, disk.file("spool"))
}

fn uplink(client_id: &str, seq: u64) -> Uplink {
    let client_id = ClientId::new(client_id).unwrap();
    let text = format!("{client_id} {seq} {}", "x".repeat(seq as usize % 300));
    Uplink::new(client_id, SessionId(1), seq, Payload::text(text))
}

fn append(client_id: &str, number: u64) -> Op {
    Op::Append(Record {
        number,
        uplink: uplink(client_id, number),
    })
}

fn remove(client_id: &str, number: u64) -> Op {
    Op::Remove(Place::new(&ClientId::new(client_id).unwrap(), number))
}

fn letter(uplink: Uplink) -> DeadLetter {
    DeadLetter {
        uplink,
        reason: LostReason::Rejected,
        status: Some(400),
        error: "Request failed with status code 400".into(),
        attempts: 1,
        first_attempt_at: None,
        last_attempt_at: None,
        given_up_at: std::time::SystemTime::now(),
        headers: Vec::new(),
    }
}

/// What is in the spool, by device, read through windows of a random size.
fn contents(store: &Store, rng: &mut Rng) -> BTreeMap<String, Vec<(u64, String)>> {
    let mut contents = BTreeMap::new();
    for found in store.found().unwrap().backlog {
        let (mut all, mut after, mut bytes) = (Vec::new(), None, 0);
        loop {
            let records = store
                .load(&found.client_id, after, rng.usize(1..2000), &[])
                .unwrap();
            let Some(last) = records.last() else { break };
            after = Some(last.number);
            for record in records {
                bytes += record.uplink.payload.cost();
                all.push((record.number, record.uplink.payload.to_text().into_owned()));
            }
        }
        assert_eq!((found.messages, found.bytes), (all.len(), bytes));
        contents.insert(found.client_id.to_string(), all);
    }
    contents
}

type Model = BTreeMap<String, BTreeMap<u64, String>>;

fn apply_to(model: &mut Model, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Append(Record { number, uplink }) => {
                let lane = model.entry(uplink.client_id.to_string()).or_default();
                lane.insert(*number, uplink.payload.to_text().into_owned());
            }
            Op::Remove(place) => {
                if let Some(lane) = model.get_mut(place.client_id.as_str()) {
                    lane.remove(&place.number);
                }
            }
            _ => {}
        }
    }
    model.retain(|_, lane| !lane.is_empty());
}

fn listed(model: &Model) -> BTreeMap<String, Vec<(u64, String)>> {
    let list = |lane: &BTreeMap<_, String>| lane.iter().map(|(n, t)| (*n, t.clone())).collect();
    model
        .iter()
        .map(|(id, lane)| (id.clone(), list(lane)))
        .collect()
}

/// Some appends and removals in lanes whose ids are prefixes of each other.
fn random_ops(rng: &mut Rng, model: &Model, next: &mut u64) -> Vec<Op> {
    let mut ops = Vec::new();
    for _ in 0..rng.usize(1..20) {
        let id = ["a", "a\0", "ab", "b", "é"][rng.usize(..5)];
        match model.get(id).and_then(|lane| lane.first_key_value()) {
            Some((number, _)) if rng.bool() => ops.push(remove(id, *number)),
            _ => {
                *next += rng.u64(1..3);
                ops.push(append(id, *next));
            }
        }
    }
    ops
}

#[test]
fn it_holds_what_a_model_holds_through_every_restart() {
    let mut rng = Rng::new();
    for _ in 0..10 {
        let seed = rng.u64(..);
        let mut rng = Rng::with_seed(seed);
        let disk = Disk::default();
        let (mut model, mut next) = (Model::new(), 0);
        for _ in 0..10 {
            let mut store = store(&disk, &Config::default());
            store.open_first().unwrap();
            assert_eq!(contents(&store, &mut rng), listed(&model), "seed {seed}");
            let newest = model.values().filter_map(|lane| lane.last_key_value());
            let newest = newest.map(|(number, _)| *number + 1).max();
            assert_eq!(store.found().unwrap().next_number, newest.unwrap_or(0));
            for _ in 0..rng.usize(..10) {
                let ops = random_ops(&mut rng, &model, &mut next);
                store.write(&ops, &|| 0).unwrap();
                apply_to(&mut model, &ops);
            }
            store.close();
        }
    }
}

#[test]
fn a_power_cut_takes_nothing_that_was_reported_as_committed() {
    let mut rng = Rng::new();
    let mut cuts = 0;
    while cuts < 100 {
        let seed = rng.u64(..);
        let mut rng = Rng::with_seed(seed);
        let disk = Disk::default();
        let (mut model, mut next) = (Model::new(), 0);
        for _ in 0..8 {
            let mut store = store(&disk, &Config::default());
            store
                .open_first()
                .unwrap_or_else(|e| panic!("seed {seed}: {}", e.to_line()));
            disk.cut_power_after(rng.u64(1..200));
            let lost = loop {
                let ops = random_ops(&mut rng, &model, &mut next);
                match store.write(&ops, &|| 0) {
                    Ok(_) => apply_to(&mut model, &ops),
                    Err(_) => break ops,
                }
            };
            drop(store);
            cuts += 1;
            disk.come_back(&mut rng);
            // What failed may be there all the same, but only as a whole.
            let mut store = self::store(&disk, &Config::default());
            store
                .open_first()
                .unwrap_or_else(|e| panic!("seed {seed}: {}", e.to_line()));
            let there = contents(&store, &mut rng);
            if there != listed(&model) {
                apply_to(&mut model, &lost);
                assert_eq!(there, listed(&model), "seed {seed}");
            }
        }
    }
}

#[test]
fn with_syncs_now_and_then_a_power_cut_takes_only_what_came_since() {
    let mut rng = Rng::new();
    let config = Config::default()
        .spool_fsync(Fsync::Interval)
        .spool_fsync_interval(Duration::from_secs(60));
    for _ in 0..20 {
        let disk = Disk::default();
        let mut store = store(&disk, &config);
        store.open_first().unwrap();
        store
            .write(&[append("a", 1), append("a", 2)], &|| 0)
            .unwrap();
        store.sync().unwrap();
        store
            .write(&[append("a", 3), remove("a", 1)], &|| 0)
            .unwrap();
        assert!(store.sync_at().is_some());
        disk.fail(true);
        drop(store);
        disk.come_back(&mut rng);
        let mut store = self::store(&disk, &config);
        store.open_first().unwrap();
        let numbers = store
            .load(&ClientId::new("a").unwrap(), None, 9999, &[])
            .unwrap();
        let numbers: Vec<_> = numbers.iter().map(|record| record.number).collect();
        assert_eq!(numbers, [1, 2]);
    }
}

#[test]
fn what_was_not_synced_is_written_again_after_a_fault() {
    let config = Config::default()
        .spool_fsync(Fsync::Interval)
        .spool_fsync_interval(Duration::from_secs(60));
    let disk = Disk::default();
    let mut store = store(&disk, &config);
    store.open_first().unwrap();
    store
        .write(&[append("a", 1), append("a", 2)], &|| 0)
        .unwrap();
    disk.fail(true);
    assert!(store.sync().is_err());
    store.let_go();
    disk.come_back(&mut Rng::new());
    store.write(&[remove("a", 1)], &|| 0).unwrap();
    let found = store.found().unwrap();
    assert_eq!((found.backlog[0].messages, found.next_number), (1, 3));
}

#[test]
fn dead_letters_keep_within_their_bounds() {
    let config = Config::default()
        .dead_letters_max(3usize)
        .dead_letters_max_age(Duration::from_secs(1));
    let mut store = store(&Disk::default(), &config);
    store.open_first().unwrap();
    let mut letters: Vec<_> = (1..=5).map(|seq| letter(uplink("a", seq))).collect();
    letters[3].given_up_at -= Duration::from_secs(2);
    for (number, letter) in (1..).zip(&letters) {
        store.write(&[append("a", number)], &|| 0).unwrap();
        let bury = Op::Bury(number, Box::new(letter.clone()));
        let outcome = store.write(&[bury], &|| 0).unwrap();
        assert_eq!(outcome.letters, Some(number.min(3)));
        assert_eq!(outcome.dropped, u64::from(number > 3));
    }
    assert!(store.found().unwrap().backlog.is_empty());
    let ids = |store: &Store, after, limit| {
        let letters = store.letters(after, limit).unwrap();
        letters
            .iter()
            .map(|letter| letter.uplink.seq)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&store, None, 10), [3, 4, 5]);
    assert_eq!(ids(&store, Some(letters[2].uplink.id), 1), [4]);
    let outcome = store.write(&[Op::Expire], &|| 0).unwrap();
    assert_eq!((outcome.letters, outcome.dropped), (Some(2), 1));
    assert_eq!(ids(&store, None, 10), [3, 5]);

    let (answer, _answered) = oneshot::channel();
    let (again, _answered) = oneshot::channel();
    let id = letters[4].uplink.id;
    let ops = [Op::Replay(id, answer), Op::DropLetter(id, again)];
    let outcome = store.write(&ops, &|| 77).unwrap();
    assert_eq!(
        (outcome.found, outcome.letters),
        (vec![true, false], Some(1))
    );
    assert_eq!(
        (outcome.replayed[0].number, outcome.replayed[0].uplink.id),
        (77, id)
    );
    assert_eq!(store.found().unwrap().next_number, 78);
    assert!(store.letter(id).unwrap().is_none());
}

/// Lanes that only write down what they are told.
#[derive(Default)]
struct Told {
    committed: Mutex<Vec<u64>>,
    loaded: Mutex<Vec<u64>>,
    letters: AtomicU64,
    is_failing: AtomicBool,
    /// Something was told by a thread that is none of the runtime's.
    was_told_outside: AtomicBool,
    panics_when: Mutex<&'static str>,
}

impl Told {
    fn note(&self, what: &str) {
        if *self.panics_when.lock() == what {
            panic!("as the test wants it");
        }
        if what != "reserve" && tokio::runtime::Handle::try_current().is_err() {
            self.was_told_outside.store(true, Relaxed);
        }
    }
}

impl Settle for Told {
    fn copies(&self, _: &[Place]) -> Vec<Record> {
        Vec::new()
    }

    fn vanished(&self, _: u64) {}

    fn reserve(&self, _: u64) -> u64 {
        self.note("reserve");
        77
    }
    fn backlog(&self, _: Vec<Backlog>, _: u64) {}
    fn committed(&self, places: &[Place]) {
        self.note("committed");
        let numbers = places.iter().map(|place| place.number);
        self.committed.lock().extend(numbers);
    }
    fn passed_on(&self, _: &[Place]) {}
    fn withdraw(&self, _: &[Place]) {}
    fn resume(&self) {}
    fn has_room(&self) -> bool {
        true
    }
    fn recovered(&self, records: Vec<Record>) {
        self.note("recovered");
        let numbers = records.iter().map(|record| record.number);
        self.committed.lock().extend(numbers);
    }
    fn loaded(&self, _: &ClientId, records: Vec<Record>) {
        self.note("loaded");
        let numbers = records.iter().map(|record| record.number);
        self.loaded.lock().extend(numbers);
    }
    fn buried(&self, kept: u64, _: u64) {
        self.note("buried");
        self.letters.store(kept, Relaxed);
    }
    fn failing(&self, is_failing: bool) {
        self.note("failing");
        self.is_failing.store(is_failing, Relaxed);
    }
}

async fn spool(disk: &Disk, tasks: &Tasks) -> DiskSpool {
    let store = store(disk, &Config::default());
    DiskSpool::with_store(|| Ok(store), tasks).await.unwrap()
}

/// One that reports to these lanes.
async fn spool_of(told: &Arc<Told>, disk: &Disk, tasks: &Tasks) -> DiskSpool {
    let spool = spool(disk, tasks).await;
    let settle: Weak<dyn Settle> = Arc::<Told>::downgrade(told);
    spool.start(settle);
    spool
}

fn put(spool: &DiskSpool, number: u64) {
    let uplink = uplink("a", number);
    spool.append(Record { number, uplink });
}

/// One dead letter, made of an uplink. Returns its id.
async fn bury(spool: &DiskSpool, number: u64) -> Uuid {
    let uplink = uplink("a", number);
    let letter = letter(uplink.clone());
    spool.append(Record { number, uplink });
    spool.bury(number, letter.clone());
    let found = spool.dead_letters(None, 9).await.unwrap();
    assert_eq!(found.last().unwrap().uplink.id, letter.uplink.id);
    letter.uplink.id
}

async fn until(what: impl Fn() -> bool) {
    fastsock_servers::eventually("the spool has done it", async || what()).await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_waited_out_and_costs_nothing() {
    let disk = Disk::default();
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let told = Arc::new(Told::default());
    let spool = spool_of(&told, &disk, &tasks).await;
    let put = |number| put(&spool, number);
    put(1);
    until(|| *told.committed.lock() == [1]).await;
    disk.fail(true);
    put(2);
    until(|| told.is_failing.load(Relaxed)).await;
    put(3);
    assert!(spool.dead_letters(None, 1).await.is_err(), "it says so");
    assert_eq!(*told.committed.lock(), [1]);
    disk.fail(false);
    until(|| *told.committed.lock() == [1, 2, 3]).await;
    until(|| !told.is_failing.load(Relaxed)).await;
    spool.stop(Instant::now() + Duration::from_secs(10)).await;
    tasks.wait().await;
    let mut store = store(&disk, &Config::default());
    store.open_first().unwrap();
    assert_eq!(store.found().unwrap().backlog[0].messages, 3);
}

/// The spool itself is what fills the disk: nobody else makes room.
#[tokio::test]
async fn what_fills_a_disk_is_delivered_and_makes_room_for_what_waits() {
    for fsync in [Fsync::Always, Fsync::Interval] {
        let disk = Disk::default();
        disk.has_bytes(1 << 20);
        let config = Config::default().spool_fsync(fsync);
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let of_spool = store(&disk, &config);
        let spool = DiskSpool::with_store(|| Ok(of_spool), &tasks)
            .await
            .unwrap();
        let told = Arc::new(Told::default());
        let settle: Weak<dyn Settle> = Arc::<Told>::downgrade(&told);
        spool.start(settle);
        let mut appended = 0;
        while !told.is_failing.load(Relaxed) {
            for _ in 0..fastrand::u64(1..20) {
                appended += 1;
                let mut uplink = uplink("a", appended);
                uplink.payload = Payload::text("x".repeat(1 + appended as usize * 977 % 9000));
                let number = appended;
                spool.append(Record { number, uplink });
            }
            let done = |told: &Told| told.committed.lock().len() as u64 == appended;
            until(|| done(&told) || told.is_failing.load(Relaxed)).await;
        }
        let held = told.committed.lock().len();
        assert!(held > 50, "{held} of {appended}");

        // As a lane does it: some are read and delivered, then the next.
        let client_id = ClientId::new("a").unwrap();
        let mut delivered = 0;
        while delivered < appended {
            let before = told.loaded.lock().len();
            spool.load(client_id.clone(), None, 20_000);
            until(|| told.loaded.lock().len() > before).await;
            let loaded = told.loaded.lock().clone();
            let expected: Vec<_> = (1..=loaded.len() as u64).collect();
            assert_eq!(loaded, expected, "in order, each once");
            while delivered < loaded.len() as u64 {
                delivered += 1;
                spool.remove(Place::new(&client_id, delivered));
            }
            until(|| told.committed.lock().len() as u64 > delivered || delivered == appended).await;
        }
        until(|| !told.is_failing.load(Relaxed)).await;
        assert_eq!(told.committed.lock().len() as u64, appended);
        spool.stop(Instant::now() + Duration::from_secs(10)).await;
        tasks.wait().await;
        let mut store = store(&disk, &config);
        store.open_first().unwrap();
        assert!(store.found().unwrap().backlog.is_empty());
    }
}

#[test]
fn a_spool_on_a_full_disk_can_be_opened() {
    let disk = Disk::default();
    let config = Config::default();
    let mut spool = store(&disk, &config);
    spool.open_first().unwrap();
    disk.has_bytes(1 << 20);
    let written = (0..).take_while(|number| spool.write(&[append("a", *number)], &|| 0).is_ok());
    let written = written.count();
    drop(spool);
    disk.has_bytes(1);
    let mut spool = store(&disk, &config);
    spool.open_first().unwrap();
    assert_eq!(spool.found().unwrap().backlog[0].messages, written);
}

#[tokio::test]
async fn with_a_full_disk_it_still_stops_in_time() {
    let disk = Disk::default();
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let told = Arc::new(Told::default());
    let spool = spool_of(&told, &disk, &tasks).await;
    disk.fail(true);
    put(&spool, 1);
    spool.stop(Instant::now() + Duration::from_millis(50)).await;
    tasks.wait().await;
}

#[tokio::test]
async fn the_lanes_are_told_inside_the_runtime_and_before_anyone_gets_an_answer() {
    let disk = Disk::default();
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let told = Arc::new(Told::default());
    let spool = spool_of(&told, &disk, &tasks).await;
    let id = bury(&spool, 1).await;
    assert_eq!(told.letters.load(Relaxed), 1);
    assert!(spool.replay(id).await.unwrap());
    assert_eq!(told.letters.load(Relaxed), 0);
    assert_eq!(*told.committed.lock(), [1, 77]);
    put(&spool, 78);
    spool.load(ClientId::new("a").unwrap(), None, 9999);
    until(|| *told.loaded.lock() == [77, 78]).await;
    assert_eq!(*told.committed.lock(), [1, 77, 78]);
    disk.fail(true);
    put(&spool, 79);
    until(|| told.is_failing.load(Relaxed)).await;
    disk.fail(false);
    until(|| !told.is_failing.load(Relaxed)).await;
    assert_eq!(*told.committed.lock(), [1, 77, 78, 79]);
    assert!(!told.was_told_outside.load(Relaxed));
    spool.stop(Instant::now() + Duration::from_secs(10)).await;
}

#[tokio::test]
async fn when_it_has_stopped_the_lanes_know_of_all_that_it_has() {
    for count in [1, 2 * REPORT_MAX as u64 + 7] {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let told = Arc::new(Told::default());
        let spool = spool_of(&told, &Disk::default(), &tasks).await;
        (1..=count).for_each(|number| put(&spool, number));
        spool.abort();
        while Arc::strong_count(&spool.queue) > 2 {
            thread::sleep(Duration::from_millis(1)); // until its thread has ended; the task has no turn meanwhile
        }
        assert!(told.committed.lock().is_empty());
        spool.stop(Instant::now() + Duration::from_secs(10)).await;
        let expected: Vec<_> = (1..=count).collect();
        assert_eq!(*told.committed.lock(), expected, "in order, each once");
        tasks.wait().await;
    }
}

#[tokio::test]
async fn a_panic_of_its_thread_or_its_task_is_told_and_ends_it() {
    for panics_when in ["reserve", "recovered"] {
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let told = Arc::new(Told::default());
        let spool = spool_of(&told, &Disk::default(), &tasks).await;
        let id = bury(&spool, 1).await;
        *told.panics_when.lock() = panics_when;
        assert!(spool.replay(id).await.is_err());
        spool.queue.ended.cancelled().await;
        assert!(told.is_failing.load(Relaxed));
        tasks.wait().await;
    }
}

#[tokio::test]
async fn neither_a_failed_start_nor_a_dropped_spool_leaves_a_thread_or_a_task() {
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let broken = || Err(Error::new(ErrorKind::Io, "no disk"));
    assert!(DiskSpool::with_store(broken, &tasks).await.is_err());
    tasks.wait().await;
    let disk = Disk::default();
    let of_spool = store(&disk, &Config::default());
    let starting = DiskSpool::with_store(|| Ok(of_spool), &tasks);
    drop(starting.now_or_never()); // given up meanwhile
    tasks.wait().await;
    drop(spool(&disk, &tasks).await);
    tasks.wait().await;
}

#[test]
fn its_thread_ends_with_the_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let tasks = Tasks::new(runtime.handle().clone());
    let told = Arc::new(Told::default());
    let disk = Disk::default();
    let spool = runtime.block_on(spool_of(&told, &disk, &tasks));
    put(&spool, 1);
    drop(runtime);
    assert!(spool.queue.ended.is_cancelled());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(tasks.wait());
    let mut store = store(&disk, &Config::default());
    store.open_first().unwrap();
    assert_eq!(store.found().unwrap().backlog[0].messages, 1);
}
