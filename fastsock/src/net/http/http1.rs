//! A connection of HTTP/1.1, which carries one request at a time.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    Answer, IDLE_TIMEOUT,
    connect::{BoxError, BoxIo, Opened},
    exchange::{Failure, Wanted, read},
};

/// A connection of HTTP/1.1.
pub(super) struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    heard: Heard,
    /// A proxy reads the requests.
    pub(super) is_proxied: bool,
    expires: Instant,
    pub(super) idle_since: Instant,
}

/// What reads and writes for a connection of HTTP/1.1 while it is polled; nothing once that has ended.
struct Driver(Option<http1::Connection<TokioIo<Wire>, Full<Bytes>>>);

impl Http1 {
    pub(super) async fn new(opened: Opened, expires: Instant) -> Result<Self, BoxError> {
        let heard = Heard::default();
        let wire = Wire {
            io: TokioIo::new(opened.io),
            heard: heard.clone(),
        };
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true) // as Node spells them
            .writev(false) // bodies are small: copying costs less than letting the kernel gather
            .ignore_invalid_headers_in_responses(true) // nothing here reads them
            .max_buf_size(LONGEST_HEAD_BYTES)
            .handshake(TokioIo::new(wire))
            .await?;
        Ok(Self {
            sender,
            driver: Driver(Some(connection)),
            heard,
            is_proxied: opened.is_proxied,
            expires,
            idle_since: Instant::now(),
        })
    }

    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        wanted: Wanted,
    ) -> Result<Answer, Failure> {
        self.heard.forget();
        // Pinned here, like all that a request waits for: a future that is handed on by value takes its room twice.
        let answer = pin!(self.sender.try_send_request(request));
        let answer = match self.driver.until(answer).await {
            Ok(answer) => answer,
            Err(error) => return self.without_head(error),
        };
        let answer = self.driver.until(pin!(read(answer, wanted))).await;
        if !self.sender.is_ready() {
            // Now it has only to notice that all is done.
            poll_fn(|cx| {
                self.driver.poll(cx);
                Poll::Ready(())
            })
            .await;
        }
        Ok(answer)
    }

    /// What to make of an answer whose head could not be read. Its status counts when that could: the backend has the
    /// message, and is not to get it again for an answer that it will not make any better.
    fn without_head(&self, error: TrySendError<Request<Full<Bytes>>>) -> Result<Answer, Failure> {
        let is_unsent = error.message().is_some();
        let error = error.into_error();
        match self.heard.status() {
            _ if is_unsent => Err(Failure::Unbegun(error.into())),
            None if !self.heard.anything() => Err(Failure::Unheard(error.into())),
            Some(status) if error.is_parse() => {
                tracing::debug!(%status, %error, "only the status of an answer can be read");
                Ok(Answer {
                    status,
                    headers: HeaderMap::new(),
                    body: None,
                })
            }
            _ => Err(Failure::Broken(error.into())),
        }
    }

    /// Whether the next request can be sent: the last was answered to its end, and the other side keeps the connection.
    pub(super) fn is_ready(&self) -> bool {
        self.driver.0.is_some() && self.sender.is_ready()
    }

    /// Looks whether the other side has closed it. No system call while nothing has come.
    pub(super) fn has_ended(&mut self) -> bool {
        self.driver.poll(&mut Context::from_waker(Waker::noop()));
        self.driver.0.is_none()
    }

    pub(super) fn is_usable(&self, now: Instant) -> bool {
        now < self.expires && now < self.idle_since + IDLE_TIMEOUT
    }

    /// Says good-bye, where TLS has a word for it, without waiting.
    pub(super) fn close(self: Box<Self>) {
        let Self { sender, driver, .. } = *self;
        drop(sender);
        let mut driver = driver;
        driver.poll(&mut Context::from_waker(Waker::noop()));
    }
}

impl Driver {
    /// Runs the connection until what it is to bring is there.
    async fn until<T>(&mut self, mut brought: Pin<&mut impl Future<Output = T>>) -> T {
        poll_fn(|cx| {
            self.poll(cx);
            brought.as_mut().poll(cx)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        // Why it ended is told to whoever waits for an answer, and a request that was not begun comes back: but only once the
        // connection is dropped.
        if let Some(connection) = &mut self.0
            && Pin::new(connection).poll(cx).is_ready()
        {
            self.0 = None;
        }
    }
}

/// The first that was heard of an answer, shared by a connection and its [`Wire`].
#[derive(Clone, Default)]
struct Heard(Arc<AtomicU16>);

impl Heard {
    fn forget(&self) {
        self.0.store(NOTHING, Relaxed);
    }

    /// Takes note of the first bytes.
    fn take(&self, bytes: &[u8]) {
        if self.0.load(Relaxed) == NOTHING {
            self.0.store(status_of(bytes).unwrap_or(SOMETHING), Relaxed);
        }
    }

    fn anything(&self) -> bool {
        self.0.load(Relaxed) != NOTHING
    }

    /// The status, when that came whole with the first bytes.
    fn status(&self) -> Option<StatusCode> {
        let status = StatusCode::from_u16(self.0.load(Relaxed)).ok();
        status.filter(|status| !status.is_informational())
    }
}

/// The three digits of a status line.
fn status_of(bytes: &[u8]) -> Option<u16> {
    let rest = bytes.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5).filter(|_| rest[1] == b' ')?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

const NOTHING: u16 = 0;
/// Less than a status line, or none. No status either.
const SOMETHING: u16 = 1;

/// A byte stream that listens for the first bytes of an answer.
struct Wire {
    io: TokioIo<BoxIo>,
    heard: Heard,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.heard.take(&buffer.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Of a longer one the status counts, and nothing else.
const LONGEST_HEAD_BYTES: usize = 64 << 10;
