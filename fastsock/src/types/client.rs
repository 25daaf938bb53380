//! A device: its name, its sessions, and where it is.

use std::{borrow::Borrow, fmt, sync::Arc, time::SystemTime};

use crate::{
    context::Context,
    error::{Error, ErrorKind},
    remote_addr::RemoteAddr,
};

/// The name of a device, stable across reconnects.
///
/// Any non-empty UTF-8 text of at most [`ClientId::MAX_BYTES`] bytes. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// The longest name in bytes: a request head is at most 8 KiB, so a token cannot be longer.
    pub const MAX_BYTES: usize = 8192;

    /// Takes a name, or `None` when it is empty or longer than [`ClientId::MAX_BYTES`].
    pub fn new(id: impl AsRef<str>) -> Option<Self> {
        let id = id.as_ref();
        (!id.is_empty() && id.len() <= Self::MAX_BYTES).then(|| Self(id.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for ClientId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self, Error> {
        let allowed = "1 to 8192 bytes";
        Self::new(id).ok_or_else(|| {
            let text = format!("a client id has {allowed}; this one has {}", id.len());
            Error::new(ErrorKind::Argument, text)
        })
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// One live connection of a device. Never reused within one bridge; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One connected device, as `clients`, `on_connect` and `on_disconnect` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// The name of the device.
    pub client_id: ClientId,
    /// The session.
    pub session_id: SessionId,
    /// Higher than that of every session of this device before, over all gateways that share a Redis and over restarts.
    pub epoch: u64,
    /// Where it connects from.
    pub remote_addr: RemoteAddr,
    /// When it connected.
    pub connected_at: SystemTime,
    /// When it last sent a message; the connect counts.
    pub last_seen: SystemTime,
    /// What else is known of the session, if there is more to know than its name.
    pub context: Option<Arc<Context>>,
}

impl Client {
    /// A device that connected now. Bridges make them; others may, for tests of their hooks.
    pub fn new(client_id: ClientId, session_id: SessionId, remote_addr: RemoteAddr) -> Self {
        let now = SystemTime::now();
        Self {
            client_id,
            session_id,
            epoch: 0,
            remote_addr,
            connected_at: now,
            last_seen: now,
            context: None,
        }
    }
}

/// Where a device is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// To this gateway.
    Here,
    /// To another gateway that shares its Redis.
    Elsewhere,
    /// To none.
    Offline,
}

impl Presence {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Elsewhere => "elsewhere",
            Self::Offline => "offline",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_never_empty_nor_too_long() {
        assert!(ClientId::new("").is_none());
        assert!(ClientId::new("x".repeat(ClientId::MAX_BYTES + 1)).is_none());
        assert_eq!(ClientId::new("dev:1").unwrap().as_str(), "dev:1");
    }
}
