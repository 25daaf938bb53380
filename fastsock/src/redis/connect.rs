//! Connecting as the settings say: to the one server, to the master that a sentinel names, or to a cluster.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

#[cfg(all(feature = "redis-spool", feature = "redis-cluster"))]
pub(crate) use super::cluster::servers_of;
#[cfg(feature = "redis-cluster")]
pub(crate) use super::cluster::{Redis, all_servers};
#[cfg(feature = "redis-cluster")]
pub(crate) use super::cluster::{by_all_servers, learn_whole, masters_of, spread};
use super::{
    address::{Address, Topology},
    connection::Connection,
    error::LinkError,
    sentinel,
    tap::Listener,
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

/// The connections to all servers that have keys: the one.
#[cfg(not(feature = "redis-cluster"))]
pub(crate) async fn all_servers(redis: &Redis) -> redis::RedisResult<Vec<MultiplexedConnection>> {
    Ok(vec![redis.clone()])
}

/// Sends a command by all servers that have slots: the one. Returns how many those are.
#[cfg(not(feature = "redis-cluster"))]
pub(crate) async fn by_all_servers(
    redis: &Redis,
    command: &redis::Cmd,
) -> redis::RedisResult<usize> {
    command.exec_async(&mut redis.clone()).await?;
    Ok(1)
}

/// Which of these keys go over which connection: all over the one.
#[cfg(not(feature = "redis-cluster"))]
pub(crate) async fn spread(
    redis: &Redis,
    keys: &[String],
) -> redis::RedisResult<Vec<(MultiplexedConnection, Vec<String>)>> {
    Ok(vec![(redis.clone(), keys.to_vec())])
}

/// The servers that have slots; none without a cluster.
#[cfg(not(feature = "redis-cluster"))]
pub(crate) fn masters_of(_: &Redis) -> std::collections::BTreeSet<super::connection::Server> {
    std::collections::BTreeSet::new()
}

/// Learns again who has which slots, from all servers. Returns whether that is news; without a cluster it never is.
#[cfg(not(feature = "redis-cluster"))]
pub(crate) async fn learn_whole(_: &Redis) -> bool {
    false
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
        return nodes.all(answer, None).await;
    }
    let one = open_one(address, At::Any, answer, None).await?;
    #[cfg(feature = "redis-cluster")]
    let one = one.map(Redis::One);
    Ok(one)
}

/// Connects to where shard channels are heard: to all servers of a cluster; else that is the connection `one`.
pub(crate) async fn open_shards(
    #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables))] address: &Address,
    one: &Connection<MultiplexedConnection>,
    #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables))] answer: Duration,
    #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables))] listener: Listener,
) -> Result<Connection<Redis>, LinkError> {
    #[cfg(feature = "redis-cluster")]
    if let Topology::Cluster(nodes) = &address.topology {
        return nodes.all(answer, listener).await;
    }
    let one = one.clone();
    #[cfg(feature = "redis-cluster")]
    let one = one.map(Redis::One);
    Ok(one)
}

/// Connects to the master, or to one server of a cluster. Where one server is named, it may be a replica: what is published
/// on its master is heard there, and it may become the master. `listener` is called by the reader of the connection and must
/// not wait.
pub(crate) async fn open_one(
    address: &Address,
    #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables))] at: At<'_>,
    answer: Duration,
    listener: Listener,
) -> Result<Connection<MultiplexedConnection>, LinkError> {
    let timeouts = address.timeouts(answer);
    match &address.topology {
        Topology::Direct(info) => Connection::to_best(info, timeouts, &listener).await,
        Topology::Sentinel {
            sentinels,
            service,
            login,
        } => sentinel::to_master(sentinels, service, login, timeouts, &listener).await,
        #[cfg(feature = "redis-cluster")]
        Topology::Cluster(nodes) => match at {
            At::Any => nodes.any(answer, listener).await,
            At::Key(key) => nodes.of_key(key, answer).await,
        },
    }
}
