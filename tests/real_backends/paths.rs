//! A client id in the URL stays in its segment, whatever the server behind does with what is percent-encoded: nginx decodes a path
//! and then resolves dots and slashes in it, Node leaves that to its program.

use fastsock::Bridge;
use support::{DEADLINE, Device, eventually};

use crate::server::{Kind, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_id_leaves_its_segment() {
    tokio::join!(stays(Kind::Nginx), stays(Kind::Node));
}

async fn stays(kind: Kind) {
    let server = Server::start(kind).await;
    let url = server.url("/devices/{client_id}/messages");
    let config = support::loopback().remote_url(Some(url));
    let bridge = Bridge::builder(config).start().await.expect("it starts");
    for id in [
        "dev1", "a b", "%2e%2e", "%2F", "..%2f..", "...", "..;", "a?b#c", "ü€", "%00", "&=+",
    ] {
        let mut device = Device::connect(bridge.local_addr(), id).await;
        device.send("hi").await;
        let expected = format!("/devices/{id}/messages");
        eventually(&format!("{kind:?} has a message of {id:?}"), async || {
            server.paths().pop().is_some_and(|path| path == expected)
        })
        .await;
    }
    for id in [
        "..",
        ".",
        "a/b",
        "../../admin",
        "a/../../../admin",
        "\\..\\",
        "\0",
    ] {
        let refused = Device::try_connect(bridge.local_addr(), id).await;
        assert_eq!(refused.unwrap_err().status, 400, "{id:?}");
    }
    bridge.stop(DEADLINE).await;
    parts_stay(&server, kind).await;
}

/// The same for the named parts of a path, each a segment of its own.
async fn parts_stay(server: &Server, kind: Kind) {
    let mut config = support::loopback().remote_url(Some(server.url("/{tenant}/devices/{id}")));
    config.set("device_paths", "/t/{tenant}/{id}").unwrap();
    config.set("client_id", "{tenant}/{id}").unwrap();
    let bridge = Bridge::builder(config).start().await.expect("it starts");
    for (tenant, id) in [
        ("acme", "CP1"),
        ("a b", "%2e%2e"),
        ("%2e%2e", "%2F"),
        ("..%2f..", "ü€"),
        ("...", "..;"),
    ] {
        let encoded =
            |text: &str| -> String { text.bytes().map(|b| format!("%{b:02X}")).collect() };
        let target = format!("/t/{}/{}", encoded(tenant), encoded(id));
        let device = Device::request(bridge.local_addr(), &target, &[]).await;
        device.unwrap().send("hi").await;
        let expected = format!("/{tenant}/devices/{id}");
        eventually(&format!("{kind:?} has a message of {target}"), async || {
            server.paths().pop().is_some_and(|path| path == expected)
        })
        .await;
    }
    for target in [
        "/t/../x",
        "/t/x/%2e%2e",
        "/t/a%2Fb/x",
        "/t/x/..%2F..%2Fadmin",
        "/t/x/a%5C..%5Cb",
        "/t/x/%00",
    ] {
        let refused = Device::request(bridge.local_addr(), target, &[]).await;
        assert_eq!(refused.unwrap_err().status, 400, "{target}");
    }
    bridge.stop(DEADLINE).await;
}
