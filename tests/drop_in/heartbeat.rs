//! Pings, and what becomes of devices that are silent.

use std::time::Duration;

use support::{Device, End, Frame, RawDevice, eventually, opcode};
use tokio::{task::JoinSet, time::Instant};

use crate::common::alone;

#[tokio::test]
async fn a_ping_is_an_empty_frame_and_its_pong_is_logged() {
    let gateway = alone().var("WEBSOCKET_PING_INTERVAL", "400").start().await;
    let mut device = RawDevice::seated(gateway.addr(), "dev1").await;
    for _ in 0..3 {
        let ping = device.frame().await;
        assert_eq!(
            (ping.opcode, ping.payload.len(), ping.is_final),
            (opcode::PING, 0, true)
        );
        device.send(&Frame::pong("")).await;
    }
    let pong = gateway.wait_line("Pong from client").await;
    assert_eq!(
        (&pong["level"], &pong["client_id"]),
        (&"debug".into(), &"dev1".into())
    );
}

#[tokio::test]
async fn a_silent_device_is_cut_by_its_next_ping_without_a_close_frame() {
    let gateway = alone().var("WEBSOCKET_PING_INTERVAL", "1500").start().await;
    let mut device = RawDevice::seated(gateway.addr(), "dev1").await;
    let ping = device.frame().await;
    let pinged = Instant::now();
    assert_eq!(ping.opcode, opcode::PING);
    let (frames, end) = device.drain().await;
    assert_eq!((frames.len(), end), (0, End::Eof));
    let lasted = pinged.elapsed();
    // On a busy machine the ping is read late.
    assert!(
        lasted > Duration::from_millis(700),
        "{lasted:?}: before its next ping"
    );

    let timeouted = gateway.wait_line("Client timeouted").await;
    assert_eq!(timeouted["level"], "info");
    let disconnected = gateway.wait_line("Client disconnected").await;
    assert_eq!(disconnected["level"], "info");
    for line in [timeouted, disconnected] {
        assert_eq!(
            (&line["client_id"], &line["reason"]),
            (&"dev1".into(), &"no_life".into())
        );
    }
}

#[tokio::test]
async fn any_frame_is_a_sign_of_life() {
    let gateway = alone().var("WEBSOCKET_PING_INTERVAL", "500").start().await;
    for (id, frame) in [
        ("text", Frame::text("x")),
        ("binary", Frame::binary("x")),
        ("ping", Frame::ping("x")),
        ("unasked pong", Frame::pong("unasked")),
    ] {
        let mut device = RawDevice::seated(gateway.addr(), &id.replace(' ', "+")).await;
        let mut pings = 0;
        while pings < 3 {
            match device.next().await {
                Ok(ping) if ping.opcode == opcode::PING => {
                    pings += 1;
                    device.send(&frame).await; // no pong
                }
                Ok(pong) => assert_eq!(pong.opcode, opcode::PONG),
                Err(end) => panic!("{id}: {end:?}"),
            }
        }
    }
}

#[tokio::test]
async fn pings_are_spread_over_the_interval() {
    const INTERVAL: Duration = Duration::from_millis(1000);
    const ROUNDS: usize = 3;
    let gateway = alone().var("WEBSOCKET_PING_INTERVAL", "1000").start().await;
    let mut devices = JoinSet::new();
    for number in 0..40 {
        let mut device = RawDevice::seated(gateway.addr(), &format!("dev{number}")).await;
        devices.spawn(async move {
            let mut times = Vec::new();
            while times.len() < ROUNDS {
                assert_eq!(device.frame().await.opcode, opcode::PING);
                times.push(Instant::now());
                device.send(&Frame::pong("")).await;
            }
            times
        });
    }
    let times = devices.join_all().await;
    // 40 random moments: that none of the middle ones is further than this from the ends has odds of one in a million. Where the machine
    // stands still for a while, the pings of that round come together.
    let spread = |round: usize| {
        let times = times.iter().map(|times| times[round]);
        times.clone().max().unwrap() - times.min().unwrap()
    };
    let widest = (0..ROUNDS).map(spread).max().unwrap();
    assert!(widest > INTERVAL / 2, "{widest:?}");
}

#[tokio::test]
async fn zero_turns_it_off() {
    let gateway = alone().var("WEBSOCKET_PING_INTERVAL", "0").start().await;
    let pinged = alone().var("WEBSOCKET_PING_INTERVAL", "300").start().await;
    let mut device = RawDevice::seated(gateway.addr(), "dev1").await;
    let other = Device::connect(pinged.addr(), "dev1").await.attend();
    eventually("another gateway has pinged its device", async || {
        other.pings() >= 3
    })
    .await;
    device.send(&Frame::ping("mine")).await;
    let frame = device.frame().await;
    assert_eq!(
        (frame.opcode, frame.payload),
        (opcode::PONG, b"mine".to_vec())
    );
}

#[tokio::test]
async fn a_gateway_that_was_frozen_does_not_blame_its_devices() {
    const INTERVAL: Duration = Duration::from_millis(800);
    let gateway = alone().var("WEBSOCKET_PING_INTERVAL", "800").start().await;
    let mut devices = Vec::new();
    for number in 0..20 {
        let device = Device::connect(gateway.addr(), &format!("dev{number}")).await;
        devices.push(device.attend());
    }
    for _ in 0..2 {
        let before: Vec<_> = devices.iter().map(|device| device.pings()).collect();
        gateway.process().freeze();
        tokio::time::sleep(INTERVAL * 5 / 2).await; // what is tested is that time passes
        gateway.process().thaw();
        eventually("all have been pinged again, twice", async || {
            let mut now = devices.iter().zip(&before);
            now.all(|(device, before)| device.pings() >= before + 2)
        })
        .await;
    }
    assert!(devices.iter().all(|device| device.is_open()));
    assert!(gateway.lines_with("Client timeouted").is_empty());
}
