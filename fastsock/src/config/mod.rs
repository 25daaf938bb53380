//! Settings: what each means, its unit, default and effect, and the ways to give it.

mod check;
mod choices;
mod kind;
mod nested;
pub(crate) mod origin;
mod removed;
mod service_links;
mod value;

use std::{
    collections::HashSet, ffi::OsString, net::IpAddr, net::SocketAddr, path::PathBuf,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use crate::error::{Error, ErrorKind, Result};

use self::value::{Value, Verdict as _, Why};
pub use self::{
    choices::{
        AuthKind, BrokerKind, ClientAuth, DownlinkBinary, DuplicatePolicy, Fsync, Full, Gone,
        Http2, SpoolKind, Subscribe, UplinkBinary, UplinkFull,
    },
    kind::ValueKind,
    nested::flatten,
    value::{Headers, Secret},
};

/// The table of settings. A section begins with its heading in brackets. A setting is its docs and one line:
/// `name: type = default, "VARIABLE", "what is allowed", "an example that is not the default", check`; the type is followed by
/// `as bytes` where it is a number of bytes, and by `as directory` where it is the path of one.
/// From it come the field, its default, its chained setter, its variable, its error line and the printed tables.
macro_rules! settings {
    (@parse $type:ty) => { <$type as Value>::parse };
    (@parse $type:ty, bytes) => { value::bytes::parse::<$type> };
    (@parse $type:ty, directory) => { <$type as Value>::parse };
    (@kind $type:ty) => { <$type as Value>::KIND };
    (@kind $type:ty, bytes) => { ValueKind::Size };
    (@kind $type:ty, directory) => { ValueKind::Directory };
    ($([$section:literal] $($(#[doc = $doc:literal])* $name:ident: $type:ty $(as $kind:ident)? = $default:expr, $env:literal, $allowed:literal, $example:literal $(, $check:expr)?;)*)*) => {
        /// All settings of a bridge. Fields are public, [`Default`] gives the defaults, and each has a chained setter:
        ///
        /// ```
        /// let config = fastsock::Config::default().websocket_port(0u16).remote_url(Some("http://127.0.0.1:8080/".into()));
        /// assert_eq!(config.redis_prefix, "fastsock");
        /// ```
        ///
        /// The name of a setting is its environment variable in lower case, without `FASTSOCK_`.
        /// Nothing here reads the environment; a host that wants it calls [`Config::from_vars`].
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        #[allow(rustdoc::bare_urls, reason = "what is allowed is also an error line, without markup")]
        pub struct Config {
            $($($(#[doc = $doc])*
            #[doc = concat!("\n\nVariable: `", $env, "`; allowed: ", $allowed, ".")]
            pub $name: $type,)*)*
            pub(crate) warnings: Vec<Warning>,
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($($name: $default,)*)* warnings: Vec::new() }
            }
        }

        impl Config {
            $($(#[doc = concat!("Sets [`", stringify!($name), "`](Config#structfield.", stringify!($name), ").")]
            #[must_use]
            pub fn $name(mut self, value: impl Into<$type>) -> Self {
                self.$name = value.into();
                self
            })*)*
        }

        static SETTINGS: &[Setting] = &[$($(Setting {
            name: stringify!($name),
            variable: $env,
            section: $section,
            kind: settings!(@kind $type $(, $kind)?),
            allowed: $allowed,
            example: $example,
            about: concat!($($doc),*),
            is_secret: <$type as Value>::IS_SECRET,
            set: |config, text| {
                let value = settings!(@parse $type $(, $kind)?)(text)?;
                $(let check: fn(&$type) -> _ = $check;
                check(&value).verdict()?;)?
                config.$name = value;
                Ok(())
            },
            show: |config| Value::show(&config.$name),
            holds: |config| {
                let _ = config;
                $(let check: fn(&$type) -> _ = $check;
                check(&config.$name).verdict()?;)?
                Ok(())
            },
        },)*)*];
    };
}

/// One row of the settings table.
pub struct Setting {
    /// Its name in `Config`, TOML, JSON, C and Python.
    pub name: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// The heading under which the documentation has it.
    pub section: &'static str,
    /// What sort of value it takes.
    pub kind: ValueKind,
    /// What is allowed, in words.
    pub allowed: &'static str,
    /// A value other than the default, as text that [`Config::set`] takes.
    pub example: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether its value must not be shown; such a setting can also be given as `<variable>_FILE`.
    pub is_secret: bool,
    set: fn(&mut Config, &str) -> Result<(), Why>,
    show: fn(&Config) -> String,
    holds: fn(&Config) -> Result<(), Why>,
}

/// Something that looks wrong but is no reason not to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What happens, as a fixed sentence.
    pub message: &'static str,
    /// The variable or file it is about.
    pub about: String,
    /// What may help.
    pub hint: String,
}

impl Warning {
    pub(crate) fn log(&self) {
        let Self {
            message,
            about,
            hint,
        } = self;
        tracing::warn!(about, hint, "{message}");
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setting")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Setting {
    /// Its value in a configuration as text that `set` reads again, secrets included.
    #[cfg(any(test, inside))]
    pub(crate) fn write(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// What is allowed under one of its names, in words, units included: the variables of the original take none.
    pub fn allowed_as(&self, key: &str) -> String {
        match self.kind.units() {
            units if !units.is_empty() && !ORIGINAL_NUMBERS.contains(&key) => {
                format!("{}, or {units}", self.allowed)
            }
            _ => self.allowed.into(),
        }
    }

    /// Its value in a configuration as text that `set` reads again; `***` for a secret that is set, and for what may be one
    /// in a URL: user, password and query.
    pub fn show(&self, config: &Config) -> String {
        let text = (self.show)(config);
        if self.is_secret && !text.is_empty() && text != "{}" {
            "***".into()
        } else if is_telling(&text) {
            masked(&text)
        } else {
            text
        }
    }
}

settings! {
    ["Devices connect"]
    /// Port that devices connect to. 0 picks a free port; `local_addr` tells which.
    websocket_port: u16 = 3000, "WEBSOCKET_PORT", "a port from 0 to 65535", "4000";
    /// Milliseconds between pings to a device. The gateway cuts a device that shows no sign of life by its next ping. 0 turns the heartbeat off.
    websocket_ping_interval: Duration = Duration::from_secs(30), "WEBSOCKET_PING_INTERVAL", "milliseconds from 0 to 86400000", "60000", |d| d.as_millis() <= 86_400_000;
    /// Address to listen on. Empty means all addresses, IPv6 and IPv4 (`::`), or IPv4 alone where there is no IPv6.
    listen_addr: Option<IpAddr> = None, "FASTSOCK_LISTEN_ADDR", "an IP address, or empty for all", "127.0.0.1";
    /// Lets several processes share the port (SO_REUSEPORT). While it is off, a taken port is an error.
    listen_reuseport: bool = false, "FASTSOCK_LISTEN_REUSEPORT", "on or off", "on";
    /// Origins that browsers may connect from. Empty allows every origin; where a client certificate decides who a device is, empty allows pages of the same host only. A request without an Origin is always allowed.
    listen_origins: Vec<String> = Vec::new(), "FASTSOCK_LISTEN_ORIGINS", "origins such as https://example.com or https://*.example.com, separated by commas", "https://example.com,https://*.example.com", |list| list.iter().try_for_each(|text| origin::Origin::parse(text).map(drop));

    ["TLS for devices"]
    /// PEM files of certificates, each with its chain. They turn the device port into `wss` (TLS 1.2 and 1.3). The gateway shows the certificate that has the name a device asks for (SNI), else the first. `reload` reads the files again.
    tls_cert: Vec<PathBuf> = Vec::new(), "FASTSOCK_TLS_CERT", "paths of PEM files, separated by commas", "/etc/fastsock/gateway.pem";
    /// PEM files of the keys, in the same order as the certificates. `reload` reads the files again.
    tls_key: Vec<PathBuf> = Vec::new(), "FASTSOCK_TLS_KEY", "paths of PEM files, separated by commas", "/etc/fastsock/gateway.key";
    /// Whether the gateway asks devices for a certificate. `off`: it does not. `optional`: a device may show one, which must be valid. `required`: a device must show one. The name in it (common name, else the first DNS name, URI or e-mail address) is a credential, and the client id with `FASTSOCK_AUTH=certificate`.
    tls_client_auth: ClientAuth = ClientAuth::Off, "FASTSOCK_TLS_CLIENT_AUTH", "off, optional or required", "required";
    /// PEM file of the authorities that sign the certificates of devices. `reload` reads the file again.
    tls_client_ca: Option<PathBuf> = None, "FASTSOCK_TLS_CLIENT_CA", "the path of a PEM file", "/etc/fastsock/devices-ca.pem";

    ["Proxies in front of the gateway"]
    /// Proxies that the gateway believes about the address of a device, by `FASTSOCK_PROXY_PROTOCOL` or `X-Forwarded-For`. Empty: it believes none.
    trusted_proxies: Vec<String> = Vec::new(), "FASTSOCK_TRUSTED_PROXIES", "addresses and CIDRs such as 10.0.0.0/8, separated by commas", "10.0.0.0/8,192.0.2.1", |list| list.iter().all(|text| network(text).is_some());
    /// Requires a PROXY header, version 1 or 2, from each trusted proxy, before TLS and everything else. Others must not send one.
    proxy_protocol: bool = false, "FASTSOCK_PROXY_PROTOCOL", "on or off", "on";

    ["Redis"]
    /// What carries downlinks between processes. `embedded`: this process only. `redis`: Redis. `auto`: Redis as soon as it answers.
    broker: BrokerKind = BrokerKind::Embedded, "FASTSOCK_BROKER", "embedded, redis or auto", "redis";
    /// Host name or address of Redis.
    redis_host: String = "127.0.0.1".into(), "REDIS_HOST", "a host name or IP address; FASTSOCK_REDIS_URL takes a URL, REDIS_PORT the port", "redis.internal", |s| is_host(s);
    /// Port of Redis.
    redis_port: u16 = 6379, "REDIS_PORT", "a port from 1 to 65535", "6380", |p| *p > 0;
    /// Database number of Redis, for the hash of clients. Channels do not depend on it.
    redis_db: i64 = 0, "REDIS_DB", "an integer from 0 to 2147483647", "1", |n| (0..=2_147_483_647).contains(n);
    /// First part of every Redis key and channel.
    redis_prefix: String = "fastsock".into(), "REDIS_PREFIX", "any text that is not empty", "plant7", |s| !s.is_empty();
    /// Redis as a URL with user and password: `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/service/db`, `redis+cluster://host:port,host:port`. Overrides host, port and database.
    redis_url: Option<Secret> = None, "FASTSOCK_REDIS_URL", "a redis://, rediss://, redis+sentinel:// or redis+cluster:// URL", "rediss://gateway:secret@redis.internal:6380/0";
    /// PEM file of certificates to trust for `rediss`, beside those of the system.
    redis_ca: Option<PathBuf> = None, "FASTSOCK_REDIS_CA", "the path of a PEM file", "/etc/fastsock/redis-ca.pem";
    /// PEM file of the gateway's certificate, with its chain, for a `rediss` server that asks for one.
    redis_cert: Option<PathBuf> = None, "FASTSOCK_REDIS_CERT", "the path of a PEM file", "/etc/fastsock/redis-client.pem";
    /// PEM file of the private key of that certificate.
    redis_key: Option<PathBuf> = None, "FASTSOCK_REDIS_KEY", "the path of a PEM file", "/etc/fastsock/redis-client.key";
    /// Milliseconds to connect to Redis: DNS, TCP, TLS and login together. The gateway tries every address of the name.
    redis_connect_timeout: Duration = Duration::from_secs(5), "FASTSOCK_REDIS_CONNECT_TIMEOUT", "milliseconds from 1 to 600000", "10s", |d| is_within(d, 1, 600_000);
    /// `pattern`: one PSUBSCRIBE, right for one or two gateways. `exact`: one SUBSCRIBE per device, right from three gateways up.
    redis_subscribe: Subscribe = Subscribe::Pattern, "FASTSOCK_REDIS_SUBSCRIBE", "pattern or exact", "exact";

    ["The backend"]
    /// Where the gateway POSTs uplinks. Empty: it counts them as lost, unless a hook takes them.
    remote_url: Option<String> = None, "REMOTE_URL", "an http:// or https:// URL", "http://127.0.0.1:8080/", |url| url.as_deref().is_none_or(is_http_url);
    /// Headers of each POST as a JSON object; they override all other headers. Numbers and booleans become text, null removes a header.
    remote_headers: Headers = Headers::default(), "REMOTE_HEADERS", "a JSON object of header names and texts, numbers, booleans or null", r#"{"Authorization":"Bearer secret"}"#;
    /// PEM file of certificates to trust for an `https` remote, beside those of the system.
    remote_ca: Option<PathBuf> = None, "FASTSOCK_REMOTE_CA", "the path of a PEM file", "/etc/fastsock/backend-ca.pem";
    /// PEM file of certificates to trust for everything over TLS, as in Node.
    extra_ca_certs: Option<PathBuf> = None, "NODE_EXTRA_CA_CERTS", "the path of a PEM file", "/etc/ssl/extra-ca.pem";
    /// PEM file of the gateway's certificate, with its chain, for an `https` remote that asks for one.
    remote_cert: Option<PathBuf> = None, "FASTSOCK_REMOTE_CERT", "the path of a PEM file", "/etc/fastsock/backend-client.pem";
    /// PEM file of the private key of that certificate.
    remote_key: Option<PathBuf> = None, "FASTSOCK_REMOTE_KEY", "the path of a PEM file", "/etc/fastsock/backend-client.key";
    /// Proxy for an `http` remote. The lower-case variable wins.
    http_proxy: Option<Secret> = None, "HTTP_PROXY", "the URL of a proxy", "http://proxy.internal:3128";
    /// Proxy for an `https` remote. The lower-case variable wins.
    https_proxy: Option<Secret> = None, "HTTPS_PROXY", "the URL of a proxy", "http://proxy.internal:3128";
    /// Hosts that the gateway reaches without a proxy. The lower-case variable wins.
    no_proxy: Vec<String> = Vec::new(), "NO_PROXY", "host names, domains, addresses or CIDRs separated by commas, or *", "localhost,.internal,10.0.0.0/8";
    /// POSTs in flight at once, over all devices.
    remote_concurrency: usize = 256, "FASTSOCK_REMOTE_CONCURRENCY", "an integer from 1 to 10000", "64", |n| (1..=10_000).contains(n);
    /// Milliseconds to connect to the remote, TLS included.
    remote_connect_timeout: Duration = Duration::from_secs(5), "FASTSOCK_REMOTE_CONNECT_TIMEOUT", "milliseconds from 1 to 600000", "2s", |d| is_within(d, 1, 600_000);
    /// Milliseconds for one whole POST.
    remote_timeout: Duration = Duration::from_secs(15), "FASTSOCK_REMOTE_TIMEOUT", "milliseconds from 1 to 600000", "30s", |d| is_within(d, 1, 600_000);
    /// HTTP/2 to an `https` remote. `auto`: where the remote offers it; one connection then carries all POSTs. `off`: never.
    remote_http2: Http2 = Http2::Auto, "FASTSOCK_REMOTE_HTTP2", "auto or off", "off";
    /// Milliseconds for which the gateway uses a connection to the remote for new POSTs. Then it opens another and looks the name up again, so that a change of DNS takes effect.
    remote_connection_age: Duration = Duration::from_secs(300), "FASTSOCK_REMOTE_CONNECTION_AGE", "milliseconds from 1 to 86400000", "1m", |d| is_within(d, 1, 86_400_000);
    /// Milliseconds after which the gateway gives up an uplink that it cannot deliver.
    remote_max_age: Duration = Duration::from_secs(24 * 3600), "FASTSOCK_REMOTE_MAX_AGE", "milliseconds from 1000 to 2592000000", "1h", |d| is_within(d, 1000, 2_592_000_000);
    /// Adds `Idempotency-Key`, `X-Fastsock-Session`, `X-Fastsock-Seq` and `X-Fastsock-Attempt` to each POST.
    remote_extra_headers: bool = true, "FASTSOCK_REMOTE_EXTRA_HEADERS", "on or off", "off";
    /// Signs each POST by Standard Webhooks, with `webhook-id`, `webhook-timestamp` and `webhook-signature`. Give two secrets while you change them: the gateway then sends two signatures.
    remote_secret: Option<Secret> = None, "FASTSOCK_REMOTE_SECRET", "whsec_ and the Base64 of 24 to 64 bytes; two of them separated by a space or comma", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", |s| s.as_ref().is_none_or(|s| s.webhook_keys().is_some());
    /// Makes each POST a CloudEvent in binary mode, by `ce-` headers beside the same body.
    remote_cloudevents: bool = false, "FASTSOCK_REMOTE_CLOUDEVENTS", "on or off", "on";
    /// Sends the body of a 200, if it is not empty, back to the device: BINARY when its type is `application/octet-stream`, else TEXT.
    remote_reply: bool = false, "FASTSOCK_REMOTE_REPLY", "on or off", "on";
    /// Longest such reply in bytes; the gateway counts a longer one as lost. Each POST in flight may hold one reply.
    remote_reply_bytes: usize as bytes = 64 << 10, "FASTSOCK_REMOTE_REPLY_BYTES", "bytes from 1 to 16777216", "16KiB", |n| (1..=16 << 20).contains(n);
    /// Most messages in one POST, as a JSON array. They come from one device or several; each device keeps its order. 1: each message is a POST of its own.
    remote_batch: usize = 1, "FASTSOCK_REMOTE_BATCH", "an integer from 1 to 1024", "100", |n| (1..=1024).contains(n);
    /// Milliseconds that the first message of a batch waits for others while other POSTs are in flight.
    remote_batch_wait: Duration = Duration::from_millis(10), "FASTSOCK_REMOTE_BATCH_WAIT", "milliseconds from 1 to 60000", "50ms", |d| is_within(d, 1, 60_000);
    /// What a 410 does besides losing the message. `ignore`: nothing. `close`: the gateway closes the device with 4410.
    remote_gone: Gone = Gone::Ignore, "FASTSOCK_REMOTE_GONE", "ignore or close", "close";

    ["Uplinks in memory"]
    /// What happens when the lane of a device is full. `pause`: the gateway stops reading that socket. `drop_oldest`: the oldest message is lost.
    uplink_full: UplinkFull = UplinkFull::Pause, "FASTSOCK_UPLINK_FULL", "pause or drop_oldest", "drop_oldest";
    /// Bytes that the lane of one device holds in memory. A message counts as its payload and 128 bytes. The gateway checks the limit before it adds a message, so one message may exceed it. With a disk spool the rest of the lane is on the disk.
    uplink_lane_bytes: usize as bytes = 64 << 10, "FASTSOCK_UPLINK_LANE_BYTES", "bytes from 1 to 1073741824", "128KiB", |n| (1..=1 << 30).contains(n);
    /// Bytes that all lanes together hold in memory. Without a durable spool, a lane that has something to send counts as its client id and 896 bytes more.
    uplink_total_bytes: usize as bytes = 64 << 20, "FASTSOCK_UPLINK_TOTAL_BYTES", "bytes from 1 to 68719476736", "256MiB", |n| (1..=64u64 << 30).contains(&(*n as u64));
    /// How a binary frame becomes the text `data`. `lossy`: as UTF-8, in which bad bytes become U+FFFD. `base64`: as Base64, with `"encoding":"base64"` beside it.
    uplink_binary: UplinkBinary = UplinkBinary::Lossy, "FASTSOCK_UPLINK_BINARY", "lossy or base64", "base64";

    ["Acknowledgements"]
    /// Lets devices ask for acknowledgements with the subprotocol `fastsock.v1.ack`.
    ack: bool = false, "FASTSOCK_ACK", "on or off", "on";
    /// Acknowledged uplinks per device that the gateway remembers, so that it does not take one twice when the device repeats it.
    ack_window: usize = 256, "FASTSOCK_ACK_WINDOW", "an integer from 1 to 4096", "1024", |n| (1..=4096).contains(n);
    /// Milliseconds for which the gateway remembers them.
    ack_time: Duration = Duration::from_secs(600), "FASTSOCK_ACK_TIME", "milliseconds from 1000 to 86400000", "1h", |d| is_within(d, 1000, 86_400_000);
    /// Bytes that they take together. Each counts as its id, the client id and 256 bytes. Beyond that, the gateway forgets the oldest early.
    ack_total_bytes: usize as bytes = 64 << 20, "FASTSOCK_ACK_TOTAL_BYTES", "bytes from 1024 to 1073741824", "16MiB", |n| (1024..=1 << 30).contains(n);

    ["Lifecycle events"]
    /// Where the gateway POSTs lifecycle events: who connected, who disconnected, gaps of the broker. Empty: nowhere.
    events_url: Option<String> = None, "FASTSOCK_EVENTS_URL", "an http:// or https:// URL", "http://127.0.0.1:8080/events", |url| url.as_deref().is_none_or(is_http_url);
    /// Headers of each event as a JSON object, as `REMOTE_HEADERS` for uplinks.
    events_headers: Headers = Headers::default(), "FASTSOCK_EVENTS_HEADERS", "a JSON object of header names and texts, numbers, booleans or null", r#"{"Authorization":"Bearer secret"}"#;
    /// Milliseconds for which the gateway waits before it reports a disconnect. If the device is back by then, it reports neither the disconnect nor the connect. 0 reports each.
    events_grace: Duration = Duration::from_secs(5), "FASTSOCK_EVENTS_GRACE", "milliseconds from 0 to 3600000", "10s", |d| is_within(d, 0, 3_600_000);
    /// Bytes of lifecycle events that the gateway holds while their backend is away. An event counts as its body and 128 bytes, and each device with events as its client id and 896 bytes. Beyond that, new events are lost.
    events_total_bytes: usize as bytes = 16 << 20, "FASTSOCK_EVENTS_TOTAL_BYTES", "bytes from 1 to 1073741824", "64MiB", |n| (1..=1 << 30).contains(n);

    ["The spool and dead letters"]
    /// Where uplinks wait until they are delivered. `memory`: in this process; they end with it. `disk`: on the disk; they outlive the process. `redis`: in Redis; other gateways deliver them when this one is gone (docs/delivery.md).
    spool: SpoolKind = SpoolKind::Memory, "FASTSOCK_SPOOL", "memory, disk or redis", "disk";
    /// When the disk spool syncs. `always`: before a message counts as taken. `interval`: every `FASTSOCK_SPOOL_FSYNC_INTERVAL`; a kill or a power loss costs at most what was taken within it.
    spool_fsync: Fsync = Fsync::Always, "FASTSOCK_SPOOL_FSYNC", "always or interval", "interval";
    /// Milliseconds between syncs with `interval`.
    spool_fsync_interval: Duration = Duration::from_millis(100), "FASTSOCK_SPOOL_FSYNC_INTERVAL", "milliseconds from 1 to 60000", "50ms", |d| is_within(d, 1, 60_000);
    /// Bytes that a durable spool holds, counted as in a lane. When it is full, `FASTSOCK_UPLINK_FULL` decides on disk, and sessions wait in Redis. The file is larger than this by what redb needs. In Redis each of the 16 streams holds a 16th.
    spool_max_bytes: usize as bytes = 1 << 30, "FASTSOCK_SPOOL_MAX_BYTES", "bytes from 1 to 1099511627776", "10GiB", |n| (1..=1u64 << 40).contains(&(*n as u64));
    /// Messages that a durable spool holds.
    spool_max_messages: usize = 1_000_000, "FASTSOCK_SPOOL_MAX_MESSAGES", "an integer from 1 to 1000000000", "5000000", |n| (1..=1_000_000_000).contains(n);
    /// Replicas of Redis that must have a message before it counts as taken in the spool in Redis. While fewer have it within a second, sessions wait. 0: a failover may lose what was taken in the last moments before it.
    spool_replicas: usize = 0, "FASTSOCK_SPOOL_REPLICAS", "an integer from 0 to 16", "1", |n| *n <= 16;
    /// Bytes that the lane of one device holds in the disk spool, so that no device fills it alone.
    spool_lane_bytes: usize as bytes = 64 << 20, "FASTSOCK_SPOOL_LANE_BYTES", "bytes from 1 to 1099511627776", "16MiB", |n| (1..=1u64 << 40).contains(&(*n as u64));
    /// Directory of what outlives the process. The gateway makes it with mode 0700 when it is not there. One process uses it at a time.
    data_dir: Option<PathBuf> as directory = None, "FASTSOCK_DATA_DIR", "the path of a directory", "/var/lib/fastsock";
    /// Dead letters that the gateway keeps; beyond that, it drops the oldest. With the memory spool it keeps at most 1,000 of together 1 MiB. 0 keeps none.
    dead_letters_max: usize = 10_000, "FASTSOCK_DEAD_LETTERS_MAX", "an integer from 0 to 1000000", "1000", |n| *n <= 1_000_000;
    /// Milliseconds for which the gateway keeps a dead letter after it gave it up.
    dead_letters_max_age: Duration = Duration::from_secs(30 * 24 * 3600), "FASTSOCK_DEAD_LETTERS_MAX_AGE", "milliseconds from 1000 to 315360000000", "7d", |d| is_within(d, 1000, 315_360_000_000);

    ["Downlinks"]
    /// How the gateway sends a downlink that is not UTF-8. `text`: as TEXT, in which bad bytes become U+FFFD. `auto`: as BINARY.
    downlink_binary: DownlinkBinary = DownlinkBinary::Text, "FASTSOCK_DOWNLINK_BINARY", "text or auto", "auto";
    /// What happens when an outbox is full and its device does not read. `close`: the gateway closes the device with 4413. `drop_oldest` and `drop_newest`: that message is lost.
    downlink_full: Full = Full::Close, "FASTSOCK_DOWNLINK_FULL", "close, drop_oldest or drop_newest", "drop_oldest";
    /// Bytes that the outbox of one device holds. A message counts as its payload and 128 bytes. The gateway checks the limit before it adds a message, so one message may exceed it.
    outbox_bytes: usize as bytes = 1 << 20, "FASTSOCK_OUTBOX_BYTES", "bytes from 1 to 1073741824", "256KiB", |n| (1..=1 << 30).contains(n);
    /// Messages that the outbox of one device holds.
    outbox_messages: usize = 16_384, "FASTSOCK_OUTBOX_MESSAGES", "an integer from 1 to 1048576", "1000", |n| (1..=1 << 20).contains(n);
    /// Bytes that all devices together may have waiting beyond their own two limits. Only a device that reads goes beyond them: its socket has taken something within the last second. When these bytes are used up, `FASTSOCK_DOWNLINK_FULL` applies to the devices beyond their own limits, the largest first. 0: no device goes beyond.
    outbox_total_bytes: usize as bytes = 64 << 20, "FASTSOCK_OUTBOX_TOTAL_BYTES", "bytes from 0 to 68719476736", "256MiB", |n| *n as u64 <= 64 << 30;

    ["Sessions and limits"]
    /// What a second session of a client id does. `replace`: it replaces the first, which is closed with 4509. `reject`: it is refused with 409.
    duplicate_policy: DuplicatePolicy = DuplicatePolicy::Replace, "FASTSOCK_DUPLICATE_POLICY", "replace or reject", "reject";
    /// Longest message of a device in bytes, inclusive.
    limit_message_bytes: usize as bytes = 1 << 20, "FASTSOCK_LIMIT_MESSAGE_BYTES", "bytes from 1 to 104857600", "64KiB", |n| (1..=100 << 20).contains(n);
    /// Longest request head in bytes.
    limit_head_bytes: usize as bytes = 8 << 10, "FASTSOCK_LIMIT_HEAD_BYTES", "bytes from 256 to 65536", "4KiB", |n| (256..=65_536).contains(n);
    /// Milliseconds that a device has to send its request head.
    limit_handshake_time: Duration = Duration::from_secs(10), "FASTSOCK_LIMIT_HANDSHAKE_TIME", "milliseconds from 100 to 600000", "5s", |d| is_within(d, 100, 600_000);
    /// Most sessions and handshakes at once. 0: the descriptor limit of the process less 64.
    limit_connections: usize = 0, "FASTSOCK_LIMIT_CONNECTIONS", "an integer from 0 to 10000000", "50000", |n| *n <= 10_000_000;
    /// Most connections at once from one address; more are answered with 429. The /64 of an IPv6 address counts as one address. 0: any number.
    limit_connections_per_ip: usize = 0, "FASTSOCK_LIMIT_CONNECTIONS_PER_IP", "an integer from 0 to 10000000", "100", |n| *n <= 10_000_000;
    /// Connections that the gateway accepts per second, with one second's worth at once; the rest is answered with 503. 0: any number.
    limit_accepts: u32 = 0, "FASTSOCK_LIMIT_ACCEPTS", "an integer from 0 to 1000000", "500", |n| *n <= 1_000_000;
    /// Most handshakes at once, from the connection to the 101; more are answered with 503. 0: any number.
    limit_handshakes: usize = 0, "FASTSOCK_LIMIT_HANDSHAKES", "an integer from 0 to 10000000", "1000", |n| *n <= 10_000_000;
    /// Messages and pings that a device may send per second, with one second's worth at once. Beyond that its messages wait; a device that stays beyond it for 30 s is closed with 4429. 0: any number.
    limit_uplinks: u32 = 0, "FASTSOCK_LIMIT_UPLINKS", "an integer from 0 to 1000000", "50", |n| *n <= 1_000_000;
    /// Bytes of messages and pings that a device may send per second, in the same way. 0: any number.
    limit_uplink_bytes: u64 as bytes = 0, "FASTSOCK_LIMIT_UPLINK_BYTES", "bytes from 0 to 1073741824", "1MiB", |n| *n <= 1 << 30;
    /// Milliseconds for which a device may take no byte of what the gateway writes; then it is closed with 4413. The same holds for a client of the admin listener.
    write_timeout: Duration = Duration::from_secs(10), "FASTSOCK_WRITE_TIMEOUT", "milliseconds from 100 to 600000", "30s", |d| is_within(d, 100, 600_000);
    /// Milliseconds that a device has to answer a close frame.
    close_timeout: Duration = Duration::from_secs(2), "FASTSOCK_CLOSE_TIMEOUT", "milliseconds from 1 to 60000", "1s", |d| is_within(d, 1, 60_000);
    /// Milliseconds that a hook has to answer a decision it put off.
    hook_timeout: Duration = Duration::from_secs(5), "FASTSOCK_HOOK_TIMEOUT", "milliseconds from 1 to 600000", "10s", |d| is_within(d, 1, 600_000);

    ["Who may connect"]
    /// Who may connect, unless a hook decides. `open`: whoever names a client id as `token`. `tokens`: whoever has a token of a file. `jwt`: whoever has a valid JWT. `webhook`: whomever `FASTSOCK_AUTH_URL` lets in. `certificate`: whoever has a client certificate; the name in it is the client id. All but `open` look for a credential in `Authorization: Bearer`, in a subprotocol `fastsock-token.<token>`, in a client certificate and in `token`, and the first one found counts.
    auth: AuthKind = AuthKind::Open, "FASTSOCK_AUTH", "open, tokens, jwt, webhook or certificate", "tokens";
    /// File of tokens: lines of a client id and the SHA-256 of a token in hexadecimal. The gateway reloads it within 1 s of its being replaced, or 2 s after it was last written in place. It closes sessions whose token is gone with 4503.
    auth_tokens_file: Option<PathBuf> = None, "FASTSOCK_AUTH_TOKENS_FILE", "the path of a file", "/etc/fastsock/tokens";
    /// Key that JWTs are verified with: PEM public keys (RS256, ES256, EdDSA), the Base64 of one, or an HS256 secret of at least 32 bytes, marked as such.
    auth_jwt_key: Option<Secret> = None, "FASTSOCK_AUTH_JWT_KEY", "PEM blocks PUBLIC KEY, the Base64 of one, hs256:base64:… or hs256:text:…", "hs256:text:0123456789abcdef0123456789abcdef";
    /// Keys that JWTs are verified with, as a JWK set. HS256 secrets in it count only when it is a file. The gateway fetches the set again every `FASTSOCK_AUTH_JWT_REFRESH`, and for an unknown `kid`: five times at once, and then once in 10 s. While it cannot, it keeps the keys it has.
    auth_jwt_jwks: Option<String> = None, "FASTSOCK_AUTH_JWT_JWKS", "an http:// or https:// URL, or the path of a file", "https://login.example.com/jwks.json";
    /// Milliseconds after which the gateway fetches the JWK set again.
    auth_jwt_refresh: Duration = Duration::from_secs(300), "FASTSOCK_AUTH_JWT_REFRESH", "milliseconds from 1000 to 86400000", "1h", |d| is_within(d, 1000, 86_400_000);
    /// Claim of a JWT that is the client id.
    auth_jwt_claim: String = "sub".into(), "FASTSOCK_AUTH_JWT_CLAIM", "the name of a claim", "device", |s| !s.is_empty();
    /// Audiences; a JWT must name one of them (`aud`). Empty: a JWT that names any is refused.
    auth_jwt_audience: Vec<String> = Vec::new(), "FASTSOCK_AUTH_JWT_AUDIENCE", "names separated by commas", "fastsock";
    /// Issuers; a JWT must come from one of them (`iss`). Empty allows any.
    auth_jwt_issuer: Vec<String> = Vec::new(), "FASTSOCK_AUTH_JWT_ISSUER", "names separated by commas", "https://login.example.com";
    /// Milliseconds by which clocks may differ. A JWT is valid that long before `nbf` (at least 5 s) and after `exp`, when the gateway closes its session with 4501.
    auth_jwt_leeway: Duration = Duration::ZERO, "FASTSOCK_AUTH_JWT_LEEWAY", "milliseconds from 0 to 600000", "5s", |d| is_within(d, 0, 600_000);
    /// Where the gateway asks the webhook who may connect.
    auth_url: Option<Secret> = None, "FASTSOCK_AUTH_URL", "an http:// or https:// URL", "http://127.0.0.1:8080/auth", |url| url.as_ref().is_none_or(|url| is_http_url(url.expose()));
    /// Headers for the webhook, as `REMOTE_HEADERS` for uplinks.
    auth_headers: Headers = Headers::default(), "FASTSOCK_AUTH_HEADERS", "a JSON object of header names and texts, numbers, booleans or null", r#"{"Authorization":"Bearer secret"}"#;
    /// Milliseconds that a device waits for the webhook or for JWT keys, its turn included; then it gets a 503.
    auth_timeout: Duration = Duration::from_secs(3), "FASTSOCK_AUTH_TIMEOUT", "milliseconds from 1 to 60000", "1s", |d| is_within(d, 1, 60_000);
    /// Requests to the webhook at once.
    auth_concurrency: usize = 64, "FASTSOCK_AUTH_CONCURRENCY", "an integer from 1 to 10000", "16", |n| (1..=10_000).contains(n);
    /// Milliseconds for which the gateway lets a device in again without asking the webhook, never beyond `expires_at`. 0: it always asks.
    auth_cache: Duration = Duration::from_secs(10), "FASTSOCK_AUTH_CACHE", "milliseconds from 0 to 3600000", "1m", |d| is_within(d, 0, 3_600_000);

    ["The admin listener"]
    /// Address and port of the admin listener (health and API). Empty or `off`: none.
    admin_addr: Option<SocketAddr> = None, "FASTSOCK_ADMIN_ADDR", "an address and port such as 127.0.0.1:3001, or off", "127.0.0.1:9001";
    /// Bearer token of the admin API. It is required when the admin listener is beyond loopback, and must then have at least 16 characters.
    admin_token: Option<Secret> = None, "FASTSOCK_ADMIN_TOKEN", "any text", "0123456789abcdef0123456789abcdef";
    /// Answers 503 on `/readyz` while the broker is away, rather than 200 with `degraded`.
    ready_requires_broker: bool = false, "FASTSOCK_READY_REQUIRES_BROKER", "on or off", "on";
}

impl Config {
    /// The settings table, in the order of the documentation.
    pub fn settings() -> &'static [Setting] {
        SETTINGS
    }

    /// Sets one setting from text, by its name or its variable; empty text means the default.
    ///
    /// # Errors
    /// `Config` when there is no such setting (the nearest name is told) or the value is not allowed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match find(key) {
            Some(setting) => self.apply(setting, key, value),
            None => removed::set(key, value).unwrap_or_else(|| Err(unknown(key))),
        }
    }

    /// The value of a setting as text, secrets as `***`; `None` when there is no such setting.
    pub fn show(&self, key: &str) -> Option<String> {
        find(key).map(|setting| setting.show(self))
    }

    /// As [`Config::from_vars`], from what `std::env::vars_os` gives.
    ///
    /// # Errors
    /// As there; also for a setting whose value is not UTF-8.
    pub fn from_os_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self> {
        let mut pairs = Vec::new();
        for (key, value) in vars {
            let Ok(key) = key.into_string() else {
                continue; // no name of ours
            };
            match value.into_string() {
                Ok(value) => pairs.push((key, value)),
                Err(_) if Self::is_variable(&key) => return Err(not_utf8(&key)),
                Err(_) => {}
            }
        }
        Self::from_vars(pairs)
    }

    /// The defaults overlaid with environment variables, by the names of docs/settings.md. Other variables are ignored.
    /// `<variable>_FILE` reads a secret from a file, without whitespace around it. Of the numbers that the original had, only the
    /// digits they begin with count, as there (`WEBSOCKET_PORT=3000.5` is 3000); [`Config::warnings`] then says so. What Kubernetes sets for services (`FASTSOCK_PORT=tcp://…`) is passed over.
    ///
    /// ```
    /// let config = fastsock::Config::from_vars([("WEBSOCKET_PORT", "4000"), ("HOME", "/root")])?;
    /// assert_eq!(config.websocket_port, 4000);
    /// # Ok::<(), fastsock::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Config`, naming the variable, its value and what is allowed. Also for a name that begins with `FASTSOCK_AUTH` and is none
    /// of ours: whoever mistypes it would leave a door open.
    pub fn from_vars<K: AsRef<str>, V: AsRef<str>>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let mut config = Self::default();
        config.merge_vars(vars)?;
        Ok(config)
    }

    /// Overlays environment variables on what is set already.
    ///
    /// # Errors
    /// As [`Config::from_vars`].
    pub fn merge_vars<K: AsRef<str>, V: AsRef<str>>(
        &mut self,
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<()> {
        // A proxy may be named in both cases; the lower one wins whatever the order.
        let mut lower = HashSet::new();
        for (key, value) in vars {
            let (key, value) = (key.as_ref(), value.as_ref());
            if Self::is_service_link(key, value) {
                continue;
            }
            let is_lower_proxy = matches!(key, "http_proxy" | "https_proxy" | "no_proxy");
            let variable = if is_lower_proxy {
                key.to_ascii_uppercase()
            } else {
                key.to_owned()
            };
            if let Some(setting) = SETTINGS.iter().find(|s| s.variable == variable) {
                if is_lower_proxy && !value.is_empty() {
                    lower.insert(setting.variable);
                } else if lower.contains(setting.variable) {
                    continue;
                }
                if ORIGINAL_NUMBERS.contains(&setting.variable) {
                    self.apply_cut(setting, key, value)?;
                } else if !value.is_empty() || !is_lower_proxy {
                    self.apply(setting, key, value)?;
                }
            } else if let Some(setting) = file_setting(key)
                && !value.is_empty()
            {
                self.apply(setting, key, &secret_of_file(key, trimmed(value))?)?;
            } else if let Some(taken) = removed::set(key, value) {
                taken?;
            } else if key.starts_with("FASTSOCK_AUTH") && file_setting(key).is_none() {
                return Err(unknown_variable(key));
            }
        }
        Ok(())
    }

    /// Overlays a JSON object: names with texts, numbers, booleans or null (the default); sections may nest, so
    /// `{"redis":{"port":6380}}` is `{"redis_port":6380}`.
    ///
    /// # Errors
    /// `Config`, naming the setting, its value and what is allowed; also for one that is given twice.
    pub fn merge_json(&mut self, json: &str) -> Result<()> {
        let value: serde_json::Value = serde_json::from_str(json).map_err(|e| {
            Error::new(ErrorKind::Config, "the settings are not valid JSON").with_source(e)
        })?;
        let serde_json::Value::Object(map) = value else {
            return Err(Error::new(
                ErrorKind::Config,
                "the settings are not a JSON object",
            ));
        };
        for (key, value) in flatten(map, &|key| find(key).map(|setting| setting.name))? {
            self.set(&key, &value)?;
        }
        Ok(())
    }

    /// What looked wrong in what was given but is no reason not to run. The bridge logs it when it starts.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Whether a variable is none of ours but of Kubernetes, which gives each container some for each service of its namespace.
    /// One of a service called `fastsock` or `redis` looks like a setting: `REDIS_PORT=tcp://10.0.0.1:6379`.
    pub fn is_service_link(name: &str, value: &str) -> bool {
        service_links::is_service_link(name, value)
    }

    /// Whether a name is the variable of a setting, or the `_FILE` form of a secret one.
    pub fn is_variable(name: &str) -> bool {
        matches!(name, "http_proxy" | "https_proxy" | "no_proxy")
            || SETTINGS.iter().any(|s| s.variable == name)
            || file_setting(name).is_some()
    }

    /// Whether it was a setting of an earlier version: one value of it is still taken, any other refused.
    pub fn is_removed(name: &str) -> bool {
        removed::is_removed(name)
    }

    /// Whether anything is carried by Redis, or kept in it.
    #[cfg(feature = "redis")]
    pub(crate) fn uses_redis(&self) -> bool {
        self.broker != BrokerKind::Embedded || self.spool == SpoolKind::Redis
    }

    /// Whether Redis was configured in any way, so that its absence is an error and not a choice.
    #[cfg(feature = "redis")]
    pub(crate) fn names_redis(&self) -> bool {
        let default = Self::default();
        self.redis_url.is_some()
            || (
                &self.redis_host,
                self.redis_port,
                self.redis_db,
                &self.redis_prefix,
            ) != (
                &default.redis_host,
                default.redis_port,
                default.redis_db,
                &default.redis_prefix,
            )
    }

    /// The settings that name files to be read, as far as they are given.
    pub(crate) fn named_files(&self) -> String {
        let is_file = |setting: &&Setting| {
            let value = (setting.show)(self);
            let is_path = matches!(setting.kind, ValueKind::Path | ValueKind::Paths)
                || setting.name == "auth_jwt_jwks" && !value.starts_with("http");
            is_path && !value.is_empty()
        };
        let files = SETTINGS
            .iter()
            .filter(is_file)
            .map(|setting| setting.variable);
        files.collect::<Vec<_>>().join(", ")
    }

    /// Those of [`Config::listen_origins`].
    pub(crate) fn origins(&self) -> Vec<origin::Origin> {
        let texts = self.listen_origins.iter();
        texts
            .filter_map(|text| origin::Origin::parse(text).ok())
            .collect()
    }

    /// The networks of [`Config::trusted_proxies`].
    pub(crate) fn trusted_networks(&self) -> Vec<IpNet> {
        let texts = self.trusted_proxies.iter();
        texts.filter_map(|text| network(text)).collect()
    }

    fn apply(&mut self, setting: &Setting, key: &str, given: &str) -> Result<()> {
        if given.is_empty() {
            let default = (setting.show)(&Self::default());
            (setting.set)(self, &default).expect("a default is allowed");
            return Ok(());
        }
        let trimmed = trimmed(given);
        let value = match setting.variable {
            PREFIX => given, // as the original: others write the same keys
            _ => trimmed,
        };
        if setting.variable == ADMIN_TOKEN && !key.ends_with("_FILE") && is_path(trimmed) {
            let text =
                format!("{key}: the value is the path of a file; {ADMIN_TOKEN}_FILE takes that");
            return Err(Error::new(ErrorKind::Config, text));
        }
        let set = match trimmed {
            "" => Err("there is nothing but whitespace".into()),
            _ => (setting.set)(self, value),
        };
        set.map_err(|why| not_allowed(setting, key, value, &why))?;
        if value != trimmed {
            self.warn(
                "Whitespace is a part of the setting",
                key,
                format!("{value:?} begins or ends with it"),
            );
        }
        Ok(())
    }

    /// A number as the original read it.
    fn apply_cut(&mut self, setting: &Setting, key: &str, given: &str) -> Result<()> {
        let Some(number) = value::parse_int(given).map(|number| number.to_string()) else {
            return self.apply(setting, key, given);
        };
        (setting.set)(self, &number).map_err(|why| not_allowed(setting, key, given, &why))?;
        if trimmed(given).parse::<i64>().is_err() {
            let allowed = setting.allowed;
            self.warn(
                "Only the beginning of a number counts",
                key,
                format!("{given:?} is understood as {number}; give {allowed}"),
            );
        }
        Ok(())
    }

    fn warn(&mut self, message: &'static str, about: &str, hint: String) {
        let about = about.to_owned();
        self.warnings.push(Warning {
            message,
            about,
            hint,
        });
    }
}

/// The known name nearest to a mistyped one, if any is near. `FASTSOCK_` counts for nothing: some have it and some do not.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |name: &'_ str| name.strip_prefix("FASTSOCK_").unwrap_or(name).to_owned();
    let name = bare(name);
    known
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&name, &bare(candidate));
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == key || s.variable == key)
}

fn file_setting(key: &str) -> Option<&'static Setting> {
    let variable = key.strip_suffix("_FILE")?;
    SETTINGS
        .iter()
        .find(|s| s.is_secret && s.variable == variable)
}

fn unknown(key: &str) -> Error {
    let hint = nearest(key, SETTINGS.iter().map(|s| s.name))
        .map_or(String::new(), |name| format!("; did you mean {name:?}?"));
    Error::new(
        ErrorKind::Config,
        format!("there is no setting {key:?}{hint}"),
    )
}

fn unknown_variable(key: &str) -> Error {
    let hint = nearest(key, SETTINGS.iter().map(|s| s.variable))
        .map_or(String::new(), |name| format!("; did you mean {name}?"));
    let text = format!("{key}: there is no such setting{hint}");
    Error::new(ErrorKind::Config, text)
}

fn not_utf8(key: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{key}: the value is not UTF-8"))
}

fn not_allowed(setting: &Setting, key: &str, value: &str, why: &str) -> Error {
    let wrong = if !why.is_empty() {
        why.into()
    } else if setting.is_secret || is_telling(value) {
        "the value is not allowed".into()
    } else {
        format!("{value:?} is not allowed")
    };
    let line = format!("{key}: {wrong}; give {}", setting.allowed_as(key));
    Error::new(ErrorKind::Config, line)
}

/// Whether someone means what is in a file: as a secret, a path is one that others know.
fn is_path(value: &str) -> bool {
    value.starts_with('/') || std::path::Path::new(value).is_file()
}

const ADMIN_TOKEN: &str = "FASTSOCK_ADMIN_TOKEN";

/// The secret in a file.
fn secret_of_file(key: &str, path: &str) -> Result<String> {
    let failed = |what: &str| Error::new(ErrorKind::Config, format!("{key}: {what} {path:?}"));
    let text = std::fs::read_to_string(path).map_err(|e| failed("cannot read").with_source(e))?;
    match trimmed(&text) {
        "" => Err(failed("there is nothing in")),
        secret => Ok(secret.to_owned()),
    }
}

/// Without the whitespace around it that editors, shells and `echo` leave, nor the mark that editors of Windows put before it.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// Whether it may be a URL with a password, or with a key in its query.
fn is_telling(value: &str) -> bool {
    value.contains("://") && value.contains(['@', '?'])
}

/// The same URL without its secrets.
fn masked(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else {
        return "***".into();
    };
    if !url.username().is_empty() || url.password().is_some() {
        // These fail for URLs that have no host, and so no user.
        let _ = url.set_username("***");
        let _ = url.set_password(None);
    }
    if url.query().is_some() {
        url.set_query(Some("***"));
    }
    url.into()
}

fn is_within(duration: &Duration, least_ms: u128, most_ms: u128) -> bool {
    (least_ms..=most_ms).contains(&duration.as_millis())
}

/// An address, or a network as address and prefix length.
fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let network = text.parse().ok();
    let network = network.or_else(|| text.parse().ok().map(IpAddr::into))?;
    Some(match network {
        // An IPv4 device is never seen as ::ffff:…, so its network is not either.
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS => match v6.addr().to_canonical() {
            IpAddr::V4(ip) => Ipv4Net::new(ip, v6.prefix_len() - MAPPED_BITS).ok()?.into(),
            IpAddr::V6(_) => network,
        },
        network => network,
    })
}

/// What comes before the IPv4 address in ::ffff:192.0.2.1.
const MAPPED_BITS: u8 = 96;

/// Whether it is a name or an address alone. An underscore is fine: services of Docker Compose have them.
fn is_host(text: &str) -> bool {
    let address = text.trim_matches(['[', ']']);
    let is_name = !text.contains(|c: char| c.is_whitespace() || ":/@?#,".contains(c));
    let is_ipv6 = address
        .split('%')
        .next()
        .is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
    !text.is_empty() && (is_name || is_ipv6)
}

fn is_http_url(text: &str) -> bool {
    url::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

const PREFIX: &str = "REDIS_PREFIX";

/// The numbers that the original had. In the environment and `.env` they are read as it did, by `parseInt`.
const ORIGINAL_NUMBERS: [&str; 4] = [
    "WEBSOCKET_PORT",
    "WEBSOCKET_PING_INTERVAL",
    "REDIS_PORT",
    "REDIS_DB",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed_and_reads_back() {
        let mut config = Config::default();
        for setting in SETTINGS {
            let text = (setting.show)(&Config::default());
            (setting.set)(&mut config, &text)
                .unwrap_or_else(|_| panic!("{}: {text:?}", setting.name));
        }
        assert_eq!(config, Config::default());
        config.check().unwrap();
    }

    #[test]
    fn no_password_in_a_url_is_shown() {
        for setting in SETTINGS {
            let secret = "http://user:s3cret@host/path?key=s3cret";
            let mut config = Config::default();
            if config.set(setting.name, secret).is_ok() {
                let shown = setting.show(&config);
                assert!(!shown.contains("s3cret"), "{}: {shown}", setting.name);
            }
        }
        let config = Config::from_vars([("REMOTE_URL", "https://user:pw@host/a?key=k#f")]).unwrap();
        let shown = config.show("remote_url").unwrap();
        assert_eq!(shown, "https://***@host/a?***#f");
        let config = Config::from_vars([("REMOTE_URL", "https://host/a")]).unwrap();
        assert_eq!(config.show("remote_url").unwrap(), "https://host/a");
    }

    #[test]
    fn a_name_is_its_variable_in_lower_case() {
        for setting in SETTINGS {
            let short = setting
                .variable
                .trim_start_matches("FASTSOCK_")
                .trim_start_matches("NODE_");
            assert_eq!(setting.name, short.to_lowercase());
        }
    }

    #[test]
    fn a_bad_value_names_the_variable_the_value_and_what_is_allowed() {
        let error = Config::from_vars([("WEBSOCKET_PORT", "99999")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "WEBSOCKET_PORT: \"99999\" is not allowed; give a port from 0 to 65535"
        );
        for (variable, value) in [
            ("REMOTE_HEADERS", "{secret"),
            ("REMOTE_URL", "htp://user:secret@host/"),
            ("REMOTE_URL", "htp://host/?key=secret"),
            ("FASTSOCK_AUTH_URL", "secret"),
        ] {
            let error = Config::from_vars([(variable, value)]).unwrap_err();
            let error = error.to_string();
            assert!(
                !error.contains("secret") && error.starts_with(variable),
                "{error}"
            );
        }
    }

    #[test]
    fn a_mistyped_variable_that_would_close_a_door_is_refused() {
        for (name, hint) in [
            ("FASTSOCK_AUTHENTICATION", ""),
            ("FASTSOCK_AUTHS", "; did you mean FASTSOCK_AUTH?"),
            (
                "FASTSOCK_AUTH_TOKEN_FILE",
                "; did you mean FASTSOCK_AUTH_TOKENS_FILE?",
            ),
            (
                "FASTSOCK_AUTH_TOKENS_FILE_FILE",
                "; did you mean FASTSOCK_AUTH_TOKENS_FILE?",
            ),
        ] {
            let error = Config::from_vars([(name, "x")]).unwrap_err();
            let line = format!("{name}: there is no such setting{hint}");
            assert_eq!(error.to_string(), line);
        }
        let others = [
            ("FASTSOCK_AUTH_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("FASTSOCK_AUTH_SERVICE_HOST", "10.0.0.1"),
            ("REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("FASTSOCK_AUTH_URL_FILE", ""),
            ("FASTSOCK_NEW", "x"),
        ];
        assert_eq!(Config::from_vars(others).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let error = Config::default().set("websocket_prot", "1").unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no setting \"websocket_prot\"; did you mean \"websocket_port\"?"
        );
    }

    #[test]
    fn json_sections_nest_and_null_is_the_default() {
        let mut config = Config::default().redis_port(1u16);
        config
            .merge_json(
                r#"{"redis":{"host":"r","port":null},"websocket_port":9,"remote_headers":{"A":1}}"#,
            )
            .unwrap();
        assert_eq!(
            (
                config.redis_host.as_str(),
                config.redis_port,
                config.websocket_port
            ),
            ("r", 6379, 9)
        );
        assert_eq!(config.remote_headers.0, [("A".into(), Some("1".into()))]);
    }

    #[test]
    fn an_empty_variable_means_the_default() {
        let config = Config::from_vars([("REDIS_PORT", ""), ("FASTSOCK_BROKER", "")]).unwrap();
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_lower_case_proxy_wins_in_any_order() {
        for vars in [
            [("http_proxy", "http://a"), ("HTTP_PROXY", "http://b")],
            [("HTTP_PROXY", "http://b"), ("http_proxy", "http://a")],
        ] {
            assert_eq!(
                Config::from_vars(vars).unwrap().http_proxy,
                Some(Secret::new("http://a"))
            );
        }
    }

    #[test]
    fn numbers_are_cut_only_where_the_original_cut_them() {
        for (variable, value, number) in [
            ("WEBSOCKET_PORT", "3000.5", "3000"),
            ("WEBSOCKET_PING_INTERVAL", "30s", "30"),
            ("REDIS_PORT", " 6380x", "6380"),
            ("REDIS_DB", "0x10", "0"),
        ] {
            let config = Config::from_vars([(variable, value)]).unwrap();
            assert_eq!(config.show(variable).unwrap(), number);
            let [warning] = config.warnings() else {
                panic!("{:?}", config.warnings())
            };
            assert_eq!(warning.about, variable);
            let told = format!("{value:?} is understood as {number}; give ");
            assert!(warning.hint.starts_with(&told), "{warning:?}");
            for name in [variable, &variable.to_lowercase()] {
                let set = Config::default().set(name, value);
                assert_eq!(set.is_ok(), value == "30s", "{name}");
            }
        }
        for value in ["3000", " 3000\n", "+3000"] {
            let config = Config::from_vars([("WEBSOCKET_PORT", value)]).unwrap();
            assert_eq!((config.websocket_port, config.warnings()), (3000, &[][..]));
        }
        let mut config = Config::default();
        config
            .merge_json(r#"{"websocket_ping_interval": "30s"}"#)
            .unwrap();
        assert_eq!(config.websocket_ping_interval, Duration::from_secs(30));
        for (variable, value) in [
            ("FASTSOCK_REMOTE_TIMEOUT", "3000.5"),
            ("FASTSOCK_REMOTE_CONCURRENCY", "1k"),
            ("FASTSOCK_OUTBOX_BYTES", "1.5MiB"),
        ] {
            let line = Config::from_vars([(variable, value)])
                .unwrap_err()
                .to_line();
            let told = format!("{variable}: {value:?} is not allowed; give ");
            assert!(line.starts_with(&told), "{line}");
        }
    }

    #[test]
    fn every_time_and_size_takes_units_and_says_so() {
        for setting in SETTINGS {
            let (value, unit) = match setting.kind {
                ValueKind::Time => ("2s", "30s"),
                ValueKind::Size => ("64KiB", "64KiB"),
                kind => {
                    assert_eq!(kind.units(), "", "{}", setting.name);
                    continue;
                }
            };
            Config::default().set(setting.name, value).unwrap();
            assert!(setting.allowed_as(setting.name).contains(unit));
        }
    }

    #[test]
    fn every_example_is_allowed_and_is_not_the_default() {
        for setting in SETTINGS {
            let mut config = Config::default();
            config.set(setting.name, setting.example).unwrap();
            let default = (setting.show)(&Config::default());
            assert_ne!((setting.show)(&config), default, "{}", setting.name);
        }
    }

    #[test]
    fn the_kind_of_a_setting_is_what_its_words_say() {
        for setting in SETTINGS {
            let begins =
                |start: &[&str]| start.iter().any(|start| setting.allowed.starts_with(start));
            let agrees = match setting.kind {
                ValueKind::Switch => setting.allowed == "on or off",
                ValueKind::Integer => begins(&["an integer", "a port"]),
                ValueKind::Time => begins(&["milliseconds from"]),
                ValueKind::Size => begins(&["bytes from"]),
                ValueKind::Path => begins(&["the path of a PEM file", "the path of a file"]),
                ValueKind::Directory => begins(&["the path of a directory"]),
                ValueKind::Paths => begins(&["paths of"]),
                ValueKind::List => setting.allowed.contains("separated by commas"),
                ValueKind::Headers => begins(&["a JSON object of header names"]),
                ValueKind::Choice => setting.allowed.contains(" or "),
                ValueKind::Text | ValueKind::Address => true,
            };
            assert!(agrees, "{}: {:?}", setting.name, setting.kind);
        }
    }

    #[test]
    fn a_redis_host_is_a_name_or_an_address_alone() {
        for host in [
            "r",
            "my_redis.internal",
            "10.0.0.1",
            "::1",
            "[::1]",
            "fe80::1%eth0",
        ] {
            Config::default().set("redis_host", host).unwrap();
        }
        for host in ["redis://r", "r:6380", "r/0", "u@r", "a,b", "a b"] {
            let line = Config::default()
                .set("redis_host", host)
                .unwrap_err()
                .to_line();
            assert!(
                line.ends_with("FASTSOCK_REDIS_URL takes a URL, REDIS_PORT the port"),
                "{line}"
            );
        }
    }

    #[test]
    fn whitespace_around_a_value_is_no_part_of_it() {
        let mut config = Config::default();
        for (name, value, expected) in [
            ("redis_host", " r\n", "r"),
            ("websocket_port", "7\r\n", "7"),
            ("listen_reuseport", " on ", "on"),
            ("broker", "redis\n", "redis"),
            ("admin_addr", "off\n", ""),
            ("data_dir", " /d ", "/d"),
            ("redis_prefix", " p ", " p "),
        ] {
            config.set(name, value).unwrap();
            assert_eq!(config.show(name).unwrap(), expected, "{name}");
        }
        assert_eq!(config.warnings()[0].about, "redis_prefix");
        config.set("admin_token", "\u{feff} t0ken\n").unwrap();
        assert_eq!(config.admin_token.unwrap().expose(), "t0ken");
        for setting in SETTINGS {
            let error = Config::default().set(setting.name, " \n").unwrap_err();
            let line = error.to_line();
            let told = format!("{}: there is nothing but whitespace; give ", setting.name);
            assert!(line.starts_with(&told), "{line}");
        }
    }

    #[test]
    fn a_file_without_a_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let secrets: Vec<_> = SETTINGS.iter().filter(|s| s.is_secret).collect();
        assert!(secrets.len() > 5);
        for content in ["", "\n", " \r\n\t", "\u{feff}\n"] {
            std::fs::write(&path, content).unwrap();
            for setting in &secrets {
                let variable = format!("{}_FILE", setting.variable);
                let vars = [(&*variable, path.to_str().unwrap())];
                let line = Config::from_vars(vars).unwrap_err().to_line();
                assert_eq!(line, format!("{variable}: there is nothing in {path:?}"));
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_value_of_ours_that_is_not_utf8_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let vars = |name: &str| [(name.into(), OsString::from_vec(vec![b'x', 0xff]))];
        let error = Config::from_os_vars(vars("FASTSOCK_AUTH")).unwrap_err();
        assert_eq!(error.to_line(), "FASTSOCK_AUTH: the value is not UTF-8");
        assert_eq!(
            Config::from_os_vars(vars("PATH")).unwrap(),
            Config::default()
        );
    }

    #[test]
    fn a_secret_can_come_from_a_file_and_is_never_shown() {
        let path = std::env::temp_dir().join(format!("fastsock-secret-{}", std::process::id()));
        std::fs::write(&path, "t0ken\n").unwrap();
        let config =
            Config::from_vars([("FASTSOCK_ADMIN_TOKEN_FILE", path.to_str().unwrap())]).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(config.admin_token.as_ref().unwrap().expose(), "t0ken");
        assert_eq!(config.show("admin_token").unwrap(), "***");
        assert!(!format!("{config:?}").contains("t0ken"));
    }
}
