//! Removing what is left in Redis: of gateways that are gone, and of this one.

use super::{Shared, control, script};
use crate::{
    redis::{connect::Redis, error::Failure},
    types::ClientId,
};

/// A node whose lease ended.
pub(super) struct Gone {
    pub(super) node: String,
    /// Where in its set of ids the removal is.
    cursor: u64,
    removed: usize,
}

impl Gone {
    pub(super) fn new(node: String) -> Self {
        Self {
            node,
            cursor: 0,
            removed: 0,
        }
    }

    /// Removes some of its ids, each only if it is still this node's. Returns whether that was the rest. Doing it again, or
    /// two nodes doing it at once, does no harm.
    pub(super) async fn remove_some(
        &mut self,
        shared: &Shared,
        redis: &mut Redis,
    ) -> Result<bool, Failure> {
        let names = &shared.names;
        let set = names.ids_of(&self.node);
        let (cursor, ids) = some_of(&set, self.cursor, redis).await?;
        if !ids.is_empty() {
            // In this order: a gateway claims a seat before it writes the hash. So if the seat still belongs to the
            // dead node now, the value read before is not that of a newer gateway, and REMOVE spares a newer value.
            let hmget = |key: &str| redis::cmd("HMGET").arg(key).arg(&ids).to_owned();
            let seen: Vec<Option<String>> = hmget(&names.clients).query_async(redis).await?;
            let owners: Vec<Option<String>> = hmget(&names.owner).query_async(redis).await?;
            let mut remove = script::REMOVE.on(&[&names.clients]);
            let mut release = script::RELEASE.on(&[&names.owner]);
            release.arg(&self.node);
            for ((id, seen), owner) in ids.iter().zip(seen).zip(owners) {
                // One without an owner had just been given up, and its node died before it had removed the field.
                if owner.is_some_and(|owner| !control::is_of(&owner, &self.node)) {
                    continue;
                }
                release.arg(id);
                if let Some(seen) = seen.filter(|seen| seen.parse::<u64>().is_ok()) {
                    remove.arg(id).arg(&seen).arg(&seen);
                    self.removed += 1;
                }
            }
            let mut steps = redis::pipe();
            steps.add_command(remove).add_command(release);
            steps.cmd("SREM").arg(&set).arg(&ids);
            steps.exec_async(redis).await?;
        }
        self.cursor = cursor;
        if cursor != 0 {
            return Ok(false);
        }
        let mut forget = script::FORGET.on(&[&names.nodes]);
        forget.arg(&self.node).exec_async(redis).await?;
        tracing::info!(
            node = self.node,
            devices = self.removed,
            "Removed the presence of a gateway that is gone"
        );
        Ok(true)
    }
}

/// Looks through what Redis has as this node's ids, for those who are not.
pub(super) async fn look_through(shared: &Shared, redis: &mut Redis) -> Result<(), Failure> {
    let (set, mut cursor) = (shared.names.ids_of(&shared.node), 0);
    loop {
        let (next, ids) = some_of(&set, cursor, redis).await?;
        let ids = ids.into_iter().filter_map(|id| String::from_utf8(id).ok());
        let mut presence = shared.presence.lock();
        for client_id in ids.filter_map(ClientId::new) {
            presence.found(client_id);
        }
        drop(presence);
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

/// Some ids of a set, and where to go on; 0 at the end.
async fn some_of(
    set: &str,
    cursor: u64,
    redis: &mut Redis,
) -> Result<(u64, Vec<Vec<u8>>), Failure> {
    let mut scan = redis::cmd("SSCAN");
    scan.arg(set).arg(cursor).arg("COUNT").arg(IDS_A_STEP);
    Ok(scan.query_async(redis).await?)
}

/// Gives up lease and set of ids, when nothing of this node is left in Redis.
pub(super) async fn leave(shared: &Shared, redis: &mut Redis) -> Result<(), Failure> {
    let mut steps = redis::pipe();
    steps.del(shared.names.ids_of(&shared.node));
    steps.zrem(&shared.names.nodes, &*shared.node);
    Ok(steps.exec_async(redis).await?)
}

/// Ids looked at in one step.
const IDS_A_STEP: usize = 512;
