//! The test support keeps its own promises: what other tests lean on is tried here, without a bridge.

use std::{
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    panic,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use support::{
    Authority, Backend, Proxy, RawDevice, Reply, TempRedis, TempSentinel, call, eventually,
    free_port, get,
};
use tokio::runtime::Runtime;

const POST: &str = r#"{"client_id":"dev1","data":"t#1"}"#;

#[tokio::test]
async fn a_redis_keeps_its_port_over_stop_kill_freeze_and_restart() {
    let mut redis = TempRedis::new().await;
    let port = redis.port();
    redis.cmd::<()>(&["HSET", "h", "f", "1"]).await;
    assert_eq!(redis.wait_field("h", "f").await, "1");

    redis.restart().await;
    assert_eq!((redis.port(), redis.hget("h", "f").await), (port, None));
    redis.kill();
    redis.start().await;

    redis.freeze();
    let asked = redis.connection();
    let answer = tokio::time::timeout(Duration::from_millis(300), asked).await;
    assert!(answer.is_err(), "a frozen server answers nothing");
    redis.thaw();
    assert_eq!(redis.publish("nobody", "x").await, 0);
    redis.freeze(); // and it must still be killed when dropped
    let pid = redis.process().pid();
    drop(redis);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_redis_can_ask_for_users_passwords_and_tls() {
    let authority = Authority::new();
    let redis = TempRedis::builder()
        .password("pw")
        .user("alice", "secret", "~fastsock:* &fastsock:* +@all")
        .tls(&authority)
        .start()
        .await;
    let open =
        |auth: &str| redis::Client::open(format!("redis://{auth}127.0.0.1:{}", redis.port()));
    let alice = open("alice:secret@").unwrap();
    let mut alice = alice.get_multiplexed_async_connection().await.unwrap();
    let set = redis::cmd("SET").arg("fastsock:x").arg(1).to_owned();
    set.query_async::<()>(&mut alice).await.unwrap();
    let denied = redis::cmd("GET").arg("y").to_owned();
    assert!(denied.query_async::<()>(&mut alice).await.is_err());
    let stranger = open("").unwrap();
    let mut stranger = stranger.get_multiplexed_async_connection().await.unwrap();
    assert!(set.query_async::<()>(&mut stranger).await.is_err());

    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificates = redis::TlsCertificates {
        client_tls: None,
        root_cert: Some(std::fs::read(authority.ca_path()).unwrap()),
    };
    let url = redis.tls_url().replace("rediss://", "rediss://:pw@");
    let tls = redis::Client::build_with_tls(url, certificates).unwrap();
    let mut tls = tls.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("PING")
        .query_async::<()>(&mut tls)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_sentinel_promotes_the_replica_of_a_dead_master() {
    let (mut master, replica) = (TempRedis::new().await, TempRedis::new().await);
    replica.follow(&master).await;
    let sentinel = TempSentinel::watch(&master).await;
    sentinel.wait_replicas(1).await;
    master.kill();
    sentinel.wait_master(&replica).await;
    eventually("the replica is a master", async || {
        let role: String = replica.cmd(&["INFO", "replication"]).await;
        role.contains("role:master")
    })
    .await;
}

#[tokio::test]
async fn a_backend_writes_down_requests_and_answers_as_told() {
    let backend = Backend::start().await;
    let addr = backend.addr();
    backend.queue([
        Reply::new(503).header("retry-after", "7"),
        Reply::ok().body("hello").after(Duration::from_millis(30)),
    ]);
    let first = call(
        addr,
        "POST",
        "/uplink?a=b",
        &[("x-one", "1"), ("a-two", "2")],
        POST,
    )
    .await;
    assert_eq!(
        (first.status, &first.headers["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    assert_eq!(call(addr, "POST", "/", &[], POST).await.text(), "hello");
    backend.answer(|request| Reply::new(if request.data == "t#1" { 201 } else { 400 }));
    assert_eq!(call(addr, "POST", "/", &[], POST).await.status, 201);
    assert_eq!(call(addr, "POST", "/", &[], "").await.status, 400);

    let all = backend.wait_for(4).await;
    let names: Vec<_> = all[0]
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["host", "x-one", "a-two", "content-length"]);
    assert_eq!(
        (all[0].target.as_str(), &all[0].body[..]),
        ("/uplink?a=b", POST.as_bytes())
    );
    assert_eq!((all[0].connection, all[3].connection), (0, 3));
    assert_eq!(backend.wait_delivered("dev1", 2).await, ["t#1", "t#1"]);
    backend.assert_one_in_flight();
}

#[tokio::test]
async fn a_backend_can_fail_on_every_step_of_an_answer() {
    let backend = Backend::start().await;
    let request = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{POST}",
        POST.len()
    );
    let ends = [
        (Reply::close(), ""),
        (Reply::reset(), ""),
        (
            Reply::ok().body("ab").cut_after_head(),
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
        ),
    ];
    for (reply, expected) in ends {
        backend.queue([reply]);
        let mut client = RawDevice::connect(backend.addr()).await;
        client.write(&request).await;
        assert_eq!(
            String::from_utf8(client.read_to_end().await).unwrap(),
            expected
        );
    }
    backend.queue([Reply::hang()]);
    let mut client = RawDevice::connect(backend.addr()).await;
    client.write(&request).await;
    backend.wait_for(4).await;
    client.reset();
    backend
        .wait_until("the hanging request has ended", |all| all[3].done.is_some())
        .await;

    let mut idle = RawDevice::connect(backend.addr()).await;
    backend.go_down().await;
    assert!(idle.read_to_end().await.is_empty());
    assert!(
        tokio::net::TcpStream::connect(backend.addr())
            .await
            .is_err()
    );
    backend.come_back();
    assert_eq!(get(backend.addr(), "/").await.status, 200);
}

#[tokio::test]
async fn a_proxy_tunnels_and_passes_on() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.addr()).await;
    let addr = proxy.url().trim_start_matches("http://").parse().unwrap();
    assert_eq!(get(addr, "http://far.example/x").await.status, 200);
    assert_eq!(backend.requests()[0].target, "http://far.example/x");

    let mut client = RawDevice::connect(addr).await;
    client
        .write("CONNECT far.example:443 HTTP/1.1\r\n\r\n")
        .await;
    assert_eq!(client.read_head().await, "HTTP/1.1 200 OK\r\n\r\n");
    client.write("GET /y HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(client.read_head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(proxy.heads()[1].starts_with("CONNECT far.example:443 "));
}

#[test]
fn ports_are_never_handed_out_twice() {
    let mut ports: Vec<_> = (0..100).map(|_| free_port()).collect();
    // Another process that draws one of them finds it marked.
    for port in &ports {
        let name = format!("fastsock-test-port-{port}");
        let name = SocketAddr::from_abstract_name(name).unwrap();
        let drawn = UnixDatagram::bind_addr(&name);
        assert_eq!(drawn.unwrap_err().kind(), ErrorKind::AddrInUse);
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 100);
}

/// A child has copies of our listeners until it executes its program, and a copy keeps the port.
#[test]
fn a_port_is_ours_again_though_a_child_was_started_meanwhile() {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                Command::new("true").status().expect("true is run");
            }
        });
        let tried = panic::catch_unwind(|| {
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async {
                for _ in 0..300 {
                    let backend = Backend::start().await;
                    backend.go_down().await;
                    backend.come_back();
                    assert_eq!(get(backend.addr(), "/").await.status, 200);
                }
            });
        });
        is_done.store(true, Ordering::Relaxed);
        tried.expect("the port is ours again");
    });
}
