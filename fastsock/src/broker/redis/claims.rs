//! Claims of client ids among all gateways: asked before a 101, many at once, and answered by one script.
//!
//! Whoever asks later wins, since the script gives each claim a higher epoch than the one it finds. So the answer has to come before
//! the device can know that it is connected: else a claim that was long on its way would beat the device's next session. A claim
//! that could not be asked in time is made by the writer, which compares the times of seating instead. And a gateway that stood still
//! between asking and sending says when it asked.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::{
    Shared,
    control::{self, Control, Successor},
    script,
};
use crate::{
    broker::{Claimed, next_epoch},
    config::DuplicatePolicy,
    locks::Mutex,
    redis::{
        connect::Redis,
        error::{Failure, LinkError},
        trouble::Function,
    },
    types::{ClientId, SessionId},
};

/// Who asks.
#[derive(Default)]
pub(super) struct Claims {
    /// `None` while there is no link to ask over.
    waiting: Mutex<Option<Vec<Question>>>,
    has_waiting: Notify,
    /// Whether someone waited in vain, so that the next ones need not try.
    is_late: AtomicBool,
}

struct Question {
    client_id: ClientId,
    session_id: SessionId,
    is_takeover: bool,
    /// In milliseconds since the start.
    asked_ms: u64,
    answer: oneshot::Sender<(Claimed, Option<Waits>)>,
}

/// Resolves once the gateway that had the device has passed on what it held.
type Waits = oneshot::Receiver<()>;

impl Claims {
    fn ask(
        &self,
        client_id: &ClientId,
        session_id: SessionId,
        is_takeover: bool,
        asked_ms: u64,
    ) -> Option<oneshot::Receiver<(Claimed, Option<Waits>)>> {
        if self.is_late.load(Relaxed) {
            return None;
        }
        let mut waiting = self.waiting.lock();
        let (answer, answered) = oneshot::channel();
        waiting.as_mut()?.push(Question {
            client_id: client_id.clone(),
            session_id,
            is_takeover,
            asked_ms,
            answer,
        });
        self.has_waiting.notify_one();
        Some(answered)
    }

    /// The next to be asked, at once if `is_urgent`, though there be none.
    async fn next(&self, is_urgent: bool) -> Vec<Question> {
        loop {
            if let Some(waiting) = self.waiting.lock().as_mut()
                && (is_urgent || !waiting.is_empty())
            {
                let count = waiting.len().min(CLAIMS_A_STEP);
                return waiting.drain(..count).collect();
            }
            self.has_waiting.notified().await;
        }
    }

    /// Nobody is asked any more; whoever waits need not.
    fn close(&self) {
        *self.waiting.lock() = None;
        self.is_late.store(false, Relaxed);
    }
}

impl Shared {
    /// Asks for a client id. The question is put when this is called, not when the answer is waited for.
    pub(super) fn claim(
        &self,
        client_id: &ClientId,
        session_id: SessionId,
        is_takeover: bool,
    ) -> impl Future<Output = Claimed> + use<'_> {
        let is_refused = self.is_plain() || self.troubles.has(Function::Presence);
        let now_ms = self.now_ms();
        let answered = match is_refused {
            true => None,
            false => self.claims.ask(client_id, session_id, is_takeover, now_ms),
        };
        async move {
            if let Some(answered) = answered {
                match timeout(CLAIM_TIMEOUT, answered).await {
                    Ok(Ok((claimed, waits))) => {
                        if let Some(waits) = waits {
                            self.wait_for_passed(session_id, waits).await;
                        }
                        return claimed;
                    }
                    Ok(Err(_)) => {} // the link went down
                    Err(_) => self.claims.is_late.store(true, Relaxed),
                }
            }
            Claimed::Won(next_epoch(&self.last_epoch, self.epoch_of(now_ms)))
        }
    }
}

/// Asks for all that wait, and answers them, until the link fails.
pub(super) async fn serve(shared: &Shared, redis: Redis) -> LinkError {
    let _open = Open::new(&shared.claims);
    let mut tell = Vec::new();
    let never = async {
        loop {
            let questions = shared.claims.next(!tell.is_empty()).await;
            let (claimed, told) = tokio::join!(
                claim(shared, redis.clone(), questions),
                control::tell(shared, redis.clone(), &tell)
            );
            told?;
            tell = match claimed {
                Ok(tell) => tell,
                Err(failure) => {
                    // Who asks is not answered, and makes do with what the writer finds out.
                    shared.failed(Function::Presence, failure).await?;
                    Vec::new()
                }
            };
        }
    };
    let never: Result<Infallible, LinkError> = never.await;
    match never {
        Err(error) => error,
    }
}

/// Asks for some. Returns what other gateways must be told.
async fn claim(
    shared: &Shared,
    mut redis: Redis,
    mut questions: Vec<Question>,
) -> Result<Vec<Control>, Failure> {
    {
        let mut presence = shared.presence.lock();
        questions.retain(|q| {
            !q.answer.is_closed() && presence.is_about_to_claim(&q.client_id, q.session_id)
        });
    }
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    // The set first: it is what the others go by when they clear up after this node.
    let mut sadd = redis::cmd("SADD");
    sadd.arg(shared.names.ids_of(&shared.node));
    let mut eval = script::CLAIM.on(&[&shared.names.owner]);
    eval.arg(&*shared.node);
    eval.arg(match shared.duplicates {
        DuplicatePolicy::Reject => "reject",
        DuplicatePolicy::Replace => "replace",
    });
    for question in &questions {
        sadd.arg(question.client_id.as_str());
        let how = match question.is_takeover {
            true => "takeover",
            false => "new",
        };
        eval.arg(question.client_id.as_str());
        eval.arg(question.session_id.0).arg(how);
        eval.arg(shared.asked_epoch(question.asked_ms));
    }
    let (answers,): (Vec<String>,) = redis::pipe()
        .add_command(sadd)
        .ignore()
        .add_command(eval)
        .query_async(&mut redis)
        .await?;
    shared.works(Function::Presence);
    shared.claims.is_late.store(false, Relaxed);

    let mut tell = Vec::new();
    for (question, answer) in questions.into_iter().zip(answers) {
        let mut waits = None;
        let claimed = match Answer::parse(&answer) {
            Answer::Won { epoch, from } => {
                let (client_id, session_id) = (&question.client_id, question.session_id);
                shared.claimed(client_id, session_id, epoch, from.is_some());
                if let Some((node, session)) = from {
                    waits = Some(shared.passing.expect(session_id));
                    let by = Some(Successor {
                        node: shared.node.to_string(),
                        session: session_id.0,
                    });
                    tell.push(Control::Replaced {
                        node,
                        client_id: client_id.to_string(),
                        session,
                        by,
                    });
                }
                Claimed::Won(epoch)
            }
            Answer::TooMany => Claimed::TooMany,
            Answer::Taken | Answer::Lost { .. } => Claimed::Taken,
        };
        let _ = question.answer.send((claimed, waits));
    }
    Ok(tell)
}

impl Shared {
    /// The epoch of a moment given in milliseconds since the start, if Redis has said what its clock says; else 0.
    fn asked_epoch(&self, asked_ms: u64) -> u64 {
        let clock = self.clock.lock();
        match clock.is_known() {
            true => clock.epoch_of(asked_ms),
            false => 0,
        }
    }

    /// Redis recorded whose a client id is.
    pub(super) fn claimed(
        &self,
        client_id: &ClientId,
        session_id: SessionId,
        epoch: u64,
        was_elsewhere: bool,
    ) {
        self.last_epoch.fetch_max(epoch, Relaxed);
        self.has_company.fetch_or(was_elsewhere, Relaxed);
        let mut presence = self.presence.lock();
        presence.claimed(client_id, session_id, epoch, was_elsewhere);
    }
}

/// What the script says of one claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Recorded; `from`: node and session that had it before, elsewhere.
    Won {
        epoch: u64,
        from: Option<(String, u64)>,
    },
    /// Another gateway has it, and seated it later: this one, if it is named.
    Lost {
        to: Option<String>,
    },
    Taken,
    TooMany,
}

impl Answer {
    pub(super) fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        match words.next() {
            Some("+") => Self::Won {
                epoch: words.next().and_then(|w| w.parse().ok()).unwrap_or(0),
                from: words
                    .next()
                    .zip(words.next())
                    .and_then(|(node, session)| Some((node.to_owned(), session.parse().ok()?))),
            },
            Some("taken") => Self::Taken,
            Some("many") => Self::TooMany,
            _ => Self::Lost {
                to: words.next().map(str::to_owned),
            },
        }
    }
}

/// Questions are taken for as long as this is there.
struct Open<'a>(&'a Claims);

impl<'a> Open<'a> {
    fn new(claims: &'a Claims) -> Self {
        *claims.waiting.lock() = Some(Vec::new());
        Self(claims)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How long a 101 waits for the answer.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// Claims asked for at once.
const CLAIMS_A_STEP: usize = 512;
