//! A process that a test starts, and that never outlives it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::{DEADLINE, eventually_within};

/// A running child process. Dropping it kills it, by its process id and also when it is frozen; it dies as well when the
/// test process is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts a program, found through `PATH` or by its path; `configure` adds arguments, variables and the like.
    /// Panics when it cannot be started.
    pub fn start(program: &str, configure: impl FnOnce(&mut Command)) -> Self {
        let Some(path) = find(program) else {
            panic!("there is no {program}; `make setup` installs what the tests need");
        };
        let mut command = bound_to_us(&path);
        configure(&mut command);
        let child = spawn(command).unwrap_or_else(|error| panic!("{program}: {error}"));
        Self {
            child,
            name: program.into(),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is our child, so it exists");
    }

    /// SIGTERM: asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP: it keeps its sockets and does nothing, from the moment when this returns.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let _ = waitid(WaitId::Pid(Pid::from_child(&self.child)), stopped);
    }

    /// SIGCONT: it goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// How it ended, or `None` while it runs.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can always be asked")
    }

    /// Waits until it has ended, at most [`DEADLINE`].
    pub async fn exit(&mut self) -> ExitStatus {
        self.exit_within(DEADLINE).await
    }

    /// Waits until it has ended.
    pub async fn exit_within(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ({}) has ended", self.name, self.pid());
        eventually_within(deadline, &what, async || self.try_exit()).await
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = self.proc("status").expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let kib = line.and_then(|l| l.trim().strip_suffix("kB"));
        1024 * kib
            .and_then(|n| n.trim().parse::<u64>().ok())
            .expect("/proc/<pid>/status has VmRSS in kB")
    }

    /// Processor time it has used, user and system.
    pub fn cpu_time(&self) -> Duration {
        let stat = self.proc("stat").expect("it runs");
        // The name in parentheses may hold blanks; utime and stime are fields 14 and 15, counted from the pid.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|n| n.parse::<u64>().ok())
            .sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(Path::new("/proc").join(self.pid().to_string()).join("fd"))
            .expect("it runs")
            .count()
    }

    fn proc(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(Path::new("/proc").join(self.pid().to_string()).join(file))
    }
}

impl Process {
    /// Its standard output and error, when the command piped them. Each can be taken once.
    pub fn take_output(
        &mut self,
    ) -> (
        Option<std::process::ChildStdout>,
        Option<std::process::ChildStderr>,
    ) {
        (self.child.stdout.take(), self.child.stderr.take())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The program, run by `setpriv --pdeathsig KILL`, which executes it in its own place: it keeps the process id.
fn bound_to_us(program: &Path) -> Command {
    let Some(setpriv) = find("setpriv") else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

/// Spawns on a thread that lives as long as the process: the death signal above is that of the spawning *thread*.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::SyncSender<io::Result<Child>>);
    static NURSERY: OnceLock<mpsc::SyncSender<Order>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (orders, taken) = mpsc::sync_channel::<Order>(16);
        thread::spawn(move || {
            for (mut command, answer) in taken {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::sync_channel(1);
    nursery
        .send((command, answer))
        .expect("the thread never ends");
    child.recv().expect("the thread always answers")
}

/// The unit of `/proc/<pid>/stat`: USER_HZ, which is 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: u64 = 100;
