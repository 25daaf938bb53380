//! Lifecycle events: who is told of, in which order, and what becomes of an event whose backend is away.

use std::time::Duration;

use fastsock::{Bridge, ClientId, CloseReason, Config, Headers, Secret};
use serde_json::Value;
use support::{
    Backend, DEADLINE, Device, Line, RawDevice, Received, Reply, TempRedis, eventually, start,
};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_is_told_in_order_with_how_it_ended() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend)).await;
    let addr = bridge.local_addr();
    let device = Device::connect(addr, "dev").await;
    let remote_addr = device.local_addr().to_string();
    device.close(4000).await;
    wait(&backend, "dev", 2).await;
    let mut kicked = Device::connect(addr, "dev").await;
    assert!(bridge.disconnect(&id("dev"), CloseReason::Kicked));
    kicked.closed().await;
    wait(&backend, "dev", 4).await;
    let custom = CloseReason::Custom(4242, "tidying".into());
    let mut custom_closed = Device::connect(addr, "dev").await;
    assert!(bridge.disconnect(&id("dev"), custom));
    custom_closed.closed().await;
    wait(&backend, "dev", 6).await;
    RawDevice::seated(addr, "dev").await.reset();

    let events = wait(&backend, "dev", 8).await;
    let told: Vec<_> = events
        .iter()
        .map(|e| (text(e, "type"), text(e, "cause"), e["code"].as_u64()))
        .collect();
    let connect = ("connect", "", None);
    assert_eq!(
        told,
        [
            connect,
            ("disconnect", "closed_by_device", Some(4000)),
            connect,
            ("disconnect", "kicked", Some(4510)),
            connect,
            ("disconnect", "custom", Some(4242)),
            connect,
            ("disconnect", "connection_lost", None),
        ]
    );
    assert_eq!(events[0]["remote_addr"], remote_addr);
    assert_eq!(events[1]["remote_addr"], remote_addr);
    for pair in events.chunks(2) {
        for field in ["session_id", "epoch", "node", "remote_addr"] {
            assert_eq!(pair[0][field], pair[1][field], "{field}");
            assert!(!pair[0][field].is_null(), "{field}");
        }
        assert_eq!(pair[1]["sessions"], 1);
        let (came, left) = (number(&pair[0], "time"), number(&pair[1], "time"));
        assert!(left + 1 >= came + number(&pair[1], "duration_ms"));
    }
    assert!(events.iter().is_sorted_by_key(|e| number(e, "seq")));
    assert!(events.iter().is_sorted_by_key(|e| number(e, "epoch")));
    let requests = backend.requests();
    assert_eq!(requests.len(), 8, "each once");
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    let keys: std::collections::HashSet<_> = requests
        .iter()
        .map(|r| r.header("idempotency-key").unwrap())
        .collect();
    assert_eq!(keys.len(), 8);
    end(bridge, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_is_no_news_and_its_last_session_ends_it() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend)).await;
    let addr = bridge.local_addr();
    let mut old = Device::connect(addr, "dev").await;
    let mut newer = Device::connect(addr, "dev").await;
    assert_eq!(old.closed().await.code, Some(4509));
    let newest = Device::connect(addr, "dev").await;
    assert_eq!(newer.closed().await.code, Some(4509));
    let remote_addr = newest.local_addr().to_string();
    newest.close(1000).await;
    let events = wait(&backend, "dev", 2).await;
    assert_eq!(types(&events), ["connect", "disconnect"]);
    assert_eq!(text(&events[1], "cause"), "closed_by_device");
    assert_eq!(events[1]["sessions"], 3);
    assert_eq!(events[1]["remote_addr"], remote_addr);
    assert!(number(&events[0], "session_id") < number(&events[1], "session_id"));
    end(bridge, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_back_within_the_grace_was_never_away() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend).events_grace(Duration::from_secs(60))).await;
    let addr = bridge.local_addr();
    for session in 0..5 {
        let device = Device::connect(addr, "flapping").await;
        device.close(1000).await;
        eventually("the session has left", async || {
            bridge.stats().sessions.closed.values().sum::<u64>() == session + 1
        })
        .await;
    }
    let _here = Device::connect(addr, "flapping").await;
    let events = wait(&backend, "flapping", 1).await;
    assert_eq!(types(&events), ["connect"]);
    // Who is away when the bridge stops is told of then.
    Device::connect(addr, "gone").await.close(1000).await;
    eventually("it has left", async || bridge.clients().len() == 1).await;
    end(bridge, 4).await;
    let gone = events_of(&backend, "gone");
    assert_eq!(types(&gone), ["connect", "disconnect"]);
    assert_eq!(text(&gone[1], "cause"), "closed_by_device");
    let flapping = events_of(&backend, "flapping");
    assert_eq!(types(&flapping), ["connect", "disconnect"]);
    assert_eq!(text(&flapping[1], "cause"), "shutdown");
    assert_eq!(flapping[1]["sessions"], 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_back_within_the_grace_has_left_when_it_left() {
    let backend = Backend::start().await;
    let grace = Duration::from_millis(500);
    let bridge = start(config(&backend).events_grace(grace)).await;
    let device = Device::connect(bridge.local_addr(), "dev").await;
    let closing = Instant::now();
    device.close(1000).await;
    let events = wait(&backend, "dev", 2).await;
    assert_eq!(types(&events), ["connect", "disconnect"]);
    let told = backend.requests()[1].at;
    assert!(told >= closing + grace, "{:?}", told - closing);
    end(bridge, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_away_for_a_while_hears_everything_in_order() {
    let backend = Backend::start().await;
    backend.go_down().await;
    let bridge = start(config(&backend)).await;
    let addr = bridge.local_addr();
    for _ in 0..3 {
        for name in ["a", "b", "c"] {
            Device::connect(addr, name).await.close(1000).await;
        }
    }
    eventually("it was tried", async || {
        let books = bridge.stats().lifecycle;
        books.made == 18 && books.posts_failed >= 3
    })
    .await;
    let uplinks = bridge.stats().counters;
    assert_eq!((uplinks.posts, uplinks.breaker_opened), (0, 0));
    backend.queue([Reply::new(503), Reply::new(500), Reply::close()]);
    backend.come_back();
    for name in ["a", "b", "c"] {
        let events = wait(&backend, name, 6).await;
        let pairs = ["connect", "disconnect"].repeat(3);
        assert_eq!(types(&events), pairs, "{name}");
        assert!(events.iter().is_sorted_by_key(|e| number(e, "seq")));
    }
    assert_same_keys(&backend);
    end(bridge, 18).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_backend_does_not_hear_is_bounded_and_counted() {
    let backend = Backend::start().await;
    backend.go_down().await;
    let bridge = start(config(&backend).events_total_bytes(4096usize)).await;
    for n in 0..40 {
        let name = format!("dev{n}");
        Device::connect(bridge.local_addr(), &name).await;
    }
    eventually("all have left", async || {
        bridge.stats().lifecycle.made == 80
    })
    .await;
    let books = bridge.stats().lifecycle;
    assert_eq!(
        books.made,
        books.delivered + books.held + books.lost.total()
    );
    assert!(books.held_bytes < 4096 + 1024, "{books:?}");
    assert!(books.lost.full > 40 && books.held > 4, "{books:?}");
    let left = bridge.stop(Duration::from_millis(100)).await;
    let books = bridge.stats().lifecycle;
    assert_eq!((left.events, books.held), (books.lost.shutdown, 0));
    assert_eq!(books.made, books.lost.total());
    assert_eq!(bridge.stats().uplink.lost.total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_tells_of_everyone_who_is_still_there() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::ok().after(Duration::from_millis(50)));
    let bridge = start(config(&backend).events_grace(Duration::from_secs(60))).await;
    let mut devices = Vec::new();
    for n in 0..20 {
        devices.push(Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
    }
    drop(devices.split_off(15));
    end(bridge, 40).await;
    for n in 0..20 {
        let events = events_of(&backend, &format!("dev{n}"));
        assert_eq!(types(&events), ["connect", "disconnect"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_have_headers_of_their_own_and_uplinks_go_their_way() {
    let (events, uplinks) = (Backend::start().await, Backend::start().await);
    let headers = |name: &str| Headers(vec![(name.into(), Some("yes".into()))]);
    let config = config(&events)
        .events_headers(headers("x-events"))
        .remote_url(Some(uplinks.url()))
        .remote_headers(headers("x-uplinks"))
        .remote_cloudevents(true)
        .remote_secret(Some(Secret::new(SECRET)));
    let bridge = start(config).await;
    let mut device = Device::connect(bridge.local_addr(), "dev").await;
    device.send("hello").await;
    assert_eq!(uplinks.wait_delivered("dev", 1).await, ["hello"]);
    device.close(1000).await;
    wait(&events, "dev", 2).await;
    for (backend, own, other) in [
        (&events, "x-events", "x-uplinks"),
        (&uplinks, "x-uplinks", "x-events"),
    ] {
        for request in backend.requests() {
            assert_eq!(request.header(own), Some("yes"));
            assert_eq!(request.header(other), None);
            let is_signed = request.header("webhook-signature").is_some();
            assert!(is_signed, "by the same secret");
            let is_cloudevent = request.header("ce-type").is_some();
            assert_eq!(is_cloudevent, own == "x-uplinks");
        }
    }
    assert_eq!(uplinks.count(), 1);
    let stats = bridge.stats();
    assert_eq!((stats.uplink.received, stats.lifecycle.made), (1, 2));
    end(bridge, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_told_once_redis_is_back() {
    let backend = Backend::start().await;
    let mut redis = TempRedis::new().await;
    let bridge = start(with_redis(config(&backend), &redis)).await;
    eventually("the link is up", async || {
        bridge.broker() == "redis" && bridge.state().as_str() == "running"
    })
    .await;
    redis.wait_subscribed("fastsock:client:*", 1).await;
    redis.stop().await;
    eventually("the link is down", async || {
        bridge.state().as_str() == "degraded"
    })
    .await;
    redis.start().await;
    let all = backend
        .wait_until("a gap", |all| {
            all.iter().any(|r| text(&r.json(), "type") == "gap")
        })
        .await;
    let gap = all[0].json();
    let (from, to) = (number(&gap, "from"), number(&gap, "to"));
    assert!(from < to && number(&gap, "time") == to, "{gap}");
    assert!(
        gap["client_id"].is_null() && gap["node"].is_string(),
        "{gap}"
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gateways_the_higher_epoch_tells_where_a_device_is() {
    let backend = Backend::start().await;
    let redis = TempRedis::new().await;
    let grace = Duration::from_millis(500);
    let configured = || with_redis(config(&backend), &redis).events_grace(grace);
    let (one, two) = (start(configured()).await, start(configured()).await);
    let _ready = linked(&redis, [&one, &two]).await;
    let mut here = Device::connect(one.local_addr(), "dev").await;
    redis.wait_field("fastsock:owner", "dev").await;
    let first = number(&wait(&backend, "dev", 1).await[0], "epoch");
    let others = until_later(&two, &backend, first).await;
    let there = Device::connect(two.local_addr(), "dev").await;
    assert_eq!(here.closed().await.code, Some(4509));
    let events = wait(&backend, "dev", 3).await;
    let last = |events: &[Value]| {
        let last = events
            .iter()
            .max_by_key(|e| (number(e, "epoch"), number(e, "seq")));
        last.unwrap().clone()
    };
    assert_eq!(text(&last(&events), "type"), "connect", "{events:?}");
    let replaced = events.iter().find(|e| text(e, "type") == "disconnect");
    let replaced = replaced.expect("the first gateway tells of its own");
    assert_eq!(text(replaced, "cause"), "replaced");
    assert_ne!(replaced["node"], last(&events)["node"]);
    there.close(1000).await;
    let events = wait(&backend, "dev", 4).await;
    assert_eq!(text(&last(&events), "type"), "disconnect", "{events:?}");
    end(one, 4).await;
    end(two, 4 + 2 * others.len() as u64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_at_another_gateway_within_the_grace_is_told_to_be_back() {
    let backend = Backend::start().await;
    let redis = TempRedis::new().await;
    let configured = || with_redis(config(&backend), &redis).events_grace(DEADLINE * 6);
    let (one, two) = (start(configured()).await, start(configured()).await);
    let _ready = linked(&redis, [&one, &two]).await;
    Device::connect(one.local_addr(), "dev")
        .await
        .close(1000)
        .await;
    eventually("it has left", async || {
        one.clients().iter().all(|c| c.client_id.as_str() != "dev")
    })
    .await;
    wait(&backend, "dev", 1).await;
    let mut there = Device::connect(two.local_addr(), "dev").await;
    wait(&backend, "dev", 2).await;
    let _back = Device::connect(one.local_addr(), "dev").await;
    assert_eq!(there.closed().await.code, Some(4509));
    let events = wait(&backend, "dev", 4).await;
    let last = events.iter().max_by_key(|e| number(e, "epoch")).unwrap();
    assert_eq!(text(last, "type"), "connect", "{events:?}");
    assert_eq!(last["node"], events[0]["node"], "{events:?}");
    let (one, two) = tokio::join!(one.stop(DEADLINE), two.stop(DEADLINE));
    assert!(one.is_empty() && two.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_at_another_gateway_while_this_one_had_no_redis_is_told_to_be_back() {
    let backend = Backend::start().await;
    let redis = TempRedis::new().await;
    let line = Line::start(([127, 0, 0, 1], redis.port()).into()).await;
    let two = start(with_redis(config(&backend), &redis)).await;
    let _other = ready(&redis, &two, "other").await; // so that the next one knows that it is not alone
    let far = with_redis(config(&backend), &redis).redis_port(line.addr().port());
    let one = start(far).await;
    let _ready = ready(&redis, &one, "ready").await;
    let _here = Device::connect(one.local_addr(), "dev").await;
    redis.wait_field("fastsock:owner", "dev").await;
    wait(&backend, "dev", 1).await; // by then it knows what Redis has answered
    line.cut();
    let there = Device::connect(two.local_addr(), "dev").await;
    wait(&backend, "dev", 2).await;
    there.close(1000).await;
    wait(&backend, "dev", 3).await;
    let _back = Device::connect(one.local_addr(), "dev").await;
    let events = wait(&backend, "dev", 4).await;
    assert_eq!(last_is_of(&events), ("connect", &events[0]["node"]));
    line.mend();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_at_another_gateway_is_told_to_be_back_though_redis_forgot_it() {
    let backend = Backend::start().await;
    let redis = TempRedis::new().await;
    let configured = || with_redis(config(&backend), &redis).events_grace(DEADLINE * 6);
    let (one, two) = (start(configured()).await, start(configured()).await);
    let _ready = linked(&redis, [&one, &two]).await;
    Device::connect(one.local_addr(), "dev")
        .await
        .close(1000)
        .await;
    redis.wait_no_field("fastsock:owner", "dev").await;
    wait(&backend, "dev", 1).await;
    let mut there = Device::connect(two.local_addr(), "dev").await;
    wait(&backend, "dev", 2).await;
    // As a failover to a replica that had not heard of it.
    redis.cmd::<()>(&["HDEL", "fastsock:owner", "dev"]).await;
    let _back = Device::connect(one.local_addr(), "dev").await;
    redis.wait_field("fastsock:owner", "dev").await;
    redis.kill_clients("normal").await;
    assert_eq!(there.closed().await.code, Some(4509));
    let events = wait(&backend, "dev", 4).await;
    assert_eq!(last_is_of(&events), ("connect", &events[0]["node"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_here_is_told_so_when_another_gateway_found_redis_emptied() {
    let backend = Backend::start().await;
    let redis = TempRedis::new().await;
    let line = Line::start(([127, 0, 0, 1], redis.port()).into()).await;
    let configured = |grace| with_redis(config(&backend), &redis).events_grace(grace);
    let two = start(configured(Duration::from_secs(1))).await;
    let one = configured(DEADLINE * 6).redis_port(line.addr().port());
    let one = start(one).await;
    let _ready = linked(&redis, [&one, &two]).await;
    visit(&one, &redis).await;
    wait(&backend, "dev", 1).await;
    visit(&two, &redis).await;
    // Back within the grace of the first. Then the second asks a Redis that knows nobody.
    let _back = Device::connect(one.local_addr(), "dev").await;
    redis.wait_field("fastsock:owner", "dev").await;
    line.cut();
    redis.cmd::<()>(&["FLUSHALL"]).await;
    let events = wait(&backend, "dev", 4).await;
    assert!(types(&events).contains(&"disconnect"), "{events:?}");
    assert_eq!(last_is_of(&events), ("connect", &events[0]["node"]));
    line.mend();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_at_a_gateway_that_died_is_told_to_be_back_where_it_was_before() {
    let backend = Backend::start().await;
    let redis = TempRedis::new().await;
    let configured = || with_redis(config(&backend), &redis).events_grace(DEADLINE * 6);
    let (one, two) = (start(configured()).await, start(configured()).await);
    let _ready = linked(&redis, [&one, &two]).await;
    visit(&one, &redis).await;
    wait(&backend, "dev", 1).await;
    visit(&two, &redis).await;
    // Nothing in Redis says any more that it was at the second one, which goes at once and tells that it left.
    two.stop(DEADLINE).await;
    let _back = Device::connect(one.local_addr(), "dev").await;
    let events = wait(&backend, "dev", 4).await;
    assert_eq!(last_is_of(&events), ("connect", &events[0]["node"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_left_is_told_so_though_an_older_seat_elsewhere_came_to_light_again() {
    let backend = Backend::start().await;
    let redis = TempRedis::new().await;
    let grace = Duration::from_secs(1);
    let configured = || with_redis(config(&backend), &redis).events_grace(grace);
    let (one, two) = (start(configured()).await, start(configured()).await);
    let _ready = linked(&redis, [&one, &two]).await;
    let here = Device::connect(one.local_addr(), "dev").await;
    let owner = redis.wait_field("fastsock:owner", "dev").await;
    let epoch: u64 = owner.split(':').nth(2).unwrap().parse().unwrap();
    here.close(1000).await;
    redis.wait_no_field("fastsock:owner", "dev").await;
    // As a gateway that did not hear that its seat had gone here, and finds that nobody has it.
    let older = format!("another:1:{}", epoch - 5000);
    redis
        .cmd::<()>(&["HSET", "fastsock:owner", "dev", &older])
        .await;
    let events = wait(&backend, "dev", 2).await;
    assert_eq!(types(&events), ["connect", "disconnect"], "{events:?}");
    assert_eq!(number(&events[1], "epoch"), epoch, "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_went_to_another_gateway_within_the_grace_is_not_told_to_have_left() {
    let backend = Backend::start().await;
    let redis = TempRedis::new().await;
    let grace = Duration::from_secs(3);
    let configured = || with_redis(config(&backend), &redis).events_grace(grace);
    let (one, two) = (start(configured()).await, start(configured()).await);
    let _ready = linked(&redis, [&one, &two]).await;
    Device::connect(one.local_addr(), "dev")
        .await
        .close(1000)
        .await;
    let _there = Device::connect(two.local_addr(), "dev").await;
    // Another that leaves for good at the same time shows when the grace of the first is over.
    Device::connect(one.local_addr(), "other")
        .await
        .close(1000)
        .await;
    wait(&backend, "other", 2).await;
    let events = events_of(&backend, "dev");
    assert_eq!(types(&events), ["connect", "connect"], "{events:?}");
    end(one, 5).await;
    end(two, 4).await;
}

fn config(backend: &Backend) -> Config {
    let url = backend.url().replace("/uplink", "/events");
    support::loopback()
        .events_url(Some(url))
        .events_grace(Duration::ZERO)
}

fn with_redis(config: Config, redis: &TempRedis) -> Config {
    config
        .broker(fastsock::BrokerKind::Redis)
        .redis_port(redis.port())
}

/// Waits until both gateways write to Redis. Returns a device at each.
async fn linked(redis: &TempRedis, gateways: [&Bridge; 2]) -> Vec<Device> {
    let mut devices = Vec::new();
    for (n, gateway) in gateways.into_iter().enumerate() {
        devices.push(ready(redis, gateway, &format!("ready{n}")).await);
    }
    devices
}

/// `dev` comes and goes.
async fn visit(gateway: &Bridge, redis: &TempRedis) {
    let device = Device::connect(gateway.local_addr(), "dev").await;
    redis.wait_field("fastsock:owner", "dev").await;
    device.close(1000).await;
    redis.wait_no_field("fastsock:owner", "dev").await;
}

/// Waits until a gateway writes to Redis. Returns the device that shows it.
async fn ready(redis: &TempRedis, gateway: &Bridge, name: &str) -> Device {
    let device = Device::connect(gateway.local_addr(), name).await;
    redis.wait_field("fastsock:owner", name).await;
    device
}

/// What the event with the highest epoch is, and of which gateway.
fn last_is_of(events: &[Value]) -> (&str, &Value) {
    let last = events.iter().max_by_key(|event| number(event, "epoch"));
    let last = last.expect("there are some");
    (text(last, "type"), &last["node"])
}

/// Connects devices until this gateway gives one a higher epoch: those of two gateways within a millisecond may be equal.
async fn until_later(gateway: &Bridge, backend: &Backend, epoch: u64) -> Vec<Device> {
    let mut devices = Vec::new();
    loop {
        let name = format!("later{}", devices.len());
        devices.push(Device::connect(gateway.local_addr(), &name).await);
        let events = wait(backend, &name, 1).await;
        if number(&events[0], "epoch") > epoch {
            return devices;
        }
    }
}

/// Stops and looks at the books: all of so many events were delivered.
async fn end(bridge: Bridge, made: u64) {
    let left = bridge.stop(DEADLINE).await;
    assert_eq!(left.events, 0);
    let books = bridge.stats().lifecycle;
    assert_eq!(
        (books.made, books.delivered, books.held, books.held_bytes),
        (made, made, 0, 0),
        "{books:?}"
    );
}

fn id(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

/// Waits until so many events of a device were taken. Returns them in order of arrival.
async fn wait(backend: &Backend, client_id: &str, count: usize) -> Vec<Value> {
    backend.wait_delivered(client_id, count).await;
    events_of(backend, client_id)
}

fn events_of(backend: &Backend, client_id: &str) -> Vec<Value> {
    let requests = backend.requests_of(client_id).into_iter();
    requests
        .filter(Received::is_delivered)
        .map(|request| request.json())
        .collect()
}

#[tokio::test]
async fn a_setting_of_events_that_cannot_be_used_is_named_and_not_one_of_uplinks() {
    let bad = Headers(vec![("no header".into(), Some("1".into()))]);
    for (url, headers, told) in [
        (
            "http://a{b}/",
            Headers::default(),
            "FASTSOCK_EVENTS_URL: this build cannot reach such a URL",
        ),
        (
            "http://127.0.0.1:1/",
            bad,
            "FASTSOCK_EVENTS_HEADERS: \"no header\" is not a header name, or its value is not allowed",
        ),
    ] {
        let config = support::loopback();
        let config = config.events_url(Some(url.into())).events_headers(headers);
        let error = Bridge::builder(config).start().await.unwrap_err();
        assert!(error.to_line().starts_with(told), "{}", error.to_line());
    }
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| text(event, "type")).collect()
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

fn number(event: &Value, field: &str) -> u64 {
    event[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no {field}: {event}"))
}

/// Attempts at one event all have its key.
fn assert_same_keys(backend: &Backend) {
    let mut keys = std::collections::HashMap::new();
    for request in backend.requests() {
        let key = request.header("idempotency-key").unwrap().to_owned();
        let known = keys
            .entry(request.json()["seq"].as_u64())
            .or_insert(key.clone());
        assert_eq!(*known, key);
    }
}

/// Base64 of 24 bytes.
const SECRET: &str = "whsec_MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0";
