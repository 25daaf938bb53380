//! Sections 9 to 11: sizes, limits, and what the suite lacks.

use support::{Frame, opcode};

use super::{Cases, HELLO, MIB, Writes::Bytes, fragments, hello, text_fragments};

pub(crate) fn sizes(cases: &mut Cases) {
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
    let (text, bytes) = ("*".repeat(MIB), vec![0xfe; MIB]);
    let sizes = [1, 4, 16, 64, 256, 1024, 4096, 16_384].map(|n| 64 * n);
    for (n, size) in (1..).zip(sizes) {
        let what = format!("text of 1 MiB in fragments of {size}");
        cases
            .add(format!("9.3.{n}"), what)
            .send(text_fragments(text.as_bytes(), size))
            .text(&text);
    }
    for (n, size) in (1..).zip(sizes) {
        let what = format!("binary of 1 MiB in fragments of {size}");
        cases
            .add(format!("9.4.{n}"), what)
            .send(fragments(opcode::BINARY, &bytes, size))
            .binary(bytes.clone());
    }
    let writes = [64, 128, 256, 512, 1024, 2048].map(Bytes);
    for (n, writes) in (1..).zip(writes) {
        cases
            .add(format!("9.5.{n}"), "text of 1 MiB")
            .send([Frame::text(text.as_str())])
            .written(writes)
            .text(&text);
    }
    for (n, writes) in (1..).zip(writes) {
        cases
            .add(format!("9.6.{n}"), "binary of 1 MiB")
            .send([Frame::binary(bytes.clone())])
            .written(writes)
            .binary(bytes.clone());
    }
}

pub(crate) fn fragments_of_a_sender(cases: &mut Cases) {
    cases.section("10 Fragments of a sender");
    let text = "*".repeat(65_536);
    cases
        .add("10.1.1", "text of 65536 bytes in fragments of 1300")
        .send(text_fragments(text.as_bytes(), 1300))
        .text(&text);
}

pub(crate) fn beyond(cases: &mut Cases) {
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
        .closed(1009); // as right as 1002: the length is looked at first
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
    // Codes registered since the suite was written; 1014 is one that tungstenite does not know.
    for (n, code, answer) in [(1, 1012, 1012), (2, 1013, 1013), (3, 1014, 1002)] {
        cases
            .add(format!("11.5.{n}"), format!("a close with the code {code}"))
            .send([Frame::close(code, "")])
            .closed(answer);
    }
}
