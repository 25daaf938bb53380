//! The two links of the broker: what each is for, which are up, and what there is to tell when that changes. No I/O.

use std::time::{Duration, SystemTime};

use crate::broker::LinkChange;

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Publishes and writes.
    Cmd,
    /// Subscribes, and nothing else: what it is pushed is not held up behind answers.
    Sub,
}

impl Kind {
    pub(super) fn response_timeout(self) -> Duration {
        match self {
            Self::Cmd => Duration::from_secs(2),
            Self::Sub => Duration::from_secs(5),
        }
    }

    pub(super) fn log_connected(self) {
        match self {
            Self::Cmd => tracing::info!(name: "redis_connected", "Connected to Redis as publisher"),
            Self::Sub => {
                tracing::info!(name: "redis_connected", "Connected to Redis as subscriber");
            }
        }
    }
}

/// Which links are up, and what there is to tell when that changes. No I/O.
#[derive(Debug)]
pub(super) struct Links {
    is_up: [bool; 2],
    /// The last moment the sub link was known to deliver, while it is lost.
    gap_from: Option<SystemTime>,
    /// Whether `Down` is what was told last.
    told_down: bool,
    /// Whether Redis refuses nothing that devices rely on.
    is_whole: bool,
    /// Which could not be had when that was tried last.
    has_failed: [bool; 2],
}

impl Links {
    pub(super) fn new() -> Self {
        Self {
            is_up: [false; 2],
            gap_from: None,
            told_down: false,
            is_whole: true,
            has_failed: [false; 2],
        }
    }

    /// Whether a link could not be had when that was tried last. At the start nothing is known yet.
    pub(super) fn has_failed(&self, kind: Kind) -> bool {
        self.has_failed[kind as usize]
    }

    pub(super) fn is_up(&self, kind: Kind) -> bool {
        self.is_up[kind as usize]
    }

    pub(super) fn are_up(&self) -> bool {
        self.is_up == [true; 2] && self.is_whole
    }

    /// A link works. Returns what to tell, in order.
    pub(super) fn up(&mut self, kind: Kind, now: SystemTime) -> Vec<LinkChange> {
        self.is_up[kind as usize] = true;
        self.has_failed[kind as usize] = false;
        let mut tell = Vec::new();
        if kind == Kind::Sub
            && let Some(from) = self.gap_from.take()
        {
            tell.push(LinkChange::Gap { from, to: now });
        }
        if self.are_up() {
            self.told_down = false;
            tell.push(LinkChange::Up);
        }
        tell
    }

    /// Redis refuses something that devices rely on, or nothing any more. Returns what to tell.
    pub(super) fn whole(&mut self, is_whole: bool) -> Option<LinkChange> {
        self.is_whole = is_whole;
        if !is_whole {
            let tell = !std::mem::replace(&mut self.told_down, true);
            return tell.then_some(LinkChange::Down);
        }
        let tell = self.are_up() && std::mem::take(&mut self.told_down);
        tell.then_some(LinkChange::Up)
    }

    /// A link does not work, or still does not. Returns whether it did, and what to tell. One that cannot be had at the start
    /// makes a gap as well: devices are there already, and others may reach Redis.
    pub(super) fn down(&mut self, kind: Kind, last_good: SystemTime) -> (bool, Option<LinkChange>) {
        let was_up = std::mem::take(&mut self.is_up[kind as usize]);
        self.has_failed[kind as usize] = true;
        if kind == Kind::Sub {
            self.gap_from.get_or_insert(last_good);
        }
        let tell = !std::mem::replace(&mut self.told_down, true);
        (was_up, tell.then_some(LinkChange::Down))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn up_is_told_when_both_are_and_down_once() {
        let mut links = Links::new();
        assert_eq!(
            links.down(Kind::Cmd, at(0)),
            (false, Some(LinkChange::Down))
        );
        assert_eq!(links.down(Kind::Cmd, at(0)), (false, None));
        assert_eq!(links.up(Kind::Cmd, at(1)), []);
        assert_eq!(links.up(Kind::Sub, at(1)), [LinkChange::Up]);
        assert_eq!(links.down(Kind::Cmd, at(2)), (true, Some(LinkChange::Down)));
        assert_eq!(links.up(Kind::Cmd, at(3)), [LinkChange::Up]);
    }

    #[test]
    fn a_refusal_is_down_as_well_and_makes_no_gap() {
        let mut links = Links::new();
        links.up(Kind::Cmd, at(1));
        assert_eq!(links.whole(false), Some(LinkChange::Down));
        assert_eq!(links.whole(false), None);
        assert_eq!(links.up(Kind::Sub, at(1)), []);
        assert!(!links.are_up());
        assert_eq!(links.whole(true), Some(LinkChange::Up));
        assert_eq!(links.whole(true), None);
        links.whole(false);
        links.down(Kind::Sub, at(2));
        assert_eq!(links.whole(true), None, "a link is still away");
        let gap = LinkChange::Gap {
            from: at(2),
            to: at(3),
        };
        assert_eq!(links.up(Kind::Sub, at(3)), [gap, LinkChange::Up]);
    }

    #[test]
    fn a_gap_is_the_time_the_sub_link_was_away() {
        let mut links = Links::new();
        links.up(Kind::Cmd, at(1));
        links.up(Kind::Sub, at(1));
        links.down(Kind::Sub, at(5));
        links.down(Kind::Cmd, at(6));
        assert_eq!(links.down(Kind::Sub, at(7)), (false, None), "still away");
        let gap = LinkChange::Gap {
            from: at(5),
            to: at(9),
        };
        assert_eq!(links.up(Kind::Sub, at(9)), [gap]);
        assert_eq!(links.up(Kind::Cmd, at(10)), [LinkChange::Up]);
        assert!(links.are_up());
    }

    #[test]
    fn a_sub_link_that_is_late_at_the_start_is_a_gap_since_the_start() {
        let mut links = Links::new();
        links.down(Kind::Sub, at(0));
        links.down(Kind::Sub, at(0));
        let gap = LinkChange::Gap {
            from: at(0),
            to: at(9),
        };
        assert_eq!(links.up(Kind::Sub, at(9)), [gap]);
        let mut prompt = Links::new();
        prompt.down(Kind::Cmd, at(0));
        assert_eq!(prompt.up(Kind::Sub, at(1)), []);
    }
}
