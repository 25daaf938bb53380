//! One request, as HTTP/1.1 writes it and as HTTP/2 wants to have it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header::HOST};
#[cfg(feature = "tls")]
use http_body_util::Full;

use super::{Secrets, Target};

/// The headers of a request, but for those that say how its body is framed.
pub(crate) trait Fields: Sync {
    /// As a map; secrets are among them only if they may be.
    fn map(&self, secrets: Secrets) -> HeaderMap;

    /// Appends them, secrets included, as HTTP/1.1 sends them to the target that they were made for.
    fn write(&self, to: &Target, lines: &mut Vec<u8>) {
        for (name, value) in &to.completed(self.map(Secrets::Send)) {
            write_field(name, value, lines);
        }
    }
}

impl<F: Fn(Secrets) -> HeaderMap + Sync> Fields for F {
    fn map(&self, secrets: Secrets) -> HeaderMap {
        self(secrets)
    }
}

/// Headers for where a redirect leads to.
pub(super) struct Redirected<'a> {
    pub(super) fields: &'a dyn Fields,
    pub(super) secrets: Secrets,
    pub(super) host: &'a HeaderValue,
}

impl Fields for Redirected<'_> {
    fn map(&self, _: Secrets) -> HeaderMap {
        let mut headers = self.fields.map(self.secrets);
        headers.insert(HOST, self.host.clone());
        headers
    }
}

/// One request.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) to: &'a Target,
    pub(super) fields: &'a dyn Fields,
    pub(super) body: &'a Bytes,
}

impl Request<'_> {
    /// Appends its head as HTTP/1.1 sends it. A proxy that reads it has to see where it goes.
    pub(super) fn write_head(&self, is_proxied: bool, head: &mut Vec<u8>) {
        head.extend_from_slice(self.method.as_str().as_bytes());
        head.push(b' ');
        match is_proxied {
            true => head.extend_from_slice(self.to.uri.to_string().as_bytes()),
            false => head.extend_from_slice(self.to.path.as_str().as_bytes()),
        }
        head.extend_from_slice(b" HTTP/1.1\r\n");
        self.fields.write(self.to, head);
        if *self.method != Method::GET {
            let mut length = itoa::Buffer::new();
            head.extend_from_slice(b"Content-Length: ");
            head.extend_from_slice(length.format(self.body.len()).as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
    }

    /// HTTP/2 has no `Host`: what the settings make of it is the authority of the URI (RFC 9113 §8.3.1).
    #[cfg(feature = "tls")]
    pub(super) fn to_http2(self) -> http::Request<Full<Bytes>> {
        let mut headers = self.fields.map(Secrets::Send);
        let host = headers.remove(HOST);
        let mut request = http::Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.to.with_authority(host);
        *request.headers_mut() = headers;
        request
    }
}

/// Appends the name of a header as Node spells it, and what goes between it and its value.
pub(crate) fn write_name(name: &HeaderName, line: &mut Vec<u8>) {
    let mut is_first = true;
    for byte in name.as_str().bytes() {
        line.push(match is_first {
            true => byte.to_ascii_uppercase(),
            false => byte,
        });
        is_first = byte == b'-';
    }
    line.extend_from_slice(b": ");
}

/// Appends a header as a line of HTTP/1.1.
pub(crate) fn write_field(name: &HeaderName, value: &HeaderValue, lines: &mut Vec<u8>) {
    write_name(name, lines);
    lines.extend_from_slice(value.as_bytes());
    lines.extend_from_slice(b"\r\n");
}
