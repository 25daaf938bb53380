//! The bytes of the answer to an upgrade, and of refusals.

use support::{Device, Gateway, GatewayBuilder, RawDevice, eventually};

use crate::common::alone;

#[tokio::test]
async fn the_101_is_byte_for_byte_what_firmware_compares() {
    let gateway = alone().start().await;
    const HEAD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    for (more, protocol) in [
        (&[][..], ""),
        (
            &["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"],
            "",
        ),
        (&["Origin: https://anywhere.example"], ""),
        (&["Sec-WebSocket-Protocol: mqtt"], "mqtt"),
        (&["Sec-WebSocket-Protocol: b, a"], "b"),
        (
            &["Sec-WebSocket-Protocol: b", "Sec-WebSocket-Protocol: a"],
            "b",
        ),
        (
            &["Sec-WebSocket-Protocol: fastsock-token.s3cret, chat"],
            "chat",
        ),
        (&["Sec-WebSocket-Protocol: fastsock-token.s3cret"], ""),
    ] {
        let mut device = RawDevice::connect(gateway.addr()).await;
        let request = RawDevice::upgrade_request("/?token=dev1", more);
        device.write(request).await;
        let protocol = match protocol {
            "" => String::new(),
            name => format!("Sec-WebSocket-Protocol: {name}\r\n"),
        };
        assert_eq!(
            device.read_head().await,
            format!("{HEAD}{protocol}\r\n"),
            "{more:?}"
        );
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_read_and_a_message_right_behind_it_too() {
    let backend = support::Backend::start().await;
    let gateway = alone().var("REMOTE_URL", backend.url()).start().await;
    let mut device = RawDevice::connect(gateway.addr()).await;
    let request = RawDevice::upgrade_request("/?token=dev1", &[]);
    let (most, last) = request.split_at(request.len() - 1);
    for byte in most.bytes() {
        device.write([byte]).await;
    }
    let frame = support::Frame::text("early").encode();
    device.write([last.as_bytes(), &frame].concat()).await;
    assert!(device.read_head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(backend.wait_delivered("dev1", 1).await, ["early"]);
}

#[tokio::test]
async fn refusals_come_in_the_promised_order_and_close() {
    let gateway = picky().start().await;
    let _taken = Device::connect(gateway.addr(), "taken").await;
    let long = "x".repeat(9000);
    // Each row has the faults of the rows below it, as far as they go together.
    for (what, request, status, lines, body) in [
        (
            "a head over the limit",
            format!("POST / HTTP/1.1\r\nA: {long}\r\n\r\n"),
            "431 Request Header Fields Too Large",
            "",
            "Request Header Fields Too Large",
        ),
        (
            "a head over the limit that has not ended",
            format!("POST / HTTP/1.1\r\nA: {long}"),
            "431 Request Header Fields Too Large",
            "",
            "Request Header Fields Too Large",
        ),
        (
            "too many header fields",
            format!("POST / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101)),
            "431 Request Header Fields Too Large",
            "",
            "Request Header Fields Too Large",
        ),
        (
            "no HTTP",
            "\x16\x03\x01\x02\r\n\r\n".into(),
            "400 Bad Request",
            "",
            "Bad Request",
        ),
        (
            "another method",
            "POST / HTTP/1.1\r\n\r\n".into(),
            "405 Method Not Allowed",
            "Allow: GET\r\n",
            "Method Not Allowed",
        ),
        (
            "no upgrade",
            "GET / HTTP/1.1\r\n\r\n".into(),
            "426 Upgrade Required",
            "Upgrade: websocket\r\n",
            "Upgrade Required",
        ),
        (
            "bad WebSocket fields",
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: short\r\n\
             Sec-WebSocket-Version: 12\r\nOrigin: https://evil.example\r\n\r\n"
                .into(),
            "400 Bad Request",
            "",
            "bad Sec-WebSocket-Key",
        ),
        (
            "another version",
            RawDevice::upgrade_request("/", &["Origin: https://evil.example"])
                .replace("Version: 13", "Version: 8"),
            "426 Upgrade Required",
            "Sec-WebSocket-Version: 13\r\n",
            "Upgrade Required",
        ),
        (
            "an Origin that is not allowed",
            RawDevice::upgrade_request("/", &["Origin: https://evil.example"]),
            "403 Forbidden",
            "",
            "this origin is not allowed",
        ),
        (
            "no token",
            RawDevice::upgrade_request("/", &["Origin: https://good.example"]),
            "401 Unauthorized",
            "",
            "a token is required",
        ),
        (
            "an id that is connected",
            RawDevice::upgrade_request("/?token=taken", &["Origin: https://good.example"]),
            "409 Conflict",
            "",
            "this client id is connected already",
        ),
    ] {
        let mut device = RawDevice::connect(gateway.addr()).await;
        device.write(request).await;
        let answer = String::from_utf8(device.read_to_end().await).unwrap();
        let length = body.len();
        let expected = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
        );
        assert_eq!(answer, expected, "{what}");
    }
}

#[tokio::test]
async fn old_requests_are_taken_as_the_original_took_them_unless_that_is_turned_off() {
    let backend = support::Backend::start().await;
    let gateway = alone().var("REMOTE_URL", backend.url()).start().await;
    let strict = alone().var("FASTSOCK_STRICT_HANDSHAKE", "on").start().await;
    let good = |token: &str| RawDevice::upgrade_request(&format!("/?token={token}"), &[]);
    for (token, request, refusal) in [
        (
            "http10",
            good("http10").replace("HTTP/1.1", "HTTP/1.0"),
            "HTTP/1.1 required",
        ),
        (
            "hostless",
            good("hostless").replace("Host: fastsock\r\n", ""),
            "bad Host",
        ),
    ] {
        let mut device = RawDevice::connect(gateway.addr()).await;
        device.write(&request).await;
        let head = device.read_head().await;
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols\r\nUpgrade: "),
            "{head}"
        );
        device.send(&support::Frame::text("hello")).await;
        assert_eq!(backend.wait_delivered(token, 1).await, ["hello"]);

        let mut device = RawDevice::connect(strict.addr()).await;
        device.write(&request).await;
        let answer = String::from_utf8(device.read_to_end().await).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.ends_with(refusal),
            "{answer}"
        );
    }
    // Two hosts are an attack on what stands in front, whatever the settings.
    let mut device = RawDevice::connect(gateway.addr()).await;
    device
        .write(good("two").replace("Host: fastsock", "Host: a\r\nHost: b"))
        .await;
    let answer = String::from_utf8(device.read_to_end().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_head_request_gets_no_body() {
    let gateway = alone().start().await;
    let mut device = RawDevice::connect(gateway.addr()).await;
    device.write("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let answer = String::from_utf8(device.read_to_end().await).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 405 ") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn over_the_connection_limit_it_answers_503_and_when_to_come_back() {
    let gateway = picky().var("FASTSOCK_LIMIT_CONNECTIONS", "2").start().await;
    let first = Device::connect(gateway.addr(), "one").await;
    let _second = Device::connect(gateway.addr(), "two").await;
    // Neither its Origin nor its token would do: that is not looked at any more.
    let refused = Device::request(gateway.addr(), "/", &[("origin", "https://evil.example")]).await;
    let refused = refused.expect_err("the house is full");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["connection"], "close");
    let seconds: u32 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&seconds));

    first.close(1000).await;
    eventually("its place is free", async || {
        Device::try_connect(gateway.addr(), "three").await.ok()
    })
    .await;
}

/// A gateway that allows one Origin and no second session.
fn picky() -> GatewayBuilder {
    Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_DUPLICATE_POLICY", "reject")
        .var(
            "FASTSOCK_LISTEN_ORIGINS",
            "https://good.example,https://other.example",
        )
}
