//! What waits for the host, by what happens to it when the host falls behind. Pure: no lock, no descriptor.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::event::Event;
use crate::{error::Result, hooks::Answer, types::Ticket};

/// How tickets are answered.
pub(super) type Resolve = dyn Fn(Ticket, Answer) -> Result<()> + Send + Sync;

/// Four queues by what happens to them when the host falls behind; `seq` is the order over all.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) taken: VecDeque<Queued>,
    pub(super) taken_bytes: usize,
    pub(super) decisions: VecDeque<Waiting>,
    pub(super) notices: VecDeque<Queued>,
    /// Results of sends that did not wait. Each has had its place since the send began, so none is dropped.
    pub(super) sent: VecDeque<Queued>,
    /// Sends that began and whose result the host has not drained.
    pub(super) sends: usize,
    /// What the messages of those without a result count for.
    pub(super) sends_bytes: usize,
    next_seq: u64,
    /// Notices that were dropped, and how many of them the log was told of.
    pub(super) dropped: u64,
    dropped_told: u64,
    /// The descriptor is readable, or about to be.
    pub(super) is_notified: bool,
    pub(super) is_closed: bool,
    pub(super) resolve: Option<Arc<Resolve>>,
}

/// An event and its place in the order.
pub(super) struct Queued {
    pub(super) seq: u64,
    pub(super) event: Event,
}

/// An event whose session waits for an answer.
pub(super) struct Waiting {
    pub(super) seq: u64,
    pub(super) since: Instant,
    pub(super) event: Event,
    /// An uplink to be taken, for which there was no room.
    pub(super) is_parked: bool,
}

/// Which queue the oldest event is in.
enum Oldest {
    Taken,
    Decision,
    Notice,
    Sent,
}

impl Queues {
    pub(super) fn next(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    /// Dropped notices that the log was not told of. It is told now.
    pub(super) fn untold(&mut self) -> u64 {
        self.dropped - std::mem::replace(&mut self.dropped_told, self.dropped)
    }

    pub(super) fn len(&self) -> usize {
        self.taken.len() + self.decisions.len() + self.notices.len() + self.sent.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves the oldest events out; `waiting` gets the places of those that still have to be accepted.
    pub(super) fn take(&mut self, max: usize, into: &mut Vec<Event>, waiting: &mut Vec<usize>) {
        into.reserve(max.min(self.len()));
        if self.taken.len() == self.len() {
            return self.take_taken(max, into); // nothing to merge
        }
        for _ in 0..max {
            match self.oldest() {
                Some(Oldest::Taken) => {
                    let Some(queued) = self.taken.pop_front() else {
                        return;
                    };
                    if let Event::Uplink { uplink, .. } = &queued.event {
                        self.taken_bytes -= uplink.payload.cost();
                    }
                    into.push(queued.event);
                }
                Some(Oldest::Notice) => into.extend(self.notices.pop_front().map(|q| q.event)),
                Some(Oldest::Sent) => {
                    self.sends -= 1;
                    into.extend(self.sent.pop_front().map(|q| q.event));
                }
                Some(Oldest::Decision) => {
                    let Some(queued) = self.decisions.pop_front() else {
                        return;
                    };
                    if queued.is_parked && self.resolve.is_none() {
                        self.decisions.push_front(queued); // nobody could accept it yet
                        return;
                    }
                    if queued.is_parked {
                        waiting.push(into.len());
                    }
                    into.push(queued.event);
                }
                None => return,
            }
        }
    }

    /// The same when there are taken uplinks only, which is how a host that takes them mostly finds it.
    fn take_taken(&mut self, max: usize, into: &mut Vec<Event>) {
        let count = max.min(self.taken.len());
        for queued in self.taken.drain(..count) {
            if let Event::Uplink { uplink, .. } = &queued.event {
                self.taken_bytes -= uplink.payload.cost();
            }
            into.push(queued.event);
        }
    }

    fn oldest(&self) -> Option<Oldest> {
        let taken = self.taken.front().map_or(u64::MAX, |q| q.seq);
        let decision = self.decisions.front().map_or(u64::MAX, |q| q.seq);
        let notice = self.notices.front().map_or(u64::MAX, |q| q.seq);
        let sent = self.sent.front().map_or(u64::MAX, |q| q.seq);
        match taken.min(decision).min(notice).min(sent) {
            u64::MAX => None,
            seq if seq == taken => Some(Oldest::Taken),
            seq if seq == decision => Some(Oldest::Decision),
            seq if seq == sent => Some(Oldest::Sent),
            _ => Some(Oldest::Notice),
        }
    }
}
