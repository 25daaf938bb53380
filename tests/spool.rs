//! Uplinks that outlive the process: what was taken is delivered, in order, whenever the gateway is killed or stopped.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test is a host, and may start tasks and print"
)]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use fastrand::Rng;
use fastsock::{
    Bridge, Config, ErrorKind, Fsync, Hooks, LostReason, MailboxKind, SpoolKind, Stats, Uplink,
    UplinkFull,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use support::{Backend, DEADLINE, Device, Gateway, Received, Reply, eventually, get};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const KILLS: u32 = 50;
const DEVICES: usize = 6;
const RECOVERED: &str = "the spool has uplinks of an earlier run";

/// What a device can know: it sends one message after another on a connection, and its session reads one only when the one
/// before is taken. So a message that was POSTed even once was taken, and so was everything before it on its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_delivers_what_was_taken_in_order() {
    let seed = env::var("FASTSOCK_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("a number"),
    );
    println!("seed {seed} (FASTSOCK_SEED={seed} tries it again)");
    let mut rng = Rng::with_seed(seed);
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    let is_down = Arc::new(AtomicBool::new(false));
    answer_mostly(&backend, is_down.clone(), rng.fork());
    let mut recovered = 0;
    for round in 0..KILLS {
        is_down.store(rng.u8(..3) == 0, Relaxed);
        let gateway = gateway(&backend, data.path());
        if rng.u8(..8) == 0 {
            let mut gateway = gateway.launch();
            sleep(Duration::from_millis(rng.u64(..100))).await; // any moment will do
            gateway.kill(); // while it starts
            continue;
        }
        let mut gateway = gateway.start().await;
        recovered += recovered_by(&gateway);
        let devices = (0..DEVICES).map(|n| talk(&gateway, n, round));
        let death = async {
            sleep(Duration::from_millis(rng.u64(..120))).await; // any moment will do
            gateway.process().signal(rustix::process::Signal::KILL);
        };
        tokio::join!(join_all(devices), death);
        gateway.kill();
    }
    backend.answer_all(Reply::ok());
    let mut gateway = gateway(&backend, data.path()).start().await;
    recovered += recovered_by(&gateway);
    for n in 0..DEVICES {
        let mut device = Device::connect(gateway.addr(), &format!("dev{n}")).await;
        device.send(format!("{KILLS} 0")).await;
    }
    let last = format!("{KILLS} 0");
    let is_last = |request: &&Received| request.is_delivered() && request.data == last;
    backend
        .wait_until_within(DEADLINE * 3, "the last of each device", |all| {
            all.iter().filter(is_last).count() >= DEVICES
        })
        .await;
    assert_eq!(gateway.stop().await, Some(0));
    assert!(
        gateway
            .lines_with("The spool keeps uplinks for the next start")
            .is_empty()
    );
    println!("{} requests, {recovered} recovered", backend.count());
    assert!(recovered > 20, "the kills left work behind");
    check(&backend.requests(), seed);
}

/// One device for one life of the gateway: it says what it can until the connection breaks.
async fn talk(gateway: &Gateway, n: usize, round: u32) {
    let Ok(stream) = tokio::net::TcpStream::connect(gateway.addr()).await else {
        return;
    };
    let url = format!("ws://localhost/?token=dev{n}");
    let Ok((mut socket, _)) = tokio_tungstenite::client_async(url, stream).await else {
        return; // killed meanwhile
    };
    for index in 0.. {
        let message = tokio_tungstenite::tungstenite::Message::text(format!("{round} {index}"));
        if futures_util::SinkExt::send(&mut socket, message)
            .await
            .is_err()
        {
            return;
        }
        if index % 8 == 7 {
            sleep(Duration::from_millis(1)).await; // the tempo of a device
        }
    }
}

/// Mostly well, sometimes slow, sometimes failing; while it is down, failing.
fn answer_mostly(backend: &Backend, is_down: Arc<AtomicBool>, mut rng: Rng) {
    backend.answer(move |_| match rng.u8(..20) {
        _ if is_down.load(Relaxed) => Reply::new(503),
        0 => Reply::new(500),
        1 => Reply::close(),
        2 => Reply::ok().after(Duration::from_millis(20)),
        _ => Reply::ok(),
    });
}

fn recovered_by(gateway: &Gateway) -> u64 {
    let lines = gateway.lines_with(RECOVERED);
    lines
        .iter()
        .filter_map(|line| line["messages"].as_u64())
        .sum()
}

fn check(requests: &[Received], seed: u64) {
    let mut keys = HashMap::new();
    let (mut posted, mut delivered) = (HashSet::new(), HashSet::new());
    let mut first_deliveries = HashMap::<&str, Vec<(u32, u32)>>::new();
    for request in requests {
        let message = (request.client_id.as_str(), numbers(&request.data));
        let key = request.header("idempotency-key").expect("there is one");
        let before = keys.insert(key, message);
        assert!(
            before.is_none_or(|before| before == message),
            "seed {seed}: {key}"
        );
        posted.insert(message);
        // The gateway may have been killed before it read the answer, or have heard none: then it delivers again.
        if request.is_delivered() && delivered.insert(message) {
            first_deliveries
                .entry(message.0)
                .or_default()
                .push(message.1);
        }
    }
    assert_eq!(
        keys.len(),
        posted.len(),
        "seed {seed}: one key for each message"
    );
    let lost: Vec<_> = posted.difference(&delivered).collect();
    assert!(
        lost.is_empty(),
        "seed {seed}: taken and never delivered: {lost:?}"
    );
    for (client_id, order) in first_deliveries {
        assert!(order.is_sorted(), "seed {seed}: {client_id}: {order:?}");
        let mut by_connection = BTreeMap::<u32, Vec<u32>>::new();
        for (round, index) in order {
            by_connection.entry(round).or_default().push(index);
        }
        for (round, indices) in by_connection {
            let all: Vec<_> = (0..indices.len() as u32).collect();
            assert_eq!(
                indices, all,
                "seed {seed}: holes in {client_id}, life {round}"
            );
        }
    }
}

fn numbers(data: &str) -> (u32, u32) {
    let (round, index) = data.split_once(' ').expect("two numbers");
    (
        round.parse().expect("a number"),
        index.parse().expect("a number"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_order_ids_sessions_and_kinds_of_a_backlog_larger_than_memory() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    backend.answer_all(Reply::new(503));
    let config = config(&backend, data.path())
        .uplink_lane_bytes(1000usize)
        .uplink_total_bytes(10_000usize);
    let bridge = start(&config).await;
    let mut devices = Vec::new();
    for n in 0..10 {
        devices.push(Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
    }
    for n in 0..50 {
        for device in &mut devices {
            device.send(format!("temp {} #{n}", "x".repeat(n))).await;
        }
    }
    devices[3].send_binary(vec![0xff, 0xfe]).await;
    eventually("all are taken", async || {
        bridge.stats().uplink.received == 501
    })
    .await;
    let first = backend
        .wait_until("a try", |all| !all.is_empty())
        .await
        .remove(0);
    let left = bridge.stop(DEADLINE).await;
    assert_eq!(
        (left.spooled, left.uplinks, left.is_empty()),
        (501, 0, true)
    );
    let stats = bridge.stats();
    assert_eq!((stats.uplink.held, stats.uplink.lost.total()), (501, 0));
    drop(bridge);

    backend.answer_all(Reply::ok());
    let bridge = start(&config.uplink_binary(fastsock::UplinkBinary::Base64)).await;
    eventually("all are delivered", async || {
        bridge.stats().uplink.delivered == 501
    })
    .await;
    let stats = bridge.stats();
    assert_eq!((stats.uplink.received, stats.uplink.recovered), (0, 501));
    assert_eq!((stats.uplink.held, stats.uplink.held_bytes), (0, 0));
    let requests = backend.requests_of("dev3");
    let (binary, texts): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .filter(Received::is_delivered)
        .partition(|request| request.data == "//4=");
    assert_eq!(
        (binary.len(), texts.len()),
        (1, 50),
        "and binary is still binary"
    );
    for (n, request) in texts.iter().enumerate() {
        assert!(request.data.ends_with(&format!("#{n}")), "{}", request.data);
        assert_eq!(
            request.header("x-fastsock-seq"),
            Some(format!("{}", n + 1).as_str())
        );
    }
    let again = backend.requests_of(&first.client_id);
    let again = again.iter().find(|request| request.is_delivered()).unwrap();
    for name in [
        "idempotency-key",
        "x-fastsock-session",
        "x-fastsock-epoch",
        "x-fastsock-seq",
    ] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert!(bridge.stop(DEADLINE).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_down_does_not_delay_the_end_and_the_next_start_delivers() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    backend.answer_all(Reply::hang());
    let mut gateway = gateway(&backend, data.path()).start().await;
    let mut device = Device::connect(gateway.addr(), "dev").await;
    device.send("first").await;
    device.send("second").await;
    backend.wait_for(1).await;
    let device = device.attend();
    gateway.process().terminate();
    assert_eq!(device.wait_closed().await.code, Some(1001));
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(
        gateway
            .lines_with("Shutdown left something behind")
            .is_empty()
    );
    let kept = gateway.lines_with("The spool keeps uplinks for the next start");
    let kept = kept[0]["uplinks"].as_u64().unwrap();
    assert!((1..=2).contains(&kept), "the second may not have been read");

    backend.answer_all(Reply::ok());
    let mut gateway = self::gateway(&backend, data.path()).start().await;
    let delivered = backend.wait_delivered("dev", kept as usize).await;
    assert_eq!(delivered, ["first", "second"][..kept as usize]);
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_made_for_its_owner_and_serves_one_process_at_a_time() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    let data = data.path().join("deep/data");
    let first = gateway(&backend, &data).start().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&data), mode(&data.join("spool.redb"))),
        (0o700, 0o600)
    );
    let mut second = gateway(&backend, &data).launch();
    assert_eq!(second.exit_code().await, Some(1));
    let said = second.output();
    assert!(
        said.contains("FASTSOCK_DATA_DIR: ") && said.contains("is in use"),
        "{said}"
    );
    drop(first);
    gateway(&backend, &data).start().await;
}

/// The mailbox is opened behind the spool: nothing of the spool is left when the start fails there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_lets_go_of_the_spool_before_it_returns() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    fs::write(data.path().join("mailbox.redb"), "not a database").unwrap();
    let config = config(&backend, data.path()).mailbox(MailboxKind::Disk);
    let error = try_start(&config).await.unwrap_err();
    assert!(error.to_line().contains("mailbox.redb"), "{error}");
    let spool = fs::File::open(data.path().join("spool.redb")).unwrap();
    spool.try_lock().expect("nobody has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_no_spool_is_an_error_and_stays_as_it_is() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    let path = data.path().join("spool.redb");
    for content in [&b"not a database at all, but somebody's"[..], b""] {
        fs::write(&path, content).unwrap();
        let error = try_start(&config(&backend, data.path())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let line = error.to_line();
        assert!(
            line.starts_with("FASTSOCK_DATA_DIR: ") && line.contains("move it away"),
            "{line}"
        );
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    let error = try_start(&config(&backend, &path)).await.unwrap_err();
    assert!(
        error.to_line().contains("cannot make"),
        "{}",
        error.to_line()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_stops_reading_and_goes_on_when_there_is_room() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    backend.answer_all(Reply::new(503));
    for (config, most) in [
        (config(&backend, data.path()).spool_max_messages(8usize), 11),
        (
            config(&backend, data.path()).spool_max_bytes(8usize * 132),
            11,
        ),
        (
            config(&backend, data.path()).spool_lane_bytes(3usize * 132),
            9,
        ),
    ] {
        let bridge = start(&config).await;
        let mut devices = Vec::new();
        for n in 0..3 {
            devices.push(Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
        }
        for n in 0..20 {
            for device in &mut devices {
                device.send(format!("t#{n:02}")).await;
            }
        }
        eventually("they wait", async || {
            bridge.stats().counters.reads_paused >= 3
        })
        .await;
        let held = bridge.stats().uplink.held;
        assert!((8..=most).contains(&held), "{held}");
        backend.answer_all(Reply::ok());
        eventually("all are through", async || {
            bridge.stats().uplink.delivered == 60
        })
        .await;
        assert!(bridge.stop(DEADLINE).await.is_empty());
        backend.answer_all(Reply::new(503));
    }
    backend.assert_one_in_flight();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_nothing_is_said_waited_out_and_costs_nothing() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    let gateway = gateway(&backend, data.path())
        .var("FASTSOCK_LOG_FILE", "off")
        .admin()
        .heeds_file_limit();
    let mut gateway = gateway.start().await;
    let ready = async || get(gateway.admin_addr(), "/readyz").await;
    let mut device = Device::connect(gateway.addr(), "dev").await;
    device.send("one").await;
    backend.wait_delivered("dev", 1).await;
    assert_eq!(ready().await.status, 200);
    gateway.limit_files(Some(0));
    device.send("two").await;
    let said = "the spool cannot be written; devices are read no further until it can";
    assert_eq!(gateway.wait_line(said).await["level"], "error");
    let answer = ready().await;
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (503, &"spool_failing".into())
    );
    device.send("three").await;
    assert_eq!(backend.count(), 1, "what is not taken is not delivered");
    gateway.limit_files(None);
    let again = gateway.wait_line("the spool can be written again").await;
    assert_eq!(again["level"], "warn", "who hears of it hears of its end");
    assert_eq!(
        backend.wait_delivered("dev", 3).await,
        ["one", "two", "three"]
    );
    assert_eq!(ready().await.status, 200);
    assert_eq!(gateway.lines_with(said).len(), 1, "said once");
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_oldest_drops_the_oldest_in_the_spool_and_says_so() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    backend.answer_all(Reply::hang());
    let lost = Arc::new(Lost::default());
    let config = config(&backend, data.path())
        .uplink_full(UplinkFull::DropOldest)
        .spool_lane_bytes(5usize * 132);
    let bridge = start_with(&config, lost.clone()).await;
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    device.send("t#00").await;
    backend.wait_for(1).await;
    for n in 1..20 {
        device.send(format!("t#{n:02}")).await;
    }
    eventually("all are read", async || {
        bridge.stats().uplink.received == 20
    })
    .await;
    let stats = bridge.stats();
    assert_eq!((stats.uplink.held, stats.uplink.lost.full), (5, 15));
    let said: Vec<_> = lost.0.lock().iter().map(|(data, _)| data.clone()).collect();
    let expected: Vec<_> = (1..16).map(|n| format!("t#{n:02}")).collect();
    assert_eq!(said, expected, "the first is in flight");
    let left = bridge.stop(Duration::from_secs(2)).await;
    assert_eq!((left.spooled, bridge.stats().uplink.dead_letters), (5, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_grows_old_while_nothing_runs() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    backend.answer_all(Reply::new(503));
    let config = config(&backend, data.path());
    let bridge = start(&config).await;
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    let sent_at = Instant::now();
    device.send("old").await;
    backend.wait_for(1).await;
    assert_eq!(bridge.stop(DEADLINE).await.spooled, 1);
    drop(bridge);
    backend.answer_all(Reply::ok());
    tokio::time::sleep_until(sent_at + Duration::from_millis(1100)).await;
    let bridge = start(&config.remote_max_age(Duration::from_secs(1))).await;
    eventually("it is too old", async || {
        bridge.stats().uplink.lost.too_old == 1
    })
    .await;
    eventually("it is kept", async || {
        bridge.stats().uplink.dead_letters == 1
    })
    .await;
    let letters = bridge.dead_letters(None, 10).await.unwrap();
    assert_eq!(
        (letters[0].reason, letters[0].attempts),
        (LostReason::TooOld, 0)
    );
    assert!(backend.delivered("dev").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_backend_refuses_for_good_is_kept_shown_replayed_and_dropped() {
    let (backend, data) = (Backend::start().await, TempDir::new().unwrap());
    backend.answer(|request| match request.data.as_str() {
        "good" => Reply::ok(),
        _ => Reply::new(422),
    });
    let lost = Arc::new(Lost::default());
    let headers = fastsock::Headers(vec![("Authorization".into(), Some("Bearer s3cret".into()))]);
    let config = config(&backend, data.path()).remote_headers(headers);
    let bridge = start_with(&config, lost.clone()).await;
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    for text in ["bad 1", "good", "bad 2", "bad 3"] {
        device.send(text).await;
    }
    eventually("three are kept", async || {
        bridge.stats().uplink.dead_letters == 3
    })
    .await;
    let stats = bridge.stats();
    assert_eq!((stats.uplink.lost.rejected, stats.uplink.delivered), (3, 1));
    assert_eq!(lost.0.lock().len(), 3, "and the hook has heard of them");
    let letters = bridge.dead_letters(None, 10).await.unwrap();
    let texts = |letters: &[fastsock::DeadLetter]| {
        let text = |l: &fastsock::DeadLetter| l.uplink.payload.to_text().into_owned();
        letters.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(texts(&letters), ["bad 1", "bad 2", "bad 3"]);
    let first = &letters[0];
    assert_eq!(
        (first.reason, first.status, first.attempts),
        (LostReason::Rejected, Some(422), 1)
    );
    assert_eq!(first.error, "Request failed with status code 422");
    assert!(first.first_attempt_at <= first.last_attempt_at && first.first_attempt_at.is_some());
    let header = |name: &str| {
        let found = first.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.clone())
    };
    assert_eq!(header("authorization").as_deref(), Some("***"));
    assert_eq!(header("idempotency-key"), Some(first.uplink.id.to_string()));
    let page = bridge.dead_letters(Some(first.uplink.id), 1).await.unwrap();
    assert_eq!(texts(&page), ["bad 2"]);
    bridge.stop(DEADLINE).await;
    drop(bridge);

    // They outlive the process, too.
    let bridge = start(&config).await;
    assert_eq!(bridge.stats().uplink.dead_letters, 3);
    let (one, two) = (letters[0].uplink.id, letters[1].uplink.id);
    let shown = bridge.dead_letter(two).await.unwrap().unwrap();
    assert_eq!(shown.uplink.payload.to_text(), "bad 2");
    assert!(bridge.drop_dead_letter(two).await.unwrap());
    assert!(!bridge.drop_dead_letter(two).await.unwrap());
    assert!(bridge.dead_letter(two).await.unwrap().is_none());
    backend.answer_all(Reply::ok());
    assert!(bridge.replay_dead_letter(one).await.unwrap());
    assert!(!bridge.replay_dead_letter(one).await.unwrap());
    let delivered = backend.wait_delivered("dev", 2).await;
    assert_eq!(delivered, ["good", "bad 1"]);
    let replayed = backend.requests().pop().unwrap();
    assert_eq!(
        replayed.header("idempotency-key"),
        Some(one.to_string().as_str())
    );
    assert_eq!(replayed.header("x-fastsock-seq"), Some("1"));
    eventually("it is settled", async || {
        bridge.stats().uplink.delivered == 1
    })
    .await;
    let up = bridge.stats().uplink;
    assert_eq!(
        (up.recovered, up.dead_letters, up.dead_letters_dropped),
        (1, 1, 1)
    );
    bridge.stop(DEADLINE).await;
    let error = bridge
        .replay_dead_letter(letters[2].uplink.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_spool_keeps_dead_letters_while_the_process_lives() {
    let backend = Backend::start().await;
    backend.answer(|request| {
        Reply::new(if request.data.starts_with("bad") {
            422
        } else {
            200
        })
    });
    let config = support::loopback()
        .dead_letters_max(2usize)
        .remote_url(Some(backend.url()));
    let bridge = start(&config).await;
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    for text in ["bad 1", "good", "bad 2", "bad 3"] {
        device.send(text).await;
    }
    eventually("three are lost", async || {
        bridge.stats().uplink.lost.rejected == 3
    })
    .await;
    let up = bridge.stats().uplink;
    assert_eq!((up.dead_letters, up.dead_letters_dropped), (2, 1));
    let letters = bridge.dead_letters(None, 10).await.unwrap();
    let texts: Vec<_> = letters.iter().map(|l| l.uplink.payload.to_text()).collect();
    assert_eq!(texts, ["bad 2", "bad 3"]);
    let first = &letters[0];
    assert_eq!((first.status, first.attempts), (Some(422), 1));
    assert_eq!(first.error, "Request failed with status code 422");
    assert!(first.first_attempt_at <= first.last_attempt_at && first.first_attempt_at.is_some());
    assert!(!first.headers.is_empty());
    let page = bridge.dead_letters(Some(first.uplink.id), 1).await.unwrap();
    assert_eq!(page[0].uplink.id, letters[1].uplink.id);

    let (two, three) = (letters[0].uplink.id, letters[1].uplink.id);
    backend.answer_all(Reply::ok());
    assert!(bridge.replay_dead_letter(two).await.unwrap());
    assert!(!bridge.replay_dead_letter(two).await.unwrap());
    assert_eq!(backend.wait_delivered("dev", 2).await, ["good", "bad 2"]);
    let replayed = backend.requests().pop().unwrap();
    let key = Some(two.to_string());
    assert_eq!(replayed.header("idempotency-key"), key.as_deref());
    assert!(bridge.drop_dead_letter(three).await.unwrap());
    assert!(bridge.dead_letter(three).await.unwrap().is_none());
    assert!(bridge.stop(DEADLINE).await.is_empty());
    let up = bridge.stats().uplink;
    assert_eq!((up.received, up.recovered, up.delivered), (4, 1, 2));
    assert_eq!(
        (up.lost.rejected, up.dead_letters, up.dead_letters_dropped),
        (3, 0, 2)
    );
    let error = try_start(&config.spool(SpoolKind::Disk)).await.unwrap_err();
    assert!(error.to_line().contains("set FASTSOCK_DATA_DIR"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_sync_delivers_and_two_bridges_do_not_meet() {
    let backend = Backend::start().await;
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for fsync in [Fsync::Always, Fsync::Interval] {
        let with = |data: &TempDir| {
            config(&backend, data.path())
                .spool_fsync(fsync)
                .spool_fsync_interval(Duration::from_millis(5))
        };
        let (a, b) = (start(&with(&one)).await, start(&with(&two)).await);
        for bridge in [&a, &b] {
            let mut device = Device::connect(bridge.local_addr(), "dev").await;
            for n in 0..30 {
                device.send(format!("t#{n}")).await;
            }
            eventually("all are through", async || {
                bridge.stats().uplink.delivered == 30
            })
            .await;
        }
        for bridge in [a, b] {
            let left = bridge.stop(DEADLINE).await;
            assert_eq!((left.spooled, left.is_empty()), (0, true));
        }
    }
}

#[derive(Default)]
struct Lost(Mutex<Vec<(String, LostReason)>>);

impl Hooks for Lost {
    fn on_uplink_lost(&self, uplink: &Uplink, reason: LostReason) {
        let text = uplink.payload.to_text().into_owned();
        self.0.lock().push((text, reason));
    }
}

fn gateway(backend: &Backend, data: &Path) -> support::GatewayBuilder {
    Gateway::builder()
        .var("REMOTE_URL", backend.url())
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_SPOOL", "disk")
        .var("FASTSOCK_DATA_DIR", data.to_string_lossy())
}

fn config(backend: &Backend, data: &Path) -> Config {
    support::config(backend)
        .spool(SpoolKind::Disk)
        .data_dir(data.to_owned())
}

async fn try_start(config: &Config) -> fastsock::Result<Bridge> {
    Bridge::builder(config.clone()).start().await
}

async fn start(config: &Config) -> Bridge {
    start_with(config, Arc::new(())).await
}

async fn start_with(config: &Config, hooks: Arc<dyn Hooks>) -> Bridge {
    let bridge = Bridge::builder(config.clone()).shared_hooks(hooks);
    let bridge = bridge.start().await.unwrap();
    even(&bridge.stats());
    bridge
}

fn even(stats: &Stats) {
    let up = &stats.uplink;
    assert_eq!(
        up.received + up.recovered,
        up.delivered + up.held + up.dropped_by_hook + up.passed_on + up.lost.total(),
        "{up:?}"
    );
}
