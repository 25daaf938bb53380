//! From what a device says to the request the backend gets.

use std::collections::BTreeMap;

use fastsock::Bridge;
use support::{Backend, Device, Received, eventually};

use crate::common::{alone, forwarding, utf8_vectors, vectors};

#[tokio::test]
async fn a_message_is_posted_with_the_originals_headers_and_body() {
    let backend = Backend::start().await;
    let gateway = forwarding(&backend).start().await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hello").await;
    device.send("{\"temp\":21}").await;
    let all = backend.wait_for(2).await;
    assert_eq!(
        (all[0].method.as_str(), all[0].target.as_str()),
        ("POST", "/uplink")
    );
    assert_eq!(all[0].body, r#"{"client_id":"dev1","data":"hello"}"#);
    assert_eq!(
        all[1].body,
        r#"{"client_id":"dev1","data":"{\"temp\":21}"}"#
    );
    assert_eq!(all[0].header("content-type"), Some("application/json"));
    assert_eq!(
        all[0].header("accept"),
        Some("application/json, text/plain, */*")
    );
    assert_eq!(all[0].header("content-length"), Some("35"));
    assert_eq!(
        all[0].header("host"),
        Some(backend.addr().to_string().as_str())
    );
    assert_eq!(all[1].header("x-fastsock-seq"), Some("2"));
    assert_eq!(all[1].header("x-fastsock-attempt"), Some("1"));
    let keys: Vec<_> = all
        .iter()
        .map(|r| r.header("idempotency-key").unwrap())
        .collect();
    assert!(keys[0] != keys[1] && keys[0].len() == 36, "{keys:?}");
    assert_eq!(
        all[0].connection, all[1].connection,
        "the connection is kept"
    );
}

#[tokio::test]
async fn remote_headers_override_everything_and_null_removes() {
    let backend = Backend::start().await;
    let headers = r#"{"content-type":"text/plain","Accept":null,"X-Api-Key":"k 1","n":7,"f":1.5,"b":true,
        "Idempotency-Key":null,"X-Fastsock-Seq":"mine","User-Agent":"fw/1","Host":"else.example","X-Gone":null,"Content-Length":"1"}"#;
    let gateway = forwarding(&backend)
        .var("REMOTE_HEADERS", headers)
        .start()
        .await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hello").await;
    let request = &backend.wait_for(1).await[0];
    let mut expected: BTreeMap<_, _> = [
        ("content-type", "text/plain"),
        ("x-api-key", "k 1"),
        ("n", "7"),
        ("f", "1.5"),
        ("b", "true"),
        ("x-fastsock-seq", "mine"),
        ("user-agent", "fw/1"),
        ("host", "else.example"),
        ("content-length", "35"),
        ("x-fastsock-attempt", "1"),
    ]
    .into();
    let session = request.header("x-fastsock-session").unwrap();
    expected.insert("x-fastsock-session", session);
    let epoch = request.header("x-fastsock-epoch").unwrap();
    expected.insert("x-fastsock-epoch", epoch);
    assert_eq!(sent(request), expected);
    assert_eq!(request.body, r#"{"client_id":"dev1","data":"hello"}"#);
}

#[tokio::test]
async fn without_extra_headers_a_request_has_the_originals_only() {
    let backend = Backend::start().await;
    let gateway = forwarding(&backend)
        .var("FASTSOCK_REMOTE_EXTRA_HEADERS", "off")
        .start()
        .await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send("hello").await;
    let request = &backend.wait_for(1).await[0];
    let names: Vec<_> = sent(request).into_keys().collect();
    assert_eq!(
        names,
        [
            "accept",
            "content-length",
            "content-type",
            "host",
            "user-agent"
        ]
    );
}

#[tokio::test]
async fn texts_are_escaped_as_node_does() {
    let backend = Backend::start().await;
    let gateway = forwarding(&backend).start().await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    let cases = vectors("json.json");
    for case in &cases {
        device.send(case["data"].as_str().unwrap()).await;
    }
    let all = backend.wait_for(cases.len()).await;
    for (case, request) in cases.iter().zip(&all) {
        assert_eq!(
            request.body,
            case["body"].as_str().unwrap(),
            "{}",
            case["data"]
        );
    }
}

#[tokio::test]
async fn a_client_id_is_escaped_too() {
    let backend = Backend::start().await;
    let gateway = forwarding(&backend).start().await;
    let id = "\"\\\n\u{1}\u{2028}é/";
    let mut device = Device::connect(gateway.addr(), id).await;
    device.send("x").await;
    let body = "{\"client_id\":\"\\\"\\\\\\n\\u0001\u{2028}é/\",\"data\":\"x\"}";
    assert_eq!(backend.wait_for(1).await[0].body, body);
}

#[tokio::test]
async fn a_binary_message_is_lossy_text_as_in_node() {
    let backend = Backend::start().await;
    let gateway = forwarding(&backend).start().await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    let cases = utf8_vectors();
    for (bytes, _) in &cases {
        device.send_binary(bytes.clone()).await;
    }
    let data = backend.wait_delivered("dev1", cases.len()).await;
    for ((bytes, text), data) in cases.iter().zip(&data) {
        assert_eq!(data, text, "{bytes:02x?}");
    }
}

#[tokio::test]
async fn a_binary_message_is_exact_in_base64() {
    let backend = Backend::start().await;
    let gateway = forwarding(&backend)
        .var("FASTSOCK_UPLINK_BINARY", "base64")
        .start()
        .await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    device.send_binary(&b"\x00\xff\x10"[..]).await;
    device.send_binary(&b""[..]).await;
    device.send("text stays text").await;
    let all = backend.wait_for(3).await;
    assert_eq!(
        all[0].body,
        r#"{"client_id":"dev1","data":"AP8Q","encoding":"base64"}"#
    );
    assert_eq!(
        all[1].body,
        r#"{"client_id":"dev1","data":"","encoding":"base64"}"#
    );
    assert_eq!(
        all[2].body,
        r#"{"client_id":"dev1","data":"text stays text"}"#
    );
}

#[tokio::test]
async fn a_message_of_a_mebibyte_is_posted_whole() {
    let backend = Backend::start().await;
    let gateway = forwarding(&backend).start().await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    let text: String = ('a'..='z').cycle().take(1 << 20).collect();
    device.send(text.clone()).await;
    assert!(backend.wait_delivered("dev1", 1).await == [text]);
}

#[tokio::test]
async fn without_a_remote_url_the_first_uplink_of_a_session_is_a_warning_and_later_ones_are_not() {
    let gateway = alone().start().await;
    for id in ["dev1", "dev2"] {
        let mut device = Device::connect(gateway.addr(), id).await;
        for text in ["one", "two", "three"] {
            device.send(text).await;
        }
    }
    let lines = eventually("all are logged", async || {
        let mut lines = gateway.lines();
        lines.retain(|l| {
            l["message"]
                .as_str()
                .unwrap()
                .starts_with("Message forwarding skipped")
        });
        Some(lines).filter(|lines| lines.len() == 6)
    })
    .await;
    for id in ["dev1", "dev2"] {
        let of_device: Vec<_> = lines
            .iter()
            .filter(|line| line["client_id"] == id)
            .collect();
        let field = |name: &str| {
            of_device
                .iter()
                .map(|l| l[name].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(field("level"), ["warn", "debug", "debug"]);
        assert_eq!(field("data"), ["one", "two", "three"]);
    }
}

#[tokio::test]
async fn without_a_remote_url_uplinks_are_counted_as_lost_for_that_reason() {
    let config = support::loopback();
    let bridge = Bridge::builder(config).start().await.unwrap();
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("one").await;
    device.send("two").await;
    eventually("both are counted", async || {
        bridge.stats().uplink.received == 2
    })
    .await;
    let uplink = bridge.stats().uplink;
    assert_eq!(
        (uplink.lost.no_remote_url, uplink.lost.total(), uplink.held),
        (2, 2, 0)
    );
    drop(device);
    bridge.stop(support::DEADLINE).await;
}

fn sent(request: &Received) -> BTreeMap<&str, &str> {
    let headers = request.headers.iter();
    headers
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}
