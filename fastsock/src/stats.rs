//! The books of one bridge: what came, what went, what is held, what was lost and why.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::Serialize;

use crate::{
    histogram::{Durations, Histogram},
    locks::Mutex,
    types::{CloseReason, LostReason},
};

/// One snapshot of the books. In every snapshot
/// `uplink.received + uplink.recovered = uplink.delivered + uplink.held + uplink.dropped_by_hook + uplink.passed_on + Σ uplink.lost`
/// and `downlink.received = downlink.delivered + downlink.passed_on + downlink.held + Σ downlink.lost`; `held` is counted, not derived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Messages of devices.
    pub uplink: UplinkBooks,
    /// Messages to devices that are connected here.
    pub downlink: DownlinkBooks,
    /// Kept messages; all zero without a mailbox.
    pub mailbox: MailboxBooks,
    /// Lifecycle events; all zero without `events_url`.
    pub lifecycle: LifecycleBooks,
    /// Connections.
    pub sessions: SessionBooks,
    /// Other counters.
    pub counters: Counters,
}

/// Messages of devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UplinkBooks {
    /// Read from a socket.
    pub received: u64,
    /// Found in a durable spool at start, taken over from another gateway, or replayed dead letters.
    pub recovered: u64,
    /// Answered with 2xx.
    pub delivered: u64,
    /// Waiting for a hook, for the spool, for their turn, for a retry, or for an answer. After `stop`: what the spool keeps.
    pub held: u64,
    /// Bytes that the held ones count for: each counts as its payload and 128 bytes. Without a durable spool each device that has
    /// any counts as its client id and 896 bytes more.
    pub held_bytes: u64,
    /// Taken by `on_uplink`.
    pub dropped_by_hook: u64,
    /// Taken here and given to a spool that several gateways share; the gateway that delivers them counts them as recovered.
    pub passed_on: u64,
    /// Dead letters that the bridge keeps now: what was lost as `rejected`, `poison` or `too_old`.
    pub dead_letters: u64,
    /// Dead letters that are gone for good since the start: dropped by hand, or to stay within their limits.
    pub dead_letters_dropped: u64,
    /// Given up.
    pub lost: UplinkLost,
}

/// Given-up uplinks by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UplinkLost {
    /// See [`LostReason::NoRemoteUrl`].
    pub no_remote_url: u64,
    /// See [`LostReason::HookFailed`].
    pub hook_failed: u64,
    /// See [`LostReason::Rejected`].
    pub rejected: u64,
    /// See [`LostReason::Poison`].
    pub poison: u64,
    /// See [`LostReason::TooOld`].
    pub too_old: u64,
    /// See [`LostReason::Full`].
    pub full: u64,
    /// See [`LostReason::Shutdown`].
    pub shutdown: u64,
    /// See [`LostReason::Spool`].
    pub spool: u64,
}

impl UplinkLost {
    pub(crate) fn count(&mut self, reason: LostReason) {
        *match reason {
            LostReason::NoRemoteUrl => &mut self.no_remote_url,
            LostReason::HookFailed => &mut self.hook_failed,
            LostReason::Rejected => &mut self.rejected,
            LostReason::Poison => &mut self.poison,
            LostReason::TooOld => &mut self.too_old,
            LostReason::Full => &mut self.full,
            LostReason::Shutdown => &mut self.shutdown,
            LostReason::Spool => &mut self.spool,
        } += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.no_remote_url
            + self.hook_failed
            + self.rejected
            + self.poison
            + self.too_old
            + self.full
            + self.shutdown
            + self.spool
    }
}

/// Messages to devices that are seated here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DownlinkBooks {
    /// Pushes for an id seated here, and sends answered `Here`.
    pub received: u64,
    /// Written to the device's socket.
    pub delivered: u64,
    /// Given to the gateway that has the device now, which counts them as received; or left over when a stop or a drain told the device to
    /// go: `downlinks_late_kept` and `downlinks_late` say what became of those.
    pub passed_on: u64,
    /// In an outbox.
    pub held: u64,
    /// Bytes that the held ones count for: each counts as its payload and 128 bytes.
    pub held_bytes: u64,
    /// Bytes of the held ones that are beyond the limits of their outboxes: `outbox_total_bytes` limits them. Each message counts
    /// as its payload and 128 bytes; a payload that several devices wait for counts once.
    pub surplus_bytes: u64,
    /// Given up.
    pub lost: DownlinkLost,
}

/// Given-up downlinks by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DownlinkLost {
    /// The outbox was full.
    pub full: u64,
    /// The session ended with them in its outbox.
    pub session_ended: u64,
    /// Over 16 MiB.
    pub too_large: u64,
}

impl DownlinkLost {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.full + self.session_ended + self.too_large
    }
}

impl std::ops::AddAssign for DownlinkBooks {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.delivered += other.delivered;
        self.passed_on += other.passed_on;
        self.held += other.held;
        self.held_bytes += other.held_bytes;
        self.lost.full += other.lost.full;
        self.lost.session_ended += other.lost.session_ended;
        self.lost.too_large += other.lost.too_large;
    }
}

/// Kept messages, as far as this bridge has to do with them: the mailboxes are shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MailboxBooks {
    /// Put into mailboxes through this bridge.
    pub kept: u64,
    /// Not put there, since a message of the same id was there already.
    pub repeated: u64,
    /// Read from mailboxes for devices that are connected here. A message that was not confirmed is read again.
    pub read: u64,
    /// Confirmed by their devices, and removed.
    pub delivered: u64,
    /// Times this bridge went through all mailboxes, as their janitor.
    pub sweeps: u64,
    /// Given up.
    pub lost: MailboxLost,
}

/// Kept messages that were given up, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MailboxLost {
    /// The oldest, when newer ones came and the mailbox was full: `mailbox_full`.
    pub full: u64,
    /// Too old: `mailbox_expired`.
    pub expired: u64,
    /// Without a field `data`, or over 16 MiB: `mailbox_bad`.
    pub bad: u64,
}

impl MailboxLost {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.full + self.expired + self.bad
    }

    /// The word for each reason that there is, with how many.
    pub(crate) fn by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("mailbox_full", self.full),
            ("mailbox_expired", self.expired),
            ("mailbox_bad", self.bad),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }
}

/// The running counts behind [`MailboxBooks`].
#[derive(Debug, Default)]
pub(crate) struct MailboxCounts(Mutex<MailboxBooks>);

impl MailboxCounts {
    pub(crate) fn change(&self, change: impl FnOnce(&mut MailboxBooks)) {
        change(&mut self.0.lock());
    }

    pub(crate) fn snapshot(&self) -> MailboxBooks {
        *self.0.lock()
    }
}

/// Lifecycle events on their way to `events_url`. In every snapshot `made = delivered + held + Σ lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LifecycleBooks {
    /// Events that the bridge made.
    pub made: u64,
    /// Answered with 2xx.
    pub delivered: u64,
    /// Waiting for their turn, for a retry, or for an answer.
    pub held: u64,
    /// Bytes that the held ones count for against `events_total_bytes`.
    pub held_bytes: u64,
    /// Given up.
    pub lost: LifecycleLost,
    /// POSTs, retries included.
    pub posts: u64,
    /// POSTs that did not deliver.
    pub posts_failed: u64,
    /// Times the breaker of their destination opened.
    pub breaker_opened: u64,
}

/// Given-up lifecycle events by reason, as [`LostReason`] has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LifecycleLost {
    /// See [`LostReason::Rejected`].
    pub rejected: u64,
    /// See [`LostReason::Poison`].
    pub poison: u64,
    /// See [`LostReason::TooOld`].
    pub too_old: u64,
    /// The bridge held too many, of one device or of all.
    pub full: u64,
    /// See [`LostReason::Shutdown`].
    pub shutdown: u64,
}

impl LifecycleLost {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.rejected + self.poison + self.too_old + self.full + self.shutdown
    }
}

/// Connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionBooks {
    /// Connected now.
    pub connected: u64,
    /// Connected since the start.
    pub opened: u64,
    /// Ended since the start, by [`CloseReason::as_str`] (`custom` for codes that the host chose).
    pub closed: BTreeMap<String, u64>,
    /// Handshakes refused, by HTTP status.
    pub refused: BTreeMap<u16, u64>,
    /// Handshakes that broke off or timed out before an answer.
    pub abandoned: u64,
    /// Bytes that sessions have read ahead while their messages wait; no other counter has them yet.
    pub read_ahead_bytes: u64,
}

/// The running books behind [`SessionBooks`].
#[derive(Debug, Default)]
pub(crate) struct SessionCounts(Mutex<SessionBooks>);

impl SessionCounts {
    pub(crate) fn opened(&self) {
        self.0.lock().opened += 1;
    }

    pub(crate) fn closed(&self, reason: &CloseReason) {
        let key = closed_key(reason).to_owned();
        *self.0.lock().closed.entry(key).or_default() += 1;
    }

    pub(crate) fn refused(&self, status: u16) {
        *self.0.lock().refused.entry(status).or_default() += 1;
    }

    pub(crate) fn abandoned(&self) {
        self.0.lock().abandoned += 1;
    }

    /// All but what is so only now.
    pub(crate) fn snapshot(&self) -> SessionBooks {
        self.0.lock().clone()
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Other counters, since the start.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct Counters {
            /// POSTs, retries included.
            pub posts: u64,
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The running counters behind [`Counters`], and what only metrics tell.
        #[derive(Debug, Default)]
        pub(crate) struct Running {
            pub(crate) posts: Posts,
            /// From a ping to its pong.
            pub(crate) ping: Histogram,
            $(pub(crate) $name: Count,)*
        }

        impl Running {
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { posts: self.posts.total(), $($name: self.$name.load(),)* }
            }
        }
    };
}

counters! {
    /// Messages that Redis pushed for client ids that are not connected here.
    pushes_elsewhere,
    /// Pushes from Redis that the bridge did not understand.
    pushes_bad,
    /// Messages for devices which a stop or a drain told to go, taken before and not written or come afterwards, that no mailbox keeps: a
    /// gap was told.
    downlinks_late,
    /// Such messages that the mailboxes of the devices keep.
    downlinks_late_kept,
    /// Messages for groups that have members here.
    group_messages,
    /// Messages for everyone.
    broadcasts,
    /// Messages that groups and broadcasts put into outboxes here: one for each device. They are among `downlink.received`.
    group_downlinks,
    /// Times a broker link was lost.
    broker_links_lost,
    /// Gaps: times in which downlinks may not have arrived.
    broker_gaps,
    /// Milliseconds of all gaps together.
    broker_gap_ms,
    /// POSTs that did not deliver.
    posts_failed,
    /// Times the breaker of the destination opened.
    breaker_opened,
    /// Replies of the backend that reached no outbox: too long, cut off, with a content coding, or the device had left.
    replies_lost,
    /// Spans of POSTs that the collector of `otlp_url` took.
    spans_exported,
    /// Spans that it did not get: too many waited, or it took none.
    spans_lost,
    /// Hooks that panicked, failed or did not answer in time.
    hooks_failed,
    /// Sessions taken over by a newer one of their client id.
    takeovers,
    /// Messages that devices sent compressed (`permessage-deflate`).
    uplinks_compressed,
    /// Bytes of these as they came, without heads of frames.
    uplinks_compressed_bytes,
    /// Bytes of these once inflated.
    uplinks_inflated_bytes,
    /// Messages that the gateway sent compressed.
    downlinks_compressed,
    /// Bytes of these as they went, without heads of frames.
    downlinks_compressed_bytes,
    /// Bytes of these before that.
    downlinks_inflated_bytes,
    /// Uplinks that a device sent again under an id that the bridge knew; acknowledged, and not taken twice.
    uplinks_repeated,
    /// Times accepting paused because descriptors ran out.
    accept_paused,
    /// Times a session stopped reading because its lane or the bridge was full.
    reads_paused,
    /// Times a session stopped reading because its device sent more than `limit_uplinks` or `limit_uplink_bytes` allow.
    rates_exceeded,
    /// TLS handshakes that failed: no TLS at all, nothing in common, or no valid certificate. They count as abandoned, too.
    tls_failed,
}

/// The POSTs to one destination.
#[derive(Debug, Default)]
pub(crate) struct Posts {
    /// By [`POST_RESULTS`].
    results: [Count; POST_RESULTS.len()],
    /// What an attempt takes.
    seconds: Histogram,
    /// From taking a message to its 2xx.
    delivery: Histogram,
}

/// What a POST comes to: the class of its status, or no answer at all.
const POST_RESULTS: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "failed"];

impl Posts {
    /// An attempt took so long, and made a POST for each of these statuses.
    pub(crate) fn attempted(&self, took: Duration, statuses: impl Iterator<Item = Option<u16>>) {
        self.seconds.observe(took);
        for status in statuses {
            let class = match status {
                Some(status @ 200..=599) => usize::from(status / 100 - 2),
                _ => POST_RESULTS.len() - 1,
            };
            self.results[class].add(1);
        }
    }

    /// A message was delivered so long after it was taken.
    pub(crate) fn delivered(&self, after: Duration) {
        self.delivery.observe(after);
    }

    pub(crate) fn results(&self) -> [(&'static str, u64); POST_RESULTS.len()] {
        std::array::from_fn(|n| (POST_RESULTS[n], self.results[n].load()))
    }

    pub(crate) fn seconds(&self) -> Durations {
        self.seconds.snapshot()
    }

    pub(crate) fn delivery(&self) -> Durations {
        self.delivery.snapshot()
    }

    fn total(&self) -> u64 {
        self.results.iter().map(Count::load).sum()
    }
}

/// A counter that many tasks add to.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The key a reason is counted under.
pub(crate) fn closed_key(reason: &CloseReason) -> &str {
    match reason {
        CloseReason::Custom(..) => "custom",
        reason => reason.as_str(),
    }
}
