//! What becomes of uplinks while the backend fails, refuses, or is slow.

use super::*;

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
    let tries = failures.into_iter().map(|(name, failure)| async move {
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
    let losses = Arc::new(LostUplinks::default());
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
        full::a_backend_that_is_down_closes_no_device(),
        full::a_lane_that_stays_full_while_the_backend_is_up_closes_its_device(),
    );
}

async fn a_message_that_fails_eight_times_while_others_succeed_is_given_up() {
    let backend = Backend::start().await;
    backend.answer(|request| Reply::new(if request.data == "bad#0" { 500 } else { 200 }));
    let losses = Arc::new(LostUplinks::default());
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
    .into_iter()
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
    let losses = Arc::new(LostUplinks::default());
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
