//! The broker of a process that serves all its devices itself: nobody else can be reached.

use std::{sync::atomic::AtomicU64, time::SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Broker, Claimed, Link, next_epoch};
use crate::tasks::BoxFuture;
use crate::{
    calls::{Call, CallEnd},
    error::Result,
    node::NodeId,
    types::{ClientId, Payload, Sent, SessionId, unix_ms},
};

pub(crate) struct Embedded {
    node: NodeId,
    /// The epoch given last.
    epoch: AtomicU64,
}

impl Embedded {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            epoch: AtomicU64::new(0),
        }
    }
}

impl Broker for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn link(&self) -> Link {
        Link::Up
    }

    fn seated<'a>(&'a self, _: &'a ClientId, _: SessionId, _: bool) -> BoxFuture<'a, Claimed> {
        let epoch = next_epoch(&self.epoch, self.now_ms());
        Box::pin(std::future::ready(Claimed::Won(epoch)))
    }

    fn seen(&self, _: &ClientId, _: u64) {}

    fn unseated(&self, _: &ClientId, _: SessionId) {}

    fn publish(&self, _: ClientId, _: Bytes) -> BoxFuture<'_, Result<Sent>> {
        Box::pin(std::future::ready(Ok(Sent::Offline)))
    }

    fn call(&self, _: ClientId, _: Call) -> BoxFuture<'_, Result<Payload, CallEnd>> {
        Box::pin(std::future::ready(Err(CallEnd::Offline)))
    }

    fn node(&self) -> &NodeId {
        &self.node
    }

    fn now_ms(&self) -> u64 {
        unix_ms(SystemTime::now())
    }

    fn elsewhere<'a>(
        &'a self,
        client_ids: &'a [ClientId],
    ) -> BoxFuture<'a, Option<Vec<Option<u64>>>> {
        Box::pin(std::future::ready(Some(vec![None; client_ids.len()])))
    }

    fn stop(&self, _: Instant) -> BoxFuture<'_, u64> {
        Box::pin(std::future::ready(0))
    }
}
