//! Frames in and out of one connection. tungstenite reads and answers control frames; downlinks are written here,
//! many in one system call and without a copy, so that no buffer grows with the largest message a device ever got.

mod stream;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::{io::AsyncWrite, net::TcpStream};
use tokio_tungstenite::tungstenite::{
    Error as WsError, Message,
    error::ProtocolError,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext, frame::Utf8Bytes},
};

use self::stream::{Batch, Blocking, Stream, bare_frame, frame_in_envelope};
use crate::{net::wire::Wire, registry::seat::Seat, types::CloseReason};

/// One WebSocket connection after its handshake.
pub(crate) struct Socket {
    io: Stream,
    ws: WebSocketContext,
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
    /// Takes over a connection whose 101 is written; `rest` is what the device already sent after its head.
    pub(crate) fn new(wire: Wire, rest: Vec<u8>, max_message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BYTES)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        let ws = if rest.is_empty() {
            WebSocketContext::new(Role::Server, Some(config))
        } else {
            WebSocketContext::from_partially_read(rest, Role::Server, Some(config))
        };
        Self {
            io: Stream::new(wire),
            ws,
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
            let config = *self.ws.get_config();
            self.ws = WebSocketContext::new(Role::Server, Some(config));
        }
        polled
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
        let Self { io, ws, .. } = self;
        let mut stream = Blocking::new(io, cx);
        stream.most = most;
        match ws.read(&mut stream) {
            Ok(Message::Close(frame)) => Poll::Ready(Err(CloseReason::ByDevice(
                frame.map_or(1005, |frame| frame.code.into()),
            ))),
            Ok(message) => {
                self.io.unfinished = 0;
                self.has_control |= message.is_ping(); // its pong is queued
                Poll::Ready(Ok(message))
            }
            Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(reason_of(&error))),
        }
    }

    /// Writes what waits in the outbox, as much as the connection takes. Pending: the connection is full.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        seat: &Seat,
    ) -> Poll<io::Result<Written>> {
        for _ in 0..BATCHES_A_TURN {
            ready!(self.poll_begun(cx, seat))?;
            let mut batch: Batch = SmallVec::new();
            let frame = if self.has_envelopes {
                frame_in_envelope
            } else {
                bare_frame
            };
            let written = seat.write(|outbox| self.io.poll_batch(cx, outbox, frame, &mut batch));
            let (whole, has_more) = ready!(written)?;
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
        let Self { io, ws, .. } = self;
        // Whoever queues them sees to it that they are few; pings and pongs cannot displace them.
        ws.set_config(|config| config.max_write_buffer_size = usize::MAX);
        let written = ws.write(&mut Blocking::new(io, cx), Message::text(text));
        ws.set_config(|config| config.max_write_buffer_size = CONTROL_BYTES);
        pending_is_fine(written)
    }

    /// Queues an empty ping; [`Socket::poll_control`] sends it.
    pub(crate) fn ping(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.has_control = true;
        let Self { io, ws, .. } = self;
        pending_is_fine(ws.write(&mut Blocking::new(io, cx), Message::Ping(Bytes::new())))
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
        let Self { io, ws, .. } = self;
        // The last word has its place behind whatever waits.
        ws.set_config(|config| config.max_write_buffer_size = usize::MAX);
        pending_is_fine(ws.close(&mut Blocking::new(io, cx), frame))
    }

    /// Writes the rest of the downlink that was begun, if any, and takes it out of its outbox.
    fn poll_begun(&mut self, cx: &mut Context<'_>, seat: &Seat) -> Poll<io::Result<()>> {
        if let Some(payload) = self.io.begun() {
            ready!(seat.write(|outbox| self.io.poll_finish_of(cx, outbox)))?;
            log_sent(seat, &payload);
        }
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
        match ws.flush(&mut Blocking::new(io, cx)) {
            Ok(()) | Err(WsError::ConnectionClosed) => {
                let flushed = ready!(Pin::new(&mut io.wire).poll_flush(cx));
                self.has_control = false;
                Poll::Ready(flushed.map_err(|_| CloseReason::Lost))
            }
            Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(reason_of(&error))),
        }
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

    /// Ends writing. Returns the bare connection.
    pub(crate) async fn end(self) -> io::Result<TcpStream> {
        self.io.wire.end().await
    }
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

/// Small, because every idle device pays for it; measured at 7 % more CPU a message than 4 KiB.
const READ_BUFFER_BYTES: usize = 1024;
/// Pings and pongs that wait for a device to read. Once they are this many, only its latest ping is still answered
/// (RFC 6455 §5.5.3), or one that sends pings and reads no pongs would fill the memory.
const CONTROL_BYTES: usize = 1024;
/// System calls before other sessions get their turn.
const BATCHES_A_TURN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("ok", 123), "ok");
    }
}
