//! Sections 1 to 5: what a frame may look like, and in which order frames may come.

use support::Frame;

use super::{
    Cases, HELLO,
    Writes::{Bytes, Frames, One},
    hello,
};

pub(crate) fn framing(cases: &mut Cases) {
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

pub(crate) fn pings(cases: &mut Cases) {
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

pub(crate) fn reserved_bits(cases: &mut Cases) {
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

pub(crate) fn opcodes(cases: &mut Cases) {
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

pub(crate) fn fragmentation(cases: &mut Cases) {
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
            .add(id, "text in two fragments")
            .send([first(), last()])
            .written(writes)
            .text("fragment1fragment2");
    }
    for (id, writes) in [("5.6", One), ("5.7", Frames), ("5.8", Bytes(1))] {
        cases
            .add(id, "text in two fragments, a ping between them")
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
            .add(id, "text in five fragments, two pings on the way")
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
