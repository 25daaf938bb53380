//! A device with a WebSocket library.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request};
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use crate::{DEADLINE, eventually, reachable, within};

/// A device on an open WebSocket. It answers pings only while it reads; [`Device::attend`] has it read all the time.
#[derive(Debug)]
pub struct Device {
    socket: WebSocketStream<TcpStream>,
    response: HeaderMap,
}

/// An answer other than 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// As text.
    pub body: String,
}

/// How a session ended, as its device saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The close code; `None` when there was no close frame, or none in it.
    pub code: Option<u16>,
    /// The reason in the close frame.
    pub reason: String,
}

impl Device {
    /// Connects to `/?token=<token>`; the token is percent-encoded on the way. Panics when refused.
    pub async fn connect(addr: SocketAddr, token: &str) -> Self {
        match Self::try_connect(addr, token).await {
            Ok(device) => device,
            Err(refused) => panic!("{token}: {} {}", refused.status, refused.body),
        }
    }

    /// Connects to `/?token=<token>`; the token is percent-encoded on the way.
    ///
    /// # Errors
    /// The answer, when it is not 101.
    pub async fn try_connect(addr: SocketAddr, token: &str) -> Result<Self, Refused> {
        let target = format!("/?token={}", percent_encoded(token));
        Self::request(addr, &target, &[]).await
    }

    /// Connects to a target such as `/any?token=a+b`, with more header fields.
    ///
    /// # Errors
    /// The answer, when it is not 101.
    pub async fn request(
        addr: SocketAddr,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Refused> {
        let addr = reachable(addr);
        let stream = within("a TCP connection", TcpStream::connect(addr)).await;
        let stream = stream.unwrap_or_else(|error| panic!("{addr}: {error}"));
        stream.set_nodelay(true).expect("a fresh socket");
        let request = upgrade(addr, target, headers);
        let handshake = client_async_with_config(request, stream, Some(config()));
        match within("the answer to an upgrade", handshake).await {
            Ok((socket, response)) => Ok(Self {
                socket,
                response: response.into_parts().0.headers,
            }),
            Err(Error::Http(response)) => Err(Refused::from(*response)),
            Err(error) => panic!("{target}: {error}"),
        }
    }

    /// The header fields of the 101.
    pub fn response_headers(&self) -> &HeaderMap {
        &self.response
    }

    /// The address it connects from.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket
            .get_ref()
            .local_addr()
            .expect("it was connected")
    }

    /// Sends a TEXT message.
    pub async fn send(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await;
    }

    /// Sends a TEXT message.
    ///
    /// # Errors
    /// When the session is over.
    pub async fn try_send(&mut self, text: impl Into<String>) -> Result<(), Error> {
        let message = Message::text(text.into());
        within("the gateway reads", self.socket.send(message)).await
    }

    /// Sends a BINARY message.
    pub async fn send_binary(&mut self, bytes: impl Into<Bytes>) {
        self.send_message(Message::binary(bytes.into())).await;
    }

    /// Sends a ping.
    pub async fn ping(&mut self, payload: &'static str) {
        self.send_message(Message::Ping(payload.into())).await;
    }

    /// Sends any message. Panics when the session is over.
    pub async fn send_message(&mut self, message: Message) {
        within("the gateway reads", self.socket.send(message))
            .await
            .expect("the session is open");
    }

    /// The next message of any kind, pings and pongs included (a ping has been answered); `None` at the end.
    pub async fn next(&mut self) -> Option<Message> {
        match within("a message", self.socket.next()).await {
            Some(Ok(message)) => Some(message),
            _ => None,
        }
    }

    /// The next downlink. Panics when the session ends first.
    pub async fn recv(&mut self) -> Message {
        loop {
            match self.next().await {
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                Some(message @ (Message::Text(_) | Message::Binary(_))) => return message,
                other => panic!("the session ended before a downlink: {other:?}"),
            }
        }
    }

    /// The next downlink, which must be TEXT.
    pub async fn recv_text(&mut self) -> String {
        match self.recv().await {
            Message::Text(text) => text.to_string(),
            other => panic!("not TEXT: {other:?}"),
        }
    }

    /// So many downlinks, all TEXT.
    pub async fn recv_texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(count);
        while texts.len() < count {
            texts.push(self.recv_text().await);
        }
        texts
    }

    /// A downlink that comes within this time, or `None`.
    pub async fn recv_within(&mut self, time: Duration) -> Option<Message> {
        timeout(time, self.recv()).await.ok()
    }

    /// Waits for a pong. Returns its payload; downlinks before it are lost.
    pub async fn recv_pong(&mut self) -> Bytes {
        loop {
            match self.next().await {
                Some(Message::Pong(payload)) => return payload,
                Some(_) => {}
                None => panic!("the session ended before a pong"),
            }
        }
    }

    /// How the gateway ends the session; downlinks before that are lost. Answers its close frame.
    pub async fn closed(&mut self) -> Closed {
        let mut closed = Closed {
            code: None,
            reason: String::new(),
        };
        while let Some(message) = self.next().await {
            if let Message::Close(Some(frame)) = message {
                closed = frame.into();
            }
        }
        closed
    }

    /// Closes with a code and waits for the gateway's answer.
    pub async fn close(mut self, code: u16) -> Closed {
        let frame = CloseFrame {
            code: code.into(),
            reason: Default::default(),
        };
        self.send_message(Message::Close(Some(frame))).await;
        self.closed().await
    }

    /// Has it read all the time from now on: it answers pings and keeps what arrives.
    pub fn attend(self) -> Attended {
        Attended::start(self)
    }
}

impl Refused {
    fn from(response: http::Response<Option<Vec<u8>>>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body.unwrap_or_default()).into_owned(),
        }
    }
}

impl From<CloseFrame> for Closed {
    fn from(frame: CloseFrame) -> Self {
        Self {
            code: Some(frame.code.into()),
            reason: frame.reason.to_string(),
        }
    }
}

/// A device that reads all the time, on a task of its own. Dropping it cuts the connection.
#[derive(Debug)]
pub struct Attended {
    seen: Arc<Mutex<Seen>>,
    orders: mpsc::Sender<Message>,
    task: JoinHandle<()>,
}

/// What an attended device has seen so far.
#[derive(Debug, Default)]
struct Seen {
    downlinks: Vec<(Instant, Message)>,
    pings: usize,
    closed: Option<Closed>,
}

impl Attended {
    fn start(mut device: Device) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let (orders, mut ordered) = mpsc::channel(64);
        let record = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut closed = Closed {
                code: None,
                reason: String::new(),
            };
            loop {
                let message = tokio::select! {
                    Some(message) = ordered.recv() => {
                        let _ = timeout(DEADLINE, device.socket.send(message)).await;
                        continue;
                    }
                    message = device.socket.next() => message,
                };
                let mut seen = record.lock();
                match message {
                    Some(Ok(Message::Ping(_))) => seen.pings += 1,
                    Some(Ok(Message::Close(frame))) => {
                        closed = frame.map_or(closed, Closed::from);
                    }
                    Some(Ok(message)) => seen.downlinks.push((Instant::now(), message)),
                    Some(Err(_)) | None => {
                        seen.closed = Some(closed);
                        return;
                    }
                }
            }
        });
        Self { seen, orders, task }
    }

    /// Sends a TEXT message.
    pub async fn send(&self, text: impl Into<String>) {
        let message = Message::text(text.into());
        within("the device sends", self.orders.send(message))
            .await
            .expect("the session is open");
    }

    /// The TEXT downlinks so far.
    pub fn texts(&self) -> Vec<String> {
        let seen = self.seen.lock();
        let messages = seen.downlinks.iter();
        messages
            .filter_map(|(_, message)| match message {
                Message::Text(text) => Some(text.to_string()),
                _ => None,
            })
            .collect()
    }

    /// When each downlink so far arrived.
    pub fn times(&self) -> Vec<Instant> {
        self.seen
            .lock()
            .downlinks
            .iter()
            .map(|(at, _)| *at)
            .collect()
    }

    /// How many pings it has answered.
    pub fn pings(&self) -> usize {
        self.seen.lock().pings
    }

    /// Whether its session is still open.
    pub fn is_open(&self) -> bool {
        self.seen.lock().closed.is_none()
    }

    /// Waits until this text has arrived.
    pub async fn wait_text(&self, text: &str) {
        let what = format!("the device has {text:?}");
        eventually(&what, async || self.texts().iter().any(|t| t == text)).await;
    }

    /// Waits until so many TEXT downlinks have arrived. Returns all.
    pub async fn wait_texts(&self, count: usize) -> Vec<String> {
        let what = format!("the device has {count} downlinks");
        eventually(&what, async || {
            Some(self.texts()).filter(|texts| texts.len() >= count)
        })
        .await
    }

    /// Waits until the session has ended, and how.
    pub async fn wait_closed(&self) -> Closed {
        eventually("the session has ended", async || {
            self.seen.lock().closed.clone()
        })
        .await
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn upgrade(addr: SocketAddr, target: &str, headers: &[(&'static str, &str)]) -> Request<()> {
    let mut request = format!("ws://{addr}{target}")
        .into_client_request()
        .expect("a target that a URL can hold");
    for (name, value) in headers {
        let value = value.parse().expect("a header value");
        request.headers_mut().append(*name, value);
    }
    request
}

/// Small buffers, since some tests hold thousands of devices; no limit that the gateway's own would hide behind.
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_message_size(None)
        .max_frame_size(None)
}

fn percent_encoded(token: &str) -> String {
    token
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
