//! Devices of other gateways: whether another has one, and sending to it.

use bytes::Bytes;

use super::{Shared, control, links::Kind};
use crate::{
    error::{Error, ErrorKind, Result},
    redis::{connect::Redis, connection::Connection, error::Failure, trouble::Function},
    types::{ClientId, Sent},
};

impl Shared {
    /// As [`Broker::are_elsewhere`](crate::broker::Broker::are_elsewhere).
    pub(super) async fn are_elsewhere(&self, client_ids: &[ClientId]) -> Vec<bool> {
        let connection = self.cmd.lock().clone();
        let owners = match connection {
            None => None,
            Some(mut connection) => {
                let mut ask = redis::cmd("HMGET");
                ask.arg(&self.names.owner);
                for client_id in client_ids {
                    ask.arg(client_id.as_str());
                }
                let asked = ask.query_async::<Vec<Option<String>>>(&mut connection.redis);
                match asked.await {
                    Ok(owners) => {
                        self.works(Function::Elsewhere);
                        Some(owners)
                    }
                    Err(error) => {
                        self.is_refused(&connection, error.into()).await;
                        None
                    }
                }
            }
        };
        let is_elsewhere =
            |owner: Option<String>| owner.is_some_and(|o| !control::is_of(&o, &self.node));
        match owners {
            Some(owners) if owners.len() == client_ids.len() => {
                owners.into_iter().map(is_elsewhere).collect()
            }
            _ => vec![false; client_ids.len()],
        }
    }

    /// As [`Broker::publish`](crate::broker::Broker::publish).
    pub(super) async fn publish(&self, client_id: ClientId, payload: Bytes) -> Result<Sent> {
        if self.is_alone() {
            return Ok(Sent::Offline);
        }
        let Some(connection) = self.cmd.lock().clone() else {
            let cause = self.trouble.lock()[Kind::Cmd as usize].clone();
            let error = Error::new(ErrorKind::Broker, "the link to Redis is down");
            return Err(if cause.is_empty() {
                error
            } else {
                error.with_source(cause)
            });
        };
        let mut redis = connection.redis.clone();
        let answer: redis::RedisResult<(Option<String>, Option<Vec<u8>>)> = redis::pipe()
            .cmd("HGET")
            .arg(&self.names.owner)
            .arg(client_id.as_str())
            .cmd("HGET")
            .arg(&self.names.clients)
            .arg(client_id.as_str())
            .cmd("PUBLISH")
            .arg(self.names.channel(client_id.as_str()))
            .arg(&*payload)
            .ignore()
            .query_async(&mut redis)
            .await;
        match answer {
            Ok((owner, in_hash)) => {
                self.works(Function::Elsewhere);
                // A device that just left here is in the hash until the next batch is written.
                let is_ours = owner.is_some_and(|owner| control::is_of(&owner, &self.node));
                Ok(if in_hash.is_some() && !is_ours {
                    Sent::Elsewhere
                } else {
                    Sent::Offline
                })
            }
            Err(error) => {
                let failure = Failure::from(error.clone());
                let failure = failure.of_channel(&self.names.pattern());
                let text = match self.is_refused(&connection, failure).await {
                    true => "Redis refuses the message",
                    false => "Redis did not take the message",
                };
                Err(Error::new(ErrorKind::Broker, text).with_source(error))
            }
        }
    }

    /// What is about devices of other gateways failed: whether it was refused, or else the link is no good any more.
    async fn is_refused(&self, connection: &Connection<Redis>, failure: Failure) -> bool {
        let weighed = self.failed(Function::Elsewhere, failure).await;
        if weighed.is_err() {
            connection.lost.notify_one();
        }
        weighed.is_ok()
    }
}
