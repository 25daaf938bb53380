//! An HTTP endpoint that says who may connect: asked once for many, remembered for a while, and never guessed.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout_at},
};

use super::{Authenticate, Denied, Digest, Grant, Principal, Shown};
use crate::{
    config::{Config, Headers, Secret},
    error::Result,
    net::http::{
        IDENTITY,
        endpoint::{self, Endpoint},
    },
    remote_addr::RemoteAddr,
    tasks::{BoxFuture, Tasks},
    types::ClientId,
};

/// Asks `auth_url`. Handshakes that show the same at the same time share one answer, and who was let in is let in again for
/// `auth_cache` without asking.
pub(crate) struct Webhook {
    endpoint: Endpoint,
    headers: HeaderMap,
    timeout: Duration,
    cache: Duration,
    turns: Semaphore,
    answers: Mutex<Answers>,
    /// Whether the last thing told of it was trouble.
    is_down: AtomicBool,
}

/// Answers by what was shown, in two halves: when the young one is full the old one is forgotten, so that strangers can
/// neither fill the memory nor make anyone search it.
#[derive(Default)]
struct Answers {
    young: HashMap<Digest, Pending>,
    old: HashMap<Digest, Pending>,
}

/// One answer: given, or being waited for by everyone who shows the same.
type Pending = Arc<OnceCell<Answer>>;

/// What came of asking.
#[derive(Clone)]
struct Answer {
    verdict: Result<(ClientId, Option<Instant>), Denied>,
    /// Until when it need not be asked again.
    fresh_until: Instant,
}

/// What the endpoint is asked.
#[derive(Serialize)]
struct Question<'a> {
    credential: &'a str,
    place: &'static str,
    remote_addr: RemoteAddr,
}

/// What it says.
#[derive(Deserialize)]
struct Reply {
    allow: bool,
    client_id: Option<String>,
    /// Seconds since 1970.
    expires_at: Option<f64>,
}

impl Webhook {
    /// Prepares to ask. Its connections are tasks of `tasks`.
    ///
    /// # Errors
    /// `Config`, naming the variable.
    pub(crate) fn new(config: &Config, tasks: Tasks) -> Result<Self> {
        let url = config.auth_url.as_ref().map_or("", Secret::expose);
        let endpoint = Endpoint::new("FASTSOCK_AUTH_URL", url, config.into(), tasks)?;
        super::warn_of_plain_http("FASTSOCK_AUTH_URL", &endpoint.url);
        Ok(Self {
            headers: headers(&config.auth_headers, &endpoint)?,
            endpoint,
            timeout: config.auth_timeout,
            cache: config.auth_cache,
            turns: Semaphore::new(config.auth_concurrency),
            answers: Mutex::default(),
            is_down: AtomicBool::new(false),
        })
    }

    async fn decide(&self, shown: Shown<'_>) -> Result<Principal, Denied> {
        let key = Digest::of(&[
            shown.source.as_str().as_bytes(),
            b"\0",
            shown.credential.as_bytes(),
        ]);
        let pending = self.answers.lock().pending(key);
        // Whoever comes first asks; should that device leave, the next one does.
        let deadline = Instant::now() + self.timeout;
        let asked = pending.get_or_init(|| self.ask(shown, deadline));
        let Ok(answer) = timeout_at(deadline, asked).await else {
            return Err(UNAVAILABLE);
        };
        if Instant::now() >= answer.fresh_until {
            self.answers.lock().forget(key, &pending);
        }
        let (client_id, until) = answer.verdict.clone()?;
        let grant = until.map(|until| Grant {
            until: Some(until),
            token: None,
        });
        Ok(Principal {
            client_id,
            grant: grant.map(Box::new),
        })
    }

    async fn ask(&self, shown: Shown<'_>, deadline: Instant) -> Answer {
        let verdict = match self.reply(shown, deadline).await {
            Ok(verdict) => {
                if self.is_down.swap(false, Relaxed) {
                    tracing::info!("the authentication webhook answers again");
                }
                verdict
            }
            Err(error) => {
                if !self.is_down.swap(true, Relaxed) {
                    tracing::error!(%error, "the authentication webhook does not answer; the gateway lets nobody in by it");
                } else {
                    tracing::debug!(%error, "the authentication webhook does not answer");
                }
                Err(UNAVAILABLE)
            }
        };
        let now = Instant::now();
        let fresh_until = match &verdict {
            Ok((_, until)) => until.map_or(now + self.cache, |until| until.min(now + self.cache)),
            Err(_) => now,
        };
        Answer {
            verdict,
            fresh_until,
        }
    }

    /// The outer error is that it could not be asked.
    async fn reply(
        &self,
        shown: Shown<'_>,
        deadline: Instant,
    ) -> Result<Result<(ClientId, Option<Instant>), Denied>, String> {
        let _turn = timeout_at(deadline, self.turns.acquire())
            .await
            .map_err(|_| "no turn in time")?;
        let question = Question {
            credential: shown.credential,
            place: shown.source.as_str(),
            remote_addr: shown.remote_addr,
        };
        let body = serde_json::to_vec(&question).map_err(|e| e.to_string())?;
        let Endpoint { client, target, .. } = &self.endpoint;
        let asked = client.ask(Method::POST, target, &self.headers, body.into(), deadline);
        let (status, body) = asked.await?;
        judge(status, &body)
    }
}

impl Authenticate for Webhook {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(self.decide(shown))
    }
}

/// What an answer means. The error has nothing of the body in it.
fn judge(
    status: StatusCode,
    body: &[u8],
) -> Result<Result<(ClientId, Option<Instant>), Denied>, String> {
    match status.as_u16() {
        200..=299 => {}
        401 => return Ok(Err(Denied::Invalid("the token is not valid"))),
        403 => return Ok(Err(Denied::Forbidden(NOT_ALLOWED))),
        status => return Err(format!("it answered with status {status}")),
    }
    let reply: Reply = serde_json::from_slice(body)
        .map_err(|_| "its answer is not {\"allow\":…,\"client_id\":…,\"expires_at\":…}")?;
    if !reply.allow {
        return Ok(Err(Denied::Forbidden(NOT_ALLOWED)));
    }
    let client_id = reply.client_id.and_then(ClientId::new);
    let client_id = client_id.ok_or("its answer allows a device without a client_id")?;
    let Some(seconds) = reply.expires_at else {
        return Ok(Ok((client_id, None)));
    };
    let at = super::unix_time(seconds).ok_or("its answer has a bad expires_at")?;
    if at <= SystemTime::now() {
        return Ok(Err(Denied::Invalid("the token has expired")));
    }
    Ok(Ok((client_id, Grant::until(at).until)))
}

impl Answers {
    /// The answer to use: a fresh one, one that is being waited for, or a new one to be filled.
    fn pending(&mut self, key: Digest) -> Pending {
        let known = self.young.get(&key).or_else(|| self.old.get(&key));
        let now = Instant::now();
        let is_good = |p: &&Pending| p.get().is_none_or(|answer| now < answer.fresh_until);
        if let Some(pending) = known.filter(is_good) {
            return pending.clone();
        }
        if self.young.len() >= REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let pending = Pending::default();
        self.young.insert(key, pending.clone());
        pending
    }

    /// Drops an answer that is not to be used again, unless another one has its place already.
    fn forget(&mut self, key: Digest, pending: &Pending) {
        for half in [&mut self.young, &mut self.old] {
            if half.get(&key).is_some_and(|p| Arc::ptr_eq(p, pending)) {
                half.remove(&key);
            }
        }
    }
}

/// The headers of a question, with what is configured on top.
fn headers(over: &Headers, endpoint: &Endpoint) -> Result<HeaderMap> {
    const SETTING: &str = "FASTSOCK_AUTH_HEADERS";
    let json = HeaderValue::from_static("application/json");
    let mut headers = endpoint.headers();
    headers.insert(header::ACCEPT, json.clone());
    headers.insert(header::ACCEPT_ENCODING, IDENTITY.clone());
    headers.insert(header::CONTENT_TYPE, json);
    if let Some(name) = endpoint::framing(over).next() {
        return Err(endpoint::not_allowed(SETTING, name));
    }
    endpoint::lay_over(&mut headers, SETTING, over, |_| true)?;
    Ok(headers)
}

const UNAVAILABLE: Denied =
    Denied::Unavailable("authentication is not available", super::RETRY_AFTER_S);
const NOT_ALLOWED: &str = "not allowed";
/// Answers kept at most, some 200 bytes each.
const REMEMBERED: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lets_in_only_when_it_says_so_in_full() {
        let verdict = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let verdict = judge(status, body.as_bytes());
            verdict.map(|verdict| verdict.map(|(id, until)| (id.to_string(), until.is_some())))
        };
        let dev1 = |expires| Ok(Ok(("dev1".to_owned(), expires)));
        let no = Ok(Err(Denied::Forbidden(NOT_ALLOWED)));
        for (status, body, expected) in [
            (200, r#"{"allow":true,"client_id":"dev1"}"#, &dev1(false)),
            (
                201,
                r#"{"allow":true,"client_id":"dev1","more":1}"#,
                &dev1(false),
            ),
            (
                200,
                r#"{"allow":true,"client_id":"dev1","expires_at":null}"#,
                &dev1(false),
            ),
            (
                200,
                r#"{"allow":true,"client_id":"dev1","expires_at":9999999999}"#,
                &dev1(true),
            ),
            (200, r#"{"allow":false,"client_id":"dev1"}"#, &no),
            (200, r#"{"allow":false}"#, &no),
            (403, r#"{"allow":true,"client_id":"dev1"}"#, &no),
        ] {
            assert_eq!(&verdict(status, body), expected, "{status} {body}");
        }
        for (status, body) in [
            (200, r#"{"allow":true,"client_id":"dev1","expires_at":1}"#),
            (401, r#"{"allow":true,"client_id":"dev1"}"#),
        ] {
            let verdict = verdict(status, body);
            assert!(
                matches!(verdict, Ok(Err(Denied::Invalid(_)))),
                "{status} {body}"
            );
        }
        for (status, body) in [
            (200, ""),
            (200, "{}"),
            (200, "null"),
            (200, "true"),
            (200, r#"{"allow":"true","client_id":"dev1"}"#),
            (200, r#"{"allow":1,"client_id":"dev1"}"#),
            (200, r#"{"allow":true}"#),
            (200, r#"{"allow":true,"client_id":""}"#),
            (200, r#"{"allow":true,"client_id":7}"#),
            (
                200,
                r#"{"allow":true,"client_id":"dev1","expires_at":"soon"}"#,
            ),
            (200, r#"{"allow":true,"client_id":"dev1","expires_at":-1}"#),
            (200, r#"{"allow":false,"allow":true,"client_id":"dev1"}"#),
            (302, r#"{"allow":true,"client_id":"dev1"}"#),
            (404, r#"{"allow":true,"client_id":"dev1"}"#),
            (500, r#"{"allow":true,"client_id":"dev1"}"#),
        ] {
            assert!(verdict(status, body).is_err(), "{status} {body}");
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut answers = Answers::default();
        for n in 0..3 * REMEMBERED {
            let pending = answers.pending(Digest::of(&[&n.to_be_bytes()]));
            let verdict = Err(Denied::Forbidden(NOT_ALLOWED));
            let fresh_until = Instant::now() + Duration::from_secs(60);
            let _ = pending.set(Answer {
                verdict,
                fresh_until,
            });
            assert!(answers.young.len() + answers.old.len() <= REMEMBERED);
        }
        let last = Digest::of(&[&(3 * REMEMBERED - 1).to_be_bytes()]);
        assert!(answers.pending(last).initialized());
    }
}
