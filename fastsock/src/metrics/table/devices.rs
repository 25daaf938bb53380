//! Metrics of the bridge and its sessions.

use super::{
    super::{Metric, MetricKind, Value, level},
    NONE, counter, gauge, histogram,
};
use crate::types::State;

pub(super) const METRICS: &[Metric] = &[
    // The bridge.
    Metric {
        name: "fastsock_build_info",
        kind: MetricKind::Info,
        labels: &["version"],
        help: "The version that runs.",
        advice: "Different versions among the gateways of one Redis for longer than a deploy: one was forgotten.",
        read: |_, out| out.with(&[env!("CARGO_PKG_VERSION")], 1),
    },
    gauge(
        "fastsock_uptime_seconds",
        NONE,
        "Time since the bridge started.",
        "Falls at a restart. Restarts that nobody ordered: look for an error in the log just before.",
        |f, out| out.one(Value::Level(f.uptime.as_secs_f64())),
    ),
    gauge(
        "fastsock_state",
        &["state"],
        "1 for what the bridge is doing, 0 for all else.",
        "degraded for more than 1 min: Redis is away or refuses something; the log names it.",
        |f, out| {
            for state in [
                State::Running,
                State::Degraded,
                State::Draining,
                State::Stopping,
                State::Stopped,
            ] {
                out.with(&[state.as_str()], level((state == f.state).into()))?;
            }
            Ok(())
        },
    ),
    // Sessions.
    gauge(
        "fastsock_sessions",
        NONE,
        "Devices that are connected here now.",
        "A fall by a third within 5 min: the network, a proxy in front, or a certificate.",
        |f, out| out.one(level(f.stats.sessions.connected)),
    ),
    gauge(
        "fastsock_sessions_limit",
        NONE,
        "Connections that limit_connections, or the descriptors of the process, allow.",
        "Above 80 % used: raise the limit or add a gateway.",
        |f, out| out.one(level(f.session_limit)),
    ),
    counter(
        "fastsock_sessions_opened_total",
        NONE,
        "Sessions that began.",
        "Many times the number of devices in an hour: devices reconnect in a loop; see fastsock_sessions_closed_total.",
        |f, out| out.one(f.stats.sessions.opened),
    ),
    counter(
        "fastsock_sessions_closed_total",
        &["reason"],
        "Sessions that ended, by reason. A reason appears once it has happened.",
        "no_life: devices lose power or network. slow_consumer: devices do not read. connection_lost: connections break.",
        |f, out| {
            out.by(f
                .stats
                .sessions
                .closed
                .iter()
                .map(|(reason, n)| (reason.as_str(), *n)))
        },
    ),
    counter(
        "fastsock_takeovers_total",
        NONE,
        "Sessions that a newer session of the same client id replaced.",
        "Steadily more than devices reconnect: two devices share a client id.",
        |f, out| out.one(f.stats.counters.takeovers),
    ),
    counter(
        "fastsock_handshakes_total",
        &["result"],
        "Handshakes by result: accepted, refused with a status, or abandoned before an answer.",
        "More refused than accepted for 10 min: see the statuses. Many abandoned: port scans, or health checks of a balancer.",
        |f, out| {
            let sessions = &f.stats.sessions;
            let refused = sessions.refused.values().sum();
            out.by([
                ("accepted", sessions.opened),
                ("refused", refused),
                ("abandoned", sessions.abandoned),
            ])
        },
    ),
    counter(
        "fastsock_handshakes_refused_total",
        &["status"],
        "Refused handshakes by HTTP status. A status appears once it has happened.",
        "401, 403: wrong or expired credentials. 429, 503: a limit; see fastsock_limits_hit_total.",
        |f, out| {
            for (status, count) in &f.stats.sessions.refused {
                out.with(&[&status.to_string()], *count)?;
            }
            Ok(())
        },
    ),
    counter(
        "fastsock_tls_handshakes_failed_total",
        NONE,
        "TLS handshakes that failed; they count as abandoned, too.",
        "A jump: a certificate has expired, or devices do not know its authority.",
        |f, out| out.one(f.stats.counters.tls_failed),
    ),
    counter(
        "fastsock_limits_hit_total",
        &["limit"],
        "Times a limit refused a connection (connections, connections_per_ip, handshakes, accepts), or stopped reading (descriptors, uplink_rate, uplink_room).",
        "Any increase of connections or descriptors: devices are turned away. uplink_room: the backend is slower than the devices.",
        |f, out| {
            let counters = &f.stats.counters;
            out.by(f.limit_hits)?;
            out.by([
                ("descriptors", counters.accept_paused),
                ("uplink_rate", counters.rates_exceeded),
                ("uplink_room", counters.reads_paused),
            ])
        },
    ),
    histogram(
        "fastsock_ping_round_trip_seconds",
        NONE,
        "From a ping to its pong, over all devices.",
        "The 99th percentile near websocket_ping_interval: devices are about to be cut for showing no life.",
        |f, out| out.one(f.ping.clone()),
    ),
];
