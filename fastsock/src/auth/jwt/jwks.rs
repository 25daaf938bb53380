//! A JWK set that changes: where it comes from, when it is looked at again, and what is known of it meanwhile.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};
use url::Url;

use super::{
    super::Denied,
    key::{self, Fault, Key, Origin},
};
use crate::{
    backoff::Backoff,
    config::Config,
    error::{Error, ErrorKind, Result},
    http::{Client, Target, basic_auth},
    tasks::Tasks,
};

/// A JWK set. The last good one stays until there is a better.
pub(super) struct Jwks {
    source: Source,
    refresh: Duration,
    timeout: Duration,
    known: watch::Sender<Known>,
    /// Wakes the task that looks.
    wanted: Notify,
    asked: Mutex<Option<Asked>>,
}

enum Source {
    File(PathBuf),
    Url(Box<Remote>),
}

struct Remote {
    client: Client,
    target: Target,
    headers: HeaderMap,
}

#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    /// Looks so far, good or bad.
    looks: u64,
}

/// When an unknown key last was a reason to look, and which look will tell.
#[derive(Clone, Copy)]
struct Asked {
    at: Instant,
    look: u64,
}

impl Jwks {
    /// Reads a file, or begins to fetch a URL; keeps it up to date as a task of `tasks`.
    ///
    /// # Errors
    /// `Config`, naming the variable: a file that is no JWK set, a URL that cannot be reached by this build.
    pub(super) fn start(place: &str, config: &Config, tasks: &Tasks) -> Result<Arc<Self>> {
        let source = Source::new(place, config, tasks)?;
        let mut known = Known::default();
        if let Source::File(path) = &source {
            let keys = read(path)
                .map_err(|what| Error::new(ErrorKind::Config, format!("{VARIABLE}: {what}")))?;
            known = Known { keys, looks: 1 };
        }
        let jwks = Arc::new(Self {
            source,
            refresh: config.auth_jwt_refresh,
            timeout: config.auth_timeout,
            known: watch::Sender::new(known),
            wanted: Notify::new(),
            asked: Mutex::new(None),
        });
        tasks.spawn_until_stopped(jwks.clone().keep());
        Ok(jwks)
    }

    /// The keys that are known now.
    pub(super) fn with<T>(&self, look: impl FnOnce(&[Key]) -> T) -> T {
        look(&self.known.borrow().keys)
    }

    /// A token is of no known key: waits for a look that may find it. Only once a minute is that a reason to look.
    ///
    /// # Errors
    /// `Unavailable` when no key is known at all by the deadline.
    pub(super) async fn look_for(&self, fault: Fault, deadline: Instant) -> Result<(), Denied> {
        let mut known = self.known.subscribe();
        if known.borrow().keys.is_empty() {
            let found = known.wait_for(|known| !known.keys.is_empty());
            return match timeout_at(deadline, found).await {
                Ok(Ok(_)) => Ok(()),
                _ => Err(Denied::Unavailable("the keys are not known yet")),
            };
        }
        if fault == (Fault::UnknownKey { is_named: true }) {
            let asked = self.ask(known.borrow().looks);
            let _ = timeout_at(deadline, known.wait_for(|known| known.looks >= asked.look)).await;
        }
        Ok(())
    }

    /// Asks for a look, unless one was asked for within the last minute: that one has to do.
    fn ask(&self, looks: u64) -> Asked {
        let mut asked = self.asked.lock();
        let now = Instant::now();
        match *asked {
            Some(recent) if now < recent.at + ASK_AGAIN_AFTER => recent,
            _ => {
                self.wanted.notify_one();
                let look = looks + 1;
                *asked.insert(Asked { at: now, look })
            }
        }
    }

    /// Looks again and again, for ever.
    async fn keep(self: Arc<Self>) {
        let backoff = Backoff::new(RETRY_FIRST, RETRY_LAST.min(self.refresh));
        let mut failures = 0;
        let mut trouble: Option<String> = None;
        let mut pause = match self.source {
            Source::File(_) => self.refresh, // it was read at the start
            Source::Url(_) => Duration::ZERO,
        };
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
            let loaded = self.source.load(self.timeout).await;
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
            let told = loaded.as_ref().err().cloned();
            match (&loaded, &trouble) {
                (Err(error), known) if known.as_ref() != Some(error) => {
                    tracing::error!(%error, "{VARIABLE}: the keys before it stay");
                }
                (Ok(keys), Some(_)) => {
                    tracing::info!(keys = keys.len(), "{VARIABLE}: there it is again");
                }
                _ => {}
            }
            trouble = told;
            self.known.send_modify(|known| {
                known.looks += 1;
                if let Ok(keys) = loaded {
                    known.keys = keys;
                }
            });
        }
    }
}

impl Source {
    fn new(place: &str, config: &Config, tasks: &Tasks) -> Result<Self> {
        let is_url = place.starts_with("http://") || place.starts_with("https://");
        if !is_url {
            return Ok(Self::File(place.into()));
        }
        let bad = || {
            let text = format!("{VARIABLE}: this build cannot reach such a URL");
            Error::new(ErrorKind::Config, text)
        };
        let url = Url::parse(place).map_err(|e| bad().with_source(e))?;
        let client = Client::new(config, tasks.clone())?;
        let target = client.target(&url).ok_or_else(bad)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, target.host().clone());
        let json = HeaderValue::from_static("application/jwk-set+json, application/json");
        headers.insert(header::ACCEPT, json);
        if let Some(authorization) = basic_auth(&url) {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        super::super::warn_of_plain_http(VARIABLE, &url);
        Ok(Self::Url(Box::new(Remote {
            client,
            target,
            headers,
        })))
    }

    async fn load(&self, timeout: Duration) -> Result<Vec<Key>, String> {
        match self {
            Self::File(path) => read(path),
            Self::Url(remote) => {
                let Remote {
                    client,
                    target,
                    headers,
                } = &**remote;
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

/// Reads a file, on a thread that serves devices: it is small, and seldom read.
fn read(path: &PathBuf) -> Result<Vec<Key>, String> {
    let shown = path.display().to_string();
    let text = std::fs::read(path).map_err(|e| format!("cannot read {shown:?}: {e}"))?;
    key::from_jwks(&text, Origin::File).map_err(|what| format!("{shown:?}: {what}"))
}

const VARIABLE: &str = "FASTSOCK_AUTH_JWT_JWKS";
/// A stranger can name any key: it must not make us fetch at will.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
