//! The bytes of a device that compresses, as tungstenite takes them: it knows no RSV1. A compressed message becomes plain fragments
//! of some KiB, and everything else passes as it is.

use std::sync::Arc;

use flate2::{Decompress, FlushDecompress, Status};

use super::deflate::{Codecs, TAIL};
use crate::types::CloseReason;

/// Between the bytes of a device and whoever reads its frames. While nothing is under way it holds no memory of its own.
pub(super) struct Inflating {
    codecs: Arc<Codecs>,
    /// Longest message in bytes, inflated.
    limit: u64,
    /// From the device, and how much of it is done with.
    raw: Vec<u8>,
    raw_at: usize,
    /// Frames without compression, and how much of them is read.
    plain: Vec<u8>,
    plain_at: usize,
    part: Part,
    message: Message,
    fault: Option<CloseReason>,
}

/// What the next byte of the device belongs to.
#[derive(Clone, Copy)]
enum Part {
    Head,
    /// A payload that passes as it is, of which so many bytes are to come.
    Passing(u64),
    /// A payload that is compressed.
    Packed {
        left: u64,
        mask: [u8; 4],
        is_final: bool,
    },
    /// Nothing of the device: what a compressed message ends with, from there.
    Tail(usize),
}

/// The message whose fragments come.
enum Message {
    None,
    Plain,
    Packed(Box<Packed>),
}

struct Packed {
    inflater: Decompress,
    /// Of the next fragment.
    opcode: u8,
    /// Room for a head, and what is inflated of the next fragment.
    chunk: Vec<u8>,
    /// Announced by the heads so far.
    announced: u64,
    /// Inflated so far, and to how much.
    compressed: u64,
    inflated: u64,
}

impl Inflating {
    /// `rest` is what the device has sent already.
    pub(super) fn new(codecs: Arc<Codecs>, limit: usize, rest: Vec<u8>) -> Self {
        Self {
            codecs,
            limit: limit as u64,
            raw: rest,
            raw_at: 0,
            plain: Vec::new(),
            plain_at: 0,
            part: Part::Head,
            message: Message::None,
            fault: None,
        }
    }

    /// More bytes of the device.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    /// Copies frames without compression. 0: more bytes of the device are needed, or nothing more comes ([`Inflating::fault`]).
    pub(super) fn read(&mut self, into: &mut [u8]) -> usize {
        while self.plain_at == self.plain.len() && self.fault.is_none() {
            self.plain = Vec::new();
            self.plain_at = 0;
            match self.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(reason) => self.fault = Some(reason),
            }
        }
        if self.raw_at == self.raw.len() {
            self.raw = Vec::new();
            self.raw_at = 0;
        }
        let unread = &self.plain[self.plain_at..];
        let length = unread.len().min(into.len());
        into[..length].copy_from_slice(&unread[..length]);
        self.plain_at += length;
        if self.plain_at == self.plain.len() {
            self.plain = Vec::new();
            self.plain_at = 0;
        }
        length
    }

    /// Whether it has nothing of the device, nor of a frame for whoever reads.
    pub(super) fn is_empty(&self) -> bool {
        self.raw.is_empty() && self.plain.is_empty() && matches!(self.part, Part::Head)
    }

    /// Whether all frames that it gave out were whole, and so were their messages. What it gives out at once is never of two frames.
    pub(super) fn is_between(&self) -> bool {
        matches!((&self.part, &self.message), (Part::Head, Message::None)) && self.plain.is_empty()
    }

    /// Why nothing more comes.
    pub(super) fn fault(&self) -> Option<&CloseReason> {
        self.fault.as_ref()
    }

    /// Goes on by a head or some bytes. `false` when that takes more of the device.
    fn step(&mut self) -> Result<bool, CloseReason> {
        let raw = &self.raw[self.raw_at..];
        if raw.is_empty() && !matches!(self.part, Part::Tail(_)) {
            return Ok(false);
        }
        match self.part {
            Part::Head => return self.head(),
            Part::Passing(left) => {
                let length = raw.len().min(CHUNK_BYTES).min(as_usize(left));
                self.plain.extend_from_slice(&raw[..length]);
                self.raw_at += length;
                self.part = match left - length as u64 {
                    0 => Part::Head,
                    left => Part::Passing(left),
                };
            }
            Part::Packed {
                left,
                mask,
                is_final,
            } => {
                let mut input = [0; INPUT_BYTES];
                let length = raw.len().min(INPUT_BYTES).min(as_usize(left));
                let masked = raw[..length].iter().zip(mask.iter().cycle());
                input
                    .iter_mut()
                    .zip(masked)
                    .for_each(|(to, (b, m))| *to = b ^ m);
                let (taken, _) = self.inflate(&input[..length])?;
                self.raw_at += taken;
                self.part = match left - taken as u64 {
                    0 => Self::behind(is_final),
                    left => Part::Packed {
                        left,
                        mask: rotated(mask, taken),
                        is_final,
                    },
                };
            }
            Part::Tail(at) => {
                let (taken, is_out) = self.inflate(&TAIL[at..])?;
                self.part = Part::Tail(at + taken);
                if at + taken == TAIL.len() && is_out {
                    self.finish();
                }
            }
        }
        Ok(true)
    }

    /// Reads the head of a frame, if it is whole.
    fn head(&mut self) -> Result<bool, CloseReason> {
        let raw = &self.raw[self.raw_at..];
        let Some((head, size)) = Head::read(raw) else {
            if self.raw_at > 0 {
                self.raw.drain(..self.raw_at);
                self.raw_at = 0;
            }
            return Ok(false);
        };
        let is_control = head.opcode >= 8;
        let is_first = matches!(head.opcode, 1 | 2);
        let begins = is_first && head.reserved == RSV1 && matches!(self.message, Message::None);
        if begins {
            self.message = Message::Packed(Box::new(Packed {
                inflater: self.codecs.inflater(),
                opcode: head.opcode,
                chunk: Vec::new(),
                announced: 0,
                compressed: 0,
                inflated: 0,
            }));
        }
        if let Message::Packed(packed) = &mut self.message
            && !is_control
        {
            let goes_on = head.opcode == 0 && head.reserved == 0;
            let (true, Some(mask)) = (begins || goes_on, head.mask) else {
                return Err(CloseReason::Protocol);
            };
            packed.announced = packed.announced.saturating_add(head.length);
            if packed.announced > self.limit + self.limit / 64 + 1024 {
                return Err(CloseReason::TooBig); // no encoder makes so much of so little
            }
            if packed.chunk.capacity() == 0 {
                let guess = as_usize(head.length).saturating_mul(4);
                packed.chunk = room_for(guess.clamp(256, CHUNK_BYTES));
            }
            self.part = match head.length {
                0 => Self::behind(head.is_final),
                left => Part::Packed {
                    left,
                    mask,
                    is_final: head.is_final,
                },
            };
        } else {
            // What is wrong with it tungstenite says, RSV1 in a wrong place included.
            if !is_control {
                self.message = match head.is_final {
                    true => Message::None,
                    false => Message::Plain,
                };
            }
            self.plain.extend_from_slice(&raw[..size]);
            if head.length > 0 {
                self.part = Part::Passing(head.length);
            }
        }
        self.raw_at += size;
        Ok(true)
    }

    fn behind(is_final: bool) -> Part {
        match is_final {
            true => Part::Tail(0),
            false => Part::Head,
        }
    }

    /// Inflates, at most as much as a fragment has room for; a full one goes out. Returns how many bytes were taken, and whether
    /// all that comes of them is in the fragment.
    fn inflate(&mut self, input: &[u8]) -> Result<(usize, bool), CloseReason> {
        let Message::Packed(packed) = &mut self.message else {
            return Err(CloseReason::Protocol); // never: a part of it comes
        };
        let (before_in, before_out) = (packed.inflater.total_in(), packed.inflater.total_out());
        let status =
            packed
                .inflater
                .decompress_vec(input, &mut packed.chunk, FlushDecompress::Sync);
        let taken = packed.inflater.total_in() - before_in;
        packed.compressed += taken;
        packed.inflated += packed.inflater.total_out() - before_out;
        match status {
            Ok(Status::Ok | Status::BufError) => {}
            // A last block (BFINAL) may have others behind it. RFC 7692 §7.2.3.4
            Ok(Status::StreamEnd) => packed.inflater.reset(false),
            Err(_) => return Err(CloseReason::Protocol),
        }
        let is_bomb =
            packed.inflated > FREE_BYTES && packed.inflated / MOST_TIMES > packed.compressed;
        if packed.inflated > self.limit || is_bomb {
            return Err(CloseReason::TooBig);
        }
        let chunk = &mut packed.chunk;
        let is_full = chunk.len() == chunk.capacity();
        if is_full {
            match chunk.len() < HEAD_BYTES + CHUNK_BYTES {
                true => chunk.reserve_exact(HEAD_BYTES + CHUNK_BYTES - chunk.len()),
                false => {
                    let full = std::mem::replace(chunk, room_for(CHUNK_BYTES));
                    let opcode = std::mem::replace(&mut packed.opcode, 0);
                    (self.plain, self.plain_at) = framed(full, opcode);
                }
            }
        }
        Ok((taken as usize, !is_full))
    }

    /// The message is whole: its last fragment goes out.
    fn finish(&mut self) {
        if let Message::Packed(packed) = std::mem::replace(&mut self.message, Message::None) {
            self.codecs.inflated(packed.announced, packed.inflated);
            self.codecs.give_back(packed.inflater);
            (self.plain, self.plain_at) = framed(packed.chunk, FINAL | packed.opcode);
        }
        self.part = Part::Head;
    }
}

/// What a frame begins with.
struct Head {
    is_final: bool,
    reserved: u8,
    opcode: u8,
    mask: Option<[u8; 4]>,
    length: u64,
}

impl Head {
    /// Reads one, and how many bytes it has; `None` while it is not whole.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (length, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u16::from_be_bytes(*length).into(), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            short => (short.into(), rest),
        };
        let (mask, rest) = match second & MASKED {
            0 => (None, rest),
            _ => {
                let (mask, rest) = rest.split_first_chunk()?;
                (Some(*mask), rest)
            }
        };
        let head = Self {
            is_final: first & FINAL != 0,
            reserved: first & 0x70,
            opcode: first & 0xf,
            mask,
            length,
        };
        Some((head, bytes.len() - rest.len()))
    }
}

/// Room for so much payload behind that for a head.
fn room_for(bytes: usize) -> Vec<u8> {
    let mut chunk = Vec::with_capacity(HEAD_BYTES + bytes);
    chunk.resize(HEAD_BYTES, 0);
    chunk
}

/// A fragment of a device: its head is written before its payload, with a mask that changes nothing. Returns where it begins.
fn framed(mut chunk: Vec<u8>, first: u8) -> (Vec<u8>, usize) {
    let length = chunk.len() - HEAD_BYTES;
    let at = match length {
        0..=125 => {
            chunk[2..8].copy_from_slice(&[first, MASKED | length as u8, 0, 0, 0, 0]);
            2
        }
        _ => {
            let [high, low] = (length as u16).to_be_bytes();
            chunk[..8].copy_from_slice(&[first, MASKED | 126, high, low, 0, 0, 0, 0]);
            0
        }
    };
    (chunk, at)
}

fn rotated(mut mask: [u8; 4], by: usize) -> [u8; 4] {
    mask.rotate_left(by % 4);
    mask
}

fn as_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const RSV1: u8 = 0x40;
/// First byte, length in three bytes, mask.
const HEAD_BYTES: usize = 8;
/// Payload of a fragment at most; below 64 KiB.
const CHUNK_BYTES: usize = 8 << 10;
/// Unmasked at once.
const INPUT_BYTES: usize = 1 << 10;
/// Beyond so many bytes a message may be so many times what was sent of it. Deflate comes to some 1000 at most.
const FREE_BYTES: u64 = 64 << 10;
const MOST_TIMES: u64 = 200;
