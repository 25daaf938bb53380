//! Published messages, taken out of what a server sends before redis-rs reads it.
//!
//! redis-rs (1.8) makes a tree of values of each push, with a parser for all that Redis may say: a tenth of the processor time of a
//! downlink. Nearly all that a subscribed connection hears are messages of one form, so these are read here; everything else goes
//! on to redis-rs as it came.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Weak,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use redis::{
    AsyncConnectionConfig, ConnectionInfo, PushInfo, PushKind, RedisResult, Value,
    aio::MultiplexedConnection,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::io::poll_read_buf;

use crate::tasks;

/// Gets what a connection is pushed, from its reader: must not wait.
pub(crate) trait Listen: Send + Sync {
    /// What was published on a channel.
    fn message(&self, channel: &[u8], payload: Bytes);

    /// Any other push; or a message that is none.
    fn other(&self, push: PushInfo);
}

/// Who listens to a connection, if anyone does. Nothing is told to one that is gone: a connection may outlive its link for as long as
/// its server takes nothing, and what it hears then the next link hears, too.
pub(crate) type Listener = Option<Weak<dyn Listen>>;

/// Tells a listener what redis-rs has read.
pub(crate) fn tell(listener: &dyn Listen, mut push: PushInfo) {
    let has_pattern = push.kind == PushKind::PMessage;
    if has_pattern || matches!(push.kind, PushKind::Message | PushKind::SMessage) {
        let parts = push.data.get_mut(usize::from(has_pattern)..);
        if let Some([Value::BulkString(channel), Value::BulkString(payload), ..]) = parts {
            let payload = std::mem::take(payload);
            return listener.message(channel, Bytes::from(payload));
        }
    }
    listener.other(push);
}

/// A connection without TLS of which `listener` gets the messages. It ends after the last clone, and where it cannot
/// say goodbye, with the listener.
pub(super) async fn connect(
    address: SocketAddr,
    info: &ConnectionInfo,
    config: AsyncConnectionConfig,
    listener: Weak<dyn Listen>,
) -> RedisResult<MultiplexedConnection> {
    let stream = TcpStream::connect(address).await?;
    let (socket, settings) = (SockRef::from(&stream), info.tcp_settings());
    socket.set_tcp_nodelay(settings.nodelay())?;
    if let Some(keepalive) = settings.keepalive() {
        socket.set_tcp_keepalive(keepalive)?;
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(settings.user_timeout())?;
    let tap = Tap::new(stream, listener);
    let login = info.redis_settings();
    let (redis, run) = MultiplexedConnection::new_with_config(login, tap, config).await?;
    tasks::spawn_detached(run);
    Ok(redis)
}

/// A connection from which messages are taken.
pub(crate) struct Tap<S> {
    stream: S,
    listener: Weak<dyn Listen>,
    read: BytesMut,
    /// How much at the front of that goes on as it is.
    passing: usize,
    /// Something came that is not RESP: all goes on as it is, and whoever reads it says so.
    is_blind: bool,
}

/// What is at the front of what was read.
#[derive(Debug, PartialEq, Eq)]
enum Front<'a> {
    Message {
        channel: &'a [u8],
        payload: &'a [u8],
        len: usize,
    },
    /// One whole value of so many bytes.
    Other(usize),
}

/// Why the front cannot be told.
#[derive(Debug, PartialEq, Eq)]
enum Unknown {
    /// It has at least so many bytes.
    Part(usize),
    Malformed,
}

impl<S> Tap<S> {
    pub(crate) fn new(stream: S, listener: Weak<dyn Listen>) -> Self {
        Self {
            stream,
            listener,
            read: BytesMut::new(),
            passing: 0,
            is_blind: false,
        }
    }

    /// Hands over the messages at the front. Returns how many bytes there must be at least for more, unless something is to be passed on.
    fn take(&mut self, listener: &dyn Listen) -> Option<usize> {
        loop {
            match front(&self.read) {
                Ok(Front::Message {
                    channel,
                    payload,
                    len,
                }) => {
                    listener.message(channel, Bytes::copy_from_slice(payload));
                    self.read.advance(len);
                }
                Ok(Front::Other(len)) => {
                    self.passing = len;
                    return None;
                }
                Err(Unknown::Part(least)) => return Some(least),
                Err(Unknown::Malformed) => {
                    (self.passing, self.is_blind) = (self.read.len(), true);
                    return None;
                }
            }
        }
    }

    /// Makes room for `least` bytes in all, and lets go of what a large message took.
    fn make_room(&mut self, least: usize) {
        if self.read.is_empty() && self.read.capacity() > KEPT_BYTES {
            self.read = BytesMut::new();
        }
        let missing = least.saturating_sub(self.read.len());
        self.read.reserve(missing.max(READ_BYTES));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let tap = self.get_mut();
        let Some(listener) = tap.listener.upgrade() else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        for _ in 0..READS_A_TURN {
            if tap.passing == 0
                && !tap.is_blind
                && let Some(least) = tap.take(&*listener)
            {
                tap.make_room(least);
                if ready!(poll_read_buf(Pin::new(&mut tap.stream), cx, &mut tap.read))? > 0 {
                    continue;
                }
                // The end. What is left is for whoever says that it is only a part.
                (tap.passing, tap.is_blind) = (tap.read.len(), true);
            }
            if tap.passing == 0 {
                return Pin::new(&mut tap.stream).poll_read(cx, out);
            }
            let len = tap.passing.min(out.remaining());
            out.put_slice(&tap.read[..len]);
            tap.read.advance(len);
            tap.passing -= len;
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref(); // the turn of others
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Reads the value at the front (RESP3, <https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md>).
fn front(bytes: &[u8]) -> Result<Front<'_>, Unknown> {
    for (head, has_pattern) in MESSAGE_HEADS {
        if bytes.starts_with(head) {
            return message(bytes, head.len(), has_pattern);
        }
    }
    value(bytes).map(Front::Other)
}

fn message(bytes: &[u8], mut at: usize, has_pattern: bool) -> Result<Front<'_>, Unknown> {
    if has_pattern {
        (_, at) = bulk(bytes, at)?;
    }
    let (channel, at) = bulk(bytes, at)?;
    let (payload, len) = bulk(bytes, at)?;
    Ok(Front::Message {
        channel,
        payload,
        len,
    })
}

/// A bulk string, and where it ends.
fn bulk(bytes: &[u8], at: usize) -> Result<(&[u8], usize), Unknown> {
    let (b'$', text, at) = line(bytes, at)? else {
        return Err(Unknown::Malformed);
    };
    let end = at + count(text)?;
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => Ok((&bytes[at..end], end + 2)),
        Some(_) => Err(Unknown::Malformed),
        None => Err(Unknown::Part(end + 2)),
    }
}

/// How long a whole value is, with all that is in it.
fn value(bytes: &[u8]) -> Result<usize, Unknown> {
    let (mut at, mut open) = (0, 1_usize);
    while open > 0 {
        open -= 1;
        let (kind, text, after) = line(bytes, at)?;
        at = after;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'*' if text == b"-1" => {} // RESP2: nothing
            b'$' | b'!' | b'=' => at += count(text)? + 2,
            b'*' | b'~' | b'>' => open = open.saturating_add(count(text)?),
            b'%' => open = open.saturating_add(2 * count(text)?),
            b'|' => open = open.saturating_add(2 * count(text)? + 1), // and the value that it says something of
            _ => return Err(Unknown::Malformed),
        }
        if at > bytes.len() {
            return Err(Unknown::Part(at));
        }
    }
    Ok(at)
}

/// The kind of the value that begins at `at`, the rest of its first line, and where that ends.
fn line(bytes: &[u8], at: usize) -> Result<(u8, &[u8], usize), Unknown> {
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(len) = rest.iter().position(|b| *b == b'\n') else {
        return Err(Unknown::Part(bytes.len() + 1));
    };
    match &rest[..len] {
        [kind, text @ .., b'\r'] => Ok((*kind, text, at + len + 1)),
        _ => Err(Unknown::Malformed),
    }
}

fn count(text: &[u8]) -> Result<usize, Unknown> {
    let count = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    count
        .filter(|count| *count <= COUNT_MAX)
        .ok_or(Unknown::Malformed)
}

/// How Redis begins a message, and whether the pattern comes before the channel.
const MESSAGE_HEADS: [(&[u8], bool); 3] = [
    (b">4\r\n$8\r\npmessage\r\n", true),
    (b">3\r\n$7\r\nmessage\r\n", false),
    (b">3\r\n$8\r\nsmessage\r\n", false),
];

/// Read at once.
const READ_BYTES: usize = 16 * 1024;
/// Kept for the next messages.
const KEPT_BYTES: usize = 4 * READ_BYTES;
/// Before other tasks have their turn.
const READS_A_TURN: usize = 8;
/// More bytes, or values, than Redis has in one (512 MiB).
const COUNT_MAX: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::locks::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(Vec<u8>, Bytes)>>);

    impl Listen for Heard {
        fn message(&self, channel: &[u8], payload: Bytes) {
            self.0.lock().push((channel.to_vec(), payload));
        }

        fn other(&self, _: PushInfo) {}
    }

    /// What goes on, and what is heard, of a stream that comes in pieces of so many bytes.
    async fn tapped(stream: &[u8], piece: usize) -> (Vec<u8>, Vec<(Vec<u8>, Bytes)>) {
        let (mut server, ours) = tokio::io::duplex(piece);
        let heard = Arc::new(Heard::default());
        let listener: Weak<Heard> = Arc::downgrade(&heard);
        let mut tap = Tap::new(ours, listener);
        let mut passed = Vec::new();
        let send = async move {
            use tokio::io::AsyncWriteExt;
            server.write_all(stream).await.unwrap();
        };
        let (_, read) = tokio::join!(send, tap.read_to_end(&mut passed));
        read.unwrap();
        let heard = std::mem::take(&mut *heard.0.lock());
        (passed, heard)
    }

    #[tokio::test]
    async fn messages_are_taken_and_the_rest_goes_on_as_it_came() {
        let replies: [&[u8]; 8] = [
            b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*0\r\n",
            b">3\r\n$10\r\npsubscribe\r\n$3\r\na:*\r\n:1\r\n",
            b"|1\r\n+ttl\r\n:3600\r\n*2\r\n,1.5\r\n~1\r\n#t\r\n",
            b"$-1\r\n*-1\r\n_\r\n(12345678901234567890\r\n",
            b"-NOPERM no\r\n",
            b"=7\r\ntxt:abc\r\n!5\r\nERR x\r\n",
            b"$13\r\n>3\r\nmessage\r\n\r\n", // looks like a message, and is a string
            b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
        ];
        let large = vec![b'x'; 100_000];
        let messages: [(&[u8], &[u8]); 4] = [
            (b"a:1", b"hello"),
            (b"a:2", b""),
            (b"a:\r\n", b"\r\n$5\r\n>"),
            (b"a:3", &large),
        ];
        let mut stream = Vec::new();
        for (n, reply) in replies.iter().enumerate() {
            stream.extend(*reply);
            let (channel, payload) = messages[n % messages.len()];
            let head = match n % 3 {
                0 => &b">4\r\n$8\r\npmessage\r\n$3\r\na:*\r\n"[..],
                1 => b">3\r\n$7\r\nmessage\r\n",
                _ => b">3\r\n$8\r\nsmessage\r\n",
            };
            stream.extend(head);
            for part in [channel, payload] {
                stream.extend(format!("${}\r\n", part.len()).bytes());
                stream.extend(part);
                stream.extend(b"\r\n");
            }
        }
        for piece in [1, 2, 3, 7, 64, 1000, 1 << 20] {
            let (passed, heard) = tapped(&stream, piece).await;
            assert_eq!(passed, replies.concat(), "in pieces of {piece}");
            let expected = (0..replies.len()).map(|n| messages[n % messages.len()]);
            let heard = heard
                .iter()
                .map(|(channel, payload)| (&**channel, &**payload));
            assert!(heard.eq(expected), "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn what_is_no_resp_goes_on_and_so_does_all_behind_it() {
        let message = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n";
        let whole = (b"c".to_vec(), Bytes::from_static(b"hi"));
        for strange in [
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nhi\r\n",
            b">3\r\n$7\r\nmessage\r\n:1\r\n",
            b"$99999999999999999999\r\n",
            b"*99999999999999999999\r\n",
            b"\n",
            b"$?\r\n",
        ] {
            let behind = [strange, message].concat();
            let (passed, heard) = tapped(&[message, &*behind].concat(), 5).await;
            assert_eq!(passed, behind, "{}", strange.escape_ascii());
            assert_eq!(heard, std::slice::from_ref(&whole));
        }
        for part in 1..message.len() {
            let (passed, heard) = tapped(&message[..part], 5).await;
            assert_eq!(passed, message[..part], "a message that is cut off");
            assert_eq!(heard, []);
        }
    }
}
