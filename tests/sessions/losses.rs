//! Each downlink that is lost is in the log, with its reason, in few lines.

use serde_json::Value;
use support::{
    DEADLINE, Device, Gateway, GatewayBuilder, TempRedis, eventually, eventually_within, get,
};

use crate::slow::{self, deaf};

#[tokio::test]
async fn what_a_full_outbox_drops_is_told_at_once_then_now_and_then_and_to_the_last_at_the_end() {
    for policy in ["drop_oldest", "drop_newest"] {
        let builder = Gateway::builder()
            .var("FASTSOCK_DOWNLINK_FULL", policy)
            .var("FASTSOCK_WRITE_TIMEOUT", "600000");
        let (redis, gateway) = start(builder).await;
        let deaf = deaf(&gateway, "deaf").await;
        let modest = Device::connect(gateway.addr(), "modest").await.attend();
        publish(&redis, "deaf", 400).await;
        let first = gateway.wait_line(LOST).await;
        assert_eq!(
            (&first["level"], &first["client_id"], &first["reason"]),
            (&"warn".into(), &"deaf".into(), &"full".into())
        );
        assert_eq!(first["policy"], policy);
        assert!(first["session_id"].is_u64());

        // More of them, in many batches: they wait for their line.
        for _ in 0..50 {
            publish(&redis, "deaf", 4).await;
        }
        redis.publish("fastsock:client:modest", "after it").await;
        modest.wait_text("after it").await;
        let told = |lines: &[Value]| lines.iter().map(count).sum::<u64>();
        let lost = lost(&gateway, "full").await;
        assert!(lost > 400, "{lost}");
        eventually_within(DEADLINE * 3, "all are told while it is here", async || {
            told(&gateway.lines_with(LOST)) == lost
        })
        .await;
        let lines = gateway.lines_with(LOST).len();
        assert!(lines < 8, "{lines} lines"); // one in ten seconds, however slow this machine is

        publish(&redis, "deaf", 10).await;
        redis.publish("fastsock:client:modest", "the end").await;
        modest.wait_text("the end").await;
        deaf.reset();
        gateway.wait_line("Client disconnected").await;
        let lines = gateway.lines_with(LOST);
        let (ended, full): (Vec<_>, Vec<_>) = lines
            .into_iter()
            .partition(|line| line["reason"] == "session_ended");
        assert_eq!(told(&full), self::lost(&gateway, "full").await);
        assert_eq!(told(&ended), self::lost(&gateway, "session_ended").await);
        assert_eq!(
            (ended.len(), &ended[0]["cause"]),
            (1, &"connection_lost".into())
        );
    }
}

#[tokio::test]
async fn a_slow_consumer_that_is_closed_costs_a_line_a_reason() {
    let builder = Gateway::builder().var("FASTSOCK_OUTBOX_TOTAL_BYTES", "0");
    let (redis, gateway) = start(builder).await;
    let _deaf = deaf(&gateway, "deaf").await;
    publish(&redis, "deaf", 400).await;
    gateway.wait_line("Client disconnected").await;
    let lines = gateway.lines_with(LOST);
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["reason"].as_str().unwrap(), count(line)))
        .collect();
    let ended = lost(&gateway, "session_ended").await;
    assert_eq!(told, [("full", 1), ("session_ended", ended)]);
    assert_eq!(
        (&lines[0]["policy"], &lines[1]["cause"]),
        (&"close".into(), &"slow_consumer".into())
    );
}

#[tokio::test]
async fn a_message_that_is_too_large_is_told_and_its_session_goes_on() {
    let (redis, gateway) = start(Gateway::builder()).await;
    let device = Device::connect(gateway.addr(), "dev").await.attend();
    let too_large = vec![b'x'; (16 << 20) + 1];
    redis.publish("fastsock:client:dev", &too_large).await;
    redis.publish("fastsock:client:dev", "fits").await;
    device.wait_text("fits").await;
    let line = gateway.wait_line(LOST).await;
    assert_eq!(
        (&line["client_id"], &line["reason"], count(&line)),
        (&"dev".into(), &"too_large".into(), 1)
    );
    assert_eq!(lost(&gateway, "too_large").await, 1);
}

#[tokio::test]
async fn what_a_device_leaves_behind_when_it_moves_to_another_gateway_is_told() {
    // More waits than the 4 MiB that go over.
    let roomy = Gateway::builder().var("FASTSOCK_OUTBOX_BYTES", "16MiB");
    let (redis, old) = start(roomy).await;
    let _deaf = deaf(&old, "dev").await;
    redis.wait_field("fastsock:clients", "dev").await;
    publish(&redis, "dev", 400).await;
    eventually("all are here", async || {
        stats(&old).await["downlink"]["received"] == 400
    })
    .await;
    let new = Gateway::builder()
        .var("REDIS_PORT", redis.port().to_string())
        .start()
        .await;
    new.wait_line("Connected to Redis as subscriber").await;
    let _moved = Device::connect(new.addr(), "dev").await;
    let line = old.wait_line(LOST).await;
    assert_eq!(
        (&line["reason"], &line["cause"]),
        (&"session_ended".into(), &"replaced".into())
    );
    assert_eq!(lost(&old, "session_ended").await, count(&line));
}

async fn start(builder: GatewayBuilder) -> (TempRedis, Gateway) {
    slow::start(builder.admin()).await
}

/// Publishes so many times 16 KiB.
async fn publish(redis: &TempRedis, client_id: &str, count: usize) {
    let mut publish = redis::pipe();
    for _ in 0..count {
        publish
            .publish(format!("fastsock:client:{client_id}"), vec![b'x'; 16 << 10])
            .ignore();
    }
    let mut connection = redis.connection().await;
    publish.exec_async(&mut connection).await.unwrap();
}

async fn lost(gateway: &Gateway, reason: &str) -> u64 {
    stats(gateway).await["downlink"]["lost"][reason]
        .as_u64()
        .unwrap()
}

async fn stats(gateway: &Gateway) -> Value {
    get(gateway.admin_addr(), "/api/v1/stats").await.json()
}

fn count(line: &Value) -> u64 {
    line["count"].as_u64().expect("a number")
}

const LOST: &str = "Lost downlinks";
