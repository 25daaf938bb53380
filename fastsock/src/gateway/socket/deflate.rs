//! permessage-deflate (RFC 7692): compressors and inflaters that all sessions share, each for the time of one message.

use std::sync::Arc;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, Status};

use crate::locks::Mutex;

use crate::stats::Running;

/// Compressors and inflaters for any session: context is never taken over, so that an idle device holds none.
#[derive(Default)]
pub(crate) struct Codecs {
    idle: Mutex<Idle>,
    running: Arc<Running>,
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
            running,
        }
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
            let running = &self.running;
            running.downlinks_compressed.add(1);
            running.downlinks_compressed_bytes.add(packed.len() as u64);
            running.downlinks_inflated_bytes.add(bytes.len() as u64);
            packed.into()
        })
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
