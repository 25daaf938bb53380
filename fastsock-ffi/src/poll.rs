//! Events for a host with a loop of its own: the descriptor, and the calls that drain the queue.

use std::{mem::size_of, time::Duration};

use macro_rules_attribute::apply;

use crate::{
    bridge::fastsock_bridge,
    event::fastsock_event,
    guard::c_abi,
    sized::{whole, write_sized},
    status::{Failure, fastsock_status},
    text,
};

/// With EVENTS: gives the descriptor that is readable while there are events. For poll, select or epoll (level-triggered);
/// never read or close it. Valid until you free the bridge.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_event_fd(
    bridge: Option<&fastsock_bridge>,
    fd: *mut i32,
) -> fastsock_status {
    use std::os::fd::AsRawFd;
    let entered = fastsock_bridge::enter(bridge)?;
    entered.bridge.check_polled()?;
    // SAFETY: by contract.
    let out = unsafe { text::out(fd, "fd") }?;
    out.put(entered.bridge.queue.fd().as_raw_fd());
    Ok(())
}

/// With EVENTS: moves up to `max` events into an array, oldest first; `count` is their number. Never blocks: 0 events is not a
/// failure. `event_size` is sizeof(fastsock_event) in your build. What the events point to is valid until the next
/// poll or free of this bridge. One thread at a time; after a stop it gives what is left.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_poll(
    bridge: Option<&fastsock_bridge>,
    events: *mut fastsock_event,
    event_size: usize,
    max: usize,
    count: *mut usize,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    let bridge = entered.bridge;
    bridge.check_polled()?;
    // SAFETY: by contract.
    let out = unsafe { text::out(count, "count") }?;
    if events.is_null() && max > 0 {
        return Err(Failure::null("events"));
    }
    whole(event_size, size_of::<fastsock_event>(), "events")?;
    let Some(mut batch) = bridge.batch.try_lock() else {
        return Err(Failure::argument("another thread is polling this bridge"));
    };
    let taken = batch.fill(&bridge.queue, max);
    for index in 0..taken {
        let view = batch.view(index);
        // SAFETY: by contract there is room for `max` structs of `event_size` bytes.
        unsafe { write_sized(&view, events.byte_add(index * event_size), event_size) };
    }
    out.put(taken);
    Ok(())
}

/// With EVENTS, for a host without a loop: blocks until there are events, or until a call of fastsock_bridge_wake; OK at once
/// when the bridge has stopped. TIMEOUT after `timeout_ms`.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_wait(
    bridge: Option<&fastsock_bridge>,
    timeout_ms: u32,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    entered.bridge.check_polled()?;
    let queue = &entered.bridge.queue;
    if queue.is_closed() || queue.wait(Duration::from_millis(timeout_ms.into())) {
        return Ok(());
    }
    Err(Failure::new(
        fastsock_status::TIMEOUT,
        "no event came in time",
    ))
}

/// With EVENTS: ends fastsock_bridge_wait and makes the descriptor readable, until the next poll that leaves nothing.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_wake(bridge: Option<&fastsock_bridge>) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    entered.bridge.check_polled()?;
    entered.bridge.queue.wake();
    Ok(())
}
