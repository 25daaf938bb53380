//! Files of the settings, read where a read that hangs holds up nobody: a named pipe that nobody writes to, a mount whose server is gone.
//! Nothing can end such a read, so it has a thread of its own, which ends when the read does.

pub(crate) mod stamp;

use std::{
    fs,
    io::{self, ErrorKind::TimedOut, Read},
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::{
    locks::{Condvar, Mutex},
    tasks,
};

/// How long files may take at the start and at a reload.
pub(crate) const LONGEST: Duration = Duration::from_secs(10);

/// What a file holds. For threads that may wait: see the rest of this module.
///
/// # Errors
/// What the system says; and when it is no file, such as a named pipe, or too long.
pub(crate) fn read(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path)?;
    file.take(most_bytes + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most_bytes {
        true => Err(io::Error::other(format!(
            "it is over {} MiB",
            most_bytes >> 20
        ))),
        false => Ok(bytes),
    }
}

/// Does something that reads files, on a thread of its own.
///
/// # Errors
/// When there is no thread for it, or it panicked.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    tasks::detach(THREAD, move || drop(done.send(work())))?;
    result.await.map_err(io::Error::other)
}

/// As [`aside`], for a caller that may wait.
///
/// # Errors
/// As there; and `TimedOut` after [`LONGEST`].
pub(crate) fn within<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = mpsc::sync_channel(1);
    tasks::detach(THREAD, move || drop(done.send(work())))?;
    result.recv_timeout(LONGEST).map_err(|e| match e {
        mpsc::RecvTimeoutError::Timeout => too_long(),
        mpsc::RecvTimeoutError::Disconnected => io::Error::other(e),
    })
}

/// Reads the same again and again, on a thread that ends when this is dropped, or when the read that hangs does.
pub(crate) struct Reader<T> {
    asks: mpsc::Sender<oneshot::Sender<T>>,
    /// The read that is on its way.
    pending: Option<oneshot::Receiver<T>>,
}

impl<T: Send + 'static> Reader<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the system says when it makes no more threads.
    pub(crate) fn start(mut read: impl FnMut() -> T + Send + 'static) -> io::Result<Self> {
        let (asks, asked) = mpsc::channel::<oneshot::Sender<T>>();
        tasks::detach(THREAD, move || {
            while let Ok(done) = asked.recv() {
                let _ = done.send(read());
            }
        })?;
        Ok(Self {
            asks,
            pending: None,
        })
    }

    /// Reads. When it takes longer than `time`, the next call waits for the same read.
    ///
    /// # Errors
    /// `TimedOut`; anything else when the thread has panicked.
    pub(crate) async fn read(&mut self, time: Duration) -> io::Result<T> {
        let mut pending = self.pending.take().unwrap_or_else(|| {
            let (done, pending) = oneshot::channel();
            let _ = self.asks.send(done); // if nobody listens, the answer will tell
            pending
        });
        match timeout(time, &mut pending).await {
            Ok(read) => read.map_err(io::Error::other),
            Err(_) => {
                self.pending = Some(pending);
                Err(io::Error::new(
                    TimedOut,
                    format!("not read within {} ms", time.as_millis()),
                ))
            }
        }
    }
}

/// Lets one at a time read; whoever hangs keeps the others out, so that they do not all hang.
#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "only certificates are reloaded")
)]
#[derive(Default)]
pub(crate) struct Turns(Arc<(Mutex<bool>, Condvar)>);

/// A turn, given back when dropped.
#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "only certificates are reloaded")
)]
pub(crate) struct Turn(Arc<(Mutex<bool>, Condvar)>);

#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "only certificates are reloaded")
)]
impl Turns {
    /// Waits for a turn, for [`LONGEST`].
    ///
    /// # Errors
    /// `TimedOut`.
    pub(crate) fn take(&self) -> io::Result<Turn> {
        let (is_taken, given_back) = &*self.0;
        let mut is_taken =
            given_back.wait_while_for(is_taken.lock(), LONGEST, |is_taken| *is_taken);
        match std::mem::replace(&mut *is_taken, true) {
            true => Err(too_long()),
            false => Ok(Turn(self.0.clone())),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.0.lock() = false;
        self.0.1.notify_one();
    }
}

/// What is said after [`LONGEST`].
pub(crate) fn too_long() -> io::Error {
    let text = "a file was not read within 10 s; is it a pipe, or is its mount gone?";
    io::Error::new(TimedOut, text)
}

const THREAD: &str = "fastsock-files";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_a_size_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "12345678").unwrap();
        assert_eq!(read(&path, 8).unwrap(), b"12345678");
        assert!(
            read(&path, 7)
                .unwrap_err()
                .to_string()
                .contains("it is over")
        );
        let no_file = read(directory.path(), 8).unwrap_err().to_string();
        assert_eq!(no_file, "it is not a regular file");
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        let no_file = read(&pipe, 8).unwrap_err().to_string();
        assert_eq!(no_file, "it is not a regular file");
    }

    #[tokio::test]
    async fn a_read_that_hangs_is_waited_for_again_and_is_the_only_one() {
        let (let_on, wait) = mpsc::channel::<u32>();
        let mut reader = Reader::start(move || wait.recv().unwrap()).unwrap();
        for _ in 0..3 {
            let late = reader.read(Duration::from_millis(5)).await.unwrap_err();
            assert_eq!(late.kind(), TimedOut);
        }
        for number in [1, 2] {
            let_on.send(number).unwrap();
            assert_eq!(reader.read(LONGEST).await.unwrap(), number);
        }
        drop(reader);
        // The thread has ended, and so has what it held.
        while let_on.send(3).is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn turns_are_one_at_a_time() {
        let turns = Arc::new(Turns::default());
        let turn = turns.take().unwrap();
        let others = turns.clone();
        let other = std::thread::scope(|scope| {
            let other = scope.spawn(|| others.take().is_ok());
            drop(turn);
            other.join().unwrap()
        });
        assert!(other && turns.take().is_ok());
    }
}
