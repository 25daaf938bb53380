//! What a host or an operator can do with a running bridge; `bridge` and `admin` are thin over it.

pub(crate) mod fleet;

use std::time::Duration;

use uuid::Uuid;

use crate::{
    broker::Audience,
    calls::CallMatch,
    error::{Error, ErrorKind, Result},
    gateway::shared::Shared,
    groups::Group,
    mailbox::{KeepOptions, Kept, Message},
    registry::{deliveries::Deliveries, downlinks::check_size},
    stats::{LifecycleBooks, MailboxBooks, Stats},
    types::{Client, ClientId, CloseReason, DeadLetter, MailboxState, Payload, Sent, State},
};

/// Queues a message for a device here, or publishes it for another gateway.
pub(crate) async fn send(shared: &Shared, client_id: &ClientId, payload: Payload) -> Result<Sent> {
    check_running(shared)?;
    shared.downlinks.send(client_id, payload).await
}

/// Queues a message for a device that is here; gives it back when the device is not. Never blocks.
pub(crate) fn send_here(
    shared: &Shared,
    client_id: &ClientId,
    payload: Payload,
) -> Result<Option<Payload>> {
    check_running(shared)?;
    shared.downlinks.put(client_id, payload)
}

/// Sends a message to a device and waits for its answer.
pub(crate) async fn call(
    shared: &Shared,
    client_id: &ClientId,
    payload: Payload,
    matcher: &CallMatch,
    timeout: Option<Duration>,
) -> Result<Payload> {
    check_running(shared)?;
    let callers = &shared.callers;
    callers.call(client_id, payload, matcher, timeout).await
}

/// Puts a message into the mailbox of a device, which may be away.
pub(crate) async fn send_kept(
    shared: &Shared,
    client_id: &ClientId,
    payload: Payload,
    options: KeepOptions,
) -> Result<Kept> {
    check_running(shared)?;
    check_size(&payload)?;
    let message = Message::new(payload, options)?;
    mailboxes(shared)?.keep(client_id, message).await
}

/// What the mailbox of a device holds.
pub(crate) async fn mailbox(shared: &Shared, client_id: &ClientId) -> Result<MailboxState> {
    mailboxes(shared)?.state(client_id).await
}

/// Empties the mailbox of a device. Returns how many messages it held.
pub(crate) async fn clear_mailbox(shared: &Shared, client_id: &ClientId) -> Result<u64> {
    mailboxes(shared)?.clear(client_id).await
}

fn mailboxes(shared: &Shared) -> Result<&Deliveries> {
    shared.deliveries.as_deref().ok_or_else(|| {
        let text = "there are no mailboxes; FASTSOCK_MAILBOX takes redis or disk";
        Error::new(ErrorKind::Config, text)
    })
}

/// Sends one message to all members of a group, on all gateways. Returns how many gateways heard it.
pub(crate) async fn send_group(shared: &Shared, group: &str, payload: Payload) -> Result<u64> {
    check_running(shared)?;
    let audience = Audience::Group(group.into());
    shared.downlinks.send_to(audience, payload).await
}

/// Sends one message to everyone, on all gateways. Returns how many gateways heard it.
pub(crate) async fn broadcast(shared: &Shared, payload: Payload) -> Result<u64> {
    check_running(shared)?;
    shared.downlinks.send_to(Audience::Everyone, payload).await
}

/// Puts a device into a group, or takes it out, here or on the gateway that has it.
pub(crate) async fn change_group(
    shared: &Shared,
    client_id: &ClientId,
    group: &str,
    joins: bool,
) -> Result<Sent> {
    check_running(shared)?;
    shared.downlinks.change_group(client_id, group, joins).await
}

/// Groups that have members here: at most `limit` of those whose name begins so and comes after another, by name.
pub(crate) fn groups(shared: &Shared, prefix: &str, after: &str, limit: usize) -> Vec<Group> {
    let groups = shared.registry.groups();
    groups.map_or_else(Vec::new, |groups| groups.list(prefix, after, limit))
}

/// Closes the session of a device that is here.
pub(crate) fn disconnect(shared: &Shared, client_id: &str, reason: CloseReason) -> bool {
    shared.registry.close(client_id, None, reason)
}

/// Everyone who is seated here.
pub(crate) fn clients(shared: &Shared) -> Vec<Client> {
    shared
        .registry
        .seats()
        .iter()
        .map(|seat| seat.client())
        .collect()
}

/// At most `limit` of those whose name begins so and comes after another, by name.
pub(crate) fn clients_with(
    shared: &Shared,
    prefix: &str,
    after: &str,
    limit: usize,
) -> Vec<Client> {
    let mut seats = shared.registry.seats();
    seats.retain(|seat| {
        let name = seat.client_id.as_str();
        name.starts_with(prefix) && name > after
    });
    if seats.len() > limit {
        seats.select_nth_unstable_by(limit, |a, b| a.client_id.cmp(&b.client_id));
        seats.truncate(limit);
    }
    seats.sort_unstable_by(|a, b| a.client_id.cmp(&b.client_id));
    seats.iter().map(|seat| seat.client()).collect()
}

/// The books, true in this moment.
pub(crate) fn stats(shared: &Shared) -> Stats {
    Stats {
        uplink: shared.lanes.books(),
        downlink: shared.registry.books(),
        mailbox: shared
            .deliveries
            .as_ref()
            .map_or_else(MailboxBooks::default, |deliveries| deliveries.books()),
        lifecycle: shared
            .lifecycle
            .as_ref()
            .map_or_else(LifecycleBooks::default, |lifecycle| lifecycle.books()),
        sessions: shared.session_books(),
        counters: shared.running.snapshot(),
    }
}

/// Reads again what comes from files: the certificates of the device port, and tokens at the next look at their file.
pub(crate) fn reload(shared: &Shared) -> Result<()> {
    shared.routes.iter().for_each(|route| route.auth.reload());
    #[cfg(feature = "tls")]
    if let Some(tls) = &shared.tls {
        let warnings = tls.reload(&shared.config).inspect_err(|error| {
            tracing::error!(
                error = error.to_line(),
                "Reload failed; the gateway keeps what it has loaded"
            );
        })?;
        warnings.iter().for_each(crate::config::Warning::log);
    }
    tracing::info!("Reloaded");
    Ok(())
}

/// Dead letters in the order of their ids, which is that of receipt: at most `limit` after `after`.
pub(crate) async fn dead_letters(
    shared: &Shared,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<DeadLetter>> {
    shared.lanes.dead_letters(after, limit).await
}

/// One dead letter.
pub(crate) async fn dead_letter(shared: &Shared, id: Uuid) -> Result<Option<DeadLetter>> {
    shared.lanes.dead_letter(id).await
}

/// Makes a dead letter an uplink again. Not while stopping: nobody would deliver it.
pub(crate) async fn replay_dead_letter(shared: &Shared, id: Uuid) -> Result<bool> {
    check_running(shared)?;
    shared.lanes.replay_letter(id).await
}

/// Drops a dead letter for good.
pub(crate) async fn drop_dead_letter(shared: &Shared, id: Uuid) -> Result<bool> {
    shared.lanes.drop_letter(id).await
}

fn check_running(shared: &Shared) -> Result<()> {
    match shared.status.state() {
        State::Stopping | State::Stopped => Err(Error::new(
            ErrorKind::Stopped,
            "the bridge is stopping or stopped",
        )),
        _ => Ok(()),
    }
}
