//! Which uplinks of a device were taken, by the names it gave them, so that one it sends again is acknowledged and not taken
//! twice. Kept by client id: a reconnect and a takeover change nothing. No I/O.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    config::Config,
    locks::Mutex,
    types::{ClientId, LostReason},
};

/// The windows of all devices.
#[derive(Debug)]
pub(crate) struct Receipts {
    state: Mutex<State>,
    limits: Limits,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    ids: usize,
    age: Duration,
    total_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    /// The ids of each device, oldest first.
    windows: HashMap<ClientId, VecDeque<Entry>>,
    /// Whose each entry is and since when, oldest first.
    ages: BTreeMap<u64, (Instant, ClientId)>,
    next_number: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    id: String,
    receipt: Receipt,
}

/// What became of one uplink, for whoever waits to hear of it.
#[derive(Clone, Debug)]
pub(crate) struct Receipt(Arc<AtomicU8>);

/// Held with an uplink until it is taken; dropped before that, the uplink is lost.
#[derive(Debug)]
pub(crate) struct Pledge(Receipt);

/// What became of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not known yet.
    Open,
    /// It is the bridge's to deliver.
    Taken,
    /// It is not, and may be sent again.
    Lost(LostReason),
}

/// What a device offers under a name.
#[derive(Debug)]
pub(crate) enum Offer {
    /// It was not known: the pledge goes with the uplink.
    New(Receipt, Pledge),
    /// It was sent before, and this tells what becomes of it.
    Again(Receipt),
}

impl Receipts {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            state: Mutex::default(),
            limits: Limits {
                ids: config.ack.window,
                age: config.ack.time,
                total_bytes: config.ack.total_bytes,
            },
        }
    }

    /// A device sends an uplink under this name. One that was lost counts as never sent.
    pub(crate) fn offer(&self, client_id: &ClientId, id: &str, now: Instant) -> Offer {
        let mut state = self.state.lock();
        state.forget_old(&self.limits, now);
        if let Some(known) = state.find(client_id, id) {
            return Offer::Again(known);
        }
        let receipt = Receipt(Arc::new(AtomicU8::new(OPEN)));
        state.note(client_id, id, receipt.clone(), now, self.limits.ids);
        state.forget_old(&self.limits, now);
        Offer::New(receipt.clone(), Pledge(receipt))
    }
}

impl State {
    /// The receipt of an uplink that is not lost; the name of one that is lost is forgotten.
    fn find(&mut self, client_id: &ClientId, id: &str) -> Option<Receipt> {
        let window = self.windows.get(client_id)?;
        let index = window.iter().position(|entry| entry.id == id)?;
        let receipt = window[index].receipt.clone();
        if let Outcome::Lost(_) = receipt.outcome() {
            self.forget(client_id, index);
            return None;
        }
        Some(receipt)
    }

    fn note(
        &mut self,
        client_id: &ClientId,
        id: &str,
        receipt: Receipt,
        now: Instant,
        most: usize,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        self.bytes += cost(client_id, id);
        self.ages.insert(number, (now, client_id.clone()));
        let window = self.windows.entry(client_id.clone()).or_default();
        window.push_back(Entry {
            number,
            id: id.to_owned(),
            receipt,
        });
        if window.len() > most {
            self.forget(client_id, 0);
        }
    }

    /// Forgets what is too old, and the oldest of all while there is too much.
    fn forget_old(&mut self, limits: &Limits, now: Instant) {
        while let Some((number, (since, client_id))) = self.ages.first_key_value() {
            if now.duration_since(*since) <= limits.age && self.bytes <= limits.total_bytes {
                return;
            }
            let (number, client_id) = (*number, client_id.clone());
            let window = self.windows.get(&client_id);
            let index = window.and_then(|w| w.iter().position(|entry| entry.number == number));
            self.forget(&client_id, index.expect("an age is that of an entry"));
        }
    }

    fn forget(&mut self, client_id: &ClientId, index: usize) {
        let Some(window) = self.windows.get_mut(client_id) else {
            return;
        };
        if let Some(entry) = window.remove(index) {
            self.bytes -= cost(client_id, &entry.id);
            self.ages.remove(&entry.number);
        }
        if window.is_empty() {
            self.windows.remove(client_id);
        }
    }
}

impl Receipt {
    pub(crate) fn outcome(&self) -> Outcome {
        match self.0.load(SeqCst) {
            OPEN => Outcome::Open,
            TAKEN => Outcome::Taken,
            lost => Outcome::Lost(LostReason::ALL[usize::from(lost - LOST)]),
        }
    }

    /// The first word stands.
    fn settle(&self, outcome: u8) {
        let _ = self.0.compare_exchange(OPEN, outcome, SeqCst, SeqCst);
    }
}

impl Pledge {
    /// From now on the bridge answers for the uplink.
    pub(crate) fn taken(self) {
        self.0.settle(TAKEN);
    }

    /// The uplink is given up before it was taken.
    pub(crate) fn lost(self, reason: LostReason) {
        let number = LostReason::ALL.iter().position(|r| *r == reason);
        self.0
            .settle(LOST + number.expect("all reasons are there") as u8);
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        let number = LostReason::ALL
            .iter()
            .position(|r| *r == LostReason::Shutdown);
        self.0
            .settle(LOST + number.expect("all reasons are there") as u8);
    }
}

/// The key of an uplink that its device has named: the same wherever and whenever it is sent again, also after a restart and
/// at another gateway. A UUIDv8 (RFC 9562 §5.8) of a SHA-256 over both names.
pub(crate) fn key(client_id: &ClientId, id: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update((client_id.as_str().len() as u64).to_be_bytes());
    hash.update(client_id.as_str());
    hash.update(id);
    let hash: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Uuid::new_v8(bytes)
}

/// What an entry costs against the bound of all. With the name of its device: that is up to 8 KiB, and who may choose one can
/// send a message under each of many.
fn cost(client_id: &ClientId, id: &str) -> usize {
    client_id.as_str().len() + id.len() + 256
}

const OPEN: u8 = 0;
const TAKEN: u8 = 1;
/// And the place of the reason among all.
const LOST: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn receipts(ids: usize, total_bytes: usize) -> Receipts {
        let config = Config::default()
            .ack_window(ids)
            .ack_total_bytes(total_bytes);
        Receipts::new(&config.ack_time(Duration::from_secs(60)))
    }

    fn dev(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    /// Offers and takes one; whether it was new.
    fn take(receipts: &Receipts, name: &str, id: &str, now: Instant) -> bool {
        match receipts.offer(&dev(name), id, now) {
            Offer::New(_, pledge) => {
                pledge.taken();
                true
            }
            Offer::Again(receipt) => {
                assert_eq!(receipt.outcome(), Outcome::Taken);
                false
            }
        }
    }

    #[test]
    fn one_that_is_sent_again_is_known_and_one_that_was_lost_is_not() {
        let (receipts, now) = (receipts(8, 1 << 20), Instant::now());
        assert!(take(&receipts, "a", "1", now));
        assert!(!take(&receipts, "a", "1", now));
        assert!(take(&receipts, "b", "1", now), "another device's");
        let Offer::New(first, pledge) = receipts.offer(&dev("a"), "2", now) else {
            panic!("it is new");
        };
        let Offer::Again(second) = receipts.offer(&dev("a"), "2", now) else {
            panic!("it is known");
        };
        assert_eq!(second.outcome(), Outcome::Open);
        pledge.lost(LostReason::HookFailed);
        let lost = Outcome::Lost(LostReason::HookFailed);
        assert_eq!((first.outcome(), second.outcome()), (lost, lost));
        let Offer::New(third, pledge) = receipts.offer(&dev("a"), "2", now) else {
            panic!("it was lost");
        };
        drop(pledge);
        assert_eq!(third.outcome(), Outcome::Lost(LostReason::Shutdown));
    }

    #[test]
    fn a_window_is_bounded_by_number_age_and_the_bytes_of_all() {
        let (few, start) = (receipts(2, 1 << 20), Instant::now());
        for id in ["1", "2", "3"] {
            assert!(take(&few, "a", id, start));
        }
        assert!(!take(&few, "a", "3", start) && !take(&few, "a", "2", start));
        assert!(take(&few, "a", "1", start), "it was too long ago");

        let later = start + Duration::from_secs(61);
        assert!(take(&few, "a", "3", later));
        let state = few.state.lock();
        assert_eq!((state.windows.len(), state.ages.len()), (1, 1));
        drop(state);

        let small = receipts(100, 4 * cost(&dev("dev0"), "x"));
        for n in 0..10 {
            assert!(take(&small, &format!("dev{n}"), "x", start));
        }
        assert_eq!(small.state.lock().bytes, 4 * cost(&dev("dev0"), "x"));
        assert!(!take(&small, "dev9", "x", start) && take(&small, "dev5", "x", start));
    }

    #[test]
    fn the_bytes_of_all_count_the_names_of_devices() {
        let (small, start) = (receipts(100, 64 << 10), Instant::now());
        for n in 0..100 {
            let name = format!("{n}{}", "x".repeat(8000));
            assert!(take(&small, &name, "1", start));
        }
        assert_eq!(small.state.lock().windows.len(), (64 << 10) / 8259);
    }

    #[test]
    fn what_is_forgotten_leaves_nothing_behind() {
        let (receipts, start) = (receipts(3, 1 << 20), Instant::now());
        for n in 0..100 {
            take(&receipts, &format!("dev{}", n % 7), &n.to_string(), start);
        }
        let state = receipts.state.lock();
        assert_eq!((state.windows.len(), state.ages.len()), (7, 21));
        drop(state);
        receipts.offer(&dev("x"), "1", start + Duration::from_secs(3600));
        let state = receipts.state.lock();
        let left = (state.windows.len(), state.ages.len(), state.bytes);
        assert_eq!(left, (1, 1, cost(&dev("x"), "1")));
    }

    #[test]
    fn a_key_depends_on_both_names_alone() {
        assert_eq!(key(&dev("a"), "1"), key(&dev("a"), "1"));
        assert_ne!(key(&dev("a"), "1"), key(&dev("a"), "2"));
        assert_ne!(key(&dev("a1"), "1"), key(&dev("a"), "11"));
        assert_eq!(
            key(&dev("dev1"), "7").to_string(),
            "9a1e5056-661f-8bf6-9749-0bfb45d9f769",
            "documented, so that a backend can make it too"
        );
    }
}
