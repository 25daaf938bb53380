//! Connecting to Redis: to the master, to what a sentinel names as such, or to a server of a cluster.
//!
//! A name may have several addresses, there may be several sentinels, and a cluster has several servers. One that is dead
//! often says nothing at all, so the next is tried beside it after a moment ([`first_of`]).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, PushInfo, PushKind, RedisFuture,
    Value, aio::MultiplexedConnection, io::AsyncDNSResolver,
};
use tokio::{
    net::lookup_host,
    sync::Notify,
    time::{sleep, timeout},
};

#[cfg(feature = "redis-cluster")]
pub(crate) use super::cluster::Redis;
#[cfg(all(feature = "redis-spool", feature = "redis-cluster"))]
pub(crate) use super::cluster::servers_of;
use super::{
    address::{self, Address, Topology},
    error::{Failure, LinkError},
};
use crate::{
    net::racing::{self, ADDRESS_HEAD_START},
    tasks::BoxFuture,
};

/// A connection, and how to learn that it is no good any more.
#[derive(Clone)]
pub(crate) struct Connection<R = Redis> {
    pub(crate) redis: R,
    /// Notified when it is lost, or when someone found it useless.
    pub(crate) lost: Arc<Notify>,
    /// Whether it leads to a master. Only a name without a master leads to a replica.
    pub(crate) is_master: bool,
    guide: Option<Guide>,
}

/// Which of the sentinels led to the master, and by which address.
#[derive(Clone)]
struct Guide {
    sentinel: usize,
    named: (String, u16),
}

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

/// Called with what a connection is pushed, by its reader: must not wait. One type, so that connecting is there once.
pub(crate) type OnPush = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// For a connection that is pushed nothing.
pub(crate) fn heedless() -> OnPush {
    Arc::new(|_| {})
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

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For DNS, TCP, TLS and login together.
    pub(crate) connect: Duration,
    /// For an answer.
    pub(crate) answer: Duration,
}

impl Connection {
    /// Connects to the master, or to all of a cluster. An answer that takes longer than `answer` is an error.
    pub(crate) async fn open(address: &Address, answer: Duration) -> Result<Self, LinkError> {
        #[cfg(feature = "redis-cluster")]
        if let Topology::Cluster(nodes) = &address.topology {
            return nodes.all(answer).await;
        }
        let one = Connection::open_one(address, At::Any, answer, heedless()).await?;
        #[cfg(feature = "redis-cluster")]
        let one = Self {
            redis: Redis::One(one.redis),
            lost: one.lost,
            is_master: one.is_master,
            guide: one.guide,
        };
        Ok(one)
    }
}

impl Connection<MultiplexedConnection> {
    /// Connects to the master, or to one server of a cluster. Where one server is named, it may be a replica: what is published
    /// on its master is heard there, and it may become the master. `on_push` is called by the reader of the connection and must not
    /// wait.
    pub(crate) async fn open_one(
        address: &Address,
        #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables))] at: At<'_>,
        answer: Duration,
        on_push: OnPush,
    ) -> Result<Self, LinkError> {
        let patience = address.patience(answer);
        match &address.topology {
            Topology::Direct(info) => Self::to_best(info, patience, &on_push).await,
            Topology::Sentinel {
                sentinels,
                service,
                login,
            } => {
                let mut attempts: Vec<Attempt<'_, _>> = Vec::new();
                for (sentinel, (host, port)) in sentinels.iter().enumerate() {
                    let on_push = &on_push;
                    attempts.push(Box::pin(async move {
                        let connect = patience.connect;
                        let named = ask_sentinel(host, *port, service, login, connect).await?;
                        let info = address::master(named.0.clone(), named.1, login);
                        // A sentinel that was cut off may still name the old master, so the next one is asked then.
                        let connection = Self::to_master(&info, patience, on_push).await?;
                        let guide = Some(Guide { sentinel, named });
                        Ok(Self {
                            guide,
                            ..connection
                        })
                    }));
                }
                first_of(attempts, SERVER_HEAD_START).await
            }
            #[cfg(feature = "redis-cluster")]
            Topology::Cluster(nodes) => match at {
                At::Any => nodes.any(answer, on_push).await,
                At::Key(key) => nodes.of_key(key, answer).await,
            },
        }
    }

    async fn to_master(
        info: &ConnectionInfo,
        patience: Patience,
        on_push: &OnPush,
    ) -> Result<Self, LinkError> {
        let best = Self::to_best(info, patience, on_push).await?;
        if best.is_master {
            return Ok(best);
        }
        Err(LinkError::new("it is a replica, not the master").about(&info.addr().to_string()))
    }

    /// Connects to the master among the addresses of a name, or else to a replica.
    async fn to_best(
        info: &ConnectionInfo,
        patience: Patience,
        on_push: &OnPush,
    ) -> Result<Self, LinkError> {
        let name = info.addr().to_string();
        let mut addresses = timeout(patience.connect, addresses_of(info))
            .await
            .unwrap_or_else(|_| Err(too_slow(patience)))
            .map_err(|e| e.about(&name))?;
        let mut replica = None;
        while !addresses.is_empty() {
            let found = Self::to_any(info, &addresses, patience, Arc::default(), on_push).await;
            let (mut connection, address) = match (found, replica) {
                (Ok(found), _) => found,
                (Err(_), Some(replica)) => return Ok(replica),
                (Err(error), None) => return Err(error),
            };
            let is_master = is_master(&mut connection.redis).await;
            connection.is_master = is_master.map_err(|e| e.about(&name))?;
            if connection.is_master {
                return Ok(connection);
            }
            replica = Some(connection);
            addresses.retain(|other| *other != address);
        }
        replica.ok_or_else(|| LinkError::new("the name has no address").about(&name))
    }

    /// Connects to a server, whatever its role. `lost` is notified when it is lost.
    #[cfg(feature = "redis-cluster")]
    pub(crate) async fn to(
        info: &ConnectionInfo,
        patience: Patience,
        lost: Arc<Notify>,
        on_push: &OnPush,
    ) -> Result<Self, LinkError> {
        let connecting = async {
            let addresses = addresses_of(info).await?;
            let (connection, _) = Self::to_any(info, &addresses, patience, lost, on_push).await?;
            Ok(connection)
        };
        timeout(patience.connect, connecting)
            .await
            .unwrap_or_else(|_| Err(too_slow(patience).about(&info.addr().to_string())))
    }

    /// Logs in at the first of these addresses that lets us.
    async fn to_any(
        info: &ConnectionInfo,
        addresses: &[SocketAddr],
        patience: Patience,
        lost: Arc<Notify>,
        on_push: &OnPush,
    ) -> Result<(Self, SocketAddr), LinkError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(Some(patience.answer));
        let client = Client::open(info.clone())?;
        let mut attempts: Vec<Attempt<'_, _>> = Vec::new();
        for address in addresses {
            let (on_push, notify) = (Arc::clone(on_push), Arc::clone(&lost));
            let config = config
                .clone()
                .set_dns_resolver(Only(*address))
                .set_push_sender(move |push: PushInfo| -> Result<(), ()> {
                    if push.kind == PushKind::Disconnection {
                        notify.notify_one();
                    } else {
                        on_push(push);
                    }
                    Ok(())
                });
            let client = &client;
            attempts.push(Box::pin(async move {
                let redis = client.get_multiplexed_async_connection_with_config(&config);
                match redis.await.map_err(LinkError::from) {
                    Ok(redis) => Ok((redis, *address)),
                    Err(error) if addresses.len() == 1 => Err(error),
                    Err(error) => Err(error.about(&address.to_string())),
                }
            }));
        }
        let first = timeout(patience.connect, first_of(attempts, ADDRESS_HEAD_START)).await;
        let (redis, address) = first
            .unwrap_or_else(|_| Err(too_slow(patience)))
            .map_err(|e| e.about(&info.addr().to_string()))?;
        Ok((Self::new(redis, lost), address))
    }
}

impl<R> Connection<R> {
    pub(crate) fn new(redis: R, lost: Arc<Notify>) -> Self {
        Self {
            redis,
            lost,
            is_master: true,
            guide: None,
        }
    }

    /// Returns when the sentinel that led here names another master, with the last moment at which it did not. The old master
    /// is demoted only seconds later; until then it takes commands, and hears nothing of what is published on the new one.
    pub(crate) async fn moved(&self, address: &Address) -> (LinkError, SystemTime) {
        let (
            Some(guide),
            Topology::Sentinel {
                sentinels,
                service,
                login,
            },
        ) = (&self.guide, &address.topology)
        else {
            return std::future::pending().await;
        };
        let (host, port) = &sentinels[guide.sentinel];
        let mut confirmed = SystemTime::now();
        loop {
            sleep(ASK_EVERY).await;
            let asked = SystemTime::now();
            match ask_sentinel(host, *port, service, login, address.connect_timeout).await {
                Ok(named) if named != guide.named => {
                    let (host, port) = named;
                    let error = LinkError::new(format!("the master is {host}:{port} now"));
                    return (error, confirmed);
                }
                Ok(_) => confirmed = asked,
                Err(_) => {} // a sentinel that is away says nothing about the master
            }
        }
    }
}

/// An attempt to connect somewhere.
pub(crate) type Attempt<'a, T> = BoxFuture<'a, Result<T, LinkError>>;

/// As [`racing::first_of`], with what is wrong in one line.
pub(crate) async fn first_of<T>(
    attempts: Vec<Attempt<'_, T>>,
    head_start: Duration,
) -> Result<T, LinkError> {
    let first = racing::first_of(attempts, head_start).await;
    first.map_err(|errors| {
        let all = errors.into_iter().reduce(LinkError::and);
        all.unwrap_or_else(|| LinkError::new("there is no address"))
    })
}

/// The addresses of a server, each once.
async fn addresses_of(info: &ConnectionInfo) -> Result<Vec<SocketAddr>, LinkError> {
    let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) = info.addr()
    else {
        return Err(LinkError::new("only TCP is supported"));
    };
    let found = lookup_host((host.as_str(), *port))
        .await
        .map_err(|e| LinkError::new(e.to_string()))?;
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(LinkError::new("the name has no address")),
        false => Ok(addresses),
    }
}

/// A name that was looked up already.
struct Only(SocketAddr);

impl AsyncDNSResolver for Only {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        _: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let only: Box<dyn Iterator<Item = SocketAddr> + Send> = Box::new(std::iter::once(self.0));
        Box::pin(std::future::ready(Ok(only)))
    }
}

/// A replica takes no writes, and its subscribers hear the master only while it is linked to it.
async fn is_master(redis: &mut MultiplexedConnection) -> Result<bool, LinkError> {
    let role: Result<Vec<Value>, _> = redis::cmd("ROLE").query_async(redis).await;
    match role.map_err(Failure::from) {
        Ok(role) => Ok(!matches!(role.first(), Some(Value::BulkString(word)) if word != b"master")),
        // Some hosted ones forbid to ask; a replica then shows itself by its READONLY.
        Err(Failure::Refused(_)) => Ok(true),
        Err(Failure::Lost(error)) => Err(error),
    }
}

/// Which server is the master, says a sentinel.
async fn ask_sentinel(
    host: &str,
    port: u16,
    service: &str,
    login: &redis::RedisConnectionInfo,
    connect: Duration,
) -> Result<(String, u16), LinkError> {
    let ask = async |login| {
        let client = Client::open(address::sentinel_info(host, port, login))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect))
            .set_response_timeout(Some(SENTINEL_ANSWER));
        let mut sentinel = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        let found: Option<(String, u16)> = ask.query_async(&mut sentinel).await?;
        found.ok_or_else(|| LinkError::new(format!("it knows no master named {service:?}")))
    };
    // Most sentinels have no password, and refuse one then.
    let found = match ask(None).await {
        Err(error) if error.is_denied => ask(Some(login)).await,
        found => found,
    };
    found.map_err(|e| e.about(&format!("sentinel {host}:{port}")))
}

fn too_slow(patience: Patience) -> LinkError {
    LinkError::new(format!(
        "not connected within {} ms (FASTSOCK_REDIS_CONNECT_TIMEOUT)",
        patience.connect.as_millis()
    ))
}

/// How long a sentinel, or a server of a cluster, may take before the next is asked beside it.
pub(crate) const SERVER_HEAD_START: Duration = Duration::from_secs(1);

/// How long a sentinel may take to answer, once it is connected.
const SENTINEL_ANSWER: Duration = Duration::from_secs(2);

/// How often a sentinel is asked whether the master is the same.
const ASK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_is_wrong_is_told_in_one_line() {
        let of = |texts: &'static [&'static str]| {
            let failed = |text: &&'static str| -> Attempt<'static, ()> {
                Box::pin(std::future::ready(Err(LinkError::new(*text))))
            };
            first_of(texts.iter().map(failed).collect(), Duration::ZERO)
        };
        assert_eq!(
            of(&["one", "two", "two"]).await.unwrap_err().text,
            "one; two"
        );
        assert_eq!(of(&[]).await.unwrap_err().text, "there is no address");
    }
}
