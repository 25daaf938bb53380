//! What an attempt means for its message and for the destination; no I/O, no clock.

use std::time::Duration;

use super::Attempt;
use crate::types::LostReason;

/// What is to be done with a message after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The backend has it.
    Delivered,
    /// Try again after the back-off, and not before `floor`.
    Retry {
        floor: Option<Floor>,
        /// The backend seems to be set up wrongly for everyone (401, 403, 404, …): an operator must act.
        is_misconfigured: bool,
    },
    /// Given up. `is_gone`: the backend says that the device no longer exists (410).
    Final { reason: LostReason, is_gone: bool },
}

/// The earliest next attempt, and for whom: a `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Floor {
    /// For every message to this destination ([`Breaker::hold`](super::breaker::Breaker::hold)).
    Destination(Duration),
    /// For the messages of this device.
    Lane(Duration),
}

/// What an attempt says about the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// It took the message.
    Success,
    /// It works, and did not want this message.
    Alive,
    /// Nothing: not answered by the destination as such, or never made.
    Neutral,
    /// It does not work.
    Failure,
}

/// What is known of the destination when an attempt is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Destination {
    /// Whether it answered 2xx to anyone in the last 60 s.
    pub(crate) has_recent_success: bool,
    /// How often it has answered 2xx, to anyone. Only ever grows.
    pub(crate) deliveries: u64,
}

/// What one message has met so far. Kept with the message from its first attempt to its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trial {
    /// Answers of 5xx.
    server_errors: u32,
    /// `deliveries` at the first of them.
    deliveries_before: u64,
}

/// Judges one attempt: what becomes of the message, and what the breaker is to be told.
pub(crate) fn judge(
    attempt: &Attempt,
    trial: &mut Trial,
    destination: Destination,
) -> (Verdict, Signal) {
    let (status, retry_after) = match *attempt {
        Attempt::Failed { .. } => return retry(None),
        Attempt::Redirected { .. } => return refused(destination),
        Attempt::Answered {
            status,
            retry_after,
        } => (status, retry_after),
    };
    match status {
        200..=299 => (Verdict::Delivered, Signal::Success),
        401 | 403 | 404 | 407 | 300..=399 => refused(destination),
        410 => give_up(LostReason::Rejected, true),
        429 => {
            let floor = retry_after.map(Floor::Lane);
            // It is this device that is to slow down; the destination is neither well nor ill.
            (retry(floor).0, Signal::Neutral)
        }
        408 | 425 => retry(None),
        501 | 505 | 400..=499 => give_up(LostReason::Rejected, false),
        500..=599 if trial.is_poisonous(destination) => give_up(LostReason::Poison, false),
        503 => retry(retry_after.map(Floor::Destination)),
        // Other 5xx, and what HTTP does not know (1xx as an answer, 600 and up).
        _ => retry(None),
    }
}

impl Trial {
    /// Counts one more 5xx; whether that makes it the message's own fault.
    fn is_poisonous(&mut self, destination: Destination) -> bool {
        if self.server_errors == 0 {
            self.deliveries_before = destination.deliveries;
        }
        self.server_errors = self.server_errors.saturating_add(1);
        // This message was not delivered, so every delivery since was another's.
        self.server_errors >= POISON_ANSWERS && destination.deliveries > self.deliveries_before
    }
}

/// An answer that is either about this message or about the whole set-up: deliveries to others tell which.
fn refused(destination: Destination) -> (Verdict, Signal) {
    if destination.has_recent_success {
        return give_up(LostReason::Rejected, false);
    }
    let verdict = Verdict::Retry {
        floor: None,
        is_misconfigured: true,
    };
    (verdict, Signal::Failure)
}

fn retry(floor: Option<Floor>) -> (Verdict, Signal) {
    let verdict = Verdict::Retry {
        floor,
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

/// So many 5xx to one message, with deliveries to others in between, and it is given up.
const POISON_ANSWERS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Destination = Destination {
        has_recent_success: false,
        deliveries: 0,
    };
    const BUSY: Destination = Destination {
        has_recent_success: true,
        deliveries: 9,
    };

    fn answered(status: u16) -> Attempt {
        Attempt::Answered {
            status,
            retry_after: None,
        }
    }

    fn later(status: u16, seconds: u64) -> Attempt {
        Attempt::Answered {
            status,
            retry_after: Some(Duration::from_secs(seconds)),
        }
    }

    fn once(attempt: &Attempt, destination: Destination) -> (Verdict, Signal) {
        judge(attempt, &mut Trial::default(), destination)
    }

    const AGAIN: Verdict = Verdict::Retry {
        floor: None,
        is_misconfigured: false,
    };
    const MISCONFIGURED: Verdict = Verdict::Retry {
        floor: None,
        is_misconfigured: true,
    };
    const REJECTED: Verdict = Verdict::Final {
        reason: LostReason::Rejected,
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
                for destination in [QUIET, BUSY] {
                    let (got, told) = once(&answered(status), destination);
                    assert_eq!((got, told), (verdict, signal), "{status}");
                }
            }
        }
    }

    #[test]
    fn a_refusal_is_final_only_while_others_get_through() {
        let attempts = [401, 403, 404, 407, 300, 304, 305].map(answered);
        let redirects = [301, 302, 303, 307, 308].map(|status| Attempt::Redirected { status });
        for attempt in attempts.iter().chain(&redirects) {
            assert_eq!(
                once(attempt, BUSY),
                (REJECTED, Signal::Alive),
                "{attempt:?}"
            );
            assert_eq!(
                once(attempt, QUIET),
                (MISCONFIGURED, Signal::Failure),
                "{attempt:?}"
            );
        }
    }

    #[test]
    fn no_answer_is_a_failure_of_the_destination() {
        let error = "connection refused".to_owned();
        assert_eq!(
            once(&Attempt::Failed { error }, BUSY),
            (AGAIN, Signal::Failure)
        );
    }

    #[test]
    fn retry_after_is_for_the_destination_or_the_lane() {
        let floor = |attempt: &Attempt| match once(attempt, QUIET).0 {
            Verdict::Retry { floor, .. } => floor,
            verdict => panic!("{verdict:?}"),
        };
        let seven = Duration::from_secs(7);
        assert_eq!(floor(&later(503, 7)), Some(Floor::Destination(seven)));
        assert_eq!(floor(&later(429, 7)), Some(Floor::Lane(seven)));
        assert_eq!(floor(&later(500, 7)), None);
        assert_eq!(floor(&later(408, 7)), None);
    }

    #[test]
    fn a_message_is_poison_when_it_fails_eight_times_while_others_get_through() {
        let at = |deliveries| Destination { deliveries, ..BUSY };
        let mut trial = Trial::default();
        for _ in 1..8 {
            assert_eq!(judge(&answered(500), &mut trial, at(5)).0, AGAIN);
        }
        // Nobody got through since: the destination is ill, not the message.
        assert_eq!(judge(&answered(502), &mut trial, at(5)).0, AGAIN);
        // A time-out is no answer; it neither counts nor forgives.
        let failed = Attempt::Failed { error: "t".into() };
        assert_eq!(judge(&failed, &mut trial, at(6)).0, AGAIN);
        let poison = Verdict::Final {
            reason: LostReason::Poison,
            is_gone: false,
        };
        assert_eq!(
            judge(&answered(500), &mut trial, at(6)),
            (poison, Signal::Neutral)
        );
    }
}
