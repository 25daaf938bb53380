//! When the log file is put aside for a new one, and what becomes of the old ones: `<file>.1` is the newest of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// When a new file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotate {
    /// Never.
    Off,
    /// With each day, in UTC.
    Daily,
    /// Before it is larger than so many bytes.
    Bytes(u64),
}

impl Rotate {
    /// What a text means.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "daily" => Some(Self::Daily),
            size => parse_size(size)
                .filter(|n| *n >= LEAST_BYTES)
                .map(Self::Bytes),
        }
    }

    /// The text for it.
    pub(crate) fn show(self) -> String {
        match self {
            Self::Off => "off".into(),
            Self::Daily => "daily".into(),
            Self::Bytes(bytes) => bytes.to_string(),
        }
    }
}

/// How a file is rotated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    pub(super) when: Rotate,
    /// How many old files are kept.
    pub(super) keep: usize,
}

impl Rotation {
    /// Whether a new file is due before so many bytes more.
    pub(super) fn is_due(self, held: u64, more: u64, day: u64, now: SystemTime) -> bool {
        match self.when {
            Rotate::Off => false,
            Rotate::Daily => held > 0 && day_of(now) != day,
            Rotate::Bytes(most) => held > 0 && held + more > most,
        }
    }

    /// How many bytes of these lines go into one file: all that fit into this one, or into a new one; at least a line.
    pub(super) fn fitting(self, held: u64, lines: &[u8]) -> usize {
        let Rotate::Bytes(most) = self.when else {
            return lines.len();
        };
        let first = match lines.iter().position(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None => lines.len(),
        };
        let room = most.saturating_sub(held);
        let room = if room < first as u64 { most } else { room };
        let room = usize::try_from(room).map_or(lines.len(), |room| room.min(lines.len()));
        let end = lines[..room].iter().rposition(|byte| *byte == b'\n');
        end.map_or(first, |end| end + 1)
    }

    /// Puts the file aside, and drops the oldest.
    ///
    /// # Errors
    /// What the system says; then the file is where it was.
    pub(super) fn put_aside(self, path: &Path) -> io::Result<()> {
        let old = |n: usize| -> PathBuf {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{n}"));
            name.into()
        };
        if self.keep == 0 {
            return fs::remove_file(path);
        }
        let free = (1..self.keep)
            .find(|n| !old(*n).exists())
            .unwrap_or(self.keep);
        for n in (1..free).rev() {
            fs::rename(old(n), old(n + 1))?;
        }
        fs::rename(path, old(1))
    }
}

/// Days since 1970, in UTC.
pub(super) fn day_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs() / 86_400)
}

/// A number of bytes, with a unit or without.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    digits.trim_end().parse::<u64>().ok()?.checked_mul(factor)
}

/// A smaller file would be put aside all the time.
const LEAST_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_a_day_or_off() {
        for (text, rotate) in [
            ("off", Some(Rotate::Off)),
            ("daily", Some(Rotate::Daily)),
            ("100MiB", Some(Rotate::Bytes(100 << 20))),
            ("1GB", Some(Rotate::Bytes(1_000_000_000))),
            ("65536", Some(Rotate::Bytes(65_536))),
            ("65535", None),
            ("weekly", None),
            ("-1", None),
            ("", None),
            ("99999999999999GiB", None),
        ] {
            assert_eq!(Rotate::parse(text), rotate, "{text}");
            if let Some(rotate) = rotate {
                assert_eq!(Rotate::parse(&rotate.show()), Some(rotate));
            }
        }
    }

    #[test]
    fn old_files_move_up_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let rotation = Rotation {
            when: Rotate::Daily,
            keep: 2,
        };
        for text in ["a", "b", "c"] {
            fs::write(&path, text).unwrap();
            rotation.put_aside(&path).unwrap();
        }
        let read = |name| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((read("log.1").as_str(), read("log.2").as_str()), ("c", "b"));
        assert!(!path.exists() && !directory.path().join("log.3").exists());
        fs::write(&path, "d").unwrap();
        Rotation {
            keep: 0,
            ..rotation
        }
        .put_aside(&path)
        .unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
