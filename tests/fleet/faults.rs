//! What happens to the fleet.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fastrand::Rng;
use support::Gateway;
use tokio::time::sleep;

use super::{
    gateways::{GATEWAYS, start},
    run::World,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A gateway is killed, and another takes its place.
    Kill,
    /// A gateway does nothing for a while, and then goes on.
    Freeze,
    CutFromRedis,
    CutFromBackend,
    /// The backend refuses connections.
    Outage,
    /// A master of Redis is killed.
    Failover,
    /// The backend refuses connections, and meanwhile Redis loses all it has.
    Emptied,
}

/// What was done to the fleet.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) counts: BTreeMap<Fault, u32>,
    /// When Redis was emptied.
    pub(crate) emptied: Vec<Instant>,
}

/// One fault after the other, until the time is over; then all is well again.
pub(crate) async fn disturb(
    world: &mut World,
    gateways: &mut [Gateway],
    faults: &[Fault],
    lasts: Duration,
    rng: &mut Rng,
) -> Done {
    let mut done = Done::default();
    let ends = Instant::now() + lasts;
    let mut next = 0;
    while Instant::now() < ends {
        // Each of them once, then as it comes.
        let fault = match faults.get(next) {
            Some(fault) => *fault,
            None => faults[rng.usize(..faults.len())],
        };
        next += 1;
        let gateway = rng.usize(..GATEWAYS);
        let some = Duration::from_millis(rng.u64(500..5000)).min(lasts / 3);
        let happened = inflict(fault, gateway, some, world, gateways, &mut done).await;
        *done.counts.entry(fault).or_default() += u32::from(happened);
        sleep(Duration::from_millis(rng.u64(200..1500))).await;
    }
    done
}

async fn inflict(
    fault: Fault,
    number: usize,
    lasts: Duration,
    world: &mut World,
    gateways: &mut [Gateway],
    done: &mut Done,
) -> bool {
    let gateway = &mut gateways[number];
    match fault {
        Fault::Kill => {
            gateway.kill();
            sleep(lasts / 2).await; // the fault lasts
            let line = &world.to_backend[number];
            *gateway = start(number, &world.backing, line, &world.events, &world.places).await;
        }
        Fault::Freeze => {
            gateway.process().freeze();
            sleep(lasts).await; // the fault lasts
            gateway.process().thaw();
        }
        Fault::CutFromRedis => {
            let Some(line) = world.backing.line(number) else {
                return false;
            };
            line.cut();
            sleep(lasts).await; // the fault lasts
            line.mend();
        }
        Fault::CutFromBackend => {
            world.to_backend[number].cut();
            sleep(lasts).await; // the fault lasts
            world.to_backend[number].mend();
        }
        Fault::Outage => {
            world.backend.go_down().await;
            sleep(lasts).await; // the fault lasts
            world.backend.come_back();
        }
        Fault::Failover => return world.backing.fail_over().await,
        Fault::Emptied => {
            world.backend.go_down().await;
            sleep(Duration::from_secs(4)).await; // so that most of what is lost is known of
            world.backing.empty().await;
            done.emptied.push(Instant::now());
            sleep(lasts / 4).await; // the fault lasts
            world.backend.come_back();
        }
    }
    true
}
