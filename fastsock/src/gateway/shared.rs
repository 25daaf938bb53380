//! What all tasks of one bridge hold.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{limits::Limits, notices::Notices, routes::Routes, socket::Codecs};
#[cfg(feature = "tls")]
use crate::net::tls::ServerTls;
#[cfg(feature = "otlp")]
use crate::otlp::Spans;
use crate::{
    broker::Broker,
    config::{Config, origin::Origin},
    histogram::LastMinute,
    host::{announcements::Announcements, decisions::Decisions, lifecycle::Lifecycle},
    pure::{ahead::AllAhead, receipts::Receipts},
    registry::{Registry, callers::Callers, deliveries::Deliveries, downlinks::Downlinks},
    stats::{Running, SessionBooks, SessionCounts},
    status::Status,
    tasks::Tasks,
    types::{CloseReason, SessionId},
    uplinks::Lanes,
};

/// What all tasks of one bridge hold.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) status: Arc<Status>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) broker: Arc<dyn Broker>,
    /// What devices were told of the uplinks they named.
    pub(crate) receipts: Receipts,
    /// Tells a backend of who comes and goes, if there is one to tell.
    pub(crate) lifecycle: Option<Arc<Lifecycle>>,
    pub(crate) running: Arc<Running>,
    /// Metrics tell of the process, too: it is the bridge's own.
    pub(crate) tells_of_process: bool,
    /// What a collector hears of POSTs, if there is one.
    #[cfg(feature = "otlp")]
    pub(crate) spans: Option<Arc<Spans>>,
    /// What took how long lately.
    pub(crate) last_minute: LastMinute,
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
    pub(crate) callers: Callers,
    /// Kept downlinks, if there are mailboxes.
    pub(crate) deliveries: Option<Arc<Deliveries>>,
    pub(crate) announcements: Announcements,
    pub(crate) limits: Limits,
    /// What is told of devices that are turned away.
    pub(crate) notices: Notices,
    /// Cancelled once a drain has begun: nobody new is let in.
    pub(crate) draining: CancellationToken,
    /// Cancelled once it is over: no device is here any more.
    pub(crate) drained: CancellationToken,
    /// What the device port shows under TLS; `None` when it is plain.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<ServerTls>,
    /// Which way devices go, and who decides about those of each.
    pub(crate) routes: Routes,
    /// Pages that may connect; empty: any.
    pub(crate) origins: Vec<Origin>,
    /// What compresses for devices that offer it, if they may.
    pub(crate) codecs: Option<Arc<Codecs>>,
    /// What sessions have read ahead.
    pub(crate) ahead: Arc<AllAhead>,
    pub(crate) next_session: AtomicU64,
    pub(crate) counts: Arc<SessionCounts>,
}

impl Shared {
    /// A number for a new session; never reused, never 0.
    pub(crate) fn session_id(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Relaxed) + 1)
    }

    /// The session books.
    pub(crate) fn session_books(&self) -> SessionBooks {
        SessionBooks {
            connected: self.registry.len() as u64,
            read_ahead_bytes: self.ahead.bytes() as u64,
            ..self.counts.snapshot()
        }
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
