//! The admin listener of a running gateway, as a client.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use fastsock::{Config, Secret};
use serde_json::Value;

/// Where it is, and what it wants to see. Each call is a connection of its own.
#[derive(Debug)]
pub(crate) struct Admin {
    addr: SocketAddr,
    token: Option<Secret>,
}

/// Its answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// The JSON body.
    pub(crate) body: Value,
}

impl Admin {
    /// The one that these settings name.
    ///
    /// # Errors
    /// One line when they name none.
    pub(crate) fn of(config: &Config) -> Result<Self, String> {
        match config.admin_addr {
            None => Err("FASTSOCK_ADMIN_ADDR: off; give the address of the running gateway's admin listener".into()),
            Some(addr) if addr.port() == 0 => Err(format!(
                "FASTSOCK_ADMIN_ADDR: {addr} leaves the port open; give the one that the running gateway logs as admin"
            )),
            Some(addr) => Ok(Self {
                addr: reachable(addr),
                token: config.admin_token.clone(),
            }),
        }
    }

    /// Makes one call. Blocks; connecting, sending and each part of the answer may take 15 s.
    ///
    /// # Errors
    /// One line: no gateway answers, or what its answer says is wrong. A 404 is an answer.
    pub(crate) fn call(&self, method: &str, path: &str) -> Result<Answer, String> {
        let answer = self.exchange(method, path).map_err(|error| {
            let addr = self.addr;
            format!("no gateway answers on {addr} (FASTSOCK_ADMIN_ADDR): {error}; it must be running, since it holds its dead letters")
        })?;
        match answer.status {
            200 | 404 => Ok(answer),
            status => Err(match answer.body["error"].as_str() {
                Some(error) => error.into(),
                None => format!("{} answered with status {status}", self.addr),
            }),
        }
    }

    fn exchange(&self, method: &str, path: &str) -> io::Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&self.addr, TIME_OUT)?;
        stream.set_read_timeout(Some(TIME_OUT))?;
        stream.set_write_timeout(Some(TIME_OUT))?;
        // HTTP/1.0: the answer ends with the connection, and is never chunked.
        let mut request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 0\r\n",
            self.addr
        );
        if let Some(token) = &self.token {
            request += &format!("Authorization: Bearer {}\r\n", token.expose());
        }
        request += "\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer)?;
        parse(&answer).ok_or_else(|| io::Error::other("it speaks something else"))
    }
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let body = serde_json::from_slice(&answer[end + 4..]).ok()?;
    Some(Answer { status, body })
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
const TIME_OUT: Duration = Duration::from_secs(15);
/// The largest message, were all of it escaped in JSON, and then some.
const ANSWER_MAX_BYTES: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_json() {
        let answer = parse(b"HTTP/1.0 409 Conflict\r\na: b\r\n\r\n{\"error\":\"x\"}").unwrap();
        assert_eq!(
            (answer.status, answer.body["error"].as_str()),
            (409, Some("x"))
        );
        for bad in [
            &b""[..],
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n{",
            b"HTTP/1.0 2\r\n\r\n{}",
            b"+PONG\r\n\r\n{}",
        ] {
            assert!(parse(bad).is_none(), "{bad:?}");
        }
    }

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
}
