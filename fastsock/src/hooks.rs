//! What the host can decide and what it is told.

use std::{sync::Weak, time::SystemTime};

use crate::{
    auth::{Grant, Principal, Profile},
    context::Metadata,
    error::{Error, ErrorKind, Result},
    types::{
        Client, ClientId, CloseReason, ConnectRequest, LostReason, Payload, Refusal, State, Ticket,
        Uplink,
    },
};

/// The callbacks of the embedding program. Every method has a default; `()` implements the trait.
///
/// Decisions ([`authenticate`](Hooks::authenticate), [`on_uplink`](Hooks::on_uplink)) answer [`Decision::Now`], or
/// [`Decision::Later`] with the ticket that they got. The host then answers that ticket through
/// [`Bridge::resolve`](crate::Bridge::resolve), from any thread, within [`Config::hook_timeout`](crate::Config).
/// Notices return nothing. All hooks run on a task of the bridge and **must not block**; a host whose
/// answer takes time answers `Later`. Order per device: `authenticate`, `on_connect`, `on_uplink`…, `on_disconnect`. At a
/// takeover, `on_disconnect(old, Replaced)` comes before `on_connect(new)`.
///
/// While `on_connect` or `on_disconnect` of a session runs, the bridge calls neither for another session of that device: so
/// they stay in order. A hook that blocks, against the rule, delays the next connection of that device, beside the thread it blocks.
///
/// The bridge catches and logs a panic in a hook. A failed `authenticate` refuses with 503. A failed `on_uplink` loses that
/// message with the reason `hook_failed`; the bridge never forwards it unchecked.
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

    /// Decides what happens to one message of a device.
    fn on_uplink(&self, uplink: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        let _ = (uplink, ticket);
        Decision::Now(UplinkAction::Forward)
    }

    /// A device is connected: from now on the host can send to it.
    fn on_connect(&self, client: &Client) {
        let _ = client;
    }

    /// The session of a device has ended. Called exactly once per `on_connect`.
    fn on_disconnect(&self, client: &Client, reason: &CloseReason) {
        let _ = (client, reason);
    }

    /// The bridge gave up an uplink. Not called for [`LostReason::NoRemoteUrl`].
    fn on_uplink_lost(&self, uplink: &Uplink, reason: LostReason) {
        let _ = (uplink, reason);
    }

    /// Kept messages of a device are lost: `count` of them, for the reason `mailbox_full`, `mailbox_expired` or `mailbox_bad`. The device
    /// may be away, and whichever gateway finds it tells, once.
    fn on_mailbox_lost(&self, client_id: &ClientId, reason: &str, count: u64) {
        let _ = (client_id, reason, count);
    }

    /// The bridge or its broker link changed state.
    fn on_state(&self, state: &State) {
        let _ = state;
    }
}

impl Hooks for () {}

/// The handle for hooks: calls that never block. It does not keep the bridge running.
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
    /// The answer itself.
    Now(T),
    /// The host will answer this ticket.
    Later(Ticket),
    /// No answer: the hook failed. The same as a panic in it, without the log line.
    Failed,
}

/// What `authenticate` says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// No opinion: the settings decide.
    AsConfigured,
    /// The device may connect under this client id.
    Accept(ClientId),
    /// The same, with more to say of it.
    AcceptWith(Box<Accepted>),
    /// The device may not connect.
    Reject(Refusal),
}

/// Who a device is, and what goes with it.
///
/// ```
/// use fastsock::{Accepted, Admission, ClientId};
///
/// let id = ClientId::new("CP001").expect("not empty");
/// let accepted = Accepted::new(id).groups(vec!["site-7".into()]).metadata(r#"{"model":"X"}"#.parse().ok());
/// let answer: Admission = accepted.into();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accepted {
    /// The client id under which it may connect.
    pub client_id: ClientId,
    /// When the bridge closes it with 4501.
    pub expires_at: Option<SystemTime>,
    /// Its groups.
    pub groups: Vec<String>,
    /// The subprotocol to tell it. It must be one that the device offers; `fastsock.v1.ack` comes before it.
    pub subprotocol: Option<String>,
    /// What the bridge keeps with the session, and hands to hooks and the backend.
    pub metadata: Option<Metadata>,
}

impl Accepted {
    /// A client id and nothing else.
    pub fn new(client_id: ClientId) -> Self {
        Self {
            client_id,
            expires_at: None,
            groups: Vec::new(),
            subprotocol: None,
            metadata: None,
        }
    }

    /// Sets when the bridge closes it.
    #[must_use]
    pub fn expires_at(mut self, at: Option<SystemTime>) -> Self {
        self.expires_at = at;
        self
    }

    /// Sets its groups.
    #[must_use]
    pub fn groups(mut self, groups: Vec<String>) -> Self {
        self.groups = groups;
        self
    }

    /// Sets the subprotocol to tell it.
    #[must_use]
    pub fn subprotocol(mut self, subprotocol: Option<String>) -> Self {
        self.subprotocol = subprotocol;
        self
    }

    /// Sets what the bridge keeps with the session.
    #[must_use]
    pub fn metadata(mut self, metadata: Option<Metadata>) -> Self {
        self.metadata = metadata;
        self
    }
}

impl Accepted {
    /// Whether it says that the bridge closes the session before it begins.
    pub(crate) fn is_over(&self) -> bool {
        self.expires_at.is_some_and(|at| at <= SystemTime::now())
    }

    /// Who is let in by it.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    pub(crate) fn into_principal(self) -> Result<Principal, String> {
        let profile = Profile {
            groups: self.groups,
            subprotocol: self.subprotocol,
            metadata: self.metadata,
        };
        Ok(Principal {
            client_id: self.client_id,
            grant: self.expires_at.map(|at| Box::new(Grant::until(at))),
            profile: profile.checked()?,
        })
    }
}

impl From<Accepted> for Admission {
    fn from(accepted: Accepted) -> Self {
        Self::AcceptWith(Box::new(accepted))
    }
}

/// What `on_uplink` says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UplinkAction {
    /// POSTs it to the backend.
    Forward,
    /// The host has taken it: the bridge POSTs nothing, and counts it as `dropped_by_hook`.
    Drop,
    /// POSTs this payload in its place.
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
