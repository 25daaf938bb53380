//! The published vectors, and everything that is not one of them.

use rcgen::{KeyPair, PublicKeyData as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use super::{
    key::{Fault, Key, Origin, from_jwks, verify},
    setting::keys as from_text,
    *,
};

/// RFC 7515 §A.1.
const A1: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const A1_KEY: &str = r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;
/// RFC 7515 §A.2.
const A2: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const A2_KEY: &str = r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#;
/// The same key as PEM.
const A2_PEM: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj
NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz
P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo
9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB
EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX
FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp
oQIDAQAB
-----END PUBLIC KEY-----
";
/// RFC 7515 §A.3.
const A3: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const A3_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
/// RFC 8037 §A.4.
const ED: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
const ED_KEY: &str =
    r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn set(keys: &[&str]) -> Vec<Key> {
    from_jwks(listed(keys).as_bytes(), Origin::File).unwrap()
}

fn listed(keys: &[&str]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

fn check(token: &str, keys: &[Key]) -> Result<Vec<u8>, Fault> {
    verify(token, keys.iter())
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::BASE64URL_NOPAD.encode(bytes.as_ref())
}

/// A token with this header, signed by HMAC-SHA256 whatever the header says.
fn hmac_signed(header: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", base64(header), base64("{}"));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let signature = ring::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", base64(signature))
}

#[test]
fn the_published_vectors_are_verified() {
    for (token, key, payload) in [
        (A1, A1_KEY, "joe"),
        (A2, A2_KEY, "joe"),
        (A3, A3_KEY, "joe"),
        (ED, ED_KEY, "Example of Ed25519 signing"),
    ] {
        let verified = check(token, &set(&[key])).unwrap();
        assert!(String::from_utf8(verified).unwrap().contains(payload));
    }
    assert!(check(A2, &from_text(A2_PEM).unwrap()).is_ok());
}

#[test]
fn one_changed_character_anywhere_is_noticed() {
    for (token, key) in [(A1, A1_KEY), (A2, A2_KEY), (A3, A3_KEY), (ED, ED_KEY)] {
        let keys = set(&[key]);
        for index in 0..token.len() {
            let other = if &token[index..=index] == "A" {
                "B"
            } else {
                "A"
            };
            let mut changed = token.to_owned();
            changed.replace_range(index..=index, other);
            assert!(check(&changed, &keys).is_err(), "{index}: {changed}");
        }
        for part in 0..3 {
            let mut parts: Vec<_> = token.split('.').collect();
            parts[part] = "";
            assert!(check(&parts.join("."), &keys).is_err(), "{part}");
        }
    }
}

#[test]
fn an_algorithm_cannot_be_confused_with_another() {
    let rsa = from_text(A2_PEM).unwrap();
    // The oldest trick: the public key as the secret of an HMAC.
    for secret in [A2_PEM, A2_PEM.trim(), A2_KEY] {
        let token = hmac_signed(r#"{"alg":"HS256"}"#, secret.as_bytes());
        assert_eq!(check(&token, &rsa), Err(Fault::Algorithm));
        let token = hmac_signed(r#"{"alg":"RS256"}"#, secret.as_bytes());
        assert_eq!(check(&token, &rsa), Err(Fault::Signature));
    }
    for algorithm in [
        "none", "None", "NONE", "nOnE", "", "HS512", "RS512", "PS256", "hs256",
    ] {
        let head = base64(format!(r#"{{"alg":"{algorithm}"}}"#));
        for signature in ["", "AA", &A2[A2.rfind('.').unwrap() + 1..]] {
            let token = format!("{head}.{}.{signature}", base64("{}"));
            let refused = Err(Fault::UnknownAlgorithm);
            assert_eq!(check(&token, &rsa), refused, "{algorithm}");
        }
    }
    // A token that names a key of another type (RFC 8725 §3.1), and one of the "psychic" kind: r = s = 0.
    let named = |key: &str| key.replacen('{', r#"{"kid":"k","#, 1);
    let token = hmac_signed(r#"{"alg":"HS256","kid":"k"}"#, A3_KEY.as_bytes());
    for key in [A2_KEY, A3_KEY, ED_KEY] {
        assert_eq!(check(&token, &set(&[&named(key)])), Err(Fault::Algorithm));
    }
    for (token, keys) in [
        (A1, [A2_KEY, A3_KEY]),
        (A2, [A1_KEY, A3_KEY]),
        (A3, [A1_KEY, ED_KEY]),
    ] {
        assert_eq!(check(token, &set(&keys)), Err(Fault::Algorithm));
    }
    let (signed, _) = A3.rsplit_once('.').unwrap();
    for bytes in [vec![0; 64], vec![0; 63], vec![], vec![0xff; 64]] {
        let token = format!("{signed}.{}", base64(&bytes));
        assert_eq!(check(&token, &set(&[A3_KEY])), Err(Fault::Signature));
    }
    // A key in the token's own header is nobody's key (RFC 7515 §4.1.3).
    let secret = b"a secret that the sender has chosen himself";
    let head = format!(
        r#"{{"alg":"HS256","jwk":{{"kty":"oct","k":"{}"}}}}"#,
        base64(secret)
    );
    assert_eq!(
        check(&hmac_signed(&head, secret), &rsa),
        Err(Fault::Algorithm)
    );
}

#[test]
fn a_header_that_must_be_understood_is_not() {
    let secret = b"0123456789abcdef0123456789abcdef";
    let keys = from_text("hs256:text:0123456789abcdef0123456789abcdef").unwrap();
    assert!(check(&hmac_signed(r#"{"alg":"HS256"}"#, secret), &keys).is_ok());
    for header in [
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"JWT","typ":"JWT"}"#,
        r#"{"alg":"HS256","x":1,"\u0078":2}"#,
        r#"{"alg":"HS256"}{}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"kid":"a"}"#,
        r#"["HS256"]"#,
        "",
    ] {
        let checked = check(&hmac_signed(header, secret), &keys);
        assert_eq!(checked, Err(Fault::Malformed), "{header}");
    }
}

#[test]
fn a_token_that_names_its_key_means_that_one() {
    let secret = |n: u8| vec![n; 32];
    let jwk = |name: &str, n| {
        format!(
            r#"{{"kty":"oct","kid":"{name}","k":"{}"}}"#,
            base64(secret(n))
        )
    };
    let keys = set(&[&jwk("one", 1), &jwk("two", 2), A2_KEY]);
    let signed = |header: &str, n| hmac_signed(header, &secret(n));
    assert!(check(&signed(r#"{"alg":"HS256","kid":"two"}"#, 2), &keys).is_ok());
    assert!(check(&signed(r#"{"alg":"HS256"}"#, 2), &keys).is_ok());
    let wrong = check(&signed(r#"{"alg":"HS256","kid":"one"}"#, 2), &keys);
    assert_eq!(wrong, Err(Fault::Signature));
    let unknown = check(&signed(r#"{"alg":"HS256","kid":"three"}"#, 3), &keys[..2]);
    assert_eq!(unknown, Err(Fault::UnknownKey));
    // A key without a name may be the one that is meant; if it is not, that one is still unknown.
    let nameless = jwk("", 4).replace(r#""kid":"","#, "");
    let keys = set(&[&nameless, &jwk("one", 1), A2_KEY]);
    assert!(check(&signed(r#"{"alg":"HS256","kid":"four"}"#, 4), &keys).is_ok());
    for (kid, fault) in [
        (r#","kid":"three""#, Fault::UnknownKey),
        (r#","kid":"one""#, Fault::Signature),
        ("", Fault::Signature),
    ] {
        let header = format!(r#"{{"alg":"HS256"{kid}}}"#);
        assert_eq!(check(&signed(&header, 3), &keys), Err(fault), "{kid}");
    }
}

#[test]
fn keys_of_all_kinds_come_as_pem() {
    for (algorithm, name) in [
        (&rcgen::PKCS_ED25519, "EdDSA"),
        (&rcgen::PKCS_ECDSA_P256_SHA256, "ES256"),
    ] {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let pem = pair.public_key_pem();
        assert!(!pair.der_bytes().is_empty());
        let token = format!(
            "{}.{}.AA",
            base64(format!(r#"{{"alg":"{name}"}}"#)),
            base64("{}")
        );
        assert_eq!(
            check(&token, &from_text(&pem).unwrap()),
            Err(Fault::Signature)
        );
        // Several, with text around them.
        let several = format!("one\n{pem}\ntwo\n{A2_PEM}");
        let keys = from_text(&several).unwrap();
        assert_eq!(keys.len(), 2);
        assert!(check(A2, &keys).is_ok());
    }
}

#[test]
fn a_public_key_may_come_as_the_base64_alone() {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(A2_PEM.as_bytes()).unwrap();
    let padded = data_encoding::BASE64.encode(&der);
    let lines: Vec<_> = A2_PEM
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    for text in [
        padded.clone(),
        padded.trim_end_matches('=').to_owned(),
        format!(" {}\n", lines.join("\r\n")),
        base64(&der),
        format!("\u{feff}{A2_PEM}"),
    ] {
        let keys = from_text(&text).unwrap();
        assert!(check(A2, &keys).is_ok(), "{text}");
        // It is the public key that it is, and no secret.
        for secret in [text.as_bytes(), text.trim().as_bytes(), &der] {
            let token = hmac_signed(r#"{"alg":"HS256"}"#, secret);
            assert_eq!(check(&token, &keys), Err(Fault::Algorithm));
        }
    }
}

#[test]
fn a_secret_says_that_it_is_one() {
    let secret = "0123456789abcdef0123456789abcdef"; // as Base64, 24 bytes
    let bytes = [7; 32];
    let padded = data_encoding::BASE64.encode(&bytes);
    for (text, secret) in [
        (format!("hs256:text:{secret}"), secret.as_bytes()),
        (format!("\nhs256:text:{secret}\r\n"), secret.as_bytes()),
        (format!("hs256:text:{padded}"), padded.as_bytes()),
        (format!("hs256:base64:{padded}"), &bytes),
        (format!("hs256:base64:{}", base64(bytes)), &bytes),
    ] {
        let token = hmac_signed(r#"{"alg":"HS256"}"#, secret);
        assert!(check(&token, &from_text(&text).unwrap()).is_ok(), "{text}");
    }
    for (text, told) in [
        ("hs256:text:s3cret", "at least 32 bytes"),
        ("hs256:text:", "at least 32 bytes"),
        (&format!("hs256:base64:{secret}"), "at least 32 bytes"),
        ("hs256:base64:no Base64!", "is not Base64"),
        (&format!("hs256:{secret}"), "followed by text: or base64:"),
        (&format!("hs256:text:{A2_PEM}"), "is not a secret"),
        (&format!("hs256:base64:{}", bare(A2_PEM)), "is not a secret"),
        (&format!("hs256:text:{}", bare(A2_PEM)), "is not a secret"),
        (&format!("hs256:text:{A1_KEY}"), "is not a secret"),
        (
            "hs256:text:https://id.example.com/jwks.json",
            "is not a secret",
        ),
    ] {
        is_refused(text, told);
    }
}

#[test]
fn what_is_neither_is_refused_with_what_it_is_and_never_shown() {
    let small = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDAHgZPqGFfGgVTf3sh+QVGY2X8\nf0CdAnKF9p275LSKQTEn2SKwZ3Ba8iy4ScHtTNA8nqSwebj1s4FzQCQ5Jv8SaXKP\nJ6kXK11KhWfDE4LdpHEeb8fnFNw9RDJgD/upVbnY+4xWEq8GsCs1lJrfSn1IQTFM\nxflVV6f0SdaUS1gKmwIDAQAB\n-----END PUBLIC KEY-----\n";
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let private = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let public = private.public_key_pem();
    let certificate = rcgen::CertificateParams::default();
    let certificate = certificate.self_signed(&private).unwrap().pem();
    let pkcs1 = "-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n";
    let secret = "0123456789abcdef0123456789abcdef";
    for (text, told) in [
        (small, "not one for RS256"),
        (&bare(small), "not one for RS256"),
        (&p384.public_key_pem(), "not one for RS256"),
        (&private.serialize_pem(), "give its PUBLIC KEY"),
        (
            &format!("{public}{}", private.serialize_pem()),
            "give its PUBLIC KEY",
        ),
        (&certificate, "no PUBLIC KEY"),
        (&format!("{public}{certificate}"), "no PUBLIC KEY"),
        (&bare(&certificate), "not a public key (openssl x509"),
        (pkcs1, "no PUBLIC KEY"),
        ("-----BEGIN PUBLIC KEY-----\ns3cret\n", "cannot be read"),
        (&public.replace('\n', "\\n"), "cannot be read"),
        ("/run/secrets/jwt-key-of-the-fleet", "takes one"),
        ("./keys/s3cret-of-the-whole-fleet", "takes one"),
        ("keys/s3cret-of-the-whole-fleet.pem", "takes one"),
        ("C:\\keys\\s3cret-of-the-whole-fleet", "takes one"),
        (
            "https://id.example.com/s3cret/jwks.json",
            "FASTSOCK_AUTH_JWT_JWKS takes",
        ),
        (A1_KEY, "this is JSON"),
        (&listed(&[A1_KEY]), "this is JSON"),
        (secret, "a secret is hs256:text:"),
        (
            "a s3cret of more than 32 bytes, as it was",
            "a secret is hs256:text:",
        ),
        (
            &data_encoding::BASE64.encode(&[7; 32]),
            "a secret is hs256:text:",
        ),
        ("", "a secret is hs256:text:"),
    ] {
        is_refused(text, told);
    }
}

fn is_refused(text: &str, told: &str) {
    let error = from_text(text).err().expect(text).to_line();
    assert!(
        error.starts_with("FASTSOCK_AUTH_JWT_KEY: ") && error.contains(told),
        "{text}: {error}"
    );
    assert!(
        !error.contains("s3cret") && !error.contains("0123"),
        "{error}"
    );
}

/// The Base64 in a PEM block.
fn bare(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

#[test]
fn keys_that_cannot_be_used_are_passed_over() {
    let with = |key: &str, more: &str| key.replacen('{', &format!("{{{more},"), 1);
    for unusable in [
        r#"{"kty":"oct","k":"c2hvcnQ"}"#.to_owned(),
        r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
        r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}"#.to_owned(),
        r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#.into(),
        r#"{"kty":"new"}"#.to_owned(),
        "7".to_owned(),
        with(A2_KEY, r#""use":"enc""#),
        with(A2_KEY, r#""alg":"RS512""#),
        with(A2_KEY, r#""alg":"HS256""#),
        with(A2_KEY, r#""key_ops":["sign"]"#),
    ] {
        assert_eq!(set(&[&unusable, ED_KEY]).len(), 1, "{unusable}");
        assert!(from_jwks(listed(&[&unusable]).as_bytes(), Origin::File).is_err());
    }
    let good = with(
        A2_KEY,
        r#""use":"sig","alg":"RS256","key_ops":["verify"],"x5t":"x""#,
    );
    assert!(check(A2, &set(&[&good])).is_ok());
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#] {
        assert!(from_jwks(bad.as_bytes(), Origin::File).is_err(), "{bad}");
    }
    let marked = format!("\u{feff}{}", listed(&[ED_KEY]));
    assert!(from_jwks(marked.as_bytes(), Origin::File).is_ok());
    let many = listed(&[ED_KEY; 101]);
    assert!(from_jwks(many.as_bytes(), Origin::File).is_err());
}

#[test]
fn a_secret_that_anyone_can_fetch_is_none() {
    let count = |keys: &[&str], origin| {
        from_jwks(listed(keys).as_bytes(), origin).map_or(0, |keys| keys.len())
    };
    assert_eq!(count(&[A1_KEY, ED_KEY], Origin::File), 2);
    assert_eq!(count(&[A1_KEY, ED_KEY], Origin::Url), 1);
    assert_eq!(count(&[A1_KEY], Origin::Url), 0);
    let told = from_jwks(listed(&[A1_KEY]).as_bytes(), Origin::Url).err();
    assert!(told.unwrap().contains("from a file only"));
}

#[test]
fn garbage_of_any_length_is_refused_and_never_panics() {
    let keys = set(&[A1_KEY, A2_KEY, A3_KEY, ED_KEY]);
    let rules = rules();
    let mut random = fastrand::Rng::with_seed(7);
    let alphabet = b"ABCabc019-_.={}\"\\\0 \xff";
    for _ in 0..20_000 {
        let length = random.usize(0..200);
        let text: Vec<u8> = (0..length)
            .map(|_| alphabet[random.usize(..alphabet.len())])
            .collect();
        let _ = rules
            .validate(&text, SystemTime::now())
            .expect_err("no claims");
        let text = String::from_utf8_lossy(&text);
        assert!(check(&text, &keys).is_err(), "{text:?}");
        let token = format!("{}.{text}", &A1[..A1.find('.').unwrap()]);
        assert!(check(&token, &keys).is_err(), "{token:?}");
        let _ = from_jwks(text.as_bytes(), Origin::File);
        let _ = from_text(&text);
    }
    for huge in [
        "A".repeat(1 << 20),
        ".".repeat(1 << 20),
        "{".repeat(1 << 20),
    ] {
        assert!(check(&huge, &keys).is_err());
        assert!(check(&hmac_signed(&huge, b"k"), &keys).is_err());
        assert!(rules.validate(huge.as_bytes(), SystemTime::now()).is_err());
    }
}

#[test]
fn an_ed25519_token_of_our_own_is_verified_under_both_names() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let x = base64(pair.public_key());
    let keys = set(&[&format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)]);
    for name in ["EdDSA", "Ed25519"] {
        let signed = format!(
            "{}.{}",
            base64(format!(r#"{{"alg":"{name}"}}"#)),
            base64("{}")
        );
        let token = format!("{signed}.{}", base64(pair.sign(signed.as_bytes())));
        assert_eq!(check(&token, &keys), Ok(b"{}".to_vec()));
    }
}

fn rules() -> Rules {
    Rules {
        claim: "sub".into(),
        form: ClientIdForm::id(),
        audience: vec!["here".into(), "there".into()],
        issuer: vec!["us".into()],
        leeway: Duration::from_secs(10),
        has_groups: true,
    }
}

#[test]
fn claims_decide_who_and_until_when() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    for (claims, expected) in [
        (r#""exp":1001"#, Ok(1011.0)),
        (r#""exp":990.5"#, Ok(1000.5)),
        (r#""exp":990"#, Err("the token has expired")),
        (r#""exp":0"#, Err("the token has expired")),
        (r#""exp":-5"#, Err("the token has a bad time")),
        (r#""exp":1e300"#, Err("the token has a bad time")),
        (r#""exp":null"#, Err("the token never expires")),
        (r#""x":1"#, Err("the token never expires")),
        (r#""exp":"1001""#, Err("the token's claims are malformed")),
        (r#""exp":2000,"nbf":1010"#, Ok(2010.0)),
        (
            r#""exp":2000,"nbf":1011"#,
            Err("the token is not valid yet"),
        ),
        (
            r#""exp":2000,"exp":3000"#,
            Err("the token's claims are malformed"),
        ),
        (
            r#""exp":2000,"sub":"dev2""#,
            Err("the token's claims are malformed"),
        ),
        (
            r#""exp":2000,"nbf":"soon""#,
            Err("the token's claims are malformed"),
        ),
    ] {
        let claims = format!(r#"{{"sub":"dev1","iss":"us","aud":"here",{claims}}}"#);
        let principal = rules().validate(claims.as_bytes(), now);
        let expected = expected.map_err(Denied::Invalid).map(|seconds| {
            let until = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
            (ClientId::new("dev1").unwrap(), until, Vec::new())
        });
        assert_eq!(principal, expected, "{claims}");
    }
}

#[test]
fn a_token_made_by_a_clock_that_is_a_little_ahead_is_good() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let strict = Rules {
        leeway: Duration::ZERO,
        ..rules()
    };
    for (nbf, is_good) in [(1000, true), (1005, true), (1006, false)] {
        let claims = format!(r#"{{"sub":"dev1","iss":"us","aud":"here","exp":2000,"nbf":{nbf}}}"#);
        assert_eq!(
            strict.validate(claims.as_bytes(), now).is_ok(),
            is_good,
            "{nbf}"
        );
    }
    let claims = r#"{"sub":"dev1","iss":"us","aud":"here","exp":1000}"#;
    assert!(
        strict.validate(claims.as_bytes(), now).is_err(),
        "exp has none"
    );
}

#[test]
fn a_token_is_from_whom_and_for_whom_it_says() {
    let now = SystemTime::UNIX_EPOCH;
    let admit = |rules: &Rules, claims: &str| {
        let claims = format!(r#"{{"exp":99,{claims}}}"#);
        rules
            .validate(claims.as_bytes(), now)
            .map(|(id, _, _)| id.to_string())
    };
    let audience = Err(Denied::Invalid("the token is for another audience"));
    let issuer = Err(Denied::Invalid("the token is of another issuer"));
    let nobody = Err(Denied::Forbidden("the token names no client id"));
    let dev1 = Ok("dev1".to_owned());
    for (claims, expected) in [
        (r#""sub":"dev1","iss":"us","aud":["x","there"]"#, &dev1),
        (r#""sub":"dev1","iss":"us","aud":["x"]"#, &audience),
        (r#""sub":"dev1","iss":"us","aud":[]"#, &audience),
        (r#""sub":"dev1","iss":"us""#, &audience),
        (r#""sub":"dev1","iss":"them","aud":"here""#, &issuer),
        (r#""sub":"dev1","aud":"here""#, &issuer),
        (r#""iss":"us","aud":"here""#, &nobody),
        (r#""sub":"","iss":"us","aud":"here""#, &nobody),
        (r#""sub":7,"iss":"us","aud":"here""#, &nobody),
    ] {
        assert_eq!(&admit(&rules(), claims), expected, "{claims}");
    }
    let mut open = Rules {
        audience: vec![],
        issuer: vec![],
        ..rules()
    };
    assert_eq!(admit(&open, r#""sub":"dev1""#), dev1);
    assert_eq!(admit(&open, r#""sub":"dev1","aud":"anyone""#), audience);
    open.claim = "device".into();
    assert_eq!(admit(&open, r#""sub":"x","device":"dev1""#), dev1);
    open.claim = "iss".into();
    assert_eq!(admit(&open, r#""sub":"x","iss":"dev1""#), dev1);
}

#[test]
fn a_token_may_say_which_groups_its_device_is_in() {
    let groups = |claim: &str| {
        let claims = format!(r#"{{"sub":"dev1","iss":"us","aud":"here","exp":99{claim}}}"#);
        let valid = rules().validate(claims.as_bytes(), SystemTime::UNIX_EPOCH);
        valid.map(|(_, _, groups)| groups)
    };
    let none = Vec::<String>::new();
    assert_eq!(groups(""), Ok(none.clone()));
    assert_eq!(groups(r#","groups":null"#), Ok(none.clone()));
    let two = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(groups(r#","groups":["a","b"]"#), Ok(two));
    for bad in [r#","groups":"a""#, r#","groups":[1]"#, r#","groups":{}"#] {
        assert_eq!(groups(bad), Err(Denied::Forbidden(BAD_GROUPS)), "{bad}");
    }
    let off = Rules {
        has_groups: false,
        ..rules()
    };
    let claims = br#"{"sub":"dev1","iss":"us","aud":"here","exp":99,"groups":7}"#;
    let valid = off.validate(claims, SystemTime::UNIX_EPOCH);
    assert_eq!(valid.map(|(_, _, groups)| groups), Ok(none));
}
