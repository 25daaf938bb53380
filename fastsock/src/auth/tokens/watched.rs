//! When a file that others write counts: at once when it was put in place as a whole, after a rest when it is written in place.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{LONGEST_BYTES, files};
use crate::{files::stamp::Stamp, pure::last_error::LastError};

/// What is known of the file.
pub(super) struct Watched {
    /// The version that was judged, good or bad; it is not read again.
    judged: Option<Stamp>,
    inode: u64,
    target: u64,
    /// The version that was there the last time, and since when.
    seen: Option<(Stamp, Instant)>,
    /// Whether the version that is being judged was put in place as a whole.
    is_whole: bool,
    /// Whether the next look does not wait until the file is at rest.
    is_hurried: bool,
    pub(super) last_error: LastError,
}

impl Watched {
    /// One that was read without a look. If it has changed just now, perhaps it still does, and is read once more.
    pub(super) fn read_at_start(stamp: Stamp, now: SystemTime) -> Self {
        let age = now.duration_since(stamp.modified);
        let is_at_rest = age.is_ok_and(|age| age > REST);
        Self {
            judged: is_at_rest.then_some(stamp),
            inode: stamp.inode,
            target: stamp.target,
            seen: None,
            is_whole: false,
            is_hurried: false,
            last_error: LastError::default(),
        }
    }

    /// Somebody says that the file is complete.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
    }

    /// Looks at the file, and reads it if it has changed and counts.
    ///
    /// # Errors
    /// In words, without what the file holds.
    pub(super) fn look(&mut self, path: &Path, now: Instant) -> Result<Option<Vec<u8>>, String> {
        self.try_look(path, now).map_err(|e| {
            self.judged = None; // it is read again when it can be, whether or not it is another
            format!("cannot read {:?}: {e}", path.display().to_string())
        })
    }

    fn try_look(&mut self, path: &Path, now: Instant) -> io::Result<Option<Vec<u8>>> {
        let stamp = Stamp::of(path)?;
        if !self.counts(stamp, now) {
            return Ok(None);
        }
        let bytes = files::read(path, LONGEST_BYTES)?;
        if Stamp::of(path)? != stamp {
            return Ok(None); // it changed meanwhile: the next look is at that
        }
        self.judged = Some(stamp);
        (self.inode, self.target) = (stamp.inode, stamp.target);
        Ok(Some(bytes))
    }

    /// Whether a version is to be judged now.
    fn counts(&mut self, stamp: Stamp, now: Instant) -> bool {
        let is_hurried = std::mem::take(&mut self.is_hurried);
        if self.judged == Some(stamp) {
            return false;
        }
        let is_moved = stamp.inode != self.inode && stamp.is_moved;
        let is_linked = stamp.target != self.target; // as Kubernetes does with a secret
        self.is_whole = is_moved || is_linked;
        let since = match self.seen {
            Some((seen, since)) if seen == stamp => since,
            _ => now,
        };
        self.seen = Some((stamp, since));
        self.is_whole || is_hurried || now.duration_since(since) >= REST
    }

    /// Whether the version that was read last was put in place as a whole.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }
}

/// How long a file that is written in place must not have changed.
const REST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn stamp(inode: u64, bytes: u64, is_moved: bool) -> Stamp {
        Stamp {
            target: 1,
            inode,
            bytes,
            modified: SystemTime::UNIX_EPOCH,
            changed: (0, 0),
            is_moved,
        }
    }

    #[test]
    fn what_is_moved_into_place_counts_at_once_and_what_is_written_there_after_a_rest() {
        let start = Instant::now();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let mut watched = Watched::read_at_start(stamp(1, 10, false), long_ago);
        let mut look = |seconds: f64, stamp| {
            let now = start + Duration::from_secs_f64(seconds);
            let counts = watched.counts(stamp, now);
            if counts {
                watched.judged = Some(stamp);
                (watched.inode, watched.target) = (stamp.inode, stamp.target);
            }
            counts.then_some(watched.is_whole)
        };
        assert_eq!(look(0.0, stamp(1, 10, false)), None);
        // Written in place, and on and on.
        assert_eq!(look(1.0, stamp(1, 0, false)), None);
        assert_eq!(look(2.0, stamp(1, 5, false)), None);
        assert_eq!(look(3.5, stamp(1, 9, false)), None);
        assert_eq!(look(5.4, stamp(1, 9, false)), None);
        assert_eq!(look(5.5, stamp(1, 9, false)), Some(false));
        assert_eq!(look(6.5, stamp(1, 9, false)), None);
        // Another one in its place, as a whole.
        assert_eq!(look(7.0, stamp(2, 9, true)), Some(true));
        assert_eq!(look(8.0, stamp(2, 9, true)), None);
        // Other permissions, which say nothing of what it holds; then a file that is made anew where it was.
        assert_eq!(look(9.0, stamp(2, 8, true)), None);
        assert_eq!(look(11.0, stamp(2, 8, true)), Some(false));
        assert_eq!(look(12.0, stamp(3, 0, false)), None);
        assert_eq!(look(14.0, stamp(3, 0, false)), Some(false));
        // A symbolic link that names another file.
        let linked = Stamp {
            target: 2,
            ..stamp(4, 9, false)
        };
        assert_eq!(look(15.0, linked), Some(true));
        assert_eq!(look(16.0, linked), None);
    }

    #[test]
    fn a_file_is_read_once_whatever_is_in_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path();
        let mut watched = Watched::read_at_start(Stamp::of(path).unwrap(), SystemTime::now());
        fs::write(path, "nonsense").unwrap();
        let start = Instant::now();
        let mut looks = |from: u64| {
            let at = |seconds| start + Duration::from_secs(seconds);
            let mut read = |seconds| watched.look(path, at(seconds)).unwrap().is_some();
            (from..from + 60).filter(|seconds| read(*seconds)).count()
        };
        assert_eq!(looks(0), 1);
        assert_eq!(looks(60), 0);
        // The same time of change and the same length as before.
        let modified = path.metadata().unwrap().modified().unwrap();
        std::thread::sleep(Duration::from_millis(20)); // the clock of a file system is coarse
        fs::write(path, "NONSENSE").unwrap();
        file.as_file().set_modified(modified).unwrap();
        assert_eq!(looks(120), 1);
        // It is away, and there again.
        let away = path.with_extension("away");
        fs::rename(path, &away).unwrap();
        assert!(watched.look(path, start).is_err());
        fs::rename(&away, path).unwrap();
        let again = start + Duration::from_secs(200);
        let read = (0..9).filter(|n| {
            let at = again + Duration::from_secs(*n);
            watched.look(path, at).unwrap().is_some()
        });
        assert_eq!(read.count(), 1);
    }

    #[test]
    fn a_file_that_was_fresh_at_the_start_is_read_once_more() {
        let start = Instant::now();
        let fresh = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let mut watched = Watched::read_at_start(stamp(1, 10, true), fresh);
        assert!(!watched.counts(stamp(1, 10, true), start));
        assert!(watched.counts(stamp(1, 10, true), start + REST));
    }
}
