//! The parts of a bridge that its settings choose.

use std::sync::Arc;
#[cfg(feature = "redis")]
use std::sync::Weak;

#[cfg(feature = "redis")]
use crate::config::BrokerKind;
#[cfg(any(feature = "redis", feature = "disk"))]
use crate::config::MailboxKind;
#[cfg(feature = "tls")]
use crate::net::tls::ServerTls;
#[cfg(feature = "otlp")]
use crate::otlp::Spans;
use crate::{
    auth::{Auth, Authenticate, Grant, tokens::Tokens, webhook::Webhook},
    broker::{Broker, embedded::Embedded},
    config::{AuthKind, Config},
    error::{Error, Result},
    forwarder::{
        destination::Destination,
        http::{HttpForwarder, post::Post},
    },
    mailbox::Mailbox,
    node::NodeId,
    registry::Registry,
    spool::Spool,
    stats::Running,
    status::Status,
    tasks::Tasks,
    types::ClientId,
};

/// Which parts cannot be built, each alone: the first that was told of, and the others.
pub(super) fn parts_that_fail(config: &Config, workers: &Tasks, first: Error) -> Vec<Error> {
    let running = Arc::new(Running::default());
    let status = Arc::new(Status::new(None, running.clone()));
    let registry = Arc::new(Registry::new(config, status));
    let remote = |to: Destination<'_>| Post::new(&to, workers.clone()).map(drop);
    let of_routes = config.of_routes();
    let routes = of_routes.iter().zip(config.routing.routes.iter());
    let routes = routes.map(|((name, config), route)| {
        let auth = || auth_of(name, config, 0, &registry, workers).map(drop);
        let forwarder = forwarder_of(name, config, workers).map(drop);
        [Some(forwarder), route.has_own_auth().then(auth)]
    });
    let parts = [
        Destination::of_uplinks(config).map(remote),
        Some(auth(config, 0, &registry, workers).map(drop)),
        Some(broker(config, &NodeId::random(), &registry, workers, &running).map(drop)),
        Destination::of_events(config).map(remote),
        #[cfg(feature = "otlp")]
        Some(Spans::new(config, "", &running, workers.clone()).map(drop)),
        #[cfg(feature = "tls")]
        Some(ServerTls::new(config).map(drop)),
    ];
    let mut found = vec![first];
    let parts = parts.into_iter().chain(routes.flatten());
    for error in parts.flatten().filter_map(Result::err) {
        if found.iter().all(|known| known.to_line() != error.to_line()) {
            found.push(error);
        }
    }
    found
}

/// What POSTs the uplinks of a route.
pub(super) fn forwarder_of(name: &str, config: &Config, workers: &Tasks) -> Result<HttpForwarder> {
    let destination = Destination::of_uplinks(config).expect("each route has a URL");
    HttpForwarder::new(&destination, workers.clone()).map_err(|error| of_route(name, &error))
}

/// Who may connect: the default way first, then by each route. A route that says nothing of it shares the default.
pub(super) fn auths(
    config: &Config,
    of_routes: &[(String, Config)],
    registry: &Arc<Registry>,
    workers: &Tasks,
) -> Result<Vec<(usize, Arc<Auth>)>> {
    let default = Arc::new(auth(config, 0, registry, workers)?);
    let mut auths = vec![(0, default.clone())];
    let routes = of_routes.iter().zip(config.routing.routes.iter());
    for (index, ((name, config), route)) in routes.enumerate() {
        auths.push(match route.has_own_auth() {
            false => (0, default.clone()),
            true => {
                let number = index + 1;
                let own = auth_of(name, config, number, registry, workers)?;
                (number, Arc::new(own))
            }
        });
    }
    Ok(auths)
}

pub(super) fn auth_of(
    name: &str,
    config: &Config,
    number: usize,
    registry: &Arc<Registry>,
    workers: &Tasks,
) -> Result<Auth> {
    auth(config, number, registry, workers).map_err(|error| of_route(name, &error))
}

/// The same error, of a route.
pub(super) fn of_route(name: &str, error: &Error) -> Error {
    let text = format!("FASTSOCK_ROUTES: route {name:?}: {}", error.to_line());
    Error::new(error.kind(), text)
}

/// Who may connect, by the settings; what keeps it up to date is a worker. The number is that of the grants.
pub(super) fn auth(
    config: &Config,
    number: usize,
    registry: &Arc<Registry>,
    workers: &Tasks,
) -> Result<Auth> {
    let provider: Arc<dyn Authenticate> = match config.auth.kind {
        AuthKind::Open => return Ok(Auth::Open),
        AuthKind::Certificate => return Ok(Auth::Certificate),
        AuthKind::Tokens => {
            let tokens = Arc::new(Tokens::new(config)?);
            let (registry, known) = (registry.clone(), tokens.clone());
            let changed = move || {
                let holds =
                    |id: &ClientId, grant: &Grant| grant.auth != number || known.holds(id, grant);
                registry.close_unless(holds);
            };
            tokens.clone().watch(workers, changed)?;
            tokens
        }
        AuthKind::Webhook => Arc::new(Webhook::new(config, workers.clone())?),
        #[cfg(feature = "jwt")]
        AuthKind::Jwt => crate::auth::jwt::Jwt::start(config, workers)?,
        #[cfg(not(feature = "jwt"))]
        AuthKind::Jwt => unreachable!("`Config::check` does not allow it"),
    };
    Ok(Auth::Provider(provider))
}

/// Redis is both.
pub(super) type BrokerAndMailbox = (Arc<dyn Broker>, Option<Arc<dyn Mailbox>>);

/// What the user of Redis must be allowed.
#[cfg(feature = "redis")]
pub(super) fn rights(
    config: &Config,
    address: &crate::redis::address::Address,
) -> Vec<crate::redis::rights::Rights> {
    let mut rights = Vec::new();
    if config.redis.broker != BrokerKind::Embedded {
        rights.push(crate::broker::redis::rights(config, address));
    }
    #[cfg(feature = "redis-spool")]
    if config.spool.kind == crate::config::SpoolKind::Redis {
        rights.push(crate::spool::redis::rights(config, address));
    }
    rights
}

#[cfg(feature = "redis")]
pub(super) fn broker(
    config: &Config,
    node: &NodeId,
    registry: &Arc<Registry>,
    workers: &Tasks,
    running: &Arc<Running>,
) -> Result<BrokerAndMailbox> {
    if config.redis.broker == BrokerKind::Embedded {
        return Ok((Arc::new(Embedded::new(node.clone())), None));
    }
    use crate::broker::{Deliver, redis::RedisBroker};
    let is_optional = config.redis.broker == BrokerKind::Auto && !config.names_redis();
    let deliver: Weak<dyn Deliver> = Arc::<Registry>::downgrade(registry);
    let broker = RedisBroker::start(config, node, deliver, workers, running.clone(), is_optional)?;
    let mailbox: Option<Arc<dyn Mailbox>> = match config.mailbox.kind {
        MailboxKind::Redis => Some(broker.clone()),
        MailboxKind::Off | MailboxKind::Disk => None,
    };
    Ok((broker, mailbox))
}

#[cfg(not(feature = "redis"))]
pub(super) fn broker(
    _: &Config,
    node: &NodeId,
    _: &Arc<Registry>,
    _: &Tasks,
    _: &Arc<Running>,
) -> Result<BrokerAndMailbox> {
    Ok((Arc::new(Embedded::new(node.clone())), None)) // `Config::check` allows nothing else
}

/// Mailboxes in a file, if the settings want those.
#[cfg_attr(
    not(feature = "disk"),
    allow(unused_variables, reason = "`Config::check` allows nothing else")
)]
pub(super) async fn mailbox(config: &Config, workers: &Tasks) -> Result<Option<Arc<dyn Mailbox>>> {
    #[cfg(feature = "disk")]
    if config.mailbox.kind == MailboxKind::Disk {
        use crate::mailbox::disk::DiskMailbox;
        return Ok(Some(Arc::new(DiskMailbox::open(config, workers).await?)));
    }
    Ok(None)
}

#[cfg_attr(
    not(all(feature = "disk", feature = "redis-spool")),
    allow(unused_variables, reason = "each spool takes what it needs")
)]
pub(super) async fn spool(
    config: &Config,
    node: &NodeId,
    workers: &Tasks,
) -> Result<Option<Arc<dyn Spool>>> {
    #[cfg(any(feature = "disk", feature = "redis-spool"))]
    use crate::config::SpoolKind;
    Ok(match config.spool.kind {
        #[cfg(feature = "disk")]
        SpoolKind::Disk => {
            use crate::spool::disk::DiskSpool;
            Some(Arc::new(DiskSpool::open(config, workers).await?))
        }
        #[cfg(feature = "redis-spool")]
        SpoolKind::Redis => {
            use crate::spool::redis::RedisSpool;
            Some(Arc::new(RedisSpool::new(config, node, workers)?))
        }
        _ => None, // `Config::check` allows nothing else
    })
}
