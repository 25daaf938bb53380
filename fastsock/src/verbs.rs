//! What a host or an operator can do with a running bridge; `bridge` and `admin` are thin over it.

use uuid::Uuid;

use crate::{
    error::{Error, ErrorKind, Result},
    gateway::shared::Shared,
    stats::{LifecycleBooks, Stats},
    types::{Client, ClientId, CloseReason, DeadLetter, Payload, Sent, State},
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

/// The books, true in this moment.
pub(crate) fn stats(shared: &Shared) -> Stats {
    Stats {
        uplink: shared.lanes.books(),
        downlink: shared.registry.books(),
        lifecycle: shared
            .lifecycle
            .as_ref()
            .map_or_else(LifecycleBooks::default, |lifecycle| lifecycle.books()),
        sessions: shared.session_books(),
        counters: shared.running.snapshot(),
    }
}

/// Reads again what comes from files: the certificates of the device port.
pub(crate) fn reload(shared: &Shared) -> Result<()> {
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
    #[cfg(not(feature = "tls"))]
    let _ = shared; // nothing comes from a file
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
