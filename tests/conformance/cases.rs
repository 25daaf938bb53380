//! The cases, numbered as in the Autobahn suite where it has them. Section 11 is ours.

use std::fmt;

use support::{Frame, opcode};

use self::Writes::{Bytes, Frames, One};

/// One case: what is sent, and what must come of it.
pub struct Case {
    /// The heading it stands under.
    pub section: &'static str,
    /// Its number; also the client id it is played under.
    pub id: String,
    /// What is sent, in words.
    pub what: String,
    /// What is sent.
    frames: Vec<Vec<u8>>,
    writes: Writes,
    /// What must come of it.
    pub expected: Outcome,
}

/// How the frames are cut into writes.
#[derive(Clone, Copy)]
enum Writes {
    One,
    Frames,
    Bytes(usize),
}

/// What a case came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the backend got.
    pub uplinks: Vec<Said>,
    /// Payloads of the pongs, in order.
    pub pongs: Vec<Vec<u8>>,
    /// The session afterwards.
    pub ending: Ending,
}

/// One message as the backend got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A TEXT message.
    Text(String),
    /// A BINARY message.
    Binary(Vec<u8>),
}

/// The session after a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Still open.
    Open,
    /// Closed with this code, or with a close frame without one.
    Closed(Option<u16>),
    /// Closed without a close frame.
    Cut,
}

/// All cases in the order of the report.
pub fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    framing(&mut cases);
    pings(&mut cases);
    reserved_bits(&mut cases);
    opcodes(&mut cases);
    fragmentation(&mut cases);
    utf8(&mut cases);
    closing(&mut cases);
    sizes(&mut cases);
    fragments_of_a_sender(&mut cases);
    beyond(&mut cases);
    cases.all
}

fn framing(cases: &mut Cases) {
    cases.section("1 Framing");
    let sizes = [0, 125, 126, 127, 128, 65_535, 65_536];
    for (n, size) in sizes.into_iter().enumerate() {
        let text = "*".repeat(size);
        cases
            .add(format!("1.1.{}", n + 1), format!("text of {size} bytes"))
            .send([Frame::text(text.as_str())])
            .text(&text);
    }
    let text = "*".repeat(65_536);
    cases
        .add("1.1.8", "text of 65536 bytes")
        .send([Frame::text(text.as_str())])
        .written(Bytes(997))
        .text(&text);
    for (n, size) in sizes.into_iter().enumerate() {
        cases
            .add(format!("1.2.{}", n + 1), format!("binary of {size} bytes"))
            .send([Frame::binary(vec![0xfe; size])])
            .binary(vec![0xfe; size]);
    }
    cases
        .add("1.2.8", "binary of 65536 bytes")
        .send([Frame::binary(vec![0xfe; 65_536])])
        .written(Bytes(997))
        .binary(vec![0xfe; 65_536]);
}

fn pings(cases: &mut Cases) {
    cases.section("2 Pings and pongs");
    let payloads: [(&str, Vec<u8>); 4] = [
        ("an empty ping", Vec::new()),
        ("a ping with text", b"Hello, world!".to_vec()),
        (
            "a ping with bytes that are not UTF-8",
            b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff".to_vec(),
        ),
        ("a ping of 125 bytes", vec![0xfe; 125]),
    ];
    for (n, (what, payload)) in payloads.into_iter().enumerate() {
        cases
            .add(format!("2.{}", n + 1), what)
            .send([Frame::ping(payload.clone())])
            .pong(payload);
    }
    cases
        .add("2.5", "a ping of 126 bytes")
        .send([Frame::ping(vec![0xfe; 126])])
        .closed(1002);
    cases
        .add("2.6", "a ping of 125 bytes")
        .send([Frame::ping(vec![0xfe; 125])])
        .written(Bytes(1))
        .pong(vec![0xfe; 125]);
    cases
        .add("2.7", "a pong nobody asked for")
        .send([Frame::pong("")]);
    cases
        .add("2.8", "a pong nobody asked for, with a payload")
        .send([Frame::pong("unsolicited")]);
    cases
        .add("2.9", "a pong nobody asked for, then a ping")
        .send([Frame::pong("unsolicited"), Frame::ping("ping")])
        .pong("ping");
    for (id, writes) in [("2.10", One), ("2.11", Bytes(1))] {
        let payloads: Vec<_> = (0..10).map(|n| format!("payload-{n}")).collect();
        let case = cases
            .add(id, "ten pings")
            .send(payloads.iter().map(|p| Frame::ping(p.as_str())))
            .written(writes);
        payloads
            .into_iter()
            .fold(case, |case, payload| case.pong(payload));
    }
}

fn reserved_bits(cases: &mut Cases) {
    cases.section("3 Reserved bits");
    cases
        .add("3.1", "text with reserved bits 1")
        .send([hello().reserved(1)])
        .closed(1002);
    for (id, bits, writes) in [("3.2", 2, One), ("3.3", 3, Frames), ("3.4", 4, Bytes(1))] {
        cases
            .add(
                id,
                format!("text, then text with reserved bits {bits}, then a ping"),
            )
            .send([hello(), hello().reserved(bits), Frame::ping("")])
            .written(writes)
            .text(HELLO)
            .closed(1002);
    }
    for (id, what, frame) in [
        (
            "3.5",
            "binary with reserved bits 5",
            Frame::binary("x").reserved(5),
        ),
        (
            "3.6",
            "a ping with reserved bits 6",
            Frame::ping("x").reserved(6),
        ),
        (
            "3.7",
            "a close with reserved bits 7",
            Frame::close(1000, "").reserved(7),
        ),
    ] {
        cases.add(id, what).send([frame]).closed(1002);
    }
}

fn opcodes(cases: &mut Cases) {
    cases.section("4 Opcodes");
    for (group, first) in [("4.1", 3), ("4.2", 11)] {
        let frame = |nth: u8, payload: &str| Frame::new(first + nth, payload);
        cases
            .add(format!("{group}.1"), format!("opcode {first}, empty"))
            .send([frame(0, "")])
            .closed(1002);
        cases
            .add(
                format!("{group}.2"),
                format!("opcode {}, with a payload", first + 1),
            )
            .send([frame(1, "reserved opcode")])
            .closed(1002);
        for (id, nth, payload, writes) in [
            (3, 2, "", Frames),
            (4, 3, "reserved opcode", One),
            (5, 4, "", Bytes(1)),
        ] {
            cases
                .add(
                    format!("{group}.{id}"),
                    format!("text, then opcode {}, then a ping", first + nth),
                )
                .send([hello(), frame(nth, payload), Frame::ping("")])
                .written(writes)
                .text(HELLO)
                .closed(1002);
        }
    }
}

fn fragmentation(cases: &mut Cases) {
    cases.section("5 Fragmentation");
    let first = || Frame::text("fragment1").unfinished();
    let last = || Frame::continuation("fragment2");
    cases
        .add("5.1", "a ping in two fragments")
        .send([Frame::ping("fragment1").unfinished(), last()])
        .closed(1002);
    cases
        .add("5.2", "a pong in two fragments")
        .send([Frame::pong("fragment1").unfinished(), last()])
        .closed(1002);
    for (id, writes) in [("5.3", One), ("5.4", Frames), ("5.5", Bytes(1))] {
        cases
            .add(id, format!("text in two fragments"))
            .send([first(), last()])
            .written(writes)
            .text("fragment1fragment2");
    }
    for (id, writes) in [("5.6", One), ("5.7", Frames), ("5.8", Bytes(1))] {
        cases
            .add(id, format!("text in two fragments, a ping between them"))
            .send([first(), Frame::ping("ping"), last()])
            .written(writes)
            .pong("ping")
            .text("fragment1fragment2");
    }
    for (base, is_final) in [(9, true), (12, false)] {
        for (nth, writes) in [(0, One), (1, Frames), (2, Bytes(1))] {
            let mut lost = Frame::continuation("nothing to continue");
            lost.is_final = is_final;
            let kind = if is_final { "a last" } else { "a" };
            cases
                .add(
                    format!("5.{}", base + nth),
                    format!("{kind} continuation of nothing, then text"),
                )
                .send([lost, hello()])
                .written(writes)
                .closed(1002);
        }
    }
    cases
        .add(
            "5.15",
            "text in two fragments, then a continuation of nothing, then text",
        )
        .send([
            first(),
            last(),
            Frame::continuation("fragment3").unfinished(),
            hello(),
        ])
        .text("fragment1fragment2")
        .closed(1002);
    for (id, is_final) in [("5.16", false), ("5.17", true)] {
        let mut lost = Frame::continuation("fragment1");
        lost.is_final = is_final;
        let kind = if is_final { "a last" } else { "a" };
        cases
            .add(
                id,
                format!("{kind} continuation of nothing, then text in two fragments, twice"),
            )
            .send([lost.clone(), first(), last(), lost, first(), last()])
            .closed(1002);
    }
    cases
        .add("5.18", "text in two fragments that both say TEXT")
        .send([first(), Frame::text("fragment2")])
        .closed(1002);
    for (id, writes) in [("5.19", One), ("5.20", Frames)] {
        let more = |text: &str| Frame::continuation(text).unfinished();
        cases
            .add(id, format!("text in five fragments, two pings on the way"))
            .send([
                first(),
                more("fragment2"),
                Frame::ping("pongme 1!"),
                more("fragment3"),
                more("fragment4"),
                Frame::ping("pongme 2!"),
                Frame::continuation("fragment5"),
            ])
            .written(writes)
            .pong("pongme 1!")
            .pong("pongme 2!")
            .text("fragment1fragment2fragment3fragment4fragment5");
    }
}

fn utf8(cases: &mut Cases) {
    cases.section("6 UTF-8");
    cases
        .add("6.1.1", "empty text")
        .send([Frame::text("")])
        .text("");
    cases
        .add("6.1.2", "three empty fragments")
        .send([
            Frame::text("").unfinished(),
            Frame::continuation("").unfinished(),
            Frame::continuation(""),
        ])
        .text("");
    cases
        .add(
            "6.1.3",
            "three fragments of which the middle one has content",
        )
        .send([
            Frame::text("").unfinished(),
            Frame::continuation("middle").unfinished(),
            Frame::continuation(""),
        ])
        .text("middle");
    let valid = "Hello-µ@ßöäüàá-UTF-8!!";
    cases
        .add("6.2.1", "valid")
        .send([Frame::text(valid)])
        .text(valid);
    cases
        .add("6.2.2", "valid, in two fragments between characters")
        .send(text_fragments(valid.as_bytes(), "Hello-µ@ß".len()))
        .text(valid);
    cases
        .add("6.2.3", "valid, in fragments of one byte")
        .send(text_fragments(valid.as_bytes(), 1))
        .text(valid);
    cases
        .add("6.2.4", "valid, in fragments of one byte")
        .send(text_fragments("κόσμε".as_bytes(), 1))
        .written(Bytes(1))
        .text("κόσμε");

    let good = "κόσμε".as_bytes();
    let surrogate = b"\xed\xa0\x80";
    let bad = [good, surrogate, b"edited"].concat();
    cases
        .add("6.3.1", "invalid")
        .send([Frame::text(bad.clone())])
        .closed(1007);
    cases
        .add("6.3.2", "invalid, in fragments of one byte")
        .send(text_fragments(&bad, 1))
        .closed(1007);
    // 6.4: what is certainly bad must fail before the message is whole. Here it never is, and a ping after it gets no answer.
    let beyond = b"\xf4\x90\x80\x80";
    for (id, what, tail) in [
        (
            "6.4.1",
            "a fragment with a character beyond U+10FFFF; no last fragment",
            &beyond[..],
        ),
        (
            "6.4.2",
            "a fragment with the two bytes that show it to be beyond U+10FFFF; no last fragment",
            &beyond[..2],
        ),
    ] {
        cases
            .add(id, what)
            .send([
                Frame::text(good).unfinished(),
                Frame::continuation(tail).unfinished(),
            ])
            .closed(1007);
    }
    for (id, what, at) in [
        ("6.4.3", "the same in one frame, written in two pieces", 4),
        ("6.4.4", "the same, cut behind the two bytes", 2),
    ] {
        let frame = Frame::text([good, beyond, b"edited"].concat());
        cases
            .add(id, what)
            .send([frame])
            .written(Bytes(6 + good.len() + at))
            .closed(1007);
    }
    for group in utf8_groups() {
        for (n, bytes) in group.sequences.iter().enumerate() {
            let case = cases
                .add(
                    format!("{}.{}", group.id, n + 1),
                    format!("{}: `{}`", group.what, hex(bytes)),
                )
                .send([Frame::text(bytes.clone())]);
            match std::str::from_utf8(bytes) {
                Ok(text) if group.is_valid(n) => case.text(text),
                Err(_) if !group.is_valid(n) => case.closed(1007),
                _ => panic!("{}.{} is mistaken about itself", group.id, n + 1),
            };
        }
    }
}

fn closing(cases: &mut Cases) {
    cases.section("7 Closing");
    cases
        .add("7.1.1", "text, then a close")
        .send([hello(), Frame::close(1000, "")])
        .text(HELLO)
        .closed(1000);
    cases
        .add("7.1.2", "two closes")
        .send([Frame::close(1000, ""), Frame::close(1000, "")])
        .closed(1000);
    cases
        .add("7.1.3", "a close, then a ping")
        .send([Frame::close(1000, ""), Frame::ping("")])
        .closed(1000);
    cases
        .add("7.1.4", "a close, then text")
        .send([Frame::close(1000, ""), hello()])
        .closed(1000);
    cases
        .add("7.1.5", "half a message, a close, the other half")
        .send([
            Frame::text("fragment1").unfinished(),
            Frame::close(1000, ""),
            Frame::continuation("fragment2"),
        ])
        .closed(1000);
    let big = "*".repeat(256 << 10);
    cases
        .add("7.1.6", "text of 256 KiB, text, a close, a ping")
        .send([
            Frame::text(big.as_str()),
            hello(),
            Frame::close(1000, ""),
            Frame::ping(""),
        ])
        .text(&big)
        .text(HELLO)
        .closed(1000);
    cases
        .add("7.3.1", "a close without a code")
        .send([Frame::empty_close()])
        .closed(None);
    cases
        .add("7.3.2", "a close of one byte")
        .send([Frame::new(opcode::CLOSE, "a")])
        .closed(1002);
    cases
        .add("7.3.3", "a close with a code")
        .send([Frame::close(1000, "")])
        .closed(1000);
    cases
        .add("7.3.4", "a close with a code and a reason")
        .send([Frame::close(1000, "Hello World!")])
        .closed(1000);
    cases
        .add("7.3.5", "a close with the longest reason (123 bytes)")
        .send([Frame::close(1000, "*".repeat(123))])
        .closed(1000);
    cases
        .add("7.3.6", "a close with a reason of 124 bytes")
        .send([Frame::close(1000, "*".repeat(124))])
        .closed(1002);
    cases
        .add("7.5.1", "a close with a reason that is not UTF-8")
        .send([Frame::close(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80")])
        .closed(1007);
    let valid = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ];
    for (n, code) in valid.into_iter().enumerate() {
        cases
            .add(
                format!("7.7.{}", n + 1),
                format!("a close with the code {code}"),
            )
            .send([Frame::close(code, "")])
            .closed(code);
    }
    let invalid = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999];
    for (n, code) in invalid.into_iter().enumerate() {
        cases
            .add(
                format!("7.9.{}", n + 1),
                format!("a close with the invalid code {code}"),
            )
            .send([Frame::close(code, "")])
            .closed(1002);
    }
    for (n, code) in [5000, 65_535].into_iter().enumerate() {
        cases
            .add(
                format!("7.13.{}", n + 1),
                format!("a close with the invalid code {code}"),
            )
            .send([Frame::close(code, "")])
            .closed(1002);
    }
}

fn sizes(cases: &mut Cases) {
    cases.section("9 Sizes");
    let whole = [(1, 64 << 10), (2, 256 << 10), (3, MIB)];
    for (n, size) in whole {
        let text = "*".repeat(size);
        cases
            .add(format!("9.1.{n}"), format!("text of {} KiB", size >> 10))
            .send([Frame::text(text.as_str())])
            .text(&text);
    }
    for (n, size) in [(4, 4 * MIB), (5, 8 * MIB), (6, 16 * MIB)] {
        cases
            .add(format!("9.1.{n}"), format!("text of {} MiB", size / MIB))
            .send([Frame::text("*".repeat(size))])
            .closed(1009);
    }
    for (n, size) in whole {
        cases
            .add(format!("9.2.{n}"), format!("binary of {} KiB", size >> 10))
            .send([Frame::binary(vec![0xfe; size])])
            .binary(vec![0xfe; size]);
    }
    for (n, size) in [(4, 4 * MIB), (5, 8 * MIB), (6, 16 * MIB)] {
        cases
            .add(format!("9.2.{n}"), format!("binary of {} MiB", size / MIB))
            .send([Frame::binary(vec![0xfe; size])])
            .closed(1009);
    }
    let text = "*".repeat(MIB);
    for (n, size) in (1..).zip([
        64,
        256,
        1 << 10,
        4 << 10,
        16 << 10,
        64 << 10,
        256 << 10,
        MIB,
    ]) {
        cases
            .add(
                format!("9.3.{n}"),
                format!("text of 1 MiB in fragments of {size}"),
            )
            .send(text_fragments(text.as_bytes(), size))
            .text(&text);
        cases
            .add(
                format!("9.4.{n}"),
                format!("binary of 1 MiB in fragments of {size}"),
            )
            .send(fragments(opcode::BINARY, &vec![0xfe; MIB], size))
            .binary(vec![0xfe; MIB]);
    }
    for (n, size) in (1..).zip([64, 128, 256, 512, 1024, 2048]) {
        let writes = Bytes(size);
        cases
            .add(format!("9.5.{n}"), "text of 1 MiB")
            .send([Frame::text(text.as_str())])
            .written(writes)
            .text(&text);
        cases
            .add(format!("9.6.{n}"), "binary of 1 MiB")
            .send([Frame::binary(vec![0xfe; MIB])])
            .written(writes)
            .binary(vec![0xfe; MIB]);
    }
}

fn fragments_of_a_sender(cases: &mut Cases) {
    cases.section("10 Fragments of a sender");
    let text = "*".repeat(65_536);
    cases
        .add("10.1.1", "text of 65536 bytes in fragments of 1300")
        .send(text_fragments(text.as_bytes(), 1300))
        .text(&text);
}

fn beyond(cases: &mut Cases) {
    cases.section("11 Beyond the suite");
    for (id, what, frame) in [
        ("11.1.1", "text without a mask", hello().unmasked()),
        (
            "11.1.2",
            "empty text without a mask",
            Frame::text("").unmasked(),
        ),
        (
            "11.1.3",
            "a ping without a mask",
            Frame::ping("x").unmasked(),
        ),
        (
            "11.1.4",
            "a close without a mask",
            Frame::close(1000, "").unmasked(),
        ),
    ] {
        cases.add(id, what).send([frame]).closed(1002);
    }
    cases
        .add("11.2.1", "binary of 1 MiB and one byte")
        .send([Frame::binary(vec![0xfe; MIB + 1])])
        .closed(1009);
    cases
        .add("11.2.2", "text of 1 MiB and one byte in two fragments")
        .send(text_fragments(&vec![b'*'; MIB + 1], MIB))
        .closed(1009);
    cases
        .add("11.2.3", "text of 2 MiB in fragments of 4 KiB")
        .send(text_fragments(&vec![b'*'; 2 * MIB], 4096))
        .closed(1009);
    cases
        .add("11.2.4", "the head of a frame of 2^62 bytes")
        .send([Frame::binary("").announcing(1 << 62)])
        .closed(1009);
    cases
        .add("11.2.5", "the head of a frame of 2^64 - 1 bytes")
        .send([Frame::binary("").announcing(u64::MAX)])
        .closed(1009);
    cases
        .add("11.2.6", "text, then the head of a frame of 2^62 bytes")
        .send([hello(), Frame::binary("").announcing(1 << 62)])
        .text(HELLO)
        .closed(1009);
    cases
        .add("11.3.1", "a ping that says 2^62 bytes")
        .send([Frame::ping("").announcing(1 << 62)])
        .closed(1002);
    cases
        .add("11.3.2", "a close that is not the last of its fragments")
        .send([Frame::close(1000, "").unfinished()])
        .closed(1002);
    let case = cases
        .add("11.4.1", "a thousand texts")
        .send((0..1000).map(|n| Frame::text(n.to_string())));
    (0..1000).fold(case, |case, n| case.text(&n.to_string()));
    cases
        .add(
            "11.4.2",
            "binary in two fragments, with text of its own in between",
        )
        .send([
            Frame::binary("a").unfinished(),
            hello(),
            Frame::continuation("b"),
        ])
        .closed(1002);
}

/// Sequences that are all valid, or all not.
struct Group {
    id: &'static str,
    what: &'static str,
    /// How many at the front are valid.
    valid: usize,
    sequences: Vec<Vec<u8>>,
}

impl Group {
    fn is_valid(&self, nth: usize) -> bool {
        nth < self.valid
    }
}

/// Markus Kuhn's UTF-8 stress test, as the suite takes it up in 6.5 to 6.23.
fn utf8_groups() -> Vec<Group> {
    let group = |id, what, valid, sequences: &[&[u8]]| Group {
        id,
        what,
        valid,
        sequences: sequences.iter().map(|s| s.to_vec()).collect(),
    };
    let all = usize::MAX;
    let lonely = |from: u8, to: u8| {
        (from..=to)
            .flat_map(|start| [start, b' '])
            .collect::<Vec<_>>()
    };
    let incomplete: [&[u8]; 10] = [
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xf8\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xfb\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf",
    ];
    let planes: Vec<Vec<u8>> = (0..=16u32)
        .flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff])
        .filter_map(char::from_u32)
        .map(|c| c.to_string().into_bytes())
        .collect();
    let mut groups = vec![
        group(
            "6.5",
            "a greeting in Greek, whole",
            all,
            &["κόσμε".as_bytes()],
        ),
        group(
            "6.6",
            "the same growing by whole characters",
            all,
            &[
                b"\xce\xba",
                b"\xce\xba\xe1\xbd\xb9",
                b"\xce\xba\xe1\xbd\xb9\xcf\x83",
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc",
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5",
            ],
        ),
        group(
            "6.6b",
            "the same cut inside a character",
            0,
            &[
                b"\xce",
                b"\xce\xba\xe1",
                b"\xce\xba\xe1\xbd",
                b"\xce\xba\xe1\xbd\xb9\xcf",
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce",
                b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce",
            ],
        ),
        group(
            "6.7",
            "the first of each length",
            all,
            &[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"],
        ),
        group(
            "6.8",
            "the first of five and six bytes",
            0,
            &[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"],
        ),
        group(
            "6.9",
            "the last of each length",
            all,
            &[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"],
        ),
        group(
            "6.10",
            "the last of four, five and six bytes, beyond Unicode",
            0,
            &[
                b"\xf7\xbf\xbf\xbf",
                b"\xfb\xbf\xbf\xbf\xbf",
                b"\xfd\xbf\xbf\xbf\xbf\xbf",
            ],
        ),
        group(
            "6.11",
            "at the borders",
            4,
            &[
                b"\xed\x9f\xbf",
                b"\xee\x80\x80",
                b"\xef\xbf\xbd",
                b"\xf4\x8f\xbf\xbf",
                b"\xf4\x90\x80\x80",
            ],
        ),
        group(
            "6.12",
            "continuation bytes alone",
            0,
            &[
                b"\x80",
                b"\xbf",
                b"\x80\xbf",
                b"\x80\xbf\x80",
                b"\x80\xbf\x80\xbf",
                b"\x80\xbf\x80\xbf\x80",
                b"\x80\xbf\x80\xbf\x80\xbf",
            ],
        ),
        group(
            "6.16",
            "bytes that never occur",
            0,
            &[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"],
        ),
        group(
            "6.17",
            "an overlong slash",
            0,
            &[
                b"\xc0\xaf",
                b"\xe0\x80\xaf",
                b"\xf0\x80\x80\xaf",
                b"\xf8\x80\x80\x80\xaf",
                b"\xfc\x80\x80\x80\x80\xaf",
            ],
        ),
        group(
            "6.18",
            "the longest overlong forms",
            0,
            &[
                b"\xc1\xbf",
                b"\xe0\x9f\xbf",
                b"\xf0\x8f\xbf\xbf",
                b"\xf8\x87\xbf\xbf\xbf",
                b"\xfc\x83\xbf\xbf\xbf\xbf",
            ],
        ),
        group(
            "6.19",
            "an overlong NUL",
            0,
            &[
                b"\xc0\x80",
                b"\xe0\x80\x80",
                b"\xf0\x80\x80\x80",
                b"\xf8\x80\x80\x80\x80",
                b"\xfc\x80\x80\x80\x80\x80",
            ],
        ),
        group(
            "6.20",
            "a surrogate",
            0,
            &[
                b"\xed\xa0\x80",
                b"\xed\xad\xbf",
                b"\xed\xae\x80",
                b"\xed\xaf\xbf",
                b"\xed\xb0\x80",
                b"\xed\xbe\x80",
                b"\xed\xbf\xbf",
            ],
        ),
        group(
            "6.21",
            "a pair of surrogates",
            0,
            &[
                b"\xed\xa0\x80\xed\xb0\x80",
                b"\xed\xa0\x80\xed\xbf\xbf",
                b"\xed\xad\xbf\xed\xb0\x80",
                b"\xed\xad\xbf\xed\xbf\xbf",
                b"\xed\xae\x80\xed\xb0\x80",
                b"\xed\xae\x80\xed\xbf\xbf",
                b"\xed\xaf\xbf\xed\xb0\x80",
                b"\xed\xaf\xbf\xed\xbf\xbf",
            ],
        ),
        group(
            "6.23",
            "special characters",
            all,
            &[
                b"\xef\xbf\xb9",
                b"\xef\xbf\xba",
                b"\xef\xbf\xbb",
                b"\xef\xbf\xbc",
                b"\xef\xbf\xbd",
            ],
        ),
    ];
    groups.push(Group {
        id: "6.12b",
        what: "all continuation bytes",
        valid: 0,
        sequences: vec![(0x80..=0xbf).collect()],
    });
    groups.push(Group {
        id: "6.13",
        what: "start bytes, each before a blank",
        valid: 0,
        sequences: [
            (0xc0, 0xdf),
            (0xe0, 0xef),
            (0xf0, 0xf7),
            (0xf8, 0xfb),
            (0xfc, 0xfd),
        ]
        .map(|(from, to)| lonely(from, to))
        .to_vec(),
    });
    groups.push(group("6.14", "the last byte is missing", 0, &incomplete));
    groups.push(group(
        "6.15",
        "all of these together",
        0,
        &[&incomplete.concat()],
    ));
    groups.push(Group {
        id: "6.22",
        what: "a code point that is no character",
        valid: all,
        sequences: planes,
    });
    groups.sort_by_key(|group| {
        let number = group.id.trim_end_matches('b').trim_start_matches("6.");
        (number.parse::<u32>().unwrap(), group.id.ends_with('b'))
    });
    groups
}

/// The cases so far.
#[derive(Default)]
struct Cases {
    section: &'static str,
    all: Vec<Case>,
}

impl Cases {
    fn section(&mut self, section: &'static str) {
        self.section = section;
    }

    /// Begins a case that sends nothing and leaves the session open.
    fn add(&mut self, id: impl Into<String>, what: impl Into<String>) -> &mut Case {
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
    pub fn writes(&self) -> Vec<Vec<u8>> {
        let whole = self.frames.concat();
        match self.writes {
            One => vec![whole],
            Frames => self.frames.clone(),
            Bytes(n) => whole.chunks(n).map(<[u8]>::to_vec).collect(),
        }
    }

    fn send(&mut self, frames: impl IntoIterator<Item = Frame>) -> &mut Self {
        self.frames = frames.into_iter().map(|frame| frame.encode()).collect();
        self
    }

    fn written(&mut self, writes: Writes) -> &mut Self {
        self.writes = writes;
        self.what += &match writes {
            One => String::new(),
            Frames => ", frame by frame".into(),
            Bytes(1) => ", byte by byte".into(),
            Bytes(n) => format!(", in writes of {n}"),
        };
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.expected.uplinks.push(Said::Text(text.into()));
        self
    }

    fn binary(&mut self, bytes: Vec<u8>) -> &mut Self {
        self.expected.uplinks.push(Said::Binary(bytes));
        self
    }

    fn pong(&mut self, payload: impl Into<Vec<u8>>) -> &mut Self {
        self.expected.pongs.push(payload.into());
        self
    }

    fn closed(&mut self, code: impl Into<Option<u16>>) -> &mut Self {
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

fn hello() -> Frame {
    Frame::text(HELLO)
}

/// A message in fragments of so many bytes.
fn fragments(opcode: u8, message: &[u8], size: usize) -> Vec<Frame> {
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

fn text_fragments(message: &[u8], size: usize) -> Vec<Frame> {
    fragments(opcode::TEXT, message, size)
}

fn hex(bytes: &[u8]) -> String {
    let shown: Vec<_> = bytes.iter().take(12).map(|b| format!("{b:02x}")).collect();
    let more = if bytes.len() > 12 { " …" } else { "" };
    shown.join(" ") + more
}

const HELLO: &str = "Hello";
const MIB: usize = 1 << 20;
