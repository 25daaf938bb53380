//! How a call of the host fails.

use std::fmt;

/// A failed call: its kind, what it was about, and what caused it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What went wrong. The numbers are fixed for ever: C status codes and Python exceptions are their image.
/// 7 is reserved: it had a meaning once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum ErrorKind {
    /// A setting has a value that is not allowed, or two settings contradict each other.
    Config = 1,
    /// A port is taken, or may not be bound.
    Bind = 2,
    /// No gateway has the device.
    NotConnected = 3,
    /// The device's outbox is full.
    OutboxFull = 4,
    /// The message is over the limit.
    TooLarge = 5,
    /// The broker did not take it.
    Broker = 6,
    /// The bridge is stopping or stopped.
    Stopped = 8,
    /// The ticket is unknown, answered already, or timed out.
    Ticket = 9,
    /// An argument is not allowed.
    Argument = 10,
    /// The operating system refused something.
    Io = 11,
    /// As many calls wait as may, or the device has an OCPP call to answer first.
    Busy = 12,
    /// The message was sent, and no answer came.
    Unanswered = 13,
}

/// The result of a call of the host.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
        }
    }

    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message and its causes on one line.
    pub fn to_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}
