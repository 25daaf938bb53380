//! Tokens from a file: one line for each, a client id and the SHA-256 of the token. Read again when the file changes.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, RwLock};

use super::{Admitted, Authenticate, Denied, Digest, Grant, Shown};
use crate::{
    broker::BoxFuture,
    config::Config,
    error::{Error, ErrorKind, Result},
    types::ClientId,
};

/// The tokens of a file.
///
/// They are found by their SHA-256, whose bits a guess does not choose, in a table with a random key: how long a search takes
/// says nothing about a token.
pub(crate) struct Tokens {
    path: PathBuf,
    known: RwLock<Known>,
    last: Mutex<Last>,
}

/// Whose tokens they are.
type Known = HashMap<Digest, ClientId>;

/// The last look at the file.
struct Last {
    stamp: Option<Stamp>,
    /// It had rested when it was read: with the same stamp it is the same.
    is_settled: bool,
    /// What was wrong with it, so that it is told once.
    trouble: Option<String>,
}

/// What changes when the file does.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

impl Tokens {
    /// Reads the file of the settings.
    ///
    /// # Errors
    /// `Config`, naming the setting, the path and the line.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let failed = |what: &str| Error::new(ErrorKind::Config, format!("{VARIABLE}: {what}"));
        let path = config.auth_tokens_file.clone();
        let path = path.ok_or_else(|| failed("is needed with FASTSOCK_AUTH=tokens"))?;
        let (known, stamp) = read(&path).map_err(|trouble| failed(&trouble))?;
        let last = Last {
            is_settled: stamp.is_settled(SystemTime::now()),
            stamp: Some(stamp),
            trouble: None,
        };
        Ok(Self {
            path,
            known: RwLock::new(known),
            last: Mutex::new(last),
        })
    }

    /// Reads the file again if it has changed. A bad one changes nothing, and is told once. Whether there are other tokens now.
    pub(crate) fn refresh(&self) -> bool {
        let mut last = self.last.lock();
        if last.is_settled && stamp(&self.path).ok() == last.stamp {
            return false;
        }
        // On a thread that serves devices: a stat a second, and a file of a few megabytes when it changes.
        match read(&self.path) {
            Ok((known, stamp)) => {
                last.is_settled = stamp.is_settled(SystemTime::now());
                last.stamp = Some(stamp);
                let had_trouble = last.trouble.take().is_some();
                let is_changed = known != *self.known.read();
                if is_changed || had_trouble {
                    tracing::info!(tokens = known.len(), path = %self.path.display(), "tokens reloaded");
                }
                *self.known.write() = known;
                is_changed
            }
            Err(trouble) => {
                last.stamp = stamp(&self.path).ok();
                last.is_settled = false; // it is looked at again until it is good
                if last.trouble.as_ref() != Some(&trouble) {
                    tracing::error!(error = %trouble, "{VARIABLE}: the tokens before it stay");
                    last.trouble = Some(trouble);
                }
                false
            }
        }
    }

    fn find(&self, token: &str) -> Option<Admitted> {
        let digest = Digest::of(&[token.as_bytes()]);
        let client_id = self.known.read().get(&digest)?.clone();
        let grant = Grant {
            until: None,
            token: Some(digest),
        };
        Some(Admitted {
            client_id,
            grant: Some(Box::new(grant)),
        })
    }
}

impl Authenticate for Tokens {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Admitted, Denied>> {
        let admitted = shown.certified().unwrap_or_else(|| {
            let found = self.find(shown.credential);
            found.ok_or(Denied::Invalid("the token is not valid"))
        });
        Box::pin(std::future::ready(admitted))
    }

    fn holds(&self, client_id: &ClientId, grant: &Grant) -> bool {
        let known = self.known.read();
        grant
            .token
            .is_none_or(|token| known.get(&token) == Some(client_id))
    }
}

/// Looks at the file each second, for ever; `changed` is called after there are other tokens.
pub(crate) async fn watch(tokens: Arc<Tokens>, changed: impl Fn()) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if tokens.refresh() {
            changed();
        }
    }
}

/// Reads and parses a file. The error is one line without what the file holds.
fn read(path: &Path) -> Result<(Known, Stamp), String> {
    let cannot = |e: io::Error| format!("cannot read {:?}: {e}", path.display().to_string());
    let stamp = stamp(path).map_err(cannot)?; // before the text: what changes meanwhile is read again
    if stamp.bytes > LONGEST_BYTES {
        return Err(format!("{:?} is over 16 MiB", path.display().to_string()));
    }
    let text = fs::read_to_string(path).map_err(cannot)?;
    let known = parse(&text).map_err(|what| format!("{:?}, {what}", path.display().to_string()))?;
    Ok((known, stamp))
}

/// Lines of a client id, spaces and 64 hexadecimal digits; empty ones and those that begin with `#` are passed over, and so is a
/// byte order mark before the first.
pub(crate) fn parse(text: &str) -> Result<Known, String> {
    let mut known = Known::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", index + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (client_id, digest) = line
            .rsplit_once([' ', '\t'])
            .ok_or_else(|| wrong("a client id and the SHA-256 of its token, please"))?;
        let digest = Digest::from_hex(digest)
            .ok_or_else(|| wrong("the last word is not a SHA-256 of 64 hexadecimal digits"))?;
        let client_id = ClientId::new(client_id.trim_end())
            .ok_or_else(|| wrong("a client id has 1 to 8192 bytes"))?;
        if known.get(&digest).is_some_and(|other| *other != client_id) {
            return Err(wrong("another client id has this token already"));
        }
        known.insert(digest, client_id);
    }
    Ok(known)
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Ok(Stamp {
        modified: metadata.modified()?,
        bytes: metadata.len(),
        inode,
    })
}

impl Stamp {
    /// Whether a later change must show: the clock of a file system is coarse.
    fn is_settled(self, now: SystemTime) -> bool {
        let age = now.duration_since(self.modified);
        age.is_ok_and(|age| age > COARSE_CLOCK)
    }
}

const VARIABLE: &str = "FASTSOCK_AUTH_TOKENS_FILE";
const LOOK_EVERY: Duration = Duration::from_secs(1);
const COARSE_CLOCK: Duration = Duration::from_secs(2);
const LONGEST_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_line_is_a_client_id_and_a_digest() {
        for before in ["", "\u{feff}"] {
            let known = parse(&format!("{before}dev1 {ABC}\n")).unwrap();
            let (_, client_id) = known.iter().next().unwrap();
            assert_eq!(client_id.as_str(), "dev1");
        }
        let text = format!("\u{feff}# fleet\n\ndev1 {ABC}\r\n  dev 1\t {EMPTY}  \ndev1 {ABC}\n");
        let known = parse(&text).unwrap();
        let name = |digest| known[&Digest::from_hex(digest).unwrap()].to_string();
        assert_eq!(
            (known.len(), name(ABC), name(EMPTY)),
            (2, "dev1".into(), "dev 1".into())
        );
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_not_by_what_it_holds() {
        for (line, told) in [
            ("s3cret", "line 2: a client id"),
            ("dev2 s3cret", "line 2: the last word"),
            (&format!("dev2 {}0", &ABC[..62]), "line 2: the last word"),
            (&format!("dev2 {ABC}"), "line 2: another client id"),
        ] {
            let error = parse(&format!("dev1 {ABC}\n{line}\n")).unwrap_err();
            assert!(
                error.starts_with(told) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_change_shows_even_with_the_same_stamp() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let modified = SystemTime::now();
        let write = |digest: &str| {
            fs::write(file.path(), format!("dev1 {digest}\n")).unwrap();
            file.as_file().set_modified(modified).unwrap();
        };
        write(ABC);
        let config = Config::default().auth_tokens_file(Some(file.path().into()));
        let tokens = Tokens::new(&config).unwrap();
        assert!(tokens.find("abc").is_some() && !tokens.refresh());
        write(EMPTY);
        assert!(tokens.refresh() && tokens.find("abc").is_none());
    }
}
