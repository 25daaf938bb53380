//! The generator: devices, the backend that takes uplinks and the publisher of downlinks, all on one thread.

use std::{
    collections::VecDeque,
    io::{self, Error},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;

use crate::{
    clock::{Clock, nanos},
    jwt,
    poller::{Conn, Poller, accept_all, listen},
    tls,
    wire::{
        ACCEPT, CLOSE, Head, KEY, PING, PONG, Stamp, TEXT, head_end, push_command, push_decimal,
        push_frame,
    },
};

/// What happened in a [`turn`](Fleet::turn), with the time of arrival.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// A device was seated.
    Opened,
    /// A device was refused, or its connection failed before it was seated.
    Refused,
    /// A seated device lost its connection or was sent a CLOSE.
    Closed,
    /// A stamped downlink arrived.
    Downlink(Stamp, u64),
    /// A stamped uplink arrived at the backend.
    Uplink(Stamp, u64),
}

/// The generator.
pub(crate) struct Fleet {
    clock: Clock,
    poller: Poller,
    devices: Vec<Option<Device>>,
    backend: Backend,
    publisher: Option<Publisher>,
    /// What devices connect with under TLS.
    tls: Option<Arc<ClientConfig>>,
    shows_jwt: bool,
    /// The group that their JWT puts them in.
    group: Option<&'static str>,
    events: Vec<Event>,
    /// Room to read into and to build frames and payloads in.
    buffer: Vec<u8>,
    frame: Vec<u8>,
    payload: Vec<u8>,
    /// The length of a payload.
    payload_bytes: usize,
}

#[derive(Debug)]
struct Device {
    conn: Conn,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Its request is not written yet.
    Dialing,
    /// The answer is not whole yet.
    Asking,
    Seated,
}

/// The HTTP server that takes uplinks.
#[derive(Debug)]
struct Backend {
    listener: TcpListener,
    port: u16,
    conns: Vec<Option<Conn>>,
    /// How long it thinks before each answer, and the answers that wait for that, in order.
    thinks: Duration,
    answers: VecDeque<(u64, usize)>,
}

/// The link to Redis over which downlinks are published.
#[derive(Debug)]
struct Publisher {
    conn: Conn,
    channel: Vec<u8>,
    commands: Vec<u8>,
    is_blocked: bool,
}

impl Fleet {
    pub(crate) fn new(clock: Clock) -> io::Result<Self> {
        let poller = Poller::new()?;
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into())?;
        poller.add(&listener, token(LISTENER, 0), false)?;
        let port = listener.local_addr()?.port();
        Ok(Self {
            clock,
            poller,
            devices: Vec::new(),
            backend: Backend {
                listener,
                port,
                conns: Vec::new(),
                thinks: Duration::ZERO,
                answers: VecDeque::new(),
            },
            publisher: None,
            tls: None,
            shows_jwt: false,
            group: None,
            events: Vec::new(),
            buffer: Vec::new(),
            frame: Vec::new(),
            payload: Vec::new(),
            payload_bytes: 128,
        })
    }

    /// Where the backend listens.
    pub(crate) fn remote_url(&self) -> String {
        format!("http://127.0.0.1:{}/uplink", self.backend.port)
    }

    /// Makes the backend think before each answer.
    pub(crate) fn set_thinking(&mut self, thinks: Duration) {
        self.backend.thinks = thinks;
    }

    /// Has devices connect under TLS from now on, or no longer.
    pub(crate) fn set_tls(&mut self, tls: Option<Arc<ClientConfig>>) {
        self.tls = tls;
    }

    /// Has devices show a JWT from now on, or only their client id.
    pub(crate) fn set_jwt(&mut self, shows_jwt: bool) {
        self.shows_jwt = shows_jwt;
    }

    /// Has devices that show a JWT be in a group from now on, or in none.
    pub(crate) fn set_group(&mut self, group: Option<&'static str>) {
        self.group = group;
    }

    /// Connects the publisher, in place of the one before.
    pub(crate) fn publish_through(&mut self, redis_port: u16, prefix: &str) -> io::Result<()> {
        let conn = Conn::dial((Ipv4Addr::LOCALHOST, redis_port).into())?;
        self.poller.add(&conn, token(PUBLISHER, 0), true)?;
        self.publisher = Some(Publisher {
            conn,
            channel: format!("{prefix}:client:").into_bytes(),
            commands: Vec::new(),
            is_blocked: true,
        });
        Ok(())
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// How many devices there are, seated or not.
    pub(crate) fn size(&self) -> usize {
        self.devices.len()
    }

    /// Whether a device is seated.
    pub(crate) fn is_seated(&self, device: usize) -> bool {
        let device = self.devices.get(device).and_then(Option::as_ref);
        device.is_some_and(|d| d.stage == Stage::Seated)
    }

    /// How many devices went on from an earlier TLS handshake.
    pub(crate) fn resumed(&self) -> usize {
        let devices = self.devices.iter().flatten();
        devices.filter(|device| device.conn.is_resumed()).count()
    }

    /// Adds a device that begins to connect. Its client id is `dev` and its index.
    pub(crate) fn dial(&mut self, to: SocketAddr) -> io::Result<()> {
        let index = self.devices.len();
        let conn = match &self.tls {
            None => Conn::dial(to)?,
            Some(tls) => Conn::dial_tls(to, tls, tls::name(index))?,
        };
        self.poller.add(&conn, token(DEVICE, index), true)?;
        let stage = Stage::Dialing;
        self.devices.push(Some(Device { conn, stage }));
        Ok(())
    }

    /// Closes every device's connection, without a CLOSE and without leaving ports in TIME_WAIT.
    pub(crate) fn hang_up(&mut self) {
        for device in self.devices.drain(..).flatten() {
            device.conn.reset_on_close();
        }
    }

    /// Closes the backend's connections and forgets answers not given yet.
    pub(crate) fn forget_gateway(&mut self) {
        self.hang_up();
        self.backend.conns.clear();
        self.backend.answers.clear();
        self.backend.thinks = Duration::ZERO;
    }

    /// Sends an uplink of a device.
    pub(crate) fn uplink(&mut self, stamp: Stamp) -> io::Result<()> {
        self.payload.clear();
        stamp.write(&mut self.payload, self.payload_bytes);
        self.frame.clear();
        push_frame(&mut self.frame, TEXT, &self.payload, true);
        let index = stamp.device as usize;
        let Some(device) = &mut self.devices[index] else {
            return Ok(());
        };
        let Ok(is_sent) = device.conn.send(&self.frame) else {
            self.lose_device(index);
            return Ok(());
        };
        if !is_sent {
            self.poller
                .change(&device.conn, token(DEVICE, index), true)?;
        }
        Ok(())
    }

    /// Publishes a downlink to a device, with the next [`turn`](Self::turn).
    pub(crate) fn downlink(&mut self, stamp: Stamp) {
        let Some(publisher) = &mut self.publisher else {
            return;
        };
        self.payload.clear();
        stamp.write(&mut self.payload, self.payload_bytes);
        let prefix_bytes = publisher.channel.len();
        publisher.channel.extend(b"dev");
        push_decimal(&mut publisher.channel, stamp.device.into());
        let words = [b"PUBLISH", &publisher.channel[..], &self.payload];
        push_command(&mut publisher.commands, &words);
        publisher.channel.truncate(prefix_bytes);
    }

    /// Publishes one message for everyone, or for the group that they are in, with the next [`turn`](Self::turn).
    pub(crate) fn broadcast(&mut self, prefix: &str, stamp: Stamp) {
        let Some(publisher) = &mut self.publisher else {
            return;
        };
        self.payload.clear();
        stamp.write(&mut self.payload, self.payload_bytes);
        let channel = match self.group {
            None => format!("{prefix}:broadcast"),
            Some(group) => format!("{prefix}:group:{group}"),
        };
        let words = [b"PUBLISH", channel.as_bytes(), &self.payload];
        push_command(&mut publisher.commands, &words);
    }

    /// Sends what waits, then waits for something to happen, at most until a time, and tells what did.
    pub(crate) fn turn(&mut self, until_ns: u64) -> io::Result<&[Event]> {
        self.events.clear();
        self.send_commands()?;
        let answer_due = self
            .backend
            .answers
            .front()
            .map_or(u64::MAX, |(due, _)| *due);
        let wake = until_ns.min(answer_due);
        let timeout = Duration::from_nanos(wake.saturating_sub(self.clock.now()));
        for n in 0..self.poller.wait(timeout)? {
            let (token, readable, writable) = self.poller.ready(n);
            self.attend(token, readable, writable)?;
        }
        self.give_answers()?;
        Ok(&self.events)
    }

    fn attend(&mut self, token: u64, readable: bool, writable: bool) -> io::Result<()> {
        let index = (token & 0xffff_ffff) as usize;
        match token >> 32 {
            DEVICE => self.attend_device(index, readable, writable),
            POST => self.attend_post(index, readable, writable),
            LISTENER => self.accept(),
            _ => self.attend_publisher(readable, writable),
        }
    }

    fn attend_device(&mut self, index: usize, readable: bool, writable: bool) -> io::Result<()> {
        let is_alive = match &mut self.devices.get_mut(index) {
            Some(Some(device)) => {
                let moved = !writable
                    || device
                        .make_room(index, self.shows_jwt, self.group, &self.poller)
                        .is_ok();
                moved && (!readable || self.read_device(index).is_ok())
            }
            _ => return Ok(()), // closed a moment ago
        };
        if !is_alive {
            self.lose_device(index);
        }
        Ok(())
    }

    fn lose_device(&mut self, index: usize) {
        let Some(device) = self.devices[index].take() else {
            return;
        };
        self.events.push(match device.stage {
            Stage::Seated => Event::Closed,
            Stage::Dialing | Stage::Asking => Event::Refused,
        });
    }

    /// Reads what a device was sent. An error is the end of its connection.
    fn read_device(&mut self, index: usize) -> io::Result<()> {
        let Self {
            devices,
            buffer,
            events,
            clock,
            ..
        } = self;
        let device = devices[index].as_mut().ok_or_else(ended)?;
        let length = device.conn.read(buffer)?.ok_or_else(ended)?;
        let at = clock.now();
        let bytes = &buffer[..length];
        let mut used = 0;
        if device.stage == Stage::Asking {
            let Some(end) = head_end(bytes) else {
                device.conn.keep(bytes);
                return Ok(());
            };
            if !is_seated(&bytes[..end]) {
                return Err(Error::other("refused"));
            }
            device.stage = Stage::Seated;
            events.push(Event::Opened);
            used = end;
        }
        while let Some(head) = Head::read(&bytes[used..]) {
            let payload = &bytes[used + head.payload.0..used + head.payload.1];
            used += head.payload.1;
            match head.opcode {
                PING => device.answer_ping(payload)?,
                CLOSE => return Err(ended()),
                _ => events.extend(Stamp::read(payload).map(|stamp| Event::Downlink(stamp, at))),
            }
        }
        device.conn.keep(&bytes[used..]);
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let Self {
            backend, poller, ..
        } = self;
        accept_all(&backend.listener, |conn| {
            let vacant = backend.conns.iter().position(Option::is_none);
            let index = vacant.unwrap_or(backend.conns.len());
            poller.add(&conn, token(POST, index), false)?;
            match vacant {
                Some(index) => backend.conns[index] = Some(conn),
                None => backend.conns.push(Some(conn)),
            }
            Ok(())
        })
    }

    fn attend_post(&mut self, index: usize, readable: bool, writable: bool) -> io::Result<()> {
        let Some(Some(conn)) = self.backend.conns.get_mut(index) else {
            return Ok(()); // closed a moment ago
        };
        if writable && conn.flush().is_ok_and(|is_empty| is_empty) {
            self.poller.change(&*conn, token(POST, index), false)?;
        }
        if !readable {
            return Ok(());
        }
        match self.read_posts(index) {
            Ok(count) if self.backend.thinks.is_zero() => self.answer(index, count),
            Ok(count) => {
                let due = self.clock.now() + nanos(self.backend.thinks);
                let answers = std::iter::repeat_n((due, index), count);
                self.backend.answers.extend(answers);
                Ok(())
            }
            Err(_) => {
                self.backend.conns[index] = None;
                self.backend.answers.retain(|(_, conn)| *conn != index);
                Ok(())
            }
        }
    }

    /// Reads requests and tells the stamps in their bodies. Returns how many were whole.
    fn read_posts(&mut self, index: usize) -> io::Result<usize> {
        let Self {
            backend,
            buffer,
            events,
            clock,
            ..
        } = self;
        let conn = backend.conns[index].as_mut().ok_or_else(ended)?;
        let length = conn.read(buffer)?.ok_or_else(ended)?;
        let at = clock.now();
        let (mut used, mut count) = (0, 0);
        while let Some((body, end)) = request(&buffer[used..length])? {
            let stamps = Stamp::read_json(&buffer[used + body..used + end]);
            events.extend(stamps.map(|stamp| Event::Uplink(stamp, at)));
            used += end;
            count += 1;
        }
        conn.keep(&buffer[used..length]);
        Ok(count)
    }

    fn answer(&mut self, index: usize, count: usize) -> io::Result<()> {
        let Some(Some(conn)) = self.backend.conns.get_mut(index) else {
            return Ok(());
        };
        for _ in 0..count {
            match conn.send(OK) {
                Ok(true) => {}
                Ok(false) => self.poller.change(&*conn, token(POST, index), true)?,
                Err(_) => return Ok(()), // its end is read next
            }
        }
        Ok(())
    }

    fn give_answers(&mut self) -> io::Result<()> {
        if self.backend.answers.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        while let Some(&(due, index)) = self.backend.answers.front()
            && due <= now
        {
            self.backend.answers.pop_front();
            self.answer(index, 1)?;
        }
        Ok(())
    }

    fn send_commands(&mut self) -> io::Result<()> {
        let Some(publisher) = &mut self.publisher else {
            return Ok(());
        };
        if publisher.commands.is_empty() || publisher.is_blocked {
            return Ok(());
        }
        if !publisher.conn.send(&publisher.commands)? {
            publisher.is_blocked = true;
            self.poller
                .change(&publisher.conn, token(PUBLISHER, 0), true)?;
        }
        publisher.commands.clear();
        Ok(())
    }

    fn attend_publisher(&mut self, readable: bool, writable: bool) -> io::Result<()> {
        let Some(publisher) = &mut self.publisher else {
            return Ok(());
        };
        if writable && publisher.conn.flush()? {
            publisher.is_blocked = false;
            self.poller
                .change(&publisher.conn, token(PUBLISHER, 0), false)?;
        }
        if readable {
            let length = publisher.conn.read(&mut self.buffer)?.ok_or_else(ended)?;
            let replies = &self.buffer[..length];
            if replies.first() == Some(&b'-') {
                let line = String::from_utf8_lossy(replies);
                return Err(Error::other(format!("redis: {}", line.trim())));
            }
        }
        Ok(())
    }
}

impl Device {
    /// Sends the request when the connection is there, or what was kept when there is room for it.
    fn make_room(
        &mut self,
        index: usize,
        shows_jwt: bool,
        group: Option<&str>,
        poller: &Poller,
    ) -> io::Result<()> {
        let is_empty = if self.stage == Stage::Dialing {
            self.stage = Stage::Asking;
            self.conn
                .send(upgrade(index, shows_jwt, group).as_bytes())?
        } else {
            self.conn.flush()?
        };
        if is_empty {
            poller.change(&self.conn, token(DEVICE, index), false)?;
        }
        Ok(())
    }

    fn answer_ping(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut pong = Vec::with_capacity(8);
        push_frame(&mut pong, PONG, payload, true);
        self.conn.send(&pong)?; // one that does not fit goes with the next frame
        Ok(())
    }
}

fn upgrade(index: usize, shows_jwt: bool, group: Option<&str>) -> String {
    let mut token = format!("dev{index}");
    if shows_jwt {
        token = jwt::token(&token, group);
    }
    format!(
        "GET /?token={token} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn is_seated(head: &[u8]) -> bool {
    let accepts = |line: &[u8]| line.windows(ACCEPT.len()).any(|w| w == ACCEPT.as_bytes());
    head.starts_with(b"HTTP/1.1 101 ") && accepts(head)
}

/// Where the body of the request at the front starts and ends; `None` while it is not whole.
pub(crate) fn request(bytes: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = request.parse(bytes).map_err(Error::other)? else {
        return Ok(None);
    };
    let length = request
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok())
        .unwrap_or(0);
    let end: usize = start + length;
    Ok((bytes.len() >= end).then_some((start, end)))
}

fn ended() -> Error {
    io::ErrorKind::UnexpectedEof.into()
}

fn token(kind: u64, index: usize) -> u64 {
    kind << 32 | index as u64
}

const DEVICE: u64 = 0;
const POST: u64 = 1;
const LISTENER: u64 = 2;
const PUBLISHER: u64 = 3;
/// The answer to every uplink.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_found_when_it_is_whole() {
        let bytes = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}POST";
        let end = bytes.len() - 4;
        assert_eq!(request(bytes).unwrap(), Some((end - 2, end)));
        assert_eq!(request(&bytes[..end - 1]).unwrap(), None);
        assert_eq!(request(&bytes[..20]).unwrap(), None);
        assert!(request(b"\x00").is_err());
    }
}
