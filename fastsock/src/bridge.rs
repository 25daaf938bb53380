//! The handle the host holds: start, stop, and the verbs.

mod builder;
#[cfg(feature = "tls")]
mod certificates;
mod deadlines;
mod parts;

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};

pub use self::builder::Builder;
use self::deadlines::Deadlines;
use crate::{
    calls::CallMatch,
    config::Config,
    error::Result,
    gateway::{drain, late, shared::Shared},
    groups::Group,
    handover::Handover,
    hooks::{Answer, HookVerbs, WeakBridge},
    inspect::{self, DeviceStatus, GatewayStatus},
    mailbox::{KeepOptions, Kept},
    metrics::{self, MetricsFormat},
    node::Node,
    registry::Registry,
    stats::Stats,
    trace::Trace,
    types::{
        Client, ClientId, CloseReason, DeadLetter, Leftover, MailboxState, Payload, Presence, Sent,
        State, Ticket,
    },
    verbs,
};

/// A running bridge. Clones are cheap and are the same bridge. Dropping the last one stops everything without waiting.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use fastsock::{Bridge, ClientId, Config, Sent};
///
/// let bridge = Bridge::builder(Config::default().websocket_port(0u16)).start().await?;
/// println!("devices connect to ws://{}/?token=dev1", bridge.local_addr());
/// let nobody = ClientId::new("dev1").expect("not empty");
/// assert_eq!(bridge.send(&nobody, "hello".into()).await?, Sent::Offline);
/// assert!(bridge.stop(std::time::Duration::from_secs(8)).await.is_empty());
/// # Ok::<(), fastsock::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Bridge(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    deadlines: Deadlines,
    stopped: OnceCell<Leftover>,
}

impl Bridge {
    /// Begins with these settings and no hooks.
    pub fn builder(config: Config) -> Builder {
        Builder::new(config)
    }

    /// Queues a message for a device, here or on another gateway.
    ///
    /// # Errors
    /// `TooLarge` over 16 MiB; `OutboxFull` when the outbox here is full (with `downlink_full` = `close` the bridge also closes the
    /// device); `Broker` when the device is not here and Redis does not answer; `Stopped`.
    pub async fn send(&self, client_id: &ClientId, payload: Payload) -> Result<Sent> {
        verbs::send(&self.0.shared, client_id, payload).await
    }

    /// Queues a message for a device that is here; `false` when it is not. Never blocks, so hooks may call it.
    ///
    /// # Errors
    /// `TooLarge`, `OutboxFull` and `Stopped`, as [`Bridge::send`].
    pub fn send_here(&self, client_id: &ClientId, payload: Payload) -> Result<bool> {
        self.0.send_here(client_id, payload)
    }

    /// Sends a message to a device, here or on another gateway, and waits for its answer: the next message of the device that
    /// `matcher` accepts. The bridge looks for it before it sends, so no answer is missed. An answer is an uplink all the same.
    /// `timeout`, from 1 ms to 10 min, begins when the message is queued; `None`: `call_timeout`.
    ///
    /// A session that ends, or moves to another gateway, ends the calls that wait for it. When another session replaces it on the same
    /// gateway, they wait for that one.
    ///
    /// # Errors
    /// Nothing was sent: `NotConnected` when no gateway has the device; `Busy` when as many calls wait as may (`limit_calls`,
    /// `limit_calls_per_device`), or the device has an OCPP call to answer first; `OutboxFull`; `TooLarge` over 16 MiB; `Argument`
    /// for a time that is not allowed, or a message that is no OCPP call when the matcher wants one; `Stopped`.
    /// The device may have the message: `Unanswered` when it does not answer in time, or its session ends; `Broker` when Redis does
    /// not answer.
    ///
    /// # Cancel safety
    /// When the future is dropped the call goes on, and counts for the limits, until it is answered or its time is over.
    pub async fn call(
        &self,
        client_id: &ClientId,
        payload: Payload,
        matcher: &CallMatch,
        timeout: Option<Duration>,
    ) -> Result<Payload> {
        verbs::call(&self.0.shared, client_id, payload, matcher, timeout).await
    }

    /// Puts a message into the mailbox of a device, which may be away. The mailbox keeps it until the device has it, and the gateway
    /// that has the device sends it, at least once.
    ///
    /// # Errors
    /// `Config` without a mailbox (`FASTSOCK_MAILBOX`); `TooLarge` over 16 MiB; `Argument` for an id or a time that is not allowed;
    /// `Broker` when Redis, or the disk, does not answer, so that the message may be kept or not: a publisher that gives an `id` can try again;
    /// `Stopped`.
    pub async fn send_kept(
        &self,
        client_id: &ClientId,
        payload: Payload,
        options: KeepOptions,
    ) -> Result<Kept> {
        verbs::send_kept(&self.0.shared, client_id, payload, options).await
    }

    /// What the mailbox of a device holds.
    ///
    /// # Errors
    /// `Config` and `Broker`, as [`Bridge::send_kept`].
    pub async fn mailbox(&self, client_id: &ClientId) -> Result<MailboxState> {
        verbs::mailbox(&self.0.shared, client_id).await
    }

    /// Empties the mailbox of a device. Returns how many messages it held; a device that is connected may get some of them still.
    ///
    /// # Errors
    /// As [`Bridge::mailbox`].
    pub async fn clear_mailbox(&self, client_id: &ClientId) -> Result<u64> {
        verbs::clear_mailbox(&self.0.shared, client_id).await
    }

    /// Sends one message to all members of a group, on all gateways. Returns how many gateways heard it: those that have members of the
    /// group (in a Redis Cluster, those that are connected to one of its nodes). Where there is no Redis it goes to the members here, and
    /// 1 is returned if there are any.
    ///
    /// # Errors
    /// `TooLarge` over 16 MiB; `Argument` for what is no name of a group; `Broker` when Redis does not answer; `Config` when groups are off
    /// (`FASTSOCK_GROUPS`); `Stopped`.
    pub async fn send_group(&self, group: &str, payload: Payload) -> Result<u64> {
        verbs::send_group(&self.0.shared, group, payload).await
    }

    /// Sends one message to every device, on all gateways. Returns how many gateways heard it, as [`Bridge::send_group`] does.
    ///
    /// # Errors
    /// As there.
    pub async fn broadcast(&self, payload: Payload) -> Result<u64> {
        verbs::broadcast(&self.0.shared, payload).await
    }

    /// Puts a device into a group until its session ends, here or on the gateway that has it. `Here`: done, and messages published from
    /// now on reach it. `Elsewhere`: the other gateway was told. `Offline`: nobody has it.
    ///
    /// # Errors
    /// `Argument` for what is no name of a group, and when the device is here and in `groups_per_device` of them; else as
    /// [`Bridge::send_group`].
    pub async fn join_group(&self, client_id: &ClientId, group: &str) -> Result<Sent> {
        verbs::change_group(&self.0.shared, client_id, group, true).await
    }

    /// Takes a device out of a group. Answers as [`Bridge::join_group`], also when the device was not in it.
    ///
    /// # Errors
    /// As [`Bridge::join_group`].
    pub async fn leave_group(&self, client_id: &ClientId, group: &str) -> Result<Sent> {
        verbs::change_group(&self.0.shared, client_id, group, false).await
    }

    /// The groups that have members on this gateway, by name.
    pub fn groups(&self) -> Vec<Group> {
        verbs::groups(&self.0.shared, "", "", usize::MAX)
    }

    /// A handle for hooks, which does not keep the bridge running.
    pub fn downgrade(&self) -> WeakBridge {
        let inner: Weak<dyn HookVerbs> = Arc::<Inner>::downgrade(&self.0);
        WeakBridge(inner)
    }

    /// Closes the session of a device that is here. What its outbox holds goes out first if the socket takes it at once.
    /// `false` when the device is not here. Never blocks.
    pub fn disconnect(&self, client_id: &ClientId, reason: CloseReason) -> bool {
        self.0.disconnect(client_id, reason)
    }

    /// Closes the session of a device wherever it is: here at once, as [`Bridge::disconnect`] does, or at another gateway of the same
    /// Redis, which is asked to close the session that the device has there now. Says where the device was. A gateway older than this
    /// verb takes no heed.
    ///
    /// # Errors
    /// `Broker` when the device is not here and Redis does not answer.
    pub async fn kick(&self, client_id: &ClientId, reason: CloseReason) -> Result<Presence> {
        verbs::fleet::kick(&self.0.shared, client_id, reason).await
    }

    /// For each of these devices, in the same order, whether it is connected to this gateway or another one of its Redis. Asks Redis
    /// about those that are not here, 512 at once. The devices of a gateway that died count until its lease has ended (some 4 s).
    ///
    /// # Errors
    /// `Broker` when one is not here and Redis does not answer.
    pub async fn are_online(&self, client_ids: &[ClientId]) -> Result<Vec<bool>> {
        verbs::fleet::are_online(&self.0.shared, client_ids).await
    }

    /// The gateways that share a Redis, by name; without Redis this one alone.
    ///
    /// # Errors
    /// `Broker` when Redis does not answer.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        verbs::fleet::nodes(&self.0.shared).await
    }

    /// The name of this gateway among the others (`FASTSOCK_NODE_NAME`).
    pub fn node_name(&self) -> &str {
        self.0.shared.broker.node().name()
    }

    /// Every device that is connected here, in no order.
    pub fn clients(&self) -> Vec<Client> {
        verbs::clients(&self.0.shared)
    }

    /// At most `limit` devices that are connected here, by name: those that begin with `prefix` and come after `after`, which
    /// is the last of the page before, or empty.
    pub fn clients_page(&self, prefix: &str, after: &str, limit: usize) -> Vec<Client> {
        verbs::clients_with(&self.0.shared, prefix, after, limit)
    }

    /// All that this gateway knows of one device, connected or not. Asks Redis when it is not here.
    pub async fn device(&self, client_id: &ClientId) -> DeviceStatus {
        inspect::device(&self.0.shared, client_id).await
    }

    /// Follows one device from now on: connects, refusals, messages with their sizes, POSTs, ends; with what is in the messages only
    /// `with_payloads`. While nobody follows any device this costs nothing but a look at a number.
    pub fn trace(&self, client_id: &ClientId, with_payloads: bool) -> Trace {
        let tracer = &self.0.shared.status.tracer;
        tracer.listen(client_id.clone(), with_payloads)
    }

    /// The gateway in one look. Costs about as much as [`Bridge::metrics`].
    pub fn status(&self) -> GatewayStatus {
        inspect::status(&self.0.shared)
    }

    /// The books, exact at this moment. Looks at every outbox, which takes some 20 ns per device.
    pub fn stats(&self) -> Stats {
        verbs::stats(&self.0.shared)
    }

    /// All figures of the bridge for Prometheus, as `/metrics` of the admin listener has them: [`Metric::all`](crate::Metric::all) is what
    /// they say. Costs about as much as [`Bridge::stats`], and a look at every device that has uplinks waiting.
    pub fn metrics(&self, format: MetricsFormat) -> String {
        metrics::write(&self.0.shared, format)
    }

    /// What the bridge is doing. Never `Gap`: only `on_state` gets that.
    pub fn state(&self) -> State {
        self.0.shared.status.state()
    }

    /// Where devices connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.0.admin_addr
    }

    /// The settings that it runs with.
    pub fn config(&self) -> &Config {
        &self.0.shared.config
    }

    /// What carries downlinks between processes now: `embedded` or `redis`. With `auto` it changes once Redis answers.
    pub fn broker(&self) -> &'static str {
        self.0.shared.broker.name()
    }

    /// Answers a decision that a hook put off. From any thread; never blocks.
    ///
    /// # Errors
    /// `Ticket` when the ticket is unknown, answered already or timed out; `Argument` when the answer is for the other kind of decision.
    pub fn resolve(&self, ticket: Ticket, answer: Answer) -> Result<()> {
        self.0.resolve(ticket, answer)
    }

    /// As [`Bridge::resolve`], but a thread of the runtime does the work, so it costs the caller some 50 ns. An answer that comes too
    /// late has no effect. In no order with [`Bridge::send`]. For hosts with one thread for many hooks.
    pub fn resolve_soon(&self, ticket: Ticket, answer: Answer) {
        self.0.shared.decisions.resolve_soon(ticket, answer);
    }

    /// Hands over what a host has answered and sent meanwhile: threads of the runtime are woken once for all of it, and give the answers.
    /// Never blocks; empties the handover. In no order with what is sent later, unless [`Bridge::finish_replies`] comes between.
    pub fn hand_over(&self, handover: &mut Handover) {
        self.0.shared.decisions.hand_over(handover);
    }

    /// Gives answers that were handed over, on this thread, if one of them goes back to a device and is not given yet: before what is sent to
    /// it now. Waits for a thread of the runtime that gives them. Not in a hook.
    pub fn finish_replies(&self) {
        self.0.shared.decisions.finish_replies();
    }

    /// Reloads the files of certificates, for new connections; sessions stay. Reads from disk and so blocks for a moment, or for
    /// up to 20 s when the disk hangs.
    ///
    /// # Errors
    /// `Config`, naming the variable and the path, when the bridge cannot use a file; it keeps what it has, and logs the error, too.
    pub fn reload(&self) -> Result<()> {
        verbs::reload(&self.0.shared)
    }

    /// Takes from these settings the limits that can change meanwhile: `limit_connections`, `limit_connections_per_ip`, `limit_accepts`
    /// and `limit_handshakes`. They hold for whoever comes from now on; who is connected stays, and was not counted by an address while
    /// that had no limit.
    pub fn adjust_limits(&self, config: &Config) {
        self.0.shared.limits.adjust(config);
    }

    /// Dead letters: uplinks that the bridge gave up and keeps. In the order in which it received them; at most `limit`, from the
    /// first after the id `after`. The memory spool keeps the newest 1,000, of at most 1 MiB, until the process ends.
    ///
    /// # Errors
    /// `Io` or `Broker` when a durable spool does not answer within 10 s, or fails.
    pub async fn dead_letters(
        &self,
        after: Option<uuid::Uuid>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        verbs::dead_letters(&self.0.shared, after, limit).await
    }

    /// The dead letter of the uplink with this id, or `None`.
    ///
    /// # Errors
    /// As [`Bridge::dead_letters`].
    pub async fn dead_letter(&self, id: uuid::Uuid) -> Result<Option<DeadLetter>> {
        verbs::dead_letter(&self.0.shared, id).await
    }

    /// Delivers a dead letter again, behind all that its device has waiting, under the same `Idempotency-Key`. Returns when
    /// the spool has it as an uplink; `stats` counts it as recovered. `false`: there is no such letter.
    ///
    /// # Errors
    /// As [`Bridge::dead_letters`], and `Stopped`.
    pub async fn replay_dead_letter(&self, id: uuid::Uuid) -> Result<bool> {
        verbs::replay_dead_letter(&self.0.shared, id).await
    }

    /// Drops a dead letter for good. `false`: there is no such letter.
    ///
    /// # Errors
    /// As [`Bridge::dead_letters`].
    pub async fn drop_dead_letter(&self, id: uuid::Uuid) -> Result<bool> {
        verbs::drop_dead_letter(&self.0.shared, id).await
    }

    /// Drains: takes nobody new (`/readyz` says so, and handshakes get 503), and closes those who are here with 1012, one after
    /// the other and spread evenly over `window`, so that they do not all come back elsewhere at once. Returns once no device is here:
    /// after the window, and at most `close_timeout` for the last ones. All else goes on until [`Bridge::stop`].
    /// While a drain goes on a second one waits for its end, with the window of the first.
    ///
    /// # Cancel safety
    /// When the future is dropped the bridge drains on.
    pub async fn drain(&self, window: Duration) {
        self.request_drain(window);
        self.drained().await;
    }

    /// Begins to drain without waiting. `false` when that, or a stop, has begun before. Never blocks, so hooks may call it.
    pub fn request_drain(&self, window: Duration) -> bool {
        drain::begin(&self.0.shared, window)
    }

    /// Waits until a drain is over, whoever begins it, or until the bridge stops. A host that lets operators drain by the admin
    /// listener waits for this, and then stops.
    pub async fn drained(&self) {
        let shared = &self.0.shared;
        tokio::select! {
            () = shared.drained.cancelled() => {}
            () = shared.gateway.stopping() => {}
        }
    }

    /// Begins to stop without waiting: the bridge accepts nobody any more and closes all sessions.
    /// [`Bridge::stop`] does the rest.
    pub fn request_stop(&self) {
        let shared = &self.0.shared;
        shared.status.stopping();
        shared.gateway.stop();
        shared.registry.close_all(&CloseReason::Shutdown);
    }

    /// Stops the bridge: closes every device with 1001, delivers the uplinks that were accepted, clears presence and ends all tasks.
    /// Takes `deadline` at most, and returns what was left. A second call waits for the same end and returns the same; while
    /// several calls wait, the deadline that comes first counts for all.
    ///
    /// # Cancel safety
    /// When the future is dropped the bridge is still stopping, and this call's deadline no longer counts. Call `stop` again to wait
    /// for the end.
    pub async fn stop(&self, deadline: Duration) -> Leftover {
        let now = Instant::now();
        let by = now.checked_add(deadline).unwrap_or(now + LONGEST_STOP);
        let _waiter = self.0.deadlines.enter(by);
        *self.0.stopped.get_or_init(|| self.stop_once()).await
    }

    /// Stopping, top to bottom: no more accepting, sessions out, presence and uplinks side by side, then the rest.
    async fn stop_once(&self) -> Leftover {
        let (shared, deadlines) = (&self.0.shared, &self.0.deadlines);
        self.request_stop();
        deadlines.within(shared.gateway.wait()).await;
        deadlines.within(shared.sessions.wait()).await;
        let sessions = shared.sessions.len() as u64;
        if let Some(deliveries) = &shared.deliveries {
            deadlines.within(deliveries.settled()).await;
        }
        deadlines
            .within(async {
                shared.broker.hush().await;
                late::account_for(shared, Registry::take_late).await;
            })
            .await;
        let (presence, _, events) = tokio::join!(
            deadlines.stop(|by| shared.broker.stop(by)),
            deadlines.within(shared.lanes.drained()),
            async {
                match &shared.lifecycle {
                    Some(lifecycle) => deadlines.stop(|by| lifecycle.stop(by)).await,
                    None => 0,
                }
            }
        );
        if let Some(spool) = shared.lanes.spool() {
            deadlines.stop(|by| spool.stop(by)).await;
        }
        let spooled = shared.lanes.abandon();
        #[cfg(feature = "otlp")]
        if let Some(spans) = &shared.spans {
            spans.finish(deadlines.earliest()).await;
        }
        shared.abort();
        // They have been told; this is only their last breath.
        let last_breath = deadlines.earliest().max(Instant::now() + LAST_BREATH);
        let _ = timeout_at(last_breath, async {
            tokio::join!(shared.workers.wait(), shared.sessions.wait())
        })
        .await;
        shared.status.stopped();
        Leftover {
            sessions,
            uplinks: shared.lanes.books().lost.shutdown, // a session may have been in the middle of reading
            presence,
            events,
            spooled,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl HookVerbs for Inner {
    fn send_here(&self, client_id: &ClientId, payload: Payload) -> Result<bool> {
        Ok(verbs::send_here(&self.shared, client_id, payload)?.is_none())
    }

    fn disconnect(&self, client_id: &ClientId, reason: CloseReason) -> bool {
        verbs::disconnect(&self.shared, client_id.as_str(), reason)
    }

    fn resolve(&self, ticket: Ticket, answer: Answer) -> Result<()> {
        self.shared.decisions.resolve(ticket, answer)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.abort();
        if let Some(spool) = self.shared.lanes.spool() {
            spool.abort();
        }
        self.shared.lanes.abandon(); // without `stop`: counted, logged and told all the same
        if let Some(lifecycle) = &self.shared.lifecycle {
            lifecycle.abandon();
        }
    }
}

/// What stands for a deadline beyond what a clock can say.
const LONGEST_STOP: Duration = Duration::from_secs(86_400 * 365);
const LAST_BREATH: Duration = Duration::from_millis(100);
