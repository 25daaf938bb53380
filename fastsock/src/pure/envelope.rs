//! The frames of the subprotocol `fastsock.v1.ack`: every one is TEXT with a JSON object. No I/O.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::types::{LostReason, Payload};

/// How a device asks for acknowledgements.
pub(crate) const SUBPROTOCOL: &str = "fastsock.v1.ack";

/// An uplink with the name its device gave it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) payload: Payload,
}

#[derive(Deserialize)]
struct Up<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, str>,
    encoding: Option<Encoding>,
}

#[derive(Serialize)]
struct Down<'a> {
    data: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<Encoding>,
}

#[derive(Deserialize, Serialize)]
enum Encoding {
    #[serde(rename = "base64")]
    Base64,
}

/// Reads `{"id":"…","data":"…"}`, of which `data` is Base64 with `"encoding":"base64"`; other members are passed over, so
/// that later versions can have more. `None` when it is anything else, or the id is not of 1 to 128 bytes.
pub(crate) fn open(message: &[u8]) -> Option<Envelope> {
    let up: Up<'_> = serde_json::from_slice(message).ok()?;
    if !(1..=ID_MAX_BYTES).contains(&up.id.len()) {
        return None;
    }
    let payload = match up.encoding {
        None => Payload::text(up.data),
        Some(Encoding::Base64) => Payload::binary(BASE64.decode(up.data.as_bytes()).ok()?),
    };
    Some(Envelope {
        id: up.id.into_owned(),
        payload,
    })
}

/// `{"ack":"…"}`: the uplink of this id is taken.
pub(crate) fn ack(id: &str) -> String {
    format!(r#"{{"ack":{}}}"#, quoted(id))
}

/// `{"nack":"…","reason":"…"}`: it is lost.
pub(crate) fn nack(id: &str, reason: LostReason) -> String {
    format!(r#"{{"nack":{},"reason":"{reason}"}}"#, quoted(id))
}

/// `{"data":"…"}`: a downlink, with `"encoding":"base64"` if it would be BINARY elsewhere.
pub(crate) fn wrap(payload: &Payload) -> Payload {
    let down = match payload.is_text() {
        true => Down {
            data: payload.to_text(),
            encoding: None,
        },
        false => Down {
            data: BASE64.encode(payload.as_bytes()).into(),
            encoding: Some(Encoding::Base64),
        },
    };
    Payload::text(serde_json::to_string(&down).expect("text is valid JSON"))
}

fn quoted(id: &str) -> String {
    serde_json::to_string(id).expect("text is valid JSON")
}

const ID_MAX_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_are_read_and_everything_else_is_not() {
        for (message, expected) in [
            (r#"{"id":"1","data":"x"}"#, Some(("1", Payload::text("x")))),
            (
                r#" {"data":"","id":"ä\n"} "#,
                Some(("ä\n", Payload::text(""))),
            ),
            (
                r#"{"id":"1","data":"AP8=","encoding":"base64"}"#,
                Some(("1", Payload::binary(vec![0, 255]))),
            ),
            (
                r#"{"id":"1","data":"x","later":[1]}"#,
                Some(("1", Payload::text("x"))),
            ),
            (r#"{"id":"","data":"x"}"#, None),
            (r#"{"id":1,"data":"x"}"#, None),
            (r#"{"id":"1"}"#, None),
            (r#"{"data":"x"}"#, None),
            (r#"{"id":"1","data":{}}"#, None),
            (r#"{"id":"1","id":"2","data":"x"}"#, None),
            (r#"{"id":"1","data":"x","encoding":"hex"}"#, None),
            (r#"{"id":"1","data":"A","encoding":"base64"}"#, None),
            (r#"{"id":"1","data":"\ud800"}"#, None),
            (r#"["1","x"]"#, None),
            ("hello", None),
            ("", None),
        ] {
            let opened = open(message.as_bytes());
            let opened = opened.as_ref().map(|e| (e.id.as_str(), e.payload.clone()));
            assert_eq!(opened, expected, "{message}");
        }
        let long = |n: usize| open(format!(r#"{{"id":"{}","data":""}}"#, "x".repeat(n)).as_bytes());
        assert!(long(ID_MAX_BYTES).is_some() && long(ID_MAX_BYTES + 1).is_none());
    }

    #[test]
    fn what_goes_down_has_its_documented_form() {
        assert_eq!(ack("a\"b"), r#"{"ack":"a\"b"}"#);
        let nack = nack("7", LostReason::HookFailed);
        assert_eq!(nack, r#"{"nack":"7","reason":"hook_failed"}"#);
        for (payload, expected) in [
            (Payload::text("é\""), r#"{"data":"é\""}"#),
            (
                Payload::binary(vec![0, 255]),
                r#"{"data":"AP8=","encoding":"base64"}"#,
            ),
        ] {
            assert_eq!(wrap(&payload), Payload::text(expected));
        }
    }
}
