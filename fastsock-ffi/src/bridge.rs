//! `fastsock_bridge`: start, stop, and the verbs.

use std::{
    ffi::{c_char, c_void},
    mem::{offset_of, size_of},
    ptr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use fastsock::{
    Admission, Answer, CloseReason, Leftover, Refusal, Sent, Ticket, UplinkAction, blocking,
    events::EventQueue,
};
use macro_rules_attribute::apply;
use parking_lot::Mutex;
use rustix::process::{Pid, getpid};
use safer_ffi::derive_ReprC;
use tracing::{Dispatch, dispatcher::DefaultGuard};

use crate::{
    clients::{self, fastsock_clients},
    config::fastsock_config,
    dead_letters::{self, fastsock_dead_letters},
    event::{Batch, fastsock_event, fastsock_state},
    guard::{Inside, c_abi, inside},
    hooks::{self, Gate},
    log::{self, Log},
    options::{Userdata, fastsock_options},
    signals::Blocked,
    sized::{whole, write_sized},
    stats::fastsock_stats,
    status::{Failure, fastsock_status},
    text,
};

/// A running bridge. Any thread may call its functions, several at once; only free must be the last.
#[derive_ReprC]
#[repr(opaque)]
pub struct fastsock_bridge {
    core: OnceLock<blocking::Bridge>,
    pub(crate) queue: EventQueue,
    pub(crate) options: fastsock_options,
    /// What the last poll gave out.
    batch: Mutex<Batch>,
    pub(crate) gate: Gate,
    dispatcher: Mutex<Option<JoinHandle<()>>>,
    pub(crate) notices_failed: AtomicU64,
    log: Option<Dispatch>,
    pub(crate) userdata: Arc<Userdata>,
    process: Pid,
}

// SAFETY: the raw pointers are those of the host in `options`, which are only handed back to it (see `Userdata`);
// everything else is made for it.
unsafe impl Send for fastsock_bridge {}
// SAFETY: as above; what changes is behind locks.
unsafe impl Sync for fastsock_bridge {}

/// Where a sent message went.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_sent {
    /// Into the outbox of a session of this bridge.
    HERE = 1,
    /// Published; Redis says that another gateway holds the device.
    ELSEWHERE = 2,
    /// Nobody holds the device; the message is gone.
    OFFLINE = 3,
}

/// What a stop left behind. All zero when everything was handed over in time.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct fastsock_leftover {
    /// Sessions cut without waiting for their close handshake.
    pub sessions: u64,
    /// Uplinks not delivered: lost with the reason shutdown.
    pub uplinks: u64,
    /// Presence entries that Redis may still hold for a few seconds.
    pub presence: u64,
    /// Lifecycle events not delivered: lost with the reason shutdown.
    pub events: u64,
    /// Uplinks that a durable spool keeps for the next start; not a failure.
    pub spooled: u64,
}

/// Starts a bridge. Devices can connect when it returns, and hooks may have been called before; the broker may still be
/// connecting. The configuration is copied. `options` may be NULL: no hooks, no log. CONFIG, BIND and IO say more in
/// fastsock_last_error; on any failure nothing is left running, and the userdata is freed.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_start(
    config: Option<&fastsock_config>,
    options: *const fastsock_options,
    bridge: *mut *const fastsock_bridge,
) -> fastsock_status {
    // First, so that the userdata is freed whatever comes.
    // SAFETY: by contract.
    let (options, userdata) = unsafe { fastsock_options::read(options) }?;
    let config = config.ok_or_else(|| Failure::null("config"))?;
    // SAFETY: by contract.
    let out = unsafe { text::out(bridge, "bridge") }?;
    if inside() == Inside::Callback {
        return Err(fastsock_bridge::refused("start"));
    }
    out.put(Arc::into_raw(fastsock_bridge::start(
        config, options, userdata,
    )?));
    Ok(())
}

/// Stops: closes every device with 1001, delivers what was accepted, ends all threads; takes at most about
/// `deadline_ms`. Says in `left`, of `left_size` = sizeof(fastsock_leftover) bytes, what could not be handed over; NULL
/// when you do not want to know. After it has returned OK no hook runs or will run. TIMEOUT: the same, but for one hook
/// that is still running. Further calls wait for the same end. HOOK inside a hook: use fastsock_bridge_request_stop there.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_stop(
    bridge: Option<&fastsock_bridge>,
    deadline_ms: u32,
    left: *mut fastsock_leftover,
    left_size: usize,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    if !left.is_null() {
        whole(left_size, offset_of!(fastsock_leftover, events), "left")?;
    }
    let leftover = entered
        .bridge
        .stop(Duration::from_millis(deadline_ms.into()))?;
    if !left.is_null() {
        let leftover = fastsock_leftover::from(leftover);
        // SAFETY: by contract `left_size` bytes can be written.
        unsafe { write_sized(&leftover, left, left_size) };
    }
    Ok(())
}

/// Begins to stop without waiting; fastsock_bridge_stop then waits. Allowed inside a hook.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_request_stop(
    bridge: Option<&fastsock_bridge>,
) -> fastsock_status {
    fastsock_bridge::enter(bridge)?.core.request_stop();
    Ok(())
}

/// Reads the files of certificates again, for connections to come; sessions stay. Blocks while it reads. CONFIG, naming the setting and
/// the file, when one cannot be used; what was read before stays then.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_reload(
    bridge: Option<&fastsock_bridge>,
) -> fastsock_status {
    let _signals = Blocked::new(); // the thread that reads inherits it
    fastsock_bridge::enter(bridge)?.core.reload()?;
    Ok(())
}

/// Frees a bridge; stops it with a deadline of 0 if it was not stopped. No other call of this bridge may be running or
/// come later, but for those of a hook that is still running: the bridge lives until that returns. NULL is nothing to free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_free(bridge: *const fastsock_bridge) -> fastsock_status {
    if bridge.is_null() {
        return Ok(());
    }
    // SAFETY: by contract it came from `fastsock_bridge_start` and was not freed.
    let entered = fastsock_bridge::enter(unsafe { bridge.as_ref() })?;
    match entered.bridge.stop(Duration::ZERO) {
        // A hook is still running: its thread holds the bridge too.
        Err(failure) if failure.status != fastsock_status::TIMEOUT => return Err(failure),
        _ => {}
    }
    drop(entered);
    // SAFETY: as above; this takes back the reference that the host held.
    drop(unsafe { Arc::from_raw(bridge) });
    Ok(())
}

/// Sends a message to a device, here or on another gateway. `kind` is a fastsock_kind. Blocks only while Redis is asked
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

/// Closes the session of a device that is here. `code` is 1000 or 3000 to 4999 with a reason of at most 123 bytes; 0 is
/// 4510 "kicked". NOT_CONNECTED when it is not here.
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
            text::bytes(reason.cast(), reason_len, "reason")?,
        )
    };
    let reason = match u16::try_from(code) {
        Ok(0) => CloseReason::Kicked,
        Ok(code @ (1000 | 3000..=4999)) => {
            CloseReason::Custom(code, String::from_utf8_lossy(reason).into_owned())
        }
        _ => {
            return Err(Failure::argument(format!(
                "code: {code} is no close code for hosts"
            )));
        }
    };
    if entered.core.disconnect(&id, reason) {
        return Ok(());
    }
    Err(Failure::new(
        fastsock_status::NOT_CONNECTED,
        format!("{id} is not connected here"),
    ))
}

/// Lists the devices that are here now, in no order. Freed with fastsock_clients_free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_clients(
    bridge: Option<&fastsock_bridge>,
    clients: *mut *mut fastsock_clients,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(clients, "clients") }?;
    out.put(clients::boxed(entered.core.clients()));
    Ok(())
}

/// Lists dead letters, uplinks that were given up and are kept, in the order in which they were received: at most `limit` (1 to
/// 1000) after the letter `after`; (NULL, 0) begins with the first. With the memory spool the newest 1,000 are kept, of at most
/// 1 MiB, until the process ends. Blocks, at most 10 s. IO or BROKER when a durable spool cannot be read now. Freed with
/// fastsock_dead_letters_free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_dead_letters(
    bridge: Option<&fastsock_bridge>,
    after: *const c_char,
    after_len: usize,
    limit: usize,
    letters: *mut *mut fastsock_dead_letters,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(letters, "letters") }?;
    let after = match after.is_null() && after_len == 0 {
        true => None,
        // SAFETY: by contract.
        false => Some(unsafe { dead_letters::id(after, after_len, "after") }?),
    };
    let limit = dead_letters::limit(limit)?;
    out.put(dead_letters::boxed(
        entered.core.dead_letters(after, limit)?,
    ));
    Ok(())
}

/// Gives one dead letter as JSON, with the headers of its last POST; BINARY data is base64 with "encoding":"base64" beside it.
/// Blocks and fails as fastsock_bridge_dead_letters, and NOT_FOUND. Freed with fastsock_string_free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_dead_letter_json(
    bridge: Option<&fastsock_bridge>,
    id: *const c_char,
    id_len: usize,
    json: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (out, id) = unsafe {
        (
            text::out(json, "json")?,
            dead_letters::id(id, id_len, "id")?,
        )
    };
    let letter = entered.core.dead_letter(id)?;
    dead_letters::found(letter.is_some(), id)?;
    let letter = serde_json::to_vec(&letter)
        .map_err(|e| Failure::new(fastsock_status::OTHER, e.to_string()))?;
    out.put(text::give(letter)?);
    Ok(())
}

/// Delivers a dead letter again: behind all that its device has waiting, under the same Idempotency-Key. OK once the spool has
/// it as an uplink. Blocks and fails as fastsock_bridge_dead_letters, and NOT_FOUND, STOPPED.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_replay_dead_letter(
    bridge: Option<&fastsock_bridge>,
    id: *const c_char,
    id_len: usize,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let id = unsafe { dead_letters::id(id, id_len, "id") }?;
    dead_letters::found(entered.core.replay_dead_letter(id)?, id)
}

/// Drops a dead letter for good. Blocks and fails as fastsock_bridge_dead_letters, and NOT_FOUND.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_drop_dead_letter(
    bridge: Option<&fastsock_bridge>,
    id: *const c_char,
    id_len: usize,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let id = unsafe { dead_letters::id(id, id_len, "id") }?;
    dead_letters::found(entered.core.drop_dead_letter(id)?, id)
}

/// Gives the books of the bridge, true in this moment. `stats_size` is sizeof(fastsock_stats) as you were compiled.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_stats(
    bridge: Option<&fastsock_bridge>,
    stats: *mut fastsock_stats,
    stats_size: usize,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    if stats.is_null() {
        return Err(Failure::null("stats"));
    }
    whole(
        stats_size,
        offset_of!(fastsock_stats, events_dropped),
        "stats",
    )?;
    let snapshot = fastsock_stats::of(&entered.core.stats(), entered.bridge);
    // SAFETY: by contract `stats_size` bytes can be written.
    unsafe { write_sized(&snapshot, stats, stats_size) };
    Ok(())
}

/// Gives the books as JSON, with closed sessions by cause and refused handshakes by status. Freed with
/// fastsock_string_free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_stats_json(
    bridge: Option<&fastsock_bridge>,
    json: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(json, "json") }?;
    let stats = serde_json::to_vec(&entered.core.stats())
        .map_err(|e| Failure::new(fastsock_status::OTHER, e.to_string()))?;
    out.put(text::give(stats)?);
    Ok(())
}

/// Says what the bridge is doing: RUNNING, DEGRADED, STOPPING or STOPPED.
#[apply(c_abi)]
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

/// Gives the address devices connect to, such as "[::]:3000". Freed with fastsock_string_free.
#[apply(c_abi)]
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

/// Gives the port devices connect to.
#[apply(c_abi)]
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

/// Gives the address of the admin listener, or NULL when there is none. Freed with fastsock_string_free.
#[apply(c_abi)]
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

/// With EVENTS: gives the descriptor that is readable while there are events. For poll, select or epoll (level-triggered);
/// never read or close it. Valid until the bridge is freed.
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

/// With EVENTS: takes up to `max` events into an array, oldest first, and says in `count` how many. Never blocks: 0 is no
/// failure. `event_size` is sizeof(fastsock_event) as you were compiled. What the events point to is valid until the next
/// poll, stop or free of this bridge. One thread at a time; after a stop it gives what is left.
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

/// With EVENTS, for a host without a loop: blocks until there are events, or fastsock_bridge_wake was called; OK at once
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

/// Lets a device in under a name. With (NULL, 0) the configured way decides. TICKET when it is too late, or answered.
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

/// Refuses a device with an HTTP status from 400 to 599 and a short reason as body. `retry_after_s` other than 0 tells it
/// when to come back.
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
    let reason = unsafe { text::bytes(reason.cast(), reason_len, "reason") }?;
    let mut refusal = Refusal::new(code, String::from_utf8_lossy(reason));
    if retry_after_s > 0 {
        refusal = refusal.with_retry_after(retry_after_s);
    }
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Admission(Admission::Reject(refusal)))
}

/// Lets an uplink go to the backend as it is.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_forward(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
) -> fastsock_status {
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Uplink(UplinkAction::Forward))
}

/// Takes an uplink: nothing goes to the backend.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_drop(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
) -> fastsock_status {
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Uplink(UplinkAction::Drop))
}

/// Lets other data go to the backend in place of an uplink. `kind` is a fastsock_kind.
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

/// Says that the decision failed: a device is refused with 503, an uplink is lost with the reason hook_failed.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_resolve_failed(
    bridge: Option<&fastsock_bridge>,
    ticket: u64,
) -> fastsock_status {
    fastsock_bridge::enter(bridge)?.resolve(ticket, Answer::Failed)
}

/// A call that has passed the checks at the border.
pub(crate) struct Entered<'a> {
    pub(crate) bridge: &'a fastsock_bridge,
    pub(crate) core: &'a blocking::Bridge,
    /// What this call logs goes to the bridge's callback.
    _log: Option<DefaultGuard>,
}

impl Entered<'_> {
    fn resolve(&self, ticket: u64, answer: Answer) -> Result<(), Failure> {
        Ok(self.core.resolve(Ticket(ticket), answer)?)
    }
}

impl fastsock_bridge {
    /// Checks what each call checks: NULL, a fork, a callback.
    fn enter(bridge: Option<&Self>) -> Result<Entered<'_>, Failure> {
        let bridge = bridge.ok_or_else(|| Failure::null("bridge"))?;
        if getpid() != bridge.process {
            return Err(Failure::new(
                fastsock_status::FORKED,
                "the bridge belongs to the process that was forked",
            ));
        }
        if inside() == Inside::Callback {
            return Err(Self::refused("any function of a bridge"));
        }
        let core = bridge.core.get();
        let core = core
            .ok_or_else(|| Failure::new(fastsock_status::STOPPED, "the bridge has not started"))?;
        Ok(Entered {
            bridge,
            core,
            _log: bridge.log.as_ref().map(tracing::dispatcher::set_default),
        })
    }

    fn start(
        config: &fastsock_config,
        options: fastsock_options,
        userdata: Userdata,
    ) -> Result<Arc<Self>, Failure> {
        let userdata = Arc::new(userdata);
        let log = options.log.map(|hook| {
            Dispatch::new(Log {
                hook,
                userdata: Arc::clone(&userdata),
                level: options.level(),
            })
        });
        let (events, queue) = EventQueue::new(options.events(config.inner.hook_timeout))?;
        let bridge = Arc::new(Self {
            core: OnceLock::new(),
            queue,
            options,
            batch: Mutex::default(),
            gate: Gate::default(),
            dispatcher: Mutex::default(),
            notices_failed: AtomicU64::new(0),
            log,
            userdata,
            process: getpid(),
        });
        let _log = bridge.log.as_ref().map(tracing::dispatcher::set_default);
        let _signals = Blocked::new(); // the threads made meanwhile inherit it
        let core = bridge.builder(config).shared_hooks(events).start()?;
        let core = bridge.core.get_or_init(|| core);
        let weak = Arc::downgrade(&bridge);
        bridge
            .queue
            .attach(move |ticket, answer| match weak.upgrade() {
                Some(bridge) => bridge.answer(ticket, answer),
                None => Ok(()),
            });
        if !options.is_polled() {
            match hooks::start(&bridge) {
                Ok(thread) => *bridge.dispatcher.lock() = Some(thread),
                Err(failure) => {
                    core.stop(Duration::ZERO);
                    return Err(failure);
                }
            }
        }
        Ok(bridge)
    }

    fn builder(&self, config: &fastsock_config) -> blocking::Builder {
        let log = self.log.clone();
        let builder = blocking::Bridge::builder(config.inner.clone()).on_thread_start(move || {
            Blocked::for_good();
            if let Some(log) = &log {
                log::adopt_thread(log);
            }
        });
        match usize::try_from(self.options.workers) {
            Ok(workers @ 1..) => builder.workers(workers),
            _ => builder,
        }
    }

    /// Answers a ticket for the queue or a hook.
    pub(crate) fn answer(&self, ticket: Ticket, answer: Answer) -> fastsock::Result<()> {
        self.core
            .get()
            .map_or(Ok(()), |core| core.resolve(ticket, answer))
    }

    /// Stops the bridge, then the hooks. Each may be called again, and waits for the same end.
    fn stop(&self, deadline: Duration) -> Result<Leftover, Failure> {
        if inside() == Inside::Hook(ptr::from_ref(self).cast()) {
            return Err(Self::refused(
                "fastsock_bridge_stop and fastsock_bridge_free",
            ));
        }
        let until = Instant::now() + deadline;
        let Some(core) = self.core.get() else {
            return Ok(Leftover::default());
        };
        let leftover = core.stop(deadline);
        self.queue.close();
        self.batch.lock().clear();
        // The last notices, of the sessions that just ended, are worth a moment beyond the deadline.
        let until = until.max(Instant::now() + LAST_NOTICES);
        let Some(thread) = self.dispatcher.lock().take() else {
            return self
                .gate
                .wait_finished(until, self.options.is_polled())
                .map(|()| leftover);
        };
        if let Err(failure) = self.gate.wait_finished(until, false) {
            *self.dispatcher.lock() = Some(thread); // a later stop may join it
            return Err(failure);
        }
        // It is past its last line; a panic there was logged by itself.
        let _ = thread.join();
        Ok(leftover)
    }

    /// Counts and logs a notice whose hook failed.
    pub(crate) fn notice_failed(&self, event: &fastsock_event) {
        self.notices_failed.fetch_add(1, Relaxed);
        tracing::warn!(event_type = event.r#type, "Hook of a notice failed");
    }

    /// What the dispatching thread logs goes to the bridge's callback.
    pub(crate) fn log(&self) -> Option<&Dispatch> {
        self.log.as_ref()
    }

    fn check_polled(&self) -> Result<(), Failure> {
        if self.options.is_polled() {
            return Ok(());
        }
        Err(Failure::argument(
            "the bridge was not started with FASTSOCK_DELIVERY_EVENTS",
        ))
    }

    fn refused(what: &str) -> Failure {
        Failure::new(
            fastsock_status::HOOK,
            format!("{what} cannot be called inside this callback: it would wait for itself"),
        )
    }
}

impl From<Leftover> for fastsock_leftover {
    fn from(left: Leftover) -> Self {
        Self {
            sessions: left.sessions,
            uplinks: left.uplinks,
            presence: left.presence,
            events: left.events,
            spooled: left.spooled,
        }
    }
}

/// How long stop waits for hooks beyond its deadline.
const LAST_NOTICES: Duration = Duration::from_millis(500);
