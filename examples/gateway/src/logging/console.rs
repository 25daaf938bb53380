//! Stdout: a pipe that may stall, a terminal, or a file on a disk that may be full.

use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal, Write},
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    sinks::{RETRY_TIME, count_lines, dropped_lines},
    text::{Format, render},
};

/// Stdout. It may be a pipe that nobody reads, and must not be made non-blocking since others share it; so it is
/// asked before each write, and given no more than a pipe that says yes takes without blocking.
pub(super) struct Console {
    out: File,
    /// Whether lines become text, and with colours.
    text: Option<bool>,
    /// The most to write at once.
    most_bytes: usize,
    pending: Vec<u8>,
    written: usize,
    dropped: u64,
    /// Until when it is left alone: it has failed.
    retry_at: Option<Instant>,
    /// Why lines are dropped.
    reason: &'static str,
}

impl Console {
    pub(super) fn stdout(format: Format) -> io::Result<Self> {
        let mut console = Self::new(io::stdout().as_fd().try_clone_to_owned()?)?;
        let is_terminal = console.out.is_terminal();
        console.text = match format {
            Format::Json => None,
            Format::Text => Some(is_terminal),
            Format::Auto => is_terminal.then_some(true),
        };
        Ok(console)
    }

    pub(super) fn new(out: OwnedFd) -> io::Result<Self> {
        let out = File::from(out);
        let is_file = out.metadata()?.is_file();
        Ok(Self {
            out,
            text: None,
            most_bytes: if is_file { usize::MAX } else { PIPE_BYTES },
            pending: Vec::new(),
            written: 0,
            dropped: 0,
            retry_at: None,
            reason: STALLED,
        })
    }

    /// Whether lines wait.
    pub(super) fn is_behind(&self) -> bool {
        self.written < self.pending.len()
    }

    /// Takes lines, or counts them when too many wait.
    pub(super) fn offer(&mut self, lines: &[u8]) {
        if self.pending.len() - self.written >= PENDING_BYTES {
            self.dropped += count_lines(lines);
        } else {
            self.keep(lines);
        }
    }

    /// Keeps lines in the form that they are shown in.
    fn keep(&mut self, lines: &[u8]) {
        match self.text {
            None => self.pending.extend_from_slice(lines),
            Some(has_colours) => self.pending.extend(render(lines, has_colours)),
        }
    }

    /// Writes what can be written now. Of several failures in a row the first is told; what waits goes on waiting, and the
    /// next byte written is the one that failed, so no line is torn.
    pub(super) fn push_out(&mut self, now: Instant, tells: bool) -> io::Result<()> {
        if self.retry_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        loop {
            while self.is_behind() && self.can_write(Duration::ZERO) {
                let chunk = chunk(&self.pending[self.written..], self.most_bytes);
                match self.out.write(chunk) {
                    Ok(0) => return self.fail(ErrorKind::WriteZero.into(), now),
                    Ok(written) => {
                        self.written += written;
                        self.retry_at = None;
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return self.fail(e, now),
                }
            }
            self.pending.drain(..self.written);
            self.pending.shrink_to(PIPE_BYTES.max(self.pending.len()));
            self.written = 0;
            if self.dropped == 0 || self.is_behind() {
                return Ok(());
            }
            let dropped = std::mem::take(&mut self.dropped);
            let reason = std::mem::replace(&mut self.reason, STALLED);
            if tells {
                self.keep(&dropped_lines(dropped, reason));
            }
        }
    }

    /// Waits until it takes more, or for a time.
    pub(super) fn wait(&self, time: Duration) {
        match self.retry_at {
            // A file says at any time that it can be written.
            Some(at) => thread::sleep(
                at.saturating_duration_since(Instant::now())
                    .min(FAILED_TIME),
            ),
            None => drop(self.can_write(time)),
        }
    }

    fn fail(&mut self, error: io::Error, now: Instant) -> io::Result<()> {
        self.reason = FAILED;
        let is_first = self.retry_at.replace(now + RETRY_TIME).is_none();
        if is_first || error.kind() == ErrorKind::BrokenPipe {
            return Err(error);
        }
        Ok(())
    }

    /// Whether it takes bytes, or an error that a write will tell, within a time.
    fn can_write(&self, time: Duration) -> bool {
        let mut fds = [PollFd::new(&self.out, PollFlags::OUT)];
        let time = Timespec::try_from(time).ok();
        poll(&mut fds, time.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

/// The beginning of some lines: as many whole ones as fit, or as much of one as fits.
fn chunk(lines: &[u8], most_bytes: usize) -> &[u8] {
    if lines.len() <= most_bytes {
        return lines;
    }
    let lines = &lines[..most_bytes];
    let whole = lines.iter().rposition(|b| *b == b'\n');
    whole.map_or(lines, |end| &lines[..=end])
}

/// Nobody reads it fast enough.
const STALLED: &str = "stdout_stalled";
/// It cannot be written, as on a full disk.
const FAILED: &str = "stdout_failed";
/// What a pipe takes in one piece (PIPE_BUF), and without blocking once it says that it takes something.
const PIPE_BYTES: usize = 4096;
/// The most that waits for the console; below it, one more batch is taken.
const PENDING_BYTES: usize = 1 << 20;
/// How long other lines gather while it has failed.
const FAILED_TIME: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::{
        fs::OpenOptions,
        io::{BufRead, BufReader},
    };

    use super::*;

    #[test]
    fn a_stalled_console_keeps_some_lines_and_counts_the_rest() {
        let (reader, writer) = io::pipe().unwrap();
        let (mut console, now) = (Console::new(writer.into()).unwrap(), Instant::now());
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        let mut offered = 0;
        while console.dropped < 100 {
            console.offer(&line.repeat(10));
            console.push_out(now, true).unwrap();
            offered += 10;
        }
        let dropped = console.dropped;
        let lines = thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let lines = BufReader::new(reader).lines();
                lines.map(Result::unwrap).collect::<Vec<_>>()
            });
            while console.is_behind() {
                console.can_write(Duration::from_secs(1));
                console.push_out(now, true).unwrap();
            }
            drop(console);
            reading.join().unwrap()
        });
        let (last, whole) = lines.split_last().unwrap();
        assert!(whole.iter().all(|line| line.len() == 999));
        assert_eq!(whole.len() as u64, offered - dropped);
        let expected = format!("\"dropped\":{dropped},");
        assert!(last.contains(&expected) && last.contains(STALLED), "{last}");
    }

    #[test]
    fn one_that_fails_is_told_once_left_alone_for_a_while_and_goes_on_where_it_was() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (mut console, mut now) = (Console::new(full.into()).unwrap(), Instant::now());
        console.offer(b"1\n");
        assert_eq!(
            console.push_out(now, true).unwrap_err().kind(),
            ErrorKind::StorageFull
        );
        console.offer(&b"x\n".repeat(PENDING_BYTES));
        console.offer(b"too much\n");
        console.push_out(now, true).unwrap();
        now += RETRY_TIME;
        console.push_out(now, true).unwrap(); // tried again, and not told again

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        console.out = File::create(&path).unwrap();
        console.push_out(now, true).unwrap();
        assert!(std::fs::read(&path).unwrap().is_empty(), "it is left alone");
        now += RETRY_TIME;
        console.push_out(now, true).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with("1\nx\n") && !console.is_behind());
        let last = text.lines().last().unwrap();
        assert!(
            last.contains("\"dropped\":1,") && last.contains(FAILED),
            "{last}"
        );
    }

    #[test]
    fn a_chunk_ends_with_a_line_where_it_can() {
        assert_eq!(chunk(b"ab\ncd\n", 9), b"ab\ncd\n");
        assert_eq!(chunk(b"ab\ncd\n", 5), b"ab\n");
        assert_eq!(chunk(b"abcdef\n", 5), b"abcde");
    }
}
