//! The cases, numbered as in the Autobahn suite where it has them. Section 11 is ours.

mod closing;
mod frames;
mod sizes;
mod utf8;

use std::fmt;

use support::{Frame, opcode};

use self::Writes::{Bytes, Frames, One};

/// One case: what is sent, and what must come of it.
pub(crate) struct Case {
    /// The heading it stands under.
    pub(crate) section: &'static str,
    /// Its number; also the client id it is played under.
    pub(crate) id: String,
    /// What is sent, in words.
    pub(crate) what: String,
    /// What is sent.
    frames: Vec<Vec<u8>>,
    writes: Writes,
    /// What must come of it.
    pub(crate) expected: Outcome,
}

/// How the frames are cut into writes.
#[derive(Clone, Copy)]
pub(crate) enum Writes {
    One,
    Frames,
    Bytes(usize),
}

/// What a case came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What the backend got.
    pub(crate) uplinks: Vec<Said>,
    /// Payloads of the pongs, in order.
    pub(crate) pongs: Vec<Vec<u8>>,
    /// The session afterwards.
    pub(crate) ending: Ending,
}

/// One message as the backend got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A TEXT message.
    Text(String),
    /// A BINARY message.
    Binary(Vec<u8>),
}

/// The session after a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Still open.
    Open,
    /// Closed with this code, or with a close frame without one.
    Closed(Option<u16>),
    /// Closed without a close frame.
    Cut,
}

/// All cases in the order of the report.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    frames::framing(&mut cases);
    frames::pings(&mut cases);
    frames::reserved_bits(&mut cases);
    frames::opcodes(&mut cases);
    frames::fragmentation(&mut cases);
    utf8::utf8(&mut cases);
    closing::closing(&mut cases);
    sizes::sizes(&mut cases);
    sizes::fragments_of_a_sender(&mut cases);
    sizes::beyond(&mut cases);
    cases.all
}

/// The cases so far.
#[derive(Default)]
pub(crate) struct Cases {
    section: &'static str,
    all: Vec<Case>,
}

impl Cases {
    pub(crate) fn section(&mut self, section: &'static str) {
        self.section = section;
    }

    /// Begins a case that sends nothing and leaves the session open.
    pub(crate) fn add(&mut self, id: impl Into<String>, what: impl Into<String>) -> &mut Case {
        self.all.push(Case {
            section: self.section,
            id: id.into(),
            what: what.into(),
            frames: Vec::new(),
            writes: One,
            expected: Outcome {
                uplinks: Vec::new(),
                pongs: Vec::new(),
                ending: Ending::Open,
            },
        });
        self.all.last_mut().expect("just pushed")
    }
}

impl Case {
    /// What is written, write by write.
    pub(crate) fn writes(&self) -> Vec<Vec<u8>> {
        let whole = self.frames.concat();
        match self.writes {
            One => vec![whole],
            Frames => self.frames.clone(),
            Bytes(n) => whole.chunks(n).map(<[u8]>::to_vec).collect(),
        }
    }

    pub(crate) fn send(&mut self, frames: impl IntoIterator<Item = Frame>) -> &mut Self {
        self.frames = frames.into_iter().map(|frame| frame.encode()).collect();
        self
    }

    pub(crate) fn written(&mut self, writes: Writes) -> &mut Self {
        self.writes = writes;
        self.what += &match writes {
            One => String::new(),
            Frames => ", frame by frame".into(),
            Bytes(1) => ", byte by byte".into(),
            Bytes(n) => format!(", in writes of {n}"),
        };
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.expected.uplinks.push(Said::Text(text.into()));
        self
    }

    pub(crate) fn binary(&mut self, bytes: Vec<u8>) -> &mut Self {
        self.expected.uplinks.push(Said::Binary(bytes));
        self
    }

    pub(crate) fn pong(&mut self, payload: impl Into<Vec<u8>>) -> &mut Self {
        self.expected.pongs.push(payload.into());
        self
    }

    pub(crate) fn closed(&mut self, code: impl Into<Option<u16>>) -> &mut Self {
        self.expected.ending = Ending::Closed(code.into());
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.uplinks[..] {
            [] => {}
            [Said::Text(text)] => write!(f, "text of {} B; ", text.len())?,
            [Said::Binary(bytes)] => write!(f, "binary of {} B; ", bytes.len())?,
            many => write!(f, "{} messages; ", many.len())?,
        }
        match &self.pongs[..] {
            [] => {}
            [pong] => write!(f, "pong of {} B; ", pong.len())?,
            many => write!(f, "{} pongs; ", many.len())?,
        }
        match self.ending {
            Ending::Open => f.write_str("open"),
            Ending::Closed(Some(code)) => write!(f, "{code}"),
            Ending::Closed(None) => f.write_str("closed without a code"),
            Ending::Cut => f.write_str("cut"),
        }
    }
}

pub(crate) fn hello() -> Frame {
    Frame::text(HELLO)
}

/// A message in fragments of so many bytes.
pub(crate) fn fragments(opcode: u8, message: &[u8], size: usize) -> Vec<Frame> {
    let mut frames: Vec<_> = message
        .chunks(size)
        .map(|chunk| Frame::new(opcode::CONTINUATION, chunk).unfinished())
        .collect();
    if let Some(first) = frames.first_mut() {
        first.opcode = opcode;
    }
    if let Some(last) = frames.last_mut() {
        last.is_final = true;
    }
    frames
}

pub(crate) fn text_fragments(message: &[u8], size: usize) -> Vec<Frame> {
    fragments(opcode::TEXT, message, size)
}

/// What most cases say when it does not matter what.
pub(crate) const HELLO: &str = "Hello";

/// The longest message, and the unit of the bigger ones.
pub(crate) const MIB: usize = 1 << 20;
