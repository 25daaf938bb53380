//! One run: the fleet comes, is disturbed, gathers, settles, and is checked.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use fastrand::Rng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Backend, Line};
use tokio::{task::JoinSet, time::sleep};

use super::{
    backing::Backing,
    check::Checker,
    device::Device,
    faults::{Fault, disturb},
    gateways::{GATEWAYS, Places, start},
    ledger::Ledger,
    plan::Plan,
    publisher::Publisher,
};

/// What there is beside gateways and devices.
pub(crate) struct World {
    pub(crate) backing: Backing,
    pub(crate) backend: Backend,
    pub(crate) events: Backend,
    pub(crate) to_backend: Vec<Line>,
    pub(crate) places: Arc<Places>,
}

/// Panics when anything is lost that must not be.
pub(crate) async fn run(title: &str, mut backing: Backing, faults: &[Fault]) {
    let plan = Plan::from_env();
    println!(
        "{title}: {} devices, {:?}, seed {} (FASTSOCK_FLEET_SEED={} repeats it)",
        plan.devices, plan.lasts, plan.seed, plan.seed
    );
    raise_file_limit();
    let mut rng = Rng::with_seed(plan.seed);
    let (backend, events) = (Backend::start().await, Backend::start().await);
    let mut to_backend = Vec::new();
    for _ in 0..GATEWAYS {
        to_backend.push(Line::start(backend.addr()).await);
    }
    let ports = backing.ports();
    let mut world = World {
        backing,
        backend,
        events,
        to_backend,
        places: Arc::default(),
    };
    let mut gateways = Vec::new();
    for (number, line) in world.to_backend.iter().enumerate() {
        let started = start(number, &world.backing, line, &world.events, &world.places);
        gateways.push(started.await);
    }
    let ledger = Arc::new(Ledger::new(plan.devices));
    let mut devices = JoinSet::new();
    for number in 0..plan.devices {
        let device = Device {
            number,
            rng: rng.fork(),
            ledger: ledger.clone(),
            places: world.places.clone(),
            uplink_every: plan.uplink_every,
        };
        devices.spawn(device.live());
    }
    let mut publishers = JoinSet::new();
    let of = PUBLISHERS.min(plan.devices);
    for number in 0..of {
        let publisher = Publisher {
            number,
            of,
            rng: rng.fork(),
            ledger: ledger.clone(),
            places: world.places.clone(),
            ports: ports.clone(),
            every: plan.publish_every,
        };
        publishers.spawn(publisher.publish());
    }
    sleep(Duration::from_secs(1)).await; // so that there is something to disturb
    let done = disturb(&mut world, &mut gateways, faults, plan.lasts, &mut rng).await;
    ledger.is_quiet.store(true, Relaxed);
    publishers.join_all().await;
    ledger.is_gathering.store(true, Relaxed);
    let checker = Checker {
        title,
        plan: &plan,
        ledger: &ledger,
        world: &world,
        done: &done,
    };
    checker.messages().await;
    ledger.is_settling.store(true, Relaxed);
    checker.presence().await;
    checker.events().await;
    checker.figures().await;
    devices.abort_all();
}

/// A large fleet has more sockets than a process may have by default.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("it is ours to raise");
}

const PUBLISHERS: usize = 8;
