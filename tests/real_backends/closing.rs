//! A backend reloads or restarts, and with it go the connections that the gateway has kept.

use std::time::Duration;

use fastsock::Bridge;
use futures_util::future::join_all;
use support::{DEADLINE, Device, eventually};
use tokio::{
    join,
    time::{Instant, sleep_until},
};

use crate::{
    common::{assert_asked, assert_each_once, assert_on_time, keys_stay},
    server::{Kind, Server},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_reloads_under_traffic() {
    join!(
        reloads_under_traffic(Kind::Nginx),
        reloads_under_traffic(Kind::NginxTls),
        reloads_under_traffic(Kind::NginxHttp2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_restarts() {
    join!(
        restarts(Kind::Node),
        restarts(Kind::NodeTls),
        restarts(Kind::Nginx),
        restarts(Kind::NginxHttp2)
    );
}

/// Devices come, speak as soon as they have the reply to what they said before, and leave, while the backend reloads again and
/// again.
async fn reloads_under_traffic(kind: Kind) {
    let server = Server::start(kind).await;
    let bridge = start(&server).await;
    let end = Instant::now() + TRAFFIC;
    let reloading = async {
        for left in (1..RELOADS).rev() {
            sleep_until(end - left * (TRAFFIC / RELOADS)).await;
            server.reload();
        }
    };
    let talking = join_all((0..DEVICES).map(|n| talk(&bridge, n, end)));
    let ((), _, ()) = join!(reloading, talking, keys_stay(&server));
    let stats = eventually("all is delivered", async || {
        let stats = bridge.stats();
        let is_told = stats.lifecycle.delivered == 2 * stats.sessions.opened;
        (is_told && stats.uplink.held == 0).then_some(stats)
    })
    .await;
    assert_on_time(&bridge);
    assert_each_once(&server, "/uplink", stats.uplink.received as usize).await;
    assert_each_once(&server, "/events", stats.lifecycle.made as usize).await;
    assert_asked(&server, stats.sessions.opened as usize).await;
    bridge.stop(DEADLINE).await;
}

async fn talk(bridge: &Bridge, n: usize, end: Instant) {
    for visit in 0.. {
        if Instant::now() >= end {
            return;
        }
        let name = format!("dev{n}-{visit}");
        let mut device = Device::connect(bridge.local_addr(), &name).await;
        for _ in 0..10 {
            device.send("hello").await;
            device.recv_text().await;
        }
        device.close(1000).await;
    }
}

/// All kept connections are gone at once; those who were there have something to say, and others come.
async fn restarts(kind: Kind) {
    let mut server = Server::start(kind).await;
    let bridge = start(&server).await;
    let mut devices = Vec::new();
    for round in 1..=ROUNDS {
        for n in 0..DEVICES {
            let name = format!("dev{round}-{n}");
            devices.push(Device::connect(bridge.local_addr(), &name).await);
        }
        for device in &mut devices {
            device.send("hello").await;
        }
        for device in &mut devices {
            device.recv_text().await;
        }
        eventually("all events are delivered", async || {
            bridge.stats().lifecycle.delivered == (round * DEVICES) as u64
        })
        .await;
        server.restart().await;
    }
    assert_on_time(&bridge);
    assert_each_once(&server, "/uplink", DEVICES * ROUNDS * (ROUNDS + 1) / 2).await;
    assert_each_once(&server, "/events", DEVICES * ROUNDS).await;
    assert_asked(&server, DEVICES * ROUNDS).await;
    drop(devices);
    bridge.stop(DEADLINE).await;
}

async fn start(server: &Server) -> Bridge {
    // Who leaves has left.
    let bridge = Bridge::builder(server.config().events_grace(Duration::ZERO));
    bridge.start().await.expect("it starts")
}

const DEVICES: usize = 12;
const ROUNDS: usize = 3;
const RELOADS: u32 = 6;
const TRAFFIC: Duration = Duration::from_secs(3);
