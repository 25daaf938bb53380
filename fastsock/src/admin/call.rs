//! `POST /api/v1/clients/<id>/call`: sends a message to a device and waits for its answer.

use std::time::Duration;

use data_encoding::BASE64;
use hyper::{Method, Request, StatusCode, body::Incoming};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Admin, Answer, Place, bad_request, clients, failure,
    guard::MediaType,
    messages::{body, parse_payload},
    ok, only, problem,
};
use crate::{calls::CallMatch, verbs};

/// The body of a call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallBody {
    data: String,
    #[serde(default)]
    encoding: Option<String>,
    /// Which message is the answer.
    #[serde(default, rename = "match")]
    matcher: Option<Pointer>,
    /// It is the CALLRESULT or CALLERROR of the OCPP call in `data`.
    #[serde(default)]
    ocpp: bool,
    /// Milliseconds.
    #[serde(default)]
    timeout: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pointer {
    pointer: String,
    value: Value,
}

/// 200 and the answer; 410 not connected; 429 too many calls; 504 no answer. While it waits it holds no place of the listener: the
/// limits of calls count then.
pub(super) async fn call(
    admin: &Admin,
    request: Request<Incoming>,
    client: &str,
    place: &Place,
) -> Result<Answer, Answer> {
    only(Method::POST, &request)?;
    let client_id = clients::client_id(client)?;
    if admin.guard.media_type(&request)? != MediaType::Json {
        let text = "a call is JSON: Content-Type: application/json";
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let (body, room) = body(admin, request.into_body()).await?;
    let bad = |why: String| bad_request(format!("{FORM}: {why}"));
    let body: CallBody = serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?;
    let matcher = match (body.matcher, body.ocpp) {
        (None, true) => CallMatch::ocpp(),
        (Some(Pointer { pointer, value }), false) => {
            CallMatch::pointer_to(&pointer, value).map_err(failure)?
        }
        _ => return Err(bad("give either \"match\" or \"ocpp\":true".into())),
    };
    let payload = parse_payload(body.data, body.encoding.as_deref())?;
    drop(room);
    place.leave();
    let timeout = body.timeout.map(Duration::from_millis);
    let answer = verbs::call(&admin.shared, &client_id, payload, &matcher, timeout)
        .await
        .map_err(failure)?;
    let body = match answer.is_text() {
        true => json!({ "data": answer.to_text() }),
        false => json!({ "data": BASE64.encode(answer.as_bytes()), "encoding": "base64" }),
    };
    ok(body)
}

const FORM: &str = "the body must be {\"data\":\"…\"} with \"match\":{\"pointer\":\"/…\",\"value\":…} or \"ocpp\":true, \
     \"encoding\":\"base64\" for binary, and \"timeout\" in milliseconds";
