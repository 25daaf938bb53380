//! `Authorization: Basic`: users and passwords.

use std::{fs, net::SocketAddr};

use data_encoding::BASE64;
use fastsock::{Admission, Bridge, ConnectRequest, Decision, Hooks, Ticket};
use serde_json::json;
use support::{Backend, Device, RawDevice, Refused, Reply, eventually};

use crate::common::{bridge, config, hs256, secret, sha256, wait_only};

/// Of "s3cret": 8 KiB and one pass; a cost of 4; and of the bytes ff 00 3a 41.
const ARGON2: &str =
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$3OvS6jSugpdpVu5kNSgFycTcIM0OTTXcJWJS1g564qw";
const BCRYPT: &str = "$2b$04$n2xhKk0WSp7gtKpPACALwewUxAyL9iPYc7.Ay4gUYufYZrpBtu85e";
const BYTES: &str =
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$HB/3lVmVl1yunH3AaRcgEQTrkcIXZMMzK1vCUVIil8k";

fn basic(user: &str, password: impl AsRef<[u8]>) -> String {
    let pair = [user.as_bytes(), b":", password.as_ref()].concat();
    format!("Basic {}", BASE64.encode(&pair))
}

async fn show(addr: SocketAddr, target: &str, authorization: &str) -> Result<Device, Refused> {
    Device::request(addr, target, &[("authorization", authorization)]).await
}

/// The status of the answer.
async fn status(bridge: &Bridge, target: &str, authorization: &str) -> u16 {
    match show(bridge.local_addr(), target, authorization).await {
        Ok(device) => {
            device.close(1000).await;
            eventually("it has left", async || bridge.clients().is_empty()).await;
            101
        }
        Err(refused) => refused.status,
    }
}

struct Passwords(tempfile::NamedTempFile);

impl Passwords {
    fn new(lines: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), lines).unwrap();
        Self(file)
    }

    async fn bridge(&self, more: &[(&str, &str)]) -> Bridge {
        let path = self.0.path().to_str().unwrap();
        let tokens = [("auth", "tokens"), ("auth_tokens_file", path)];
        bridge(&[&tokens, more].concat()).await
    }
}

#[tokio::test]
async fn a_user_of_the_file_gets_in_by_any_of_its_hashes() {
    let lines = format!(
        "sha {}\nargon {ARGON2}\nbcrypt {BCRYPT}\nboth {ARGON2}\nboth {}\nbytes {BYTES}\nraw {}\ncolon {}\n",
        sha256("token"),
        sha256("other"),
        sha256(""), // nobody is let in without a password
        sha256("a:b:"),
    );
    let file = Passwords::new(&lines);
    let bridge = file.bridge(&[]).await;
    for (user, password, expected) in [
        ("sha", &b"token"[..], 101),
        ("argon", b"s3cret", 101),
        ("bcrypt", b"s3cret", 101),
        ("both", b"s3cret", 101),
        ("both", b"other", 101),
        ("bytes", b"\xff\0:A", 101),
        ("colon", b"a:b:", 101),
        ("sha", b"other", 401),
        ("both", b"token", 401),
        ("argon", b"S3cret", 401),
        ("argon", b"", 401),
        ("argon", b"s3cret\0", 401),
        ("bcrypt", &[b'x'; 100], 401),
        ("nobody", b"s3cret", 401),
        ("Argon", b"s3cret", 401),
        ("argon ", b"s3cret", 401),
        ("raw", b"", 401),
    ] {
        let shown = basic(user, password);
        assert_eq!(
            status(&bridge, "/any", &shown).await,
            expected,
            "{user} {password:?}"
        );
        // What is remembered is right again, and what is wrong is not made right by it.
        assert_eq!(
            status(&bridge, "/any", &shown).await,
            expected,
            "{user} {password:?}"
        );
    }
    // A slow hash is found by its user alone.
    assert_eq!(
        status(&bridge, "/?token=s3cret", "Bearer s3cret").await,
        401
    );
    let long = basic("argon", vec![b'x'; 5000]);
    assert_eq!(status(&bridge, "/any", &long).await, 401);
}

#[tokio::test]
async fn a_refusal_says_how_to_do_better() {
    let file = Passwords::new(&format!("dev1 {ARGON2}\n"));
    let bridge = file.bridge(&[]).await;
    for (authorization, expected) in [
        (
            basic("dev1", "wrong"),
            ["Bearer", "Basic realm=\"fastsock\""],
        ),
        ("Digest x".into(), ["Bearer", "Basic realm=\"fastsock\""]),
        (
            "Bearer x".into(),
            ["Bearer error=\"invalid_token\"", "Basic realm=\"fastsock\""],
        ),
    ] {
        let refused = show(bridge.local_addr(), "/", &authorization)
            .await
            .unwrap_err();
        let challenges = refused.headers.get_all("www-authenticate").iter();
        let challenges: Vec<_> = challenges.map(|c| c.to_str().unwrap()).collect();
        assert_eq!((refused.status, &challenges[..]), (401, &expected[..]));
    }
}

#[tokio::test]
async fn what_is_no_user_and_password_is_400_and_open_does_not_read_it() {
    let file = Passwords::new(&format!("dev1 {ARGON2}\n"));
    let (tokens, open) = (file.bridge(&[]).await, bridge(&[]).await);
    for value in [
        "Basic",
        "Basic ",
        "Basic dev1:s3cret",
        "Basic ZGV2MQ==",     // no colon
        "Basic OnNlY3JldA==", // an empty user
        "Basic /zpzZWNyZXQ=", // a user that is not UTF-8
        "Basic ZGV2MTpzM2NyZXQ=, Basic ZGV2MTpzM2NyZXQ=",
        "Basic ZGV2MTpzM2NyZXQ=\r\nAuthorization: Basic ZGV2MTpzM2NyZXQ=",
    ] {
        for (bridge, expected) in [(&tokens, "400"), (&open, "101")] {
            let mut device = RawDevice::connect(bridge.local_addr()).await;
            let line = format!("Authorization: {value}");
            let request = RawDevice::upgrade_request("/?token=dev1", &[&line]);
            device.write(request.into_bytes()).await;
            assert_eq!(&device.read_head().await[9..12], expected, "{value}");
        }
    }
}

#[tokio::test]
async fn the_user_is_the_id_of_the_path() {
    let file = Passwords::new(&format!(
        "CP001 {ARGON2}\nacme/CP001 {BCRYPT}\nCP002 {ARGON2}\n"
    ));
    let one = file.bridge(&[("device_paths", "/ocpp/{id}")]).await;
    let tenants = [
        ("device_paths", "/t/{tenant}/{id}"),
        ("client_id", "{tenant}/{id}"),
    ];
    let both = file.bridge(&tenants).await;
    for (bridge, target, user, expected) in [
        (&one, "/ocpp/CP001", "CP001", 101),
        (&one, "/ocpp/CP%3001", "CP001", 101),
        (&one, "/ocpp/CP002", "CP001", 403),
        (&one, "/ocpp/acme%2FCP001", "CP001", 403),
        (&both, "/t/acme/CP001", "CP001", 101),
        (&both, "/t/beta/CP001", "CP001", 401),
        (&both, "/t/acme/CP001", "acme/CP001", 403),
        (&both, "/t/acme/CP002", "CP002", 401),
    ] {
        let shown = basic(user, "s3cret");
        assert_eq!(
            status(bridge, target, &shown).await,
            expected,
            "{target} {user}"
        );
    }
}

#[tokio::test]
async fn a_session_ends_when_the_hash_of_its_password_leaves_the_file() {
    let file = Passwords::new(&format!("dev1 {ARGON2}\ndev2 {BCRYPT}\n"));
    let bridge = file.bridge(&[]).await;
    let addr = bridge.local_addr();
    let mut dev1 = show(addr, "/", &basic("dev1", "s3cret")).await.unwrap();
    let _dev2 = show(addr, "/", &basic("dev2", "s3cret")).await.unwrap();
    let next = tempfile::NamedTempFile::new_in(file.0.path().parent().unwrap()).unwrap();
    fs::write(next.path(), format!("dev1 {BYTES}\ndev2 {BCRYPT}\n")).unwrap();
    fs::rename(next.path(), file.0.path()).unwrap();
    assert_eq!(dev1.closed().await.code, Some(4503));
    wait_only(&bridge, "dev2").await;
    // Nor is it let in by what was remembered.
    let again = show(addr, "/", &basic("dev1", "s3cret")).await;
    assert_eq!(again.unwrap_err().status, 401);
}

#[tokio::test]
async fn a_browser_may_show_it_for_pages_of_the_same_host_only() {
    let file = Passwords::new(&format!("dev1 {ARGON2}\n"));
    let bridge = file.bridge(&[]).await;
    let password = basic("dev1", "s3cret");
    for (origin, expected) in [("http://fastsock", "101"), ("https://evil.example", "403")] {
        let mut device = RawDevice::connect(bridge.local_addr()).await;
        let lines = [
            format!("Authorization: {password}"),
            format!("Origin: {origin}"),
        ];
        let request = RawDevice::upgrade_request("/", &[&lines[0], &lines[1]]);
        device.write(request.into_bytes()).await;
        assert_eq!(&device.read_head().await[9..12], expected, "{origin}");
    }
}

#[tokio::test]
async fn a_webhook_is_asked_about_user_and_password() {
    let webhook = Backend::start().await;
    webhook.answer(|request| {
        let body = request.json();
        let is_right = body["user"] == "CP001" && body["credential"] == "s3cret";
        Reply::ok().body(json!({ "allow": is_right }).to_string())
    });
    let bridge = bridge(&[
        ("auth", "webhook"),
        ("auth_url", &webhook.url()),
        ("device_paths", "/ocpp/{id}"),
    ])
    .await;
    assert_eq!(
        status(&bridge, "/ocpp/CP001", &basic("CP001", "s3cret")).await,
        101
    );
    let body = webhook.requests().pop().unwrap().json();
    assert_eq!(body["place"], "basic");
    assert_eq!(
        status(&bridge, "/ocpp/CP001", &basic("CP001", "wrong")).await,
        403
    );
    assert_eq!(
        status(&bridge, "/ocpp/CP001", &basic("CP001", b"\xff\0:")).await,
        403
    );
    let body = webhook.requests().pop().unwrap().json();
    assert_eq!(
        (&body["credential"], &body["encoding"]),
        (&json!("/wA6"), &json!("base64"))
    );
    // Without a name in the answer, a token confirms nobody.
    let count = webhook.count();
    assert_eq!(
        status(&bridge, "/ocpp/CP002", &basic("CP001", "s3cret")).await,
        403
    );
    assert_eq!(webhook.count(), count, "that needs no question");
    webhook.answer_all(Reply::ok().body(r#"{"allow":true}"#));
    assert_eq!(status(&bridge, "/ocpp/CP001", "Bearer x").await, 503);
}

#[tokio::test]
async fn where_passwords_mean_nothing_only_bearer_is_asked_for() {
    let key = secret("0123456789abcdef0123456789abcdef");
    let bridge = bridge(&[("auth", "jwt"), ("auth_jwt_key", &key)]).await;
    let refused = show(bridge.local_addr(), "/", &basic("dev1", "x"))
        .await
        .unwrap_err();
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.headers.get_all("www-authenticate").iter().count(),
        1
    );
    let token = hs256(
        "0123456789abcdef0123456789abcdef",
        r#"{"sub":"dev1","exp":9999999999}"#,
    );
    assert_eq!(status(&bridge, "/", &format!("Bearer {token}")).await, 101);
}

#[tokio::test]
async fn a_hook_sees_it_and_the_user_is_checked_against_the_path_before() {
    let mut config = config(&[("device_paths", "/ocpp/{id}")]);
    config.set("hook_timeout", "5000").unwrap();
    let bridge = Bridge::builder(config).hooks(Checks).start().await.unwrap();
    assert_eq!(
        status(&bridge, "/ocpp/CP001", &basic("CP001", b"\xff\0")).await,
        101
    );
    assert_eq!(
        status(&bridge, "/ocpp/CP001", &basic("CP001", "x")).await,
        401
    );
    assert_eq!(
        status(&bridge, "/ocpp/CP002", &basic("CP001", b"\xff\0")).await,
        403
    );
}

struct Checks;

impl Hooks for Checks {
    fn authenticate(&self, request: &ConnectRequest, _: Ticket) -> Decision<Admission> {
        let basic = request.credentials.basic.as_ref().unwrap();
        Decision::Now(match &*basic.password {
            b"\xff\0" => Admission::Accept(basic.user.parse().unwrap()),
            _ => Admission::Reject(fastsock::Refusal::new(401, "no")),
        })
    }
}

/// Every device of a fleet comes back at once: those whose password was right before are in without hashing, and the others
/// get in or are told to come back; the bridge goes on answering meanwhile.
#[tokio::test]
async fn a_storm_of_devices_waits_or_is_told_to_come_back() {
    let lines: String = (0..200).map(|n| format!("dev{n} {BCRYPT}\n")).collect();
    let file = Passwords::new(&lines);
    let bridge = file.bridge(&[("auth_timeout", "20s")]).await;
    let addr = bridge.local_addr();
    let storm =
        (0..200).map(
            async |n| match show(addr, "/", &basic(&format!("dev{n}"), "s3cret")).await {
                Ok(device) => Ok(device),
                Err(refused) => {
                    assert_eq!(refused.status, 503, "{}", refused.body);
                    assert!(refused.headers.contains_key("retry-after"));
                    Err(n)
                }
            },
        );
    let results = futures_util::future::join_all(storm).await;
    let turned_away: Vec<i32> = results
        .iter()
        .filter_map(|r| r.as_ref().err().copied())
        .collect();
    let mut waiting = turned_away;
    let mut devices: Vec<_> = results.into_iter().filter_map(Result::ok).collect();
    eventually("all come back", async || {
        let mut rest = Vec::new();
        for n in waiting.drain(..) {
            match show(addr, "/", &basic(&format!("dev{n}"), "s3cret")).await {
                Ok(device) => devices.push(device),
                Err(_) => rest.push(n),
            }
        }
        waiting = rest;
        waiting.is_empty()
    })
    .await;
    assert_eq!(bridge.clients().len(), 200);
}
