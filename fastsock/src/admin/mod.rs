//! The admin listener, apart from the device port: health, readiness, and sending to a device.

pub(crate) mod api;
mod dead_letters;
pub(crate) mod guard;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use self::guard::Guard;
use crate::{
    broker::Link,
    config::Config,
    error::{Error, ErrorKind, Result},
    gateway::listen,
    shared::{Place, Shared},
    types::State,
};

pub(crate) type Answer = Response<Full<Bytes>>;

/// Binds the admin address, if there is one.
///
/// # Errors
/// `Bind`, naming the address and the setting.
pub(crate) fn bind(config: &Config) -> Result<Option<TcpListener>> {
    let Some(addr) = config.admin_addr else {
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

/// Serves until the workers stop.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let is_loopback = listener
        .local_addr()
        .is_ok_and(|addr| addr.ip().is_loopback());
    let guard = Arc::new(Guard::new(is_loopback, shared.config.admin_token.clone()));
    let connections = Arc::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await; // out of descriptors: the device port logs it
            continue;
        };
        if let Some(place) = Place::take(&connections, CONNECTIONS_MAX) {
            shared.workers.spawn_until_stopped(converse(
                shared.clone(),
                guard.clone(),
                stream,
                place,
            ));
        }
    }
}

async fn converse(shared: Arc<Shared>, guard: Arc<Guard>, stream: TcpStream, _place: Place) {
    let service = service_fn(|request| {
        let (shared, guard) = (shared.clone(), guard.clone());
        async move { Ok::<_, Infallible>(answer(&shared, &guard, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "an admin connection broke");
    }
}

async fn answer(shared: &Shared, guard: &Guard, request: Request<Incoming>) -> Answer {
    if let Err(refused) = guard.check_host(&request) {
        return refused;
    }
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET | &Method::HEAD, "/healthz") => {
            json(StatusCode::OK, serde_json::json!({ "status": "ok" }))
        }
        (&Method::GET | &Method::HEAD, "/readyz") => readiness(shared),
        (_, "/healthz" | "/readyz") => method_not_allowed("GET, HEAD"),
        (_, path) if path.starts_with("/api/") => match guard.check_token(&request) {
            Ok(()) => api::answer(shared, guard, request, path).await,
            Err(refused) => refused,
        },
        _ => problem(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

/// Ready while devices are taken. A broker that is away makes it degraded, not unready: a shared Redis going red would
/// otherwise empty every load balancer at once.
fn readiness(shared: &Shared) -> Answer {
    let broker = shared.broker.name();
    let (code, status) = match shared.status.state() {
        State::Stopping | State::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        _ if shared.lanes.is_spool_failing() => (StatusCode::SERVICE_UNAVAILABLE, "spool_failing"),
        _ if shared.broker.link() != Link::Down => (StatusCode::OK, "ready"),
        _ if shared.config.ready_requires_broker => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
        _ => (StatusCode::OK, "degraded"),
    };
    json(
        code,
        serde_json::json!({ "status": status, "broker": broker }),
    )
}

fn json(status: StatusCode, value: serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    answer
}

fn problem(status: StatusCode, error: impl Into<String>) -> Answer {
    json(status, serde_json::json!({ "error": error.into() }))
}

/// What the bridge refused.
fn failure(error: &Error) -> Answer {
    let status = match error.kind() {
        ErrorKind::Config => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::OutboxFull => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    problem(status, error.to_line())
}

fn method_not_allowed(allowed: &'static str) -> Answer {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}"));
    answer
        .headers_mut()
        .insert(http::header::ALLOW, http::HeaderValue::from_static(allowed));
    answer
}

const CONNECTIONS_MAX: usize = 256;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
