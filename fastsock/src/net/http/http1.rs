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
            listener: Listener::default(),
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

/// The status that was heard of an answer, shared by a connection and its [`Wire`].
#[derive(Clone, Default)]
struct Heard(Arc<AtomicU16>);

impl Heard {
    fn forget(&self) {
        self.0.store(NOTHING, Relaxed);
    }

    fn anything(&self) -> bool {
        self.0.load(Relaxed) != NOTHING
    }

    /// That of the answer itself, not of an interim one (RFC 9110 §15.2).
    fn status(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.0.load(Relaxed)).ok()
    }
}

const NOTHING: u16 = 0;
/// Bytes, but no status yet; or something that has none. No status either.
const SOMETHING: u16 = 1;

/// Reads the status of an answer, in whatever pieces it comes.
#[derive(Default)]
enum Listener {
    /// Before a status line.
    #[default]
    Before,
    /// The beginning of a status line, as far as it has come.
    Line([u8; STATUS_LINE], usize),
    /// The rest of an interim answer, and whether a line begins.
    Interim(bool),
    /// It has the status, or there is none.
    Done,
}

impl Listener {
    /// Takes more bytes. Returns the status once it is there.
    fn take(&mut self, bytes: &[u8]) -> Option<u16> {
        bytes.iter().find_map(|byte| self.take_one(*byte))
    }

    fn take_one(&mut self, byte: u8) -> Option<u16> {
        match self {
            Self::Before if matches!(byte, b'\r' | b'\n') => {} // an empty line before it is nothing
            Self::Before => {
                let mut line = [0; STATUS_LINE];
                line[0] = byte;
                *self = Self::Line(line, 1);
            }
            Self::Line(line, length) => {
                line[*length] = byte;
                *length += 1;
                if *length == STATUS_LINE {
                    let status = status_of(line);
                    let is_interim = status.is_some_and(|s| (100..200).contains(&s) && s != 101);
                    *self = match is_interim {
                        true => Self::Interim(false),
                        false => Self::Done,
                    };
                    return status.filter(|_| !is_interim);
                }
            }
            Self::Interim(true) if byte == b'\n' => *self = Self::Before,
            Self::Interim(begins) => *begins = byte == b'\n' || (*begins && byte == b'\r'),
            Self::Done => {}
        }
        None
    }
}

/// The three digits of a status line.
fn status_of(line: &[u8; STATUS_LINE]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5).filter(|_| rest[1] == b' ')?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Bytes of `HTTP/1.1 200`.
const STATUS_LINE: usize = 12;

/// A byte stream that listens for the status of an answer.
struct Wire {
    io: TokioIo<BoxIo>,
    heard: Heard,
    listener: Listener,
}

impl Wire {
    fn listen(&mut self, bytes: &[u8]) {
        match self.heard.0.load(Relaxed) {
            NOTHING => self.listener = Listener::default(),
            SOMETHING => {}
            _ => return,
        }
        let status = self.listener.take(bytes).unwrap_or(SOMETHING);
        self.heard.0.store(status, Relaxed);
    }
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
            self.listen(&buffer.filled()[before..]);
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

#[cfg(test)]
mod tests {
    use http::Method;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What is made of these bytes when they come in pieces of so many.
    async fn answer(bytes: &str, piece: usize) -> Result<StatusCode, Failure> {
        let (ours, mut theirs) = duplex(piece);
        let opened = Opened {
            io: Box::new(TokioIo::new(ours)),
            is_proxied: false,
            #[cfg(feature = "tls")]
            is_http2: false,
        };
        let expires = Instant::now() + IDLE_TIMEOUT;
        let mut http1 = Http1::new(opened, expires).await.ok().unwrap();
        let request = Request::builder().method(Method::POST).uri("/");
        let request = request
            .header("host", "h")
            .body(Full::new("x".into()))
            .unwrap();
        let serve = async {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\nx") {
                theirs.read_buf(&mut asked).await.unwrap();
            }
            let _ = theirs.write_all(bytes.as_bytes()).await; // the rest may not be read
            drop(theirs);
        };
        let exchange = async {
            let answer = http1.exchange(request, Wanted::OfOk(0)).await;
            drop(http1);
            answer
        };
        let (answer, ()) = tokio::join!(exchange, serve);
        answer.map(|answer| answer.status)
    }

    #[tokio::test]
    async fn a_head_that_cannot_be_read_counts_by_its_status_in_whatever_pieces_it_comes() {
        let fields: String = (0..150).map(|n| format!("x-{n}: y\r\n")).collect();
        let head = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
        let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        for before in ["", "\r\n", go_on, early, &early.repeat(3)] {
            for piece in [1, 7, 12, 13, 1 << 20] {
                let answer = answer(&format!("{before}{head}"), piece).await;
                assert_eq!(answer.ok(), Some(StatusCode::OK), "{before:?} {piece}");
            }
        }
        for cut in ["HTTP/1.1 20", go_on, "nonsense of some length"] {
            assert!(answer(cut, 5).await.is_err(), "{cut:?}");
        }
    }
}
