//! What a host or an operator can ask one gateway about all gateways that share its Redis.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer};

use crate::{
    broker::Found,
    error::Result,
    gateway::shared::Shared,
    node::Node,
    types::{ClientId, CloseReason, Presence, SessionId, State, unix_ms},
};

/// The gateway that a device is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeviceNode {
    /// Its id. Empty when Redis does not have it: that gateway writes presence plainly.
    pub id: String,
    /// What people call it; empty when it is not known.
    pub name: String,
    /// The session there.
    #[serde(serialize_with = "number")]
    pub session_id: SessionId,
    /// Higher than that of every session of this device before; 0 when it is not known.
    pub epoch: u64,
    /// When the device last sent something; the connect counts.
    #[serde(rename = "last_seen_ms", serialize_with = "ms")]
    pub last_seen: SystemTime,
}

/// A page of the devices of all gateways, in no order.
#[derive(Debug, Default)]
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "for the admin API"))]
pub(crate) struct FleetPage {
    pub(crate) devices: Vec<(ClientId, DeviceNode)>,
    /// Where the next page begins; `None`: this was the last.
    pub(crate) next: Option<String>,
}

/// The gateways that share a Redis, this one among them, by name.
pub(crate) async fn nodes(shared: &Shared) -> Result<Vec<Node>> {
    let id = shared.broker.node();
    let mut nodes = shared.broker.nodes().await?;
    let lease_age = nodes.iter().find(|node| node.is_this);
    let lease_age = lease_age.and_then(|node| node.lease_age);
    nodes.retain(|node| !node.is_this);
    // Of itself it knows best.
    nodes.push(Node {
        id: id.to_string(),
        name: id.name().to_owned(),
        since: Some(SystemTime::now() - shared.started.elapsed()),
        lease_age,
        connections: shared.registry.len() as u64,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        is_draining: shared.status.state() == State::Draining,
        is_gone: false,
        is_this: true,
    });
    nodes.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(nodes)
}

/// For each id whether the device is connected to some gateway.
pub(crate) async fn are_online(shared: &Shared, client_ids: &[ClientId]) -> Result<Vec<bool>> {
    let mut online: Vec<_> = client_ids
        .iter()
        .map(|id| shared.registry.find(id.as_str()).is_some())
        .collect();
    let others = client_ids.iter().zip(&online).filter(|(_, here)| !**here);
    let others: Vec<_> = others.map(|(id, _)| id.clone()).collect();
    if others.is_empty() {
        return Ok(online);
    }
    let mut found = shared.broker.find(&others).await?.into_iter();
    for is_online in online.iter_mut().filter(|here| !**here) {
        *is_online = found.next().flatten().is_some();
    }
    Ok(online)
}

/// Closes the session of a device, here or at another gateway, which is asked to. Says where the device was.
pub(crate) async fn kick(
    shared: &Shared,
    client_id: &ClientId,
    reason: CloseReason,
) -> Result<Presence> {
    if shared
        .registry
        .close(client_id.as_str(), None, reason.clone())
    {
        return Ok(Presence::Here);
    }
    let found = shared.broker.find(std::slice::from_ref(client_id)).await?;
    let Some(Some(found)) = found.into_iter().next() else {
        return Ok(Presence::Offline);
    };
    shared.broker.kick(client_id, &found, &reason).await?;
    Ok(Presence::Elsewhere)
}

/// The gateway that a device is connected to; `None` too when Redis does not answer.
pub(crate) async fn node_of(shared: &Shared, client_id: &ClientId) -> Option<DeviceNode> {
    if let Some(here) = here(shared, client_id) {
        return Some(here);
    }
    let found = shared.broker.find(std::slice::from_ref(client_id)).await;
    let found = found.ok()?.pop().flatten()?;
    let names = shared.broker.names(std::slice::from_ref(&found.node)).await;
    let name = names.ok().and_then(|mut names| names.pop());
    Some(DeviceNode::of(found, name.unwrap_or_default()))
}

/// Some devices of all gateways whose name begins so, about `limit`, from where the page before ended (`""`: from the beginning).
///
/// # Errors
/// `Argument` for an `after` that no page gave; `Broker` when Redis does not answer.
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "for the admin API"))]
pub(crate) async fn page(
    shared: &Shared,
    prefix: &str,
    after: &str,
    limit: usize,
) -> Result<FleetPage> {
    let Some(roster) = shared.broker.roster(prefix, after, limit).await? else {
        return Ok(own_page(shared, prefix, after, limit));
    };
    let mut nodes: Vec<_> = roster
        .devices
        .iter()
        .map(|(_, at)| at.node.clone())
        .collect();
    nodes.sort_unstable();
    nodes.dedup();
    let names = shared.broker.names(&nodes).await?;
    let names: HashMap<_, _> = nodes.into_iter().zip(names).collect();
    let devices = roster.devices.into_iter().map(|(client_id, found)| {
        let name = names.get(&found.node).cloned().unwrap_or_default();
        (client_id, DeviceNode::of(found, name))
    });
    Ok(FleetPage {
        devices: devices.collect(),
        next: roster.next,
    })
}

/// The same of a gateway that knows of no others, by name.
#[cfg_attr(not(feature = "admin"), allow(dead_code, reason = "for the admin API"))]
fn own_page(shared: &Shared, prefix: &str, after: &str, limit: usize) -> FleetPage {
    let mut ids: Vec<_> = shared.registry.seats();
    ids.retain(|seat| {
        seat.client_id.as_str().starts_with(prefix) && seat.client_id.as_str() > after
    });
    ids.sort_unstable_by(|a, b| a.client_id.cmp(&b.client_id));
    let is_more = ids.len() > limit;
    ids.truncate(limit);
    let next = ids.last().filter(|_| is_more);
    let next = next.map(|last| last.client_id.to_string());
    let devices = ids.iter().filter_map(|seat| {
        let at = here(shared, &seat.client_id)?;
        Some((seat.client_id.clone(), at))
    });
    FleetPage {
        devices: devices.collect(),
        next,
    }
}

fn here(shared: &Shared, client_id: &ClientId) -> Option<DeviceNode> {
    let client = shared.registry.find(client_id.as_str())?.client();
    let node = shared.broker.node();
    Some(DeviceNode {
        id: node.to_string(),
        name: node.name().to_owned(),
        session_id: client.session_id,
        epoch: client.epoch,
        last_seen: client.last_seen,
    })
}

impl DeviceNode {
    fn of(found: Found, name: String) -> Self {
        Self {
            id: found.node,
            name,
            session_id: found.session_id,
            epoch: found.epoch,
            last_seen: SystemTime::UNIX_EPOCH + Duration::from_millis(found.seen_ms),
        }
    }
}

fn number<S: Serializer>(id: &SessionId, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_u64(id.0)
}

fn ms<S: Serializer>(time: &SystemTime, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_u64(unix_ms(*time))
}
