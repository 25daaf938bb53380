//! A probe is answered, whatever others do to the admin listener.

use std::{net::SocketAddr, time::Duration};

use support::{Gateway, GatewayBuilder, RawDevice, call, eventually, get};

const TOKEN: (&str, &str) = ("authorization", "Bearer an admin token of 24 bytes");
/// More than the listener has places of any kind.
const CROWD: usize = 600;

#[tokio::test]
async fn those_who_say_nothing_or_half_a_head_do_not_keep_a_probe_out() {
    let gateway = admin().start().await;
    let addr = gateway.admin_addr();
    for says in ["", "G", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX"] {
        let crowd = crowd(addr, says).await;
        assert_probes_are_answered(addr).await;
        drop(crowd);
    }
    // One that is slow is heard for as long as nobody else needs the place.
    let mut slow = RawDevice::connect(addr).await;
    for piece in "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        .as_bytes()
        .chunks(3)
    {
        slow.write(piece).await;
        tokio::time::sleep(Duration::from_millis(5)).await; // so that it is in pieces
    }
    assert!(slow.read_head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_probe_by_http_1_0_needs_no_host_and_nothing_else_goes_without() {
    let gateway = admin().start().await;
    let addr = gateway.admin_addr();
    for (request, status) in [
        ("GET /healthz HTTP/1.0\r\n\r\n", "200"),
        ("HEAD /readyz HTTP/1.0\r\n\r\n", "200"),
        ("GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n", "403"),
        ("GET http://evil.example/healthz HTTP/1.0\r\n\r\n", "403"),
        ("POST /healthz HTTP/1.0\r\n\r\n", "403"),
        ("GET /api/v1/stats HTTP/1.0\r\n\r\n", "403"),
        ("GET / HTTP/1.0\r\n\r\n", "403"),
    ] {
        let mut device = RawDevice::connect(addr).await;
        device.write(request).await;
        let head = device.read_head().await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{request}");
    }
}

#[tokio::test]
async fn those_who_send_requests_and_read_nothing_do_not_keep_a_probe_out() {
    let gateway = admin().start().await;
    let addr = gateway.admin_addr();
    let mut crowd = Vec::new();
    for path in ["/healthz", "/", "/api/v1/stats", "/api/v1/dead-letters"] {
        let pipelined = request("GET", path, &[]).repeat(100);
        for _ in 0..CROWD / 4 {
            let mut device = RawDevice::connect_with_buffer(addr, 4096).await;
            let _ = device.try_write(&pipelined).await; // it may be closed after the first answer
            crowd.push(device);
        }
    }
    assert_probes_are_answered(addr).await;
}

#[tokio::test]
async fn those_who_begin_calls_and_do_not_end_them_do_not_keep_a_probe_out() {
    let gateway = admin().start().await;
    let addr = gateway.admin_addr();
    let head = request(
        "POST",
        "/api/v1/clients/dev1/messages",
        &["Content-Type: application/json", "Content-Length: 100"],
    );
    let mut held = crowd(addr, &head).await;
    assert_probes_are_answered(addr).await;
    // Further calls are told to come again.
    let answer = eventually("no place is left for a call", async || {
        let answer = get(addr, "/api/v1/stats").await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.headers["connection"], "close");
    // Those that were begun can still be ended.
    let body = format!("{:100}", r#"{"data":"x"}"#);
    held[0].write(body).await;
    let head = held[0].read_head().await;
    assert!(head.starts_with("HTTP/1.1 410 "), "{head}");
    drop(held);
    eventually("there are places again", async || {
        get(addr, "/api/v1/stats").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn without_the_token_nobody_takes_a_place_of_those_who_have_it() {
    let gateway = admin().var("FASTSOCK_ADMIN_TOKEN", token()).start().await;
    let addr = gateway.admin_addr();
    let head = request(
        "POST",
        "/api/v1/clients/dev1/messages",
        &["Content-Type: application/json", "Content-Length: 100"],
    );
    let _held = crowd(addr, &head).await;
    assert_probes_are_answered(addr).await;
    let answer = call(addr, "GET", "/api/v1/stats", &[TOKEN], "").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_probe_is_answered_while_others_come_without_end() {
    let gateway = admin().start().await;
    let addr = gateway.admin_addr();
    let flood = async {
        let mut held = std::collections::VecDeque::new();
        loop {
            held.push_back(RawDevice::connect(addr).await);
            if held.len() > CROWD {
                held.pop_front();
            }
        }
    };
    let probes = async {
        for _ in 0..20 {
            assert_probes_are_answered(addr).await;
        }
    };
    tokio::select! {
        () = probes => {}
        () = flood => {}
    }
}

#[tokio::test]
async fn only_who_shows_the_token_may_ask_again_on_the_same_connection() {
    let gateway = admin().var("FASTSOCK_ADMIN_TOKEN", token()).start().await;
    let addr = gateway.admin_addr();
    let authorization = format!("Authorization: Bearer {}", token());
    let mut device = RawDevice::connect(addr).await;
    for _ in 0..3 {
        let request = request("GET", "/readyz", &[&authorization]);
        device.write(request).await;
        let head = device.read_head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        device.read_exact(content_length(&head)).await;
    }
    let mut open = admin().start().await;
    for (addr, path, more, status) in [
        (addr, "/healthz", "X: y", "200"),
        (addr, "/api/v1/stats", "Authorization: Bearer x", "401"),
        (addr, "/none", "X: y", "404"),
        (open.admin_addr(), "/healthz", "X: y", "200"),
        (open.admin_addr(), "/api/v1/stats", "X: y", "200"),
        (open.admin_addr(), "/healthz", &authorization, "200"),
    ] {
        let mut device = RawDevice::connect(addr).await;
        let request = request("GET", path, &[more]);
        // The second one is not heard, and does not cost the first one its answer.
        device.write(request.repeat(2)).await;
        let head = device.read_head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(
            head.to_ascii_lowercase().contains("connection: close\r\n"),
            "{head}"
        );
        let rest = device.read_to_end().await;
        assert_eq!(rest.len(), content_length(&head), "{path}");
    }
    assert_eq!(open.stop().await, Some(0));
}

#[tokio::test]
async fn who_has_the_token_and_does_not_read_is_closed() {
    let gateway = admin()
        .var("FASTSOCK_ADMIN_TOKEN", token())
        .var("FASTSOCK_WRITE_TIMEOUT", "300")
        .start()
        .await;
    let addr = gateway.admin_addr();
    let authorization = format!("Authorization: Bearer {}", token());
    let pipelined = request("GET", "/api/v1/stats", &[&authorization]).repeat(1000);
    let mut deaf = RawDevice::connect_with_buffer(addr, 4096).await;
    // Written until it is not taken any more; after that only the end of the connection makes a write fail.
    while deaf
        .write_until_full(pipelined.as_bytes(), Duration::from_millis(100))
        .await
        == pipelined.len()
    {}
    eventually("it is closed", async || {
        let tried = tokio::time::timeout(Duration::from_millis(20), deaf.try_write("x")).await;
        matches!(tried, Ok(Err(_)))
    })
    .await;
}

#[tokio::test]
async fn a_probe_is_answered_while_devices_hold_every_descriptor() {
    let gateway = admin()
        .descriptors(128, 128)
        .var("FASTSOCK_LIMIT_CONNECTIONS", "1000")
        .start()
        .await;
    let mut held = Vec::new();
    for n in 0..200 {
        held.push(RawDevice::connect(gateway.addr()).await);
        if n < 60 {
            continue;
        }
        let token = format!("/?token=dev{n}");
        let request = RawDevice::upgrade_request(&token, &[]);
        let _ = held[n].try_write(request).await; // none may be left for it
    }
    gateway
        .wait_line("out of descriptors; the gateway pauses accepting")
        .await;
    for _ in 0..10 {
        assert_probes_are_answered(gateway.admin_addr()).await;
    }
}

#[tokio::test]
async fn bodies_take_no_more_memory_than_there_is_for_them() {
    let gateway = admin().start().await;
    let addr = gateway.admin_addr();
    let head = |length: usize| {
        let length = format!("Content-Length: {length}");
        let more = ["Content-Type: application/octet-stream", &length];
        request("POST", "/api/v1/clients/dev1/messages", &more)
    };
    let largest = 16 << 20;
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut device = RawDevice::connect(addr).await;
        device.write(head(largest)).await;
        let _ = device.try_write(vec![b'x'; largest - 1]).await; // it may be refused already
        held.push(device);
    }
    assert_probes_are_answered(addr).await;
    let mut statuses = Vec::new();
    for device in &mut held {
        let _ = device.try_write("x").await;
        statuses.push(device.read_head().await[9..12].to_owned());
    }
    // Which of them had room is a matter of whom the gateway read first.
    assert!(statuses.iter().any(|s| s == "503"), "{statuses:?}");
    assert!(statuses.iter().all(|s| s == "503" || s == "410"));
    let raw = ("content-type", "application/octet-stream");
    let path = "/api/v1/clients/dev1/messages";
    let answer = call(addr, "POST", path, &[raw], vec![b'x'; largest]).await;
    assert_eq!(answer.status, 410, "there is room again");
}

#[tokio::test]
async fn a_refusal_reaches_who_is_still_sending() {
    let gateway = admin().start().await;
    let addr = gateway.admin_addr();
    let large = format!("Content-Length: {}", 30 << 20);
    for (more, status) in [
        (&["Content-Type: application/json", &*large][..], "413"),
        (&["Content-Type: text/plain", &*large], "415"),
    ] {
        let mut device = RawDevice::connect(addr).await;
        device
            .write(request("POST", "/api/v1/clients/dev1/messages", more))
            .await;
        let body = vec![b'x'; 1 << 20];
        for _ in 0..30 {
            if device.try_write(&body).await.is_err() {
                break;
            }
        }
        let head = device.read_head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
}

async fn assert_probes_are_answered(addr: SocketAddr) {
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(addr, path).await.status, 200, "{path}");
        assert_eq!(call(addr, "HEAD", path, &[], "").await.status, 200);
    }
}

/// Connections that have said so much and wait.
async fn crowd(addr: SocketAddr, says: &str) -> Vec<RawDevice> {
    let mut crowd = Vec::with_capacity(CROWD);
    for _ in 0..CROWD {
        let mut device = RawDevice::connect(addr).await;
        let _ = device.try_write(says).await; // the oldest may be gone
        crowd.push(device);
    }
    crowd
}

fn request(method: &str, path: &str, more: &[&str]) -> String {
    let more: String = more.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
}

fn content_length(head: &str) -> usize {
    let head = head.to_ascii_lowercase();
    let (_, rest) = head.split_once("content-length: ").expect("a length");
    let (length, _) = rest.split_once("\r\n").expect("a line");
    length.parse().expect("a number")
}

fn token() -> &'static str {
    TOKEN.1.strip_prefix("Bearer ").expect("it is one")
}

fn admin() -> GatewayBuilder {
    Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .admin()
}
