//! JSON objects in which no name comes twice. Two programs may read another member of such an object each, and one of them
//! decides (RFC 7515 §4, RFC 7519 §4, RFC 8725 §2.4). No I/O.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// Reads an object, and nothing behind it; `None` too when a name comes twice in it.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    let Unique(members) = serde_json::from_slice(json).ok()?;
    serde_json::from_value(Value::Object(members)).ok()
}

/// The members of an object, each of which comes once.
struct Unique(Map<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Unique;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object in which no name comes twice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unique, A::Error> {
        let mut map = Map::new();
        while let Some((name, value)) = members.next_entry::<String, Value>()? {
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("a name comes twice"));
            }
        }
        Ok(Unique(map))
    }
}
