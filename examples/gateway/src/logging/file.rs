//! The file that lines are appended to. Its disk may be full, and it may be moved away.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{
    rotation::{Rotation, day_of},
    sinks::{RETRY_TIME, count_lines, dropped_lines, trouble_line},
};

/// The file that lines are appended to.
pub(super) struct LogFile {
    path: PathBuf,
    mode: Option<u32>,
    rotation: Rotation,
    /// Bytes in it, and the day of the newest of them.
    held: u64,
    day: u64,
    /// `None` until it can be opened.
    file: Option<File>,
    /// When it is tried to be opened again.
    retry_at: Option<Instant>,
    /// Whether it ends within a line, since a disk was full.
    is_torn: bool,
    /// Lines it did not take since it last took one.
    dropped: u64,
    /// Whether its present trouble was told.
    is_told: bool,
}

impl LogFile {
    /// Opens the file at a path, or gives the line that tells why not; then it is tried again. With a mode, a file that is there
    /// already gets it too.
    pub(super) fn open(
        path: &Path,
        mode: Option<u32>,
        rotation: Rotation,
        now: Instant,
    ) -> (Self, Option<Vec<u8>>) {
        let mut file = Self {
            path: path.to_owned(),
            mode,
            rotation,
            held: 0,
            day: 0,
            file: None,
            retry_at: None,
            is_torn: false,
            dropped: 0,
            is_told: false,
        };
        let trouble = file.reopen().err();
        if trouble.is_some() {
            file.retry_at = Some(now + RETRY_TIME);
            file.is_told = true;
        }
        (file, trouble)
    }

    /// Opens what is at the path now, and lets go of what was open. If it cannot, what is open stays, and the error is the line
    /// to tell.
    pub(super) fn reopen(&mut self) -> Result<(), Vec<u8>> {
        let opened = open(&self.path, self.mode).and_then(|file| {
            let of = file.metadata()?;
            self.held = of.len();
            self.day = day_of(of.modified()?);
            let is_same = match &self.file {
                Some(before) => identity(before)? == identity(&file)?,
                None => false,
            };
            Ok((file, is_same))
        });
        match opened {
            Ok((file, is_same)) => {
                self.file = Some(file);
                self.is_torn &= is_same;
                self.retry_at = None;
                Ok(())
            }
            Err(error) => Err(self.trouble(&error)),
        }
    }

    /// Appends lines, to several files where one would become too large. The first failure in a row gives a line for the console.
    pub(super) fn write(&mut self, mut lines: &[u8], now: Instant, tells: bool) -> Option<Vec<u8>> {
        let mut told = None;
        while !lines.is_empty() {
            let (part, rest) = lines.split_at(self.rotation.fitting(self.held, lines));
            lines = rest;
            match self.try_write(part, now, tells) {
                Ok(()) => self.is_told = false,
                Err(trouble) if !std::mem::replace(&mut self.is_told, true) => {
                    told = told.or(trouble);
                }
                Err(_) => {}
            }
        }
        told
    }

    /// Appends lines and what must go before them, or counts those that are not in the file and says why.
    fn try_write(
        &mut self,
        lines: &[u8],
        now: Instant,
        tells: bool,
    ) -> Result<(), Option<Vec<u8>>> {
        if self.file.is_none() {
            if self.retry_at.is_some_and(|at| now < at) {
                self.dropped += count_lines(lines);
                return Err(None);
            }
            if let Err(trouble) = self.reopen() {
                self.retry_at = Some(now + RETRY_TIME);
                self.dropped += count_lines(lines);
                return Err(Some(trouble));
            }
        }
        let rotated = self.rotate(lines.len() as u64);
        if let Err((error, _)) = self.append(&self.head(tells)) {
            self.dropped += count_lines(lines);
            return Err(Some(self.trouble(&error)));
        }
        self.dropped = 0;
        if let Err((error, rest)) = self.append(lines) {
            self.dropped = count_lines(rest);
            return Err(Some(self.trouble(&error)));
        }
        self.day = day_of(SystemTime::now());
        rotated.map_err(|error| Some(self.trouble_with("Log file cannot be rotated", &error)))
    }

    /// Begins a new file if that is due. If it cannot, the lines go on into the old one.
    fn rotate(&mut self, more: u64) -> io::Result<()> {
        let now = SystemTime::now();
        if !self.rotation.is_due(self.held, more, self.day, now) {
            return Ok(());
        }
        let is_ours = match (&self.file, self.path.metadata()) {
            (Some(file), Ok(there)) => identity(file)? == (there.dev(), there.ino()),
            _ => false, // another process, or a person, has put it aside
        };
        if is_ours {
            self.rotation.put_aside(&self.path)?;
        }
        self.file = Some(open(&self.path, self.mode)?);
        self.held = 0;
        self.is_torn = false;
        Ok(())
    }

    /// What goes before the next lines after a failure.
    fn head(&self, tells: bool) -> Vec<u8> {
        let mut head = Vec::new();
        if self.is_torn {
            head.push(b'\n');
        }
        if self.dropped > 0 && tells {
            head.extend(dropped_lines(self.dropped, "file_failed"));
        }
        head
    }

    /// Appends all of some lines, or says why not and what is not in the file.
    fn append<'a>(&mut self, mut lines: &'a [u8]) -> Result<(), (io::Error, &'a [u8])> {
        let Some(file) = &mut self.file else {
            return Err((ErrorKind::NotFound.into(), lines));
        };
        while !lines.is_empty() {
            match file.write(lines) {
                Ok(0) => return Err((ErrorKind::WriteZero.into(), lines)),
                Ok(written) => {
                    self.held += written as u64;
                    self.is_torn = lines[written - 1] != b'\n';
                    lines = &lines[written..];
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err((e, lines)),
            }
        }
        Ok(())
    }

    fn trouble(&self, error: &io::Error) -> Vec<u8> {
        self.trouble_with("Log file cannot be written", error)
    }

    fn trouble_with(&self, message: &str, error: &io::Error) -> Vec<u8> {
        let path = self.path.display().to_string();
        trouble_line(message, Some(&path), error)
    }
}

/// Finds whether [`LogFile::open`] could open it. One that is not there is not made, but a file in its place, or above.
///
/// # Errors
/// What the system says.
pub(crate) fn check(path: &Path, mode: Option<u32>) -> io::Result<()> {
    if path.try_exists()? {
        let file = open_at_once(OpenOptions::new().append(true), path)?;
        let of = file.metadata()?;
        if mode.is_some() && of.is_file() {
            file.set_permissions(of.permissions())?; // whether that is allowed
        }
        return Ok(());
    }
    let mut folders = path.ancestors().skip(1);
    let nearest = folders.find(|folder| folder.as_os_str().is_empty() || folder.exists());
    let mut draft = nearest.unwrap_or(Path::new("")).to_owned();
    draft.push(format!(".fastsock.{}.check", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&draft)?;
    std::fs::remove_file(&draft)
}

/// Opens a file and the folders it is in. What is no file, such as `/dev/null`, keeps its mode.
fn open(path: &Path, mode: Option<u32>) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    if let Some(mode) = mode {
        options.mode(mode);
    }
    let file = open_at_once(&mut options, path)?;
    if let Some(mode) = mode
        && file.metadata()?.is_file()
    {
        file.set_permissions(Permissions::from_mode(mode))?; // whatever the umask is
    }
    Ok(file)
}

/// Opens without waiting: for a named pipe that nobody reads this would be for ever, and the start of the gateway with it.
fn open_at_once(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    fcntl_setfl(&file, fcntl_getfl(&file)?.difference(OFlags::NONBLOCK))?;
    Ok(file)
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let of = file.metadata()?;
    Ok((of.dev(), of.ino()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::rotation::Rotate, *};

    const OFF: Rotation = Rotation {
        when: Rotate::Off,
        keep: 7,
    };

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_mode_is_that_of_a_new_file_and_of_an_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mode = |mode| {
            open(&path, mode).unwrap();
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
        open(Path::new("/dev/null"), Some(0o600)).unwrap();
        assert_eq!(
            Path::new("/dev/null").metadata().unwrap().permissions(),
            before
        );
    }

    #[test]
    fn a_full_disk_is_told_once_and_lines_are_counted_until_it_has_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let now = Instant::now();
        let (mut file, _) = LogFile::open(&path, None, OFF, now);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let good = file.file.replace(full);
        let told = file.write(b"1\n2\n", now, true).unwrap();
        assert!(String::from_utf8(told).unwrap().contains("No space left"));
        assert!(file.write(b"3\n", now, true).is_none());
        file.is_torn = true; // as after a part of a line
        file.file = good;
        assert!(file.write(b"4\n", now, true).is_none());
        let text = read(&path);
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].is_empty() && lines[1].contains("\"dropped\":3"),
            "{text}"
        );
        assert_eq!(&lines[2..], ["4"]);
        assert_eq!(file.dropped, 0);
    }

    #[test]
    fn one_that_cannot_be_opened_is_told_once_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("logs");
        File::create(&folder).unwrap(); // in the way
        let path = folder.join("log");
        let mut now = Instant::now();
        let (mut file, told) = LogFile::open(&path, None, OFF, now);
        assert!(
            String::from_utf8(told.unwrap())
                .unwrap()
                .contains("logs/log")
        );
        assert!(file.write(b"1\n", now, true).is_none());
        std::fs::remove_file(&folder).unwrap();
        assert!(file.write(b"2\n", now, true).is_none());
        assert!(!folder.exists(), "it is left alone for a while");
        now += RETRY_TIME;
        assert!(file.write(b"3\n", now, true).is_none());
        let text = read(&path);
        assert!(
            text.contains("\"dropped\":2,") && text.ends_with("\n3\n"),
            "{text}"
        );
    }

    #[test]
    fn lines_that_are_too_many_for_one_file_go_into_several() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let rotation = Rotation {
            when: Rotate::Bytes(10),
            keep: 7,
        };
        let now = Instant::now();
        let (mut file, _) = LogFile::open(&path, None, rotation, now);
        file.write(b"1\n", now, true);
        file.write(b"222\n333\n444\n5\nlonger than that\n666\n", now, true);
        let old = |n: u32| read(&path.with_extension(n.to_string()));
        assert_eq!(
            [old(3), old(2), old(1), read(&path)],
            ["1\n222\n333\n", "444\n5\n", "longer than that\n", "666\n"]
        );
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let mut now = Instant::now();
        let (mut file, told) = LogFile::open(&path, None, OFF, now);
        assert!(told.is_some());
        assert!(check(&path, None).is_err());

        let mut reader = open_at_once(OpenOptions::new().read(true), &path).unwrap();
        assert!(check(&path, None).is_ok());
        now += RETRY_TIME;
        assert!(file.write(b"1\n", now, true).is_none());
        let mut read = [0; 2];
        io::Read::read_exact(&mut reader, &mut read).unwrap();
        assert_eq!(&read, b"1\n");
    }

    #[test]
    fn one_that_was_moved_away_is_let_go_and_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let now = Instant::now();
        let (mut file, _) = LogFile::open(&path, None, OFF, now);
        file.write(b"1\n", now, true);
        std::fs::rename(&path, &old).unwrap();
        file.write(b"2\n", now, true);
        file.is_torn = true;
        file.reopen().unwrap();
        file.write(b"3\n", now, true);
        file.is_torn = true;
        file.reopen().unwrap(); // nothing was moved: the end of the file is what it was
        file.write(b"4\n", now, true);
        assert_eq!(
            (read(&old).as_str(), read(&path).as_str()),
            ("1\n2\n", "3\n\n4\n")
        );

        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap(); // in the way
        assert!(file.reopen().is_err());
        assert!(
            file.write(b"5\n", now, true).is_none(),
            "what is open stays"
        );
    }

    #[test]
    fn a_new_file_begins_before_a_size_and_with_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let now = Instant::now();
        let rotation = |when| Rotation { when, keep: 2 };
        let (mut file, _) = LogFile::open(&path, None, rotation(Rotate::Bytes(10)), now);
        for line in ["12345678901\n", "a\n", "bcdefgh\n", "i\n"] {
            assert!(file.write(line.as_bytes(), now, true).is_none());
        }
        let old = |n: usize| read(&directory.path().join(format!("log.{n}")));
        assert_eq!(
            (read(&path), old(1), old(2)),
            ("i\n".into(), "a\nbcdefgh\n".into(), "12345678901\n".into())
        );
        drop(file);

        // Another day, also after a restart.
        let yesterday = SystemTime::now() - Duration::from_secs(86_400);
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .set_modified(yesterday)
            .unwrap();
        let (mut file, _) = LogFile::open(&path, None, rotation(Rotate::Daily), now);
        file.write(b"j\n", now, true);
        file.write(b"k\n", now, true);
        assert_eq!((read(&path), old(1)), ("j\nk\n".into(), "i\n".into()));

        // Somebody else has put it aside.
        file.day -= 1;
        std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        file.write(b"l\n", now, true);
        assert_eq!((read(&path), old(1)), ("l\n".into(), "i\n".into()));

        // It cannot be put aside: told once, and nothing is lost.
        file.day -= 1;
        for n in [1, 2] {
            let old = directory.path().join(format!("log.{n}"));
            let _ = std::fs::remove_file(&old);
            std::fs::create_dir_all(old.join("in the way")).unwrap();
        }
        let told = file.write(b"m\n", now, true).unwrap();
        assert!(
            String::from_utf8(told)
                .unwrap()
                .contains("cannot be rotated")
        );
        assert_eq!(read(&path), "l\nm\n");
    }
}
