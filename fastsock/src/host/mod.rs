//! What the embedding program decides and hears.

pub mod events;
pub(crate) mod hooks;
pub(crate) mod lifecycle;
pub(crate) mod status;
