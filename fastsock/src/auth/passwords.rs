//! Passwords that are hashed slowly on purpose (Argon2id, bcrypt): on few threads, before a line of limited length, and not again for
//! who has just shown the right one. A storm of devices that come back cannot take the processors from those that are connected.

use std::{collections::HashMap, sync::Arc, time::Duration};

use argon2::{
    Argon2, Params,
    password_hash::{PasswordVerifier, phc::PasswordHash},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{Denied, Digest, RETRY_AFTER_S};
use crate::{locks::Mutex, tasks};

/// A line of the tokens file that is slow to check: `$argon2id$…` or a bcrypt hash.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct SlowHash(Arc<str>);

/// Checks passwords.
pub(crate) struct Passwords {
    /// Those that are checked, and those that wait.
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    timeout: Duration,
    remember: Duration,
    /// Which were right, by a hash that only this process can make.
    known: Mutex<Known>,
    key: [u8; 32],
}

/// Until when, in two halves: when the young one is full the old one is forgotten.
#[derive(Default)]
struct Known {
    young: HashMap<[u8; 32], Instant>,
    old: HashMap<[u8; 32], Instant>,
}

impl std::fmt::Debug for SlowHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SlowHash")
    }
}

impl SlowHash {
    /// # Errors
    /// Why it is none, for a line that goes on; nothing of it is in there.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let is_within = if text.starts_with("$argon2id$") {
            let hash = PasswordHash::new(text).map_err(|_| MALFORMED)?;
            let params = Params::try_from(&hash).map_err(|_| MALFORMED)?;
            if hash.salt.is_none() || hash.hash.is_none() {
                return Err(MALFORMED);
            }
            params.m_cost() <= MOST_KIB && params.t_cost() <= MOST_PASSES
        } else {
            let parts: bcrypt::HashParts = text.parse().map_err(|_| MALFORMED)?;
            parts.get_cost() <= MOST_COST
        };
        match is_within {
            true => Ok(Self(text.into())),
            false => {
                Err("is dearer than 256 MiB and 32 passes (Argon2id) or a cost of 14 (bcrypt)")
            }
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&[self.0.as_bytes()])
    }

    /// Takes its time.
    fn is_of(&self, password: &[u8]) -> bool {
        match self.0.starts_with("$argon2id$") {
            true => Argon2::default()
                .verify_password(password, &*self.0)
                .is_ok(),
            // bcrypt looks at 71 bytes: what differs behind them is not the same password.
            false => bcrypt::non_truncating_verify(password, &self.0).unwrap_or(false),
        }
    }
}

impl Passwords {
    /// `timeout`: how long a device waits for its turn and the check. `remember`: how long a right password is not checked again.
    pub(crate) fn new(timeout: Duration, remember: Duration) -> Self {
        // As many as leave a processor to everybody else.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = (processors / 2).max(1);
        Self {
            places: Arc::new(Semaphore::new(turns + WAITING)),
            turns: Arc::new(Semaphore::new(turns)),
            timeout,
            remember,
            known: Mutex::default(),
            key: random_key(),
        }
    }

    /// Which of these is of the password. `decoy` is checked when there are none, so that who is unknown waits as long.
    ///
    /// # Errors
    /// `Unavailable` when too many wait, or it takes too long.
    pub(crate) async fn find(
        &self,
        hashes: Vec<SlowHash>,
        decoy: &SlowHash,
        password: &[u8],
    ) -> Result<Option<SlowHash>, Denied> {
        for hash in &hashes {
            if self.remembers(self.mark(hash, password)) {
                return Ok(Some(hash.clone()));
            }
        }
        let deadline = Instant::now() + self.timeout;
        let place = self.places.clone().try_acquire_owned().map_err(|_| BUSY)?;
        let turn = timeout_at(deadline, self.turns.clone().acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(BUSY);
        };
        let (done, found) = oneshot::channel();
        let (decoy, password_there) = (decoy.clone(), password.to_vec());
        let check = move || {
            let found = match hashes.is_empty() {
                true => {
                    let _ = decoy.is_of(&password_there);
                    None
                }
                false => hashes.into_iter().find(|hash| hash.is_of(&password_there)),
            };
            drop((turn, place)); // held until here, also for a device that has left meanwhile
            let _ = done.send(found);
        };
        tasks::detach("fastsock-passwords", check).map_err(|_| BUSY)?;
        let Ok(Ok(found)) = timeout_at(deadline, found).await else {
            return Err(BUSY);
        };
        if let Some(hash) = &found {
            self.remember(self.mark(hash, password));
        }
        Ok(found)
    }

    fn mark(&self, hash: &SlowHash, password: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes any key");
        mac.update(hash.0.as_bytes()); // which has no NUL in it
        mac.update(b"\0");
        mac.update(password);
        mac.finalize().into_bytes().into()
    }

    fn remembers(&self, mark: [u8; 32]) -> bool {
        let known = self.known.lock();
        let until = known.young.get(&mark).or_else(|| known.old.get(&mark));
        until.is_some_and(|until| Instant::now() < *until)
    }

    fn remember(&self, mark: [u8; 32]) {
        if self.remember.is_zero() {
            return;
        }
        let mut known = self.known.lock();
        if known.young.len() >= REMEMBERED / 2 {
            known.old = std::mem::take(&mut known.young);
        }
        known.young.insert(mark, Instant::now() + self.remember);
    }
}

/// Some 300 bits of the system's randomness.
fn random_key() -> [u8; 32] {
    let parts = [(); 4].map(|()| Uuid::now_v7().into_bytes());
    Sha256::digest(parts.concat()).into()
}

const MALFORMED: &str =
    "is neither a SHA-256 of 64 hexadecimal digits nor an Argon2id or bcrypt hash";
const BUSY: Denied = Denied::Unavailable("too many passwords are being checked", RETRY_AFTER_S);
/// Devices that wait for their turn.
const WAITING: usize = 64;
/// Right passwords that are remembered, some 100 bytes each.
const REMEMBERED: usize = 10_000;
const MOST_KIB: u32 = 256 << 10;
const MOST_PASSES: u32 = 32;
const MOST_COST: u32 = 14;

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "s3cret": 8 KiB and one pass; a cost of 4.
    pub(crate) const ARGON2: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$3OvS6jSugpdpVu5kNSgFycTcIM0OTTXcJWJS1g564qw";
    pub(crate) const BCRYPT: &str = "$2b$04$n2xhKk0WSp7gtKpPACALwewUxAyL9iPYc7.Ay4gUYufYZrpBtu85e";

    #[tokio::test]
    async fn a_password_is_found_among_the_hashes_of_its_user_and_remembered() {
        let passwords = Passwords::new(Duration::from_secs(60), Duration::from_secs(60));
        let (argon2, bcrypt) = (
            SlowHash::parse(ARGON2).unwrap(),
            SlowHash::parse(BCRYPT).unwrap(),
        );
        for hash in [&argon2, &bcrypt] {
            let find =
                |password: &'static [u8]| passwords.find(vec![hash.clone()], &argon2, password);
            assert!(find(b"s3cret").await.unwrap().as_ref() == Some(hash));
            assert!(passwords.remembers(passwords.mark(hash, b"s3cret")));
            for wrong in [&b"s3cre"[..], b"s3cret\0", b"S3cret", b"", b"\xff"] {
                assert!(find(wrong).await.unwrap().is_none(), "{wrong:?}");
                assert!(!passwords.remembers(passwords.mark(hash, wrong)));
            }
        }
        let nobody = passwords.find(Vec::new(), &argon2, b"s3cret").await;
        assert!(nobody.unwrap().is_none());
    }

    #[tokio::test]
    async fn when_too_many_wait_the_next_is_told_to_come_back_and_who_is_remembered_need_not_wait()
    {
        let passwords = Passwords::new(Duration::from_secs(60), Duration::from_secs(60));
        let hash = SlowHash::parse(BCRYPT).unwrap();
        let find = |password: &'static [u8]| passwords.find(vec![hash.clone()], &hash, password);
        assert!(find(b"s3cret").await.unwrap().is_some());
        let all = u32::try_from(passwords.places.available_permits()).unwrap();
        let taken = passwords
            .places
            .clone()
            .try_acquire_many_owned(all)
            .unwrap();
        assert!(matches!(find(b"other").await, Err(Denied::Unavailable(..))));
        assert!(find(b"s3cret").await.unwrap().is_some());
        drop(taken);
        assert!(find(b"other").await.unwrap().is_none());
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let passwords = Passwords::new(Duration::from_secs(1), Duration::from_secs(60));
        for n in 0..3 * REMEMBERED as u64 {
            let mut mark = [0; 32];
            mark[..8].copy_from_slice(&n.to_be_bytes());
            passwords.remember(mark);
            let known = passwords.known.lock();
            assert!(known.young.len() + known.old.len() <= REMEMBERED);
        }
    }

    #[test]
    fn a_hash_that_is_too_dear_or_of_another_kind_is_refused() {
        for bad in [
            "",
            "s3cret",
            "$argon2id$",
            "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$Y2FsY3VsYXRlZGhhc2g",
            "$argon2id$v=19$m=262145,t=1,p=1$c29tZXNhbHQ$Y2FsY3VsYXRlZGhhc2g",
            "$argon2id$v=19$m=8,t=33,p=1$c29tZXNhbHQ$Y2FsY3VsYXRlZGhhc2g",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ",
            "$2b$15$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234",
            "$1$salt$hash",
        ] {
            assert!(SlowHash::parse(bad).is_err(), "{bad}");
        }
    }
}
