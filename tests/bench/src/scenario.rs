//! The measurements there are.

mod pairs;

use std::{io, time::Duration};

use crate::{
    clock::SECOND,
    jwt,
    lab::Lab,
    load::{Load, Outcome, Pace, Way},
    report::Metric,
    target::Target,
};

/// One row of a table.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// The table it belongs to.
    pub(crate) table: &'static str,
    pub(crate) name: String,
    kind: Kind,
    /// Variables of the gateway beyond those of the target.
    vars: Vec<(&'static str, String)>,
    is_tls: bool,
    /// Under TLS, devices resume sessions.
    resumes: bool,
}

/// What to measure.
#[derive(Clone, Debug)]
enum Kind {
    /// The generator alone, against an echo.
    Echo,
    Load(Course),
    /// Memory of devices that do nothing, and after one message each way.
    Memory {
        devices: usize,
    },
    /// Processor time for pings alone.
    Pings {
        devices: usize,
        lasts: Duration,
    },
    /// Many devices connect, lose their connections, and connect again, all at once.
    Storm {
        devices: usize,
    },
    /// Processor time for handshakes alone.
    Handshakes {
        devices: usize,
    },
    /// One message for everyone, or for a group that everyone is in.
    Fanout {
        devices: usize,
        group: Option<&'static str>,
    },
    /// From the start of the process to the first downlink, and from SIGTERM to its end.
    Life,
}

/// A load and who carries it.
#[derive(Clone, Copy, Debug)]
struct Course {
    way: Way,
    pace: Pace,
    lasts: Duration,
    devices: usize,
    gateways: usize,
    shares_port: bool,
    thinks: Duration,
}

impl Scenario {
    /// All that a quick or a full bench measures.
    pub(crate) fn all(is_full: bool) -> Vec<Self> {
        let mut all = vec![Self::echo()];
        all.extend(Self::quick(is_full));
        all.extend(Self::spools(is_full));
        if is_full {
            all.extend(Self::growth());
            all.extend(Self::variants());
        }
        all
    }

    /// Measures it, from starting the gateway to stopping it.
    pub(crate) fn run(&self, lab: &mut Lab, target: &Target) -> io::Result<Vec<Metric>> {
        match &self.kind {
            Kind::Echo => {
                let course = Course::new(Way::Echo, Pace::Closed(1));
                self.measure(lab, &Target::bare("echo")?, course)
            }
            Kind::Load(course) => self.measure(lab, target, *course),
            Kind::Memory { devices } => self.memory(lab, target, *devices),
            Kind::Pings { devices, lasts } => self.pings(lab, target, *devices, *lasts),
            Kind::Storm { devices } => self.storm(lab, target, *devices),
            Kind::Handshakes { devices } => self.handshakes(lab, target, *devices),
            Kind::Fanout { devices, group } => {
                lab.fleet.set_group(*group);
                let metrics = self.fanout(lab, target, *devices);
                lab.fleet.set_group(None);
                metrics
            }
            Kind::Life => self.life(lab, target),
        }
    }

    /// The same over another time, if it is a load.
    pub(crate) fn lasting(mut self, lasts: Option<Duration>) -> Self {
        if let (Kind::Load(course), Some(lasts)) = (&mut self.kind, lasts) {
            course.lasts = lasts;
        }
        self
    }

    /// Whether it says something of the generator and nothing of the target.
    pub(crate) fn is_of_generator(&self) -> bool {
        matches!(self.kind, Kind::Echo)
    }

    /// The way and the rate of an open loop without anything special, for the plot.
    pub(crate) fn point(&self) -> Option<(&'static str, f64)> {
        let Kind::Load(course) = &self.kind else {
            return None;
        };
        let Pace::Open(rate) = course.pace else {
            return None;
        };
        let is_plain = self.table == LOAD && course.thinks.is_zero();
        let way = match course.way {
            Way::Down => "downlink",
            Way::Up => "uplink",
            Way::Round | Way::Echo => return None,
        };
        is_plain.then_some((way, rate))
    }

    fn measure(&self, lab: &mut Lab, target: &Target, course: Course) -> io::Result<Vec<Metric>> {
        let mut settings = lab.settings();
        settings.vars = self.vars.clone();
        settings.is_tls = self.is_tls;
        let site = lab.open(target, &settings, course.gateways, course.shares_port)?;
        lab.seat(&site, course.devices)?;
        if matches!(course.way, Way::Down | Way::Round) {
            lab.reach_all()?;
        }
        lab.fleet.set_thinking(course.thinks);
        let load = Load {
            way: course.way,
            pace: course.pace,
            warm_up: WARM_UP,
            lasts: course.lasts,
        };
        let cut_off = lab.cut_off()?;
        let outcome = lab.load(&site, load)?;
        let cut_off = lab.cut_off()? - cut_off;
        lab.close(site)?;
        let mut metrics = load_metrics(&outcome);
        metrics.push(Metric::new("cut by redis", "", 0, cut_off as f64));
        Ok(metrics)
    }

    fn memory(&self, lab: &mut Lab, target: &Target, devices: usize) -> io::Result<Vec<Metric>> {
        let mut settings = lab.settings();
        settings.vars = self.vars.clone();
        settings.is_tls = self.is_tls;
        let site = lab.open(target, &settings, 1, false)?;
        let base = lab.settled(&site)?;
        lab.seat(&site, devices)?;
        let idle = lab.settled(&site)?;
        if target.carries() {
            lab.hear_all()?;
        }
        let is_reached = target.carries() && lab.reach_all().is_ok();
        let used = lab.settled(&site)?;
        lab.close(site)?;
        let kib_each = |now: u64, base: u64| (now as f64 - base as f64) / 1024.0 / devices as f64;
        Ok(vec![
            Metric::new("base RSS", "MiB", 1, base.rss as f64 / MIB),
            Metric::new("idle", "KiB PSS/device", 2, kib_each(idle.pss, base.pss)),
            Metric::new("used", "KiB PSS/device", 2, kib_each(used.pss, base.pss)),
            Metric::new("idle", "KiB RSS/device", 2, kib_each(idle.rss, base.rss)),
            Metric::new("used", "KiB RSS/device", 2, kib_each(used.rss, base.rss)),
            Metric::new("ways", "1 or 2", 0, f64::from(1 + u8::from(is_reached))),
        ])
    }

    fn pings(
        &self,
        lab: &mut Lab,
        target: &Target,
        devices: usize,
        lasts: Duration,
    ) -> io::Result<Vec<Metric>> {
        let mut settings = lab.settings();
        settings.ping_interval_ms = 5000;
        settings.vars = self.vars.clone();
        settings.is_tls = self.is_tls;
        let site = lab.open(target, &settings, 1, false)?;
        lab.seat(&site, devices)?;
        lab.idle(Duration::from_secs(5))?; // the first round of pings
        let (cpu, start) = (site.cpu_ns(), lab.fleet.clock().now());
        lab.idle(lasts)?;
        let spent = (site.cpu_ns() - cpu) as f64;
        let passed = (lab.fleet.clock().now() - start) as f64;
        let seated = (0..devices).filter(|n| lab.fleet.is_seated(*n)).count();
        lab.close(site)?;
        let beats = devices as f64 * passed / SECOND as f64 / 5.0;
        Ok(vec![
            Metric::new("of a core", "%", 2, 100.0 * spent / passed),
            Metric::new("a ping", "µs", 2, spent / 1000.0 / beats),
            Metric::new("devices lost", "", 0, (devices - seated) as f64),
        ])
    }

    fn storm(&self, lab: &mut Lab, target: &Target, devices: usize) -> io::Result<Vec<Metric>> {
        let mut settings = lab.settings();
        settings.vars = self.vars.clone();
        settings.is_tls = self.is_tls;
        let site = lab.open(target, &settings, 1, false)?;
        // What one device makes it read of its own code is no memory that a storm took.
        lab.connect(&site, 1, STORM)?;
        lab.fleet.hang_up();
        let base = (lab.settled(&site)?, site.open_files());
        let first = lab.connect(&site, devices, STORM)?;
        let seated = lab.settled(&site)?;
        lab.fleet.hang_up();
        let again = lab.connect(&site, devices, STORM)?;
        let seated_again = lab.settled(&site)?;
        lab.fleet.hang_up();
        for _ in 0..100 {
            lab.idle(Duration::from_millis(100))?;
            if site.open_files() <= base.1 + 8 {
                break;
            }
        }
        lab.idle(AFTER_STORM)?;
        let after = lab.settled(&site)?;
        let left = site.open_files().saturating_sub(base.1 + 8);
        lab.close(site)?;
        let us_each = |cpu_ns: u64, seated: usize| cpu_ns as f64 / 1000.0 / seated.max(1) as f64;
        Ok(vec![
            Metric::new("first", "/s", 0, first.seated as f64 / first.seconds),
            Metric::new("server", "µs each", 1, us_each(first.cpu_ns, first.seated)),
            Metric::new("failed", "", 0, first.failed as f64),
            Metric::new("again", "/s", 0, again.seated as f64 / again.seconds),
            Metric::new(
                "server",
                "µs each again",
                1,
                us_each(again.cpu_ns, again.seated),
            ),
            Metric::new("failed", "again", 0, again.failed as f64),
            Metric::new("before", "MiB PSS", 1, base.0.pss as f64 / MIB),
            Metric::new("seated", "MiB PSS", 1, seated.pss as f64 / MIB),
            Metric::new("seated", "again, MiB PSS", 1, seated_again.pss as f64 / MIB),
            Metric::new("after", "MiB PSS", 1, after.pss as f64 / MIB),
            Metric::new("sockets left", "", 0, left as f64),
        ])
    }

    fn handshakes(
        &self,
        lab: &mut Lab,
        target: &Target,
        devices: usize,
    ) -> io::Result<Vec<Metric>> {
        let mut settings = lab.settings();
        settings.vars = self.vars.clone();
        settings.is_tls = self.is_tls;
        settings.resumes = self.resumes;
        let site = lab.open(target, &settings, 1, false)?;
        let files = site.open_files();
        // The first time memory is new, and there is nothing to resume.
        lab.connect(&site, devices, STORM)?;
        lab.fleet.hang_up();
        for _ in 0..500 {
            lab.idle(Duration::from_millis(20))?;
            if site.open_files() <= files + 8 {
                break;
            }
        }
        lab.idle(Duration::from_millis(100))?;
        let wave = lab.connect(&site, devices, STORM)?;
        let resumed = lab.fleet.resumed();
        lab.close(site)?;
        let seated = wave.seated.max(1) as f64;
        Ok(vec![
            Metric::new("connected", "/s", 0, wave.seated as f64 / wave.seconds),
            Metric::new("server", "µs each", 1, wave.cpu_ns as f64 / 1000.0 / seated),
            Metric::new("failed", "", 0, wave.failed as f64),
            Metric::new("resumed", "%", 0, 100.0 * resumed as f64 / seated),
        ])
    }

    fn fanout(&self, lab: &mut Lab, target: &Target, devices: usize) -> io::Result<Vec<Metric>> {
        let mut settings = lab.settings();
        settings.vars = self.vars.clone();
        settings.is_tls = self.is_tls;
        let site = lab.open(target, &settings, 1, false)?;
        lab.seat(&site, devices)?;
        lab.reach_first()?;
        lab.fan_out(2)?; // what buffers grow to
        let cpu = site.cpu_ns();
        let (each, last) = lab.fan_out(BROADCASTS)?;
        let spent = (site.cpu_ns() - cpu) as f64;
        lab.close(site)?;
        let ms =
            |all: &[u64], part: f64| all[((all.len() - 1) as f64 * part) as usize] as f64 / 1e6;
        Ok(vec![
            Metric::new("p50", "ms", 1, ms(&each, 0.5)),
            Metric::new("p99", "ms", 1, ms(&each, 0.99)),
            Metric::new("last", "ms, p50", 1, ms(&last, 0.5)),
            Metric::new(
                "server",
                "µs a device",
                2,
                spent / 1000.0 / each.len() as f64,
            ),
        ])
    }

    fn life(&self, lab: &mut Lab, target: &Target) -> io::Result<Vec<Metric>> {
        let mut settings = lab.settings();
        settings.vars = self.vars.clone();
        settings.is_tls = self.is_tls;
        let (mut listening, mut first, mut stopping) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..LIVES {
            let site = lab.open(target, &settings, 1, false)?;
            let started = site.servers[0].started;
            listening.push(started.elapsed());
            lab.seat(&site, 1)?;
            let at = lab.reach_first()?;
            let since = lab.fleet.clock().now() - at;
            first.push(started.elapsed() - Duration::from_nanos(since));
            lab.fleet.hang_up();
            lab.idle(Duration::from_millis(200))?;
            stopping.push(lab.close(site)?);
        }
        Ok(vec![
            Metric::new("listens after", "ms", 1, median_ms(listening)),
            Metric::new("first downlink after", "ms", 1, median_ms(first)),
            Metric::new("stops within", "ms", 1, median_ms(stopping)),
        ])
    }
}

/// The rows.
impl Scenario {
    fn echo() -> Self {
        Self::new(GENERATOR, "echo, closed loop", Kind::Echo)
    }

    fn quick(is_full: bool) -> Vec<Self> {
        let (down, up) = match is_full {
            false => (&[10, 50, 120][..], &[1, 5, 20][..]),
            true => (
                &[1, 5, 10, 20, 50, 80, 120][..],
                &[1, 2, 5, 10, 20, 30, 40][..],
            ),
        };
        let open = |way, thousands: &u32| {
            let pace = Pace::Open(f64::from(*thousands) * 1000.0);
            let course = Course::new(way, pace).lasting(if *thousands > 100 { 5 } else { 3 });
            Self::load(LOAD, &format!("{} at {thousands} k/s", way.name()), course)
        };
        let thinking = Course {
            thinks: Duration::from_millis(20),
            ..Course::new(Way::Up, Pace::Open(1000.0))
        };
        let mut rows = vec![
            Self::new(MEMORY, "10,000 devices", Kind::Memory { devices: 10_000 }),
            Self::new(
                PINGS,
                "10,000 devices, a ping every 5 s",
                Kind::Pings {
                    devices: 10_000,
                    lasts: Duration::from_secs(10),
                },
            ),
            Self::new(STORMS, "15,000 devices", Kind::Storm { devices: 15_000 }),
            Self::fan_out("10,000 devices", None),
            jwt::VARS.iter().fold(
                Self::fan_out("a group of 10,000", Some("all")),
                |row, (name, value)| row.with(name, value),
            ),
            Self::new(LIFE, "median of 5", Kind::Life),
            Self::load(
                LOAD,
                "downlink, closed loop",
                Course::new(Way::Down, Pace::Closed(1)),
            ),
        ];
        rows.extend(down.iter().map(|rate| open(Way::Down, rate)));
        let course = Course::new(Way::Up, Pace::Closed(1));
        rows.push(Self::load(LOAD, "uplink, closed loop", course));
        rows.extend(up.iter().map(|rate| open(Way::Up, rate)));
        rows.push(Self::load(
            LOAD,
            "uplink at 1 k/s, remote thinks 20 ms",
            thinking,
        ));
        rows.push(open(Way::Round, &1));
        rows.extend(Self::several(is_full));
        rows
    }

    /// Several gateways on one Redis.
    fn several(is_full: bool) -> Vec<Self> {
        let counts = if is_full {
            &[1, 2, 4, 8, 16][..]
        } else {
            &[1, 2, 4]
        };
        let mut rows = Vec::new();
        for &gateways in counts {
            for mode in ["pattern", "exact"] {
                let course = Course {
                    gateways,
                    ..Course::new(Way::Down, Pace::Closed(1)).lasting(2)
                };
                let name = format!("{gateways} × {mode}, downlink, closed loop");
                rows.push(Self::load(NODES, &name, course).with("FASTSOCK_REDIS_SUBSCRIBE", mode));
            }
        }
        for way in [Way::Down, Way::Up] {
            let course = Course {
                gateways: 2,
                shares_port: true,
                ..Course::new(way, Pace::Closed(1)).lasting(2)
            };
            let name = format!("2 on one port, {}, closed loop", way.name());
            rows.push(Self::load(NODES, &name, course).with("FASTSOCK_LISTEN_REUSEPORT", "on"));
        }
        rows
    }

    /// The same rate over more and more devices.
    fn growth() -> Vec<Self> {
        let mut rows = Vec::new();
        for (way, rate) in [(Way::Down, 20_000.0), (Way::Up, 10_000.0)] {
            for devices in [1000, 5000, 18_000] {
                let course = Course {
                    devices,
                    ..Course::new(way, Pace::Open(rate))
                };
                let name = format!("{} at {} k/s, {devices} devices", way.name(), rate / 1000.0);
                rows.push(Self::load(GROWTH, &name, course));
            }
        }
        for devices in [1000, 5000, 18_000] {
            let name = format!("{devices} devices");
            rows.push(Self::new(MEMORY, &name, Kind::Memory { devices }));
        }
        rows
    }

    /// What it adds that uplinks outlive the process. Every device has one message on its way, so as many as there are devices
    /// can share a commit.
    fn spools(is_full: bool) -> Vec<Self> {
        let disk = |fsync| vec![("FASTSOCK_SPOOL", "disk"), ("FASTSOCK_SPOOL_FSYNC", fsync)];
        let mut spools = vec![("memory spool", Vec::new()), ("disk spool", disk("always"))];
        if is_full {
            spools.push(("disk spool, interval", disk("interval")));
        }
        let mut rows = Vec::new();
        for devices in [16, 32, 256] {
            for (name, vars) in &spools {
                let course = Course {
                    devices,
                    ..Course::new(Way::Up, Pace::Closed(1))
                };
                let name = format!("{devices} uplinks at once, {name}");
                let row = Self::load(VARIANTS, &name, course).with("FASTSOCK_DATA_DIR", "spool");
                rows.push(
                    vars.iter()
                        .fold(row, |row, (name, value)| row.with(name, value)),
                );
            }
        }
        rows
    }

    /// What a feature adds: the closed loops without and with it.
    fn variants() -> Vec<Self> {
        let variants: [(&str, &[(&'static str, &str)]); 5] = [
            ("as above", &[]),
            ("two workers", &[("FASTSOCK_RUNTIME_WORKERS", "2")]),
            (
                "exact subscription",
                &[("FASTSOCK_REDIS_SUBSCRIBE", "exact")],
            ),
            ("the default log", &[("LOG_LEVEL", "debug")]),
            (
                "no extra headers",
                &[("FASTSOCK_REMOTE_EXTRA_HEADERS", "off")],
            ),
        ];
        let mut rows = Vec::new();
        for way in [Way::Down, Way::Up] {
            for (name, vars) in variants {
                let course = Course::new(way, Pace::Closed(1));
                let name = format!("{}, {name}", way.name());
                let row = Self::load(VARIANTS, &name, course);
                rows.push(
                    vars.iter()
                        .fold(row, |row, (name, value)| row.with(name, value)),
                );
            }
            let name = format!("{}, TLS", way.name());
            let row = Self::load(VARIANTS, &name, Course::new(way, Pace::Closed(1)));
            rows.push(row.under_tls());
        }
        let idle = Self::new(
            VARIANTS,
            "1000 devices, TLS",
            Kind::Memory { devices: 1000 },
        );
        rows.push(idle.under_tls());
        let storm = Self::new(VARIANTS, "1000 connect, TLS", Kind::Storm { devices: 1000 });
        rows.push(storm.clone().under_tls());
        let mut jwt = Self {
            name: "1000 connect, JWT".into(),
            ..storm.clone()
        };
        for (name, value) in jwt::VARS {
            jwt = jwt.with(name, value);
        }
        rows.extend([
            jwt,
            Self {
                name: "1000 connect, as above".into(),
                ..storm
            },
        ]);
        rows
    }

    fn new(table: &'static str, name: &str, kind: Kind) -> Self {
        Self {
            table,
            name: name.to_owned(),
            kind,
            vars: Vec::new(),
            is_tls: false,
            resumes: false,
        }
    }

    fn fan_out(name: &str, group: Option<&'static str>) -> Self {
        let devices = 10_000;
        Self::new(FANOUT, name, Kind::Fanout { devices, group })
    }

    fn load(table: &'static str, name: &str, course: Course) -> Self {
        Self::new(table, name, Kind::Load(course))
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.vars.push((name, value.to_owned()));
        self
    }

    /// The same with devices under TLS.
    fn under_tls(self) -> Self {
        Self {
            is_tls: true,
            ..self
        }
    }
}

impl Course {
    /// A thousand devices on one gateway for three seconds.
    fn new(way: Way, pace: Pace) -> Self {
        Self {
            way,
            pace,
            lasts: Duration::from_secs(3),
            devices: 1000,
            gateways: 1,
            shares_port: false,
            thinks: Duration::ZERO,
        }
    }

    fn lasting(self, seconds: u64) -> Self {
        Self {
            lasts: Duration::from_secs(seconds),
            ..self
        }
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Down => "downlink",
            Self::Up => "uplink",
            Self::Round => "round trip",
            Self::Echo => "echo",
        }
    }
}

fn load_metrics(outcome: &Outcome) -> Vec<Metric> {
    let us = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1000.0;
    let late = outcome.lateness.value_at_quantile(0.99) as f64 / 1000.0;
    vec![
        Metric::new("messages", "/s", 0, outcome.rate),
        Metric::new("server", "µs each", 2, outcome.server_us),
        Metric::new("redis", "µs each", 2, outcome.redis_us),
        Metric::new("generator", "µs each", 2, outcome.generator_us),
        Metric::new("p50", "µs", 0, us(0.5)),
        Metric::new("p90", "µs", 0, us(0.9)),
        Metric::new("p99", "µs", 0, us(0.99)),
        Metric::new("p99.9", "µs", 0, us(0.999)),
        Metric::new("max", "µs", 0, us(1.0)),
        Metric::new("sent late p99", "µs", 0, late),
        Metric::new("others", "CPUs", 2, outcome.others),
        Metric::new("lost", "", 0, outcome.lost as f64),
        Metric::new("out of order", "", 0, outcome.disorder as f64),
    ]
}

fn median_ms(mut spans: Vec<Duration>) -> f64 {
    spans.sort();
    spans[spans.len() / 2].as_secs_f64() * 1000.0
}

const GENERATOR: &str = "The generator alone";
const MEMORY: &str = "Memory";
const PINGS: &str = "Idle";
const STORMS: &str = "Connect storm";
const FANOUT: &str = "One message for everyone";
const LIFE: &str = "Start and stop";
const LOAD: &str = "Messages, 1000 devices, 128 B";
const NODES: &str = "Several gateways";
const GROWTH: &str = "Growth";
const VARIANTS: &str = "What a feature adds";
const WARM_UP: Duration = Duration::from_millis(500);
/// Allocators give back what is free for a while; who looks at once sees their caches.
const AFTER_STORM: Duration = Duration::from_secs(15);
/// Devices that connect at once in a storm.
const STORM: usize = 512;
/// Messages for everyone of which the times are told.
const BROADCASTS: usize = 50;
/// Starts and stops of which the median is told.
const LIVES: usize = 5;
const MIB: f64 = 1024.0 * 1024.0;
