//! A connection of HTTP/2, which all requests share.

use std::{error::Error as _, future::Future, io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    client::conn::{TrySendError, http2},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Answer, IDLE_TIMEOUT,
    connect::{BoxError, Opened},
    exchange::{DRAIN_GRACE, Failure, LONGEST_BODY_BYTES, Wanted},
    request::Request,
};
use crate::tasks::Tasks;

/// A connection of HTTP/2, or a share in it.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Full<Bytes>>,
    /// One for the pool, one for each request.
    shares: Arc<()>,
    expires: Instant,
    pub(super) used_at: Instant,
}

impl Http2 {
    pub(super) async fn new(
        opened: Opened,
        expires: Instant,
        tasks: &Tasks,
    ) -> Result<Self, BoxError> {
        let (sender, connection) = http2::Builder::new(Spawner(tasks.clone()))
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(LONGEST_HEAD_BYTES)
            .handshake(opened.io)
            .await?;
        tasks.spawn_until_stopped(async move {
            let _ = connection.await; // why it ended is told to whoever waits for an answer
        });
        Ok(Self {
            sender,
            shares: Arc::new(()),
            expires,
            used_at: Instant::now(),
        })
    }

    pub(super) async fn exchange(
        &mut self,
        request: &Request<'_>,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let exchange = async {
            let answer = self.sender.try_send_request(request.to_http2()).await;
            let answer = answer.map_err(failure_of_stream)?;
            Ok(read(answer, wanted).await)
        };
        let answer = timeout_at(deadline, exchange).await;
        answer.unwrap_or(Err(Failure::Late))
    }

    /// Whether both are shares of one connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shares, &other.shares)
    }

    pub(super) fn is_usable(&self, now: Instant) -> bool {
        now < self.expires && !self.sender.is_closed()
    }

    pub(super) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.shares) > 1
    }

    /// Whether it is to be closed: of no use any more, or not used for a while.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let is_idle = !self.is_in_use() && now >= self.used_at + IDLE_TIMEOUT;
        is_idle || !self.is_usable(now)
    }
}

/// What a stream that ended without an answer means. REFUSED_STREAM and a GOAWAY without error say that it was not processed
/// (RFC 9113 §8.7); a connection that breaks or does not answer to pings says nothing; any other reset is about the request.
fn failure_of_stream(error: TrySendError<http::Request<Full<Bytes>>>) -> Failure {
    let is_given_back = error.message().is_some();
    let error = error.into_error();
    // hyper drops a request that waits for its stream when the connection ends, and blames us for it.
    let is_unsent = is_given_back || error.is_user();
    let cause = error.source();
    let is_io = cause.is_some_and(|cause| cause.is::<io::Error>());
    let cause = cause.and_then(|cause| cause.downcast_ref::<h2::Error>());
    let said = cause.filter(|cause| cause.is_remote());
    let said = said.map(|cause| (cause.is_go_away(), cause.reason()));
    let is_dead = is_io || error.is_timeout() || cause.is_some_and(h2::Error::is_go_away);
    match said {
        _ if is_unsent => Failure::Unbegun(error.into()),
        Some((true, Some(h2::Reason::NO_ERROR))) => Failure::Unbegun(error.into()),
        Some((false, Some(h2::Reason::REFUSED_STREAM))) => Failure::Refused(error.into()),
        _ if is_dead => Failure::Unheard(error.into()),
        _ => Failure::Broken(error.into()),
    }
}

/// Reads what of the body is wanted; else reads it to its end if that comes soon, so that the connection can be used again.
async fn read(answer: Response<Incoming>, wanted: Wanted) -> Answer {
    let (head, body) = answer.into_parts();
    let most = wanted.most(head.status);
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

/// Runs what a connection of HTTP/2 starts in a group of tasks.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        self.0.spawn_until_stopped(task);
    }
}

/// Of a longer one not even the status can be known.
const LONGEST_HEAD_BYTES: u32 = 256 << 10;
/// A connection of HTTP/2 that is in use and silent for so long is asked whether it lives, and given up without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What answers may hold in memory before they are read.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
