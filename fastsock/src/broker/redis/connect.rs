//! Connecting to Redis: to the master, to what a sentinel names as such, or to a server of a cluster.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, ServerErrorKind, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

#[cfg(feature = "redis-cluster")]
pub(crate) use super::cluster::Redis;
#[cfg(all(feature = "redis-spool", feature = "redis-cluster"))]
pub(crate) use super::cluster::servers_of;
use super::{
    link::LinkError,
    url::{self, Address},
};

/// A connection, and how to learn that it is no good any more.
#[derive(Clone)]
pub(crate) struct Connection<R = Redis> {
    pub(crate) redis: R,
    /// Notified when it is lost, or when someone found it useless.
    pub(crate) lost: Arc<Notify>,
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

impl Connection {
    /// Connects to the master, or to all of a cluster. An answer that takes longer than `patience` is an error.
    pub(crate) async fn open(address: &Address, patience: Duration) -> Result<Self, LinkError> {
        #[cfg(feature = "redis-cluster")]
        if let Address::Cluster(nodes) = address {
            return nodes.all(patience).await;
        }
        let one = Connection::open_one(address, At::Any, patience, heedless()).await?;
        #[cfg(feature = "redis-cluster")]
        let one = Self {
            redis: Redis::One(one.redis),
            lost: one.lost,
            guide: one.guide,
        };
        Ok(one)
    }
}

impl Connection<MultiplexedConnection> {
    /// Connects to the master, or to one server of a cluster. `on_push` is called by the reader of the connection and must not
    /// wait.
    pub(crate) async fn open_one(
        address: &Address,
        #[cfg_attr(not(feature = "redis-cluster"), allow(unused_variables))] at: At<'_>,
        patience: Duration,
        on_push: OnPush,
    ) -> Result<Self, LinkError> {
        match address {
            Address::Direct(info) => Self::to_master(info.clone(), patience, on_push).await,
            Address::Sentinel {
                sentinels,
                service,
                login,
            } => {
                let mut error = LinkError::new("no sentinel answered");
                for (sentinel, (host, port)) in sentinels.iter().enumerate() {
                    // A sentinel that was cut off may still name the old master, so the next one is asked then.
                    let named = match ask_sentinel(host, *port, service, login).await {
                        Ok(named) => named,
                        Err(e) => {
                            error = e;
                            continue;
                        }
                    };
                    let info = url::master(named.0.clone(), named.1, login);
                    match Self::to_master(info, patience, on_push.clone()).await {
                        Ok(connection) => {
                            let guide = Some(Guide { sentinel, named });
                            return Ok(Self {
                                guide,
                                ..connection
                            });
                        }
                        Err(e) => error = e,
                    }
                }
                Err(error)
            }
            #[cfg(feature = "redis-cluster")]
            Address::Cluster(nodes) => match at {
                At::Any => nodes.any(patience, on_push).await,
                At::Key(key) => nodes.of_key(key, patience).await,
            },
        }
    }

    async fn to_master(
        info: redis::ConnectionInfo,
        patience: Duration,
        on_push: OnPush,
    ) -> Result<Self, LinkError> {
        let address = info.addr().to_string();
        let mut connection = Self::to(info, patience, Arc::default(), on_push).await?;
        let checked = timeout(CONNECT_TIMEOUT, check_master(&mut connection.redis)).await;
        let checked = checked.unwrap_or_else(|_| Err(LinkError::new("no answer in time")));
        checked.map_err(|e| e.about(&address))?;
        Ok(connection)
    }

    /// Connects to a server, whatever its role. `lost` is notified when it is lost.
    pub(super) async fn to(
        info: redis::ConnectionInfo,
        patience: Duration,
        lost: Arc<Notify>,
        on_push: OnPush,
    ) -> Result<Self, LinkError> {
        let address = info.addr().to_string();
        let notify = Arc::clone(&lost);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(patience))
            .set_push_sender(move |push: PushInfo| -> Result<(), ()> {
                if push.kind == PushKind::Disconnection {
                    notify.notify_one();
                } else {
                    on_push(push);
                }
                Ok(())
            });
        let connecting = async {
            let client = Client::open(info)?;
            let redis = client.get_multiplexed_async_connection_with_config(&config);
            Ok::<_, LinkError>(redis.await?)
        };
        let redis = connecting.await.map_err(|e| e.about(&address))?;
        Ok(Self::new(redis, lost))
    }
}

impl<R> Connection<R> {
    pub(super) fn new(redis: R, lost: Arc<Notify>) -> Self {
        Self {
            redis,
            lost,
            guide: None,
        }
    }

    /// Returns when the sentinel that led here names another master, with the last moment at which it did not. The old master
    /// is demoted only seconds later; until then it takes commands, and hears nothing of what is published on the new one.
    pub(crate) async fn moved(&self, address: &Address) -> (LinkError, SystemTime) {
        let (
            Some(guide),
            Address::Sentinel {
                sentinels,
                service,
                login,
            },
        ) = (&self.guide, address)
        else {
            return std::future::pending().await;
        };
        let (host, port) = &sentinels[guide.sentinel];
        let mut confirmed = SystemTime::now();
        loop {
            sleep(ASK_EVERY).await;
            let asked = SystemTime::now();
            match ask_sentinel(host, *port, service, login).await {
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

/// A replica takes no writes, and its subscribers hear the master only while it is linked to it.
async fn check_master(redis: &mut MultiplexedConnection) -> Result<(), LinkError> {
    let role: Result<Vec<Value>, _> = redis::cmd("ROLE").query_async(redis).await;
    match role {
        Ok(role) => match role.first() {
            Some(Value::BulkString(word)) if word != b"master" => {
                Err(LinkError::new("it is a replica, not the master"))
            }
            _ => Ok(()),
        },
        // Some hosted ones forbid to ask; a replica then shows itself by its READONLY.
        Err(error) => match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError) => Ok(()),
            _ => Err(error.into()),
        },
    }
}

/// Which server is the master, says a sentinel.
async fn ask_sentinel(
    host: &str,
    port: u16,
    service: &str,
    login: &redis::RedisConnectionInfo,
) -> Result<(String, u16), LinkError> {
    let ask = async |login| {
        let client = Client::open(url::sentinel_info(host, port, login))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
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

/// DNS, TCP, TLS and login together; and once more for the role.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a sentinel is asked whether the master is the same.
const ASK_EVERY: Duration = Duration::from_secs(1);
