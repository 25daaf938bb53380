//! Files that are half written, or cannot be read at all: sessions stay, and nobody waits for them.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    time::{Duration, SystemTime},
};

use fastsock::{Bridge, ErrorKind};
use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::Signal,
};
use serde_json::Value;
use support::{Authority, Gateway, Lease, eventually_within, get, within};

use crate::common::{PATIENCE, Place, Signer, bridge, config, sha256};

const STAY: &str = "FASTSOCK_AUTH_TOKENS_FILE: not reloaded; the gateway keeps the tokens it has";

#[tokio::test]
async fn a_tokens_file_that_is_half_written_closes_nobody() {
    let (gateway, path) = with_tokens().await;
    let mut device = Place::Bearer.show(gateway.addr(), "one").await.unwrap();
    let told = async |what: &str| {
        let is_that = |line: &Value| {
            line["message"] == STAY && line["error"].as_str().unwrap().contains(what)
        };
        gateway.wait_line_where(what, is_that).await;
    };
    // As `generate > tokens` does: empty, then line after line, and then something is wrong with it.
    let mut file = File::create(&path).unwrap();
    told("it is empty").await;
    write!(file, "dev2 {}\ndev3 {}", sha256("two"), sha256("three")).unwrap();
    told("half written").await;
    device.ping("still here").await;
    assert_eq!(device.recv_pong().await, "still here");
    writeln!(file, "\ndev1 {}", sha256("one")).unwrap();
    gateway.wait_line("tokens reloaded").await;
    drop(Place::Bearer.show(gateway.addr(), "two").await.unwrap());
    device.ping("and here").await;
    assert_eq!(device.recv_pong().await, "and here");
    // Each was told once, and nothing else.
    assert_eq!(gateway.lines_with(STAY).len(), 2);
    // A list of nobody is one when it says so.
    fs::write(&path, "# nobody any more\n").unwrap();
    assert_eq!(device.closed().await.code, Some(4503));
}

#[tokio::test]
async fn a_file_that_is_put_in_place_as_a_whole_need_not_look_finished() {
    let (gateway, path) = with_tokens().await;
    for (number, way) in ["moved", "linked"].into_iter().enumerate() {
        let next = gateway.dir().join(way);
        let token = format!("token-{number}");
        fs::write(&next, format!("dev1 {}", sha256(&token))).unwrap(); // without the end of its line
        match way {
            "moved" => {
                // Written a while ago: what moved it shows.
                let before = SystemTime::now() - Duration::from_secs(60);
                File::open(&next).unwrap().set_modified(before).unwrap();
                fs::rename(&next, &path).unwrap();
            }
            _ => {
                let link = gateway.dir().join("link");
                std::os::unix::fs::symlink(&next, &link).unwrap();
                fs::rename(&link, &path).unwrap();
            }
        }
        eventually_within(PATIENCE, way, async || {
            Place::Bearer.show(gateway.addr(), &token).await.is_ok()
        })
        .await;
    }
    assert!(gateway.lines_with(STAY).is_empty());
}

#[tokio::test]
async fn an_empty_tokens_file_is_an_error_of_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let settings = [("auth", "tokens"), ("auth_tokens_file", path)];
    let error = Bridge::builder(config(&settings)).start().await;
    let line = error.unwrap_err().to_line();
    assert!(line.contains("it is empty; for an empty list"), "{line}");
    fs::write(file.path(), "# nobody yet\n").unwrap();
    bridge(&settings).await;
}

#[tokio::test]
async fn a_tokens_file_that_blocks_holds_up_nobody() {
    for way in ["pipe", "hangs"] {
        let (mut gateway, path) = with_tokens().await;
        let next = gateway.dir().join("next");
        let lease = match way {
            "pipe" => {
                mkfifoat(CWD, &next, Mode::RUSR | Mode::WUSR).unwrap();
                None
            }
            _ => {
                fs::write(&next, format!("dev2 {}\n", sha256("two"))).unwrap();
                let before = SystemTime::now() - Duration::from_secs(60);
                File::open(&next).unwrap().set_modified(before).unwrap();
                Some(Lease::take(&next))
            }
        };
        fs::rename(&next, &path).unwrap();
        let line = gateway.wait_line_where(way, |line| line["message"] == STAY);
        let error = line.await["error"].as_str().unwrap().to_owned();
        match way {
            "pipe" => assert!(error.contains("not a regular file"), "{error}"),
            _ => assert!(error.contains("not read within 5000 ms"), "{error}"),
        }
        serves(&gateway, "one").await;
        gateway.process().terminate();
        assert_eq!(gateway.exit_code().await, Some(0), "{way}");
        assert!(gateway.lines_with("Shutdown complete.").len() == 1);
        drop(lease);
    }
}

#[tokio::test]
async fn certificates_and_keys_that_hang_hold_up_nobody() {
    let authority = Authority::new();
    let identity = authority.issue_for_loopback();
    let keys = tempfile::NamedTempFile::new().unwrap().into_temp_path(); // what is open can have no lease
    let signer = Signer::new("one", 1);
    fs::write(&keys, signer.set()).unwrap();
    let (cert, key) = (&identity.cert_path, &identity.key_path);
    let mut gateway = Gateway::builder()
        .admin()
        .var("FASTSOCK_RUNTIME_WORKERS", "1")
        .var("FASTSOCK_TLS_CERT", cert.to_str().unwrap())
        .var("FASTSOCK_TLS_KEY", key.to_str().unwrap())
        .var("FASTSOCK_AUTH", "jwt")
        .var("FASTSOCK_AUTH_JWT_JWKS", keys.to_str().unwrap())
        .var("FASTSOCK_AUTH_JWT_REFRESH", "1000")
        .var("FASTSOCK_AUTH_TIMEOUT", "500")
        .start()
        .await;
    let (certificate, set) = (Lease::take(cert), Lease::take(&keys));
    gateway.process().signal(Signal::HUP);
    let line = gateway
        .wait_line("FASTSOCK_AUTH_JWT_JWKS: not reloaded; the gateway keeps the keys it has");
    let error = line.await["error"].as_str().unwrap().to_owned();
    assert!(error.contains("not read within 500 ms"), "{error}");
    // The admin listener does not wait on the thread that serves either.
    let admin = gateway.admin_addr();
    let json = [("content-type", "application/json")];
    let reload = support::call(admin, "POST", "/api/v1/reload", &json, "");
    let health = async {
        for _ in 0..20 {
            assert_eq!(get(admin, "/healthz").await.status, 200);
        }
    };
    tokio::select! {
        _ = reload => panic!("nobody can have read the certificate"),
        () = within("it is healthy", health) => {}
    }
    gateway.process().terminate();
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(gateway.lines_with("Reloaded").is_empty());
    drop((certificate, set));
}

#[tokio::test]
async fn a_start_does_not_wait_for_ever_nor_hold_up_its_host() {
    let authority = Authority::new();
    let identity = authority.issue_for_loopback();
    let pipe = authority.ca_path().with_extension("pipe");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let settings = [
        ("tls_cert", pipe.to_str().unwrap()),
        ("tls_key", identity.key_path.to_str().unwrap()),
    ];
    let mut ticks = 0;
    let starting = Bridge::builder(config(&settings)).start();
    tokio::pin!(starting);
    let error = loop {
        tokio::select! {
            started = &mut starting => break started.unwrap_err(),
            () = tokio::time::sleep(Duration::from_millis(10)) => ticks += 1, // shows that the runtime is not blocked
        }
    };
    assert_eq!(error.kind(), ErrorKind::Config);
    let line = error.to_line();
    let expected = "FASTSOCK_TLS_CERT, FASTSOCK_TLS_KEY: a file was not read within 10 s";
    assert!(line.starts_with(expected), "{line}");
    assert!(ticks > 10, "the host went on meanwhile: {ticks}");
    drop(
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&pipe)
            .unwrap(),
    ); // lets the thread end
}

/// Whether it lets a device in, speaks to it, and is healthy.
async fn serves(gateway: &Gateway, token: &str) {
    let mut device = Place::Bearer.show(gateway.addr(), token).await.unwrap();
    device.ping("hello").await;
    assert_eq!(device.recv_pong().await, "hello");
    assert_eq!(get(gateway.admin_addr(), "/healthz").await.status, 200);
}

/// A gateway on one thread that knows the token `one` of `dev1`.
async fn with_tokens() -> (Gateway, std::path::PathBuf) {
    let builder = Gateway::builder();
    let path = builder.dir().join("tokens");
    fs::write(&path, format!("dev1 {}\n", sha256("one"))).unwrap();
    let gateway = builder
        .admin()
        .var("FASTSOCK_RUNTIME_WORKERS", "1")
        .var("FASTSOCK_AUTH", "tokens")
        .var("FASTSOCK_AUTH_TOKENS_FILE", "tokens")
        .start()
        .await;
    (gateway, path)
}
