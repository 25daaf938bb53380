//! `/api/v1`: what an operator or a backend without Redis can do.

use std::{sync::Arc, time::Duration};

use http::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, body::Incoming};
use serde::Deserialize;

use super::{
    Admin, Answer, Place, call, clients, dead_letters, failure, fleet, groups,
    guard::{Guard, MediaType},
    json,
    messages::{body, parse, word},
    method_not_allowed, problem, trace, whole,
};
use crate::{
    files,
    gateway::{drain, shared::Shared},
    inspect,
    types::{Payload, Sent, unix_ms},
    verbs,
};

pub(super) async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
    path: &str,
    place: &Place,
) -> Answer {
    let (shared, guard) = (&admin.shared, &admin.guard);
    match path {
        "/api/v1/reload" if request.method() != Method::POST => return method_not_allowed("POST"),
        "/api/v1/reload" => {
            let reloaded = reload(shared, guard, &request).await;
            return reloaded.unwrap_or_else(|refused| refused);
        }
        "/api/v1/stats" if request.method() != Method::GET => return method_not_allowed("GET"),
        "/api/v1/stats" => return json(StatusCode::OK, serde_json::json!(verbs::stats(shared))),
        "/api/v1/status" | "/api/v1/openapi.json" if request.method() != Method::GET => {
            return method_not_allowed("GET");
        }
        "/api/v1/status" => {
            return json(StatusCode::OK, serde_json::json!(inspect::status(shared)));
        }
        "/api/v1/openapi.json" => return openapi(),
        "/api/v1/trace" if request.method() != Method::GET => return method_not_allowed("GET"),
        "/api/v1/trace" => return trace::answer(shared, &request).unwrap_or_else(|r| r),
        "/api/v1/drain" if request.method() != Method::POST => return method_not_allowed("POST"),
        groups::BROADCAST => return groups::broadcast(admin, request).await,
        "/api/v1/drain" => return begin_drain(admin, request).await.unwrap_or_else(|r| r),
        "/api/v1/nodes" if request.method() != Method::GET => return method_not_allowed("GET"),
        "/api/v1/nodes" => return fleet::nodes(shared).await.unwrap_or_else(|r| r),
        "/api/v1/online" if request.method() != Method::POST => return method_not_allowed("POST"),
        "/api/v1/online" => return fleet::online(admin, request).await.unwrap_or_else(|r| r),
        _ => {}
    }
    let of_groups = path.strip_prefix(groups::PATH);
    if let Some(rest) = of_groups.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        return groups::answer(admin, request, rest).await;
    }
    if let Some(rest) = path.strip_prefix(dead_letters::PATH) {
        return dead_letters::answer(shared, guard, &request, rest).await;
    }
    let of_client = path.strip_prefix("/api/v1/clients/");
    if let Some(client) = of_client.and_then(|rest| rest.strip_suffix("/mailbox")) {
        let answered = mailbox(admin, &request, client).await;
        return answered.unwrap_or_else(|refused| refused);
    }
    if let Some(client) = of_client.and_then(|rest| rest.strip_suffix("/call")) {
        if request.method() != Method::POST {
            return method_not_allowed("POST");
        }
        let answered = call::call(admin, request, client, place).await;
        return answered.unwrap_or_else(|refused| refused);
    }
    let client = of_client.and_then(|rest| rest.strip_suffix("/messages"));
    match client {
        Some(_) if request.method() != Method::POST => method_not_allowed("POST"),
        Some(client) => match message(admin, request, client).await {
            Ok(answer) | Err(answer) => answer,
        },
        None => match path.strip_prefix(clients::PATH) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                clients::answer(admin, &request, rest).await
            }
            _ => problem(StatusCode::NOT_FOUND, "there is nothing here"),
        },
    }
}

/// What all of this is, for programs.
fn openapi() -> Answer {
    let mut answer = whole(include_str!("openapi.json"));
    let content_type = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// `POST /api/v1/reload`: 200, or 422 and what was loaded before stays.
async fn reload(
    shared: &Arc<Shared>,
    guard: &Guard,
    request: &Request<Incoming>,
) -> Result<Answer, Answer> {
    guard.media_type(request)?;
    let bridge = shared.clone();
    match files::aside(move || verbs::reload(&bridge)).await {
        Ok(Ok(())) => Ok(json(
            StatusCode::OK,
            serde_json::json!({ "status": "reloaded" }),
        )),
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
    admin.guard.media_type(&request)?;
    let (body, _room) = body(admin, request.into_body()).await?;
    let bad = || {
        let text = "the body must be {\"window\":\"30s\"}, at most 1h, or {}";
        problem(StatusCode::BAD_REQUEST, text)
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
            let state = verbs::mailbox(&admin.shared, &client_id).await;
            let state = state.map_err(|error| failure(&error))?;
            serde_json::json!({
                "messages": state.messages,
                "bytes": state.bytes,
                "oldest_ms": state.oldest.map(unix_ms),
            })
        }
        Method::DELETE => {
            // A page needs leave to ask for that.
            let removed = verbs::clear_mailbox(&admin.shared, &client_id).await;
            serde_json::json!({ "removed": removed.map_err(|error| failure(&error))? })
        }
        _ => return Err(method_not_allowed("GET, DELETE")),
    };
    Ok(json(StatusCode::OK, answer))
}

/// `POST /api/v1/clients/<id>/messages`: 200 taken here, 202 passed on or kept, 410 offline.
async fn message(
    admin: &Admin,
    request: Request<Incoming>,
    client: &str,
) -> Result<Answer, Answer> {
    let client_id = clients::client_id(client)?;
    let media_type = admin.guard.media_type(&request)?;
    let (body, _room) = body(admin, request.into_body()).await?;
    let (payload, options) = match media_type {
        MediaType::Raw => (Payload::text_or_binary(body), None),
        MediaType::Json => parse(&body)?,
    };
    if let Some(options) = options {
        let kept = verbs::send_kept(&admin.shared, &client_id, payload, options).await;
        let kept = kept.map_err(|error| failure(&error))?;
        let answer = serde_json::json!({ "sent": word(kept.sent), "id": kept.id, "repeated": kept.is_repeated });
        return Ok(json(StatusCode::ACCEPTED, answer));
    }
    let sent = verbs::send(&admin.shared, &client_id, payload)
        .await
        .map_err(|error| failure(&error))?;
    let status = match sent {
        Sent::Here => StatusCode::OK,
        Sent::Elsewhere | Sent::Kept => StatusCode::ACCEPTED,
        Sent::Offline => StatusCode::GONE,
    };
    Ok(json(status, serde_json::json!({ "sent": word(sent) })))
}

/// As of `drain_window`.
const WINDOW_MAX: Duration = Duration::from_secs(3600);
