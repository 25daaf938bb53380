//! Calls of devices that another gateway has: asked over that gateway's own channel, and answered over ours.
//!
//! Each gateway listens to one channel of its own, `P:probe:<node>`; a number on it is its probe, an object is one of these. It says
//! `taken` at once, so nobody waits long for a gateway that is gone, and then how the call ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use ahash::HashMap;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::timeout};

use super::{Shared, control, links::Kind};
use crate::{
    calls::{Busy, Call, CallEnd, Expected, PendingCall},
    error::{Error, ErrorKind},
    locks::Mutex,
    redis::{glob::escaped, trouble::Function},
    tasks::Tasks,
    types::{ClientId, Payload},
};

/// The calls that other gateways make for this one.
pub(super) struct Calls {
    asked: Mutex<HashMap<u64, mpsc::Sender<Word>>>,
    next: AtomicU64,
    /// For the calls that this gateway makes for others.
    tasks: Tasks,
}

/// What one gateway tells another over the channel of that one.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Told {
    Call {
        /// Whom to answer.
        from: String,
        number: u64,
        client_id: String,
        message: Message,
        expected: Expected,
        timeout_ms: u64,
    },
    Called {
        number: u64,
        word: Word,
    },
    /// Something of a later version.
    #[serde(other)]
    Unknown,
}

/// How it goes with a call.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// The message is in an outbox.
    Taken,
    Answered(Message),
    Offline,
    GatewayBusy,
    DeviceBusy,
    OcppBusy,
    OutboxFull,
    TimedOut,
    Disconnected,
    /// Something of a later version.
    #[serde(other)]
    Unknown,
}

/// A payload in JSON.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    Text(String),
    /// In base64.
    Binary(String),
}

impl Calls {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self {
            asked: Mutex::default(),
            next: AtomicU64::new(fastrand::u64(..1 << 52)),
            tasks,
        }
    }
}

impl Shared {
    /// As [`Broker::call`](crate::broker::Broker::call).
    pub(super) async fn call(&self, client_id: ClientId, call: Call) -> Result<Payload, CallEnd> {
        if self.is_alone() {
            return Err(CallEnd::Offline);
        }
        if !self.links.lock().is_up(Kind::Sub) {
            return Err(CallEnd::Broker(self.is_down())); // the answer would not be heard
        }
        let Some(node) = self.owner(&client_id).await? else {
            return Err(CallEnd::Offline);
        };
        let (number, mut words) = self.note_call();
        let _forgotten = Forget(self, number);
        let longest = call.timeout + GRACE;
        let told = Told::Call {
            from: self.node.to_string(),
            number,
            client_id: client_id.to_string(),
            message: Message::of(&call.payload),
            expected: call.expected,
            timeout_ms: call.timeout.as_millis() as u64,
        };
        let heard = self.tell_node(&node, &told).await;
        let heard = heard.map_err(CallEnd::Broker)?;
        if heard == 0 && !self.address.is_cluster() {
            return Err(CallEnd::Offline); // its lease runs out in a moment
        }
        match timeout(TAKEN_WITHIN, words.recv()).await {
            Ok(Some(Word::Taken)) => {}
            Ok(Some(word)) => return word.into_end(),
            Ok(None) | Err(_) => return Err(CallEnd::NoWord),
        }
        match timeout(longest, words.recv()).await {
            Ok(Some(word)) => word.into_end(),
            Ok(None) | Err(_) => Err(CallEnd::TimedOut), // its word was lost
        }
    }

    /// The other gateway that has a device.
    async fn owner(&self, client_id: &ClientId) -> Result<Option<String>, CallEnd> {
        let broker = |error| Err(CallEnd::Broker(error));
        if self.is_plain() {
            let text = "the user of Redis may run no scripts, so gateways do not know who has a device, and none can be called elsewhere";
            return broker(Error::new(ErrorKind::Broker, text));
        }
        let Some(mut connection) = self.cmd.lock().clone() else {
            return broker(self.is_down());
        };
        let mut ask = redis::cmd("HGET");
        ask.arg(&self.names.owner).arg(client_id.as_str());
        let asked = ask.query_async::<Option<String>>(&mut connection.redis);
        match asked.await {
            Ok(owner) => {
                self.works(Function::Elsewhere);
                let owner = owner.filter(|owner| !control::is_of(owner, &self.node));
                Ok(owner.and_then(|owner| owner.split(':').next().map(str::to_owned)))
            }
            Err(error) => broker(
                self.not_published(&connection, error, &self.names.pattern())
                    .await,
            ),
        }
    }

    fn note_call(&self) -> (u64, mpsc::Receiver<Word>) {
        let number = self.calls.next.fetch_add(1, Relaxed);
        let (sender, words) = mpsc::channel(2);
        self.calls.asked.lock().insert(number, sender);
        (number, words)
    }

    /// Tells a gateway something. Returns how many listen to its channel, as far as Redis knows: in a cluster each server only knows
    /// its own listeners.
    async fn tell_node(&self, node: &str, told: &Told) -> Result<u64, Error> {
        let Some(mut connection) = self.cmd.lock().clone() else {
            return Err(self.is_down());
        };
        let channel = self.names.own_channel(node);
        let mut publish = redis::cmd("PUBLISH");
        let text = serde_json::to_vec(told).expect("texts and numbers are always JSON");
        publish.arg(&channel).arg(text);
        match publish.query_async(&mut connection.redis).await {
            Ok(heard) => Ok(heard),
            Err(error) => {
                let right = escaped(&channel);
                Err(self.not_published(&connection, error, &right).await)
            }
        }
    }
}

/// Takes what another gateway tells this one alone. Never waits.
pub(super) fn on_told(shared: &Arc<Shared>, message: &[u8]) {
    match serde_json::from_slice(message) {
        Ok(Told::Call {
            from,
            number,
            client_id,
            message,
            expected,
            timeout_ms,
        }) => {
            let (Some(deliver), Some(payload)) = (shared.deliver.upgrade(), message.payload())
            else {
                return;
            };
            let call = Call {
                payload,
                expected,
                timeout: Duration::from_millis(timeout_ms).min(LONGEST),
            };
            // At once: what comes after it over the same link finds it there.
            let begun = deliver.call(&client_id, call);
            let shared_too = Arc::clone(shared);
            shared.calls.tasks.spawn_until_stopped(async move {
                see_through(&shared_too, &from, number, begun).await;
            });
        }
        Ok(Told::Called { number, word }) => {
            if let Some(asked) = shared.calls.asked.lock().get(&number) {
                let _ = asked.try_send(word); // there are two at most
            }
        }
        Ok(Told::Unknown) => {}
        Err(error) => {
            shared.running.pushes_bad.add(1);
            tracing::debug!(%error, "A message of another gateway is not understood");
        }
    }
}

/// Tells the gateway that asked how it goes with a call.
async fn see_through(
    shared: &Shared,
    from: &str,
    number: u64,
    begun: Result<PendingCall, CallEnd>,
) {
    let ended = match begun {
        Err(end) => Err(end),
        Ok(pending) => {
            let word = Word::Taken;
            // Waited for first: nothing may overtake it. Meanwhile the answer can come.
            let _ = shared.tell_node(from, &Told::Called { number, word }).await;
            pending.wait().await
        }
    };
    let word = match ended {
        Ok(answer) => Word::Answered(Message::of(&answer)),
        Err(end) => Word::of(&end),
    };
    let told = shared.tell_node(from, &Told::Called { number, word }).await;
    if let Err(error) = told {
        let error = error.to_line();
        tracing::debug!(
            error,
            "The end of a call could not be told to the gateway that asked"
        );
    }
}

impl Word {
    fn of(end: &CallEnd) -> Self {
        match end {
            CallEnd::Offline => Self::Offline,
            CallEnd::Busy(Busy::Gateway) => Self::GatewayBusy,
            CallEnd::Busy(Busy::Device) => Self::DeviceBusy,
            CallEnd::Busy(Busy::Ocpp) => Self::OcppBusy,
            CallEnd::OutboxFull => Self::OutboxFull,
            CallEnd::TimedOut => Self::TimedOut,
            CallEnd::Disconnected | CallEnd::NoWord | CallEnd::Stopped | CallEnd::Broker(_) => {
                Self::Disconnected
            }
        }
    }

    fn into_end(self) -> Result<Payload, CallEnd> {
        Err(match self {
            Self::Answered(message) => return message.payload().ok_or(CallEnd::NoWord),
            Self::Offline => CallEnd::Offline,
            Self::GatewayBusy => CallEnd::Busy(Busy::Gateway),
            Self::DeviceBusy => CallEnd::Busy(Busy::Device),
            Self::OcppBusy => CallEnd::Busy(Busy::Ocpp),
            Self::OutboxFull => CallEnd::OutboxFull,
            Self::TimedOut => CallEnd::TimedOut,
            Self::Disconnected => CallEnd::Disconnected,
            Self::Taken | Self::Unknown => CallEnd::NoWord,
        })
    }
}

impl Message {
    fn of(payload: &Payload) -> Self {
        match payload.is_text() {
            true => Self::Text(payload.to_text().into_owned()),
            false => Self::Binary(BASE64.encode(payload.as_bytes())),
        }
    }

    fn payload(self) -> Option<Payload> {
        match self {
            Self::Text(text) => Some(Payload::text(text)),
            Self::Binary(text) => Some(Payload::binary(BASE64.decode(text.as_bytes()).ok()?)),
        }
    }
}

/// Forgets a call that nobody waits for any more.
struct Forget<'a>(&'a Shared, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.calls.asked.lock().remove(&self.1);
    }
}

/// How long a gateway may take to say that it has a call.
const TAKEN_WITHIN: Duration = Duration::from_secs(2);

/// How much later than the call itself its end may come.
const GRACE: Duration = Duration::from_secs(2);

/// The longest time that a call may wait; whoever asks for more is not one of ours.
const LONGEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gateways_tell_each_other_has_its_documented_form() {
        let call = Told::Call {
            from: "n".into(),
            number: 7,
            client_id: "d".into(),
            message: Message::of(&Payload::text("[2]")),
            expected: Expected::Ocpp("x".into()),
            timeout_ms: 30,
        };
        assert_eq!(
            serde_json::to_string(&call).unwrap(),
            r#"{"op":"call","from":"n","number":7,"client_id":"d","message":{"text":"[2]"},"expected":{"ocpp":"x"},"timeout_ms":30}"#
        );
        for (word, text) in [
            (Word::Taken, r#""taken""#),
            (Word::of(&CallEnd::TimedOut), r#""timed_out""#),
            (
                Word::Answered(Message::of(&Payload::binary(&b"\xff"[..]))),
                r#"{"answered":{"binary":"/w=="}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&word).unwrap(), text);
        }
        let later: Told = serde_json::from_str(r#"{"op":"sing","number":1}"#).unwrap();
        assert!(matches!(later, Told::Unknown));
    }
}
