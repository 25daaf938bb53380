//! How a gateway and a bridge end: what they still deliver, what they say was left, and that nothing stays behind.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test is a host, and may start tasks and print"
)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use fastsock::{
    BrokerKind, ClientId, CloseReason, Config, Hooks, Leftover, State, Subscribe, blocking,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use support::{
    Attended, Backend, Closed, DEADLINE, Device, End, Frame, Gateway, RawDevice, Reply, TempRedis,
    config, eventually, get, is_alone, start, within,
};
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_closes_with_1001_delivers_what_was_taken_and_clears_presence() {
    let (backend, redis) = (Backend::start().await, TempRedis::new().await);
    backend.answer_all(Reply::ok().after(Duration::from_millis(20)));
    let mut gateway = gateway(&backend, &redis).start().await;
    let devices = talking(gateway.addr(), 40).await;
    backend.wait_for(200).await;
    gateway.process().terminate();
    for (n, device) in devices.iter().enumerate() {
        let closed = device.wait_closed().await;
        assert_eq!(
            (closed.code, closed.reason.as_str()),
            (Some(1001), "shutdown"),
            "{n}"
        );
    }
    assert_eq!(gateway.exit_code().await, Some(0));
    assert!(redis.hgetall("fastsock:clients").await.is_empty());
    assert!(redis.hgetall("fastsock:owner").await.is_empty());
    backend.assert_in_order();
    backend.assert_one_in_flight();
    assert!(backend.requests().iter().all(|r| r.status == Some(200)));
    let messages: Vec<_> = last_messages(&gateway, 3);
    assert_eq!(
        messages,
        [
            "Shutdown initiated... Exit code: 0",
            "Disconnecting Redis clients...",
            "Shutdown complete."
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_under_load_delivers_every_uplink_that_was_read() {
    let (backend, redis) = (Backend::start().await, TempRedis::new().await);
    backend.answer_all(Reply::ok().after(Duration::from_millis(20)));
    let bridge = start(with_redis(&backend, &redis)).await;
    let devices = talking(bridge.local_addr(), 40).await;
    backend.wait_for(200).await;
    let leftover = bridge.stop(DEADLINE).await;
    assert_eq!(leftover, Leftover::default());
    let stats = bridge.stats();
    assert_eq!(stats.uplink.delivered, stats.uplink.received);
    assert_eq!(backend.count() as u64, stats.uplink.received);
    assert_eq!(
        (stats.sessions.connected, stats.sessions.closed["shutdown"]),
        (0, 40)
    );
    assert!(redis.hgetall("fastsock:clients").await.is_empty());
    for device in &devices {
        assert_eq!(device.wait_closed().await.code, Some(1001));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_frozen_sigterm_ends_in_time_and_says_so() {
    let (backend, redis) = (Backend::start().await, TempRedis::new().await);
    let mut gateway = gateway(&backend, &redis).start().await;
    let devices = talking(gateway.addr(), 10).await;
    redis.wait_field("fastsock:clients", "dev9").await;
    redis.freeze();
    let begun = Instant::now();
    gateway.process().terminate();
    for device in &devices {
        assert_eq!(device.wait_closed().await.code, Some(1001));
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "devices first");
    let status = gateway.exit(Duration::from_secs(12)).await;
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < STOP + SLACK, "{:?}", begun.elapsed());
    let left = gateway.lines_with(LEFT);
    assert_eq!(left.len(), 1, "{}", gateway.output());
    assert_eq!(
        (&left[0]["level"], &left[0]["presence"], &left[0]["uplinks"]),
        (&"error".into(), &10.into(), &0.into())
    );
    redis.thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_gone_or_the_backend_hanging_sigterm_ends_in_time_and_says_so() {
    let gone = async {
        let (backend, mut redis) = (Backend::start().await, TempRedis::new().await);
        let mut gateway = gateway(&backend, &redis).start().await;
        let _devices = talking(gateway.addr(), 10).await;
        redis.wait_field("fastsock:clients", "dev9").await;
        redis.kill();
        let begun = Instant::now();
        assert_eq!(gateway.stop().await, Some(0));
        assert!(begun.elapsed() < Duration::from_secs(4), "nobody to tell");
        assert_eq!(gateway.lines_with(LEFT)[0]["presence"], 10);
    };
    let hanging = async {
        let (backend, redis) = (Backend::start().await, TempRedis::new().await);
        backend.answer_all(Reply::hang());
        let mut gateway = gateway(&backend, &redis).start().await;
        let mut device = Device::connect(gateway.addr(), "dev").await;
        for n in 0..50 {
            device.send(format!("temp#{n}")).await;
        }
        device.ping("all read").await;
        device.recv_pong().await;
        backend.wait_for(1).await;
        let begun = Instant::now();
        gateway.process().terminate();
        let status = gateway.exit(Duration::from_secs(12)).await;
        assert_eq!(status.code(), Some(0));
        assert!(begun.elapsed() < STOP + SLACK, "{:?}", begun.elapsed());
        let left = gateway.lines_with(LEFT);
        assert_eq!((left.len(), &left[0]["uplinks"]), (1, &50.into()));
        let errors: Vec<_> = gateway
            .lines()
            .into_iter()
            .filter(|line| line["level"] == "error")
            .collect();
        assert_eq!(errors.len(), 1, "one line for all: {errors:?}");
        let lost = gateway.lines();
        let lost = lost.iter().filter(|line| line["reason"] == "shutdown");
        assert_eq!(
            lost.filter(|line| line["data"]
                .as_str()
                .is_some_and(|d| d.starts_with("temp#")))
                .count(),
            50,
            "and each with its content"
        );
        assert!(redis.hgetall("fastsock:clients").await.is_empty());
    };
    tokio::join!(gone, hanging);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_may_be_called_by_many_at_once_and_again() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let told = Arc::new(Told::default());
    let bridge = fastsock::Bridge::builder(config(&backend))
        .shared_hooks(told.clone())
        .start()
        .await
        .unwrap();
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    device.send("temp#0").await;
    backend.wait_for(1).await;
    let device = device.attend();
    let deadline = Duration::from_millis(500);
    // The first is dropped half-way; the others go on where it was.
    let dropped = timeout(Duration::from_millis(50), bridge.stop(DEADLINE)).await;
    assert!(dropped.is_err());
    assert_eq!(bridge.state(), State::Stopping);
    let all = join_all((0..5).map(|_| bridge.stop(deadline))).await;
    assert_eq!(all[0].uplinks, 1);
    assert!(all.iter().all(|leftover| *leftover == all[0]));
    assert_eq!(bridge.stop(DEADLINE).await, all[0]);
    bridge.request_stop();
    assert_eq!(bridge.state(), State::Stopped);
    let nobody = ClientId::new("dev").unwrap();
    let error = bridge.send(&nobody, "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), fastsock::ErrorKind::Stopped);
    assert_eq!(device.wait_closed().await.code, Some(1001));
    assert_eq!(*told.states.lock(), [State::Stopping, State::Stopped]);
    assert_eq!(*told.gone.lock(), [CloseReason::Shutdown]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_stop_with_less_time_ends_the_first_one_too() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let bridge = start(config(&backend)).await;
    let device = Device::connect(bridge.local_addr(), "dev1").await.attend();
    device.send("held").await;
    backend.wait_for(1).await;
    let first = tokio::spawn({
        let bridge = bridge.clone();
        async move { bridge.stop(Duration::from_secs(3600)).await }
    });
    eventually("it stops", async || bridge.state() == State::Stopping).await;
    let later = bridge.stop(Duration::from_millis(1));
    let later = within("the later one ends", later).await;
    let first = within("the first one ends", first).await.unwrap();
    assert_eq!((first, later.uplinks), (later, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_does_not_answer_the_close_is_cut_when_the_time_is_over() {
    let backend = Backend::start().await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    let bridge = start(config(&backend).close_timeout(Duration::from_secs(60))).await;
    let mut silent = RawDevice::seated(bridge.local_addr(), "dev").await;
    let begun = Instant::now();
    let leftover = bridge.stop(Duration::from_millis(300)).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(leftover.sessions, 1);
    eventually("it is not waited for any longer", async || {
        Handle::current().metrics().num_alive_tasks() == tasks
    })
    .await;
    assert_eq!(
        silent.end().await,
        End::Close(Some(1001), "shutdown".into())
    );
    let rest = within("the connection ends", silent.read_to_end()).await;
    assert!(rest.is_empty());
    assert_eq!(bridge.stats().sessions.closed["shutdown"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_says_after_1001_or_1012_and_before_its_own_close_is_taken() {
    for reason in [CloseReason::Drain, CloseReason::Shutdown] {
        let backend = Backend::start().await;
        // More waits for its turn than a lane holds, and a part of it was read ahead.
        backend.answer_all(Reply::ok().after(Duration::from_millis(2)));
        let told = Arc::new(Told::default());
        let bridge = fastsock::Bridge::builder(config(&backend).uplink_lane_bytes(1024usize))
            .shared_hooks(told.clone())
            .start()
            .await
            .unwrap();
        let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
        let say = |from, to| {
            let frames = (from..to).map(|n| Frame::text(format!("{n:0>100}#{n}")).encode());
            frames.collect::<Vec<_>>().concat()
        };
        device.write(say(0, 50)).await;
        let ending = async {
            match reason {
                CloseReason::Drain => {
                    let dev = ClientId::new("dev").unwrap();
                    assert!(bridge.disconnect(&dev, CloseReason::Drain));
                }
                _ => assert_eq!(bridge.stop(DEADLINE).await, Leftover::default()),
            }
        };
        let speaking = async {
            let (code, word) = (reason.code(), reason.as_str().to_owned());
            assert_eq!(device.end().await, End::Close(code, word));
            device.write(say(50, 100)).await;
            device.send(&Frame::ping("no pong follows a close")).await;
            device.send(&Frame::close(code.unwrap(), "")).await;
            assert!(device.read_to_end().await.is_empty());
        };
        tokio::join!(ending, speaking);
        backend.wait_delivered("dev", 100).await;
        backend.assert_in_order();
        assert_eq!(bridge.stats().uplink.received, 100);
        eventually("the end is told once", async || {
            *told.gone.lock() == [reason.clone()]
        })
        .await;
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_says_after_another_close_is_not_taken() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend)).await;
    let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
    let dev = ClientId::new("dev").unwrap();
    assert!(bridge.disconnect(&dev, CloseReason::Kicked));
    assert!(matches!(device.end().await, End::Close(Some(4510), _)));
    device.send(&Frame::text("late#0")).await;
    device.send(&Frame::close(4510, "")).await;
    device.read_to_end().await;
    bridge.stop(DEADLINE).await;
    assert_eq!(bridge.stats().uplink.received, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_devices_go_one_after_the_other_and_takes_nobody_new() {
    let (backend, redis) = (Backend::start().await, TempRedis::new().await);
    let told = Arc::new(Told::default());
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bridge = fastsock::Bridge::builder(with_redis(&backend, &redis).admin_addr(Some(admin)))
        .shared_hooks(told.clone())
        .start()
        .await
        .unwrap();
    let addr = bridge.local_addr();
    let half_way = {
        // Its handshake is under way when the drain begins.
        let mut device = RawDevice::connect(addr).await;
        let request = RawDevice::upgrade_request("/?token=late", &[]);
        let (first, rest) = request.split_at(30);
        device.write(first).await;
        (device, rest.to_owned())
    };
    let mut devices = Vec::new();
    for n in 0..20 {
        devices.push(Device::connect(addr, &format!("dev{n}")).await.attend());
    }
    for device in &devices {
        device.send("temp#0").await;
    }
    let window = Duration::from_millis(400);
    let (begun, draining) = (Instant::now(), bridge.clone());
    let draining = tokio::spawn(async move { draining.drain(window).await });
    eventually("it drains", async || bridge.state() == State::Draining).await;
    assert!(!bridge.request_drain(window), "it does already");
    let admin = bridge.admin_addr().unwrap();
    let ready = get(admin, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("draining"), "{}", ready.text());
    let (mut late, rest) = half_way;
    late.write(rest).await;
    assert!(late.read_head().await.starts_with("HTTP/1.1 503 "));
    let last = async {
        let mut closed = Vec::new();
        for device in &devices {
            let close = device.wait_closed().await;
            assert_eq!(
                close,
                Closed {
                    code: Some(1012),
                    reason: "drain".into()
                }
            );
            closed.push(begun.elapsed());
        }
        closed
    };
    let closed = last.await;
    within("the drain is over", draining).await.unwrap();
    assert!(begun.elapsed() >= window * 19 / 20, "{closed:?}");
    backend.wait_for(20).await;
    assert_eq!(bridge.state(), State::Draining);
    eventually("the hash is empty", async || {
        redis.hgetall("fastsock:clients").await.is_empty()
    })
    .await;
    assert_eq!(bridge.stats().sessions.closed["drain"], 20);
    bridge.drain(window).await; // it is over
    assert_eq!(bridge.stop(DEADLINE).await, Leftover::default());
    bridge.drain(window).await;
    let states = told.states.lock().clone();
    let states = states
        .iter()
        .filter(|state| !matches!(state, State::Running | State::Degraded | State::Gap { .. }));
    assert_eq!(
        states.cloned().collect::<Vec<_>>(),
        [State::Draining, State::Stopping, State::Stopped]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_cuts_a_drain_short() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend)).await;
    let mut devices = Vec::new();
    for n in 0..10 {
        let device = Device::connect(bridge.local_addr(), &format!("dev{n}")).await;
        devices.push(device.attend());
    }
    assert!(bridge.request_drain(Duration::from_secs(3600)));
    let draining = bridge.drain(Duration::ZERO);
    let stopping = bridge.stop(DEADLINE);
    let (leftover, ()) = within("both", async { tokio::join!(stopping, draining) }).await;
    assert_eq!(leftover, Leftover::default());
    for device in &devices {
        let code = device.wait_closed().await.code;
        assert!(matches!(code, Some(1001 | 1012)), "{code:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_over_the_window_and_a_second_signal_ends_that() {
    let (backend, redis) = (Backend::start().await, TempRedis::new().await);
    for (window, second) in [("300ms", false), ("1h", true)] {
        let gateway = gateway(&backend, &redis).var("FASTSOCK_DRAIN_WINDOW", window);
        let mut gateway = gateway.start().await;
        let mut devices = Vec::new();
        for n in 0..10 {
            let device = Device::connect(gateway.addr(), &format!("dev{n}")).await;
            devices.push(device.attend());
        }
        gateway.process().terminate();
        gateway.wait_line("Draining").await;
        if second {
            gateway.process().terminate();
            assert_eq!(gateway.exit_code().await, Some(1));
            continue;
        }
        for device in &devices {
            assert_eq!(device.wait_closed().await.code, Some(1012));
        }
        assert_eq!(gateway.exit_code().await, Some(0));
        let last = last_messages(&gateway, 3);
        assert_eq!(
            last,
            [
                "Shutdown initiated... Exit code: 0",
                "Disconnecting Redis clients...",
                "Shutdown complete."
            ]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_bridge_can_be_started_again_at_once_on_its_port() {
    let backend = Backend::start().await;
    let mut port = 0;
    for _ in 0..5 {
        let bridge = start(config(&backend).websocket_port(port)).await;
        port = bridge.local_addr().port();
        let mut device = Device::connect(bridge.local_addr(), "dev").await;
        let before = backend.count();
        device.send("x#0").await;
        backend.wait_for(before + 1).await;
        let device = device.attend();
        assert!(bridge.stop(DEADLINE).await.is_empty());
        assert_eq!(device.wait_closed().await.code, Some(1001));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_with_nothing_to_do_is_quick() {
    let (backend, redis) = (Backend::start().await, TempRedis::new().await);
    let cases = [
        ("embedded", config(&backend)),
        ("redis", with_redis(&backend, &redis)),
    ];
    for (name, config) in cases {
        let bridge = start(config).await;
        eventually("it is linked", async || bridge.state() == State::Running).await;
        let begun = Instant::now();
        assert!(bridge.stop(DEADLINE).await.is_empty());
        println!(
            "stop with nothing to do, {name}: {:?} (budget 50 ms)",
            begun.elapsed()
        );
        assert!(begun.elapsed() < DEADLINE / 2);
    }
}

#[test]
fn a_stopped_bridge_leaves_no_task_thread_port_or_descriptor() {
    if is_alone("a_stopped_bridge_leaves_no_task_thread_port_or_descriptor") {
        leaves_nothing(async |bridge| {
            let leftover = bridge.stop(Duration::from_millis(1500)).await;
            assert_eq!(leftover.presence, 0);
        });
    }
}

#[test]
fn a_dropped_bridge_leaves_no_task_thread_port_or_descriptor() {
    if is_alone("a_dropped_bridge_leaves_no_task_thread_port_or_descriptor") {
        leaves_nothing(async |bridge| drop(bridge));
    }
}

#[test]
fn a_blocking_bridge_takes_its_threads_along() {
    if !is_alone("a_blocking_bridge_takes_its_threads_along") {
        return;
    }
    // tokio's own registry of signals is made once a process, and stays.
    drop(tokio::runtime::Runtime::new().unwrap());
    let before = (threads(), descriptors());
    for is_stopped in [true, false, true, false] {
        let config =
            support::loopback().admin_addr(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
        let bridge = blocking::Bridge::builder(config)
            .workers(3)
            .start()
            .unwrap();
        let addr = support::reachable(bridge.local_addr());
        let mut device = std::net::TcpStream::connect(addr).unwrap();
        let request = RawDevice::upgrade_request("/?token=dev", &[]);
        std::io::Write::write_all(&mut device, request.as_bytes()).unwrap();
        assert!(threads() >= before.0 + 3);
        if is_stopped {
            assert!(bridge.stop(DEADLINE).sessions <= 1);
            assert_eq!(threads(), before.0, "stop waits for the threads");
            assert!(bridge.stop(DEADLINE).sessions <= 1);
        }
        drop((bridge, device));
        let end = std::time::Instant::now() + DEADLINE;
        while (threads(), descriptors()) != before {
            assert!(std::time::Instant::now() < end, "{before:?} {}", open());
            std::thread::sleep(Duration::from_millis(5)); // polls what the process has
        }
        TcpListener::bind(addr).expect("the port is free");
    }
}

/// A bridge with all its parts busy, ended in some way; then the process is as it was before.
fn leaves_nothing(end: impl AsyncFn(fastsock::Bridge)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks = || Handle::current().metrics().num_alive_tasks();
        let backend = Backend::start().await;
        let of_backend = tasks();
        let redis = TempRedis::new().await;
        eventually("nobody is connected to Redis", async || {
            tasks() == of_backend
        })
        .await;
        let now = || (tasks(), threads(), descriptors());
        let before = now();
        for round in 0..3 {
            let config = with_redis(&backend, &redis)
                .redis_subscribe(Subscribe::Exact)
                .close_timeout(Duration::from_secs(60))
                .admin_addr(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))));
            let bridge = start(config).await;
            let (addr, admin) = (bridge.local_addr(), bridge.admin_addr().unwrap());
            let half_open = RawDevice::connect(addr).await;
            let silent = RawDevice::seated(addr, "silent").await;
            let mut devices = Vec::new();
            for n in 0..10 {
                devices.push(Device::connect(addr, &format!("dev{n}")).await);
            }
            let before_this = backend.count();
            for device in &mut devices {
                device.send("temp#0").await;
            }
            backend.wait_for(before_this + 10).await;
            assert_eq!(get(admin, "/healthz").await.status, 200);
            backend.answer_all(Reply::hang());
            devices[0].send("temp#1").await; // and one that cannot be delivered
            backend.wait_for(before_this + 11).await;
            assert!(now() > before);

            within("the end", end(bridge)).await;
            eventually("no task waits for a device", async || tasks() == before.0).await;
            drop((half_open, silent, devices));
            backend.answer_all(Reply::ok());
            eventually(
                &format!("round {round}: all is as before {before:?}"),
                async || now() == before,
            )
            .await;
            for addr in [addr, admin] {
                TcpListener::bind(addr).expect("the port is free");
            }
        }
    });
}

/// What the hooks heard.
#[derive(Default)]
struct Told {
    states: Mutex<Vec<State>>,
    gone: Mutex<Vec<CloseReason>>,
}

impl Hooks for Told {
    fn on_state(&self, state: &State) {
        self.states.lock().push(state.clone());
    }

    fn on_disconnect(&self, _: &fastsock::Client, reason: &CloseReason) {
        self.gone.lock().push(reason.clone());
    }
}

fn with_redis(backend: &Backend, redis: &TempRedis) -> Config {
    config(backend)
        .broker(BrokerKind::Redis)
        .redis_port(redis.port())
}

fn gateway(backend: &Backend, redis: &TempRedis) -> support::GatewayBuilder {
    Gateway::builder()
        .var("REMOTE_URL", backend.url())
        .var("REDIS_PORT", redis.port().to_string())
}

/// Devices that say something all the time until they are closed.
async fn talking(addr: SocketAddr, count: usize) -> Vec<Attended> {
    let mut devices = Vec::new();
    for n in 0..count {
        let device = Device::connect(addr, &format!("dev{n}")).await.attend();
        for n in 0..30 {
            device.send(format!("temp#{n}")).await;
        }
        devices.push(device);
    }
    devices
}

fn last_messages(gateway: &Gateway, count: usize) -> Vec<String> {
    let lines = gateway.lines();
    let important = lines
        .iter()
        .filter(|line| line["level"] == "warn" || line["level"] == "error");
    let messages: Vec<_> = important
        .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
        .collect();
    messages[messages.len().saturating_sub(count)..].to_vec()
}

/// The threads of this process. One that is joined may be listed for a moment more, and is known by a flag (PF_EXITING).
fn threads() -> usize {
    let is_alive = |task: &fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let flags = stat.rsplit(')').next().and_then(|fields| {
            let mut fields = fields.split_whitespace();
            fields.nth(6)?.parse::<u32>().ok()
        });
        flags.is_some_and(|flags| flags & 4 == 0)
    };
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(is_alive).count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What the descriptors are, for a failure.
fn open() -> String {
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let names = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    format!("{} threads, {:?}", threads(), names.collect::<Vec<_>>())
}

/// How long the gateway takes at most, and what a busy machine may add.
const STOP: Duration = Duration::from_secs(8);
const SLACK: Duration = Duration::from_millis(2500);
const LEFT: &str = "Shutdown left something behind";
