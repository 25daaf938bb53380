//! docs/settings.md says what the code has. `FASTSOCK_BLESS=1` writes it anew. And what docs/security.md recommends can be had.

use std::{env, fmt::Write as _, fs, os::unix::fs::PermissionsExt, path::Path};

use fastsock::{Config, ValueKind};
use support::{Authority, Gateway};

const BEGIN: &str = "<!-- settings: written by tests/readme.rs -->\n";
const END: &str = "<!-- /settings -->";

#[test]
fn the_settings_page_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}{END}{after}", settings());
    if env::var_os("FASTSOCK_BLESS").is_some() {
        fs::write(&path, expected).unwrap();
    } else {
        assert!(
            page == expected,
            "docs/settings.md: run this test with FASTSOCK_BLESS=1"
        );
    }
}

/// One setting as the page has it.
struct Row {
    section: &'static str,
    name: &'static str,
    variable: &'static str,
    kind: ValueKind,
    default: String,
    allowed: String,
    example: &'static str,
    about: &'static str,
    is_secret: bool,
}

fn rows() -> Vec<Row> {
    let default = Config::default();
    let bridge = Config::settings().iter().map(|setting| Row {
        section: setting.section,
        name: setting.name,
        variable: setting.variable,
        kind: setting.kind,
        default: setting.show(&default),
        allowed: setting.allowed_as(setting.variable),
        example: setting.example,
        about: setting.about.trim(),
        is_secret: setting.is_secret,
    });
    let own = fastsock_gateway::own_settings().iter().map(|setting| Row {
        section: "The log and the threads of the program",
        name: setting.name,
        variable: setting.variable,
        kind: setting.kind,
        default: setting.default_text(),
        allowed: setting.allowed.into(),
        example: setting.example,
        about: setting.about,
        is_secret: false,
    });
    bridge.chain(own).collect()
}

/// A heading a section and a setting.
fn settings() -> String {
    let mut text = String::new();
    let mut section = "";
    for row in rows() {
        if row.section != section {
            section = row.section;
            let _ = writeln!(text, "\n## {section}");
        }
        let (variable, about, kind) = (row.variable, row.about, row.kind.as_str());
        let default = match variable {
            "FASTSOCK_BROKER" => "`auto`; embedded in a host: `embedded`".into(),
            "FASTSOCK_ADMIN_ADDR" => "`127.0.0.1:3001`; embedded in a host: none".into(),
            _ => shown(row.kind, &row.default),
        };
        let secret = match row.is_secret {
            true => format!(" A secret: `{variable}_FILE` names a file that holds it."),
            false => String::new(),
        };
        let allowed = &row.allowed;
        let example = format!("{} = {}", row.name, toml(row.kind, row.example));
        let _ = write!(
            text,
            "\n### `{variable}`\n\n{about}\n\n\
             Type: {kind}. Default: {default}. Allowed: {allowed}.{secret}\n\n\
             ```toml\n{example}\n```\n"
        );
    }
    text + "\n"
}

/// A default, in a greater unit too.
fn shown(kind: ValueKind, default: &str) -> String {
    let units: &[(u64, &str)] = match kind {
        ValueKind::Time => &[
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "min"),
            (1000, "s"),
        ],
        ValueKind::Size => &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")],
        _ => &[],
    };
    let number: u64 = default.parse().unwrap_or(0);
    let unit = units
        .iter()
        .find(|(factor, _)| number > 0 && number.is_multiple_of(*factor));
    match unit {
        _ if default.is_empty() => "none".into(),
        Some((factor, unit)) => format!("`{default}` ({} {unit})", number / factor),
        None => format!("`{default}`"),
    }
}

/// A value as TOML has it.
fn toml(kind: ValueKind, value: &str) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match kind {
        ValueKind::Switch => (value == "on").to_string(),
        ValueKind::List | ValueKind::Paths => {
            let items: Vec<_> = value.split(',').map(quoted).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Headers => {
            let headers: serde_json::Map<_, _> = serde_json::from_str(value).unwrap();
            let headers = headers
                .iter()
                .map(|(name, value)| format!("{name} = {value}"));
            format!("{{ {} }}", headers.collect::<Vec<_>>().join(", "))
        }
        ValueKind::Integer | ValueKind::Time | ValueKind::Size if value.parse::<u64>().is_ok() => {
            value.into()
        }
        _ => quoted(value),
    }
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
