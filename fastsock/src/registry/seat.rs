//! A client's place in the registry: what its session, whoever sends to it and the world share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    auth::Grant,
    broker::TAKEOVER_SPAN,
    calls::{Busy, Waiting, WaitingCalls},
    config::{Config, Full},
    context::Context,
    handover,
    locks::{Mutex, MutexGuard},
    mailbox::Visit,
    pure::{
        kept::{EntryId, Form, Kept, PingPayload, Turn},
        losses::{Loss, LossLines, Losses},
        outbox::{Cut, Outbox, OutboxLimits, Put},
        surplus::Surpluses,
    },
    registry::signs::Signs,
    remote_addr::RemoteAddr,
    stats::{DownlinkBooks, DownlinkLost},
    types::{Client, ClientId, CloseReason, Payload, SessionId, unix_ms},
};

/// Who takes a seat.
pub(crate) struct Occupant {
    pub(crate) client_id: ClientId,
    pub(crate) grant: Option<Box<Grant>>,
    pub(crate) context: Option<Arc<Context>>,
}

impl From<ClientId> for Occupant {
    fn from(client_id: ClientId) -> Self {
        Self {
            client_id,
            grant: None,
            context: None,
        }
    }
}

/// A client's place here: one session's identity, its outbox, and the word that ends it.
pub(crate) struct Seat {
    pub(crate) client_id: ClientId,
    pub(crate) session_id: SessionId,
    pub(crate) remote_addr: RemoteAddr,
    connected_at: SystemTime,
    seen_ms: AtomicU64,
    /// 0 until its claim is answered.
    epoch: AtomicU64,
    pub(crate) signs: Signs,
    /// Which `fastsock.v?.ack` it speaks; 0: none.
    ack_version: AtomicU8,
    told: Mutex<Told>,
    takeovers: Takeovers,
    /// What it was let in on; boxed, since most sessions need no more than their name.
    grant: Option<Box<Grant>>,
    /// What else is known of it; most sessions have none.
    context: Option<Arc<Context>>,
    bounds: Arc<Bounds>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    outbox: Outbox,
    /// What its mailbox gives out, if there is one.
    kept: Option<Box<Kept>>,
    /// Calls that wait for an answer of its device.
    calls: Option<Box<WaitingCalls>>,
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
    /// They are few, and within the bounds.
    is_short: bool,
    /// Kept ones.
    pub(crate) has_kept: bool,
    /// Whether [`Seat::look_after`] has something to do, now or later.
    pub(crate) needs_care: bool,
}

impl Heard {
    /// Whether nothing speaks against more downlinks joining those that wait.
    pub(crate) fn may_gather(&self) -> bool {
        self.has_downlinks && self.is_short && !self.has_kept && self.close.is_none()
    }
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
                bytes: config.downlinks.outbox_bytes,
                messages: config.downlinks.outbox_messages,
                when_full: config.downlinks.full,
            },
            surpluses: Mutex::new(Surpluses::new(config.downlinks.outbox_total_bytes)),
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
    /// A new session's seat; the world must hear first that the one before it has left. `outbox` and `calls` are what that one held.
    pub(crate) fn new(
        Occupant {
            client_id,
            grant,
            context,
        }: Occupant,
        session_id: SessionId,
        remote_addr: RemoteAddr,
        before: Option<Arc<Self>>,
        takeovers: Takeovers,
        bounds: Arc<Bounds>,
        (outbox, calls): (Outbox, Option<Box<WaitingCalls>>),
    ) -> Self {
        let now = SystemTime::now();
        Self {
            client_id,
            session_id,
            remote_addr,
            connected_at: now,
            seen_ms: AtomicU64::new(unix_ms(now)),
            epoch: AtomicU64::new(0),
            signs: Signs::default(),
            ack_version: AtomicU8::new(0),
            told: Mutex::new(Told::Nothing(before)),
            takeovers,
            grant,
            context,
            bounds,
            inner: Mutex::new(Inner {
                outbox,
                calls,
                ..Inner::default()
            }),
        }
    }

    /// The takeovers of its id, and one more.
    pub(crate) fn another_takeover(&self, now: Instant) -> Takeovers {
        self.takeovers.another(now)
    }

    /// Tells the session that it is replaced. Returns what its outbox holds for its successor, the calls that wait for an answer, and
    /// its books.
    pub(crate) fn hand_over(
        &self,
        successor: SessionId,
    ) -> (Outbox, Option<Box<WaitingCalls>>, DownlinkBooks) {
        let mut inner = self.inner.lock();
        let (outbox, books) = inner.outbox.hand_over();
        inner.end(CloseReason::Replaced);
        let surplus = outbox.surplus_bytes();
        if surplus > 0 {
            let mut all = self.bounds.surpluses.lock();
            all.resize(&self.client_id, self.session_id, surplus, 0);
            all.resize(&self.client_id, successor, 0, surplus);
        }
        (outbox, inner.calls.take(), books)
    }

    /// Tells the session that it is replaced by one of another gateway. Returns what that is to have; none if it was told to close before.
    pub(crate) fn pass_on(&self) -> Vec<Payload> {
        let mut inner = self.inner.lock();
        if inner.close.is_some() {
            return Vec::new();
        }
        let passed = self.among_all(&mut inner.outbox, |outbox, all| {
            outbox.pass_on(PASSED_ON_BYTES, all)
        });
        inner.end(CloseReason::Replaced);
        passed
    }

    /// Takes what another gateway passed on, ahead of all else. `false` when the session is told to close.
    pub(crate) fn put_first(&self, payloads: Vec<Payload>) -> bool {
        let mut inner = self.inner.lock();
        if inner.close.is_some() {
            return false;
        }
        inner.outbox.put_first(payloads);
        inner.wake();
        true
    }

    /// Closes its outbox for good: what that holds is lost. Returns its books.
    pub(crate) fn empty(&self, reason: &CloseReason) -> DownlinkBooks {
        let mut inner = self.inner.lock();
        inner.calls = None; // nobody answers them any more
        let books = self.among_all(&mut inner.outbox, Outbox::close);
        inner.note_losses(&books.lost);
        inner.close.get_or_insert_with(|| reason.clone()); // nothing more is put into it
        books
    }

    /// Closes its outbox for good. Returns its books, what it held, and since when the first of that has waited.
    pub(crate) fn leave_over(
        &self,
        reason: &CloseReason,
    ) -> (DownlinkBooks, Vec<Payload>, Option<SystemTime>) {
        let mut inner = self.inner.lock();
        inner.calls = None; // nobody answers them any more
        let since = inner.outbox.waiting_since();
        let (books, left) = self.among_all(&mut inner.outbox, Outbox::leave_over);
        inner.close.get_or_insert_with(|| reason.clone()); // nothing more is put into it
        (books, left, since)
    }

    /// The books of its outbox.
    pub(crate) fn books(&self) -> DownlinkBooks {
        self.inner.lock().outbox.books()
    }

    /// Unix milliseconds of when its device last said something.
    pub(crate) fn seen_ms(&self) -> u64 {
        self.seen_ms.load(Relaxed)
    }

    /// Higher than that of every session of its id before, on whatever gateway.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    pub(crate) fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Relaxed);
    }

    /// What the host is told of it.
    pub(crate) fn client(&self) -> Client {
        Client {
            client_id: self.client_id.clone(),
            session_id: self.session_id,
            epoch: self.epoch(),
            remote_addr: self.remote_addr,
            connected_at: self.connected_at,
            last_seen: SystemTime::UNIX_EPOCH + Duration::from_millis(self.seen_ms()),
            context: self.context.clone(),
        }
    }

    /// The device said something; returns the unix milliseconds noted.
    pub(crate) fn mark_seen(&self, now: SystemTime) -> u64 {
        let ms = unix_ms(now);
        self.seen_ms.store(ms, Relaxed);
        ms
    }

    /// A message of the device came; returns the unix milliseconds noted.
    pub(crate) fn mark_uplink(&self, now: SystemTime) -> u64 {
        self.signs.uplink(self.age(now));
        self.mark_seen(now)
    }

    /// The socket took messages.
    pub(crate) fn mark_downlink(&self) {
        self.signs.downlink(self.age(SystemTime::now()));
    }

    /// A pong came so long after its ping.
    pub(crate) fn mark_pong(&self, round_trip: Duration) {
        self.signs.pong(self.age(SystemTime::now()), round_trip);
    }

    fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.connected_at).unwrap_or_default()
    }

    /// The session speaks `fastsock.v1.ack` or `fastsock.v2.ack`.
    pub(crate) fn note_ack(&self, version: u8) {
        self.ack_version.store(version, Relaxed);
    }

    /// The subprotocol that the session speaks, where that is known; empty: none.
    pub(crate) fn protocol(&self) -> &str {
        let told = self.context.as_ref().and_then(|c| c.subprotocol.as_deref());
        told.unwrap_or(match self.ack_version.load(Relaxed) {
            1 => "fastsock.v1.ack",
            2 => "fastsock.v2.ack",
            _ => "",
        })
    }

    /// What it was let in on, if that can end.
    pub(crate) fn grant(&self) -> Option<&Grant> {
        self.grant.as_deref()
    }

    /// What else is known of it.
    pub(crate) fn context(&self) -> Option<&Arc<Context>> {
        self.context.as_ref()
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
            is_short: inner.outbox.is_short(),
            has_kept: inner.kept.as_ref().is_some_and(|kept| kept.has_queued()),
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

    /// The session begins to take what is kept for its device.
    pub(crate) fn open_mailbox(&self, form: Form) {
        self.inner.lock().kept = Some(Box::new(Kept::new(form)));
    }

    /// Begins a visit to the mailbox. `None` when it has none open, or is told to close.
    pub(crate) fn begin_visit(&self) -> Option<Turn> {
        let mut inner = self.inner.lock();
        if inner.close.is_some() {
            return None;
        }
        let kept = inner.kept.as_mut()?;
        Some(kept.turn(self.bounds.outbox.bytes))
    }

    /// Takes what a visit has read.
    pub(crate) fn end_visit(&self, visit: Visit) {
        let mut inner = self.inner.lock();
        if let Some(kept) = &mut inner.kept {
            kept.read(visit.entries, visit.has_more, visit.is_empty);
            if kept.has_queued() {
                inner.wake();
            }
        }
    }

    /// A visit came to nothing.
    pub(crate) fn fail_visit(&self, turn: Turn) {
        if let Some(kept) = &mut self.inner.lock().kept {
            kept.give_back(turn);
        }
    }

    /// Writes from what its mailbox gave out, as [`Seat::write`].
    pub(crate) fn write_kept<T>(&self, write: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        self.inner.lock().kept.as_deref_mut().map(write)
    }

    /// What is to be done after kept messages were written, or confirmed: a ping to be sent, and whether to visit the mailbox.
    pub(crate) fn follow_up_kept(&self) -> (Option<PingPayload>, bool) {
        let mut inner = self.inner.lock();
        let kept = inner.kept.as_mut();
        kept.map_or((None, false), |kept| (kept.ask(), kept.wants_turn()))
    }

    /// A pong came. `true` when it confirms kept messages.
    pub(crate) fn pong(&self, payload: &[u8]) -> bool {
        let mut inner = self.inner.lock();
        let kept = inner.kept.as_mut();
        kept.is_some_and(|kept| kept.pong(payload))
    }

    /// The device acknowledges a kept message.
    pub(crate) fn acknowledge(&self, name: &str) -> bool {
        let mut inner = self.inner.lock();
        let kept = inner.kept.as_mut();
        kept.is_some_and(|kept| kept.acknowledge(name))
    }

    /// Whether kept messages are written that its device has not confirmed.
    pub(crate) fn has_unconfirmed(&self) -> bool {
        let inner = self.inner.lock();
        inner.kept.as_ref().is_some_and(|k| k.unconfirmed() > 0)
    }

    /// Its device has answered our close frame.
    pub(crate) fn close_answered(&self) {
        if let Some(kept) = &mut self.inner.lock().kept {
            kept.closed();
        }
    }

    /// The session has ended. Returns what is to be removed from the mailbox still.
    pub(crate) fn close_mailbox(&self) -> Vec<EntryId> {
        let kept = self.inner.lock().kept.take();
        kept.map_or_else(Vec::new, |mut kept| kept.take_confirmed())
    }

    /// Notes since when the socket has taken nothing of what waits; `None` when it takes all it is given.
    pub(crate) fn set_stalled(&self, since: Option<Instant>) {
        self.inner.lock().outbox.set_stalled(since);
    }

    /// Since when the socket has taken nothing of what waits.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.inner.lock().outbox.stalled_since()
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

    /// Takes a call that waits for an answer; gives it back when the session is told to close.
    pub(crate) fn arm(&self, waiting: Waiting, most: usize) -> Result<Result<(), Busy>, Waiting> {
        let mut inner = self.inner.lock();
        match inner.close {
            None => Ok(inner.calls.get_or_insert_default().arm(waiting, most)),
            Some(_) => Err(waiting),
        }
    }

    /// A message of its device, which may be the answer to a call.
    pub(crate) fn offer_answer(&self, payload: &Payload) {
        let mut inner = self.inner.lock();
        if let Some(calls) = &mut inner.calls {
            calls.offer(payload);
            if calls.is_empty() {
                inner.calls = None;
            }
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
                if was_empty {
                    inner.outbox.set_waiting_since(SystemTime::now());
                    inner.wake();
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
            handover::wake(waker);
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

/// What goes over to another gateway at a takeover, at most: it is one message to all of them.
const PASSED_ON_BYTES: usize = 4 << 20;

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
