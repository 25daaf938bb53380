//! Tokens of devices that show a JWT (RFC 7519), signed with HS256 (RFC 7515 §3.1).

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What makes a gateway ask for them.
pub(crate) const VARS: [(&str, &str); 2] = [
    ("FASTSOCK_AUTH", "jwt"),
    (
        "FASTSOCK_AUTH_JWT_KEY",
        "hs256:text:the bench has a secret of 32 bytes",
    ),
];

/// The token of a client id that is in a group, or in none; good until the year 2100.
pub(crate) fn token(client_id: &str, group: Option<&str>) -> String {
    let header = BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let groups = group.map_or_else(String::new, |group| format!(r#","groups":["{group}"]"#));
    let claims = format!(r#"{{"sub":"{client_id}","exp":4102444800{groups}}}"#);
    let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.as_bytes()));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length is right");
    mac.update(signed.as_bytes());
    let signature = BASE64URL_NOPAD.encode(&mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

const SECRET: &str = "the bench has a secret of 32 bytes";
