//! One line of the log: a flat JSON object with its keys in order, as winston writes it.

use std::{
    fmt::{self, Write},
    ops::Range,
    time::SystemTime,
};

use tracing::field::{Field, Visit};

use super::Level;

/// A line in the making.
pub(super) struct Line {
    /// The names of the fields, and where in `json` their values are.
    fields: Vec<(&'static str, Range<usize>)>,
    json: Vec<u8>,
}

impl Line {
    /// A line with its time and level.
    pub(super) fn new(now: SystemTime, level: Level) -> Self {
        let mut line = Self {
            fields: Vec::with_capacity(8),
            json: Vec::with_capacity(256),
        };
        line.text("level", level.as_str());
        line.raw(
            "timestamp",
            format_args!("\"{}\"", humantime::format_rfc3339_millis(now)),
        );
        line
    }

    /// Adds a text.
    pub(super) fn text(&mut self, name: &'static str, text: &str) {
        let start = self.json.len();
        match text.contains(is_control_beyond_ascii) {
            false => serde_json::to_writer(&mut self.json, text).expect("a Vec takes everything"),
            true => self.json.extend(escaped(text).bytes()),
        }
        self.fields.push((name, start..self.json.len()));
    }

    /// Adds what is JSON already.
    pub(super) fn raw(&mut self, name: &'static str, json: fmt::Arguments<'_>) {
        use std::io::Write;
        let start = self.json.len();
        self.json.write_fmt(json).expect("a Vec takes everything");
        self.fields.push((name, start..self.json.len()));
    }

    /// The line with its end. Of two fields of one name the first counts.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.fields.sort_by_key(|(name, _)| *name);
        self.fields.dedup_by_key(|(name, _)| *name);
        let mut line = Vec::with_capacity(self.json.len() + 16 * self.fields.len() + 8);
        let mut before = b'{';
        for (name, value) in self.fields {
            line.push(before);
            serde_json::to_writer(&mut line, name).expect("a Vec takes everything");
            line.push(b':');
            line.extend_from_slice(&self.json[value]);
            before = b',';
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

/// A text as JSON that no terminal obeys.
#[cold]
pub(super) fn escaped(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let escape = |c: char| match is_control_beyond_ascii(c) {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.into(),
    };
    json.chars().map(escape).collect()
}

/// DEL and the C1 control characters, which some terminals obey; JSON need not escape them.
fn is_control_beyond_ascii(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}')
}

/// Takes the fields of an event into a line.
pub(super) struct Fields<'a> {
    line: &'a mut Line,
    most_data_bytes: usize,
}

impl<'a> Fields<'a> {
    /// Takes at most so many bytes of a field `data`; with none, no such field.
    pub(super) fn new(line: &'a mut Line, most_data_bytes: usize) -> Self {
        Self {
            line,
            most_data_bytes,
        }
    }

    /// How much of a field is taken, if it is at all.
    fn limit(&self, field: &Field) -> Option<usize> {
        match field.name() {
            "data" => Some(self.most_data_bytes).filter(|most| *most > 0),
            _ => Some(usize::MAX),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(limit) = self.limit(field) {
            self.line.text(field.name(), cut(value, limit));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(left) = self.limit(field) {
            let mut text = Cut {
                text: String::new(),
                left,
            };
            // Fails when it is full, and so spares formatting the rest.
            let _ = write!(text, "{value:?}");
            self.line.text(field.name(), &text.text);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.line.raw(field.name(), format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.line.raw(field.name(), format_args!("{value}"));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.line.raw(field.name(), format_args!("{value}"));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.line.raw(field.name(), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.line.raw(field.name(), format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.line.raw(field.name(), format_args!("{value}"));
        } else {
            self.line.raw(field.name(), format_args!("null")); // as JSON.stringify has it
        }
    }
}

/// A text that takes so many bytes and no more.
struct Cut {
    text: String,
    left: usize,
}

impl Write for Cut {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let taken = cut(more, self.left);
        self.text.push_str(taken);
        if taken.len() < more.len() {
            self.left = 0;
            return Err(fmt::Error);
        }
        self.left -= taken.len();
        Ok(())
    }
}

/// The beginning of a text, at most so many bytes and whole characters.
fn cut(text: &str, most_bytes: usize) -> &str {
    let mut end = most_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_terminals_obey_is_escaped_and_reads_back() {
        let text = "a\u{1b}[31m\u{7f}b\u{80}\u{9b}2J\u{9f}\u{a0}ü\"\\";
        let mut line = Line::new(SystemTime::now(), Level::Info);
        line.text("message", text);
        let line = String::from_utf8(line.finish()).unwrap();
        let is_bad = |c: char| c != '\n' && c.is_control();
        assert!(
            !line.contains(is_bad) && line.contains("\\u009b2J"),
            "{line:?}"
        );
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["message"], text);
    }

    #[test]
    fn keys_are_sorted_and_texts_escaped_as_in_javascript() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
        let mut line = Line::new(now, Level::Warn);
        line.text("message", "a\"b\\c\n\u{1}\u{7f}\u{2028}é");
        line.raw("session_id", format_args!("{}", u64::MAX));
        line.text("client_id", "dev");
        line.text("level", "a second one");
        let expected = "{\"client_id\":\"dev\",\"level\":\"warn\",\
            \"message\":\"a\\\"b\\\\c\\n\\u0001\\u007f\u{2028}é\",\
            \"session_id\":18446744073709551615,\"timestamp\":\"2023-11-14T22:13:20.007Z\"}\n";
        assert_eq!(String::from_utf8(line.finish()).unwrap(), expected);
    }

    #[test]
    fn a_cut_text_stays_whole_characters_and_takes_nothing_after_the_cut() {
        let mut text = Cut {
            text: String::new(),
            left: 4,
        };
        assert!(text.write_str("ab").is_ok());
        assert!(text.write_str("cä").is_err() && text.write_str("x").is_err());
        assert_eq!(text.text, "abc");
    }
}
