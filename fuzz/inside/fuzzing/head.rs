//! What a stranger says first.

use std::net::SocketAddr;

use super::choice;
use crate::{
    pure::handshake::{self, Extra, Head, HeadLimits, Upgrade},
    types::Refusal,
};

/// A request head: one that is accepted has exactly the fields that a plain reading finds, its answer is one 101 without
/// anything smuggled in, a refusal is one whole answer, and more bytes after a head change nothing.
pub fn request_head(bytes: &[u8]) {
    let (choice, bytes) = choice(bytes);
    let limits = HeadLimits {
        bytes: 256 << (choice & 3),
        headers: 8 << (choice >> 2 & 3),
        is_strict: choice >> 4 & 1 == 1,
    };
    let parse = |bytes: &[u8]| {
        handshake::parse(bytes, &limits, SocketAddr::from(([127, 0, 0, 1], 1)).into())
    };
    match parse(bytes) {
        Head::Partial => assert!(bytes.len() < limits.bytes),
        Head::Upgrade(upgrade, length) => {
            assert!(length <= limits.bytes && length <= bytes.len());
            has_the_fields(&upgrade, &bytes[..length], &limits);
            is_a_101(&upgrade);
            assert!(matches!(parse(&bytes[..length - 1]), Head::Partial));
            assert!(matches!(parse(&bytes[..length]), Head::Upgrade(_, same) if same == length));
        }
        Head::Refused(refusal, extra) => is_one_answer(&refusal, extra),
    }
}

/// The token of a request target is what a form holds.
pub fn token(bytes: &[u8]) {
    let target = String::from_utf8_lossy(bytes);
    let expected = [
        target.replacen('/', "", 1).trim_start_matches_once('?'),
        query_of(&target),
    ]
    .iter()
    .find_map(|form| token_of_form(form.as_bytes()))
    .filter(|token| !token.is_empty());
    assert_eq!(handshake::token_of(&target), expected, "{target:?}");
}

/// `str::trim_start_matches`, but once.
trait TrimOnce {
    fn trim_start_matches_once(&self, first: char) -> String;
}

impl TrimOnce for String {
    fn trim_start_matches_once(&self, first: char) -> String {
        self.strip_prefix(first).unwrap_or(self).to_owned()
    }
}

fn query_of(target: &str) -> String {
    target
        .split_once('?')
        .map_or(String::new(), |(_, query)| query.to_owned())
}

/// The first value of the name `token`, decoded as the URL standard has it for forms.
fn token_of_form(form: &[u8]) -> Option<String> {
    form.split(|byte| *byte == b'&').find_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        (!pair.is_empty() && form_decoded(name) == "token").then(|| form_decoded(value))
    })
}

fn form_decoded(text: &[u8]) -> String {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| text[at] == b'%');
        let hex = hex.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(if text[at] == b'+' { b' ' } else { text[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Reads the head again, line by line.
fn has_the_fields(upgrade: &Upgrade, head: &[u8], limits: &HeadLimits) {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .skip_while(|line| line.is_empty());
    let first = String::from_utf8_lossy(lines.next().expect("a request line"));
    let words: Vec<_> = first.split(' ').collect();
    assert_eq!((words.len(), words[0]), (3, "GET"));
    assert!(words[2] == "HTTP/1.1" || (words[2] == "HTTP/1.0" && !limits.is_strict));
    let request = &upgrade.request;
    assert_eq!(request.target, words[1]);

    let fields: Vec<_> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let at = line.iter().position(|byte| *byte == b':').expect("a colon");
            let name = String::from_utf8_lossy(&line[..at]).to_ascii_lowercase();
            let value = String::from_utf8_lossy(&line[at + 1..]);
            (name, value.trim_matches([' ', '\t']).to_owned())
        })
        .collect();
    assert_eq!(request.headers, fields);
    assert!(fields.len() <= limits.headers);
    let count = |only: &str| fields.iter().filter(|(name, _)| name == only).count();
    assert!(count("host") == 1 || (count("host") == 0 && !limits.is_strict));
    for only in ["sec-websocket-key", "sec-websocket-version"] {
        assert_eq!(count(only), 1);
    }
    let shown = &request.credentials;
    assert!(shown.token.as_ref().is_none_or(|token| !token.is_empty()));
    assert!(shown.bearer.as_ref().is_none_or(|token| !token.is_empty()));
}

fn is_a_101(upgrade: &Upgrade) {
    let answer = upgrade.answer();
    let mut fields = [httparse::EMPTY_HEADER; 8];
    let mut read = httparse::Response::new(&mut fields);
    let length = read.parse(&answer).expect("an answer");
    assert_eq!(length, httparse::Status::Complete(answer.len()));
    assert_eq!(read.code, Some(101));
    let names: Vec<_> = read.headers.iter().map(|field| field.name).collect();
    let promised = [
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Protocol",
    ];
    assert!(names == promised || names == promised[..3], "{names:?}");
    if let Some(protocol) = read.headers.get(3) {
        assert!(!protocol.value.starts_with(b"fastsock-token."));
    }
}

fn is_one_answer(refusal: &Refusal, extra: Extra) {
    let answer = handshake::refusal(refusal, extra);
    let mut fields = [httparse::EMPTY_HEADER; 8];
    let mut read = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = read.parse(&answer) else {
        panic!("not an answer: {answer:?}");
    };
    assert_eq!(read.code, Some(refusal.status));
    let field = |name: &str| read.headers.iter().find(|field| field.name == name);
    assert_eq!(field("Connection").map(|f| f.value), Some(&b"close"[..]));
    let said = field("Content-Length").expect("a length").value;
    let body = answer.len() - head;
    assert!(extra.without_body && body == 0 || said == body.to_string().as_bytes());
}
