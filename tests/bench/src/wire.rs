//! What goes over the wires: stamped payloads, WebSocket frames, RESP commands and HTTP requests, made and read by hand.

/// What a payload says about itself, so that its receiver can check order and latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The run it belongs to; stragglers of an earlier one are told apart by it.
    pub(crate) run: u8,
    /// The index of the device it goes to or comes from.
    pub(crate) device: u32,
    /// Its number among those of the device, from 1.
    pub(crate) seq: u32,
    /// When it was due, in nanoseconds of the [`Clock`](crate::clock::Clock).
    pub(crate) due_ns: u64,
}

impl Stamp {
    /// The payload in ASCII that needs no escape in JSON: the stamp in hexadecimal, then filling.
    pub(crate) fn write(&self, out: &mut Vec<u8>, size: usize) {
        let end = out.len() + size.max(STAMP_BYTES);
        push_hex(out, u64::from(self.run), 2);
        push_hex(out, u64::from(self.device), 6);
        push_hex(out, u64::from(self.seq), 8);
        push_hex(out, self.due_ns, 16);
        out.resize(end, b'x');
    }

    /// Reads what [`write`](Self::write) wrote.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let (stamp, _) = payload.split_first_chunk::<STAMP_BYTES>()?;
        Some(Self {
            run: u8::try_from(hex(&stamp[..2])?).ok()?,
            device: u32::try_from(hex(&stamp[2..8])?).ok()?,
            seq: u32::try_from(hex(&stamp[8..16])?).ok()?,
            due_ns: hex(&stamp[16..])?,
        })
    }

    /// Reads those in the body of a POST, `{"client_id":"…","data":"…"}` or an array of such objects.
    pub(crate) fn read_json(body: &[u8]) -> impl Iterator<Item = Self> {
        let key = br#""data":"#;
        let mut rest = body;
        std::iter::from_fn(move || {
            let at = rest.windows(key.len()).position(|w| w == key)? + key.len();
            rest = rest.get(at..)?;
            let quote = rest.iter().position(|b| *b == b'"')?;
            rest = rest.get(quote + 1..)?;
            let stamp = Self::read(rest)?;
            rest = &rest[STAMP_BYTES..];
            Some(stamp)
        })
    }
}

fn push_hex(out: &mut Vec<u8>, value: u64, digits: u32) {
    out.extend(
        (0..digits)
            .rev()
            .map(|place| HEX[(value >> (4 * place) & 0xf) as usize]),
    );
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

/// Appends a WebSocket frame (RFC 6455 §5.2); devices mask, servers do not.
pub(crate) fn push_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8], is_masked: bool) {
    out.push(0x80 | opcode);
    let mask_bit = u8::from(is_masked) << 7;
    match payload.len() {
        length @ 0..=125 => out.push(mask_bit | length as u8),
        length @ 126..=0xffff => {
            out.push(mask_bit | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(mask_bit | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    if is_masked {
        out.extend(MASK);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    if is_masked {
        unmask(&mut out[start..], MASK);
    }
}

/// A WebSocket frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// See RFC 6455 §11.8.
    pub(crate) opcode: u8,
    /// The masking key of a device.
    pub(crate) mask: Option<[u8; 4]>,
    /// Where the payload starts and ends, counted from the head.
    pub(crate) payload: (usize, usize),
}

impl Head {
    /// Reads the head at the front of the bytes; `None` while the frame is not whole.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (length, mut start) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
            short => (u64::from(short), 2),
        };
        let mask = match second & 0x80 {
            0 => None,
            _ => {
                start += 4;
                Some(*bytes.get(start - 4..)?.first_chunk()?)
            }
        };
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        (bytes.len() >= end).then_some(Self {
            opcode: first & 0xf,
            mask,
            payload: (start, end),
        })
    }
}

/// Applies a masking key, which also takes it away.
pub(crate) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let mut chunks = payload.chunks_exact_mut(4);
    for chunk in &mut chunks {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// Appends a command as Redis takes it (RESP2).
pub(crate) fn push_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    push_size(out, b'*', words.len());
    for word in words {
        push_size(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend(b"\r\n");
    }
}

fn push_size(out: &mut Vec<u8>, kind: u8, size: usize) {
    out.push(kind);
    push_decimal(out, size as u64);
    out.extend(b"\r\n");
}

/// Appends a number in decimal.
pub(crate) fn push_decimal(out: &mut Vec<u8>, value: u64) {
    let start = out.len();
    let mut rest = value;
    loop {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out[start..].reverse();
}

/// Finds the end of an HTTP head, behind its blank line.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// The bytes a stamp takes in a payload.
pub(crate) const STAMP_BYTES: usize = 32;
/// Opcodes of RFC 6455 §11.8.
pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// The key every device sends, and the only answer to it (RFC 6455 §1.3).
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const HEX: &[u8; 16] = b"0123456789abcdef";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp {
            run: 7,
            device: 17_999,
            seq: 123_456,
            due_ns: 0x0123_4567_89ab_cdef,
        };
        let mut payload = Vec::new();
        stamp.write(&mut payload, 128);
        assert_eq!(payload.len(), 128);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        let body = format!(
            r#"{{"client_id":"dev17999","data":"{}"}}"#,
            String::from_utf8(payload).unwrap()
        );
        let all = |body: &str| Stamp::read_json(body.as_bytes()).collect::<Vec<_>>();
        assert_eq!(all(&body), [stamp]);
        assert_eq!(all(&format!("[{body},{body}]")), [stamp, stamp]);
        assert_eq!(Stamp::read(b"hello"), None);
        assert_eq!(all(r#"{"data":"hello"}"#), []);
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for is_masked in [false, true] {
                let payload: Vec<u8> = (0..length).map(|n| n as u8).collect();
                let mut frame = Vec::new();
                push_frame(&mut frame, TEXT, &payload, is_masked);
                assert_eq!(Head::read(&frame[..frame.len() - 1]), None);
                let head = Head::read(&frame).unwrap();
                assert_eq!((head.opcode, head.payload.1), (TEXT, frame.len()));
                let read = &mut frame[head.payload.0..head.payload.1];
                if let Some(mask) = head.mask {
                    unmask(read, mask);
                }
                assert_eq!(read, payload);
            }
        }
    }

    #[test]
    fn a_command_is_written_as_redis_takes_it() {
        let mut out = Vec::new();
        push_command(&mut out, &[b"PUBLISH", b"a", b"0123456789"]);
        assert_eq!(
            out,
            b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$10\r\n0123456789\r\n"
        );
    }
}
