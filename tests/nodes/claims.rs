//! Whose a client id is: the newest session's, over all gateways, however slow the way to Redis is.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use support::{
    Attended, Backend, DEADLINE, Device, Gateway, GatewayBuilder, Line, RawDevice, Relay,
    TempRedis, eventually,
};
use tokio::time::{Instant, sleep_until};

use super::{gateway, has_clients};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_session_wins_whichever_way_a_gateway_is_slow() {
    let (slow, none) = (Duration::from_millis(60), Duration::ZERO);
    let ways = [(slow, none), (none, slow)].map(|(there, back)| async move {
        let redis = TempRedis::new().await;
        let far = Relay::uneven(([127, 0, 0, 1], redis.port()).into(), there, back).await;
        let gateways = [at(far.port()).start().await, at(redis.port()).start().await];
        for gateway in &gateways {
            gateway.wait_line("Connected to Redis as publisher").await;
        }
        let moves = (0..10).map(async |n| {
            let id = format!("dev{n}");
            // From the far one to the near one, or the other way round.
            let [from, to] = [&gateways[n % 2], &gateways[1 - n % 2]];
            let before = Device::connect(from.addr(), &id).await.attend();
            let after = Device::connect(to.addr(), &id).await.attend();
            assert_eq!(before.wait_closed().await.code, Some(4509), "{id}");
            redis.publish(&format!("fastsock:client:{id}"), "x").await;
            after.wait_text("x").await;
            after
        });
        let devices = join_all(moves).await;
        has_clients(&redis, 10, DEADLINE).await;
        assert!(devices.iter().all(Attended::is_open));
    });
    join_all(ways).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_long_on_its_way_loses_to_a_session_begun_meanwhile() {
    let redis = TempRedis::new().await;
    let line = Line::start(([127, 0, 0, 1], redis.port()).into()).await;
    let gateways = [
        at(line.addr().port()).start().await,
        at(redis.port()).start().await,
    ];
    for gateway in &gateways {
        gateway.wait_line("Connected to Redis as publisher").await;
    }
    line.cut();
    let asked = Instant::now();
    let before = Device::connect(gateways[0].addr(), "dev").await.attend();
    let after = Device::connect(gateways[1].addr(), "dev").await.attend();
    let owner = redis.wait_field("fastsock:owner", "dev").await;
    sleep_until(asked + LATE).await;
    line.mend();
    assert_eq!(before.wait_closed().await.code, Some(4509));
    assert_eq!(redis.hget("fastsock:owner", "dev").await, Some(owner));
    redis.publish("fastsock:client:dev", "x").await;
    after.wait_text("x").await;
    assert!(after.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_gave_up_on_a_frozen_gateway_stays_where_it_went() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let start = async || posting(&redis, &backend).await;
    let gateways = [start().await, start().await];
    for gateway in &gateways {
        gateway.wait_line("Connected to Redis as publisher").await;
        let what = "that there are others";
        gateway.wait_line_where(what, is_of_company).await;
    }
    gateways[0].process().freeze();
    let mut gives_up = RawDevice::connect(gateways[0].addr()).await;
    gives_up
        .write(RawDevice::upgrade_request("/?token=dev", &[]))
        .await;
    drop(gives_up);
    let device = Device::connect(gateways[1].addr(), "dev").await.attend();
    let owner = redis.wait_field("fastsock:owner", "dev").await;
    gateways[0].process().thaw();
    // Whoever comes to the thawed one now is behind those who gave up.
    let _next = Device::connect(gateways[0].addr(), "next").await;
    redis.wait_field("fastsock:clients", "next").await;
    assert_eq!(redis.hget("fastsock:owner", "dev").await, Some(owner));
    redis.publish("fastsock:client:dev", "x").await;
    device.wait_text("x").await;
    assert!(device.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_epoch_of_each_post_grows_over_gateways_and_restarts() {
    let (redis, backend) = (TempRedis::new().await, Backend::start().await);
    let start = async || posting(&redis, &backend).await;
    let mut gateways = [start().await, start().await];
    let mut posts = 0;
    for round in 0..6 {
        if round == 3 {
            gateways[1].kill();
            gateways[1] = start().await;
        }
        let mut device = Device::connect(gateways[round % 2].addr(), "dev").await;
        for text in ["one", "two"] {
            device.send(text).await;
        }
        posts += 2;
        backend.wait_for(posts).await;
        if round == 4 {
            drop(device); // and not only taken over
            redis.wait_no_field("fastsock:clients", "dev").await;
        }
    }
    let epochs = epochs(&backend);
    for pair in epochs.chunks(2) {
        assert_eq!(pair[0], pair[1], "one session, one epoch: {epochs:?}");
    }
    let sessions: Vec<_> = epochs.iter().step_by(2).collect();
    assert!(sessions.is_sorted_by(|a, b| a < b), "{epochs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_epoch_of_a_gateway_alone_grows_as_well() {
    let backend = Backend::start().await;
    let start = async || {
        let alone = Gateway::builder().var("FASTSOCK_BROKER", "embedded");
        alone.var("REMOTE_URL", backend.url()).start().await
    };
    let mut gateway = start().await;
    for round in 1..=6 {
        let mut device = Device::connect(gateway.addr(), "dev").await;
        device.send("x").await;
        backend.wait_for(round).await;
        if round == 3 {
            gateway.kill();
            gateway = start().await;
        }
    }
    let epochs = epochs(&backend);
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_reject_a_device_that_is_connected_elsewhere_gets_409() {
    for mode in super::MODES {
        let redis = TempRedis::new().await;
        let start = async || {
            let gateway = at(redis.port()).var("FASTSOCK_REDIS_SUBSCRIBE", mode);
            let gateway = gateway
                .var("FASTSOCK_DUPLICATE_POLICY", "reject")
                .start()
                .await;
            gateway.wait_line("Connected to Redis as publisher").await;
            gateway
        };
        let [one, two] = [start().await, start().await];
        let first = Device::connect(one.addr(), "dev").await.attend();
        for gateway in [&one, &two] {
            let refused = Device::try_connect(gateway.addr(), "dev").await;
            assert_eq!(refused.expect_err("it is taken").status, 409);
        }
        redis.publish("fastsock:client:dev", "x").await;
        first.wait_text("x").await;
        drop(first);
        let second = eventually("it may connect elsewhere", async || {
            Device::try_connect(two.addr(), "dev").await.ok()
        });
        let second = second.await.attend();
        redis.wait_field("fastsock:clients", "dev").await;
        assert!(second.is_open());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_fight_over_an_id_at_two_gateways_are_told_so() {
    let redis = TempRedis::new().await;
    let gateway = gateway(&redis, "pattern").await;
    gateway.wait_line("Connected to Redis as publisher").await;
    let (seconds, _): (u64, u64) = redis.cmd(&["TIME"]).await;
    // So often it changed hands since then: one more than may be, one more than that long ago, and the last that may be.
    for (id, count, ago_s, code) in [
        ("fought over", 100, 0, Some(4429)),
        ("long ago", 100, 60, None),
        ("the last", 99, 0, None),
    ] {
        let (epoch, since) = (seconds * 1000 - 1, (seconds - ago_s) * 1000);
        let owner = format!("other:1:{epoch}:{count}:{since}");
        redis
            .cmd::<()>(&["HSET", "fastsock:owner", id, &owner])
            .await;
        let mut device = Device::connect(gateway.addr(), id).await;
        if let Some(code) = code {
            assert_eq!(device.closed().await.code, Some(code), "{id}");
            assert_eq!(redis.hget("fastsock:owner", id).await, Some(owner), "{id}");
            continue;
        }
        redis.wait_field("fastsock:clients", id).await;
        let now = redis.wait_field("fastsock:owner", id).await;
        let count = if ago_s > 0 { 1 } else { count + 1 };
        let is_counted = now.split(':').nth(3) == Some(&count.to_string());
        assert!(!now.starts_with("other") && is_counted, "{now}");
    }
}

/// Whether a line of the log says that there are other gateways.
fn is_of_company(line: &Value) -> bool {
    let message = line["message"].as_str().unwrap_or_default();
    message.starts_with("Several gateways share this Redis")
}

/// A gateway that POSTs what devices say.
async fn posting(redis: &TempRedis, backend: &Backend) -> Gateway {
    let gateway = at(redis.port()).var("REMOTE_URL", backend.url());
    gateway.start().await
}

fn at(port: u16) -> GatewayBuilder {
    Gateway::builder().var("REDIS_PORT", port.to_string())
}

/// What the POSTs so far had, in the order of their coming.
fn epochs(backend: &Backend) -> Vec<u64> {
    let epoch = |post: &support::Received| {
        let epoch = post.header("x-fastsock-epoch").expect("each has one");
        epoch.parse().expect("a number")
    };
    backend.requests().iter().map(epoch).collect()
}

/// So long a claim must have been on its way to count as late, and a little more.
const LATE: Duration = Duration::from_millis(2500);
