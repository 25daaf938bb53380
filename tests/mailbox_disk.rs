//! Mailboxes on the disk: what one gateway keeps for a device that is away reaches it at least once and in its order, though the gateway
//! is killed at any moment.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test is a host, and may start tasks and print"
)]

use std::{collections::HashSet, env, net::SocketAddr, path::Path, time::Duration};

use fastrand::Rng;
use fastsock::{
    Bridge, BrokerKind, ClientId, Config, ErrorKind, Fsync, KeepOptions, MailboxKind, Payload, Sent,
};
use support::{
    Backend, DEADLINE, Device, Frame, Gateway, GatewayBuilder, LostKept, RawDevice, TempRedis,
    call, eventually, get, opcode,
};
use tempfile::TempDir;

const KILLS: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_delivers_what_it_has_kept_in_order() {
    let seed = env::var("FASTSOCK_SEED").map_or_else(
        |_| fastrand::u64(..),
        |seed| seed.parse().expect("a number"),
    );
    println!("seed {seed} (FASTSOCK_SEED={seed} tries it again)");
    let mut rng = Rng::with_seed(seed);
    let data = TempDir::new().unwrap();
    let mut kept = [0, 0];
    let mut texts = [const { Vec::new() }; 2];
    // However fast the machine is, nothing is dropped for want of room.
    let roomy = || {
        gateway(data.path())
            .var("FASTSOCK_MAILBOX_MESSAGES", "1000000")
            .var("FASTSOCK_MAILBOX_BYTES", "1GiB")
    };
    for _ in 0..KILLS {
        let mut gateway = roomy().start().await;
        let admin = gateway.admin_addr();
        // One device is there at times, the other sleeps all the time.
        let device = match rng.bool() {
            true => Some(Device::connect(gateway.addr(), "dev0").await.attend()),
            false => None,
        };
        let publishers = async {
            loop {
                for (n, kept) in kept.iter_mut().enumerate() {
                    let body = format!(r#"{{"data":"{kept}","id":"{kept}"}}"#);
                    if try_post(admin, &format!("dev{n}"), &body).await != Some(202) {
                        return;
                    }
                    *kept += 1;
                }
            }
        };
        let death = async {
            tokio::time::sleep(Duration::from_millis(rng.u64(5..200))).await; // any moment will do
            gateway.process().signal(rustix::process::Signal::KILL);
        };
        tokio::join!(publishers, death);
        gateway.kill();
        if let Some(device) = device {
            device.wait_closed().await;
            texts[0].extend(device.texts());
        }
    }
    let mut gateway = roomy().start().await;
    for (n, texts) in texts.iter_mut().enumerate() {
        let name = format!("dev{n}");
        let device = Device::connect(gateway.addr(), &name).await.attend();
        is_empty(&gateway, &name).await;
        texts.extend(device.texts());
    }
    assert_eq!(gateway.stop().await, Some(0));
    println!(
        "{kept:?} kept, {:?} arrived",
        texts.each_ref().map(Vec::len)
    );
    for (kept, texts) in kept.into_iter().zip(&texts) {
        let all: HashSet<u32> = texts.iter().map(|text| text.parse().unwrap()).collect();
        // The one that was on its way when it was killed may be kept, though nobody was told.
        assert!(
            all.len() as u32 >= kept,
            "seed {seed}: {} of {kept}",
            all.len()
        );
        let mut next = 0;
        for text in texts {
            let n: u32 = text.parse().unwrap();
            assert!(n <= next, "seed {seed}: {n} before {next}");
            next = next.max(n + 1);
        }
    }
    // Nobody was there while it slept, so nothing came twice to it.
    let mut once = texts[1].clone();
    once.dedup();
    assert_eq!(once, texts[1], "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_delivered_and_not_confirmed_comes_again_after_a_kill() {
    let data = TempDir::new().unwrap();
    let mut dies = gateway(data.path()).start().await;
    let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
    for text in &expected {
        keep(&dies, "dev", &format!(r#"{{"data":"{text}","keep":true}}"#)).await;
    }
    let mut device = RawDevice::seated(dies.addr(), "dev").await;
    for text in &expected {
        assert_eq!(&self::text(&mut device).await, text);
    }
    dies.kill();
    let next = gateway(data.path()).start().await;
    let said = next
        .wait_line("the mailboxes have messages of an earlier run")
        .await;
    assert_eq!(
        (&said["messages"], &said["devices"]),
        (&50.into(), &1.into())
    );
    let device = Device::connect(next.addr(), "dev").await.attend();
    assert_eq!(device.wait_texts(50).await, expected);
    is_empty(&next, "dev").await;
    // Confirmed and removed: a stop is the end of it.
    drop(device);
    let mut next = next;
    assert_eq!(next.stop().await, Some(0));
    let last = gateway(data.path()).start().await;
    assert_eq!(mailbox(&last, "dev").await["messages"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_a_device_that_is_there_and_names_are_known_over_a_restart() {
    let data = TempDir::new().unwrap();
    let bridge = start(config(data.path())).await;
    let dev = id("dev");
    let named = || KeepOptions {
        id: Some("order 7".into()),
        ..KeepOptions::default()
    };
    let device = Device::connect(bridge.local_addr(), "dev").await.attend();
    let kept = bridge.send_kept(&dev, "one".into(), named()).await.unwrap();
    assert_eq!(
        (kept.sent, kept.id.as_str(), kept.is_repeated),
        (Sent::Here, "order 7", false)
    );
    device.wait_text("one").await;
    eventually("it is confirmed", async || {
        bridge.mailbox(&dev).await.unwrap().messages == 0
    })
    .await;
    let again = bridge.send_kept(&dev, "one".into(), named()).await.unwrap();
    assert!(again.is_repeated, "{again:?}");
    drop(device);
    bridge.stop(DEADLINE).await;
    let bridge = start(config(data.path())).await;
    let again = bridge.send_kept(&dev, "one".into(), named()).await.unwrap();
    assert!(again.is_repeated, "{again:?}");
    // Of another device it is another message.
    let other = bridge.send_kept(&id("other"), "x".into(), named()).await;
    let other = other.unwrap();
    assert_eq!((other.sent, other.is_repeated), (Sent::Kept, false));
    // Binary stays binary.
    let binary = Payload::binary(vec![0, 255]);
    let kept = bridge.send_kept(&dev, binary, KeepOptions::default()).await;
    assert!(kept.unwrap().id.contains('-'));
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    assert_eq!(device.recv().await.into_data().as_ref(), [0, 255]);
    let state = bridge.mailbox(&id("other")).await.unwrap();
    assert_eq!((state.messages, state.bytes), (1, 1 + 7 + 128));
    assert!(state.oldest.is_some());
    assert_eq!(bridge.clear_mailbox(&id("other")).await.unwrap(), 1);
    assert_eq!(bridge.mailbox(&id("other")).await.unwrap().oldest, None);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_counts_within_its_window_and_a_message_within_its_time() {
    let data = TempDir::new().unwrap();
    let losses = LostKept::default();
    let config = config(data.path())
        .mailbox_age(Duration::from_secs(1))
        .mailbox_id_window(Duration::from_secs(1));
    let builder = Bridge::builder(config).hooks(losses.clone());
    let bridge = builder.start().await.unwrap();
    let named = || KeepOptions {
        id: Some("7".into()),
        ..KeepOptions::default()
    };
    let away = id("away");
    bridge.send_kept(&away, "x".into(), named()).await.unwrap();
    // Nobody comes; the janitor sees to it.
    eventually("it is told", async || {
        *losses.0.lock() == [("away".into(), "mailbox_expired".into(), 1)]
    })
    .await;
    assert_eq!(bridge.mailbox(&away).await.unwrap().messages, 0);
    eventually("the name is free again", async || {
        let kept = bridge.send_kept(&away, "x".into(), named()).await;
        !kept.unwrap().is_repeated
    })
    .await;
    // One that was of use for a moment only is found when its device comes.
    let soon = KeepOptions {
        ttl: Some(Duration::from_millis(1)),
        ..KeepOptions::default()
    };
    let dev = id("dev");
    bridge.send_kept(&dev, "late".into(), soon).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await; // its millisecond is over
    let plain = KeepOptions::default();
    bridge.send_kept(&dev, "now".into(), plain).await.unwrap();
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    assert_eq!(device.recv_text().await, "now");
    let books = bridge.stats().mailbox;
    assert!(books.lost.expired >= 2 && books.lost.full == 0, "{books:?}");
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_each_limit_the_oldest_goes_is_counted_and_told() {
    const BYTES: usize = 200;
    let backend = Backend::start().await;
    let limits: [fn(Config) -> Config; 4] = [
        |config| config.mailbox_messages(10usize),
        |config| config.mailbox_bytes(16_384usize),
        |config| config.mailbox_total_messages(15usize),
        |config| config.mailbox_total_bytes(15 * (BYTES + 128)),
    ];
    // By limit: how many are left of the two devices, of whom each gets 10 or 100.
    for (n, (limit, each, expected)) in limits
        .into_iter()
        .zip([20, 100, 10, 10])
        .zip([[10, 10], [49, 49], [5, 10], [5, 10]])
        .map(|((limit, each), expected)| (limit, each, expected))
        .enumerate()
    {
        let data = TempDir::new().unwrap();
        let losses = LostKept::default();
        let config = config(data.path()).spool_fsync(Fsync::Interval);
        let config = limit(config).events_url(Some(backend.url()));
        let builder = Bridge::builder(config).hooks(losses.clone());
        let bridge = builder.start().await.unwrap();
        for name in ["old", "new"] {
            for n in 0..each {
                let data = format!("{n:0BYTES$}");
                keep_text(&bridge, name, &data).await;
            }
        }
        let mut left = [0, 0];
        for (name, left) in ["old", "new"].into_iter().zip(&mut left) {
            *left = bridge.mailbox(&id(name)).await.unwrap().messages;
        }
        assert_eq!(left, expected, "limit {n}");
        let books = bridge.stats().mailbox;
        let gone = 2 * each as u64 - left.iter().sum::<u64>();
        assert_eq!((books.kept, books.lost.full), (2 * each as u64, gone));
        let told = losses.0.lock().clone();
        assert!(told.iter().all(|(_, reason, _)| reason == "mailbox_full"));
        assert_eq!(told.iter().map(|(.., count)| count).sum::<u64>(), gone);
        // The newest are there, in order.
        let device = Device::connect(bridge.local_addr(), "new").await.attend();
        let texts = device.wait_texts(left[1] as usize).await;
        let numbers = texts.iter().map(|text| text.parse::<u64>().unwrap());
        assert!(numbers.eq(each as u64 - left[1]..each as u64));
        bridge.stop(DEADLINE).await;
    }
    backend
        .wait_until("the backend hears of it", |all| {
            all.iter().any(|r| r.json()["cause"] == "mailbox_full")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_of_v2_acknowledges_each() {
    let data = TempDir::new().unwrap();
    let bridge = start(config(data.path()).ack(true)).await;
    let named = KeepOptions {
        id: Some("7".into()),
        ..KeepOptions::default()
    };
    let dev = id("dev");
    let one = bridge.send_kept(&dev, "one".into(), KeepOptions::default());
    let one = one.await.unwrap().id;
    bridge.send_kept(&dev, "two".into(), named).await.unwrap();
    let one = format!(r#"{{"id":"{one}","data":"one"}}"#);
    let mut device = v2(bridge.local_addr(), "dev").await;
    let two = r#"{"id":"7","data":"two"}"#;
    assert_eq!(device.recv_texts(2).await, [one.as_str(), two]);
    device.send(r#"{"ack":"7"}"#).await;
    eventually("the second is removed", async || {
        bridge.mailbox(&dev).await.unwrap().messages == 1
    })
    .await;
    drop(device);
    let mut again = v2(bridge.local_addr(), "dev").await;
    assert_eq!(again.recv_text().await, one);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_to_a_device_that_reads_is_delivered_and_does_not_close_it() {
    let data = TempDir::new().unwrap();
    let config = config(data.path())
        .mailbox_messages(10_000usize)
        .mailbox_bytes(16usize << 20)
        .spool_fsync(Fsync::Interval) // for the time that it takes
        .outbox_messages(100usize)
        .outbox_total_bytes(0usize);
    let bridge = start(config).await;
    let dev = id("dev");
    for n in 0..3000 {
        let text = n.to_string();
        keep_text(&bridge, "dev", &text).await;
    }
    let device = Device::connect(bridge.local_addr(), "dev").await.attend();
    for n in 3000..5000 {
        let text = n.to_string();
        keep_text(&bridge, "dev", &text).await;
    }
    let texts = device.wait_texts(5000).await;
    assert!(texts.iter().enumerate().all(|(n, t)| *t == n.to_string()));
    assert!(device.is_open());
    eventually("all are confirmed", async || {
        bridge.mailbox(&dev).await.unwrap().messages == 0
    })
    .await;
    // The file is a moment ahead of the books.
    eventually("all are counted", async || {
        bridge.stats().mailbox.delivered >= 5000
    })
    .await;
    let books = bridge.stats().mailbox;
    assert_eq!((books.kept, books.delivered), (5000, 5000));
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_has_one_gateway_and_settings_that_do_not_go_together_are_refused() {
    let data = TempDir::new().unwrap();
    let first = gateway(data.path()).start().await;
    for (args, code) in [(&[][..], 1), (&["--check"], 2)] {
        let mut second = gateway(data.path());
        for arg in args {
            second = second.arg(*arg);
        }
        let mut second = second.launch();
        let exited = second.exit_code().await;
        assert_eq!(exited, Some(code), "{}", second.output());
        let expected = "mailbox.redb is in use; each process needs a directory of its own";
        assert!(second.output().contains(expected), "{}", second.output());
    }
    drop(first);
    let mut check = gateway(data.path()).arg("--check").launch();
    assert_eq!(check.exit_code().await, Some(0), "{}", check.output());
    // One that is not there yet is not made.
    let empty = TempDir::new().unwrap();
    let mut check = gateway(empty.path()).arg("--check").launch();
    assert_eq!(check.exit_code().await, Some(0), "{}", check.output());
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
    let mut nowhere = gateway(data.path()).without("FASTSOCK_DATA_DIR").launch();
    assert_eq!(nowhere.exit_code().await, Some(1));
    let expected = r#"FASTSOCK_MAILBOX: \"disk\" needs a directory; set FASTSOCK_DATA_DIR"#;
    let output = nowhere.output();
    assert!(
        output.contains(expected) || output.contains(&expected.replace('\\', "")),
        "{output}"
    );
    // What is no mailbox stays as it is.
    let broken = TempDir::new().unwrap();
    let file = broken.path().join("mailbox.redb");
    std::fs::write(&file, "something else").unwrap();
    let error = Bridge::builder(config(broken.path())).start().await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_line().contains("cannot be read as a mailbox"));
    assert_eq!(std::fs::read(&file).unwrap(), b"something else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_nothing_is_said_and_nothing_counts_as_kept() {
    let data = TempDir::new().unwrap();
    let gateway = gateway(data.path())
        .var("FASTSOCK_LOG_FILE", "off")
        .heeds_file_limit();
    let mut gateway = gateway.start().await;
    keep(&gateway, "dev", r#"{"data":"one","keep":true}"#).await;
    let size = std::fs::metadata(data.path().join("mailbox.redb"))
        .unwrap()
        .len();
    let status = get(gateway.admin_addr(), "/api/v1/status").await.json();
    assert_eq!(
        status["mailbox"],
        serde_json::json!({"kind": "disk", "file_bytes": size})
    );
    let metrics = get(gateway.admin_addr(), "/metrics").await.text();
    assert!(
        metrics.contains(&format!("\nfastsock_mailbox_bytes {size}.0\n")),
        "{metrics}"
    );
    gateway.limit_files(Some(0));
    let body = r#"{"data":"two","id":"2"}"#;
    let admin = gateway.admin_addr();
    assert_eq!(try_post(admin, "dev", body).await, Some(503));
    let said = "the mailboxes cannot be written; nothing is kept until they can";
    assert_eq!(gateway.wait_line(said).await["level"], "error");
    gateway.limit_files(None);
    eventually("it is kept", async || {
        try_post(admin, "dev", body).await == Some(202)
    })
    .await;
    let again = gateway
        .wait_line("the mailboxes can be written again")
        .await;
    assert_eq!(again["level"], "warn", "who hears of it hears of its end");
    let device = Device::connect(gateway.addr(), "dev").await.attend();
    is_empty(&gateway, "dev").await;
    assert_eq!(device.texts(), ["one", "two"]);
    assert_eq!(gateway.lines_with(said).len(), 1, "said once");
    assert_eq!(gateway.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_redis_that_is_away_it_keeps_all_the_same_and_a_second_gateway_is_warned_of() {
    let mut redis = TempRedis::new().await;
    let data = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let gateway = |n: usize| {
        gateway(data[n].path())
            .var("FASTSOCK_BROKER", "redis")
            .var("REDIS_PORT", redis.port().to_string())
    };
    let one = gateway(0).start().await;
    let two = gateway(1).start().await;
    let is_warning = |line: &serde_json::Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("FASTSOCK_MAILBOX=disk is for one alone")
    };
    one.wait_line_where("the warning", is_warning).await;
    drop(two);
    redis.kill();
    keep(&one, "dev", r#"{"data":"one","keep":true}"#).await;
    let device = Device::connect(one.addr(), "dev").await.attend();
    device.wait_text("one").await;
    is_empty(&one, "dev").await;
}

fn config(data: &Path) -> Config {
    Config::default()
        .websocket_port(0u16)
        .broker(BrokerKind::Embedded)
        .mailbox(MailboxKind::Disk)
        .data_dir(Some(data.into()))
}

async fn start(config: Config) -> Bridge {
    Bridge::builder(config).start().await.expect("it starts")
}

fn gateway(data: &Path) -> GatewayBuilder {
    Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "embedded")
        .var("FASTSOCK_MAILBOX", "disk")
        .var("FASTSOCK_DATA_DIR", data.to_str().unwrap())
}

fn id(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn keep(gateway: &Gateway, name: &str, body: &str) {
    let path = format!("/api/v1/clients/{name}/messages");
    let answer = call(gateway.admin_addr(), "POST", &path, &JSON, body.to_owned()).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
}

async fn keep_text(bridge: &Bridge, name: &str, text: &str) {
    let (client_id, options) = (id(name), KeepOptions::default());
    let kept = bridge.send_kept(&client_id, text.into(), options).await;
    kept.unwrap();
}

/// The status, unless the gateway dies meanwhile.
async fn try_post(admin: SocketAddr, name: &str, body: &str) -> Option<u16> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = format!(
        "POST /api/v1/clients/{name}/messages HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(admin).await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

async fn mailbox(gateway: &Gateway, name: &str) -> serde_json::Value {
    let path = format!("/api/v1/clients/{name}/mailbox");
    get(gateway.admin_addr(), &path).await.json()
}

async fn is_empty(gateway: &Gateway, name: &str) {
    eventually("the mailbox is empty", async || {
        mailbox(gateway, name).await["messages"] == 0
    })
    .await;
}

async fn v2(addr: SocketAddr, token: &str) -> Device {
    let offer = [("sec-websocket-protocol", "fastsock.v2.ack")];
    let target = format!("/?token={token}");
    Device::request(addr, &target, &offer).await.unwrap()
}

/// The next message, as text; pings are not answered.
async fn text(device: &mut RawDevice) -> String {
    loop {
        let frame: Frame = device.frame().await;
        match frame.opcode {
            opcode::TEXT => return String::from_utf8(frame.payload).unwrap(),
            opcode::PING => {}
            other => panic!("{other}"),
        }
    }
}
