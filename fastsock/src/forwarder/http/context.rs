//! The headers of a POST that tell what is known of the session: how the device connected, and what was said of it.

use http::{HeaderMap, HeaderName, HeaderValue, header::Entry};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::stamp::Stamp;
use crate::{config::Headers, context::Context, net::http::Secrets, types::unix_ms};

/// Which of them there are: those of the settings come before them.
pub(super) struct ContextHeaders {
    fields: Vec<Field>,
    overridden: Vec<HeaderName>,
}

/// One that the gateway makes.
#[derive(Clone, Copy)]
enum Field {
    RemoteAddr,
    Path,
    Protocol,
    ConnectedAt,
    Metadata,
}

impl ContextHeaders {
    pub(super) fn new(over: &Headers) -> Self {
        let names = over.0.iter();
        let overridden: Vec<_> = names
            .filter_map(|(name, _)| HeaderName::from_bytes(name.as_bytes()).ok())
            .collect();
        let mut fields = Field::ALL.to_vec();
        fields.retain(|field| !overridden.contains(&field.name()));
        Self { fields, overridden }
    }

    /// Puts them among those of a POST. What the device and whoever let it in have said is not for a host that the settings do not name.
    pub(super) fn put(&self, headers: &mut HeaderMap, stamp: Stamp<'_>, secrets: Secrets) {
        for field in &self.fields {
            if matches!(field, Field::Metadata) && secrets == Secrets::Drop {
                continue;
            }
            if let Some(value) = field.value(stamp) {
                headers.insert(field.name(), value);
            }
        }
        if let (Some(context), Secrets::Send) = (stamp.context, secrets) {
            self.put_forwarded(headers, context);
        }
    }

    fn put_forwarded(&self, headers: &mut HeaderMap, context: &Context) {
        let mut before = None;
        for (name, text) in &context.headers {
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                continue;
            };
            if self.overridden.contains(&header) {
                continue;
            }
            let mut value = as_sent(text);
            value.set_sensitive(true);
            match headers.entry(header) {
                Entry::Occupied(mut entry) if before == Some(name) => entry.append(value),
                Entry::Occupied(mut entry) => {
                    entry.insert_mult(value); // ours, such as User-Agent
                }
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
            }
            before = Some(name);
        }
    }
}

impl Field {
    const ALL: [Self; 5] = [
        Self::RemoteAddr,
        Self::Path,
        Self::Protocol,
        Self::ConnectedAt,
        Self::Metadata,
    ];

    fn name(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::RemoteAddr => "x-fastsock-remote-addr",
            Self::Path => "x-fastsock-path",
            Self::Protocol => "x-fastsock-protocol",
            Self::ConnectedAt => "x-fastsock-connected-at",
            Self::Metadata => "x-fastsock-metadata",
        })
    }

    fn value(self, stamp: Stamp<'_>) -> Option<HeaderValue> {
        let context = stamp.context?;
        Some(match self {
            Self::RemoteAddr => encoded(&context.remote_addr.to_string()),
            Self::Path => as_sent(&context.path),
            Self::Protocol => encoded(context.subprotocol.as_deref()?),
            Self::ConnectedAt => unix_ms(context.connected_at).into(),
            Self::Metadata => {
                let mut value = encoded(context.metadata.as_ref()?.as_str());
                value.set_sensitive(true);
                value
            }
        })
    }
}

/// Any text, so that percent-decoding gives it back: what a header can hold stays as it is.
fn encoded(text: &str) -> HeaderValue {
    const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
    const WITH_SPACES: &AsciiSet = &ENCODED.add(b' '); // which are lost at the ends of a value
    let set = if text.trim_matches(' ') == text {
        ENCODED
    } else {
        WITH_SPACES
    };
    let text = utf8_percent_encode(text, set).to_string();
    text.try_into().expect("what is not ASCII was encoded")
}

/// What came in a request head, as it came; what no header can hold is percent-encoded.
fn as_sent(text: &str) -> HeaderValue {
    let text = utf8_percent_encode(text, CONTROLS).to_string();
    text.try_into().expect("what is not ASCII was encoded")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use uuid::Uuid;

    use super::*;
    use crate::{
        config::Config,
        types::{ClientId, SessionId},
    };

    fn headers(config: &Config, context: &Context, secrets: Secrets) -> Vec<(String, String)> {
        let client_id = ClientId::new("CP\u{e9} 1").unwrap();
        let stamp = Stamp {
            id: Uuid::nil(),
            client_id: &client_id,
            session_id: SessionId(1),
            epoch: 1,
            is_text: true,
            seq: 1,
            made_at: context.connected_at,
            context: Some(context),
        };
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("fastsock"));
        ContextHeaders::new(&config.remote.headers).put(&mut headers, stamp, secrets);
        let headers = headers.iter();
        let headers = headers.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()));
        headers.collect()
    }

    #[test]
    fn they_tell_of_the_session_and_nothing_can_be_injected() {
        let mut context = Context::new(
            "/ocpp/CP%C3%A9\r\nX: y",
            IpAddr::from([127, 0, 0, 1]).into(),
        );
        context.connected_at = std::time::SystemTime::UNIX_EPOCH;
        context.subprotocol = Some("ocpp1.6".into());
        context.metadata = Some(r#"{"a":"é 100%\r\n"}"#.parse().unwrap());
        let mut header =
            |name: &str, value: &str| context.headers.push((name.into(), value.into()));
        header("user-agent", "station/1 \u{fffd} 100%");
        header("x-serial", "1\r\nX-Evil: 2");
        header("x-serial", "2");
        header("x-api-key", "stolen");
        let mut config = Config::default();
        config
            .set(
                "remote_headers",
                r#"{"X-Api-Key":"ours","X-Fastsock-Protocol":null}"#,
            )
            .unwrap();
        let of = |name: &str, all: &[(String, String)]| -> Vec<String> {
            let named = all.iter().filter(|(n, _)| n == name);
            named.map(|(_, value)| value.clone()).collect()
        };
        let all = headers(&config, &context, Secrets::Send);
        for (name, expected) in [
            ("x-fastsock-remote-addr", &["127.0.0.1"][..]),
            ("x-fastsock-path", &["/ocpp/CP%C3%A9%0D%0AX: y"]),
            ("x-fastsock-protocol", &[]),
            ("x-fastsock-connected-at", &["0"]),
            ("x-fastsock-metadata", &[r#"{"a":"%C3%A9 100%25\r\n"}"#]),
            ("user-agent", &["station/1 %EF%BF%BD 100%"]),
            ("x-serial", &["1%0D%0AX-Evil: 2", "2"]),
            ("x-api-key", &[]),
        ] {
            assert_eq!(of(name, &all), expected, "{name}");
        }
        let elsewhere = headers(&config, &context, Secrets::Drop);
        for name in ["x-fastsock-metadata", "x-serial"] {
            assert!(of(name, &elsewhere).is_empty(), "{name}");
        }
        assert_eq!(of("user-agent", &elsewhere), ["fastsock"]);
    }

    #[test]
    fn any_text_is_read_back_by_percent_decoding() {
        for text in [
            "dev1",
            "a b",
            " a",
            "a ",
            "100%",
            "%41",
            "ü€😀",
            "\0\r\n\x7f",
            "\"",
            "",
            "a\tb",
        ] {
            let value = encoded(text);
            let value = value.to_str().unwrap();
            assert_eq!(value.trim(), value);
            let back = percent_encoding::percent_decode_str(value);
            assert_eq!(back.decode_utf8().unwrap(), text);
        }
    }
}
