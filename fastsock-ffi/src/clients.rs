//! `fastsock_clients`: who is connected, as a list to walk through.

use std::{ffi::c_char, mem::offset_of};

use fastsock::Client;
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;

use crate::{
    bridge::fastsock_bridge,
    guard::c_abi,
    sized::{whole, write_sized},
    status::{Failure, fastsock_status},
    text::{self, fastsock_str, unix_ms},
};

/// A list of devices, as it was at one moment.
#[derive_ReprC]
#[repr(opaque)]
#[derive(Debug)]
pub struct fastsock_clients {
    rows: std::vec::IntoIter<Client>,
    current: Option<(Client, String)>,
}

/// One connected device. What it points to is valid until the next call for the same list.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_client {
    /// Its name.
    pub client_id: fastsock_str,
    /// Address and port it connects from; the address alone where a proxy sent no port.
    pub remote_addr: fastsock_str,
    /// Its session.
    pub session_id: u64,
    /// When it connected, in milliseconds since 1970.
    pub connected_ms: u64,
    /// When it last sent a message, in milliseconds since 1970; the connect counts.
    pub last_seen_ms: u64,
    /// The epoch of its session, higher than those of the device's sessions before it, over all gateways that share a Redis and over restarts.
    pub epoch: u64,
}

/// Lists the devices that are here now, in no order. Free the list with fastsock_clients_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_clients(
    bridge: Option<&fastsock_bridge>,
    clients: *mut *mut fastsock_clients,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(clients, "clients") }?;
    out.put(boxed(entered.core.clients()));
    Ok(())
}

/// Gives the next device; `client_size` is sizeof(fastsock_client) in your build. END after the last.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_clients_next(
    clients: Option<&mut fastsock_clients>,
    client: *mut fastsock_client,
    client_size: usize,
) -> fastsock_status {
    let clients = clients.ok_or_else(|| Failure::null("clients"))?;
    if client.is_null() {
        return Err(Failure::null("client"));
    }
    whole(client_size, offset_of!(fastsock_client, epoch), "client")?; // the first version ends there
    let next = clients.rows.next().ok_or_else(Failure::end)?;
    let addr = next.remote_addr.to_string();
    let (next, addr) = clients.current.insert((next, addr));
    let view = fastsock_client {
        client_id: fastsock_str::of(next.client_id.as_str()),
        remote_addr: fastsock_str::of(addr),
        session_id: next.session_id.0,
        connected_ms: unix_ms(next.connected_at),
        last_seen_ms: unix_ms(next.last_seen),
        epoch: next.epoch,
    };
    // SAFETY: by contract `client_size` bytes can be written.
    unsafe { write_sized(&view, client, client_size) };
    Ok(())
}

/// Gives the number of devices that are left in the list.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_clients_len(
    clients: Option<&fastsock_clients>,
    len: *mut usize,
) -> fastsock_status {
    let clients = clients.ok_or_else(|| Failure::null("clients"))?;
    // SAFETY: by contract.
    let out = unsafe { text::out(len, "len") }?;
    out.put(clients.rows.len());
    Ok(())
}

/// Frees a list. NULL is nothing to free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_clients_free(clients: *mut fastsock_clients) -> fastsock_status {
    if !clients.is_null() {
        // SAFETY: by contract it came from `boxed` and is not used again.
        drop(unsafe { Box::from_raw(clients) });
    }
    Ok(())
}

/// Gives all that is known of one device, connected or not, as JSON, as `/api/v1/clients/<id>` of the admin listener has it. Blocks only
/// while it asks Redis about a device that is not here. Free it with fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_device_json(
    bridge: Option<&fastsock_bridge>,
    client_id: *const c_char,
    client_id_len: usize,
    json: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (id, out) = unsafe {
        (
            text::client_id(client_id, client_id_len)?,
            text::out(json, "json")?,
        )
    };
    let device = serde_json::to_vec(&entered.core.device(&id))
        .map_err(|e| Failure::new(fastsock_status::OTHER, e.to_string()))?;
    out.put(text::give(device)?);
    Ok(())
}

fn boxed(clients: Vec<Client>) -> *mut fastsock_clients {
    Box::into_raw(Box::new(fastsock_clients {
        rows: clients.into_iter(),
        current: None,
    }))
}
