//! What becomes of downlinks that are left over when devices are told to go.

use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, stream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::{
    error::ErrorKind,
    mailbox::{KeepOptions, Message},
    registry::{
        Registry,
        late::{Late, LeftOver},
    },
    types::{ClientId, unix_ms},
};

/// While a drain goes on: sees to what each session that has left leaves over.
pub(super) async fn account_while_draining(shared: &Shared, is_over: &CancellationToken) {
    loop {
        tokio::select! {
            () = shared.registry.left_over() => {}
            () = is_over.cancelled() => {}
        }
        account_for(shared, Registry::take_left_over).await;
        if is_over.is_cancelled() {
            return;
        }
        if shared.deliveries.is_none() {
            let _ = timeout(TELL_EVERY, is_over.cancelled()).await; // one gap for many
        }
    }
}

/// Keeps what is left over for its devices, where there are mailboxes. The rest is counted, logged and told as a gap. One after the
/// other, so that a stop waits for what a drain has begun.
pub(crate) async fn account_for(shared: &Shared, take: impl FnOnce(&Registry) -> Late) {
    let _one_at_a_time = shared.registry.accounting().lock().await;
    let late = take(&shared.registry);
    let Some((from, to)) = late.span.filter(|_| !late.devices.is_empty()) else {
        return;
    };
    let mut rest = Rest {
        shared,
        count: late.devices.values().map(|left| left.count).sum(),
        from,
        to,
    };
    let keeping = late.devices.into_iter();
    let keeping = keeping.map(|(client_id, left)| keep(shared, client_id, left));
    let mut done = stream::iter(keeping).buffer_unordered(AT_ONCE);
    while let Some(kept) = done.next().await {
        shared.running.downlinks_late_kept.add(kept);
        rest.count -= kept;
    }
}

/// What no mailbox has: told in the end, also if there was no time to try.
struct Rest<'a> {
    shared: &'a Shared,
    count: u64,
    from: SystemTime,
    to: SystemTime,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        let (shared, count) = (self.shared, self.count);
        if count == 0 {
            return;
        }
        shared.running.downlinks_late.add(count);
        tracing::warn!(
            name: "gap",
            from_ms = unix_ms(self.from), to_ms = unix_ms(self.to), count,
            "gap: downlinks for devices that the stop had told to go may not have arrived"
        );
        shared.status.gap(self.from, self.to);
    }
}

/// Returns how many the mailbox has.
async fn keep(shared: &Shared, client_id: ClientId, left: LeftOver) -> u64 {
    let mut kept = 0;
    if let Some(deliveries) = &shared.deliveries {
        for payload in left.messages {
            let keeping = async {
                let message = Message::new(payload, KeepOptions::default())?;
                deliveries.keep(&client_id, message).await
            };
            match keeping.await {
                Ok(_) => kept += 1,
                Err(error) => {
                    tracing::debug!(%client_id, error = error.to_line(), "A downlink could not be kept at the stop");
                    if error.kind() == ErrorKind::Broker {
                        break; // the next would have to wait for as long
                    }
                }
            }
        }
    }
    let count = left.count - kept;
    if count > 0 {
        tracing::warn!(name: "downlinks_lost", %client_id, reason = "stopped", count, "Lost downlinks");
    }
    kept
}

/// Devices whose messages are kept at once.
const AT_ONCE: usize = 64;

/// How often a drain tells a gap, at most.
const TELL_EVERY: Duration = Duration::from_secs(1);
