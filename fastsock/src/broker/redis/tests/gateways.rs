//! Several gateways with one Redis.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_never_delete_each_others_entries() {
    let redis = TempRedis::start();
    let one = Gateway::start_up(&config(&redis)).await;
    let two = Gateway::start_up(&config(&redis)).await;
    let first = one.connect("a").await;
    eventually("it is there", || {
        redis.hget("fastsock:clients", "a").is_some()
    })
    .await;
    let second = two.connect("a").await;
    eventually("the first gateway is told", || {
        *one.seats.replaced.lock() == [("a".to_owned(), first)]
    })
    .await;
    one.see("a", unix_ms(SystemTime::now()) + 5); // still said something
    one.leave("a", first);
    let owner = || redis.hget("fastsock:owner", "a");
    eventually("the first has let go", || sets(&redis).len() == 1).await;
    assert!(redis.hget("fastsock:clients", "a").is_some());
    assert!(owner().is_some_and(|o| o.starts_with(&*two.broker.shared.node)));
    two.leave("a", second);
    eventually("nobody has it", || {
        redis.hlen("fastsock:clients") == 0 && owner().is_none()
    })
    .await;
    assert!(two.seats.replaced.lock().is_empty());

    // What someone else wrote into the hash is not ours to remove.
    let third = one.connect("b").await;
    eventually("it is there", || {
        redis.hget("fastsock:clients", "b").is_some()
    })
    .await;
    redis.run(&["HSET", "fastsock:clients", "b", "1"]);
    one.leave("b", third);
    eventually("the seat is given up", || {
        redis.hget("fastsock:owner", "b").is_none()
    })
    .await;
    one.connect("c").await;
    eventually("a later batch", || {
        redis.hget("fastsock:clients", "c").is_some()
    })
    .await;
    assert_eq!(redis.hget("fastsock:clients", "b").as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_wanders_between_gateways_leaves_no_ghost() {
    let redis = TempRedis::start();
    let gateways = [
        Gateway::start_up(&exact(&redis)).await,
        Gateway::start_up(&exact(&redis)).await,
    ];
    let mut last = [None, None];
    for n in 0..100 {
        let at = n % 2;
        last[at] = Some(gateways[at].connect("a").await);
        gateways[at].see("a", unix_ms(SystemTime::now()));
        let old = 1 - at;
        if let Some(session_id) = last[old].take() {
            gateways[old].see("a", unix_ms(SystemTime::now()));
            gateways[old].leave("a", session_id);
        }
    }
    eventually("it is there", || {
        redis.hget("fastsock:clients", "a").is_some()
    })
    .await;
    for (gateway, session_id) in gateways.iter().zip(last) {
        if let Some(session_id) = session_id {
            gateway.leave("a", session_id);
        }
        assert_eq!(gateway.stop().await, 0);
    }
    assert_eq!(redis.strings(&["KEYS", "*"]), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_hash_ends_as_the_seats_are() {
    let redis = TempRedis::start();
    let gateways = [
        Gateway::start_up(&exact(&redis)).await,
        Gateway::start_up(&config(&redis)).await,
    ];
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut newest = HashMap::new(); // id -> where it connected last
    let heed = |newest: &HashMap<String, usize>| {
        for (at, gateway) in gateways.iter().enumerate() {
            for (id, session_id) in std::mem::take(&mut *gateway.seats.replaced.lock()) {
                let seated = gateway.seats.seated.lock().get(&id).map(|s| s.session_id);
                if seated == Some(session_id) {
                    assert_ne!(
                        newest.get(&id),
                        Some(&at),
                        "{id} was closed though it is the newest"
                    );
                    gateway.leave(&id, session_id);
                }
            }
        }
    };
    for _ in 0..1500 {
        let id = format!("d{}", random.u8(..30));
        let at = random.usize(..2);
        match random.u8(..100) {
            0..55 => {
                if newest.insert(id.clone(), at) == Some(1 - at) {
                    // No device connects twice within the error of two clocks.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                gateways[at].connect(&id).await;
            }
            55..75 => {
                let seated = gateways[at].seats.seated.lock().get(&id).cloned();
                if let Some(seated) = seated {
                    gateways[at].leave(&id, seated.session_id);
                }
            }
            75..97 => gateways[at].see(&id, unix_ms(SystemTime::now())),
            97 => drop(redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])),
            98 => drop(redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"])),
            _ => tokio::time::sleep(Duration::from_millis(random.u64(..200))).await, // any tempo will do
        }
        heed(&newest);
    }
    let seated = || {
        let seats = gateways.iter().flat_map(|g| g.seats.everyone());
        let mut ids: Vec<_> = seats.map(|s| s.client_id.to_string()).collect();
        ids.sort();
        ids
    };
    within(Duration::from_secs(15), "the hash is as the seats", || {
        heed(&newest);
        let (mut clients, mut owned) = (
            redis.strings(&["HKEYS", "fastsock:clients"]),
            redis.strings(&["HKEYS", "fastsock:owner"]),
        );
        clients.sort();
        owned.sort();
        clients == seated() && owned == clients
    })
    .await;
    for gateway in &gateways {
        for seat in gateway.seats.everyone() {
            gateway.leave(seat.client_id.as_str(), seat.session_id);
        }
        assert_eq!(gateway.stop().await, 0);
    }
    assert_eq!(redis.strings(&["KEYS", "*"]), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_is_abandoned_gives_its_claim_back() {
    let redis = TempRedis::start();
    let one = Gateway::start_up(&config(&redis)).await;
    let id = ClientId::new("a").unwrap();
    for wait in [true, false] {
        let seated = one.broker.seated(&id, SessionId(1), false);
        if wait {
            let claimed = seated.await; // its 101 could not be written
            assert!(matches!(claimed, Claimed::Won(epoch) if epoch > 1 << 40));
        } else {
            drop(seated);
        }
        one.broker.unseated(&id, SessionId(1));
        eventually("nothing is left", || {
            let mut keys = redis.strings(&["KEYS", "*"]);
            keys.sort();
            keys == ["fastsock:node:cards", "fastsock:nodes"]
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_handshakes_is_few_commands() {
    let redis = TempRedis::start();
    let one = Gateway::start_up(&exact(&redis)).await;
    let evals = || {
        let stats = redis.strings(&["INFO", "commandstats"]).concat();
        let (_, calls) = stats.split_once("cmdstat_eval:calls=").unwrap();
        calls.split(',').next().unwrap().parse::<u64>().unwrap()
    };
    let before = evals();
    let ids: Vec<_> = (0..2000)
        .map(|n| ClientId::new(n.to_string()).unwrap())
        .collect();
    let seated = ids
        .iter()
        .enumerate()
        .map(|(n, id)| one.broker.seated(id, SessionId(n as u64 + 1), false));
    for claimed in futures_util::future::join_all(seated).await {
        assert!(matches!(claimed, Claimed::Won(epoch) if epoch > 1 << 40));
    }
    let claims = evals() - before;
    assert!(claims < 15, "{claims} scripts for 2000 handshakes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_returning_gateway_stands_back_behind_a_newer_seat() {
    let redis = TempRedis::start();
    let old = Gateway::start_up(&config(&redis)).await;
    let new = Gateway::start_up(&config(&redis)).await;
    let session_id = old.connect("a").await;
    eventually("it is there", || {
        redis.hget("fastsock:owner", "a").is_some()
    })
    .await;
    new.connect("a").await;
    eventually("it is told", || old.seats.replaced.lock().len() == 1).await;
    // Its session is still there when it restores everything.
    redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    eventually("it is told again", || {
        old.seats.replaced.lock().get(1) == Some(&("a".to_owned(), session_id))
    })
    .await;
    let owner = redis.hget("fastsock:owner", "a").unwrap();
    assert!(owner.starts_with(&*new.broker.shared.node), "{owner}");
    assert!(new.seats.replaced.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_devices_of_a_dead_gateway_are_removed_by_a_restarted_one() {
    let redis = TempRedis::start();
    let dead = Gateway::start_up(&config(&redis)).await;
    for n in 0..1500 {
        dead.connect(&format!("d{n}")).await;
    }
    eventually("all are there", || redis.hlen("fastsock:clients") == 1500).await;
    dead.kill().await;
    let started = Instant::now();
    let next = Gateway::start_up(&config(&redis)).await;
    next.connect("d0").await; // it came back before the lease ended
    within(Duration::from_secs(5), "the ghosts go", || {
        redis.hlen("fastsock:clients") == 1
    })
    .await;
    assert!(
        started.elapsed() > Duration::from_secs(2),
        "not before the lease was watched"
    );
    assert!(redis.hget("fastsock:clients", "d0").is_some());
    eventually("its keys go", || {
        sets(&redis).len() == 1
            && redis
                .strings(&["ZRANGE", "fastsock:nodes", "0", "-1"])
                .len()
                == 1
    })
    .await;
    assert_eq!(redis.hlen("fastsock:owner"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_taken_for_dead_writes_everything_again() {
    let redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    gateway.connect("a").await;
    eventually("it is there", || redis.hlen("fastsock:clients") == 1).await;
    for key in ["fastsock:nodes", "fastsock:clients", "fastsock:owner"] {
        redis.run(&["DEL", key]);
    }
    within(Duration::from_secs(3), "it is back", || {
        redis.hlen("fastsock:clients") == 1
    })
    .await;
}
