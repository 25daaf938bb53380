//! What becomes of one device, told to whoever listens. While nobody does, it costs a look at a number.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::RecvTimeoutError,
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant, SystemTime},
};

use serde::{Serialize, Serializer};
use tokio::{sync::mpsc, task::unconstrained};

use crate::{
    locks::Mutex,
    types::{ClientId, Payload, unix_ms},
};

/// Something that happened to a device. In JSON `event` says what, `at_ms` when (milliseconds since 1970).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TraceEvent {
    /// When.
    #[serde(rename = "at_ms", serialize_with = "ms")]
    pub at: SystemTime,
    /// To whom.
    #[serde(serialize_with = "name")]
    pub client_id: ClientId,
    /// What.
    #[serde(flatten)]
    pub what: Traced,
}

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Traced {
    /// It connected.
    Connected {
        /// Its session.
        session_id: u64,
        /// Where from.
        remote_addr: String,
        /// The route that it goes, if that is not the default one.
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<String>,
    },
    /// Its handshake was refused.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Why.
        reason: String,
        /// Where from.
        remote_addr: String,
        /// The route that it goes, if that is not the default one.
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<String>,
    },
    /// A message of it came.
    Uplink {
        /// Its session.
        session_id: u64,
        /// The number of the message in the session.
        seq: u64,
        /// The message.
        #[serde(flatten)]
        message: TracedMessage,
    },
    /// A message for it came.
    Downlink {
        /// Its session.
        session_id: u64,
        /// What became of it: `queued`, `displaced` (the oldest was lost for it), `full` or `too_large`.
        outcome: &'static str,
        /// The message.
        #[serde(flatten)]
        message: TracedMessage,
    },
    /// An attempt to POST a message of it.
    Post {
        /// The session that the message is of.
        session_id: u64,
        /// The number of the message in it.
        seq: u64,
        /// The status of the answer, if there was one.
        status: Option<u16>,
        /// What went wrong, if anything.
        error: Option<String>,
        /// What the attempt took.
        took_ms: f64,
        /// The route that it went, if that is not the default one.
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<String>,
    },
    /// Its session ended.
    Disconnected {
        /// Its session.
        session_id: u64,
        /// Why.
        reason: String,
        /// The close code that the gateway or the device gave.
        code: Option<u16>,
    },
    /// The listener was too slow for so many events.
    Missed {
        /// How many.
        count: u64,
    },
}

/// A message, with what is in it only for who asks for that.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TracedMessage {
    /// Its length.
    pub bytes: usize,
    /// Whether it is TEXT; else BINARY.
    pub is_text: bool,
    /// What is in it, at most 4 KiB: text, or base64 of what is BINARY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// The listeners of one bridge.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    /// How many listen.
    listening: AtomicUsize,
    listeners: Mutex<Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    client_id: ClientId,
    with_payloads: bool,
    sender: mpsc::Sender<TraceEvent>,
    missed: Arc<AtomicU64>,
}

/// What happens to one device, from now until this is dropped or the bridge is gone. Holds 256 events for a listener that is slow; then
/// counts those it leaves out.
#[derive(Debug)]
pub struct Trace {
    client_id: ClientId,
    receiver: mpsc::Receiver<TraceEvent>,
    missed: Arc<AtomicU64>,
    tracer: Weak<Tracer>,
}

impl Tracer {
    pub(crate) fn listen(self: &Arc<Self>, client_id: ClientId, with_payloads: bool) -> Trace {
        let (sender, receiver) = mpsc::channel(HELD_MAX);
        let missed = Arc::<AtomicU64>::default();
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| !listener.sender.is_closed());
        listeners.push(Listener {
            client_id: client_id.clone(),
            with_payloads,
            sender,
            missed: missed.clone(),
        });
        self.listening.store(listeners.len(), Relaxed);
        Trace {
            client_id,
            receiver,
            missed,
            tracer: Arc::downgrade(self),
        }
    }

    /// Tells whoever listens to this device. `what` is only made for them; it is told whether they want payloads.
    pub(crate) fn tell(&self, client_id: &str, what: impl Fn(bool) -> Traced) {
        if self.listening.load(Relaxed) > 0 {
            self.tell_listeners(client_id, &what);
        }
    }

    #[cold]
    fn tell_listeners(&self, client_id: &str, what: &dyn Fn(bool) -> Traced) {
        let listeners = self.listeners.lock();
        for listener in listeners
            .iter()
            .filter(|l| l.client_id.as_str() == client_id)
        {
            let event = TraceEvent {
                at: SystemTime::now(),
                client_id: listener.client_id.clone(),
                what: what(listener.with_payloads),
            };
            if listener.sender.try_send(event).is_err() {
                listener.missed.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether somebody listens to this device.
    pub(crate) fn is_traced(&self, client_id: &str) -> bool {
        self.listening.load(Relaxed) > 0 && self.has_listener(client_id)
    }

    #[cold]
    fn has_listener(&self, client_id: &str) -> bool {
        let listeners = self.listeners.lock();
        listeners.iter().any(|l| l.client_id.as_str() == client_id)
    }

    /// Nothing happens any more: whoever listens is told so.
    pub(crate) fn end(&self) {
        self.listeners.lock().clear();
        self.listening.store(0, Relaxed);
    }

    fn forget_closed(&self) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| !listener.sender.is_closed());
        self.listening.store(listeners.len(), Relaxed);
    }
}

impl Trace {
    /// The next event; `None` once the bridge is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<TraceEvent> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next event, for a thread that may block so long.
    ///
    /// # Errors
    /// `Timeout`, or `Disconnected` once the bridge is gone.
    pub fn next_within(&mut self, timeout: Duration) -> Result<TraceEvent, RecvTimeoutError> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let (begun, mut cx) = (Instant::now(), Context::from_waker(&waker));
        // On a thread of a runtime, too, where a task that has done much would be told to wait.
        let mut next = pin!(unconstrained(self.next()));
        loop {
            if let Poll::Ready(event) = next.as_mut().poll(&mut cx) {
                return event.ok_or(RecvTimeoutError::Disconnected);
            }
            match timeout.checked_sub(begun.elapsed()) {
                Some(left) => thread::park_timeout(left),
                None => return Err(RecvTimeoutError::Timeout),
            }
        }
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<TraceEvent>> {
        let missed = self.missed.swap(0, Relaxed);
        if missed > 0 {
            return Poll::Ready(Some(TraceEvent {
                at: SystemTime::now(),
                client_id: self.client_id.clone(),
                what: Traced::Missed { count: missed },
            }));
        }
        self.receiver.poll_recv(cx)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.receiver.close();
        if let Some(tracer) = self.tracer.upgrade() {
            tracer.forget_closed();
        }
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Traced {
    /// The word for it in JSON and in server-sent events.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Refused { .. } => "refused",
            Self::Uplink { .. } => "uplink",
            Self::Downlink { .. } => "downlink",
            Self::Post { .. } => "post",
            Self::Disconnected { .. } => "disconnected",
            Self::Missed { .. } => "missed",
        }
    }
}

impl TracedMessage {
    pub(crate) fn of(payload: &Payload, with_data: bool) -> Self {
        let data = || {
            let bytes = payload.as_bytes();
            let head = &bytes[..bytes.len().min(DATA_MAX)];
            match payload.is_text() {
                true => String::from_utf8_lossy(head).into_owned(),
                false => data_encoding::BASE64.encode(head),
            }
        };
        Self {
            bytes: payload.len(),
            is_text: payload.is_text(),
            data: with_data.then(data),
        }
    }
}

fn ms<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(unix_ms(*time))
}

fn name<S: Serializer>(id: &ClientId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(id.as_str())
}

/// Events held for one listener.
const HELD_MAX: usize = 256;
/// Of a payload.
const DATA_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_listens_to_a_device_hears_of_it_alone_and_of_what_was_missed() {
        let tracer = Arc::new(Tracer::default());
        let gone = |n: u64| Traced::Disconnected {
            session_id: n,
            reason: "drain".into(),
            code: Some(1012),
        };
        tracer.tell("dev1", |_| unreachable!("nobody listens"));
        let mut trace = tracer.listen(ClientId::new("dev1").unwrap(), true);
        assert!(tracer.is_traced("dev1") && !tracer.is_traced("dev2"));
        tracer.tell("dev2", |_| unreachable!("nobody listens to that one"));
        for n in 0..300 {
            tracer.tell("dev1", |with_payloads| {
                assert!(with_payloads);
                gone(n)
            });
        }
        let first = trace.next().await.unwrap();
        assert_eq!(first.what, Traced::Missed { count: 44 });
        for n in 0..256 {
            assert_eq!(trace.next().await.unwrap().what, gone(n));
        }
        let json = serde_json::json!(TraceEvent {
            what: gone(7),
            ..first
        });
        assert_eq!(
            (&json["event"], &json["session_id"]),
            (&"disconnected".into(), &7.into())
        );
        drop(trace);
        assert!(!tracer.is_traced("dev1"));
        let mut last = tracer.listen(ClientId::new("dev1").unwrap(), false);
        let wait = Duration::from_millis(1);
        assert_eq!(last.next_within(wait), Err(RecvTimeoutError::Timeout));
        tracer.end();
        assert_eq!(last.next_within(wait), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_message_is_shown_to_who_asks_and_only_the_beginning() {
        let text = Payload::text("ü".repeat(3000));
        assert_eq!(TracedMessage::of(&text, false).data, None);
        let shown = TracedMessage::of(&text, true);
        assert_eq!((shown.bytes, shown.data.unwrap().len()), (6000, 4096));
        let binary = TracedMessage::of(&Payload::binary(&b"\x00\xff"[..]), true);
        assert_eq!(
            (binary.is_text, binary.data.as_deref()),
            (false, Some("AP8="))
        );
    }
}
