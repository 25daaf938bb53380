//! The broker of several processes: Redis or Valkey, standalone, behind Sentinel, or a cluster.
//!
//! Two links, each with a task that keeps it for ever (`supervisor`): *cmd* publishes and writes (`writer`, `membership`), *sub* is
//! subscribed (`subscribe`). Redis hands each message to [`Deliver`] on the reader of the sub link, without a queue
//! between. Presence is one map written by one task (`presence`).

mod announce;
mod calls;
mod claims;
mod cleanup;
mod clock;
mod control;
mod elsewhere;
mod groups;
pub(crate) mod janitor;
mod links;
mod losses;
pub(crate) mod mailbox;
mod membership;
pub(crate) mod names;
mod nodes;
mod passing;
mod presence;
mod rights;
mod script;
mod seat_time;
mod subscribe;
mod supervisor;
mod writer;

pub(crate) use self::rights::rights;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    announce::Announcements,
    calls::Calls,
    claims::Claims,
    clock::Clock,
    links::{Kind, Links},
    losses::Losses,
    mailbox::Mailboxes,
    names::Names,
    passing::Passing,
    presence::Presence,
    subscribe::Subscriptions,
    supervisor::supervise,
};
use super::{
    Audience, Broker, Claimed, Deliver, Found, HUSH_WITHIN, Link, LinkChange, LinkHealth, Roster,
    lost::TellLost,
};
use crate::{
    calls::{Call, CallEnd},
    config::{Config, DuplicatePolicy, MailboxKind, SpoolKind, Subscribe},
    error::Result,
    locks::Mutex,
    node::{Node, NodeId},
    redis::{
        address::Address,
        connect::Redis,
        connection::Connection,
        error::{Failure, LinkError},
        trouble::{Function, Troubles},
    },
    stats::Running,
    tasks::{BoxFuture, Tasks},
    types::{ClientId, CloseReason, Payload, Sent, SessionId, unix_ms},
};

/// Carries downlinks and presence through Redis.
pub(crate) struct RedisBroker {
    shared: Arc<Shared>,
    /// The tasks of this broker alone, so that `stop` can wait for them.
    alive: TaskTracker,
}

/// What the tasks of one broker hold.
struct Shared {
    address: Address,
    names: Names,
    /// This bridge among the gateways.
    node: NodeId,
    subscribe: Subscribe,
    duplicates: DuplicatePolicy,
    /// This gateway delivers uplinks, keeps them where others do not see them, and has not told of it yet.
    forwards_apart: AtomicBool,
    /// The gateways keep messages each for its own devices, and this one has not told of it yet.
    keeps_apart: AtomicBool,
    /// Whether Redis may be missing without a fault, until it has answered once.
    is_optional: bool,
    has_answered: AtomicBool,
    mailbox: Mailboxes,
    deliver: Weak<dyn Deliver>,
    running: Arc<Running>,

    links: Mutex<Links>,
    /// What was wrong with each link last.
    trouble: Mutex<[String; 2]>,
    /// What Redis refuses over links that are up.
    troubles: Troubles,
    /// Held while changes of `links` are told, so that they are told in order.
    telling: Mutex<()>,
    /// Ends the delay before the next try; one per link.
    wake: [Notify; 2],
    /// Notified when the sub link comes up.
    sub_came_up: Notify,
    /// Asks the sub link to prove that it hears.
    check: Notify,
    /// When the sub link was last known to hear.
    last_good: Mutex<SystemTime>,
    subscriptions: Subscriptions,
    /// Redis runs no scripts for us: presence is written plainly, and nothing else is known of other gateways.
    is_plain: AtomicBool,
    claims: Claims,
    passing: Passing,
    calls: Calls,
    /// The highest epoch this gateway knows of its own.
    last_epoch: AtomicU64,

    /// The cmd link while it is usable.
    cmd: Mutex<Option<Connection<Redis>>>,
    presence: Mutex<Presence>,
    presence_changed: Notify,
    announcements: Announcements,
    started: Instant,
    /// What Redis's clock says, as far as this node can know.
    clock: Mutex<Clock>,
    /// Asks for all of presence to be written again.
    restore: Notify,
    /// When the lease was renewed last, over whatever link.
    leased_at: Mutex<Option<Instant>>,
    /// Whether another gateway was ever seen to have a lease: one that has none now may be cut off, with devices.
    has_company: AtomicBool,
    /// Who tells of devices whose gateway died, and what became of that.
    teller: OnceLock<Weak<dyn TellLost>>,
    losses: Losses,

    /// Ends the subscriptions.
    hush: CancellationToken,
    /// They have ended, and all that came before was delivered.
    hushed: CancellationToken,
    /// Ends the tasks once everything is written.
    stop: CancellationToken,
    /// Ends them wherever they are.
    cut: CancellationToken,
}

impl RedisBroker {
    /// Begins to keep the links to Redis; never waits for it. `is_optional` when nobody named a Redis, so that its absence
    /// is no fault.
    ///
    /// # Errors
    /// `Config`, naming `FASTSOCK_REDIS_URL` or the setting of a certificate file.
    pub(crate) fn start(
        config: &Config,
        node: &NodeId,
        deliver: Weak<dyn Deliver>,
        tasks: &Tasks,
        running: Arc<Running>,
        is_optional: bool,
    ) -> Result<Arc<Self>> {
        let address = Address::from_config(config)?;
        let names = Names::new(&config.redis.prefix, node);
        let rights = rights(config, &address);
        let shared = Arc::new(Shared {
            troubles: Troubles::new(address.clone(), rights),
            address,
            names,
            node: node.clone(),
            subscribe: config.redis.subscribe,
            duplicates: config.limits.duplicate_policy,
            forwards_apart: AtomicBool::new(
                config.has_remote() && config.spool.kind != SpoolKind::Redis,
            ),
            keeps_apart: AtomicBool::new(config.mailbox.kind == MailboxKind::Disk),
            is_optional,
            has_answered: AtomicBool::new(false),
            mailbox: Mailboxes::new(config),
            deliver,
            running,
            links: Mutex::new(Links::new()),
            trouble: Mutex::default(),
            telling: Mutex::default(),
            wake: [const { Notify::const_new() }; 2],
            sub_came_up: Notify::new(),
            check: Notify::new(),
            last_good: Mutex::new(SystemTime::now()),
            subscriptions: Subscriptions::default(),
            is_plain: AtomicBool::new(false),
            claims: Claims::default(),
            passing: Passing::default(),
            calls: Calls::new(tasks.clone()),
            last_epoch: AtomicU64::new(0),
            cmd: Mutex::default(),
            presence: Mutex::default(),
            presence_changed: Notify::new(),
            announcements: Announcements::default(),
            started: Instant::now(),
            clock: Mutex::default(),
            restore: Notify::new(),
            hush: CancellationToken::new(),
            hushed: CancellationToken::new(),
            leased_at: Mutex::default(),
            has_company: AtomicBool::new(false),
            teller: OnceLock::new(),
            losses: Losses::default(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        });
        let alive = TaskTracker::new();
        alive.close(); // only so that `wait` can end
        for kind in [Kind::Cmd, Kind::Sub] {
            let link = supervise(Arc::clone(&shared), kind);
            tasks.spawn(alive.track_future(link));
        }
        // A bridge that is dropped without `stop` takes its links along.
        let (group, shared_too, all_ended) = (tasks.clone(), Arc::clone(&shared), alive.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = group.stopping() => shared_too.cut.cancel(),
                () = all_ended.wait() => {}
            }
        });
        Ok(Arc::new(Self { shared, alive }))
    }
}

impl Broker for RedisBroker {
    fn name(&self) -> &'static str {
        if self.shared.is_alone() {
            "embedded"
        } else {
            "redis"
        }
    }

    fn link(&self) -> Link {
        if self.shared.is_alone() {
            Link::Alone
        } else if self.shared.links.lock().are_up() {
            Link::Up
        } else {
            Link::Down
        }
    }

    fn health(&self) -> Option<LinkHealth> {
        let shared = &self.shared;
        if shared.is_alone() {
            return None;
        }
        let heard = *shared.last_good.lock();
        let links = shared.links.lock();
        Some(LinkHealth {
            is_cmd_up: links.is_up(Kind::Cmd),
            is_sub_up: links.is_up(Kind::Sub),
            is_refusing: !shared.troubles.is_whole(),
            heard_ago: heard.elapsed().unwrap_or_default(),
        })
    }

    fn has_company(&self) -> bool {
        self.shared.has_company.load(Relaxed)
    }

    fn seated<'a>(
        &'a self,
        client_id: &'a ClientId,
        session_id: SessionId,
        is_takeover: bool,
    ) -> BoxFuture<'a, Claimed> {
        let shared = &self.shared;
        if !shared.is_alone() {
            let now_ms = shared.now_ms();
            let mut presence = shared.presence.lock();
            presence.seated(client_id, session_id, now_ms);
        }
        let claimed = shared.claim(client_id, session_id, is_takeover);
        if !shared.subscribe.is_each() {
            return Box::pin(claimed);
        }
        let subscribed = shared.subscriptions.seated(client_id);
        Box::pin(async move { tokio::join!(claimed, subscribed).0 })
    }

    fn seen(&self, client_id: &ClientId, seen_ms: u64) {
        if self.shared.presence.lock().seen(client_id, seen_ms) {
            self.shared.presence_changed.notify_one();
        }
    }

    fn unseated(&self, client_id: &ClientId, session_id: SessionId) {
        let shared = &self.shared;
        if shared.presence.lock().unseated(client_id, session_id) {
            shared.presence_changed.notify_one();
        }
        shared.announcements.release(std::iter::once(client_id));
        if shared.subscribe.is_each() {
            shared.subscriptions.unseated(client_id);
        }
    }

    fn announced(&self, client_id: &ClientId) -> Option<BoxFuture<'static, ()>> {
        self.shared.announced(client_id)
    }

    fn publish(&self, client_id: ClientId, payload: Bytes) -> BoxFuture<'_, Result<Sent>> {
        Box::pin(self.shared.publish(client_id, payload))
    }

    fn publish_to(&self, audience: Audience, payload: Bytes) -> BoxFuture<'_, Result<Option<u64>>> {
        Box::pin(self.shared.publish_to(audience, payload))
    }

    fn change_group_elsewhere<'a>(
        &'a self,
        client_id: &'a ClientId,
        name: &'a str,
        joins: bool,
    ) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.shared.change_group_elsewhere(client_id, name, joins))
    }

    fn call(&self, client_id: ClientId, call: Call) -> BoxFuture<'_, Result<Payload, CallEnd>> {
        Box::pin(self.shared.call(client_id, call))
    }

    fn node(&self) -> &NodeId {
        &self.shared.node
    }

    fn now_ms(&self) -> u64 {
        self.shared.epoch_of(self.shared.now_ms())
    }

    fn elsewhere<'a>(
        &'a self,
        client_ids: &'a [ClientId],
    ) -> BoxFuture<'a, Option<Vec<Option<u64>>>> {
        Box::pin(self.shared.elsewhere(client_ids))
    }

    fn hush(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let shared = &self.shared;
            shared.hush.cancel();
            if shared.links.lock().is_up(Kind::Sub) {
                let _ = timeout(HUSH_WITHIN, shared.hushed.cancelled()).await;
            }
        })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Node>>> {
        Box::pin(self.shared.nodes())
    }

    fn find<'a>(&'a self, client_ids: &'a [ClientId]) -> BoxFuture<'a, Result<Vec<Option<Found>>>> {
        Box::pin(self.shared.find(client_ids))
    }

    fn names<'a>(&'a self, nodes: &'a [String]) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(self.shared.names_of(nodes))
    }

    fn tell_lost(&self, teller: Weak<dyn TellLost>) {
        let _ = self.shared.teller.set(teller);
    }

    fn kick<'a>(
        &'a self,
        client_id: &'a ClientId,
        found: &'a Found,
        reason: &'a CloseReason,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.shared.kick(client_id, found, reason))
    }

    fn roster<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<Roster>>> {
        Box::pin(self.shared.roster(prefix, after, limit))
    }

    fn stop(&self, deadline: Instant) -> BoxFuture<'_, u64> {
        Box::pin(async move {
            let shared = &self.shared;
            let has_cmd = shared.cmd.lock().is_some();
            if !shared.is_alone() {
                tracing::info!(name: "redis_disconnecting", "Disconnecting Redis clients...");
            }
            shared.stop.cancel();
            let until = match shared.presence.lock().waiting() {
                _ if has_cmd => deadline,
                0 => Instant::now(),
                _ => deadline.min(Instant::now() + STOP_GRACE),
            };
            let _ = timeout_at(until, self.alive.wait()).await;
            shared.cut.cancel();
            let _ = timeout(CUT_TIMEOUT, self.alive.wait()).await;
            shared.presence.lock().waiting() as u64
        })
    }
}

impl fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBroker")
            .field("node", &self.shared.node)
            .finish_non_exhaustive()
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.shared.cut.cancel();
    }
}

impl Shared {
    /// Whether there is no Redis, and that is no fault.
    fn is_alone(&self) -> bool {
        self.is_optional && !self.has_answered.load(Relaxed)
    }

    /// Whether Redis runs no scripts for us.
    fn is_plain(&self) -> bool {
        self.is_plain.load(Relaxed)
    }

    /// Redis runs scripts for us, or does not. Says it, once.
    fn set_plain(&self, is_plain: bool) {
        if self.is_plain.swap(is_plain, Relaxed) == is_plain {
            return;
        }
        if is_plain {
            tracing::warn!(
                name: "redis_plain",
                missing = "+eval",
                "Redis runs no scripts for this user: presence is written by plain HSET and HDEL. Gateways do not learn that a device \
                 moved, and do not clear up after one that died. docs/security.md has the rights for that"
            );
        } else {
            tracing::warn!(name: "redis_plain", "Redis runs scripts for this user again");
            self.restore.notify_one();
        }
    }

    fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.cut.is_cancelled()
    }

    /// Who tells of devices whose gateway died.
    fn teller(&self) -> Option<Arc<dyn TellLost>> {
        self.teller.get()?.upgrade()
    }

    /// Milliseconds since the start.
    fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }

    fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// What Redis's clock said at a moment given in milliseconds since the start; ours if Redis does not say.
    fn epoch_of(&self, moment_ms: u64) -> u64 {
        let clock = self.clock.lock();
        if clock.is_known() {
            return clock.epoch_of(moment_ms);
        }
        let ago_ms = self.now_ms().saturating_sub(moment_ms);
        unix_ms(SystemTime::now()).saturating_sub(ago_ms)
    }

    fn wake(&self, kind: Kind) -> &Notify {
        &self.wake[kind as usize]
    }

    /// Redis answered: from now on it is missed when it goes away.
    fn answered(&self) {
        self.has_answered.store(true, Relaxed);
    }

    /// A link has restored what it is for.
    fn link_up(&self, kind: Kind) {
        let _in_order = self.telling.lock();
        let now = SystemTime::now();
        let tell = self.links.lock().up(kind, now);
        kind.log_connected();
        if kind == Kind::Sub {
            *self.last_good.lock() = now;
            self.sub_came_up.notify_waiters();
            self.wake(Kind::Cmd).notify_one();
        }
        for change in tell {
            match change {
                LinkChange::Gap { from, to } => self.tell_gap(from, to),
                LinkChange::Up | LinkChange::Down => self.tell(change),
            }
        }
    }

    /// Counts and tells that downlinks of this span may not have arrived. `telling` is held.
    fn tell_gap(&self, from: SystemTime, to: SystemTime) {
        self.running.broker_gaps.add(1);
        let lasted = to.duration_since(from).unwrap_or_default();
        self.running.broker_gap_ms.add(lasted.as_millis() as u64);
        tracing::warn!(
            name: "gap",
            from_ms = unix_ms(from),
            to_ms = unix_ms(to),
            lasted_ms = lasted.as_millis() as u64,
            "gap: downlinks published in this span may not have arrived"
        );
        self.tell(LinkChange::Gap { from, to });
    }

    /// A link is lost, or could not be had. Returns whether it was up.
    fn link_down(&self, kind: Kind) -> bool {
        match kind {
            Kind::Cmd => {
                *self.cmd.lock() = None;
                self.check.notify_one();
            }
            Kind::Sub => {
                self.subscriptions.close();
                self.close_groups();
            }
        }
        if self.is_alone() {
            return false;
        }
        let _in_order = self.telling.lock();
        let (was_up, tell) = self.links.lock().down(kind, *self.last_good.lock());
        if kind == Kind::Cmd {
            self.announcements.release_all();
        }
        if was_up && !self.is_over() {
            self.running.broker_links_lost.add(1);
        }
        if let Some(change) = tell
            && !self.is_over()
        {
            self.tell(change);
        }
        was_up
    }

    /// A command of a function failed. Returns how long to wait before it is tried again over the same link.
    ///
    /// # Errors
    /// The link is no good any more.
    async fn failed(&self, function: Function, failure: Failure) -> Result<Duration, LinkError> {
        let wait = self.troubles.weigh(function, failure).await?;
        if function == Function::Presence {
            self.announcements.release_all();
        }
        self.tell_whether_whole();
        Ok(wait)
    }

    /// A function works.
    fn works(&self, function: Function) {
        if self.troubles.works(function) {
            self.tell_whether_whole();
        }
    }

    /// Tells when Redis begins to refuse what devices rely on, and when it takes all of it again.
    fn tell_whether_whole(&self) {
        if self.is_alone() {
            return;
        }
        let _in_order = self.telling.lock();
        let is_whole = self.troubles.is_whole();
        let tell = self.links.lock().whole(is_whole);
        if let Some(change) = tell
            && !self.is_over()
        {
            self.tell(change);
        }
    }

    fn tell(&self, change: LinkChange) {
        if let Some(deliver) = self.deliver.upgrade() {
            deliver.link_changed(change);
        }
    }
}

/// How long `stop` waits for a link that is away when there is something to write.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Ending a task takes one poll; only a runtime that is gone takes longer.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
