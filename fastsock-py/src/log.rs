//! What the bridge logs, on its way to Python's `logging`: a `tracing` subscriber of this bridge's threads, never a global
//! one, and a bounded queue that is drained with the interpreter attached.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use fastsock::events::EventQueue;
use pyo3::{
    intern,
    prelude::*,
    types::{PyDict, PyTuple},
};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    dispatcher::DefaultGuard,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

use crate::{
    locks::{Mutex, RwLock},
    time::unix_seconds,
};

/// Records that wait for the interpreter, and which levels Python wants.
pub(crate) struct Log {
    /// Loggers by the target of what the core logs. Few: one per module.
    loggers: RwLock<HashMap<String, Arc<Logger>>>,
    /// The level of the logger `fastsock`, for targets not met before.
    root: AtomicU8,
    records: Mutex<VecDeque<Record>>,
    dropped: AtomicU64,
    payloads: Payloads,
    /// Whose descriptor wakes the drainer.
    queue: Arc<EventQueue>,
}

/// What becomes of the payloads in the log. They are never in its text, only in the fields of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Payloads {
    /// Cut.
    #[default]
    Capped,
    Full,
    None,
}

impl Payloads {
    /// The gateway's words for them; empty means the default.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "capped" => Some(Self::Capped),
            "full" => Some(Self::Full),
            "none" => Some(Self::None),
            _ => None,
        }
    }

    /// What may be shown of one.
    fn of(self, mut data: String) -> Option<String> {
        match self {
            Self::Full => Some(data),
            Self::None => None,
            Self::Capped => {
                if data.len() > PAYLOAD_BYTES {
                    let is_boundary = |end: &usize| data.is_char_boundary(*end);
                    let end = (0..=PAYLOAD_BYTES).rev().find(is_boundary);
                    data.truncate(end.unwrap_or(0));
                    data.push('…');
                }
                Some(data)
            }
        }
    }
}

/// One logger of Python and its level, as last looked up.
struct Logger {
    name: String,
    level: AtomicU8,
}

/// One line of the log.
struct Record {
    logger: Arc<Logger>,
    level: Level,
    at: SystemTime,
    file: &'static str,
    line: u32,
    text: Text,
}

impl Log {
    /// A log that wakes the drainer of this queue.
    pub(crate) fn new(
        py: Python<'_>,
        queue: Arc<EventQueue>,
        payloads: Payloads,
    ) -> PyResult<Arc<Self>> {
        Ok(Arc::new(Self {
            loggers: RwLock::default(),
            root: AtomicU8::new(level_of(py, ROOT)?),
            records: Mutex::default(),
            dropped: AtomicU64::new(0),
            payloads,
            queue,
        }))
    }

    /// What the threads of the bridge log to.
    pub(crate) fn dispatch(self: &Arc<Self>) -> Dispatch {
        Dispatch::new(Entrance(Arc::clone(self)))
    }

    /// How many records were dropped because nobody drained them in time.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Hands what has gathered to Python's `logging`. Returns how many.
    pub(crate) fn deliver(&self, py: Python<'_>) -> PyResult<usize> {
        let records = std::mem::take(&mut *self.records.lock());
        if records.is_empty() {
            return Ok(0);
        }
        let get_logger = py
            .import(intern!(py, "logging"))?
            .getattr(intern!(py, "getLogger"))?;
        let count = records.len();
        for record in records {
            if let Err(error) = record.deliver(py, &get_logger, self.payloads) {
                error.write_unraisable(py, None); // as `logging` itself does: the log never breaks what it tells of
            }
        }
        Ok(count)
    }

    /// Looks up the levels of all loggers again.
    pub(crate) fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        let loggers: Vec<_> = self.loggers.read().values().map(Arc::clone).collect();
        let root = level_of(py, ROOT)?;
        let mut has_changed = self.root.swap(root, Relaxed) != root;
        for logger in loggers {
            let level = level_of(py, &logger.name)?;
            has_changed |= logger.level.swap(level, Relaxed) != level;
        }
        if has_changed {
            // Callsites remember whether anybody wants them, so that what is off costs one load.
            py.detach(tracing::callsite::rebuild_interest_cache);
        }
        Ok(())
    }

    fn logger(&self, target: &str) -> Arc<Logger> {
        if let Some(logger) = self.loggers.read().get(target) {
            return Arc::clone(logger);
        }
        let mut loggers = self.loggers.write();
        let logger = loggers.entry(target.into()).or_insert_with(|| {
            Arc::new(Logger {
                name: target.replace("::", "."),
                level: AtomicU8::new(self.root.load(Relaxed)),
            })
        });
        Arc::clone(logger)
    }

    fn push(&self, record: Record) {
        let mut records = self.records.lock();
        if records.len() >= CAPACITY {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        records.push_back(record);
        if records.len() == 1 {
            drop(records);
            self.queue.wake();
        }
    }
}

impl Record {
    /// The text is the sentence and a place for each field, the same for each record of its kind; payloads have none.
    fn deliver(
        self,
        py: Python<'_>,
        get_logger: &Bound<'_, PyAny>,
        payloads: Payloads,
    ) -> PyResult<()> {
        let logger = get_logger.call1((&self.logger.name,))?;
        let level = number(self.level);
        if !logger
            .call_method1(intern!(py, "isEnabledFor"), (level,))?
            .is_truthy()?
        {
            return Ok(()); // switched off since
        }
        let fields = PyDict::new(py);
        let mut places = String::new();
        for (name, value) in self.text.fields {
            if name == PAYLOAD {
                if let Some(data) = payloads.of(value) {
                    fields.set_item(name, data)?;
                }
                continue;
            }
            let _ = write!(places, " {name}=%({name})s");
            fields.set_item(name, value)?;
        }
        // Without arguments `logging` takes the text as it is.
        let (text, args) = match fields.is_empty() {
            true => (self.text.message, PyTuple::empty(py)),
            false => (
                self.text.message.replace('%', "%%") + &places,
                PyTuple::new(py, [&fields])?,
            ),
        };
        let record = logger.call_method1(
            intern!(py, "makeRecord"),
            (
                &self.logger.name,
                level,
                self.file,
                self.line,
                text,
                args,
                py.None(),
            ),
        )?;
        let created = unix_seconds(self.at);
        record.setattr(intern!(py, "created"), created)?;
        record.setattr(intern!(py, "msecs"), (created.fract() * 1000.0).floor())?;
        record.setattr(intern!(py, "fields"), fields)?;
        logger.call_method1(intern!(py, "handle"), (record,))?;
        Ok(())
    }
}

/// The subscriber: what the bridge's threads log to.
struct Entrance(Arc<Log>);

impl Subscriber for Entrance {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let Some(target) = own_target(metadata) else {
            return false; // crates below us log for their own users
        };
        rank(*metadata.level()) <= self.0.logger(target).level.load(Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let loggers = self.0.loggers.read();
        let levels = loggers.values().map(|logger| logger.level.load(Relaxed));
        let most = levels.max().unwrap_or(0).max(self.0.root.load(Relaxed));
        Some(FILTERS[usize::from(most)])
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let Some(target) = own_target(metadata) else {
            return;
        };
        let mut text = Text::default();
        event.record(&mut text);
        self.0.push(Record {
            logger: self.0.logger(target),
            level: *metadata.level(),
            at: SystemTime::now(),
            file: metadata.file().unwrap_or(""),
            line: metadata.line().unwrap_or(0),
            text,
        });
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1) // spans are not shown
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Sends what this thread logs to the bridge's log, until the thread ends.
pub(crate) fn adopt_thread(dispatch: &Dispatch) {
    thread_local! {
        static ADOPTED: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
    }
    ADOPTED.set(Some(tracing::dispatcher::set_default(dispatch)));
}

/// The sentence and the fields of one event.
#[derive(Default)]
struct Text {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.message = value,
            name => self.fields.push((name, value)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// The target, if it is ours.
fn own_target<'a>(metadata: &Metadata<'a>) -> Option<&'a str> {
    let target = metadata.target();
    (target == ROOT || target.starts_with("fastsock::")).then_some(target)
}

/// The least important level that a logger of Python wants: 0 none, 5 all.
fn level_of(py: Python<'_>, name: &str) -> PyResult<u8> {
    let logger = py
        .import(intern!(py, "logging"))?
        .call_method1(intern!(py, "getLogger"), (name,))?;
    for level in LEVELS {
        if logger
            .call_method1(intern!(py, "isEnabledFor"), (number(level),))?
            .is_truthy()?
        {
            return Ok(rank(level));
        }
    }
    Ok(0)
}

fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// The level in Python's numbers. Single messages are below DEBUG.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

const ROOT: &str = "fastsock";
/// The least important one first.
const LEVELS: [Level; 5] = [
    Level::TRACE,
    Level::DEBUG,
    Level::INFO,
    Level::WARN,
    Level::ERROR,
];
const FILTERS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];
/// The field that holds a payload.
const PAYLOAD: &str = "data";
/// As many bytes of it as the gateway's log shows.
const PAYLOAD_BYTES: usize = 1024;
/// Records that wait at most.
const CAPACITY: usize = 4096;
