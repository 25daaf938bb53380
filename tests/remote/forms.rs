//! What a POST is made of when the settings say so: raw messages, and URLs that name the device.

use fastsock::{Bridge, RemoteBody, Secret, SpoolKind};
use support::{Backend, DEADLINE, Device, Received, Reply, TempRedis};
use tokio_tungstenite::tungstenite::Message;

use super::{config, start};

#[tokio::test]
async fn a_raw_message_is_posted_byte_for_byte_with_its_id_and_kind_in_headers() {
    let backend = Backend::start().await;
    for (content_type, text, binary) in [
        (
            None,
            "text/plain; charset=utf-8",
            "application/octet-stream",
        ),
        (
            Some("application/cbor"),
            "application/cbor",
            "application/cbor",
        ),
    ] {
        let before = backend.count();
        let config = config(&backend)
            .remote_body(RemoteBody::Raw)
            .remote_content_type(content_type.map(str::to_owned))
            .remote_url(Some(format!("http://{}/in?k=v", backend.addr())));
        let bridge = start(config).await;
        let mut device = Device::connect(bridge.local_addr(), "grüß% 1").await;
        let bytes: Vec<u8> = (0..=255).collect();
        device.send("{\"a\": \"ü\"}\n").await;
        device.send_binary(bytes.clone()).await;
        device.send("").await;
        let all = backend.wait_for(before + 3).await;
        let expected: [(&[u8], _, _); 3] = [
            ("{\"a\": \"ü\"}\n".as_bytes(), text, "text"),
            (&bytes, binary, "binary"),
            (b"", text, "text"),
        ];
        for (request, (body, content_type, kind)) in all[before..].iter().zip(expected) {
            assert_eq!(request.body, body);
            assert_eq!(request.target, "/in?k=v");
            for (name, value) in [
                ("content-type", content_type),
                ("x-fastsock-kind", kind),
                ("x-fastsock-client-id", "gr%C3%BC%C3%9F%25%201"),
            ] {
                assert_eq!(request.header(name), Some(value), "{name}");
            }
            assert!(request.header("idempotency-key").is_some());
        }
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test]
async fn remote_headers_override_those_of_a_raw_message_too() {
    let backend = Backend::start().await;
    let mut config = config(&backend)
        .remote_body(RemoteBody::Raw)
        .remote_extra_headers(false);
    let headers = r#"{"Content-Type":"a/b","X-Fastsock-Kind":null}"#;
    config.set("remote_headers", headers).unwrap();
    let bridge = start(config).await;
    Device::connect(bridge.local_addr(), "dev1")
        .await
        .send("hi")
        .await;
    let request = backend.wait_for(1).await.remove(0);
    assert_eq!(request.header("content-type"), Some("a/b"));
    assert_eq!(request.header("x-fastsock-kind"), None);
    assert_eq!(request.header("x-fastsock-client-id"), Some("dev1"));
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_reply_to_a_raw_message_is_handed_on_byte_for_byte() {
    let backend = Backend::start().await;
    let bytes: Vec<u8> = (0..=255).collect();
    let answer = |kind: &str, body: Vec<u8>| Reply::ok().header("content-type", kind).body(body);
    backend.queue([
        answer("application/x-protobuf", bytes.clone()),
        answer("application/cbor", b"abc".to_vec()),
        answer("application/json", b"{}".to_vec()),
    ]);
    let config = config(&backend)
        .remote_body(RemoteBody::Raw)
        .remote_reply(true);
    let bridge = start(config).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    for expected in [
        Message::binary(bytes),
        Message::binary(&b"abc"[..]),
        Message::text("{}"),
    ] {
        device.send_binary(vec![1]).await;
        assert_eq!(device.recv().await, expected);
    }
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_client_id_in_the_url_stays_in_its_segment_and_one_that_cannot_is_refused() {
    let backend = Backend::start().await;
    let url = format!(
        "http://{}/devices/{{client_id}}/messages?k={{}}",
        backend.addr()
    );
    let bridge = start(config(&backend).remote_url(Some(url))).await;
    for (count, (token, segment)) in [
        ("dev1", "dev1"),
        ("a b?c#d", "a%20b%3Fc%23d"),
        ("%2e%2e", "%252e%252e"),
        ("%2F", "%252F"),
        ("ü", "%C3%BC"),
    ]
    .into_iter()
    .enumerate()
    {
        Device::connect(bridge.local_addr(), token)
            .await
            .send("hi")
            .await;
        let request = backend.wait_for(count + 1).await.pop().unwrap();
        let target = format!("/devices/{segment}/messages?k={{}}");
        assert_eq!(request.target, target);
    }
    for token in ["..", ".", "a/b", "../../admin", "\\", "a\0", "\r\nX: y"] {
        let refused = Device::try_connect(bridge.local_addr(), token).await;
        assert_eq!(refused.unwrap_err().status, 400, "{token}");
    }
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn the_parts_of_a_path_are_in_the_url_and_still_are_after_a_restart() {
    let (backend, redis, data) = (
        Backend::start().await,
        TempRedis::new().await,
        tempfile::tempdir().unwrap(),
    );
    let url = format!("http://{}/{{tenant}}/devices/{{id}}", backend.addr());
    let mut base = config(&backend).remote_url(Some(url));
    base.set("device_paths", "/t/{tenant}/{id}").unwrap();
    base.set("client_id", "{tenant}/{id}").unwrap();
    let disk = base.clone().spool(SpoolKind::Disk);
    let shared = base.spool(SpoolKind::Redis);
    for config in [
        disk.data_dir(Some(data.path().to_owned())),
        shared.redis_url(Some(Secret::new(redis.url()))),
    ] {
        backend.answer_all(Reply::new(503));
        let bridge = start(config.clone()).await;
        let target = "/t/a%20b/CP%252F1";
        let device = Device::request(bridge.local_addr(), target, &[]).await;
        device.unwrap().send("hi").await;
        backend
            .wait_until("an attempt", |all| {
                all.last().is_some_and(|last| !last.is_delivered())
            })
            .await;
        for path in ["/t/a%2Fb/x", "/t/x/a%5Cb"] {
            let refused = Device::request(bridge.local_addr(), path, &[]).await;
            assert_eq!(refused.unwrap_err().status, 400, "{path}");
        }
        bridge.stop(DEADLINE).await;
        backend.answer_all(Reply::ok());
        let bridge = start(config).await;
        backend
            .wait_until("a delivery", |all| {
                all.last().is_some_and(Received::is_delivered)
            })
            .await;
        let request = backend.requests().pop().unwrap();
        assert_eq!(request.target, "/a%20b/devices/CP%252F1");
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test]
async fn a_url_that_names_what_a_device_does_not_have_is_told() {
    let problem = async |config: fastsock::Config| {
        let error = Bridge::builder(config).start().await.unwrap_err();
        error.to_line()
    };
    let backend = Backend::start().await;
    let base = || config(&backend);
    let to = |url: &str| base().remote_url(Some(url.into()));
    let line = problem(to("http://127.0.0.1/{client}")).await;
    assert_eq!(
        line,
        "REMOTE_URL: FASTSOCK_DEVICE_PATHS has no {client}; {client_id} is allowed"
    );
    let mut config = to("http://127.0.0.1/{client}/{id}");
    config.set("device_paths", "/t/{tenant}/{id}").unwrap();
    config.set("client_id", "{tenant}/{id}").unwrap();
    assert_eq!(
        problem(config.clone()).await,
        "REMOTE_URL: FASTSOCK_DEVICE_PATHS has no {client}; {client_id}, {tenant}, {id} are allowed"
    );
    let line = problem(config.remote_url(Some("http://127.0.0.1/{client_id}".into()))).await;
    assert!(
        line.starts_with("REMOTE_URL: FASTSOCK_CLIENT_ID has a slash"),
        "{line}"
    );
    let line = problem(to("http://127.0.0.1/x?id={client_id}")).await;
    assert!(
        line.starts_with("REMOTE_URL: {client_id} must be a whole segment"),
        "{line}"
    );
    let line = problem(to("http://127.0.0.1/{client_id}").remote_batch(2usize)).await;
    assert!(
        line.starts_with("FASTSOCK_REMOTE_BATCH: REMOTE_URL with named parts"),
        "{line}"
    );
    let line = problem(base().remote_body(RemoteBody::Raw).remote_batch(2usize)).await;
    assert!(
        line.starts_with("FASTSOCK_REMOTE_BATCH: FASTSOCK_REMOTE_BODY=raw"),
        "{line}"
    );
    let line = problem(base().remote_content_type(Some("a/b".to_owned()))).await;
    assert!(
        line.starts_with("FASTSOCK_REMOTE_CONTENT_TYPE: it has no effect"),
        "{line}"
    );
    let mut config = base();
    config.set("remote_content_type", "cbor").unwrap_err();
}
