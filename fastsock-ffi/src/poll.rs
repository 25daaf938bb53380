//! Events for a host with a loop of its own: the descriptor, and the calls that drain the queue.

use std::{mem::offset_of, sync::TryLockError, time::Duration};

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
#[must_use]
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
#[must_use]
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
    whole(event_size, offset_of!(fastsock_event, epoch), "events")?; // the first version ends there
    let mut batch = match bridge.batch.try_lock() {
        Ok(batch) => batch,
        Err(TryLockError::Poisoned(held)) => held.into_inner(),
        Err(TryLockError::WouldBlock) => {
            return Err(Failure::argument("another thread is polling this bridge"));
        }
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

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, ptr, sync::Arc};

    use fastsock::{
        ClientId, Config, Hooks, Payload, SessionId, Ticket, Uplink, blocking,
        events::{EventOptions, EventQueue, Uplinks},
    };

    use super::*;
    use crate::userdata::Userdata;

    /// From the hook to the struct that C reads, through fastsock_bridge_poll, beside what no queue with a descriptor can do without: one
    /// write and one read of an eventfd for each batch. Both in turns, so that what else the machine does meets both.
    #[test]
    #[ignore = "a benchmark: make ffi-bench"]
    fn cost_of_an_event() {
        let uplink = Uplink::new(
            ClientId::new("dev1").unwrap(),
            SessionId(1),
            1,
            Payload::text("hello"),
        );
        let options = EventOptions::default().uplinks(Uplinks::Take);
        let (hooks, queue) = EventQueue::new(options).unwrap();
        let bridge = fastsock_bridge::new(queue, true, None, Arc::new(Userdata::none()));
        let config = Config::default().websocket_port(0u16);
        let core = blocking::Bridge::builder(config.listen_addr(Some(Ipv4Addr::LOCALHOST.into())));
        let core = core.start().unwrap();
        bridge.core.get_or_init(|| core);
        let mut events = vec![unsafe { std::mem::zeroed::<fastsock_event>() }; 64];
        let floor = Floor::new();
        for burst in [1, 3, 20] {
            let (mut ours, mut least) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(each_of(burst, || {
                    for ticket in 1..=burst {
                        hooks.on_uplink(&uplink, Ticket(ticket));
                    }
                    let (mut count, at) = (0, events.as_mut_ptr());
                    // SAFETY: as many structs as are claimed, and a place for one number.
                    let status = unsafe {
                        fastsock_bridge_poll(
                            Some(&bridge),
                            at,
                            size_of::<fastsock_event>(),
                            64,
                            &mut count,
                        )
                    };
                    assert!(status == fastsock_status::OK && count as u64 == burst);
                }));
                least.push(each_of(burst, || floor.once()));
            }
            let (ours, least) = (median(ours), median(least));
            let ratio = ours / least;
            println!(
                "C event queue, {burst:2} a poll: {ours:4.0} ns an event; one write and one read of an eventfd: {least:4.0} ns an event; ratio {ratio:.2}{}",
                if burst < 20 { " (at most 1.5)" } else { "" }
            );
            assert!(cfg!(debug_assertions) || burst == 20 || ratio <= 1.5);
        }
    }

    /// An eventfd of its own.
    struct Floor(i32);

    impl Floor {
        fn new() -> Self {
            // SAFETY: two numbers.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            assert!(fd >= 0);
            Self(fd)
        }

        fn once(&self) {
            let mut number = 1u64;
            let at = ptr::from_mut(&mut number).cast::<libc::c_void>();
            // SAFETY: eight bytes to read and to write.
            let moved = unsafe { libc::write(self.0, at, 8) + libc::read(self.0, at, 8) };
            assert_eq!(moved, 16);
        }
    }

    /// Nanoseconds of this thread for each of the `burst` events that one run of `batch` handles.
    fn each_of(burst: u64, mut batch: impl FnMut()) -> f64 {
        let begin = thread_time();
        (0..EVENTS / burst).for_each(|_| batch());
        (thread_time() - begin) as f64 / (EVENTS / burst * burst) as f64
    }

    /// Processor time of this thread in nanoseconds: wall time would count what else the machine does.
    fn thread_time() -> u64 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the struct lives on this stack.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    fn median(mut numbers: Vec<f64>) -> f64 {
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 2]
    }

    const EVENTS: u64 = 60_000;
    const ROUNDS: usize = 15;
}
