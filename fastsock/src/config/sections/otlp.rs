//! Spans for a collector.

use super::super::{Headers, is_http_url, section::section};

section! {
    /// Spans for a collector.
    Otlp = otlp, "Traces";
    /// Where the gateway sends a span for each POST of an uplink: an OpenTelemetry collector that takes OTLP over HTTP with JSON. Empty: nowhere. Needs a build with the feature `otlp` (docs/admin.md).
    otlp_url => url: Option<String> = None, "FASTSOCK_OTLP_URL", "an http:// or https:// URL", "http://127.0.0.1:4318/v1/traces", |url| url.as_deref().is_none_or(is_http_url);
    /// Headers of each export as a JSON object, as `REMOTE_HEADERS` for uplinks.
    otlp_headers => headers: Headers = Headers::default(), "FASTSOCK_OTLP_HEADERS", "a JSON object of header names and texts, numbers, booleans or null", r#"{"Authorization":"Bearer secret"}"#;
}
