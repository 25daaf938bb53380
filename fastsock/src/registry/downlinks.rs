//! A downlink on its way to its device: into the outbox here, else to whoever has the device, through the broker.

use std::sync::Arc;

use crate::{
    broker::Broker,
    error::{Error, ErrorKind, Result},
    pure::outbox::{DOWNLINK_MAX_BYTES, Put},
    registry::Registry,
    types::{ClientId, Payload, Sent},
};

/// Where downlinks of hosts, operators, hooks and backends go.
#[derive(Clone)]
pub(crate) struct Downlinks {
    registry: Arc<Registry>,
    broker: Arc<dyn Broker>,
}

impl Downlinks {
    pub(crate) fn new(registry: Arc<Registry>, broker: Arc<dyn Broker>) -> Self {
        Self { registry, broker }
    }

    /// Queues a message for a device here, else publishes it for another gateway.
    pub(crate) async fn send(&self, client_id: &ClientId, payload: Payload) -> Result<Sent> {
        match self.put(client_id, payload)? {
            None => Ok(Sent::Here),
            Some(payload) => self.publish(client_id.clone(), payload).await,
        }
    }

    /// Queues a message for a device that is here; gives it back when the device is not. Never blocks.
    pub(crate) fn put(&self, client_id: &ClientId, payload: Payload) -> Result<Option<Payload>> {
        if payload.len() > DOWNLINK_MAX_BYTES {
            let text = format!(
                "the message has {} bytes; at most {DOWNLINK_MAX_BYTES} are allowed",
                payload.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        match self.registry.put(client_id.as_str(), payload.clone()) {
            None => Ok(Some(payload)),
            Some(Put::Queued | Put::Displaced) => Ok(None),
            Some(Put::Full) => Err(Error::new(
                ErrorKind::OutboxFull,
                format!("the outbox of {client_id:?} is full"),
            )),
            Some(Put::TooLarge) => unreachable!("the size was checked above"),
        }
    }

    /// Sends a message to a device that is not here.
    pub(crate) async fn publish(&self, client_id: ClientId, payload: Payload) -> Result<Sent> {
        self.broker.publish(client_id, payload.into_bytes()).await
    }
}
