//! One run of a bridge, from start to stop: the core's handle, its queues, its log, and its end.

use std::{
    io::{PipeReader, PipeWriter},
    os::fd::AsFd,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{Builder, ThreadId, current},
    time::{Duration, Instant},
};

use fastsock::{
    Config, ConnectRequest, Decision, Hooks, Leftover, Ticket, UplinkAction, WeakBridge, blocking,
    events::{EventHooks, EventOptions, EventQueue, Uplinks},
};
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    error::raised,
    fork::Process,
    hooks::Wants,
    locks::Mutex,
    log::{Log, adopt_thread},
    settings::Settings,
    signals::Blocked,
};

/// One run of a bridge.
pub(crate) struct Run {
    pub(crate) bridge: blocking::Bridge,
    /// The same bridge, for what never blocks.
    pub(crate) handle: fastsock::Bridge,
    pub(crate) queue: Arc<EventQueue>,
    /// Taken uplinks, when an event loop drains.
    pub(crate) stream: Option<EventQueue>,
    /// Only a descriptor: readable when there is something to log or a send has finished. The events' one for a thread.
    pub(crate) side: Arc<EventQueue>,
    pub(crate) log: Arc<Log>,
    pub(crate) counts: Counts,
    process: Process,
    dispatch: tracing::Dispatch,
    dispatcher: OnceLock<ThreadId>,
    is_shut: AtomicBool,
    end: Mutex<End>,
    /// Readable once everything has ended: those who still have something to do hold its writer.
    ended: PipeReader,
}

/// What the Python side did, beside the books of the core.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Events handed to hooks or to the loop.
    pub(crate) events: AtomicU64,
    /// Times the dispatcher or the loop was woken for them.
    pub(crate) wakes: AtomicU64,
    /// Hooks that raised, or gave something that is no answer.
    pub(crate) hook_errors: AtomicU64,
    /// Uplinks that `on_uplinks` was given and raised on.
    pub(crate) uplinks_failed: AtomicU64,
    /// Notices that were dropped since the hooks of an event loop were busy.
    pub(crate) notices_dropped: AtomicU64,
    /// Times a thread of ours was attached to the interpreter for the first time.
    pub(crate) attaches: AtomicU64,
}

enum End {
    Running(Arc<PipeWriter>),
    Stopping,
    Stopped(Leftover),
}

/// Held by whoever still has something to do in a run.
pub(crate) struct Busy(#[expect(dead_code, reason = "dropping it is what counts")] Arc<PipeWriter>);

impl Run {
    /// Starts a bridge. The interpreter is let go while ports are bound.
    pub(crate) fn start(py: Python<'_>, settings: &Settings, wants: Wants) -> PyResult<Arc<Self>> {
        let config = settings.config.clone();
        let options = EventOptions::default()
            .authenticate(wants.authenticate)
            .notices(wants.notices)
            .decision_time(config.limits.hook_timeout);
        let new_queue = |options| EventQueue::new(options).map_err(|e| raised(&e));
        let (stream_hooks, stream, events_uplinks) =
            if wants.is_for_loop && wants.uplinks == Uplinks::Take {
                let (hooks, stream) =
                    new_queue(options.clone().authenticate(false).uplinks(wants.uplinks))?;
                (Some(hooks), Some(stream), Uplinks::Off)
            } else {
                (None, None, wants.uplinks)
            };
        let (events, queue) = new_queue(options.uplinks(events_uplinks))?;
        let queue = Arc::new(queue);
        let side = if wants.is_for_loop {
            Arc::new(new_queue(EventOptions::default())?.1)
        } else {
            Arc::clone(&queue)
        };
        let log = Log::new(py, Arc::clone(&side), settings.payloads)?;
        let dispatch = log.dispatch();
        let hooks = Split {
            events,
            stream: stream_hooks,
        };
        let bridge = py
            .detach(|| start_core(config, settings.workers, hooks, &dispatch))
            .map_err(|e| raised(&e))?;

        let (ended, writer) = std::io::pipe()?;
        let handle = bridge.handle();
        for queue in [Some(&*queue), stream.as_ref()].into_iter().flatten() {
            let handle = handle.clone();
            queue.attach(move |ticket, answer| handle.resolve(ticket, answer));
        }
        let run = Arc::new(Self {
            bridge,
            handle,
            queue,
            stream,
            side,
            log,
            counts: Counts::default(),
            process: Process::current(),
            dispatch,
            dispatcher: OnceLock::new(),
            is_shut: AtomicBool::new(false),
            end: Mutex::new(End::Running(Arc::new(writer))),
            ended,
        });
        remember(&run);
        Ok(run)
    }

    /// Whether this process started it.
    pub(crate) fn is_ours(&self) -> bool {
        self.process.is_current()
    }

    /// Keeps [`Run::wait_ended`] waiting; `None` once stopping has begun.
    pub(crate) fn busy(&self) -> Option<Busy> {
        match &*self.end.lock() {
            End::Running(writer) => Some(Busy(Arc::clone(writer))),
            _ => None,
        }
    }

    /// Says that this thread calls the hooks.
    pub(crate) fn adopt_dispatcher(&self) {
        let _ = self.dispatcher.set(current().id());
        adopt_thread(&self.dispatch);
    }

    /// Whether this thread calls the hooks.
    pub(crate) fn is_dispatcher(&self) -> bool {
        self.dispatcher.get() == Some(&current().id())
    }

    /// Whether hooks may no longer begin.
    pub(crate) fn is_shut(&self) -> bool {
        self.is_shut.load(Relaxed)
    }

    /// Whether a stop has begun or is over.
    pub(crate) fn is_stopping(&self) -> bool {
        !matches!(*self.end.lock(), End::Running(_))
    }

    /// What was left, once it has stopped.
    pub(crate) fn leftover(&self) -> Option<Leftover> {
        match *self.end.lock() {
            End::Stopped(leftover) => Some(leftover),
            _ => None,
        }
    }

    /// Begins to stop, on a thread of its own; a later call may bring the deadline forward. Does not wait.
    pub(crate) fn begin_stop(self: &Arc<Self>, deadline: Duration) -> PyResult<()> {
        let writer = {
            let mut end = self.end.lock();
            match std::mem::replace(&mut *end, End::Stopping) {
                End::Running(writer) => writer,
                other => {
                    let has_stopped = matches!(other, End::Stopped(_));
                    *end = other;
                    drop(end);
                    return if has_stopped {
                        Ok(())
                    } else {
                        self.hurry(deadline)
                    };
                }
            }
        };
        let run = Arc::clone(self);
        let _blocked = Blocked::new();
        // It ends at the deadline, and the waiters wait for it.
        Builder::new().name("fastsock-stop".into()).spawn(move || {
            adopt_thread(&run.dispatch);
            let leftover = run.bridge.stop(deadline);
            *run.end.lock() = End::Stopped(leftover);
            run.close_queues();
            drop(run);
            drop(writer); // last: whoever waits finds everything done
        })?;
        Ok(())
    }

    /// Has a stop that is on its way end by this deadline as well.
    fn hurry(self: &Arc<Self>, deadline: Duration) -> PyResult<()> {
        let run = Arc::clone(self);
        let _blocked = Blocked::new();
        Builder::new()
            .name("fastsock-hurry".into())
            .spawn(move || {
                run.bridge.stop(deadline);
            })?;
        Ok(())
    }

    /// Waits until everything has ended, hooks included, or the time is over. Runs Python's signal handlers meanwhile.
    pub(crate) fn wait_ended(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<bool> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.wait_until(py, until, false)
    }

    /// Waits for the end of a stop with this deadline. A hook that does not return is left behind a moment after the
    /// deadline, the bridge itself only when its threads take longer than they may.
    pub(crate) fn wait_stopped(&self, py: Python<'_>, deadline: Duration) -> PyResult<bool> {
        let until = |time| Instant::now().checked_add(deadline)?.checked_add(time);
        let (of_hooks, of_threads) = (until(LAST_BREATH), until(SLACK));
        Ok(self.wait_until(py, of_hooks, false)? || self.wait_until(py, of_threads, true)?)
    }

    fn wait_until(
        &self,
        py: Python<'_>,
        until: Option<Instant>,
        is_without_hooks: bool,
    ) -> PyResult<bool> {
        loop {
            py.check_signals()?;
            if is_without_hooks && self.leftover().is_some() {
                return Ok(true);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            // A signal ends the poll at once if it comes to this thread; the slice is for one that came just before it.
            let slice = left.map_or(SIGNAL_SLICE, |left| left.min(SIGNAL_SLICE));
            let slice = if is_without_hooks { slice / 10 } else { slice };
            if py.detach(|| self.has_ended_within(slice)) {
                return Ok(true);
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
        }
    }

    fn has_ended_within(&self, time: Duration) -> bool {
        let time = Timespec::try_from(time).ok();
        let fd = self.ended.as_fd();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], time.as_ref()).is_ok_and(|ready| ready > 0)
    }

    /// Lets no further hook begin.
    pub(crate) fn shut(&self) {
        self.is_shut.store(true, Relaxed);
    }

    /// Lets go of it without waiting: its owner was collected.
    pub(crate) fn abandon(&self) {
        self.shut();
        self.handle.request_stop();
        self.close_queues();
    }

    /// Ends the flow of events.
    pub(crate) fn close_queues(&self) {
        self.queue.close();
        if let Some(stream) = &self.stream {
            stream.close();
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.close_queues(); // they hold the bridge
    }
}

/// An owner's hold on a run, which abandons it when the owner goes; in a forked child it leaves everything alone.
pub(crate) struct Hold(Option<Arc<Run>>);

impl Hold {
    pub(crate) fn new(run: Arc<Run>) -> Self {
        Self(Some(run))
    }

    pub(crate) fn run(&self) -> &Arc<Run> {
        self.0.as_ref().expect("only dropping takes it")
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(run) = self.0.take() else { return };
        if !run.is_ours() {
            // The locks in it may be held by threads that this process does not have.
            std::mem::forget(run);
        } else if run.leftover().is_none() {
            run.abandon();
        }
    }
}

/// Two ends as one: uplinks go to the stream, if there is one.
struct Split {
    events: Arc<EventHooks>,
    stream: Option<Arc<EventHooks>>,
}

impl Hooks for Split {
    fn on_start(&self, bridge: &WeakBridge) {
        self.events.on_start(bridge);
    }

    fn authenticate(
        &self,
        request: &ConnectRequest,
        ticket: Ticket,
    ) -> Decision<fastsock::Admission> {
        self.events.authenticate(request, ticket)
    }

    fn on_uplink(&self, uplink: &fastsock::Uplink, ticket: Ticket) -> Decision<UplinkAction> {
        self.stream
            .as_ref()
            .unwrap_or(&self.events)
            .on_uplink(uplink, ticket)
    }

    fn on_connect(&self, client: &fastsock::Client) {
        self.events.on_connect(client);
    }

    fn on_disconnect(&self, client: &fastsock::Client, reason: &fastsock::CloseReason) {
        self.events.on_disconnect(client, reason);
    }

    fn on_uplink_lost(&self, uplink: &fastsock::Uplink, reason: fastsock::LostReason) {
        self.events.on_uplink_lost(uplink, reason);
    }

    fn on_mailbox_lost(&self, client_id: &fastsock::ClientId, reason: &str, count: u64) {
        self.events.on_mailbox_lost(client_id, reason, count);
    }

    fn on_state(&self, state: &fastsock::State) {
        self.events.on_state(state);
    }
}

fn start_core(
    config: Config,
    workers: usize,
    hooks: Split,
    dispatch: &tracing::Dispatch,
) -> fastsock::Result<blocking::Bridge> {
    let _blocked = Blocked::new(); // the threads of the runtime inherit it
    let of_threads = dispatch.clone();
    tracing::dispatcher::with_default(dispatch, || {
        blocking::Bridge::builder(config)
            .workers(workers)
            .hooks(hooks)
            .on_thread_start(move || adopt_thread(&of_threads))
            .start()
    })
}

/// Stops every bridge that still runs, as the interpreter exits.
#[pyfunction]
#[pyo3(name = "_stop_all")]
pub fn stop_all(py: Python<'_>) -> PyResult<()> {
    let runs: Vec<_> = std::mem::take(&mut *LIVE.lock())
        .iter()
        .filter_map(Weak::upgrade)
        .map(Hold::new) // so that nothing of a parent's run is dropped in a child
        .collect();
    let runs: Vec<_> = runs
        .iter()
        .map(Hold::run)
        .filter(|run| run.is_ours())
        .collect();
    for run in &runs {
        run.begin_stop(STOP_TIME)?;
    }
    for run in runs {
        let has_ended = run.wait_ended(py, Some(STOP_TIME + SLACK));
        run.shut();
        has_ended?;
    }
    Ok(())
}

fn remember(run: &Arc<Run>) {
    // Locked only with the interpreter attached, so no fork that Python makes finds it locked.
    let mut live = LIVE.lock();
    live.retain(|run| run.strong_count() > 0);
    live.push(Arc::downgrade(run));
}

/// For the end of the process alone.
static LIVE: Mutex<Vec<Weak<Run>>> = Mutex::new(Vec::new());
/// How long a stop may take when nobody says.
pub(crate) const STOP_TIME: Duration = Duration::from_secs(8);
/// How long a hook may take to return beyond the deadline.
const LAST_BREATH: Duration = Duration::from_millis(250);
/// How long the threads may take beyond the deadline.
pub(crate) const SLACK: Duration = Duration::from_millis(1500);
const SIGNAL_SLICE: Duration = Duration::from_millis(250);
