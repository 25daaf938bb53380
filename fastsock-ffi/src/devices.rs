//! What a bridge does with one device: sends to it, closes its session.

use std::{
    ffi::{c_char, c_void},
    time::Duration,
};

use fastsock::{CallMatch, CloseReason, KeepOptions, Payload, Presence};
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;

use crate::{
    bridge::fastsock_bridge,
    event::fastsock_sent,
    guard::c_abi,
    sized::{read_sized, unknown_field, write_if_wanted},
    status::{Failure, fastsock_status},
    text::{self, fastsock_kind, fastsock_str},
};

/// Sends a message to a device, here or on another gateway. `kind` is a fastsock_kind. Never blocks for a device that is here. For
/// any other it blocks while it asks Redis: 2 s while Redis does not answer, and never for more than 4 s; a host with a loop calls
/// fastsock_bridge_send_nowait. TOO_LARGE over 16 MiB, OUTBOX_FULL, BROKER, STOPPED. `sent` may be NULL.
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
    let answer = entered.core.send(&id, payload)?.into();
    // SAFETY: by contract it is NULL or can be written.
    unsafe { write_if_wanted(sent, answer) };
    Ok(())
}

/// As fastsock_bridge_send, but never blocks: for a host with a loop, and for hooks. `sent`, which may be NULL, is HERE when the
/// message is in the outbox of the device; nothing follows then. Else it is PENDING, and exactly one event SENT with this `tag`
/// follows, in the event queue or for the hook on_sent, at the latest when the bridge stops. A failure that is known at once is the
/// status, and nothing follows: TOO_LARGE over 16 MiB, OUTBOX_FULL, STOPPED. BUSY when the results of event_capacity sends are
/// outstanding, or messages of event_capacity_bytes: go on when SENT events have come.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_send_nowait(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    kind: u32,
    data: *const c_void,
    data_len: usize,
    tag: u64,
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
    let answer = match entered.core.send_here(&id, payload.clone())? {
        true => fastsock_sent::HERE,
        false => {
            let pending = entered.bridge.queue.begin_send(&id, &payload, tag);
            let pending = pending.ok_or_else(|| {
                let text = "too many sends are under way; poll the results, then go on";
                Failure::new(fastsock_status::BUSY, text)
            })?;
            let tell = move |result| pending.tell(result);
            entered.core.send_then(&id, payload, tell);
            fastsock_sent::PENDING
        }
    };
    // SAFETY: by contract it is NULL or can be written.
    unsafe { write_if_wanted(sent, answer) };
    Ok(())
}

/// The answer of a device to a call; free it with fastsock_answer_free.
#[derive_ReprC]
#[repr(opaque)]
#[derive(Debug)]
pub struct fastsock_answer {
    payload: Payload,
}

/// Sends a message to a device, here or on another gateway, and waits for its answer: the next message of the device that `matcher`
/// accepts. It is JSON, NUL-terminated: {"pointer":"/id","value":7} for the message that has this value at this JSON pointer
/// (RFC 6901; the types count), or {"ocpp":true} for the CALLRESULT or CALLERROR of the OCPP CALL in `data`. An answer is an uplink
/// all the same. `timeout_ms`: 1 to 600000; 0: FASTSOCK_CALL_TIMEOUT.
///
/// Blocks until the answer, at most for the time-out and some 4 s when another gateway has the device; not allowed in a hook (HOOK).
/// Nothing was sent: NOT_CONNECTED when no gateway has the device; BUSY when as many calls wait as may, or the device has an OCPP
/// call to answer first; OUTBOX_FULL; TOO_LARGE over 16 MiB; ARGUMENT; STOPPED. The device may have the message: UNANSWERED when it
/// does not answer in time, or its session ends; BROKER when Redis does not answer.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_call(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    kind: u32,
    data: *const c_void,
    data_len: usize,
    matcher: *const c_char,
    timeout_ms: u64,
    answer: *mut *mut fastsock_answer,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    entered.bridge.refuse_in_hook("fastsock_bridge_call")?;
    if answer.is_null() {
        return Err(Failure::null("answer"));
    }
    // SAFETY: by contract.
    let (id, payload, matcher) = unsafe {
        (
            text::client_id(client_id, client_id_len)?,
            text::payload(kind, data, data_len)?,
            CallMatch::from_json(text::utf8(matcher, "matcher")?)?,
        )
    };
    let timeout = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms));
    let payload = entered.core.call(&id, payload, &matcher, timeout)?;
    let given = Box::into_raw(Box::new(fastsock_answer { payload }));
    // SAFETY: not NULL, and by contract it can be written.
    unsafe { answer.write(given) };
    Ok(())
}

/// What the device answered, until the answer is freed. `kind` may be NULL.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_answer_data(
    answer: Option<&fastsock_answer>,
    data: *mut fastsock_str,
    kind: *mut fastsock_kind,
) -> fastsock_status {
    let answer = answer.ok_or_else(|| Failure::null("answer"))?;
    if data.is_null() {
        return Err(Failure::null("data"));
    }
    // SAFETY: by contract each can be written.
    unsafe {
        data.write(fastsock_str::of(answer.payload.as_bytes()));
        if !kind.is_null() {
            kind.write(match answer.payload.is_text() {
                true => fastsock_kind::TEXT,
                false => fastsock_kind::BINARY,
            });
        }
    }
    Ok(())
}

/// Frees an answer. NULL is nothing to free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_answer_free(answer: *mut fastsock_answer) -> fastsock_status {
    if !answer.is_null() {
        // SAFETY: by contract it came from fastsock_bridge_call.
        drop(unsafe { Box::from_raw(answer) });
    }
    Ok(())
}

/// How a message is to be kept. Set `struct_size` to sizeof(fastsock_keep_options) and the rest to zero, then what you need.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_keep_options {
    /// sizeof(fastsock_keep_options) in your build.
    pub struct_size: usize,
    /// A name for the message, of at most 128 bytes; of two messages of one name within the window the mailbox keeps the first.
    /// NULL: none.
    pub id: *const c_char,
    /// Its length in bytes.
    pub id_len: usize,
    /// Milliseconds after which the message is of no use. 0: as FASTSOCK_MAILBOX_AGE says.
    pub ttl_ms: u64,
}

/// Puts a message into the mailbox of a device, which may be away; the gateway that has the device sends it, at least once.
/// `options` may be NULL. `sent` says where the device is (FASTSOCK_SENT_KEPT when it is away); `message_id` is the id of the
/// message, to be freed with fastsock_string_free; `repeated` is 1 when the mailbox had a message of this id and has not kept
/// this one again. Each of the three may be NULL. Blocks while it asks Redis, for at most some 2 s. CONFIG without a
/// mailbox, TOO_LARGE over 16 MiB, ARGUMENT, BROKER, STOPPED.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_send_kept(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    kind: u32,
    data: *const c_void,
    data_len: usize,
    options: *const fastsock_keep_options,
    sent: *mut fastsock_sent,
    message_id: *mut *mut c_char,
    repeated: *mut u32,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (id, payload, options) = unsafe {
        (
            text::client_id(client_id, client_id_len)?,
            text::payload(kind, data, data_len)?,
            keep_options(options)?,
        )
    };
    let kept = entered.core.send_kept(&id, payload, options)?;
    // SAFETY: by contract each is NULL or can be written.
    unsafe {
        if !sent.is_null() {
            sent.write(kept.sent.into());
        }
        if !message_id.is_null() {
            message_id.write(text::give(kept.id)?);
        }
        if !repeated.is_null() {
            repeated.write(kept.is_repeated.into());
        }
    }
    Ok(())
}

/// # Safety
/// `options` is NULL, or as fastsock_keep_options says.
unsafe fn keep_options(options: *const fastsock_keep_options) -> Result<KeepOptions, Failure> {
    let mut kept = KeepOptions::default();
    if options.is_null() {
        return Ok(kept);
    }
    // SAFETY: by contract; every field is a number or a pointer that may be NULL.
    let (options, is_newer) = unsafe { read_sized(options, size_of::<usize>(), "options") }?;
    unknown_field(is_newer, "options")?;
    if !options.id.is_null() {
        // SAFETY: by contract.
        let id = unsafe { text::without_nul(options.id, options.id_len, "options.id")? }; // it comes back as a string of C
        kept.id = Some(id.to_owned());
    }
    kept.ttl = (options.ttl_ms > 0).then(|| Duration::from_millis(options.ttl_ms));
    Ok(kept)
}

/// What the mailbox of a device holds: how many messages, how many bytes it takes, and the Unix milliseconds since when the oldest
/// waits (0 when it is empty). Each of the three may be NULL. Blocks and fails as fastsock_bridge_send_kept.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_mailbox(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    messages: *mut u64,
    bytes: *mut u64,
    oldest_ms: *mut u64,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let id = unsafe { text::client_id(client_id, client_id_len)? };
    let state = entered.core.mailbox(&id)?;
    for (out, value) in [
        (messages, state.messages),
        (bytes, state.bytes),
        (oldest_ms, state.oldest.map_or(0, text::unix_ms)),
    ] {
        // SAFETY: by contract it is NULL or can be written.
        unsafe { write_if_wanted(out, value) };
    }
    Ok(())
}

/// Empties the mailbox of a device. `removed`, which may be NULL, is how many messages it held. Blocks and fails as
/// fastsock_bridge_send_kept.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_clear_mailbox(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    removed: *mut u64,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let id = unsafe { text::client_id(client_id, client_id_len)? };
    let held = entered.core.clear_mailbox(&id)?;
    // SAFETY: by contract it is NULL or can be written.
    unsafe { write_if_wanted(removed, held) };
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
            close_reason(code, reason, reason_len)?,
        )
    };
    if entered.core.disconnect(&id, reason) {
        return Ok(());
    }
    Err(Failure::new(
        fastsock_status::NOT_CONNECTED,
        format!("{id} is not connected here"),
    ))
}

/// Closes the session of a device wherever it is: here at once, as fastsock_bridge_disconnect does, or at another gateway of the same
/// Redis, which is asked to. `code` and `reason` as there. `sent`, which may be NULL, says where the device was: HERE or ELSEWHERE.
/// Blocks only while it asks Redis about a device that is not here. ARGUMENT, NOT_CONNECTED when no gateway has it, BROKER.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_kick(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    code: u32,
    reason: *const c_char,
    reason_len: usize,
    sent: *mut fastsock_sent,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (id, reason) = unsafe {
        (
            text::client_id(client_id, client_id_len)?,
            close_reason(code, reason, reason_len)?,
        )
    };
    let was = match entered.core.kick(&id, reason)? {
        Presence::Here => fastsock_sent::HERE,
        Presence::Elsewhere => fastsock_sent::ELSEWHERE,
        Presence::Offline => {
            return Err(Failure::new(
                fastsock_status::NOT_CONNECTED,
                format!("{id} is not connected to any gateway"),
            ));
        }
    };
    // SAFETY: by contract it is NULL or can be written.
    unsafe { write_if_wanted(sent, was) };
    Ok(())
}

/// Says for each of `count` devices, in the same order, whether it is connected to this gateway or another one of its Redis: 1 or 0
/// in `online`, which has room for `count`. Blocks only while it asks Redis about those that are not here, 512 at once. ARGUMENT,
/// BROKER.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_are_online(
    bridge: Option<&fastsock_bridge>,
    client_ids: *const fastsock_str,
    count: usize,
    online: *mut u8,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    if count == 0 {
        return Ok(());
    }
    if client_ids.is_null() {
        return Err(Failure::null("client_ids"));
    }
    if online.is_null() {
        return Err(Failure::null("online"));
    }
    // SAFETY: by contract.
    let texts = unsafe { std::slice::from_raw_parts(client_ids, count) };
    let mut ids = Vec::with_capacity(count);
    for id in texts {
        // SAFETY: by contract.
        ids.push(unsafe { text::client_id(id.ptr, id.len)? });
    }
    for (at, is_online) in entered.core.are_online(&ids)?.into_iter().enumerate() {
        // SAFETY: by contract there is room for as many as there are ids.
        unsafe { online.add(at).write(is_online.into()) };
    }
    Ok(())
}

/// Gives the gateways that share a Redis as JSON, as `/api/v1/nodes` of the admin listener has them. Blocks while it asks Redis. BROKER.
/// Free it with fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_nodes_json(
    bridge: Option<&fastsock_bridge>,
    json: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(json, "json")? };
    let nodes = serde_json::json!({ "nodes": entered.core.nodes()? });
    out.put(text::give(nodes.to_string().into_bytes())?);
    Ok(())
}

/// # Safety
/// `reason` is NULL or points to `reason_len` bytes.
unsafe fn close_reason(
    code: u32,
    reason: *const c_char,
    reason_len: usize,
) -> Result<CloseReason, Failure> {
    // SAFETY: by contract.
    let reason = unsafe { text::reason(reason, reason_len, CloseReason::MAX_BYTES)? };
    let reason = match u16::try_from(code) {
        Ok(0) if reason.is_empty() => Some(CloseReason::Kicked),
        Ok(0) => return Err(Failure::argument("reason: it needs a code other than 0")),
        Ok(code) => CloseReason::custom(code, reason),
        Err(_) => None,
    };
    reason.ok_or_else(|| Failure::argument(format!("code: {code} is no close code for hosts")))
}
