//! A bridge inside a host: what hooks decide and hear, two bridges side by side, and nothing touched that is the host's.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::type_complexity,
    reason = "a test is a host, and may start tasks and threads, print, and read its environment"
)]

#[path = "embed/guest.rs"]
mod guest;
#[path = "embed/memory.rs"]
mod memory;

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
    Decision, ErrorKind, Handover, Hooks, LostReason, Payload, Refusal, Sent, Ticket, Uplink,
    UplinkAction, WeakBridge, blocking,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use support::{
    Backend, DEADLINE, Device, RawDevice, TempRedis, config, eventually, is_alone, wait_until,
    within,
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
            thread::sleep(Duration::from_micros(fastrand::u64(0..2000))); // a host that takes its time
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
        config(&backend).websocket_ping_interval(Duration::from_millis(300)),
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_device_gets_does_not_wait_for_a_hook_that_takes_its_time() {
    let backend = Backend::start().await;
    let (asked, questions) = mpsc::channel::<Question>();
    let config = config(&backend).hook_timeout(10 * DEADLINE); // nothing goes on because of that
    let bridge = start(config, Asker(Mutex::new(asked))).await;
    let addr = bridge.local_addr();
    let connecting = tokio::spawn(async move { Device::connect(addr, "x").await });
    let next = || match questions.recv_timeout(DEADLINE).expect("a question") {
        Question::Admit(ticket, _) | Question::Uplink(ticket, _) => ticket,
    };
    let id = ClientId::new("dev").unwrap();
    let admission = Answer::Admission(Admission::Accept(id.clone()));
    let ticket = tokio::task::block_in_place(next);
    bridge.resolve(ticket, admission).unwrap();
    let mut device = within("it is let in", connecting).await.unwrap();
    for n in 0..3 {
        device.send(format!("say#{n}")).await;
    }
    let ticket = tokio::task::block_in_place(next);
    eventually("the others wait behind the first", async || {
        bridge.stats().sessions.read_ahead_bytes >= 2 * "say#0".len() as u64
    })
    .await;
    let reply = Answer::Uplink(UplinkAction::Reply("re:0".into()));
    bridge.resolve(ticket, reply).unwrap();
    assert_eq!(device.recv_text().await, "re:0");
    let ticket = tokio::task::block_in_place(next); // the second, which nobody answers yet
    // Sent while more may come; and then nothing more does.
    assert_eq!(bridge.send(&id, "bye".into()).await.unwrap(), Sent::Here);
    assert!(bridge.disconnect(&id, CloseReason::Kicked));
    assert_eq!(device.recv_text().await, "bye");
    assert_eq!(device.closed().await.code, Some(4510));
    bridge
        .resolve(ticket, Answer::Uplink(UplinkAction::Drop))
        .unwrap();
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_over_comes_before_what_is_sent_once_it_is_finished() {
    let backend = Backend::start().await;
    let (asked, questions) = mpsc::channel::<Question>();
    let bridge = start(config(&backend), Asker(Mutex::new(asked))).await;
    let addr = bridge.local_addr();
    let connecting = tokio::spawn(async move { Device::connect(addr, "x").await });
    let next = || match questions.recv_timeout(DEADLINE).expect("a question") {
        Question::Admit(ticket, _) | Question::Uplink(ticket, _) => ticket,
    };
    let id = ClientId::new("dev").unwrap();
    let mut handover = Handover::default();
    let ticket = tokio::task::block_in_place(next);
    handover.answer(ticket, Answer::Admission(Admission::Accept(id.clone())));
    bridge.hand_over(&mut handover);
    let mut device = within("it is let in", connecting).await.unwrap();
    for n in 0..100 {
        device.send("say").await;
        let ticket = tokio::task::block_in_place(next);
        let reply = Answer::Uplink(UplinkAction::Reply(format!("re:{n}").as_str().into()));
        handover.answer(ticket, reply);
        bridge.hand_over(&mut handover);
        assert!(handover.is_empty());
        bridge.finish_replies();
        let sent = handover.during(|| bridge.send_here(&id, "and".into()));
        assert!(sent.unwrap() && !handover.has_replies());
        bridge.hand_over(&mut handover);
        assert_eq!(device.recv_text().await, format!("re:{n}"));
        assert_eq!(device.recv_text().await, "and");
    }
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
                thread::sleep(Duration::from_micros(20)); // so that it does not take a core alone
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
