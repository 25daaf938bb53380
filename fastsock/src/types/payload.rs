//! What a WebSocket message carries.

use std::{borrow::Cow, fmt};

use bytes::Bytes;

/// What one WebSocket message carries: text that is valid UTF-8, or bytes.
#[derive(Clone)]
pub struct Payload {
    bytes: Bytes,
    is_text: bool,
    /// Many devices get these very bytes, so that what is made of them for one is good for others.
    is_for_many: bool,
}

impl Payload {
    /// A TEXT message.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            bytes: Bytes::from(text.into()),
            is_text: true,
            is_for_many: false,
        }
    }

    /// A BINARY message.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            is_text: false,
            is_for_many: false,
        }
    }

    /// A TEXT message from bytes; what is not UTF-8 becomes U+FFFD, as Node's `Buffer.toString()` does.
    pub fn text_lossy(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: lossy(bytes.into()),
            is_text: true,
            is_for_many: false,
        }
    }

    /// TEXT when the bytes are valid UTF-8, BINARY otherwise.
    pub fn text_or_binary(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let is_text = std::str::from_utf8(&bytes).is_ok();
        Self {
            bytes,
            is_text,
            is_for_many: false,
        }
    }

    /// For bytes that a peer library has already checked to be UTF-8.
    pub(crate) fn checked_text(bytes: Bytes) -> Self {
        Self {
            bytes,
            is_text: true,
            is_for_many: false,
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

    /// The same, for many devices.
    pub(crate) fn for_many(self) -> Self {
        Self {
            is_for_many: true,
            ..self
        }
    }

    /// Whether many devices get it.
    pub(crate) fn is_for_many(&self) -> bool {
        self.is_for_many
    }

    /// What a held message counts for against the limits of a queue, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + HELD_OVERHEAD_BYTES
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        (self.is_text, &self.bytes) == (other.is_text, &other.bytes)
    }
}

impl Eq for Payload {}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lossy_text_keeps_valid_bytes_and_replaces_the_rest() {
        assert_eq!(Payload::text_lossy(&b"ok"[..]).as_bytes(), "ok");
        assert_eq!(
            Payload::text_lossy(&b"a\xffb"[..]).as_bytes(),
            "a\u{fffd}b".as_bytes()
        );
        assert!(!Payload::text_or_binary(&b"a\xffb"[..]).is_text());
    }
}
