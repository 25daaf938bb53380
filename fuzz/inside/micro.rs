//! The steps of a message's way, one at a time, for `benches/micro.rs`.
//!
//! Not part of the API: here only with the feature `micro`.

use std::{
    hint::black_box,
    iter,
    net::SocketAddr,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    runtime::{Builder, Runtime},
    time::Sleep,
};
use tokio_tungstenite::tungstenite::protocol::WebSocketContext;

use crate::{
    broker::Deliver,
    config::Config,
    forwarder::{Forward, Outcome, Outcomes, destination::LaneLimits, http},
    gateway::{session::Session, socket::Socket},
    pure::handshake::{self, Head, HeadLimits},
    registry::{Registry, Seating, seat::Seat},
    stats::{DownlinkBooks, Running, UplinkBooks},
    status::Status,
    tasks::{BoxFuture, Tasks},
    types::{ClientId, Payload, SessionId, Uplink},
    uplinks::{Lanes, Outlet, UplinkObserver},
};

/// What a device consists of that is connected and silent, in bytes; the last is there only while it is needed.
pub fn parts() -> [(&'static str, usize); 6] {
    fn size_of_future<T, F>(_: impl Fn(T) -> F) -> usize {
        size_of::<F>()
    }
    [
        (
            "the future that its task runs, and in that",
            size_of_future(Session::run),
        ),
        ("  the session, and in that", size_of::<Session>()),
        ("    the socket", size_of::<Socket>()),
        ("the timer", size_of::<Sleep>()),
        ("the seat", size_of::<Seat>()),
        (
            "tungstenite, without its buffers, while it has something to do",
            size_of::<WebSocketContext>(),
        ),
    ]
}

/// Whether these bytes are the head of a WebSocket request, as the gateway reads it.
pub fn request_head(bytes: &[u8]) -> bool {
    let limits = HeadLimits {
        bytes: 8192,
        headers: 64,
        is_strict: false,
    };
    let head = handshake::parse(bytes, &limits, SocketAddr::from(([127, 0, 0, 1], 9)).into());
    matches!(head, Head::Upgrade(..))
}

/// One message that was read.
pub fn uplink(client_id: &str, text: &Bytes) -> Uplink {
    let id = ClientId::new(client_id).expect("not empty");
    Uplink::new(id, SessionId(1), 1, Payload::checked_text(text.clone()))
}

/// The body of its POST.
pub fn post_body(uplink: &Uplink) -> Bytes {
    http::body(uplink, Config::default().uplinks.binary)
}

/// Seated devices without sockets: from the push of a broker into an outbox, and out of it.
#[allow(missing_debug_implementations, reason = "for a bench alone")]
pub struct Dispatch {
    registry: Arc<Registry>,
    seats: Vec<Arc<Seat>>,
    next: usize,
}

impl Dispatch {
    /// So many devices.
    pub fn new(devices: u64) -> Self {
        let status = Arc::new(Status::new(None, Arc::default()));
        let registry = Arc::new(Registry::new(&Config::default(), status));
        let seat = |n: u64| {
            let id = ClientId::new(format!("dev{n}")).expect("not empty");
            let addr = SocketAddr::from(([127, 0, 0, 1], 9)).into();
            match registry.seat(id, || SessionId(n + 1), addr, Instant::now().into()) {
                Seating::Seated(seat, _) => seat,
                _ => unreachable!("nobody else sits there"),
            }
        };
        let seats = (0..devices).map(seat).collect();
        Self {
            registry,
            seats,
            next: 0,
        }
    }

    /// One downlink to the next device in turn, taken out of its outbox again.
    pub fn deliver(&mut self, payload: &Bytes) -> bool {
        self.next = (self.next + 1) % self.seats.len();
        let seat = &self.seats[self.next];
        let is_seated = self
            .registry
            .deliver(seat.client_id.as_str(), payload.clone());
        seat.write(|outbox| {
            let whole = outbox.begin(1, usize::MAX, |_| {});
            outbox.wrote(whole, false);
        });
        is_seated
    }
}

/// Lanes before a backend that takes everything at once.
#[allow(missing_debug_implementations, reason = "for a bench alone")]
pub struct Uplinks {
    runtime: Runtime,
    lanes: Arc<Lanes>,
    ids: Vec<ClientId>,
}

impl Uplinks {
    /// So many devices, on a runtime of one thread.
    pub fn new(devices: u64) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime of one thread starts nothing");
        let (config, running) = (Config::default(), Arc::<Running>::default());
        let status = Arc::new(Status::new(None, running.clone()));
        let registry = Arc::new(Registry::new(&config, status.clone()));
        let outlet = Outlet {
            forward: Some(Box::new(TakesAll)),
            routes: Vec::new(),
            spool: None,
            observer: Box::new(UplinkObserver::new(registry, status, config.remote.gone)),
            letters: None,
        };
        let tasks = Tasks::new(runtime.handle().clone());
        let lanes = Lanes::new(
            LaneLimits::of_uplinks(&config, false),
            outlet,
            running,
            tasks,
        );
        let ids = (0..devices)
            .map(|n| ClientId::new(format!("dev{n}")).expect("not empty"))
            .collect();
        Self {
            runtime,
            lanes,
            ids,
        }
    }

    /// One uplink of each device, from being read to being delivered.
    pub fn round(&self, text: &Bytes) {
        self.runtime.block_on(async {
            for (id, session) in self.ids.iter().zip(1..) {
                let payload = Payload::checked_text(text.clone());
                let uplink = Uplink::new(id.clone(), SessionId(session), 1, payload);
                self.lanes.take(uplink, None);
            }
            self.lanes.drained().await;
        });
    }
}

struct TakesAll;

impl Forward<Uplink> for TakesAll {
    fn attempt<'a>(&'a self, _: &'a [Uplink], _: u32) -> BoxFuture<'a, Outcomes> {
        Box::pin(std::future::ready(smallvec::smallvec![Outcome::Answered {
            status: 204,
            retry_after: None,
        }]))
    }

    fn headers(&self, _: &Uplink, _: u32) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// What the figures of one message take, in nanoseconds of a thread: of an uplink, its POST included, and of a downlink.
///
/// The code is that which the gateway runs: two histograms and a counter for an uplink, and the additions to the books, which it makes
/// under locks that it has anyhow. Each is the dearer of two bad cases: as many threads as the gateway has workers do nothing but count
/// into the same figures, or what else a thread has used in between has pushed the figures out of the nearest caches.
pub fn metrics() -> [(&'static str, f64); 2] {
    let running = Running::default();
    let uplink = |n: u64, books: &mut Books| {
        let took = Duration::from_micros(black_box(n % 4096)); // in several buckets
        running.posts.attempted(took, iter::once(Some(204)));
        running.posts.delivered(took);
        books.uplink.received += 1;
        books.uplink.delivered += 1;
    };
    let downlink = |_: u64, books: &mut Books| {
        books.downlink.received += 1;
        books.downlink.delivered += 1;
    };
    [
        ("uplink", crowded(uplink).max(cold(uplink))),
        ("downlink", crowded(downlink).max(cold(downlink))),
    ]
}

/// What a thread has under a lock of its own.
#[derive(Default)]
struct Books {
    uplink: UplinkBooks,
    downlink: DownlinkBooks,
}

/// What one count takes while others count, too.
fn crowded(count: impl Fn(u64, &mut Books) + Sync) -> f64 {
    const COUNTS: u64 = 200_000;
    const ROUNDS: usize = 15;
    let threads = thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
    let start = Barrier::new(threads);
    let one = || {
        let mut books = Books::default();
        let round = |_| {
            start.wait();
            let began = Instant::now();
            (0..COUNTS).for_each(|n| count(n, black_box(&mut books)));
            began.elapsed().as_nanos() as f64 / COUNTS as f64
        };
        median((0..ROUNDS).map(round).collect())
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let took = all.into_iter().map(|one| one.join().expect("it counts"));
        took.fold(0.0, f64::max)
    })
}

/// What one count takes after two MiB of other memory, without what looking at the clock takes.
fn cold(count: impl Fn(u64, &mut Books)) -> f64 {
    const COUNTS: u64 = 2000;
    let (mut other, mut books) = (vec![0_u8; 2 << 20], Books::default());
    let mut time = |count: &dyn Fn(u64, &mut Books)| {
        let one = |n| {
            other.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
            black_box(&mut other);
            let began = Instant::now();
            count(n, black_box(&mut books));
            began.elapsed().as_nanos() as f64
        };
        median((0..COUNTS).map(one).collect())
    };
    let whole = time(&count);
    (whole - time(&|_, _| {})).max(0.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
