//! Waiting for a peer to read the last word. A socket closed with unread input sends a reset, which can overtake the
//! close frame or refusal; so input is discarded for a while. RFC 9112 §9.6.

use std::sync::{Arc, atomic::AtomicUsize};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

use crate::gateway::shared::Place;

/// Discards input until the peer closes, the deadline, or 64 MiB; not at all when `at_most` others wait already.
/// The stream's writing side is shut down already.
pub(crate) async fn linger(
    mut stream: impl AsyncRead + Unpin,
    deadline: Instant,
    lingering: &Arc<AtomicUsize>,
    at_most: usize,
) {
    let Some(_place) = Place::take(lingering, at_most) else {
        return;
    };
    let mut scratch = vec![0; 16 << 10];
    let mut left = DISCARD_MAX_BYTES;
    let discard = async {
        while let Ok(read @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout_at(deadline, discard).await;
}

const DISCARD_MAX_BYTES: usize = 64 << 20;
/// Sockets that may wait at once: each holds a descriptor and 16 KiB.
pub(crate) const LINGERING_MAX: usize = 1024;
/// The same when there are no descriptors to spare.
pub(crate) const LINGERING_MAX_WHEN_FULL: usize = 16;
