//! What the host can decide and what it is told.

use std::sync::Weak;

use crate::{
    error::{Error, ErrorKind, Result},
    types::{
        Client, ClientId, CloseReason, ConnectRequest, LostReason, Payload, Refusal, State, Ticket,
        Uplink,
    },
};

/// The callbacks of the embedding program. Every method has a default; `()` implements the trait.
///
/// Decisions ([`authenticate`](Hooks::authenticate), [`on_uplink`](Hooks::on_uplink)) answer
/// [`Decision::Now`], or [`Decision::Later`] with the ticket they were given, to be answered through
/// [`Bridge::resolve`](crate::Bridge::resolve) from any thread within [`Config::hook_timeout`](crate::Config).
/// Notices return nothing. All run on a task of the bridge and **must not block**; a host whose
/// answer takes time answers `Later`. Order per device: `authenticate`, `on_connect`, `on_uplink`…, `on_disconnect`; a
/// takeover's `on_disconnect(old, Replaced)` comes before `on_connect(new)`.
///
/// While `on_connect` or `on_disconnect` of a session runs, no other session of its device is told of: that is what keeps them in
/// order. So one that blocks, against the rule, holds up the next connection of that device, beside the thread it blocks.
///
/// A panic is caught where the hook is called and logged. A failed `authenticate` refuses with 503;
/// a failed `on_uplink` loses that message with the reason `hook_failed`: it is never forwarded unchecked.
pub trait Hooks: Send + Sync + 'static {
    /// The bridge is about to accept devices. Keep the handle to send from hooks later ([`WeakBridge::send_here`]).
    fn on_start(&self, bridge: &WeakBridge) {
        let _ = bridge;
    }

    /// Decides who may connect, and under which client id.
    fn authenticate(&self, request: &ConnectRequest, ticket: Ticket) -> Decision<Admission> {
        let _ = (request, ticket);
        Decision::Now(Admission::AsConfigured)
    }

    /// Decides what becomes of one message of a device.
    fn on_uplink(&self, uplink: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        let _ = (uplink, ticket);
        Decision::Now(UplinkAction::Forward)
    }

    /// A device is seated: from now on it can be sent to.
    fn on_connect(&self, client: &Client) {
        let _ = client;
    }

    /// Its session has ended. Exactly once per `on_connect`.
    fn on_disconnect(&self, client: &Client, reason: &CloseReason) {
        let _ = (client, reason);
    }

    /// An uplink was given up. Not called for [`LostReason::NoRemoteUrl`].
    fn on_uplink_lost(&self, uplink: &Uplink, reason: LostReason) {
        let _ = (uplink, reason);
    }

    /// The bridge or its broker link changed state.
    fn on_state(&self, state: &State) {
        let _ = state;
    }
}

impl Hooks for () {}

/// A bridge as its hooks hold it: what they may call without blocking, and without keeping it running.
///
/// Every call fails with [`ErrorKind::Stopped`] once the host has dropped its last [`Bridge`](crate::Bridge).
#[derive(Clone)]
pub struct WeakBridge(pub(crate) Weak<dyn HookVerbs>);

/// What the bridge lets its hooks do.
pub(crate) trait HookVerbs: Send + Sync {
    fn send_here(&self, client_id: &ClientId, payload: Payload) -> Result<bool>;
    fn disconnect(&self, client_id: &ClientId, reason: CloseReason) -> bool;
    fn resolve(&self, ticket: Ticket, answer: Answer) -> Result<()>;
}

impl WeakBridge {
    /// As [`Bridge::send_here`](crate::Bridge::send_here).
    ///
    /// # Errors
    /// As there.
    pub fn send_here(&self, client_id: &ClientId, payload: Payload) -> Result<bool> {
        self.with(|bridge| bridge.send_here(client_id, payload))
    }

    /// As [`Bridge::disconnect`](crate::Bridge::disconnect).
    pub fn disconnect(&self, client_id: &ClientId, reason: CloseReason) -> bool {
        self.with(|bridge| Ok(bridge.disconnect(client_id, reason)))
            .unwrap_or(false)
    }

    /// As [`Bridge::resolve`](crate::Bridge::resolve).
    ///
    /// # Errors
    /// As there.
    pub fn resolve(&self, ticket: Ticket, answer: Answer) -> Result<()> {
        self.with(|bridge| bridge.resolve(ticket, answer))
    }

    fn with<T>(&self, call: impl FnOnce(&dyn HookVerbs) -> Result<T>) -> Result<T> {
        match self.0.upgrade() {
            Some(bridge) => call(&*bridge),
            None => Err(Error::new(ErrorKind::Stopped, "the bridge is gone")),
        }
    }
}

impl std::fmt::Debug for WeakBridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WeakBridge")
    }
}

/// The answer of a decision: at once, later by [`Bridge::resolve`](crate::Bridge::resolve), or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<T> {
    /// Here it is.
    Now(T),
    /// It will be given for this ticket.
    Later(Ticket),
    /// There is none: the hook failed. The same as a panic in it, without the noise.
    Failed,
}

/// What `authenticate` says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// No opinion: the configured way decides.
    AsConfigured,
    /// Let in under this client id.
    Accept(ClientId),
    /// Refused.
    Reject(Refusal),
}

/// What `on_uplink` says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UplinkAction {
    /// POST it to the backend.
    Forward,
    /// The host has taken it: nothing is POSTed; counted as `dropped_by_hook`.
    Drop,
    /// POST this payload in its place.
    Replace(Payload),
    /// As `Drop`, and this payload goes back to the device.
    Reply(Payload),
}

/// What [`Bridge::resolve`](crate::Bridge::resolve) takes: the answer of one kind of decision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// For a ticket of `authenticate`.
    Admission(Admission),
    /// For a ticket of `on_uplink`.
    Uplink(UplinkAction),
    /// For a ticket of either kind: the hook failed.
    Failed,
}
