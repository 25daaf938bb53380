//! The file of the mailboxes: its tables, its transactions, and what the memory has of it.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use ahash::HashMap;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

use super::{
    super::{Bounds, Kept, Losses, Message, Owner, Visit},
    tables::{Change, Head, MESSAGES, META, Tables, after, client_id, cost, read, write},
};
use crate::{
    config::{Config, Fsync},
    data_file::DataFile,
    error::Result,
    pure::kept::{Entry, EntryId, Turn},
    stats::MailboxLost,
    types::{ClientId, MailboxState, Payload, SessionId, unix_ms},
};

pub(super) use crate::data_file::Fault;

/// The file, open or to be opened again.
pub(super) struct Store {
    file: DataFile,
    database: Option<Database>,
    bounds: Bounds,
    is_synced_each: bool,
    sync_interval: Duration,
    index: Index,
    /// Written and not synced yet. A fault takes it back, so it is kept to be written again.
    unsynced: Vec<Change>,
    /// Of messages among it.
    unsynced_bytes: usize,
    synced_at: Instant,
}

/// What the memory has of the mailboxes: how much is in each.
#[derive(Default)]
struct Index {
    boxes: HashMap<ClientId, Held>,
    messages: u64,
    bytes: u64,
    /// The last entry id that was given.
    last: EntryId,
}

#[derive(Default)]
struct Held {
    messages: u64,
    bytes: u64,
    /// The session that came last, and its epoch.
    owner: Option<(SessionId, u64)>,
}

impl Store {
    /// For the file in the data directory, not opened yet. Makes directory and file if they are not there.
    ///
    /// # Errors
    /// As [`DataFile::in_directory`].
    pub(super) fn in_directory(config: &Config) -> Result<Self> {
        let file = DataFile::in_directory(config, FILE_NAME, "mailbox")?;
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
        let is_synced_each = config.spool.fsync == Fsync::Always;
        Self {
            file,
            database: None,
            bounds: Bounds::new(&config.mailbox),
            is_synced_each,
            sync_interval: match is_synced_each {
                true => LAZY_TIME, // for removals only
                false => config.spool.fsync_interval,
            },
            index: Index::default(),
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            synced_at: Instant::now(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// The size of its file; 0 when that cannot be said.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// Opens it at start.
    ///
    /// # Errors
    /// As [`DataFile::open_first`].
    pub(super) fn open_first(&mut self) -> Result<()> {
        let file = self.file.clone();
        file.open_first(|| self.open())?;
        let Index {
            boxes, messages, ..
        } = &self.index;
        if *messages > 0 {
            let devices = boxes.len();
            tracing::info!(
                messages,
                devices,
                "the mailboxes have messages of an earlier run"
            );
        }
        Ok(())
    }

    /// What was not synced is in it as before, and still to be synced.
    fn open(&mut self) -> Result<(), Fault> {
        let database = self.file.open()?;
        let mut transaction = database.begin_write()?;
        if !self.unsynced.is_empty() {
            set_durability(&mut transaction, Durability::None)?;
        }
        let mut tables = Tables::open(&transaction)?;
        for change in &self.unsynced {
            tables.apply(change)?;
        }
        drop(tables);
        transaction.commit()?;
        let last = self.index.last;
        self.index = Index::read(&database)?;
        self.index.last = self.index.last.max(last);
        self.database = Some(database);
        Ok(())
    }

    /// Does something in one transaction; opens the file again if a fault has closed it. After a fault nothing of it is done, and
    /// [`Store::let_go`] is to follow. Returns what mailboxes have lost.
    pub(super) fn transact(
        &mut self,
        is_to_last: bool,
        work: impl FnOnce(&mut Work<'_>) -> Result<(), Fault>,
    ) -> Result<Losses, Fault> {
        if self.database.is_none() {
            self.open()?;
        }
        let database = self.database.as_ref().ok_or(Fault::DatabaseClosed)?;
        let mut transaction = database.begin_write()?;
        let (changes, lost) = {
            let mut on = Work {
                tables: Tables::open(&transaction)?,
                index: &mut self.index,
                bounds: &self.bounds,
                now: unix_ms(SystemTime::now()),
                changes: Vec::new(),
                lost: Vec::new(),
            };
            work(&mut on)?;
            (on.changes, on.lost)
        };
        if changes.is_empty() {
            transaction.abort()?;
            return Ok(lost);
        }
        let bytes = self.unsynced_bytes + changes.iter().map(Change::bytes).sum::<usize>();
        let is_synced = (is_to_last && self.is_synced_each) || bytes >= UNSYNCED_BYTES;
        if !is_synced {
            set_durability(&mut transaction, Durability::None)?;
        }
        transaction.commit()?;
        if is_synced {
            self.has_synced();
        } else {
            if self.unsynced.is_empty() {
                self.synced_at = Instant::now();
            }
            self.unsynced_bytes = bytes;
            self.unsynced.extend(changes);
        }
        Ok(lost)
    }

    /// When the next sync is due, if there is something to sync.
    pub(super) fn sync_at(&self) -> Option<Instant> {
        let has_some = !self.unsynced.is_empty() && self.database.is_some();
        has_some.then(|| self.synced_at + self.sync_interval)
    }

    /// Syncs if it is time.
    pub(super) fn keep_synced(&mut self) -> Result<(), Fault> {
        if self.sync_at().is_some_and(|at| at <= Instant::now()) {
            self.sync()?;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), Fault> {
        let database = self.database.as_ref().ok_or(Fault::DatabaseClosed)?;
        let transaction = database.begin_write()?;
        {
            let mut meta = transaction.open_table(META)?;
            let syncs = meta.get("syncs")?.map_or(0, |value| value.value());
            meta.insert("syncs", syncs + 1)?;
        }
        transaction.commit()?;
        self.has_synced();
        Ok(())
    }

    fn has_synced(&mut self) {
        self.unsynced.clear();
        self.unsynced_bytes = 0;
        self.synced_at = Instant::now();
    }

    /// Keeps room on the disk for [`Store::with_reserve`], as much as there is.
    pub(super) fn keep_reserve(&self) {
        self.file.keep_reserve();
    }

    /// Does something with the room that was kept, and syncs if there is room for all that is to be synced: returns whether.
    pub(super) fn with_reserve(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        self.file.release_reserve();
        let done = work(self);
        if self.unsynced.len() > PIECE {
            self.let_go(); // or one sync would take all of the room
        }
        let is_synced = done.is_ok() && self.sync_rest().is_ok();
        if !is_synced {
            self.let_go();
        }
        self.file.keep_reserve(); // or what waits would take it
        done.map(|()| is_synced)
    }

    /// Syncs if there is something to sync. Where a fault has closed the file, in pieces: each makes room for the next.
    pub(super) fn sync_rest(&mut self) -> Result<(), Fault> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        if self.database.is_some() {
            return self.sync();
        }
        let database = self.file.open()?;
        while !self.unsynced.is_empty() {
            let piece = self.unsynced.len().min(PIECE);
            let transaction = database.begin_write()?;
            let mut tables = Tables::open(&transaction)?;
            for change in &self.unsynced[..piece] {
                tables.apply(change)?;
            }
            drop(tables);
            transaction.commit()?;
            self.unsynced.drain(..piece);
        }
        self.has_synced();
        Ok(())
    }

    /// After a fault: redb wants the file opened anew.
    pub(super) fn let_go(&mut self) {
        self.database = None;
    }

    /// The last of it.
    pub(super) fn close(mut self) {
        let mut synced = self.sync_rest();
        if synced.is_err() {
            self.let_go();
            self.file.release_reserve();
            synced = self.sync_rest();
            self.let_go(); // it writes when it is closed
            self.file.keep_reserve();
        }
        if let Err(fault) = synced {
            tracing::error!(error = %fault, path = %self.path().display(), "the mailboxes could not be synced at the end");
        }
    }
}

fn set_durability(transaction: &mut WriteTransaction, durability: Durability) -> Result<(), Fault> {
    let set = transaction.set_durability(durability);
    set.map_err(|e| Fault::Corrupted(e.to_string()))
}

impl Index {
    fn read(database: &Database) -> Result<Self, Fault> {
        let mut index = Self::default();
        let transaction = database.begin_read()?;
        for entry in transaction.open_table(MESSAGES)?.iter()? {
            let (key, value) = entry?;
            let (name, ms, seq) = key.value();
            index.last = index.last.max(EntryId { ms, seq });
            index.add(&client_id(name)?, cost(value.value()));
        }
        Ok(index)
    }

    fn add(&mut self, client_id: &ClientId, bytes: u64) {
        if !self.boxes.contains_key(client_id) {
            self.boxes.insert(client_id.clone(), Held::default());
        }
        if let Some(held) = self.boxes.get_mut(client_id) {
            held.messages += 1;
            held.bytes += bytes;
        }
        self.messages += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, client_id: &ClientId, bytes: u64) {
        let Some(held) = self.boxes.get_mut(client_id) else {
            return;
        };
        held.messages -= 1;
        held.bytes -= bytes;
        if held.messages == 0 {
            self.boxes.remove(client_id);
        }
        self.messages -= 1;
        self.bytes -= bytes;
    }

    /// How many messages a mailbox holds, and what they cost.
    fn held(&self, client_id: &ClientId) -> (u64, u64) {
        let held = self.boxes.get(client_id);
        held.map_or((0, 0), |held| (held.messages, held.bytes))
    }

    /// The id of a new entry: later than all before, whatever the clock says.
    fn next(&mut self, now: u64) -> EntryId {
        let EntryId { ms, seq } = self.last;
        self.last = match now > ms {
            true => EntryId { ms: now, seq: 0 },
            false => EntryId { ms, seq: seq + 1 },
        };
        self.last
    }
}

/// What a transaction can do.
pub(super) struct Work<'a> {
    tables: Tables<'a>,
    index: &'a mut Index,
    bounds: &'a Bounds,
    now: u64,
    changes: Vec<Change>,
    /// Told to whoever asks next, whatever the device.
    lost: Losses,
}

impl Work<'_> {
    /// As [`Mailbox::keep`](super::Mailbox::keep).
    pub(super) fn keep(&mut self, client_id: &ClientId, message: &Message) -> Result<Kept, Fault> {
        if let Some(name) = &message.name {
            let known = self.tables.names.get((client_id.as_str(), &**name))?;
            if known.is_some_and(|until| until.value() > self.now) {
                return Ok(Kept::new(name.clone(), true));
            }
        }
        let id = self.index.next(self.now);
        let until = message.ttl.map(|ttl| self.now.saturating_add(ms(ttl)));
        let head = Head {
            until: until.unwrap_or(0),
            is_text: message.payload.is_text(),
            name: message.name.as_deref(),
        };
        let value = write(&head, message.payload.as_bytes());
        self.index.add(client_id, cost(&value));
        self.change(Change::Put(client_id.clone(), id, value))?;
        if let Some(name) = &message.name {
            let until = self.now.saturating_add(ms(self.bounds.id_window));
            let name = name.as_str().into();
            self.change(Change::Name(client_id.clone(), name, until))?;
        }
        self.keep_within(client_id)?;
        self.keep_all_within()?;
        let id = message.name.clone().unwrap_or_else(|| id.to_string());
        Ok(Kept::new(id, false))
    }

    /// As [`Mailbox::visit`](super::Mailbox::visit).
    pub(super) fn visit(&mut self, owner: &Owner, turn: &Turn) -> Result<Visit, Fault> {
        let client_id = &owner.client_id;
        let Some(held) = self.index.boxes.get_mut(client_id) else {
            let visit = Visit {
                is_empty: true,
                ..Visit::default()
            };
            return Ok(visit);
        };
        if let Some((session_id, epoch)) = held.owner
            && session_id != owner.session_id
            && epoch > owner.epoch
            && epoch < self.now + CLOCK_SLACK_MS
        {
            let visit = Visit {
                is_fenced: true,
                ..Visit::default()
            };
            return Ok(visit);
        }
        held.owner = Some((owner.session_id, owner.epoch));
        for id in &turn.remove {
            self.take(client_id, *id)?;
        }
        let (entries, expired) = self.read(client_id, turn)?;
        let last = entries.iter().map(|entry| entry.id).chain(expired.clone());
        let last = last.fold(turn.cursor, EntryId::max);
        let has_more = {
            let mut rest = self.tables.messages.range(after(client_id, last))?;
            rest.next().transpose()?.is_some()
        };
        let mut lost = MailboxLost::default();
        for id in expired {
            lost.expired += u64::from(self.take(client_id, id)?.is_some());
        }
        Ok(Visit {
            is_fenced: false,
            entries,
            has_more,
            is_empty: self.index.held(client_id).0 == 0,
            lost,
        })
    }

    /// What there is room for, and what of it is of no use any more.
    fn read(&self, client_id: &ClientId, turn: &Turn) -> Result<(Vec<Entry>, Vec<EntryId>), Fault> {
        let (mut entries, mut expired, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut found = self.tables.messages.range(after(client_id, turn.cursor))?;
        while entries.len() < turn.messages && (entries.is_empty() || bytes < turn.bytes) {
            let Some((key, value)) = found.next().transpose()? else {
                break;
            };
            let (_, ms, seq) = key.value();
            let id = EntryId { ms, seq };
            let (head, data) = read(value.value())?;
            if self.is_too_old(id, head.until) {
                expired.push(id);
                continue;
            }
            bytes += data.len();
            entries.push(Entry {
                id,
                name: head.name.map(Into::into),
                payload: match head.is_text {
                    true => Payload::text_lossy(data.to_vec()),
                    false => Payload::binary(data.to_vec()),
                },
            });
        }
        Ok((entries, expired))
    }

    /// Removes some of what is too old, or beyond the limits. Returns whether there may be more.
    pub(super) fn sweep(&mut self) -> Result<bool, Fault> {
        for _ in 0..SWEPT {
            let Some((id, client_id)) = self.oldest()? else {
                break;
            };
            if !self.is_too_old(id, 0) {
                self.keep_all_within()?;
                return self.forget_names();
            }
            self.lose(&client_id, id)?;
        }
        let has_more = self.index.messages > 0;
        Ok(self.forget_names()? || has_more)
    }

    /// What a mailbox holds.
    pub(super) fn state(&mut self, client_id: &ClientId) -> Result<MailboxState, Fault> {
        let (messages, bytes) = self.index.held(client_id);
        Ok(MailboxState {
            messages,
            bytes,
            oldest: self.first(client_id)?.map(EntryId::time),
        })
    }

    /// Empties a mailbox. Returns how many messages it held.
    pub(super) fn clear(&mut self, client_id: &ClientId) -> Result<u64, Fault> {
        let mut removed = 0;
        while let Some(id) = self.first(client_id)? {
            self.take(client_id, id)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Whatever its size, the newest message stays.
    fn keep_within(&mut self, client_id: &ClientId) -> Result<(), Fault> {
        let bounds = self.bounds;
        loop {
            let (messages, bytes) = self.index.held(client_id);
            let is_over = messages > bounds.messages as u64 || bytes > bounds.bytes as u64;
            let first = match is_over && messages > 1 {
                true => self.first(client_id)?,
                false => None,
            };
            let Some(first) = first else { return Ok(()) };
            self.lose(client_id, first)?;
        }
    }

    fn keep_all_within(&mut self) -> Result<(), Fault> {
        let is_over = |held: u64, most: u64| most > 0 && held > most;
        loop {
            let Index {
                messages, bytes, ..
            } = *self.index;
            let bounds = self.bounds;
            let is_over =
                is_over(messages, bounds.total_messages) || is_over(bytes, bounds.total_bytes);
            let oldest = match is_over && messages > 1 {
                true => self.oldest()?,
                false => None,
            };
            let Some((id, client_id)) = oldest else {
                return Ok(());
            };
            self.lose(&client_id, id)?;
        }
    }

    /// Forgets some names whose time is over. Returns whether there may be more.
    fn forget_names(&mut self) -> Result<bool, Fault> {
        for _ in 0..SWEPT {
            let Some((key, _)) = self.tables.name_ends.first()? else {
                return Ok(false);
            };
            let (end, client_id, name) = key.value();
            if end > self.now {
                return Ok(false);
            }
            let forget = Change::Forget(end, client_id.into(), name.into());
            drop(key);
            self.change(forget)?;
        }
        Ok(true)
    }

    /// The oldest message is lost, as too old or to make room.
    fn lose(&mut self, client_id: &ClientId, id: EntryId) -> Result<(), Fault> {
        if let Some(until) = self.take(client_id, id)? {
            let mut lost = MailboxLost::default();
            match self.is_too_old(id, until) {
                true => lost.expired += 1,
                false => lost.full += 1,
            }
            match self.lost.last_mut() {
                Some((last, before)) if last == client_id => {
                    before.full += lost.full;
                    before.expired += lost.expired;
                }
                _ => self.lost.push((client_id.clone(), lost)),
            }
        }
        Ok(())
    }

    /// Takes a message out. Returns until when it was of use; `None` when it is not there.
    fn take(&mut self, client_id: &ClientId, id: EntryId) -> Result<Option<u64>, Fault> {
        let change = Change::Take(client_id.clone(), id);
        let Some((until, cost)) = self.tables.apply(&change)? else {
            return Ok(None);
        };
        self.index.remove(client_id, cost);
        self.changes.push(change);
        Ok(Some(until))
    }

    fn change(&mut self, change: Change) -> Result<(), Fault> {
        self.tables.apply(&change)?;
        self.changes.push(change);
        Ok(())
    }

    /// `until`: 0 when its publisher gave no time.
    fn is_too_old(&self, id: EntryId, until: u64) -> bool {
        let end = id.ms.saturating_add(ms(self.bounds.age));
        end < self.now || (until > 0 && until <= self.now)
    }

    fn first(&self, client_id: &ClientId) -> Result<Option<EntryId>, Fault> {
        let none = EntryId::default();
        let mut found = self.tables.messages.range(after(client_id, none))?;
        let first = found.next().transpose()?;
        Ok(first.map(|(key, _)| {
            let (_, ms, seq) = key.value();
            EntryId { ms, seq }
        }))
    }

    fn oldest(&self) -> Result<Option<(EntryId, ClientId)>, Fault> {
        let Some((key, name)) = self.tables.order.first()? else {
            return Ok(None);
        };
        let (ms, seq) = key.value();
        Ok(Some((EntryId { ms, seq }, client_id(name.value())?)))
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const FILE_NAME: &str = "mailbox.redb";
/// So much is synced before anyone is told that it was taken: what a full disk does not take must fit into the reserve.
const UNSYNCED_BYTES: usize = 64 << 10;
/// Changes that go in one transaction on a full disk.
const PIECE: usize = 8;
/// How long what nobody waits for stays unsynced.
const LAZY_TIME: Duration = Duration::from_millis(100);
/// Messages, and names, that go in one transaction of a sweep.
const SWEPT: usize = 1000;
/// An epoch that is further ahead is from before the clock was set back.
const CLOCK_SLACK_MS: u64 = 2000;
