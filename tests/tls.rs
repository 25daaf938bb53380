//! `wss`: devices under TLS, certificates of theirs, names, and new certificates while they are connected. The other side is
//! rustls, OpenSSL's `s_client` and Python's `ssl`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test is a host, and may start tasks and print"
)]

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use fastsock::{
    Admission, Bridge, ClientId, Config, ConnectRequest, Decision, ErrorKind, Hooks, Refusal,
    Ticket,
};
use futures_util::{SinkExt, StreamExt};
use rustls::{
    ClientConfig, HandshakeKind, SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use support::{
    Authority, Backend, Gateway, Identity, RawDevice, eventually, eventually_within, start, within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

type Device = WebSocketStream<TlsStream<TcpStream>>;

const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

#[tokio::test]
async fn a_device_is_served_under_either_version() {
    let backend = Backend::start().await;
    let place = Place::new();
    let bridge = start(place.config().remote_url(Some(backend.url()))).await;
    for (version, count) in [(&TLS12, 3), (&TLS13, 6)] {
        let mut device = place.device(&bridge, "dev1", &[version]).await;
        let large = "x".repeat(1 << 20);
        for text in ["hello", "", &large] {
            say(&mut device, text).await;
            bridge.send(&id("dev1"), text.into()).await.unwrap();
            assert_eq!(hear(&mut device).await, Message::text(text));
        }
        backend.wait_delivered("dev1", count).await;
        assert!(bridge.disconnect(&id("dev1"), fastsock::CloseReason::Kicked));
        let Message::Close(Some(close)) = hear(&mut device).await else {
            panic!("a close frame");
        };
        assert_eq!(u16::from(close.code), 4510);
        // TLS is ended as well as the connection: without its close_notify this would be an error.
        let end = within("the end", device.get_mut().read(&mut [0; 1])).await;
        assert_eq!(end.unwrap(), 0);
    }
    assert_eq!(bridge.stats().counters.tls_failed, 0);
}

#[tokio::test]
async fn only_the_cipher_suites_of_the_settings_are_there_and_no_version_without_one() {
    let place = Place::new();
    let one = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let bridge = start(place.config().tls_ciphers(vec![one.into()])).await;
    let device = place.device(&bridge, "dev1", BOTH).await;
    let suite = device.get_ref().get_ref().1.negotiated_cipher_suite();
    let suite = suite.expect("the handshake is over").suite();
    assert_eq!(suite.as_str(), Some(one));

    let newer = "TLS_CHACHA20_POLY1305_SHA256";
    let both = vec![one.into(), newer.into()];
    let bridge = start(place.config().tls_ciphers(both)).await;
    let device = place.device(&bridge, "dev1", BOTH).await;
    let suite = device.get_ref().get_ref().1.negotiated_cipher_suite();
    let suite = suite.expect("the handshake is over").suite();
    assert_eq!(suite.as_str(), Some("TLS13_CHACHA20_POLY1305_SHA256"));
}

#[tokio::test]
async fn a_device_that_reads_late_gets_everything_in_order() {
    let place = Place::new();
    let bridge = start(place.config().outbox_bytes(64usize << 20)).await;
    let mut device = place.device(&bridge, "dev1", BOTH).await;
    let payload = |n: usize| format!("{n}:{}", "x".repeat(10_000 + n));
    for n in 0..1500 {
        bridge.send(&id("dev1"), payload(n).into()).await.unwrap();
    }
    eventually("the kernel takes no more", async || {
        let held = bridge.stats().downlink.held;
        tokio::time::sleep(Duration::from_millis(50)).await;
        held > 0 && held == bridge.stats().downlink.held
    })
    .await;
    for n in 0..1500 {
        assert_eq!(hear(&mut device).await, Message::text(payload(n)));
    }
    bridge.send(&id("dev1"), "the last".into()).await.unwrap();
    assert_eq!(hear(&mut device).await, Message::text("the last"));
}

#[tokio::test]
async fn a_device_that_never_reads_is_a_slow_consumer_here_too() {
    let place = Place::new();
    let config = place.config().write_timeout(Duration::from_millis(500));
    let bridge = start(config.outbox_bytes(64usize << 20)).await;
    let _device = place.device(&bridge, "dev1", BOTH).await;
    for _ in 0..16 {
        let _ = bridge.send(&id("dev1"), vec![b'x'; 1 << 20].into()).await;
    }
    eventually("it is closed", async || {
        let closed = bridge.stats().sessions.closed;
        closed.get("slow_consumer") == Some(&1)
    })
    .await;
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_counted_and_what_is_half_is_given_its_time() {
    let place = Place::new();
    let config = place
        .config()
        .limit_handshake_time(Duration::from_millis(1500));
    let bridge = start(config).await;
    let mut plain = RawDevice::connect(bridge.local_addr()).await;
    plain
        .write(RawDevice::upgrade_request("/?token=dev1", &[]))
        .await;
    let answer = plain.read_to_end().await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    eventually("it is counted", async || {
        let stats = bridge.stats();
        (stats.counters.tls_failed, stats.sessions.abandoned) == (1, 1)
    })
    .await;

    let mut half = RawDevice::connect(bridge.local_addr()).await;
    half.write([0x16, 3, 1, 2, 0, 1]).await; // a record that does not come
    assert_eq!(half.read_to_end().await, b"");
    eventually("it is counted", async || {
        bridge.stats().sessions.abandoned == 2
    })
    .await;

    let mut without_head = place
        .tls(&bridge, &place.client(None, BOTH), "localhost")
        .await
        .unwrap();
    let end = within("the end", without_head.read(&mut [0; 1])).await;
    assert!(!matches!(end, Ok(1..)));
    place.device(&bridge, "dev1", BOTH).await;
}

#[tokio::test]
async fn a_refusal_is_told_under_tls() {
    let place = Place::new();
    let bridge = start(place.config()).await;
    let mut tls = place
        .tls(&bridge, &place.client(None, BOTH), "localhost")
        .await
        .unwrap();
    tls.write_all(RawDevice::upgrade_request("/", &[]).as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    within("an answer", tls.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn a_limit_at_the_door_closes_before_tls_is_paid_for() {
    let place = Place::new();
    let bridge = start(place.config().limit_connections(1usize)).await;
    let _device = place.device(&bridge, "dev1", BOTH).await;
    let mut late = RawDevice::connect(bridge.local_addr()).await;
    assert_eq!(late.read_to_end().await, b"");
    assert_eq!(bridge.stats().sessions.refused[&503], 1);
}

#[tokio::test]
async fn a_required_certificate_is_asked_for_and_names_the_device() {
    let place = Place::new();
    let stranger = Authority::new();
    let config = place
        .config()
        .tls_client_auth(fastsock::ClientAuth::Required)
        .tls_client_ca(Some(place.authority.ca_path()));
    let bridge = Bridge::builder(config)
        .hooks(ByCertificate)
        .start()
        .await
        .unwrap();
    let good = place
        .authority
        .issue_to_device("dev1", &["other.example"], 3600);
    let by_name = place
        .authority
        .issue_to_device("", &["dev2.example", "other.example"], 3600);
    let expired = place.authority.issue_to_device("dev1", &[], -60);
    let foreign = stranger.issue_to_device("dev1", &[], 3600);
    for version in BOTH {
        for (shown, name) in [
            (Some(&good), Some("dev1")),
            (Some(&by_name), Some("dev2.example")),
            (Some(&expired), None),
            (Some(&foreign), None),
            (None, None),
        ] {
            let client = place.client(shown, &[version]);
            let device = place.try_device(&bridge, &client, "pretender").await;
            match name {
                Some(name) => {
                    let _device = device.unwrap_or_else(|e| panic!("{name}: {e}"));
                    assert_eq!(bridge.clients()[0].client_id.as_str(), name);
                }
                None => assert!(device.is_err(), "{version:?}"),
            }
            eventually("it has left", async || bridge.clients().is_empty()).await;
        }
    }
    eventually("the others are counted", async || {
        bridge.stats().counters.tls_failed == 6
    })
    .await;
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing_but_not_be_bad() {
    let place = Place::new();
    let config = place
        .config()
        .tls_client_auth(fastsock::ClientAuth::Optional)
        .tls_client_ca(Some(place.authority.ca_path()));
    let bridge = Bridge::builder(config)
        .hooks(ByCertificate)
        .start()
        .await
        .unwrap();
    let good = place.authority.issue_to_device("dev1", &[], 3600);
    let foreign = Authority::new().issue_to_device("dev1", &[], 3600);
    let device = place
        .try_device(&bridge, &place.client(Some(&good), BOTH), "x")
        .await;
    assert!(device.is_ok());
    let refused = place
        .try_device(&bridge, &place.client(None, BOTH), "x")
        .await;
    assert!(
        refused.unwrap_err().contains("401"),
        "asked by the hook, not by TLS"
    );
    let refused = place
        .try_device(&bridge, &place.client(Some(&foreign), BOTH), "x")
        .await;
    assert!(!refused.unwrap_err().contains("401"));
}

#[tokio::test]
async fn with_auth_by_certificate_the_name_in_it_is_the_client_id() {
    let place = Place::new();
    let config = place.config().auth(fastsock::AuthKind::Certificate);
    let error = Bridge::builder(config.clone()).start().await.unwrap_err();
    assert!(
        error.to_string().contains("FASTSOCK_TLS_CLIENT_AUTH"),
        "{error}"
    );
    let config = config
        .tls_client_auth(fastsock::ClientAuth::Optional)
        .tls_client_ca(Some(place.authority.ca_path()));
    let bridge = start(config).await;
    let shown = place.authority.issue_to_device("dev1", &[], 3600);
    let client = place.client(Some(&shown), BOTH);
    let mut device = place
        .try_device(&bridge, &client, "pretender")
        .await
        .unwrap();
    bridge.send(&id("dev1"), "hello".into()).await.unwrap();
    assert_eq!(hear(&mut device).await, Message::text("hello"));
    let refused = place
        .try_device(&bridge, &place.client(None, BOTH), "dev1")
        .await;
    assert!(refused.unwrap_err().contains("401"));
}

#[tokio::test]
async fn a_session_is_resumed_but_not_with_a_certificate_that_has_expired() {
    let place = Place::new();
    let config = place
        .config()
        .tls_client_auth(fastsock::ClientAuth::Required)
        .tls_client_ca(Some(place.authority.ca_path()));
    let bridge = Bridge::builder(config)
        .hooks(ByCertificate)
        .start()
        .await
        .unwrap();
    for version in BOTH {
        let shown = place.authority.issue_to_device("dev1", &[], 8);
        let client = place.client(Some(&shown), &[version]);
        let first = place.try_device(&bridge, &client, "x").await.unwrap();
        assert_eq!(kind(&first), HandshakeKind::Full);
        let mut first = first;
        bridge
            .send(&id("dev1"), "with this come the tickets".into())
            .await
            .unwrap();
        hear(&mut first).await;
        let second = place.try_device(&bridge, &client, "x").await.unwrap();
        assert_eq!(kind(&second), HandshakeKind::Resumed, "{version:?}");
        assert_eq!(bridge.clients()[0].client_id.as_str(), "dev1");
        eventually_within(Duration::from_secs(30), "it has expired", async || {
            place.try_device(&bridge, &client, "x").await.is_err()
        })
        .await;
    }
}

#[tokio::test]
async fn of_several_certificates_the_one_with_the_name_is_shown() {
    let place = Place::new();
    let (one, two) = (
        place.authority.issue(&["one.example"]),
        place.authority.issue(&["*.two.example"]),
    );
    let config = place
        .config()
        .tls_cert(vec![one.cert_path.clone(), two.cert_path.clone()])
        .tls_key(vec![one.key_path.clone(), two.key_path.clone()]);
    let bridge = start(config).await;
    let client = place.client(None, BOTH);
    for name in ["one.example", "a.two.example", "A.Two.Example"] {
        place
            .tls(&bridge, &client, name)
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let error = place
        .tls(&bridge, &client, "three.example")
        .await
        .unwrap_err();
    assert!(
        error.contains("NotValidForName"),
        "the first is shown: {error}"
    );
    let error = place.tls(&bridge, &client, "127.0.0.1").await.unwrap_err();
    assert!(
        error.contains("NotValidForName"),
        "without SNI too: {error}"
    );
}

#[tokio::test]
async fn new_certificates_are_shown_after_a_reload_and_sessions_stay() {
    let (place, newer) = (Place::new(), Authority::new());
    let bridge = start(place.config()).await;
    let mut old = place.device(&bridge, "old", BOTH).await;
    let new_client = Identity::client_config(&newer, None, BOTH);
    let trusts_new = async || place.tls(&bridge, &new_client, "localhost").await.is_ok();
    assert!(!trusts_new().await);

    replace(&place.identity, &newer.issue_for_loopback());
    assert!(!trusts_new().await, "not before it is told to");
    bridge.reload().unwrap();
    assert!(trusts_new().await);
    assert!(
        place
            .tls(&bridge, &place.client(None, BOTH), "localhost")
            .await
            .is_err()
    );

    for (file, content, told) in [
        (
            &place.identity.cert_path,
            "no certificate",
            "FASTSOCK_TLS_CERT: ",
        ),
        (&place.identity.key_path, "no key", "FASTSOCK_TLS_KEY: "),
    ] {
        let before = fs::read(file).unwrap();
        fs::write(file, content).unwrap();
        let error = bridge.reload().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let line = error.to_line();
        assert!(
            line.starts_with(told) && line.contains(file.to_str().unwrap()),
            "{line}"
        );
        assert!(trusts_new().await, "what was there before stays");
        fs::write(file, before).unwrap();
    }
    fs::copy(
        &newer.issue_for_loopback().key_path,
        &place.identity.key_path,
    )
    .unwrap();
    let error = bridge.reload().unwrap_err().to_line();
    assert!(error.contains("not the key of its certificate"), "{error}");

    bridge.send(&id("old"), "still here".into()).await.unwrap();
    assert_eq!(hear(&mut old).await, Message::text("still here"));
}

#[tokio::test]
async fn half_of_what_tls_needs_is_an_error_at_the_start() {
    let place = Place::new();
    let (cert, ca) = (place.identity.cert_path.clone(), place.authority.ca_path());
    let plain = support::loopback();
    for (config, told) in [
        (
            plain.clone().tls_cert(vec![cert.clone()]),
            "FASTSOCK_TLS_KEY has 0",
        ),
        (
            plain
                .clone()
                .tls_client_auth(fastsock::ClientAuth::Required),
            "needs FASTSOCK_TLS_CERT and FASTSOCK_TLS_CLIENT_CA",
        ),
        (
            place
                .config()
                .tls_client_auth(fastsock::ClientAuth::Optional),
            "needs FASTSOCK_TLS_CERT and FASTSOCK_TLS_CLIENT_CA",
        ),
        (
            place.config().tls_client_ca(Some(ca)),
            "nobody is asked for a certificate",
        ),
        (
            place.config().tls_key(vec!["/nowhere/key.pem".into()]),
            "cannot read a private key in \"/nowhere/key.pem\"",
        ),
    ] {
        let error = Bridge::builder(config).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let line = error.to_line();
        assert!(line.contains(told), "{line}");
    }
}

#[tokio::test]
async fn certificates_that_change_on_disk_are_noticed() {
    let (place, newer) = (Place::new(), Authority::new());
    let bridge = start(place.config()).await;
    let new_client = Identity::client_config(&newer, None, BOTH);
    replace(&place.identity, &newer.issue_for_loopback());
    eventually("the new one is shown", async || {
        place.tls(&bridge, &new_client, "localhost").await.is_ok()
    })
    .await;
    fs::write(&place.identity.key_path, "no key").unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await; // it is looked at, and refused
    assert!(place.tls(&bridge, &new_client, "localhost").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_reloads_on_sighup_and_openssl_agrees() {
    let place = Place::new();
    let gateway = Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .var(
            "FASTSOCK_TLS_CERT",
            place.identity.cert_path.to_str().unwrap(),
        )
        .var(
            "FASTSOCK_TLS_KEY",
            place.identity.key_path.to_str().unwrap(),
        )
        .start()
        .await;
    let addr = gateway.addr();
    for version in ["-tls1_2", "-tls1_3"] {
        let output = s_client(addr, &place, &[version, "-alpn", "http/1.1"]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("HTTP/1.1 101 "), "{version}: {text}");
        assert!(
            text.contains("ALPN protocol: http/1.1"),
            "{version}: {text}"
        );
        assert!(
            text.contains("Verify return code: 0 (ok)"),
            "{version}: {text}"
        );
    }
    for refused in [&["-tls1_1"][..], &["-alpn", "h2"]] {
        let output = s_client(addr, &place, refused).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains("HTTP/1.1 101 "), "{refused:?}: {text}");
    }
    let ticket = gateway.dir().join("ticket");
    let ticket = ticket.to_str().unwrap();
    s_client(addr, &place, &["-sess_out", ticket]).await;
    let output = s_client(addr, &place, &["-sess_in", ticket]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Reused, TLSv1.3"), "{text}");

    let newer = Authority::new();
    let identity = newer.issue_for_loopback();
    replace(&place.identity, &identity);
    gateway.process().signal(rustix::process::Signal::HUP);
    gateway.wait_line("Reloaded").await;
    let output = s_client_trusting(addr, &newer.ca_path(), &[]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");

    fs::write(&place.identity.cert_path, "no certificate").unwrap();
    gateway.process().signal(rustix::process::Signal::HUP);
    let line = gateway
        .wait_line("Reload failed; the gateway keeps what it has loaded")
        .await;
    assert_eq!(line["level"], "error");
    assert!(
        line["error"]
            .as_str()
            .unwrap()
            .starts_with("FASTSOCK_TLS_CERT: "),
        "{line}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_valid_now_is_told_at_the_start_a_reload_and_a_check() {
    let place = Place::new();
    let days = |days: i64| {
        place
            .authority
            .issue_to_device("old.example", &[], days * 86_400)
    };
    let (expired, to_come) = (days(-1), place.authority.issue_to_come("new.example"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let bundle = place.identity.dir().join("bundle.pem");
    let pem = |identity: &Identity| fs::read_to_string(&identity.cert_path).unwrap();
    fs::write(&bundle, [pem(&expired), pem(&to_come)].concat()).unwrap();
    // As the authorities of a system: that some have expired is nothing to act on.
    let mixed = place.identity.dir().join("mixed.pem");
    fs::write(&mixed, [pem(&expired), pem(&place.identity)].concat()).unwrap();
    let gateway = || {
        Gateway::builder()
            .var("FASTSOCK_BROKER", "embedded")
            .var("FASTSOCK_TLS_CERT", path(&place.identity.cert_path))
            .var("FASTSOCK_TLS_KEY", path(&place.identity.key_path))
            .var("FASTSOCK_REMOTE_CA", path(&bundle))
            .var("NODE_EXTRA_CA_CERTS", path(&mixed))
    };
    let named = |line: &str, identity: &Identity, rest: &str| {
        let file = format!("{:?}: {rest} ", path(&identity.cert_path));
        assert!(line.contains(&file) && line.ends_with(" UTC"), "{line}");
    };
    let running = gateway().start().await;
    let line = running.wait_line("A certificate has expired").await;
    assert_eq!(
        (&line["level"], &line["about"]),
        (&"warn".into(), &"FASTSOCK_REMOTE_CA".into())
    );
    let hint = line["hint"].as_str().unwrap();
    assert!(
        hint.contains("bundle.pem") && hint.ends_with("UTC, and 1 more in this file"),
        "{hint}"
    );
    assert_eq!(running.lines_with("A certificate has expired").len(), 1);

    for (identity, message, name) in [
        (&expired, "A certificate has expired", "old.example expired"),
        (
            &to_come,
            "A certificate is not valid yet",
            "new.example is valid from",
        ),
    ] {
        replace(&place.identity, identity);
        running.process().signal(rustix::process::Signal::HUP);
        let is_told = |line: &serde_json::Value| {
            line["message"] == message && line["about"] == "FASTSOCK_TLS_CERT"
        };
        let line = running.wait_line_where(message, is_told).await;
        named(line["hint"].as_str().unwrap(), &place.identity, name);

        let mut check = gateway().arg("--check").launch();
        assert_eq!(check.exit_code().await, Some(0));
        let begin = format!("FASTSOCK_TLS_CERT: {message}: ");
        let lines = check.stdout();
        let line = lines.iter().find(|line| line.starts_with(&begin));
        let line = line.unwrap_or_else(|| panic!("{}", check.output()));
        named(line, &place.identity, name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_is_served_and_sees_a_clean_end() {
    let place = Place::new();
    let bridge = start(place.config()).await;
    let port = bridge.local_addr().port().to_string();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let ca = place.authority.ca_path();
        let (ca, port) = (ca.to_str().unwrap().to_owned(), port.clone());
        let python = tokio::task::spawn_blocking(move || {
            let mut python = Command::new("python3");
            python
                .args(["-c", PYTHON, &port, &ca, version])
                .output()
                .unwrap()
        });
        let connected = eventually("it is connected", async || !bridge.clients().is_empty());
        connected.await;
        bridge.disconnect(&id("dev1"), fastsock::CloseReason::Kicked);
        let output = within("Python ends", python).await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(told.trim(), "101 closed 4510", "{error}");
        eventually("it has left", async || bridge.clients().is_empty()).await;
    }
}

#[tokio::test]
async fn a_proxy_header_comes_before_tls() {
    let place = Place::new();
    let config = place
        .config()
        .trusted_proxies(vec!["127.0.0.1".into()])
        .proxy_protocol(true);
    let bridge = start(config).await;
    let mut stream = TcpStream::connect(bridge.local_addr()).await.unwrap();
    stream
        .write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 443\r\n")
        .await
        .unwrap();
    let connector = TlsConnector::from(place.client(None, BOTH));
    let name = ServerName::try_from("localhost").unwrap();
    let tls = within("TLS", connector.connect(name, stream))
        .await
        .unwrap();
    let (_device, _) = client_async("ws://localhost/?token=dev1", tls)
        .await
        .unwrap();
    let seen = bridge.clients()[0].remote_addr;
    assert_eq!(seen.to_string(), "192.0.2.1:4660");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_device_under_tls_costs_at_most_14_kib() {
    let place = Place::new();
    let gateway = Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .var(
            "FASTSOCK_TLS_CERT",
            place.identity.cert_path.to_str().unwrap(),
        )
        .var(
            "FASTSOCK_TLS_KEY",
            place.identity.key_path.to_str().unwrap(),
        )
        .var("WEBSOCKET_PING_INTERVAL", "0")
        .var("LOG_LEVEL", "info")
        .start()
        .await;
    let client = place.client(None, BOTH);
    let mut devices = Vec::new();
    let mut before = 0;
    for n in 0..1000 {
        if n == 200 {
            before = gateway.process().resident_bytes(); // by then it has all it needs for a handshake
        }
        let stream = TcpStream::connect(gateway.addr()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(client.clone()).connect(name, stream);
        let tls = within("TLS", connecting).await.unwrap();
        let request = format!("ws://localhost/?token=dev{n}");
        devices.push(within("a 101", client_async(request, tls)).await.unwrap());
    }
    let each = (gateway.process().resident_bytes() - before) / 800;
    println!("{each} bytes a device");
    assert!(each <= 14 << 10, "{each} bytes a device");
}

/// An authority, and a certificate of the gateway's.
struct Place {
    authority: Authority,
    identity: Identity,
}

impl Place {
    fn new() -> Self {
        let authority = Authority::new();
        let identity = authority.issue_for_loopback();
        Self {
            authority,
            identity,
        }
    }

    fn config(&self) -> Config {
        support::loopback()
            .tls_cert(vec![self.identity.cert_path.clone()])
            .tls_key(vec![self.identity.key_path.clone()])
    }

    fn client(
        &self,
        shown: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        Identity::client_config(&self.authority, shown, versions)
    }

    /// The TLS handshake, or what failed in it.
    async fn tls(
        &self,
        bridge: &Bridge,
        client: &Arc<ClientConfig>,
        name: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        let stream = TcpStream::connect(bridge.local_addr()).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(client.clone());
        let tls = within("TLS, or its failure", connector.connect(name, stream)).await;
        tls.map_err(|error| format!("{error:?}"))
    }

    async fn try_device(
        &self,
        bridge: &Bridge,
        client: &Arc<ClientConfig>,
        token: &str,
    ) -> Result<Device, String> {
        let tls = self.tls(bridge, client, "localhost").await?;
        let request = format!("ws://localhost/?token={token}");
        let connected = within("an answer", client_async(request, tls)).await;
        connected
            .map(|(device, _)| device)
            .map_err(|error| error.to_string())
    }

    async fn device(
        &self,
        bridge: &Bridge,
        token: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Device {
        let client = self.client(None, versions);
        self.try_device(bridge, &client, token)
            .await
            .expect("it is seated")
    }
}

/// Lets in whoever has a certificate, under the name in it.
struct ByCertificate;

impl Hooks for ByCertificate {
    fn authenticate(&self, request: &ConnectRequest, _: Ticket) -> Decision<Admission> {
        let name = request.credentials.certificate.as_deref();
        Decision::Now(match name.and_then(ClientId::new) {
            Some(id) => Admission::Accept(id),
            None => Admission::Reject(Refusal::new(401, "no certificate")),
        })
    }
}

fn id(text: &str) -> ClientId {
    text.parse().unwrap()
}

async fn say(device: &mut Device, text: &str) {
    within("the gateway reads", device.send(Message::text(text)))
        .await
        .unwrap();
}

/// The next message that is no ping.
async fn hear(device: &mut Device) -> Message {
    loop {
        match within("a message", device.next())
            .await
            .expect("a message")
            .unwrap()
        {
            Message::Ping(_) => {}
            message => return message,
        }
    }
}

fn kind(device: &Device) -> HandshakeKind {
    device.get_ref().get_ref().1.handshake_kind().unwrap()
}

/// Puts a certificate and its key where another one was.
fn replace(old: &Identity, new: &Identity) {
    fs::copy(&new.cert_path, &old.cert_path).unwrap();
    fs::copy(&new.key_path, &old.key_path).unwrap();
}

async fn s_client(addr: SocketAddr, place: &Place, more: &[&str]) -> Output {
    s_client_trusting(addr, &place.authority.ca_path(), more).await
}

/// `openssl s_client` that asks for an upgrade and leaves once it is answered, or refused.
async fn s_client_trusting(addr: SocketAddr, ca: &Path, more: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-connect",
            &addr.to_string(),
            "-servername",
            "localhost",
        ])
        .args(["-verify_hostname", "localhost", "-ign_eof", "-CAfile"])
        .arg(ca)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let client = tokio::task::spawn_blocking(move || {
        let mut client = command.spawn().expect("scripts/setup installs openssl");
        let mut stdin = client.stdin.take().unwrap();
        // A message with the reserved bits set comes behind it: the gateway answers both, and ends the connection.
        let upgrade = RawDevice::upgrade_request("/?token=openssl", &[]);
        let _ = stdin.write_all(&[upgrade.as_bytes(), &[0xf1, 0x80, 0, 0, 0, 0]].concat());
        drop(stdin);
        client.wait_with_output().unwrap()
    });
    within("s_client ends", client).await.unwrap()
}

/// A device in Python: connects, waits for the close frame, and for the end of TLS; an end without close_notify raises.
const PYTHON: &str = r#"
import socket, ssl, struct, sys
port, ca, version = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the authority of the tests says no more than it must
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
raw = socket.create_connection(("127.0.0.1", int(port)))
device = context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)
device.sendall(b"GET /?token=dev1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
got = b""
while True:
    some = device.recv(4096)
    if not some:
        break
    got += some
head, frames = got.split(b"\r\n\r\n", 1)
print(head[9:12].decode(), "closed", struct.unpack("!H", frames[2:4])[0])
"#;
