//! Items on their way, uplinks or events: a lane per key that has something to deliver, kept in order, taken in turn, bounded.
//!
//! A lane lives under the client id, not under a session, so that a reconnect continues the same order. It is gone once
//! everything in it is delivered or given up: an idle device costs nothing here.
//!
//! `queue` is all lanes, their turns and their limits; `routes` the ways that items go; `window` what is in memory of what a spool
//! has; `retries` when something is tried again. None of them knows a lock, a waker or a task. This file has those, and `workers`, `settle` (what the spool
//! reports), `decide` and `letters` (what is kept of what was given up) are written over it.

mod decide;
mod deliveries;
mod item;
mod lane;
mod letters;
mod observer;
mod queue;
mod retries;
mod routes;
mod settle;
mod window;
mod workers;

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, SystemTime},
};

use ahash::HashMap;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

pub(crate) use self::{
    deliveries::Deliveries,
    item::{Decision, GivenUp, Item, Observer},
    observer::UplinkObserver,
    queue::Room,
    routes::{Route, RouteBooks},
};
use self::{
    lane::Slot,
    queue::{Keeping, Queue},
    retries::Retries,
    routes::{Signpost, Way},
    window::Load,
};
use crate::{
    forwarder::{Forward, Outcome, destination::LaneLimits},
    handover,
    locks::Mutex,
    pure::receipts::Pledge,
    spool::{Settle, Spool, memory::Letters},
    stats::{Count, Posts, Running, UplinkBooks},
    tasks::Tasks,
    types::{ClientId, LostReason, Ticket, Uplink},
};

/// All lanes of a bridge, and the workers that empty them.
pub(crate) struct Lanes<I = Uplink> {
    /// Itself, for workers that a spool makes work for.
    me: Weak<Self>,
    state: Mutex<State<I>>,
    /// All lanes together are at their limit; also in `state`, here for sessions to look at without a lock.
    is_full: AtomicBool,
    next_ticket: AtomicU64,
    /// Something is due earlier than the clock is looked at.
    alarm_changed: Notify,
    /// Nothing is held any more, or nothing is on its way into the spool, or no attempt is being made.
    emptied: Notify,
    decision_timeout: Duration,
    /// The default one first.
    ways: Vec<Way<I>>,
    signpost: Signpost,
    /// Keeps what is held beyond this process. Without one, memory is all there is.
    spool: Option<Arc<dyn Spool<I>>>,
    observer: Box<dyn Observer<I>>,
    running: Arc<Running>,
    tasks: Tasks,
}

/// Who takes what lanes carry, who keeps it until then, and who is told what became of it.
pub(crate) struct Outlet<I> {
    /// Without one nobody takes what goes the default way, unless a hook.
    pub(crate) forward: Option<Box<dyn Forward<I>>>,
    /// The other ways.
    pub(crate) routes: Vec<Route<I>>,
    pub(crate) spool: Option<Arc<dyn Spool<I>>>,
    pub(crate) observer: Box<dyn Observer<I>>,
    /// Without a durable spool: what is kept of items that were given up.
    pub(crate) letters: Option<Letters>,
}

struct State<I> {
    queue: Queue<I>,
    /// By number, as in `Lanes`.
    ways: Vec<WayState>,
    tickets: HashMap<Ticket, (ClientId, u64)>,
    /// Sessions that read no further until there is room.
    waiters: HashMap<ClientId, Waker>,
    letters: Option<Letters>,
    books: UplinkBooks,
    mode: Mode,
}

/// What of a way changes.
struct WayState {
    retries: Retries,
    workers: usize,
    in_flight: usize,
    books: RouteBooks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Open,
    /// No attempt begins any more: what the spool has can wait.
    Ending,
    /// Nothing is taken any more.
    Closed,
}

/// To be told once the lock is released: hooks and subscribers are somebody else's code, and may come back here.
struct Loss<I>(I, LostReason);

impl<I: Item> Lanes<I> {
    pub(crate) fn new(
        limits: LaneLimits,
        outlet: Outlet<I>,
        running: Arc<Running>,
        tasks: Tasks,
    ) -> Arc<Self> {
        let Outlet {
            forward,
            routes,
            spool,
            observer,
            letters,
        } = outlet;
        let keeping = match &spool {
            None => Keeping::Memory,
            Some(spool) if spool.is_shared() => Keeping::SharedSpool,
            Some(_) => Keeping::Spool,
        };
        let decision_timeout = limits.decision_timeout;
        let bounds: Vec<_> = routes.iter().map(|r| (r.batch, r.max_age)).collect();
        let mut ways = vec![Way {
            name: "".into(),
            forward,
            concurrency: limits.concurrency,
            posts: Posts::default(),
            breaker_opened: Count::default(),
        }];
        ways.extend(routes.into_iter().map(|route| Way {
            name: route.name,
            forward: Some(route.forward),
            concurrency: route.concurrency,
            posts: Posts::default(),
            breaker_opened: Count::default(),
        }));
        let names = ways.iter().map(|way| way.name.clone());
        let signpost = Signpost::new(names, ways[0].forward.is_some());
        let of_ways = ways.iter().enumerate();
        let of_ways = of_ways.map(|(number, way)| WayState::new(number, way.concurrency));
        let state = State {
            ways: of_ways.collect(),
            queue: Queue::new(limits, keeping, signpost.clone(), bounds),
            tickets: HashMap::default(),
            waiters: HashMap::default(),
            letters,
            books: UplinkBooks::default(),
            mode: Mode::Open,
        };
        let lanes = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            state: Mutex::new(state),
            is_full: AtomicBool::new(false),
            next_ticket: AtomicU64::new(0),
            alarm_changed: Notify::new(),
            emptied: Notify::new(),
            decision_timeout,
            ways,
            signpost,
            spool,
            observer,
            running,
            tasks,
        });
        lanes.tasks.spawn_until_stopped(lanes.clone().keep_time());
        if let Some(spool) = &lanes.spool {
            let settle: Weak<dyn Settle<I>> = Arc::<Self>::downgrade(&lanes);
            spool.start(settle);
        }
        lanes
    }

    /// A number for a decision; unique in this bridge.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.next_ticket.fetch_add(1, Relaxed) + 1)
    }

    /// Takes an item that needs no decision.
    pub(crate) fn take(self: &Arc<Self>, item: I, pledge: Option<Pledge>) -> Room {
        self.receive(item, pledge, None)
    }

    /// Takes an item whose place in the order is kept until it is decided about, or the time for that is over.
    pub(crate) fn take_undecided(
        self: &Arc<Self>,
        item: I,
        pledge: Option<Pledge>,
        ticket: Ticket,
    ) -> Room {
        self.receive(item, pledge, Some(ticket))
    }

    /// Whether a session may read on: `More`, or why not, and then it is woken when that changes.
    pub(crate) fn poll_room(&self, client_id: &ClientId, waker: &Waker) -> Room {
        let mut state = self.state.lock();
        let room = state.queue.room(client_id);
        if state.mode == Mode::Closed || room == Room::More {
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
        self.state.lock().queue.room(client_id)
    }

    /// Whether the lane itself is at its limit, not only the bridge.
    pub(crate) fn is_lane_full(&self, client_id: &ClientId) -> bool {
        self.state.lock().queue.is_lane_full(client_id)
    }

    /// Lets a session that ends anyhow put one more message of so many bytes past the limits: `most` of such in each lane,
    /// until that is below its limit again, and a quarter of what all hold together. `false`: it may not.
    pub(crate) fn reserve_surplus(&self, client_id: &ClientId, bytes: usize, most: usize) -> bool {
        let mut state = self.state.lock();
        state.queue.reserve_surplus(client_id, bytes, most)
    }

    /// Whether a ticket waits for its answer here.
    pub(crate) fn is_pending(&self, ticket: Ticket) -> bool {
        self.state.lock().tickets.contains_key(&ticket)
    }

    /// Whether all lanes together are full. A look without a lock, for sessions about to read.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Relaxed)
    }

    /// Whether the destination of a lane has taken messages all the time since; a lane that is full so long is its device's own doing.
    pub(crate) fn was_destination_up(&self, client_id: &ClientId, since: Instant) -> bool {
        let state = self.state.lock();
        let way = state.queue.way_of(client_id);
        state.ways[way].retries.was_up_since(since)
    }

    /// The books; `held` is counted by looking.
    pub(crate) fn books(&self) -> UplinkBooks {
        let mut state = self.state.lock();
        // Once it is closed, what the spool keeps is held.
        let held = match state.mode {
            Mode::Closed => state.queue.held(),
            Mode::Open | Mode::Ending => state.queue.count(),
        };
        let mut books = state.books.clone();
        (books.held, books.held_bytes) = match held {
            0 => (0, 0), // a lane that is left only waits for its turn to go
            _ => (held as u64, state.queue.held_bytes() as u64),
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
                for way in &mut state.ways {
                    way.retries.begin_last_chance(&mut state.queue);
                }
            });
            return self.until(|state| state.queue.is_empty()).await;
        }
        self.state.lock().mode = Mode::Ending;
        let last_answers = self.until(|state| state.in_flight() == 0);
        let is_settled =
            |state: &State<I>| state.queue.uncommitted() == 0 && state.tickets.is_empty();
        let settled = self.until(is_settled);
        let _ = tokio::join!(timeout(LAST_ANSWERS, last_answers), settled);
    }

    async fn until(&self, is_so: impl Fn(&State<I>) -> bool) {
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
            if state.mode == Mode::Closed {
                return state.queue.held() as u64;
            }
            state.mode = Mode::Closed;
            state.ways.iter_mut().for_each(|way| way.retries.clear());
            state.tickets.clear();
            let lost = state.queue.close();
            for item in &lost {
                let way = self.signpost.way_of(item);
                state.count_lost(way, LostReason::Shutdown);
            }
            for (_, waker) in state.waiters.drain() {
                waker.wake();
            }
            (lost, state.queue.held() as u64)
        };
        self.tell(
            lost.into_iter()
                .map(|item| Loss(item, LostReason::Shutdown)),
        );
        kept
    }

    fn receive(self: &Arc<Self>, item: I, pledge: Option<Pledge>, ticket: Option<Ticket>) -> Room {
        let now = Instant::now();
        let mut lost = Vec::new();
        let (room, hires) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let way = self.signpost.way_of(&item);
            state.books.received += 1;
            state.ways[way].books.received += 1;
            let refused = match state.mode {
                Mode::Closed => Some(LostReason::Shutdown),
                _ if ticket.is_none() && !self.takes(&item) => Some(LostReason::NoRemoteUrl),
                _ => state.queue.refuses().then_some(LostReason::Full),
            };
            if let Some(reason) = refused {
                state.count_lost(way, reason);
                let is_no_remote = reason == LostReason::NoRemoteUrl;
                match pledge {
                    Some(pledge) if is_no_remote => pledge.lost(reason),
                    _ => {}
                }
                if is_no_remote {
                    return Room::NoRemote; // its session tells
                }
                lost.push(Loss(item, reason));
                let room = match state.mode {
                    Mode::Closed => Room::Closed,
                    _ => Room::More,
                };
                (room, Default::default())
            } else {
                let key = item.key().clone();
                while let Some(number) = state.queue.displaceable(&key) {
                    lost.extend(self.lose(state, &key, number, LostReason::Full, None));
                    self.promote(state, &key);
                }
                self.append(state, item, pledge, ticket, now);
                if self.spool.is_some() {
                    self.promote(state, &key);
                }
                (state.queue.room(&key), self.may_hire_any(state))
            }
        };
        self.hire(hires);
        self.tell(lost);
        room
    }

    fn append(
        &self,
        state: &mut State<I>,
        item: I,
        pledge: Option<Pledge>,
        ticket: Option<Ticket>,
        now: Instant,
    ) {
        let key = ticket.map(|_| item.key().clone());
        let (number, record) = state.queue.push(item, pledge, ticket, now);
        if let (Some(spool), Some(record)) = (&self.spool, record) {
            spool.append(record);
        }
        if let (Some(ticket), Some(key)) = (ticket, key) {
            state.tickets.insert(ticket, (key, number));
            let at = now + self.decision_timeout;
            let retries = &mut state.ways[0].retries; // whichever way it goes
            self.note_alarm(retries.await_decision(at, number, ticket));
        }
        self.note_fullness(state);
    }

    /// Gives a lane its turn, if it has something to deliver; and reads on for it in the spool.
    fn promote(&self, state: &mut State<I>, key: &ClientId) {
        if let Some(spool) = &self.spool
            && let Some(load) = state.queue.refill(key)
        {
            self.load(spool, load);
        }
        state.queue.promote(key);
    }

    fn load(&self, spool: &Arc<dyn Spool<I>>, Load { key, after, bytes }: Load) {
        spool.load(key, after, bytes);
    }

    fn lose(
        &self,
        state: &mut State<I>,
        key: &ClientId,
        number: u64,
        reason: LostReason,
        outcome: Option<&Outcome>,
    ) -> Option<Loss<I>> {
        let mut slot = self.remove(state, key, number)?;
        if let Some(pledge) = slot.pledge.take() {
            pledge.lost(reason);
        }
        state.count_lost(self.signpost.way_of(&slot.item), reason);
        self.give_up(state, &slot, reason, outcome);
        Some(Loss(slot.item, reason))
    }

    /// Whether someone takes what goes the way of this item.
    fn takes(&self, item: &I) -> bool {
        self.ways[self.signpost.way_of(item)].forward.is_some()
    }

    /// Whoever is about to read looks at this first. Only [`Lanes::wake`] takes it back.
    fn note_fullness(&self, state: &State<I>) {
        if state.queue.is_over() {
            self.is_full.store(true, Relaxed);
        }
    }

    /// Lets sessions read on that waited for the room there is now.
    fn wake(&self, state: &mut State<I>, key: &ClientId) {
        if self.is_full() && state.queue.has_slack() {
            self.wake_all(state);
        } else if !state.waiters.is_empty()
            && state.queue.has_room(key)
            && let Some(waker) = state.waiters.remove(key)
        {
            handover::wake(&waker);
        }
        if let Some(spool) = &self.spool {
            while let Some(load) = state.queue.feed() {
                self.load(spool, load);
            }
        }
    }

    fn wake_all(&self, state: &mut State<I>) {
        self.is_full.store(state.queue.is_over(), Relaxed);
        for (_, waker) in state.waiters.drain() {
            waker.wake();
        }
    }

    fn tell(&self, losses: impl IntoIterator<Item = Loss<I>>) {
        for Loss(item, reason) in losses {
            match reason {
                // Decided by a hook: a session tells of those that it takes itself.
                LostReason::NoRemoteUrl => self.observer.undeliverable(&item),
                _ => self.observer.lost(&item, reason, None),
            }
        }
    }
}

impl WayState {
    fn new(number: usize, concurrency: usize) -> Self {
        Self {
            retries: Retries::new(number, concurrency),
            workers: 0,
            in_flight: 0,
            books: RouteBooks::default(),
        }
    }
}

impl<I> State<I> {
    fn in_flight(&self) -> usize {
        self.ways.iter().map(|way| way.in_flight).sum()
    }

    fn count_lost(&mut self, way: usize, reason: LostReason) {
        self.books.lost.count(reason);
        self.ways[way].books.lost.count(reason);
    }
}

impl<I: Item> std::fmt::Debug for Lanes<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lanes({} held)", self.books().held)
    }
}

/// It is somebody else's, the host's or another gateway's: for its device that is as good as any other way of being taken.
fn keep<I>(slot: Option<Slot<I>>) {
    if let Some(mut slot) = slot {
        slot.confirm();
    }
}

/// How long a stop waits for answers to POSTs whose messages the spool keeps anyway.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
