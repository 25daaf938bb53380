//! Bytes of a device before tungstenite sees them. A whole small message that came in one frame is taken here, with one copy and no
//! buffer of the session, and so is a pong; every other frame goes to tungstenite as it is, and never more than that frame. No I/O.

use bytes::Bytes;

/// What has come and nobody has taken yet.
pub(super) struct Incoming {
    /// From `at` on; without room while there is none.
    rest: Vec<u8>,
    at: usize,
    /// What is left of the frame that tungstenite reads.
    passing: u64,
    /// The frames of a message that is not whole yet are with tungstenite.
    is_in_fragments: bool,
    /// One side has said good-bye: tungstenite reads everything.
    is_closing: bool,
}

/// What is at the front.
pub(super) enum Front {
    /// Nothing, or a part of what is looked for here.
    Partial,
    /// A whole message, unmasked.
    Message { is_text: bool, payload: Bytes },
    /// A whole pong, unmasked; it may stand between the frames of a message. RFC 6455 §5.4
    Pong(Bytes),
    /// Something for tungstenite.
    Other,
}

/// The head of a frame. RFC 6455 §5.2.
struct FrameHead {
    is_final: bool,
    has_reserved: bool,
    opcode: u8,
    mask: Option<[u8; 4]>,
    /// Of the head itself.
    length: usize,
    payload: u64,
}

impl Incoming {
    pub(super) fn new(rest: Vec<u8>) -> Self {
        Self {
            rest,
            at: 0,
            passing: 0,
            is_in_fragments: false,
            is_closing: false,
        }
    }

    /// From now on nothing is taken here: messages may be compressed, and [`Inflating`](super::inflating::Inflating) has the bytes.
    pub(super) fn stand_aside(&mut self) {
        self.passing = u64::MAX;
    }

    /// Whether one side has said good-bye.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// From now on all is tungstenite's.
    pub(super) fn pass_all(&mut self) {
        self.is_closing = true;
        self.passing = u64::MAX;
    }

    /// Forgets what has come.
    pub(super) fn forget(&mut self) {
        (self.rest, self.at) = (Vec::new(), 0);
    }

    /// Whether tungstenite has nothing that it was given and has not given out: no part of a frame, none of a message.
    pub(super) fn is_between(&self) -> bool {
        self.passing == 0 && !self.is_in_fragments && !self.is_closing
    }

    /// How many bytes wait here.
    pub(super) fn len(&self) -> usize {
        self.rest.len() - self.at
    }

    /// How many bytes tungstenite may have now.
    pub(super) fn passing(&self) -> u64 {
        self.passing
    }

    /// Takes what is at the front: of what waits, and then of these bytes, which were read just now. What of them is not taken
    /// waits.
    pub(super) fn take(&mut self, fresh: &[u8], most_payload: usize) -> Front {
        if self.len() == 0 {
            let (front, taken) = self.front_of(fresh, most_payload);
            if taken < fresh.len() {
                self.rest.extend_from_slice(&fresh[taken..]);
            }
            return front;
        }
        if self.at > 0 && !fresh.is_empty() {
            self.rest.drain(..self.at); // less than a message
            self.at = 0;
        }
        self.rest.extend_from_slice(fresh);
        let rest = std::mem::take(&mut self.rest);
        let (front, taken) = self.front_of(&rest[self.at..], most_payload);
        self.rest = rest;
        self.consume(taken);
        front
    }

    /// Gives tungstenite what waits for it, as much as there is room for.
    pub(super) fn give(&mut self, into: &mut [u8]) -> usize {
        let most = usize::try_from(self.passing).unwrap_or(usize::MAX);
        let length = into.len().min(self.len()).min(most);
        into[..length].copy_from_slice(&self.rest[self.at..self.at + length]);
        self.consume(length);
        self.pass(length);
        length
    }

    /// So many bytes went to tungstenite.
    pub(super) fn pass(&mut self, length: usize) {
        if !self.is_closing {
            self.passing = self.passing.saturating_sub(length as u64);
        }
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
        if self.at == self.rest.len() {
            self.forget();
        }
    }

    /// What is at the front of these bytes, and how many of them are taken by that.
    fn front_of(&mut self, bytes: &[u8], most_payload: usize) -> (Front, usize) {
        if self.passing > 0 {
            return (Front::Other, 0);
        }
        let Some(head) = FrameHead::of(bytes) else {
            return (Front::Partial, 0);
        };
        let most = match head.opcode {
            TEXT | BINARY if !self.is_in_fragments => Some(most_payload.min(LONGEST_BYTES)),
            PONG => Some(MOST_CONTROL_BYTES),
            _ => None,
        };
        if let (Some(mask), Some(most)) = (head.mask, most)
            && head.is_final
            && !head.has_reserved
            && head.payload <= most as u64
        {
            let end = head.length + head.payload as usize;
            let Some(masked) = bytes.get(head.length..end) else {
                return (Front::Partial, 0);
            };
            let payload = unmasked(masked, mask).into();
            let front = match head.opcode {
                PONG => Front::Pong(payload),
                opcode => Front::Message {
                    is_text: opcode == TEXT,
                    payload,
                },
            };
            return (front, end);
        }
        match head.opcode {
            CONTINUATION => self.is_in_fragments &= !head.is_final,
            TEXT | BINARY => self.is_in_fragments |= !head.is_final,
            _ => {}
        }
        self.passing = (head.length as u64).saturating_add(head.payload);
        (Front::Other, 0)
    }
}

impl FrameHead {
    /// `None`: it is not whole.
    fn of(bytes: &[u8]) -> Option<Self> {
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (payload, begin) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(array(bytes, 2)?)), 4),
            127 => (u64::from_be_bytes(array(bytes, 2)?), 10),
            short => (u64::from(short), 2),
        };
        let (mask, length) = match second & 0x80 {
            0 => (None, begin),
            _ => (Some(array(bytes, begin)?), begin + 4),
        };
        Some(Self {
            is_final: first & 0x80 != 0,
            has_reserved: first & 0x70 != 0,
            opcode: first & 0x0f,
            mask,
            length,
            payload,
        })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn unmasked(masked: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut payload = masked.to_vec();
    let [a, b, c, d] = mask;
    let sixteen = u128::from_ne_bytes([a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<16>();
    for word in words {
        *word = (u128::from_ne_bytes(*word) ^ sixteen).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(sixteen.to_ne_bytes()) {
        *byte ^= mask;
    }
    payload
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const PONG: u8 = 10;
/// RFC 6455 §5.5.
const MOST_CONTROL_BYTES: usize = 125;
/// A longer message goes to tungstenite, which has a buffer of its size.
const LONGEST_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![first];
        match payload.len() {
            length @ ..126 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        frame
    }

    /// What is taken of these bytes when they come in pieces of so many, and how many are left for tungstenite.
    fn taken(bytes: &[u8], piece: usize) -> (Vec<(bool, Vec<u8>)>, usize) {
        let (mut incoming, mut found) = (Incoming::new(Vec::new()), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut fresh = piece;
            while let Front::Message { is_text, payload } = incoming.take(fresh, 1 << 20) {
                found.push((is_text, payload.to_vec()));
                fresh = &[];
            }
        }
        (found, incoming.len())
    }

    #[test]
    fn whole_messages_are_taken_in_whatever_pieces_they_come() {
        let long = vec![b'x'; 300];
        for payload in [&b""[..], b"a", b"12345678", b"123456789abcdef", &long] {
            let frames = [frame(0x81, payload), frame(0x82, payload)].concat();
            for piece in [1, 2, 3, 7, 200, 1 << 20] {
                let (found, left) = taken(&frames, piece);
                let expected = vec![(true, payload.to_vec()), (false, payload.to_vec())];
                assert_eq!((found, left), (expected, 0), "{piece}");
            }
        }
    }

    #[test]
    fn what_is_never_whole_at_the_end_of_a_read_does_not_pile_up() {
        let mut incoming = Incoming::new(Vec::new());
        let frames = frame(0x81, &[b'x'; 1000]).repeat(1009);
        let mut count = 0;
        for piece in frames.chunks(1000) {
            let mut fresh = piece;
            while let Front::Message { .. } = incoming.take(fresh, 1 << 20) {
                count += 1;
                fresh = &[];
            }
            assert!(incoming.rest.capacity() < 4 * LONGEST_BYTES);
        }
        assert_eq!((count, incoming.rest.capacity()), (1009, 0));
    }

    #[test]
    fn everything_else_is_left_as_it_is() {
        let text = frame(0x81, b"a");
        let large = frame(0x82, &vec![0; LONGEST_BYTES + 1]);
        let unmasked = vec![0x81, 1, b'a'];
        let endless = [&[0x82, 0xff][..], &[0xff; 12]].concat();
        for other in [
            frame(0x01, b"a"), // the first of several
            frame(0x80, b"a"), // the last of several
            frame(0x88, &[3, 232]),
            frame(0x89, b"a"),
            frame(0x0a, b"a"),
            frame(0x8a, &[0; 126]),
            vec![0x8a, 0],
            frame(0xc1, b"a"),
            frame(0x83, b"a"),
            large,
            unmasked,
            endless,
        ] {
            let both = [text.clone(), other.clone()].concat();
            let (found, left) = taken(&both, 1 << 20);
            assert_eq!((found.len(), left), (1, other.len()), "{:?}", &other[..2]);
        }
    }

    #[test]
    fn tungstenite_gets_its_frame_and_nothing_behind_it() {
        let (ping, text) = (frame(0x89, b"ping"), frame(0x81, b"text"));
        let mut incoming = Incoming::new(Vec::new());
        let both = [ping.clone(), text.clone()].concat();
        assert!(matches!(incoming.take(&both, 9), Front::Other));
        let mut into = [0; 99];
        let given = incoming.give(&mut into);
        assert_eq!((&into[..given], incoming.passing()), (&ping[..], 0));
        assert!(matches!(incoming.take(&[], 9), Front::Message { .. }));
        assert_eq!(incoming.len(), 0);
    }

    #[test]
    fn a_message_in_fragments_is_not_mixed_with_others() {
        let mut incoming = Incoming::new(Vec::new());
        let frames = [
            frame(0x01, b"a"),
            frame(0x89, b""),
            frame(0x81, b"wrong"),
            frame(0x80, b"b"),
            frame(0x81, b"c"),
        ];
        let mut fresh = frames.concat();
        let mut into = [0; 99];
        for frame in &frames[..4] {
            assert!(matches!(incoming.take(&fresh, 9), Front::Other));
            assert_eq!(incoming.give(&mut into), frame.len());
            fresh.clear();
        }
        assert!(matches!(incoming.take(&[], 9), Front::Message { .. }));
    }

    #[test]
    fn a_pong_is_taken_wherever_it_comes() {
        let (first, pong, last) = (frame(0x01, b"a"), frame(0x8a, b"42"), frame(0x80, b"b"));
        for piece in 1..=pong.len() {
            let mut incoming = Incoming::new(Vec::new());
            let fronts: Vec<_> = pong.chunks(piece).map(|p| incoming.take(p, 1)).collect();
            assert!(matches!(fronts.last(), Some(Front::Pong(payload)) if &payload[..] == b"42"));
            assert_eq!((incoming.len(), incoming.is_between()), (0, true));
        }
        let mut incoming = Incoming::new(Vec::new());
        let fragments = [first.clone(), pong, last].concat();
        assert!(matches!(incoming.take(&fragments, 9), Front::Other));
        assert_eq!(incoming.give(&mut [0; 99]), first.len());
        assert!(matches!(incoming.take(&[], 9), Front::Pong(_)));
        assert!(!incoming.is_between());
        assert!(matches!(incoming.take(&[], 9), Front::Other));
    }

    #[test]
    fn what_is_over_the_limit_is_not_taken() {
        let mut incoming = Incoming::new(Vec::new());
        assert!(matches!(
            incoming.take(&frame(0x81, b"1234"), 3),
            Front::Other
        ));
        let mut incoming = Incoming::new(Vec::new());
        incoming.pass_all();
        assert!(matches!(incoming.take(&frame(0x81, b"a"), 9), Front::Other));
    }
}
