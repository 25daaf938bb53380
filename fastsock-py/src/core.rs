//! What both kinds of bridge are made of: settings, at most one run at a time, and the verbs.

use std::{
    ffi::CString,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use fastsock::{Answer, CallMatch, CloseReason, MetricsFormat, Payload, Sent, UplinkAction};
use pyo3::{
    exceptions::{PyBaseException, PyResourceWarning, PyRuntimeError},
    intern,
    prelude::*,
    types::{PyBytes, PyDict, PyString},
};
use uuid::Uuid;

use crate::{
    argument::{client_id, payload},
    error::{bad_argument, exception, forked, not_running, raised},
    hooks::Wants,
    locks::Mutex,
    objects::{Client, DeadLetter, Leftover, Ticket, host_port},
    run::{Hold, Run, STOP_TIME},
    settings::Settings,
    signals::Blocked,
    turn::Turns,
};

/// Which message is the answer to a call: match=(pointer, value), or ocpp=True.
pub(crate) fn call_match(
    py: Python<'_>,
    pointer: Option<(String, Bound<'_, PyAny>)>,
    is_ocpp: bool,
) -> PyResult<CallMatch> {
    match (pointer, is_ocpp) {
        (None, true) => Ok(CallMatch::ocpp()),
        (Some((pointer, value)), false) => {
            let json = py.import(intern!(py, "json"))?;
            let value = json.call_method1(intern!(py, "dumps"), (value,))?;
            let value: String = value.extract()?;
            CallMatch::pointer(&pointer, &value).map_err(|e| raised(&e))
        }
        _ => Err(bad_argument(
            "give either match=(pointer, value) or ocpp=True",
        )),
    }
}

/// What a device said: str, or bytes when it is BINARY.
pub(crate) fn said<'py>(py: Python<'py>, payload: &Payload) -> Bound<'py, PyAny> {
    match payload.is_text() {
        true => PyString::new(py, &payload.to_text()).into_any(),
        false => PyBytes::new(py, payload.as_bytes()).into_any(),
    }
}

/// A bridge that can be started, stopped, and started again.
pub(crate) struct Core {
    settings: Settings,
    hold: Mutex<Option<Hold>>,
    pub(crate) turns: Turns,
}

impl Core {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            hold: Mutex::new(None),
            turns: Turns::default(),
        }
    }

    /// Starts it, unless it runs already; then `None`.
    pub(crate) fn start(&self, py: Python<'_>, wants: Wants) -> PyResult<Option<Arc<Run>>> {
        if let Some(run) = self.latest()? {
            match run.leftover() {
                None if run.is_stopping() => {
                    return Err(exception("StoppedError", ("the bridge is still stopping",)));
                }
                None => return Ok(None),
                Some(_) => {}
            }
        }
        let run = Run::start(py, &self.settings, wants)?;
        let before = self.hold.lock().replace(Hold::new(Arc::clone(&run)));
        drop(before); // not under the lock
        Ok(Some(run))
    }

    /// The run that goes on, for what comes after the replies of its hooks.
    pub(crate) fn run(&self) -> PyResult<Arc<Run>> {
        let run = self.latest()?.ok_or_else(not_running)?;
        self.turns.finish_replies(&run.handle);
        Ok(run)
    }

    /// The last run, if there was one; it may have stopped.
    pub(crate) fn latest(&self) -> PyResult<Option<Arc<Run>>> {
        let hold = self.hold.lock();
        match hold.as_ref().map(Hold::run) {
            Some(run) if !run.is_ours() => Err(forked()),
            run => Ok(run.map(Arc::clone)),
        }
    }

    /// Whether it runs in this process and nobody has begun to stop it.
    pub(crate) fn is_live(&self) -> bool {
        let run = self.latest().ok().flatten();
        run.is_some_and(|run| !run.is_stopping())
    }

    /// How long a decision may take.
    pub(crate) fn hook_timeout(&self) -> Duration {
        self.settings.config.limits.hook_timeout
    }

    /// Stops it and waits, except in a hook.
    pub(crate) fn stop(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Leftover> {
        let Some(run) = self.latest()? else {
            return Ok(Leftover(fastsock::Leftover::default()));
        };
        let deadline = timeout.map_or(Ok(STOP_TIME), seconds)?;
        run.begin_stop(deadline)?;
        if !run.is_dispatcher() {
            let has_ended = run.wait_stopped(py, deadline);
            run.shut(); // whatever happened: after this call no further hook begins
            has_ended?;
        }
        Ok(Leftover(run.leftover().unwrap_or_default()))
    }

    /// Drains and waits, except in a hook.
    pub(crate) fn drain(&self, py: Python<'_>, window: f64) -> PyResult<()> {
        let (run, window) = (self.run()?, seconds(window)?);
        run.handle.request_drain(window);
        while !run.is_dispatcher() && !py.detach(|| run.bridge.drained(SIGNALS_EVERY)) {
            py.check_signals()?;
        }
        Ok(())
    }

    pub(crate) fn reload(&self, py: Python<'_>) -> PyResult<()> {
        let run = self.run()?;
        let reload = || {
            let _signals = Blocked::new(); // the thread that reads inherits it
            run.handle.reload()
        };
        py.detach(reload).map_err(|e| raised(&e))
    }

    /// Waits until it has stopped.
    pub(crate) fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let Some(run) = self.latest()? else {
            return Ok(true);
        };
        if run.is_dispatcher() {
            return Err(PyRuntimeError::new_err(
                "wait() in a hook would wait for itself",
            ));
        }
        run.wait_ended(py, timeout.map(seconds).transpose()?)
    }

    pub(crate) fn send(
        &self,
        py: Python<'_>,
        id: &str,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<&'static str> {
        let (run, id, payload) = (self.run()?, client_id(id)?, payload(object)?);
        // A device that is here is served without letting the interpreter go, which costs more than the send.
        let is_here = run
            .handle
            .send_here(&id, payload.clone())
            .map_err(|e| raised(&e))?;
        if is_here {
            return Ok(name(Sent::Here));
        }
        let sent = py.detach(|| run.bridge.send(&id, payload));
        sent.map(name).map_err(|e| raised(&e))
    }

    /// What a device answers. Runs Python's signal handlers meanwhile.
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        id: &str,
        object: &Bound<'_, PyAny>,
        matcher: Option<(String, Bound<'_, PyAny>)>,
        is_ocpp: bool,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (run, id, payload) = (self.run()?, client_id(id)?, payload(object)?);
        let matcher = call_match(py, matcher, is_ocpp)?;
        if run.is_dispatcher() {
            return Err(PyRuntimeError::new_err(
                "call() in a hook would wait for a message that the hook holds up",
            ));
        }
        let timeout = timeout.map(seconds).transpose()?;
        let (done, mut answer) = mpsc::sync_channel(1);
        run.bridge
            .call_then(&id, payload, &matcher, timeout, move |result| {
                let _ = done.send(result); // nobody waits any more
            });
        loop {
            let (got, rest) = py.detach(move || (answer.recv_timeout(SIGNALS_EVERY), answer));
            answer = rest;
            match got {
                Ok(answer) => {
                    let answer = answer.map_err(|e| raised(&e))?;
                    return Ok(said(py, &answer));
                }
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => return Err(not_running()), // it stops
            }
        }
    }

    /// Where its device is, the id of the message, and whether the mailbox had it already.
    pub(crate) fn send_kept(
        &self,
        py: Python<'_>,
        id: &str,
        object: &Bound<'_, PyAny>,
        message_id: Option<String>,
        ttl: Option<f64>,
    ) -> PyResult<(&'static str, String, bool)> {
        let (run, id, payload) = (self.run()?, client_id(id)?, payload(object)?);
        let options = fastsock::KeepOptions {
            id: message_id,
            ttl: ttl.map(seconds).transpose()?,
        };
        let kept = py.detach(|| run.bridge.send_kept(&id, payload, options));
        let kept = kept.map_err(|e| raised(&e))?;
        Ok((name(kept.sent), kept.id, kept.is_repeated))
    }

    pub(crate) fn mailbox<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Bound<'py, PyDict>> {
        let (run, id) = (self.run()?, client_id(id)?);
        let state = py.detach(|| run.bridge.mailbox(&id));
        let state = state.map_err(|e| raised(&e))?;
        let answer = PyDict::new(py);
        answer.set_item(intern!(py, "messages"), state.messages)?;
        answer.set_item(intern!(py, "bytes"), state.bytes)?;
        let oldest = state.oldest.map(|at| fastsock::unix_ms(at) as f64 / 1000.0);
        answer.set_item(intern!(py, "oldest"), oldest)?;
        Ok(answer)
    }

    pub(crate) fn clear_mailbox(&self, py: Python<'_>, id: &str) -> PyResult<u64> {
        let (run, id) = (self.run()?, client_id(id)?);
        py.detach(|| run.bridge.clear_mailbox(&id))
            .map_err(|e| raised(&e))
    }

    pub(crate) fn send_group(
        &self,
        py: Python<'_>,
        group: &str,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<u64> {
        let (run, payload) = (self.run()?, payload(object)?);
        py.detach(|| run.bridge.send_group(group, payload))
            .map_err(|e| raised(&e))
    }

    pub(crate) fn broadcast(&self, py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<u64> {
        let (run, payload) = (self.run()?, payload(object)?);
        py.detach(|| run.bridge.broadcast(payload))
            .map_err(|e| raised(&e))
    }

    /// Puts a device into a group, or takes it out.
    pub(crate) fn change_group(
        &self,
        py: Python<'_>,
        id: &str,
        group: &str,
        joins: bool,
    ) -> PyResult<&'static str> {
        let (run, id) = (self.run()?, client_id(id)?);
        let changed = py.detach(|| match joins {
            true => run.bridge.join_group(&id, group),
            false => run.bridge.leave_group(&id, group),
        });
        changed.map(name).map_err(|e| raised(&e))
    }

    /// Groups with members here, and how many.
    pub(crate) fn groups<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let groups = PyDict::new(py);
        for group in self.run()?.bridge.groups() {
            groups.set_item(group.name, group.members)?;
        }
        Ok(groups)
    }

    pub(crate) fn disconnect(
        &self,
        id: &str,
        code: Option<u16>,
        reason: Option<&str>,
    ) -> PyResult<bool> {
        let reason = close_reason(code, reason)?;
        Ok(self.run()?.handle.disconnect(&client_id(id)?, reason))
    }

    /// Where the device was.
    pub(crate) fn kick(
        &self,
        py: Python<'_>,
        id: &str,
        code: Option<u16>,
        reason: Option<&str>,
    ) -> PyResult<&'static str> {
        let (run, id, reason) = (self.run()?, client_id(id)?, close_reason(code, reason)?);
        let was = py.detach(|| run.bridge.kick(&id, reason));
        was.map(fastsock::Presence::as_str).map_err(|e| raised(&e))
    }

    pub(crate) fn are_online(&self, py: Python<'_>, ids: Vec<String>) -> PyResult<Vec<bool>> {
        let run = self.run()?;
        let ids: Vec<_> = ids
            .iter()
            .map(|id| client_id(id))
            .collect::<PyResult<_>>()?;
        py.detach(|| run.bridge.are_online(&ids))
            .map_err(|e| raised(&e))
    }

    pub(crate) fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let run = self.run()?;
        let nodes = py.detach(|| run.bridge.nodes());
        let nodes = nodes.map_err(|e| raised(&e))?;
        loads(py, serde_json::to_string(&nodes))
    }

    pub(crate) fn clients(&self) -> PyResult<Vec<Client>> {
        Ok(self
            .run()?
            .handle
            .clients()
            .into_iter()
            .map(Client)
            .collect())
    }

    /// Dead letters after one. Blocks, with the interpreter let go; so do the next three.
    pub(crate) fn dead_letters(
        &self,
        py: Python<'_>,
        after: Option<&str>,
        limit: i64,
    ) -> PyResult<Vec<DeadLetter>> {
        let limit = usize::try_from(limit).ok();
        let limit = limit.filter(|n| (1..=fastsock::DeadLetter::MAX_LISTED).contains(n));
        let limit = limit.ok_or_else(|| bad_argument("limit: give 1 to 1000"))?;
        let (run, after) = (self.run()?, after.map(letter_id).transpose()?);
        let letters = py.detach(|| run.bridge.dead_letters(after, limit));
        let letters = letters.map_err(|e| raised(&e))?;
        Ok(letters.into_iter().map(DeadLetter).collect())
    }

    pub(crate) fn dead_letter(&self, py: Python<'_>, id: &str) -> PyResult<Option<DeadLetter>> {
        let (run, id) = (self.run()?, letter_id(id)?);
        let letter = py.detach(|| run.bridge.dead_letter(id));
        Ok(letter.map_err(|e| raised(&e))?.map(DeadLetter))
    }

    pub(crate) fn replay_dead_letter(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        let (run, id) = (self.run()?, letter_id(id)?);
        py.detach(|| run.bridge.replay_dead_letter(id))
            .map_err(|e| raised(&e))
    }

    pub(crate) fn drop_dead_letter(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        let (run, id) = (self.run()?, letter_id(id)?);
        py.detach(|| run.bridge.drop_dead_letter(id))
            .map_err(|e| raised(&e))
    }

    /// The books of the core, and what this side counts.
    pub(crate) fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let run = self.run()?;
        let stats = loads(py, serde_json::to_string(&run.handle.stats()))?;
        let own = PyDict::new(py);
        let load = |count: &AtomicU64| count.load(Relaxed);
        let counts = &run.counts;
        own.set_item("events", load(&counts.events))?;
        own.set_item("wakes", load(&counts.wakes))?;
        own.set_item("attaches", load(&counts.attaches))?;
        own.set_item("hook_errors", load(&counts.hook_errors))?;
        own.set_item("uplinks_failed", load(&counts.uplinks_failed))?;
        let dropped = run.queue.dropped() + load(&counts.notices_dropped);
        own.set_item("notices_dropped", dropped)?;
        own.set_item("log_dropped", run.log.dropped())?;
        own.set_item(
            "waiting",
            run.queue.len() + run.stream.as_ref().map_or(0, |s| s.len()),
        )?;
        stats.set_item("python", own)?;
        Ok(stats)
    }

    /// The gateway in one look.
    pub(crate) fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let handle = &self.run()?.handle;
        let status = py.detach(|| serde_json::to_string(&handle.status()));
        loads(py, status)
    }

    /// All that is known of one device.
    pub(crate) fn device<'py>(
        &self,
        py: Python<'py>,
        client_id: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (run, id) = (self.run()?, self::client_id(client_id)?);
        let device = py.detach(|| serde_json::to_string(&run.bridge.device(&id)));
        loads(py, device)
    }

    /// All figures for Prometheus.
    pub(crate) fn metrics(&self, py: Python<'_>, openmetrics: bool) -> PyResult<String> {
        let format = match openmetrics {
            true => MetricsFormat::OpenMetrics,
            false => MetricsFormat::Text,
        };
        let handle = &self.run()?.handle;
        Ok(py.detach(|| handle.metrics(format)))
    }

    pub(crate) fn state(&self) -> PyResult<&'static str> {
        Ok(self
            .latest()?
            .map_or("stopped", |run| run.handle.state().as_str()))
    }

    pub(crate) fn local_addr(&self) -> PyResult<(String, u16)> {
        Ok(host_port(self.run()?.handle.local_addr()))
    }

    pub(crate) fn admin_addr(&self) -> PyResult<Option<(String, u16)>> {
        Ok(self.run()?.handle.admin_addr().map(host_port))
    }

    /// Answers a decision with what a hook could have returned or raised.
    pub(crate) fn resolve(&self, ticket: Ticket, answer: &Bound<'_, PyAny>) -> PyResult<()> {
        let run = self.run()?;
        let is_raised = answer.is_instance_of::<PyBaseException>();
        let (answer, no_answer) = read(ticket, answer, is_raised);
        let Some(answer) = answer else {
            return Err(bad_argument("the answer of resolve() cannot be Later"));
        };
        run.handle
            .resolve(ticket.ticket, answer)
            .map_err(|e| raised(&e))?;
        no_answer.map_or(Ok(()), Err)
    }

    /// The same for a hook that has returned: it may answer later, and its time may be over.
    pub(crate) fn settle(
        &self,
        ticket: Ticket,
        answer: &Bound<'_, PyAny>,
        is_raised: bool,
    ) -> PyResult<()> {
        let Some(run) = self.latest()? else {
            return Ok(());
        };
        let (answer, no_answer) = read(ticket, answer, is_raised);
        // Giving it is work that needs no interpreter.
        let answer = match answer {
            Some(answer @ Answer::Uplink(_)) => self.turns.take(ticket.ticket, answer),
            answer => answer,
        };
        match answer {
            Some(answer @ Answer::Uplink(UplinkAction::Forward | UplinkAction::Drop)) => {
                run.handle.resolve_soon(ticket.ticket, answer);
            }
            Some(answer) => {
                self.turns.finish_replies(&run.handle);
                let _ = run.handle.resolve(ticket.ticket, answer);
            }
            None => {}
        }
        no_answer.map_or(Ok(()), Err)
    }

    /// The value of a setting as text; secrets are hidden.
    pub(crate) fn setting(&self, name: &str) -> Option<String> {
        match name {
            "runtime_workers" => Some(self.settings.workers.to_string()),
            name => self.settings.config.show(name),
        }
    }

    /// Lets go of the run. In a forked child that leaves everything alone. A bridge that nobody has stopped is warned of.
    pub(crate) fn let_go(&self, py: Python<'_>, shown: &str) {
        let is_live = self.is_live();
        let hold = self.hold.lock().take();
        drop(hold);
        if is_live
            && let Ok(text) = CString::new(format!("unclosed {shown}"))
            && let Err(error) = PyErr::warn(py, &py.get_type::<PyResourceWarning>(), &text, 1)
        {
            error.write_unraisable(py, None); // warnings are errors here
        }
    }
}

/// What a hook returned or raised as an answer, `None` for one that comes later; and what is wrong with it, if it is none.
fn read(
    ticket: Ticket,
    answer: &Bound<'_, PyAny>,
    is_raised: bool,
) -> (Option<Answer>, Option<PyErr>) {
    let result = match is_raised {
        true => Err(PyErr::from_value(answer.clone())),
        false => Ok(answer.clone()),
    };
    match ticket.question.read(result) {
        Ok(answer) => (answer, None),
        Err(error) => (Some(Answer::Failed), (!is_raised).then_some(error)),
    }
}

/// The reason that a code and a text stand for.
fn close_reason(code: Option<u16>, reason: Option<&str>) -> PyResult<CloseReason> {
    match (code, reason) {
        (None, None) => Ok(CloseReason::Kicked),
        (code, reason) => {
            let code = code.unwrap_or(KICKED);
            let reason = reason.unwrap_or("");
            let (most, has) = (CloseReason::MAX_BYTES, reason.len());
            let close = CloseReason::custom(code, reason).ok_or_else(|| {
                bad_argument(format!(
                    "a close code is 1000 or from 3000 to 4999, not {code}"
                ))
            })?;
            if has > most {
                let text = format!("a reason has at most {most} bytes; this has {has}");
                return Err(bad_argument(text));
            }
            Ok(close)
        }
    }
}

/// Where a message went, in a word.
pub(crate) fn name(sent: Sent) -> &'static str {
    match sent {
        Sent::Here => "here",
        Sent::Elsewhere => "elsewhere",
        Sent::Offline => "offline",
        Sent::Kept => "kept",
    }
}

/// The id of a dead letter.
fn letter_id(id: &str) -> PyResult<Uuid> {
    id.parse()
        .map_err(|_| bad_argument(format!("{id:?} is not the id of a dead letter, a UUID")))
}

/// A time from Python.
pub(crate) fn seconds(seconds: f64) -> PyResult<Duration> {
    // Rust's `min` would make a number of what is none.
    let bounded = if seconds > MAX_SECONDS {
        MAX_SECONDS
    } else {
        seconds
    };
    Duration::try_from_secs_f64(bounded)
        .map_err(|_| bad_argument(format!("a timeout is 0 or more seconds, not {seconds}")))
}

const KICKED: u16 = 4510;
/// How often a wait for the end of a drain, or for the answer to a call, looks for signals.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);
/// More than a century; beyond, adding it to a clock could overflow.
const MAX_SECONDS: f64 = 4e9;

/// JSON as Python has it.
fn loads(py: Python<'_>, json: serde_json::Result<String>) -> PyResult<Bound<'_, PyAny>> {
    let json = json.map_err(|e| PyRuntimeError::new_err(e.to_string()))?;
    let module = py.import(intern!(py, "json"))?;
    module.call_method1(intern!(py, "loads"), (json,))
}
