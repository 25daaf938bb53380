//! Answers to tickets: what the host decides about a device or an uplink.

use std::ffi::{c_char, c_void};

use fastsock::{Admission, Answer, Refusal, UplinkAction};
use macro_rules_attribute::apply;

use crate::{
    bridge::fastsock_bridge,
    guard::c_abi,
    status::{Failure, fastsock_status},
    text,
};

/// Lets a device connect under a client id. With (NULL, 0) the settings decide. TICKET when it is too late, or already answered.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_accept(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
    client_id: *const c_char,
    client_id_len: usize,
) -> fastsock_status {
    let admission = match client_id.is_null() && client_id_len == 0 {
        true => Admission::AsConfigured,
        // SAFETY: by contract.
        false => Admission::Accept(unsafe { text::client_id(client_id, client_id_len) }?),
    };
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Admission(admission))
}

/// Refuses a device with an HTTP status from 400 to 599 and a reason, at most 1024 bytes of UTF-8, as body. `retry_after_s` other than 0 is sent as
/// Retry-After.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_reject(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
    status: u32,
    reason: *const c_char,
    reason_len: usize,
    retry_after_s: u32,
) -> fastsock_status {
    let code = u16::try_from(status)
        .ok()
        .filter(|code| (400..600).contains(code));
    let code =
        code.ok_or_else(|| Failure::argument(format!("status: give 400 to 599, not {status}")))?;
    // SAFETY: by contract.
    let reason = unsafe { text::reason(reason, reason_len, REFUSAL_MAX) }?;
    let mut refusal = Refusal::new(code, reason);
    if retry_after_s > 0 {
        refusal = refusal.with_retry_after(retry_after_s);
    }
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Admission(Admission::Reject(refusal)))
}

/// Forwards an uplink to the backend as it is.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_forward(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
) -> fastsock_status {
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Uplink(UplinkAction::Forward))
}

/// Takes an uplink: the backend gets nothing.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_drop(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
) -> fastsock_status {
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Uplink(UplinkAction::Drop))
}

/// Forwards other data to the backend in place of an uplink. `kind` is a fastsock_kind.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_replace(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
    kind: u32,
    data: *const c_void,
    data_len: usize,
) -> fastsock_status {
    // SAFETY: by contract.
    let payload = unsafe { text::payload(kind, data, data_len) }?;
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Uplink(UplinkAction::Replace(payload)))
}

/// Takes an uplink and sends data back to the device. `kind` is a fastsock_kind.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_reply(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
    kind: u32,
    data: *const c_void,
    data_len: usize,
) -> fastsock_status {
    // SAFETY: by contract.
    let payload = unsafe { text::payload(kind, data, data_len) }?;
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Uplink(UplinkAction::Reply(payload)))
}

/// Fails the decision: a device gets 503, an uplink is lost with the reason hook_failed.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_failed(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
) -> fastsock_status {
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Failed)
}

/// A body that a device may log.
const REFUSAL_MAX: usize = 1024;
