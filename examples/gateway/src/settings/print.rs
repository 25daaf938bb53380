//! Settings as a file that can be used: `.env` or TOML. Secrets are not in it; a comment says that there is one.

use std::fmt::Write;

use fastsock::ValueKind;

use super::{Settings, all_known};

/// What kind of file settings are printed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// A `.env` file.
    #[default]
    Env,
    /// A TOML file.
    Toml,
}

impl Form {
    /// What a word means.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "env" => Some(Self::Env),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

impl Settings {
    /// Every setting, or those that differ from the defaults, on a line each. A comment tells its source: above it in a `.env` file, else
    /// behind it.
    pub(crate) fn print(&self, form: Form, is_changed_only: bool) -> String {
        let (mut text, defaults) = (String::new(), Self::default());
        for known in all_known() {
            let value = self.show(known);
            if is_changed_only && value == defaults.show(known) {
                continue;
            }
            let source = self.merged.source(known.variable());
            let is_masked = value.contains("***");
            // What cannot be used as it is, and what TOML has no empty form of, is there to be seen alone.
            let off = match is_masked || (form == Form::Toml && value.is_empty()) {
                true => "# ",
                false => "",
            };
            let _ = match form {
                // systemd takes a comment behind a value for a part of it.
                Form::Env if !is_masked => {
                    let (name, value) = (known.variable(), quote(&value));
                    writeln!(text, "# {source}\n{name}={value}")
                }
                Form::Env => {
                    let (name, value) = (known.variable(), quote(&value));
                    writeln!(text, "{off}{name}={value} # {source}")
                }
                Form::Toml => {
                    let (name, value) = (known.name(), toml(known.kind(), &value));
                    writeln!(text, "{off}{name} = {value} # {source}")
                }
            };
        }
        text
    }
}

/// Quotes a value where a `.env` file needs it.
fn quote(value: &str) -> String {
    let is_plain = value.trim() == value && !value.contains(['#', '\'', '"', '`', '\n', '\r']);
    // systemd knows no backticks, and between double quotes a backslash is more than that.
    let quotes = match value.contains('\\') {
        true => ['\'', '`', '"'],
        false => ['\'', '"', '`'],
    };
    let quote = quotes.into_iter().find(|q| !value.contains(*q));
    match quote {
        Some(quote) if !is_plain => format!("{quote}{value}{quote}"),
        _ => value.into(),
    }
}

/// A value as TOML has it.
fn toml(kind: ValueKind, value: &str) -> String {
    // A string of JSON is one of TOML as well.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match kind {
        ValueKind::Switch => (value == "on").to_string(),
        ValueKind::List | ValueKind::Paths => {
            let items: Vec<_> = value.split(',').map(|item| quoted(item.trim())).collect();
            format!("[{}]", items.join(", "))
        }
        ValueKind::Integer | ValueKind::Time | ValueKind::Size if value.parse::<u64>().is_ok() => {
            value.into()
        }
        ValueKind::Tables => serde_json::from_str(value).map_or_else(|_| quoted(value), inline),
        _ => quoted(value),
    }
}

/// JSON as TOML on one line.
fn inline(value: serde_json::Value) -> String {
    use serde_json::Value::{Array, Object};
    match value {
        Array(items) => {
            let items: Vec<_> = items.into_iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Object(map) => {
            let pairs = map.into_iter();
            let pairs: Vec<_> = pairs
                .map(|(name, value)| format!("{name} = {}", inline(value)))
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        value => value.to_string(),
    }
}
