//! The keys and channels in Redis, of which the prefix is the first part.

use crate::{redis::glob::escaped, types::ClientId};

/// The names one bridge uses.
#[derive(Debug)]
pub(crate) struct Names {
    /// Hash id -> last sign, in unix milliseconds.
    pub(crate) clients: String,
    /// Hash id -> `node:session:epoch` of its seat.
    pub(crate) owner: String,
    /// Sorted set of nodes by the end of their lease, in unix milliseconds of Redis's clock.
    pub(crate) nodes: String,
    /// Hash node -> what it tells of itself. No node has such an id.
    pub(crate) cards: String,
    /// Channel of what gateways tell each other.
    pub(crate) control: String,
    /// Channel of this node alone: it hears itself there, and what others tell only it.
    pub(crate) probe: String,
    /// First part of such a channel; the rest is the node.
    own: String,
    /// First part of the channel of a device; the rest is its id.
    pub(crate) client: String,
    /// First part of the channel of a device's bell; the rest is its id.
    pub(crate) bell: String,
    /// First part of the channel of a group; the rest is its name.
    pub(crate) group: String,
    /// Channel of what is for everyone.
    pub(crate) broadcast: String,
    /// First part of the mailbox of a device.
    mailbox: String,
    /// First part of the set of ids of a node.
    node: String,
}

impl Names {
    pub(crate) fn new(prefix: &str, node: &str) -> Self {
        Self {
            clients: format!("{prefix}:clients"),
            owner: format!("{prefix}:owner"),
            nodes: format!("{prefix}:nodes"),
            cards: format!("{prefix}:node:cards"),
            control: format!("{prefix}:control"),
            probe: format!("{prefix}:probe:{node}"),
            own: format!("{prefix}:probe:"),
            client: format!("{prefix}:client:"),
            bell: format!("{prefix}:bell:"),
            group: format!("{prefix}:group:"),
            broadcast: format!("{prefix}:broadcast"),
            mailbox: format!("{prefix}:mbox:"),
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

    /// The channel of one node alone.
    pub(crate) fn own_channel(&self, node: &str) -> String {
        format!("{}{node}", self.own)
    }

    /// The channel of a device's bell.
    pub(crate) fn bell_of(&self, client_id: &str) -> String {
        format!("{}{client_id}", self.bell)
    }

    /// The pattern that matches the bells of all devices and nothing else.
    pub(crate) fn bells(&self) -> String {
        escaped(&self.bell) + "*"
    }

    /// The channel of a group.
    pub(crate) fn group_of(&self, name: &str) -> String {
        format!("{}{name}", self.group)
    }

    /// The pattern that matches the channels of all groups and nothing else.
    pub(crate) fn all_groups(&self) -> String {
        escaped(&self.group) + "*"
    }

    /// The stream that is the mailbox of a device. What belongs to it has a name that begins so, and thus its slot: the id is the
    /// hash tag, with its own braces encoded.
    pub(crate) fn mailbox_of(&self, client_id: &str) -> String {
        let id = client_id
            .replace('%', "%25")
            .replace('{', "%7B")
            .replace('}', "%7D");
        format!("{}{{{id}}}", self.mailbox)
    }

    /// The device whose mailbox a key is; `None` when it is something else, perhaps what belongs to a mailbox.
    pub(crate) fn owner_of(&self, key: &str) -> Option<ClientId> {
        let id = key.strip_prefix(&*self.mailbox)?;
        let id = id.strip_prefix('{')?.strip_suffix('}')?;
        if id.contains('}') {
            return None;
        }
        let id = id.replace("%7D", "}").replace("%7B", "{");
        ClientId::new(id.replace("%25", "%"))
    }

    /// The key of the lease of whoever sees to all mailboxes.
    pub(crate) fn janitor(&self) -> String {
        format!("{}janitor", self.mailbox)
    }

    /// The pattern that matches all mailboxes, and what belongs to them.
    pub(crate) fn mailboxes(&self) -> String {
        escaped(&self.mailbox) + "*"
    }

    /// The set of what is to be told of the devices of a node that died, each `session:epoch:id`.
    pub(crate) fn lost_of(&self, node: &str) -> String {
        format!("{}{node}:lost", self.node)
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
    fn every_id_has_a_mailbox_of_its_own_and_braces_do_not_change_its_slot() {
        let names = Names::new("p", "n");
        for (id, key) in [
            ("dev1", "p:mbox:{dev1}"),
            ("a{b}c", "p:mbox:{a%7Bb%7Dc}"),
            ("a%7Bb", "p:mbox:{a%257Bb}"),
            ("}:meta", "p:mbox:{%7D:meta}"),
        ] {
            assert_eq!(names.mailbox_of(id), key);
            assert_eq!(names.owner_of(key), ClientId::new(id));
            for other in [":meta", ":id:x}", ":id:}"] {
                assert_eq!(names.owner_of(&format!("{key}{other}")), None);
            }
        }
        assert_eq!(names.owner_of(&names.janitor()), None);
    }

    #[test]
    fn globs_in_the_prefix_match_themselves_only() {
        assert_eq!(Names::new("fastsock", "n").pattern(), "fastsock:client:*");
        assert_eq!(
            Names::new(r"a*b?[c]\", "n").pattern(),
            r"a\*b\?\[c\]\\:client:*"
        );
    }
}
