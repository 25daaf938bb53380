//! A Redis that comes back empty: what is still held here is written again, and the rest is counted.

use super::{Shared, entry, script, shards::Emptied};
use crate::{
    redis::{connect::Redis, error::Failure},
    spool::{Place, Record},
};

/// What is to be written again of one shard.
pub(super) struct Restoring {
    n: usize,
    /// Not written yet, in order.
    records: Vec<Record>,
    /// All of them: once they are written they are for whoever reads the shard.
    places: Vec<Place>,
}

/// Takes note of shards of which Redis has nothing any more.
pub(super) fn note(shared: &Shared, emptied: Vec<Emptied>) {
    if emptied.is_empty() {
        return;
    }
    let (mut held, mut lost) = (0, 0);
    let are_rolled_back = emptied.iter().all(|emptied| emptied.is_rolled_back);
    for Emptied {
        n,
        places,
        vanished,
        ..
    } in emptied
    {
        let mut records = Vec::new();
        shared.tell(|lanes| records = lanes.copies(&places));
        held += records.len();
        lost += vanished;
        shared
            .restoring
            .lock()
            .push(Restoring { n, records, places });
    }
    if lost == 0 && are_rolled_back {
        tracing::info!(name: "spool_rolled_back", written_again = held, "A Redis that had not heard of the takeover of shards is the master now; they are taken over again");
        return;
    }
    if lost > 0 {
        shared.tell(|lanes| lanes.vanished(lost));
        tracing::error!(name: "spool_emptied", count = lost, written_again = held, reason = "spool", "Lost uplinks: the spool in Redis was emptied");
    } else {
        tracing::warn!(name: "spool_emptied", written_again = held, "The spool in Redis was emptied; the gateway still holds all it knew of");
    }
}

/// Writes what is to be written again, as far as there is room.
pub(super) async fn write(shared: &Shared, redis: &Redis) -> Result<(), Failure> {
    loop {
        let Some(restoring) = shared.restoring.lock().pop() else {
            return Ok(());
        };
        let mut restoring = Unwritten(shared, Some(restoring));
        let Some(Restoring { n, records, .. }) = &mut restoring.1 else {
            return Ok(());
        };
        while !records.is_empty() {
            let some = &records[..records.len().min(BATCH)];
            let mut add = script::ADD.on(&[&shared.names.streams[*n], &shared.names.bytes[*n]]);
            add.arg(i64::MAX).arg(i64::MAX); // it was within the bounds before
            for record in some {
                entry::write(&record.uplink, &mut add);
            }
            let added: usize = add.query_async(&mut redis.clone()).await?;
            records.drain(..added.min(records.len()));
        }
        if let Some(written) = restoring.1.take() {
            shared.withdraw(&written.places);
        }
    }
}

/// Goes back to the others unless it was taken: the writing failed, or was given up.
struct Unwritten<'a>(&'a Shared, Option<Restoring>);

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.0.restoring.lock().extend(self.1.take());
    }
}

/// Messages written in one step.
const BATCH: usize = 256;
