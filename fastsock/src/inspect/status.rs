//! A gateway in one look: what an operator asks first.

use std::time::Duration;

use serde::Serialize;

use super::{Figures, device::millis, figures::recent_timings};
use crate::{
    gateway::shared::Shared, histogram::Durations, registry::seat::Seat, uplinks::Deliveries,
};

/// A gateway in one look. Durations are milliseconds in JSON; counts are since the start.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct GatewayStatus {
    /// The version that runs.
    pub version: &'static str,
    /// Its name among the gateways of one Redis.
    pub node: String,
    /// What people call it (`FASTSOCK_NODE_NAME`).
    pub name: String,
    /// `running`, `degraded`, `stopping` or `stopped`.
    pub state: &'static str,
    /// Since the start.
    #[serde(rename = "uptime_ms", serialize_with = "millis_of")]
    pub uptime: Duration,
    /// What carries downlinks between gateways: `embedded` or `redis`.
    pub broker: &'static str,
    /// The links to Redis, if there is one.
    pub redis: Option<RedisStatus>,
    /// Devices that are connected here.
    pub devices: u64,
    /// Sessions since the start.
    pub sessions_opened: u64,
    /// Handshakes that were refused.
    pub handshakes_refused: u64,
    /// From ping to pong, over all devices since the start.
    pub ping: Quantiles,
    /// Messages of devices.
    pub uplinks: UplinkStatus,
    /// Messages for devices.
    pub downlinks: DownlinkStatus,
    /// The backend of uplinks, that of each route, and that of lifecycle events if there is one.
    pub destinations: Vec<DestinationStatus>,
    /// Where uplinks wait.
    pub spool: SpoolStatus,
    /// Where downlinks wait for devices that are away.
    pub mailbox: MailboxStatus,
    /// What has a limit, the fullest first.
    pub limits: Vec<LimitStatus>,
    /// Devices with the longest round trips.
    pub slowest: Vec<SlowDevice>,
}

/// The links to Redis.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RedisStatus {
    /// The link that publishes and writes works.
    pub is_cmd_up: bool,
    /// The link that brings downlinks works.
    pub is_sub_up: bool,
    /// Redis refuses something that devices rely on.
    pub is_refusing: bool,
    /// How long ago the link that brings downlinks was known to hear.
    #[serde(rename = "heard_ms_ago", serialize_with = "millis_of")]
    pub heard_ago: Duration,
    /// Times a link was lost.
    pub links_lost: u64,
    /// Times in which downlinks may not have arrived.
    pub gaps: u64,
    /// How long they were together.
    pub gap_ms: u64,
}

/// Half of all, and all but one in a hundred, stay within these: since the start, and in the last minute.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Quantiles {
    /// The median since the start.
    #[serde(rename = "p50_ms", serialize_with = "millis")]
    pub p50: Option<Duration>,
    /// 99 % since the start.
    #[serde(rename = "p99_ms", serialize_with = "millis")]
    pub p99: Option<Duration>,
    /// How many there were in the last minute: in the last 60 to 65 s.
    pub recent: u64,
    /// The median of these.
    #[serde(rename = "recent_p50_ms", serialize_with = "millis")]
    pub recent_p50: Option<Duration>,
    /// 99 % of these.
    #[serde(rename = "recent_p99_ms", serialize_with = "millis")]
    pub recent_p99: Option<Duration>,
}

/// Messages of devices.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct UplinkStatus {
    /// Read from devices.
    pub received: u64,
    /// Answered with 2xx.
    pub delivered: u64,
    /// Given up.
    pub lost: u64,
    /// Waiting.
    pub held: u64,
    /// Bytes that these count for.
    pub held_bytes: u64,
    /// The age of the oldest.
    #[serde(rename = "oldest_ms", serialize_with = "millis_of")]
    pub oldest: Duration,
    /// From reading a message to its 2xx.
    pub delivery: Quantiles,
}

/// Messages for devices.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DownlinkStatus {
    /// For devices that are here.
    pub received: u64,
    /// Written to their sockets.
    pub delivered: u64,
    /// Given up.
    pub lost: u64,
    /// In outboxes.
    pub held: u64,
    /// Bytes that these count for.
    pub held_bytes: u64,
    /// How long the slowest socket has taken nothing.
    #[serde(rename = "stalled_ms", serialize_with = "millis_of")]
    pub stalled: Duration,
}

/// One backend.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DestinationStatus {
    /// `remote`, the name of a route, or `events`.
    pub name: String,
    /// `closed`: POSTs go; `open`: none goes; `half_open`: a few find out.
    pub breaker: &'static str,
    /// Attempts that wait for an answer.
    pub in_flight: u64,
    /// POSTs with 2xx.
    pub posts_ok: u64,
    /// All other POSTs.
    pub posts_failed: u64,
    /// What an attempt takes.
    pub post: Quantiles,
    /// What went this way, where there are routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplinks: Option<RouteStatus>,
}

/// What went one way, where there are routes.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct RouteStatus {
    /// Read from devices.
    pub received: u64,
    /// Answered with 2xx.
    pub delivered: u64,
    /// Given up.
    pub lost: u64,
    /// Waiting in memory.
    pub held: u64,
}

/// Where uplinks wait.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SpoolStatus {
    /// `memory`, `disk` or `redis`.
    pub kind: &'static str,
    /// It takes nothing.
    pub is_failing: bool,
    /// The size of its file, if it has one.
    pub file_bytes: Option<u64>,
    /// What a commit takes.
    pub commit: Quantiles,
    /// Dead letters that are kept.
    pub dead_letters: u64,
}

/// Where downlinks wait for devices that are away.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct MailboxStatus {
    /// `off`, `redis` or `disk`.
    pub kind: &'static str,
    /// The size of its file, if it has one.
    pub file_bytes: Option<u64>,
}

/// How much of a limit is used.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LimitStatus {
    /// The setting.
    pub name: &'static str,
    /// Used now.
    pub used: u64,
    /// Allowed.
    pub limit: u64,
}

/// A device with a long round trip.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SlowDevice {
    /// Its name.
    pub client_id: String,
    /// Of its last ping.
    #[serde(rename = "round_trip_ms", serialize_with = "millis_of")]
    pub round_trip: Duration,
}

/// Looks at the whole gateway.
pub(crate) fn status(shared: &Shared) -> GatewayStatus {
    let figures = Figures::gather(shared);
    let Figures { stats, .. } = &figures;
    let redis = figures.redis.map(|redis| RedisStatus {
        is_cmd_up: redis.is_cmd_up,
        is_sub_up: redis.is_sub_up,
        is_refusing: redis.is_refusing,
        heard_ago: redis.heard_ago,
        links_lost: stats.counters.broker_links_lost,
        gaps: stats.counters.broker_gaps,
        gap_ms: stats.counters.broker_gap_ms,
    });
    let spool = figures.spool.as_ref();
    let recent = recent_timings(shared);
    let [ping, delivery, commit, posts @ ..] = &recent[..] else {
        unreachable!("there are at least three");
    };
    let uplinks = |name: &str| {
        let mut all = figures.books_of_routes();
        let found = all.find(|(known, _)| *known == name);
        found.map(|(_, books)| RouteStatus {
            received: books.received,
            delivered: books.delivered,
            lost: books.lost.total(),
            held: books.held,
        })
    };
    let destinations = figures.destinations();
    GatewayStatus {
        version: env!("CARGO_PKG_VERSION"),
        node: shared.broker.node().to_string(),
        name: shared.broker.node().name().to_owned(),
        state: figures.state.as_str(),
        uptime: figures.uptime,
        broker: shared.broker.name(),
        redis,
        devices: stats.sessions.connected,
        sessions_opened: stats.sessions.opened,
        handshakes_refused: stats.sessions.refused.values().sum(),
        ping: Quantiles::of(&figures.ping, ping),
        uplinks: UplinkStatus {
            received: stats.uplink.received,
            delivered: stats.uplink.delivered,
            lost: stats.uplink.lost.total(),
            held: stats.uplink.held,
            held_bytes: stats.uplink.held_bytes,
            oldest: figures.uplinks.oldest,
            delivery: Quantiles::of(&figures.uplinks.delivery, delivery),
        },
        downlinks: DownlinkStatus {
            received: stats.downlink.received,
            delivered: stats.downlink.delivered,
            lost: stats.downlink.lost.total(),
            held: stats.downlink.held,
            held_bytes: stats.downlink.held_bytes,
            stalled: figures.longest_stall,
        },
        destinations: destinations
            .zip(posts)
            .map(|((name, to), recent)| DestinationStatus::of(name, to, recent, uplinks(name)))
            .collect(),
        spool: SpoolStatus {
            kind: shared.config.spool.kind.as_str(),
            is_failing: figures.is_spool_failing,
            file_bytes: spool.and_then(|spool| spool.file_bytes),
            commit: spool.map_or_else(Quantiles::default, |spool| {
                Quantiles::of(&spool.commits, commit)
            }),
            dead_letters: stats.uplink.dead_letters,
        },
        mailbox: MailboxStatus {
            kind: shared.config.mailbox.kind.as_str(),
            file_bytes: figures.mailbox_file_bytes,
        },
        limits: limits(shared, &figures),
        slowest: slowest(shared),
    }
}

fn limits(shared: &Shared, figures: &Figures) -> Vec<LimitStatus> {
    let (config, stats) = (&shared.config, &figures.stats);
    let limit = |name, used, limit| LimitStatus { name, used, limit };
    let mut limits = vec![
        limit(
            "limit_connections",
            stats.sessions.connected,
            figures.session_limit,
        ),
        limit(
            "outbox_total_bytes",
            stats.downlink.surplus_bytes,
            config.downlinks.outbox_total_bytes as u64,
        ),
    ];
    let uplinks = &stats.uplink;
    if figures.spool.is_some() {
        let spool = &config.spool;
        let bytes = spool.max_bytes as u64;
        limits.extend([
            limit("spool_max_bytes", uplinks.held_bytes, bytes),
            limit(
                "spool_max_messages",
                uplinks.held,
                spool.max_messages as u64,
            ),
            limit(
                "dead_letters_max",
                uplinks.dead_letters,
                spool.dead_letters_max as u64,
            ),
        ]);
    } else {
        let bytes = config.uplinks.total_bytes as u64;
        limits.push(limit("uplink_total_bytes", uplinks.held_bytes, bytes));
    }
    if config.remote.url.is_some() {
        let at_once = config.remote.concurrency as u64;
        let in_flight = figures.uplinks.in_flight;
        limits.push(limit("remote_concurrency", in_flight, at_once));
    }
    let part = |limit: &LimitStatus| limit.used as f64 / limit.limit.max(1) as f64;
    limits.sort_by(|a, b| part(b).total_cmp(&part(a)));
    limits
}

/// Those with the longest round trips.
fn slowest(shared: &Shared) -> Vec<SlowDevice> {
    let mut seats = shared.registry.seats();
    seats.retain(|seat| seat.signs.round_trip().is_some());
    let round_trip = |seat: &Seat| seat.signs.round_trip().unwrap_or_default();
    seats.sort_unstable_by_key(|seat| std::cmp::Reverse(round_trip(seat)));
    let slowest = seats.iter().take(SLOWEST).map(|seat| SlowDevice {
        client_id: seat.client_id.to_string(),
        round_trip: round_trip(seat),
    });
    slowest.collect()
}

impl DestinationStatus {
    fn of(name: &str, to: &Deliveries, recent: &Durations, uplinks: Option<RouteStatus>) -> Self {
        let all: u64 = to.posts.iter().map(|(_, count)| count).sum();
        let [(_, ok), ..] = to.posts;
        Self {
            name: name.to_owned(),
            breaker: to.breaker.as_str(),
            in_flight: to.in_flight,
            posts_ok: ok,
            posts_failed: all - ok,
            post: Quantiles::of(&to.seconds, recent),
            uplinks,
        }
    }
}

impl Quantiles {
    fn of(all: &Durations, recent: &Durations) -> Self {
        let quantile = |of: &Durations, part| of.quantile(part).map(Duration::from_secs_f64);
        Self {
            p50: quantile(all, 0.5),
            p99: quantile(all, 0.99),
            recent: recent.count(),
            recent_p50: quantile(recent, 0.5),
            recent_p99: quantile(recent, 0.99),
        }
    }
}

fn millis_of<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    millis(&Some(*time), to)
}

const SLOWEST: usize = 10;
