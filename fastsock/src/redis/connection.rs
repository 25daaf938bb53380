//! A connection to one server, found by a name.
//!
//! A name may have several addresses, there may be several sentinels, and a cluster has several servers. One that is dead
//! often says nothing at all, so the next is tried beside it after a moment ([`first_of`]).

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, PushInfo, PushKind, RedisFuture,
    Value, aio::MultiplexedConnection, io::AsyncDNSResolver,
};
use tokio::{net::lookup_host, sync::Notify, time::timeout};

use super::{
    address::Timeouts,
    error::{Failure, LinkError},
    tap::{self, Listener},
};
use crate::{
    net::racing::{self, ADDRESS_HEAD_START},
    tasks::BoxFuture,
};

/// Host and port of a server.
pub(crate) type Server = (String, u16);

/// A connection, and how to learn that it is no good any more.
#[derive(Clone)]
pub(crate) struct Connection<R> {
    pub(crate) redis: R,
    /// Notified when it is lost, or when someone found it useless.
    pub(crate) lost: Arc<Notify>,
    /// Whether it leads to a master. Only a name without a master leads to a replica.
    pub(crate) is_master: bool,
    /// Which of the sentinels named the master, and which address it gave.
    pub(super) named_by: Option<(usize, Server)>,
}

impl Connection<MultiplexedConnection> {
    pub(super) async fn to_master(
        info: &ConnectionInfo,
        timeouts: Timeouts,
        listener: &Listener,
    ) -> Result<Self, LinkError> {
        let best = Self::to_best(info, timeouts, listener).await?;
        if best.is_master {
            return Ok(best);
        }
        Err(LinkError::new("it is a replica, not the master").about(&info.addr().to_string()))
    }

    /// Connects to the master among the addresses of a name, or else to a replica.
    pub(super) async fn to_best(
        info: &ConnectionInfo,
        timeouts: Timeouts,
        listener: &Listener,
    ) -> Result<Self, LinkError> {
        let name = info.addr().to_string();
        let mut addresses = timeout(timeouts.connect, addresses_of(info))
            .await
            .unwrap_or_else(|_| Err(too_slow(timeouts)))
            .map_err(|e| e.about(&name))?;
        let mut replica = None;
        while !addresses.is_empty() {
            let found = Self::to_any(info, &addresses, timeouts, Arc::default(), listener).await;
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
        timeouts: Timeouts,
        lost: Arc<Notify>,
        listener: &Listener,
    ) -> Result<Self, LinkError> {
        let connecting = async {
            let addresses = addresses_of(info).await?;
            let (connection, _) = Self::to_any(info, &addresses, timeouts, lost, listener).await?;
            Ok(connection)
        };
        timeout(timeouts.connect, connecting)
            .await
            .unwrap_or_else(|_| Err(too_slow(timeouts).about(&info.addr().to_string())))
    }

    /// Logs in at the first of these addresses that lets us.
    async fn to_any(
        info: &ConnectionInfo,
        addresses: &[SocketAddr],
        timeouts: Timeouts,
        lost: Arc<Notify>,
        listener: &Listener,
    ) -> Result<(Self, SocketAddr), LinkError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(Some(timeouts.answer));
        let client = Client::open(info.clone())?;
        let mut attempts: Vec<Attempt<'_, _>> = Vec::new();
        for address in addresses {
            let (told, notify) = (listener.clone(), Arc::clone(&lost));
            let config = config
                .clone()
                .set_dns_resolver(Only(*address))
                .set_push_sender(move |push: PushInfo| -> Result<(), ()> {
                    if push.kind == PushKind::Disconnection {
                        notify.notify_one();
                    } else if let Some(listener) = told.as_ref().and_then(Weak::upgrade) {
                        tap::tell(&*listener, push);
                    }
                    Ok(())
                });
            let is_plain = matches!(info.addr(), ConnectionAddr::Tcp(..));
            let listener = listener.clone().filter(|_| is_plain);
            let client = &client;
            attempts.push(Box::pin(async move {
                let redis = match listener {
                    Some(listener) => tap::connect(*address, info, config, listener).await,
                    None => {
                        client
                            .get_multiplexed_async_connection_with_config(&config)
                            .await
                    }
                };
                match redis.map_err(LinkError::from) {
                    Ok(redis) => Ok((redis, *address)),
                    Err(error) if addresses.len() == 1 => Err(error),
                    Err(error) => Err(error.about(&address.to_string())),
                }
            }));
        }
        let first = timeout(timeouts.connect, first_of(attempts, ADDRESS_HEAD_START)).await;
        let (redis, address) = first
            .unwrap_or_else(|_| Err(too_slow(timeouts)))
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
            named_by: None,
        }
    }

    /// The same connection, as something else.
    #[cfg(feature = "redis-cluster")]
    pub(super) fn map<S>(self, as_other: impl FnOnce(R) -> S) -> Connection<S> {
        Connection {
            redis: as_other(self.redis),
            lost: self.lost,
            is_master: self.is_master,
            named_by: self.named_by,
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

fn too_slow(timeouts: Timeouts) -> LinkError {
    LinkError::new(format!(
        "not connected within {} ms (FASTSOCK_REDIS_CONNECT_TIMEOUT)",
        timeouts.connect.as_millis()
    ))
}

/// How long a sentinel, or a server of a cluster, may take before the next is asked beside it.
pub(crate) const SERVER_HEAD_START: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use redis::{ProtocolVersion, RedisConnectionInfo};

    use super::*;
    use crate::redis::{address, tap::Listen, temp_redis::TempRedis};

    struct Deaf;

    impl Listen for Deaf {
        fn message(&self, _: &[u8], _: Bytes) {}

        fn other(&self, _: PushInfo) {}
    }

    #[tokio::test]
    async fn a_connection_without_its_listener_ends_at_the_next_that_it_hears() {
        let redis = TempRedis::start();
        let login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        let info = address::master("127.0.0.1".into(), redis.server().port(), &login);
        let timeouts = Timeouts {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(10),
        };
        let deaf = Arc::new(Deaf);
        let listener: Weak<Deaf> = Arc::downgrade(&deaf);
        let listener: Listener = Some(listener);
        let connecting = Connection::to_best(&info, timeouts, &listener);
        let mut connection = connecting.await.unwrap();
        connection.redis.subscribe("c").await.unwrap();
        drop(deaf);
        redis.publish("c", "nobody is told of it");
        connection.lost.notified().await;
    }

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
