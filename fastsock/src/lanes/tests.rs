//! Timers of the lanes, on tokio's paused clock.

use tokio::runtime::Handle;

use super::*;
use crate::{broker::BoxFuture, types::SessionId};

/// A backend that is down until it is told to be up.
struct Outage(Arc<AtomicBool>);

impl Forward for Outage {
    fn attempt<'a>(&'a self, _: &'a Uplink, _: u32) -> BoxFuture<'a, Attempt> {
        let status = if self.0.load(Relaxed) { 200 } else { 500 };
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Attempt::Answered {
                status,
                retry_after: None,
            }
        })
    }

    fn headers(&self, _: &Uplink, _: u32) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// So many devices said one thing each, so many seconds ago, to a backend that is down. It comes up with the flag.
async fn outage(devices: usize, seconds: u64) -> (Arc<Lanes>, Arc<AtomicBool>) {
    let config = Config::default();
    let running = Arc::new(Running::default());
    let status = Arc::new(Status::new(None, running.clone()));
    let is_up = Arc::new(AtomicBool::new(false));
    let lanes = Lanes::new(
        &config,
        Route {
            cargo: Cargo::Uplinks,
            forward: Some(Box::new(Outage(is_up.clone()))),
            spool: None,
        },
        Arc::new(Registry::new(&config, status.clone())),
        status,
        running,
        Tasks::new(Handle::current()),
    );
    for n in 0..devices {
        let client_id = ClientId::new(format!("dev{n}")).unwrap();
        lanes.take(Uplink::new(client_id, SessionId(1), 1, "x".into()), None);
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    assert_eq!(lanes.books().held, devices as u64);
    (lanes, is_up)
}

async fn delivered(lanes: &Lanes, count: u64) -> Instant {
    while lanes.books().delivered < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn when_the_breaker_closes_whoever_backs_off_goes_too() {
    let (lanes, is_up) = outage(200, 300).await;
    is_up.store(true, Relaxed);
    let first = delivered(&lanes, 1).await;
    let all = delivered(&lanes, 200).await;
    assert!(all - first < Duration::from_secs(1), "{:?}", all - first);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_back_off() {
    let (lanes, is_up) = outage(1, 60).await; // too few failures to open the breaker
    is_up.store(true, Relaxed);
    let start = Instant::now();
    lanes.drained().await;
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(lanes.books().delivered, 1);
}
