//! What became of the calls that were asked of this gateway.

use std::time::Duration;

use super::CallEnd;
use crate::{
    histogram::{Durations, Histogram},
    stats::Count,
};

/// Counts calls by what they came to.
#[derive(Debug, Default)]
pub(crate) struct CallCounts {
    answered: Count,
    offline: Count,
    busy: Count,
    outbox_full: Count,
    timed_out: Count,
    disconnected: Count,
    failed: Count,
    seconds: Histogram,
}

/// What they had counted at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallFigures {
    /// Those that wait on this gateway, asked of it or of another.
    pub(crate) waiting: u64,
    pub(crate) results: [(&'static str, u64); 7],
    /// From the request to the answer.
    pub(crate) seconds: Durations,
}

impl CallCounts {
    /// A call is over.
    pub(super) fn ended<T>(&self, end: &Result<T, CallEnd>, took: Duration) {
        let count = match end {
            Ok(_) => {
                self.seconds.observe(took);
                &self.answered
            }
            Err(CallEnd::Offline) => &self.offline,
            Err(CallEnd::Busy(_)) => &self.busy,
            Err(CallEnd::OutboxFull) => &self.outbox_full,
            Err(CallEnd::TimedOut) => &self.timed_out,
            Err(CallEnd::Disconnected) => &self.disconnected,
            Err(CallEnd::NoWord | CallEnd::Stopped | CallEnd::Broker(_)) => &self.failed,
        };
        count.add(1);
    }

    pub(super) fn snapshot(&self, waiting: u64) -> CallFigures {
        CallFigures {
            waiting,
            results: [
                ("answered", self.answered.load()),
                ("offline", self.offline.load()),
                ("busy", self.busy.load()),
                ("outbox_full", self.outbox_full.load()),
                ("timed_out", self.timed_out.load()),
                ("disconnected", self.disconnected.load()),
                ("failed", self.failed.load()),
            ],
            seconds: self.seconds.snapshot(),
        }
    }
}
