//! The admin listener, apart from the device port: health, readiness, and sending to a device.

mod api;
mod call;
mod clients;
mod connections;
mod dashboard;
mod dead_letters;
mod fleet;
mod groups;
pub(crate) mod guard;
pub(crate) mod messages;
mod metrics;
mod trace;

use std::{convert::Infallible, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};
use tokio_io_timeout::TimeoutStream;

use self::{
    connections::{Connections, Newcomer},
    guard::Guard,
    trace::Events,
};
use crate::{
    broker::Link,
    config::Config,
    error::{Error, ErrorKind, Result},
    gateway::shared::Shared,
    locks::Mutex,
    net::{linger::linger, listen::listen},
    types::{ClientId, State},
};

/// What is there at once, or the events of a trace.
pub(crate) type Answer = Response<Either<Full<Bytes>, Events>>;

/// Binds the admin address, if there is one.
///
/// # Errors
/// `Bind`, naming the address and the setting.
pub(crate) fn bind(config: &Config) -> Result<Option<TcpListener>> {
    let Some(addr) = config.admin.addr else {
        return Ok(None);
    };
    let bound = listen(addr, false);
    bound.map(Some).map_err(|e| {
        Error::new(
            ErrorKind::Bind,
            format!("FASTSOCK_ADMIN_ADDR: cannot listen on {addr}"),
        )
        .with_source(e)
    })
}

/// Binds the address once whoever has it lets go of it.
pub(crate) async fn bind_when_free(config: &Config) -> TcpListener {
    loop {
        tokio::time::sleep(BIND_AGAIN).await;
        if let Ok(Some(listener)) = bind(config) {
            tracing::warn!(addr = ?config.admin.addr, "the admin listener has its port");
            return listener;
        }
    }
}

/// Serves until the workers stop.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let local_addr = listener.local_addr();
    let is_loopback = local_addr.is_ok_and(|addr| addr.ip().to_canonical().is_loopback());
    let admin = Arc::new(Admin {
        guard: Guard::new(is_loopback, shared.config.admin.token.clone()),
        connections: Connections::new(),
        shared: shared.clone(),
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // out of descriptors: the device port logs it
            continue;
        };
        let (newcomer, has_to_go) = admin.connections.enter().await;
        let visit = Visit {
            admin: admin.clone(),
            newcomer: Mutex::new(Some(newcomer)),
            call: Place::default(),
        };
        shared
            .workers
            .spawn_until_stopped(visit.run(stream, has_to_go));
    }
}

/// What all connections of one admin listener share.
struct Admin {
    shared: Arc<Shared>,
    guard: Guard,
    connections: Arc<Connections>,
}

/// One connection.
struct Visit {
    admin: Arc<Admin>,
    /// Its place until its first head is whole.
    newcomer: Mutex<Option<Newcomer>>,
    /// Its place among the calls from its first one on.
    call: Place,
}

/// The place of a connection among the calls of the API, once it has made one.
#[derive(Default)]
struct Place(Mutex<Option<OwnedSemaphorePermit>>);

impl Place {
    /// Takes one, if it has none yet. `false`: there is none left.
    fn take(&self, connections: &Connections) -> bool {
        let mut place = self.0.lock();
        if place.is_none() {
            *place = connections.begin_call();
        }
        place.is_some()
    }

    /// Gives it back: what follows has limits of its own.
    fn leave(&self) {
        drop(self.0.lock().take());
    }
}

impl Visit {
    async fn run(self, stream: TcpStream, has_to_go: oneshot::Receiver<()>) {
        let admin = self.admin.clone();
        let config = &admin.shared.config;
        let mut stream = Box::pin(TimeoutStream::new(stream));
        let write_timeout = Some(config.limits.write_timeout);
        stream.as_mut().set_write_timeout_pinned(write_timeout);
        let visit = Arc::new(self);
        let service = service_fn(move |request| {
            let visit = visit.clone();
            Box::pin(async move { Ok::<_, Infallible>(visit.answer(request).await) })
        });
        let mut connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_MAX_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        // What has come is heard first: whose head is here already is answered, even if it is told to give way.
        let served = tokio::select! {
            biased;
            served = poll_fn(|cx| connection.poll_without_shutdown(cx)) => served,
            Ok(()) = has_to_go => return,
        };
        if let Err(error) = served {
            tracing::debug!(%error, "an admin connection broke");
        }
        let mut stream = connection.into_parts().io.into_inner();
        let deadline = Instant::now() + config.limits.close_timeout;
        if stream.shutdown().await.is_ok() {
            linger(stream, deadline, &admin.connections.lingering).await;
        }
    }

    /// Who shows the token may ask again on the same connection; anybody else has one answer.
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let newcomer = self.newcomer.lock().take();
        let has_to_go = newcomer.is_some_and(|newcomer| !newcomer.leave());
        let is_kept = self.admin.guard.has_token(&request);
        let mut answer = match self.decide(request, has_to_go).await {
            Ok(answer) | Err(answer) => answer,
        };
        if !is_kept {
            let close = http::HeaderValue::from_static("close");
            answer.headers_mut().insert(http::header::CONNECTION, close);
        }
        answer
    }

    async fn decide(&self, request: Request<Incoming>, has_to_go: bool) -> Result<Answer, Answer> {
        let Admin { shared, guard, .. } = &*self.admin;
        guard.check_host(&request)?;
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET | &Method::HEAD, "/healthz") => ok(serde_json::json!({ "status": "ok" })),
            (&Method::GET | &Method::HEAD, "/readyz") => Ok(readiness(shared)),
            (_, "/healthz" | "/readyz") => Err(method_not_allowed("GET, HEAD")),
            (&Method::GET | &Method::HEAD, "/") => Ok(dashboard::page()),
            (_, "/") => Err(method_not_allowed("GET, HEAD")),
            (&Method::GET | &Method::HEAD, "/metrics") => {
                guard.check_token(&request)?;
                if has_to_go || !self.begin_call() {
                    return Err(too_many());
                }
                Ok(metrics::answer(shared, &request))
            }
            (_, "/metrics") => Err(method_not_allowed("GET, HEAD")),
            (_, path) if path.starts_with("/api/") => {
                guard.check_token(&request)?;
                if has_to_go || !self.begin_call() {
                    return Err(too_many());
                }
                api::answer(&self.admin, request, path, &self.call).await
            }
            _ => Err(nothing_here()),
        }
    }

    /// Takes a place among the calls, if the connection has none yet.
    fn begin_call(&self) -> bool {
        self.call.take(&self.admin.connections)
    }
}

/// Ready while devices are taken. A broker that is away makes it degraded, not unready: a shared Redis going red would
/// otherwise empty every load balancer at once.
fn readiness(shared: &Shared) -> Answer {
    let broker = shared.broker.name();
    let (code, status) = match shared.status.state() {
        State::Stopping | State::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        State::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        _ if shared.lanes.is_spool_failing() => (StatusCode::SERVICE_UNAVAILABLE, "spool_failing"),
        _ if shared.broker.link() != Link::Down => (StatusCode::OK, "ready"),
        _ if shared.config.admin.ready_requires_broker => {
            (StatusCode::SERVICE_UNAVAILABLE, "degraded")
        }
        _ => (StatusCode::OK, "degraded"),
    };
    json(
        code,
        serde_json::json!({ "status": status, "broker": broker }),
    )
}

fn json(status: StatusCode, value: serde_json::Value) -> Answer {
    let mut answer = whole(value.to_string());
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    answer
}

/// 200, in the form in which calls are answered.
fn ok(value: serde_json::Value) -> Result<Answer, Answer> {
    Ok(json(StatusCode::OK, value))
}

fn bad_request(error: impl Into<String>) -> Answer {
    problem(StatusCode::BAD_REQUEST, error)
}

fn nothing_here() -> Answer {
    problem(StatusCode::NOT_FOUND, "there is nothing here")
}

fn whole(body: impl Into<Bytes>) -> Answer {
    Response::new(Either::Left(Full::new(body.into())))
}

fn problem(status: StatusCode, error: impl Into<String>) -> Answer {
    json(status, serde_json::json!({ "error": error.into() }))
}

/// What the bridge refused.
fn failure(error: Error) -> Answer {
    let status = match error.kind() {
        ErrorKind::Config => StatusCode::CONFLICT,
        ErrorKind::Argument => StatusCode::BAD_REQUEST,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::OutboxFull | ErrorKind::Busy => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::NotConnected => StatusCode::GONE,
        ErrorKind::Unanswered => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, error.to_line())
}

/// A request with any other method than this one is refused.
fn only<B>(method: Method, request: &Request<B>) -> Result<(), Answer> {
    match *request.method() == method {
        true => Ok(()),
        false => Err(method_not_allowed(match method {
            Method::POST => "POST",
            _ => "GET",
        })),
    }
}

fn method_not_allowed(allowed: &'static str) -> Answer {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}"));
    answer
        .headers_mut()
        .insert(http::header::ALLOW, http::HeaderValue::from_static(allowed));
    answer
}

/// There is more to do than is good; not the caller's doing.
fn too_many() -> Answer {
    let mut answer = problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many calls of the admin listener at once",
    );
    let retry_after = http::HeaderValue::from_static("1");
    answer
        .headers_mut()
        .insert(http::header::RETRY_AFTER, retry_after);
    answer
}

/// For a whole head, and for the next one on a connection that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a port that somebody else has is tried.
const BIND_AGAIN: Duration = Duration::from_millis(500);
/// The longest client id, each of its bytes as three, and as much for the rest.
const HEAD_MAX_BYTES: usize = 2 * 3 * ClientId::MAX_BYTES;
const HEADERS_MAX: usize = 64;
