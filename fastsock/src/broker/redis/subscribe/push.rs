//! What Redis pushes over the sub link, and where it goes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::super::{Shared, calls, control};
use crate::{locks::Mutex, redis::tap::Listen, types::ClientId};

/// What the reader of the connection tells the task that watches it.
pub(super) struct Received {
    shared: Arc<Shared>,
    /// Whether anything was pushed since this was last looked at.
    pub(super) has_heard: AtomicBool,
    /// Whether it is subscribed to the channel of the probe.
    pub(super) hears_probe: AtomicBool,
    /// In a cluster each server has to be heard, and what comes does not say by which it came: only a probe proves that.
    pub(super) is_cluster: bool,
    /// The probe that is on its way, and by how many servers it has come.
    pub(super) probe: AtomicU64,
    pub(super) probe_ways: AtomicUsize,
    pub(super) probe_came: Notify,
    /// Shard channels whose subscriptions this gateway is ending: any other end is the server's doing.
    pub(super) leaving: Mutex<HashSet<String>>,
    /// Whether a push that nobody understands was told.
    has_told_bad: AtomicBool,
}

impl Received {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            is_cluster: shared.address.is_cluster(),
            shared,
            has_heard: AtomicBool::default(),
            hears_probe: AtomicBool::default(),
            probe: AtomicU64::default(),
            probe_ways: AtomicUsize::default(),
            probe_came: Notify::default(),
            leaving: Mutex::default(),
            has_told_bad: AtomicBool::default(),
        }
    }

    /// What is published for no single device.
    fn message_for_others(&self, channel: &[u8], payload: Bytes) {
        let shared = &self.shared;
        let names = &shared.names;
        let deliver = || shared.deliver.upgrade();
        if let Some(id) = channel.strip_prefix(names.bell.as_bytes()) {
            if let (Ok(id), Some(deliver)) = (str::from_utf8(id), deliver()) {
                deliver.bell(id);
            }
        } else if let Some(name) = channel.strip_prefix(names.group.as_bytes()) {
            if let (Ok(name), Some(deliver)) = (str::from_utf8(name), deliver()) {
                deliver.deliver_to_group(name, payload);
            }
        } else if channel == names.broadcast.as_bytes() {
            if let Some(deliver) = deliver() {
                deliver.deliver_to_all(payload);
            }
        } else if channel == names.control.as_bytes() {
            control::on_control(shared, &payload);
        } else if channel == names.probe.as_bytes() {
            let probe = str::from_utf8(&payload).ok();
            match probe.and_then(|probe| probe.parse::<u64>().ok()) {
                Some(probe) if probe == self.probe.load(Relaxed) => {
                    self.probe_ways.fetch_add(1, Relaxed);
                    self.probe_came.notify_one();
                }
                Some(_) => {} // one that is given up
                None => calls::on_told(shared, &payload),
            }
        } else {
            bad_push(shared, self, Some(channel));
        }
    }
}

impl Listen for Received {
    fn message(&self, channel: &[u8], payload: Bytes) {
        self.has_heard.store(true, Relaxed);
        let shared = &self.shared;
        let Some(id) = channel.strip_prefix(shared.names.client.as_bytes()) else {
            return self.message_for_others(channel, payload);
        };
        match str::from_utf8(id) {
            Ok(id) if !id.is_empty() => {
                let deliver = shared.deliver.upgrade();
                if !deliver.is_some_and(|d| d.deliver(id, payload)) {
                    shared.running.pushes_elsewhere.add(1);
                }
            }
            _ => bad_push(shared, self, Some(channel)),
        }
    }

    fn other(&self, push: PushInfo) {
        match (push.kind, push.data.first()) {
            (PushKind::SUnsubscribe, Some(Value::BulkString(channel))) => {
                ended(&self.shared, self, channel);
            }
            (PushKind::Message | PushKind::PMessage | PushKind::SMessage, _) => {
                bad_push(&self.shared, self, None);
            }
            _ => {} // confirmations
        }
    }
}

/// The subscription to a shard channel has ended. If nobody here asked for that, its slot is at another server now.
fn ended(shared: &Shared, received: &Received, channel: &[u8]) {
    let Ok(channel) = std::str::from_utf8(channel) else {
        return;
    };
    if received.leaving.lock().remove(channel) {
        return;
    }
    let names = &shared.names;
    let id = channel.strip_prefix(&*names.client);
    let id = id.or_else(|| channel.strip_prefix(&*names.bell));
    if let Some(client_id) = id.and_then(ClientId::new) {
        shared.subscriptions.moved(&client_id);
    }
}

/// Counts and tells that a push cannot be delivered to anyone. A warning for the first of a link.
#[cold]
fn bad_push(shared: &Shared, received: &Received, channel: Option<&[u8]>) {
    shared.running.pushes_bad.add(1);
    let channel = channel.map(String::from_utf8_lossy);
    let channel = channel.as_deref().unwrap_or("unknown");
    if received.has_told_bad.swap(true, Relaxed) {
        tracing::debug!(
            channel,
            "Lost a message from Redis: its channel names no device"
        );
    } else {
        tracing::warn!(
            channel,
            "Lost a message from Redis: its channel names no device"
        );
    }
}
