//! The least that could do the job: one thread, no limits, no time-outs, no heartbeat, no retries, no log. What it
//! costs is the ceiling for everything that does the job properly.

use std::{
    collections::{HashMap, VecDeque},
    env,
    io::{self, Error, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    poller::{Conn, Poller, accept_all, listen},
    wire::{
        ACCEPT, CLOSE, Head, PING, TEXT, head_end, push_command, push_decimal, push_frame, unmask,
    },
};

/// Serves until it is killed. With `echoes`, devices get back what they send and there is nothing else.
pub(crate) fn serve(echoes: bool) -> io::Result<()> {
    let mut bare = Bare::new(echoes)?;
    loop {
        bare.turn()?;
    }
}

struct Bare {
    poller: Poller,
    listener: TcpListener,
    devices: Vec<Option<Device>>,
    seats: HashMap<Vec<u8>, usize>,
    redis: Option<Redis>,
    remote: Option<Remote>,
    buffer: Vec<u8>,
    frame: Vec<u8>,
}

struct Device {
    conn: Conn,
    /// Empty until the device is seated.
    id: Vec<u8>,
}

/// One link that subscribes and one for everything else.
struct Redis {
    subscriber: Conn,
    commander: Conn,
    commands: Vec<u8>,
    prefix: String,
}

struct Remote {
    addr: SocketAddr,
    head: String,
    conns: Vec<Option<Conn>>,
    idle: Vec<usize>,
    waiting: VecDeque<Vec<u8>>,
}

impl Bare {
    fn new(echoes: bool) -> io::Result<Self> {
        let poller = Poller::new()?;
        let port = number("WEBSOCKET_PORT").unwrap_or(3000);
        let listener = listen((Ipv4Addr::UNSPECIFIED, port).into())?;
        poller.add(&listener, token(LISTENER, 0), false)?;
        let redis = if echoes {
            None
        } else {
            Some(Redis::new(&poller)?)
        };
        let remote = if echoes { None } else { Remote::new() };
        Ok(Self {
            poller,
            listener,
            devices: Vec::new(),
            seats: HashMap::new(),
            redis,
            remote,
            buffer: Vec::new(),
            frame: Vec::new(),
        })
    }

    fn turn(&mut self) -> io::Result<()> {
        for n in 0..self.poller.wait(Duration::from_secs(60))? {
            let (token, readable, writable) = self.poller.ready(n);
            let index = (token & 0xffff_ffff) as usize;
            match token >> 32 {
                LISTENER => self.accept()?,
                DEVICE => self.attend_device(index, readable, writable),
                POST => self.attend_post(index, readable, writable)?,
                SUBSCRIBER => self.read_downlinks()?,
                _ => self.read_replies()?,
            }
        }
        if let Some(redis) = &mut self.redis
            && !redis.commands.is_empty()
        {
            redis.commander.send(&redis.commands)?;
            redis.commands.clear();
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        let Self {
            listener,
            devices,
            poller,
            ..
        } = self;
        accept_all(listener, |conn| {
            poller.add(&conn, token(DEVICE, devices.len()), false)?;
            let id = Vec::new();
            devices.push(Some(Device { conn, id }));
            Ok(())
        })
    }

    fn attend_device(&mut self, index: usize, readable: bool, writable: bool) {
        let Some(device) = self.devices[index].as_mut() else {
            return;
        };
        let mut is_alive = true;
        if writable {
            is_alive = device.conn.flush().is_ok();
            let _ = self
                .poller
                .change(&device.conn, token(DEVICE, index), false);
        }
        if readable && is_alive {
            is_alive = self.read_device(index).is_ok();
        }
        if !is_alive && let Some(device) = self.devices[index].take() {
            self.unseat(&device.id);
        }
    }

    fn unseat(&mut self, id: &[u8]) {
        self.seats.remove(id);
        if let Some(redis) = &mut self.redis {
            let hash = format!("{}:clients", redis.prefix);
            push_command(&mut redis.commands, &[b"HDEL", hash.as_bytes(), id]);
        }
    }

    fn read_device(&mut self, index: usize) -> io::Result<()> {
        let ended = || Error::from(ErrorKind::UnexpectedEof);
        let Self {
            devices,
            buffer,
            frame,
            seats,
            redis,
            remote,
            poller,
            ..
        } = self;
        let device = devices[index].as_mut().ok_or_else(ended)?;
        let length = device.conn.read(buffer)?.ok_or_else(ended)?;
        let mut used = 0;
        if device.id.is_empty() {
            let Some(end) = head_end(&buffer[..length]) else {
                device.conn.keep(&buffer[..length]);
                return Ok(());
            };
            device.id = client_id(&buffer[..end]).ok_or_else(ended)?;
            seats.insert(device.id.clone(), index);
            device.conn.send(switching().as_bytes())?;
            note_presence(redis, &device.id);
            used = end;
        }
        while let Some(head) = Head::read(&buffer[used..length]) {
            let payload = &mut buffer[used + head.payload.0..used + head.payload.1];
            unmask(payload, head.mask.unwrap_or_default());
            used += head.payload.1;
            match (head.opcode, &mut *remote) {
                (CLOSE, _) => return Err(ended()),
                (PING.., _) => {}
                (_, Some(remote)) => {
                    note_presence(redis, &device.id);
                    remote.post(&device.id, payload, poller)?;
                }
                (_, None) => {
                    frame.clear();
                    push_frame(frame, TEXT, payload, false);
                    if !device.conn.send(frame)? {
                        poller.change(&device.conn, token(DEVICE, index), true)?;
                    }
                }
            }
        }
        device.conn.keep(&buffer[used..length]);
        Ok(())
    }

    fn read_downlinks(&mut self) -> io::Result<()> {
        let Self {
            devices,
            buffer,
            frame,
            seats,
            redis,
            poller,
            ..
        } = self;
        let Some(redis) = redis else { return Ok(()) };
        let prefix_bytes = redis.prefix.len() + ":client:".len();
        let Some(length) = redis.subscriber.read(buffer)? else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        let mut used = 0;
        while let Some((message, taken)) = published(&buffer[used..length]) {
            used += taken;
            let Some((channel, payload)) = message else {
                continue;
            };
            let seat = channel.get(prefix_bytes..).and_then(|id| seats.get(id));
            let Some(index) = seat.copied() else { continue };
            let Some(device) = devices[index].as_mut() else {
                continue;
            };
            frame.clear();
            push_frame(frame, TEXT, payload, false);
            if matches!(device.conn.send(frame), Ok(false)) {
                poller.change(&device.conn, token(DEVICE, index), true)?;
            }
        }
        redis.subscriber.keep(&buffer[used..length]);
        Ok(())
    }

    fn read_replies(&mut self) -> io::Result<()> {
        if let Some(redis) = &mut self.redis {
            redis.commander.read(&mut self.buffer)?; // nobody waits for them
        }
        Ok(())
    }

    fn attend_post(&mut self, index: usize, readable: bool, writable: bool) -> io::Result<()> {
        let Some(remote) = &mut self.remote else {
            return Ok(());
        };
        let Some(conn) = remote.conns[index].as_mut() else {
            return Ok(());
        };
        if writable && conn.flush()? {
            self.poller.change(&*conn, token(POST, index), false)?;
        }
        if !readable {
            return Ok(());
        }
        let Some(length) = conn.read(&mut self.buffer)? else {
            remote.conns[index] = None;
            return Ok(());
        };
        // The answer of this bench's backend: a head and no body.
        if head_end(&self.buffer[..length]).is_none() {
            conn.keep(&self.buffer[..length]);
        } else if let Some(request) = remote.waiting.pop_front() {
            conn.send(&request)?;
        } else {
            remote.idle.push(index);
        }
        Ok(())
    }
}

impl Redis {
    fn new(poller: &Poller) -> io::Result<Self> {
        let host = env::var("REDIS_HOST").unwrap_or_else(|_| "127.0.0.1".into());
        let host: Ipv4Addr = host.parse().map_err(Error::other)?;
        let addr = (host, number("REDIS_PORT").unwrap_or(6379)).into();
        let prefix = env::var("REDIS_PREFIX").unwrap_or_else(|_| "fastsock".into());
        let mut subscriber = Conn::dial(addr)?;
        let commander = Conn::dial(addr)?;
        poller.add(&subscriber, token(SUBSCRIBER, 0), false)?;
        poller.add(&commander, token(COMMANDER, 0), false)?;
        let mut subscribe = Vec::new();
        let pattern = format!("{prefix}:client:*");
        push_command(&mut subscribe, &[b"PSUBSCRIBE", pattern.as_bytes()]);
        subscriber.send(&subscribe)?; // connecting to loopback is done by now
        Ok(Self {
            subscriber,
            commander,
            commands: Vec::new(),
            prefix,
        })
    }
}

impl Remote {
    fn new() -> Option<Self> {
        let url = env::var("REMOTE_URL").ok()?;
        let (authority, path) = url.strip_prefix("http://")?.split_once('/')?;
        Some(Self {
            addr: authority.parse().ok()?,
            head: format!(
                "POST /{path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
                 Accept: application/json, text/plain, */*\r\nContent-Length: "
            ),
            conns: Vec::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
        })
    }

    fn post(&mut self, id: &[u8], payload: &[u8], poller: &Poller) -> io::Result<()> {
        let around = br#"{"client_id":"","data":""}"#.len();
        let mut request = Vec::with_capacity(512);
        request.extend(self.head.as_bytes());
        push_decimal(&mut request, (around + id.len() + payload.len()) as u64);
        request.extend(b"\r\n\r\n{\"client_id\":\"");
        request.extend(id);
        request.extend(b"\",\"data\":\"");
        request.extend(payload); // the bench sends nothing that JSON would escape
        request.extend(b"\"}");
        match self.idle.pop() {
            Some(index) => {
                if let Some(conn) = self.conns[index].as_mut() {
                    conn.send(&request)?;
                }
            }
            None if self.conns.len() < POSTS => {
                let mut conn = Conn::dial(self.addr)?;
                poller.add(&conn, token(POST, self.conns.len()), true)?;
                conn.send(&request)?;
                self.conns.push(Some(conn));
            }
            None => self.waiting.push_back(request),
        }
        Ok(())
    }
}

fn note_presence(redis: &mut Option<Redis>, id: &[u8]) {
    let Some(redis) = redis else { return };
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis().to_string();
    let hash = format!("{}:clients", redis.prefix);
    push_command(
        &mut redis.commands,
        &[b"HSET", hash.as_bytes(), id, ms.as_bytes()],
    );
}

fn client_id(head: &[u8]) -> Option<Vec<u8>> {
    let at = head.windows(6).position(|w| w == b"token=")? + 6;
    let length = head[at..].iter().position(|b| *b == b' ' || *b == b'&')?;
    Some(head[at..at + length].to_vec())
}

/// The answer that makes a connection a WebSocket.
pub(crate) fn switching() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
}

/// One reply of a subscribed link: channel and payload if it is a message, and the bytes it took.
#[expect(clippy::type_complexity, reason = "read at its one call")]
fn published(bytes: &[u8]) -> Option<(Option<(&[u8], &[u8])>, usize)> {
    let (count, mut used) = sized(bytes, b'*')?;
    let mut words = [&bytes[..0]; 4];
    for n in 0..count {
        if bytes.get(used)? == &b':' {
            used += line(&bytes[used..])?;
            continue;
        }
        let (length, head) = sized(&bytes[used..], b'$')?;
        let start = used + head;
        used = start + length + 2;
        *words.get_mut(n)? = bytes.get(start..used)?.get(..length)?;
    }
    let message = (words[0] == b"pmessage").then_some((words[2], words[3]));
    Some((message, used))
}

/// The number behind a type byte, and the bytes of its line.
fn sized(bytes: &[u8], kind: u8) -> Option<(usize, usize)> {
    let length = line(bytes)?;
    let digits = bytes.strip_prefix(&[kind])?.get(..length - 3)?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, length))
}

fn line(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|b| *b == b'\n').map(|at| at + 1)
}

fn number(name: &str) -> Option<u16> {
    env::var(name).ok()?.parse().ok()
}

fn token(kind: u64, index: usize) -> u64 {
    kind << 32 | index as u64
}

const DEVICE: u64 = 0;
const POST: u64 = 1;
const LISTENER: u64 = 2;
const SUBSCRIBER: u64 = 3;
const COMMANDER: u64 = 4;
/// POSTs at once.
const POSTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_taken_apart() {
        let confirmation = b"*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n";
        assert_eq!(published(confirmation), Some((None, confirmation.len())));
        let message = b"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$3\r\na:b\r\n$2\r\nhi\r\n*4";
        let end = message.len() - 2;
        let expected = Some((Some((&b"a:b"[..], &b"hi"[..])), end));
        assert_eq!(published(message), expected);
        assert_eq!(published(&message[..end - 1]), None);
    }

    #[test]
    fn the_token_ends_at_the_blank() {
        let head = b"GET /?token=dev7 HTTP/1.1\r\n\r\n";
        assert_eq!(client_id(head), Some(b"dev7".to_vec()));
    }
}
