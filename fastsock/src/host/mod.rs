//! What the embedding program decides and hears.

pub(crate) mod announcements;
pub(crate) mod decisions;
pub(crate) mod departures;
pub mod events;
pub(crate) mod lifecycle;
mod roll;
