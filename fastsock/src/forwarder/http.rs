//! Carries uplinks to the backend as HTTP POSTs.

mod headers;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use tokio::time::Instant;
use url::Url;

use self::headers::PostHeaders;
use super::{Attempt, Cargo, Forward, reply::Replies};
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
    cargo: Cargo,
    client: Client,
    target: Target,
    timeout: Duration,
    binary: UplinkBinary,
    headers: PostHeaders,
    replies: Option<Replies>,
}

impl HttpForwarder {
    /// A forwarder for `config.remote_url`. Its connections are tasks of `tasks`, so that group must outlive the last
    /// attempt.
    ///
    /// # Errors
    /// `Config`, naming the variable: no URL, or a proxy or certificate file that cannot be used.
    pub(crate) fn new(config: &Config, cargo: Cargo, tasks: Tasks) -> Result<Self> {
        let bad_url = || Error::new(ErrorKind::Config, "REMOTE_URL: not an http or https URL");
        let url = config.remote_url.as_deref().ok_or_else(bad_url)?;
        let url = Url::parse(url).map_err(|e| bad_url().with_source(e))?;
        let client = Client::new(config, tasks)?;
        let target = client.target(&url).ok_or_else(bad_url)?;
        Ok(Self {
            cargo,
            headers: PostHeaders::new(config, &url, &target)?,
            client,
            target,
            timeout: config.remote_timeout,
            binary: config.uplink_binary,
            replies: None,
        })
    }

    /// The same, making downlinks of what the backend answers.
    pub(crate) fn with_replies(mut self, replies: Option<Replies>) -> Self {
        self.replies = replies;
        self
    }
}

impl Forward for HttpForwarder {
    fn attempt<'a>(&'a self, uplink: &'a Uplink, number: u32) -> BoxFuture<'a, Attempt> {
        Box::pin(async move {
            let body = match self.cargo {
                Cargo::Uplinks => body(uplink.client_id.as_str(), &uplink.payload, self.binary),
                Cargo::Events => uplink.payload.as_bytes().clone(),
            };
            let signed = self.headers.sign(uplink, &body, SystemTime::now());
            let headers = |secrets| self.headers.of(uplink, number, secrets, signed.as_ref());
            let deadline = Instant::now() + self.timeout;
            let wanted = self.replies.as_ref().map_or(0, |r| r.most_bytes);
            let answer = self
                .client
                .post(&self.target, headers, body, wanted, deadline);
            match answer.await {
                Ok(answer) => {
                    if let Some(replies) = &self.replies
                        && answer.status == StatusCode::OK
                    {
                        let body = answer.body.clone();
                        replies.send(&uplink.client_id, &answer.headers, body).await;
                    }
                    attempt(&answer)
                }
                Err(error) => Attempt::Failed { error },
            }
        })
    }

    fn headers(&self, uplink: &Uplink, number: u32) -> Vec<(String, String)> {
        let headers = self.headers.of(uplink, number, Secrets::Send, None);
        let shown = |value: &HeaderValue| match value.is_sensitive() {
            true => "***".into(),
            false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        headers
            .iter()
            .map(|(name, value)| (name.to_string(), shown(value)))
            .collect()
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
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
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

/// The longest wait that a backend can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Room for the escapes of a usual payload.
const ESCAPES_BYTES: usize = 32;

#[cfg(test)]
mod tests;
