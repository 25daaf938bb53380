//! Mailboxes on disks that fail, and that forget what was not synced.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::*;
use crate::{
    config::Fsync,
    data_file::disk_in_memory::Disk,
    mailbox::KeepOptions,
    node::NodeId,
    pure::kept::EntryId,
    types::{Payload, SessionId},
};

/// What a transaction does here: keep for one of three devices, or read and confirm some of it.
#[test]
fn what_was_synced_is_there_after_a_power_cut_and_in_its_order() {
    for fsync in [Fsync::Always, Fsync::Interval] {
        for seed in 0..25 {
            let mut rng = Rng::with_seed(seed);
            let disk = Disk::default();
            let config = Config::default().spool_fsync(fsync);
            let mut store = Store::new(&config, disk.file("mailbox"));
            store.open_first().unwrap();
            let mut model = Model::default();
            for _ in 0..4 {
                disk.cut_power_after(rng.u64(20..200));
                while step(&mut store, &mut model, &mut rng).is_ok() {}
                store.let_go();
                disk.come_back(&mut rng);
                store = Store::new(&config, disk.file("mailbox"));
                store.open_first().unwrap();
                model.check(&mut store, fsync, seed);
            }
        }
    }
}

#[test]
fn a_disk_that_fails_for_a_while_loses_nothing_that_was_taken() {
    for fsync in [Fsync::Always, Fsync::Interval] {
        let disk = Disk::default();
        let config = Config::default()
            .spool_fsync(fsync)
            .spool_fsync_interval(Duration::from_secs(60));
        let mut store = Store::new(&config, disk.file("mailbox"));
        store.open_first().unwrap();
        for n in 0..5 {
            keep(&mut store, "dev", n).unwrap();
        }
        disk.fail(true);
        store.sync().unwrap_err();
        store.let_go();
        for _ in 0..3 {
            keep(&mut store, "dev", 99).unwrap_err();
            store.let_go();
        }
        disk.fail(false);
        keep(&mut store, "dev", 5).unwrap();
        let found = all(&mut store, "dev");
        assert_eq!(found, [0, 1, 2, 3, 4, 5], "{fsync:?}");
    }
}

/// The mailboxes themselves are what fills the disk: nobody else makes room.
#[tokio::test]
async fn what_fills_a_disk_is_read_and_makes_room_for_more() {
    for fsync in [Fsync::Always, Fsync::Interval] {
        let disk = Disk::default();
        disk.has_bytes(1 << 20);
        let config = Config::default()
            .spool_fsync(fsync)
            .mailbox_messages(100_000_usize)
            .mailbox_bytes(1_usize << 30);
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let of_disk = Store::new(&config, disk.file("mailbox"));
        let mailbox = DiskMailbox::with_store(|| Ok(of_disk), &tasks)
            .await
            .unwrap();
        let client_id = ClientId::new("dev").unwrap();
        let keep = |n: u64| {
            let text = format!("{n} {}", "x".repeat(n as usize * 977 % 9000));
            let message = Message::new(Payload::text(text), KeepOptions::default()).unwrap();
            mailbox.keep(&client_id, message)
        };
        for _ in 0..5 {
            let mut kept = Vec::new();
            let n = loop {
                let n = kept.len() as u64;
                match keep(n).await {
                    Ok(_) => kept.push(n),
                    Err(_) => break n,
                }
            };
            assert!(n > 10, "{fsync:?}: {n}");
            let owner = owner("dev", 1);
            let mut found = Vec::new();
            let mut turn = Turn {
                messages: 10,
                bytes: usize::MAX,
                ..Turn::default()
            };
            loop {
                // The first may come while the file is opened anew.
                let visit = fastsock_servers::eventually("it is read", async || {
                    mailbox.visit(&owner, &turn).await
                })
                .await;
                let numbers = visit.entries.iter().map(|entry| number(&entry.payload));
                found.extend(numbers);
                turn.remove = visit.entries.iter().map(|entry| entry.id).collect();
                if visit.is_empty {
                    break;
                }
            }
            assert_eq!(found, kept, "{fsync:?}");
            fastsock_servers::eventually("there is room again", async || keep(0).await).await;
            assert_eq!(mailbox.clear(&client_id).await.unwrap(), 1);
        }
        tasks.stop();
        tasks.wait().await;
    }
}

/// A removal of each of them touches pages of its own: together they take more than the reserve has.
#[tokio::test]
async fn small_messages_of_many_devices_are_removed_from_a_full_disk() {
    for fsync in [Fsync::Always, Fsync::Interval] {
        let disk = Disk::default();
        disk.has_bytes(4 << 20);
        let config = Config::default().spool_fsync(fsync);
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let of_disk = Store::new(&config, disk.file("mailbox"));
        let mailbox = DiskMailbox::with_store(|| Ok(of_disk), &tasks)
            .await
            .unwrap();
        let name = |n: u64| format!("{} {}", n % 97, "d".repeat(100));
        let keep = async |n: u64| {
            let message = Message::new(Payload::text(n.to_string()), KeepOptions::default());
            let client_id = ClientId::new(name(n)).unwrap();
            mailbox.keep(&client_id, message.unwrap()).await
        };
        let mut kept = 0;
        while keep(kept).await.is_ok() {
            kept += 1;
        }
        assert!(kept > 500, "{fsync:?}: {kept}");
        let empty = async |n: u64| {
            let owner = owner(&name(n), 1);
            let mut turn = Turn {
                messages: 10_000,
                bytes: usize::MAX,
                ..Turn::default()
            };
            let mut found = 0;
            fastsock_servers::eventually("the mailbox is empty", async || {
                let visit = mailbox.visit(&owner, &turn).await.ok()?;
                found = found.max(visit.entries.len());
                turn.remove = visit.entries.iter().map(|entry| entry.id).collect();
                visit.is_empty.then_some(())
            })
            .await;
            found
        };
        let found: usize = futures_util::future::join_all((0..97).map(empty))
            .await
            .into_iter()
            .sum();
        assert_eq!(found as u64, kept, "{fsync:?}");
        fastsock_servers::eventually("there is room again", async || keep(0).await).await;
        tasks.stop();
        tasks.wait().await;
    }
}

#[test]
fn of_two_sessions_the_older_one_removes_nothing() {
    let mut store = Store::new(&Config::default(), Disk::default().file("mailbox"));
    store.open_first().unwrap();
    keep(&mut store, "dev", 1).unwrap();
    let first = visit(&mut store, "dev", 1, Vec::new()).unwrap();
    assert_eq!(first.entries.len(), 1);
    let ids = vec![first.entries[0].id];
    let second = visit(&mut store, "dev", 2, Vec::new()).unwrap();
    assert_eq!(second.entries, first.entries);
    assert!(visit(&mut store, "dev", 1, ids.clone()).unwrap().is_fenced);
    let last = visit(&mut store, "dev", 2, ids).unwrap();
    assert!(last.is_empty && !last.is_fenced && !last.has_more);
}

/// What was taken, and what was confirmed.
#[derive(Default)]
struct Model {
    next: u64,
    /// By device: the numbers that were taken since the last cut, and those before.
    taken: BTreeMap<&'static str, BTreeSet<u64>>,
    removed: BTreeSet<u64>,
}

impl Model {
    fn check(&mut self, store: &mut Store, fsync: Fsync, seed: u64) {
        for name in DEVICES {
            let found = all(store, name);
            assert!(found.is_sorted(), "seed {seed}: {found:?}");
            let taken = self.taken.entry(name).or_default();
            if fsync == Fsync::Always {
                let missing: Vec<_> = taken
                    .iter()
                    .filter(|n| !found.contains(n) && !self.removed.contains(n))
                    .collect();
                assert!(missing.is_empty(), "seed {seed}: {missing:?}");
            }
            *taken = found.into_iter().collect(); // one that was being kept may be there, and one being removed
        }
        self.removed.clear();
    }
}

const DEVICES: [&str; 3] = ["a", "b", "b\u{0}"];

fn step(store: &mut Store, model: &mut Model, rng: &mut Rng) -> Result<(), Fault> {
    let name = DEVICES[rng.usize(..DEVICES.len())];
    if rng.u8(..3) > 0 {
        model.next += 1;
        keep(store, name, model.next)?;
        model.taken.entry(name).or_default().insert(model.next);
    } else {
        let found = visit(store, name, 1, Vec::new())?;
        let some = rng.usize(..=found.entries.len());
        let entries = &found.entries[..some];
        let numbers = entries.iter().map(|entry| number(&entry.payload));
        model.removed.extend(numbers); // also when it fails: nobody knows
        let ids = entries.iter().map(|entry| entry.id).collect();
        visit(store, name, 1, ids)?;
    }
    if rng.u8(..10) == 0 {
        store.sync()?;
    }
    Ok(())
}

fn keep(store: &mut Store, name: &str, n: u64) -> Result<(), Fault> {
    let message = Message::new(Payload::text(n.to_string()), KeepOptions::default()).unwrap();
    let client_id = ClientId::new(name).unwrap();
    store.transact(true, |work| work.keep(&client_id, &message).map(drop))?;
    Ok(())
}

fn visit(
    store: &mut Store,
    name: &str,
    session: u64,
    remove: Vec<EntryId>,
) -> Result<Visit, Fault> {
    let owner = owner(name, session);
    let turn = Turn {
        remove,
        messages: 10_000,
        bytes: usize::MAX,
        ..Turn::default()
    };
    let mut visit = Visit::default();
    store.transact(false, |work| {
        visit = work.visit(&owner, &turn)?;
        Ok(())
    })?;
    Ok(visit)
}

fn owner(name: &str, session: u64) -> Owner {
    Owner {
        client_id: ClientId::new(name).unwrap(),
        node: NodeId::random(),
        session_id: SessionId(session),
        epoch: session,
    }
}

fn all(store: &mut Store, name: &str) -> Vec<u64> {
    let found = visit(store, name, 1, Vec::new()).unwrap();
    found.entries.iter().map(|e| number(&e.payload)).collect()
}

fn number(payload: &Payload) -> u64 {
    let text = payload.to_text();
    text.split(' ').next().unwrap().parse().unwrap()
}
