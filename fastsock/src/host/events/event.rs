//! One thing that happened, as the host drains it.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    types::{
        Client, ClientId, CloseReason, ConnectRequest, LostReason, Sent, State, Ticket, Uplink,
    },
};

/// One thing that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A device wants to connect: answer the ticket with an [`Admission`](crate::Admission).
    Authenticate {
        /// The ticket for `resolve`.
        ticket: Ticket,
        /// The head of its request.
        request: Box<ConnectRequest>,
    },
    /// A device connected.
    Connect(Client),
    /// A device sent a message.
    Uplink {
        /// Answer it with an [`UplinkAction`](crate::UplinkAction); `None` when the host took the message by draining it.
        ticket: Option<Ticket>,
        /// What was said.
        uplink: Uplink,
    },
    /// A session ended.
    Disconnect {
        /// Whose.
        client: Client,
        /// How.
        reason: CloseReason,
    },
    /// An uplink was given up.
    UplinkLost {
        /// Which.
        uplink: Uplink,
        /// Why.
        reason: LostReason,
    },
    /// Kept messages of a device are lost.
    MailboxLost {
        /// Whose. The device may be away.
        client_id: ClientId,
        /// Why: `mailbox_full`, `mailbox_expired` or `mailbox_bad`.
        reason: String,
        /// How many.
        count: u64,
    },
    /// The bridge or its broker link changed state.
    State(State),
    /// A message that the host sent without waiting arrived somewhere, or did not: what [`PendingSend`](super::PendingSend) was told.
    Sent {
        /// The host's name for the message.
        tag: u64,
        /// Whom it was for.
        client_id: ClientId,
        /// Where it went.
        result: Result<Sent, Arc<Error>>,
    },
}

impl Event {
    /// The ticket to answer, if it wants an answer.
    pub fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Authenticate { ticket, .. } => Some(*ticket),
            Self::Uplink { ticket, .. } => *ticket,
            _ => None,
        }
    }
}
