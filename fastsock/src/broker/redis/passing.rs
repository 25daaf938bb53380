//! Downlinks that go over to the gateway which has their device now, and those that are awaited from the one which had it.

use std::time::Duration;

use ahash::HashMap;
use tokio::sync::{Notify, oneshot};

use super::{
    Shared,
    control::{self, Control},
};
use crate::{
    locks::Mutex,
    redis::{connect::Redis, error::LinkError},
    types::SessionId,
};

/// What goes over, and what is to come.
#[derive(Default)]
pub(super) struct Passing {
    leaving: Mutex<Vec<Control>>,
    has_leaving: Notify,
    /// Sessions here that wait for what the gateway before had.
    awaited: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Passing {
    /// Something is to go over.
    pub(super) fn push(&self, message: Control) {
        self.leaving.lock().push(message);
        self.has_leaving.notify_one();
    }

    /// A session begins to wait. To be called before the other gateway is told.
    pub(super) fn expect(&self, session_id: SessionId) -> oneshot::Receiver<()> {
        let (came, waits) = oneshot::channel();
        self.awaited.lock().insert(session_id.0, came);
        waits
    }

    /// What a session waited for has come.
    pub(super) fn came(&self, session: u64) {
        if let Some(came) = self.awaited.lock().remove(&session) {
            let _ = came.send(());
        }
    }

    /// A session waits no longer.
    pub(super) fn forget(&self, session_id: SessionId) {
        self.awaited.lock().remove(&session_id.0);
    }
}

impl Shared {
    /// Waits until the gateway that had the device has passed on what it held, but not for long.
    pub(super) async fn wait_for_passed(
        &self,
        session_id: SessionId,
        waits: oneshot::Receiver<()>,
    ) {
        let _ = tokio::time::timeout(PASSED_WITHIN, waits).await;
        self.passing.forget(session_id);
    }

    /// Downlinks that were to go over did not get there.
    pub(super) fn tell_not_passed(&self, client_id: &str, count: u64) {
        self.running.downlinks_late.add(count);
        tracing::warn!(name: "downlinks_lost", client_id, reason = "moved", count, "Lost downlinks");
    }
}

/// Sends what is to go over, until the link fails.
pub(super) async fn serve(shared: &Shared, redis: Redis) -> LinkError {
    loop {
        shared.passing.has_leaving.notified().await;
        let messages = std::mem::take(&mut *shared.passing.leaving.lock());
        if let Err(error) = control::tell(shared, redis.clone(), &messages).await {
            for message in &messages {
                if let Control::PassedOn {
                    client_id,
                    messages,
                    ..
                } = message
                    && !messages.is_empty()
                {
                    shared.tell_not_passed(client_id, messages.len() as u64);
                }
            }
            return error;
        }
    }
}

/// How long a 101 waits for what another gateway held.
const PASSED_WITHIN: Duration = Duration::from_millis(200);
