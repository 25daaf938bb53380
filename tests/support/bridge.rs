//! A bridge in the test's own process.

use std::net::Ipv4Addr;

use fastsock::{Bridge, BrokerKind, Config};

use crate::{Backend, TempRedis};

/// The settings of a bridge that listens on a free port of loopback and is otherwise as it comes.
pub fn loopback() -> Config {
    Config::default()
        .websocket_port(0u16)
        .listen_addr(Some(Ipv4Addr::LOCALHOST.into()))
}

/// The same for one that posts uplinks to this backend.
pub fn config(backend: &Backend) -> Config {
    loopback().remote_url(Some(backend.url()))
}

/// Starts a bridge without hooks.
pub async fn start(config: Config) -> Bridge {
    Bridge::builder(config).start().await.expect("it starts")
}

/// The settings of a bridge that shares this Redis with others.
pub fn on_redis(redis: &TempRedis) -> Config {
    loopback()
        .broker(BrokerKind::Redis)
        .redis_port(redis.port())
}
