//! What `fastsock/aio.py` builds `AsyncBridge` on: the same queues, drained by an event loop instead of a thread.

use std::{
    collections::VecDeque,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use fastsock::events::{Event, Uplinks};
use pyo3::{
    exceptions::PyKeyError,
    intern,
    prelude::*,
    types::{PyDict, PyList, PyTuple},
};

use crate::{
    argument::{self, client_id, payload},
    core::{Core, call_match, name, said, seconds},
    error::{bad_argument, not_running, raised},
    hooks::Wants,
    locks::Mutex,
    objects::{Client, ConnectRequest, DeadLetter, Leftover, Ticket, Uplink},
    run::{Counts, SLACK, STOP_TIME},
    settings::Settings,
    words,
};

/// The number of a send or a call, and what came of it.
type Answered = (u64, fastsock::Result<Done>);

enum Done {
    Sent(fastsock::Sent),
    Called(fastsock::Payload),
}

/// The native side of an AsyncBridge. Nothing in it blocks but what says so.
#[pyclass(frozen, weakref, module = "fastsock._fastsock")]
pub struct LoopBridge {
    core: Core,
    /// What becomes of uplinks when no hook takes them.
    uplinks: Uplinks,
    /// Sends that had to ask Redis, and calls.
    sent: Arc<Mutex<VecDeque<Answered>>>,
    last_number: AtomicU64,
}

#[pymethods]
impl LoopBridge {
    #[new]
    #[pyo3(signature = (*, config, environ, settings, uplinks))]
    fn new(
        config: Option<&Bound<'_, PyAny>>,
        environ: Option<&Bound<'_, PyAny>>,
        settings: &Bound<'_, PyDict>,
        uplinks: Option<&str>,
    ) -> PyResult<Self> {
        let settings = Settings::gather(config, environ, Some(settings))?;
        let uplinks = match uplinks {
            Some("forward") => Uplinks::Off,
            Some("take") => Uplinks::Take,
            None if settings.config.remote.url.is_none()
                && settings.config.routing.routes.is_empty() =>
            {
                Uplinks::Take
            }
            None => Uplinks::Off,
            Some(other) => {
                let text =
                    format!("uplinks: {other:?} is not allowed; give \"forward\" or \"take\"");
                return Err(bad_argument(text));
            }
        };
        Ok(Self {
            core: Core::new(settings),
            uplinks,
            sent: Arc::default(),
            last_number: AtomicU64::new(0),
        })
    }

    /// Starts with these hooks, of which only the names matter here; False when it runs already.
    fn start(&self, py: Python<'_>, hooks: &Bound<'_, PyDict>) -> PyResult<bool> {
        let has = |name: &str| hooks.contains(name);
        let wants = Wants {
            authenticate: has("authenticate")?,
            uplinks: match has("on_uplink")? {
                true => Uplinks::Decide,
                false => self.uplinks,
            },
            notices: has("on_connect")?
                || has("on_disconnect")?
                || has("on_uplink_lost")?
                || has("on_mailbox_lost")?
                || has("on_state")?,
            is_for_loop: true,
        };
        let run = self.core.start(py, wants)?;
        Ok(run.is_some())
    }

    /// Begins to stop; the events' descriptor becomes readable when it is over. Returns how many seconds that may take.
    #[pyo3(signature = (timeout))]
    fn begin_stop(&self, timeout: Option<f64>) -> PyResult<f64> {
        let deadline = timeout.map_or(Ok(STOP_TIME), seconds)?;
        if let Some(run) = self.core.latest()? {
            self.core.turns.finish_replies(&run.handle);
            run.begin_stop(deadline)?;
        }
        Ok(deadline.as_secs_f64())
    }

    /// Whether it runs and nobody has begun to stop it. False in a forked child.
    fn is_live(&self) -> bool {
        self.core.is_live()
    }

    /// Stops in the background: its loop has gone, or its owner.
    fn abandon(&self) -> PyResult<()> {
        self.core.latest()?.map_or(Ok(()), |run| {
            run.shut();
            run.close_queues();
            run.begin_stop(STOP_TIME)
        })
    }

    /// Waits on a thread of the caller's until a stop that has begun is over.
    fn wait_ended(&self, py: Python<'_>) -> PyResult<bool> {
        self.core.wait(py, Some((STOP_TIME + SLACK).as_secs_f64()))
    }

    /// How long a decision may take, in seconds.
    #[getter]
    fn hook_timeout(&self) -> f64 {
        self.core.hook_timeout().as_secs_f64()
    }

    /// Counts a notice that a busy hook is never told.
    fn drop_notice(&self) -> PyResult<()> {
        self.count(|counts| &counts.notices_dropped)
    }

    /// Counts a hook that failed.
    fn count_hook_error(&self) -> PyResult<()> {
        self.count(|counts| &counts.hook_errors)
    }

    /// Tells sys.unraisablehook of an exception.
    fn unraisable(&self, py: Python<'_>, error: Bound<'_, PyAny>, hook: Option<&Bound<'_, PyAny>>) {
        PyErr::from_value(error).write_unraisable(py, hook);
    }

    /// What was left, once it has stopped; None before.
    fn leftover(&self) -> PyResult<Option<Leftover>> {
        let run = self.core.latest()?;
        Ok(run.and_then(|run| run.leftover()).map(Leftover))
    }

    /// The descriptor that is readable while there are events.
    fn events_fd(&self) -> PyResult<i32> {
        Ok(self.core.run()?.queue.fd().as_raw_fd())
    }

    /// The descriptor that is readable while there are taken uplinks; None when uplinks are not taken.
    fn uplinks_fd(&self) -> PyResult<Option<i32>> {
        Ok(self
            .core
            .run()?
            .stream
            .as_ref()
            .map(|stream| stream.fd().as_raw_fd()))
    }

    /// Waits on a thread of the caller's until the descriptor is readable; False when the time is over.
    fn wait(&self, py: Python<'_>, fd: i32, timeout: f64) -> PyResult<bool> {
        let (run, timeout) = (self.core.run()?, seconds(timeout)?);
        let all = [Some(&*run.queue), Some(&*run.side), run.stream.as_ref()];
        let queue = all
            .into_iter()
            .flatten()
            .find(|queue| queue.fd().as_raw_fd() == fd);
        let queue = queue.ok_or_else(|| bad_argument("that is none of its descriptors"))?;
        Ok(py.detach(|| queue.wait(timeout)))
    }

    /// The descriptor that is readable when there is something for drain_side().
    fn side_fd(&self) -> PyResult<i32> {
        Ok(self.core.run()?.side.fd().as_raw_fd())
    }

    /// Calls `call` for up to most events, each time with the name of its hook and the arguments that gets. Returns how many. What the hooks
    /// answer and send at once goes to the threads of the bridge together.
    fn turn(&self, py: Python<'_>, most: usize, call: &Bound<'_, PyAny>) -> PyResult<usize> {
        let run = self.core.latest()?.ok_or_else(not_running)?;
        let mut events = Vec::new();
        let count = run.queue.drain(most, &mut events);
        run.counts.wakes.fetch_add(1, Relaxed);
        run.counts.events.fetch_add(count as u64, Relaxed);
        let turn = self.core.turns.begin(&run);
        let mut failed = None; // a signal, whose handler may raise; the others are called all the same
        for event in events {
            let called = tuple(py, event).and_then(|event| match event {
                Some(event) => call.call1(event).map(drop),
                None => Ok(()),
            });
            failed = failed.or(called.err());
            turn.look();
        }
        failed.map_or(Ok(count), Err)
    }

    /// Delivers the log; the sends that Redis has answered and the calls that are over, each its number and where it went, or the answer,
    /// or an exception.
    fn drain_side<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let run = self.core.run()?;
        run.side.drain(1, &mut Vec::new()); // there is nothing in it: this makes it unreadable
        run.log.deliver(py)?;
        let list = PyList::empty(py);
        let sent = std::mem::take(&mut *self.sent.lock());
        for (number, result) in sent {
            list.append(match result {
                Ok(Done::Sent(sent)) => (number, name(sent)).into_pyobject(py)?,
                Ok(Done::Called(answer)) => (number, said(py, &answer)).into_pyobject(py)?,
                Err(error) => (number, raised(&error).into_value(py)).into_pyobject(py)?,
            })?;
        }
        Ok(list)
    }

    /// Up to most taken uplinks; is_wake when the loop was woken for them.
    fn drain_uplinks<'py>(
        &self,
        py: Python<'py>,
        most: usize,
        is_wake: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let run = self.core.run()?;
        run.counts.wakes.fetch_add(is_wake.into(), Relaxed);
        let mut events = Vec::new();
        if let Some(stream) = &run.stream {
            run.counts
                .events
                .fetch_add(stream.drain(most, &mut events) as u64, Relaxed);
        }
        let uplinks = events.into_iter().filter_map(|event| match event {
            Event::Uplink { uplink, .. } => Some(Bound::new(py, Uplink::new(uplink, None))),
            _ => None,
        });
        PyList::new(py, uplinks.collect::<PyResult<Vec<_>>>()?)
    }

    /// Looks up the levels of the loggers again.
    fn refresh_log(&self, py: Python<'_>) -> PyResult<()> {
        self.core.run()?.log.refresh(py)
    }

    /// Makes a call; its number, with which drain_side() gives the answer.
    #[pyo3(signature = (client_id, payload, r#match, ocpp, timeout))]
    fn call(
        &self,
        py: Python<'_>,
        client_id: &str,
        payload: &Bound<'_, PyAny>,
        r#match: Option<(String, Bound<'_, PyAny>)>,
        ocpp: bool,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        let run = self.core.run()?;
        let (id, payload) = (argument::client_id(client_id)?, argument::payload(payload)?);
        let matcher = call_match(py, r#match, ocpp)?;
        let timeout = timeout.map(seconds).transpose()?;
        let (sent, side) = (Arc::clone(&self.sent), Arc::clone(&run.side));
        let number = self.number();
        run.bridge
            .call_then(&id, payload, &matcher, timeout, move |result| {
                sent.lock().push_back((number, result.map(Done::Called)));
                side.wake();
            });
        Ok(number)
    }

    /// Queues a message; where it went, or a number when Redis is asked: with that drain_side() gives it.
    fn send<'py>(&self, id: &str, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = object.py();
        let (run, id, payload) = (self.core.run()?, client_id(id)?, payload(object)?);
        let sent = self
            .core
            .turns
            .during(|| run.handle.send_here(&id, payload.clone()));
        if sent.map_err(|e| raised(&e))? {
            return Ok(intern!(py, "here").clone().into_any());
        }
        let (sent, side) = (Arc::clone(&self.sent), Arc::clone(&run.side));
        let number = self.number();
        run.bridge.send_then(&id, payload, move |result| {
            sent.lock().push_back((number, result.map(Done::Sent)));
            side.wake();
        });
        Ok(number.into_pyobject(py)?.into_any())
    }

    fn reload(&self, py: Python<'_>) -> PyResult<()> {
        self.core.reload(py)
    }

    /// Drains and waits, on a thread of the caller's.
    #[pyo3(signature = (window))]
    fn drain_devices(&self, py: Python<'_>, window: f64) -> PyResult<()> {
        self.core.drain(py, window)
    }

    /// This and the next two block, with the interpreter let go: for a thread beside the loop.
    #[pyo3(signature = (client_id, payload, id, ttl))]
    fn send_kept(
        &self,
        py: Python<'_>,
        client_id: &str,
        payload: &Bound<'_, PyAny>,
        id: Option<String>,
        ttl: Option<f64>,
    ) -> PyResult<(&'static str, String, bool)> {
        self.core.send_kept(py, client_id, payload, id, ttl)
    }

    fn mailbox<'py>(&self, py: Python<'py>, client_id: &str) -> PyResult<Bound<'py, PyDict>> {
        self.core.mailbox(py, client_id)
    }

    fn clear_mailbox(&self, py: Python<'_>, client_id: &str) -> PyResult<u64> {
        self.core.clear_mailbox(py, client_id)
    }

    #[pyo3(signature = (group, payload))]
    fn send_group(&self, py: Python<'_>, group: &str, payload: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.core.send_group(py, group, payload)
    }

    #[pyo3(signature = (payload))]
    fn broadcast(&self, py: Python<'_>, payload: &Bound<'_, PyAny>) -> PyResult<u64> {
        self.core.broadcast(py, payload)
    }

    #[pyo3(signature = (client_id, group))]
    fn join_group(&self, py: Python<'_>, client_id: &str, group: &str) -> PyResult<&'static str> {
        self.core.change_group(py, client_id, group, true)
    }

    #[pyo3(signature = (client_id, group))]
    fn leave_group(&self, py: Python<'_>, client_id: &str, group: &str) -> PyResult<&'static str> {
        self.core.change_group(py, client_id, group, false)
    }

    fn groups<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.core.groups(py)
    }

    fn disconnect(&self, id: &str, code: Option<u16>, reason: Option<&str>) -> PyResult<bool> {
        self.core.disconnect(id, code, reason)
    }

    /// This and the next two block, with the interpreter let go: for a thread beside the loop.
    #[pyo3(signature = (client_id, code, reason))]
    fn kick(
        &self,
        py: Python<'_>,
        client_id: &str,
        code: Option<u16>,
        reason: Option<&str>,
    ) -> PyResult<&'static str> {
        self.core.kick(py, client_id, code, reason)
    }

    #[pyo3(signature = (client_ids))]
    fn are_online(&self, py: Python<'_>, client_ids: Vec<String>) -> PyResult<Vec<bool>> {
        self.core.are_online(py, client_ids)
    }

    fn nodes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.core.nodes(py)
    }

    fn clients(&self) -> PyResult<Vec<Client>> {
        self.core.clients()
    }

    /// This and the next three block, with the interpreter let go: for a thread beside the loop.
    #[pyo3(signature = (after, limit))]
    fn dead_letters(
        &self,
        py: Python<'_>,
        after: Option<&str>,
        limit: i64,
    ) -> PyResult<Vec<DeadLetter>> {
        self.core.dead_letters(py, after, limit)
    }

    fn dead_letter(&self, py: Python<'_>, id: &str) -> PyResult<Option<DeadLetter>> {
        self.core.dead_letter(py, id)
    }

    fn replay_dead_letter(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        self.core.replay_dead_letter(py, id)
    }

    fn drop_dead_letter(&self, py: Python<'_>, id: &str) -> PyResult<bool> {
        self.core.drop_dead_letter(py, id)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.core.stats(py)
    }

    fn status<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.core.status(py)
    }

    fn device<'py>(&self, py: Python<'py>, client_id: &str) -> PyResult<Bound<'py, PyAny>> {
        self.core.device(py, client_id)
    }

    #[pyo3(signature = (*, openmetrics=false))]
    fn metrics(&self, py: Python<'_>, openmetrics: bool) -> PyResult<String> {
        self.core.metrics(py, openmetrics)
    }

    fn resolve(&self, ticket: &Ticket, answer: &Bound<'_, PyAny>) -> PyResult<()> {
        self.core.resolve(*ticket, answer)
    }

    /// Answers the decision that an Uplink or a ConnectRequest asks for, with what its hook returned or raised. One whose
    /// time is over has failed already.
    fn settle(
        &self,
        asked: &Bound<'_, PyAny>,
        answer: &Bound<'_, PyAny>,
        is_raised: bool,
    ) -> PyResult<()> {
        let ticket = match asked.cast::<Uplink>() {
            Ok(uplink) => uplink.get().ticket(),
            Err(_) => Some(asked.cast::<ConnectRequest>()?.get().ticket()),
        };
        ticket.map_or(Ok(()), |ticket| self.core.settle(ticket, answer, is_raised))
    }

    fn setting(&self, name: String) -> PyResult<String> {
        let value = self.core.setting(&name);
        value.ok_or_else(|| PyKeyError::new_err(name))
    }

    #[getter]
    fn state(&self) -> PyResult<&'static str> {
        self.core.state()
    }

    #[getter]
    fn local_addr(&self) -> PyResult<(String, u16)> {
        self.core.local_addr()
    }

    #[getter]
    fn admin_addr(&self) -> PyResult<Option<(String, u16)>> {
        self.core.admin_addr()
    }
}

impl LoopBridge {
    fn number(&self) -> u64 {
        self.last_number.fetch_add(1, Relaxed) + 1
    }

    fn count(&self, which: impl Fn(&Counts) -> &AtomicU64) -> PyResult<()> {
        if let Some(run) = self.core.latest()? {
            which(&run.counts).fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

/// An event as the name of its hook and the arguments that gets.
fn tuple(py: Python<'_>, event: Event) -> PyResult<Option<Bound<'_, PyTuple>>> {
    let (name, args) = match event {
        Event::Authenticate { ticket, request } => {
            let request = Bound::new(py, ConnectRequest::new(*request, ticket))?;
            (intern!(py, "authenticate"), (request,).into_pyobject(py)?)
        }
        Event::Uplink { ticket, uplink } => {
            let uplink = Bound::new(py, Uplink::new(uplink, ticket))?;
            (intern!(py, "on_uplink"), (uplink,).into_pyobject(py)?)
        }
        Event::Connect(client) => {
            let args = (Client(client),).into_pyobject(py)?;
            (intern!(py, "on_connect"), args)
        }
        Event::Disconnect { client, reason } => {
            let reason = words::close_reason(py, &reason)?;
            let args = (Client(client), reason).into_pyobject(py)?;
            (intern!(py, "on_disconnect"), args)
        }
        Event::UplinkLost { uplink, reason } => {
            let args = (Uplink::new(uplink, None), reason.as_str()).into_pyobject(py)?;
            (intern!(py, "on_uplink_lost"), args)
        }
        Event::MailboxLost {
            client_id,
            reason,
            count,
        } => {
            let args = (client_id.as_str(), reason, count).into_pyobject(py)?;
            (intern!(py, "on_mailbox_lost"), args)
        }
        Event::State(state) => {
            let args = (words::state(py, &state)?,).into_pyobject(py)?;
            (intern!(py, "on_state"), args)
        }
        _ => return Ok(None),
    };
    Ok(Some((name, args).into_pyobject(py)?))
}
