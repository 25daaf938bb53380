//! A connection of HTTP/2, which all requests share.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::time::Instant;

use super::{
    Answer, IDLE_TIMEOUT,
    connect::{BoxError, Opened},
    exchange::{Failure, LONGEST_HEAD_BYTES, Wanted, read},
};
use crate::tasks::Tasks;

/// A connection of HTTP/2, or a share in it.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
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
        let (sender, connection) = hyper::client::conn::http2::Builder::new(Spawner(tasks.clone()))
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(LONGEST_HEAD_BYTES as u32)
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
        request: Request<Full<Bytes>>,
        wanted: Wanted,
    ) -> Result<Answer, Failure> {
        let answer = self.sender.try_send_request(request).await;
        let answer = answer.map_err(failure_of_stream)?;
        Ok(read(answer, wanted).await)
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

/// REFUSED_STREAM and a GOAWAY without error say that a stream was not processed (RFC 9113 §8.7).
fn failure_of_stream(error: hyper::client::conn::TrySendError<Request<Full<Bytes>>>) -> Failure {
    let is_unsent = error.message().is_some();
    let error = error.into_error();
    let cause = std::error::Error::source(&error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<h2::Error>());
    let is_unprocessed = cause.is_some_and(|cause| {
        let reason = cause.reason();
        let is_refused = cause.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
        let is_sent_away = cause.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
        cause.is_remote() && (is_refused || is_sent_away)
    });
    match is_unprocessed {
        _ if is_unsent => Failure::Unsent(error.into()),
        true => Failure::Unprocessed(error.into()),
        false => Failure::Broken(error.into()),
    }
}

/// Runs what a connection of HTTP/2 starts in a group of tasks.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        self.0.spawn_until_stopped(task);
    }
}

/// A connection of HTTP/2 that is in use and silent for so long is asked whether it lives, and given up without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What answers may hold in memory before they are read.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
