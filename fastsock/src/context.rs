//! What is known of a session beside its name: how its device connected, and what goes with it by the word of whoever let it in.

use std::{
    fmt,
    str::FromStr,
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{
    error::{Error, ErrorKind},
    remote_addr::RemoteAddr,
    trace_context::TraceContext,
};

/// What is known of a session beside its name. It goes with each of its messages, through a durable spool too.
///
/// A bridge keeps one for a session only when there is something to know or the settings ask for it: a device path, subprotocols of
/// ours, headers for the backend, metadata and groups of an admission, or a trace that its request is part of. `Debug` prints neither the metadata nor the values of headers.
#[derive(Clone)]
#[non_exhaustive]
pub struct Context {
    /// The path of the request as sent, without its query; a token in it is `***`.
    pub path: String,
    /// The named parts of the path, `id` included.
    pub parts: Parts,
    /// The name of its route, unless it is the default one.
    pub route: Option<String>,
    /// The subprotocol that the device was told, if any.
    pub subprotocol: Option<String>,
    /// Where it connected from.
    pub remote_addr: RemoteAddr,
    /// When it connected.
    pub connected_at: SystemTime,
    /// What whoever let it in says of it.
    pub metadata: Option<Metadata>,
    /// Its groups by the word of whoever let it in. They do not go through a spool.
    pub groups: Vec<String>,
    /// The headers of its request that `remote_forward_headers` names: lower case, in the order of the setting.
    pub headers: Vec<(String, String)>,
    /// The trace that its request was part of.
    pub trace: Option<TraceContext>,
    record: OnceLock<Box<[u8]>>,
}

impl Context {
    /// That of a session which begins now. Bridges make them; others may, for tests of their hooks.
    pub fn new(path: impl Into<String>, remote_addr: RemoteAddr) -> Self {
        Self {
            path: path.into(),
            parts: Parts::default(),
            route: None,
            subprotocol: None,
            remote_addr,
            connected_at: SystemTime::now(),
            metadata: None,
            groups: Vec::new(),
            headers: Vec::new(),
            trace: None,
            record: OnceLock::new(),
        }
    }

    /// As bytes that [`Context::from_record`] reads, for a spool. Made once.
    pub(crate) fn record(&self) -> &[u8] {
        self.record.get_or_init(|| {
            let since_1970 = self.connected_at.duration_since(SystemTime::UNIX_EPOCH);
            let record = Record {
                path: self.path.clone(),
                parts: self.parts.0.clone(),
                route: self.route.clone(),
                subprotocol: self.subprotocol.clone(),
                remote_addr: self.remote_addr.to_string(),
                connected_ms: since_1970.map_or(0, |d| d.as_millis() as u64),
                metadata: self.metadata.clone().map(|m| m.0),
                headers: self.headers.clone(),
                trace: self.trace.clone(),
            };
            let json = serde_json::to_vec(&record).expect("texts and a number are JSON");
            json.into_boxed_slice()
        })
    }

    /// Reads what [`Context::record`] wrote; `None` when it is nothing of the kind.
    pub(crate) fn from_record(bytes: &[u8]) -> Option<Self> {
        let record: Record = serde_json::from_slice(bytes).ok()?;
        let since_1970 = Duration::from_millis(record.connected_ms);
        Some(Self {
            path: record.path,
            parts: Parts(record.parts),
            route: record.route,
            subprotocol: record.subprotocol,
            remote_addr: record.remote_addr.parse().ok()?,
            connected_at: SystemTime::UNIX_EPOCH.checked_add(since_1970)?,
            metadata: record.metadata.map(Metadata),
            groups: Vec::new(),
            headers: record.headers,
            trace: record.trace,
            record: OnceLock::new(),
        })
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        let whole = |c: &Self| (c.record().to_vec(), c.groups.clone());
        whole(self) == whole(other)
    }
}

impl Eq for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Context")
            .field("path", &self.path)
            .field("parts", &self.parts)
            .field("route", &self.route)
            .field("subprotocol", &self.subprotocol)
            .field("remote_addr", &self.remote_addr)
            .field("groups", &self.groups)
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    path: String,
    parts: Vec<(String, String)>,
    /// Records without one are read, and one that has none is as it was before there were routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    route: Option<String>,
    subprotocol: Option<String>,
    remote_addr: String,
    connected_ms: u64,
    metadata: Option<String>,
    headers: Vec<(String, String)>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace: Option<TraceContext>,
}

/// The named parts of a path, percent-decoded, in its order: `tenant` and `id` of `/tenants/{tenant}/devices/{id}/ws`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(Vec<(String, String)>);

impl Parts {
    /// The value of a part.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Names and values, in the order of the path.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, String)> for Parts {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(parts: T) -> Self {
        Self(parts.into_iter().collect())
    }
}

/// As an object.
impl Serialize for Parts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// What whoever let a device in says of it: a JSON object of at most [`Metadata::MAX_BYTES`] bytes, as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Metadata(String);

impl Metadata {
    /// The most bytes of its text: with each POST it has to fit into the headers.
    pub const MAX_BYTES: usize = 4096;

    /// The object as compact JSON.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The object.
    pub fn to_json(&self) -> Map<String, Value> {
        serde_json::from_str(&self.0).unwrap_or_default() // checked when it was made
    }

    /// Takes an object; `None` when it is longer than [`Metadata::MAX_BYTES`] as text.
    pub fn new(object: &Map<String, Value>) -> Option<Self> {
        let text = serde_json::to_string(object).ok()?;
        (text.len() <= Self::MAX_BYTES).then_some(Self(text))
    }
}

impl FromStr for Metadata {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let object = serde_json::from_str::<Map<String, Value>>(text).ok();
        object.as_ref().and_then(Self::new).ok_or_else(|| {
            let text = "metadata is a JSON object of at most 4096 bytes";
            Error::new(ErrorKind::Argument, text)
        })
    }
}

/// As the object that it is.
impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({} B)", self.0.len())
    }
}

/// The names in a client certificate that TLS has checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertificateNames {
    /// The whole subject in the order of the certificate, such as `C=DE, O=Example\, Inc., CN=CP001`: values are escaped as in RFC 4514.
    pub subject: String,
    /// The organisation in the subject (O), if there is exactly one.
    pub organization: Option<String>,
    /// DNS names, URIs, e-mail addresses and IP addresses of the alternative names.
    pub sans: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_reads_back_from_its_record() {
        let addr: std::net::SocketAddr = "[2001:db8::1]:50000".parse().unwrap();
        let mut context = Context::new("/tenants/a%20b/devices/CP1/ws", addr.into());
        context.connected_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let parts = [("tenant", "a b"), ("id", "CP1")];
        context.parts = parts
            .map(|(n, v)| (n.into(), v.into()))
            .into_iter()
            .collect();
        assert!(!String::from_utf8_lossy(context.clone().record()).contains("route"));
        context.route = Some("north".into());
        context.subprotocol = Some("ocpp1.6".into());
        context.metadata = Some(r#"{"site":"é"}"#.parse().unwrap());
        context.headers = vec![("x-serial".into(), "1".into())];
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        context.trace = TraceContext::of([parent].into_iter(), ["a=b"].into_iter());
        assert!(context.trace.is_some());
        assert_eq!(
            Context::from_record(context.record()),
            Some(context.clone())
        );
        assert_eq!(Context::from_record(b"{}"), None);
        let printed = format!("{context:?}");
        assert!(
            !printed.contains('é') && printed.contains("x-serial"),
            "{printed}"
        );
    }

    #[test]
    fn metadata_is_an_object_of_some_bytes() {
        let parse = |text: &str| text.parse::<Metadata>().map(|m| m.as_str().to_owned()).ok();
        assert_eq!(parse(r#" { "a" : [1] } "#).as_deref(), Some(r#"{"a":[1]}"#));
        for bad in ["", "[]", "1", "null", "{", r#"{"a":1}x"#] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let long = |n: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(n - 8));
        assert!(parse(&long(4096)).is_some() && parse(&long(4097)).is_none());
    }
}
