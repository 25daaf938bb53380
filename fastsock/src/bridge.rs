//! The handle the host holds: start, stop, and the verbs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::runtime::Handle;

use crate::{
    config::Config,
    error::Result,
    hooks::{Answer, Hooks},
    stats::Stats,
    types::{Client, ClientId, CloseReason, Leftover, Payload, Sent, State, Ticket},
};

/// A running bridge. Clones are cheap and mean the same bridge; dropping the last one stops everything without waiting.
#[derive(Clone, Debug)]
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

    /// Queues a message for a device, here or on another gateway.
    ///
    /// # Errors
    /// `TooLarge` over 16 MiB, `OutboxFull` when the policy is `drop_newest` and the outbox here is full, `Broker` when the
    /// device is not here and Redis cannot be asked, `Stopped`.
    pub async fn send(&self, client_id: &ClientId, payload: Payload) -> Result<Sent> {
        let _ = (client_id, payload);
        todo!()
    }

    /// Closes the session of a device that is here. `false` when it is not.
    pub fn disconnect(&self, client_id: &ClientId, reason: CloseReason) -> bool {
        let _ = (client_id, reason);
        todo!()
    }

    /// Everyone who is seated here, in no order.
    pub fn clients(&self) -> Vec<Client> {
        todo!()
    }

    /// The books, true in this moment.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// What the bridge is doing.
    pub fn state(&self) -> State {
        todo!()
    }

    /// Where devices connect.
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        todo!()
    }

    /// The settings it runs with.
    pub fn config(&self) -> &Config {
        todo!()
    }

    /// Answers a decision that was put off. From any thread; never blocks.
    ///
    /// # Errors
    /// `Ticket` when it is unknown, answered already or timed out; `Argument` when the answer is of the other kind.
    pub fn resolve(&self, ticket: Ticket, answer: Answer) -> Result<()> {
        let _ = (ticket, answer);
        todo!()
    }

    /// Begins to stop without waiting; [`Bridge::stop`] then waits.
    pub fn request_stop(&self) {
        todo!()
    }

    /// Stops: closes every device with 1001, delivers what was accepted, clears presence, ends all tasks; at most
    /// `deadline` long. Says what was left. Calling it again waits for the same end.
    pub async fn stop(&self, deadline: Duration) -> Leftover {
        let _ = deadline;
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

    /// The runtime to run on; without it, the one `start` is called on.
    pub fn runtime(self, runtime: Handle) -> Self {
        let _ = runtime;
        todo!()
    }

    /// Binds the ports and starts. Devices can connect when it returns; the broker may still be connecting.
    ///
    /// # Errors
    /// `Config` for settings that contradict each other, `Bind` for a port that is taken, `Io`.
    pub async fn start(self) -> Result<Bridge> {
        todo!()
    }
}
