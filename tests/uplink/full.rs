//! What becomes of uplinks when a lane, or all of them, are full.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_lane_stops_reading_and_nothing_else() {
    const MESSAGES: usize = 200;
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let bridge = start(
        config(&backend)
            .uplink_lane_bytes(100_000usize)
            .remote_timeout(Duration::from_secs(60))
            .websocket_ping_interval(Duration::from_millis(150)),
    )
    .await;
    let id = ClientId::new("dev").unwrap();
    let mut bytes = Vec::new();
    for n in 0..MESSAGES {
        bytes.extend(Frame::text(format!("{}#{n}", "x".repeat(60_000))).encode());
    }
    let mut device = RawDevice::seated(bridge.local_addr(), "dev").await;
    let written = device
        .write_until_full(&bytes, Duration::from_millis(500))
        .await;
    assert!(written < bytes.len(), "TCP has pushed back");
    eventually("it is not read", async || {
        bridge.stats().counters.reads_paused > 0
    })
    .await;
    let stats = bridge.stats();
    assert_eq!((stats.uplink.held, stats.uplink.received), (2, 2));
    assert_eq!(stats.counters.reads_paused, 1);

    // Its pongs stay unread, so this is longer than a heartbeat forgives, and downlinks flow all the time.
    let mut pings = 0;
    for n in 0..10 {
        assert_eq!(
            bridge.send(&id, format!("{n}").into()).await.unwrap(),
            Sent::Here
        );
        loop {
            let frame = device.frame().await;
            match frame.opcode {
                opcode::PING => pings += 1,
                opcode::TEXT => break assert_eq!(frame.payload, format!("{n}").as_bytes()),
                other => panic!("{other}"),
            }
        }
        while device.frame().await.opcode != opcode::PING {}
        pings += 1;
    }
    assert!(pings >= 10);
    assert_eq!(bridge.stats().uplink.received, 2, "nothing was read");

    backend.go_down().await; // cuts the hanging request
    backend.answer_all(Reply::ok());
    backend.come_back();
    let rest = bytes.split_off(written);
    let reader = tokio::spawn(async move {
        for part in rest.chunks(60_000) {
            device.write(part).await; // each has its own deadline
        }
        device.drain().await
    });
    delivered(&bridge, MESSAGES as u64).await;
    let numbers: Vec<_> = backend
        .delivered("dev")
        .iter()
        .map(|data| data.rsplit('#').next().unwrap().parse::<usize>().unwrap())
        .collect();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    end(bridge).await;
    reader.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_lanes_together_are_bounded_and_everyone_goes_on_once_there_is_room() {
    const TOTAL: usize = 20_000;
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    // No heartbeat: nothing wakes a session that was forgotten.
    let bridge = start(
        config(&backend)
            .uplink_total_bytes(TOTAL)
            .remote_timeout(Duration::from_secs(60))
            .websocket_ping_interval(Duration::ZERO),
    )
    .await;
    let devices = connect(&bridge, 100).await;
    let senders: Vec<_> = devices
        .into_iter()
        .map(|mut device| {
            tokio::spawn(async move {
                for n in 0..15 {
                    device.send(format!("{}#{n}", "x".repeat(400))).await;
                }
                device
            })
        })
        .collect();
    eventually("the bridge is full", async || {
        bridge.stats().uplink.held_bytes >= TOTAL as u64
    })
    .await;
    let most = watch_held_bytes(&bridge, Duration::from_millis(300)).await;
    assert!(most < TOTAL as u64 + 4 * 1500, "{most}"); // one message and one lane of each thread that reads
    backend.go_down().await;
    backend.answer(|_| Reply::ok().after(Duration::from_millis(fastrand::u64(0..3))));
    backend.come_back();
    delivered(&bridge, 1500).await;
    backend.assert_in_order();
    let devices: Vec<_> = join_all(senders).await;
    assert!(devices.iter().all(Result::is_ok));
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_oldest_keeps_the_newest_and_what_is_in_flight() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::hang());
    let bridge = start(
        config(&backend)
            .uplink_full(UplinkFull::DropOldest)
            .uplink_lane_bytes(1000usize)
            .remote_timeout(Duration::from_secs(60)),
    )
    .await;
    let mut devices = connect(&bridge, 1).await;
    devices[0].send("temp#0").await;
    backend.wait_for(1).await;
    for n in 1..50 {
        devices[0].send(format!("temp#{n}")).await;
    }
    received(&bridge, 50).await;
    let held = bridge.stats().uplink.held;
    assert!((7..=9).contains(&held), "{held} of 134 bytes each");
    assert_eq!(bridge.stats().uplink.lost.full, 50 - held);
    backend.go_down().await;
    backend.answer_all(Reply::ok());
    backend.come_back();
    let numbers = backend.wait_delivered("dev0", held as usize).await;
    let kept: Vec<_> = std::iter::once(0)
        .chain(51 - held..50)
        .map(|n| format!("temp#{n}"))
        .collect();
    assert_eq!(numbers, kept);
    bridge.stop(DEADLINE).await;
}

pub(super) async fn a_backend_that_is_down_closes_no_device() {
    // Longer than a lane may stay full while the backend is up (30 s).
    let refusing = async {
        let backend = Backend::start().await;
        backend.go_down().await;
        outlasts_an_outage(&backend, Duration::from_secs(15)).await;
    };
    let hanging = async {
        let backend = Backend::start().await;
        backend.answer_all(Reply::hang());
        outlasts_an_outage(&backend, Duration::from_secs(15)).await;
    };
    let failing = async {
        let backend = Backend::start().await;
        backend.answer_all(Reply::new(500));
        outlasts_an_outage(&backend, Duration::from_secs(15)).await;
    };
    tokio::join!(refusing, hanging, failing);
}

pub(super) async fn a_lane_that_stays_full_while_the_backend_is_up_closes_its_device() {
    let backend = Backend::start().await;
    backend.answer(|request| match request.client_id.as_str() {
        "busy" => Reply::new(429).header("retry-after", "60"),
        _ => Reply::ok(),
    });
    let bridge = start(config(&backend).uplink_lane_bytes(1000usize)).await;
    let mut busy = Device::connect(bridge.local_addr(), "busy").await;
    let mut other = Device::connect(bridge.local_addr(), "other").await;
    for n in 0..20 {
        busy.send(format!("temp#{n}")).await;
    }
    let begun = Instant::now();
    let busy = busy.attend();
    while busy.is_open() && begun.elapsed() < Duration::from_secs(40) {
        other.send("temp#0").await;
        sleep(Duration::from_millis(250)).await; // a device that speaks now and then
    }
    assert_eq!(busy.wait_closed().await.code, Some(1013));
    assert!(begun.elapsed() > Duration::from_secs(29));
    assert_eq!(lost(&bridge), 0, "what was taken is kept");
    bridge.stop(Duration::ZERO).await;
}

/// One device with a full lane in front of a backend that is down; then the backend comes back.
async fn outlasts_an_outage(backend: &Backend, timeout: Duration) {
    let bridge = start(
        config(backend)
            .uplink_lane_bytes(1000usize)
            .remote_timeout(timeout),
    )
    .await;
    let device = Device::connect(bridge.local_addr(), "dev").await.attend();
    for n in 0..20 {
        device.send(format!("temp#{n}")).await;
    }
    eventually("it is not read", async || {
        bridge.stats().counters.reads_paused > 0
    })
    .await;
    let end_at = Instant::now() + Duration::from_secs(32);
    while Instant::now() < end_at {
        assert!(device.is_open(), "it was closed");
        sleep(Duration::from_millis(100)).await; // between two looks: for longer than 30 s nothing happens
    }
    let held = bridge.stats().uplink.held;
    assert!(lost(&bridge) == 0 && held == 8, "{held} of 134 bytes each");
    // What was read ahead of the lane is told too.
    assert_eq!(bridge.stop(Duration::ZERO).await.uplinks, 20);
}

async fn watch_held_bytes(bridge: &Bridge, time: Duration) -> u64 {
    let end = Instant::now() + time;
    let mut most = 0;
    while Instant::now() < end {
        most = most.max(bridge.stats().uplink.held_bytes);
        sleep(Duration::from_millis(1)).await; // between two looks
    }
    most
}
