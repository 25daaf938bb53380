//! A backend closes a connection that was idle for long enough, and the gateway notices before it uses it.

use fastsock::{Bridge, Config, Secret};
use futures_util::future::join_all;
use support::{DEADLINE, Device, eventually};
use tokio::join;

use crate::{
    common::{assert_asked, assert_each_once, assert_on_time, keys_stay},
    server::{Kind, Server, TinyProxy, wait_all_closed},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node() {
    join!(is_noticed(Kind::Node), is_noticed(Kind::NodeTls));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gunicorn() {
    join!(is_noticed(Kind::Gunicorn), is_noticed(Kind::GunicornTls));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uvicorn() {
    join!(is_noticed(Kind::Uvicorn), is_noticed(Kind::UvicornTls));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx() {
    join!(
        is_noticed(Kind::Nginx),
        is_noticed(Kind::NginxTls),
        is_noticed(Kind::NginxHttp2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tinyproxy() {
    let proxied = async |kind| {
        let (server, proxy) = (Server::start(kind).await, TinyProxy::start().await);
        let url = Some(Secret::new(proxy.url()));
        let config = server.config().http_proxy(url.clone()).https_proxy(url);
        devices(&server, config, proxy.port()).await;
    };
    // A request for a whole URL, and a tunnel.
    join!(proxied(Kind::Node), proxied(Kind::NodeTls));
}

/// Uplinks, events, the webhook and a JWK set, all from one backend.
async fn is_noticed(kind: Kind) {
    let server = Server::start(kind).await;
    let port = server.addr().port();
    join!(devices(&server, server.config(), port), keys_stay(&server));
}

/// Twice, with the backend's time-out in between: many devices connect, and all that are there speak at once.
async fn devices(server: &Server, config: Config, port: u16) {
    let bridge = Bridge::builder(config).start().await.expect("it starts");
    let mut devices = Vec::new();
    for round in 1..=2 {
        let names: Vec<_> = (0..DEVICES).map(|n| format!("dev{round}-{n}")).collect();
        let connecting = names
            .iter()
            .map(|name| Device::connect(bridge.local_addr(), name));
        devices.extend(join_all(connecting).await);
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
        if round == 1 {
            wait_all_closed(port).await;
        }
    }
    assert_on_time(&bridge);
    assert_each_once(server, "/uplink", 3 * DEVICES).await;
    assert_each_once(server, "/events", 2 * DEVICES).await;
    assert_asked(server, 2 * DEVICES).await;
    drop(devices);
    bridge.stop(DEADLINE).await;
}

const DEVICES: usize = 12;
