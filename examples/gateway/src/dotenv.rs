//! The grammar of Node's dotenv 17. It is one regular expression there, and installations rely on its corners, so this
//! reads exactly what that expression matches; the vectors in `tests/vectors/dotenv.json` come from Node.

/// What is in a `.env` text.
#[derive(Default)]
pub(crate) struct Parsed {
    /// Names and values; the last of several values wins.
    pub(crate) entries: Vec<(String, String)>,
    /// The numbers of lines that make no sense, from 1. They are skipped, as Node does in silence.
    pub(crate) skipped: Vec<usize>,
}

/// Reads a `.env` text.
pub(crate) fn parse(text: &str) -> Parsed {
    let text: Vec<char> = text
        .replace("\r\n", "\n")
        .replace('\r', "\n")
        .chars()
        .collect();
    let mut parsed = Parsed::default();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let begin = at;
        match entry(&text, at) {
            Some(entry) => {
                at = entry.end;
                parsed.entries.retain(|(name, _)| *name != entry.name);
                parsed.entries.push((entry.name, entry.value));
            }
            None => {
                if is_nonsense(&text, at) {
                    parsed.skipped.push(line);
                }
                at += 1;
            }
        }
        line += text[begin..at].iter().filter(|c| **c == '\n').count();
    }
    parsed
}

/// Whether a line begins here that is neither empty nor a comment.
fn is_nonsense(text: &[char], at: usize) -> bool {
    let is_inside = |c: &&char| !is_line_end(**c);
    let mut line = text[at..].iter().take_while(is_inside);
    is_line_start(text, at) && line.find(|c| !is_space(**c)).is_some_and(|c| *c != '#')
}

/// Any bytes give names that are names, each once; and what was read, written in the plainest way, reads the same.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Parsed { entries, skipped } = parse(&text);
    assert!(skipped.is_sorted_by(|a, b| a <= b), "{skipped:?}");
    let mut written = String::new();
    for (index, (name, value)) in entries.iter().enumerate() {
        assert!(!name.is_empty() && name.chars().all(is_name), "{name:?}");
        assert!(
            entries[..index].iter().all(|(other, _)| other != name),
            "{name:?} twice"
        );
        // What is in one kind of quotes is taken as it stands, but for these, and a value may have all three quotes.
        let is_plain = !value.contains(['\\', '\r', '\u{2028}', '\u{2029}']);
        let Some(quote) = QUOTES
            .iter()
            .find(|quote| is_plain && !value.contains(**quote))
        else {
            return;
        };
        written.push_str(&format!("{name}={quote}{value}{quote}\n"));
    }
    let again = parse(&written);
    assert_eq!(again.entries, entries, "{written:?}");
    assert!(again.skipped.is_empty(), "{written:?}");
}

/// One assignment, and where the text goes on after it.
struct Entry {
    name: String,
    value: String,
    end: usize,
}

/// An assignment that begins here: space, an optional `export`, a name, `=` or `: `, a value, a comment.
fn entry(text: &[char], at: usize) -> Option<Entry> {
    if !is_line_start(text, at) {
        return None;
    }
    let at = skip_space(text, at);
    let exported = after_export(text, at).and_then(|at| assignment(text, at));
    exported.or_else(|| assignment(text, at))
}

fn after_export(text: &[char], at: usize) -> Option<usize> {
    let rest = text[at..].strip_prefix(&EXPORT)?;
    let at = text.len() - rest.len();
    let name = skip_space(text, at);
    (name > at).then_some(name)
}

fn assignment(text: &[char], at: usize) -> Option<Entry> {
    let name_end = at + text[at..].iter().take_while(|c| is_name(**c)).count();
    if name_end == at {
        return None;
    }
    let value_at = after_separator(text, name_end)?;
    let (value_end, end) = QUOTES
        .iter()
        .find_map(|quote| quoted(text, value_at, *quote))
        .or_else(|| unquoted(text, value_at))?;
    Some(Entry {
        name: text[at..name_end].iter().collect(),
        value: clean(&text[value_at..value_end]),
        end,
    })
}

/// `=` may stand on a later line than its name, `:` must follow its name and be followed by a space.
fn after_separator(text: &[char], at: usize) -> Option<usize> {
    let sign = skip_space(text, at);
    if text.get(sign) == Some(&'=') {
        return Some(sign + 1);
    }
    let has_space = text.get(at + 1).is_some_and(|c| is_space(*c));
    (text[at..].starts_with(&[':']) && has_space).then_some(at + 2)
}

/// A value in quotes, over several lines if need be: where it ends, and where the text goes on. It ends at the first
/// quote without a backslash; when something else follows on that line, at the last one with a backslash instead.
fn quoted(text: &[char], at: usize, quote: char) -> Option<(usize, usize)> {
    let open = skip_space(text, at);
    if text.get(open) != Some(&quote) {
        return None;
    }
    let mut closings = Vec::new();
    for close in (open + 1..text.len()).filter(|i| text[*i] == quote) {
        closings.push(close);
        if close == open + 1 || text[close - 1] != '\\' {
            break;
        }
    }
    let mut closings = closings.into_iter().rev();
    closings.find_map(|close| Some((close + 1, after_comment(text, close + 1)?)))
}

/// The rest of the line up to a `#`, which may be nothing.
fn unquoted(text: &[char], at: usize) -> Option<(usize, usize)> {
    let is_value = |c: &&char| !matches!(**c, '#' | '\n');
    let value_end = at + text[at..].iter().take_while(is_value).count();
    Some((value_end, after_comment(text, value_end)?))
}

/// The end of the line, if nothing but space and a comment is left on it. Takes empty lines and a comment after them along.
fn after_comment(text: &[char], at: usize) -> Option<usize> {
    let next = skip_space(text, at);
    match text.get(next) {
        None => Some(next),
        Some('#') => {
            let is_comment = |c: &&char| !is_line_end(**c);
            Some(next + text[next..].iter().take_while(is_comment).count())
        }
        Some(_) => (at..next).rev().find(|i| is_line_end(text[*i])),
    }
}

/// Trims a value, takes its quotes off, and expands `\n` and `\r` when it began with a double quote.
fn clean(value: &[char]) -> String {
    let start = skip_space(value, 0);
    let end = value
        .iter()
        .rposition(|c| !is_space(*c))
        .map_or(start, |last| last + 1);
    let value = &value[start..end];
    let text = without_quotes(value);
    if value.first() == Some(&'"') {
        text.replace("\\n", "\n").replace("\\r", "\r")
    } else {
        text
    }
}

/// Takes off a quote at the start of a line and the last same one at the end of one. (A value in quotes is one such span;
/// others can only come about through U+2028 and U+2029, which end a line for JavaScript.)
fn without_quotes(value: &[char]) -> String {
    let mut text = String::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let open = value[at];
        let close = (at + 1..value.len())
            .rev()
            .find(|i| value[*i] == open && value.get(*i + 1).is_none_or(|next| is_line_end(*next)));
        match close {
            Some(close) if QUOTES.contains(&open) && is_line_start(value, at) => {
                text.extend(&value[at + 1..close]);
                at = close + 1;
            }
            _ => {
                text.push(open);
                at += 1;
            }
        }
    }
    text
}

fn skip_space(text: &[char], at: usize) -> usize {
    at + text[at..].iter().take_while(|c| is_space(**c)).count()
}

fn is_line_start(text: &[char], at: usize) -> bool {
    at == 0 || is_line_end(text[at - 1])
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\u{2028}' | '\u{2029}')
}

/// JavaScript's `\s`: as Rust's, but with the byte order mark and without U+0085.
fn is_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

const EXPORT: [char; 6] = ['e', 'x', 'p', 'o', 'r', 't'];
const QUOTES: [char; 3] = ['\'', '"', '`'];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*, test_runner::Config};

    use super::*;

    #[test]
    fn the_corpus_keeps_every_promise() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/dotenv");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            fuzz(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0);
    }

    proptest! {
        #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

        #[test]
        fn any_text_keeps_every_promise(pieces in vec(prop::sample::select(PIECES), 0..40)) {
            fuzz(pieces.concat().as_bytes());
        }
    }

    const PIECES: &[&str] = &[
        "A", "b.c", "-", "=", ": ", " ", "\n", "\r\n", "'", "\"", "`", "\\", "\\n", "#", "export ",
        "\u{2028}", "\u{feff}", "ä",
    ];

    #[test]
    fn lines_that_make_no_sense_are_known_by_their_number() {
        for (text, skipped) in [
            ("", &[][..]),
            ("A=1\n\n# B\n  # C\nexport D=2 # E\nF: 3", &[]),
            ("A='1\n2\n3'\nB", &[4]),
            (
                "\u{feff}A=1\r\n<<<<<<< HEAD\r\nB=2\r\n=======\r\nC D=3\r\n",
                &[2, 4, 5],
            ),
            ("password\n\n  A\n=1\n", &[1]),
            ("A=1 \n\n junk # x\n", &[3]),
        ] {
            assert_eq!(parse(text).skipped, skipped, "{text:?}");
        }
    }

    #[test]
    fn it_reads_what_node_reads() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/vectors/dotenv.json"
        );
        let vectors: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(cases.len() >= 500);
        for case in cases {
            let input = case["input"].as_str().unwrap();
            let expected: BTreeMap<String, String> =
                serde_json::from_value(case["parsed"].clone()).unwrap();
            let entries = parse(input).entries;
            let count = entries.len();
            let parsed: BTreeMap<_, _> = entries.into_iter().collect();
            assert_eq!(parsed, expected, "{input:?}");
            assert_eq!(parsed.len(), count, "a name twice in {input:?}");
        }
    }
}
