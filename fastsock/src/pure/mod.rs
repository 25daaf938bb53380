//! What decides without looking at the world: no I/O, no clock, no lock. Time comes in as an argument, what to do goes out.

pub(crate) mod ahead;
pub(crate) mod backoff;
pub(crate) mod envelope;
pub(crate) mod extensions;
pub(crate) mod handshake;
pub(crate) mod heartbeat;
pub(crate) mod kept;
pub(crate) mod last_error;
pub(crate) mod limits;
pub(crate) mod losses;
pub(crate) mod outbox;
pub(crate) mod receipts;
pub(crate) mod surplus;
pub(crate) mod tally;
