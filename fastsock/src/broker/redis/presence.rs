//! What Redis should hold of the devices seated here: one map from id to its newest change, cut into batches. No I/O.
//!
//! A change is written by one batch at a time, so two values of one id never overtake each other. What a batch could not
//! write is given back; a removal is kept until it is confirmed.

use std::collections::BTreeMap;

use ahash::{HashMap, HashSet};

use crate::{
    broker::Seated,
    maps::trim,
    types::{ClientId, SessionId},
};

/// The presence of one bridge.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// Everyone seated here, and those who left but whose removal is not confirmed. This is what an idle device costs
    /// in the broker, so an entry is 48 bytes and shares the id with the registry.
    entries: HashMap<ClientId, Entry>,
    /// Ids with a change not yet taken into a batch, oldest first. Whoever leaves before anything was written is taken out:
    /// while Redis is away, devices come and go by the million.
    changed: BTreeMap<u64, ClientId>,
    /// The number of the newest change.
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    /// Last sign of the device, in unix milliseconds; what Redis should hold.
    seen_ms: u64,
    /// The last value Redis confirmed, or the first one sent to it; 0 when Redis has nothing of ours.
    written_ms: u64,
    /// When the seat was taken, in milliseconds since the broker started.
    seated_ms: u64,
    /// Who has the seat; after a removal, who had it.
    session_id: SessionId,
    wanted: Wanted,
    /// The key of this id in `changed`; 0 when it is not there.
    change: u64,
    /// Whether Redis must be told (again) that the seat is here.
    is_unclaimed: bool,
    /// Whether the seat was taken over from another gateway, which may have written the hash after us.
    is_contested: bool,
    /// Whether the hash has it, as far as is known.
    is_there: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Nothing yet: seated, the 101 not written.
    Nothing,
    /// The field in the hash.
    Set,
    /// No field in the hash.
    Del,
}

/// What is written at once; may be empty. An id is in it at most once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) sets: Vec<Set>,
    pub(crate) dels: Vec<Del>,
}

/// A device that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) client_id: ClientId,
    pub(crate) seen_ms: u64,
    /// What to record about the seat, when that is not recorded yet or must be restored.
    pub(crate) claim: Option<Claim>,
}

/// A seat to record in Redis. Where two gateways have seated a device, the later seat wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) session_id: SessionId,
    /// As [`Entry::seated_ms`].
    pub(crate) seated_ms: u64,
}

/// A device that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Del {
    pub(crate) client_id: ClientId,
    /// The field is ours when its value is within these two, inclusive. They differ only while it is unknown which
    /// of our writes got through.
    pub(crate) least_ms: u64,
    pub(crate) most_ms: u64,
    /// As [`Entry::is_contested`]: the field may hold a value of the gateway we took the device from.
    pub(crate) is_contested: bool,
}

impl Presence {
    /// A session took its seat, so many milliseconds after the broker started. Nothing is to be written before the device
    /// was seen.
    pub(crate) fn seated(&mut self, client_id: &ClientId, session_id: SessionId, now_ms: u64) {
        let entry = self.entry(client_id, session_id, now_ms);
        if session_id < entry.session_id {
            return; // told late: a newer one has the seat
        }
        entry.session_id = session_id;
        entry.seated_ms = now_ms;
        entry.is_unclaimed = true;
        if entry.wanted == Wanted::Del {
            entry.wanted = Wanted::Nothing;
        }
    }

    /// The device was seen. Returns whether there is something new to write.
    pub(crate) fn seen(&mut self, client_id: &ClientId, seen_ms: u64) -> bool {
        let Some(entry) = self.entries.get_mut(client_id) else {
            return false; // told late: it left
        };
        let is_new =
            entry.wanted == Wanted::Nothing || entry.is_unclaimed || entry.seen_ms != seen_ms;
        if entry.wanted == Wanted::Del || !is_new {
            return false;
        }
        entry.seen_ms = seen_ms;
        entry.wanted = Wanted::Set;
        self.mark(client_id)
    }

    /// The seat is empty. Returns whether there is something new to write.
    pub(crate) fn unseated(&mut self, client_id: &ClientId, session_id: SessionId) -> bool {
        let Some(entry) = self.entries.get_mut(client_id) else {
            return false;
        };
        if session_id < entry.session_id {
            return false;
        }
        if entry.written_ms == 0 {
            self.forget(client_id);
            return false;
        }
        entry.wanted = Wanted::Del;
        self.mark(client_id)
    }

    /// Redis may have lost anything: all who are seated are to be written again, with the last signs known. A seat that
    /// was not told of counts as taken at its last sign; `clock_ms` is the unix time that belongs to `now_ms`.
    pub(crate) fn restore(&mut self, everyone: Vec<Seated>, now_ms: u64, clock_ms: u64) {
        for seated in everyone {
            let seated_ms = now_ms.saturating_sub(clock_ms.saturating_sub(seated.seen_ms));
            let entry = self.entry(&seated.client_id, seated.session_id, seated_ms);
            if seated.session_id < entry.session_id {
                continue;
            }
            if seated.session_id > entry.session_id {
                entry.session_id = seated.session_id;
                entry.seated_ms = seated_ms;
            }
            entry.seen_ms = entry.seen_ms.max(seated.seen_ms);
            entry.is_unclaimed = true;
            entry.is_there = false;
            if entry.seen_ms != 0 {
                entry.wanted = Wanted::Set;
                self.mark(&seated.client_id);
            }
        }
    }

    /// Redis has this id as one of ours. Unless it is, it is to be removed: Redis has come back with older data, and the
    /// removal that it had confirmed is not in them.
    pub(crate) fn found(&mut self, client_id: ClientId) {
        if self.entries.contains_key(&client_id) {
            return;
        }
        let entry = self.entry(&client_id, SessionId(0), 0);
        entry.wanted = Wanted::Del;
        (entry.seen_ms, entry.written_ms) = (1, 1); // whatever it was
        entry.is_contested = true;
        self.mark(&client_id);
    }

    /// Of the changes that the next batch takes, those that claim a seat. The caller asks the registry whether they are
    /// seated still, without holding the lock of this map, and names those who are not to [`Presence::batch`].
    pub(crate) fn claiming(&self, most: usize) -> Vec<ClientId> {
        let claims = |id: &&ClientId| {
            let entry = self.entries.get(*id);
            entry.is_some_and(|e| e.wanted == Wanted::Set && e.is_unclaimed)
        };
        let next = self.changed.values().take(most);
        next.filter(claims).cloned().collect()
    }

    /// Takes the oldest changes, at most so many; `None` when there is none. `left` are those who claim a seat that is
    /// empty: an entry restored from a list may be older than the end of its session.
    pub(crate) fn batch(&mut self, most: usize, left: &HashSet<ClientId>) -> Option<Batch> {
        let next: Vec<_> = self.changed.keys().take(most).copied().collect();
        self.take(&next, left)
    }

    /// The same of those who left, and of nobody else.
    pub(crate) fn removals(&mut self, most: usize) -> Option<Batch> {
        let leaves = |(_, id): &(&u64, &ClientId)| {
            let entry = self.entries.get(*id);
            entry.is_some_and(|e| e.wanted == Wanted::Del)
        };
        let next = self.changed.iter().filter(leaves).take(most);
        let next: Vec<_> = next.map(|(change, _)| *change).collect();
        self.take(&next, &HashSet::default())
    }

    fn take(&mut self, changes: &[u64], left: &HashSet<ClientId>) -> Option<Batch> {
        if changes.is_empty() {
            return None;
        }
        let mut batch = Batch::default();
        for change in changes {
            let Some(client_id) = self.changed.remove(change) else {
                continue;
            };
            let Some(entry) = self.entries.get_mut(&client_id) else {
                continue;
            };
            entry.change = 0;
            if entry.wanted == Wanted::Set && entry.is_unclaimed && left.contains(&client_id) {
                entry.wanted = Wanted::Del;
            }
            match entry.wanted {
                Wanted::Nothing => {}
                Wanted::Set => {
                    if entry.written_ms == 0 {
                        entry.written_ms = entry.seen_ms;
                    }
                    let claim = entry.is_unclaimed.then_some(Claim {
                        session_id: entry.session_id,
                        seated_ms: entry.seated_ms,
                    });
                    batch.sets.push(Set {
                        client_id,
                        seen_ms: entry.seen_ms,
                        claim,
                    });
                }
                Wanted::Del if entry.written_ms == 0 => {
                    self.entries.remove(&client_id);
                    trim(&mut self.entries, ROOM);
                }
                Wanted::Del => {
                    entry.is_there = false;
                    batch.dels.push(Del {
                        client_id,
                        least_ms: entry.written_ms.min(entry.seen_ms),
                        most_ms: entry.written_ms.max(entry.seen_ms),
                        is_contested: entry.is_contested,
                    });
                }
            }
        }
        Some(batch)
    }

    /// Redis recorded that the seat is here.
    pub(crate) fn claimed(
        &mut self,
        client_id: &ClientId,
        session_id: SessionId,
        was_elsewhere: bool,
    ) {
        let Some(entry) = self.entries.get_mut(client_id) else {
            return;
        };
        entry.is_contested |= was_elsewhere;
        if entry.session_id == session_id {
            entry.is_unclaimed = false;
        }
    }

    /// Everything in the batch is written.
    pub(crate) fn confirm(&mut self, batch: Batch) {
        for set in batch.sets {
            if let Some(entry) = self.entries.get_mut(&set.client_id) {
                entry.written_ms = set.seen_ms;
                entry.is_there = true;
            }
        }
        for del in batch.dels {
            let Some(entry) = self.entries.get_mut(&del.client_id) else {
                continue;
            };
            if entry.wanted == Wanted::Del {
                self.forget(&del.client_id);
            } else {
                entry.written_ms = 0; // seated again meanwhile
                entry.is_contested = false;
            }
        }
    }

    /// Nobody knows what of the batch is written: all of it is to be written again.
    pub(crate) fn give_back(&mut self, batch: Batch) {
        let sets = batch.sets.into_iter().map(|set| set.client_id);
        for client_id in sets.chain(batch.dels.into_iter().map(|del| del.client_id)) {
            self.mark(&client_id);
        }
    }

    /// Whether the hash has a device, as far as is known.
    pub(crate) fn is_there(&self, client_id: &ClientId) -> bool {
        let entry = self.entries.get(client_id);
        entry.is_some_and(|entry| entry.is_there)
    }

    /// How many changes are not taken into a batch.
    pub(crate) fn waiting(&self) -> usize {
        self.changed.len()
    }

    /// How many ids are known: seated here, or left and not yet confirmed.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn entry(&mut self, client_id: &ClientId, session_id: SessionId, seated_ms: u64) -> &mut Entry {
        self.entries
            .entry(client_id.clone())
            .or_insert_with(|| Entry {
                seen_ms: 0,
                written_ms: 0,
                seated_ms,
                session_id,
                wanted: Wanted::Nothing,
                change: 0,
                is_unclaimed: true,
                is_contested: false,
                is_there: false,
            })
    }

    fn forget(&mut self, client_id: &ClientId) {
        if let Some(entry) = self.entries.remove(client_id) {
            self.changed.remove(&entry.change);
            trim(&mut self.entries, ROOM);
        }
    }

    fn mark(&mut self, client_id: &ClientId) -> bool {
        match self.entries.get_mut(client_id) {
            Some(entry) if entry.change == 0 => {
                self.changes += 1;
                entry.change = self.changes;
                self.changed.insert(entry.change, client_id.clone());
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
impl Batch {
    /// How many changes it holds.
    fn len(&self) -> usize {
        self.sets.len() + self.dels.len()
    }
}

/// Entries that there is always room for.
const ROOM: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const S1: SessionId = SessionId(1);
    const S2: SessionId = SessionId(2);

    fn id(text: &str) -> ClientId {
        ClientId::new(text).unwrap()
    }

    fn seated(text: &str, session_id: SessionId, seen_ms: u64) -> Seated {
        Seated {
            client_id: id(text),
            session_id,
            seen_ms,
        }
    }

    fn batch(presence: &mut Presence) -> Option<Batch> {
        presence.batch(512, &HashSet::default())
    }

    /// Takes a batch that must hold exactly these sets and removals, and confirms it.
    fn written(presence: &mut Presence) -> (Vec<(String, u64)>, Vec<String>) {
        let batch = batch(presence).expect("something to write");
        let sets = batch.sets.iter();
        let sets = sets.map(|s| (s.client_id.to_string(), s.seen_ms)).collect();
        let dels = batch.dels.iter().map(|d| d.client_id.to_string()).collect();
        for set in &batch.sets {
            if let Some(claim) = set.claim {
                presence.claimed(&set.client_id, claim.session_id, false);
            }
        }
        presence.confirm(batch);
        (sets, dels)
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry>(), 48);
    }

    #[test]
    fn nothing_is_written_before_the_device_was_seen() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S1, 1000);
        assert_eq!(batch(&mut presence), None);
        assert!(presence.seen(&id("a"), 5));
        assert_eq!(written(&mut presence), (vec![("a".into(), 5)], vec![]));
        assert!(
            !presence.seen(&id("a"), 5),
            "the same value again is no change"
        );
    }

    #[test]
    fn the_hash_has_a_device_from_the_confirmation_until_its_removal_is_on_its_way() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S1, 1000);
        presence.seen(&id("a"), 5);
        let first = batch(&mut presence).unwrap();
        assert!(!presence.is_there(&id("a")));
        presence.confirm(first);
        presence.seen(&id("a"), 6);
        let second = batch(&mut presence).unwrap();
        assert!(presence.is_there(&id("a")), "with another value");
        presence.give_back(second);
        presence.unseated(&id("a"), S1);
        let removal = batch(&mut presence).unwrap();
        presence.seated(&id("a"), S2, 1000);
        presence.seen(&id("a"), 7);
        assert!(!presence.is_there(&id("a")), "it may be gone any moment");
        presence.confirm(removal);
        assert!(!presence.is_there(&id("a")));
        written(&mut presence);
        assert!(presence.is_there(&id("a")));
        presence.restore(vec![seated("a", S2, 7)], 2000, 2000);
        assert!(!presence.is_there(&id("a")), "Redis may have lost it");
    }

    #[test]
    fn a_failed_handshake_leaves_nothing() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S1, 1000);
        assert!(!presence.unseated(&id("a"), S1));
        assert_eq!((batch(&mut presence), presence.len()), (None, 0));
    }

    #[test]
    fn who_comes_and_goes_unwritten_leaves_nothing() {
        let mut presence = Presence::default();
        for n in 1..=1000 {
            presence.seated(&id("a"), SessionId(n), 1000);
            assert!(presence.seen(&id("a"), n), "{n}");
            presence.unseated(&id("a"), SessionId(n));
        }
        assert_eq!((presence.waiting(), presence.len()), (0, 0));
        presence.seated(&id("a"), SessionId(1001), 1000);
        presence.seen(&id("a"), 7);
        assert_eq!(batch(&mut presence).map(|b| b.len()), Some(1));
        assert_eq!(batch(&mut presence), None);
    }

    #[test]
    fn who_left_is_removed_alone_when_nobody_else_is_taken() {
        let mut presence = Presence::default();
        for (n, dev) in ["a", "b", "c"].iter().enumerate() {
            presence.seated(&id(dev), SessionId(n as u64 + 1), 1000);
            presence.seen(&id(dev), 5);
        }
        written(&mut presence);
        assert_eq!(presence.removals(512), None);
        presence.seen(&id("a"), 6);
        presence.unseated(&id("b"), SessionId(2));
        presence.unseated(&id("c"), SessionId(3));
        let removals = presence.removals(1).expect("one of two");
        assert!(removals.sets.is_empty() && removals.dels[0].client_id == id("b"));
        presence.confirm(removals);
        assert_eq!(
            written(&mut presence),
            (vec![("a".into(), 6)], vec!["c".into()])
        );
    }

    #[test]
    fn the_newest_change_of_an_id_wins() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S1, 1000);
        for ms in 1..=9 {
            assert_eq!(presence.seen(&id("a"), ms), ms == 1);
        }
        assert_eq!(written(&mut presence), (vec![("a".into(), 9)], vec![]));
        presence.seen(&id("a"), 10);
        presence.unseated(&id("a"), S1);
        assert_eq!(written(&mut presence), (vec![], vec!["a".into()]));
        assert_eq!(presence.len(), 0);
    }

    #[test]
    fn a_seat_is_claimed_once_and_a_takeover_claims_anew() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S1, 1000);
        presence.seen(&id("a"), 1);
        let first = batch(&mut presence).unwrap();
        let claim = |batch: &Batch| batch.sets[0].claim.map(|c| (c.session_id, c.seated_ms));
        assert_eq!(claim(&first), Some((S1, 1000)));
        presence.claimed(&id("a"), S1, false);
        presence.confirm(first);
        presence.seen(&id("a"), 2);
        let second = batch(&mut presence).unwrap();
        assert_eq!(claim(&second), None);
        presence.seated(&id("a"), S2, 2000);
        presence.confirm(second);
        presence.seen(&id("a"), 2);
        assert_eq!(claim(&batch(&mut presence).unwrap()), Some((S2, 2000)));
    }

    #[test]
    fn the_end_of_an_older_session_is_not_the_end_of_the_newer_one() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S2, 1000);
        presence.seen(&id("a"), 1);
        presence.seated(&id("a"), S1, 1000);
        assert!(!presence.unseated(&id("a"), S1));
        assert_eq!(written(&mut presence), (vec![("a".into(), 1)], vec![]));
    }

    #[test]
    fn a_removal_is_kept_until_it_is_confirmed_and_knows_what_may_be_ours() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S1, 1000);
        presence.seen(&id("a"), 10);
        written(&mut presence);
        presence.seen(&id("a"), 20);
        let lost = batch(&mut presence).unwrap();
        presence.unseated(&id("a"), S1);
        presence.give_back(lost); // 10 or 20, nobody knows
        let del = batch(&mut presence).unwrap();
        assert_eq!((del.dels[0].least_ms, del.dels[0].most_ms), (10, 20));
        presence.give_back(del);
        assert_eq!(presence.waiting(), 1);
        assert_eq!(written(&mut presence), (vec![], vec!["a".into()]));
        assert_eq!(presence.len(), 0);
    }

    #[test]
    fn a_device_that_comes_back_while_its_removal_is_in_flight_is_written_again() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S1, 1000);
        presence.seen(&id("a"), 1);
        written(&mut presence);
        presence.unseated(&id("a"), S1);
        let del = batch(&mut presence).unwrap();
        presence.seated(&id("a"), S2, 1000);
        presence.seen(&id("a"), 2);
        presence.confirm(del);
        assert_eq!(written(&mut presence), (vec![("a".into(), 2)], vec![]));
        assert!(
            presence.unseated(&id("a"), S2),
            "there is something to remove"
        );
    }

    #[test]
    fn a_restore_writes_everyone_with_the_last_sign_and_the_time_of_the_seat() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S1, 1000);
        presence.seen(&id("a"), 30);
        written(&mut presence);
        presence.restore(vec![seated("a", S1, 20), seated("b", S2, 40)], 2000, 540);
        let batch = batch(&mut presence).unwrap();
        let sets = batch.sets.iter();
        let sets = sets.map(|s| (s.client_id.as_str(), s.seen_ms, s.claim.unwrap().seated_ms));
        assert_eq!(sets.collect::<Vec<_>>(), [("a", 30, 1000), ("b", 40, 1500)]);
    }

    #[test]
    fn a_restore_from_an_old_list_makes_no_ghost() {
        let mut presence = Presence::default();
        presence.seated(&id("a"), S1, 1000);
        presence.seen(&id("a"), 1);
        written(&mut presence);
        let list = vec![seated("a", S1, 1), seated("b", S1, 1)];
        presence.unseated(&id("a"), S1);
        presence.restore(list, 2000, 9);
        let left = presence.claiming(512).into_iter().collect();
        let batch = presence.batch(512, &left).unwrap();
        assert_eq!((batch.sets.len(), batch.dels.len()), (0, 1));
        presence.confirm(batch);
        assert_eq!(presence.len(), 0);
    }

    #[test]
    fn who_is_found_is_removed_unless_it_is_here() {
        let mut presence = Presence::default();
        presence.seated(&id("here"), S1, 1000);
        presence.seen(&id("here"), 5);
        written(&mut presence);
        for text in ["here", "ghost", "back"] {
            presence.found(id(text));
        }
        presence.seated(&id("back"), S2, 2000);
        presence.seen(&id("back"), 6);
        let batch = batch(&mut presence).unwrap();
        assert_eq!((batch.sets.len(), batch.dels.len()), (1, 1));
        assert!(batch.dels[0].is_contested, "nobody knows its value");
        presence.confirm(batch);
        assert_eq!(presence.len(), 2);
    }

    #[test]
    fn batches_are_bounded_and_in_order() {
        let mut presence = Presence::default();
        for n in 0..10 {
            presence.seated(&id(&n.to_string()), S1, 1000);
            presence.seen(&id(&n.to_string()), 1);
        }
        let lens: Vec<_> = std::iter::from_fn(|| presence.batch(4, &HashSet::default())).collect();
        assert_eq!(lens.iter().map(Batch::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(lens[1].sets[0].client_id.as_str(), "4");
    }
}
