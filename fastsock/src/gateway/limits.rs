//! How many connections and handshakes there may be, from whom, and how fast they may come: what a connection meets before
//! anything is read from it.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    config::Config,
    locks::Mutex,
    net::proxy,
    pure::limits::{AddressPermit, Addresses, Bucket, Capacity, CapacityPermit},
    stats::Count,
    types::Refusal,
};

/// The limits of the device port.
pub(crate) struct Limits {
    /// Connections in a second, and what is left of this one's.
    accepts: Mutex<(u32, Option<Bucket>)>,
    connections: Arc<Capacity>,
    handshakes: Arc<Capacity>,
    addresses: Arc<Addresses>,
    /// How often each of [`LIMITS`] has turned a connection away.
    hits: [Count; LIMITS.len()],
    /// Proxies whose word on a device's address is taken.
    pub(super) trusted: Vec<IpNet>,
    /// Sockets that only wait for their peer to read a close frame or a refusal.
    pub(super) lingering: Semaphore,
    /// Those whose refusal was that there is no room.
    pub(super) lingering_when_full: Semaphore,
}

/// What a connection holds for as long as it lives.
#[derive(Debug)]
pub(crate) struct Permits {
    _connection: CapacityPermit,
    /// Among those of its address, if they are limited.
    address: Option<Box<AddressPermit>>,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            accepts: Mutex::new(accepts(config)),
            connections: Capacity::new(connection_limit(config)),
            handshakes: Capacity::new(handshake_limit(config)),
            addresses: Addresses::new(config.limits.connections_per_ip),
            hits: Default::default(),
            trusted: config.trusted_networks(),
            lingering: Semaphore::new(LINGERING_MAX),
            lingering_when_full: Semaphore::new(LINGERING_MAX_WHEN_FULL),
        }
    }

    /// Takes the limits from these settings, for whoever comes from now on.
    pub(crate) fn adjust(&self, config: &Config) {
        let (mut now, then) = (self.accepts.lock(), accepts(config));
        if now.0 != then.0 {
            *now = then;
        }
        drop(now);
        self.connections.set_most(connection_limit(config));
        self.handshakes.set_most(handshake_limit(config));
        self.addresses.set_most(config.limits.connections_per_ip);
    }

    /// Gives a connection its permits, and one for its handshake, or says why not.
    pub(super) fn acquire(&self, ip: IpAddr) -> Result<(Permits, CapacityPermit), Refusal> {
        if let (_, Some(accepts)) = &mut *self.accepts.lock()
            && !accepts.try_take(Instant::now())
        {
            self.hit(ACCEPTS);
            return Err(too_many("connections in this second").with_retry_after(1));
        }
        let take = |capacity: &Arc<Capacity>, limit: usize| {
            capacity.acquire().ok_or_else(|| {
                self.hit(limit);
                too_many(LIMITS[limit])
            })
        };
        let mut permits = Permits {
            _connection: take(&self.connections, CONNECTIONS)?,
            address: None,
        };
        let handshake = take(&self.handshakes, HANDSHAKES)?;
        self.acquire_address(&mut permits, ip)?;
        Ok((permits, handshake))
    }

    /// Gives a connection its permit among those of its address, as soon as that is known.
    pub(super) fn acquire_address(&self, permits: &mut Permits, ip: IpAddr) -> Result<(), Refusal> {
        if self.addresses.are_limited() && permits.address.is_none() && !self.is_proxy(ip) {
            permits.address = Some(self.addresses.take(ip).ok_or_else(|| {
                self.hit(PER_ADDRESS);
                too_many_of_address()
            })?);
        }
        Ok(())
    }

    /// The most connections at once.
    pub(crate) fn most_connections(&self) -> usize {
        self.connections.most()
    }

    /// How often each limit has turned a connection away.
    pub(crate) fn hits(&self) -> [(&'static str, u64); LIMITS.len()] {
        std::array::from_fn(|n| (LIMITS[n], self.hits[n].load()))
    }

    fn hit(&self, limit: usize) {
        self.hits[limit].add(1);
    }

    /// Whether an address is that of a trusted proxy.
    pub(super) fn is_proxy(&self, ip: IpAddr) -> bool {
        proxy::is_trusted(&self.trusted, ip)
    }
}

/// The gateway has too many of something; that is not the device's doing.
fn too_many(what: &str) -> Refusal {
    Refusal::new(503, format!("too many {what}")).with_retry_after(RETRY_AFTER_S)
}

fn too_many_of_address() -> Refusal {
    Refusal::new(429, "too many connections from this address").with_retry_after(RETRY_AFTER_S)
}

/// Connections in a second, and a full bucket of them.
fn accepts(config: &Config) -> (u32, Option<Bucket>) {
    let most = config.limits.accepts;
    (most, Bucket::new(most.into(), Instant::now()))
}

fn handshake_limit(config: &Config) -> usize {
    match config.limits.handshakes {
        0 => ANY,
        limit => limit,
    }
}

fn connection_limit(config: &Config) -> usize {
    match config.limits.connections {
        0 => {
            let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            descriptors
                .and_then(|n| usize::try_from(n).ok())
                .map_or(ANY, |n| n.saturating_sub(DESCRIPTORS_KEPT).max(1))
        }
        limit => limit,
    }
}

/// The limits by the words that metrics have for them.
const LIMITS: [&str; 4] = ["connections", "handshakes", "connections_per_ip", "accepts"];
const CONNECTIONS: usize = 0;
const HANDSHAKES: usize = 1;
const PER_ADDRESS: usize = 2;
const ACCEPTS: usize = 3;

/// As many as there are; figures show it.
const ANY: usize = usize::MAX >> 3;
/// Descriptors kept for Redis, the remote, logs and the admin listener.
const DESCRIPTORS_KEPT: usize = 64;
const RETRY_AFTER_S: u32 = 5;
const LINGERING_MAX: usize = 1024;
/// When there are no descriptors to spare.
const LINGERING_MAX_WHEN_FULL: usize = 16;
