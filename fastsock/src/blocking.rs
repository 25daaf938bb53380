//! The same handle owning its runtime, for C, Python and hosts without one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{
    config::Config,
    error::Result,
    hooks::{Answer, Hooks},
    stats::Stats,
    types::{Client, ClientId, CloseReason, Leftover, Payload, Sent, State, Ticket},
};

/// A running bridge with a runtime of its own. The calls block the calling thread where they say so; none may be
/// called from a task of an async runtime, nor from a hook (except `resolve`, `disconnect`, `stats`, `clients`, `state`).
#[derive(Debug)]
pub struct Bridge {}

/// How to start a [`Bridge`].
#[derive(Debug)]
#[must_use]
pub struct Builder {}

impl Bridge {
    /// Begins with these settings and no hooks.
    pub fn builder(config: Config) -> Builder {
        let _ = config;
        todo!()
    }

    /// As [`crate::Bridge::send`]; blocks while Redis is asked when the device is not here.
    pub fn send(&self, client_id: &ClientId, payload: Payload) -> Result<Sent> {
        let _ = (client_id, payload);
        todo!()
    }

    /// As [`crate::Bridge::disconnect`].
    pub fn disconnect(&self, client_id: &ClientId, reason: CloseReason) -> bool {
        let _ = (client_id, reason);
        todo!()
    }

    /// As [`crate::Bridge::clients`].
    pub fn clients(&self) -> Vec<Client> {
        todo!()
    }

    /// As [`crate::Bridge::stats`].
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// As [`crate::Bridge::state`].
    pub fn state(&self) -> State {
        todo!()
    }

    /// As [`crate::Bridge::local_addr`].
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }

    /// As [`crate::Bridge::admin_addr`].
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        todo!()
    }

    /// As [`crate::Bridge::resolve`].
    pub fn resolve(&self, ticket: Ticket, answer: Answer) -> Result<()> {
        let _ = (ticket, answer);
        todo!()
    }

    /// As [`crate::Bridge::request_stop`].
    pub fn request_stop(&self) {
        todo!()
    }

    /// As [`crate::Bridge::stop`]; blocks until everything has ended, the threads of the runtime too.
    pub fn stop(&self, deadline: Duration) -> Leftover {
        let _ = deadline;
        todo!()
    }

    /// The async handle of the same bridge.
    pub fn handle(&self) -> crate::Bridge {
        todo!()
    }
}

impl Builder {
    /// The callbacks. See [`Hooks`].
    pub fn hooks(self, hooks: impl Hooks) -> Self {
        self.shared_hooks(Arc::new(hooks))
    }

    /// The same, shared with the host.
    pub fn shared_hooks(self, hooks: Arc<dyn Hooks>) -> Self {
        let _ = hooks;
        todo!()
    }

    /// Threads of the runtime, 1 to 64; the default is 2.
    pub fn workers(self, workers: usize) -> Self {
        let _ = workers;
        todo!()
    }

    /// Runs on each thread of the runtime as it starts, before anything else; for signal masks and names.
    pub fn on_thread_start(self, f: impl Fn() + Send + Sync + 'static) -> Self {
        let _ = f;
        todo!()
    }

    /// Starts the runtime and the bridge. Blocks until the ports are bound.
    ///
    /// # Errors
    /// As [`crate::Builder::start`].
    pub fn start(self) -> Result<Bridge> {
        todo!()
    }
}
