//! The admin listener of a running gateway, as a client.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use fastsock::{Config, Secret};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

/// Where it is, and what it wants to see.
#[derive(Debug)]
pub(crate) struct Admin {
    addr: SocketAddr,
    token: Option<Secret>,
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Runtime,
}

/// Its answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// The JSON body.
    pub(crate) body: Value,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    /// How long the gateway may take.
    pub(crate) patience: Duration,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            content_type: "application/json",
            body: Bytes::new(),
            patience: TIME_OUT,
        }
    }

    pub(crate) fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn with(self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            content_type,
            body: body.into(),
            ..self
        }
    }
}

impl Admin {
    /// The one that these settings name.
    ///
    /// # Errors
    /// One line when they name none.
    pub(crate) fn of(config: &Config) -> Result<Self, String> {
        let addr = match config.admin.addr {
            None => return Err("FASTSOCK_ADMIN_ADDR: off; give the address of the running gateway's admin listener".into()),
            Some(addr) if addr.port() == 0 => return Err(format!(
                "FASTSOCK_ADMIN_ADDR: {addr} leaves the port open; give the one that the running gateway logs as admin"
            )),
            Some(addr) => reachable(addr),
        };
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(Self {
            addr,
            token: config.admin.token.clone(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            runtime: runtime.map_err(|e| format!("cannot ask the gateway: {e}"))?,
        })
    }

    /// Makes one call. Blocks for up to 15 s, or as long as the call says.
    ///
    /// # Errors
    /// One line: no gateway answers, or what its answer says is wrong. A 404, a 202 and a 410 are answers.
    pub(crate) fn call(&self, call: Call<'_>) -> Result<Answer, String> {
        let patience = call.patience;
        let exchange = async {
            let response = self.send(call).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES)
                .collect()
                .await;
            let body = body.map_err(|e| self.silent(&e.to_string()))?.to_bytes();
            let body = serde_json::from_slice(&body);
            let body = body.map_err(|_| self.silent("it speaks something else"))?;
            Ok::<_, String>(Answer { status, body })
        };
        let answer = self.runtime.block_on(async {
            let late = |_| self.silent(&too_long(patience));
            timeout(patience, exchange).await.map_err(late)?
        })?;
        match answer.status {
            200 | 202 | 404 | 410 => Ok(answer),
            status => Err(self.refused(status, &answer.body)),
        }
    }

    /// Reads server-sent events and gives the JSON of each to `each`, until that says `false` or the gateway ends.
    ///
    /// # Errors
    /// As [`Admin::call`].
    pub(crate) fn events(
        &self,
        path: &str,
        mut each: impl FnMut(Value) -> bool,
    ) -> Result<(), String> {
        self.runtime.block_on(async {
            let response = self.send(Call::get(path)).await?;
            let status = response.status().as_u16();
            let mut body = response.into_body();
            if status != 200 {
                let refused = body.collect().await.map(|body| body.to_bytes());
                let refused = serde_json::from_slice(&refused.unwrap_or_default());
                return Err(self.refused(status, &refused.unwrap_or_default()));
            }
            let mut text = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| self.silent(&e.to_string()))?;
                text.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    let event = String::from_utf8_lossy(&event);
                    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                    let value = data.and_then(|data| serde_json::from_str(data).ok());
                    if value.is_some_and(|value| !each(value)) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    async fn send(&self, call: Call<'_>) -> Result<Response<Incoming>, String> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(format!("http://{}{}", self.addr, call.path))
            .header(header::CONTENT_TYPE, call.content_type);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let request = request.body(Full::new(call.body));
        let request = request.map_err(|_| "FASTSOCK_ADMIN_TOKEN: no header can carry it")?;
        let sent = timeout(call.patience, self.client.request(request)).await;
        match sent {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.silent(&what_is_wrong(&error))),
            Err(_) => Err(self.silent(&too_long(call.patience))),
        }
    }

    fn silent(&self, error: &str) -> String {
        let addr = self.addr;
        format!("no gateway answers on {addr} (FASTSOCK_ADMIN_ADDR): {error}; it must be running")
    }

    fn refused(&self, status: u16, body: &Value) -> String {
        match body["error"].as_str() {
            Some(error) => error.into(),
            None => format!("{} answered with status {status}", self.addr),
        }
    }
}

fn too_long(patience: Duration) -> String {
    format!("it takes longer than {} s", patience.as_secs())
}

/// What is at the bottom of an error, since what is above it says only that there is one.
fn what_is_wrong(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let of_http = error.downcast_ref::<hyper::Error>();
    if of_http.is_some_and(|error| error.is_parse() || error.is_incomplete_message()) {
        return "it speaks something else".into();
    }
    error.to_string()
}

/// A part of a path as HTTP has it.
pub(crate) fn segment(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                encoded.push(byte.into())
            }
            byte => encoded += &format!("%{byte:02X}"), // a dot, too: `..` is no name in a path
        }
    }
    encoded
}

/// Where a listener that takes all addresses of the machine is reached from it.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// The gateway itself gives a spool 10 s.
pub(crate) const TIME_OUT: Duration = Duration::from_secs(15);
/// The largest message, were all of it escaped in JSON, and then some.
const ANSWER_MAX_BYTES: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_loopback() {
        for (addr, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(reachable(addr.parse().unwrap()), expected.parse().unwrap());
        }
    }

    #[test]
    fn no_name_becomes_another_path() {
        assert_eq!(segment("dev-1_A~"), "dev-1_A~");
        assert_eq!(segment("../ü?#%"), "%2E%2E%2F%C3%BC%3F%23%25");
    }
}
