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
mod calls;
mod config;
mod context;
#[cfg(feature = "disk")]
mod data_file;
mod dead_letters;
mod error;
mod files;
mod forwarder;
mod gateway;
mod groups;
mod handover;
mod histogram;
mod hooks;
mod host;
#[cfg(any(test, inside))]
#[doc(hidden)]
#[path = "../../fuzz/inside/mod.rs"]
pub mod inside;
mod inspect;
mod locks;
mod mailbox;
mod maps;
mod metrics;
mod net;
mod node;
#[cfg(feature = "otlp")]
mod otlp;
mod pure;
#[cfg(feature = "redis")]
mod redis;
mod registry;
mod remote_addr;
mod spool;
mod stats;
mod status;
mod tasks;
mod trace;
mod trace_context;
mod types;
mod uplinks;
mod verbs;

pub use bridge::{Bridge, Builder};
pub use calls::CallMatch;
pub use config::{
    AuthKind, BrokerKind, ClientAuth, Config, DownlinkBinary, DuplicatePolicy, Fsync,
    Full as DownlinkFull, Gone as RemoteGone, Headers, HostSetting, Http2, Known, Layers,
    MailboxKind, Merged, RemoteBody, Route, Routes, Secret, Setting, Source, SpoolKind,
    SubprotocolMismatch, Subscribe, UplinkBinary, UplinkFull, ValueKind, Warning, sections,
};
pub use context::{CertificateNames, Context, Metadata, Parts};
pub use error::{Error, ErrorKind, Result};
pub use groups::Group;
pub use handover::Handover;
pub use hooks::{Accepted, Admission, Answer, Decision, Hooks, UplinkAction, WeakBridge};
pub use host::events;
pub use inspect::{
    DestinationStatus, DeviceStatus, Disconnect, DownlinkStatus, GatewayStatus, LimitStatus,
    MailboxStatus, Quantiles, RedisStatus, RouteStatus, SessionStatus, SlowDevice, SpoolStatus,
    UplinkStatus,
};
pub use mailbox::{KeepOptions, Kept, SEND_SCRIPT as REDIS_SEND_SCRIPT};
pub use metrics::{Metric, MetricKind, MetricsFormat};
pub use node::Node;
pub use remote_addr::RemoteAddr;
pub use stats::{
    Counters, DownlinkBooks, DownlinkLost, LifecycleBooks, LifecycleLost, MailboxBooks,
    MailboxLost, SessionBooks, Stats, UplinkBooks, UplinkLost,
};
pub use trace::{Trace, TraceEvent, Traced, TracedMessage};
pub use trace_context::TraceContext;
pub use types::{
    Basic, Client, ClientId, CloseReason, ConnectRequest, Credentials, DeadLetter, Leftover,
    LostReason, MailboxState, Payload, Presence, Refusal, Sent, SessionId, State, Ticket, Uplink,
    unix_ms,
};
pub use verbs::fleet::DeviceNode;
