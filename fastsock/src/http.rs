//! The HTTP client: one pool of connections, proxies, redirects.

use std::{
    error::Error as StdError,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{HOST, LOCATION, PROXY_AUTHORIZATION},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::{
    client::{
        legacy::{
            self,
            connect::{Connected, Connection, HttpConnector},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::{TokioIo, TokioTimer},
};
use percent_encoding::percent_decode_str;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tower_service::Service;
use url::Url;

use crate::{
    config::{Config, Secret},
    error::{Error, ErrorKind, Result},
    tasks::Tasks,
};

/// POSTs to backends over kept connections. Cheap to clone.
///
/// Its connections are tasks of the group it was made with; once that group stops, every request fails.
#[derive(Clone)]
pub(crate) struct Client {
    pool: legacy::Client<Connector, Full<Bytes>>,
    proxies: Arc<Proxies>,
}

/// Where a request goes: an `http` or `https` URL, taken apart once.
#[derive(Clone)]
pub(crate) struct Target {
    url: Url,
    pub(crate) uri: Uri,
    host: HeaderValue,
    /// For the proxy that sees this request in the clear; a tunnel shows its own.
    proxy_authorization: Option<HeaderValue>,
}

/// What a request came to once redirects were followed: 307 and 308 are left only where they cannot be followed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// Whether headers that are meant for the first target alone may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    Send,
    /// A redirect led to another host or port, or from https to http.
    Drop,
}

impl Client {
    /// A client with the proxies, certificates and time-outs of the settings, and no connection yet.
    ///
    /// # Errors
    /// `Config`, naming the variable: a certificate file that cannot be used, or the proxy that `remote_url` asks for.
    pub(crate) fn new(config: &Config, tasks: Tasks) -> Result<Self> {
        Self::with_age(config, tasks, LONGEST_AGE)
    }

    fn with_age(config: &Config, tasks: Tasks, longest_age: Duration) -> Result<Self> {
        let proxies = Arc::new(Proxies::new(config)?);
        let connector = Connector::new(config, proxies.clone(), longest_age)?;
        let pool = legacy::Client::builder(Spawner(tasks))
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(config.remote_concurrency)
            .http1_title_case_headers(true) // as Node spells them
            .http1_ignore_invalid_headers_in_responses(true) // nothing here reads them
            .http1_max_buf_size(LONGEST_HEAD_BYTES)
            .build(connector);
        Ok(Self { pool, proxies })
    }

    /// Prepares a URL; `None` when this client cannot reach its like. User, password and fragment are left out.
    pub(crate) fn target(&self, url: &Url) -> Option<Target> {
        let is_known = url.scheme() == "http" || (url.scheme() == "https" && cfg!(feature = "tls"));
        if !is_known || !url.has_host() {
            return None;
        }
        let mut url = url.clone();
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        url.set_fragment(None);
        let uri: Uri = url.as_str().parse().ok()?;
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let proxy_authorization = match self.proxies.route(&uri) {
            Some(proxy) if url.scheme() == "http" => proxy.basic_auth().cloned(),
            _ => None,
        };
        Some(Target {
            host: HeaderValue::from_str(host).ok()?,
            proxy_authorization,
            uri,
            url,
        })
    }

    /// POSTs and waits for the head of the answer; follows 307 and 308, with the same method and body, up to five times.
    /// Of the body of an answer as much is read as keeps the connection; what it says is ignored.
    ///
    /// `headers` makes the headers of one request, and is told whether secrets may be among them.
    ///
    /// # Errors
    /// One line with all causes and without secrets: no connection, no answer by `deadline`, a broken answer.
    pub(crate) async fn post(
        &self,
        target: &Target,
        headers: impl Fn(Secrets) -> HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Answer, String> {
        let mut redirected: Option<Target> = None;
        let mut secrets = Secrets::Send;
        let mut hops = 0;
        loop {
            let to = redirected.as_ref().unwrap_or(target);
            let request = || request(to, headers(secrets), hops > 0, body.clone());
            let answer = timeout_at(deadline, self.send(request)).await;
            let answer = match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return Err(to.failure(&one_line(&error))),
                Err(_) => return Err(to.failure("no answer in time")),
            };
            let answer = drain(answer).await;
            match self.redirection(to, &answer) {
                Some(next) if hops < MOST_REDIRECTS => {
                    hops += 1;
                    if !to.is_as_trusted(&next) {
                        secrets = Secrets::Drop;
                    }
                    redirected = Some(next);
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Makes one request and reads the whole answer, of at most 256 KiB. Follows no redirect: what is asked here is not for
    /// anyone else.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub(crate) async fn ask(
        &self,
        method: Method,
        target: &Target,
        headers: &HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(StatusCode, Bytes), String> {
        let whole = async {
            let request = || {
                let mut request = request(target, headers.clone(), false, body.clone());
                *request.method_mut() = method.clone();
                request
            };
            let answer = self.send(request).await.map_err(|e| one_line(&e))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LONGEST_ANSWER_BYTES).collect().await;
            let body = body.map_err(|e| e.to_string())?.to_bytes();
            if let Some(life) = head.extensions.get::<SharedLife>() {
                life.answered();
            }
            Ok((head.status, body))
        };
        let answer = timeout_at(deadline, whole).await;
        answer
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            .map_err(|cause| target.failure(&cause))
    }

    /// Sends one request. A kept connection that dies before a byte of the answer is no failure the first time:
    /// the backend closed it while the request was on its way.
    async fn send(
        &self,
        request: impl Fn() -> Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let mut may_retry = true;
        loop {
            let error = match self.pool.request(request()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match life_of(&error) {
                Some(life) if life.has_expired.load(Relaxed) => {} // nothing was sent, and it is out of the pool
                Some(life) if may_retry && life.broke_silently() => may_retry = false,
                _ => return Err(error),
            }
        }
    }

    /// Where an answer asks to repeat the request.
    pub(crate) fn redirection(&self, from: &Target, answer: &Answer) -> Option<Target> {
        if !matches!(answer.status.as_u16(), 307 | 308) {
            return None;
        }
        let location = answer.headers.get(LOCATION)?.as_bytes();
        let location = std::str::from_utf8(location).ok()?;
        self.target(&from.url.join(location).ok()?)
    }
}

impl Target {
    /// The `Host` header.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Whether what may be known here may be known there too.
    pub(crate) fn is_as_trusted(&self, next: &Self) -> bool {
        let is_downgrade = self.url.scheme() == "https" && next.url.scheme() == "http";
        // `port` is `None` where it is the scheme's own: http to https on one host stays at home.
        let (here, there) = (&self.url, &next.url);
        !is_downgrade && (here.host(), here.port()) == (there.host(), there.port())
    }

    /// The line for the log. Path and query may hold a token, so they stay out of it.
    fn failure(&self, cause: &str) -> String {
        format!(
            "{}: {cause}",
            &self.url[..url::Position::AfterPort] // user and password were removed
        )
    }
}

/// User and password of the URL, as the header they become.
pub(crate) fn basic_auth(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut credentials = percent_decode_str(url.username()).collect::<Vec<u8>>();
    credentials.push(b':');
    credentials.extend(percent_decode_str(url.password().unwrap_or_default()));
    let text = format!("Basic {}", data_encoding::BASE64.encode(&credentials));
    let mut value = HeaderValue::try_from(text).expect("Base64 is ASCII");
    value.set_sensitive(true);
    Some(value)
}

fn request(
    target: &Target,
    mut headers: HeaderMap,
    is_redirected: bool,
    body: Bytes,
) -> Request<Full<Bytes>> {
    if is_redirected {
        headers.insert(HOST, target.host.clone());
    }
    if let Some(value) = &target.proxy_authorization {
        headers
            .entry(PROXY_AUTHORIZATION)
            .or_insert_with(|| value.clone());
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.uri.clone();
    *request.headers_mut() = headers;
    request
}

/// Reads the body to its end if that comes soon, so that the connection can be used again; else gives the connection up.
async fn drain(answer: Response<Incoming>) -> Answer {
    let (head, mut body) = answer.into_parts();
    let is_small = body
        .size_hint()
        .upper()
        .is_none_or(|n| n <= LONGEST_BODY_BYTES);
    let is_drained = body.is_end_stream()
        || (is_small && timeout(DRAIN_GRACE, read_to_end(&mut body)).await == Ok(true));
    if is_drained && let Some(life) = head.extensions.get::<SharedLife>() {
        life.answered();
    }
    Answer {
        status: head.status,
        headers: head.headers,
    }
}

async fn read_to_end(body: &mut Incoming) -> bool {
    let mut left = LONGEST_BODY_BYTES;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let read = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(rest) = left.checked_sub(read) else {
            return false;
        };
        left = rest;
    }
    true
}

/// The causes of an error, from the first that says something, without repetitions.
fn one_line(error: &legacy::Error) -> String {
    // The outermost only says that it was the client.
    let mut cause = error.source().or(Some(error));
    let mut line = String::new();
    while let Some(error) = cause {
        let text = error.to_string().replace(['\r', '\n'], " ");
        if !line.ends_with(&text) {
            let separator = if line.is_empty() { "" } else { ": " };
            line = line + separator + &text;
        }
        cause = error.source();
    }
    line
}

/// Which proxy leads to which host.
struct Proxies {
    matcher: Matcher,
    /// `NO_PROXY` entries with a port, which the matcher does not know.
    exceptions: Vec<(String, u16)>,
}

impl Proxies {
    /// Fails for a proxy that the remote needs and that is none; a bad one that it does not need is only warned of,
    /// since the variables are everyone's.
    fn new(config: &Config) -> Result<Self> {
        let (exceptions, no_proxy) = exceptions(&config.no_proxy);
        let with = |http: &str, https: &str| Self {
            matcher: Matcher::builder()
                .http(http)
                .https(https)
                .no(&no_proxy)
                .build(),
            exceptions: exceptions.clone(),
        };
        let remote = config.remote_url.as_deref().and_then(|u| u.parse().ok());
        let is_needed = |uri: &Uri| with("http://any", "http://any").route(uri).is_some();
        let remote: Option<Uri> = remote.filter(is_needed);
        let scheme = remote.as_ref().and_then(Uri::scheme_str);
        let http = usable("HTTP_PROXY", &config.http_proxy, scheme == Some("http"))?;
        let https = usable("HTTPS_PROXY", &config.https_proxy, scheme == Some("https"))?;
        Ok(with(http, https))
    }

    /// The proxy for a URI, or `None` for the direct way.
    fn route(&self, uri: &Uri) -> Option<Intercept> {
        let is_exception = |(host, port): &(String, u16)| {
            uri.host() == Some(host.as_str()) && port_of(uri) == Some(*port)
        };
        if self.exceptions.iter().any(is_exception) {
            return None;
        }
        self.matcher.intercept(uri)
    }
}

/// `NO_PROXY` in two parts: entries with a port, and the rest as the matcher reads it.
fn exceptions(no_proxy: &[String]) -> (Vec<(String, u16)>, String) {
    let mut with_port = Vec::new();
    let mut rest = Vec::new();
    for entry in no_proxy.iter().flat_map(|part| part.split_whitespace()) {
        let (host, port) = entry.rsplit_once(':').unwrap_or((entry, ""));
        match port.parse() {
            // `::1` is an address, `[::1]:80` and `host:80` have a port.
            Ok(port) if !host.contains(':') || host.ends_with(']') => {
                with_port.push((host.to_ascii_lowercase(), port));
            }
            // To the matcher `*` is every name but no address, and `*.example.com` is `.example.com`.
            _ => rest.push(match entry.strip_prefix('*') {
                Some("") => "*,0.0.0.0/0,::/0",
                Some(domain) if domain.starts_with('.') => domain,
                _ => entry,
            }),
        }
    }
    (with_port, rest.join(","))
}

/// The URL of a proxy we can use, or nothing.
fn usable<'a>(variable: &str, proxy: &'a Option<Secret>, is_needed: bool) -> Result<&'a str> {
    let Some(proxy) = proxy else { return Ok("") };
    let any = Uri::from_static("http://any");
    let found = Matcher::builder()
        .http(proxy.expose())
        .build()
        .intercept(&any);
    match found.as_ref().and_then(|proxy| proxy.uri().scheme_str()) {
        Some("http") => return Ok(proxy.expose()),
        Some("https") if cfg!(feature = "tls") => return Ok(proxy.expose()),
        _ => {}
    }
    let text = format!("{variable}: the value is not the URL of an http:// or https:// proxy");
    if is_needed {
        return Err(Error::new(ErrorKind::Config, text));
    }
    tracing::warn!(variable, "proxy is not understood and not used");
    Ok("")
}

fn port_of(uri: &Uri) -> Option<u16> {
    let own = match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    };
    uri.port_u16().or(own)
}

/// Opens connections: to the host or to its proxy, with TLS where it is asked for.
#[derive(Clone)]
struct Connector {
    link: Link,
    #[cfg(feature = "tls")]
    tls: Arc<rustls::ClientConfig>,
    proxies: Arc<Proxies>,
    timeout: Duration,
    longest_age: Duration,
}

/// Reaches a host without a proxy in between.
#[cfg(feature = "tls")]
type Link = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "tls"))]
type Link = HttpConnector;

impl Service<Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let connecting = connector.connect(to);
            let (io, is_proxied) = timeout(connector.timeout, connecting)
                .await
                .map_err(|_| "no connection in time")??;
            Ok(TokioIo::new(Wire::new(
                io,
                is_proxied,
                connector.longest_age,
            )))
        })
    }
}

impl Connector {
    #[cfg(feature = "tls")]
    fn new(config: &Config, proxies: Arc<Proxies>, longest_age: Duration) -> Result<Self> {
        let remote = ("FASTSOCK_REMOTE_CA", config.remote_ca.as_deref());
        let node = ("NODE_EXTRA_CA_CERTS", config.extra_ca_certs.as_deref());
        let files = [remote, node].into_iter();
        let files = files.filter_map(|(variable, path)| Some((variable, path?)));
        let tls = Arc::new(crate::tls::client_config(files)?);
        let mut tcp = tcp();
        tcp.enforce_http(false);
        Ok(Self {
            link: (tcp, tls.clone()).into(),
            tls,
            proxies,
            timeout: config.remote_connect_timeout,
            longest_age,
        })
    }

    #[cfg(not(feature = "tls"))]
    fn new(config: &Config, proxies: Arc<Proxies>, longest_age: Duration) -> Result<Self> {
        Ok(Self {
            link: tcp(),
            proxies,
            timeout: config.remote_connect_timeout,
            longest_age,
        })
    }

    /// The connection, and whether a proxy reads what is sent over it.
    async fn connect(&self, to: Uri) -> Result<(BoxIo, bool), BoxError> {
        let mut link = self.link.clone();
        match self.proxies.route(&to) {
            None => Ok((Box::new(link.call(to).await?), false)),
            Some(proxy) if to.scheme_str() == Some("https") => {
                Ok((self.tunnel(to, &proxy).await?, false))
            }
            Some(proxy) => Ok((Box::new(link.call(proxy.uri().clone()).await?), true)),
        }
    }

    #[cfg(feature = "tls")]
    async fn tunnel(&self, to: Uri, proxy: &Intercept) -> Result<BoxIo, BoxError> {
        let mut tunnel =
            legacy::connect::proxy::Tunnel::new(proxy.uri().clone(), self.link.clone());
        if let Some(authorization) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let mut tls = hyper_rustls::HttpsConnector::from((tunnel, self.tls.clone()));
        Ok(Box::new(tls.call(to).await?))
    }

    #[cfg(not(feature = "tls"))]
    async fn tunnel(&self, _: Uri, _: &Intercept) -> Result<BoxIo, BoxError> {
        Err("this build has no TLS".into())
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp
}

/// One connection. It keeps its [`Life`], and refuses to begin a request once it is too old.
struct Wire {
    io: TokioIo<BoxIo>,
    is_proxied: bool,
    life: SharedLife,
    /// No request begins after this.
    expires: Instant,
    /// Whether the next byte written begins a request: something was read since the last one was.
    begins: bool,
}

impl Wire {
    fn new(io: BoxIo, is_proxied: bool, longest_age: Duration) -> Self {
        Self {
            io: TokioIo::new(io),
            is_proxied,
            life: SharedLife::default(),
            expires: Instant::now() + longest_age,
            begins: false,
        }
    }

    /// A write is due: it fails when it would begin a request on a connection that is too old.
    fn begin(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.begins) && Instant::now() >= self.expires {
            self.life.has_expired.store(true, Relaxed);
            return Err(io::Error::other("the connection is too old"));
        }
        Ok(())
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
            self.begins = true;
            self.life.has_spoken.store(true, Relaxed);
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
        self.begin()?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begin()?;
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

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
            .proxy(self.is_proxied)
            .extra(self.life.clone())
    }
}

/// What is known of one connection, by the wire below the client and by whoever sends above it.
#[derive(Debug, Default)]
struct Life {
    /// Whether it has carried an answer, and was kept.
    is_reused: AtomicBool,
    /// Whether a byte came since that answer ended.
    has_spoken: AtomicBool,
    /// Whether it refused a request for its age.
    has_expired: AtomicBool,
}

type SharedLife = Arc<Life>;

impl Life {
    /// An answer was read to its end.
    fn answered(&self) {
        self.is_reused.store(true, Relaxed);
        self.has_spoken.store(false, Relaxed);
    }

    /// Whether it was kept and then broke without another byte.
    fn broke_silently(&self) -> bool {
        self.is_reused.load(Relaxed) && !self.has_spoken.load(Relaxed)
    }
}

/// The life of the connection on which a request failed, if it got one.
fn life_of(error: &legacy::Error) -> Option<SharedLife> {
    let mut extensions = http::Extensions::new();
    error.connect_info()?.get_extras(&mut extensions);
    extensions.remove()
}

/// Runs the client's connections in a group of tasks.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, task: F) {
        self.0.spawn_until_stopped(task);
    }
}

/// A byte stream of any kind: TCP, TLS, TLS through a proxy's tunnel.
trait Io: hyper::rt::Read + hyper::rt::Write + Send + Unpin {}

impl<T: hyper::rt::Read + hyper::rt::Write + Send + Unpin> Io for T {}

type BoxIo = Box<dyn Io>;
type BoxError = Box<dyn StdError + Send + Sync>;

const MOST_REDIRECTS: u32 = 5;
/// Node's servers close an idle connection after 5 s; whoever closes first loses no request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// A connection is replaced now and then, so that a change of DNS or a new backend is noticed.
const LONGEST_AGE: Duration = Duration::from_secs(300);
const KEEPALIVE: Duration = Duration::from_secs(30);
const LONGEST_HEAD_BYTES: usize = 64 << 10;
/// A body that is longer, or takes longer once the head is here, costs its connection and nothing else.
const LONGEST_BODY_BYTES: u64 = 64 << 10;
const LONGEST_ANSWER_BYTES: usize = 256 << 10;
const DRAIN_GRACE: Duration = Duration::from_millis(100);

#[cfg(test)]
pub(crate) mod tests;
