//! The workers: whose turn it is, an attempt, what it came to, and when there is another.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Due, Lanes, Loss, State, lane::Phase};
use crate::{
    config::Gone,
    forwarder::{
        Attempt,
        breaker::{PROBES, Pass, Permit},
        outcome::{Floor, Verdict, judge},
    },
    pure::backoff::Backoff,
    spool::Place,
    types::{ClientId, CloseReason, LostReason, Uplink},
};

/// One attempt for a worker to make.
struct Job {
    uplink: Uplink,
    number: u64,
    attempt: u32,
    pass: Pass,
    begun_at: Instant,
}

/// What an attempt came to.
struct Outcome {
    /// The breaker opened.
    has_opened: bool,
    fate: Fate,
}

/// What became of a message by an attempt.
enum Fate {
    Delivered,
    /// Left to its new owner.
    GivenBack,
    PutOff {
        wait: Duration,
        /// The remote refuses everyone's messages, and that is news.
        is_misconfigured: bool,
    },
    Lost {
        reason: LostReason,
        loss: Option<Loss>,
        /// So its device is to be closed.
        is_gone: bool,
    },
}

impl Lanes {
    /// Whether one more worker has something to do; it is counted as hired.
    pub(super) fn may_hire(&self, state: &mut State) -> bool {
        let may = !state.turns.is_empty()
            && self.forward.is_some() // a spool may hold messages of a run that had one
            && state.workers < self.limits.concurrency
            && !state.is_breaker_watched;
        state.workers += usize::from(may);
        may
    }

    pub(super) fn hire(self: &Arc<Self>, may: bool) {
        if may {
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
            let attempt = forward.attempt(&job.uplink, job.attempt).await;
            self.done(job, &attempt);
        }
    }

    /// The next attempt to make, or `None`: then this worker is dismissed.
    fn next(self: &Arc<Self>) -> Option<Job> {
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
        self.hire(hire);
        self.tell(overdue);
        job
    }

    fn next_in(&self, state: &mut State, now: Instant, overdue: &mut Vec<Loss>) -> Option<Job> {
        if state.is_ending {
            return None; // what the spool has can wait
        }
        while let Some(client_id) = state.turns.front().cloned() {
            let lane = state.lanes.get_mut(&client_id);
            let ready = lane.and_then(|lane| {
                let number = self.next_of(lane)?;
                lane.slot(number)
            });
            let Some(slot) = ready else {
                self.take_turn(state); // what it had was displaced meanwhile
                continue;
            };
            let number = slot.number;
            if now.duration_since(slot.taken_at) > self.limits.max_age {
                overdue.extend(self.lose(state, &client_id, number, LostReason::TooOld, None));
                self.promote(state, &client_id); // which has its turn still, but may read on
                self.wake(state, &client_id);
                continue;
            }
            if let Some(spool) = &self.spool
                && !spool.may_deliver(&client_id)
            {
                self.hold_up(state, client_id);
                continue;
            }
            let pass = match state.breaker.allow(now, state.in_flight) {
                Permit::Go(pass) => pass,
                Permit::Busy => return None, // whoever is in flight comes back here
                Permit::Wait(until) => {
                    state.is_breaker_watched = true;
                    self.remind(state, until, u64::MAX, Due::Breaker);
                    return None;
                }
            };
            slot.phase = Phase::InFlight;
            slot.attempts += 1;
            let job = Job {
                uplink: slot.uplink.clone(),
                number,
                attempt: slot.attempts,
                pass,
                begun_at: now,
            };
            self.take_turn(state);
            self.promote(state, &client_id);
            return Some(job);
        }
        None
    }

    /// Judges an attempt and acts on it.
    fn done(self: &Arc<Self>, job: Job, attempt: &Attempt) {
        let now = Instant::now();
        self.running.posts.add(1);
        let (outcome, hire) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.in_flight -= 1;
            self.note_quiet(state);
            if state.is_closed {
                return; // counted as lost already, or kept
            }
            let client_id = &job.uplink.client_id;
            let outcome = self.judge(state, &job, attempt, now);
            self.promote(state, client_id);
            self.wake(state, client_id);
            (outcome, self.may_hire(state))
        };
        self.hire(hire);
        self.report(job, attempt, outcome);
    }

    fn judge(
        self: &Arc<Self>,
        state: &mut State,
        job: &Job,
        attempt: &Attempt,
        now: Instant,
    ) -> Outcome {
        let (client_id, number) = (&job.uplink.client_id, job.number);
        let device = state.destination.device(client_id.as_str());
        let keeps_letters = self.keeps_letters(state);
        let slot = state
            .lanes
            .get_mut(client_id)
            .and_then(|lane| lane.slot(number))
            .expect("an uplink in flight stays in its lane");
        if keeps_letters && !attempt.is_delivered() {
            slot.note(attempt, now - job.begun_at);
        }
        let is_withdrawn = slot.phase == Phase::Withdrawn;
        let destination = &mut state.destination;
        let (verdict, signal) = judge(attempt, &mut slot.trial, destination, device, now);
        let was_closed = state.breaker.is_closed();
        let has_opened = state.breaker.record(now, job.pass, signal);
        if !was_closed && state.breaker.is_closed() {
            self.hurry(state, false);
        }
        let fate = match verdict {
            Verdict::Delivered => {
                if let Some(spool) = &self.spool {
                    spool.remove(Place::new(client_id, number));
                }
                self.remove(state, client_id, number);
                state.books.delivered += 1;
                if std::mem::take(&mut state.is_misconfigured) {
                    self.hurry(state, false); // it was refused to all who wait
                }
                Fate::Delivered
            }
            Verdict::Retry { .. } if is_withdrawn => {
                self.give_back(state, client_id, number);
                Fate::GivenBack
            }
            Verdict::Retry {
                floor,
                is_misconfigured,
            } => {
                let wait = self.put_off(state, job, floor, now);
                let is_news =
                    is_misconfigured && !std::mem::replace(&mut state.is_misconfigured, true);
                Fate::PutOff {
                    wait,
                    is_misconfigured: is_news,
                }
            }
            Verdict::Final { reason, is_gone } => {
                let loss = self.lose(state, client_id, number, reason, Some(attempt));
                Fate::Lost {
                    reason,
                    loss,
                    is_gone: is_gone && self.limits.gone == Gone::Close,
                }
            }
        };
        Outcome { has_opened, fate }
    }

    /// Counts, logs and tells what an attempt came to.
    fn report(&self, job: Job, attempt: &Attempt, Outcome { has_opened, fate }: Outcome) {
        let uplink = job.uplink;
        if has_opened {
            self.running.breaker_opened.add(1);
            self.log_outage();
        }
        match fate {
            Fate::Delivered => self.log_delivery(&uplink),
            Fate::GivenBack => {}
            Fate::PutOff {
                wait,
                is_misconfigured,
            } => {
                self.running.posts_failed.add(1);
                self.log_failure(&uplink, job.attempt, attempt, wait);
                if is_misconfigured {
                    self.log_misconfigured(attempt);
                }
            }
            Fate::Lost {
                reason,
                loss,
                is_gone,
            } => {
                self.running.posts_failed.add(1);
                self.log_loss(&uplink, reason, Some(attempt));
                self.tell(loss);
                if is_gone {
                    let (id, session_id) = (uplink.client_id.as_str(), uplink.session_id);
                    self.registry.close(id, Some(session_id), CloseReason::Gone);
                }
            }
        }
    }

    /// Keeps a message at the head of its lane for another attempt. Returns how long that is away.
    fn put_off(
        &self,
        state: &mut State,
        job: &Job,
        floor: Option<Floor>,
        now: Instant,
    ) -> Duration {
        let (client_id, number) = (&job.uplink.client_id, job.number);
        if let Some(slot) = state
            .lanes
            .get_mut(client_id)
            .and_then(|lane| lane.slot(number))
        {
            slot.phase = Phase::BackingOff;
        }
        let mut wait = match state.is_last_chance {
            false => RETRY.delay(job.attempt),
            true => RETRY.delay(1),
        };
        let is_asked = matches!(floor, Some(Floor::Lane(_)));
        match floor {
            Some(Floor::Lane(floor)) => wait = wait.max(floor),
            Some(Floor::Destination(floor)) => state.breaker.hold(now + floor),
            None => {}
        }
        let due = Due::Retry(client_id.clone(), number, is_asked);
        self.remind(state, now + wait, number, due);
        wait
    }

    /// Ends the back-off of a message.
    fn retry(&self, state: &mut State, client_id: &ClientId, number: u64) {
        if let Some(lane) = state.lanes.get_mut(client_id)
            && lane.index(number).is_some()
        {
            self.make_ready(lane, number);
            self.promote(state, client_id);
        }
    }

    /// Ends all back-offs: what they waited for has come. `are_all`: also those that the backend has asked for.
    pub(super) fn hurry(&self, state: &mut State, are_all: bool) {
        let is_meant =
            |due: &Due| matches!(due, Due::Retry(_, _, is_asked) if are_all || !is_asked);
        let waiting = state.due.iter().filter(|(_, due)| is_meant(due));
        for key in waiting.map(|(key, _)| *key).collect::<Vec<_>>() {
            if let Some(Due::Retry(client_id, number, _)) = state.due.remove(&key) {
                self.retry(state, &client_id, number);
            }
        }
    }

    /// Sees to it that the next round of probes has lanes to probe: those whose messages were taken before come first, and
    /// back-offs end for it if need be.
    fn line_up_probes(&self, state: &mut State) {
        let is_known = |state: &State, client_id: &ClientId| {
            let device = state.destination.device(client_id.as_str());
            state.destination.knows(device)
        };
        let turns = std::mem::take(&mut state.turns);
        let (mut first, mut others) = (VecDeque::new(), VecDeque::new());
        for client_id in turns {
            match first.len() < PROBES && is_known(state, &client_id) {
                true => first.push_back(client_id),
                false => others.push_back(client_id),
            }
        }
        state.turns = first;
        self.end_back_offs(state, PROBES, is_known);
        state.turns.append(&mut others);
        self.end_back_offs(state, PROBES, |_, _| true);
    }

    /// Ends back-offs, the first due first, until so many lanes have a turn.
    fn end_back_offs(
        &self,
        state: &mut State,
        turns: usize,
        is_meant: impl Fn(&State, &ClientId) -> bool,
    ) {
        let missing = turns.saturating_sub(state.turns.len());
        if missing == 0 {
            return;
        }
        let is_meant = |due: &Due| matches!(due, Due::Retry(id, _, false) if is_meant(state, id));
        let due = state.due.iter().filter(|(_, due)| is_meant(due));
        let keys: Vec<_> = due.map(|(key, _)| *key).take(missing).collect();
        for key in keys {
            if let Some(Due::Retry(client_id, number, _)) = state.due.remove(&key) {
                self.retry(state, &client_id, number);
            }
        }
    }

    /// Watches over retries, hooks that do not answer, and the breaker.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let first = {
                let mut state = self.state.lock();
                state.alarm = state.due.first_key_value().map(|((at, _), _)| *at);
                state.alarm
            };
            match first {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => self.ring(Instant::now()),
                    () = self.due_changed.notified() => {}
                },
                None => self.due_changed.notified().await,
            }
        }
    }

    fn ring(self: &Arc<Self>, now: Instant) {
        let mut late = Vec::new();
        let mut hires = 0;
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            while let Some(entry) = state.due.first_entry().filter(|entry| entry.key().0 <= now) {
                match entry.remove() {
                    Due::Retry(client_id, number, _) => {
                        self.retry(state, &client_id, number);
                    }
                    Due::Ticket(ticket) => {
                        late.extend(state.tickets.contains_key(&ticket).then_some(ticket))
                    }
                    Due::Breaker => {
                        state.is_breaker_watched = false;
                        if !state.breaker.is_closed() {
                            self.line_up_probes(state);
                        }
                    }
                }
            }
            while hires < state.turns.len() && self.may_hire(state) {
                hires += 1;
            }
        }
        for _ in 0..hires {
            self.hire(true);
        }
        for ticket in late {
            if self.decide(ticket, None).is_ok() {
                self.running.hooks_failed.add(1);
                tracing::error!(hook = "on_uplink", "a hook did not answer in time");
            }
        }
    }
}

const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
