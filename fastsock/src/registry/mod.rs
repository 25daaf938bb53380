//! Who is connected here: client id to seat, and takeover.

pub(crate) mod callers;
pub(crate) mod deliveries;
pub(crate) mod downlinks;
pub(crate) mod late;
pub(crate) mod seat;
pub(crate) mod signs;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ahash::{HashMap, HashSet, RandomState};
use bytes::Bytes;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::Instant,
};

use crate::{
    auth::Grant,
    broker::{Deliver, LinkChange, Load, Seated, TAKEOVERS_MAX},
    calls::{Call, CallEnd, CallLimits, PendingCall, Waiting},
    config::{Config, DownlinkBinary, DuplicatePolicy, MailboxKind},
    groups::{Groups, NotJoined},
    locks::{Mutex, MutexGuard},
    mailbox::due::Due,
    maps::trim,
    pure::outbox::{Cut, Outbox, Put},
    registry::{
        late::Late,
        seat::{Bounds, Occupant, Seat, Takeovers},
    },
    remote_addr::RemoteAddr,
    stats::DownlinkBooks,
    status::Status,
    trace::{Traced, TracedMessage},
    types::{ClientId, CloseReason, Payload, SessionId, State},
};

/// Client id to seat, in shards so that one device's traffic seldom waits for another's.
pub(crate) struct Registry {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    status: Arc<Status>,
    bounds: Arc<Bounds>,
    downlink_binary: DownlinkBinary,
    duplicates: DuplicatePolicy,
    /// Mailboxes that there is a reason to visit.
    due: Arc<Due>,
    /// `None`: there are none.
    groups: Option<Arc<Groups>>,
    /// What is left over of devices that a stop or a drain had told to go.
    late: Mutex<Late>,
    /// Notified when a session that was told to go has left something over.
    has_left_over: Notify,
    /// Held by who sees to what was left over.
    accounting: AsyncMutex<()>,
    calls: CallLimits,
}

#[derive(Default)]
struct Shard {
    seats: HashMap<ClientId, Arc<Seat>>,
    /// Sessions that have left their seat while the world is still being told.
    leaving: HashMap<ClientId, Arc<Seat>>,
    /// The books of sessions that have left.
    retired: DownlinkBooks,
    /// Who was here when the stop began, and has left since.
    departed: HashSet<ClientId>,
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
            downlink_binary: config.downlinks.binary,
            duplicates: config.limits.duplicate_policy,
            due: Arc::default(),
            groups: config.groups.on.then(|| Arc::new(Groups::new(config))),
            late: Mutex::new(Late::new(config.mailbox.kind != MailboxKind::Off)),
            has_left_over: Notify::new(),
            accounting: AsyncMutex::default(),
            calls: CallLimits::new(config),
        }
    }

    /// Gives a new session its seat. A takeover is one step: the seat is swapped, the old session is told, and what its
    /// outbox held moves to the head of the new one. `session_id` is asked under the lock, so that of two sessions of an id
    /// the one seated later has the higher number.
    pub(crate) fn seat(
        &self,
        occupant: impl Into<Occupant>,
        session_id: impl FnOnce() -> SessionId,
        remote_addr: RemoteAddr,
        now: Instant,
    ) -> Seating {
        let occupant = occupant.into();
        let client_id = occupant.client_id.clone();
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
        let (mut outbox, mut calls) = (Outbox::default(), None);
        if let Some(old) = &old {
            let (held, waiting, books) = old.hand_over(session_id);
            shard.retired += books;
            (outbox, calls) = (held, waiting);
        }
        let is_takeover = old.is_some();
        let before = old.or_else(|| shard.leaving.get(&client_id).cloned());
        let seat = Arc::new(Seat::new(
            occupant,
            session_id,
            remote_addr,
            before,
            takeovers,
            self.bounds.clone(),
            (outbox, calls),
        ));
        if let Some(groups) = &self.groups {
            let named = seat.context().map_or(&[][..], |context| &context.groups);
            groups.seated(&client_id, session_id, named);
        }
        shard.seats.insert(client_id, seat.clone());
        Seating::Seated(seat, is_takeover)
    }

    /// Empties a seat if it is still this session's; what its outbox holds is lost, or left over if a stop or a drain told it to go. `false` when it was taken over.
    /// [`Registry::forget`] comes after it.
    pub(crate) fn unseat(&self, seat: &Seat, reason: &CloseReason) -> bool {
        let mut shard = self.shard(seat.client_id.as_str());
        let is_current = shard
            .seats
            .get(&seat.client_id)
            .is_some_and(|current| current.session_id == seat.session_id);
        if is_current {
            shard.retired += match is_told_to_go(reason) {
                true => {
                    let now = SystemTime::now();
                    let (books, left, since) = seat.leave_over(reason);
                    let since = since.filter(|since| *since < now).unwrap_or(now);
                    self.late.lock().left(&seat.client_id, left, since, now);
                    self.has_left_over.notify_one();
                    books
                }
                false => seat.empty(reason),
            };
            if let Some(groups) = &self.groups {
                groups.unseated(&seat.client_id, seat.session_id);
            }
            if let Some((client_id, seat)) = shard.seats.remove_entry(&seat.client_id) {
                if *reason == CloseReason::Shutdown {
                    shard.departed.insert(client_id.clone());
                }
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
        let tracer = &self.status.tracer;
        let traced = tracer.is_traced(client_id).then(|| payload.clone());
        loop {
            payload = match seat.put(payload) {
                Ok((put, is_crowded)) => {
                    if let Some(payload) = traced {
                        tracer.tell(client_id, |with_payload| Traced::Downlink {
                            session_id: seat.session_id.0,
                            outcome: put.as_str(),
                            message: TracedMessage::of(&payload, with_payload),
                        });
                    }
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

    /// A message came for a device that has no seat, or is about to leave it: it is noted, if this gateway has told the device to go.
    fn note_late(&self, client_id: &str, payload: impl FnOnce() -> Payload) {
        if let Some(client_id) = self.departed(client_id) {
            let payload = payload();
            self.late.lock().add(&client_id, payload, SystemTime::now());
        }
    }

    /// The device of an id, if this gateway has told it to go: it has no other yet, perhaps.
    fn departed(&self, client_id: &str) -> Option<ClientId> {
        let shard = self.shard(client_id);
        if let Some(seat) = shard.seats.get(client_id) {
            let reason = seat.closing()?;
            return is_told_to_go(&reason).then(|| seat.client_id.clone());
        }
        shard.departed.get(client_id).cloned()
    }

    /// All that is left over of devices that were told to go, since this was asked last.
    pub(crate) fn take_late(&self) -> Late {
        self.late.lock().take()
    }

    /// The same of those whose sessions have left.
    pub(crate) fn take_left_over(&self) -> Late {
        self.late.lock().take_whole()
    }

    /// To be held from taking what is left over until that is accounted for.
    pub(crate) fn accounting(&self) -> &AsyncMutex<()> {
        &self.accounting
    }

    /// Resolves when a session that was told to go has left.
    pub(crate) async fn left_over(&self) {
        self.has_left_over.notified().await;
    }

    /// How many calls may wait.
    pub(crate) fn calls(&self) -> &CallLimits {
        &self.calls
    }

    /// Has the seat of a device wait for the answer to a call.
    fn arm(&self, client_id: &str, mut waiting: Waiting) -> Result<(), CallEnd> {
        let mut seat = self.find(client_id).ok_or(CallEnd::Offline)?;
        loop {
            waiting = match seat.arm(waiting, self.calls.per_device()) {
                Ok(armed) => return armed.map_err(CallEnd::Busy),
                Err(waiting) => waiting,
            };
            // Closed since it was found, as in `put_with`.
            let current = self.find(client_id).ok_or(CallEnd::Offline)?;
            if current.session_id == seat.session_id {
                return Err(CallEnd::Offline);
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

    /// Seats nobody any more; who has a seat keeps it.
    pub(crate) fn close_entry(&self) {
        for shard in &self.shards {
            shard.lock().is_closed = true;
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

    /// The mailboxes that there is a reason to visit.
    pub(crate) fn due(&self) -> &Arc<Due> {
        &self.due
    }

    /// Who is in which group; `None` when there are none.
    pub(crate) fn groups(&self) -> Option<&Arc<Groups>> {
        self.groups.as_ref()
    }

    /// Puts a device into a group, or takes it out. Returns whether that changed something; `None` when it is not seated here.
    pub(crate) fn change_group(
        &self,
        client_id: &ClientId,
        name: &str,
        joins: bool,
    ) -> Option<Result<bool, NotJoined>> {
        let groups = self.groups.as_ref()?;
        let shard = self.shard(client_id.as_str());
        let seat = shard.seats.get(client_id)?;
        Some(match joins {
            true => groups.join(client_id, seat.session_id, name),
            false => Ok(groups.leave(client_id, name)),
        })
    }

    /// The same for a session, by the word of its device.
    pub(crate) fn join_itself(&self, seat: &Seat, name: &str) -> Result<bool, NotJoined> {
        let groups = self.groups.as_ref().ok_or(NotJoined::NotAllowed)?;
        let shard = self.shard(seat.client_id.as_str());
        match shard.seats.get(&seat.client_id) {
            Some(current) if current.session_id == seat.session_id => {
                groups.join_itself(&seat.client_id, seat.session_id, name)
            }
            _ => Err(NotJoined::NotAllowed), // it is on its way out
        }
    }

    /// Puts a message into the outboxes of all who are in a group here. Returns how many took it.
    pub(crate) fn put_to_group(&self, name: &str, payload: &Payload) -> u64 {
        let members = self.groups.as_ref().map(|groups| groups.members(name));
        let payload = payload.clone().for_many();
        let put = |id: &ClientId| self.put_or_note(id, &payload);
        let taken = members.iter().flatten().filter(|id| put(id)).count() as u64;
        if members.is_some_and(|members| !members.is_empty()) {
            self.status.running.group_messages.add(1);
            self.status.running.group_downlinks.add(taken);
        }
        taken
    }

    /// The same for everyone here.
    pub(crate) fn put_to_all(&self, payload: &Payload) -> u64 {
        let payload = payload.clone().for_many();
        let put = |seat: &Arc<Seat>| self.put_or_note(&seat.client_id, &payload);
        let taken = self.seats().iter().filter(|seat| put(seat)).count() as u64;
        self.status.running.broadcasts.add(1);
        self.status.running.group_downlinks.add(taken);
        taken
    }

    fn put_or_note(&self, client_id: &ClientId, payload: &Payload) -> bool {
        let put = self.put(client_id.as_str(), payload.clone());
        if put.is_none() {
            self.note_late(client_id.as_str(), || payload.clone());
        }
        put.is_some()
    }

    /// How a downlink from the broker is sent.
    fn payload(&self, bytes: Bytes) -> Payload {
        match self.downlink_binary {
            DownlinkBinary::Text => Payload::text_lossy(bytes),
            DownlinkBinary::Auto => Payload::text_or_binary(bytes),
        }
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

    /// For how long the slowest socket has taken nothing of what waits for it; zero when all take what they are given.
    pub(crate) fn longest_stall(&self) -> Duration {
        let stalls = self.shards.iter().filter_map(|shard| {
            let shard = shard.lock();
            shard
                .seats
                .values()
                .filter_map(|seat| seat.stalled_since())
                .min()
        });
        stalls.min().map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn shard(&self, client_id: &str) -> MutexGuard<'_, Shard> {
        let index = self.hasher.hash_one(client_id) as usize % self.shards.len();
        self.shards[index].lock()
    }
}

impl Deliver for Registry {
    fn deliver(&self, client_id: &str, payload: Bytes) -> bool {
        let put = self.put_with(client_id, || self.payload(payload.clone()));
        if put.is_none() {
            self.note_late(client_id, || self.payload(payload));
        }
        put.is_some()
    }

    fn groups(&self) -> Option<Arc<Groups>> {
        self.groups.clone()
    }

    fn deliver_to_group(&self, name: &str, payload: Bytes) {
        self.put_to_group(name, &self.payload(payload));
    }

    fn deliver_to_all(&self, payload: Bytes) {
        self.put_to_all(&self.payload(payload));
    }

    fn change_group(&self, client_id: &str, name: &str, joins: bool) {
        if let Some(client_id) = ClientId::new(client_id) {
            let _ = Registry::change_group(self, &client_id, name, joins); // it may have left
        }
    }

    fn call(&self, client_id: &str, call: Call) -> Result<PendingCall, CallEnd> {
        if !self.is_seated(client_id) {
            return Err(CallEnd::Offline);
        }
        let room = self.calls.enter()?;
        let (pending, waiting) = PendingCall::new(call.expected, call.timeout, room);
        self.arm(client_id, waiting)?;
        match self.put(client_id, call.payload) {
            Some(Put::Queued | Put::Displaced) => Ok(pending),
            Some(Put::Full | Put::TooLarge) => Err(CallEnd::OutboxFull),
            None => Err(CallEnd::Offline),
        }
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

    fn load(&self) -> Load {
        let state = self.status.state();
        Load {
            connections: self.len(),
            is_draining: matches!(state, State::Draining | State::Stopping | State::Stopped),
        }
    }

    fn kicked_elsewhere(&self, client_id: &str, session_id: SessionId, reason: CloseReason) {
        let session_id = (session_id != SessionId(0)).then_some(session_id);
        self.close(client_id, session_id, reason);
    }

    fn replaced_elsewhere(&self, client_id: &str, session_id: SessionId) {
        self.close(client_id, Some(session_id), CloseReason::Replaced);
    }

    fn pass_on(&self, client_id: &str, session_id: SessionId) -> Vec<Payload> {
        let seat = self.find(client_id);
        let seat = seat.filter(|seat| seat.session_id == session_id);
        seat.map_or_else(Vec::new, |seat| seat.pass_on())
    }

    fn passed_on(&self, client_id: &str, session_id: SessionId, payloads: Vec<Payload>) -> bool {
        let seat = self.find(client_id);
        let seat = seat.filter(|seat| seat.session_id == session_id);
        seat.is_some_and(|seat| seat.put_first(payloads))
    }

    fn bell(&self, client_id: &str) {
        if let Some(seat) = self.find(client_id) {
            self.due.add(&seat.client_id);
        }
    }

    fn bells_missed(&self) {
        for seat in self.seats() {
            self.due.add(&seat.client_id);
        }
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

/// Whether a stop or a drain has told the device to go: it has done nothing wrong, and goes on elsewhere.
fn is_told_to_go(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::Shutdown | CloseReason::Drain)
}

#[cfg(test)]
mod tests;
