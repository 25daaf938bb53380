//! Groups and broadcasts: one channel for everyone, and one for each group that has members here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep_until};

use super::{
    Shared,
    control::{self, Control},
};
use crate::{
    broker::Audience,
    error::{Error, ErrorKind, Result},
    groups::Groups,
    redis::{
        error::{Failure, LinkError},
        glob::escaped,
        trouble::Function,
    },
    types::ClientId,
};

/// The subscriptions to groups and to what is for everyone, over one connection. What Redis refuses is tried again; devices
/// have their own downlinks meanwhile.
pub(super) struct GroupChannels {
    /// `None`: there are no groups.
    groups: Option<Arc<Groups>>,
    /// When to try again what was refused.
    again: Option<Instant>,
}

/// What there is to do.
pub(super) enum Changed {
    /// These came into use, or went out of it.
    Groups(Vec<(Arc<str>, bool)>),
    /// What was refused is due.
    Again,
}

impl GroupChannels {
    pub(super) fn new(shared: &Shared) -> Self {
        let deliver = shared.deliver.upgrade();
        Self {
            groups: deliver.and_then(|deliver| deliver.groups()),
            again: None,
        }
    }

    /// Subscribes to all that there is.
    pub(super) async fn listen(
        &mut self,
        shared: &Shared,
        redis: &mut MultiplexedConnection,
    ) -> Result<(), LinkError> {
        self.again = None;
        let Some(groups) = self.groups.clone() else {
            return Ok(());
        };
        let in_use = groups.open();
        let channels = [shared.names.broadcast.clone()];
        let subscribed = redis.subscribe(&channels).await.map_err(Failure::from);
        let subscribed = match subscribed {
            Ok(()) => subscribe(shared, redis, &in_use).await,
            Err(failure) => Err(failure.of_channel(&escaped(&shared.names.broadcast))),
        };
        match subscribed {
            Ok(()) => {
                groups.listens_to(&in_use);
                shared.works(Function::Groups);
                Ok(())
            }
            Err(failure) => self.refused(shared, failure).await,
        }
    }

    /// Resolves when there is something to do.
    pub(super) async fn changed(&self) -> Changed {
        match (&self.groups, self.again) {
            (None, _) => std::future::pending().await,
            (Some(_), Some(again)) => {
                sleep_until(again).await;
                Changed::Again
            }
            (Some(groups), None) => Changed::Groups(groups.touched().await),
        }
    }

    /// Does it.
    pub(super) async fn follow(
        &mut self,
        shared: &Shared,
        redis: &mut MultiplexedConnection,
        changed: Changed,
    ) -> Result<(), LinkError> {
        let (Changed::Groups(touched), Some(groups)) = (changed, self.groups.clone()) else {
            return self.listen(shared, redis).await;
        };
        let (new, left): (Vec<_>, Vec<_>) = touched.into_iter().partition(|(_, in_use)| *in_use);
        let names = |list: Vec<(Arc<str>, bool)>| list.into_iter().map(|(n, _)| n).collect();
        let (new, left): (Vec<_>, Vec<_>) = (names(new), names(left));
        let followed = async {
            subscribe(shared, redis, &new).await?;
            groups.listens_to(&new);
            for some in left.chunks(CHANNELS_A_COMMAND) {
                let channels = channels(shared, some);
                redis.unsubscribe(channels).await?;
            }
            Ok(())
        };
        match followed.await {
            Ok(()) => Ok(()),
            Err(failure) => self.refused(shared, failure).await,
        }
    }

    async fn refused(&mut self, shared: &Shared, failure: Failure) -> Result<(), LinkError> {
        shared.close_groups();
        let wait = shared.failed(Function::Groups, failure).await?;
        self.again = Some(Instant::now() + wait.max(LEAST_WAIT));
        Ok(())
    }
}

async fn subscribe(
    shared: &Shared,
    redis: &mut MultiplexedConnection,
    names: &[Arc<str>],
) -> Result<(), Failure> {
    for some in names.chunks(CHANNELS_A_COMMAND) {
        let subscribed = redis.subscribe(channels(shared, some)).await;
        let failure = |error| Failure::from(error).of_channel(&shared.names.all_groups());
        subscribed.map_err(failure)?;
    }
    Ok(())
}

fn channels(shared: &Shared, names: &[Arc<str>]) -> Vec<String> {
    let channel = |name: &Arc<str>| shared.names.group_of(name);
    names.iter().map(channel).collect()
}

impl Shared {
    /// Nothing is heard of groups any more.
    pub(super) fn close_groups(&self) {
        if let Some(groups) = self.deliver.upgrade().and_then(|deliver| deliver.groups()) {
            groups.close();
        }
    }

    /// As [`Broker::publish_to`](crate::broker::Broker::publish_to).
    pub(super) async fn publish_to(
        &self,
        audience: Audience,
        payload: Bytes,
    ) -> Result<Option<u64>> {
        if self.is_alone() {
            return Ok(None);
        }
        let Some(connection) = self.cmd.lock().clone() else {
            return Err(self.is_down());
        };
        let (channel, right) = match &audience {
            Audience::Group(name) => (self.names.group_of(name), self.names.all_groups()),
            Audience::Everyone => (self.names.broadcast.clone(), escaped(&self.names.broadcast)),
        };
        let mut redis = connection.redis.clone();
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(&*payload);
        match publish.query_async::<u64>(&mut redis).await {
            Ok(heard) => Ok(Some(heard)),
            Err(error) => Err(self.not_published(&connection, error, &right).await),
        }
    }

    /// As [`Broker::change_group_elsewhere`](crate::broker::Broker::change_group_elsewhere).
    pub(super) async fn change_group_elsewhere(
        &self,
        client_id: &ClientId,
        name: &str,
        joins: bool,
    ) -> Result<bool> {
        if self.is_alone() || self.is_plain() {
            return Ok(false);
        }
        let Some(mut connection) = self.cmd.lock().clone() else {
            return Err(self.is_down());
        };
        let mut ask = redis::cmd("HGET");
        ask.arg(&self.names.owner).arg(client_id.as_str());
        let owner: Result<Option<String>, _> = ask.query_async(&mut connection.redis).await;
        let owner = match owner {
            Ok(owner) => owner,
            Err(error) => return Err(self.not_published(&connection, error, "").await),
        };
        let owner = owner.filter(|owner| !control::is_of(owner, &self.node));
        let Some((node, _)) = owner.as_deref().and_then(|owner| owner.split_once(':')) else {
            return Ok(false);
        };
        let message = Control::Group {
            node: node.to_owned(),
            client_id: client_id.to_string(),
            group: name.to_owned(),
            joins,
        };
        let told = control::tell(self, connection.redis.clone(), &[message]).await;
        told.map_err(|error| {
            connection.lost.notify_one();
            let text = "Redis did not take the message";
            Error::new(ErrorKind::Broker, text).with_source(error.text)
        })?;
        Ok(true)
    }
}

/// What was refused is not asked for again and again.
const LEAST_WAIT: Duration = Duration::from_millis(100);
/// Channels named in one command.
const CHANNELS_A_COMMAND: usize = 512;
