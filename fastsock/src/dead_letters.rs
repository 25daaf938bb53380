//! Dead letters as JSON: whole, or as one line of a list.

use std::{borrow::Cow, time::SystemTime};

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::types::{DeadLetter, unix_ms};

/// A dead letter without its message and its headers: what a list shows, bounded whatever the device sent.
#[derive(Serialize)]
pub(crate) struct Outline<'a> {
    id: String,
    client_id: &'a str,
    /// Unless it is the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    session_id: u64,
    seq: u64,
    reason: &'static str,
    status: Option<u16>,
    error: &'a str,
    attempts: u32,
    received_ms: u64,
    first_attempt_ms: Option<u64>,
    last_attempt_ms: Option<u64>,
    given_up_ms: u64,
    /// Length of the message.
    bytes: usize,
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    outline: Outline<'a>,
    #[serde(serialize_with = "as_object")]
    headers: &'a [(String, String)],
    data: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

impl<'a> Outline<'a> {
    pub(crate) fn of(letter: &'a DeadLetter) -> Self {
        let uplink = &letter.uplink;
        let ms = |time: Option<SystemTime>| time.map(unix_ms);
        Self {
            id: uplink.id.to_string(),
            client_id: uplink.client_id.as_str(),
            route: uplink.context.as_ref().and_then(|c| c.route.as_deref()),
            session_id: uplink.session_id.0,
            seq: uplink.seq,
            reason: letter.reason.as_str(),
            status: letter.status,
            error: &letter.error,
            attempts: letter.attempts,
            received_ms: unix_ms(uplink.received_at),
            first_attempt_ms: ms(letter.first_attempt_at),
            last_attempt_ms: ms(letter.last_attempt_at),
            given_up_ms: unix_ms(letter.given_up_at),
            bytes: uplink.payload.len(),
        }
    }
}

/// All of it, as the admin API and C show it: times in milliseconds since 1970, a BINARY message in base64 with
/// `"encoding":"base64"` beside it.
impl Serialize for DeadLetter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let payload = &self.uplink.payload;
        let (data, encoding) = if payload.is_text() {
            (payload.to_text(), None)
        } else {
            let data = data_encoding::BASE64.encode(payload.as_bytes());
            (data.into(), Some("base64"))
        };
        let whole = Whole {
            outline: Outline::of(self),
            headers: &self.headers,
            data,
            encoding,
        };
        whole.serialize(serializer)
    }
}

/// No name comes twice: they are those of a POST of ours.
fn as_object<S: Serializer>(
    headers: &&[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(headers.len()))?;
    for (name, value) in *headers {
        object.serialize_entry(name, value)?;
    }
    object.end()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::types::{ClientId, LostReason, Payload, SessionId, Uplink};

    #[test]
    fn a_letter_is_told_whole_or_in_outline() {
        let time = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let client_id = ClientId::new("dev1").unwrap();
        let mut uplink = Uplink::new(client_id, SessionId(7), 3, Payload::text("hällo"));
        uplink.received_at = time(1000);
        let mut letter = DeadLetter {
            reason: LostReason::Rejected,
            status: Some(400),
            error: "answered 400".into(),
            attempts: 1,
            first_attempt_at: Some(time(1001)),
            last_attempt_at: Some(time(1002)),
            given_up_at: time(1003),
            headers: vec![("a".into(), "b".into())],
            uplink,
        };
        let outline = json!({
            "id": letter.uplink.id.to_string(), "client_id": "dev1", "session_id": 7, "seq": 3, "reason": "rejected",
            "status": 400, "error": "answered 400", "attempts": 1, "received_ms": 1000, "first_attempt_ms": 1001,
            "last_attempt_ms": 1002, "given_up_ms": 1003, "bytes": 6,
        });
        assert_eq!(json!(Outline::of(&letter)), outline);
        let mut whole = outline;
        whole["headers"] = json!({"a": "b"});
        whole["data"] = json!("hällo");
        assert_eq!(json!(letter), whole);

        letter.uplink.payload = Payload::binary(&b"\x00\xff"[..]);
        letter.first_attempt_at = None;
        let binary = json!(letter);
        assert_eq!(
            [
                &binary["data"],
                &binary["encoding"],
                &binary["first_attempt_ms"]
            ],
            [&json!("AP8="), &json!("base64"), &json!(null)]
        );
    }
}
