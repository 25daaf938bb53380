//! Who was told what of a session: the books, the log, the hooks and the backend hear of its coming once and then of its leaving
//! once, and of its leaving before they hear of its successor.

use std::{sync::Arc, time::SystemTime};

use crate::{
    broker::{Broker, Deliver},
    host::{
        departures::{Departure, Departures},
        lifecycle::Lifecycle,
    },
    registry::{
        Registry,
        seat::{Seat, Told},
    },
    stats::SessionCounts,
    status::Status,
    trace::Traced,
    types::CloseReason,
};

/// Tells of sessions.
pub(crate) struct Announcements {
    pub(crate) registry: Arc<Registry>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) status: Arc<Status>,
    /// Tells a backend, if there is one to tell.
    pub(crate) lifecycle: Option<Arc<Lifecycle>>,
    pub(crate) counts: Arc<SessionCounts>,
    /// How devices have left lately.
    pub(crate) departures: Departures,
}

impl Announcements {
    /// Counts, logs and tells that a session began, after the end of the one before it; nothing if it has left already.
    pub(crate) fn connected(&self, seat: &Seat) {
        let mut told = seat.told();
        let Told::Nothing(before) = &mut *told else {
            return;
        };
        if let Some(before) = before.take() {
            self.disconnected_before(&before);
        }
        *told = Told::Came;
        self.counts.opened();
        tracing::debug!(
            name: "client_connected",
            client_id = %seat.client_id, session_id = seat.session_id.0, remote_addr = %seat.remote_addr, "Client connected"
        );
        let tracer = &self.status.tracer;
        tracer.tell(seat.client_id.as_str(), |_| Traced::Connected {
            session_id: seat.session_id.0,
            remote_addr: seat.remote_addr.to_string(),
            route: seat.context().and_then(|context| context.route.clone()),
        });
        self.status
            .hook("on_connect", |hooks| hooks.on_connect(&seat.client()));
        if let Some(lifecycle) = &self.lifecycle {
            lifecycle.came(&seat.client());
        }
    }

    /// Empties the seat of a session that ends, unless it was taken over, and tells the world, last.
    pub(crate) fn leave(&self, seat: &Seat, reason: &CloseReason) {
        self.unseat(seat, reason);
        self.left(seat, reason);
    }

    /// The first half of it: nothing more goes down to the device. [`Announcements::left`] comes after it.
    pub(crate) fn unseat(&self, seat: &Seat, reason: &CloseReason) {
        if self.registry.unseat(seat, reason) {
            self.broker.unseated(&seat.client_id, seat.session_id);
        }
        seat.tell_last_losses(reason);
    }

    /// The second half: nothing more comes up from it, and the world is told. A second call tells nothing.
    pub(crate) fn left(&self, seat: &Seat, reason: &CloseReason) {
        self.disconnected(seat, reason);
        self.registry.forget(seat);
    }

    /// Counts, logs and tells that a session ended; once, whoever comes first, and only if it was told that it began.
    fn disconnected(&self, seat: &Seat, reason: &CloseReason) {
        let mut told = seat.told();
        match std::mem::replace(&mut *told, Told::Left) {
            Told::Nothing(Some(before)) => return self.disconnected_before(&before),
            Told::Nothing(None) | Told::Left => return,
            Told::Came => {}
        }
        self.counts.closed(reason);
        self.departures.note(
            &seat.client_id,
            Departure {
                session_id: seat.session_id,
                reason: reason.clone(),
                connected_at: seat.client().connected_at,
                left_at: SystemTime::now(),
            },
        );
        let (client_id, session_id) = (&seat.client_id, seat.session_id.0);
        if *reason == CloseReason::NoLife {
            tracing::debug!(name: "client_timeouted", %client_id, session_id, reason = reason.as_str(), "Client timeouted");
        }
        tracing::debug!(name: "client_disconnected", %client_id, session_id, reason = reason.as_str(), code = reason.code(), "Client disconnected");
        let tracer = &self.status.tracer;
        tracer.tell(seat.client_id.as_str(), |_| Traced::Disconnected {
            session_id,
            reason: reason.as_str().to_owned(),
            code: match reason {
                CloseReason::ByDevice(code) => Some(*code),
                reason => reason.code(),
            },
        });
        self.status.hook("on_disconnect", |hooks| {
            hooks.on_disconnect(&seat.client(), reason)
        });
        if let Some(lifecycle) = &self.lifecycle {
            let has_successor = self.registry.is_seated(seat.client_id.as_str());
            lifecycle.left(&seat.client(), reason, has_successor);
        }
    }

    /// It was told to close, or has left already; its own task may only not have come to telling it.
    fn disconnected_before(&self, before: &Seat) {
        let reason = before.closing().unwrap_or(CloseReason::Replaced);
        self.disconnected(before, &reason);
    }
}
