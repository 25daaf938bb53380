//! What the log is told of one session's lost downlinks: of each reason the first at once, and then now and then how many there
//! were. No clock, no lock.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::stats::DownlinkLost;

/// What a session has lost, and what of it was told.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    reasons: [Tally; 3],
}

/// What was lost for one reason.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    lost: u64,
    told: u64,
    /// Until when nothing more is told of it.
    quiet_until: Option<Instant>,
}

/// One line of the log: so many downlinks were lost for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) reason: &'static str,
    pub(crate) count: u64,
}

/// At most one for each reason.
pub(crate) type LossLines = SmallVec<[Loss; 3]>;

impl Losses {
    /// The outbox was full.
    pub(crate) const FULL: &str = "full";
    /// The message was.
    const TOO_LARGE: &str = "too_large";
    /// The session ended with it in its outbox.
    pub(crate) const SESSION_ENDED: &str = "session_ended";
    /// As the statistics have them.
    const REASONS: [&str; 3] = [Self::FULL, Self::TOO_LARGE, Self::SESSION_ENDED];

    /// So many are lost by now. Tells whether the session's task is to be woken for it: it looks by itself after what it knows of.
    pub(crate) fn note(&mut self, lost: &DownlinkLost) -> bool {
        let counts = [lost.full, lost.too_large, lost.session_ended];
        let mut is_news = false;
        for (tally, lost) in self.reasons.iter_mut().zip(counts) {
            is_news |= lost > tally.lost && tally.lost == tally.told;
            tally.lost = tally.lost.max(lost);
        }
        is_news
    }

    /// Whether there is something to tell, now or later.
    pub(crate) fn has_untold(&self) -> bool {
        self.reasons.iter().any(|tally| tally.lost > tally.told)
    }

    /// What is to be told now, and when there will be more.
    pub(crate) fn due(&mut self, now: Instant) -> (LossLines, Option<Instant>) {
        let lines = self.tell(|tally| {
            let is_quiet = tally.quiet_until.is_some_and(|until| now < until);
            if !is_quiet {
                tally.quiet_until = Some(now + QUIET_TIME);
            }
            !is_quiet
        });
        let waiting = self.reasons.iter().filter(|tally| tally.lost > tally.told);
        (lines, waiting.filter_map(|tally| tally.quiet_until).min())
    }

    /// All that was not told yet, for a session that has ended.
    pub(crate) fn rest(&mut self) -> LossLines {
        self.tell(|_| true)
    }

    fn tell(&mut self, mut is_due: impl FnMut(&mut Tally) -> bool) -> LossLines {
        let mut lines = LossLines::new();
        for (tally, reason) in self.reasons.iter_mut().zip(Self::REASONS) {
            let count = tally.lost - tally.told;
            if count > 0 && is_due(tally) {
                tally.told = tally.lost;
                lines.push(Loss { reason, count });
            }
        }
        lines
    }
}

/// How long nothing more is told of a reason.
const QUIET_TIME: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(full: u64, too_large: u64, session_ended: u64) -> DownlinkLost {
        DownlinkLost {
            full,
            too_large,
            session_ended,
        }
    }

    fn lines(lines: &LossLines) -> Vec<(&'static str, u64)> {
        lines.iter().map(|loss| (loss.reason, loss.count)).collect()
    }

    #[test]
    fn the_first_is_told_at_once_then_their_number_now_and_then_and_the_rest_at_the_end() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        assert!(losses.note(&lost(1, 0, 0)), "the task is woken");
        let (told, next) = losses.due(at(0));
        assert_eq!((lines(&told), next), (vec![("full", 1)], None));

        assert!(losses.note(&lost(2, 0, 0)));
        let (told, next) = losses.due(at(1));
        assert_eq!((lines(&told), next), (vec![], Some(at(10))));
        assert!(!losses.note(&lost(500, 0, 0)), "it knows");
        let (told, next) = losses.due(at(10));
        assert_eq!((lines(&told), next), (vec![("full", 499)], None));

        assert!(losses.note(&lost(501, 0, 0)));
        losses.note(&lost(501, 2, 7));
        assert_eq!(
            lines(&losses.rest()),
            [("full", 1), ("too_large", 2), ("session_ended", 7)]
        );
        assert!(losses.rest().is_empty());
        assert!(!losses.note(&lost(501, 2, 7)), "nothing new");
    }

    #[test]
    fn it_is_quiet_of_each_reason_for_itself() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        losses.note(&lost(1, 0, 0));
        losses.due(start);
        losses.note(&lost(2, 0, 0));
        assert!(losses.note(&lost(2, 1, 0)), "of this one it does not know");
        let (told, next) = losses.due(start + Duration::from_secs(1));
        assert_eq!(lines(&told), [("too_large", 1)]);
        assert_eq!(next, Some(start + QUIET_TIME));
    }
}
