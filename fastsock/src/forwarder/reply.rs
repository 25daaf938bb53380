//! What the backend answers to a message, on its way back to the device.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};

use crate::{
    config::{Config, RemoteBody},
    error::ErrorKind,
    net::http::Answer,
    registry::downlinks::Downlinks,
    stats::Running,
    types::{ClientId, Payload, Sent},
};

/// Makes downlinks of answers.
pub(crate) struct Replies {
    /// Longest reply in bytes.
    pub(super) most_bytes: usize,
    /// Uplinks are POSTed as they are, so replies are handed on as they are.
    is_raw: bool,
    downlinks: Downlinks,
    running: Arc<Running>,
}

impl Replies {
    /// `None` when the settings do not ask for replies.
    pub(crate) fn new(
        config: &Config,
        downlinks: Downlinks,
        running: Arc<Running>,
    ) -> Option<Self> {
        config.remote.reply.then(|| Self {
            most_bytes: config.remote.reply_bytes,
            is_raw: config.remote.body == RemoteBody::Raw,
            downlinks,
            running,
        })
    }

    /// Sends the body of an answer to the device that caused it, wherever it is now.
    ///
    /// Resolves once it is queued: if that is before the device's next message is POSTed, replies keep its order.
    pub(super) async fn send(&self, client_id: &ClientId, answer: &Answer) {
        let body = match answer.whole_body() {
            Ok(body) if body.is_empty() => return,
            Ok(body) => body,
            Err(cause) => {
                let reason = format!("it {cause}");
                tracing::warn!(%client_id, reason, "the remote's reply is lost");
                return self.running.replies_lost.add(1);
            }
        };
        let reply = match self.is_raw {
            true => raw_payload(&answer.headers, body),
            false => payload(&answer.headers, body),
        };
        match self.downlinks.send(client_id, reply).await {
            Ok(Sent::Offline) => {
                tracing::debug!(%client_id, "the device has left before the remote's reply");
                self.running.replies_lost.add(1);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::OutboxFull => {} // the outbox counts it
            Err(error) => {
                tracing::warn!(%client_id, %error, "the remote's reply is lost");
                self.running.replies_lost.add(1);
            }
        }
    }
}

/// The bytes as they are: TEXT where the type is one of text, or none is given, and they are UTF-8; else BINARY.
fn raw_payload(headers: &HeaderMap, body: Bytes) -> Payload {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    let kind = String::from_utf8_lossy(kind.trim_ascii()).to_ascii_lowercase();
    let is_text = kind.is_empty()
        || kind.starts_with("text/")
        || matches!(kind.as_str(), "application/json" | "application/xml")
        || kind.ends_with("+json")
        || kind.ends_with("+xml");
    match is_text {
        true => Payload::text_or_binary(body),
        false => Payload::binary(body),
    }
}

/// BINARY for `application/octet-stream`, else TEXT.
fn payload(headers: &HeaderMap, body: Bytes) -> Payload {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    if kind
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/octet-stream")
    {
        Payload::binary(body)
    } else {
        Payload::text_lossy(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_reply_is_text_by_its_type_and_its_bytes_never_change() {
        for (kind, body, is_text) in [
            ("application/json", &b"{}"[..], true),
            ("Text/Plain; charset=utf-8", b"x", true),
            ("application/vnd.api+json", b"x", true),
            ("", b"x", true),
            ("", b"\xff", false),
            ("text/plain", b"\xff", false),
            ("application/cbor", b"x", false),
            ("application/x-protobuf", b"x", false),
            ("application/octet-stream", b"x", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
            let reply = raw_payload(&headers, Bytes::from_static(body));
            assert_eq!(
                (reply.is_text(), reply.as_bytes()),
                (is_text, &Bytes::from_static(body)),
                "{kind}"
            );
        }
    }

    #[test]
    fn octets_are_binary_and_all_else_is_text() {
        for (kind, is_text) in [
            ("application/octet-stream", false),
            ("Application/Octet-Stream ; x=y", false),
            ("application/json", true),
            ("text/plain; charset=utf-8", true),
            ("", true),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
            assert_eq!(payload(&headers, "x".into()).is_text(), is_text, "{kind}");
        }
        assert!(payload(&HeaderMap::new(), "x".into()).is_text());
    }
}
