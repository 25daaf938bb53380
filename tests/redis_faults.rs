//! Redis dies, freezes, moves, refuses and forgets under a gateway full of devices: they notice nothing of it, and what it
//! must know is there again soon after it is.

#[path = "redis_faults/masters.rs"]
mod masters;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use fastsock::{Bridge, Config, Hooks, State};
use parking_lot::Mutex;
use support::{
    Attended, Authority, Backend, DEADLINE, Device, Gateway, GatewayBuilder, OwnNetwork, TempRedis,
    TempSentinel, call, eventually, eventually_within, get, until,
};
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_killed_for_two_seconds_costs_no_device_and_gets_everything_back() {
    for mode in MODES {
        stays_away(mode, Duration::from_secs(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_killed_for_twenty_seconds_costs_no_device_and_gets_everything_back() {
    let away = Duration::from_secs(20);
    tokio::join!(stays_away("pattern", away), stays_away("exact", away));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_absent_for_twenty_seconds_at_the_start_is_told_everything_when_it_comes() {
    tokio::join!(comes_late("pattern"), comes_late("exact"));
}

#[test]
fn a_redis_that_nobody_named_and_that_comes_after_twenty_seconds_is_used_from_then_on() {
    // The only Redis that `auto` looks for is that on port 6379, which belongs to this machine and not to a test.
    let test = "a_redis_that_nobody_named_and_that_comes_after_twenty_seconds_is_used_from_then_on";
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    };
    OwnNetwork::of(test).run(|| runtime().block_on(appears()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_frozen_for_ten_seconds_holds_no_device_up() {
    tokio::join!(freezes("pattern"), freezes("exact"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_redis_closes_is_back_within_two_seconds() {
    for mode in MODES {
        let redis = TempRedis::new().await;
        let mut fleet = Fleet::start(mode, at(&redis)).await;
        fleet.is_known(&redis).await;
        for (kind, word) in [("pubsub", "subscriber"), ("normal", "publisher")] {
            for round in 1..=2 {
                let cut = Moment::now();
                assert!(redis.kill_clients(kind).await >= 1);
                let connected = format!("Connected to Redis as {word}");
                let again = async || fleet.gateway.lines_with(&connected).len() > round;
                eventually_within(BACK, &connected, again).await;
                fleet.is_restored(&redis, cut).await;
            }
        }
        let gaps = fleet.gaps();
        assert_eq!(gaps.len(), 2, "one for each time the sub link was lost");
        assert!(gaps.iter().all(|(from, to)| to - from < 10_000), "{gaps:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_told_of_the_gap_and_of_both_ends_of_the_outage() {
    let mut redis = TempRedis::new().await;
    let told = Arc::new(Told::default());
    let config = support::on_redis(&redis);
    let starting = Bridge::builder(config).shared_hooks(told.clone()).start();
    let bridge = starting.await.expect("it starts");
    redis.wait_subscribed("fastsock:control", 2).await;
    let device = Device::connect(bridge.local_addr(), "dev").await.attend();
    let value = redis.wait_field("fastsock:clients", "dev").await;

    let cut = Moment::now();
    redis.kill();
    eventually("the host knows", async || {
        told.last() == Some(State::Degraded)
    })
    .await;
    assert_eq!(bridge.state(), State::Degraded);
    sleep(Duration::from_secs(2)).await; // how long it is away
    let back = Moment::now();
    redis.start().await;
    eventually("the host knows", async || {
        told.last() == Some(State::Running)
    })
    .await;
    assert_eq!(bridge.state(), State::Running);
    let states = told.0.lock().clone();
    let [State::Degraded, State::Gap { from, to }, State::Running] = states[..] else {
        panic!("{states:?}");
    };
    let (from, to) = (Moment::of(from), Moment::of(to));
    assert!(from <= cut && cut.ms - from.ms < 7_000, "{from:?} {cut:?}");
    assert!(to >= back && to.ms - back.ms < 4_000, "{to:?} {back:?}");
    assert_eq!(bridge.stats().counters.broker_gaps, 1);
    assert_eq!(redis.wait_field("fastsock:clients", "dev").await, value);
    redis.publish("fastsock:client:dev", "after").await;
    device.wait_text("after").await;
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_only_one_link_is_back_the_host_is_not_told_that_all_is_well() {
    // The password is right and the scripts are forbidden, so that the sub link comes up and the cmd link never does.
    let redis = TempRedis::builder()
        .user("u", "p", "~* &* +@all -eval")
        .start()
        .await;
    let told = Arc::new(Told::default());
    let url = format!("redis://u:p@127.0.0.1:{}", redis.port());
    let config = Config::from_vars([
        ("WEBSOCKET_PORT", "0"),
        ("FASTSOCK_BROKER", "redis"),
        ("FASTSOCK_REDIS_URL", &url),
    ]);
    let starting = Bridge::builder(config.unwrap()).shared_hooks(told.clone());
    let bridge = starting.start().await.expect("it starts");
    let device = Device::connect(bridge.local_addr(), "dev").await.attend();
    for round in 0..2 {
        redis.wait_subscribed("fastsock:control", 2).await;
        eventually("downlinks arrive", async || {
            redis
                .publish("fastsock:client:dev", format!("{round}"))
                .await;
            device.texts().contains(&round.to_string())
        })
        .await;
        eventually("the host knows", async || bridge.state() == State::Degraded).await;
        redis.kill_clients("pubsub").await;
        eventually("the gap is counted", async || {
            bridge.stats().counters.broker_gaps > round
        })
        .await;
        assert_eq!(bridge.state(), State::Degraded);
    }
    assert!(!told.0.lock().contains(&State::Running));
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_with_another_password_is_used_once_the_password_is_right() {
    let redis = TempRedis::builder().password("right").start().await;
    let vars = [redis_url(&format!(
        "redis://:soon@127.0.0.1:{}",
        redis.port()
    ))];
    let mut fleet = Fleet::start("pattern", vars).await;
    let started = fleet.started;
    let refused = "Redis error for publisher";
    let line = fleet.gateway.wait_line(refused).await;
    assert!(line["error"].to_string().contains("WRONGPASS"), "{line}");
    assert!(!line.to_string().contains("soon"), "{line}");
    fleet.works_alone().await;
    redis
        .cmd::<()>(&["ACL", "SETUSER", "default", ">soon"])
        .await;
    let connected = "Connected to Redis as subscriber";
    eventually_within(Duration::from_secs(7), connected, async || {
        !fleet.gateway.lines_with(connected).is_empty()
    })
    .await;
    fleet.is_restored(&redis, started).await;
    assert_eq!(fleet.gateway.lines_with(refused).len(), 1, "told once");
    assert_eq!(fleet.gaps().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rediss_with_a_certificate_of_ones_own_and_a_user_comes_back_too() {
    let authority = Authority::new();
    let mut redis = TempRedis::builder()
        .user("alice", "s3cr%t", "~fastsock:* &fastsock:* +@all")
        .tls(&authority)
        .start()
        .await;
    let vars = [
        redis_url(&redis.tls_url().replace("://", "://alice:s3cr%25t@")),
        (
            "FASTSOCK_REDIS_CA",
            authority.ca_path().display().to_string(),
        ),
    ];
    let mut fleet = Fleet::start("exact", vars).await;
    fleet.is_known(&redis).await;
    let cut = Moment::now();
    redis.kill();
    fleet.is_degraded().await;
    fleet.works_alone().await;
    redis.start().await;
    fleet.is_restored(&redis, cut).await;
    assert!(!fleet.gateway.stdout().concat().contains("s3cr"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_full_of_clients_is_tried_until_it_has_room() {
    let redis = TempRedis::builder()
        .args(["--maxclients", "1"])
        .start()
        .await;
    let mut only = eventually("its one place is free", async || {
        let client = redis::Client::open(redis.url()).expect("a URL");
        client.get_multiplexed_async_connection().await
    })
    .await;
    let mut fleet = Fleet::start("exact", at(&redis)).await;
    let started = fleet.started;
    for word in ["publisher", "subscriber"] {
        let error = format!("Redis error for {word}");
        fleet.gateway.wait_line(&error).await;
    }
    fleet.works_alone().await;
    let room = redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxclients")
        .arg(100)
        .to_owned();
    room.exec_async(&mut only).await.expect("it may");
    fleet.is_restored(&redis, started).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_is_no_ghost_though_redis_comes_back_with_older_data() {
    let mut redis = TempRedis::new().await;
    let mut fleet = Fleet::start("pattern", at(&redis)).await;
    let leaves = fleet.device("leaves").await;
    fleet.is_known(&redis).await;
    redis.wait_field("fastsock:clients", "leaves").await;
    redis.cmd::<()>(&["SAVE"]).await;
    drop(leaves);
    redis.wait_no_field("fastsock:clients", "leaves").await;
    let cut = Moment::now();
    redis.kill();
    redis.start().await;
    fleet.is_restored(&redis, cut).await;
    for key in ["fastsock:clients", "fastsock:owner"] {
        redis.wait_no_field(key, "leaves").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_prefixes_and_ids_are_names_like_any_other() {
    let redis = TempRedis::new().await;
    let long = "x".repeat(2000);
    let ids = [
        "a\nb",
        "a b\r\n",
        "*",
        "[a-z]?",
        r"\",
        "a:b:c",
        "{tag}",
        "Ünïcode ✓",
        "\u{1}\u{7f}",
        &long,
    ];
    for prefix in ["{tag}", "a*b?[c]", r"back\slash", "sp ace\"'", "Ü:✓"] {
        for mode in MODES {
            let gateway = builder(mode)
                .var("REDIS_PORT", redis.port().to_string())
                .var("REDIS_PREFIX", prefix)
                .start()
                .await;
            let clients = format!("{prefix}:clients");
            for id in ids {
                let mut device = Device::connect(gateway.addr(), id).await;
                redis.wait_field(&clients, id).await;
                let channel = format!("{prefix}:client:{id}");
                redis.publish(&channel, id).await;
                assert_eq!(device.recv_text().await, id, "{prefix} {mode}");
            }
            eventually("all have left", async || {
                redis.hgetall(&clients).await.is_empty()
            })
            .await;
        }
    }
}

/// Redis is killed, and comes back with nothing in it.
async fn stays_away(mode: &str, away: Duration) {
    let mut redis = TempRedis::new().await;
    let mut fleet = Fleet::start(mode, at(&redis)).await;
    fleet.is_known(&redis).await;
    let cut = Moment::now();
    redis.kill();
    fleet.is_degraded().await;
    fleet.works_alone_for(away).await;
    let back = Moment::now();
    redis.start().await;
    fleet.is_restored(&redis, cut).await;
    fleet.told_of_one_gap(cut, back);
}

/// Redis is named, and not there when the gateway starts.
async fn comes_late(mode: &str) {
    let mut redis = TempRedis::builder().stopped();
    let vars = [("REDIS_PORT", redis.port().to_string())];
    let mut fleet = Fleet::start(mode, vars).await;
    fleet.is_degraded().await;
    fleet.works_alone_for(Duration::from_secs(20)).await;
    let back = Moment::now();
    redis.start().await;
    fleet.is_restored(&redis, fleet.started).await;
    // Whoever was connected since the start may have missed something.
    fleet.told_of_one_gap(fleet.started, back);
}

/// Nobody named a Redis, and one appears.
async fn appears() {
    let mut redis = TempRedis::builder().port(6379).stopped();
    let mut fleet = Fleet::start("exact", [("FASTSOCK_BROKER", "auto".into())]).await;
    assert_eq!(fleet.readiness().await, (200, "ready".into()), "no fault");
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        fleet.serves().await;
        sleep(Duration::from_secs(1)).await; // for so long nobody is there, and devices are served
    }
    let alone = "running with the embedded broker";
    let warnings = || {
        let mut lines = fleet.gateway.lines();
        lines.retain(|line| line["message"].to_string().contains(alone));
        lines.len()
    };
    assert_eq!(warnings(), 1);
    redis.start().await;
    fleet.is_restored(&redis, fleet.started).await;
    assert_eq!(fleet.gaps(), [], "nobody published before");
    let cut = Moment::now();
    redis.kill();
    fleet.is_degraded().await; // from now on it is missed
    redis.start().await;
    fleet.is_restored(&redis, cut).await;
    assert_eq!(fleet.gaps().len(), 1);
}

/// Redis keeps its connections and answers nothing for a while; nothing in it is lost.
async fn freezes(mode: &str) {
    let redis = TempRedis::new().await;
    let mut fleet = Fleet::start(mode, at(&redis)).await;
    fleet.is_known(&redis).await;
    let cut = Moment::now();
    redis.freeze();
    // At once, when nobody has noticed yet.
    fleet.serves().await;
    fleet.is_degraded().await;
    let since = Duration::from_millis(Moment::now().ms - cut.ms);
    fleet
        .works_alone_for(Duration::from_secs(10).saturating_sub(since))
        .await;
    let back = Moment::now();
    redis.thaw();
    fleet.is_restored(&redis, cut).await;
    fleet.told_of_one_gap(cut, back);
}

/// A gateway with devices of which some talk and some never do, and what Redis should know of them.
struct Fleet {
    gateway: Gateway,
    backend: Backend,
    started: Moment,
    devices: Vec<Attended>,
    /// Of each device, between which two moments its last sign was.
    seen: BTreeMap<String, (Moment, Moment)>,
    said: usize,
}

impl Fleet {
    async fn start(mode: &str, vars: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let (backend, started) = (Backend::start().await, Moment::now());
        let mut gateway = builder(mode).admin().var("REMOTE_URL", backend.url());
        for (name, value) in vars {
            gateway = gateway.var(name, value);
        }
        let mut fleet = Self {
            gateway: gateway.start().await,
            backend,
            started,
            devices: Vec::new(),
            seen: BTreeMap::new(),
            said: 0,
        };
        for _ in 0..20 {
            fleet.joins().await;
        }
        fleet
    }

    /// Redis knows of everyone. From here on their last signs are known to the millisecond.
    async fn is_known(&mut self, redis: &TempRedis) {
        let now = Moment::now();
        for n in (0..self.devices.len()).step_by(2) {
            self.says(n).await;
        }
        let hash = self.has_whole_hash(DEADLINE, redis).await;
        for (id, seen) in &mut self.seen {
            let ms = hash[id].parse().expect("checked");
            assert!(ms <= now.ms + 10_000);
            *seen = (Moment { ms }, Moment { ms });
        }
        eventually("it is ready", async || {
            self.readiness().await == (200, "ready".into())
        })
        .await;
    }

    /// One more device, which must not wait for Redis.
    async fn joins(&mut self) {
        let (id, from) = (format!("dev{}", self.devices.len()), Moment::now());
        let connecting = self.device(&id);
        let device = timeout(CONNECT_MAX, connecting).await;
        let device = device.unwrap_or_else(|_| panic!("{id} waited over {CONNECT_MAX:?}"));
        // It counts as seen when its 101 is written, which may be after it was read.
        let to = Moment::now().later(500);
        self.devices.push(device);
        self.seen.insert(id, (from, to));
    }

    /// A device that is not of the fleet.
    async fn device(&self, id: &str) -> Attended {
        Device::connect(self.gateway.addr(), id).await.attend()
    }

    /// An uplink arrives at the backend.
    async fn says(&mut self, device: usize) {
        self.said += 1;
        let (id, text) = (format!("dev{device}"), format!("uplink {}", self.said));
        let from = Moment::now();
        self.devices[device].send(&text).await;
        eventually("the uplink arrives", async || {
            self.backend.delivered(&id).contains(&text)
        })
        .await;
        self.seen.insert(id, (from, Moment::now()));
    }

    /// Everything that needs no Redis: connecting, uplinks, sending to who is here.
    async fn serves(&mut self) {
        self.joins().await;
        self.says(self.devices.len() - 1).await;
        self.says(1).await;
        for device in [0, self.devices.len() - 1] {
            self.said += 1;
            let (path, text) = (
                format!("/api/v1/clients/dev{device}/messages"),
                format!("local {}", self.said),
            );
            let raw = [("content-type", "application/octet-stream")];
            let admin = self.gateway.admin_addr();
            let answer = call(admin, "POST", &path, &raw, text.clone()).await;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, r#"{"sent":"here"}"#)
            );
            self.devices[device].wait_text(&text).await;
        }
        assert!(self.devices.iter().all(Attended::is_open));
    }

    async fn works_alone(&mut self) {
        self.serves().await;
        assert_eq!(self.readiness().await, (503, "degraded".into()));
    }

    async fn works_alone_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.works_alone().await;
            let left = end.saturating_duration_since(Instant::now());
            sleep(left.min(time / 8)).await; // how long it is away
        }
    }

    async fn is_degraded(&self) {
        eventually("it is degraded", async || {
            self.readiness().await == (503, "degraded".into())
        })
        .await;
    }

    async fn readiness(&self) -> (u16, String) {
        let answer = get(self.gateway.admin_addr(), "/readyz").await;
        let status = answer.json()["status"].as_str().map(str::to_owned);
        (answer.status, status.unwrap_or_default())
    }

    async fn is_restored(&mut self, redis: &TempRedis, since: Moment) {
        self.is_restored_within(BACK, redis, since).await;
    }

    /// Redis is back: it knows of everyone with their last signs, its messages arrive, and nobody was closed meanwhile.
    async fn is_restored_within(&mut self, time: Duration, redis: &TempRedis, since: Moment) {
        self.has_whole_hash(time, redis).await;
        eventually_within(time, "it is ready", async || {
            self.readiness().await == (200, "ready".into())
        })
        .await;
        self.hears(redis).await;
        self.says(0).await;
        assert!(
            self.devices.iter().all(Attended::is_open),
            "since {since:?}"
        );
    }

    /// A message published to each device arrives.
    async fn hears(&mut self, redis: &TempRedis) {
        self.said += 1;
        let text = format!("downlink {}", self.said);
        for n in 0..self.devices.len() {
            let channel = format!("fastsock:client:dev{n}");
            assert_eq!(redis.publish(&channel, &text).await, 1, "to dev{n}");
        }
        for device in &self.devices {
            device.wait_text(&text).await;
        }
    }

    /// Waits until Redis knows exactly this fleet, each with its last sign.
    async fn has_whole_hash(&self, time: Duration, redis: &TempRedis) -> BTreeMap<String, String> {
        let wrong = Mutex::new(String::new());
        let right = until(time, async || {
            let hash: BTreeMap<_, _> = redis.hgetall("fastsock:clients").await;
            let fault = self.fault(&hash);
            let is_right = fault.is_empty();
            *wrong.lock() = fault;
            is_right.then_some(hash)
        });
        let right = right.await;
        right.unwrap_or_else(|| panic!("{}\n{}", wrong.lock(), self.gateway.output()))
    }

    /// What is wrong about the hash.
    fn fault(&self, hash: &BTreeMap<String, String>) -> String {
        for (id, (from, to)) in &self.seen {
            match hash.get(id).map(|ms| ms.parse::<u64>()) {
                Some(Ok(ms)) if ms >= from.ms && ms <= to.ms => {}
                found => return format!("{id} should be {}..{}: {found:?}", from.ms, to.ms),
            }
        }
        let ghost = hash.keys().find(|id| !self.seen.contains_key(*id));
        match ghost {
            Some(id) if id != "leaves" => format!("{id} is a ghost"),
            _ => String::new(),
        }
    }

    /// Every gap in the log: from and to in unix milliseconds.
    fn gaps(&self) -> Vec<(u64, u64)> {
        let mut lines = self.gateway.lines();
        lines.retain(|line| line["message"].to_string().contains("gap: downlinks"));
        let ms = |value: &serde_json::Value| value.as_u64().expect("milliseconds");
        let gaps = lines.iter().map(|line| {
            assert_eq!(line["level"], "warn");
            (ms(&line["from_ms"]), ms(&line["to_ms"]))
        });
        gaps.collect()
    }

    /// The gap begins at the last moment the link was known to work, and ends when it works again.
    fn told_of_one_gap(&self, cut: Moment, back: Moment) {
        let gaps = self.gaps();
        let [(from, to)] = gaps[..] else {
            panic!("{gaps:?}");
        };
        let slack = 1_000; // of the start of a process
        assert!(
            from <= cut.ms + slack && cut.ms < from + 7_000,
            "{from} {cut:?}"
        );
        assert!(to >= back.ms && to <= Moment::now().ms, "{to} {back:?}");
    }
}

/// A wall-clock time in unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    ms: u64,
}

impl Moment {
    fn now() -> Self {
        Self::of(SystemTime::now())
    }

    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        Self {
            ms: since.expect("after 1970").as_millis() as u64,
        }
    }

    fn later(self, ms: u64) -> Self {
        Self { ms: self.ms + ms }
    }
}

/// Hooks that note what they are told of the bridge, up to the last `Running` before anything happened.
#[derive(Default)]
struct Told(Mutex<Vec<State>>);

impl Told {
    fn last(&self) -> Option<State> {
        self.0.lock().last().cloned()
    }
}

impl Hooks for Told {
    fn on_state(&self, state: &State) {
        self.0.lock().push(state.clone());
    }
}

/// A gateway that is unready while Redis is away.
fn builder(mode: &str) -> GatewayBuilder {
    Gateway::builder()
        .var("FASTSOCK_REDIS_SUBSCRIBE", mode)
        .var("FASTSOCK_READY_REQUIRES_BROKER", "on")
}

fn at(redis: &TempRedis) -> [(&'static str, String); 1] {
    [("REDIS_PORT", redis.port().to_string())]
}

fn redis_url(url: &str) -> (&'static str, String) {
    ("FASTSOCK_REDIS_URL", url.to_owned())
}

const MODES: [&str; 2] = ["pattern", "exact"];

/// How soon after Redis answers everything must be as before.
const BACK: Duration = Duration::from_secs(2);

/// A device waits a second for Redis at most; the rest is for a busy machine.
const CONNECT_MAX: Duration = Duration::from_millis(1600);
