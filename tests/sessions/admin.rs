//! The admin listener: health, readiness, and sending to a device.

use std::net::SocketAddr;

use support::{
    Answer, Device, Gateway, GatewayBuilder, RawDevice, TempRedis, call, eventually, get,
};
use tokio_tungstenite::tungstenite::Message;

const JSON: (&str, &str) = ("content-type", "application/json");
const RAW: (&str, &str) = ("content-type", "application/octet-stream");

#[tokio::test]
async fn a_message_to_a_device_here_is_200_and_reaches_it() {
    let gateway = alone().start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev/1 ü:x").await;
    let path = "/api/v1/clients/dev%2F1%20%C3%BC:x/messages";
    for (media_type, body, expected) in [
        (
            JSON,
            &br#"{"data":"hello \u00e4"}"#[..],
            Message::text("hello ä"),
        ),
        (JSON, br#"{"data":""}"#, Message::text("")),
        (
            JSON,
            br#"{"data":"AP8=","encoding":"base64"}"#,
            Message::binary(&b"\x00\xff"[..]),
        ),
        (
            ("content-type", "Application/JSON; charset=utf-8"),
            br#"{"data":"x"}"#,
            Message::text("x"),
        ),
        (RAW, b"as it is", Message::text("as it is")),
        (RAW, b"\xff\x00", Message::binary(&b"\xff\x00"[..])),
        (RAW, b"", Message::text("")),
    ] {
        let answer = call(admin, "POST", path, &[media_type], body).await;
        assert_eq!(
            (answer.status, answer.json()["sent"].as_str()),
            (200, Some("here")),
            "{body:?}"
        );
        assert_eq!(device.recv().await, expected);
    }
}

#[tokio::test]
async fn a_message_is_202_when_another_gateway_has_the_device_and_410_when_nobody_has() {
    let redis = TempRedis::new().await;
    let with_redis = || async {
        let builder = Gateway::builder()
            .admin()
            .var("REDIS_PORT", redis.port().to_string());
        let gateway = builder.start().await;
        gateway.wait_line("Connected to Redis as subscriber").await;
        gateway.wait_line("Connected to Redis as publisher").await;
        gateway
    };
    let (here, elsewhere) = (with_redis().await, with_redis().await);
    let mut device = Device::connect(elsewhere.addr(), "dev1").await;
    redis.wait_field("fastsock:clients", "dev1").await;
    let answer = send(here.admin_addr(), "dev1", r#"{"data":"hello"}"#).await;
    assert_eq!(
        (answer.status, answer.json()["sent"].as_str()),
        (202, Some("elsewhere"))
    );
    assert_eq!(device.recv_text().await, "hello");
    let answer = send(elsewhere.admin_addr(), "dev1", r#"{"data":"hello"}"#).await;
    assert_eq!(answer.status, 200);

    device.close(1000).await;
    redis.wait_no_field("fastsock:clients", "dev1").await;
    for gateway in [&here, &elsewhere] {
        let answer = send(gateway.admin_addr(), "dev1", r#"{"data":"hello"}"#).await;
        assert_eq!(
            (answer.status, answer.json()["sent"].as_str()),
            (410, Some("offline"))
        );
    }
    let answer = send(
        alone().start().await.admin_addr(),
        "dev1",
        r#"{"data":"hello"}"#,
    )
    .await;
    assert_eq!(answer.status, 410, "without Redis too");
}

#[tokio::test]
async fn what_is_no_message_is_told_what_is_wrong() {
    let gateway = alone().start().await;
    let admin = gateway.admin_addr();
    let _device = Device::connect(gateway.addr(), "dev1").await;
    for body in [
        "",
        "{",
        "[]",
        "\"x\"",
        "{}",
        r#"{"data":1}"#,
        r#"{"data":"x","more":1}"#,
        r#"{"data":"x","encoding":"hex"}"#,
        r#"{"data":"?","encoding":"base64"}"#,
    ] {
        let answer = send(admin, "dev1", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.json()["error"].is_string());
    }
    for path in ["/api/v1", "/api/v1/client", "/api/v2/clients/dev1/messages"] {
        assert_eq!(
            call(admin, "POST", path, &[JSON], "{}").await.status,
            404,
            "{path}"
        );
    }
    for path in ["/", "/api/v1/clients", "/api/v1/clients/dev1"] {
        let answer = call(admin, "POST", path, &[JSON], "{}").await;
        assert_eq!(answer.status, 405, "{path}");
    }
    for path in [
        "/api/v1/clients//messages",
        "/api/v1/clients/%ff/messages",
        "/api/v1/clients/a/b/messages",
    ] {
        assert_eq!(
            call(admin, "POST", path, &[JSON], r#"{"data":"x"}"#)
                .await
                .status,
            400,
            "{path}"
        );
    }
    let answer = call(admin, "GET", "/api/v1/clients/dev1/messages", &[], "").await;
    assert_eq!(
        (answer.status, answer.headers["allow"].to_str().unwrap()),
        (405, "POST")
    );
    let answer = call(admin, "POST", "/healthz", &[JSON], "{}").await;
    assert_eq!(
        (answer.status, answer.headers["allow"].to_str().unwrap()),
        (405, "GET, HEAD")
    );
    let large = vec![b'x'; (16 << 20) + 1];
    let answer = call(
        admin,
        "POST",
        "/api/v1/clients/dev1/messages",
        &[RAW],
        large,
    )
    .await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn no_page_can_forge_a_message() {
    let gateway = alone().start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    let path = "/api/v1/clients/dev1/messages";
    for media_type in [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain;application/json",
        "",
    ] {
        let headers = [("content-type", media_type)];
        assert_eq!(
            call(admin, "POST", path, &headers, r#"{"data":"x"}"#)
                .await
                .status,
            415,
            "{media_type}"
        );
    }
    assert_eq!(
        call(admin, "POST", path, &[], r#"{"data":"x"}"#)
            .await
            .status,
        415
    );
    for host in ["evil.example", "127.0.0.1.evil.example:3001", "10.0.0.1"] {
        for path in [path, "/healthz", "/readyz"] {
            let answer = call(
                admin,
                "POST",
                path,
                &[JSON, ("host", host)],
                r#"{"data":"x"}"#,
            )
            .await;
            assert_eq!(answer.status, 403, "{host} {path}");
        }
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]:3001"] {
        let answer = call(
            admin,
            "POST",
            path,
            &[JSON, ("host", host)],
            format!(r#"{{"data":"{host}"}}"#),
        )
        .await;
        assert_eq!(answer.status, 200, "{host}");
        assert_eq!(
            device.recv_text().await,
            host,
            "and nothing of the others came"
        );
    }
}

#[tokio::test]
async fn a_page_that_asks_first_is_not_answered_and_one_by_another_name_sees_nothing() {
    let gateway = alone().start().await;
    let admin = gateway.admin_addr();
    let path = "/api/v1/clients/dev1/messages";
    // What a browser asks before a script of another site may send JSON, or read an answer.
    for path in [path, "/api/v1/reload", "/api/v1/stats", "/readyz"] {
        let headers = [
            ("origin", "https://evil.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        let answer = call(admin, "OPTIONS", path, &headers, "").await;
        assert_eq!(answer.status, 405, "{path}");
        let origin = [("origin", "https://evil.example")];
        for answer in [answer, call(admin, "GET", path, &origin, "").await] {
            let mut names = answer.headers.keys();
            assert!(
                names.all(|name| !name.as_str().starts_with("access-control-")),
                "{path}"
            );
        }
    }
    // DNS rebinding: the page's own name leads here, so it is the same origin to the browser.
    for path in ["/api/v1/stats", "/api/v1/reload", "/healthz"] {
        for method in ["GET", "POST"] {
            let headers = [JSON, ("host", "rebound.evil.example:3001")];
            let answer = call(admin, method, path, &headers, "{}").await;
            assert_eq!(answer.status, 403, "{method} {path}");
        }
    }
    let mut without_host = RawDevice::connect(admin).await;
    without_host
        .write("GET /api/v1/stats HTTP/1.0\r\n\r\n")
        .await;
    let head = without_host.read_head().await;
    assert!(head.starts_with("HTTP/1.0 403 "), "{head}");
    for media_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let headers = [("content-type", media_type)];
        let answer = call(admin, "POST", "/api/v1/reload", &headers, "").await;
        assert_eq!(answer.status, 415, "{media_type}");
    }
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let open = alone().start().await;
    let closed = alone()
        .var("FASTSOCK_ADMIN_TOKEN", "s3cret s3cret s3cret")
        .start()
        .await;
    let good = "Authorization: Bearer s3cret s3cret s3cret";
    let (many, long) = ("A: b\r\n".repeat(70), "x".repeat(64 << 10));
    let json = "Content-Type: application/json";
    for (gateway, request, lines, status) in [
        (
            &open,
            "GET /healthz HTTP/1.1",
            &["Host: localhost"][..],
            200,
        ),
        (
            &open,
            "GET /healthz HTTP/1.1",
            &["Host: localhost", "Host: localhost"],
            400,
        ),
        (
            &open,
            "GET /healthz HTTP/1.1",
            &["Host: localhost", "host: evil.example"],
            400,
        ),
        (
            &closed,
            "GET /healthz HTTP/1.0",
            &["Host: a", "Host: b"],
            400,
        ),
        (
            &open,
            "GET http://localhost:1/healthz HTTP/1.1",
            &["Host: localhost"],
            200,
        ),
        (
            &open,
            "GET http://evil.example/healthz HTTP/1.1",
            &["Host: localhost"],
            403,
        ),
        (
            &open,
            "GET http://localhost/healthz HTTP/1.1",
            &["Host: evil.example"],
            403,
        ),
        (
            &open,
            "GET http://localhost:1@evil.example/healthz HTTP/1.1",
            &["Host: localhost"],
            403,
        ),
        (&open, "GET /healthz HTTP/1.0", &["Host: localhost"], 200),
        (&open, "HEAD /healthz HTTP/1.0", &["Host: localhost"], 200),
        (
            &open,
            "GET /healthz HTTP/1.1",
            &["Host: localhost", &many],
            431,
        ),
        (
            &open,
            "GET /healthz HTTP/1.1",
            &["Host: localhost", &format!("A: {long}")],
            431,
        ),
        (
            &open,
            &format!("GET /healthz?{long} HTTP/1.1"),
            &["Host: localhost"],
            431,
        ),
        (&open, "GET /healthz HTTP/1.1", &["Host : localhost"], 400),
        (
            &open,
            "GET /healthz HTTP/1.1",
            &["Host: localhost", " folded"],
            400,
        ),
        (&open, "GET /healthz HTTP/9.9", &["Host: localhost"], 400),
        (
            &closed,
            "GET /api/v1/stats HTTP/1.1",
            &["Host: localhost", good],
            200,
        ),
        (
            &closed,
            "GET /api/v1/stats HTTP/1.1",
            &["Host: localhost", good, good],
            400,
        ),
        (
            &closed,
            "GET /api/v1/stats HTTP/1.1",
            &["Host: localhost", "Authorization: Basic x", good],
            400,
        ),
        (
            &open,
            "POST /api/v1/reload HTTP/1.1",
            &["Host: localhost", json],
            200,
        ),
        (
            &open,
            "POST /api/v1/reload HTTP/1.1",
            &["Host: localhost", json, "Content-Type: text/plain"],
            415,
        ),
    ] {
        let mut device = RawDevice::connect(gateway.admin_addr()).await;
        let _ = device
            .try_write(format!("{request}\r\n{}\r\n\r\n", lines.join("\r\n")))
            .await; // what is too long is not read to its end
        let head = device.read_head().await;
        assert_eq!(
            &head[9..12],
            status.to_string(),
            "{request} {lines:?}: {head}"
        );
        if request.starts_with("HEAD") {
            assert_eq!(device.read_to_end().await, b"");
        }
    }
}

#[tokio::test]
async fn it_tells_its_books_and_reads_its_files_again() {
    let gateway = alone().start().await;
    let admin = gateway.admin_addr();
    let _device = Device::connect(gateway.addr(), "dev1").await;
    let stats = get(admin, "/api/v1/stats").await;
    assert_eq!(stats.status, 200);
    assert_eq!(stats.json()["sessions"]["connected"], 1);
    let answer = call(admin, "POST", "/api/v1/reload", &[JSON], "{}").await;
    assert_eq!(
        (answer.status, answer.json()["status"].as_str()),
        (200, Some("reloaded"))
    );
    gateway.wait_line("Reloaded").await;
    let answer = get(admin, "/api/v1/reload").await;
    assert_eq!(
        (answer.status, answer.headers["allow"].to_str().unwrap()),
        (405, "POST")
    );
}

#[tokio::test]
async fn a_reload_that_fails_says_why() {
    let authority = support::Authority::new();
    let identity = authority.issue_for_loopback();
    let gateway = alone()
        .var("FASTSOCK_TLS_CERT", identity.cert_path.to_str().unwrap())
        .var("FASTSOCK_TLS_KEY", identity.key_path.to_str().unwrap())
        .var("FASTSOCK_ADMIN_TOKEN", "s3cret")
        .start()
        .await;
    let admin = gateway.admin_addr();
    assert_eq!(
        call(admin, "POST", "/api/v1/reload", &[JSON], "")
            .await
            .status,
        401
    );
    assert_eq!(get(admin, "/api/v1/stats").await.status, 401);
    std::fs::write(&identity.cert_path, "no certificate").unwrap();
    let headers = [JSON, ("authorization", "Bearer s3cret")];
    let answer = call(admin, "POST", "/api/v1/reload", &headers, "").await;
    assert_eq!(answer.status, 422);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("FASTSOCK_TLS_CERT: "), "{error}");
}

#[tokio::test]
async fn a_token_is_asked_for_once_one_is_set() {
    let builder = alone()
        .file("token", "s3cret\n")
        .var("FASTSOCK_ADMIN_TOKEN_FILE", "token");
    let gateway = builder.start().await;
    let admin = gateway.admin_addr();
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    let path = "/api/v1/clients/dev1/messages";
    for authorization in [
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer s3cre",
        "Bearer s3crets",
        "Basic s3cret",
        "s3cret",
    ] {
        let headers = [JSON, ("authorization", authorization)];
        let answer = call(admin, "POST", path, &headers, r#"{"data":"x"}"#).await;
        assert_eq!(answer.status, 401, "{authorization}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let headers = [JSON, ("authorization", "bearer s3cret")];
    assert_eq!(
        call(admin, "POST", path, &headers, r#"{"data":"let in"}"#)
            .await
            .status,
        200
    );
    assert_eq!(device.recv_text().await, "let in");
    assert_eq!(
        get(admin, "/healthz").await.status,
        200,
        "a probe needs none"
    );
}

#[tokio::test]
async fn beyond_loopback_any_host_will_do_and_the_token_is_needed() {
    let builder = alone()
        .var("FASTSOCK_ADMIN_ADDR", "0.0.0.0:0")
        .var("FASTSOCK_ADMIN_TOKEN", "0123456789abcdef");
    let gateway = builder.start().await;
    let admin = gateway.admin_addr();
    let path = "/api/v1/clients/dev1/messages";
    let host = ("host", "gateway.example:3001");
    assert_eq!(
        call(admin, "POST", path, &[JSON, host], r#"{"data":"x"}"#)
            .await
            .status,
        401
    );
    let headers = [JSON, host, ("authorization", "Bearer 0123456789abcdef")];
    assert_eq!(
        call(admin, "POST", path, &headers, r#"{"data":"x"}"#)
            .await
            .status,
        410
    );
}

#[tokio::test]
async fn a_full_outbox_is_429() {
    let gateway = alone()
        .var("FASTSOCK_DOWNLINK_FULL", "drop_newest")
        .var("FASTSOCK_OUTBOX_MESSAGES", "1")
        .start()
        .await;
    let mut deaf = RawDevice::connect_with_buffer(gateway.addr(), 4096).await;
    deaf.write(RawDevice::upgrade_request("/?token=deaf", &[]))
        .await;
    deaf.read_head().await;
    let body = "x".repeat(1 << 20);
    let answer = eventually("it takes no more", async || {
        let answer = call(
            gateway.admin_addr(),
            "POST",
            "/api/v1/clients/deaf/messages",
            &[RAW],
            body.clone(),
        )
        .await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 429);
    assert!(answer.json()["error"].as_str().unwrap().contains("full"));
}

#[tokio::test]
async fn health_and_readiness_say_what_is() {
    let gateway = alone().start().await;
    let admin = gateway.admin_addr();
    assert_eq!(get(admin, "/healthz").await.json()["status"], "ok");
    let answer = get(admin, "/readyz").await;
    assert_eq!(
        (answer.status, answer.text()),
        (200, r#"{"broker":"embedded","status":"ready"}"#.into())
    );
    assert_eq!(call(admin, "HEAD", "/readyz", &[], "").await.status, 200);

    let mut redis = TempRedis::new().await;
    let port = redis.port().to_string();
    let lenient = Gateway::builder()
        .admin()
        .var("REDIS_PORT", &port)
        .start()
        .await;
    let strict = Gateway::builder()
        .admin()
        .var("REDIS_PORT", &port)
        .var("FASTSOCK_READY_REQUIRES_BROKER", "on")
        .start()
        .await;
    for (gateway, degraded) in [(&lenient, 200), (&strict, 503)] {
        wait_ready(gateway, 200, "ready").await;
        redis.kill();
        wait_ready(gateway, degraded, "degraded").await;
        assert_eq!(get(gateway.admin_addr(), "/healthz").await.status, 200);
        redis.start().await;
        wait_ready(gateway, 200, "ready").await;
    }
}

#[tokio::test]
async fn while_it_stops_it_is_not_ready() {
    let backend = support::Backend::start().await;
    backend.answer_all(support::Reply::hang());
    let mut gateway = alone().var("REMOTE_URL", backend.url()).start().await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("holds up the end").await;
    backend.wait_for(1).await;
    gateway.process().terminate();
    wait_ready(&gateway, 503, "stopping").await;
    let answer = send(gateway.admin_addr(), "dev1", r#"{"data":"x"}"#).await;
    assert_eq!(answer.status, 503);
    gateway.process().terminate(); // no longer than that
    assert_eq!(gateway.exit_code().await, Some(1));
}

async fn wait_ready(gateway: &Gateway, status: u16, word: &str) {
    eventually(&format!("/readyz says {status} {word}"), async || {
        let answer = get(gateway.admin_addr(), "/readyz").await;
        answer.status == status && answer.json()["status"] == word
    })
    .await;
}

async fn send(admin: SocketAddr, client_id: &str, body: &str) -> Answer {
    let path = format!("/api/v1/clients/{client_id}/messages");
    call(admin, "POST", &path, &[JSON], body.to_owned()).await
}

fn alone() -> GatewayBuilder {
    Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .admin()
}
