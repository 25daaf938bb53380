//! Good devices while strangers do all they can.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test is a host, and may print and read its environment"
)]

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use support::{Attended, Device, Gateway, Storm, Tally, TempRedis, eventually_within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, MissedTickBehavior, interval},
};

/// `FASTSOCK_ATTACK_SECONDS=60` makes the storm that long; what it prints is then worth reading (`make attack`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_hostile_sockets_costs_no_good_device_a_message() {
    let lasts = std::env::var("FASTSOCK_ATTACK_SECONDS").ok();
    let kept = if lasts.is_some() { 0 } else { KEPT_BYTES };
    let lasts = lasts.map_or(8, |seconds| seconds.parse().expect("seconds"));
    let lasts = Duration::from_secs(lasts);
    let redis = TempRedis::new().await;
    let mut gateway = Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .var("LOG_LEVEL", "info")
        .var("FASTSOCK_LOG_FILE", "off")
        .var("FASTSOCK_LIMIT_MESSAGE_BYTES", "65536")
        .var("FASTSOCK_LIMIT_HANDSHAKE_TIME", "2000")
        .var("FASTSOCK_OUTBOX_BYTES", "262144")
        .var("FASTSOCK_WRITE_TIMEOUT", "4000")
        .start()
        .await;
    gateway.wait_line("Connected to Redis as subscriber").await;
    gateway.wait_line("Connected to Redis as publisher").await;
    let addr = gateway.addr();
    let connect = |n| async move { Device::connect(addr, &good(n)).await.attend() };
    let devices: Vec<_> = join_all((0..DEVICES).map(connect)).await;

    // What is needed once for all, such as code that has not run yet, is not what a storm leaves behind.
    let first_gust = Storm::begin(addr);
    tokio::time::sleep(lasts / 4).await; // as long as it lasts
    first_gust.end();
    let calm = publish_for(&redis, lasts / 2).await;
    wait_for_all(&devices, &calm, 0).await;
    let before = gateway.process().resident_bytes();
    let storm = Storm::begin(addr);
    let (stormy, ()) = tokio::join!(publish_for(&redis, lasts), feed_the_greedy(&redis, lasts));
    let tallies = tokio::task::spawn_blocking(|| storm.end()).await;
    let tallies = tallies.expect("it does not panic");
    let at_its_end = gateway.process().resident_bytes();
    let gaps = gateway.lines_with("Connected to Redis as subscriber").len() - 1;
    assert_eq!(gaps, 0, "it must keep up with Redis");
    wait_for_all(&devices, &stormy, calm.len()).await;

    // Nobody good was closed, lost a message, or got one twice or out of order.
    let rounds = calm.len() + stormy.len();
    let expected: Vec<_> = (0..calm.len())
        .chain(0..stormy.len())
        .map(|n| n.to_string())
        .collect();
    for device in &devices {
        assert!(device.is_open());
        assert_eq!(device.texts(), expected);
    }
    // Every stranger was answered as promised.
    tallies.iter().for_each(|tally| println!("{tally}"));
    let surprised: Vec<_> = tallies
        .iter()
        .filter(|tally| !tally.surprises().is_empty())
        .collect();
    assert!(surprised.is_empty(), "{surprised:#?}");
    assert!(tallies.iter().all(has_ended), "{tallies:#?}");
    // They left nothing behind.
    eventually_within(
        AFTERMATH,
        "only the good ones are in the hash",
        async || redis.cmd::<usize>(&["HLEN", "fastsock:clients"]).await == DEVICES,
    )
    .await;
    eventually_within(AFTERMATH, "only their descriptors are open", async || {
        gateway.process().open_files() < DEVICES + 64
    })
    .await;
    let now = || gateway.process().resident_bytes();
    let limit = before + before / 10 + kept;
    let what = format!("no more than {limit} bytes are resident, as before; {at_its_end} were");
    eventually_within(AFTERMATH, &what, async || now() <= limit).await;
    let (calm, stormy) = (p99(&devices, &calm, 0), p99(&devices, &stormy, calm.len()));
    println!(
        "{rounds} messages to each of {DEVICES} devices; p99 {:.2} ms undisturbed, {:.2} ms under attack, ratio {:.2}",
        calm.as_secs_f64() * 1e3,
        stormy.as_secs_f64() * 1e3,
        stormy.as_secs_f64() / calm.as_secs_f64()
    );
    println!(
        "resident: {} KiB before, {} KiB at its end, {} KiB after",
        before >> 10,
        at_its_end >> 10,
        now() >> 10
    );
    assert_eq!(gateway.stop().await, Some(0));
}

/// Publishes one message after the other to each device, spread over the time between two. Tells when each was published,
/// by its number.
/// Whoever answers in the place of Redis may say what it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_answers_nonsense_costs_no_device_anything() {
    for says in [
        "*1\r\n".repeat(500_000),
        "%1\r\n".repeat(500_000),
        "|1\r\n".repeat(500_000),
        ">1\r\n".repeat(500_000),
        "*2147483647\r\n".into(),
        format!("$9223372036854775807\r\n{}", "x".repeat(1000)),
        format!("({}\r\n", "9".repeat(1 << 20)),
        "*-9\r\n$-9\r\n".into(),
        "\u{1}".repeat(1000),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::<AtomicUsize>::default();
        let (count, answer) = (asked.clone(), says.clone());
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await; // it may have heard enough
                count.fetch_add(1, Relaxed);
            }
        });
        let mut gateway = Gateway::builder()
            .var("REDIS_PORT", port.to_string())
            .start()
            .await;
        let device = Device::connect(gateway.addr(), "dev1").await.attend();
        let has_come = async || asked.load(Relaxed) >= 6;
        eventually_within(Duration::from_secs(30), "it was asked", has_come).await;
        assert!(device.is_open(), "{:.40}", says);
        let memory = gateway.process().resident_bytes();
        assert!(memory < 300 << 20, "{memory} bytes after {:.40}", says);
        assert_eq!(gateway.stop().await, Some(0), "{:.40}", says);
        server.abort();
    }
}

async fn publish_for(redis: &TempRedis, lasts: Duration) -> Vec<Vec<Instant>> {
    let mut connection = redis.connection().await;
    let mut tick = interval(BETWEEN / SLICES as u32);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (begun, mut rounds) = (Instant::now(), Vec::new());
    while begun.elapsed() < lasts {
        let mut times = Vec::with_capacity(DEVICES);
        for slice in 0..SLICES {
            tick.tick().await;
            let mut publish = redis::pipe();
            for n in (0..DEVICES).skip(slice).step_by(SLICES) {
                let channel = format!("fastsock:client:{}", good(n));
                publish.publish(channel, rounds.len()).ignore();
            }
            times.push(Instant::now());
            publish.exec_async(&mut connection).await.unwrap();
        }
        rounds.push(times);
    }
    rounds
}

/// Publishes to those who read nothing, more than their outboxes hold.
async fn feed_the_greedy(redis: &TempRedis, lasts: Duration) {
    let mut connection = redis.connection().await;
    let mut tick = interval(Duration::from_millis(50));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (begun, payload) = (Instant::now(), "x".repeat(16 << 10));
    while begun.elapsed() < lasts {
        tick.tick().await;
        let mut publish = redis::pipe();
        for n in 0..8 {
            publish
                .publish(format!("fastsock:client:greedy-{n}"), &payload)
                .ignore();
        }
        publish.exec_async(&mut connection).await.unwrap();
    }
}

async fn wait_for_all(devices: &[Attended], rounds: &[Vec<Instant>], earlier: usize) {
    let has_all = |device: &Attended| device.times().len() >= earlier + rounds.len();
    eventually_within(AFTERMATH, "all messages have arrived", async || {
        assert!(devices.iter().all(Attended::is_open));
        devices.iter().all(has_all)
    })
    .await;
}

/// The latency that one in a hundred messages exceeds.
fn p99(devices: &[Attended], rounds: &[Vec<Instant>], earlier: usize) -> Duration {
    let mut latencies = Vec::new();
    for (n, device) in devices.iter().enumerate() {
        let arrived = device.times();
        let published = rounds.iter().map(|times| times[n % SLICES]);
        latencies.extend(
            published
                .zip(&arrived[earlier..])
                .map(|(sent, came)| *came - sent),
        );
    }
    latencies.sort();
    latencies[latencies.len() * 99 / 100]
}

fn has_ended(tally: &Tally) -> bool {
    tally.fates.values().sum::<u64>() > 0
}

fn good(n: usize) -> String {
    format!("good-{n}")
}

const DEVICES: usize = 200;
/// Between two messages to one device.
const BETWEEN: Duration = Duration::from_millis(500);
/// The devices get theirs in so many parts.
const SLICES: usize = 20;
/// For what comes after the storm.
const AFTERMATH: Duration = Duration::from_secs(60);
/// What a build for tests may keep, whose memory a storm as short as that one has not seen the whole of before.
const KEPT_BYTES: u64 = 8 << 20;
