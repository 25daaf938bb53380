//! The headers of a POST: those of every one, made once, and those that each has of its own.

use std::time::SystemTime;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, COOKIE, PROXY_AUTHORIZATION,
        USER_AGENT,
    },
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use uuid::Uuid;

use super::{context::ContextHeaders, stamp::Stamp};
use crate::{
    error::{Error, ErrorKind, Result},
    forwarder::{
        destination::{BodyForm, Destination},
        signature::Signer,
    },
    net::http::{
        IDENTITY, Secrets, Target,
        endpoint::{self, Endpoint},
        request::{Fields, write_field, write_name},
    },
    trace_context::TraceContext,
};

/// What the settings about headers come to.
pub(super) struct PostHeaders {
    /// Those of every POST, with room for its own.
    common: HeaderMap,
    /// The same for a redirect to elsewhere.
    without_secrets: HeaderMap,
    own: Vec<OwnHeader>,
    /// Those of every POST as HTTP/1.1 sends them, in pieces: the value of this header comes after each. Then the rest.
    pieces: Vec<(Vec<u8>, OwnHeader)>,
    rest: Vec<u8>,
    /// Those of the session, unless the settings say nothing of it.
    context: Option<ContextHeaders>,
    /// Those of the trace of its device that go with a POST.
    trace: Vec<TraceHeader>,
    signer: Option<Signer>,
}

/// The headers of one attempt.
pub(super) struct AttemptHeaders<'a> {
    headers: &'a PostHeaders,
    stamp: Stamp<'a>,
    number: u32,
    signed: Option<Signed>,
}

/// What proves where one attempt comes from: time and signature.
struct Signed {
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
            own.retain(|header| !OwnHeader::OF_ONE.contains(header));
        }
        let mut common = defaults(endpoint);
        for header in &own {
            // Their place, so that the map of a request need not grow.
            common.insert(header.name(), HeaderValue::from_static(""));
        }
        if destination.reply {
            common.insert(ACCEPT_ENCODING, IDENTITY.clone());
        }
        if let BodyForm::Raw(Some(content_type)) = destination.form {
            let value = HeaderValue::from_str(content_type);
            common.insert(CONTENT_TYPE, value.expect("`Config::check` has seen to it"));
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
        let (pieces, rest) = pieces(&endpoint.target.completed(common.clone()), &own);
        Ok(Self {
            common,
            without_secrets,
            own,
            pieces,
            rest,
            context: destination
                .context
                .then(|| ContextHeaders::new(destination.headers)),
            trace: trace_headers(destination),
            signer: signer.transpose()?,
        })
    }

    /// The headers of one attempt, numbered from 1, without a signature.
    pub(super) fn of<'a>(&'a self, stamp: Stamp<'a>, number: u32) -> AttemptHeaders<'a> {
        AttemptHeaders {
            headers: self,
            stamp,
            number,
            signed: None,
        }
    }

    fn sign(&self, id: Uuid, body: &[u8]) -> Option<Signed> {
        let signer = self.signer.as_ref()?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since_1970.map_or(0, |d| d.as_secs());
        let mut text = Uuid::encode_buffer();
        let text = id.hyphenated().encode_lower(&mut text);
        let signature = signer.sign(text, seconds, body);
        Some(Signed {
            timestamp: seconds.into(),
            signature: signature.try_into().expect("Base64 is ASCII"),
        })
    }
}

impl AttemptHeaders<'_> {
    /// The same, with a signature of this body if the settings say so.
    pub(super) fn signed(mut self, body: &[u8]) -> Self {
        self.signed = self.headers.sign(self.stamp.id, body);
        self
    }

    /// Those that say which trace the device is part of.
    fn trace(&self) -> impl Iterator<Item = (TraceHeader, &str)> {
        let trace = self
            .stamp
            .context
            .and_then(|context| context.trace.as_ref());
        trace.into_iter().flat_map(move |trace| {
            let headers = self.headers.trace.iter();
            headers.filter_map(move |header| Some((*header, header.value(trace)?)))
        })
    }
}

impl Fields for AttemptHeaders<'_> {
    fn map(&self, secrets: Secrets) -> HeaderMap {
        let mut headers = match secrets {
            Secrets::Send => self.headers.common.clone(),
            Secrets::Drop => self.headers.without_secrets.clone(),
        };
        for header in &self.headers.own {
            headers.insert(header.name(), header.value(self.stamp, self.number));
        }
        // What is of the device goes to nobody whom the settings do not name.
        if secrets == Secrets::Send {
            for (header, value) in self.trace() {
                if let Ok(value) = HeaderValue::from_str(value) {
                    headers.insert(header.name(), value);
                }
            }
        }
        if let Some(context) = &self.headers.context {
            context.put(&mut headers, self.stamp, secrets);
        }
        // Whoever holds a signed message can show it to the backend, so it stays between the two.
        if let (Some(signed), Secrets::Send) = (&self.signed, secrets) {
            headers.extend(signed.headers(self.stamp.id));
        }
        headers
    }

    fn write(&self, to: &Target, lines: &mut Vec<u8>) {
        if self.headers.context.is_some() {
            // What a device has sent may take the place of another one.
            for (name, value) in &to.completed(self.map(Secrets::Send)) {
                write_field(name, value, lines);
            }
            return;
        }
        for (piece, header) in &self.headers.pieces {
            lines.extend_from_slice(piece);
            header.write_value(self.stamp, self.number, lines);
        }
        lines.extend_from_slice(&self.headers.rest);
        for (header, value) in self.trace() {
            if let Ok(value) = HeaderValue::from_str(value) {
                write_field(header.name(), &value, lines);
            }
        }
        if let Some(signed) = &self.signed {
            for (name, value) in signed.headers(self.stamp.id) {
                write_field(&name, &value, lines);
            }
        }
    }
}

impl Signed {
    fn headers(&self, id: Uuid) -> [(HeaderName, HeaderValue); 3] {
        [
            (WEBHOOK_ID.clone(), id_value(id)),
            (WEBHOOK_TIMESTAMP.clone(), self.timestamp.clone()),
            (WEBHOOK_SIGNATURE.clone(), self.signature.clone()),
        ]
    }
}

/// Headers as HTTP/1.1 sends them, cut where the value of an own one goes; and what comes after the last of those.
fn pieces(headers: &HeaderMap, own: &[OwnHeader]) -> (Vec<(Vec<u8>, OwnHeader)>, Vec<u8>) {
    let mut pieces = Vec::new();
    let mut lines = Vec::new();
    for (name, value) in headers {
        match own.iter().find(|own| own.name() == name) {
            Some(own) => {
                write_name(name, &mut lines);
                pieces.push((std::mem::replace(&mut lines, b"\r\n".to_vec()), *own));
            }
            None => write_field(name, value, &mut lines),
        }
    }
    (pieces, lines)
}

/// A header with a value of its own in each POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnHeader {
    IdempotencyKey,
    Session,
    Epoch,
    Seq,
    Attempt,
    /// That of a raw message, and of one whose session is told.
    ClientId,
    /// Those of a raw message.
    Kind,
    ContentType,
    EventId,
    EventSubject,
    EventTime,
}

impl OwnHeader {
    /// Those that `remote_extra_headers` is about.
    const EXTRA: [Self; 5] = [
        Self::IdempotencyKey,
        Self::Session,
        Self::Epoch,
        Self::Seq,
        Self::Attempt,
    ];
    /// Those that tell of one session.
    const OF_ONE: [Self; 3] = [Self::Session, Self::Epoch, Self::Seq];
    /// Those of a raw message.
    const RAW: [Self; 3] = [Self::ClientId, Self::Kind, Self::ContentType];
    /// Those of a CloudEvent.
    const EVENT: [Self; 3] = [Self::EventId, Self::EventSubject, Self::EventTime];

    fn name(self) -> &'static HeaderName {
        static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
        static SESSION: HeaderName = HeaderName::from_static("x-fastsock-session");
        static EPOCH: HeaderName = HeaderName::from_static("x-fastsock-epoch");
        static SEQ: HeaderName = HeaderName::from_static("x-fastsock-seq");
        static ATTEMPT: HeaderName = HeaderName::from_static("x-fastsock-attempt");
        static CLIENT_ID: HeaderName = HeaderName::from_static("x-fastsock-client-id");
        static KIND: HeaderName = HeaderName::from_static("x-fastsock-kind");
        static EVENT_ID: HeaderName = HeaderName::from_static("ce-id");
        static EVENT_SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
        static EVENT_TIME: HeaderName = HeaderName::from_static("ce-time");
        match self {
            Self::IdempotencyKey => &IDEMPOTENCY_KEY,
            Self::Session => &SESSION,
            Self::Epoch => &EPOCH,
            Self::Seq => &SEQ,
            Self::Attempt => &ATTEMPT,
            Self::ClientId => &CLIENT_ID,
            Self::Kind => &KIND,
            Self::ContentType => &CONTENT_TYPE,
            Self::EventId => &EVENT_ID,
            Self::EventSubject => &EVENT_SUBJECT,
            Self::EventTime => &EVENT_TIME,
        }
    }

    fn value(self, stamp: Stamp<'_>, number: u32) -> HeaderValue {
        let mut value = Vec::new();
        self.write_value(stamp, number, &mut value);
        HeaderValue::from_maybe_shared(Bytes::from(value)).expect("all of them are ASCII")
    }

    fn write_value(self, stamp: Stamp<'_>, number: u32, value: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        let mut id = Uuid::encode_buffer();
        let text = match self {
            Self::IdempotencyKey | Self::EventId => &*stamp.id.hyphenated().encode_lower(&mut id),
            Self::Session => digits.format(stamp.session_id.0),
            Self::Epoch => digits.format(stamp.epoch),
            Self::Seq => digits.format(stamp.seq),
            Self::Attempt => digits.format(number),
            Self::Kind if stamp.is_text => "text",
            Self::Kind => "binary",
            Self::ContentType if stamp.is_text => "text/plain; charset=utf-8",
            Self::ContentType => "application/octet-stream",
            Self::ClientId | Self::EventSubject => &event_text(stamp.client_id.as_str()),
            Self::EventTime => &humantime::format_rfc3339_millis(stamp.made_at).to_string(),
        };
        value.extend_from_slice(text.as_bytes());
    }
}

/// A header of W3C Trace Context, as the device sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TraceHeader {
    Parent,
    State,
}

impl TraceHeader {
    fn name(self) -> &'static HeaderName {
        static PARENT: HeaderName = HeaderName::from_static("traceparent");
        static STATE: HeaderName = HeaderName::from_static("tracestate");
        match self {
            Self::Parent => &PARENT,
            Self::State => &STATE,
        }
    }

    fn value(self, trace: &TraceContext) -> Option<&str> {
        match self {
            Self::Parent => Some(&trace.parent),
            Self::State => trace.state.as_deref(),
        }
    }
}

/// Those that the settings leave to the device. A batch is of several devices, so it is part of no trace.
fn trace_headers(destination: &Destination<'_>) -> Vec<TraceHeader> {
    let mut headers = vec![TraceHeader::Parent, TraceHeader::State];
    let goes = destination.extra_headers && destination.batch == 1;
    headers.retain(|header| goes && !is_overridden(destination, header.name()));
    if !headers.contains(&TraceHeader::Parent) {
        headers.clear(); // the rest says nothing without it
    }
    headers
}

fn is_overridden(destination: &Destination<'_>, name: &HeaderName) -> bool {
    let mut over = destination.headers.0.iter();
    over.any(|(over, _)| over.eq_ignore_ascii_case(name.as_str()))
}

fn id_value(id: Uuid) -> HeaderValue {
    let mut text = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("a UUID is hexadecimal")
}

/// Those that the settings want and do not override.
fn own_headers(destination: &Destination<'_>) -> Vec<OwnHeader> {
    let extra = OwnHeader::EXTRA
        .into_iter()
        .filter(|_| destination.extra_headers);
    let event = OwnHeader::EVENT
        .into_iter()
        .filter(|_| destination.cloudevents.is_some());
    let raw = OwnHeader::RAW
        .into_iter()
        .filter(|header| match destination.form {
            BodyForm::Json(_) => false,
            BodyForm::Raw(given) => given.is_none() || *header != OwnHeader::ContentType,
        });
    let is_raw = matches!(destination.form, BodyForm::Raw(_));
    let named = (destination.context && !is_raw).then_some(OwnHeader::ClientId);
    let mut own: Vec<_> = extra.chain(raw).chain(named).chain(event).collect();
    own.retain(|header| !is_overridden(destination, header.name()));
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
        (
            HeaderName::from_static("ce-source"),
            event_text(&source)
                .try_into()
                .expect("what is not ASCII was encoded"),
        ),
    ]
}

/// Any text as the value of a CloudEvents header: percent-encoded where it is not printable ASCII (§3.1.3.2).
fn event_text(text: &str) -> String {
    const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');
    utf8_percent_encode(text, ENCODED).to_string()
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
