//! The proxies of docs/proxies.md, each started with the configuration that stands there: devices get through in both directions, and
//! the gateway knows where they are.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use fastsock::{Bridge, Config, Payload};
use futures_util::{SinkExt, StreamExt};
use rustls::{
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use support::{Authority, Backend, Identity, Process, eventually, free_port, within};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

type Device = WebSocketStream<TlsStream<TcpStream>>;

/// Where devices come from; the proxy comes from 127.0.0.1.
const DEVICE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// The name that the proxies have.
const NAME: &str = "gateway.example";
/// A path that a proxy must not write in another way: it may name the device.
const PATH: &str = "/ocpp/a%2Fb%2Bc%25";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx() {
    let stage = Stage::new(trusting()).await;
    let _proxy = stage.nginx(&stage.block("nginx"));
    stage.carries_a_device().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_that_asks_in_http_1_0_is_taken_unless_the_settings_are_strict() {
    for (is_strict, status) in [(false, 101), (true, 400)] {
        let stage = Stage::new(trusting().strict_handshake(is_strict)).await;
        let block = stage.block("nginx");
        assert!(block.contains(HTTP_1_1), "{block}");
        let _proxy = stage.nginx(&block.replace(HTTP_1_1, ""));
        if status == 101 {
            stage.carries_a_device().await;
        } else {
            let refused = stage.device().await.unwrap_err();
            assert!(refused.contains(&status.to_string()), "{refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_keep_an_idle_device_connected_through_a_proxy_with_an_idle_time_out() {
    let cut = async |interval: Duration| {
        let stage = Stage::new(trusting().websocket_ping_interval(interval)).await;
        let _proxy = stage.nginx(&stage.block("nginx").replace("90s", "1s"));
        let mut device = stage.device().await.unwrap();
        let idle = async {
            while let Some(Ok(frame)) = device.next().await {
                assert!(matches!(frame, Message::Ping(_)), "{frame:?}");
            }
        };
        tokio::time::timeout(Duration::from_millis(2500), idle)
            .await
            .is_ok()
    };
    let (without_pings, with_pings) =
        tokio::join!(cut(Duration::ZERO), cut(Duration::from_millis(300)));
    assert!(without_pings, "nothing to carry for a second");
    assert!(!with_pings, "a ping each 0.3 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy() {
    let stage = Stage::new(trusting().proxy_protocol(true)).await;
    let config = stage.write("haproxy.cfg", &stage.block("haproxy"));
    let _proxy = stage.start("haproxy", |command| {
        command.arg("-db").arg("-f").arg(config);
    });
    stage.carries_a_device().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apache() {
    let stage = Stage::new(trusting()).await;
    let modules = ["mpm_event", "authz_core", "proxy", "proxy_http", "ssl"];
    let load =
        |module| format!("LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so\n");
    let modules: String = modules.into_iter().map(load).collect();
    let dir = stage.dir.path().display();
    let user = match rustix::process::geteuid().is_root() {
        true => "User www-data\nGroup www-data",
        false => "",
    };
    let block = stage.block("apache");
    let text = format!(
        "{modules}ServerRoot {dir}\nDefaultRuntimeDir {dir}\nPidFile {dir}/pid\nErrorLog /dev/stderr\nServerName {NAME}\n{user}\n{block}"
    );
    let config = stage.write("apache.conf", &text);
    let _proxy = stage.start("apache2", |command| {
        command.arg("-X").arg("-f").arg(config);
    });
    stage.carries_a_device().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy() {
    let stage = Stage::new(trusting()).await;
    let global = "{\n admin off\n auto_https disable_redirects\n default_bind 127.0.0.1\n}\n";
    let text = format!("{global}{}", stage.block("caddy"));
    let config = stage.write("Caddyfile", &text);
    let _proxy = stage.start("caddy", |command| {
        command
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(config);
        command.env("HOME", stage.dir.path());
    });
    stage.carries_a_device().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stunnel() {
    let stage = Stage::new(trusting().proxy_protocol(true)).await;
    let _proxy = stage.stunnel(&stage.block("stunnel"));
    stage.carries_a_device().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stunnel_serves_devices_that_know_only_rsa_key_exchange() {
    let stage = Stage::new(trusting().proxy_protocol(true)).await;
    let _proxy = stage.stunnel(&stage.block("stunnel-rsa"));
    stage.listens().await;
    let port = stage.port.to_string();
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-tls1_2",
            "-cipher",
            "AES128-GCM-SHA256",
            "-ign_eof",
            "-connect",
        ])
        .arg(format!("127.0.0.1:{port}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let request = support::RawDevice::upgrade_request("/", &[]); // without a token: the answer ends the connection
    client
        .stdin
        .take()
        .unwrap()
        .write_all(request.as_bytes())
        .unwrap();
    let waiting = tokio::task::spawn_blocking(move || client.wait_with_output().unwrap());
    let output = within("s_client ends", waiting).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Cipher is AES128-GCM-SHA256"), "{text}");
    assert!(text.contains("HTTP/1.1 401 Unauthorized"), "{text}");
}

/// A gateway, and all that a proxy in front of it needs.
struct Stage {
    bridge: Bridge,
    backend: Backend,
    authority: Authority,
    port: u16,
    dir: TempDir,
}

impl Stage {
    async fn new(config: Config) -> Self {
        let backend = Backend::start().await;
        let config = config.remote_url(Some(backend.url())).remote_context(true);
        let bridge = Bridge::builder(config).start().await.expect("it starts");
        let (authority, dir) = (Authority::new(), TempDir::new().unwrap());
        let Identity {
            cert_path,
            key_path,
            ..
        } = authority.issue(&[NAME]);
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let (cert, key) = (read(&cert_path), read(&key_path));
        let stage = Self {
            bridge,
            backend,
            authority,
            port: free_port(),
            dir,
        };
        stage.write("gateway.pem", &cert);
        stage.write("gateway.key", &key);
        stage.write("gateway-with-key.pem", &format!("{cert}{key}"));
        stage
    }

    /// The configuration of this name in the document, with the ports and files of the test.
    fn block(&self, name: &str) -> String {
        let page = include_str!("../../docs/proxies.md");
        let marker = format!("<!-- proxy: {name} -->\n```");
        let (_, rest) = page
            .split_once(&marker)
            .unwrap_or_else(|| panic!("no {marker}"));
        let (_, rest) = rest.split_once('\n').unwrap();
        let (block, _) = rest.split_once("```").unwrap();
        let (here, dir) = (
            format!("127.0.0.1:{}", self.port),
            self.dir.path().display(),
        );
        block
            .replace("listen 443", &format!("listen {here}"))
            .replace("bind :443", &format!("bind {here}"))
            .replace("Listen 443", &format!("Listen {here}"))
            .replace("accept  = 443", &format!("accept = {here}"))
            .replace("accept  = 8443", &format!("accept = {here}"))
            .replace(":443", &format!(":{}", self.port))
            .replace("127.0.0.1:3000", &self.bridge.local_addr().to_string())
            .replace("/etc/fastsock", &dir.to_string())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn start(&self, program: &str, configure: impl FnOnce(&mut Command)) -> Process {
        Process::start(program, |command| {
            command.current_dir(self.dir.path());
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            configure(command);
        })
    }

    fn nginx(&self, block: &str) -> Process {
        let dir = self.dir.path().display();
        let user = match rustix::process::geteuid().is_root() {
            true => "user root;",
            false => "",
        };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {dir}/{name};\n"))
            .concat();
        let text = format!(
            "daemon off; master_process off; {user} pid {dir}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{temporary}{block}}}\n"
        );
        let config = self.write("nginx.conf", &text);
        self.start("nginx", |command| {
            command.arg("-e").arg("stderr").arg("-c").arg(config);
        })
    }

    fn stunnel(&self, block: &str) -> Process {
        if block.contains("gateway-rsa.pem") {
            let made = Command::new("openssl")
                .args([
                    "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
                ])
                .args([
                    "/CN=gateway.example",
                    "-keyout",
                    "gateway-rsa.key",
                    "-out",
                    "gateway-rsa.pem",
                ])
                .current_dir(self.dir.path())
                .output()
                .unwrap();
            assert!(made.status.success(), "{made:?}");
        }
        let text = format!("foreground = yes\npid =\nsyslog = no\n{block}");
        let config = self.write("stunnel.conf", &text);
        self.start("stunnel4", |command| {
            command.arg(config);
        })
    }

    async fn listens(&self) {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        eventually("the proxy listens", async || {
            TcpStream::connect(addr).await.ok()
        })
        .await;
    }

    /// A device that connects to the proxy.
    async fn device(&self) -> Result<Device, String> {
        self.listens().await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((DEVICE, 0).into()).unwrap();
        let tcp = socket
            .connect((Ipv4Addr::LOCALHOST, self.port).into())
            .await
            .unwrap();
        let tls = TlsConnector::from(Identity::client_config(
            &self.authority,
            None,
            &[&TLS12, &TLS13],
        ));
        let name = ServerName::try_from(NAME).unwrap();
        let tls = within("TLS", tls.connect(name, tcp))
            .await
            .map_err(|e| e.to_string())?;
        let asked = client_async(format!("wss://{NAME}{PATH}?token=dev1"), tls);
        let answered = within("an answer", asked).await;
        answered
            .map(|(device, _)| device)
            .map_err(|e| e.to_string())
    }

    async fn carries_a_device(&self) {
        let mut device = self.device().await.unwrap();
        assert_eq!(self.bridge.clients()[0].remote_addr.ip(), DEVICE);
        device.send(Message::text("up")).await.unwrap();
        assert_eq!(self.backend.wait_delivered("dev1", 1).await, ["up"]);
        let request = self.backend.requests().remove(0);
        assert_eq!(request.header("x-fastsock-path"), Some(PATH));
        let id = fastsock::ClientId::new("dev1").unwrap();
        self.bridge.send(&id, Payload::text("down")).await.unwrap();
        let heard = within("a downlink", device.next()).await.unwrap().unwrap();
        assert_eq!(heard, Message::text("down"));
    }
}

/// A gateway behind a proxy of this machine, as the document has it.
fn trusting() -> Config {
    support::loopback()
        .websocket_ping_interval(Duration::ZERO)
        .listen_addr(Some(Ipv4Addr::LOCALHOST.into()))
        .trusted_proxies(vec!["127.0.0.1".into()])
}

const HTTP_1_1: &str = "proxy_http_version 1.1;";
