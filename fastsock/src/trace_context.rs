//! Where in a trace a device says that its request is: W3C Trace Context.

use serde::{Deserialize, Serialize};

/// The trace that a device's request is part of: its `traceparent` and `tracestate`, checked.
///
/// A session keeps one only when the device sent exactly one valid `traceparent`. Its POSTs carry both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TraceContext {
    /// `00-<trace id>-<span id>-<flags>`, as the device sent it. That of a later version than 00 is written as one of 00.
    pub parent: String,
    /// `tracestate` as the device sent it, several joined by commas; `None` without a valid one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// What `traceparent` says.
#[derive(Debug, PartialEq)]
pub(crate) struct Parent<'a> {
    pub(crate) trace_id: &'a str,
    pub(crate) span_id: &'a str,
    pub(crate) is_sampled: bool,
}

impl TraceContext {
    /// From the headers of those names in a request, in its order. `None` without a valid `traceparent`, or with two.
    pub(crate) fn of<'a>(
        mut parents: impl Iterator<Item = &'a str>,
        states: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let header = parents.next()?.trim();
        let parent = Parent::parse(header).filter(|_| parents.next().is_none())?;
        let states: Vec<_> = states.map(str::trim).filter(|s| !s.is_empty()).collect();
        let state = states.join(",");
        Some(Self {
            parent: match header.starts_with("00-") {
                true => header.to_owned(),
                false => parent.to_header(),
            },
            state: is_state(&state).then_some(state),
        })
    }

    /// The same in parts.
    #[cfg(feature = "otlp")]
    pub(crate) fn parsed(&self) -> Option<Parent<'_>> {
        Parent::parse(&self.parent)
    }
}

impl<'a> Parent<'a> {
    /// `00-<32 hex>-<16 hex>-<2 hex>`, all lower case; a later version may go on after another dash (§3.2).
    pub(crate) fn parse(header: &'a str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let mut part = |length: usize| {
            let part = parts.next()?;
            let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
            (part.len() == length && part.bytes().all(is_hex)).then_some(part)
        };
        let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let is_zero = |id: &str| id.bytes().all(|b| b == b'0');
        let has_more = parts.next().is_some();
        if version == "ff" || (version == "00" && has_more) || is_zero(trace_id) || is_zero(span_id)
        {
            return None;
        }
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self {
            trace_id,
            span_id,
            is_sampled: flags & 1 == 1,
        })
    }

    fn to_header(&self) -> String {
        let flags = u8::from(self.is_sampled);
        format!("00-{}-{}-{flags:02x}", self.trace_id, self.span_id)
    }
}

/// Whether it is a list of members as §3.3 has them, of 1 to 512 bytes. Members without anything in them may be between commas.
fn is_state(text: &str) -> bool {
    let members = text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']));
    let mut members = members.filter(|member| !member.is_empty()).peekable();
    let is_some = members.peek().is_some();
    let mut keys = Vec::new();
    let are_members = members.all(|member| {
        let Some((key, value)) = member.split_once('=') else {
            return false;
        };
        let is_new = !keys.contains(&key);
        keys.push(key);
        let mut of_key = key.bytes();
        let begins = of_key
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let is_key = |b: u8| {
            b.is_ascii_lowercase()
                || b.is_ascii_digit()
                || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@')
        };
        let is_value = |b: u8| matches!(b, b' '..=b'~') && b != b'=';
        is_new
            && begins
            && of_key.all(is_key)
            && key.len() <= 256
            && (1..=256).contains(&value.len())
            && value.bytes().all(is_value)
    });
    is_some && are_members && keys.len() <= MEMBERS && text.len() <= STATE_BYTES
}

/// Most members of a `tracestate`.
const MEMBERS: usize = 32;
/// The most bytes of it that go on: what the standard asks for at least.
const STATE_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_parent_is_what_the_standard_allows_and_nothing_else() {
        for (header, is_sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!(" 00-{TRACE}-{SPAN}-02 "), false),
            (format!("cc-{TRACE}-{SPAN}-03-what-ever"), true),
        ] {
            let parent = Parent::parse(&header).expect(&header);
            assert_eq!((parent.trace_id, parent.span_id), (TRACE, SPAN));
            assert_eq!(parent.is_sampled, is_sampled, "{header}");
        }
        for header in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}x-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-é1"),
        ] {
            assert_eq!(Parent::parse(&header), None, "{header}");
        }
    }

    #[test]
    fn what_goes_on_is_valid() {
        let header = format!("00-{TRACE}-{SPAN}-01");
        let of = |parents: &[&str], states: &[&str]| {
            TraceContext::of(parents.iter().copied(), states.iter().copied())
        };
        let found = of(&[&header], &["a=1", "", " b=2 "]).expect("it is valid");
        assert_eq!(found.parent, header);
        assert_eq!(found.state.as_deref(), Some("a=1,b=2"));
        let later = format!("cc-{TRACE}-{SPAN}-ff-more");
        let later = of(&[&later], &[]).expect("it is valid");
        assert_eq!(later.parent, header);
        assert_eq!(later.state, None);
        assert_eq!(of(&[&header, &header], &[]), None);
        assert_eq!(of(&["00-x"], &["a=1"]), None);
        let long = "x".repeat(257);
        for state in [
            "a",
            "=1",
            "a=",
            "A=1",
            "a=1,a=2",
            "a=b=c",
            "a=\u{fffd}",
            &format!("a={long}"),
            &(0..33)
                .map(|n| format!("a{n}=1"))
                .collect::<Vec<_>>()
                .join(","),
            &(0..3)
                .map(|n| format!("a{n}={}", &long[1..]))
                .collect::<Vec<_>>()
                .join(","),
            " , ",
        ] {
            let found = of(&[&header], &[state]).expect("the parent is valid");
            assert_eq!(found.state, None, "{state}");
        }
        for state in [
            "0a@b=1",
            "a=1, b = x",
            "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
        ] {
            let found = of(&[&header], &[state]).expect("the parent is valid");
            assert_eq!(found.state.is_some(), state != "a=1, b = x", "{state}");
        }
    }
}
