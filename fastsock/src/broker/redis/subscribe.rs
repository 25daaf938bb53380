//! The sub link: subscriptions, what Redis pushes, and proof that it still hears.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
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

use super::{Shared, control, links::Kind};
use crate::{
    redis::{
        connect::{self, At},
        error::{Failure, LinkError},
        glob::escaped,
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
    let received = Arc::new(Received::default());
    let on_push = {
        let (shared, received) = (Arc::clone(shared), Arc::clone(&received));
        Arc::new(move |push| receive(&shared, &received, push))
    };
    let connection = connect::open_one(
        &shared.address,
        At::Any,
        Kind::Sub.response_timeout(),
        on_push,
    )
    .await?;
    shared.answered();
    let redis = connection.redis.clone();
    tokio::select! {
        () = connection.lost.notified() => Err(LinkError::new("the connection was lost")),
        (error, confirmed) = connection.moved(&shared.address) => {
            let mut last_good = shared.last_good.lock();
            *last_good = confirmed.min(*last_good);
            Err(error)
        }
        error = subscribe(shared, &received, redis.clone()) => Err(error),
        error = watch(shared, &received, redis) => Err(error),
    }
}

/// What the reader of the connection tells the task that watches it.
#[derive(Default)]
struct Received {
    /// Whether anything was pushed since this was last looked at.
    has_heard: AtomicBool,
    /// Whether it is subscribed to the channel of the probe.
    hears_probe: AtomicBool,
    /// The probe heard last.
    probe: AtomicU64,
    probe_came: Notify,
    /// Whether a push that nobody understands was told.
    has_told_bad: AtomicBool,
}

/// Takes one push. It runs on the reader of the link, so it never waits.
fn receive(shared: &Shared, received: &Received, push: PushInfo) {
    let mut parts = push.data.into_iter();
    match push.kind {
        PushKind::Message => {}
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
        if channel == names.control.as_bytes() {
            control::on_control(shared, &payload);
        } else if channel == names.probe.as_bytes() {
            let probe = std::str::from_utf8(&payload).ok();
            received
                .probe
                .store(probe.and_then(|p| p.parse().ok()).unwrap_or(0), Relaxed);
            received.probe_came.notify_one();
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
) -> LinkError {
    let never = async {
        let mut own = OwnChannels::default();
        own.listen(shared, received, &mut redis).await?;
        loop {
            let failure = match devices(shared, &mut redis).await {
                Err(failure) => failure,
                Ok(()) => {
                    shared.works(Function::Downlinks);
                    shared.link_up(Kind::Sub);
                    restore(shared); // a takeover told meanwhile was not heard
                    loop {
                        let touched = tokio::select! {
                            touched = shared.subscriptions.touched() => touched,
                            () = own.is_due() => {
                                own.listen(shared, received, &mut redis).await?;
                                continue;
                            }
                        };
                        if let Err(failure) = follow(shared, &mut redis, touched).await {
                            break failure;
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
async fn devices(shared: &Shared, redis: &mut MultiplexedConnection) -> Result<(), Failure> {
    if !shared.is_exact {
        return Ok(redis.psubscribe(shared.names.pattern()).await?);
    }
    // From here on whoever is seated is noted, so nobody is missed between the list and the notes.
    shared.subscriptions.open();
    let everyone = shared.deliver.upgrade().map(|d| d.everyone());
    let everyone = everyone.unwrap_or_default();
    for some in everyone.chunks(IDS_A_COMMAND) {
        let ids = some.iter().map(|seated| &seated.client_id);
        redis.subscribe(channels(shared, ids)).await?;
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
    redis: &mut MultiplexedConnection,
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
        redis
            .subscribe(channels(shared, some.iter().map(|(id, _)| id)))
            .await?;
        shared.subscriptions.is_late.store(false, Relaxed);
        for (client_id, waiters) in some {
            for waiter in waiters {
                waiter.confirm(shared, &client_id);
            }
        }
    }
    for some in left.chunks(IDS_A_COMMAND) {
        redis
            .unsubscribe(channels(shared, some.iter().map(|(id, _)| id)))
            .await?;
    }
    Ok(())
}

fn channels<'a>(shared: &Shared, ids: impl Iterator<Item = &'a ClientId>) -> Vec<String> {
    ids.map(|id| shared.names.channel(id.as_str())).collect()
}

/// Those whose subscription must be looked at, in `exact` mode. What is to be done is not noted: when the command is
/// built, the seat says it.
#[derive(Default)]
pub(super) struct Subscriptions {
    /// `None` while the link is down: a list of everyone is taken when it comes back.
    touched: Mutex<Option<HashMap<ClientId, Vec<Waiter>>>>,
    has_touched: Notify,
    /// Whether someone waited in vain, so that the next ones need not try.
    is_late: AtomicBool,
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
            let waiters = touched.entry(client_id.clone()).or_default();
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
            touched.entry(client_id.clone()).or_default();
            self.has_touched.notify_one();
        }
    }

    fn open(&self) {
        *self.touched.lock() = Some(HashMap::new());
    }

    /// The link is down; whoever waits need not.
    pub(super) fn close(&self) {
        *self.touched.lock() = None;
        self.is_late.store(false, Relaxed);
    }

    async fn touched(&self) -> HashMap<ClientId, Vec<Waiter>> {
        loop {
            if let Some(touched) = self.touched.lock().as_mut()
                && !touched.is_empty()
            {
                return std::mem::take(touched);
            }
            self.has_touched.notified().await;
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
        if received.has_heard.swap(false, Relaxed) {
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
        if is_due(PROBE_IDLE_S)
            && let Err(error) = probe(shared, received).await
        {
            return error;
        }
    }
}

/// Publishes to itself by the cmd link; an error when that is not heard.
async fn probe(shared: &Shared, received: &Received) -> Result<(), LinkError> {
    let Some(cmd) = shared.cmd.lock().clone() else {
        return Ok(());
    };
    if !received.hears_probe.load(Relaxed) {
        return Ok(()); // it would prove nothing
    }
    let number = fastrand::u64(1..);
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(&shared.names.probe).arg(number);
    match publish
        .exec_async(&mut cmd.redis.clone())
        .await
        .map_err(Failure::from)
    {
        Ok(()) => {}
        Err(Failure::Lost(_)) => return Ok(()), // that link has its own watch
        Err(failure) => {
            let failure = failure.of_channel(&escaped(&shared.names.probe));
            let _ = shared.failed(Function::Probe, failure).await;
            return Ok(());
        }
    }
    shared.works(Function::Probe);
    let heard = async {
        while received.probe.load(Relaxed) != number {
            received.probe_came.notified().await;
        }
    };
    match timeout(PROBE_TIMEOUT, heard).await {
        Err(_) if !received.has_heard.load(Relaxed) => {
            Err(LinkError::new("it does not deliver what is published"))
        }
        _ => Ok(()),
    }
}

/// Channels named in one command.
const IDS_A_COMMAND: usize = 512;

/// How long a 101 waits for its subscription.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Seconds without a push after which the link is asked.
const PING_IDLE_S: u32 = 5;

/// Seconds without a push after which it must hear itself.
const PROBE_IDLE_S: u32 = 10;

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
