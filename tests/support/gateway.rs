//! The gateway as a process: the real binary with a clean environment and a directory of its own.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tempfile::TempDir;

use crate::{DEADLINE, Process, eventually_within};

/// A running `fastsock`. Killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    process: Process,
    dir: TempDir,
    stdout: Arc<Mutex<Vec<String>>>,
    stderr: Arc<Mutex<Vec<String>>>,
    readers: [JoinHandle<()>; 2],
    addr: Option<SocketAddr>,
}

/// How to start a [`Gateway`].
#[derive(Debug)]
#[must_use]
pub struct GatewayBuilder {
    dir: TempDir,
    vars: Vec<(String, String)>,
    args: Vec<String>,
    descriptors: Option<(u32, u32)>,
    heeds_file_limit: bool,
}

impl Gateway {
    /// Begins with a free port for devices, no admin listener and nothing else set.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder {
            dir: TempDir::new().expect("a temporary directory"),
            vars: Vec::new(),
            args: Vec::new(),
            descriptors: None,
            heeds_file_limit: false,
        }
        .var("WEBSOCKET_PORT", "0")
        .var("FASTSOCK_ADMIN_ADDR", "off")
    }

    /// Where devices connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr.expect("it was started with start()")
    }

    /// Where its admin listener is, by the ready line. Panics when it has none.
    pub fn admin_addr(&self) -> SocketAddr {
        let ready = self.lines_with(READY).pop().expect("start() waited for it");
        let admin = ready["admin"].as_str().unwrap_or_default();
        let admin = admin.trim_start_matches("http://").parse().ok();
        admin.unwrap_or_else(|| panic!("no admin address: {ready}"))
    }

    /// Its working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process, for signals and figures.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What it has written to standard output, line by line.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lock().clone()
    }

    /// What it has written to standard error, line by line.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().clone()
    }

    /// Its log so far. Panics when a line is not a JSON object.
    pub fn lines(&self) -> Vec<Value> {
        parse(self.stdout().iter().map(String::as_str))
    }

    /// The log lines with this `message`.
    pub fn lines_with(&self, message: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| is_message(line, message));
        lines
    }

    /// The log file `logs/fastsock.log` so far, line by line, without one that is being written. Panics when a line is not a JSON object.
    pub fn log_file(&self) -> Vec<Value> {
        let path = self.dir().join("logs/fastsock.log");
        let text = fs::read_to_string(path).unwrap_or_default();
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        parse(whole.lines())
    }

    /// Waits for a log line with this `message`. Returns the first.
    pub async fn wait_line(&self, message: &str) -> Value {
        self.wait_line_where(message, |line| is_message(line, message))
            .await
    }

    /// Waits for a log line that fulfils a condition. Returns the first.
    pub async fn wait_line_where(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let found = self.find_line(DEADLINE, &condition).await;
        found.unwrap_or_else(|| panic!("no line within {DEADLINE:?}: {what}\n{}", self.output()))
    }

    /// Waits until it has ended. Returns its exit code, or `None` when a signal ended it.
    pub async fn exit_code(&mut self) -> Option<i32> {
        self.exit(DEADLINE).await.code()
    }

    /// Waits until it has ended and all it has written is read.
    pub async fn exit(&mut self, deadline: Duration) -> ExitStatus {
        let status = self.process.exit_within(deadline).await;
        eventually_within(deadline, "its output is read", async || {
            self.readers.iter().all(JoinHandle::is_finished)
        })
        .await;
        status
    }

    /// SIGTERM, and waits until it has ended. Returns its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        self.process.terminate();
        self.exit_code().await
    }

    /// Lets no write to a file reach beyond so many bytes, or lifts that again. For one that
    /// [heeds it](GatewayBuilder::heeds_file_limit).
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        let pid = Pid::from_raw(self.process.pid() as i32);
        prlimit(pid, Resource::Fsize, limit).expect("it is our child");
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// All it has written, for a failure.
    pub fn output(&self) -> String {
        let tail = |lines: Vec<String>| lines[lines.len().saturating_sub(40)..].join("\n");
        format!(
            "stdout:\n{}\nstderr:\n{}",
            tail(self.stdout()),
            tail(self.stderr())
        )
    }

    async fn find_line(
        &self,
        deadline: Duration,
        condition: &impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let mut read = 0;
        let end = tokio::time::Instant::now() + deadline;
        while tokio::time::Instant::now() < end {
            let fresh: Vec<_> = self.stdout.lock()[read..].to_vec();
            read += fresh.len();
            let mut lines = fresh
                .iter()
                .filter_map(|line| serde_json::from_str(line).ok());
            if let Some(line) = lines.find(|line| condition(line)) {
                return Some(line);
            }
            tokio::time::sleep(fastsock_servers::POLL).await; // polls the log
        }
        None
    }

    /// Waits for the ready line and takes the port from it.
    async fn ready(&mut self) {
        let (stdout, process) = (Arc::clone(&self.stdout), &mut self.process);
        let ready = eventually_within(DEADLINE, "the gateway is ready", async || {
            if process.try_exit().is_some() {
                return Some(None);
            }
            let lines = stdout.lock();
            let mut lines = lines
                .iter()
                .filter_map(|line| serde_json::from_str(line).ok());
            lines.find(|line| is_message(line, READY)).map(Some)
        })
        .await;
        let Some(ready) = ready else {
            panic!("the gateway has ended\n{}", self.output());
        };
        let port = ready["message"]
            .as_str()
            .and_then(|text| text.rsplit(':').next());
        let port: u16 = port
            .and_then(|port| port.trim_end_matches('/').parse().ok())
            .unwrap_or_else(|| panic!("no port: {ready}"));
        self.addr = Some((Ipv4Addr::LOCALHOST, port).into());
    }
}

impl GatewayBuilder {
    /// Sets an environment variable.
    pub fn var(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.retain(|(n, _)| n != name);
        self.vars.push((name.into(), value.into()));
        self
    }

    /// Leaves an environment variable unset, also one that is set by default.
    pub fn without(mut self, name: &str) -> Self {
        self.vars.retain(|(n, _)| n != name);
        self
    }

    /// Adds the admin listener on a free port.
    pub fn admin(self) -> Self {
        self.var("FASTSOCK_ADMIN_ADDR", "127.0.0.1:0")
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Bounds its open files by a soft and a hard limit, as `ulimit -n` does.
    pub fn descriptors(mut self, soft: u32, hard: u32) -> Self {
        self.descriptors = Some((soft, hard));
        self
    }

    /// Puts a file, such as `.env`, into its working directory.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.dir.path().join(name), content).expect("written");
        self
    }

    /// The working directory it will have.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Lets a write beyond RLIMIT_FSIZE fail instead of ending it, so that [`Gateway::limit_files`] is a full disk.
    pub fn heeds_file_limit(mut self) -> Self {
        self.heeds_file_limit = true;
        self
    }

    /// Starts it and waits until it is ready. Panics with its output when it is not.
    pub async fn start(self) -> Gateway {
        let mut gateway = self.launch();
        gateway.ready().await;
        gateway
    }

    /// Starts it without waiting for anything: for one that is expected to fail.
    pub fn launch(self) -> Gateway {
        let binary = gateway_binary();
        let program = match self.descriptors {
            None if self.heeds_file_limit => Path::new("sh"),
            None => binary.as_path(),
            Some(_) => Path::new("prlimit"), // becomes the gateway, under the same process id
        };
        let mut process = Process::start(&program.to_string_lossy(), |command| {
            if let Some((soft, hard)) = self.descriptors {
                command.arg(format!("--nofile={soft}:{hard}")).arg(&binary);
            } else if self.heeds_file_limit {
                let ignore = "trap '' XFSZ; exec \"$0\" \"$@\""; // what is ignored stays so
                command.arg("-c").arg(ignore).arg(&binary);
            }
            command
                .env_clear()
                .envs(self.vars)
                .args(self.args)
                .current_dir(self.dir.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        });
        let (stdout, stderr) = process.take_output();
        let (stdout, stdout_reader) = collect(stdout.expect("it is piped"));
        let (stderr, stderr_reader) = collect(stderr.expect("it is piped"));
        Gateway {
            stdout,
            stderr,
            readers: [stdout_reader, stderr_reader],
            process,
            dir: self.dir,
            addr: None,
        }
    }
}

/// The gateway that was built with these tests; see `[[bin]]` in their Cargo.toml.
pub fn gateway_binary() -> PathBuf {
    let tests = env::current_exe().expect("a process knows its program");
    let dirs = tests.ancestors().skip(1).take(2); // target/<profile>/deps, target/<profile>
    let found = dirs
        .flat_map(|dir| ["gateway-under-test", "fastsock"].map(|name| dir.join(name)))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "no gateway beside {}; `cargo build --workspace` with the same profile makes one",
            tests.display()
        )
    })
}

/// Reads lines on a thread of its own until the other end is closed.
fn collect(pipe: impl Read + Send + 'static) -> (Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let lines = Arc::<Mutex<Vec<String>>>::default();
    let collected = Arc::clone(&lines);
    let reader = thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            collected.lock().push(text);
            line.clear();
        }
    });
    (lines, reader)
}

fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Value> {
    lines
        .map(|line| {
            let value = serde_json::from_str(line).ok().filter(Value::is_object);
            value.unwrap_or_else(|| panic!("not a JSON object: {line:?}"))
        })
        .collect()
}

/// Whether a log line says this, or begins with it when it is the ready line.
fn is_message(line: &Value, message: &str) -> bool {
    let text = line["message"].as_str().unwrap_or_default();
    text == message || (message == READY && text.starts_with(READY))
}

/// How the ready line begins; `ws` or `wss`, and the port follow.
const READY: &str = "WebSocket server running on ws";
