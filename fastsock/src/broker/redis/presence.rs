//! What Redis should hold of the devices seated here: one map from id to its newest change, cut into batches. No I/O.
//!
//! A change is written by one batch at a time, so two values of one id never overtake each other. What a batch could not
//! write is given back; a removal is kept until it is confirmed.

use std::collections::BTreeMap;

use ahash::{HashMap, HashSet};

use super::seat_time::SeatTime;
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
    seated: SeatTime,
    /// Who has the seat; after a removal, who had it.
    session_id: SessionId,
    wanted: Wanted,
    /// The key of this id in `changed`; 0 when it is not there.
    change: u64,
    /// Whether Redis must be told (again) that the seat is here.
    is_unclaimed: bool,
    /// Whether Redis may have been told.
    is_recorded: bool,
    /// Whether it must be added (again) to the set of this node's ids.
    is_unlisted: bool,
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
    /// Whether it is to be added to the set of this node's ids.
    pub(crate) is_unlisted: bool,
}

/// A seat to record in Redis. Where two gateways have seated a device, the later seat wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) session_id: SessionId,
    pub(crate) seated: SeatTime,
}

/// A device that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Del {
    pub(crate) client_id: ClientId,
    /// The last session that may have claimed it; a later one keeps its seat.
    pub(crate) session_id: SessionId,
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
        entry.seated = SeatTime::since_start(now_ms);
        entry.is_unclaimed = true;
        entry.is_unlisted = true;
        if entry.wanted == Wanted::Del {
            entry.wanted = Wanted::Nothing;
        }
    }

    /// Whether a claim of this session is still to be made. It is about to be.
    pub(crate) fn is_about_to_claim(
        &mut self,
        client_id: &ClientId,
        session_id: SessionId,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(client_id) else {
            return false; // it left
        };
        let is_wanted = entry.wanted != Wanted::Del && entry.is_unclaimed;
        let is_to_be = is_wanted && entry.session_id == session_id;
        entry.is_recorded |= is_to_be;
        is_to_be
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
        note_change(entry, client_id, &mut self.changes, &mut self.changed)
    }

    /// The seat is empty. Returns whether there is something new to write.
    pub(crate) fn unseated(&mut self, client_id: &ClientId, session_id: SessionId) -> bool {
        let Some(entry) = self.entries.get_mut(client_id) else {
            return false;
        };
        if session_id < entry.session_id {
            return false;
        }
        if !entry.is_in_redis() {
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
            // One whose 101 is not written is written when it is seen; until then its claim is only asked for.
            let is_early = self.entries.get(&seated.client_id);
            let is_early = is_early.is_some_and(|entry| entry.wanted == Wanted::Nothing);
            let entry = self.entry(&seated.client_id, seated.session_id, seated_ms);
            if seated.session_id < entry.session_id {
                continue;
            }
            if seated.session_id > entry.session_id {
                entry.session_id = seated.session_id;
                entry.seated = SeatTime::since_start(seated_ms);
            }
            entry.seen_ms = entry.seen_ms.max(seated.seen_ms);
            entry.is_unclaimed = true;
            entry.is_unlisted = true;
            entry.is_there = false;
            if entry.seen_ms != 0 && !is_early {
                entry.wanted = Wanted::Set;
                self.mark(&seated.client_id);
            }
        }
    }

    /// Redis does not say that this seat is here: it is to be claimed again.
    pub(crate) fn doubt(&mut self, client_id: &ClientId, session_id: SessionId) {
        let Some(entry) = self.entries.get_mut(client_id) else {
            return;
        };
        if entry.session_id == session_id && entry.wanted == Wanted::Set && !entry.is_unclaimed {
            entry.is_unclaimed = true;
            entry.is_unlisted = true;
            entry.is_there = false;
            self.mark(client_id);
        }
    }

    /// Redis has this id as one of ours. Unless it is, it is to be removed: Redis has come back with older data, and the
    /// removal that it had confirmed is not in them.
    pub(crate) fn found(&mut self, client_id: ClientId) {
        if self.entries.contains_key(&client_id) {
            return;
        }
        let entry = self.entry(&client_id, SessionId(0), 0);
        entry.is_recorded = true;
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
                        seated: entry.seated,
                    });
                    entry.is_recorded |= claim.is_some();
                    batch.sets.push(Set {
                        client_id,
                        seen_ms: entry.seen_ms,
                        claim,
                        is_unlisted: entry.is_unlisted,
                    });
                }
                Wanted::Del if !entry.is_in_redis() => {
                    self.entries.remove(&client_id);
                    trim(&mut self.entries, ROOM);
                }
                Wanted::Del => {
                    entry.is_there = false;
                    batch.dels.push(Del {
                        client_id,
                        session_id: match entry.session_id {
                            SessionId(0) => SessionId(u64::MAX), // of whatever session it is
                            session_id => session_id,
                        },
                        least_ms: entry.written_ms.min(entry.seen_ms),
                        most_ms: entry.written_ms.max(entry.seen_ms),
                        is_contested: entry.is_contested,
                    });
                }
            }
        }
        Some(batch)
    }

    /// Redis recorded that the seat is here, under this epoch.
    pub(crate) fn claimed(
        &mut self,
        client_id: &ClientId,
        session_id: SessionId,
        epoch: u64,
        was_elsewhere: bool,
    ) {
        let Some(entry) = self.entries.get_mut(client_id) else {
            return;
        };
        entry.is_contested |= was_elsewhere;
        if entry.session_id == session_id {
            entry.is_unclaimed = false;
            entry.seated = SeatTime::recorded(epoch);
        }
    }

    /// Everything in the batch is written.
    pub(crate) fn confirm(&mut self, batch: Batch) {
        for set in batch.sets {
            if let Some(entry) = self.entries.get_mut(&set.client_id) {
                entry.written_ms = set.seen_ms;
                entry.is_there = true;
                entry.is_unlisted = false;
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
                entry.is_unclaimed = true;
                entry.is_unlisted = true;
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
                seated: SeatTime::since_start(seated_ms),
                session_id,
                wanted: Wanted::Nothing,
                change: 0,
                is_unclaimed: true,
                is_recorded: false,
                is_unlisted: true,
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
        let entry = self.entries.get_mut(client_id);
        entry.is_some_and(|entry| {
            note_change(entry, client_id, &mut self.changes, &mut self.changed)
        })
    }
}

/// Puts an entry among the changes, unless it is there.
fn note_change(
    entry: &mut Entry,
    client_id: &ClientId,
    changes: &mut u64,
    changed: &mut BTreeMap<u64, ClientId>,
) -> bool {
    if entry.change != 0 {
        return false;
    }
    *changes += 1;
    entry.change = *changes;
    changed.insert(entry.change, client_id.clone());
    true
}

impl Entry {
    /// Whether Redis may have anything of it.
    fn is_in_redis(&self) -> bool {
        self.is_recorded || self.written_ms != 0
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
mod tests;
