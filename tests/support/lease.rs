//! A file that cannot be opened for a while, as on a mount whose server is gone.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// A write lease on a file (F_SETLEASE of fcntl(2)): whoever opens it waits, for as long as the kernel lets the holder have it (45 s,
/// /proc/sys/fs/lease-break-time), or until this is dropped.
#[derive(Debug)]
pub struct Lease(Child);

impl Lease {
    /// Takes the lease of a file once nobody has it open. Linux only; not on every kind of file system.
    pub fn take(path: &Path) -> Self {
        let mut holder = Command::new("python3")
            .args(["-c", HOLDER])
            .arg(path)
            .stdin(Stdio::piped()) // it ends with us
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/setup installs python3");
        let stdout = holder.stdout.take().expect("it is piped");
        let mut told = String::new();
        let read = BufReader::new(stdout).read_line(&mut told);
        assert!(
            read.is_ok() && told == "held\n",
            "{} can have no lease",
            path.display()
        );
        Self(holder)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const HOLDER: &str = r#"
import fcntl, os, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)  # somebody would like to have it
fd = os.open(sys.argv[1], os.O_RDWR)
for attempt in range(1000):
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        break
    except BlockingIOError:  # somebody is reading it just now
        time.sleep(0.01)
else:
    sys.exit("somebody has it open")
print("held", flush=True)
sys.stdin.read()
"#;
