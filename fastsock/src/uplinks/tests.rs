//! Timers of the lanes, on tokio's paused clock.

use ahash::HashSet;
use tokio::runtime::Handle;

use super::{queue::LANE_BYTES, *};
use crate::{
    config::{Config, Gone},
    forwarder::{Outcomes, breaker::PROBES},
    registry::Registry,
    status::Status,
    tasks::BoxFuture,
    types::SessionId,
};

/// A backend that answers each device with a status of its own.
#[derive(Clone, Default)]
struct Script {
    statuses: Arc<Mutex<HashMap<String, u16>>>,
    /// Who was tried, in order.
    tried: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// From now on.
    fn answer(&self, devices: impl IntoIterator<Item = String>, status: u16) {
        let mut statuses = self.statuses.lock();
        statuses.extend(devices.into_iter().map(|device| (device, status)));
    }
}

impl Forward<Uplink> for Script {
    fn attempt<'a>(&'a self, uplinks: &'a [Uplink], _: u32) -> BoxFuture<'a, Outcomes> {
        let device = uplinks[0].client_id.as_str().to_owned();
        self.tried.lock().push(device.clone());
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await; // of the paused clock: each POST takes some time
            smallvec::smallvec![Outcome::Answered {
                status: self.statuses.lock().get(&device).copied().unwrap_or(500),
                retry_after: None,
            }]
        })
    }

    fn headers(&self, _: &Uplink, _: u32) -> Vec<(String, String)> {
        Vec::new()
    }
}

fn names(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}{n}")).collect()
}

fn start(script: &Script) -> Arc<Lanes> {
    let config = Config::default();
    let running = Arc::new(Running::default());
    let status = Arc::new(Status::new(None, running.clone()));
    let registry = Arc::new(Registry::new(&config, status.clone()));
    let outlet = Outlet {
        forward: Some(Box::new(script.clone())),
        routes: Vec::new(),
        spool: None,
        observer: Box::new(UplinkObserver::new(registry, status, Gone::Ignore)),
        letters: Some(Letters::new(&config)),
    };
    let limits = LaneLimits::of_uplinks(&config, false);
    Lanes::new(limits, outlet, running, Tasks::new(Handle::current()))
}

fn say(lanes: &Arc<Lanes>, devices: &[String]) {
    for device in devices {
        let client_id = ClientId::new(device).unwrap();
        lanes.take(Uplink::new(client_id, SessionId(1), 1, "x".into()), None);
    }
}

/// So many devices said one thing each, so many seconds ago, to a backend that is down.
async fn outage(devices: usize, seconds: u64) -> (Arc<Lanes>, Script) {
    let script = Script::default();
    let lanes = start(&script);
    say(&lanes, &names("dev", devices));
    tokio::time::sleep(Duration::from_secs(seconds)).await; // the outage, by the paused clock
    assert_eq!(lanes.books().held, devices as u64);
    (lanes, script)
}

async fn delivered(lanes: &Lanes, count: u64) -> Instant {
    while lanes.books().delivered < count {
        tokio::time::sleep(Duration::from_millis(20)).await; // polls, by the paused clock
    }
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn when_the_breaker_closes_whoever_backs_off_goes_too() {
    let (lanes, script) = outage(200, 300).await;
    script.answer(names("dev", 200), 200);
    let first = delivered(&lanes, 1).await;
    let all = delivered(&lanes, 200).await;
    assert!(all - first < Duration::from_secs(1), "{:?}", all - first);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_back_off() {
    let (lanes, script) = outage(1, 60).await; // too few failures to open the breaker
    script.answer(names("dev", 1), 200);
    let start = Instant::now();
    lanes.drained().await;
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(lanes.books().delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn probes_prefer_devices_whose_messages_were_taken_before() {
    let script = Script::default();
    script.answer(names("known", 2), 200);
    let lanes = start(&script);
    say(&lanes, &names("known", 2));
    delivered(&lanes, 2).await;
    script.answer(names("known", 2), 503);
    say(&lanes, &names("stranger", 300));
    say(&lanes, &names("known", 2));
    tokio::time::sleep(Duration::from_secs(300)).await; // the outage, by the paused clock
    // Whatever has its turn or backs off, each round tries both that are known.
    script.tried.lock().clear();
    tokio::time::sleep(Duration::from_secs(160)).await; // ten rounds of probes, by the paused clock
    let tried = std::mem::take(&mut *script.tried.lock());
    let rounds = tried.len() / PROBES;
    let known = tried.iter().filter(|who| who.starts_with("known")).count();
    assert!((10..13).contains(&rounds), "{rounds}");
    assert!(
        (2 * rounds..=2 * rounds + 2).contains(&known),
        "{known} in {rounds} rounds"
    );

    script.answer(names("known", 1), 200);
    let up = Instant::now();
    let first = delivered(&lanes, 3).await;
    assert!(first - up < Duration::from_secs(16), "{:?}", first - up);
}

#[tokio::test(start_paused = true)]
async fn before_anyone_was_delivered_the_probes_go_round_all_lanes() {
    let (lanes, script) = outage(300, 60).await;
    script.tried.lock().clear();
    tokio::time::sleep(Duration::from_secs(400)).await; // rounds enough for all, by the paused clock
    let tried = std::mem::take(&mut *script.tried.lock());
    assert!(tried.len() > 300, "{} in 400 s", tried.len());
    let others: HashSet<_> = tried.iter().collect();
    assert!(others.len() > 290, "{} of 300", others.len());

    // The one that is taken is found within a round of all, and is no reason to wait for the others.
    script.answer(["dev7".to_owned()], 200);
    let up = Instant::now();
    let first = delivered(&lanes, 1).await;
    assert!(first - up < Duration::from_secs(400), "{:?}", first - up);
}

#[tokio::test(start_paused = true)]
async fn one_whose_shard_is_away_for_half_an_hour_is_not_thrown_away() {
    let script = Script::default();
    script.answer(names("other", 1), 200);
    script.answer(names("tenant", 1), 503);
    let lanes = start(&script);
    say(&lanes, &names("tenant", 1));
    let pass = async |seconds| {
        for _ in 0..seconds {
            say(&lanes, &names("other", 1));
            tokio::time::sleep(Duration::from_secs(1)).await; // one a second, by the paused clock
        }
    };
    pass(1800).await;
    assert_eq!((lanes.books().held, lanes.books().lost.total()), (1, 0));
    let tried = std::mem::take(&mut *script.tried.lock());
    assert!(tried.iter().filter(|who| *who == "tenant0").count() > 30);
    // An hour is long enough.
    pass(1800 + 120).await;
    assert_eq!((lanes.books().held, lanes.books().lost.poison), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_lanes_hold_together_counts_their_names_too() {
    for length in [1, 8000] {
        let script = Script::default();
        let lanes = start(&script);
        let name = |n: usize| ClientId::new(format!("{n:07}{}", "x".repeat(length))).unwrap();
        let take = |n| lanes.take(Uplink::new(name(n), SessionId(1), 1, "x".into()), None);
        let full = (0..).find(|n| take(*n) != Room::More).unwrap();
        let most = Config::default().uplinks.total_bytes / (LANE_BYTES + length);
        assert!(
            full <= most && full > most / 2,
            "{full} names of {length} bytes"
        );
        // They give back what they took.
        let names: Vec<_> = (0..=full).map(|n| name(n).as_str().to_owned()).collect();
        script.answer(names, 200);
        lanes.drained().await;
        assert_eq!(lanes.state.lock().queue.held_bytes(), 0);
        assert_eq!(take(0), Room::More);
    }
}
