//! A fleet under faults: three gateways, a real Redis, a backend, and devices of which a third sleep, while gateways are killed, frozen and
//! cut off, the backend goes away, Redis fails over or is emptied. A checker knows every message.
//!
//! `make test` runs a small fleet for some seconds; `make fleet` a large one. `FASTSOCK_FLEET_DEVICES`, `FASTSOCK_FLEET_SECONDS` and
//! `FASTSOCK_FLEET_SEED` choose; the seed repeats what the test decides, not what the machine does meanwhile.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test is a host, and may start tasks, read its environment and print"
)]

#[path = "fleet/backing.rs"]
mod backing;
#[path = "fleet/check.rs"]
mod check;
#[path = "fleet/device.rs"]
mod device;
#[path = "fleet/faults.rs"]
mod faults;
#[path = "fleet/gateways.rs"]
mod gateways;
#[path = "fleet/ledger.rs"]
mod ledger;
#[path = "fleet/plan.rs"]
mod plan;
#[path = "fleet/publisher.rs"]
mod publisher;
#[path = "fleet/run.rs"]
mod run;

use self::{backing::Backing, faults::Fault, run::run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_are_killed_frozen_and_cut_off_lose_nothing() {
    let faults = [
        Fault::Kill,
        Fault::Freeze,
        Fault::CutFromRedis,
        Fault::CutFromBackend,
        Fault::Outage,
    ];
    run("kill, freeze, cut", Backing::standalone().await, &faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_behind_sentinel_loses_nothing_that_the_replica_had() {
    let faults = [Fault::Failover];
    run("failover, Sentinel", Backing::sentinel().await, &faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_a_cluster_loses_nothing_that_the_replica_had() {
    let faults = [Fault::Failover, Fault::Kill, Fault::Outage];
    run("failover, Cluster", Backing::cluster().await, &faults).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_emptied_redis_loses_is_counted() {
    let faults = [Fault::Emptied];
    run("Redis emptied", Backing::standalone().await, &faults).await;
}
