//! Messages as bodies of calls.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    Method, Request, StatusCode,
    body::{Body, Incoming},
};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{Admin, Answer, bad_request, guard::MediaType, only, problem, too_many};
use crate::{
    mailbox::KeepOptions,
    pure::outbox::DOWNLINK_MAX_BYTES,
    types::{Payload, Sent},
};

/// The body of a message as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageBody {
    data: String,
    #[serde(default)]
    encoding: Option<String>,
    /// Into the mailbox.
    #[serde(default)]
    keep: bool,
    /// The same; seconds.
    #[serde(default)]
    ttl: Option<f64>,
    /// The same.
    #[serde(default)]
    id: Option<String>,
}

/// The message of a POST that is for many: it cannot be kept. And the room it takes.
pub(super) async fn plain(
    admin: &Admin,
    request: Request<Incoming>,
) -> Result<(Payload, Option<OwnedSemaphorePermit>), Answer> {
    only(Method::POST, &request)?;
    let media_type = admin.guard.media_type(&request)?;
    let (body, room) = body(admin, request.into_body()).await?;
    match media_type {
        MediaType::Raw => Ok((Payload::text_or_binary(body), room)),
        MediaType::Json => match parse(&body)? {
            (payload, None) => Ok((payload, room)),
            (_, Some(_)) => {
                let text = "a message for many cannot be kept: \"keep\", \"ttl\" and \"id\" are for one device";
                Err(bad_request(text))
            }
        },
    }
}

/// The status for where something went.
pub(super) fn status_of(sent: Sent) -> StatusCode {
    match sent {
        Sent::Here => StatusCode::OK,
        Sent::Elsewhere | Sent::Kept => StatusCode::ACCEPTED,
        Sent::Offline => StatusCode::GONE,
    }
}

/// A whole body, and the room it takes.
pub(super) async fn body(
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
        let broken = |_| bad_request("the body could not be read");
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

/// The message of a body, and how it is to be kept, if it is.
pub(crate) fn parse(body: &[u8]) -> Result<(Payload, Option<KeepOptions>), Answer> {
    let message: MessageBody = serde_json::from_slice(body)
        .map_err(|error| bad_request(format!("the body must be {{\"data\":\"…\"}}, with \"encoding\":\"base64\" for binary, and \"keep\":true, \"ttl\" or \"id\" to keep it: {error}")))?;
    let options = keep_options(&message)?;
    let payload = parse_payload(message.data, message.encoding.as_deref())?;
    Ok((payload, options))
}

/// What `data` is by its `encoding`.
pub(super) fn parse_payload(data: String, encoding: Option<&str>) -> Result<Payload, Answer> {
    match encoding {
        None => Ok(Payload::text(data)),
        Some("base64") => match data_encoding::BASE64.decode(data.as_bytes()) {
            Ok(bytes) => Ok(Payload::binary(bytes)),
            Err(error) => Err(bad_request(format!("\"data\" is not base64: {error}"))),
        },
        Some(other) => Err(bad_request(format!(
            "\"encoding\" is {other:?}; only \"base64\" is allowed"
        ))),
    }
}

/// `keep`, `ttl` or `id` ask for the mailbox.
fn keep_options(message: &MessageBody) -> Result<Option<KeepOptions>, Answer> {
    if !message.keep && message.ttl.is_none() && message.id.is_none() {
        return Ok(None);
    }
    let ttl = message.ttl.map(|ttl| ttl.min(TTL_MOST_SECONDS));
    let ttl = ttl.map(Duration::try_from_secs_f64).transpose();
    let ttl = ttl.map_err(|error| {
        let text = format!("\"ttl\" is a number of seconds: {error}");
        bad_request(text)
    })?;
    let mut options = KeepOptions::default();
    (options.id, options.ttl) = (message.id.clone(), ttl);
    Ok(Some(options))
}

/// The largest downlink, in base64 and JSON around it.
pub(super) const BODY_MAX_BYTES: usize = DOWNLINK_MAX_BYTES / 3 * 4 + 4096;
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Whatever is longer ends with `mailbox_age` all the same.
const TTL_MOST_SECONDS: f64 = 1e9;
