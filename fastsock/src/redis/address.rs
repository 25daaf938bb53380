//! Where Redis is: the settings read into something to connect to.

#[cfg(feature = "tls")]
mod tls;

use std::time::Duration;
#[cfg(feature = "redis-cluster")]
use std::{collections::BTreeSet, sync::Arc};

use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

#[cfg(feature = "tls")]
use self::tls::with_certificates;
#[cfg(feature = "redis-cluster")]
use crate::locks::Mutex;
use crate::{
    config::Config,
    error::{Error, ErrorKind, Result},
};

/// Where Redis is, and how long it may take to get there.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) topology: Topology,
    /// For DNS, TCP, TLS and login together.
    pub(crate) connect_timeout: Duration,
}

/// Where the master is, or who knows it.
#[derive(Clone, Debug)]
pub(crate) enum Topology {
    /// One server.
    Direct(ConnectionInfo),
    /// Asked of sentinels at each connect.
    Sentinel {
        sentinels: Vec<(String, u16)>,
        service: String,
        /// User, password and database on the master.
        login: RedisConnectionInfo,
    },
    /// All servers of a cluster, each asked for what it has.
    #[cfg(feature = "redis-cluster")]
    Cluster(Nodes),
}

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For DNS, TCP, TLS and login together.
    pub(crate) connect: Duration,
    /// For an answer.
    pub(crate) answer: Duration,
}

/// Where a cluster is, and who was last known to be in it.
#[cfg(feature = "redis-cluster")]
#[derive(Clone, Debug)]
pub(crate) struct Nodes {
    pub(crate) seeds: Vec<(String, u16)>,
    known: Arc<Mutex<BTreeSet<(String, u16)>>>,
    pub(crate) login: RedisConnectionInfo,
    pub(super) connect_timeout: Duration,
}

impl Address {
    /// Reads the `REDIS_*` settings.
    ///
    /// # Errors
    /// `Config`, naming `FASTSOCK_REDIS_URL` or the setting of the certificate file.
    pub(crate) fn from_config(config: &Config) -> Result<Self> {
        Ok(Self {
            topology: Topology::from_config(config)?,
            connect_timeout: config.redis.connect_timeout,
        })
    }

    /// Whether one server is named, which knows of no others.
    pub(crate) fn is_one_server(&self) -> bool {
        matches!(self.topology, Topology::Direct(_))
    }

    /// Whether there are several servers, each with a part.
    pub(crate) fn is_cluster(&self) -> bool {
        #[cfg(feature = "redis-cluster")]
        if let Topology::Cluster(_) = self.topology {
            return true;
        }
        false
    }

    /// Commands that finding the master takes, beside those sent to it.
    pub(crate) fn commands(&self) -> &'static [&'static str] {
        match self.topology {
            Topology::Direct(_) | Topology::Sentinel { .. } => &["role"],
            #[cfg(feature = "redis-cluster")]
            Topology::Cluster(_) => &["cluster slots", "asking"],
        }
    }

    /// The time a server has to let us in, and that for an answer.
    pub(crate) fn timeouts(&self, answer: Duration) -> Timeouts {
        let connect = self.connect_timeout;
        Timeouts { connect, answer }
    }
}

impl Topology {
    pub(crate) fn from_config(config: &Config) -> Result<Self> {
        let Some(url) = &config.redis.url else {
            let host = config.redis.host.trim_matches(['[', ']']);
            let info = (host, config.redis.port)
                .into_connection_info()
                .map_err(not_a_url)?;
            return Ok(Self::Direct(prepared(
                info,
                login(None, None, config.redis.db),
            )));
        };
        let url = url.expose();
        if let Some(rest) = url.strip_prefix("redis+sentinel://") {
            return sentinel(rest);
        }
        if let Some(rest) = url.strip_prefix("redis+cluster://") {
            return cluster(rest, config);
        }
        if !url.starts_with("redis://") && !url.starts_with("rediss://") {
            return Err(not_allowed());
        }
        // What redis-rs says of it may repeat a part of it.
        let info = url.into_connection_info().map_err(|_| not_allowed())?;
        let settings = info.redis_settings();
        let login = login(settings.username(), settings.password(), settings.db());
        with_certificates(prepared(info, login), config).map(Self::Direct)
    }
}

#[cfg(feature = "redis-cluster")]
impl Nodes {
    pub(crate) fn new(
        seeds: Vec<(String, u16)>,
        login: RedisConnectionInfo,
        connect_timeout: Duration,
    ) -> Self {
        Self {
            seeds,
            known: Arc::default(),
            login,
            connect_timeout,
        }
    }

    /// All servers there may be, in another order each time, so that gateways spread over them.
    pub(super) fn servers(&self) -> Vec<(String, u16)> {
        let mut servers: BTreeSet<_> = self.known.lock().clone();
        servers.extend(self.seeds.iter().cloned());
        let mut servers: Vec<_> = servers.into_iter().collect();
        fastrand::shuffle(&mut servers);
        servers
    }

    /// Who is in it, says one of them.
    pub(super) fn learned(&self, servers: BTreeSet<(String, u16)>) {
        *self.known.lock() = servers;
    }
}

/// A server as a sentinel names it.
pub(crate) fn master(host: String, port: u16, login: &RedisConnectionInfo) -> ConnectionInfo {
    let info = ConnectionAddr::Tcp(host, port)
        .into_connection_info()
        .expect("an address is always one");
    prepared(info, login.clone())
}

/// A sentinel, spoken to without user and password, or with those of the master.
pub(crate) fn sentinel_info(
    host: &str,
    port: u16,
    login: Option<&RedisConnectionInfo>,
) -> ConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(password) = login.and_then(|l| l.password()) {
        settings = settings.set_password(password);
        if let Some(user) = login.and_then(|l| l.username()) {
            settings = settings.set_username(user);
        }
    }
    ConnectionAddr::Tcp(host.into(), port)
        .into_connection_info()
        .expect("an address is always one")
        .set_redis_settings(settings)
        .set_tcp_settings(tcp())
}

fn prepared(info: ConnectionInfo, login: RedisConnectionInfo) -> ConnectionInfo {
    info.set_redis_settings(login).set_tcp_settings(tcp())
}

fn login(user: Option<&str>, password: Option<&str>, db: i64) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("fastsock", env!("CARGO_PKG_VERSION"))
        .set_db(db);
    if let Some(user) = user {
        login = login.set_username(user);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    login
}

/// Nagle is on by default in redis-rs, and a cut cable would go unnoticed for minutes.
fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(UNANSWERED);
    settings
}

/// Reads `[user[:password]@]host[:port][,host[:port]]…/service[/db]`.
fn sentinel(text: &str) -> Result<Topology> {
    let (user_info, rest) = match text.rsplit_once('@') {
        Some((user_info, rest)) => (Some(user_info), rest),
        None => (None, text),
    };
    let mut parts = rest.splitn(3, '/');
    let hosts = parts.next().unwrap_or_default();
    let service = parts.next().filter(|s| !s.is_empty());
    let db = parts.next().filter(|s| !s.is_empty()).unwrap_or("0");
    let (Some(service), Ok(db)) = (service, db.parse()) else {
        return Err(not_allowed());
    };
    let sentinels: Option<Vec<_>> = hosts
        .split(',')
        .map(|host| host_and_port(host, SENTINEL_PORT))
        .collect();
    let (user, password) = user_and_password(user_info);
    Ok(Topology::Sentinel {
        sentinels: sentinels.ok_or_else(not_allowed)?,
        service: decoded(service).ok_or_else(not_allowed)?,
        login: login(user.as_deref(), password.as_deref(), db),
    })
}

/// Reads `[user[:password]@]host[:port][,host[:port]]…`.
#[cfg(feature = "redis-cluster")]
fn cluster(text: &str, config: &Config) -> Result<Topology> {
    let prefix = &config.redis.prefix;
    let (user_info, rest) = match text.rsplit_once('@') {
        Some((user_info, rest)) => (Some(user_info), rest),
        None => (None, text),
    };
    let hosts = rest.strip_suffix('/').unwrap_or(rest).split(',');
    let seeds: Option<Vec<_>> = hosts.map(|host| host_and_port(host, PORT)).collect();
    // Keys that scripts use together are kept together by the braces behind the prefix.
    if prefix.contains("{}") {
        let text = format!(
            "REDIS_PREFIX: {prefix:?} is not allowed with a redis+cluster:// URL; give one without \"{{}}\""
        );
        return Err(Error::new(ErrorKind::Config, text));
    }
    let (user, password) = user_and_password(user_info);
    let login = login(user.as_deref(), password.as_deref(), 0);
    let seeds = seeds.ok_or_else(not_allowed)?;
    let nodes = Nodes::new(seeds, login, config.redis.connect_timeout);
    Ok(Topology::Cluster(nodes))
}

#[cfg(not(feature = "redis-cluster"))]
fn cluster(_: &str, _: &Config) -> Result<Topology> {
    Err(Error::new(
        ErrorKind::Config,
        "FASTSOCK_REDIS_URL: this build has no Redis Cluster (feature \"redis-cluster\"); redis+cluster:// is not allowed",
    ))
}

fn user_and_password(user_info: Option<&str>) -> (Option<String>, Option<String>) {
    match user_info.map(|u| u.split_once(':').unwrap_or((u, ""))) {
        Some((user, password)) => (decoded(user), decoded(password)),
        None => (None, None),
    }
}

fn host_and_port(text: &str, port: u16) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, port),
    };
    let host = host.trim_matches(['[', ']']);
    (!host.is_empty() && port != 0).then(|| (host.to_owned(), port))
}

/// Percent-decodes a part of a URL; `None` when it is empty.
fn decoded(text: &str) -> Option<String> {
    // What means something in a form means itself in this part of a URL.
    let form = [("+", "%2B"), ("&", "%26"), ("=", "%3D")];
    let text = form
        .iter()
        .fold(text.to_owned(), |t, (raw, code)| t.replace(raw, code));
    let mut pairs = form_urlencoded::parse(text.as_bytes());
    pairs.next().map(|(name, _)| name.into_owned())
}

fn not_allowed() -> Error {
    Error::new(
        ErrorKind::Config,
        "FASTSOCK_REDIS_URL: the value is not allowed; give a redis://, rediss://, redis+sentinel:// or redis+cluster:// URL",
    )
}

fn not_a_url(error: redis::RedisError) -> Error {
    not_allowed().with_source(error)
}

#[cfg(not(feature = "tls"))]
fn with_certificates(info: ConnectionInfo, _: &Config) -> Result<ConnectionInfo> {
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => Err(Error::new(
            ErrorKind::Config,
            "FASTSOCK_REDIS_URL: this build has no TLS (feature \"tls\"); only redis:// is allowed",
        )),
        _ => Ok(info),
    }
}

#[cfg(feature = "redis-cluster")]
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// How long sent bytes may go without an answer of the peer's kernel.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNANSWERED: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn read(url: &str) -> Result<Topology> {
        Topology::from_config(&Config::default().redis_url(Some(Secret::new(url))))
    }

    #[test]
    fn host_port_and_database_are_read() {
        let config = Config::default().redis_port(7u16).redis_db(3);
        let Ok(Topology::Direct(info)) = Topology::from_config(&config) else {
            panic!("one server");
        };
        assert_eq!(info.addr().to_string(), "127.0.0.1:7");
        assert_eq!(info.redis_settings().db(), 3);
        assert!(info.tcp_settings().nodelay());
    }

    #[test]
    fn a_url_overrides_them_and_its_password_is_decoded() {
        let Ok(Topology::Direct(info)) = read("redis://u:p%40+s@h:9/2") else {
            panic!("one server");
        };
        assert_eq!(info.addr().to_string(), "h:9");
        let login = info.redis_settings();
        assert_eq!(
            (login.username(), login.password(), login.db()),
            (Some("u"), Some("p@+s"), 2)
        );
    }

    #[test]
    fn sentinels_have_a_service_and_perhaps_a_database() {
        let Ok(Topology::Sentinel {
            sentinels,
            service,
            login,
        }) = read("redis+sentinel://u:p%40+=s@a:1,b,[::1]:3/mymaster/4")
        else {
            panic!("sentinels");
        };
        let expected = [("a", 1), ("b", 26379), ("::1", 3)].map(|(h, p)| (h.to_owned(), p));
        assert_eq!(sentinels, expected);
        assert_eq!((service.as_str(), login.db()), ("mymaster", 4));
        assert_eq!(
            (login.username(), login.password()),
            (Some("u"), Some("p@+=s"))
        );
    }

    #[cfg(not(feature = "redis-cluster"))]
    #[test]
    fn a_cluster_that_is_not_built_in_is_answered_with_the_setting_and_the_feature() {
        let line = read("redis+cluster://s3cret@a").unwrap_err().to_line();
        assert!(line.starts_with("FASTSOCK_REDIS_URL: "), "{line}");
        assert!(
            line.contains("(feature \"redis-cluster\")") && !line.contains("s3cret"),
            "{line}"
        );
    }

    #[cfg(feature = "redis-cluster")]
    #[test]
    fn a_cluster_has_servers_and_a_prefix_that_keeps_keys_together() {
        let url = "redis+cluster://u:p%40@a:1,b,[::1]:3/";
        let Ok(Topology::Cluster(nodes)) = read(url) else {
            panic!("a cluster");
        };
        assert_eq!(nodes.login.username(), Some("u"));
        let config = Config::default().redis_url(Some(Secret::new(url)));
        let error = Address::from_config(&config.redis_prefix("a{}")).unwrap_err();
        assert!(error.to_line().starts_with("REDIS_PREFIX: "), "{error}");
    }

    #[test]
    fn a_bad_url_is_answered_with_the_setting_and_without_the_url() {
        for bad in [
            "http://s3cret",
            "redis+cluster://s3cret:x",
            "redis+cluster://:s3cret@",
            "redis+sentinel://s3cret",
            "redis+sentinel://s3cret/m/x",
            "redis+sentinel://:x/m",
            "redis://s3cret/x",
            "redis://h?protocol=s3cret",
            "rediss://s3cret/#insecure",
            "s3cret",
        ] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
            let line = error.to_line();
            assert!(
                line.starts_with("FASTSOCK_REDIS_URL: ") && !line.contains("s3cret"),
                "{line}"
            );
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_bad_certificate_file_is_answered_with_its_setting() {
        let config = Config::default()
            .redis_url(Some(Secret::new("rediss://h")))
            .redis_ca(Some("/nonexistent".into()));
        let error = Address::from_config(&config).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("FASTSOCK_REDIS_CA: cannot read /nonexistent")
        );
    }
}
