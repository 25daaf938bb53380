//! From an accepted connection to a session in its seat.

pub(crate) mod drain;
pub(crate) mod late;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod notices;
mod request;
pub(crate) mod routes;
pub(crate) mod session;
pub(crate) mod shared;
pub(crate) mod socket;
mod upgrade;
