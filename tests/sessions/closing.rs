//! How sessions end, from either side.

use std::time::Duration;

use fastsock::{Bridge, ClientId, CloseReason, Config};
use support::{Closed, DEADLINE, Device, End, Frame, RawDevice, eventually, opcode};
use tokio::time::Instant;

#[tokio::test]
async fn a_kick_is_4510_after_what_was_sent_before_it() {
    let bridge = start(Config::default()).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    bridge.send(&id(), "goodbye".into()).await.unwrap();
    assert!(bridge.disconnect(&id(), CloseReason::Kicked));
    assert!(
        !bridge.disconnect(&id(), CloseReason::Shutdown),
        "the first reason stays"
    );
    assert_eq!(device.recv_text().await, "goodbye");
    assert_eq!(device.closed().await, closed(4510, "kicked"));
    eventually("it has left", async || bridge.clients().is_empty()).await;
    assert!(
        !bridge.disconnect(&id(), CloseReason::Kicked),
        "it is not here"
    );
    assert_eq!(bridge.stats().sessions.closed["kicked"], 1);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_host_closes_with_its_own_code_and_a_reason_that_fits() {
    let bridge = start(Config::default()).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    bridge.disconnect(&id(), CloseReason::Custom(4999, "ä".repeat(100)));
    assert_eq!(device.closed().await, closed(4999, &"ä".repeat(61)));
    eventually("it is counted", async || {
        bridge.stats().sessions.closed.get("custom") == Some(&1)
    })
    .await;
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_close_frame_is_answered_with_its_code_and_then_the_gateway_hangs_up() {
    let bridge = start(Config::default()).await;
    for (frame, echoed) in [
        (Frame::close(1000, "bye"), Some(1000)),
        (Frame::close(1001, ""), Some(1001)),
        (Frame::close(4321, "mine"), Some(4321)),
        (Frame::empty_close(), None),
    ] {
        let mut device = RawDevice::seated(bridge.local_addr(), "dev1").await;
        device.send(&frame).await;
        let answer = device.frame().await;
        assert_eq!(
            (answer.opcode, answer.close_code().0),
            (opcode::CLOSE, echoed)
        );
        assert_eq!(device.next().await, Err(End::Eof));
    }
    eventually("all have left", async || bridge.clients().is_empty()).await;
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_device_that_does_not_answer_a_close_frame_is_cut_in_time() {
    let bridge = start(Config::default().close_timeout(Duration::from_millis(300))).await;
    let mut device = RawDevice::seated(bridge.local_addr(), "dev1").await;
    bridge.disconnect(&id(), CloseReason::Kicked);
    assert_eq!(device.end().await, End::Close(Some(4510), "kicked".into()));
    let told = Instant::now();
    // Our side is still open: the gateway reads on for a while, and then resets.
    while device
        .try_write(Frame::text("still talking").encode())
        .await
        .is_ok()
    {
        assert!(told.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await; // the tempo of a device
    }
    assert!(
        told.elapsed() > Duration::from_millis(200),
        "{:?}",
        told.elapsed()
    );
    assert_eq!(
        bridge.stats().uplink.received,
        0,
        "what comes after the end is no uplink"
    );
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_device_that_is_in_the_middle_of_talking_sees_the_code_and_no_reset() {
    let bridge = start(Config::default()).await;
    for _ in 0..20 {
        let mut device = RawDevice::seated(bridge.local_addr(), "dev1").await;
        device.send(&Frame::text("x").reserved(4)).await; // a mistake, and much behind it
        for _ in 0..64 {
            if device
                .try_write(Frame::binary(vec![7; 16 << 10]).encode())
                .await
                .is_err()
            {
                panic!("reset while talking");
            }
        }
        assert_eq!(
            device.end().await,
            End::Close(Some(1002), "protocol_error".into())
        );
    }
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_stop_tells_everyone_1001() {
    let bridge = start(Config::default()).await;
    let mut devices = Vec::new();
    for number in 0..50 {
        devices.push(
            Device::connect(bridge.local_addr(), &format!("dev{number}"))
                .await
                .attend(),
        );
    }
    let leftover = bridge.stop(DEADLINE).await;
    assert!(leftover.is_empty(), "{leftover:?}");
    for device in devices {
        assert_eq!(device.wait_closed().await, closed(1001, "shutdown"));
    }
}

async fn start(config: Config) -> Bridge {
    let config = config
        .websocket_port(0u16)
        .websocket_ping_interval(Duration::ZERO);
    Bridge::builder(config).start().await.unwrap()
}

fn closed(code: u16, reason: &str) -> Closed {
    Closed {
        code: Some(code),
        reason: reason.into(),
    }
}

fn id() -> ClientId {
    ClientId::new("dev1").unwrap()
}
