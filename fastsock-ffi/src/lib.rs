//! The C ABI of Fastsock: `include/fastsock.h` is written from these files by cbindgen, docs/c.md tells how to use it.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "these docs are those of the C header, in plain text"
)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
// The names are C's: cbindgen takes them as they stand. Each function's contract is in the header and in docs/c.md.
#![allow(
    non_camel_case_types,
    clippy::missing_safety_doc,
    clippy::upper_case_acronyms
)]

mod bridge;
mod clients;
mod config;
mod dead_letters;
mod descriptors;
mod devices;
mod event;
mod fork;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod groups;
mod guard;
mod hooks;
mod last_error;
mod log;
mod metrics;
mod observe;
mod options;
mod poll;
mod settings;
mod signals;
mod sized;
mod start;
mod stats;
mod status;
mod stop;
mod text;
mod tickets;
mod userdata;
mod version;

pub use bridge::fastsock_bridge;
pub use clients::*;
pub use config::*;
pub use dead_letters::*;
pub use devices::*;
pub use event::*;
pub use groups::*;
pub use last_error::*;
pub use log::*;
pub use metrics::*;
pub use observe::*;
pub use options::*;
pub use poll::*;
pub use settings::*;
pub use start::*;
pub use stats::*;
pub use status::fastsock_status;
pub use stop::*;
pub use text::*;
pub use tickets::*;
pub use version::*;
