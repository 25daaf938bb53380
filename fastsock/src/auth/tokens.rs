//! Tokens and passwords from a file: one line for each, a client id and its hash. Read again when the file changes.

mod watched;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use self::watched::Watched;
use super::{
    Authenticate, Denied, Digest, Grant, Principal, Shown,
    passwords::{Passwords, SlowHash},
};
use crate::{
    config::Config,
    error::{Error, ErrorKind, Result},
    files::{self, Reader, stamp::Stamp},
    locks::{Mutex, RwLock},
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
    passwords: Passwords,
    watched: Mutex<Watched>,
}

/// What the file says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Known {
    /// Whose tokens they are.
    tokens: HashMap<Digest, ClientId>,
    /// Hashes that are slow to check, so they are looked up by whose they are.
    slow: HashMap<ClientId, Vec<SlowHash>>,
    /// One of them: it is checked for who has none.
    decoy: Option<SlowHash>,
}

impl Known {
    fn len(&self) -> usize {
        self.tokens.len() + self.slow.values().map(Vec::len).sum::<usize>()
    }

    fn holds(&self, client_id: &ClientId, digest: Digest) -> bool {
        let is_slow = || {
            let mut hashes = self.slow.get(client_id).into_iter().flatten();
            hashes.any(|hash| hash.digest() == digest)
        };
        self.tokens.get(&digest) == Some(client_id) || is_slow()
    }
}

impl Tokens {
    /// Reads the file of the settings. Blocks for as long as that takes.
    ///
    /// # Errors
    /// `Config`, naming the setting, the path and the line.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let failed = |what: &str| Error::new(ErrorKind::Config, format!("{VARIABLE}: {what}"));
        let path = config.auth.tokens_file.clone();
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
            passwords: Passwords::new(config.auth.timeout, config.auth.cache),
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
                    (Ok(()), true) => tracing::warn!("{VARIABLE}: it can be read again"),
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
        let client_id = self.known.read().tokens.get(&digest)?.clone();
        Some(granted(client_id, digest))
    }

    async fn check(&self, client_id: ClientId, password: &[u8]) -> Result<Principal, Denied> {
        let digest = Digest::of(&[password]);
        let (is_token, hashes, decoy) = {
            let known = self.known.read();
            let is_token = !password.is_empty() && known.tokens.get(&digest) == Some(&client_id);
            let hashes = known.slow.get(&client_id).filter(|_| !password.is_empty());
            let hashes = hashes.cloned().unwrap_or_default();
            (is_token, hashes, known.decoy.clone())
        };
        if is_token {
            return Ok(granted(client_id, digest));
        }
        let Some(decoy) = decoy else {
            return Err(WRONG);
        };
        let found = self.passwords.find(hashes, &decoy, password).await?;
        let hash = found.ok_or(WRONG)?;
        Ok(granted(client_id, hash.digest()))
    }
}

/// Let in on a token or a hash that can be withdrawn.
fn granted(client_id: ClientId, digest: Digest) -> Principal {
    let grant = Grant {
        until: None,
        token: Some(digest),
        ..Grant::default()
    };
    Principal {
        client_id,
        grant: Some(Box::new(grant)),
        profile: None,
    }
}

impl Authenticate for Tokens {
    fn reload(&self) {
        self.watched.lock().hurry();
    }

    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(async move {
            if let Some(principal) = shown.certified() {
                return principal;
            }
            match (shown.password, shown.client_id_of_user()) {
                (Some(password), Some(client_id)) => self.check(client_id, password).await,
                _ => {
                    let found = self.find(shown.credential);
                    found.ok_or(Denied::Invalid("the token is not valid"))
                }
            }
        })
    }

    fn holds(&self, client_id: &ClientId, grant: &Grant) -> bool {
        let known = self.known.read();
        grant
            .token
            .is_none_or(|token| known.holds(client_id, token))
    }

    fn takes_passwords(&self) -> bool {
        true
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8")?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Lines of a client id, spaces and a hash: 64 hexadecimal digits of a SHA-256, Argon2id, or bcrypt. Empty ones and those that begin with `#` are passed over. Nothing at all is no
/// list: whoever wants an empty one says so in a comment.
pub(crate) fn parse(text: &str) -> Result<Known, String> {
    let mut known = Known::default();
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
        let (client_id, hash) = line
            .rsplit_once([' ', '\t'])
            .ok_or_else(|| wrong("give a client id and the hash of its token"))?;
        let client_id = ClientId::new(client_id.trim_end())
            .ok_or_else(|| wrong("a client id has 1 to 8192 bytes"))?;
        let Some(digest) = Digest::from_hex(hash) else {
            let hash =
                SlowHash::parse(hash).map_err(|why| wrong(&format!("the last word {why}")))?;
            known.decoy.get_or_insert_with(|| hash.clone());
            let hashes = known.slow.entry(client_id).or_default();
            if !hashes.contains(&hash) {
                hashes.push(hash);
            }
            if hashes.len() > MOST_SLOW {
                return Err(wrong("this client id has more than 4 slow hashes"));
            }
            continue;
        };
        let other = known.tokens.get(&digest);
        if other.is_some_and(|other| *other != client_id) {
            return Err(wrong("another client id has this token already"));
        }
        known.tokens.insert(digest, client_id);
    }
    Ok(known)
}

const VARIABLE: &str = "FASTSOCK_AUTH_TOKENS_FILE";
const STAY: &str = "FASTSOCK_AUTH_TOKENS_FILE: not reloaded; the gateway keeps the tokens it has";
const WRONG: Denied = Denied::Invalid("the user or the password is wrong");
/// Slow hashes of one client id: a wrong password is checked against all of them.
const MOST_SLOW: usize = 4;
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
        let name = |digest| known.tokens[&Digest::from_hex(digest).unwrap()].to_string();
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
        assert_eq!(parse("# nobody\n").unwrap().len(), 0);
        let marked = format!("\u{feff}dev1 {ABC}\n");
        let known = parse(text(marked.as_bytes()).unwrap()).unwrap();
        assert_eq!(known.tokens.values().next().unwrap().as_str(), "dev1");
        assert!(text(b"dev\xff").is_err());
    }

    #[tokio::test]
    async fn an_empty_password_is_wrong_whatever_its_hash() {
        // Of the empty text: 8 KiB and one pass; a cost of 4.
        const ARGON2: &str = "$argon2id$v=19$m=8,t=1,p=1$vKsGnctoFjCk/qcbn7cL2g$d6Zb1XT5Xw1xZJWR7AIKcvN//2PjhYVk9R8OGr5Y/KE";
        const BCRYPT: &str = "$2b$04$.j7iakTPA6Gi5kjhpQdOvOpwwwo.nNLI3Sr/o599Ku.MLE1QLpINO";
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = [EMPTY, ARGON2, BCRYPT].map(|hash| format!("dev1 {hash}\n"));
        fs::write(file.path(), lines.concat()).unwrap();
        let config = Config::default().auth_tokens_file(Some(file.path().into()));
        let tokens = Tokens::new(&config).unwrap();
        let checked = tokens.check(ClientId::new("dev1").unwrap(), b"").await;
        assert_eq!(checked.err(), Some(WRONG));
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
