//! The tables of the file: what is in them, and each change of them.

use std::ops::Bound;

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::{data_file::Fault, pure::kept::EntryId, types::ClientId};

pub(super) type Key = (&'static str, u64, u64);

/// By device and entry id: what [`write`] writes.
pub(super) const MESSAGES: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("messages");
/// By entry id, oldest first: whose it is.
const ORDER: TableDefinition<'_, (u64, u64), &str> = TableDefinition::new("order");
/// By device and name of a message: until when it is known, in unix milliseconds.
const NAMES: TableDefinition<'_, (&str, &str), u64> = TableDefinition::new("names");
/// The same by that time.
const NAME_ENDS: TableDefinition<'_, (u64, &str, &str), ()> = TableDefinition::new("name_ends");
/// `syncs`: written by each sync, so that it has something to write.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// One change of the tables.
#[derive(Clone)]
pub(super) enum Change {
    Put(ClientId, EntryId, Vec<u8>),
    Take(ClientId, EntryId),
    Name(ClientId, Box<str>, u64),
    Forget(u64, Box<str>, Box<str>),
}

impl Change {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(_, _, value) => value.len(),
            _ => 0,
        }
    }
}

/// The tables within one transaction.
pub(super) struct Tables<'a> {
    pub(super) messages: Table<'a, Key, &'static [u8]>,
    pub(super) order: Table<'a, (u64, u64), &'static str>,
    pub(super) names: Table<'a, (&'static str, &'static str), u64>,
    pub(super) name_ends: Table<'a, (u64, &'static str, &'static str), ()>,
}

impl<'a> Tables<'a> {
    pub(super) fn open(transaction: &'a WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            messages: transaction.open_table(MESSAGES)?,
            order: transaction.open_table(ORDER)?,
            names: transaction.open_table(NAMES)?,
            name_ends: transaction.open_table(NAME_ENDS)?,
        })
    }

    /// Done twice it is the same. Returns until when a message that it took was of use, and what it cost.
    pub(super) fn apply(&mut self, change: &Change) -> Result<Option<(u64, u64)>, Fault> {
        match change {
            Change::Put(client_id, id, value) => {
                let client_id = client_id.as_str();
                self.messages
                    .insert((client_id, id.ms, id.seq), value.as_slice())?;
                self.order.insert((id.ms, id.seq), client_id)?;
            }
            Change::Take(client_id, id) => {
                self.order.remove((id.ms, id.seq))?;
                let taken = self.messages.remove((client_id.as_str(), id.ms, id.seq))?;
                let Some(taken) = taken else { return Ok(None) };
                return Ok(Some((read(taken.value())?.0.until, cost(taken.value()))));
            }
            Change::Name(client_id, name, until) => {
                self.names.insert((client_id.as_str(), &**name), until)?;
                let by_end = (*until, client_id.as_str(), &**name);
                self.name_ends.insert(by_end, ())?;
            }
            Change::Forget(end, client_id, name) => {
                self.name_ends.remove((*end, &**client_id, &**name))?;
                let known = self.names.get((&**client_id, &**name))?;
                let is_known = known.is_some_and(|until| until.value() == *end);
                if is_known {
                    self.names.remove((&**client_id, &**name))?; // else it was given again
                }
            }
        }
        Ok(None)
    }
}

pub(super) type Range<'a> = (Bound<(&'a str, u64, u64)>, Bound<(&'a str, u64, u64)>);

/// The entries of a device behind one.
pub(super) fn after(client_id: &ClientId, id: EntryId) -> Range<'_> {
    let name = client_id.as_str();
    (
        Bound::Excluded((name, id.ms, id.seq)),
        Bound::Included((name, u64::MAX, u64::MAX)),
    )
}

pub(super) fn client_id(name: &str) -> Result<ClientId, Fault> {
    ClientId::new(name).ok_or_else(|| Fault::Corrupted("a client id in it cannot be read".into()))
}

/// What a message has beside its data.
pub(super) struct Head<'a> {
    /// Until when it is of use, in unix milliseconds; 0 when its publisher gave no time.
    pub(super) until: u64,
    pub(super) is_text: bool,
    pub(super) name: Option<&'a str>,
}

/// Kind, time, length of the name, name, data.
pub(super) fn write(head: &Head<'_>, data: &[u8]) -> Vec<u8> {
    let name = head.name.unwrap_or_default();
    let mut value = Vec::with_capacity(HEAD_BYTES + name.len() + data.len());
    value.push(u8::from(head.is_text));
    value.extend(head.until.to_le_bytes());
    value.push(name.len() as u8); // `Message::new` allows 128
    value.extend(name.as_bytes());
    value.extend(data);
    value
}

pub(super) fn read(value: &[u8]) -> Result<(Head<'_>, &[u8]), Fault> {
    let parts = || {
        let (kind, rest) = value.split_first()?;
        let (until, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (name, data) = rest.split_at_checked(usize::from(*length))?;
        let name = std::str::from_utf8(name).ok()?;
        let head = Head {
            until: u64::from_le_bytes(*until),
            is_text: match kind {
                0 => false,
                1 => true,
                _ => return None,
            },
            name: (!name.is_empty()).then_some(name),
        };
        Some((head, data))
    };
    parts().ok_or_else(|| Fault::Corrupted("a message in it cannot be read".into()))
}

/// What a message costs against the limits: as in an outbox, its length and 128 bytes.
pub(super) fn cost(value: &[u8]) -> u64 {
    (value.len().saturating_sub(HEAD_BYTES) + MESSAGE_BYTES) as u64
}

const HEAD_BYTES: usize = size_of::<u64>() + 2;
const MESSAGE_BYTES: usize = 128;
