//! A credential that is shown twice, or not as it should be: nothing in a later place decides in its stead.

use std::{fs, net::SocketAddr};

use fastsock::{Admission, Bridge, ConnectRequest, Decision, Hooks, Ticket};
use support::RawDevice;

use crate::common::{bridge, config, sha256};

/// What a device sends beside a good `?token=s3cret`, and how it is answered.
const IN_DOUBT: &[(&str, &str)] = &[
    (
        "Authorization: Bearer wrong\r\nAuthorization: Bearer s3cret",
        "400",
    ),
    (
        "Authorization: Bearer s3cret\r\nauthorization: Bearer s3cret",
        "400",
    ),
    ("Authorization: Bearer s3cr\u{e9}t", "400"),
    ("Authorization: Bearer", "400"),
    ("Authorization: Bearer  ", "400"),
    ("Authorization:", "400"),
    ("Authorization: Basic dev1:s3cret", "400"),
    (
        "Sec-WebSocket-Protocol: fastsock-token.s3cret, fastsock-token.wrong, chat",
        "400",
    ),
    (
        "Sec-WebSocket-Protocol: fastsock-token.s3cret\r\nSec-WebSocket-Protocol: fastsock-token.s3cret",
        "400",
    ),
    ("Sec-WebSocket-Protocol: fastsock-token., chat", "400"),
];
/// The same, where only the scheme is odd.
const OTHER_SCHEME: &[(&str, &str)] = &[
    ("Authorization: Digest username=\"dev1\"", "401"),
    ("Authorization: s3cret", "401"),
];

#[tokio::test]
async fn what_is_shown_twice_or_half_is_refused_and_the_query_does_not_decide() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("dev1 {}\n", sha256("s3cret"))).unwrap();
    let path = file.path().to_str().unwrap();
    let bridge = bridge(&[("auth", "tokens"), ("auth_tokens_file", path)]).await;
    let addr = bridge.local_addr();
    for (lines, expected) in IN_DOUBT.iter().chain(OTHER_SCHEME) {
        let (status, head) = ask(addr, "/?token=s3cret", lines).await;
        assert_eq!(status, *expected, "{lines}");
        let challenge = head.contains("\r\nWWW-Authenticate: Bearer\r\n");
        assert_eq!(challenge, status == "401", "{head}");
    }
    // Of two tokens in the target, something on the way may have looked at the other.
    for target in [
        "/?token=s3cret&token=wrong",
        "/?token=s3cret&%74oken=s3cret",
        "/token=s3cret?token=wrong",
    ] {
        assert_eq!(ask(addr, target, "X: y").await.0, "400", "{target}");
        let lines = "Authorization: Bearer s3cret"; // what comes first counts
        assert_eq!(ask(addr, target, lines).await.0, "101", "{target}");
    }
    assert_eq!(ask(addr, "/?token=s3cret", "X: y").await.0, "101");
}

#[tokio::test]
async fn where_nobody_looks_at_it_nobody_minds() {
    let open = bridge(&[]).await;
    for (lines, _) in IN_DOUBT.iter().chain(OTHER_SCHEME) {
        let (status, _) = ask(open.local_addr(), "/?token=dev1&token=dev2", lines).await;
        assert_eq!(status, "101", "{lines}");
        assert_eq!(open.clients()[0].client_id.as_str(), "dev1");
    }
}

#[tokio::test]
async fn a_hook_is_not_asked_about_what_it_would_take_for_nothing() {
    let bridge = Bridge::builder(config(&[]))
        .hooks(LetsIn)
        .start()
        .await
        .unwrap();
    for (lines, _) in IN_DOUBT {
        let (status, _) = ask(bridge.local_addr(), "/?token=dev1", lines).await;
        assert_eq!(status, "400", "{lines}");
    }
    // A scheme of its own is the host's business.
    for (lines, _) in OTHER_SCHEME {
        let (status, _) = ask(bridge.local_addr(), "/?token=dev1", lines).await;
        assert_eq!(status, "101", "{lines}");
    }
}

struct LetsIn;

impl Hooks for LetsIn {
    fn authenticate(&self, _: &ConnectRequest, _: Ticket) -> Decision<Admission> {
        Decision::Now(Admission::Accept("dev1".parse().unwrap()))
    }
}

/// Status and head of the answer; the lines are sent as Latin-1.
async fn ask(addr: SocketAddr, target: &str, lines: &str) -> (String, String) {
    let mut device = RawDevice::connect(addr).await;
    let request = RawDevice::upgrade_request(target, &[lines]);
    let bytes: Vec<u8> = request.chars().map(|c| c as u8).collect();
    device.write(bytes).await;
    let head = device.read_head().await;
    (head[9..12].to_owned(), head)
}
