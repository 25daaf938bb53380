//! The kept downlinks of one session, from its mailbox to the proof that its device has them. No lock, no clock and no I/O.
//!
//! A message stays in its mailbox until it is confirmed: by the device (`fastsock.v2.ack`), or by the pong to a ping that was
//! written after it. So nothing here is ever lost: what a session did not get confirmed, the next one reads again.

use std::{collections::VecDeque, fmt, str::FromStr};

use crate::{
    pure::{envelope, outbox::Source},
    types::Payload,
};

/// The place of a message in its mailbox: of two, the later one is the greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId {
    pub(crate) ms: u64,
    pub(crate) seq: u64,
}

/// A message as its mailbox gives it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    /// The name that its publisher gave it.
    pub(crate) name: Option<Box<str>>,
    pub(crate) payload: Payload,
}

/// What a ping carries that asks about kept messages.
pub(crate) type PingPayload = [u8; 8];

/// How downlinks look to the device of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Its payload as a message of its own.
    #[default]
    Bare,
    /// `fastsock.v1.ack`: `{"data":…}`.
    Envelope,
    /// `fastsock.v2.ack`: `{"id":…,"data":…}`, which the device acknowledges.
    Named,
}

/// The kept downlinks of one session.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    form: Form,
    /// To be written, in the form the device gets.
    queue: VecDeque<Payload>,
    queued_bytes: usize,
    /// What waits to be written or confirmed, oldest first; the last ones are those of `queue`.
    open: VecDeque<Open>,
    /// Confirmed, and to be removed from the mailbox.
    confirmed: Vec<EntryId>,
    /// The last entry that was read.
    cursor: EntryId,
    /// Whether the mailbox has more than was read.
    has_more: bool,
    /// The ping whose pong is awaited, and how many of `open` it confirms.
    asked: Option<(u32, usize)>,
    pings: u32,
}

#[derive(Debug)]
struct Open {
    id: EntryId,
    /// What the device acknowledges it by; only with [`Form::Named`].
    name: Option<Box<str>>,
}

/// What one visit to the mailbox is to do for a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// What the device has.
    pub(crate) remove: Vec<EntryId>,
    /// Read after this one.
    pub(crate) cursor: EntryId,
    /// Read so many messages and, past the first, bytes.
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Kept {
    pub(crate) fn new(form: Form) -> Self {
        Self {
            form,
            ..Self::default()
        }
    }

    /// Begins a visit to the mailbox. What it is to remove is given away; [`Kept::give_back`] returns it.
    pub(crate) fn turn(&mut self, most_bytes: usize) -> Turn {
        let messages = WINDOW_MESSAGES.saturating_sub(self.open.len());
        Turn {
            remove: std::mem::take(&mut self.confirmed),
            cursor: self.cursor,
            messages: if self.queued_bytes < most_bytes {
                messages
            } else {
                0
            },
            bytes: most_bytes.saturating_sub(self.queued_bytes),
        }
    }

    /// The visit came to nothing.
    pub(crate) fn give_back(&mut self, mut turn: Turn) {
        turn.remove.append(&mut self.confirmed);
        self.confirmed = turn.remove;
    }

    /// Takes what a visit has read. `is_empty`: the mailbox has nothing any more, so that the next one begins at its start.
    pub(crate) fn read(&mut self, entries: Vec<Entry>, has_more: bool, is_empty: bool) {
        self.has_more = has_more;
        for Entry { id, name, payload } in entries {
            self.cursor = id;
            let named =
                (self.form == Form::Named).then(|| name.unwrap_or_else(|| id.to_string().into()));
            let payload = match (self.form, &named) {
                (Form::Bare, _) => payload,
                (_, name) => envelope::wrap(&payload, name.as_deref()),
            };
            self.queued_bytes += payload.cost();
            self.queue.push_back(payload);
            self.open.push_back(Open { id, name: named });
        }
        if is_empty && self.open.is_empty() {
            self.cursor = EntryId::default();
        }
    }

    /// Whether something waits to be written.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether a visit to the mailbox would do something now.
    pub(crate) fn wants_turn(&self) -> bool {
        let has_room = self.queue.is_empty() && self.open.len() < WINDOW_MESSAGES;
        !self.confirmed.is_empty() || (self.has_more && has_room)
    }

    /// How many messages are written and not confirmed.
    pub(crate) fn unconfirmed(&self) -> usize {
        self.open.len() - self.queue.len()
    }

    /// The payload of a ping to be written now, if one is needed to confirm what was written.
    pub(crate) fn ask(&mut self) -> Option<PingPayload> {
        let written = self.unconfirmed();
        if written == 0 || self.asked.is_some() || self.form == Form::Named {
            return None;
        }
        self.pings = self.pings.wrapping_add(1);
        self.asked = Some((self.pings, written));
        Some(ping(self.pings))
    }

    /// A pong came. `true` when it is the one that was asked for: what was written before its ping is confirmed.
    pub(crate) fn pong(&mut self, payload: &[u8]) -> bool {
        match self.asked {
            Some((number, written)) if payload == ping(number) => {
                self.asked = None;
                self.confirm_first(written);
                true
            }
            _ => false,
        }
    }

    /// The device answered our close frame, behind which nothing was written. It proves nothing of a device that acknowledges.
    pub(crate) fn closed(&mut self) {
        if self.form != Form::Named {
            self.confirm_first(self.unconfirmed());
        }
    }

    /// The device acknowledges a message by its name. `false` when none of what was written has it.
    pub(crate) fn acknowledge(&mut self, name: &str) -> bool {
        let written = self.unconfirmed();
        let mut open = self.open.iter().take(written);
        let Some(at) = open.position(|open| open.name.as_deref() == Some(name)) else {
            return false;
        };
        let acknowledged = self.open.remove(at);
        self.confirmed.extend(acknowledged.map(|open| open.id));
        true
    }

    /// What is confirmed and not removed yet, when the session ends.
    pub(crate) fn take_confirmed(&mut self) -> Vec<EntryId> {
        std::mem::take(&mut self.confirmed)
    }

    fn confirm_first(&mut self, count: usize) {
        self.confirmed
            .extend(self.open.drain(..count).map(|open| open.id));
        if self.open.is_empty() {
            self.open = VecDeque::new(); // an idle device pays for no buffer
        }
    }
}

impl Source for Kept {
    fn begin(&mut self, max_messages: usize, max_bytes: usize, mut show: impl FnMut(&Payload)) {
        let mut bytes = 0;
        for (n, payload) in self.queue.iter().take(max_messages).enumerate() {
            bytes += payload.len();
            if n > 0 && bytes > max_bytes {
                break;
            }
            show(payload);
        }
    }

    fn wrote(&mut self, whole: usize, _: bool) {
        for payload in self.queue.drain(..whole.min(self.queue.len())) {
            self.queued_bytes -= payload.cost();
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(any(feature = "redis", feature = "disk"))]
impl EntryId {
    /// When its message was kept.
    pub(crate) fn time(self) -> std::time::SystemTime {
        std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(self.ms)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, seq) = text.split_once('-').ok_or(())?;
        Ok(Self {
            ms: ms.parse().map_err(drop)?,
            seq: seq.parse().map_err(drop)?,
        })
    }
}

/// A ping that asks about kept messages has a payload, unlike those of the heartbeat: the pong to one of those, or one that nobody
/// asked for, proves nothing.
fn ping(number: u32) -> PingPayload {
    let mut payload = *b"kept0000";
    payload[4..].copy_from_slice(&number.to_be_bytes());
    payload
}

/// Messages that a session has read and that its device has not confirmed.
const WINDOW_MESSAGES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(from: u64, count: u64) -> Vec<Entry> {
        let entry = |seq| Entry {
            id: EntryId { ms: 1, seq },
            name: None,
            payload: Payload::text(format!("m{seq}")),
        };
        (from..from + count).map(entry).collect()
    }

    fn written(kept: &mut Kept, most: usize) -> Vec<String> {
        let mut shown = Vec::new();
        kept.begin(most, usize::MAX, |p| shown.push(p.to_text().into_owned()));
        kept.wrote(shown.len(), false);
        shown
    }

    fn ids(seqs: &[u64]) -> Vec<EntryId> {
        seqs.iter().map(|&seq| EntryId { ms: 1, seq }).collect()
    }

    #[test]
    fn only_the_pong_to_a_ping_behind_a_message_confirms_it() {
        let mut kept = Kept::new(Form::Bare);
        assert_eq!(kept.turn(1 << 20).cursor, EntryId::default());
        kept.read(entries(1, 3), false, false);
        assert_eq!(kept.ask(), None, "nothing is written");
        assert_eq!(written(&mut kept, 2), ["m1", "m2"]);
        let first = kept.ask().expect("two are written");
        assert_eq!(kept.ask(), None, "one ping at a time");
        assert_eq!(written(&mut kept, 2), ["m3"]);
        for wrong in [&b""[..], b"kept", b"kept0000"] {
            assert!(!kept.pong(wrong));
        }
        assert!(kept.pong(&first) && !kept.pong(&first));
        assert!(kept.wants_turn());
        let turn = kept.turn(1 << 20);
        assert_eq!((&turn.remove, turn.cursor.seq), (&ids(&[1, 2]), 3));
        kept.give_back(turn);
        let second = kept.ask().expect("the third is written");
        assert!(kept.pong(&second));
        assert_eq!(kept.turn(1 << 20).remove, ids(&[1, 2, 3]));
        kept.read(Vec::new(), false, true);
        assert_eq!(kept.turn(1 << 20).cursor, EntryId::default());
    }

    #[test]
    fn who_acknowledges_names_each_and_pongs_prove_nothing() {
        let mut kept = Kept::new(Form::Named);
        let mut some = entries(1, 2);
        some[1].name = Some("order \"7\"".into());
        kept.read(some, false, false);
        assert!(!kept.acknowledge("1-1"), "it is not written");
        assert_eq!(
            written(&mut kept, 9),
            [
                r#"{"id":"1-1","data":"m1"}"#,
                r#"{"id":"order \"7\"","data":"m2"}"#
            ]
        );
        assert_eq!(kept.ask(), None);
        kept.closed();
        assert!(kept.acknowledge("order \"7\"") && !kept.acknowledge("order \"7\""));
        assert_eq!(kept.turn(1 << 20).remove, ids(&[2]));
        assert_eq!(kept.unconfirmed(), 1);
    }

    #[test]
    fn a_session_reads_no_more_than_it_has_room_for() {
        let mut kept = Kept::new(Form::Bare);
        kept.read(entries(1, 1000), true, false);
        assert_eq!(kept.turn(1 << 20).messages, 24);
        assert_eq!(kept.turn(100).messages, 0, "130 B each");
        assert!(!kept.wants_turn(), "what is read is to be written first");
        assert_eq!(written(&mut kept, 1000).len(), 1000);
        assert!(kept.wants_turn());
        kept.closed();
        assert_eq!(kept.turn(100).messages, WINDOW_MESSAGES);
    }

    #[test]
    fn entry_ids_are_read_as_they_are_written() {
        let id = EntryId { ms: 17, seq: 3 };
        assert_eq!((id.to_string().as_str(), "17-3".parse()), ("17-3", Ok(id)));
        for bad in ["", "17", "-", "a-1", "1-"] {
            assert_eq!(bad.parse::<EntryId>(), Err(()));
        }
    }
}
