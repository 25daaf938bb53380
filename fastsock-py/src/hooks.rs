//! The hooks of a `Bridge`: Python callables by name.

use fastsock::events::Uplinks;
use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyTypeError},
    intern,
    prelude::*,
};

use crate::error::bad_argument;

/// Which hooks there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    pub(crate) authenticate: bool,
    pub(crate) uplinks: Uplinks,
    pub(crate) notices: bool,
    /// Whether an event loop drains. Then taken uplinks have a queue of their own, so that a reader who is slow holds up no
    /// decision, and the log and finished sends another, so that busy hooks hold up neither.
    pub(crate) is_for_loop: bool,
}

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Authenticate,
    Connect,
    Uplink,
    Uplinks,
    Disconnect,
    UplinkLost,
    MailboxLost,
    State,
    Error,
}

impl Hook {
    /// Each of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 9] = [
        Self::Authenticate,
        Self::Connect,
        Self::Uplink,
        Self::Uplinks,
        Self::Disconnect,
        Self::UplinkLost,
        Self::MailboxLost,
        Self::State,
        Self::Error,
    ];

    /// Its name in Python.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Connect => "on_connect",
            Self::Uplink => "on_uplink",
            Self::Uplinks => "on_uplinks",
            Self::Disconnect => "on_disconnect",
            Self::UplinkLost => "on_uplink_lost",
            Self::MailboxLost => "on_mailbox_lost",
            Self::State => "on_state",
            Self::Error => "on_error",
        }
    }
}

/// Each hook that was given.
#[derive(Default)]
pub(crate) struct HookSet([Option<Py<PyAny>>; 9]);

impl HookSet {
    /// A hook, if it was given.
    pub(crate) fn get(&self, hook: Hook) -> Option<&Py<PyAny>> {
        self.0[hook as usize].as_ref()
    }

    /// Takes a hook.
    ///
    /// # Errors
    /// A `TypeError` for what cannot be called on a thread, an `ArgumentError` when it is there already or another one takes
    /// the uplinks.
    pub(crate) fn set(&mut self, hook: Hook, function: &Bound<'_, PyAny>) -> PyResult<()> {
        let name = hook.name();
        if !function.is_callable() {
            return Err(PyTypeError::new_err(format!("{name} is not callable")));
        }
        if let Some(kind) = what_runs_nothing(function)? {
            let text = match kind {
                Kind::Coroutine => format!(
                    "{name} is a coroutine function, and Bridge calls its hooks on a thread; use AsyncBridge"
                ),
                Kind::Generator => {
                    format!("{name} is a generator function: calling it runs nothing of it")
                }
            };
            return Err(PyTypeError::new_err(text));
        }
        if self.get(hook).is_some() {
            return Err(bad_argument(format!("there is an {name} already")));
        }
        let has = |other| self.get(other).is_some();
        if hook == Hook::Uplink && has(Hook::Uplinks) || hook == Hook::Uplinks && has(Hook::Uplink)
        {
            return Err(bad_argument("on_uplink and on_uplinks exclude each other"));
        }
        self.0[hook as usize] = Some(function.clone().unbind());
        Ok(())
    }

    /// What a run with them has to ask and tell.
    pub(crate) fn wants(&self) -> Wants {
        let has = |hook| self.get(hook).is_some();
        let notices = [
            Hook::Connect,
            Hook::Disconnect,
            Hook::UplinkLost,
            Hook::MailboxLost,
            Hook::State,
        ];
        Wants {
            authenticate: has(Hook::Authenticate),
            uplinks: match (has(Hook::Uplink), has(Hook::Uplinks)) {
                (true, _) => Uplinks::Decide,
                (_, true) => Uplinks::Take,
                _ => Uplinks::Off,
            },
            notices: notices.into_iter().any(has),
            is_for_loop: false,
        }
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self(
            self.0
                .each_ref()
                .map(|hook| hook.as_ref().map(|hook| hook.clone_ref(py))),
        )
    }

    /// For the garbage collector: hooks often hold the bridge.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.iter().try_for_each(|hook| visit.call(hook))
    }
}

/// What a call makes of a function instead of running it.
enum Kind {
    Coroutine,
    Generator,
}

fn what_runs_nothing(function: &Bound<'_, PyAny>) -> PyResult<Option<Kind>> {
    let py = function.py();
    let inspect = py.import(intern!(py, "inspect"))?;
    let called = function.getattr(intern!(py, "__call__"))?;
    for (test, kind) in [
        ("iscoroutinefunction", Kind::Coroutine),
        ("isasyncgenfunction", Kind::Generator),
        ("isgeneratorfunction", Kind::Generator),
    ] {
        let test = inspect.getattr(test)?;
        if test.call1((function,))?.is_truthy()? || test.call1((&called,))?.is_truthy()? {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// What is wrong with the result of a hook that should have done its work by now.
///
/// # Errors
/// A `TypeError` for a coroutine or a generator, which nobody will ever run.
pub(crate) fn check_has_run(hook: Hook, result: &Bound<'_, PyAny>) -> PyResult<()> {
    if result.is_none() {
        return Ok(());
    }
    let py = result.py();
    let inspect = py.import(intern!(py, "inspect"))?;
    for (test, what) in [
        ("iscoroutine", "a coroutine"),
        ("isasyncgen", "a generator"),
        ("isgenerator", "a generator"),
    ] {
        if inspect.call_method1(test, (result,))?.is_truthy()? {
            if what == "a coroutine" {
                result.call_method0(intern!(py, "close"))?; // or Python complains that it was never awaited
            }
            let name = hook.name();
            return Err(PyTypeError::new_err(format!(
                "{name} returned {what}, of which nothing has run"
            )));
        }
    }
    Ok(())
}

/// A call on a bridge of a subclass that forgot its base.
pub(crate) fn not_made() -> PyErr {
    PyRuntimeError::new_err("the __init__() of the bridge was not called")
}
