//! The keys and channels in Redis, of which the prefix is the first part.

use crate::redis::glob::escaped;

/// The names one bridge uses.
#[derive(Debug)]
pub(crate) struct Names {
    /// Hash id -> last sign, in unix milliseconds.
    pub(crate) clients: String,
    /// Hash id -> `node:session:epoch` of its seat.
    pub(crate) owner: String,
    /// Sorted set of nodes by the end of their lease, in unix milliseconds of Redis's clock.
    pub(crate) nodes: String,
    /// Channel of what gateways tell each other.
    pub(crate) control: String,
    /// Channel on which this node hears itself.
    pub(crate) probe: String,
    /// First part of the channel of a device; the rest is its id.
    pub(crate) client: String,
    /// First part of the set of ids of a node.
    node: String,
}

impl Names {
    pub(crate) fn new(prefix: &str, node: &str) -> Self {
        Self {
            clients: format!("{prefix}:clients"),
            owner: format!("{prefix}:owner"),
            nodes: format!("{prefix}:nodes"),
            control: format!("{prefix}:control"),
            probe: format!("{prefix}:probe:{node}"),
            client: format!("{prefix}:client:"),
            node: format!("{prefix}:node:"),
        }
    }

    /// The channel of a device.
    pub(crate) fn channel(&self, client_id: &str) -> String {
        format!("{}{client_id}", self.client)
    }

    /// The pattern that matches the channels of all devices and nothing else.
    pub(crate) fn pattern(&self) -> String {
        escaped(&self.client) + "*"
    }

    /// The set of ids seated on a node.
    pub(crate) fn ids_of(&self, node: &str) -> String {
        format!("{}{node}", self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_in_the_prefix_match_themselves_only() {
        assert_eq!(Names::new("fastsock", "n").pattern(), "fastsock:client:*");
        assert_eq!(
            Names::new(r"a*b?[c]\", "n").pattern(),
            r"a\*b\?\[c\]\\:client:*"
        );
    }
}
