//! Client certificates: whose name one has, and what counts when something else is shown beside it.

use std::{fs, net::Ipv4Addr, sync::Arc};

use fastsock::{AuthKind, Bridge, ClientAuth, Config};
use rcgen::{
    DistinguishedName, DnType, DnValue, SanType,
    string::{BmpString, TeletexString, UniversalString},
};
use rustls::{ClientConfig, pki_types::ServerName, version::TLS13};
use serde_json::json;
use support::{Authority, Backend, Identity, Reply, eventually, within};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async,
    tungstenite::{
        Error,
        client::IntoClientRequest,
        http::{HeaderName, HeaderValue},
    },
};

use crate::common::{from_now, hs256, secret, sha256};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_common_name_is_the_name_in_whatever_type_of_string_it_is() {
    let port = Port::new();
    let bridge = port
        .start(AuthKind::Certificate, ClientAuth::Required)
        .await;
    for name in [
        DnValue::from("dev1"),
        DnValue::BmpString(BmpString::try_from("dev1").unwrap()),
        DnValue::TeletexString(TeletexString::try_from("dev1").unwrap()),
        DnValue::UniversalString(UniversalString::try_from("dev1").unwrap()),
    ] {
        let visited = visit(
            &bridge,
            &port.device(std::slice::from_ref(&name)),
            None,
            "/",
        )
        .await;
        assert_eq!(visited, "dev1", "{name:?}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_can_be_sure_of_gives_way_to_nothing() {
    let port = Port::new();
    let tokens = tempfile::NamedTempFile::new().unwrap();
    let line = format!("dev1 {}\n", sha256("s3cret"));
    fs::write(tokens.path(), line).unwrap();
    let by_certificate = port
        .start(AuthKind::Certificate, ClientAuth::Required)
        .await;
    let config = port.config(AuthKind::Tokens, ClientAuth::Required);
    let config = config.auth_tokens_file(Some(tokens.path().into()));
    let by_token = Bridge::builder(config).start().await.unwrap();
    let open = port.start(AuthKind::Open, ClientAuth::Required).await;
    let unclear = TeletexString::try_from("dev#1").unwrap(); // another character in T.61
    for names in [
        vec![DnValue::TeletexString(unclear)],
        vec!["dev1".into(), "dev1".into()],
        vec!["dev1\0".into()],
        vec!["dev1 ".into()],
        vec!["".into()],
    ] {
        let device = port.device(&names);
        for (bridge, target) in [(&by_certificate, "/"), (&by_token, "/?token=s3cret")] {
            assert_eq!(
                visit(bridge, &device, None, target).await,
                "403",
                "{names:?}"
            );
        }
        // Where the name does not count, nobody minds.
        let bearer = Some(("authorization", "Bearer s3cret".to_owned()));
        assert_eq!(visit(&by_token, &device, bearer, "/").await, "dev1");
        assert_eq!(visit(&open, &device, None, "/?token=dev2").await, "dev2");
    }
}

/// The table of docs/security.md.
#[tokio::test]
async fn beside_a_certificate_counts_what_the_documentation_says() {
    let port = Port::new();
    let tokens = tempfile::NamedTempFile::new().unwrap();
    let line = |id: &str| format!("{id} {}\n", sha256(id));
    let lines = ["by-bearer", "by-subprotocol", "by-query"].map(line);
    fs::write(tokens.path(), lines.concat()).unwrap();
    let webhook = Backend::start().await;
    webhook.answer(|request| {
        let credential = request.json()["credential"].clone();
        match credential == "wrong" {
            true => Reply::new(401),
            false => Reply::ok().body(json!({"allow": true, "client_id": credential}).to_string()),
        }
    });
    let with_name = port.device(&["by-certificate".into()]);
    let nameless = port.device_without_name();
    let without = port.client(None);

    // Without anything else, with a bearer token, a subprotocol, a query, a query and a wrong bearer token.
    let token = ["401", "by-bearer", "by-subprotocol", "by-query", "401"];
    let certificate_too = [
        "by-certificate",
        "by-bearer",
        "by-subprotocol",
        "by-certificate",
        "401",
    ];
    let query_alone = ["401", "401", "401", "by-query", "by-query"];
    for (auth, alone, beside) in [
        (AuthKind::Open, query_alone, query_alone),
        (AuthKind::Tokens, token, certificate_too),
        (AuthKind::Jwt, token, certificate_too),
        (AuthKind::Webhook, token, certificate_too),
        (AuthKind::Certificate, ["401"; 5], ["by-certificate"; 5]),
    ] {
        for client_auth in [ClientAuth::Off, ClientAuth::Optional, ClientAuth::Required] {
            let config = port.config(auth, client_auth);
            let config = match auth {
                AuthKind::Tokens => config.auth_tokens_file(Some(tokens.path().into())),
                AuthKind::Jwt => config.auth_jwt_key(Some(secret(SECRET).into())),
                AuthKind::Webhook => config.auth_url(Some(webhook.url().into())),
                _ => config,
            };
            if auth == AuthKind::Certificate && client_auth == ClientAuth::Off {
                assert!(config.check().is_err(), "nobody would be let in");
                continue;
            }
            let bridge = Bridge::builder(config).start().await.unwrap();
            for (shown, client) in [
                ("none", &without),
                ("with a name", &with_name),
                ("nameless", &nameless),
            ] {
                let expected = match (client_auth, shown) {
                    (ClientAuth::Required, "none") => ["no TLS"; 5],
                    (ClientAuth::Off, _) | (_, "none" | "nameless") => alone,
                    _ => beside,
                };
                for (index, expected) in expected.into_iter().enumerate() {
                    let (header, target) = show(auth, index);
                    let seen = visit(&bridge, client, header, &target).await;
                    let cell = format!("{auth:?}, {client_auth:?}, certificate: {shown}, {index}");
                    assert_eq!(seen, expected, "{cell}");
                }
            }
        }
    }
}

/// A browser shows its certificate whichever page asks it to.
#[tokio::test]
async fn a_page_of_another_host_does_not_connect_in_the_name_of_a_certificate() {
    let port = Port::new();
    let tokens = tempfile::NamedTempFile::new().unwrap();
    fs::write(tokens.path(), format!("dev2 {}\n", sha256("s3cret"))).unwrap();
    let start = async |auth, origins: &[&str]| {
        let config = port
            .config(auth, ClientAuth::Required)
            .listen_origins(origins.iter().map(|o| (*o).into()).collect::<Vec<_>>());
        let config = match auth {
            AuthKind::Tokens => config.auth_tokens_file(Some(tokens.path().into())),
            _ => config,
        };
        Bridge::builder(config).start().await.unwrap()
    };
    let device = port.device(&["dev1".into()]);
    let by_certificate = start(AuthKind::Certificate, &[]).await;
    let listed = start(AuthKind::Certificate, &["https://app.example.com"]).await;
    let by_token = start(AuthKind::Tokens, &[]).await;
    let open = start(AuthKind::Open, &[]).await;
    for (origin, expected) in [
        ("https://localhost", ["dev1", "403", "dev1", "dev3"]),
        ("https://app.example.com", ["403", "dev1", "403", "dev3"]),
        (
            "https://localhost.example.com",
            ["403", "403", "403", "dev3"],
        ),
        ("null", ["403", "403", "403", "dev3"]),
    ] {
        let bridges = [&by_certificate, &listed, &by_token, &open];
        for (bridge, expected) in bridges.into_iter().zip(expected) {
            let from = [("origin", origin.to_owned())];
            let seen = visit(bridge, &device, from, "/?token=dev3").await;
            assert_eq!(seen, expected, "{origin}");
        }
    }
    // Without an Origin it is no browser, and with a token the page must have that.
    assert_eq!(visit(&by_certificate, &device, None, "/").await, "dev1");
    let offer = "fastsock-token.s3cret, chat".to_owned();
    let shown = [
        ("origin", "https://app.example.com".to_owned()),
        ("sec-websocket-protocol", offer),
    ];
    assert_eq!(visit(&by_token, &device, shown, "/").await, "dev2");
    // Two are none of a browser's.
    let twice = || ["https://localhost"; 2].map(|origin| ("origin", origin.to_owned()));
    assert_eq!(visit(&by_certificate, &device, twice(), "/").await, "400");
    assert_eq!(visit(&listed, &device, twice(), "/").await, "400");
    assert_eq!(visit(&open, &device, twice(), "/?token=dev3").await, "dev3");
}

/// A header and a target in which nothing, a bearer token, a subprotocol, a query, or a query and a wrong bearer token is.
fn show(auth: AuthKind, index: usize) -> (Option<(&'static str, String)>, String) {
    let token = |id: &str| match auth {
        AuthKind::Jwt => hs256(
            SECRET,
            &format!(r#"{{"sub":"{id}","exp":{}}}"#, from_now(600.0)),
        ),
        _ => id.to_owned(),
    };
    let authorization = |token: String| Some(("authorization", format!("Bearer {token}")));
    let query = || format!("/?token={}", token("by-query"));
    match index {
        0 => (None, "/".into()),
        1 => (authorization(token("by-bearer")), "/".into()),
        2 => {
            let offer = format!("fastsock-token.{}, chat", token("by-subprotocol"));
            (Some(("sec-websocket-protocol", offer)), "/".into())
        }
        3 => (None, query()),
        _ => (authorization("wrong".into()), query()),
    }
}

/// A device port under TLS, and the authority for both sides.
struct Port {
    authority: Authority,
    identity: Identity,
}

impl Port {
    fn new() -> Self {
        let authority = Authority::new();
        let identity = authority.issue_for_loopback();
        Self {
            authority,
            identity,
        }
    }

    fn config(&self, auth: AuthKind, client_auth: ClientAuth) -> Config {
        let config = support::loopback()
            .tls_cert(vec![self.identity.cert_path.clone()])
            .tls_key(vec![self.identity.key_path.clone()])
            .auth(auth)
            .tls_client_auth(client_auth);
        match client_auth {
            ClientAuth::Off => config,
            _ => config.tls_client_ca(Some(self.authority.ca_path())),
        }
    }

    async fn start(&self, auth: AuthKind, client_auth: ClientAuth) -> Bridge {
        let config = self.config(auth, client_auth);
        Bridge::builder(config).start().await.unwrap()
    }

    fn client(&self, shown: Option<&Identity>) -> Arc<ClientConfig> {
        Identity::client_config(&self.authority, shown, &[&TLS13])
    }

    /// A device with these common names, and with a victim's among its alternative names.
    fn device(&self, common_names: &[DnValue]) -> Arc<ClientConfig> {
        let mut subject = DistinguishedName::new();
        let again = DnType::CustomDnType(vec![2, 5, 4, 3]); // the same would replace the first
        for (name, kind) in common_names.iter().zip([DnType::CommonName, again]) {
            subject.push(kind, name.clone());
        }
        let victim = SanType::DnsName("victim".try_into().unwrap());
        self.client(Some(&self.authority.issue_named(subject, &[victim])))
    }

    /// A device whose certificate has an address, and so no name.
    fn device_without_name(&self) -> Arc<ClientConfig> {
        let address = SanType::IpAddress(Ipv4Addr::LOCALHOST.into());
        let identity = self
            .authority
            .issue_named(DistinguishedName::new(), &[address]);
        self.client(Some(&identity))
    }
}

/// Connects and leaves. Says as whom it was seated, with which status it was refused, or that there was no TLS.
async fn visit(
    bridge: &Bridge,
    client: &Arc<ClientConfig>,
    headers: impl IntoIterator<Item = (&'static str, String)>,
    target: &str,
) -> String {
    let stream = TcpStream::connect(bridge.local_addr()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(client.clone()).connect(name, stream);
    let Ok(tls) = within("TLS, or its failure", connecting).await else {
        return "no TLS".into();
    };
    let mut request = format!("ws://localhost{target}")
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        let (name, value) = (HeaderName::from_static(name), HeaderValue::try_from(value));
        request.headers_mut().append(name, value.unwrap());
    }
    match within("an answer", client_async(request, tls)).await {
        Ok((device, _)) => {
            let seen = bridge.clients()[0].client_id.to_string();
            drop(device);
            eventually("it has left", async || bridge.clients().is_empty()).await;
            seen
        }
        Err(Error::Http(answer)) => answer.status().as_u16().to_string(),
        Err(_) => "no TLS".into(), // with TLS 1.3 a device is through before its certificate is looked at
    }
}
