//! `FASTSOCK_AUTH=webhook`.

use std::time::Duration;

use fastsock::Bridge;
use futures_util::future::join_all;
use serde_json::json;
use support::{Backend, Device, Gateway, RawDevice, Reply, eventually};
use tokio::time::Instant;

use crate::common::{Place, bridge, config, from_now, visit};

#[tokio::test]
async fn it_is_told_what_a_device_shows_and_says_who_it_is() {
    let webhook = Backend::start().await;
    webhook.answer(|request| {
        let name = format!("dev-{}", request.json()["place"].as_str().unwrap());
        Reply::ok().body(json!({ "allow": true, "client_id": name }).to_string())
    });
    let headers = r#"{"X-Api-Key":"k3y","Accept":null}"#;
    let bridge = start(&webhook, &[("auth_headers", headers)]).await;
    for (place, name) in Place::ALL
        .into_iter()
        .zip(["bearer", "subprotocol", "query"])
    {
        assert_eq!(visit(&bridge, place, "s3cret").await, format!("dev-{name}"));
        let request = webhook.requests().pop().unwrap();
        let body = request.json();
        assert_eq!(
            (&body["credential"], &body["place"]),
            (&json!("s3cret"), &json!(name))
        );
        let from = body["remote_addr"].as_str().unwrap();
        assert!(from.starts_with("127.0.0.1:"), "{from}");
        assert_eq!(
            (&body["method"], &body["path"]),
            (&json!("GET"), &json!("/"))
        );
        let query = match name {
            "query" => "token=s3cret",
            _ => "",
        };
        assert_eq!(body["query"], query);
        assert!(body["tls"].is_null() && body["client_id"].is_null());
        assert_eq!(
            (&request.method[..], request.header("x-api-key")),
            ("POST", Some("k3y"))
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("accept"), None);
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
    assert_eq!(webhook.count(), 3);
}

#[tokio::test]
async fn it_fails_closed() {
    let webhook = Backend::start().await;
    let bridge = start(&webhook, &[("auth_timeout", "3000")]).await;
    let allowed = || Reply::ok().body(r#"{"allow":true,"client_id":"dev1"}"#);
    let mut seen = Vec::new();
    for (reply, status) in [
        (Reply::ok().body(r#"{"allow":false}"#), 403),
        (Reply::new(403), 403),
        (Reply::new(401), 401),
        (Reply::new(401).body("x".repeat(300 << 10)), 401),
        (
            Reply::new(403).header("content-encoding", "gzip").body("x"),
            403,
        ),
        (Reply::ok(), 503),
        (allowed().header("content-encoding", "gzip"), 503),
        (Reply::ok().body("yes"), 503),
        (
            Reply::ok().body(r#"{"allow":"true","client_id":"dev1"}"#),
            503,
        ),
        (
            Reply::ok().body(r#"{"allow":false,"allow":true,"client_id":"dev1"}"#),
            503,
        ),
        (
            Reply::ok().body(r#"{"allow":true,"client_id":"dev1","client_id":"dev2"}"#),
            503,
        ),
        (Reply::ok().body(r#"{"allow":true,"client_id":""}"#), 503),
        (Reply::ok().body(r#"{"allow":true,"client_id":7}"#), 503),
        (
            Reply::ok().body(r#"[{"allow":true,"client_id":"dev1"}]"#),
            503,
        ),
        (
            Reply::ok().body(r#"{"allow":true,"client_id":"dev1"}x"#),
            503,
        ),
        (Reply::ok().body("[".repeat(100 << 10)), 503),
        (Reply::ok().body(r#"{"allow":true}"#), 503),
        (
            Reply::ok().body(format!("\"{}\"", "x".repeat(300 << 10))),
            503,
        ),
        (
            Reply::new(500).body(r#"{"allow":true,"client_id":"dev1"}"#),
            503,
        ),
        (Reply::redirect(307, webhook.url()), 503),
        (Reply::redirect(302, webhook.url()), 503),
        (Reply::close(), 503),
        (allowed().cut_after_head(), 503),
        (Reply::hang(), 503),
    ] {
        webhook.answer_all(reply);
        let refused = Place::Bearer
            .show(bridge.local_addr(), "s3cret")
            .await
            .unwrap_err();
        assert_eq!(refused.status, status, "{}", refused.body);
        assert_eq!(refused.headers.contains_key("retry-after"), status == 503);
        assert_eq!(
            refused.headers.contains_key("www-authenticate"),
            status == 401
        );
        seen.push(status);
    }
    webhook.answer_all(allowed());
    assert_eq!(visit(&bridge, Place::Bearer, "s3cret").await, "dev1"); // no refusal was remembered
    webhook.go_down().await;
    let other = Place::Bearer.show(bridge.local_addr(), "other").await;
    assert_eq!(other.unwrap_err().status, 503);
    assert_eq!(
        bridge.stats().sessions.refused[&503],
        seen.iter().filter(|s| **s == 503).count() as u64 + 1
    );
}

#[tokio::test]
async fn many_who_show_the_same_are_one_question() {
    let webhook = Backend::start().await;
    let allowed = r#"{"allow":true,"client_id":"dev1"}"#;
    webhook.answer_all(Reply::ok().body(allowed).after(Duration::from_secs(3)));
    let bridge = start(&webhook, &[("auth_timeout", "10000")]).await;
    let addr = bridge.local_addr();
    let shown = join_all((0..20).map(|_| Place::Bearer.show(addr, "s3cret"))).await;
    assert!(shown.iter().all(Result::is_ok));
    assert_eq!(webhook.count(), 1);
    // A question that fails is everyone's too, and the next one asks anew.
    webhook.answer_all(Reply::new(500).after(Duration::from_secs(3)));
    let shown = join_all((0..20).map(|_| Place::Bearer.show(addr, "other"))).await;
    assert!(
        shown
            .iter()
            .all(|shown| shown.as_ref().is_err_and(|r| r.status == 503))
    );
    let asked = webhook.count();
    assert_eq!(asked, 2);
    Place::Bearer.show(addr, "other").await.unwrap_err();
    assert!(webhook.count() > asked);
}

#[tokio::test]
async fn whoever_asked_may_leave_without_harm_to_those_who_wait_for_the_same() {
    let webhook = Backend::start().await;
    webhook.answer_all(
        Reply::ok()
            .body(r#"{"allow":true,"client_id":"dev1"}"#)
            .after(Duration::from_millis(300)),
    );
    let bridge = start(&webhook, &[]).await;
    let addr = bridge.local_addr();
    let mut first = RawDevice::connect(addr).await;
    let request = RawDevice::upgrade_request("/?token=s3cret", &[]);
    first.write(request).await;
    webhook.wait_for(1).await;
    first.reset();
    Place::Query.show(addr, "s3cret").await.unwrap();
}

#[tokio::test]
async fn who_was_let_in_is_remembered_for_a_while_and_not_beyond_its_end() {
    let webhook = Backend::start().await;
    let allow = |more: String| format!(r#"{{"allow":true,"client_id":"dev1"{more}}}"#);
    webhook.answer_all(Reply::ok().body(allow(String::new())));
    let remembering = start(&webhook, &[("auth_cache", "600000")]).await;
    for _ in 0..5 {
        visit(&remembering, Place::Bearer, "s3cret").await;
    }
    assert_eq!(webhook.count(), 1);
    visit(&remembering, Place::Query, "s3cret").await;
    visit(&remembering, Place::Bearer, "other").await;
    assert_eq!(webhook.count(), 3);
    let forgetful = start(&webhook, &[("auth_cache", "0")]).await;
    for _ in 0..3 {
        visit(&forgetful, Place::Bearer, "s3cret").await;
    }
    assert_eq!(webhook.count(), 6);
    let expires_at = from_now(5.0);
    webhook.answer_all(Reply::ok().body(allow(format!(r#","expires_at":{expires_at}"#))));
    let mut device = Place::Bearer
        .show(remembering.local_addr(), "short")
        .await
        .unwrap();
    let closed = device.closed().await;
    assert_eq!(
        (closed.code, &closed.reason[..]),
        (Some(4501), "token_expired")
    );
    assert!(from_now(0.0) >= expires_at - 0.05);
    let expired = Place::Bearer
        .show(remembering.local_addr(), "short")
        .await
        .unwrap_err();
    assert_eq!(
        (expired.status, &expired.body[..]),
        (401, "the token has expired")
    );
    assert_eq!(webhook.count(), 8);
}

#[tokio::test]
async fn only_so_many_are_asked_at_once_and_the_rest_waits_no_longer_than_its_time() {
    let webhook = Backend::start().await;
    webhook.answer_all(Reply::hang());
    let timeout = Duration::from_millis(1500);
    let settings = [("auth_concurrency", "2"), ("auth_timeout", "1500")];
    let bridge = start(&webhook, &settings).await;
    let addr = bridge.local_addr();
    let begun = Instant::now();
    let tokens: Vec<_> = (0..6).map(|n| format!("token-{n}")).collect();
    let shown = join_all(tokens.iter().map(|token| Place::Bearer.show(addr, token))).await;
    assert!(
        shown
            .iter()
            .all(|shown| shown.as_ref().is_err_and(|r| r.status == 503))
    );
    // A third one is asked, if it still waits, only when one of the first two has been given up.
    let asked = webhook.requests();
    assert!(asked.len() >= 2);
    assert!(
        asked[2..].iter().all(|r| r.at >= begun + timeout),
        "{asked:#?}"
    );
    webhook.answer_all(Reply::ok().body(r#"{"allow":true,"client_id":"dev1"}"#));
    eventually("the turns are given back", async || {
        Place::Bearer.show(addr, "good").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn an_outage_is_told_once_and_its_end_too() {
    let webhook = Backend::start().await;
    let gateway = Gateway::builder()
        .var("FASTSOCK_AUTH", "webhook")
        .var("FASTSOCK_AUTH_URL", webhook.url())
        .start()
        .await;
    let down = "the authentication webhook does not answer; the gateway lets nobody in by it";
    let up = "the authentication webhook answers again";
    for outage in 1..=2 {
        webhook.answer_all(Reply::new(502));
        for n in 0..3 {
            let token = format!("token-{outage}-{n}");
            Place::Bearer
                .show(gateway.addr(), &token)
                .await
                .unwrap_err();
        }
        webhook.answer_all(Reply::ok().body(r#"{"allow":true,"client_id":"dev1"}"#));
        Place::Bearer
            .show(gateway.addr(), &format!("token-{outage}"))
            .await
            .unwrap();
        eventually("both are told", async || {
            gateway.lines_with(down).len() == outage && gateway.lines_with(up).len() == outage
        })
        .await;
    }
    let line = &gateway.lines_with(down)[0];
    assert_eq!(
        (line["level"].as_str(), line["error"].as_str()),
        (Some("error"), Some("it answered with status 502"))
    );
    assert_eq!(gateway.lines_with(up)[0]["level"], "warn");
}

#[tokio::test]
async fn settings_that_cannot_work_are_told_at_the_start() {
    for (settings, told) in [
        (
            &[("auth", "webhook")][..],
            "FASTSOCK_AUTH: webhook needs FASTSOCK_AUTH_URL",
        ),
        (
            &[
                ("auth", "webhook"),
                ("auth_url", "http://127.0.0.1:1/"),
                ("auth_headers", r#"{"Content-Length":1}"#),
            ],
            "FASTSOCK_AUTH_HEADERS: \"Content-Length\" is not allowed, or its value is not",
        ),
        (
            &[
                ("auth", "webhook"),
                ("auth_url", "http://webhook.example/"),
                ("http_proxy", "socks5://proxy.example:1080"),
            ],
            "HTTP_PROXY: the value is not the URL of an http:// or https:// proxy",
        ),
    ] {
        let started = Bridge::builder(config(settings)).start().await;
        assert_eq!(started.unwrap_err().to_line(), told);
    }
    let mut config = config(&[]);
    let error = config.set("auth_url", "ftp://x/").unwrap_err().to_line();
    assert!(error.starts_with("auth_url: "), "{error}");
}

async fn start(webhook: &Backend, more: &[(&str, &str)]) -> Bridge {
    let url = webhook.url();
    let mut settings = vec![("auth", "webhook"), ("auth_url", &url[..])];
    settings.extend_from_slice(more);
    bridge(&settings).await
}

#[tokio::test]
async fn it_knows_the_whole_request_and_answers_all_that_goes_with_a_device() {
    let webhook = Backend::start().await;
    let answer = json!({
        "allow": true, "client_id": "acme/CP1", "expires_at": from_now(3600.0), "groups": ["site-7"],
        "subprotocol": "ocpp1.6", "metadata": { "model": "X", "n": 1 },
    });
    webhook.answer_all(Reply::ok().body(answer.to_string()));
    let more = [
        ("device_paths", "/t/{tenant}/{id}"),
        ("client_id", "{tenant}/{id}"),
        ("auth_forward_headers", "X-Serial,User-Agent,X-None"),
        ("subprotocols", "ocpp2.0.1"),
    ];
    let bridge = start(&webhook, &more).await;
    let headers = [
        ("authorization", "Bearer s3cret"),
        ("x-serial", "1"),
        ("x-serial", "2"),
        ("user-agent", "station/1"),
        ("sec-websocket-protocol", "ocpp1.6, ocpp2.0.1"),
    ];
    let target = "/t/acme/CP%31?a=b&token=hidden&%74oken=hidden&c";
    let device = Device::request(bridge.local_addr(), target, &headers).await;
    let device = device.unwrap();
    assert_eq!(
        device.response_headers()["sec-websocket-protocol"],
        "ocpp1.6"
    );
    let request = webhook.requests().pop().unwrap();
    assert!(!String::from_utf8_lossy(&request.body).contains("hidden"));
    let mut body = request.json();
    let body = body.as_object_mut().unwrap();
    assert!(
        body.remove("remote_addr")
            .unwrap()
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    let expected = json!({
        "credential": "s3cret", "place": "bearer", "method": "GET", "path": "/t/acme/CP%31",
        "query": "a=b&token=***&token=***&c", "parts": { "tenant": "acme", "id": "CP1" }, "client_id": "acme/CP1",
        "headers": { "x-serial": "1, 2", "user-agent": "station/1" },
        "subprotocols": ["ocpp1.6", "ocpp2.0.1"], "tls": null,
    });
    assert_eq!(&json!(body), &expected);
    let context = bridge.clients().remove(0).context.unwrap();
    assert_eq!(
        context.metadata.as_ref().unwrap().as_str(),
        r#"{"model":"X","n":1}"#
    );
    assert_eq!(
        (&context.groups[..], context.subprotocol.as_deref()),
        (&["site-7".to_owned()][..], Some("ocpp1.6"))
    );
    // An answer holds for the same question only.
    let other = Device::request(bridge.local_addr(), "/t/acme/CP2", &headers).await;
    assert_eq!(other.unwrap_err().status, 403);
    assert_eq!(webhook.count(), 2);
    webhook.answer_all(Reply::ok().body(r#"{"allow":false,"status":404}"#));
    let unknown = Device::request(bridge.local_addr(), "/t/acme/CP3", &headers).await;
    assert_eq!(unknown.unwrap_err().status, 404);
}

#[tokio::test]
async fn its_subprotocol_comes_before_ours_and_makes_nobody_acknowledge() {
    let webhook = Backend::start().await;
    let more = [
        ("subprotocols", "ocpp1.6"),
        ("subprotocol_mismatch", "refuse"),
        ("auth_cache", "0"),
    ];
    let bridge = start(&webhook, &more).await;
    for (answered, offered, status, chosen) in [
        ("mqtt", "mqtt, ocpp1.6", 101, Some("mqtt")),
        ("mqtt", "mqtt", 101, Some("mqtt")),
        ("stomp", "mqtt", 400, None),
        ("fastsock.v1.ack", "fastsock.v1.ack", 101, None),
        ("fastsock.v2.ack", "fastsock.v2.ack", 101, None),
    ] {
        let answer = json!({ "allow": true, "client_id": "dev1", "subprotocol": answered });
        webhook.answer_all(Reply::ok().body(answer.to_string()));
        let headers = [
            ("authorization", "Bearer s3cret"),
            ("sec-websocket-protocol", offered),
        ];
        let mut device = RawDevice::connect(bridge.local_addr()).await;
        let headers = headers.map(|(name, value)| format!("{name}: {value}"));
        let headers: Vec<_> = headers.iter().map(|line| &line[..]).collect();
        device
            .write(RawDevice::upgrade_request("/", &headers).into_bytes())
            .await;
        let head = device.read_head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let line = head
            .lines()
            .find_map(|l| l.strip_prefix("Sec-WebSocket-Protocol: "));
        assert_eq!(line, chosen, "{answered} {offered}");
    }
}
