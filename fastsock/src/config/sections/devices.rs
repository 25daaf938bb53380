//! What a device is called, and what it speaks.

use super::super::{
    SubprotocolMismatch,
    device_path::{ClientIdForm, DevicePath, check_subprotocols},
    section::section,
};

section! {
    /// What a device is called, and what it speaks.
    Devices = devices, "Paths and subprotocols of devices";
    /// Paths that devices connect to. `{id}` and other named parts stand for one segment each; the gateway decodes their percent-encoding. It answers other paths with 404. With `FASTSOCK_AUTH=open` the path names the device; else the credential must name the same one, or the gateway answers 403. Empty: any path, and it names nobody.
    device_paths => paths: Vec<String> = Vec::new(), "FASTSOCK_DEVICE_PATHS", "paths such as /ocpp/{id} or /tenants/{tenant}/devices/{id}/ws, separated by commas", "/ocpp/{id}", |list| list.iter().try_for_each(|text| DevicePath::parse(text).map(drop));
    /// Client id that the named parts of `FASTSOCK_DEVICE_PATHS` form. It has all of them, with something between two, so that no two devices get the same; a part that contains a character of what stands between gets 400.
    client_id => client_id: String = "{id}".into(), "FASTSOCK_CLIENT_ID", "text with {id} and the other named parts of FASTSOCK_DEVICE_PATHS", "{tenant}/{id}", |text| ClientIdForm::parse(text).map(drop);
    /// Subprotocols that the gateway speaks, the best first: it chooses the first of them that a device offers. `fastsock.v1.ack` comes before them where it is on. Empty: the first that the device offers.
    subprotocols => subprotocols: Vec<String> = Vec::new(), "FASTSOCK_SUBPROTOCOLS", "subprotocols such as ocpp2.0.1, separated by commas", "ocpp2.0.1,ocpp1.6", |list| check_subprotocols(list);
    /// What happens to a device that offers subprotocols, but none of `FASTSOCK_SUBPROTOCOLS`. `accept`: it connects without one. `close`: the gateway authenticates it, answers 101 without a subprotocol, and closes it with 1002 at once, as OCPP 1.6 demands. `refuse`: 400. A device that offers none connects.
    subprotocol_mismatch => mismatch: SubprotocolMismatch = SubprotocolMismatch::Accept, "FASTSOCK_SUBPROTOCOL_MISMATCH", "accept, close or refuse", "close";
    /// Takes and sends compressed messages with devices that offer `permessage-deflate` (RFC 7692); docs/device.md says what it costs. Other devices notice nothing of it.
    deflate => deflate: bool = false, "FASTSOCK_DEFLATE", "on or off", "on";
}
