//! What operators look at: metrics, the admin API and its description, traces, the dashboard and the log.
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks"
)]

#[path = "operations/api.rs"]
mod api;
#[path = "operations/described.rs"]
mod described;
#[path = "operations/logs.rs"]
mod logs;
#[path = "operations/metrics.rs"]
mod metrics;
#[path = "operations/programs.rs"]
mod programs;
#[path = "operations/traces.rs"]
mod traces;
