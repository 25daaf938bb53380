//! The nouns that every other file uses: devices, messages, and how sessions end.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;

use crate::{
    context::{CertificateNames, Context, Parts},
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

/// What one WebSocket message carries: text that is valid UTF-8, or bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    is_text: bool,
}

impl Payload {
    /// A TEXT message.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            bytes: Bytes::from(text.into()),
            is_text: true,
        }
    }

    /// A BINARY message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            is_text: false,
        }
    }

    /// A TEXT message from bytes; what is not UTF-8 becomes U+FFFD, as Node's `Buffer.toString()` does.
    pub fn text_lossy(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: lossy(bytes.into()),
            is_text: true,
        }
    }

    /// TEXT when the bytes are valid UTF-8, BINARY otherwise.
    pub fn text_or_binary(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let is_text = std::str::from_utf8(&bytes).is_ok();
        Self { bytes, is_text }
    }

    /// For bytes that a peer library has already checked to be UTF-8.
    pub(crate) fn checked_text(bytes: Bytes) -> Self {
        Self {
            bytes,
            is_text: true,
        }
    }

    /// The content.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The content, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Whether it travels as a TEXT message.
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The content as text; what is not UTF-8 becomes U+FFFD.
    pub fn to_text(&self) -> Cow<'_, str> {
        // Nearly all of it is valid, and telling that is several times as fast as looking for what is not.
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.into(),
            Err(_) => String::from_utf8_lossy(&self.bytes),
        }
    }

    /// What a held message counts for against the limits of a queue, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + HELD_OVERHEAD_BYTES
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_text { "text" } else { "binary" };
        write!(f, "Payload({kind}, {} B)", self.bytes.len())
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

fn lossy(bytes: Bytes) -> Bytes {
    match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(_) => bytes,
        Cow::Owned(text) => Bytes::from(text),
    }
}

/// The book-keeping a queue charges for each message beside its payload.
pub(crate) const HELD_OVERHEAD_BYTES: usize = 128;

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

/// The head of a device's WebSocket request. `Debug` prints neither its target nor the values of its headers.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// The request target as sent, path and query. May hold a token: do not log it.
    pub target: String,
    /// Header names (lower case) and values in the order sent; values that are not UTF-8 are lossy.
    pub headers: Vec<(String, String)>,
    /// The address of the device; what trusted proxies say, if there are any.
    pub remote_addr: RemoteAddr,
    /// The credentials that the device shows.
    pub credentials: Credentials,
    /// The named parts of its path, by `device_paths`; `id` is one of them. Nobody has confirmed them yet.
    pub parts: Parts,
    /// The client id that these parts form. Whoever lets the device in has to name the same one.
    pub client_id: Option<ClientId>,
    /// The name of its route, unless it is the default one.
    pub route: Option<String>,
    /// The subprotocols that the device offers, in its order, without `fastsock-token.<token>`.
    pub subprotocols: Vec<String>,
    /// The names in a client certificate that TLS has checked.
    pub certificate_names: Option<Box<CertificateNames>>,
}

impl ConnectRequest {
    /// The method of the request: always `GET`.
    pub fn method(&self) -> &'static str {
        "GET"
    }

    /// The path as sent, without the query. May hold a token (`/token=…`): do not log it.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The path without a token that it may hold.
    pub(crate) fn shown_path(&self) -> &str {
        let path = self.path();
        let form = path.strip_prefix('/').unwrap_or(path).as_bytes();
        let has_token = form_urlencoded::parse(form).any(|(name, _)| name == "token");
        if has_token { "/***" } else { path }
    }

    /// The query as sent; empty when there is none. May hold a token: do not log it.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The query, with `***` for a token in it.
    pub(crate) fn shown_query(&self) -> Cow<'_, str> {
        let is_token = |field: &str| {
            let mut fields = form_urlencoded::parse(field.as_bytes());
            fields.any(|(name, _)| name == "token")
        };
        let query = self.query();
        if !is_token(query) {
            return query.into();
        }
        let shown = query.split('&').map(|field| match is_token(field) {
            true => "token=***",
            false => field,
        });
        shown.collect::<Vec<_>>().join("&").into()
    }

    /// All values of a header, by its lower-case name, in the order sent.
    pub fn headers_named(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        let named = self.headers.iter().filter(move |(n, _)| n == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The first value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("ConnectRequest")
            .field("headers", &names)
            .field("remote_addr", &self.remote_addr)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// The credentials that a device shows. `Debug` does not print them.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The `token` of the request target, decoded as a form is. `None` when missing or empty.
    pub token: Option<String>,
    /// `Authorization: Bearer …`, without the scheme.
    pub bearer: Option<String>,
    /// `Authorization: Basic …`: a user and a password.
    pub basic: Option<Box<Basic>>,
    /// The token of a `fastsock-token.<token>` subprotocol.
    pub subprotocol: Option<String>,
    /// The name in a client certificate that TLS has checked. Not a secret. `None` also when the certificate has no name, or an
    /// ambiguous one.
    pub certificate: Option<String>,
    pub(crate) faults: Faults,
}

/// What `Authorization: Basic` holds (RFC 7617). `Debug` does not print the password.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Basic {
    /// What stands before the first colon; never empty.
    pub user: String,
    /// What stands behind it: bytes, since the passwords of OCPP 1.6 need not be UTF-8.
    pub password: Vec<u8>,
}

impl Basic {
    pub(crate) fn new(user: impl Into<String>, password: impl Into<Vec<u8>>) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
        }
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a credential that is shown: it counts as shown, so that nothing in a later place decides in its stead.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// `Authorization` or the subprotocols hold two where one counts, an empty one, or what is no text.
    pub(crate) headers: Option<&'static str>,
    /// `Authorization` has a scheme that nobody knows.
    pub(crate) is_other_scheme: bool,
    /// Nobody can be sure of the name in the certificate.
    pub(crate) certificate: Option<&'static str>,
    /// There are several tokens in the request target.
    pub(crate) target: Option<&'static str>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |o: &Option<String>| o.as_ref().map(|_| "***");
        f.debug_struct("Credentials")
            .field("token", &shown(&self.token))
            .field("bearer", &shown(&self.bearer))
            .field("basic", &self.basic)
            .field("subprotocol", &shown(&self.subprotocol))
            .field("certificate", &self.certificate)
            .finish()
    }
}

/// The HTTP answer with which the bridge refuses a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// The body; short and free of secrets.
    pub reason: String,
    /// Seconds for a `Retry-After` header.
    pub retry_after_s: Option<u32>,
}

impl Refusal {
    /// A refusal with a status and a short reason. A status outside 400 to 599 becomes 403.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        let status = if (400..600).contains(&status) {
            status
        } else {
            403
        };
        Self {
            status,
            reason: reason.into(),
            retry_after_s: None,
        }
    }

    /// The same, with a `Retry-After` for the device.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The device closed, with its code (1005 when it sent none).
    ByDevice(u16),
    /// The connection broke without a close frame.
    Lost,
    /// The bridge stops: 1001.
    Shutdown,
    /// The host drains: 1012. Only a host gives this reason.
    Drain,
    /// The device broke RFC 6455: 1002.
    Protocol,
    /// A TEXT message or close reason was not UTF-8: 1007.
    InvalidUtf8,
    /// A frame or message was over the limit: 1009.
    TooBig,
    /// The device's lane stayed full while the backend was up: 1013.
    TryAgainLater,
    /// The backend says that the device is gone: 4410.
    Gone,
    /// The device did not read its downlinks in time: 4413.
    SlowConsumer,
    /// The device sent or reconnected too much: 4429.
    TooMany,
    /// Its token ran out: 4501.
    TokenExpired,
    /// The device is no longer allowed: 4503.
    Forbidden,
    /// A newer session of the same client id took its place: 4509.
    Replaced,
    /// The host closed it: 4510. Only a host gives this reason.
    Kicked,
    /// The device showed no sign of life by the next ping: cut without a close frame.
    NoLife,
    /// The host chose a close code and a reason (at most 123 bytes; a longer one is cut).
    Custom(u16, String),
}

impl CloseReason {
    /// The most bytes of a reason that fit into a close frame.
    pub const MAX_BYTES: usize = 123;

    /// A close with a code and a reason of the host's choice. `None` when the code is not for hosts: those are 1000 and 3000 to 4999
    /// (RFC 6455 §7.4).
    pub fn custom(code: u16, reason: impl Into<String>) -> Option<Self> {
        matches!(code, 1000 | 3000..=4999).then(|| Self::Custom(code, reason.into()))
    }

    /// The close code that the bridge sends, or `None` when it sends no close frame.
    pub fn code(&self) -> Option<u16> {
        Some(match self {
            Self::ByDevice(_) | Self::Lost | Self::NoLife => return None,
            Self::Shutdown => 1001,
            Self::Protocol => 1002,
            Self::InvalidUtf8 => 1007,
            Self::TooBig => 1009,
            Self::Drain => 1012,
            Self::TryAgainLater => 1013,
            Self::Gone => 4410,
            Self::SlowConsumer => 4413,
            Self::TooMany => 4429,
            Self::TokenExpired => 4501,
            Self::Forbidden => 4503,
            Self::Replaced => 4509,
            Self::Kicked => 4510,
            Self::Custom(code, _) => *code,
        })
    }

    /// The word for it in logs, hooks and counters; also the text of the close frame.
    pub fn as_str(&self) -> &str {
        match self {
            Self::ByDevice(_) => "closed_by_device",
            Self::Lost => "connection_lost",
            Self::Shutdown => "shutdown",
            Self::Drain => "drain",
            Self::Protocol => "protocol_error",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::TooBig => "too_big",
            Self::TryAgainLater => "try_again_later",
            Self::Gone => "gone",
            Self::SlowConsumer => "slow_consumer",
            Self::TooMany => "too_many",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::Replaced => "replaced",
            Self::Kicked => "kicked",
            Self::NoLife => "no_life",
            Self::Custom(_, reason) => reason,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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

/// Names a decision that the host answers later, through `resolve`. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_never_empty_nor_too_long() {
        assert!(ClientId::new("").is_none());
        assert!(ClientId::new("x".repeat(ClientId::MAX_BYTES + 1)).is_none());
        assert_eq!(ClientId::new("dev:1").unwrap().as_str(), "dev:1");
    }

    #[test]
    fn lossy_text_keeps_valid_bytes_and_replaces_the_rest() {
        assert_eq!(Payload::text_lossy(&b"ok"[..]).as_bytes(), "ok");
        assert_eq!(
            Payload::text_lossy(&b"a\xffb"[..]).as_bytes(),
            "a\u{fffd}b".as_bytes()
        );
        assert!(!Payload::text_or_binary(&b"a\xffb"[..]).is_text());
    }

    #[test]
    fn what_a_device_shows_is_not_printed() {
        let secret = || Some("s3cret".to_owned());
        let request = ConnectRequest {
            target: "/?token=s3cret".into(),
            headers: vec![("authorization".into(), "Bearer s3cret".into())],
            remote_addr: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            credentials: Credentials {
                token: secret(),
                bearer: secret(),
                basic: Some(Box::new(Basic::new("dev1", "s3cret"))),
                subprotocol: secret(),
                certificate: Some("dev1".into()),
                faults: Faults::default(),
            },
            parts: Parts::default(),
            client_id: None,
            route: None,
            subprotocols: Vec::new(),
            certificate_names: None,
        };
        let printed = format!("{request:?}");
        assert!(!printed.contains("s3cret") && printed.contains("authorization"));
    }
}
