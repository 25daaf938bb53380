//! The only file that spawns tasks and threads: tracking them, and telling them to stop.

use std::{future::Future, io, pin::Pin, sync::Arc, thread};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};

/// A future of a port, which has to be an object.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

type Task = BoxFuture<'static, ()>;

/// A group of tasks that can be told to stop and waited for.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    threads: Arc<Mutex<Vec<thread::JoinHandle<()>>>>,
}

impl Tasks {
    /// A group on a runtime.
    pub(crate) fn new(runtime: Handle) -> Self {
        let tracker = TaskTracker::new();
        tracker.close(); // only so that `wait` can end; tasks may still be added
        Self {
            runtime,
            tracker,
            stop: CancellationToken::new(),
            threads: Arc::default(),
        }
    }

    /// Starts a task. It ends by itself, or when it heeds [`Tasks::stopping`].
    ///
    /// Boxed, so that the code that runs a task is there once and not for each kind of task and runtime: that was 3 % of the
    /// library.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: Task = Box::pin(task);
        self.spawn_inline(task);
    }

    /// The same without the box: for what is started for each device or message.
    pub(crate) fn spawn_inline(&self, task: impl Future<Output = ()> + Send + 'static) {
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        self.runtime.spawn(self.tracker.track_future(task));
    }

    /// Starts a task that is dropped wherever it waits once the group stops.
    pub(crate) fn spawn_until_stopped(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: Task = Box::pin(task);
        self.spawn_inline_until_stopped(task);
    }

    /// The same without the box.
    pub(crate) fn spawn_inline_until_stopped(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let stop = self.stop.clone();
        self.spawn_inline(async move {
            stop.run_until_cancelled_owned(task).await;
        });
    }

    /// Starts a thread with a name, for work that blocks. It ends by itself; it blocks the signals that the caller blocks, and
    /// logs where the caller does.
    ///
    /// # Errors
    /// What the system says when it makes no more threads.
    #[cfg_attr(
        not(feature = "disk"),
        allow(dead_code, reason = "only the disk spool has one")
    )]
    pub(crate) fn spawn_thread(
        &self,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let token = self.tracker.token();
        let thread = thread(name, move || {
            let _token = token; // dropped last
            run();
        })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Resolves once the group stops.
    pub(crate) fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stop.cancelled()
    }

    /// Whether the group was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Tells all tasks to stop. Does not wait.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves once no task and no thread is left.
    pub(crate) async fn wait(&self) {
        self.tracker.wait().await;
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join(); // it has only its last instructions before it
        }
    }

    /// How many tasks are alive.
    pub(crate) fn len(&self) -> usize {
        self.tracker.len()
    }
}

/// Starts a thread with a name that nobody waits for, for what may hang for ever: reading a file on a mount that is gone. As for the rest,
/// as [`Tasks::spawn_thread`].
///
/// # Errors
/// What the system says when it makes no more threads.
pub(crate) fn detach(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread(name, run).map(drop)
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    // Where the host has no subscriber there is none to hand on, and `with_default` would leave a trace in its process.
    let subscriber = tracing::dispatcher::get_default(|current| {
        let is_none = current.is::<tracing::subscriber::NoSubscriber>();
        (!is_none).then(|| current.clone())
    });
    thread::Builder::new()
        .name(name.into())
        .spawn(move || match subscriber {
            Some(subscriber) => tracing::dispatcher::with_default(&subscriber, run),
            None => run(),
        })
}
