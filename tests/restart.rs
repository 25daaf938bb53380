//! Restarts that nobody notices: a rolling restart of several gateways, a hand-over on one port, and sockets that systemd keeps.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test is a host, and may start tasks and print"
)]

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use support::{
    Backend, DEADLINE, Frame, Gateway, GatewayBuilder, Process, RawDevice, Reply, TempRedis,
    eventually, free_port, gateway_binary, get, opcode, within,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, interval, sleep},
};

/// Gateways that devices may choose from, and what was noticed of their restarts.
#[derive(Default)]
struct Fleet {
    addrs: Vec<SocketAddr>,
    ends: AtomicBool,
    /// Connections that nobody took.
    refused: AtomicUsize,
}

/// What became of one device.
struct Travels {
    /// How many messages it has sent.
    sent: usize,
    /// How long it was away, each time.
    away: Vec<Duration>,
}

/// A plain device: it sends all the time, answers a close frame, and connects again, to the next gateway.
async fn travel(fleet: Arc<Fleet>, name: String, mut at: usize) -> Travels {
    let mut travels = Travels {
        sent: 0,
        away: Vec::new(),
    };
    let mut left_at = None::<Instant>;
    while !fleet.ends.load(Relaxed) {
        let addr = fleet.addrs[at % fleet.addrs.len()];
        at += 1;
        let Ok(mut device) = RawDevice::try_seated(addr, &name).await else {
            fleet.refused.fetch_add(1, Relaxed);
            sleep(Duration::from_millis(5)).await; // as devices do
            continue;
        };
        travels.away.extend(left_at.take().map(|at| at.elapsed()));
        let mut ticks = interval(Duration::from_millis(15));
        let mut is_last = false;
        loop {
            tokio::select! {
                _ = ticks.tick(), if !is_last => {
                    is_last = fleet.ends.load(Relaxed);
                    let frame = match is_last {
                        true => Frame::close(1000, ""),
                        false => Frame::text(format!("{name}#{}", travels.sent)),
                    };
                    device.try_write(frame.encode()).await.expect("no gateway breaks off without a close frame");
                    travels.sent += usize::from(!is_last);
                }
                next = device.next() => match next.expect("a close frame comes first") {
                    frame if frame.opcode == opcode::CLOSE => {
                        left_at = Some(Instant::now());
                        let _ = device.try_write(Frame::close(1000, "").encode()).await; // or it is the answer to ours
                        break;
                    }
                    _ => {}
                }
            }
        }
        drop(device); // as most do, without waiting for the other end
    }
    travels
}

fn set_out(fleet: &Arc<Fleet>, count: usize) -> Vec<JoinHandle<Travels>> {
    let device = |n| tokio::spawn(travel(fleet.clone(), format!("dev{n}"), n));
    (0..count).map(device).collect()
}

/// Calls the devices home. Each message that any of them sent has arrived.
async fn assert_nothing_lost(
    what: &str,
    fleet: &Fleet,
    devices: Vec<JoinHandle<Travels>>,
    backend: &Backend,
) {
    fleet.ends.store(true, Relaxed);
    let (mut away, mut sent) = (Vec::new(), 0);
    for (n, device) in devices.into_iter().enumerate() {
        let travels = within("a device comes home", device).await.unwrap();
        let name = format!("dev{n}");
        let expected: Vec<_> = (0..travels.sent).map(|m| format!("{name}#{m}")).collect();
        eventually(
            &format!("all {} of {name} arrive", travels.sent),
            async || {
                let mut delivered = backend.delivered(&name);
                delivered
                    .sort_by_key(|text| text.rsplit('#').next().unwrap().parse::<usize>().ok());
                delivered.dedup();
                delivered == expected
            },
        )
        .await;
        sent += travels.sent;
        away.extend(travels.away);
    }
    away.sort();
    assert!(!away.is_empty(), "somebody was sent away");
    println!(
        "{what}: {sent} uplinks, none lost; a device was away {} times, {:?} in the middle, {:?} at most",
        away.len(),
        away[away.len() / 2],
        away[away.len() - 1]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_three_gateways_loses_no_uplink_with_any_spool() {
    for spool in ["memory", "disk", "redis"] {
        let (backend, redis) = (Backend::start().await, TempRedis::new().await);
        backend.answer_all(Reply::ok().after(Duration::from_millis(1)));
        let data = tempfile::tempdir().unwrap();
        let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
        let builder = |n: usize| {
            let folder = data.path().join(n.to_string());
            Gateway::builder()
                .var("REMOTE_URL", backend.url())
                .var("REDIS_PORT", redis.port().to_string())
                .var("WEBSOCKET_PORT", ports[n].to_string())
                .var("FASTSOCK_SPOOL", spool)
                .var("FASTSOCK_DATA_DIR", folder.to_str().unwrap())
                .var("FASTSOCK_DRAIN_WINDOW", "200ms")
        };
        let mut gateways = Vec::new();
        for n in 0..3 {
            gateways.push(builder(n).start().await);
        }
        let addr = |port: &u16| SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        let fleet = Arc::new(Fleet {
            addrs: ports.iter().map(addr).collect(),
            ..Fleet::default()
        });
        let devices = set_out(&fleet, 12);
        backend.wait_for(100).await;
        for (n, gateway) in gateways.iter_mut().enumerate() {
            let before = backend.count();
            assert_eq!(gateway.stop().await, Some(0), "{}", gateway.output());
            *gateway = builder(n).start().await;
            backend.wait_for(before + 50).await;
        }
        assert_nothing_lost(spool, &fleet, devices, &backend).await;
        for gateway in &mut gateways {
            assert_eq!(gateway.stop().await, Some(0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_hands_its_devices_over_to_another_on_the_same_port() {
    let (backend, redis) = (Backend::start().await, TempRedis::new().await);
    let (port, admin) = (free_port(), free_port());
    let builder = || -> GatewayBuilder {
        Gateway::builder()
            .var("REMOTE_URL", backend.url())
            .var("REDIS_PORT", redis.port().to_string())
            .var("WEBSOCKET_PORT", port.to_string())
            .var("FASTSOCK_LISTEN_REUSEPORT", "on")
            .var("FASTSOCK_ADMIN_ADDR", format!("127.0.0.1:{admin}"))
            .var("FASTSOCK_DRAIN_WINDOW", "200ms")
    };
    let mut old = builder().start().await;
    let fleet = Arc::new(Fleet {
        addrs: vec![old.addr()],
        ..Fleet::default()
    });
    let devices = set_out(&fleet, 12);
    backend.wait_for(100).await;
    let new = builder().start().await;
    new.wait_line("the admin listener waits until its port is free")
        .await;
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin));
    assert_eq!(get(admin, "/readyz").await.status, 200);
    let before = backend.count();
    assert_eq!(old.stop().await, Some(0), "{}", old.output());
    backend.wait_for(before + 100).await;
    new.wait_line("the admin listener has its port").await;
    assert_eq!(get(admin, "/readyz").await.status, 200);
    assert_nothing_lost("hand-over", &fleet, devices, &backend).await;
    println!(
        "refused while handing over: {}",
        fleet.refused.load(Relaxed)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_keeps_the_socket_over_a_restart_and_hears_how_the_gateway_is() {
    let backend = Backend::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(DEADLINE)).unwrap();
    let notify = Arc::new(notify);
    let hear = async |word: &'static str| {
        let notify = notify.clone();
        let heard = tokio::task::spawn_blocking(move || {
            let mut bytes = [0; 1024];
            loop {
                let length = notify.recv(&mut bytes).expect("systemd is told");
                if String::from_utf8_lossy(&bytes[..length]).contains(word) {
                    return;
                }
            }
        });
        within(word, heard).await.unwrap();
    };
    let start = || {
        Process::start("sh", |command| {
            let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\"";
            let socket = OwnedFd::from(listener.try_clone().unwrap());
            command
                .arg("-c")
                .arg(script)
                .arg(gateway_binary())
                .env("WEBSOCKET_PORT", "1") // not even tried
                .env("REMOTE_URL", backend.url())
                .env("FASTSOCK_BROKER", "embedded")
                .env("FASTSOCK_ADMIN_ADDR", "off")
                .env("FASTSOCK_DRAIN_WINDOW", "100ms")
                .env("NOTIFY_SOCKET", &path)
                .env("WATCHDOG_USEC", "300000")
                .current_dir(folder.path())
                .stdin(Stdio::from(socket))
                .stdout(Stdio::null());
        })
    };
    let fleet = Arc::new(Fleet {
        addrs: vec![listener.local_addr().unwrap()],
        ..Fleet::default()
    });
    let devices = set_out(&fleet, 6); // they wait in the socket
    let mut gateway = start();
    hear("READY=1").await;
    hear("WATCHDOG=1").await;
    for _ in 0..2 {
        let before = backend.count();
        backend.wait_for(before + 50).await;
        gateway.terminate();
        hear("STOPPING=1").await;
        assert_eq!(gateway.exit().await.code(), Some(0));
        gateway = start();
        hear("READY=1").await;
    }
    let before = backend.count();
    backend.wait_for(before + 50).await;
    assert_nothing_lost("socket activation", &fleet, devices, &backend).await;
    gateway.terminate();
    assert_eq!(gateway.exit().await.code(), Some(0));
}
