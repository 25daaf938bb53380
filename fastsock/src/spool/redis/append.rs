//! Writes what sessions say, and waits for replicas if told to.

use std::{convert::Infallible, time::Duration};

use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Shared, entry, script, shards::SHARDS};
use crate::{
    redis::{
        connect::{Redis, servers_of},
        error::{Failure, LinkError},
        trouble::Function,
    },
    spool::Record,
};

/// Writes what sessions say: what is there, in one step a shard, and then what came meanwhile.
pub(super) async fn append(shared: &Shared, redis: &Redis) -> LinkError {
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
            let mut add = script::ADD.on(&[&names.streams[*n], &names.bytes[*n]]);
            let (messages, bytes) = self.shared.most;
            add.arg(messages).arg(bytes);
            for record in records {
                entry::write(&record.uplink, &mut add);
            }
            let mut redis = redis.clone();
            async move { add.query_async::<usize>(&mut redis).await }
        });
        let began = Instant::now();
        let written = join_all(writing).await;
        if written.iter().any(Result::is_ok) {
            // What too few replicas have is given back, and written again once there are enough, under the same key.
            let streams = self.by_shard.iter();
            let streams = streams.map(|(n, _)| &self.shared.names.streams[*n]);
            replicate(self.shared, redis, streams).await?;
        }
        self.shared.commits.observe(began.elapsed());
        let (mut places, mut error, mut full) = (Vec::new(), None::<Failure>, Vec::new());
        for ((n, records), added) in self.by_shard.iter_mut().zip(written) {
            match added {
                Ok(added) => {
                    let added = added.min(records.len());
                    self.shared.shards.lock().added(*n, added as u64);
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

/// Messages of a shard written at once, and about how many bytes of them.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// How long replicas may take. Nothing else is answered over the link meanwhile, so it is less than an answer may take.
const REPLICATION: Duration = Duration::from_secs(1);

/// How long to wait before trying a full stream again.
const FULL_PACE: Duration = Duration::from_millis(100);
