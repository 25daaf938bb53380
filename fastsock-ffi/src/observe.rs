//! What a bridge tells of itself: its state and its addresses.

use std::{ffi::c_char, ptr};

use macro_rules_attribute::apply;

use crate::{
    bridge::fastsock_bridge, event::fastsock_state, guard::c_abi, status::fastsock_status, text,
};

/// Gives the state of the bridge: RUNNING, DEGRADED, DRAINING, STOPPING or STOPPED.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_state(
    bridge: Option<&fastsock_bridge>,
    state: *mut fastsock_state,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(state, "state") }?;
    out.put(fastsock_state::from(&entered.core.state()));
    Ok(())
}

/// Gives the address that devices connect to, such as "[::]:3000". Free it with fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_local_addr(
    bridge: Option<&fastsock_bridge>,
    addr: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(addr, "addr") }?;
    out.put(text::give(entered.core.local_addr().to_string())?);
    Ok(())
}

/// Gives the port that devices connect to.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_port(
    bridge: Option<&fastsock_bridge>,
    port: *mut u16,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(port, "port") }?;
    out.put(entered.core.local_addr().port());
    Ok(())
}

/// Gives the address of the admin listener, or NULL when there is none. Free it with fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_admin_addr(
    bridge: Option<&fastsock_bridge>,
    addr: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(addr, "addr") }?;
    let addr = entered.core.admin_addr();
    out.put(addr.map_or(Ok(ptr::null_mut()), |addr| text::give(addr.to_string()))?);
    Ok(())
}
