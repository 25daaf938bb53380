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
mod event;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod hooks;
mod log;
mod options;
mod signals;
mod sized;
mod stats;
mod status;
mod text;

pub use bridge::*;
pub use clients::{
    fastsock_client, fastsock_clients, fastsock_clients_free, fastsock_clients_len,
    fastsock_clients_next,
};
pub use config::*;
pub use dead_letters::{
    fastsock_dead_letter, fastsock_dead_letters, fastsock_dead_letters_free,
    fastsock_dead_letters_len, fastsock_dead_letters_next,
};
pub use event::*;
pub use log::*;
pub use options::*;
pub use stats::fastsock_stats;
pub use status::*;
pub use text::*;
