//! The nouns that every other file uses: devices, messages, and how sessions end.

mod client;
mod close_reason;
mod connect_request;
mod payload;
mod uplink;

use std::time::SystemTime;

pub use self::{
    client::{Client, ClientId, Presence, SessionId},
    close_reason::CloseReason,
    connect_request::{Basic, ConnectRequest, Credentials, Refusal},
    payload::Payload,
    uplink::{DeadLetter, LostReason, Uplink},
};
pub(crate) use self::{connect_request::Faults, payload::HELD_OVERHEAD_BYTES};

/// Names a decision that the host answers later, through `resolve`. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Where a sent message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// Into the outbox of a session of this bridge.
    Here,
    /// Published: Redis says that another gateway has the device.
    Elsewhere,
    /// No gateway has the device; the message is gone.
    Offline,
    /// Into the mailbox of the device, which is away.
    Kept,
}

impl Sent {
    /// The word for it: `here`, `elsewhere`, `offline` or `kept`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Elsewhere => "elsewhere",
            Self::Offline => "offline",
            Self::Kept => "kept",
        }
    }
}

/// What the mailbox of a device holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailboxState {
    /// How many messages.
    pub messages: u64,
    /// Bytes that it takes, by what holds it.
    pub bytes: u64,
    /// Since when the oldest waits; `None` when it is empty.
    pub oldest: Option<SystemTime>,
}

/// What the bridge is doing, for `state` and `on_state`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Accepting devices; the broker link is up, or the broker is embedded.
    Running,
    /// Accepting devices; the broker cannot be reached.
    Degraded,
    /// The broker link is back. What was published between these two times may not have arrived.
    Gap {
        /// The last moment the link was known to deliver.
        from: SystemTime,
        /// The moment it delivered again.
        to: SystemTime,
    },
    /// `drain` was called: nobody new is let in, and those who are here are closed one after the other.
    Draining,
    /// `stop` was called.
    Stopping,
    /// Nothing runs any more.
    Stopped,
}

impl State {
    /// The word for it in logs and bindings.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Gap { .. } => "gap",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// What `stop` left. All zero when everything was delivered in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// Sessions cut without waiting for their close handshake.
    pub sessions: u64,
    /// Uplinks that were not delivered: lost with the reason `shutdown`.
    pub uplinks: u64,
    /// Presence entries that Redis may still hold; the lease of this node removes them.
    pub presence: u64,
    /// Lifecycle events that were not delivered: lost with the reason `shutdown`.
    pub events: u64,
    /// Uplinks that a durable spool keeps; the next start delivers them. They are not lost, so `is_empty` ignores them.
    pub spooled: u64,
}

impl Leftover {
    /// Whether nothing was left undone. What a durable spool keeps does not count.
    pub fn is_empty(&self) -> bool {
        let spooled = self.spooled;
        *self
            == Self {
                spooled,
                ..Self::default()
            }
    }
}

/// Milliseconds since 1970, as the original's `Date.now()`.
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
