//! Tells a backend who came and who left, and of gaps, as POSTs; nothing of those who are back before it is worth a word.
//!
//! What is told is the life of a client id, not of its sessions: `connect` when the first session of a device begins,
//! `disconnect` when its last has ended and none has followed within the grace. With other gateways about each session is told, since
//! one of them may have told of the device meanwhile. Events travel in lanes of their own, so
//! they have the order, the retries and the breaker of uplinks, and neither waits for the other.

mod body;
mod debounce;
mod event;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use uuid::Uuid;

use self::{
    body::Body,
    debounce::{Away, DUE_AT_ONCE, Debounce, Stay},
    event::{Event, EventForwarder, EventObserver},
};
use super::roll::{Record, Roll};
use crate::{
    broker::{
        ANNOUNCED_WITHIN, Broker,
        lost::{Lost, TellLost},
    },
    config::{BrokerKind, Config},
    error::{Error, ErrorKind, Result},
    forwarder::{
        destination::{Destination, LaneLimits},
        http::post::Post,
    },
    locks::Mutex,
    stats::{LifecycleBooks, LifecycleLost, Running, closed_key},
    tasks::{BoxFuture, Tasks},
    types::{Client, ClientId, CloseReason, SessionId, unix_ms},
    uplinks::{Decision, Deliveries, Lanes, Outlet},
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
    /// Whether events tell what is known of the session.
    tells_context: bool,
    /// Who is here, in a file, where there is no Redis to know it.
    roll: Option<Arc<Roll>>,
    /// Bytes that may be held when a loss at another gateway is to be told: Redis keeps those that have no room.
    room_of_lost: u64,
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
            routes: Vec::new(),
            spool: None,
            observer: Box::new(EventObserver),
            letters: None,
        };
        let limits = LaneLimits::of_events(config);
        let lanes = Lanes::new(limits, outlet, running.clone(), tasks.clone());
        let node = ClientId::new(&**broker.node()).expect("a node has a name");
        let (found, earlier) = oneshot::channel();
        let roll = match &config.spool.data_dir {
            Some(directory) if config.redis.broker != BrokerKind::Redis => {
                let found = move |records| drop(found.send(records));
                Some(Roll::start(directory, tasks, found).map_err(no_thread)?)
            }
            _ => None,
        };
        let lifecycle = Arc::new(Self {
            roll,
            state: Mutex::default(),
            changed: Notify::new(),
            lanes,
            running,
            broker,
            tasks: tasks.clone(),
            node,
            grace: config.events.grace,
            hook_timeout: config.limits.hook_timeout,
            tells_context: config.remote.context,
            room_of_lost: config.events.total_bytes as u64 / 2,
        });
        tasks.spawn_until_stopped(lifecycle.clone().keep_time());
        if lifecycle.roll.is_some() {
            tasks.spawn_until_stopped(lifecycle.clone().tell_earlier(earlier));
        }
        Ok(lifecycle)
    }

    /// A session began. In order with [`Lifecycle::left`], device by device. With other gateways about it is always told: any of them may
    /// have told of the device meanwhile, and who has died since cannot say so.
    pub(crate) fn came(&self, client: &Client) {
        let stay = Stay {
            session_id: client.session_id,
            remote_addr: client.remote_addr,
            epoch: client.epoch,
            route: client
                .context
                .as_ref()
                .and_then(|context| context.route.as_deref().map(Arc::from)),
            context: client.context.clone().filter(|_| self.tells_context),
        };
        let session_id = stay.session_id;
        let mut state = self.state.lock();
        let now = client.connected_at;
        if let Some(roll) = self.roll.as_ref().filter(|_| self.is_alone()) {
            roll.came(Record {
                client_id: client.client_id.clone(),
                session_id,
                epoch: client.epoch,
                node: self.node.to_string(),
            });
        }
        if self.broker.has_company() {
            state.debounce.begin_anew(&client.client_id);
        }
        if state.debounce.came(&client.client_id, stay.clone(), now) {
            let event = Body::of("connect", &client.client_id, &stay, now);
            let event = self.next(&mut state, &client.client_id, session_id, event);
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

    /// Kept messages of a device are lost.
    pub(crate) fn mailbox_lost(&self, client_id: &ClientId, reason: &str, count: u64) {
        let now_ms = unix_ms(SystemTime::now());
        let event = Body {
            kind: "mailbox_lost",
            client_id: Some(client_id.as_str()),
            epoch: self.broker.now_ms(),
            time: now_ms,
            cause: Some(reason),
            count: Some(count),
            ..Body::default()
        };
        let mut state = self.state.lock();
        self.tell(&mut state, client_id, SessionId(0), event);
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
        if let Some(roll) = &self.roll {
            roll.end();
        }
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

    /// How they get to their backend.
    pub(crate) fn deliveries(&self) -> Deliveries {
        self.lanes.deliveries()
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
        let elsewhere = self.broker.elsewhere(&due).await;
        let mut state = self.state.lock();
        let is_known = elsewhere.is_some();
        let elsewhere = elsewhere.unwrap_or_else(|| vec![None; due.len()]);
        for (client_id, elsewhere) in due.iter().zip(elsewhere) {
            // It may have come back while the broker was asked, and have left again.
            if !state.debounce.is_due(client_id, now) {
                continue;
            }
            if !is_known
                && state
                    .debounce
                    .put_off(client_id, now + ASKED_AGAIN, self.grace + UNKNOWN_MAX)
            {
                continue;
            }
            // An older seat was there before it came here, and does not end what was told of here.
            let known = state.debounce.known.get(client_id);
            let told = known.map_or(0, |known| known.stay.epoch);
            if elsewhere.is_none_or(|epoch| epoch + OLDER_BY_MS < told) {
                self.tell_gone(&mut state, client_id);
            } else if let Some((known, _)) = state.debounce.forget(client_id)
                && let Some(roll) = &self.roll
            {
                roll.is_over(client_id, known.stay.epoch);
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
        let session_id = known.stay.session_id;
        let mut event = self.next(state, client_id, session_id, event);
        let receipt = |roll: &Arc<Roll>| Arc::new(roll.receipt(client_id, known.stay.epoch));
        event.receipt = self.roll.as_ref().map(receipt);
        self.lanes.take(event, None);
    }

    /// Whether no Redis knows who is here.
    fn is_alone(&self) -> bool {
        self.broker.name() == EMBEDDED
    }

    /// Tells of those who were here when the process before this one was killed, unless they come back within the grace.
    async fn tell_earlier(self: Arc<Self>, earlier: oneshot::Receiver<Vec<Record>>) {
        let (Ok(records), Some(roll)) = (earlier.await, &self.roll) else {
            return;
        };
        if !records.is_empty() {
            tracing::info!(name: "earlier_devices", count = records.len(), "The gateway was killed with devices; those who do not come back are told as lost");
        }
        sleep(self.grace).await;
        for some in records.chunks(DUE_AT_ONCE) {
            while self.lanes.books().held_bytes > self.room_of_lost {
                sleep(ROOM_AGAIN).await;
            }
            let ids: Vec<_> = some.iter().map(|record| record.client_id.clone()).collect();
            let elsewhere = self.broker.elsewhere(&ids).await;
            let elsewhere = elsewhere.unwrap_or_else(|| vec![None; ids.len()]);
            for (record, elsewhere) in some.iter().zip(elsewhere) {
                let receipt = roll.receipt(&record.client_id, record.epoch);
                if elsewhere.is_some() {
                    receipt.told(); // by that gateway, one day
                    continue;
                }
                self.lost(Lost {
                    client_id: record.client_id.clone(),
                    session_id: record.session_id,
                    epoch: record.epoch,
                    node: record.node.clone(),
                    receipt,
                });
            }
        }
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
        let body_epoch = body.epoch;
        let body = serde_json::to_vec(&body).expect("texts and numbers are valid JSON");
        Event {
            id: Uuid::now_v7(),
            lane: lane.clone(),
            session_id,
            epoch: body_epoch,
            seq: state.seq,
            made_at: SystemTime::now(),
            body: body.into(),
            receipt: None,
        }
    }
}

impl TellLost for Lifecycle {
    fn grace(&self) -> Duration {
        self.grace
    }

    fn lost(&self, lost: Lost) {
        let mut state = self.state.lock();
        if state.is_over || self.lanes.books().held_bytes > self.room_of_lost {
            return; // whoever is there next tells it, or this one in a moment
        }
        if state.debounce.known.contains_key(&lost.client_id) {
            lost.receipt.told(); // it is here
            return;
        }
        let body = Body {
            kind: "disconnect",
            client_id: Some(lost.client_id.as_str()),
            session_id: Some(lost.session_id.0),
            epoch: lost.epoch,
            time: unix_ms(SystemTime::now()),
            cause: Some("node_lost"),
            lost_node: Some(&lost.node),
            ..Body::default()
        };
        let event = self.next(&mut state, &lost.client_id, lost.session_id, body);
        let event = Event {
            id: key_of_loss(&lost.client_id, lost.epoch),
            receipt: Some(Arc::new(lost.receipt)),
            ..event
        };
        self.lanes.take(event, None);
    }

    fn came_back(&self) {
        let mut state = self.state.lock();
        let State { debounce, .. } = &*state;
        let here = debounce.known.iter().filter(|(_, k)| k.away.is_none());
        let here: Vec<_> = here.map(|(id, k)| (id.clone(), k.stay.clone())).collect();
        for (client_id, stay) in here {
            let event = Body::of("connect", &client_id, &stay, SystemTime::now());
            let event = self.next(&mut state, &client_id, stay.session_id, event);
            self.lanes.take(event, None);
        }
    }
}

/// The `Idempotency-Key` of the loss of a session: the same whoever tells it.
fn key_of_loss(client_id: &ClientId, epoch: u64) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(format!("node_lost:{epoch}:{client_id}"));
    let hash: [u8; 32] = hash.finalize().into();
    let (first, _) = hash.split_first_chunk().expect("32 bytes are more than 16");
    Uuid::new_v8(*first)
}

impl std::fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lifecycle({:?})", self.lanes)
    }
}

fn no_thread(error: std::io::Error) -> Error {
    let text = "the system makes no thread for the file of devices";
    Error::new(ErrorKind::Io, text).with_source(error)
}

/// How long the end of a grace waits for a Redis that does not answer.
const UNKNOWN_MAX: Duration = Duration::from_secs(5);
/// So much older than a seat here is a seat at another gateway that was taken before it. Less may be the difference of two clocks:
/// a gateway without Redis gives epochs by its own.
const OLDER_BY_MS: u64 = 1000;
/// How soon that Redis is asked again.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
/// Name of the broker while no Redis is there.
const EMBEDDED: &str = "embedded";
/// How soon it is looked again whether there is room for more losses.
const ROOM_AGAIN: Duration = Duration::from_secs(1);
/// How long a takeover may take: the broker has 1 s, and the 101 `write_timeout`, which is 10 s unless set.
const SUCCESSOR: Duration = Duration::from_secs(15);
