//! Uplinks on their way: a lane per device that has something to say, kept in order, taken in turn, bounded.
//!
//! A lane lives under the client id, not under a session, so that a reconnect continues the same order. It is gone once
//! everything in it is delivered or given up: an idle device costs nothing here. `lane` is one of them, `work` empties them,
//! `durable` is what a durable spool adds, `letters` what is kept of those that were given up.

mod durable;
mod lane;
mod letters;
mod log;
mod work;

use std::{
    collections::{BTreeMap, VecDeque, hash_map::Entry},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, SystemTime},
};

use ahash::HashMap;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use self::lane::{Lane, Phase, Slot, Stored};
use crate::{
    config::{Config, Gone, UplinkFull},
    error::{Error, ErrorKind, Result},
    forwarder::{Attempt, Cargo, Forward, breaker::Breaker, destination::Destination},
    hooks::UplinkAction,
    maps::trim,
    pure::receipts::Pledge,
    registry::Registry,
    spool::{Settle, Spool, memory::Letters},
    stats::{Running, UplinkBooks},
    status::Status,
    tasks::Tasks,
    types::{ClientId, LostReason, Payload, Ticket, Uplink},
};

/// All lanes of a bridge, and the workers that empty them.
pub(crate) struct Lanes {
    /// Itself, for workers that a spool makes work for.
    me: Weak<Self>,
    state: Mutex<State>,
    /// All lanes together are at their bound; also in `state`, here for sessions to look at without a lock.
    is_full: AtomicBool,
    /// Whether it was told that there is nowhere to forward what hooks want forwarded.
    was_told_of_no_remote: AtomicBool,
    next_ticket: AtomicU64,
    /// Someone is to look at `due` again.
    due_changed: Notify,
    /// Nothing is held any more, or nothing is on its way into the spool, or no attempt is being made.
    emptied: Notify,
    limits: Limits,
    cargo: Cargo,
    forward: Option<Box<dyn Forward>>,
    /// Keeps what is held beyond this process. Without one, memory is all there is.
    spool: Option<Arc<dyn Spool>>,
    registry: Arc<Registry>,
    status: Arc<Status>,
    running: Arc<Running>,
    tasks: Tasks,
}

/// What lanes carry, who takes it, and what keeps it until then.
pub(crate) struct Route {
    pub(crate) cargo: Cargo,
    /// Without one nobody does, unless a hook.
    pub(crate) forward: Option<Box<dyn Forward>>,
    pub(crate) spool: Option<Arc<dyn Spool>>,
}

struct Limits {
    /// Of one lane, wherever its messages are.
    lane_bytes: usize,
    /// Of what one lane has in memory, when the rest of it is in the spool.
    window_bytes: usize,
    /// In memory, all together.
    total_bytes: usize,
    /// In memory and in the spool, all together.
    spool_bytes: usize,
    spool_messages: usize,
    concurrency: usize,
    when_full: UplinkFull,
    max_age: Duration,
    hook_timeout: Duration,
    gone: Gone,
}

struct State {
    lanes: HashMap<ClientId, Lane>,
    /// What the lanes themselves take beside their messages; 0 with a durable spool, where most of them are a few words.
    lanes_bytes: usize,
    /// Whose turn it is next: each lane that has something ready, once.
    turns: VecDeque<ClientId>,
    due: BTreeMap<(Instant, u64), Due>,
    /// When `keep_time` wakes next. What was due first may be gone by then: it is not woken for that.
    alarm: Option<Instant>,
    tickets: HashMap<Ticket, (ClientId, u64)>,
    /// Sessions that read no further until there is room.
    waiters: HashMap<ClientId, Waker>,
    breaker: Breaker,
    destination: Destination,
    is_breaker_watched: bool,
    /// The remote refuses everyone's messages, and that was said.
    is_misconfigured: bool,
    workers: usize,
    in_flight: usize,
    /// All that is held, in memory or in the spool alone.
    held: Stored,
    /// Of that, what is in the spool alone.
    stored: Stored,
    /// Bytes asked of the spool and not here yet.
    loading_bytes: usize,
    /// On their way into the spool.
    uncommitted: usize,
    /// Lanes that would read on in the spool and wait for memory.
    starving: VecDeque<ClientId>,
    /// Lanes that the spool does not let deliver for now.
    held_up: Vec<ClientId>,
    /// The spool takes nothing for now.
    is_spool_failing: bool,
    next_number: u64,
    /// Without a durable spool: what is kept of uplinks that were given up.
    letters: Option<Letters>,
    books: UplinkBooks,
    /// No attempt begins any more.
    is_ending: bool,
    /// The bridge stops and what is not delivered by then is lost: nothing backs off for long.
    is_last_chance: bool,
    is_closed: bool,
}

enum Due {
    /// Whether the backend has asked for the delay of this very device.
    Retry(ClientId, u64, bool),
    Ticket(Ticket),
    Breaker,
}

/// What a session learns when its uplink was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Read on.
    More,
    /// Read no further until [`Lanes::poll_room`] says so.
    Wait,
    /// Read no further until the hook has answered and the spool has it; [`Lanes::poll_room`] says so.
    Undecided,
    /// Nobody takes uplinks: it is lost.
    NoRemote,
}

/// To be logged and told once the lock is released: hooks and subscribers are somebody else's code, and may come back here.
struct Loss(Uplink, LostReason);

impl Lanes {
    pub(crate) fn new(
        config: &Config,
        route: Route,
        registry: Arc<Registry>,
        status: Arc<Status>,
        running: Arc<Running>,
        tasks: Tasks,
    ) -> Arc<Self> {
        let Route {
            cargo,
            forward,
            spool,
        } = route;
        let limits = Limits {
            lane_bytes: match spool {
                None => config.uplink_lane_bytes,
                Some(_) => config.spool_lane_bytes,
            },
            window_bytes: config.uplink_lane_bytes.min(config.uplink_total_bytes / 8),
            total_bytes: config.uplink_total_bytes,
            spool_bytes: spool
                .as_ref()
                .map_or(usize::MAX, |_| config.spool_max_bytes),
            spool_messages: spool
                .as_ref()
                .map_or(usize::MAX, |_| config.spool_max_messages),
            concurrency: config.remote_concurrency,
            when_full: config.uplink_full,
            max_age: config.remote_max_age,
            hook_timeout: config.hook_timeout,
            gone: config.remote_gone,
        };
        let state = State {
            lanes: HashMap::default(),
            turns: VecDeque::new(),
            due: BTreeMap::new(),
            alarm: None,
            tickets: HashMap::default(),
            waiters: HashMap::default(),
            breaker: Breaker::new(limits.concurrency),
            destination: Destination::default(),
            is_breaker_watched: false,
            is_misconfigured: false,
            workers: 0,
            in_flight: 0,
            held: Stored::default(),
            stored: Stored::default(),
            loading_bytes: 0,
            lanes_bytes: 0,
            uncommitted: 0,
            starving: VecDeque::new(),
            held_up: Vec::new(),
            is_spool_failing: false,
            next_number: 0,
            letters: (spool.is_none() && cargo == Cargo::Uplinks).then(|| Letters::new(config)),
            books: UplinkBooks::default(),
            is_ending: false,
            is_last_chance: false,
            is_closed: false,
        };
        let lanes = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            state: Mutex::new(state),
            is_full: AtomicBool::new(false),
            was_told_of_no_remote: AtomicBool::new(false),
            next_ticket: AtomicU64::new(0),
            due_changed: Notify::new(),
            emptied: Notify::new(),
            limits,
            cargo,
            forward,
            spool,
            registry,
            status,
            running,
            tasks,
        });
        lanes.tasks.spawn_until_stopped(lanes.clone().keep_time());
        if let Some(spool) = &lanes.spool {
            let settle: Weak<dyn Settle> = Arc::<Self>::downgrade(&lanes);
            spool.start(settle);
        }
        lanes
    }

    /// A number for a decision; unique in this bridge.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.next_ticket.fetch_add(1, Relaxed) + 1)
    }

    /// Takes an uplink that needs no decision.
    pub(crate) fn take(self: &Arc<Self>, uplink: Uplink, pledge: Option<Pledge>) -> Room {
        self.receive(uplink, pledge, None)
    }

    /// Takes an uplink whose place in the order is kept until [`Lanes::decide`], or the hook's time is over.
    pub(crate) fn take_undecided(
        self: &Arc<Self>,
        uplink: Uplink,
        pledge: Option<Pledge>,
        ticket: Ticket,
    ) -> Room {
        self.receive(uplink, pledge, Some(ticket))
    }

    /// What a hook said of an undecided uplink (`None`: it failed). Returns a reply for the device, if it gave one.
    ///
    /// # Errors
    /// `Ticket` when it is unknown, answered already, or timed out.
    pub(crate) fn decide(
        self: &Arc<Self>,
        ticket: Ticket,
        action: Option<UplinkAction>,
    ) -> Result<Option<(ClientId, Payload)>> {
        let (loss, reply, hire) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let (client_id, number) = state.tickets.remove(&ticket).ok_or_else(|| {
                Error::new(
                    ErrorKind::Ticket,
                    format!(
                        "ticket {} is unknown, answered already, or timed out",
                        ticket.0
                    ),
                )
            })?;
            let lane = state
                .lanes
                .get_mut(&client_id)
                .expect("an undecided uplink stays in its lane");
            lane.unsettled -= 1;
            let slot = lane
                .slot(number)
                .expect("an undecided uplink stays in its lane");
            let taken_at = slot.taken_at;
            let mut reply = None;
            let lost = match action {
                Some(UplinkAction::Forward) if self.forward.is_some() => {
                    self.settle(lane, &mut state.uncommitted, number);
                    None
                }
                Some(UplinkAction::Replace(payload)) if self.forward.is_some() => {
                    let (before, after) = (slot.uplink.payload.cost(), payload.cost());
                    slot.uplink.payload = payload;
                    lane.bytes = lane.bytes - before + after;
                    state.held.bytes = state.held.bytes - before + after;
                    self.settle(lane, &mut state.uncommitted, number);
                    self.note_fullness(state);
                    None
                }
                Some(UplinkAction::Forward | UplinkAction::Replace(_)) => {
                    Some(LostReason::NoRemoteUrl)
                }
                Some(UplinkAction::Drop) => {
                    keep(self.remove(state, &client_id, number));
                    state.books.dropped_by_hook += 1;
                    None
                }
                Some(UplinkAction::Reply(payload)) => {
                    keep(self.remove(state, &client_id, number));
                    state.books.dropped_by_hook += 1;
                    reply = Some((client_id.clone(), payload));
                    None
                }
                None => Some(LostReason::HookFailed),
            };
            state
                .due
                .remove(&(taken_at + self.limits.hook_timeout, number));
            let loss = lost.and_then(|reason| self.lose(state, &client_id, number, reason, None));
            self.promote(state, &client_id);
            self.wake(state, &client_id);
            self.note_quiet(state);
            if let Some(waker) = state.waiters.remove(&client_id) {
                waker.wake(); // no room yet, but for another reason
            }
            (loss, reply, self.may_hire(state))
        };
        self.hire(hire);
        self.tell(loss);
        Ok(reply)
    }

    /// Whether a session may read on: `More`, or why not, and then it is woken when that changes.
    pub(crate) fn poll_room(&self, client_id: &ClientId, waker: &Waker) -> Room {
        let mut state = self.state.lock();
        let room = self.room_in(&state, client_id);
        if state.is_closed || room == Room::More {
            return Room::More;
        }
        match state.waiters.get_mut(client_id) {
            Some(known) => known.clone_from(waker),
            None => drop(state.waiters.insert(client_id.clone(), waker.clone())),
        }
        room
    }

    /// What a session of this id may do now.
    pub(crate) fn room(&self, client_id: &ClientId) -> Room {
        self.room_in(&self.state.lock(), client_id)
    }

    /// Whether the lane itself is at its bound, not only the bridge.
    pub(crate) fn is_lane_full(&self, client_id: &ClientId) -> bool {
        self.is_at_bound(&self.state.lock(), client_id)
    }

    /// Lets a session that ends anyhow put one more message of so many bytes past the bounds: `most` of such in each lane,
    /// until that is below its bound again, and a quarter of what all hold together. `false`: it may not.
    pub(crate) fn reserve_surplus(&self, client_id: &ClientId, bytes: usize, most: usize) -> bool {
        let mut state = self.state.lock();
        let is_at_last = self.is_spool_full(&state)
            || state.is_spool_failing
            || state.memory_bytes() >= self.limits.total_bytes / 4 * 5;
        let Some(lane) = state.lanes.get_mut(client_id) else {
            return !is_at_last;
        };
        let surplus = lane.surplus_bytes + bytes;
        if is_at_last || surplus > most {
            return false;
        }
        lane.surplus_bytes = surplus;
        true
    }

    /// Whether a ticket waits for its answer here.
    pub(crate) fn is_pending(&self, ticket: Ticket) -> bool {
        self.state.lock().tickets.contains_key(&ticket)
    }

    /// Whether all lanes together are full. A look without a lock, for sessions about to read.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Relaxed)
    }

    /// Whether the destination has taken messages all the time since; a lane that is full so long is its device's own doing.
    pub(crate) fn was_destination_up(&self, since: Instant) -> bool {
        self.state.lock().breaker.was_up_since(since)
    }

    /// The uplink books; `held` is counted by looking.
    pub(crate) fn books(&self) -> UplinkBooks {
        let mut state = self.state.lock();
        let in_lanes: usize = state
            .lanes
            .values()
            .map(|lane| lane.slots.len() + lane.stored.messages)
            .sum();
        // Once it is closed, what the spool keeps is held.
        let held = if state.is_closed {
            state.held.messages
        } else {
            in_lanes
        };
        let mut books = state.books.clone();
        (books.held, books.held_bytes) = match held {
            0 => (0, 0), // a lane that is left only waits for its turn to go
            _ => (held as u64, (state.held.bytes + state.lanes_bytes) as u64),
        };
        if let Some(letters) = &mut state.letters {
            letters.expire(SystemTime::now());
            (books.dead_letters, books.dead_letters_dropped) = letters.books();
        }
        books
    }

    /// Resolves once nothing is held; with a durable spool, once that has all that is decided, and a short while is over
    /// for answers to what is in flight: an answer that comes later would make a duplicate after the next start.
    pub(crate) async fn drained(&self) {
        if self.spool.is_none() {
            self.change(|state| {
                state.is_last_chance = true;
                self.hurry(state, true);
            });
            return self.until(|state| state.held.messages == 0).await;
        }
        self.state.lock().is_ending = true;
        let last_answers = self.until(|state| state.in_flight == 0);
        let settled = self.until(|state| state.uncommitted == 0 && state.tickets.is_empty());
        let _ = tokio::join!(timeout(LAST_ANSWERS, last_answers), settled);
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let emptied = self.emptied.notified();
            if is_so(&self.state.lock()) {
                return;
            }
            emptied.await;
        }
    }

    /// Ends what is held in memory, and takes nothing more. What a durable spool has stays there and counts as held; all
    /// else is lost. Returns how many are kept.
    pub(crate) fn abandon(&self) -> u64 {
        let (lost, kept) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if state.is_closed {
                return state.held.messages as u64;
            }
            state.is_closed = true;
            state.turns.clear();
            state.due.clear();
            state.tickets.clear();
            state.starving.clear();
            let mut kept = state.stored;
            let mut lost = Vec::new();
            state.lanes_bytes = 0;
            for slot in std::mem::take(&mut state.lanes)
                .into_values()
                .flat_map(|lane| lane.slots)
            {
                if self.spool.is_some() && slot.is_settled() {
                    kept.add(&slot.uplink);
                } else {
                    state.books.lost.count(LostReason::Shutdown);
                    lost.push(Loss(slot.uplink, LostReason::Shutdown));
                }
            }
            state.held = kept;
            for (_, waker) in state.waiters.drain() {
                waker.wake();
            }
            (lost, kept.messages as u64)
        };
        self.tell(lost);
        kept
    }

    fn receive(
        self: &Arc<Self>,
        uplink: Uplink,
        pledge: Option<Pledge>,
        ticket: Option<Ticket>,
    ) -> Room {
        let now = Instant::now();
        let mut displaced = Vec::new();
        let (room, hire) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            state.books.received += 1;
            if state.is_closed {
                state.books.lost.count(LostReason::Shutdown);
                displaced.push(Loss(uplink, LostReason::Shutdown));
                (Room::More, false)
            } else if self.forward.is_none() && ticket.is_none() {
                state.books.lost.count(LostReason::NoRemoteUrl);
                if let Some(pledge) = pledge {
                    pledge.lost(LostReason::NoRemoteUrl);
                }
                (Room::NoRemote, false)
            } else if self.cargo == Cargo::Events && state.memory_bytes() >= self.limits.total_bytes
            {
                state.books.lost.count(LostReason::Full); // nobody could be told to wait
                displaced.push(Loss(uplink, LostReason::Full));
                (Room::More, false)
            } else {
                let client_id = uplink.client_id.clone();
                if self.limits.when_full == UplinkFull::DropOldest {
                    self.displace(state, &client_id, &mut displaced);
                }
                self.append(state, uplink, pledge, ticket, now);
                self.promote(state, &client_id);
                let room = self.room_in(state, &client_id);
                (room, self.may_hire(state))
            }
        };
        self.hire(hire);
        self.tell(displaced);
        room
    }

    fn append(
        &self,
        state: &mut State,
        uplink: Uplink,
        pledge: Option<Pledge>,
        ticket: Option<Ticket>,
        now: Instant,
    ) {
        let number = state.next_number;
        state.next_number += 1;
        let client_id = uplink.client_id.clone();
        state.held.add(&uplink);
        let lane = match state.lanes.entry(client_id.clone()) {
            Entry::Occupied(lane) => lane.into_mut(),
            Entry::Vacant(lane) => {
                state.lanes_bytes += self.cost_of_lane(&client_id);
                lane.insert(Lane::default())
            }
        };
        lane.bytes += uplink.payload.cost();
        let phase = ticket.map_or(Phase::Ready, Phase::Undecided);
        let mut slot = Slot::new(number, uplink, phase, now);
        slot.pledge = pledge;
        lane.slots.push_back(slot);
        if ticket.is_none() {
            self.settle(lane, &mut state.uncommitted, number);
        }
        if let Some(ticket) = ticket {
            lane.unsettled += 1;
            state.tickets.insert(ticket, (client_id, number));
            let at = now + self.limits.hook_timeout;
            self.remind(state, at, number, Due::Ticket(ticket));
        }
        self.note_fullness(state);
    }

    /// What a lane takes beside its messages. Their common bound has to know of it: names are up to 8 KiB, and whoever may
    /// choose one can leave a message under each of a million.
    fn cost_of_lane(&self, client_id: &ClientId) -> usize {
        match self.spool {
            None => LANE_BYTES + client_id.as_str().len(),
            Some(_) => 0,
        }
    }

    fn drop_lane(&self, state: &mut State, client_id: &ClientId) {
        if state.lanes.remove(client_id).is_some() {
            state.lanes_bytes -= self.cost_of_lane(client_id);
        }
    }

    /// With `drop_oldest`: makes room in a lane, or in the spool, by losing the oldest of the lane that are settled and not in
    /// flight. It cannot make room in memory, which others have filled as well: that is waited for.
    fn displace(&self, state: &mut State, client_id: &ClientId, displaced: &mut Vec<Loss>) {
        while self.is_at_bound(state, client_id) || self.is_spool_full(state) {
            let lane = state.lanes.get(client_id);
            let Some(number) = lane.and_then(Lane::displaceable) else {
                return;
            };
            displaced.extend(self.lose(state, client_id, number, LostReason::Full, None));
            self.promote(state, client_id);
        }
    }

    fn has_room(&self, state: &State, client_id: &ClientId) -> bool {
        !self.is_over(state)
            && state.lanes.get(client_id).is_none_or(|lane| {
                lane.total_bytes() < self.limits.lane_bytes && lane.unsettled == 0
            })
    }

    fn is_at_bound(&self, state: &State, client_id: &ClientId) -> bool {
        let lane = state.lanes.get(client_id);
        lane.is_some_and(|lane| lane.total_bytes() >= self.limits.lane_bytes)
    }

    /// Whether all lanes together are at a bound.
    fn is_over(&self, state: &State) -> bool {
        state.memory_bytes() >= self.limits.total_bytes
            || self.is_spool_full(state)
            || state.is_spool_failing
    }

    fn is_spool_full(&self, state: &State) -> bool {
        state.held.bytes >= self.limits.spool_bytes
            || state.held.messages >= self.limits.spool_messages
    }

    /// Whether all lanes together are so far below their bounds that several may read on.
    fn has_slack(&self, state: &State) -> bool {
        state.memory_bytes() <= most_of(self.limits.total_bytes)
            && state.held.bytes <= most_of(self.limits.spool_bytes)
            && state.held.messages <= most_of(self.limits.spool_messages)
            && !state.is_spool_failing
    }

    fn room_in(&self, state: &State, client_id: &ClientId) -> Room {
        let lane = state.lanes.get(client_id);
        if lane.is_some_and(|lane| lane.unsettled > 0) {
            return Room::Undecided;
        }
        let is_full = self.is_at_bound(state, client_id) || self.is_spool_full(state);
        let may_displace = || !is_full || lane.and_then(Lane::displaceable).is_some();
        match self.limits.when_full {
            UplinkFull::DropOldest
                if state.memory_bytes() < self.limits.total_bytes
                    && !state.is_spool_failing
                    && (self.spool.is_none() || may_displace()) =>
            {
                Room::More
            }
            _ if self.has_room(state, client_id) => Room::More,
            _ => Room::Wait, // the policy is `pause`, or others have filled the bridge
        }
    }

    /// Lets an uplink that nobody has to decide about any more go: at once, or when the spool has it.
    fn settle(&self, lane: &mut Lane, uncommitted: &mut usize, number: u64) {
        match &self.spool {
            None => self.make_ready(lane, number),
            Some(spool) => spool.append(lane.commit(number, uncommitted)),
        }
    }

    /// Lets an uplink go as soon as its lane's turn and its place in the order allow it.
    fn make_ready(&self, lane: &mut Lane, number: u64) {
        if let Some(slot) = lane.slot(number) {
            slot.phase = Phase::Ready;
            slot.keep_word();
        }
    }

    /// What a lane would send next: its head.
    fn next_of(&self, lane: &Lane) -> Option<u64> {
        // What a shared spool brings does not wait for what it may take once there is room again.
        let is_shared = self.spool.as_ref().is_some_and(|spool| spool.is_shared());
        let mut slots = lane.slots.iter();
        slots
            .find(|slot| !is_shared || slot.is_settled())
            .filter(|slot| slot.phase == Phase::Ready)
            .map(|slot| slot.number)
    }

    /// Gives a lane its turn, behind all others, if it has something to send. One at a time: then a device with much to
    /// say delays nobody, and `turns` is never longer than there are lanes.
    fn promote(&self, state: &mut State, client_id: &ClientId) {
        if self.spool.is_some() {
            self.refill(state, client_id);
        }
        let Some(lane) = state.lanes.get_mut(client_id) else {
            return;
        };
        if !lane.has_turn && !lane.is_held_up && self.next_of(lane).is_some() {
            lane.has_turn = true;
            state.turns.push_back(client_id.clone());
        }
    }

    /// Takes the first turn; a lane that stayed only for it goes.
    fn take_turn(&self, state: &mut State) {
        let Some(client_id) = state.turns.pop_front() else {
            return;
        };
        if let Some(lane) = state.lanes.get_mut(&client_id) {
            lane.has_turn = false;
            if lane.is_empty() {
                self.drop_lane(state, &client_id);
            }
        }
    }

    /// Takes an uplink out of its lane; the lane goes with its last.
    fn remove(&self, state: &mut State, client_id: &ClientId, number: u64) -> Option<Slot> {
        let lane = state.lanes.get_mut(client_id)?;
        let index = lane.index(number)?;
        let slot = lane.slots.remove(index)?;
        lane.bytes -= slot.uplink.payload.cost();
        if lane.total_bytes() < self.limits.lane_bytes {
            lane.surplus_bytes = 0;
        }
        state.held.take(&slot.uplink);
        if lane.is_empty() && !lane.has_turn {
            self.drop_lane(state, client_id);
            trim(&mut state.lanes, ROOM);
        }
        if state.held.messages == 0 {
            self.emptied.notify_waiters();
        }
        Some(slot)
    }

    fn lose(
        &self,
        state: &mut State,
        client_id: &ClientId,
        number: u64,
        reason: LostReason,
        attempt: Option<&Attempt>,
    ) -> Option<Loss> {
        let mut slot = self.remove(state, client_id, number)?;
        if let Some(pledge) = slot.pledge.take() {
            pledge.lost(reason);
        }
        state.books.lost.count(reason);
        self.give_up(state, &slot, reason, attempt);
        Some(Loss(slot.uplink, reason))
    }

    /// Whoever is about to read looks at this first. Only [`Lanes::wake`] takes it back.
    fn note_fullness(&self, state: &State) {
        if self.is_over(state) {
            self.is_full.store(true, Relaxed);
        }
    }

    /// Lets sessions read on that waited for the room there is now.
    fn wake(&self, state: &mut State, client_id: &ClientId) {
        if self.is_full() && self.has_slack(state) {
            self.wake_all(state);
        } else if !state.waiters.is_empty()
            && self.has_room(state, client_id)
            && let Some(waker) = state.waiters.remove(client_id)
        {
            waker.wake();
        }
        if !state.starving.is_empty() {
            self.feed(state);
        }
    }

    fn wake_all(&self, state: &mut State) {
        self.is_full.store(self.is_over(state), Relaxed);
        for (_, waker) in state.waiters.drain() {
            waker.wake();
        }
    }

    fn remind(&self, state: &mut State, at: Instant, number: u64, due: Due) {
        state.due.insert((at, number), due);
        if state.alarm.is_none_or(|alarm| at < alarm) {
            state.alarm = Some(at);
            self.due_changed.notify_one();
        }
    }

    fn tell(&self, losses: impl IntoIterator<Item = Loss>) {
        for Loss(uplink, reason) in losses {
            match reason {
                LostReason::Rejected | LostReason::Poison => {} // logged with what was answered
                // Decided by a hook: a session tells of those that it takes itself.
                LostReason::NoRemoteUrl => {
                    self.log_no_remote(&uplink);
                    continue;
                }
                _ => self.log_loss(&uplink, reason, None),
            }
            self.status.hook("on_uplink_lost", |hooks| {
                hooks.on_uplink_lost(&uplink, reason)
            });
        }
    }
}

impl State {
    /// What is held in memory, or soon will be.
    fn memory_bytes(&self) -> usize {
        self.held.bytes - self.stored.bytes + self.loading_bytes + self.lanes_bytes
    }
}

/// Seven eighths: all who wait for a common bound are woken together, so only once there is room for several.
fn most_of(bound: usize) -> usize {
    bound / 8 * 7
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lanes({} held)", self.books().held)
    }
}

/// It is somebody else's, the host's or another gateway's: for its device that is as good as any other way of being taken.
fn keep(slot: Option<Slot>) {
    if let Some(mut slot) = slot {
        slot.keep_word();
    }
}

/// How long a stop waits for answers to POSTs whose messages the spool keeps anyway.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// What a lane with one message takes, beside its name and what the message counts for: measured.
const LANE_BYTES: usize = 896;
/// Lanes that there is always room for: they come and go with every message.
const ROOM: usize = 4096;

#[cfg(test)]
mod tests;
