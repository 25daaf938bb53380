//! Redis.

use std::{path::PathBuf, time::Duration};

use super::super::{BrokerKind, Secret, Subscribe, is_host, is_within, section::section};

section! {
    /// Redis.
    Redis = redis, "Redis";
    /// What carries downlinks between processes. `embedded`: this process only. `redis`: Redis. `auto`: Redis as soon as it answers.
    broker => broker: BrokerKind = BrokerKind::Embedded, "FASTSOCK_BROKER", "embedded, redis or auto", "redis";
    /// Host name or address of Redis.
    redis_host => host: String = "127.0.0.1".into(), "REDIS_HOST", "a host name or IP address; FASTSOCK_REDIS_URL takes a URL, REDIS_PORT the port", "redis.internal", |s| is_host(s);
    /// Port of Redis.
    redis_port => port: u16 = 6379, "REDIS_PORT", "a port from 1 to 65535", "6380", |p| *p > 0;
    /// Database number of Redis, for the hash of clients. Channels do not depend on it.
    redis_db => db: i64 = 0, "REDIS_DB", "an integer from 0 to 2147483647", "1", |n| (0..=2_147_483_647).contains(n);
    /// First part of every Redis key and channel.
    redis_prefix => prefix: String = "fastsock".into(), "REDIS_PREFIX", "any text that is not empty", "plant7", |s| !s.is_empty();
    /// Redis as a URL with user and password: `redis://`, `rediss://`, `redis+sentinel://host:port,host:port/service/db`, `redis+cluster://host:port,host:port`. Overrides host, port and database.
    redis_url => url: Option<Secret> = None, "FASTSOCK_REDIS_URL", "a redis://, rediss://, redis+sentinel:// or redis+cluster:// URL", "rediss://gateway:secret@redis.internal:6380/0";
    /// PEM file of certificates to trust for `rediss`, beside those of the system. Redis's own certificate may be among them if it is no authority: `openssl req -x509` makes such a one with `-addext basicConstraints=CA:FALSE`.
    redis_ca => ca: Option<PathBuf> = None, "FASTSOCK_REDIS_CA", "the path of a PEM file", "/etc/fastsock/redis-ca.pem";
    /// PEM file of the gateway's certificate, with its chain, for a `rediss` server that asks for one.
    redis_cert => cert: Option<PathBuf> = None, "FASTSOCK_REDIS_CERT", "the path of a PEM file", "/etc/fastsock/redis-client.pem";
    /// PEM file of the private key of that certificate.
    redis_key => key: Option<PathBuf> = None, "FASTSOCK_REDIS_KEY", "the path of a PEM file", "/etc/fastsock/redis-client.key";
    /// Milliseconds to connect to Redis: DNS, TCP, TLS and login together. The gateway tries every address of the name.
    redis_connect_timeout => connect_timeout: Duration = Duration::from_secs(5), "FASTSOCK_REDIS_CONNECT_TIMEOUT", "milliseconds from 1 to 600000", "10s", |d| is_within(d, 1, 600_000);
    /// `pattern`: one PSUBSCRIBE, right for one or two gateways. `exact`: one SUBSCRIBE per device, right from three gateways up. `sharded`: one SSUBSCRIBE per device, for publishers that SPUBLISH: right for a Redis Cluster with many downlinks; needs Redis 7. `exact+sharded`: both, while publishers move from one to the other.
    redis_subscribe => subscribe: Subscribe = Subscribe::Pattern, "FASTSOCK_REDIS_SUBSCRIBE", "pattern, exact, sharded or exact+sharded", "exact";
    /// Name of this gateway in the ready line, in the API and for the other gateways of its Redis, which know it by its random id. Empty: the name of the machine and the port that devices connect to. Two gateways may have the same name.
    node_name => node_name: Option<String> = None, "FASTSOCK_NODE_NAME", "at most 128 bytes without control characters", "plant7-a", |name| name.as_deref().is_none_or(|name| name.len() <= 128 && !name.chars().any(char::is_control));
}
