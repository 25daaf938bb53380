//! The hooks of a `Bridge`: Python callables by name.

use pyo3::{PyTraverseError, PyVisit, exceptions::PyTypeError, prelude::*};

/// Each hook that was given.
#[derive(Default)]
pub(crate) struct HookSet {
    pub(crate) authenticate: Option<Py<PyAny>>,
    pub(crate) on_connect: Option<Py<PyAny>>,
    pub(crate) on_uplink: Option<Py<PyAny>>,
    pub(crate) on_uplinks: Option<Py<PyAny>>,
    pub(crate) on_disconnect: Option<Py<PyAny>>,
    pub(crate) on_uplink_lost: Option<Py<PyAny>>,
    pub(crate) on_state: Option<Py<PyAny>>,
    pub(crate) on_error: Option<Py<PyAny>>,
}

impl HookSet {
    fn all(&self) -> [(&'static str, &Option<Py<PyAny>>); 8] {
        [
            ("authenticate", &self.authenticate),
            ("on_connect", &self.on_connect),
            ("on_uplink", &self.on_uplink),
            ("on_uplinks", &self.on_uplinks),
            ("on_disconnect", &self.on_disconnect),
            ("on_uplink_lost", &self.on_uplink_lost),
            ("on_state", &self.on_state),
            ("on_error", &self.on_error),
        ]
    }

    /// # Errors
    /// A `TypeError` for a hook that cannot be called.
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        for (name, hook) in self.all() {
            if let Some(hook) = hook
                && !hook.bind(py).is_callable()
            {
                return Err(PyTypeError::new_err(format!("{name} is not callable")));
            }
        }
        Ok(())
    }

    /// Whether any of them is told something.
    pub(crate) fn has_notices(&self) -> bool {
        let notices = [
            &self.on_connect,
            &self.on_disconnect,
            &self.on_uplink_lost,
            &self.on_state,
        ];
        notices.into_iter().any(Option::is_some)
    }

    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        let clone = |hook: &Option<Py<PyAny>>| hook.as_ref().map(|hook| hook.clone_ref(py));
        Self {
            authenticate: clone(&self.authenticate),
            on_connect: clone(&self.on_connect),
            on_uplink: clone(&self.on_uplink),
            on_uplinks: clone(&self.on_uplinks),
            on_disconnect: clone(&self.on_disconnect),
            on_uplink_lost: clone(&self.on_uplink_lost),
            on_state: clone(&self.on_state),
            on_error: clone(&self.on_error),
        }
    }

    /// For the garbage collector: hooks often hold the bridge.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.all()
            .into_iter()
            .try_for_each(|(_, hook)| visit.call(hook))
    }
}
