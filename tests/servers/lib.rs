//! What every test of the project may start: a redis-server, any other process, on ports of its own. Nothing here imports fastsock, so
//! the unit tests of the core use the same servers as the tests beside it, whatever features they are built with.
#![allow(
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    reason = "this is for tests, and panicking is what it is for"
)]

mod ports;
mod process;
mod redis;
mod tls;
mod wait;

pub use self::{
    ports::{bound_again, free_port, reachable},
    process::Process,
    redis::{RedisBuilder, TempRedis, TempSentinel},
    tls::{Authority, Identity},
    wait::{DEADLINE, POLL, Settled, eventually, eventually_within, until, wait_until, within},
};
