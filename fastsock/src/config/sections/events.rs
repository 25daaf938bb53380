//! Lifecycle events.

use std::time::Duration;

use super::super::{Headers, is_http_url, is_within, section::section};

section! {
    /// Lifecycle events.
    Events = events, "Lifecycle events";
    /// Where the gateway POSTs lifecycle events: who connected, who disconnected, gaps of the broker. Empty: nowhere.
    events_url => url: Option<String> = None, "FASTSOCK_EVENTS_URL", "an http:// or https:// URL", "http://127.0.0.1:8080/events", |url| url.as_deref().is_none_or(is_http_url);
    /// Headers of each event as a JSON object, as `REMOTE_HEADERS` for uplinks.
    events_headers => headers: Headers = Headers::default(), "FASTSOCK_EVENTS_HEADERS", "a JSON object of header names and texts, numbers, booleans or null", r#"{"Authorization":"Bearer secret"}"#;
    /// Milliseconds for which the gateway waits before it reports a disconnect. If the device is back by then, it reports no disconnect, and a connect only where other gateways share its Redis. 0 reports each.
    events_grace => grace: Duration = Duration::from_secs(5), "FASTSOCK_EVENTS_GRACE", "milliseconds from 0 to 3600000", "10s", |d| is_within(d, 0, 3_600_000);
    /// Bytes of lifecycle events that the gateway holds while their backend is away. An event counts as its body and 128 bytes, and each device with events as its client id and 896 bytes. Beyond that, new events are lost.
    events_total_bytes => total_bytes: usize as bytes = 16 << 20, "FASTSOCK_EVENTS_TOTAL_BYTES", "bytes from 1 to 1073741824", "64MiB", |n| (1..=1 << 30).contains(n);
}
