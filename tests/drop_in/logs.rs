//! The log: texts, levels, fields, and where they go.

use serde_json::Value;
use support::{Backend, Device, Gateway, Reply, TempRedis, eventually};

use crate::common::{alone, forwarding, with_redis};

#[tokio::test]
async fn the_lines_have_the_originals_texts_levels_and_fields() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let builder = Gateway::builder()
        .var("REMOTE_URL", backend.url())
        .var("WEBSOCKET_PING_INTERVAL", "500");
    let mut gateway = with_redis(&redis, builder).await;
    let device = Device::connect(gateway.addr(), "dev1").await.attend();
    redis.publish("fastsock:client:dev1", "down \"1\"").await;
    device.wait_texts(1).await;
    device.send("up \"1\"").await;
    gateway.wait_line("Forwarded message to remote").await;
    gateway.wait_line("Pong from client").await;
    drop(device);
    gateway.wait_line("Client disconnected").await;
    assert_eq!(gateway.stop().await, Some(0));

    let ready = format!(
        "WebSocket server running on ws://0.0.0.0:{}",
        gateway.addr().port()
    );
    for (message, level, client_id, data) in [
        (ready.as_str(), "info", None, None),
        ("Connected to Redis as publisher", "info", None, None),
        ("Connected to Redis as subscriber", "info", None, None),
        ("Client connected", "info", Some("dev1"), None),
        (
            "Message sent to client",
            "info",
            Some("dev1"),
            Some("down \"1\""),
        ),
        (
            "Forwarded message to remote",
            "info",
            Some("dev1"),
            Some("up \"1\""),
        ),
        ("Pong from client", "debug", Some("dev1"), None),
        ("Client disconnected", "info", Some("dev1"), None),
        ("Shutdown initiated... Exit code: 0", "warn", None, None),
        ("Disconnecting Redis clients...", "warn", None, None),
        ("Shutdown complete.", "warn", None, None),
    ] {
        let line = gateway
            .lines_with(message)
            .into_iter()
            .find(|l| l["message"] == message);
        let line = line.unwrap_or_else(|| panic!("{message}\n{}", gateway.output()));
        let field = |name: &str| line.get(name).and_then(Value::as_str);
        assert_eq!(field("level"), Some(level), "{line}");
        assert_eq!(field("client_id"), client_id, "{line}");
        assert_eq!(field("data"), data, "{line}");
        assert!(is_iso_ms(field("timestamp").unwrap()), "{line}");
    }
    let is_flat = |line: &Value| {
        line.as_object()
            .unwrap()
            .values()
            .all(|v| !v.is_object() && !v.is_array())
    };
    assert!(gateway.lines().iter().all(is_flat));
    assert_eq!(
        gateway.log_file(),
        gateway.lines(),
        "the file has what the console has"
    );
    assert_eq!(gateway.stderr(), [""; 0]);
}

#[tokio::test]
async fn the_log_file_is_appended_to() {
    let mut gateway = alone().file("keep", "").start().await;
    let dir = gateway.dir().to_owned();
    gateway.stop().await;
    let first = gateway.log_file();
    let again = alone()
        .var(
            "FASTSOCK_LOG_FILE",
            dir.join("logs/fastsock.log").to_string_lossy(),
        )
        .start()
        .await;
    eventually("a second run has appended", async || {
        let lines = gateway.log_file();
        lines.len() >= first.len() + again.lines().len() && lines[..first.len()] == first[..]
    })
    .await;
    assert!(!again.dir().join("logs").exists());
}

#[tokio::test]
async fn levels_are_winstons() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(400));
    for (level, shown) in [
        ("info", &["info", "warn", "error"][..]),
        ("http", &["info", "warn", "error"]),
        ("verbose", &["info", "warn", "error"]),
        ("debug", &["info", "warn", "error", "debug"]),
        ("silly", &["info", "warn", "error", "debug"]),
    ] {
        let mut gateway = forwarding(&backend)
            .var("LOG_LEVEL", level)
            .var("WEBSOCKET_PING_INTERVAL", "500")
            .start()
            .await;
        let device = Device::connect(gateway.addr(), "dev1").await.attend();
        device.send("x").await;
        gateway
            .wait_line("Failed to forward message to remote")
            .await;
        eventually("it has answered pings", async || device.pings() > 1).await;
        gateway.stop().await;
        drop(device);
        let lines = gateway.lines();
        for name in ["info", "warn", "error", "debug"] {
            let is_there = lines.iter().any(|line| line["level"] == name);
            assert_eq!(is_there, shown.contains(&name), "{name} at {level}");
        }
    }
}

#[tokio::test]
async fn payloads_are_logged_capped_in_full_or_not_at_all() {
    let text = "ä".repeat(2000);
    for (payloads, expected) in [
        ("capped", Some("ä".repeat(512))),
        ("full", Some(text.clone())),
        ("none", None),
    ] {
        let (redis, backend) = (TempRedis::new().await, Backend::start().await);
        let builder = Gateway::builder()
            .var("FASTSOCK_LOG_PAYLOADS", payloads)
            .var("REMOTE_URL", backend.url());
        let gateway = with_redis(&redis, builder).await;
        let mut device = Device::connect(gateway.addr(), "dev1").await;
        device.send(text.clone()).await;
        redis.publish("fastsock:client:dev1", &text).await;
        for message in ["Forwarded message to remote", "Message sent to client"] {
            let line = gateway.wait_line(message).await;
            assert_eq!(
                line.get("data").and_then(Value::as_str),
                expected.as_deref(),
                "{message}"
            );
        }
    }
}

#[tokio::test]
async fn a_failing_message_is_an_error_at_first_and_debug_between() {
    let backend = Backend::start().await;
    backend.queue([Reply::new(500), Reply::new(500)]);
    let gateway = forwarding(&backend).start().await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hello").await;
    gateway.wait_line("Forwarded message to remote").await;
    let failed: Vec<_> = gateway
        .lines()
        .into_iter()
        .filter(|line| line.get("error").is_some() && line["client_id"] == "dev1")
        .collect();
    let levels: Vec<_> = failed
        .iter()
        .map(|line| line["level"].as_str().unwrap())
        .collect();
    assert_eq!(levels, ["error", "debug"], "{failed:#?}");
    assert_eq!(failed[0]["message"], "Failed to forward message to remote");
    assert_eq!(failed[0]["data"], "hello");
    assert!(
        failed[0]["error"].as_str().unwrap().contains("500"),
        "{}",
        failed[0]
    );
}

#[tokio::test]
async fn a_message_that_is_given_up_is_an_error() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(422));
    let gateway = forwarding(&backend).start().await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hello").await;
    let line = gateway
        .wait_line("Failed to forward message to remote")
        .await;
    assert_eq!(
        (&line["level"], &line["data"]),
        (&"error".into(), &"hello".into())
    );
    assert!(line["error"].as_str().unwrap().contains("422"), "{line}");
}

#[tokio::test]
async fn a_token_that_is_not_the_id_and_secrets_are_never_logged() {
    let redis = TempRedis::builder().password("s3cret-r").start().await;
    let backend = Backend::start().await;
    let remote = backend.url().replace("//", "//user:s3cret-u@") + "?key=s3cret-q";
    let mut gateway = Gateway::builder()
        .var(
            "FASTSOCK_REDIS_URL",
            redis.url().replace("//", "//:s3cret-r@"),
        )
        .var("REMOTE_URL", remote)
        .var("REMOTE_HEADERS", r#"{"X-Api-Key":"s3cret-h"}"#)
        .var("FASTSOCK_ADMIN_TOKEN", "s3cret-a")
        .var("LOG_LEVEL", "silly")
        .start()
        .await;
    gateway.wait_line("Connected to Redis as subscriber").await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    backend.queue([
        Reply::close(),
        Reply::new(500),
        Reply::redirect(302, "/?s3cret-l"),
        Reply::hang(),
    ]);
    device.send("hello").await;
    backend.wait_for(4).await;
    backend.go_down().await;
    let refused = Device::request(
        gateway.addr(),
        "/?nothing=s3cret-t",
        &[("authorization", "Bearer s3cret-b")],
    );
    assert_eq!(refused.await.unwrap_err().status, 401);
    gateway
        .wait_line("Failed to forward message to remote")
        .await;
    gateway.stop().await;
    for line in gateway.stdout().iter().chain(&gateway.stderr()) {
        assert!(!line.contains("s3cret"), "{line}");
    }
}

/// `2024-01-02T03:04:05.678Z`
fn is_iso_ms(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    shape == "0000-00-00T00:00:00.000Z"
}
