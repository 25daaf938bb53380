//! The README's settings table says what the code has. `FASTSOCK_BLESS=1` writes it anew. And what docs/security.md
//! recommends can be had.

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path};

use fastsock::Config;
use support::{Authority, Gateway};

const BEGIN: &str = "<!-- settings: written by tests/readme.rs -->\n";
const END: &str = "<!-- /settings -->";

#[test]
fn the_settings_table_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}{END}{after}", table());
    if env::var_os("FASTSOCK_BLESS").is_some() {
        fs::write(&path, expected).unwrap();
    } else {
        assert!(
            readme == expected,
            "README.md: run this test with FASTSOCK_BLESS=1"
        );
    }
}

fn table() -> String {
    let mut table = String::from("| variable | default | meaning |\n|---|---|---|\n");
    for setting in Config::settings() {
        let default = match setting.show(&Config::default()) {
            text if text.is_empty() => String::new(),
            text => format!("`{text}`"),
        };
        let default = match setting.variable {
            "FASTSOCK_BROKER" => "`auto`; embedded in a host: `embedded`".into(),
            "FASTSOCK_ADMIN_ADDR" => "`127.0.0.1:3001`; embedded in a host: none".into(),
            _ => default,
        };
        let (about, allowed) = (setting.about.trim(), setting.allowed_as(setting.variable));
        table += &format!(
            "| `{}` | {default} | {about} Allowed: {allowed}. |\n",
            setting.variable
        );
    }
    table
}

#[tokio::test]
async fn a_gateway_starts_with_the_hardened_configuration() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("<!-- hardened: ").unwrap();
    let (_, rest) = rest.split_once("```sh\n").unwrap();
    let (hardened, _) = rest.split_once("```").unwrap();
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
