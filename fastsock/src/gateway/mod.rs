//! From an accepted connection to a session in its seat.

pub(crate) mod limits;
pub(crate) mod listen;
mod request;
pub(crate) mod session;
pub(crate) mod shared;
pub(crate) mod socket;
mod upgrade;
