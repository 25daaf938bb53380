//! Stopping and freeing a bridge.

use std::{mem::offset_of, sync::Arc, time::Duration};

use fastsock::Leftover;
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;

use crate::{
    bridge::fastsock_bridge,
    guard::c_abi,
    sized::{whole, write_sized},
    status::fastsock_status,
};

/// What a stop left. All zero when everything was delivered in time.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct fastsock_leftover {
    /// Sessions cut without waiting for their close handshake.
    pub sessions: u64,
    /// Uplinks that were not delivered: lost with the reason shutdown.
    pub uplinks: u64,
    /// Presence entries that Redis may still hold for a few seconds.
    pub presence: u64,
    /// Lifecycle events that were not delivered: lost with the reason shutdown.
    pub events: u64,
    /// Uplinks that a durable spool keeps for the next start; not a failure.
    pub spooled: u64,
}

/// Stops: closes every device with 1001, delivers the uplinks that the bridge took, ends all threads; takes at most about
/// `deadline_ms`. `left`, of `left_size` = sizeof(fastsock_leftover) bytes, says what it could not deliver; it may be NULL.
/// After OK no hook runs or will run. TIMEOUT: the same, except for one hook that is still running: it gets at most
/// 50 ms beyond the deadline, and all hooks together 500 ms. Further calls wait for the same end; the earliest deadline counts
/// for all. HOOK inside a hook, which has no `fastsock_bridge *` for it: call
/// fastsock_bridge_request_stop there.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_stop(
    bridge: *mut fastsock_bridge,
    deadline_ms: u32,
    left: *mut fastsock_leftover,
    left_size: usize,
) -> fastsock_status {
    // SAFETY: by contract it came from `fastsock_bridge_start` and was not freed.
    let entered = fastsock_bridge::enter(unsafe { bridge.as_ref() })?;
    if !left.is_null() {
        whole(left_size, offset_of!(fastsock_leftover, events), "left")?;
    }
    let leftover = entered
        .bridge
        .stop(Duration::from_millis(deadline_ms.into()))?;
    if !left.is_null() {
        let leftover = fastsock_leftover::from(leftover);
        // SAFETY: by contract `left_size` bytes can be written.
        unsafe { write_sized(&leftover, left, left_size) };
    }
    Ok(())
}

/// Begins to stop without waiting; fastsock_bridge_stop waits. Allowed inside a hook.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_request_stop(
    bridge: Option<&fastsock_bridge>,
) -> fastsock_status {
    fastsock_bridge::enter(bridge)?.core.request_stop();
    Ok(())
}

/// Drains: takes nobody new, and closes those who are here with 1012, one after the other and spread evenly over `window_ms`.
/// Returns once no device is here: after the window, and at most close_timeout for the last ones. All else goes on until
/// fastsock_bridge_stop. While a drain goes on a second one waits for its end. HOOK inside a hook: call
/// fastsock_bridge_request_drain there.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_drain(
    bridge: *mut fastsock_bridge,
    window_ms: u32,
) -> fastsock_status {
    // SAFETY: by contract it came from `fastsock_bridge_start` and was not freed.
    let entered = fastsock_bridge::enter(unsafe { bridge.as_ref() })?;
    entered.bridge.refuse_in_hook("fastsock_bridge_drain")?;
    entered.core.drain(Duration::from_millis(window_ms.into()));
    Ok(())
}

/// Begins to drain without waiting, unless a drain or a stop has begun before. Allowed inside a hook.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_request_drain(
    bridge: Option<&fastsock_bridge>,
    window_ms: u32,
) -> fastsock_status {
    let core = fastsock_bridge::enter(bridge)?.core;
    core.request_drain(Duration::from_millis(window_ms.into()));
    Ok(())
}

/// Frees a bridge; stops it with a deadline of 0 if you have not stopped it. No other call for this bridge may run or
/// come later, except those of a hook that is still running: the bridge lives until that returns. NULL is nothing to free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_free(bridge: *mut fastsock_bridge) -> fastsock_status {
    if bridge.is_null() {
        return Ok(());
    }
    // SAFETY: by contract it came from `fastsock_bridge_start` and was not freed.
    let entered = fastsock_bridge::enter(unsafe { bridge.as_ref() })?;
    match entered.bridge.stop(Duration::ZERO) {
        // A hook is still running: its thread holds the bridge too.
        Err(failure) if failure.status != fastsock_status::TIMEOUT => return Err(failure),
        _ => {}
    }
    drop(entered);
    // SAFETY: as above; this takes back the reference that the host held.
    drop(unsafe { Arc::from_raw(bridge) });
    Ok(())
}

impl From<Leftover> for fastsock_leftover {
    fn from(left: Leftover) -> Self {
        Self {
            sessions: left.sessions,
            uplinks: left.uplinks,
            presence: left.presence,
            events: left.events,
            spooled: left.spooled,
        }
    }
}
