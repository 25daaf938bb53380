//! What is logged and told of uplinks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};

use super::item::{GivenUp, Item, Observer};
#[cfg(feature = "otlp")]
use crate::otlp::{Posted, Spans};
use crate::{
    config::Gone,
    forwarder::Outcome,
    locks::Mutex,
    pure::tally::{EVERY, Tally},
    registry::Registry,
    status::Status,
    tasks::Tasks,
    trace::Traced,
    types::{ClientId, CloseReason, DeadLetter, LostReason, Uplink},
};

/// Logs what becomes of uplinks, and tells the hooks what is lost.
pub(crate) struct UplinkObserver {
    registry: Arc<Registry>,
    status: Arc<Status>,
    /// Of the default route, and of those that differ from it.
    gone: Gone,
    gone_of: Vec<(Arc<str>, Gone)>,
    /// Whether it was told that there is nowhere to forward what hooks want forwarded.
    was_told_of_no_remote: AtomicBool,
    /// What a collector hears of POSTs.
    #[cfg(feature = "otlp")]
    spans: Option<Arc<Spans>>,
    /// How many are lost, by the reason.
    losses: Arc<Mutex<Tally<LostReason>>>,
}

impl UplinkObserver {
    pub(crate) fn new(registry: Arc<Registry>, status: Arc<Status>, gone: Gone) -> Self {
        Self {
            registry,
            status,
            gone,
            gone_of: Vec::new(),
            was_told_of_no_remote: AtomicBool::new(false),
            #[cfg(feature = "otlp")]
            spans: None,
            losses: Arc::new(Mutex::new(Tally::new())),
        }
    }

    /// The same, telling a collector of each POST.
    #[cfg(feature = "otlp")]
    pub(crate) fn with_spans(mut self, spans: Option<Arc<Spans>>) -> Self {
        self.spans = spans;
        self
    }

    /// Has a task tell of the last losses, after which nothing more is lost.
    pub(crate) fn telling_of_the_last(self, workers: &Tasks) -> Self {
        let waiting = self.losses.clone();
        workers.spawn_until_stopped(async move {
            loop {
                sleep(EVERY).await;
                let due = waiting.lock().due(Instant::now());
                due.into_iter().for_each(tell_losses);
            }
        });
        self
    }
}

impl Drop for UplinkObserver {
    fn drop(&mut self) {
        let rest = self.losses.lock().rest(Instant::now());
        rest.into_iter().for_each(tell_losses);
    }
}

/// So many are lost that no line has told of.
fn tell_losses((reason, count): (LostReason, u64)) {
    tracing::warn!(name: "uplinks_lost", reason = reason.as_str(), count, "Lost uplinks");
}

impl UplinkObserver {
    /// The same, with what a 410 does on these routes.
    pub(crate) fn with_routes(mut self, gone_of: Vec<(Arc<str>, Gone)>) -> Self {
        self.gone_of = gone_of;
        self
    }

    fn gone_of(&self, uplink: &Uplink) -> Gone {
        let Some(route) = uplink.route() else {
            return self.gone;
        };
        let mut routes = self.gone_of.iter();
        let found = routes.find(|(name, _)| **name == *route);
        found.map_or(Gone::Ignore, |(_, gone)| *gone)
    }
}

impl Item for Uplink {
    fn key(&self) -> &ClientId {
        &self.client_id
    }

    fn bytes(&self) -> usize {
        self.payload.cost()
    }

    fn made_at(&self) -> SystemTime {
        self.replayed_at.unwrap_or(self.received_at)
    }

    fn route(&self) -> Option<&str> {
        self.context.as_ref()?.route.as_deref()
    }
}

impl Observer<Uplink> for UplinkObserver {
    fn attempted(&self, uplink: &Uplink, outcome: &Outcome, took: Duration) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = &self.spans {
            spans.take(&Posted {
                uplink,
                status: outcome.status(),
                error: (!outcome.is_delivered()).then(|| outcome.to_string()),
                took,
            });
        }
        let tracer = &self.status.tracer;
        tracer.tell(uplink.client_id.as_str(), |_| Traced::Post {
            session_id: uplink.session_id.0,
            seq: uplink.seq,
            status: outcome.status(),
            error: (!outcome.is_delivered()).then(|| outcome.to_string()),
            took_ms: took.as_micros() as f64 / 1e3,
            route: uplink.route().map(str::to_owned),
        });
    }

    fn delivered(&self, uplink: &Uplink) {
        tracing::trace!(
            name: "message_forwarded", target: "fastsock::messages",
            client_id = %uplink.client_id, session_id = uplink.session_id.0, data = %uplink.payload.to_text(),
            "Forwarded message to remote"
        );
    }

    /// The original's error line for the first failure of a message; between that and its loss, at debug.
    fn put_off(&self, uplink: &Uplink, number: u32, attempt: &Outcome, wait: Duration) {
        let (client_id, session_id) = (&uplink.client_id, uplink.session_id.0);
        let retry_in_ms = wait.as_millis() as u64;
        if number == 1 {
            let data = uplink.payload.to_text();
            tracing::error!(name: "forward_failed", %client_id, session_id, attempt = number, retry_in_ms, error = %attempt, %data, "Failed to forward message to remote");
        } else {
            tracing::debug!(name: "forward_retry", %client_id, session_id, attempt = number, retry_in_ms, error = %attempt, "Failed to forward message to remote");
        }
    }

    fn lost(&self, uplink: &Uplink, reason: LostReason, attempt: Option<&Outcome>) {
        let (client_id, session_id) = (&uplink.client_id, uplink.session_id.0);
        let (data, lost) = (uplink.payload.to_text(), reason.as_str());
        let error = attempt.map_or_else(|| reason.to_string(), ToString::to_string);
        // `stop` says in one line how many; these are for whoever wants to have them back.
        if reason == LostReason::Shutdown {
            tracing::debug!(name: "forward_failed", %client_id, session_id, reason = lost, is_lost = true, %data, "Failed to forward message to remote");
        } else {
            tracing::error!(name: "forward_failed", %client_id, session_id, reason = lost, is_lost = true, %error, %data, "Failed to forward message to remote");
            let count = self.losses.lock().count(reason, Instant::now());
            if let Some(count) = count {
                tell_losses((reason, count));
            }
        }
        self.status.hook("on_uplink_lost", |hooks| {
            hooks.on_uplink_lost(uplink, reason)
        });
    }

    /// A warning for the first of the bridge.
    fn undeliverable(&self, uplink: &Uplink) {
        let (client_id, session_id) = (&uplink.client_id, uplink.session_id.0);
        let data = uplink.payload.to_text();
        if self.was_told_of_no_remote.swap(true, Relaxed) {
            tracing::debug!(name: "forward_skipped", %client_id, session_id, %data, "Message forwarding skipped: no REMOTE_URL set");
        } else {
            tracing::warn!(name: "forward_skipped", %client_id, session_id, %data, "Message forwarding skipped: no REMOTE_URL set");
        }
    }

    fn gone(&self, uplink: &Uplink) {
        if self.gone_of(uplink) == Gone::Close {
            let (id, session_id) = (uplink.client_id.as_str(), uplink.session_id);
            self.registry.close(id, Some(session_id), CloseReason::Gone);
        }
    }

    fn outage(&self, route: &str) {
        let route = named(route);
        tracing::warn!(
            route,
            "the remote takes no messages; the gateway holds them until it does"
        );
    }

    fn recovered(&self, route: &str) {
        tracing::warn!(route = named(route), "the remote takes messages again");
    }

    fn misconfigured(&self, route: &str, attempt: &Outcome) {
        let route = named(route);
        tracing::error!(route, error = %attempt, "the remote refuses every message; check REMOTE_URL and REMOTE_HEADERS");
    }

    fn dead_letter(&self, uplink: &Uplink, given_up: GivenUp) -> Option<DeadLetter> {
        Some(DeadLetter {
            uplink: uplink.clone(),
            reason: given_up.reason,
            status: given_up.status,
            error: given_up.error,
            attempts: given_up.attempts,
            first_attempt_at: given_up.first_attempt_at,
            last_attempt_at: given_up.last_attempt_at,
            given_up_at: SystemTime::now(),
            headers: given_up.headers,
        })
    }
}

/// The name of a route for the log, where the default one has none.
fn named(route: &str) -> Option<&str> {
    (!route.is_empty()).then_some(route)
}
