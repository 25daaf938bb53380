//! Fastsock keeps devices on WebSockets, carries what a backend PUBLISHes in Redis down to them (*downlink*), and
//! POSTs what they say to an HTTP endpoint (*uplink*).
#![warn(missing_docs, missing_debug_implementations)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![forbid(unsafe_code)]

mod backoff;
pub mod blocking;
mod bridge;
mod broker;
mod config;
mod error;
mod forwarder;
mod hooks;
mod http;
mod stats;
mod tasks;
#[cfg(feature = "tls")]
mod tls;
mod types;

pub use bridge::{Bridge, Builder};
pub use config::*;
pub use error::*;
pub use hooks::*;
pub use stats::{
    Counters, DownlinkBooks, DownlinkLost, SessionBooks, Stats, UplinkBooks, UplinkLost,
};
pub use types::*;
