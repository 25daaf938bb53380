//! What the lanes log.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::Lanes;
use crate::{
    forwarder::{Attempt, Cargo},
    types::{LostReason, Uplink},
};

impl Lanes {
    pub(super) fn log_outage(&self) {
        match self.cargo {
            Cargo::Uplinks => {
                tracing::warn!(
                    "the remote takes no messages; the gateway holds them until it does"
                );
            }
            Cargo::Events => tracing::warn!(
                "FASTSOCK_EVENTS_URL takes no events; the gateway holds them until it does"
            ),
        }
    }

    pub(super) fn log_misconfigured(&self, attempt: &Attempt) {
        match self.cargo {
            Cargo::Uplinks => {
                tracing::error!(error = %attempt, "the remote refuses every message; check REMOTE_URL and REMOTE_HEADERS");
            }
            Cargo::Events => {
                tracing::error!(error = %attempt, "the events backend refuses every event; check FASTSOCK_EVENTS_URL and FASTSOCK_EVENTS_HEADERS");
            }
        }
    }

    pub(super) fn log_delivery(&self, uplink: &Uplink) {
        if self.cargo == Cargo::Uplinks {
            tracing::trace!(
                name: "message_forwarded", target: "fastsock::messages",
                client_id = %uplink.client_id, session_id = uplink.session_id.0, data = %uplink.payload.to_text(),
                "Forwarded message to remote"
            );
        }
    }

    /// The original's error line for the first failure of a message; between that and its loss, at debug.
    pub(super) fn log_failure(
        &self,
        uplink: &Uplink,
        attempts: u32,
        attempt: &Attempt,
        wait: Duration,
    ) {
        let (client_id, session_id, retry_in_ms) = (
            &uplink.client_id,
            uplink.session_id.0,
            wait.as_millis() as u64,
        );
        let data = uplink.payload.to_text();
        match self.cargo {
            Cargo::Uplinks if attempts == 1 => {
                tracing::error!(name: "forward_failed", %client_id, session_id, attempt = attempts, retry_in_ms, error = %attempt, %data, "Failed to forward message to remote");
            }
            Cargo::Uplinks => {
                tracing::debug!(name: "forward_retry", %client_id, session_id, attempt = attempts, retry_in_ms, error = %attempt, "Failed to forward message to remote");
            }
            Cargo::Events => {
                tracing::debug!(name: "event_retry", %client_id, session_id, attempt = attempts, retry_in_ms, error = %attempt, "Failed to deliver an event");
            }
        }
    }

    /// A hook wants a message forwarded and there is nowhere to forward it to: a warning for the first of the bridge.
    pub(super) fn log_no_remote(&self, uplink: &Uplink) {
        let (client_id, session_id) = (&uplink.client_id, uplink.session_id.0);
        let data = uplink.payload.to_text();
        if self.was_told_of_no_remote.swap(true, Relaxed) {
            tracing::debug!(name: "forward_skipped", %client_id, session_id, %data, "Message forwarding skipped: no REMOTE_URL set");
        } else {
            tracing::warn!(name: "forward_skipped", %client_id, session_id, %data, "Message forwarding skipped: no REMOTE_URL set");
        }
    }

    pub(super) fn log_loss(&self, uplink: &Uplink, reason: LostReason, attempt: Option<&Attempt>) {
        let (client_id, session_id) = (&uplink.client_id, uplink.session_id.0);
        let (data, lost) = (uplink.payload.to_text(), reason.as_str());
        let error = attempt.map_or_else(|| reason.to_string(), ToString::to_string);
        match (self.cargo, reason) {
            // `stop` says in one line how many; these are for whoever wants to have them back.
            (Cargo::Uplinks, LostReason::Shutdown) => {
                tracing::debug!(name: "forward_failed", %client_id, session_id, reason = lost, is_lost = true, %data, "Failed to forward message to remote");
            }
            (Cargo::Uplinks, _) => {
                tracing::error!(name: "forward_failed", %client_id, session_id, reason = lost, is_lost = true, %error, %data, "Failed to forward message to remote");
            }
            (Cargo::Events, LostReason::Shutdown) => {
                tracing::debug!(name: "event_lost", %client_id, session_id, reason = lost, %data, "Lost an event");
            }
            (Cargo::Events, _) => {
                tracing::error!(name: "event_lost", %client_id, session_id, reason = lost, %error, %data, "Lost an event");
            }
        }
    }
}
