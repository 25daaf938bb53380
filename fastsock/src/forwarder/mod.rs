//! The port to what carries an uplink to the backend, and what an attempt can come to.

mod batch;
pub(crate) mod breaker;
pub(crate) mod destination;
pub(crate) mod http;
pub(crate) mod outcome;
pub(crate) mod reply;
mod signature;

use std::time::Duration;

use crate::{tasks::BoxFuture, types::Uplink};

/// Carries one uplink to the backend, once. Retrying is the business of the lanes.
pub(crate) trait Forward: Send + Sync {
    /// Makes one attempt, numbered from 1. Never panics; every wait in it has a deadline.
    fn attempt<'a>(&'a self, uplink: &'a Uplink, number: u32) -> BoxFuture<'a, Attempt>;

    /// The headers of that attempt for someone to read; values that may be secret are `***`.
    fn headers(&self, uplink: &Uplink, number: u32) -> Vec<(String, String)>;
}

/// What is carried. A second set of lanes carries the events of `lifecycle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cargo {
    /// What devices say; a body is made of it.
    Uplinks,
    /// Bodies that are ready.
    Events,
}

/// What one attempt came to, before anyone judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The backend answered with this status (after redirects were followed).
    Answered {
        status: u16,
        retry_after: Option<Duration>,
    },
    /// A redirect that is not followed: 301, 302, 303, a sixth one, or one that leads nowhere.
    Redirected { status: u16 },
    /// No answer: connect, TLS, DNS, time-out, or a broken connection. One line for the log, with its cause.
    Failed { error: String },
}

impl Attempt {
    /// The status of the answer, if there was one.
    pub(crate) fn status(&self) -> Option<u16> {
        match *self {
            Self::Answered { status, .. } | Self::Redirected { status } => Some(status),
            Self::Failed { .. } => None,
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

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answered { status, .. } => write!(f, "Request failed with status code {status}"),
            Self::Redirected { status } => {
                write!(f, "a redirect with status code {status} is not followed")
            }
            Self::Failed { error } => f.write_str(error),
        }
    }
}
