//! The device port: binding it, and accepting from it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::net::TcpListener;

use super::upgrade;
use crate::{
    config::Config,
    error::{Error, ErrorKind, Result},
    gateway::shared::Shared,
    net::listen::listen,
};

/// Binds the device port: all addresses, IPv6 and IPv4 on one socket where there is IPv6, unless one is named.
///
/// # Errors
/// `Bind`, naming the address and the setting.
pub(crate) fn bind(config: &Config) -> Result<TcpListener> {
    let port = config.listen.port;
    let bound = match config.listen.addr {
        Some(ip) => listen((ip, port).into(), config.listen.reuseport),
        None => match listen(
            (Ipv6Addr::UNSPECIFIED, port).into(),
            config.listen.reuseport,
        ) {
            Err(error) if is_without_ipv6(&error) => listen(
                (Ipv4Addr::UNSPECIFIED, port).into(),
                config.listen.reuseport,
            ),
            bound => bound,
        },
    };
    let ip = config
        .listen
        .addr
        .unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let bound = bound.inspect(limit_unsent);
    bound.map_err(|e| {
        let setting = match e.kind() {
            io::ErrorKind::AddrNotAvailable => "FASTSOCK_LISTEN_ADDR",
            _ => "WEBSOCKET_PORT",
        };
        let addr = SocketAddr::new(ip, port);
        Error::new(
            ErrorKind::Bind,
            format!("{setting}: cannot listen on {addr}"),
        )
        .with_source(e)
    })
}

/// Takes a listener that the host has.
///
/// # Errors
/// `Bind` when it is none.
pub(crate) fn adopt(listener: std::net::TcpListener) -> Result<TcpListener> {
    let adopted = listener
        .set_nonblocking(true)
        .and_then(|()| TcpListener::from_std(listener));
    let adopted = adopted.inspect(limit_unsent);
    adopted.map_err(|e| Error::new(ErrorKind::Bind, "the listener cannot be used").with_source(e))
}

/// What is accepted inherits it. A slow device then keeps little in the kernel beside its outbox, and takes what is
/// written in small steps: with megabytes in between, a slow reader shows no progress for a long time.
fn limit_unsent(listener: &TcpListener) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(listener).set_tcp_notsent_lowat(UNSENT_MAX_BYTES);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = listener;
}

/// Accepts until the gateway stops.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut spare = Spare::new();
    let mut is_told = false;
    let mut draining = pin!(shared.draining.cancelled());
    loop {
        let accepted = tokio::select! {
            () = shared.gateway.stopping() => return,
            () = &mut draining => return refuse_waiting(&shared, &listener),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, addr)) => {
                is_told = false;
                let _ = stream.set_nodelay(true);
                upgrade::begin(&shared, stream, addr.into());
            }
            Err(error) if is_exhausted(&error) => {
                shared.running.accept_paused.add(1);
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, "out of descriptors; the gateway pauses accepting");
                }
                spare.shed(&listener);
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                spare.restore();
            }
            // The peer has gone before it was accepted: its business.
            Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
        }
    }
}

/// Lets those who wait to be accepted hear that nobody is let in any more: with the listener they would be reset.
fn refuse_waiting(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut now = Context::from_waker(Waker::noop());
    while let Poll::Ready(Ok((stream, addr))) = listener.poll_accept(&mut now) {
        upgrade::begin(shared, stream, addr.into());
    }
}

/// A descriptor kept for the day there is none left: without it, a connection that cannot be accepted stays in the
/// backlog, and the peer waits for an answer that never comes.
struct Spare(Option<std::fs::File>);

impl Spare {
    fn new() -> Self {
        Self(std::fs::File::open("/dev/null").ok())
    }

    /// Uses the spare to accept and drop one connection.
    fn shed(&mut self, listener: &TcpListener) {
        if self.0.take().is_some()
            && let Poll::Ready(Ok((stream, _))) =
                listener.poll_accept(&mut Context::from_waker(Waker::noop()))
        {
            drop(stream);
        }
    }

    fn restore(&mut self) {
        if self.0.is_none() {
            *self = Self::new();
        }
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
    )
}

fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// Bytes of a device's downlinks that the kernel takes before it can send them (TCP_NOTSENT_LOWAT). A device that reads 20 KB a
/// second makes some room in it each second, and so is seen to read; with 64 KiB it had to be 60 KB. Bulk costs the same CPU.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_MAX_BYTES: u32 = 16 << 10;
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
