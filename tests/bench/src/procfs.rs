//! What the kernel knows of a process: its processor time and memory.

use std::{fs, path::PathBuf, process};

/// Processor time in nanoseconds of a process, its threads and all processes it has started.
pub(crate) fn cpu_ns(pid: u32) -> u64 {
    family(pid).into_iter().map(own_cpu_ns).sum()
}

/// Processor time of this process.
pub(crate) fn generator_cpu_ns() -> u64 {
    own_cpu_ns(process::id())
}

/// Processor time that the whole machine has used, virtual machines beside it included, to a hundredth of a second.
pub(crate) fn machine_cpu_ns() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let times: Vec<u64> = line
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal guest guest_nice: the guests' time is in user and nice as well.
    let busy = times.iter().take(8).sum::<u64>();
    let idle = times.iter().skip(3).take(2).sum::<u64>();
    (busy - idle) * 10_000_000
}

/// Memory of a process and all it has started: proportional share and resident, in bytes, without what the kernel
/// holds for its sockets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Proportional set size.
    pub(crate) pss: u64,
    /// Resident set size.
    pub(crate) rss: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        family(pid)
            .into_iter()
            .map(Self::own)
            .fold(Self::default(), |all, one| Self {
                pss: all.pss + one.pss,
                rss: all.rss + one.rss,
            })
    }

    fn own(pid: u32) -> Self {
        let rollup = read(pid, "smaps_rollup");
        let field = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let kib: Option<u64> =
                line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse().ok());
            kib.unwrap_or(0) * 1024
        };
        Self {
            pss: field("Pss:"),
            rss: field("Rss:"),
        }
    }
}

/// How many descriptors a process has open.
pub(crate) fn open_files(pid: u32) -> usize {
    fs::read_dir(path(pid, "fd")).map_or(0, Iterator::count)
}

/// The scheduler counts nanoseconds per thread; where it does not, `stat` counts hundredths of a second.
fn own_cpu_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(path(pid, "task"));
    let per_thread = threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| {
            let line = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
    match per_thread.sum() {
        0 => ticks(&read(pid, "stat")) * 10_000_000,
        ns => ns,
    }
}

/// User and system time are fields 14 and 15, counted from the pid; the name in parentheses may hold blanks.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(2);
    times.filter_map(|n| n.parse::<u64>().ok()).sum()
}

/// The process and all its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(&pid) = pids.get(next) {
        next += 1;
        let threads = fs::read_dir(path(pid, "task"));
        for thread in threads.into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            pids.extend(
                children
                    .split_whitespace()
                    .filter_map(|p| p.parse::<u32>().ok()),
            );
        }
    }
    pids
}

fn read(pid: u32, file: &str) -> String {
    fs::read_to_string(path(pid, file)).unwrap_or_default() // it has ended: nothing to count
}

fn path(pid: u32, file: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_time_and_memory() {
        let memory = Memory::of(process::id());
        assert!(memory.pss > 0 && memory.rss >= memory.pss, "{memory:?}");
        assert!(generator_cpu_ns() > 0);
        assert!(open_files(process::id()) >= 3);
    }

    #[test]
    fn the_name_of_a_process_may_hold_blanks() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14";
        assert_eq!(ticks(stat), 11 + 12);
    }
}
