//! Names in Redis, where Redis is, and what it pushes.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use redis::{Parser, PushInfo, Value};
use tokio::io::{AsyncRead, ReadBuf};

use super::{CANARY, choice, halves, text_with_canary};
use crate::{
    broker::redis::names::Names,
    config::{Config, Secret},
    error::ErrorKind,
    locks::Mutex,
    redis::{
        address::Topology,
        tap::{self, Listen, Tap},
    },
};

/// What is heard and what goes on do not depend on the pieces in which it comes, and every message is heard that redis-rs would have
/// found in all of it, or goes on.
pub fn redis_pushes(bytes: &[u8]) {
    let (choice, bytes) = choice(bytes);
    let (passed, heard) = tapped(bytes, usize::MAX);
    let in_pieces = tapped(bytes, usize::from(choice).max(1));
    assert_eq!((&passed, &heard), (&in_pieces.0, &in_pieces.1));
    let mut all = [heard, messages(&passed)].concat();
    for message in messages(bytes) {
        let at = all.iter().position(|other| *other == message);
        all.swap_remove(at.unwrap_or_else(|| panic!("{message:?} is lost")));
    }
}

type Messages = Vec<(Vec<u8>, Bytes)>;

#[derive(Default)]
struct Heard(Mutex<Messages>);

impl Listen for Heard {
    fn message(&self, channel: &[u8], payload: Bytes) {
        self.0.lock().push((channel.to_vec(), payload));
    }

    fn other(&self, _: PushInfo) {}
}

/// What redis-rs reads, up to the first that it cannot.
fn messages(mut bytes: &[u8]) -> Messages {
    let (heard, mut parser) = (Heard::default(), Parser::new());
    while let Ok(value) = parser.parse_value(&mut bytes) {
        if let Value::Push { kind, data } = value {
            tap::tell(&heard, PushInfo { kind, data });
        }
    }
    std::mem::take(&mut *heard.0.lock())
}

/// What goes on, and what is heard, of bytes that come so many at a time.
fn tapped(bytes: &[u8], piece: usize) -> (Vec<u8>, Messages) {
    let heard = Arc::new(Heard::default());
    let listener: Weak<Heard> = Arc::downgrade(&heard);
    let mut tap = Tap::new(Pieces(bytes, piece), listener);
    let mut cx = Context::from_waker(Waker::noop());
    let mut passed = Vec::new();
    loop {
        let mut buffer = [0; 64];
        let mut out = ReadBuf::new(&mut buffer);
        match Pin::new(&mut tap).poll_read(&mut cx, &mut out) {
            Poll::Ready(read) => read.expect("nothing fails here"),
            Poll::Pending => continue, // it gives way to others
        }
        if out.filled().is_empty() {
            break;
        }
        passed.extend(out.filled());
    }
    let heard = std::mem::take(&mut *heard.0.lock());
    (passed, heard)
}

struct Pieces<'a>(&'a [u8], usize);

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.0.len().min(self.1).min(out.remaining());
        let (now, later) = self.0.split_at(len);
        out.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

/// The channel of a device leads back to its id, and the pattern matches it as Redis does, and nobody else's.
pub fn channel_names(bytes: &[u8]) {
    let (prefix, rest) = halves(bytes);
    let (id, other) = halves(rest);
    let [prefix, id, other] =
        [prefix, id, other].map(|part| String::from_utf8_lossy(part).into_owned());
    let names = Names::new(&prefix, "node");
    let channel = names.channel(&id);
    assert_eq!(channel.strip_prefix(&names.client), Some(id.as_str()));
    let pattern = names.pattern();
    assert!(matches_glob(pattern.as_bytes(), channel.as_bytes()));
    let is_ours = other.starts_with(&names.client);
    assert_eq!(
        matches_glob(pattern.as_bytes(), other.as_bytes()),
        is_ours,
        "{pattern:?} {other:?}"
    );
    for name in [
        &names.clients,
        &names.owner,
        &names.nodes,
        &names.control,
        &names.probe,
    ] {
        assert!(
            !matches_glob(pattern.as_bytes(), name.as_bytes()),
            "{name:?}"
        );
    }
}

/// How Redis matches a channel with a pattern (`PSUBSCRIBE`), as its documentation tells: `*`, `?`, `[…]`, `\`.
fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => matches_glob(rest, text),
        (Some((b'*', rest)), Some((_, tail))) => {
            rest.is_empty() || matches_glob(rest, text) || matches_glob(pattern, tail)
        }
        (None, Some(_)) | (Some(_), None) => false,
        (Some((b'?', rest)), Some((_, tail))) => matches_glob(rest, tail),
        (Some((b'[', _)), Some(_)) => panic!("the pattern of a prefix has no set"),
        (Some((b'\\', rest)), Some((byte, tail))) => {
            let (literal, rest) = rest.split_first().expect("what is escaped");
            literal == byte && matches_glob(rest, tail)
        }
        (Some((literal, rest)), Some((byte, tail))) => literal == byte && matches_glob(rest, tail),
    }
}

/// A URL of Redis is read or refused, and what refuses it does not repeat a password.
pub fn redis_url(bytes: &[u8]) {
    let (choice, bytes) = choice(bytes);
    let text = text_with_canary(bytes);
    let url = match choice % 5 {
        0 => text,
        1 => format!("redis://{CANARY}:{CANARY}@{text}"),
        2 => format!("redis+sentinel://{CANARY}:{CANARY}@{text}"),
        3 => format!("redis+cluster://{CANARY}:{CANARY}@{text}"),
        _ => format!("redis://{text}"),
    };
    if url.starts_with("rediss://") {
        return; // reads the system's certificates each time
    }
    let config = Config::default().redis_url(Some(Secret::new(url)));
    match Topology::from_config(&config) {
        Ok(Topology::Direct(_)) => {}
        Ok(Topology::Sentinel {
            sentinels, service, ..
        }) => {
            assert!(!sentinels.is_empty() && !service.is_empty());
            assert!(
                sentinels
                    .iter()
                    .all(|(host, port)| !host.is_empty() && *port > 0)
            );
        }
        #[cfg(feature = "redis-cluster")]
        Ok(Topology::Cluster(nodes)) => {
            let mut seeds = nodes.seeds.iter();
            assert!(!nodes.seeds.is_empty());
            assert!(seeds.all(|(host, port)| !host.is_empty() && *port > 0));
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            let line = error.to_line();
            assert!(
                line.starts_with("FASTSOCK_REDIS_URL: ") && !line.contains('\n'),
                "{line}"
            );
            assert!(!line.contains(CANARY), "{line}");
        }
    }
}
