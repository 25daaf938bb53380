//! What must be true when all is well again, and the figures.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use serde_json::Value;
use support::get;
use tokio::time::Instant;

use super::{
    faults::Done,
    ledger::{Book, Ledger},
    plan::Plan,
    run::World,
};

pub(crate) struct Checker<'a> {
    pub(crate) title: &'a str,
    pub(crate) plan: &'a Plan,
    pub(crate) ledger: &'a Ledger,
    pub(crate) world: &'a World,
    pub(crate) done: &'a Done,
}

/// How messages fared, of one direction.
#[derive(Debug, Default)]
struct Fared {
    /// Taken, or kept.
    accepted: usize,
    /// Of these, those that came.
    arrived: usize,
    missing: usize,
    /// Missing though Redis has held all it had since.
    missing_since: usize,
    repeated: usize,
    out_of_order: usize,
}

impl Checker<'_> {
    /// All that was taken or kept has arrived, in order; what an emptied Redis has lost is known.
    pub(crate) async fn messages(&self) {
        let began = Instant::now();
        loop {
            let (up, down) = (self.uplinks(), self.downlinks());
            let is_through = match self.done.emptied.is_empty() {
                true => up.missing + down.missing == 0,
                false => {
                    up.missing_since + down.missing_since == 0
                        && self.is_drained().await
                        && self.knows(&self.uplinks()).await
                }
            };
            if is_through {
                break;
            }
            assert!(
                began.elapsed() < self.plan.patience,
                "{}, seed {}: still missing after {:?}\nuplinks {up:?} {:?}\ndownlinks {down:?} {:?}",
                self.title,
                self.plan.seed,
                began.elapsed(),
                self.some_missing(|book| &book.taken, &self.arrived()),
                self.some_missing_downlinks(),
            );
            tokio::time::sleep(Duration::from_millis(200)).await; // polls the ledger
        }
        let (up, down) = (self.uplinks(), self.downlinks());
        println!("  all there after {:?}", began.elapsed());
        assert!(
            up.accepted > 0 && down.accepted > 0,
            "there was something to lose: uplinks {up:?}, downlinks {down:?}"
        );
        println!("  uplinks   {up:?}");
        println!("  downlinks {down:?}");
        if self.done.emptied.is_empty() {
            assert_eq!(
                (up.out_of_order, down.out_of_order),
                (0, 0),
                "seed {}",
                self.plan.seed
            );
            assert_eq!(self.stat(&["mailbox", "lost"]).await, 0);
        } else {
            let told = self.stat(&["uplink", "lost", "spool"]).await;
            println!("  {told} uplinks told as lost in the spool");
            assert!(up.missing == 0 || told > 0, "seed {}", self.plan.seed);
        }
    }

    /// The hash has who is connected and nobody else, and each device has one socket.
    pub(crate) async fn presence(&self) {
        let here: HashSet<String> = (0..self.ledger.devices())
            .filter(|n| !Plan::sleeps(*n))
            .map(Plan::name)
            .collect();
        let began = Instant::now();
        loop {
            let present = self.world.backing.present().await.unwrap_or_default();
            let present: HashSet<String> = present.into_iter().collect();
            if present == here {
                break;
            }
            assert!(
                began.elapsed() < self.plan.patience,
                "{}, seed {}: the hash lacks {:?} and has {:?} beside the {} who are here",
                self.title,
                self.plan.seed,
                here.difference(&present).collect::<Vec<_>>(),
                present.difference(&here).collect::<Vec<_>>(),
                here.len(),
            );
            tokio::time::sleep(Duration::from_millis(200)).await; // polls Redis
        }
        let began = Instant::now();
        loop {
            let (sockets, places) = self.sockets().await;
            if sockets == here.len() {
                break;
            }
            assert!(
                began.elapsed() < self.plan.patience,
                "{}, seed {}: {sockets} sockets of {} devices: {places:#?}",
                self.title,
                self.plan.seed,
                here.len(),
            );
            tokio::time::sleep(Duration::from_millis(200)).await; // polls the sockets
        }
    }

    /// How many sockets the gateways have, and who is at each.
    async fn sockets(&self) -> (usize, Vec<String>) {
        let (mut sockets, mut clients) = (0, Vec::new());
        for place in self.world.places.all() {
            let stats = get(place.admin, "/api/v1/stats").await.json();
            sockets += stats["sessions"]["connected"].as_u64().unwrap_or(0) as usize;
            clients.push(get(place.admin, "/api/v1/clients?limit=1000").await.text());
        }
        (sockets, clients)
    }

    /// The last event of each device, by its epoch, says whether it is here; a loss of a node is told once for each epoch.
    pub(crate) async fn events(&self) {
        let began = Instant::now();
        loop {
            let wrong = self.wrong_events();
            if wrong.is_empty() {
                break;
            }
            if began.elapsed() >= self.plan.patience {
                let first = &wrong[..wrong.len().min(3)];
                panic!(
                    "{}, seed {}: the last event of {} devices is not true, the first of them are {:#?}; gateways: {:#?}",
                    self.title,
                    self.plan.seed,
                    wrong.len(),
                    first.iter().map(|n| self.events_of(*n)).collect::<Vec<_>>(),
                    self.views_of(first).await,
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await; // polls the events
        }
        let mut lost = BTreeMap::<(String, u64), HashSet<String>>::new();
        for request in self.world.events.requests() {
            let event = request.json();
            if event["cause"] == "node_lost" {
                let key = (
                    text(&event["client_id"]),
                    event["epoch"].as_u64().unwrap_or(0),
                );
                let idempotency = request.header("idempotency-key").unwrap_or_default();
                lost.entry(key).or_default().insert(idempotency.to_owned());
            }
        }
        assert!(lost.values().all(|keys| keys.len() == 1), "{lost:?}");
        println!("  node_lost told of {} sessions", lost.len());
    }

    /// What each gateway has of these devices, and its books of events.
    async fn views_of(&self, devices: &[usize]) -> Vec<String> {
        let mut views = Vec::new();
        for place in self.world.places.all() {
            let stats = get(place.admin, "/api/v1/stats").await.json();
            views.push(stats["lifecycle"].to_string());
            for n in devices {
                let path = format!("/api/v1/clients/{}", Plan::name(*n));
                views.push(get(place.admin, &path).await.text());
            }
        }
        views
    }

    pub(crate) async fn figures(&self) {
        let ledger = self.ledger;
        println!("  faults    {:?}", self.done.counts);
        println!(
            "  {} connects, {} refused or broken before the 101, {} second sockets beside an open one; {} requests, {} events",
            ledger.connects.load(Relaxed),
            ledger.refused.load(Relaxed),
            ledger.doubles.load(Relaxed),
            self.world.backend.count(),
            self.world.events.count(),
        );
    }

    /// No uplink is on its way any more: what a gateway wrote again into an emptied Redis has arrived.
    async fn is_drained(&self) -> bool {
        let held = self.stat(&["uplink", "held"]).await;
        held == 0 && self.world.backing.spooled().await == Some(0)
    }

    /// What is lost of the uplinks is in the books, as lost in the spool: but for what was taken in the last moments before.
    async fn knows(&self, up: &Fared) -> bool {
        let told = self.stat(&["uplink", "lost", "spool"]).await;
        let late = Duration::from_secs(3); // one, and what a busy machine takes
        let of_last_moments = (0..self.ledger.devices()).map(|n| {
            self.ledger.of(n, |book| {
                let taken = book.taken.iter().filter(|(_, at)| {
                    let mut emptied = self.done.emptied.iter();
                    emptied.any(|emptied| *at + late > *emptied && *at < *emptied + late)
                });
                taken.count()
            })
        });
        let unknown: usize = of_last_moments.sum();
        up.missing as u64 <= told + unknown as u64
    }

    fn wrong_events(&self) -> Vec<usize> {
        let mut last = HashMap::<String, ((u64, u64), String)>::new();
        for request in self.world.events.requests() {
            let event = request.json();
            let kind = text(&event["type"]);
            if kind != "connect" && kind != "disconnect" || !request.is_delivered() {
                continue;
            }
            let epoch = event["epoch"].as_u64().unwrap_or(0);
            // Of one epoch a `connect` after a `node_lost` is the newer one.
            let by_time = event["time"].as_u64().unwrap_or(0);
            let entry = last.entry(text(&event["client_id"])).or_default();
            if (epoch, by_time) >= entry.0 {
                *entry = ((epoch, by_time), kind);
            }
        }
        let is_wrong = |n: &usize| {
            let expected = if Plan::sleeps(*n) {
                "disconnect"
            } else {
                "connect"
            };
            last.get(&Plan::name(*n)).map(|(_, kind)| kind.as_str()) != Some(expected)
        };
        (0..self.ledger.devices()).filter(is_wrong).collect()
    }

    fn events_of(&self, n: usize) -> Vec<String> {
        let requests = self.world.events.requests();
        let told = requests.iter().filter(|request| {
            request.is_delivered() && request.json()["client_id"] == Plan::name(n)
        });
        told.map(|request| request.json().to_string()).collect()
    }

    /// The sum of a figure, or of all below it, over the gateways.
    async fn stat(&self, path: &[&str]) -> u64 {
        let mut sum = 0;
        for place in self.world.places.all() {
            let stats = get(place.admin, "/api/v1/stats").await.json();
            let found = path.iter().fold(&stats, |value, name| &value[*name]);
            sum += match found {
                Value::Object(all) => all.values().filter_map(Value::as_u64).sum(),
                one => one.as_u64().unwrap_or_else(|| panic!("{path:?}: {stats}")),
            };
        }
        sum
    }

    /// By device, what the backend has answered with 2xx, in order of arrival.
    fn arrived(&self) -> Vec<Vec<u64>> {
        let mut arrived = vec![Vec::new(); self.ledger.devices()];
        for request in self.world.backend.requests() {
            if request.is_delivered() {
                let device: usize = request.client_id[1..].parse().expect("a name of ours");
                arrived[device].push(request.data.parse().expect("a number of ours"));
            }
        }
        arrived
    }

    /// On one socket they keep their order. Of two sockets, what was taken when the other was said comes first.
    fn uplinks(&self) -> Fared {
        let mut all = Fared::default();
        for (n, arrived) in self.arrived().iter().enumerate() {
            self.ledger.of(n, |book| {
                let taken: HashMap<u64, std::time::Instant> = book.taken.iter().copied().collect();
                let is_before = |earlier: u64, later: u64| {
                    let (said, socket) = book.said[later as usize];
                    book.said[earlier as usize].1 == socket || taken[&earlier] < said
                };
                self.compare(&book.taken, arrived, is_before, &mut all);
            });
        }
        all
    }

    /// Each was published when the one before was kept.
    fn downlinks(&self) -> Fared {
        let mut all = Fared::default();
        for n in 0..self.ledger.devices() {
            self.ledger.of(n, |book| {
                self.compare(&book.kept, &book.received, |_, _| true, &mut all);
            });
        }
        all
    }

    /// `is_before`: whether the first of two is to come before the second, which has a higher number.
    fn compare(
        &self,
        accepted: &[(u64, std::time::Instant)],
        arrived: &[u64],
        is_before: impl Fn(u64, u64) -> bool,
        all: &mut Fared,
    ) {
        let set: HashSet<u64> = arrived.iter().copied().collect();
        let known: HashSet<u64> = accepted.iter().map(|(number, _)| *number).collect();
        all.accepted += accepted.len();
        all.arrived += accepted.iter().filter(|(n, _)| set.contains(n)).count();
        all.repeated += arrived.len() - set.len();
        let after = Duration::from_secs(2);
        for (number, at) in accepted {
            if !set.contains(number) {
                all.missing += 1;
                let mut emptied = self.done.emptied.iter();
                all.missing_since += usize::from(emptied.all(|emptied| *at > *emptied + after));
            }
        }
        let mut seen = BTreeSet::new();
        for number in arrived.iter().filter(|number| known.contains(number)) {
            if seen.insert(*number) {
                let mut higher = seen.range(number + 1..);
                let is_late = higher.any(|higher| is_before(*number, *higher));
                all.out_of_order += usize::from(is_late);
            }
        }
    }

    fn some_missing(
        &self,
        accepted: impl Fn(&Book) -> &Vec<(u64, std::time::Instant)>,
        arrived: &[Vec<u64>],
    ) -> Vec<(usize, u64)> {
        let mut missing = Vec::new();
        for (n, arrived) in arrived.iter().enumerate() {
            self.ledger.of(n, |book| {
                let lost = accepted(book).iter().filter(|(m, _)| !arrived.contains(m));
                missing.extend(lost.map(|(m, _)| (n, *m)));
            });
        }
        missing.truncate(20);
        missing
    }

    fn some_missing_downlinks(&self) -> Vec<(usize, u64)> {
        let received: Vec<Vec<u64>> = (0..self.ledger.devices())
            .map(|n| self.ledger.of(n, |book| book.received.clone()))
            .collect();
        self.some_missing(|book| &book.kept, &received)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
