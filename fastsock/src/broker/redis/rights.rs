//! What the user of Redis must be allowed for presence, leases and downlinks.

use super::names::Names;
use crate::{
    config::{Config, MailboxKind, Subscribe},
    redis::{address::Address, glob::escaped, rights::Rights},
};

/// What presence, leases and downlinks need.
pub(crate) fn rights(config: &Config, address: &Address) -> Rights {
    let names = Names::new(&config.redis.prefix, "x");
    let subscribe = config.redis.subscribe;
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
        &[
            "sadd % x",
            "srem % x",
            "sscan % 0",
            "del %",
            "hset % x x",
            "hdel % x",
            "hmget % x",
        ],
    );

    // Without a channel, which for these is complete, the commands alone.
    rights.commands(match subscribe.is_each() {
        true => &["subscribe", "unsubscribe"],
        false => &["subscribe", "psubscribe", "punsubscribe"],
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
    match subscribe {
        Subscribe::Pattern => rights.channel(&pattern, "psubscribe", &pattern),
        Subscribe::Exact | Subscribe::Sharded | Subscribe::ExactAndSharded => {
            rights.channel(&pattern, "subscribe", &names.channel("x"));
        }
    }
    if subscribe.is_sharded() {
        rights.needs_shard_channels();
        for command in ["ssubscribe", "sunsubscribe"] {
            let beside = Some(format!("&{control}"));
            rights.need(&format!("+{command}"), &[command, &names.control], beside);
        }
        rights.need(
            "+spublish",
            &["SPUBLISH", &names.control, ""],
            Some(format!("&{control}")),
        );
    }
    if config.mailbox.kind == MailboxKind::Redis {
        need_mailboxes(&mut rights, &names, subscribe.is_each());
    }
    if config.groups.on {
        rights.commands(&["subscribe", "unsubscribe"]);
        rights.channel(&names.all_groups(), "subscribe", &names.group_of("x"));
        rights.channel(&escaped(&names.broadcast), "subscribe", &names.broadcast);
    }
    rights
}

fn need_mailboxes(rights: &mut Rights, names: &Names, is_each: bool) {
    let (all, one) = (names.mailboxes(), names.mailbox_of("x"));
    rights.key(&all, &one);
    rights.on(
        &all,
        &one,
        &[
            "exists %",
            "get %",
            "type %",
            "set % x",
            "hincrby % x 1",
            "pexpire % 1",
            "pttl %",
            "xadd % * x x",
            "xdel % 1",
            "xlen %",
            "xrange % - +",
            "xtrim % maxlen 1",
        ],
    );
    rights.need(
        "+xinfo|stream",
        &["xinfo", "stream", &one],
        Some(format!("~{all}")),
    );
    rights.need(
        "+memory|usage",
        &["memory", "usage", &one],
        Some(format!("~{all}")),
    );
    rights.commands(&["scan 0", "info memory"]);
    let bells = names.bells();
    match is_each {
        true => rights.channel(&bells, "subscribe", &names.bell_of("x")),
        false => rights.channel(&bells, "psubscribe", &bells),
    }
}
