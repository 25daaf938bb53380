//! Memory does not grow under churn.

use super::*;

#[test]
fn memory_does_not_grow_while_devices_come_and_go() {
    if !is_alone("memory::memory_does_not_grow_while_devices_come_and_go") {
        return;
    }
    let time = match env::var("FASTSOCK_SOAK_SECONDS") {
        Ok(seconds) => Duration::from_secs(seconds.parse().expect("a number of seconds")),
        Err(_) => Duration::from_secs(20),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(soak(time));
}

/// A gateway under churn, watched from outside.
async fn soak(time: Duration) {
    let (backend, redis) = (Sink::start().await, TempRedis::new().await);
    let mut gateway = support::Gateway::builder()
        .var("REMOTE_URL", backend.url())
        .var("REDIS_PORT", redis.port().to_string())
        .var("LOG_LEVEL", "info")
        .var("FASTSOCK_LOG_PAYLOADS", "none")
        .start()
        .await;
    let addr = gateway.addr();
    let end = Instant::now() + time;
    let stop = Arc::new(AtomicBool::new(false));
    let churn: Vec<_> = (0..40)
        .map(|n| {
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut round = 0;
                while !stop.load(Relaxed) {
                    round += 1;
                    let id = format!("dev{}", (n + round) % 200);
                    let mut device = RawDevice::seated(addr, &id).await;
                    for size in [10, 100, 1000, 20_000] {
                        let text = "x".repeat(size);
                        let frame = support::Frame::text(text);
                        if device.try_write(frame.encode()).await.is_err() {
                            break; // taken over
                        }
                    }
                    sleep(Duration::from_millis(fastrand::u64(0..30))).await; // any tempo will do
                    if round % 3 == 0 {
                        device.reset();
                    }
                }
            })
        })
        .collect();
    let publisher = tokio::spawn({
        let stop = stop.clone();
        let mut link = redis.connection().await;
        async move {
            while !stop.load(Relaxed) {
                let mut pipe = redis::pipe();
                for n in 0..200 {
                    let channel = format!("fastsock:client:dev{n}");
                    pipe.cmd("PUBLISH")
                        .arg(channel)
                        .arg("y".repeat(200))
                        .ignore();
                }
                pipe.query_async::<()>(&mut link).await.unwrap();
                sleep(Duration::from_millis(20)).await; // the tempo of a backend
            }
        }
    });
    sleep(time / 3).await; // the first third fills pools and caches
    let (mut early, mut late) = (Vec::new(), Vec::new());
    let half = Instant::now() + (end - Instant::now()) / 2;
    while Instant::now() < end {
        let figures = if Instant::now() < half {
            &mut early
        } else {
            &mut late
        };
        figures.push(gateway.process().resident_bytes());
        sleep(Duration::from_millis(100)).await; // between two looks
    }
    stop.store(true, Relaxed);
    join_all(churn).await;
    publisher.await.unwrap();
    let median = |mut figures: Vec<u64>| {
        figures.sort_unstable();
        figures[figures.len() / 2]
    };
    let (early, late) = (median(early), median(late));
    println!(
        "soak of {time:?}: {} KiB resident, then {} KiB; {} uplinks",
        early >> 10,
        late >> 10,
        backend.count()
    );
    assert!(
        late < early + early / 5 + (2 << 20),
        "{early} then {late} bytes"
    );
    // Far fewer than there were sessions; kept connections to the backend and to Redis are among them.
    eventually("descriptors are given back", async || {
        gateway.process().open_files() < 200
    })
    .await;
    assert_eq!(gateway.stop().await, Some(0));
}

/// A backend that takes everything and keeps nothing, so that its own memory does not grow.
struct Sink {
    addr: SocketAddr,
    count: Arc<AtomicUsize>,
}

impl Sink {
    async fn start() -> Self {
        use http_body_util::{BodyExt, Empty};
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let addr = listener.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let counted = counted.clone();
                let service = hyper::service::service_fn(
                    move |request: http::Request<hyper::body::Incoming>| {
                        let counted = counted.clone();
                        async move {
                            request.into_body().collect().await?;
                            counted.fetch_add(1, Relaxed);
                            Ok::<_, hyper::Error>(http::Response::new(Empty::<bytes::Bytes>::new()))
                        }
                    },
                );
                tokio::spawn(async move {
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await;
                });
            }
        });
        Self { addr, count }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    fn count(&self) -> usize {
        self.count.load(Relaxed)
    }
}
