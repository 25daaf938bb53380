//! A URL whose path names the device of a message: `https://api.example/devices/{client_id}/messages`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::context::Parts;

/// A URL with named parts in its path, each a whole segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlTemplate {
    /// What stands before the path: scheme, user, host and port.
    origin: String,
    segments: Vec<Segment>,
    /// Query and fragment.
    rest: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    Part(String),
}

impl UrlTemplate {
    /// Reads a URL. `None` when it has no named parts; braces with anything but a name in them are no named part.
    ///
    /// # Errors
    /// What is wrong with where one stands.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some(first) = names(text).next() else {
            return Ok(None);
        };
        let alone = |name: &str| {
            format!(
                "{{{name}}} must be a whole segment of the path, as in /devices/{{{name}}}/messages"
            )
        };
        let after_scheme = text.find("://").map_or(0, |at| at + 3);
        let path = text[after_scheme..].find(['/', '?', '#']);
        let path = path.map_or(text.len(), |at| after_scheme + at);
        let (origin, path) = text.split_at(path);
        let (path, rest) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
        if let Some(name) = names(origin).chain(names(rest)).next() {
            return Err(alone(name));
        }
        let path = path.strip_prefix('/').ok_or_else(|| alone(first))?;
        let segment = |segment: &str| match names(segment).next() {
            Some(name) if segment.len() == name.len() + 2 => Ok(Segment::Part(name.to_owned())),
            Some(name) => Err(alone(name)),
            None if is_dots(segment) => Err(format!("the path must not hold {segment:?}")),
            None => Ok(Segment::Text(segment.to_owned())),
        };
        Ok(Some(Self {
            origin: origin.to_owned(),
            segments: path.split('/').map(segment).collect::<Result<_, _>>()?,
            rest: rest.to_owned(),
        }))
    }

    /// The names of its parts, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Part(name) => Some(name.as_str()),
            Segment::Text(_) => None,
        })
    }

    /// A URL of this form, to find out how it is reached.
    pub(crate) fn example(&self) -> String {
        let path = self.filled(|_| Some("x"));
        let path = path.expect("a letter fits everywhere");
        format!("{}{path}{}", self.origin, self.rest)
    }

    /// The path for a device, percent-encoded; `None` when one of its names is missing or does not fit into a segment.
    pub(crate) fn path(&self, client_id: &str, parts: Option<&Parts>) -> Option<String> {
        self.filled(|name| value(name, client_id, parts))
    }

    /// Why a device has no path of this form, for a line that it and the log get. `None`: it has one.
    pub(crate) fn refuses(&self, client_id: &str, parts: &Parts) -> Option<String> {
        self.names()
            .find_map(|name| match value(name, client_id, Some(parts)) {
                None => Some(format!(
                    "the path of this device has no {{{name}}}, which the URL of the backend needs"
                )),
                Some(value) if !fits(value) => Some(format!(
                    "the {{{name}}} of this device cannot be a segment of the URL of the backend"
                )),
                Some(_) => None,
            })
    }

    fn filled<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
        let mut path = String::with_capacity(64);
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Text(text) => path.push_str(text),
                Segment::Part(name) => {
                    let value = value(name).filter(|value| fits(value))?;
                    path.extend(utf8_percent_encode(value, ENCODED));
                }
            }
        }
        Some(path)
    }
}

/// What a name stands for: the client id, or a named part of the path of the device.
fn value<'a>(name: &str, client_id: &'a str, parts: Option<&'a Parts>) -> Option<&'a str> {
    match name {
        CLIENT_ID => Some(client_id),
        name => parts?.get(name),
    }
}

/// Whether a text can be a segment of a path and stay in it, whatever server reads it. Many decode first and look for slashes and dots
/// then, so encoding them is no help.
fn fits(value: &str) -> bool {
    !value.is_empty() && !matches!(value, "." | "..") && !value.contains(leaves_segment)
}

/// Whether no text with this character [fits](fits).
pub(crate) fn leaves_segment(c: char) -> bool {
    matches!(c, '/' | '\\') || c.is_control()
}

/// The names in braces.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let names = text
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'));
    names.map(|(name, _)| name).filter(|name| is_name(name))
}

/// Whether it is the name of a part: lower-case letters, digits and underscores.
pub(crate) fn is_name(text: &str) -> bool {
    let is_of_a_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(is_of_a_name)
}

/// Whether a URL parser takes it for a step in the tree.
fn is_dots(segment: &str) -> bool {
    let plain = segment.to_ascii_lowercase().replace("%2e", ".");
    matches!(plain.as_str(), "." | "..")
}

/// The name that stands for the client id.
pub(crate) const CLIENT_ID: &str = "client_id";

/// All but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_whole_segment_of_the_path() {
        for (text, names) in [
            ("http://h/", None),
            ("http://h/a{b c}?q={}", None), // as the original took it
            ("http://h/{client_id}", Some(&["client_id"][..])),
            (
                "https://u:p@h:1/a/{tenant}/{client_id}/m?x=1#y",
                Some(&["tenant", "client_id"]),
            ),
        ] {
            let template = UrlTemplate::parse(text).unwrap();
            let found = template.as_ref().map(|t| t.names().collect::<Vec<_>>());
            assert_eq!(found.as_deref(), names, "{text}");
        }
        for bad in [
            "http://{client_id}/",
            "http://{client_id}",
            "http://h?id={client_id}",
            "http://h/m?id={client_id}",
            "http://h/{client_id}?id={client_id}",
            "http://h/dev-{client_id}",
            "http://h/{tenant}{client_id}",
            "http://h/../{client_id}",
            "http://h/{client_id}/%2E%2e/x",
        ] {
            UrlTemplate::parse(bad).unwrap_err();
        }
    }

    #[test]
    fn a_value_never_leaves_its_segment() {
        let template = UrlTemplate::parse("http://h/d/{client_id}/m?x=1")
            .unwrap()
            .unwrap();
        let path = |value| template.path(value, None);
        for (value, encoded) in [
            ("dev1", "dev1"),
            ("a b+c", "a%20b%2Bc"),
            ("%2e%2e", "%252e%252e"),
            ("%2F", "%252F"),
            ("...", "..."),
            ("a;b?c#d", "a%3Bb%3Fc%23d"),
            ("ü€", "%C3%BC%E2%82%AC"),
            ("-._~", "-._~"),
            (":@&=$,!'()*[]", "%3A%40%26%3D%24%2C%21%27%28%29%2A%5B%5D"),
        ] {
            assert_eq!(path(value), Some(format!("/d/{encoded}/m")), "{value}");
        }
        for value in ["", ".", "..", "a/b", "../x", "\\", "a\0", "\r\n", "\u{7f}"] {
            assert_eq!(path(value), None, "{value:?}");
        }
        assert_eq!(template.example(), "http://h/d/x/m?x=1");
    }

    #[test]
    fn parts_have_segments_of_their_own() {
        let template = UrlTemplate::parse("http://h/{tenant}/{id}").unwrap();
        let template = template.unwrap();
        let parts = |tenant: &str, id: &str| -> Parts {
            let parts = [("tenant", tenant), ("id", id)];
            let parts = parts.map(|(n, v)| (n.to_owned(), v.to_owned()));
            parts.into_iter().collect()
        };
        let path = |tenant, id| {
            let parts = parts(tenant, id);
            let path = template.path("x", Some(&parts));
            assert_eq!(path.is_none(), template.refuses("x", &parts).is_some());
            path
        };
        assert_eq!(path("a b", "%2F").as_deref(), Some("/a%20b/%252F"));
        for (tenant, id) in [("..", "x"), ("x", ".."), ("a/b", "x"), ("x", "\\")] {
            assert_eq!(path(tenant, id), None);
        }
        assert_eq!(template.path("x", None), None);
        let why = template.refuses("x", &Parts::default()).unwrap();
        assert!(why.contains("has no {tenant}"), "{why}");
    }
}
