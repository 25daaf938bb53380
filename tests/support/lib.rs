//! What the end-to-end tests are made of: devices, a backend, Redis and the gateway, all real, all on loopback. What needs nothing of
//! fastsock is in the crate `fastsock_servers`, which unit tests use too.
//!
//! Everything here panics when it is not given what it waits for within [`DEADLINE`]: that is how a test fails. Nothing
//! sleeps for a fixed time; what must be waited for is waited for with [`eventually`] or a method named `wait_…`.
//!
//! | type | is |
//! |---|---|
//! | [`Device`] | a device with a WebSocket library |
//! | [`RawDevice`], [`Frame`] | a device that speaks bytes |
//! | [`Backend`], [`Reply`] | the HTTP server that takes uplinks, with scripted answers |
//! | [`Proxy`] | an HTTP proxy on the way there |
//! | [`TempRedis`], [`TempSentinel`] | servers of the test's own, to be stopped, frozen and restarted |
//! | [`TempCluster`] | a Redis Cluster of the test's own |
//! | [`Relay`] | a long way to a server |
//! | [`Gateway`] | the `fastsock` binary as a process |
//! | [`Storm`] | hostile sockets of many kinds |
//! | [`Line`] | a way to a server that can be cut |
//! | [`OwnNetwork`] | a network for a test that needs a port by its number |
//! | [`LostUplinks`], [`LostKept`] | hooks that note what was lost |
//! | [`is_alone`] | a process of its own for one test |
//! | [`Authority`] | a certificate authority for the TLS variants |
#![allow(
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a host, and panicking is what it is for"
)]

mod alone;
mod backend;
mod bridge;
mod cluster;
mod device;
mod frame;
mod gateway;
mod hooks;
mod http_call;
mod lease;
mod line;
mod own_network;
mod proxy;
mod raw_device;
mod relay;
mod storm;

pub use fastsock_servers::{
    Authority, DEADLINE, Identity, Process, RedisBuilder, Settled, TempRedis, TempSentinel,
    eventually, eventually_within, free_port, reachable, until, wait_until, within,
};

pub use self::{
    alone::is_alone,
    backend::{Backend, HTTP2_STREAMS, Received, Reply},
    bridge::{config, loopback, on_redis, start},
    cluster::TempCluster,
    device::{Attended, Closed, Device, Refused},
    frame::{Frame, opcode},
    gateway::{Gateway, GatewayBuilder, gateway_binary},
    hooks::{LostKept, LostUplinks},
    http_call::{Answer, call, get},
    lease::Lease,
    line::Line,
    own_network::OwnNetwork,
    proxy::Proxy,
    raw_device::{End, RawDevice},
    relay::Relay,
    storm::{Fate, Storm, Tally},
};
