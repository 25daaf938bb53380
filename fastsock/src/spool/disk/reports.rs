//! What the thread reports to the lanes. A task of the runtime passes it on, in the same order: so a commit wakes the runtime once,
//! however many uplinks are in it, and all that it sets going begins inside the runtime.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::yield_now,
};

use super::{Settle, WorkQueue};

/// The thread's side. Without a limit, as what waits is bounded by those who wait for it: each session for one uplink, each lane
/// for one load.
#[derive(Clone)]
pub(super) struct Reports(UnboundedSender<Report>);

struct Report {
    /// About so many uplinks.
    uplinks: usize,
    tell: Tell,
}

type Tell = Box<dyn FnOnce(&dyn Settle) + Send>;

/// The task that passes reports on. Once it is gone, also when its runtime dropped it, so is the reason for the thread.
pub(super) struct Reporter {
    queue: Arc<WorkQueue>,
    reports: UnboundedReceiver<Report>,
}

pub(super) fn channel(queue: Arc<WorkQueue>) -> (Reports, Reporter) {
    let (sender, reports) = unbounded_channel();
    (Reports(sender), Reporter { queue, reports })
}

impl Reports {
    /// Has something told to the lanes, about so many uplinks, after all that was reported before.
    pub(super) fn put(&self, uplinks: usize, tell: impl FnOnce(&dyn Settle) + Send + 'static) {
        let tell = Box::new(tell);
        let _ = self.0.send(Report { uplinks, tell }); // without its task nobody is there to be told
    }

    pub(super) fn failing(&self, is_failing: bool) {
        self.put(0, move |lanes| lanes.failing(is_failing));
    }
}

impl Reporter {
    /// Ends when the thread has ended and all its reports are passed on.
    pub(super) async fn run(mut self) {
        let mut uplinks = 0;
        while let Some(report) = self.reports.recv().await {
            uplinks += report.uplinks;
            if self.pass_on(report).is_err() {
                return;
            }
            if uplinks >= REPORT_MAX {
                uplinks = 0;
                yield_now().await;
            }
        }
    }

    /// `Err`: that panicked.
    fn pass_on(&self, report: Report) -> Result<(), ()> {
        let Some(lanes) = self.queue.lanes() else {
            return Ok(());
        };
        catch_unwind(AssertUnwindSafe(|| (report.tell)(&*lanes))).map_err(|_| {
            tracing::error!("the task of the spool panicked; nothing is taken any more");
            lanes.failing(true);
        })
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.queue.abort();
        self.queue.ended.cancel();
    }
}

/// Uplinks of one report, told under one lock of the lanes; and how many the task tells of before others have their turn.
pub(super) const REPORT_MAX: usize = 256;
