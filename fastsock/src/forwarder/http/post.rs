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
    config::url_template::UrlTemplate,
    error::Result,
    forwarder::{Outcome, destination::Destination},
    net::http::{Answer, Secrets, Target, endpoint::Endpoint, request::Fields},
    tasks::Tasks,
};

/// POSTs to one destination.
pub(crate) struct Post {
    endpoint: Endpoint,
    /// Where it differs from device to device.
    template: Option<UrlTemplate>,
    headers: PostHeaders,
    timeout: Duration,
}

/// Why there was no answer.
pub(crate) enum NoAnswer {
    /// One line for the log.
    Failed(String),
    /// The names of its device cannot stand in the URL.
    Unaddressable,
}

impl Post {
    /// # Errors
    /// `Config`, naming the setting.
    pub(crate) fn new(destination: &Destination<'_>, tasks: Tasks) -> Result<Self> {
        let endpoint = destination.endpoint(tasks)?;
        Ok(Self {
            headers: PostHeaders::new(destination, &endpoint)?,
            endpoint,
            template: destination.template.clone(),
            timeout: destination.timeout,
        })
    }

    /// One POST, numbered from 1 among the attempts to deliver what is in it.
    pub(crate) async fn attempt(&self, stamp: Stamp<'_>, number: u32, body: Bytes) -> Outcome {
        // Pinned first: awaiting a future by value moves it, and this one is large.
        match pin!(self.send(stamp, number, body, 0)).await {
            Ok(answer) => outcome(&answer),
            Err(no_answer) => no_answer.into(),
        }
    }

    /// The same, with the body of a 200 of at most `wanted` bytes.
    pub(super) async fn send(
        &self,
        stamp: Stamp<'_>,
        number: u32,
        body: Bytes,
        wanted: usize,
    ) -> Result<Answer, NoAnswer> {
        let headers = self.headers.of(stamp, number).signed(&body);
        let deadline = Instant::now() + self.timeout;
        let Endpoint { client, target, .. } = &self.endpoint;
        let of_device;
        let target = match &self.template {
            None => target,
            Some(template) => {
                of_device = target_of(template, target, stamp).ok_or(NoAnswer::Unaddressable)?;
                &of_device
            }
        };
        let posting = pin!(client.post(target, headers, body, wanted, deadline));
        posting.await.map_err(NoAnswer::Failed)
    }

    /// The headers of such a POST for someone to read; values that may be secret are `***`.
    pub(crate) fn shown_headers(&self, stamp: Stamp<'_>, number: u32) -> Vec<(String, String)> {
        let headers = self.headers.of(stamp, number).map(Secrets::Send);
        let shown = |value: &HeaderValue| match value.is_sensitive() {
            true => "***".into(),
            false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| (name.to_string(), shown(value)));
        headers.collect()
    }
}

/// Where a message goes when its device is a part of the URL.
fn target_of(template: &UrlTemplate, target: &Target, stamp: Stamp<'_>) -> Option<Target> {
    let parts = stamp.context.map(|context| &context.parts);
    target.at(&template.path(stamp.client_id.as_str(), parts)?)
}

impl From<NoAnswer> for Outcome {
    fn from(no_answer: NoAnswer) -> Self {
        match no_answer {
            NoAnswer::Failed(error) => Self::Failed { error },
            NoAnswer::Unaddressable => Self::Unaddressable,
        }
    }
}

pub(super) fn outcome(answer: &Answer) -> Outcome {
    match answer.status.as_u16() {
        status @ (301 | 302 | 303 | 307 | 308) => Outcome::Redirected { status },
        status => Outcome::Answered {
            status,
            retry_after: match answer.headers.is_empty() {
                true => None,
                false => retry_after(&answer.headers, SystemTime::now()),
            },
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
