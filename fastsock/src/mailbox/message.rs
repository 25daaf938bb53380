//! A message to be kept, how long, and what its publisher is told.

use std::time::Duration;

use crate::{
    error::{Error, ErrorKind, Result},
    types::{Payload, Sent},
};

/// The Lua script that keeps a message in Redis, as `docs/redis/send.lua`: any publisher may EVAL it.
pub const SEND_SCRIPT: &str = include_str!("send.lua");

/// How a message is to be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeepOptions {
    /// A name for the message, of 1 to 128 bytes. The mailbox keeps two messages of one name within `mailbox_id_window` once.
    pub id: Option<String>,
    /// The message is of no use after so long; at the latest after `mailbox_age`. From 1 ms.
    pub ttl: Option<Duration>,
}

/// What a publisher is told of a message that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Where its device is: `Here`, `Elsewhere`, or `Kept` when it is away. The message is kept in any case.
    pub sent: Sent,
    /// The id of the message: what the publisher gave, or what the mailbox made.
    pub id: String,
    /// The mailbox had a message of this id already, and has not kept this one again.
    pub is_repeated: bool,
}

#[cfg(any(feature = "redis", feature = "disk"))]
impl Kept {
    pub(crate) fn new(id: String, is_repeated: bool) -> Self {
        Self {
            sent: Sent::Kept,
            id,
            is_repeated,
        }
    }
}

/// A message to be kept.
#[cfg_attr(
    not(any(feature = "redis", feature = "disk")),
    expect(dead_code, reason = "nothing keeps it")
)]
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) payload: Payload,
    pub(crate) name: Option<String>,
    pub(crate) ttl: Option<Duration>,
}

impl Message {
    /// # Errors
    /// `Argument` for an id or a time that is not allowed.
    pub(crate) fn new(payload: Payload, options: KeepOptions) -> Result<Self> {
        let KeepOptions { id, ttl } = options;
        let bad = |text: String| Err(Error::new(ErrorKind::Argument, text));
        if let Some(length) = id.as_ref().map(String::len)
            && !(1..=ID_MAX_BYTES).contains(&length)
        {
            return bad(format!(
                "the id of a kept message has 1 to {ID_MAX_BYTES} bytes; this one has {length}"
            ));
        }
        if ttl.is_some_and(|ttl| ttl.as_millis() == 0) {
            return bad("the ttl of a kept message is at least 1 ms; this one is 0".into());
        }
        Ok(Self {
            payload,
            name: id,
            ttl,
        })
    }
}

/// What mailboxes may hold, and for how long.
#[cfg(any(feature = "redis", feature = "disk"))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    pub(crate) age: Duration,
    pub(crate) id_window: Duration,
    /// Of all together; 0: any.
    pub(crate) total_messages: u64,
    pub(crate) total_bytes: u64,
}

#[cfg(any(feature = "redis", feature = "disk"))]
impl Bounds {
    pub(crate) fn new(config: &crate::config::sections::Mailbox) -> Self {
        Self {
            messages: config.messages,
            bytes: config.bytes,
            age: config.age,
            id_window: config.id_window,
            total_messages: config.total_messages as u64,
            total_bytes: config.total_bytes as u64,
        }
    }
}

const ID_MAX_BYTES: usize = 128;
