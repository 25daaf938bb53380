//! One message for many devices: groups and broadcasts.

use std::ffi::{c_char, c_void};

use macro_rules_attribute::apply;

use crate::{
    bridge::fastsock_bridge,
    event::fastsock_sent,
    guard::c_abi,
    sized::write_if_wanted,
    status::{Failure, fastsock_status},
    text,
};

/// Sends one message to all members of a group, on all gateways. `kind` is a fastsock_kind. `gateways`, which may be NULL, is how many
/// gateways heard it: those that have members (without Redis: 1 if there are any). Blocks while it asks Redis, for at most some 2 s.
/// ARGUMENT for what is no name of a group (1 to 256 bytes of UTF-8 without control characters), TOO_LARGE over 16 MiB, BROKER, CONFIG
/// when groups are off, STOPPED.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_send_group(
    bridge: Option<&fastsock_bridge>,
    group: *const c_char,
    group_len: usize,
    kind: u32,
    data: *const c_void,
    data_len: usize,
    gateways: *mut u64,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (group, payload) = unsafe {
        (
            name(group, group_len)?,
            text::payload(kind, data, data_len)?,
        )
    };
    let heard = entered.core.send_group(group, payload)?;
    // SAFETY: by contract it is NULL or can be written.
    unsafe { write_if_wanted(gateways, heard) };
    Ok(())
}

/// Sends one message to every device, on all gateways, as fastsock_bridge_send_group.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_broadcast(
    bridge: Option<&fastsock_bridge>,
    kind: u32,
    data: *const c_void,
    data_len: usize,
    gateways: *mut u64,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let payload = unsafe { text::payload(kind, data, data_len)? };
    let heard = entered.core.broadcast(payload)?;
    // SAFETY: by contract it is NULL or can be written.
    unsafe { write_if_wanted(gateways, heard) };
    Ok(())
}

/// Puts a device into a group until its session ends, here or on the gateway that has it. `sent`, which may be NULL: HERE when it is
/// done, ELSEWHERE when the other gateway was told, OFFLINE when nobody has the device. Blocks and fails as fastsock_bridge_send_group,
/// and with ARGUMENT when the device is here and in as many groups as it may be in.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_join_group(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    group: *const c_char,
    group_len: usize,
    sent: *mut fastsock_sent,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (id, group) = unsafe {
        (
            text::client_id(client_id, client_id_len)?,
            name(group, group_len)?,
        )
    };
    let changed = entered.core.join_group(&id, group)?.into();
    // SAFETY: by contract it is NULL or can be written.
    unsafe { write_if_wanted(sent, changed) };
    Ok(())
}

/// Takes a device out of a group, as fastsock_bridge_join_group; no error when it was not in it.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_leave_group(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    group: *const c_char,
    group_len: usize,
    sent: *mut fastsock_sent,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (id, group) = unsafe {
        (
            text::client_id(client_id, client_id_len)?,
            name(group, group_len)?,
        )
    };
    let changed = entered.core.leave_group(&id, group)?.into();
    // SAFETY: by contract it is NULL or can be written.
    unsafe { write_if_wanted(sent, changed) };
    Ok(())
}

/// Gives the groups that have members on this bridge as JSON, by name: {"groups":[{"name":"news","members":2}]}. Free it with
/// fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_groups_json(
    bridge: Option<&fastsock_bridge>,
    json: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(json, "json")? };
    let groups = entered.core.groups();
    let rows: Vec<_> = groups
        .iter()
        .map(|group| serde_json::json!({ "name": group.name, "members": group.members }))
        .collect();
    let groups = serde_json::json!({ "groups": rows });
    out.put(text::give(groups.to_string().into_bytes())?);
    Ok(())
}

/// # Safety
/// `group` points to so many bytes.
unsafe fn name<'a>(group: *const c_char, len: usize) -> Result<&'a str, Failure> {
    // SAFETY: by contract.
    let bytes = unsafe { text::bytes(group.cast(), len, "group")? };
    std::str::from_utf8(bytes).map_err(|_| Failure::argument("group is not UTF-8"))
}
