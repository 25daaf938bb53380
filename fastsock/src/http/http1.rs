//! A connection of HTTP/1.1, which carries one request at a time.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    Answer, IDLE_TIMEOUT,
    connect::{BoxError, BoxIo, Opened},
    exchange::{Failure, LONGEST_HEAD_BYTES, Wanted, read},
};

/// A connection of HTTP/1.1.
pub(super) struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    has_spoken: Arc<AtomicBool>,
    /// A proxy reads the requests.
    pub(super) is_proxied: bool,
    expires: Instant,
    pub(super) idle_since: Instant,
}

/// What reads and writes for a connection of HTTP/1.1 while it is polled.
struct Driver {
    connection: http1::Connection<TokioIo<Wire>, Full<Bytes>>,
    has_ended: bool,
}

impl Http1 {
    pub(super) async fn new(opened: Opened, expires: Instant) -> Result<Self, BoxError> {
        let has_spoken = Arc::new(AtomicBool::new(false));
        let wire = Wire {
            io: TokioIo::new(opened.io),
            has_spoken: has_spoken.clone(),
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
            driver: Driver {
                connection,
                has_ended: false,
            },
            has_spoken,
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
        self.has_spoken.store(false, Relaxed);
        // Pinned here, like all that a request waits for: a future that is handed on by value takes its room twice.
        let answer = pin!(self.sender.try_send_request(request));
        let answer = self.driver.until(answer).await.map_err(|error| {
            let is_unsent = error.message().is_some();
            let error = error.into_error().into();
            match self.has_spoken.load(Relaxed) {
                _ if is_unsent => Failure::Unsent(error),
                false => Failure::Unheard(error),
                true => Failure::Broken(error),
            }
        })?;
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

    /// Whether the next request can be sent: the last was answered to its end, and the other side keeps the connection.
    pub(super) fn is_ready(&self) -> bool {
        !self.driver.has_ended && self.sender.is_ready()
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
        // Why it ended is told to whoever waits for an answer.
        self.has_ended = self.has_ended || Pin::new(&mut self.connection).poll(cx).is_ready();
    }
}

/// A byte stream that knows whether something came.
struct Wire {
    io: TokioIo<BoxIo>,
    has_spoken: Arc<AtomicBool>,
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
            self.has_spoken.store(true, Relaxed);
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
