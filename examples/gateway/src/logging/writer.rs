//! The queue between those who log and the one thread that writes. Logging never waits: what does not fit is counted.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    filter::Filter,
    sinks::{Sinks, dropped_lines},
};

/// Lines on their way to the writer.
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told when there are lines for a writer that waits, and when it shall end.
    has_news: Condvar,
    /// Told when the writer has ended.
    has_ended: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// Lines that did not fit.
    dropped: u64,
    /// Whether the writer waits for lines.
    is_waiting: bool,
    /// Whether the file is to be opened anew before the next lines are written.
    reopens: bool,
    /// Until when what is queued is written; set once nothing more is taken.
    closing: Option<Instant>,
    has_ended: bool,
}

/// What the writer takes from the queue at once.
struct Batch {
    dropped: u64,
    reopens: bool,
    closing: Option<Instant>,
}

impl Queue {
    /// Takes a line with its end. A queue below its bound takes one more, whatever its length.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.closing.is_some() {
            return;
        }
        if state.lines.len() >= QUEUE_BYTES {
            state.dropped += 1;
            return;
        }
        state.lines.extend_from_slice(line);
        if state.is_waiting {
            state.is_waiting = false;
            self.has_news.notify_one();
        }
    }

    /// Has the file opened anew: before whatever is pushed from now on is written. Does not wait.
    pub(super) fn reopen(&self) {
        let mut state = self.state.lock();
        state.reopens = true;
        state.is_waiting = false;
        self.has_news.notify_one();
    }

    /// Whether nothing more is taken.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closing.is_some()
    }

    /// Waits for lines, and a moment longer: the next ones are often near, and one write for many costs less.
    fn wait(&self) {
        let mut state = self.state.lock();
        if !state.lines.is_empty() || state.closing.is_some() || state.reopens {
            return;
        }
        state.is_waiting = true;
        while state.is_waiting {
            self.has_news.wait(&mut state);
        }
        if state.closing.is_none() {
            drop(state);
            thread::sleep(GATHER_TIME);
        }
    }

    /// Swaps an empty buffer for what is queued.
    fn take(&self, lines: &mut Vec<u8>) -> Batch {
        lines.clear();
        lines.shrink_to(QUEUE_BYTES);
        let mut state = self.state.lock();
        std::mem::swap(lines, &mut state.lines);
        Batch {
            dropped: std::mem::take(&mut state.dropped),
            reopens: std::mem::take(&mut state.reopens),
            closing: state.closing,
        }
    }
}

/// The thread that writes.
pub(super) struct Writer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts to write what is queued.
    pub(super) fn start(sinks: Sinks, filter: &Arc<Filter>) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            has_news: Condvar::new(),
            has_ended: Condvar::new(),
        });
        let (of_thread, filter) = (queue.clone(), filter.clone());
        let thread = thread::Builder::new()
            .name("fastsock-log".into())
            .spawn(move || {
                write_all(&of_thread, sinks, &filter);
                of_thread.state.lock().has_ended = true;
                of_thread.has_ended.notify_all();
            })?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Where lines go.
    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Takes no more lines, writes what is queued and ends the thread; a sink that does not move is left after `time`.
    pub(super) fn close(&mut self, time: Duration) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        let deadline = Instant::now() + time;
        let mut state = self.queue.state.lock();
        state.closing = Some(deadline);
        state.is_waiting = false;
        self.queue.has_news.notify_one();
        while !state.has_ended {
            if self
                .queue
                .has_ended
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                return; // it hangs in a write; the end of the process ends it
            }
        }
        drop(state);
        let _ = thread.join(); // it has ended; there is nothing to tell of it
    }
}

/// The life of the writer.
fn write_all(queue: &Queue, mut sinks: Sinks, filter: &Filter) {
    let mut lines = Vec::new();
    loop {
        if sinks.is_behind() {
            sinks.wait(BEHIND_TIME);
        } else {
            queue.wait();
        }
        let Batch {
            dropped,
            reopens,
            closing,
        } = queue.take(&mut lines);
        let is_last = lines.is_empty();
        let trouble = if reopens { sinks.reopen() } else { None };
        if filter.tells() {
            lines.extend(trouble.unwrap_or_default());
            if dropped > 0 {
                lines.extend(dropped_lines(dropped, "queue_full"));
            }
        }
        sinks.write(&lines);
        if let Some(deadline) = closing
            && is_last
            && (!sinks.is_behind() || Instant::now() >= deadline)
        {
            return;
        }
    }
}

/// The most that waits to be written.
const QUEUE_BYTES: usize = 4 << 20;
/// How long a woken writer lets lines gather.
const GATHER_TIME: Duration = Duration::from_millis(1);
/// How long lines wait while the console takes none.
const BEHIND_TIME: Duration = Duration::from_millis(10);
