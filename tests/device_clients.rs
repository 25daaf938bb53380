//! The clients of docs/device.md, made with public WebSocket libraries, do what that page asks of a device.
//!
//! `scripts/setup test` brings their libraries: the Python package `websockets`, Debian's libwebsockets-dev.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use support::{Backend, Device, Gateway, Process, call, eventually, free_port};
use tempfile::TempDir;

#[tokio::test]
async fn the_python_client_behaves() {
    let python = here().join("../target/tools/venv/bin/python");
    assert!(python.is_file(), "run `scripts/setup test`");
    let script = here().join("../examples/device/device.py");
    let client = |addr: SocketAddr, token: &str| {
        let url = format!("ws://{addr}/?token={token}");
        Client::start(&python, [script.to_str().unwrap(), &url])
    };
    lives_through_a_restart_and_stops_when_replaced(client).await;
    gives_up_when_refused(client).await;
}

#[tokio::test]
async fn the_c_client_behaves() {
    let dir = TempDir::new().unwrap();
    let program = compiled(dir.path());
    let client = |addr: SocketAddr, token: &str| {
        let (host, port) = (addr.ip().to_string(), addr.port().to_string());
        Client::start(&program, [&host, &port, token])
    };
    lives_through_a_restart_and_stops_when_replaced(client).await;
    gives_up_when_refused(client).await;
}

async fn lives_through_a_restart_and_stops_when_replaced(
    client: impl Fn(SocketAddr, &str) -> Client,
) {
    let backend = Backend::start().await;
    let port = free_port();
    let mut gateway = gateway(&backend, port).await;
    let mut client = client(gateway.addr(), "dev1");
    let delivered = backend.wait_delivered("dev1", 1).await;
    assert_eq!(delivered, ["hello from the device"]);
    send(&gateway, "dev1", "one").await;
    client.wait_line("downlink: one").await;

    assert_eq!(gateway.stop().await, Some(0));
    let gateway = self::gateway(&backend, port).await;
    backend
        .wait_until_within(PATIENCE, "the client comes back", |all| all.len() >= 2)
        .await;
    send(&gateway, "dev1", "two").await;
    client.wait_line("downlink: two").await;

    let _replacement = Device::connect(gateway.addr(), "dev1").await;
    client.wait_told_to_stop(4509).await;
}

async fn gives_up_when_refused(client: impl Fn(SocketAddr, &str) -> Client) {
    let gateway = gateway(&Backend::start().await, 0).await;
    let mut client = client(gateway.addr(), "");
    client.wait_told_to_stop(401).await;
}

async fn gateway(backend: &Backend, port: u16) -> Gateway {
    Gateway::builder()
        .admin()
        .var("WEBSOCKET_PORT", port.to_string())
        .var("FASTSOCK_BROKER", "embedded")
        .var("REMOTE_URL", backend.url())
        .start()
        .await
}

/// Sends a downlink as the README does where there is no Redis.
async fn send(gateway: &Gateway, client_id: &str, text: &str) {
    let path = format!("/api/v1/clients/{client_id}/messages");
    let headers = [("Content-Type", "application/json")];
    let body = format!(r#"{{"data":"{text}"}}"#);
    let answer = call(gateway.admin_addr(), "POST", &path, &headers, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// A reference client as a process; its output goes to files.
struct Client {
    process: Process,
    dir: TempDir,
}

impl Client {
    fn start<const N: usize>(program: &Path, args: [&str; N]) -> Self {
        let dir = TempDir::new().unwrap();
        let process = Process::start(program.to_str().unwrap(), |command| {
            command
                .args(args)
                .stdout(File::create(dir.path().join(STDOUT)).unwrap())
                .stderr(File::create(dir.path().join(STDERR)).unwrap());
        });
        Self { process, dir }
    }

    async fn wait_line(&self, line: &str) {
        let what = format!("the client prints {line:?}");
        eventually(&what, async || self.read(STDOUT).lines().any(|l| l == line)).await;
    }

    async fn wait_told_to_stop(&mut self, code: u16) {
        let end = self.process.exit().await;
        let stderr = self.read(STDERR);
        assert_eq!(
            (end.code(), stderr.trim()),
            (Some(1), format!("told to stop: {code}").as_str())
        );
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.path().join(file)).unwrap()
    }
}

/// The C client, compiled as its first lines say and with all warnings.
fn compiled(dir: &Path) -> PathBuf {
    let program = dir.join("device");
    let done = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror"])
        .arg(here().join("../examples/device/device.c"))
        .args(["-lwebsockets", "-o"])
        .arg(&program)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "libwebsockets-dev is needed, `scripts/setup test` installs it:\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    program
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Longer than a client waits between its first tries to connect.
const PATIENCE: Duration = Duration::from_secs(30);
const STDOUT: &str = "stdout";
const STDERR: &str = "stderr";
