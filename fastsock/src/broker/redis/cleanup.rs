//! Removing what is left in Redis: of gateways that are gone, and of this one.

use std::time::Duration;

use tokio::time::Instant;

use super::{Shared, control, losses, script};
use crate::{
    redis::{connect::Redis, error::Failure},
    types::ClientId,
};

/// A node whose lease ended, and that this one clears up after: it removes its devices from Redis at once, and where there is a backend
/// for events it then tells of those that have not come back within the grace.
pub(super) struct Gone {
    pub(super) node: String,
    /// What stands for its lease for as long as this node is at it.
    mark: u64,
    /// Where in a set the work is.
    cursor: u64,
    removed: usize,
    stage: Stage,
    /// When to go on.
    due: Instant,
    /// Whether this look through what is to be told has found anything.
    has_found: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Removing,
    Telling,
}

impl Gone {
    pub(super) fn new(node: String, mark: u64) -> Self {
        Self {
            node,
            mark,
            cursor: 0,
            removed: 0,
            stage: Stage::Removing,
            due: Instant::now(),
            has_found: false,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Says that this node is still at it. `false`: another one is now, or the node is back.
    pub(super) async fn hold(
        &mut self,
        shared: &Shared,
        redis: &mut Redis,
    ) -> Result<bool, Failure> {
        let mut condemn = script::CONDEMN.on(&[&shared.names.nodes]);
        condemn.arg(&self.node).arg(self.mark);
        self.mark = condemn.query_async(redis).await?;
        if self.mark == 0 {
            shared.losses.leave(&self.node);
        }
        Ok(self.mark != 0)
    }

    /// Does some of what is to be done. Returns whether that was the rest. Doing it again does no harm.
    pub(super) async fn go_on(
        &mut self,
        shared: &Shared,
        redis: &mut Redis,
    ) -> Result<bool, Failure> {
        let is_done = match self.stage {
            Stage::Removing => self.remove_some(shared, redis).await?,
            Stage::Telling => self.tell_some(shared, redis).await?,
        };
        if !is_done {
            return Ok(false);
        }
        if self.stage == Stage::Removing {
            tracing::info!(
                node = self.node,
                devices = self.removed,
                "Removed the presence of a gateway that is gone"
            );
            if let Some(teller) = shared.teller() {
                self.stage = Stage::Telling;
                self.due = Instant::now() + teller.grace();
                return Ok(false);
            }
        }
        let mut forget = script::FORGET.on(&[&shared.names.nodes]);
        forget.arg(&self.node).arg(self.mark);
        let mut steps = redis::pipe();
        steps.hdel(&shared.names.cards, &self.node);
        steps.add_command(forget).exec_async(redis).await?;
        Ok(true)
    }

    /// Removes some of its ids, each only if it is still this node's. Returns whether that was the rest.
    async fn remove_some(&mut self, shared: &Shared, redis: &mut Redis) -> Result<bool, Failure> {
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
            let mut lost = Vec::new();
            for ((id, seen), owner) in ids.iter().zip(seen).zip(owners) {
                match owner {
                    Some(owner) if !control::is_of(&owner, &self.node) => continue,
                    Some(owner) => lost.extend(losses::record(&owner, id)),
                    // It had just been given up, and its node died before it had removed the field.
                    None => {}
                }
                release.arg(id).arg(u64::MAX);
                if let Some(seen) = seen.filter(|seen| seen.parse::<u64>().is_ok()) {
                    remove.arg(id).arg(&seen).arg(&seen);
                    self.removed += 1;
                }
            }
            // What is to be told is written first: whoever goes on after this node finds either the owner or the record.
            if !lost.is_empty() && shared.teller().is_some() {
                let mut sadd = redis::cmd("SADD");
                sadd.arg(names.lost_of(&self.node)).arg(lost);
                sadd.exec_async(redis).await?;
            }
            let mut steps = redis::pipe();
            steps.add_command(remove).add_command(release);
            steps.cmd("SREM").arg(&set).arg(&ids);
            steps.exec_async(redis).await?;
        }
        self.cursor = cursor;
        Ok(cursor == 0)
    }

    /// Tells of some who have not come back, and removes the records of those who are told of. Returns whether none is left.
    async fn tell_some(&mut self, shared: &Shared, redis: &mut Redis) -> Result<bool, Failure> {
        let Some(teller) = shared.teller() else {
            return Ok(true); // the bridge is ending
        };
        let set = shared.names.lost_of(&self.node);
        let told = shared.losses.told(&self.node);
        if !told.is_empty() {
            let mut srem = redis::cmd("SREM");
            srem.arg(&set).arg(&told).exec_async(redis).await?;
            shared.losses.forget(&self.node, &told);
        }
        if shared.losses.has_room(&self.node) {
            let (cursor, records) = some_of(&set, self.cursor, redis).await?;
            self.has_found |= !records.is_empty();
            let news = shared.losses.news(&self.node, records);
            if !news.is_empty() {
                let mut hmget = redis::cmd("HMGET");
                hmget.arg(&shared.names.owner);
                for lost in &news {
                    hmget.arg(lost.client_id.as_str());
                }
                let owners: Vec<Option<String>> = hmget.query_async(redis).await?;
                for (record, owner) in news.into_iter().zip(owners) {
                    match owner {
                        // It is back: nothing to be told of.
                        Some(_) => shared.losses.settled(&self.node, record),
                        None => teller.lost(shared.losses.tell(&self.node, record)),
                    }
                }
            }
            self.cursor = cursor;
            if cursor == 0 && !std::mem::take(&mut self.has_found) {
                return Ok(true);
            }
        }
        self.due = Instant::now() + PACE;
        Ok(false)
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
    steps.hdel(&shared.names.cards, &*shared.node);
    steps.zrem(&shared.names.nodes, &*shared.node);
    Ok(steps.exec_async(redis).await?)
}

/// Ids looked at in one step.
const IDS_A_STEP: usize = 512;

/// Between two looks at what is to be told.
const PACE: Duration = Duration::from_millis(50);
