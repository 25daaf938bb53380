//! The only file that spawns tasks: tracking them, and telling them to stop.

use std::future::Future;

use tokio::runtime::Handle;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};

/// A group of tasks that can be told to stop and waited for.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
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
        }
    }

    /// Starts a task. It ends by itself, or when it heeds [`Tasks::stopping`].
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        self.runtime.spawn(self.tracker.track_future(task));
    }

    /// Starts a task that is dropped wherever it waits once the group stops.
    pub(crate) fn spawn_until_stopped(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(async move {
            stop.run_until_cancelled_owned(task).await;
        });
    }

    /// Resolves once the group stops.
    pub(crate) fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stop.cancelled()
    }

    /// Tells all tasks to stop. Does not wait.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Resolves once no task is left.
    pub(crate) async fn wait(&self) {
        self.tracker.wait().await;
    }

    /// How many tasks are alive.
    pub(crate) fn len(&self) -> usize {
        self.tracker.len()
    }
}
