//! Those who wait until the hash has a device: a POST must not come to a backend that cannot find it there.

use ahash::HashMap;
use tokio::sync::{Notify, oneshot};

use super::{Shared, links::Kind};
use crate::{locks::Mutex, redis::trouble::Function, tasks::BoxFuture, types::ClientId};

/// Who waits for which device.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    waiting: Mutex<HashMap<ClientId, Vec<oneshot::Sender<()>>>>,
    /// Someone waits, so that presence is to be written soon.
    pub(super) has_waiting: Notify,
}

impl Announcements {
    /// These are in the hash, or have left.
    pub(super) fn release<'a>(&self, client_ids: impl Iterator<Item = &'a ClientId>) {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            return;
        }
        for client_id in client_ids {
            waiting.remove(client_id); // which tells them
        }
    }

    /// Nobody is to wait any longer.
    pub(super) fn release_all(&self) {
        std::mem::take(&mut *self.waiting.lock());
    }
}

impl Shared {
    /// As [`Broker::announced`](crate::broker::Broker::announced).
    pub(super) fn announced(&self, client_id: &ClientId) -> Option<BoxFuture<'static, ()>> {
        if !self.announces() {
            return None;
        }
        let told = {
            // What is confirmed from here on finds who waits.
            let presence = self.presence.lock();
            if presence.is_there(client_id) {
                return None;
            }
            let (tell, told) = oneshot::channel();
            let mut waiting = self.announcements.waiting.lock();
            waiting.entry(client_id.clone()).or_default().push(tell);
            told
        };
        if !self.announces() {
            self.announcements.release_all(); // nobody else will
            return None;
        }
        self.announcements.has_waiting.notify_one();
        Some(Box::pin(async move {
            let _ = told.await;
        }))
    }

    /// Whether presence is written, as far as is known.
    fn announces(&self) -> bool {
        !self.is_alone()
            && !self.is_over()
            && !self.links.lock().has_failed(Kind::Cmd)
            && !self.troubles.has(Function::Presence)
    }
}
