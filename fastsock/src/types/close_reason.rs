//! How a session ends.

use std::fmt;

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
