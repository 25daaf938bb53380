//! What the bridge logs, handed to a callback: a `tracing` subscriber of this bridge's threads, never a global one.

use std::{cell::RefCell, ffi::c_void, sync::Arc, time::SystemTime};

use safer_ffi::derive_ReprC;
use serde_json::{Map, Value};
use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber,
    dispatcher::DefaultGuard,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

use crate::{
    guard::{Inside, Mark, inside},
    text::{fastsock_str, unix_ms},
    userdata::Userdata,
};

/// The level of a log line.
#[derive_ReprC]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum fastsock_level {
    /// Something is lost, or somebody must act.
    ERROR = 1,
    /// Unexpected, and the bridge goes on.
    WARN = 2,
    /// The life of the bridge.
    INFO = 3,
    /// The life of a session.
    DEBUG = 4,
    /// Single messages.
    TRACE = 5,
}

/// One line of the log. Valid until the callback returns.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_log {
    /// A fastsock_level.
    pub level: u32,
    /// 0.
    pub reserved: u32,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// The part of the library, such as "fastsock::session"; "fastsock::messages" for single messages.
    pub target: fastsock_str,
    /// A fixed sentence.
    pub message: fastsock_str,
    /// The fields, as a JSON object: {"client_id":"dev1","reason":"replaced"}.
    pub fields: fastsock_str,
}

/// Gets a line of the log. Any thread of the library calls it, several at once, and so does a thread that is inside a
/// call of the library. It must not block, and must not call the library: that answers HOOK.
pub type fastsock_log_hook =
    Option<unsafe extern "C" fn(userdata: *mut c_void, line: *const fastsock_log)>;

/// The subscriber behind the callback.
pub(crate) struct Log {
    pub(crate) hook: unsafe extern "C" fn(*mut c_void, *const fastsock_log),
    pub(crate) userdata: Arc<Userdata>,
    pub(crate) level: fastsock_level,
}

impl Log {
    fn filter(&self) -> LevelFilter {
        match self.level {
            fastsock_level::ERROR => LevelFilter::ERROR,
            fastsock_level::WARN => LevelFilter::WARN,
            fastsock_level::INFO => LevelFilter::INFO,
            fastsock_level::DEBUG => LevelFilter::DEBUG,
            fastsock_level::TRACE => LevelFilter::TRACE,
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Crates below us log for their own users.
        *metadata.level() <= self.filter() && metadata.target().starts_with("fastsock")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter())
    }

    fn event(&self, event: &Event<'_>) {
        if inside() == Inside::Callback {
            return; // what the callback itself causes
        }
        let mut line = Line::default();
        event.record(&mut line);
        let fields = Value::Object(line.fields).to_string();
        let record = fastsock_log {
            level: level(*event.metadata().level()) as u32,
            reserved: 0,
            time_ms: unix_ms(SystemTime::now()),
            target: fastsock_str::of(event.metadata().target()),
            message: fastsock_str::of(&line.message),
            fields: fastsock_str::of(&fields),
        };
        let _mark = Mark::set(Inside::Callback);
        // SAFETY: the host gave the function for this; the userdata is alive while `self` is.
        unsafe { (self.hook)(self.userdata.pointer(), &record) };
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1) // spans are not shown
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Sends what this thread logs to the bridge's callback, until the thread ends.
pub(crate) fn adopt_thread(log: &Dispatch) {
    THREAD.with_borrow_mut(|guard| *guard = Some(tracing::dispatcher::set_default(log)));
}

thread_local! {
    static THREAD: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

fn level(level: Level) -> fastsock_level {
    match level {
        Level::ERROR => fastsock_level::ERROR,
        Level::WARN => fastsock_level::WARN,
        Level::INFO => fastsock_level::INFO,
        Level::DEBUG => fastsock_level::DEBUG,
        Level::TRACE => fastsock_level::TRACE,
    }
}

/// The parts of one event.
#[derive(Default)]
struct Line {
    message: String,
    fields: Map<String, Value>,
}

impl Line {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.fields.insert(name.into(), value)),
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}
