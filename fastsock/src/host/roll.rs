//! Who is here, in a file of the data directory: what a gateway without Redis tells of after it was killed.
//!
//! Lines are only added: one for each session that begins, one for each of which nothing is left to tell. A thread writes them, so
//! no device waits for a disk. Nothing is synced: what the process has written outlives its end, but not that of the machine. When
//! most of the file is history, the thread writes it anew.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Write},
    mem,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    broker::lost::Receipt,
    locks::{Condvar, Mutex},
    tasks::Tasks,
    types::{ClientId, SessionId},
};

/// The file, as whoever adds to it sees it.
pub(crate) struct Roll {
    queued: Mutex<Queued>,
    has_queued: Condvar,
}

#[derive(Default)]
struct Queued {
    text: Vec<u8>,
    lines: usize,
    /// Receipts that nobody has settled yet.
    open: usize,
    is_over: bool,
    /// Nothing is written any more: the file cannot be, or the disk hangs.
    is_given_up: bool,
}

/// A session that began and of which it was not told that it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) client_id: ClientId,
    pub(crate) session_id: SessionId,
    pub(crate) epoch: u64,
    /// Id of the gateway that had it.
    pub(crate) node: String,
}

/// A line of the file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// Node, session, epoch, client id.
    Came(String, u64, u64, String),
    /// Epoch, which no two sessions of a device share, and client id.
    Over(u64, String),
}

impl Roll {
    /// Begins to write the file in a directory. `found` is called by the thread with what it finds there, unless that cannot be read.
    ///
    /// # Errors
    /// What the system says when it makes no more threads.
    pub(crate) fn start(
        directory: &Path,
        tasks: &Tasks,
        found: impl FnOnce(Vec<Record>) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let roll = Arc::new(Self {
            queued: Mutex::default(),
            has_queued: Condvar::new(),
        });
        let (of_thread, directory) = (Arc::clone(&roll), directory.to_owned());
        tasks.spawn_thread("fastsock-roll", move || {
            if let Err(error) = of_thread.run(&directory, found) {
                of_thread.give_up();
                tracing::warn!(
                    name: "roll_error", %error, directory = %directory.display(),
                    "FASTSOCK_DATA_DIR: who is here is not noted; a gateway that is killed will not tell of its devices"
                );
            }
        })?;
        Ok(roll)
    }

    /// A session began.
    pub(crate) fn came(&self, record: Record) {
        self.add(&Line::Came(
            record.node,
            record.session_id.0,
            record.epoch,
            record.client_id.to_string(),
        ));
    }

    /// Nothing is left to tell of a session.
    pub(crate) fn is_over(&self, client_id: &ClientId, epoch: u64) {
        self.add(&Line::Over(epoch, client_id.to_string()));
    }

    /// Notes that once the end of a session was told.
    pub(crate) fn receipt(self: &Arc<Self>, client_id: &ClientId, epoch: u64) -> Receipt {
        let (roll, client_id): (Weak<Self>, _) = (Arc::downgrade(self), client_id.clone());
        self.queued.lock().open += 1;
        Receipt::new(move |is_told| {
            let Some(roll) = roll.upgrade() else {
                return;
            };
            if is_told {
                roll.is_over(&client_id, epoch);
            }
            roll.queued.lock().open -= 1;
            roll.has_queued.notify_one();
        })
    }

    /// Writes what there is once every receipt is settled, and then no more.
    pub(crate) fn end(&self) {
        self.queued.lock().is_over = true;
        self.has_queued.notify_one();
    }

    fn add(&self, line: &Line) {
        let mut queued = self.queued.lock();
        if queued.is_given_up {
            return;
        }
        if queued.text.len() > MOST_BYTES {
            drop(queued);
            self.give_up();
            tracing::warn!(name: "roll_error", "FASTSOCK_DATA_DIR takes nothing; who is here is no longer noted");
            return;
        }
        let was_empty = queued.text.is_empty();
        write(&mut queued.text, line);
        queued.lines += 1;
        if was_empty {
            self.has_queued.notify_one();
        }
    }

    fn give_up(&self) {
        let mut queued = self.queued.lock();
        queued.is_given_up = true;
        queued.text = Vec::new();
    }

    fn run(&self, directory: &Path, found: impl FnOnce(Vec<Record>)) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let _lock = lock(&directory.join(LOCK_NAME))?;
        let (mut file, records) = RollFile::open(directory.join(FILE_NAME))?;
        found(records);
        loop {
            let (text, lines, is_over) = {
                let mut queued = self.queued.lock();
                let is_over =
                    |queued: &Queued| queued.is_given_up || queued.is_over && queued.open == 0;
                while queued.text.is_empty() && !is_over(&queued) {
                    queued = self.has_queued.wait(queued);
                }
                let is_over = is_over(&queued);
                let lines = mem::take(&mut queued.lines);
                (mem::take(&mut queued.text), lines, is_over)
            };
            file.add(&text, lines)?;
            if is_over && text.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Drop for Roll {
    fn drop(&mut self) {
        self.end();
    }
}

/// The file, as the thread sees it.
struct RollFile {
    path: PathBuf,
    file: File,
    /// Lines in it, and how many are too many.
    lines: usize,
    too_many: usize,
}

impl RollFile {
    /// Reads what is there, and writes it anew without its history.
    fn open(path: PathBuf) -> io::Result<(Self, Vec<Record>)> {
        let records = read(&path)?;
        let opened = Self::anew(path, &records)?;
        Ok((opened, records.into_values().collect()))
    }

    fn anew(path: PathBuf, records: &HashMap<ClientId, Record>) -> io::Result<Self> {
        let new = path.with_extension("new");
        let mut text = Vec::new();
        for record in records.values().cloned() {
            let (session, id) = (record.session_id.0, record.client_id.to_string());
            write(
                &mut text,
                &Line::Came(record.node, session, record.epoch, id),
            );
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&text)?;
        fs::rename(&new, &path)?;
        Ok(Self {
            path,
            file,
            lines: records.len(),
            too_many: 2 * records.len() + HISTORY_LINES,
        })
    }

    fn add(&mut self, text: &[u8], lines: usize) -> io::Result<()> {
        self.file.write_all(text)?;
        self.lines += lines;
        if self.lines > self.too_many {
            *self = Self::anew(self.path.clone(), &read(&self.path)?)?;
        }
        Ok(())
    }
}

/// The sessions in a file that are not over. A line that was written in part, or that nobody understands, is none.
fn read(path: &Path) -> io::Result<HashMap<ClientId, Record>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error),
    };
    let mut records = HashMap::<ClientId, Record>::new();
    for line in BufReader::new(file).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(Line::Came(node, session, epoch, id)) => {
                if let Some(client_id) = ClientId::new(id) {
                    let record = Record {
                        client_id: client_id.clone(),
                        session_id: SessionId(session),
                        epoch,
                        node,
                    };
                    records.insert(client_id, record);
                }
            }
            Ok(Line::Over(epoch, id)) => {
                let is_meant = |record: &Record| record.epoch == epoch;
                if let Some(client_id) = ClientId::new(id)
                    && records.get(&client_id).is_some_and(is_meant)
                {
                    records.remove(&client_id);
                }
            }
            Err(_) => {}
        }
    }
    Ok(records)
}

fn write(text: &mut Vec<u8>, line: &Line) {
    serde_json::to_writer(&mut *text, line).expect("texts and numbers are always JSON");
    text.push(b'\n');
}

/// One process at a time. A bridge of this process that was dropped may still be writing its last.
fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(LOCK_PATIENCE / 20);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process uses the directory"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

const FILE_NAME: &str = "devices.jsonl";
const LOCK_NAME: &str = "devices.lock";
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Lines that may be history however few devices there are.
const HISTORY_LINES: usize = 10_000;

/// What may wait for the disk: some 800,000 lines.
const MOST_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, session: u64) -> Record {
        Record {
            client_id: ClientId::new(id).unwrap(),
            session_id: SessionId(session),
            epoch: session * 10,
            node: "n1".into(),
        }
    }

    fn line(record: Record) -> Vec<u8> {
        let mut text = Vec::new();
        let id = record.client_id.to_string();
        let line = Line::Came(record.node, record.session_id.0, record.epoch, id);
        write(&mut text, &line);
        text
    }

    fn over(id: &str, session: u64) -> Vec<u8> {
        let mut text = Vec::new();
        write(&mut text, &Line::Over(session * 10, id.to_owned()));
        text
    }

    #[test]
    fn the_latest_session_counts_until_it_is_over_and_half_a_line_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let (mut file, found) = RollFile::open(path.clone()).unwrap();
        assert_eq!(found, []);
        for text in [
            line(record("a\n\"", 1)),
            line(record("b", 2)),
            line(record("c", 3)),
            over("b", 2),
            line(record("c", 4)),
            over("c", 3), // the session before
            b"{\"came\":[\"n1\",5,".to_vec(),
        ] {
            file.add(&text, 1).unwrap();
        }
        drop(file);
        let (_, mut found) = RollFile::open(path).unwrap();
        found.sort_by_key(|record| record.session_id.0);
        assert_eq!(found, [record("a\n\"", 1), record("c", 4)]);
    }

    #[test]
    fn history_is_thrown_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let (mut file, _) = RollFile::open(path.clone()).unwrap();
        file.add(&line(record("stays", 1)), 1).unwrap();
        for session in 2..HISTORY_LINES as u64 {
            let text = [line(record("dev", session)), over("dev", session)].concat();
            file.add(&text, 2).unwrap();
        }
        assert!(file.lines < HISTORY_LINES, "{}", file.lines);
        let records = read(&path).unwrap();
        assert_eq!(
            records.into_values().collect::<Vec<_>>(),
            [record("stays", 1)]
        );
    }
}
