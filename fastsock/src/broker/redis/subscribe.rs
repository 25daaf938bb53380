//! The sub link: subscriptions, what Redis pushes, and proof that it still hears.

mod proof;
mod push;
mod subscriptions;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep, sleep_until};

pub(super) use self::subscriptions::Subscriptions;
use self::{proof::watch, push::Received, subscriptions::Waiter};
use super::{Shared, groups::GroupChannels, links::Kind};
use crate::{
    redis::{
        connect::{self, At, Redis},
        error::{Failure, LinkError},
        glob::escaped,
        sharded,
        tap::Listener,
        trouble::Function,
    },
    types::ClientId,
};

/// Serves one connection from its subscriptions to its end, which is always an error.
pub(super) async fn serve(shared: &Arc<Shared>) -> Result<(), LinkError> {
    while shared.is_alone() {
        // The cmd link finds out whether there is a Redis; trying with both would not find it sooner.
        shared.wake(Kind::Sub).notified().await;
    }
    let received = Arc::new(Received::new(shared.clone()));
    let listener: Weak<Received> = Arc::downgrade(&received);
    let listener: Listener = Some(listener);
    let answer = Kind::Sub.response_timeout();
    let connection = connect::open_one(&shared.address, At::Any, answer, listener.clone()).await?;
    shared.answered();
    let redis = connection.redis.clone();
    let shards = match shared.subscribe.is_sharded() {
        true => Some(connect::open_shards(&shared.address, &connection, answer, listener).await?),
        false => None,
    };
    let shards_lost = shards.as_ref().map(|shards| Arc::clone(&shards.lost));
    let shards_lost = async {
        match shards_lost {
            Some(lost) => lost.notified().await,
            None => std::future::pending().await,
        }
    };
    let shards = shards.as_ref().map(|shards| &shards.redis);
    tokio::select! {
        () = connection.lost.notified() => Err(LinkError::new("the connection was lost")),
        () = shards_lost => Err(LinkError::new("a connection for shard channels was lost")),
        (error, confirmed) = connection.moved(&shared.address) => {
            let mut last_good = shared.last_good.lock();
            *last_good = confirmed.min(*last_good);
            Err(error)
        }
        error = subscribe(shared, &received, redis.clone(), shards) => Err(error),
        error = watch(shared, &received, redis.clone(), shards) => Err(error),
        error = hush(shared, redis, shards) => Err(error),
    }
}

/// Once told to, ends the subscriptions to devices, and says so when all that was published before has been delivered.
async fn hush(
    shared: &Shared,
    mut redis: MultiplexedConnection,
    shards: Option<&Redis>,
) -> LinkError {
    shared.hush.cancelled().await;
    if shared.subscribe.is_each() {
        // Everyone has left, so all are about to be ended.
        while !shared.subscriptions.are_followed() {
            sleep(LOOK_AGAIN).await;
        }
    } else if let Err(error) = redis.punsubscribe(shared.names.pattern()).await {
        tracing::debug!(%error, "The subscription could not be ended before the stop");
    }
    // Their answers come behind all that was pushed before.
    let answered = async {
        if let Some(shards) = shards {
            sharded::ping(shards).await?;
        }
        redis::cmd("PING").exec_async(&mut redis).await?;
        Ok::<_, LinkError>(())
    };
    if answered.await.is_ok() {
        shared.hushed.cancel();
    }
    std::future::pending().await
}

/// Restores all subscriptions, tells that the link is up, and then follows who comes and goes. What Redis refuses is tried
/// again over the same link.
async fn subscribe(
    shared: &Shared,
    received: &Received,
    mut redis: MultiplexedConnection,
    shards: Option<&Redis>,
) -> LinkError {
    let never = async {
        let mut own = OwnChannels::default();
        let mut groups = GroupChannels::new(shared);
        loop {
            // Devices first: a user that may do no more than that has the downlinks.
            let subscribed = devices(shared, &mut redis, shards).await;
            own.listen(shared, received, &mut redis).await?;
            groups.listen(shared, &mut redis).await?;
            let failure = match subscribed {
                Err(failure) => failure,
                Ok(()) => {
                    shared.works(Function::Downlinks);
                    shared.link_up(Kind::Sub);
                    if shared.mailbox.is_on
                        && let Some(deliver) = shared.deliver.upgrade()
                    {
                        deliver.bells_missed();
                    }
                    restore(shared); // a takeover told meanwhile was not heard
                    loop {
                        let touched = tokio::select! {
                            touched = shared.subscriptions.touched() => touched,
                            () = own.is_due() => {
                                own.listen(shared, received, &mut redis).await?;
                                continue;
                            }
                            changed = groups.changed() => {
                                groups.follow(shared, &mut redis, changed).await?;
                                continue;
                            }
                        };
                        let moved = touched.moved;
                        let followed =
                            follow(shared, received, &mut redis, shards, touched.ids).await;
                        if let Err(failure) = followed {
                            shared.heard_until(moved);
                            break failure;
                        }
                        if let Some(moved) = moved {
                            shared.tell_moved(moved);
                        }
                    }
                }
            };
            let failure = failure.of_channel(&shared.names.pattern());
            let wait = shared.failed(Function::Downlinks, failure).await?;
            shared.link_down(Kind::Sub);
            sleep(wait).await;
        }
    };
    let never: Result<Infallible, LinkError> = never.await;
    match never {
        Err(error) => error,
    }
}

/// The subscriptions to what gateways tell each other, and to what this one tells itself.
#[derive(Default)]
struct OwnChannels {
    has_control: bool,
    has_probe: bool,
    /// When to try again what was refused.
    again: Option<Instant>,
}

impl OwnChannels {
    /// Subscribes to those that are missing.
    async fn listen(
        &mut self,
        shared: &Shared,
        received: &Received,
        redis: &mut MultiplexedConnection,
    ) -> Result<(), LinkError> {
        self.again = None;
        let names = &shared.names;
        for (function, channel, is_there) in [
            (Function::Takeovers, &names.control, &mut self.has_control),
            (Function::Probe, &names.probe, &mut self.has_probe),
        ] {
            if *is_there {
                continue;
            }
            match redis.subscribe(channel).await.map_err(Failure::from) {
                Ok(()) => {
                    *is_there = true;
                    shared.works(function);
                    if shared.links.lock().is_up(Kind::Sub) {
                        restore(shared);
                    }
                }
                Err(failure) => {
                    let failure = failure.of_channel(&escaped(channel));
                    let wait = shared.failed(function, failure).await?;
                    self.again = Some(Instant::now() + wait);
                }
            }
        }
        received.hears_probe.store(self.has_probe, Relaxed);
        Ok(())
    }

    async fn is_due(&self) {
        match self.again {
            Some(again) => sleep_until(again).await,
            None => std::future::pending().await,
        }
    }
}

/// Subscribes to the channels of all devices.
async fn devices(
    shared: &Shared,
    redis: &mut MultiplexedConnection,
    shards: Option<&Redis>,
) -> Result<(), Failure> {
    if shared.hush.is_cancelled() {
        return Ok(()); // nobody is here any more
    }
    if !shared.subscribe.is_each() {
        redis.psubscribe(shared.names.pattern()).await?;
        if shared.mailbox.is_on {
            redis.psubscribe(shared.names.bells()).await?;
        }
        return Ok(());
    }
    // From here on whoever is seated is noted, so nobody is missed between the list and the notes.
    shared.subscriptions.open();
    let everyone = shared.deliver.upgrade().map(|d| d.everyone());
    let everyone = everyone.unwrap_or_default();
    for some in everyone.chunks(IDS_A_COMMAND) {
        let ids: Vec<_> = some.iter().map(|seated| &seated.client_id).collect();
        listen_to(shared, redis, shards, &ids).await?;
    }
    Ok(())
}

/// Subscribes to the channels of these devices.
async fn listen_to(
    shared: &Shared,
    redis: &mut MultiplexedConnection,
    shards: Option<&Redis>,
    ids: &[&ClientId],
) -> Result<(), Failure> {
    let channels = channels(shared, ids);
    if !channels.is_empty() {
        redis.subscribe(channels).await?;
    }
    if let Some(shards) = shards {
        sharded::subscribe(shards, shard_channels(shared, ids)).await?;
    }
    Ok(())
}

/// Has presence written again, if there is a link to write it by.
fn restore(shared: &Shared) {
    if shared.links.lock().is_up(Kind::Cmd) {
        shared.restore.notify_one();
    }
}

/// Brings the subscriptions of these ids to what their seats are now.
async fn follow(
    shared: &Shared,
    received: &Received,
    redis: &mut MultiplexedConnection,
    shards: Option<&Redis>,
    touched: HashMap<ClientId, Vec<Waiter>>,
) -> Result<(), Failure> {
    let Some(deliver) = shared.deliver.upgrade() else {
        return Ok(());
    };
    let (here, left): (Vec<_>, Vec<_>) = touched
        .into_iter()
        .partition(|(id, _)| deliver.is_seated(id.as_str()));
    drop(deliver);
    let mut here = here.into_iter();
    loop {
        let some: Vec<_> = here.by_ref().take(IDS_A_COMMAND).collect();
        if some.is_empty() {
            break;
        }
        let ids: Vec<_> = some.iter().map(|(id, _)| id).collect();
        listen_to(shared, redis, shards, &ids).await?;
        shared.subscriptions.is_late.store(false, Relaxed);
        for (client_id, waiters) in some {
            for waiter in waiters {
                waiter.confirm(shared, &client_id);
            }
        }
    }
    for some in left.chunks(IDS_A_COMMAND) {
        let ids: Vec<_> = some.iter().map(|(id, _)| id).collect();
        let channels = channels(shared, &ids);
        if !channels.is_empty() {
            redis.unsubscribe(channels).await?;
        }
        if let Some(shards) = shards {
            let channels = shard_channels(shared, &ids);
            received.leaving.lock().extend(channels.iter().cloned());
            let ended = sharded::unsubscribe(shards, &channels).await;
            // Those whose slot has gone elsewhere are not confirmed.
            received.leaving.lock().clear();
            ended?;
        }
    }
    Ok(())
}

/// The channels of these devices, and their bells, which are rung by PUBLISH in every mode: one script keeps a message and rings.
fn channels(shared: &Shared, ids: &[&ClientId]) -> Vec<String> {
    let is_exact = shared.subscribe.is_exact();
    let names = &shared.names;
    let channels = ids.iter().flat_map(|id| {
        let bell = shared.mailbox.is_on.then(|| names.bell_of(id.as_str()));
        [is_exact.then(|| names.channel(id.as_str())), bell]
    });
    channels.flatten().collect()
}

/// Their shard channels, and the bells that a publisher rings by SPUBLISH.
fn shard_channels(shared: &Shared, ids: &[&ClientId]) -> Vec<String> {
    let names = &shared.names;
    let channels = ids.iter().flat_map(|id| {
        let bell = shared.mailbox.is_on.then(|| names.bell_of(id.as_str()));
        [Some(names.channel(id.as_str())), bell]
    });
    channels.flatten().collect()
}

impl Shared {
    /// What was published for devices whose slots moved may not have arrived: until they were subscribed again, and since before the
    /// old server knew of it.
    fn tell_moved(&self, moved: SystemTime) {
        self.heard_until(Some(moved));
        let from = *self.last_good.lock();
        let _in_order = self.telling.lock();
        self.tell_gap(from, SystemTime::now());
        if self.mailbox.is_on
            && let Some(deliver) = self.deliver.upgrade()
        {
            deliver.bells_missed();
        }
    }

    /// What came before a slot moved is known to have arrived, and no more than that.
    fn heard_until(&self, moved: Option<SystemTime>) {
        if let Some(moved) = moved {
            let mut last_good = self.last_good.lock();
            *last_good = (moved - MOVE_IS_NEWS).min(*last_good);
        }
    }
}

/// How soon it is looked again whether all subscriptions are as they should be.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Channels named in one command.
const IDS_A_COMMAND: usize = 512;

/// How long servers of a cluster may take to tell each other that a slot moved.
const MOVE_IS_NEWS: Duration = Duration::from_secs(1);
