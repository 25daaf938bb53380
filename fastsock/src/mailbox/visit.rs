//! A visit to a mailbox: by whom, and what came of it.

use crate::{
    node::NodeId,
    pure::kept::Entry,
    stats::MailboxLost,
    types::{ClientId, SessionId},
};

/// The session that visits the mailbox of its device.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only a mailbox in Redis asks for all of it")
)]
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) client_id: ClientId,
    pub(crate) node: NodeId,
    pub(crate) session_id: SessionId,
    /// Of two sessions of a device the later one has the higher epoch.
    pub(crate) epoch: u64,
}

/// What came of a visit.
#[derive(Debug, Default)]
pub(crate) struct Visit {
    /// A newer session has the mailbox: nothing was removed, nothing read.
    pub(crate) is_fenced: bool,
    pub(crate) entries: Vec<Entry>,
    /// Whether there is more than there was room for.
    pub(crate) has_more: bool,
    /// Whether the mailbox holds nothing any more.
    pub(crate) is_empty: bool,
    /// Messages that are gone since the last visit, and nobody was told yet.
    pub(crate) lost: MailboxLost,
}
