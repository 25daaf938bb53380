//! The command in a directory and an environment of its own.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Stdio},
    sync::Arc,
};

pub(crate) use fastsock_servers::free_port;
use fastsock_servers::{DEADLINE, Settled, TempRedis};
use tempfile::TempDir;

/// `fastsock`, about to be started.
pub(crate) struct Command {
    command: std::process::Command,
    directory: Arc<TempDir>,
}

/// What a command that has ended said.
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Command {
    /// In an empty directory, with an empty environment.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fastsock"));
        command
            .env_clear()
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            command,
            directory: Arc::new(directory),
        }
    }

    /// The same, with any free port for devices and no admin listener.
    pub(crate) fn on_free_ports() -> Self {
        Self::new()
            .env("WEBSOCKET_PORT", "0")
            .env("FASTSOCK_ADMIN_ADDR", "off")
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.directory.path().join(name), text).unwrap();
        self
    }

    /// Lets no file grow beyond so many KiB, as `ulimit -f` does.
    pub(crate) fn file_limit(self, kib: u32) -> Self {
        self.through("prlimit", &format!("--fsize={}", kib * 1024))
    }

    /// Takes away what root may do beyond others, such as `net_bind_service`.
    pub(crate) fn without(self, capability: &str) -> Self {
        self.through("setpriv", &format!("--bounding-set=-{capability}"))
    }

    /// Has another program start it. Before any argument.
    fn through(mut self, program: &str, arg: &str) -> Self {
        let mut command = std::process::Command::new(program);
        command
            .arg(arg)
            .arg(self.command.get_program())
            .env_clear()
            .envs(self.command.get_envs().filter_map(|(k, v)| Some((k, v?))))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.command = command;
        self
    }

    /// The directory; it stays as long as this.
    pub(crate) fn directory(&self) -> Arc<TempDir> {
        self.directory.clone()
    }

    /// Runs it to its end.
    pub(crate) fn output(mut self) -> Output {
        let output = self.command.output().unwrap();
        Output {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts it.
    pub(crate) fn spawn(mut self) -> Process {
        let mut child = self.command.spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        Process {
            child,
            stdout,
            directory: self.directory,
        }
    }
}

/// `fastsock`, running. Killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdout: Option<BufReader<ChildStdout>>,
    pub(crate) directory: Arc<TempDir>,
}

impl Process {
    /// The next line of the log.
    pub(crate) fn line(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
    }

    /// The next line whose message begins so.
    pub(crate) fn wait_for(&mut self, message: &str) -> serde_json::Value {
        loop {
            let line = self.line();
            if line["message"].as_str().unwrap().starts_with(message) {
                return line;
            }
        }
    }

    /// Waits for the ready line and gives the port of devices.
    pub(crate) fn port(&mut self) -> u16 {
        let line = self.wait_for("WebSocket server running on ws://0.0.0.0:");
        let message = line["message"].as_str().unwrap();
        message.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Whether it has a handler for SIGTERM by now.
    pub(crate) fn takes_signals(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let caught = status
            .lines()
            .find_map(|l| l.strip_prefix("SigCgt:"))
            .unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << (15 - 1)) != 0
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let kill = std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status();
        assert!(kill.unwrap().success());
    }

    /// Waits for its end: the exit code, and what it still said.
    pub(crate) fn end(&mut self) -> Output {
        let mut stdout = String::new();
        if let Some(mut reader) = self.stdout.take() {
            reader.read_to_string(&mut stdout).unwrap();
        }
        let mut stderr = String::new();
        let pipe = self.child.stderr.as_mut().unwrap();
        pipe.read_to_string(&mut stderr).unwrap();
        let code = self.child.wait().unwrap().code();
        Output {
            code,
            stdout,
            stderr,
        }
    }

    /// The lines of the log file.
    pub(crate) fn log_file(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.directory.path().join("logs/fastsock.log"));
        let lines = text.unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is there; half a minute, since programs are started one after the other here.
pub(crate) fn wait_until<S: Settled>(what: &str, check: impl FnMut() -> S) -> S::Value {
    fastsock_servers::wait_until(3 * DEADLINE, what, check)
}

/// A redis-server that wants this password.
pub(crate) fn redis(password: &str) -> TempRedis {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let starting = TempRedis::builder().password(password).start();
    runtime.unwrap().block_on(starting)
}

/// A device on a raw socket.
pub(crate) struct Device {
    stream: TcpStream,
}

impl Device {
    pub(crate) fn connect(port: u16, token: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let head = format!(
            "GET /?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        Self { stream }
    }

    /// Sends a TEXT message of less than 64 KiB, masked with zeros.
    pub(crate) fn send(&mut self, text: &str) {
        let length = u16::try_from(text.len()).unwrap();
        let mut frame = vec![0x81];
        if length < 126 {
            frame.push(0x80 | length as u8);
        } else {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).unwrap();
    }

    /// Sends a ping and waits for its pong: all that was said before has been read.
    pub(crate) fn ping(&mut self) {
        self.stream.write_all(&[0x89, 0x80, 0, 0, 0, 0]).unwrap();
        let mut frame = [0x89, 0];
        while frame == [0x89, 0] {
            self.stream.read_exact(&mut frame).unwrap(); // a ping of the heartbeat may come first
        }
        assert_eq!(frame, [0x8a, 0]);
    }
}
