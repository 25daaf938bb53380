//! Where lines end up: the console, which may stall, and the file, which may fail. Neither hinders the other.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Level, line::Line};
use crate::settings::Program;

/// Both of them.
pub(super) struct Sinks {
    console: Option<Console>,
    file: Option<LogFile>,
    level: Level,
}

impl Sinks {
    /// Stdout and a file. A file that cannot be opened is told, and done without.
    pub(super) fn open(program: &Program) -> (Self, Option<(PathBuf, io::Error)>) {
        let (mut sinks, trouble) = Self::file_only(program);
        sinks.console = Console::stdout().ok(); // it may be closed
        (sinks, trouble)
    }

    /// No stdout.
    pub(super) fn file_only(program: &Program) -> (Self, Option<(PathBuf, io::Error)>) {
        let open = |path: &Path| LogFile::open(path, program.log_file_mode);
        let (file, trouble) = match program.log_file.as_deref().map(|path| (path, open(path))) {
            None => (None, None),
            Some((_, Ok(file))) => (Some(file), None),
            Some((path, Err(error))) => (None, Some((path.to_owned(), error))),
        };
        let sinks = Self {
            console: None,
            file,
            level: program.log_level,
        };
        (sinks, trouble)
    }

    /// Writes whole lines; those that the console does not take now are kept for it, up to a bound.
    pub(super) fn write(&mut self, lines: &[u8]) {
        let tells = self.level >= Level::Warn;
        let trouble = self.file.as_mut().and_then(|file| file.write(lines, tells));
        let Some(console) = &mut self.console else {
            return;
        };
        console.offer(lines);
        if let (Some(line), true) = (trouble, tells) {
            console.offer(&line);
        }
        if console.push_out(tells).is_err() {
            self.console = None; // nobody reads it any more
        }
    }

    /// Whether lines wait for the console.
    pub(super) fn is_behind(&self) -> bool {
        self.console.as_ref().is_some_and(Console::is_behind)
    }

    /// Waits until the console takes more.
    pub(super) fn wait(&self, time: Duration) {
        if let Some(console) = &self.console {
            console.can_write(time);
        }
    }
}

/// Stdout. It may be a pipe that nobody reads, and must not be made non-blocking since others share it; so it is
/// asked before each write, and given no more than a pipe that says yes takes without blocking.
struct Console {
    out: File,
    /// The most to write at once.
    most_bytes: usize,
    pending: Vec<u8>,
    written: usize,
    dropped: u64,
}

impl Console {
    fn stdout() -> io::Result<Self> {
        Self::new(io::stdout().as_fd().try_clone_to_owned()?)
    }

    fn new(out: OwnedFd) -> io::Result<Self> {
        let out = File::from(out);
        let is_file = out.metadata()?.is_file();
        Ok(Self {
            out,
            most_bytes: if is_file { usize::MAX } else { PIPE_BYTES },
            pending: Vec::new(),
            written: 0,
            dropped: 0,
        })
    }

    fn is_behind(&self) -> bool {
        self.written < self.pending.len()
    }

    fn offer(&mut self, lines: &[u8]) {
        if self.pending.len() - self.written >= PENDING_BYTES {
            self.dropped += count_lines(lines);
        } else {
            self.pending.extend_from_slice(lines);
        }
    }

    /// Writes what can be written now.
    fn push_out(&mut self, tells: bool) -> io::Result<()> {
        loop {
            while self.is_behind() && self.can_write(Duration::ZERO) {
                let chunk = chunk(&self.pending[self.written..], self.most_bytes);
                match self.out.write(chunk) {
                    Ok(written) => self.written += written,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                }
            }
            self.pending.drain(..self.written);
            self.pending.shrink_to(PIPE_BYTES.max(self.pending.len()));
            self.written = 0;
            if self.dropped == 0 || self.is_behind() {
                return Ok(());
            }
            let dropped = std::mem::take(&mut self.dropped);
            if tells {
                self.pending.extend(dropped_lines(dropped));
            }
        }
    }

    /// Whether it takes bytes, or an error that a write will tell, within a time.
    fn can_write(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(&self.out, PollFlags::OUT)];
        let time = Timespec::try_from(time).ok();
        poll(&mut fds, time.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

/// The beginning of some lines: as many whole ones as fit, or as much of one as fits.
fn chunk(lines: &[u8], most_bytes: usize) -> &[u8] {
    if lines.len() <= most_bytes {
        return lines;
    }
    let lines = &lines[..most_bytes];
    let whole = lines.iter().rposition(|b| *b == b'\n');
    whole.map_or(lines, |end| &lines[..=end])
}

/// The file that lines are appended to.
struct LogFile {
    file: File,
    path: PathBuf,
    /// Whether it ends within a line, since a disk was full.
    is_torn: bool,
    /// Lines it did not take since it last took one.
    dropped: u64,
}

impl LogFile {
    /// With a mode, a file that is there already gets it too; but nothing that is no file, such as `/dev/null`.
    fn open(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        if let Some(mode) = mode {
            options.mode(mode);
        }
        let file = options.open(path)?;
        if let Some(mode) = mode
            && file.metadata()?.is_file()
        {
            file.set_permissions(Permissions::from_mode(mode))?; // whatever the umask is
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            is_torn: false,
            dropped: 0,
        })
    }

    /// Appends lines. The first failure in a row gives a line for the console.
    fn write(&mut self, lines: &[u8], tells: bool) -> Option<Vec<u8>> {
        if lines.is_empty() {
            return None;
        }
        let missing = self.dropped;
        if self.append(&self.head(tells)).is_err() {
            self.dropped += count_lines(lines);
            return None;
        }
        self.dropped = 0;
        let (error, rest) = self.append(lines).err()?;
        self.dropped = count_lines(rest);
        (missing == 0).then(|| file_trouble(&self.path, &error))
    }

    /// What goes before the next lines after a failure.
    fn head(&self, tells: bool) -> Vec<u8> {
        let mut head = Vec::new();
        if self.is_torn {
            head.push(b'\n');
        }
        if self.dropped > 0 && tells {
            head.extend(dropped_lines(self.dropped));
        }
        head
    }

    /// Appends all of some lines, or says why not and what is not in the file.
    fn append<'a>(&mut self, mut lines: &'a [u8]) -> Result<(), (io::Error, &'a [u8])> {
        while !lines.is_empty() {
            match self.file.write(lines) {
                Ok(0) => return Err((ErrorKind::WriteZero.into(), lines)),
                Ok(written) => {
                    self.is_torn = lines[written - 1] != b'\n';
                    lines = &lines[written..];
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err((e, lines)),
            }
        }
        Ok(())
    }
}

/// The line that tells that the file takes nothing.
pub(super) fn file_trouble(path: &Path, error: &io::Error) -> Vec<u8> {
    let mut line = Line::new(SystemTime::now(), Level::Warn);
    line.text("message", "Log file cannot be written");
    line.text("path", &path.display().to_string());
    line.text("error", &error.to_string());
    line.finish()
}

/// The line that tells how many are missing.
pub(super) fn dropped_lines(dropped: u64) -> Vec<u8> {
    let mut line = Line::new(SystemTime::now(), Level::Warn);
    line.text("message", "Log lines dropped");
    line.raw("dropped", format_args!("{dropped}"));
    line.finish()
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|b| **b == b'\n').count() as u64
}

/// What a pipe takes in one piece (PIPE_BUF), and without blocking once it says that it takes something.
const PIPE_BYTES: usize = 4096;
/// The most that waits for the console; below it, one more batch is taken.
const PENDING_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn a_stalled_console_keeps_some_lines_and_counts_the_rest() {
        let (reader, writer) = io::pipe().unwrap();
        let mut console = Console::new(writer.into()).unwrap();
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        let mut offered = 0;
        while console.dropped < 100 {
            console.offer(&line.repeat(10));
            console.push_out(true).unwrap();
            offered += 10;
        }
        let dropped = console.dropped;
        let lines = std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let lines = BufReader::new(reader).lines();
                lines.map(Result::unwrap).collect::<Vec<_>>()
            });
            while console.is_behind() {
                console.can_write(Duration::from_secs(1));
                console.push_out(true).unwrap();
            }
            drop(console);
            reading.join().unwrap()
        });
        let (last, whole) = lines.split_last().unwrap();
        assert!(whole.iter().all(|line| line.len() == 999));
        assert_eq!(whole.len() as u64, offered - dropped);
        assert!(last.contains(&format!("\"dropped\":{dropped}")), "{last}");
    }

    #[test]
    fn a_console_that_nobody_reads_any_more_is_given_up() {
        let (reader, writer) = io::pipe().unwrap();
        let mut sinks = Sinks {
            console: None,
            file: None,
            level: Level::Info,
        };
        sinks.console = Some(Console::new(writer.into()).unwrap());
        drop(reader);
        sinks.write(b"line\n");
        assert!(sinks.console.is_none());
    }

    #[test]
    fn a_mode_is_that_of_a_new_file_and_of_an_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mode = |mode| {
            LogFile::open(&path, mode).unwrap();
            path.metadata().unwrap().permissions().mode() & 0o7777
        };
        assert_eq!(mode(Some(0o666)), 0o666, "whatever the umask is");
        assert_eq!(mode(Some(0o640)), 0o640);
        assert_eq!(mode(None), 0o640);
        std::fs::remove_file(&path).unwrap();
        File::create(directory.path().join("other")).unwrap();
        let other = directory.path().join("other").metadata().unwrap();
        assert_eq!(mode(None), other.permissions().mode() & 0o7777);
        let before = Path::new("/dev/null").metadata().unwrap().permissions();
        LogFile::open(Path::new("/dev/null"), Some(0o600)).unwrap();
        assert_eq!(
            Path::new("/dev/null").metadata().unwrap().permissions(),
            before
        );
    }

    #[test]
    fn a_full_disk_is_told_once_and_lines_are_counted_until_it_has_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = LogFile::open(&path, None).unwrap();
        let good = std::mem::replace(
            &mut file.file,
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        );
        let told = file.write(b"1\n2\n", true).unwrap();
        assert!(String::from_utf8(told).unwrap().contains("No space left"));
        assert!(file.write(b"3\n", true).is_none());
        file.is_torn = true; // as after a part of a line
        file.file = good;
        assert!(file.write(b"4\n", true).is_none());
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].is_empty() && lines[1].contains("\"dropped\":3"),
            "{text}"
        );
        assert_eq!(&lines[2..], ["4"]);
        assert_eq!(file.dropped, 0);
    }

    #[test]
    fn a_chunk_ends_with_a_line_where_it_can() {
        assert_eq!(chunk(b"ab\ncd\n", 9), b"ab\ncd\n");
        assert_eq!(chunk(b"ab\ncd\n", 5), b"ab\n");
        assert_eq!(chunk(b"abcdef\n", 5), b"abcde");
    }
}
