//! The disk spool against a model, on disks that fail, fill up, and forget what was not synced.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::*;
use crate::{
    config::Fsync,
    data_file::disk_in_memory::Disk,
    types::{LostReason, Payload, SessionId, Uplink},
};
use fastrand::Rng;

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
    is_failing: AtomicBool,
}

impl Settle for Told {
    fn copies(&self, _: &[Place]) -> Vec<Record> {
        Vec::new()
    }

    fn vanished(&self, _: u64) {}

    fn reserve(&self, _: u64) -> u64 {
        0
    }
    fn backlog(&self, _: Vec<Backlog>, _: u64) {}
    fn committed(&self, places: &[Place]) {
        let numbers = places.iter().map(|place| place.number);
        self.committed.lock().extend(numbers);
    }
    fn passed_on(&self, _: &[Place]) {}
    fn withdraw(&self, _: &[Place]) {}
    fn resume(&self) {}
    fn has_room(&self) -> bool {
        true
    }
    fn recovered(&self, _: Vec<Record>) {}
    fn loaded(&self, _: &ClientId, records: Vec<Record>) {
        let numbers = records.iter().map(|record| record.number);
        self.loaded.lock().extend(numbers);
    }
    fn buried(&self, _: u64, _: u64) {}
    fn failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Relaxed);
    }
}

async fn spool(disk: &Disk, tasks: &Tasks) -> DiskSpool {
    let store = store(disk, &Config::default());
    DiskSpool::with_store(|| Ok(store), tasks).await.unwrap()
}

async fn until(what: impl Fn() -> bool) {
    fastsock_servers::eventually("the spool has done it", async || what()).await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_waited_out_and_costs_nothing() {
    let disk = Disk::default();
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let spool = spool(&disk, &tasks).await;
    let told = Arc::new(Told::default());
    let settle: Weak<dyn Settle> = Arc::<Told>::downgrade(&told);
    spool.start(settle);
    let put = |number| {
        spool.append(Record {
            number,
            uplink: uplink("a", number),
        })
    };
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
    let spool = spool(&disk, &tasks).await;
    let told: Arc<dyn Settle> = Arc::new(Told::default());
    spool.start(Arc::downgrade(&told));
    disk.fail(true);
    spool.append(Record {
        number: 1,
        uplink: uplink("a", 1),
    });
    spool.stop(Instant::now() + Duration::from_millis(50)).await;
    tasks.wait().await;
}
