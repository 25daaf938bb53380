//! `fastsock_stats`: the books of one bridge as a struct of numbers.

use std::{ffi::c_char, mem::offset_of, sync::atomic::Ordering::Relaxed};

use fastsock::Stats;
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;

use crate::{
    bridge::fastsock_bridge,
    guard::c_abi,
    sized::{whole, write_sized},
    status::{Failure, fastsock_status},
    text,
};

/// One snapshot of the books. In each, uplink_received + uplink_recovered = uplink_delivered + uplink_held +
/// uplink_dropped_by_hook + uplink_passed_on + all uplink_lost_; downlink_received = downlink_delivered + downlink_held + all downlink_lost_.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_stats {
    /// Messages of devices read from a socket.
    pub uplink_received: u64,
    /// Found in a durable spool at start, taken over from another gateway, or replayed dead letters.
    pub uplink_recovered: u64,
    /// Answered with 2xx by the backend.
    pub uplink_delivered: u64,
    /// Waiting for a hook, for the spool, for their turn, for a retry, or for an answer; after a stop, what the spool keeps.
    pub uplink_held: u64,
    /// Bytes that the held ones count for.
    pub uplink_held_bytes: u64,
    /// Taken by the host.
    pub uplink_dropped_by_hook: u64,
    /// Given up: no remote_url is set and no hook took it.
    pub uplink_lost_no_remote_url: u64,
    /// Given up: the hook failed or did not answer in time.
    pub uplink_lost_hook_failed: u64,
    /// Given up: the backend refused this message for good.
    pub uplink_lost_rejected: u64,
    /// Given up: the backend failed on this message again and again.
    pub uplink_lost_poison: u64,
    /// Given up: older than the age limit.
    pub uplink_lost_too_old: u64,
    /// Given up: the lane was full and uplink_full is drop_oldest.
    pub uplink_lost_full: u64,
    /// Given up: still waiting when the bridge stopped.
    pub uplink_lost_shutdown: u64,
    /// Messages for devices that are here.
    pub downlink_received: u64,
    /// Written to the device's socket.
    pub downlink_delivered: u64,
    /// In an outbox.
    pub downlink_held: u64,
    /// Given up: the outbox was full.
    pub downlink_lost_full: u64,
    /// Given up: the session ended with them in its outbox.
    pub downlink_lost_session_ended: u64,
    /// Given up: over 16 MiB.
    pub downlink_lost_too_large: u64,
    /// Devices that are here now.
    pub sessions_connected: u64,
    /// Sessions since the start.
    pub sessions_opened: u64,
    /// Sessions that ended, for any cause; fastsock_bridge_stats_json has the causes.
    pub sessions_closed: u64,
    /// Handshakes refused, with any status; fastsock_bridge_stats_json has the status.
    pub sessions_refused: u64,
    /// Handshakes that broke off before an answer.
    pub sessions_abandoned: u64,
    /// POSTs, retries included.
    pub posts: u64,
    /// POSTs that did not deliver.
    pub posts_failed: u64,
    /// Times a broker link was lost.
    pub broker_links_lost: u64,
    /// Times in which downlinks may not have arrived.
    pub broker_gaps: u64,
    /// Hooks that failed (decisions and notices), or did not answer in time.
    pub hooks_failed: u64,
    /// Notices that the queue dropped because the host fell behind.
    pub events_dropped: u64,
    /// Events waiting for the host.
    pub events_waiting: u64,
    /// Lifecycle events for events_url; = lifecycle_delivered + lifecycle_held + lifecycle_lost.
    pub lifecycle_made: u64,
    /// Answered with 2xx by events_url.
    pub lifecycle_delivered: u64,
    /// Waiting for their turn, for a retry, or for an answer.
    pub lifecycle_held: u64,
    /// Given up, for any reason; fastsock_bridge_stats_json has the reasons.
    pub lifecycle_lost: u64,
    /// Uplinks given to a spool that several gateways share; the gateway that delivers them counts them as recovered.
    pub uplink_passed_on: u64,
    /// Dead letters in the spool now.
    pub dead_letters: u64,
    /// Dead letters that are gone for good: dropped by hand, or to stay within their limits.
    pub dead_letters_dropped: u64,
}

/// Gives the books of the bridge, exact at this moment. `stats_size` is sizeof(fastsock_stats) in your build.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_stats(
    bridge: Option<&fastsock_bridge>,
    stats: *mut fastsock_stats,
    stats_size: usize,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    if stats.is_null() {
        return Err(Failure::null("stats"));
    }
    whole(
        stats_size,
        offset_of!(fastsock_stats, events_dropped),
        "stats",
    )?;
    let snapshot = fastsock_stats::of(&entered.core.stats(), entered.bridge);
    // SAFETY: by contract `stats_size` bytes can be written.
    unsafe { write_sized(&snapshot, stats, stats_size) };
    Ok(())
}

/// Gives the books as JSON, with closed sessions by cause and refused handshakes by status. Free it with
/// fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_stats_json(
    bridge: Option<&fastsock_bridge>,
    json: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(json, "json") }?;
    let stats = serde_json::to_vec(&entered.core.stats())
        .map_err(|e| Failure::new(fastsock_status::OTHER, e.to_string()))?;
    out.put(text::give(stats)?);
    Ok(())
}

/// Gives the gateway in one look as JSON, as `/api/v1/status` of the admin listener has it. Free it with fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_status_json(
    bridge: Option<&fastsock_bridge>,
    json: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(json, "json") }?;
    let status = serde_json::to_vec(&entered.core.status())
        .map_err(|e| Failure::new(fastsock_status::OTHER, e.to_string()))?;
    out.put(text::give(status)?);
    Ok(())
}

impl fastsock_stats {
    fn of(stats: &Stats, bridge: &fastsock_bridge) -> Self {
        Self {
            uplink_received: stats.uplink.received,
            uplink_recovered: stats.uplink.recovered,
            uplink_delivered: stats.uplink.delivered,
            uplink_held: stats.uplink.held,
            uplink_held_bytes: stats.uplink.held_bytes,
            uplink_dropped_by_hook: stats.uplink.dropped_by_hook,
            uplink_lost_no_remote_url: stats.uplink.lost.no_remote_url,
            uplink_lost_hook_failed: stats.uplink.lost.hook_failed,
            uplink_lost_rejected: stats.uplink.lost.rejected,
            uplink_lost_poison: stats.uplink.lost.poison,
            uplink_lost_too_old: stats.uplink.lost.too_old,
            uplink_lost_full: stats.uplink.lost.full,
            uplink_lost_shutdown: stats.uplink.lost.shutdown,
            downlink_received: stats.downlink.received,
            downlink_delivered: stats.downlink.delivered,
            downlink_held: stats.downlink.held,
            downlink_lost_full: stats.downlink.lost.full,
            downlink_lost_session_ended: stats.downlink.lost.session_ended,
            downlink_lost_too_large: stats.downlink.lost.too_large,
            sessions_connected: stats.sessions.connected,
            sessions_opened: stats.sessions.opened,
            sessions_closed: stats.sessions.closed.values().sum(),
            sessions_refused: stats.sessions.refused.values().sum(),
            sessions_abandoned: stats.sessions.abandoned,
            posts: stats.counters.posts,
            posts_failed: stats.counters.posts_failed,
            broker_links_lost: stats.counters.broker_links_lost,
            broker_gaps: stats.counters.broker_gaps,
            hooks_failed: stats.counters.hooks_failed + bridge.notices_failed.load(Relaxed),
            events_dropped: bridge.queue.dropped(),
            events_waiting: bridge.queue.len() as u64,
            lifecycle_made: stats.lifecycle.made,
            lifecycle_delivered: stats.lifecycle.delivered,
            lifecycle_held: stats.lifecycle.held,
            lifecycle_lost: stats.lifecycle.lost.total(),
            uplink_passed_on: stats.uplink.passed_on,
            dead_letters: stats.uplink.dead_letters,
            dead_letters_dropped: stats.uplink.dead_letters_dropped,
        }
    }
}
