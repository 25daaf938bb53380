//! Mailboxes in a file, for one gateway alone. One thread has the file: what gathers while it commits is its next transaction. So many
//! publishers share one sync, and nobody else waits for the disk.

mod store;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout};

use self::store::{Fault, Store, Work};
use super::{Kept, Losses, Mailbox, Message, Owner, TellLost, Visit};
use crate::{
    config::Config,
    data_file::{is_full, on_a_thread},
    error::{Error, ErrorKind, Result},
    locks::{Condvar, Mutex},
    pure::kept::Turn,
    tasks::{BoxFuture, Tasks},
    types::{ClientId, MailboxState},
};

/// The side of those who ask: hands over to the thread that has the file.
pub(crate) struct DiskMailbox {
    queue: Arc<Queue>,
}

/// Where work is handed over.
#[derive(Default)]
struct Queue {
    queued: Mutex<Queued>,
    changed: Condvar,
    /// What mailboxes have lost, and nobody was told yet.
    untold: Mutex<Losses>,
    file_bytes: AtomicU64,
}

#[derive(Default)]
struct Queued {
    batch: Batch,
    /// Do what is here, and end.
    is_stopping: bool,
    /// The thread has ended.
    has_ended: bool,
}

/// What is done in one transaction.
type Batch = Vec<Job>;

struct Job {
    kind: Kind,
    work: Box<Task>,
}

/// A piece of work. What it returns is done after the commit, and dropped when there is none.
type Task = dyn FnOnce(&mut Work<'_>) -> Result<Done, Fault> + Send;
type Done = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Takes room, and counts for nothing before it is on the disk.
    Keep,
    /// Makes room, and counts for nothing before that is on the disk.
    Clear,
    /// Reads, and makes room where there is something to remove.
    Read,
}

/// The file takes nothing, and when to try again.
struct Failing {
    until: Instant,
    /// The disk is full, and what is only read or removed can be done meanwhile.
    is_full: bool,
}

/// Opens the file as a start would and lets go of it; one that is not there yet is not made, but a file beside it is.
///
/// # Errors
/// `Io`, naming the setting.
pub(crate) fn check(config: &Config) -> Result<()> {
    Store::check(config)
}

impl DiskMailbox {
    /// Opens the mailboxes in the data directory, which is made if it is not there. They are closed when the tasks stop, after all
    /// that was asked for until then.
    ///
    /// # Errors
    /// `Io`, naming the setting: the directory cannot be made, the file cannot be read, or another process has it.
    pub(crate) async fn open(config: &Config, tasks: &Tasks) -> Result<Self> {
        let config = config.clone();
        Self::with_store(move || Store::in_directory(&config), tasks).await
    }

    async fn with_store(
        make: impl FnOnce() -> Result<Store> + Send + 'static,
        tasks: &Tasks,
    ) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let open = move || {
            let mut store = make()?;
            store.open_first()?;
            Ok((store, ()))
        };
        let ends = Ends(queue.clone());
        let run = move |store| run(&ends.0, store);
        on_a_thread(tasks, ("fastsock-mail", "mailboxes"), open, run).await?;
        let stops = Stops(queue.clone());
        tasks.spawn_until_stopped(async move {
            let _stops = stops; // dropped when the tasks stop
            pending().await
        });
        Ok(Self { queue })
    }

    /// Has the thread do something, and waits for what came of it.
    async fn ask<T: Send + 'static>(
        &self,
        kind: Kind,
        work: impl FnOnce(&mut Work<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.queue.put(Job {
            kind,
            work: Box::new(move |on| {
                let done = work(on)?;
                Ok(Box::new(move || drop(answer.send(done))))
            }),
        });
        let failed = |text| Error::new(ErrorKind::Broker, text);
        match timeout(ANSWER_TIME, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(failed("the disk does not take what the mailbox needs")),
            Err(_) => Err(failed("the disk of the mailbox does not answer")),
        }
    }

    fn take_untold(&self) -> Losses {
        std::mem::take(&mut *self.queue.untold.lock())
    }
}

impl Mailbox for DiskMailbox {
    fn is_up(&self) -> bool {
        true // what fails is tried again each second
    }

    fn file_bytes(&self) -> Option<u64> {
        Some(self.queue.file_bytes.load(Relaxed))
    }

    fn rings(&self) -> bool {
        false
    }

    fn visit<'a>(&'a self, owner: &'a Owner, turn: &'a Turn) -> BoxFuture<'a, Result<Visit>> {
        let (owner, turn) = (owner.clone(), turn.clone());
        Box::pin(self.ask(Kind::Read, move |work| work.visit(&owner, &turn)))
    }

    fn keep<'a>(
        &'a self,
        client_id: &'a ClientId,
        message: Message,
    ) -> BoxFuture<'a, Result<(Kept, Losses)>> {
        let client_id = client_id.clone();
        Box::pin(async move {
            let keep = move |work: &mut Work<'_>| work.keep(&client_id, &message);
            let kept = self.ask(Kind::Keep, keep).await?;
            Ok((kept, self.take_untold()))
        })
    }

    fn sweep<'a>(&'a self, tell: TellLost<'a>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let mut has_more = true;
            while has_more {
                has_more = self.ask(Kind::Read, |work| work.sweep()).await?;
                for (client_id, lost) in self.take_untold() {
                    tell(&client_id, lost);
                }
            }
            Ok(true)
        })
    }

    fn state<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<MailboxState>> {
        let client_id = client_id.clone();
        Box::pin(self.ask(Kind::Read, move |work| work.state(&client_id)))
    }

    fn clear<'a>(&'a self, client_id: &'a ClientId) -> BoxFuture<'a, Result<u64>> {
        let client_id = client_id.clone();
        Box::pin(self.ask(Kind::Clear, move |work| work.clear(&client_id)))
    }
}

impl Queue {
    /// Without a thread the job is dropped.
    fn put(&self, job: Job) {
        let mut queued = self.queued.lock();
        if queued.has_ended {
            return;
        }
        queued.batch.push(job);
        if queued.batch.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// Waits for work, or until `wake_at`. `None`: all is done, and nothing more comes.
    fn next(&self, wake_at: Option<Instant>) -> Option<Batch> {
        let mut queued = self.queued.lock();
        loop {
            if !queued.batch.is_empty() {
                return Some(std::mem::take(&mut queued.batch));
            }
            if queued.is_stopping {
                queued.has_ended = true;
                return None;
            }
            match wake_at {
                Some(at) if at <= Instant::now() => return Some(Batch::default()),
                Some(at) => queued = self.changed.wait_until(queued, at),
                None => queued = self.changed.wait(queued),
            }
        }
    }
}

/// Does what is asked, until it is time to stop. What is not tried is dropped, and who asked is told.
fn run(queue: &Queue, mut store: Store) {
    let mut failing = None::<Failing>;
    store.keep_reserve();
    queue.file_bytes.store(store.file_bytes(), Relaxed);
    while let Some(batch) = queue.next(store.sync_at()) {
        let tried = match &failing {
            None => try_batch(queue, &mut store, batch),
            Some(Failing { until, is_full }) if *is_full => {
                let (keeps, others) = batch.into_iter().partition(|job| job.kind == Kind::Keep);
                match make_room(queue, &mut store, others) {
                    Ok(true) if Instant::now() >= *until && !Batch::is_empty(&keeps) => {
                        try_batch(queue, &mut store, keeps)
                    }
                    Ok(_) => continue,
                    Err(fault) => Err(fault),
                }
            }
            Some(Failing { until, .. }) if Instant::now() < *until => continue,
            Some(_) => {
                let synced = store.sync_rest(); // before anything more is taken
                synced.and_then(|()| try_batch(queue, &mut store, batch))
            }
        };
        let tried = tried.and_then(|()| store.keep_synced());
        match tried {
            Ok(()) => {
                if failing.take().is_some() {
                    tracing::warn!("the mailboxes can be written again");
                }
            }
            Err(fault) => {
                store.let_go();
                if failing.is_none() {
                    tracing::error!(
                        error = %fault, path = %store.path().display(),
                        "the mailboxes cannot be written; nothing is kept until they can"
                    );
                }
                let is_full = is_full(&fault) && make_room(queue, &mut store, Batch::new()).is_ok();
                if !is_full {
                    store.let_go();
                }
                let until = Instant::now() + RETRY_AFTER;
                failing = Some(Failing { until, is_full });
            }
        }
    }
    store.close();
}

fn try_batch(queue: &Queue, store: &mut Store, batch: Batch) -> Result<(), Fault> {
    let mut done = Vec::with_capacity(batch.len());
    let is_to_last = batch.iter().any(|job| job.kind != Kind::Read);
    let lost = store.transact(is_to_last, |on| {
        for job in batch {
            done.push((job.work)(on)?);
        }
        Ok(())
    })?;
    queue.untold.lock().extend(lost); // before the answers: who has one takes it along
    queue.file_bytes.store(store.file_bytes(), Relaxed);
    done.into_iter().for_each(|done| done());
    Ok(())
}

/// On a full disk: does what makes room. Returns whether all that was taken is on the disk.
fn make_room(queue: &Queue, store: &mut Store, batch: Batch) -> Result<bool, Fault> {
    store.with_reserve(|store| try_batch(queue, store, batch))
}

/// The tasks stop.
struct Stops(Arc<Queue>);

impl Drop for Stops {
    fn drop(&mut self) {
        self.0.queued.lock().is_stopping = true;
        self.0.changed.notify_one();
    }
}

/// The thread is on its way out.
struct Ends(Arc<Queue>);

impl Drop for Ends {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("the thread of the mailboxes panicked; nothing is kept any more");
        }
        let mut queued = self.0.queued.lock();
        queued.has_ended = true;
        queued.batch = Batch::default();
    }
}

/// A disk that takes longer is as good as none.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// A file that failed is opened again at the earliest after so long.
const RETRY_AFTER: Duration = Duration::from_millis(500);
