//! What is logged and told of uplinks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use super::item::{GivenUp, Item, Observer};
use crate::{
    config::Gone,
    forwarder::Outcome,
    registry::Registry,
    status::Status,
    types::{ClientId, CloseReason, DeadLetter, LostReason, Uplink},
};

/// Logs what becomes of uplinks, and tells the hooks what is lost.
pub(crate) struct UplinkObserver {
    registry: Arc<Registry>,
    status: Arc<Status>,
    gone: Gone,
    /// Whether it was told that there is nowhere to forward what hooks want forwarded.
    was_told_of_no_remote: AtomicBool,
}

impl UplinkObserver {
    pub(crate) fn new(registry: Arc<Registry>, status: Arc<Status>, gone: Gone) -> Self {
        Self {
            registry,
            status,
            gone,
            was_told_of_no_remote: AtomicBool::new(false),
        }
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
}

impl Observer<Uplink> for UplinkObserver {
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
        if self.gone == Gone::Close {
            let (id, session_id) = (uplink.client_id.as_str(), uplink.session_id);
            self.registry.close(id, Some(session_id), CloseReason::Gone);
        }
    }

    fn outage(&self) {
        tracing::warn!("the remote takes no messages; the gateway holds them until it does");
    }

    fn misconfigured(&self, attempt: &Outcome) {
        tracing::error!(error = %attempt, "the remote refuses every message; check REMOTE_URL and REMOTE_HEADERS");
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
