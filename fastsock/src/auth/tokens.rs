//! Tokens from a file: one line for each, a client id and the SHA-256 of the token. Read again when the file changes.

mod watched;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use self::watched::{Stamp, Watched};
use super::{Authenticate, Denied, Digest, Grant, Principal, Shown};
use crate::{
    config::Config,
    error::{Error, ErrorKind, Result},
    files::{self, Reader},
    tasks::{BoxFuture, Tasks},
    types::ClientId,
};

/// The tokens of a file.
///
/// They are found by their SHA-256, whose bits a guess does not choose, in a table with a random key: how long a search takes
/// says nothing about a token.
pub(crate) struct Tokens {
    path: PathBuf,
    known: RwLock<Known>,
    watched: Mutex<Watched>,
}

/// Whose tokens they are.
type Known = HashMap<Digest, ClientId>;

impl Tokens {
    /// Reads the file of the settings. Blocks for as long as that takes.
    ///
    /// # Errors
    /// `Config`, naming the setting, the path and the line.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let failed = |what: &str| Error::new(ErrorKind::Config, format!("{VARIABLE}: {what}"));
        let path = config.auth_tokens_file.clone();
        let path = path.ok_or_else(|| failed("is needed with FASTSOCK_AUTH=tokens"))?;
        let shown = path.display().to_string();
        let cannot = |e| failed(&format!("cannot read {shown:?}: {e}"));
        let stamp = Stamp::of(&path).map_err(cannot)?; // before the text: what changes meanwhile is read again
        let bytes = files::read(&path, LONGEST_BYTES).map_err(cannot)?;
        let known = text(&bytes).and_then(parse);
        let known = known.map_err(|what| failed(&format!("{shown:?}, {what}")))?;
        Ok(Self {
            path,
            known: RwLock::new(known),
            watched: Mutex::new(Watched::read_at_start(stamp, SystemTime::now())),
        })
    }

    /// Looks at the file each second, as a task of `tasks`, and reads it when it has changed and counts. `changed` is called when there
    /// are other tokens.
    ///
    /// All of it happens on a thread of its own: a look may hang, and reading 200,000 tokens takes a third of a second.
    ///
    /// # Errors
    /// `Io` when there is no thread for it.
    pub(crate) fn watch(
        self: Arc<Self>,
        tasks: &Tasks,
        changed: impl Fn() + Send + 'static,
    ) -> Result<()> {
        let look = move || {
            if self.look(Instant::now()) {
                changed();
            }
        };
        let mut reader = Reader::start(look).map_err(|e| {
            Error::new(
                ErrorKind::Io,
                format!("{VARIABLE}: there is no thread to read it"),
            )
            .with_source(e)
        })?;
        tasks.spawn_until_stopped(async move {
            let mut is_late = false;
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let looked = reader.read(LONGEST_LOOK).await;
                match (&looked, is_late) {
                    (Err(error), false) => tracing::error!(%error, "{STAY}"),
                    (Ok(()), true) => tracing::info!("{VARIABLE}: it can be read again"),
                    _ => {}
                }
                is_late = looked.is_err();
            }
        });
        Ok(())
    }

    /// Looks at the file. A bad one changes nothing, and is told once. Whether there are other tokens now.
    fn look(&self, now: Instant) -> bool {
        let mut watched = self.watched.lock();
        let read = match watched.look(&self.path, now) {
            Ok(None) => return false,
            Ok(Some(bytes)) => self
                .take(&bytes, watched.is_whole())
                .map_err(|what| format!("{:?}, {what}", self.path.display().to_string())),
            Err(trouble) => Err(trouble),
        };
        match read {
            Ok((tokens, is_changed)) => {
                if watched.last_error.is_over() || is_changed {
                    tracing::info!(tokens, path = %self.path.display(), "tokens reloaded");
                }
                is_changed
            }
            Err(trouble) => {
                if watched.last_error.is_news(&trouble) {
                    tracing::error!(error = %trouble, "{STAY}");
                }
                false
            }
        }
    }

    /// Takes the tokens of a text: how many there are, and whether they are others. `is_whole`: whoever put it there had finished it.
    fn take(&self, bytes: &[u8], is_whole: bool) -> Result<(usize, bool), String> {
        let text = text(bytes)?;
        let known = parse(text)?;
        let tokens = known.len();
        if known == *self.known.read() {
            return Ok((tokens, false));
        }
        if !is_whole && !text.ends_with('\n') {
            return Err("its last line has no end, so it may be half written".into());
        }
        let before = std::mem::replace(&mut *self.known.write(), known);
        drop(before); // not under the lock: that takes a while
        Ok((tokens, true))
    }

    fn find(&self, token: &str) -> Option<Principal> {
        let digest = Digest::of(&[token.as_bytes()]);
        let client_id = self.known.read().get(&digest)?.clone();
        let grant = Grant {
            until: None,
            token: Some(digest),
        };
        Some(Principal {
            client_id,
            grant: Some(Box::new(grant)),
        })
    }
}

impl Authenticate for Tokens {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        let principal = shown.certified().unwrap_or_else(|| {
            let found = self.find(shown.credential);
            found.ok_or(Denied::Invalid("the token is not valid"))
        });
        Box::pin(std::future::ready(principal))
    }

    fn holds(&self, client_id: &ClientId, grant: &Grant) -> bool {
        let known = self.known.read();
        grant
            .token
            .is_none_or(|token| known.get(&token) == Some(client_id))
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8")?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Lines of a client id, spaces and 64 hexadecimal digits; empty ones and those that begin with `#` are passed over. Nothing at all is no
/// list: whoever wants an empty one says so in a comment.
pub(crate) fn parse(text: &str) -> Result<Known, String> {
    let mut known = Known::new();
    if text.trim().is_empty() {
        return Err(
            "it is empty; for an empty list, write a comment (a line that begins with #)".into(),
        );
    }
    for (index, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", index + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (client_id, digest) = line
            .rsplit_once([' ', '\t'])
            .ok_or_else(|| wrong("give a client id and the SHA-256 of its token"))?;
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

const VARIABLE: &str = "FASTSOCK_AUTH_TOKENS_FILE";
const STAY: &str = "FASTSOCK_AUTH_TOKENS_FILE: not reloaded; the gateway keeps the tokens it has";
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(5);
const LONGEST_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_line_is_a_client_id_and_a_digest() {
        let text = format!("# fleet\n\ndev1 {ABC}\r\n  dev 1\t {EMPTY}  \ndev1 {ABC}\n");
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
            ("s3cret", "line 2: give a client id"),
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
    fn nothing_at_all_is_no_list() {
        for text in ["", "\n", " \r\n\t"] {
            assert!(
                parse(text).unwrap_err().starts_with("it is empty"),
                "{text:?}"
            );
        }
        assert!(parse("# nobody\n").unwrap().is_empty());
        let marked = format!("\u{feff}dev1 {ABC}\n");
        let known = parse(text(marked.as_bytes()).unwrap()).unwrap();
        assert_eq!(known.values().next().unwrap().as_str(), "dev1");
        assert!(text(b"dev\xff").is_err());
    }

    #[test]
    fn half_a_file_is_not_taken_unless_it_is_put_there_as_a_whole() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("dev1 {ABC}\ndev2 {EMPTY}")).unwrap();
        let config = Config::default().auth_tokens_file(Some(file.path().into()));
        let tokens = Tokens::new(&config).unwrap();
        let take = |text: &str, is_whole| tokens.take(text.as_bytes(), is_whole);
        let half = format!("dev1 {ABC}");
        assert!(take(&half, false).unwrap_err().contains("half written"));
        assert!(tokens.find("").is_some());
        assert_eq!(
            take(&format!("dev2 {EMPTY}\ndev1 {ABC}"), false),
            Ok((2, false))
        );
        assert_eq!(take(&half, true), Ok((1, true)));
        assert!(tokens.find("").is_none() && tokens.find("abc").is_some());
        assert!(take("", true).unwrap_err().contains("empty"));
        assert_eq!(take("# nobody\n", false), Ok((0, true)));
    }
}
