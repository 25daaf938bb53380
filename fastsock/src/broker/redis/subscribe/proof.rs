//! Proof that the sub link still hears what is published.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use redis::aio::MultiplexedConnection;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{
    super::{Shared, links::Kind},
    push::Received,
};
use crate::redis::{
    connect::{Redis, by_all_servers, learn_whole, masters_of},
    error::{Failure, LinkError},
    glob::escaped,
    sharded,
    trouble::{Function, LOADING_MAX},
};

/// Returns when the link is found dead or deaf: after a failover it can answer and yet hear nothing.
pub(super) async fn watch(
    shared: &Shared,
    received: &Received,
    mut redis: MultiplexedConnection,
    shards: Option<&Redis>,
) -> LinkError {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut idle_s, mut looked_at) = (0, SystemTime::now());
    let mut loading_since = None;
    loop {
        let is_asked = tokio::select! {
            _ = seconds.tick() => false,
            () = shared.check.notified() => true,
        };
        if !shared.links.lock().is_up(Kind::Sub) {
            continue; // still subscribing, which has its own deadline
        }
        let has_heard = received.has_heard.swap(false, Relaxed);
        let is_proof = !received.is_cluster || !can_probe(shared, received);
        if has_heard && is_proof {
            *shared.last_good.lock() = looked_at;
            idle_s = 0;
        } else if !is_asked {
            idle_s += 1;
        }
        looked_at = SystemTime::now();
        let is_due = |every_s| is_asked || (idle_s > 0 && idle_s % every_s == 0);
        if is_due(PING_IDLE_S) {
            // Whatever it answers, it lives. But that it answers does not mean that it hears.
            match redis::cmd("PING")
                .exec_async(&mut redis)
                .await
                .map_err(Failure::from)
            {
                Err(Failure::Lost(error)) => return error,
                Err(Failure::Refused(refusal)) if refusal.code == "NOAUTH" => {
                    return LinkError::new(refusal.text);
                }
                Err(Failure::Refused(refusal)) if refusal.code == "LOADING" => {
                    if loading_since
                        .get_or_insert(looked_at)
                        .elapsed()
                        .is_ok_and(|e| e > LOADING_MAX)
                    {
                        return LinkError::new(refusal.text);
                    }
                }
                Ok(()) | Err(Failure::Refused(_)) => loading_since = None,
            }
        }
        let probe_s = match received.is_cluster {
            true => PROBE_CLUSTER_S,
            false => PROBE_IDLE_S,
        };
        if is_due(probe_s)
            && let Err(error) = probe(shared, received, shards).await
        {
            return error;
        }
    }
}

/// Whether a probe would prove anything.
fn can_probe(shared: &Shared, received: &Received) -> bool {
    received.hears_probe.load(Relaxed) && shared.cmd.lock().is_some()
}

/// Publishes to itself by the cmd link, in a cluster by each server of it; an error when that is not heard.
async fn probe(
    shared: &Shared,
    received: &Received,
    shards: Option<&Redis>,
) -> Result<(), LinkError> {
    if !received.hears_probe.load(Relaxed) {
        return Ok(()); // it would prove nothing
    }
    loop {
        let Some(cmd) = shared.cmd.lock().clone() else {
            return Ok(());
        };
        let published_at = SystemTime::now();
        let number = fastrand::u64(1..);
        received.probe_ways.store(0, Relaxed);
        received.probe.store(number, Relaxed);
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&shared.names.probe).arg(number);
        let ways = match by_all_servers(&cmd.redis, &publish).await {
            Ok(ways) => ways,
            Err(error) => {
                if let failure @ Failure::Refused(_) = Failure::from(error) {
                    let failure = failure.of_channel(&escaped(&shared.names.probe));
                    let _ = shared.failed(Function::Probe, failure).await;
                }
                return Ok(()); // a lost link has its own watch
            }
        };
        shared.works(Function::Probe);
        let heard = async {
            while received.probe_ways.load(Relaxed) < ways {
                received.probe_came.notified().await;
            }
        };
        match timeout(PROBE_TIMEOUT, heard).await {
            Ok(()) => {
                if let Some(shards) = shards.filter(|_| received.is_cluster) {
                    sharded::ping(shards).await?;
                    if masters_of(shards) != masters_of(&cmd.redis) {
                        // Which ends this link if it listens to a server that has no slots any more.
                        learn_whole(shards).await;
                        learn_whole(&cmd.redis).await;
                    }
                }
                let mut last_good = shared.last_good.lock();
                *last_good = published_at.max(*last_good);
                return Ok(());
            }
            Err(_) if !received.is_cluster && received.has_heard.load(Relaxed) => return Ok(()),
            // It may be the cmd link that knows a server which is no longer in the cluster.
            Err(_) if learn_whole(&cmd.redis).await && shards.is_none() => {}
            Err(_) => return Err(LinkError::new("it does not deliver what is published")),
        }
    }
}

/// Seconds without a push after which the link is asked.
const PING_IDLE_S: u32 = 5;

/// Seconds without a push after which it must hear itself.
const PROBE_IDLE_S: u32 = 10;

/// The same in a cluster, where nothing else is proof.
const PROBE_CLUSTER_S: u32 = 2;

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
