//! What all tasks of one bridge hold.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::time::Instant;

#[cfg(feature = "tls")]
use crate::net::tls::ServerTls;
use crate::{
    auth::Auth,
    broker::{Broker, Deliver},
    config::{Config, origin::Origin},
    host::{decisions::Decisions, lifecycle::Lifecycle},
    net::proxy,
    pure::{
        ahead::AllAhead,
        limits::{AddressPlace, Addresses},
        receipts::Receipts,
    },
    registry::{
        Registry,
        downlinks::Downlinks,
        seat::{Seat, Told},
    },
    stats::{Running, SessionBooks, closed_key},
    status::Status,
    tasks::Tasks,
    types::{CloseReason, SessionId},
    uplinks::Lanes,
};

/// What all tasks of one bridge hold.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) auth: Auth,
    pub(crate) status: Arc<Status>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) broker: Arc<dyn Broker>,
    /// What devices were told of the uplinks they named.
    pub(crate) receipts: Receipts,
    /// Tells a backend of who comes and goes, if there is one to tell.
    pub(crate) lifecycle: Option<Arc<Lifecycle>>,
    pub(crate) running: Arc<Running>,
    /// When this bridge was built; what heartbeats are aligned to.
    pub(crate) started: Instant,
    /// The accept loop and handshakes.
    pub(crate) gateway: Tasks,
    /// One task per session.
    pub(crate) sessions: Tasks,
    /// Forwarding, the broker's links, the admin listener.
    pub(crate) workers: Tasks,
    /// What the host decides.
    pub(crate) decisions: Arc<Decisions>,
    pub(crate) downlinks: Downlinks,
    /// Sessions and handshakes right now.
    pub(crate) connections: Arc<AtomicUsize>,
    /// The same by address, if that is limited.
    pub(crate) addresses: Option<Arc<Addresses>>,
    /// What the device port shows under TLS; `None` when it is plain.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<ServerTls>,
    /// Whose word on a device's address is taken.
    pub(crate) trusted: Vec<IpNet>,
    /// Pages that may connect; empty: any.
    pub(crate) origins: Vec<Origin>,
    /// Sockets that only wait for their peer to read a close frame or a refusal.
    pub(crate) lingering: Arc<AtomicUsize>,
    /// What sessions have read ahead.
    pub(crate) ahead: Arc<AllAhead>,
    pub(crate) next_session: AtomicU64,
    pub(crate) books: Mutex<SessionBooks>,
}

impl Shared {
    /// A number for a new session; never reused, never 0.
    pub(crate) fn session_id(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Relaxed) + 1)
    }

    /// Counts, logs and tells that a session began, after the end of the one before it; nothing if it has left already.
    pub(crate) fn welcome(&self, seat: &Seat) {
        let mut told = seat.told();
        let Told::Nothing(before) = &mut *told else {
            return;
        };
        if let Some(before) = before.take() {
            self.farewell_to_predecessor(&before);
        }
        *told = Told::Came;
        self.books.lock().opened += 1;
        tracing::debug!(
            name: "client_connected",
            client_id = %seat.client_id, session_id = seat.session_id.0, remote_addr = %seat.remote_addr, "Client connected"
        );
        self.status
            .hook("on_connect", |hooks| hooks.on_connect(&seat.client()));
        if let Some(lifecycle) = &self.lifecycle {
            lifecycle.came(&seat.client());
        }
    }

    /// Empties the seat of a session that ends, unless it was taken over, and tells the world, last.
    pub(crate) fn see_off(&self, seat: &Seat, reason: &CloseReason) {
        if self.registry.unseat(seat, reason) {
            self.broker.unseated(&seat.client_id, seat.session_id);
        }
        seat.tell_last_losses(reason);
        self.farewell(seat, reason);
        self.registry.forget(seat);
    }

    /// Counts, logs and tells that a session ended; once, whoever comes first, and only if it was told that it began.
    fn farewell(&self, seat: &Seat, reason: &CloseReason) {
        let mut told = seat.told();
        match std::mem::replace(&mut *told, Told::Left) {
            Told::Nothing(Some(before)) => return self.farewell_to_predecessor(&before),
            Told::Nothing(None) | Told::Left => return,
            Told::Came => {}
        }
        *self
            .books
            .lock()
            .closed
            .entry(closed_key(reason).to_owned())
            .or_default() += 1;
        let (client_id, session_id) = (&seat.client_id, seat.session_id.0);
        if *reason == CloseReason::NoLife {
            tracing::debug!(name: "client_timeouted", %client_id, session_id, reason = reason.as_str(), "Client timeouted");
        }
        tracing::debug!(name: "client_disconnected", %client_id, session_id, reason = reason.as_str(), code = reason.code(), "Client disconnected");
        self.status.hook("on_disconnect", |hooks| {
            hooks.on_disconnect(&seat.client(), reason)
        });
        if let Some(lifecycle) = &self.lifecycle {
            let has_successor = self.registry.is_seated(seat.client_id.as_str());
            lifecycle.left(&seat.client(), reason, has_successor);
        }
    }

    /// It was told to close, or has left already; its own task may only not have come to telling it.
    fn farewell_to_predecessor(&self, before: &Seat) {
        let reason = before.closing().unwrap_or(CloseReason::Replaced);
        self.farewell(before, &reason);
    }

    /// The session books.
    pub(crate) fn session_books(&self) -> SessionBooks {
        let books = self.books.lock().clone();
        SessionBooks {
            connected: self.registry.len() as u64,
            read_ahead_bytes: self.ahead.bytes() as u64,
            ..books
        }
    }

    /// Whether an address is that of a trusted proxy.
    pub(crate) fn is_proxy(&self, ip: IpAddr) -> bool {
        proxy::is_trusted(&self.trusted, ip)
    }

    /// Counts a refused handshake.
    pub(crate) fn count_refusal(&self, status: u16) {
        *self.books.lock().refused.entry(status).or_default() += 1;
    }

    /// Drops whatever runs, without waiting: the last handle is gone.
    pub(crate) fn abort(&self) {
        self.gateway.stop();
        self.registry.close_all(&CloseReason::Shutdown);
        self.workers.stop();
        self.sessions.stop();
        self.decisions.abort();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("status", &self.status)
            .field("registry", &self.registry)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}

/// What a connection holds for as long as it lives.
#[derive(Debug)]
pub(crate) struct Places {
    _connection: Place,
    /// Its place among those of its address, if they are limited.
    of_address: Option<Box<AddressPlace>>,
}

impl Places {
    pub(crate) fn of(connection: Place) -> Self {
        Self {
            _connection: connection,
            of_address: None,
        }
    }

    /// Takes a place among those of the device's address, as soon as that is known. `false`: it has too many.
    pub(crate) fn take_of_address(&mut self, shared: &Shared, ip: IpAddr) -> bool {
        let Some(addresses) = &shared.addresses else {
            return true;
        };
        if self.of_address.is_some() || shared.is_proxy(ip) {
            return true;
        }
        self.of_address = addresses.take(ip);
        self.of_address.is_some()
    }
}

/// A place among the connections, handshakes or lingering sockets; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes one if fewer than `limit` are taken.
    pub(crate) fn take(counter: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let place = Self(counter.clone());
        // The guard exists already: whichever way this goes, what was added is taken back.
        (counter.fetch_add(1, Relaxed) < limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
