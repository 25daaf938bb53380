//! Places to show a token in, and bridges that want one.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use fastsock::{Bridge, Config};
use ring::{digest, hmac, signature::Ed25519KeyPair, signature::KeyPair};
use support::{Device, Refused, eventually};

/// Where a token is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Bearer,
    Subprotocol,
    Query,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Bearer, Self::Subprotocol, Self::Query];

    /// Connects with a token in this place.
    pub(crate) async fn show(self, addr: SocketAddr, token: &str) -> Result<Device, Refused> {
        match self {
            Self::Bearer => {
                let value = format!("Bearer {token}");
                Device::request(addr, "/", &[("authorization", &value)]).await
            }
            Self::Subprotocol => {
                let offer = format!("fastsock-token.{token}, chat");
                let shown = Device::request(addr, "/", &[("sec-websocket-protocol", &offer)]).await;
                let device = shown?;
                // The token is never echoed; another one is, or browsers would hang up.
                assert_eq!(device.response_headers()["sec-websocket-protocol"], "chat");
                Ok(device)
            }
            Self::Query => Device::try_connect(addr, token).await,
        }
    }
}

/// A bridge on loopback with these settings.
pub(crate) async fn bridge(settings: &[(&str, &str)]) -> Bridge {
    let builder = Bridge::builder(config(settings));
    builder.start().await.expect("good settings")
}

/// Settings on top of a free port on loopback.
pub(crate) fn config(settings: &[(&str, &str)]) -> Config {
    let mut config = support::loopback();
    for (name, value) in settings {
        config.set(name, value).unwrap();
    }
    config
}

/// Waits until this client and no other is seated.
pub(crate) async fn wait_only(bridge: &Bridge, client_id: &str) {
    eventually(client_id, async || {
        let clients = bridge.clients();
        clients.len() == 1 && clients[0].client_id.as_str() == client_id
    })
    .await;
}

/// Connects, sees under which name, and leaves.
pub(crate) async fn visit(bridge: &Bridge, place: Place, token: &str) -> String {
    let device = place.show(bridge.local_addr(), token).await.unwrap();
    let name = bridge.clients()[0].client_id.to_string();
    device.close(1000).await;
    eventually("it has left", async || bridge.clients().is_empty()).await;
    name
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    data_encoding::HEXLOWER.encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

/// Seconds since 1970, so much from now.
pub(crate) fn from_now(seconds: f64) -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs_f64() + seconds
}

/// An HS256 token with these claims as JSON.
pub(crate) fn hs256(secret: &str, claims: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = format!("{}.{}", base64(r#"{"alg":"HS256"}"#), base64(claims));
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", base64(signature))
}

/// The setting for such a secret.
pub(crate) fn secret(text: &str) -> String {
    format!("hs256:text:{text}")
}

/// An Ed25519 key with a name.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    name: &'static str,
}

impl Signer {
    /// The same for the same number.
    pub(crate) fn new(name: &'static str, number: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap();
        Self { pair, name }
    }

    /// Its public half in a JWK set.
    pub(crate) fn set(&self) -> String {
        format!(r#"{{"keys":[{}]}}"#, self.jwk())
    }

    /// Its public half.
    pub(crate) fn jwk(&self) -> String {
        let x = base64(self.pair.public_key());
        let name = self.name;
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{name}","x":"{x}"}}"#)
    }

    /// A token for this client id that is good for an hour.
    pub(crate) fn token(&self, client_id: &str) -> String {
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, self.name);
        self.sign(&header, client_id)
    }

    /// The same, which does not say whose key it is of.
    pub(crate) fn token_without_name(&self, client_id: &str) -> String {
        self.sign(r#"{"alg":"EdDSA"}"#, client_id)
    }

    fn sign(&self, header: &str, client_id: &str) -> String {
        let claims = format!(r#"{{"sub":"{client_id}","exp":{}}}"#, from_now(3600.0));
        let signed = format!("{}.{}", base64(header), base64(claims));
        format!("{signed}.{}", base64(self.pair.sign(signed.as_bytes())))
    }
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::BASE64URL_NOPAD.encode(bytes.as_ref())
}

/// For what a busy machine may take longer for than the usual deadline.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
