//! The cmd link of the spool: writes what sessions say (and waits for replicas, if told to), removes what is delivered, keeps the lease and shares out the shards.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use futures_util::future::{join_all, try_join_all};
use redis::Cmd;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::{
    Shared, entry, script,
    shards::{Acks, Plan, SHARDS},
};
use crate::{
    pure::backoff::Backoff,
    redis::{
        connect::{self, Redis, servers_of},
        error::{Failure, LinkError},
        lease::{LEASE, RENEW, RENEWAL, ROUNDING, Watch},
        trouble::Function,
    },
    spool::Record,
};

/// Keeps the link until told to stop.
pub(super) async fn keep(shared: Arc<Shared>) {
    keep_until_told(&shared).await;
    *shared.cmd.lock() = None;
}

/// Connects, serves the link until trouble, says so, waits, again.
async fn keep_until_told(shared: &Shared) {
    let mut last_said = None;
    let mut failures = 0;
    loop {
        let served = tokio::select! {
            biased;
            () = shared.cut.cancelled() => return,
            served = serve(shared, &mut last_said, &mut failures) => served,
        };
        let Err(error) = served else {
            return; // told to stop, and done
        };
        *shared.cmd.lock() = None;
        shared.tell(|lanes| lanes.failing(true));
        if last_said.as_ref() != Some(&error.text) {
            tracing::error!(name: "spool_error", error = %error, "the spool in Redis is away; uplinks wait until it is back");
            last_said = Some(error.text.clone());
        }
        failures += 1;
        let delay = match error.is_denied {
            true => DENIED_DELAY,
            false => BACKOFF.delay(failures),
        };
        tokio::select! {
            () = shared.cut.cancelled() => return,
            () = sleep(delay) => {}
        }
    }
}

/// Serves one connection to its end. `Ok` when told to stop and nothing is left to do.
async fn serve(
    shared: &Shared,
    last_said: &mut Option<String>,
    failures: &mut u32,
) -> Result<(), LinkError> {
    let connection = connect::open(&shared.address, PATIENCE).await?;
    let redis = connection.redis.clone();
    shared.shards.lock().ack_again();
    let mut lease = Lease::default();
    let tended = async {
        lease.begin(shared, &redis).await?;
        *shared.cmd.lock() = Some(redis.clone());
        if last_said.take().is_some() {
            tracing::info!(name: "spool_up", "the spool in Redis is back");
        }
        *failures = 0;
        tokio::select! {
            kept = lease.keep(shared, &redis) => kept,
            error = append(shared, &redis) => Err(error),
            error = ack(shared, &redis) => Err(error),
            watched = shared.troubles.rights().watch(redis.clone()) => match watched {
                Err(error) => Err(error),
            },
        }
    };
    tokio::select! {
        () = connection.lost.notified() => Err(LinkError::new("the connection was lost")),
        (error, _) = connection.moved(&shared.address) => Err(error),
        tended = tended => tended,
    }
}

/// The lease of this node, and its watch over the others, for as long as one connection lasts.
#[derive(Default)]
struct Lease {
    /// When Redis says that it ends.
    ends: String,
    watch: Watch,
}

impl Lease {
    /// Looks for the first time. Waits while Redis reads its data; if it refuses otherwise, [`Lease::keep`] tries again.
    async fn begin(&mut self, shared: &Shared, redis: &Redis) -> Result<(), LinkError> {
        while let Err(failure) = self.look(shared, redis).await {
            let is_loading = failure.code() == "LOADING";
            let wait = shared.troubles.weigh(Function::Deliver, failure).await?;
            if !is_loading {
                break;
            }
            sleep(wait).await;
        }
        Ok(())
    }

    /// Looks each second, until told to stop and nothing is owned nor left to be written.
    async fn keep(&mut self, shared: &Shared, redis: &Redis) -> Result<(), LinkError> {
        let mut seconds = interval(RENEWAL);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        seconds.reset(); // the first look was at connect
        let mut was_told = false;
        loop {
            tokio::select! {
                _ = seconds.tick() => {}
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
                // The others may be refused as well: their leases count from the next look.
                self.watch = Watch::default();
                let wait = shared.troubles.weigh(Function::Deliver, failure).await?;
                sleep(wait.saturating_sub(RENEWAL)).await;
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
                zrem.arg(&shared.names.nodes).arg(&shared.node);
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
        let live = self.renew(shared, redis).await?;
        let looks = (0..SHARDS).map(|n| look_at(shared, redis, n));
        let looks = try_join_all(looks).await?;
        let letters: Vec<_> = looks.iter().map(|look| look.1).enumerate().collect();
        shared.letters_changed(&letters, looks.iter().map(|look| look.2).sum());
        let owners: Vec<_> = looks.into_iter().map(|look| look.0).collect();
        let is_stopping = shared.stop.is_cancelled();
        let plan = shared
            .shards
            .lock()
            .look(&shared.node, &owners, &live, is_stopping);
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
        let nodes = &shared.names.nodes;
        let mut answer: Vec<String> = redis::cmd("EVAL")
            .arg(RENEW)
            .arg(1)
            .arg(nodes)
            .arg(&shared.node)
            .arg(LEASE.as_millis() as u64)
            .arg(std::mem::take(&mut self.ends))
            .arg("oom")
            .query_async(&mut redis)
            .await?;
        if answer.len() < 3 {
            return Err(LinkError::new("the lease script gave no answer").into());
        }
        let leases = answer.split_off(3);
        self.ends = answer.swap_remove(1);
        let leases = || leases.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1]));
        let others = leases().filter(|(node, _)| *node != shared.node);
        let mut live: HashSet<_> = leases().map(|(node, _)| node.to_owned()).collect();
        for (node, ends) in self.watch.look(Instant::now(), others) {
            let mut forget = eval(script::FORGET, &[nodes]);
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
            let mut take = eval(script::TAKE, &[&shared.names.owners[n]]);
            take.arg(&shared.node).arg(before);
            let mut redis = redis.clone();
            async move {
                let owner: Option<String> = take.query_async(&mut redis).await?;
                Ok::<_, Failure>(owner.map(|owner| (n, owner)))
            }
        });
        let taken: Vec<_> = try_join_all(taking).await?.into_iter().flatten().collect();
        if !taken.is_empty() {
            let numbers: Vec<_> = taken.iter().map(|(n, _)| *n).collect();
            tracing::debug!(shards = ?numbers, "Delivers these shards of the spool from now on");
            let mut shards = shared.shards.lock();
            for (n, owner) in taken {
                shards.taken(n, owner);
            }
        }
        leave(shared, redis).await
    }
}

/// The owner of a shard, its dead letters, and how many of them were too old.
async fn look_at(shared: &Shared, redis: &Redis, n: usize) -> Result<(String, u64, u64), Failure> {
    let names = &shared.names;
    let keys = [&names.owners[n], &names.dead[n], &names.dead_times[n]];
    let mut look = eval(script::LOOK, &keys);
    let owner = shared.shards.lock().owner(n);
    look.arg(owner.unwrap_or_default());
    look.arg(shared.most_letters.1);
    Ok(look.query_async(&mut redis.clone()).await?)
}

/// Gives up shards that are to be left and of which nothing is held any more.
async fn leave(shared: &Shared, redis: &Redis) -> Result<(), Failure> {
    let left = shared.shards.lock().left();
    for (n, owner) in left {
        let mut release = eval(script::RELEASE, &[&shared.names.owners[n]]);
        release.arg(&owner);
        release.exec_async(&mut redis.clone()).await?;
        shared.shards.lock().lost(n, &owner);
    }
    Ok(())
}

/// Writes what sessions say: what is there, in one step a shard, and then what came meanwhile.
async fn append(shared: &Shared, redis: &Redis) -> LinkError {
    let error = async {
        // While it is refused nothing more is said that could be tried.
        while let Err(failure) = replicate(shared, redis, &shared.names.streams).await {
            sleep(refused(shared, failure).await?).await;
        }
        // Streams that were full, and when to try them again.
        let mut full = [None; SHARDS];
        let mut is_refused = false;
        loop {
            if !is_refused {
                shared.troubles.works(Function::Take);
                shared.tell(|lanes| lanes.failing(false));
            }
            let batch = next_appends(shared, &mut full).await;
            match batch.write(redis).await {
                Ok(found_full) => {
                    is_refused = false;
                    for n in found_full {
                        full[n] = Some(Instant::now() + FULL_PACE);
                    }
                }
                Err(failure) => {
                    is_refused = true;
                    sleep(refused(shared, failure).await?).await;
                }
            }
        }
    };
    let never: Result<Infallible, LinkError> = error.await;
    match never {
        Err(error) => error,
    }
}

/// Redis takes no uplinks. Returns how long to wait before it is asked again.
async fn refused(shared: &Shared, failure: Failure) -> Result<Duration, LinkError> {
    let wait = shared.troubles.weigh(Function::Take, failure).await?;
    shared.tell(|lanes| lanes.failing(true));
    Ok(wait)
}

/// Waits for something to write.
async fn next_appends<'a>(
    shared: &'a Shared,
    full: &mut [Option<Instant>; SHARDS],
) -> InFlight<'a> {
    loop {
        let now = Instant::now();
        *full = full.map(|until| until.filter(|until| *until > now));
        let batch = InFlight::take(shared, |n| full[n].is_none());
        if !batch.by_shard.is_empty() {
            return batch;
        }
        let next = full.iter().flatten().min();
        let next = next.copied().unwrap_or(now + FULL_PACE);
        tokio::select! {
            () = shared.has_appends.notified() => {}
            () = sleep_until(next), if full.iter().any(Option::is_some) => {}
        }
    }
}

/// Appends on their way, given back in order wherever the task ends.
struct InFlight<'a> {
    shared: &'a Shared,
    by_shard: Vec<(usize, Vec<Record>)>,
}

impl<'a> InFlight<'a> {
    fn take(shared: &'a Shared, may_try: impl Fn(usize) -> bool) -> Self {
        let mut by_shard = Vec::new();
        for (n, waiting) in shared.appends.lock().iter_mut().enumerate() {
            if waiting.is_empty() || !may_try(n) {
                continue;
            }
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while batch.len() < BATCH && bytes < BATCH_BYTES {
                let Some(record) = waiting.pop_front() else {
                    break;
                };
                bytes += record.uplink.payload.len();
                batch.push(record);
            }
            by_shard.push((n, batch));
        }
        Self { shared, by_shard }
    }

    /// Writes each shard's in one step. Returns which streams were full, so that some of theirs are left.
    async fn write(mut self, redis: &Redis) -> Result<Vec<usize>, Failure> {
        let writing = self.by_shard.iter().map(|(n, records)| {
            let names = &self.shared.names;
            let mut add = eval(script::ADD, &[&names.streams[*n], &names.bytes[*n]]);
            let (messages, bytes) = self.shared.most;
            add.arg(messages).arg(bytes);
            for record in records {
                entry::write(&record.uplink, &mut add);
            }
            let mut redis = redis.clone();
            async move { add.query_async::<usize>(&mut redis).await }
        });
        let written = join_all(writing).await;
        if written.iter().any(Result::is_ok) {
            // What too few replicas have is given back, and written again once there are enough, under the same key.
            let streams = self.by_shard.iter();
            let streams = streams.map(|(n, _)| &self.shared.names.streams[*n]);
            replicate(self.shared, redis, streams).await?;
        }
        let (mut places, mut error, mut full) = (Vec::new(), None::<Failure>, Vec::new());
        for ((n, records), added) in self.by_shard.iter_mut().zip(written) {
            match added {
                Ok(added) => {
                    let added = added.min(records.len());
                    places.extend(records.drain(..added).map(|record| record.place()));
                    full.extend((!records.is_empty()).then_some(*n));
                }
                // That the link is lost is told rather than that something is refused.
                Err(e) => match Failure::from(e) {
                    Failure::Refused(_) if error.is_some() => {}
                    failure => error = Some(failure),
                },
            }
        }
        self.shared.tell(|lanes| lanes.passed_on(&places));
        error.map_or(Ok(full), Err)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut appends = self.shared.appends.lock();
        for (n, left) in self.by_shard.drain(..) {
            for record in left.into_iter().rev() {
                appends[n].push_front(record);
            }
        }
    }
}

/// Waits until enough replicas have all that was written over this link, on each server that has one of these keys.
async fn replicate(
    shared: &Shared,
    redis: &Redis,
    keys: impl IntoIterator<Item = &String>,
) -> Result<(), Failure> {
    let wanted = shared.replicas;
    if wanted == 0 {
        return Ok(());
    }
    let waiting = servers_of(redis, keys).await?.into_iter();
    let waiting = waiting.map(async |mut server| {
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted).arg(REPLICATION.as_millis() as u64);
        wait.query_async::<usize>(&mut server).await
    });
    let fewest = try_join_all(waiting).await?.into_iter().min();
    match fewest {
        Some(fewest) if fewest < wanted => Err(Failure::refused(format!(
            "FASTSOCK_SPOOL_REPLICAS: {fewest} of {wanted} replicas have what was written"
        ))),
        _ => Ok(()),
    }
}

/// Removes what is delivered, as it comes.
async fn ack(shared: &Shared, redis: &Redis) -> LinkError {
    let error = async {
        loop {
            let acks = shared.shards.lock().acking(BATCH);
            if acks.is_empty() {
                shared.has_acks.notified().await;
                continue;
            }
            let removing = acks.into_iter().map(|acks| remove(shared, redis, acks));
            match try_join_all(removing).await {
                Ok(_) => {
                    shared.troubles.works(Function::Remove);
                    shared.has_left.notify_one();
                }
                Err(failure) => {
                    sleep(shared.troubles.weigh(Function::Remove, failure).await?).await;
                    shared.shards.lock().ack_again();
                }
            }
        }
    };
    let never: Result<Infallible, LinkError> = error.await;
    match never {
        Err(error) => error,
    }
}

async fn remove(shared: &Shared, redis: &Redis, acks: Acks) -> Result<(), Failure> {
    let (names, n) = (&shared.names, acks.n);
    let keys = [
        &names.streams[n],
        &names.owners[n],
        &names.bytes[n],
        &names.dead[n],
        &names.dead_times[n],
    ];
    let mut settle = eval(script::SETTLE, &keys);
    settle.arg(&acks.owner).arg(shared.most_letters.0);
    settle.arg(acks.ids.len());
    for (id, cost) in &acks.ids {
        settle.arg(id).arg(*cost);
    }
    for (key, letter) in &acks.letters {
        settle.arg(key.to_string()).arg(letter);
    }
    let (letters, dropped): (i64, u64) = settle.query_async(&mut redis.clone()).await?;
    if let Ok(letters) = u64::try_from(letters) {
        shared.shards.lock().acked(&acks);
        shared.letters_changed(&[(n, letters)], dropped);
        return Ok(());
    }
    let places = shared.shards.lock().lost(n, &acks.owner);
    tracing::warn!(
        shard = n,
        "Another gateway delivers this shard of the spool now"
    );
    shared.withdraw(&places);
    Ok(())
}

/// A script with its keys; what it is given follows.
pub(super) fn eval(script: &str, keys: &[&String]) -> Cmd {
    let mut eval = redis::cmd("EVAL");
    eval.arg(script).arg(keys.len()).arg(keys);
    eval
}

/// Messages of a shard written or removed at once, and about how many bytes of them.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// How long an answer of Redis may take: less than a lease, so that a frozen one is noticed in time.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long replicas may take. Nothing else is answered over the link meanwhile, so it is less than `PATIENCE`.
const REPLICATION: Duration = Duration::from_secs(1);

/// How long to wait before trying a full stream again.
const FULL_PACE: Duration = Duration::from_millis(100);

/// How often to look whether everything is given up, when told to stop.
const LEAVING_PACE: Duration = Duration::from_millis(5);

const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// Trying a wrong password more often only fills the log of Redis.
const DENIED_DELAY: Duration = Duration::from_secs(5);
