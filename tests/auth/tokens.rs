//! `FASTSOCK_AUTH=tokens`.

use std::fs;

use fastsock::{Bridge, ErrorKind};
use support::{Device, Gateway};

use crate::common::{Place, bridge, config, sha256, visit, wait_only};

#[tokio::test]
async fn a_token_of_the_file_lets_in_under_its_client_id_wherever_it_is_shown() {
    let file = File::new(&[
        ("dev1", "s3cret-1"),
        ("dev1", "s3cret-2"),
        ("dev 2", "s3cret-3"),
    ]);
    let bridge = file.bridge().await;
    for place in Place::ALL {
        for (token, client_id) in [
            ("s3cret-1", "dev1"),
            ("s3cret-2", "dev1"),
            ("s3cret-3", "dev 2"),
        ] {
            assert_eq!(visit(&bridge, place, token).await, client_id, "{place:?}");
        }
    }
}

#[tokio::test]
async fn whoever_shows_nothing_or_something_wrong_is_refused_and_counted() {
    let file = File::new(&[("dev1", "s3cret-1")]);
    let bridge = file.bridge().await;
    let addr = bridge.local_addr();
    let nothing = Device::request(addr, "/", &[]).await.unwrap_err();
    assert_eq!(
        (nothing.status, &nothing.body[..]),
        (401, "a token is required")
    );
    assert_eq!(nothing.headers["www-authenticate"], "Bearer");
    for place in Place::ALL {
        for token in [
            "dev1",
            "s3cret",
            "s3cret-11",
            &sha256("s3cret-1"),
            &"x".repeat(4000),
        ] {
            let wrong = place.show(addr, token).await.unwrap_err();
            assert_eq!(
                (wrong.status, &wrong.body[..]),
                (401, "the token is not valid")
            );
            let challenge = &wrong.headers["www-authenticate"];
            assert_eq!(challenge, "Bearer error=\"invalid_token\"");
        }
    }
    // The first place with a token counts: a wrong one is not made good by another.
    for headers in [
        &[("authorization", "Bearer wrong")][..],
        &[("sec-websocket-protocol", "fastsock-token.wrong, chat")],
    ] {
        let refused = Device::request(addr, "/?token=s3cret-1", headers).await;
        assert_eq!(refused.unwrap_err().status, 401);
    }
    let both = Device::request(
        addr,
        "/?token=wrong",
        &[("authorization", "bearer s3cret-1")],
    );
    let _device = both.await.unwrap();
    wait_only(&bridge, "dev1").await;
    assert_eq!(bridge.stats().sessions.refused[&401], 18);
}

#[tokio::test]
async fn a_change_of_the_file_lets_in_and_throws_out() {
    let file = File::new(&[("dev1", "one"), ("dev2", "two"), ("dev2", "new")]);
    let bridge = file.bridge().await;
    let addr = bridge.local_addr();
    let mut dev1 = Place::Bearer.show(addr, "one").await.unwrap();
    let mut dev2 = Place::Query.show(addr, "two").await.unwrap();
    let mut moved = None;
    for change in 0..3 {
        match change {
            0 => file.write(&[("dev1", "one"), ("dev2", "new"), ("dev3", "three")]),
            1 => file.replace(&[("dev1", "one"), ("dev4", "three")]),
            _ => file.write(&[]),
        }
        match change {
            0 => {
                let closed = dev2.closed().await; // the other token of its id does not keep it
                assert_eq!((closed.code, &closed.reason[..]), (Some(4503), "forbidden"));
                moved = Some(Place::Bearer.show(addr, "three").await.unwrap());
            }
            1 => {
                let closed = moved.as_mut().unwrap().closed().await;
                assert_eq!(closed.code, Some(4503)); // its token is another's now
                wait_only(&bridge, "dev1").await;
            }
            _ => assert_eq!(dev1.closed().await.code, Some(4503)),
        }
    }
    assert_eq!(
        Place::Bearer.show(addr, "one").await.unwrap_err().status,
        401
    );
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told_once() {
    let gateway = Gateway::builder();
    let path = gateway.dir().join("tokens");
    fs::write(&path, format!("dev1 {}\n", sha256("one"))).unwrap();
    let gateway = gateway
        .var("FASTSOCK_AUTH", "tokens")
        .var("FASTSOCK_AUTH_TOKENS_FILE", "tokens")
        .start()
        .await;
    let mut device = Place::Bearer.show(gateway.addr(), "one").await.unwrap();
    let told = "FASTSOCK_AUTH_TOKENS_FILE: not reloaded; the gateway keeps the tokens it has";
    fs::write(&path, "# fleet\ndev2 s3cret\n").unwrap();
    let line = gateway.wait_line(told).await;
    assert_eq!(line["level"], "error");
    let error = line["error"].as_str().unwrap();
    assert!(
        error.starts_with("\"tokens\", line 2: ") && !error.contains("s3cret"),
        "{error}"
    );
    drop(Place::Query.show(gateway.addr(), "one").await.unwrap());
    fs::remove_file(&path).unwrap();
    let cannot_be_read = |line: &serde_json::Value| {
        line["message"] == told && line["error"].as_str().unwrap().contains("cannot read")
    };
    gateway.wait_line_where("it is gone", cannot_be_read).await;
    assert_eq!(device.closed().await.code, Some(4509)); // by the other one, and not by the file
    fs::write(&path, format!("dev2 {}\n", sha256("two"))).unwrap();
    gateway.wait_line("tokens reloaded").await;
    Place::Bearer.show(gateway.addr(), "two").await.unwrap();
    let refused = Place::Bearer.show(gateway.addr(), "one").await;
    assert_eq!(refused.unwrap_err().status, 401);
    assert_eq!(gateway.lines_with(told).len(), 2);
}

#[tokio::test]
async fn a_bad_file_at_the_start_is_an_error_that_names_its_line() {
    let file = File::new(&[("dev1", "one")]);
    for (text, told) in [
        (
            Some(format!("\n\n{} dev1\n", sha256("one"))),
            "line 3: the last word is neither",
        ),
        (
            Some("s3cret\n".to_owned()),
            "line 1: give a client id and the hash of its token",
        ),
        (None, "cannot read"),
    ] {
        match text {
            Some(text) => fs::write(&file.0, text).unwrap(),
            None => fs::remove_file(&file.0).unwrap(),
        }
        let started = Bridge::builder(config(&file.settings())).start().await;
        let error = started.unwrap_err();
        let line = error.to_line();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            line.starts_with("FASTSOCK_AUTH_TOKENS_FILE: ") && line.contains(told),
            "{line}"
        );
        assert!(!line.contains("s3cret"), "{line}");
    }
    let error = config(&[("auth", "tokens")]).check().unwrap_err().to_line();
    assert_eq!(
        error,
        "FASTSOCK_AUTH: tokens needs FASTSOCK_AUTH_TOKENS_FILE"
    );
}

#[tokio::test]
async fn open_to_the_world_is_told_aloud() {
    let told = "anyone who can reach this port, and any web page in a browser that can, may connect under any client id; FASTSOCK_AUTH says who may, FASTSOCK_LISTEN_ORIGINS which pages";
    let open = Gateway::builder().start().await;
    assert_eq!(open.wait_line(told).await["level"], "warn");
    let pages = Gateway::builder().var("FASTSOCK_LISTEN_ORIGINS", "https://app.example.com");
    let pages = pages.start().await;
    pages.wait_line("anyone who can reach this port may connect under any client id; FASTSOCK_AUTH says who may").await;
    assert!(pages.lines_with(told).is_empty());
    for settings in [
        &[("FASTSOCK_LISTEN_ADDR", "127.0.0.1")][..],
        &[
            ("FASTSOCK_AUTH", "webhook"),
            ("FASTSOCK_AUTH_URL", "http://127.0.0.1:1/"),
        ],
    ] {
        let mut gateway = Gateway::builder();
        for (name, value) in settings {
            gateway = gateway.var(name, *value);
        }
        let gateway = gateway.start().await;
        assert!(gateway.lines_with(told).is_empty(), "{settings:?}");
    }
}

/// A file of tokens, gone at the end.
struct File(tempfile::TempPath);

impl File {
    fn new(tokens: &[(&str, &str)]) -> Self {
        let file = Self(tempfile::NamedTempFile::new().unwrap().into_temp_path());
        file.write(tokens);
        file
    }

    /// Into the same file.
    fn write(&self, tokens: &[(&str, &str)]) {
        fs::write(&self.0, lines(tokens)).unwrap();
    }

    /// By another file in its place, as most programs do.
    fn replace(&self, tokens: &[(&str, &str)]) {
        let next = self.0.with_extension("next");
        fs::write(&next, lines(tokens)).unwrap();
        fs::rename(next, &self.0).unwrap();
    }

    fn settings(&self) -> [(&str, &str); 2] {
        [
            ("auth", "tokens"),
            ("auth_tokens_file", self.0.to_str().unwrap()),
        ]
    }

    async fn bridge(&self) -> Bridge {
        bridge(&self.settings()).await
    }
}

fn lines(tokens: &[(&str, &str)]) -> String {
    if tokens.is_empty() {
        return "# nobody\n".into();
    }
    let line = |(client_id, token): &(&str, &str)| format!("{client_id} {}\n", sha256(token));
    tokens.iter().map(line).collect()
}
