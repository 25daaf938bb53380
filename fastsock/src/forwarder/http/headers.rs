//! The headers of a POST: those of every one, made once, and those that each has of its own.

use std::time::SystemTime;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, COOKIE, PROXY_AUTHORIZATION,
        USER_AGENT,
    },
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use uuid::Uuid;

use super::stamp::Stamp;
use crate::{
    error::{Error, ErrorKind, Result},
    forwarder::{destination::Destination, signature::Signer},
    net::http::{
        IDENTITY, Secrets,
        endpoint::{self, Endpoint},
    },
};

/// What the settings about headers come to.
pub(super) struct PostHeaders {
    /// Those of every POST, with room for its own.
    common: HeaderMap,
    /// The same for a redirect to elsewhere.
    without_secrets: HeaderMap,
    own: Vec<OwnHeader>,
    signer: Option<Signer>,
}

/// What proves where one attempt comes from: time and signature.
pub(super) struct Signed {
    timestamp: HeaderValue,
    signature: HeaderValue,
}

impl PostHeaders {
    /// # Errors
    /// `Config`, naming the setting that holds something else than it should.
    pub(super) fn new(destination: &Destination<'_>, endpoint: &Endpoint) -> Result<Self> {
        let mut own = own_headers(destination);
        if destination.batch > 1 {
            // A batch is of several sessions.
            own.retain(|header| !matches!(header, OwnHeader::Session | OwnHeader::Seq));
        }
        let mut common = defaults(endpoint);
        for header in &own {
            // Their place, so that the map of a request need not grow.
            common.insert(header.name(), HeaderValue::from_static(""));
        }
        if destination.reply {
            common.insert(ACCEPT_ENCODING, IDENTITY.clone());
        }
        if let Some(source) = destination.cloudevents {
            common.extend(event_headers(source));
        }
        let mut without_secrets = without_secrets(common.clone());
        let (setting, over) = (destination.headers_setting, destination.headers);
        endpoint::lay_over(&mut common, setting, over, |_| true)?;
        endpoint::lay_over(&mut without_secrets, setting, over, is_harmless)?;
        for header in endpoint::framing(over) {
            tracing::warn!(
                header,
                setting,
                "a header of this setting is ignored: the body decides it"
            );
        }
        let signer = destination.secret.map(|secret| {
            Signer::new(secret).ok_or_else(|| {
                let text = "FASTSOCK_REMOTE_SECRET: the value is not a webhook secret";
                Error::new(ErrorKind::Config, text)
            })
        });
        Ok(Self {
            common,
            without_secrets,
            own,
            signer: signer.transpose()?,
        })
    }

    /// Signs one attempt, if the settings say so.
    pub(super) fn sign(&self, id: Uuid, body: &[u8], now: SystemTime) -> Option<Signed> {
        let signer = self.signer.as_ref()?;
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_1970.map_or(0, |d| d.as_secs());
        let mut text = Uuid::encode_buffer();
        let text = id.hyphenated().encode_lower(&mut text);
        let signature = signer.sign(text, seconds, body);
        Some(Signed {
            timestamp: seconds.into(),
            signature: signature.try_into().expect("Base64 is ASCII"),
        })
    }

    /// The headers of one attempt, numbered from 1.
    pub(super) fn of(
        &self,
        stamp: Stamp<'_>,
        number: u32,
        secrets: Secrets,
        signed: Option<&Signed>,
    ) -> HeaderMap {
        let mut headers = match secrets {
            Secrets::Send => self.common.clone(),
            Secrets::Drop => self.without_secrets.clone(),
        };
        for header in &self.own {
            headers.insert(header.name(), header.value(stamp, number));
        }
        // Whoever holds a signed message can show it to the backend, so it stays between the two.
        if let (Some(signed), Secrets::Send) = (signed, secrets) {
            headers.insert(&WEBHOOK_ID, id_value(stamp.id));
            headers.insert(&WEBHOOK_TIMESTAMP, signed.timestamp.clone());
            headers.insert(&WEBHOOK_SIGNATURE, signed.signature.clone());
        }
        headers
    }
}

/// A header with a value of its own in each POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnHeader {
    IdempotencyKey,
    Session,
    Seq,
    Attempt,
    EventId,
    EventSubject,
    EventTime,
}

impl OwnHeader {
    /// Those that `remote_extra_headers` is about.
    const EXTRA: [Self; 4] = [
        Self::IdempotencyKey,
        Self::Session,
        Self::Seq,
        Self::Attempt,
    ];
    /// Those of a CloudEvent.
    const EVENT: [Self; 3] = [Self::EventId, Self::EventSubject, Self::EventTime];

    fn name(self) -> &'static HeaderName {
        static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
        static SESSION: HeaderName = HeaderName::from_static("x-fastsock-session");
        static SEQ: HeaderName = HeaderName::from_static("x-fastsock-seq");
        static ATTEMPT: HeaderName = HeaderName::from_static("x-fastsock-attempt");
        static EVENT_ID: HeaderName = HeaderName::from_static("ce-id");
        static EVENT_SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
        static EVENT_TIME: HeaderName = HeaderName::from_static("ce-time");
        match self {
            Self::IdempotencyKey => &IDEMPOTENCY_KEY,
            Self::Session => &SESSION,
            Self::Seq => &SEQ,
            Self::Attempt => &ATTEMPT,
            Self::EventId => &EVENT_ID,
            Self::EventSubject => &EVENT_SUBJECT,
            Self::EventTime => &EVENT_TIME,
        }
    }

    fn value(self, stamp: Stamp<'_>, number: u32) -> HeaderValue {
        match self {
            Self::IdempotencyKey | Self::EventId => id_value(stamp.id),
            Self::Session => stamp.session_id.0.into(),
            Self::Seq => stamp.seq.into(),
            Self::Attempt if number == 1 => HeaderValue::from_static("1"),
            Self::Attempt => number.into(),
            Self::EventSubject => event_text(stamp.client_id.as_str()),
            Self::EventTime => {
                let time = humantime::format_rfc3339_millis(stamp.made_at).to_string();
                time.try_into().expect("a time is ASCII")
            }
        }
    }
}

fn id_value(id: Uuid) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("a UUID is hexadecimal")
}

/// Those that the settings want and do not override.
fn own_headers(destination: &Destination<'_>) -> Vec<OwnHeader> {
    let is_overridden = |header: &OwnHeader| {
        let named = |(name, _): &(String, _)| name.eq_ignore_ascii_case(header.name().as_str());
        destination.headers.0.iter().any(named)
    };
    let extra = OwnHeader::EXTRA
        .into_iter()
        .filter(|_| destination.extra_headers);
    let event = OwnHeader::EVENT
        .into_iter()
        .filter(|_| destination.cloudevents.is_some());
    let mut own: Vec<_> = extra.chain(event).collect();
    own.retain(|header| !is_overridden(header));
    own
}

/// What all CloudEvents of this gateway have in common (CloudEvents 1.0, HTTP binding §3.1).
fn event_headers(source: &str) -> [(HeaderName, HeaderValue); 3] {
    let source = format!("/{source}");
    [
        (
            HeaderName::from_static("ce-specversion"),
            HeaderValue::from_static("1.0"),
        ),
        (
            HeaderName::from_static("ce-type"),
            HeaderValue::from_static("fastsock.uplink"),
        ),
        (HeaderName::from_static("ce-source"), event_text(&source)),
    ]
}

/// Any text as the value of a CloudEvents header: percent-encoded where it is not printable ASCII (§3.1.3.2).
fn event_text(text: &str) -> HeaderValue {
    const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
    let text = utf8_percent_encode(text, ENCODED).to_string();
    text.try_into().expect("what is not ASCII was encoded")
}

/// The headers of every POST before the settings have their say, as axios has them.
fn defaults(endpoint: &Endpoint) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("application/json, text/plain, */*"),
    );
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("fastsock/", env!("CARGO_PKG_VERSION"))),
    );
    headers.extend(endpoint.headers());
    headers
}

fn without_secrets(mut headers: HeaderMap) -> HeaderMap {
    for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    headers
}

/// What of the headers in the settings may be told to another host.
fn is_harmless(name: &HeaderName) -> bool {
    [CONTENT_TYPE, ACCEPT, ACCEPT_ENCODING, USER_AGENT].contains(name)
}

static WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
static WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
static WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;

    use super::*;

    #[test]
    fn an_event_header_is_printable_ascii_and_can_be_read_back() {
        for (text, value) in [
            ("dev1", "dev1"),
            ("a b", "a%20b"),
            ("100%", "100%25"),
            ("say \"hi\"", "say%20%22hi%22"),
            ("ü€😀", "%C3%BC%E2%82%AC%F0%9F%98%80"),
            ("\u{0}\r\n\u{7f}", "%00%0D%0A%7F"),
            ("~!#[]{}|", "~!#[]{}|"),
        ] {
            assert_eq!(event_text(text), value);
            assert_eq!(percent_decode_str(value).decode_utf8().unwrap(), text);
        }
    }
}
