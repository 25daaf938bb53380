//! The broker of a process that serves all its devices itself: nobody else can be reached.

use std::time::SystemTime;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Broker, Link};
use crate::tasks::BoxFuture;
use crate::{
    error::Result,
    node::NodeId,
    types::{ClientId, Sent, SessionId, unix_ms},
};

pub(crate) struct Embedded(pub(crate) NodeId);

impl Broker for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn link(&self) -> Link {
        Link::Up
    }

    fn seated<'a>(&'a self, _: &'a ClientId, _: SessionId) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn seen(&self, _: &ClientId, _: u64) {}

    fn unseated(&self, _: &ClientId, _: SessionId) {}

    fn publish(&self, _: ClientId, _: Bytes) -> BoxFuture<'_, Result<Sent>> {
        Box::pin(std::future::ready(Ok(Sent::Offline)))
    }

    fn node(&self) -> &NodeId {
        &self.0
    }

    fn now_ms(&self) -> u64 {
        unix_ms(SystemTime::now())
    }

    fn are_elsewhere<'a>(&'a self, client_ids: &'a [ClientId]) -> BoxFuture<'a, Vec<bool>> {
        Box::pin(std::future::ready(vec![false; client_ids.len()]))
    }

    fn stop(&self, _: Instant) -> BoxFuture<'_, u64> {
        Box::pin(std::future::ready(0))
    }
}
