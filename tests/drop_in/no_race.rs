//! What is PUBLISHed after a device has its 101, or after its id is in the hash, reaches it: 200 times, in both modes.

use std::net::SocketAddr;

use redis::aio::MultiplexedConnection;
use support::{Device, Gateway, RawDevice, TempRedis, eventually, opcode};

use crate::common::with_redis;

const TIMES: usize = 200;

#[tokio::test]
async fn right_after_the_101_in_pattern_mode() {
    right_after_the_101("pattern").await;
}

#[tokio::test]
async fn right_after_the_101_in_exact_mode() {
    right_after_the_101("exact").await;
}

#[tokio::test]
async fn right_after_the_field_appears_in_pattern_mode() {
    right_after_the_field_appears("pattern").await;
}

#[tokio::test]
async fn right_after_the_field_appears_in_exact_mode() {
    right_after_the_field_appears("exact").await;
}

#[tokio::test]
async fn right_after_the_101_of_a_reconnect_in_exact_mode() {
    let (_redis, gateway, mut connection) = start("exact").await;
    for number in 0..TIMES {
        // The device before is just leaving: its UNSUBSCRIBE must not undo our SUBSCRIBE.
        let mut device = Device::connect(gateway.addr(), "dev1").await;
        publish(&mut connection, "dev1", number).await;
        assert_eq!(device.recv_text().await, number.to_string());
        if number % 2 == 0 {
            drop(device);
        } else {
            device.close(1000).await;
        }
    }
}

#[tokio::test]
async fn right_after_the_101_of_many_at_once_in_exact_mode() {
    let (redis, gateway, _) = start("exact").await;
    let addr = gateway.addr();
    let all = (0..TIMES).map(|number| {
        let redis = &redis;
        async move {
            let id = format!("dev{number}");
            let mut connection = redis.connection().await;
            let mut device = Device::connect(addr, &id).await;
            publish(&mut connection, &id, number).await;
            assert_eq!(device.recv_text().await, number.to_string());
        }
    });
    futures_util::future::join_all(all).await;
}

async fn right_after_the_101(mode: &str) {
    let (_redis, gateway, mut connection) = start(mode).await;
    for number in 0..TIMES {
        let id = format!("dev{number}");
        let mut device = Device::connect(gateway.addr(), &id).await;
        publish(&mut connection, &id, number).await;
        assert_eq!(device.recv_text().await, number.to_string(), "{mode}");
    }
}

async fn right_after_the_field_appears(mode: &str) {
    let (_redis, gateway, mut connection) = start(mode).await;
    for number in 0..TIMES {
        let id = format!("dev{number}");
        let mut device = ask(gateway.addr(), &id).await;
        let connection = &mut connection;
        wait_field(connection, &id).await;
        publish(connection, &id, number).await;
        let head = device.read_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let frame = device.frame().await;
        assert_eq!(frame.opcode, opcode::TEXT);
        assert_eq!(frame.payload, number.to_string().as_bytes(), "{mode}");
    }
}

async fn start(mode: &str) -> (TempRedis, Gateway, MultiplexedConnection) {
    let redis = TempRedis::new().await;
    let builder = Gateway::builder()
        .var("FASTSOCK_REDIS_SUBSCRIBE", mode)
        .var("WEBSOCKET_PING_INTERVAL", "0");
    let gateway = with_redis(&redis, builder).await;
    let connection = redis.connection().await;
    (redis, gateway, connection)
}

/// Asks for an upgrade and does not wait for the answer.
async fn ask(addr: SocketAddr, id: &str) -> RawDevice {
    let mut device = RawDevice::connect(addr).await;
    let request = RawDevice::upgrade_request(&format!("/?token={id}"), &[]);
    device.write(request).await;
    device
}

/// As soon as can be: without a pause between the questions.
async fn wait_field(connection: &mut MultiplexedConnection, id: &str) {
    eventually(&format!("{id} is in the hash"), async || {
        for _ in 0..1000 {
            let mut exists = redis::cmd("HEXISTS");
            exists.arg("fastsock:clients").arg(id);
            if exists.query_async(connection).await.unwrap() {
                return true;
            }
        }
        false
    })
    .await;
}

async fn publish(connection: &mut MultiplexedConnection, id: &str, number: usize) {
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(format!("fastsock:client:{id}")).arg(number);
    let receivers: u64 = publish.query_async(connection).await.unwrap();
    assert_eq!(receivers, 1);
}
