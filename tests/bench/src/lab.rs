//! Where measurements are made: a generator, a Redis, and gateways started for each scenario.

use std::{
    io::{self, Error},
    time::{Duration, Instant},
};

use crate::{
    clock::{Clock, SECOND, nanos},
    fleet::{Event, Fleet},
    jwt,
    load::{Load, Outcome, Processes},
    procfs::{self, Memory},
    target::{PREFIX, Redis, Server, Settings, Target},
    tls::Tls,
    wire::Stamp,
};

/// The generator and the Redis that all scenarios share.
pub(crate) struct Lab {
    pub(crate) fleet: Fleet,
    redis: Redis,
    tls: Tls,
    /// Marks the messages of a run.
    run: u8,
}

/// Gateways at work, and what connecting the devices took.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) servers: Vec<Server>,
}

/// What a wave of connecting devices came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wave {
    pub(crate) seated: usize,
    pub(crate) failed: usize,
    pub(crate) seconds: f64,
    /// Processor time of the servers, in nanoseconds.
    pub(crate) cpu_ns: u64,
}

impl Lab {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            fleet: Fleet::new(Clock::new())?,
            redis: Redis::start()?,
            tls: Tls::new()?,
            run: 0,
        })
    }

    /// Settings of a gateway that uses this lab.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            redis_port: self.redis.port,
            remote_url: self.fleet.remote_url(),
            ping_interval_ms: 30_000,
            is_tls: false,
            resumes: false,
            vars: Vec::new(),
        }
    }

    /// Starts gateways, each on a port of its own or all on one.
    pub(crate) fn open(
        &mut self,
        target: &Target,
        settings: &Settings,
        count: usize,
        shares_port: bool,
    ) -> io::Result<Site> {
        self.fleet.forget_gateway();
        self.fleet.publish_through(self.redis.port, PREFIX)?;
        let mut settings = settings.clone();
        if settings.is_tls {
            settings.vars.extend(self.tls.vars());
        }
        let settings = &settings;
        let devices = match settings.resumes {
            true => &self.tls.returning,
            false => &self.tls.devices,
        };
        self.fleet.set_tls(settings.is_tls.then(|| devices.clone()));
        let is_jwt = |(name, value): &(&str, String)| (*name, value.as_str()) == jwt::VARS[0];
        self.fleet.set_jwt(settings.vars.iter().any(is_jwt));
        let first = target.start(settings)?;
        let port = first.port;
        let mut servers = vec![first];
        for _ in 1..count {
            servers.push(match shares_port {
                true => target.start_on(settings, port)?,
                false => target.start(settings)?,
            });
        }
        Ok(Site { servers })
    }

    /// Connects devices, so many at once, turn by turn to the gateways.
    pub(crate) fn connect(
        &mut self,
        site: &Site,
        count: usize,
        at_once: usize,
    ) -> io::Result<Wave> {
        let clock = self.fleet.clock();
        let (start, cpu) = (clock.now(), site.cpu_ns());
        let mut wave = Wave::default();
        let first = self.fleet.size();
        let mut last_event = start;
        while wave.seated + wave.failed < count {
            let done = wave.seated + wave.failed;
            while self.fleet.size() - first < count.min(done + at_once) {
                let n = self.fleet.size();
                let server = &site.servers[n % site.servers.len()];
                self.fleet.dial(server.addr(n))?;
            }
            let deadline = last_event + nanos(PATIENCE);
            let events = self.fleet.turn(deadline)?;
            for event in events {
                match event {
                    Event::Opened => wave.seated += 1,
                    Event::Refused => wave.failed += 1,
                    _ => {}
                }
            }
            if !events.is_empty() {
                last_event = clock.now();
            } else if clock.now() >= deadline {
                wave.failed = count - wave.seated;
            }
        }
        wave.seconds = (clock.now() - start) as f64 / SECOND as f64;
        wave.cpu_ns = site.cpu_ns() - cpu;
        Ok(wave)
    }

    /// Connects devices and fails when one was not seated.
    pub(crate) fn seat(&mut self, site: &Site, count: usize) -> io::Result<()> {
        match self.connect(site, count, CONNECTING)?.failed {
            0 => Ok(()),
            failed => Err(Error::other(format!("{failed} of {count} not seated"))),
        }
    }

    /// Publishes to every device until each has heard something.
    pub(crate) fn reach_all(&mut self) -> io::Result<()> {
        let run = self.next_run();
        let clock = self.fleet.clock();
        let give_up = clock.now() + nanos(PATIENCE);
        let mut is_deaf = vec![true; self.fleet.size()];
        let mut deaf = is_deaf.len();
        while deaf > 0 {
            if clock.now() > give_up {
                return Err(Error::other(format!("{deaf} devices hear nothing")));
            }
            for (device, _) in is_deaf.iter().enumerate().filter(|(_, deaf)| **deaf) {
                self.fleet.downlink(stamp(run, device, clock.now()));
            }
            let again = clock.now() + nanos(PROBE_INTERVAL);
            while deaf > 0 && clock.now() < again {
                for event in self.fleet.turn(again)? {
                    if let Event::Downlink(stamp, _) = event
                        && stamp.run == run
                        && std::mem::take(&mut is_deaf[stamp.device as usize])
                    {
                        deaf -= 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Publishes one message for everyone, some times, each when all have the one before. Returns how long each device waited for each,
    /// in nanoseconds, and how long the last one.
    pub(crate) fn fan_out(&mut self, times: usize) -> io::Result<(Vec<u64>, Vec<u64>)> {
        let run = self.next_run();
        let clock = self.fleet.clock();
        let count = self.fleet.size();
        let (mut each, mut last) = (Vec::new(), Vec::new());
        for time in 0..times {
            let give_up = clock.now() + nanos(PATIENCE);
            let stamp = stamp(run, time, clock.now());
            self.fleet.broadcast(PREFIX, stamp);
            let mut heard = 0;
            while heard < count {
                if clock.now() > give_up {
                    let missing = count - heard;
                    return Err(Error::other(format!("{missing} devices hear nothing")));
                }
                for event in self.fleet.turn(give_up)? {
                    if let Event::Downlink(got, at) = event
                        && (got.run, got.device) == (run, stamp.device)
                    {
                        heard += 1;
                        each.push(at.saturating_sub(stamp.due_ns));
                    }
                }
            }
            last.extend(each[each.len() - count..].iter().max());
        }
        each.sort_unstable();
        last.sort_unstable();
        Ok((each, last))
    }

    /// Publishes to the first device until it hears something. Returns when it did.
    pub(crate) fn reach_first(&mut self) -> io::Result<u64> {
        let run = self.next_run();
        let clock = self.fleet.clock();
        let give_up = clock.now() + nanos(PATIENCE);
        loop {
            let now = clock.now();
            if now > give_up {
                return Err(Error::other("the device hears nothing"));
            }
            self.fleet.downlink(stamp(run, 0, now));
            let again = now + nanos(Duration::from_millis(2));
            while clock.now() < again {
                for event in self.fleet.turn(again)? {
                    if let Event::Downlink(stamp, at) = event
                        && stamp.run == run
                    {
                        return Ok(*at);
                    }
                }
            }
        }
    }

    /// Sends an uplink from every device and waits until all have arrived.
    pub(crate) fn hear_all(&mut self) -> io::Result<()> {
        let run = self.next_run();
        let clock = self.fleet.clock();
        let count = self.fleet.size();
        let give_up = clock.now() + nanos(PATIENCE);
        for device in 0..count {
            self.fleet.uplink(stamp(run, device, clock.now()))?;
        }
        let mut heard = 0;
        while heard < count {
            if clock.now() > give_up {
                return Err(Error::other(format!(
                    "{} uplinks are missing",
                    count - heard
                )));
            }
            for event in self.fleet.turn(give_up)? {
                heard += usize::from(matches!(event, Event::Uplink(stamp, _) if stamp.run == run));
            }
        }
        Ok(())
    }

    /// Lets devices answer pings for a while and does nothing else.
    pub(crate) fn idle(&mut self, lasts: Duration) -> io::Result<()> {
        let clock = self.fleet.clock();
        let end = clock.now() + nanos(lasts);
        while clock.now() < end {
            self.fleet.turn(end)?;
        }
        Ok(())
    }

    /// Waits for a second in which all else on the machine takes little time, at most so long.
    pub(crate) fn wait_for_quiet(&mut self, at_most: Duration) -> io::Result<()> {
        let clock = self.fleet.clock();
        let give_up = clock.now() + nanos(at_most);
        while clock.now() < give_up {
            let (before, start) = (procfs::machine_cpu_ns(), clock.now());
            self.idle(Duration::from_secs(1))?;
            let spent = (procfs::machine_cpu_ns() - before) as f64;
            if spent < QUIET * (clock.now() - start) as f64 {
                break;
            }
        }
        Ok(())
    }

    /// Memory of the gateways, once it has stopped changing.
    pub(crate) fn settled(&mut self, site: &Site) -> io::Result<Memory> {
        let mut last = site.memory();
        for _ in 0..25 {
            self.idle(Duration::from_millis(300))?;
            let now = site.memory();
            if now.pss.abs_diff(last.pss) < last.pss / 200 {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }

    /// Measures a load on the devices that are seated.
    pub(crate) fn load(&mut self, site: &Site, load: Load) -> io::Result<Outcome> {
        let run = self.next_run();
        let processes = Processes {
            servers: site.servers.iter().map(Server::pid).collect(),
            redis: Some(self.redis.pid()),
        };
        load.run(&mut self.fleet, run, &processes)
    }

    /// Closes all devices, then stops the gateways. Returns how long the slowest took.
    pub(crate) fn close(&mut self, mut site: Site) -> io::Result<Duration> {
        self.fleet.hang_up();
        let start = Instant::now();
        for server in &site.servers {
            server.terminate()?;
        }
        for server in &mut site.servers {
            while !server.has_ended()? {
                if start.elapsed() > STOP_TIME {
                    return Err(Error::other("the gateway does not stop"));
                }
                // What it still waits for from the backend is to come.
                self.idle(Duration::from_micros(200))?;
            }
        }
        let slowest = start.elapsed();
        self.fleet.forget_gateway();
        Ok(slowest)
    }

    /// How many slow subscribers Redis has closed so far.
    pub(crate) fn cut_off(&self) -> io::Result<u64> {
        self.redis.cut_off()
    }

    fn next_run(&mut self) -> u8 {
        self.run = self.run.wrapping_add(1);
        self.run
    }
}

impl Site {
    /// Processor time of all gateways.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.servers.iter().map(|s| procfs::cpu_ns(s.pid())).sum()
    }

    pub(crate) fn memory(&self) -> Memory {
        let each = self.servers.iter().map(|s| Memory::of(s.pid()));
        each.fold(Memory::default(), |all, one| Memory {
            pss: all.pss + one.pss,
            rss: all.rss + one.rss,
        })
    }

    /// Descriptors of all gateways.
    pub(crate) fn open_files(&self) -> usize {
        let each = self.servers.iter().map(|s| procfs::open_files(s.pid()));
        each.sum()
    }
}

fn stamp(run: u8, device: usize, due_ns: u64) -> Stamp {
    Stamp {
        run,
        device: device as u32,
        seq: 1,
        due_ns,
    }
}

/// So many processors at work are a quiet machine.
const QUIET: f64 = 0.2;
/// How long anything that must happen is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a gateway may take to stop.
const STOP_TIME: Duration = Duration::from_secs(15);
/// When devices that hear nothing are published to again.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Devices that connect at once where connecting is not what is measured.
const CONNECTING: usize = 256;
