//! `/api/v1`: what an operator or a backend without Redis can do.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, body::Incoming};
use serde::Deserialize;

use super::{
    Admin, Answer, Place, bad_request, call, clients, dead_letters, failure, fleet, groups,
    guard::MediaType,
    json,
    messages::{body, parse, status_of},
    method_not_allowed, nothing_here, ok, only, problem, trace, whole,
};
use crate::{
    files,
    gateway::drain,
    inspect,
    types::{Payload, unix_ms},
    verbs,
};

/// Answers a call below `/api/`.
pub(super) async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
    path: &str,
    place: &Place,
) -> Result<Answer, Answer> {
    let shared = &admin.shared;
    match path {
        "/api/v1/reload" => return reload(admin, &request).await,
        "/api/v1/drain" => return begin_drain(admin, request).await,
        "/api/v1/online" => return fleet::online(admin, request).await,
        groups::BROADCAST => return groups::broadcast(admin, request).await,
        "/api/v1/stats" => {
            only(Method::GET, &request)?;
            return ok(serde_json::json!(verbs::stats(shared)));
        }
        "/api/v1/status" => {
            only(Method::GET, &request)?;
            return ok(serde_json::json!(inspect::status(shared)));
        }
        "/api/v1/openapi.json" => return openapi(&request),
        "/api/v1/trace" => return trace::answer(shared, &request),
        "/api/v1/nodes" => return fleet::nodes(shared, &request).await,
        _ => {}
    }
    if let Some(rest) = rest_of(path, groups::PATH) {
        return groups::answer(admin, request, rest).await;
    }
    if let Some(rest) = path.strip_prefix(dead_letters::PATH) {
        return dead_letters::answer(shared, &admin.guard, &request, rest).await;
    }
    let rest = rest_of(path, clients::PATH).ok_or_else(nothing_here)?;
    let client = rest.strip_prefix('/');
    let call_of = |call: &str| client.and_then(|client| client.strip_suffix(call));
    if let Some(client) = call_of("/mailbox") {
        mailbox(admin, &request, client).await
    } else if let Some(client) = call_of("/call") {
        call::call(admin, request, client, place).await
    } else if let Some(client) = call_of("/messages") {
        message(admin, request, client).await
    } else {
        clients::answer(admin, &request, rest).await
    }
}

/// What follows a part of the API in a path.
fn rest_of<'a>(path: &'a str, part: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(part)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// What all of this is, for programs.
fn openapi(request: &Request<Incoming>) -> Result<Answer, Answer> {
    only(Method::GET, request)?;
    let mut answer = whole(include_str!("openapi.json"));
    let content_type = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(answer)
}

/// `POST /api/v1/reload`: 200, or 422 and what was loaded before stays.
async fn reload(admin: &Admin, request: &Request<Incoming>) -> Result<Answer, Answer> {
    only(Method::POST, request)?;
    admin.guard.media_type(request)?;
    let bridge = admin.shared.clone();
    match files::aside(move || verbs::reload(&bridge)).await {
        Ok(Ok(())) => ok(serde_json::json!({ "status": "reloaded" })),
        Ok(Err(error)) => Err(problem(StatusCode::UNPROCESSABLE_ENTITY, error.to_line())),
        Err(error) => Err(problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

/// How a gateway is to be drained.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainBody {
    /// Milliseconds, or a time with its unit.
    window: Option<Window>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Window {
    Ms(u64),
    Text(String),
}

/// `POST /api/v1/drain`: 202 and it goes on by itself; 409 when it drains or stops already.
async fn begin_drain(admin: &Admin, request: Request<Incoming>) -> Result<Answer, Answer> {
    only(Method::POST, &request)?;
    admin.guard.media_type(&request)?;
    let (body, _room) = body(admin, request.into_body()).await?;
    let bad = || {
        let text = "the body must be {\"window\":\"30s\"}, at most 1h, or {}";
        bad_request(text)
    };
    let asked: DrainBody = match body.is_empty() {
        true => DrainBody::default(),
        false => serde_json::from_slice(&body).map_err(|_| bad())?,
    };
    let window = match asked.window {
        None => admin.shared.config.limits.drain_window,
        Some(Window::Ms(ms)) => Duration::from_millis(ms),
        Some(Window::Text(text)) => humantime::parse_duration(&text).map_err(|_| bad())?,
    };
    if window > WINDOW_MAX {
        return Err(bad());
    }
    if !drain::begin(&admin.shared, window) {
        let text = "the gateway drains or stops already";
        return Err(problem(StatusCode::CONFLICT, text));
    }
    let body = serde_json::json!({ "status": "draining", "window_ms": window.as_millis() as u64 });
    Ok(json(StatusCode::ACCEPTED, body))
}

/// `/api/v1/clients/<id>/mailbox`: GET tells what it holds, DELETE empties it.
async fn mailbox(
    admin: &Admin,
    request: &Request<Incoming>,
    client: &str,
) -> Result<Answer, Answer> {
    let client_id = clients::client_id(client)?;
    let answer = match *request.method() {
        Method::GET => {
            let state = verbs::mailbox(&admin.shared, &client_id)
                .await
                .map_err(failure)?;
            serde_json::json!({
                "messages": state.messages,
                "bytes": state.bytes,
                "oldest_ms": state.oldest.map(unix_ms),
            })
        }
        Method::DELETE => {
            // A page needs leave to ask for that.
            let removed = verbs::clear_mailbox(&admin.shared, &client_id).await;
            serde_json::json!({ "removed": removed.map_err(failure)? })
        }
        _ => return Err(method_not_allowed("GET, DELETE")),
    };
    ok(answer)
}

/// `POST /api/v1/clients/<id>/messages`: 200 taken here, 202 passed on or kept, 410 offline.
async fn message(
    admin: &Admin,
    request: Request<Incoming>,
    client: &str,
) -> Result<Answer, Answer> {
    only(Method::POST, &request)?;
    let client_id = clients::client_id(client)?;
    let media_type = admin.guard.media_type(&request)?;
    let (body, _room) = body(admin, request.into_body()).await?;
    let (payload, options) = match media_type {
        MediaType::Raw => (Payload::text_or_binary(body), None),
        MediaType::Json => parse(&body)?,
    };
    if let Some(options) = options {
        let kept = verbs::send_kept(&admin.shared, &client_id, payload, options)
            .await
            .map_err(failure)?;
        let answer = serde_json::json!({ "sent": kept.sent.as_str(), "id": kept.id, "repeated": kept.is_repeated });
        return Ok(json(StatusCode::ACCEPTED, answer));
    }
    let sent = verbs::send(&admin.shared, &client_id, payload)
        .await
        .map_err(failure)?;
    Ok(json(
        status_of(sent),
        serde_json::json!({ "sent": sent.as_str() }),
    ))
}

/// As of `drain_window`.
const WINDOW_MAX: Duration = Duration::from_secs(3600);
