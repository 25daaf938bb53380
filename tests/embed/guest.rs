//! A bridge is a guest: what it must leave alone in the process of its host.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_bridges_in_one_process_know_nothing_of_each_other() {
    let (backend_a, backend_b) = (Backend::start().await, Backend::start().await);
    let (diary_a, diary_b) = (Arc::new(Diary::default()), Arc::new(Diary::default()));
    let redis = TempRedis::new().await;
    let start = async |backend: &Backend, diary: &Arc<Diary>, prefix: &str| {
        let config = config(backend)
            .broker(BrokerKind::Redis)
            .redis_port(redis.port())
            .redis_prefix(prefix);
        Bridge::builder(config)
            .shared_hooks(diary.clone())
            .start()
            .await
            .unwrap()
    };
    let a = start(&backend_a, &diary_a, "a").await;
    let b = start(&backend_b, &diary_b, "b").await;
    let mut on_a = Device::connect(a.local_addr(), "dev").await;
    let mut on_b = Device::connect(b.local_addr(), "dev").await;
    on_a.send("for a").await;
    on_b.send("for b").await;
    assert_eq!(backend_a.wait_delivered("dev", 1).await, ["for a"]);
    assert_eq!(backend_b.wait_delivered("dev", 1).await, ["for b"]);
    redis.wait_subscribed("a:client:*", 1).await;
    redis.wait_subscribed("b:client:*", 1).await;
    redis.publish("a:client:dev", "down a").await;
    redis.publish("b:client:dev", "down b").await;
    assert_eq!(on_a.recv_text().await, "down a");
    assert_eq!(on_b.recv_text().await, "down b");
    let id = ClientId::new("dev").unwrap();
    assert_eq!(a.send(&id, "more".into()).await.unwrap(), Sent::Here);
    assert_eq!(on_a.recv_text().await, "more");
    let error = b.resolve(Ticket(1), Answer::Failed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Ticket);

    assert!(a.stop(DEADLINE).await.is_empty());
    assert_eq!(on_a.closed().await.code, Some(1001));
    on_b.send("still here").await;
    backend_b.wait_delivered("dev", 2).await;
    let (stats_a, stats_b) = (a.stats(), b.stats());
    assert_eq!((stats_a.uplink.received, stats_b.uplink.received), (1, 2));
    assert_eq!(
        (stats_a.downlink.received, stats_b.downlink.received),
        (2, 1)
    );
    assert_eq!(diary_a.0.lock()["dev"].len(), 2);
    assert_eq!(diary_b.0.lock()["dev"].len(), 1);
    assert!(b.stop(DEADLINE).await.is_empty());
}

#[tokio::test]
async fn a_check_reads_files_and_connects_to_nobody() {
    let nobody = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    nobody.set_nonblocking(true).unwrap();
    let port = nobody.local_addr().unwrap().port();
    let config = Config::default()
        .broker(BrokerKind::Redis)
        .redis_port(port)
        .websocket_port(port) // taken: that is for the start to find
        .events_url(Some(format!("http://127.0.0.1:{port}/")))
        .remote_url(Some(format!("http://127.0.0.1:{port}/")));
    Bridge::builder(config.clone()).check().unwrap();
    assert!(nobody.accept().is_err(), "it connected");

    let config = config.remote_ca(Some("no/such/file".into()));
    let error = Bridge::builder(config).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().starts_with("FASTSOCK_REMOTE_CA: "),
        "{error}"
    );
}

#[test]
fn a_bridge_touches_nothing_that_belongs_to_its_host() {
    if !is_alone("guest::a_bridge_touches_nothing_that_belongs_to_its_host") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let states = runtime.block_on(async {
        let (backend, redis) = (Backend::start().await, TempRedis::new().await);
        let before = host_state();
        let has_dispatcher = tracing::dispatcher::has_been_set();
        let bridge = start(
            config(&backend)
                .broker(BrokerKind::Redis)
                .redis_port(redis.port())
                .admin_addr(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))),
            (),
        )
        .await;
        let mut device = Device::connect(bridge.local_addr(), "dev").await;
        device.send("x#0").await;
        backend.wait_delivered("dev", 1).await;
        bridge
            .send(&ClientId::new("dev").unwrap(), "y".into())
            .await
            .unwrap();
        assert_eq!(device.recv_text().await, "y");
        let during = host_state();
        assert!(bridge.stop(DEADLINE).await.is_empty());
        assert_eq!(
            has_dispatcher,
            tracing::dispatcher::has_been_set(),
            "no global subscriber"
        );
        assert!(
            rustls::crypto::CryptoProvider::get_default().is_none(),
            "no default TLS provider"
        );
        [before, during, host_state()]
    });
    assert_eq!(states[0], states[1]);
    assert_eq!(states[0], states[2]);
}

#[test]
fn a_bridge_can_live_on_a_thread_of_its_own_and_be_used_from_many() {
    let heard = Arc::new(AtomicUsize::new(0));
    let bridge = blocking::Bridge::builder(support::loopback())
        .hooks(Echo {
            bridge: Mutex::default(),
            heard: heard.clone(),
        })
        .start()
        .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let addr = bridge.local_addr();
    runtime.block_on(async {
        let mut device = Device::connect(addr, "dev").await;
        assert_eq!(device.recv_text().await, "welcome");
        device.send("echo").await;
        assert_eq!(device.recv_text().await, "echo");
    });
    let bridge = Arc::new(bridge);
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let bridge = bridge.clone();
            thread::spawn(move || {
                let id = ClientId::new(format!("nobody{n}")).unwrap();
                for _ in 0..100 {
                    assert_eq!(bridge.send(&id, "x".into()).unwrap(), Sent::Offline);
                    assert!(!bridge.disconnect(&id, CloseReason::Kicked));
                    bridge.stats();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(heard.load(Relaxed), 1);
    // No hook keeps it alive, and the last handle ends it.
    drop(Arc::into_inner(bridge));
    wait_until(DEADLINE, "nobody holds the hooks", || {
        Arc::strong_count(&heard) == 1
    });
}

/// What a library must leave alone: signals, working directory, environment, limits.
fn host_state() -> (Vec<String>, String, Vec<(String, String)>, Option<u64>) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let signals = ["SigBlk", "SigIgn", "SigCgt", "Umask"];
    let signals = status
        .lines()
        .filter(|line| signals.iter().any(|name| line.starts_with(name)))
        .map(str::to_owned)
        .collect();
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (
        signals,
        env::current_dir().unwrap().display().to_string(),
        env::vars().collect(),
        descriptors.current,
    )
}
