//! Waiting for a peer to read the last word. A socket closed with unread input sends a reset, which can overtake the
//! close frame or refusal; so input is discarded for a while. RFC 9112 §9.6.

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::Semaphore,
    time::{Instant, timeout_at},
};

/// Discards input until the peer closes, the deadline, or 64 MiB; not at all when no permit is left, as each who waits holds a
/// descriptor and 16 KiB. The stream's writing side is shut down already.
pub(crate) async fn linger(
    mut stream: impl AsyncRead + Unpin,
    deadline: Instant,
    permits: &Semaphore,
) {
    let Ok(_permit) = permits.try_acquire() else {
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
