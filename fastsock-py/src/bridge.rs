//! `fastsock.Bridge`: hooks on one dispatcher thread.

use std::sync::OnceLock;

use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::PyRuntimeError,
    intern,
    prelude::*,
    types::{PyDict, PyTuple, PyType},
};

use crate::{
    core::Core,
    dispatcher,
    hooks::{Hook, HookSet, not_made},
    locks::Mutex,
    objects::{Client, DeadLetter, Leftover, Ticket},
    settings::Settings,
};

/// A WebSocket to Redis to HTTP bridge in this process.
///
/// Keywords are the settings of docs/settings.md, by their names in lower case (websocket_port=3000, remote_url="http://..."; times
/// are milliseconds as int), and the hooks. config is a dict of settings or the path of a TOML file, environ a mapping of
/// environment variables; keywords win over environ, and environ over config.
///
/// All hooks run on one thread, one at a time, events of one device in order:
///
///     authenticate(request)           a client id (str) lets in; None: as configured; raise Reject(status, reason)
///     on_connect(client)              a device can be sent to
///     on_uplink(uplink)               None forwards; Drop, Replace(payload), Reply(payload)
///     on_uplinks(list)                takes all uplinks, a list at a time: nothing is forwarded (not with on_uplink)
///     on_disconnect(client, reason)   reason is a str with a code
///     on_uplink_lost(uplink, reason)  an uplink was given up
///     on_mailbox_lost(id, reason, n)  n kept messages of the device with this id are lost
///     on_state(state)                 "running", "degraded", "gap", "draining", "stopping", "stopped"
///     on_error(hook, exception)       a hook raised; without it, sys.unraisablehook
///
/// A failed authenticate refuses with 503, a failed on_uplink loses that message: it is never forwarded unchecked.
///
///     with fastsock.Bridge(websocket_port=3000, on_uplink=print) as bridge:
///         bridge.wait()
#[pyclass(frozen, subclass, weakref, module = "fastsock")]
pub struct Bridge {
    made: OnceLock<Core>,
    hooks: Mutex<HookSet>,
}

#[pymethods]
impl Bridge {
    /// Takes anything: a subclass may have an `__init__` with arguments of its own.
    #[new]
    #[pyo3(signature = (*_args, **_keywords), text_signature = "(*, config=None, environ=None, authenticate=None, \
        on_connect=None, on_uplink=None, on_uplinks=None, on_disconnect=None, on_uplink_lost=None, on_mailbox_lost=None, on_state=None, \
        on_error=None, **settings)")]
    fn new(_args: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            made: OnceLock::new(),
            hooks: Mutex::default(),
        }
    }

    #[pyo3(signature = (*, config=None, environ=None, authenticate=None, on_connect=None, on_uplink=None, on_uplinks=None,
        on_disconnect=None, on_uplink_lost=None, on_mailbox_lost=None, on_state=None, on_error=None, **settings))]
    #[expect(clippy::too_many_arguments, reason = "keywords")]
    fn __init__(
        slf: &Bound<'_, Self>,
        config: Option<&Bound<'_, PyAny>>,
        environ: Option<&Bound<'_, PyAny>>,
        authenticate: Option<Bound<'_, PyAny>>,
        on_connect: Option<Bound<'_, PyAny>>,
        on_uplink: Option<Bound<'_, PyAny>>,
        on_uplinks: Option<Bound<'_, PyAny>>,
        on_disconnect: Option<Bound<'_, PyAny>>,
        on_uplink_lost: Option<Bound<'_, PyAny>>,
        on_mailbox_lost: Option<Bound<'_, PyAny>>,
        on_state: Option<Bound<'_, PyAny>>,
        on_error: Option<Bound<'_, PyAny>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let given = [
            authenticate,
            on_connect,
            on_uplink,
            on_uplinks,
            on_disconnect,
            on_uplink_lost,
            on_mailbox_lost,
            on_state,
            on_error,
        ];
        let (class, base) = (slf.get_type(), slf.py().get_type::<Self>());
        let mut hooks = HookSet::default();
        for (hook, given) in Hook::ALL.into_iter().zip(given) {
            // A subclass may have it as a method.
            let is_method = !class.getattr(hook.name())?.is(&base.getattr(hook.name())?);
            let function = match given {
                None if is_method => Some(slf.getattr(hook.name())?),
                given => given,
            };
            if let Some(function) = function {
                hooks.set(hook, &function)?;
            }
        }
        let core = Core::new(Settings::gather(config, environ, settings)?);
        let this = slf.get();
        this.made
            .set(core)
            .map_err(|_| PyRuntimeError::new_err("the bridge was made already"))?;
        *this.hooks.lock() = hooks;
        Ok(())
    }

    /// A bridge with the settings of the environment (WEBSOCKET_PORT, REMOTE_URL, ...); keywords win.
    #[classmethod]
    #[pyo3(signature = (**keywords))]
    fn from_env<'py>(
        class: &Bound<'py, PyType>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        let all = PyDict::new(py);
        all.set_item(
            "environ",
            py.import(intern!(py, "os"))?
                .getattr(intern!(py, "environ"))?,
        )?;
        if let Some(keywords) = keywords {
            all.update(keywords.as_mapping())?;
        }
        class.call((), Some(&all))
    }

    /// Decorator, before the start: the function decides who may connect.
    fn authenticate<'py>(&self, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.decorate(Hook::Authenticate, function)
    }

    /// Decorator, before the start: the function gets each device that connects.
    fn on_connect<'py>(&self, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.decorate(Hook::Connect, function)
    }

    /// Decorator, before the start: the function gets each message and decides about it.
    fn on_uplink<'py>(&self, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.decorate(Hook::Uplink, function)
    }

    /// Decorator, before the start: the function gets lists of messages and takes them.
    fn on_uplinks<'py>(&self, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.decorate(Hook::Uplinks, function)
    }

    /// Decorator, before the start: the function gets the end of each session.
    fn on_disconnect<'py>(&self, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.decorate(Hook::Disconnect, function)
    }

    /// Decorator, before the start: the function gets each uplink that the bridge gave up.
    fn on_uplink_lost<'py>(&self, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.decorate(Hook::UplinkLost, function)
    }

    /// Decorator, before the start: the function is told of kept messages that are lost.
    fn on_mailbox_lost<'py>(&self, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.decorate(Hook::MailboxLost, function)
    }

    /// Decorator, before the start: the function gets each change of state.
    fn on_state<'py>(&self, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.decorate(Hook::State, function)
    }

    /// Decorator, before the start: the function gets what a hook raised.
    fn on_error<'py>(&self, function: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.decorate(Hook::Error, function)
    }

    /// Binds the ports and starts; devices can connect when it returns. Starting a running bridge does nothing.
    ///
    /// Raises ConfigError for a file that it cannot read, BindError for a taken port.
    fn start<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let wants = slf.get().hooks.lock().wants();
        if let Some(run) = slf.get().core()?.start(slf.py(), wants)? {
            dispatcher::start(slf.as_any(), Self::hooks, run)?;
        }
        Ok(slf.clone())
    }

    /// Stops: closes every device with 1001 and delivers the uplinks that it took, within timeout seconds (8 when None).
    ///
    /// Returns what was left. After it returns no hook runs. In a hook it only begins to stop and returns at once; wait()
    /// elsewhere sees the end. Stopping a stopped bridge does nothing.
    #[pyo3(signature = (timeout=None))]
    fn stop(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Leftover> {
        self.core()?.stop(py, timeout)
    }

    /// Drains: takes nobody new, and closes those who are here with 1012, one after the other and spread evenly over window
    /// seconds. Returns once no device is here; all else goes on until stop(). In a hook it only begins, and returns at once.
    /// While a drain goes on a second one waits for its end. Ctrl-C raises KeyboardInterrupt here, and the drain goes on.
    #[pyo3(signature = (window))]
    fn drain(&self, py: Python<'_>, window: f64) -> PyResult<()> {
        self.core()?.drain(py, window)
    }

    /// Reloads the files of certificates, for new connections; sessions stay. Blocks while it reads, with the interpreter released.
    ///
    /// Raises ConfigError, naming the setting and the file, when it cannot use one; it then keeps what it has.
    fn reload(&self, py: Python<'_>) -> PyResult<()> {
        self.core()?.reload(py)
    }

    /// Waits until the bridge has stopped, at most timeout seconds; False when that time is over. Ctrl-C raises
    /// KeyboardInterrupt here, and the bridge goes on: leaving the with block stops it.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.core()?.wait(py, timeout)
    }

    /// Queues a message for a device: str is TEXT, bytes-like BINARY. Returns where it went: "here", "elsewhere" (another
    /// gateway has the device), or "offline" (nobody has it; the message is gone).
    ///
    /// Raises TooLargeError over 16 MiB, OutboxFullError, BrokerError when Redis does not answer, StoppedError.
    /// Blocks only while it asks Redis, for at most some 2 seconds, with the interpreter released.
    #[pyo3(signature = (client_id, payload))]
    fn send(
        &self,
        py: Python<'_>,
        client_id: &str,
        payload: &Bound<'_, PyAny>,
    ) -> PyResult<&'static str> {
        self.core()?.send(py, client_id, payload)
    }

    /// Sends a message to a device, here or on another gateway, and returns its answer (str, or bytes when it is BINARY): the next
    /// message of the device that has a value at a JSON pointer, match=("/id", 7), or with ocpp=True the CALLRESULT or CALLERROR of
    /// the OCPP CALL in payload. An answer is an uplink all the same. timeout: seconds; None: call_timeout.
    ///
    /// Raises, and nothing was sent: NotConnectedError when no gateway has the device; BusyError when as many calls wait as may, or the
    /// device has an OCPP call to answer first; OutboxFullError, TooLargeError, ArgumentError, StoppedError. The device may have the
    /// message: UnansweredError (a TimeoutError) when it does not answer in time, or its session ends; BrokerError when Redis does not answer.
    /// Blocks until then, with the interpreter released; not allowed in a hook. Ctrl-C ends the wait; the call goes on without it.
    #[pyo3(signature = (client_id, payload, *, r#match=None, ocpp=false, timeout=None))]
    fn call<'py>(
        &self,
        py: Python<'py>,
        client_id: &str,
        payload: &Bound<'_, PyAny>,
        r#match: Option<(String, Bound<'_, PyAny>)>,
        ocpp: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.core()?
            .call(py, client_id, payload, r#match, ocpp, timeout)
    }

    /// Puts a message into the mailbox of a device, which may be away; the gateway that has the device sends it, at least once.
    /// ttl: seconds after which it is of no use. id: a name; of two messages of one name the mailbox keeps the first.
    ///
    /// Returns where the device is ("here", "elsewhere", "kept" when it is away), the id of the message, and whether the mailbox had
    /// it already. Raises ConfigError without a mailbox, TooLargeError, ArgumentError, BrokerError, StoppedError. Blocks while it
    /// asks Redis, for at most some 2 seconds, with the interpreter released.
    #[pyo3(signature = (client_id, payload, *, id=None, ttl=None))]
    fn send_kept(
        &self,
        py: Python<'_>,
        client_id: &str,
        payload: &Bound<'_, PyAny>,
        id: Option<String>,
        ttl: Option<f64>,
    ) -> PyResult<(&'static str, String, bool)> {
        self.core()?.send_kept(py, client_id, payload, id, ttl)
    }

    /// What the mailbox of a device holds: {"messages": ..., "bytes": ..., "oldest": time.time() or None}. Blocks and raises as
    /// send_kept().
    #[pyo3(signature = (client_id))]
    fn mailbox<'py>(&self, py: Python<'py>, client_id: &str) -> PyResult<Bound<'py, PyDict>> {
        self.core()?.mailbox(py, client_id)
    }

    /// Empties the mailbox of a device. Returns how many messages it held. Blocks and raises as send_kept().
    #[pyo3(signature = (client_id))]
    fn clear_mailbox(&self, py: Python<'_>, client_id: &str) -> PyResult<u64> {
        self.core()?.clear_mailbox(py, client_id)
    }

    /// Sends one message to all members of a group, on all gateways: str is TEXT, bytes-like BINARY. Returns how many gateways heard
    /// it: those that have members (without Redis: 1 if there are any).
    ///
    /// Raises ArgumentError for what is no name of a group, TooLargeError, ConfigError when groups are off, BrokerError, StoppedError.
    /// Blocks while it asks Redis, for at most some 2 seconds, with the interpreter released.
    #[pyo3(signature = (group, payload))]
    fn send_group(&self, py: Python<'_>, group: &str, payload: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.core()?.send_group(py, group, payload)
    }

    /// Sends one message to every device, on all gateways. Returns how many gateways heard it. Blocks and raises as send_group().
    #[pyo3(signature = (payload))]
    fn broadcast(&self, py: Python<'_>, payload: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.core()?.broadcast(py, payload)
    }

    /// Puts a device into a group until its session ends. Returns where the device is: "here", "elsewhere" (its gateway was told), or
    /// "offline". Blocks and raises as send_group(), and raises ArgumentError when it is in as many groups as it may be in.
    #[pyo3(signature = (client_id, group))]
    fn join_group(&self, py: Python<'_>, client_id: &str, group: &str) -> PyResult<&'static str> {
        self.core()?.change_group(py, client_id, group, true)
    }

    /// Takes a device out of a group. Returns where the device is, as join_group() does.
    #[pyo3(signature = (client_id, group))]
    fn leave_group(&self, py: Python<'_>, client_id: &str, group: &str) -> PyResult<&'static str> {
        self.core()?.change_group(py, client_id, group, false)
    }

    /// The groups that have members here, and how many: {"site-7": 3}.
    fn groups<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.core()?.groups(py)
    }

    /// Closes the session of a device that is here; False when it is not. Without code and reason: 4510 "kicked".
    #[pyo3(signature = (client_id, code=None, reason=None))]
    fn disconnect(
        &self,
        client_id: &str,
        code: Option<u16>,
        reason: Option<&str>,
    ) -> PyResult<bool> {
        self.core()?.disconnect(client_id, code, reason)
    }

    /// Closes the session of a device wherever it is: here at once, or at another gateway of the same Redis, which is asked to. Returns
    /// where the device was: "here", "elsewhere" or "offline". Without code and reason: 4510 "kicked".
    ///
    /// Raises BrokerError when the device is not here and Redis does not answer. Blocks only while it asks Redis, for at most some
    /// 4 seconds, with the interpreter released.
    #[pyo3(signature = (client_id, code=None, reason=None))]
    fn kick(
        &self,
        py: Python<'_>,
        client_id: &str,
        code: Option<u16>,
        reason: Option<&str>,
    ) -> PyResult<&'static str> {
        self.core()?.kick(py, client_id, code, reason)
    }

    /// For each of these devices, in the same order, whether it is connected to this gateway or another one of its Redis.
    ///
    /// Raises BrokerError when one is not here and Redis does not answer. Blocks only while it asks Redis about those that are not
    /// here, 512 at once, with the interpreter released.
    #[pyo3(signature = (client_ids))]
    fn are_online(&self, py: Python<'_>, client_ids: Vec<String>) -> PyResult<Vec<bool>> {
        self.core()?.are_online(py, client_ids)
    }

    /// The gateways that share a Redis, by name, as /api/v1/nodes has them: a list of dicts. Raises BrokerError; blocks while it asks
    /// Redis, with the interpreter released.
    fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.core()?.nodes(py)
    }

    /// Every device that is connected here, in no order.
    fn clients(&self) -> PyResult<Vec<Client>> {
        self.core()?.clients()
    }

    /// Dead letters: uplinks that the bridge gave up and keeps. In the order in which it received them;
    /// at most limit (1 to 1000), from the first after the id after. The memory spool keeps the newest 1,000, of at most
    /// 1 MiB, until the process ends.
    ///
    /// Raises OsError or BrokerError when a durable spool fails or does not answer.
    /// Blocks for at most 10 seconds, with the interpreter released; so do the next three.
    #[pyo3(signature = (after=None, limit=100))]
    fn dead_letters(
        &self,
        py: Python<'_>,
        after: Option<&str>,
        limit: i64,
    ) -> PyResult<Vec<DeadLetter>> {
        self.core()?.dead_letters(py, after, limit)
    }

    /// The dead letter with this id; None when there is none. Raises as dead_letters().
    #[pyo3(signature = (id))]
    fn dead_letter(&self, py: Python<'_>, id: &str) -> PyResult<Option<DeadLetter>> {
        self.core()?.dead_letter(py, id)
    }

    /// Delivers a dead letter again: behind all that its device has waiting, under the same Idempotency-Key. True once the spool
    /// has it as an uplink; False when there is no such letter. Raises as dead_letters(), and StoppedError.
    #[pyo3(signature = (id))]
    fn replay_dead_letter(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        self.core()?.replay_dead_letter(py, id)
    }

    /// Drops a dead letter for good; False when there is no such letter. Raises as dead_letters().
    #[pyo3(signature = (id))]
    fn drop_dead_letter(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        self.core()?.drop_dead_letter(py, id)
    }

    /// The books: {"uplink": ..., "downlink": ..., "sessions": ..., "counters": ..., "python": ...}.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.core()?.stats(py)
    }

    /// The gateway in one look, as /api/v1/status has it.
    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.core()?.status(py)
    }

    /// All that is known of one device, connected or not, as /api/v1/clients/<id> has it. Blocks while it asks Redis.
    #[pyo3(signature = (client_id))]
    fn device<'py>(&self, py: Python<'py>, client_id: &str) -> PyResult<Bound<'py, PyAny>> {
        self.core()?.device(py, client_id)
    }

    /// All figures as text for Prometheus: the classic format 0.0.4, or OpenMetrics 1.0.0.
    #[pyo3(signature = (*, openmetrics=false))]
    fn metrics(&self, py: Python<'_>, openmetrics: bool) -> PyResult<String> {
        self.core()?.metrics(py, openmetrics)
    }

    /// Answers a hook that returned Later, with what it could have returned or raised. From any thread.
    ///
    /// Raises TicketError when it was answered already or its time (hook_timeout) is over.
    #[pyo3(signature = (ticket, answer))]
    fn resolve(&self, ticket: &Ticket, answer: &Bound<'_, PyAny>) -> PyResult<()> {
        self.core()?.resolve(*ticket, answer)
    }

    /// The value of a setting as text, a secret as ***. KeyError when there is no such setting.
    #[pyo3(signature = (name))]
    fn setting(&self, name: String) -> PyResult<String> {
        let value = self.core()?.setting(&name);
        value.ok_or_else(|| pyo3::exceptions::PyKeyError::new_err(name))
    }

    /// What the bridge is doing: "running", "degraded", "draining", "stopping", "stopped".
    #[getter]
    fn state(&self) -> PyResult<&'static str> {
        self.core()?.state()
    }

    /// Where devices connect: (host, port).
    #[getter]
    fn local_addr(&self) -> PyResult<(String, u16)> {
        self.core()?.local_addr()
    }

    /// The port devices connect to.
    #[getter]
    fn port(&self) -> PyResult<u16> {
        Ok(self.core()?.local_addr()?.1)
    }

    /// Where the admin listener is: (host, port), or None.
    #[getter]
    fn admin_addr(&self) -> PyResult<Option<(String, u16)>> {
        self.core()?.admin_addr()
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        Self::start(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> PyResult<()> {
        self.core()?.stop(py, None).map(drop)
    }

    fn __repr__(&self) -> String {
        self.shown()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Locked: somebody is using them, so nothing is garbage.
        self.hooks
            .try_lock()
            .map_or(Ok(()), |hooks| hooks.traverse(&visit))
    }

    fn __clear__(&self) {
        let hooks = std::mem::take(&mut *self.hooks.lock());
        self.let_go();
        drop(hooks);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Bridge {
    fn core(&self) -> PyResult<&Core> {
        self.made.get().ok_or_else(not_made)
    }

    fn decorate<'py>(
        &self,
        hook: Hook,
        function: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if self.core()?.is_live() {
            let text = format!("{}: the bridge runs; give its hooks before", hook.name());
            return Err(PyRuntimeError::new_err(text));
        }
        self.hooks.lock().set(hook, &function)?;
        Ok(function)
    }

    fn let_go(&self) {
        if let Some(core) = self.made.get() {
            Python::attach(|py| core.let_go(py, &self.shown()));
        }
    }

    fn shown(&self) -> String {
        let state = self.core().and_then(Core::state);
        match (state, self.core().and_then(Core::local_addr)) {
            (Ok(state @ "stopped"), _) => format!("<fastsock.Bridge {state}>"),
            (Ok(state), Ok((host, port))) => format!("<fastsock.Bridge {state} on {host}:{port}>"),
            _ if self.made.get().is_none() => "<fastsock.Bridge, not made>".into(),
            _ => "<fastsock.Bridge of another process>".into(),
        }
    }

    /// The hooks of a bridge, for as long as a batch takes.
    fn hooks(bridge: &Bound<'_, PyAny>) -> Option<HookSet> {
        let this = bridge.cast::<Self>().ok()?;
        Some(this.get().hooks.lock().clone_ref(bridge.py()))
    }
}
