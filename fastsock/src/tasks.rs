//! The only file that spawns tasks and threads: tracking them, and telling them to stop.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread,
};

use tokio::runtime::Handle;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};

use crate::locks::Mutex;

/// A future of a port, which has to be an object.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

type Task = BoxFuture<'static, ()>;

/// A group of tasks that can be told to stop and waited for.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Set before the token is cancelled. The token takes a lock that is common to all to say the same.
    is_stopping: Arc<AtomicBool>,
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
            is_stopping: Arc::default(),
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
    ///
    /// It asks to be woken by a stop once, when it first waits: nobody polls it but the runtime, always with the same waker. To ask
    /// at each turn, as `run_until_cancelled` does, takes two locks that are common to all tasks.
    pub(crate) fn spawn_inline_until_stopped(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let (stop, is_stopping) = (self.stop.clone(), self.is_stopping.clone());
        self.spawn_inline(async move {
            let (mut task, mut stopping) = (pin!(task), pin!(stop.cancelled_owned()));
            let mut is_woken_by_stop = false;
            let until_stopped = poll_fn(|cx| {
                if task.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if is_woken_by_stop && !is_stopping.load(Ordering::Acquire) {
                    return Poll::Pending;
                }
                is_woken_by_stop = true;
                stopping.as_mut().poll(cx)
            });
            until_stopped.await;
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

    /// Whether the group was told to stop. No lock.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Tells all tasks to stop. Does not wait.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
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

/// Starts a task that nobody waits for. It ends by itself: it runs a connection for those who hold the other end of it.
#[cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only links to Redis need it")
)]
pub(crate) fn spawn_detached(task: impl Future<Output = ()> + Send + 'static) {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    tokio::spawn(task);
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_task_that_was_woken_for_other_things_ends_with_its_group_all_the_same() {
        let tasks = Tasks::new(Handle::current());
        let (ask, mut asked) = mpsc::unbounded_channel::<()>();
        let (answer, mut answered) = mpsc::unbounded_channel();
        tasks.spawn_until_stopped(async move {
            while let Some(()) = asked.recv().await {
                answer.send(()).unwrap();
            }
        });
        for _ in 0..3 {
            ask.send(()).unwrap();
            answered.recv().await.unwrap();
        }
        assert_eq!((tasks.len(), tasks.is_stopping()), (1, false));
        tasks.stop();
        tasks.wait().await;
        assert!(tasks.is_stopping() && ask.is_closed());
        // One that begins to wait only then has its one turn.
        let (begun, mut was_begun) = mpsc::unbounded_channel();
        tasks.spawn_until_stopped(async move {
            begun.send(()).unwrap();
            std::future::pending().await
        });
        tasks.wait().await;
        was_begun.recv().await.unwrap();
    }
}
