//! Who is connected here: client id to seat, and takeover.

pub(crate) mod downlinks;
pub(crate) mod seat;

use std::sync::Arc;

use ahash::{HashMap, RandomState};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::{
    auth::{Grant, Principal},
    broker::{Deliver, LinkChange, Seated},
    config::{Config, DownlinkBinary, DuplicatePolicy},
    maps::trim,
    pure::outbox::{Cut, Outbox, Put},
    registry::seat::{Bounds, Seat, Takeovers},
    remote_addr::RemoteAddr,
    stats::DownlinkBooks,
    status::Status,
    types::{ClientId, CloseReason, Payload, SessionId},
};

/// Client id to seat, in shards so that one device's traffic seldom waits for another's.
pub(crate) struct Registry {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    status: Arc<Status>,
    bounds: Arc<Bounds>,
    downlink_binary: DownlinkBinary,
    duplicates: DuplicatePolicy,
}

#[derive(Default)]
struct Shard {
    seats: HashMap<ClientId, Arc<Seat>>,
    /// Sessions that have left their seat while the world is still being told.
    leaving: HashMap<ClientId, Arc<Seat>>,
    /// The books of sessions that have left.
    retired: DownlinkBooks,
    is_closed: bool,
}

/// What came of asking for a seat.
pub(crate) enum Seating {
    /// Seated, and whether a session that was there before was told to close as replaced.
    Seated(Arc<Seat>, bool),
    /// The policy is `reject` and the id is taken.
    Taken,
    /// The id changed hands more than 100 times in 10 s.
    TooMany,
    /// The bridge stops.
    Stopping,
}

impl Registry {
    pub(crate) fn new(config: &Config, status: Arc<Status>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            status,
            bounds: Arc::new(Bounds::new(config)),
            downlink_binary: config.downlink_binary,
            duplicates: config.duplicate_policy,
        }
    }

    /// Gives a new session its seat. A takeover is one step: the seat is swapped, the old session is told, and what its
    /// outbox held moves to the head of the new one. `session_id` is asked under the lock, so that of two sessions of an id
    /// the one seated later has the higher number.
    pub(crate) fn seat(
        &self,
        principal: impl Into<Principal>,
        session_id: impl FnOnce() -> SessionId,
        remote_addr: RemoteAddr,
        now: Instant,
    ) -> Seating {
        let Principal { client_id, grant } = principal.into();
        let mut guard = self.shard(client_id.as_str());
        let shard = &mut *guard;
        if shard.is_closed {
            return Seating::Stopping;
        }
        let old = shard.seats.get(&client_id).cloned();
        if old.is_some() && self.duplicates == DuplicatePolicy::Reject {
            return Seating::Taken;
        }
        let takeovers = match &old {
            Some(old) => old.another_takeover(now),
            None => Takeovers::new(now),
        };
        if takeovers.count > TAKEOVERS_MAX {
            return Seating::TooMany;
        }
        let session_id = session_id();
        let mut outbox = Outbox::default();
        if let Some(old) = &old {
            let (held, books) = old.hand_over(session_id);
            shard.retired += books;
            outbox = held;
        }
        let is_takeover = old.is_some();
        let before = old.or_else(|| shard.leaving.get(&client_id).cloned());
        let seat = Arc::new(Seat::new(
            Principal {
                client_id: client_id.clone(),
                grant,
            },
            session_id,
            remote_addr,
            before,
            takeovers,
            self.bounds.clone(),
            outbox,
        ));
        shard.seats.insert(client_id, seat.clone());
        Seating::Seated(seat, is_takeover)
    }

    /// Empties a seat if it is still this session's; what its outbox holds is lost. `false` when it was taken over.
    /// [`Registry::forget`] comes after it.
    pub(crate) fn unseat(&self, seat: &Seat, reason: &CloseReason) -> bool {
        let mut shard = self.shard(seat.client_id.as_str());
        let is_current = shard
            .seats
            .get(&seat.client_id)
            .is_some_and(|current| current.session_id == seat.session_id);
        if is_current {
            shard.retired += seat.empty(reason);
            if let Some((client_id, seat)) = shard.seats.remove_entry(&seat.client_id) {
                shard.leaving.insert(client_id, seat);
                trim(&mut shard.seats, SHARD_ROOM);
            }
        }
        is_current
    }

    /// The world knows that a session has left.
    pub(crate) fn forget(&self, seat: &Seat) {
        let mut shard = self.shard(seat.client_id.as_str());
        let is_meant = shard
            .leaving
            .get(&seat.client_id)
            .is_some_and(|leaving| leaving.session_id == seat.session_id);
        if is_meant {
            shard.leaving.remove(&seat.client_id);
            trim(&mut shard.leaving, SHARD_ROOM);
        }
    }

    /// Puts a message into the outbox of a device. `None` when it is not seated here, or about to leave.
    pub(crate) fn put(&self, client_id: &str, payload: Payload) -> Option<Put> {
        self.put_with(client_id, || payload)
    }

    /// The same for a payload that is only made when someone is there to take it.
    fn put_with(&self, client_id: &str, payload: impl FnOnce() -> Payload) -> Option<Put> {
        let mut seat = self.find(client_id)?;
        let mut payload = payload();
        loop {
            payload = match seat.put(payload) {
                Ok((put, is_crowded)) => {
                    if is_crowded {
                        self.relieve();
                    }
                    return Some(put);
                }
                Err(payload) => payload,
            };
            // Closed since it was found: perhaps by a takeover, whose session is there to take the message.
            let current = self.find(client_id)?;
            if current.session_id == seat.session_id {
                return None;
            }
            seat = current;
        }
    }

    /// All surpluses together are too large: those who hold the most lose by the policy, until they no longer are.
    #[cold]
    fn relieve(&self) {
        loop {
            let Some((client_id, session_id)) = self.bounds.debtor() else {
                return;
            };
            match self.find(client_id.as_str()) {
                Some(seat) if seat.session_id == session_id => seat.cut(Cut::Crowded),
                Some(_) => {}   // taken over since; the successor is the debtor now
                None => return, // it is leaving, and takes its surplus along
            }
        }
    }

    /// Tells the session of an id to close. `false` when it is not seated here.
    pub(crate) fn close(
        &self,
        client_id: &str,
        session_id: Option<SessionId>,
        reason: CloseReason,
    ) -> bool {
        let Some(seat) = self.find(client_id) else {
            return false;
        };
        let is_meant = session_id.is_none_or(|id| id == seat.session_id);
        is_meant && seat.close(reason)
    }

    /// Tells every session to close that what it was let in on does not hold for any more.
    pub(crate) fn close_unless(&self, holds: impl Fn(&ClientId, &Grant) -> bool) {
        for seat in self.seats() {
            if seat
                .grant()
                .is_some_and(|grant| !holds(&seat.client_id, grant))
            {
                seat.close(CloseReason::Forbidden);
            }
        }
    }

    /// Tells all sessions to close and seats nobody any more.
    pub(crate) fn close_all(&self, reason: &CloseReason) {
        for shard in &self.shards {
            let seats: Vec<_> = {
                let mut shard = shard.lock();
                shard.is_closed = true;
                shard.seats.values().cloned().collect()
            };
            for seat in seats {
                seat.close(reason.clone());
            }
        }
    }

    /// The seat of an id.
    pub(crate) fn find(&self, client_id: &str) -> Option<Arc<Seat>> {
        self.shard(client_id).seats.get(client_id).cloned()
    }

    /// All seats, in no order.
    pub(crate) fn seats(&self) -> Vec<Arc<Seat>> {
        let mut seats = Vec::new();
        for shard in &self.shards {
            seats.extend(shard.lock().seats.values().cloned());
        }
        seats
    }

    /// How many are seated.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().seats.len())
            .sum()
    }

    /// The downlink books. Within a shard nothing moves while they are read.
    pub(crate) fn books(&self) -> DownlinkBooks {
        let mut books = DownlinkBooks::default();
        for shard in &self.shards {
            let shard = shard.lock();
            books += shard.retired;
            for seat in shard.seats.values() {
                books += seat.books();
            }
        }
        books.surplus_bytes = self.bounds.surplus_bytes();
        books
    }

    fn shard(&self, client_id: &str) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(client_id) as usize % self.shards.len();
        self.shards[index].lock()
    }
}

impl Deliver for Registry {
    fn deliver(&self, client_id: &str, payload: Bytes) -> bool {
        let payload = || match self.downlink_binary {
            DownlinkBinary::Text => Payload::text_lossy(payload),
            DownlinkBinary::Auto => Payload::text_or_binary(payload),
        };
        self.put_with(client_id, payload).is_some()
    }

    fn is_seated(&self, client_id: &str) -> bool {
        self.shard(client_id).seats.contains_key(client_id)
    }

    fn everyone(&self) -> Vec<Seated> {
        let seated = |seat: Arc<Seat>| Seated {
            client_id: seat.client_id.clone(),
            session_id: seat.session_id,
            seen_ms: seat.seen_ms(),
        };
        self.seats().into_iter().map(seated).collect()
    }

    fn replaced_elsewhere(&self, client_id: &str, session_id: SessionId) {
        self.close(client_id, Some(session_id), CloseReason::Replaced);
    }

    fn link_changed(&self, change: LinkChange) {
        self.status.link_changed(change);
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({} seated)", self.len())
    }
}

const SHARDS: usize = 16;
/// Seats of a shard that there is always room for.
const SHARD_ROOM: usize = 32;
const TAKEOVERS_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::seat::TAKEOVER_SPAN;

    fn registry(config: Config) -> Registry {
        Registry::new(&config, Arc::new(Status::new(None, Arc::default())))
    }

    fn seat(registry: &Registry, session: u64) -> Seating {
        registry.seat(
            ClientId::new("dev").unwrap(),
            || SessionId(session),
            std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            Instant::now(),
        )
    }

    fn seated(seating: Seating) -> Arc<Seat> {
        match seating {
            Seating::Seated(seat, _) => seat,
            _ => panic!("not seated"),
        }
    }

    fn balanced(registry: &Registry) -> DownlinkBooks {
        let books = registry.books();
        assert_eq!(
            books.received,
            books.delivered + books.held + books.lost.total(),
            "{books:?}"
        );
        books
    }

    #[test]
    fn the_newest_session_wins_and_inherits_what_was_held() {
        let registry = registry(Config::default());
        let old = seated(seat(&registry, 1));
        assert!(registry.deliver("dev", "one".into()));
        let new = seated(seat(&registry, 2));
        assert_eq!(old.closing(), Some(CloseReason::Replaced));
        assert!(
            !registry.unseat(&old, &CloseReason::Lost),
            "the seat is no longer its own"
        );
        assert_eq!(balanced(&registry).held, 1);
        assert!(registry.unseat(&new, &CloseReason::Lost));
        let books = balanced(&registry);
        assert_eq!((books.received, books.lost.session_ended), (1, 1));
        assert!(!registry.deliver("dev", "two".into()));
    }

    #[test]
    fn a_full_outbox_closes_the_slow_consumer_and_takes_nothing_more() {
        let registry = registry(
            Config::default()
                .outbox_messages(1usize)
                .outbox_total_bytes(0usize),
        );
        let slow = seated(seat(&registry, 1));
        assert!(registry.deliver("dev", "1".into()));
        assert!(
            registry.deliver("dev", "2".into()),
            "received, and lost as full"
        );
        assert!(!registry.deliver("dev", "3".into()), "on its way out");
        assert_eq!(slow.closing(), Some(CloseReason::SlowConsumer));
        assert_eq!(balanced(&registry).lost.full, 1);
    }

    #[test]
    fn a_takeover_lets_no_message_fall_between_the_sessions() {
        let limits = Config::default().outbox_bytes(1usize << 30);
        let registry = registry(limits.outbox_messages(1usize << 20));
        seated(seat(&registry, 1));
        let delivered = std::thread::scope(|scope| {
            let delivering = scope.spawn(|| {
                (0..200_000)
                    .filter(|_| registry.deliver("dev", Bytes::new()))
                    .count()
            });
            for session in 2.. {
                // So late that it is counted anew.
                let now = Instant::now() + TAKEOVER_SPAN * 2 * session;
                let next = registry.seat(
                    ClientId::new("dev").unwrap(),
                    || SessionId(session.into()),
                    std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
                    now,
                );
                seated(next);
                if delivering.is_finished() {
                    break;
                }
            }
            delivering.join().unwrap()
        });
        assert_eq!(delivered, 200_000);
        assert_eq!(balanced(&registry).held, 200_000);
    }

    #[test]
    fn a_long_chain_of_takeovers_that_nobody_was_told_of_is_let_go() {
        let registry = registry(Config::default());
        for session in 1..=100_000 {
            let now = Instant::now() + TAKEOVER_SPAN * 2 * session;
            seated(registry.seat(
                ClientId::new("dev").unwrap(),
                || SessionId(session.into()),
                std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
                now,
            ));
        }
        drop(registry);
    }

    #[test]
    fn reject_keeps_the_first() {
        let registry = registry(Config::default().duplicate_policy(DuplicatePolicy::Reject));
        let _first = seated(seat(&registry, 1));
        assert!(matches!(seat(&registry, 2), Seating::Taken));
    }

    #[test]
    fn who_takes_an_id_over_again_and_again_is_told_to_stop() {
        let registry = registry(Config::default());
        for session in 1..=101 {
            assert!(
                matches!(seat(&registry, session), Seating::Seated(..)),
                "{session}"
            );
        }
        assert!(matches!(seat(&registry, 102), Seating::TooMany));
    }

    #[test]
    fn after_close_all_nobody_is_seated() {
        let registry = registry(Config::default());
        let first = seated(seat(&registry, 1));
        registry.close_all(&CloseReason::Shutdown);
        assert_eq!(first.closing(), Some(CloseReason::Shutdown));
        assert!(matches!(seat(&registry, 2), Seating::Stopping));
    }
}
