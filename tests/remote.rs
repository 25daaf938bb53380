//! What the backend can ask of each POST: signatures, CloudEvents.

use std::net::Ipv4Addr;

use fastsock::{Bridge, Config, ErrorKind, Headers, Secret};
use http::HeaderMap;
use standardwebhooks::Webhook;
use support::{Backend, DEADLINE, Device, Received, Reply};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OLD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test]
async fn every_attempt_is_signed_as_an_independent_implementation_demands() {
    let backend = Backend::start().await;
    backend.queue([Reply::new(503)]);
    let secret = Some(Secret::new(format!("{SECRET} {OLD_SECRET}")));
    let bridge = start(config(&backend).remote_secret(secret)).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("grüße \"#0\"").await;
    let all = backend.wait_for(2).await;
    for request in &all {
        for secret in [SECRET, OLD_SECRET] {
            verify(secret, request).expect("it is signed with both");
        }
        let id = request.header("webhook-id");
        assert_eq!(id, request.header("idempotency-key"));
        let signatures = request.header("webhook-signature").unwrap();
        assert_eq!(signatures.split(' ').count(), 2);

        let mut forged = request.clone();
        forged.body = [&request.body[..], b" "].concat().into();
        verify(SECRET, &forged).expect_err("another body");
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        verify(other, request).expect_err("another secret");
    }
    assert_eq!(all[0].header("webhook-id"), all[1].header("webhook-id"));
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_signature_does_not_follow_a_redirect_to_another_host() {
    let (backend, other) = (Backend::start().await, Backend::start().await);
    backend.queue([Reply::redirect(307, other.url())]);
    let config = config(&backend).remote_secret(Some(Secret::new(SECRET)));
    let bridge = start(config).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("hello").await;
    let request = &other.wait_for(1).await[0];
    assert_eq!(request.header("webhook-signature"), None);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn nothing_is_signed_and_no_event_made_unless_asked_for() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend)).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("hello").await;
    let request = &backend.wait_for(1).await[0];
    let is_extra = |name: &str| name.starts_with("webhook-") || name.starts_with("ce-");
    let extra: Vec<_> = request
        .headers
        .iter()
        .filter(|(n, _)| is_extra(n))
        .collect();
    assert!(extra.is_empty(), "{extra:?}");
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_secret_that_is_none_is_named_and_not_shown() {
    let bad = "whsec_c2hvcnQ=";
    let error = Config::from_vars([("FASTSOCK_REMOTE_SECRET", bad)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let line = error.to_string();
    assert!(line.starts_with("FASTSOCK_REMOTE_SECRET: "), "{line}");
    assert!(!line.contains(bad), "{line}");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{SECRET}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let config = Config::from_vars([("FASTSOCK_REMOTE_SECRET_FILE", path)]).unwrap();
    assert_eq!(config.remote_secret, Some(Secret::new(SECRET)));
    assert_eq!(config.show("remote_secret").as_deref(), Some("***"));
    assert!(!format!("{config:?}").contains(SECRET));
}

#[tokio::test]
async fn each_post_is_a_cloud_event_with_the_same_body() {
    let backend = Backend::start().await;
    let mut config = config(&backend).remote_cloudevents(true);
    config.remote_headers = Headers(vec![("Ce-Type".into(), Some("my.type".into()))]);
    let bridge = start(config).await;
    let mut device = Device::connect(bridge.local_addr(), "Gerät%201").await;
    device.send("hello").await;
    let request = &backend.wait_for(1).await[0];
    let header = |name| request.header(name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(header("ce-specversion"), "1.0");
    assert_eq!(header("ce-id"), header("idempotency-key"));
    assert_eq!(header("ce-source"), "/fastsock");
    assert_eq!(header("ce-type"), "my.type", "the settings override it");
    assert_eq!(header("ce-subject"), "Ger%C3%A4t%25201");
    assert_eq!(header("content-type"), "application/json");
    let time = header("ce-time");
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'));
    assert_eq!(request.body, r#"{"client_id":"Gerät%201","data":"hello"}"#);
    bridge.stop(DEADLINE).await;
}

fn verify(secret: &str, request: &Received) -> Result<(), standardwebhooks::WebhookError> {
    let headers: HeaderMap = request
        .headers
        .iter()
        .map(|(name, value)| {
            let name: http::HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        })
        .collect();
    let webhook = Webhook::new(secret).unwrap();
    webhook.verify(&request.body, &headers)
}

fn config(backend: &Backend) -> Config {
    Config::default()
        .websocket_port(0u16)
        .listen_addr(Some(Ipv4Addr::LOCALHOST.into()))
        .remote_url(Some(backend.url()))
}

async fn start(config: Config) -> Bridge {
    Bridge::builder(config).start().await.expect("it starts")
}
