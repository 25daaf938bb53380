//! Shard channels (`SSUBSCRIBE`, since Redis 7): in a cluster each of them is heard at the server that has its slot.
//!
//! A server ends such a subscription by itself when the slot goes to another one. redis 1.8 takes what the server then says for
//! the answer to whatever command waits on that connection. So what counts here is the channel that an answer names; and after an
//! answer that was not expected, nothing goes on before a PING has its PONG.

use std::{collections::HashSet, time::Duration};

use futures_util::future::try_join_all;
use redis::{
    ErrorKind, Pipeline, PushKind, RedisError, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::time::sleep;

use super::{
    connect::{Redis, all_servers, learn_whole, spread},
    error::{Failure, LinkError},
};

/// Subscribes to shard channels, each at the server that has its slot. Follows slots that move.
pub(crate) async fn subscribe(redis: &Redis, channels: Vec<String>) -> Result<(), Failure> {
    let mut left = channels;
    let mut tries = 0;
    loop {
        let error = match try_to_subscribe(redis, &left).await {
            Ok((missing, _)) if missing.is_empty() => return Ok(()),
            Ok((missing, error)) => {
                left = missing;
                error
            }
            Err(error) => Some(error),
        };
        tries += 1;
        match error {
            Some(error) if !is_elsewhere(&error) || tries == TRIES => return Err(error.into()),
            None if tries == TRIES => {
                return Err(LinkError::new("it does not confirm subscriptions").into());
            }
            _ => {}
        }
        learn_whole(redis).await;
        sleep(TRY_AGAIN_AFTER).await;
    }
}

/// Ends subscriptions to shard channels.
pub(crate) async fn unsubscribe(redis: &Redis, channels: &[String]) -> Result<(), Failure> {
    let asking = spread(redis, channels).await?.into_iter();
    let asking = asking.map(async |(mut server, channels)| {
        ask(
            &mut server,
            "SUNSUBSCRIBE",
            &PushKind::SUnsubscribe,
            channels,
        )
        .await
    });
    for (_, error) in try_join_all(asking).await? {
        // Where the slot has gone, the server has ended them by itself.
        if let Some(error) = error.filter(|error| !is_elsewhere(error)) {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Every server answers. What they pushed before that has been handed on.
pub(crate) async fn ping(redis: &Redis) -> Result<(), LinkError> {
    let servers = all_servers(redis).await?;
    let pinging = servers.into_iter().map(async |mut server| {
        match settle(&mut server).await.map_err(Failure::from) {
            Err(Failure::Lost(error)) => Err(error),
            Ok(()) | Err(Failure::Refused(_)) => Ok(()), // whatever it answers, it lives
        }
    });
    try_join_all(pinging).await?;
    Ok(())
}

/// Returns the channels whose servers did not confirm them, and what one of them said instead.
async fn try_to_subscribe(
    redis: &Redis,
    channels: &[String],
) -> RedisResult<(Vec<String>, Option<RedisError>)> {
    let asking = spread(redis, channels).await?.into_iter();
    let asking = asking.map(async |(mut server, channels)| {
        ask(&mut server, "SSUBSCRIBE", &PushKind::SSubscribe, channels).await
    });
    let mut all = (Vec::new(), None);
    for (missing, error) in try_join_all(asking).await? {
        all.0.extend(missing);
        all.1 = error.or(all.1);
    }
    Ok(all)
}

/// Sends one command for each channel: in a cluster, channels of several slots cannot share one.
async fn ask(
    server: &mut MultiplexedConnection,
    command: &str,
    confirmation: &PushKind,
    mut channels: Vec<String>,
) -> RedisResult<(Vec<String>, Option<RedisError>)> {
    let mut pipeline = Pipeline::with_capacity(channels.len());
    for channel in &channels {
        pipeline.cmd(command).arg(channel);
    }
    let count = channels.len();
    let answers = server.req_packed_commands(&pipeline, 0, count).await?;
    let (mut confirmed, mut error) = (HashSet::new(), None);
    for answer in answers {
        match answer {
            Value::Push { kind, data } if kind == *confirmation => {
                if let Some(Value::BulkString(channel)) = data.into_iter().next() {
                    confirmed.insert(channel);
                }
            }
            Value::Push { .. } => {}
            other => error = other.extract_error().err().or(error),
        }
    }
    channels.retain(|channel| !confirmed.contains(channel.as_bytes()));
    if !channels.is_empty() {
        settle(server).await?;
    }
    Ok((channels, error))
}

/// Resolves when the server has answered all that was sent before.
async fn settle(server: &mut MultiplexedConnection) -> RedisResult<()> {
    loop {
        let answer: Value = redis::cmd("PING").query_async(server).await?;
        if matches!(answer, Value::SimpleString(word) if word == "PONG") {
            return Ok(());
        }
    }
}

/// Whether another server has the slot, or soon will.
fn is_elsewhere(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
        )
    )
}

/// How often a slot that is on its way is looked for, and how soon.
const TRIES: usize = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);
