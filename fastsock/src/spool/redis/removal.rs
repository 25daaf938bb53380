//! Removes what is delivered, and keeps what was given up as dead letters.

use std::convert::Infallible;

use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::{Shared, script, shards::Acks};
use crate::redis::{
    connect::Redis,
    error::{Failure, LinkError},
    trouble::Function,
};

/// Removes what is delivered, as it comes.
pub(super) async fn remove_delivered(shared: &Shared, redis: &Redis) -> LinkError {
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
    let mut settle = script::SETTLE.on(&keys);
    settle.arg(&acks.owner).arg(shared.most_letters.0);
    settle.arg(acks.ids.len());
    for (id, cost) in &acks.ids {
        settle.arg(id).arg(*cost);
    }
    for (key, letter) in &acks.letters {
        settle.arg(key.to_string()).arg(letter);
    }
    let (letters, dropped): (i64, u64) = settle.query_async(&mut redis.clone()).await?;
    if letters == -2 {
        return Ok(()); // the next look sees to it
    }
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

/// Messages of a shard removed at once.
const BATCH: usize = 256;
