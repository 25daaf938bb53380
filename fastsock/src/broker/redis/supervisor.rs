//! The two links of the broker, as their supervisors know them.

use std::sync::Arc;

use super::{Shared, links::Kind, subscribe, writer};
use crate::{
    pure::last_error::LastError,
    redis::{
        error::LinkError,
        supervisor::{self, Supervised},
    },
};

/// Keeps a link until told to stop.
pub(super) async fn supervise(shared: Arc<Shared>, kind: Kind) {
    let mut link = BrokerLink {
        shared: Arc::clone(&shared),
        kind,
        last_error: LastError::default(),
        has_said_alone: false,
    };
    supervisor::supervise(&mut link, &shared.cut).await;
    shared.link_down(kind);
}

struct BrokerLink {
    shared: Arc<Shared>,
    kind: Kind,
    last_error: LastError,
    /// Whether it was said that there is no Redis, which is no fault.
    has_said_alone: bool,
}

impl Supervised for BrokerLink {
    async fn serve(&mut self) -> Result<(), LinkError> {
        match self.kind {
            Kind::Cmd => writer::serve(&self.shared).await, // has to write what is left when told to stop
            Kind::Sub => tokio::select! {
                () = self.shared.stop.cancelled() => Ok(()),
                served = subscribe::serve(&self.shared) => served,
            },
        }
    }

    fn down(&mut self, error: &LinkError) -> bool {
        // Before the link is down: whoever is refused because of that is told why.
        self.shared.trouble.lock()[self.kind as usize].clone_from(&error.text);
        let was_up = self.shared.link_down(self.kind);
        if was_up {
            self.last_error.is_over();
        }
        self.log(error);
        was_up
    }

    fn is_over(&self) -> bool {
        self.shared.stop.is_cancelled() // one failure is enough then
    }

    async fn wake(&self, error: &LinkError) {
        tokio::select! {
            () = self.shared.stop.cancelled() => {} // one last try
            // When the other link has come up, this one can too.
            () = self.shared.wake(self.kind).notified(), if !error.is_denied => {}
        }
    }
}

impl BrokerLink {
    fn log(&mut self, error: &LinkError) {
        if self.shared.is_alone() {
            if self.kind == Kind::Cmd && !std::mem::replace(&mut self.has_said_alone, true) {
                tracing::warn!(
                    error = %error,
                    "Redis does not answer: running with the embedded broker, which reaches the devices of this process \
                     only. Redis is used from the moment it answers. To choose, set REDIS_HOST or FASTSOCK_REDIS_URL, \
                     or FASTSOCK_BROKER=redis or embedded"
                );
            }
            return;
        }
        if !self.last_error.is_news(&error.text) {
            return;
        }
        match self.kind {
            Kind::Cmd => {
                tracing::error!(name: "redis_error", error = %error, "Redis error for publisher");
            }
            Kind::Sub => {
                tracing::error!(name: "redis_error", error = %error, "Redis error for subscriber");
            }
        }
    }
}
