//! This bridge among the gateways: its lease, the devices of gateways that are gone, and takeovers between gateways.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{Shared, script};
use crate::redis::{
    connect::Redis,
    error::{Failure, LinkError},
    lease::{LEASE, RENEW, RENEWAL, Watch},
    trouble::Function,
};
use crate::types::{ClientId, SessionId};

/// The lease of this node, and its watch over the others, for as long as one connection lasts.
#[derive(Default)]
pub(super) struct Lease {
    /// When Redis says that it ends.
    ends: String,
    watch: Watch,
    /// Nodes that are gone and whose ids are being removed.
    gone: VecDeque<Gone>,
    /// Redis refuses to remove them; until when that is not tried again.
    rest_until: Option<Instant>,
}

/// A node whose lease ended.
struct Gone {
    node: String,
    /// Where in its set of ids the removal is.
    cursor: u64,
    removed: usize,
}

impl Lease {
    /// Makes the first renewals of a link: more than one, so that the clock is known well from the first seat on. Waits while
    /// Redis reads its data; if it refuses otherwise, [`Lease::keep`] tries again.
    pub(super) async fn begin(
        &mut self,
        shared: &Shared,
        redis: &mut Redis,
    ) -> Result<(), LinkError> {
        let mut renewals = 0;
        while renewals < FIRST_RENEWALS {
            let failure = match self.renew(shared, redis).await {
                Ok(_) => {
                    shared.works(Function::Lease);
                    renewals += 1;
                    continue;
                }
                Err(failure) => failure,
            };
            let is_loading = failure.code() == "LOADING";
            let wait = shared.failed(Function::Lease, failure).await?;
            if !is_loading {
                break;
            }
            sleep(wait).await;
        }
        Ok(())
    }

    /// Renews the lease and looks at the others. Returns whether it had stood until now.
    async fn renew(&mut self, shared: &Shared, redis: &mut Redis) -> Result<bool, Failure> {
        let asked_us = shared.now_us();
        let mut answer: Vec<String> = redis::cmd("EVAL")
            .arg(RENEW)
            .arg(1)
            .arg(&shared.names.nodes)
            .arg(&shared.node)
            .arg(LEASE.as_millis() as u64)
            .arg(std::mem::take(&mut self.ends))
            .query_async(redis)
            .await?;
        let answered_us = shared.now_us();
        if answer.len() < 3 {
            return Err(LinkError::new("the lease script gave no answer").into());
        }
        let nodes = answer.split_off(3);
        let clock_us = answer[2].parse().unwrap_or(0);
        shared.clock.lock().said(clock_us, asked_us, answered_us);
        let stood = answer[0] == "1";
        self.ends = answer.swap_remove(1);
        let others = nodes.chunks_exact(2).filter(|pair| pair[0] != shared.node);
        for (node, ends) in self
            .watch
            .look(Instant::now(), others.map(|p| (&*p[0], &*p[1])))
        {
            let condemned: i64 = redis::cmd("EVAL")
                .arg(script::CONDEMN)
                .arg(1)
                .arg(&shared.names.nodes)
                .arg(&node)
                .arg(ends)
                .query_async(redis)
                .await?;
            if condemned == 1 && self.gone.iter().all(|gone| gone.node != node) {
                self.gone.push_back(Gone {
                    node,
                    cursor: 0,
                    removed: 0,
                });
            }
        }
        Ok(stood)
    }

    /// Renews each second, and between removes what nodes that are gone have left. Returns when the link fails.
    pub(super) async fn keep(mut self, shared: &Shared, mut redis: Redis) -> LinkError {
        let mut seconds = interval(RENEWAL);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        seconds.reset(); // the first renewal was at connect
        let mut removing = redis.clone();
        let error = async {
            loop {
                let is_resting = self.rest_until.is_some_and(|until| Instant::now() < until);
                let gone = self.gone.front_mut().filter(|_| !is_resting);
                let is_time = match gone {
                    None => {
                        seconds.tick().await;
                        true
                    }
                    Some(gone) => tokio::select! {
                        biased;
                        _ = seconds.tick() => true,
                        done = gone.remove_some(shared, &mut removing) => {
                            match done {
                                Ok(is_done) => {
                                    shared.works(Function::Cleanup);
                                    is_done.then(|| self.gone.pop_front());
                                }
                                Err(failure) => {
                                    let wait = shared.failed(Function::Cleanup, failure).await?;
                                    self.rest_until = Some(Instant::now() + wait);
                                }
                            }
                            false
                        }
                    },
                };
                if !is_time {
                    continue;
                }
                match self.renew(shared, &mut redis).await {
                    Ok(stood) => {
                        shared.works(Function::Lease);
                        if !stood {
                            // Another node took this one for dead, or Redis lost its data.
                            shared.restore.notify_one();
                        }
                    }
                    Err(failure) => {
                        // The others may be refused as well: their leases count from the next look.
                        self.watch = Watch::default();
                        let wait = shared.failed(Function::Lease, failure).await?;
                        sleep(wait.saturating_sub(RENEWAL)).await;
                    }
                }
            }
        };
        let never: Result<std::convert::Infallible, LinkError> = error.await;
        match never {
            Err(error) => error,
        }
    }
}

impl Gone {
    /// Removes some of its ids, each only if it is still this node's. Returns whether that was the rest. Doing it again, or
    /// two nodes doing it at once, does no harm.
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
            let mut remove = redis::cmd("EVAL");
            remove.arg(script::REMOVE).arg(1).arg(&names.clients);
            let mut release = redis::cmd("EVAL");
            release.arg(script::RELEASE).arg(1).arg(&names.owner);
            release.arg(&self.node);
            for ((id, seen), owner) in ids.iter().zip(seen).zip(owners) {
                // One without an owner had just been given up, and its node died before it had removed the field.
                if owner.is_some_and(|owner| !is_of(&owner, &self.node)) {
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
        redis::cmd("EVAL")
            .arg(script::FORGET)
            .arg(1)
            .arg(&names.nodes)
            .arg(&self.node)
            .exec_async(redis)
            .await?;
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
pub(super) async fn farewell(shared: &Shared, redis: &mut Redis) -> Result<(), Failure> {
    let mut steps = redis::pipe();
    steps.del(shared.names.ids_of(&shared.node));
    steps.zrem(&shared.names.nodes, &shared.node);
    Ok(steps.exec_async(redis).await?)
}

/// What Redis's clock says, known by what it said between a question and its answer. No I/O.
///
/// Who has which seat goes by it, so it must not depend on how long one answer took on a busy day: each answer leaves a span
/// of what may be, and what all of them leave is the best there is.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The least and the most that Redis's microseconds are ahead of ours, which count from the start.
    least_ahead_us: i64,
    most_ahead_us: i64,
}

impl Clock {
    fn said(&mut self, clock_us: u64, asked_us: u64, answered_us: u64) {
        let ahead_of = |us: u64| clock_us as i64 - us as i64;
        let (least, most) = (ahead_of(answered_us), ahead_of(asked_us));
        let both = (self.least_ahead_us.max(least), self.most_ahead_us.min(most));
        // Apart: a clock was set, or they have drifted, or this is another server.
        (self.least_ahead_us, self.most_ahead_us) = if both.0 <= both.1 {
            both
        } else {
            (least, most)
        };
    }

    /// Whether it has said anything yet.
    pub(super) fn is_known(&self) -> bool {
        (self.least_ahead_us, self.most_ahead_us) != (0, 0)
    }

    /// In milliseconds what it said at a moment of ours.
    pub(super) fn epoch_of(&self, moment_ms: u64) -> u64 {
        let ahead_us = self.least_ahead_us.midpoint(self.most_ahead_us);
        (moment_ms * 1000).saturating_add_signed(ahead_us) / 1000
    }
}

/// What gateways tell each other.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Control {
    /// The sender has seated a device that `node` has too.
    Replaced {
        node: String,
        client_id: String,
        session: u64,
    },
    /// Something of a later version.
    #[serde(other)]
    Unknown,
}

/// Takes what another gateway tells. Never waits.
pub(super) fn on_control(shared: &Shared, message: &[u8]) {
    match serde_json::from_slice(message) {
        Ok(Control::Replaced {
            node,
            client_id,
            session,
        }) if node == shared.node => {
            if let Some(deliver) = shared.deliver.upgrade() {
                deliver.replaced_elsewhere(&client_id, SessionId(session));
            }
        }
        Ok(_) => {}
        Err(error) => {
            shared.running.pushes_bad.add(1);
            tracing::debug!(%error, "A control message from Redis is not understood");
        }
    }
}

/// Whether an owner, written `node:session:epoch`, is this node.
pub(super) fn is_of(owner: &str, node: &str) -> bool {
    owner.split(':').next() == Some(node)
}

/// Renewals of a new link.
const FIRST_RENEWALS: usize = 4;

/// Ids looked at in one step.
const IDS_A_STEP: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_by_the_quickest_answers_until_it_is_set() {
        let mut clock = Clock::default();
        clock.said(1_000_500_000, 100_000, 900_000);
        assert_eq!(clock.epoch_of(1000), 1_001_000, "somewhere between");
        clock.said(1_001_004_000, 1_000_000, 1_002_000);
        assert_eq!(clock.epoch_of(1000), 1_001_003);
        clock.said(1_002_500_000, 2_000_000, 2_900_000);
        assert_eq!(
            clock.epoch_of(1000),
            1_001_003,
            "a slow one changes nothing"
        );
        clock.said(500_000_000, 4_000_000, 4_000_000);
        assert_eq!(clock.epoch_of(4000), 500_000, "it was set back");
    }

    #[test]
    fn control_messages_have_their_documented_form() {
        let text = serde_json::to_string(&Control::Replaced {
            node: "n".into(),
            client_id: "dev1".into(),
            session: 7,
        });
        assert_eq!(
            text.unwrap(),
            r#"{"op":"replaced","node":"n","client_id":"dev1","session":7}"#
        );
        let later = serde_json::from_str(r#"{"op":"kick","client_id":"x"}"#);
        assert!(matches!(later, Ok(Control::Unknown)));
    }
}
