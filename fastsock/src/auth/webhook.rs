//! An HTTP endpoint that says who may connect: asked once for many, remembered for a while, and never guessed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout_at},
};

use super::{Authenticate, CredentialSource, Denied, Digest, Grant, Principal, Profile, Shown};
use crate::{
    config::{Config, Headers, Secret},
    context::{CertificateNames, Metadata, Parts},
    error::Result,
    locks::Mutex,
    net::http::{
        IDENTITY,
        endpoint::{self, Endpoint},
    },
    tasks::{BoxFuture, Tasks},
    types::ClientId,
};

/// Asks `auth_url`. Handshakes that show the same at the same time share one answer, and who was let in is let in again for
/// `auth_cache` without asking.
pub(crate) struct Webhook {
    endpoint: Endpoint,
    headers: HeaderMap,
    /// Headers of devices that it gets, in lower case.
    forwarded: Vec<String>,
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
    verdict: Result<Verdict, Denied>,
    /// Until when it need not be asked again.
    fresh_until: Instant,
}

/// Who is let in, until when, and what goes with it.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    client_id: ClientId,
    until: Option<Instant>,
    profile: Option<Box<Profile>>,
}

/// What the endpoint is asked, but for the address of the device: an answer holds for whoever else asks the same.
#[derive(Serialize)]
struct Question<'a> {
    credential: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    place: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    method: &'static str,
    path: &'a str,
    query: Cow<'a, str>,
    parts: &'a Parts,
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    headers: BTreeMap<&'a str, String>,
    subprotocols: &'a [String],
    tls: Option<&'a CertificateNames>,
}

/// What it says.
#[derive(Deserialize)]
struct Reply {
    allow: bool,
    /// What a device gets that is not allowed.
    status: Option<u16>,
    client_id: Option<String>,
    /// Seconds since 1970.
    expires_at: Option<f64>,
    groups: Option<Vec<String>>,
    subprotocol: Option<String>,
    metadata: Option<Map<String, Value>>,
}

impl Webhook {
    /// Prepares to ask. Its connections are tasks of `tasks`.
    ///
    /// # Errors
    /// `Config`, naming the variable.
    pub(crate) fn new(config: &Config, tasks: Tasks) -> Result<Self> {
        let url = config.auth.url.as_ref().map_or("", Secret::expose);
        let endpoint = Endpoint::new("FASTSOCK_AUTH_URL", url, config.into(), tasks)?;
        super::warn_of_plain_http("FASTSOCK_AUTH_URL", &endpoint.url);
        Ok(Self {
            headers: headers(&config.auth.headers, &endpoint)?,
            forwarded: config
                .auth
                .forward_headers
                .iter()
                .map(|n| n.to_ascii_lowercase())
                .collect(),
            endpoint,
            timeout: config.auth.timeout,
            cache: config.auth.cache,
            turns: Semaphore::new(config.auth.concurrency),
            answers: Mutex::default(),
            is_down: AtomicBool::new(false),
        })
    }

    async fn decide(&self, shown: Shown<'_>) -> Result<Principal, Denied> {
        let question = self.question(&shown);
        let question = serde_json::to_vec(&question).map_err(|_| UNAVAILABLE)?;
        let key = Digest::of(&[&question]);
        let pending = self.answers.lock().pending(key);
        // Whoever comes first asks; should that device leave, the next one does.
        let deadline = Instant::now() + self.timeout;
        let asked = pending.get_or_init(|| self.ask(shown, question, deadline));
        let Ok(answer) = timeout_at(deadline, asked).await else {
            return Err(UNAVAILABLE);
        };
        if Instant::now() >= answer.fresh_until {
            self.answers.lock().forget(key, &pending);
        }
        let Verdict {
            client_id,
            until,
            profile,
        } = answer.verdict.clone()?;
        let grant = until.map(|until| Grant {
            until: Some(until),
            ..Grant::default()
        });
        Ok(Principal {
            client_id,
            grant: grant.map(Box::new),
            profile,
        })
    }

    fn question<'a>(&self, shown: &Shown<'a>) -> Question<'a> {
        let request = shown.request;
        let is_query = shown.source == CredentialSource::Query;
        let (credential, encoding) = match shown.password {
            None => (shown.credential.into(), None),
            Some(password) => match std::str::from_utf8(password) {
                Ok(text) => (text.into(), None),
                Err(_) => (BASE64.encode(password).into(), Some("base64")),
            },
        };
        let named = self.forwarded.iter().filter_map(|name| {
            let (name, _) = request.headers.iter().find(|(n, _)| n == name)?;
            let values: Vec<_> = request.headers_named(name).collect();
            Some((&**name, values.join(", ")))
        });
        Question {
            credential,
            encoding,
            place: shown.source.as_str(),
            user: shown.password.map(|_| shown.credential),
            method: request.method(),
            path: match is_query {
                true => request.path(),
                false => request.shown_path(),
            },
            query: match is_query {
                true => request.query().into(),
                false => request.shown_query(),
            },
            parts: &request.parts,
            client_id: request.client_id.as_ref().map(ClientId::as_str),
            route: request.route.as_deref(),
            headers: named.collect(),
            subprotocols: &request.subprotocols,
            tls: request.certificate_names.as_deref(),
        }
    }

    async fn ask(&self, shown: Shown<'_>, question: Vec<u8>, deadline: Instant) -> Answer {
        let verdict = match self.reply(shown, question, deadline).await {
            Ok(verdict) => {
                if self.is_down.swap(false, Relaxed) {
                    tracing::warn!("the authentication webhook answers again");
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
            Ok(Verdict { until, .. }) => {
                until.map_or(now + self.cache, |until| until.min(now + self.cache))
            }
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
        mut question: Vec<u8>,
        deadline: Instant,
    ) -> Result<Result<Verdict, Denied>, String> {
        let _turn = timeout_at(deadline, self.turns.acquire())
            .await
            .map_err(|_| "no turn in time")?;
        // The address comes last, into the object that is written already.
        question.pop();
        let remote_addr = shown.request.remote_addr;
        question.extend_from_slice(format!(r#","remote_addr":"{remote_addr}"}}"#).as_bytes());
        let Endpoint { client, target, .. } = &self.endpoint;
        let asked = client.ask(
            Method::POST,
            target,
            &self.headers,
            question.into(),
            deadline,
        );
        let (status, body) = asked.await?;
        judge(status, &body, shown.client_id_of_user())
    }
}

impl Authenticate for Webhook {
    fn authenticate<'a>(&'a self, shown: Shown<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(self.decide(shown))
    }

    fn takes_passwords(&self) -> bool {
        true
    }

    fn chooses_subprotocols(&self) -> bool {
        true
    }
}

/// What an answer means; `user` is the client id of who has shown a password, and counts where the answer names none. The error has
/// nothing of the body in it.
fn judge(
    status: StatusCode,
    body: &[u8],
    user: Option<ClientId>,
) -> Result<Result<Verdict, Denied>, String> {
    match status.as_u16() {
        200..=299 => {}
        401 => return Ok(Err(Denied::Invalid("the token is not valid"))),
        403 => return Ok(Err(Denied::Forbidden(NOT_ALLOWED))),
        status => return Err(format!("it answered with status {status}")),
    }
    let reply: Reply = serde_json::from_slice(body)
        .map_err(|_| "its answer is not {\"allow\":…,\"client_id\":…,\"expires_at\":…}")?;
    if !reply.allow {
        return match reply.status {
            None | Some(403) => Ok(Err(Denied::Forbidden(NOT_ALLOWED))),
            Some(status @ 400..=599) => Ok(Err(Denied::Refused(status))),
            Some(_) => Err("its answer has a status that refuses nobody".into()),
        };
    }
    let client_id = match reply.client_id {
        Some(client_id) => ClientId::new(client_id),
        None => user,
    };
    let client_id = client_id.ok_or("its answer allows a device without a client_id")?;
    let metadata = match &reply.metadata {
        Some(object) => {
            Some(Metadata::new(object).ok_or("its answer has metadata over 4096 bytes")?)
        }
        None => None,
    };
    let profile = Profile {
        groups: reply.groups.unwrap_or_default(),
        subprotocol: reply.subprotocol,
        metadata,
    };
    let mut verdict = Verdict {
        client_id,
        until: None,
        profile: profile.checked()?,
    };
    if let Some(seconds) = reply.expires_at {
        let at = super::unix_time(seconds).ok_or("its answer has a bad expires_at")?;
        if at <= SystemTime::now() {
            return Ok(Err(Denied::Invalid("the token has expired")));
        }
        verdict.until = Grant::until(at).until;
    }
    Ok(Ok(verdict))
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
            let verdict = judge(status, body.as_bytes(), None);
            let short = |verdict: Verdict| (verdict.client_id.to_string(), verdict.until.is_some());
            verdict.map(|verdict| verdict.map(short))
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
            (200, r#"{"allow":false,"status":403}"#, &no),
            (
                200,
                r#"{"allow":false,"status":404}"#,
                &Ok(Err(Denied::Refused(404))),
            ),
            (
                200,
                r#"{"allow":true,"status":404,"client_id":"dev1","groups":[],"subprotocol":null,"metadata":{}}"#,
                &dev1(false),
            ),
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
            (200, r#"{"allow":false,"status":200}"#),
            (200, r#"{"allow":false,"status":"404"}"#),
            (200, r#"{"allow":true,"client_id":"dev1","groups":[""]}"#),
            (200, r#"{"allow":true,"client_id":"dev1","groups":"a"}"#),
            (200, r#"{"allow":true,"client_id":"dev1","groups":["a\n"]}"#),
            (200, r#"{"allow":true,"client_id":"dev1","metadata":[1]}"#),
            (200, r#"{"allow":true,"client_id":"dev1","metadata":"x"}"#),
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
