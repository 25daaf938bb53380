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
mod options;
mod queues;

use std::{
    fmt,
    os::fd::BorrowedFd,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    event::Event,
    options::{EventOptions, Uplinks},
};
use self::{
    notifier::Notifier,
    queues::{Queued, Queues, Resolve, Waiting},
};
use crate::{
    error::{Error, ErrorKind, Result},
    hooks::{Admission, Answer, Decision, Hooks, UplinkAction},
    locks::Mutex,
    types::{
        Client, ClientId, CloseReason, ConnectRequest, LostReason, Payload, Sent, State, Ticket,
        Uplink,
    },
};

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
mod tests;
