//! Metrics of downlinks, compression and calls.

use super::{
    super::{Metric, Value, level},
    NONE, counter, gauge, histogram,
};

pub(super) const METRICS: &[Metric] = &[
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
        "fastsock_mailbox_bytes",
        NONE,
        "Size of the file of the mailboxes on the disk. It keeps the size it once had and is filled again from within.",
        "Above 80 % of the disk.",
        |f, out| match f.mailbox_file_bytes {
            Some(bytes) => out.one(level(bytes)),
            None => Ok(()),
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
];
