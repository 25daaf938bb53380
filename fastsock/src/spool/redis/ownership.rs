//! Which shards are owned here: keeps the lease of this node, and shares the shards out among the nodes that are alive.

use std::{collections::HashSet, time::Duration};

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::{
    Shared, restoring, script,
    shards::{Plan, SHARDS},
};
use crate::redis::{
    connect::Redis,
    error::{Failure, LinkError},
    lease::{LEASE, Lease, RENEWAL, ROUNDING},
    trouble::Function,
};

/// The lease of this node and what it owns by it, for as long as one connection lasts.
pub(super) struct Ownership {
    lease: Lease,
}

impl Ownership {
    pub(super) fn new(shared: &Shared) -> Self {
        let lease = Lease::new(&shared.names.nodes, &shared.node).without_memory();
        Self { lease }
    }

    /// Looks for the first time. Waits while Redis reads its data; if it refuses otherwise, [`Ownership::keep`] tries again.
    pub(super) async fn begin(&mut self, shared: &Shared, redis: &Redis) -> Result<(), LinkError> {
        while let Err(failure) = self.look(shared, redis).await {
            let is_loading = failure.code() == "LOADING";
            let wait = shared.troubles.weigh(Function::Deliver, failure).await?;
            if !is_loading {
                break;
            }
            sleep(wait).await;
        }
        self.lease.renewed();
        Ok(())
    }

    /// Looks each second, until told to stop and nothing is owned nor left to be written.
    pub(super) async fn keep(&mut self, shared: &Shared, redis: &Redis) -> Result<(), LinkError> {
        let mut was_told = false;
        loop {
            tokio::select! {
                () = self.lease.due() => {}
                () = shared.stop.cancelled(), if !was_told => was_told = true,
                () = shared.has_left.notified() => {
                    let left = leave(shared, redis).await;
                    self.heed(shared, left).await?;
                    continue;
                }
            }
            let looked = self.look(shared, redis).await;
            let is_done = match looked {
                Ok(()) if was_told => self.is_done(shared, redis).await,
                looked => looked.map(|()| false),
            };
            if self.heed(shared, is_done).await? == Some(true) {
                return Ok(());
            }
        }
    }

    /// Goes by what came of a command: nothing when Redis refuses it, after a while.
    async fn heed<T>(
        &mut self,
        shared: &Shared,
        answer: Result<T, Failure>,
    ) -> Result<Option<T>, LinkError> {
        match answer {
            Ok(answer) => {
                shared.troubles.works(Function::Deliver);
                Ok(Some(answer))
            }
            Err(failure) => {
                let wait = shared.troubles.weigh(Function::Deliver, failure).await?;
                self.lease.refused(wait).await;
                Ok(None)
            }
        }
    }

    /// After being told to stop: waits a second at most for the rest; whether there is none.
    async fn is_done(&self, shared: &Shared, redis: &Redis) -> Result<bool, Failure> {
        let start = Instant::now();
        while start.elapsed() < RENEWAL {
            leave(shared, redis).await?;
            let has_appends = shared.appends.lock().iter().any(|some| !some.is_empty());
            if !has_appends && shared.shards.lock().owned().is_empty() {
                let mut zrem = redis::cmd("ZREM");
                zrem.arg(&shared.names.nodes).arg(&*shared.node);
                zrem.exec_async(&mut redis.clone()).await?;
                return Ok(true);
            }
            sleep(LEAVING_PACE).await;
        }
        Ok(false)
    }

    /// Renews the lease, sees who else is alive and who owns what, and acts on it.
    async fn look(&mut self, shared: &Shared, redis: &Redis) -> Result<(), Failure> {
        let asked = Instant::now();
        restoring::write(shared, redis).await?;
        let live = self.renew(shared, redis).await?;
        let looks = (0..SHARDS).map(|n| look_at(shared, redis, n));
        let looks = try_join_all(looks).await?;
        let letters: Vec<_> = looks.iter().map(|look| look.1).enumerate().collect();
        shared.letters_changed(&letters, looks.iter().map(|look| look.2).sum());
        let lengths: Vec<_> = looks.iter().map(|look| look.3).collect();
        let owners: Vec<_> = looks.into_iter().map(|look| look.0).collect();
        let is_stopping = shared.stop.is_cancelled();
        let mut plan = {
            let mut shards = shared.shards.lock();
            shards.look(&shared.node, &owners, &lengths, &live, is_stopping)
        };
        restoring::note(shared, std::mem::take(&mut plan.emptied));
        // Before somebody reads those shards again, so that each is read once.
        restoring::write(shared, redis).await?;
        // Only now: what this node lost is known, and what it has nobody takes over before the lease has ended.
        *shared.lease_ends.lock() = Some(asked + LEASE - ROUNDING * 3);
        self.act(shared, redis, plan).await?;
        shared.tell(|lanes| lanes.resume());
        shared.read_on.notify_waiters();
        Ok(())
    }

    /// Returns who is alive, this node included.
    async fn renew(&mut self, shared: &Shared, redis: &Redis) -> Result<HashSet<String>, Failure> {
        let mut redis = redis.clone();
        let renewal = self.lease.renew(&mut redis).await?;
        let mut live: HashSet<_> = renewal.nodes.into_iter().collect();
        for (node, ends) in renewal.gone {
            let mut forget = script::FORGET.on(&[&shared.names.nodes]);
            forget.arg(&node).arg(ends);
            if forget.query_async::<i64>(&mut redis).await? == 1 {
                tracing::info!(node, "A gateway is gone; others deliver what it had taken");
                live.remove(&node);
            }
        }
        Ok(live)
    }

    async fn act(&self, shared: &Shared, redis: &Redis, plan: Plan) -> Result<(), Failure> {
        if !plan.lost.is_empty() {
            tracing::warn!(shards = ?plan.lost, "Other gateways deliver these shards of the spool now");
        }
        shared.withdraw(&plan.withdrawn);
        let taking = plan.take.into_iter().map(|(n, before)| {
            let mut take = script::TAKE.on(&[&shared.names.owners[n]]);
            take.arg(&*shared.node).arg(&before);
            let mut redis = redis.clone();
            async move {
                let owner: Option<String> = take.query_async(&mut redis).await?;
                Ok::<_, Failure>(owner.map(|owner| (n, owner, before)))
            }
        });
        let taken: Vec<_> = try_join_all(taking).await?.into_iter().flatten().collect();
        if !taken.is_empty() {
            let numbers: Vec<_> = taken.iter().map(|(n, ..)| *n).collect();
            tracing::debug!(shards = ?numbers, "Delivers these shards of the spool from now on");
            let mut shards = shared.shards.lock();
            for (n, owner, before) in taken {
                shards.taken(n, owner, before);
            }
        }
        leave(shared, redis).await
    }
}

/// The owner of a shard, its dead letters, how many of them were too old, and its messages.
async fn look_at(
    shared: &Shared,
    redis: &Redis,
    n: usize,
) -> Result<(String, u64, u64, u64), Failure> {
    let names = &shared.names;
    let keys = [
        &names.owners[n],
        &names.dead[n],
        &names.dead_times[n],
        &names.streams[n],
    ];
    let mut look = script::LOOK.on(&keys);
    let owner = shared.shards.lock().owner(n);
    look.arg(owner.unwrap_or_default());
    look.arg(shared.most_letters.1);
    Ok(look.query_async(&mut redis.clone()).await?)
}

/// Gives up shards that are to be left and of which nothing is held any more.
async fn leave(shared: &Shared, redis: &Redis) -> Result<(), Failure> {
    let left = shared.shards.lock().left();
    for (n, owner) in left {
        let mut release = script::RELEASE.on(&[&shared.names.owners[n]]);
        release.arg(&owner);
        release.exec_async(&mut redis.clone()).await?;
        shared.shards.lock().lost(n, &owner);
    }
    Ok(())
}

/// How often to look whether everything is given up, when told to stop.
const LEAVING_PACE: Duration = Duration::from_millis(5);
