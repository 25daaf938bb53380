//! epoll and the sockets it watches: as little as does the job, since what this costs is noise in every figure.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, pki_types::ServerName};
use socket2::{Domain, Protocol, Socket, Type};

/// Tells which sockets have something to read or room to write.
pub(crate) struct Poller {
    epoll: OwnedFd,
    ready: Vec<Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            ready: Vec::with_capacity(READY_MAX),
        })
    }

    /// Watches a socket; closing it ends that.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64, writable: bool) -> io::Result<()> {
        let data = EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, socket, data, flags(writable))?)
    }

    /// Changes whether room to write is told.
    pub(crate) fn change(&self, socket: impl AsFd, token: u64, writable: bool) -> io::Result<()> {
        let data = EventData::new_u64(token);
        Ok(epoll::modify(&self.epoll, socket, data, flags(writable))?)
    }

    /// Waits until something is ready, at most so long. Returns how many are.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        });
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&timeout)) {
            Ok(count) => Ok(count),
            Err(rustix::io::Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The token of the n-th that is ready, and whether it can be read and written.
    pub(crate) fn ready(&self, n: usize) -> (u64, bool, bool) {
        let event = self.ready[n];
        let flags = event.flags;
        let readable = flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
        (event.data.u64(), readable, flags.contains(EventFlags::OUT))
    }
}

fn flags(writable: bool) -> EventFlags {
    match writable {
        false => EventFlags::IN,
        true => EventFlags::IN | EventFlags::OUT,
    }
}

/// A socket with what could not be written yet and what is not whole yet.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    unsent: Vec<u8>,
    partial: Vec<u8>,
}

impl Conn {
    /// Takes over an accepted socket.
    pub(crate) fn accepted(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            tls: None,
            unsent: Vec::new(),
            partial: Vec::new(),
        })
    }

    /// Begins to connect, without waiting for it.
    pub(crate) fn dial(to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
            _ => {}
        }
        Self::accepted(socket.into())
    }

    /// The same under TLS, whose handshake goes with what is sent and read.
    pub(crate) fn dial_tls(
        to: SocketAddr,
        config: &Arc<ClientConfig>,
        name: String,
    ) -> io::Result<Self> {
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let tls = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let tls = Some(Box::new(tls));
        Ok(Self {
            tls,
            ..Self::dial(to)?
        })
    }

    /// Whether its handshake went on from an earlier one.
    pub(crate) fn is_resumed(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Writes at once what the socket takes and keeps the rest. Returns whether nothing is kept.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(false);
        }
        let sent = self.write(bytes)?;
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(self.has_sent_all())
    }

    fn has_sent_all(&self) -> bool {
        self.unsent.is_empty() && !self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Writes what was kept. Returns whether nothing is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        let unsent = std::mem::take(&mut self.unsent);
        let sent = self.write(&unsent)?;
        if sent < unsent.len() {
            self.unsent = unsent;
            self.unsent.drain(..sent);
        }
        Ok(self.has_sent_all())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            push(tls, &mut self.stream)?;
            return Ok(bytes.len());
        }
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// Reads once, behind what was kept, into the front of the buffer, which grows when needed. Returns how many bytes
    /// there are; `None` at the end of the stream.
    pub(crate) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let kept = self.partial.len();
        if buffer.len() < kept + READ_BYTES {
            buffer.resize(kept + READ_BYTES, 0);
        }
        buffer[..kept].copy_from_slice(&self.partial);
        let read = match &mut self.tls {
            None => self.stream.read(&mut buffer[kept..]),
            Some(tls) => pull(tls, &mut self.stream, &mut buffer[kept..]),
        };
        match read {
            Ok(0) => Ok(None),
            Ok(count) => {
                self.partial.clear();
                Ok(Some(kept + count))
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                self.partial.clear();
                Ok(Some(kept))
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the start of what is not whole yet for the next [`read`](Self::read).
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }

    /// Makes closing send a reset, so that no port stays in TIME_WAIT.
    pub(crate) fn reset_on_close(&self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)); // closing works as well without
    }
}

/// Writes what TLS has to say, as much as the socket takes.
fn push(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads once from the socket, and what that makes for the device.
fn pull(tls: &mut ClientConnection, stream: &mut TcpStream, into: &mut [u8]) -> io::Result<usize> {
    if tls.read_tls(stream)? == 0 {
        return Ok(0);
    }
    tls.process_new_packets().map_err(io::Error::other)?;
    push(tls, stream)?;
    tls.reader().read(into)
}

impl AsFd for Conn {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A listener on loopback, or on all addresses when `port` is not 0.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Accepts all that wait.
pub(crate) fn accept_all(
    listener: &TcpListener,
    mut take: impl FnMut(Conn) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => take(Conn::accepted(stream)?)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// As many ready sockets as one wait tells.
const READY_MAX: usize = 1024;
/// The least room for a read.
const READ_BYTES: usize = 64 << 10;
/// "Operation now in progress": the connection is being made.
const EINPROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();
