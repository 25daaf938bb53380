//! What the user of Redis must be allowed for presence, leases and downlinks.

use super::names::Names;
use crate::{
    config::{Config, Subscribe},
    redis::{address::Address, glob::escaped, rights::Rights},
};

/// What presence, leases and downlinks need.
pub(crate) fn rights(config: &Config, address: &Address) -> Rights {
    let names = Names::new(&config.redis_prefix, "x");
    let is_exact = config.redis_subscribe == Subscribe::Exact;
    let mut rights = Rights::new("downlinks and presence");
    rights.commands(address.commands());
    rights.commands(&["eval x 0", "time", "ping"]);
    let (clients, owner) = (escaped(&names.clients), escaped(&names.owner));
    rights.key(&clients, &names.clients);
    rights.key(&owner, &names.owner);
    rights.on(
        &clients,
        &names.clients,
        &["hget % x", "hset % x x", "hdel % x", "hmget % x"],
    );
    let nodes = escaped(&names.nodes);
    rights.key(&nodes, &names.nodes);
    let leases = ["zadd % 1 x", "zscore % x", "zrange % 0 1", "zrem % x"];
    rights.on(&nodes, &names.nodes, &leases);
    let node = names.ids_of("");
    let any_node = format!("{}*", escaped(&node));
    rights.key(&any_node, &node);
    rights.on(
        &any_node,
        &node,
        &["sadd % x", "srem % x", "sscan % 0", "del %"],
    );

    // Without a channel, which for these is complete, the commands alone.
    rights.commands(match is_exact {
        true => &["subscribe", "unsubscribe"],
        false => &["subscribe", "psubscribe"],
    });
    let control = escaped(&names.control);
    rights.channel(&control, "subscribe", &names.control);
    rights.need(
        "+publish",
        &["PUBLISH", &names.control, ""],
        Some(format!("&{control}")),
    );
    let (own, _) = names
        .probe
        .rsplit_once(':')
        .expect("the node is its last part");
    let own = format!("{}:*", escaped(own));
    rights.channel(&own, "subscribe", &names.probe);
    // Redis compares a pattern with the ACL letter by letter; to subscribe to what it matches is less.
    let pattern = names.pattern();
    match is_exact {
        true => rights.channel(&pattern, "subscribe", &names.channel("x")),
        false => rights.channel(&pattern, "psubscribe", &pattern),
    }
    rights
}
