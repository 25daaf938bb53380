//! The janitor of the mailboxes: one gateway at a time goes through all of them, removes what is too old, and what all hold beyond their
//! limits together. Devices that never return are seen to by nobody else.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed};

use redis::aio::{ConnectionLike, MultiplexedConnection};

use super::Shared;
use crate::{
    error::{Error, ErrorKind, Result},
    mailbox::TellLost,
    redis::{connect::all_servers, script::Script},
    stats::MailboxLost,
    types::ClientId,
};

/// Takes the lease of the janitor, or keeps it. `KEYS[1]`: its key; `ARGV`: node, milliseconds. Answers 1 when it is this node's.
const LEASE: Script = Script::new(
    r"
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
",
);

const SWEEP: Script = Script::new(include_str!("mailbox/sweep.lua"));

/// What all mailboxes hold, as a sweep found it.
#[derive(Default)]
struct Inventory {
    messages: u64,
    bytes: u64,
    /// Those whose oldest message is the oldest, by its time; at most [`CANDIDATES`].
    oldest: BTreeSet<(u64, ClientId)>,
}

/// What one mailbox holds, and what has gone from it.
struct Swept {
    lost: MailboxLost,
    messages: u64,
    bytes: u64,
    oldest_ms: u64,
}

impl Shared {
    /// As [`Mailbox::sweep`](crate::mailbox::Mailbox::sweep).
    pub(super) async fn sweep_mailboxes(&self, tell: TellLost<'_>) -> Result<bool> {
        let mut lease = LEASE.on(&[&self.names.janitor()]);
        lease.arg(&*self.node).arg(LEASE_MS);
        let renew = async || self.ask_mailbox_for::<bool>(lease.clone()).await;
        if !renew().await? {
            return Ok(false);
        }
        let Some(connection) = self.cmd.lock().clone() else {
            return Err(self.is_down());
        };
        let servers = all_servers(&connection.redis).await;
        let mut inventory = Inventory::default();
        for mut server in servers.map_err(|e| self.not_swept(e))? {
            let mut cursor = 0u64;
            loop {
                let found = self.some_mailboxes(&mut server, &mut cursor).await?;
                for client_id in found {
                    let swept = self.sweep(&client_id, 0).await?;
                    tell(&client_id, swept.lost);
                    inventory.note(client_id, &swept);
                }
                if cursor == 0 {
                    break;
                }
                if !renew().await? {
                    return Ok(false); // it took so long that another gateway goes on
                }
            }
        }
        self.cut_down(&mut inventory, tell).await?;
        Ok(true)
    }

    /// Removes the oldest, until all together are within their limits or there is nobody left to look at in this sweep.
    async fn cut_down(&self, inventory: &mut Inventory, tell: TellLost<'_>) -> Result<()> {
        let bounds = &self.mailbox.bounds;
        loop {
            let over = [
                (inventory.messages, bounds.total_messages),
                (inventory.bytes, bounds.total_bytes),
            ];
            let over = over.map(|(held, most)| match most {
                0 => 0,
                most => held.saturating_sub(most),
            });
            if over == [0, 0] {
                return Ok(());
            }
            let Some((_, client_id)) = inventory.oldest.pop_first() else {
                return Ok(());
            };
            let before = self.sweep(&client_id, 0).await?;
            // A 16th at a time where bytes count: Redis frees them a node at a time.
            let some = before.messages.div_ceil(16);
            let surplus = if over[1] > 0 {
                some.max(over[0])
            } else {
                over[0]
            };
            let surplus = surplus.min(some);
            let after = self.sweep(&client_id, surplus.max(1)).await?;
            for lost in [before.lost, after.lost] {
                tell(&client_id, lost);
            }
            let less = |held: u64, before: u64, after: u64| (held + after).saturating_sub(before);
            inventory.messages = less(inventory.messages, before.messages, after.messages);
            inventory.bytes = less(inventory.bytes, before.bytes, after.bytes);
            if after.messages > 0 {
                inventory.oldest.insert((after.oldest_ms, client_id));
            }
        }
    }

    /// The next mailboxes of a server.
    async fn some_mailboxes(
        &self,
        server: &mut MultiplexedConnection,
        cursor: &mut u64,
    ) -> Result<Vec<ClientId>> {
        let mut scan = redis::cmd("SCAN");
        scan.arg(*cursor).arg("MATCH").arg(self.names.mailboxes());
        scan.arg("COUNT").arg(SCANNED);
        let scanned: redis::RedisResult<(u64, Vec<Vec<u8>>)> = scan.query_async(server).await;
        let (next, keys) = scanned.map_err(|e| self.not_swept(e))?;
        *cursor = next;
        let ids = keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
        Ok(ids.filter_map(|key| self.names.owner_of(key)).collect())
    }

    async fn sweep(&self, client_id: &ClientId, surplus: u64) -> Result<Swept> {
        let stream = self.names.mailbox_of(client_id.as_str());
        let mut sweep = SWEEP.on(&[&stream]);
        sweep
            .arg(self.mailbox.bounds.age.as_millis() as u64)
            .arg(surplus);
        let (expired, full, messages, bytes, oldest_ms): (u64, u64, u64, u64, u64) =
            self.ask_mailbox_for(sweep).await?;
        let lost = MailboxLost {
            full,
            expired,
            ..MailboxLost::default()
        };
        Ok(Swept {
            lost,
            messages,
            bytes,
            oldest_ms,
        })
    }

    fn not_swept(&self, error: redis::RedisError) -> Error {
        let text = "Redis does not list the mailboxes";
        Error::new(ErrorKind::Broker, text).with_source(error)
    }

    /// Says, once, that Redis may drop mailboxes when its memory is full.
    pub(super) async fn warn_of_eviction(&self) {
        let connection = self.cmd.lock().clone().filter(|_| self.mailbox.is_on);
        let Some(mut connection) = connection else {
            return;
        };
        if let Some(policy) = eviction(&mut connection.redis).await
            && !self.mailbox.has_warned.swap(true, Relaxed)
        {
            tracing::warn!(name: "eviction", policy, hint = EVICTION_HINT, "{EVICTION}");
        }
    }
}

/// How Redis makes room when its memory is full, unless that is `noeviction`. `None` also when it does not say.
pub(crate) async fn eviction(redis: &mut impl ConnectionLike) -> Option<String> {
    let mut info = redis::cmd("INFO");
    let info: redis::RedisResult<String> = info.arg("memory").query_async(redis).await;
    let info = info.ok()?;
    let mut lines = info.lines();
    let policy = lines.find_map(|line| line.strip_prefix("maxmemory_policy:"))?;
    (policy.trim() != "noeviction").then(|| policy.trim().to_owned())
}

/// What is wrong when Redis drops keys to make room.
pub(crate) const EVICTION: &str =
    "Redis drops keys when its memory is full, mailboxes too, and nobody is told";
/// What helps.
pub(crate) const EVICTION_HINT: &str = "set maxmemory-policy noeviction";

impl Inventory {
    fn note(&mut self, client_id: ClientId, swept: &Swept) {
        self.messages += swept.messages;
        self.bytes += swept.bytes;
        if swept.messages > 0 {
            self.oldest.insert((swept.oldest_ms, client_id));
            if self.oldest.len() > CANDIDATES {
                self.oldest.pop_last();
            }
        }
    }
}

/// Longer than some steps of a sweep take.
const LEASE_MS: u64 = 150_000;
/// Keys that Redis looks at in one step.
const SCANNED: u64 = 512;
/// Mailboxes that a sweep keeps in mind to take from.
const CANDIDATES: usize = 10_000;
