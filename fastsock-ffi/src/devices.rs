//! What a bridge does with one device: sends to it, closes its session.

use std::ffi::{c_char, c_void};

use fastsock::{CloseReason, Sent};
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;

use crate::{
    bridge::fastsock_bridge,
    guard::c_abi,
    status::{Failure, fastsock_status},
    text,
};

/// Where a sent message went.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_sent {
    /// Into the outbox of a session of this bridge.
    HERE = 1,
    /// Published: Redis says that another gateway has the device.
    ELSEWHERE = 2,
    /// No gateway has the device; the message is gone.
    OFFLINE = 3,
}

/// Sends a message to a device, here or on another gateway. `kind` is a fastsock_kind. Blocks only while it asks Redis
/// about a device that is not here. TOO_LARGE over 16 MiB, OUTBOX_FULL, BROKER, STOPPED. `sent` may be NULL.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_send(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    kind: u32,
    data: *const c_void,
    data_len: usize,
    sent: *mut fastsock_sent,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (id, payload) = unsafe {
        (
            text::client_id(client_id, client_id_len)?,
            text::payload(kind, data, data_len)?,
        )
    };
    let answer = match entered.core.send(&id, payload)? {
        Sent::Here => fastsock_sent::HERE,
        Sent::Elsewhere => fastsock_sent::ELSEWHERE,
        Sent::Offline => fastsock_sent::OFFLINE,
    };
    if !sent.is_null() {
        // SAFETY: by contract it can be written.
        unsafe { sent.write(answer) };
    }
    Ok(())
}

/// Closes the session of a device that is here. `code` is 1000 or 3000 to 4999, with a reason of at most 123 bytes of UTF-8; 0
/// is 4510 "kicked", without a reason. ARGUMENT for anything else, NOT_CONNECTED when it is not here.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_disconnect(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    code: u32,
    reason: *const c_char,
    reason_len: usize,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (id, reason) = unsafe {
        (
            text::client_id(client_id, client_id_len)?,
            text::reason(reason, reason_len, CloseReason::MAX_BYTES)?,
        )
    };
    let reason = match u16::try_from(code) {
        Ok(0) if reason.is_empty() => Some(CloseReason::Kicked),
        Ok(0) => return Err(Failure::argument("reason: it needs a code other than 0")),
        Ok(code) => CloseReason::custom(code, reason),
        Err(_) => None,
    };
    let reason = reason
        .ok_or_else(|| Failure::argument(format!("code: {code} is no close code for hosts")))?;
    if entered.core.disconnect(&id, reason) {
        return Ok(());
    }
    Err(Failure::new(
        fastsock_status::NOT_CONNECTED,
        format!("{id} is not connected here"),
    ))
}
