//! A client's place in the registry: what its session, whoever sends to it and the world share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::{
    auth::{Grant, Principal},
    config::{Config, Full},
    pure::{
        losses::{Loss, LossLines, Losses},
        outbox::{Cut, Outbox, OutboxLimits, Put},
        surplus::Surpluses,
    },
    remote_addr::RemoteAddr,
    stats::{DownlinkBooks, DownlinkLost},
    types::{Client, ClientId, CloseReason, Payload, SessionId, unix_ms},
};

/// A client's place here: one session's identity, its outbox, and the word that ends it.
pub(crate) struct Seat {
    pub(crate) client_id: ClientId,
    pub(crate) session_id: SessionId,
    pub(crate) remote_addr: RemoteAddr,
    connected_at: SystemTime,
    seen_ms: AtomicU64,
    told: Mutex<Told>,
    takeovers: Takeovers,
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

/// What outboxes may hold, each and together.
pub(crate) struct Bounds {
    outbox: OutboxLimits,
    surpluses: Mutex<Surpluses>,
}

impl Bounds {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            outbox: OutboxLimits {
                bytes: config.outbox_bytes,
                messages: config.outbox_messages,
                when_full: config.downlink_full,
            },
            surpluses: Mutex::new(Surpluses::new(config.outbox_total_bytes)),
        }
    }

    /// Who is to give up of its surplus, if anyone.
    pub(crate) fn debtor(&self) -> Option<(ClientId, SessionId)> {
        self.surpluses.lock().debtor()
    }

    /// Bytes of all surpluses.
    pub(crate) fn surplus_bytes(&self) -> u64 {
        self.surpluses.lock().bytes() as u64
    }
}

/// How often an id changed hands lately.
#[derive(Clone, Copy)]
pub(crate) struct Takeovers {
    since: Instant,
    pub(crate) count: u32,
}

impl Seat {
    /// A new session's seat; the world must hear first that the one before it has left. `outbox` is what that one held.
    pub(crate) fn new(
        Principal { client_id, grant }: Principal,
        session_id: SessionId,
        remote_addr: RemoteAddr,
        before: Option<Arc<Self>>,
        takeovers: Takeovers,
        bounds: Arc<Bounds>,
        outbox: Outbox,
    ) -> Self {
        let now = SystemTime::now();
        Self {
            client_id,
            session_id,
            remote_addr,
            connected_at: now,
            seen_ms: AtomicU64::new(unix_ms(now)),
            told: Mutex::new(Told::Nothing(before)),
            takeovers,
            grant,
            bounds,
            inner: Mutex::new(Inner {
                outbox,
                ..Inner::default()
            }),
        }
    }

    /// The takeovers of its id, and one more.
    pub(crate) fn another_takeover(&self, now: Instant) -> Takeovers {
        self.takeovers.another(now)
    }

    /// Tells the session that it is replaced. Returns what its outbox holds for its successor, and its books.
    pub(crate) fn hand_over(&self, successor: SessionId) -> (Outbox, DownlinkBooks) {
        let mut inner = self.inner.lock();
        let (outbox, books) = inner.outbox.hand_over();
        inner.end(CloseReason::Replaced);
        let surplus = outbox.surplus_bytes();
        if surplus > 0 {
            let mut all = self.bounds.surpluses.lock();
            all.resize(&self.client_id, self.session_id, surplus, 0);
            all.resize(&self.client_id, successor, 0, surplus);
        }
        (outbox, books)
    }

    /// Closes its outbox for good: what that holds is lost. Returns its books.
    pub(crate) fn empty(&self, reason: &CloseReason) -> DownlinkBooks {
        let mut inner = self.inner.lock();
        let books = self.among_all(&mut inner.outbox, Outbox::close);
        inner.note_losses(&books.lost);
        inner.close.get_or_insert_with(|| reason.clone()); // nothing more is put into it
        books
    }

    /// The books of its outbox.
    pub(crate) fn books(&self) -> DownlinkBooks {
        self.inner.lock().outbox.books()
    }

    /// Unix milliseconds of when its device last said something.
    pub(crate) fn seen_ms(&self) -> u64 {
        self.seen_ms.load(Relaxed)
    }

    /// What the host is told of it.
    pub(crate) fn client(&self) -> Client {
        Client {
            client_id: self.client_id.clone(),
            session_id: self.session_id,
            remote_addr: self.remote_addr,
            connected_at: self.connected_at,
            last_seen: SystemTime::UNIX_EPOCH + Duration::from_millis(self.seen_ms()),
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
    pub(crate) fn put(&self, payload: Payload) -> Result<(Put, bool), Payload> {
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
    pub(crate) fn cut(&self, cut: Cut) {
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

impl Takeovers {
    /// Nobody has taken anything over yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            count: 0,
        }
    }

    fn another(self, now: Instant) -> Self {
        if now.duration_since(self.since) > TAKEOVER_SPAN {
            return Self {
                since: now,
                count: 1,
            };
        }
        Self {
            since: self.since,
            count: self.count + 1,
        }
    }
}

/// Takeovers that begin later are counted anew.
pub(crate) const TAKEOVER_SPAN: Duration = Duration::from_secs(10);
