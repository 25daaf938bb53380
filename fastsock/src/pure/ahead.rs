//! What a session reads ahead while its messages wait: up to 64 KiB, so that what lies behind them is found, answered and told
//! from them: pings, pongs, the end. No I/O, no clock, no lock.
//!
//! It is as if it were in the socket still: nobody has taken it. Messages are kept one behind the other in one buffer, each with
//! five bytes before it, which is less than their frames had; so the bound holds for a flood of empty messages as well.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::CloseReason;

/// What one session has read ahead.
pub(crate) struct Ahead {
    messages: BytesMut,
    /// How the session ends once they are taken, if that is known.
    end: Option<CloseReason>,
    all: Arc<AllAhead>,
}

/// What all sessions of a bridge have read ahead.
#[derive(Debug)]
pub(crate) struct AllAhead {
    bytes: AtomicUsize,
    most_bytes: usize,
}

impl Ahead {
    /// Of one of these sessions.
    pub(crate) fn new(all: &Arc<AllAhead>) -> Box<Self> {
        Box::new(Self {
            messages: BytesMut::new(),
            end: None,
            all: all.clone(),
        })
    }

    /// Keeps a message behind the others.
    pub(crate) fn push(&mut self, is_text: bool, message: &[u8]) {
        self.messages.put_u8(is_text.into());
        self.messages.put_u32(message.len() as u32);
        self.messages.put_slice(message);
        self.all
            .bytes
            .fetch_add(HEAD_BYTES + message.len(), Relaxed);
    }

    /// Takes the first message out: whether it is text, and its content.
    pub(crate) fn pop(&mut self) -> Option<(bool, Bytes)> {
        if self.messages.is_empty() {
            return None;
        }
        let is_text = self.messages.get_u8() != 0;
        let length = self.messages.get_u32() as usize;
        let message = Bytes::copy_from_slice(&self.messages[..length]);
        self.messages.advance(length);
        self.all.bytes.fetch_sub(HEAD_BYTES + length, Relaxed);
        Some((is_text, message))
    }

    /// The length of the first message.
    pub(crate) fn first_len(&self) -> Option<usize> {
        let mut head = self.messages.get(1..HEAD_BYTES)?;
        Some(head.get_u32() as usize)
    }

    /// How the session ends once these messages are taken. Nothing is read after that is known.
    pub(crate) fn set_end(&mut self, reason: CloseReason) {
        self.end.get_or_insert(reason);
    }

    /// Whether that is known.
    pub(crate) fn has_end(&self) -> bool {
        self.end.is_some()
    }

    /// How the session ends now that nothing is left.
    pub(crate) fn take_end(&mut self) -> Option<CloseReason> {
        self.end.take()
    }

    /// What it holds.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.all.bytes.fetch_sub(self.messages.len(), Relaxed);
    }
}

impl AllAhead {
    /// At most so many bytes together, about: each thread may go past it by what it reads at once.
    pub(crate) fn new(most_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            most_bytes,
        })
    }

    /// How many bytes there are now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// How many bytes one session may read now that has read so many ahead.
    pub(crate) fn allowance(&self, of_session: usize) -> usize {
        let of_all = self.most_bytes.saturating_sub(self.bytes());
        AHEAD_BYTES.saturating_sub(of_session).min(of_all)
    }
}

/// So much of its input is read ahead in one session.
pub(crate) const AHEAD_BYTES: usize = 64 << 10;
/// Before each message: its kind and its length.
const HEAD_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_in_order_and_as_they_were() {
        let all = AllAhead::new(1 << 20);
        let mut ahead = Ahead::new(&all);
        assert_eq!((ahead.pop(), ahead.first_len()), (None, None));
        let long = "x".repeat(70_000);
        let messages: [(bool, &[u8]); 4] = [
            (true, "hällo".as_bytes()),
            (false, b"\x00\xff"),
            (true, b""),
            (false, long.as_bytes()),
        ];
        for round in 0..100 {
            for (is_text, message) in messages {
                ahead.push(is_text, message);
            }
            assert_eq!(all.bytes(), ahead.len());
            for (is_text, message) in messages {
                assert_eq!(ahead.first_len(), Some(message.len()));
                assert_eq!(
                    ahead.pop(),
                    Some((is_text, Bytes::copy_from_slice(message)))
                );
            }
            assert_eq!((ahead.pop(), all.bytes()), (None, 0), "{round}");
        }
    }

    #[test]
    fn one_session_and_all_of_them_have_a_bound_and_the_end_gives_back() {
        let all = AllAhead::new(100_000);
        let (mut one, mut other) = (Ahead::new(&all), Ahead::new(&all));
        assert_eq!(all.allowance(0), AHEAD_BYTES);
        one.push(true, &[b'x'; 60_000]);
        assert_eq!(all.allowance(one.len()), AHEAD_BYTES - 60_005);
        assert_eq!(all.allowance(0), 100_000 - 60_005, "of all");
        other.push(true, &[b'x'; 40_000]);
        assert_eq!(all.allowance(0), 0);
        drop(one);
        assert_eq!((all.bytes(), all.allowance(0)), (40_005, 100_000 - 40_005));
        drop(other);
        assert_eq!(all.bytes(), 0);
    }

    #[test]
    fn the_first_end_that_is_found_counts() {
        let mut ahead = Ahead::new(&AllAhead::new(1));
        assert!(!ahead.has_end());
        ahead.set_end(CloseReason::ByDevice(1000));
        ahead.set_end(CloseReason::Lost);
        assert!(ahead.has_end());
        assert_eq!(ahead.take_end(), Some(CloseReason::ByDevice(1000)));
    }
}
