//! WebSocket frames made and read by hand (RFC 6455 §5.2), wrong ones included.

/// The numbers of RFC 6455 §11.8.
pub mod opcode {
    /// More of the message before.
    pub const CONTINUATION: u8 = 0;
    /// UTF-8 text.
    pub const TEXT: u8 = 1;
    /// Bytes.
    pub const BINARY: u8 = 2;
    /// The end.
    pub const CLOSE: u8 = 8;
    /// Asks for a pong.
    pub const PING: u8 = 9;
    /// Answers a ping.
    pub const PONG: u8 = 10;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Frame {
    /// Whether it ends its message.
    pub is_final: bool,
    /// The three reserved bits, as a number from 0 to 7.
    pub reserved: u8,
    /// See [`opcode`].
    pub opcode: u8,
    /// The masking key; devices must have one, servers must not.
    pub mask: Option<[u8; 4]>,
    /// What it carries, unmasked.
    pub payload: Vec<u8>,
    /// A payload length to announce rather than the true one.
    pub announced: Option<u64>,
}

impl Frame {
    /// A final, masked frame with this opcode.
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            is_final: true,
            reserved: 0,
            opcode,
            mask: Some(MASK),
            payload: payload.into(),
            announced: None,
        }
    }

    /// TEXT; the bytes need not be UTF-8.
    pub fn text(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::TEXT, payload)
    }

    /// BINARY.
    pub fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::BINARY, payload)
    }

    /// The end of a message that was begun with [`Frame::unfinished`].
    pub fn continuation(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::CONTINUATION, payload)
    }

    /// PING.
    pub fn ping(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::PING, payload)
    }

    /// PONG.
    pub fn pong(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(opcode::PONG, payload)
    }

    /// CLOSE with a code and a reason; the reason need not be UTF-8.
    pub fn close(code: u16, reason: impl AsRef<[u8]>) -> Self {
        let payload = [&code.to_be_bytes()[..], reason.as_ref()].concat();
        Self::new(opcode::CLOSE, payload)
    }

    /// CLOSE without a code.
    pub fn empty_close() -> Self {
        Self::new(opcode::CLOSE, [])
    }

    /// The same, not ending its message.
    pub fn unfinished(mut self) -> Self {
        self.is_final = false;
        self
    }

    /// The same with reserved bits, 0 to 7.
    pub fn reserved(mut self, bits: u8) -> Self {
        self.reserved = bits;
        self
    }

    /// The same without a mask, as a device must not send it.
    pub fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    /// The same, announcing another payload length than it has.
    pub fn announcing(mut self, length: u64) -> Self {
        self.announced = Some(length);
        self
    }

    /// The bytes on the wire, with the shortest form of the length.
    pub fn encode(&self) -> Vec<u8> {
        let length = self.announced.unwrap_or(self.payload.len() as u64);
        let mut bytes = vec![u8::from(self.is_final) << 7 | self.reserved << 4 | self.opcode];
        let masked = u8::from(self.mask.is_some()) << 7;
        match length {
            0..=125 => bytes.push(masked | length as u8),
            126..=0xffff => {
                bytes.push(masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend(length.to_be_bytes());
            }
        }
        bytes.extend(self.mask.iter().flatten());
        let key = self.mask.unwrap_or_default();
        bytes.extend(
            self.payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(b, k)| b ^ k),
        );
        bytes
    }

    /// Reads a frame from the front of the bytes, with the length it took; `None` while it is not whole.
    pub fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (length, rest) = match second & 0x7f {
            126 => rest
                .split_first_chunk::<2>()
                .map(|(n, rest)| (u16::from_be_bytes(*n).into(), rest))?,
            127 => rest
                .split_first_chunk::<8>()
                .map(|(n, rest)| (u64::from_be_bytes(*n), rest))?,
            short => (u64::from(short), rest),
        };
        let (mask, rest) = match second & 0x80 {
            0 => (None, rest),
            _ => rest
                .split_first_chunk::<4>()
                .map(|(key, rest)| (Some(*key), rest))?,
        };
        let payload = rest.get(..usize::try_from(length).ok()?)?;
        let key = mask.unwrap_or_default();
        let frame = Self {
            is_final: first & 0x80 != 0,
            reserved: first >> 4 & 7,
            opcode: first & 0xf,
            mask,
            payload: payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(b, k)| b ^ k)
                .collect(),
            announced: None,
        };
        let taken = bytes.len() - rest.len() + payload.len();
        Some((frame, taken))
    }

    /// Code and reason of a CLOSE frame; no code when it carries none.
    pub fn close_code(&self) -> (Option<u16>, String) {
        match self.payload.split_first_chunk::<2>() {
            None => (None, String::new()),
            Some((code, reason)) => (
                Some(u16::from_be_bytes(*code)),
                String::from_utf8_lossy(reason).into_owned(),
            ),
        }
    }
}

/// The masking key; any will do, and a fixed one makes failures repeat.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for frame in [
                Frame::binary(vec![7; length]),
                Frame::text(vec![b'x'; length])
                    .unmasked()
                    .unfinished()
                    .reserved(5),
            ] {
                let mut bytes = frame.encode();
                assert_eq!(Frame::decode(&bytes[..bytes.len() - 1]), None);
                let whole = bytes.len();
                bytes.push(0);
                assert_eq!(Frame::decode(&bytes), Some((frame, whole)));
            }
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_encoded_byte_for_byte() {
        // RFC 6455 §5.7: a single-frame masked text message that contains "Hello".
        let hello = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        assert_eq!(Frame::text("Hello").encode(), hello);
    }
}
