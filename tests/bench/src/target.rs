//! The programs under test and the Redis they use, each a process of its own with a directory of its own.

use std::{
    env, fs,
    io::{self, Error, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::Range,
    path::Path,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A command that the nine environment variables set up.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// What tables call it.
    pub(crate) name: String,
    /// Program and arguments.
    words: Vec<String>,
    /// Variables beyond the nine.
    vars: Vec<(String, String)>,
}

/// What a gateway is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) redis_port: u16,
    pub(crate) remote_url: String,
    pub(crate) ping_interval_ms: u32,
    /// Whether devices come under TLS, and whether they resume sessions then.
    pub(crate) is_tls: bool,
    pub(crate) resumes: bool,
    /// Further variables of one scenario.
    pub(crate) vars: Vec<(&'static str, String)>,
}

/// A gateway that listens. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    pub(crate) port: u16,
    /// When it was told to start.
    pub(crate) started: Instant,
}

/// A `redis-server` that saves nothing. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Process,
    pub(crate) port: u16,
}

#[derive(Debug)]
struct Process {
    child: Child,
    name: String,
    dir: TempDir,
}

impl Target {
    /// A command line; words that name a file here are found from the server's own directory as well.
    pub(crate) fn new(name: &str, command: &str, vars: &[(String, String)]) -> io::Result<Self> {
        let words: Vec<String> = command
            .split_whitespace()
            .map(|word| match fs::canonicalize(word) {
                Ok(path) => path.to_string_lossy().into_owned(),
                Err(_) => word.to_owned(),
            })
            .collect();
        if words.is_empty() {
            return Err(Error::other(format!("{name}: no command")));
        }
        Ok(Self {
            name: name.to_owned(),
            words,
            vars: vars.to_vec(),
        })
    }

    /// A server of this program that does the least: `bare` the whole job, `echo` and `tls-echo` only an echo.
    pub(crate) fn bare(role: &str) -> io::Result<Self> {
        let program = env::current_exe()?.to_string_lossy().into_owned();
        Ok(Self {
            name: role.to_owned(),
            words: vec![program, role.to_owned()],
            vars: Vec::new(),
        })
    }

    /// Whether it carries messages to the backend and back, and does not only echo.
    pub(crate) fn carries(&self) -> bool {
        !self.name.ends_with("echo")
    }

    /// Starts it on a free port and waits until it listens.
    pub(crate) fn start(&self, settings: &Settings) -> io::Result<Server> {
        self.start_on(settings, free_port()?)
    }

    /// Starts it on a port and waits until something listens there.
    pub(crate) fn start_on(&self, settings: &Settings, port: u16) -> io::Result<Server> {
        let mut command = bound_to_us(&self.words[0]);
        command
            .args(&self.words[1..])
            .env("WEBSOCKET_PORT", port.to_string())
            .env(
                "WEBSOCKET_PING_INTERVAL",
                settings.ping_interval_ms.to_string(),
            )
            .env("REMOTE_URL", &settings.remote_url)
            .env("REMOTE_HEADERS", "{}")
            .env("REDIS_HOST", "127.0.0.1")
            .env("REDIS_PORT", settings.redis_port.to_string())
            .env("REDIS_DB", "0")
            .env("REDIS_PREFIX", PREFIX)
            .env("LOG_LEVEL", "error")
            .env("FASTSOCK_ADMIN_ADDR", "off")
            .envs(settings.vars.iter().map(|(name, value)| (*name, value)))
            .envs(self.vars.iter().map(|(name, value)| (name, value)));
        let started = Instant::now();
        let process = Process::start(&self.name, command)?;
        let mut server = Server {
            process,
            port,
            started,
        };
        server.process.wait_for(port)?;
        Ok(server)
    }
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Where devices connect. Several loopback addresses give more ports than one has.
    pub(crate) fn addr(&self, device: usize) -> SocketAddr {
        let last = 1 + (device % 4) as u8;
        (Ipv4Addr::new(127, 0, 0, last), self.port).into()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) -> io::Result<()> {
        Ok(kill_process(
            Pid::from_child(&self.process.child),
            Signal::TERM,
        )?)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.process.child.try_wait()?.is_some())
    }
}

impl Redis {
    pub(crate) fn start() -> io::Result<Self> {
        let port = free_port()?;
        let mut command = bound_to_us("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--loglevel", "warning", "--port", &port.to_string()]);
        let process = Process::start("redis-server", command)?;
        let mut redis = Self { process, port };
        redis.process.wait_for(port)?;
        Ok(redis)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// How many slow subscribers it has closed since it started (Redis 7 counts them).
    pub(crate) fn cut_off(&self) -> io::Result<u64> {
        let mut link = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        link.write_all(b"INFO stats\r\nQUIT\r\n")?;
        let mut reply = String::new();
        link.read_to_string(&mut reply)?;
        let name = "client_output_buffer_limit_disconnections:";
        let count = reply.lines().find_map(|line| line.strip_prefix(name));
        Ok(count.and_then(|n| n.trim().parse().ok()).unwrap_or(0))
    }
}

impl Process {
    /// Starts a program that is killed when this one dies.
    fn start(name: &str, mut command: Command) -> io::Result<Self> {
        let dir = TempDir::new()?;
        let log = fs::File::create(dir.path().join(OUTPUT))?;
        command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .map_err(|error| Error::new(error.kind(), format!("{name}: {error}")))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            dir,
        })
    }

    fn wait_for(&mut self, port: u16) -> io::Result<()> {
        let deadline = Instant::now() + START_TIME;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.trouble(&format!("ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(self.trouble("does not listen"));
            }
            thread::sleep(Duration::from_millis(1)); // polls until it listens
        }
        Ok(())
    }

    fn trouble(&self, what: &str) -> Error {
        let output = fs::read_to_string(self.dir.path().join(OUTPUT)).unwrap_or_default();
        Error::other(format!("{} {what}\n{output}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// A command, run by `setpriv --pdeathsig KILL` where there is one, which executes it in its own place.
fn bound_to_us(program: &str) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !setpriv.exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// A port below those that the kernel gives to outgoing connections.
fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = process::id().wrapping_mul(97);
    for _ in 0..PORTS.len() {
        let n = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (n % PORTS.len() as u32) as u16;
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(ErrorKind::AddrInUse.into())
}

/// What all keys and channels begin with.
pub(crate) const PREFIX: &str = "bench";
const PORTS: Range<u16> = 10_000..32_000;
const OUTPUT: &str = "output";
const START_TIME: Duration = Duration::from_secs(20);
