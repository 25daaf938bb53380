//! TCP to whichever address of a name answers first.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tower_service::Service;

use crate::net::racing::{ADDRESS_HEAD_START, first_of};

/// Connects to the host and port of a URI. Tries the addresses of a name one after the other, each while those before it are
/// still being tried (RFC 8305): a dead one costs 250 ms, and not the time-out of a request.
#[derive(Clone)]
pub(super) struct Tcp;

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(async move {
            let (host, port) = host_and_port(&to).ok_or(io::ErrorKind::InvalidInput)?;
            let addresses = lookup_host((host, port)).await?;
            let tries = in_turns(addresses.collect()).into_iter().map(connect);
            let stream = first_of(tries, ADDRESS_HEAD_START).await.map_err(all)?;
            stream.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            Ok(TokioIo::new(stream))
        })
    }
}

fn host_and_port(uri: &Uri) -> Option<(&str, u16)> {
    let host = uri.host()?;
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let port = match uri.port_u16() {
        Some(port) => port,
        None if uri.scheme_str() == Some("https") => 443,
        None => 80,
    };
    Some((address.unwrap_or(host), port))
}

/// IPv6 and IPv4 by turns, beginning with what the system prefers (RFC 8305 §4).
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let prefers_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, others): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == prefers_ipv6);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [preferred.next(), others.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let connected = TcpStream::connect(address).await;
    connected.map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

/// What was wrong with each address, in one line.
fn all(errors: Vec<io::Error>) -> io::Error {
    match <[_; 1]>::try_from(errors) {
        Ok([alone]) => alone,
        Err(errors) => {
            let texts: Vec<_> = errors.iter().map(io::Error::to_string).collect();
            io::Error::other(texts.join("; "))
        }
    }
}

const KEEPALIVE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_have_their_turn() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (given, tried) in [
            (
                &["[::1]:1", "[::2]:1", "1.1.1.1:1"][..],
                ["[::1]:1", "1.1.1.1:1", "[::2]:1"],
            ),
            (
                &["1.1.1.1:1", "[::1]:1", "[::2]:1"],
                ["1.1.1.1:1", "[::1]:1", "[::2]:1"],
            ),
            (
                &["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"],
                ["1.1.1.1:1", "1.1.1.2:1", "1.1.1.3:1"],
            ),
        ] {
            assert_eq!(in_turns(addresses(given)), addresses(&tried));
        }
    }

    #[test]
    fn a_uri_has_a_host_and_a_port() {
        for (uri, expected) in [
            ("http://a/", Some(("a", 80))),
            ("https://a/", Some(("a", 443))),
            ("http://a:8080/", Some(("a", 8080))),
            ("https://[::1]:9/", Some(("::1", 9))),
            ("/", None),
        ] {
            assert_eq!(host_and_port(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
