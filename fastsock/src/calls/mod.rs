//! Calls: a message to a device, and the next of its messages that is the answer.
//!
//! The matcher stands in the seat of the device before the message is in its outbox, so an answer cannot be missed. A call lasts until
//! its answer, its time-out or the end of the session; who drops a [`PendingCall`] gives it up.

mod counts;
mod expected;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use self::counts::CallCounts;
pub(crate) use self::counts::CallFigures;
pub use self::expected::CallMatch;
pub(crate) use self::expected::Expected;
use crate::{
    config::Config,
    error::{Error, ErrorKind},
    types::Payload,
};

/// What is asked of a device.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) payload: Payload,
    pub(crate) expected: Expected,
    /// From now on.
    pub(crate) timeout: Duration,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum CallEnd {
    /// Nobody has the device: the message was not sent.
    Offline,
    /// Not sent either: as many wait as may, or the device has an OCPP call to answer first.
    Busy(Busy),
    /// Not sent either: the outbox is full.
    OutboxFull,
    /// Sent; no answer came in time.
    TimedOut,
    /// Sent; the session ended before an answer.
    Disconnected,
    /// Sent to the gateway that had the device, perhaps; that one does not answer.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "of a device at another gateway")
    )]
    NoWord,
    /// The bridge stops.
    Stopped,
    /// Redis does not answer, or refuses.
    #[cfg_attr(
        not(feature = "redis"),
        allow(dead_code, reason = "of a device at another gateway")
    )]
    Broker(Error),
}

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    Gateway,
    Device,
    Ocpp,
}

/// How many calls may wait, and how many do.
#[derive(Debug)]
pub(crate) struct CallLimits {
    room: Arc<Semaphore>,
    most: usize,
    per_device: usize,
    counts: CallCounts,
}

/// The right to wait for an answer.
#[derive(Debug)]
pub(crate) struct CallRoom {
    _permit: OwnedSemaphorePermit,
}

/// A call whose message is in an outbox here.
#[derive(Debug)]
pub(crate) struct PendingCall {
    answer: oneshot::Receiver<Payload>,
    deadline: Instant,
    _room: CallRoom,
}

/// A call as the seat of its device has it.
#[derive(Debug)]
pub(crate) struct Waiting {
    expected: Expected,
    answer: oneshot::Sender<Payload>,
}

/// The calls that wait for one device, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct WaitingCalls(Vec<Waiting>);

impl CallLimits {
    pub(crate) fn new(config: &Config) -> Self {
        let most = config.limits.calls;
        Self {
            room: Arc::new(Semaphore::new(most)),
            most,
            per_device: config.limits.calls_per_device,
            counts: CallCounts::default(),
        }
    }

    /// Takes a place for one more.
    pub(crate) fn enter(&self) -> Result<CallRoom, CallEnd> {
        let room = self.room.clone().try_acquire_owned();
        room.map(|_permit| CallRoom { _permit })
            .map_err(|_| CallEnd::Busy(Busy::Gateway))
    }

    /// Whether any call waits: a look without a lock.
    pub(crate) fn has_waiting(&self) -> bool {
        self.room.available_permits() < self.most
    }

    /// A call that was asked of this gateway is over, after so long.
    pub(crate) fn ended<T>(&self, end: &Result<T, CallEnd>, took: Duration) {
        self.counts.ended(end, took);
    }

    pub(crate) fn figures(&self) -> CallFigures {
        let waiting = self.most - self.room.available_permits();
        self.counts.snapshot(waiting as u64)
    }

    pub(crate) fn per_device(&self) -> usize {
        self.per_device
    }
}

impl PendingCall {
    /// A call and what its seat is to have of it.
    pub(crate) fn new(expected: Expected, timeout: Duration, room: CallRoom) -> (Self, Waiting) {
        let (sender, answer) = oneshot::channel();
        let pending = Self {
            answer,
            deadline: Instant::now() + timeout,
            _room: room,
        };
        let waiting = Waiting {
            expected,
            answer: sender,
        };
        (pending, waiting)
    }

    /// Resolves with the answer, or why there is none.
    pub(crate) async fn wait(self) -> Result<Payload, CallEnd> {
        match timeout_at(self.deadline, self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(CallEnd::Disconnected),
            Err(_) => Err(CallEnd::TimedOut),
        }
    }
}

impl WaitingCalls {
    /// Adds a call, of at most so many.
    pub(crate) fn arm(&mut self, waiting: Waiting, most: usize) -> Result<(), Busy> {
        self.0.retain(|waiting| !waiting.answer.is_closed()); // given up
        if waiting.expected.is_ocpp() && self.0.iter().any(|w| w.expected.is_ocpp()) {
            return Err(Busy::Ocpp);
        }
        if self.0.len() >= most {
            return Err(Busy::Device);
        }
        self.0.push(waiting);
        Ok(())
    }

    /// Gives a message of the device to the oldest call that it answers.
    pub(crate) fn offer(&mut self, payload: &Payload) {
        self.0.retain(|waiting| !waiting.answer.is_closed());
        if self.0.is_empty() {
            return;
        }
        let Ok(message) = serde_json::from_slice(payload.as_bytes()) else {
            return;
        };
        let answered = self.0.iter().position(|w| w.expected.accepts(&message));
        if let Some(index) = answered {
            let _ = self.0.remove(index).answer.send(payload.clone()); // given up meanwhile
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl CallEnd {
    /// As the host hears it.
    pub(crate) fn into_error(self, client_id: &str) -> Error {
        let (kind, text) = match self {
            Self::Broker(error) => return error,
            Self::Offline => (
                ErrorKind::NotConnected,
                format!("{client_id:?} is not connected to any gateway; nothing was sent"),
            ),
            Self::Busy(Busy::Gateway) => (
                ErrorKind::Busy,
                "FASTSOCK_LIMIT_CALLS: as many calls wait on this gateway as may; nothing was sent"
                    .into(),
            ),
            Self::Busy(Busy::Device) => (
                ErrorKind::Busy,
                format!(
                    "FASTSOCK_LIMIT_CALLS_PER_DEVICE: as many calls of {client_id:?} wait as may; nothing was sent"
                ),
            ),
            Self::Busy(Busy::Ocpp) => (
                ErrorKind::Busy,
                format!("{client_id:?} has an OCPP call to answer first; nothing was sent"),
            ),
            Self::OutboxFull => (
                ErrorKind::OutboxFull,
                format!("the outbox of {client_id:?} is full"),
            ),
            Self::TimedOut => (
                ErrorKind::Unanswered,
                format!("{client_id:?} did not answer in time"),
            ),
            Self::Disconnected => (
                ErrorKind::Unanswered,
                format!("the session of {client_id:?} ended before an answer"),
            ),
            Self::NoWord => (
                ErrorKind::Unanswered,
                format!("the gateway that has {client_id:?} does not say what came of the call"),
            ),
            Self::Stopped => (
                ErrorKind::Stopped,
                "the bridge is stopping or stopped".into(),
            ),
        };
        Error::new(kind, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(most: usize) -> CallLimits {
        CallLimits::new(&Config::default().limit_calls(most))
    }

    fn of_id(id: &str) -> Expected {
        CallMatch::pointer("/id", &format!("{id:?}"))
            .unwrap()
            .expect(&Payload::text(""))
            .unwrap()
    }

    #[tokio::test]
    async fn the_oldest_call_that_accepts_a_message_gets_it_and_only_that_one() {
        let limits = limits(9);
        let mut calls = WaitingCalls::default();
        let mut pending = Vec::new();
        for id in ["a", "b", "a"] {
            let room = limits.enter().unwrap();
            let (call, waiting) = PendingCall::new(of_id(id), Duration::from_secs(9), room);
            calls.arm(waiting, 3).unwrap();
            pending.push(call);
        }
        calls.offer(&Payload::text("no JSON"));
        calls.offer(&Payload::text(r#"{"id":"c"}"#));
        calls.offer(&Payload::text(r#"{"id":"a","n":1}"#));
        calls.offer(&Payload::text(r#"{"id":"a","n":2}"#));
        assert!(limits.has_waiting());
        let last = pending.pop().unwrap().wait().await.unwrap();
        assert_eq!(last.to_text(), r#"{"id":"a","n":2}"#);
        let first = pending.swap_remove(0).wait().await.unwrap();
        assert_eq!(first.to_text(), r#"{"id":"a","n":1}"#);
        drop(calls);
        let end = pending.pop().unwrap().wait().await;
        assert!(matches!(end, Err(CallEnd::Disconnected)));
        assert!(!limits.has_waiting());
    }

    #[test]
    fn who_gives_a_call_up_makes_room_for_the_next() {
        let limits = limits(2);
        let mut calls = WaitingCalls::default();
        let call = || PendingCall::new(of_id("a"), Duration::MAX / 4, limits.enter().unwrap());
        let (first, waiting) = call();
        assert_eq!(calls.arm(waiting, 1), Ok(()));
        let (_second, waiting) = call();
        assert!(matches!(limits.enter(), Err(CallEnd::Busy(Busy::Gateway))));
        assert_eq!(calls.arm(waiting, 1), Err(Busy::Device));
        drop(first);
        let (_third, waiting) = call();
        assert_eq!(calls.arm(waiting, 1), Ok(()));
    }

    #[test]
    fn a_device_has_one_ocpp_call_at_a_time_beside_others() {
        let limits = limits(9);
        let mut calls = WaitingCalls::default();
        let ocpp = |id: &str| {
            let call = Payload::text(format!(r#"[2,"{id}","Reset",{{}}]"#));
            CallMatch::ocpp().expect(&call).unwrap()
        };
        let mut arm = |expected| {
            let (call, waiting) =
                PendingCall::new(expected, Duration::from_secs(9), limits.enter().unwrap());
            (calls.arm(waiting, 8), call)
        };
        let (_, _first) = arm(ocpp("1"));
        assert_eq!(arm(ocpp("2")).0, Err(Busy::Ocpp));
        let (armed, _other) = arm(of_id("x"));
        assert_eq!(armed, Ok(()));
    }
}
