//! Frames in and out of one connection. Small messages and pongs are read here, all else by tungstenite, which answers control frames;
//! downlinks are written here, many in one system call and without a copy, so that no buffer grows with the largest message a device
//! ever got, and pings, so that a silent device never needs tungstenite.

mod deflate;
mod incoming;
mod inflating;
mod stream;

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::{
    io::{AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Error as WsError, Message,
    error::ProtocolError,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext, frame::Utf8Bytes},
};

pub(crate) use self::deflate::Codecs;
use self::{
    incoming::Front,
    stream::{Batch, Blocking, Origin, Step, Stream, bare_frame, frame_in_envelope},
};
use crate::{
    net::wire::Wire, pure::extensions::Deflated, registry::seat::Seat, types::CloseReason,
};

/// One WebSocket connection after its handshake.
pub(crate) struct Socket {
    io: Stream,
    /// tungstenite, while it has something to do.
    ws: Option<Box<WebSocketContext>>,
    max_message_bytes: usize,
    /// The last message is alone in its buffer, and not a slice of a larger one.
    is_compact: bool,
    /// It speaks `fastsock.v1.ack`: downlinks go out in envelopes.
    has_envelopes: bool,
    /// A frame that is no downlink waits to be sent.
    has_control: bool,
}

/// What writing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Everything that waited.
    All,
    /// Some, and the turn of others has come.
    Some,
}

impl Socket {
    /// Takes over a connection whose 101 is written; `rest` is what the device already sent after its head. `deflated`: what the
    /// 101 says of permessage-deflate, if it does.
    pub(crate) fn new(
        wire: Wire,
        rest: Vec<u8>,
        max_message_bytes: usize,
        deflated: Option<(Deflated, Arc<Codecs>)>,
    ) -> Self {
        let io = match deflated {
            Some((agreed, codecs)) => {
                let mut io = Stream::new(wire, Vec::new());
                io.use_deflate(codecs, agreed, max_message_bytes, rest);
                io
            }
            None => Stream::new(wire, rest),
        };
        Self {
            io,
            ws: None,
            max_message_bytes,
            is_compact: false,
            has_envelopes: false,
            has_control: false,
        }
    }

    /// From now on downlinks go out in envelopes.
    pub(crate) fn use_envelopes(&mut self) {
        self.has_envelopes = true;
    }

    /// The next message of the device, or how the session ends.
    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Message, CloseReason>> {
        self.poll_up_to(cx, usize::MAX)
    }

    /// The same for one whose messages wait: reads at most so many bytes, and what is queued goes out before
    /// ([`Socket::poll_control`]). A close frame of the device is not answered yet: what is owed to it may still be written,
    /// and [`Socket::answer_close`] comes last.
    pub(crate) fn poll_ahead(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Message, CloseReason>> {
        let polled = self.poll_up_to(cx, most);
        if let Poll::Ready(Err(CloseReason::ByDevice(_))) = &polled {
            // This context writes nothing any more but its answer. A new one does; the old one had nothing left.
            self.ws = None;
        }
        polled
    }

    /// Whether the last message is alone in its buffer; else it is a slice of one that is read into.
    pub(crate) fn is_compact(&self) -> bool {
        self.is_compact
    }

    /// Bytes of a frame that is not whole yet.
    pub(crate) fn unfinished(&self) -> usize {
        self.io.unfinished
    }

    fn poll_up_to(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Message, CloseReason>> {
        self.flush_pong(cx)?;
        let most_payload = self.max_message_bytes;
        let Self { io, ws, .. } = self;
        let mut stream = Blocking::new(io, cx);
        stream.most = most;
        let mut room = [MaybeUninit::uninit(); READ_BYTES];
        let mut fresh = ReadBuf::uninit(&mut room);
        loop {
            let front = stream.io().incoming.take(fresh.filled(), most_payload);
            fresh.clear();
            let read = match front {
                Front::Message { is_text, payload } => {
                    (self.io.unfinished, self.is_compact) = (0, true);
                    let message = match is_text {
                        true => payload.try_into().map(Message::Text),
                        false => Ok(Message::Binary(payload)),
                    };
                    return Poll::Ready(message.map_err(|_| CloseReason::InvalidUtf8));
                }
                Front::Pong(payload) => {
                    (self.io.unfinished, self.is_compact) = (0, true);
                    return Poll::Ready(Ok(Message::Pong(payload)));
                }
                Front::Partial => match stream.poll_read(&mut fresh) {
                    Poll::Ready(Ok(1..)) => continue,
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(CloseReason::Lost)),
                    Poll::Pending => {
                        io.unfinished = io.incoming.len();
                        return Poll::Pending;
                    }
                },
                // A silent device that compresses holds no tungstenite either.
                Front::Other if ws.is_none() => match stream.poll_something() {
                    Poll::Ready(Ok(true)) => made(ws, most_payload).read(&mut stream),
                    Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(Err(CloseReason::Lost)),
                    Poll::Pending => return Poll::Pending,
                },
                Front::Other => made(ws, most_payload).read(&mut stream),
            };
            return match read {
                Ok(Message::Close(frame)) => {
                    io.incoming.forget();
                    io.incoming.pass_all();
                    Poll::Ready(Err(CloseReason::ByDevice(
                        frame.map_or(1005, |frame| frame.code.into()),
                    )))
                }
                Ok(message) => {
                    (io.unfinished, self.is_compact) = (0, false);
                    self.has_control |= message.is_ping(); // its pong is queued
                    self.let_go();
                    Poll::Ready(Ok(message))
                }
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if stream.io().incoming.passing() == 0 {
                        continue; // it has taken its frame, and that was not the last of its message
                    }
                    Poll::Pending
                }
                Err(error) => {
                    let fault = io.fault().cloned();
                    Poll::Ready(Err(fault.unwrap_or_else(|| reason_of(&error))))
                }
            };
        }
    }

    /// Sends what tungstenite would send before it reads: so each ping has its pong, and not only the last that was read.
    fn flush_pong(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let Self { io, ws, .. } = self;
        match ws {
            Some(ws) if self.has_control && ws.can_write() => {
                pending_is_fine(ws.flush(&mut Blocking::new(io, cx)))
            }
            _ => Ok(()),
        }
    }

    /// Lets tungstenite go, with its buffers, once it has nothing unread, unfinished or unsent: a silent device pays for none.
    fn let_go(&mut self) {
        if !self.has_control && self.io.is_between() {
            self.ws = None;
        }
    }

    /// Writes what waits in the outbox, as much as the connection takes. Pending: the connection is full.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        seat: &Seat,
    ) -> Poll<io::Result<Written>> {
        self.poll_write_from(cx, seat, Origin::Outbox)
    }

    /// The same for what waits in the mailbox of the seat.
    pub(crate) fn poll_write_kept(
        &mut self,
        cx: &mut Context<'_>,
        seat: &Seat,
    ) -> Poll<io::Result<Written>> {
        self.poll_write_from(cx, seat, Origin::Mailbox)
    }

    #[inline]
    fn poll_write_from(
        &mut self,
        cx: &mut Context<'_>,
        seat: &Seat,
        origin: Origin,
    ) -> Poll<io::Result<Written>> {
        let frame = match origin {
            Origin::Outbox if self.has_envelopes => frame_in_envelope,
            _ => bare_frame, // what is kept is in its envelope already
        };
        for _ in 0..BATCHES_A_TURN {
            ready!(self.poll_begun(cx, seat))?;
            let mut batch: Batch = SmallVec::new();
            let io = &mut self.io;
            let written = match origin {
                Origin::Outbox => {
                    Some(seat.write(|outbox| io.poll_batch(cx, outbox, origin, frame, &mut batch)))
                }
                Origin::Mailbox => {
                    seat.write_kept(|kept| io.poll_batch(cx, kept, origin, frame, &mut batch))
                }
                Origin::Gateway => None, // that waits in tungstenite
            };
            let Some(written) = written else {
                return Poll::Ready(Ok(Written::All));
            };
            let (whole, has_more) = match ready!(written)? {
                Step::Wrote(whole, has_more) => (whole, has_more),
                Step::Claimed(payload) => {
                    self.io.begin_compressed(&payload, frame, origin);
                    continue;
                }
            };
            for (_, payload) in &batch[..whole] {
                log_sent(seat, payload);
            }
            if !has_more {
                return Poll::Ready(Ok(Written::All));
            }
        }
        Poll::Ready(Ok(Written::Some))
    }

    /// Queues a message of the bridge itself; [`Socket::poll_control`] sends it.
    pub(crate) fn text(&mut self, cx: &mut Context<'_>, text: String) -> Result<(), CloseReason> {
        self.has_control = true;
        let (io, ws) = (&mut self.io, made(&mut self.ws, self.max_message_bytes));
        // Whoever queues them sees to it that they are few; pings and pongs cannot displace them.
        ws.set_config(|config| config.max_write_buffer_size = usize::MAX);
        let written = ws.write(&mut Blocking::new(io, cx), Message::text(text));
        ws.set_config(|config| config.max_write_buffer_size = CONTROL_BYTES);
        pending_is_fine(written)
    }

    /// Sends a ping, without tungstenite where nothing is in its way; else [`Socket::poll_control`] sends it in its turn.
    pub(crate) fn ping(&mut self, cx: &mut Context<'_>, payload: Bytes) -> Result<(), CloseReason> {
        let is_open = self.ws.as_ref().is_none_or(|ws| ws.can_write());
        if is_open
            && !self.has_control
            && let Poll::Ready(written) = self.io.poll_ping(cx, &payload)
        {
            self.has_control = !written.map_err(|_| CloseReason::Lost)?;
            return Ok(());
        }
        self.has_control = true;
        let (io, ws) = (&mut self.io, made(&mut self.ws, self.max_message_bytes));
        pending_is_fine(ws.write(&mut Blocking::new(io, cx), Message::Ping(payload)))
    }

    /// Queues a close frame; [`Socket::poll_control`] sends it.
    pub(crate) fn close(
        &mut self,
        cx: &mut Context<'_>,
        code: u16,
        reason: &str,
    ) -> Result<(), CloseReason> {
        let frame = CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::from(cut(reason, CloseReason::MAX_BYTES)),
        };
        self.close_with(cx, Some(frame))
    }

    /// Answers the close frame of the device, which had this code, unless that is queued already.
    pub(crate) fn answer_close(
        &mut self,
        cx: &mut Context<'_>,
        code: u16,
    ) -> Result<(), CloseReason> {
        let frame = CloseFrame {
            code: code.into(),
            reason: Utf8Bytes::default(),
        };
        // 1005 stands for a close frame without a code. RFC 6455 §7.1.5
        self.close_with(cx, (code != 1005).then_some(frame))
    }

    fn close_with(
        &mut self,
        cx: &mut Context<'_>,
        frame: Option<CloseFrame>,
    ) -> Result<(), CloseReason> {
        self.has_control = true;
        let (io, ws) = (&mut self.io, made(&mut self.ws, self.max_message_bytes));
        io.incoming.pass_all();
        // The last word has its place behind whatever waits.
        ws.set_config(|config| config.max_write_buffer_size = usize::MAX);
        pending_is_fine(ws.close(&mut Blocking::new(io, cx), frame))
    }

    /// Writes the rest of the frame that was begun, if any, and takes it out of its outbox if it is a downlink.
    fn poll_begun(&mut self, cx: &mut Context<'_>, seat: &Seat) -> Poll<io::Result<()>> {
        let Some((payload, origin)) = self.io.begun() else {
            return Poll::Ready(Ok(()));
        };
        match origin {
            Origin::Outbox => ready!(seat.write(|outbox| self.io.poll_finish_of(cx, outbox)))?,
            Origin::Mailbox => match seat.write_kept(|kept| self.io.poll_finish_of(cx, kept)) {
                Some(finished) => ready!(finished)?,
                None => ready!(self.io.poll_finish(cx))?,
            },
            Origin::Gateway => return self.io.poll_finish(cx),
        }
        log_sent(seat, &payload);
        Poll::Ready(Ok(()))
    }

    /// Sends queued control frames and what TLS holds, after the downlink that was begun. Until they are all sent nothing else
    /// may be written: the socket may have the first of them in part.
    pub(crate) fn poll_control(
        &mut self,
        cx: &mut Context<'_>,
        seat: &Seat,
    ) -> Poll<Result<(), CloseReason>> {
        match ready!(self.poll_begun(cx, seat)) {
            Ok(()) => self.poll_flush(cx),
            Err(_) => Poll::Ready(Err(CloseReason::Lost)),
        }
    }

    /// For a session that has left its seat: sends queued control frames, the rest of a downlink that was begun, and what TLS holds.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        let Self { io, ws, .. } = self;
        if ready!(io.poll_finish(cx)).is_err() {
            return Poll::Ready(Err(CloseReason::Lost));
        }
        // Where the last pong finds no room behind others, the first flush makes it, and the second sends it.
        for _ in 0..2 {
            let Some(ws) = ws else {
                break;
            };
            match ws.flush(&mut Blocking::new(io, cx)) {
                Ok(()) => {}
                Err(WsError::ConnectionClosed) => break,
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(reason_of(&error))),
            }
        }
        let flushed = ready!(Pin::new(&mut io.wire).poll_flush(cx));
        self.has_control = false;
        self.let_go();
        Poll::Ready(flushed.map_err(|_| CloseReason::Lost))
    }

    /// Whether something waits that [`Socket::poll_control`] sends: a frame that is no downlink, or what TLS holds.
    pub(crate) fn has_queued(&self) -> bool {
        self.has_control || self.io.wire.has_unsent()
    }

    /// How much the connection has taken so far; standing still is how a slow consumer shows.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.io.wire.written_bytes()
    }

    /// Makes the kernel give up on a peer that acknowledges nothing for this long (TCP_USER_TIMEOUT, RFC 5482).
    pub(crate) fn set_user_timeout(&self, timeout: Option<Duration>) {
        self.io.wire.set_user_timeout(timeout);
    }

    /// Ends writing; what the device still sends can be read.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io.wire).poll_shutdown(cx)
    }

    /// Ends writing. Returns the bare connection.
    pub(crate) async fn end(self) -> io::Result<TcpStream> {
        self.io.wire.end().await
    }
}

/// tungstenite, made when it is not there.
fn made(ws: &mut Option<Box<WebSocketContext>>, max_message_bytes: usize) -> &mut WebSocketContext {
    ws.get_or_insert_with(|| {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BYTES)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        Box::new(WebSocketContext::new(Role::Server, Some(config)))
    })
}

fn log_sent(seat: &Seat, payload: &Bytes) {
    tracing::trace!(
        name: "message_sent", target: "fastsock::messages",
        client_id = %seat.client_id, session_id = seat.session_id.0, data = %String::from_utf8_lossy(payload),
        "Message sent to client"
    );
}

fn pending_is_fine(result: Result<(), WsError>) -> Result<(), CloseReason> {
    match result {
        Ok(()) | Err(WsError::ConnectionClosed) => Ok(()),
        Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        // It takes none of what it was sent, so it needs no more: the write deadline is running.
        Err(WsError::WriteBufferFull(_)) => Ok(()),
        Err(error) => Err(reason_of(&error)),
    }
}

/// What a broken rule of RFC 6455 means for the session.
fn reason_of(error: &WsError) -> CloseReason {
    match error {
        WsError::Utf8(_) => CloseReason::InvalidUtf8,
        WsError::Capacity(_) => CloseReason::TooBig,
        WsError::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => CloseReason::Lost,
        WsError::Protocol(_) => CloseReason::Protocol,
        _ => CloseReason::Lost,
    }
}

/// The longest start of a text that fits into so many bytes.
fn cut(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Of tungstenite, while it is there. Up to 1 KiB a thread keeps its own of what is free.
const READ_BUFFER_BYTES: usize = 1024;
/// On the stack: a silent device has none of it.
const READ_BYTES: usize = 2048;
/// Pings and pongs that wait for a device to read. Once they are this many, only its latest ping is still answered
/// (RFC 6455 §5.5.3), or one that sends pings and reads no pongs would fill the memory.
const CONTROL_BYTES: usize = 1024;
/// System calls before other sessions get their turn.
const BATCHES_A_TURN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_device_that_compresses_holds_no_buffers() {
        use std::future::poll_fn;
        use tokio::{io::AsyncWriteExt, net::TcpListener};

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut device = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let agreed = Deflated::choose(["permessage-deflate"].into_iter()).unwrap();
        let deflated = Some((agreed, Arc::<Codecs>::default()));
        let mut socket = Socket::new(tcp.into(), Vec::new(), 1 << 20, deflated);
        let silent = |socket: &mut Socket| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(socket.poll_message(&mut cx).is_pending());
            assert!(socket.ws.is_none());
        };
        silent(&mut socket);
        // RFC 7692 §7.2.3.1, with a mask of zeros; whole, in two fragments, and with a ping between these.
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let frame = |first: u8, payload: &[u8]| {
            [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
        };
        let (begin, end) = (frame(0x41, &hello[..3]), frame(0x80, &hello[3..]));
        for message in [
            frame(0xc1, &hello),
            [&begin[..], &end].concat(),
            [&begin[..], &frame(0x89, b""), &end].concat(),
        ] {
            device.write_all(&message).await.unwrap();
            loop {
                match poll_fn(|cx| socket.poll_message(cx)).await.unwrap() {
                    Message::Text(text) => break assert_eq!(text, "Hello"),
                    other => assert_eq!(other, Message::Ping(Bytes::new())),
                }
            }
            poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
            silent(&mut socket);
        }
        drop(device);
        let end = poll_fn(|cx| socket.poll_message(cx)).await;
        assert_eq!(end.unwrap_err(), CloseReason::Lost);
    }

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("ok", 123), "ok");
    }
}
