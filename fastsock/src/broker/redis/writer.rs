//! The cmd link: writes presence and who has which seat, in batches, one at a time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ahash::{HashMap, HashSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    Shared,
    claims::{self, Answer},
    cleanup,
    control::{self, Control, Successor},
    links::Kind,
    membership::Membership,
    passing,
    presence::{Batch, Del, Set},
    script,
};
use crate::{
    redis::{
        connect::{self, Redis},
        error::Failure,
        error::LinkError,
        trouble::Function,
    },
    types::{ClientId, SessionId, unix_ms},
};

/// Serves one connection from its lease to its end. `Ok` when told to stop and everything is written.
pub(super) async fn serve(shared: &Arc<Shared>) -> Result<(), LinkError> {
    let connection = connect::open(&shared.address, Kind::Cmd.response_timeout()).await?;
    shared.answered();
    let mut redis = connection.redis.clone();
    let mut membership = Membership::new(shared);
    membership.begin(shared, &mut redis).await?;
    shared.wake(Kind::Sub).notify_one();
    *shared.cmd.lock() = Some(connection.clone());
    tokio::select! {
        () = connection.lost.notified() => Err(LinkError::new("the connection was lost")),
        (error, _) = connection.moved(&shared.address) => Err(error),
        error = membership.keep(shared, redis.clone()) => Err(error),
        error = claims::serve(shared, redis.clone()) => Err(error),
        error = passing::serve(shared, redis.clone()) => Err(error),
        watched = shared.troubles.rights().watch(redis.clone()) => match watched {
            Err(error) => Err(error),
        },
        written = write(shared, redis) => written,
    }
}

/// Restores presence, tells that the link is up, and then writes what changes until told to stop.
async fn write(shared: &Shared, mut redis: Redis) -> Result<(), LinkError> {
    wait_for_sub(shared).await;
    restore(shared);
    // What is refused is tried again then.
    let mut again = flush(shared, &mut redis).await?;
    if !shared.stop.is_cancelled() {
        shared.link_up(Kind::Cmd);
        shared.check.notify_one();
        shared.warn_of_eviction().await;
    }
    let mut has_looked = false;
    let mut flushed_at = Instant::now();
    // Once more, for what another gateway still wrote or removed while it did not know of this one's return.
    let mut once_more = Some(flushed_at + ONCE_MORE_AFTER);
    let mut look_at = flushed_at + LOOK_EVERY;
    while !shared.stop.is_cancelled() {
        if !has_looked && again.is_none() && !shared.is_plain() {
            match cleanup::look_through(shared, &mut redis).await {
                Ok(()) => {
                    has_looked = true;
                    again = flush(shared, &mut redis).await?;
                }
                Err(failure) => {
                    let wait = shared.failed(Function::Presence, failure).await?;
                    again = Some(Instant::now() + wait);
                }
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => {}
            () = sleep_until(again.unwrap_or(flushed_at)), if again.is_some() => {}
            () = shared.presence_changed.notified(), if again.is_none() => {
                // The first change after a pause goes out soon, later ones together, and one that is waited for at once.
                let due = (flushed_at + PACE).max(Instant::now() + GATHER);
                tokio::select! {
                    () = shared.stop.cancelled() => {}
                    () = shared.announcements.has_waiting.notified() => {}
                    () = sleep_until(due) => {}
                }
            }
            () = shared.restore.notified() => {
                restore(shared);
                once_more = Some(Instant::now() + ONCE_MORE_AFTER);
            }
            () = sleep_until(once_more.unwrap_or(flushed_at)), if once_more.is_some() => {
                restore(shared);
                once_more = None;
            }
            () = sleep_until(look_at), if again.is_none() => {
                if let Err(failure) = look_for_strays(shared, &mut redis).await {
                    again = Some(Instant::now() + shared.failed(Function::Presence, failure).await?);
                }
                look_at = Instant::now() + LOOK_EVERY;
            }
        }
        if again.is_some_and(|again| Instant::now() < again) {
            continue;
        }
        flushed_at = Instant::now();
        again = flush(shared, &mut redis).await?;
    }
    flush(shared, &mut redis).await?;
    if shared.presence.lock().len() == 0
        && !shared.is_plain()
        && let Err(failure) = cleanup::leave(shared, &mut redis).await
    {
        shared.failed(Function::Lease, failure).await?;
    }
    Ok(())
}

/// Whoever finds an id in the hash may publish to it, so the subscriptions come first; but not at any price.
async fn wait_for_sub(shared: &Shared) {
    let is_up = async {
        loop {
            let came_up = shared.sub_came_up.notified();
            if shared.links.lock().is_up(Kind::Sub) {
                return;
            }
            came_up.await;
        }
    };
    tokio::select! {
        () = shared.stop.cancelled() => {}
        _ = timeout(SUB_FIRST, is_up) => {}
    }
}

/// Has those claimed again whom Redis gives to another gateway, or to nobody; the claim decides. A gateway that takes a device over and
/// loses its link before it can say so tells nobody: without this the device would keep two sockets.
async fn look_for_strays(shared: &Shared, redis: &mut Redis) -> Result<(), Failure> {
    let everyone = match shared.deliver.upgrade() {
        Some(deliver) if !shared.is_plain() => deliver.everyone(),
        _ => return Ok(()),
    };
    for some in everyone.chunks(BATCH) {
        let ids: Vec<_> = some
            .iter()
            .map(|seated| seated.client_id.as_str())
            .collect();
        let mut ask = redis::cmd("HMGET");
        ask.arg(&shared.names.owner).arg(ids);
        let owners: Vec<Option<String>> = ask.query_async(redis).await?;
        let mut presence = shared.presence.lock();
        for (seated, owner) in some.iter().zip(owners) {
            if !owner.is_some_and(|owner| control::is_of(&owner, &shared.node)) {
                presence.doubt(&seated.client_id, seated.session_id);
            }
        }
    }
    Ok(())
}

fn restore(shared: &Shared) {
    if let Some(deliver) = shared.deliver.upgrade() {
        let everyone = deliver.everyone();
        let clock_ms = unix_ms(SystemTime::now());
        let now_ms = shared.now_ms();
        let mut presence = shared.presence.lock();
        presence.restore(everyone, now_ms, clock_ms);
    }
}

/// Writes all changes there are. Returns when to try again what Redis refuses.
async fn flush(shared: &Shared, redis: &mut Redis) -> Result<Option<Instant>, LinkError> {
    let mut again = None;
    while let Some(batch) = next_batch(shared, again.is_some()) {
        let mut batch = InFlight { shared, batch };
        let (sets, dels) = tokio::join!(
            write_sets(shared, redis.clone(), &batch.batch.sets),
            write_dels(shared, redis.clone(), &batch.batch.dels)
        );
        batch.confirm(sets.is_ok(), dels.is_ok());
        let are_refused = dels.is_err();
        for failure in [sets.err(), dels.err()].into_iter().flatten() {
            let wait = shared.failed(Function::Presence, failure).await?;
            again = Some(Instant::now() + wait);
        }
        if are_refused {
            break;
        }
    }
    if again.is_none() {
        shared.works(Function::Presence);
    }
    Ok(again)
}

/// What is to be written next. Who left is removed though Redis takes nobody new.
fn next_batch(shared: &Shared, are_sets_refused: bool) -> Option<Batch> {
    if are_sets_refused {
        return shared.presence.lock().removals(BATCH);
    }
    let claiming = shared.presence.lock().claiming(BATCH);
    let left = left_meanwhile(shared, claiming);
    shared.presence.lock().batch(BATCH, &left)
}

fn left_meanwhile(shared: &Shared, claiming: Vec<ClientId>) -> HashSet<ClientId> {
    let Some(deliver) = shared.deliver.upgrade() else {
        return claiming.into_iter().collect();
    };
    let left = |id: &ClientId| !deliver.is_seated(id.as_str());
    claiming.into_iter().filter(left).collect()
}

/// A batch of which what is not confirmed is given back, wherever the task that writes it ends.
struct InFlight<'a> {
    shared: &'a Shared,
    batch: Batch,
}

impl InFlight<'_> {
    fn confirm(&mut self, sets: bool, dels: bool) {
        let confirmed = Batch {
            sets: match sets {
                true => std::mem::take(&mut self.batch.sets),
                false => Vec::new(),
            },
            dels: match dels {
                true => std::mem::take(&mut self.batch.dels),
                false => Vec::new(),
            },
        };
        // Under one lock: who asks whether a device is there either sees it, or is released.
        let mut presence = self.shared.presence.lock();
        let here = confirmed.sets.iter().map(|set| &set.client_id);
        self.shared.announcements.release(here);
        presence.confirm(confirmed);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.batch);
        if left != Batch::default() {
            self.shared.presence.lock().give_back(left);
        }
    }
}

/// Writes who is here: first whose seats they are, then the hash, so that a gateway that reads both can tell whose value it
/// sees.
async fn write_sets(shared: &Shared, mut redis: Redis, sets: &[Set]) -> Result<(), Failure> {
    let claims = match shared.is_plain() {
        true => Claims::default(),
        false => list_and_claim(shared, &mut redis, sets).await?,
    };
    let mut hset = redis::cmd("HSET");
    hset.arg(&shared.names.clients);
    let mut is_anyone_here = false;
    for set in sets {
        if !claims.lost.contains(&set.client_id) {
            is_anyone_here = true;
            hset.arg(set.client_id.as_str()).arg(set.seen_ms);
        }
    }
    if is_anyone_here {
        hset.exec_async(&mut redis).await?;
    }
    let told = control::tell(shared, redis, &claims.tell).await;
    told.map_err(Failure::Lost)
}

/// Removes who left: first from their seats, then from the hash.
async fn write_dels(shared: &Shared, mut redis: Redis, dels: &[Del]) -> Result<(), Failure> {
    if dels.is_empty() {
        return Ok(());
    }
    let names = &shared.names;
    if shared.is_plain() {
        let mut hdel = redis::cmd("HDEL");
        hdel.arg(&names.clients);
        for del in dels {
            hdel.arg(del.client_id.as_str());
        }
        return Ok(hdel.exec_async(&mut redis).await?);
    }
    let released = release(shared, &mut redis, dels).await?;
    let mut steps = redis::pipe();
    if !released.is_empty() {
        let mut remove = script::REMOVE.on(&[&names.clients]);
        for (client_id, least_ms, most_ms) in released {
            remove.arg(client_id.as_str()).arg(least_ms).arg(most_ms);
        }
        steps.add_command(remove);
    }
    let srem = steps.cmd("SREM").arg(names.ids_of(&shared.node));
    for del in dels {
        srem.arg(del.client_id.as_str());
    }
    Ok(steps.exec_async(&mut redis).await?)
}

/// What came of the claims of a batch.
#[derive(Default)]
struct Claims {
    /// Devices that are seated elsewhere, and later than here.
    lost: HashSet<ClientId>,
    /// What other gateways must know.
    tell: Vec<Control>,
}

/// Records the seats that are not recorded yet, and who is to be cleared up should this node be gone.
async fn list_and_claim(
    shared: &Shared,
    redis: &mut Redis,
    sets: &[Set],
) -> Result<Claims, Failure> {
    let claiming: Vec<_> = sets
        .iter()
        .filter_map(|set| Some((&set.client_id, set.claim?)))
        .collect();
    let mut claims = Claims::default();
    let mut steps = redis::pipe();
    // The set first: it is what the others go by when they clear up after this node.
    let mut sadd = redis::cmd("SADD");
    sadd.arg(shared.names.ids_of(&shared.node));
    let mut is_anyone_unlisted = false;
    for set in sets {
        if set.is_unlisted {
            is_anyone_unlisted = true;
            sadd.arg(set.client_id.as_str());
        }
    }
    if is_anyone_unlisted {
        steps.add_command(sadd).ignore();
    }
    if claiming.is_empty() {
        if !steps.is_empty() {
            steps.exec_async(redis).await?;
        }
        return Ok(claims);
    }
    let mut eval = script::CLAIM.on(&[&shared.names.owner]);
    eval.arg(&*shared.node).arg("replace");
    for (client_id, claim) in &claiming {
        eval.arg(client_id.as_str());
        eval.arg(claim.session_id.0).arg("again");
        eval.arg(claim.seated.epoch(|ms| shared.epoch_of(ms)));
    }
    steps.add_command(eval);
    let (answers,): (Vec<String>,) = steps.query_async(redis).await?;

    for ((client_id, claim), answer) in claiming.into_iter().zip(answers) {
        let (epoch, from) = match Answer::parse(&answer) {
            Answer::Won { epoch, from } => (epoch, from),
            _ => {
                claims.lost.insert(client_id.clone());
                replaced_elsewhere(shared, client_id, claim.session_id);
                continue;
            }
        };
        shared.claimed(client_id, claim.session_id, epoch, from.is_some());
        claims
            .tell
            .extend(from.map(|(node, session)| Control::Replaced {
                node,
                client_id: client_id.to_string(),
                session,
                by: Some(Successor {
                    node: shared.node.to_string(),
                    session: claim.session_id.0,
                }),
            }));
    }
    Ok(claims)
}

fn replaced_elsewhere(shared: &Shared, client_id: &ClientId, session_id: SessionId) {
    if let Some(deliver) = shared.deliver.upgrade() {
        deliver.replaced_elsewhere(client_id.as_str(), session_id);
    }
}

/// Gives up the seats of those who left. Returns whose field in the hash may go, with the values it may have.
async fn release<'a>(
    shared: &Shared,
    redis: &mut Redis,
    dels: &'a [Del],
) -> Result<Vec<(&'a ClientId, u64, u64)>, Failure> {
    let contested: Vec<_> = dels.iter().filter(|del| del.is_contested).collect();
    let mut found = HashMap::default();
    if !contested.is_empty() {
        // Read while the seat is ours still: whoever takes it later writes a later value.
        let mut hmget = redis::cmd("HMGET");
        hmget.arg(&shared.names.clients);
        for del in &contested {
            hmget.arg(del.client_id.as_str());
        }
        let values: Vec<Option<String>> = hmget.query_async(redis).await?;
        for (del, value) in contested.into_iter().zip(values) {
            if let Some(Ok(seen_ms)) = value.map(|value| value.parse::<u64>()) {
                found.insert(&del.client_id, seen_ms);
            }
        }
    }
    let mut eval = script::RELEASE.on(&[&shared.names.owner]);
    eval.arg(&*shared.node);
    for del in dels {
        eval.arg(del.client_id.as_str()).arg(del.session_id.0);
    }
    let is_free: Vec<i64> = eval.query_async(redis).await?;
    let free = dels.iter().zip(is_free).filter(|(_, free)| *free == 1);
    Ok(free
        .map(|(del, _)| match found.get(&del.client_id) {
            Some(seen_ms) => (&del.client_id, *seen_ms, *seen_ms),
            None => (&del.client_id, del.least_ms, del.most_ms),
        })
        .collect())
}

/// Changes written at once: few enough that messages do not wait while they are put together and taken apart.
const BATCH: usize = 128;

/// How long the first change after a pause waits for company.
const GATHER: Duration = Duration::from_millis(10);

/// The least time between two flushes; a change is at most this late, and the time a flush takes.
const PACE: Duration = Duration::from_millis(50);

/// How often all seats are compared with what Redis has: one field of an HMGET for each.
const LOOK_EVERY: Duration = Duration::from_secs(20);
const ONCE_MORE_AFTER: Duration = Duration::from_secs(5);

/// How long a new cmd link waits for the subscriptions before it writes presence.
const SUB_FIRST: Duration = Duration::from_secs(2);
