//! Hostile sockets of many kinds at once, on plain threads: what a stranger can do to a port.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Hostile sockets until told otherwise. Each kind has a thread and keeps some sockets open all the time.
#[derive(Debug)]
pub struct Storm {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

/// What one kind of hostile sockets came to.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The kind, in a few words.
    pub kind: &'static str,
    /// How often each fate came.
    pub fates: BTreeMap<Fate, u64>,
    /// The fates it may have.
    pub allowed: &'static [Fate],
}

/// How a hostile socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Answered with an HTTP status other than 101.
    Refused(u16),
    /// Closed with a close code.
    Closed(u16),
    /// Closed without a word.
    Dropped,
    /// Reset, as one is that goes on after it was told.
    Reset,
    /// It went by itself.
    Left,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "{status}"),
            Self::Closed(code) => write!(f, "close {code}"),
            Self::Dropped => f.write_str("dropped"),
            Self::Reset => f.write_str("reset"),
            Self::Left => f.write_str("left"),
        }
    }
}

impl Tally {
    /// The ends that it should not have had.
    pub fn surprises(&self) -> Vec<(Fate, u64)> {
        let fates = self.fates.iter().map(|(end, count)| (*end, *count));
        fates
            .filter(|(end, _)| *end != Fate::Left && !self.allowed.contains(end))
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:24}", self.kind)?;
        self.fates
            .iter()
            .try_for_each(|(end, count)| write!(f, "  {count} {end}"))
    }
}

impl Storm {
    /// Begins to attack a gateway. `greedy-0` to `greedy-7` are the names of those that read no downlinks.
    pub fn begin(addr: SocketAddr) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = KINDS.iter().map(|kind| {
            let is_over = Arc::clone(&is_over);
            thread::Builder::new()
                .name(kind.name.into())
                .spawn(move || {
                    // Strangers bring processors of their own; here they take what the others leave.
                    let _ = rustix::process::nice(19);
                    attack(addr, kind, &is_over)
                })
                .expect("a thread")
        });
        Self {
            threads: threads.collect(),
            is_over,
        }
    }

    /// Ends it: what is open then is closed at once.
    pub fn end(self) -> Vec<Tally> {
        self.is_over.store(true, Relaxed);
        let tallies = self.threads.into_iter().map(|thread| thread.join());
        tallies
            .map(|tally| tally.expect("a thread that ends"))
            .collect()
    }
}

/// One way to be a nuisance.
struct Kind {
    name: &'static str,
    /// Sockets open at once.
    at_once: usize,
    /// Between two things that one socket says.
    pace: Duration,
    /// Begins with a handshake, under a name made of this and a number; no downlink is read.
    seat: Option<&'static str>,
    reads: bool,
    /// What it says at its turns, counted from 0; `None`: that was all.
    says: fn(usize) -> Option<Vec<u8>>,
    then: Then,
    allowed: &'static [Fate],
}

/// What it does when all is said.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Waits for what comes.
    Wait,
    /// Closes its sending half.
    HalfClose,
    /// Resets the connection.
    Reset,
}

static KINDS: &[Kind] = &[
    Kind {
        name: "says nothing",
        at_once: 64,
        says: |_| None,
        allowed: &[Fate::Dropped, Fate::Reset],
        ..Kind::STRANGER
    },
    Kind {
        name: "slow head",
        at_once: 64,
        pace: Duration::from_millis(300),
        says: |turn| HEAD.as_bytes().get(turn).map(|byte| vec![*byte]),
        allowed: &[Fate::Dropped, Fate::Reset],
        ..Kind::STRANGER
    },
    Kind {
        name: "many fields",
        says: |turn| (turn == 0).then(|| format!("{HEAD}{}", "a: b\r\n".repeat(1000)).into_bytes()),
        allowed: &[Fate::Refused(431)],
        ..Kind::STRANGER
    },
    Kind {
        name: "long field",
        says: |turn| (turn < 8).then(|| [HEAD.as_bytes(), &[b'x'; 8192]].concat()),
        allowed: &[Fate::Refused(431), Fate::Refused(400)],
        ..Kind::STRANGER
    },
    Kind {
        name: "half a head, half closed",
        says: |turn| (turn == 0).then(|| HEAD[..40].into()),
        then: Then::HalfClose,
        allowed: &[Fate::Dropped],
        ..Kind::STRANGER
    },
    Kind {
        name: "pipelined GETs",
        says: |turn| (turn == 0).then(|| "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(50).into()),
        allowed: &[Fate::Refused(426)],
        ..Kind::STRANGER
    },
    Kind {
        name: "TLS to the plain port",
        says: |turn| {
            (turn == 0).then(|| [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 506]].concat())
        },
        allowed: &[Fate::Refused(400)],
        ..Kind::STRANGER
    },
    Kind {
        name: "resets",
        at_once: 32,
        says: |_| None,
        then: Then::Reset,
        allowed: &[],
        ..Kind::STRANGER
    },
    Kind {
        name: "resets after the 101",
        seat: Some("reset"),
        says: |turn| (turn == 0).then(|| frame(0x81, b"bye")),
        then: Then::Reset,
        allowed: &[],
        ..Kind::STRANGER
    },
    Kind {
        name: "half closed after the 101",
        seat: Some("half"),
        says: |_| None,
        then: Then::HalfClose,
        allowed: &[Fate::Dropped],
        ..Kind::STRANGER
    },
    Kind {
        name: "a byte at a time",
        at_once: 64,
        pace: Duration::from_millis(1000),
        seat: Some("slow"),
        says: |turn| frame(0x81, &[b'x'; 100]).get(turn).map(|byte| vec![*byte]),
        allowed: &[Fate::Dropped, Fate::Reset], // it answers no ping, and its next byte may come too late
        ..Kind::STRANGER
    },
    Kind {
        name: "pings, reads nothing",
        at_once: 8,
        seat: Some("pings"),
        reads: false,
        says: |_| Some(frame(0x89, &[b'p'; 125]).repeat(500)),
        allowed: &[Fate::Reset],
        ..Kind::STRANGER
    },
    Kind {
        name: "a message in crumbs",
        seat: Some("crumbs"),
        says: |turn| {
            Some(match turn {
                0 => frame(0x01, b"x"),
                _ => frame(0x00, b"x").repeat(4000),
            })
        },
        allowed: &[Fate::Closed(1009)],
        ..Kind::STRANGER
    },
    Kind {
        name: "claims 2^62 bytes",
        seat: Some("huge"),
        says: |turn| (turn == 0).then(|| [&[0x82, 0xff, 0x40][..], &[0; 11]].concat()),
        allowed: &[Fate::Closed(1009)],
        ..Kind::STRANGER
    },
    Kind {
        name: "claims all it may, waits",
        at_once: 64,
        seat: Some("claims"),
        says: |turn| {
            (turn == 0).then(|| [&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0; 5]].concat())
        },
        allowed: &[Fate::Dropped], // it answers no ping
        ..Kind::STRANGER
    },
    Kind {
        name: "never reads",
        at_once: 8,
        seat: Some("greedy"),
        reads: false,
        says: |turn| (turn < 150).then(Vec::new),
        then: Then::Reset,
        allowed: &[Fate::Reset],
        ..Kind::STRANGER
    },
    Kind {
        name: "bad UTF-8",
        seat: Some("utf8"),
        says: |turn| (turn == 0).then(|| frame(0x81, b"\xc3\x28")),
        allowed: &[Fate::Closed(1007)],
        ..Kind::STRANGER
    },
    Kind {
        name: "no mask",
        seat: Some("mask"),
        says: |turn| (turn == 0).then(|| vec![0x81, 1, b'x']),
        allowed: &[Fate::Closed(1002)],
        ..Kind::STRANGER
    },
    Kind {
        name: "reserved bits, opcodes",
        seat: Some("bits"),
        says: |turn| (turn == 0).then(|| frame(0xf3, b"x")),
        allowed: &[Fate::Closed(1002)],
        ..Kind::STRANGER
    },
    Kind {
        name: "one name for all",
        seat: Some("same"),
        says: |_| None,
        allowed: &[Fate::Closed(4509), Fate::Closed(4429), Fate::Refused(429)],
        ..Kind::STRANGER
    },
];

impl Kind {
    const STRANGER: Self = Self {
        name: "",
        at_once: 16,
        pace: Duration::from_millis(40),
        seat: None,
        reads: true,
        says: |_| None,
        then: Then::Wait,
        allowed: &[],
    };

    /// What a socket says first.
    fn greeting(&self, number: usize) -> Vec<u8> {
        let Some(name) = self.seat else {
            return Vec::new();
        };
        // The few that read nothing keep their names, so that they can be sent to.
        let token = match name {
            "same" => name.to_owned(),
            name => format!("{name}-{number}"),
        };
        format!("{HEAD}\r\n").replace("stranger", &token).into()
    }
}

/// One socket and how far it is.
struct Hostile {
    stream: TcpStream,
    begun: Instant,
    /// It got so little processor time that its head was late: it may be dropped for that, whatever it meant to do.
    is_late: bool,
    greeted: bool,
    turn: usize,
    due: Instant,
    unsent: Vec<u8>,
    received: Vec<u8>,
    has_said_all: bool,
}

fn attack(addr: SocketAddr, kind: &Kind, is_over: &AtomicBool) -> Tally {
    let mut tally = Tally {
        kind: kind.name,
        fates: BTreeMap::new(),
        allowed: kind.allowed,
    };
    let mut sockets: Vec<Option<Hostile>> = (0..kind.at_once).map(|_| None).collect();
    while !is_over.load(Relaxed) {
        for (number, place) in sockets.iter_mut().enumerate() {
            match place {
                None => *place = Hostile::connect(addr, kind, number).ok(),
                Some(hostile) => {
                    if let Some(end) = hostile.go_on(kind) {
                        *tally.fates.entry(end).or_default() += 1;
                        *place = None;
                    }
                }
            }
        }
        thread::sleep(TEMPO); // the tempo of the storm
    }
    let open = sockets.into_iter().flatten().count() as u64;
    *tally.fates.entry(Fate::Left).or_default() += open;
    tally
}

impl Hostile {
    fn connect(addr: SocketAddr, kind: &Kind, number: usize) -> io::Result<Self> {
        let begun = Instant::now();
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            begun,
            is_late: false,
            greeted: kind.seat.is_none(),
            turn: 0,
            due: Instant::now(),
            unsent: kind.greeting(number),
            received: Vec::new(),
            has_said_all: false,
        })
    }

    /// Reads, says what is due, and tells how it ended if it has.
    fn go_on(&mut self, kind: &Kind) -> Option<Fate> {
        if (kind.reads || !self.greeted)
            && let Some(fate) = self.read()
        {
            let is_own_doing = fate == Fate::Dropped && !self.greeted && self.is_late;
            return Some(if is_own_doing { Fate::Left } else { fate });
        }
        if !self.greeted && self.unsent.is_empty() && self.received.ends_with(b"\r\n\r\n") {
            self.greeted = true;
            self.received.clear();
        }
        if self.greeted
            && self.unsent.is_empty()
            && !self.has_said_all
            && Instant::now() >= self.due
        {
            self.due = Instant::now() + kind.pace;
            match (kind.says)(self.turn) {
                Some(bytes) => self.unsent = bytes,
                None => {
                    self.has_said_all = true;
                    match kind.then {
                        Then::Wait => {}
                        Then::HalfClose => drop(self.stream.shutdown(Shutdown::Write)),
                        Then::Reset => {
                            let linger = socket2::SockRef::from(&self.stream)
                                .set_linger(Some(Duration::ZERO));
                            return linger.is_ok().then_some(Fate::Left);
                        }
                    }
                }
            }
            self.turn += 1;
        }
        match self.stream.write(&self.unsent) {
            Ok(written) => {
                self.unsent.drain(..written);
                self.is_late |= !self.greeted && self.begun.elapsed() > LATE;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // What it was told may still be there to be read.
            Err(_) if kind.reads => self.unsent.clear(),
            Err(_) => return Some(Fate::Reset),
        }
        None
    }

    fn read(&mut self) -> Option<Fate> {
        let mut some = [0; 4096];
        loop {
            match self.stream.read(&mut some) {
                Ok(0) => return Some(self.told().unwrap_or(Fate::Dropped)),
                Ok(count) => {
                    // Of a flood of pongs nobody needs more than the end.
                    self.received.extend(&some[..count]);
                    if self.told().is_some() {
                        self.has_said_all = true;
                        self.unsent.clear();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => return Some(self.told().unwrap_or(Fate::Reset)),
            }
        }
    }

    /// What it was told: a status, or a close code behind whatever came before.
    fn told(&self) -> Option<Fate> {
        let received = match self.received.strip_prefix(b"HTTP/1.1 ") {
            Some(rest) => {
                let status = std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()?;
                if status != 101 {
                    return Some(Fate::Refused(status));
                }
                let head = self
                    .received
                    .windows(4)
                    .position(|bytes| bytes == b"\r\n\r\n")?;
                &self.received[head + 4..]
            }
            None => &self.received,
        };
        let mut at = 0;
        while let Some(&[opcode, length]) = received.get(at..at + 2) {
            if opcode == 0x88 {
                let code = received.get(at + 2..at + 4)?;
                return Some(Fate::Closed(u16::from_be_bytes([code[0], code[1]])));
            }
            at += 2 + usize::from(length);
        }
        None
    }
}

/// Half of what a handshake may take in `tests/attack.rs`.
const LATE: Duration = Duration::from_secs(1);

/// A short masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0]; // a mask of zeros
    bytes.extend(payload);
    bytes
}

/// A whole head but for its last line.
const HEAD: &str = "GET /?token=stranger HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// Between two looks at all sockets of a kind.
const TEMPO: Duration = Duration::from_millis(10);
