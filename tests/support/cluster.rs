//! A Redis Cluster of the test's own.

use std::time::Duration;

use redis::FromRedisValue;

use crate::{TempRedis, eventually, eventually_within, free_port};

/// Three masters and a replica of the first, which has the slot of `fastsock:clients`. A dead master is replaced after some
/// two seconds.
#[derive(Debug)]
pub struct TempCluster {
    servers: Vec<TempRedis>,
}

impl TempCluster {
    /// Starts it and waits until every server knows it whole.
    pub async fn new() -> Self {
        Self::start(1).await
    }

    /// The same with a replica for each master.
    pub async fn replicated() -> Self {
        Self::start(MASTERS).await
    }

    async fn start(replicas: usize) -> Self {
        let mut cluster = Self {
            servers: Vec::new(),
        };
        let mut bus_ports = Vec::new();
        for _ in 0..MASTERS + replicas {
            let bus_port = free_port();
            bus_ports.push(bus_port.to_string());
            let server = TempRedis::builder()
                .args(["--cluster-enabled", "yes"])
                .args(["--cluster-port", &bus_port.to_string()])
                .args(["--cluster-node-timeout", "2000"])
                .args(["--repl-diskless-sync-delay", "0"])
                .args(["--cluster-replica-validity-factor", "0"]);
            cluster.servers.push(server.start().await);
        }
        cluster.share_out().await;
        for (server, bus_port) in cluster.servers.iter().zip(&bus_ports).skip(1) {
            let port = server.port().to_string();
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, bus_port];
            cluster.servers[0].cmd::<()>(&meet).await;
        }
        cluster.is_whole(cluster.servers.len()).await;
        cluster.replicate().await;
        cluster
    }

    /// `redis+cluster://` with all servers.
    pub fn url(&self) -> String {
        let servers = self.servers.iter();
        let servers: Vec<_> = servers
            .map(|server| format!("127.0.0.1:{}", server.port()))
            .collect();
        format!("redis+cluster://{}", servers.join(","))
    }

    /// The servers: three masters, then the replica of the first, or of each.
    pub fn servers(&mut self) -> &mut [TempRedis] {
        &mut self.servers
    }

    /// Runs a command on the server that has its key. Panics when its reply is an error.
    pub async fn cmd<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let what = format!("{words:?} is answered");
        eventually(&what, async || {
            for server in self.servers.iter().filter(|server| server.is_running()) {
                match server.try_cmd(words).await {
                    Ok(answer) => return Some(answer),
                    Err(error) if error.redirect_node().is_some() => {}
                    Err(_) => return None,
                }
            }
            None
        })
        .await
    }

    /// Kills the first master, and waits until its replica has its place.
    pub async fn fail_over(&mut self) {
        self.servers[0].kill();
        let replica = &self.servers[MASTERS];
        eventually_within(FAIL_OVER, "the replica is a master", async || {
            let info: String = replica.cmd(&["INFO", "replication"]).await;
            info.contains("role:master")
        })
        .await;
    }

    /// Has the second (1) or third (2) master leave the cluster. It goes on by itself with what it has, and the other of the two gets
    /// its slots.
    pub async fn leave(&mut self, at: usize) {
        let mut ids = Vec::new();
        for server in &self.servers {
            ids.push(server.cmd::<String>(&["CLUSTER", "MYID"]).await);
        }
        let nodes: String = self.servers[at].cmd(&["CLUSTER", "NODES"]).await;
        let own = nodes.lines().find(|line| line.contains("myself"));
        let slots = own.and_then(|line| line.rsplit(' ').next());
        let (first, last) = slots
            .and_then(|range| range.split_once('-'))
            .expect("a range");
        for (n, id) in ids.iter().enumerate().filter(|(n, _)| *n != at) {
            self.servers[at].cmd::<()>(&["CLUSTER", "FORGET", id]).await;
            let forget = ["CLUSTER", "FORGET", &ids[at]];
            self.servers[n].cmd::<()>(&forget).await;
        }
        let heir = &self.servers[3 - at];
        let add = ["CLUSTER", "ADDSLOTSRANGE", first, last];
        eventually_within(FAIL_OVER, "the heir has the slots", async || {
            heir.try_cmd::<()>(&add).await.is_ok()
        })
        .await;
    }

    /// Moves the slot of a key, which holds no keys, from one master to another.
    pub async fn move_slot(&self, key: &str, from: usize, to: usize) {
        let slot: u16 = self.servers[0].cmd(&["CLUSTER", "KEYSLOT", key]).await;
        let slot = slot.to_string();
        let ids = [
            self.servers[from].cmd::<String>(&["CLUSTER", "MYID"]).await,
            self.servers[to].cmd::<String>(&["CLUSTER", "MYID"]).await,
        ];
        for (server, state, id) in [
            (to, "IMPORTING", &ids[0]),
            (from, "MIGRATING", &ids[1]),
            (to, "NODE", &ids[1]),
            (from, "NODE", &ids[1]),
        ] {
            let words = ["CLUSTER", "SETSLOT", &slot, state, id];
            self.servers[server].cmd::<()>(&words).await;
        }
    }

    /// Gives each master a third of the slots.
    async fn share_out(&self) {
        let first = &self.servers[0];
        let slot: usize = first.cmd(&["CLUSTER", "KEYSLOT", "fastsock:clients"]).await;
        for (n, server) in self.servers.iter().enumerate().take(MASTERS) {
            let third = (n + slot * MASTERS / SLOTS) % MASTERS;
            let (start, end) = (third * SLOTS / MASTERS, (third + 1) * SLOTS / MASTERS - 1);
            let (start, end) = (start.to_string(), end.to_string());
            let epoch = (n + 1).to_string();
            let add = ["CLUSTER", "ADDSLOTSRANGE", &start, &end];
            server.cmd::<()>(&add).await;
            server
                .cmd::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])
                .await;
        }
    }

    async fn is_whole(&self, count: usize) {
        for server in &self.servers {
            eventually_within(FAIL_OVER, "the cluster is whole", async || {
                let info: String = server.cmd(&["CLUSTER", "INFO"]).await;
                let known = format!("cluster_known_nodes:{count}\r");
                info.contains("cluster_state:ok") && info.contains(&known)
            })
            .await;
        }
    }

    async fn replicate(&self) {
        let (masters, replicas) = self.servers.split_at(MASTERS);
        for (master, replica) in masters.iter().zip(replicas) {
            let id: String = master.cmd(&["CLUSTER", "MYID"]).await;
            eventually("it becomes a replica", async || {
                let words = ["CLUSTER", "REPLICATE", &id];
                replica.try_cmd::<()>(&words).await
            })
            .await;
            eventually_within(FAIL_OVER, "the replica is in step", async || {
                let info: String = replica.cmd(&["INFO", "replication"]).await;
                info.contains("master_link_status:up")
            })
            .await;
        }
        // Only a replica that the others know of may take its master's place.
        for server in &self.servers {
            eventually_within(FAIL_OVER, "all know the replicas", async || {
                let nodes: String = server.cmd(&["CLUSTER", "NODES"]).await;
                nodes.matches("slave").count() == replicas.len()
            })
            .await;
        }
    }
}

const MASTERS: usize = 3;
const SLOTS: usize = 16384;

/// How long servers may take to agree on anything.
const FAIL_OVER: Duration = Duration::from_secs(30);
