//! Sessions among each other and under stress: takeover, limits, slow and hostile devices, and the admin listener.

#[path = "sessions/admin.rs"]
mod admin;
#[path = "sessions/bursts.rs"]
mod bursts;
#[path = "sessions/closing.rs"]
mod closing;
#[path = "sessions/crowd.rs"]
mod crowd;
#[path = "sessions/limits.rs"]
mod limits;
#[path = "sessions/losses.rs"]
mod losses;
#[path = "sessions/probes.rs"]
mod probes;
#[path = "sessions/slow.rs"]
mod slow;
#[path = "sessions/takeover.rs"]
mod takeover;
