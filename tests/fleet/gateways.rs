//! Three gateways, each with lines of its own.

use std::net::SocketAddr;

use parking_lot::Mutex;
use support::{Backend, Gateway, Line};

use super::backing::Backing;

pub(crate) const GATEWAYS: usize = 3;

/// Where each gateway is now, for devices and publishers. One that is dead keeps its place.
#[derive(Default)]
pub(crate) struct Places(Mutex<Vec<Place>>);

#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) devices: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Places {
    pub(crate) fn of(&self, gateway: usize) -> Place {
        self.0.lock()[gateway]
    }

    pub(crate) fn all(&self) -> Vec<Place> {
        self.0.lock().clone()
    }

    pub(crate) fn set(&self, gateway: usize, place: Place) {
        let mut places = self.0.lock();
        match places.get_mut(gateway) {
            Some(before) => *before = place,
            None => places.push(place),
        }
    }
}

/// Starts one, and says where it is.
pub(crate) async fn start(
    number: usize,
    backing: &Backing,
    to_backend: &Line,
    events: &Backend,
    places: &Places,
) -> Gateway {
    let mut builder = Gateway::builder()
        .admin()
        .var("FASTSOCK_BROKER", "redis")
        .var("FASTSOCK_NODE_NAME", format!("gateway-{number}"))
        .var("FASTSOCK_SPOOL", "redis")
        .var("FASTSOCK_MAILBOX", "redis")
        .var("FASTSOCK_MAILBOX_MESSAGES", "1000000")
        .var("FASTSOCK_MAILBOX_BYTES", "1073741824")
        .var("FASTSOCK_ACK", "on")
        .var("REMOTE_URL", format!("http://{}/", to_backend.addr()))
        .var("FASTSOCK_REMOTE_TIMEOUT", "3s")
        .var("FASTSOCK_EVENTS_URL", events.url())
        .var("FASTSOCK_EVENTS_GRACE", "1s")
        .var("WEBSOCKET_PING_INTERVAL", "2000")
        .var("LOG_LEVEL", "info")
        .var("FASTSOCK_LOG_FILE", "off")
        .var("FASTSOCK_LOG_PAYLOADS", "none");
    for (name, value) in backing.vars(number) {
        builder = builder.var(name, value);
    }
    let gateway = builder.start().await;
    let place = Place {
        devices: gateway.addr(),
        admin: gateway.admin_addr(),
    };
    places.set(number, place);
    gateway
}
