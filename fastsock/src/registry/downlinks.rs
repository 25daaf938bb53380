//! A downlink on its way to its device: into the outbox here, else to whoever has the device, through the broker.

use std::{sync::Arc, time::Duration};

use crate::{
    broker::{Audience, Broker},
    error::{Error, ErrorKind, Result},
    groups::check_name,
    pure::outbox::{DOWNLINK_MAX_BYTES, Put},
    registry::Registry,
    types::{ClientId, Payload, Sent},
};

/// # Errors
/// `TooLarge`, for a message that no device gets.
pub(crate) fn check_size(payload: &Payload) -> Result<()> {
    if payload.len() <= DOWNLINK_MAX_BYTES {
        return Ok(());
    }
    let text = format!(
        "the message has {} bytes; at most {DOWNLINK_MAX_BYTES} are allowed",
        payload.len()
    );
    Err(Error::new(ErrorKind::TooLarge, text))
}

fn no_groups() -> Error {
    Error::new(
        ErrorKind::Config,
        "there are no groups; FASTSOCK_GROUPS is off",
    )
}

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
        check_size(&payload)?;
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

    /// Sends one message to all members of a group, or to everyone, on all gateways. Returns how many gateways heard it; alone, 1
    /// when the group has members.
    pub(crate) async fn send_to(&self, audience: Audience, payload: Payload) -> Result<u64> {
        check_size(&payload)?;
        let groups = self.registry.groups().ok_or_else(no_groups)?;
        if let Audience::Group(name) = &audience {
            check_name(name)?;
        }
        let published = self
            .broker
            .publish_to(audience.clone(), payload.clone().into_bytes());
        if let Some(heard) = published.await? {
            return Ok(heard);
        }
        Ok(match audience {
            Audience::Group(name) => {
                let has_members = !groups.members(&name).is_empty();
                self.registry.put_to_group(&name, &payload);
                has_members.into()
            }
            Audience::Everyone => {
                self.registry.put_to_all(&payload);
                1
            }
        })
    }

    /// Puts a device into a group, or takes it out, here or on the gateway that has it.
    pub(crate) async fn change_group(
        &self,
        client_id: &ClientId,
        name: &str,
        joins: bool,
    ) -> Result<Sent> {
        let groups = self.registry.groups().ok_or_else(no_groups)?;
        check_name(name)?;
        match self.registry.change_group(client_id, name, joins) {
            Some(Ok(_)) => {
                groups.heard(client_id).await;
                Ok(Sent::Here)
            }
            Some(Err(_)) => {
                let text = format!("{client_id:?} is in as many groups as a device may be in");
                Err(Error::new(ErrorKind::Argument, text))
            }
            None => {
                let changing = self.broker.change_group_elsewhere(client_id, name, joins);
                Ok(match changing.await? {
                    true => Sent::Elsewhere,
                    false => Sent::Offline,
                })
            }
        }
    }

    /// Sends a message to a device that is not here. Takes at most [`PUBLISH_TIMEOUT`].
    pub(crate) async fn publish(&self, client_id: ClientId, payload: Payload) -> Result<Sent> {
        let published = self.broker.publish(client_id, payload.into_bytes());
        let published = tokio::time::timeout(PUBLISH_TIMEOUT, published).await;
        published.unwrap_or_else(|_| {
            let text = "Redis did not answer in time; it may still take the message";
            Err(Error::new(ErrorKind::Broker, text))
        })
    }
}

/// A command takes 2 s at most. After some refusals the link asks Redis what it is, and a cluster may point to another node.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(4);
