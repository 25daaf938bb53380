//! Downlinks of devices that a stop or a drain has told to go: those that came afterwards, and those that were taken before and did
//! not get into the socket any more. Nobody is to lose them in silence.

use std::{collections::VecDeque, time::SystemTime};

use ahash::HashMap;

use crate::types::{ClientId, HELD_OVERHEAD_BYTES, Payload};

/// What was left over since the stop or the drain began.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// Whether the messages themselves are wanted, for the mailboxes.
    keeps: bool,
    /// When the first and the last were taken.
    pub(crate) span: Option<(SystemTime, SystemTime)>,
    pub(crate) devices: HashMap<ClientId, LeftOver>,
    bytes: usize,
}

/// What was left over of one device.
#[derive(Debug, Default)]
pub(crate) struct LeftOver {
    pub(crate) count: u64,
    /// In their order, as far as there is room for them.
    pub(crate) messages: VecDeque<Payload>,
    /// Its session has left, so nothing older comes any more.
    is_whole: bool,
}

impl Late {
    pub(crate) fn new(keeps: bool) -> Self {
        Self {
            keeps,
            ..Self::default()
        }
    }

    /// A message came for a device that was told to go.
    pub(crate) fn add(&mut self, client_id: &ClientId, payload: Payload, now: SystemTime) {
        self.note(now, now);
        let fits = self.fits(&payload);
        let left = self.devices.entry(client_id.clone()).or_default();
        left.count += 1;
        if fits {
            left.messages.push_back(payload);
        }
    }

    /// The session of such a device has left with these in its outbox, where the first has waited since `since`. They are older than
    /// all that was added.
    pub(crate) fn left(
        &mut self,
        client_id: &ClientId,
        payloads: Vec<Payload>,
        since: SystemTime,
        now: SystemTime,
    ) {
        if payloads.is_empty() {
            if let Some(left) = self.devices.get_mut(client_id) {
                left.is_whole = true;
            }
            return;
        }
        self.note(since, now);
        let count = payloads.len() as u64;
        let mut older: VecDeque<_> = payloads.into_iter().filter(|p| self.fits(p)).collect();
        let left = self.devices.entry(client_id.clone()).or_default();
        left.count += count;
        left.is_whole = true;
        older.append(&mut left.messages);
        left.messages = older;
    }

    /// All there is.
    pub(crate) fn take(&mut self) -> Self {
        let keeps = self.keeps;
        std::mem::replace(self, Self::new(keeps))
    }

    /// Those of devices whose sessions have left.
    pub(crate) fn take_whole(&mut self) -> Self {
        let devices = std::mem::take(&mut self.devices);
        let (whole, others) = devices.into_iter().partition(|(_, left)| left.is_whole);
        let taken = Self {
            devices: whole,
            span: self.span,
            ..Self::default()
        };
        self.devices = others;
        if self.devices.is_empty() {
            self.span = None;
        }
        let bytes = |left: &LeftOver| left.messages.iter().map(bytes_of).sum::<usize>();
        self.bytes = self.devices.values().map(bytes).sum();
        taken
    }

    fn note(&mut self, from: SystemTime, to: SystemTime) {
        let (first, last) = self.span.unwrap_or((from, to));
        self.span = Some((first.min(from), last.max(to)));
    }

    fn fits(&mut self, payload: &Payload) -> bool {
        let bytes = bytes_of(payload);
        let fits = self.keeps && self.bytes + bytes <= MOST_BYTES;
        self.bytes += if fits { bytes } else { 0 };
        fits
    }
}

fn bytes_of(payload: &Payload) -> usize {
    payload.len() + HELD_OVERHEAD_BYTES
}

/// Messages of this size together are kept for the mailboxes.
const MOST_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn texts(left: &LeftOver) -> Vec<Vec<u8>> {
        let messages = left.messages.iter();
        messages.map(|p| p.as_bytes().to_vec()).collect()
    }

    #[test]
    fn what_was_in_the_outbox_comes_before_what_came_later() {
        let (a, b) = (ClientId::new("a").unwrap(), ClientId::new("b").unwrap());
        let mut late = Late::new(true);
        late.add(&a, "3".into(), at(3));
        late.add(&b, "x".into(), at(4));
        assert!(late.take_whole().devices.is_empty());
        late.left(&a, vec!["1".into(), "2".into()], at(1), at(5));
        late.add(&a, "4".into(), at(6));
        let taken = late.take_whole();
        assert_eq!(taken.span, Some((at(1), at(6))));
        assert_eq!(texts(&taken.devices[&a]), [b"1", b"2", b"3", b"4"]);
        assert_eq!((taken.devices.len(), taken.devices[&a].count), (1, 4));
        let rest = late.take();
        assert_eq!(texts(&rest.devices[&b]), [b"x"]);
        assert!(late.take().span.is_none());
    }

    #[test]
    fn without_mailboxes_they_are_counted_only() {
        let a = ClientId::new("a").unwrap();
        let mut late = Late::new(false);
        late.left(&a, vec!["1".into(), "2".into()], at(1), at(2));
        late.add(&a, "3".into(), at(3));
        let left = &late.take().devices[&a];
        assert_eq!((left.count, left.messages.len()), (3, 0));
    }
}
