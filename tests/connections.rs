//! Connections to the backend: which address of a name they go to, what becomes of a request when one dies, and which answers
//! count although they cannot be read in full.
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks"
)]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use fastsock::{Bridge, Config, Secret};
use parking_lot::Mutex;
use socket2::{Domain, Socket, Type};
use support::{Authority, Backend, DEADLINE, Device, OwnNetwork, Reply, eventually, start};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_dead_connections_a_message_meets_one() {
    let backend = Backend::start().await;
    // All are open at once, so each has a connection of its own.
    backend.answer_all(Reply::ok().after(Duration::from_millis(500)));
    let bridge = start(to(backend.url())).await;
    let mut devices = Vec::new();
    for n in 0..DEVICES {
        devices.push(Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
    }
    for device in &mut devices {
        device.send("hello").await;
    }
    delivered(&bridge, DEVICES).await;
    assert_eq!(backend.connections(), DEVICES);
    // As when something on the way has forgotten them.
    backend.answer(|request| match request.connection {
        0..DEVICES => Reply::reset(),
        _ => Reply::ok(),
    });
    devices[0].send("again").await;
    delivered(&bridge, DEVICES + 1).await;
    let tried: Vec<_> = backend.requests().split_off(DEVICES);
    assert_eq!(tried.len(), 2);
    for request in tried {
        assert_eq!(request.header("x-fastsock-attempt"), Some("1"));
    }
    assert_eq!(bridge.stats().counters.posts_failed, 0);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_408_for_a_connection_that_was_idle_is_no_answer() {
    let farewell = "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let server = Scripted::start(move |connection, nth| match (connection, nth) {
        (0, 1) => Step::Close(farewell.into()),
        (1, 1) => Step::CloseUnasked(farewell.into()),
        // One that is about this request.
        (2, 1) => Step::Say(farewell.replace("close", "keep-alive")),
        _ => ok(),
    })
    .await;
    let bridge = start(to(server.url())).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    for n in 1..=3 {
        device.send(n.to_string()).await;
        delivered(&bridge, n).await;
    }
    assert_eq!(bridge.stats().counters.posts_failed, 0);
    let seen = server.requests();
    assert_eq!(seen, ["0 1", "0 2", "1 2", "2 3"]);

    device.send("4").await;
    delivered(&bridge, 4).await;
    assert_eq!(bridge.stats().counters.posts_failed, 1, "the backend's own");
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_post_that_was_sent_in_part_is_made_once_more_unless_it_was_answered() {
    let server = Scripted::start(|connection, nth| match (connection, nth) {
        (_, 0) => ok(),
        // Closed with the request half read: it is reset.
        (0, 1) => Step::CloseMidway(String::new()),
        _ => Step::CloseMidway("HTTP/1.1 413 X\r\ncontent-length: 0\r\n\r\n".into()),
    })
    .await;
    let bridge = start(to(server.url())).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    let large = || "x".repeat(1 << 20);
    device.send("1").await;
    delivered(&bridge, 1).await;
    device.send(large()).await;
    delivered(&bridge, 2).await;
    assert_eq!(bridge.stats().counters.posts_failed, 0);

    device.send(large()).await;
    eventually("it is given up", async || {
        bridge.stats().uplink.lost.rejected == 1
    })
    .await;
    assert_eq!(server.requests().len(), 4, "no other try");
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn an_answer_counts_by_its_status_whatever_its_head_is_like() {
    let many = |count: usize, value: &str| {
        let fields = (0..count).map(|n| format!("x-{n}: {value}\r\n"));
        format!(
            "HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n",
            fields.collect::<String>()
        )
    };
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
    for (what, head) in [
        ("101 fields", many(100, "x")),
        (
            "150 fields after an interim answer",
            format!("{interim}{}", many(149, "x")),
        ),
        ("150 fields", many(149, "x")),
        ("1,000 fields", many(999, "x")),
        ("80 KiB in one field", many(1, &"x".repeat(80 << 10))),
        ("1 MiB", many(100, &"x".repeat(10 << 10))),
        (
            "folded",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n".into(),
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 1\r\n\r\n".into(),
        ),
        (
            "no length",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n".into(),
        ),
        (
            "chunked by 1.0",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        (
            "no header",
            "HTTP/1.1 200 OK\r\nnonsense\r\ncontent-length: 0\r\n\r\n".into(),
        ),
    ] {
        let server = Scripted::start(move |_, _| Step::Close(head.clone())).await;
        let bridge = start(to(server.url())).await;
        let mut device = Device::connect(bridge.local_addr(), "dev1").await;
        for n in 1..=2 {
            device.send(n.to_string()).await;
            delivered(&bridge, n).await;
        }
        assert_eq!(server.requests().len(), 2, "{what}");
        assert_eq!(bridge.stats().counters.posts_failed, 0, "{what}");
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test]
async fn a_large_head_of_http2_is_an_answer_like_any_other() {
    let authority = Authority::new();
    let backend = Backend::start_http2(&authority).await;
    for (count, value) in [(150, "x".to_owned()), (20, "x".repeat(10 << 10))] {
        let mut reply = Reply::ok();
        for n in 0..count {
            reply = reply.header(format!("x-{n}"), value.clone());
        }
        backend.answer_all(reply);
        let before = backend.count();
        let bridge = start(to(backend.url()).remote_ca(Some(authority.ca_path()))).await;
        let mut device = Device::connect(bridge.local_addr(), "dev1").await;
        device.send("hello").await;
        delivered(&bridge, 1).await;
        assert_eq!(backend.count() - before, 1);
        bridge.stop(DEADLINE).await;
    }
}

#[test]
fn a_dead_address_of_a_name_is_not_waited_for() {
    OwnNetwork::of("a_dead_address_of_a_name_is_not_waited_for").run_with_hosts(|hosts| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let [one, two, three, alive] = [1, 2, 3, 9].map(|n| IpAddr::from([127, 0, 0, n]));
            let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
            for dead in [&[one][..], &[one, two, three], &[v6], &[v6, one]] {
                let all = dead.iter().chain([&alive]);
                let lines = all.map(|ip| format!("{ip} backend.test\n"));
                fs::write(hosts, lines.collect::<String>()).unwrap();
                by_name(dead, alive).await;
            }
        });
    });
}

/// A backend at one address of `backend.test`, and nothing that answers at the others: uplinks, also through a proxy of that
/// name, and the webhook, whose whole time is 3 s, get there at the first attempt.
async fn by_name(dead: &[IpAddr], alive: IpAddr) {
    let backend = Scripted::start_at(alive, |_, _| ok()).await;
    let allow = r#"{"allow":true,"client_id":"dev1"}"#;
    let allow = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{allow}",
        allow.len()
    );
    let webhook = Scripted::start_at(alive, move |_, _| Step::Say(allow.clone())).await;
    let ports = [backend.addr.port(), webhook.addr.port()];
    let _dead: Vec<_> = dead
        .iter()
        .flat_map(|ip| ports.map(|port| deaf((*ip, port).into())))
        .collect();
    let first = ("backend.test", 0).to_socket_addrs().unwrap().next();
    assert_ne!(first.unwrap().ip(), alive, "a dead one is preferred");

    let [backend, webhook] = ports.map(|port| format!("http://backend.test:{port}/"));
    let mut direct = to(backend.clone());
    direct.set("auth", "webhook").unwrap();
    direct.set("auth_url", &webhook).unwrap();
    let proxied = to("http://elsewhere.test/".into()).http_proxy(Some(Secret::new(backend)));
    for config in [direct, proxied] {
        let bridge = start(config).await;
        let mut device = Device::connect(bridge.local_addr(), "dev1").await;
        device.send("hello").await;
        delivered(&bridge, 1).await;
        assert_eq!(bridge.stats().counters.posts_failed, 0, "{dead:?}");
        bridge.stop(Duration::ZERO).await;
    }
}

/// A listener that takes no more connections, and does not refuse them either, like a host that is off.
fn deaf(addr: SocketAddr) -> [Socket; 2] {
    let socket = || Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
    let (listener, filling) = (socket(), socket());
    listener.set_reuse_address(true).unwrap();
    listener.bind(&addr.into()).unwrap();
    listener.listen(0).unwrap(); // one may wait to be accepted
    filling.connect(&addr.into()).unwrap();
    [listener, filling]
}

/// A server that does with each request what the test says.
struct Scripted {
    addr: SocketAddr,
    /// Connection and body of each request.
    seen: Arc<Mutex<Vec<String>>>,
}

/// What becomes of one request.
enum Step {
    /// These bytes.
    Say(String),
    /// These bytes, and the connection is closed.
    Close(String),
    /// The same, before any of the request has come.
    CloseUnasked(String),
    /// The same, once some of the request has come, and with the rest of it unread.
    CloseMidway(String),
}

impl Scripted {
    /// Begins with a function of connection and request on it, both from 0.
    async fn start(script: impl Fn(usize, usize) -> Step + Send + Sync + 'static) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), script).await
    }

    async fn start_at(
        ip: IpAddr,
        script: impl Fn(usize, usize) -> Step + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (script, record) = (Arc::new(script), Arc::clone(&seen));
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, record) = (Arc::clone(&script), Arc::clone(&record));
                tokio::spawn(async move {
                    let next = |nth| script(connection, nth);
                    let note = |body: String| record.lock().push(format!("{connection} {body}"));
                    let _ = serve(stream, next, note).await;
                });
            }
        });
        Self { addr, seen }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    fn requests(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    next: impl Fn(usize) -> Step,
    note: impl Fn(String),
) -> std::io::Result<()> {
    for nth in 0.. {
        let step = next(nth);
        if let Step::CloseUnasked(bytes) = step {
            return stream.write_all(bytes.as_bytes()).await;
        }
        let mut request = Vec::new();
        let mut wanted = usize::MAX;
        while request.len() < wanted {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
            if let Step::CloseMidway(bytes) = &step {
                note("midway".into());
                return stream.write_all(bytes.as_bytes()).await;
            }
            wanted = length(&request).unwrap_or(usize::MAX);
        }
        let json = &request[request.iter().position(|byte| *byte == b'{').unwrap()..];
        let json: serde_json::Value = serde_json::from_slice(json).unwrap();
        note(json["data"].as_str().unwrap_or_default().into());
        match step {
            Step::Say(bytes) => stream.write_all(bytes.as_bytes()).await?,
            Step::Close(bytes) => return stream.write_all(bytes.as_bytes()).await,
            Step::CloseUnasked(_) | Step::CloseMidway(_) => unreachable!("done above"),
        }
    }
    Ok(())
}

/// How long a request is, once its head is there.
fn length(request: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(request).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    let head_length = head.len() + 4;
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    Some(head_length + length.parse::<usize>().ok()?)
}

fn ok() -> Step {
    Step::Say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into())
}

fn to(url: String) -> Config {
    support::loopback().remote_url(Some(url))
}

async fn delivered(bridge: &Bridge, count: usize) {
    eventually("all is delivered", async || {
        bridge.stats().uplink.delivered == count as u64
    })
    .await;
}

const DEVICES: usize = 30;
