//! `FASTSOCK_SUBPROTOCOLS` and `FASTSOCK_SUBPROTOCOL_MISMATCH`.

use fastsock::Bridge;
use support::{Device, End, RawDevice};

use crate::common::{bridge, wait_only};

const OURS: (&str, &str) = ("subprotocols", "ocpp2.0.1,ocpp1.6");

/// Head of the answer, and the device.
async fn offer(bridge: &Bridge, target: &str, list: &str) -> (String, RawDevice) {
    let mut device = RawDevice::connect(bridge.local_addr()).await;
    let line = format!("Sec-WebSocket-Protocol: {list}");
    device
        .write(RawDevice::upgrade_request(target, &[&line]).into_bytes())
        .await;
    (device.read_head().await, device)
}

fn chosen(head: &str) -> Option<&str> {
    let line = head
        .lines()
        .find(|l| l.starts_with("Sec-WebSocket-Protocol: "))?;
    line.split_once(": ").map(|(_, name)| name)
}

#[tokio::test]
async fn the_first_of_ours_that_is_offered_is_chosen() {
    let bridge = bridge(&[OURS, ("ack", "on")]).await;
    for (list, expected) in [
        ("ocpp1.6, ocpp2.0.1", Some("ocpp2.0.1")),
        ("ocpp1.5, ocpp1.6", Some("ocpp1.6")),
        ("ocpp1.6,fastsock.v1.ack", Some("fastsock.v1.ack")),
        ("ocpp1.5", None),
        ("fastsock-token.x", None),
    ] {
        let (head, _device) = offer(&bridge, "/?token=dev1", list).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{list}: {head}");
        assert_eq!(chosen(&head), expected, "{list}");
    }
}

#[tokio::test]
async fn with_close_a_device_of_another_protocol_gets_its_101_and_1002_and_is_never_seated() {
    let bridge = bridge(&[OURS, ("subprotocol_mismatch", "close")]).await;
    let seated = Device::connect(bridge.local_addr(), "dev1").await; // offers none
    wait_only(&bridge, "dev1").await;
    let before = bridge.clients();
    let (head, mut device) = offer(&bridge, "/?token=dev1", "ocpp1.5, fastsock-token.x").await;
    assert!(
        head.starts_with("HTTP/1.1 101") && chosen(&head).is_none(),
        "{head}"
    );
    let end = device.end().await;
    assert_eq!(
        end,
        End::Close(Some(1002), "no subprotocol in common".into())
    );
    assert_eq!(bridge.clients(), before, "no takeover");
    let stats = bridge.stats();
    assert_eq!((stats.sessions.opened, stats.sessions.connected), (1, 1));
    // It is closed only once it is known who it is.
    let (head, _device) = offer(&bridge, "/", "ocpp1.5").await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    drop(seated);
}

#[tokio::test]
async fn with_refuse_it_gets_400() {
    let bridge = bridge(&[OURS, ("subprotocol_mismatch", "refuse")]).await;
    let (head, _device) = offer(&bridge, "/?token=dev1", "ocpp1.5").await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    for list in ["ocpp1.6", "fastsock-token.x"] {
        let (head, _device) = offer(&bridge, "/?token=dev1", list).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{list}: {head}");
    }
    let _none = Device::connect(bridge.local_addr(), "dev2").await;
}
