//! Frames in and out of one connection. tungstenite reads and answers control frames; downlinks are written here,
//! many in one system call and without a copy, so that no buffer grows with the largest message a device ever got.

use std::{
    io::{self, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{
    Error as WsError, Message,
    error::ProtocolError,
    protocol::{
        CloseFrame, Role, WebSocketConfig, WebSocketContext,
        frame::{
            FrameHeader, Utf8Bytes,
            coding::{Data, OpCode},
        },
    },
};

use crate::{
    net::wire::Wire,
    pure::{envelope, outbox::Outbox},
    registry::seat::Seat,
    types::{CloseReason, Payload},
};

/// One WebSocket connection after its handshake.
pub(crate) struct Socket {
    io: Stream,
    ws: WebSocketContext,
    /// It speaks `fastsock.v1.ack`: downlinks go out in envelopes.
    has_envelopes: bool,
}

/// The connection and the frame that is partly in it; tungstenite's own frames queue behind that.
struct Stream {
    wire: Wire,
    begun: Option<Begun>,
    /// Bytes read since the last frame that was given out.
    unfinished: usize,
}

/// A downlink that the socket has taken only a part of.
struct Begun {
    header: FrameHead,
    /// What is left of it.
    payload: Bytes,
    /// All of it, for the log.
    whole: Bytes,
}

/// The few bytes before a payload; advances as they are written.
#[derive(Clone, Copy)]
struct FrameHead {
    bytes: [u8; 10],
    at: u8,
    end: u8,
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
        let ws = match rest.is_empty() {
            true => WebSocketContext::new(Role::Server, Some(config)),
            false => WebSocketContext::from_partially_read(rest, Role::Server, Some(config)),
        };
        let io = Stream {
            wire,
            begun: None,
            unfinished: 0,
        };
        Self {
            io,
            ws,
            has_envelopes: false,
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
        match ws.read(&mut Blocking { io, cx, most }) {
            Ok(Message::Close(frame)) => Poll::Ready(Err(CloseReason::ByDevice(
                frame.map_or(1005, |frame| frame.code.into()),
            ))),
            Ok(message) => {
                self.io.unfinished = 0;
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
            let frame = match self.has_envelopes {
                false => bare_frame,
                true => frame_in_envelope,
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
        let Self { io, ws, .. } = self;
        // Whoever queues them sees to it that they are few; pings and pongs cannot displace them.
        ws.set_config(|config| config.max_write_buffer_size = usize::MAX);
        let written = ws.write(&mut Blocking::new(io, cx), Message::text(text));
        ws.set_config(|config| config.max_write_buffer_size = CONTROL_BYTES);
        pending_is_fine(written)
    }

    /// Queues an empty ping; [`Socket::poll_control`] sends it.
    pub(crate) fn ping(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
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
            reason: Utf8Bytes::from(cut(reason, 123)),
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
        if let Some(payload) = self.io.begun.as_ref().map(|begun| begun.whole.clone()) {
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
                Poll::Ready(flushed.map_err(|_| CloseReason::Lost))
            }
            Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => Poll::Ready(Err(reason_of(&error))),
        }
    }

    /// Whether TLS holds bytes that only [`Socket::poll_flush`] sends. Never so without TLS.
    pub(crate) fn has_unsent(&self) -> bool {
        self.io.wire.has_unsent()
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

type Batch = SmallVec<[(FrameHead, Bytes); BATCH_MESSAGES]>;

impl Stream {
    /// Writes messages from the head of an outbox, in one system call, and shows them in `batch`. Tells how many of them are
    /// written whole, and whether more waits.
    fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
        frame: fn(&Payload) -> (FrameHead, Bytes),
        batch: &mut Batch,
    ) -> Poll<io::Result<(usize, bool)>> {
        outbox.begin(BATCH_MESSAGES, BATCH_BYTES, |payload| {
            batch.push(frame(payload))
        });
        if batch.is_empty() {
            return Poll::Ready(Ok((0, false)));
        }
        let slices: SmallVec<[IoSlice<'_>; 2 * BATCH_MESSAGES]> = batch
            .iter()
            .flat_map(|(head, payload)| [IoSlice::new(head.left()), IoSlice::new(payload)])
            .collect();
        let written = match Pin::new(&mut self.wire).poll_write_vectored(cx, &slices) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                outbox.wrote(0, false); // any of them may be dropped
                return Poll::Pending;
            }
        };
        let whole = self.note(batch, written);
        outbox.wrote(whole, self.begun.is_some());
        Poll::Ready(Ok((whole, !outbox.is_empty())))
    }

    /// Writes the rest of the message that was begun, and takes it out of its outbox.
    fn poll_finish_of(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_finish(cx))?;
        outbox.wrote(1, false);
        Poll::Ready(Ok(()))
    }

    /// Writes the rest of the frame that was begun, if any.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(begun) = &mut self.begun {
            let slices = [
                IoSlice::new(begun.header.left()),
                IoSlice::new(&begun.payload),
            ];
            let written = ready!(Pin::new(&mut self.wire).poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if begun.advance(written) {
                self.begun = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Notes how much of a batch is in the socket: the number of whole frames; the next may be begun.
    fn note(&mut self, batch: &Batch, mut written: usize) -> usize {
        let mut whole = 0;
        for (header, payload) in batch {
            let length = header.left().len() + payload.len();
            if written < length {
                break;
            }
            written -= length;
            whole += 1;
        }
        if written > 0 {
            let (header, payload) = batch[whole].clone();
            let mut begun = Begun {
                header,
                payload: payload.clone(),
                whole: payload,
            };
            begun.advance(written);
            self.begun = Some(begun);
        }
        whole
    }
}

impl Begun {
    /// So many more bytes are written; `true` once all are.
    fn advance(&mut self, written: usize) -> bool {
        let of_head = written.min(self.header.left().len());
        self.header.at += of_head as u8;
        self.payload.advance(written - of_head);
        self.header.left().is_empty() && self.payload.is_empty()
    }
}

impl FrameHead {
    /// A whole unmasked data frame. RFC 6455 §5.2.
    fn of(payload: &Payload) -> Self {
        let opcode = OpCode::Data(if payload.is_text() {
            Data::Text
        } else {
            Data::Binary
        });
        let mut bytes = [0; 10];
        let mut room = &mut bytes[..];
        FrameHeader {
            opcode,
            ..FrameHeader::default()
        }
        .format(payload.len() as u64, &mut room)
        .expect("a frame head without mask has at most 10 bytes");
        let end = (10 - room.len()) as u8;
        Self { bytes, at: 0, end }
    }

    fn left(&self) -> &[u8] {
        &self.bytes[usize::from(self.at)..usize::from(self.end)]
    }
}

/// A connection as tungstenite wants it: `WouldBlock` for "not now", with the task woken later.
struct Blocking<'a, 'b, 'c> {
    io: &'a mut Stream,
    cx: &'b mut Context<'c>,
    /// Bytes that may be read.
    most: usize,
}

impl<'a, 'b, 'c> Blocking<'a, 'b, 'c> {
    fn new(io: &'a mut Stream, cx: &'b mut Context<'c>) -> Self {
        let most = usize::MAX;
        Self { io, cx, most }
    }
}

impl Read for Blocking<'_, '_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(self.most);
        if most == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut buffer = ReadBuf::new(&mut into[..most]);
        match Pin::new(&mut self.io.wire).poll_read(self.cx, &mut buffer) {
            Poll::Ready(result) => {
                result?;
                let read = buffer.filled().len();
                self.io.unfinished += read;
                self.most -= read;
                Ok(read)
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Blocking<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A control frame may not come into the middle of a frame that was begun; that one's owner finishes it.
        if self.io.begun.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match Pin::new(&mut self.io.wire).poll_write(self.cx, bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn bare_frame(payload: &Payload) -> (FrameHead, Bytes) {
    (FrameHead::of(payload), payload.as_bytes().clone())
}

fn frame_in_envelope(payload: &Payload) -> (FrameHead, Bytes) {
    let wrapped = envelope::wrap(payload);
    (FrameHead::of(&wrapped), wrapped.into_bytes())
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
/// Frames in one system call.
const BATCH_MESSAGES: usize = 32;
/// Payload bytes in one system call, past the first frame.
const BATCH_BYTES: usize = 64 << 10;
/// System calls before other sessions get their turn.
const BATCHES_A_TURN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_heads_have_the_three_lengths_of_rfc_6455() {
        let head = |size: usize| {
            FrameHead::of(&Payload::binary(vec![0; size]))
                .left()
                .to_vec()
        };
        assert_eq!(head(0), [0x82, 0]);
        assert_eq!(head(125), [0x82, 125]);
        assert_eq!(head(126), [0x82, 126, 0, 126]);
        assert_eq!(head(65_536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(FrameHead::of(&"a".into()).left(), [0x81, 1]);
    }

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("ok", 123), "ok");
    }
}
