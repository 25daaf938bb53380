//! The bytes of one connection, as they are or under TLS.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use smallvec::SmallVec;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
#[cfg(feature = "tls")]
use tokio_rustls::server::TlsStream;

/// One connection of a device.
pub(crate) enum Wire {
    /// As they are.
    Plain(Tcp),
    /// Under TLS. Boxed, so that a plain device does not pay for it.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<Tcp>>),
}

/// A TCP connection that counts what it has taken.
pub(crate) struct Tcp {
    stream: TcpStream,
    written_bytes: u64,
}

impl Wire {
    /// How much the kernel has taken so far, TLS included.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.tcp().written_bytes
    }

    /// Whether TLS holds bytes that the kernel has not taken yet; a flush writes them.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.get_ref().1.wants_write(),
        }
    }

    /// Whether there is no TLS on it.
    #[cfg(feature = "tls")]
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Whether the peer has closed its side, though bytes of it may not be read yet. Asks the kernel; where that does not tell: no.
    pub(crate) fn is_peer_gone(&self) -> bool {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use rustix::event::{PollFd, PollFlags, Timespec, poll};
            let mut asked = [PollFd::new(&self.tcp().stream, PollFlags::RDHUP)];
            let at_once = Timespec::default();
            poll(&mut asked, Some(&at_once)).is_ok_and(|found| found > 0)
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        false
    }

    /// Makes the kernel give up on a peer that acknowledges nothing for this long (TCP_USER_TIMEOUT, RFC 5482).
    pub(crate) fn set_user_timeout(&self, timeout: Option<Duration>) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&self.tcp().stream).set_tcp_user_timeout(timeout);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = timeout;
    }

    /// Says that nothing more comes, in TLS too (close_notify, RFC 8446 §6.1). What the peer still sends comes from the bare
    /// connection, which is all that is left.
    pub(crate) async fn end(mut self) -> io::Result<TcpStream> {
        self.shutdown().await?;
        Ok(match self {
            Self::Plain(tcp) => tcp.stream,
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.into_inner().0.stream,
        })
    }

    fn tcp(&self) -> &Tcp {
        match self {
            Self::Plain(tcp) => tcp,
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream.into())
    }
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Self {
            stream,
            written_bytes: 0,
        }
    }
}

/// Does the same on either kind of connection.
macro_rules! on_either {
    ($wire:expr, $io:ident => $call:expr) => {
        match $wire.get_mut() {
            Wire::Plain($io) => $call,
            #[cfg(feature = "tls")]
            Wire::Tls($io) => $call,
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_either!(self, io => Pin::new(io).poll_read(cx, into))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_either!(self, io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_either!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tcp = self.get_mut();
        let written = Pin::new(&mut tcp.stream).poll_write(cx, bytes);
        tcp.count(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tcp = self.get_mut();
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let written = if length <= SMALL_WRITE_BYTES {
            let mut whole = SmallVec::<[u8; SMALL_WRITE_BYTES]>::new();
            slices
                .iter()
                .for_each(|slice| whole.extend_from_slice(slice));
            Pin::new(&mut tcp.stream).poll_write(cx, &whole)
        } else {
            Pin::new(&mut tcp.stream).poll_write_vectored(cx, slices)
        };
        tcp.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // nothing is held here
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Tcp {
    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = written {
            self.written_bytes += written as u64;
        }
        written
    }
}

/// Up to here it costs less to copy than to let the kernel gather.
const SMALL_WRITE_BYTES: usize = 1024;
