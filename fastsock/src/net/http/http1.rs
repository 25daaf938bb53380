//! A connection of HTTP/1.1, which carries one request at a time.
//!
//! It is our own, since it is on the way of every uplink: the head of a request is made of bytes that are ready, head and body are
//! written at once, the answer is read where it came, and one timer is enough for all requests of a connection. It has no task.
//! Whoever waits for an answer runs it meanwhile; nobody looks at an idle one until it is used again, or idle for too long.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use hyper::rt::{Read as _, ReadBuf, Write as _};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    Answer, IDLE_TIMEOUT,
    answer::{Body, Head, Parsed},
    connect::{BoxError, BoxIo, Opened},
    exchange::{DRAIN_GRACE, Failure, LONGEST_BODY_BYTES, Wanted},
    request::Request,
};

/// A connection of HTTP/1.1.
pub(super) struct Http1 {
    io: BoxIo,
    /// The head of a request, and its body unless that is large.
    outgoing: Vec<u8>,
    incoming: Incoming,
    alarm: Alarm,
    /// A proxy reads the requests.
    pub(super) is_proxied: bool,
    is_new: bool,
    is_ready: bool,
    /// Who sends is woken for what comes, since the connection was looked at just now.
    is_watched: bool,
    expires: Instant,
    pub(super) idle_since: Instant,
}

impl Http1 {
    pub(super) fn new(opened: Opened, expires: Instant) -> Self {
        let now = Instant::now();
        Self {
            io: opened.io,
            outgoing: Vec::new(),
            incoming: Incoming::default(),
            alarm: Alarm(Box::pin(sleep_until(now))),
            is_proxied: opened.is_proxied,
            is_new: true,
            is_ready: true,
            is_watched: false,
            expires,
            idle_since: now,
        }
    }

    pub(super) async fn exchange(
        &mut self,
        request: &Request<'_>,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let is_kept = !std::mem::replace(&mut self.is_new, false);
        self.is_ready = false;
        if is_kept && poll_fn(|cx| Poll::Ready(self.poll_end(cx).is_ready())).await {
            return Err(Failure::Unbegun(CLOSED.into()));
        }
        self.is_watched = is_kept;
        self.outgoing.clear();
        request.write_head(self.is_proxied, &mut self.outgoing);
        let mut sending = Sending::new(request.body);
        if sending.body.len() <= MOST_COPIED_BYTES {
            // Bodies are small: copying costs less than letting the kernel gather.
            self.outgoing.extend_from_slice(sending.body);
            sending.body = &[];
        }
        let head = match self.head(&mut sending, wanted, deadline).await? {
            Ok(head) => head,
            Err(status) => {
                return Ok(Answer {
                    status,
                    headers: HeaderMap::new(),
                    body: None,
                });
            }
        };
        let most = wanted.most(head.status);
        let body = self.body(&mut sending, head.body, most, deadline).await?;
        self.is_ready = head.is_kept
            && head.body != Body::ToClose
            && body.is_some()
            && sending.is_done
            && self.incoming.unread().is_empty();
        self.incoming.trim();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.map(Bytes::from),
        })
    }

    /// Reads the head of the answer. Of one that cannot be read its status counts, where that can: the backend has the message, and is
    /// not to get it again for an answer that it will not make any better.
    async fn head(
        &mut self,
        sending: &mut Sending<'_>,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Result<Head, StatusCode>, Failure> {
        let has_reader = |status: StatusCode| !status.is_success() || wanted.most(status) > 0;
        let mut has_heard = false;
        let mut seen = 0;
        loop {
            let bytes = self.incoming.unread();
            let parsed = match bytes.len() {
                LONGEST_HEAD_BYTES.. => Parsed::unreadable("too long", bytes),
                _ if seen == 0 || ends_head(bytes, seen) => Parsed::of(bytes, has_reader),
                _ => Parsed::Partial,
            };
            match parsed {
                Parsed::Partial => seen = bytes.len(),
                Parsed::Interim(length) => {
                    self.incoming.consume(length);
                    seen = 0;
                    continue;
                }
                Parsed::Head(head) => {
                    self.incoming.consume(head.length);
                    return Ok(Ok(head));
                }
                Parsed::Unreadable(error, Some(status)) => {
                    tracing::debug!(%status, error, "only the status of an answer can be read");
                    return Ok(Err(status));
                }
                Parsed::Unreadable(error, None) => {
                    let error = format!("the head of the answer cannot be read: {error}");
                    return Err(Failure::Broken(error.into()));
                }
            }
            let error: BoxError = match self.fill(sending, deadline).await {
                Ok(0) => CLOSED.into(),
                Ok(_) => {
                    has_heard = true;
                    continue;
                }
                Err(Stop::Late) => return Err(Failure::Late),
                Err(Stop::Broken(error)) => format!("connection error: {error}").into(),
            };
            return Err(match has_heard {
                true => Failure::Broken(error),
                false => Failure::Unheard(error),
            });
        }
    }

    /// Reads the body if at most so many bytes of it are wanted; else reads it to its end if that comes soon, so that the connection
    /// can be used again. `None`: it is longer, or broke off.
    async fn body(
        &mut self,
        sending: &mut Sending<'_>,
        mut body: Body,
        most: usize,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let is_wanted = most > 0;
        let mut left = if is_wanted { most } else { LONGEST_BODY_BYTES };
        let mut whole = Vec::new();
        let mut until = is_wanted.then_some(deadline);
        if body.least() > left as u64 {
            return Ok(None);
        }
        loop {
            while let Some(piece) = body.take(self.incoming.unread()).transpose() {
                let Ok((length, is_data)) = piece else {
                    return Ok(None);
                };
                if is_data {
                    let Some(rest) = left.checked_sub(length) else {
                        return Ok(None);
                    };
                    left = rest;
                    if is_wanted {
                        whole.extend_from_slice(&self.incoming.unread()[..length]);
                    }
                }
                self.incoming.consume(length);
            }
            if body.is_over() {
                return Ok(Some(whole));
            }
            if self.incoming.unread().len() >= LONGEST_HEAD_BYTES {
                return Ok(None); // a line of it
            }
            let until = *until.get_or_insert_with(|| deadline.min(Instant::now() + DRAIN_GRACE));
            match self.fill(sending, until).await {
                Ok(0) if body == Body::ToClose => return Ok(Some(whole)),
                Ok(0) | Err(Stop::Broken(_)) => return Ok(None),
                Ok(_) => {}
                Err(Stop::Late) if is_wanted => return Err(Failure::Late),
                Err(Stop::Late) => return Ok(None),
            }
        }
    }

    /// Sends what is left of the request, and reads more of the answer: so many bytes, none at its end.
    async fn fill(&mut self, sending: &mut Sending<'_>, deadline: Instant) -> Result<usize, Stop> {
        poll_fn(|cx| {
            sending.poll(&self.outgoing, &mut self.io, cx);
            if std::mem::take(&mut self.is_watched) && sending.is_done {
                return self.alarm.poll(deadline, cx).map(|()| Err(Stop::Late));
            }
            match self.incoming.poll_read(&mut self.io, cx) {
                Poll::Ready(Ok(length)) => Poll::Ready(Ok(length)),
                // Why nothing more could be sent says more than that nothing came.
                Poll::Ready(Err(error)) => {
                    let error = sending.error.take().unwrap_or(error);
                    Poll::Ready(Err(Stop::Broken(error)))
                }
                Poll::Pending => self.alarm.poll(deadline, cx).map(|()| Err(Stop::Late)),
            }
        })
        .await
    }

    /// Whether the next request can be sent: the last was answered to its end, nothing came after that, and the other side keeps the
    /// connection.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Looks whether the other side has closed it. No system call while nothing has come.
    pub(super) fn has_ended(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_end(&mut cx).is_ready()
    }

    /// Ready when it has ended. Whatever else comes unasked ends it as well.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.incoming.poll_read(&mut self.io, cx).map(drop)
    }

    pub(super) fn is_usable(&self, now: Instant) -> bool {
        now < self.expires && now < self.idle_since + IDLE_TIMEOUT
    }

    /// Says good-bye, where TLS has a word for it, without waiting. Drop it then.
    pub(super) fn close(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.io).poll_shutdown(&mut cx);
    }
}

/// Why no more bytes come.
enum Stop {
    Late,
    Broken(io::Error),
}

/// A request on its way out.
struct Sending<'a> {
    /// What follows [`Http1::outgoing`].
    body: &'a [u8],
    sent: usize,
    is_done: bool,
    /// Nothing more can be sent. What the other side said before that counts.
    error: Option<io::Error>,
}

impl<'a> Sending<'a> {
    fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            sent: 0,
            is_done: false,
            error: None,
        }
    }

    /// Sends as much as goes.
    fn poll(&mut self, head: &[u8], io: &mut BoxIo, cx: &mut Context<'_>) {
        while !self.is_done && self.error.is_none() {
            let rest = match head.get(self.sent..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &self.body[self.sent - head.len()..],
            };
            let io = Pin::new(&mut *io);
            let polled = match rest {
                [] => io.poll_flush(cx).map_ok(|()| 0),
                _ => io.poll_write(cx, rest),
            };
            match polled {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) if rest.is_empty() => self.is_done = true,
                Poll::Ready(Ok(0)) => self.error = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => self.sent += sent,
                Poll::Ready(Err(error)) => self.error = Some(error),
            }
        }
    }
}

/// What was read, and how much of it is taken.
#[derive(Default)]
struct Incoming {
    room: Vec<u8>,
    taken: usize,
    end: usize,
}

impl Incoming {
    fn unread(&self) -> &[u8] {
        &self.room[self.taken..self.end]
    }

    fn consume(&mut self, length: usize) {
        self.taken += length;
        if self.taken == self.end {
            (self.taken, self.end) = (0, 0);
        }
    }

    /// Reads as much as there is room for; callers do not let it grow without limit.
    fn poll_read(&mut self, io: &mut BoxIo, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.end == self.room.len() {
            if self.taken > 0 {
                self.room.copy_within(self.taken.., 0);
                (self.taken, self.end) = (0, self.end - self.taken);
            } else {
                self.room.resize((2 * self.end).max(ROOM_BYTES), 0);
            }
        }
        let mut buffer = ReadBuf::new(&mut self.room[self.end..]);
        ready!(Pin::new(io).poll_read(cx, buffer.unfilled()))?;
        let length = buffer.filled().len();
        self.end += length;
        Poll::Ready(Ok(length))
    }

    /// Lets go of what a large answer took.
    fn trim(&mut self) {
        if self.room.len() > ROOM_BYTES && self.unread().is_empty() {
            *self = Self::default();
        }
    }
}

/// The timer of a connection. It is set anew when it rings, and not for each request: until then it may ring too early, and never late.
struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.deadline() > deadline {
            self.0.as_mut().reset(deadline);
        }
        loop {
            ready!(self.0.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}

/// Whether what came after the first `seen` bytes may have brought the end of a head.
fn ends_head(bytes: &[u8], seen: usize) -> bool {
    let news = &bytes[seen.saturating_sub(2)..];
    news.windows(2).any(|end| end == b"\n\n") || news.windows(3).any(|end| end == b"\n\r\n")
}

const CLOSED: &str = "connection closed before message completed";
/// Of a longer one the status counts, and nothing else.
const LONGEST_HEAD_BYTES: usize = 64 << 10;
/// A larger body is not copied behind the head of its request.
const MOST_COPIED_BYTES: usize = 16 << 10;
/// Enough for a usual answer, and kept with the connection.
const ROOM_BYTES: usize = 2 << 10;

#[cfg(test)]
mod tests;
