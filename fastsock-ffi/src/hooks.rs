//! The one thread that calls the hooks of a bridge.

use std::{
    ptr,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use fastsock::{Admission, Answer, Ticket, UplinkAction};

use crate::{
    bridge::fastsock_bridge,
    event::{Batch, fastsock_event, fastsock_event_type},
    guard::{Inside, Mark},
    log,
    options::{HOOKS, fastsock_hook, fastsock_verdict},
    signals::Blocked,
    status::{Failure, fastsock_status},
    text::checked,
};

/// Starts the thread. It ends once the event queue is closed and drained.
pub(crate) fn start(
    bridge: &Arc<fastsock_bridge>,
    hooks: [fastsock_hook; HOOKS],
) -> Result<JoinHandle<()>, Failure> {
    let bridge = Arc::clone(bridge);
    Builder::new()
        .name("fastsock-hooks".into())
        .spawn(move || run(&bridge, &hooks))
        .map_err(|e| {
            Failure::new(
                fastsock_status::IO,
                format!("cannot start the thread of the hooks: {e}"),
            )
        })
}

fn run(bridge: &Arc<fastsock_bridge>, hooks: &[fastsock_hook; HOOKS]) {
    Blocked::for_good();
    let _mark = Mark::set(Inside::Hook(Arc::as_ptr(bridge).cast()));
    if let Some(log) = bridge.log() {
        log::adopt_thread(log);
    }
    let mut batch = Batch::default();
    loop {
        // Asked before draining: what comes in until then is drained below, and nothing comes after.
        let is_closed = bridge.queue.is_closed();
        let count = batch.fill(&bridge.queue, BATCH);
        for index in 0..count {
            call(bridge, hooks, &batch.view(index));
        }
        if count == 0 && is_closed {
            break;
        }
        if count == 0 {
            bridge.queue.wait(Duration::from_secs(60));
        }
    }
    bridge.gate.finish();
}

/// Calls the hook for one event and answers its ticket, if it has one.
fn call(bridge: &Arc<fastsock_bridge>, hooks: &[fastsock_hook; HOOKS], event: &fastsock_event) {
    let hook = hooks.get((event.r#type as usize).wrapping_sub(1));
    let Some(hook) = hook.copied().flatten() else {
        return answer(bridge, event, fastsock_verdict::DEFAULT);
    };
    if !bridge.gate.enter() {
        return answer(bridge, event, fastsock_verdict::FAILED);
    }
    // SAFETY: the host gave the hook for this; the userdata, the bridge and the event outlive the call.
    let verdict = unsafe {
        hook(
            bridge.userdata.pointer(),
            Arc::as_ptr(bridge),
            ptr::from_ref(event),
        )
    };
    bridge.gate.leave();
    let verdict = checked(verdict).unwrap_or(fastsock_verdict::FAILED);
    if verdict == fastsock_verdict::FAILED && event.ticket == 0 {
        bridge.notice_failed(event); // decisions are counted by the core
    }
    answer(bridge, event, verdict);
}

/// Answers for the hook what its verdict says. When it has answered by itself, or too late, this one does not count.
fn answer(bridge: &fastsock_bridge, event: &fastsock_event, verdict: fastsock_verdict) {
    if event.ticket == 0 {
        return;
    }
    let is_uplink = event.r#type == fastsock_event_type::UPLINK as u32;
    let answer = match verdict {
        fastsock_verdict::LATER => return,
        fastsock_verdict::FAILED => Answer::Failed,
        fastsock_verdict::DEFAULT if is_uplink => Answer::Uplink(UplinkAction::Forward),
        fastsock_verdict::DEFAULT => Answer::Admission(Admission::AsConfigured),
    };
    let _ = bridge.answer(Ticket(event.ticket), answer);
}

/// Events drained at once: enough to share the cost of the lock, few enough to let go of their memory soon.
const BATCH: usize = 256;
