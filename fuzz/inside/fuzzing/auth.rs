//! What is shown to be let in, and the files that say who may.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use super::choice;
use crate::{
    auth::{
        jwt::{
            Jwt,
            key::{self, Origin},
            setting,
        },
        tokens,
    },
    config::{Config, Secret},
    tasks::Tasks,
};

/// A token is taken only when the key has signed it and its claims name somebody, for us, and a time to come. Keys, sets of
/// keys and lists of tokens are read or refused.
pub fn tokens_and_keys(bytes: &[u8]) {
    let (choice, bytes) = choice(bytes);
    let text = String::from_utf8_lossy(bytes);
    match choice % 6 {
        // Nobody can have signed it.
        0 => assert!(!is_taken(&text)),
        1 => claims(bytes),
        2 => header(bytes),
        3 => sets(bytes),
        4 => drop(setting::keys(&text)),
        _ => drop(tokens::parse(&text)),
    }
}

/// A set holds no more keys when anyone can fetch it.
fn sets(bytes: &[u8]) {
    let keys = |origin| key::from_jwks(bytes, origin).map_or(0, |keys| keys.len());
    assert!(keys(Origin::Url) <= keys(Origin::File));
}

/// Signed claims.
fn claims(claims: &[u8]) {
    if !is_taken(&signed(br#"{"alg":"HS256"}"#, claims)) {
        return;
    }
    let Some(claims) = read(claims) else {
        return;
    };
    assert!(
        claims["sub"].as_str().is_some_and(|id| !id.is_empty()),
        "{claims}"
    );
    let is_for_us = match &claims["aud"] {
        serde_json::Value::Array(names) => names.iter().any(|name| name == "here"),
        name => name == "here",
    };
    assert!(is_for_us, "{claims}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    let leeway = LEEWAY.as_secs_f64() + 60.0;
    assert!(
        claims["exp"].as_f64().is_some_and(|exp| exp > now - leeway),
        "{claims}"
    );
    assert!(
        claims["nbf"].as_f64().is_none_or(|nbf| nbf < now + leeway),
        "{claims}"
    );
}

/// A signed header over claims that are in order.
fn header(header: &[u8]) {
    if !is_taken(&signed(
        header,
        br#"{"sub":"dev1","aud":"here","exp":99999999999}"#,
    )) {
        return;
    }
    let Some(header) = read(header) else {
        return;
    };
    assert_eq!(header["alg"], "HS256");
    assert!(header["crit"].is_null(), "{header}");
}

/// `None` where a field that has no meaning here is not read there either, and holds what is no text.
fn read(json: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(json).ok()
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let text = [header, claims]
        .map(|part| BASE64URL_NOPAD.encode(part))
        .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

/// Decides as the gateway does; with one key there is nothing to wait for.
fn is_taken(token: &str) -> bool {
    JWT.with(|(_, jwt)| {
        let mut decision = pin!(jwt.decide(token));
        match decision
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(decision) => decision.is_ok(),
            Poll::Pending => panic!("there is no set to be fetched"),
        }
    })
}

thread_local! {
    static JWT: (tokio::runtime::Runtime, Arc<Jwt>) = {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let config = Config::default()
            .auth_jwt_key(Some(Secret::new(format!("hs256:text:{SECRET}"))))
            .auth_jwt_audience(vec!["here".to_owned()])
            .auth_jwt_leeway(LEEWAY);
        let jwt = Jwt::start(&config, &Tasks::new(runtime.handle().clone())).expect("a key");
        (runtime, jwt)
    };
}

const SECRET: &str = "a secret of at least thirty-two bytes";
const LEEWAY: Duration = Duration::from_secs(30);
