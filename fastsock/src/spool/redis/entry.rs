//! One taken uplink as an entry of a stream: its client id (`c`) and the rest of it as bytes (`u`); no I/O.

use redis::Value;

use crate::{
    spool::record,
    types::{ClientId, Uplink},
};

/// The name Redis gave to an entry, such as `1700000000000-0`.
pub(super) type EntryId = String;

/// Before the first entry of a stream.
pub(super) const START: &str = "0-0";

/// An entry of a stream: its name, and what it holds if that is an uplink.
pub(super) type Entry = (EntryId, Option<Uplink>);

/// Names and values.
type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Adds client id, content and cost of an uplink to a command.
pub(super) fn write(uplink: &Uplink, command: &mut redis::Cmd) {
    let mut bytes = vec![0; record::len(uplink)];
    record::write(uplink, &mut bytes);
    command.arg(uplink.client_id.as_str()).arg(bytes);
    command.arg(uplink.payload.cost());
}

/// Reads the answer to an XREAD: the entries of each stream, by its key. Fields of a later version are passed over.
pub(super) fn streams(answer: Value) -> Vec<(Vec<u8>, Vec<Entry>)> {
    let streams = match answer {
        Value::Map(streams) => streams,
        Value::Array(streams) => streams.into_iter().filter_map(pair).collect(),
        _ => Vec::new(), // nothing came in time
    };
    let read = |(key, entries)| Some((bytes(key)?, entries_of(entries)));
    streams.into_iter().filter_map(read).collect()
}

/// Reads the answer to an XRANGE, each entry as its name and its fields.
fn range(answer: Value) -> Vec<(EntryId, Fields)> {
    let Value::Array(entries) = answer else {
        return Vec::new();
    };
    let read = |entry| {
        let (id, fields) = pair(entry)?;
        let id = String::from_utf8(bytes(id)?).ok()?;
        Some((id, fields_of(fields)))
    };
    entries.into_iter().filter_map(read).collect()
}

fn entries_of(answer: Value) -> Vec<Entry> {
    let entries = range(answer).into_iter();
    entries.map(|(id, fields)| (id, uplink(&fields))).collect()
}

fn uplink(fields: &[(Vec<u8>, Vec<u8>)]) -> Option<Uplink> {
    let client_id = ClientId::new(std::str::from_utf8(field(fields, b"c")?).ok()?)?;
    record::read(client_id, field(fields, b"u")?)
}

/// A field by its name.
fn field<'a>(fields: &'a [(Vec<u8>, Vec<u8>)], name: &[u8]) -> Option<&'a [u8]> {
    let found = fields.iter().find(|(n, _)| n == name);
    found.map(|(_, value)| &**value)
}

fn fields_of(answer: Value) -> Fields {
    let Value::Array(texts) = answer else {
        return Vec::new();
    };
    let mut texts = texts.into_iter().filter_map(bytes);
    let mut fields = Vec::new();
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        fields.push((name, value));
    }
    fields
}

fn pair(value: Value) -> Option<(Value, Value)> {
    let Value::Array(parts) = value else {
        return None;
    };
    let mut parts = parts.into_iter();
    Some((parts.next()?, parts.next()?))
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Payload, SessionId};

    fn text(bytes: impl Into<Vec<u8>>) -> Value {
        Value::BulkString(bytes.into())
    }

    fn answer(fields: Vec<Value>) -> Value {
        let entry = Value::Array(vec![text("1-0"), Value::Array(fields)]);
        Value::Map(vec![(text("key"), Value::Array(vec![entry]))])
    }

    #[test]
    fn an_uplink_comes_back_as_it_was() {
        let payload = Payload::binary(vec![0, 255]);
        let uplink = Uplink::new(ClientId::new("a b").unwrap(), SessionId(7), 3, payload);
        let mut command = redis::Cmd::new();
        write(&uplink, &mut command);
        let mut fields = vec![text("later"), text("x")];
        for (name, arg) in ["c", "u"].into_iter().zip(command.args_iter()) {
            let redis::Arg::Simple(value) = arg else {
                panic!("a value");
            };
            fields.extend([text(name), text(value)]);
        }
        let (key, mut entries) = streams(answer(fields)).remove(0);
        let (id, again) = entries.remove(0);
        let again = again.expect("an uplink");
        assert_eq!((&*key, &*id), (&b"key"[..], "1-0"));
        assert_eq!(
            (&again.client_id, again.id, &again.payload),
            (&uplink.client_id, uplink.id, &uplink.payload)
        );
    }

    #[test]
    fn what_is_no_uplink_is_none() {
        for fields in [
            vec![],
            vec![text("c"), text("a"), text("u"), text("nonsense")],
        ] {
            assert!(streams(answer(fields))[0].1[0].1.is_none());
        }
        assert!(streams(Value::Nil).is_empty());
    }
}
