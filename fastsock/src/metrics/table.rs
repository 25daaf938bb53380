//! The table of all metrics. docs/metrics.md is made from it.

use std::fmt;

use super::{Family, Metric, MetricKind, Value, level};
use crate::{forwarder::breaker::BreakerState, inspect::Figures, types::State};

type Read = fn(&Figures, &mut Family<'_>) -> fmt::Result;

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    advice: &'static str,
    read: Read,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Counter,
        labels,
        help,
        advice,
        read,
    }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    advice: &'static str,
    read: Read,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Gauge,
        labels,
        help,
        advice,
        read,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    advice: &'static str,
    read: Read,
) -> Metric {
    Metric {
        name,
        kind: MetricKind::Histogram,
        labels,
        help,
        advice,
        read,
    }
}

const NONE: &[&str] = &[];

pub(super) static METRICS: &[Metric] = &[
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
    // Uplinks.
    counter(
        "fastsock_uplinks_received_total",
        NONE,
        "Messages read from devices.",
        "0 for 10 min while devices are connected: they have stopped to speak, or cannot.",
        |f, out| out.one(f.stats.uplink.received),
    ),
    counter(
        "fastsock_uplinks_recovered_total",
        NONE,
        "Messages found in a durable spool at the start, taken over from another gateway, or replayed dead letters.",
        "For the books: received + recovered = delivered + held + dropped by hooks + passed on + lost.",
        |f, out| out.one(f.stats.uplink.recovered),
    ),
    counter(
        "fastsock_uplinks_delivered_total",
        NONE,
        "Messages that the backend answered with 2xx.",
        "Behind received for 5 min: see fastsock_uplinks_oldest_seconds and fastsock_posts_total.",
        |f, out| out.one(f.stats.uplink.delivered),
    ),
    counter(
        "fastsock_uplinks_lost_total",
        &["reason"],
        "Messages that were given up, by reason.",
        "Any increase but of no_remote_url: a message is gone, or a dead letter to look at.",
        |f, out| {
            let lost = &f.stats.uplink.lost;
            out.by([
                ("no_remote_url", lost.no_remote_url),
                ("hook_failed", lost.hook_failed),
                ("rejected", lost.rejected),
                ("poison", lost.poison),
                ("too_old", lost.too_old),
                ("full", lost.full),
                ("shutdown", lost.shutdown),
                ("spool", lost.spool),
            ])
        },
    ),
    counter(
        "fastsock_uplinks_dropped_by_hook_total",
        NONE,
        "Messages that a hook of the host took.",
        "For the books.",
        |f, out| out.one(f.stats.uplink.dropped_by_hook),
    ),
    counter(
        "fastsock_uplinks_passed_on_total",
        NONE,
        "Messages given to a spool that several gateways share.",
        "For the books: whoever delivers them counts them as recovered.",
        |f, out| out.one(f.stats.uplink.passed_on),
    ),
    counter(
        "fastsock_uplinks_repeated_total",
        NONE,
        "Messages that a device sent again under an id that was known; acknowledged, and not taken twice.",
        "Much of all that is received: acknowledgements reach devices late.",
        |f, out| out.one(f.stats.counters.uplinks_repeated),
    ),
    gauge(
        "fastsock_uplinks_held",
        NONE,
        "Messages that wait for a hook, the spool, their turn, a retry or an answer.",
        "Grows for 10 min: the backend is down or too slow.",
        |f, out| out.one(level(f.stats.uplink.held)),
    ),
    gauge(
        "fastsock_uplinks_held_bytes",
        NONE,
        "Bytes that the held messages count for against uplink_total_bytes or the limits of the spool.",
        "Above 80 % of that limit: devices will soon be read no further.",
        |f, out| out.one(level(f.stats.uplink.held_bytes)),
    ),
    gauge(
        "fastsock_uplinks_oldest_seconds",
        NONE,
        "Age of the oldest held message, 0 without any. Of a lane that only the spool has, the age counts once it is read.",
        "Above 60 s: messages are late. Above half of remote_max_age: they will be given up.",
        |f, out| out.one(Value::Level(f.uplinks.oldest.as_secs_f64())),
    ),
    histogram(
        "fastsock_uplink_delivery_seconds",
        NONE,
        "From reading a message to its 2xx: what a device's message really takes, with waiting and retries.",
        "The 99th percentile above 5 s for 10 min.",
        |f, out| out.one(f.uplinks.delivery.clone()),
    ),
    gauge(
        "fastsock_read_ahead_bytes",
        NONE,
        "Bytes that sessions have read while their messages wait for room.",
        "Above 0 for long: see fastsock_uplinks_held_bytes.",
        |f, out| out.one(level(f.stats.sessions.read_ahead_bytes)),
    ),
    // POSTs.
    counter(
        "fastsock_posts_total",
        &["destination", "result"],
        "POSTs to a destination (remote, events, the name of a route), retries included, by what they came to: a status class, or failed without an answer.",
        "More than 5 % that are not 2xx for 10 min. failed: the network, DNS, TLS or a time-out.",
        |f, out| {
            for (destination, to) in f.destinations() {
                for (result, count) in to.posts {
                    out.with(&[destination, result], count)?;
                }
            }
            Ok(())
        },
    ),
    gauge(
        "fastsock_posts_in_flight",
        &["destination"],
        "Attempts that wait for an answer.",
        "At remote_concurrency for 5 min: the backend is the bottleneck.",
        |f, out| {
            for (destination, to) in f.destinations() {
                out.with(&[destination], level(to.in_flight))?;
            }
            Ok(())
        },
    ),
    histogram(
        "fastsock_post_seconds",
        &["destination"],
        "What one attempt takes; with batches the wait for the batch is in it.",
        "The 99th percentile near remote_timeout: the backend is about to fail.",
        |f, out| {
            for (destination, to) in f.destinations() {
                out.with(&[destination], to.seconds.clone())?;
            }
            Ok(())
        },
    ),
    gauge(
        "fastsock_breaker_state",
        &["destination", "state"],
        "1 for the state of the breaker: closed (POSTs go), open (none goes), half_open (a few find out).",
        "open for 2 min: the destination is down.",
        |f, out| {
            for (destination, to) in f.destinations() {
                for state in BreakerState::ALL {
                    let is_so = level((state == to.breaker).into());
                    out.with(&[destination, state.as_str()], is_so)?;
                }
            }
            Ok(())
        },
    ),
    counter(
        "fastsock_breaker_opened_total",
        &["destination"],
        "Times the breaker of a destination opened.",
        "Several times an hour: the destination comes and goes.",
        |f, out| {
            for (destination, to) in f.destinations() {
                out.with(&[destination], to.breaker_opened)?;
            }
            Ok(())
        },
    ),
    counter(
        "fastsock_route_uplinks_total",
        &["destination", "result"],
        "With routes: uplinks by where they go (remote, or the name of a route) and what became of them: received, delivered, dropped_by_hook, lost.",
        "lost grows for one destination alone: its backend refuses what others take.",
        |f, out| {
            for (destination, books) in f.books_of_routes() {
                for (result, count) in [
                    ("received", books.received),
                    ("delivered", books.delivered),
                    ("dropped_by_hook", books.dropped_by_hook),
                    ("lost", books.lost.total()),
                ] {
                    out.with(&[destination, result], count)?;
                }
            }
            Ok(())
        },
    ),
    gauge(
        "fastsock_route_uplinks_held",
        &["destination"],
        "With routes: uplinks in memory by where they go.",
        "Grows for one destination alone: its backend is slow or down.",
        |f, out| {
            for (destination, books) in f.books_of_routes() {
                out.with(&[destination], level(books.held))?;
            }
            Ok(())
        },
    ),
    counter(
        "fastsock_spans_total",
        &["result"],
        "Spans of POSTs for a collector: exported, or lost. None without the feature otlp and otlp_url.",
        "lost rises: the collector is away, refuses exports, or is slower than the POSTs come.",
        |f, out| {
            let counters = &f.stats.counters;
            out.by([
                ("exported", counters.spans_exported),
                ("lost", counters.spans_lost),
            ])
        },
    ),
    counter(
        "fastsock_replies_lost_total",
        NONE,
        "Replies of the backend that reached no device.",
        "Any increase: they are too long, or devices leave before the answer.",
        |f, out| out.one(f.stats.counters.replies_lost),
    ),
    // Downlinks.
    counter(
        "fastsock_downlinks_received_total",
        NONE,
        "Messages for devices that are connected here.",
        "0 while others PUBLISH: see fastsock_redis_link_up.",
        |f, out| out.one(f.stats.downlink.received),
    ),
    counter(
        "fastsock_downlinks_delivered_total",
        NONE,
        "Messages written to the socket of their device.",
        "Behind received: devices read too slowly.",
        |f, out| out.one(f.stats.downlink.delivered),
    ),
    counter(
        "fastsock_downlinks_passed_on_total",
        NONE,
        "Messages given to the gateway that has the device now, or left over when a stop or a drain told the device to go.",
        "For the books: received = delivered + passed on + held + lost.",
        |f, out| out.one(f.stats.downlink.passed_on),
    ),
    counter(
        "fastsock_downlinks_lost_total",
        &["reason"],
        "Messages for devices that were given up, by reason.",
        "full: devices do not read what they are sent. too_large: a sender does not know the limit of 16 MiB.",
        |f, out| {
            let lost = &f.stats.downlink.lost;
            out.by([
                ("full", lost.full),
                ("session_ended", lost.session_ended),
                ("too_large", lost.too_large),
            ])
        },
    ),
    counter(
        "fastsock_mailbox_kept_total",
        NONE,
        "Messages put into mailboxes through this gateway.",
        "Publishers that write Redis themselves are not counted.",
        |f, out| out.one(f.stats.mailbox.kept),
    ),
    counter(
        "fastsock_mailbox_read_total",
        NONE,
        "Messages read from mailboxes for devices that are connected here.",
        "Far ahead of delivered: devices do not answer pings, or do not acknowledge.",
        |f, out| out.one(f.stats.mailbox.read),
    ),
    counter(
        "fastsock_mailbox_delivered_total",
        NONE,
        "Messages that their devices have confirmed.",
        "0 while read grows: see fastsock_mailbox_read_total.",
        |f, out| out.one(f.stats.mailbox.delivered),
    ),
    counter(
        "fastsock_mailbox_lost_total",
        &["reason"],
        "Messages that mailboxes have lost, by reason.",
        "full, expired: devices sleep longer than the limits of FASTSOCK_MAILBOX_MESSAGES, _BYTES and _AGE allow.",
        |f, out| {
            let lost = &f.stats.mailbox.lost;
            out.by([
                ("full", lost.full),
                ("expired", lost.expired),
                ("bad", lost.bad),
            ])
        },
    ),
    gauge(
        "fastsock_downlinks_held",
        NONE,
        "Messages in outboxes.",
        "Grows for 10 min: devices read too slowly.",
        |f, out| out.one(level(f.stats.downlink.held)),
    ),
    gauge(
        "fastsock_downlinks_held_bytes",
        NONE,
        "Bytes that the messages in outboxes count for.",
        "A few devices may explain it: GET /api/v1/clients/<id> shows an outbox.",
        |f, out| out.one(level(f.stats.downlink.held_bytes)),
    ),
    gauge(
        "fastsock_downlinks_surplus_bytes",
        NONE,
        "Bytes beyond the limits of their outboxes.",
        "Above 80 % of outbox_total_bytes: the slowest devices will lose messages.",
        |f, out| out.one(level(f.stats.downlink.surplus_bytes)),
    ),
    gauge(
        "fastsock_downlinks_stalled_seconds",
        NONE,
        "How long the slowest socket has taken nothing of what waits for it; 0 when all take what they are given.",
        "Near write_timeout: that device will be closed as slow.",
        |f, out| out.one(Value::Level(f.longest_stall.as_secs_f64())),
    ),
    counter(
        "fastsock_pushes_elsewhere_total",
        NONE,
        "Messages that Redis pushed for client ids that are not connected here.",
        "Many times the received ones: FASTSOCK_REDIS_SUBSCRIBE=exact costs less.",
        |f, out| out.one(f.stats.counters.pushes_elsewhere),
    ),
    counter(
        "fastsock_pushes_bad_total",
        NONE,
        "Pushes from Redis that the bridge did not understand.",
        "Any increase: something else publishes under our prefix.",
        |f, out| out.one(f.stats.counters.pushes_bad),
    ),
    counter(
        "fastsock_downlinks_late_total",
        &["result"],
        "Messages for devices which a stop or a drain told to go, not written before or come afterwards: kept in their mailboxes, or lost unless another gateway had the device.",
        "lost at each deploy: publishers reach devices that are on their way. FASTSOCK_MAILBOX keeps what they send.",
        |f, out| {
            let counters = &f.stats.counters;
            out.by([
                ("kept", counters.downlinks_late_kept),
                ("lost", counters.downlinks_late),
            ])
        },
    ),
    // Compression.
    counter(
        "fastsock_compressed_messages_total",
        &["direction"],
        "Messages that came (up) or went (down) compressed by permessage-deflate. 0 without FASTSOCK_DEFLATE.",
        "0 although FASTSOCK_DEFLATE is on: no device offers it, or all messages are shorter than 128 bytes.",
        |f, out| {
            let counters = &f.stats.counters;
            out.by([
                ("up", counters.uplinks_compressed),
                ("down", counters.downlinks_compressed),
            ])
        },
    ),
    counter(
        "fastsock_compressed_bytes_total",
        &["direction"],
        "Bytes of these messages on the wire, without heads of frames.",
        "Divided by fastsock_inflated_bytes_total: what compression leaves. Near 1: it costs more than it saves.",
        |f, out| {
            let counters = &f.stats.counters;
            out.by([
                ("up", counters.uplinks_compressed_bytes),
                ("down", counters.downlinks_compressed_bytes),
            ])
        },
    ),
    counter(
        "fastsock_inflated_bytes_total",
        &["direction"],
        "Bytes of these messages without compression.",
        "See fastsock_compressed_bytes_total.",
        |f, out| {
            let counters = &f.stats.counters;
            out.by([
                ("up", counters.uplinks_inflated_bytes),
                ("down", counters.downlinks_inflated_bytes),
            ])
        },
    ),
    // Calls.
    counter(
        "fastsock_calls_total",
        &["result"],
        "Calls that were asked of this gateway, by what they came to; failed: a gateway or Redis did not say.",
        "timed_out: devices do not answer, or in another form. busy: FASTSOCK_LIMIT_CALLS, or stations that have a call to answer.",
        |f, out| out.by(f.calls.results),
    ),
    gauge(
        "fastsock_calls_waiting",
        NONE,
        "Calls that wait for an answer: asked of this gateway, or made for another.",
        "Near FASTSOCK_LIMIT_CALLS: further ones get 429.",
        |f, out| out.one(level(f.calls.waiting)),
    ),
    histogram(
        "fastsock_call_seconds",
        NONE,
        "From the request to the answer, of calls that got one.",
        "The 99th percentile near FASTSOCK_CALL_TIMEOUT: allow more time.",
        |f, out| out.one(f.calls.seconds.clone()),
    ),
    gauge(
        "fastsock_groups",
        NONE,
        "Groups that have members here.",
        "Each is a subscription. Growing without end: names of groups that are made up by devices.",
        |f, out| out.one(level(f.groups)),
    ),
    counter(
        "fastsock_group_messages_total",
        &["audience"],
        "Messages for a group that has members here (group), or for everyone (everyone).",
        "0 of group while others PUBLISH: see fastsock_groups.",
        |f, out| {
            let counters = &f.stats.counters;
            out.by([
                ("group", counters.group_messages),
                ("everyone", counters.broadcasts),
            ])
        },
    ),
    counter(
        "fastsock_group_downlinks_total",
        NONE,
        "Messages that these put into outboxes: one for each device. They are among fastsock_downlinks_received_total.",
        "Divided by fastsock_group_messages_total: how many devices one message reaches.",
        |f, out| out.one(f.stats.counters.group_downlinks),
    ),
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
        "Near the number of cores: add a gateway.",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_no_label_is_a_client_id() {
        let mut names: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len(), "a name is there once");
        for metric in METRICS {
            let name = metric.name;
            let is_total = name.ends_with("_total");
            assert_eq!(is_total, metric.kind == MetricKind::Counter, "{name}");
            let is_ours = name.starts_with("fastsock_") || name.starts_with("process_");
            assert!(is_ours && !metric.labels.iter().any(|label| label.contains("client")));
            for text in [metric.help, metric.advice] {
                assert!(text.ends_with('.') && !text.contains('|'), "{name}: {text}");
            }
        }
    }
}
