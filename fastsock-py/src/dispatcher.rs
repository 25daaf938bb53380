//! The one thread that calls the hooks of a `Bridge`. It stays attached to the interpreter's thread state it got at its
//! start, lets go of the interpreter only while it waits, and drains in batches: attaching anew for each message would cost
//! ten times what a hook does.

use std::{
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::Builder,
    time::{Duration, Instant},
};

use fastsock::{Answer, Ticket, UplinkAction, events::Event};
use pyo3::{
    prelude::*,
    types::{PyList, PyWeakrefMethods, PyWeakrefReference},
};

use crate::{
    error::report,
    hooks::{Hook, HookSet, check_has_run},
    objects::{Client, ConnectRequest, Uplink},
    question::Question,
    run::{Busy, Run},
    signals::Blocked,
    words,
};

/// How the hooks of a bridge are found; `None` when it is none.
pub(crate) type Hooks = fn(&Bound<'_, PyAny>) -> Option<HookSet>;

/// Starts the thread. It ends when the run's queue is closed and drained, or its bridge was collected.
pub(crate) fn start(bridge: &Bound<'_, PyAny>, hooks: Hooks, run: Arc<Run>) -> PyResult<()> {
    let py = bridge.py();
    let weak = PyWeakrefReference::new(bridge)?.unbind();
    let busy = run.busy();
    let _blocked = Blocked::new();
    let spawned = py.detach(|| {
        Builder::new()
            .name("fastsock-hooks".into())
            .spawn(move || Dispatcher::run(&run, &weak, hooks, busy))
    });
    spawned.map(drop).map_err(Into::into)
}

struct Dispatcher<'a, 'py> {
    py: Python<'py>,
    run: &'a Run,
    bridge: Bound<'py, PyWeakrefReference>,
    hooks: Hooks,
    refreshed: Instant,
}

impl<'py> Dispatcher<'_, 'py> {
    fn run(run: &Arc<Run>, bridge: &Py<PyWeakrefReference>, hooks: Hooks, busy: Option<Busy>) {
        run.adopt_dispatcher();
        #[cfg(target_os = "linux")] // so that a pause is as short as it is meant to be
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1000));
        Python::attach(|py| {
            run.counts.attaches.fetch_add(1, Relaxed);
            let mut dispatcher = Dispatcher {
                py,
                run,
                bridge: bridge.bind(py).clone(),
                hooks,
                refreshed: Instant::now(),
            };
            dispatcher.serve();
        });
        drop(busy); // all hooks have returned
    }

    fn serve(&mut self) {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            // Asked before draining: what comes in until then is drained below, and nothing comes after.
            let is_closed = self.run.queue.is_closed();
            let count = self.run.queue.drain_on(BATCH, &mut events);
            let records = self.run.log.deliver(self.py).unwrap_or(0);
            if count > 0 {
                let Some(bridge) = self.bridge.upgrade() else {
                    return;
                };
                let Some(hooks) = (self.hooks)(&bridge) else {
                    return;
                };
                self.run.counts.events.fetch_add(count as u64, Relaxed);
                let has_decisions = self.call_all(&hooks, &mut events);
                if !is_closed {
                    self.gather(count, has_decisions);
                }
            } else if records == 0 {
                if is_closed {
                    return;
                }
                self.wait();
            }
        }
    }

    /// Lets more come in when much does: a wake-up for every few of them would cost more than what they came for. Who is
    /// alone is never kept waiting.
    fn gather(&self, count: usize, has_decisions: bool) {
        let (busy, pause) = if has_decisions {
            (BUSY_DECIDING, PAUSE_DECIDING)
        } else {
            (BUSY, PAUSE)
        };
        if (busy..BATCH).contains(&count) {
            self.py.detach(|| std::thread::sleep(pause));
        }
    }

    /// Lets go of the interpreter until something comes, and sees whether the levels of the log have changed.
    fn wait(&mut self) {
        if self.refreshed.elapsed() >= LEVELS_AGE {
            self.refreshed = Instant::now();
            if let Err(error) = self.run.log.refresh(self.py) {
                error.write_unraisable(self.py, None);
            }
        }
        self.run.counts.wakes.fetch_add(1, Relaxed);
        self.py.detach(|| self.run.queue.wait(LEVELS_AGE));
    }

    /// Returns whether a device may be waiting for what came of it.
    fn call_all(&self, hooks: &HookSet, events: &mut Vec<Event>) -> bool {
        let mut has_decisions = false;
        let mut taken = Vec::new();
        for event in events.drain(..) {
            if self.run.is_shut() {
                self.fail(&event);
                continue;
            }
            match event {
                Event::Uplink {
                    ticket: None,
                    uplink,
                } => taken.push(uplink),
                event => {
                    has_decisions = true;
                    self.hand_over(hooks, &mut taken); // before what came later
                    self.call(hooks, event);
                }
            }
        }
        self.hand_over(hooks, &mut taken);
        has_decisions
    }

    fn call(&self, hooks: &HookSet, event: Event) {
        let py = self.py;
        match event {
            Event::Uplink {
                ticket: Some(ticket),
                uplink,
            } => {
                let Some(hook) = hooks.get(Hook::Uplink) else {
                    return self.answer(ticket, Answer::Failed);
                };
                let result = Bound::new(py, Uplink::new(uplink, Some(ticket)))
                    .and_then(|uplink| hook.bind(py).call1((uplink,)));
                self.decide(hooks, Question::OnUplink, hook, ticket, result);
            }
            Event::Authenticate { ticket, request } => {
                let Some(hook) = hooks.get(Hook::Authenticate) else {
                    return self.answer(ticket, Answer::Failed);
                };
                let result = Bound::new(py, ConnectRequest::new(*request, ticket))
                    .and_then(|request| hook.bind(py).call1((request,)));
                self.decide(hooks, Question::Authenticate, hook, ticket, result);
            }
            Event::Connect(client) => {
                self.tell(hooks, Hook::Connect, |hook| hook.call1((Client(client),)));
            }
            Event::Disconnect { client, reason } => {
                self.tell(hooks, Hook::Disconnect, |hook| {
                    hook.call1((Client(client), words::close_reason(py, &reason)?))
                });
            }
            Event::UplinkLost { uplink, reason } => {
                self.tell(hooks, Hook::UplinkLost, |hook| {
                    hook.call1((Uplink::new(uplink, None), reason.as_str()))
                });
            }
            Event::MailboxLost {
                client_id,
                reason,
                count,
            } => {
                self.tell(hooks, Hook::MailboxLost, |hook| {
                    hook.call1((client_id.as_str(), reason, count))
                });
            }
            Event::State(state) => {
                self.tell(hooks, Hook::State, |hook| {
                    hook.call1((words::state(py, &state)?,))
                });
            }
            _ => {}
        }
    }

    /// Gives the uplinks that the host takes to `on_uplinks`.
    fn hand_over(&self, hooks: &HookSet, taken: &mut Vec<fastsock::Uplink>) {
        if taken.is_empty() {
            return;
        }
        let count = taken.len() as u64;
        let objects: PyResult<Vec<_>> = taken
            .drain(..)
            .map(|uplink| Bound::new(self.py, Uplink::new(uplink, None)))
            .collect();
        let is_done = self.tell(hooks, Hook::Uplinks, |hook| {
            hook.call1((PyList::new(self.py, objects?)?,))
        });
        if !is_done {
            self.run.counts.uplinks_failed.fetch_add(count, Relaxed);
        }
    }

    /// Returns whether the hook has done it.
    fn tell(
        &self,
        hooks: &HookSet,
        hook: Hook,
        call: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
    ) -> bool {
        let Some(function) = hooks.get(hook) else {
            return true;
        };
        let result = call(function.bind(self.py));
        let result = result.and_then(|result| check_has_run(hook, &result));
        result
            .map_err(|error| self.report(hooks, error, hook.name(), function))
            .is_ok()
    }

    fn decide(
        &self,
        hooks: &HookSet,
        question: Question,
        hook: &Py<PyAny>,
        ticket: Ticket,
        result: PyResult<Bound<'py, PyAny>>,
    ) {
        match question.read(result) {
            // Giving it is work that needs no interpreter. What goes back to the device is given here and now, before
            // what a later hook sends it.
            Ok(Some(answer @ Answer::Uplink(UplinkAction::Forward | UplinkAction::Drop))) => {
                self.run.handle.resolve_soon(ticket, answer);
            }
            Ok(Some(answer)) => self.answer(ticket, answer),
            Ok(None) => {} // resolve() will
            Err(error) => {
                self.answer(ticket, Answer::Failed);
                self.report(hooks, error, question.name(), hook);
            }
        }
    }

    fn fail(&self, event: &Event) {
        match event {
            Event::Uplink { ticket: None, .. } => {
                self.run.counts.uplinks_failed.fetch_add(1, Relaxed);
            }
            event => {
                if let Some(ticket) = event.ticket() {
                    self.answer(ticket, Answer::Failed);
                }
            }
        }
    }

    /// A decision whose time is over has failed already: then this answer does not count.
    fn answer(&self, ticket: Ticket, answer: Answer) {
        let _ = self.run.handle.resolve(ticket, answer);
    }

    fn report(&self, hooks: &HookSet, error: PyErr, name: &'static str, hook: &Py<PyAny>) {
        self.run.counts.hook_errors.fetch_add(1, Relaxed);
        let on_error = hooks.get(Hook::Error).map(|hook| hook.bind(self.py));
        report(self.py, error, name, Some(hook.bind(self.py)), on_error);
    }
}

/// Events drained at once: enough to share the cost of the lock, few enough that a stop is soon seen.
const BATCH: usize = 256;
/// How long a change of a logger's level may take to be seen.
const LEVELS_AGE: Duration = Duration::from_secs(1);
/// So many events at once are a stream, and more of it is worth a pause.
const BUSY: usize = 4;
const PAUSE: Duration = Duration::from_micros(150);
/// The same where each device waits for its answer before it says more.
const BUSY_DECIDING: usize = 12;
const PAUSE_DECIDING: Duration = Duration::from_micros(40);
