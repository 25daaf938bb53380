//! Devices of other gateways: whether another has one, and sending to it.

use bytes::Bytes;

use super::{Shared, control, links::Kind};
use crate::{
    error::{Error, ErrorKind, Result},
    redis::{connect::Redis, connection::Connection, error::Failure, trouble::Function},
    types::{ClientId, Sent},
};

impl Shared {
    /// As [`Broker::elsewhere`](crate::broker::Broker::elsewhere).
    pub(super) async fn elsewhere(&self, client_ids: &[ClientId]) -> Option<Vec<Option<u64>>> {
        if self.is_plain() || self.is_alone() {
            return Some(vec![None; client_ids.len()]); // it never says whose a device is
        }
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
        let epoch = |owner: Option<String>| {
            let owner = owner.filter(|owner| !control::is_of(owner, &self.node))?;
            Some(control::epoch_of(&owner))
        };
        let owners = owners.filter(|owners| owners.len() == client_ids.len())?;
        Some(owners.into_iter().map(epoch).collect())
    }

    /// As [`Broker::publish`](crate::broker::Broker::publish).
    pub(super) async fn publish(&self, client_id: ClientId, payload: Bytes) -> Result<Sent> {
        if self.is_alone() {
            return Ok(Sent::Offline);
        }
        let Some(connection) = self.cmd.lock().clone() else {
            return Err(self.is_down());
        };
        let mut redis = connection.redis.clone();
        if self.is_plain() {
            return self.publish_plainly(&connection, client_id, payload).await;
        }
        let answer: redis::RedisResult<(Option<String>, Option<Vec<u8>>, u64)> = redis::pipe()
            .cmd("HGET")
            .arg(&self.names.owner)
            .arg(client_id.as_str())
            .cmd("HGET")
            .arg(&self.names.clients)
            .arg(client_id.as_str())
            .cmd(self.publishes_by()[0])
            .arg(self.names.channel(client_id.as_str()))
            .arg(&*payload)
            .query_async(&mut redis)
            .await;
        let answer = match answer {
            Ok((owner, in_hash, 0)) => {
                let again = self.publish_again(&mut redis, &client_id, &payload);
                again.await.map(|heard| (owner, in_hash, heard))
            }
            answer => answer,
        };
        match answer {
            Ok((owner, in_hash, _)) => {
                self.works(Function::Elsewhere);
                // A device that just left here is in the hash until the next batch is written.
                let is_ours = owner.is_some_and(|owner| control::is_of(&owner, &self.node));
                Ok(if in_hash.is_some() && !is_ours {
                    Sent::Elsewhere
                } else {
                    Sent::Offline
                })
            }
            Err(error) => Err(self
                .not_published(&connection, error, &self.names.pattern())
                .await),
        }
    }

    /// The same where the user of Redis may not look whose the device is: another gateway listens to its channel, or nobody but this
    /// one.
    async fn publish_plainly(
        &self,
        connection: &Connection<Redis>,
        client_id: ClientId,
        payload: Bytes,
    ) -> Result<Sent> {
        let mut publish = redis::cmd(self.publishes_by()[0]);
        publish.arg(self.names.channel(client_id.as_str()));
        publish.arg(&*payload);
        let own = u64::from(!self.subscribe.is_each() && self.links.lock().is_up(Kind::Sub));
        let mut redis = connection.redis.clone();
        let heard = match publish.query_async::<u64>(&mut redis).await {
            Ok(0) => self.publish_again(&mut redis, &client_id, &payload).await,
            heard => heard,
        };
        match heard {
            Ok(heard) if heard > own => Ok(Sent::Elsewhere),
            Ok(_) => Ok(Sent::Offline),
            Err(error) => Err(self
                .not_published(connection, error, &self.names.pattern())
                .await),
        }
    }

    /// The commands by which a device of another gateway is reached: the second where nobody hears the first. While a fleet
    /// moves, a gateway may listen to either, or to both. Redis counts who hears an SPUBLISH, in a cluster too.
    fn publishes_by(&self) -> &'static [&'static str] {
        match (self.subscribe.is_sharded(), self.subscribe.is_exact()) {
            (true, true) => &["SPUBLISH", "PUBLISH"],
            (true, false) => &["SPUBLISH"],
            (false, _) => &["PUBLISH"],
        }
    }

    /// Publishes once more what nobody heard, if there is another way. Returns how many heard it.
    async fn publish_again(
        &self,
        redis: &mut Redis,
        client_id: &ClientId,
        payload: &Bytes,
    ) -> redis::RedisResult<u64> {
        let Some(command) = self.publishes_by().get(1) else {
            return Ok(0);
        };
        let mut publish = redis::cmd(command);
        publish.arg(self.names.channel(client_id.as_str()));
        publish.arg(&**payload);
        publish.query_async(redis).await
    }

    /// What to tell whoever sends: Redis did not take it. `channel`: the right to publish it.
    pub(super) async fn not_published(
        &self,
        connection: &Connection<Redis>,
        error: redis::RedisError,
        channel: &str,
    ) -> Error {
        let failure = Failure::from(error.clone());
        let failure = failure.of_channel(channel);
        let text = match self.is_refused(connection, failure).await {
            true => "Redis refuses the message",
            false => "Redis did not take the message",
        };
        Error::new(ErrorKind::Broker, text).with_source(error)
    }

    /// There is no cmd link, and why.
    pub(super) fn is_down(&self) -> Error {
        let cause = self.trouble.lock()[Kind::Cmd as usize].clone();
        let error = Error::new(ErrorKind::Broker, "the link to Redis is down");
        match cause.is_empty() {
            true => error,
            false => error.with_source(cause),
        }
    }

    /// What is about devices of other gateways failed: whether it was refused, or else the link is no good any more.
    pub(super) async fn is_refused(
        &self,
        connection: &Connection<Redis>,
        failure: Failure,
    ) -> bool {
        let weighed = self.failed(Function::Elsewhere, failure).await;
        if weighed.is_err() {
            connection.lost.notify_one();
        }
        weighed.is_ok()
    }
}
