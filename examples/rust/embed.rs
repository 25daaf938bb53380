//! A host with a bridge in its own process: greets who connects, answers `ping`, forwards the rest, and logs.
//! The same program is `examples/c/embed.c`, `examples/cpp/embed.cpp` and `examples/python/embed.py`.
//!
//! Run it with `cargo run -p fastsock-examples`, connect a device to ws://127.0.0.1:3000/?token=dev1; Enter ends it.

#![allow(clippy::disallowed_methods, reason = "a host may read its environment")]

use std::{sync::OnceLock, time::Duration};

use fastsock::{
    Client, CloseReason, Config, Decision, Hooks, Ticket, Uplink, UplinkAction, WeakBridge,
    blocking::Bridge,
};

/// What the host does when something happens. None of it may block.
#[derive(Default)]
struct Host {
    bridge: OnceLock<WeakBridge>,
}

impl Hooks for Host {
    fn on_start(&self, bridge: &WeakBridge) {
        let _ = self.bridge.set(bridge.clone());
    }

    fn on_connect(&self, client: &Client) {
        println!("{} connected", client.client_id);
        if let Some(bridge) = self.bridge.get() {
            let _ = bridge.send_here(&client.client_id, "welcome".into());
        }
    }

    fn on_uplink(&self, uplink: &Uplink, _: Ticket) -> Decision<UplinkAction> {
        println!("{} says {}", uplink.client_id, uplink.payload.to_text());
        Decision::Now(match uplink.payload.as_bytes().as_ref() {
            b"ping" => UplinkAction::Reply("pong".into()),
            _ => UplinkAction::Forward,
        })
    }

    fn on_disconnect(&self, client: &Client, reason: &CloseReason) {
        println!("{} left: {reason}", client.client_id);
    }
}

fn main() -> Result<(), fastsock::Error> {
    let config = Config::from_vars(std::env::vars())?;
    let bridge = Bridge::builder(config).hooks(Host::default()).start()?;
    println!("listening on {}", bridge.local_addr());
    let _ = std::io::stdin().read_line(&mut String::new());
    let leftover = bridge.stop(Duration::from_secs(8));
    println!("stopped; {} uplinks left", leftover.uplinks);
    Ok(())
}
