//! Metrics of lifecycle events, Redis, the spool, hooks and the process.

use super::{
    super::{Metric, Value, level},
    NONE, counter, gauge, histogram,
};

pub(super) const METRICS: &[Metric] = &[
    // Lifecycle events.
    counter(
        "fastsock_events_made_total",
        NONE,
        "Lifecycle events for events_url.",
        "For the books: made = delivered + held + lost.",
        |f, out| out.one(f.stats.lifecycle.made),
    ),
    counter(
        "fastsock_events_delivered_total",
        NONE,
        "Lifecycle events that events_url answered with 2xx.",
        "Behind made for 5 min: see fastsock_posts_total of events.",
        |f, out| out.one(f.stats.lifecycle.delivered),
    ),
    counter(
        "fastsock_events_lost_total",
        &["reason"],
        "Lifecycle events that were given up, by reason.",
        "Any increase: the backend does not know who is connected.",
        |f, out| {
            let lost = &f.stats.lifecycle.lost;
            out.by([
                ("rejected", lost.rejected),
                ("poison", lost.poison),
                ("too_old", lost.too_old),
                ("full", lost.full),
                ("shutdown", lost.shutdown),
            ])
        },
    ),
    gauge(
        "fastsock_events_held",
        NONE,
        "Lifecycle events on their way.",
        "Grows for 10 min: events_url is down or too slow.",
        |f, out| out.one(level(f.stats.lifecycle.held)),
    ),
    // Redis.
    gauge(
        "fastsock_redis_link_up",
        &["link"],
        "1 while a link to Redis works: cmd publishes and writes, sub brings downlinks. Nothing without Redis.",
        "0 for 1 min: Redis is away; devices stay, downlinks of others do not arrive.",
        |f, out| match &f.redis {
            Some(redis) => {
                out.with(&["cmd"], level(redis.is_cmd_up.into()))?;
                out.with(&["sub"], level(redis.is_sub_up.into()))
            }
            None => Ok(()),
        },
    ),
    gauge(
        "fastsock_redis_refusing",
        NONE,
        "1 while Redis refuses something that devices rely on, over links that are up.",
        "1 for 1 min: rights, memory or replicas; the log names the command and the error.",
        |f, out| match &f.redis {
            Some(redis) => out.one(level(redis.is_refusing.into())),
            None => Ok(()),
        },
    ),
    gauge(
        "fastsock_redis_heard_age_seconds",
        NONE,
        "Time since the sub link last showed that it hears: by a message, or by its probe each 10 s.",
        "Above 30 s: the link is up and deaf.",
        |f, out| match &f.redis {
            Some(redis) => out.one(Value::Level(redis.heard_ago.as_secs_f64())),
            None => Ok(()),
        },
    ),
    counter(
        "fastsock_redis_links_lost_total",
        NONE,
        "Times a link to Redis was lost; it comes back by itself.",
        "Several an hour: a time-out between here and Redis, or a failover.",
        |f, out| out.one(f.stats.counters.broker_links_lost),
    ),
    counter(
        "fastsock_redis_gaps_total",
        NONE,
        "Gaps: times in which published downlinks may not have arrived.",
        "Any increase: what was published meanwhile is to be sent again by whoever cares.",
        |f, out| out.one(f.stats.counters.broker_gaps),
    ),
    counter(
        "fastsock_redis_gap_seconds_total",
        NONE,
        "Length of all gaps together; a gap counts once it is over.",
        "See fastsock_redis_gaps_total.",
        |f, out| out.one(Value::Total(f.stats.counters.broker_gap_ms as f64 / 1e3)),
    ),
    // The spool.
    gauge(
        "fastsock_spool_failing",
        NONE,
        "1 while the durable spool takes nothing. 0 without one.",
        "1 for 1 min: devices are read no further; a full disk, or Redis.",
        |f, out| out.one(level(f.is_spool_failing.into())),
    ),
    gauge(
        "fastsock_spool_messages",
        NONE,
        "Messages that the durable spool holds for this gateway.",
        "Grows for 10 min: see fastsock_uplinks_oldest_seconds.",
        |f, out| match &f.spool {
            Some(_) => out.one(level(f.stats.uplink.held)),
            None => Ok(()),
        },
    ),
    gauge(
        "fastsock_spool_bytes",
        NONE,
        "Size of the file of the disk spool. It keeps the size it once had and is filled again from within.",
        "Above 80 % of the disk.",
        |f, out| match f.spool.as_ref().and_then(|spool| spool.file_bytes) {
            Some(bytes) => out.one(level(bytes)),
            None => Ok(()),
        },
    ),
    histogram(
        "fastsock_spool_commit_seconds",
        NONE,
        "What one commit of the durable spool takes: a transaction on disk, or writes to Redis with the replicas asked for.",
        "The 99th percentile above 0.25 s: the disk is slow; each device waits that long for each message.",
        |f, out| match &f.spool {
            Some(spool) => out.one(spool.commits.clone()),
            None => Ok(()),
        },
    ),
    gauge(
        "fastsock_dead_letters",
        NONE,
        "Dead letters that are kept now.",
        "Above 0: look at them with fastsock dead-letters list, mend the backend, replay.",
        |f, out| out.one(level(f.stats.uplink.dead_letters)),
    ),
    counter(
        "fastsock_dead_letters_dropped_total",
        NONE,
        "Dead letters that are gone for good: dropped by hand, or to stay within their limits.",
        "An increase that nobody ordered: dead_letters_max is too low, or nobody looks.",
        |f, out| out.one(f.stats.uplink.dead_letters_dropped),
    ),
    // Hooks.
    counter(
        "fastsock_hooks_failed_total",
        NONE,
        "Hooks of the host that failed or did not answer in time.",
        "Any increase: an error in the host; each failed on_uplink loses a message.",
        |f, out| out.one(f.stats.counters.hooks_failed),
    ),
    // The process.
    counter(
        "process_cpu_seconds_total",
        NONE,
        "CPU time of the process, user and system.",
        "Near the number of workers: raise `FASTSOCK_RUNTIME_WORKERS`, or add a gateway.",
        |f, out| match &f.process {
            Some(process) => out.one(Value::Total(process.cpu_seconds)),
            None => Ok(()),
        },
    ),
    gauge(
        "process_open_fds",
        NONE,
        "Open descriptors of the process.",
        "Above 90 % of process_max_fds.",
        |f, out| match &f.process {
            Some(process) => out.one(level(process.open_fds)),
            None => Ok(()),
        },
    ),
    gauge(
        "process_max_fds",
        NONE,
        "Descriptors that the process may have.",
        "A device takes one; see docs/operate.md.",
        |f, out| match f.process.as_ref().and_then(|process| process.max_fds) {
            Some(most) => out.one(level(most)),
            None => Ok(()),
        },
    ),
    gauge(
        "process_resident_memory_bytes",
        NONE,
        "Memory of the process that is in RAM.",
        "Grows for days with a level number of sessions and held messages: tell us.",
        |f, out| match &f.process {
            Some(process) => out.one(level(process.resident_bytes)),
            None => Ok(()),
        },
    ),
    gauge(
        "process_virtual_memory_bytes",
        NONE,
        "Addresses that the process has reserved.",
        "None.",
        |f, out| match &f.process {
            Some(process) => out.one(level(process.virtual_bytes)),
            None => Ok(()),
        },
    ),
    gauge(
        "process_threads",
        NONE,
        "Threads of the process.",
        "None.",
        |f, out| match &f.process {
            Some(process) => out.one(level(process.threads)),
            None => Ok(()),
        },
    ),
    gauge(
        "process_start_time_seconds",
        NONE,
        "When the process started, in seconds since 1970.",
        "Changes at a restart.",
        |f, out| match &f.process {
            Some(process) => out.one(Value::Level(process.start_seconds)),
            None => Ok(()),
        },
    ),
];
