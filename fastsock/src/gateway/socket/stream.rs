//! The bytes of one connection, and the frame that is partly in it.

use std::{
    io::{self, IoSlice, Read, Write},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::{
    deflate::{self, Codecs},
    incoming::Incoming,
    inflating::Inflating,
};
use crate::{
    net::wire::Wire,
    pure::{envelope, extensions::Deflated, outbox::Source},
    types::{CloseReason, Payload},
};

/// The connection and the frame that is partly in it; tungstenite's own frames queue behind that.
pub(super) struct Stream {
    pub(super) wire: Wire,
    pub(super) incoming: Incoming,
    /// Boxed, since few have one.
    begun: Option<Box<Begun>>,
    /// Bytes of a frame that is not whole yet.
    pub(super) unfinished: usize,
    /// It speaks permessage-deflate.
    deflate: Option<Box<Deflate>>,
}

/// What a connection with permessage-deflate needs beside.
struct Deflate {
    codecs: Arc<Codecs>,
    window_bits: u8,
    inflating: Inflating,
}

/// What one write of messages from the head of an outbox came to.
pub(super) enum Step {
    /// So many of them are written whole; whether more waits.
    Wrote(usize, bool),
    /// The first is to be compressed, outside of the lock; it can no longer be dropped. [`Stream::begin_compressed`] has it go out.
    Claimed(Payload),
}

/// A frame that the socket has taken only a part of.
struct Begun {
    header: FrameHead,
    /// What is left of it.
    payload: Bytes,
    /// All of it, for the log.
    whole: Bytes,
    origin: Origin,
}

/// Who has a frame until it is written whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Outbox,
    Mailbox,
    /// Nobody: a control frame of the gateway.
    Gateway,
}

/// The few bytes before a payload; advances as they are written.
#[derive(Clone, Copy)]
pub(super) struct FrameHead {
    bytes: [u8; 10],
    at: u8,
    end: u8,
}

pub(super) type Batch = SmallVec<[(FrameHead, Bytes); BATCH_MESSAGES]>;

impl Stream {
    /// `rest` is what has come already.
    pub(super) fn new(wire: Wire, rest: Vec<u8>) -> Self {
        Self {
            wire,
            incoming: Incoming::new(rest),
            begun: None,
            unfinished: 0,
            deflate: None,
        }
    }

    /// From now on messages may be compressed, those in `rest` as well.
    pub(super) fn use_deflate(
        &mut self,
        codecs: Arc<Codecs>,
        agreed: Deflated,
        limit: usize,
        rest: Vec<u8>,
    ) {
        self.incoming.stand_aside();
        self.deflate = Some(Box::new(Deflate {
            inflating: Inflating::new(codecs.clone(), limit, rest),
            codecs,
            window_bits: agreed.window_bits(),
        }));
    }

    /// Whether tungstenite has nothing that it was given and has not given out, and nothing more is to come of the device's frame.
    pub(super) fn is_between(&self) -> bool {
        match &self.deflate {
            Some(deflate) => !self.incoming.is_closing() && deflate.inflating.is_between(),
            None => self.incoming.is_between(),
        }
    }

    /// Why what the device sends cannot be inflated.
    pub(super) fn fault(&self) -> Option<&CloseReason> {
        self.deflate.as_ref()?.inflating.fault()
    }

    /// Writes a ping, unless a frame is begun or the socket takes nothing. `true` once all of it is written; else it is begun.
    pub(super) fn poll_ping(
        &mut self,
        cx: &mut Context<'_>,
        payload: &Bytes,
    ) -> Poll<io::Result<bool>> {
        if self.begun.is_some() {
            return Poll::Pending;
        }
        let header = FrameHead::new(OpCode::Control(Control::Ping), payload.len(), false);
        let slices = [IoSlice::new(header.left()), IoSlice::new(payload)];
        let written = ready!(Pin::new(&mut self.wire).poll_write_vectored(cx, &slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let batch = [(header, payload.clone())];
        Poll::Ready(Ok(self.note(&batch, written, Origin::Gateway) == 1))
    }

    /// Compresses the frame of a message that is claimed, if that makes it smaller, and begins it.
    pub(super) fn begin_compressed(
        &mut self,
        message: &Payload,
        frame: fn(&Payload) -> (FrameHead, Bytes),
        origin: Origin,
    ) {
        let (header, whole) = frame(message);
        let compressed = self.deflate.as_ref().and_then(|deflate| {
            let (codecs, window_bits) = (&deflate.codecs, deflate.window_bits);
            codecs.compress_message(message, &whole, window_bits)
        });
        let (header, payload) = match compressed {
            Some(payload) => (header.compressed(payload.len()), payload),
            None => (header, whole.clone()),
        };
        self.begun = Some(Box::new(Begun {
            header,
            payload,
            whole,
            origin,
        }));
    }

    /// The frame that was begun: its payload for the log, and whose it is.
    pub(super) fn begun(&self) -> Option<(Bytes, Origin)> {
        let begun = self.begun.as_ref()?;
        Some((begun.whole.clone(), begun.origin))
    }

    /// Writes messages from the head of an outbox, in one system call, and shows them in `batch`. One that is to be compressed
    /// stands alone.
    pub(super) fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut impl Source,
        origin: Origin,
        frame: fn(&Payload) -> (FrameHead, Bytes),
        batch: &mut Batch,
    ) -> Poll<io::Result<Step>> {
        let compresses = self.deflate.is_some();
        let mut claimed = None;
        outbox.begin(BATCH_MESSAGES, BATCH_BYTES, |payload| {
            if compresses && (claimed.is_some() || deflate::is_worth_it(payload.len())) {
                claimed.get_or_insert_with(|| payload.clone());
            } else {
                batch.push(frame(payload));
            }
        });
        if batch.is_empty() {
            let Some(payload) = claimed else {
                return Poll::Ready(Ok(Step::Wrote(0, false)));
            };
            outbox.wrote(0, true);
            return Poll::Ready(Ok(Step::Claimed(payload)));
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
        let whole = self.note(batch, written, origin);
        outbox.wrote(whole, self.begun.is_some());
        Poll::Ready(Ok(Step::Wrote(whole, !outbox.is_empty())))
    }

    /// Writes the rest of the message that was begun, and takes it out of its outbox.
    pub(super) fn poll_finish_of(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut impl Source,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_finish(cx))?;
        outbox.wrote(1, false);
        Poll::Ready(Ok(()))
    }

    /// Writes the rest of the frame that was begun, if any.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
    fn note(&mut self, batch: &[(FrameHead, Bytes)], mut written: usize, origin: Origin) -> usize {
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
                origin,
            };
            begun.advance(written);
            self.begun = Some(Box::new(begun));
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
    /// A whole unmasked frame. RFC 6455 §5.2.
    fn of(payload: &Payload) -> Self {
        let kind = if payload.is_text() {
            Data::Text
        } else {
            Data::Binary
        };
        Self::new(OpCode::Data(kind), payload.len(), false)
    }

    /// The same for its payload in compressed form.
    fn compressed(self, length: usize) -> Self {
        Self::new((self.bytes[0] & 0xf).into(), length, true)
    }

    fn new(opcode: OpCode, length: usize, rsv1: bool) -> Self {
        let mut bytes = [0; 10];
        let mut room = &mut bytes[..];
        FrameHeader {
            opcode,
            rsv1,
            ..FrameHeader::default()
        }
        .format(length as u64, &mut room)
        .expect("a frame head without mask has at most 10 bytes");
        let end = (10 - room.len()) as u8;
        Self { bytes, at: 0, end }
    }

    fn left(&self) -> &[u8] {
        &self.bytes[usize::from(self.at)..usize::from(self.end)]
    }
}

/// A connection as tungstenite wants it: `WouldBlock` for "not now", with the task woken later.
pub(super) struct Blocking<'a, 'b, 'c> {
    io: &'a mut Stream,
    cx: &'b mut Context<'c>,
    /// Bytes that may be read.
    pub(super) most: usize,
}

impl<'a, 'b, 'c> Blocking<'a, 'b, 'c> {
    pub(super) fn new(io: &'a mut Stream, cx: &'b mut Context<'c>) -> Self {
        let most = usize::MAX;
        Self { io, cx, most }
    }
}

impl Blocking<'_, '_, '_> {
    pub(super) fn io(&mut self) -> &mut Stream {
        self.io
    }

    /// Reads from the connection: as much as there is room for, and as may be read.
    pub(super) fn poll_read(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        if self.most == 0 {
            return Poll::Pending;
        }
        let wire = Pin::new(&mut self.io.wire);
        let read = if self.most >= buffer.remaining() {
            let before = buffer.filled().len();
            ready!(wire.poll_read(self.cx, buffer))?;
            buffer.filled().len() - before
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(self.most));
            ready!(wire.poll_read(self.cx, &mut part))?;
            let read = part.filled().len();
            buffer.advance(read);
            read
        };
        self.most -= read;
        Poll::Ready(Ok(read))
    }
}

impl Blocking<'_, '_, '_> {
    /// Whether there is something for tungstenite, where messages may be compressed; `false` at the end of what comes. Whoever waits
    /// here needs no tungstenite meanwhile.
    pub(super) fn poll_something(&mut self) -> Poll<io::Result<bool>> {
        let Stream { deflate, wire, .. } = &mut *self.io;
        let Some(deflate) = deflate else {
            return Poll::Ready(Ok(true));
        };
        if !deflate.inflating.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.most == 0 {
            return Poll::Pending;
        }
        let read = ready!(deflate.poll_feed(wire, self.cx))?;
        Poll::Ready(Ok(read > 0))
    }
}

impl Deflate {
    /// Reads what the device has sent; 0 at the end.
    fn poll_feed(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; DEFLATED_READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(wire).poll_read(cx, &mut buffer))?;
        self.inflating.feed(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl Read for Blocking<'_, '_, '_> {
    /// No more than the frame that is tungstenite's.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.io.deflate.is_some() {
            let most = into.len().min(self.most);
            return match most {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                _ => self.read_inflated(&mut into[..most]),
            };
        }
        let given = self.io.incoming.give(into);
        if given > 0 {
            self.io.unfinished += given;
            return Ok(given);
        }
        let passing = usize::try_from(self.io.incoming.passing()).unwrap_or(usize::MAX);
        let most = into.len().min(passing);
        if most == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match self.poll_read(&mut ReadBuf::new(&mut into[..most])) {
            Poll::Ready(read) => {
                let read = read?;
                self.io.unfinished += read;
                self.io.incoming.pass(read);
                Ok(read)
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Blocking<'_, '_, '_> {
    /// The same where messages may be compressed. What `most` counts are the bytes that come of them.
    fn read_inflated(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Stream { deflate, wire, .. } = &mut *self.io;
        let deflate = deflate.as_mut().expect("it is there");
        loop {
            let read = deflate.inflating.read(into);
            if read > 0 {
                self.io.unfinished += read;
                self.most -= read;
                return Ok(read);
            }
            if deflate.inflating.fault().is_some() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match deflate.poll_feed(wire, self.cx) {
                Poll::Ready(Ok(0)) => return Ok(0),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            }
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

pub(super) fn bare_frame(payload: &Payload) -> (FrameHead, Bytes) {
    (FrameHead::of(payload), payload.as_bytes().clone())
}

pub(super) fn frame_in_envelope(payload: &Payload) -> (FrameHead, Bytes) {
    let wrapped = envelope::wrap(payload, None);
    (FrameHead::of(&wrapped), wrapped.into_bytes())
}

/// Frames in one system call.
const BATCH_MESSAGES: usize = 32;
/// Compressed bytes read in one system call.
const DEFLATED_READ_BYTES: usize = 2 << 10;
/// Payload bytes in one system call, past the first frame.
const BATCH_BYTES: usize = 64 << 10;

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
}
