//! What an answer means depends on who gets it: one device, or everyone (DESIGN §5).

use std::{sync::Arc, time::Duration};

use fastsock::{Bridge, Config, Hooks, LostReason};
use futures_util::future::join_all;
use support::{Backend, DEADLINE, Device, LostUplinks, Reply, config, eventually, start};
use tokio::time::{Instant, sleep};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_that_refuses_everyone_for_a_while_loses_nothing() {
    let tries = [401, 403, 404, 407, 302].map(|status| async move {
        let backend = Backend::start().await;
        let bridge = start(config(&backend)).await;
        let mut devices = connect(&bridge, "dev", 30).await;
        say(&mut devices, 0..1).await;
        delivered(&bridge, 30).await;
        backend.answer_all(Reply::new(status));
        say(&mut devices, 1..5).await;
        let begun = Instant::now();
        eventually("the backend is left alone", async || {
            bridge.stats().counters.breaker_opened > 0
        })
        .await;
        while begun.elapsed() < Duration::from_millis(2400) {
            sleep(Duration::from_millis(10)).await; // as long as such a deploy takes
        }
        backend.answer_all(Reply::ok());
        delivered(&bridge, 150).await;
        backend.assert_in_order();
        backend.assert_one_in_flight();
        assert_eq!(bridge.stats().uplink.lost.total(), 0, "{status}");
        end(bridge).await;
    });
    join_all(tries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_are_refused_delay_nobody_and_are_given_up_after_three_attempts() {
    let backend = Backend::start().await;
    backend.answer(|request| {
        Reply::new(if request.client_id == "known0" {
            200
        } else {
            404
        })
    });
    let losses = Arc::new(LostUplinks::default());
    let bridge = start_with(config(&backend), losses.clone()).await;
    let mut strangers = connect(&bridge, "stranger", 25).await;
    say(&mut strangers, 0..1).await;
    backend
        .wait_until("each has been tried twice", |all| {
            let twice = all
                .iter()
                .filter(|r| r.header("x-fastsock-attempt") == Some("2"));
            twice.count() == 25
        })
        .await;
    assert_eq!(
        bridge.stats().uplink.lost.total(),
        0,
        "nobody was delivered"
    );
    let mut known = connect(&bridge, "known", 1).await;
    for n in 0.. {
        known[0].send(format!("temp#{n}")).await;
        let all = backend.wait_delivered("known0", n + 1).await;
        assert_eq!(all.len(), n + 1);
        let requests = backend.requests_of("known0");
        assert_eq!(requests.len(), n + 1, "it was never made to wait");
        if bridge.stats().uplink.lost.rejected == 25 {
            break;
        }
        sleep(Duration::from_millis(20)).await; // a device that speaks now and then
    }
    assert_eq!(bridge.stats().counters.breaker_opened, 0);
    assert!(
        losses
            .0
            .lock()
            .iter()
            .all(|(_, reason)| *reason == LostReason::Rejected)
    );
    for n in 0..25 {
        let tried = backend.requests_of(&format!("stranger{n}")).len();
        // Those before anyone was delivered count as one.
        assert!((3..8).contains(&tried), "{tried}");
    }
    end(bridge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_set_up_loses_nothing_and_all_are_delivered_at_once_when_it_is_right() {
    let tries = [401, 403, 404, 407, 302].map(|status| async move {
        let backend = Backend::start().await;
        backend.answer_all(Reply::new(status));
        let bridge = start(config(&backend)).await;
        let mut devices = connect(&bridge, "dev", 25).await;
        say(&mut devices, 0..3).await;
        backend
            .wait_until("each has been tried four times", |all| {
                let tried = |n| {
                    Some(n)
                        == all
                            .iter()
                            .filter_map(|r| r.header("x-fastsock-attempt"))
                            .max()
                };
                tried("5") || tried("6") || tried("7")
            })
            .await;
        assert_eq!(bridge.stats().uplink.lost.total(), 0);
        let before = backend.count();
        backend.answer_all(Reply::ok());
        delivered(&bridge, 75).await;
        let after = backend.requests().split_off(before);
        let first = after
            .iter()
            .filter(|r| r.is_delivered() && r.data == "temp#0");
        let first: Vec<_> = first.map(|request| request.at).collect();
        // Few may have been told 404 after the first was delivered.
        let released = first[20] - first[0];
        assert!(released < Duration::from_secs(3), "{released:?}");
        assert_eq!(bridge.stats().uplink.lost.total(), 0, "{status}");
        backend.assert_in_order();
        end(bridge).await;
    });
    join_all(tries).await;
}

async fn start_with(config: Config, hooks: Arc<dyn Hooks>) -> Bridge {
    let builder = Bridge::builder(config).shared_hooks(hooks);
    builder.start().await.expect("it starts")
}

async fn connect(bridge: &Bridge, name: &str, count: usize) -> Vec<Device> {
    let mut devices = Vec::new();
    for n in 0..count {
        devices.push(Device::connect(bridge.local_addr(), &format!("{name}{n}")).await);
    }
    devices
}

/// Each says `temp#n` for each of these numbers.
async fn say(devices: &mut [Device], numbers: std::ops::Range<u32>) {
    for n in numbers {
        for device in &mut *devices {
            device.send(format!("temp#{n}")).await;
        }
    }
}

async fn delivered(bridge: &Bridge, count: u64) {
    let mut before = 0;
    while before < count {
        before = eventually(
            &format!("more than {before} of {count} delivered"),
            async || Some(bridge.stats().uplink.delivered).filter(|now| *now > before),
        )
        .await;
    }
}

/// Stops it and sees that nothing was left and the books are even.
async fn end(bridge: Bridge) {
    let leftover = bridge.stop(DEADLINE).await;
    assert!(leftover.is_empty(), "{leftover:?}");
    let uplink = bridge.stats().uplink;
    assert_eq!(uplink.held, 0);
    assert_eq!(uplink.received, uplink.delivered + uplink.lost.total());
}
