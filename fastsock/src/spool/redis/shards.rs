//! Which shard a device is in, who owns which, and what is held of those owned here. No I/O.

use std::collections::{HashMap, HashSet};

use smallvec::{SmallVec, smallvec};
use uuid::Uuid;

use super::entry::{EntryId, START};
use crate::{
    spool::Place,
    types::{ClientId, Uplink},
};

/// Streams that all devices are spread over. Part of what is in Redis: it can never change.
pub(super) const SHARDS: usize = 16;

/// The shard of a device: the low four bits of the 64-bit FNV-1a hash of its id. It can never change either.
pub(super) fn shard_of(client_id: &str) -> usize {
    let hash = client_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    (hash % SHARDS as u64) as usize
}

/// All shards, as one node sees them.
#[derive(Debug, Default)]
pub(super) struct Shards([Shard; SHARDS]);

#[derive(Debug, Default)]
struct Shard {
    /// `node epoch` while it is owned here.
    owner: Option<String>,
    /// The owner it was taken over from.
    before: String,
    /// How often it was taken over here. Not the epoch: after a failover that lost a takeover, the next has the same epoch again.
    tenure: Tenure,
    /// It is being given up: nothing of it is read or begun any more.
    is_leaving: bool,
    /// The last entry read.
    last: Option<EntryId>,
    /// How many messages its stream had at the last look, and what this node has added and removed since.
    length: u64,
    /// What was read and is still in Redis, by its number here.
    held: HashMap<u64, Held>,
    /// The numbers of the same messages by their keys.
    numbers: HashMap<Uuid, u64>,
    /// Those of `held` that are to be removed and nobody is removing.
    done: Vec<u64>,
}

/// Tells the times apart for which a shard was owned here, so that what was asked for in one is not taken for an answer in the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tenure(u64);

/// One message that was read and is still in Redis.
#[derive(Debug)]
struct Held {
    client_id: ClientId,
    key: Uuid,
    /// What it counts for against the bound of the stream.
    cost: usize,
    /// More than one when an answer of Redis was lost and the message was written again.
    ids: SmallVec<[EntryId; 1]>,
    /// It may be removed.
    is_done: bool,
    /// What is kept of it then, as bytes.
    letter: Option<Vec<u8>>,
}

/// A shard that was owned here, and of which Redis has nothing any more, or an earlier state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Emptied {
    pub(super) n: usize,
    /// Redis has the state from before the takeover: a replica that had not heard of it is the master now.
    pub(super) is_rolled_back: bool,
    /// What was held of it.
    pub(super) places: Vec<Place>,
    /// How many it had that were not held here, as far as this node knows.
    pub(super) vanished: u64,
}

/// What to do about the shards, after a look at who owns them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// What is not to be delivered from here any more: of shards that another has taken, or that are being given up.
    pub(super) withdrawn: Vec<Place>,
    /// Owned here until now, and no longer.
    pub(super) lost: Vec<usize>,
    /// To be given up, so that others get their share.
    pub(super) leave: Vec<usize>,
    /// To take over, with the owner each was seen with.
    pub(super) take: Vec<(usize, String)>,
    /// Owned here until Redis lost its data.
    pub(super) emptied: Vec<Emptied>,
}

/// Removals of one shard, on their way.
#[derive(Debug)]
pub(super) struct Acks {
    pub(super) n: usize,
    pub(super) owner: String,
    numbers: Vec<u64>,
    /// Entries with their costs.
    pub(super) ids: Vec<(EntryId, usize)>,
    /// What is kept of those that were given up.
    pub(super) letters: Vec<(Uuid, Vec<u8>)>,
}

impl Shards {
    /// Takes note of who owns what now (`owners`: one text a shard, empty for none) and how many messages each has, and says what is
    /// to be done about it.
    ///
    /// Each live node gets an equal share, rounded up. Who has more gives up what is over; who has less takes what is free. So
    /// a node that comes or goes moves no more shards than it must.
    pub(super) fn look(
        &mut self,
        node: &str,
        owners: &[String],
        lengths: &[u64],
        live: &HashSet<String>,
        is_stopping: bool,
    ) -> Plan {
        let mut plan = Plan::default();
        let mut free = Vec::new();
        for (n, owner) in owners.iter().enumerate() {
            if self.0[n].owner.as_ref() == Some(owner) {
                continue;
            }
            if let Some(ours) = &self.0[n].owner {
                // Each takeover has a higher epoch, and giving up keeps it.
                if epoch_of(owner) <= epoch_of(ours) {
                    plan.emptied.push(self.emptied(n, owner, lengths[n]));
                } else {
                    plan.withdrawn.extend(self.lose(n));
                    plan.lost.push(n);
                }
            }
            // This node itself: the answer to its takeover was lost.
            let its_node = owner.split(' ').next().unwrap_or_default();
            if its_node == node || !live.contains(its_node) {
                free.push((n, owner.clone()));
            }
        }
        for (shard, length) in self.0.iter_mut().zip(lengths) {
            shard.length = *length;
        }
        let share = match is_stopping {
            true => 0,
            false => SHARDS.div_ceil(live.len().max(1)),
        };
        let ours = self.0.iter().filter(|shard| shard.is_here()).count();
        plan.take = free.into_iter().take(share.saturating_sub(ours)).collect();
        let here = (0..SHARDS).rev().filter(|n| self.0[*n].is_here());
        plan.leave = here.take(ours.saturating_sub(share)).collect();
        for n in &plan.leave {
            self.0[*n].is_leaving = true;
            plan.withdrawn.extend(self.0[*n].places());
        }
        plan
    }

    /// A shard is owned here now, and was `before`'s.
    pub(super) fn taken(&mut self, n: usize, owner: String, before: String) {
        self.0[n] = Shard {
            owner: Some(owner),
            before,
            tenure: Tenure(self.0[n].tenure.0 + 1),
            ..Shard::default()
        };
    }

    /// A shard is another's now, or nobody's. Returns what was held of it; nothing if this owner had lost it before.
    pub(super) fn lost(&mut self, n: usize, owner: &str) -> Vec<Place> {
        match self.0[n].owner.as_deref() == Some(owner) {
            true => self.lose(n),
            false => Vec::new(),
        }
    }

    fn emptied(&mut self, n: usize, owner: &str, length: u64) -> Emptied {
        let shard = &self.0[n];
        let (before, held) = (shard.length, shard.held.len() as u64);
        let is_rolled_back = !owner.is_empty() && owner == shard.before;
        // What an emptied stream has is what others have added since.
        let left = held.max(if is_rolled_back { length } else { 0 });
        Emptied {
            n,
            is_rolled_back,
            places: self.lose(n),
            vanished: before.saturating_sub(left),
        }
    }

    /// This node added so many.
    pub(super) fn added(&mut self, n: usize, count: u64) {
        self.0[n].length += count;
    }

    fn lose(&mut self, n: usize) -> Vec<Place> {
        let tenure = self.0[n].tenure;
        let lost = Shard {
            tenure,
            ..Shard::default()
        };
        std::mem::replace(&mut self.0[n], lost).places()
    }

    /// Whether what is in a shard may be delivered from here.
    pub(super) fn is_here(&self, n: usize) -> bool {
        self.0[n].is_here()
    }

    /// Whether a shard is still owned here since then, and is not being given up.
    pub(super) fn is_here_since(&self, n: usize, tenure: Tenure) -> bool {
        self.0[n].is_here() && self.0[n].tenure == tenure
    }

    /// Which are owned here.
    pub(super) fn owned(&self) -> Vec<usize> {
        let owned = |(n, shard): (usize, &Shard)| shard.owner.is_some().then_some(n);
        self.0.iter().enumerate().filter_map(owned).collect()
    }

    /// The owner of a shard that is this node, or nothing.
    pub(super) fn owner(&self, n: usize) -> Option<String> {
        self.0[n].owner.clone()
    }

    /// Those to be given up of which nothing is held any more, with their owner.
    pub(super) fn left(&self) -> Vec<(usize, String)> {
        let left = |(n, shard): (usize, &Shard)| {
            let owner = shard.owner.as_ref().filter(|_| shard.is_leaving)?;
            shard.held.is_empty().then(|| (n, owner.clone()))
        };
        self.0.iter().enumerate().filter_map(left).collect()
    }

    /// Where to read on: each shard of a group that is to be read, since when it is owned here, and the last entry read.
    pub(super) fn reading(&self, group: &[usize]) -> Vec<(usize, Tenure, EntryId)> {
        let here = group.iter().filter(|n| self.0[**n].is_here());
        let reading = here.map(|n| {
            let last = self.0[*n].last.clone().unwrap_or_else(|| START.into());
            (*n, self.0[*n].tenure, last)
        });
        reading.collect()
    }

    /// Takes note of a message that was read, and gives it a number. Returns whether it is news: not so when it is held
    /// already, or its shard is not owned here since then.
    pub(super) fn read(
        &mut self,
        n: usize,
        tenure: Tenure,
        id: &EntryId,
        number: u64,
        uplink: &Uplink,
    ) -> bool {
        if !self.is_here_since(n, tenure) {
            return false;
        }
        let (shard, key) = (&mut self.0[n], uplink.id);
        if let Some(held) = shard.numbers.get(&key).and_then(|n| shard.held.get_mut(n)) {
            if !held.ids.contains(id) {
                held.ids.push(id.clone());
                shard
                    .done
                    .extend(held.is_done.then_some(shard.numbers[&key]));
            }
            return false;
        }
        shard.numbers.insert(key, number);
        let held = Held {
            client_id: uplink.client_id.clone(),
            key,
            cost: uplink.payload.cost(),
            ids: smallvec![id.clone()],
            is_done: false,
            letter: None,
        };
        shard.held.insert(number, held);
        true
    }

    /// A shard was read up to this entry.
    pub(super) fn read_to(&mut self, n: usize, tenure: Tenure, id: EntryId) {
        if self.0[n].owner.is_some() && self.0[n].tenure == tenure {
            self.0[n].last = Some(id);
        }
    }

    /// A group is read again from the start: after an error nobody knows what was missed. What is held is known by its key.
    pub(super) fn read_again(&mut self, group: &[usize]) {
        for n in group {
            self.0[*n].last = None;
        }
    }

    /// A message needs no place in Redis any more; `letter` is to be kept of it. Returns whether it has one that this node
    /// may free.
    pub(super) fn done(&mut self, n: usize, number: u64, letter: Option<Vec<u8>>) -> bool {
        let shard = &mut self.0[n];
        let Some(held) = shard.held.get_mut(&number) else {
            return false;
        };
        let is_new = !std::mem::replace(&mut held.is_done, true);
        if is_new {
            held.letter = letter;
        }
        shard.done.extend(is_new.then_some(number));
        is_new
    }

    /// A message stays in Redis for another to read.
    pub(super) fn returned(&mut self, n: usize, number: u64) {
        self.0[n].forget(number);
    }

    /// What is to be removed from Redis now: at most so many of each shard.
    pub(super) fn acking(&mut self, most: usize) -> Vec<Acks> {
        let acking = |(n, shard): (usize, &mut Shard)| {
            let owner = shard.owner.clone()?;
            let count = shard.done.len().min(most);
            let numbers: Vec<_> = shard.done.drain(..count).collect();
            let (mut ids, mut letters) = (Vec::new(), Vec::new());
            for held in numbers.iter().filter_map(|number| shard.held.get(number)) {
                ids.extend(held.ids.iter().map(|id| (id.clone(), held.cost)));
                letters.extend(held.letter.clone().map(|letter| (held.key, letter)));
            }
            (!ids.is_empty()).then_some(Acks {
                n,
                owner,
                numbers,
                ids,
                letters,
            })
        };
        self.0.iter_mut().enumerate().filter_map(acking).collect()
    }

    /// These are removed from Redis. One that was found a second time meanwhile has only lost its first place.
    pub(super) fn acked(&mut self, acks: &Acks) {
        if self.0[acks.n].owner.as_ref() != Some(&acks.owner) {
            return;
        }
        let gone: HashSet<_> = acks.ids.iter().map(|(id, _)| id).collect();
        let shard = &mut self.0[acks.n];
        shard.length = shard.length.saturating_sub(gone.len() as u64);
        for number in &acks.numbers {
            if let Some(held) = shard.held.get_mut(number) {
                held.ids.retain(|id| !gone.contains(id));
                if held.ids.is_empty() {
                    shard.forget(*number);
                }
            }
        }
    }

    /// Nobody knows what became of the removals that were on their way: they are made again.
    pub(super) fn ack_again(&mut self) {
        for shard in &mut self.0 {
            let done = shard.held.iter().filter(|(_, held)| held.is_done);
            shard.done = done.map(|(number, _)| *number).collect();
        }
    }

    /// How many messages the stream of a device has, as far as is known.
    #[cfg(test)]
    pub(super) fn length_of(&self, client_id: &str) -> u64 {
        self.0[shard_of(client_id)].length
    }

    /// How many are held of all shards.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.0.iter().map(|shard| shard.held.len()).sum()
    }
}

impl Shard {
    fn is_here(&self) -> bool {
        self.owner.is_some() && !self.is_leaving
    }

    /// In the order in which they were read.
    fn places(&self) -> Vec<Place> {
        let pending = self.held.iter().filter(|(_, held)| !held.is_done);
        let place = |(number, held): (&u64, &Held)| Place {
            client_id: held.client_id.clone(),
            number: *number,
        };
        let mut places: Vec<_> = pending.map(place).collect();
        places.sort_unstable_by_key(|place| place.number);
        places
    }

    fn forget(&mut self, number: u64) {
        if let Some(held) = self.held.remove(&number) {
            self.numbers.remove(&held.key);
        }
    }
}

/// The epoch of an owner, `node epoch`; 0 where there is none.
fn epoch_of(owner: &str) -> u64 {
    let epoch = owner.rsplit(' ').next();
    epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SessionId;

    fn live(nodes: &[&str]) -> HashSet<String> {
        nodes.iter().map(|&node| node.to_owned()).collect()
    }

    fn owners(owner: impl Fn(usize) -> &'static str) -> Vec<String> {
        (0..SHARDS).map(|n| owner(n).to_owned()).collect()
    }

    /// Shards of which `n` is owned as `a 1`, and the keys of two uplinks.
    fn owning(n: usize) -> (Shards, [Uuid; 2]) {
        let mut shards = Shards::default();
        shards.taken(n, "a 1".into(), "- 0".into());
        (shards, [Uuid::now_v7(), Uuid::now_v7()])
    }

    fn read(shards: &mut Shards, n: usize, id: &str, number: u64, key: Uuid) -> bool {
        let client_id = ClientId::new("dev").unwrap();
        let mut uplink = Uplink::new(client_id, SessionId(1), 1, "x".into());
        uplink.id = key;
        shards.read(n, Tenure(1), &id.into(), number, &uplink)
    }

    #[test]
    fn the_shard_of_a_device_is_as_documented() {
        assert_eq!(shard_of(""), 5); // the offset basis ends in 0x25
        assert_eq!(shard_of("a"), 0xc); // af63dc4c8601ec8c
        assert_eq!(shard_of("foobar"), 8); // 85944171f73967e8
        let spread: HashSet<_> = (0..200).map(|n| shard_of(&format!("dev{n}"))).collect();
        assert_eq!(spread.len(), SHARDS);
    }

    #[test]
    fn one_node_takes_all_and_gives_up_what_is_over_when_another_comes() {
        let mut shards = Shards::default();
        let plan = shards.look("a", &owners(|_| ""), &[0; SHARDS], &live(&["a"]), false);
        assert_eq!((plan.take.len(), plan.leave.len()), (SHARDS, 0));
        for (n, before) in plan.take {
            assert_eq!(before, "");
            shards.taken(n, "a 1".into(), before);
        }
        let ours = owners(|_| "a 1");
        let plan = shards.look("a", &ours, &[0; SHARDS], &live(&["a", "b"]), false);
        assert_eq!(plan.leave, (8..16).rev().collect::<Vec<_>>());
        let plan = shards.look("a", &ours, &[0; SHARDS], &live(&["a", "b"]), false);
        assert_eq!(plan, Plan::default(), "once");
        assert_eq!(shards.left().len(), 8, "nothing of them is held");
        let plan = shards.look("a", &ours, &[0; SHARDS], &live(&["a", "b"]), true);
        assert_eq!(plan.leave.len(), 8, "who stops leaves the rest");
    }

    #[test]
    fn what_a_dead_or_polite_node_had_is_free_and_what_a_live_one_has_is_not() {
        let mut shards = Shards::default();
        let mixed = owners(|n| ["b 7", "dead 3", "- 9"][n % 3]);
        let plan = shards.look("a", &mixed, &[0; SHARDS], &live(&["a", "b"]), false);
        assert_eq!(plan.take.len(), 8);
        assert!(
            plan.take
                .iter()
                .all(|(n, before)| n % 3 != 0 && *before == mixed[*n])
        );
    }

    #[test]
    fn a_shard_that_another_has_taken_is_lost_with_what_was_held() {
        let (mut shards, [key, _]) = owning(3);
        assert!(read(&mut shards, 3, "1-0", 5, key));
        let plan = shards.look(
            "a",
            &owners(|_| "b 2"),
            &[0; SHARDS],
            &live(&["a", "b"]),
            false,
        );
        assert_eq!((plan.lost, plan.withdrawn[0].number), (vec![3], 5));
        assert!(!shards.is_here(3) && !shards.done(3, 5, None));
        assert!(!read(&mut shards, 3, "2-0", 6, key), "late");
        assert!(shards.acking(9).is_empty());
    }

    #[test]
    fn what_is_read_late_is_not_taken_for_that_of_a_shard_taken_over_again_under_the_same_epoch() {
        let (mut shards, [key, other]) = owning(3);
        assert!(read(&mut shards, 3, "1-0", 5, key));
        let reading = shards.reading(&[3]).remove(0).1; // and waits for what comes after 1-0
        // A failover to a replica that had not heard of the takeover.
        let plan = shards.look("a", &owners(|_| "- 0"), &[2; SHARDS], &live(&["a"]), false);
        let emptied = &plan.emptied[0];
        assert_eq!((emptied.is_rolled_back, emptied.vanished), (true, 0));
        assert_eq!(emptied.places[0].number, 5);
        shards.taken(3, "a 1".into(), "- 0".into());
        assert!(!read(&mut shards, 3, "2-0", 6, other), "late");
        shards.read_to(3, reading, "2-0".into());
        assert_eq!(shards.reading(&[3])[0].2, START, "1-0 is to be read again");
    }

    #[test]
    fn what_an_emptied_stream_had_and_nobody_holds_has_vanished() {
        let (mut shards, [key, _]) = owning(3);
        assert!(read(&mut shards, 3, "1-0", 5, key));
        shards.added(3, 4);
        let plan = shards.look("a", &owners(|_| ""), &[2; SHARDS], &live(&["a"]), false);
        let emptied = &plan.emptied[0];
        assert_eq!((emptied.is_rolled_back, emptied.vanished), (false, 3));
    }

    #[test]
    fn a_takeover_whose_answer_was_lost_is_made_again() {
        let mut shards = Shards::default();
        let plan = shards.look("a", &owners(|_| "a 4"), &[0; SHARDS], &live(&["a"]), false);
        assert_eq!(plan.take[3], (3, "a 4".into()));
    }

    #[test]
    fn what_is_read_again_is_known_and_a_second_copy_is_removed_too() {
        let (mut shards, [key, other]) = owning(0);
        assert!(read(&mut shards, 0, "1-0", 1, key));
        shards.read_to(0, Tenure(1), "1-0".into());
        assert_eq!(shards.reading(&[0, 1]), [(0, Tenure(1), "1-0".into())]);
        shards.read_again(&[0]);
        assert_eq!(shards.reading(&[0])[0].2, START);
        assert!(!read(&mut shards, 0, "1-0", 2, key));
        assert!(!read(&mut shards, 0, "2-0", 3, key), "a copy");
        assert!(read(&mut shards, 0, "3-0", 4, other));
        assert!(shards.done(0, 1, None) && !shards.done(0, 1, None));
        let acks = shards.acking(9).remove(0);
        assert_eq!(acks.ids, [("1-0".into(), 129), ("2-0".into(), 129)]);
        read(&mut shards, 0, "4-0", 5, key); // one more, while these are on their way
        shards.acked(&acks);
        let acks = shards.acking(9).remove(0);
        assert_eq!(acks.ids, [("4-0".into(), 129)]);
        shards.acked(&acks);
        assert_eq!(shards.held(), 1);
    }

    #[test]
    fn removals_whose_answer_was_lost_are_made_again() {
        let (mut shards, [key, _]) = owning(0);
        read(&mut shards, 0, "1-0", 1, key);
        shards.done(0, 1, None);
        assert_eq!(shards.acking(9).len(), 1);
        assert!(shards.acking(9).is_empty());
        shards.ack_again();
        assert_eq!(shards.acking(9).len(), 1);
    }

    #[test]
    fn a_shard_is_left_once_nothing_of_it_is_held() {
        let (mut shards, [key, other]) = owning(0);
        read(&mut shards, 0, "1-0", 1, key);
        read(&mut shards, 0, "2-0", 2, other);
        let theirs = owners(|n| if n == 0 { "a 1" } else { "b 1" });
        let plan = shards.look("a", &theirs, &[0; SHARDS], &live(&["a", "b"]), true);
        assert_eq!((plan.leave, plan.withdrawn.len()), (vec![0], 2));
        assert!(!shards.is_here(0) && shards.left().is_empty());
        shards.returned(0, 2);
        shards.done(0, 1, None);
        let acks = shards.acking(9).remove(0);
        shards.acked(&acks);
        assert_eq!(shards.left(), [(0, "a 1".into())]);
        shards.lost(0, "a 1");
        assert!(shards.left().is_empty());
    }
}
