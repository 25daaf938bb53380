//! Where it listens, and what it does to the limits of its process.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use support::{Device, Gateway, eventually, free_port};
use tokio::net::TcpStream;

use crate::common::alone;

#[tokio::test]
async fn devices_connect_over_ipv4_and_ipv6_to_one_port() {
    let gateway = alone().start().await;
    let (v4, v6) = both(gateway.addr().port());
    let mut devices = Vec::new();
    for (addr, id) in [(v4, "four"), (v6, "six")] {
        devices.push(Device::connect(addr, id).await);
        let line = connected(&gateway, id).await;
        let remote_addr: SocketAddr = line["remote_addr"].as_str().unwrap().parse().unwrap();
        assert_eq!(
            remote_addr.ip(),
            addr.ip(),
            "as the device has it, not mapped"
        );
    }
}

#[tokio::test]
async fn a_listen_address_narrows_it() {
    for (only, is_v4) in [("127.0.0.1", true), ("::1", false)] {
        let gateway = alone().var("FASTSOCK_LISTEN_ADDR", only).start().await;
        let (v4, v6) = both(gateway.addr().port());
        assert_eq!(TcpStream::connect(v4).await.is_ok(), is_v4, "{only}");
        assert_eq!(TcpStream::connect(v6).await.is_ok(), !is_v4, "{only}");
    }
}

#[tokio::test]
async fn a_port_that_another_gateway_has_is_exit_1_and_named() {
    let first = alone().start().await;
    let port = first.addr().port().to_string();
    let mut second = alone().var("WEBSOCKET_PORT", &port).launch();
    assert_eq!(second.exit_code().await, Some(1));
    let stderr = second.stderr();
    assert_eq!(stderr.len(), 1, "{stderr:?}");
    assert!(
        stderr[0].contains("WEBSOCKET_PORT") && stderr[0].contains(&port),
        "{stderr:?}"
    );
    Device::connect(first.addr(), "undisturbed").await;
}

#[tokio::test]
async fn with_reuseport_two_gateways_share_a_port() {
    let port = free_port().to_string();
    let start = || {
        let builder = alone().var("WEBSOCKET_PORT", &port);
        builder.var("FASTSOCK_LISTEN_REUSEPORT", "on").start()
    };
    let gateways = [start().await, start().await];
    let mut devices = Vec::new();
    eventually("the kernel has given each of them a device", async || {
        devices.push(Device::connect(gateways[0].addr(), "dev").await);
        gateways
            .iter()
            .all(|gateway| !gateway.lines_with("Client connected").is_empty())
    })
    .await;
}

#[tokio::test]
async fn the_soft_descriptor_limit_is_raised_to_the_hard_one() {
    let gateway = alone().descriptors(256, 512).start().await;
    let line = gateway.wait_line("Descriptor limit").await;
    assert_eq!((&line["from"], &line["to"]), (&256.into(), &512.into()));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.process().pid()));
    let limits = limits.unwrap();
    let files = limits.lines().find(|l| l.starts_with("Max open files"));
    let files: Vec<_> = files.unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["512", "512"]);
}

async fn connected(gateway: &Gateway, client_id: &str) -> serde_json::Value {
    let what = format!("{client_id} connected");
    gateway
        .wait_line_where(&what, |line| {
            line["message"] == "Client connected" && line["client_id"] == client_id
        })
        .await
}

fn both(port: u16) -> (SocketAddr, SocketAddr) {
    (
        (Ipv4Addr::LOCALHOST, port).into(),
        (Ipv6Addr::LOCALHOST, port).into(),
    )
}
