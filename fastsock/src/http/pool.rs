//! Kept connections: of HTTP/1.1 each carries one request at a time, of HTTP/2 one is shared by all.
//!
//! A connection of HTTP/1.1 has no task of its own. Whoever waits for an answer runs it meanwhile, so a request costs no
//! switch between tasks; nobody looks at an idle one until it is used again, or has been idle for too long.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Answer,
    connect::{BoxError, BoxIo, Connector, Opened},
};
use crate::{config::Config, tasks::Tasks};

/// All kept connections, and the way to new ones.
pub(super) struct Pool {
    pub(super) connector: Connector,
    origins: Mutex<Vec<Arc<Origin>>>,
    longest_age: Duration,
    has_reaper: AtomicBool,
    tasks: Tasks,
}

/// One scheme, host and port, and the connections to there.
pub(super) struct Origin {
    name: String,
    uri: Uri,
    kept: Mutex<Kept>,
    /// Held by whoever opens a connection that all others may share.
    #[cfg(feature = "tls")]
    opening: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    /// In the order in which they became idle; the last is the next to be used.
    idle: VecDeque<Box<Http1>>,
    #[cfg(feature = "tls")]
    shared: Option<Http2>,
    /// The last attempt to connect did not lead to HTTP/2: everyone opens connections for themselves.
    #[cfg(feature = "tls")]
    is_http1: bool,
}

/// A connection that can take a request.
pub(super) enum Connection {
    Http1(Box<Http1>),
    #[cfg(feature = "tls")]
    Http2(Http2),
}

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
    /// Not a byte of the request was sent.
    Unsent(BoxError),
    /// The connection broke before a byte of the answer came.
    Unheard(BoxError),
    /// The backend says that it has not begun to process the request.
    #[cfg(feature = "tls")]
    Unprocessed(BoxError),
    /// Anything else.
    Broken(BoxError),
}

impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        match failure {
            #[cfg(feature = "tls")]
            Failure::Unprocessed(error) => error,
            Failure::Unsent(error) | Failure::Unheard(error) | Failure::Broken(error) => error,
        }
    }
}

impl Pool {
    pub(super) fn new(config: &Config, connector: Connector, tasks: Tasks) -> Self {
        Self {
            connector,
            origins: Mutex::default(),
            longest_age: config.remote_connection_age,
            has_reaper: AtomicBool::new(false),
            tasks,
        }
    }

    /// The origin of this name: scheme, host and port of the URI.
    pub(super) fn origin(&self, name: &str, uri: &Uri) -> Arc<Origin> {
        let mut origins = self.origins.lock();
        if let Some(known) = origins.iter().find(|origin| origin.name == name) {
            return known.clone();
        }
        origins.retain(Origin::is_of_use); // redirects may lead to ever new ones
        let origin = Arc::new(Origin {
            name: name.to_owned(),
            uri: uri.clone(),
            kept: Mutex::default(),
            #[cfg(feature = "tls")]
            opening: tokio::sync::Mutex::default(),
        });
        origins.push(origin.clone());
        origin
    }

    /// A connection to an origin, and whether it was used before.
    pub(super) async fn connection(
        self: &Arc<Self>,
        origin: &Origin,
    ) -> Result<(Connection, bool), BoxError> {
        if self.tasks.is_stopping() {
            return Err("the connections are closed".into());
        }
        match origin.take() {
            Some(kept) => Ok((kept, true)),
            // Boxed, so that a request on a kept connection does not carry the room that connecting takes.
            None => Box::pin(self.connect(origin)).await,
        }
    }

    /// Opens a connection, or waits for the one that another opens for all.
    async fn connect(&self, origin: &Origin) -> Result<(Connection, bool), BoxError> {
        #[cfg(feature = "tls")]
        if self.connector.may_be_http2(&origin.uri) && !origin.kept.lock().is_http1 {
            let opening = origin.opening.lock().await;
            if let Some(kept) = origin.take() {
                return Ok((kept, true));
            }
            // What came of waiting may also be that there is nothing to share.
            if !origin.kept.lock().is_http1 {
                let opened = self.open(origin).await;
                drop(opening);
                return Ok((opened?, false));
            }
        }
        Ok((self.open(origin).await?, false))
    }

    /// Takes a connection back that has carried a request to its end.
    pub(super) fn keep(self: &Arc<Self>, origin: &Origin, connection: Connection) {
        match connection {
            Connection::Http1(http1) if !http1.is_ready() || self.tasks.is_stopping() => {
                return http1.close();
            }
            Connection::Http1(http1) => origin.keep(http1),
            #[cfg(feature = "tls")]
            Connection::Http2(_) => {}
        }
        if !self.has_reaper.load(Relaxed) && !self.has_reaper.swap(true, Relaxed) {
            self.tasks
                .spawn(reap(Arc::downgrade(self), self.tasks.clone()));
        }
    }

    async fn open(&self, origin: &Origin) -> Result<Connection, BoxError> {
        let expires = Instant::now() + self.longest_age;
        let opened = self.connector.connect(&origin.uri).await;
        #[cfg(feature = "tls")]
        {
            let is_http2 = opened.as_ref().is_ok_and(|opened| opened.is_http2);
            origin.kept.lock().is_http1 = !is_http2;
            if is_http2 {
                let http2 = Http2::new(opened?, expires, &self.tasks).await?;
                origin.kept.lock().shared = Some(http2.clone());
                return Ok(Connection::Http2(http2));
            }
        }
        Ok(Connection::Http1(Box::new(
            Http1::new(opened?, expires).await?,
        )))
    }

    /// Closes what was idle for too long or is too old. Returns when to look again; `None`: nothing is left.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let origins = self.origins.lock().clone();
        origins.iter().filter_map(|origin| origin.sweep(now)).min()
    }

    fn close_all(&self) {
        for origin in self.origins.lock().iter() {
            let kept = std::mem::take(&mut *origin.kept.lock());
            kept.idle.into_iter().for_each(|http1| http1.close());
        }
    }
}

/// Closes connections that nobody uses; ends with the last of them.
async fn reap(pool: Weak<Pool>, tasks: Tasks) {
    loop {
        let at = {
            let Some(pool) = pool.upgrade() else { return };
            if tasks.is_stopping() {
                pool.has_reaper.store(false, Relaxed);
                return pool.close_all();
            }
            // First this, then a look: whoever keeps one from here on starts a new reaper, unless this one goes on.
            pool.has_reaper.store(false, Relaxed);
            match pool.sweep(Instant::now()) {
                Some(at) if !pool.has_reaper.swap(true, Relaxed) => at,
                _ => return,
            }
        };
        tokio::select! {
            () = sleep_until(at) => {}
            () = tasks.stopping() => {}
        }
    }
}

impl Origin {
    /// The connection to use next, if one is kept.
    fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        loop {
            let mut kept = self.kept.lock();
            #[cfg(feature = "tls")]
            if let Some(shared) = &mut kept.shared {
                if shared.is_usable(now) {
                    shared.used_at = now;
                    return Some(Connection::Http2(shared.clone()));
                }
                kept.shared = None; // those who use it end it
            }
            let http1 = kept.idle.pop_back()?;
            drop(kept);
            if http1.is_usable(now) {
                return Some(Connection::Http1(http1));
            }
            http1.close();
        }
    }

    fn keep(&self, mut http1: Box<Http1>) {
        http1.idle_since = Instant::now();
        self.kept.lock().idle.push_back(http1);
    }

    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut unused = Vec::new();
        let next = {
            let mut kept = self.kept.lock();
            while let Some(first) = kept.idle.pop_front() {
                if first.is_usable(now) {
                    kept.idle.push_front(first);
                    break;
                }
                unused.push(first);
            }
            let next = kept.idle.front().map(|first| first.idle_since);
            #[cfg(feature = "tls")]
            let next = {
                if kept
                    .shared
                    .as_ref()
                    .is_some_and(|shared| shared.is_over(now))
                {
                    kept.shared = None;
                }
                // One that is in use is looked at again as if it were used now.
                let in_use = |shared: &Http2| match shared.is_in_use() {
                    true => now,
                    false => shared.used_at,
                };
                let shared = kept.shared.as_ref().map(in_use);
                next.into_iter().chain(shared).min()
            };
            next
        };
        unused.into_iter().for_each(|http1| http1.close());
        next.map(|since| since + IDLE_TIMEOUT)
    }

    /// Whether someone sends to there, or could without connecting.
    fn is_of_use(self: &Arc<Self>) -> bool {
        let kept = self.kept.lock();
        #[cfg(feature = "tls")]
        let has_shared = kept.shared.is_some();
        #[cfg(not(feature = "tls"))]
        let has_shared = false;
        Arc::strong_count(self) > 1 || has_shared || !kept.idle.is_empty()
    }
}

impl Connection {
    /// Sends a request and reads the answer, with as much of the body as is wanted.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        wanted: Wanted,
    ) -> Result<Answer, Failure> {
        match self {
            Self::Http1(http1) => pin!(http1.exchange(request, wanted)).await,
            #[cfg(feature = "tls")]
            Self::Http2(http2) => pin!(http2.exchange(request, wanted)).await,
        }
    }
}

/// A connection of HTTP/1.1.
pub(super) struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    has_spoken: Arc<AtomicBool>,
    /// A proxy reads the requests.
    pub(super) is_proxied: bool,
    expires: Instant,
    idle_since: Instant,
}

/// What reads and writes for a connection of HTTP/1.1 while it is polled.
struct Driver {
    connection: http1::Connection<TokioIo<Wire>, Full<Bytes>>,
    has_ended: bool,
}

impl Http1 {
    async fn new(opened: Opened, expires: Instant) -> Result<Self, BoxError> {
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

    async fn exchange(
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
    fn is_ready(&self) -> bool {
        !self.driver.has_ended && self.sender.is_ready()
    }

    fn is_usable(&self, now: Instant) -> bool {
        now < self.expires && now < self.idle_since + IDLE_TIMEOUT
    }

    /// Says good-bye, where TLS has a word for it, without waiting.
    fn close(self: Box<Self>) {
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

/// A connection of HTTP/2, or a share in it.
#[cfg(feature = "tls")]
#[derive(Clone)]
pub(super) struct Http2 {
    sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    /// One for the pool, one for each request.
    shares: Arc<()>,
    expires: Instant,
    used_at: Instant,
}

#[cfg(feature = "tls")]
impl Http2 {
    async fn new(opened: Opened, expires: Instant, tasks: &Tasks) -> Result<Self, BoxError> {
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

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        wanted: Wanted,
    ) -> Result<Answer, Failure> {
        let answer = self.sender.try_send_request(request).await;
        let answer = answer.map_err(failure_of_stream)?;
        Ok(read(answer, wanted).await)
    }

    fn is_usable(&self, now: Instant) -> bool {
        now < self.expires && !self.sender.is_closed()
    }

    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.shares) > 1
    }

    /// Whether it is to be closed: of no use any more, or not used for a while.
    fn is_over(&self, now: Instant) -> bool {
        let is_idle = !self.is_in_use() && now >= self.used_at + IDLE_TIMEOUT;
        is_idle || !self.is_usable(now)
    }
}

/// REFUSED_STREAM and a GOAWAY without error say that a stream was not processed (RFC 9113 §8.7).
#[cfg(feature = "tls")]
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

/// Reads what of the body is wanted; else reads it to its end if that comes soon, so that the connection can be used again.
async fn read(answer: Response<Incoming>, wanted: Wanted) -> Answer {
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

/// Runs what a connection of HTTP/2 starts in a group of tasks.
#[cfg(feature = "tls")]
#[derive(Clone)]
struct Spawner(Tasks);

#[cfg(feature = "tls")]
impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        self.0.spawn_until_stopped(task);
    }
}

/// Node's servers close an idle connection after 5 s; whoever closes first loses no request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
const LONGEST_HEAD_BYTES: usize = 64 << 10;
/// A body that is longer, or takes longer once the head is here, costs its connection and nothing else.
const LONGEST_BODY_BYTES: usize = 64 << 10;
const DRAIN_GRACE: Duration = Duration::from_millis(100);
/// A connection of HTTP/2 that is in use and silent for so long is asked whether it lives, and given up without an answer.
#[cfg(feature = "tls")]
const PING_INTERVAL: Duration = Duration::from_secs(5);
#[cfg(feature = "tls")]
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What answers may hold in memory before they are read.
#[cfg(feature = "tls")]
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
#[cfg(feature = "tls")]
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
