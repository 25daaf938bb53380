//! The workers: whose turn it is, an attempt, what it came to; and the clock that retries go by.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    Decision, Item, Lanes, Loss, Mode, State,
    lane::{Slot, Stage},
    queue::Run,
    retries::{Change, Due, IsEarlier},
};
use crate::{
    forwarder::{
        Outcome,
        breaker::Pass,
        verdict::{Signal, Verdict},
    },
    spool::Place,
    types::{ClientId, LostReason},
};

/// One attempt for a worker to make.
struct Job<I> {
    run: Run<I>,
    pass: Pass,
    begun_at: Instant,
}

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
    /// Whether one more worker has something to do; it is counted as hired.
    pub(super) fn may_hire(&self, state: &mut State<I>) -> bool {
        let may = state.queue.turns() > 0
            && self.forward.is_some() // a spool may hold messages of a run that had one
            && state.workers < self.concurrency
            && !state.retries.is_breaker_awaited();
        state.workers += usize::from(may);
        may
    }

    /// The same for as many as have something to do.
    pub(super) fn may_hire_all(&self, state: &mut State<I>) -> usize {
        let mut hires = 0;
        while hires < state.queue.turns() && self.may_hire(state) {
            hires += 1;
        }
        hires
    }

    pub(super) fn hire(self: &Arc<Self>, hires: usize) {
        for _ in 0..hires {
            self.tasks.spawn_inline_until_stopped(self.clone().work());
        }
    }

    /// A worker: makes attempts for whoever has the next turn, until nobody has.
    async fn work(self: Arc<Self>) {
        let forward = self
            .forward
            .as_ref()
            .expect("without a forwarder no lane is ever ready");
        while let Some(job) = self.next() {
            let outcomes = forward.attempt(&job.run.items, job.run.attempt).await;
            self.done(&job, &outcomes);
        }
    }

    /// The next attempt to make, or `None`: then this worker is dismissed.
    fn next(self: &Arc<Self>) -> Option<Job<I>> {
        let mut overdue = Vec::new();
        let (job, hire) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let job = self.next_in(state, Instant::now(), &mut overdue);
            if job.is_some() {
                state.in_flight += 1;
            } else {
                state.workers -= 1;
            }
            let hire = job.is_some() && self.may_hire(state);
            (job, hire)
        };
        self.hire(hire.into());
        self.tell(overdue);
        job
    }

    fn next_in(
        &self,
        state: &mut State<I>,
        now: Instant,
        overdue: &mut Vec<Loss<I>>,
    ) -> Option<Job<I>> {
        if state.mode == Mode::Ending {
            return None; // what the spool has can wait
        }
        while let Some(key) = state.queue.first_turn() {
            let Some((number, taken_at)) = state.queue.next_of(&key) else {
                state.queue.end_turn(); // what it had was displaced meanwhile
                continue;
            };
            if state.queue.is_overdue(taken_at, now) {
                overdue.extend(self.lose(state, &key, number, LostReason::TooOld, None));
                self.promote(state, &key); // which has its turn still, but may read on
                self.wake(state, &key);
                continue;
            }
            if let Some(spool) = &self.spool
                && !spool.may_deliver(&key)
            {
                state.queue.hold_up();
                continue;
            }
            let pass = match state.retries.allow(now, state.in_flight) {
                Ok(pass) => pass,
                Err(is_earlier) => {
                    self.note_alarm(is_earlier);
                    return None;
                }
            };
            let run = state.queue.begin(now)?;
            return Some(Job {
                run,
                pass,
                begun_at: now,
            });
        }
        None
    }

    /// Judges an attempt and acts on it.
    fn done(self: &Arc<Self>, job: &Job<I>, outcomes: &[Outcome]) {
        let now = Instant::now();
        self.running.posts.add(outcomes.len() as u64);
        let key = job.run.items[0].key();
        let (change, fates, hires) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.in_flight -= 1;
            self.note_quiet(state);
            if state.mode == Mode::Closed {
                return; // counted as lost already, or kept
            }
            let (change, fates) = self.judge(state, job, outcomes, now);
            self.promote(state, key);
            self.wake(state, key);
            (change, fates, self.may_hire(state))
        };
        self.hire(hires.into());
        if change == Change::Opened {
            self.running.breaker_opened.add(1);
            self.observer.outage();
        }
        for ((item, outcome), fate) in job.run.items.iter().zip(outcomes).zip(fates) {
            self.report(item, outcome, fate);
        }
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
            let keeps_letters = self.keeps_letters(state);
            let slot = state
                .queue
                .slot(key, number)
                .expect("an item in flight stays in its lane");
            if keeps_letters && !outcome.is_delivered() {
                slot.note(outcome, now - job.begun_at);
            }
            let (verdict, said) = state.retries.judge(outcome, &mut slot.failures, key, now);
            if said != Signal::Neutral {
                signal = said; // the newest that says something
            }
            fates.push(match verdict {
                Verdict::Delivered => {
                    if let Some(spool) = &self.spool {
                        spool.remove(Place::new(key, number));
                    }
                    self.remove(state, key, number);
                    state.books.delivered += 1;
                    has_recovered |= state.retries.note_delivered();
                    Fate::Delivered
                }
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
                    let wait = *wait.get_or_insert_with(|| {
                        let put_off = state
                            .retries
                            .put_off(key, number, attempts, not_before, now);
                        self.note_alarm(put_off.1);
                        put_off.0
                    });
                    Fate::PutOff {
                        attempts,
                        wait,
                        is_misconfigured: is_misconfigured && state.retries.note_misconfigured(),
                    }
                }
                Verdict::Final { reason, is_gone } => {
                    drop(self.lose(state, key, number, reason, Some(outcome)));
                    Fate::Lost { reason, is_gone }
                }
            });
        }
        let change = state.retries.record(now, job.pass, signal);
        if change == Change::Closed || has_recovered {
            state.retries.hurry(&mut state.queue); // what they waited for has come
        }
        (change, fates)
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
    fn report(&self, item: &I, outcome: &Outcome, fate: Fate) {
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
                    self.observer.misconfigured(outcome);
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
            let first = self.state.lock().retries.set_alarm();
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
            while let Some(due) = state.retries.due(now) {
                match due {
                    Due::Retry { key, number, .. } => {
                        state.queue.retry(&key, number);
                        self.promote(state, &key);
                    }
                    Due::Decision(ticket) => {
                        late.extend(state.tickets.contains_key(&ticket).then_some(ticket));
                    }
                    Due::Breaker => state.retries.line_up_probes(&mut state.queue),
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
