//! permessage-deflate (RFC 7692): compressors and inflaters that all sessions share, each for the time of one message.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, Status};

use crate::{locks::Mutex, stats::Running, types::Payload};

/// Compressors and inflaters for any session: context is never taken over, so that an idle device holds none.
#[derive(Default)]
pub(crate) struct Codecs {
    idle: Mutex<Idle>,
    recent: Mutex<Recent>,
    running: Arc<Running>,
}

/// The last messages that many devices get, as they were compressed for the first of them.
#[derive(Default)]
struct Recent {
    /// The newest last; at most [`RECENT`] of them.
    messages: VecDeque<Compressed>,
    /// What they hold. Beyond [`RECENT_BYTES`] only the newest stays.
    bytes: usize,
}

/// What one message became in frames of one kind.
#[derive(Clone)]
struct Compressed {
    /// The message. It is held, so no other has its address.
    message: Bytes,
    /// Length of the frame's payload, which has more than the message where there are envelopes.
    length: usize,
    window_bits: u8,
    /// `None`: it does not get smaller.
    packed: Option<Bytes>,
}

/// Those that nobody uses now; at most [`KEPT`] of a kind.
#[derive(Default)]
struct Idle {
    inflaters: Vec<Decompress>,
    /// By window, from 2^9 to 2^15 bytes.
    compressors: [Vec<Compress>; 7],
}

impl Codecs {
    /// None yet; what they do is counted in `running`.
    pub(crate) fn new(running: Arc<Running>) -> Self {
        Self {
            idle: Mutex::default(),
            recent: Mutex::default(),
            running,
        }
    }

    /// [`Codecs::compress`] for the payload of the frame of a message: once for all devices that get the same.
    pub(super) fn compress_message(
        &self,
        message: &Payload,
        whole: &Bytes,
        window_bits: u8,
    ) -> Option<Bytes> {
        if !message.is_for_many() {
            return self.compress(whole, window_bits);
        }
        let wanted = Compressed {
            message: message.as_bytes().clone(),
            length: whole.len(),
            window_bits,
            packed: None,
        };
        if let Some(packed) = self.recent.lock().find(&wanted) {
            if let Some(packed) = &packed {
                self.count(packed.len(), whole.len());
            }
            return packed;
        }
        let packed = self.compress(whole, window_bits);
        self.recent.lock().push(Compressed {
            packed: packed.clone(),
            ..wanted
        });
        packed
    }

    /// The bytes compressed for an inflater with a window of 2^`window_bits` bytes; `None` when they do not get fewer.
    pub(super) fn compress(&self, bytes: &[u8], window_bits: u8) -> Option<Bytes> {
        let kind = usize::from(window_bits - 9);
        let kept = self.idle.lock().compressors[kind].pop();
        let mut compressor =
            kept.unwrap_or_else(|| Compress::new_with_window_bits(LEVEL, false, window_bits));
        // One byte less than it was, and the tail that is cut off.
        let mut packed = Vec::with_capacity(bytes.len() - 1 + TAIL.len());
        let status = compressor.compress_vec(bytes, &mut packed, FlushCompress::Sync);
        // With room left everything is out. RFC 7692 §7.2.1
        let is_whole = matches!(status, Ok(Status::Ok))
            && compressor.total_in() == bytes.len() as u64
            && packed.len() < packed.capacity()
            && packed.ends_with(&TAIL);
        compressor.reset();
        let compressors = &mut self.idle.lock().compressors[kind];
        if compressors.len() < KEPT {
            compressors.push(compressor);
        }
        packed.truncate(packed.len().saturating_sub(TAIL.len()));
        packed.shrink_to_fit();
        is_whole.then(|| {
            self.count(packed.len(), bytes.len());
            packed.into()
        })
    }

    /// A message goes out compressed to so many bytes.
    fn count(&self, compressed: usize, inflated: usize) {
        self.running.downlinks_compressed.add(1);
        self.running
            .downlinks_compressed_bytes
            .add(compressed as u64);
        self.running.downlinks_inflated_bytes.add(inflated as u64);
    }

    /// One for the next message of a device.
    pub(super) fn inflater(&self) -> Decompress {
        let kept = self.idle.lock().inflaters.pop();
        kept.unwrap_or_else(|| Decompress::new(false))
    }

    /// A message came compressed to so many bytes.
    pub(super) fn inflated(&self, compressed: u64, inflated: u64) {
        self.running.uplinks_compressed.add(1);
        self.running.uplinks_compressed_bytes.add(compressed);
        self.running.uplinks_inflated_bytes.add(inflated);
    }

    /// Its message is over.
    pub(super) fn give_back(&self, mut inflater: Decompress) {
        inflater.reset(false);
        let inflaters = &mut self.idle.lock().inflaters;
        if inflaters.len() < KEPT {
            inflaters.push(inflater);
        }
    }
}

impl Recent {
    /// What became of the same message in the same kind of frame, if that is known.
    fn find(&self, wanted: &Compressed) -> Option<Option<Bytes>> {
        let mut newest_first = self.messages.iter().rev();
        let found = newest_first.find(|known| known.is_same(wanted))?;
        Some(found.packed.clone())
    }

    fn push(&mut self, compressed: Compressed) {
        self.bytes += compressed.bytes();
        self.messages.push_back(compressed);
        while self.messages.len() > 1 && (self.messages.len() > RECENT || self.bytes > RECENT_BYTES)
        {
            let oldest = self.messages.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| oldest.bytes());
        }
    }
}

impl Compressed {
    fn is_same(&self, other: &Self) -> bool {
        // By address: comparing bytes takes as long as many a compression.
        let place = |it: &Self| (it.message.as_ptr(), it.message.len());
        place(self) == place(other)
            && (self.length, self.window_bits) == (other.length, other.window_bits)
    }

    fn bytes(&self) -> usize {
        self.message.len() + self.packed.as_ref().map_or(0, Bytes::len)
    }
}

/// Whether a downlink of so many bytes is compressed: fewer gain nothing, and more would keep other sessions waiting.
pub(super) fn is_worth_it(length: usize) -> bool {
    (COMPRESSED_FROM..=COMPRESSED_TO).contains(&length)
}

/// What a message ends with that is not sent.
pub(super) const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
const COMPRESSED_FROM: usize = 128;
const COMPRESSED_TO: usize = 1 << 20;
const LEVEL: Compression = Compression::new(6);
/// One is in use on each thread at most, but for inflaters whose message is not whole yet.
const KEPT: usize = 8;
/// Several messages to a group wait in the outboxes of all its members, and members have several windows.
const RECENT: usize = 32;
const RECENT_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_get_smaller_is_sent_as_it_is() {
        let codecs = Codecs::default();
        let mut random = fastrand::Rng::with_seed(7);
        for length in [128, 1000, 100_000] {
            let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
                .take(length)
                .collect();
            assert_eq!(codecs.compress(&noise, 15), None, "{length}");
        }
    }

    #[test]
    fn a_message_for_many_is_compressed_once_for_each_kind_of_frame() {
        let codecs = Codecs::default();
        let text = |n: usize| format!("{n:09}").repeat(100);
        let of = |message: &Payload, bits| {
            let whole = message.as_bytes();
            codecs.compress_message(message, whole, bits).unwrap()
        };
        let (group, alone) = (Payload::text(text(1)).for_many(), Payload::text(text(1)));
        let first = of(&group, 15);
        assert_eq!(of(&group.clone(), 15).as_ptr(), first.as_ptr());
        let small = of(&group, 9);
        assert_eq!(of(&group, 9).as_ptr(), small.as_ptr());
        assert_ne!(small.as_ptr(), first.as_ptr());
        // The same text from somebody else, and one for a single device.
        let again = Payload::text(text(1)).for_many();
        for other in [&again, &alone, &alone] {
            let packed = of(other, 15);
            assert!(packed == first && packed.as_ptr() != first.as_ptr());
        }
        let envelope = Bytes::from(format!("{{\"data\":\"{}\"}}", text(1)));
        let enveloped = codecs.compress_message(&group, &envelope, 15).unwrap();
        assert_ne!(enveloped, first);
        // What does not get smaller is not tried again either.
        let mut random = fastrand::Rng::with_seed(7);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(256).collect();
        let noise = Payload::binary(noise).for_many();
        let known = codecs.recent.lock().messages.len();
        for _ in 0..2 {
            let packed = codecs.compress_message(&noise, noise.as_bytes(), 15);
            assert_eq!(packed, None);
        }
        assert_eq!(codecs.recent.lock().messages.len(), known + 1);
        // A burst is kept, and no more than that.
        let burst: Vec<_> = (0..2 * RECENT)
            .map(|n| Payload::text(text(n)).for_many())
            .collect();
        let last: Vec<_> = burst.iter().map(|message| of(message, 15)).collect();
        assert_eq!(codecs.recent.lock().messages.len(), RECENT);
        for (message, packed) in burst.iter().zip(&last).skip(RECENT) {
            assert_eq!(of(message, 15).as_ptr(), packed.as_ptr());
        }
        let large = Payload::text("x".repeat(RECENT_BYTES)).for_many();
        of(&large, 15);
        assert_eq!(codecs.recent.lock().messages.len(), 1);
    }

    #[test]
    fn each_message_is_compressed_by_itself() {
        let codecs = Codecs::default();
        let text =
            br#"{"id":1,"level":"warning","text":"the same again, the same again"}"#.repeat(3);
        for bits in 9..=15 {
            let first = codecs.compress(&text, bits).unwrap();
            assert!(first.len() < text.len() / 2);
            assert_eq!(codecs.compress(&text, bits).unwrap(), first);
            let mut inflated = Vec::with_capacity(text.len() + 1);
            let mut inflater = Decompress::new_with_window_bits(false, bits);
            let packed = [&first[..], &TAIL].concat();
            let flush = flate2::FlushDecompress::Sync;
            inflater
                .decompress_vec(&packed, &mut inflated, flush)
                .unwrap();
            assert_eq!(inflated, text);
        }
        let idle = codecs.idle.lock();
        assert!(idle.compressors.iter().all(|kept| kept.len() == 1));
    }
}
