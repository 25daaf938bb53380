//! `fastsock_bridge`: the handle, and what each call for it checks first.

use std::{
    ptr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use fastsock::{Answer, Leftover, Ticket, blocking, events::EventQueue};
use safer_ffi::derive_ReprC;
use tracing::{Dispatch, dispatcher::DefaultGuard};

use crate::{
    event::{Batch, fastsock_event},
    fork::Birthplace,
    gate::{Gate, lock},
    guard::{Inside, inside},
    status::{Failure, fastsock_status},
    userdata::Userdata,
};

/// A running bridge. Any thread may call its functions, several at once; only free must be the last call. Who starts it owns it; a
/// `const fastsock_bridge *`, such as hooks get, is only lent: it cannot be stopped, drained or freed.
#[derive_ReprC]
#[repr(opaque)]
pub struct fastsock_bridge {
    pub(crate) core: OnceLock<blocking::Bridge>,
    pub(crate) queue: EventQueue,
    /// Whether the host drains the queue itself; else the thread of the hooks does.
    pub(crate) is_polled: bool,
    /// What the last poll gave out.
    pub(crate) batch: Mutex<Batch>,
    pub(crate) gate: Gate,
    pub(crate) dispatcher: Mutex<Option<JoinHandle<()>>>,
    pub(crate) notices_failed: AtomicU64,
    log: Option<Dispatch>,
    pub(crate) userdata: Arc<Userdata>,
    birthplace: Birthplace,
}

/// A call that has passed the checks at the border.
pub(crate) struct Entered<'a> {
    pub(crate) bridge: &'a fastsock_bridge,
    pub(crate) core: &'a blocking::Bridge,
    /// What this call logs goes to the bridge's callback.
    _log: Option<DefaultGuard>,
}

impl Entered<'_> {
    pub(crate) fn resolve(&self, ticket: u64, answer: Answer) -> Result<(), Failure> {
        Ok(self.core.resolve(Ticket(ticket), answer)?)
    }
}

impl fastsock_bridge {
    /// One that has not started.
    pub(crate) fn new(
        queue: EventQueue,
        is_polled: bool,
        log: Option<Dispatch>,
        userdata: Arc<Userdata>,
    ) -> Self {
        Self {
            core: OnceLock::new(),
            queue,
            is_polled,
            batch: Mutex::default(),
            gate: Gate::default(),
            dispatcher: Mutex::default(),
            notices_failed: AtomicU64::new(0),
            log,
            userdata,
            birthplace: Birthplace::new(),
        }
    }

    /// Checks what each call checks: NULL, a fork, a callback.
    pub(crate) fn enter(bridge: Option<&Self>) -> Result<Entered<'_>, Failure> {
        let bridge = bridge.ok_or_else(|| Failure::null("bridge"))?;
        if !bridge.birthplace.is_here() {
            return Err(Failure::new(
                fastsock_status::FORKED,
                "the bridge belongs to the process that was forked",
            ));
        }
        if inside() == Inside::Callback {
            return Err(Self::refused("any function of a bridge"));
        }
        let core = bridge.core.get();
        let core = core
            .ok_or_else(|| Failure::new(fastsock_status::STOPPED, "the bridge has not started"))?;
        Ok(Entered {
            bridge,
            core,
            _log: bridge.log.as_ref().map(tracing::dispatcher::set_default),
        })
    }

    /// Answers a ticket for the queue or a hook.
    pub(crate) fn answer(&self, ticket: Ticket, answer: Answer) -> fastsock::Result<()> {
        self.core
            .get()
            .map_or(Ok(()), |core| core.resolve(ticket, answer))
    }

    /// Stops the bridge, then the hooks. Each may be called again, and waits for the same end.
    pub(crate) fn stop(&self, deadline: Duration) -> Result<Leftover, Failure> {
        self.refuse_in_hook("fastsock_bridge_stop and fastsock_bridge_free")?;
        let until = Instant::now() + deadline;
        let Some(core) = self.core.get() else {
            return Ok(Leftover::default());
        };
        let leftover = core.stop(deadline);
        self.queue.close();
        let Some(thread) = lock(&self.dispatcher).take() else {
            return self
                .gate
                .wait_finished(until, self.is_polled)
                .map(|()| leftover);
        };
        if let Err(failure) = self.gate.wait_finished(until, false) {
            *lock(&self.dispatcher) = Some(thread); // a later stop may join it
            return Err(failure);
        }
        // It is past its last line; a panic there was logged by itself.
        let _ = thread.join();
        Ok(leftover)
    }

    /// Refuses what waits for hooks inside one of this bridge.
    pub(crate) fn refuse_in_hook(&self, what: &str) -> Result<(), Failure> {
        match inside() == Inside::Hook(ptr::from_ref(self).cast()) {
            true => Err(Self::refused(what)),
            false => Ok(()),
        }
    }

    /// Counts and logs a notice whose hook failed.
    pub(crate) fn notice_failed(&self, event: &fastsock_event) {
        self.notices_failed.fetch_add(1, Relaxed);
        tracing::warn!(event_type = event.r#type, "Hook of a notice failed");
    }

    /// What the dispatching thread logs goes to the bridge's callback.
    pub(crate) fn log(&self) -> Option<&Dispatch> {
        self.log.as_ref()
    }

    pub(crate) fn check_polled(&self) -> Result<(), Failure> {
        if self.is_polled {
            return Ok(());
        }
        Err(Failure::argument(
            "the bridge was not started with FASTSOCK_DELIVERY_EVENTS",
        ))
    }

    pub(crate) fn refused(what: &str) -> Failure {
        Failure::new(
            fastsock_status::HOOK,
            format!("{what} cannot be called inside this callback: it would wait for itself"),
        )
    }
}
