//! What a device sends after its 101.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, Read, Write},
    net::{self, Shutdown},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use tokio_tungstenite::tungstenite::Message;

use super::choice;
use crate::{gateway::socket::Socket, pure::extensions::Deflated, types::CloseReason};

/// The bytes of a device give the messages and the end that a plain reading of RFC 6455 gives, in whatever pieces they
/// come, and what goes back are pongs to its pings and one close frame.
pub fn frames(bytes: &[u8]) {
    let (choice, bytes) = choice(bytes);
    let (expected, has_reserved_bits) = read_plainly(bytes);
    let (seen, written) = SETTING.with_borrow_mut(|setting| setting.run(choice, bytes, false));
    assert_eq!(seen, expected);
    answers_fit(&seen, &written);
    // With permessage-deflate nothing is otherwise, but for what has reserved bits.
    let (seen, written) = SETTING.with_borrow_mut(|setting| setting.run(choice, bytes, true));
    if !has_reserved_bits {
        assert_eq!(seen, expected);
    }
    answers_fit(&seen, &written);
}

/// What a session sees of its device.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    End(CloseReason),
}

/// A runtime and a listener, since a socket needs both.
struct Setting {
    runtime: tokio::runtime::Runtime,
    listener: net::TcpListener,
}

thread_local! {
    static SETTING: RefCell<Setting> = RefCell::new(Setting {
        runtime: tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime"),
        listener: net::TcpListener::bind((net::Ipv4Addr::LOCALHOST, 0)).expect("a port"),
    });
}

impl Setting {
    /// Sends the bytes through a connection, in pieces that `choice` tells, and gives what came out at either end.
    fn run(&mut self, choice: u8, bytes: &[u8], is_deflated: bool) -> (Vec<Seen>, Vec<u8>) {
        let (mut device, ours) = self.pair().expect("a connection");
        let first = usize::from(choice & 15).min(bytes.len()); // came along with the head
        let piece = [1, 2, 3, 7, 14, 126, 1000, usize::MAX][usize::from(choice >> 4 & 7)];
        self.runtime.block_on(async {
            let tcp = tokio::net::TcpStream::from_std(ours).expect("a stream of this runtime");
            let agreed = Deflated::choose(["permessage-deflate"].into_iter());
            let deflated = agreed.filter(|_| is_deflated).zip(Some(Arc::default()));
            let rest = bytes[..first].to_vec();
            let mut socket = Socket::new(tcp.into(), rest, MESSAGE_BYTES, deflated);
            let mut seen = Vec::new();
            let mut flow = drain(&mut socket, &mut seen).await;
            for piece in bytes[first..].chunks(piece) {
                if flow.is_break() || device.write_all(piece).is_err() {
                    break;
                }
                flow = drain(&mut socket, &mut seen).await;
            }
            let _ = device.shutdown(Shutdown::Write);
            while flow.is_continue() {
                let message = poll_fn(|cx| socket.poll_message(cx)).await;
                flow = note(message, &mut seen);
            }
            let _ = poll_fn(|cx| socket.poll_flush(cx)).await;
            (seen, received(&mut device))
        })
    }

    fn pair(&self) -> io::Result<(net::TcpStream, net::TcpStream)> {
        let device = net::TcpStream::connect(self.listener.local_addr()?)?;
        let (ours, _) = self.listener.accept()?;
        ours.set_nonblocking(true)?;
        device.set_nodelay(true)?;
        ours.set_nodelay(true)?;
        // Closed by a reset: thousands a second would use up the ports.
        socket2::SockRef::from(&ours).set_linger(Some(Duration::ZERO))?;
        socket2::SockRef::from(&device).set_linger(Some(Duration::ZERO))?;
        Ok((device, ours))
    }
}

/// Takes what is there.
async fn drain(socket: &mut Socket, seen: &mut Vec<Seen>) -> ControlFlow<()> {
    tokio::task::yield_now().await; // the runtime looks what has come
    loop {
        let next = poll_fn(|cx| std::task::Poll::Ready(socket.poll_message(cx))).await;
        let std::task::Poll::Ready(message) = next else {
            return ControlFlow::Continue(());
        };
        note(message, seen)?;
    }
}

fn note(message: Result<Message, CloseReason>, seen: &mut Vec<Seen>) -> ControlFlow<()> {
    seen.push(match message {
        Ok(Message::Text(text)) => Seen::Text(text.as_bytes().to_vec()),
        Ok(Message::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
        Ok(Message::Ping(bytes)) => Seen::Ping(bytes.to_vec()),
        Ok(Message::Pong(bytes)) => Seen::Pong(bytes.to_vec()),
        Ok(message) => panic!("never given out: {message:?}"),
        Err(reason) => {
            seen.push(Seen::End(reason));
            return ControlFlow::Break(());
        }
    });
    ControlFlow::Continue(())
}

/// What has come back to the device.
fn received(device: &mut net::TcpStream) -> Vec<u8> {
    device.set_nonblocking(true).expect("a socket");
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = device.read(&mut some) {
        all.extend(&some[..count]);
    }
    all
}

/// Pongs that answer some of the pings in their order, the last one among them, then at most one close frame.
fn answers_fit(seen: &[Seen], written: &[u8]) {
    let mut pings = seen.iter().filter_map(|seen| match seen {
        Seen::Ping(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    let last = pings.clone().next_back();
    let (mut at, mut answered, mut has_closed) = (0, None, false);
    while at < written.len() {
        assert!(!has_closed, "nothing follows a close frame");
        let length = usize::from(written[at + 1]);
        assert!(length <= 125, "short and not masked");
        let payload = &written[at + 2..at + 2 + length];
        match written[at] {
            0x8a => {
                assert!(pings.any(|ping| ping == payload), "a pong to no ping");
                answered = Some(payload);
            }
            0x88 => has_closed = true,
            other => panic!("the device got a frame {other:#x}"),
        }
        at += 2 + length;
    }
    if matches!(seen.last(), Some(Seen::End(CloseReason::ByDevice(_)))) {
        assert!(has_closed, "a close frame is answered");
    } else if !matches!(seen.last(), Some(Seen::End(CloseReason::Lost))) {
        assert!(!has_closed);
    }
    // A close frame is sent in the place of a pong that waits.
    if !has_closed {
        assert_eq!(answered, last);
    }
}

/// RFC 6455 §5, read frame by frame. Tells, too, whether the last one has reserved bits.
fn read_plainly(mut bytes: &[u8]) -> (Vec<Seen>, bool) {
    let mut seen = Vec::new();
    let mut has_reserved_bits = false;
    let mut message: Option<(bool, Vec<u8>)> = None;
    let end = loop {
        has_reserved_bits |= bytes.first().is_some_and(|first| first & 0x70 != 0);
        match next(&mut bytes).and_then(|frame| take(frame, &mut message)) {
            Ok(None) => {}
            Ok(Some(whole)) => seen.push(whole),
            Err(reason) => break reason,
        }
    };
    seen.push(Seen::End(end));
    (seen, has_reserved_bits)
}

struct Frame {
    is_final: bool,
    has_reserved_bits: bool,
    opcode: u8,
    is_masked: bool,
    payload: Vec<u8>,
}

fn next(bytes: &mut &[u8]) -> Result<Frame, CloseReason> {
    let mut take = |count: usize| {
        let taken = bytes.get(..count).ok_or(CloseReason::Lost)?;
        *bytes = &bytes[count..];
        Ok(taken)
    };
    let head = take(2)?;
    let length = match head[1] & 127 {
        126 => take(2)?
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        127 => take(8)?
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        short => u64::from(short),
    };
    let is_masked = head[1] & 128 != 0;
    let mask = if is_masked { take(4)? } else { &[0; 4] };
    let opcode = head[0] & 15;
    if !matches!(opcode, 0..=2 | 8..=10) {
        return Err(CloseReason::Protocol);
    }
    if length > MESSAGE_BYTES as u64 {
        return Err(CloseReason::TooBig);
    }
    let payload = take(length as usize)?;
    Ok(Frame {
        is_final: head[0] & 128 != 0,
        has_reserved_bits: head[0] & 0x70 != 0,
        opcode,
        is_masked,
        payload: payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect(),
    })
}

/// What a frame completes. `message` is the one that is in pieces: whether it is text, and what has come.
fn take(frame: Frame, message: &mut Option<(bool, Vec<u8>)>) -> Result<Option<Seen>, CloseReason> {
    let Frame {
        is_final,
        opcode,
        payload,
        ..
    } = frame;
    if !frame.is_masked || frame.has_reserved_bits {
        return Err(CloseReason::Protocol);
    }
    if opcode >= 8 {
        if !is_final || payload.len() > 125 {
            return Err(CloseReason::Protocol);
        }
        return match opcode {
            9 => Ok(Some(Seen::Ping(payload))),
            10 => Ok(Some(Seen::Pong(payload))),
            _ => Err(closed(&payload)),
        };
    }
    let (is_text, mut whole) = match (opcode, message.take()) {
        (0, Some(begun)) => begun,
        (1 | 2, None) => (opcode == 1, Vec::new()),
        _ => return Err(CloseReason::Protocol),
    };
    if whole.len() + payload.len() > MESSAGE_BYTES {
        return Err(CloseReason::TooBig);
    }
    whole.extend(payload);
    if is_text {
        match std::str::from_utf8(&whole) {
            Ok(_) => {}
            // It may go on in the next frame.
            Err(error) if error.error_len().is_none() && !is_final => {}
            Err(_) => return Err(CloseReason::InvalidUtf8),
        }
    }
    if !is_final {
        *message = Some((is_text, whole));
        return Ok(None);
    }
    Ok(Some(if is_text {
        Seen::Text(whole)
    } else {
        Seen::Binary(whole)
    }))
}

fn closed(payload: &[u8]) -> CloseReason {
    let Some((code, reason)) = payload.split_at_checked(2) else {
        return match payload.len() {
            0 => CloseReason::ByDevice(1005),
            _ => CloseReason::Protocol,
        };
    };
    if std::str::from_utf8(reason).is_err() {
        return CloseReason::InvalidUtf8;
    }
    match u16::from_be_bytes([code[0], code[1]]) {
        code @ (1000..=1003 | 1007..=1013 | 3000..=4999) => CloseReason::ByDevice(code),
        _ => CloseReason::ByDevice(1002), // which is what it is answered with
    }
}

/// The longest message: small, so that too big ones are found soon.
const MESSAGE_BYTES: usize = 300;
