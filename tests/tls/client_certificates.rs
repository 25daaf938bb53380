//! Certificates of devices.

use super::*;

#[tokio::test]
async fn a_required_certificate_is_asked_for_and_names_the_device() {
    let place = Place::new();
    let stranger = Authority::new();
    let config = place
        .config()
        .tls_client_auth(fastsock::ClientAuth::Required)
        .tls_client_ca(Some(place.authority.ca_path()));
    let bridge = Bridge::builder(config)
        .hooks(ByCertificate)
        .start()
        .await
        .unwrap();
    let good = place
        .authority
        .issue_to_device("dev1", &["other.example"], 3600);
    let by_name = place
        .authority
        .issue_to_device("", &["dev2.example", "other.example"], 3600);
    let expired = place.authority.issue_to_device("dev1", &[], -60);
    let foreign = stranger.issue_to_device("dev1", &[], 3600);
    for version in BOTH {
        for (shown, name) in [
            (Some(&good), Some("dev1")),
            (Some(&by_name), Some("dev2.example")),
            (Some(&expired), None),
            (Some(&foreign), None),
            (None, None),
        ] {
            let client = place.client(shown, &[version]);
            let device = place.try_device(&bridge, &client, "pretender").await;
            match name {
                Some(name) => {
                    let _device = device.unwrap_or_else(|e| panic!("{name}: {e}"));
                    assert_eq!(bridge.clients()[0].client_id.as_str(), name);
                }
                None => assert!(device.is_err(), "{version:?}"),
            }
            eventually("it has left", async || bridge.clients().is_empty()).await;
        }
    }
    eventually("the others are counted", async || {
        bridge.stats().counters.tls_failed == 6
    })
    .await;
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing_but_not_be_bad() {
    let place = Place::new();
    let config = place
        .config()
        .tls_client_auth(fastsock::ClientAuth::Optional)
        .tls_client_ca(Some(place.authority.ca_path()));
    let bridge = Bridge::builder(config)
        .hooks(ByCertificate)
        .start()
        .await
        .unwrap();
    let good = place.authority.issue_to_device("dev1", &[], 3600);
    let foreign = Authority::new().issue_to_device("dev1", &[], 3600);
    let device = place
        .try_device(&bridge, &place.client(Some(&good), BOTH), "x")
        .await;
    assert!(device.is_ok());
    let refused = place
        .try_device(&bridge, &place.client(None, BOTH), "x")
        .await;
    assert!(
        refused.unwrap_err().contains("401"),
        "asked by the hook, not by TLS"
    );
    let refused = place
        .try_device(&bridge, &place.client(Some(&foreign), BOTH), "x")
        .await;
    assert!(!refused.unwrap_err().contains("401"));
}

#[tokio::test]
async fn with_auth_by_certificate_the_name_in_it_is_the_client_id() {
    let place = Place::new();
    let config = place.config().auth(fastsock::AuthKind::Certificate);
    let error = Bridge::builder(config.clone()).start().await.unwrap_err();
    assert!(
        error.to_string().contains("FASTSOCK_TLS_CLIENT_AUTH"),
        "{error}"
    );
    let config = config
        .tls_client_auth(fastsock::ClientAuth::Optional)
        .tls_client_ca(Some(place.authority.ca_path()));
    let bridge = start(config).await;
    let shown = place.authority.issue_to_device("dev1", &[], 3600);
    let client = place.client(Some(&shown), BOTH);
    let mut device = place
        .try_device(&bridge, &client, "pretender")
        .await
        .unwrap();
    bridge.send(&id("dev1"), "hello".into()).await.unwrap();
    assert_eq!(hear(&mut device).await, Message::text("hello"));
    let refused = place
        .try_device(&bridge, &place.client(None, BOTH), "dev1")
        .await;
    assert!(refused.unwrap_err().contains("401"));
}

#[tokio::test]
async fn a_session_is_resumed_but_not_with_a_certificate_that_has_expired() {
    let place = Place::new();
    let config = place
        .config()
        .tls_client_auth(fastsock::ClientAuth::Required)
        .tls_client_ca(Some(place.authority.ca_path()));
    let bridge = Bridge::builder(config)
        .hooks(ByCertificate)
        .start()
        .await
        .unwrap();
    for version in BOTH {
        let shown = place.authority.issue_to_device("dev1", &[], 8);
        let client = place.client(Some(&shown), &[version]);
        let first = place.try_device(&bridge, &client, "x").await.unwrap();
        assert_eq!(kind(&first), HandshakeKind::Full);
        let mut first = first;
        bridge
            .send(&id("dev1"), "with this come the tickets".into())
            .await
            .unwrap();
        hear(&mut first).await;
        let second = place.try_device(&bridge, &client, "x").await.unwrap();
        assert_eq!(kind(&second), HandshakeKind::Resumed, "{version:?}");
        assert_eq!(bridge.clients()[0].client_id.as_str(), "dev1");
        eventually_within(Duration::from_secs(30), "it has expired", async || {
            place.try_device(&bridge, &client, "x").await.is_err()
        })
        .await;
    }
}

/// Lets in whoever has a certificate, under the name in it.
struct ByCertificate;

impl Hooks for ByCertificate {
    fn authenticate(&self, request: &ConnectRequest, _: Ticket) -> Decision<Admission> {
        let name = request.credentials.certificate.as_deref();
        Decision::Now(match name.and_then(ClientId::new) {
            Some(id) => Admission::Accept(id),
            None => Admission::Reject(Refusal::new(401, "no certificate")),
        })
    }
}
