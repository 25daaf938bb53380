//! Paths that name devices (`FASTSOCK_DEVICE_PATHS`), and the client id that their named parts form (`FASTSOCK_CLIENT_ID`). No I/O.

use percent_encoding::percent_decode_str;

use crate::{
    context::Parts,
    types::{ClientId, Refusal},
};

/// The paths that devices may connect to, and the client id that each of them names.
#[derive(Clone, Debug)]
pub(crate) struct DevicePaths {
    paths: Vec<DevicePath>,
    form: ClientIdForm,
}

/// A path such as `/tenants/{tenant}/devices/{id}/ws`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevicePath(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Part(String),
}

/// How parts form a client id: `{id}` or, say, `{tenant}/{id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientIdForm {
    /// What stands before the first part.
    prefix: String,
    /// Each part, and what stands behind it.
    parts: Vec<(String, String)>,
}

impl DevicePaths {
    /// Those of the settings; `None` when there are none.
    ///
    /// # Errors
    /// A line that names the setting: one of them is none, or two devices could get one client id.
    pub(crate) fn new(paths: &[String], form: &str) -> Result<Option<Self>, String> {
        let of = |variable: &str, what: String| format!("{variable}: {what}");
        let form = ClientIdForm::parse(form).map_err(|what| of(FORM, what))?;
        if paths.is_empty() {
            let is_default = form.names().eq(["id"]) && form.is_bare();
            return match is_default {
                true => Ok(None),
                false => Err(format!("{FORM}: it has no effect without {PATHS}")),
            };
        }
        let paths = paths.iter().map(|text| DevicePath::parse(text));
        let paths: Vec<_> = paths
            .collect::<Result<_, _>>()
            .map_err(|what| of(PATHS, what))?;
        for path in &paths {
            if let Some(part) = form.names().find(|part| !path.names().any(|p| p == *part)) {
                return Err(format!("{FORM}: {{{part}}} is not in the path {path}"));
            }
            if let Some(part) = path.names().find(|part| !form.names().any(|p| p == *part)) {
                return Err(format!(
                    "{FORM}: it has no {{{part}}}, so {path} would give one client id to devices that differ in {{{part}}} alone; {{{part}}}/{{id}} keeps them apart"
                ));
            }
        }
        for (index, path) in paths.iter().enumerate() {
            if let Some(other) = paths[..index].iter().find(|other| other.overlaps(path)) {
                return Err(format!(
                    "{PATHS}: one request could match both {other} and {path}"
                ));
            }
        }
        Ok(Some(Self { paths, form }))
    }

    /// The names of the parts that each of the paths has.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.form.names()
    }

    /// The parts of a request's path, and the client id that they form.
    ///
    /// # Errors
    /// 400 for a path with a segment that programs read in different ways, 404 for one that names no device.
    pub(crate) fn named(&self, path: &str) -> Result<(Parts, ClientId), Refusal> {
        let segments = segments(path).map_err(|why| Refusal::new(400, why))?;
        let found = self.find_in(&segments);
        found.unwrap_or_else(|| Err(Refusal::new(404, "no device has this path")))
    }

    /// The same for a path that may be another route's: `None` when it is none of these.
    pub(crate) fn find(&self, path: &str) -> Option<Result<(Parts, ClientId), Refusal>> {
        self.find_in(&segments(path).ok()?)
    }

    fn find_in(&self, segments: &[String]) -> Option<Result<(Parts, ClientId), Refusal>> {
        let parts = self.paths.iter().find_map(|path| path.parts(segments))?;
        Some(self.with_id(parts))
    }

    fn with_id(&self, parts: Parts) -> Result<(Parts, ClientId), Refusal> {
        let client_id = self.form.fill(|name| parts.get(name)).ok_or_else(|| {
            Refusal::new(400, "a part of the path has a character that separates the parts of a client id, or is too long")
        })?;
        Ok((parts, client_id))
    }
}

impl DevicePath {
    /// # Errors
    /// Why it is none, for a line that goes on.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} {why}");
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| wrong("does not begin with a slash"))?;
        let segments = rest.split('/').map(|segment| match part_name(segment) {
            Some(name) if is_name(name) => Ok(Segment::Part(name.into())),
            Some(_) => Err(wrong(
                "has a part whose name is not a small letter followed by small letters, digits and _",
            )),
            None if segment.contains(['{', '}']) => {
                Err(wrong("has a part that is not a whole segment"))
            }
            None if !is_literal(segment) => Err(wrong(
                "has a segment that is empty, . or .., or needs percent-encoding",
            )),
            None => Ok(Segment::Literal(segment.into())),
        });
        let path = Self(segments.collect::<Result<_, _>>()?);
        let is_twice = |name: &&str| path.names().filter(|n| n == name).count() > 1;
        if path.names().find(is_twice).is_some() {
            return Err(wrong("has a part twice"));
        }
        if !path.names().any(|name| name == "id") {
            return Err(wrong("has no {id}"));
        }
        Ok(path)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Part(name) => Some(&**name),
            Segment::Literal(_) => None,
        })
    }

    /// Whether some request matches both.
    fn overlaps(&self, other: &Self) -> bool {
        let meets = |(a, b): (&Segment, &Segment)| match (a, b) {
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            _ => true,
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(meets)
    }

    fn parts(&self, segments: &[String]) -> Option<Parts> {
        if segments.len() != self.0.len() {
            return None;
        }
        let mut parts = Vec::new();
        for (template, segment) in self.0.iter().zip(segments) {
            match template {
                Segment::Literal(literal) if literal == segment => {}
                Segment::Literal(_) => return None,
                Segment::Part(name) => parts.push((name.clone(), segment.clone())),
            }
        }
        Some(parts.into_iter().collect())
    }
}

impl std::fmt::Display for DevicePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Literal(literal) => write!(f, "/{literal}"),
            Segment::Part(name) => write!(f, "/{{{name}}}"),
        })
    }
}

impl ClientIdForm {
    /// # Errors
    /// Why it is none, for a line that goes on.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} {why}");
        let mut pieces = text.split('{');
        let prefix = pieces.next().unwrap_or_default().to_owned();
        let parts = pieces.map(|piece| {
            let (name, behind) = piece
                .split_once('}')
                .ok_or_else(|| wrong("has a { without its }"))?;
            match is_name(name) && !behind.contains('}') {
                true => Ok((name.to_owned(), behind.to_owned())),
                false => Err(wrong(
                    "has a part whose name is not a small letter followed by small letters, digits and _",
                )),
            }
        });
        let form = Self {
            parts: parts.collect::<Result<_, _>>()?,
            prefix,
        };
        if form.prefix.contains('}') {
            return Err(wrong("has a } without its {"));
        }
        let is_twice = |name: &&str| form.names().filter(|n| n == name).count() > 1;
        if form.names().find(is_twice).is_some() {
            return Err(wrong("has a part twice"));
        }
        if !form.names().any(|name| name == "id") {
            return Err(wrong("has no {id}, so devices would share one client id"));
        }
        if form.separators().any(str::is_empty) {
            return Err(wrong(
                "has nothing between two parts, so two devices could have one client id",
            ));
        }
        Ok(form)
    }

    /// `{id}`.
    #[cfg(feature = "jwt")]
    pub(crate) fn id() -> Self {
        Self {
            prefix: String::new(),
            parts: vec![("id".into(), String::new())],
        }
    }

    /// The client id of these parts. `None` when one is missing, or could be read as two: then two devices could have one client id.
    pub(crate) fn fill<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> Option<ClientId> {
        let mut id = self.prefix.clone();
        for (name, behind) in &self.parts {
            let value = value(name).filter(|value| !value.is_empty())?;
            if self.separators().any(|s| value.contains(|c| s.contains(c))) {
                return None;
            }
            id.push_str(value);
            id.push_str(behind);
        }
        ClientId::new(id)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|(name, _)| &**name)
    }

    /// What stands between two parts.
    fn separators(&self) -> impl Iterator<Item = &str> {
        let (_, all_but_last) = self.parts.split_last().unwrap_or((&NO_PART, &[]));
        all_but_last.iter().map(|(_, behind)| &**behind)
    }

    /// What of a client id of this form comes from the form itself.
    pub(crate) fn literals(&self) -> impl Iterator<Item = &str> {
        let behind = self.parts.iter().map(|(_, behind)| &**behind);
        std::iter::once(&*self.prefix).chain(behind)
    }

    fn is_bare(&self) -> bool {
        self.prefix.is_empty() && self.parts.iter().all(|(_, behind)| behind.is_empty())
    }
}

/// Subprotocols that the settings may name: tokens (RFC 9110 §5.6.2), none of which has a meaning of its own here.
///
/// # Errors
/// Which one is none, and why.
pub(crate) fn check_subprotocols(list: &[String]) -> Result<(), String> {
    for (index, name) in list.iter().enumerate() {
        let why = if name.starts_with("fastsock") {
            "is a subprotocol that the gateway chooses by itself"
        } else if name.is_empty() || !name.bytes().all(is_token_byte) {
            "has characters that no subprotocol has"
        } else if list[..index].contains(name) {
            "is there twice"
        } else {
            continue;
        };
        return Err(format!("{name:?} {why}"));
    }
    Ok(())
}

/// The decoded segments of a path (RFC 3986 §3.3; `+` is a plus sign).
///
/// # Errors
/// Why it is refused: what a proxy or a backend behind takes for another path.
fn segments(path: &str) -> Result<Vec<String>, &'static str> {
    // An absolute form (RFC 9112 §3.2.2) has its authority first.
    let path = match path.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => path,
    };
    let rest = path.strip_prefix('/').ok_or("the path has no slash")?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    rest.split('/').map(segment).collect()
}

fn segment(text: &str) -> Result<String, &'static str> {
    if !is_encoded(text) {
        return Err("the path has a % without two hexadecimal digits, or a #");
    }
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| "the path is not UTF-8")?;
    if decoded
        .split(['/', '\\'])
        .any(|s| matches!(s, "" | "." | ".."))
    {
        return Err("the path has an empty segment, . or ..");
    }
    if decoded.contains(char::is_control) {
        return Err("the path has a control character");
    }
    Ok(decoded.into_owned())
}

fn is_encoded(text: &str) -> bool {
    let mut pieces = text.split('%');
    pieces.next();
    let is_hex = |piece: &str| {
        let digits = piece.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    };
    !text.contains('#') && pieces.all(is_hex)
}

/// What stands between the braces of a segment that is a part.
fn part_name(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// RFC 9110 §5.6.2.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 3986 §3.3, without percent-encoding.
fn is_literal(segment: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:@".contains(&b);
    !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed)
}

const PATHS: &str = "FASTSOCK_DEVICE_PATHS";
const FORM: &str = "FASTSOCK_CLIENT_ID";
static NO_PART: (String, String) = (String::new(), String::new());

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &str, form: &str) -> DevicePaths {
        let list: Vec<_> = paths.split(',').map(str::to_owned).collect();
        DevicePaths::new(&list, form).unwrap().unwrap()
    }

    fn named(paths: &DevicePaths, path: &str) -> Result<String, u16> {
        let named = paths.named(path);
        named
            .map(|(_, id)| id.to_string())
            .map_err(|refusal| refusal.status)
    }

    #[test]
    fn the_id_in_a_path_is_one_segment_decoded_by_rfc_3986() {
        let paths = paths("/ocpp/{id},/{id}/ws/v1", "{id}");
        for (path, expected) in [
            ("/ocpp/CP001", Ok("CP001")),
            ("/%6fcpp/CP001", Ok("CP001")),
            ("http://gateway.example/ocpp/CP001", Ok("CP001")),
            ("/CP001/ws/v1", Ok("CP001")),
            ("/ocpp/a%20b+c", Ok("a b+c")),
            ("/ocpp/%F0%9F%94%8C", Ok("🔌")),
            ("/ocpp/a%2Fb", Ok("a/b")),
            ("/ocpp/%252F", Ok("%2F")),
            ("/ocpp/%252e%252e", Ok("%2e%2e")),
            ("/ocpp/...", Ok("...")),
            ("/ocpp/token=x", Ok("token=x")),
            ("/", Err(404)),
            ("/ocpp", Err(404)),
            ("/OCPP/CP001", Err(404)),
            ("/ocpp/a/b", Err(404)),
            ("/x/CP001", Err(404)),
            ("http://gateway.example", Err(404)),
            ("/ocpp/", Err(400)),
            ("//ocpp/CP001", Err(400)),
            ("/ocpp//CP001", Err(400)),
            ("/ocpp/CP001/", Err(400)),
            ("/ocpp/.", Err(400)),
            ("/ocpp/..", Err(400)),
            ("/ocpp/%2e", Err(400)),
            ("/ocpp/%2e%2E", Err(400)),
            ("/ocpp/.%2e", Err(400)),
            ("/ocpp/a%2F..%2Fb", Err(400)),
            ("/ocpp/a%5C..%5Cb", Err(400)),
            ("/ocpp/%2F", Err(400)),
            ("/ocpp/x%2F", Err(400)),
            ("/ocpp/%00", Err(400)),
            ("/ocpp/a%00b", Err(400)),
            ("/ocpp/a%0d%0ab", Err(400)),
            ("/ocpp/%", Err(400)),
            ("/ocpp/%2", Err(400)),
            ("/ocpp/%zz", Err(400)),
            ("/ocpp/%ff", Err(400)),
            ("/ocpp/%C0%AF", Err(400)),
            ("/ocpp/%ED%A0%80", Err(400)),
            ("/ocpp/a#b", Err(400)),
            ("*", Err(400)),
            ("ocpp/CP001", Err(400)),
        ] {
            assert_eq!(named(&paths, path), expected.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn parts_form_a_client_id_that_no_other_parts_form() {
        let paths = paths(
            "/tenants/{tenant}/devices/{id}/ws,/t/{id}/{tenant}",
            "{tenant}/{id}",
        );
        let (parts, id) = paths.named("/tenants/acme/devices/CP%31/ws").unwrap();
        assert_eq!(
            (parts.get("tenant"), parts.get("id")),
            (Some("acme"), Some("CP1"))
        );
        assert_eq!(id.as_str(), "acme/CP1");
        assert_eq!(named(&paths, "/t/CP1/acme"), Ok("acme/CP1".into()));
        for path in ["/tenants/a%2Fb/devices/c/ws", "/tenants/a/devices/b%2Fc/ws"] {
            assert_eq!(named(&paths, path), Err(400), "{path}");
        }
        let form = ClientIdForm::parse("cp-{id}").unwrap();
        assert_eq!(form.fill(|_| Some("a-b")).unwrap().as_str(), "cp-a-b");
        assert!(form.fill(|_| Some("")).is_none() && form.fill(|_| None).is_none());
    }

    #[test]
    fn what_could_name_two_devices_alike_is_refused() {
        for (paths, form, told) in [
            ("/ocpp/{id}", "{id}", None),
            ("/ocpp/{id}", "cp-{id}", None),
            ("/t/{tenant}/{id}", "{tenant}:{id}", None),
            (
                "/t/{tenant}/{id}",
                "{id}",
                Some("it has no {tenant}, so /t/{tenant}/{id} would"),
            ),
            (
                "/ocpp/{id},/t/{tenant}/{id}",
                "{tenant}/{id}",
                Some("{tenant} is not in the path /ocpp/{id}"),
            ),
            (
                "/t/{tenant}/{id}",
                "{tenant}{id}",
                Some("nothing between two parts"),
            ),
            ("/t/{tenant}/{id}", "{tenant}", Some("has no {id}")),
            ("/ocpp/{id}", "{id}/{id}", Some("has a part twice")),
            ("/ocpp/{id}", "all", Some("has no {id}")),
            ("/ocpp/{id}", "{id", Some("has a { without its }")),
            ("/ocpp/{id}", "id}", Some("has a } without its {")),
            ("/ocpp/{id}", "{ID}", Some("has a part whose name")),
            (
                "/a/{id},/{id}/b",
                "{id}",
                Some("one request could match both /a/{id} and /{id}/b"),
            ),
            (
                "/a/{id},/a/{id}",
                "{id}",
                Some("one request could match both"),
            ),
            ("ocpp/{id}", "{id}", Some("does not begin with a slash")),
            ("/ocpp", "{id}", Some("has no {id}")),
            ("/ocpp/x{id}", "{id}", Some("not a whole segment")),
            ("/ocpp/{}/{id}", "{id}", Some("has a part whose name")),
            ("/{id}/{id}", "{id}", Some("has a part twice")),
            ("/a//{id}", "{id}", Some("has a segment that is empty")),
            (
                "/../{id}",
                "{id}",
                Some("has a segment that is empty, . or .."),
            ),
            ("/a%20b/{id}", "{id}", Some("needs percent-encoding")),
            ("/a?b/{id}", "{id}", Some("needs percent-encoding")),
            (
                "",
                "{tenant}/{id}",
                Some("FASTSOCK_CLIENT_ID: it has no effect without FASTSOCK_DEVICE_PATHS"),
            ),
        ] {
            let list: Vec<_> = paths
                .split(',')
                .filter(|p| !p.is_empty())
                .map(str::to_owned)
                .collect();
            let found = DevicePaths::new(&list, form).err();
            match (&found, told) {
                (None, None) => {}
                (Some(line), Some(told)) if line.contains(told) => {}
                _ => panic!("{paths} {form}: {found:?}"),
            }
        }
    }
}
