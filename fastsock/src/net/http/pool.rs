//! Kept connections: of HTTP/1.1 each carries one request at a time, of HTTP/2 one is shared by all.
//!
//! Nobody looks at an idle connection of HTTP/1.1 until it is used again, or has been idle for too long.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{StatusCode, Uri};
use tokio::time::{Instant, sleep_until, timeout_at};

#[cfg(feature = "tls")]
use super::http2::Http2;
use super::{
    Answer, IDLE_TIMEOUT,
    connect::{BoxError, Connector},
    exchange::{Failure, Wanted},
    http1::Http1,
    request::Request,
};
use crate::{locks::Mutex, tasks::Tasks};

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

impl Pool {
    pub(super) fn new(longest_age: Duration, connector: Connector, tasks: Tasks) -> Self {
        Self {
            connector,
            origins: Mutex::default(),
            longest_age,
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
        deadline: Instant,
    ) -> Result<(Connection, bool), BoxError> {
        if self.tasks.is_stopping() {
            return Err("the connections are closed".into());
        }
        match origin.take() {
            Some(kept) => Ok((kept, true)),
            None => self.connect(origin, deadline).await,
        }
    }

    /// A connection in place of a kept one that turned out to be dead: no other one of those, which may be so too.
    pub(super) async fn fresh(
        self: &Arc<Self>,
        origin: &Origin,
        dead: Connection,
        deadline: Instant,
    ) -> Result<(Connection, bool), BoxError> {
        origin.drop_ended(&dead);
        drop(dead);
        self.connect(origin, deadline).await
    }

    async fn connect(
        &self,
        origin: &Origin,
        deadline: Instant,
    ) -> Result<(Connection, bool), BoxError> {
        // Boxed, so that a request on a kept connection does not carry the room that connecting takes.
        let connecting = Box::pin(timeout_at(deadline, self.open_or_share(origin)));
        connecting.await.unwrap_or(Err(Failure::Late.into()))
    }

    /// Opens a connection, or waits for the one that another opens for all.
    async fn open_or_share(&self, origin: &Origin) -> Result<(Connection, bool), BoxError> {
        #[cfg(feature = "tls")]
        if self.connector.may_be_http2(&origin.uri) && !origin.kept.lock().is_http1 {
            let opening = origin.opening.lock().await;
            if let Some(shared) = origin.kept.lock().share(Instant::now()) {
                return Ok((Connection::Http2(shared), true));
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
            Connection::Http1(mut http1) if !http1.is_ready() || self.tasks.is_stopping() => {
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
        Ok(Connection::Http1(Box::new(Http1::new(opened?, expires))))
    }

    /// Closes what was idle for too long or is too old. Returns when to look again; `None`: nothing is left.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let origins = self.origins.lock().clone();
        origins.iter().filter_map(|origin| origin.sweep(now)).min()
    }

    fn close_all(&self) {
        for origin in self.origins.lock().iter() {
            let kept = std::mem::take(&mut *origin.kept.lock());
            kept.idle.into_iter().for_each(|mut http1| http1.close());
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
            if let Some(shared) = kept.share(now) {
                return Some(Connection::Http2(shared));
            }
            let mut http1 = kept.idle.pop_back()?;
            drop(kept);
            if http1.is_usable(now) {
                return Some(Connection::Http1(http1));
            }
            http1.close();
        }
    }

    /// Forgets this connection, and all others of which it can be seen that they have ended.
    fn drop_ended(&self, dead: &Connection) {
        match dead {
            Connection::Http1(_) => {
                let mut idle = std::mem::take(&mut self.kept.lock().idle);
                idle.retain_mut(|http1| !http1.has_ended()); // with system calls, so not under the lock
                let mut kept = self.kept.lock();
                idle.append(&mut kept.idle);
                kept.idle = idle;
            }
            #[cfg(feature = "tls")]
            Connection::Http2(dead) => {
                drop(self.kept.lock().shared.take_if(|shared| shared.is(dead)))
            }
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
        unused.into_iter().for_each(|mut http1| http1.close());
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

#[cfg(feature = "tls")]
impl Kept {
    /// A share in the connection that all use, if there is one that still takes requests.
    fn share(&mut self, now: Instant) -> Option<Http2> {
        let shared = self.shared.as_mut()?;
        if shared.is_usable(now) {
            shared.used_at = now;
            return Some(shared.clone());
        }
        self.shared = None; // those who use it end it
        None
    }
}

impl Connection {
    /// Sends a request and reads the answer, with as much of the body as is wanted.
    pub(super) async fn exchange(
        &mut self,
        request: &Request<'_>,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        match self {
            Self::Http1(http1) => pin!(http1.exchange(request, wanted, deadline)).await,
            // Boxed, so that a request of HTTP/1.1 does not carry the room that this takes.
            #[cfg(feature = "tls")]
            Self::Http2(http2) => Box::pin(http2.exchange(request, wanted, deadline)).await,
        }
    }

    /// Whether an answer says that nobody came within the backend's time, and ends the connection: where that had been idle, it
    /// has crossed the request on its way (RFC 9110 §15.5.9).
    pub(super) fn is_farewell(&self, answer: &Result<Answer, Failure>) -> bool {
        let is_timeout = |answer: &Answer| answer.status == StatusCode::REQUEST_TIMEOUT;
        match self {
            Self::Http1(http1) => !http1.is_ready() && answer.as_ref().is_ok_and(is_timeout),
            #[cfg(feature = "tls")]
            Self::Http2(_) => false,
        }
    }
}
