//! Sentinels, which know who is the master, and say when that changes.
//!
//! Not by `redis::sentinel` (redis 1.8): it takes the answers in the order of the sentinels, so a first one that is silent holds up
//! the others until its time is over, and it does not say which sentinel led to the master, so that nobody could ask that one whether
//! it is the master still.

use std::time::{Duration, SystemTime};

use redis::{AsyncConnectionConfig, Client, RedisConnectionInfo, aio::MultiplexedConnection};
use tokio::time::sleep;

use super::{
    address::{self, Address, Timeouts, Topology},
    connection::{Attempt, Connection, SERVER_HEAD_START, Server, first_of},
    error::LinkError,
    tap::Listener,
};

/// Connects to the master that a sentinel names.
pub(super) async fn to_master(
    sentinels: &[Server],
    service: &str,
    login: &RedisConnectionInfo,
    timeouts: Timeouts,
    listener: &Listener,
) -> Result<Connection<MultiplexedConnection>, LinkError> {
    let mut attempts: Vec<Attempt<'_, _>> = Vec::new();
    for (n, (host, port)) in sentinels.iter().enumerate() {
        attempts.push(Box::pin(async move {
            let named = ask_sentinel(host, *port, service, login, timeouts.connect).await?;
            let info = address::master(named.0.clone(), named.1, login);
            // A sentinel that was cut off may still name the old master, so the next one is asked then.
            let mut connection = Connection::to_master(&info, timeouts, listener).await?;
            connection.named_by = Some((n, named));
            Ok(connection)
        }));
    }
    first_of(attempts, SERVER_HEAD_START).await
}

impl<R> Connection<R> {
    /// Returns when the sentinel that led here names another master, with the last moment at which it did not. The old master
    /// is demoted only seconds later; until then it takes commands, and hears nothing of what is published on the new one.
    pub(crate) async fn moved(&self, address: &Address) -> (LinkError, SystemTime) {
        let (
            Some((sentinel, master)),
            Topology::Sentinel {
                sentinels,
                service,
                login,
            },
        ) = (&self.named_by, &address.topology)
        else {
            return std::future::pending().await;
        };
        let (host, port) = &sentinels[*sentinel];
        let mut confirmed = SystemTime::now();
        loop {
            sleep(ASK_EVERY).await;
            let asked = SystemTime::now();
            match ask_sentinel(host, *port, service, login, address.connect_timeout).await {
                Ok(named) if named != *master => {
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

/// Which server is the master, says a sentinel.
async fn ask_sentinel(
    host: &str,
    port: u16,
    service: &str,
    login: &RedisConnectionInfo,
    connect: Duration,
) -> Result<Server, LinkError> {
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
        let found: Option<Server> = ask.query_async(&mut sentinel).await?;
        found.ok_or_else(|| LinkError::new(format!("it knows no master named {service:?}")))
    };
    // Most sentinels have no password, and refuse one then.
    let found = match ask(None).await {
        Err(error) if error.is_denied => ask(Some(login)).await,
        found => found,
    };
    found.map_err(|e| e.about(&format!("sentinel {host}:{port}")))
}

/// How long a sentinel may take to answer, once it is connected.
const SENTINEL_ANSWER: Duration = Duration::from_secs(2);

/// How often a sentinel is asked whether the master is the same.
const ASK_EVERY: Duration = Duration::from_secs(1);
