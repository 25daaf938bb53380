//! Fastsock keeps devices on WebSockets. It carries what a backend PUBLISHes in Redis down to them (*downlink*), and
//! POSTs their messages to an HTTP endpoint (*uplink*).
//!
//! Start with [`Bridge`]. [`Config`] has the settings, [`Hooks`] the callbacks, and [`blocking::Bridge`] brings its own runtime.
#![warn(missing_docs, missing_debug_implementations)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![forbid(unsafe_code)]

#[cfg(feature = "admin")]
mod admin;
mod auth;
pub mod blocking;
mod bridge;
mod broker;
mod config;
mod dead_letters;
mod error;
mod files;
mod forwarder;
mod gateway;
mod hooks;
mod host;
#[cfg(any(test, inside))]
#[doc(hidden)]
#[path = "../../fuzz/inside/mod.rs"]
pub mod inside;
mod maps;
mod net;
mod node;
mod pure;
#[cfg(feature = "redis")]
mod redis;
mod registry;
mod remote_addr;
mod spool;
mod stats;
mod status;
mod tasks;
mod types;
mod uplinks;
mod verbs;

pub use bridge::{Bridge, Builder};
pub use config::{
    AuthKind, BrokerKind, ClientAuth, Config, DownlinkBinary, DuplicatePolicy, Fsync,
    Full as DownlinkFull, Gone as RemoteGone, Headers, Http2, Secret, Setting, SpoolKind,
    Subscribe, UplinkBinary, UplinkFull, ValueKind, Warning, flatten, nearest,
};
pub use error::{Error, ErrorKind, Result};
pub use hooks::{Admission, Answer, Decision, Hooks, UplinkAction, WeakBridge};
pub use host::events;
pub use remote_addr::RemoteAddr;
pub use stats::{
    Counters, DownlinkBooks, DownlinkLost, LifecycleBooks, LifecycleLost, SessionBooks, Stats,
    UplinkBooks, UplinkLost,
};
pub use types::{
    Client, ClientId, CloseReason, ConnectRequest, Credentials, DeadLetter, Leftover, LostReason,
    Payload, Refusal, Sent, SessionId, State, Ticket, Uplink, unix_ms,
};
