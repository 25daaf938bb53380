//! Spans of POSTs for an OpenTelemetry collector: OTLP over HTTP with JSON, by the HTTP client that is there anyway.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    error::Result,
    locks::Mutex,
    net::http::endpoint::{Endpoint, lay_over},
    pure::tally::Tally,
    stats::Running,
    tasks::Tasks,
    trace_context::{Parent, TraceContext},
    types::Uplink,
};

/// Spans on their way to a collector. One that is away costs the newest spans once too many wait, and nothing else.
pub(crate) struct Spans {
    endpoint: Endpoint,
    headers: HeaderMap,
    /// What is the same in every span: who tells.
    resource: Value,
    /// Each as JSON.
    waiting: Mutex<VecDeque<String>>,
    /// Enough wait for an export.
    bell: Notify,
    /// One export at a time: the last one, of a stop, comes after the one before.
    exporting: tokio::sync::Mutex<()>,
    finishing: CancellationToken,
    lost: Mutex<Tally<&'static str>>,
    running: Arc<Running>,
}

/// What a POST came to.
pub(crate) struct Posted<'a> {
    pub(crate) uplink: &'a Uplink,
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<String>,
    pub(crate) took: Duration,
}

impl Spans {
    /// Those for the collector of the settings, if there is one. Its connections are tasks of `tasks`.
    ///
    /// # Errors
    /// `Config`, naming the setting.
    pub(crate) fn new(
        config: &Config,
        node: &str,
        running: &Arc<Running>,
        tasks: Tasks,
    ) -> Result<Option<Self>> {
        let Some(url) = &config.otlp.url else {
            return Ok(None);
        };
        let endpoint = Endpoint::new("FASTSOCK_OTLP_URL", url, config.into(), tasks)?;
        let mut headers = endpoint.headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let over = &config.otlp.headers;
        lay_over(&mut headers, "FASTSOCK_OTLP_HEADERS", over, |_| true)?;
        let attributes = [
            text("service.name", "fastsock"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", node),
        ];
        Ok(Some(Self {
            endpoint,
            headers,
            resource: json!({ "attributes": attributes }),
            waiting: Mutex::default(),
            bell: Notify::new(),
            exporting: tokio::sync::Mutex::default(),
            finishing: CancellationToken::new(),
            lost: Mutex::new(Tally::new()),
            running: running.clone(),
        }))
    }

    /// Takes the span of a POST that has just ended, unless its device is part of a trace that is not sampled.
    pub(crate) fn take(&self, posted: &Posted<'_>) {
        let trace = posted
            .uplink
            .context
            .as_ref()
            .and_then(|context| context.trace.as_ref());
        let parent = trace.and_then(TraceContext::parsed);
        if parent.as_ref().is_some_and(|parent| !parent.is_sampled) {
            return;
        }
        let span = span(posted, parent.as_ref(), SystemTime::now()).to_string();
        let count = {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING_MAX {
                None
            } else {
                waiting.push_back(span);
                Some(waiting.len())
            }
        };
        match count {
            None => self.tell_lost("too many wait", 1),
            Some(count) if count % AT_ONCE == 0 => self.bell.notify_one(),
            Some(_) => {}
        }
    }

    /// Exports what there is, again and again, until it is to finish.
    pub(crate) async fn run(&self) {
        let exporting = self.export_again_and_again();
        self.finishing.run_until_cancelled(exporting).await;
    }

    async fn export_again_and_again(&self) {
        loop {
            tokio::select! {
                () = self.bell.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            if !self.flush(Instant::now() + TIMEOUT).await {
                tokio::time::sleep(EVERY).await; // whoever rings meanwhile is heard afterwards
            }
        }
    }

    /// Exports what waits, at the latest by then. Returns whether the collector is there.
    async fn flush(&self, by: Instant) -> bool {
        let _one = self.exporting.lock().await;
        loop {
            let spans: Vec<_> = {
                let mut waiting = self.waiting.lock();
                let count = waiting.len().min(AT_ONCE);
                waiting.drain(..count).collect()
            };
            if spans.is_empty() {
                return true;
            }
            let underway = Underway { owner: self, spans };
            match self.export(&underway.spans, by).await {
                Ok(status) if status.is_success() => {
                    let count = underway.end();
                    self.running.spans_exported.add(count);
                }
                // What may go later, as OTLP has it (OTLP/HTTP, Retryable Response Codes).
                Ok(status) if matches!(status.as_u16(), 429 | 502..=504) => {
                    tracing::debug!(%status, "the collector of spans takes none now");
                    return false;
                }
                Ok(status) => {
                    tracing::debug!(%status, "the collector of spans refuses some");
                    self.tell_lost("the collector refuses them", underway.end());
                }
                Err(error) => {
                    tracing::debug!(%error, "the collector of spans is away");
                    return false;
                }
            }
        }
    }

    /// Exports what waits for the last time, and tells of what is lost all the same. Takes 2 s at most.
    pub(crate) async fn finish(&self, by: Instant) {
        self.finishing.cancel(); // what is on its way begins anew
        let by = by.min(Instant::now() + LAST);
        let _ = timeout_at(by, self.flush(by)).await;
        let left = std::mem::take(&mut *self.waiting.lock()).len() as u64;
        self.tell_lost("the bridge stops", left);
        for (reason, count) in self.lost.lock().rest(Instant::now()) {
            tracing::warn!(reason, count, "Lost spans");
        }
    }

    async fn export(&self, spans: &[String], by: Instant) -> Result<StatusCode, String> {
        let (resource, spans) = (&self.resource, spans.join(","));
        let scope = json!({ "name": "fastsock", "version": env!("CARGO_PKG_VERSION") });
        let body = format!(
            r#"{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[{{"scope":{scope},"spans":[{spans}]}}]}}]}}"#
        );
        let Endpoint { client, target, .. } = &self.endpoint;
        let body = Bytes::from(body);
        let asked = client.ask(Method::POST, target, &self.headers, body, by);
        Ok(asked.await?.0)
    }

    fn tell_lost(&self, reason: &'static str, spans: u64) {
        if spans == 0 {
            return;
        }
        self.running.spans_lost.add(spans);
        let mut lost = self.lost.lock();
        let told = (0..spans).filter_map(|_| lost.count(reason, Instant::now()));
        let count: u64 = told.sum();
        if count > 0 {
            tracing::warn!(reason, count, "Lost spans");
        }
    }
}

/// Spans that are on their way. They wait again unless the collector has said something of them.
struct Underway<'a> {
    owner: &'a Spans,
    spans: Vec<String>,
}

impl Underway<'_> {
    /// They need wait no more. Returns how many there are.
    fn end(mut self) -> u64 {
        std::mem::take(&mut self.spans).len() as u64
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let mut waiting = self.owner.waiting.lock();
        for span in std::mem::take(&mut self.spans).into_iter().rev() {
            waiting.push_front(span);
        }
        let too_many = waiting.len().saturating_sub(WAITING_MAX);
        waiting.truncate(WAITING_MAX);
        drop(waiting);
        self.owner.tell_lost("too many wait", too_many as u64);
    }
}

/// The span of a POST as OTLP says it in JSON: ids in hex, 64-bit numbers as text.
fn span(posted: &Posted<'_>, parent: Option<&Parent<'_>>, ended: SystemTime) -> Value {
    let uplink = posted.uplink;
    let trace_id = match parent {
        Some(parent) => parent.trace_id.to_owned(),
        None => format!("{:032x}", fastrand::u128(1..)),
    };
    let ended = ended.duration_since(UNIX_EPOCH).unwrap_or_default();
    let begun = ended.saturating_sub(posted.took);
    let mut attributes = vec![
        text("http.request.method", "POST"),
        text("fastsock.client_id", uplink.client_id.as_str()),
        text("fastsock.message_id", &uplink.id.to_string()),
        number("fastsock.session_id", uplink.session_id.0),
        number("fastsock.seq", uplink.seq),
        number("fastsock.bytes", uplink.payload.len() as u64),
    ];
    if let Some(status) = posted.status {
        attributes.push(number("http.response.status_code", status.into()));
    }
    let status = match &posted.error {
        None => json!({}),
        Some(error) => json!({ "code": 2, "message": error }),
    };
    let mut span = json!({
        "traceId": trace_id,
        "spanId": format!("{:016x}", fastrand::u64(1..)),
        "name": "POST",
        "kind": 3,
        "startTimeUnixNano": begun.as_nanos().to_string(),
        "endTimeUnixNano": ended.as_nanos().to_string(),
        "attributes": attributes,
        "status": status,
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = parent.span_id.into();
    }
    span
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

/// Spans in one export.
const AT_ONCE: usize = 512;
/// Spans that wait while the collector is away.
const WAITING_MAX: usize = 2048;
/// How often they are exported when few come.
const EVERY: Duration = Duration::from_secs(1);
/// For one export.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For what is exported at a stop.
const LAST: Duration = Duration::from_secs(2);
