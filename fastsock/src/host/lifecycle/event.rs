//! An event on its way to the backend: an item of lanes of its own.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use smallvec::smallvec;
use uuid::Uuid;

use crate::{
    broker::lost::Receipt,
    forwarder::{
        Forward, Outcome, Outcomes,
        http::{post::Post, stamp::Stamp},
    },
    tasks::BoxFuture,
    types::{ClientId, DeadLetter, HELD_OVERHEAD_BYTES, LostReason, SessionId},
    uplinks::{GivenUp, Item, Observer},
};

/// One event on its way.
#[derive(Clone)]
pub(super) struct Event {
    pub(super) id: Uuid,
    /// Its device; that of a gap is the gateway.
    pub(super) lane: ClientId,
    pub(super) session_id: SessionId,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) made_at: SystemTime,
    pub(super) body: Bytes,
    /// For whoever has to know that it was told.
    pub(super) receipt: Option<Arc<Receipt>>,
}

impl Item for Event {
    fn key(&self) -> &ClientId {
        &self.lane
    }

    fn bytes(&self) -> usize {
        self.body.len() + HELD_OVERHEAD_BYTES
    }

    fn made_at(&self) -> SystemTime {
        self.made_at
    }
}

impl<'a> From<&'a Event> for Stamp<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            id: event.id,
            client_id: &event.lane,
            session_id: event.session_id,
            epoch: event.epoch,
            seq: event.seq,
            made_at: event.made_at,
            is_text: true,
            context: None,
        }
    }
}

/// POSTs each event.
pub(super) struct EventForwarder(pub(super) Post);

impl Forward<Event> for EventForwarder {
    fn attempt<'a>(&'a self, events: &'a [Event], number: u32) -> BoxFuture<'a, Outcomes> {
        let event = &events[0]; // the limits of events allow no more
        let body = event.body.clone();
        Box::pin(async move { smallvec![self.0.attempt(event.into(), number, body).await] })
    }

    fn headers(&self, event: &Event, number: u32) -> Vec<(String, String)> {
        self.0.shown_headers(event.into(), number)
    }
}

/// Logs what becomes of events. No hook hears of them, and no dead letter is made of them.
pub(super) struct EventObserver;

impl Observer<Event> for EventObserver {
    fn delivered(&self, event: &Event) {
        if let Some(receipt) = &event.receipt {
            receipt.told();
        }
    }

    fn put_off(&self, event: &Event, number: u32, attempt: &Outcome, wait: Duration) {
        tracing::debug!(name: "event_retry", client_id = %event.lane, session_id = event.session_id.0, attempt = number, retry_in_ms = wait.as_millis() as u64, error = %attempt, "Failed to deliver an event");
    }

    fn lost(&self, event: &Event, reason: LostReason, attempt: Option<&Outcome>) {
        // What is given up is not told again; what only had no time is, by whoever is there next.
        if let Some(receipt) = &event.receipt
            && reason != LostReason::Shutdown
        {
            receipt.told();
        }
        let (client_id, session_id) = (&event.lane, event.session_id.0);
        let data = String::from_utf8_lossy(&event.body);
        let (error, reason_word) = (
            attempt.map_or_else(|| reason.to_string(), ToString::to_string),
            reason.as_str(),
        );
        if reason == LostReason::Shutdown {
            tracing::debug!(name: "event_lost", %client_id, session_id, reason = reason_word, %data, "Lost an event");
        } else {
            tracing::error!(name: "event_lost", %client_id, session_id, reason = reason_word, %error, %data, "Lost an event");
        }
    }

    fn undeliverable(&self, _: &Event) {}

    fn gone(&self, _: &Event) {}

    fn outage(&self, _: &str) {
        tracing::warn!("FASTSOCK_EVENTS_URL takes no events; the gateway holds them until it does");
    }

    fn recovered(&self, _: &str) {
        tracing::warn!("FASTSOCK_EVENTS_URL takes events again");
    }

    fn misconfigured(&self, _: &str, attempt: &Outcome) {
        tracing::error!(error = %attempt, "the events backend refuses every event; check FASTSOCK_EVENTS_URL and FASTSOCK_EVENTS_HEADERS");
    }

    fn dead_letter(&self, _: &Event, _: GivenUp) -> Option<DeadLetter> {
        None
    }
}
