//! Answers to tickets: what the host decides about a device or an uplink.

use std::{
    ffi::{c_char, c_void},
    mem::offset_of,
    time::{Duration, SystemTime},
};

use fastsock::{Accepted, Admission, Answer, Refusal, UplinkAction};
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;

use crate::{
    bridge::fastsock_bridge,
    guard::c_abi,
    sized::{read_sized, unknown_field},
    status::{Failure, fastsock_status},
    text::{self, fastsock_str},
};

/// Lets a device connect under a client id. TICKET when it is too late, or already answered.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_accept(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
    client_id: *const c_char,
    client_id_len: usize,
) -> fastsock_status {
    // SAFETY: by contract.
    let admission = Admission::Accept(unsafe { text::client_id(client_id, client_id_len) }?);
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Admission(admission))
}

/// Lets the settings decide whether a device may connect, and under which client id. TICKET when it is too late, or already answered.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_as_configured(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
) -> fastsock_status {
    let answer = Answer::Admission(Admission::AsConfigured);
    fastsock_bridge::enter(bridge)?.resolve(ticket, answer)
}

/// What a device is let in with. Set all to zero, then struct_size and client_id, then what you want. All that it points to is yours, and
/// is read during the call.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_admission {
    /// sizeof(fastsock_admission) in your build: the library takes fields that an older header does not have as zero.
    pub struct_size: usize,
    /// The client id under which it may connect.
    pub client_id: fastsock_str,
    /// Milliseconds since 1970 at which the bridge closes it with 4501; 0: never.
    pub expires_at_ms: u64,
    /// Its groups.
    pub groups: *const fastsock_str,
    /// How many groups there are.
    pub group_count: usize,
    /// The subprotocol to tell it, one that it offers; empty: the settings choose.
    pub subprotocol: fastsock_str,
    /// A JSON object of at most 4096 bytes that the bridge keeps with the session and hands to hooks and the backend; empty: none.
    pub metadata: fastsock_str,
}

/// Lets a device connect, and says what goes with it. TICKET when it is too late, or already answered.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_admit(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
    admission: *const fastsock_admission,
) -> fastsock_status {
    // SAFETY: by contract.
    let accepted = unsafe { fastsock_admission::read(admission) }?;
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Admission(accepted.into()))
}

impl fastsock_admission {
    /// # Safety
    /// `admission` is NULL or points to a struct of `struct_size` bytes, of this or another version, whose views can be read.
    unsafe fn read(admission: *const Self) -> Result<Accepted, Failure> {
        if admission.is_null() {
            return Err(Failure::null("admission"));
        }
        let least = offset_of!(Self, expires_at_ms);
        // SAFETY: by contract; every field is a number or a pointer that may be NULL.
        let (copy, is_newer) = unsafe { read_sized(admission, least, "admission") }?;
        unknown_field(is_newer, "admission")?;
        // SAFETY: by contract.
        unsafe { copy.accepted() }
    }

    /// # Safety
    /// As [`Self::read`].
    unsafe fn accepted(&self) -> Result<Accepted, Failure> {
        // SAFETY: by contract.
        let client_id = unsafe { text::client_id(self.client_id.ptr, self.client_id.len) }?;
        let mut accepted = Accepted::new(client_id);
        if self.expires_at_ms > 0 {
            let since_1970 = Duration::from_millis(self.expires_at_ms);
            accepted.expires_at = SystemTime::UNIX_EPOCH.checked_add(since_1970);
        }
        if self.groups.is_null() && self.group_count > 0 {
            return Err(Failure::null("groups"));
        }
        if self.group_count > MOST_GROUPS {
            return Err(Failure::argument(format!(
                "groups: give at most {MOST_GROUPS}"
            )));
        }
        for index in 0..self.group_count {
            // SAFETY: by contract there are as many.
            let group = unsafe { &*self.groups.add(index) };
            // SAFETY: by contract.
            accepted.groups.push(unsafe { owned(group, "groups") }?);
        }
        if self.subprotocol.len > 0 {
            // SAFETY: by contract.
            accepted.subprotocol = Some(unsafe { owned(&self.subprotocol, "subprotocol") }?);
        }
        if self.metadata.len > 0 {
            // SAFETY: by contract.
            let metadata = unsafe { owned(&self.metadata, "metadata") }?;
            let bad = |_| Failure::argument("metadata: give a JSON object of at most 4096 bytes");
            accepted.metadata = Some(metadata.parse().map_err(bad)?);
        }
        Ok(accepted)
    }
}

/// # Safety
/// `view` can be read.
unsafe fn owned(view: &fastsock_str, what: &str) -> Result<String, Failure> {
    // SAFETY: the same contract.
    let bytes = unsafe { text::bytes(view.ptr.cast(), view.len, what) }?;
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned)
        .map_err(|_| Failure::argument(format!("{what} is not UTF-8")))
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
/// Groups of one device.
const MOST_GROUPS: usize = 64;
