//! Connecting as the settings say: to the one server, to the master that a sentinel names, or to a cluster.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

#[cfg(feature = "redis-cluster")]
pub(crate) use super::cluster::Redis;
#[cfg(all(feature = "redis-spool", feature = "redis-cluster"))]
pub(crate) use super::cluster::servers_of;
use super::{
    address::{Address, Topology},
    connection::{Connection, OnPush, ignore_pushes},
    error::LinkError,
    sentinel,
};

/// What takes commands: one server, where no cluster is built in.
#[cfg(not(feature = "redis-cluster"))]
pub(crate) type Redis = MultiplexedConnection;

/// The connections that lead to these keys: the one.
#[cfg(all(feature = "redis-spool", not(feature = "redis-cluster")))]
pub(crate) async fn servers_of(
    redis: &Redis,
    _: impl IntoIterator<Item = &String>,
) -> redis::RedisResult<Vec<MultiplexedConnection>> {
    Ok(vec![redis.clone()])
}

/// Which server of a cluster.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "redis-cluster"), allow(dead_code))]
pub(crate) enum At<'a> {
    Any,
    /// The one that has a key.
    #[cfg_attr(not(feature = "redis-spool"), allow(dead_code))]
    Key(&'a [u8]),
}

/// Connects to the master, or to all of a cluster. An answer that takes longer than `answer` is an error.
pub(crate) async fn open(
    address: &Address,
    answer: Duration,
) -> Result<Connection<Redis>, LinkError> {
    #[cfg(feature = "redis-cluster")]
    if let Topology::Cluster(nodes) = &address.topology {
        return nodes.all(answer).await;
    }
    let one = open_one(address, At::Any, answer, ignore_pushes()).await?;
    #[cfg(feature = "redis-cluster")]
    let one = one.map(Redis::One);
    Ok(one)
}

/// Connects to the master, or to one server of a cluster. Where one server is named, it may be a replica: what is published
/// on its master is heard there, and it may become the master. `on_push` is called by the reader of the connection and must
/// not wait.
pub(crate) async fn open_one(
    address: &Address,
    #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables))] at: At<'_>,
    answer: Duration,
    on_push: OnPush,
) -> Result<Connection<MultiplexedConnection>, LinkError> {
    let timeouts = address.timeouts(answer);
    match &address.topology {
        Topology::Direct(info) => Connection::to_best(info, timeouts, &on_push).await,
        Topology::Sentinel {
            sentinels,
            service,
            login,
        } => sentinel::to_master(sentinels, service, login, timeouts, &on_push).await,
        #[cfg(feature = "redis-cluster")]
        Topology::Cluster(nodes) => match at {
            At::Any => nodes.any(answer, on_push).await,
            At::Key(key) => nodes.of_key(key, answer).await,
        },
    }
}
