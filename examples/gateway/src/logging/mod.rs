//! The log of the program: what the bridge tells, as the original's JSON lines on stdout and in a file.

mod console;
pub(crate) mod file;
mod filter;
mod line;
pub(crate) mod rotation;
mod sinks;
pub(crate) mod text;
mod writer;

use std::{
    panic::{self, PanicHookInfo},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use tracing::{
    Dispatch, Event, Metadata, Subscriber, dispatcher::DefaultGuard, level_filters::LevelFilter,
    span, subscriber::Interest,
};

use crate::settings::Program;

use self::{
    filter::Filter,
    line::{Fields, Line},
    sinks::Sinks,
    writer::{Queue, Writer},
};

/// The importance of a line, as winston names it; a greater one matters less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Lost, and someone must act.
    Error,
    /// Unexpected, and recovered from.
    Warn,
    /// The life of the bridge and what passes through it.
    Info,
    /// Nothing here; winston has it.
    Http,
    /// Nothing here; winston has it.
    Verbose,
    /// The life of sessions.
    Debug,
    /// Everything.
    Silly,
}

impl Level {
    pub(super) const ALL: [Self; 7] = [
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Http,
        Self::Verbose,
        Self::Debug,
        Self::Silly,
    ];

    /// The level of a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Http => "http",
            Self::Verbose => "verbose",
            Self::Debug => "debug",
            Self::Silly => "silly",
        }
    }

    /// The level the original gave to what an event tells; the library is quieter about single devices and messages.
    fn of(metadata: &Metadata<'_>) -> Self {
        match metadata.name() {
            "client_connected"
            | "client_disconnected"
            | "client_timeouted"
            | "message_sent"
            | "message_forwarded" => Self::Info,
            "redis_disconnecting" => Self::Warn,
            "pong" => Self::Debug,
            _ => match *metadata.level() {
                tracing::Level::ERROR => Self::Error,
                tracing::Level::WARN => Self::Warn,
                tracing::Level::INFO => Self::Info,
                tracing::Level::DEBUG => Self::Debug,
                tracing::Level::TRACE => Self::Silly,
            },
        }
    }
}

/// What becomes of the `data` of logged messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payloads {
    /// Cut at 1 KiB.
    Capped,
    /// Whole.
    Full,
    /// Left out.
    None,
}

impl Payloads {
    const ALL: [Self; 3] = [Self::Capped, Self::Full, Self::None];

    /// What a word means.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|payloads| payloads.as_str() == text)
    }

    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Capped => "capped",
            Self::Full => "full",
            Self::None => "none",
        }
    }

    /// The most bytes of data in a line.
    fn most_bytes(self) -> usize {
        match self {
            Self::Capped => 1024,
            Self::Full => usize::MAX,
            Self::None => 0,
        }
    }
}

/// The running log. Dropping it writes what is queued, for at most half a second, and puts the panic hook back.
pub(crate) struct Logging {
    dispatch: Dispatch,
    filter: Arc<Filter>,
    is_global: bool,
    writer: Writer,
    panic_hook: Option<PanicHook>,
}

impl Logging {
    /// Starts the log: opens the file, starts the writer, takes the place of tracing's global subscriber if it is free.
    pub(crate) fn start(program: &Program) -> std::io::Result<Self> {
        let filter = Filter::new(program.log_level, program.log_payloads);
        let (sinks, trouble) = Sinks::open(program, &filter);
        let writer = Writer::start(sinks, &filter)?;
        if let Some(line) = trouble {
            writer.queue().push(&line);
        }
        let dispatch = Dispatch::new(Log {
            filter: filter.clone(),
            queue: writer.queue().clone(),
        });
        let is_global = tracing::dispatcher::set_global_default(dispatch.clone()).is_ok();
        Ok(Self {
            panic_hook: Some(PanicHook::install(writer.queue().clone())),
            dispatch,
            filter,
            is_global,
            writer,
        })
    }

    /// What has the log file opened anew: it was moved away. Whatever is logged from then on is in the new one.
    pub(crate) fn reopener(&self) -> impl Fn() + use<> {
        let queue = self.writer.queue().clone();
        move || queue.reopen()
    }

    /// What changes the level and what becomes of payloads.
    pub(crate) fn adjuster(&self) -> impl Fn(&Program) + Send + Clone + use<> {
        let filter = self.filter.clone();
        move |program| {
            if filter.set(program.log_level, program.log_payloads) {
                tracing::callsite::rebuild_interest_cache();
            }
        }
    }

    /// What makes a thread log here: nothing when all do, or a guard when the global subscriber is someone else's, such
    /// as the one of an earlier run in this process.
    pub(crate) fn entrance(&self) -> impl Fn() -> Option<DefaultGuard> + Send + Sync + use<> {
        let dispatch = (!self.is_global).then(|| self.dispatch.clone());
        move || dispatch.as_ref().map(tracing::dispatcher::set_default)
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.panic_hook = None;
        self.writer.close(FLUSH_TIME);
        // The global subscriber stays for ever; from now on nothing is formatted for it.
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Turns events into lines. It knows no spans: the library has none.
struct Log {
    filter: Arc<Filter>,
    queue: Arc<Queue>,
}

impl Log {
    fn shows(&self, metadata: &Metadata<'_>) -> bool {
        let is_ours = metadata.target().starts_with("fastsock");
        let matters = is_ours || *metadata.level() <= tracing::Level::WARN;
        metadata.is_event()
            && matters
            && Level::of(metadata) <= self.filter.level()
            && !self.queue.is_closed()
    }
}

impl Subscriber for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.shows(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.shows(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.filter.level() {
            _ if self.queue.is_closed() => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            // The messages, which are TRACE to the library, are INFO here.
            _ => LevelFilter::TRACE,
        })
    }

    fn event(&self, event: &Event<'_>) {
        let level = Level::of(event.metadata());
        let mut line = Line::new(SystemTime::now(), level);
        event.record(&mut Fields::new(
            &mut line,
            self.filter.payloads().most_bytes(),
        ));
        self.queue.push(&line.finish());
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Logs panics in place of printing them, until it is dropped.
struct PanicHook {
    previous: Option<Hook>,
}

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

impl PanicHook {
    fn install(queue: Arc<Queue>) -> Self {
        let previous = Some(panic::take_hook());
        #[expect(clippy::disallowed_methods, reason = "this program is the host")]
        panic::set_hook(Box::new(move |info| queue.push(&panic_line(info))));
        Self { previous }
    }
}

impl Drop for PanicHook {
    fn drop(&mut self) {
        // Setting a hook is not allowed while this thread panics.
        if let Some(previous) = self.previous.take()
            && !thread::panicking()
        {
            #[expect(clippy::disallowed_methods, reason = "this program is the host")]
            panic::set_hook(previous);
        }
    }
}

fn panic_line(info: &PanicHookInfo<'_>) -> Vec<u8> {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let said = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let thread = thread::current();
    let mut line = Line::new(SystemTime::now(), Level::Error);
    line.text("message", "A thread panicked");
    line.text("error", said.unwrap_or("no message"));
    line.text("thread", thread.name().unwrap_or("unnamed"));
    if let Some(location) = info.location() {
        line.text("location", &location.to_string());
    }
    line.finish()
}

/// How long the end of the program waits for lines to be written.
const FLUSH_TIME: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn program(directory: &std::path::Path, level: Level, payloads: Payloads) -> Program {
        Program {
            log_level: level,
            log_payloads: payloads,
            log_file: Some(directory.join("a/b/fastsock.log")),
            log_file_mode: None,
            log_format: text::Format::Json,
            log_rotate: rotation::Rotate::Off,
            log_keep: 0,
            runtime_workers: 1,
        }
    }

    /// The lines that the file holds after something was logged.
    fn logged(level: Level, payloads: Payloads, log: impl FnOnce()) -> Vec<serde_json::Value> {
        let directory = tempfile::tempdir().unwrap();
        let program = program(directory.path(), level, payloads);
        let filter = Filter::new(level, payloads);
        let (sinks, trouble) = Sinks::file_only(&program, &filter);
        assert!(trouble.is_none());
        let mut writer = Writer::start(sinks, &filter).unwrap();
        let queue = writer.queue().clone();
        let log_to = Log { filter, queue };
        tracing::subscriber::with_default(log_to, log);
        writer.close(Duration::from_secs(20));
        let text = std::fs::read_to_string(program.log_file.unwrap()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn everything() {
        tracing::error!(target: "fastsock::x", "e");
        tracing::warn!(target: "fastsock::x", "w");
        tracing::info!(target: "fastsock", "i");
        tracing::debug!(target: "fastsock::x", "d");
        tracing::trace!(target: "fastsock::x", "t");
        tracing::debug!(name: "client_connected", target: "fastsock::session", "c");
        tracing::trace!(name: "message_sent", target: "fastsock::messages", data = "x", "m");
        tracing::trace!(name: "pong", target: "fastsock::messages", "p");
        tracing::info!(target: "redis::x", "other i");
        tracing::warn!(target: "redis::x", "other w");
    }

    #[test]
    fn levels_are_the_originals() {
        for (level, expected) in [
            ("error", "e"),
            ("warn", "e w other w"),
            ("info", "e w i c m other w"),
            ("http", "e w i c m other w"),
            ("debug", "e w i d c m p other w"),
            ("silly", "e w i d t c m p other w"),
        ] {
            let level = Level::parse(level).unwrap();
            let lines = logged(level, Payloads::Capped, everything);
            let messages: Vec<_> = lines
                .iter()
                .map(|l| l["message"].as_str().unwrap())
                .collect();
            assert_eq!(messages.join(" "), expected, "{level:?}");
            for line in &lines {
                let expected = match line["message"].as_str().unwrap() {
                    "e" => "error",
                    "w" | "other w" => "warn",
                    "i" | "c" | "m" => "info",
                    "d" | "p" => "debug",
                    _ => "silly",
                };
                assert_eq!(line["level"], expected);
            }
        }
    }

    #[test]
    fn payloads_are_cut_kept_or_left_out() {
        let data = "ä".repeat(600);
        for (payloads, expected) in [
            (Payloads::Capped, Some("ä".repeat(512))),
            (Payloads::Full, Some(data.clone())),
            (Payloads::None, None),
        ] {
            let lines = logged(Level::Info, payloads, || {
                tracing::info!(target: "fastsock", data, other = data, "text");
                tracing::info!(target: "fastsock", data = %data, "display");
            });
            for line in &lines {
                assert_eq!(
                    line.get("data").and_then(|d| d.as_str()),
                    expected.as_deref()
                );
            }
            assert_eq!(lines[0]["other"], data.as_str());
        }
    }
}
