//! Redis is restarted, frozen, demoted, forbids things, or is another.

#[cfg(feature = "tls")]
use fastsock_servers::Authority;
use fastsock_servers::TempSentinel;

use super::*;

/// How long the fastest of some takes: what a device has to wait for holds up every one of them, what the machine is busy with does not.
async fn fastest_connect(gateway: &Gateway, ids: [&str; 3]) -> Duration {
    let mut fastest = Duration::MAX;
    for id in ids {
        let start = Instant::now();
        gateway.connect(id).await;
        fastest = fastest.min(start.elapsed());
    }
    fastest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_redis_gets_everything_back() {
    for mode in [Subscribe::Pattern, Subscribe::Exact] {
        let mut redis = TempRedis::start();
        let gateway = Gateway::start_up(&config(&redis).redis_subscribe(mode)).await;
        for n in 0..1200 {
            gateway.connect(&format!("d{n}")).await;
        }
        gateway.see("d0", 4242);
        eventually("all are there", || redis.hlen("fastsock:clients") == 1200).await;
        redis.kill();
        eventually("it is noticed", || gateway.broker.link() == Link::Down).await;
        let fastest = fastest_connect(&gateway, ["late", "later", "latest"]).await;
        assert!(
            fastest < Duration::from_millis(500),
            "a device does not wait: {fastest:?}"
        );
        let error = gateway
            .broker
            .publish(ClientId::new("x").unwrap(), "x".into())
            .await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Broker);
        assert!(std::error::Error::source(&error).is_some(), "{error:?}");
        tokio::time::sleep(Duration::from_secs(2)).await; // how long it is away

        redis.start_again();
        within(Duration::from_secs(2), "all are back", || {
            redis.hlen("fastsock:clients") == 1203
        })
        .await;
        assert_eq!(
            redis.hget("fastsock:clients", "d0").as_deref(),
            Some("4242")
        );
        redis.publish("fastsock:client:d7", "x");
        redis.publish("fastsock:client:late", "x");
        eventually("messages arrive", || {
            (gateway.got("d7"), gateway.got("late")) == (1, 1)
        })
        .await;
        gateway.is_up().await;
        assert_eq!(gateway.running.broker_links_lost.load(), 2);
        assert_eq!(gateway.running.broker_gaps.load(), 1);
        let changes = gateway.seats.changes.lock().clone();
        let [
            LinkChange::Up,
            LinkChange::Down,
            LinkChange::Gap { from, to },
            LinkChange::Up,
        ] = changes[..]
        else {
            panic!("{changes:?}");
        };
        let lasted = to.duration_since(from).unwrap();
        assert!(
            lasted > Duration::from_secs(2) && lasted < Duration::from_secs(10),
            "{lasted:?}"
        );
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_clients_come_back() {
    let redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    gateway.connect("a").await;
    for _ in 0..3 {
        let lost = gateway.running.broker_links_lost.load();
        redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        eventually("both are lost", || {
            gateway.running.broker_links_lost.load() == lost + 2
        })
        .await;
        within(Duration::from_secs(2), "both are back", || {
            gateway.broker.link() == Link::Up
        })
        .await;
    }
    redis.publish("fastsock:client:a", "x");
    eventually("it arrives", || gateway.got("a") == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_is_noticed_holds_nobody_up_and_reaps_nobody() {
    let redis = TempRedis::start();
    let one = Gateway::start_up(&exact(&redis)).await;
    let two = Gateway::start_up(&exact(&redis)).await;
    one.connect("a").await;
    two.connect("b").await;
    eventually("both are there", || redis.hlen("fastsock:clients") == 2).await;
    redis.freeze();
    let frozen = Instant::now();
    one.connect("c").await;
    let fastest = fastest_connect(&one, ["d", "e", "f"]).await;
    assert!(
        fastest < Duration::from_millis(700),
        "one that waits in vain is enough: {fastest:?}"
    );
    within(Duration::from_secs(5), "it is noticed", || {
        one.broker.link() == Link::Down
    })
    .await;
    within(Duration::from_secs(10), "the sub link too", || {
        one.running.broker_links_lost.load() == 2
    })
    .await;
    tokio::time::sleep_until(frozen + Duration::from_secs(10)).await;
    redis.thaw();
    for gateway in [&one, &two] {
        within(Duration::from_secs(2), "up again", || {
            gateway.broker.link() == Link::Up
        })
        .await;
    }
    eventually("all six", || redis.hlen("fastsock:clients") == 6).await;
    // Longer than a lease: had anyone been taken for dead, it would show now.
    for _ in 0..45 {
        assert_eq!(redis.hlen("fastsock:clients"), 6);
        tokio::time::sleep(Duration::from_millis(100)).await; // how often it looks
    }
    redis.publish("fastsock:client:a", "x");
    redis.publish("fastsock:client:d", "x");
    redis.publish("fastsock:client:b", "x");
    eventually("they arrive", || {
        (one.got("a"), one.got("d"), two.got("b")) == (1, 1, 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_becomes_a_replica_is_left_until_it_is_master_again() {
    let (master, redis) = (TempRedis::start(), TempRedis::start());
    let gateway = Gateway::start_up(&config(&redis)).await;
    gateway.connect("a").await;
    redis.run(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    within(Duration::from_secs(4), "it is left", || {
        gateway.broker.link() == Link::Down
    })
    .await;
    redis.run(&["REPLICAOF", "NO", "ONE"]);
    within(Duration::from_secs(4), "it is back", || {
        gateway.broker.link() == Link::Up
    })
    .await;
    eventually("so is presence", || {
        redis.hget("fastsock:clients", "a").is_some()
    })
    .await;
}

#[tokio::test]
async fn a_redis_without_rights_is_tried_rarely_and_logged_once() {
    let redis = TempRedis::start_with_password("right");
    let log = Log::capture();
    let url = |password: &str| {
        let url = format!("redis://:{password}@127.0.0.1:{}/0", redis.port);
        Config::default().redis_url(Some(Secret::new(url)))
    };
    let gateway = Gateway::start(&url("wrong"));
    let denials = || redis.errors("WRONGPASS");
    eventually("each link was refused", || denials() >= 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await; // in which nobody tries again
    assert_eq!(denials(), 2, "the next try is after five seconds");
    within(Duration::from_secs(5), "they try again", || denials() >= 4).await;
    assert_eq!(gateway.seats.changes.lock()[..], [LinkChange::Down]);
    gateway.stop().await;
    let mine =
        |line: &&String| line.contains("WRONGPASS") && line.contains(&redis.port.to_string());
    let lines: Vec<_> = log.lines().into_iter().filter(|line| mine(&line)).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains("wrong@")));

    let gateway = Gateway::start_up(&url("right")).await;
    assert_eq!(gateway.stop().await, 0);
}

#[tokio::test]
async fn a_redis_too_old_is_named_as_such() {
    // No such Redis is at hand, but what it answers is known.
    let old = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = old.local_addr().unwrap().port();
    let log = Log::capture();
    let gateway = Gateway::start(&Config::default().redis_port(port));
    let answering = async {
        loop {
            let (mut stream, _) = old.accept().await.unwrap();
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            let answer = b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n";
            stream.write_all(&answer.repeat(3)).await.unwrap();
        }
    };
    let mine = |line: &String| line.contains("before 6.0") && line.contains(&port.to_string());
    tokio::select! {
        () = answering => {}
        () = eventually("both links say so", || log.lines().iter().filter(|l| mine(l)).count() == 2) => {}
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_forbidden_is_an_error_of_the_link() {
    let redis = TempRedis::start();
    redis.run(&[
        "ACL",
        "SETUSER",
        "u",
        "on",
        ">p",
        "~*",
        "+@all",
        "resetchannels",
    ]);
    let url = format!("redis://u:p@127.0.0.1:{}", redis.port);
    let gateway = Gateway::start(&Config::default().redis_url(Some(Secret::new(url))));
    eventually("the cmd link is up", || {
        gateway.broker.shared.cmd.lock().is_some()
    })
    .await;
    eventually("it is told", || {
        gateway.seats.changes.lock()[..] == [LinkChange::Down]
    })
    .await;
    assert_eq!(gateway.broker.link(), Link::Down);
    // It still does what it may.
    gateway.connect("a").await;
    eventually("presence is written", || {
        redis.hlen("fastsock:clients") == 1
    })
    .await;
}

#[tokio::test]
async fn an_optional_redis_is_used_from_the_moment_it_answers() {
    let mut redis = TempRedis::start();
    redis.kill();
    let log = Log::capture();
    let gateway = Gateway::start_as(&exact(&redis), true);
    let session_id = gateway.connect("early").await;
    tokio::time::sleep(Duration::from_secs(2)).await; // in which nothing is to happen
    assert_eq!(
        (gateway.broker.name(), gateway.broker.link()),
        ("embedded", Link::Alone)
    );
    let sent = gateway
        .broker
        .publish(ClientId::new("x").unwrap(), "x".into())
        .await;
    assert_eq!(sent.unwrap(), Sent::Offline);
    assert!(gateway.seats.changes.lock().is_empty());
    redis.start_again();
    within(Duration::from_secs(3), "it is used", || {
        gateway.broker.link() == Link::Up
    })
    .await;
    assert_eq!(gateway.broker.name(), "redis");
    eventually("who was there before is in the hash", || {
        redis.hget("fastsock:clients", "early").is_some()
    })
    .await;
    redis.publish("fastsock:client:early", "x");
    eventually("and is heard", || gateway.got("early") == 1).await;
    redis.kill();
    eventually("from now on it is missed", || {
        gateway.broker.link() == Link::Down
    })
    .await;
    gateway.leave("early", session_id);
    let start = Instant::now();
    assert_eq!(gateway.stop().await, 1, "its field could not be removed");
    assert!(start.elapsed() < Duration::from_secs(8));
    let warnings = log.lines();
    let warnings = warnings.iter().filter(|l| l.contains("embedded broker"));
    assert_eq!(
        warnings
            .filter(|l| l.contains(&redis.port.to_string()))
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_tries_once_more_to_write_what_is_left() {
    let mut redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    let session_id = gateway.connect("a").await;
    eventually("it is there", || redis.hlen("fastsock:clients") == 1).await;
    redis.kill();
    eventually("it is noticed", || gateway.broker.link() == Link::Down).await;
    gateway.leave("a", session_id);
    redis.start_again();
    redis.run(&["HSET", "fastsock:clients", "b", "1"]);
    assert_eq!(gateway.stop().await, 0);
    assert_eq!(redis.strings(&["KEYS", "*"]), ["fastsock:clients"]);
    assert_eq!(redis.hlen("fastsock:clients"), 1, "what is of others stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_ends_in_time_with_a_frozen_redis() {
    let redis = TempRedis::start();
    let gateway = Gateway::start_up(&config(&redis)).await;
    let session_id = gateway.connect("a").await;
    eventually("it is there", || redis.hlen("fastsock:clients") == 1).await;
    redis.freeze();
    gateway.leave("a", session_id);
    let start = Instant::now();
    let left = gateway.broker.stop(start + Duration::from_secs(1)).await;
    assert_eq!(left, 1);
    assert!(start.elapsed() < Duration::from_secs(5));
    gateway.tasks.wait().await;
    redis.thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_new_master() {
    let one = TempRedis::start();
    let two = TempRedis::start_with(&["--replicaof", "127.0.0.1", &one.port.to_string()]);
    let sentinel = TempSentinel::watch(one.server()).await;
    let url = format!(
        "redis+sentinel://127.0.0.1:1,127.0.0.1:{}/{}/0",
        sentinel.port(),
        TempSentinel::SERVICE
    );
    let config = Config::default().redis_url(Some(Secret::new(url)));
    let gateway = Gateway::start_up(&config).await;
    gateway.connect("a").await;
    eventually("it is there", || one.hlen("fastsock:clients") == 1).await;
    sentinel.wait_replicas(1).await;
    eventually("the replica follows", || two.hlen("fastsock:clients") == 1).await;
    drop(one);
    within(Duration::from_secs(40), "the other is master", || {
        two.strings(&["INFO", "replication"])
            .concat()
            .contains("role:master")
    })
    .await;
    within(Duration::from_secs(10), "the links follow", || {
        gateway.broker.link() == Link::Up
    })
    .await;
    two.publish("fastsock:client:a", "x");
    eventually("it arrives", || gateway.got("a") == 1).await;
    eventually("presence is there", || {
        two.hget("fastsock:clients", "a").is_some()
    })
    .await;
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rediss_trusts_the_certificate_it_is_given_and_no_other() {
    let authority = Authority::new();
    let redis = TempRedis::start_with_tls(&authority);
    let url = redis.server().tls_url();
    let config = Config::default().redis_url(Some(Secret::new(url)));
    let stranger = Gateway::start(&config);
    let trusted = config.redis_ca(Some(authority.ca_path()));
    let gateway = Gateway::start_up(&trusted).await;
    gateway.connect("a").await;
    redis.publish("fastsock:client:a", "x");
    eventually("it arrives", || gateway.got("a") == 1).await;
    assert_eq!(stranger.broker.link(), Link::Down);
}

/// What is logged while it lives, on this thread: for tests whose runtime has no other.
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl Log {
    fn capture() -> Self {
        use tracing_subscriber::layer::SubscriberExt;
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let all = tracing_subscriber::registry().with(Lines(Arc::clone(&lines)));
        Self {
            lines,
            _guard: tracing::subscriber::set_default(all),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }
}

struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct Line(String);
        impl tracing::field::Visit for Line {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{field}={value:?} ");
            }
        }
        if event.metadata().target().starts_with("fastsock") {
            let mut line = Line(format!("{} ", event.metadata().level()));
            event.record(&mut line);
            self.0.lock().push(line.0);
        }
    }
}
