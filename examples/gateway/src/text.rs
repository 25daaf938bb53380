//! What a device said or chose, for a terminal.

use std::io::{self, Write};

use serde_json::Value;

/// A string as it is, anything else as JSON.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

/// A text as it is; quoted when it has such characters, quotes, or what a terminal may take for a command.
pub(crate) fn plain(value: &Value, is_odd: fn(char) -> bool) -> String {
    let is_odd = |c: char| c == '"' || is_obeyed(c) || is_odd(c);
    match value.as_str() {
        Some(text) if text.contains(is_odd) => format!("{text:?}"),
        _ => text(value),
    }
}

/// What a device said, with what a terminal may take for a command escaped, but for newlines and tabs.
pub(crate) fn shown(data: &str) -> String {
    let mut text = String::with_capacity(data.len());
    for c in data.chars() {
        match c {
            '\n' | '\t' => text.push(c),
            c if is_obeyed(c) => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

/// Whether a terminal may take it for a command: control characters, and those that turn the direction of all behind them (Unicode
/// Standard Annex 9), so that a name could make a line say something else.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Prints a line; `false` when nobody reads any more.
pub(crate) fn say(line: &str) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_and_no_message_turns_the_line_that_it_is_in() {
        for (name, is_shown_as) in [
            ("dev1", "dev1"),
            ("ü😀", "ü😀"),
            ("a\u{202e}b", r#""a\u{202e}b""#),
            ("a\u{2067}b", r#""a\u{2067}b""#),
            ("a\u{1b}[2J", r#""a\u{1b}[2J""#),
        ] {
            assert_eq!(plain(&name.into(), char::is_whitespace), is_shown_as);
        }
        assert_eq!(shown("x\ty\n\u{202e}z\u{9b}"), "x\ty\n\\u{202e}z\\u{9b}");
    }
}
