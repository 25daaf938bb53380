//! What the spool brings and takes, and how lanes read on in it. No I/O, no clock, no lock.

use std::time::SystemTime;

use tokio::time::Instant;

use super::{
    super::{
        item::Item,
        lane::{Lane, Slot, Stage},
        window::{Load, Window},
    },
    Queue,
};
use crate::{
    spool::{Backlog, Record},
    types::ClientId,
};

impl<I: Item> Queue<I> {
    /// The spool had this at the start.
    pub(crate) fn found(&mut self, backlog: &Backlog) {
        let lane = self.lanes.entry(backlog.client_id.clone()).or_default();
        for amount in [&mut lane.stored, &mut self.window.stored, &mut self.held] {
            amount.messages += backlog.messages;
            amount.bytes += backlog.bytes;
        }
    }

    /// The spool has an item now. It may leave memory: when it is behind others that have, or when there is no room. `false`: no
    /// such item was on its way.
    pub(crate) fn committed(&mut self, key: &ClientId, number: u64) -> bool {
        let Some(index) = self.index_of_uncommitted(key, number) else {
            return false;
        };
        let has_memory = self.has_memory();
        let window_bytes = self.limits.window_bytes;
        let Some(lane) = self.lanes.get_mut(key) else {
            return false;
        };
        lane.unsettled -= 1;
        self.window.uncommitted -= 1;
        let slot = &mut lane.slots[index];
        slot.stage = Stage::Ready;
        slot.confirm();
        // Only ever the last committed one in memory goes: what is in the spool alone is behind what is not.
        let is_last = lane.slots.range(index + 1..).all(|s| !s.is_settled());
        let has_no_room = lane.bytes > window_bytes && index > 0 || !has_memory;
        if is_last && (lane.stored.messages > 0 || lane.loading_bytes > 0 || has_no_room) {
            evict(lane, &mut self.window, index);
        }
        true
    }

    /// Another gateway may deliver an item that was on its way into a shared spool. `None`: it was not.
    pub(crate) fn passed_on(&mut self, key: &ClientId, number: u64) -> Option<Slot<I>> {
        self.index_of_uncommitted(key, number)?;
        self.lanes.get_mut(key)?.unsettled -= 1;
        self.window.uncommitted -= 1;
        self.remove(key, number)
    }

    /// Takes an item that the spool brings by itself.
    pub(crate) fn recovered(&mut self, record: Record<I>, now: (Instant, SystemTime)) {
        self.held.add(&record.uplink);
        let lane = self.lanes.entry(record.uplink.key().clone()).or_default();
        let is_behind_others = lane.stored.messages > 0;
        let index = lane.insert(record, now);
        if is_behind_others {
            evict(lane, &mut self.window, index);
        }
    }

    /// Takes what a [`Load`] brought. Returns how many items are missing, when it brought nothing.
    pub(crate) fn loaded(
        &mut self,
        key: &ClientId,
        records: Vec<Record<I>>,
        now: (Instant, SystemTime),
    ) -> usize {
        let Some(lane) = self.lanes.get_mut(key) else {
            return 0;
        };
        self.window.loading_bytes -= std::mem::take(&mut lane.loading_bytes);
        if records.is_empty() {
            return lane.stored.messages;
        }
        for record in records {
            if lane.index(record.number).is_some() {
                continue; // it stayed in memory when it was committed
            }
            lane.stored.take(&record.uplink);
            self.window.stored.take(&record.uplink);
            lane.insert(record, now);
        }
        0
    }

    /// An item is another gateway's now. Returns it, unless an attempt to deliver it is being made: that one decides.
    pub(crate) fn withdraw(&mut self, key: &ClientId, number: u64) -> Option<Slot<I>> {
        let slot = self.lanes.get_mut(key)?.slot(number)?;
        if matches!(slot.stage, Stage::InFlight | Stage::Withdrawn) {
            slot.stage = Stage::Withdrawn;
            return None;
        }
        self.remove(key, number)
    }

    /// An item that is in memory.
    pub(crate) fn copy(&mut self, key: &ClientId, number: u64) -> Option<I> {
        Some(self.lanes.get_mut(key)?.slot(number)?.item.clone())
    }

    /// The first turn of a way is of a lane that may not deliver for now. It has no turn until [`Queue::let_deliver`].
    pub(crate) fn hold_up(&mut self, way: usize) {
        let Some(key) = self.first_turn(way) else {
            return;
        };
        self.end_turn(way);
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.is_held_up = true;
            self.window.held_up.push(key);
        }
    }

    /// Those that were held up may ask again. Returns who they are.
    pub(crate) fn let_deliver(&mut self) -> Vec<ClientId> {
        let held_up = std::mem::take(&mut self.window.held_up);
        for key in &held_up {
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.is_held_up = false;
            }
        }
        held_up
    }

    /// Reads on in the spool once half of a lane's window is empty, or waits for its turn to have memory.
    pub(crate) fn refill(&mut self, key: &ClientId) -> Option<Load> {
        let has_memory = self.has_memory();
        let window_bytes = self.limits.window_bytes;
        let lane = self.lanes.get_mut(key)?;
        let is_enough = lane.bytes > window_bytes / 2;
        if lane.stored.messages == 0 || lane.loading_bytes > 0 || is_enough {
            return None;
        }
        if !has_memory {
            if !std::mem::replace(&mut lane.is_starving, true) {
                self.window.starving.push_back(key.clone());
            }
            return None;
        }
        lane.loading_bytes = (window_bytes - lane.bytes).min(lane.stored.bytes);
        self.window.loading_bytes += lane.loading_bytes;
        let newest = lane.slots.iter().rfind(|slot| slot.is_settled());
        Some(Load {
            key: key.clone(),
            after: newest.map(|slot| slot.number),
            bytes: lane.loading_bytes,
        })
    }

    /// The next lane that waited for memory and may read on.
    pub(crate) fn feed(&mut self) -> Option<Load> {
        while !self.window.starving.is_empty() && self.has_memory() {
            let key = self.window.starving.pop_front()?;
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.is_starving = false;
            }
            if let Some(load) = self.refill(&key) {
                return Some(load);
            }
        }
        None
    }

    /// Items on their way into the spool.
    pub(crate) fn uncommitted(&self) -> usize {
        self.window.uncommitted
    }

    /// Whether the spool takes nothing for now.
    #[cfg_attr(
        not(feature = "admin"),
        allow(dead_code, reason = "only `/readyz` asks")
    )]
    pub(crate) fn is_spool_failing(&self) -> bool {
        self.window.is_spool_failing
    }

    pub(crate) fn set_spool_failing(&mut self, is_failing: bool) {
        self.window.is_spool_failing = is_failing;
    }

    /// Whether there is room for what the spool brings by itself. The other half of memory is for what sessions say: a backlog must
    /// not keep them from saying it.
    pub(crate) fn has_room_for_backlog(&self) -> bool {
        self.memory_bytes() < self.limits.total_bytes / 2
    }

    /// Whether windows may grow. The last quarter of memory is for what is on its way into the spool; else a backend that is
    /// down for long would fill memory with windows, and no session could read on although the spool has room.
    fn has_memory(&self) -> bool {
        self.memory_bytes() <= self.limits.total_bytes / 4 * 3
    }

    /// The index of an item that is on its way into the spool.
    fn index_of_uncommitted(&self, key: &ClientId, number: u64) -> Option<usize> {
        let lane = self.lanes.get(key)?;
        let index = lane.index(number)?;
        (lane.slots[index].stage == Stage::Uncommitted).then_some(index)
    }
}

impl<I: Item> Lane<I> {
    /// Puts a committed item into its place; the age limit counts from when it was made. Returns its index.
    fn insert(&mut self, record: Record<I>, (now, today): (Instant, SystemTime)) -> usize {
        let Record {
            number,
            uplink: item,
        } = record;
        let age = today.duration_since(item.made_at()).unwrap_or_default();
        let taken_at = now.checked_sub(age).unwrap_or(now);
        let index = self.slots.partition_point(|slot| slot.number < number);
        self.bytes += item.bytes();
        self.slots
            .insert(index, Slot::new(number, item, Stage::Ready, taken_at));
        index
    }
}

/// Leaves a committed item to the spool alone.
fn evict<I: Item>(lane: &mut Lane<I>, window: &mut Window, index: usize) {
    if let Some(slot) = lane.slots.remove(index) {
        lane.bytes -= slot.item.bytes();
        lane.stored.add(&slot.item);
        window.stored.add(&slot.item);
    }
}
