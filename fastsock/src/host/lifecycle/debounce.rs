//! Who the backend takes for connected, and until when the news that one of them has left is held back.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    context::Context,
    remote_addr::RemoteAddr,
    types::{ClientId, CloseReason, SessionId},
};

/// Who the backend takes for connected, and until when the news that one of them has left is held back. No I/O.
#[derive(Default)]
pub(super) struct Debounce {
    pub(super) known: HashMap<ClientId, Known>,
    /// Those away, by the end of their grace.
    pub(super) away: BTreeSet<(Instant, ClientId)>,
}

/// A device that the backend takes for connected.
pub(super) struct Known {
    pub(super) stay: Stay,
    /// When it came.
    pub(super) since: SystemTime,
    /// How many it has had since then.
    pub(super) sessions: u64,
    pub(super) away: Option<Away>,
}

/// Its latest session.
#[derive(Clone)]
pub(super) struct Stay {
    pub(super) session_id: SessionId,
    pub(super) remote_addr: RemoteAddr,
    /// When it took its seat, by the clock all gateways share.
    pub(super) epoch: u64,
    /// The name of its route, unless it is the default one.
    pub(super) route: Option<Arc<str>>,
    /// What else is known of it, if events are to tell that.
    pub(super) context: Option<Arc<Context>>,
}

/// How that has ended.
pub(super) struct Away {
    pub(super) until: Instant,
    pub(super) reason: CloseReason,
    pub(super) since: SystemTime,
}

impl Debounce {
    /// A session began. `true` when that is news.
    pub(super) fn came(&mut self, client_id: &ClientId, stay: Stay, now: SystemTime) -> bool {
        if let Some(known) = self.known.get_mut(client_id) {
            if let Some(away) = known.away.take() {
                self.away.remove(&(away.until, client_id.clone()));
            }
            known.stay = stay;
            known.sessions += 1;
            return false;
        }
        let known = Known {
            stay,
            since: now,
            sessions: 1,
            away: None,
        };
        self.known.insert(client_id.clone(), known);
        true
    }

    /// That it is here again is news.
    pub(super) fn begin_anew(&mut self, client_id: &ClientId) {
        let known = self.known.remove(client_id);
        if let Some(away) = known.and_then(|known| known.away) {
            self.away.remove(&(away.until, client_id.clone()));
        }
    }

    /// A session ended. `false` when it is not the latest, or was told to have ended before.
    pub(super) fn left(&mut self, client_id: &ClientId, session_id: SessionId, away: Away) -> bool {
        let Some(known) = self.known.get_mut(client_id) else {
            return false;
        };
        if known.stay.session_id != session_id || known.away.is_some() {
            return false;
        }
        self.away.insert((away.until, client_id.clone()));
        known.away = Some(away);
        true
    }

    /// The one whose grace ends first, when more are away than may be.
    pub(super) fn one_too_many(&self) -> Option<ClientId> {
        let first = self.away.first().filter(|_| self.away.len() > AWAY_MAX);
        first.map(|(_, client_id)| client_id.clone())
    }

    pub(super) fn first_due(&self) -> Option<Instant> {
        self.away.first().map(|(until, _)| *until)
    }

    /// Those whose grace has ended, the first of them if they are many.
    pub(super) fn due(&self, now: Instant) -> Vec<ClientId> {
        let due = self.away.iter().take_while(|(until, _)| *until <= now);
        due.take(DUE_AT_ONCE).map(|(_, id)| id.clone()).collect()
    }

    pub(super) fn is_due(&self, client_id: &ClientId, now: Instant) -> bool {
        let away = self.known.get(client_id).and_then(|k| k.away.as_ref());
        away.is_some_and(|away| away.until <= now)
    }

    /// Lets one who is due wait until then, unless it has been away for so long. Returns whether it waits.
    pub(super) fn put_off(&mut self, client_id: &ClientId, until: Instant, most: Duration) -> bool {
        let known = self.known.get_mut(client_id);
        let Some(away) = known.and_then(|known| known.away.as_mut()) else {
            return false;
        };
        if away.since.elapsed().is_ok_and(|waited| waited >= most) {
            return false;
        }
        self.away.remove(&(away.until, client_id.clone()));
        away.until = until;
        self.away.insert((away.until, client_id.clone()));
        true
    }

    /// Everyone who is away.
    pub(super) fn all_away(&self) -> Vec<ClientId> {
        self.away.iter().map(|(_, id)| id.clone()).collect()
    }

    /// Takes out one who is away.
    pub(super) fn forget(&mut self, client_id: &ClientId) -> Option<(Known, Away)> {
        let away = self.known.get_mut(client_id)?.away.take()?;
        self.away.remove(&(away.until, client_id.clone()));
        Some((self.known.remove(client_id)?, away))
    }
}

/// Devices that may be away untold. One more, and the one whose grace ends first is told of early.
const AWAY_MAX: usize = 100_000;
/// Those whose grace ends together that the broker is asked about in one step.
pub(super) const DUE_AT_ONCE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ClientId {
        ClientId::new(text).unwrap()
    }

    fn stay(session: u64) -> Stay {
        Stay {
            session_id: SessionId(session),
            remote_addr: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            epoch: session,
            route: None,
            context: None,
        }
    }

    fn away(until: Instant) -> Away {
        Away {
            until,
            reason: CloseReason::Lost,
            since: SystemTime::now(),
        }
    }

    #[test]
    fn who_is_back_within_the_grace_was_never_away() {
        let (mut debounce, start) = (Debounce::default(), Instant::now());
        let (dev, grace) = (id("dev"), start + Duration::from_secs(5));
        let now = SystemTime::now();
        assert!(debounce.came(&dev, stay(1), now));
        assert!(debounce.left(&dev, SessionId(1), away(grace)));
        assert!(debounce.due(start).is_empty());
        assert!(!debounce.came(&dev, stay(2), now));
        assert!(debounce.due(grace).is_empty());
        assert!(!debounce.left(&dev, SessionId(1), away(grace)), "long told");
        assert!(debounce.left(&dev, SessionId(2), away(grace)));
        assert_eq!(debounce.due(grace), std::slice::from_ref(&dev));
        let (known, _) = debounce.forget(&dev).unwrap();
        assert_eq!((known.stay.session_id, known.sessions), (SessionId(2), 2));
        assert!(debounce.came(&dev, stay(3), now), "news again");
    }

    #[test]
    fn who_was_elsewhere_within_the_grace_is_news() {
        let (mut debounce, start) = (Debounce::default(), Instant::now());
        let (dev, grace) = (id("dev"), start + Duration::from_secs(5));
        let now = SystemTime::now();
        assert!(debounce.came(&dev, stay(1), now));
        assert!(debounce.left(&dev, SessionId(1), away(grace)));
        debounce.begin_anew(&dev);
        assert!(debounce.came(&dev, stay(2), now));
        assert!(debounce.due(grace).is_empty());
        debounce.begin_anew(&dev); // while it was thought to be here
        assert!(debounce.came(&dev, stay(3), now));
        assert!(debounce.left(&dev, SessionId(3), away(grace)));
    }

    #[test]
    fn who_is_put_off_is_due_later_but_not_for_ever() {
        let (mut debounce, now) = (Debounce::default(), Instant::now());
        let (dev, later) = (id("dev"), now + Duration::from_secs(1));
        debounce.came(&dev, stay(1), SystemTime::now());
        assert!(!debounce.put_off(&dev, later, Duration::MAX), "it is here");
        debounce.left(&dev, SessionId(1), away(now));
        assert!(debounce.put_off(&dev, later, Duration::MAX));
        assert!(debounce.due(now).is_empty());
        assert_eq!(debounce.due(later), std::slice::from_ref(&dev));
        assert!(
            !debounce.put_off(&dev, later, Duration::ZERO),
            "long enough"
        );
        assert!(debounce.forget(&dev).is_some());
        assert!(debounce.known.is_empty() && debounce.away.is_empty());
    }

    #[test]
    fn a_session_that_ended_is_told_once() {
        let (mut debounce, now) = (Debounce::default(), Instant::now());
        debounce.came(&id("dev"), stay(1), SystemTime::now());
        assert!(debounce.left(&id("dev"), SessionId(1), away(now)));
        assert!(!debounce.left(&id("dev"), SessionId(1), away(now)));
        assert!(debounce.forget(&id("dev")).is_some());
        assert!(debounce.forget(&id("dev")).is_none());
        assert!(!debounce.left(&id("dev"), SessionId(1), away(now)));
        assert!(debounce.known.is_empty() && debounce.away.is_empty());
    }

    #[test]
    fn nobody_who_is_here_is_due() {
        let (mut debounce, now) = (Debounce::default(), Instant::now());
        debounce.came(&id("a"), stay(1), SystemTime::now());
        debounce.came(&id("b"), stay(2), SystemTime::now());
        debounce.left(&id("b"), SessionId(2), away(now));
        assert!(debounce.forget(&id("a")).is_none());
        assert!(!debounce.is_due(&id("a"), now) && debounce.is_due(&id("b"), now));
        assert_eq!(debounce.all_away(), [id("b")]);
    }

    #[test]
    fn as_many_as_may_be_are_away_untold_and_no_more() {
        let (mut debounce, now) = (Debounce::default(), Instant::now());
        for n in 0..=AWAY_MAX {
            assert_eq!(debounce.one_too_many(), None);
            let dev = id(&n.to_string());
            debounce.came(&dev, stay(1), SystemTime::now());
            let until = now + Duration::from_millis(n as u64);
            debounce.left(&dev, SessionId(1), away(until));
        }
        assert_eq!(debounce.one_too_many(), Some(id("0")));
    }
}
