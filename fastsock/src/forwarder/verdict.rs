//! What the outcome of an attempt means for its message and for the destination; no I/O, no clock.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Outcome,
    history::{Device, History},
};
use crate::types::LostReason;

/// What is to be done with a message after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The backend has it.
    Delivered,
    /// Try again after the back-off, and not before `not_before`.
    Retry {
        not_before: Option<NotBefore>,
        /// The backend refuses everyone (401, 403, 404, …): an operator must act.
        is_misconfigured: bool,
    },
    /// Given up. `is_gone`: the backend says that the device no longer exists (410).
    Final { reason: LostReason, is_gone: bool },
}

/// The earliest next attempt, and for whom: a `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotBefore {
    /// For every message to this destination ([`Breaker::hold`](super::breaker::Breaker::hold)).
    Destination(Duration),
    /// For the messages of this device.
    Lane(Duration),
}

/// What an attempt says about the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// It took the message.
    Success,
    /// It works, and did not want this message.
    Alive,
    /// Nothing: it is about one device.
    Neutral,
    /// It does not work.
    Failure,
}

/// What one message has met so far. Kept with the message from its first attempt to its last; boxed, since most are
/// delivered by their first.
#[derive(Debug, Default)]
pub(crate) struct Failures(Option<Box<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    /// Answers of 500 and the like, and the number of the newest delivery at the first of them.
    errors: u32,
    deliveries_before: u64,
    /// Answers that are about the device, or about everyone.
    refusals: Tally,
    /// No answer, or one that says nothing about the message; and since when others are known to get through meanwhile.
    outages: Tally,
    alone_since: Option<Instant>,
}

/// Counts of a message with a delivery to another device between each two of them: the destination was well meanwhile.
#[derive(Debug, Default)]
struct Tally {
    count: u32,
    /// The number of the newest delivery when the last of them was counted.
    deliveries: u64,
}

/// Judges one attempt: what becomes of the message of this device, and what the breaker is to be told.
pub(crate) fn judge(
    outcome: &Outcome,
    failures: &mut Failures,
    history: &mut History,
    device: Device,
    now: Instant,
) -> (Verdict, Signal) {
    if outcome.is_delivered() {
        history.deliver(device);
        return (Verdict::Delivered, Signal::Success);
    }
    let counts = failures.0.get_or_insert_default();
    let (status, retry_after) = match *outcome {
        Outcome::Failed { .. } => return counts.out(None, history, device, now),
        Outcome::Redirected { .. } => return counts.refused(history, device),
        // It says nothing about the destination, which was not asked.
        Outcome::Unaddressable | Outcome::Unrouted => {
            return (give_up(LostReason::Rejected, false).0, Signal::Neutral);
        }
        Outcome::Answered {
            status,
            retry_after,
        } => (status, retry_after),
    };
    match status {
        401 | 403 | 404 | 407 | 300..=399 => counts.refused(history, device),
        410 => give_up(LostReason::Rejected, true), // this and the next final ones: also in `is_settled`
        429 => {
            let not_before = retry_after.map(NotBefore::Lane);
            // It is this device that is to slow down; the destination is neither well nor ill.
            (retry(not_before).0, Signal::Neutral)
        }
        408 | 425 => retry(None),
        501 | 505 | 400..=499 => give_up(LostReason::Rejected, false),
        502 | 504 => counts.out(None, history, device, now),
        503 => {
            let not_before = retry_after.map(NotBefore::Destination);
            counts.out(not_before, history, device, now)
        }
        500..=599 if counts.is_poisonous(history, device) => give_up(LostReason::Poison, false),
        // Other 5xx, and what HTTP does not know (1xx as an answer, 600 and up).
        _ => retry(None),
    }
}

impl Counts {
    /// It is about this device or about everyone: deliveries to others tell which.
    fn refused(&mut self, history: &mut History, device: Device) -> (Verdict, Signal) {
        let is_about_everyone = history.refuse(device);
        if self.refusals.count(history, device) && self.refusals.count >= REFUSALS {
            return (give_up(LostReason::Rejected, false).0, Signal::Neutral);
        }
        let verdict = Verdict::Retry {
            not_before: None,
            is_misconfigured: history.refuses_everyone(),
        };
        let signal = match is_about_everyone {
            true => Signal::Failure,
            false => Signal::Neutral,
        };
        (verdict, signal)
    }

    /// It says nothing about the message, unless it goes on and on while others get through.
    fn out(
        &mut self,
        not_before: Option<NotBefore>,
        history: &History,
        device: Device,
        now: Instant,
    ) -> (Verdict, Signal) {
        if self.outages.count(history, device) && self.outages.count > 1 {
            let since = *self.alone_since.get_or_insert(now);
            if self.outages.count >= POISON_OUTAGES && now - since >= POISON_OUTAGE {
                return give_up(LostReason::Poison, false);
            }
        }
        retry(not_before)
    }

    /// Counts one more 5xx that is about a message or about everyone; whether that makes it the message's own fault.
    fn is_poisonous(&mut self, history: &History, device: Device) -> bool {
        if self.errors == 0 {
            self.deliveries_before = history.deliveries();
        }
        self.errors = self.errors.saturating_add(1);
        self.errors >= POISON_ERRORS && history.newest_of_others(device) > self.deliveries_before
    }
}

impl Tally {
    /// Counts one more, unless nobody else got through since the last that was counted. Whether it did count.
    fn count(&mut self, history: &History, device: Device) -> bool {
        let counts = self.count == 0 || history.newest_of_others(device) > self.deliveries;
        if counts {
            self.count = self.count.saturating_add(1);
            self.deliveries = history.deliveries();
        }
        counts
    }
}

fn retry(not_before: Option<NotBefore>) -> (Verdict, Signal) {
    let verdict = Verdict::Retry {
        not_before,
        is_misconfigured: false,
    };
    (verdict, Signal::Failure)
}

/// The destination works and does not want this message; a poisonous one makes it fail, which says no more.
fn give_up(reason: LostReason, is_gone: bool) -> (Verdict, Signal) {
    let signal = match reason {
        LostReason::Poison => Signal::Neutral,
        _ => Signal::Alive,
    };
    (Verdict::Final { reason, is_gone }, signal)
}

/// So many refusals of one message, with a delivery to another device between each two, and it is given up.
const REFUSALS: u32 = 3;
/// So many 5xx to one message, with deliveries to others in between, and it is given up.
const POISON_ERRORS: u32 = 8;
/// So many failures that say nothing about it, with deliveries to others between each two, for so long.
const POISON_OUTAGES: u32 = 20;
const POISON_OUTAGE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    /// A destination, one device, and what its message has met so far.
    struct Case {
        history: History,
        device: Device,
        failures: Failures,
        now: Instant,
    }

    impl Case {
        /// A destination that has taken a message of each of so many other devices.
        fn new(known: usize) -> Self {
            let mut case = Self {
                history: History::default(),
                device: History::default().device(""),
                failures: Failures::default(),
                now: Instant::now(),
            };
            case.device = case.history.device("dev");
            (0..known).for_each(|n| case.deliver(&format!("other{n}")));
            case
        }

        fn deliver(&mut self, client_id: &str) {
            let device = self.history.device(client_id);
            self.history.deliver(device);
        }

        fn judge(&mut self, outcome: &Outcome) -> (Verdict, Signal) {
            let Self {
                history,
                device,
                failures,
                now,
            } = self;
            judge(outcome, failures, history, *device, *now)
        }
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered {
            status,
            retry_after: None,
        }
    }

    fn later(status: u16, seconds: u64) -> Outcome {
        Outcome::Answered {
            status,
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    fn failed() -> Outcome {
        let error = "connection refused".to_owned();
        Outcome::Failed { error }
    }

    /// Answers that are about one device or about everyone.
    fn refusals() -> Vec<Outcome> {
        let statuses = [401, 403, 404, 407, 300, 304, 305].map(answered);
        let redirects = [301, 302, 303, 307, 308].map(|status| Outcome::Redirected { status });
        statuses.into_iter().chain(redirects).collect()
    }

    const AGAIN: Verdict = Verdict::Retry {
        not_before: None,
        is_misconfigured: false,
    };
    const MISCONFIGURED: Verdict = Verdict::Retry {
        not_before: None,
        is_misconfigured: true,
    };
    const REJECTED: Verdict = Verdict::Final {
        reason: LostReason::Rejected,
        is_gone: false,
    };
    const POISON: Verdict = Verdict::Final {
        reason: LostReason::Poison,
        is_gone: false,
    };

    #[test]
    fn the_table_of_answers() {
        let gone = Verdict::Final {
            reason: LostReason::Rejected,
            is_gone: true,
        };
        for (statuses, verdict, signal) in [
            (
                &[200, 201, 202, 204, 299][..],
                Verdict::Delivered,
                Signal::Success,
            ),
            (&[408, 425, 500, 502, 503, 504, 599], AGAIN, Signal::Failure),
            (&[429], AGAIN, Signal::Neutral),
            (
                &[400, 402, 405, 409, 413, 415, 422, 451, 499, 501, 505],
                REJECTED,
                Signal::Alive,
            ),
            (&[410], gone, Signal::Alive),
            (&[100, 101, 199, 600, 999], AGAIN, Signal::Failure),
        ] {
            for &status in statuses {
                for known in [0, 9] {
                    let mut case = Case::new(known);
                    let judged = case.judge(&answered(status));
                    assert_eq!(judged, (verdict, signal), "{status}");
                }
            }
        }
        assert_eq!(Case::new(9).judge(&failed()), (AGAIN, Signal::Failure));
    }

    #[test]
    fn what_is_settled_is_final_whatever_else_happens() {
        for status in 100..=999 {
            let outcome = answered(status);
            for known in [0, 9] {
                let (verdict, _) = Case::new(known).judge(&outcome);
                let is_final = !matches!(verdict, Verdict::Retry { .. });
                assert_eq!(outcome.is_settled(), is_final, "{status}");
            }
        }
        assert!(!failed().is_settled());
        assert!(refusals().iter().all(|outcome| !outcome.is_settled()));
    }

    #[test]
    fn a_refusal_is_final_after_three_attempts_with_deliveries_to_others_in_between() {
        for attempt in &refusals() {
            let mut case = Case::new(9);
            for _ in 0..2 {
                for _ in 0..5 {
                    assert_eq!(case.judge(attempt), (AGAIN, Signal::Neutral), "{attempt:?}");
                    case.deliver("dev"); // a device does not speak for the backend against itself
                }
                case.deliver("other0");
            }
            assert_eq!(case.judge(attempt), (REJECTED, Signal::Neutral));
        }
    }

    #[test]
    fn a_refusal_is_about_everyone_once_three_known_devices_got_it_and_nobody_a_delivery() {
        for attempt in &refusals() {
            let mut case = Case::new(4);
            let of = |case: &mut Case, client_id: &str| {
                case.device = case.history.device(client_id);
                case.failures = Failures::default();
                case.judge(attempt)
            };
            assert_eq!(of(&mut case, "other0"), (AGAIN, Signal::Neutral));
            assert_eq!(of(&mut case, "stranger0"), (AGAIN, Signal::Neutral));
            assert_eq!(of(&mut case, "stranger1"), (AGAIN, Signal::Neutral));
            assert_eq!(of(&mut case, "other1"), (AGAIN, Signal::Neutral));
            assert_eq!(of(&mut case, "other2"), (MISCONFIGURED, Signal::Failure));
            assert_eq!(of(&mut case, "other0"), (MISCONFIGURED, Signal::Failure));
            assert_eq!(of(&mut case, "stranger0"), (MISCONFIGURED, Signal::Neutral));
            case.deliver("other3");
            assert_eq!(of(&mut case, "other0"), (AGAIN, Signal::Neutral));
        }
    }

    #[test]
    fn where_nobody_is_known_a_refusal_is_told_and_neither_final_nor_a_failure() {
        for attempt in &refusals() {
            let mut case = Case::new(0);
            for _ in 0..100 {
                assert_eq!(case.judge(attempt), (MISCONFIGURED, Signal::Neutral));
            }
        }
    }

    #[test]
    fn retry_after_is_for_the_destination_or_the_lane() {
        let not_before = |outcome: &Outcome| match Case::new(0).judge(outcome).0 {
            Verdict::Retry { not_before, .. } => not_before,
            verdict => panic!("{verdict:?}"),
        };
        let seven = Duration::from_secs(7);
        assert_eq!(
            not_before(&later(503, 7)),
            Some(NotBefore::Destination(seven))
        );
        assert_eq!(not_before(&later(429, 7)), Some(NotBefore::Lane(seven)));
        assert_eq!(not_before(&later(500, 7)), None);
        assert_eq!(not_before(&later(408, 7)), None);
    }

    #[test]
    fn a_message_is_poison_when_it_fails_eight_times_while_others_get_through() {
        let mut case = Case::new(5);
        for _ in 1..8 {
            assert_eq!(case.judge(&answered(500)).0, AGAIN);
        }
        // Nobody else got through since: the destination is ill, not the message.
        case.deliver("dev");
        assert_eq!(case.judge(&answered(599)).0, AGAIN);
        case.deliver("other0");
        // What says nothing about the message neither counts nor forgives.
        for attempt in [failed(), answered(502), answered(503), answered(504)] {
            assert_eq!(case.judge(&attempt).0, AGAIN);
        }
        assert_eq!(case.judge(&answered(500)), (POISON, Signal::Neutral));
    }

    #[test]
    fn what_says_nothing_about_a_message_makes_it_poison_after_an_hour_and_twenty_attempts() {
        for attempt in [failed(), answered(502), later(503, 0), answered(504)] {
            let is_poison = |attempts: u32, over: Duration, others: bool| {
                let mut case = Case::new(5);
                let mut last = case.judge(&attempt);
                for _ in 1..attempts {
                    case.now += over / (attempts - 2);
                    if others {
                        case.deliver("other0");
                    }
                    case.deliver("dev");
                    last = case.judge(&attempt);
                }
                last == (POISON, Signal::Neutral)
            };
            let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
            assert!(is_poison(20, hour + second, true), "{attempt:?}");
            assert!(!is_poison(19, 2 * hour, true), "too few");
            assert!(!is_poison(1000, hour - second, true), "too soon");
            assert!(!is_poison(1000, 10 * hour, false), "nobody got through");
        }
    }

    #[test]
    fn an_hour_in_which_nobody_got_through_does_not_count() {
        let mut case = Case::new(5);
        case.judge(&answered(503));
        case.now += Duration::from_secs(5 * 3600);
        for _ in 0..100 {
            case.deliver("other0");
            assert_eq!(case.judge(&answered(503)).0, AGAIN);
        }
    }
}
