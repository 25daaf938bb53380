//! A bridge inside a host: what hooks decide and hear, two bridges side by side, and nothing touched that is the host's.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::type_complexity,
    reason = "a test is a host, and may start tasks and threads, print, and read its environment"
)]

use std::{
    collections::HashMap,
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use fastsock::{
    Admission, Answer, Bridge, BrokerKind, Client, ClientId, CloseReason, Config, ConnectRequest,
    Decision, ErrorKind, Hooks, LostReason, Payload, Refusal, Sent, Ticket, Uplink, UplinkAction,
    WeakBridge, blocking,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use support::{
    Backend, DEADLINE, Device, RawDevice, TempRedis, config, eventually, is_alone, within,
};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_answers_decisions_later_from_its_own_thread_and_order_is_kept() {
    let backend = Backend::start().await;
    let (asked, questions) = mpsc::channel::<Question>();
    let bridge = start(config(&backend), Asker(Mutex::new(asked))).await;
    let answering = bridge.downgrade(); // a handle would keep the bridge, its hooks and so this thread alive
    let host = thread::spawn(move || {
        for question in questions {
            thread::sleep(Duration::from_micros(fastrand::u64(0..2000)));
            let (ticket, answer) = match question {
                Question::Admit(ticket, token) => {
                    let id = ClientId::new(format!("known-{token}")).unwrap();
                    (ticket, Answer::Admission(Admission::Accept(id)))
                }
                Question::Uplink(ticket, data) => {
                    let action = match data.split('#').next().unwrap() {
                        "drop" => UplinkAction::Drop,
                        "reply" => UplinkAction::Reply(format!("re:{data}").into()),
                        "replace" => UplinkAction::Replace(format!("new:{data}").into()),
                        _ => UplinkAction::Forward,
                    };
                    (ticket, Answer::Uplink(action))
                }
            };
            answering.resolve(ticket, answer.clone()).unwrap();
            let again = answering.resolve(ticket, answer).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::Ticket);
        }
    });
    let mut devices = Vec::new();
    for n in 0..4 {
        devices.push(Device::connect(bridge.local_addr(), &n.to_string()).await);
    }
    let words = ["say", "drop", "replace", "reply"];
    for n in 0..40 {
        for device in &mut devices {
            device.send(format!("{}#{n}", words[n % 4])).await;
        }
    }
    let expected: Vec<_> = (0..40)
        .filter_map(|n| match n % 4 {
            0 => Some(format!("say#{n}")),
            2 => Some(format!("new:replace#{n}")),
            _ => None,
        })
        .collect();
    let replies: Vec<_> = (0..10).map(|n| format!("re:reply#{}", 4 * n + 3)).collect();
    for (n, device) in devices.iter_mut().enumerate() {
        let delivered = backend.wait_delivered(&format!("known-{n}"), 20).await;
        assert_eq!(delivered, expected);
        assert_eq!(device.recv_texts(10).await, replies);
    }
    // The backend has answered; the gateway may still be about to read that.
    eventually("everything is in the books", async || {
        let uplink = bridge.stats().uplink;
        (uplink.delivered, uplink.dropped_by_hook) == (80, 80)
    })
    .await;
    assert_eq!(bridge.stats().counters.hooks_failed, 0);
    assert!(bridge.stop(DEADLINE).await.is_empty());
    drop((bridge, devices));
    host.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_the_wrong_kind_is_an_error_and_the_ticket_still_waits() {
    let backend = Backend::start().await;
    let (asked, questions) = mpsc::channel::<Question>();
    let bridge = start(config(&backend), Asker(Mutex::new(asked))).await;
    let next = || {
        let received = questions.recv_timeout(DEADLINE);
        match received.expect("a question") {
            Question::Admit(ticket, _) | Question::Uplink(ticket, _) => ticket,
        }
    };
    let admission = |id: &str| Answer::Admission(Admission::Accept(ClientId::new(id).unwrap()));
    let forward = Answer::Uplink(UplinkAction::Forward);
    let kind = |ticket, answer: &Answer| {
        let error = bridge.resolve(ticket, answer.clone()).unwrap_err();
        error.kind()
    };

    let addr = bridge.local_addr();
    let connecting = tokio::spawn(async move { Device::connect(addr, "x").await });
    let ticket = tokio::task::block_in_place(next);
    assert_eq!(kind(ticket, &forward), ErrorKind::Argument);
    bridge.resolve(ticket, admission("dev")).unwrap();
    assert_eq!(kind(ticket, &admission("dev")), ErrorKind::Ticket);
    let mut device = within("it is let in", connecting).await.unwrap();

    device.send("a#0").await;
    let ticket = tokio::task::block_in_place(next);
    assert_eq!(kind(ticket, &admission("dev")), ErrorKind::Argument);
    bridge.resolve(ticket, forward.clone()).unwrap();
    backend.wait_delivered("dev", 1).await;
    assert_eq!(kind(ticket, &forward), ErrorKind::Ticket);
    assert_eq!(kind(Ticket(u64::MAX), &forward), ErrorKind::Ticket);
    assert_eq!(kind(Ticket(u64::MAX), &Answer::Failed), ErrorKind::Ticket);
    assert_eq!(bridge.stats().counters.hooks_failed, 0, "nothing failed");

    device.send("a#1").await;
    let ticket = tokio::task::block_in_place(next);
    bridge.resolve(ticket, Answer::Failed).unwrap();
    let stats = bridge.stats();
    assert_eq!(
        (stats.uplink.lost.hook_failed, stats.counters.hooks_failed),
        (1, 1)
    );
    let addr = bridge.local_addr();
    let connecting = tokio::spawn(async move { Device::try_connect(addr, "y").await });
    let ticket = tokio::task::block_in_place(next);
    bridge.resolve(ticket, Answer::Failed).unwrap();
    let refused = within("an answer", connecting).await.unwrap().unwrap_err();
    assert_eq!(refused.status, 503);
    assert_eq!(bridge.stats().counters.hooks_failed, 2);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_panics_or_never_answers_refuses_and_loses_and_never_lets_through() {
    let backend = Backend::start().await;
    let losses = Arc::new(Faulty::default());
    let bridge = Bridge::builder(config(&backend).hook_timeout(Duration::from_millis(300)))
        .shared_hooks(losses.clone())
        .start()
        .await
        .unwrap();
    let addr = bridge.local_addr();
    for token in ["panic", "never", "fail"] {
        let refused = Device::try_connect(addr, token).await.unwrap_err();
        assert_eq!(refused.status, 503, "{token}");
    }
    let refused = Device::try_connect(addr, "reject").await.unwrap_err();
    assert_eq!((refused.status, refused.body.as_str()), (418, "tea"));
    assert_eq!(bridge.stats().counters.hooks_failed, 3);

    let mut device = Device::connect(addr, "dev").await;
    for data in ["ok#0", "panic#1", "never#2", "fail#3", "ok#4"] {
        device.send(data).await;
    }
    assert_eq!(backend.wait_delivered("dev", 2).await, ["ok#0", "ok#4"]);
    let lost = [1, 2, 3].map(|n| (n + 1, LostReason::HookFailed));
    assert_eq!(*losses.lost.lock(), lost);
    let stats = bridge.stats();
    assert_eq!(stats.uplink.lost.hook_failed, 3);
    assert_eq!(
        stats.counters.hooks_failed, 6,
        "each counts once, the panicking notice not being there yet"
    );
    device.close(1000).await;
    eventually("on_disconnect panicked", async || {
        bridge.stats().counters.hooks_failed == 7
    })
    .await;
    assert!(
        Device::connect(addr, "dev2")
            .await
            .close(1000)
            .await
            .code
            .is_some()
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_not_given_up_while_a_hook_thinks() {
    let backend = Backend::start().await;
    let (asked, questions) = mpsc::channel::<Question>();
    let bridge = start(
        config(&backend).websocket_ping_interval(Duration::from_millis(100)),
        Asker(Mutex::new(asked)),
    )
    .await;
    let addr = bridge.local_addr();
    let connecting = tokio::spawn(async move { Device::connect(addr, "x").await });
    let next = || match questions.recv_timeout(DEADLINE).expect("a question") {
        Question::Admit(ticket, _) | Question::Uplink(ticket, _) => ticket,
    };
    let ticket = tokio::task::block_in_place(next);
    let id = ClientId::new("dev").unwrap();
    bridge
        .resolve(ticket, Answer::Admission(Admission::Accept(id)))
        .unwrap();
    let device = within("it is let in", connecting).await.unwrap().attend();
    device.send("a#0").await;
    let ticket = tokio::task::block_in_place(next);
    let pings = device.pings();
    eventually("it is pinged, and its pongs stay unread", async || {
        device.pings() >= pings + 8
    })
    .await;
    assert!(device.is_open());
    bridge
        .resolve(ticket, Answer::Uplink(UplinkAction::Forward))
        .unwrap();
    backend.wait_delivered("dev", 1).await;
    let pings = device.pings();
    eventually("it lives on", async || device.pings() >= pings + 4).await;
    assert!(device.is_open());
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_host_hears_of_an_id_is_in_order_however_its_devices_fight() {
    let backend = Backend::start().await;
    let diary = Arc::new(Diary::default());
    let bridge = Bridge::builder(config(&backend))
        .shared_hooks(diary.clone())
        .start()
        .await
        .unwrap();
    let addr = bridge.local_addr();
    const IDS: usize = 4;
    let fights = (0..16).map(|n| {
        tokio::spawn(async move {
            for round in 0..20 {
                let token = format!("dev{}", n % IDS);
                let mut device = Device::connect(addr, &token).await;
                match (n + round) % 4 {
                    0 => {
                        let _ = device.try_send("x#0").await;
                    }
                    1 => drop(device.close(1000).await),
                    2 => drop(timeout(Duration::from_millis(200), device.closed()).await),
                    _ => {}
                }
            }
        })
    });
    for ended in join_all(fights).await {
        ended.unwrap();
    }
    assert!(bridge.stop(DEADLINE).await.is_empty());
    let diary = diary.0.lock();
    assert_eq!(diary.len(), IDS);
    let mut heard = 0;
    for (id, entries) in diary.iter() {
        for pair in entries.chunks(2) {
            assert!(
                matches!(pair, [Entry::Came(a), Entry::Left(b)] if a == b),
                "{id}: {pair:?} in {entries:?}"
            );
        }
        heard += entries.len();
    }
    let sessions = bridge.stats().sessions;
    let closed: u64 = sessions.closed.values().sum();
    let too_many = sessions.closed.get("too_many").copied().unwrap_or(0);
    assert_eq!(
        (heard as u64, closed - too_many),
        (2 * sessions.opened, sessions.opened)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_sent_during_a_takeover_is_not_lost() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend), ()).await;
    let addr = bridge.local_addr();
    let id = ClientId::new("dev").unwrap();
    let mut device = Device::connect(addr, "dev").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let sender = thread::spawn({
        let (bridge, id, is_over) = (bridge.clone(), id.clone(), is_over.clone());
        move || {
            let (mut sent, mut refused) = (0u64, 0u64);
            while !is_over.load(Relaxed) {
                match bridge.send_here(&id, "x".into()) {
                    Ok(true) => sent += 1,
                    Ok(false) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
                thread::sleep(Duration::from_micros(20));
            }
            (sent, refused)
        }
    });
    for _ in 0..90 {
        let mut newer = Device::connect(addr, "dev").await;
        std::mem::swap(&mut device, &mut newer);
        for _ in 0..3 {
            device.recv_text().await;
        }
    }
    is_over.store(true, Relaxed);
    let (sent, refused) = sender.join().unwrap();
    assert_eq!(refused, 0, "of {sent}: the device was here all the time");
    assert_eq!(bridge.stats().downlink.received, sent);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_bridges_in_one_process_know_nothing_of_each_other() {
    let (backend_a, backend_b) = (Backend::start().await, Backend::start().await);
    let (diary_a, diary_b) = (Arc::new(Diary::default()), Arc::new(Diary::default()));
    let redis = TempRedis::new().await;
    let start = async |backend: &Backend, diary: &Arc<Diary>, prefix: &str| {
        let config = config(backend)
            .broker(BrokerKind::Redis)
            .redis_port(redis.port())
            .redis_prefix(prefix);
        Bridge::builder(config)
            .shared_hooks(diary.clone())
            .start()
            .await
            .unwrap()
    };
    let a = start(&backend_a, &diary_a, "a").await;
    let b = start(&backend_b, &diary_b, "b").await;
    let mut on_a = Device::connect(a.local_addr(), "dev").await;
    let mut on_b = Device::connect(b.local_addr(), "dev").await;
    on_a.send("for a").await;
    on_b.send("for b").await;
    assert_eq!(backend_a.wait_delivered("dev", 1).await, ["for a"]);
    assert_eq!(backend_b.wait_delivered("dev", 1).await, ["for b"]);
    redis.wait_subscribed("a:client:*", 1).await;
    redis.wait_subscribed("b:client:*", 1).await;
    redis.publish("a:client:dev", "down a").await;
    redis.publish("b:client:dev", "down b").await;
    assert_eq!(on_a.recv_text().await, "down a");
    assert_eq!(on_b.recv_text().await, "down b");
    let id = ClientId::new("dev").unwrap();
    assert_eq!(a.send(&id, "more".into()).await.unwrap(), Sent::Here);
    assert_eq!(on_a.recv_text().await, "more");
    let error = b.resolve(Ticket(1), Answer::Failed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Ticket);

    assert!(a.stop(DEADLINE).await.is_empty());
    assert_eq!(on_a.closed().await.code, Some(1001));
    on_b.send("still here").await;
    backend_b.wait_delivered("dev", 2).await;
    let (stats_a, stats_b) = (a.stats(), b.stats());
    assert_eq!((stats_a.uplink.received, stats_b.uplink.received), (1, 2));
    assert_eq!(
        (stats_a.downlink.received, stats_b.downlink.received),
        (2, 1)
    );
    assert_eq!(diary_a.0.lock()["dev"].len(), 2);
    assert_eq!(diary_b.0.lock()["dev"].len(), 1);
    assert!(b.stop(DEADLINE).await.is_empty());
}

#[tokio::test]
async fn a_check_reads_files_and_connects_to_nobody() {
    let nobody = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    nobody.set_nonblocking(true).unwrap();
    let port = nobody.local_addr().unwrap().port();
    let config = Config::default()
        .broker(BrokerKind::Redis)
        .redis_port(port)
        .websocket_port(port) // taken: that is for the start to find
        .events_url(Some(format!("http://127.0.0.1:{port}/")))
        .remote_url(Some(format!("http://127.0.0.1:{port}/")));
    Bridge::builder(config.clone()).check().unwrap();
    assert!(nobody.accept().is_err(), "it connected");

    let config = config.remote_ca(Some("no/such/file".into()));
    let error = Bridge::builder(config).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().starts_with("FASTSOCK_REMOTE_CA: "),
        "{error}"
    );
}

#[test]
fn a_bridge_touches_nothing_that_belongs_to_its_host() {
    if !is_alone("a_bridge_touches_nothing_that_belongs_to_its_host") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let states = runtime.block_on(async {
        let (backend, redis) = (Backend::start().await, TempRedis::new().await);
        let before = host_state();
        let has_dispatcher = tracing::dispatcher::has_been_set();
        let bridge = start(
            config(&backend)
                .broker(BrokerKind::Redis)
                .redis_port(redis.port())
                .admin_addr(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))),
            (),
        )
        .await;
        let mut device = Device::connect(bridge.local_addr(), "dev").await;
        device.send("x#0").await;
        backend.wait_delivered("dev", 1).await;
        bridge
            .send(&ClientId::new("dev").unwrap(), "y".into())
            .await
            .unwrap();
        assert_eq!(device.recv_text().await, "y");
        let during = host_state();
        assert!(bridge.stop(DEADLINE).await.is_empty());
        assert_eq!(
            has_dispatcher,
            tracing::dispatcher::has_been_set(),
            "no global subscriber"
        );
        assert!(
            rustls::crypto::CryptoProvider::get_default().is_none(),
            "no default TLS provider"
        );
        [before, during, host_state()]
    });
    assert_eq!(states[0], states[1]);
    assert_eq!(states[0], states[2]);
}

#[test]
fn a_bridge_can_live_on_a_thread_of_its_own_and_be_used_from_many() {
    let heard = Arc::new(AtomicUsize::new(0));
    let bridge = blocking::Bridge::builder(support::loopback())
        .hooks(Echo {
            bridge: Mutex::default(),
            heard: heard.clone(),
        })
        .start()
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let addr = bridge.local_addr();
    runtime.block_on(async {
        let mut device = Device::connect(addr, "dev").await;
        assert_eq!(device.recv_text().await, "welcome");
        device.send("echo").await;
        assert_eq!(device.recv_text().await, "echo");
    });
    let bridge = Arc::new(bridge);
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let bridge = bridge.clone();
            thread::spawn(move || {
                let id = ClientId::new(format!("nobody{n}")).unwrap();
                for _ in 0..100 {
                    assert_eq!(bridge.send(&id, "x".into()).unwrap(), Sent::Offline);
                    assert!(!bridge.disconnect(&id, CloseReason::Kicked));
                    bridge.stats();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(heard.load(Relaxed), 1);
    // No hook keeps it alive, and the last handle ends it.
    drop(Arc::into_inner(bridge));
    let end = std::time::Instant::now() + DEADLINE;
    while Arc::strong_count(&heard) > 1 {
        assert!(std::time::Instant::now() < end, "the hooks are still held");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn memory_does_not_grow_while_devices_come_and_go() {
    if !is_alone("memory_does_not_grow_while_devices_come_and_go") {
        return;
    }
    let time = match env::var("FASTSOCK_SOAK_SECONDS") {
        Ok(seconds) => Duration::from_secs(seconds.parse().expect("a number of seconds")),
        Err(_) => Duration::from_secs(20),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(soak(time));
}

/// A gateway under churn, watched from outside.
async fn soak(time: Duration) {
    let (backend, redis) = (Sink::start().await, TempRedis::new().await);
    let mut gateway = support::Gateway::builder()
        .var("REMOTE_URL", backend.url())
        .var("REDIS_PORT", redis.port().to_string())
        .var("LOG_LEVEL", "info")
        .var("FASTSOCK_LOG_PAYLOADS", "none")
        .start()
        .await;
    let addr = gateway.addr();
    let end = Instant::now() + time;
    let stop = Arc::new(AtomicBool::new(false));
    let churn: Vec<_> = (0..40)
        .map(|n| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut round = 0;
                while !stop.load(Relaxed) {
                    round += 1;
                    let id = format!("dev{}", (n + round) % 200);
                    let mut device = RawDevice::seated(addr, &id).await;
                    for size in [10, 100, 1000, 20_000] {
                        let text = "x".repeat(size);
                        let frame = support::Frame::text(text);
                        if device.try_write(frame.encode()).await.is_err() {
                            break; // taken over
                        }
                    }
                    sleep(Duration::from_millis(fastrand::u64(0..30))).await;
                    if round % 3 == 0 {
                        device.reset();
                    }
                }
            })
        })
        .collect();
    let publisher = tokio::spawn({
        let stop = stop.clone();
        let mut link = redis.connection().await;
        async move {
            while !stop.load(Relaxed) {
                let mut pipe = redis::pipe();
                for n in 0..200 {
                    let channel = format!("fastsock:client:dev{n}");
                    pipe.cmd("PUBLISH")
                        .arg(channel)
                        .arg("y".repeat(200))
                        .ignore();
                }
                pipe.query_async::<()>(&mut link).await.unwrap();
                sleep(Duration::from_millis(20)).await;
            }
        }
    });
    // The first third fills pools and caches.
    let warm = Instant::now() + time / 3;
    while Instant::now() < warm {
        sleep(Duration::from_millis(100)).await;
    }
    let (mut early, mut late) = (Vec::new(), Vec::new());
    let half = Instant::now() + (end - Instant::now()) / 2;
    while Instant::now() < end {
        let figures = if Instant::now() < half {
            &mut early
        } else {
            &mut late
        };
        figures.push(gateway.process().resident_bytes());
        sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Relaxed);
    join_all(churn).await;
    publisher.await.unwrap();
    let median = |mut figures: Vec<u64>| {
        figures.sort_unstable();
        figures[figures.len() / 2]
    };
    let (early, late) = (median(early), median(late));
    println!(
        "soak of {time:?}: {} KiB resident, then {} KiB; {} uplinks",
        early >> 10,
        late >> 10,
        backend.count()
    );
    assert!(
        late < early + early / 5 + (2 << 20),
        "{early} then {late} bytes"
    );
    // Far fewer than there were sessions; kept connections to the backend and to Redis are among them.
    eventually("descriptors are given back", async || {
        gateway.process().open_files() < 200
    })
    .await;
    assert_eq!(gateway.stop().await, Some(0));
}

/// A backend that takes everything and keeps nothing, so that its own memory does not grow.
struct Sink {
    addr: SocketAddr,
    count: Arc<AtomicUsize>,
}

impl Sink {
    async fn start() -> Self {
        use http_body_util::{BodyExt, Empty};
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let addr = listener.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let counted = counted.clone();
                let service = hyper::service::service_fn(
                    move |request: http::Request<hyper::body::Incoming>| {
                        let counted = counted.clone();
                        async move {
                            request.into_body().collect().await?;
                            counted.fetch_add(1, Relaxed);
                            Ok::<_, hyper::Error>(http::Response::new(Empty::<bytes::Bytes>::new()))
                        }
                    },
                );
                tokio::spawn(async move {
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await;
                });
            }
        });
        Self { addr, count }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    fn count(&self) -> usize {
        self.count.load(Relaxed)
    }
}

/// What a hook was asked, on its way to the thread that answers.
enum Question {
    Admit(Ticket, String),
    Uplink(Ticket, String),
}

/// Answers everything later.
struct Asker(Mutex<mpsc::Sender<Question>>);

impl Hooks for Asker {
    fn authenticate(&self, request: &ConnectRequest, ticket: Ticket) -> Decision<Admission> {
        let token = request.credentials.token.clone().unwrap();
        let _ = self.0.lock().send(Question::Admit(ticket, token));
        Decision::Later(ticket)
    }

    fn on_uplink(&self, uplink: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        let data = uplink.payload.to_text().into_owned();
        let _ = self.0.lock().send(Question::Uplink(ticket, data));
        Decision::Later(ticket)
    }
}

/// Panics, fails and never answers, as it is told by token and data.
#[derive(Default)]
struct Faulty {
    lost: Mutex<Vec<(u64, LostReason)>>,
}

impl Hooks for Faulty {
    fn authenticate(&self, request: &ConnectRequest, ticket: Ticket) -> Decision<Admission> {
        match request.credentials.token.as_deref().unwrap() {
            "panic" => std::panic::resume_unwind(Box::new("on purpose")),
            "never" => Decision::Later(ticket),
            "fail" => Decision::Failed,
            "reject" => Decision::Now(Admission::Reject(Refusal::new(418, "tea"))),
            _ => Decision::Now(Admission::AsConfigured),
        }
    }

    fn on_uplink(&self, uplink: &Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        match uplink.payload.to_text().split('#').next().unwrap() {
            "panic" => std::panic::resume_unwind(Box::new("on purpose")),
            "never" => Decision::Later(ticket),
            "fail" => Decision::Failed,
            _ => Decision::Now(UplinkAction::Forward),
        }
    }

    fn on_uplink_lost(&self, uplink: &Uplink, reason: LostReason) {
        self.lost.lock().push((uplink.seq, reason));
    }

    fn on_disconnect(&self, _: &Client, _: &CloseReason) {
        std::panic::resume_unwind(Box::new("on purpose"));
    }
}

/// Writes down who came and left, by id.
#[derive(Default)]
struct Diary(Mutex<HashMap<String, Vec<Entry>>>);

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Came(u64),
    Left(u64),
}

impl Diary {
    fn note(&self, client: &Client, entry: Entry) {
        // Long enough for another thread to come first if it may.
        thread::sleep(Duration::from_micros(fastrand::u64(0..300)));
        let mut diary = self.0.lock();
        diary
            .entry(client.client_id.to_string())
            .or_default()
            .push(entry);
    }
}

impl Hooks for Diary {
    fn on_connect(&self, client: &Client) {
        self.note(client, Entry::Came(client.session_id.0));
    }

    fn on_disconnect(&self, client: &Client, _: &CloseReason) {
        self.note(client, Entry::Left(client.session_id.0));
    }
}

/// Greets and echoes through the handle it was given.
struct Echo {
    bridge: Mutex<Option<WeakBridge>>,
    heard: Arc<AtomicUsize>,
}

impl Hooks for Echo {
    fn on_start(&self, bridge: &WeakBridge) {
        *self.bridge.lock() = Some(bridge.clone());
    }

    fn on_connect(&self, client: &Client) {
        let bridge = self.bridge.lock().clone();
        let sent = bridge
            .expect("it runs")
            .send_here(&client.client_id, "welcome".into());
        assert!(sent.unwrap());
    }

    fn on_uplink(&self, uplink: &Uplink, _: Ticket) -> Decision<UplinkAction> {
        self.heard.fetch_add(1, Relaxed);
        let payload: Payload = uplink.payload.clone();
        Decision::Now(UplinkAction::Reply(payload))
    }
}

async fn start(config: Config, hooks: impl Hooks) -> Bridge {
    let builder = Bridge::builder(config).hooks(hooks);
    builder.start().await.expect("it starts")
}

/// What a library must leave alone: signals, working directory, environment, limits.
fn host_state() -> (Vec<String>, String, Vec<(String, String)>, Option<u64>) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let signals = ["SigBlk", "SigIgn", "SigCgt", "Umask"];
    let signals = status
        .lines()
        .filter(|line| signals.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect();
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (
        signals,
        env::current_dir().unwrap().display().to_string(),
        env::vars().collect(),
        descriptors.current,
    )
}
