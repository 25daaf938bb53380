//! Messages through a gateway: how fast, how late, in which order, at what cost.

use std::{io, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    clock::{SECOND, nanos},
    fleet::{Event, Fleet},
    procfs,
    wire::Stamp,
};

/// Which way messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Published in Redis, received by the device.
    Down,
    /// Sent by the device, received by the backend.
    Up,
    /// Up, and the backend publishes it back to the device.
    Round,
    /// Sent by the device and back by a server that echoes.
    Echo,
}

/// How messages are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Each device has so many on their way; the next follows when one has arrived.
    Closed(u32),
    /// So many a second by schedule, whether the ones before have arrived or not, turn by turn to all devices.
    Open(f64),
}

/// One measurement to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) way: Way,
    pub(crate) pace: Pace,
    /// How long messages are sent before measuring begins, and how long then.
    pub(crate) warm_up: Duration,
    pub(crate) lasts: Duration,
}

/// The processes whose time is counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes {
    pub(crate) servers: Vec<u32>,
    pub(crate) redis: Option<u32>,
}

/// What came of a [`Load`].
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Messages that never arrived.
    pub(crate) lost: u64,
    /// Messages that arrived after a later one of the same device, or again.
    pub(crate) disorder: u64,
    /// Messages that arrived a second while it was measured.
    pub(crate) rate: f64,
    /// From the time a message was due to its arrival, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// From the time a message was due until the generator sent it: how far the latencies are its own fault.
    pub(crate) lateness: Histogram<u64>,
    /// Processor time a message that arrived, in microseconds.
    pub(crate) server_us: f64,
    pub(crate) redis_us: f64,
    pub(crate) generator_us: f64,
    /// Processors that all else on the machine kept busy meanwhile.
    pub(crate) others: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct CpuTime {
    server: u64,
    redis: u64,
    generator: u64,
    machine: u64,
    /// When it was read.
    at: u64,
    /// Messages that had arrived by then.
    arrived: u64,
}

/// A measurement under way.
struct Course<'a> {
    fleet: &'a mut Fleet,
    load: Load,
    run: u8,
    sent: u64,
    arrived: u64,
    disorder: u64,
    /// By device: the last number sent, and the last that arrived at the end and, on a round, at the backend.
    last_sent: Vec<u32>,
    last_arrived: Vec<u32>,
    last_turned: Vec<u32>,
    measured_from: u64,
    last_arrival: u64,
    latency: Histogram<u64>,
    lateness: Histogram<u64>,
    events: Vec<Event>,
}

impl Load {
    /// Sends and receives; waits for stragglers until [`PATIENCE`] after the last arrival.
    pub(crate) fn run(
        self,
        fleet: &mut Fleet,
        run: u8,
        processes: &Processes,
    ) -> io::Result<Outcome> {
        let start = fleet.clock().now();
        let measured_from = start + nanos(self.warm_up);
        let end = measured_from + nanos(self.lasts);
        let mut course = Course::new(fleet, self, run, measured_from);
        let mut sender = Sender::new(self.pace, start);
        course.until(measured_from, &mut sender)?;
        let before = course.cpu_time(processes);
        course.until(end, &mut sender)?;
        let after = course.cpu_time(processes);
        course.drain()?;
        Ok(course.outcome(before, after))
    }
}

/// Decides when the next message is due.
enum Sender {
    /// Begins with each device once; then arrivals send.
    Closed(u32),
    Open {
        start: u64,
        interval_ns: f64,
        count: u64,
    },
}

impl Sender {
    fn new(pace: Pace, start: u64) -> Self {
        match pace {
            Pace::Closed(window) => Self::Closed(window),
            Pace::Open(rate) => Self::Open {
                start,
                interval_ns: SECOND as f64 / rate,
                count: 0,
            },
        }
    }
}

impl<'a> Course<'a> {
    fn new(fleet: &'a mut Fleet, load: Load, run: u8, measured_from: u64) -> Self {
        let numbers = || vec![0; fleet.size()];
        Self {
            load,
            run,
            sent: 0,
            arrived: 0,
            disorder: 0,
            last_sent: numbers(),
            last_arrived: numbers(),
            last_turned: numbers(),
            measured_from,
            last_arrival: measured_from,
            latency: histogram(),
            lateness: histogram(),
            events: Vec::new(),
            fleet,
        }
    }

    /// Sends and receives until a time.
    fn until(&mut self, end: u64, sender: &mut Sender) -> io::Result<()> {
        let mut now = self.fleet.clock().now();
        while now < end {
            let next = self.send_due(now, sender)?;
            self.turn(next.min(end), true)?;
            now = self.fleet.clock().now();
        }
        Ok(())
    }

    /// Sends what is due. Returns when the next one is.
    fn send_due(&mut self, now: u64, sender: &mut Sender) -> io::Result<u64> {
        match sender {
            Sender::Closed(window) => {
                for _ in 0..std::mem::take(window) {
                    for device in 0..self.last_sent.len() {
                        self.send(device, now)?;
                    }
                }
                Ok(u64::MAX)
            }
            Sender::Open {
                start,
                interval_ns,
                count,
            } => {
                let mut turn = 0;
                loop {
                    let due = *start + (*count as f64 * *interval_ns) as u64;
                    // What arrives meanwhile is to be read in time, so that the generator delays nothing.
                    if due > now || turn == SENT_IN_A_TURN {
                        return Ok(due);
                    }
                    let devices = self.last_sent.len() as u64;
                    self.send((*count % devices) as usize, due)?;
                    let late = self.fleet.clock().now().saturating_sub(due);
                    if due >= self.measured_from {
                        self.lateness.saturating_record(late);
                    }
                    *count += 1;
                    turn += 1;
                }
            }
        }
    }

    fn send(&mut self, device: usize, due_ns: u64) -> io::Result<()> {
        self.last_sent[device] += 1;
        self.sent += 1;
        let stamp = Stamp {
            run: self.run,
            device: device as u32,
            seq: self.last_sent[device],
            due_ns,
        };
        match self.load.way {
            Way::Down => self.fleet.downlink(stamp),
            Way::Up | Way::Round | Way::Echo => self.fleet.uplink(stamp)?,
        }
        Ok(())
    }

    fn turn(&mut self, until: u64, goes_on: bool) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        events.extend_from_slice(self.fleet.turn(until)?);
        for event in &events {
            self.on_event(*event, goes_on)?;
        }
        self.events = events;
        Ok(())
    }

    fn on_event(&mut self, event: Event, goes_on: bool) -> io::Result<()> {
        match (event, self.load.way) {
            (Event::Uplink(stamp, at), Way::Up)
            | (Event::Downlink(stamp, at), Way::Down | Way::Round | Way::Echo)
                if stamp.run == self.run =>
            {
                self.on_arrival(stamp, at);
                if goes_on && matches!(self.load.pace, Pace::Closed(_)) {
                    self.send(stamp.device as usize, at)?;
                }
            }
            (Event::Uplink(stamp, _), Way::Round) if stamp.run == self.run => {
                self.disorder += follow(&mut self.last_turned, stamp);
                self.fleet.downlink(stamp);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_arrival(&mut self, stamp: Stamp, at: u64) {
        self.disorder += follow(&mut self.last_arrived, stamp);
        self.arrived += 1;
        self.last_arrival = at;
        if stamp.due_ns >= self.measured_from {
            self.latency
                .saturating_record(at.saturating_sub(stamp.due_ns));
        }
    }

    /// Receives what is still on its way.
    fn drain(&mut self) -> io::Result<()> {
        self.last_arrival = self.fleet.clock().now();
        while self.arrived < self.sent {
            let deadline = self.last_arrival + nanos(PATIENCE);
            if self.fleet.clock().now() >= deadline {
                break;
            }
            self.turn(deadline, false)?;
        }
        Ok(())
    }

    fn cpu_time(&self, processes: &Processes) -> CpuTime {
        CpuTime {
            server: processes
                .servers
                .iter()
                .map(|pid| procfs::cpu_ns(*pid))
                .sum(),
            redis: processes.redis.map_or(0, procfs::cpu_ns),
            generator: procfs::generator_cpu_ns(),
            machine: procfs::machine_cpu_ns(),
            at: self.fleet.clock().now(),
            arrived: self.arrived,
        }
    }

    fn outcome(self, before: CpuTime, after: CpuTime) -> Outcome {
        let arrived = (after.arrived - before.arrived).max(1) as f64;
        let us_each = |after: u64, before: u64| (after - before) as f64 / 1000.0 / arrived;
        let spent = |cpu: &CpuTime| cpu.server + cpu.redis + cpu.generator;
        let others =
            (after.machine - before.machine) as f64 - (spent(&after) - spent(&before)) as f64;
        Outcome {
            lost: self.sent.saturating_sub(self.arrived),
            disorder: self.disorder,
            rate: arrived * SECOND as f64 / (after.at - before.at) as f64,
            latency: self.latency,
            lateness: self.lateness,
            server_us: us_each(after.server, before.server),
            redis_us: us_each(after.redis, before.redis),
            generator_us: us_each(after.generator, before.generator),
            others: others.max(0.0) / (after.at - before.at) as f64,
        }
    }
}

/// Notes the number of a message. Returns 1 when it came too late or again.
fn follow(last: &mut [u32], stamp: Stamp) -> u64 {
    let Some(last) = last.get_mut(stamp.device as usize) else {
        return 1;
    };
    let is_late = stamp.seq <= *last;
    *last = stamp.seq.max(*last);
    is_late.into()
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60 * SECOND, 3).expect("these bounds are valid")
}

/// How long the last arrival may be ago before the rest counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so many, what has arrived is read before the next are sent.
const SENT_IN_A_TURN: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_followed_by_device() {
        let mut last = vec![0; 2];
        let mut note = |device, seq| {
            follow(
                &mut last,
                Stamp {
                    run: 0,
                    device,
                    seq,
                    due_ns: 0,
                },
            )
        };
        let late: Vec<u64> = [(0, 1), (1, 1), (0, 3), (0, 2), (0, 3), (1, 2), (2, 1)]
            .map(|(device, seq)| note(device, seq))
            .into();
        assert_eq!(late, [0, 0, 0, 1, 1, 0, 1]);
    }
}
