//! `wss`: devices under TLS, certificates of theirs, names, and new certificates while they are connected. The other side is
//! rustls, OpenSSL's `s_client` and Python's `ssl`.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test is a host, and may start tasks and print"
)]

#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/client_certificates.rs"]
mod client_certificates;

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use fastsock::{
    Admission, Bridge, ClientId, Config, ConnectRequest, Decision, ErrorKind, Hooks, Refusal,
    Ticket,
};
use futures_util::{SinkExt, StreamExt};
use rustls::{
    ClientConfig, HandshakeKind, SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use support::{
    Authority, Backend, Gateway, Identity, RawDevice, eventually, eventually_within, start, within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

type Device = WebSocketStream<TlsStream<TcpStream>>;

const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

#[tokio::test]
async fn a_device_is_served_under_either_version() {
    let backend = Backend::start().await;
    let place = Place::new();
    let bridge = start(place.config().remote_url(Some(backend.url()))).await;
    for (version, count) in [(&TLS12, 3), (&TLS13, 6)] {
        let mut device = place.device(&bridge, "dev1", &[version]).await;
        let large = "x".repeat(1 << 20);
        for text in ["hello", "", &large] {
            say(&mut device, text).await;
            bridge.send(&id("dev1"), text.into()).await.unwrap();
            assert_eq!(hear(&mut device).await, Message::text(text));
        }
        backend.wait_delivered("dev1", count).await;
        assert!(bridge.disconnect(&id("dev1"), fastsock::CloseReason::Kicked));
        let Message::Close(Some(close)) = hear(&mut device).await else {
            panic!("a close frame");
        };
        assert_eq!(u16::from(close.code), 4510);
        // TLS is ended as well as the connection: without its close_notify this would be an error.
        let end = within("the end", device.get_mut().read(&mut [0; 1])).await;
        assert_eq!(end.unwrap(), 0);
    }
    assert_eq!(bridge.stats().counters.tls_failed, 0);
}

#[tokio::test]
async fn only_the_cipher_suites_of_the_settings_are_there_and_no_version_without_one() {
    let place = Place::new();
    let one = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let bridge = start(place.config().tls_ciphers(vec![one.into()])).await;
    let device = place.device(&bridge, "dev1", BOTH).await;
    let suite = device.get_ref().get_ref().1.negotiated_cipher_suite();
    let suite = suite.expect("the handshake is over").suite();
    assert_eq!(suite.as_str(), Some(one));

    let newer = "TLS_CHACHA20_POLY1305_SHA256";
    let both = vec![one.into(), newer.into()];
    let bridge = start(place.config().tls_ciphers(both)).await;
    let device = place.device(&bridge, "dev1", BOTH).await;
    let suite = device.get_ref().get_ref().1.negotiated_cipher_suite();
    let suite = suite.expect("the handshake is over").suite();
    assert_eq!(suite.as_str(), Some("TLS13_CHACHA20_POLY1305_SHA256"));
}

#[tokio::test]
async fn a_device_that_reads_late_gets_everything_in_order() {
    let place = Place::new();
    let bridge = start(place.config().outbox_bytes(64usize << 20)).await;
    let mut device = place.device(&bridge, "dev1", BOTH).await;
    let payload = |n: usize| format!("{n}:{}", "x".repeat(10_000 + n));
    for n in 0..1500 {
        bridge.send(&id("dev1"), payload(n).into()).await.unwrap();
    }
    eventually("the kernel takes no more", async || {
        let held = bridge.stats().downlink.held;
        tokio::time::sleep(Duration::from_millis(50)).await; // nobody says that nothing moves any more
        held > 0 && held == bridge.stats().downlink.held
    })
    .await;
    for n in 0..1500 {
        assert_eq!(hear(&mut device).await, Message::text(payload(n)));
    }
    bridge.send(&id("dev1"), "the last".into()).await.unwrap();
    assert_eq!(hear(&mut device).await, Message::text("the last"));
}

#[tokio::test]
async fn a_device_that_never_reads_is_a_slow_consumer_here_too() {
    let place = Place::new();
    let config = place.config().write_timeout(Duration::from_millis(500));
    let bridge = start(config.outbox_bytes(64usize << 20)).await;
    let _device = place.device(&bridge, "dev1", BOTH).await;
    for _ in 0..16 {
        let _ = bridge.send(&id("dev1"), vec![b'x'; 1 << 20].into()).await;
    }
    eventually("it is closed", async || {
        let closed = bridge.stats().sessions.closed;
        closed.get("slow_consumer") == Some(&1)
    })
    .await;
}

#[tokio::test]
async fn what_is_no_tls_is_closed_and_counted_and_what_is_half_is_given_its_time() {
    let place = Place::new();
    let config = place
        .config()
        .limit_handshake_time(Duration::from_millis(1500));
    let bridge = start(config).await;
    let mut plain = RawDevice::connect(bridge.local_addr()).await;
    plain
        .write(RawDevice::upgrade_request("/?token=dev1", &[]))
        .await;
    let answer = plain.read_to_end().await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    eventually("it is counted", async || {
        let stats = bridge.stats();
        (stats.counters.tls_failed, stats.sessions.abandoned) == (1, 1)
    })
    .await;

    let mut half = RawDevice::connect(bridge.local_addr()).await;
    half.write([0x16, 3, 1, 2, 0, 1]).await; // a record that does not come
    assert_eq!(half.read_to_end().await, b"");
    eventually("it is counted", async || {
        bridge.stats().sessions.abandoned == 2
    })
    .await;

    let mut without_head = place
        .tls(&bridge, &place.client(None, BOTH), "localhost")
        .await
        .unwrap();
    let end = within("the end", without_head.read(&mut [0; 1])).await;
    assert!(!matches!(end, Ok(1..)));
    place.device(&bridge, "dev1", BOTH).await;
}

#[tokio::test]
async fn a_refusal_is_told_under_tls() {
    let place = Place::new();
    let bridge = start(place.config()).await;
    let mut tls = place
        .tls(&bridge, &place.client(None, BOTH), "localhost")
        .await
        .unwrap();
    tls.write_all(RawDevice::upgrade_request("/", &[]).as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    within("an answer", tls.read_to_string(&mut answer))
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn a_limit_at_the_door_closes_before_tls_is_paid_for() {
    let place = Place::new();
    let bridge = start(place.config().limit_connections(1usize)).await;
    let _device = place.device(&bridge, "dev1", BOTH).await;
    let mut late = RawDevice::connect(bridge.local_addr()).await;
    assert_eq!(late.read_to_end().await, b"");
    assert_eq!(bridge.stats().sessions.refused[&503], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_is_served_and_sees_a_clean_end() {
    let place = Place::new();
    let bridge = start(place.config()).await;
    let port = bridge.local_addr().port().to_string();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let ca = place.authority.ca_path();
        let (ca, port) = (ca.to_str().unwrap().to_owned(), port.clone());
        let python = tokio::task::spawn_blocking(move || {
            let mut python = Command::new("python3");
            python
                .args(["-c", PYTHON, &port, &ca, version])
                .output()
                .unwrap()
        });
        let connected = eventually("it is connected", async || !bridge.clients().is_empty());
        connected.await;
        bridge.disconnect(&id("dev1"), fastsock::CloseReason::Kicked);
        let output = within("Python ends", python).await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(told.trim(), "101 closed 4510", "{error}");
        eventually("it has left", async || bridge.clients().is_empty()).await;
    }
}

#[tokio::test]
async fn a_proxy_header_comes_before_tls() {
    let place = Place::new();
    let config = place
        .config()
        .trusted_proxies(vec!["127.0.0.1".into()])
        .proxy_protocol(true);
    let bridge = start(config).await;
    let mut stream = TcpStream::connect(bridge.local_addr()).await.unwrap();
    stream
        .write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 443\r\n")
        .await
        .unwrap();
    let connector = TlsConnector::from(place.client(None, BOTH));
    let name = ServerName::try_from("localhost").unwrap();
    let tls = within("TLS", connector.connect(name, stream))
        .await
        .unwrap();
    let (_device, _) = client_async("ws://localhost/?token=dev1", tls)
        .await
        .unwrap();
    let seen = bridge.clients()[0].remote_addr;
    assert_eq!(seen.to_string(), "192.0.2.1:4660");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_device_under_tls_costs_at_most_14_kib() {
    let place = Place::new();
    let gateway = Gateway::builder()
        .var("FASTSOCK_BROKER", "embedded")
        .var(
            "FASTSOCK_TLS_CERT",
            place.identity.cert_path.to_str().unwrap(),
        )
        .var(
            "FASTSOCK_TLS_KEY",
            place.identity.key_path.to_str().unwrap(),
        )
        .var("WEBSOCKET_PING_INTERVAL", "0")
        .var("LOG_LEVEL", "info")
        .start()
        .await;
    let client = place.client(None, BOTH);
    let mut devices = Vec::new();
    let mut before = 0;
    for n in 0..1000 {
        if n == 200 {
            before = gateway.process().resident_bytes(); // by then it has all it needs for a handshake
        }
        let stream = TcpStream::connect(gateway.addr()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(client.clone()).connect(name, stream);
        let tls = within("TLS", connecting).await.unwrap();
        let request = format!("ws://localhost/?token=dev{n}");
        devices.push(within("a 101", client_async(request, tls)).await.unwrap());
    }
    let each = (gateway.process().resident_bytes() - before) / 800;
    println!("{each} bytes a device");
    assert!(each <= 14 << 10, "{each} bytes a device");
}

/// An authority, and a certificate of the gateway's.
struct Place {
    authority: Authority,
    identity: Identity,
}

impl Place {
    fn new() -> Self {
        let authority = Authority::new();
        let identity = authority.issue_for_loopback();
        Self {
            authority,
            identity,
        }
    }

    /// Without a heartbeat: its first ping may come at any moment.
    fn config(&self) -> Config {
        support::loopback()
            .websocket_ping_interval(Duration::ZERO)
            .tls_cert(vec![self.identity.cert_path.clone()])
            .tls_key(vec![self.identity.key_path.clone()])
    }

    fn client(
        &self,
        shown: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        Identity::client_config(&self.authority, shown, versions)
    }

    /// The TLS handshake, or what failed in it.
    async fn tls(
        &self,
        bridge: &Bridge,
        client: &Arc<ClientConfig>,
        name: &str,
    ) -> Result<TlsStream<TcpStream>, String> {
        let stream = TcpStream::connect(bridge.local_addr()).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(client.clone());
        let tls = within("TLS, or its failure", connector.connect(name, stream)).await;
        tls.map_err(|error| format!("{error:?}"))
    }

    async fn try_device(
        &self,
        bridge: &Bridge,
        client: &Arc<ClientConfig>,
        token: &str,
    ) -> Result<Device, String> {
        let tls = self.tls(bridge, client, "localhost").await?;
        let request = format!("ws://localhost/?token={token}");
        let connected = within("an answer", client_async(request, tls)).await;
        connected
            .map(|(device, _)| device)
            .map_err(|error| error.to_string())
    }

    async fn device(
        &self,
        bridge: &Bridge,
        token: &str,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Device {
        let client = self.client(None, versions);
        self.try_device(bridge, &client, token)
            .await
            .expect("it is seated")
    }
}

fn id(text: &str) -> ClientId {
    text.parse().unwrap()
}

async fn say(device: &mut Device, text: &str) {
    within("the gateway reads", device.send(Message::text(text)))
        .await
        .unwrap();
}

/// The next message that is no ping.
async fn hear(device: &mut Device) -> Message {
    loop {
        match within("a message", device.next())
            .await
            .expect("a message")
            .unwrap()
        {
            Message::Ping(_) => {}
            message => return message,
        }
    }
}

fn kind(device: &Device) -> HandshakeKind {
    device.get_ref().get_ref().1.handshake_kind().unwrap()
}

async fn s_client(addr: SocketAddr, place: &Place, more: &[&str]) -> Output {
    s_client_trusting(addr, &place.authority.ca_path(), more).await
}

/// `openssl s_client` that asks for an upgrade and leaves once it is answered, or refused.
async fn s_client_trusting(addr: SocketAddr, ca: &Path, more: &[&str]) -> Output {
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-connect",
            &addr.to_string(),
            "-servername",
            "localhost",
        ])
        .args(["-verify_hostname", "localhost", "-ign_eof", "-CAfile"])
        .arg(ca)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let client = tokio::task::spawn_blocking(move || {
        let mut client = command.spawn().expect("scripts/setup installs openssl");
        let mut stdin = client.stdin.take().unwrap();
        // A message with the reserved bits set comes behind it: the gateway answers both, and ends the connection.
        let upgrade = RawDevice::upgrade_request("/?token=openssl", &[]);
        let _ = stdin.write_all(&[upgrade.as_bytes(), &[0xf1, 0x80, 0, 0, 0, 0]].concat());
        drop(stdin);
        client.wait_with_output().unwrap()
    });
    within("s_client ends", client).await.unwrap()
}

/// A device in Python: connects, waits for the close frame, and for the end of TLS; an end without close_notify raises.
const PYTHON: &str = r#"
import socket, ssl, struct, sys
port, ca, version = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the authority of the tests says no more than it must
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
raw = socket.create_connection(("127.0.0.1", int(port)))
device = context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False)
device.sendall(b"GET /?token=dev1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
got = b""
while True:
    some = device.recv(4096)
    if not some:
        break
    got += some
head, frames = got.split(b"\r\n\r\n", 1)
print(head[9:12].decode(), "closed", struct.unpack("!H", frames[2:4])[0])
"#;
