//! The frames of the subprotocol `fastsock.v1.ack`: every one is TEXT with a JSON object. No I/O.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::types::{LostReason, Payload};

/// How a device asks for acknowledgements of its uplinks.
pub(crate) const SUBPROTOCOL: &str = "fastsock.v1.ack";

/// The same, by a device that acknowledges kept downlinks as well.
pub(crate) const SUBPROTOCOL_2: &str = "fastsock.v2.ack";

/// An uplink with the name its device gave it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) payload: Payload,
}

/// What a device that speaks `fastsock.v2.ack` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// An uplink.
    Uplink(Envelope),
    /// It has the kept downlink of this id.
    Ack(String),
    /// It wants to be in this group.
    Join(String),
    /// It wants to be out of it.
    Leave(String),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
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

/// The same, or `{"ack":"…"}`, by a device that speaks `fastsock.v2.ack`.
pub(crate) fn open_2(message: &[u8]) -> Option<Said> {
    #[derive(Deserialize)]
    struct Ack {
        ack: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Word {
        Join(String),
        Leave(String),
    }
    if let Ok(Ack { ack }) = serde_json::from_slice(message) {
        return Some(Said::Ack(ack));
    }
    if let Some(uplink) = open(message) {
        return Some(Said::Uplink(uplink));
    }
    match serde_json::from_slice(message).ok()? {
        Word::Join(group) => Some(Said::Join(group)),
        Word::Leave(group) => Some(Said::Leave(group)),
    }
}

/// `{"joined":"…"}`: the device is in this group.
pub(crate) fn joined(group: &str) -> String {
    format!(r#"{{"joined":{}}}"#, quoted(group))
}

/// `{"left":"…"}`: it is not.
pub(crate) fn left(group: &str) -> String {
    format!(r#"{{"left":{}}}"#, quoted(group))
}

/// `{"not_joined":"…","reason":"…"}`: it may not be in it.
pub(crate) fn not_joined(group: &str, reason: &str) -> String {
    format!(r#"{{"not_joined":{},"reason":"{reason}"}}"#, quoted(group))
}

/// `{"ack":"…"}`: the uplink of this id is taken.
pub(crate) fn ack(id: &str) -> String {
    format!(r#"{{"ack":{}}}"#, quoted(id))
}

/// `{"nack":"…","reason":"…"}`: it is lost.
pub(crate) fn nack(id: &str, reason: LostReason) -> String {
    format!(r#"{{"nack":{},"reason":"{reason}"}}"#, quoted(id))
}

/// `{"data":"…"}`: a downlink, with `"encoding":"base64"` if it would be BINARY elsewhere, and with `"id":"…"` before it if the
/// device is to acknowledge it.
pub(crate) fn wrap(payload: &Payload, id: Option<&str>) -> Payload {
    let down = match payload.is_text() {
        true => Down {
            id,
            data: payload.to_text(),
            encoding: None,
        },
        false => Down {
            id,
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
        let acked = open_2(br#"{"ack":"17-0"}"#);
        assert_eq!(acked, Some(Said::Ack("17-0".into())));
        let uplink = open_2(br#"{"id":"1","data":"x"}"#);
        assert!(matches!(uplink, Some(Said::Uplink(e)) if e.id == "1"));
        assert_eq!(open_2(br#"{"ack":7}"#), None);
        let join = open_2(br#"{"join":"a"}"#);
        assert_eq!(join, Some(Said::Join("a".into())));
        let leave = open_2(br#"{"leave":"a"}"#);
        assert_eq!(leave, Some(Said::Leave("a".into())));
        for bad in [r#"{"join":1}"#, r#"{"join":"a","leave":"b"}"#, r#""join""#] {
            assert_eq!(open_2(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(
            not_joined("a\"", "too_many"),
            r#"{"not_joined":"a\"","reason":"too_many"}"#
        );
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
            assert_eq!(wrap(&payload, None), Payload::text(expected));
        }
    }
}
