//! Section 6: TEXT is UTF-8, and what is not must fail.

use data_encoding::HEXLOWER;
use support::Frame;

use super::{Cases, Writes::Bytes, text_fragments};

pub(crate) fn utf8(cases: &mut Cases) {
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
        ("6.4.3", "the same in one frame", 4),
        ("6.4.4", "the same, cut at another place", 2),
    ] {
        let frame = Frame::text([good, beyond, b"edited"].concat());
        cases
            .add(id, what)
            .send([frame])
            .written(Bytes(6 + good.len() + at))
            .closed(1007);
    }
    for (id, what, is_valid, sequences) in TABLE {
        let sequences = sequences.split_whitespace().map(bytes);
        stress(cases, id, what, *is_valid, sequences);
    }
    let lonely = [
        (0xc0, 0xdf),
        (0xe0, 0xef),
        (0xf0, 0xf7),
        (0xf8, 0xfb),
        (0xfc, 0xfd),
    ]
    .map(|(from, to)| (from..=to).flat_map(|start| [start, b' ']).collect());
    stress(
        cases,
        "6.13",
        "start bytes, each before a blank",
        false,
        lonely,
    );
    stress(
        cases,
        "6.15",
        "all of 6.14 together",
        false,
        [INCOMPLETE.split_whitespace().flat_map(bytes).collect()],
    );
    let no_characters = (0..=16u32).flat_map(|plane| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
    let no_characters = no_characters
        .filter_map(char::from_u32)
        .map(|c| c.to_string().into_bytes());
    stress(
        cases,
        "6.22",
        "a code point that is no character",
        true,
        no_characters,
    );
}

/// Sequences that are all valid, or all not.
fn stress(
    cases: &mut Cases,
    id: &str,
    what: &str,
    is_valid: bool,
    sequences: impl IntoIterator<Item = Vec<u8>>,
) {
    for (n, bytes) in sequences.into_iter().enumerate() {
        let case = cases
            .add(
                format!("{id}.{}", n + 1),
                format!("{what}: `{}`", hex(&bytes)),
            )
            .send([Frame::text(bytes.clone())]);
        match String::from_utf8(bytes) {
            Ok(text) => case.text(&text),
            Err(_) => case.closed(1007),
        };
        assert_eq!(case.expected.uplinks.len(), usize::from(is_valid), "{id}");
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER
        .decode(hex.as_bytes())
        .expect("the table holds hex")
}

fn hex(bytes: &[u8]) -> String {
    let shown: Vec<_> = bytes.iter().take(12).map(|b| format!("{b:02x}")).collect();
    let more = if bytes.len() > 12 { " …" } else { "" };
    shown.join(" ") + more
}

/// Markus Kuhn's UTF-8 stress test, as the suite takes it up: number, what, whether it is valid, sequences in hex.
const TABLE: &[(&str, &str, bool, &str)] = &[
    (
        "6.6",
        "a greeting in Greek, growing by characters",
        true,
        "ceba cebae1bdb9 cebae1bdb9cf83 cebae1bdb9cf83cebc cebae1bdb9cf83cebcceb5",
    ),
    (
        "6.6b",
        "the same, cut inside a character",
        false,
        "ce cebae1 cebae1bd cebae1bdb9cf cebae1bdb9cf83ce cebae1bdb9cf83cebcce",
    ),
    (
        "6.7",
        "the first of each length",
        true,
        "00 c280 e0a080 f0908080",
    ),
    (
        "6.8",
        "the first of five and six bytes",
        false,
        "f888808080 fc8480808080",
    ),
    (
        "6.9",
        "the last of each length",
        true,
        "7f dfbf efbfbf f48fbfbf",
    ),
    (
        "6.10",
        "the last of four, five and six bytes, beyond Unicode",
        false,
        "f7bfbfbf fbbfbfbfbf fdbfbfbfbfbf",
    ),
    (
        "6.11",
        "at the borders",
        true,
        "ed9fbf ee8080 efbfbd f48fbfbf",
    ),
    ("6.11b", "just beyond the border", false, "f4908080"),
    (
        "6.12",
        "continuation bytes alone",
        false,
        "80 bf 80bf 80bf80 80bf80bf 80bf80bf80 80bf80bf80bf",
    ),
    ("6.14", "the last byte is missing", false, INCOMPLETE),
    ("6.16", "bytes that never occur", false, "fe ff fefeffff"),
    (
        "6.17",
        "an overlong slash",
        false,
        "c0af e080af f08080af f8808080af fc80808080af",
    ),
    (
        "6.18",
        "the longest overlong forms",
        false,
        "c1bf e09fbf f08fbfbf f887bfbfbf fc83bfbfbfbf",
    ),
    (
        "6.19",
        "an overlong NUL",
        false,
        "c080 e08080 f0808080 f880808080 fc8080808080",
    ),
    (
        "6.20",
        "a surrogate",
        false,
        "eda080 edadbf edae80 edafbf edb080 edbe80 edbfbf",
    ),
    (
        "6.21",
        "a pair of surrogates",
        false,
        "eda080edb080 eda080edbfbf edadbfedb080 edadbfedbfbf edae80edb080 edae80edbfbf edafbfedb080 edafbfedbfbf",
    ),
    (
        "6.23",
        "special characters",
        true,
        "efbfb9 efbfba efbfbb efbfbc efbfbd",
    ),
];

const INCOMPLETE: &str = "c0 e080 f08080 f8808080 fc80808080 df efbf f7bfbf fbbfbfbf fdbfbfbfbf";
