//! The backend that takes uplinks.

use std::{path::PathBuf, time::Duration};

use super::super::{
    Gone, Headers, Http2, RemoteBody, Secret, check_remote_url, forwarded::check_forwarded,
    is_media_type, is_within, section::section,
};

section! {
    /// The backend that takes uplinks.
    Remote = remote, "The backend";
    /// Where the gateway POSTs uplinks. Empty: it counts them as lost, unless a hook takes them. `{client_id}` as a whole segment of the path stands for the client id, `{tenant}` or `{id}` for that part of `FASTSOCK_DEVICE_PATHS`, all percent-encoded: `https://api.example/devices/{client_id}/messages`.
    remote_url => url: Option<String> = None, "REMOTE_URL", "an http:// or https:// URL", "http://127.0.0.1:8080/", |url| check_remote_url(url.as_deref());
    /// Headers of each POST as a JSON object; they override all other headers. Numbers and booleans become text, null removes a header.
    remote_headers => headers: Headers = Headers::default(), "REMOTE_HEADERS", "a JSON object of header names and texts, numbers, booleans or null", r#"{"Authorization":"Bearer secret"}"#;
    /// What a POST holds. `json`: an object with the client id and the message as text. `raw`: the message itself, its bytes unchanged; `X-Fastsock-Client-Id` names the device, percent-encoded where it is not printable ASCII, and `X-Fastsock-Kind` is `text` or `binary`.
    remote_body => body: RemoteBody = RemoteBody::Json, "FASTSOCK_REMOTE_BODY", "json or raw", "raw";
    /// `Content-Type` of a POST with `FASTSOCK_REMOTE_BODY=raw`. Empty: `text/plain; charset=utf-8` for a TEXT frame, `application/octet-stream` for a BINARY one.
    remote_content_type => content_type: Option<String> = None, "FASTSOCK_REMOTE_CONTENT_TYPE", "a media type such as application/cbor", "application/x-protobuf", |text| text.as_deref().is_none_or(is_media_type);
    /// PEM file of certificates to trust for an `https` remote, beside those of the system. The remote's own certificate may be among them, as `openssl req -x509` makes it.
    remote_ca => ca: Option<PathBuf> = None, "FASTSOCK_REMOTE_CA", "the path of a PEM file", "/etc/fastsock/backend-ca.pem";
    /// PEM file of certificates to trust for everything over TLS, as in Node.
    extra_ca_certs => extra_ca_certs: Option<PathBuf> = None, "NODE_EXTRA_CA_CERTS", "the path of a PEM file", "/etc/ssl/extra-ca.pem";
    /// PEM file of the gateway's certificate, with its chain, for an `https` remote that asks for one.
    remote_cert => cert: Option<PathBuf> = None, "FASTSOCK_REMOTE_CERT", "the path of a PEM file", "/etc/fastsock/backend-client.pem";
    /// PEM file of the private key of that certificate.
    remote_key => key: Option<PathBuf> = None, "FASTSOCK_REMOTE_KEY", "the path of a PEM file", "/etc/fastsock/backend-client.key";
    /// Proxy for an `http` remote. The lower-case variable wins.
    http_proxy => http_proxy: Option<Secret> = None, "HTTP_PROXY", "the URL of a proxy", "http://proxy.internal:3128";
    /// Proxy for an `https` remote. The lower-case variable wins.
    https_proxy => https_proxy: Option<Secret> = None, "HTTPS_PROXY", "the URL of a proxy", "http://proxy.internal:3128";
    /// Hosts that the gateway reaches without a proxy. The lower-case variable wins.
    no_proxy => no_proxy: Vec<String> = Vec::new(), "NO_PROXY", "host names, domains, addresses or CIDRs separated by commas, or *", "localhost,.internal,10.0.0.0/8";
    /// POSTs in flight at once, over all devices.
    remote_concurrency => concurrency: usize = 256, "FASTSOCK_REMOTE_CONCURRENCY", "an integer from 1 to 10000", "64", |n| (1..=10_000).contains(n);
    /// Milliseconds to connect to the remote, TLS included.
    remote_connect_timeout => connect_timeout: Duration = Duration::from_secs(5), "FASTSOCK_REMOTE_CONNECT_TIMEOUT", "milliseconds from 1 to 600000", "2s", |d| is_within(d, 1, 600_000);
    /// Milliseconds for one whole POST.
    remote_timeout => timeout: Duration = Duration::from_secs(15), "FASTSOCK_REMOTE_TIMEOUT", "milliseconds from 1 to 600000", "30s", |d| is_within(d, 1, 600_000);
    /// HTTP/2 to an `https` remote. `auto`: where the remote offers it; one connection then carries all POSTs. `off`: never.
    remote_http2 => http2: Http2 = Http2::Auto, "FASTSOCK_REMOTE_HTTP2", "auto or off", "off";
    /// Milliseconds for which the gateway uses a connection to the remote for new POSTs. Then it opens another and looks the name up again, so that a change of DNS takes effect.
    remote_connection_age => connection_age: Duration = Duration::from_secs(300), "FASTSOCK_REMOTE_CONNECTION_AGE", "milliseconds from 1 to 86400000", "1m", |d| is_within(d, 1, 86_400_000);
    /// Milliseconds after which the gateway gives up an uplink that it cannot deliver.
    remote_max_age => max_age: Duration = Duration::from_secs(24 * 3600), "FASTSOCK_REMOTE_MAX_AGE", "milliseconds from 1000 to 2592000000", "1h", |d| is_within(d, 1000, 2_592_000_000);
    /// Adds `Idempotency-Key`, `X-Fastsock-Session`, `X-Fastsock-Epoch`, `X-Fastsock-Seq` and `X-Fastsock-Attempt` to each POST, and the `traceparent` and `tracestate` of the device's request if they are valid.
    remote_extra_headers => extra_headers: bool = true, "FASTSOCK_REMOTE_EXTRA_HEADERS", "on or off", "off";
    /// Adds to each POST what is known of the device's session: `X-Fastsock-Client-Id`, `-Remote-Addr`, `-Path`, `-Protocol`, `-Connected-At` and `-Metadata`. Lifecycle events get the same as fields.
    remote_context => context: bool = false, "FASTSOCK_REMOTE_CONTEXT", "on or off", "on";
    /// Headers of a device's request that go with each of its messages, where `FASTSOCK_REMOTE_CONTEXT` is on.
    remote_forward_headers => forward_headers: Vec<String> = Vec::new(), "FASTSOCK_REMOTE_FORWARD_HEADERS", "names of headers separated by commas; none that frames, belongs to the connection or to the gateway, or is a credential", "User-Agent,X-Serial", |list| check_forwarded(list, &["accept-encoding", "authorization", "cookie"]);
    /// Signs each POST by Standard Webhooks, with `webhook-id`, `webhook-timestamp` and `webhook-signature`. Give two secrets while you change them: the gateway then sends two signatures.
    remote_secret => secret: Option<Secret> = None, "FASTSOCK_REMOTE_SECRET", "whsec_ and the Base64 of 24 to 64 bytes; two of them separated by a space or comma", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", |s| s.as_ref().is_none_or(|s| s.webhook_keys().is_some());
    /// Makes each POST a CloudEvent in binary mode, by `ce-` headers beside the same body.
    remote_cloudevents => cloudevents: bool = false, "FASTSOCK_REMOTE_CLOUDEVENTS", "on or off", "on";
    /// Sends the body of a 200, if it is not empty, back to the device: BINARY when its type is `application/octet-stream`, else TEXT.
    remote_reply => reply: bool = false, "FASTSOCK_REMOTE_REPLY", "on or off", "on";
    /// Longest such reply in bytes; the gateway counts a longer one as lost. Each POST in flight may hold one reply.
    remote_reply_bytes => reply_bytes: usize as bytes = 64 << 10, "FASTSOCK_REMOTE_REPLY_BYTES", "bytes from 1 to 16777216", "16KiB", |n| (1..=16 << 20).contains(n);
    /// Most messages in one POST, as a JSON array. They come from one device or several; each device keeps its order. 1: each message is a POST of its own.
    remote_batch => batch: usize = 1, "FASTSOCK_REMOTE_BATCH", "an integer from 1 to 1024", "100", |n| (1..=1024).contains(n);
    /// Milliseconds that the first message of a batch waits for others while other POSTs are in flight.
    remote_batch_wait => batch_wait: Duration = Duration::from_millis(10), "FASTSOCK_REMOTE_BATCH_WAIT", "milliseconds from 1 to 60000", "50ms", |d| is_within(d, 1, 60_000);
    /// What a 410 does besides losing the message. `ignore`: nothing. `close`: the gateway closes the device with 4410.
    remote_gone => gone: Gone = Gone::Ignore, "FASTSOCK_REMOTE_GONE", "ignore or close", "close";
}
