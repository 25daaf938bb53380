//! The gateways that share a Redis: what each tells of itself, which device is at which, and asking one to close a session.
//!
//! A gateway writes its card beside its lease. Whose a device is stands in the owner hash, and the set of ids that each gateway keeps
//! for whoever clears up after it is what lists of all devices are made of.

use std::time::{Duration, SystemTime};

use redis::FromRedisValue;
use serde::{Deserialize, Serialize};

use super::{
    Shared,
    control::{Control, close_code},
};
use crate::{
    broker::{Found, Roster},
    error::{Error, ErrorKind, Result},
    node::Node,
    redis::{
        connect::Redis,
        error::Failure,
        glob::escaped,
        lease::{LEASE, is_condemned},
        trouble::Function,
    },
    types::{ClientId, CloseReason, SessionId},
};

/// What a gateway tells of itself. Later versions may add to it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Card {
    name: String,
    since_ms: u64,
    version: String,
    connections: u64,
    draining: bool,
}

impl Shared {
    /// Tells the others of this gateway.
    pub(super) async fn show_card(&self, redis: &mut Redis) -> std::result::Result<(), Failure> {
        let load = self.deliver.upgrade().map(|deliver| deliver.load());
        let load = load.unwrap_or_default();
        let card = Card {
            name: self.node.name().to_owned(),
            since_ms: self.epoch_of(0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            connections: load.connections as u64,
            draining: load.is_draining,
        };
        let card = serde_json::to_vec(&card).expect("texts and numbers are always JSON");
        let mut hset = redis::cmd("HSET");
        hset.arg(&self.names.cards).arg(&*self.node).arg(card);
        Ok(hset.exec_async(redis).await?)
    }

    /// As [`Broker::nodes`](crate::broker::Broker::nodes).
    pub(super) async fn nodes(&self) -> Result<Vec<Node>> {
        if self.is_alone() || self.is_plain() {
            return Ok(Vec::new());
        }
        let leases: Vec<(String, f64)> = self.ask(&self.leases()).await?;
        let now_ms = self.epoch_of(self.now_ms());
        let ids: Vec<_> = leases.iter().map(|(id, _)| id.clone()).collect();
        let cards = self.cards(&ids).await?;
        let node = |((id, ends), card): ((String, f64), Card)| {
            let is_gone = is_condemned(ends as u64);
            let renewed_ms = (ends as u64).saturating_sub(LEASE.as_millis() as u64);
            let since = Duration::from_millis(card.since_ms);
            Node {
                is_this: id == *self.node,
                id,
                name: card.name,
                since: (card.since_ms > 0).then(|| SystemTime::UNIX_EPOCH + since),
                lease_age: (!is_gone)
                    .then(|| Duration::from_millis(now_ms.saturating_sub(renewed_ms))),
                connections: card.connections,
                version: card.version,
                is_draining: card.draining,
                is_gone,
            }
        };
        Ok(leases.into_iter().zip(cards).map(node).collect())
    }

    /// As [`Broker::names`](crate::broker::Broker::names).
    pub(super) async fn names_of(&self, nodes: &[String]) -> Result<Vec<String>> {
        let cards = self.cards(nodes).await?;
        Ok(cards.into_iter().map(|card| card.name).collect())
    }

    /// As [`Broker::find`](crate::broker::Broker::find).
    pub(super) async fn find(&self, client_ids: &[ClientId]) -> Result<Vec<Option<Found>>> {
        if self.is_alone() {
            return Ok(vec![None; client_ids.len()]);
        }
        let mut found = Vec::with_capacity(client_ids.len());
        for some in client_ids.chunks(IDS_A_COMMAND) {
            let (owners, seen) = self.owners(some).await?;
            for (owner, seen) in owners.into_iter().zip(seen) {
                // A device that just left here is in the hash until the next batch is written.
                let at = seen.and_then(|seen| found_at(owner.as_deref(), &seen));
                found.push(at.filter(|at| at.node != *self.node));
            }
        }
        Ok(found)
    }

    /// As [`Broker::kick`](crate::broker::Broker::kick).
    pub(super) async fn kick(
        &self,
        client_id: &ClientId,
        found: &Found,
        reason: &CloseReason,
    ) -> Result<()> {
        let kick = Control::Kick {
            node: found.node.clone(),
            client_id: client_id.to_string(),
            session: found.session_id.0,
            code: close_code(reason),
            reason: reason.as_str().to_owned(),
        };
        let text = serde_json::to_vec(&kick).expect("texts and numbers are always JSON");
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.names.control).arg(text);
        self.ask::<i64>(&publish).await.map(drop)
    }

    /// As [`Broker::roster`](crate::broker::Broker::roster).
    pub(super) async fn roster(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Option<Roster>> {
        if self.is_alone() || self.is_plain() {
            return Ok(None);
        }
        let (node, cursor) = after.rsplit_once(':').unwrap_or(("", "0"));
        let mut cursor: u64 = cursor.parse().map_err(|_| {
            Error::new(ErrorKind::Argument, "after: it is not the `next` of a page")
        })?;
        let leases: Vec<(String, f64)> = self.ask(&self.leases()).await?;
        let mut nodes: Vec<_> = leases.into_iter().map(|(node, _)| node).collect();
        nodes.sort_unstable();
        nodes.retain(|known| known.as_str() >= node);
        if nodes.first().is_none_or(|first| first != node) {
            cursor = 0; // it is gone, or this is the first page
        }
        let pattern = escaped(prefix) + "*";
        let (mut roster, mut steps) = (Roster::default(), 0);
        for (at, node) in nodes.iter().enumerate() {
            loop {
                let mut scan = redis::cmd("SSCAN");
                scan.arg(self.names.ids_of(node)).arg(cursor);
                scan.arg("MATCH").arg(&pattern).arg("COUNT").arg(limit);
                let (next, ids): (u64, Vec<Vec<u8>>) = self.ask(&scan).await?;
                cursor = next;
                let ids = ids.into_iter().filter_map(|id| String::from_utf8(id).ok());
                let ids: Vec<_> = ids.filter_map(ClientId::new).collect();
                self.take_those_of(node, ids, &mut roster).await?;
                steps += 1;
                if roster.devices.len() >= limit || steps == STEPS_A_PAGE {
                    roster.next = match (cursor, nodes.get(at + 1)) {
                        (0, Some(next)) => Some(format!("{next}:0")),
                        (0, None) => None,
                        _ => Some(format!("{node}:{cursor}")),
                    };
                    return Ok(Some(roster));
                }
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(Some(roster))
    }

    /// Adds those of these ids that a node has: its set may name some that have moved.
    async fn take_those_of(
        &self,
        node: &str,
        ids: Vec<ClientId>,
        roster: &mut Roster,
    ) -> Result<()> {
        for some in ids.chunks(IDS_A_COMMAND) {
            let (owners, seen) = self.owners(some).await?;
            for ((id, owner), seen) in some.iter().zip(owners).zip(seen) {
                let at = seen.and_then(|seen| found_at(owner.as_deref(), &seen));
                if let Some(at) = at.filter(|at| at.node == node) {
                    roster.devices.push((id.clone(), at));
                }
            }
        }
        Ok(())
    }

    /// Owner and last sign of each id, as Redis has them.
    async fn owners(&self, ids: &[ClientId]) -> Result<(Texts, Texts)> {
        let ask = |key: &str| {
            let mut hmget = redis::cmd("HMGET");
            hmget.arg(key);
            for id in ids {
                hmget.arg(id.as_str());
            }
            hmget
        };
        let seen: Texts = self.ask(&ask(&self.names.clients)).await?;
        let owners: Texts = match self.is_plain() {
            true => vec![None; ids.len()],
            false => self.ask(&ask(&self.names.owner)).await?,
        };
        Ok((owners, seen))
    }

    async fn cards(&self, nodes: &[String]) -> Result<Vec<Card>> {
        if nodes.is_empty() || self.is_alone() {
            return Ok(nodes.iter().map(|_| Card::default()).collect());
        }
        let mut hmget = redis::cmd("HMGET");
        hmget.arg(&self.names.cards).arg(nodes);
        let cards: Vec<Option<Vec<u8>>> = self.ask(&hmget).await?;
        let card = |card: Option<Vec<u8>>| card.and_then(|card| serde_json::from_slice(&card).ok());
        Ok(cards
            .into_iter()
            .map(|text| card(text).unwrap_or_default())
            .collect())
    }

    fn leases(&self) -> redis::Cmd {
        let mut zrange = redis::cmd("ZRANGE");
        zrange.arg(&self.names.nodes).arg(0).arg(-1);
        zrange.arg("WITHSCORES");
        zrange
    }

    /// The answer to a command over the cmd link.
    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T> {
        let Some(connection) = self.cmd.lock().clone() else {
            return Err(self.is_down());
        };
        match command.query_async(&mut connection.redis.clone()).await {
            Ok(answer) => {
                self.works(Function::Elsewhere);
                Ok(answer)
            }
            Err(error) => {
                let failure = Failure::from(error.clone());
                let text = match self.is_refused(&connection, failure).await {
                    true => "Redis refuses to tell",
                    false => "Redis does not answer",
                };
                Err(Error::new(ErrorKind::Broker, text).with_source(error))
            }
        }
    }
}

/// What a hash has for each id asked for.
type Texts = Vec<Option<String>>;

/// Where a device is by `node:session:epoch` of its owner and its last sign.
fn found_at(owner: Option<&str>, seen: &str) -> Option<Found> {
    let mut parts = owner.unwrap_or_default().split(':');
    let node = parts.next().unwrap_or_default().to_owned();
    let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    Some(Found {
        node,
        session_id: SessionId(number()),
        epoch: number(),
        seen_ms: seen.parse().ok()?,
    })
}

/// Looks at Redis for one page, though few of those found have the prefix.
const STEPS_A_PAGE: usize = 64;

/// Ids in one command.
const IDS_A_COMMAND: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_device_is_stands_in_its_owner() {
        let found = |node: &str, session, epoch| Found {
            node: node.into(),
            session_id: SessionId(session),
            epoch,
            seen_ms: 5,
        };
        for (owner, expected) in [
            (Some("n1:7:1764"), found("n1", 7, 1764)),
            (Some("n1:7:1764:3:1700"), found("n1", 7, 1764)),
            (None, found("", 0, 0)),
        ] {
            assert_eq!(found_at(owner, "5"), Some(expected));
        }
        assert_eq!(found_at(Some("n1:7:1"), "x"), None);
    }

    #[test]
    fn a_card_of_another_version_is_read_as_far_as_it_goes() {
        let card: Card = serde_json::from_str(r#"{"name":"a","later":[1]}"#).unwrap();
        assert_eq!((card.name.as_str(), card.connections), ("a", 0));
    }
}
