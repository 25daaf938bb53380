//! Each kind of Redis, and what can happen to it.

use std::net::{Ipv4Addr, SocketAddr};

use redis::{FromRedisValue, aio::MultiplexedConnection};
use support::{Line, TempCluster, TempRedis, TempSentinel, eventually_within};
use tokio::time::{Duration, timeout};

pub(crate) enum Backing {
    /// With a line for each gateway.
    Standalone { redis: TempRedis, lines: Vec<Line> },
    Sentinel {
        servers: Vec<TempRedis>,
        sentinel: TempSentinel,
    },
    Cluster {
        cluster: TempCluster,
        has_failed_over: bool,
    },
}

impl Backing {
    pub(crate) async fn standalone() -> Self {
        let redis = TempRedis::new().await;
        let mut lines = Vec::new();
        for _ in 0..super::gateways::GATEWAYS {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port()));
            lines.push(Line::start(to).await);
        }
        Self::Standalone { redis, lines }
    }

    pub(crate) async fn sentinel() -> Self {
        let servers = vec![TempRedis::new().await, TempRedis::new().await];
        servers[1].follow(&servers[0]).await;
        let sentinel = TempSentinel::watch(&servers[0]).await;
        sentinel.wait_replicas(1).await;
        Self::Sentinel { servers, sentinel }
    }

    pub(crate) async fn cluster() -> Self {
        Self::Cluster {
            cluster: TempCluster::replicated().await,
            has_failed_over: false,
        }
    }

    /// Settings of a gateway for it.
    pub(crate) fn vars(&self, gateway: usize) -> Vec<(&'static str, String)> {
        match self {
            Self::Standalone { lines, .. } => {
                vec![("REDIS_PORT", lines[gateway].addr().port().to_string())]
            }
            Self::Sentinel { sentinel, .. } => vec![
                ("FASTSOCK_REDIS_URL", sentinel.url()),
                ("FASTSOCK_SPOOL_REPLICAS", "1".into()),
            ],
            Self::Cluster { cluster, .. } => vec![
                ("FASTSOCK_REDIS_URL", cluster.url()),
                ("FASTSOCK_SPOOL_REPLICAS", "1".into()),
            ],
        }
    }

    /// Where publishers write mailboxes themselves, and how many replicas are to have them; `None` when they ask the gateways.
    pub(crate) fn ports(&mut self) -> Option<Vec<u16>> {
        match self {
            Self::Standalone { .. } => None,
            Self::Sentinel { servers, .. } => Some(servers.iter().map(TempRedis::port).collect()),
            Self::Cluster { cluster, .. } => {
                Some(cluster.servers().iter().map(|s| s.port()).collect())
            }
        }
    }

    pub(crate) fn line(&self, gateway: usize) -> Option<&Line> {
        match self {
            Self::Standalone { lines, .. } => Some(&lines[gateway]),
            _ => None,
        }
    }

    /// Kills a master, and waits until its replica has its place. Returns whether there was one to do that.
    pub(crate) async fn fail_over(&mut self) -> bool {
        match self {
            Self::Standalone { .. } => false,
            Self::Sentinel { servers, sentinel } => {
                servers[0].kill();
                servers.swap(0, 1);
                let what = "the sentinel promotes the replica";
                eventually_within(PATIENCE, what, async || {
                    let info: String = ask(servers[0].port(), &["INFO", "replication"]).await?;
                    info.contains("role:master").then_some(())
                })
                .await;
                // Seconds later, on a machine that is busy.
                let what = "the sentinel names the new master";
                eventually_within(PATIENCE, what, async || {
                    sentinel.names(&servers[0]).await.then_some(())
                })
                .await;
                servers[1].start().await;
                let (new, old) = (servers[0].port().to_string(), servers[1].port());
                // The sentinel may do so too, and cuts connections.
                eventually_within(PATIENCE, "the old master follows", async || {
                    let info: String = ask(old, &["INFO", "replication"]).await?;
                    if info.contains("role:master") {
                        ask::<()>(old, &["REPLICAOF", "127.0.0.1", &new]).await;
                    }
                    info.contains("master_link_status:up").then_some(())
                })
                .await;
                true
            }
            Self::Cluster {
                cluster,
                has_failed_over,
            } => {
                if std::mem::replace(has_failed_over, true) {
                    return false;
                }
                cluster.fail_over().await;
                let old = &mut cluster.servers()[0];
                old.start().await; // it finds itself replaced, and follows
                true
            }
        }
    }

    pub(crate) async fn empty(&self) {
        if let Self::Standalone { redis, .. } = self {
            redis.cmd::<()>(&["FLUSHALL"]).await;
        }
    }

    /// How many uplinks one server holds; `None` while it does not answer, and of several servers.
    pub(crate) async fn spooled(&self) -> Option<u64> {
        let Self::Standalone { redis, .. } = self else {
            return None;
        };
        let mut count = 0;
        for n in 0..16 {
            let stream = format!("fastsock:uplink:{{{n}}}");
            count += redis.try_cmd::<u64>(&["XLEN", &stream]).await.ok()?;
        }
        Some(count)
    }

    /// Who is connected, by the hash; `None` while nobody answers.
    pub(crate) async fn present(&self) -> Option<Vec<String>> {
        let words = ["HKEYS", "fastsock:clients"];
        match self {
            Self::Standalone { redis, .. } => redis.try_cmd(&words).await.ok(),
            Self::Sentinel { servers, .. } => ask(servers[0].port(), &words).await,
            Self::Cluster { cluster, .. } => Some(cluster.cmd(&words).await),
        }
    }
}

async fn ask<T: FromRedisValue>(port: u16, words: &[&str]) -> Option<T> {
    let mut redis = connection(port).await?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(&mut redis).await.ok()
}

/// How long servers may take to agree on anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a server of loopback, if it answers soon.
pub(crate) async fn connection(port: u16) -> Option<MultiplexedConnection> {
    let client = redis::Client::open(("127.0.0.1", port)).ok()?;
    let connection = client.get_multiplexed_async_connection();
    timeout(Duration::from_secs(2), connection).await.ok()?.ok()
}
