//! The file of the disk spool: its tables, its transactions, and when they are synced.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableHandle,
    WriteTransaction,
};
use uuid::Uuid;

use super::{
    super::{Backlog, Place, Record, record},
    Answer, Found,
};
use crate::{
    config::{Config, Fsync},
    data_file::DataFile,
    error::{Error, Result},
    types::{ClientId, DeadLetter, Uplink},
};

pub(super) use crate::data_file::Fault;

/// By device and number: what [`record::write`] writes.
const UPLINKS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("uplinks");
/// By id: what [`record::write_letter`] writes.
const LETTERS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("dead_letters");
/// `syncs`: written by each sync, so that it has something to write.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The file, open or to be opened again.
pub(super) struct Store {
    file: DataFile,
    database: Option<Database>,
    bounds: Bounds,
    fsync: Fsync,
    sync_interval: Duration,
    /// With `interval`: written and not synced yet. A fault takes it back, so it is kept to be written again.
    unsynced: Vec<Op>,
    /// Whether a fault took that back, and it is not written again yet.
    is_behind: bool,
    synced_at: Instant,
    letters: u64,
    letter_bytes: u64,
}

/// Of dead letters.
struct Bounds {
    letters: u64,
    letter_bytes: u64,
    age: Duration,
}

/// One change.
pub(super) enum Op {
    Append(Record),
    Remove(Place),
    Bury(u64, Box<DeadLetter>),
    Replay(Uuid, Answer<bool>),
    DropLetter(Uuid, Answer<bool>),
    /// Drops the dead letters that are too old.
    Expire,
}

/// What a transaction did beside what it was told.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) replayed: Vec<Record>,
    /// For each `Replay` and `DropLetter` in order: whether there was such a letter.
    pub(super) found: Vec<bool>,
    /// How many letters there are, if that changed.
    pub(super) letters: Option<u64>,
    pub(super) dropped: u64,
}

impl Store {
    /// For the file in `config.spool.data_dir`, not opened yet. Makes directory and file if they are not there.
    ///
    /// # Errors
    /// `Io`, naming the setting and the path.
    pub(super) fn in_directory(config: &Config) -> Result<Self> {
        let file = DataFile::in_directory(config, FILE_NAME, "spool")?;
        Ok(Self::new(config, file))
    }

    /// Opens it and lets go of it. Where there is none yet, only finds out whether one could be made.
    ///
    /// # Errors
    /// As [`Store::in_directory`] and [`Store::open_first`].
    pub(super) fn check(config: &Config) -> Result<()> {
        match DataFile::found(config, FILE_NAME)? {
            true => Self::in_directory(config)?.open_first(),
            false => Ok(()),
        }
    }

    pub(super) fn new(config: &Config, file: DataFile) -> Self {
        Self {
            file,
            database: None,
            bounds: Bounds {
                letters: config.spool.dead_letters_max as u64,
                letter_bytes: config.spool.max_bytes as u64,
                age: config.spool.dead_letters_max_age,
            },
            fsync: config.spool.fsync,
            sync_interval: config.spool.fsync_interval,
            unsynced: Vec::new(),
            is_behind: false,
            synced_at: Instant::now(),
            letters: 0,
            letter_bytes: 0,
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Opens it at start.
    ///
    /// # Errors
    /// As [`DataFile::open_first`].
    pub(super) fn open_first(&mut self) -> Result<()> {
        let file = self.file.clone();
        file.open_first(|| self.open())
    }

    /// What to tell of a file that is no spool, or a broken one.
    pub(super) fn unreadable(&self, fault: Fault) -> Error {
        self.file.unreadable(fault)
    }

    fn open(&mut self) -> Result<(), Fault> {
        let database = self.file.open()?;
        if !has_tables(&database)? {
            let transaction = database.begin_write()?;
            transaction.open_table(UPLINKS)?;
            transaction.open_table(META)?;
            transaction.open_table(LETTERS)?;
            transaction.commit()?;
        }
        (self.letters, self.letter_bytes) = (0, 0);
        for entry in database.begin_read()?.open_table(LETTERS)?.iter()? {
            self.letters += 1;
            self.letter_bytes += entry?.1.value().len() as u64;
        }
        self.database = Some(database);
        Ok(())
    }

    /// Looks at all there is, as at start.
    pub(super) fn found(&self) -> Result<Found, Fault> {
        let mut backlog: Vec<Backlog> = Vec::new();
        let mut next_number = 0;
        let transaction = self.database()?.begin_read()?;
        for entry in transaction.open_table(UPLINKS)?.iter()? {
            let (key, value) = entry?;
            let (client_id, number) = key.value();
            next_number = next_number.max(number + 1);
            let uplink = read(client_id, value.value())?;
            match backlog.last_mut() {
                Some(last) if last.client_id.as_str() == client_id => {
                    last.messages += 1;
                    last.bytes += uplink.payload.cost();
                }
                _ => backlog.push(Backlog {
                    client_id: uplink.client_id.clone(),
                    messages: 1,
                    bytes: uplink.payload.cost(),
                }),
            }
        }
        Ok(Found {
            backlog,
            next_number,
            letters: self.letters,
        })
    }

    /// Does all of it in one transaction; opens the file again if a fault has closed it. After a fault nothing of it is done,
    /// as far as one can know; done twice it is the same.
    pub(super) fn write(
        &mut self,
        ops: &[Op],
        reserve: &dyn Fn() -> u64,
    ) -> Result<Outcome, Fault> {
        self.reopen()?;
        if self.is_behind {
            let unsynced = std::mem::take(&mut self.unsynced);
            let again = self.transact(&unsynced, reserve, Durability::Immediate);
            self.unsynced = unsynced;
            again?;
            self.unsynced.clear();
            self.is_behind = false;
            self.synced_at = Instant::now();
        }
        if ops.is_empty() {
            return Ok(Outcome::default());
        }
        if self.fsync != Fsync::Interval {
            return self.transact(ops, reserve, Durability::Immediate);
        }
        let outcome = self.transact(ops, reserve, Durability::None)?;
        if self.unsynced.is_empty() {
            self.synced_at = Instant::now();
        }
        self.unsynced.extend(ops.iter().filter_map(Op::again));
        let replayed = outcome.replayed.iter().cloned().map(Op::Append);
        self.unsynced.extend(replayed);
        Ok(outcome)
    }

    /// Does nothing but these removals, and those that a fault took back, though others were to be written before them: a full disk
    /// takes them when it takes nothing more. Returns whether there were any.
    pub(super) fn make_room(&mut self, removals: &[Op]) -> Result<bool, Fault> {
        self.reopen()?;
        let is_removal = |op: &Op| matches!(op, Op::Remove(_));
        let behind = match self.is_behind {
            true => std::mem::take(&mut self.unsynced),
            false => Vec::new(),
        };
        let (again, behind) = behind.into_iter().partition::<Vec<_>, _>(is_removal);
        let mut all: Vec<_> = removals
            .iter()
            .chain(&again)
            .filter_map(Op::again)
            .collect();
        all.retain(is_removal);
        // Appended later, they would be there for good.
        let removed: HashSet<_> = all.iter().filter_map(Op::removed).collect();
        self.unsynced
            .extend(behind.into_iter().filter(|op| match op {
                Op::Append(record) => !removed.contains(&record.place()),
                _ => true,
            }));
        if all.is_empty() {
            return Ok(false);
        }
        self.file.release_reserve();
        let done = self.transact(&all, &|| 0, Durability::Immediate);
        self.file.keep_reserve(); // or what waits would take it
        if done.is_err() {
            self.unsynced.extend(again);
        }
        self.is_behind &= !self.unsynced.is_empty();
        done.map(|_| true)
    }

    /// Keeps room on the disk for [`Store::make_room`], as much as there is.
    pub(super) fn keep_reserve(&self) {
        self.file.keep_reserve();
    }

    /// Opens the file if a fault has closed it.
    pub(super) fn reopen(&mut self) -> Result<(), Fault> {
        match self.database {
            Some(_) => Ok(()),
            None => self.open(),
        }
    }

    /// Whether each transaction is synced.
    pub(super) fn syncs_each(&self) -> bool {
        self.fsync == Fsync::Always
    }

    /// With `interval`: when the next sync is due, if there is something to sync.
    pub(super) fn sync_at(&self) -> Option<Instant> {
        (!self.unsynced.is_empty()).then(|| self.synced_at + self.sync_interval)
    }

    /// With `interval`: syncs if it is time.
    pub(super) fn keep_synced(&mut self) -> Result<(), Fault> {
        if self.sync_at().is_some_and(|at| at <= Instant::now()) {
            self.sync()?;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), Fault> {
        self.transact(&[], &|| 0, Durability::Immediate)?;
        self.unsynced.clear();
        self.synced_at = Instant::now();
        Ok(())
    }

    /// After a fault: redb wants the file opened anew.
    pub(super) fn let_go(&mut self) {
        self.database = None;
        self.is_behind = !self.unsynced.is_empty();
    }

    /// The last of it.
    pub(super) fn close(mut self) {
        if self.database.is_none() || self.unsynced.is_empty() {
            return;
        }
        let mut written = match self.is_behind {
            true => self.write(&[], &|| 0).map(drop),
            false => self.sync(),
        };
        if written.is_err() {
            self.let_go();
            self.file.release_reserve();
            written = self.write(&[], &|| 0).map(drop);
            self.file.keep_reserve();
        }
        if let Err(fault) = written {
            tracing::error!(error = %fault, path = %self.path().display(), "the spool could not be synced at the end");
        }
    }

    /// The size of its file; 0 when that cannot be said.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file.bytes()
    }

    pub(super) fn has_letters(&self) -> bool {
        self.letters > 0
    }

    /// A device's uplinks above `after` until they cost as much as `cost`, without those that `removals` remove.
    pub(super) fn load(
        &self,
        client_id: &ClientId,
        after: Option<u64>,
        cost: usize,
        removals: &[Op],
    ) -> Result<Vec<Record>, Fault> {
        let transaction = self.database()?.begin_read()?;
        let table = transaction.open_table(UPLINKS)?;
        let first = match after {
            Some(number) => Bound::Excluded((client_id.as_str(), number)),
            None => Bound::Included((client_id.as_str(), 0)),
        };
        let last = Bound::Included((client_id.as_str(), u64::MAX));
        let behind: &[Op] = if self.is_behind { &self.unsynced } else { &[] };
        let removed = removals.iter().chain(behind).filter_map(Op::removed);
        let removed = removed.filter(|place| place.client_id == *client_id);
        let removed: HashSet<_> = removed.map(|place| place.number).collect();
        // What the file lost with the fault is as good as in it.
        let mut waiting: BTreeMap<_, _> = behind
            .iter()
            .filter_map(|op| match op {
                Op::Append(record) if record.uplink.client_id == *client_id => Some(record),
                _ => None,
            })
            .map(|record| (record.number, record))
            .filter(|(number, _)| after.is_none_or(|after| *number > after))
            .filter(|(number, _)| !removed.contains(number))
            .collect();
        let (mut records, mut sum) = (Vec::new(), 0);
        let mut take = |record: Record| {
            sum += record.uplink.payload.cost();
            records.push(record);
            sum >= cost
        };
        for entry in table.range((first, last))? {
            let (key, value) = entry?;
            let number = key.value().1;
            while let Some(first) = waiting.first_entry().filter(|e| *e.key() <= number) {
                let record = first.remove();
                if record.number < number && take(record.clone()) {
                    return Ok(records);
                }
            }
            let uplink = read(client_id.as_str(), value.value())?;
            if !removed.contains(&number) && take(Record { number, uplink }) {
                return Ok(records);
            }
        }
        for record in waiting.into_values() {
            if take(record.clone()) {
                break;
            }
        }
        Ok(records)
    }

    pub(super) fn letters(
        &self,
        after: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, Fault> {
        let transaction = self.database()?.begin_read()?;
        let table = transaction.open_table(LETTERS)?;
        let first = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.into_bytes()));
        table
            .range((first, Bound::Unbounded))?
            .take(limit)
            .map(|entry| read_letter(entry?.1.value()))
            .collect()
    }

    pub(super) fn letter(&self, id: Uuid) -> Result<Option<DeadLetter>, Fault> {
        let transaction = self.database()?.begin_read()?;
        let table = transaction.open_table(LETTERS)?;
        let entry = table.get(id.into_bytes())?;
        entry.map(|value| read_letter(value.value())).transpose()
    }

    fn database(&self) -> Result<&Database, Fault> {
        self.database.as_ref().ok_or(Fault::DatabaseClosed)
    }

    fn transact(
        &mut self,
        ops: &[Op],
        reserve: &dyn Fn() -> u64,
        durability: Durability,
    ) -> Result<Outcome, Fault> {
        let mut transaction = self.database()?.begin_write()?;
        transaction
            .set_durability(durability)
            .map_err(|e| Fault::Corrupted(e.to_string()))?;
        let mut letters = Letters {
            count: self.letters,
            bytes: self.letter_bytes,
        };
        let outcome = apply(&transaction, ops, reserve, &self.bounds, &mut letters)?;
        if matches!(durability, Durability::Immediate) && self.fsync == Fsync::Interval {
            let mut meta = transaction.open_table(META)?;
            let syncs = meta.get("syncs")?.map_or(0, |value| value.value());
            meta.insert("syncs", syncs + 1)?;
        }
        transaction.commit()?;
        (self.letters, self.letter_bytes) = (letters.count, letters.bytes);
        Ok(outcome)
    }
}

impl Op {
    /// The same once more, for when the file is opened again; what was asked has been answered.
    fn again(&self) -> Option<Self> {
        match self {
            Self::Append(record) => Some(Self::Append(record.clone())),
            Self::Remove(place) => Some(Self::Remove(place.clone())),
            Self::Bury(number, letter) => Some(Self::Bury(*number, letter.clone())),
            Self::Replay(id, _) | Self::DropLetter(id, _) => {
                Some(Self::DropLetter(*id, tokio::sync::oneshot::channel().0))
            }
            Self::Expire => None,
        }
    }

    /// The uplink that is not to be delivered any more.
    pub(super) fn removed(&self) -> Option<Place> {
        match self {
            Self::Remove(place) => Some(place.clone()),
            Self::Bury(number, letter) => Some(Place {
                client_id: letter.uplink.client_id.clone(),
                number: *number,
            }),
            _ => None,
        }
    }
}

/// Whether a file is one of ours already. To find that out nothing is written: a full disk would not have it, and what it holds can be
/// delivered all the same.
fn has_tables(database: &Database) -> Result<bool, Fault> {
    let transaction = database.begin_read()?;
    let tables = transaction.list_tables()?;
    let names: Vec<_> = tables.map(|table| table.name().to_owned()).collect();
    let needed = [UPLINKS.name(), LETTERS.name(), META.name()];
    Ok(needed
        .iter()
        .all(|needed| names.iter().any(|name| name == needed)))
}

struct Letters {
    count: u64,
    bytes: u64,
}

/// The changes of one transaction.
fn apply(
    transaction: &WriteTransaction,
    ops: &[Op],
    reserve: &dyn Fn() -> u64,
    bounds: &Bounds,
    letters: &mut Letters,
) -> Result<Outcome, Fault> {
    let mut outcome = Outcome::default();
    let mut uplinks = transaction.open_table(UPLINKS)?;
    let mut dead = None; // most transactions have nothing to do with it
    for op in ops {
        match op {
            Op::Append(record) => insert(&mut uplinks, record)?,
            Op::Remove(place) => {
                uplinks.remove((place.client_id.as_str(), place.number))?;
            }
            op => {
                let dead = match &mut dead {
                    Some(table) => table,
                    none => none.insert(transaction.open_table(LETTERS)?),
                };
                let before = letters.count;
                match op {
                    Op::Bury(number, letter) => {
                        let client_id = letter.uplink.client_id.as_str();
                        uplinks.remove((client_id, *number))?;
                        let bytes = record::write_letter(letter);
                        take_letter(dead, letter.uplink.id, letters)?; // written twice, it is one
                        letters.count += 1;
                        letters.bytes += bytes.len() as u64;
                        dead.insert(letter.uplink.id.into_bytes(), bytes.as_slice())?;
                        while letters.count > bounds.letters
                            || letters.bytes > bounds.letter_bytes && letters.count > 0
                        {
                            let first = dead.first()?.map(|(key, _)| Uuid::from_bytes(key.value()));
                            let Some(first) = first else { break };
                            take_letter(dead, first, letters)?;
                            outcome.dropped += 1;
                        }
                    }
                    Op::Replay(id, _) => {
                        let letter = take_letter(dead, *id, letters)?;
                        outcome.found.push(letter.is_some());
                        if let Some(DeadLetter { mut uplink, .. }) = letter {
                            uplink.replayed_at = Some(SystemTime::now());
                            let number = reserve();
                            let replayed = Record { number, uplink };
                            insert(&mut uplinks, &replayed)?;
                            outcome.replayed.push(replayed);
                        }
                    }
                    Op::DropLetter(id, _) => {
                        let letter = take_letter(dead, *id, letters)?;
                        outcome.found.push(letter.is_some());
                        outcome.dropped += u64::from(letter.is_some());
                    }
                    _ => {
                        for id in too_old(dead, bounds.age)? {
                            take_letter(dead, id, letters)?;
                            outcome.dropped += 1;
                        }
                    }
                }
                if letters.count != before || outcome.dropped > 0 {
                    outcome.letters = Some(letters.count);
                }
            }
        }
    }
    Ok(outcome)
}

fn insert(uplinks: &mut redb::Table<'_, (&str, u64), &[u8]>, record: &Record) -> Result<(), Fault> {
    let key = (record.uplink.client_id.as_str(), record.number);
    let mut value = uplinks.insert_reserve(key, record::len(&record.uplink))?;
    record::write(&record.uplink, value.as_mut());
    Ok(())
}

fn take_letter(
    dead: &mut redb::Table<'_, [u8; 16], &[u8]>,
    id: Uuid,
    letters: &mut Letters,
) -> Result<Option<DeadLetter>, Fault> {
    let Some(value) = dead.remove(id.into_bytes())? else {
        return Ok(None);
    };
    letters.count -= 1;
    letters.bytes -= value.value().len() as u64;
    read_letter(value.value()).map(Some)
}

fn too_old(dead: &redb::Table<'_, [u8; 16], &[u8]>, age: Duration) -> Result<Vec<Uuid>, Fault> {
    let now = SystemTime::now();
    let mut ids = Vec::new();
    for entry in dead.iter()? {
        let letter = read_letter(entry?.1.value())?;
        if now.duration_since(letter.given_up_at).unwrap_or_default() > age {
            ids.push(letter.uplink.id);
        }
    }
    Ok(ids)
}

fn read(client_id: &str, bytes: &[u8]) -> Result<Uplink, Fault> {
    ClientId::new(client_id)
        .and_then(|client_id| record::read(client_id, bytes))
        .ok_or_else(|| Fault::Corrupted("a message in it cannot be read".into()))
}

fn read_letter(bytes: &[u8]) -> Result<DeadLetter, Fault> {
    record::read_letter(bytes)
        .ok_or_else(|| Fault::Corrupted("a dead letter in it cannot be read".into()))
}

const FILE_NAME: &str = "spool.redb";
