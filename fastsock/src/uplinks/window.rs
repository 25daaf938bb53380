//! What is in memory of what the spool has. No I/O, no clock, no lock.
//!
//! In memory a lane has its oldest committed items (its window) and those on their way into the spool; what is between them is in
//! the spool alone. So a backlog may be larger than memory, and a lane that waits for memory costs a few words.

use std::collections::VecDeque;

use super::lane::Amount;
use crate::types::ClientId;

/// What lanes have in the spool alone, what was asked of it, and what it does not have yet.
#[derive(Default)]
pub(super) struct Window {
    pub(super) stored: Amount,
    /// Bytes asked of the spool and not here yet.
    pub(super) loading_bytes: usize,
    /// Items on their way into the spool.
    pub(super) uncommitted: usize,
    /// Lanes that would read on in the spool and wait for memory.
    pub(super) starving: VecDeque<ClientId>,
    /// Lanes that the spool does not let deliver for now.
    pub(super) held_up: Vec<ClientId>,
    /// The spool takes nothing for now.
    pub(super) is_spool_failing: bool,
}

/// What the spool is to bring.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) key: ClientId,
    pub(crate) after: Option<u64>,
    pub(crate) bytes: usize,
}

impl Window {
    /// Nobody reads on any more.
    pub(super) fn clear(&mut self) {
        self.starving.clear();
        self.held_up.clear();
    }
}
