//! A message of a device, and what becomes of one that the bridge gives up.

use std::{fmt, sync::Arc, time::SystemTime};

use super::{
    client::{ClientId, SessionId},
    payload::Payload,
};
use crate::context::Context;

/// One message from a device to the backend.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Uplink {
    /// The device that sent it.
    pub client_id: ClientId,
    /// The session over which it came.
    pub session_id: SessionId,
    /// The epoch of that session: higher than those of the device's sessions before it, over all gateways that share a Redis and over
    /// restarts. 0 when the spool has it from a version that had none.
    pub epoch: u64,
    /// Its number within the session, from 1.
    pub seq: u64,
    /// The message itself.
    pub payload: Payload,
    /// A UUIDv7 that the bridge makes when it reads the frame, or a UUIDv8 of the client id and the name that the device gave the
    /// message. The `Idempotency-Key` of every attempt to deliver it.
    pub id: uuid::Uuid,
    /// When the bridge read the frame.
    pub received_at: SystemTime,
    /// What is known of the session that sent it, if there is more to know than its name.
    pub context: Option<Arc<Context>>,
    /// When it was replayed as a dead letter, if it ever was: its age counts from then.
    pub(crate) replayed_at: Option<SystemTime>,
}

impl Uplink {
    /// A message read now, with an id of its own. Bridges make them; others may, for tests of their hooks.
    pub fn new(client_id: ClientId, session_id: SessionId, seq: u64, payload: Payload) -> Self {
        Self {
            client_id,
            session_id,
            epoch: 0,
            seq,
            payload,
            id: uuid::Uuid::now_v7(),
            received_at: SystemTime::now(),
            context: None,
            replayed_at: None,
        }
    }
}

/// An uplink that the bridge gave up. It keeps it until the host replays or drops it, or it is too old; with the memory spool at
/// the longest until the process ends.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The message itself; its `id` is also the id of the letter.
    pub uplink: Uplink,
    /// Why the bridge gave it up: `Rejected`, `Poison` or `TooOld`.
    pub reason: LostReason,
    /// The status of the last attempt, if the backend answered it.
    pub status: Option<u16>,
    /// What went wrong in the last attempt, in words.
    pub error: String,
    /// POSTs made of it since this process took it or found it in the spool.
    pub attempts: u32,
    /// When the first of them began.
    pub first_attempt_at: Option<SystemTime>,
    /// When the last of them ended.
    pub last_attempt_at: Option<SystemTime>,
    /// When the bridge gave it up.
    pub given_up_at: SystemTime,
    /// The headers of the last POST; values that may be secret are `***`.
    pub headers: Vec<(String, String)>,
}

impl DeadLetter {
    /// How many dead letters an operator or a binding may ask for at once.
    pub const MAX_LISTED: usize = 1000;
}

/// Why the bridge gave up an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// No `REMOTE_URL` is set and no hook took it.
    NoRemoteUrl,
    /// `on_uplink` failed or did not answer in time.
    HookFailed,
    /// The backend refused this message for good.
    Rejected,
    /// The backend failed on this message again and again while it took others.
    Poison,
    /// It grew older than the age limit.
    TooOld,
    /// The lane was full and `uplink_full` is `drop_oldest`.
    Full,
    /// It was still waiting when the bridge stopped.
    Shutdown,
    /// Redis lost it: the spool there was emptied, or replaced by an empty one. Only its number is known.
    Spool,
}

impl LostReason {
    /// All reasons, in the order of the statistics.
    pub const ALL: [Self; 8] = [
        Self::NoRemoteUrl,
        Self::HookFailed,
        Self::Rejected,
        Self::Poison,
        Self::TooOld,
        Self::Full,
        Self::Shutdown,
        Self::Spool,
    ];

    /// The word for it in logs, hooks and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRemoteUrl => "no_remote_url",
            Self::HookFailed => "hook_failed",
            Self::Rejected => "rejected",
            Self::Poison => "poison",
            Self::TooOld => "too_old",
            Self::Full => "full",
            Self::Shutdown => "shutdown",
            Self::Spool => "spool",
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
