//! When an item is tried again, and whether anything is tried at all: what is due, the breaker, and whose items the destination
//! has taken. No I/O, no clock, no lock.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::{item::Item, queue::Queue};
use crate::{
    forwarder::{
        Outcome,
        breaker::{Breaker, BreakerState, PROBES, Pass, Permit},
        history::History,
        verdict::{Failures, NotBefore, Signal, Verdict, judge},
    },
    pure::backoff::Backoff,
    types::{ClientId, Ticket},
};

pub(super) struct Retries {
    /// The number of the way that they are of.
    way: usize,
    due: BTreeMap<(Instant, u64), Due>,
    /// When the clock is looked at next. What was due first may be gone by then: it is not looked at for that.
    alarm: Option<Instant>,
    breaker: Breaker,
    history: History,
    /// Nobody begins an attempt before the breaker allows one, which is in `due`.
    is_breaker_awaited: bool,
    /// The destination refuses everyone's items, and that was said.
    is_misconfigured: bool,
    /// What is not delivered soon is lost: nothing backs off for long.
    is_last_chance: bool,
}

/// What has its time.
#[derive(Debug)]
pub(super) enum Due {
    /// The next attempt. `is_asked`: the backend has asked for the delay of this very device.
    Retry {
        key: ClientId,
        number: u64,
        is_asked: bool,
    },
    /// Nobody has decided in time.
    Decision(Ticket),
    Breaker,
}

/// What the end of an attempt did to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

/// Whether the alarm is earlier now, and its keeper has to know.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IsEarlier(pub(super) bool);

impl Retries {
    /// Those of a way that may make so many attempts at once.
    pub(super) fn new(way: usize, concurrency: usize) -> Self {
        Self {
            way,
            due: BTreeMap::new(),
            alarm: None,
            breaker: Breaker::new(concurrency),
            history: History::default(),
            is_breaker_awaited: false,
            is_misconfigured: false,
            is_last_chance: false,
        }
    }

    /// Asks for one attempt more than those in flight.
    ///
    /// # Errors
    /// Not now: whoever is in flight asks again when it is back, or the alarm says when.
    pub(super) fn allow(&mut self, now: Instant, in_flight: usize) -> Result<Pass, IsEarlier> {
        match self.breaker.allow(now, in_flight) {
            Permit::Go(pass) => Ok(pass),
            Permit::Busy => Err(IsEarlier(false)),
            Permit::Wait(until) => {
                self.is_breaker_awaited = true;
                Err(self.remind(until, u64::MAX, Due::Breaker))
            }
        }
    }

    /// Judges what an attempt to deliver one item came to.
    pub(super) fn judge(
        &mut self,
        outcome: &Outcome,
        failures: &mut Failures,
        key: &ClientId,
        now: Instant,
    ) -> (Verdict, Signal) {
        let device = self.history.device(key.as_str());
        judge(outcome, failures, &mut self.history, device, now)
    }

    /// Takes back the pass of an attempt with what it says of the destination.
    pub(super) fn record(&mut self, now: Instant, pass: Pass, signal: Signal) -> Change {
        let was_closed = self.breaker.is_closed();
        match self.breaker.record(now, pass, signal) {
            true => Change::Opened,
            false if !was_closed && self.breaker.is_closed() => Change::Closed,
            false => Change::None,
        }
    }

    /// Sets the time of an item's next attempt, after the attempt of this number. Returns how long that is away.
    pub(super) fn put_off(
        &mut self,
        key: &ClientId,
        number: u64,
        attempt: u32,
        not_before: Option<NotBefore>,
        now: Instant,
    ) -> (Duration, IsEarlier) {
        let mut wait = RETRY.delay(if self.is_last_chance { 1 } else { attempt });
        match not_before {
            Some(NotBefore::Lane(least)) => wait = wait.max(least),
            Some(NotBefore::Destination(least)) => self.breaker.hold(now + least),
            None => {}
        }
        let due = Due::Retry {
            key: key.clone(),
            number,
            is_asked: matches!(not_before, Some(NotBefore::Lane(_))),
        };
        (wait, self.remind(now + wait, number, due))
    }

    /// Sets the time by which someone has to decide about an item.
    pub(super) fn await_decision(&mut self, at: Instant, number: u64, ticket: Ticket) -> IsEarlier {
        self.remind(at, number, Due::Decision(ticket))
    }

    /// Someone has decided.
    pub(super) fn forget_decision(&mut self, at: Instant, number: u64) {
        self.due.remove(&(at, number));
    }

    /// The next of what is due by now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let first = self.due.first_entry().filter(|due| due.key().0 <= now)?;
        let due = first.remove();
        self.is_breaker_awaited &= !matches!(due, Due::Breaker);
        Some(due)
    }

    /// When to look at the clock next.
    pub(super) fn set_alarm(&mut self) -> Option<Instant> {
        self.alarm = self.due.first_key_value().map(|((at, _), _)| *at);
        self.alarm
    }

    pub(super) fn breaker_state(&self) -> BreakerState {
        self.breaker.state()
    }

    /// Whether nobody may begin an attempt before the alarm.
    pub(super) fn is_breaker_awaited(&self) -> bool {
        self.is_breaker_awaited
    }

    /// Whether the destination has taken items all the time since.
    pub(super) fn was_up_since(&self, since: Instant) -> bool {
        self.breaker.was_up_since(since)
    }

    /// Whether it is news that the destination refuses everyone.
    pub(super) fn note_misconfigured(&mut self) -> bool {
        !std::mem::replace(&mut self.is_misconfigured, true)
    }

    /// The destination has taken an item. Whether it refused everyone until now.
    pub(super) fn note_delivered(&mut self) -> bool {
        std::mem::take(&mut self.is_misconfigured)
    }

    /// From now on nothing backs off for long, and what does already goes now.
    pub(super) fn begin_last_chance<I: Item>(&mut self, queue: &mut Queue<I>) {
        self.is_last_chance = true;
        self.end_back_offs(queue, usize::MAX, |due| matches!(due, Due::Retry { .. }));
    }

    /// Ends all back-offs but those that the backend has asked for: what they waited for has come.
    pub(super) fn hurry<I: Item>(&mut self, queue: &mut Queue<I>) {
        let is_ours = |due: &Due| {
            matches!(
                due,
                Due::Retry {
                    is_asked: false,
                    ..
                }
            )
        };
        self.end_back_offs(queue, usize::MAX, is_ours);
    }

    /// Sees to it that the next round of probes has lanes to probe, unless the breaker has closed: those whose items were taken
    /// before come first, and back-offs end for it if need be.
    pub(super) fn line_up_probes<I: Item>(&mut self, queue: &mut Queue<I>) {
        if self.breaker.is_closed() {
            return;
        }
        let (mut first, mut others) = (VecDeque::new(), VecDeque::new());
        for key in queue.take_turns(self.way) {
            if first.len() < PROBES && self.knows(&key) {
                first.push_back(key);
            } else {
                others.push_back(key);
            }
        }
        queue.append_turns(self.way, first);
        let missing = PROBES.saturating_sub(queue.turns(self.way));
        let known = self.backing_off(missing, |key| self.knows(key));
        self.retry(queue, known);
        queue.append_turns(self.way, others);
        let missing = PROBES.saturating_sub(queue.turns(self.way));
        let any = self.backing_off(missing, |_| true);
        self.retry(queue, any);
    }

    /// Nothing is due any more.
    pub(super) fn clear(&mut self) {
        self.due.clear();
    }

    fn knows(&self, key: &ClientId) -> bool {
        self.history.knows(self.history.device(key.as_str()))
    }

    fn remind(&mut self, at: Instant, number: u64, due: Due) -> IsEarlier {
        self.due.insert((at, number), due);
        let is_earlier = self.alarm.is_none_or(|alarm| at < alarm);
        if is_earlier {
            self.alarm = Some(at);
        }
        IsEarlier(is_earlier)
    }

    /// The first so many back-offs, of those meant, that the backend has not asked for.
    fn backing_off(
        &self,
        most: usize,
        is_meant: impl Fn(&ClientId) -> bool,
    ) -> Vec<(Instant, u64)> {
        let is_meant =
            |due: &Due| matches!(due, Due::Retry { key, is_asked: false, .. } if is_meant(key));
        let due = self.due.iter().filter(|(_, due)| is_meant(due));
        due.map(|(at, _)| *at).take(most).collect()
    }

    fn end_back_offs<I: Item>(
        &mut self,
        queue: &mut Queue<I>,
        most: usize,
        is_meant: impl Fn(&Due) -> bool,
    ) {
        let due = self.due.iter().filter(|(_, due)| is_meant(due));
        let due = due.map(|(at, _)| *at).take(most).collect();
        self.retry(queue, due);
    }

    fn retry<I: Item>(&mut self, queue: &mut Queue<I>, due: Vec<(Instant, u64)>) {
        for at in due {
            if let Some(Due::Retry { key, number, .. }) = self.due.remove(&at) {
                queue.retry(&key, number);
                queue.promote(&key);
            }
        }
    }
}

const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
