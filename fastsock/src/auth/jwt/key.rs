//! Keys, each for one algorithm, and the signature of a token (JWS compact serialization, RFC 7515 §7.1). No I/O.
//!
//! The signatures are ring's. The crates for JWTs either keep their cryptography in a global of the process, which is the
//! host's, or bring a second library for it; what is left without them is three parts and two dots.

use data_encoding::BASE64URL_NOPAD;
use ring::{
    hmac,
    signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm},
};
use serde::{Deserialize, de::IgnoredAny};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::unique;

/// A key for one algorithm: what a token says of itself only has to match.
pub(crate) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    material: Material,
}

/// RFC 7518 §3.1, RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Hs256,
    Rs256,
    Es256,
    EdDsa,
}

enum Material {
    Secret(hmac::Key),
    Public(UnparsedPublicKey<Vec<u8>>),
    /// Modulus and exponent.
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed,
    /// None that is known here.
    UnknownAlgorithm,
    /// Not that of its key.
    Algorithm,
    /// It names a key that is not among these.
    UnknownKey,
    Signature,
}

/// The header of a token (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What it lists must be understood, and nothing is.
    crit: Option<IgnoredAny>,
}

/// One key of a set (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The payload of a token that one of these keys has signed.
///
/// A key without a name may be any that a token names; but when it has not signed the token, that one is still unknown.
pub(super) fn verify<'k>(
    token: &str,
    keys: impl Iterator<Item = &'k Key>,
) -> Result<Vec<u8>, Fault> {
    let (signed, signature) = token.rsplit_once('.').ok_or(Fault::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(Fault::Malformed)?;
    let header = unique::parse::<Header>(&decode(header)?).ok_or(Fault::Malformed)?;
    let (payload, signature) = (decode(payload)?, decode(signature)?);
    if header.crit.is_some() {
        return Err(Fault::Malformed);
    }
    let algorithm = Algorithm::of(&header.alg).ok_or(Fault::UnknownAlgorithm)?;
    let name = header.kid.as_deref();
    let mut fault = Fault::UnknownKey;
    for key in keys.filter(|key| key.is_called(name)) {
        let found = if key.algorithm != algorithm {
            Fault::Algorithm
        } else if key.has_signed(signed.as_bytes(), &signature) {
            return Ok(payload);
        } else {
            Fault::Signature
        };
        let is_meant = name.is_none() || key.id.as_deref() == name;
        if is_meant && fault != Fault::Signature {
            fault = found;
        }
    }
    Err(fault)
}

/// Base64url without padding and without stray bits: each token has one spelling.
fn decode(part: &str) -> Result<Vec<u8>, Fault> {
    BASE64URL_NOPAD
        .decode(part.as_bytes())
        .map_err(|_| Fault::Malformed)
}

/// Where a JWK set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Whoever can read it can be trusted.
    File,
    /// What is in it is for everyone to read.
    Url,
}

/// The keys of a JWK set that can be used here; others are passed over (RFC 7517 §5). Secrets are taken from a file alone: who
/// can fetch a set could sign with them.
pub(crate) fn from_jwks(text: &[u8], origin: Origin) -> Result<Vec<Key>, &'static str> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let set: Set = serde_json::from_slice(text).map_err(|_| "not a JWK set")?;
    if set.keys.len() > MOST_KEYS {
        return Err("the JWK set has more than 100 keys");
    }
    let keys: Vec<_> = set
        .keys
        .into_iter()
        .filter_map(|key| Key::from_jwk(serde_json::from_value(key).ok()?, origin))
        .collect();
    if keys.is_empty() {
        return Err(match origin {
            Origin::File => "the JWK set has no key for HS256, RS256, ES256 or EdDSA",
            Origin::Url => {
                "the JWK set has no key for RS256, ES256 or EdDSA; secrets are taken from a file only"
            }
        });
    }
    Ok(keys)
}

impl Key {
    /// For HS256; `None` when it is too short to be safe.
    pub(super) fn secret(secret: &[u8], id: Option<String>) -> Option<Self> {
        (secret.len() >= LEAST_SECRET_BYTES).then(|| Self {
            id,
            algorithm: Algorithm::Hs256,
            material: Material::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret)),
        })
    }

    /// From a SubjectPublicKeyInfo (RFC 5280 §4.1).
    pub(super) fn public(der: &[u8]) -> Option<Self> {
        let info = SubjectPublicKeyInfoRef::try_from(der).ok()?;
        let bytes = info.subject_public_key.as_bytes()?;
        let curve = info.algorithm.parameters_oid().ok();
        match info.algorithm.oid {
            // The modulus takes all but some 14 bytes of it.
            RSA if bytes.len() >= LEAST_MODULUS_BYTES => Some(Self::of(
                Algorithm::Rs256,
                &signature::RSA_PKCS1_2048_8192_SHA256,
                bytes,
            )),
            EC if curve == Some(P_256) => Self::p256(bytes),
            ED25519 => Self::ed25519(bytes),
            _ => None,
        }
    }

    fn p256(point: &[u8]) -> Option<Self> {
        let is_uncompressed = point.len() == 65 && point[0] == 4;
        is_uncompressed
            .then(|| Self::of(Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED, point))
    }

    fn ed25519(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 32).then(|| Self::of(Algorithm::EdDsa, &signature::ED25519, bytes))
    }

    fn of(
        algorithm: Algorithm,
        verification: &'static dyn VerificationAlgorithm,
        bytes: &[u8],
    ) -> Self {
        let public = UnparsedPublicKey::new(verification, bytes.to_vec());
        Self {
            id: None,
            algorithm,
            material: Material::Public(public),
        }
    }

    fn from_jwk(jwk: Jwk, origin: Origin) -> Option<Self> {
        let is_for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk
                .key_ops
                .as_ref()
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !is_for_signatures {
            return None;
        }
        let bytes = |text: &Option<String>| decode(text.as_deref()?).ok();
        let mut key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("oct", _) if origin == Origin::File => Self::secret(&bytes(&jwk.k)?, None)?,
            ("RSA", _) => {
                let (n, e) = (bytes(&jwk.n)?, bytes(&jwk.e)?);
                if n.len() < LEAST_MODULUS_BYTES {
                    return None;
                }
                Self {
                    id: None,
                    algorithm: Algorithm::Rs256,
                    material: Material::Rsa(RsaPublicKeyComponents { n, e }),
                }
            }
            ("EC", Some("P-256")) => {
                let point = [vec![4], bytes(&jwk.x)?, bytes(&jwk.y)?].concat();
                Self::p256(&point)?
            }
            ("OKP", Some("Ed25519")) => Self::ed25519(&bytes(&jwk.x)?)?,
            _ => return None,
        };
        key.id = jwk.kid;
        let is_meant = |alg: &str| Algorithm::of(alg) == Some(key.algorithm);
        jwk.alg.as_deref().is_none_or(is_meant).then_some(key)
    }

    /// Whether a token that names this key can mean it. One without a name can be any, and so can a key.
    fn is_called(&self, id: Option<&str>) -> bool {
        match (self.id.as_deref(), id) {
            (Some(own), Some(named)) => own == named,
            _ => true,
        }
    }

    fn has_signed(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
            Material::Public(key) => key.verify(signed, signature).is_ok(),
            Material::Rsa(key) => key
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, signature)
                .is_ok(),
        }
    }
}

impl Algorithm {
    fn of(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::Hs256),
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" | "Ed25519" => Some(Self::EdDsa), // RFC 9864 calls it by its curve
            _ => None,
        }
    }
}

impl Fault {
    /// The words for the device and the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "the token is malformed",
            Self::UnknownAlgorithm => "the token's algorithm is unknown",
            Self::Algorithm => "the token's algorithm is not its key's",
            Self::UnknownKey => "the token's key is unknown",
            Self::Signature => "the token's signature is wrong",
        }
    }
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 7518 §3.2: as long as the hash.
const LEAST_SECRET_BYTES: usize = 32;
/// RFC 7518 §3.3: 2048 bits.
const LEAST_MODULUS_BYTES: usize = 256;
const MOST_KEYS: usize = 100;
