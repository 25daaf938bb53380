//! A Redis Cluster: which of its servers has a key, and sending each command there.
//!
//! A slot that moves, or is just being moved, is followed. A server that is lost ends the link, and the next one learns who has
//! what now.
//!
//! Why not `redis::cluster_async` (redis 1.8, tried on a cluster of three)? It refuses a pipeline of keys in several slots
//! (`CROSSSLOT`), and presence relies on the order of such. It also connects again by itself and sends again what was in flight.
//! But a lost connection has to end the link: only then is presence restored and what was in flight written anew in its order. And
//! `WAIT` speaks of what its own connection wrote, so on a connection that replaced another without a word it vouches for nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use redis::{
    Arg, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{sync::Notify, time::sleep};

use crate::locks::Mutex;

use super::{
    address::{self, Nodes, Timeouts},
    connection::{Attempt, Connection, SERVER_HEAD_START, Server, first_of},
    error::LinkError,
    tap::Listener,
};

impl Nodes {
    /// Connects to any server that has a part in the cluster.
    pub(crate) async fn any(
        &self,
        answer: Duration,
        listener: Listener,
    ) -> Result<Connection<MultiplexedConnection>, LinkError> {
        let attempts = |is_whole: bool| {
            let mut attempts: Vec<Attempt<'_, _>> = Vec::new();
            for server in self.servers() {
                let listener = &listener;
                attempts.push(Box::pin(async move {
                    let connection = self.connect(&server, answer, listener).await?;
                    let map = self.map(&server, connection.redis.clone()).await?;
                    map.check(&server, is_whole)?;
                    Ok(connection)
                }));
            }
            first_of(attempts, SERVER_HEAD_START)
        };
        // One that has left the cluster hears nothing of it.
        match attempts(true).await {
            Err(_) => attempts(false).await,
            found => found,
        }
    }

    /// Connects to the server that has a key.
    pub(crate) async fn of_key(
        &self,
        key: &[u8],
        answer: Duration,
    ) -> Result<Connection<MultiplexedConnection>, LinkError> {
        let map = self.ask().await?;
        let slot = slot_of(key);
        let server = map.server(slot).ok_or_else(|| uncovered(slot))?;
        self.connect(server, answer, &None).await
    }

    /// Connects to all servers that have slots, for what they push too.
    pub(crate) async fn all(
        &self,
        answer: Duration,
        listener: Listener,
    ) -> Result<Connection<Redis>, LinkError> {
        let map = self.ask().await?;
        let lost = Arc::new(Notify::new());
        let masters: BTreeSet<_> = map.ranges.iter().map(|range| &range.server).collect();
        let connecting = masters.into_iter().map(async |server| {
            let connection =
                self.connect_telling(server, answer, Arc::clone(&lost), listener.clone());
            Ok::<_, LinkError>((server.clone(), connection.await?))
        });
        let servers = try_join_all(connecting).await?.into_iter().collect();
        let cluster = Cluster {
            nodes: self.clone(),
            map: Mutex::new(Arc::new(map)),
            servers: Mutex::new(servers),
            answer,
            listener: listener.clone(),
            lost: Arc::clone(&lost),
        };
        Ok(Connection::new(Redis::Cluster(Arc::new(cluster)), lost))
    }

    async fn connect(
        &self,
        server: &Server,
        answer: Duration,
        listener: &Listener,
    ) -> Result<Connection<MultiplexedConnection>, LinkError> {
        self.connect_to(server, answer, Arc::default(), listener)
            .await
    }

    async fn connect_telling(
        &self,
        server: &Server,
        answer: Duration,
        lost: Arc<Notify>,
        listener: Listener,
    ) -> Result<MultiplexedConnection, LinkError> {
        let connection = self.connect_to(server, answer, lost, &listener).await?;
        Ok(connection.redis)
    }

    async fn connect_to(
        &self,
        (host, port): &Server,
        answer: Duration,
        lost: Arc<Notify>,
        listener: &Listener,
    ) -> Result<Connection<MultiplexedConnection>, LinkError> {
        let info = address::master(host.clone(), *port, &self.login);
        let connect = self.connect_timeout;
        Connection::to(&info, Timeouts { connect, answer }, lost, listener).await
    }

    /// Who has which slots, says the first server that answers.
    async fn ask(&self) -> Result<Map, LinkError> {
        let attempts = |is_whole: bool| {
            let mut attempts: Vec<Attempt<'_, _>> = Vec::new();
            for server in self.servers() {
                attempts.push(Box::pin(async move {
                    let connection = self.connect(&server, ASK_TIMEOUT, &None).await?;
                    let map = self.map(&server, connection.redis).await?;
                    map.check(&server, is_whole)?;
                    Ok(map)
                }));
            }
            first_of(attempts, SERVER_HEAD_START)
        };
        match attempts(true).await {
            Err(_) => attempts(false).await,
            found => found,
        }
    }

    async fn map(
        &self,
        server: &Server,
        mut redis: MultiplexedConnection,
    ) -> Result<Map, LinkError> {
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("SLOTS");
        let answer = ask.query_async(&mut redis).await?;
        let map = Map::read(answer, &server.0);
        if map.ranges.is_empty() {
            let (host, port) = server;
            return Err(LinkError::new(format!("{host}:{port} knows no slots")));
        }
        if map.is_whole() {
            self.learned(map.all.clone());
        }
        Ok(map)
    }
}

/// What takes commands: one server, or all of a cluster, each command going to where its key is.
#[derive(Clone)]
pub(crate) enum Redis {
    One(MultiplexedConnection),
    Cluster(Arc<Cluster>),
}

impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(server) => server.req_packed_command(command),
            Self::Cluster(cluster) => Box::pin(cluster.send(command)),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(server) => server.req_packed_commands(pipeline, offset, count),
            // One after the other: what is in a pipeline relies on its order, and goes to several servers.
            Self::Cluster(cluster) => Box::pin(async move {
                let mut answers = Vec::with_capacity(count);
                for command in pipeline.cmd_iter() {
                    answers.push(match cluster.send(command).await {
                        Ok(answer) => answer,
                        Err(error) => refused(error)?,
                    });
                }
                Ok(answers)
            }),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(server) => server.get_db(),
            Self::Cluster(_) => 0,
        }
    }
}

/// The connections that lead to these keys, each once.
#[cfg(feature = "redis-spool")]
pub(crate) async fn servers_of(
    redis: &Redis,
    keys: impl IntoIterator<Item = &String>,
) -> RedisResult<Vec<MultiplexedConnection>> {
    let cluster = match redis {
        Redis::One(server) => return Ok(vec![server.clone()]),
        Redis::Cluster(cluster) => cluster,
    };
    let servers = keys.into_iter().map(|key| cluster.has(key.as_bytes()));
    let servers: BTreeSet<_> = servers.collect::<RedisResult<_>>()?;
    try_join_all(servers.iter().map(|server| cluster.server(server))).await
}

/// Which of these keys go over which connection.
pub(crate) async fn spread(
    redis: &Redis,
    keys: &[String],
) -> RedisResult<Vec<(MultiplexedConnection, Vec<String>)>> {
    let cluster = match redis {
        Redis::One(server) => return Ok(vec![(server.clone(), keys.to_vec())]),
        Redis::Cluster(cluster) => cluster,
    };
    let mut spread: BTreeMap<Server, Vec<String>> = BTreeMap::new();
    for key in keys {
        let server = cluster.has(key.as_bytes())?;
        spread.entry(server).or_default().push(key.clone());
    }
    let connecting = spread
        .into_iter()
        .map(async |(server, keys)| Ok((cluster.server(&server).await?, keys)));
    try_join_all(connecting).await
}

/// The connections to all servers that have keys, each once.
pub(crate) async fn all_servers(redis: &Redis) -> RedisResult<Vec<MultiplexedConnection>> {
    let cluster = match redis {
        Redis::One(server) => return Ok(vec![server.clone()]),
        Redis::Cluster(cluster) => cluster,
    };
    let map = Arc::clone(&cluster.map.lock());
    let servers: BTreeSet<_> = map.ranges.iter().map(|range| &range.server).collect();
    try_join_all(servers.into_iter().map(|server| cluster.server(server))).await
}

/// Sends a command by all servers that have slots, or by the one. Returns how many those are.
pub(crate) async fn by_all_servers(redis: &Redis, command: &Cmd) -> RedisResult<usize> {
    let cluster = match redis {
        Redis::One(server) => {
            command.exec_async(&mut server.clone()).await?;
            return Ok(1);
        }
        Redis::Cluster(cluster) => cluster,
    };
    let masters = cluster.map.lock().masters();
    let sending = masters.iter().map(async |server| {
        let mut redis = cluster.server(server).await?;
        command.exec_async(&mut redis).await
    });
    try_join_all(sending).await?;
    Ok(masters.len())
}

/// The servers that have slots, as far as these connections know; none without a cluster.
pub(crate) fn masters_of(redis: &Redis) -> BTreeSet<Server> {
    match redis {
        Redis::One(_) => BTreeSet::new(),
        Redis::Cluster(cluster) => cluster.map.lock().masters(),
    }
}

/// Learns again who has which slots. Returns whether that is news; without a cluster it never is.
pub(crate) async fn learn_whole(redis: &Redis) -> bool {
    let Redis::Cluster(cluster) = redis else {
        return false;
    };
    let before = cluster.map.lock().masters();
    cluster.learn().await.is_ok() && cluster.map.lock().masters() != before
}

/// Connections to all servers of a cluster that have slots.
pub(crate) struct Cluster {
    nodes: Nodes,
    map: Mutex<Arc<Map>>,
    servers: Mutex<HashMap<Server, MultiplexedConnection>>,
    answer: Duration,
    /// For connections that are subscribed.
    listener: Listener,
    /// Notified when one of them is lost, or when a subscribed one has no slots any more.
    lost: Arc<Notify>,
}

impl Cluster {
    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let key = key(command).unwrap_or_default();
        let mut tries = 0;
        loop {
            let error = match self.try_to_send(command, key).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tries += 1;
            match error.kind() {
                ErrorKind::Server(ServerErrorKind::TryAgain) if tries < TRIES => {
                    sleep(TRY_AGAIN_AFTER).await;
                }
                ErrorKind::Server(
                    ServerErrorKind::Moved
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::MasterDown,
                ) if tries < MOVES && self.learn().await.is_ok() => {}
                _ => return Err(error),
            }
        }
    }

    async fn try_to_send(&self, command: &Cmd, key: &[u8]) -> RedisResult<Value> {
        let mut redis = self.server(&self.has(key)?).await?;
        let error = match command.query_async::<Value>(&mut redis).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if error.kind() != ErrorKind::Server(ServerErrorKind::Ask) {
            return Err(error);
        }
        let Some(server) = error.redirect_node().and_then(|(addr, _)| read_addr(addr)) else {
            return Err(error);
        };
        let mut redis = self.server(&server).await?;
        let mut asking = redis::pipe();
        asking.cmd("ASKING").ignore();
        asking.add_command(command.clone());
        let (answer,): (Value,) = asking.query_async(&mut redis).await?;
        Ok(answer)
    }

    /// Learns who has which slots now.
    async fn learn(&self) -> Result<(), LinkError> {
        let map = Arc::new(self.ask().await?);
        let is_master = |server: &Server| map.ranges.iter().any(|range| range.server == *server);
        {
            let mut servers = self.servers.lock();
            let before = servers.len();
            servers.retain(|server, _| is_master(server));
            if self.listener.is_some() && servers.len() < before {
                self.lost.notify_one();
            }
        }
        *self.map.lock() = map;
        Ok(())
    }

    async fn ask(&self) -> Result<Map, LinkError> {
        let servers = self.servers.lock().clone();
        let asking = servers.into_iter().map(|(server, redis)| {
            let nodes = &self.nodes;
            async move { nodes.map(&server, redis).await }
        });
        let mut asking: FuturesUnordered<_> = asking.collect();
        let mut best: Option<Map> = None;
        // A server that has left the cluster knows but its own slots.
        while let Some(answer) = asking.next().await {
            let Ok(map) = answer else { continue };
            if map.is_whole() {
                return Ok(map);
            }
            if best.as_ref().is_none_or(|best| map.slots() > best.slots()) {
                best = Some(map);
            }
        }
        match self.nodes.ask().await {
            Ok(map) if best.as_ref().is_none_or(|best| map.slots() > best.slots()) => Ok(map),
            Ok(_) | Err(_) if best.is_some() => Ok(best.expect("just looked")),
            other => other,
        }
    }

    /// The server that has a key.
    fn has(&self, key: &[u8]) -> RedisResult<Server> {
        let slot = slot_of(key);
        let map = self.map.lock();
        map.server(slot).cloned().ok_or_else(|| {
            let kind = ErrorKind::Server(ServerErrorKind::ClusterDown);
            RedisError::from((kind, "CLUSTERDOWN", uncovered(slot).text))
        })
    }

    async fn server(&self, server: &Server) -> RedisResult<MultiplexedConnection> {
        if let Some(redis) = self.servers.lock().get(server) {
            return Ok(redis.clone());
        }
        // A server that is being given its first slots.
        let connecting = self.nodes.connect_telling(
            server,
            self.answer,
            Arc::clone(&self.lost),
            self.listener.clone(),
        );
        let redis = connecting
            .await
            .map_err(|e| RedisError::from((ErrorKind::Io, "no connection", e.text)))?;
        let mut servers = self.servers.lock();
        servers.insert(server.clone(), redis.clone());
        Ok(redis)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("map", &self.map.lock())
            .finish_non_exhaustive()
    }
}

/// Who has which slots. No I/O.
#[derive(Debug, Default)]
struct Map {
    ranges: Vec<Range>,
    /// Masters and replicas.
    all: BTreeSet<Server>,
}

#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    server: Server,
}

impl Map {
    /// Reads the answer to `CLUSTER SLOTS` of a host, which may not know its own address.
    fn read(answer: Value, host: &str) -> Self {
        let mut map = Self::default();
        let server = |value: Value| {
            let Value::Array(parts) = value else {
                return None;
            };
            let mut parts = parts.into_iter();
            let name = match parts.next()? {
                Value::BulkString(name) => String::from_utf8(name).ok()?,
                Value::Nil => String::new(),
                _ => return None,
            };
            let name = match &*name {
                "" => host.to_owned(),
                "?" => return None, // it does not know, and says so
                _ => name,
            };
            Some((name, number(&parts.next()?)?))
        };
        let Value::Array(ranges) = answer else {
            return map;
        };
        for range in ranges {
            let Value::Array(parts) = range else {
                continue;
            };
            let mut parts = parts.into_iter();
            let ends = |parts: &mut std::vec::IntoIter<Value>| number(&parts.next()?);
            let (Some(first), Some(last)) = (ends(&mut parts), ends(&mut parts)) else {
                continue;
            };
            let mut servers = parts.filter_map(server).peekable();
            if let Some(server) = servers.peek().cloned() {
                map.ranges.push(Range {
                    first,
                    last,
                    server,
                });
            }
            map.all.extend(servers);
        }
        map
    }

    fn masters(&self) -> BTreeSet<Server> {
        let masters = self.ranges.iter().map(|range| range.server.clone());
        masters.collect()
    }

    /// How many slots somebody has.
    fn slots(&self) -> usize {
        let slots = |range: &Range| usize::from(range.last.saturating_sub(range.first)) + 1;
        self.ranges.iter().map(slots).sum()
    }

    fn is_whole(&self) -> bool {
        self.slots() >= SLOTS
    }

    fn check(&self, (host, port): &Server, is_whole: bool) -> Result<(), LinkError> {
        match is_whole && !self.is_whole() {
            true => Err(LinkError::new(format!(
                "{host}:{port} knows of {} slots only",
                self.slots()
            ))),
            false => Ok(()),
        }
    }

    fn server(&self, slot: u16) -> Option<&Server> {
        let mut ranges = self.ranges.iter();
        let found = ranges.find(|range| (range.first..=range.last).contains(&slot));
        found.map(|range| &range.server)
    }
}

/// The error of one command as one answer among those of a pipeline, if a server has given it.
fn refused(error: RedisError) -> RedisResult<Value> {
    let errors = error.clone().into_server_errors();
    match errors.as_deref() {
        Some([(_, first), ..]) => Ok(Value::ServerError(first.clone())),
        _ => Err(error),
    }
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => (*number).try_into().ok(),
        _ => None,
    }
}

fn read_addr(addr: &str) -> Option<Server> {
    let (host, port) = addr.rsplit_once(':')?;
    Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
}

/// The key that decides where a command goes; `None` when any server will do.
fn key(command: &Cmd) -> Option<&[u8]> {
    let arg = |at| match command.args_iter().nth(at) {
        Some(Arg::Simple(arg)) => Some(arg),
        _ => None,
    };
    arg(match arg(0) {
        Some(b"EVAL") => 3,
        Some(b"MEMORY") => 2,
        _ => 1,
    })
}

/// The hash slot of a key, or of what is between its first braces: CRC-16/XMODEM modulo 16384.
fn slot_of(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key[open..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &key[open..open + length])
    };
    let crc = tag().unwrap_or(key).iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            crc << 1 ^ if crc & 0x8000 == 0 { 0 } else { 0x1021 }
        })
    });
    crc % SLOTS as u16
}

fn uncovered(slot: u16) -> LinkError {
    LinkError::new(format!("no server of the cluster has slot {slot}"))
}

/// How long a server may take to say who has which slots.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a command is sent to where its key may be now.
const MOVES: usize = 3;

/// How often a command is sent whose keys are just being moved.
const TRIES: usize = 20;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Slots of a cluster.
const SLOTS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_is_that_of_the_specification() {
        assert_eq!(slot_of(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(slot_of(b"x{foo}y{bar}"), 12182);
        assert_eq!(slot_of(b"x{foo"), slot_of(b"x{foo"));
        assert_ne!(slot_of(b"{}foo"), slot_of(b"{}bar"), "nothing between them");
    }

    #[test]
    fn the_key_of_a_script_is_its_first() {
        let mut eval = redis::cmd("EVAL");
        eval.arg("return 1").arg(1).arg("k").arg("v");
        assert_eq!(key(&eval), Some(&b"k"[..]));
        let mut hset = redis::cmd("HSET");
        hset.arg("h").arg("f");
        assert_eq!(key(&hset), Some(&b"h"[..]));
        assert_eq!(key(&redis::cmd("PING")), None);
    }

    #[test]
    fn slots_are_read_with_their_masters_and_all_who_are_there() {
        let text = |text: &str| Value::BulkString(text.into());
        let server = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |first, last, servers: Vec<Value>| {
            let mut parts = vec![Value::Int(first), Value::Int(last)];
            parts.extend(servers);
            Value::Array(parts)
        };
        let answer = Value::Array(vec![
            range(0, 99, vec![server(text("a"), 1), server(text("b"), 2)]),
            range(100, 16383, vec![server(Value::Nil, 3)]),
            range(5, 6, vec![server(text("?"), 4)]),
            text("nonsense"),
        ]);
        let map = Map::read(answer, "asked");
        assert_eq!(map.server(99), Some(&("a".into(), 1)));
        assert_eq!(map.server(100), Some(&("asked".into(), 3)));
        assert_eq!(map.all.len(), 3);
        assert!(Map::read(Value::Nil, "x").server(0).is_none());
    }
}
