//! How a bridge is put together, checked and started.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{net::TcpListener, runtime::Handle, sync::OnceCell, time::Instant};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "tls")]
use super::certificates;
#[cfg(feature = "redis")]
use super::parts::rights;
use super::{
    Bridge, Inner,
    deadlines::Deadlines,
    parts::{auths, broker, forwarder_of, mailbox, parts_that_fail, spool},
};
#[cfg(feature = "admin")]
use crate::admin;
#[cfg(feature = "redis")]
use crate::config::MailboxKind;
#[cfg(feature = "tls")]
use crate::net::tls::ServerTls;
#[cfg(feature = "otlp")]
use crate::otlp::Spans;
use crate::{
    auth::Auth,
    broker::lost::TellLost,
    config::{Config, Gone, Warning},
    error::{Error, ErrorKind, Result},
    files,
    forwarder::{
        Forward,
        destination::{Destination, LaneLimits},
        http::HttpForwarder,
        reply::Replies,
    },
    gateway::{
        limits::Limits,
        listen,
        notices::Notices,
        routes::{Route, Routes},
        shared::Shared,
        socket::Codecs,
    },
    histogram::LastMinute,
    hooks::Hooks,
    host::{
        announcements::Announcements, decisions::Decisions, departures::Departures,
        lifecycle::Lifecycle,
    },
    inspect,
    mailbox::Mailbox,
    net::http::connect,
    node::{NodeId, host_name},
    pure::{ahead::AllAhead, receipts::Receipts},
    registry::{Registry, callers::Callers, deliveries::Deliveries, downlinks::Downlinks},
    spool::{Spool, memory::Letters},
    stats::{Running, SessionCounts},
    status::Status,
    tasks::Tasks,
    types::Uplink,
    uplinks::{self, Lanes, Outlet, UplinkObserver},
};

/// How to start a [`Bridge`].
#[must_use]
pub struct Builder {
    config: Config,
    hooks: Option<Arc<dyn Hooks>>,
    runtime: Option<Handle>,
    node: NodeId,
    tells_of_process: bool,
    listener: Option<std::net::TcpListener>,
}

/// What outlives the process, opened before the rest is built.
#[derive(Default)]
struct Kept {
    spool: Option<Arc<dyn Spool>>,
    mailbox: Option<Arc<dyn Mailbox>>,
}

impl Builder {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            hooks: None,
            runtime: None,
            node: NodeId::random(),
            tells_of_process: false,
            listener: None,
        }
    }

    /// Sets the callbacks. See [`Hooks`].
    pub fn hooks(self, hooks: impl Hooks) -> Self {
        self.shared_hooks(Arc::new(hooks))
    }

    /// The same, shared with the host.
    pub fn shared_hooks(mut self, hooks: Arc<dyn Hooks>) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// Adds the figures of the whole process to the metrics (`process_…`): for a program that is all about the bridge.
    pub fn process_metrics(mut self) -> Self {
        self.tells_of_process = true;
        self
    }

    /// Sets the runtime. Without it the bridge uses the runtime on which `start` is called.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Takes devices from this listener, in place of one for `websocket_port` and `listen_addr`: one that a service manager keeps open
    /// over restarts (socket activation), or that the host has bound itself.
    pub fn listener(mut self, listener: std::net::TcpListener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Finds what [`start`](Self::start) would refuse, except for the ports and the data directory, which others
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

    /// Those of the settings' certificates that expire within a time; not those that have expired. Blocks as [`check`](Self::check) does.
    #[cfg_attr(not(feature = "tls"), allow(unused_variables))]
    pub fn expiring_certificates(&self, within: Duration) -> Vec<Warning> {
        #[cfg(feature = "tls")]
        {
            let config = self.config.clone();
            let found = files::within(move || crate::net::tls::validity::expiring(&config, within));
            found.unwrap_or_default()
        }
        #[cfg(not(feature = "tls"))]
        Vec::new()
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
            match self.assemble(&handle, tasks.clone(), Kept::default()) {
                Ok(_) => Vec::new(),
                Err(first) => parts_that_fail(&config, &tasks, first),
            }
        };
        runtime.shutdown_background(); // a plain drop is not allowed where the caller has a runtime of its own
        found
    }

    /// Takes the ports and the files in the data directory as [`start`](Self::start) would, and lets go of them again. A directory or
    /// a spool that is not there yet is not made. Also finds what another gateway with the same settings has.
    ///
    /// # Panics
    /// When called outside a tokio runtime and without [`runtime`](Self::runtime).
    pub async fn check_places(&self) -> Vec<Error> {
        let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
        let devices_and_admin = {
            let _entered = runtime.enter();
            let devices = match &self.listener {
                Some(_) => Ok(()),
                None => listen::bind(&self.config).map(|_listener| ()),
            };
            #[cfg(feature = "admin")]
            let admin = match admin::bind(&self.config) {
                Err(_) if self.config.listen.reuseport => Ok(()), // it waits for the port
                bound => bound.map(|_listener| ()),
            };
            #[cfg(not(feature = "admin"))]
            let admin = Ok(());
            [devices, admin]
        };
        #[cfg(feature = "disk")]
        let kept = {
            use crate::config::{MailboxKind, SpoolKind};
            let config = self.config.clone();
            let check = move || {
                if config.spool.kind == SpoolKind::Disk {
                    crate::spool::disk::check(&config)?;
                }
                match config.mailbox.kind {
                    MailboxKind::Disk => crate::mailbox::disk::check(&config),
                    _ => Ok(()),
                }
            };
            let named = "FASTSOCK_DATA_DIR";
            files::aside(check)
                .await
                .unwrap_or_else(|e| Err(unread(named, e)))
        };
        #[cfg(not(feature = "disk"))]
        let kept = Ok(());
        let all = devices_and_admin.into_iter().chain([kept]);
        all.filter_map(Result::err).collect()
    }

    /// The proxy through which the bridge reaches a URL of its settings, without user and password; `None` where it connects directly.
    ///
    /// # Errors
    /// `Config`, naming the setting that is no proxy.
    pub fn proxy_of(&self, url: &str) -> Result<Option<String>> {
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

    /// What looks wrong with Redis but is no reason not to run: that it may drop mailboxes. Connects as [`check_redis`](Self::check_redis)
    /// does, and says nothing when it cannot.
    pub async fn redis_warnings(&self) -> Vec<Warning> {
        #[cfg(feature = "redis")]
        if self.config.mailbox.kind == MailboxKind::Redis && self.config.check().is_ok() {
            use crate::broker::redis::janitor::{EVICTION, EVICTION_HINT, eviction};
            use crate::redis::{address::Address, connect::open};
            let Ok(address) = Address::from_config(&self.config) else {
                return Vec::new();
            };
            let Ok(mut connection) = open(&address, HINT_TIME).await else {
                return Vec::new();
            };
            let policy = eviction(&mut connection.redis).await;
            let warning = |policy| Warning {
                message: EVICTION,
                about: format!("redis: maxmemory-policy {policy}"),
                hint: EVICTION_HINT.into(),
            };
            return policy.map(warning).into_iter().collect();
        }
        Vec::new()
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
        let host = self.config.redis.host.trim_matches(['[', ']']);
        let url = match &self.config.redis.url {
            Some(url) => url.expose().to_owned(),
            None if host.contains(':') => format!("redis://[{host}]:{}", self.config.redis.port),
            None => format!("redis://{host}:{}", self.config.redis.port),
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
        other.redis.connect_timeout = other.redis.connect_timeout.min(HINT_TIME);
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
    pub async fn start(mut self) -> Result<Bridge> {
        self.config.check()?;
        let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
        let (devices, admin) = {
            let _entered = runtime.enter();
            // The device port first: a second gateway on the same machine then names that one.
            let devices = match self.listener.take() {
                Some(listener) => listen::adopt(listener)?,
                None => listen::bind(&self.config)?,
            };
            #[cfg(feature = "admin")]
            let admin = match admin::bind(&self.config) {
                // The process that hands its devices over still has it.
                Err(error) if self.config.listen.reuseport => {
                    let error = error.to_line();
                    tracing::warn!(error, "the admin listener waits until its port is free");
                    None
                }
                bound => bound?,
            };
            #[cfg(not(feature = "admin"))]
            let admin: Option<TcpListener> = None; // `Config::check` allows nothing else
            (devices, admin)
        };
        self.node = {
            let port = devices.local_addr().map_or(0, |addr| addr.port());
            let name = self.config.redis.node_name.clone();
            let name = name.filter(|name| !name.is_empty());
            self.node
                .named(name.unwrap_or_else(|| format!("{}:{port}", host_name())))
        };
        let workers = Tasks::new(runtime.clone());
        let opening = async {
            let spool = spool(&self.config, &self.node, &workers).await?;
            let mailbox = mailbox(&self.config, &workers).await?;
            Ok(Kept { spool, mailbox })
        };
        let started = match opening.await {
            Ok(kept) => {
                let open = (devices, admin);
                // Boxed: a host has the future of this on its stack, which would hold the settings once more.
                Box::pin(self.start_with(&runtime, workers.clone(), kept, open)).await
            }
            Err(error) => Err(error),
        };
        if started.is_err() {
            undo(&runtime, &workers).await;
        }
        started
    }

    /// The rest of the start, once what keeps messages is open.
    async fn start_with(
        self,
        runtime: &Handle,
        workers: Tasks,
        kept: Kept,
        (devices, admin): (TcpListener, Option<TcpListener>),
    ) -> Result<Bridge> {
        let (shared, of_files) = self.assemble_aside(runtime, workers, kept).await?;
        let _entered = runtime.enter();
        let addr = |listener: &TcpListener| {
            listener.local_addr().map_err(|e| {
                Error::new(ErrorKind::Io, "the listener has no address").with_source(e)
            })
        };
        let admin_addr = admin.as_ref().map(addr).transpose()?;
        let (local_addr, admin_addr) = (addr(&devices)?, admin_addr.or(shared.config.admin.addr));
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
        let is_open = |route: &Route| {
            let is_used = route.name.is_some() || shared.routes.has_default();
            is_used && matches!(*route.auth, Auth::Open)
        };
        if shared.routes.iter().any(is_open)
            && !shared.status.has_hooks()
            && !local_addr.ip().to_canonical().is_loopback()
        {
            match shared.config.listen.origins.is_empty() {
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
        shared
            .workers
            .spawn_until_stopped(inspect::remember(shared.clone()));
        #[cfg(feature = "otlp")]
        if let Some(spans) = shared.spans.clone() {
            let run = async move { spans.run().await };
            shared.workers.spawn_until_stopped(run);
        }
        #[cfg(feature = "admin")]
        if shared.config.admin.addr.is_some() {
            let of_task = shared.clone();
            shared.workers.spawn_until_stopped(async move {
                let listener = match admin {
                    Some(listener) => listener,
                    None => admin::bind_when_free(&of_task.config).await,
                };
                admin::serve(of_task, listener).await;
            });
        }
        #[cfg(feature = "tls")]
        certificates::watch(&shared)?;
        Ok(bridge)
    }

    /// Builds the house on a thread of its own, since that reads files: one that hangs holds up nobody else's tasks.
    async fn assemble_aside(
        self,
        runtime: &Handle,
        workers: Tasks,
        kept: Kept,
    ) -> Result<(Arc<Shared>, Vec<Warning>)> {
        let named = self.config.named_files();
        let too_late = {
            let _entered = runtime.enter();
            tokio::time::sleep(files::LONGEST)
        };
        let handle = runtime.clone();
        let assembling = files::aside(move || {
            let _entered = handle.enter();
            let config = self.config.clone();
            let shared = self.assemble(&handle, workers, kept)?;
            Ok((shared, file_warnings(&config)))
        });
        tokio::select! {
            assembled = assembling => assembled.unwrap_or_else(|e| Err(unread(&named, e))),
            () = too_late => Err(unread(&named, files::too_long())),
        }
    }

    /// Builds the house, floor by floor.
    fn assemble(
        self,
        runtime: &Handle,
        workers: Tasks,
        Kept { spool, mailbox }: Kept,
    ) -> Result<Arc<Shared>> {
        let Self {
            config,
            hooks,
            node,
            tells_of_process,
            ..
        } = self;
        let tasks = || Tasks::new(runtime.clone());
        let (gateway, sessions) = (tasks(), tasks());
        let running = Arc::new(Running::default());
        let status = Arc::new(Status::new(hooks, running.clone()));
        let registry = Arc::new(Registry::new(&config, status.clone()));
        let remote = Destination::of_uplinks(&config);
        let gone = remote.as_ref().map_or(Gone::Ignore, |remote| remote.gone);
        let forward = remote.map(|remote| HttpForwarder::new(&remote, workers.clone()));
        let forward = forward.transpose()?;
        let of_routes = config.of_routes();
        let auths = auths(&config, &of_routes, &registry, &workers)?;
        let (broker, in_broker) = broker(&config, &node, &registry, &workers, &running)?;
        let deliveries = mailbox.or(in_broker).map(|mailbox| {
            let age = config.mailbox.age;
            Deliveries::start(registry.clone(), broker.clone(), mailbox, age, &workers)
        });
        let downlinks = Downlinks::new(registry.clone(), broker.clone());
        let callers = Callers::new(
            registry.clone(),
            broker.clone(),
            workers.clone(),
            config.limits.call_timeout,
        );
        let with_replies = |forward: HttpForwarder, config: &Config| {
            let replies = Replies::new(config, downlinks.clone(), running.clone());
            Box::new(forward.with_replies(replies)) as Box<dyn Forward<Uplink>>
        };
        let forward = forward.map(|forward| with_replies(forward, &config));
        let mut ways = Vec::new();
        let mut gone_of = Vec::new();
        for (name, config) in &of_routes {
            let forward = forwarder_of(name, config, &workers)?;
            gone_of.push((name.as_str().into(), config.remote.gone));
            ways.push(uplinks::Route {
                name: name.as_str().into(),
                forward: with_replies(forward, config),
                batch: config.remote.batch,
                concurrency: config.remote.concurrency,
                max_age: config.remote.max_age,
            });
        }
        let lifecycle = match Destination::of_events(&config) {
            Some(backend) => {
                let lifecycle = Lifecycle::start(&backend, &config, broker.clone(), &workers)?;
                let teller: Weak<dyn TellLost> = Arc::<Lifecycle>::downgrade(&lifecycle);
                broker.tell_lost(teller);
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
        if let Some(deliveries) = &deliveries {
            let (status, lifecycle) = (status.clone(), lifecycle.clone());
            deliveries.listen_for_losses(move |client_id, reason, count| {
                let hook = "on_mailbox_lost";
                status.hook(hook, |hooks| {
                    hooks.on_mailbox_lost(client_id, reason, count)
                });
                if let Some(lifecycle) = &lifecycle {
                    lifecycle.mailbox_lost(client_id, reason, count);
                }
            });
        }
        let next_session = match spool {
            // Messages of earlier runs are still around: their sessions are not to be taken for new ones.
            Some(_) => micros_since_1970(),
            None => 0,
        };
        let limits = LaneLimits::of_uplinks(&config, spool.is_some());
        let observer = UplinkObserver::new(registry.clone(), status.clone(), gone);
        #[cfg(feature = "otlp")]
        let spans = {
            let node = broker.node().to_string();
            Spans::new(&config, &node, &running, workers.clone())?.map(Arc::new)
        };
        #[cfg(feature = "otlp")]
        let observer = observer.with_spans(spans.clone());
        let outlet = Outlet {
            forward,
            routes: ways,
            letters: spool.is_none().then(|| Letters::new(&config)),
            spool,
            observer: Box::new(observer.with_routes(gone_of).telling_of_the_last(&workers)),
        };
        let lanes = Lanes::new(limits, outlet, running.clone(), workers.clone());
        let decisions = Decisions::new(
            status.clone(),
            lanes.clone(),
            downlinks.clone(),
            running.clone(),
            workers.clone(),
            config.limits.hook_timeout,
        );
        let ahead = AllAhead::new(config.uplinks.total_bytes / 4);
        let counts = Arc::new(SessionCounts::default());
        let announcements = Announcements {
            registry: registry.clone(),
            broker: broker.clone(),
            status: status.clone(),
            lifecycle: lifecycle.clone(),
            counts: counts.clone(),
            departures: Departures::default(),
        };
        Ok(Arc::new(Shared {
            limits: Limits::new(&config),
            #[cfg(feature = "otlp")]
            spans,
            last_minute: LastMinute::default(),
            notices: Notices::start(&workers),
            draining: CancellationToken::new(),
            drained: CancellationToken::new(),
            #[cfg(feature = "tls")]
            tls: ServerTls::new(&config)?,
            routes: Routes::new(&config, &auths),
            origins: config.origins(),
            codecs: (config.devices.deflate).then(|| Arc::new(Codecs::new(running.clone()))),
            receipts: Receipts::new(&config),
            config,
            status,
            registry,
            lanes,
            broker,
            lifecycle,
            running,
            tells_of_process,
            started: Instant::now(),
            gateway,
            sessions,
            workers,
            decisions,
            downlinks,
            callers,
            deliveries,
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

/// Ends what a start that has failed had begun. Its tasks and threads are gone when it returns, but for one that hangs.
async fn undo(runtime: &Handle, workers: &Tasks) {
    workers.stop();
    let too_late = {
        let _entered = runtime.enter();
        tokio::time::sleep(UNDO_TIME)
    };
    tokio::select! {
        () = workers.wait() => {}
        () = too_late => {}
    }
}

/// The files of some settings have not been read.
fn unread(named: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Config, named).with_source(error)
}

fn micros_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// How long a start that has failed waits for the last of its threads; a spool writes for no longer.
const UNDO_TIME: Duration = Duration::from_secs(1);
/// How long a look for the right way to Redis may take.
#[cfg(feature = "redis")]
const HINT_TIME: Duration = Duration::from_secs(2);
