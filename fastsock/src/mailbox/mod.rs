//! The port to what keeps downlinks for devices that are away, the mailboxes on the disk, and the list of mailboxes to visit.

#[cfg(feature = "disk")]
pub(crate) mod disk;
pub(crate) mod due;
mod message;
mod visit;

#[cfg(any(feature = "redis", feature = "disk"))]
pub(crate) use self::message::Bounds;
pub use self::message::{KeepOptions, Kept, SEND_SCRIPT};
pub(crate) use self::{
    message::Message,
    visit::{Owner, Visit},
};

use crate::{
    error::Result,
    pure::kept::Turn,
    stats::MailboxLost,
    tasks::BoxFuture,
    types::{ClientId, MailboxState},
};

/// Keeps downlinks until their devices have them. One per bridge, if there is any.
pub(crate) trait Mailbox: Send + Sync {
    /// Whether it could be visited now.
    fn is_up(&self) -> bool;

    /// Removes what the device has, and reads on; for the session that has the seat. A session with a lower epoch than the last
    /// one that came is turned away.
    fn visit<'a>(&'a self, owner: &'a Owner, turn: &'a Turn) -> BoxFuture<'a, Result<Visit>>;

    /// The size of its file, if it has one.
    fn file_bytes(&self) -> Option<u64> {
        None
    }

    /// Whether [`Mailbox::keep`] lets whoever has the device know; else the caller does.
    fn rings(&self) -> bool;

    /// Keeps a message, and lets whoever has the device know. Returns also what was lost for it.
    fn keep<'a>(
        &'a self,
        client_id: &'a ClientId,
        message: Message,
    ) -> BoxFuture<'a, Result<(Kept, Losses)>>;

    /// Goes through all mailboxes: removes what is too old, and what they hold beyond their limits together. Returns whether it did; else
    /// another gateway does it.
    fn sweep<'a>(&'a self, tell: TellLost<'a>) -> BoxFuture<'a, Result<bool>>;

    /// What the mailbox of a device holds.
    fn state<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<MailboxState>>;

    /// Empties the mailbox of a device. Returns how many messages it held.
    fn clear<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<u64>>;
}

/// What mailboxes have lost, and whose they are.
pub(crate) type Losses = Vec<(ClientId, MailboxLost)>;

/// Who is told what a mailbox has lost.
pub(crate) type TellLost<'a> = &'a (dyn Fn(&ClientId, MailboxLost) + Send + Sync);
