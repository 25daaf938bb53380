//! What is fed with bytes of strangers, one function a target: each takes any bytes and panics when a promise is broken.
//!
//! For the targets in `fuzz/` and in the unit tests of the core,
//! which run the same functions over `fuzz/corpus` and over what proptest makes up. Most compare with a second reading of
//! the same bytes that is written for being obviously right, not fast.

mod answers;
#[cfg(feature = "jwt")]
mod auth;
mod envelope;
mod frames;
mod head;
mod proxy;
#[cfg(feature = "redis")]
mod redis;
mod settings;
mod spool;

#[cfg(feature = "admin")]
pub use self::answers::admin_message;
#[cfg(feature = "jwt")]
pub use self::auth::tokens_and_keys;
#[cfg(feature = "redis")]
pub use self::redis::{channel_names, redis_pushes, redis_url};
pub use self::{
    answers::backend_answer,
    envelope::ack_envelope,
    frames::frames,
    head::{request_head, token},
    proxy::proxy_header,
    settings::config,
    spool::spool_record,
};

/// A target: the name of its corpus, and what takes the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("ack_envelope", ack_envelope),
    #[cfg(feature = "admin")]
    ("admin_message", admin_message),
    ("backend_answer", backend_answer),
    #[cfg(feature = "redis")]
    ("channel_names", channel_names),
    ("config", config),
    ("frames", frames),
    ("proxy_header", proxy_header),
    #[cfg(feature = "redis")]
    ("redis_pushes", redis_pushes),
    #[cfg(feature = "redis")]
    ("redis_url", redis_url),
    ("request_head", request_head),
    ("spool_record", spool_record),
    ("token", token),
    #[cfg(feature = "jwt")]
    ("tokens_and_keys", tokens_and_keys),
];

/// Takes the first byte off: what it chooses is up to the target.
fn choice(bytes: &[u8]) -> (u8, &[u8]) {
    bytes
        .split_first()
        .map_or((0, bytes), |(first, rest)| (*first, rest))
}

/// Cuts at the first byte that is zero.
fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0);
    at.map_or((bytes, &[]), |at| (&bytes[..at], &bytes[at + 1..]))
}

/// A secret that no line for a host or a log may hold: targets put it where a byte 1 stands.
const CANARY: &str = "c4n4ry-s3cret";

/// The bytes as text, with the canary in its places.
fn text_with_canary(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\u{1}', CANARY)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use proptest::{collection::vec, prelude::*, test_runner::Config};

    use super::*;

    /// The committed inputs: what the fuzzers found worth keeping, and what once broke something.
    #[test]
    fn the_corpora_keep_every_promise() {
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../fuzz/corpus")
                .join(name);
            let mut files: Vec<_> = fs::read_dir(&folder)
                .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            assert!(!files.is_empty(), "{}", folder.display());
            for file in files {
                let bytes = fs::read(&file).unwrap();
                let outcome = std::panic::catch_unwind(|| target(&bytes));
                assert!(outcome.is_ok(), "{}", file.display());
            }
        }
    }

    /// Bytes as they come, and words that mean something to one of the targets.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(WORDS).prop_map(|word| word.to_vec());
        let piece = prop_oneof![3 => word, 1 => vec(any::<u8>(), 0..12), 1 => "[ -~]{0,12}".prop_map(String::into_bytes)];
        vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    const WORDS: &[&[u8]] = &[
        b"GET ",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 80\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
        b"10.0.0.2, [::ffff:192.0.2.1]:1",
        b"/?token=a+%20%ff&token=b",
        b" HTTP/1.1\r\n",
        b"Host: h\r\n",
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        b"Sec-WebSocket-Protocol: fastsock-token.x, chat\r\n",
        b"Authorization: Bearer x\r\n",
        b"\r\n",
        b"\x81\x85\0\0\0\0hello",
        b"\x01\x82\0\0\0\0\xc3\xa4",
        b"\x80\x81\0\0\0\0x",
        b"\x89\x81\0\0\0\0p",
        b"\x8a\x80\0\0\0\0",
        b"\x88\x82\0\0\0\0\x03\xe8",
        b"\x82\xff\x40\0\0\0\0\0\0\0\0\0\0\0",
        b"redis://\x01:\x01@h:1/2",
        b"redis+sentinel://\x01@a,[::1]:2/m/3",
        b"{\"redis\":{\"port\":1},\"remote_headers\":{\"A\":null}}",
        b"{\"data\":\"aGk=\",\"encoding\":\"base64\"}",
        b"FASTSOCK_ADMIN_TOKEN=\x01",
        b"Retry-After",
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"{\"sub\":\"dev1\",\"aud\":\"here\",\"exp\":99999999999}",
        b"{\"alg\":\"HS256\"}",
        b"{\"id\":\"1\",\"data\":\"aGk=\",\"encoding\":\"base64\"}",
        b"//h:1/p?q#f",
        b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
        b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n",
        b"*1\r\n$-1\r\n",
        b"*?[a]\\",
        b"\0",
        b"\x01",
    ];

    proptest! {
        #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

        #[test]
        fn any_bytes_keep_every_promise(bytes in input()) {
            for (name, target) in TARGETS {
                let outcome = std::panic::catch_unwind(|| target(&bytes));
                prop_assert!(outcome.is_ok(), "{name}");
            }
        }
    }
}
