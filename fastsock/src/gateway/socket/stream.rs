//! The bytes of one connection, and the frame that is partly in it.

use std::{
    io::{self, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Data, OpCode},
};

use crate::{
    net::wire::Wire,
    pure::{envelope, outbox::Outbox},
    types::Payload,
};

/// The connection and the frame that is partly in it; tungstenite's own frames queue behind that.
pub(super) struct Stream {
    pub(super) wire: Wire,
    begun: Option<Begun>,
    /// Bytes read since the last frame that was given out.
    pub(super) unfinished: usize,
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
pub(super) struct FrameHead {
    bytes: [u8; 10],
    at: u8,
    end: u8,
}

pub(super) type Batch = SmallVec<[(FrameHead, Bytes); BATCH_MESSAGES]>;

impl Stream {
    pub(super) fn new(wire: Wire) -> Self {
        Self {
            wire,
            begun: None,
            unfinished: 0,
        }
    }

    /// The downlink that was begun, for the log.
    pub(super) fn begun(&self) -> Option<Bytes> {
        self.begun.as_ref().map(|begun| begun.whole.clone())
    }

    /// Writes messages from the head of an outbox, in one system call, and shows them in `batch`. Tells how many of them are
    /// written whole, and whether more waits.
    pub(super) fn poll_batch(
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
    pub(super) fn poll_finish_of(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
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

pub(super) fn bare_frame(payload: &Payload) -> (FrameHead, Bytes) {
    (FrameHead::of(payload), payload.as_bytes().clone())
}

pub(super) fn frame_in_envelope(payload: &Payload) -> (FrameHead, Bytes) {
    let wrapped = envelope::wrap(payload);
    (FrameHead::of(&wrapped), wrapped.into_bytes())
}

/// Frames in one system call.
const BATCH_MESSAGES: usize = 32;
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
