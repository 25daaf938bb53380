//! POSTs to one destination: headers, signature, deadline.

use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
use tokio::time::Instant;

use super::{headers::PostHeaders, stamp::Stamp};
use crate::{
    error::Result,
    forwarder::{Outcome, destination::Destination},
    net::http::{Answer, Secrets, endpoint::Endpoint},
    tasks::Tasks,
};

/// POSTs to one destination.
pub(crate) struct Post {
    endpoint: Endpoint,
    headers: PostHeaders,
    timeout: Duration,
}

impl Post {
    /// # Errors
    /// `Config`, naming the setting.
    pub(crate) fn new(destination: &Destination<'_>, tasks: Tasks) -> Result<Self> {
        let endpoint = destination.endpoint(tasks)?;
        Ok(Self {
            headers: PostHeaders::new(destination, &endpoint)?,
            endpoint,
            timeout: destination.timeout,
        })
    }

    /// One POST, numbered from 1 among the attempts to deliver what is in it.
    pub(crate) async fn attempt(&self, stamp: Stamp<'_>, number: u32, body: Bytes) -> Outcome {
        // Pinned first: awaiting a future by value moves it, and this one is large.
        match pin!(self.send(stamp, number, body, 0)).await {
            Ok(answer) => outcome(&answer),
            Err(error) => Outcome::Failed { error },
        }
    }

    /// The same, with the body of a 200 of at most `wanted` bytes.
    pub(super) async fn send(
        &self,
        stamp: Stamp<'_>,
        number: u32,
        body: Bytes,
        wanted: usize,
    ) -> Result<Answer, String> {
        let signed = self.headers.sign(stamp.id, &body, SystemTime::now());
        let headers = |secrets| self.headers.of(stamp, number, secrets, signed.as_ref());
        let deadline = Instant::now() + self.timeout;
        let Endpoint { client, target, .. } = &self.endpoint;
        pin!(client.post(target, headers, body, wanted, deadline)).await
    }

    /// The headers of such a POST for someone to read; values that may be secret are `***`.
    pub(crate) fn shown_headers(&self, stamp: Stamp<'_>, number: u32) -> Vec<(String, String)> {
        let headers = self.headers.of(stamp, number, Secrets::Send, None);
        let shown = |value: &HeaderValue| match value.is_sensitive() {
            true => "***".into(),
            false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), shown(value)));
        headers.collect()
    }
}

pub(super) fn outcome(answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        status @ (301 | 302 | 303 | 307 | 308) => Outcome::Redirected { status },
        status => Outcome::Answered {
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

/// The longest wait that a backend can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);
