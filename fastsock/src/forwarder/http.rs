//! Carries uplinks to the backend as HTTP POSTs.

mod headers;

use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use self::headers::PostHeaders;
use super::{
    Attempt, Cargo, Forward,
    batch::{Batches, Member, Turn},
    reply::Replies,
};
use crate::{
    config::{Config, UplinkBinary},
    error::{Error, ErrorKind, Result},
    net::http::{Answer, Client, Secrets, Target},
    tasks::{BoxFuture, Tasks},
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
    /// `None`: each message is a POST of its own.
    batches: Option<Batches>,
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
        let is_batched = cargo == Cargo::Uplinks && config.remote_batch > 1;
        let batches = || Batches::new(config.remote_batch, config.remote_batch_wait);
        Ok(Self {
            cargo,
            headers: PostHeaders::new(config, &url, &target, is_batched)?,
            batches: is_batched.then(batches),
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

    /// POSTs one message.
    async fn post_one(&self, uplink: &Uplink, number: u32) -> Attempt {
        let body = match self.cargo {
            Cargo::Uplinks => body(uplink, self.binary),
            Cargo::Events => uplink.payload.as_bytes().clone(),
        };
        // Pinned first: awaiting a future by value moves it, and this one is large.
        match pin!(self.post(uplink.id, uplink, number, body)).await {
            Ok(answer) => {
                if let Some(replies) = &self.replies
                    && answer.status == StatusCode::OK
                {
                    replies.send(&uplink.client_id, &answer).await;
                }
                attempt(&answer)
            }
            Err(error) => Attempt::Failed { error },
        }
    }

    /// POSTs a batch, in halves when the backend does not want it, until the message is found that it does not want. Tells
    /// everyone what became of their message, and returns it for this one.
    async fn post_batch(&self, batches: &Batches, batch: Vec<Member>, own: &Uplink) -> Attempt {
        let _posting = batches.post();
        let (mut outcome, mut ends) = (None, Vec::new());
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let number = part.iter().map(|member| member.number).max();
            let (id, body) = batch_body(&part, self.binary);
            let (first, number) = (&part[0].uplink, number.unwrap_or(1));
            let attempt = match self.post(id, first, number, body).await {
                Ok(answer) => attempt(&answer),
                Err(error) => Attempt::Failed { error },
            };
            if part.len() > 1 && batches.is_to_split(&attempt) {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]); // the first half is next
                continue;
            }
            ends.push((part.len(), attempt.clone()));
            for member in part {
                match member.uplink.id == own.id {
                    true => outcome = Some(attempt.clone()),
                    false => member.tell(attempt.clone()),
                }
            }
        }
        batches.learn(&ends);
        outcome.expect("a worker POSTs only batches with its own message in them")
    }

    async fn post(
        &self,
        id: Uuid,
        first: &Uplink,
        number: u32,
        body: Bytes,
    ) -> Result<Answer, String> {
        let signed = self.headers.sign(id, &body, SystemTime::now());
        let headers = |secrets| self.headers.of(id, first, number, secrets, signed.as_ref());
        let deadline = Instant::now() + self.timeout;
        let wanted = self.replies.as_ref().map_or(0, |r| r.most_bytes);
        let answer = pin!(
            self.client
                .post(&self.target, headers, body, wanted, deadline)
        );
        answer.await
    }
}

impl Forward for HttpForwarder {
    fn attempt<'a>(&'a self, uplink: &'a Uplink, number: u32) -> BoxFuture<'a, Attempt> {
        let Some(batches) = &self.batches else {
            return Box::pin(self.post_one(uplink, number));
        };
        Box::pin(async move {
            match batches.join(uplink, number).await {
                Turn::Post(batch) => self.post_batch(batches, batch, uplink).await,
                Turn::Told(attempt) => attempt,
            }
        })
    }

    fn headers(&self, uplink: &Uplink, number: u32) -> Vec<(String, String)> {
        let headers = self
            .headers
            .of(uplink.id, uplink, number, Secrets::Send, None);
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
pub(crate) fn body(uplink: &Uplink, binary: UplinkBinary) -> Bytes {
    let mut body = Vec::with_capacity(FRAME_BYTES + size(uplink, binary));
    write_object(&mut body, uplink, binary);
    body.push(b'}');
    body.into()
}

/// The objects of several messages as an array, each with its id, and the id of the whole: that of its message when it has
/// one, else one that is the same for the same messages.
fn batch_body(batch: &[Member], binary: UplinkBinary) -> (Uuid, Bytes) {
    let mut digest = Sha256::new();
    let mut body = Vec::new();
    for Member { uplink, .. } in batch {
        body.push(if body.is_empty() { b'[' } else { b',' });
        write_object(&mut body, uplink, binary);
        body.extend_from_slice(br#","id":""#);
        let mut text = Uuid::encode_buffer();
        body.extend_from_slice(uplink.id.hyphenated().encode_lower(&mut text).as_bytes());
        body.extend_from_slice(br#""}"#);
        digest.update(uplink.id.as_bytes());
    }
    body.push(b']');
    let id = match batch {
        [alone] => alone.uplink.id,
        _ => {
            let digest: [u8; 32] = digest.finalize().into();
            let (id, _) = digest.split_first_chunk().expect("16 of 32 bytes");
            Uuid::new_v8(*id)
        }
    };
    (id, body.into())
}

/// An object but for its closing brace.
fn write_object(body: &mut Vec<u8>, uplink: &Uplink, binary: UplinkBinary) {
    body.extend_from_slice(br#"{"client_id":"#);
    write_json(body, uplink.client_id.as_str());
    body.extend_from_slice(br#","data":"#);
    let payload = &uplink.payload;
    if is_base64(payload, binary) {
        body.push(b'"');
        let start = body.len();
        body.resize(start + data_encoding::BASE64.encode_len(payload.len()), 0);
        data_encoding::BASE64.encode_mut(payload.as_bytes(), &mut body[start..]);
        body.extend_from_slice(br#"","encoding":"base64""#);
    } else {
        write_json(body, &payload.to_text());
    }
}

/// What its client id and data take in the body, about.
fn size(uplink: &Uplink, binary: UplinkBinary) -> usize {
    let payload = &uplink.payload;
    let data = match is_base64(payload, binary) {
        true => data_encoding::BASE64.encode_len(payload.len()),
        false => payload.len() + ESCAPES_BYTES,
    };
    uplink.client_id.as_str().len() + data
}

fn is_base64(payload: &Payload, binary: UplinkBinary) -> bool {
    binary == UplinkBinary::Base64 && !payload.is_text()
}

/// serde_json escapes what `JSON.stringify` escapes: quotes, backslashes and control characters, the same way.
fn write_json(body: &mut Vec<u8>, text: &str) {
    let is_escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    // Looks at every byte, so that the compiler can look at many at once.
    if !text.bytes().fold(false, |any, byte| any | is_escaped(byte)) {
        body.push(b'"');
        body.extend_from_slice(text.as_bytes());
        return body.push(b'"');
    }
    serde_json::to_writer(body, text).expect("a Vec takes all, and text is always valid JSON");
}

/// The longest wait that a backend can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
const FRAME_BYTES: usize = r#"{"client_id":"","data":"","encoding":"base64"}"#.len();
/// Room for the escapes of a usual payload.
const ESCAPES_BYTES: usize = 32;

#[cfg(test)]
mod tests;
