//! `fastsock_options`: the host's callbacks, and how it wants to be told.

use std::{
    ffi::c_void,
    mem::{offset_of, size_of},
    ptr,
};

use fastsock::events::{EventOptions, Uplinks};
use safer_ffi::derive_ReprC;

use crate::{
    bridge::fastsock_bridge,
    event::fastsock_event,
    log::{fastsock_level, fastsock_log_hook},
    sized::{read_sized, unknown_field},
    status::Failure,
    text::checked,
    userdata::Userdata,
};

/// What a hook returns. For notices (connect, disconnect, uplink lost, state, sent) only FAILED means something.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_verdict {
    /// If the hook has not resolved the ticket: the settings decide who may connect, and uplinks go to the backend.
    DEFAULT = 0,
    /// Another call resolves the ticket, from any thread, within the setting hook_timeout.
    LATER = 1,
    /// The hook failed. The device gets 503; the uplink is lost with the reason hook_failed. The bridge counts and logs it.
    FAILED = 2,
}

/// How events reach the host.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_delivery {
    /// The bridge calls the hooks, one at a time, on a thread made for that.
    HOOKS = 0,
    /// Events wait in a queue with a limit, for fastsock_bridge_event_fd and fastsock_bridge_poll.
    EVENTS = 1,
}

/// With EVENTS: what happens to the messages of devices.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_uplinks {
    /// The bridge forwards them; there are no UPLINK events.
    FORWARD = 0,
    /// Each waits until you resolve its ticket.
    DECIDE = 1,
    /// The host takes them: the bridge forwards nothing, and there is no ticket. When the queue is full, devices wait; nothing is lost.
    TAKE = 2,
}

/// A hook: one of the callbacks in fastsock_options. Returns a fastsock_verdict; any other number counts as FAILED.
/// The bridge calls hooks on its hook thread, one at a time. A hook may call any function of the library but
/// fastsock_bridge_stop and fastsock_bridge_free of its own bridge, which answer HOOK.
pub type fastsock_hook = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        bridge: *const fastsock_bridge,
        event: *const fastsock_event,
    ) -> u32,
>;

/// How to start a bridge. Set all to zero, then struct_size, then what you want:
/// `fastsock_options options = {0}; options.struct_size = sizeof options;`
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_options {
    /// sizeof(fastsock_options) in your build: the library takes fields that an older header does not have as zero.
    pub struct_size: usize,
    /// The first argument of each callback.
    pub userdata: *mut c_void,
    /// Called with the userdata exactly once, when no callback can run any more; also when the start fails. That is in
    /// fastsock_bridge_free, or after it when a hook is still running. On any thread. May be NULL.
    pub userdata_free: Option<unsafe extern "C" fn(userdata: *mut c_void)>,
    /// A fastsock_delivery. With EVENTS the hooks below must be NULL; log works with both.
    pub delivery: u32,
    /// Threads of the bridge, 1 to 64; 0 means 2. The thread of the hooks is one more.
    pub workers: u32,
    /// Decides who may connect. NULL: the settings decide.
    pub authenticate: fastsock_hook,
    /// A device connected: from now on you can send to it.
    pub on_connect: fastsock_hook,
    /// Decides what happens to a message. NULL: the bridge forwards it.
    pub on_uplink: fastsock_hook,
    /// A session ended. Called exactly once per on_connect.
    pub on_disconnect: fastsock_hook,
    /// The bridge gave up an uplink.
    pub on_uplink_lost: fastsock_hook,
    /// The bridge or its broker link changed state.
    pub on_state: fastsock_hook,
    /// Gets the log. NULL: no log.
    pub log: fastsock_log_hook,
    /// The lowest fastsock_level that the bridge logs; 0 means INFO.
    pub log_level: u32,
    /// With EVENTS: 1 lets the host decide who may connect; 0 the settings. Must be 0 with HOOKS.
    pub event_authenticate: u32,
    /// With EVENTS: a fastsock_uplinks. Must be 0 with HOOKS.
    pub event_uplinks: u32,
    /// 0.
    pub reserved: u32,
    /// Most taken uplinks that the queue holds for a host that falls behind, most notices, and most sends without a drained result; 0
    /// means 8192. Beyond that, the queue drops the oldest notice and counts it in fastsock_stats.events_dropped. Decisions always fit.
    pub event_capacity: usize,
    /// Most bytes of taken uplinks that the queue holds, and of messages whose send has no result yet; 0 means 16 MiB.
    pub event_capacity_bytes: usize,
    /// The result of a fastsock_bridge_send_nowait: a notice. NULL: nobody is told.
    pub on_sent: fastsock_hook,
    /// Kept messages of a device are lost: a notice.
    pub on_mailbox_lost: fastsock_hook,
}

impl fastsock_options {
    const NONE: Self = Self {
        struct_size: size_of::<Self>(),
        userdata: ptr::null_mut(),
        userdata_free: None,
        delivery: fastsock_delivery::HOOKS as u32,
        workers: 0,
        authenticate: None,
        on_connect: None,
        on_uplink: None,
        on_disconnect: None,
        on_uplink_lost: None,
        on_state: None,
        log: None,
        log_level: 0,
        event_authenticate: 0,
        event_uplinks: fastsock_uplinks::FORWARD as u32,
        reserved: 0,
        event_capacity: 0,
        event_capacity_bytes: 0,
        on_sent: None,
        on_mailbox_lost: None,
    };

    /// Copies what the host gave, whatever the age of its header, and takes charge of its userdata first of all.
    ///
    /// # Safety
    /// `options` is NULL or points to a struct of `struct_size` bytes, of this or another version.
    pub(crate) unsafe fn read(options: *const Self) -> Result<(Self, Userdata), Failure> {
        if options.is_null() {
            return Ok((Self::NONE, Userdata::none()));
        }
        // SAFETY: by contract; every field is a number or a pointer that may be NULL.
        let (copy, is_newer) = unsafe { read_sized(options, LEAST_BYTES, "options") }?;
        let userdata = Userdata {
            pointer: copy.userdata,
            free: copy.userdata_free,
        };
        unknown_field(is_newer, "options")?;
        copy.check()?;
        Ok((copy, userdata))
    }

    fn check(&self) -> Result<(), Failure> {
        let bad = |field: &str, number: u32, what: &str| {
            let text = format!("options.{field}: {number} is no {what}");
            Err(Failure::argument(text))
        };
        if checked::<fastsock_delivery>(self.delivery).is_none() {
            return bad("delivery", self.delivery, "fastsock_delivery");
        }
        if checked::<fastsock_uplinks>(self.event_uplinks).is_none() {
            return bad("event_uplinks", self.event_uplinks, "fastsock_uplinks");
        }
        if self.log_level != 0 && checked::<fastsock_level>(self.log_level).is_none() {
            return bad("log_level", self.log_level, "fastsock_level");
        }
        if self.event_authenticate > 1 {
            return bad("event_authenticate", self.event_authenticate, "0 or 1");
        }
        if self.reserved != 0 {
            return bad("reserved", self.reserved, "0");
        }
        if self.workers > 64 {
            return bad("workers", self.workers, "number from 0 to 64");
        }
        if !self.is_polled() && (self.event_authenticate != 0 || self.event_uplinks != 0) {
            return Err(Failure::argument(
                "options: event_authenticate and event_uplinks need FASTSOCK_DELIVERY_EVENTS; with hooks, set authenticate and on_uplink",
            ));
        }
        if self.is_polled() && self.hooks().iter().any(|hook| hook.is_some()) {
            return Err(Failure::argument(
                "options: hooks are not called with FASTSOCK_DELIVERY_EVENTS",
            ));
        }
        Ok(())
    }

    /// The hooks by their fastsock_event_type, which counts from 1.
    pub(crate) fn hooks(&self) -> [fastsock_hook; HOOKS] {
        [
            self.authenticate,
            self.on_connect,
            self.on_uplink,
            self.on_disconnect,
            self.on_uplink_lost,
            self.on_state,
            self.on_sent,
            self.on_mailbox_lost,
        ]
    }

    /// Whether the host polls.
    pub(crate) fn is_polled(&self) -> bool {
        self.delivery == fastsock_delivery::EVENTS as u32
    }

    pub(crate) fn level(&self) -> fastsock_level {
        checked(self.log_level).unwrap_or(fastsock_level::INFO)
    }

    /// What the queue between the bridge and the host must take in.
    pub(crate) fn events(&self, decision_time: std::time::Duration) -> EventOptions {
        let mut events = EventOptions::default().decision_time(decision_time);
        if self.event_capacity > 0 {
            events.capacity = self.event_capacity;
        }
        if self.event_capacity_bytes > 0 {
            events.capacity_bytes = self.event_capacity_bytes;
        }
        if self.is_polled() {
            events.authenticate = self.event_authenticate == 1;
            events.uplinks = match checked(self.event_uplinks) {
                Some(fastsock_uplinks::DECIDE) => Uplinks::Decide,
                Some(fastsock_uplinks::TAKE) => Uplinks::Take,
                Some(fastsock_uplinks::FORWARD) | None => Uplinks::Off,
            };
            return events;
        }
        events.authenticate = self.authenticate.is_some();
        if self.on_uplink.is_some() {
            events.uplinks = Uplinks::Decide;
        }
        let notices = [
            self.on_connect,
            self.on_disconnect,
            self.on_uplink_lost,
            self.on_state,
            self.on_mailbox_lost,
        ];
        events.notices = notices.iter().any(|hook| hook.is_some());
        events
    }
}

/// How many hooks there are, and types of events.
pub(crate) const HOOKS: usize = 8;
/// The struct_size, the userdata and how to free it: there from the first version on, so that it is always freed.
const LEAST_BYTES: usize = offset_of!(fastsock_options, delivery);
