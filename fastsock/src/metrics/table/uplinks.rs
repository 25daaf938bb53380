//! Metrics of uplinks and their POSTs.

use super::{
    super::{Metric, Value, level},
    NONE, counter, gauge, histogram,
};
use crate::forwarder::breaker::BreakerState;

pub(super) const METRICS: &[Metric] = &[
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
];
