//! A device that speaks bytes: nothing between the test and the wire.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{Frame, opcode, reachable, within};

/// A TCP connection to the gateway, with no library in between.
#[derive(Debug)]
pub struct RawDevice {
    stream: TcpStream,
    read: BytesMut,
}

/// How the gateway ended a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With a close frame: its code, if it has one, and its reason.
    Close(Option<u16>, String),
    /// Without a close frame, but orderly (FIN).
    Eof,
    /// With a reset (RST).
    Reset,
}

impl RawDevice {
    /// Connects a TCP socket and sends nothing.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(reachable(addr))).await;
        let stream = stream.unwrap_or_else(|error| panic!("{addr}: {error}"));
        stream.set_nodelay(true).expect("a fresh socket");
        Self {
            stream,
            read: BytesMut::new(),
        }
    }

    /// The same from a certain address of this machine; all of 127.0.0.0/8 will do.
    pub async fn connect_from(source: impl Into<IpAddr>, addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind((source.into(), 0).into())
            .expect("an address of this machine");
        let stream = within("a TCP connection", socket.connect(reachable(addr))).await;
        Self {
            stream: stream.unwrap_or_else(|error| panic!("{addr}: {error}")),
            read: BytesMut::new(),
        }
    }

    /// The same with a small receive buffer, so that a device that does not read is felt soon.
    pub async fn connect_with_buffer(addr: SocketAddr, receive_bytes: usize) -> Self {
        let addr = reachable(addr);
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        socket
            .set_recv_buffer_size(receive_bytes)
            .expect("a fresh socket");
        socket.set_nonblocking(true).expect("a fresh socket");
        let socket = TcpSocket::from_std_stream(socket.into());
        let stream = within("a TCP connection", socket.connect(addr)).await;
        Self {
            stream: stream.unwrap_or_else(|error| panic!("{addr}: {error}")),
            read: BytesMut::new(),
        }
    }

    /// Connects and asks for an upgrade with this token, which must go into a request target as it is. Returns the head of
    /// the answer too, up to and including its empty line.
    pub async fn upgrade(addr: SocketAddr, token: &str) -> (Self, String) {
        let mut device = Self::connect(addr).await;
        let request = Self::upgrade_request(&format!("/?token={token}"), &[]);
        device.write(request).await;
        let head = device.read_head().await;
        (device, head)
    }

    /// Connects and is seated. Panics unless the answer is 101.
    pub async fn seated(addr: SocketAddr, token: &str) -> Self {
        let (device, head) = Self::upgrade(addr, token).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        device
    }

    /// The same without a panic, as a device in the field would try it.
    ///
    /// # Errors
    /// When nobody listens, or the answer is not 101.
    pub async fn try_seated(addr: SocketAddr, token: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(reachable(addr)).await?;
        stream.set_nodelay(true)?;
        let read = BytesMut::new();
        let mut device = Self { stream, read };
        let request = Self::upgrade_request(&format!("/?token={token}"), &[]);
        device.try_write(request).await?;
        while !device.read.windows(4).any(|w| w == b"\r\n\r\n") {
            if device.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = device.read_head().await;
        match head.starts_with("HTTP/1.1 101 ") {
            true => Ok(device),
            false => Err(io::Error::other(head)),
        }
    }

    /// A correct upgrade request for a target, with more header lines such as `"Origin: https://example.com"`.
    pub fn upgrade_request(target: &str, more: &[&str]) -> String {
        let more: String = more.iter().map(|line| format!("{line}\r\n")).collect();
        format!(
            "GET {target} HTTP/1.1\r\nHost: fastsock\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
        )
    }

    /// The address it connects from.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().expect("it was connected")
    }

    /// Writes all bytes. Panics when the connection is gone.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).await.expect("the gateway takes it");
    }

    /// Writes all bytes; fails when the connection is gone.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within("the gateway reads", self.stream.write_all(bytes.as_ref())).await
    }

    /// Writes as much as the socket takes before `idle` passes without progress. Returns how much that was.
    pub async fn write_until_full(&mut self, bytes: &[u8], idle: Duration) -> usize {
        let mut written = 0;
        while let Ok(Ok(n)) = tokio::time::timeout(idle, self.stream.write(&bytes[written..])).await
            && n > 0
        {
            written += n;
        }
        written
    }

    /// Writes one frame. Panics when the connection is gone.
    pub async fn send(&mut self, frame: &Frame) {
        self.write(frame.encode()).await;
    }

    /// Reads up to and including the first empty line.
    pub async fn read_head(&mut self) -> String {
        loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.read.split_to(at + 4);
                return String::from_utf8_lossy(&head).into_owned();
            }
            if self.fill().await.expect("a response head") == 0 {
                panic!("closed after {:?}", self.read);
            }
        }
    }

    /// Reads exactly so many bytes.
    pub async fn read_exact(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            assert_ne!(self.fill().await.expect("bytes"), 0, "closed early");
        }
        self.read.split_to(length).to_vec()
    }

    /// Takes at most so many bytes from the socket. They are there for the next frame.
    pub async fn take(&mut self, most: usize) {
        let mut some = vec![0; most];
        let read = within("bytes or an end", self.stream.read(&mut some)).await;
        self.read.extend_from_slice(&some[..read.unwrap_or(0)]);
    }

    /// Reads until the gateway closes. What came before a reset counts.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().await.is_ok_and(|n| n > 0) {}
        self.read.split().to_vec()
    }

    /// The next frame, or how the connection ended before one came.
    pub async fn next(&mut self) -> Result<Frame, End> {
        loop {
            if let Some((frame, length)) = Frame::decode(&self.read) {
                self.read.advance(length);
                return Ok(frame);
            }
            match self.fill().await {
                Ok(0) => return Err(End::Eof),
                Ok(_) => {}
                Err(_) => return Err(End::Reset),
            }
        }
    }

    /// The next frame. Panics when there is none.
    pub async fn frame(&mut self) -> Frame {
        self.next().await.expect("a frame")
    }

    /// Reads on until the connection ends or a close frame comes. Returns the frames before it and the end.
    pub async fn drain(&mut self) -> (Vec<Frame>, End) {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Ok(frame) if frame.opcode == opcode::CLOSE => {
                    let (code, reason) = frame.close_code();
                    return (frames, End::Close(code, reason));
                }
                Ok(frame) => frames.push(frame),
                Err(end) => return (frames, end),
            }
        }
    }

    /// How the connection ends; other frames before that are skipped.
    pub async fn end(&mut self) -> End {
        self.drain().await.1
    }

    /// Sends FIN; it can still read.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("it was connected");
    }

    /// Ends the connection with a reset, without a word.
    pub fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("a connected socket");
    }

    async fn fill(&mut self) -> io::Result<usize> {
        within("bytes or an end", self.stream.read_buf(&mut self.read)).await
    }
}
