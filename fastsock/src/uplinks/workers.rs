//! The workers: whose turn it is, an attempt, what it came to; and the clock that retries go by.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    Decision, Item, Lanes, Loss, Mode, State,
    lane::{Slot, Stage},
    queue::{Run, Turn},
    retries::{Change, Due, IsEarlier},
};
use crate::{
    forwarder::{
        Attempts, Outcome,
        breaker::Pass,
        verdict::{Failures, Signal, Verdict},
    },
    spool::Place,
    types::{ClientId, LostReason},
};

/// One attempt for a worker to make.
struct Job<I> {
    /// The way that it goes.
    way: usize,
    run: Run<I>,
    pass: Pass,
    begun_at: Instant,
}

/// The attempts of one worker.
struct Shift<'a, I> {
    lanes: &'a Arc<Lanes<I>>,
    job: Job<I>,
}

impl<I: Item> Attempts<I> for Shift<'_, I> {
    fn current(&self) -> (&[I], u32) {
        (&self.job.run.items, self.job.run.attempt)
    }

    fn next(&mut self, outcomes: &[Outcome]) -> bool {
        let next = self.lanes.done(&self.job, outcomes);
        let has_next = next.is_some();
        if let Some(job) = next {
            self.job = job;
        }
        has_next
    }
}

/// The ways for which a worker is hired.
pub(super) type Hires = SmallVec<[usize; 2]>;

/// What became of an item by an attempt.
enum Fate {
    Delivered,
    /// It is as if there had been no attempt, or it is left to its new owner.
    Untold,
    PutOff {
        attempts: u32,
        wait: Duration,
        /// The destination refuses everyone's items, and that is news.
        is_misconfigured: bool,
    },
    Lost {
        reason: LostReason,
        /// Its device no longer exists.
        is_gone: bool,
    },
}

impl<I: Item> Lanes<I> {
    /// Whether one more worker of this way has something to do; it is counted as hired.
    fn may_hire(&self, state: &mut State<I>, way: usize) -> bool {
        let (of_way, turns) = (&mut state.ways[way], state.queue.turns(way));
        let may = turns > 0
            && self.ways[way].forward.is_some() // a spool may hold messages of a run that had one
            && of_way.workers < self.ways[way].concurrency
            && !of_way.retries.is_breaker_awaited();
        of_way.workers += usize::from(may);
        may
    }

    /// The ways for which one more worker has something to do.
    pub(super) fn may_hire_any(&self, state: &mut State<I>) -> Hires {
        let ways = 0..self.ways.len();
        ways.filter(|way| self.may_hire(state, *way)).collect()
    }

    /// The same for as many as have something to do.
    pub(super) fn may_hire_all(&self, state: &mut State<I>) -> Hires {
        let mut hires = Hires::new();
        for way in 0..self.ways.len() {
            let mut count = 0;
            while count < state.queue.turns(way) && self.may_hire(state, way) {
                hires.push(way);
                count += 1;
            }
        }
        hires
    }

    pub(super) fn hire(self: &Arc<Self>, hires: Hires) {
        for way in hires {
            self.tasks
                .spawn_inline_until_stopped(self.clone().work(way));
        }
    }

    /// A worker: makes attempts for whoever has the next turn to go its way, until nobody has.
    async fn work(self: Arc<Self>, way: usize) {
        let forward = self.ways[way]
            .forward
            .as_ref()
            .expect("without a forwarder no lane is ever ready");
        if let Some(job) = self.first(way) {
            let mut shift = Shift { lanes: &self, job };
            forward.work(&mut shift).await;
        }
    }

    /// The first attempt to make, or `None`: then this worker is dismissed.
    fn first(self: &Arc<Self>, way: usize) -> Option<Job<I>> {
        let mut given_up = Vec::new();
        let (job, hires) = {
            let mut state = self.state.lock();
            self.next(&mut state, way, Instant::now(), &mut given_up)
        };
        self.hire(hires);
        self.tell(given_up);
        job
    }

    /// The next attempt to make, and where one more worker has something to do.
    fn next(
        &self,
        state: &mut State<I>,
        way: usize,
        now: Instant,
        given_up: &mut Vec<Loss<I>>,
    ) -> (Option<Job<I>>, Hires) {
        let job = self.next_in(state, way, now, given_up);
        match &job {
            Some(_) => state.ways[way].in_flight += 1,
            None => state.ways[way].workers -= 1,
        }
        // A lane goes on another way when its next item does.
        if job.is_some() || self.ways.len() > 1 {
            return (job, self.may_hire_any(state));
        }
        (job, Hires::new())
    }

    fn next_in(
        &self,
        state: &mut State<I>,
        way: usize,
        now: Instant,
        given_up: &mut Vec<Loss<I>>,
    ) -> Option<Job<I>> {
        if state.mode == Mode::Ending {
            return None; // what the spool has can wait
        }
        loop {
            let of_way = &mut state.ways[way];
            let (retries, in_flight) = (&mut of_way.retries, of_way.in_flight);
            let mut pass = None;
            let turn = state.queue.begin(way, now, |key| {
                if let Some(spool) = &self.spool
                    && !spool.may_deliver(key)
                {
                    return Err(None);
                }
                pass = Some(retries.allow(now, in_flight).map_err(Some)?);
                Ok(())
            });
            match turn {
                Turn::Nobody => return None,
                Turn::Idle(key) => {
                    state.queue.end_turn(way);
                    self.promote(state, &key);
                }
                Turn::GivenUp {
                    key,
                    number,
                    is_overdue,
                } => {
                    let (reason, outcome) = match is_overdue {
                        true => (LostReason::TooOld, None),
                        false => (LostReason::Rejected, Some(Outcome::Unrouted)),
                    };
                    given_up.extend(self.lose(state, &key, number, reason, outcome.as_ref()));
                    self.promote(state, &key); // which has its turn still, but may read on
                    self.wake(state, &key);
                }
                Turn::Refused(None) => state.queue.hold_up(way),
                Turn::Refused(Some(is_earlier)) => {
                    self.note_alarm(is_earlier);
                    return None;
                }
                Turn::Begun(run) => {
                    return Some(Job {
                        way,
                        run,
                        pass: pass?,
                        begun_at: now,
                    });
                }
            }
        }
    }

    /// Judges an attempt and acts on it. Returns the next one to make, taken under the same lock.
    fn done(self: &Arc<Self>, job: &Job<I>, outcomes: &[Outcome]) -> Option<Job<I>> {
        let now = Instant::now();
        let (way, took) = (&self.ways[job.way], now - job.begun_at);
        let statuses = || outcomes.iter().map(Outcome::status);
        self.running.posts.attempted(took, statuses());
        if self.ways.len() > 1 {
            way.posts.attempted(took, statuses());
        }
        let key = job.run.items[0].key();
        let mut given_up = Vec::new();
        let (change, fates, (next, hires)) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.ways[job.way].in_flight -= 1;
            self.note_quiet(state);
            if state.mode == Mode::Closed {
                state.ways[job.way].workers -= 1;
                return None; // counted as lost already, or kept
            }
            let (change, fates) = self.judge(state, job, outcomes, now);
            self.promote(state, key);
            self.wake(state, key);
            (change, fates, self.next(state, job.way, now, &mut given_up))
        };
        self.hire(hires);
        if change == Change::Opened {
            self.running.breaker_opened.add(1);
            way.breaker_opened.add(1);
            self.observer.outage(&way.name);
        }
        if change == Change::Closed {
            self.observer.recovered(&way.name);
        }
        for ((item, outcome), fate) in job.run.items.iter().zip(outcomes).zip(fates) {
            self.observer.attempted(item, outcome, took);
            self.report(&way.name, item, outcome, fate);
        }
        self.tell(given_up);
        next
    }

    fn judge(
        &self,
        state: &mut State<I>,
        job: &Job<I>,
        outcomes: &[Outcome],
        now: Instant,
    ) -> (Change, SmallVec<[Fate; 1]>) {
        let key = job.run.items[0].key();
        let mut fates = SmallVec::new();
        let mut signal = Signal::Neutral;
        // Those behind one that is put off wait for it, not for a time of their own.
        let mut wait = None;
        let mut has_recovered = false;
        for (index, &number) in job.run.numbers.iter().enumerate() {
            let Some(outcome) = outcomes.get(index) else {
                self.not_tried(state, key, number);
                continue;
            };
            if outcome.is_delivered() {
                // It may have failed before; nothing of that matters any more.
                let (_, said) =
                    state.ways[job.way]
                        .retries
                        .judge(outcome, &mut Failures::default(), key, now);
                signal = said;
                has_recovered |= self.note_delivered(state, job, number, now);
                fates.push(Fate::Delivered);
                continue;
            }
            let keeps_letters = self.keeps_letters(state);
            let slot = state
                .queue
                .slot(key, number)
                .expect("an item in flight stays in its lane");
            if keeps_letters {
                slot.note(outcome, now - job.begun_at);
            }
            let (verdict, said) =
                state.ways[job.way]
                    .retries
                    .judge(outcome, &mut slot.failures, key, now);
            if said != Signal::Neutral {
                signal = said; // the newest that says something
            }
            fates.push(match verdict {
                Verdict::Delivered => unreachable!("only what is answered 2xx is delivered"),
                Verdict::Retry { .. } if slot.stage == Stage::Withdrawn => {
                    self.give_back(state, key, number);
                    Fate::Untold
                }
                Verdict::Retry {
                    not_before,
                    is_misconfigured,
                } => {
                    let attempts = slot.attempts;
                    slot.stage = match wait {
                        None => Stage::BackingOff,
                        Some(_) => Stage::Ready,
                    };
                    let retries = &mut state.ways[job.way].retries;
                    let wait = *wait.get_or_insert_with(|| {
                        let put_off = retries.put_off(key, number, attempts, not_before, now);
                        self.note_alarm(put_off.1);
                        put_off.0
                    });
                    Fate::PutOff {
                        attempts,
                        wait,
                        is_misconfigured: is_misconfigured && retries.note_misconfigured(),
                    }
                }
                Verdict::Final { reason, is_gone } => {
                    drop(self.lose(state, key, number, reason, Some(outcome)));
                    Fate::Lost { reason, is_gone }
                }
            });
        }
        let retries = &mut state.ways[job.way].retries;
        let change = retries.record(now, job.pass, signal);
        if change == Change::Closed || has_recovered {
            retries.hurry(&mut state.queue); // what they waited for has come
        }
        (change, fates)
    }

    /// The destination has an item. Whether that is news, because it refused everyone.
    fn note_delivered(
        &self,
        state: &mut State<I>,
        job: &Job<I>,
        number: u64,
        now: Instant,
    ) -> bool {
        let key = job.run.items[0].key();
        if let Some(spool) = &self.spool {
            spool.remove(Place::new(key, number));
        }
        if let Some(slot) = self.remove(state, key, number) {
            let after = now.saturating_duration_since(slot.taken_at);
            self.running.posts.delivered(after);
        }
        state.books.delivered += 1;
        let of_way = &mut state.ways[job.way];
        of_way.books.delivered += 1;
        of_way.retries.note_delivered()
    }

    fn not_tried(&self, state: &mut State<I>, key: &ClientId, number: u64) {
        let slot = state.queue.slot(key, number);
        if slot.is_some_and(|slot| slot.stage == Stage::Withdrawn) {
            self.give_back(state, key, number);
        } else {
            state.queue.not_tried(key, number);
        }
    }

    /// Counts and tells what an attempt came to.
    fn report(&self, route: &str, item: &I, outcome: &Outcome, fate: Fate) {
        match fate {
            Fate::Delivered => self.observer.delivered(item),
            Fate::Untold => {}
            Fate::PutOff {
                attempts,
                wait,
                is_misconfigured,
            } => {
                self.running.posts_failed.add(1);
                self.observer.put_off(item, attempts, outcome, wait);
                if is_misconfigured {
                    self.observer.misconfigured(route, outcome);
                }
            }
            Fate::Lost { reason, is_gone } => {
                self.running.posts_failed.add(1);
                self.observer.lost(item, reason, Some(outcome));
                if is_gone {
                    self.observer.gone(item);
                }
            }
        }
    }

    /// Watches over retries, decisions that nobody makes, and the breaker.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let first = {
                let mut state = self.state.lock();
                let alarms = state.ways.iter_mut().map(|way| way.retries.set_alarm());
                alarms.flatten().min()
            };
            match first {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => self.ring(Instant::now()),
                    () = self.alarm_changed.notified() => {}
                },
                None => self.alarm_changed.notified().await,
            }
        }
    }

    fn ring(self: &Arc<Self>, now: Instant) {
        let mut late = Vec::new();
        let hires = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            for way in 0..state.ways.len() {
                while let Some(due) = state.ways[way].retries.due(now) {
                    match due {
                        Due::Retry { key, number, .. } => {
                            state.queue.retry(&key, number);
                            self.promote(state, &key);
                        }
                        Due::Decision(ticket) => {
                            late.extend(state.tickets.contains_key(&ticket).then_some(ticket));
                        }
                        Due::Breaker => {
                            state.ways[way].retries.line_up_probes(&mut state.queue);
                        }
                    }
                }
            }
            self.may_hire_all(state)
        };
        self.hire(hires);
        for ticket in late {
            if self.settle_ticket(ticket, |_| Decision::Fail).is_ok() {
                self.running.hooks_failed.add(1);
                tracing::error!(hook = "on_uplink", "a hook did not answer in time");
            }
        }
    }

    pub(super) fn note_alarm(&self, IsEarlier(is_earlier): IsEarlier) {
        if is_earlier {
            self.alarm_changed.notify_one();
        }
    }

    /// Takes an item out of the queue.
    pub(super) fn remove(
        &self,
        state: &mut State<I>,
        key: &ClientId,
        number: u64,
    ) -> Option<Slot<I>> {
        let slot = state.queue.remove(key, number);
        if state.queue.is_empty() {
            self.emptied.notify_waiters();
        }
        slot
    }
}
