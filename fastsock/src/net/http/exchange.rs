//! One request and its answer: how much of it is wanted, and why there may be none.

use std::time::Duration;

use http::StatusCode;

use super::connect::BoxError;

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
    /// There was none by the deadline.
    Late,
    /// Anything else.
    Broken(BoxError),
}

impl Wanted {
    /// How many bytes of the body are wanted of an answer with this status.
    pub(super) fn most(self, status: StatusCode) -> usize {
        match self {
            Self::OfOk(_) if status != StatusCode::OK => 0,
            Self::OfOk(most) | Self::OfAny(most) => most,
        }
    }
}

impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        match failure {
            #[cfg(feature = "tls")]
            Failure::Refused(error) => error,
            Failure::Late => "no answer in time".into(),
            Failure::Unbegun(error) | Failure::Unheard(error) | Failure::Broken(error) => error,
        }
    }
}

/// A body that is longer, or takes longer once the head is here, costs its connection and nothing else.
pub(super) const LONGEST_BODY_BYTES: usize = 64 << 10;
pub(super) const DRAIN_GRACE: Duration = Duration::from_millis(100);
