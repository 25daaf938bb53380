//! Status codes: the image of the core's error kinds, and what only the border can say.

use std::any::Any;

use fastsock::{Error, ErrorKind};
use safer_ffi::derive_ReprC;

/// The result of a call. The numbers never change; new ones may be added.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_status {
    /// It worked.
    OK = 0,
    /// A setting has a value that is not allowed, or two settings contradict each other.
    CONFIG = 1,
    /// A port is taken, or may not be bound.
    BIND = 2,
    /// No session of that client id is here; of a call: no gateway has one.
    NOT_CONNECTED = 3,
    /// The device's outbox is full.
    OUTBOX_FULL = 4,
    /// The message is over the limit.
    TOO_LARGE = 5,
    /// The broker did not take it.
    BROKER = 6,
    /// Reserved: no call answers it.
    FORWARD = 7,
    /// The bridge is stopping or stopped.
    STOPPED = 8,
    /// The ticket is unknown, answered already, or timed out.
    TICKET = 9,
    /// An argument is not allowed.
    ARGUMENT = 10,
    /// The operating system refused something.
    IO = 11,
    /// As many calls wait as may, or the device has an OCPP call to answer first.
    BUSY = 12,
    /// The message was sent, and no answer came.
    UNANSWERED = 13,
    /// Something else went wrong; a newer library may say more.
    OTHER = 99,
    /// A bug in the library. The library caught it, and the bridge goes on. Please report the line of fastsock_last_error.
    PANIC = 100,
    /// The process forked after the start of the bridge: the bridge belongs to the parent.
    FORKED = 101,
    /// A pointer is NULL and must not be.
    NULL = 102,
    /// Not allowed inside a hook or a log callback: it would wait for itself.
    HOOK = 103,
    /// The time ran out.
    TIMEOUT = 104,
    /// There is no dead letter with that id.
    NOT_FOUND = 105,
    /// The list has no further element. No failure: fastsock_last_error stays as it was.
    END = 107,
    /// There is not enough memory for what was asked.
    MEMORY = 108,
}

impl fastsock_status {
    /// The word for it.
    pub(crate) fn name(self) -> &'static std::ffi::CStr {
        match self {
            Self::OK => c"ok",
            Self::CONFIG => c"config",
            Self::BIND => c"bind",
            Self::NOT_CONNECTED => c"not_connected",
            Self::OUTBOX_FULL => c"outbox_full",
            Self::TOO_LARGE => c"too_large",
            Self::BROKER => c"broker",
            Self::FORWARD => c"forward",
            Self::STOPPED => c"stopped",
            Self::TICKET => c"ticket",
            Self::ARGUMENT => c"argument",
            Self::IO => c"io",
            Self::BUSY => c"busy",
            Self::UNANSWERED => c"unanswered",
            Self::OTHER => c"other",
            Self::PANIC => c"panic",
            Self::FORKED => c"forked",
            Self::NULL => c"null",
            Self::HOOK => c"hook",
            Self::TIMEOUT => c"timeout",
            Self::NOT_FOUND => c"not_found",
            Self::END => c"end",
            Self::MEMORY => c"memory",
        }
    }
}

impl From<ErrorKind> for fastsock_status {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Config => Self::CONFIG,
            ErrorKind::Bind => Self::BIND,
            ErrorKind::NotConnected => Self::NOT_CONNECTED,
            ErrorKind::Busy => Self::BUSY,
            ErrorKind::Unanswered => Self::UNANSWERED,
            ErrorKind::OutboxFull => Self::OUTBOX_FULL,
            ErrorKind::TooLarge => Self::TOO_LARGE,
            ErrorKind::Broker => Self::BROKER,
            ErrorKind::Stopped => Self::STOPPED,
            ErrorKind::Ticket => Self::TICKET,
            ErrorKind::Argument => Self::ARGUMENT,
            ErrorKind::Io => Self::IO,
            _ => Self::OTHER,
        }
    }
}

/// A failed call: its status, and the line that `fastsock_last_error` gives.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: fastsock_status,
    pub(crate) line: String,
}

impl Failure {
    pub(crate) fn new(status: fastsock_status, line: impl Into<String>) -> Self {
        Self {
            status,
            line: line.into(),
        }
    }

    /// A pointer that must not be NULL.
    pub(crate) fn null(what: &str) -> Self {
        Self::new(fastsock_status::NULL, format!("{what} is NULL"))
    }

    /// An argument that is not allowed.
    pub(crate) fn argument(line: impl Into<String>) -> Self {
        Self::new(fastsock_status::ARGUMENT, line)
    }

    /// The end of a list.
    pub(crate) fn end() -> Self {
        Self::new(fastsock_status::END, "")
    }

    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("of an unknown kind");
        Self::new(fastsock_status::PANIC, format!("panic: {text}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.kind().into(), error.to_line())
    }
}
