//! `FASTSOCK_REMOTE_CONTEXT` and `FASTSOCK_REMOTE_FORWARD_HEADERS`: what a backend is told of a session.

use serde_json::json;
use support::{Backend, Device, Reply, eventually};

use crate::common::{bridge, config};

const SETTINGS: [(&str, &str); 5] = [
    ("device_paths", "/ocpp/{id}"),
    ("subprotocols", "ocpp1.6"),
    ("remote_context", "on"),
    ("remote_forward_headers", "X-Serial,User-Agent"),
    ("auth", "webhook"),
];

const HEADERS: [(&str, &str); 5] = [
    ("authorization", "Bearer s3cret"),
    ("sec-websocket-protocol", "ocpp1.5, ocpp1.6"),
    ("x-serial", "a,b"),
    ("x-serial", "100%"),
    ("user-agent", "station/1"),
];

async fn webhook() -> Backend {
    let webhook = Backend::start().await;
    let answer = json!({ "allow": true, "client_id": "CP é", "metadata": { "site": "é\r\n" } });
    webhook.answer_all(Reply::ok().body(answer.to_string()));
    webhook
}

#[tokio::test]
async fn each_post_and_each_event_tells_what_is_known_of_the_session() {
    let (webhook, backend, events) = (
        webhook().await,
        Backend::start().await,
        Backend::start().await,
    );
    let urls = [
        ("auth_url", &*webhook.url()),
        ("remote_url", &backend.url()),
        ("events_url", &events.url()),
        ("remote_headers", r#"{"X-Fastsock-Remote-Addr":"ours"}"#),
    ];
    let bridge = bridge(&[&SETTINGS, &urls[..]].concat()).await;
    let device = Device::request(bridge.local_addr(), "/ocpp/CP%20%C3%A9?a=b", &HEADERS).await;
    let mut device = device.unwrap();
    device.send("hello").await;
    eventually("the message is there", async || backend.count() == 1).await;
    let post = backend.requests().remove(0);
    let connected_at = post.header("x-fastsock-connected-at").unwrap().to_owned();
    for (name, expected) in [
        ("x-fastsock-client-id", Some("CP%20%C3%A9")),
        ("x-fastsock-path", Some("/ocpp/CP%20%C3%A9")),
        ("x-fastsock-protocol", Some("ocpp1.6")),
        ("x-fastsock-metadata", Some(r#"{"site":"%C3%A9\r\n"}"#)),
        ("x-fastsock-remote-addr", Some("ours")),
        ("user-agent", Some("station/1")),
        ("x-serial", Some("a,b")),
        ("authorization", None),
    ] {
        assert_eq!(post.header(name), expected, "{name}");
    }
    assert_eq!(post.json(), json!({ "client_id": "CP é", "data": "hello" }));
    device.close(1000).await;
    eventually("both events are there", async || events.count() == 2).await;
    for (event, kind) in events.requests().iter().zip(["connect", "disconnect"]) {
        let event = event.json();
        assert_eq!(event["type"], kind);
        assert_eq!(
            (&event["path"], &event["protocol"]),
            (&json!("/ocpp/CP%20%C3%A9"), &json!("ocpp1.6"))
        );
        assert_eq!(
            event["connected_at"],
            json!(connected_at.parse::<u64>().unwrap())
        );
        assert_eq!(event["metadata"], json!({ "site": "é\r\n" }));
        assert_eq!(
            event["headers"],
            json!({ "x-serial": ["a,b", "100%"], "user-agent": ["station/1"] })
        );
    }
}

#[tokio::test]
async fn it_is_told_after_a_restart_too() {
    let (webhook, backend) = (webhook().await, Backend::start().await);
    backend.answer_all(Reply::new(503));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    let (auth_url, url) = (webhook.url(), backend.url());
    let more = [
        ("auth_url", &*auth_url),
        ("remote_url", &url),
        ("spool", "disk"),
        ("data_dir", &path),
    ];
    let settings = [&SETTINGS, &more[..]].concat();
    let first = bridge(&settings).await;
    let device = Device::request(first.local_addr(), "/ocpp/CP%20%C3%A9", &HEADERS).await;
    device.unwrap().send("hello").await;
    eventually("it is tried", async || backend.count() > 0).await;
    first.stop(std::time::Duration::from_secs(8)).await;
    let tried = backend.count();
    backend.answer_all(Reply::ok());
    let _second = bridge(&settings).await;
    eventually("it is delivered", async || backend.count() > tried).await;
    let posts = backend.requests();
    for name in [
        "x-fastsock-path",
        "x-fastsock-protocol",
        "x-fastsock-metadata",
        "x-fastsock-connected-at",
        "x-fastsock-remote-addr",
        "x-serial",
        "user-agent",
    ] {
        let (before, after) = (posts[0].header(name), posts[tried].header(name));
        assert!(
            before.is_some() && before == after,
            "{name}: {before:?} {after:?}"
        );
    }
}

#[test]
fn headers_that_are_not_the_devices_own_are_refused_as_settings() {
    for name in [
        "Authorization",
        "Cookie",
        "Host",
        "Connection",
        "Content-Type",
        "Transfer-Encoding",
        "X-Fastsock-Client-Id",
        "Idempotency-Key",
        "webhook-signature",
        "Accept-Encoding",
    ] {
        let error = config(&[]).set("remote_forward_headers", name).unwrap_err();
        let line = error.to_line();
        assert!(
            line.starts_with("remote_forward_headers") || line.contains("FORWARD_HEADERS"),
            "{line}"
        );
        assert!(line.contains(name), "{line}");
    }
    for name in ["Authorization", "Cookie"] {
        config(&[]).set("auth_forward_headers", name).unwrap();
    }
    let alone = config(&[("remote_forward_headers", "X-Serial")]).check();
    assert!(
        alone
            .unwrap_err()
            .to_line()
            .contains("FASTSOCK_REMOTE_CONTEXT is off")
    );
    let batch = config(&[("remote_context", "on"), ("remote_batch", "2")]).check();
    assert!(
        batch
            .unwrap_err()
            .to_line()
            .contains("FASTSOCK_REMOTE_BATCH")
    );
}
