//! `FASTSOCK_AUTH=jwt`.

use std::fs;

use fastsock::{Bridge, ErrorKind};
use support::{Backend, Reply, eventually_within};

use crate::common::{
    PATIENCE, Place, Signer, bridge, config, from_now, hs256, secret, visit, wait_only,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn a_signed_token_lets_in_under_its_claim_wherever_it_is_shown() {
    let bridge = bridge(&[
        ("auth", "jwt"),
        ("auth_jwt_key", &secret(SECRET)),
        ("auth_jwt_claim", "device"),
        ("auth_jwt_audience", "fleet,other"),
        ("auth_jwt_issuer", "https://id.example"),
    ])
    .await;
    let claims = |device: &str, exp: f64| {
        format!(
            r#"{{"sub":"x","device":"{device}","exp":{exp},"aud":["a","fleet"],"iss":"https://id.example"}}"#
        )
    };
    for place in Place::ALL {
        let token = hs256(SECRET, &claims("dev 1", from_now(60.0)));
        assert_eq!(visit(&bridge, place, &token).await, "dev 1");
    }
    let addr = bridge.local_addr();
    for (token, status, body) in [
        (
            hs256(SECRET, &claims("dev1", from_now(-1.0))),
            401,
            "the token has expired",
        ),
        (
            hs256(&SECRET.replace('0', "1"), &claims("dev1", from_now(60.0))),
            401,
            "the token's signature is wrong",
        ),
        (
            hs256(
                SECRET,
                &claims("dev1", from_now(60.0)).replace("fleet", "herd"),
            ),
            401,
            "the token is for another audience",
        ),
        (
            hs256(
                SECRET,
                &claims("dev1", from_now(60.0)).replace("device", "name"),
            ),
            403,
            "the token names no client id",
        ),
        ("dev1".into(), 401, "the token is malformed"),
        ("a.b.c".into(), 401, "the token is malformed"),
        // {"alg":"none"}.{}.
        (
            "eyJhbGciOiJub25lIn0.e30.".into(),
            401,
            "the token's algorithm is unknown",
        ),
    ] {
        let refused = Place::Bearer.show(addr, &token).await.unwrap_err();
        assert_eq!((refused.status, &refused.body[..]), (status, body));
    }
    let books = bridge.stats().sessions;
    assert_eq!((books.refused[&401], books.refused[&403]), (6, 1));
}

#[tokio::test]
async fn a_session_ends_with_its_token_whatever_the_heartbeat_does() {
    for heartbeat in ["0", "100"] {
        let bridge = bridge(&[
            ("auth", "jwt"),
            ("auth_jwt_key", &secret(SECRET)),
            ("websocket_ping_interval", heartbeat),
        ])
        .await;
        let exp = from_now(5.0);
        let token = hs256(SECRET, &format!(r#"{{"sub":"dev1","exp":{exp}}}"#));
        let longer = hs256(
            SECRET,
            &format!(r#"{{"sub":"dev2","exp":{}}}"#, from_now(600.0)),
        );
        let _longer = Place::Bearer
            .show(bridge.local_addr(), &longer)
            .await
            .unwrap()
            .attend();
        let Ok(mut device) = Place::Bearer.show(bridge.local_addr(), &token).await else {
            panic!("this machine needed five seconds for a handshake");
        };
        let closed = device.closed().await;
        assert_eq!(
            (closed.code, &closed.reason[..]),
            (Some(4501), "token_expired")
        );
        assert!(from_now(0.0) >= exp - 0.05, "it ended too early");
        wait_only(&bridge, "dev2").await;
        assert_eq!(bridge.stats().sessions.closed["token_expired"], 1);
    }
}

#[tokio::test]
async fn keys_are_rotated_at_their_url_and_strangers_cannot_make_us_fetch() {
    let url = Backend::start().await;
    let (old, new, other) = (
        Signer::new("old", 1),
        Signer::new("new", 2),
        Signer::new("other", 3),
    );
    url.answer_all(Reply::ok().body(old.set()));
    let bridge = bridge(&[("auth", "jwt"), ("auth_jwt_jwks", &url.url())]).await;
    let addr = bridge.local_addr();
    assert_eq!(
        visit(&bridge, Place::Bearer, &old.token("dev1")).await,
        "dev1"
    );
    let fetched = url.requests();
    assert_eq!((fetched.len(), &fetched[0].method[..]), (1, "GET"));
    assert_eq!(fetched[0].header("accept-encoding"), Some("identity"));
    // The new key is known at the first token that names it, for everyone who comes with it.
    url.answer_all(Reply::ok().body(new.set()));
    let names: Vec<_> = (0..8).map(|n| format!("dev{n}")).collect();
    let tokens = names.iter().map(|name| new.token(name));
    let devices = tokens.map(|token| async move { Place::Bearer.show(addr, &token).await });
    let devices = futures_util::future::join_all(devices).await;
    assert!(devices.iter().all(Result::is_ok));
    assert_eq!(url.count(), 2);
    // The old one is withdrawn, and strangers name what they like: each is a look while there is a budget.
    let mut looks = 0;
    let strangers = [old.token("dev1"), other.token("dev1"), other.token("dev2")];
    for token in strangers.iter().cycle() {
        let refused = Place::Bearer.show(addr, token).await.unwrap_err();
        if refused.status == 503 {
            assert_eq!(refused.body, "the keys were looked at a moment ago");
            let seconds = refused.headers["retry-after"].to_str().unwrap();
            assert!((1..=10).contains(&seconds.parse().unwrap()), "{seconds}");
            break;
        }
        let expected = (401, "the token's key is unknown");
        assert_eq!((refused.status, &refused.body[..]), expected);
        looks += 1;
        assert_eq!(url.count(), 2 + looks);
        assert!(looks < 100, "there is an end to it");
    }
    assert!(looks >= 4, "{looks}");
    // A new key is not refused as unknown meanwhile, and known with the next look.
    let next = Signer::new("next", 4);
    url.answer_all(Reply::ok().body(next.set()));
    let refused = Place::Bearer.show(addr, &next.token("dev1")).await;
    assert_eq!(refused.unwrap_err().status, 503);
    eventually_within(PATIENCE, "the next key is known", async || {
        let stranger = Place::Bearer.show(addr, &other.token("dev1")).await;
        assert!(matches!(stranger.unwrap_err().status, 401 | 503));
        Place::Bearer.show(addr, &next.token("dev1")).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_key_without_a_name_hides_no_key_of_the_set() {
    let url = Backend::start().await;
    url.go_down().await;
    let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let bridge = bridge(&[
        ("auth", "jwt"),
        ("auth_jwt_key", &own.public_key_pem()),
        ("auth_jwt_jwks", &url.url()),
        ("auth_timeout", "200"),
    ])
    .await;
    let addr = bridge.local_addr();
    let (one, two) = (Signer::new("one", 1), Signer::new("two", 2));
    let nameless = one.token_without_name("dev1");
    // Nobody knows the set yet, so nobody can say that a token is of no key in it.
    for token in [&one.token("dev1"), &nameless] {
        let refused = Place::Bearer.show(addr, token).await.unwrap_err();
        let expected = (503, "the keys are not known yet");
        assert_eq!((refused.status, &refused.body[..]), expected);
    }
    let refused = Place::Bearer.show(addr, "a.b.c").await.unwrap_err();
    assert_eq!(refused.status, 401, "that is no token at all");
    url.answer_all(Reply::ok().body(one.set()));
    url.come_back();
    eventually_within(PATIENCE, "the key is known", async || {
        Place::Bearer.show(addr, &one.token("dev1")).await.is_ok()
    })
    .await;
    // A second is known at the first token that names it, and until then only who knows it can say so.
    url.answer_all(Reply::new(500));
    let refused = Place::Bearer.show(addr, &two.token("dev2")).await;
    let refused = refused.unwrap_err();
    let expected = (503, "the keys cannot be asked for");
    assert_eq!((refused.status, &refused.body[..]), expected);
    url.answer_all(Reply::ok().body(two.set()));
    assert_eq!(
        visit(&bridge, Place::Bearer, &two.token("dev2")).await,
        "dev2"
    );
    let refused = Place::Bearer.show(addr, &nameless).await.unwrap_err();
    let expected = (401, "the token's signature is wrong");
    assert_eq!((refused.status, &refused.body[..]), expected);
}

#[tokio::test]
async fn what_is_not_marked_as_a_secret_is_never_one() {
    let path = "/run/secrets/the-jwt-key-of-the-fleet";
    for (key, told) in [
        (path, "FASTSOCK_AUTH_JWT_KEY_FILE takes one"),
        (
            "https://id.example.com/realms/fleet/jwks",
            "FASTSOCK_AUTH_JWT_JWKS takes",
        ),
        (SECRET, "a secret is hs256:text: or hs256:base64:"),
    ] {
        let settings = [("auth", "jwt"), ("auth_jwt_key", key)];
        let started = Bridge::builder(config(&settings)).start().await;
        let error = started.expect_err(told);
        assert_eq!(error.kind(), ErrorKind::Config);
        let line = error.to_line();
        assert!(
            line.starts_with("FASTSOCK_AUTH_JWT_KEY: ") && line.contains(told),
            "{line}"
        );
        assert!(!line.contains(key), "{line}");
    }
    // Whoever can fetch a set of keys could sign with a secret in it; whoever can read the file is trusted.
    let k = data_encoding::BASE64URL_NOPAD.encode(SECRET.as_bytes());
    let set = format!(
        r#"{{"keys":[{{"kty":"oct","k":"{k}"}},{}]}}"#,
        Signer::new("one", 1).jwk()
    );
    let url = Backend::start().await;
    url.answer_all(Reply::ok().body(set.clone()));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), set).unwrap();
    let claims = format!(r#"{{"sub":"dev1","exp":{}}}"#, from_now(600.0));
    for (place, is_let_in) in [(&*url.url(), false), (file.path().to_str().unwrap(), true)] {
        let bridge = bridge(&[("auth", "jwt"), ("auth_jwt_jwks", place)]).await;
        let signed = Signer::new("one", 1).token("dev1");
        assert_eq!(visit(&bridge, Place::Bearer, &signed).await, "dev1");
        let signed = hs256(SECRET, &claims);
        let shown = Place::Bearer.show(bridge.local_addr(), &signed).await;
        assert_eq!(shown.is_ok(), is_let_in, "{place}");
    }
}

#[tokio::test]
async fn keys_stay_while_their_url_is_down() {
    let url = Backend::start().await;
    let signer = Signer::new("one", 1);
    url.answer_all(Reply::ok().body(signer.set()));
    let bridge = bridge(&[
        ("auth", "jwt"),
        ("auth_jwt_jwks", &url.url()),
        ("auth_jwt_refresh", "1000"),
    ])
    .await;
    let addr = bridge.local_addr();
    drop(
        Place::Bearer
            .show(addr, &signer.token("dev1"))
            .await
            .unwrap(),
    );
    for reply in [
        Reply::new(500),
        Reply::ok().body("{}"),
        Reply::ok().body("no JSON"),
        Reply::redirect(302, "/x"),
        Reply::ok()
            .header("content-encoding", "gzip")
            .body(Signer::new("other", 3).set()),
    ] {
        url.answer_all(reply);
        let so_far = url.count();
        url.wait_for(so_far + 2).await;
        drop(
            Place::Bearer
                .show(addr, &signer.token("dev1"))
                .await
                .unwrap(),
        );
    }
    url.go_down().await;
    drop(
        Place::Bearer
            .show(addr, &signer.token("dev1"))
            .await
            .unwrap(),
    );
    let next = Signer::new("two", 2);
    url.answer_all(Reply::ok().body(next.set()));
    url.come_back();
    eventually_within(PATIENCE, "the next key is known", async || {
        Place::Bearer.show(addr, &next.token("dev1")).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn without_any_key_nobody_is_let_in_and_everybody_may_come_back() {
    let url = Backend::start().await;
    url.go_down().await;
    let bridge = bridge(&[
        ("auth", "jwt"),
        ("auth_jwt_jwks", &url.url()),
        ("auth_timeout", "200"),
    ])
    .await;
    let signer = Signer::new("one", 1);
    let refused = Place::Bearer
        .show(bridge.local_addr(), &signer.token("dev1"))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.status, &refused.body[..]),
        (503, "the keys are not known yet")
    );
    assert_eq!(refused.headers["retry-after"], "5");
    url.answer_all(Reply::ok().body(signer.set()));
    url.come_back();
    eventually_within(PATIENCE, "the key is known", async || {
        Place::Bearer
            .show(bridge.local_addr(), &signer.token("dev1"))
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_key_set_can_be_a_file_that_changes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let settings = [("auth", "jwt"), ("auth_jwt_jwks", path)];
    for (text, told) in [("{}", "not a JWK set"), (r#"{"keys":[]}"#, "has no key")] {
        fs::write(path, text).unwrap();
        let started = Bridge::builder(config(&settings)).start().await;
        let error = started.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let line = error.to_line();
        assert!(
            line.starts_with("FASTSOCK_AUTH_JWT_JWKS: ") && line.contains(told),
            "{line}"
        );
    }
    let (old, new) = (Signer::new("old", 1), Signer::new("new", 2));
    fs::write(path, old.set()).unwrap();
    let bridge = bridge(&settings).await;
    assert_eq!(
        visit(&bridge, Place::Query, &old.token("dev1")).await,
        "dev1"
    );
    fs::write(path, new.set()).unwrap();
    assert_eq!(
        visit(&bridge, Place::Query, &new.token("dev2")).await,
        "dev2"
    );
}

#[tokio::test]
async fn hostile_tokens_are_refused_and_cost_nobody_else_anything() {
    let bridge = bridge(&[("auth", "jwt"), ("auth_jwt_key", &secret(SECRET))]).await;
    let addr = bridge.local_addr();
    let good = hs256(
        SECRET,
        &format!(r#"{{"sub":"dev1","exp":{}}}"#, from_now(600.0)),
    );
    let mut device = Place::Bearer.show(addr, &good).await.unwrap();
    let (header, _) = good.split_once('.').unwrap();
    let deep = data_encoding::BASE64URL_NOPAD.encode("[".repeat(3000).as_bytes());
    for token in [
        ".".to_owned(),
        "..".to_owned(),
        "....".to_owned(),
        ".".repeat(7000),
        "A".repeat(7000),
        format!("{header}.{deep}.AA"),
        format!("{deep}.e30.AA"),
        format!("{good}="),
        format!("{good}.{good}"),
        format!("%00{good}"),
    ] {
        let refused = Place::Bearer.show(addr, &token).await.unwrap_err();
        assert_eq!(refused.status, 401, "{token}");
    }
    device.ping("still here").await;
    assert_eq!(device.recv_pong().await, "still here");
    let error = config(&[("auth", "jwt")]).check().unwrap_err().to_line();
    let expected = "FASTSOCK_AUTH: jwt needs FASTSOCK_AUTH_JWT_KEY or FASTSOCK_AUTH_JWT_JWKS";
    assert_eq!(error, expected);
}
