//! A file in `FASTSOCK_DATA_DIR`: a redb database that one process has at a time.

#[cfg(test)]
pub(crate) mod disk_in_memory;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use redb::{Database, backends::FileBackend};
use rustix::{fs::FallocateFlags, io::Errno};
use tokio::sync::oneshot;

use crate::{
    config::Config,
    error::{Error, ErrorKind, Result},
    tasks::Tasks,
};

/// What a transaction can fail with.
pub(crate) type Fault = redb::Error;

/// Where such a file is, and how it is opened.
#[derive(Clone)]
pub(crate) struct DataFile {
    path: PathBuf,
    /// What it is to a person: `spool`.
    what: &'static str,
    opener: Arc<dyn Fn() -> Result<Database, Fault> + Send + Sync>,
    /// Keeps the reserve, or releases it.
    reserve: Arc<dyn Fn(bool) + Send + Sync>,
}

impl DataFile {
    /// A file of this name, not opened yet. Makes directory and file if they are not there.
    ///
    /// # Errors
    /// `Io`, naming the setting and the path.
    pub(crate) fn in_directory(config: &Config, name: &str, what: &'static str) -> Result<Self> {
        let directory = directory(config);
        let path = directory.join(name);
        make_directory(directory).map_err(|e| cannot_make(directory, e))?;
        create_file(&path).map_err(|e| cannot_make(&path, e))?;
        let opener = {
            let path = path.clone();
            Arc::new(move || open_file(&path))
        };
        let reserve = {
            let path = path.with_extension("reserve");
            Arc::new(move |is_kept| {
                // Without it a full disk is waited out, as on file systems that promise no room.
                let _ = match is_kept {
                    true => keep_reserve(&path),
                    false => fs::remove_file(&path),
                };
            })
        };
        Ok(Self {
            path,
            what,
            opener,
            reserve,
        })
    }

    /// Whether there is one of this name. Where there is none, finds out whether one could be made.
    ///
    /// # Errors
    /// As [`DataFile::in_directory`].
    pub(crate) fn found(config: &Config, name: &str) -> Result<bool> {
        let directory = directory(config);
        let path = directory.join(name);
        let is_there = path.try_exists().and_then(|is_there| match is_there {
            true => Ok(true),
            false => try_to_make(directory, name).map(|()| false),
        });
        is_there.map_err(|e| cannot_make(&path, e))
    }

    /// One that is opened in some other way.
    #[cfg(test)]
    pub(crate) fn opened_by(
        what: &'static str,
        open: impl Fn() -> Result<Database, Fault> + Send + Sync + 'static,
        reserve: impl Fn(bool) + Send + Sync + 'static,
    ) -> Self {
        Self {
            path: "a disk in memory".into(),
            what,
            opener: Arc::new(open),
            reserve: Arc::new(reserve),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its size; 0 when that cannot be said.
    pub(crate) fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |found| found.len())
    }

    /// Keeps a file beside it that takes [`RESERVE_BYTES`] of the disk, or less where there is no more. redb removes nothing without
    /// writing first, so a file that fills its disk could not be emptied.
    pub(crate) fn keep_reserve(&self) {
        (self.reserve)(true);
    }

    /// Makes room on a full disk; for a moment, and for what makes more.
    pub(crate) fn release_reserve(&self) {
        (self.reserve)(false);
    }

    /// Opens it.
    ///
    /// # Errors
    /// `DatabaseAlreadyOpen` while anyone has it; what else redb says.
    pub(crate) fn open(&self) -> Result<Database, Fault> {
        (self.opener)()
    }

    /// Opens it at start, by something that calls [`DataFile::open`]. A bridge of this process that was dropped may still be writing
    /// its last; another process does not go away.
    ///
    /// # Errors
    /// `Io`, saying what to do.
    pub(crate) fn open_first<T>(&self, mut open: impl FnMut() -> Result<T, Fault>) -> Result<T> {
        let patient_until = Instant::now() + LOCK_PATIENCE;
        let mut has_reserve = true;
        loop {
            match open() {
                Ok(opened) => return Ok(opened),
                Err(Fault::DatabaseAlreadyOpen) if Instant::now() < patient_until => {
                    thread::sleep(LOCK_PATIENCE / 20);
                }
                Err(Fault::DatabaseAlreadyOpen) => {
                    let text = format!(
                        "FASTSOCK_DATA_DIR: {} is in use; each process needs a directory of its own",
                        self.path.display()
                    );
                    return Err(Error::new(ErrorKind::Io, text));
                }
                // After a kill redb mends the file first.
                Err(fault) if has_reserve && is_full(&fault) => {
                    has_reserve = false;
                    self.release_reserve();
                }
                Err(fault) => return Err(self.unreadable(fault)),
            }
        }
    }

    /// What to tell of a file that is something else, or broken.
    pub(crate) fn unreadable(&self, fault: Fault) -> Error {
        let text = format!(
            "FASTSOCK_DATA_DIR: {} cannot be read as a {}; it is left as it is, move it away to start with an empty one",
            self.path.display(),
            self.what
        );
        Error::new(ErrorKind::Io, text).with_source(fault)
    }
}

/// Opens a store on a thread of its own, which then runs with it: nobody else waits for the disk. Returns what was found in it. What
/// `run` has captured is dropped when the thread ends, whatever it ends of.
///
/// # Errors
/// `Io`: the system makes no thread; what `open` fails with.
pub(crate) async fn on_a_thread<S: 'static, T: Send + 'static>(
    tasks: &Tasks,
    (name, what): (&'static str, &'static str),
    open: impl FnOnce() -> Result<(S, T)> + Send + 'static,
    run: impl FnOnce(S) + Send + 'static,
) -> Result<T> {
    let (opened, found) = oneshot::channel();
    let work = move || match open() {
        Ok((store, found)) => {
            if opened.send(Ok(found)).is_ok() {
                run(store);
            }
        }
        Err(error) => drop(opened.send(Err(error))),
    };
    tasks.spawn_thread(name, work).map_err(|e| {
        let text = format!("cannot start the thread of the {what}");
        Error::new(ErrorKind::Io, text).with_source(e)
    })?;
    let ended = |_| Error::new(ErrorKind::Io, format!("the thread of the {what} ended"));
    found.await.map_err(ended)?
}

fn directory(config: &Config) -> &Path {
    config.spool.data_dir.as_deref().unwrap_or(Path::new("."))
}

fn cannot_make(path: &Path, e: io::Error) -> Error {
    let text = format!("FASTSOCK_DATA_DIR: cannot make {}", path.display());
    Error::new(ErrorKind::Io, text).with_source(e)
}

fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Makes and removes a file in this directory, or in the one that this would be made in.
fn try_to_make(directory: &Path, name: &str) -> io::Result<()> {
    let here = Path::new(".");
    let mut ancestors = directory.ancestors();
    let nearest = ancestors.find(|a| a.as_os_str().is_empty() || a.exists());
    let nearest = nearest.filter(|a| !a.as_os_str().is_empty());
    let draft = format!(".{name}.{}.check", std::process::id());
    let draft = nearest.unwrap_or(here).join(draft);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&draft)?;
    fs::remove_file(&draft)
}

/// Makes the file if it is not there, under another name first: a process that is killed meanwhile leaves no half of one.
fn create_file(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Ok(());
    }
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let result = draft_file(&draft).and_then(|()| match fs::hard_link(&draft, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()), // another process was faster
        linked => linked,
    });
    let _ = fs::remove_file(&draft);
    result?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn draft_file(draft: &Path) -> io::Result<()> {
    let _ = fs::remove_file(draft);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    let database = FileBackend::new(file)
        .and_then(|file| builder().create_with_backend(file))
        .map_err(io::Error::other)?;
    drop(database);
    File::open(draft)?.sync_all()
}

fn keep_reserve(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let mut bytes = RESERVE_BYTES;
    while let Err(error) = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        match error {
            Errno::INTR => continue,
            Errno::NOSPC | Errno::DQUOT => bytes /= 2,
            _ => bytes = 0,
        }
        if bytes < LEAST_RESERVE_BYTES {
            return fs::remove_file(path);
        }
    }
    Ok(())
}

/// Whether the disk had no room, or a quota gave none.
pub(crate) fn is_full(fault: &Fault) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(fault, Fault::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded))
}

fn open_file(path: &Path) -> Result<Database, Fault> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.len() == 0 {
        return Err(Fault::Corrupted("it is empty".into())); // redb would begin a new one in it
    }
    Ok(builder().create_with_backend(FileBackend::new(file)?)?)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// For pages read and for those of a transaction; redb's own default is a gigabyte.
const CACHE_BYTES: usize = 16 << 20;
/// Some hundred pages, where a transaction that removes takes ten.
const RESERVE_BYTES: u64 = 1 << 20;
const LEAST_RESERVE_BYTES: u64 = 64 << 10;
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
