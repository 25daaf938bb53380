//! The handle the host holds: start, stop, and the verbs.

mod deadlines;

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::OnceCell,
    time::{Instant, timeout_at},
};

use self::deadlines::Deadlines;
#[cfg(feature = "admin")]
use crate::admin;
#[cfg(feature = "redis")]
use crate::config::BrokerKind;
#[cfg(feature = "tls")]
use crate::net::tls::ServerTls;
use crate::{
    auth::{Auth, Authenticate, tokens::Tokens, webhook::Webhook},
    broker::{Broker, embedded::Embedded},
    config::{AuthKind, Config, Gone, Warning},
    error::{Error, ErrorKind, Result},
    files,
    forwarder::{
        Forward,
        destination::{Destination, LaneLimits},
        http::{HttpForwarder, post::Post},
        reply::Replies,
    },
    gateway::{limits::Limits, listen, shared::Shared},
    hooks::{Answer, HookVerbs, Hooks, WeakBridge},
    host::{announcements::Announcements, decisions::Decisions, lifecycle::Lifecycle},
    net::http::connect,
    node::NodeId,
    pure::{ahead::AllAhead, receipts::Receipts},
    registry::{Registry, downlinks::Downlinks},
    spool::{Spool, memory::Letters},
    stats::{Running, SessionCounts, Stats},
    status::Status,
    tasks::Tasks,
    types::{
        Client, ClientId, CloseReason, DeadLetter, Leftover, Payload, Sent, State, Ticket, Uplink,
    },
    uplinks::{Lanes, Outlet, UplinkObserver},
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

/// How to start a [`Bridge`].
#[must_use]
pub struct Builder {
    config: Config,
    hooks: Option<Arc<dyn Hooks>>,
    runtime: Option<Handle>,
    node: NodeId,
}

impl Bridge {
    /// Begins with these settings and no hooks.
    pub fn builder(config: Config) -> Builder {
        Builder {
            config,
            hooks: None,
            runtime: None,
            node: NodeId::random(),
        }
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

    /// Every device that is connected here, in no order.
    pub fn clients(&self) -> Vec<Client> {
        verbs::clients(&self.0.shared)
    }

    /// The books, exact at this moment. Looks at every outbox, which takes some 20 ns per device.
    pub fn stats(&self) -> Stats {
        verbs::stats(&self.0.shared)
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

    /// Reloads the files of certificates, for new connections; sessions stay. Reads from disk and so blocks for a moment, or for
    /// up to 20 s when the disk hangs.
    ///
    /// # Errors
    /// `Config`, naming the variable and the path, when the bridge cannot use a file; it keeps what it has, and logs the error, too.
    pub fn reload(&self) -> Result<()> {
        verbs::reload(&self.0.shared)
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

impl Builder {
    /// Sets the callbacks. See [`Hooks`].
    pub fn hooks(self, hooks: impl Hooks) -> Self {
        self.shared_hooks(Arc::new(hooks))
    }

    /// The same, shared with the host.
    pub fn shared_hooks(mut self, hooks: Arc<dyn Hooks>) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// Sets the runtime. Without it the bridge uses the runtime on which `start` is called.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Finds what [`start`](Self::start) would refuse, except for the ports and the directory of the disk spool, which others
    /// may have. Reads every file that the settings name. Connects to nobody and changes nothing. Blocks for some milliseconds, or for
    /// 10 s when a file hangs.
    ///
    /// # Errors
    /// `Config`, naming the setting; `Io` when the process has no descriptor left.
    pub fn check(self) -> Result<()> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// All that [`check`](Self::check) would find, not only the first.
    pub fn problems(self) -> Vec<Error> {
        let found = self.config.problems();
        if !found.is_empty() {
            return found;
        }
        let named = self.config.named_files();
        files::within(move || self.try_assemble()).unwrap_or_else(|e| vec![unread(&named, e)])
    }

    /// What looks wrong in the files that the settings name but is no reason not to run: certificates that have expired, or are not
    /// valid yet. [`start`](Self::start) and [`Bridge::reload`] log it. Blocks as [`check`](Self::check) does.
    pub fn file_warnings(&self) -> Vec<Warning> {
        let config = self.config.clone();
        files::within(move || file_warnings(&config)).unwrap_or_default() // `check` tells of a file that hangs
    }

    fn try_assemble(self) -> Vec<Error> {
        // All is built as for a start, on a runtime that never runs: what would connect is a task of it.
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(e) => return vec![Error::new(ErrorKind::Io, "cannot check").with_source(e)],
        };
        let handle = runtime.handle().clone();
        let found = {
            let _entered = handle.enter();
            let (config, tasks) = (self.config.clone(), Tasks::new(handle.clone()));
            match self.assemble(&handle, tasks.clone(), None) {
                Ok(_) => Vec::new(),
                Err(first) => parts_that_fail(&config, &tasks, first),
            }
        };
        runtime.shutdown_background(); // a plain drop is not allowed where the caller has a runtime of its own
        found
    }

    /// Takes the ports and the directory of the disk spool as [`start`](Self::start) would, and lets go of them again. A directory or
    /// a spool that is not there yet is not made. Also finds what another gateway with the same settings has.
    ///
    /// # Panics
    /// When called outside a tokio runtime and without [`runtime`](Self::runtime).
    pub async fn check_places(&self) -> Vec<Error> {
        let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
        let devices_and_admin = {
            let _entered = runtime.enter();
            let devices = listen::bind(&self.config).map(|_listener| ());
            #[cfg(feature = "admin")]
            let admin = admin::bind(&self.config).map(|_listener| ());
            #[cfg(not(feature = "admin"))]
            let admin = Ok(());
            [devices, admin]
        };
        #[cfg(feature = "disk")]
        let spool = match self.config.spool {
            crate::config::SpoolKind::Disk => {
                let config = self.config.clone();
                let named = "FASTSOCK_DATA_DIR";
                files::aside(move || crate::spool::disk::check(&config))
                    .await
                    .unwrap_or_else(|e| Err(unread(named, e)))
            }
            _ => Ok(()),
        };
        #[cfg(not(feature = "disk"))]
        let spool = Ok(());
        let all = devices_and_admin.into_iter().chain([spool]);
        all.filter_map(Result::err).collect()
    }

    /// The proxy through which the bridge reaches `remote_url`, without user and password; `None` where it connects directly.
    ///
    /// # Errors
    /// `Config`, naming the setting that is no proxy.
    pub fn proxy_of_remote(&self) -> Result<Option<String>> {
        let Some(url) = self.config.remote_url.as_deref() else {
            return Ok(None);
        };
        let proxy = connect::proxy_of((&self.config).into(), url)?;
        Ok(proxy.map(|proxy| proxy.to_string()))
    }

    /// Connects to Redis as [`start`](Self::start) would, if the settings use one, and asks whether the user has all rights.
    /// Changes nothing. Redis before 7.0 only tells the rights to channels.
    ///
    /// # Errors
    /// `Broker`, with all that is wrong on one line; `Config`, naming the setting.
    pub async fn check_redis(&self) -> Result<()> {
        self.config.check()?;
        #[cfg(feature = "redis")]
        if self.config.uses_redis() {
            use crate::redis::{address::Address, check::check};
            let address = Address::from_config(&self.config)?;
            let checked = check(&address, &rights(&self.config, &address)).await;
            if let Err(error) = checked {
                let hint = self.redis_scheme_hint(&error).await.unwrap_or_default();
                return Err(Error::new(ErrorKind::Broker, format!("{error}{hint}")));
            }
        }
        Ok(())
    }

    /// What to tell when the server is only reached in another way: with TLS where none was asked for, or without.
    #[cfg(feature = "redis")]
    async fn redis_scheme_hint(
        &self,
        error: &crate::redis::error::LinkError,
    ) -> Option<&'static str> {
        use crate::redis::{address::Address, check::check};
        if error.is_denied || !cfg!(feature = "tls") {
            return None;
        }
        let host = self.config.redis_host.trim_matches(['[', ']']);
        let url = match &self.config.redis_url {
            Some(url) => url.expose().to_owned(),
            None if host.contains(':') => format!("redis://[{host}]:{}", self.config.redis_port),
            None => format!("redis://{host}:{}", self.config.redis_port),
        };
        let (url, hint) = match url.split_once("://")? {
            ("redis", rest) => (
                format!("rediss://{rest}"),
                "; it speaks TLS there: FASTSOCK_REDIS_URL takes rediss://",
            ),
            ("rediss", rest) => (
                format!("redis://{rest}"),
                "; it speaks no TLS there: FASTSOCK_REDIS_URL takes redis:// for that",
            ),
            _ => return None,
        };
        let is_tls = url.starts_with("rediss");
        let mut other = self.config.clone().redis_url(Some(url.into()));
        other.redis_connect_timeout = other.redis_connect_timeout.min(HINT_TIME);
        let address = Address::from_config(&other).ok()?;
        let is_it = match check(&address, &[]).await {
            Ok(()) => true,
            Err(e) => e.is_denied || (is_tls && e.text.contains("certificate")),
        };
        is_it.then_some(hint)
    }

    /// Binds the ports and starts. Devices can connect when it returns; the broker may still be connecting.
    ///
    /// # Errors
    /// `Config` for settings that contradict each other and for files that it cannot read within 10 s; `Bind` for a taken port.
    ///
    /// # Panics
    /// When called outside a tokio runtime and without [`runtime`](Self::runtime).
    pub async fn start(self) -> Result<Bridge> {
        self.config.check()?;
        let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
        let (devices, admin) = {
            let _entered = runtime.enter();
            // The device port first: a second gateway on the same machine then names that one.
            let devices = listen::bind(&self.config)?;
            #[cfg(feature = "admin")]
            let admin = admin::bind(&self.config)?;
            #[cfg(not(feature = "admin"))]
            let admin: Option<TcpListener> = None; // `Config::check` allows nothing else
            (devices, admin)
        };
        let workers = Tasks::new(runtime.clone());
        let spool = spool(&self.config, &self.node, &workers).await?;
        let (shared, of_files) = self.assemble_aside(&runtime, workers, spool).await?;
        let _entered = runtime.enter();
        let addr = |listener: &TcpListener| {
            listener.local_addr().map_err(|e| {
                Error::new(ErrorKind::Io, "the listener has no address").with_source(e)
            })
        };
        let (local_addr, admin_addr) = (addr(&devices)?, admin.as_ref().map(addr).transpose()?);
        let inner = Inner {
            shared: shared.clone(),
            local_addr,
            admin_addr,
            deadlines: Deadlines::default(),
            stopped: OnceCell::new(),
        };
        let bridge = Bridge(Arc::new(inner));
        let warnings = shared.config.warnings().iter().chain(&of_files);
        warnings.for_each(Warning::log);
        if matches!(shared.auth, Auth::Open)
            && !shared.status.has_hooks()
            && !local_addr.ip().to_canonical().is_loopback()
        {
            match shared.config.listen_origins.is_empty() {
                true => {
                    tracing::warn!(addr = %local_addr, "anyone who can reach this port, and any web page in a browser that can, may connect under any client id; FASTSOCK_AUTH says who may, FASTSOCK_LISTEN_ORIGINS which pages")
                }
                false => {
                    tracing::warn!(addr = %local_addr, "anyone who can reach this port may connect under any client id; FASTSOCK_AUTH says who may")
                }
            }
        }
        shared
            .status
            .hook("on_start", |hooks| hooks.on_start(&bridge.downgrade()));
        shared
            .gateway
            .spawn(listen::accept(shared.clone(), devices));
        #[cfg(feature = "admin")]
        if let Some(listener) = admin {
            shared
                .workers
                .spawn_until_stopped(admin::serve(shared.clone(), listener));
        }
        Ok(bridge)
    }

    /// Builds the house on a thread of its own, since that reads files: one that hangs holds up nobody else's tasks.
    async fn assemble_aside(
        self,
        runtime: &Handle,
        workers: Tasks,
        spool: Option<Arc<dyn Spool>>,
    ) -> Result<(Arc<Shared>, Vec<Warning>)> {
        let named = self.config.named_files();
        let too_late = {
            let _entered = runtime.enter();
            tokio::time::sleep(files::LONGEST)
        };
        let (tasks, handle) = (workers.clone(), runtime.clone());
        let assembling = files::aside(move || {
            let _entered = handle.enter();
            let config = self.config.clone();
            let shared = self.assemble(&handle, workers, spool)?;
            Ok((shared, file_warnings(&config)))
        });
        let assembled = tokio::select! {
            assembled = assembling => assembled.unwrap_or_else(|e| Err(unread(&named, e))),
            () = too_late => Err(unread(&named, files::too_long())),
        };
        assembled.inspect_err(|_| tasks.stop()) // what has been built already
    }

    /// Builds the house, floor by floor.
    fn assemble(
        self,
        runtime: &Handle,
        workers: Tasks,
        spool: Option<Arc<dyn Spool>>,
    ) -> Result<Arc<Shared>> {
        let Self {
            config,
            hooks,
            node,
            ..
        } = self;
        let tasks = || Tasks::new(runtime.clone());
        let (gateway, sessions) = (tasks(), tasks());
        let running = Arc::new(Running::default());
        let status = Arc::new(Status::new(hooks, running.clone()));
        let registry = Arc::new(Registry::new(&config, status.clone()));
        let remote = Destination::of_uplinks(&config);
        let gone = remote.as_ref().map_or(Gone::Ignore, |remote| remote.gone);
        let forward =
            remote.map(|remote| HttpForwarder::new(&remote, config.uplink_binary, workers.clone()));
        let forward = forward.transpose()?;
        let auth = auth(&config, &registry, &workers)?;
        let broker = broker(&config, &node, &registry, &workers, &running)?;
        let downlinks = Downlinks::new(registry.clone(), broker.clone());
        let forward = forward.map(|forward| {
            let replies = Replies::new(&config, downlinks.clone(), running.clone());
            Box::new(forward.with_replies(replies)) as Box<dyn Forward<Uplink>>
        });
        let lifecycle = match Destination::of_events(&config) {
            Some(backend) => {
                let lifecycle = Lifecycle::start(&backend, &config, broker.clone(), &workers)?;
                let listener = Arc::downgrade(&lifecycle);
                status.listen_for_gaps(Box::new(move |from, to| {
                    if let Some(lifecycle) = listener.upgrade() {
                        lifecycle.gap(from, to);
                    }
                }));
                Some(lifecycle)
            }
            None => None,
        };
        let next_session = match spool {
            // Messages of earlier runs are still around: their sessions are not to be taken for new ones.
            Some(_) => micros_since_1970(),
            None => 0,
        };
        let limits = LaneLimits::of_uplinks(&config, spool.is_some());
        let outlet = Outlet {
            forward,
            letters: spool.is_none().then(|| Letters::new(&config)),
            spool,
            observer: Box::new(UplinkObserver::new(registry.clone(), status.clone(), gone)),
        };
        let lanes = Lanes::new(limits, outlet, running.clone(), workers.clone());
        let decisions = Decisions::new(
            status.clone(),
            lanes.clone(),
            downlinks.clone(),
            running.clone(),
            workers.clone(),
            config.hook_timeout,
        );
        let ahead = AllAhead::new(config.uplink_total_bytes / 4);
        let counts = Arc::new(SessionCounts::default());
        let announcements = Announcements {
            registry: registry.clone(),
            broker: broker.clone(),
            status: status.clone(),
            lifecycle: lifecycle.clone(),
            counts: counts.clone(),
        };
        Ok(Arc::new(Shared {
            limits: Limits::new(&config),
            #[cfg(feature = "tls")]
            tls: ServerTls::new(&config)?,
            origins: config.origins(),
            receipts: Receipts::new(&config),
            config,
            auth,
            status,
            registry,
            lanes,
            broker,
            lifecycle,
            running,
            started: Instant::now(),
            gateway,
            sessions,
            workers,
            decisions,
            downlinks,
            ahead,
            next_session: next_session.into(),
            counts,
            announcements,
        }))
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("has_hooks", &self.hooks.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg_attr(not(feature = "tls"), allow(unused_variables))]
fn file_warnings(config: &Config) -> Vec<Warning> {
    #[cfg(feature = "tls")]
    return crate::net::tls::validity::warnings(config);
    #[cfg(not(feature = "tls"))]
    Vec::new()
}

/// Which parts cannot be built, each alone: the first that was told of, and the others.
fn parts_that_fail(config: &Config, workers: &Tasks, first: Error) -> Vec<Error> {
    let running = Arc::new(Running::default());
    let status = Arc::new(Status::new(None, running.clone()));
    let registry = Arc::new(Registry::new(config, status));
    let remote = |to: Destination<'_>| Post::new(&to, workers.clone()).map(drop);
    let parts = [
        Destination::of_uplinks(config).map(remote),
        Some(auth(config, &registry, workers).map(drop)),
        Some(broker(config, &NodeId::random(), &registry, workers, &running).map(drop)),
        Destination::of_events(config).map(remote),
        #[cfg(feature = "tls")]
        Some(ServerTls::new(config).map(drop)),
    ];
    let mut found = vec![first];
    for error in parts.into_iter().flatten().filter_map(Result::err) {
        if found.iter().all(|known| known.to_line() != error.to_line()) {
            found.push(error);
        }
    }
    found
}

/// The files of some settings have not been read.
fn unread(named: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Config, named).with_source(error)
}

/// Who may connect, by the settings; what keeps it up to date is a worker.
fn auth(config: &Config, registry: &Arc<Registry>, workers: &Tasks) -> Result<Auth> {
    let provider: Arc<dyn Authenticate> = match config.auth {
        AuthKind::Open => return Ok(Auth::Open),
        AuthKind::Certificate => return Ok(Auth::Certificate),
        AuthKind::Tokens => {
            let tokens = Arc::new(Tokens::new(config)?);
            let (registry, known) = (registry.clone(), tokens.clone());
            let changed = move || registry.close_unless(|id, grant| known.holds(id, grant));
            tokens.clone().watch(workers, changed)?;
            tokens
        }
        AuthKind::Webhook => Arc::new(Webhook::new(config, workers.clone())?),
        #[cfg(feature = "jwt")]
        AuthKind::Jwt => crate::auth::jwt::Jwt::start(config, workers)?,
        #[cfg(not(feature = "jwt"))]
        AuthKind::Jwt => unreachable!("`Config::check` does not allow it"),
    };
    Ok(Auth::Provider(provider))
}

/// What the user of Redis must be allowed.
#[cfg(feature = "redis")]
fn rights(
    config: &Config,
    address: &crate::redis::address::Address,
) -> Vec<crate::redis::rights::Rights> {
    let mut rights = Vec::new();
    if config.broker != BrokerKind::Embedded {
        rights.push(crate::broker::redis::rights(config, address));
    }
    #[cfg(feature = "redis-spool")]
    if config.spool == crate::config::SpoolKind::Redis {
        rights.push(crate::spool::redis::rights(config, address));
    }
    rights
}

#[cfg(feature = "redis")]
fn broker(
    config: &Config,
    node: &NodeId,
    registry: &Arc<Registry>,
    workers: &Tasks,
    running: &Arc<Running>,
) -> Result<Arc<dyn Broker>> {
    if config.broker == BrokerKind::Embedded {
        return Ok(Arc::new(Embedded(node.clone())));
    }
    use crate::broker::{Deliver, redis::RedisBroker};
    let is_optional = config.broker == BrokerKind::Auto && !config.names_redis();
    let deliver: Weak<dyn Deliver> = Arc::<Registry>::downgrade(registry);
    let broker = RedisBroker::start(config, node, deliver, workers, running.clone(), is_optional)?;
    Ok(broker)
}

#[cfg(not(feature = "redis"))]
fn broker(
    _: &Config,
    node: &NodeId,
    _: &Arc<Registry>,
    _: &Tasks,
    _: &Arc<Running>,
) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(Embedded(node.clone()))) // `Config::check` allows nothing else
}

#[cfg_attr(
    not(all(feature = "disk", feature = "redis-spool")),
    allow(unused_variables, reason = "each spool takes what it needs")
)]
async fn spool(config: &Config, node: &NodeId, workers: &Tasks) -> Result<Option<Arc<dyn Spool>>> {
    #[cfg(any(feature = "disk", feature = "redis-spool"))]
    use crate::config::SpoolKind;
    Ok(match config.spool {
        #[cfg(feature = "disk")]
        SpoolKind::Disk => {
            use crate::spool::disk::DiskSpool;
            Some(Arc::new(DiskSpool::open(config, workers).await?))
        }
        #[cfg(feature = "redis-spool")]
        SpoolKind::Redis => {
            use crate::spool::redis::RedisSpool;
            Some(Arc::new(RedisSpool::new(config, node, workers)?))
        }
        _ => None, // `Config::check` allows nothing else
    })
}

fn micros_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// How long a look for the right way to Redis may take.
#[cfg(feature = "redis")]
const HINT_TIME: Duration = Duration::from_secs(2);
/// What stands for a deadline beyond what a clock can say.
const LONGEST_STOP: Duration = Duration::from_secs(86_400 * 365);
const LAST_BREATH: Duration = Duration::from_millis(100);
