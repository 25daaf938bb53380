//! Fastsock keeps devices on WebSockets, carries what a backend PUBLISHes in Redis down to them (*downlink*), and
//! POSTs what they say to an HTTP endpoint (*uplink*).
#![warn(missing_docs, missing_debug_implementations)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![cfg_attr(
    not(feature = "redis"),
    allow(
        dead_code,
        unused_imports,
        reason = "only a broker of several processes uses all of its port"
    )
)]
#![forbid(unsafe_code)]

#[cfg(feature = "admin")]
mod admin;
mod ahead;
mod auth;
mod backoff;
pub mod blocking;
mod bridge;
mod broker;
mod config;
mod dead_letters;
mod envelope;
mod error;
pub mod events;
mod files;
mod forwarder;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod handshake;
mod heartbeat;
mod hooks;
mod http;
mod lanes;
mod lifecycle;
mod limits;
mod linger;
mod losses;
mod maps;
#[cfg(feature = "micro")]
#[doc(hidden)]
pub mod micro;
mod outbox;
#[cfg(feature = "redis")]
mod presence;
mod proxy;
mod racing;
mod receipts;
mod registry;
mod remote_addr;
mod seat;
mod session;
mod shared;
mod socket;
#[allow(
    dead_code,
    reason = "some of it is only for a spool that gateways share, or for any spool at all"
)]
mod spool;
mod stats;
mod status;
mod surplus;
mod tasks;
#[cfg(feature = "tls")]
mod tls;
mod types;
mod verbs;
mod wire;

pub use bridge::{Bridge, Builder};
pub use config::*;
pub use error::*;
pub use hooks::{Admission, Answer, Decision, Hooks, UplinkAction, WeakBridge};
pub use remote_addr::RemoteAddr;
pub use stats::{
    Counters, DownlinkBooks, DownlinkLost, LifecycleBooks, LifecycleLost, SessionBooks, Stats,
    UplinkBooks, UplinkLost,
};
pub use types::*;
