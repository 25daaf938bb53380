//! From a PUBLISH to the frame a device gets.

use redis::AsyncTypedCommands as _;
use support::{Device, Gateway, RawDevice, TempRedis, opcode};
use tokio_tungstenite::tungstenite::Message;

use crate::common::{utf8_vectors, with_redis};

#[tokio::test]
async fn an_id_is_everything_after_the_prefix_colons_and_globs_included() {
    for mode in ["pattern", "exact"] {
        let redis = TempRedis::new().await;
        let builder = Gateway::builder()
            .var("REDIS_PREFIX", "p*[a-z]?\\")
            .var("FASTSOCK_REDIS_SUBSCRIBE", mode);
        let gateway = with_redis(&redis, builder).await;
        let ids = [
            "a:b:c",
            ":",
            "*",
            "d[1-9]?",
            "d5x",
            "\\",
            "ü b",
            "client:x",
            "p*[a-z]?\\:client:a:b:c",
        ];
        let mut devices = Vec::new();
        for id in ids {
            devices.push(Device::connect(gateway.addr(), id).await);
        }
        for id in ids {
            // Near misses of the prefix, which an unescaped pattern would match.
            redis
                .publish(&format!("pxxb1\\:client:{id}"), "of another prefix")
                .await;
            redis
                .publish(&format!("p*b?\\:client:{id}"), "of another prefix")
                .await;
            redis
                .publish(&format!("p*[a-z]?\\:client:{id}"), format!("for {id}"))
                .await;
        }
        for (device, id) in devices.iter_mut().zip(ids) {
            assert_eq!(device.recv_text().await, format!("for {id}"), "{mode}");
        }
        for (device, id) in devices.iter_mut().zip(ids) {
            redis
                .publish(&format!("p*[a-z]?\\:client:{id}"), "last")
                .await;
            assert_eq!(
                device.recv_text().await,
                "last",
                "{mode}: nothing else came"
            );
        }
    }
}

#[tokio::test]
async fn bad_utf8_is_replaced_as_node_does() {
    let redis = TempRedis::new().await;
    let gateway = with_redis(&redis, Gateway::builder()).await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    for (bytes, text) in utf8_vectors() {
        redis.publish("fastsock:client:dev1", &bytes).await;
        assert_eq!(device.recv().await, Message::text(text), "{bytes:02x?}");
    }
}

#[tokio::test]
async fn with_binary_auto_what_is_not_utf8_is_one_binary_frame_with_the_same_bytes() {
    let redis = TempRedis::new().await;
    let builder = Gateway::builder().var("FASTSOCK_DOWNLINK_BINARY", "auto");
    let gateway = with_redis(&redis, builder).await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    for (bytes, text) in utf8_vectors() {
        redis.publish("fastsock:client:dev1", &bytes).await;
        let expected = match std::str::from_utf8(&bytes) {
            Ok(_) => Message::text(text),
            Err(_) => Message::binary(bytes),
        };
        assert_eq!(device.recv().await, expected);
    }
}

#[tokio::test]
async fn each_payload_is_one_frame_from_empty_to_a_mebibyte() {
    let redis = TempRedis::new().await;
    let unpinged = Gateway::builder().var("WEBSOCKET_PING_INTERVAL", "0");
    let gateway = with_redis(&redis, unpinged).await;
    let mut device = RawDevice::seated(gateway.addr(), "dev1").await;
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20, 0] {
        let payload: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
        redis.publish("fastsock:client:dev1", &payload).await;
        let frame = device.frame().await;
        assert_eq!(
            (frame.opcode, frame.is_final, frame.reserved),
            (opcode::TEXT, true, 0)
        );
        assert_eq!(frame.mask, None);
        assert!(frame.payload == payload, "{length}");
    }
}

#[tokio::test]
async fn ten_thousand_messages_arrive_in_order() {
    let redis = TempRedis::new().await;
    let builder = Gateway::builder().var("FASTSOCK_OUTBOX_BYTES", "4194304");
    let gateway = with_redis(&redis, builder).await;
    let device = Device::connect(gateway.addr(), "dev1").await.attend();
    let mut connection = redis.connection().await;
    for hundred in 0..100 {
        let mut publish = redis::pipe();
        for number in hundred * 100..(hundred + 1) * 100 {
            publish.publish("fastsock:client:dev1", number).ignore();
        }
        publish.exec_async(&mut connection).await.unwrap();
    }
    let texts = device.wait_texts(10_000).await;
    let expected: Vec<_> = (0..10_000).map(|number| number.to_string()).collect();
    assert!(texts == expected);
}

#[tokio::test]
async fn a_publish_to_nobody_and_to_odd_channels_disturbs_nobody() {
    let redis = TempRedis::new().await;
    let gateway = with_redis(&redis, Gateway::builder()).await;
    let mut device = Device::connect(gateway.addr(), "dev1").await;
    let mut connection = redis.connection().await;
    let odd = [
        &b"fastsock:client:"[..],
        b"fastsock:client:\xff\xfe",
        b"fastsock:client:dev1:",
        b"fastsock:client",
        b"fastsock:control",
        b"fastsock:clients",
    ];
    for channel in odd {
        connection.publish(channel, "not for dev1").await.unwrap();
    }
    redis.publish("fastsock:client:dev1", "for dev1").await;
    assert_eq!(device.recv_text().await, "for dev1");
}
