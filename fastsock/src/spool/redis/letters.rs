//! Dead letters in Redis: a hash of each shard, by id, and a sorted set of when each was given up.
//!
//! Any gateway may look at them and drop or replay them; only the owner of a shard adds to them.

use std::time::SystemTime;

use futures_util::future::try_join_all;
use redis::{FromRedisValue, RedisError};
use uuid::Uuid;

use super::{
    Shared, entry, script,
    shards::{SHARDS, shard_of},
};
use crate::{
    error::{Error, ErrorKind, Result},
    redis::error::Failure,
    spool::record,
    types::DeadLetter,
};

/// The letters from the first above `after`, in the order of their ids.
pub(super) async fn list(
    shared: &Shared,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<DeadLetter>> {
    let ids = (0..SHARDS).map(|n| ids_of(shared, n));
    let mut ids: Vec<_> = try_join_all(ids).await?.into_iter().flatten().collect();
    ids.retain(|(id, _)| after.is_none_or(|after| *id > after));
    ids.sort_unstable();
    ids.truncate(limit);
    let letters = ids.into_iter().map(|(id, n)| get_of(shared, n, id));
    let letters = try_join_all(letters).await?;
    Ok(letters.into_iter().flatten().collect())
}

/// One letter, in whichever shard it is.
pub(super) async fn get(shared: &Shared, id: Uuid) -> Result<Option<DeadLetter>> {
    let found = try_join_all((0..SHARDS).map(|n| get_of(shared, n, id))).await?;
    Ok(found.into_iter().flatten().next())
}

/// Makes a letter a message again, behind all others of its device.
pub(super) async fn replay(shared: &Shared, id: Uuid) -> Result<bool> {
    let Some(mut letter) = get(shared, id).await? else {
        return Ok(false);
    };
    letter.uplink.replayed_at = Some(SystemTime::now());
    let mut command = drop_command(shared, shard_of(letter.uplink.client_id.as_str()), id);
    entry::write(&letter.uplink, &mut command);
    drop_by(shared, &letter, command, false).await
}

/// Drops a letter for good.
pub(super) async fn drop_letter(shared: &Shared, id: Uuid) -> Result<bool> {
    let Some(letter) = get(shared, id).await? else {
        return Ok(false);
    };
    let command = drop_command(shared, shard_of(letter.uplink.client_id.as_str()), id);
    drop_by(shared, &letter, command, true).await
}

fn drop_command(shared: &Shared, n: usize, id: Uuid) -> redis::Cmd {
    let names = &shared.names;
    let keys = [
        &names.dead[n],
        &names.dead_times[n],
        &names.streams[n],
        &names.bytes[n],
    ];
    let mut command = script::DROP.on(&keys);
    command.arg(id.to_string());
    command
}

async fn drop_by(
    shared: &Shared,
    letter: &DeadLetter,
    command: redis::Cmd,
    is_for_good: bool,
) -> Result<bool> {
    let n = shard_of(letter.uplink.client_id.as_str());
    let (was_there, kept): (u64, u64) = ask(shared, &command).await?;
    let dropped = if is_for_good { was_there } else { 0 };
    shared.letters_changed(&[(n, kept)], dropped);
    Ok(was_there == 1)
}

async fn ids_of(shared: &Shared, n: usize) -> Result<Vec<(Uuid, usize)>> {
    let mut hkeys = redis::cmd("HKEYS");
    hkeys.arg(&shared.names.dead[n]);
    let ids: Vec<String> = ask(shared, &hkeys).await?;
    let ids = ids.iter().filter_map(|id| id.parse().ok());
    Ok(ids.map(|id| (id, n)).collect())
}

async fn get_of(shared: &Shared, n: usize, id: Uuid) -> Result<Option<DeadLetter>> {
    let mut hget = redis::cmd("HGET");
    hget.arg(&shared.names.dead[n]).arg(id.to_string());
    let letter: Option<Vec<u8>> = ask(shared, &hget).await?;
    Ok(letter.and_then(|bytes| record::read_letter(&bytes)))
}

async fn ask<T: FromRedisValue>(shared: &Shared, command: &redis::Cmd) -> Result<T> {
    let Some(mut redis) = shared.cmd.lock().clone() else {
        let text = "the spool in Redis is away";
        return Err(Error::new(ErrorKind::Broker, text));
    };
    let answer = command.query_async(&mut redis).await;
    answer.map_err(|e: RedisError| {
        let text = match Failure::from(e.clone()) {
            Failure::Refused(_) => "Redis refuses this to the spool",
            Failure::Lost(_) => "Redis did not answer",
        };
        Error::new(ErrorKind::Broker, text).with_source(e)
    })
}
