//! Section 7: the closing handshake.

use support::{Frame, opcode};

use super::{Cases, HELLO, hello};

pub(crate) fn closing(cases: &mut Cases) {
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
    for (n, code) in (1..).zip(valid) {
        cases
            .add(format!("7.7.{n}"), format!("a close with the code {code}"))
            .send([Frame::close(code, "")])
            .closed(code);
    }
    let registered_never = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999];
    let out_of_range = [5000, 65_535];
    for (group, codes) in [("7.9", &registered_never[..]), ("7.13", &out_of_range)] {
        for (n, &code) in (1..).zip(codes) {
            let what = format!("a close with the invalid code {code}");
            cases
                .add(format!("{group}.{n}"), what)
                .send([Frame::close(code, "")])
                .closed(1002);
        }
    }
}
