//! Messages that come for devices which a stop has just told to go: whatever was heard is accounted for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use fastsock::{
    Bridge, BrokerKind, ClientId, Config, Hooks, KeepOptions, Payload, State, Subscribe,
};
use support::{DEADLINE, Device, Frame, RawDevice, TempRedis, eventually, opcode};
use tempfile::TempDir;

/// Of what is published while gateways stop, and somebody heard, nothing is lost in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_that_was_heard_during_a_stop_is_accounted_for() {
    for (mode, mailbox) in [("pattern", "off"), ("exact", "off"), ("pattern", "redis")] {
        let redis = TempRedis::new().await;
        let (mut heard, mut got, mut lost) = (0, 0, 0);
        for _ in 0..3 {
            let config = support::on_redis(&redis);
            let mut config = config;
            config.set("redis_subscribe", mode).unwrap();
            config.set("mailbox", mailbox).unwrap();
            config.set("mailbox_messages", "1000000").unwrap(); // none is dropped for want of room, however fast this machine is
            let bridge = Bridge::builder(config).start().await.unwrap();
            let mut devices = Vec::new();
            for n in 0..20 {
                let device = Device::connect(bridge.local_addr(), &format!("d{n}")).await;
                devices.push(device.attend());
            }
            redis.wait_field("fastsock:clients", "d19").await;
            redis.publish("fastsock:client:d0", "first").await;
            devices[0].wait_text("first").await;
            let is_over = AtomicBool::new(false);
            let publishing = async {
                let mut connection = redis.connection().await;
                let mut heard = 1;
                let mut n = 0;
                while !is_over.load(Relaxed) {
                    let channel = format!("fastsock:client:d{}", n % 20);
                    n += 1;
                    let mut publish = redis::cmd("PUBLISH");
                    publish.arg(channel).arg(n.to_string());
                    heard += publish.query_async::<u64>(&mut connection).await.unwrap();
                }
                heard
            };
            let stopping = async {
                tokio::time::sleep(Duration::from_millis(20)).await; // messages are on their way
                bridge.stop(DEADLINE).await;
                is_over.store(true, Relaxed);
            };
            let (published, ()) = tokio::join!(publishing, stopping);
            heard += published;
            for device in &devices {
                device.wait_closed().await;
                got += device.texts().len() as u64;
            }
            let stats = bridge.stats();
            let counters = stats.counters;
            lost += stats.downlink.lost.total() + counters.downlinks_late;
            lost += counters.downlinks_late_kept;
            // What was written to a socket that the device had closed by then is on nobody's books.
            lost += stats.downlink.delivered
                - devices.iter().map(|d| d.texts().len() as u64).sum::<u64>();
            if mailbox == "redis" {
                assert_eq!(counters.downlinks_late, 0);
                let mut kept = 0;
                for n in 0..20 {
                    let key = format!("fastsock:mbox:{{d{n}}}");
                    kept += redis.cmd::<u64>(&["XLEN", &key]).await;
                    redis.cmd::<u64>(&["DEL", &key]).await;
                }
                assert_eq!(kept, counters.downlinks_late_kept);
            }
        }
        assert_eq!(heard, got + lost, "{mode} {mailbox}: {got} arrived");
    }
}

/// What a gateway has taken and its device has not read when it is told to go: its mailbox has it, or it is counted and told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_and_not_written_is_kept_or_told() {
    const COUNT: usize = 300;
    for (mailbox, drains) in [
        ("off", false),
        ("redis", false),
        ("disk", false),
        ("off", true),
        ("redis", true),
        ("disk", true),
    ] {
        let redis = TempRedis::new().await;
        let data = TempDir::new().unwrap();
        let gaps = Arc::new(AtomicU64::new(0));
        let start = async || {
            let mut config = Config::default()
                .websocket_port(0u16)
                .broker(BrokerKind::Redis)
                .redis_port(redis.port())
                .write_timeout(Duration::from_secs(600)) // however slow this machine is, the device is not given up
                .websocket_ping_interval(Duration::ZERO)
                .data_dir(Some(data.path().into()))
                .outbox_bytes(64usize << 20);
            config.set("mailbox", mailbox).unwrap();
            config.set("mailbox_bytes", "64MiB").unwrap();
            let gaps = Gaps(Arc::clone(&gaps));
            Bridge::builder(config).hooks(gaps).start().await.unwrap()
        };
        let bridge = start().await;
        let mut stuck = RawDevice::seated(bridge.local_addr(), "dev").await;
        redis.wait_field("fastsock:clients", "dev").await;
        let filling = "x".repeat(64 << 10);
        let mut answered = 0;
        for n in 0..COUNT {
            let text = format!("{n} {filling}");
            answered += redis.publish("fastsock:client:dev", text).await;
        }
        assert_eq!(answered, COUNT as u64);
        eventually("all are taken", async || {
            let books = bridge.stats().downlink;
            (books.received, books.held > 0) == (answered, true)
        })
        .await;
        let reading = async {
            let mut read = Vec::new();
            loop {
                let frame = stuck.frame().await;
                if frame.opcode == opcode::CLOSE {
                    stuck.send(&Frame::close(1000, "")).await;
                    return read;
                }
                if frame.opcode == opcode::TEXT {
                    read.push(number(&frame.payload));
                }
            }
        };
        let stopping = async {
            if drains {
                bridge.drain(Duration::ZERO).await;
            }
            bridge.stop(DEADLINE).await;
        };
        let (read, ()) = tokio::join!(reading, stopping);
        assert_eq!(read, (0..read.len()).collect::<Vec<_>>());
        let stats = bridge.stats();
        let (books, counters) = (stats.downlink, stats.counters);
        assert_eq!(
            books.received,
            books.delivered + books.passed_on,
            "{books:?}"
        );
        assert!(books.passed_on > 0, "{books:?}");
        let (kept, lost) = (counters.downlinks_late_kept, counters.downlinks_late);
        assert_eq!(kept + lost, books.passed_on);
        // The socket may have had one of them in part, which then went out whole.
        let twice = (read.len() as u64 + kept + lost) - answered;
        assert!(twice <= 1, "{twice} twice");
        assert_eq!(gaps.load(Relaxed), u64::from(lost > 0));
        if mailbox == "off" {
            assert_eq!(kept, 0);
            continue;
        }
        assert_eq!(lost, 0);
        // They come first when the device is back, in their order.
        let again = start().await;
        let dev = ClientId::new("dev").unwrap();
        eventually("one more is kept behind them", async || {
            let after = Payload::from("9999 after");
            let kept = again.send_kept(&dev, after, KeepOptions::default());
            kept.await.is_ok()
        })
        .await;
        let device = Device::connect(again.local_addr(), "dev").await.attend();
        let texts = device.wait_texts(kept as usize + 1).await;
        let numbers: Vec<_> = texts.iter().map(|text| number(text.as_bytes())).collect();
        let mut expected: Vec<_> = (COUNT - kept as usize..COUNT).collect();
        expected.push(9999);
        assert_eq!(numbers, expected);
        again.stop(DEADLINE).await;
    }
}

/// Counts the gaps that it is told of.
struct Gaps(Arc<AtomicU64>);

impl Hooks for Gaps {
    fn on_state(&self, state: &State) {
        if let State::Gap { .. } = state {
            self.0.fetch_add(1, Relaxed);
        }
    }
}

/// The number that a message begins with.
fn number(text: &[u8]) -> usize {
    let text = std::str::from_utf8(text).unwrap();
    let (number, _) = text.split_once(' ').unwrap();
    number.parse().unwrap()
}

/// A device that moves while its socket takes nothing gets what the old gateway held, ahead of what comes to the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_gateway_held_goes_over_to_the_new_one() {
    const COUNT: usize = 59;
    for mode in [Subscribe::Exact, Subscribe::Pattern] {
        let redis = TempRedis::new().await;
        let start = async || {
            let config = support::on_redis(&redis)
                .websocket_ping_interval(Duration::ZERO) // the first ping may come at any moment
                .redis_subscribe(mode)
                .outbox_bytes(64usize << 20);
            Bridge::builder(config).start().await.unwrap()
        };
        let (old, new) = (start().await, start().await);
        let dev = ClientId::new("dev").unwrap();
        let stuck = RawDevice::seated(old.local_addr(), "dev").await;
        redis.wait_field("fastsock:clients", "dev").await;
        // More than the buffers of a socket take that nobody reads.
        let filling = "x".repeat(8 << 20);
        old.send(&dev, filling.as_str().into()).await.unwrap();
        for n in 0..COUNT - 1 {
            old.send(&dev, n.to_string().into()).await.unwrap();
        }
        let binary = Payload::binary(vec![0, 255]);
        old.send(&dev, binary).await.unwrap();
        let mut moved = RawDevice::seated(new.local_addr(), "dev").await;
        new.send(&dev, "after".into()).await.unwrap();
        for n in 0..COUNT - 1 {
            let frame = moved.frame().await;
            assert_eq!(String::from_utf8(frame.payload).unwrap(), n.to_string());
        }
        let frame = moved.frame().await;
        assert_eq!(
            (frame.opcode, &frame.payload[..]),
            (opcode::BINARY, &[0, 255][..])
        );
        assert_eq!(moved.frame().await.payload, b"after");
        drop(stuck);
        eventually("the books of the old one balance", async || {
            let books = old.stats().downlink;
            let known = books.delivered + books.passed_on + books.lost.total();
            (books.received, books.passed_on, books.held) == (known, COUNT as u64, 0)
                && books.lost.session_ended == 1 // which is too large to go over
        })
        .await;
        old.stop(DEADLINE).await;
        new.stop(DEADLINE).await;
    }
}
