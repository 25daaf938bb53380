//! Keeps uplinks in a file: one thread writes what has gathered in one transaction, reports it, and takes the next. A task tells the
//! lanes what it reports.
//!
//! While a batch is on its way to the disk the next one gathers, so the disk is asked as often as it can answer and no more
//! often. A small one right behind another waits for half of what that took, for more to come. What only removes waits a
//! little for a batch that appends: a removal that is lost makes a duplicate, nothing else.

mod reports;
mod store;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant as StdInstant},
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    reports::{REPORT_MAX, Reports},
    store::{Fault, Op, Outcome, Store},
};
use super::{Backlog, Place, Record, Settle, Spool, SpoolFigures};
use crate::{
    config::Config,
    data_file::on_a_thread,
    error::{Error, ErrorKind, Result},
    histogram::Histogram,
    locks::{Condvar, Mutex},
    pure::backoff::Backoff,
    tasks::{BoxFuture, Tasks},
    types::{ClientId, DeadLetter},
};

/// The lanes' side of the spool: hands over to the thread that writes.
pub(crate) struct DiskSpool {
    queue: Arc<WorkQueue>,
    found: Mutex<Option<Found>>,
}

/// What was in the file at start.
struct Found {
    backlog: Vec<Backlog>,
    next_number: u64,
    letters: u64,
}

/// Where work is handed over.
#[derive(Default)]
struct WorkQueue {
    queued: Mutex<Queued>,
    /// Something was queued.
    changed: Condvar,
    lanes: OnceLock<Weak<dyn Settle>>,
    /// What transactions take.
    commits: Histogram,
    file_bytes: AtomicU64,
    /// The thread has ended, and the lanes know all that it did.
    ended: CancellationToken,
}

/// What waits to be done.
#[derive(Default)]
struct Queued {
    batch: Batch,
    /// The thread waits for work. To notify a condition costs a system call, also when nobody waits.
    is_idle: bool,
    /// Someone waits for what is in it.
    is_urgent: bool,
    /// Since when something waits in it that nobody waits for.
    lazy_since: Option<StdInstant>,
    /// Finish what is here, at the latest by then, and end.
    stop_by: Option<StdInstant>,
}

/// What is done in one go: all of `ops` in one transaction, then the reading.
#[derive(Default)]
struct Batch {
    ops: Vec<Op>,
    loads: Vec<Load>,
    asks: Vec<Ask>,
}

struct Load {
    client_id: ClientId,
    after: Option<u64>,
    cost: usize,
}

/// A question about dead letters.
enum Ask {
    Some(Option<Uuid>, usize, Answer<Vec<DeadLetter>>),
    One(Uuid, Answer<Option<DeadLetter>>),
}

type Answer<T> = oneshot::Sender<Result<T>>;

/// Opens the spool as a start would and lets go of it; one that is not there yet is not made, but a file beside it is.
///
/// # Errors
/// `Io`, naming the setting.
pub(crate) fn check(config: &Config) -> Result<()> {
    Store::check(config)
}

impl DiskSpool {
    /// Opens the spool in `config.spool.data_dir`, which is made if it is not there.
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
        let queue = Arc::new(WorkQueue::default());
        let open = move || {
            let mut store = make()?;
            store.open_first()?;
            let found = store.found().map_err(|fault| store.unreadable(fault))?;
            Ok((store, found))
        };
        let (reports, reporter) = reports::channel(queue.clone());
        let (leaving, of_writer) = (Leaving(reports), queue.clone());
        let run = move |store| Writer::new(of_writer, store, leaving.0.clone()).run();
        let found = on_a_thread(tasks, ("fastsock-spool", "spool"), open, run).await?;
        tasks.spawn(reporter.run());
        Ok(Self {
            queue,
            found: Mutex::new(Some(found)),
        })
    }

    /// Puts an operation of an operator into the queue and waits for what it came to.
    async fn ask<T>(&self, put: impl FnOnce(&mut Batch, Answer<T>)) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.queue.put_urgent(|batch| put(batch, answer));
        match timeout(ANSWER_TIME, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(Error::new(ErrorKind::Io, "the spool does not answer")),
        }
    }
}

impl Spool for DiskSpool {
    fn start(&self, lanes: Weak<dyn Settle>) {
        let found = self.found.lock().take();
        let _ = self.queue.lanes.set(lanes.clone()); // first: what is found is loaded at once
        if let (Some(lanes), Some(found)) = (lanes.upgrade(), found) {
            if !found.backlog.is_empty() {
                let messages: usize = found.backlog.iter().map(|found| found.messages).sum();
                tracing::info!(messages, "the spool has uplinks of an earlier run");
            }
            lanes.buried(found.letters, 0);
            lanes.backlog(found.backlog, found.next_number);
        }
    }

    fn append(&self, record: Record) {
        self.queue
            .put_urgent(|batch| batch.ops.push(Op::Append(record)));
    }

    fn remove(&self, place: Place) {
        self.queue.put_lazily(Op::Remove(place));
    }

    fn bury(&self, number: u64, letter: DeadLetter) {
        self.queue.put_lazily(Op::Bury(number, Box::new(letter)));
    }

    fn load(&self, client_id: ClientId, after: Option<u64>, cost: usize) {
        let load = Load {
            client_id,
            after,
            cost,
        };
        self.queue.put_urgent(|batch| batch.loads.push(load));
    }

    fn dead_letters(
        &self,
        after: Option<Uuid>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>>> {
        Box::pin(self.ask(move |batch, answer| batch.asks.push(Ask::Some(after, limit, answer))))
    }

    fn dead_letter(&self, id: Uuid) -> BoxFuture<'_, Result<Option<DeadLetter>>> {
        Box::pin(self.ask(move |batch, answer| batch.asks.push(Ask::One(id, answer))))
    }

    fn replay(&self, id: Uuid) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.ask(move |batch, answer| batch.ops.push(Op::Replay(id, answer))))
    }

    fn drop_letter(&self, id: Uuid) -> BoxFuture<'_, Result<bool>> {
        Box::pin(self.ask(move |batch, answer| batch.ops.push(Op::DropLetter(id, answer))))
    }

    fn figures(&self) -> SpoolFigures {
        SpoolFigures {
            commits: self.queue.commits.snapshot(),
            file_bytes: Some(self.queue.file_bytes.load(Relaxed)),
        }
    }

    fn stop(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.queue.stop_by(deadline.into_std());
            let last_breath = deadline.max(Instant::now() + LAST_BREATH);
            let _ = timeout_at(last_breath, self.queue.ended.cancelled()).await;
        })
    }

    fn abort(&self) {
        self.queue.abort();
    }
}

impl Drop for DiskSpool {
    fn drop(&mut self) {
        self.abort();
    }
}

impl WorkQueue {
    /// For what someone waits for. Only the first of a batch wakes the thread.
    fn put_urgent(&self, put: impl FnOnce(&mut Batch)) {
        let mut queued = self.queued.lock();
        put(&mut queued.batch);
        if !std::mem::replace(&mut queued.is_urgent, true) {
            self.wake(&mut queued);
        }
    }

    fn put_lazily(&self, op: Op) {
        let mut queued = self.queued.lock();
        queued.batch.ops.push(op);
        if !queued.is_urgent && queued.lazy_since.is_none() {
            queued.lazy_since = Some(StdInstant::now());
            self.wake(&mut queued);
        }
    }

    fn wake(&self, queued: &mut Queued) {
        if std::mem::take(&mut queued.is_idle) {
            self.changed.notify_one();
        }
    }

    fn abort(&self) {
        self.stop_by(StdInstant::now() + ABORT_TIME);
    }

    fn stop_by(&self, deadline: StdInstant) {
        let mut queued = self.queued.lock();
        queued.stop_by = Some(
            queued
                .stop_by
                .map_or(deadline, |before| before.min(deadline)),
        );
        self.changed.notify_one(); // one that waits to try again is not idle
    }

    /// Waits for work, or until `wake_at`. `None`: all is done, and nothing more comes.
    fn next(&self, wake_at: Option<StdInstant>, mut gathering: Option<Gathering>) -> Option<Batch> {
        let mut queued = self.queued.lock();
        loop {
            if queued.is_urgent {
                match gathering
                    .take()
                    .filter(|gathering| gathering.is_for(&queued))
                {
                    Some(Gathering { time, .. }) => {
                        drop(queued);
                        thread::sleep(time);
                        queued = self.queued.lock();
                    }
                    None => return Some(queued.take()),
                }
                continue;
            }
            if queued.stop_by.is_some() {
                let batch = queued.take();
                return (!batch.is_empty()).then_some(batch);
            }
            let lazy_until = queued.lazy_since.map(|since| since + LAZY_TIME);
            let until = [lazy_until, wake_at].into_iter().flatten().min();
            if until.is_some_and(|until| until <= StdInstant::now()) {
                return Some(queued.take());
            }
            queued.is_idle = true;
            queued = match until {
                Some(until) => self.changed.wait_until(queued, until),
                None => self.changed.wait(queued),
            };
            queued.is_idle = false;
        }
    }

    /// Waits before another try, and adds what came meanwhile. `false`: the time to stop has come.
    fn wait_to_retry(&self, wait: Duration, batch: &mut Batch) -> bool {
        let mut queued = self.queued.lock();
        let retry_at = StdInstant::now() + wait;
        loop {
            let now = StdInstant::now();
            let until = queued
                .stop_by
                .map_or(retry_at, |stop_by| stop_by.min(retry_at));
            if until <= now {
                batch.add(queued.take());
                return queued.stop_by.is_none_or(|stop_by| now < stop_by);
            }
            queued = self.changed.wait_until(queued, until);
        }
    }

    fn lanes(&self) -> Option<Arc<dyn Settle>> {
        self.lanes.get().and_then(Weak::upgrade)
    }
}

impl Queued {
    fn take(&mut self) -> Batch {
        self.is_urgent = false;
        self.lazy_since = None;
        std::mem::take(&mut self.batch)
    }
}

impl Batch {
    fn appends(&self) -> usize {
        let is_append = |op: &&Op| matches!(op, Op::Append(_));
        self.ops.iter().filter(is_append).count()
    }

    fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.loads.is_empty() && self.asks.is_empty()
    }

    fn add(&mut self, other: Self) {
        self.ops.extend(other.ops);
        self.loads.extend(other.loads);
        self.asks.extend(other.asks);
    }

    /// Tells everyone who asks that it cannot be done now; what the lanes want stays.
    fn refuse(&mut self, fault: &Fault) {
        let failed = || {
            let text = format!("the spool cannot be used now: {fault}");
            Error::new(ErrorKind::Io, text)
        };
        for ask in self.asks.drain(..) {
            match ask {
                Ask::Some(_, _, answer) => drop(answer.send(Err(failed()))),
                Ask::One(_, answer) => drop(answer.send(Err(failed()))),
            }
        }
        for op in std::mem::take(&mut self.ops) {
            match op {
                Op::Replay(_, answer) | Op::DropLetter(_, answer) => {
                    drop(answer.send(Err(failed())))
                }
                op => self.ops.push(op),
            }
        }
    }
}

/// How a batch that comes right behind another gathers. A sync costs much the same however many messages it is for: where
/// they come one upon the other, a short wait makes fewer syncs, and all are through sooner.
struct Gathering {
    /// Only for one that comes until then.
    until: StdInstant,
    time: Duration,
}

impl Gathering {
    fn is_for(&self, queued: &Queued) -> bool {
        queued.stop_by.is_none()
            && queued.batch.appends() < GATHER_ENOUGH
            && StdInstant::now() < self.until
    }
}

/// The thread that writes.
struct Writer {
    queue: Arc<WorkQueue>,
    store: Store,
    reports: Reports,
    gathering: Option<Gathering>,
    is_failing: bool,
    expired_at: StdInstant,
}

impl Writer {
    fn new(queue: Arc<WorkQueue>, store: Store, reports: Reports) -> Self {
        Self {
            queue,
            store,
            reports,
            gathering: None,
            is_failing: false,
            expired_at: StdInstant::now(),
        }
    }

    fn run(mut self) {
        self.store.keep_reserve();
        self.queue
            .file_bytes
            .store(self.store.file_bytes(), Relaxed);
        while let Some(mut batch) = self.queue.next(self.wake_at(), self.gathering.take()) {
            if self.store.has_letters() && self.expired_at.elapsed() >= EXPIRY_TIME {
                self.expired_at = StdInstant::now();
                batch.ops.push(Op::Expire);
            }
            let (began, is_lone) = (StdInstant::now(), batch.appends() < 2);
            if !self.finish(batch) {
                break;
            }
            if self.store.syncs_each() && !is_lone {
                let took = began.elapsed();
                self.gathering = Some(Gathering {
                    until: began + took * 4,
                    time: GATHER_MAX.min(took / 2),
                });
            }
        }
        self.store.close();
    }

    /// When to look even if nothing comes.
    fn wake_at(&self) -> Option<StdInstant> {
        let expiry = self
            .store
            .has_letters()
            .then(|| self.expired_at + EXPIRY_TIME);
        [self.store.sync_at(), expiry].into_iter().flatten().min()
    }

    /// Does all of a batch, however often it takes. `false`: it is time to stop first.
    fn finish(&mut self, mut batch: Batch) -> bool {
        let mut tries = 0;
        while let Err(fault) = self.try_batch(&mut batch) {
            tries += 1;
            self.fail(&fault);
            batch.refuse(&fault);
            if self.go_on(&mut batch) {
                tries = 1; // there may be room soon
            }
            if !self.queue.wait_to_retry(RETRY.delay(tries), &mut batch) {
                return false;
            }
        }
        if std::mem::take(&mut self.is_failing) {
            tracing::warn!("the spool can be written again");
            self.reports.failing(false);
        }
        true
    }

    /// What is done leaves the batch; the rest is for the next try.
    fn try_batch(&mut self, batch: &mut Batch) -> Result<(), Fault> {
        let lanes = self.queue.lanes();
        let reserve = || lanes.as_ref().map_or(0, |lanes| lanes.reserve(1));
        let began = StdInstant::now();
        let outcome = self.store.write(&batch.ops, &reserve)?;
        if !batch.ops.is_empty() {
            self.queue.commits.observe(began.elapsed());
            self.queue
                .file_bytes
                .store(self.store.file_bytes(), Relaxed);
        }
        self.report(std::mem::take(&mut batch.ops), outcome);
        self.store.keep_synced()?;
        self.load(batch)?;
        while let Some(ask) = batch.asks.pop() {
            match ask {
                Ask::Some(after, limit, answer) => {
                    self.answer(answer, self.store.letters(after, limit)?)
                }
                Ask::One(id, answer) => self.answer(answer, self.store.letter(id)?),
            }
        }
        Ok(())
    }

    /// Reports what a transaction did, to the lanes and to those who asked.
    fn report(&self, ops: Vec<Op>, outcome: Outcome) {
        let mut places = ops.iter().filter_map(|op| match op {
            Op::Append(record) => Some(record.place()),
            _ => None,
        });
        loop {
            let places: Vec<_> = places.by_ref().take(REPORT_MAX).collect();
            if places.is_empty() {
                break;
            }
            self.reports
                .put(places.len(), move |lanes| lanes.committed(&places));
        }
        let (replayed, dropped) = (outcome.replayed, outcome.dropped);
        if !replayed.is_empty() {
            self.reports
                .put(replayed.len(), move |lanes| lanes.recovered(replayed));
        }
        if let Some(letters) = outcome.letters {
            self.reports
                .put(0, move |lanes| lanes.buried(letters, dropped));
        }
        let mut found = outcome.found.into_iter();
        for op in ops {
            if let Op::Replay(_, answer) | Op::DropLetter(_, answer) = op {
                self.answer(answer, found.next().unwrap_or(false));
            }
        }
    }

    /// Goes the way of the reports: who gets it finds in the books what it speaks of.
    fn answer<T: Send + 'static>(&self, answer: Answer<T>, said: T) {
        self.reports.put(0, move |_| drop(answer.send(Ok(said))));
    }

    /// What there is to read, without what `batch` has yet to remove. What is read leaves the batch.
    fn load(&self, batch: &mut Batch) -> Result<(), Fault> {
        while let Some(Load {
            client_id,
            after,
            cost,
        }) = batch.loads.last()
        {
            let records = self.store.load(client_id, *after, *cost, &batch.ops)?;
            let client_id = client_id.clone();
            batch.loads.pop();
            self.reports.put(records.len(), move |lanes| {
                lanes.loaded(&client_id, records)
            });
        }
        Ok(())
    }

    /// Does what a full disk lets be done: removes and reads. So what is in the spool is delivered, and makes room for what waits.
    /// Whether anything was done.
    fn go_on(&mut self, batch: &mut Batch) -> bool {
        let (removals, others) = std::mem::take(&mut batch.ops)
            .into_iter()
            .partition::<Vec<_>, _>(|op| matches!(op, Op::Remove(_)));
        batch.ops = others;
        let has_removed = match self.store.make_room(&removals) {
            Ok(has_removed) => has_removed,
            Err(_) => {
                batch.ops.extend(removals);
                self.store.let_go();
                false
            }
        };
        let before = batch.loads.len();
        let read = self.store.reopen().and_then(|()| self.load(batch));
        if read.is_err() {
            self.store.let_go();
        }
        has_removed || batch.loads.len() < before
    }

    fn fail(&mut self, fault: &Fault) {
        self.store.let_go();
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(
                error = %fault, path = %self.store.path().display(),
                "the spool cannot be written; devices are read no further until it can"
            );
            self.reports.failing(true);
        }
    }
}

/// The thread on its way out. Its side of the reports is dropped last, and then the task ends, too.
struct Leaving(Reports);

impl Drop for Leaving {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("the thread of the spool panicked; nothing is taken any more");
            self.0.failing(true);
        }
    }
}

/// How long what nobody waits for waits for company.
const LAZY_TIME: Duration = Duration::from_millis(100);
/// So many messages in a batch need no company.
const GATHER_ENOUGH: usize = 16;
/// More would be felt where the disk is slow, and there a batch is large anyway.
const GATHER_MAX: Duration = Duration::from_micros(100);
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
const EXPIRY_TIME: Duration = Duration::from_secs(60);
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// What was handed over is written even if the bridge is dropped.
const ABORT_TIME: Duration = Duration::from_secs(1);
const LAST_BREATH: Duration = Duration::from_millis(100);
