//! Names in Redis, and where Redis is.

use super::{CANARY, choice, halves, text_with_canary};
use crate::{
    broker::redis::names::Names,
    config::{Config, Secret},
    error::ErrorKind,
    redis::address::Topology,
};

/// The channel of a device leads back to its id, and the pattern matches it as Redis does, and nobody else's.
pub fn channel_names(bytes: &[u8]) {
    let (prefix, rest) = halves(bytes);
    let (id, other) = halves(rest);
    let [prefix, id, other] =
        [prefix, id, other].map(|part| String::from_utf8_lossy(part).into_owned());
    let names = Names::new(&prefix, "node");
    let channel = names.channel(&id);
    assert_eq!(channel.strip_prefix(&names.client), Some(id.as_str()));
    let pattern = names.pattern();
    assert!(matches_glob(pattern.as_bytes(), channel.as_bytes()));
    let is_ours = other.starts_with(&names.client);
    assert_eq!(
        matches_glob(pattern.as_bytes(), other.as_bytes()),
        is_ours,
        "{pattern:?} {other:?}"
    );
    for name in [
        &names.clients,
        &names.owner,
        &names.nodes,
        &names.control,
        &names.probe,
    ] {
        assert!(
            !matches_glob(pattern.as_bytes(), name.as_bytes()),
            "{name:?}"
        );
    }
}

/// How Redis matches a channel with a pattern (`PSUBSCRIBE`), as its documentation tells: `*`, `?`, `[…]`, `\`.
fn matches_glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => matches_glob(rest, text),
        (Some((b'*', rest)), Some((_, tail))) => {
            rest.is_empty() || matches_glob(rest, text) || matches_glob(pattern, tail)
        }
        (None, Some(_)) | (Some(_), None) => false,
        (Some((b'?', rest)), Some((_, tail))) => matches_glob(rest, tail),
        (Some((b'[', _)), Some(_)) => panic!("the pattern of a prefix has no set"),
        (Some((b'\\', rest)), Some((byte, tail))) => {
            let (literal, rest) = rest.split_first().expect("what is escaped");
            literal == byte && matches_glob(rest, tail)
        }
        (Some((literal, rest)), Some((byte, tail))) => literal == byte && matches_glob(rest, tail),
    }
}

/// A URL of Redis is read or refused, and what refuses it does not repeat a password.
pub fn redis_url(bytes: &[u8]) {
    let (choice, bytes) = choice(bytes);
    let text = text_with_canary(bytes);
    let url = match choice % 5 {
        0 => text,
        1 => format!("redis://{CANARY}:{CANARY}@{text}"),
        2 => format!("redis+sentinel://{CANARY}:{CANARY}@{text}"),
        3 => format!("redis+cluster://{CANARY}:{CANARY}@{text}"),
        _ => format!("redis://{text}"),
    };
    if url.starts_with("rediss://") {
        return; // reads the system's certificates each time
    }
    let config = Config::default().redis_url(Some(Secret::new(url)));
    match Topology::from_config(&config) {
        Ok(Topology::Direct(_)) => {}
        Ok(Topology::Sentinel {
            sentinels, service, ..
        }) => {
            assert!(!sentinels.is_empty() && !service.is_empty());
            assert!(
                sentinels
                    .iter()
                    .all(|(host, port)| !host.is_empty() && *port > 0)
            );
        }
        #[cfg(feature = "redis-cluster")]
        Ok(Topology::Cluster(nodes)) => {
            let mut seeds = nodes.seeds.iter();
            assert!(!nodes.seeds.is_empty());
            assert!(seeds.all(|(host, port)| !host.is_empty() && *port > 0));
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            let line = error.to_line();
            assert!(
                line.starts_with("FASTSOCK_REDIS_URL: ") && !line.contains('\n'),
                "{line}"
            );
            assert!(!line.contains(CANARY), "{line}");
        }
    }
}
