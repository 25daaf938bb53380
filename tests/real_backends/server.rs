//! Backends that are no code of ours: Node, gunicorn, uvicorn and nginx, and tinyproxy, each a process on a port of loopback.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use fastsock::Config;
use parking_lot::Mutex;
use serde_json::Value;
use support::{Authority, eventually, free_port};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// What answers, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    NodeTls,
    /// With a thread for each request (`gthread`).
    Gunicorn,
    GunicornTls,
    Uvicorn,
    UvicornTls,
    Nginx,
    NginxTls,
    NginxHttp2,
}

/// A running backend. It closes connections that were idle for a second (gunicorn: two), takes uplinks at `/uplink` and
/// events at `/events`, lets every device in at `/auth`, and has a JWK set at `/jwks`.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    port: u16,
    authority: Authority,
    seen: Arc<Mutex<Vec<Value>>>,
    running: Running,
    /// Files of its own; gone once it has ended.
    dir: TempDir,
}

/// A process, and the shell that ends it when this end of its standard input is closed: so it never outlives the test, nor
/// do its workers.
#[derive(Debug)]
struct Running(Child);

impl Server {
    /// Starts one and waits until it listens.
    pub(crate) async fn start(kind: Kind) -> Self {
        let (port, authority, dir) = (free_port(), Authority::new(), TempDir::new().unwrap());
        let seen = Arc::default();
        let running = Running::start(command(kind, port, &authority, dir.path()), &seen);
        let server = Self {
            kind,
            port,
            authority,
            seen,
            running,
            dir,
        };
        server.listens().await;
        server
    }

    /// Ends it, and starts it again on the same port.
    pub(crate) async fn restart(&mut self) {
        self.running.end();
        let command = command(self.kind, self.port, &self.authority, self.dir.path());
        self.running = Running::start(command, &self.seen);
        self.listens().await;
    }

    /// Asks its first process to read its configuration again: its workers end, and others take their place.
    pub(crate) fn reload(&self) {
        let mut orders = self.running.0.stdin.as_ref().expect("it is piped");
        orders.write_all(b"HUP\n").expect("the shell reads");
    }

    /// How long it keeps a connection that is idle.
    pub(crate) fn keeps_idle(&self) -> Duration {
        match self.kind {
            Kind::Gunicorn | Kind::GunicornTls => Duration::from_secs(2),
            _ => Duration::from_secs(1),
        }
    }

    /// The certificate to trust.
    pub(crate) fn ca(&self) -> PathBuf {
        self.authority.ca_path()
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.kind.is_tls() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.addr())
    }

    /// The path of each request so far, as the server understood it.
    pub(crate) fn paths(&self) -> Vec<String> {
        let seen = self.seen.lock();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        seen.iter().map(|seen| text(&seen["path"])).collect()
    }

    /// The `Idempotency-Key` of each request to a path so far.
    pub(crate) fn keys(&self, path: &str) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let seen = self.seen.lock();
        let there = seen.iter().filter(|seen| seen["path"] == path);
        there.map(|seen| text(&seen["key"])).collect()
    }

    /// Settings that ask it for everything. What it answers goes to the device.
    pub(crate) fn config(&self) -> Config {
        let mut config = support::loopback()
            .remote_ca(Some(self.ca()))
            .remote_url(Some(self.url("/uplink")))
            .remote_reply(true)
            .events_url(Some(self.url("/events")));
        config.set("auth", "webhook").expect("a way to do it");
        config.set("auth_url", &self.url("/auth")).expect("a URL");
        config.set("auth_timeout", PATIENCE_MS).expect("a time");
        config
    }

    async fn listens(&self) {
        wait_listening(self.addr()).await;
    }
}

/// A running tinyproxy, which may lead anywhere.
#[derive(Debug)]
pub(crate) struct TinyProxy {
    port: u16,
    _running: Running,
    _dir: TempDir,
}

impl TinyProxy {
    pub(crate) async fn start() -> Self {
        let (port, dir) = (free_port(), TempDir::new().unwrap());
        let path = dir.path().join("tinyproxy.conf");
        let log = dir.path().join("log");
        let conf = format!("Listen 127.0.0.1\nPort {port}\nLogFile {log:?}\n");
        fs::write(&path, conf).expect("written");
        let mut command = Command::new("tinyproxy");
        command.args(["-d", "-c"]).arg(path);
        let running = Running::start(command, &Arc::default());
        wait_listening((Ipv4Addr::LOCALHOST, port).into()).await;
        Self {
            port,
            _running: running,
            _dir: dir,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

async fn wait_listening(addr: SocketAddr) {
    let what = format!("something listens on {addr}");
    eventually(&what, async || TcpStream::connect(addr).await).await;
}

/// Waits until every connection to this port has been closed by the other end.
pub(crate) async fn wait_all_closed(port: u16) {
    eventually("what is idle is closed", async || !is_connected(port)).await;
}

impl Running {
    /// Starts it; what it says on standard output is added to `seen`.
    fn start(command: Command, seen: &Arc<Mutex<Vec<Value>>>) -> Self {
        const SHELL: &str =
            r#""$@" & while read -r signal; do kill -s "$signal" $!; done; kill $!; wait"#;
        let mut shell = Command::new("sh");
        shell.args(["-c", SHELL, "backend"]);
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{path}:/usr/sbin")); // there is nginx
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            shell.env(name, value.expect("nothing is removed"));
        }
        let mut child = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let seen = Arc::clone(seen);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let value = serde_json::from_str(&line);
                seen.lock().push(value.unwrap_or_else(|_| panic!("{line}")));
            }
        });
        Self(child)
    }

    /// Ends it, and waits until it has ended.
    fn end(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Kind {
    fn is_tls(self) -> bool {
        matches!(
            self,
            Self::NodeTls
                | Self::GunicornTls
                | Self::UvicornTls
                | Self::NginxTls
                | Self::NginxHttp2
        )
    }
}

fn command(kind: Kind, port: u16, authority: &Authority, dir: &Path) -> Command {
    let tls = kind.is_tls().then(|| {
        let identity = authority.issue_for_loopback();
        let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
        (text(identity.cert_path), text(identity.key_path))
    });
    match kind {
        Kind::Node | Kind::NodeTls => {
            let mut command = Command::new("node");
            command.arg(here("node.js"));
            command.args([&port.to_string(), "1", KEYS]);
            command.args(tls.into_iter().flat_map(|(cert, key)| [cert, key]));
            command
        }
        Kind::Gunicorn | Kind::GunicornTls => {
            let mut command = python("gunicorn");
            command.args(["app:wsgi", "--worker-class", "gthread", "--threads", "8"]);
            command.args(["--keep-alive", "2", "--graceful-timeout", "1"]);
            command.args(["--log-level", "critical"]);
            command.arg(format!("--bind=127.0.0.1:{port}"));
            if let Some((cert, key)) = tls {
                command.args(["--certfile", &cert, "--keyfile", &key]);
            }
            command
        }
        Kind::Uvicorn | Kind::UvicornTls => {
            let mut command = python("uvicorn");
            command.args(["app:asgi", "--timeout-keep-alive", "1"]);
            command.args(["--log-level", "critical", "--no-access-log"]);
            command.arg(format!("--port={port}"));
            if let Some((cert, key)) = tls {
                command.args(["--ssl-certfile", &cert, "--ssl-keyfile", &key]);
            }
            command
        }
        Kind::Nginx | Kind::NginxTls | Kind::NginxHttp2 => {
            let listen = match (kind, tls) {
                (Kind::NginxHttp2, Some((cert, key))) => {
                    format!("ssl http2; ssl_certificate {cert}; ssl_certificate_key {key}")
                }
                (_, Some((cert, key))) => {
                    format!("ssl; ssl_certificate {cert}; ssl_certificate_key {key}")
                }
                (_, None) => String::new(),
            };
            let path = dir.join("nginx.conf");
            fs::write(&path, nginx_conf(port, &listen, dir)).expect("written");
            let mut command = Command::new("nginx");
            command.arg("-c").arg(path).args(["-e", "stderr", "-p"]);
            command.arg(dir);
            command
        }
    }
}

/// A module of the packages that `make setup` installs, where `app.py` is.
fn python(module: &str) -> Command {
    let python = here("../../target/tools/venv/bin/python");
    assert!(python.is_file(), "no {python:?}; `make setup` makes it");
    let mut command = Command::new(python);
    command.args(["-B", "-m", module]);
    command.env("PYTHONPATH", here("")).env("KEYS", KEYS);
    command
}

fn nginx_conf(port: u16, listen: &str, dir: &Path) -> String {
    // As root its workers would become another user, who may not write to our pipe.
    let user = match rustix::process::geteuid().is_root() {
        true => "user root;",
        false => "",
    };
    let dir = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {dir}/{name};\n"))
        .concat();
    format!(
        r#"
daemon off; {user}
pid {dir}/pid;
worker_processes 2;
events {{ worker_connections 256; }}
http {{
    {temporary}
    log_format seen escape=json '{{"path":"$uri","key":"$http_idempotency_key","attempt":"$http_x_fastsock_attempt"}}';
    access_log /dev/stdout seen;
    keepalive_timeout 1;
    server {{
        listen 127.0.0.1:{port} {listen};
        location / {{ return 200 "ok"; }}
        location = /auth {{ return 200 '{{"allow":true,"client_id":"$request_id"}}'; }}
        location = /jwks {{ return 200 '{KEYS}'; }}
    }}
}}
"#
    )
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("real_backends")
        .join(file)
}

/// Whether anyone has a connection to this port that the other end has not closed.
fn is_connected(port: u16) -> bool {
    let ends_with_port = |address: &str| {
        let found = address.rsplit_once(':').map(|(_, port)| port);
        found.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port)
    };
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        let (peer, state) = (fields.next(), fields.next());
        peer.is_some_and(ends_with_port) && state == Some(ESTABLISHED)
    })
}

/// What a busy machine may need, and less than a test waits for anything.
pub(crate) const PATIENCE_MS: &str = "9000";
const ESTABLISHED: &str = "01";
/// Of RFC 8037, appendix A.2.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
