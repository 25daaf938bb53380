//! The keys of `auth_jwt_key`: public ones, or a secret that says that it is one. No I/O.

use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use zeroize::Zeroizing;

use super::key::Key;
use crate::error::{Error, ErrorKind, Result};

/// The keys that the text holds: PEM blocks `PUBLIC KEY`, such a key as bare Base64, or `hs256:` and a secret.
///
/// What is not marked as a secret is never taken for one: a path, a URL or the public key of an identity provider is no secret, and
/// whoever guesses the text could sign with it.
///
/// # Errors
/// `Config`, naming the variable and what the text is instead, but not the text.
pub(crate) fn keys(text: &str) -> Result<Vec<Key>> {
    let text = text.trim().trim_start_matches('\u{feff}');
    let keys = if let Some(secret) = text.strip_prefix("hs256:") {
        secret_key(secret).map(|key| vec![key])
    } else if text.contains(PEM) {
        public_keys(text)
    } else if let Some(der) = base64(text).filter(|der| is_public_key(der)) {
        Key::public(&der).map(|key| vec![key]).ok_or(UNUSABLE)
    } else {
        Err(what_else(text))
    };
    keys.map_err(|what| Error::new(ErrorKind::Config, format!("{VARIABLE}: {what}")))
}

fn secret_key(text: &str) -> Result<Key, &'static str> {
    let secret = if let Some(text) = text.strip_prefix("text:") {
        Zeroizing::new(text.as_bytes().to_vec())
    } else if let Some(text) = text.strip_prefix("base64:") {
        base64(text).ok_or("the text after hs256:base64: is not Base64")?
    } else {
        return Err("hs256: must be followed by text: or base64:");
    };
    let as_text = std::str::from_utf8(&secret).unwrap_or_default();
    let is_key = |text| base64(text).is_some_and(|der| is_public_key(&der));
    if as_text.contains(PEM) || is_public_key(&secret) || is_key(as_text) {
        return Err(
            "hs256: is followed by a public key, which is not a secret; give it without hs256:",
        );
    }
    if is_url(as_text) || is_json(as_text) {
        return Err("hs256: is followed by a URL or JSON, which is not a secret");
    }
    Key::secret(&secret, None).ok_or("a secret for HS256 has at least 32 bytes")
}

fn public_keys(text: &str) -> Result<Vec<Key>, &'static str> {
    for block in text.split(PEM).skip(1) {
        let label = block.split("-----").next().unwrap_or_default();
        if label.contains("PRIVATE KEY") {
            return Err("this is a private key, which only the signer needs; give its PUBLIC KEY");
        } else if label != "PUBLIC KEY" {
            return Err(
                "there is a PEM block that is no PUBLIC KEY (openssl x509 -pubkey makes one of a certificate, \
                openssl rsa -RSAPublicKey_in -pubout of an RSA PUBLIC KEY)",
            );
        }
    }
    let keys = SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes())
        .map(|der| Key::public(&der.map_err(|_| UNREADABLE)?).ok_or(UNUSABLE))
        .collect::<Result<Vec<_>, _>>()?;
    match keys.is_empty() {
        true => Err(UNREADABLE),
        false => Ok(keys),
    }
}

/// Names what the text is, as far as that helps.
fn what_else(text: &str) -> &'static str {
    if is_url(text) {
        "this is a URL; FASTSOCK_AUTH_JWT_JWKS takes the URL of a JWK set"
    } else if is_json(text) {
        "this is JSON; a JWK goes into a file as {\"keys\":[…]}, which FASTSOCK_AUTH_JWT_JWKS names"
    } else if text.starts_with(['/', '.', '~']) || text.contains(":\\") || has_ending(text) {
        "this is a path; FASTSOCK_AUTH_JWT_KEY_FILE takes one"
    } else if base64(text).is_some_and(|der| der.first() == Some(&0x30) && der.len() > 100) {
        "this is not a public key (openssl x509 -pubkey prints that of a certificate)"
    } else {
        "a secret is hs256:text: or hs256:base64: and at least 32 bytes; a public key is PEM, or the Base64 in it"
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn is_json(text: &str) -> bool {
    text.starts_with(['{', '['])
}

/// Whether it ends as the names of such files do.
fn has_ending(text: &str) -> bool {
    let ending = text.rsplit_once('.').map_or("", |(_, ending)| ending);
    [
        "pem", "key", "pub", "crt", "cer", "der", "json", "jwk", "jwks", "txt",
    ]
    .contains(&ending)
}

/// RFC 5280 §4.1: an algorithm and a key, whether or not it can be used here.
fn is_public_key(der: &[u8]) -> bool {
    spki::SubjectPublicKeyInfoRef::try_from(der).is_ok()
}

/// Of either alphabet, with or without padding, in lines or in one.
fn base64(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let text: Zeroizing<String> = Zeroizing::new(text.split_ascii_whitespace().collect());
    [BASE64, BASE64_NOPAD, BASE64URL, BASE64URL_NOPAD]
        .iter()
        .find_map(|encoding| encoding.decode(text.as_bytes()).ok())
        .map(Zeroizing::new)
}

const VARIABLE: &str = "FASTSOCK_AUTH_JWT_KEY";
const PEM: &str = "-----BEGIN ";
const UNREADABLE: &str = "this PEM cannot be read";
const UNUSABLE: &str = "a public key is not one for RS256 (2048 bits or more), ES256 or EdDSA";
