//! Where lines end up: the console and the file. Neither hinders the other, and each tells of the other's trouble.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Level, console::Console, file::LogFile, filter::Filter, line::Line, rotation::Rotation,
};
use crate::settings::Program;

/// Both of them.
pub(super) struct Sinks {
    console: Option<Console>,
    file: Option<LogFile>,
    filter: Arc<Filter>,
}

impl Sinks {
    /// Stdout and the file of the settings; with the line that tells that the file cannot be opened.
    pub(super) fn open(program: &Program, filter: &Arc<Filter>) -> (Self, Option<Vec<u8>>) {
        let (mut sinks, trouble) = Self::file_only(program, filter);
        sinks.console = Console::stdout(program.log_format).ok(); // it may be closed
        (sinks, trouble)
    }

    /// No stdout.
    pub(super) fn file_only(program: &Program, filter: &Arc<Filter>) -> (Self, Option<Vec<u8>>) {
        let rotation = Rotation {
            when: program.log_rotate,
            keep: program.log_keep,
        };
        let open = |path| LogFile::open(path, program.log_file_mode, rotation, Instant::now());
        let (file, trouble) = program.log_file.as_deref().map(open).unzip();
        let sinks = Self {
            console: None,
            file,
            filter: filter.clone(),
        };
        (sinks, trouble.flatten())
    }

    /// Writes whole lines; those that the console does not take now are kept for it, up to a bound.
    pub(super) fn write(&mut self, lines: &[u8]) {
        let (now, tells) = (Instant::now(), self.filter.tells());
        let file = self.file.as_mut();
        let trouble = file.and_then(|file| file.write(lines, now, tells));
        let Some(console) = &mut self.console else {
            return;
        };
        console.offer(lines);
        if let (Some(line), true) = (trouble, tells) {
            console.offer(&line);
        }
        match console.push_out(now, tells) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.console = None; // nobody reads it any more
            }
            Err(error) => {
                if let (Some(file), true) = (&mut self.file, tells) {
                    file.write(
                        &trouble_line("Console cannot be written", None, &error),
                        now,
                        tells,
                    );
                }
            }
        }
    }

    /// Opens the file anew, as whoever has moved it away asks for. Returns the line that tells that it cannot be.
    pub(super) fn reopen(&mut self) -> Option<Vec<u8>> {
        self.file.as_mut().and_then(|file| file.reopen().err())
    }

    /// Whether lines wait for the console.
    pub(super) fn is_behind(&self) -> bool {
        self.console.as_ref().is_some_and(Console::is_behind)
    }

    /// Waits until the console takes more.
    pub(super) fn wait(&self, time: Duration) {
        if let Some(console) = &self.console {
            console.wait(time);
        }
    }
}

/// The line that tells that a sink takes nothing.
pub(super) fn trouble_line(message: &str, path: Option<&str>, error: &io::Error) -> Vec<u8> {
    let mut line = Line::new(SystemTime::now(), Level::Warn);
    line.text("message", message);
    if let Some(path) = path {
        line.text("path", path);
    }
    line.text("error", &error.to_string());
    line.finish()
}

/// The line that tells how many are missing, and why.
pub(super) fn dropped_lines(dropped: u64, reason: &str) -> Vec<u8> {
    let mut line = Line::new(SystemTime::now(), Level::Warn);
    line.text("message", "Log lines dropped");
    line.raw("dropped", format_args!("{dropped}"));
    line.text("reason", reason);
    line.finish()
}

/// How many lines end in this.
pub(super) fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().filter(|b| **b == b'\n').count() as u64
}

/// How long a sink that has failed is left alone.
pub(super) const RETRY_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn sinks(console: Console) -> Sinks {
        Sinks {
            console: Some(console),
            file: None,
            filter: Filter::new(Level::Info, super::super::Payloads::None),
        }
    }

    #[test]
    fn a_console_that_nobody_reads_any_more_is_given_up() {
        let (reader, writer) = io::pipe().unwrap();
        let mut sinks = sinks(Console::new(writer.into()).unwrap());
        drop(reader);
        sinks.write(b"line\n");
        assert!(sinks.console.is_none());
    }

    #[test]
    fn a_console_on_a_full_disk_is_kept() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let mut sinks = sinks(Console::new(full.unwrap().into()).unwrap());
        sinks.write(b"line\n");
        assert!(sinks.is_behind());
    }
}
