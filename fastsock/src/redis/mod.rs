//! What the broker and the spool share of Redis: where it is, connections to it, what it refuses, leases.

pub(crate) mod address;
pub(crate) mod check;
#[cfg(feature = "redis-cluster")]
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod glob;
pub(crate) mod lease;
pub(crate) mod rights;
pub(crate) mod script;
mod sentinel;
pub(crate) mod sharded;
pub(crate) mod supervisor;
pub(crate) mod tap;
#[cfg(test)]
pub(crate) mod temp_redis;
pub(crate) mod trouble;
