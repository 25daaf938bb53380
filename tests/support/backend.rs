//! The HTTP server that takes uplinks: it writes down every request and answers as the test says.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::pending, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use socket2::{SockRef, Socket};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet, yield_now},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use fastsock_servers::bound_again;

use crate::{Authority, DEADLINE, Identity, free_port};

/// An HTTP server on a port of 127.0.0.1. Answers 200 at once until told otherwise.
#[derive(Debug)]
pub struct Backend {
    addr: SocketAddr,
    shared: Arc<Shared>,
    serving: Mutex<Serving>,
}

/// One request as it arrived, and what became of it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its place among all requests, from 0.
    pub number: usize,
    /// The connection it came over, from 0: equal numbers mean that the connection was reused.
    pub connection: usize,
    /// `POST`.
    pub method: String,
    /// Path and query; the whole URL when it came through a proxy, or by HTTP/2.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: http::Version,
    /// Names in lower case and values, in the order sent.
    pub headers: Vec<(String, String)>,
    /// As sent.
    pub body: Bytes,
    /// `client_id` of the JSON body; empty when it has none.
    pub client_id: String,
    /// `data` of the JSON body; empty when it has none.
    pub data: String,
    /// When its body was whole.
    pub at: Instant,
    /// The status it was answered with, once it was.
    pub status: Option<u16>,
    /// When it was answered, or its connection ended.
    pub done: Option<Instant>,
}

/// How to answer one request.
#[derive(Clone, Debug)]
#[must_use]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    delay: Duration,
    ending: Ending,
}

/// How far a reply gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Whole,
    Hang,
    CloseBefore,
    ResetBefore,
    CloseAfterHead,
}

type Script = Box<dyn FnMut(&Received) -> Reply + Send>;

/// What the server and the test both see.
struct Shared {
    tls: Option<TlsAcceptor>,
    requests: Mutex<Vec<Received>>,
    /// Changes with every request that arrives or is answered.
    changed: watch::Sender<()>,
    /// Replies to use up first.
    queue: Mutex<VecDeque<Reply>>,
    script: Mutex<Script>,
    connections: Mutex<usize>,
}

/// Whether it listens.
#[derive(Debug)]
enum Serving {
    Up(JoinHandle<()>),
    /// Bound without listening: connections are refused, and nobody else can take the port.
    Down {
        _reserved: Option<Socket>,
    },
}

impl Backend {
    /// Starts one.
    pub async fn start() -> Self {
        Self::with_tls(None)
    }

    /// Starts one that speaks HTTPS, with a certificate for loopback.
    pub async fn start_tls(authority: &Authority) -> Self {
        Self::start_tls_as(&authority.issue_for_loopback())
    }

    /// Starts one that speaks HTTPS with this certificate.
    pub fn start_tls_as(identity: &Identity) -> Self {
        Self::with_tls(Some(identity.server_config().into()))
    }

    /// The same, and it also speaks HTTP/2 to whoever asks for it.
    pub async fn start_http2(authority: &Authority) -> Self {
        let mut config = (*authority.issue_for_loopback().server_config()).clone();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::with_tls(Some(Arc::new(config).into()))
    }

    /// Starts one that speaks HTTPS, and only with clients that have a certificate of this authority.
    pub async fn start_mutual_tls(authority: &Authority) -> Self {
        let config = authority.mutual_config(&authority.issue_for_loopback());
        Self::with_tls(Some(config.into()))
    }

    fn with_tls(tls: Option<TlsAcceptor>) -> Self {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let shared = Arc::new(Shared {
            tls,
            requests: Mutex::default(),
            changed: watch::Sender::new(()),
            queue: Mutex::default(),
            script: Mutex::new(Box::new(|_| Reply::new(200))),
            connections: Mutex::default(),
        });
        let backend = Self {
            addr,
            shared,
            serving: Mutex::new(Serving::Down { _reserved: None }),
        };
        backend.come_back();
        backend
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:<port>/uplink`, or `https://localhost:<port>/uplink`: the gateway's `REMOTE_URL`.
    pub fn url(&self) -> String {
        match self.shared.tls {
            None => format!("http://{}/uplink", self.addr),
            Some(_) => format!("https://localhost:{}/uplink", self.addr.port()),
        }
    }

    /// Answers every request from now on by asking this.
    pub fn answer(&self, script: impl FnMut(&Received) -> Reply + Send + 'static) {
        *self.shared.script.lock() = Box::new(script);
    }

    /// Answers every request from now on like this.
    pub fn answer_all(&self, reply: Reply) {
        self.answer(move |_| reply.clone());
    }

    /// Answers the next requests like this, one each, before [`answer`](Self::answer) is asked again.
    pub fn queue(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.queue.lock().extend(replies);
    }

    /// Stops listening and cuts every connection: new ones are refused until [`come_back`](Self::come_back).
    pub async fn go_down(&self) {
        let Serving::Up(task) =
            std::mem::replace(&mut *self.serving.lock(), Serving::Down { _reserved: None })
        else {
            return;
        };
        task.abort();
        let _ = task.await;
        let reserved = bound_again(self.addr).expect("the port was ours until now");
        *self.serving.lock() = Serving::Down {
            _reserved: Some(reserved),
        };
    }

    /// Listens again on the same port.
    pub fn come_back(&self) {
        let mut serving = self.serving.lock();
        *serving = Serving::Down { _reserved: None };
        let listener = bound_again(self.addr)
            .and_then(|socket| {
                socket.listen(4096)?;
                TcpListener::from_std(socket.into())
            })
            .unwrap_or_else(|error| panic!("{}: {error}", self.addr));
        *serving = Serving::Up(tokio::spawn(Arc::clone(&self.shared).serve(listener)));
    }

    /// Every request so far, in order of arrival.
    pub fn requests(&self) -> Vec<Received> {
        self.shared.requests.lock().clone()
    }

    /// Every request of one device so far, retries included.
    pub fn requests_of(&self, client_id: &str) -> Vec<Received> {
        let mut requests = self.requests();
        requests.retain(|request| request.client_id == client_id);
        requests
    }

    /// How many requests there were so far.
    pub fn count(&self) -> usize {
        self.shared.requests.lock().len()
    }

    /// How many connections there were so far.
    pub fn connections(&self) -> usize {
        *self.shared.connections.lock()
    }

    /// The `data` of one device's requests that were answered 2xx, in order of arrival.
    pub fn delivered(&self, client_id: &str) -> Vec<String> {
        let delivered = self.requests_of(client_id).into_iter();
        delivered
            .filter(Received::is_delivered)
            .map(|request| request.data)
            .collect()
    }

    /// Waits until there are so many requests. Returns all.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        self.wait_until(&format!("{count} requests"), |all| all.len() >= count)
            .await
    }

    /// Waits until so many requests of a device were answered 2xx. Returns their `data`, in order of arrival.
    pub async fn wait_delivered(&self, client_id: &str, count: usize) -> Vec<String> {
        let is_of = |request: &&Received| request.client_id == client_id && request.is_delivered();
        self.wait_until(&format!("{count} of {client_id} delivered"), |all| {
            all.iter().filter(is_of).count() >= count
        })
        .await;
        self.delivered(client_id)
    }

    /// Waits until the requests so far fulfil a condition, at most [`DEADLINE`]. Returns all.
    pub async fn wait_until(
        &self,
        what: &str,
        condition: impl FnMut(&[Received]) -> bool,
    ) -> Vec<Received> {
        self.wait_until_within(DEADLINE, what, condition).await
    }

    /// As [`wait_until`](Self::wait_until), with a deadline of its own.
    pub async fn wait_until_within(
        &self,
        deadline: Duration,
        what: &str,
        mut condition: impl FnMut(&[Received]) -> bool,
    ) -> Vec<Received> {
        let mut changed = self.shared.changed.subscribe();
        let wait = async {
            loop {
                changed.mark_unchanged();
                {
                    let requests = self.shared.requests.lock();
                    if condition(&requests) {
                        return requests.clone();
                    }
                }
                changed.changed().await.expect("we hold the sender");
            }
        };
        match timeout(deadline, wait).await {
            Ok(requests) => requests,
            Err(_) => panic!("not within {deadline:?}: {what}\n{}", self.summary()),
        }
    }

    /// Panics unless, device by device, the numbers at the end of what was delivered (`temp#17`) rise by one from the first
    /// on, each once.
    pub fn assert_in_order(&self) {
        let mut last = std::collections::HashMap::<String, u64>::new();
        for request in self.requests().iter().filter(|r| r.is_delivered()) {
            let number = request
                .data
                .rsplit_once('#')
                .and_then(|(_, n)| n.parse().ok());
            let number: u64 = number.unwrap_or_else(|| panic!("no #number: {:?}", request.data));
            let before = last.insert(request.client_id.clone(), number);
            let follows = before.is_none_or(|before| before + 1 == number);
            assert!(follows, "{}: {number} after {before:?}", request.client_id);
        }
    }

    /// Panics when two requests of one device were in flight at once.
    pub fn assert_one_in_flight(&self) {
        let mut done = std::collections::HashMap::<String, Option<Instant>>::new();
        for request in self.requests() {
            let before = done.insert(request.client_id.clone(), request.done);
            let overlaps = before.is_some_and(|done| done.is_none_or(|done| done > request.at));
            assert!(!overlaps, "{}: {:?}", request.client_id, request.data);
        }
    }

    fn summary(&self) -> String {
        let requests = self.requests();
        let tail = requests.iter().rev().take(20).rev();
        let lines: Vec<_> = tail
            .map(|r| {
                format!(
                    "  {} {} {:?} -> {:?}",
                    r.number,
                    r.client_id,
                    head(&r.data),
                    r.status
                )
            })
            .collect();
        format!(
            "{} requests, the last:\n{}",
            requests.len(),
            lines.join("\n")
        )
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Serving::Up(task) = &*self.serving.lock() {
            task.abort();
        }
    }
}

impl Received {
    /// The first value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON. Panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    /// Whether it was answered 2xx.
    pub fn is_delivered(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }
}

impl Reply {
    /// This status, at once, with an empty body.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            delay: Duration::ZERO,
            ending: Ending::Whole,
        }
    }

    /// 200.
    pub fn ok() -> Self {
        Self::new(200)
    }

    /// A redirect.
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::new(status).header("location", location)
    }

    /// Never answers; the connection stays open.
    pub fn hang() -> Self {
        Self::ending(Ending::Hang)
    }

    /// Closes the connection in place of an answer.
    pub fn close() -> Self {
        Self::ending(Ending::CloseBefore)
    }

    /// Resets the connection in place of an answer.
    pub fn reset() -> Self {
        Self::ending(Ending::ResetBefore)
    }

    /// With a header field.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Only after a while.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Closes the connection when the head is written and before the body is.
    pub fn cut_after_head(mut self) -> Self {
        self.ending = Ending::CloseAfterHead;
        self
    }

    fn ending(ending: Ending) -> Self {
        Self {
            ending,
            ..Self::new(200)
        }
    }

    /// Its head and body, or an error that makes hyper drop the connection.
    fn into_response(self) -> io::Result<Response<ReplyBody>> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let is_cut = self.ending == Ending::CloseAfterHead;
        let length = self.body.len() + usize::from(is_cut);
        let whole = stream::iter([Ok(Frame::data(self.body))]);
        let cut = stream::iter(is_cut.then_some(())).then(|()| async {
            yield_now().await; // hyper writes what it has before it hears of the error
            Err(io::Error::other("cut"))
        });
        response
            .header("content-length", length)
            .body(BodyExt::boxed(StreamBody::new(whole.chain(cut))))
            .map_err(io::Error::other)
    }
}

/// Requests that a connection of HTTP/2 takes at once.
pub const HTTP2_STREAMS: u32 = 8;

type ReplyBody = BoxBody<Bytes, io::Error>;

impl Shared {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new(); // dropped with this task, and they with it
        loop {
            while connections.try_join_next().is_some() {}
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let number = self.next_connection();
            connections.spawn(Arc::clone(&self).connection(stream, number));
        }
    }

    fn next_connection(&self) -> usize {
        let mut connections = self.connections.lock();
        *connections += 1;
        *connections - 1
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, number: usize) {
        let _ = stream.set_nodelay(true);
        // A second descriptor of the same socket: what is set on it counts for both.
        let Ok(socket) = stream.as_fd().try_clone_to_owned() else {
            return;
        };
        let socket = Arc::new(socket);
        let service = {
            let (shared, socket) = (Arc::clone(&self), Arc::clone(&socket));
            service_fn(move |request| {
                Arc::clone(&shared).exchange(request, number, Arc::clone(&socket))
            })
        };
        let mut http = http1::Builder::new();
        http.auto_date_header(false);
        match &self.tls {
            None => {
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            }
            Some(tls) => {
                let Ok(stream) = tls.accept(stream).await else {
                    return;
                };
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let stream = TokioIo::new(stream);
                if is_http2 {
                    let http = http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(HTTP2_STREAMS)
                        .serve_connection(stream, service);
                    let _ = http.await;
                } else {
                    let _ = http.serve_connection(stream, service).await;
                }
            }
        }
    }

    async fn exchange(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: usize,
        socket: Arc<OwnedFd>,
    ) -> io::Result<Response<ReplyBody>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let open = self.record(&parts, body, connection);
        let reply = self.reply(open.number);
        sleep(reply.delay).await; // a backend that takes its time
        match reply.ending {
            Ending::Hang => match pending::<Infallible>().await {},
            Ending::CloseBefore => return Err(io::Error::other("closed")),
            Ending::ResetBefore => {
                SockRef::from(&*socket).set_linger(Some(Duration::ZERO))?;
                return Err(io::Error::other("reset"));
            }
            Ending::Whole | Ending::CloseAfterHead => {}
        }
        open.answered(reply.status);
        reply.into_response()
    }

    fn record(
        self: &Arc<Self>,
        parts: &http::request::Parts,
        body: Bytes,
        connection: usize,
    ) -> Open {
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value)
        };
        let mut requests = self.requests.lock();
        let number = requests.len();
        requests.push(Received {
            number,
            connection,
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            version: parts.version,
            headers: parts.headers.iter().map(header).collect(),
            client_id: text("client_id"),
            data: text("data"),
            body,
            at: Instant::now(),
            status: None,
            done: None,
        });
        drop(requests);
        self.changed.send_replace(());
        Open {
            shared: Arc::clone(self),
            number,
        }
    }

    fn reply(&self, number: usize) -> Reply {
        if let Some(reply) = self.queue.lock().pop_front() {
            return reply;
        }
        let request = self.requests.lock().get(number).cloned();
        request.map_or(Reply::ok(), |request| (self.script.lock())(&request))
    }
}

/// A request that is in flight; it ends when this is dropped, whether by an answer or by the end of its connection.
struct Open {
    shared: Arc<Shared>,
    number: usize,
}

impl Open {
    fn answered(&self, status: u16) {
        if let Some(request) = self.shared.requests.lock().get_mut(self.number) {
            request.status = Some(status);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(request) = self.shared.requests.lock().get_mut(self.number) {
            request.done = Some(Instant::now());
        }
        self.shared.changed.send_replace(());
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A socket that has the port and does not listen.
fn head(text: &str) -> String {
    text.chars().take(60).collect()
}
