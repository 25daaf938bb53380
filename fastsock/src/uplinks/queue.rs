//! Items on their way: a lane per key, in order, taken in turn, within limits. No I/O, no clock, no lock.
//!
//! What happens comes in by a method; what is to be done about it (what a worker is to deliver, what the spool is to write, whether a
//! session may read on) is what the method returns.

mod spooled;

use std::{
    collections::{VecDeque, hash_map::Entry},
    time::Duration,
};

use ahash::HashMap;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    item::Item,
    lane::{Amount, Lane, Slot, Stage},
    routes::Signpost,
    window::Window,
};
use crate::{
    config::UplinkFull,
    forwarder::{MOST_BATCH_BYTES, batch_size, destination::LaneLimits},
    maps::trim,
    pure::receipts::Pledge,
    spool::Record,
    types::{ClientId, Ticket},
};

/// All lanes, whose turn it is, and what they hold together.
pub(super) struct Queue<I> {
    lanes: HashMap<ClientId, Lane<I>>,
    limits: LaneLimits,
    keeping: Keeping,
    /// What is in memory of what the spool has.
    window: Window,
    /// What the lanes themselves take beside their items; 0 with a durable spool, where most of them are a few words.
    lanes_bytes: usize,
    signpost: Signpost,
    /// Whose turn it is next, by the way that it goes: each lane that has something ready, once.
    turns: Vec<VecDeque<ClientId>>,
    /// Of each way: items in one attempt at most, and how old they may be.
    bounds: Vec<(usize, Duration)>,
    /// All that is held, in memory or in the spool alone.
    held: Amount,
    next_number: u64,
}

/// What a session learns when its uplink was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Read on.
    More,
    /// Read no further until `Lanes::poll_room` says so.
    Wait,
    /// Read no further until the hook has answered and the spool has it; `Lanes::poll_room` says so.
    Undecided,
    /// Nobody takes uplinks: it is lost.
    NoRemote,
    /// The bridge has stopped: it is lost, and told.
    Closed,
}

/// What keeps the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Memory is all there is.
    Memory,
    /// A spool that this bridge has to itself.
    Spool,
    /// A spool that other gateways share: what it brings is delivered here, whatever is still on its way into it.
    SharedSpool,
}

/// What the first turn of a way comes to.
pub(super) enum Turn<I, E> {
    /// Nobody has one.
    Nobody,
    /// What its lane had for this way was displaced meanwhile.
    Idle(ClientId),
    /// What comes next is not to be delivered: it is too old, or its route is no more.
    GivenUp {
        key: ClientId,
        number: u64,
        is_overdue: bool,
    },
    /// It has to wait, and why.
    Refused(E),
    Begun(Run<I>),
}

/// Items of one lane that one attempt is to deliver, in their order.
#[derive(Debug)]
pub(super) struct Run<I> {
    pub(super) numbers: SmallVec<[u64; 1]>,
    pub(super) items: SmallVec<[I; 1]>,
    /// The number of the attempt; of several, the highest.
    pub(super) attempt: u32,
}

impl<I: Item> Queue<I> {
    /// Lanes for the ways of this signpost; `routes` are the bounds of all but the default one.
    pub(super) fn new(
        limits: LaneLimits,
        keeping: Keeping,
        signpost: Signpost,
        routes: impl IntoIterator<Item = (usize, Duration)>,
    ) -> Self {
        let default = (limits.batch, limits.max_age);
        Self {
            bounds: std::iter::once(default).chain(routes).collect(),
            turns: vec![VecDeque::new(); signpost.len()],
            signpost,
            lanes: HashMap::default(),
            limits,
            keeping,
            window: Window::default(),
            lanes_bytes: 0,
            held: Amount::default(),
            next_number: 0,
        }
    }

    /// Takes an item behind all others of its lane. Returns its number and, when it is decided, what the spool is to write. Without
    /// a spool its lane has its turn at once, as by [`Queue::promote`].
    pub(super) fn push(
        &mut self,
        item: I,
        pledge: Option<Pledge>,
        ticket: Option<Ticket>,
        now: Instant,
    ) -> (u64, Option<Record<I>>) {
        let number = self.reserve(1);
        self.held.add(&item);
        let (cost, key) = (cost_of_lane(self.keeping, item.key()), item.key().clone());
        let lane = match self.lanes.entry(key) {
            Entry::Occupied(lane) => lane.into_mut(),
            Entry::Vacant(lane) => {
                self.lanes_bytes += cost;
                lane.insert(Lane::default())
            }
        };
        lane.bytes += item.bytes();
        let stage = ticket.map_or(Stage::Ready, Stage::Undecided);
        let mut slot = Slot::new(number, item, stage, now);
        slot.pledge = pledge;
        let record = match ticket {
            Some(_) => {
                lane.unsettled += 1;
                None
            }
            None => settle(
                self.keeping,
                &mut self.window,
                &mut lane.unsettled,
                &mut slot,
            ),
        };
        lane.slots.push_back(slot);
        if self.keeping == Keeping::Memory {
            give_turn(lane, self.keeping, &self.signpost, &mut self.turns);
        }
        (number, record)
    }

    /// What a lane holds: messages, and the bytes they count for.
    pub(super) fn waiting(&self, key: &ClientId) -> (usize, usize) {
        self.lanes.get(key).map_or((0, 0), |lane| {
            (lane.slots.len() + lane.stored.messages, lane.total_bytes())
        })
    }

    /// When the oldest of all that is in memory was taken.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let firsts = self.lanes.values().filter_map(|lane| lane.slots.front());
        firsts.map(|slot| slot.taken_at).min()
    }

    /// `count` numbers in a row; the first of them.
    pub(super) fn reserve(&mut self, count: u64) -> u64 {
        let first = self.next_number;
        self.next_number += count;
        first
    }

    /// New items are numbered from here at least.
    pub(super) fn number_from(&mut self, number: u64) {
        self.next_number = self.next_number.max(number);
    }

    /// An item was decided about, and may have been changed by it: whether it is to be delivered is for the caller to say. Returns
    /// what `decide` returns.
    pub(super) fn decide<T>(
        &mut self,
        key: &ClientId,
        number: u64,
        decide: impl FnOnce(&mut I) -> T,
    ) -> Option<(Instant, T)> {
        let lane = self.lanes.get_mut(key)?;
        lane.unsettled -= 1;
        let slot = lane.slot(number)?;
        let before = slot.item.bytes();
        let decision = decide(&mut slot.item);
        let (after, taken_at) = (slot.item.bytes(), slot.taken_at);
        lane.bytes = lane.bytes - before + after;
        self.held.bytes = self.held.bytes - before + after;
        Some((taken_at, decision))
    }

    /// Lets an item that nobody has to decide about any more go: at once, or when the spool has what this returns.
    pub(super) fn settle(&mut self, key: &ClientId, number: u64) -> Option<Record<I>> {
        let lane = self.lanes.get_mut(key)?;
        let index = lane.index(number)?;
        let (slots, unsettled) = (&mut lane.slots, &mut lane.unsettled);
        settle(self.keeping, &mut self.window, unsettled, &mut slots[index])
    }

    /// Ends the back-off of an item.
    pub(super) fn retry(&mut self, key: &ClientId, number: u64) {
        if let Some(slot) = self.slot(key, number)
            && slot.stage == Stage::BackingOff
        {
            slot.stage = Stage::Ready;
        }
    }

    /// Gives a lane its turn, behind all others, if it has something to deliver. One at a time: then a device with much to
    /// say delays nobody, and there are never more turns than lanes.
    pub(super) fn promote(&mut self, key: &ClientId) {
        if let Some(lane) = self.lanes.get_mut(key) {
            give_turn(lane, self.keeping, &self.signpost, &mut self.turns);
        }
    }

    /// Whose turn it is to go this way.
    pub(super) fn first_turn(&self, way: usize) -> Option<ClientId> {
        self.turns[way].front().cloned()
    }

    /// How many have a turn to go this way.
    pub(super) fn turns(&self, way: usize) -> usize {
        self.turns[way].len()
    }

    /// Takes the turns of a way away for someone to put them into another order.
    pub(super) fn take_turns(&mut self, way: usize) -> VecDeque<ClientId> {
        std::mem::take(&mut self.turns[way])
    }

    /// Puts turns that were [taken away](Self::take_turns) behind those there are.
    pub(super) fn append_turns(&mut self, way: usize, mut turns: VecDeque<ClientId>) {
        self.turns[way].append(&mut turns);
    }

    /// The way of the oldest that a lane has in memory, whatever it waits for; the default one without any.
    pub(super) fn way_of(&self, key: &ClientId) -> usize {
        let first = self.lanes.get(key).and_then(|lane| lane.slots.front());
        first.map_or(0, |slot| self.signpost.way_of(&slot.item))
    }

    /// How many there are in memory of each way.
    pub(super) fn held_by_way(&self) -> Vec<u64> {
        let mut held = vec![0; self.signpost.len()];
        for slot in self.lanes.values().flat_map(|lane| &lane.slots) {
            held[self.signpost.way_of(&slot.item)] += 1;
        }
        held
    }

    /// Ends the first turn of a way without an attempt; a lane that stayed only for it goes.
    pub(super) fn end_turn(&mut self, way: usize) {
        let Some(key) = self.turns[way].pop_front() else {
            return;
        };
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.has_turn = false;
            if lane.is_empty() {
                self.drop_lane(&key);
            }
        }
    }

    /// The first turn of a way: used, if `may_begin` lets what it is for be delivered now. One look for its lane is all that it takes
    /// when it does.
    pub(super) fn begin<E>(
        &mut self,
        way: usize,
        now: Instant,
        may_begin: impl FnOnce(&ClientId) -> Result<(), E>,
    ) -> Turn<I, E> {
        let (keeping, (batch, max_age)) = (self.keeping, self.bounds[way]);
        let Some(key) = self.turns[way].front() else {
            return Turn::Nobody;
        };
        let Some(lane) = self.lanes.get_mut(key) else {
            return Turn::Idle(key.clone());
        };
        let Some(first) = next_of(lane, keeping) else {
            return Turn::Idle(key.clone());
        };
        let slot = &lane.slots[first];
        if self.signpost.way_of(&slot.item) != way {
            return Turn::Idle(key.clone());
        }
        let is_too_old = |slot: &Slot<I>| now.duration_since(slot.taken_at) > max_age;
        let (is_overdue, is_astray) = (is_too_old(slot), self.signpost.is_astray(&slot.item));
        if is_overdue || is_astray {
            return Turn::GivenUp {
                key: key.clone(),
                number: slot.number,
                is_overdue,
            };
        }
        if let Err(refusal) = may_begin(key) {
            return Turn::Refused(refusal);
        }
        lane.has_turn = false;
        let mut run = Run {
            numbers: SmallVec::new(),
            items: SmallVec::new(),
            attempt: 0,
        };
        let (mut most, mut bytes) = (usize::MAX, 0);
        for slot in lane.slots.range_mut(first..) {
            if slot.stage != Stage::Ready {
                break;
            }
            if !run.items.is_empty() {
                let is_others = self.signpost.way_of(&slot.item) != way;
                if is_others || self.signpost.is_astray(&slot.item) || is_too_old(slot) {
                    break;
                }
            }
            most = most.min(batch_size(batch, slot.attempts + 1));
            if !run.items.is_empty() && run.items.len() >= most {
                break;
            }
            slot.stage = Stage::InFlight;
            slot.attempts += 1;
            run.attempt = run.attempt.max(slot.attempts);
            run.numbers.push(slot.number);
            run.items.push(slot.item.clone());
            bytes += slot.item.bytes();
            if run.items.len() >= most || bytes >= MOST_BATCH_BYTES {
                break;
            }
        }
        self.turns[way].pop_front();
        Turn::Begun(run)
    }

    /// An attempt ended before it came to this item: as if there had been none.
    pub(super) fn not_tried(&mut self, key: &ClientId, number: u64) {
        if let Some(slot) = self.slot(key, number) {
            slot.attempts -= 1;
            slot.stage = Stage::Ready;
        }
    }

    /// Takes an item out of its lane; the lane goes with its last.
    pub(super) fn remove(&mut self, key: &ClientId, number: u64) -> Option<Slot<I>> {
        let Entry::Occupied(mut found) = self.lanes.entry(key.clone()) else {
            return None;
        };
        let lane = found.get_mut();
        let index = lane.index(number)?;
        let slot = lane.slots.remove(index)?;
        lane.bytes -= slot.item.bytes();
        if lane.total_bytes() < self.limits.lane_bytes {
            lane.surplus_bytes = 0;
        }
        self.held.take(&slot.item);
        if lane.is_empty() && !lane.has_turn {
            found.remove();
            self.lanes_bytes -= cost_of_lane(self.keeping, key);
            trim(&mut self.lanes, ROOM);
        }
        Some(slot)
    }

    /// Empties it for good. What the spool has counts as held from now on; returns all else.
    pub(super) fn close(&mut self) -> Vec<I> {
        self.turns.iter_mut().for_each(VecDeque::clear);
        self.window.clear();
        self.lanes_bytes = 0;
        self.held = self.window.stored;
        let lanes = std::mem::take(&mut self.lanes);
        let mut lost = Vec::new();
        for slot in lanes.into_values().flat_map(|lane| lane.slots) {
            if self.keeping != Keeping::Memory && slot.is_settled() {
                self.held.add(&slot.item);
            } else {
                lost.push(slot.item);
            }
        }
        lost
    }

    /// An item in memory.
    pub(super) fn slot(&mut self, key: &ClientId, number: u64) -> Option<&mut Slot<I>> {
        self.lanes.get_mut(key)?.slot(number)
    }

    /// With `drop_oldest`: the item to lose so that a lane, or the spool, has room. It cannot make room in memory, which others
    /// have filled as well: that is waited for.
    pub(super) fn displaceable(&self, key: &ClientId) -> Option<u64> {
        if self.limits.when_full != UplinkFull::DropOldest {
            return None;
        }
        let lane = self.lanes.get(key)?;
        let is_full = lane.total_bytes() >= self.limits.lane_bytes || self.is_spool_full();
        is_full.then(|| lane.displaceable()).flatten()
    }

    /// What a session of this key may do.
    pub(super) fn room(&self, key: &ClientId) -> Room {
        let lane = self.lanes.get(key);
        if lane.is_some_and(|lane| lane.unsettled > 0) {
            return Room::Undecided;
        }
        let is_lane_full = lane.is_some_and(|lane| lane.total_bytes() >= self.limits.lane_bytes);
        let is_full = is_lane_full || self.is_spool_full();
        let may_displace = || !is_full || lane.and_then(Lane::displaceable).is_some();
        match self.limits.when_full {
            UplinkFull::DropOldest
                if self.memory_bytes() < self.limits.total_bytes
                    && !self.window.is_spool_failing
                    && (self.keeping == Keeping::Memory || may_displace()) =>
            {
                Room::More
            }
            _ if !is_lane_full && !self.is_over() => Room::More,
            _ => Room::Wait, // the policy is `pause`, or others have filled the bridge
        }
    }

    /// Whether one of this key may read on that could not.
    pub(super) fn has_room(&self, key: &ClientId) -> bool {
        let has_room =
            |lane: &Lane<I>| lane.total_bytes() < self.limits.lane_bytes && lane.unsettled == 0;
        !self.is_over() && self.lanes.get(key).is_none_or(has_room)
    }

    /// Whether a lane itself is at its limit.
    pub(super) fn is_lane_full(&self, key: &ClientId) -> bool {
        let lane = self.lanes.get(key);
        lane.is_some_and(|lane| lane.total_bytes() >= self.limits.lane_bytes)
    }

    /// Whether all lanes together are at a limit.
    pub(super) fn is_over(&self) -> bool {
        self.memory_bytes() >= self.limits.total_bytes
            || self.is_spool_full()
            || self.window.is_spool_failing
    }

    /// Whether all lanes together are so far below their limits that several may read on.
    pub(super) fn has_slack(&self) -> bool {
        self.memory_bytes() <= most_of(self.limits.total_bytes)
            && self.held.bytes <= most_of(self.limits.spool_bytes)
            && self.held.messages <= most_of(self.limits.spool_messages)
            && !self.window.is_spool_failing
    }

    /// Whether there is no room, not even for one whom nobody can tell to wait.
    pub(super) fn refuses(&self) -> bool {
        self.limits.refuses_when_full && self.memory_bytes() >= self.limits.total_bytes
    }

    /// Lets a session that ends anyhow put one more item of so many bytes past the limits: `most` of such in each lane,
    /// until that is below its limit again, and a quarter of what all hold together.
    pub(super) fn reserve_surplus(&mut self, key: &ClientId, bytes: usize, most: usize) -> bool {
        let is_at_last = self.is_spool_full()
            || self.window.is_spool_failing
            || self.memory_bytes() >= self.limits.total_bytes / 4 * 5;
        let Some(lane) = self.lanes.get_mut(key) else {
            return !is_at_last;
        };
        let surplus = lane.surplus_bytes + bytes;
        if is_at_last || surplus > most {
            return false;
        }
        lane.surplus_bytes = surplus;
        true
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.messages == 0
    }

    /// How many are held.
    pub(super) fn held(&self) -> usize {
        self.held.messages
    }

    /// What is held, counted by looking.
    pub(super) fn count(&self) -> usize {
        let lanes = self.lanes.values();
        lanes
            .map(|lane| lane.slots.len() + lane.stored.messages)
            .sum()
    }

    /// What all that is held counts against the limits, lanes included.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.bytes + self.lanes_bytes
    }

    /// What is held in memory, or soon will be.
    fn memory_bytes(&self) -> usize {
        self.held.bytes - self.window.stored.bytes + self.window.loading_bytes + self.lanes_bytes
    }

    fn is_spool_full(&self) -> bool {
        self.held.bytes >= self.limits.spool_bytes
            || self.held.messages >= self.limits.spool_messages
    }

    fn drop_lane(&mut self, key: &ClientId) {
        if self.lanes.remove(key).is_some() {
            self.lanes_bytes -= cost_of_lane(self.keeping, key);
        }
    }
}

/// What a lane takes beside its items. Their common limit has to know of it: names are up to 8 KiB, and whoever may
/// choose one can leave a message under each of a million.
fn cost_of_lane(keeping: Keeping, key: &ClientId) -> usize {
    match keeping {
        Keeping::Memory => LANE_BYTES + key.as_str().len(),
        Keeping::Spool | Keeping::SharedSpool => 0,
    }
}

/// Gives a lane its turn if it has something to deliver and has none.
fn give_turn<I: Item>(
    lane: &mut Lane<I>,
    keeping: Keeping,
    signpost: &Signpost,
    turns: &mut [VecDeque<ClientId>],
) {
    if !lane.has_turn
        && !lane.is_held_up
        && let Some(index) = next_of(lane, keeping)
    {
        lane.has_turn = true;
        let item = &lane.slots[index].item;
        turns[signpost.way_of(item)].push_back(item.key().clone());
    }
}

/// The index of what a lane would deliver next: its head.
fn next_of<I>(lane: &Lane<I>, keeping: Keeping) -> Option<usize> {
    let is_ready = |slot: &Slot<I>| slot.stage == Stage::Ready;
    let first = match keeping {
        Keeping::Memory | Keeping::Spool => 0,
        // What it brings does not wait for what it may take once there is room again.
        Keeping::SharedSpool => lane.slots.iter().position(Slot::is_settled)?,
    };
    lane.slots.get(first).is_some_and(is_ready).then_some(first)
}

/// Lets an item go that nobody has to decide about: at once, or when the spool has what this returns.
fn settle<I: Clone>(
    keeping: Keeping,
    window: &mut Window,
    unsettled: &mut usize,
    slot: &mut Slot<I>,
) -> Option<Record<I>> {
    if keeping == Keeping::Memory {
        slot.stage = Stage::Ready;
        slot.confirm();
        return None;
    }
    slot.stage = Stage::Uncommitted;
    *unsettled += 1;
    window.uncommitted += 1;
    Some(Record {
        number: slot.number,
        uplink: slot.item.clone(),
    })
}

/// Seven eighths: all who wait for a common limit are woken together, so only once there is room for several.
fn most_of(limit: usize) -> usize {
    limit / 8 * 7
}

/// What a lane with one message takes, beside its name and what the message counts for: measured.
pub(super) const LANE_BYTES: usize = 896;
/// Lanes that there is always room for: they come and go with every message.
const ROOM: usize = 4096;

#[cfg(test)]
mod tests;
