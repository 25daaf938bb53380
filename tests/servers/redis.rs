//! Redis servers of the test's own.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, RedisResult, Value,
    aio::MultiplexedConnection,
};
use tempfile::TempDir;

use crate::{Authority, DEADLINE, Identity, Process, eventually, free_port, within};

/// A `redis-server` on a free port of loopback that saves nothing, with an empty data set.
///
/// It keeps its port over [`stop`](Self::stop), [`kill`](Self::kill) and [`start`](Self::start).
#[derive(Debug)]
pub struct TempRedis {
    setup: RedisBuilder,
    dir: TempDir,
    port: u16,
    tls_port: Option<u16>,
    process: Option<Process>,
}

/// How to start a [`TempRedis`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RedisBuilder {
    args: Vec<String>,
    password: Option<String>,
    port: Option<u16>,
    host: Option<IpAddr>,
    identity: Option<(Arc<Identity>, PathBuf)>,
}

impl TempRedis {
    /// Starts a plain one and waits until it answers.
    pub async fn new() -> Self {
        Self::builder().start().await
    }

    /// Begins with a plain one.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// Its port without TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its port with TLS; panics when it was started without.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("started with tls()")
    }

    /// `redis://127.0.0.1:<port>`, without user and password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `rediss://localhost:<tls port>`, without user and password.
    pub fn tls_url(&self) -> String {
        format!("rediss://localhost:{}", self.tls_port())
    }

    /// Where it keeps its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process, for signals and figures; panics while it is stopped.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Whether it was started, and neither stopped nor killed since.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts it again on its port and waits until it answers. Its data set is empty.
    pub async fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.process = Some(self.spawn());
        let process = self.process.as_mut().expect("just set");
        let (port, log) = (self.port, self.dir.path().join("redis.log"));
        let client = self.setup.client(port);
        eventually("redis-server answers PING", async || {
            if let Some(status) = process.try_exit() {
                panic!("redis-server: {status}\n{}", read(&log));
            }
            let mut link = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").query_async::<()>(&mut link).await.ok()
        })
        .await;
    }

    /// SIGTERM, and waits until it is gone: its clients see their connections close.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.terminate();
        process.exit().await;
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// Stops and starts it.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// SIGSTOP: connections stay open and nothing answers, until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.process().freeze();
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process().thaw();
    }

    /// A connection of the test's own, as the default user.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = self.setup.client(self.port);
        // Half a second each is the default, which is little on a busy machine.
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        within(
            "a connection to redis-server",
            client.get_multiplexed_async_connection_with_config(&patient),
        )
        .await
        .expect("redis-server accepts the default user")
    }

    /// Runs a command over a connection made for it; its reply may be an error.
    pub async fn try_cmd<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let mut connection = self.connection().await;
        command(words).query_async(&mut connection).await
    }

    /// Runs a command. Panics when its reply is an error or of another type.
    ///
    /// ```no_run
    /// # async fn f(redis: fastsock_servers::TempRedis) {
    /// let receivers: u64 = redis.cmd(&["PUBLISH", "fastsock:client:dev1", "hello"]).await;
    /// # }
    /// ```
    pub async fn cmd<T: FromRedisValue>(&self, words: &[&str]) -> T {
        within("a reply of redis-server", self.try_cmd(words))
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Publishes to a channel. Returns how many received it.
    pub async fn publish(&self, channel: &str, payload: impl AsRef<[u8]>) -> u64 {
        let mut connection = self.connection().await;
        redis::cmd("PUBLISH")
            .arg(channel)
            .arg(payload.as_ref())
            .query_async(&mut connection)
            .await
            .expect("PUBLISH answers with a number")
    }

    /// A field of a hash, or `None`.
    pub async fn hget(&self, key: &str, field: &str) -> Option<String> {
        self.cmd(&["HGET", key, field]).await
    }

    /// A whole hash, sorted by field.
    pub async fn hgetall(&self, key: &str) -> std::collections::BTreeMap<String, String> {
        self.cmd(&["HGETALL", key]).await
    }

    /// Waits until a field of a hash is there. Returns its value.
    pub async fn wait_field(&self, key: &str, field: &str) -> String {
        let what = format!("{field} is in {key}");
        eventually(&what, async || self.hget(key, field).await).await
    }

    /// Waits until a field of a hash is gone.
    pub async fn wait_no_field(&self, key: &str, field: &str) {
        let what = format!("{field} is no longer in {key}");
        eventually(&what, async || self.hget(key, field).await.is_none()).await;
    }

    /// Waits until so many links are subscribed to patterns or this channel.
    pub async fn wait_subscribed(&self, channel: &str, links: u64) {
        let what = format!("{links} subscribed to {channel} or a pattern");
        eventually(&what, async || {
            let (_, exact): (String, u64) = self.cmd(&["PUBSUB", "NUMSUB", channel]).await;
            let patterns: u64 = self.cmd(&["PUBSUB", "NUMPAT"]).await;
            exact + patterns >= links
        })
        .await;
    }

    /// Waits until exactly so many links are subscribed to this very channel.
    pub async fn wait_listeners(&self, channel: &str, links: u64) {
        let what = format!("{links} subscribed to {channel}");
        eventually(&what, async || {
            let (_, exact): (String, u64) = self.cmd(&["PUBSUB", "NUMSUB", channel]).await;
            exact == links
        })
        .await;
    }

    /// Closes all other connections of a type (`normal`, `pubsub`, `replica`). Returns how many.
    pub async fn kill_clients(&self, kind: &str) -> u64 {
        self.cmd(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"])
            .await
    }

    /// Makes it a replica of another, and waits until it is in step.
    pub async fn follow(&self, master: &Self) {
        let (host, port) = (master.setup.host().to_string(), master.port.to_string());
        self.cmd::<()>(&["REPLICAOF", &host, &port]).await;
        eventually("the replica is in step", async || {
            let info: String = self.cmd(&["INFO", "replication"]).await;
            info.contains("master_link_status:up")
        })
        .await;
    }

    /// Makes a replica a master.
    pub async fn promote(&self) {
        self.cmd::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// What the server itself has logged.
    pub fn log(&self) -> String {
        read(&self.dir.path().join("redis.log"))
    }

    fn spawn(&self) -> Process {
        Process::start(&redis_server(), |command| {
            command
                .current_dir(self.dir.path())
                .args(["--bind", &self.setup.host().to_string()])
                .args(["--port", &self.port.to_string()])
                .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
                .args(["--logfile", "redis.log", "--dir", "."])
                .args(["--repl-diskless-sync-delay", "0"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if let Some(password) = &self.setup.password {
                command.args(["--requirepass", password, "--masterauth", password]);
            }
            if let (Some(port), Some((identity, ca))) = (self.tls_port, &self.setup.identity) {
                command
                    .args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"])
                    .arg("--tls-cert-file")
                    .arg(&identity.cert_path)
                    .arg("--tls-key-file")
                    .arg(&identity.key_path)
                    .arg("--tls-ca-cert-file")
                    .arg(ca);
            }
            command.args(&self.setup.args);
        })
    }
}

impl RedisBuilder {
    /// Adds arguments of `redis-server`, such as `["--maxclients", "10"]`.
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    /// Asks the default user for a password.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Adds a user with a password and ACL rules such as `~fastsock:* &fastsock:* +@all`.
    pub fn user(self, name: &str, password: &str, rules: &str) -> Self {
        let password = format!(">{password}");
        self.args(["--user", name, "on", &password])
            .args(rules.split_whitespace())
    }

    /// Takes this port rather than a free one, so that something can be told of it before it is there.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Listens on this IPv4 address rather than 127.0.0.1.
    pub fn listen(mut self, host: impl Into<IpAddr>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Listens with TLS too, on a port of its own, with a certificate for loopback.
    pub fn tls(mut self, authority: &Authority) -> Self {
        let identity = Arc::new(authority.issue_for_loopback());
        self.identity = Some((identity, authority.ca_path()));
        self
    }

    /// Starts it and waits until it answers.
    pub async fn start(self) -> TempRedis {
        let mut redis = self.stopped();
        redis.start().await;
        redis
    }

    /// Prepares it, port included, without starting it.
    pub fn stopped(self) -> TempRedis {
        TempRedis {
            port: self.port.unwrap_or_else(free_port),
            tls_port: self.identity.as_ref().map(|_| free_port()),
            dir: TempDir::new().expect("a temporary directory"),
            process: None,
            setup: self,
        }
    }

    fn host(&self) -> IpAddr {
        self.host.unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    fn client(&self, port: u16) -> Client {
        let password = self.password.as_deref();
        let auth = password.map_or(String::new(), |password| format!(":{password}@"));
        let host = self.host();
        let info: ConnectionInfo = format!("redis://{auth}{host}:{port}")
            .parse()
            .expect("a URL of our making");
        Client::open(info).expect("opening does not connect")
    }
}

/// A `redis-sentinel` that watches one master under the name [`SERVICE`](Self::SERVICE) and decides alone.
#[derive(Debug)]
pub struct TempSentinel {
    process: Process,
    port: u16,
    _dir: TempDir,
}

impl TempSentinel {
    /// The name of the master.
    pub const SERVICE: &str = "fastsock";

    /// Starts one that calls the master down after 2 s without an answer, and waits until it watches. On a busy machine less may pass though
    /// nobody died.
    pub async fn watch(master: &TempRedis) -> Self {
        let (port, dir) = (free_port(), TempDir::new().expect("a temporary directory"));
        let (service, master_port) = (Self::SERVICE, master.port);
        let mut rules = format!(
            "port {port}\nbind 127.0.0.1\nlogfile sentinel.log\nsentinel monitor {service} 127.0.0.1 {master_port} 1\n\
             sentinel down-after-milliseconds {service} 2000\nsentinel failover-timeout {service} 2000\n"
        );
        if let Some(password) = &master.setup.password {
            rules += &format!("sentinel auth-pass {service} {password}\n");
        }
        fs::write(dir.path().join("sentinel.conf"), rules).expect("written");
        let process = Process::start(&redis_server(), |command| {
            command
                .current_dir(dir.path())
                .args(["sentinel.conf", "--sentinel"])
                .stdout(Stdio::null())
                .stderr(Stdio::null());
        });
        let sentinel = Self {
            process,
            port,
            _dir: dir,
        };
        sentinel.wait_master(master).await;
        sentinel
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis+sentinel://127.0.0.1:<port>/fastsock/0`.
    pub fn url(&self) -> String {
        format!(
            "redis+sentinel://127.0.0.1:{}/{}/0",
            self.port,
            Self::SERVICE
        )
    }

    /// Its process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until it names this one as the master.
    pub async fn wait_master(&self, master: &TempRedis) {
        let what = format!("the sentinel names port {} as master", master.port);
        eventually(&what, async || self.names(master).await).await;
    }

    /// Whether it names this one as the master.
    pub async fn names(&self, master: &TempRedis) -> bool {
        let port = master.port.to_string();
        self.master_port().await.is_some_and(|named| named == port)
    }

    /// Waits until it knows so many replicas of the master; without one there is nothing to fail over to.
    pub async fn wait_replicas(&self, count: usize) {
        let what = format!("the sentinel knows {count} replicas");
        eventually(&what, async || {
            let reply: Option<Vec<Value>> =
                self.cmd(&["SENTINEL", "REPLICAS", Self::SERVICE]).await;
            reply.is_some_and(|replicas| replicas.len() >= count)
        })
        .await;
    }

    /// Changes what a user may do, as `ACL SETUSER` does.
    pub async fn allow(&self, user: &str, rules: &[&str]) {
        let words = ["ACL", "SETUSER", user].into_iter();
        let words: Vec<_> = words.chain(rules.iter().copied()).collect();
        self.cmd::<()>(&words).await.expect("as the default user");
    }

    /// Tells it to make a replica the master now.
    pub async fn fail_over(&self) {
        eventually("the sentinel agrees to fail over", async || {
            self.cmd::<()>(&["SENTINEL", "FAILOVER", Self::SERVICE])
                .await
        })
        .await;
    }

    async fn master_port(&self) -> Option<String> {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::SERVICE];
        self.cmd::<(String, String)>(&words)
            .await
            .map(|(_, port)| port)
    }

    async fn cmd<T: FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let client = Client::open(("127.0.0.1", self.port)).ok()?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(Duration::from_secs(1)));
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .ok()?;
        command(words).query_async(&mut connection).await.ok()
    }
}

/// The program that is Redis: `FASTSOCK_TEST_REDIS_SERVER`, which may be Valkey's, or what the system has.
fn redis_server() -> String {
    std::env::var("FASTSOCK_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".into())
}

fn command(words: &[&str]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word);
    }
    command
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}
