//! Whose subscriptions must be looked at, and who waits for theirs.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};

use super::super::Shared;
use crate::{locks::Mutex, types::ClientId};

/// Those whose subscription must be looked at, in all modes but `pattern`. What is to be done is not noted: when the command is
/// built, the seat says it.
#[derive(Default)]
pub(in crate::broker::redis) struct Subscriptions {
    /// `None` while the link is down: a list of everyone is taken when it comes back.
    touched: Mutex<Option<Touched>>,
    has_touched: Notify,
    /// Whether some that were taken are being looked at.
    is_following: AtomicBool,
    /// Whether someone waited in vain, so that the next ones need not try.
    pub(super) is_late: AtomicBool,
}

#[derive(Default)]
pub(super) struct Touched {
    pub(super) ids: HashMap<ClientId, Vec<Waiter>>,
    /// Since when some of them were not subscribed, because their slot moved.
    pub(super) moved: Option<SystemTime>,
}

/// A device whose 101 waits for its subscription.
pub(super) struct Waiter {
    since: Instant,
    confirmed: oneshot::Sender<()>,
}

impl Subscriptions {
    /// Resolves when the device is subscribed, or when waiting longer would hold it up for nothing.
    pub(in crate::broker::redis) fn seated(
        &self,
        client_id: &ClientId,
    ) -> impl Future<Output = ()> + use<'_> {
        let confirmation = self.touched.lock().as_mut().map(|touched| {
            let (confirmed, confirmation) = oneshot::channel();
            let since = Instant::now();
            let waiters = touched.ids.entry(client_id.clone()).or_default();
            waiters.push(Waiter { since, confirmed });
            confirmation
        });
        self.has_touched.notify_one();
        async move {
            let Some(confirmation) = confirmation else {
                return;
            };
            if self.is_late.load(Relaxed) {
                return;
            }
            if timeout(CONFIRM_TIMEOUT, confirmation).await.is_err() {
                self.is_late.store(true, Relaxed);
            }
        }
    }

    pub(in crate::broker::redis) fn unseated(&self, client_id: &ClientId) {
        if let Some(touched) = self.touched.lock().as_mut() {
            touched.ids.entry(client_id.clone()).or_default();
            self.has_touched.notify_one();
        }
    }

    /// The server has ended a subscription of this device.
    pub(super) fn moved(&self, client_id: &ClientId) {
        if let Some(touched) = self.touched.lock().as_mut() {
            touched.ids.entry(client_id.clone()).or_default();
            touched.moved.get_or_insert_with(SystemTime::now);
            self.has_touched.notify_one();
        }
    }

    pub(super) fn open(&self) {
        *self.touched.lock() = Some(Touched::default());
    }

    /// The link is down; whoever waits need not.
    pub(in crate::broker::redis) fn close(&self) {
        *self.touched.lock() = None;
        self.is_late.store(false, Relaxed);
    }

    /// Whether every subscription is as its seat is.
    pub(super) fn are_followed(&self) -> bool {
        let touched = self.touched.lock();
        touched
            .as_ref()
            .is_none_or(|touched| touched.ids.is_empty())
            && !self.is_following.load(Relaxed)
    }

    pub(super) async fn touched(&self) -> Touched {
        loop {
            {
                let mut touched = self.touched.lock();
                let some = touched.as_mut().filter(|touched| !touched.ids.is_empty());
                self.is_following.store(some.is_some(), Relaxed);
                if let Some(touched) = some {
                    return std::mem::take(touched);
                }
            }
            self.has_touched.notified().await;
        }
    }
}

impl Waiter {
    pub(super) fn confirm(self, shared: &Shared, client_id: &ClientId) {
        if self.confirmed.send(()).is_err() {
            shared.running.broker_gaps.add(1);
            let lasted_ms = self.since.elapsed().as_millis() as u64;
            tracing::debug!(%client_id, lasted_ms, "gap: the device was connected before it was subscribed");
        }
    }
}

/// How long a 101 waits for its subscription.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
