//! What the embedding program decides and hears.

pub mod events;
pub(crate) mod lifecycle;
