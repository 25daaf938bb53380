//! One HTTP request over a connection of its own: how a test asks the admin listener.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{reachable, within};

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// As sent.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. Panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// `GET` without more.
pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    call(addr, "GET", path, &[], "").await
}

/// One request. `Host` is the address unless it is among the headers.
pub async fn call(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let addr = reachable(addr);
    let mut request = Request::builder().method(method).uri(path);
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        request = request.header("host", addr.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(body.into()))
        .expect("a request that HTTP can say");
    within("an HTTP answer", exchange(addr, request)).await
}

async fn exchange(addr: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let stream = TcpStream::connect(addr)
        .await
        .unwrap_or_else(|error| panic!("{addr}: {error}"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .expect("nothing is exchanged yet");
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    driver.abort();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    }
}
