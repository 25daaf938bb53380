//! `/api/v1`: what an operator or a backend without Redis can do.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    Method, Request, StatusCode,
    body::{Body, Incoming},
};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Admin, Answer, dead_letters, failure,
    guard::{Guard, MediaType},
    json, method_not_allowed, problem, too_many,
};
use crate::{
    files,
    gateway::shared::Shared,
    pure::outbox::DOWNLINK_MAX_BYTES,
    types::{ClientId, Payload, Sent},
    verbs,
};

/// The body of a message as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageBody {
    data: String,
    #[serde(default)]
    encoding: Option<String>,
}

pub(super) async fn answer(admin: &Admin, request: Request<Incoming>, path: &str) -> Answer {
    let (shared, guard) = (&admin.shared, &admin.guard);
    match path {
        "/api/v1/reload" if request.method() != Method::POST => return method_not_allowed("POST"),
        "/api/v1/reload" => {
            let reloaded = reload(shared, guard, &request).await;
            return reloaded.unwrap_or_else(|refused| refused);
        }
        "/api/v1/stats" if request.method() != Method::GET => return method_not_allowed("GET"),
        "/api/v1/stats" => return json(StatusCode::OK, serde_json::json!(verbs::stats(shared))),
        _ => {}
    }
    if let Some(rest) = path.strip_prefix(dead_letters::PATH) {
        return dead_letters::answer(shared, guard, &request, rest).await;
    }
    let client = path
        .strip_prefix("/api/v1/clients/")
        .and_then(|rest| rest.strip_suffix("/messages"));
    match client {
        Some(_) if request.method() != Method::POST => method_not_allowed("POST"),
        Some(client) => match message(admin, request, client).await {
            Ok(answer) | Err(answer) => answer,
        },
        None => problem(StatusCode::NOT_FOUND, "there is nothing here"),
    }
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

/// `POST /api/v1/clients/<id>/messages`: 200 taken here, 202 passed on, 410 offline.
async fn message(
    admin: &Admin,
    request: Request<Incoming>,
    client: &str,
) -> Result<Answer, Answer> {
    let client_id = client_id(client).ok_or_else(|| {
        problem(
            StatusCode::BAD_REQUEST,
            "the client id is empty, too long or not UTF-8",
        )
    })?;
    let media_type = admin.guard.media_type(&request)?;
    let (body, _room) = body(admin, request.into_body()).await?;
    let payload = match media_type {
        MediaType::Raw => Payload::text_or_binary(body),
        MediaType::Json => parse(&body)?,
    };
    let sent = verbs::send(&admin.shared, &client_id, payload)
        .await
        .map_err(|error| failure(&error))?;
    let (status, word) = match sent {
        Sent::Here => (StatusCode::OK, "here"),
        Sent::Elsewhere => (StatusCode::ACCEPTED, "elsewhere"),
        Sent::Offline => (StatusCode::GONE, "offline"),
    };
    Ok(json(status, serde_json::json!({ "sent": word })))
}

fn client_id(segment: &str) -> Option<ClientId> {
    let decoded = percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .ok()?;
    ClientId::new(decoded).filter(|_| !segment.contains('/'))
}

/// A whole body, and the room it takes.
async fn body(
    admin: &Admin,
    body: Incoming,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Answer> {
    match tokio::time::timeout(BODY_TIMEOUT, read(admin, body)).await {
        Ok(read) => read,
        Err(_) => Err(problem(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

async fn read(
    admin: &Admin,
    mut body: Incoming,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Answer> {
    let too_large = || {
        let text = format!("the body is over {BODY_MAX_BYTES} bytes");
        problem(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    if body.size_hint().lower() > BODY_MAX_BYTES as u64 {
        return Err(too_large());
    }
    let (mut read, mut room) = (BytesMut::new(), None::<OwnedSemaphorePermit>);
    while let Some(frame) = body.frame().await {
        let broken = |_| problem(StatusCode::BAD_REQUEST, "the body could not be read");
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue; // a trailer
        };
        if read.len() + data.len() > BODY_MAX_BYTES {
            return Err(too_large());
        }
        let more = admin.connections.body_room(data.len());
        let more = more.ok_or_else(too_many)?;
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        read.extend_from_slice(&data);
    }
    Ok((read.freeze(), room))
}

pub(crate) fn parse(body: &[u8]) -> Result<Payload, Answer> {
    let message: MessageBody = serde_json::from_slice(body)
        .map_err(|error| problem(StatusCode::BAD_REQUEST, format!("the body must be {{\"data\":\"…\"}}, with \"encoding\":\"base64\" for binary: {error}")))?;
    match message.encoding.as_deref() {
        None => Ok(Payload::text(message.data)),
        Some("base64") => match data_encoding::BASE64.decode(message.data.as_bytes()) {
            Ok(bytes) => Ok(Payload::binary(bytes)),
            Err(error) => Err(problem(
                StatusCode::BAD_REQUEST,
                format!("\"data\" is not base64: {error}"),
            )),
        },
        Some(other) => Err(problem(
            StatusCode::BAD_REQUEST,
            format!("\"encoding\" is {other:?}; only \"base64\" is allowed"),
        )),
    }
}

/// The largest downlink, in base64 and JSON around it.
pub(super) const BODY_MAX_BYTES: usize = DOWNLINK_MAX_BYTES / 3 * 4 + 4096;
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);
