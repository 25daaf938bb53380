//! What happens in a bridge as a bounded queue with a pollable descriptor: for hosts with a loop of their own.
//!
//! [`EventQueue::new`] gives two ends. The [`EventHooks`] go to the bridge's builder and turn each hook into an
//! [`Event`]; the host drains them from the [`EventQueue`] when its descriptor is readable, in batches and on a thread of
//! its choice. What must be decided comes with a [`Ticket`] and is answered through `resolve`.
//!
//! ```
//! use fastsock::events::{Event, EventOptions, EventQueue, Uplinks};
//!
//! let (hooks, queue) = EventQueue::new(EventOptions::default().uplinks(Uplinks::Take))?;
//! // let bridge = Bridge::builder(config).shared_hooks(hooks).start()?; then queue.attach(…)
//! # drop(hooks);
//! let mut events = Vec::new();
//! while queue.drain(64, &mut events) > 0 {
//!     for event in events.drain(..) {
//!         if let Event::Uplink { uplink, .. } = event {
//!             // use uplink.payload
//!         }
//!     }
//! }
//! # Ok::<(), fastsock::Error>(())
//! ```
//!
//! **When the host falls behind**, three bounds hold, and none of them blocks the bridge:
//! - *Decisions* always fit: a session waits for its own and says nothing meanwhile. Those whose time has run out make
//!   room for new ones.
//! - *Uplinks the host takes* ([`Uplinks::Take`]) are accepted up to [`EventOptions::capacity`] and
//!   [`EventOptions::capacity_bytes`]. Beyond, each waits as a decision does and its session reads no further, so TCP
//!   pushes back on the device; it is accepted when it is drained. One that waits longer than `hook_timeout` is lost with
//!   the reason `hook_failed` and never drained: a host that stalls for longer sets a longer time.
//! - *Notices* beyond the capacity cost the oldest notice, counted by [`EventQueue::dropped`].
//!
//! Results of sends that do not wait ([`EventQueue::begin_send`]) have their place from the beginning: when there is none, the
//! send does not begin.

mod event;
mod notifier;
mod queues;

use std::{
    fmt,
    os::fd::BorrowedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub use self::event::Event;
use self::{
    notifier::Notifier,
    queues::{Queued, Queues, Resolve, Waiting},
};
use crate::{
    error::{Error, ErrorKind, Result},
    hooks::{Admission, Answer, Decision, Hooks, UplinkAction},
    types::{
        Client, ClientId, CloseReason, ConnectRequest, LostReason, Payload, Sent, State, Ticket,
        Uplink,
    },
};

/// What happens to the messages of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uplinks {
    /// The bridge forwards them; the queue does not get them.
    #[default]
    Off,
    /// Each waits for `resolve`.
    Decide,
    /// The host takes them: the bridge POSTs nothing, and counts them as `dropped_by_hook`.
    Take,
}

/// What goes into an [`EventQueue`] and how much of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventOptions {
    /// Most taken uplinks that the queue holds, and most notices; at least 1. Default 8,192.
    pub capacity: usize,
    /// Most bytes of taken uplinks that the queue holds; each counts as its payload and 128 bytes. Default 16 MiB.
    pub capacity_bytes: usize,
    /// Whether the host decides who may connect. Default off: the settings decide.
    pub authenticate: bool,
    /// What happens to uplinks. Default off.
    pub uplinks: Uplinks,
    /// Whether the queue gets connects, disconnects, lost uplinks and states. Default on.
    pub notices: bool,
    /// How long a decision can be answered: the `hook_timeout` of the bridge's configuration. Default 5 s.
    pub decision_time: Duration,
}

impl Default for EventOptions {
    fn default() -> Self {
        Self {
            capacity: 8192,
            capacity_bytes: 16 << 20,
            authenticate: false,
            uplinks: Uplinks::Off,
            notices: true,
            decision_time: Duration::from_secs(5),
        }
    }
}

impl EventOptions {
    /// Sets [`capacity`](Self::capacity).
    #[must_use]
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// Sets [`capacity_bytes`](Self::capacity_bytes).
    #[must_use]
    pub fn capacity_bytes(mut self, bytes: usize) -> Self {
        self.capacity_bytes = bytes;
        self
    }

    /// Sets [`authenticate`](Self::authenticate).
    #[must_use]
    pub fn authenticate(mut self, on: bool) -> Self {
        self.authenticate = on;
        self
    }

    /// Sets [`uplinks`](Self::uplinks).
    #[must_use]
    pub fn uplinks(mut self, uplinks: Uplinks) -> Self {
        self.uplinks = uplinks;
        self
    }

    /// Sets [`notices`](Self::notices).
    #[must_use]
    pub fn notices(mut self, on: bool) -> Self {
        self.notices = on;
        self
    }

    /// Sets [`decision_time`](Self::decision_time).
    #[must_use]
    pub fn decision_time(mut self, time: Duration) -> Self {
        self.decision_time = time;
        self
    }
}

/// The host's end. Any thread may call any method. A single thread that drains gets the events of a device in order.
///
/// Dropping it is [`EventQueue::close`].
#[derive(Debug)]
pub struct EventQueue {
    shared: Arc<Shared>,
}

/// The bridge's end, for the builder's `shared_hooks`.
#[derive(Debug)]
pub struct EventHooks {
    shared: Arc<Shared>,
}

impl EventQueue {
    /// Makes both ends.
    ///
    /// # Errors
    /// `Io` when the process is out of descriptors.
    pub fn new(options: EventOptions) -> Result<(Arc<EventHooks>, Self)> {
        let notifier = Notifier::new().map_err(|e| {
            Error::new(ErrorKind::Io, "cannot make an event descriptor").with_source(e)
        })?;
        let shared = Arc::new(Shared {
            options,
            notifier,
            state: Mutex::default(),
        });
        let hooks = EventHooks {
            shared: Arc::clone(&shared),
        };
        Ok((Arc::new(hooks), Self { shared }))
    }

    /// Sets how the queue answers tickets: usually `move |ticket, answer| bridge.resolve(ticket, answer)`, right after the
    /// start. [`Uplinks::Take`] needs it, to accept waiting uplinks while the host drains, and [`EventQueue::close`] needs it, to fail
    /// what is undecided. The bridge holds the other end of this queue, so a handle in the closure keeps the bridge alive until
    /// the queue is closed.
    pub fn attach(&self, resolve: impl Fn(Ticket, Answer) -> Result<()> + Send + Sync + 'static) {
        let mut state = self.shared.state.lock();
        if !state.is_closed {
            state.resolve = Some(Arc::new(resolve));
        }
    }

    /// Moves up to `max` events to the end of `into`, oldest first, and returns how many. Never blocks: 0 means that there
    /// is nothing now. One lock per call, so batches are cheaper than single events.
    pub fn drain(&self, max: usize, into: &mut Vec<Event>) -> usize {
        self.drain_with(max, into, true)
    }

    /// As [`EventQueue::drain`], but only a call that finds nothing at all makes the descriptor unreadable. For hosts that drain
    /// again soon, until there is nothing: events that come meanwhile need no wake-up.
    pub fn drain_on(&self, max: usize, into: &mut Vec<Event>) -> usize {
        self.drain_with(max, into, false)
    }

    fn drain_with(&self, max: usize, into: &mut Vec<Event>, is_last: bool) -> usize {
        let before = into.len();
        let mut waiting = Vec::new(); // allocates only under overflow
        let (resolve, dropped) = {
            let mut state = self.shared.state.lock();
            state.take(max, into, &mut waiting);
            let is_done = is_last || into.len() == before && waiting.is_empty();
            if is_done && state.is_empty() && !state.is_closed {
                // Under the lock: whatever comes in later notifies again, after this.
                state.is_notified = false;
                self.shared.notifier.clear();
            }
            let resolve = match waiting.is_empty() {
                true => None,
                false => state.resolve.clone(),
            };
            (resolve, state.untold())
        };
        tell_dropped(dropped);
        if let Some(resolve) = resolve {
            accept_waiting(&waiting, into, &*resolve);
        }
        into.len() - before
    }

    /// Blocks until there is something to drain or [`EventQueue::wake`] was called; `true` at once when closed. `false` when
    /// the time is over. Rarely `true` with nothing to drain.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.shared.notifier.wait(timeout)
    }

    /// The descriptor that is readable while there is something to drain. Only poll it; do not read or close it. It is
    /// level-triggered, and belongs to the queue. Once the queue is closed it stays readable, as a socket at its end does.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.notifier.fd()
    }

    /// Makes the descriptor readable and ends [`EventQueue::wait`], until the next drain that leaves nothing.
    pub fn wake(&self) {
        self.shared.wake(&mut self.shared.state.lock());
    }

    /// Reserves the place for the result of a send that does not wait. `None` when as many sends as [`EventOptions::capacity`]
    /// have begun and their results are not drained, or when the messages without a result are over
    /// [`EventOptions::capacity_bytes`]: drain, and try again.
    pub fn begin_send(
        &self,
        client_id: &ClientId,
        payload: &Payload,
        tag: u64,
    ) -> Option<PendingSend> {
        let (options, cost) = (&self.shared.options, payload.cost());
        let mut state = self.shared.state.lock();
        if state.sends >= options.capacity.max(1)
            || state.sends_bytes >= options.capacity_bytes.max(1)
        {
            return None;
        }
        state.sends += 1;
        state.sends_bytes += cost;
        drop(state);
        Some(PendingSend {
            shared: Arc::clone(&self.shared),
            client_id: client_id.clone(),
            tag,
            cost,
            is_told: false,
        })
    }

    /// How many events the queue holds.
    pub fn len(&self) -> usize {
        self.shared.state.lock().len()
    }

    /// Whether the queue holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many notices the queue dropped because the host fell behind.
    pub fn dropped(&self) -> u64 {
        self.shared.state.lock().dropped
    }

    /// Whether [`EventQueue::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.shared.state.lock().is_closed
    }

    /// Closes the queue: undecided decisions fail, new ones fail at once, and it drops new notices. The host can still drain what
    /// is in it. Drops the function that [`EventQueue::attach`] got.
    pub fn close(&self) {
        let (undecided, resolve) = {
            let mut state = self.shared.state.lock();
            state.is_closed = true;
            self.shared.wake(&mut state);
            (std::mem::take(&mut state.decisions), state.resolve.take())
        };
        let Some(resolve) = resolve else { return };
        for ticket in undecided.iter().filter_map(|q| q.event.ticket()) {
            // An error means that its time ran out before: then it has failed already.
            let _ = resolve(ticket, Answer::Failed);
        }
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        self.close();
        let (taken, dropped) = {
            let mut state = self.shared.state.lock();
            (state.taken.len(), state.untold())
        };
        tell_dropped(dropped);
        if taken > 0 {
            tracing::warn!(
                uplinks = taken,
                "Event queue dropped with uplinks the host had taken and not drained"
            );
        }
    }
}

/// A send that does not wait. The queue gets exactly one [`Event::Sent`] for it: what [`PendingSend::tell`] is told, or `Stopped` when
/// this is dropped before.
#[derive(Debug)]
#[must_use = "a drop says that the bridge stopped"]
pub struct PendingSend {
    shared: Arc<Shared>,
    client_id: ClientId,
    tag: u64,
    cost: usize,
    is_told: bool,
}

impl PendingSend {
    /// Puts the result into the queue, also into a closed one.
    pub fn tell(mut self, result: Result<Sent>) {
        self.put(result);
    }

    fn put(&mut self, result: Result<Sent>) {
        self.is_told = true;
        let event = Event::Sent {
            tag: self.tag,
            client_id: self.client_id.clone(),
            result: result.map_err(Arc::new),
        };
        let mut state = self.shared.state.lock();
        state.sends_bytes -= self.cost;
        let seq = state.next();
        state.sent.push_back(Queued { seq, event });
        self.shared.wake(&mut state);
    }
}

impl Drop for PendingSend {
    fn drop(&mut self) {
        if !self.is_told {
            let text = "the bridge stopped before the message was taken";
            self.put(Err(Error::new(ErrorKind::Stopped, text)));
        }
    }
}

impl Hooks for EventHooks {
    fn authenticate(&self, request: &ConnectRequest, ticket: Ticket) -> Decision<Admission> {
        if !self.shared.options.authenticate {
            return Decision::Now(Admission::AsConfigured);
        }
        self.shared.decide(ticket, || Event::Authenticate {
            ticket,
            request: Box::new(request.clone()),
        })
    }

    fn on_uplink(&self, uplink: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        match self.shared.options.uplinks {
            Uplinks::Off => Decision::Now(UplinkAction::Forward),
            Uplinks::Take => self.shared.take(uplink, ticket),
            Uplinks::Decide => self.shared.decide(ticket, || Event::Uplink {
                ticket: Some(ticket),
                uplink: uplink.clone(),
            }),
        }
    }

    fn on_connect(&self, client: &Client) {
        self.shared.notify(|| Event::Connect(client.clone()));
    }

    fn on_disconnect(&self, client: &Client, reason: &CloseReason) {
        self.shared.notify(|| Event::Disconnect {
            client: client.clone(),
            reason: reason.clone(),
        });
    }

    fn on_uplink_lost(&self, uplink: &Uplink, reason: LostReason) {
        self.shared.notify(|| Event::UplinkLost {
            uplink: uplink.clone(),
            reason,
        });
    }

    fn on_mailbox_lost(&self, client_id: &ClientId, reason: &str, count: u64) {
        self.shared.notify(|| Event::MailboxLost {
            client_id: client_id.clone(),
            reason: reason.to_owned(),
            count,
        });
    }

    fn on_state(&self, state: &State) {
        self.shared.notify(|| Event::State(state.clone()));
    }
}

/// What both ends hold.
struct Shared {
    options: EventOptions,
    notifier: Notifier,
    state: Mutex<Queues>,
}

impl Shared {
    /// Accepts an uplink for the host while there is room; beyond, lets its session wait.
    fn take(&self, uplink: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Decision::Failed;
        }
        let seq = state.next();
        let has_room = state.taken.len() < self.options.capacity.max(1)
            && state.taken_bytes < self.options.capacity_bytes.max(1);
        let event = Event::Uplink {
            ticket: (!has_room).then_some(ticket),
            uplink: uplink.clone(),
        };
        if has_room {
            state.taken_bytes += uplink.payload.cost();
            state.taken.push_back(Queued { seq, event });
            self.wake(&mut state);
            return Decision::Now(UplinkAction::Drop);
        }
        self.push_waiting(&mut state, seq, event, true);
        Decision::Later(ticket)
    }

    /// Queues what the host must answer.
    fn decide<T>(&self, ticket: Ticket, event: impl FnOnce() -> Event) -> Decision<T> {
        let event = event();
        let mut state = self.state.lock();
        if state.is_closed {
            return Decision::Failed;
        }
        let seq = state.next();
        self.push_waiting(&mut state, seq, event, false);
        Decision::Later(ticket)
    }

    fn push_waiting(&self, state: &mut Queues, seq: u64, event: Event, is_parked: bool) {
        let since = Instant::now();
        if state.decisions.len() >= self.options.capacity {
            // Each session has one live decision, so what is beyond that has run out of time; it is at the front.
            let time = self.options.decision_time;
            while let Some(oldest) = state.decisions.front() {
                if since.duration_since(oldest.since) < time {
                    break;
                }
                state.decisions.pop_front();
            }
        }
        state.decisions.push_back(Waiting {
            seq,
            since,
            event,
            is_parked,
        });
        self.wake(state);
    }

    /// Queues what the host is told.
    fn notify(&self, event: impl FnOnce() -> Event) {
        if !self.options.notices {
            return;
        }
        let event = event();
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        if state.notices.len() >= self.options.capacity.max(1) {
            state.notices.pop_front();
            state.dropped += 1;
        }
        let seq = state.next();
        state.notices.push_back(Queued { seq, event });
        self.wake(&mut state);
    }

    /// Makes the descriptor readable: one write per change from empty to not empty.
    fn wake(&self, state: &mut Queues) {
        if !std::mem::replace(&mut state.is_notified, true) {
            self.notifier.notify();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The host learns it when it drains again: one line, however many there were.
fn tell_dropped(dropped: u64) {
    if dropped > 0 {
        tracing::warn!(
            count = dropped,
            "Event queue dropped its oldest notices: the host fell behind"
        );
    }
}

/// Accepts the uplinks at these places for the host. One whose time ran out before is counted as lost by the bridge, so
/// it is taken out again. In place, since the session's next uplink may be queued as soon as its ticket is answered.
fn accept_waiting(places: &[usize], events: &mut Vec<Event>, resolve: &Resolve) {
    let mut late = Vec::new();
    for &place in places {
        let Event::Uplink { ticket, .. } = &mut events[place] else {
            continue;
        };
        let accepted = ticket
            .take()
            .is_some_and(|t| resolve(t, Answer::Uplink(UplinkAction::Drop)).is_ok());
        if !accepted {
            late.push(place);
        }
    }
    for place in late.into_iter().rev() {
        events.remove(place);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, thread, time::SystemTime};

    use super::*;
    use crate::types::{ClientId, Payload, SessionId};

    fn uplink(session: u64, seq: u64, text: &str) -> Uplink {
        let id = ClientId::new(format!("dev{session}")).unwrap();
        Uplink::new(id, SessionId(session), seq, Payload::text(text))
    }

    fn client(session: u64) -> Client {
        Client {
            client_id: ClientId::new(format!("dev{session}")).unwrap(),
            session_id: SessionId(session),
            epoch: 0,
            remote_addr: SocketAddr::from(([127, 0, 0, 1], 9)).into(),
            connected_at: SystemTime::UNIX_EPOCH,
            context: None,
            last_seen: SystemTime::UNIX_EPOCH,
        }
    }

    fn queue(options: EventOptions) -> (Arc<EventHooks>, EventQueue) {
        EventQueue::new(options).unwrap()
    }

    fn drained(queue: &EventQueue, max: usize) -> Vec<Event> {
        let mut events = Vec::new();
        queue.drain(max, &mut events);
        events
    }

    /// Who and what: `c1` a connect of session 1, `u1.2` its second uplink, `d1` its end.
    fn names(events: &[Event]) -> Vec<String> {
        let name = |event: &Event| match event {
            Event::Connect(c) => format!("c{}", c.session_id),
            Event::Disconnect { client, .. } => format!("d{}", client.session_id),
            Event::Uplink { uplink, .. } => format!("u{}.{}", uplink.session_id, uplink.seq),
            other => format!("{other:?}"),
        };
        events.iter().map(name).collect()
    }

    fn is_readable(queue: &EventQueue) -> bool {
        queue.wait(Duration::ZERO)
    }

    #[test]
    fn events_come_in_order_over_all_queues() {
        let (hooks, queue) = queue(EventOptions::default().uplinks(Uplinks::Take));
        hooks.on_connect(&client(1));
        for seq in 1..=2 {
            let decision = hooks.on_uplink(&uplink(1, seq, "x"), Ticket(seq));
            assert_eq!(decision, Decision::Now(UplinkAction::Drop));
        }
        hooks.on_disconnect(&client(1), &CloseReason::Lost);
        assert_eq!(names(&drained(&queue, 2)), ["c1", "u1.1"]);
        assert_eq!(names(&drained(&queue, 9)), ["u1.2", "d1"]);
        assert_eq!(drained(&queue, 9).len(), 0);
    }

    #[test]
    fn the_descriptor_is_readable_exactly_while_something_is_there() {
        let (hooks, queue) = queue(EventOptions::default());
        assert!(!is_readable(&queue));
        hooks.on_connect(&client(1));
        hooks.on_connect(&client(2));
        drained(&queue, 1);
        assert!(is_readable(&queue), "one is left");
        drained(&queue, 1);
        assert!(!is_readable(&queue));
        queue.wake();
        assert!(is_readable(&queue));
        assert_eq!(drained(&queue, 1).len(), 0);
        assert!(!is_readable(&queue));
    }

    #[test]
    fn to_who_drains_on_it_stays_readable_until_nothing_is_found() {
        let (hooks, queue) = queue(EventOptions::default());
        hooks.on_connect(&client(1));
        let mut events = Vec::new();
        assert_eq!(queue.drain_on(9, &mut events), 1);
        assert!(is_readable(&queue));
        assert_eq!(queue.drain_on(9, &mut events), 0);
        assert!(!is_readable(&queue));
        hooks.on_connect(&client(2));
        assert!(is_readable(&queue), "what comes later notifies");
        assert_eq!(events.len(), 1);
    }

    #[test]
    fn no_notification_is_lost_between_two_threads() {
        let (hooks, queue) = queue(EventOptions::default().capacity(1 << 20));
        let sender = thread::Builder::new()
            .spawn(move || (0..50_000).for_each(|n| hooks.on_connect(&client(n))))
            .unwrap();
        let mut events = Vec::new();
        while events.len() < 50_000 {
            assert!(queue.wait(Duration::from_secs(20)), "at {}", events.len());
            queue.drain(7, &mut events);
        }
        sender.join().unwrap();
        let order: Vec<u64> = events
            .iter()
            .map(|e| match e {
                Event::Connect(c) => c.session_id.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(order.is_sorted());
    }

    #[test]
    fn a_full_queue_makes_sessions_wait_and_draining_accepts_them_in_order() {
        let (hooks, queue) = queue(EventOptions::default().capacity(1).uplinks(Uplinks::Take));
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&accepted);
        queue.attach(move |ticket, answer| {
            assert_eq!(answer, Answer::Uplink(UplinkAction::Drop));
            if ticket == Ticket(3) {
                return Err(Error::new(ErrorKind::Ticket, "timed out"));
            }
            log.lock().push(ticket.0);
            Ok(())
        });
        let decide = |session, ticket| hooks.on_uplink(&uplink(session, 1, "x"), Ticket(ticket));
        assert_eq!(decide(1, 1), Decision::Now(UplinkAction::Drop));
        assert_eq!(decide(2, 2), Decision::Later(Ticket(2)));
        assert_eq!(decide(3, 3), Decision::Later(Ticket(3)));
        assert_eq!(decide(4, 4), Decision::Later(Ticket(4)));
        let events = drained(&queue, 9);
        assert_eq!(names(&events), ["u1.1", "u2.1", "u4.1"], "3 is lost");
        assert!(events.iter().all(|e| e.ticket().is_none()));
        assert_eq!(*accepted.lock(), [2, 4]);
        assert_eq!(decide(1, 5), Decision::Now(UplinkAction::Drop));
    }

    #[test]
    fn bytes_bound_what_is_taken_too() {
        let options = EventOptions::default().capacity_bytes(400);
        let (hooks, queue) = queue(options.uplinks(Uplinks::Take));
        let long = "x".repeat(200);
        let first = hooks.on_uplink(&uplink(1, 1, &long), Ticket(1));
        assert_eq!(first, Decision::Now(UplinkAction::Drop));
        hooks.on_uplink(&uplink(1, 2, &long), Ticket(2));
        let third = hooks.on_uplink(&uplink(1, 3, &long), Ticket(3));
        assert_eq!(third, Decision::Later(Ticket(3)));
        assert_eq!(drained(&queue, 9).len(), 2, "nobody is attached to accept");
        assert_eq!(queue.len(), 1);
        queue.attach(|_, _| Ok(()));
        assert_eq!(drained(&queue, 9).len(), 1);
    }

    #[test]
    fn too_many_notices_cost_the_oldest_and_are_counted() {
        let (hooks, queue) = queue(EventOptions::default().capacity(2));
        (1..=5).for_each(|n| hooks.on_connect(&client(n)));
        assert_eq!(names(&drained(&queue, 9)), ["c4", "c5"]);
        assert_eq!(queue.dropped(), 3);
    }

    #[test]
    fn decisions_beyond_the_capacity_fit_and_dead_ones_make_room() {
        let options = EventOptions::default().capacity(2).uplinks(Uplinks::Decide);
        let (hooks, alive) = queue(options.clone());
        (1..=9).for_each(|n| drop(hooks.on_uplink(&uplink(n, 1, "x"), Ticket(n))));
        assert_eq!(alive.len(), 9);
        let (hooks, dead) = queue(options.decision_time(Duration::ZERO));
        (1..=9).for_each(|n| drop(hooks.on_uplink(&uplink(n, 1, "x"), Ticket(n))));
        assert_eq!(names(&drained(&dead, 99)), ["u9.1"]);
    }

    #[test]
    fn closing_fails_what_is_undecided_and_keeps_what_was_told() {
        let (hooks, queue) = queue(EventOptions::default().uplinks(Uplinks::Decide));
        let failed = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&failed);
        queue.attach(move |ticket, answer| {
            assert_eq!(answer, Answer::Failed);
            log.lock().push(ticket);
            Ok(())
        });
        hooks.on_connect(&client(1));
        hooks.on_uplink(&uplink(1, 1, "x"), Ticket(7));
        queue.close();
        assert_eq!(*failed.lock(), [Ticket(7)]);
        assert_eq!(Arc::strong_count(&failed), 1, "the closure is let go");
        let late = hooks.on_uplink(&uplink(1, 2, "x"), Ticket(8));
        assert_eq!(late, Decision::Failed);
        hooks.on_connect(&client(2));
        assert!(queue.wait(Duration::from_secs(9)), "wait ends at once");
        assert_eq!(names(&drained(&queue, 9)), ["c1"]);
        assert!(is_readable(&queue), "as a socket at its end");
    }

    #[test]
    fn each_send_that_does_not_wait_has_one_result_whatever_becomes_of_it() {
        let (hooks, queue) = queue(EventOptions::default().capacity(2).notices(false));
        let (id, payload) = (ClientId::new("dev1").unwrap(), Payload::text("x"));
        let begin = |tag| queue.begin_send(&id, &payload, tag);
        let (first, second) = (begin(1).unwrap(), begin(2).unwrap());
        assert!(begin(3).is_none(), "there is no place for a third");
        first.tell(Ok(Sent::Elsewhere));
        hooks.on_connect(&client(1));
        assert!(begin(3).is_none(), "the result is not drained");
        queue.close();
        drop(second);
        let told: Vec<_> = drained(&queue, 9)
            .into_iter()
            .map(|event| match event {
                Event::Sent { tag, result, .. } => (tag, result.map_err(|e| e.kind())),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            told,
            [(1, Ok(Sent::Elsewhere)), (2, Err(ErrorKind::Stopped))]
        );
        assert!(begin(3).is_some(), "now there is");
    }

    #[test]
    fn bytes_bound_what_is_being_sent_too() {
        let (_hooks, queue) = queue(EventOptions::default().capacity_bytes(400));
        let id = ClientId::new("dev1").unwrap();
        let begin = |tag| queue.begin_send(&id, &Payload::text("x".repeat(200)), tag);
        let (first, _second) = (begin(1).unwrap(), begin(2).unwrap());
        assert!(begin(3).is_none());
        first.tell(Ok(Sent::Offline));
        assert!(
            begin(3).is_some(),
            "the message is gone, its result is small"
        );
    }

    #[test]
    fn nothing_is_asked_that_the_host_did_not_want() {
        let (hooks, queue) = queue(EventOptions::default().notices(false));
        hooks.on_connect(&client(1));
        hooks.on_state(&State::Running);
        let decision = hooks.on_uplink(&uplink(1, 1, "x"), Ticket(1));
        assert_eq!(decision, Decision::Now(UplinkAction::Forward));
        assert!(queue.is_empty() && !is_readable(&queue));
    }
}
