//! The bounded queue of one session's downlinks, and what happens when it is full. No lock, no clock and no I/O.
//!
//! A device that reads may have more waiting than its bounds allow, its surplus; all surpluses together are bounded
//! ([`Surpluses`]). One that does not read, and the largest when they are full, lose by the policy.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    config::Full,
    pure::surplus::Surpluses,
    stats::{DownlinkBooks, DownlinkLost},
    types::{Payload, SessionId},
};

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
    /// Cost of what is in `queue`, in bytes.
    bytes: usize,
    /// How many at the head the session is writing right now: those may not be dropped.
    writing: usize,
    /// What came while `queue` was full, behind it.
    surplus: Option<Box<Surplus>>,
    /// Since when the socket has taken nothing of what waits.
    stalled_since: Option<Instant>,
    /// When the first came after it had been empty.
    waiting_since: Option<SystemTime>,
    books: DownlinkBooks,
}

/// What a device that reads may have waiting beyond the bounds of its outbox. Never empty.
#[derive(Debug, Default)]
struct Surplus {
    queue: VecDeque<Payload>,
    bytes: usize,
}

/// Messages that a socket writes from the head.
pub(crate) trait Source {
    /// Shows messages at the head, up to a number and (past the first) a size; they stay until [`Source::wrote`].
    fn begin(&mut self, max_messages: usize, max_bytes: usize, show: impl FnMut(&Payload));

    /// The first `whole` messages are in the socket; `has_begun` tells that the next one is partly.
    fn wrote(&mut self, whole: usize, has_begun: bool);

    /// Whether nothing waits.
    fn is_empty(&self) -> bool;
}

impl Source for Outbox {
    fn begin(&mut self, max_messages: usize, max_bytes: usize, show: impl FnMut(&Payload)) {
        Self::begin(self, max_messages, max_bytes, show);
    }

    fn wrote(&mut self, whole: usize, has_begun: bool) {
        Self::wrote(self, whole, has_begun);
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }
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

impl Put {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Displaced => "displaced",
            Self::Full => "full",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a surplus has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The device does not read: all of it.
    Stalled,
    /// All surpluses together are too large, and this is the largest: until they no longer are.
    Crowded,
}

impl Outbox {
    /// When something came after it had been empty; means nothing while it is empty.
    pub(crate) fn waiting_since(&self) -> Option<SystemTime> {
        self.waiting_since
    }

    /// Notes when something came after it had been empty.
    pub(crate) fn set_waiting_since(&mut self, now: SystemTime) {
        self.waiting_since = Some(now);
    }

    /// Takes a message if there is room within the bounds. Below them it takes one more, whatever its size. Given back, it is
    /// for [`Outbox::put_beyond`].
    pub(crate) fn put(&mut self, payload: Payload, limits: &OutboxLimits) -> Result<Put, Payload> {
        if payload.len() > DOWNLINK_MAX_BYTES {
            self.books.received += 1;
            self.books.lost.too_large += 1;
            return Ok(Put::TooLarge);
        }
        if self.surplus.is_some() || !self.has_room(limits) {
            return Err(payload);
        }
        self.books.received += 1;
        self.bytes += payload.cost();
        self.queue.push_back(payload);
        Ok(Put::Queued)
    }

    /// Takes a message beyond the bounds while the device reads and there is room for all surpluses; else one is lost by the
    /// policy.
    pub(crate) fn put_beyond(
        &mut self,
        payload: Payload,
        limits: &OutboxLimits,
        session_id: SessionId,
        now: Instant,
        all: &mut Surpluses,
    ) -> Put {
        self.books.received += 1;
        let bytes = self.surplus_bytes() + payload.cost();
        let cut = match self.is_stalled(now) {
            true => Some(Cut::Stalled),
            false if all.is_full() && all.is_largest(session_id, bytes) => Some(Cut::Crowded),
            false => None,
        };
        let Some(cut) = cut else {
            self.push(payload, limits, all);
            return Put::Queued;
        };
        if (cut, limits.when_full) != (Cut::Crowded, Full::DropNewest) {
            self.cut(cut, limits, all);
        }
        if limits.when_full == Full::DropOldest && self.make_room(cut, limits, all) {
            self.push(payload, limits, all);
            return Put::Displaced;
        }
        self.books.lost.full += 1;
        Put::Full
    }

    /// Gives up the surplus, or some of it, by the policy. `false` when there is none, or no need any more.
    pub(crate) fn cut(&mut self, cut: Cut, limits: &OutboxLimits, all: &mut Surpluses) -> bool {
        let mut has_cut = false;
        while self.surplus.is_some() {
            let is_due = match cut {
                Cut::Stalled => true,
                // The device is closed for it, so nothing of it is of use.
                Cut::Crowded if limits.when_full == Full::Close => has_cut || all.is_full(),
                Cut::Crowded => all.is_full(),
            };
            if !is_due {
                break;
            }
            has_cut = match limits.when_full {
                Full::DropOldest => self.drop_oldest(limits, all),
                Full::Close | Full::DropNewest => self.drop_newest(all),
            };
        }
        has_cut
    }

    /// Whether the device has read nothing for too long to have more than its share.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        self.stalls_at().is_some_and(|at| now >= at)
    }

    /// When that will be so, if the socket takes nothing until then.
    pub(crate) fn stalls_at(&self) -> Option<Instant> {
        self.stalled_since.map(|since| since + PATIENCE)
    }

    /// Notes since when the socket has taken nothing of what waits; `None` when it takes all it is given.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    /// Since when the socket has taken nothing of what waits.
    pub(crate) fn set_stalled(&mut self, since: Option<Instant>) {
        self.stalled_since = since;
    }

    /// Whether one system call would not be full yet.
    pub(crate) fn is_short(&self) -> bool {
        self.queue.len() < 32 && self.bytes < 64 << 10 && self.surplus.is_none()
    }

    /// Whether it holds more than its bounds allow.
    pub(crate) fn has_surplus(&self) -> bool {
        self.surplus.is_some()
    }

    /// Bytes of that.
    pub(crate) fn surplus_bytes(&self) -> usize {
        self.surplus.as_ref().map_or(0, |surplus| surplus.bytes)
    }

    /// Shows messages at the head, up to a number and (past the first) a size; they stay until [`Outbox::wrote`]. None of them is
    /// beyond the bounds.
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

    /// The first `whole` messages are in the socket; `has_begun` tells that the next one is partly. With a surplus,
    /// [`Outbox::move_up`] comes after it.
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

    /// Moves as much of the surplus within the bounds as there is room for.
    pub(crate) fn move_up(&mut self, limits: &OutboxLimits, all: &mut Surpluses) {
        while self.has_room(limits)
            && let Some(payload) = self.take_surplus(VecDeque::pop_front, all)
        {
            self.bytes += payload.cost();
            self.queue.push_back(payload);
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.surplus.is_none()
    }

    /// What was lost so far.
    pub(crate) fn lost(&self) -> &DownlinkLost {
        &self.books.lost
    }

    /// The books so far, with what is held counted now.
    pub(crate) fn books(&self) -> DownlinkBooks {
        DownlinkBooks {
            held: self.len() as u64,
            held_bytes: (self.bytes + self.surplus_bytes()) as u64,
            ..self.books
        }
    }

    /// Closes it, handing its messages to a successor. The books given keep what was received; the successor holds the messages.
    pub(crate) fn hand_over(&mut self) -> (Self, DownlinkBooks) {
        let old = std::mem::take(self);
        let books = DownlinkBooks {
            held: 0,
            ..old.books
        };
        let successor = Self {
            queue: old.queue,
            bytes: old.bytes,
            surplus: old.surplus,
            waiting_since: old.waiting_since,
            ..Self::default()
        };
        (successor, books)
    }

    /// Gives what waits to another gateway, of so many bytes; what does not fit stays.
    pub(crate) fn pass_on(&mut self, most_bytes: usize, all: &mut Surpluses) -> Vec<Payload> {
        let (mut passed, mut bytes) = (Vec::new(), 0);
        let mut fits = |payload: &Payload| {
            let fits = bytes + payload.cost() <= most_bytes;
            bytes += if fits { payload.cost() } else { 0 };
            fits
        };
        self.writing = 0;
        for payload in std::mem::take(&mut self.queue) {
            match fits(&payload) {
                true => {
                    self.bytes -= payload.cost();
                    passed.push(payload);
                }
                false => self.queue.push_back(payload),
            }
        }
        if let Some(mut surplus) = self.surplus.take() {
            for payload in std::mem::take(&mut surplus.queue) {
                match fits(&payload) {
                    true => {
                        surplus.bytes -= payload.cost();
                        all.leave(&payload);
                        passed.push(payload);
                    }
                    false => surplus.queue.push_back(payload),
                }
            }
            self.surplus = (!surplus.queue.is_empty()).then_some(surplus);
        }
        self.books.passed_on += passed.len() as u64;
        passed
    }

    /// Puts what another gateway passed on ahead of all that is not being written, beyond the bounds if need be.
    pub(crate) fn put_first(&mut self, payloads: Vec<Payload>) {
        for payload in payloads.into_iter().rev() {
            self.books.received += 1;
            self.bytes += payload.cost();
            self.queue.insert(self.writing, payload);
        }
    }

    /// Closes it for good, and gives what it still holds to whoever keeps or tells of it.
    pub(crate) fn leave_over(&mut self, all: &mut Surpluses) -> (DownlinkBooks, Vec<Payload>) {
        let left = self.pass_on(usize::MAX, all);
        (self.close(all), left)
    }

    /// Closes it for good: what is still held is lost.
    pub(crate) fn close(&mut self, all: &mut Surpluses) -> DownlinkBooks {
        let mut books = self.books;
        books.lost.session_ended += self.len() as u64;
        for payload in self.surplus.iter().flat_map(|surplus| &surplus.queue) {
            all.leave(payload);
        }
        *self = Self::default();
        books
    }

    fn len(&self) -> usize {
        self.queue.len() + self.surplus.as_ref().map_or(0, |s| s.queue.len())
    }

    fn has_room(&self, limits: &OutboxLimits) -> bool {
        self.bytes < limits.bytes && self.queue.len() < limits.messages
    }

    /// Appends a message, within the bounds if it can be.
    fn push(&mut self, payload: Payload, limits: &OutboxLimits, all: &mut Surpluses) {
        if self.surplus.is_none() && self.has_room(limits) {
            self.bytes += payload.cost();
            self.queue.push_back(payload);
            return;
        }
        all.enter(&payload);
        let surplus = self.surplus.get_or_insert_default();
        surplus.bytes += payload.cost();
        surplus.queue.push_back(payload);
    }

    /// Drops the oldest messages until one more can be taken; `false` when all that is left is being written.
    fn make_room(&mut self, cut: Cut, limits: &OutboxLimits, all: &mut Surpluses) -> bool {
        loop {
            let may_be_beyond = cut == Cut::Crowded && !all.is_full();
            if may_be_beyond || (self.surplus.is_none() && self.has_room(limits)) {
                return true;
            }
            if !self.drop_oldest(limits, all) {
                return false;
            }
        }
    }

    /// Loses the oldest message that is not being written, if there is one.
    fn drop_oldest(&mut self, limits: &OutboxLimits, all: &mut Surpluses) -> bool {
        let oldest = match self.queue.len() > self.writing {
            true => self.queue.remove(self.writing),
            false => None,
        };
        let is_dropped = match oldest {
            Some(oldest) => {
                self.bytes -= oldest.cost();
                self.move_up(limits, all);
                true
            }
            None => self.take_surplus(VecDeque::pop_front, all).is_some(),
        };
        self.books.lost.full += u64::from(is_dropped);
        is_dropped
    }

    /// Loses the newest message beyond the bounds, if there is one.
    fn drop_newest(&mut self, all: &mut Surpluses) -> bool {
        let is_dropped = self.take_surplus(VecDeque::pop_back, all).is_some();
        self.books.lost.full += u64::from(is_dropped);
        is_dropped
    }

    /// Takes a message out of the surplus.
    fn take_surplus(
        &mut self,
        which: fn(&mut VecDeque<Payload>) -> Option<Payload>,
        all: &mut Surpluses,
    ) -> Option<Payload> {
        let surplus = self.surplus.as_mut()?;
        let payload = which(&mut surplus.queue)?;
        surplus.bytes -= payload.cost();
        if surplus.queue.is_empty() {
            self.surplus = None;
        }
        all.leave(&payload);
        Some(payload)
    }
}

/// A device whose socket takes nothing for so long does not read.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ClientId;

    const ME: SessionId = SessionId(1);

    fn limits(when_full: Full) -> OutboxLimits {
        OutboxLimits {
            bytes: 1000,
            messages: 3,
            when_full,
        }
    }

    /// An outbox with its bounds and the surpluses of all.
    struct Fixture {
        outbox: Outbox,
        limits: OutboxLimits,
        all: Surpluses,
        now: Instant,
    }

    impl Fixture {
        fn new(limits: OutboxLimits, max_surplus_bytes: usize) -> Self {
            Self {
                outbox: Outbox::default(),
                limits,
                all: Surpluses::new(max_surplus_bytes),
                now: Instant::now(),
            }
        }

        fn put(&mut self, payload: impl Into<Payload>) -> Put {
            let put = match self.outbox.put(payload.into(), &self.limits) {
                Ok(put) => put,
                Err(payload) => {
                    let (now, all) = (self.now, &mut self.all);
                    self.outbox.put_beyond(payload, &self.limits, ME, now, all)
                }
            };
            self.check();
            put
        }

        fn wrote(&mut self, whole: usize) {
            assert!(self.outbox.begin(whole, usize::MAX, |_| ()) >= whole);
            self.outbox.wrote(whole, false);
            self.outbox.move_up(&self.limits, &mut self.all);
            self.check();
        }

        fn check(&self) {
            let books = self.outbox.books();
            assert!(balanced(&books), "{books:?}");
            assert_eq!(self.outbox.surplus_bytes(), self.all.bytes());
        }

        fn texts(&mut self) -> Vec<String> {
            let queue = self.outbox.queue.iter();
            let surplus = self.outbox.surplus.iter().flat_map(|s| &s.queue);
            let texts = queue.chain(surplus).map(|p| p.to_text().into_owned());
            texts.collect()
        }
    }

    fn balanced(books: &DownlinkBooks) -> bool {
        books.received == books.delivered + books.held + books.lost.total()
    }

    #[test]
    fn below_its_bound_it_takes_one_more_whatever_its_size() {
        let mut fixture = Fixture::new(limits(Full::Close), 0);
        assert_eq!(fixture.put("a"), Put::Queued);
        assert_eq!(fixture.put("x".repeat(100_000)), Put::Queued);
        assert_eq!(fixture.put("b"), Put::Full);
    }

    #[test]
    fn drop_oldest_spares_what_is_being_written() {
        let mut fixture = Fixture::new(limits(Full::DropOldest), 0);
        for text in ["a", "b", "c"] {
            fixture.put(text);
        }
        fixture.outbox.begin(1, usize::MAX, |_| ());
        assert_eq!(fixture.put("d"), Put::Displaced);
        assert_eq!(fixture.texts(), ["a", "c", "d"]);
    }

    #[test]
    fn a_device_that_reads_gets_more_than_its_bounds_hold_in_order() {
        for policy in [Full::Close, Full::DropOldest, Full::DropNewest] {
            let mut fixture = Fixture::new(limits(policy), 100_000);
            let texts: Vec<_> = (0..100).map(|n| n.to_string()).collect();
            for text in &texts {
                assert_eq!(fixture.put(text.as_str()), Put::Queued);
            }
            assert_eq!(fixture.all.bytes(), texts[3..].concat().len() + 97 * 128);
            assert_eq!(fixture.texts(), texts);
            let mut read = Vec::new();
            while !fixture.outbox.is_empty() {
                let whole = fixture.outbox.begin(2, usize::MAX, |payload| {
                    read.push(payload.to_text().into_owned());
                });
                fixture.wrote(whole);
            }
            assert_eq!(read, texts);
            assert_eq!(
                (fixture.all.bytes(), fixture.outbox.books().delivered),
                (0, 100)
            );
        }
    }

    #[test]
    fn once_the_socket_took_nothing_for_a_second_the_policy_holds_for_all_beyond_the_bounds() {
        for (policy, put, kept) in [
            (Full::Close, Put::Full, ["0", "1", "2"]),
            (Full::DropOldest, Put::Displaced, ["8", "9", "last"]),
            (Full::DropNewest, Put::Full, ["0", "1", "2"]),
        ] {
            let mut fixture = Fixture::new(limits(policy), 100_000);
            fixture.outbox.set_stalled(Some(fixture.now));
            fixture.now += PATIENCE - Duration::from_millis(1);
            for n in 0..10 {
                assert_eq!(fixture.put(n.to_string()), Put::Queued);
            }
            fixture.now += Duration::from_millis(1);
            assert_eq!(fixture.put("last"), put);
            assert_eq!(fixture.texts(), kept);
            assert_eq!((fixture.outbox.lost().full, fixture.all.bytes()), (8, 0));

            // It reads on.
            fixture.outbox.set_stalled(None);
            assert_eq!(fixture.put("more"), Put::Queued);
        }
    }

    #[test]
    fn a_surplus_goes_when_its_device_does_not_read_though_nothing_more_comes() {
        for (policy, kept) in [
            (Full::Close, ["0", "1", "2"]),
            (Full::DropOldest, ["0", "8", "9"]), // the first is being written
            (Full::DropNewest, ["0", "1", "2"]),
        ] {
            let mut fixture = Fixture::new(limits(policy), 100_000);
            for n in 0..10 {
                fixture.put(n.to_string());
            }
            fixture.outbox.wrote(0, true);
            fixture
                .outbox
                .cut(Cut::Stalled, &fixture.limits, &mut fixture.all);
            fixture.check();
            assert_eq!(
                (fixture.texts(), fixture.outbox.lost().full),
                (kept.map(String::from).to_vec(), 7)
            );
        }
    }

    #[test]
    fn when_all_surpluses_are_full_the_largest_loses_by_the_policy() {
        for (policy, put, kept) in [
            (Full::Close, Put::Full, &["0", "1", "2"][..]),
            (
                Full::DropOldest,
                Put::Displaced,
                &["1", "2", "3", "4", "5", "last"],
            ),
            (Full::DropNewest, Put::Full, &["0", "1", "2", "3", "4", "5"]),
        ] {
            let mut fixture = Fixture::new(limits(policy), 300);
            for n in 0..6 {
                assert_eq!(fixture.put(n.to_string()), Put::Queued, "{n}");
            }
            assert!(fixture.all.is_full());
            assert_eq!(fixture.put("last"), put);
            assert_eq!(fixture.texts(), kept, "{policy:?}");
        }
    }

    #[test]
    fn a_smaller_one_is_spared_and_the_largest_pays_for_it() {
        let mut fixture = Fixture::new(limits(Full::Close), 1000);
        let largest = (ClientId::new("largest").unwrap(), SessionId(2));
        fixture.all.resize(&largest.0, largest.1, 0, 100_000);
        let held = Payload::from("x".repeat(1000));
        fixture.all.enter(&held);
        for n in 0..4 {
            let put = match fixture.outbox.put(n.to_string().into(), &fixture.limits) {
                Ok(put) => put,
                Err(payload) => fixture.outbox.put_beyond(
                    payload,
                    &fixture.limits,
                    ME,
                    fixture.now,
                    &mut fixture.all,
                ),
            };
            assert_eq!(put, Put::Queued);
        }
        assert_eq!(fixture.all.debtor(), Some(largest));
    }

    #[test]
    fn a_successor_writes_the_predecessors_messages_first() {
        let mut fixture = Fixture::new(limits(Full::Close), 100_000);
        for n in 1..=5 {
            fixture.put(n.to_string());
        }
        fixture.outbox.begin(1, usize::MAX, |_| ());
        let (new, mut books) = fixture.outbox.hand_over();
        let mut old = std::mem::replace(&mut fixture.outbox, new);
        old.wrote(1, false); // comes too late to count
        books += old.books();
        books += fixture.outbox.books();
        assert!(balanced(&books), "{books:?}");
        assert_eq!(fixture.texts(), ["1", "2", "3", "4", "5"]);
        assert_eq!(fixture.outbox.surplus_bytes(), fixture.all.bytes());
        assert_eq!(fixture.outbox.close(&mut fixture.all).lost.session_ended, 5);
        assert_eq!(fixture.all.bytes(), 0);
    }

    #[test]
    fn the_first_of_a_batch_may_be_of_any_size_the_rest_share_the_bound() {
        let mut fixture = Fixture::new(limits(Full::Close), 0);
        fixture.limits = OutboxLimits {
            bytes: 1 << 20,
            messages: 100,
            when_full: Full::Close,
        };
        for _ in 0..10 {
            fixture.put("x".repeat(100));
        }
        assert_eq!(fixture.outbox.begin(100, 50, |_| ()), 1);
        assert_eq!(fixture.outbox.begin(100, 350, |_| ()), 3);
        fixture.outbox.wrote(3, false);
        assert_eq!(
            (
                fixture.outbox.books().delivered,
                fixture.outbox.books().held
            ),
            (3, 7)
        );
    }
}
