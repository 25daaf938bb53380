//! `FASTSOCK_DEVICE_PATHS` and `FASTSOCK_CLIENT_ID`: devices that a path names.

use std::fs;

use fastsock::{Accepted, Admission, Bridge, ConnectRequest, Decision, Hooks, Ticket};
use support::{Device, RawDevice};

use crate::common::{bridge, config, from_now, hs256, secret, sha256, wait_only};

const OCPP: (&str, &str) = ("device_paths", "/ocpp/{id}");
const TENANTS: [(&str, &str); 2] = [
    ("device_paths", "/tenants/{tenant}/devices/{id}/ws"),
    ("client_id", "{tenant}/{id}"),
];

async fn status(bridge: &Bridge, target: &str, headers: &[(&'static str, &str)]) -> u16 {
    match Device::request(bridge.local_addr(), target, headers).await {
        Ok(device) => {
            device.close(1000).await;
            101
        }
        Err(refused) => refused.status,
    }
}

#[tokio::test]
async fn in_open_the_path_names_the_device_and_the_query_does_not() {
    let bridge = bridge(&[OCPP]).await;
    for (target, client_id) in [
        ("/ocpp/CP001", "CP001"),
        ("/ocpp/a%20b+c?token=other", "a b+c"),
        ("/ocpp/a%2Fb", "a/b"),
        ("/ocpp/%252e%252e", "%2e%2e"),
    ] {
        let device = Device::request(bridge.local_addr(), target, &[]).await;
        let device = device.unwrap();
        wait_only(&bridge, client_id).await;
        let client = bridge.clients().remove(0);
        let context = client.context.unwrap();
        assert_eq!(context.path, target.split('?').next().unwrap());
        assert_eq!(context.parts.get("id"), Some(client_id));
        device.close(1000).await;
        support::eventually("it has left", async || bridge.clients().is_empty()).await;
    }
}

#[tokio::test]
async fn what_is_no_device_path_is_404_and_what_programs_read_differently_400() {
    let bridge = bridge(&[OCPP]).await;
    for (target, expected) in [
        ("/", "404"),
        ("/?token=CP001", "404"),
        ("/token=CP001", "404"),
        ("/ocpp", "404"),
        ("/ocpp/a/b", "404"),
        ("/Ocpp/a", "404"),
        ("/ocpp/", "400"),
        ("/ocpp//a", "400"),
        ("/ocpp/.", "400"),
        ("/ocpp/..", "400"),
        ("/ocpp/%2e%2e", "400"),
        ("/ocpp/%2E", "400"),
        ("/ocpp/a%2F..%2Fb", "400"),
        ("/ocpp/%00", "400"),
        ("/ocpp/a%00", "400"),
        ("/ocpp/%0d%0aX:y", "400"),
        ("/ocpp/%ff", "400"),
        ("/ocpp/%", "400"),
        ("/ocpp/%4", "400"),
        ("/ocpp/%u0041", "400"),
    ] {
        let mut device = RawDevice::connect(bridge.local_addr()).await;
        let request = RawDevice::upgrade_request(target, &[]);
        device.write(request.into_bytes()).await;
        let head = device.read_head().await;
        assert_eq!(&head[9..12], expected, "{target}: {head}");
    }
    let long = format!("/ocpp/{}", "x".repeat(7000));
    assert_eq!(status(&bridge, &long, &[]).await, 101);
    assert!(bridge.clients().len() <= 1);
}

#[tokio::test]
async fn a_credential_names_the_device_of_the_path_or_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines = format!("CP001 {}\nacme/CP001 {}\n", sha256("one"), sha256("two"));
    fs::write(file.path(), lines).unwrap();
    let tokens = [
        ("auth", "tokens"),
        ("auth_tokens_file", file.path().to_str().unwrap()),
    ];
    let one = bridge(&[&[OCPP], &tokens[..]].concat()).await;
    let both = bridge(&[&TENANTS, &tokens[..]].concat()).await;
    let (first, second) = (
        [("authorization", "Bearer one")],
        [("authorization", "Bearer two")],
    );
    for (bridge, target, headers, expected) in [
        (&one, "/ocpp/CP001", &first, 101),
        (&one, "/ocpp/CP002", &first, 403),
        (&one, "/ocpp/acme%2FCP001", &second, 101),
        (&one, "/ocpp/CP001", &second, 403),
        (&one, "/other/CP001", &first, 404),
        (&both, "/tenants/acme/devices/CP001/ws", &second, 101),
        (&both, "/tenants/acme/devices/CP001/ws", &first, 403),
        (&both, "/tenants/beta/devices/CP001/ws", &second, 403),
        (&both, "/tenants/acme/devices/CP002/ws", &second, 403),
        (&both, "/tenants/acme%2FCP001/devices/x/ws", &second, 400),
    ] {
        assert_eq!(
            status(bridge, target, headers).await,
            expected,
            "{target} {headers:?}"
        );
    }
    assert_eq!(status(&one, "/ocpp/CP001?token=one", &[]).await, 101);
    assert_eq!(status(&one, "/ocpp/CP002?token=one", &[]).await, 403);
}

#[tokio::test]
async fn claims_of_a_jwt_confirm_every_part() {
    let key = "0123456789abcdef0123456789abcdef";
    let jwt = [
        ("auth", "jwt"),
        ("auth_jwt_key", &*secret(key)),
        ("auth_jwt_claim", "device"),
    ];
    let bridge = bridge(&[&TENANTS, &jwt[..]].concat()).await;
    let exp = from_now(3600.0);
    let target = "/tenants/acme/devices/CP001/ws";
    for (claims, expected) in [
        (r#""device":"CP001","tenant":"acme""#, 101),
        (r#""device":"CP001","tenant":"beta""#, 403),
        (r#""device":"CP002","tenant":"acme""#, 403),
        (r#""device":"CP001""#, 403),
        (r#""tenant":"acme""#, 403),
        (r#""device":"acme/CP001""#, 403),
        (r#""device":"acme/CP001","tenant":"""#, 403),
        (r#""device":"CP001","tenant":["acme"]"#, 403),
    ] {
        let token = hs256(key, &format!(r#"{{"exp":{exp},{claims}}}"#));
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer)];
        assert_eq!(
            status(&bridge, target, &headers).await,
            expected,
            "{claims}"
        );
    }
}

#[tokio::test]
async fn a_hook_sees_the_parts_and_has_to_name_the_same_device() {
    let mut config = config(&TENANTS);
    config.set("subprotocols", "ocpp1.6").unwrap();
    let bridge = Bridge::builder(config)
        .hooks(Answers)
        .start()
        .await
        .unwrap();
    let offer = [("sec-websocket-protocol", "ocpp1.5, ocpp1.6")];
    let target = "/tenants/acme/devices/CP%31/ws?a=b";
    let device = Device::request(bridge.local_addr(), target, &offer).await;
    let device = device.unwrap();
    assert_eq!(
        device.response_headers()["sec-websocket-protocol"],
        "ocpp1.5"
    );
    wait_only(&bridge, "acme/CP1").await;
    let context = bridge.clients().remove(0).context.unwrap();
    assert_eq!(context.metadata.as_ref().unwrap().as_str(), r#"{"site":7}"#);
    assert_eq!(context.groups, ["site-7"]);
    assert_eq!(context.subprotocol.as_deref(), Some("ocpp1.5"));
    drop(device);
    assert_eq!(
        status(&bridge, "/tenants/x/devices/liar/ws", &[]).await,
        403
    );
    assert_eq!(
        status(&bridge, "/tenants/x/devices/crowd/ws", &[]).await,
        503
    );
}

/// Says what the parts of the path say.
struct Answers;

impl Hooks for Answers {
    fn authenticate(&self, request: &ConnectRequest, _: Ticket) -> Decision<Admission> {
        let id = request.parts.get("id").unwrap();
        let tenant = request.parts.get("tenant").unwrap();
        assert_eq!(
            request.client_id.as_ref().unwrap().as_str(),
            format!("{tenant}/{id}")
        );
        assert_eq!(request.method(), "GET");
        if id == "liar" {
            return Decision::Now(Admission::Accept("acme/CP1".parse().unwrap()));
        }
        let groups = if id == "crowd" { 65 } else { 1 };
        if id == "CP1" {
            assert_eq!(request.query(), "a=b");
            assert_eq!(request.subprotocols, ["ocpp1.5", "ocpp1.6"]);
        }
        let accepted = Accepted::new(request.client_id.clone().unwrap())
            .groups(vec!["site-7".into(); groups])
            .subprotocol(Some("ocpp1.5".into()))
            .metadata(r#"{ "site": 7 }"#.parse().ok());
        Decision::Now(accepted.into())
    }
}
