//! Starting a bridge, and what can be read anew while it runs.

use std::{sync::Arc, time::Duration};

use fastsock::{blocking, events::EventQueue};
use macro_rules_attribute::apply;
use tracing::Dispatch;

use crate::{
    bridge::fastsock_bridge,
    config::fastsock_config,
    descriptors,
    gate::lock,
    guard::{Inside, c_abi, inside},
    hooks,
    log::{self, Log},
    options::fastsock_options,
    signals::Blocked,
    status::{Failure, fastsock_status},
    text,
    userdata::Userdata,
};

/// Starts a bridge. Devices can connect when it returns, and hooks may run before it returns; the broker may still be
/// connecting. It copies the settings. `options` may be NULL: no hooks, no log. On CONFIG, BIND and IO, fastsock_last_error says
/// more. After a failure nothing runs, and the userdata is freed. If the host has closed descriptors 0, 1 or 2, a start opens
/// them to /dev/null and leaves them so: no socket of the library takes the place of stdout.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_start(
    config: Option<&fastsock_config>,
    options: *const fastsock_options,
    bridge: *mut *mut fastsock_bridge,
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
    out.put(Arc::into_raw(start(config, options, userdata)?).cast_mut());
    Ok(())
}

/// Reloads the files of certificates, for new connections; sessions stay. Blocks while it reads. CONFIG, naming the setting and
/// the file, when the bridge cannot use one; it then keeps what it has.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_reload(
    bridge: Option<&fastsock_bridge>,
) -> fastsock_status {
    let _signals = Blocked::new(); // the thread that reads inherits it
    fastsock_bridge::enter(bridge)?.core.reload()?;
    Ok(())
}

fn start(
    config: &fastsock_config,
    options: fastsock_options,
    userdata: Userdata,
) -> Result<Arc<fastsock_bridge>, Failure> {
    descriptors::occupy_standard();
    let userdata = Arc::new(userdata);
    let log = options.log.map(|hook| {
        Dispatch::new(Log {
            hook,
            userdata: Arc::clone(&userdata),
            level: options.level(),
        })
    });
    let (events, queue) = EventQueue::new(options.events(config.inner.limits.hook_timeout))?;
    let bridge = Arc::new(fastsock_bridge::new(
        queue,
        options.is_polled(),
        log,
        userdata,
    ));
    let _log = bridge.log().map(tracing::dispatcher::set_default);
    let _signals = Blocked::new(); // the threads made meanwhile inherit it
    let core = builder(config, &options, bridge.log())
        .shared_hooks(events)
        .start()?;
    let core = bridge.core.get_or_init(|| core);
    let weak = Arc::downgrade(&bridge);
    bridge
        .queue
        .attach(move |ticket, answer| match weak.upgrade() {
            Some(bridge) => bridge.answer(ticket, answer),
            None => Ok(()),
        });
    if !bridge.is_polled {
        match hooks::start(&bridge, options.hooks()) {
            Ok(thread) => *lock(&bridge.dispatcher) = Some(thread),
            Err(failure) => {
                core.stop(Duration::ZERO);
                return Err(failure);
            }
        }
    }
    Ok(bridge)
}

fn builder(
    config: &fastsock_config,
    options: &fastsock_options,
    log: Option<&Dispatch>,
) -> blocking::Builder {
    let log = log.cloned();
    let builder = blocking::Bridge::builder(config.inner.clone()).on_thread_start(move || {
        Blocked::for_good();
        if let Some(log) = &log {
            log::adopt_thread(log);
        }
    });
    match usize::try_from(options.workers) {
        Ok(workers @ 1..) => builder.workers(workers),
        _ => builder,
    }
}
