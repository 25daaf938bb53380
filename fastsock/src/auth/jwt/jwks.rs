//! A JWK set that changes: where it comes from, when it is looked at again, and what is known of it meanwhile.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{
    super::{Denied, RETRY_AFTER_S},
    key::{self, Fault, Key, Origin},
};
use crate::{
    config::Config,
    error::{Error, ErrorKind, Result},
    files::{self, Reader},
    locks::Mutex,
    net::http::{IDENTITY, endpoint::Endpoint},
    pure::{backoff::Backoff, last_error::LastError, limits::Bucket},
    tasks::Tasks,
};

/// A JWK set. The last good one stays until there is a better.
pub(super) struct Jwks {
    refresh: Duration,
    timeout: Duration,
    known: watch::Sender<Known>,
    /// Wakes the task that looks.
    wanted: Notify,
    asked: Mutex<Asked>,
}

enum Source {
    /// Read on a thread of its own, where it may hang.
    File(Reader<Loaded>),
    Url(Box<Remote>),
}

/// The keys of a set, or what is wrong with it.
type Loaded = Result<Vec<Key>, String>;

struct Remote {
    endpoint: Endpoint,
    headers: HeaderMap,
}

/// What is known, and by how many looks, good or bad.
#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    begun: u64,
    done: u64,
    /// Whether there was a good one.
    is_loaded: bool,
    /// Whether the last one was bad.
    has_failed: bool,
}

/// Looks that unknown keys ask for. A stranger can name any key, and must not make us fetch at will; nor may he use up what the
/// first device with a new key needs.
struct Asked {
    budget: Bucket,
    /// The last look that was asked for.
    look: u64,
}

/// What came of waiting for a look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// There may be other keys now.
    Perhaps,
    /// The set was looked at since, and the key is not in it.
    None,
}

impl Jwks {
    /// Reads a file, or begins to fetch a URL; keeps it up to date as a task of `tasks`.
    ///
    /// # Errors
    /// `Config`, naming the variable: a file that is no JWK set, a URL that cannot be reached by this build.
    pub(super) fn start(place: &str, config: &Config, tasks: &Tasks) -> Result<Arc<Self>> {
        let is_url = place.starts_with("http://") || place.starts_with("https://");
        let (source, known) = match is_url {
            true => (Source::url(place, config, tasks)?, Known::default()),
            false => {
                let (reader, keys) = file(place)?;
                let known = Known {
                    keys,
                    begun: 1,
                    done: 1,
                    is_loaded: true,
                    has_failed: false,
                };
                (Source::File(reader), known)
            }
        };
        let asked = Asked {
            budget: Bucket::of(LOOKS_AT_ONCE, LOOK_AGAIN_AFTER, Instant::now()),
            look: 0,
        };
        let jwks = Arc::new(Self {
            refresh: config.auth.jwt_refresh,
            timeout: config.auth.timeout,
            known: watch::Sender::new(known),
            wanted: Notify::new(),
            asked: Mutex::new(asked),
        });
        tasks.spawn_until_stopped(jwks.clone().keep(source));
        Ok(jwks)
    }

    /// The keys that are known now.
    pub(super) fn with<T>(&self, look: impl FnOnce(&[Key]) -> T) -> T {
        look(&self.known.borrow().keys)
    }

    /// How many looks have begun.
    pub(super) fn looks_begun(&self) -> u64 {
        self.known.borrow().begun
    }

    /// Whether a token with this fault may be signed by a key that is to come. Before the set was there any may be.
    pub(super) fn may_help(&self, fault: Fault) -> bool {
        match fault {
            Fault::UnknownKey => true,
            Fault::Algorithm | Fault::Signature => !self.known.borrow().is_loaded,
            Fault::Malformed | Fault::UnknownAlgorithm => false,
        }
    }

    /// A token is of no known key: waits for a look that may find it. `so_far` are the looks that had begun when the token came.
    ///
    /// # Errors
    /// `Unavailable` when nobody can say that there is no such key: there are no keys yet, the look fails or takes too long, or none
    /// may be made now.
    pub(super) async fn look_for_more(
        &self,
        so_far: u64,
        deadline: Instant,
    ) -> Result<More, Denied> {
        let mut known = self.known.subscribe();
        let (begun, done, is_loaded, has_failed) = {
            let known = known.borrow();
            (known.begun, known.done, known.is_loaded, known.has_failed)
        };
        if !is_loaded {
            let found = known.wait_for(|known| known.is_loaded);
            return match timeout_at(deadline, found).await {
                Ok(Ok(_)) => Ok(More::Perhaps),
                _ => Err(Denied::Unavailable(
                    "the keys are not known yet",
                    RETRY_AFTER_S,
                )),
            };
        }
        if done > so_far {
            return match has_failed {
                true => Err(CANNOT_ASK),
                false => Ok(More::None),
            };
        }
        let look = match begun > done {
            true => begun, // one is on its way
            false => self.ask(begun)?,
        };
        match timeout_at(deadline, known.wait_for(|known| known.done >= look)).await {
            Ok(Ok(_)) => Ok(More::Perhaps),
            _ => Err(CANNOT_ASK),
        }
    }

    /// Asks for the look after those that have begun, and says which that is. Many may ask for one.
    fn ask(&self, begun: u64) -> Result<u64, Denied> {
        let mut asked = self.asked.lock();
        if asked.look <= begun {
            let now = Instant::now();
            if !asked.budget.try_take(now) {
                let wait = asked.budget.wait(now).as_secs_f64().ceil();
                return Err(Denied::Unavailable(
                    "the keys were looked at a moment ago",
                    wait as u32,
                ));
            }
            asked.look = begun + 1;
            self.wanted.notify_one();
        }
        Ok(asked.look)
    }

    /// Looks again and again, for ever.
    async fn keep(self: Arc<Self>, mut source: Source) {
        let backoff = Backoff::new(RETRY_FIRST, RETRY_LAST.min(self.refresh));
        let mut failures = 0;
        let mut last_error = LastError::default();
        let mut pause = match source {
            Source::File(_) => self.refresh, // it was read at the start
            Source::Url(_) => Duration::ZERO,
        };
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
            self.known.send_if_modified(|known| {
                known.begun += 1;
                false // nobody waits for that
            });
            let loaded = source.load(self.timeout).await;
            pause = match &loaded {
                Ok(_) => {
                    failures = 0;
                    self.refresh
                }
                Err(_) => {
                    failures += 1;
                    backoff.delay(failures)
                }
            };
            match &loaded {
                Err(error) if last_error.is_news(error) => {
                    tracing::error!(%error, "{VARIABLE}: not reloaded; the gateway keeps the keys it has");
                }
                Ok(keys) if last_error.is_over() => {
                    tracing::warn!(keys = keys.len(), "{VARIABLE}: it can be read again");
                }
                _ => {}
            }
            self.known.send_modify(|known| {
                known.done = known.begun;
                known.has_failed = loaded.is_err();
                if let Ok(keys) = loaded {
                    known.keys = keys;
                    known.is_loaded = true;
                }
            });
        }
    }
}

impl Source {
    fn url(place: &str, config: &Config, tasks: &Tasks) -> Result<Self> {
        let endpoint = Endpoint::new(VARIABLE, place, config.into(), tasks.clone())?;
        let mut headers = endpoint.headers();
        let json = HeaderValue::from_static("application/jwk-set+json, application/json");
        headers.insert(header::ACCEPT, json);
        headers.insert(header::ACCEPT_ENCODING, IDENTITY.clone());
        super::super::warn_of_plain_http(VARIABLE, &endpoint.url);
        Ok(Self::Url(Box::new(Remote { endpoint, headers })))
    }

    async fn load(&mut self, timeout: Duration) -> Loaded {
        match self {
            Self::File(reader) => reader.read(timeout).await.map_err(|e| e.to_string())?,
            Self::Url(remote) => {
                let Remote { endpoint, headers } = &**remote;
                let Endpoint { client, target, .. } = endpoint;
                let deadline = Instant::now() + timeout;
                let answer = client.ask(Method::GET, target, headers, Bytes::new(), deadline);
                match answer.await? {
                    (status, body) if status == 200 => {
                        key::from_jwks(&body, Origin::Url).map_err(str::to_owned)
                    }
                    (status, _) => Err(format!("it was answered with status {}", status.as_u16())),
                }
            }
        }
    }
}

/// The keys of a file, and how to read it again.
fn file(path: &str) -> Result<(Reader<Loaded>, Vec<Key>)> {
    let failed = |what| Error::new(ErrorKind::Config, format!("{VARIABLE}: {what}"));
    let path = path.to_owned();
    let read = move || {
        let text = files::read(Path::new(&path), LONGEST_BYTES)
            .map_err(|e| format!("cannot read {path:?}: {e}"))?;
        key::from_jwks(&text, Origin::File).map_err(|what| format!("{path:?}: {what}"))
    };
    let keys = read().map_err(failed)?;
    let reader = Reader::start(read)
        .map_err(|e| failed("there is no thread to read it".into()).with_source(e))?;
    Ok((reader, keys))
}

const VARIABLE: &str = "FASTSOCK_AUTH_JWT_JWKS";
const CANNOT_ASK: Denied = Denied::Unavailable("the keys cannot be asked for", RETRY_AFTER_S);
const LONGEST_BYTES: u64 = 1 << 20;
const LOOKS_AT_ONCE: u32 = 5;
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
