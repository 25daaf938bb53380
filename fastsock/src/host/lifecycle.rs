//! Tells a backend who came and who left, and of gaps, as POSTs; nothing of those who are back before it is worth a word.
//!
//! What is told is the life of a client id, not of its sessions: `connect` when the first session of a device begins,
//! `disconnect` when its last has ended and none has followed within the grace. Events travel in lanes of their own, so
//! they have the order, the retries and the breaker of uplinks, and neither waits for the other.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use smallvec::smallvec;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use uuid::Uuid;

use crate::{
    broker::{ANNOUNCED_WITHIN, Broker},
    config::Config,
    error::Result,
    forwarder::{
        Forward, Outcome, Outcomes,
        destination::{Destination, LaneLimits},
        http::{post::Post, stamp::Stamp},
    },
    remote_addr::RemoteAddr,
    stats::{LifecycleBooks, LifecycleLost, Running, closed_key},
    tasks::{BoxFuture, Tasks},
    types::{
        Client, ClientId, CloseReason, DeadLetter, HELD_OVERHEAD_BYTES, LostReason, SessionId,
        unix_ms,
    },
    uplinks::{Decision, GivenUp, Item, Lanes, Observer, Outlet},
};

/// Who is there as far as the backend knows, and the lanes that tell it.
pub(crate) struct Lifecycle {
    state: Mutex<State>,
    /// Someone's grace ends before all others'.
    changed: Notify,
    lanes: Arc<Lanes<Event>>,
    running: Arc<Running>,
    broker: Arc<dyn Broker>,
    tasks: Tasks,
    /// Name of this bridge in each event.
    node: ClientId,
    grace: Duration,
    hook_timeout: Duration,
}

#[derive(Default)]
struct State {
    debounce: Debounce,
    /// Number of the last event.
    seq: u64,
    /// The bridge stops: nobody comes back.
    is_over: bool,
}

impl Lifecycle {
    /// Begins to tell a destination.
    ///
    /// # Errors
    /// `Config`, naming the setting of a URL, a header, a proxy or a certificate file that cannot be used.
    pub(crate) fn start(
        destination: &Destination<'_>,
        config: &Config,
        broker: Arc<dyn Broker>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>> {
        let running = Arc::new(Running::default());
        let post = Post::new(destination, tasks.clone())?;
        let outlet = Outlet {
            forward: Some(Box::new(EventForwarder(post))),
            spool: None,
            observer: Box::new(EventObserver),
            letters: None,
        };
        let limits = LaneLimits::of_events(config);
        let lanes = Lanes::new(limits, outlet, running.clone(), tasks.clone());
        let node = ClientId::new(&**broker.node()).expect("a node has a name");
        let lifecycle = Arc::new(Self {
            state: Mutex::default(),
            changed: Notify::new(),
            lanes,
            running,
            broker,
            tasks: tasks.clone(),
            node,
            grace: config.events_grace,
            hook_timeout: config.hook_timeout,
        });
        tasks.spawn_until_stopped(lifecycle.clone().keep_time());
        Ok(lifecycle)
    }

    /// A session began. In order with [`Lifecycle::left`], device by device.
    pub(crate) fn came(&self, client: &Client) {
        // All gateways compare what they tell by one clock, and by the moment of seating.
        let since = client.connected_at.elapsed().unwrap_or_default();
        let epoch = self
            .broker
            .now_ms()
            .saturating_sub(since.as_millis() as u64);
        let stay = Stay {
            session_id: client.session_id,
            remote_addr: client.remote_addr,
            epoch,
        };
        let mut state = self.state.lock();
        let now = client.connected_at;
        if state.debounce.came(&client.client_id, stay, now) {
            let event = Body::of("connect", &client.client_id, &stay, now);
            let event = self.next(&mut state, &client.client_id, stay.session_id, event);
            match self.broker.announced(&client.client_id) {
                None => drop(self.lanes.take(event, None)),
                Some(announced) => self.tell_once(announced, event),
            }
        }
    }

    /// A session ended. `has_successor`: another session of its id is seated here already.
    pub(crate) fn left(&self, client: &Client, reason: &CloseReason, has_successor: bool) {
        let mut state = self.state.lock();
        let grace = match reason {
            _ if state.is_over => None,
            // It begins soon, or its handshake has failed by then.
            CloseReason::Replaced if has_successor => Some(self.grace.max(SUCCESSOR)),
            // It is connected elsewhere, and if it comes back that is news.
            CloseReason::Replaced => None,
            CloseReason::Shutdown => None, // nobody will be here to see it come back
            _ => Some(self.grace).filter(|grace| !grace.is_zero()),
        };
        let away = Away {
            until: Instant::now() + grace.unwrap_or_default(),
            reason: reason.clone(),
            since: SystemTime::now(),
        };
        let (client_id, session_id) = (&client.client_id, client.session_id);
        if !state.debounce.left(client_id, session_id, away) {
            return;
        }
        if grace.is_none() {
            self.tell_gone(&mut state, client_id);
        } else if let Some(first) = state.debounce.one_too_many() {
            self.tell_gone(&mut state, &first);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Downlinks of this span may not have arrived.
    pub(crate) fn gap(&self, from: SystemTime, to: SystemTime) {
        let event = Body {
            kind: "gap",
            epoch: self.broker.now_ms(),
            time: unix_ms(to),
            from: Some(unix_ms(from)),
            to: Some(unix_ms(to)),
            ..Body::default()
        };
        let mut state = self.state.lock();
        self.tell(&mut state, &self.node, SessionId(0), event);
    }

    /// Tells of all who are away, since nobody comes back any more, and waits until the backend has heard everything, not
    /// later than `deadline`. Returns how many events were lost.
    pub(crate) async fn stop(&self, deadline: Instant) -> u64 {
        {
            let mut state = self.state.lock();
            state.is_over = true;
            for client_id in state.debounce.all_away() {
                self.tell_gone(&mut state, &client_id);
            }
        }
        let _ = timeout_at(deadline, self.lanes.drained()).await;
        self.abandon()
    }

    /// Gives up what is held. Returns how many events that were.
    pub(crate) fn abandon(&self) -> u64 {
        self.lanes.abandon();
        self.lanes.books().lost.shutdown
    }

    /// The books of events.
    pub(crate) fn books(&self) -> LifecycleBooks {
        let books = self.lanes.books();
        let running = self.running.snapshot();
        LifecycleBooks {
            made: books.received,
            delivered: books.delivered,
            held: books.held,
            held_bytes: books.held_bytes,
            lost: LifecycleLost {
                rejected: books.lost.rejected,
                poison: books.lost.poison,
                too_old: books.lost.too_old,
                full: books.lost.full,
                shutdown: books.lost.shutdown,
            },
            posts: running.posts,
            posts_failed: running.posts_failed,
            breaker_opened: running.breaker_opened,
        }
    }

    /// Watches over the grace of all who are away.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let first = self.state.lock().debounce.first_due();
            match first {
                Some(at) => tokio::select! {
                    () = sleep_until(at) => self.end_grace().await,
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// Tells of those who did not come back in time; of those who are at another gateway it is for that one to tell.
    async fn end_grace(&self) {
        let now = Instant::now();
        let due = self.state.lock().debounce.due(now);
        let are_elsewhere = self.broker.are_elsewhere(&due).await;
        let mut state = self.state.lock();
        for (client_id, is_elsewhere) in due.iter().zip(are_elsewhere) {
            // It may have come back while the broker was asked, and have left again.
            if !state.debounce.is_due(client_id, now) {
                continue;
            }
            match is_elsewhere {
                true => drop(state.debounce.forget(client_id)),
                false => self.tell_gone(&mut state, client_id),
            }
        }
    }

    fn tell_gone(&self, state: &mut State, client_id: &ClientId) {
        let Some((known, away)) = state.debounce.forget(client_id) else {
            return;
        };
        let lasted = away.since.duration_since(known.since).unwrap_or_default();
        let event = Body {
            cause: Some(closed_key(&away.reason)),
            code: match away.reason {
                CloseReason::ByDevice(code) => Some(code),
                ref reason => reason.code(),
            },
            duration_ms: Some(lasted.as_millis() as u64),
            sessions: Some(known.sessions),
            ..Body::of("disconnect", client_id, &known.stay, away.since)
        };
        self.tell(state, client_id, known.stay.session_id, event);
    }

    /// Takes an event into its lane, and lets it go once other processes can find the device.
    fn tell_once(&self, announced: BoxFuture<'static, ()>, event: Event) {
        let (lanes, ticket) = (Arc::clone(&self.lanes), self.lanes.ticket());
        lanes.take_undecided(event, None, ticket);
        let most = ANNOUNCED_WITHIN.min(self.hook_timeout / 2);
        self.tasks.spawn_until_stopped(async move {
            let _ = timeout(most, announced).await;
            let _ = lanes.settle_ticket(ticket, |_| Decision::Deliver);
        });
    }

    /// Numbers an event and hands it to its lane. Under the lock of the state, so that both are in order.
    fn tell(&self, state: &mut State, lane: &ClientId, session_id: SessionId, body: Body<'_>) {
        let event = self.next(state, lane, session_id, body);
        self.lanes.take(event, None);
    }

    fn next(
        &self,
        state: &mut State,
        lane: &ClientId,
        session_id: SessionId,
        body: Body<'_>,
    ) -> Event {
        state.seq += 1;
        let body = Body {
            node: self.node.as_str(),
            seq: state.seq,
            ..body
        };
        let body = serde_json::to_vec(&body).expect("texts and numbers are valid JSON");
        Event {
            id: Uuid::now_v7(),
            lane: lane.clone(),
            session_id,
            seq: state.seq,
            made_at: SystemTime::now(),
            body: body.into(),
        }
    }
}

impl std::fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lifecycle({:?})", self.lanes)
    }
}

/// One event on its way.
#[derive(Clone)]
struct Event {
    id: Uuid,
    /// Its device; that of a gap is the gateway.
    lane: ClientId,
    session_id: SessionId,
    seq: u64,
    made_at: SystemTime,
    body: Bytes,
}

impl Item for Event {
    fn key(&self) -> &ClientId {
        &self.lane
    }

    fn bytes(&self) -> usize {
        self.body.len() + HELD_OVERHEAD_BYTES
    }

    fn made_at(&self) -> SystemTime {
        self.made_at
    }
}

impl<'a> From<&'a Event> for Stamp<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            id: event.id,
            client_id: &event.lane,
            session_id: event.session_id,
            seq: event.seq,
            made_at: event.made_at,
        }
    }
}

/// POSTs each event.
struct EventForwarder(Post);

impl Forward<Event> for EventForwarder {
    fn attempt<'a>(&'a self, events: &'a [Event], number: u32) -> BoxFuture<'a, Outcomes> {
        let event = &events[0]; // the limits of events allow no more
        let body = event.body.clone();
        Box::pin(async move { smallvec![self.0.attempt(event.into(), number, body).await] })
    }

    fn headers(&self, event: &Event, number: u32) -> Vec<(String, String)> {
        self.0.shown_headers(event.into(), number)
    }
}

/// Logs what becomes of events. No hook hears of them, and no dead letter is made of them.
struct EventObserver;

impl Observer<Event> for EventObserver {
    fn delivered(&self, _: &Event) {}

    fn put_off(&self, event: &Event, number: u32, attempt: &Outcome, wait: Duration) {
        tracing::debug!(name: "event_retry", client_id = %event.lane, session_id = event.session_id.0, attempt = number, retry_in_ms = wait.as_millis() as u64, error = %attempt, "Failed to deliver an event");
    }

    fn lost(&self, event: &Event, reason: LostReason, attempt: Option<&Outcome>) {
        let (client_id, session_id) = (&event.lane, event.session_id.0);
        let data = String::from_utf8_lossy(&event.body);
        let (error, reason_word) = (
            attempt.map_or_else(|| reason.to_string(), ToString::to_string),
            reason.as_str(),
        );
        if reason == LostReason::Shutdown {
            tracing::debug!(name: "event_lost", %client_id, session_id, reason = reason_word, %data, "Lost an event");
        } else {
            tracing::error!(name: "event_lost", %client_id, session_id, reason = reason_word, %error, %data, "Lost an event");
        }
    }

    fn undeliverable(&self, _: &Event) {}

    fn gone(&self, _: &Event) {}

    fn outage(&self) {
        tracing::warn!("FASTSOCK_EVENTS_URL takes no events; the gateway holds them until it does");
    }

    fn misconfigured(&self, attempt: &Outcome) {
        tracing::error!(error = %attempt, "the events backend refuses every event; check FASTSOCK_EVENTS_URL and FASTSOCK_EVENTS_HEADERS");
    }

    fn dead_letter(&self, _: &Event, _: GivenUp) -> Option<DeadLetter> {
        None
    }
}

/// The body of an event's POST.
#[derive(Clone, Copy, Default, Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_addr: Option<RemoteAddr>,
    node: &'a str,
    epoch: u64,
    seq: u64,
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<u64>,
}

impl<'a> Body<'a> {
    fn of(kind: &'a str, client_id: &'a ClientId, stay: &Stay, time: SystemTime) -> Self {
        Self {
            kind,
            client_id: Some(client_id.as_str()),
            session_id: Some(stay.session_id.0),
            remote_addr: Some(stay.remote_addr),
            epoch: stay.epoch,
            time: unix_ms(time),
            ..Self::default()
        }
    }
}

/// Who the backend takes for connected, and until when the news that one of them has left is held back. No I/O, no clock.
#[derive(Default)]
struct Debounce {
    known: HashMap<ClientId, Known>,
    /// Those away, by the end of their grace.
    away: BTreeSet<(Instant, ClientId)>,
}

/// A device that the backend takes for connected.
struct Known {
    stay: Stay,
    /// When it came.
    since: SystemTime,
    /// How many it has had since then.
    sessions: u64,
    away: Option<Away>,
}

/// Its latest session.
#[derive(Clone, Copy)]
struct Stay {
    session_id: SessionId,
    remote_addr: RemoteAddr,
    /// When it took its seat, by the clock all gateways share.
    epoch: u64,
}

/// How that has ended.
struct Away {
    until: Instant,
    reason: CloseReason,
    since: SystemTime,
}

impl Debounce {
    /// A session began. `true` when that is news.
    fn came(&mut self, client_id: &ClientId, stay: Stay, now: SystemTime) -> bool {
        if let Some(known) = self.known.get_mut(client_id) {
            if let Some(away) = known.away.take() {
                self.away.remove(&(away.until, client_id.clone()));
            }
            known.stay = stay;
            known.sessions += 1;
            return false;
        }
        let known = Known {
            stay,
            since: now,
            sessions: 1,
            away: None,
        };
        self.known.insert(client_id.clone(), known);
        true
    }

    /// A session ended. `false` when it is not the latest, or was told to have ended before.
    fn left(&mut self, client_id: &ClientId, session_id: SessionId, away: Away) -> bool {
        let Some(known) = self.known.get_mut(client_id) else {
            return false;
        };
        if known.stay.session_id != session_id || known.away.is_some() {
            return false;
        }
        self.away.insert((away.until, client_id.clone()));
        known.away = Some(away);
        true
    }

    /// The one whose grace ends first, when more are away than may be.
    fn one_too_many(&self) -> Option<ClientId> {
        let first = self.away.first().filter(|_| self.away.len() > AWAY_MAX);
        first.map(|(_, client_id)| client_id.clone())
    }

    fn first_due(&self) -> Option<Instant> {
        self.away.first().map(|(until, _)| *until)
    }

    /// Those whose grace has ended, the first of them if they are many.
    fn due(&self, now: Instant) -> Vec<ClientId> {
        let due = self.away.iter().take_while(|(until, _)| *until <= now);
        due.take(DUE_AT_ONCE).map(|(_, id)| id.clone()).collect()
    }

    fn is_due(&self, client_id: &ClientId, now: Instant) -> bool {
        let away = self.known.get(client_id).and_then(|k| k.away.as_ref());
        away.is_some_and(|away| away.until <= now)
    }

    /// Everyone who is away.
    fn all_away(&self) -> Vec<ClientId> {
        self.away.iter().map(|(_, id)| id.clone()).collect()
    }

    /// Takes out one who is away.
    fn forget(&mut self, client_id: &ClientId) -> Option<(Known, Away)> {
        let away = self.known.get_mut(client_id)?.away.take()?;
        self.away.remove(&(away.until, client_id.clone()));
        Some((self.known.remove(client_id)?, away))
    }
}

/// How long a takeover may take: the broker has 1 s, and the 101 `write_timeout`, which is 10 s unless set.
const SUCCESSOR: Duration = Duration::from_secs(15);
/// Devices that may be away untold. One more, and the one whose grace ends first is told of early.
const AWAY_MAX: usize = 100_000;
/// Those whose grace ends together that the broker is asked about in one step.
const DUE_AT_ONCE: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ClientId {
        ClientId::new(text).unwrap()
    }

    fn stay(session: u64) -> Stay {
        Stay {
            session_id: SessionId(session),
            remote_addr: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            epoch: session,
        }
    }

    fn away(until: Instant) -> Away {
        Away {
            until,
            reason: CloseReason::Lost,
            since: SystemTime::now(),
        }
    }

    #[test]
    fn who_is_back_within_the_grace_was_never_away() {
        let (mut debounce, start) = (Debounce::default(), Instant::now());
        let (dev, grace) = (id("dev"), start + Duration::from_secs(5));
        let now = SystemTime::now();
        assert!(debounce.came(&dev, stay(1), now));
        assert!(debounce.left(&dev, SessionId(1), away(grace)));
        assert!(debounce.due(start).is_empty());
        assert!(!debounce.came(&dev, stay(2), now));
        assert!(debounce.due(grace).is_empty());
        assert!(!debounce.left(&dev, SessionId(1), away(grace)), "long told");
        assert!(debounce.left(&dev, SessionId(2), away(grace)));
        assert_eq!(debounce.due(grace), std::slice::from_ref(&dev));
        let (known, _) = debounce.forget(&dev).unwrap();
        assert_eq!((known.stay.session_id, known.sessions), (SessionId(2), 2));
        assert!(debounce.came(&dev, stay(3), now), "news again");
    }

    #[test]
    fn a_session_that_ended_is_told_once() {
        let (mut debounce, now) = (Debounce::default(), Instant::now());
        debounce.came(&id("dev"), stay(1), SystemTime::now());
        assert!(debounce.left(&id("dev"), SessionId(1), away(now)));
        assert!(!debounce.left(&id("dev"), SessionId(1), away(now)));
        assert!(debounce.forget(&id("dev")).is_some());
        assert!(debounce.forget(&id("dev")).is_none());
        assert!(!debounce.left(&id("dev"), SessionId(1), away(now)));
        assert!(debounce.known.is_empty() && debounce.away.is_empty());
    }

    #[test]
    fn nobody_who_is_here_is_due() {
        let (mut debounce, now) = (Debounce::default(), Instant::now());
        debounce.came(&id("a"), stay(1), SystemTime::now());
        debounce.came(&id("b"), stay(2), SystemTime::now());
        debounce.left(&id("b"), SessionId(2), away(now));
        assert!(debounce.forget(&id("a")).is_none());
        assert!(!debounce.is_due(&id("a"), now) && debounce.is_due(&id("b"), now));
        assert_eq!(debounce.all_away(), [id("b")]);
    }

    #[test]
    fn as_many_as_may_be_are_away_untold_and_no_more() {
        let (mut debounce, now) = (Debounce::default(), Instant::now());
        for n in 0..=AWAY_MAX {
            assert_eq!(debounce.one_too_many(), None);
            let dev = id(&n.to_string());
            debounce.came(&dev, stay(1), SystemTime::now());
            let until = now + Duration::from_millis(n as u64);
            debounce.left(&dev, SessionId(1), away(until));
        }
        assert_eq!(debounce.one_too_many(), Some(id("0")));
    }

    #[test]
    fn an_event_has_its_documented_form() {
        let dev = id("dev");
        let event = Body {
            node: "n1",
            seq: 4,
            cause: Some("connection_lost"),
            duration_ms: Some(1500),
            sessions: Some(2),
            ..Body::of("disconnect", &dev, &stay(7), SystemTime::UNIX_EPOCH)
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"type":"disconnect","client_id":"dev","session_id":7,"remote_addr":"127.0.0.1:1","node":"n1","epoch":7,"seq":4,"time":0,"cause":"connection_lost","duration_ms":1500,"sessions":2}"#
        );
    }
}
