//! Carries uplinks to the backend as HTTP POSTs.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, PROXY_AUTHORIZATION,
        RETRY_AFTER, TRANSFER_ENCODING, USER_AGENT,
    },
};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;
use url::Url;

use super::{Attempt, Forward};
use crate::{
    broker::BoxFuture,
    config::{Config, UplinkBinary},
    error::{Error, ErrorKind, Result},
    http::{Answer, Client, Secrets, Target},
    tasks::Tasks,
    types::{Payload, Uplink},
};

/// POSTs each uplink to `remote_url`.
pub(crate) struct HttpForwarder {
    client: Client,
    target: Target,
    timeout: Duration,
    binary: UplinkBinary,
    /// The headers of every POST, with room for those of one uplink.
    headers: HeaderMap,
    /// The same for a redirect to elsewhere.
    headers_without_secrets: HeaderMap,
    uplink_headers: Vec<UplinkHeader>,
}

impl HttpForwarder {
    /// A forwarder for `config.remote_url`. Its connections are tasks of `tasks`, so that group must outlive the last
    /// attempt.
    ///
    /// # Errors
    /// `Config`, naming the variable: no URL, or a proxy or certificate file that cannot be used.
    pub(crate) fn new(config: &Config, tasks: Tasks) -> Result<Self> {
        let bad_url = || Error::new(ErrorKind::Config, "REMOTE_URL: not an http or https URL");
        let url = config.remote_url.as_deref().ok_or_else(bad_url)?;
        let url = Url::parse(url).map_err(|e| bad_url().with_source(e))?;
        let client = Client::new(config, tasks)?;
        let target = client.target(&url).ok_or_else(bad_url)?;
        let mut headers = headers(&url, &target);
        let uplink_headers = uplink_headers(config);
        for header in &uplink_headers {
            // Their place, so that the map of a request need not grow.
            headers.insert(header.name(), HeaderValue::from_static(""));
        }
        let mut headers_without_secrets = without_secrets(headers.clone());
        apply(config, &mut headers, |_| true)?;
        apply(config, &mut headers_without_secrets, is_harmless)?;
        warn_of_ignored(config);
        Ok(Self {
            client,
            target,
            timeout: config.remote_timeout,
            binary: config.uplink_binary,
            headers,
            headers_without_secrets,
            uplink_headers,
        })
    }

    fn headers_of(&self, uplink: &Uplink, number: u32, secrets: Secrets) -> HeaderMap {
        let mut headers = match secrets {
            Secrets::Send => self.headers.clone(),
            Secrets::Drop => self.headers_without_secrets.clone(),
        };
        for header in &self.uplink_headers {
            headers.insert(header.name(), header.value(uplink, number));
        }
        headers
    }
}

impl Forward for HttpForwarder {
    fn attempt<'a>(&'a self, uplink: &'a Uplink, number: u32) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let body = body(uplink.client_id.as_str(), &uplink.payload, self.binary);
            let headers = |secrets| self.headers_of(uplink, number, secrets);
            let deadline = Instant::now() + self.timeout;
            match self
                .client
                .post(&self.target, headers, body, deadline)
                .await
            {
                Ok(answer) => attempt(&answer),
                Err(error) => Attempt::Failed { error },
            }
        })
    }
}

fn attempt(answer: &Answer) -> Attempt {
    match answer.status.as_u16() {
        status @ (301 | 302 | 303 | 307 | 308) => Attempt::Redirected { status },
        status => Attempt::Answered {
            status,
            retry_after: retry_after(&answer.headers, SystemTime::now()),
        },
    }
}

/// `Retry-After` in seconds or as a date, at most a minute. What is neither is ignored.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are long enough.
        text.parse()
            .map_or(LONGEST_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// `{"client_id":"…","data":"…"}`, byte for byte as `JSON.stringify` writes it.
fn body(client_id: &str, payload: &Payload, binary: UplinkBinary) -> Bytes {
    const FRAME: usize = r#"{"client_id":"","data":"","encoding":"base64"}"#.len();
    let is_base64 = binary == UplinkBinary::Base64 && !payload.is_text();
    let data_len = if is_base64 {
        data_encoding::BASE64.encode_len(payload.len())
    } else {
        payload.len() + ESCAPES_BYTES
    };
    let mut body = Vec::with_capacity(FRAME + client_id.len() + data_len);
    body.extend_from_slice(br#"{"client_id":"#);
    write_json(&mut body, client_id);
    body.extend_from_slice(br#","data":"#);
    if is_base64 {
        body.push(b'"');
        let start = body.len();
        body.resize(start + data_len, 0);
        data_encoding::BASE64.encode_mut(payload.as_bytes(), &mut body[start..]);
        body.extend_from_slice(br#"","encoding":"base64"}"#);
    } else {
        write_json(&mut body, &payload.to_text());
        body.push(b'}');
    }
    body.into()
}

/// serde_json escapes what `JSON.stringify` escapes: quotes, backslashes and control characters, the same way.
fn write_json(body: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(body, text).expect("a Vec takes all, and text is always valid JSON");
}

/// A header with a value of its own in each POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UplinkHeader {
    IdempotencyKey,
    Session,
    Seq,
    Attempt,
}

impl UplinkHeader {
    const ALL: [Self; 4] = [
        Self::IdempotencyKey,
        Self::Session,
        Self::Seq,
        Self::Attempt,
    ];

    fn name(self) -> &'static HeaderName {
        static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
        static SESSION: HeaderName = HeaderName::from_static("x-fastsock-session");
        static SEQ: HeaderName = HeaderName::from_static("x-fastsock-seq");
        static ATTEMPT: HeaderName = HeaderName::from_static("x-fastsock-attempt");
        match self {
            Self::IdempotencyKey => &IDEMPOTENCY_KEY,
            Self::Session => &SESSION,
            Self::Seq => &SEQ,
            Self::Attempt => &ATTEMPT,
        }
    }

    fn value(self, uplink: &Uplink, number: u32) -> HeaderValue {
        match self {
            Self::IdempotencyKey => {
                let mut text = uuid::Uuid::encode_buffer();
                let text = uplink.id.hyphenated().encode_lower(&mut text);
                HeaderValue::from_str(text).expect("a UUID is hexadecimal")
            }
            Self::Session => uplink.session_id.0.into(),
            Self::Seq => uplink.seq.into(),
            Self::Attempt if number == 1 => HeaderValue::from_static("1"),
            Self::Attempt => number.into(),
        }
    }
}

/// Those that the settings want and do not override.
fn uplink_headers(config: &Config) -> Vec<UplinkHeader> {
    let is_overridden = |header: &UplinkHeader| {
        let named = |(name, _): &(String, _)| name.eq_ignore_ascii_case(header.name().as_str());
        config.remote_headers.0.iter().any(named)
    };
    let mut headers = UplinkHeader::ALL.to_vec();
    headers.retain(|header| config.remote_extra_headers && !is_overridden(header));
    headers
}

/// The headers of every POST before the settings have their say, as axios has them.
fn headers(url: &Url, target: &Target) -> HeaderMap {
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
    headers.insert(HOST, target.host().clone());
    if let Some(authorization) = basic_auth(url) {
        headers.insert(AUTHORIZATION, authorization);
    }
    headers
}

/// User and password of the URL, as the header they become.
fn basic_auth(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut credentials = percent_decode_str(url.username()).collect::<Vec<u8>>();
    credentials.push(b':');
    credentials.extend(percent_decode_str(url.password().unwrap_or_default()));
    let text = format!("Basic {}", data_encoding::BASE64.encode(&credentials));
    let mut value = HeaderValue::try_from(text).expect("Base64 is ASCII");
    value.set_sensitive(true);
    Some(value)
}

/// Lays those of `remote_headers` that are `wanted` over what is there.
fn apply(
    config: &Config,
    headers: &mut HeaderMap,
    wanted: impl Fn(&HeaderName) -> bool,
) -> Result<()> {
    for (name, value) in &config.remote_headers.0 {
        let bad = || {
            let text = format!("REMOTE_HEADERS: {name:?} is no header, or its value is none");
            Error::new(ErrorKind::Config, text)
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad().with_source(e))?;
        if is_ignored(&name) {
            continue;
        }
        match value {
            Some(text) if wanted(&name) => {
                let mut value = HeaderValue::from_str(text).map_err(|e| bad().with_source(e))?;
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            _ => {
                headers.remove(name);
            }
        }
    }
    Ok(())
}

fn without_secrets(mut headers: HeaderMap) -> HeaderMap {
    for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    headers
}

/// What of `remote_headers` may be told to another host.
fn is_harmless(name: &HeaderName) -> bool {
    [CONTENT_TYPE, ACCEPT, USER_AGENT].contains(name)
}

/// How the body is framed is not for the settings to say.
fn is_ignored(name: &HeaderName) -> bool {
    [CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)
}

fn warn_of_ignored(config: &Config) {
    for (name, value) in &config.remote_headers.0 {
        let is_ignored = HeaderName::from_bytes(name.as_bytes()).is_ok_and(|n| is_ignored(&n));
        if is_ignored && value.is_some() {
            tracing::warn!(header = %name, "header of REMOTE_HEADERS is ignored: it follows from the body");
        }
    }
}

/// The longest wait that a backend can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Room for the escapes of a usual payload.
const ESCAPES_BYTES: usize = 32;

#[cfg(test)]
mod tests;
