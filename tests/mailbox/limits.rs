//! What a mailbox does not keep: because it is full, too old, or Redis drops it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_mailbox_loses_is_counted_whoever_trims_it() {
    let redis = TempRedis::new().await;
    let bridge = start(config(&redis).mailbox_messages(10usize)).await;
    let lost = |stats: Stats| (stats.mailbox.lost.full, stats.mailbox.lost.total());
    // Through the gateway: at once.
    for n in 0..15 {
        bridge
            .send_kept(&id("a"), n.to_string().into(), KeepOptions::default())
            .await
            .unwrap();
    }
    assert_eq!(lost(bridge.stats()), (5, 5));
    // By the script of anyone, and by a plain XADD: when the device comes.
    for n in 0..15 {
        let key = "fastsock:mbox:{b}";
        redis
            .cmd::<()>(&[
                "EVAL",
                SEND_LUA,
                "1",
                key,
                "fastsock:bell:b",
                &n.to_string(),
                "messages",
                "10",
            ])
            .await;
        redis
            .cmd::<()>(&[
                "XADD",
                "fastsock:mbox:{c}",
                "MAXLEN",
                "=",
                "10",
                "*",
                "data",
                &n.to_string(),
            ])
            .await;
    }
    redis
        .cmd::<()>(&["XADD", "fastsock:mbox:{c}", "*", "text", "no data"])
        .await;
    let mut devices = Vec::new();
    for name in ["a", "b", "c"] {
        let device = Device::connect(bridge.local_addr(), name).await.attend();
        assert_eq!(device.wait_texts(10).await.first().unwrap(), "5");
        is_empty(&redis, name).await;
        devices.push(device);
    }
    assert_eq!(lost(bridge.stats()), (15, 16));
    assert_eq!(bridge.stats().mailbox.lost.bad, 1);
    // By bytes: the newest stays, whatever its size.
    let big = "x".repeat(600_000);
    for _ in 0..3 {
        bridge
            .send_kept(&id("big"), big.clone().into(), KeepOptions::default())
            .await
            .unwrap();
    }
    let state = bridge.mailbox(&id("big")).await.unwrap();
    assert!(state.messages == 1 && state.bytes < 1 << 20, "{state:?}");
    // A script that is asked for what it does not know keeps nothing.
    let mistake = redis
        .try_cmd::<()>(&["EVAL", SEND_LUA, "1", "k", "b", "x", "max", "10"])
        .await;
    assert!(
        mistake
            .unwrap_err()
            .to_string()
            .contains("max is no option")
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_janitor_removes_what_is_too_old_and_tells_though_nobody_returns() {
    let redis = TempRedis::new().await;
    let backend = Backend::start().await;
    let losses = LostKept::default();
    let old = unix_ms(SystemTime::now()) - 60_000;
    for n in 0..3 {
        let at = format!("{}-0", old + n);
        let stream = "fastsock:mbox:{a{b}c}".replace("a{b}c", "a%7Bb%7Dc");
        redis
            .cmd::<String>(&["XADD", &stream, &at, "data", "x"])
            .await;
    }
    add(&redis, "young", "x").await;
    // What looks like one and is none stays as it is.
    redis.cmd::<()>(&["SET", "fastsock:mbox:{none}", "x"]).await;
    let config = || {
        let config = config(&redis).mailbox_age(Duration::from_secs(20));
        config.events_url(Some(backend.url()))
    };
    let builder = Bridge::builder(config()).hooks(losses.clone());
    let one = builder.start().await.unwrap();
    let two = start(config()).await;
    eventually("it is told", async || {
        !losses.0.lock().is_empty() || { two.stats().mailbox.lost.expired > 0 }
    })
    .await;
    let told = async || {
        let bodies = backend.requests().into_iter().map(|r| r.json());
        bodies
            .filter(|body| body["type"] == "mailbox_lost")
            .collect::<Vec<_>>()
    };
    eventually("the backend hears of it", async || told().await.len() == 1).await;
    let event = told().await.remove(0);
    assert_eq!(
        (&event["client_id"], &event["count"]),
        (&"a{b}c".into(), &3.into())
    );
    assert_eq!(event["cause"], "mailbox_expired");
    let counted = [&one, &two].map(|bridge| bridge.stats().mailbox.lost.expired);
    assert_eq!(counted.iter().sum::<u64>(), 3);
    if counted[0] > 0 {
        assert_eq!(
            *losses.0.lock(),
            [("a{b}c".into(), "mailbox_expired".into(), 3)]
        );
    }
    assert_eq!(length(&redis, "young").await, 1);
    // Written by a plain XADD it would stay for ever.
    let rest: i64 = redis.cmd(&["PTTL", "fastsock:mbox:{young}"]).await;
    assert!(rest > 0, "{rest}");
    // One sweeps at a time.
    let sweeps = || [&one, &two].map(|bridge| bridge.stats().mailbox.sweeps);
    eventually("it is swept again", async || {
        sweeps().iter().sum::<u64>() > 2
    })
    .await;
    assert!(sweeps().contains(&0), "{:?}", sweeps());
    one.stop(DEADLINE).await;
    two.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_mailboxes_together_stay_within_their_limits_and_the_oldest_goes() {
    for by_bytes in [false, true] {
        let redis = TempRedis::new().await;
        let now = unix_ms(SystemTime::now());
        for device in 0..10 {
            for n in 0..20 {
                let stream = format!("fastsock:mbox:{{d{device}}}");
                let at = format!("{}-0", now - 10_000 + 100 * device + n);
                let data = "x".repeat(200);
                redis
                    .cmd::<String>(&["XADD", &stream, &at, "data", &data])
                    .await;
            }
        }
        let usage = async || {
            let mut bytes = 0;
            for device in 0..10 {
                let key = format!("fastsock:mbox:{{d{device}}}");
                let used: Option<u64> = redis.cmd(&["MEMORY", "USAGE", &key]).await;
                bytes += used.unwrap_or(0);
            }
            bytes
        };
        let before = usage().await;
        let config = config(&redis).mailbox_age(Duration::from_secs(3600));
        let config = match by_bytes {
            false => config.mailbox_total_messages(50usize),
            true => config.mailbox_total_bytes(before as usize / 2),
        };
        let bridge = start(config.mailbox_age(Duration::from_secs(60))).await;
        eventually("it is swept", async || bridge.stats().mailbox.sweeps > 0).await;
        let mut left = Vec::new();
        for device in 0..10 {
            left.push(length(&redis, &format!("d{device}")).await);
        }
        let lost = bridge.stats().mailbox.lost;
        assert_eq!(
            lost.full + left.iter().sum::<u64>(),
            200,
            "{lost:?} {left:?}"
        );
        match by_bytes {
            false => assert_eq!(left.iter().sum::<u64>(), 50, "{left:?}"),
            true => assert!(usage().await <= before / 2),
        }
        // Those of the later devices are younger.
        assert!(
            left.is_sorted() && left[0] == 0 && left[9] == 20,
            "{left:?}"
        );
        // What a device finds when it comes is what is counted as left.
        let device = Device::connect(bridge.local_addr(), "d9").await.attend();
        device.wait_texts(20).await;
        is_empty(&redis, "d9").await;
        assert_eq!(bridge.stats().mailbox.lost, lost);
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_drops_keys_is_warned_of() {
    const WARNING: &str =
        "Redis drops keys when its memory is full, mailboxes too, and nobody is told";
    for (policy, warns) in [("allkeys-lru", true), ("noeviction", false)] {
        let args = ["--maxmemory-policy", policy];
        let redis = TempRedis::builder().args(args).start().await;
        let gateway = gateway(&redis).await;
        if warns {
            let line = gateway.wait_line(WARNING).await;
            assert_eq!(
                (&line["level"], &line["policy"]),
                (&"warn".into(), &policy.into())
            );
        }
        let mut check = Gateway::builder()
            .var("REDIS_PORT", redis.port().to_string())
            .var("FASTSOCK_BROKER", "redis")
            .var("FASTSOCK_MAILBOX", "redis")
            .arg("--check")
            .launch();
        assert_eq!(check.exit_code().await, Some(0), "{}", check.output());
        let expected =
            format!("redis: maxmemory-policy {policy}: {WARNING}: set maxmemory-policy noeviction");
        assert_eq!(
            check.stdout().contains(&expected),
            warns,
            "{}",
            check.output()
        );
        drop(gateway);
    }
}
