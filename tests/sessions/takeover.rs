//! Two sessions of one client id.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use fastsock::{
    Bridge, Client, ClientId, CloseReason, Config, DuplicatePolicy, Hooks, Sent, SessionId,
};
use parking_lot::Mutex;
use support::{Closed, DEADLINE, Device, End, Gateway, RawDevice, TempRedis, eventually};
use tokio::task::JoinSet;

#[tokio::test]
async fn the_newest_session_wins_and_the_old_one_is_told() {
    let (bridge, diary) = start(config()).await;
    let mut old = Device::connect(bridge.local_addr(), "dev1").await;
    let mut new = Device::connect(bridge.local_addr(), "dev1").await;
    assert_eq!(old.closed().await, closed(4509, "replaced"));
    assert_eq!(
        bridge
            .send(&id("dev1"), "for the new".into())
            .await
            .unwrap(),
        Sent::Here
    );
    assert_eq!(new.recv_text().await, "for the new");
    drop(old);

    let clients = bridge.clients();
    assert_eq!(
        (clients.len(), clients[0].remote_addr),
        (1, new.local_addr().into())
    );
    new.close(1000).await;
    eventually("nobody is left", async || bridge.clients().is_empty()).await;
    use Event::{Came, Left};
    let expected = [
        Came(1),
        Left(1, CloseReason::Replaced),
        Came(2),
        Left(2, CloseReason::ByDevice(1000)),
    ];
    diary.wait("dev1", &expected).await;
    let stats = bridge.stats();
    assert_eq!((stats.counters.takeovers, stats.sessions.opened), (1, 2));
    assert_eq!(
        stats.sessions.closed,
        [("replaced".into(), 1), ("closed_by_device".into(), 1)].into()
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn what_the_old_session_could_not_write_the_new_one_gets_first_and_in_order() {
    let (bridge, _) = start(config()).await;
    let mut stuck = RawDevice::connect_with_buffer(bridge.local_addr(), 4096).await;
    stuck
        .write(RawDevice::upgrade_request("/?token=dev1", &[]))
        .await;
    stuck.read_head().await;
    // More than both kernels' buffers take, in messages that fit the outbox.
    let mut sent = 0;
    eventually("its outbox holds some", async || {
        for _ in 0..8 {
            bridge.send(&id("dev1"), message(sent)).await.unwrap();
            sent += 1;
        }
        bridge.stats().downlink.held >= 16
    })
    .await;

    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    for number in sent..sent + 8 {
        bridge.send(&id("dev1"), message(number)).await.unwrap();
    }
    let first = number_of(&device.recv_text().await);
    assert!(first < sent, "what was held comes first");
    for expected in first + 1..sent + 8 {
        assert_eq!(number_of(&device.recv_text().await), expected);
    }
    // What the new session did not get, the old socket has whole: nothing is missing between the two.
    let (frames, end) = stuck.drain().await;
    assert_eq!(end, End::Close(Some(4509), "replaced".into()));
    let of_old: Vec<_> = frames
        .iter()
        .map(|frame| number_of(std::str::from_utf8(&frame.payload).unwrap()))
        .collect();
    assert!(of_old.len() >= first, "{} of {first}", of_old.len());
    assert!(of_old.iter().copied().eq(0..of_old.len()));
    assert!(
        of_old.len() <= first + 1,
        "at most the one that was begun is doubled"
    );

    eventually("all is written", async || bridge.stats().downlink.held == 0).await;
    let downlink = bridge.stats().downlink;
    assert_eq!(
        (downlink.received, downlink.lost.total()),
        (sent as u64 + 8, 0)
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_fights_for_an_id_hosts_hear_of_one_session_at_a_time() {
    let (bridge, diary) = start(config()).await;
    let addr = bridge.local_addr();
    fight(addr).await;
    eventually("nobody is left", async || {
        bridge.clients().is_empty() && diary.is_even()
    })
    .await;
    for (client_id, events) in diary.all() {
        for pair in events.chunks(2) {
            let [Event::Came(came), Event::Left(left, _)] = pair else {
                panic!("{client_id}: {pair:?} in {events:?}");
            };
            assert_eq!(came, left, "{client_id}: {events:?}");
        }
        let sessions = events.iter().step_by(2).map(Event::session);
        assert!(sessions.is_sorted(), "{client_id}: {events:?}");
    }
    let stats = bridge.stats();
    let closed: u64 = stats.sessions.closed.values().sum();
    assert_eq!(
        (stats.sessions.opened, stats.sessions.connected),
        (closed, 0)
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_fights_for_an_id_leaves_no_ghost_in_the_hash() {
    let redis = TempRedis::new().await;
    let gateway = Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("FASTSOCK_RUNTIME_WORKERS", "4")
        .start()
        .await;
    gateway.wait_line("Connected to Redis as publisher").await;
    for _ in 0..3 {
        fight(gateway.addr()).await;
        eventually("the hash is empty", async || {
            redis.hgetall("fastsock:clients").await.is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn with_the_policy_reject_the_first_stays() {
    let (bridge, diary) = start(config().duplicate_policy(DuplicatePolicy::Reject)).await;
    let mut first = Device::connect(bridge.local_addr(), "dev1").await;
    let refused = Device::try_connect(bridge.local_addr(), "dev1")
        .await
        .unwrap_err();
    assert_eq!(
        (
            refused.status,
            refused.headers["connection"].to_str().unwrap()
        ),
        (409, "close")
    );
    bridge.send(&id("dev1"), "still here".into()).await.unwrap();
    assert_eq!(first.recv_text().await, "still here");
    first.close(1000).await;
    eventually("the seat is free", async || {
        Device::try_connect(bridge.local_addr(), "dev1").await.ok()
    })
    .await;
    diary.wait_count("dev1", 4).await;
    assert!(bridge.stats().sessions.refused[&409] >= 1);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_fight_without_end_is_ended_with_4429() {
    let (bridge, _) = start(config()).await;
    let mut last = RawDevice::seated(bridge.local_addr(), "dev1").await;
    let mut rejected = None;
    for _ in 0..101 {
        let mut next = RawDevice::seated(bridge.local_addr(), "dev1").await;
        bridge.send_here(&id("dev1"), "yours".into()).unwrap();
        let frame = next.frame().await;
        if frame.close_code().0 == Some(4429) {
            rejected = Some(next);
            break;
        }
        assert_eq!(frame.payload, b"yours");
        last = next;
    }
    let mut rejected = rejected.expect("the one hundred and first takeover");
    assert_eq!(rejected.end().await, End::Eof);
    let frame = last.frame().await;
    assert_eq!(frame.payload, b"yours", "who had the seat keeps it");
    let stats = bridge.stats();
    assert_eq!(
        (stats.counters.takeovers, stats.sessions.closed["too_many"]),
        (100, 1)
    );
    drop(last);
    eventually("the seat is empty", async || bridge.clients().is_empty()).await;
    // The fight is over with it.
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    bridge.send_here(&id("dev1"), "peace".into()).unwrap();
    assert_eq!(device.recv_text().await, "peace");
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_downlink_is_lost_or_doubled_by_a_reconnect() {
    let (bridge, _) = start(config()).await;
    let device_id = id("dev1");
    for number in 0..90 {
        let mut device = Device::connect(bridge.local_addr(), "dev1").await;
        bridge
            .send(&device_id, number.to_string().into())
            .await
            .unwrap();
        assert_eq!(device.recv_text().await, number.to_string());
    }
    bridge.stop(DEADLINE).await;
}

/// Many devices at once with four ids; all have left in the end.
async fn fight(addr: SocketAddr) {
    let mut fighters = JoinSet::new();
    for fighter in 0..24 {
        fighters.spawn(async move {
            for round in 0..12 {
                let device = Device::connect(addr, &format!("id{}", fighter % 4)).await;
                if (fighter + round) % 2 == 0 {
                    device.close(1000).await;
                }
            }
        });
    }
    fighters.join_all().await;
}

fn config() -> Config {
    support::loopback().websocket_ping_interval(Duration::ZERO)
}

async fn start(config: Config) -> (Bridge, Arc<Diary>) {
    let diary = Arc::<Diary>::default();
    let builder = Bridge::builder(config).shared_hooks(diary.clone());
    (builder.start().await.expect("it starts"), diary)
}

/// What a host is told, by client id.
#[derive(Default)]
struct Diary(Mutex<BTreeMap<String, Vec<Event>>>);

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Came(u64),
    Left(u64, CloseReason),
}

impl Event {
    fn session(&self) -> u64 {
        match self {
            Self::Came(session) | Self::Left(session, _) => *session,
        }
    }
}

impl Hooks for Diary {
    fn on_connect(&self, client: &Client) {
        self.note(client, Event::Came);
    }

    fn on_disconnect(&self, client: &Client, reason: &CloseReason) {
        // Gives others the time to overtake.
        std::thread::yield_now();
        self.note(client, |session| Event::Left(session, reason.clone()));
    }
}

impl Diary {
    fn note(&self, client: &Client, event: impl FnOnce(u64) -> Event) {
        let SessionId(session) = client.session_id;
        let id = client.client_id.to_string();
        self.0.lock().entry(id).or_default().push(event(session));
    }

    fn all(&self) -> BTreeMap<String, Vec<Event>> {
        self.0.lock().clone()
    }

    fn is_even(&self) -> bool {
        self.0.lock().values().all(|events| events.len() % 2 == 0)
    }

    async fn wait_count(&self, client_id: &str, count: usize) -> Vec<Event> {
        let what = format!("{count} events of {client_id}");
        eventually(&what, async || {
            let events = self.0.lock().get(client_id).cloned().unwrap_or_default();
            (events.len() >= count).then_some(events)
        })
        .await
    }

    async fn wait(&self, client_id: &str, expected: &[Event]) {
        assert_eq!(self.wait_count(client_id, expected.len()).await, expected);
    }
}

fn id(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

fn closed(code: u16, reason: &str) -> Closed {
    Closed {
        code: Some(code),
        reason: reason.into(),
    }
}

fn message(number: usize) -> fastsock::Payload {
    format!("{number}:{}", "x".repeat(16 << 10)).into()
}

fn number_of(text: &str) -> usize {
    text.split(':').next().unwrap().parse().unwrap()
}
