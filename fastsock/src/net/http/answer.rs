//! The answer to a request of HTTP/1.1 as it comes over the wire: its head, and where its body ends. No I/O.

use std::mem::MaybeUninit;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use httparse::{Header, ParserConfig, Response, Status};

/// What the bytes at the front of a connection are.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A part of a head.
    Partial,
    /// An interim answer of so many bytes; the answer itself comes after it (RFC 9110 §15.2).
    Interim(usize),
    Head(Head),
    /// A head that breaks the rules, and the status where that can be read.
    Unreadable(&'static str, Option<StatusCode>),
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) status: StatusCode,
    /// Those that someone reads; of a success without a body to read none.
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// Whether the other side keeps the connection.
    pub(super) is_kept: bool,
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// All until the other side closes.
    ToClose,
    /// The size of a chunk, so many bytes of it, and the end of its line; after the last one, lines up to an empty one.
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// A body that breaks the rules.
#[derive(Debug)]
pub(super) struct Malformed;

impl Parsed {
    /// Reads the head at the beginning of these bytes; its headers too where `has_reader` says so of its status.
    pub(super) fn of(bytes: &[u8], has_reader: impl Fn(StatusCode) -> bool) -> Self {
        let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MOST_FIELDS];
        let mut response = Response::new(&mut []);
        let mut parser = ParserConfig::default();
        parser.ignore_invalid_headers_in_responses(true);
        let parsed = parser.parse_response_with_uninit_headers(&mut response, bytes, &mut fields);
        let length = match parsed {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Self::Partial,
            Err(_) => return Self::unreadable("invalid HTTP head", bytes),
        };
        let status = response
            .code
            .and_then(|code| StatusCode::from_u16(code).ok());
        let Some(status) = status else {
            return Self::Unreadable("invalid HTTP status", None);
        };
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            return Self::Interim(length);
        }
        let is_http10 = response.version == Some(0);
        let mut framing = Framing::new(is_http10);
        for field in response.headers.iter() {
            if framing.note(field).is_none() {
                return Self::Unreadable("invalid length of an HTTP body", Some(status));
            }
        }
        let headers = match has_reader(status) {
            true => headers(response.headers),
            false => HeaderMap::new(),
        };
        Self::Head(Head {
            length,
            status,
            headers,
            body: framing.body(status),
            is_kept: framing.is_kept(status),
        })
    }

    /// What to make of a head that cannot be parsed, or is too long.
    pub(super) fn unreadable(why: &'static str, bytes: &[u8]) -> Self {
        let status = status_of(bytes).filter(|status| !status.is_informational());
        Self::Unreadable(why, status)
    }
}

impl Body {
    const NONE: Self = Self::Length(0);

    pub(super) fn is_over(self) -> bool {
        self == Self::NONE
    }

    /// The least that is still to come.
    pub(super) fn least(self) -> u64 {
        match self {
            Self::Length(left) | Self::Chunk(left) => left,
            _ => 0,
        }
    }

    /// Takes a piece from the front of what has come: how many bytes it is, and whether they are data. `None`: there is no piece
    /// yet, or none any more.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<(usize, bool)>, Malformed> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match self {
            Self::Length(0) => Ok(None),
            Self::Length(left) => Ok(Some((take_of(left, bytes), true))),
            Self::ToClose => Ok(Some((bytes.len(), true))),
            Self::ChunkSize => match httparse::parse_chunk_size(bytes) {
                Ok(Status::Complete((length, size))) => {
                    *self = match size {
                        0 => Self::Trailers,
                        _ => Self::Chunk(size),
                    };
                    Ok(Some((length, false)))
                }
                Ok(Status::Partial) => Ok(None),
                Err(_) => Err(Malformed),
            },
            Self::Chunk(left) => {
                let taken = take_of(left, bytes);
                if *left == 0 {
                    *self = Self::ChunkEnd;
                }
                Ok(Some((taken, true)))
            }
            Self::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    *self = Self::ChunkSize;
                    Ok(Some((2, false)))
                }
                [b'\r'] => Ok(None),
                _ => Err(Malformed),
            },
            Self::Trailers => {
                let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                    return Ok(None);
                };
                if matches!(bytes[..end], [] | [b'\r']) {
                    *self = Self::NONE;
                }
                Ok(Some((end + 1, false)))
            }
        }
    }
}

/// What the headers say of the body and the connection.
struct Framing {
    is_http10: bool,
    length: Option<u64>,
    /// The last coding is `chunked`, or another.
    is_chunked: Option<bool>,
    closes: bool,
    keeps: bool,
}

impl Framing {
    fn new(is_http10: bool) -> Self {
        Self {
            is_http10,
            length: None,
            is_chunked: None,
            closes: false,
            keeps: false,
        }
    }

    /// `None`: a length that is none, or two of them, or a coding that HTTP/1.0 does not know.
    fn note(&mut self, field: &Header<'_>) -> Option<()> {
        // By its length first: most fields are none of these.
        match field.name.len() {
            10 if field.name.eq_ignore_ascii_case("connection") => {
                for option in list(field.value) {
                    self.closes |= option.eq_ignore_ascii_case(b"close");
                    self.keeps |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if is_content_length(field.name) => {
                for length in list(field.value) {
                    let length = length_of(length)?;
                    if self.length.replace(length).is_some_and(|l| l != length) {
                        return None;
                    }
                }
                self.length?;
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                if self.is_http10 {
                    return None;
                }
                let last = list(field.value).last();
                self.is_chunked = last.map(|last| last.eq_ignore_ascii_case(b"chunked"));
            }
            _ => {}
        }
        Some(())
    }

    /// RFC 9112 §6.3.
    fn body(&self, status: StatusCode) -> Body {
        match (status.as_u16(), self.is_chunked, self.length) {
            (101 | 204 | 304, ..) => Body::NONE,
            (_, Some(true), _) => Body::ChunkSize,
            (_, None, Some(length)) => Body::Length(length),
            _ => Body::ToClose,
        }
    }

    fn is_kept(&self, status: StatusCode) -> bool {
        let keeps = match self.is_http10 {
            true => self.keeps,
            false => !self.closes,
        };
        // With both, one of the two sides has it wrong where the body ends.
        let is_doubtful = self.is_chunked.is_some() && self.length.is_some();
        keeps && !is_doubtful && status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Nearly all answers have it in one of two spellings.
fn is_content_length(name: &str) -> bool {
    matches!(name, "Content-Length" | "content-length")
        || name.eq_ignore_ascii_case("content-length")
}

/// The elements of a list of HTTP.
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let elements = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty())
}

fn length_of(digits: &[u8]) -> Option<u64> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let digits = is_number.then_some(digits)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn headers(fields: &[Header<'_>]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn take_of(left: &mut u64, bytes: &[u8]) -> usize {
    let taken = (bytes.len() as u64).min(*left);
    *left -= taken;
    taken as usize
}

/// The status in the first line, which may come after empty ones.
fn status_of(bytes: &[u8]) -> Option<StatusCode> {
    let begin = bytes
        .iter()
        .position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let rest = bytes[begin..].strip_prefix(b"HTTP/1.")?;
    let digits = rest.get(2..5).filter(|_| rest[1] == b' ')?;
    StatusCode::from_bytes(digits).ok()
}

/// Of a head with more the status counts, and nothing else.
const MOST_FIELDS: usize = 100;
