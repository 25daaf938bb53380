//! [`fastsock_servers::TempRedis`] for tests that ask it from closures, without awaiting.

#[cfg(feature = "tls")]
use fastsock_servers::Authority;
use fastsock_servers::{DEADLINE, RedisBuilder};
use redis::{Client, Connection, FromRedisValue, ToRedisArgs, Value};

/// A redis-server of one test's own.
pub(crate) struct TempRedis {
    pub(crate) port: u16,
    server: fastsock_servers::TempRedis,
    login: String,
}

impl TempRedis {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(args: &[&str]) -> Self {
        let builder = fastsock_servers::TempRedis::builder();
        Self::of(builder.args(args.iter().copied()), String::new())
    }

    pub(crate) fn start_with_password(password: &str) -> Self {
        let builder = fastsock_servers::TempRedis::builder();
        Self::of(builder.password(password), format!(":{password}@"))
    }

    /// One that also speaks TLS, with a certificate of this authority.
    #[cfg(feature = "tls")]
    pub(crate) fn start_with_tls(authority: &Authority) -> Self {
        let builder = fastsock_servers::TempRedis::builder();
        Self::of(builder.tls(authority), String::new())
    }

    fn of(builder: RedisBuilder, login: String) -> Self {
        let server = builder.stopped();
        let mut redis = Self {
            port: server.port(),
            server,
            login,
        };
        redis.start_again();
        redis
    }

    /// The server itself.
    pub(crate) fn server(&self) -> &fastsock_servers::TempRedis {
        &self.server
    }

    /// Starts it on the same port, with nothing in it.
    pub(crate) fn start_again(&mut self) {
        self.kill();
        // On a thread and in a runtime of its own: this one may be what a test is about.
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(self.server.start());
            });
            starting.join().expect("it starts");
        });
    }

    pub(crate) fn kill(&mut self) {
        if self.server.is_running() {
            self.server.kill();
        }
    }

    pub(crate) fn freeze(&self) {
        self.server.freeze();
    }

    pub(crate) fn thaw(&self) {
        self.server.thaw();
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
        let url = format!("redis://{}127.0.0.1:{}", self.login, self.port);
        let client = Client::open(url).unwrap();
        let connection = client.get_connection_with_timeout(DEADLINE);
        connection.expect("it answers")
    }
}
