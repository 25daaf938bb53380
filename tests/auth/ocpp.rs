//! OCPP 1.6 security white paper, security profiles 1 and 2: a test for each row of the table in docs/ocpp.md.

use std::{fs, sync::Arc};

use data_encoding::BASE64;
use fastsock::Bridge;
use rustls::{ClientConfig, pki_types::ServerName, version::TLS12};
use support::{Authority, Identity, eventually, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::common::{bridge, sha256};

/// 20 random bytes, as the white paper advises: no text in any encoding.
const KEY: [u8; 20] = [
    0xff, 0x00, 0x3a, 0xfe, 0x0a, 0x80, 0x81, 0xc0, 0x0d, 0x7f, 0x20, 0xed, 0xa0, 0x80, 0x3a, 0x01,
    0xf5, 0xbf, 0x00, 0x22,
];

/// A central system on loopback: security profile 1 (`ws`) or 2 (`wss`).
struct CentralSystem {
    bridge: Bridge,
    keys: tempfile::NamedTempFile,
    tls: Option<Arc<ClientConfig>>,
}

impl CentralSystem {
    async fn profile(number: u8) -> Self {
        let keys = tempfile::NamedTempFile::new().unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, &KEY);
        let digest = data_encoding::HEXLOWER.encode(digest.as_ref());
        let lines = format!(
            "CP001 {digest}\nRDAM|123 {}\nCP002 {}\n",
            sha256("0123456789abcdef"),
            sha256("fedcba9876543210")
        );
        fs::write(keys.path(), lines).unwrap();
        let path = keys.path().to_str().unwrap().to_owned();
        let mut settings = vec![
            ("auth", "tokens"),
            ("auth_tokens_file", &*path),
            ("device_paths", "/ocpp/{id}"),
            ("subprotocols", "ocpp2.0.1,ocpp1.6"),
            ("subprotocol_mismatch", "close"),
        ];
        let authority = Authority::new();
        let identity = authority.issue_for_loopback();
        let cert = identity.cert_path.to_str().unwrap();
        let key = identity.key_path.to_str().unwrap();
        if number == 2 {
            settings.extend([("tls_cert", cert), ("tls_key", key)]);
        }
        let bridge = bridge(&settings).await;
        let tls = (number == 2).then(|| Identity::client_config(&authority, None, &[&TLS12]));
        Self { bridge, keys, tls }
    }

    /// The head of the answer to a station that asks for this path.
    async fn ask(&self, identity: &str, authorization: Option<&str>) -> String {
        let mut stream = TcpStream::connect(self.bridge.local_addr()).await.unwrap();
        let authorization =
            authorization.map_or(String::new(), |a| format!("Authorization: {a}\r\n"));
        let request = format!(
            "GET /ocpp/{identity} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: ocpp1.6\r\n{authorization}\r\n"
        );
        let Some(client) = &self.tls else {
            return within("an answer", head(&mut stream, &request)).await;
        };
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(client.clone())
            .connect(name, stream)
            .await
            .unwrap();
        within("an answer", head(&mut stream, &request)).await
    }

    /// Its status.
    async fn status(&self, identity: &str, authorization: Option<&str>) -> u16 {
        let head = self.ask(identity, authorization).await;
        eventually("it has left", async || self.bridge.clients().is_empty()).await;
        head[9..12].parse().unwrap()
    }
}

async fn head(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        assert!(
            stream.read_buf(&mut bytes).await.unwrap() > 0,
            "closed early"
        );
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn basic(user: &str, password: &[u8]) -> String {
    format!(
        "Basic {}",
        BASE64.encode(&[user.as_bytes(), b":", password].concat())
    )
}

/// A00.FR.202 and, over TLS, A00.FR.301: HTTP Basic authentication.
#[tokio::test]
async fn fr_202_a_station_authenticates_itself_with_http_basic() {
    for profile in [1, 2] {
        let system = CentralSystem::profile(profile).await;
        let head = system.ask("CP001", Some(&basic("CP001", &KEY))).await;
        assert!(
            head.starts_with("HTTP/1.1 101 ")
                && head.contains("\r\nSec-WebSocket-Protocol: ocpp1.6\r\n"),
            "{head}"
        );
        let head = system.ask("CP001", None).await;
        assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
        assert!(
            head.contains("\r\nWWW-Authenticate: Basic realm=\"fastsock\"\r\n"),
            "{head}"
        );
    }
}

/// A00.FR.203 and A00.FR.302: user and password with every connection request.
#[tokio::test]
async fn fr_203_and_302_every_request_has_a_user_and_a_password() {
    for profile in [1, 2] {
        let system = CentralSystem::profile(profile).await;
        let whole = basic("CP001", &KEY);
        for _ in 0..2 {
            assert_eq!(system.status("CP001", Some(&whole)).await, 101);
            // That it was connected a moment ago is nothing to go by.
            assert_eq!(system.status("CP001", None).await, 401);
            assert_eq!(
                system.status("CP001", Some(&basic("CP001", b""))).await,
                401
            );
        }
        let only_user = format!("Basic {}", BASE64.encode(b"CP001"));
        assert_eq!(system.status("CP001", Some(&only_user)).await, 400);
        assert_eq!(system.status("CP001", Some(&basic("", &KEY))).await, 400);
    }
}

/// A00.FR.204 and A00.FR.303: the user is the identity that the station uses in its URL.
#[tokio::test]
async fn fr_204_and_303_the_user_is_the_identity_in_the_url() {
    for profile in [1, 2] {
        let system = CentralSystem::profile(profile).await;
        let rotterdam = basic("RDAM|123", b"0123456789abcdef");
        for (identity, authorization, expected) in [
            ("RDAM%7C123", &rotterdam, 101),
            ("CP001", &rotterdam, 403),
            ("CP002", &basic("CP001", &KEY), 403),
            ("cp001", &basic("CP001", &KEY), 403),
            ("CP001", &basic("CP002", b"fedcba9876543210"), 403),
            ("CP001%3A", &basic("CP001:", &KEY), 403), // a user has no colon
        ] {
            assert_eq!(
                system.status(identity, Some(authorization)).await,
                expected,
                "{identity}"
            );
        }
    }
}

/// A00.FR.205 and A00.FR.304: the password is the AuthorizationKey, up to 20 random bytes.
#[tokio::test]
async fn fr_205_and_304_the_password_is_the_authorization_key_byte_for_byte() {
    for profile in [1, 2] {
        let system = CentralSystem::profile(profile).await;
        assert_eq!(
            system.status("CP001", Some(&basic("CP001", &KEY))).await,
            101
        );
        let lossy = String::from_utf8_lossy(&KEY).into_owned();
        let hexadecimal = data_encoding::HEXUPPER.encode(&KEY);
        for wrong in [
            lossy.as_bytes(),
            &KEY[..19],
            &KEY[1..],
            hexadecimal.as_bytes(),
        ] {
            assert_eq!(
                system.status("CP001", Some(&basic("CP001", wrong))).await,
                401
            );
        }
        // A new key (ChangeConfiguration of AuthorizationKey): the old one is over.
        let next = tempfile::NamedTempFile::new_in(system.keys.path().parent().unwrap()).unwrap();
        fs::write(
            next.path(),
            format!("CP001 {}\n", sha256("0123456789abcdefghij")),
        )
        .unwrap();
        fs::rename(next.path(), system.keys.path()).unwrap();
        let new = basic("CP001", b"0123456789abcdefghij");
        eventually("the new key counts", async || {
            system.status("CP001", Some(&new)).await == 101
        })
        .await;
        assert_eq!(
            system.status("CP001", Some(&basic("CP001", &KEY))).await,
            401
        );
    }
}
