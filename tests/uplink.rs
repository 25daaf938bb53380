//! What devices say, on its way to the backend: order, fairness, retries, the breaker, backpressure (DESIGN §5).
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks"
)]

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, TcpListener},
    sync::Arc,
    time::Duration,
};

use fastsock::{
    Bridge, ClientId, Config, Hooks, LostReason, RemoteGone, Sent, Stats, Uplink, UplinkFull,
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use support::{
    Backend, DEADLINE, Device, Frame, RawDevice, Received, Reply, config, eventually,
    eventually_within, opcode, start,
};
use tokio::time::{Instant, sleep};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_device_keeps_its_order_with_one_post_in_flight() {
    let backend = Backend::start().await;
    backend.answer(|_| Reply::ok().after(Duration::from_millis(fastrand::u64(0..8))));
    let bridge = start(config(&backend)).await;
    let mut devices = connect(&bridge, 20).await;
    for n in 0..30 {
        for device in &mut devices {
            device.send(format!("temp#{n}")).await;
        }
    }
    delivered(&bridge, 600).await;
    backend.assert_in_order();
    backend.assert_one_in_flight();
    assert!(most_at_once(&backend.requests()) > 4, "side by side");
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_with_ten_thousand_queued_does_not_delay_another() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::ok().after(Duration::from_millis(10)));
    let bridge = start(
        config(&backend)
            .remote_concurrency(4usize)
            .uplink_lane_bytes(64usize << 20),
    )
    .await;
    let mut devices = connect(&bridge, 2).await;
    for n in 0..10_000 {
        devices[0].send(format!("greedy#{n}")).await;
    }
    received(&bridge, 10_000).await;
    let before = backend.count();
    devices[1].send("modest#0").await;
    let all = backend
        .wait_until("the other's message", |all| {
            all.iter().any(|request| request.client_id == "dev1")
        })
        .await;
    let place = all
        .iter()
        .position(|request| request.client_id == "dev1")
        .unwrap();
    let ahead = place - before;
    assert!(ahead < 16, "after {ahead} others");
    drop(devices);
    bridge.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_backend_loses_nothing_and_reorders_nothing() {
    let soon = |status| Reply::new(status).header("retry-after", "1");
    let failures = [
        ("500", Reply::new(500)),
        ("502", Reply::new(502)),
        ("503", Reply::new(503)),
        ("503 with Retry-After", soon(503)),
        ("408", Reply::new(408)),
        ("425", Reply::new(425)),
        ("429", Reply::new(429)),
        ("429 with Retry-After", soon(429)),
        ("599", Reply::new(599)),
        ("closing", Reply::close()),
        ("reset", Reply::reset()),
        ("cut mid-answer", Reply::new(500).cut_after_head()),
        ("hanging", Reply::hang()),
        ("too slow", Reply::ok().after(Duration::from_secs(10))),
    ];
    let tries = failures.map(|(name, failure)| async move {
        let backend = Backend::start().await;
        // The first attempt of every message fails, the second does not.
        let mut tried = HashSet::new();
        backend.answer(move |request| {
            let is_first = tried.insert((request.client_id.clone(), request.data.clone()));
            if is_first {
                failure.clone()
            } else {
                Reply::ok()
            }
        });
        let bridge = start(config(&backend).remote_timeout(Duration::from_secs(2))).await;
        let mut devices = connect(&bridge, 3).await;
        for n in 0..3 {
            for device in &mut devices {
                device.send(format!("{name}#{n}")).await;
            }
        }
        delivered(&bridge, 9).await;
        backend.assert_in_order();
        backend.assert_one_in_flight();
        assert_same_keys(&backend);
        for id in 0..3 {
            let id = format!("dev{id}");
            assert_eq!(first_tries(&backend, &id).len(), 3, "{name}");
        }
        end(bridge).await;
    });
    join_all(tries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_refuses_for_a_while_or_takes_five_seconds_loses_nothing() {
    let refusing = async {
        let backend = Backend::start().await;
        let bridge = start(config(&backend)).await;
        let mut devices = connect(&bridge, 10).await;
        backend.go_down().await;
        for n in 0..5 {
            for device in &mut devices {
                device.send(format!("temp#{n}")).await;
            }
        }
        eventually("it was tried", async || {
            bridge.stats().counters.posts_failed >= 20
        })
        .await;
        backend.come_back();
        delivered(&bridge, 50).await;
        backend.assert_in_order();
        end(bridge).await;
    };
    let slow = async {
        let backend = Backend::start().await;
        backend.queue([Reply::ok().after(Duration::from_secs(5))]);
        let bridge = start(config(&backend)).await;
        let mut devices = connect(&bridge, 1).await;
        for n in 0..5 {
            devices[0].send(format!("temp#{n}")).await;
        }
        delivered(&bridge, 5).await;
        assert_eq!(backend.count(), 5, "nothing was sent twice");
        backend.assert_in_order();
        end(bridge).await;
    };
    tokio::join!(refusing, slow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_costs_exactly_that_message() {
    let statuses = [400, 402, 405, 406, 409, 410, 413, 415, 422, 451, 501, 505];
    let backend = Backend::start().await;
    backend.answer(|request| {
        let status = request.data.split('#').next().unwrap();
        Reply::new(status.parse().unwrap())
    });
    let losses = Arc::new(Losses::default());
    let bridge = start_with(config(&backend), losses.clone()).await;
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    device.send("200#0").await;
    for (n, status) in statuses.iter().enumerate() {
        device.send(format!("{status}#{}", n + 1)).await;
    }
    device.send("200#99").await;
    assert_eq!(
        backend.wait_delivered("dev", 2).await,
        ["200#0", "200#99"],
        "and nothing else"
    );
    eventually("the books are closed", async || {
        bridge.stats().uplink.held == 0
    })
    .await;
    assert_eq!(backend.count(), statuses.len() + 2, "each was tried once");
    let stats = bridge.stats();
    assert_eq!(stats.uplink.lost.rejected, statuses.len() as u64);
    let lost: Vec<_> = statuses
        .iter()
        .enumerate()
        .map(|(n, status)| (format!("{status}#{}", n + 1), LostReason::Rejected))
        .collect();
    assert_eq!(*losses.0.lock(), lost);
    device.send("200#100").await; // and the device is still there
    backend.wait_delivered("dev", 3).await;
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_of_429_holds_one_device_and_that_of_503_everyone() {
    const HOLD: Duration = Duration::from_secs(2);
    let backend = Backend::start().await;
    let bridge = start(config(&backend)).await;
    let mut devices = connect(&bridge, 2).await;
    // The first attempts of these two are told to come back after two seconds.
    let mut told = HashMap::from([("a#0", 429), ("b#1", 503)]);
    backend.answer(move |request| match told.remove(request.data.as_str()) {
        Some(status) => Reply::new(status).header("retry-after", "2"),
        None => Reply::ok(),
    });

    devices[0].send("a#0").await;
    let all = backend.wait_for(1).await;
    devices[1].send("b#0").await;
    backend.wait_delivered("dev1", 1).await;
    let at = all[0].at;
    backend.wait_delivered("dev0", 1).await;
    let all = backend.requests();
    let seen: Vec<_> = all
        .iter()
        .map(|r| (r.client_id.as_str(), r.status, (r.at - at).as_millis()))
        .collect();
    assert!(
        matches!(
            seen[..],
            [
                ("dev0", Some(429), 0),
                ("dev1", Some(200), ..2000),
                ("dev0", Some(200), 2000..)
            ]
        ),
        "the other device was held as well, or the first one was not: {seen:?}"
    );

    devices[1].send("b#1").await;
    let at = backend
        .wait_until("the 503", |all| {
            all.get(3).is_some_and(|r| r.done.is_some())
        })
        .await[3]
        .at;
    eventually("the 503 was read", async || {
        bridge.stats().counters.posts == 4
    })
    .await;
    devices[0].send("a#1").await;
    let all = backend.wait_for(6).await;
    for request in &all[4..] {
        assert!(
            request.at - at >= HOLD,
            "{}: {:?}",
            request.client_id,
            request.at - at
        );
    }
    delivered(&bridge, 4).await;
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_410_closes_the_device_only_when_told_to() {
    for (gone, is_closed) in [(RemoteGone::Close, true), (RemoteGone::Ignore, false)] {
        let backend = Backend::start().await;
        backend.queue([Reply::new(410)]);
        let bridge = start(config(&backend).remote_gone(gone)).await;
        let device = Device::connect(bridge.local_addr(), "dev").await.attend();
        device.send("x#0").await;
        eventually("it is lost", async || lost(&bridge) == 1).await;
        if is_closed {
            assert_eq!(device.wait_closed().await.code, Some(4410));
        } else {
            device.send("x#1").await;
            backend.wait_delivered("dev", 1).await;
        }
        end(bridge).await;
    }
}

/// These take half a minute each, or longer: side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_time_to_be_decided_is_decided_rightly() {
    tokio::join!(
        a_message_that_fails_eight_times_while_others_succeed_is_given_up(),
        a_device_whose_part_of_the_backend_is_away_loses_nothing(),
        a_backend_that_is_down_closes_no_device(),
        a_lane_that_stays_full_while_the_backend_is_up_closes_its_device(),
    );
}

async fn a_message_that_fails_eight_times_while_others_succeed_is_given_up() {
    let backend = Backend::start().await;
    backend.answer(|request| Reply::new(if request.data == "bad#0" { 500 } else { 200 }));
    let losses = Arc::new(Losses::default());
    let bridge = start_with(config(&backend), losses.clone()).await;
    let mut devices = connect(&bridge, 2).await;
    devices[0].send("bad#0").await;
    devices[0].send("good#1").await;
    eventually("it has failed once", async || {
        bridge.stats().counters.posts_failed > 0
    })
    .await;
    devices[1].send("other#0").await;
    // Seven back-offs with full jitter: 32 s on average, 64 s at the most.
    backend
        .wait_until_within(Duration::from_secs(70), "the next message", |all| {
            all.iter().any(|r| r.data == "good#1" && r.is_delivered())
        })
        .await;
    let bad = backend
        .requests_of("dev0")
        .iter()
        .filter(|r| r.data == "bad#0")
        .count();
    assert_eq!(bad, 8);
    assert_eq!(*losses.0.lock(), [("bad#0".to_owned(), LostReason::Poison)]);
    end(bridge).await;
}

async fn a_device_whose_part_of_the_backend_is_away_loses_nothing() {
    let tries = [
        Reply::new(502),
        Reply::new(503),
        Reply::new(504),
        Reply::close(),
    ]
    .map(|failure| async move {
        let backend = Backend::start().await;
        backend.answer(move |request| match request.client_id.as_str() {
            "dev0" => failure.clone(),
            _ => Reply::ok(),
        });
        let bridge = start(config(&backend)).await;
        let mut devices = connect(&bridge, 2).await;
        for n in 0..3 {
            devices[0].send(format!("temp#{n}")).await;
        }
        let mut said = 0;
        // As many as make another message poison: seven back-offs, 64 s at the most.
        let latest = Instant::now() + Duration::from_secs(70);
        while bridge.stats().counters.posts_failed < 8 {
            assert!(Instant::now() < latest);
            devices[1].send(format!("temp#{said}")).await;
            said += 1;
            backend.wait_delivered("dev1", said).await;
            sleep(Duration::from_millis(200)).await; // a device that speaks now and then
        }
        assert_eq!(lost(&bridge), 0);
        backend.answer_all(Reply::ok());
        end(bridge).await; // a stop waits for no back-off
        assert_eq!(backend.delivered("dev0").len(), 3);
        backend.assert_in_order();
    });
    join_all(tries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_grows_too_old_is_given_up_and_the_next_goes_on() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(503));
    let losses = Arc::new(Losses::default());
    let bridge = start_with(
        config(&backend).remote_max_age(Duration::from_secs(1)),
        losses.clone(),
    )
    .await;
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    device.send("old#0").await;
    device.send("old#1").await;
    eventually("both are too old", async || {
        bridge.stats().uplink.lost.too_old == 2
    })
    .await;
    let old = |n| (format!("old#{n}"), LostReason::TooOld);
    assert_eq!(*losses.0.lock(), [old(0), old(1)]);
    backend.answer_all(Reply::ok());
    device.send("young#2").await;
    assert_eq!(backend.wait_delivered("dev", 1).await, ["young#2"]);
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breaker_probes_with_other_heads_and_releases_all_at_once() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::new(500));
    let bridge = start(config(&backend)).await;
    let mut devices = connect(&bridge, 40).await;
    for device in &mut devices {
        device.send("first#0").await;
    }
    eventually("the breaker has opened", async || {
        bridge.stats().counters.breaker_opened == 1
    })
    .await;
    // Those that come now wait without being tried.
    let addr = bridge.local_addr();
    let mut late = Vec::new();
    for n in 0..100 {
        let mut device = Device::connect(addr, &format!("late{n}")).await;
        device.send("first#0").await;
        late.push(device);
    }
    received(&bridge, 140).await;
    eventually("the attempts from before are over", async || {
        let requests = backend.requests();
        requests.len() as u64 == bridge.stats().counters.posts
    })
    .await;
    let before = backend.count();
    let opened_at = backend.requests()[before - 1].at;
    let probes = backend
        .wait_until_within(3 * DEADLINE, "three rounds of four probes", |all| {
            all.len() >= before + 12 && all.iter().all(|r| r.done.is_some())
        })
        .await
        .split_off(before);
    let heads: HashSet<_> = probes[..12].iter().map(|r| &r.client_id).collect();
    assert_eq!(heads.len(), 12, "each probe is another lane's head");
    let gaps: Vec<_> = [opened_at, probes[0].at, probes[4].at, probes[8].at]
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis())
        .collect();
    assert!(
        gaps[0] > 500 && gaps[1] > 1500 && gaps[2] > 3000,
        "rounds are rare: {gaps:?}"
    );

    backend.answer_all(Reply::ok().after(Duration::from_millis(5)));
    let all = backend
        .wait_until_within(3 * DEADLINE, "the late ones are delivered", |all| {
            count_delivered(all, "late") >= 100
        })
        .await;
    let of_late: Vec<_> = all
        .iter()
        .filter(|r| r.client_id.starts_with("late") && r.is_delivered())
        .collect();
    let released = of_late[99].at - of_late[0].at;
    assert!(released < Duration::from_secs(3), "{released:?}");
    let untried = of_late
        .iter()
        .filter(|r| r.header("x-fastsock-attempt") == Some("1"))
        .count();
    let probed = heads.iter().filter(|id| id.starts_with("late")).count();
    assert!(
        (100 - probed - 4..=100 - probed).contains(&untried),
        "waiting costs no attempts: {untried}, {probed} probed, and perhaps a round more"
    );
    let start = all.iter().position(Received::is_delivered).unwrap();
    let first = &all[start..start + 9];
    assert!(
        most_at_once(first) <= 8,
        "it starts slowly: {}",
        most_at_once(first)
    );
    delivered(&bridge, 140).await;
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_posts_at_once_and_no_more() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::ok().after(Duration::from_millis(20)));
    let bridge = start(config(&backend).remote_concurrency(4usize)).await;
    let mut devices = connect(&bridge, 30).await;
    for n in 0..3 {
        for device in &mut devices {
            device.send(format!("temp#{n}")).await;
        }
    }
    delivered(&bridge, 90).await;
    assert_eq!(most_at_once(&backend.requests()), 4);
    assert!(
        backend.connections() <= 8,
        "{} connections",
        backend.connections()
    );
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_has_a_deadline_of_its_own() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(); // takes the connection, never shakes hands
    let url = format!("https://{}/", silent.local_addr().unwrap());
    let backend = Backend::start().await;
    let bridge = start(
        config(&backend)
            .remote_url(Some(url))
            .remote_connect_timeout(Duration::from_millis(200)),
    )
    .await;
    let mut devices = connect(&bridge, 1).await;
    let begun = Instant::now();
    devices[0].send("x#0").await;
    eventually("an attempt has failed", async || {
        bridge.stats().counters.posts_failed > 0
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(bridge.stats().uplink.held, 1);
    bridge.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_lane_stops_reading_and_nothing_else() {
    const MESSAGES: usize = 200;
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let bridge = start(
        config(&backend)
            .uplink_lane_bytes(100_000usize)
            .remote_timeout(Duration::from_secs(60))
            .websocket_ping_interval(Duration::from_millis(150)),
    )
    .await;
    let id = ClientId::new("dev").unwrap();
    let mut bytes = Vec::new();
    for n in 0..MESSAGES {
        bytes.extend(Frame::text(format!("{}#{n}", "x".repeat(60_000))).encode());
    }
    let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
    let written = device
        .write_until_full(&bytes, Duration::from_millis(500))
        .await;
    assert!(written < bytes.len(), "TCP has pushed back");
    let stats = bridge.stats();
    assert_eq!((stats.uplink.held, stats.uplink.received), (2, 2));
    assert_eq!(stats.counters.reads_paused, 1);

    // Its pongs stay unread, so this is longer than a heartbeat forgives, and downlinks flow all the time.
    let mut pings = 0;
    for n in 0..10 {
        assert_eq!(
            bridge.send(&id, format!("{n}").into()).await.unwrap(),
            Sent::Here
        );
        loop {
            let frame = device.frame().await;
            match frame.opcode {
                opcode::PING => pings += 1,
                opcode::TEXT => break assert_eq!(frame.payload, format!("{n}").as_bytes()),
                other => panic!("{other}"),
            }
        }
        while device.frame().await.opcode != opcode::PING {}
        pings += 1;
    }
    assert!(pings >= 10);
    assert_eq!(bridge.stats().uplink.received, 2, "nothing was read");

    backend.go_down().await; // cuts the hanging request
    backend.answer_all(Reply::ok());
    backend.come_back();
    let rest = bytes.split_off(written);
    let reader = tokio::spawn(async move {
        for part in rest.chunks(60_000) {
            device.write(part).await; // each has its own deadline
        }
        device.drain().await
    });
    delivered(&bridge, MESSAGES as u64).await;
    let numbers: Vec<_> = backend
        .delivered("dev")
        .iter()
        .map(|data| data.rsplit('#').next().unwrap().parse::<usize>().unwrap())
        .collect();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    end(bridge).await;
    reader.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_lanes_together_are_bounded_and_everyone_goes_on_once_there_is_room() {
    const TOTAL: usize = 20_000;
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    // No heartbeat: nothing wakes a session that was forgotten.
    let bridge = start(
        config(&backend)
            .uplink_total_bytes(TOTAL)
            .remote_timeout(Duration::from_secs(60))
            .websocket_ping_interval(Duration::ZERO),
    )
    .await;
    let devices = connect(&bridge, 100).await;
    let senders: Vec<_> = devices
        .into_iter()
        .map(|mut device| {
            tokio::spawn(async move {
                for n in 0..15 {
                    device.send(format!("{}#{n}", "x".repeat(400))).await;
                }
                device
            })
        })
        .collect();
    eventually("the bridge is full", async || {
        bridge.stats().uplink.held_bytes >= TOTAL as u64
    })
    .await;
    let most = watch_held_bytes(&bridge, Duration::from_millis(300)).await;
    assert!(most < TOTAL as u64 + 4 * 1500, "{most}"); // one message and one lane of each thread that reads
    backend.go_down().await;
    backend.answer(|_| Reply::ok().after(Duration::from_millis(fastrand::u64(0..3))));
    backend.come_back();
    delivered(&bridge, 1500).await;
    backend.assert_in_order();
    let devices: Vec<_> = join_all(senders).await;
    assert!(devices.iter().all(Result::is_ok));
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_oldest_keeps_the_newest_and_what_is_in_flight() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let bridge = start(
        config(&backend)
            .uplink_full(UplinkFull::DropOldest)
            .uplink_lane_bytes(1000usize)
            .remote_timeout(Duration::from_secs(60)),
    )
    .await;
    let mut devices = connect(&bridge, 1).await;
    devices[0].send("temp#0").await;
    backend.wait_for(1).await;
    for n in 1..50 {
        devices[0].send(format!("temp#{n}")).await;
    }
    received(&bridge, 50).await;
    let held = bridge.stats().uplink.held;
    assert!((7..=9).contains(&held), "{held} of 134 bytes each");
    assert_eq!(bridge.stats().uplink.lost.full, 50 - held);
    backend.go_down().await;
    backend.answer_all(Reply::ok());
    backend.come_back();
    let numbers = backend.wait_delivered("dev0", held as usize).await;
    let kept: Vec<_> = std::iter::once(0)
        .chain(51 - held..50)
        .map(|n| format!("temp#{n}"))
        .collect();
    assert_eq!(numbers, kept);
    bridge.stop(DEADLINE).await;
}

async fn a_backend_that_is_down_closes_no_device() {
    // Longer than a lane may stay full while the backend is up (30 s).
    let refusing = async {
        let backend = Backend::start().await;
        backend.go_down().await;
        outlasts_an_outage(&backend, Duration::from_secs(15)).await;
    };
    let hanging = async {
        let backend = Backend::start().await;
        backend.answer_all(Reply::hang());
        outlasts_an_outage(&backend, Duration::from_secs(15)).await;
    };
    let failing = async {
        let backend = Backend::start().await;
        backend.answer_all(Reply::new(500));
        outlasts_an_outage(&backend, Duration::from_secs(15)).await;
    };
    tokio::join!(refusing, hanging, failing);
}

async fn a_lane_that_stays_full_while_the_backend_is_up_closes_its_device() {
    let backend = Backend::start().await;
    backend.answer(|request| match request.client_id.as_str() {
        "busy" => Reply::new(429).header("retry-after", "60"),
        _ => Reply::ok(),
    });
    let bridge = start(config(&backend).uplink_lane_bytes(1000usize)).await;
    let mut busy = Device::connect(bridge.local_addr(), "busy").await;
    let mut other = Device::connect(bridge.local_addr(), "other").await;
    for n in 0..20 {
        busy.send(format!("temp#{n}")).await;
    }
    let begun = Instant::now();
    let busy = busy.attend();
    while busy.is_open() && begun.elapsed() < Duration::from_secs(40) {
        other.send("temp#0").await;
        sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(busy.wait_closed().await.code, Some(1013));
    assert!(begun.elapsed() > Duration::from_secs(29));
    assert_eq!(lost(&bridge), 0, "what was taken is kept");
    bridge.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uplink_outlives_its_device_and_a_reconnect_continues_its_order() {
    let backend = Backend::start().await;
    backend.go_down().await;
    let bridge = start(config(&backend)).await;
    for session in 0..5 {
        let mut device = Device::connect(bridge.local_addr(), "dev").await;
        for n in 0..4 {
            device.send(format!("temp#{}", session * 4 + n)).await;
        }
        received(&bridge, (session + 1) * 4).await;
        drop(device);
    }
    eventually("it has gone", async || bridge.clients().is_empty()).await;
    backend.come_back();
    delivered(&bridge, 20).await;
    backend.assert_in_order();
    backend.assert_one_in_flight();
    let requests = backend.requests();
    let sessions: HashSet<_> = requests
        .iter()
        .map(|r| r.header("x-fastsock-session"))
        .collect();
    assert_eq!(sessions.len(), 5);
    end(bridge).await;
}

/// One device with a full lane in front of a backend that is down; then the backend comes back.
async fn outlasts_an_outage(backend: &Backend, timeout: Duration) {
    let bridge = start(
        config(backend)
            .uplink_lane_bytes(1000usize)
            .remote_timeout(timeout),
    )
    .await;
    let device = Device::connect(bridge.local_addr(), "dev").await.attend();
    for n in 0..20 {
        device.send(format!("temp#{n}")).await;
    }
    eventually("it is not read", async || {
        bridge.stats().counters.reads_paused > 0
    })
    .await;
    let end_at = Instant::now() + Duration::from_secs(32);
    while Instant::now() < end_at {
        assert!(device.is_open(), "it was closed");
        sleep(Duration::from_millis(100)).await;
    }
    let held = bridge.stats().uplink.held;
    assert!(lost(&bridge) == 0 && held == 8, "{held} of 134 bytes each");
    // What was read ahead of the lane is told too.
    assert_eq!(bridge.stop(Duration::ZERO).await.uplinks, 20);
}

/// Every uplink that was given up.
#[derive(Default)]
struct Losses(Mutex<Vec<(String, LostReason)>>);

impl Hooks for Losses {
    fn on_uplink_lost(&self, uplink: &Uplink, reason: LostReason) {
        let data = uplink.payload.to_text().into_owned();
        self.0.lock().push((data, reason));
    }
}

async fn start_with(config: Config, hooks: Arc<dyn Hooks>) -> Bridge {
    let builder = Bridge::builder(config).shared_hooks(hooks);
    builder.start().await.expect("it starts")
}

/// Devices `dev0`, `dev1` and so on.
async fn connect(bridge: &Bridge, count: usize) -> Vec<Device> {
    let mut devices = Vec::new();
    for n in 0..count {
        devices.push(Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
    }
    devices
}

async fn received(bridge: &Bridge, count: u64) {
    eventually_within(3 * DEADLINE, "all received", async || {
        bridge.stats().uplink.received >= count
    })
    .await;
}

/// Waits until so many are delivered; at least one more in each [`DEADLINE`].
async fn delivered(bridge: &Bridge, count: u64) {
    let mut before = 0;
    while before < count {
        let what = format!("more than {before} of {count} delivered");
        before = eventually_within(2 * DEADLINE, &what, async || {
            Some(bridge.stats().uplink.delivered).filter(|now| *now > before)
        })
        .await;
    }
}

fn lost(bridge: &Bridge) -> u64 {
    bridge.stats().uplink.lost.total()
}

/// Stops it and sees that nothing was left and the books are even.
async fn end(bridge: Bridge) {
    let leftover = bridge.stop(DEADLINE).await;
    assert!(leftover.is_empty(), "{leftover:?}");
    let Stats { uplink, .. } = bridge.stats();
    assert_eq!(uplink.held, 0);
    assert_eq!(uplink.received, uplink.delivered + uplink.lost.total());
}

/// How many requests were open at the same time at the most.
fn most_at_once(requests: &[Received]) -> usize {
    let mut edges: Vec<(Instant, i32)> = Vec::new();
    for request in requests {
        edges.push((request.at, 1));
        edges.extend(request.done.map(|done| (done, -1)));
    }
    edges.sort();
    let mut now = 0;
    let depths = edges.iter().map(|(_, step)| {
        now += step;
        now
    });
    depths.max().unwrap_or(0) as usize
}

fn count_delivered(requests: &[Received], prefix: &str) -> usize {
    requests
        .iter()
        .filter(|r| r.client_id.starts_with(prefix) && r.is_delivered())
        .count()
}

/// What a device said, in the order in which it was first tried.
fn first_tries(backend: &Backend, client_id: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for request in backend.requests_of(client_id) {
        if !seen.contains(&request.data) {
            seen.push(request.data);
        }
    }
    seen
}

/// Every attempt of a message has the key of the first, and no two messages share one.
fn assert_same_keys(backend: &Backend) {
    let mut keys = HashMap::new();
    for request in backend.requests() {
        let key = request.header("idempotency-key").expect("there is one");
        let message = (request.client_id.clone(), request.data.clone());
        let known = keys.entry(key.to_owned()).or_insert(message.clone());
        assert_eq!(*known, message);
    }
    let messages: HashSet<_> = keys.values().collect();
    assert_eq!(messages.len(), keys.len());
}

async fn watch_held_bytes(bridge: &Bridge, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut most = 0;
    while Instant::now() < end {
        most = most.max(bridge.stats().uplink.held_bytes);
        sleep(Duration::from_millis(1)).await;
    }
    most
}
