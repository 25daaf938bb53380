//! Whether Redis can be used as the settings say, before a gateway needs it.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use super::{
    address::Address,
    connect::{At, open_one},
    error::{Failure, LinkError},
    rights::Rights,
};

/// Connects as a gateway does, and asks for all of these rights. Changes nothing. The error says all that is wrong.
pub(crate) async fn check(address: &Address, needed: &[Rights]) -> Result<(), LinkError> {
    let mut one = open_one(address, At::Any, ANSWER, None).await?;
    if !one.is_master {
        return Err(LinkError::new("it is a replica, and takes no writes"));
    }
    for rights in needed {
        if let Some(lack) = rights.lacks(&mut one.redis).await? {
            return Err(LinkError::new(lack));
        }
    }
    let mut missing = Vec::new();
    for rights in needed {
        for right in missing_of(rights, &mut one.redis).await? {
            if !missing.contains(&right) {
                missing.push(right);
            }
        }
    }
    match missing.is_empty() {
        true => Ok(()),
        false => {
            let missing = missing.join(" ");
            Err(LinkError::new(format!(
                "its user lacks rights; ACL SETUSER gives them: {missing}"
            )))
        }
    }
}

async fn missing_of(
    rights: &Rights,
    redis: &mut MultiplexedConnection,
) -> Result<Vec<String>, LinkError> {
    match rights.missing(redis).await {
        Ok(Some(missing)) => Ok(missing),
        Ok(None) => rights.missing_channels(redis).await,
        Err(Failure::Lost(error)) => Err(error),
        Err(Failure::Refused(refusal)) => Err(LinkError::new(refusal.text)),
    }
}

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);
