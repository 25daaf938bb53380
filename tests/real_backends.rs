//! Backends that are no code of ours, and what they do with connections: close those that are idle, reload, restart. No
//! message is late, lost or there twice.
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks and threads"
)]

#[path = "real_backends/closing.rs"]
mod closing;
#[path = "real_backends/common.rs"]
mod common;
#[path = "real_backends/idle.rs"]
mod idle;
#[path = "real_backends/paths.rs"]
mod paths;
#[path = "real_backends/server.rs"]
mod server;
