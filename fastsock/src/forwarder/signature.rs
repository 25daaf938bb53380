//! Signs POSTs as Standard Webhooks 1.0 says, so that the backend can tell them from anyone else's; no I/O, no clock.

use data_encoding::BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Secret;

/// The keys of `remote_secret`: one, or two while they are changed.
pub(super) struct Signer {
    keys: Vec<Hmac<Sha256>>,
}

impl Signer {
    /// `None` for a secret that is none ([`Secret::webhook_keys`]).
    pub(super) fn new(secret: &Secret) -> Option<Self> {
        let keys = secret.webhook_keys()?;
        let keys = keys
            .iter()
            .map(|key| Hmac::new_from_slice(key).expect("HMAC takes keys of any length"));
        Some(Self {
            keys: keys.collect(),
        })
    }

    /// The value of `webhook-signature`: one signature for each key, in the order of the setting.
    pub(super) fn sign(&self, id: &str, unix_seconds: u64, body: &[u8]) -> String {
        let head = format!("{id}.{unix_seconds}.");
        let mut text = String::new();
        for key in &self.keys {
            let mut mac = key.clone();
            mac.update(head.as_bytes());
            mac.update(body);
            let separator = if text.is_empty() { "v1," } else { " v1," };
            text.push_str(separator);
            BASE64.encode_append(&mac.finalize().into_bytes(), &mut text);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Secret and message as the specification's reference implementations test themselves with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn sign(secret: &str) -> String {
        let signer = Signer::new(&Secret::new(secret)).unwrap();
        let body = br#"{"test": 2432232314}"#;
        signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body)
    }

    #[test]
    fn it_signs_as_the_reference_implementations_do() {
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(SECRET), expected);
    }

    #[test]
    fn two_secrets_give_two_signatures_in_their_order() {
        let other = format!("whsec_{}", BASE64.encode(&[7; 32]));
        let expected = format!("{} {}", sign(SECRET), sign(&other));
        assert_eq!(sign(&format!("{SECRET} {other}")), expected);
    }
}
