//! The parts of the core, each by itself: what the fuzz targets and the micro-benchmarks call.
//!
//! This module belongs to the package `fastsock-inside`, which takes the sources of the core as a library of its own. The
//! core has it in its unit tests only.

pub mod fuzzing;
pub mod micro;
#[cfg(models)]
pub mod models;
