//! Certificates of the gateway: which one it shows, new ones, and those that are not valid.

use super::*;

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

/// Puts a certificate and its key where another one was.
fn replace(old: &Identity, new: &Identity) {
    fs::copy(&new.cert_path, &old.cert_path).unwrap();
    fs::copy(&new.key_path, &old.key_path).unwrap();
}
