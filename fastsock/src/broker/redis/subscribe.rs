//! The sub link: subscriptions, what Redis pushes, and proof that it still hears.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use super::{Shared, calls, control, groups::GroupChannels, links::Kind};
use crate::{
    redis::{
        connect::{self, At, Redis, by_all_servers, learn_whole, masters_of},
        connection::OnPush,
        error::{Failure, LinkError},
        glob::escaped,
        sharded,
        trouble::{Function, LOADING_MAX},
    },
    types::ClientId,
};

/// Serves one connection from its subscriptions to its end, which is always an error.
pub(super) async fn serve(shared: &Arc<Shared>) -> Result<(), LinkError> {
    while shared.is_alone() {
        // The cmd link finds out whether there is a Redis; trying with both would not find it sooner.
        shared.wake(Kind::Sub).notified().await;
    }
    let received = Arc::new(Received {
        is_cluster: shared.address.is_cluster(),
        ..Received::default()
    });
    let on_push = {
        let (shared, received) = (Arc::clone(shared), Arc::clone(&received));
        let on_push: OnPush = Arc::new(move |push| receive(&shared, &received, push));
        on_push
    };
    let answer = Kind::Sub.response_timeout();
    let connection =
        connect::open_one(&shared.address, At::Any, answer, Arc::clone(&on_push)).await?;
    shared.answered();
    let redis = connection.redis.clone();
    let shards = match shared.subscribe.is_sharded() {
        true => Some(connect::open_shards(&shared.address, &connection, answer, on_push).await?),
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

/// What the reader of the connection tells the task that watches it.
#[derive(Default)]
struct Received {
    /// Whether anything was pushed since this was last looked at.
    has_heard: AtomicBool,
    /// Whether it is subscribed to the channel of the probe.
    hears_probe: AtomicBool,
    /// In a cluster each server has to be heard, and what comes does not say by which it came: only a probe proves that.
    is_cluster: bool,
    /// The probe that is on its way, and by how many servers it has come.
    probe: AtomicU64,
    probe_ways: AtomicUsize,
    probe_came: Notify,
    /// Shard channels whose subscriptions this gateway is ending: any other end is the server's doing.
    leaving: Mutex<HashSet<String>>,
    /// Whether a push that nobody understands was told.
    has_told_bad: AtomicBool,
}

/// Takes one push. It runs on the reader of the link, so it never waits.
fn receive(shared: &Arc<Shared>, received: &Received, push: PushInfo) {
    let mut parts = push.data.into_iter();
    match push.kind {
        PushKind::Message | PushKind::SMessage => {}
        PushKind::SUnsubscribe => {
            if let Some(Value::BulkString(channel)) = parts.next() {
                ended(shared, received, &channel);
            }
            return;
        }
        PushKind::PMessage => drop(parts.next()), // the pattern
        _ => return,                              // confirmations
    }
    received.has_heard.store(true, Relaxed);
    let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
        (parts.next(), parts.next())
    else {
        bad_push(shared, received, None);
        return;
    };
    let names = &shared.names;
    let Some(id) = channel.strip_prefix(names.client.as_bytes()) else {
        if let Some(id) = channel.strip_prefix(names.bell.as_bytes()) {
            if let (Ok(id), Some(deliver)) = (std::str::from_utf8(id), shared.deliver.upgrade()) {
                deliver.bell(id);
            }
        } else if let Some(name) = channel.strip_prefix(names.group.as_bytes()) {
            if let (Ok(name), Some(deliver)) = (std::str::from_utf8(name), shared.deliver.upgrade())
            {
                deliver.deliver_to_group(name, Bytes::from(payload));
            }
        } else if channel == names.broadcast.as_bytes() {
            if let Some(deliver) = shared.deliver.upgrade() {
                deliver.deliver_to_all(Bytes::from(payload));
            }
        } else if channel == names.control.as_bytes() {
            control::on_control(shared, &payload);
        } else if channel == names.probe.as_bytes() {
            let probe = std::str::from_utf8(&payload).ok();
            match probe.and_then(|probe| probe.parse::<u64>().ok()) {
                Some(probe) if probe == received.probe.load(Relaxed) => {
                    received.probe_ways.fetch_add(1, Relaxed);
                    received.probe_came.notify_one();
                }
                Some(_) => {} // one that is given up
                None => calls::on_told(shared, &payload),
            }
        } else {
            bad_push(shared, received, Some(&channel));
        }
        return;
    };
    match std::str::from_utf8(id) {
        Ok(id) if !id.is_empty() => {
            let deliver = shared.deliver.upgrade();
            if !deliver.is_some_and(|d| d.deliver(id, Bytes::from(payload))) {
                shared.running.pushes_elsewhere.add(1);
            }
        }
        _ => bad_push(shared, received, Some(&channel)),
    }
}

/// The subscription to a shard channel has ended. If nobody here asked for that, its slot is at another server now.
fn ended(shared: &Shared, received: &Received, channel: &[u8]) {
    let Ok(channel) = std::str::from_utf8(channel) else {
        return;
    };
    if received.leaving.lock().remove(channel) {
        return;
    }
    let names = &shared.names;
    let id = channel.strip_prefix(&*names.client);
    let id = id.or_else(|| channel.strip_prefix(&*names.bell));
    if let Some(client_id) = id.and_then(ClientId::new) {
        shared.subscriptions.moved(&client_id);
    }
}

/// Counts and tells that a push cannot be delivered to anyone. A warning for the first of a link.
#[cold]
fn bad_push(shared: &Shared, received: &Received, channel: Option<&[u8]>) {
    shared.running.pushes_bad.add(1);
    let channel = channel.map(String::from_utf8_lossy);
    let channel = channel.as_deref().unwrap_or("unknown");
    if received.has_told_bad.swap(true, Relaxed) {
        tracing::debug!(
            channel,
            "Lost a message from Redis: its channel names no device"
        );
    } else {
        tracing::warn!(
            channel,
            "Lost a message from Redis: its channel names no device"
        );
    }
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

/// Those whose subscription must be looked at, in all modes but `pattern`. What is to be done is not noted: when the command is
/// built, the seat says it.
#[derive(Default)]
pub(super) struct Subscriptions {
    /// `None` while the link is down: a list of everyone is taken when it comes back.
    touched: Mutex<Option<Touched>>,
    has_touched: Notify,
    /// Whether some that were taken are being looked at.
    is_following: AtomicBool,
    /// Whether someone waited in vain, so that the next ones need not try.
    is_late: AtomicBool,
}

#[derive(Default)]
struct Touched {
    ids: HashMap<ClientId, Vec<Waiter>>,
    /// Since when some of them were not subscribed, because their slot moved.
    moved: Option<SystemTime>,
}

/// A device whose 101 waits for its subscription.
struct Waiter {
    since: Instant,
    confirmed: oneshot::Sender<()>,
}

impl Subscriptions {
    /// Resolves when the device is subscribed, or when waiting longer would hold it up for nothing.
    pub(super) fn seated(&self, client_id: &ClientId) -> impl Future<Output = ()> + use<'_> {
        let confirmation = self.touched.lock().as_mut().map(|touched| {
            let (confirmed, confirmation) = oneshot::channel();
            let since = Instant::now();
            let waiters = touched.ids.entry(client_id.clone()).or_default();
            waiters.push(Waiter { since, confirmed });
            confirmation
        });
        self.has_touched.notify_one();
        async move {
            let Some(confirmation) = confirmation else {
                return;
            };
            if self.is_late.load(Relaxed) {
                return;
            }
            if timeout(CONFIRM_TIMEOUT, confirmation).await.is_err() {
                self.is_late.store(true, Relaxed);
            }
        }
    }

    pub(super) fn unseated(&self, client_id: &ClientId) {
        if let Some(touched) = self.touched.lock().as_mut() {
            touched.ids.entry(client_id.clone()).or_default();
            self.has_touched.notify_one();
        }
    }

    /// The server has ended a subscription of this device.
    fn moved(&self, client_id: &ClientId) {
        if let Some(touched) = self.touched.lock().as_mut() {
            touched.ids.entry(client_id.clone()).or_default();
            touched.moved.get_or_insert_with(SystemTime::now);
            self.has_touched.notify_one();
        }
    }

    fn open(&self) {
        *self.touched.lock() = Some(Touched::default());
    }

    /// The link is down; whoever waits need not.
    pub(super) fn close(&self) {
        *self.touched.lock() = None;
        self.is_late.store(false, Relaxed);
    }

    /// Whether every subscription is as its seat is.
    fn are_followed(&self) -> bool {
        let touched = self.touched.lock();
        touched
            .as_ref()
            .is_none_or(|touched| touched.ids.is_empty())
            && !self.is_following.load(Relaxed)
    }

    async fn touched(&self) -> Touched {
        loop {
            {
                let mut touched = self.touched.lock();
                let some = touched.as_mut().filter(|touched| !touched.ids.is_empty());
                self.is_following.store(some.is_some(), Relaxed);
                if let Some(touched) = some {
                    return std::mem::take(touched);
                }
            }
            self.has_touched.notified().await;
        }
    }
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

impl Waiter {
    fn confirm(self, shared: &Shared, client_id: &ClientId) {
        if self.confirmed.send(()).is_err() {
            shared.running.broker_gaps.add(1);
            let lasted_ms = self.since.elapsed().as_millis() as u64;
            tracing::debug!(%client_id, lasted_ms, "gap: the device was connected before it was subscribed");
        }
    }
}

/// Returns when the link is found dead or deaf: after a failover it can answer and yet hear nothing.
async fn watch(
    shared: &Shared,
    received: &Received,
    mut redis: MultiplexedConnection,
    shards: Option<&Redis>,
) -> LinkError {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut idle_s, mut looked_at) = (0, SystemTime::now());
    let mut loading_since = None;
    loop {
        let is_asked = tokio::select! {
            _ = seconds.tick() => false,
            () = shared.check.notified() => true,
        };
        if !shared.links.lock().is_up(Kind::Sub) {
            continue; // still subscribing, which has its own deadline
        }
        let has_heard = received.has_heard.swap(false, Relaxed);
        let is_proof = !received.is_cluster || !can_probe(shared, received);
        if has_heard && is_proof {
            *shared.last_good.lock() = looked_at;
            idle_s = 0;
        } else if !is_asked {
            idle_s += 1;
        }
        looked_at = SystemTime::now();
        let is_due = |every_s| is_asked || (idle_s > 0 && idle_s % every_s == 0);
        if is_due(PING_IDLE_S) {
            // Whatever it answers, it lives. But that it answers does not mean that it hears.
            match redis::cmd("PING")
                .exec_async(&mut redis)
                .await
                .map_err(Failure::from)
            {
                Err(Failure::Lost(error)) => return error,
                Err(Failure::Refused(refusal)) if refusal.code == "NOAUTH" => {
                    return LinkError::new(refusal.text);
                }
                Err(Failure::Refused(refusal)) if refusal.code == "LOADING" => {
                    if loading_since
                        .get_or_insert(looked_at)
                        .elapsed()
                        .is_ok_and(|e| e > LOADING_MAX)
                    {
                        return LinkError::new(refusal.text);
                    }
                }
                Ok(()) | Err(Failure::Refused(_)) => loading_since = None,
            }
        }
        let probe_s = match received.is_cluster {
            true => PROBE_CLUSTER_S,
            false => PROBE_IDLE_S,
        };
        if is_due(probe_s)
            && let Err(error) = probe(shared, received, shards).await
        {
            return error;
        }
    }
}

/// Whether a probe would prove anything.
fn can_probe(shared: &Shared, received: &Received) -> bool {
    received.hears_probe.load(Relaxed) && shared.cmd.lock().is_some()
}

/// Publishes to itself by the cmd link, in a cluster by each server of it; an error when that is not heard.
async fn probe(
    shared: &Shared,
    received: &Received,
    shards: Option<&Redis>,
) -> Result<(), LinkError> {
    if !received.hears_probe.load(Relaxed) {
        return Ok(()); // it would prove nothing
    }
    loop {
        let Some(cmd) = shared.cmd.lock().clone() else {
            return Ok(());
        };
        let published_at = SystemTime::now();
        let number = fastrand::u64(1..);
        received.probe_ways.store(0, Relaxed);
        received.probe.store(number, Relaxed);
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&shared.names.probe).arg(number);
        let ways = match by_all_servers(&cmd.redis, &publish).await {
            Ok(ways) => ways,
            Err(error) => {
                if let failure @ Failure::Refused(_) = Failure::from(error) {
                    let failure = failure.of_channel(&escaped(&shared.names.probe));
                    let _ = shared.failed(Function::Probe, failure).await;
                }
                return Ok(()); // a lost link has its own watch
            }
        };
        shared.works(Function::Probe);
        let heard = async {
            while received.probe_ways.load(Relaxed) < ways {
                received.probe_came.notified().await;
            }
        };
        match timeout(PROBE_TIMEOUT, heard).await {
            Ok(()) => {
                if let Some(shards) = shards.filter(|_| received.is_cluster) {
                    sharded::ping(shards).await?;
                    if masters_of(shards) != masters_of(&cmd.redis) {
                        // Which ends this link if it listens to a server that has no slots any more.
                        learn_whole(shards).await;
                        learn_whole(&cmd.redis).await;
                    }
                }
                let mut last_good = shared.last_good.lock();
                *last_good = published_at.max(*last_good);
                return Ok(());
            }
            Err(_) if !received.is_cluster && received.has_heard.load(Relaxed) => return Ok(()),
            // It may be the cmd link that knows a server which is no longer in the cluster.
            Err(_) if learn_whole(&cmd.redis).await && shards.is_none() => {}
            Err(_) => return Err(LinkError::new("it does not deliver what is published")),
        }
    }
}

/// How soon it is looked again whether all subscriptions are as they should be.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Channels named in one command.
const IDS_A_COMMAND: usize = 512;

/// How long a 101 waits for its subscription.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Seconds without a push after which the link is asked.
const PING_IDLE_S: u32 = 5;

/// Seconds without a push after which it must hear itself.
const PROBE_IDLE_S: u32 = 10;

/// The same in a cluster, where nothing else is proof.
const PROBE_CLUSTER_S: u32 = 2;

/// How long servers of a cluster may take to tell each other that a slot moved.
const MOVE_IS_NEWS: Duration = Duration::from_secs(1);

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
