//! The books: whatever goes wrong, every message is delivered, held, or counted with its reason, in every snapshot.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks and threads, and read its environment"
)]

use std::{
    collections::{HashMap, HashSet},
    env,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use fastrand::Rng;
use fastsock::{
    Answer, Bridge, Client, ClientId, CloseReason, Config, Decision, DownlinkFull, Fsync, Hooks,
    LostReason, RemoteGone, SpoolKind, Stats, Ticket, Uplink, UplinkAction, UplinkFull, WeakBridge,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use support::{Backend, DEADLINE, Frame, RawDevice, Reply, eventually};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_books_are_even_in_every_snapshot_whatever_goes_wrong() {
    let seeds: Vec<u64> = match env::var("FASTSOCK_SEED") {
        Ok(seed) => vec![seed.parse().expect("a number")],
        Err(_) => (0..6).map(|_| fastrand::u64(..)).collect(),
    };
    for pair in seeds.chunks(3) {
        join_all(pair.iter().map(|seed| trouble(*seed))).await;
    }
}

/// One bridge with random settings, in random trouble for some seconds.
async fn trouble(seed: u64) {
    println!("seed {seed} (FASTSOCK_SEED={seed} tries it again)");
    let mut rng = Rng::with_seed(seed);
    let backend = Backend::start().await;
    let directory = tempfile::tempdir().unwrap();
    let config = config(&backend, directory.path(), &mut rng);
    println!("seed {seed}: {config:?}");
    let host = Arc::new(Host::new(rng.fork()));
    let bridge = Bridge::builder(config.clone())
        .shared_hooks(host.clone())
        .start()
        .await
        .unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let auditor = audit(bridge.clone(), is_over.clone(), seed);
    let resolver = resolve(&host, is_over.clone());
    answer_badly(&backend, rng.fork());

    let end = Instant::now() + Duration::from_secs(4);
    let mut work = Vec::new();
    for n in 0..24 {
        work.push(tokio::spawn(be_a_device(
            bridge.local_addr(),
            format!("dev{}", n % 10), // some ids are fought over
            rng.fork(),
            end,
        )));
    }
    for _ in 0..2 {
        work.push(tokio::spawn(send_down(bridge.clone(), rng.fork(), end)));
    }
    for done in join_all(work).await {
        done.unwrap();
    }
    // Half of the bridges are given the time to deliver the rest, the others have to give it up.
    let is_patient = rng.bool();
    backend.answer_all(if is_patient {
        Reply::ok()
    } else {
        Reply::new(500)
    });
    let time = if is_patient {
        DEADLINE
    } else {
        Duration::from_millis(200)
    };
    let leftover = bridge.stop(time).await;
    is_over.store(true, Relaxed);
    let snapshots = auditor.join().unwrap();
    resolver.join().unwrap();

    let stats = bridge.stats();
    check(&stats, seed);
    assert_eq!(
        (
            stats.uplink.held,
            stats.downlink.held,
            stats.downlink.surplus_bytes,
        ),
        (leftover.spooled, 0, 0),
        "seed {seed}"
    );
    assert!(leftover.spooled == 0 || config.spool.kind == SpoolKind::Disk);
    assert_eq!(
        leftover.uplinks, stats.uplink.lost.shutdown,
        "seed {seed}: nothing is taken after the sessions have ended"
    );
    drop(bridge);
    backend.answer_all(Reply::ok());
    let later = the_next_run(&config, &host, leftover.spooled, seed).await;
    account(&backend, &host, &[&stats, &later], &config, seed);
    println!(
        "seed {seed}: {snapshots} snapshots, {:?}, {:?}",
        stats.uplink, stats.downlink
    );
}

/// What a spool kept is found again, and delivered or given up.
async fn the_next_run(config: &Config, host: &Arc<Host>, spooled: u64, seed: u64) -> Stats {
    if config.spool.kind != SpoolKind::Disk {
        return Stats::default();
    }
    let bridge = Bridge::builder(config.clone())
        .shared_hooks(host.clone())
        .start()
        .await
        .unwrap();
    let up = bridge.stats().uplink;
    assert_eq!(up.recovered, spooled, "seed {seed}: {up:?}");
    eventually("all is settled", async || bridge.stats().uplink.held == 0).await;
    assert!(bridge.stop(DEADLINE).await.is_empty());
    let stats = bridge.stats();
    check(&stats, seed);
    stats
}

/// Every uplink by its id: at the backend, taken by the hook, or lost with the reason that was told, and never two of these.
fn account(backend: &Backend, host: &Host, runs: &[&Stats], config: &Config, seed: u64) {
    let asked = host.asked.lock();
    let lost = host.lost.lock();
    let mut delivered = HashSet::new();
    for request in backend.requests() {
        let key = request.header("idempotency-key").expect("there is one");
        assert!(
            asked.contains_key(key),
            "seed {seed}: {key} came from nowhere"
        );
        if request.is_delivered() {
            // What was in flight at the end of a run may be delivered again by the next.
            let may_come_twice =
                config.remote.timeout < LATE || config.spool.kind == SpoolKind::Disk;
            assert!(
                delivered.insert(key.to_owned()) || may_come_twice,
                "seed {seed}: {key} was delivered twice"
            );
        }
    }
    let mut taken = 0;
    for (id, what) in asked.iter() {
        let reason = lost.get(id);
        // A hook whose thread stood still for longer than its time said so too late.
        let is_taken = *what == Fate::Taken && reason != Some(&LostReason::HookFailed);
        taken += u64::from(is_taken);
        let ends = usize::from(is_taken)
            + usize::from(reason.is_some())
            + usize::from(delivered.contains(id) && reason.is_none());
        assert_eq!(
            ends,
            1,
            "seed {seed}: {id} {what:?}, lost {reason:?}, delivered {}",
            delivered.contains(id)
        );
        // What was given up may have arrived all the same: its answer came too late, or was broken off.
        if delivered.contains(id)
            && let Some(reason) = reason
        {
            let is_in_flight = *reason == LostReason::Shutdown;
            let was_late = (config.remote.timeout < LATE || config.spool.kind == SpoolKind::Disk)
                && *reason != LostReason::HookFailed;
            assert!(is_in_flight || was_late, "seed {seed}: {id} {reason}");
        }
    }
    let sum = |count: fn(&Stats) -> u64| runs.iter().map(|stats| count(stats)).sum::<u64>();
    // What a session still read once the bridge had stopped is told as lost; there was nothing to ask.
    let unasked = lost.iter().filter(|(id, _)| !asked.contains_key(*id));
    let unasked: Vec<_> = unasked.map(|(_, reason)| *reason).collect();
    let is_of_the_end = |reason: &LostReason| *reason == LostReason::Shutdown;
    assert!(
        unasked.iter().all(is_of_the_end),
        "seed {seed}: {unasked:?}"
    );
    assert_eq!(
        (asked.len() + unasked.len()) as u64,
        sum(|stats| stats.uplink.received),
        "seed {seed}"
    );
    assert_eq!(
        taken,
        sum(|stats| stats.uplink.dropped_by_hook),
        "seed {seed}"
    );
    assert_eq!(
        lost.len() as u64,
        sum(|stats| stats.uplink.lost.total()),
        "seed {seed}"
    );
    let mut came_and_left = host.came_and_left.lock();
    came_and_left.retain(|_, balance| *balance != 0);
    assert!(came_and_left.is_empty(), "seed {seed}: {came_and_left:?}");
}

fn check(stats: &Stats, seed: u64) {
    let (up, down) = (&stats.uplink, &stats.downlink);
    assert_eq!(
        up.received + up.recovered,
        up.delivered + up.held + up.dropped_by_hook + up.passed_on + up.lost.total(),
        "seed {seed}: {up:?}"
    );
    assert_eq!(
        down.received,
        down.delivered + down.passed_on + down.held + down.lost.total(),
        "seed {seed}: {down:?}"
    );
    assert_eq!(up.held == 0, up.held_bytes == 0, "seed {seed}: {up:?}");
}

/// Looks at the books all the time, from a thread of its own. Returns how often.
fn audit(bridge: Bridge, is_over: Arc<AtomicBool>, seed: u64) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut snapshots = 0;
        let mut last = Stats::default();
        while !is_over.load(Relaxed) {
            let stats = bridge.stats();
            check(&stats, seed);
            assert!(
                stats.uplink.received >= last.uplink.received
                    && stats.uplink.delivered >= last.uplink.delivered
                    && stats.downlink.received >= last.downlink.received
                    && stats.downlink.delivered >= last.downlink.delivered,
                "seed {seed}: what was counted once stays counted: {last:?} {stats:?}"
            );
            last = stats;
            snapshots += 1;
            thread::sleep(Duration::from_micros(200)); // between two looks
        }
        snapshots
    })
}

fn config(backend: &Backend, directory: &Path, rng: &mut Rng) -> Config {
    let pick = |rng: &mut Rng, of: &[u64]| of[rng.usize(..of.len())];
    support::config(backend)
        .websocket_ping_interval(Duration::from_millis(pick(rng, &[0, 100, 30_000])))
        .remote_concurrency(pick(rng, &[1, 3, 256]) as usize)
        .remote_timeout(Duration::from_millis(pick(rng, &[100, 15_000])))
        .remote_max_age(Duration::from_millis(pick(rng, &[1000, 86_400_000])))
        .remote_gone(if rng.bool() {
            RemoteGone::Close
        } else {
            RemoteGone::Ignore
        })
        .uplink_full(match rng.bool() {
            true => UplinkFull::Pause,
            false => UplinkFull::DropOldest,
        })
        .uplink_lane_bytes(pick(rng, &[1, 1000, 65_536]) as usize)
        .uplink_total_bytes(pick(rng, &[3000, 64 << 20]) as usize)
        .downlink_full(match rng.u8(..3) {
            0 => DownlinkFull::Close,
            1 => DownlinkFull::DropOldest,
            _ => DownlinkFull::DropNewest,
        })
        .spool(if rng.bool() {
            SpoolKind::Disk
        } else {
            SpoolKind::Memory
        })
        .data_dir(directory.join("data"))
        .spool_fsync(match rng.bool() {
            true => Fsync::Always,
            false => Fsync::Interval,
        })
        .spool_max_messages(pick(rng, &[10, 1_000_000]) as usize)
        .spool_lane_bytes(pick(rng, &[2000, 64 << 20]) as usize)
        .dead_letters_max(pick(rng, &[0, 3, 10_000]) as usize)
        .outbox_bytes(pick(rng, &[1, 5000, 1 << 20]) as usize)
        .outbox_messages(pick(rng, &[2, 16_384]) as usize)
        .outbox_total_bytes(pick(rng, &[0, 20_000, 64 << 20]) as usize)
        .write_timeout(Duration::from_millis(pick(rng, &[300, 10_000])))
        .close_timeout(Duration::from_millis(pick(rng, &[100, 500])))
        .hook_timeout(Duration::from_millis(pick(rng, &[50, 500])))
}

fn answer_badly(backend: &Backend, rng: Rng) {
    let rng = Mutex::new(rng);
    backend.answer(move |_| {
        let mut rng = rng.lock();
        match rng.u8(..40) {
            0 => Reply::close(),
            1 => Reply::reset(),
            2 => Reply::new(500),
            3 => Reply::new(503).header("retry-after", "0"),
            4 => Reply::new(429),
            5 => Reply::new(400),
            6 => Reply::new(404),
            7 => Reply::new(410),
            8 => Reply::redirect(302, "/elsewhere"),
            9 => Reply::ok().after(LATE),
            10 => Reply::ok().body("ignored").cut_after_head(),
            11..20 => Reply::ok().after(Duration::from_millis(rng.u64(..20))),
            _ => Reply::ok(),
        }
    });
}

/// Connects again and again until the end, says something, and leaves in many ways; it reads slowly or never.
async fn be_a_device(addr: SocketAddr, id: String, mut rng: Rng, end: Instant) {
    while Instant::now() < end {
        let mut device = RawDevice::connect_with_buffer(addr, 4096).await;
        let request = RawDevice::upgrade_request(&format!("/?token={id}"), &[]);
        if device.try_write(request).await.is_err() {
            continue;
        }
        if rng.u8(..20) == 0 {
            device.reset(); // in the middle of its handshake
            continue;
        }
        for n in 0..rng.u32(1..30) {
            let text = format!("{}#{n}", "x".repeat(rng.usize(..400)));
            let written = device.try_write(Frame::text(text).encode());
            if !matches!(
                timeout(Duration::from_millis(100), written).await,
                Ok(Ok(()))
            ) {
                break; // it is not read, or over
            }
            if rng.u8(..8) == 0 {
                sleep(Duration::from_millis(rng.u64(..20))).await; // any tempo will do
            }
        }
        match rng.u8(..5) {
            0 => device.reset(),
            1 => drop(device),
            2 => drop(timeout(Duration::from_millis(50), device.read_to_end()).await),
            3 => {
                let _ = device.try_write(Frame::close(1000, "").encode()).await;
                drop(timeout(Duration::from_millis(100), device.read_to_end()).await);
            }
            _ => {
                sleep(Duration::from_millis(rng.u64(..400))).await; // reads nothing
                drop(device);
            }
        }
    }
}

async fn send_down(bridge: Bridge, mut rng: Rng, end: Instant) {
    let ids: Vec<_> = (0..11)
        .map(|n| ClientId::new(format!("dev{n}")).unwrap())
        .collect();
    while Instant::now() < end {
        for _ in 0..rng.u32(1..60) {
            let id = &ids[rng.usize(..ids.len())];
            let _ = bridge.send_here(id, "y".repeat(rng.usize(..3000)).into());
        }
        if rng.u8(..10) == 0 {
            bridge.disconnect(&ids[rng.usize(..ids.len())], CloseReason::Kicked);
        }
        sleep(Duration::from_millis(rng.u64(..5))).await; // any tempo will do
    }
}

/// A host whose hooks do all that a hook can do.
struct Host {
    rng: Mutex<Rng>,
    bridge: Mutex<Option<WeakBridge>>,
    /// What `on_uplink` was asked about, and what it did.
    asked: Mutex<HashMap<String, Fate>>,
    lost: Mutex<HashMap<String, LostReason>>,
    /// Decisions for the other thread: at what time, and whether to drop.
    later: Mutex<Vec<(Ticket, String, UplinkAction)>>,
    came_and_left: Mutex<HashMap<u64, i32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Forwarded, replaced, failed or never answered: what became of it is seen elsewhere.
    Open,
    /// Dropped or answered by the hook.
    Taken,
}

impl Host {
    fn new(rng: Rng) -> Self {
        Self {
            rng: Mutex::new(rng),
            bridge: Mutex::default(),
            asked: Mutex::default(),
            lost: Mutex::default(),
            later: Mutex::default(),
            came_and_left: Mutex::default(),
        }
    }
}

impl Hooks for Host {
    fn on_start(&self, bridge: &WeakBridge) {
        *self.bridge.lock() = Some(bridge.clone());
    }

    fn on_uplink(&self, uplink: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        let kind = self.rng.lock().u8(..30);
        let action = match kind {
            0 => UplinkAction::Drop,
            1 => UplinkAction::Reply("reply".into()),
            2 => UplinkAction::Replace("z".repeat(500).into()),
            _ => UplinkAction::Forward,
        };
        let is_later = self.rng.lock().u8(..10) == 0;
        let is_taken = kind < 2 && !is_later;
        let fate = if is_taken { Fate::Taken } else { Fate::Open };
        assert!(
            self.asked
                .lock()
                .insert(uplink.id.to_string(), fate)
                .is_none()
        );
        match kind {
            3 => std::panic::resume_unwind(Box::new("on purpose")), // a panic without its noise
            4 => Decision::Failed,
            5 => Decision::Later(ticket), // and never answered
            _ if is_later => {
                self.later
                    .lock()
                    .push((ticket, uplink.id.to_string(), action));
                Decision::Later(ticket)
            }
            _ => Decision::Now(action),
        }
    }

    fn on_connect(&self, client: &Client) {
        let mut balances = self.came_and_left.lock();
        *balances.entry(client.session_id.0).or_default() += 1;
    }

    fn on_disconnect(&self, client: &Client, _: &CloseReason) {
        let mut balances = self.came_and_left.lock();
        *balances.entry(client.session_id.0).or_default() -= 1;
    }

    fn on_uplink_lost(&self, uplink: &Uplink, reason: LostReason) {
        assert!(
            self.lost
                .lock()
                .insert(uplink.id.to_string(), reason)
                .is_none()
        );
    }
}

/// Answers what was put off, some of it too late.
fn resolve(host: &Arc<Host>, is_over: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let host = host.clone();
    thread::spawn(move || {
        let bridge = host.bridge.lock().clone().expect("it has started");
        while !is_over.load(Relaxed) {
            thread::sleep(Duration::from_millis(host.rng.lock().u64(..8))); // a host takes its time
            for (ticket, id, action) in std::mem::take(&mut *host.later.lock()) {
                let is_taken = matches!(action, UplinkAction::Drop | UplinkAction::Reply(_));
                if bridge.resolve(ticket, Answer::Uplink(action)).is_ok() && is_taken {
                    host.asked.lock().insert(id, Fate::Taken);
                }
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_got_and_what_was_lost_add_up_without_hooks() {
    let backend = Backend::start().await;
    answer_badly(&backend, Rng::new());
    let config = support::config(&backend);
    let bridge = Bridge::builder(config).start().await.unwrap();
    let mut devices = Vec::new();
    for n in 0..20 {
        devices.push(support::Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
    }
    for n in 0..50 {
        for device in &mut devices {
            device.send(format!("temp#{n}")).await;
        }
    }
    eventually("all received", async || {
        check(&bridge.stats(), 0);
        bridge.stats().uplink.received == 1000
    })
    .await;
    backend.answer_all(Reply::ok());
    let leftover = bridge.stop(DEADLINE).await;
    let stats = bridge.stats();
    check(&stats, 0);
    assert_eq!(leftover.uplinks, stats.uplink.lost.shutdown);
    // Per device what arrived first is in the order in which it was said.
    for n in 0..20 {
        let mut seen = Vec::new();
        for request in backend.requests_of(&format!("dev{n}")) {
            let number: u32 = request.data.rsplit('#').next().unwrap().parse().unwrap();
            if !seen.contains(&number) {
                seen.push(number);
            }
        }
        assert!(seen.is_sorted(), "dev{n}: {seen:?}");
    }
}

/// Later than the shortest time-out of a POST.
const LATE: Duration = Duration::from_millis(150);
