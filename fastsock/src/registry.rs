//! Who is connected here: client id to seat, and takeover.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, SystemTime},
};

use ahash::{HashMap, RandomState};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::{
    auth::{Admitted, Grant},
    broker::{Deliver, LinkChange, Seated},
    config::{Config, DownlinkBinary, DuplicatePolicy, Full},
    losses::{Loss, LossLines, Losses},
    maps::trim,
    outbox::{Cut, Outbox, OutboxLimits, Put},
    remote_addr::RemoteAddr,
    stats::{DownlinkBooks, DownlinkLost},
    status::Status,
    surplus::Surpluses,
    types::{Client, ClientId, CloseReason, Payload, SessionId, unix_ms},
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

/// What outboxes may hold, each and together.
struct Bounds {
    outbox: OutboxLimits,
    surpluses: Mutex<Surpluses>,
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

/// A client's place here: one session's identity, its outbox, and the word that ends it.
pub(crate) struct Seat {
    pub(crate) client_id: ClientId,
    pub(crate) session_id: SessionId,
    pub(crate) remote_addr: RemoteAddr,
    connected_at: SystemTime,
    seen_ms: AtomicU64,
    told: Mutex<Told>,
    fight: Fight,
    /// What it was let in on; boxed, since most sessions need no more than their name.
    grant: Option<Box<Grant>>,
    bounds: Arc<Bounds>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    outbox: Outbox,
    /// What it has lost, once it has lost something.
    losses: Option<Box<Losses>>,
    close: Option<CloseReason>,
    /// Wakes the session's task: a downlink, the word to close, or something to look after.
    waker: Option<Waker>,
}

/// What a session's task finds in its seat.
pub(crate) struct Heard {
    /// Why it is to close.
    pub(crate) close: Option<CloseReason>,
    pub(crate) has_downlinks: bool,
    /// Whether [`Seat::look_after`] has something to do, now or later.
    pub(crate) needs_care: bool,
}

/// What the world was told of a session.
pub(crate) enum Told {
    /// Nothing yet. It must hear first that the session before this one has left.
    Nothing(Option<Arc<Seat>>),
    /// That it came.
    Came,
    /// That it left; or nothing, if it left before anyone was told that it came.
    Left,
}

impl Told {
    /// The session that the world must hear of first, if there is one.
    fn take_before(&mut self) -> Option<Arc<Seat>> {
        match self {
            Self::Nothing(before) => before.take(),
            Self::Came | Self::Left => None,
        }
    }
}

/// Sessions that nobody was told of hold each other: they go one after the other, as the stack is not as deep as such a
/// chain may be long.
impl Drop for Seat {
    fn drop(&mut self) {
        let mut before = self.told.get_mut().take_before();
        while let Some(mut seat) = before.and_then(Arc::into_inner) {
            before = seat.told.get_mut().take_before();
        }
    }
}

/// How often an id changed hands lately.
#[derive(Clone, Copy)]
struct Fight {
    since: Instant,
    takeovers: u32,
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
            bounds: Arc::new(Bounds {
                outbox: OutboxLimits {
                    bytes: config.outbox_bytes,
                    messages: config.outbox_messages,
                    when_full: config.downlink_full,
                },
                surpluses: Mutex::new(Surpluses::new(config.outbox_total_bytes)),
            }),
            downlink_binary: config.downlink_binary,
            duplicates: config.duplicate_policy,
        }
    }

    /// Gives a new session its seat. A takeover is one step: the seat is swapped, the old session is told, and what its
    /// outbox held moves to the head of the new one. `session_id` is asked under the lock, so that of two sessions of an id
    /// the one seated later has the higher number.
    pub(crate) fn seat(
        &self,
        admitted: impl Into<Admitted>,
        session_id: impl FnOnce() -> SessionId,
        remote_addr: RemoteAddr,
        now: Instant,
    ) -> Seating {
        let Admitted { client_id, grant } = admitted.into();
        let mut guard = self.shard(client_id.as_str());
        let shard = &mut *guard;
        if shard.is_closed {
            return Seating::Stopping;
        }
        let old = shard.seats.get(&client_id).cloned();
        if old.is_some() && self.duplicates == DuplicatePolicy::Reject {
            return Seating::Taken;
        }
        let fight = match &old {
            Some(old) => old.fight.another(now),
            None => Fight {
                since: now,
                takeovers: 0,
            },
        };
        if fight.takeovers > TAKEOVERS_MAX {
            return Seating::TooMany;
        }
        let session_id = session_id();
        let mut inner = Inner::default();
        if let Some(old) = &old {
            let mut of_old = old.inner.lock();
            let (outbox, books) = of_old.outbox.hand_over();
            shard.retired += books;
            of_old.end(CloseReason::Replaced);
            drop(of_old);
            let surplus = outbox.surplus_bytes();
            if surplus > 0 {
                let mut all = self.bounds.surpluses.lock();
                all.resize(&client_id, old.session_id, surplus, 0);
                all.resize(&client_id, session_id, 0, surplus);
            }
            inner.outbox = outbox;
        }
        let is_takeover = old.is_some();
        let before = old.or_else(|| shard.leaving.get(&client_id).cloned());
        let now = SystemTime::now();
        let seat = Arc::new(Seat {
            client_id: client_id.clone(),
            session_id,
            remote_addr,
            connected_at: now,
            seen_ms: AtomicU64::new(unix_ms(now)),
            told: Mutex::new(Told::Nothing(before)),
            fight,
            grant,
            bounds: self.bounds.clone(),
            inner: Mutex::new(inner),
        });
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
            let mut inner = seat.inner.lock();
            let books = seat.among_all(&mut inner.outbox, Outbox::close);
            shard.retired += books;
            inner.note_losses(&books.lost);
            inner.close.get_or_insert_with(|| reason.clone()); // nothing more is put into it
            drop(inner);
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
            let debtor = self.bounds.surpluses.lock().debtor();
            let Some((client_id, session_id)) = debtor else {
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
                books += seat.inner.lock().outbox.books();
            }
        }
        books.surplus_bytes = self.bounds.surpluses.lock().bytes() as u64;
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
            seen_ms: seat.seen_ms.load(Relaxed),
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

impl Seat {
    /// What the host is told of it.
    pub(crate) fn client(&self) -> Client {
        Client {
            client_id: self.client_id.clone(),
            session_id: self.session_id,
            remote_addr: self.remote_addr,
            connected_at: self.connected_at,
            last_seen: SystemTime::UNIX_EPOCH + Duration::from_millis(self.seen_ms.load(Relaxed)),
        }
    }

    /// The device said something; returns the unix milliseconds noted.
    pub(crate) fn mark_seen(&self, now: SystemTime) -> u64 {
        let ms = unix_ms(now);
        self.seen_ms.store(ms, Relaxed);
        ms
    }

    /// What it was let in on, if that can end.
    pub(crate) fn grant(&self) -> Option<&Grant> {
        self.grant.as_deref()
    }

    /// What the world was told of it. Held while telling, so that nobody tells of its successor meanwhile; who holds it may
    /// take that of a session before this one, never of a later one.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock()
    }

    /// Why it closes, once that is known.
    pub(crate) fn closing(&self) -> Option<CloseReason> {
        self.inner.lock().close.clone()
    }

    /// Tells the session to close; the first reason stays. `false` when it was told before.
    pub(crate) fn close(&self, reason: CloseReason) -> bool {
        self.inner.lock().end(reason)
    }

    /// For the session's task: wakes it from now on, and says what there is to do.
    pub(crate) fn listen(&self, waker: &Waker) -> Heard {
        let mut inner = self.inner.lock();
        if !inner
            .waker
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            inner.waker = Some(waker.clone());
        }
        Heard {
            close: inner.close.clone(),
            has_downlinks: !inner.outbox.is_empty(),
            needs_care: inner.outbox.has_surplus()
                || inner.losses.as_ref().is_some_and(|l| l.has_untold()),
        }
    }

    /// Writes from the outbox, in one step with noting what was written: a takeover comes before or after it, so no message
    /// goes into this socket and to the successor too. `write` must not block, nor call anyone who could come back here.
    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut Outbox) -> T) -> T {
        let mut inner = self.inner.lock();
        let outbox = &mut inner.outbox;
        let written = write(outbox);
        if outbox.has_surplus() {
            self.among_all(outbox, |outbox, all| {
                outbox.move_up(&self.bounds.outbox, all)
            });
        }
        written
    }

    /// Notes since when the socket has taken nothing of what waits; `None` when it takes all it is given.
    pub(crate) fn set_stalled(&self, since: Option<Instant>) {
        self.inner.lock().outbox.set_stalled(since);
    }

    /// For the session's task: acts on what time has changed. Returns what the log is to be told now, and when to come again.
    pub(crate) fn look_after(&self, now: Instant) -> (LossLines, Option<Instant>) {
        let mut inner = self.inner.lock();
        let stalls_at = match inner.outbox.has_surplus() {
            true => inner.outbox.stalls_at(),
            false => None,
        };
        if stalls_at.is_some_and(|at| now >= at) {
            self.cut_inner(&mut inner, Cut::Stalled);
        }
        let losses = inner.losses.as_mut();
        let (lines, next) = losses.map_or_else(Default::default, |losses| losses.due(now));
        let stalls_at = stalls_at.filter(|at| now < *at);
        (lines, [stalls_at, next].into_iter().flatten().min())
    }

    /// Logs all that the log was not told yet of lost downlinks: the session has ended for this reason.
    pub(crate) fn tell_last_losses(&self, cause: &CloseReason) {
        let lines = {
            let mut inner = self.inner.lock();
            let losses = inner.losses.as_mut();
            losses.map_or_else(LossLines::new, |losses| losses.rest())
        };
        self.tell_losses(lines, Some(cause));
    }

    /// Logs lost downlinks. Call it without a lock: a subscriber of the host may come back here.
    pub(crate) fn tell_losses(&self, lines: LossLines, cause: Option<&CloseReason>) {
        let policy = self.bounds.outbox.when_full;
        for Loss { reason, count } in lines {
            tracing::warn!(
                name: "downlinks_lost",
                client_id = %self.client_id, session_id = self.session_id.0, reason, count,
                policy = (reason == Losses::FULL).then(|| policy.as_str()),
                cause = (reason == Losses::SESSION_ENDED).then_some(cause).flatten().map(CloseReason::as_str),
                "Lost downlinks"
            );
        }
    }

    /// Gives the payload back when the session is told to close. Tells also whether all surpluses are too large for it.
    fn put(&self, payload: Payload) -> Result<(Put, bool), Payload> {
        let mut inner = self.inner.lock();
        if inner.close.is_some() {
            return Err(payload);
        }
        let was_empty = inner.outbox.is_empty();
        match inner.outbox.put(payload, &self.bounds.outbox) {
            Ok(Put::Queued) => {
                if was_empty && let Some(waker) = &inner.waker {
                    waker.wake_by_ref();
                }
                Ok((Put::Queued, false))
            }
            Ok(put) => {
                inner.note_own_losses();
                Ok((put, false))
            }
            Err(payload) => Ok(self.put_beyond(&mut inner, payload)),
        }
    }

    /// Puts a message for which there is no room within the bounds.
    #[cold]
    fn put_beyond(&self, inner: &mut Inner, payload: Payload) -> (Put, bool) {
        let (limits, now) = (&self.bounds.outbox, Instant::now());
        let had_surplus = inner.outbox.has_surplus();
        let (put, is_crowded) = self.among_all(&mut inner.outbox, |outbox, all| {
            let was_full = all.is_full();
            let put = outbox.put_beyond(payload, limits, self.session_id, now, all);
            (put, was_full && put == Put::Queued)
        });
        if put == Put::Full && limits.when_full == Full::Close {
            inner.end(CloseReason::SlowConsumer);
        } else if inner.outbox.has_surplus() && !had_surplus {
            inner.wake(); // it has a deadline from now on
        }
        inner.note_own_losses();
        (put, is_crowded)
    }

    /// Has it give up its surplus, or a part of it, by the policy.
    fn cut(&self, cut: Cut) {
        self.cut_inner(&mut self.inner.lock(), cut);
    }

    fn cut_inner(&self, inner: &mut Inner, cut: Cut) {
        let limits = &self.bounds.outbox;
        let has_cut = self.among_all(&mut inner.outbox, |outbox, all| {
            outbox.cut(cut, limits, all)
        });
        if has_cut && limits.when_full == Full::Close {
            inner.end(CloseReason::SlowConsumer);
        }
        inner.note_own_losses();
    }

    /// Changes the outbox and what all hold beyond their bounds, in one step.
    fn among_all<T>(
        &self,
        outbox: &mut Outbox,
        change: impl FnOnce(&mut Outbox, &mut Surpluses) -> T,
    ) -> T {
        let mut all = self.bounds.surpluses.lock();
        let before = outbox.surplus_bytes();
        let changed = change(outbox, &mut all);
        let after = outbox.surplus_bytes();
        all.resize(&self.client_id, self.session_id, before, after);
        changed
    }
}

impl Inner {
    fn end(&mut self, reason: CloseReason) -> bool {
        if self.close.is_some() {
            return false;
        }
        self.close = Some(reason);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Has the session's task tell of what the outbox has lost by now.
    fn note_own_losses(&mut self) {
        let lost = *self.outbox.lost();
        self.note_losses(&lost);
    }

    fn note_losses(&mut self, lost: &DownlinkLost) {
        if lost.total() > 0 && self.losses.get_or_insert_default().note(lost) {
            self.wake();
        }
    }
}

impl Fight {
    fn another(self, now: Instant) -> Self {
        if now.duration_since(self.since) > TAKEOVER_SPAN {
            return Self {
                since: now,
                takeovers: 1,
            };
        }
        Self {
            since: self.since,
            takeovers: self.takeovers + 1,
        }
    }
}

const SHARDS: usize = 16;
/// Seats of a shard that there is always room for.
const SHARD_ROOM: usize = 32;
const TAKEOVERS_MAX: u32 = 100;
const TAKEOVER_SPAN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(old.inner.lock().close, Some(CloseReason::Replaced));
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
        assert_eq!(slow.inner.lock().close, Some(CloseReason::SlowConsumer));
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
                // So late that it is no fight.
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
    fn a_fight_over_an_id_ends() {
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
        assert_eq!(first.inner.lock().close, Some(CloseReason::Shutdown));
        assert!(matches!(seat(&registry, 2), Seating::Stopping));
    }
}
