//! What the backend can ask for: replies, signatures, CloudEvents, HTTP/2, a certificate, connections that are not too old.
#![allow(
    clippy::disallowed_methods,
    reason = "a test is a host, and may start tasks"
)]

#[path = "remote/forms.rs"]
mod forms;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use fastsock::{Bridge, BrokerKind, Config, ErrorKind, Headers, Http2, Secret, State};
use http::{HeaderMap, Version};
use standardwebhooks::Webhook;
use support::{
    Authority, Backend, DEADLINE, Device, HTTP2_STREAMS, OwnNetwork, Received, Reply, TempRedis,
    config, eventually, start,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OLD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test]
async fn every_attempt_is_signed_as_an_independent_implementation_demands() {
    let backend = Backend::start().await;
    backend.queue([Reply::new(503)]);
    let secret = Some(Secret::new(format!("{SECRET} {OLD_SECRET}")));
    let bridge = start(config(&backend).remote_secret(secret)).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("grüße \"#0\"").await;
    let all = backend.wait_for(2).await;
    for request in &all {
        for secret in [SECRET, OLD_SECRET] {
            verify(secret, request).expect("it is signed with both");
        }
        let id = request.header("webhook-id");
        assert_eq!(id, request.header("idempotency-key"));
        let signatures = request.header("webhook-signature").unwrap();
        assert_eq!(signatures.split(' ').count(), 2);

        let mut forged = request.clone();
        forged.body = [&request.body[..], b" "].concat().into();
        verify(SECRET, &forged).expect_err("another body");
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        verify(other, request).expect_err("another secret");
    }
    assert_eq!(all[0].header("webhook-id"), all[1].header("webhook-id"));
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_signature_does_not_follow_a_redirect_to_another_host() {
    let (backend, other) = (Backend::start().await, Backend::start().await);
    backend.queue([Reply::redirect(307, other.url())]);
    let config = config(&backend).remote_secret(Some(Secret::new(SECRET)));
    let bridge = start(config).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("hello").await;
    let request = &other.wait_for(1).await[0];
    assert_eq!(request.header("webhook-signature"), None);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn nothing_is_signed_and_no_event_made_unless_asked_for() {
    let backend = Backend::start().await;
    let bridge = start(config(&backend)).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("hello").await;
    let request = &backend.wait_for(1).await[0];
    let is_extra = |name: &str| name.starts_with("webhook-") || name.starts_with("ce-");
    let extra: Vec<_> = request
        .headers
        .iter()
        .filter(|(n, _)| is_extra(n))
        .collect();
    assert!(extra.is_empty(), "{extra:?}");
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_secret_that_is_none_is_named_and_not_shown() {
    let bad = "whsec_c2hvcnQ=";
    let error = Config::from_vars([("FASTSOCK_REMOTE_SECRET", bad)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let line = error.to_string();
    assert!(line.starts_with("FASTSOCK_REMOTE_SECRET: "), "{line}");
    assert!(!line.contains(bad), "{line}");

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("{SECRET}\n")).unwrap();
    let path = file.path().to_str().unwrap();
    let config = Config::from_vars([("FASTSOCK_REMOTE_SECRET_FILE", path)]).unwrap();
    assert_eq!(config.remote.secret, Some(Secret::new(SECRET)));
    assert_eq!(config.show("remote_secret").as_deref(), Some("***"));
    assert!(!format!("{config:?}").contains(SECRET));
}

#[tokio::test]
async fn each_post_is_a_cloud_event_with_the_same_body() {
    let backend = Backend::start().await;
    let mut config = config(&backend).remote_cloudevents(true);
    config.remote.headers = Headers(vec![("Ce-Type".into(), Some("my.type".into()))]);
    let bridge = start(config).await;
    let mut device = Device::connect(bridge.local_addr(), "Gerät%201").await;
    device.send("hello").await;
    let request = &backend.wait_for(1).await[0];
    let header = |name| request.header(name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(header("ce-specversion"), "1.0");
    assert_eq!(header("ce-id"), header("idempotency-key"));
    assert_eq!(header("ce-source"), "/fastsock");
    assert_eq!(header("ce-type"), "my.type", "the settings override it");
    assert_eq!(header("ce-subject"), "Ger%C3%A4t%25201");
    assert_eq!(header("content-type"), "application/json");
    let time = header("ce-time");
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'));
    assert_eq!(request.body, r#"{"client_id":"Gerät%201","data":"hello"}"#);
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_devices_share_one_connection_of_http2_within_the_peers_limit() {
    let authority = Authority::new();
    let backend = Backend::start_http2(&authority).await;
    backend.answer_all(Reply::ok().after(Duration::from_millis(5)).body("ok"));
    let config = config(&backend).remote_ca(Some(authority.ca_path()));
    let bridge = start(config).await;
    let mut devices = Vec::new();
    for n in 0..30 {
        devices.push(Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
    }
    for n in 0..10 {
        for device in &mut devices {
            device.send(format!("temp#{n}")).await;
        }
    }
    eventually("all are delivered", async || {
        bridge.stats().uplink.delivered == 300
    })
    .await;
    backend.assert_in_order();
    let all = backend.requests();
    assert_eq!(all.len(), 300, "none was sent twice");
    for request in &all {
        assert_eq!((request.version, request.connection), (Version::HTTP_2, 0));
        assert_eq!(request.target, backend.url());
        assert_eq!(request.header("host"), None, "it is in the target");
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(request.header("idempotency-key").is_some());
    }
    let most = most_at_once(&all);
    assert!((2..=HTTP2_STREAMS as usize).contains(&most), "{most}");
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_large_message_and_a_host_of_ones_own_go_by_http2_as_well() {
    let authority = Authority::new();
    let backend = Backend::start_http2(&authority).await;
    let mut config = config(&backend).remote_ca(Some(authority.ca_path()));
    config.remote.headers = Headers(vec![("Host".into(), Some("tenant.example".into()))]);
    let bridge = start(config).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    let text = "x".repeat(1 << 20);
    device.send(text.clone()).await;
    let request = &backend.wait_for(1).await[0];
    assert_eq!(request.target, "https://tenant.example/uplink");
    assert!(request.data == text && request.version == Version::HTTP_2);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn http2_is_not_spoken_when_it_is_off_or_not_offered() {
    let authority = Authority::new();
    for (backend, http2) in [
        (Backend::start_http2(&authority).await, Http2::Off),
        (Backend::start_tls(&authority).await, Http2::Auto),
    ] {
        let config = config(&backend).remote_ca(Some(authority.ca_path()));
        let bridge = start(config.remote_http2(http2)).await;
        let mut device = Device::connect(bridge.local_addr(), "dev1").await;
        for n in 0..3 {
            device.send(format!("temp#{n}")).await;
        }
        for request in backend.wait_for(3).await {
            assert_eq!((request.version, request.connection), (Version::HTTP_11, 0));
            assert!(request.header("host").is_some());
        }
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test]
async fn what_http2_has_not_begun_or_broke_off_is_sent_again_at_once_and_not_counted() {
    for trouble in [
        Trouble::RefusedStream,
        Trouble::GoAway,
        Trouble::GoAwayInAnger,
        Trouble::Cut,
    ] {
        let authority = Authority::new();
        let (addr, mut attempts) = troubled_http2(&authority, trouble).await;
        let config = support::loopback()
            .remote_url(Some(format!("https://{addr}/")))
            .remote_ca(Some(authority.ca_path()));
        let bridge = start(config).await;
        let mut device = Device::connect(bridge.local_addr(), "dev1").await;
        for n in 0..2 {
            device.send(format!("temp#{n}")).await;
        }
        eventually("both are delivered", async || {
            bridge.stats().uplink.delivered == 2
        })
        .await;
        for _ in 0..2 {
            assert_eq!(attempts.recv().await.as_deref(), Some("1"), "{trouble:?}");
        }
        let counters = bridge.stats().counters;
        assert_eq!(
            (counters.posts, counters.posts_failed),
            (2, 0),
            "{trouble:?}"
        );
        bridge.stop(DEADLINE).await;
    }
}

#[tokio::test]
async fn what_waits_for_a_stream_when_http2_goes_away_is_sent_again_at_once_and_not_counted() {
    let authority = Authority::new();
    let go_away = Arc::new(Notify::new());
    let (addr, mut attempts) = one_stream_http2(&authority, go_away.clone()).await;
    let config = support::loopback()
        .remote_url(Some(format!("https://{addr}/")))
        .remote_ca(Some(authority.ca_path()));
    let bridge = start(config).await;
    let mut devices = Vec::new();
    for n in 0..4 {
        let mut device = Device::connect(bridge.local_addr(), &format!("dev{n}")).await;
        device.send("hello").await;
        if n < 2 {
            // The first is answered: from then on the gateway knows that there is one stream. The second keeps that.
            assert_eq!(attempts.recv().await.as_deref(), Some("1"));
        }
        devices.push(device);
    }
    eventually("the others wait", async || bridge.stats().uplink.held == 3).await;
    for _ in 0..100 {
        tokio::task::yield_now().await; // into the connection
    }
    go_away.notify_one();
    eventually("all are delivered", async || {
        bridge.stats().uplink.delivered == 4
    })
    .await;
    for _ in 0..2 {
        assert_eq!(attempts.recv().await.as_deref(), Some("1"));
    }
    let counters = bridge.stats().counters;
    assert_eq!((counters.posts, counters.posts_failed), (4, 0));
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_used_no_more() {
    let authority = Authority::new();
    for backend in [
        Backend::start().await,
        Backend::start_http2(&authority).await,
    ] {
        let config = config(&backend)
            .remote_ca(Some(authority.ca_path()))
            .remote_connection_age(Duration::from_millis(1));
        let bridge = start(config).await;
        let mut device = Device::connect(bridge.local_addr(), "dev1").await;
        for n in 0..3 {
            // The backend thinks for longer than that.
            backend.queue([Reply::ok().after(Duration::from_millis(20))]);
            device.send(format!("temp#{n}")).await;
        }
        let all = backend.wait_delivered("dev1", 3).await;
        assert_eq!(all.len(), 3, "none was sent twice");
        let all = backend.requests();
        let connections: Vec<_> = all.iter().map(|request| request.connection).collect();
        assert_eq!(connections, [0, 1, 2]);
        bridge.stop(DEADLINE).await;
    }
}

#[test]
fn a_new_connection_looks_the_name_up_again() {
    let network = OwnNetwork::of("a_new_connection_looks_the_name_up_again");
    network.run_with_hosts(|hosts| {
        within_a_runtime(async {
            let port = support::free_port();
            let mut first = answering((Ipv4Addr::new(127, 0, 0, 2), port).into()).await;
            let mut second = answering((Ipv4Addr::new(127, 0, 0, 3), port).into()).await;
            fs::write(hosts, "127.0.0.2 backend.test\n").unwrap();
            let config = support::loopback()
                .remote_url(Some(format!("http://backend.test:{port}/")))
                .remote_connection_age(Duration::from_millis(1));
            let bridge = start(config).await;
            let mut device = Device::connect(bridge.local_addr(), "dev1").await;
            device.send("a").await;
            first.recv().await.unwrap();
            eventually("it is delivered", async || {
                bridge.stats().uplink.delivered == 1
            })
            .await;
            fs::write(hosts, "127.0.0.3 backend.test\n").unwrap();
            device.send("b").await;
            second.recv().await.unwrap();
            bridge.stop(DEADLINE).await;
        })
    });
}

#[tokio::test]
async fn a_remote_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new();
    let backend = Backend::start_mutual_tls(&authority).await;
    let ours = authority.issue(&["gateway"]);
    let stranger = config(&backend).remote_ca(Some(authority.ca_path()));
    let known = stranger
        .clone()
        .remote_cert(Some(ours.cert_path.clone()))
        .remote_key(Some(ours.key_path.clone()));

    let bridge = start(stranger).await;
    let mut device = Device::connect(bridge.local_addr(), "stranger").await;
    device.send("hello").await;
    eventually("it is not let in", async || {
        bridge.stats().counters.posts_failed > 0
    })
    .await;
    assert_eq!(backend.count(), 0);
    bridge.stop(Duration::ZERO).await;

    let bridge = start(known).await;
    let mut device = Device::connect(bridge.local_addr(), "known").await;
    device.send("hello").await;
    assert_eq!(backend.wait_delivered("known", 1).await, ["hello"]);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn a_certificate_of_ours_that_cannot_be_used_is_named() {
    let authority = Authority::new();
    let (ours, other) = (authority.issue(&["gateway"]), authority.issue(&["other"]));
    let missing = ours.dir().join("missing.pem");
    for (cert, key, setting, path) in [
        (Some(&missing), Some(&ours.key_path), "CERT", "missing.pem"),
        (Some(&ours.cert_path), Some(&missing), "KEY", "missing.pem"),
        (
            Some(&ours.cert_path),
            Some(&other.key_path),
            "KEY",
            "other-key.pem",
        ),
        (Some(&ours.cert_path), None, "KEY", "FASTSOCK_REMOTE_CERT"),
        (None, Some(&ours.key_path), "CERT", "FASTSOCK_REMOTE_KEY"),
    ] {
        let config = support::loopback()
            .remote_url(Some("https://localhost/".into()))
            .remote_cert(cert.cloned())
            .remote_key(key.cloned());
        let error = Bridge::builder(config).start().await.unwrap_err();
        let line = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            line.starts_with(&format!("FASTSOCK_REMOTE_{setting}: ")) && line.contains(path),
            "{line}"
        );
    }
}

fn verify(secret: &str, request: &Received) -> Result<(), standardwebhooks::WebhookError> {
    let headers: HeaderMap = request
        .headers
        .iter()
        .map(|(name, value)| {
            let name: http::HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        })
        .collect();
    let webhook = Webhook::new(secret).unwrap();
    webhook.verify(&request.body, &headers)
}

fn within_a_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_backend_answers_goes_to_the_device_in_order() {
    let backend = Backend::start().await;
    backend.answer(|request| Reply::ok().body(format!("re: {}", request.data)));
    let bridge = start(config(&backend).remote_reply(true)).await;
    let mut devices = Vec::new();
    for n in 0..5 {
        devices.push(Device::connect(bridge.local_addr(), &format!("dev{n}")).await);
    }
    for n in 0..20 {
        for (id, device) in devices.iter_mut().enumerate() {
            device.send(format!("dev{id}#{n}")).await;
        }
    }
    for (id, device) in devices.iter_mut().enumerate() {
        for n in 0..20 {
            assert_eq!(device.recv_text().await, format!("re: dev{id}#{n}"));
        }
    }
    eventually("the books are closed", async || {
        let stats = bridge.stats();
        (stats.uplink.delivered, stats.downlink.delivered) == (100, 100)
    })
    .await;
    assert_eq!(bridge.stats().downlink.received, 100);
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn only_a_200_with_a_body_of_the_allowed_size_is_a_reply() {
    let backend = Backend::start().await;
    let octets = Reply::ok().header("content-type", "application/octet-stream");
    let long = "x".repeat(1001);
    let coded = |value: &str| Reply::ok().header("content-encoding", value).body("plain");
    backend.queue([
        Reply::ok(),
        Reply::new(201).body("no"),
        Reply::new(400).body("no"),
        Reply::ok().body(long.clone()),
        Reply::ok().body("cut").cut_after_head(),
        coded("gzip"),
        coded("identity, br"),
        coded("Identity").header("content-encoding", "zstd"),
        coded("Identity, identity"),
        Reply::ok().body(long[1..].to_owned()),
        octets.body(vec![0xff, 0x00]),
    ]);
    let config = config(&backend).remote_reply(true);
    let bridge = start(config.remote_reply_bytes(1000usize)).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    for n in 0..11 {
        device.send(format!("temp#{n}")).await;
    }
    assert_eq!(device.recv_text().await, "plain");
    assert_eq!(device.recv_text().await, long[1..]);
    assert_eq!(
        device.recv().await,
        Message::Binary(vec![0xff, 0x00].into())
    );
    let all = backend.requests();
    assert_eq!(all.len(), 11, "none was sent twice");
    for request in &all {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
    let lost = "too long, cut off, and three times a content coding";
    assert_eq!(bridge.stats().counters.replies_lost, 5, "{lost}");
    bridge.stop(DEADLINE).await;
}

#[tokio::test]
async fn no_answer_is_a_reply_unless_asked_for() {
    let backend = Backend::start().await;
    backend.answer_all(Reply::ok().body("no"));
    let bridge = start(config(&backend)).await;
    let mut device = Device::connect(bridge.local_addr(), "dev1").await;
    device.send("a#0").await;
    device.send("a#1").await;
    backend.wait_delivered("dev1", 2).await;
    assert_eq!(backend.requests()[0].header("accept-encoding"), None);
    let dev1 = "dev1".parse().unwrap();
    bridge.send(&dev1, "first".into()).await.unwrap();
    assert_eq!(device.recv_text().await, "first");
    bridge.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_finds_a_device_that_went_to_another_gateway() {
    let redis = TempRedis::new().await;
    let backend = Backend::start().await;
    let has_moved = Arc::new(AtomicBool::new(false));
    let seen = has_moved.clone();
    backend.answer(move |_| match seen.load(SeqCst) {
        true => Reply::ok().body("welcome back"),
        false => Reply::new(503),
    });
    let gateway = || start_on(config(&backend).remote_reply(true), &redis);
    let (here, there) = (gateway().await, gateway().await);
    let mut device = Device::connect(here.local_addr(), "dev1").await;
    device.send("hello#0").await;
    backend.wait_for(1).await;
    let mut moved = Device::connect(there.local_addr(), "dev1").await;
    eventually("it has left here", async || here.clients().is_empty()).await;
    has_moved.store(true, SeqCst);
    assert_eq!(moved.recv_text().await, "welcome back");
    here.stop(DEADLINE).await;
    there.stop(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new();
    let asking = TempRedis::builder()
        .tls(&authority)
        .args(["--tls-auth-clients", "yes"]);
    let redis = asking.start().await;
    let ours = authority.issue(&["gateway"]);
    let config = support::loopback()
        .broker(BrokerKind::Redis)
        .redis_url(Some(Secret::new(redis.tls_url())))
        .redis_ca(Some(authority.ca_path()));
    let stranger = start(config.clone()).await;
    let config = config.redis_cert(Some(ours.cert_path.clone()));
    let error = Bridge::builder(config.clone()).start().await.unwrap_err();
    assert!(
        error.to_string().starts_with("FASTSOCK_REDIS_KEY: "),
        "{error}"
    );
    let bridge = start(config.redis_key(Some(ours.key_path.clone()))).await;
    eventually("Redis is there", async || bridge.state() == State::Running).await;
    assert_eq!(stranger.state(), State::Degraded);
    bridge.stop(DEADLINE).await;
    stranger.stop(DEADLINE).await;
}

async fn start_on(config: Config, redis: &TempRedis) -> Bridge {
    let config = config.broker(BrokerKind::Redis).redis_port(redis.port());
    let bridge = start(config).await;
    eventually("Redis is there", async || bridge.state() == State::Running).await;
    bridge
}

/// How many requests were open at the same time at the most.
fn most_at_once(requests: &[Received]) -> usize {
    let open_at = |at| {
        let is_open = |r: &&Received| r.at <= at && r.done.is_none_or(|done| done > at);
        requests.iter().filter(is_open).count()
    };
    requests.iter().map(|r| open_at(r.at)).max().unwrap_or(0)
}

/// What a server of HTTP/2 does to the second request on its first connection.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Resets its stream with REFUSED_STREAM.
    RefusedStream,
    /// Takes no more requests, and says so.
    GoAway,
    /// The same, with an error.
    GoAwayInAnger,
    /// Closes the connection without a word.
    Cut,
}

async fn http2_listener(authority: &Authority) -> (TcpListener, SocketAddr, TlsAcceptor) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tls = (*authority.issue_for_loopback().server_config()).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    (listener, addr, TlsAcceptor::from(Arc::new(tls)))
}

/// A server of HTTP/2 that causes trouble once. It sends on the `X-Fastsock-Attempt` of each request that it answers.
async fn troubled_http2(
    authority: &Authority,
    trouble: Trouble,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (listener, addr, tls) = http2_listener(authority).await;
    let (sender, attempts) = mpsc::unbounded_channel();
    let requests = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, sender, requests) = (tls.clone(), sender.clone(), requests.clone());
            tokio::spawn(async move {
                let stream = tls.accept(tcp).await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let number = requests.fetch_add(1, SeqCst);
                    match trouble {
                        Trouble::RefusedStream if number == 1 => {
                            respond.send_reset(h2::Reason::REFUSED_STREAM);
                            continue;
                        }
                        Trouble::GoAway if number == 0 => connection.graceful_shutdown(),
                        Trouble::GoAwayInAnger if number == 1 => {
                            connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                            continue;
                        }
                        Trouble::Cut if number == 1 => return,
                        _ => {}
                    }
                    let attempt = request.headers()["x-fastsock-attempt"].to_str().unwrap();
                    sender.send(attempt.to_owned()).unwrap();
                    respond
                        .send_response(http::Response::new(()), true)
                        .unwrap();
                }
            });
        }
    });
    (addr, attempts)
}

/// A server of HTTP/2 that takes one request at a time. It answers the second on its first connection when it is told to go away. It
/// sends on the `X-Fastsock-Attempt` of each request.
async fn one_stream_http2(
    authority: &Authority,
    go_away: Arc<Notify>,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (listener, addr, tls) = http2_listener(authority).await;
    let (sender, attempts) = mpsc::unbounded_channel();
    let requests = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, sender, requests) = (tls.clone(), sender.clone(), requests.clone());
            let go_away = go_away.clone();
            tokio::spawn(async move {
                let stream = tls.accept(tcp).await.unwrap();
                let mut builder = h2::server::Builder::new();
                let handshake = builder
                    .max_concurrent_streams(1)
                    .handshake::<_, bytes::Bytes>(stream);
                let mut connection = handshake.await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let attempt = request.headers()["x-fastsock-attempt"].to_str().unwrap();
                    sender.send(attempt.to_owned()).unwrap();
                    if requests.fetch_add(1, SeqCst) == 1 {
                        go_away.notified().await;
                        connection.graceful_shutdown();
                    }
                    respond
                        .send_response(http::Response::new(()), true)
                        .unwrap();
                }
            });
        }
    });
    (addr, attempts)
}

/// A server on this address that answers 200 to everything, and tells of each read.
async fn answering(addr: SocketAddr) -> mpsc::UnboundedReceiver<()> {
    let listener = TcpListener::bind(addr).await.unwrap();
    let (sender, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while tcp.readable().await.is_ok() {
                    match tcp.try_read(&mut buffer) {
                        Ok(0) => return,
                        // Head and body of a small POST come together.
                        Ok(_) => {
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                            tcp.write_all(answer).await.unwrap();
                            let _ = sender.send(());
                        }
                        Err(_) => {}
                    }
                }
            });
        }
    });
    heard
}
