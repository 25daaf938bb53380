//! All figures of a bridge at one moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::process::Process;
use crate::{
    broker::LinkHealth,
    calls::CallFigures,
    gateway::shared::Shared,
    histogram::{Durations, LastMinute},
    spool::SpoolFigures,
    stats::Stats,
    types::State,
    uplinks::{Deliveries, RouteBooks},
    verbs,
};

/// The figures of a bridge at one moment.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) stats: Stats,
    pub(crate) state: State,
    pub(crate) uptime: Duration,
    pub(crate) ping: Durations,
    pub(crate) session_limit: u64,
    pub(crate) limit_hits: [(&'static str, u64); 4],
    /// How long the slowest device has taken nothing of what waits for it.
    pub(crate) longest_stall: Duration,
    /// Those that have members here.
    pub(crate) groups: u64,
    pub(crate) calls: CallFigures,
    pub(crate) uplinks: Deliveries,
    pub(crate) events: Option<Deliveries>,
    /// By name.
    pub(crate) routes: Vec<(String, Deliveries)>,
    /// The same for what went each way, the default one first; empty without routes.
    pub(crate) route_books: Vec<(String, RouteBooks)>,
    pub(crate) redis: Option<LinkHealth>,
    pub(crate) spool: Option<SpoolFigures>,
    pub(crate) is_spool_failing: bool,
    /// The size of the file of the mailboxes, if they have one.
    pub(crate) mailbox_file_bytes: Option<u64>,
    pub(crate) process: Option<Process>,
}

impl Figures {
    pub(crate) fn gather(shared: &Shared) -> Self {
        Self {
            stats: verbs::stats(shared),
            state: shared.status.state(),
            uptime: shared.started.elapsed(),
            ping: shared.running.ping.snapshot(),
            session_limit: shared.limits.most_connections() as u64,
            limit_hits: shared.limits.hits(),
            longest_stall: shared.registry.longest_stall(),
            groups: shared
                .registry
                .groups()
                .map_or(0, |groups| groups.len() as u64),
            calls: shared.registry.calls().figures(),
            uplinks: shared.lanes.deliveries(),
            events: shared.lifecycle.as_ref().map(|l| l.deliveries()),
            routes: shared.lanes.route_deliveries(),
            route_books: match shared.config.routing.routes.is_empty() {
                true => Vec::new(),
                false => shared.lanes.route_books(),
            },
            redis: shared.broker.health(),
            spool: shared.lanes.spool().map(|spool| spool.figures()),
            is_spool_failing: shared.lanes.is_spool_failing(),
            mailbox_file_bytes: shared.deliveries.as_ref().and_then(|d| d.file_bytes()),
            process: shared.tells_of_process.then(Process::read).flatten(),
        }
    }

    /// By destination: the backend of uplinks, that of each route, and that of events if there is one.
    pub(crate) fn destinations(&self) -> impl Iterator<Item = (&str, &Deliveries)> {
        let events = self.events.as_ref().map(|events| ("events", events));
        let routes = self.routes.iter().map(|(name, to)| (name.as_str(), to));
        let remote = [(REMOTE, &self.uplinks)].into_iter();
        remote.chain(routes).chain(events)
    }

    /// What went to each destination of uplinks; nothing without routes.
    pub(crate) fn books_of_routes(&self) -> impl Iterator<Item = (&str, &RouteBooks)> {
        self.route_books.iter().map(|(name, books)| match &**name {
            "" => (REMOTE, books),
            name => (name, books),
        })
    }
}

/// What takes how long: from ping to pong, from a message to its 2xx, a commit of the spool (empty if there is none), and a POST to each
/// of the destinations.
fn timings(shared: &Shared) -> Vec<Durations> {
    let uplinks = shared.lanes.deliveries();
    let routes = shared.lanes.route_deliveries();
    let routes = routes.into_iter().map(|(_, to)| to.seconds);
    let events = shared.lifecycle.as_ref().map(|l| l.deliveries().seconds);
    let spool = shared.lanes.spool().map(|spool| spool.figures());
    let mut timings = vec![
        shared.running.ping.snapshot(),
        uplinks.delivery,
        spool.map(|spool| spool.commits).unwrap_or_default(),
        uplinks.seconds,
    ];
    timings.extend(routes.chain(events));
    timings
}

/// The same, of the last minute alone.
pub(super) fn recent_timings(shared: &Shared) -> Vec<Durations> {
    shared.last_minute.since(Instant::now(), timings(shared))
}

/// Keeps what was counted so far, again and again, for those who ask what is recent.
pub(crate) async fn remember(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LastMinute::EVERY).await;
        shared.last_minute.keep(Instant::now(), timings(&shared));
    }
}

/// The destination of the default route.
const REMOTE: &str = "remote";
