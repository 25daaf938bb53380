//! What a device said or chose, for a terminal.

use std::io::{self, Write};

use serde_json::Value;

/// A string as it is, anything else as JSON.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

/// A text as it is; quoted when it has such characters, quotes, or what a terminal may take for a command.
pub(crate) fn plain(value: &Value, is_odd: fn(char) -> bool) -> String {
    let is_odd = |c: char| c == '"' || c.is_control() || is_odd(c);
    match value.as_str() {
        Some(text) if text.contains(is_odd) => format!("{text:?}"),
        _ => text(value),
    }
}

/// What a device said, with its control characters but newlines and tabs escaped.
pub(crate) fn shown(data: &str) -> String {
    let mut text = String::with_capacity(data.len());
    for c in data.chars() {
        match c {
            '\n' | '\t' => text.push(c),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

/// Prints a line; `false` when nobody reads any more.
pub(crate) fn say(line: &str) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}
