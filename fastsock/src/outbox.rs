//! The bounded queue of one session's downlinks, and what happens when it is full. No lock and no I/O.

use std::collections::VecDeque;

use crate::{config::Full, stats::DownlinkBooks, types::Payload};

/// Bounds of an outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutboxLimits {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
    pub(crate) when_full: Full,
}

/// One downlink is at most 16 MiB.
pub(crate) const DOWNLINK_MAX_BYTES: usize = 16 << 20;

/// Downlinks waiting for one socket. Empty, it holds no memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Payload>,
    /// Cost of what is queued, in bytes.
    bytes: usize,
    /// How many at the head the session is writing right now: those may not be dropped.
    writing: usize,
    books: DownlinkBooks,
}

/// What became of a message put into an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// Queued.
    Queued,
    /// Queued; the oldest was lost for it.
    Displaced,
    /// Lost: the outbox is full.
    Full,
    /// Lost: over 16 MiB.
    TooLarge,
}

impl Outbox {
    /// Takes a message, or loses one by the policy. Below its bound it takes one more, whatever its size.
    pub(crate) fn put(&mut self, payload: Payload, limits: &OutboxLimits) -> Put {
        self.books.received += 1;
        if payload.len() > DOWNLINK_MAX_BYTES {
            self.books.lost.too_large += 1;
            return Put::TooLarge;
        }
        let mut put = Put::Queued;
        while self.bytes >= limits.bytes || self.queue.len() >= limits.messages {
            if limits.when_full != Full::DropOldest || self.queue.len() <= self.writing {
                self.books.lost.full += 1;
                return Put::Full;
            }
            let oldest = self
                .queue
                .remove(self.writing)
                .expect("there are more than are being written");
            self.bytes -= oldest.cost();
            self.books.lost.full += 1;
            put = Put::Displaced;
        }
        self.bytes += payload.cost();
        self.queue.push_back(payload);
        put
    }

    /// Shows messages at the head, up to a number and (past the first) a size; they stay until [`Outbox::wrote`].
    pub(crate) fn begin(
        &mut self,
        max_messages: usize,
        max_bytes: usize,
        mut show: impl FnMut(&Payload),
    ) -> usize {
        let mut bytes = 0;
        self.writing = 0;
        for payload in self.queue.iter().take(max_messages) {
            bytes += payload.len();
            if self.writing > 0 && bytes > max_bytes {
                break;
            }
            show(payload);
            self.writing += 1;
        }
        self.writing
    }

    /// The first `whole` messages are in the socket; `has_begun` tells that the next one is partly.
    pub(crate) fn wrote(&mut self, whole: usize, has_begun: bool) {
        for payload in self.queue.drain(..whole.min(self.queue.len())) {
            self.bytes -= payload.cost();
            self.books.delivered += 1;
        }
        self.writing = usize::from(has_begun);
        if self.queue.is_empty() {
            self.queue = VecDeque::new(); // an idle device pays for no buffer
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The books so far, with what is held counted now.
    pub(crate) fn books(&self) -> DownlinkBooks {
        DownlinkBooks {
            held: self.queue.len() as u64,
            ..self.books
        }
    }

    /// Closes it, handing its messages to a successor. The books given keep what was received; the successor holds the messages.
    pub(crate) fn hand_over(&mut self) -> (VecDeque<Payload>, DownlinkBooks) {
        let books = DownlinkBooks {
            held: 0,
            ..self.books
        };
        let queue = std::mem::take(&mut self.queue);
        *self = Self::default();
        (queue, books)
    }

    /// Takes over the messages of a predecessor, ahead of its own.
    pub(crate) fn take_over(&mut self, mut queue: VecDeque<Payload>) {
        self.bytes += queue.iter().map(Payload::cost).sum::<usize>();
        queue.append(&mut self.queue);
        self.queue = queue;
    }

    /// Closes it for good: what is still held is lost.
    pub(crate) fn close(&mut self) -> DownlinkBooks {
        let mut books = self.books;
        books.lost.session_ended += self.queue.len() as u64;
        *self = Self::default();
        books
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(when_full: Full) -> OutboxLimits {
        OutboxLimits {
            bytes: 1000,
            messages: 3,
            when_full,
        }
    }

    fn texts(outbox: &mut Outbox) -> Vec<String> {
        let mut seen = Vec::new();
        outbox.begin(100, usize::MAX, |payload| {
            seen.push(payload.to_text().into_owned())
        });
        seen
    }

    fn balanced(books: &DownlinkBooks) -> bool {
        books.received == books.delivered + books.held + books.lost.total()
    }

    #[test]
    fn below_its_bound_it_takes_one_more_whatever_its_size() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.put("a".into(), &limits(Full::Close)), Put::Queued);
        assert_eq!(
            outbox.put("x".repeat(100_000).into(), &limits(Full::Close)),
            Put::Queued
        );
        assert_eq!(outbox.put("b".into(), &limits(Full::Close)), Put::Full);
        assert!(balanced(&outbox.books()));
    }

    #[test]
    fn drop_oldest_spares_what_is_being_written() {
        let mut outbox = Outbox::default();
        for text in ["a", "b", "c"] {
            outbox.put(text.into(), &limits(Full::DropOldest));
        }
        outbox.begin(1, usize::MAX, |_| ());
        assert_eq!(
            outbox.put("d".into(), &limits(Full::DropOldest)),
            Put::Displaced
        );
        assert_eq!(texts(&mut outbox), ["a", "c", "d"]);
        assert!(balanced(&outbox.books()));
    }

    #[test]
    fn a_successor_writes_the_predecessors_messages_first() {
        let (mut old, mut new) = (Outbox::default(), Outbox::default());
        let all = limits(Full::Close);
        old.put("1".into(), &all);
        old.put("2".into(), &all);
        old.begin(1, usize::MAX, |_| ());
        new.put("3".into(), &all);
        let (queue, mut books) = old.hand_over();
        new.take_over(queue);
        old.wrote(1, false); // comes too late to count
        assert_eq!(texts(&mut new), ["1", "2", "3"]);
        books += new.books();
        books += old.books();
        assert!(balanced(&books), "{books:?}");
    }

    #[test]
    fn the_first_of_a_batch_may_be_of_any_size_the_rest_share_the_bound() {
        let mut outbox = Outbox::default();
        let all = OutboxLimits {
            bytes: 1 << 20,
            messages: 100,
            when_full: Full::Close,
        };
        for _ in 0..10 {
            outbox.put("x".repeat(100).into(), &all);
        }
        assert_eq!(outbox.begin(100, 50, |_| ()), 1);
        assert_eq!(outbox.begin(100, 350, |_| ()), 3);
        outbox.wrote(3, false);
        assert_eq!((outbox.books().delivered, outbox.books().held), (3, 7));
    }
}
