//! A JSON line as a person reads it on a terminal: time, level, message, and then the other fields.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{Level, line::escaped};

/// The form of lines on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// As in the file.
    Json,
    /// Readable, in colours on a terminal.
    Text,
    /// Readable on a terminal, else JSON.
    Auto,
}

impl Format {
    const ALL: [Self; 3] = [Self::Json, Self::Text, Self::Auto];

    /// What a word means.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text)
    }

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Auto => "auto",
        }
    }
}

/// JSON lines as text, a line each.
pub(super) fn render(lines: &[u8], has_colours: bool) -> Vec<u8> {
    let mut text = String::with_capacity(lines.len());
    for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Value::Object(fields)) => render_line(&mut text, fields, has_colours),
            _ => text.push_str(&String::from_utf8_lossy(line)), // none of ours
        }
        text.push('\n');
    }
    text.into_bytes()
}

fn render_line(text: &mut String, mut fields: Map<String, Value>, has_colours: bool) {
    let mut take = |name| match fields.remove(name) {
        Some(Value::String(value)) => value,
        _ => String::new(),
    };
    let (time, level, message) = (take("timestamp"), take("level"), take("message"));
    let (dim, colour, plain) = match has_colours {
        true => ("\x1b[2m", colour(&level), "\x1b[0m"),
        false => ("", "", ""),
    };
    // The day is on no line: whoever looks at a terminal knows it.
    let time = time.get(11..23).unwrap_or(&time);
    let level = level.to_uppercase();
    let message = shown(&message, |c| c.is_control());
    let _ = write!(
        text,
        "{dim}{time}{plain} {colour}{level:<7}{plain} {message}"
    );
    for (name, value) in fields {
        let value = match value {
            Value::String(value) => shown(&value, |c| {
                !(c.is_alphanumeric() || "-_.:/@+%#[]".contains(c))
            }),
            value => value.to_string(),
        };
        let _ = write!(text, " {dim}{name}={plain}{value}");
    }
}

/// A text as it is, or as JSON when it is empty or has something that would not be read as a part of it, or that terminals obey.
fn shown(text: &str, is_special: impl Fn(char) -> bool) -> String {
    match text.is_empty() || text.contains(is_special) {
        true => escaped(text),
        false => text.into(),
    }
}

fn colour(level: &str) -> &'static str {
    match Level::parse(level) {
        Some(Level::Error) => "\x1b[31m",
        Some(Level::Warn) => "\x1b[33m",
        Some(Level::Info) => "\x1b[32m",
        _ => "\x1b[34m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "{\"client_id\":\"dev1\",\"data\":\"a b\\u001b[31m\\\"\",\"level\":\"info\",\"message\":\"Client connected\",\
        \"session_id\":7,\"timestamp\":\"2026-01-02T03:04:05.678Z\"}\n";

    #[test]
    fn a_line_is_read_at_a_glance_and_no_terminal_obeys_it() {
        let text = String::from_utf8(render(LINE.repeat(2).as_bytes(), false)).unwrap();
        let line = "03:04:05.678 INFO    Client connected client_id=dev1 data=\"a b\\u001b[31m\\\"\" session_id=7\n";
        assert_eq!(text, line.repeat(2));
        let coloured = String::from_utf8(render(LINE.as_bytes(), true)).unwrap();
        let without = ["\x1b[2m", "\x1b[32m", "\x1b[0m"];
        let without = without
            .iter()
            .fold(coloured.clone(), |text, code| text.replace(code, ""));
        assert_eq!(without, line);
        assert!(coloured.contains("\x1b[32mINFO"), "{coloured:?}");
        let hostile =
            "{\"level\":\"warn\",\"message\":\"a\\u009b2Jb\",\"timestamp\":\"x\"}\nnonsense\n";
        let text = String::from_utf8(render(hostile.as_bytes(), false)).unwrap();
        assert_eq!(text, "x WARN    \"a\\u009b2Jb\"\nnonsense\n");
    }
}
