//! What the bridge is doing, and telling the host of it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use crate::{
    broker::LinkChange, hooks::Hooks, locks::Mutex, stats::Running, trace::Tracer, types::State,
};

/// The stage of a bridge and of its broker link, and the hooks that hear of changes.
pub(crate) struct Status {
    stage: Mutex<Stage>,
    hooks: Option<Arc<dyn Hooks>>,
    /// Who else hears of gaps.
    gaps: OnceLock<GapListener>,
    pub(crate) running: Arc<Running>,
    /// Who follows a device.
    pub(crate) tracer: Arc<Tracer>,
}

type GapListener = Box<dyn Fn(SystemTime, SystemTime) + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running { is_linked: bool, is_draining: bool },
    Stopping,
    Stopped,
}

impl Status {
    pub(crate) fn new(hooks: Option<Arc<dyn Hooks>>, running: Arc<Running>) -> Self {
        Self {
            stage: Mutex::new(Stage::Running {
                is_linked: true,
                is_draining: false,
            }),
            hooks,
            gaps: OnceLock::new(),
            running,
            tracer: Arc::default(),
        }
    }

    /// Calls this too at each gap; set once.
    pub(crate) fn listen_for_gaps(&self, listener: GapListener) {
        let _ = self.gaps.set(listener);
    }

    pub(crate) fn state(&self) -> State {
        match *self.stage.lock() {
            Stage::Running {
                is_draining: true, ..
            } => State::Draining,
            Stage::Running {
                is_linked: true, ..
            } => State::Running,
            Stage::Running {
                is_linked: false, ..
            } => State::Degraded,
            Stage::Stopping => State::Stopping,
            Stage::Stopped => State::Stopped,
        }
    }

    pub(crate) fn link_changed(&self, change: LinkChange) {
        let changed = {
            let mut stage = self.stage.lock();
            let Stage::Running {
                is_linked,
                is_draining,
            } = &mut *stage
            else {
                return;
            };
            let is_other = match change {
                LinkChange::Up => !std::mem::replace(is_linked, true),
                LinkChange::Down => std::mem::replace(is_linked, false),
                // Downlinks arrive again; what else the broker is for may still be away.
                LinkChange::Gap { .. } => false,
            };
            is_other && !*is_draining
        };
        if let LinkChange::Gap { from, to } = change {
            self.gap(from, to);
        } else if changed {
            self.tell(&self.state());
        }
    }

    /// Tells that downlinks of this span may not have arrived.
    pub(crate) fn gap(&self, from: SystemTime, to: SystemTime) {
        self.tell(&State::Gap { from, to });
        if let Some(listener) = self.gaps.get() {
            listener(from, to);
        }
    }

    /// `true` for the first who says so, if nobody has said that it stops.
    pub(crate) fn draining(&self) -> bool {
        match &mut *self.stage.lock() {
            Stage::Running { is_draining, .. } if !*is_draining => *is_draining = true,
            _ => return false,
        }
        self.tell(&State::Draining);
        true
    }

    /// `true` for the first who says so.
    pub(crate) fn stopping(&self) -> bool {
        {
            let mut stage = self.stage.lock();
            if !matches!(*stage, Stage::Running { .. }) {
                return false;
            }
            *stage = Stage::Stopping;
        }
        self.tell(&State::Stopping);
        true
    }

    pub(crate) fn stopped(&self) {
        *self.stage.lock() = Stage::Stopped;
        self.tracer.end();
        self.tell(&State::Stopped);
    }

    /// Calls a hook, if there are any; a panic in it is caught, logged and counted, and comes out as `None`.
    pub(crate) fn hook<T>(
        &self,
        name: &'static str,
        call: impl FnOnce(&dyn Hooks) -> T,
    ) -> Option<T> {
        let hooks = self.hooks.as_deref()?;
        let result = catch_unwind(AssertUnwindSafe(|| call(hooks)));
        if result.is_err() {
            self.running.hooks_failed.add(1);
            tracing::error!(hook = name, "a hook panicked");
        }
        result.ok()
    }

    pub(crate) fn has_hooks(&self) -> bool {
        self.hooks.is_some()
    }

    fn tell(&self, state: &State) {
        self.hook("on_state", |hooks| hooks.on_state(state));
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Status({})", self.state().as_str())
    }
}
