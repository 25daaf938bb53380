//! The configurations that the pages recommend can be had.

use std::{fs, os::unix::fs::PermissionsExt};

use support::{Authority, Gateway};

use crate::pages::block;

#[tokio::test]
async fn a_gateway_starts_with_the_hardened_configuration() {
    let hardened = block("docs/security.md", "<!-- hardened: ", "sh");
    let names: Vec<_> = hardened
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .filter(|name| !name.starts_with('#'))
        .collect();
    assert!(names.len() > 20, "{names:?}");

    let mut gateway = Gateway::builder();
    let dir = gateway.dir().to_str().unwrap().to_owned();
    let authority = Authority::new();
    let identity = authority.issue(&["gateway.example.com"]);
    let digest = "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0";
    for (name, content) in [
        (
            "gateway.pem",
            fs::read_to_string(&identity.cert_path).unwrap(),
        ),
        (
            "gateway.key",
            fs::read_to_string(&identity.key_path).unwrap(),
        ),
        ("tokens", format!("sensor-7 {digest}\n")),
        ("redis-url", "rediss://user:password@127.0.0.1:1\n".into()),
        (
            "remote-secret",
            "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n".into(),
        ),
        ("admin-token", "0123456789abcdef\n".into()),
    ] {
        gateway = gateway.file(name, content);
    }
    // Other ports, and files where a test may write.
    let gateway = gateway
        .file(".env", hardened.replace("/etc/fastsock", &dir))
        .admin()
        .start()
        .await;
    let warnings = gateway
        .lines()
        .into_iter()
        .filter(|line| line["level"] == "warn");
    let unknown: Vec<_> = warnings.filter(|line| !line["about"].is_null()).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let log = gateway.dir().join("logs/fastsock.log").metadata().unwrap();
    assert_eq!(log.permissions().mode() & 0o777, 0o640);
    let answer = support::get(gateway.admin_addr(), "/healthz").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_gateway_starts_with_the_first_configuration() {
    let first = block("docs/start.md", "<!-- first: ", "toml");
    let gateway = Gateway::builder();
    let dir = gateway.dir().to_str().unwrap().to_owned();
    let first = first
        .replace("/etc/fastsock", &dir)
        .replace("/var/lib/fastsock", &format!("{dir}/data"));
    let digest = "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0";
    let gateway = gateway
        .file("tokens", format!("dev1 {digest}\n"))
        .file("fastsock.toml", first)
        .arg("--config")
        .arg("fastsock.toml")
        .start()
        .await;
    assert!(gateway.dir().join("data/spool.redb").exists());
}
