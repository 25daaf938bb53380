//! The port to what carries an uplink or an event to its backend, and what an attempt can come to.

mod batch;
pub(crate) mod breaker;
pub(crate) mod destination;
pub(crate) mod history;
pub(crate) mod http;
pub(crate) mod reply;
mod signature;
pub(crate) mod verdict;

use std::time::Duration;

use smallvec::SmallVec;

use crate::tasks::BoxFuture;

/// Carries items, uplinks or events, to their backend, once. Retrying is the business of the lanes.
pub(crate) trait Forward<I>: Send + Sync {
    /// Makes one attempt, numbered from 1, to deliver items of one key in their order: one, or as many as [`batch_size`] allows.
    /// Never panics; every wait in it has a deadline.
    ///
    /// The outcomes are those of the first items. Those behind were not tried, so that none goes past one that is to be tried again.
    fn attempt<'a>(&'a self, items: &'a [I], number: u32) -> BoxFuture<'a, Outcomes>;

    /// Makes one attempt after the other, until there is none to make. A forwarder whose attempts are many and short makes them
    /// without a box for each.
    fn work<'a>(&'a self, attempts: &'a mut dyn Attempts<I>) -> BoxFuture<'a, ()>
    where
        I: Sync + 'static,
    {
        one_by_one(self, attempts)
    }

    /// The headers of that attempt for someone to read; values that may be secret are `***`.
    fn headers(&self, item: &I, number: u32) -> Vec<(String, String)>;
}

/// The attempts that one worker makes.
pub(crate) trait Attempts<I>: Send {
    /// What the attempt is to deliver, and its number.
    fn current(&self) -> (&[I], u32);

    /// It came to this. Whether there is another one to make.
    fn next(&mut self, outcomes: &[Outcome]) -> bool;
}

/// Makes attempts with a box for each.
fn one_by_one<'a, I: Sync + 'static>(
    forward: &'a (impl Forward<I> + ?Sized),
    attempts: &'a mut dyn Attempts<I>,
) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        loop {
            let (items, number) = attempts.current();
            let outcomes = forward.attempt(items, number).await;
            if !attempts.next(&outcomes) {
                return;
            }
        }
    })
}

/// What one attempt came to, before anyone judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The backend answered with this status (after redirects were followed).
    Answered {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// A redirect that is not followed: 301, 302, 303, a sixth one, or one that leads nowhere.
    Redirected { status: u16 },
    /// No answer: connect, TLS, DNS, time-out, or a broken connection. One line for the log, with its cause.
    Failed { error: String },
    /// There was no attempt: the names of the device cannot stand in the URL of the destination.
    Unaddressable,
    /// There was no attempt: the route of the message is no more.
    Unrouted,
}

/// What an attempt came to for each of its items, in their order.
pub(crate) type Outcomes = SmallVec<[Outcome; 1]>;

/// Messages in one POST at most, when so many are in the first attempt to deliver them: each further attempt halves it, so that a
/// message that makes its batches fail comes to be on its own.
pub(crate) fn batch_size(most: usize, attempt: u32) -> usize {
    let halvings = attempt.saturating_sub(1).min(usize::BITS - 1);
    (most >> halvings).max(1)
}

impl Outcome {
    /// The status of the answer, if there was one.
    pub(crate) fn status(&self) -> Option<u16> {
        match *self {
            Self::Answered { status, .. } | Self::Redirected { status } => Some(status),
            Self::Failed { .. } | Self::Unaddressable | Self::Unrouted => None,
        }
    }

    /// Whether the backend works, and did not want what was in the POST: a part of it may be welcome.
    fn is_about_a_message(&self) -> bool {
        let Self::Answered { status, .. } = self else {
            return false;
        };
        matches!(status, 400..=499 | 501 | 505) && !matches!(status, 408 | 425 | 429)
    }

    /// Whether it is an answer that a message gets again when others have been delivered meanwhile: a deploy says so to everyone.
    fn may_be_about_all(&self) -> bool {
        matches!(self.status(), Some(401 | 403 | 404 | 407))
    }

    /// Whether nothing is left to do for the message: the backend has it, or it is given up whatever else happens.
    fn is_settled(&self) -> bool {
        match *self {
            Self::Answered { status, .. } => match status {
                401 | 403 | 404 | 407 | 408 | 425 | 429 => false,
                _ => matches!(status, 200..=299 | 400..=499 | 501 | 505),
            },
            Self::Redirected { .. } | Self::Failed { .. } => false,
            Self::Unaddressable | Self::Unrouted => true,
        }
    }

    /// Whether the backend has it.
    pub(crate) fn is_delivered(&self) -> bool {
        matches!(
            self,
            Self::Answered {
                status: 200..=299,
                ..
            }
        )
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answered { status, .. } => write!(f, "Request failed with status code {status}"),
            Self::Redirected { status } => {
                write!(f, "a redirect with status code {status} is not followed")
            }
            Self::Failed { error } => f.write_str(error),
            Self::Unaddressable => {
                f.write_str("the URL of the remote has a part that this message has no value for, or none that fits")
            }
            Self::Unrouted => f.write_str("the route of this message is no more"),
        }
    }
}

/// Payload that a batch does not wait beyond, in bytes.
pub(crate) const MOST_BATCH_BYTES: usize = 1 << 20;
