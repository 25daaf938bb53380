//! Who is connected, in the hash.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::{Device, Gateway, TempRedis, eventually};
use tokio::time::Instant;

use crate::common::with_redis;

const HASH: &str = "fastsock:clients";

#[tokio::test]
async fn a_device_is_in_the_hash_from_connect_to_disconnect() {
    let redis = TempRedis::new().await;
    let gateway = with_redis(&redis, Gateway::builder()).await;
    let before = now_ms();
    let device = Device::connect(gateway.addr(), "dev:1").await;
    let connected_ms = field_ms(&redis.wait_field(HASH, "dev:1").await);
    assert!((before..=now_ms()).contains(&connected_ms));
    assert_eq!(redis.cmd::<String>(&["TYPE", HASH]).await, "hash");
    assert_eq!(
        redis.cmd::<i64>(&["TTL", HASH]).await,
        -1,
        "it does not expire"
    );
    device.close(1000).await;
    redis.wait_no_field(HASH, "dev:1").await;

    let lost = Device::connect(gateway.addr(), "lost").await;
    redis.wait_field(HASH, "lost").await;
    drop(lost);
    redis.wait_no_field(HASH, "lost").await;
}

#[tokio::test]
async fn an_uplink_moves_its_time_soon_and_pongs_do_not() {
    let redis = TempRedis::new().await;
    let builder = Gateway::builder().var("WEBSOCKET_PING_INTERVAL", "300");
    let gateway = with_redis(&redis, builder).await;
    let device = Device::connect(gateway.addr(), "dev1").await.attend();
    let connected = redis.wait_field(HASH, "dev1").await;
    eventually("some pings are answered", async || device.pings() >= 4).await;
    let pongs = gateway.lines_with("Pong from client").len();
    assert!(pongs >= 3, "{pongs}");
    assert_eq!(redis.hget(HASH, "dev1").await.unwrap(), connected);

    let (mut last, mut late) = (field_ms(&connected), Vec::new());
    for number in 0..3 {
        let said = (now_ms(), Instant::now());
        device.send(format!("{number}")).await;
        let moved = eventually("its time has moved", async || {
            let ms = field_ms(&redis.hget(HASH, "dev1").await?);
            (ms > last).then_some(ms)
        })
        .await;
        assert!(moved >= said.0, "the time of the uplink, not an older one");
        late.push(said.1.elapsed());
        last = moved;
    }
    // One of them may meet a moment in which the machine stands still.
    late.sort();
    assert!(late[1] < Duration::from_millis(100) + SLACK, "{late:?}");
}

#[tokio::test]
async fn many_uplinks_are_few_writes() {
    let redis = TempRedis::new().await;
    let gateway = with_redis(&redis, Gateway::builder()).await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    redis.wait_field(HASH, "dev1").await;
    let (writes, begun) = (hsets(&redis).await, Instant::now());
    for number in 0..2000 {
        device.send(format!("{number}")).await;
    }
    eventually("all are read", async || {
        gateway
            .stdout()
            .iter()
            .any(|line| line.contains(r#""data":"1999""#))
    })
    .await;
    let written = hsets(&redis).await - writes;
    let most = begun.elapsed().as_millis() as u64 / 50 + 4;
    assert!(written <= most, "{written} in {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_takeover_keeps_the_entry_until_the_last_session_ends() {
    let redis = TempRedis::new().await;
    let gateway = with_redis(&redis, Gateway::builder()).await;
    let mut old = Device::connect(gateway.addr(), "dev1").await;
    let first = field_ms(&redis.wait_field(HASH, "dev1").await);
    eventually("its millisecond is over", async || now_ms() > first + 1).await;
    let mut new = Device::connect(gateway.addr(), "dev1").await;
    assert_eq!(old.closed().await.code, Some(4509));
    drop(old);
    gateway.wait_line("Client disconnected").await;
    eventually("it has the time of the new session", async || {
        redis
            .hget(HASH, "dev1")
            .await
            .is_some_and(|ms| field_ms(&ms) > first)
    })
    .await;
    // What is written is written in order: once this is there, a wrong removal would have been as well.
    let _marker = Device::connect(gateway.addr(), "marker").await;
    redis.wait_field(HASH, "marker").await;
    assert!(redis.hget(HASH, "dev1").await.is_some());
    redis.publish("fastsock:client:dev1", "still here").await;
    assert_eq!(new.recv_text().await, "still here");
    new.close(1000).await;
    redis.wait_no_field(HASH, "dev1").await;
}

#[tokio::test]
async fn database_and_prefix_say_where_the_hash_is() {
    let redis = TempRedis::new().await;
    let builder = Gateway::builder()
        .var("REDIS_DB", "3")
        .var("REDIS_PREFIX", "my:app");
    let gateway = with_redis(&redis, builder).await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    let mut connection = redis.connection().await;
    redis::cmd("SELECT")
        .arg(3)
        .exec_async(&mut connection)
        .await
        .unwrap();
    eventually("it is in database 3", async || {
        let found: Option<String> = redis::cmd("HGET")
            .arg(&["my:app:clients", "dev1"])
            .query_async(&mut connection)
            .await
            .unwrap();
        found
    })
    .await;
    assert_eq!(
        redis.cmd::<Vec<String>>(&["KEYS", "*"]).await,
        [""; 0],
        "database 0 stays empty"
    );
    redis.publish("my:app:client:dev1", "hello").await;
    assert_eq!(device.recv_text().await, "hello");
}

async fn hsets(redis: &TempRedis) -> u64 {
    let info: String = redis.cmd(&["INFO", "commandstats"]).await;
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_hset:calls="));
    line.and_then(|rest| rest.split(',').next()?.parse().ok())
        .unwrap_or(0)
}

fn field_ms(text: &str) -> u64 {
    text.parse().expect("unix milliseconds")
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}

/// What a loaded machine may add.
const SLACK: Duration = Duration::from_millis(900);
