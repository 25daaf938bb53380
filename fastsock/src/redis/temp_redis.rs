//! A redis-server of one test's own, ended by its process id when the test ends.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::{Client, Connection, FromRedisValue, ToRedisArgs, Value};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

pub(crate) struct TempRedis {
    pub(crate) port: u16,
    #[cfg(feature = "tls")]
    pub(crate) tls_port: Option<u16>,
    dir: tempfile::TempDir,
    args: Vec<String>,
    password: Option<String>,
    child: Option<Child>,
}

impl TempRedis {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(args: &[&str]) -> Self {
        let mut redis = Self::new(args);
        redis.start_again();
        redis
    }

    /// A sentinel that watches a master, alone, and gives it up after a second.
    pub(crate) fn sentinel(service: &str, master_port: u16) -> Self {
        let mut redis = Self::new(&["--sentinel"]);
        let conf = format!(
            "sentinel monitor {service} 127.0.0.1 {master_port} 1\n\
             sentinel down-after-milliseconds {service} 1000\n\
             sentinel failover-timeout {service} 3000\n"
        );
        std::fs::write(redis.path("sentinel.conf"), conf).unwrap();
        redis.start_again();
        redis
    }

    /// One that also speaks TLS, with a certificate for `localhost` of an authority made for it (`ca.crt`).
    #[cfg(feature = "tls")]
    pub(crate) fn start_with_tls() -> Self {
        let mut redis = Self::new(&[]);
        let dir = redis.dir.path().to_owned();
        let openssl = |args: &str| {
            let run = Command::new("openssl")
                .args(args.split(' '))
                .current_dir(&dir)
                .output()
                .expect("openssl is installed");
            assert!(
                run.status.success(),
                "{}",
                String::from_utf8_lossy(&run.stderr)
            );
        };
        std::fs::write(dir.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
        openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca",
        );
        openssl("req -newkey rsa:2048 -nodes -keyout tls.key -out tls.csr -subj /CN=localhost");
        openssl(
            "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out tls.crt -days 2 -extfile san",
        );
        let port = free_port();
        let args = format!(
            "--tls-port {port} --tls-cert-file tls.crt --tls-key-file tls.key --tls-ca-cert-file ca.crt --tls-auth-clients no"
        );
        redis.args.extend(args.split(' ').map(str::to_owned));
        redis.tls_port = Some(port);
        redis.start_again();
        redis
    }

    fn new(args: &[&str]) -> Self {
        let password = args.iter().position(|a| *a == "--requirepass");
        Self {
            port: free_port(),
            #[cfg(feature = "tls")]
            tls_port: None,
            dir: tempfile::tempdir().unwrap(),
            args: args.iter().map(|&a| a.to_owned()).collect(),
            password: password.map(|at| args[at + 1].to_owned()),
            child: None,
        }
    }

    /// Starts it on the same port, with nothing in it.
    pub(crate) fn start_again(&mut self) {
        let mut command = Command::new("redis-server");
        if self.args.iter().any(|a| a == "--sentinel") {
            command.arg("sentinel.conf");
        } else {
            command.args(["--save", "", "--appendonly", "no"]);
            command.args(["--repl-diskless-sync-delay", "0"]);
        }
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        let child = command
            .args(&self.args)
            .current_dir(self.dir.path())
            .stdout(Stdio::null())
            .spawn();
        self.child = Some(child.expect("redis-server is installed"));
        let start = Instant::now();
        while self.try_connect().is_none() {
            assert!(start.elapsed() < Duration::from_secs(10), "it answers");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// The path of a file of this server.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn run(&self, command: &[&str]) -> Value {
        self.ask(command)
    }

    pub(crate) fn strings(&self, command: &[&str]) -> Vec<String> {
        match self.ask(command) {
            Value::Array(items) => items
                .into_iter()
                .map(|item| redis::from_redis_value(item).unwrap())
                .collect(),
            text => vec![redis::from_redis_value(text).unwrap()],
        }
    }

    pub(crate) fn publish(&self, channel: impl ToRedisArgs, payload: &str) -> i64 {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(channel).arg(payload);
        publish.query(&mut self.connect()).unwrap()
    }

    pub(crate) fn hget(&self, key: &str, field: &str) -> Option<String> {
        self.ask(&["HGET", key, field])
    }

    pub(crate) fn hlen(&self, key: &str) -> usize {
        self.ask(&["HLEN", key])
    }

    /// How many connections it has beside that of the question.
    pub(crate) fn connections(&self) -> usize {
        let list: String = self.ask(&["CLIENT", "LIST"]);
        list.lines()
            .filter(|line| line.contains("lib-name=fastsock") || line.contains("resp=3"))
            .count()
    }

    /// How often it answered with an error of this kind.
    pub(crate) fn errors(&self, code: &str) -> u64 {
        let info: String = self.ask(&["INFO", "errorstats"]);
        let prefix = format!("errorstat_{code}:count=");
        let count = info.lines().find_map(|line| line.strip_prefix(&prefix));
        count.map_or(0, |count| count.trim().parse().unwrap())
    }

    fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        // A server that changes its role drops its clients, and one asking just then.
        let answer = cmd.query(&mut self.connect());
        answer
            .or_else(|_| cmd.query(&mut self.connect()))
            .expect("it answers")
    }

    fn connect(&self) -> Connection {
        let start = Instant::now();
        loop {
            if let Some(connection) = self.try_connect() {
                return connection;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "it answers");
        }
    }

    fn try_connect(&self) -> Option<Connection> {
        let login = match &self.password {
            Some(password) => format!(":{password}@"),
            None => String::new(),
        };
        let client = Client::open(format!("redis://{login}127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client
            .get_connection_with_timeout(Duration::from_secs(5))
            .ok()?;
        redis::cmd("PING").exec(&mut connection).ok()?;
        Some(connection)
    }
}

impl Drop for TempRedis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port, below those of outgoing connections: nobody takes it by chance before its server does, or while that
/// is away. Not found by listening: a child that is started meanwhile would keep the listener until it executes its
/// program.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        if socket.bind(&addr.into()).is_ok() {
            return port;
        }
    }
}
