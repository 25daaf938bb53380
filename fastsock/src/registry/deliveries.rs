//! Kept downlinks on their way from the mailboxes to the seats of their devices, and out of the mailboxes once the devices have them.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Registry, seat::Seat};
use crate::{
    broker::{Broker, Deliver},
    error::Result,
    mailbox::{
        Kept, Mailbox, Message, Owner, Visit,
        due::{Due, Removal},
    },
    pure::kept::{Form, Turn},
    stats::{MailboxBooks, MailboxCounts, MailboxLost},
    tasks::{BoxFuture, Tasks},
    types::{ClientId, MailboxState, Sent},
};

/// Visits the mailboxes that are due.
pub(crate) struct Deliveries {
    registry: Arc<Registry>,
    broker: Arc<dyn Broker>,
    mailbox: Arc<dyn Mailbox>,
    due: Arc<Due>,
    counts: MailboxCounts,
    /// Hears of what mailboxes have lost: which device, why, and how many.
    listener: OnceLock<LossListener>,
}

type LossListener = Box<dyn Fn(&ClientId, &'static str, u64) + Send + Sync>;

impl Deliveries {
    /// Visits mailboxes from now on, until the workers stop.
    pub(crate) fn start(
        registry: Arc<Registry>,
        broker: Arc<dyn Broker>,
        mailbox: Arc<dyn Mailbox>,
        age: Duration,
        workers: &Tasks,
    ) -> Arc<Self> {
        let due = Arc::clone(registry.due());
        let deliveries = Arc::new(Self {
            registry,
            broker,
            mailbox,
            due,
            counts: MailboxCounts::default(),
            listener: OnceLock::new(),
        });
        workers.spawn_until_stopped(Arc::clone(&deliveries).run());
        let every = (age / 16).clamp(SWEEP_EVERY.0, SWEEP_EVERY.1);
        workers.spawn_until_stopped(Arc::clone(&deliveries).sweep(every));
        deliveries
    }

    /// The session of a seat begins: from now on it gets what is kept for its device.
    pub(crate) fn begin(&self, seat: &Seat, form: Form) {
        seat.open_mailbox(form);
        self.due.add(&seat.client_id);
    }

    /// There is a reason to visit the mailbox of a device.
    pub(crate) fn visit_soon(&self, client_id: &ClientId) {
        self.due.add(client_id);
    }

    /// The size of the file of the mailboxes, if they have one.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        self.mailbox.file_bytes()
    }

    /// Puts a message into the mailbox of a device.
    pub(crate) async fn keep(&self, client_id: &ClientId, message: Message) -> Result<Kept> {
        let ids = std::slice::from_ref(client_id);
        let is_here = self.registry.is_seated(client_id.as_str());
        let (kept, elsewhere) = tokio::join!(self.mailbox.keep(client_id, message), async {
            !is_here && matches!(self.broker.elsewhere(ids).await.as_deref(), Some([Some(_)]))
        });
        let (mut kept, losses) = kept?;
        if !self.mailbox.rings() {
            self.due.add(client_id);
        }
        kept.sent = match elsewhere {
            _ if is_here => Sent::Here,
            true => Sent::Elsewhere,
            false => Sent::Kept,
        };
        let is_repeated = kept.is_repeated;
        self.counts.change(|books| {
            books.kept += u64::from(!is_repeated);
            books.repeated += u64::from(is_repeated);
        });
        for (client_id, lost) in losses {
            self.tell_lost(&client_id, lost);
        }
        Ok(kept)
    }

    /// What the mailbox of a device holds.
    pub(crate) async fn state(&self, client_id: &ClientId) -> Result<MailboxState> {
        self.mailbox.state(client_id).await
    }

    /// Empties the mailbox of a device. Returns how many messages it held.
    pub(crate) async fn clear(&self, client_id: &ClientId) -> Result<u64> {
        self.mailbox.clear(client_id).await
    }

    /// What came of all that.
    pub(crate) fn books(&self) -> MailboxBooks {
        self.counts.snapshot()
    }

    /// The session of a seat has ended: what its device has is removed, if it was not yet.
    pub(crate) fn end(&self, seat: &Seat) {
        let ids = seat.close_mailbox();
        if !ids.is_empty() {
            let owner = self.owner(seat);
            self.due.add_removal(Removal { owner, ids });
        }
    }

    /// Resolves once nothing is left to be removed.
    pub(crate) async fn settled(&self) {
        self.due.settled().await;
    }

    /// From now on this is told of what mailboxes have lost. Once.
    pub(crate) fn listen_for_losses(
        &self,
        listener: impl Fn(&ClientId, &'static str, u64) + Send + Sync + 'static,
    ) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// Sees to the mailboxes of devices that never return.
    async fn sweep(self: Arc<Self>, every: Duration) {
        loop {
            sleep(every).await;
            let tell = |client_id: &ClientId, lost| self.tell_lost(client_id, lost);
            match self.mailbox.sweep(&tell).await {
                Ok(is_done) => {
                    self.counts
                        .change(|books| books.sweeps += u64::from(is_done));
                }
                Err(error) => {
                    tracing::debug!(error = error.to_line(), "The mailboxes could not be swept");
                }
            }
        }
    }

    async fn run(self: Arc<Self>) {
        let mut visits: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut seconds = interval(AGAIN_AFTER);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while visits.len() < AT_ONCE {
                if let Some(removal) = self.due.next_removal() {
                    visits.push(Box::pin(self.remove(removal)));
                } else if let Some(client_id) = self.due.next() {
                    visits.push(Box::pin(self.visit(client_id)));
                } else {
                    break;
                }
            }
            tokio::select! {
                Some(()) = visits.next(), if !visits.is_empty() => {}
                () = self.due.added(), if visits.len() < AT_ONCE => {}
                _ = seconds.tick() => {
                    if self.mailbox.is_up() {
                        self.due.resume();
                    }
                }
            }
        }
    }

    async fn visit(&self, client_id: ClientId) {
        let Some(seat) = self.registry.find(client_id.as_str()) else {
            return self.due.visited(&client_id);
        };
        let Some(turn) = seat.begin_visit() else {
            return self.due.visited(&client_id); // it has not begun, or is about to leave
        };
        match self.mailbox.visit(&self.owner(&seat), &turn).await {
            Ok(visit) => {
                self.take(&seat, &turn, visit);
                self.due.visited(&client_id);
            }
            Err(error) => {
                tracing::debug!(%client_id, error = error.to_line(), "A mailbox could not be visited");
                seat.fail_visit(turn);
                self.due.put_off(&client_id);
            }
        }
    }

    fn take(&self, seat: &Seat, turn: &Turn, visit: Visit) {
        if visit.is_fenced {
            return; // a newer session has the device; this one will hear of it
        }
        self.counts.change(|books| {
            books.delivered += turn.remove.len() as u64;
            books.read += visit.entries.len() as u64;
        });
        self.tell_lost(&seat.client_id, visit.lost);
        seat.end_visit(visit);
    }

    async fn remove(&self, Removal { owner, ids }: Removal) {
        let turn = Turn {
            remove: ids,
            ..Turn::default()
        };
        match self.mailbox.visit(&owner, &turn).await {
            Ok(visit) if !visit.is_fenced => {
                let removed = turn.remove.len() as u64;
                self.counts.change(|books| books.delivered += removed);
                self.tell_lost(&owner.client_id, visit.lost);
            }
            Ok(_) => {} // the next session gets it again
            Err(error) => {
                let client_id = &owner.client_id;
                tracing::debug!(%client_id, error = error.to_line(), "A mailbox could not be visited");
            }
        }
        self.due.removed();
    }

    /// Counts and logs what a mailbox has lost.
    pub(crate) fn tell_lost(&self, client_id: &ClientId, lost: MailboxLost) {
        if lost == MailboxLost::default() {
            return;
        }
        self.counts.change(|books| {
            books.lost.full += lost.full;
            books.lost.expired += lost.expired;
            books.lost.bad += lost.bad;
        });
        for (reason, count) in lost.by_reason() {
            tracing::warn!(name: "downlinks_lost", %client_id, reason, count, "Lost downlinks");
            if let Some(listener) = self.listener.get() {
                listener(client_id, reason, count);
            }
        }
    }

    fn owner(&self, seat: &Seat) -> Owner {
        Owner {
            client_id: seat.client_id.clone(),
            node: self.broker.node().clone(),
            session_id: seat.session_id,
            epoch: seat.epoch(),
        }
    }
}

/// Mailboxes visited at once.
const AT_ONCE: usize = 64;
/// How often all are gone through, at least and at most: 16 times in the life of a message.
const SWEEP_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How soon a visit that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
