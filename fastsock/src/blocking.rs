//! The same handle owning its runtime, for C, Python and hosts without one.

use std::{
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{self, Arc, PoisonError},
    thread,
    time::Duration,
};

use tokio::runtime::Runtime;

use crate::{
    calls::CallMatch,
    config::Config,
    error::{Error, ErrorKind, Result},
    groups::Group,
    hooks::{Answer, Hooks},
    inspect::{DeviceStatus, GatewayStatus},
    locks::Mutex,
    mailbox::{KeepOptions, Kept},
    metrics::MetricsFormat,
    node::Node,
    stats::Stats,
    trace::Trace,
    types::{
        Client, ClientId, CloseReason, DeadLetter, Leftover, MailboxState, Payload, Presence, Sent,
        State, Ticket,
    },
    verbs,
};

/// A running bridge with its own runtime. The calls that block say so; do not make them from a task of an
/// async runtime, nor from a hook. Dropping it ends everything without waiting.
///
/// ```
/// use fastsock::{Config, blocking::Bridge};
///
/// let bridge = Bridge::builder(Config::default().websocket_port(0u16)).start()?;
/// assert!(bridge.clients().is_empty());
/// assert!(bridge.stop(std::time::Duration::from_secs(8)).is_empty());
/// # Ok::<(), fastsock::Error>(())
/// ```
#[derive(Debug)]
pub struct Bridge {
    bridge: crate::Bridge,
    runtime: Mutex<Option<Runtime>>,
    handle: tokio::runtime::Handle,
}

/// How to start a [`Bridge`].
#[must_use]
pub struct Builder {
    config: Config,
    hooks: Option<Arc<dyn Hooks>>,
    workers: usize,
    on_thread_start: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Bridge {
    /// Begins with these settings and no hooks.
    pub fn builder(config: Config) -> Builder {
        Builder {
            config,
            hooks: None,
            workers: 2,
            on_thread_start: None,
        }
    }

    /// As [`crate::Bridge::send`]. When the device is not here, it asks Redis and blocks: 2 s while Redis does not answer, and
    /// never for more than 4 s.
    ///
    /// # Errors
    /// As there.
    pub fn send(&self, client_id: &ClientId, payload: Payload) -> Result<Sent> {
        let shared = self.bridge.shared();
        match verbs::send_here(shared, client_id, payload)? {
            None => Ok(Sent::Here),
            Some(payload) => {
                let published = shared.downlinks.publish(client_id.clone(), payload);
                self.handle.block_on(published)
            }
        }
    }

    /// As [`crate::Bridge::send_here`].
    ///
    /// # Errors
    /// As there.
    pub fn send_here(&self, client_id: &ClientId, payload: Payload) -> Result<bool> {
        self.bridge.send_here(client_id, payload)
    }

    /// As [`Bridge::send`], but never blocks: `done` gets the result, on this thread or on one of the runtime. If the
    /// bridge stops meanwhile, it may drop `done` without a call.
    pub fn send_then(
        &self,
        client_id: &ClientId,
        payload: Payload,
        done: impl FnOnce(Result<Sent>) + Send + 'static,
    ) {
        let shared = self.bridge.shared();
        let payload = match verbs::send_here(shared, client_id, payload) {
            Ok(Some(payload)) => payload,
            Ok(None) => return done(Ok(Sent::Here)),
            Err(error) => return done(Err(error)),
        };
        let (shared, client_id) = (Arc::clone(shared), client_id.clone());
        let workers = shared.workers.clone();
        workers.spawn_until_stopped(async move {
            done(shared.downlinks.publish(client_id, payload).await);
        });
    }

    /// As [`crate::Bridge::call`]. Blocks until the answer, or the error.
    ///
    /// # Errors
    /// As there.
    pub fn call(
        &self,
        client_id: &ClientId,
        payload: Payload,
        matcher: &CallMatch,
        timeout: Option<Duration>,
    ) -> Result<Payload> {
        let calling = self.bridge.call(client_id, payload, matcher, timeout);
        self.handle.block_on(calling)
    }

    /// As [`Bridge::call`], but never blocks: `done` gets the result on a thread of the runtime. If the bridge stops meanwhile, it
    /// may drop `done` without a call.
    pub fn call_then(
        &self,
        client_id: &ClientId,
        payload: Payload,
        matcher: &CallMatch,
        timeout: Option<Duration>,
        done: impl FnOnce(Result<Payload>) + Send + 'static,
    ) {
        let shared = Arc::clone(self.bridge.shared());
        let (client_id, matcher) = (client_id.clone(), matcher.clone());
        let workers = shared.workers.clone();
        workers.spawn_until_stopped(async move {
            done(verbs::call(&shared, &client_id, payload, &matcher, timeout).await);
        });
    }

    /// As [`crate::Bridge::send_kept`]. Blocks while it asks Redis, for at most some 2 s.
    ///
    /// # Errors
    /// As there.
    pub fn send_kept(
        &self,
        client_id: &ClientId,
        payload: Payload,
        options: KeepOptions,
    ) -> Result<Kept> {
        let sending = self.bridge.send_kept(client_id, payload, options);
        self.handle.block_on(sending)
    }

    /// As [`crate::Bridge::mailbox`]. Blocks as [`Bridge::send_kept`].
    ///
    /// # Errors
    /// As there.
    pub fn mailbox(&self, client_id: &ClientId) -> Result<MailboxState> {
        self.handle.block_on(self.bridge.mailbox(client_id))
    }

    /// As [`crate::Bridge::clear_mailbox`]. Blocks as [`Bridge::send_kept`].
    ///
    /// # Errors
    /// As there.
    pub fn clear_mailbox(&self, client_id: &ClientId) -> Result<u64> {
        self.handle.block_on(self.bridge.clear_mailbox(client_id))
    }

    /// As [`crate::Bridge::send_group`]. Blocks while it asks Redis, for at most some 2 s.
    ///
    /// # Errors
    /// As there.
    pub fn send_group(&self, group: &str, payload: Payload) -> Result<u64> {
        self.handle.block_on(self.bridge.send_group(group, payload))
    }

    /// As [`crate::Bridge::broadcast`]. Blocks as [`Bridge::send_group`].
    ///
    /// # Errors
    /// As there.
    pub fn broadcast(&self, payload: Payload) -> Result<u64> {
        self.handle.block_on(self.bridge.broadcast(payload))
    }

    /// As [`crate::Bridge::join_group`]. Blocks as [`Bridge::send_group`].
    ///
    /// # Errors
    /// As there.
    pub fn join_group(&self, client_id: &ClientId, group: &str) -> Result<Sent> {
        self.handle
            .block_on(self.bridge.join_group(client_id, group))
    }

    /// As [`crate::Bridge::leave_group`]. Blocks as [`Bridge::send_group`].
    ///
    /// # Errors
    /// As there.
    pub fn leave_group(&self, client_id: &ClientId, group: &str) -> Result<Sent> {
        self.handle
            .block_on(self.bridge.leave_group(client_id, group))
    }

    /// As [`crate::Bridge::groups`].
    pub fn groups(&self) -> Vec<Group> {
        self.bridge.groups()
    }

    /// As [`crate::Bridge::disconnect`].
    pub fn disconnect(&self, client_id: &ClientId, reason: CloseReason) -> bool {
        self.bridge.disconnect(client_id, reason)
    }

    /// As [`crate::Bridge::kick`]. When the device is not here, it asks Redis and blocks for at most some 4 s.
    ///
    /// # Errors
    /// As there.
    pub fn kick(&self, client_id: &ClientId, reason: CloseReason) -> Result<Presence> {
        self.handle.block_on(self.bridge.kick(client_id, reason))
    }

    /// As [`crate::Bridge::are_online`]. Blocks while it asks Redis.
    ///
    /// # Errors
    /// As there.
    pub fn are_online(&self, client_ids: &[ClientId]) -> Result<Vec<bool>> {
        self.handle.block_on(self.bridge.are_online(client_ids))
    }

    /// As [`crate::Bridge::nodes`]. Blocks while it asks Redis.
    ///
    /// # Errors
    /// As there.
    pub fn nodes(&self) -> Result<Vec<Node>> {
        self.handle.block_on(self.bridge.nodes())
    }

    /// As [`crate::Bridge::clients`].
    pub fn clients(&self) -> Vec<Client> {
        self.bridge.clients()
    }

    /// As [`crate::Bridge::stats`].
    pub fn stats(&self) -> Stats {
        self.bridge.stats()
    }

    /// As [`crate::Bridge::clients_page`].
    pub fn clients_page(&self, prefix: &str, after: &str, limit: usize) -> Vec<Client> {
        self.bridge.clients_page(prefix, after, limit)
    }

    /// As [`crate::Bridge::device`]. When the device is not here, it asks Redis and blocks for at most some 2 s.
    pub fn device(&self, client_id: &ClientId) -> DeviceStatus {
        self.handle.block_on(self.bridge.device(client_id))
    }

    /// As [`crate::Bridge::trace`]; [`Trace::next_within`] blocks for the next event.
    pub fn trace(&self, client_id: &ClientId, with_payloads: bool) -> Trace {
        self.bridge.trace(client_id, with_payloads)
    }

    /// As [`crate::Bridge::status`].
    pub fn status(&self) -> GatewayStatus {
        self.bridge.status()
    }

    /// As [`crate::Bridge::metrics`].
    pub fn metrics(&self, format: MetricsFormat) -> String {
        self.bridge.metrics(format)
    }

    /// As [`crate::Bridge::state`].
    pub fn state(&self) -> State {
        self.bridge.state()
    }

    /// As [`crate::Bridge::local_addr`].
    pub fn local_addr(&self) -> SocketAddr {
        self.bridge.local_addr()
    }

    /// As [`crate::Bridge::admin_addr`].
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.bridge.admin_addr()
    }

    /// As [`crate::Bridge::resolve`].
    ///
    /// # Errors
    /// As there.
    pub fn resolve(&self, ticket: Ticket, answer: Answer) -> Result<()> {
        self.bridge.resolve(ticket, answer)
    }

    /// As [`crate::Bridge::dead_letters`]; blocks, at most 10 s.
    ///
    /// # Errors
    /// As there.
    pub fn dead_letters(&self, after: Option<uuid::Uuid>, limit: usize) -> Result<Vec<DeadLetter>> {
        self.handle.block_on(self.bridge.dead_letters(after, limit))
    }

    /// As [`crate::Bridge::dead_letter`]; blocks, at most 10 s.
    ///
    /// # Errors
    /// As there.
    pub fn dead_letter(&self, id: uuid::Uuid) -> Result<Option<DeadLetter>> {
        self.handle.block_on(self.bridge.dead_letter(id))
    }

    /// As [`crate::Bridge::replay_dead_letter`]; blocks, at most 10 s.
    ///
    /// # Errors
    /// As there.
    pub fn replay_dead_letter(&self, id: uuid::Uuid) -> Result<bool> {
        self.handle.block_on(self.bridge.replay_dead_letter(id))
    }

    /// As [`crate::Bridge::drop_dead_letter`]; blocks, at most 10 s.
    ///
    /// # Errors
    /// As there.
    pub fn drop_dead_letter(&self, id: uuid::Uuid) -> Result<bool> {
        self.handle.block_on(self.bridge.drop_dead_letter(id))
    }

    /// As [`crate::Bridge::drain`]; blocks until no device is here.
    pub fn drain(&self, window: Duration) {
        self.handle.block_on(self.bridge.drain(window));
    }

    /// As [`crate::Bridge::drained`]; blocks for at most this long. Whether the drain is over.
    pub fn drained(&self, within: Duration) -> bool {
        let waited = async { tokio::time::timeout(within, self.bridge.drained()).await };
        self.handle.block_on(waited).is_ok()
    }

    /// As [`crate::Bridge::request_drain`].
    pub fn request_drain(&self, window: Duration) -> bool {
        self.bridge.request_drain(window)
    }

    /// As [`crate::Bridge::request_stop`].
    pub fn request_stop(&self) {
        self.bridge.request_stop();
    }

    /// As [`crate::Bridge::reload`].
    ///
    /// # Errors
    /// `Config`.
    pub fn reload(&self) -> Result<()> {
        self.bridge.reload()
    }

    /// As [`crate::Bridge::adjust_limits`].
    pub fn adjust_limits(&self, config: &Config) {
        self.bridge.adjust_limits(config);
    }

    /// Like [`crate::Bridge::stop`]. Blocks until everything has ended, the threads of the runtime too. Another thread may call it
    /// meanwhile, with a deadline that comes sooner.
    pub fn stop(&self, deadline: Duration) -> Leftover {
        let leftover = self.handle.block_on(self.bridge.stop(deadline));
        let mut runtime = self.runtime.lock(); // held: whoever else stops it waits for the threads too
        if let Some(runtime) = runtime.take() {
            runtime.shutdown_timeout(RUNTIME_END);
        }
        leftover
    }

    /// The async handle of the same bridge. Its tasks run on this one's runtime, and end with it.
    pub fn handle(&self) -> crate::Bridge {
        self.bridge.clone()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
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

    /// Threads of the runtime, 1 to 64; the default is 2.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers.clamp(1, 64);
        self
    }

    /// Sets a function that each thread of the runtime calls first; for signal masks and names.
    pub fn on_thread_start(mut self, f: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_thread_start = Some(Box::new(f));
        self
    }

    /// Starts the runtime and the bridge. Blocks until the ports are bound.
    ///
    /// # Errors
    /// As [`crate::Builder::start`], and `Io` when the system starts no threads.
    pub fn start(self) -> Result<Bridge> {
        let runtime = start_runtime(self.workers, self.on_thread_start)
            .map_err(|e| Error::new(ErrorKind::Io, "cannot start the threads").with_source(e))?;
        let mut start = crate::Bridge::builder(self.config);
        if let Some(hooks) = self.hooks {
            start = start.shared_hooks(hooks);
        }
        let bridge = match runtime.block_on(start.start()) {
            Ok(bridge) => bridge,
            Err(error) => {
                runtime.shutdown_timeout(RUNTIME_END); // a drop would wait without a limit
                return Err(error);
            }
        };
        let handle = runtime.handle().clone();
        Ok(Bridge {
            bridge,
            runtime: Mutex::new(Some(runtime)),
            handle,
        })
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// Starts a runtime of which every thread runs.
///
/// Tokio panics when the system refuses its first thread, and says nothing when it refuses a later one: the runtime then
/// hangs, at the latest at its end. So the threads are tried first, and counted afterwards.
fn start_runtime(
    workers: usize,
    on_thread_start: Option<Box<dyn Fn() + Send + Sync>>,
) -> io::Result<Runtime> {
    try_threads(workers + OTHER_THREADS)?;
    let started = Arc::new((sync::Mutex::new(0), sync::Condvar::new()));
    let starting = Arc::clone(&started);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(workers)
        .thread_name("fastsock")
        .enable_all()
        .on_thread_start(move || {
            if let Some(f) = &on_thread_start {
                f();
            }
            let (count, has_one_more) = &*starting;
            *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            has_one_more.notify_all();
        });
    // Someone else may have taken the threads since: seldom enough for the line on stderr that a panic prints.
    let runtime = catch_unwind(AssertUnwindSafe(|| builder.build()))
        .unwrap_or_else(|_| Err(io::ErrorKind::WouldBlock.into()))?;
    let (count, has_one_more) = &*started;
    let count = count.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = has_one_more.wait_timeout_while(count, THREAD_START, |count| *count < workers);
    let is_late = waited.map_or(true, |(_, waited)| waited.timed_out());
    if is_late {
        runtime.shutdown_background();
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(runtime)
}

/// Finds out whether the system allows so many threads at once.
fn try_threads(count: usize) -> io::Result<()> {
    let gate = Arc::new(sync::Mutex::new(()));
    let closed = gate.lock();
    let mut threads = Vec::with_capacity(count);
    let tried = (0..count).try_for_each(|_| {
        let gate = Arc::clone(&gate);
        let thread = thread::Builder::new().name("fastsock-try".into());
        threads.push(thread.spawn(move || drop(gate.lock()))?);
        Ok(())
    });
    drop(closed);
    for thread in threads {
        let _ = thread.join();
    }
    tried
}

/// What a start needs beside the workers: one to read files, one for the disk spool, one for the hooks of a binding.
const OTHER_THREADS: usize = 3;
/// How long a thread that was made may take to run on a busy machine.
const THREAD_START: Duration = Duration::from_secs(10);
const RUNTIME_END: Duration = Duration::from_secs(1);
