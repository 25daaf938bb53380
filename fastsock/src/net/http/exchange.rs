//! One request and its answer: how much of it is wanted, and why there may be none.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::{Answer, connect::BoxError};

/// How many bytes of the body of an answer are wanted: that many, or the whole is not.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// Of a 200.
    OfOk(usize),
    /// Whatever the status.
    OfAny(usize),
}

/// Why there is no answer.
pub(super) enum Failure {
    /// Not a byte of the request was sent, or the backend says that it has not begun to process it: and the connection takes no
    /// other.
    Unbegun(BoxError),
    /// The connection broke before a byte of the answer came.
    Unheard(BoxError),
    /// The backend says that it has not begun to process the request, and the connection stays.
    #[cfg(feature = "tls")]
    Refused(BoxError),
    /// Anything else.
    Broken(BoxError),
}

impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        match failure {
            #[cfg(feature = "tls")]
            Failure::Refused(error) => error,
            Failure::Unbegun(error) | Failure::Unheard(error) | Failure::Broken(error) => error,
        }
    }
}

/// Reads what of the body is wanted; else reads it to its end if that comes soon, so that the connection can be used again.
pub(super) async fn read(answer: Response<Incoming>, wanted: Wanted) -> Answer {
    let (head, body) = answer.into_parts();
    let most = match wanted {
        Wanted::OfOk(_) if head.status != StatusCode::OK => 0,
        Wanted::OfOk(most) | Wanted::OfAny(most) => most,
    };
    let body = if body.is_end_stream() {
        Some(Bytes::new())
    } else if most > 0 {
        read_to_end(body, most, true).await
    } else {
        let reading = read_to_end(body, LONGEST_BODY_BYTES, false);
        timeout(DRAIN_GRACE, reading).await.unwrap_or(None)
    };
    Answer {
        status: head.status,
        headers: head.headers,
        body,
    }
}

/// The body, or nothing of it when only its end is asked for; `None` when it is longer than that, or breaks off.
async fn read_to_end(mut body: Incoming, most: usize, is_wanted: bool) -> Option<Bytes> {
    if body.size_hint().lower() > most as u64 {
        return None;
    }
    let mut whole = BytesMut::new();
    let mut left = most;
    while let Some(frame) = body.frame().await {
        let frame = frame.ok()?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        left = left.checked_sub(data.len())?;
        if is_wanted {
            whole.extend_from_slice(data);
        }
    }
    Some(whole.freeze())
}

/// A body that is longer, or takes longer once the head is here, costs its connection and nothing else.
const LONGEST_BODY_BYTES: usize = 64 << 10;
const DRAIN_GRACE: Duration = Duration::from_millis(100);
