//! Whether the destination is up: when to send, when to wait, when to probe; no I/O, no clock.

use std::time::Duration;

use tokio::time::Instant;

use super::verdict::Signal;

/// The breaker of one destination. Call it under the lanes' lock; every [`Permit::Go`] is followed by exactly one
/// [`Breaker::record`].
#[derive(Debug)]
pub(crate) struct Breaker {
    phase: Phase,
    /// Counts openings and closings; a pass of an earlier era no longer changes the phase.
    era: u64,
    /// How long the next opening lasts.
    open_for: Duration,
    /// Failures without an answer in between.
    streak: u32,
    window: Window,
    /// Nothing is sent before: the `Retry-After` of a 503.
    floor: Option<Instant>,
    slow_start: Option<SlowStart>,
    /// The most attempts at once that the lanes make.
    concurrency: usize,
    /// Whether it has ever taken a message.
    has_succeeded: bool,
    /// The last sign that it was up, and the last that it was down: failures in a row, or an open breaker.
    last_answer: Option<Instant>,
    last_outage: Option<Instant>,
}

/// Whether an attempt may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Yes. The pass goes back with what came of it.
    Go(Pass),
    /// Not before this moment.
    Wait(Instant),
    /// Not before one of the attempts in flight has been recorded.
    Busy,
}

/// What a breaker does with attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// Lets them through.
    Closed,
    /// Lets none through.
    Open,
    /// Lets a few through, to find out.
    HalfOpen,
}

impl BreakerState {
    pub(crate) const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// One allowed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    era: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The destination is up, as far as we know.
    Closed,
    /// It is down; a probe may go at this time.
    Open(Instant),
    /// A round of a few attempts finds out: so many may begin yet, and so many are in flight.
    HalfOpen { left: u32, in_flight: u32 },
}

/// Attempts at once after the breaker closed: few, then twice as many whenever as many have succeeded.
#[derive(Clone, Copy, Debug)]
struct SlowStart {
    allowed: usize,
    successes_left: usize,
}

impl Breaker {
    /// A closed breaker for lanes that make so many attempts at once.
    pub(crate) fn new(concurrency: usize) -> Self {
        Self {
            phase: Phase::Closed,
            era: 0,
            open_for: FIRST_OPEN,
            streak: 0,
            window: Window::default(),
            floor: None,
            slow_start: None,
            concurrency,
            has_succeeded: false,
            last_answer: None,
            last_outage: None,
        }
    }

    /// Asks for one attempt more than the `in_flight` ones.
    pub(crate) fn allow(&mut self, now: Instant, in_flight: usize) -> Permit {
        if let Some(floor) = self.floor.filter(|floor| *floor > now) {
            return Permit::Wait(floor);
        }
        if let Phase::Open(until) = self.phase {
            if until > now {
                return Permit::Wait(until);
            }
            self.phase = Phase::HalfOpen {
                left: PROBES as u32,
                in_flight: 0,
            };
        }
        let allowed = self.allowed();
        match &mut self.phase {
            Phase::HalfOpen { left: 0, .. } => Permit::Busy,
            Phase::HalfOpen { left, in_flight } => {
                *left -= 1;
                *in_flight += 1;
                Permit::Go(Pass { era: self.era })
            }
            _ if in_flight >= allowed => Permit::Busy,
            _ => Permit::Go(Pass { era: self.era }),
        }
    }

    /// Takes back a pass with what came of it. `true` when this opened the breaker.
    pub(crate) fn record(&mut self, now: Instant, pass: Pass, signal: Signal) -> bool {
        self.has_succeeded |= signal == Signal::Success;
        self.note(now, signal);
        if pass.era != self.era {
            return false; // an attempt from before the breaker opened or closed says nothing new
        }
        if let Phase::HalfOpen { left, in_flight } = &mut self.phase {
            *in_flight -= 1;
            match signal {
                Signal::Success | Signal::Alive => self.close(),
                Signal::Failure if *left == 0 && *in_flight == 0 => return self.open(now),
                Signal::Failure => {}
                Signal::Neutral => *left += 1,
            }
            return false;
        }
        match signal {
            Signal::Success | Signal::Alive => {
                self.streak = 0;
                self.window.count(now, true);
                self.speed_up();
            }
            Signal::Failure => {
                self.streak += 1;
                self.window.count(now, false);
                if self.streak >= STREAK || self.window.is_mostly_failures() {
                    return self.open(now);
                }
            }
            Signal::Neutral => {}
        }
        false
    }

    /// Sends nothing for a while, whatever the phase: a 503 with `Retry-After`.
    pub(crate) fn hold(&mut self, until: Instant) {
        self.floor = self.floor.max(Some(until));
    }

    /// Whether it lets attempts through, as far as it alone is concerned.
    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// What it does with attempts now.
    pub(crate) fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open(_) => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether the destination has been up all the time since: it answers, and has not failed more than now and then.
    /// A few lanes alone never open the breaker, so the failures in a row count as well.
    pub(crate) fn was_up_since(&self, since: Instant) -> bool {
        self.phase == Phase::Closed
            && self.streak == 0
            && self.last_answer.is_some_and(|at| at > since)
            && self.last_outage.is_none_or(|at| at < since)
    }

    fn note(&mut self, now: Instant, signal: Signal) {
        match signal {
            Signal::Success | Signal::Alive => self.last_answer = Some(now),
            Signal::Failure if self.streak + 1 >= OUTAGE || self.phase != Phase::Closed => {
                self.last_outage = Some(now);
            }
            Signal::Failure | Signal::Neutral => {}
        }
    }

    fn allowed(&self) -> usize {
        self.slow_start
            .map_or(self.concurrency, |s| s.allowed.min(self.concurrency))
    }

    fn open(&mut self, now: Instant) -> bool {
        self.phase = Phase::Open(now + self.open_for);
        let longest = match self.has_succeeded {
            true => LONGEST_OPEN,
            false => LONGEST_OPEN_AT_FIRST,
        };
        self.open_for = (self.open_for * 2).min(longest);
        self.era += 1;
        self.slow_start = None;
        true
    }

    /// The past is forgotten: what failed before must not open it again.
    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.era += 1; // what the other probes come to says nothing new
        self.open_for = FIRST_OPEN;
        self.streak = 0;
        self.window = Window::default();
        self.slow_start = Some(SlowStart {
            allowed: SLOW_START,
            successes_left: SLOW_START,
        });
    }

    fn speed_up(&mut self) {
        let Some(start) = &mut self.slow_start else {
            return;
        };
        start.successes_left -= 1;
        if start.successes_left > 0 {
            return;
        }
        start.allowed *= 2;
        start.successes_left = start.allowed;
        if start.allowed >= self.concurrency {
            self.slow_start = None;
        }
    }
}

/// Answers and failures of the last ten seconds, second by second.
#[derive(Debug, Default)]
struct Window {
    /// When the first second began.
    start: Option<Instant>,
    /// The number of the newest second since then.
    newest: u64,
    seconds: [Second; WINDOW_SECONDS as usize],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    answers: u32,
    failures: u32,
}

impl Window {
    fn count(&mut self, now: Instant, is_answer: bool) {
        self.move_to(now);
        let second = &mut self.seconds[(self.newest % WINDOW_SECONDS) as usize];
        if is_answer {
            second.answers += 1;
        } else {
            second.failures += 1;
        }
    }

    /// Clears the seconds that went by since the newest one.
    fn move_to(&mut self, now: Instant) {
        let start = *self.start.get_or_insert(now);
        let current = now.saturating_duration_since(start).as_secs();
        for passed in (self.newest + 1..=current).take(WINDOW_SECONDS as usize) {
            self.seconds[(passed % WINDOW_SECONDS) as usize] = Second::default();
        }
        self.newest = self.newest.max(current);
    }

    fn is_mostly_failures(&self) -> bool {
        let answers: u32 = self.seconds.iter().map(|s| s.answers).sum();
        let failures: u32 = self.seconds.iter().map(|s| s.failures).sum();
        answers + failures >= WINDOW_LEAST && failures > answers
    }
}

/// So many failures in a row are no longer mere bad luck.
const OUTAGE: u32 = 3;
/// So many failures in a row open it.
const STREAK: u32 = 20;
/// So do more failures than answers within the window, once there are so many of both.
const WINDOW_LEAST: u32 = 20;
const WINDOW_SECONDS: u64 = 10;
const FIRST_OPEN: Duration = Duration::from_secs(1);
const LONGEST_OPEN: Duration = Duration::from_secs(15);
/// The same before the destination has taken anything: then one lane is as good as another, and all of them get their turn.
const LONGEST_OPEN_AT_FIRST: Duration = Duration::from_secs(5);
/// Attempts in a round that finds out whether it is up again.
pub(crate) const PROBES: usize = 4;
/// Attempts at once right after closing.
const SLOW_START: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pass(breaker: &mut Breaker, now: Instant) -> Pass {
        match breaker.allow(now, 0) {
            Permit::Go(pass) => pass,
            permit => panic!("{permit:?}"),
        }
    }

    fn record(breaker: &mut Breaker, now: Instant, signal: Signal) -> bool {
        let pass = pass(breaker, now);
        breaker.record(now, pass, signal)
    }

    /// A breaker that has just opened for the first time.
    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(256);
        for n in 1..=20 {
            assert_eq!(record(&mut breaker, now, Signal::Failure), n == 20);
        }
        breaker
    }

    #[test]
    fn it_opens_after_twenty_failures_in_a_row() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.phase != Phase::Closed);
        assert_eq!(breaker.era, 1);
        let until = now + Duration::from_secs(1);
        assert_eq!(breaker.allow(now, 0), Permit::Wait(until));
    }

    #[test]
    fn an_answer_ends_the_row_and_slow_failures_count_too() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(256);
        // One a minute, so that the window holds one only: the row alone opens it.
        for n in 1..=20 {
            now += Duration::from_secs(60);
            if n == 10 {
                record(&mut breaker, now, Signal::Alive);
            }
            assert!(!record(&mut breaker, now, Signal::Failure), "{n}");
        }
        for n in 12..=20 {
            now += Duration::from_secs(60);
            assert_eq!(record(&mut breaker, now, Signal::Failure), n == 20, "{n}");
        }
    }

    #[test]
    fn it_opens_when_more_than_half_of_twenty_fail_within_ten_seconds() {
        let now = Instant::now();
        let mut breaker = Breaker::new(256);
        for _ in 0..10 {
            record(&mut breaker, now, Signal::Success);
            assert!(!record(&mut breaker, now, Signal::Failure));
        }
        // Half is not more than half; of eleven seconds ago nothing counts.
        let mut later = Breaker::new(256);
        for _ in 0..10 {
            record(&mut later, now, Signal::Failure);
            record(&mut later, now, Signal::Success);
        }
        let after = now + Duration::from_secs(11);
        assert!(!record(&mut later, after, Signal::Failure));
        assert!(record(
            &mut breaker,
            now + Duration::from_secs(9),
            Signal::Failure
        ));
    }

    #[test]
    fn a_neutral_answer_counts_for_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(256);
        for _ in 0..100 {
            assert!(!record(&mut breaker, now, Signal::Neutral));
        }
        assert!(!breaker.has_succeeded);
    }

    /// A round of probes that all come to this. Whether it opened the breaker again.
    fn round(breaker: &mut Breaker, now: Instant, signal: Signal) -> bool {
        let probes: Vec<_> = (0..PROBES).map(|_| pass(breaker, now)).collect();
        assert_eq!(breaker.allow(now, PROBES), Permit::Busy);
        let outcomes = probes
            .into_iter()
            .map(|probe| breaker.record(now, probe, signal));
        let outcomes: Vec<_> = outcomes.collect();
        let (last, others) = outcomes.split_last().unwrap();
        assert!(others.iter().all(|has_opened| !has_opened));
        *last
    }

    #[test]
    fn a_round_probes_a_few_and_waits_twice_as_long_up_to_fifteen_seconds() {
        let mut now = Instant::now();
        let mut breaker = Breaker::new(256);
        record(&mut breaker, now, Signal::Success);
        while !record(&mut breaker, now, Signal::Failure) {}
        for seconds in [1, 2, 4, 8, 15, 15] {
            let until = now + Duration::from_secs(seconds);
            assert_eq!(breaker.allow(until - MS, 0), Permit::Wait(until));
            now = until;
            assert!(round(&mut breaker, now, Signal::Failure));
        }
    }

    #[test]
    fn before_anyone_has_ever_succeeded_the_next_round_is_at_most_five_seconds_away() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for seconds in [1, 2, 4, 5, 5] {
            let until = now + Duration::from_secs(seconds);
            assert_eq!(breaker.allow(until - MS, 0), Permit::Wait(until));
            now = until;
            assert!(round(&mut breaker, now, Signal::Failure));
        }
    }

    #[test]
    fn a_round_goes_on_until_one_succeeds_or_all_have_failed() {
        let now = Instant::now() + Duration::from_secs(1);
        for successes_at in 0..PROBES {
            let mut breaker = opened(now - Duration::from_secs(1));
            for _ in 0..successes_at {
                assert!(!record(&mut breaker, now, Signal::Failure));
                assert!(!breaker.is_closed());
            }
            let late = (successes_at + 1 < PROBES).then(|| pass(&mut breaker, now));
            record(&mut breaker, now, Signal::Success);
            assert!(breaker.is_closed());
            if let Some(late) = late {
                assert!(
                    !breaker.record(now, late, Signal::Failure),
                    "it came too late"
                );
                assert_eq!(breaker.streak, 0);
            }
        }
    }

    #[test]
    fn a_probe_that_says_nothing_lets_the_next_one_go() {
        let now = Instant::now() + Duration::from_secs(1);
        let mut breaker = opened(now - Duration::from_secs(1));
        for _ in 0..100 {
            assert!(!record(&mut breaker, now, Signal::Neutral));
            assert!(!breaker.is_closed());
        }
        assert!(!record(&mut breaker, now, Signal::Success));
        assert!(breaker.is_closed());
    }

    #[test]
    fn closing_forgets_the_past_and_starts_slowly() {
        let now = Instant::now() + Duration::from_secs(1);
        let mut breaker = opened(now - Duration::from_secs(1));
        record(&mut breaker, now, Signal::Alive);
        assert!(!record(&mut breaker, now, Signal::Failure));
        for allowed in [8, 16, 32, 64, 128] {
            for _ in 0..allowed {
                assert_eq!(breaker.allow(now, allowed), Permit::Busy);
                record(&mut breaker, now, Signal::Success);
            }
        }
        assert!(matches!(breaker.allow(now, 255), Permit::Go(_)));
        assert_eq!(breaker.allow(now, 256), Permit::Busy);
    }

    #[test]
    fn the_first_opening_after_a_recovery_is_short_again() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        now += Duration::from_secs(1);
        assert!(round(&mut breaker, now, Signal::Failure));
        now += Duration::from_secs(2);
        record(&mut breaker, now, Signal::Success);
        for _ in 0..20 {
            record(&mut breaker, now, Signal::Failure);
        }
        let until = now + Duration::from_secs(1);
        assert_eq!(breaker.allow(now, 0), Permit::Wait(until));
    }

    #[test]
    fn attempts_from_before_it_opened_neither_close_nor_lengthen_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(256);
        let late: Vec<_> = (0..3).map(|_| pass(&mut breaker, now)).collect();
        for _ in 0..20 {
            record(&mut breaker, now, Signal::Failure);
        }
        assert!(!breaker.record(now, late[0], Signal::Failure));
        let probe = pass(&mut breaker, now + Duration::from_secs(1));
        assert!(!breaker.record(now, late[1], Signal::Failure));
        assert!(!breaker.record(now, late[2], Signal::Success));
        assert!(breaker.phase != Phase::Closed && breaker.has_succeeded);
        breaker.record(now, probe, Signal::Success);
        assert!(breaker.phase == Phase::Closed);
    }

    #[test]
    fn a_hold_stops_everything_until_its_end_and_the_longest_wins() {
        let now = Instant::now();
        let mut breaker = Breaker::new(256);
        let until = now + Duration::from_secs(7);
        breaker.hold(until);
        breaker.hold(now + Duration::from_secs(3));
        assert_eq!(breaker.allow(until - MS, 0), Permit::Wait(until));
        assert!(matches!(breaker.allow(until, 0), Permit::Go(_)));
    }

    #[test]
    fn an_outage_is_seen_before_the_breaker_opens_and_remembered_after() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut breaker = Breaker::new(256);
        assert!(!breaker.was_up_since(start), "nobody knows yet");
        for second in 1..=4 {
            record(&mut breaker, at(second), Signal::Success);
            record(&mut breaker, at(second), Signal::Failure);
            record(&mut breaker, at(second), Signal::Failure);
            assert!(!breaker.was_up_since(start), "the last one failed");
            record(&mut breaker, at(second), Signal::Alive);
            assert!(breaker.was_up_since(start), "failures now and then");
        }
        for _ in 0..3 {
            record(&mut breaker, at(5), Signal::Failure);
        }
        record(&mut breaker, at(6), Signal::Success);
        assert!(!breaker.was_up_since(at(5)) && breaker.was_up_since(at(5) + MS));
        assert!(!breaker.was_up_since(at(6)), "no answer since");
    }
}
