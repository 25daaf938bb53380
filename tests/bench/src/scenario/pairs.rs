//! The rows of the first table.

use std::time::Duration;

use super::{Course, Kind, Scenario};
use crate::{
    load::{Pace, Way},
    ratio::{Figure, Pair, SERVER, Side, TITLE, Who},
};

impl Scenario {
    /// What is measured in turn for the table of ratios. Loads last a second if not told otherwise, so that five rounds take minutes.
    pub(crate) fn pairs(lasts: Option<Duration>) -> Vec<Pair> {
        let lasts = lasts.unwrap_or(Duration::from_secs(1));
        let mut pairs = uplinks();
        pairs.extend(downlinks());
        pairs.extend(devices());
        pairs.extend(tls());
        for pair in &mut pairs {
            for side in [&mut pair.ours, &mut pair.beside] {
                side.scenario = side.scenario.clone().lasting(Some(lasts));
            }
        }
        pairs
    }
}

fn uplinks() -> Vec<Pair> {
    let [open_20, open_1] = [20_000.0, 1000.0].map(|rate| Course::new(Way::Up, Pace::Open(rate)));
    let at_32 = Course {
        devices: 32,
        ..Course::new(Way::Up, Pace::Closed(1))
    };
    let spooled = |spool| {
        Scenario::load(TITLE, &format!("32 uplinks at once, {spool} spool"), at_32)
            .with("FASTSOCK_DATA_DIR", "spool")
            .with("FASTSOCK_SPOOL", spool)
    };
    // Four of each device on their way, so that several of one device come into a batch.
    let batches = |size| {
        let course = Course::new(Way::Up, Pace::Closed(4));
        Scenario::load(TITLE, &format!("uplinks, batches of {size}"), course)
            .with("FASTSOCK_REMOTE_BATCH", size)
    };
    vec![
        beside_bare(
            "uplink, closed loop",
            load("uplink, closed loop", Course::new(Way::Up, Pace::Closed(1))),
            vec![server("≤ 1.7"), rate("≥ 0.8")],
        ),
        beside_bare(
            "uplink at 20 k/s",
            load("uplink at 20 k/s", open_20),
            vec![server("≤ 1.25"), p99("≤ 2.5")],
        ),
        beside_bare(
            "uplink at 1 k/s",
            load("uplink at 1 k/s", open_1),
            vec![server("≤ 1.2"), p50("")],
        ),
        Pair {
            name: "32 uplinks at once, disk spool beside the one in memory",
            ours: this(spooled("disk")),
            beside: this(spooled("memory")),
            figures: vec![server("≤ 1.25")],
            metrics_us: None,
        },
        Pair {
            name: "uplink, batches of 64 beside single POSTs",
            ours: this(batches("64")),
            beside: this(batches("1")),
            figures: vec![server(""), rate("")],
            metrics_us: None,
        },
    ]
}

fn downlinks() -> Vec<Pair> {
    let closed = |workers| {
        let name = format!("downlink, closed loop, workers: {workers}");
        load(&name, Course::new(Way::Down, Pace::Closed(1)))
            .with("FASTSOCK_RUNTIME_WORKERS", workers)
    };
    let open = Course::new(Way::Down, Pace::Open(50_000.0));
    vec![
        beside_bare(
            "downlink, closed loop, two workers",
            closed("2"),
            vec![server("≤ 1.35"), rate("")],
        ),
        beside_bare(
            "downlink, closed loop, one worker",
            closed("1"),
            vec![server("≤ 1.35"), rate("")],
        ),
        beside_bare(
            "downlink at 50 k/s",
            load("downlink at 50 k/s", open),
            vec![server("≤ 1.4"), p99("≤ 1.5")],
        ),
    ]
}

fn devices() -> Vec<Pair> {
    let handshakes = Kind::Handshakes { devices: 5000 };
    let pings = Kind::Pings {
        devices: 10_000,
        lasts: Duration::from_secs(5),
    };
    vec![
        beside_bare(
            "handshake",
            Scenario::new(TITLE, "5000 handshakes", handshakes),
            vec![Figure {
                name: "server CPU, µs",
                ..server("≤ 1.35")
            }],
        ),
        beside_bare(
            "memory of a device",
            memory("10,000 devices", 10_000),
            vec![
                idle("this ≤ 2.6"),
                Figure {
                    head: "used KiB PSS/device",
                    name: "after one message each way, KiB",
                    digits: 2,
                    must: "this ≤ 3.2",
                },
            ],
        ),
        beside_bare(
            "10,000 idle devices, a ping each 5 s",
            Scenario::new(TITLE, "10,000 idle devices", pings),
            vec![
                Figure {
                    head: "of a core %",
                    name: "% of a core",
                    digits: 2,
                    must: "this ≤ 2",
                },
                Figure {
                    head: "a ping µs",
                    name: "server CPU a ping, µs",
                    digits: 1,
                    must: "",
                },
            ],
        ),
    ]
}

fn tls() -> Vec<Pair> {
    let message = |name, way: Way| {
        let scenario = |way: Way| {
            let name = format!("{}, TLS, closed loop", way.name());
            load(&name, Course::new(way, Pace::Closed(1))).under_tls()
        };
        beside_echo(name, scenario(way), scenario(Way::Echo), vec![server("")])
    };
    let handshake = |name, scenario: Scenario| {
        let figure = Figure {
            name: "server CPU, µs",
            ..server("")
        };
        beside_echo(name, scenario.clone(), scenario, vec![figure])
    };
    let full = Scenario::new(
        TITLE,
        "1000 TLS handshakes",
        Kind::Handshakes { devices: 1000 },
    )
    .under_tls();
    let resumed = Scenario {
        name: "1000 resumed TLS handshakes".into(),
        resumes: true,
        ..full.clone()
    };
    let mut resuming = handshake("TLS handshake, resumed", resumed);
    resuming.figures.push(Figure {
        head: "resumed %",
        name: "of them resumed, %",
        digits: 0,
        must: "",
    });
    let devices = memory("1000 devices, TLS", 1000).under_tls();
    vec![
        message("uplink under TLS, closed loop", Way::Up),
        message("downlink under TLS, closed loop", Way::Down),
        handshake("TLS handshake, full", full),
        resuming,
        beside_echo(
            "memory of a device under TLS",
            devices.clone(),
            devices,
            vec![idle("")],
        ),
    ]
}

fn load(name: &str, course: Course) -> Scenario {
    Scenario::load(TITLE, name, course)
}

fn memory(name: &str, devices: usize) -> Scenario {
    Scenario::new(TITLE, name, Kind::Memory { devices })
}

fn this(scenario: Scenario) -> Side {
    let who = Who::This;
    Side { who, scenario }
}

fn beside_bare(name: &'static str, scenario: Scenario, figures: Vec<Figure>) -> Pair {
    Pair {
        name,
        ours: this(scenario.clone()),
        beside: Side {
            who: Who::Bare,
            scenario,
        },
        figures,
        metrics_us: None,
    }
}

fn beside_echo(
    name: &'static str,
    scenario: Scenario,
    theirs: Scenario,
    figures: Vec<Figure>,
) -> Pair {
    Pair {
        name,
        ours: this(scenario),
        beside: Side {
            who: Who::TlsEcho,
            scenario: theirs,
        },
        figures,
        metrics_us: None,
    }
}

fn server(must: &'static str) -> Figure {
    Figure {
        head: SERVER,
        name: "server CPU a message, µs",
        digits: 1,
        must,
    }
}

fn rate(must: &'static str) -> Figure {
    Figure {
        head: "messages /s",
        name: "messages a second",
        digits: 0,
        must,
    }
}

fn p50(must: &'static str) -> Figure {
    Figure {
        head: "p50 µs",
        name: "p50, µs",
        digits: 0,
        must,
    }
}

fn p99(must: &'static str) -> Figure {
    Figure {
        head: "p99 µs",
        name: "p99, µs",
        digits: 0,
        must,
    }
}

fn idle(must: &'static str) -> Figure {
    Figure {
        head: "idle KiB PSS/device",
        name: "idle, KiB",
        digits: 2,
        must,
    }
}
