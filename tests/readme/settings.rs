//! docs/settings.md says what the code has. `FASTSOCK_BLESS=1` writes it anew.

use std::{env, fmt::Write as _, fs};

use fastsock::{Config, ValueKind};

use crate::pages::root;

const BEGIN: &str = "<!-- settings: written by tests/readme.rs -->\n";
const END: &str = "<!-- /settings -->";

#[test]
fn the_settings_page_is_that_of_the_code() {
    let path = root().join("docs/settings.md");
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

#[test]
fn the_example_of_an_environment_is_that_of_the_code() {
    let path = root().join("deploy/.env.example");
    let expected = example();
    if env::var_os("FASTSOCK_BLESS").is_some() {
        fs::write(&path, expected).unwrap();
    } else {
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == expected,
            "deploy/.env.example: run this test with FASTSOCK_BLESS=1"
        );
    }
}

/// Every setting at its default, as a `.env` file that changes nothing.
fn example() -> String {
    let mut text = "\
# Settings of Fastsock. A line without its # counts; every line shows the default. docs/settings.md says more.
# systemd, Docker and the gateway read this as a .env file. Written by tests/readme.rs.
"
    .to_owned();
    let mut section = "";
    for row in rows() {
        if row.section != section {
            section = row.section;
            let _ = writeln!(text, "\n\n# ==== {section} ====");
        }
        text.push('\n');
        let mut line = String::from("#");
        let about = format!("{} Allowed: {}.", row.about, row.allowed);
        for word in about.split_whitespace() {
            if line.chars().count() + word.chars().count() > 118 {
                let _ = writeln!(text, "{line}");
                line = String::from("#");
            }
            let _ = write!(line, " {word}");
        }
        let default = match row.variable {
            "FASTSOCK_BROKER" => "auto",
            "FASTSOCK_ADMIN_ADDR" => "127.0.0.1:3001",
            _ => &row.default,
        };
        let _ = writeln!(text, "{line}\n#{}={default}", row.variable);
    }
    text
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
        ValueKind::Tables => {
            let tables: Vec<serde_json::Map<_, _>> = serde_json::from_str(value).unwrap();
            let table = |table: &serde_json::Map<String, serde_json::Value>| {
                let pairs = table
                    .iter()
                    .map(|(name, value)| format!("{name} = {value}"));
                format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
            };
            let tables: Vec<_> = tables.iter().map(table).collect();
            format!("[{}]", tables.join(", "))
        }
        _ => quoted(value),
    }
}
