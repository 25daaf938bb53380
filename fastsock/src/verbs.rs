//! What a host or an operator can do with a running bridge; `bridge` and `admin` are thin over it.

use std::sync::Arc;

use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    broker::ANNOUNCED_WITHIN,
    error::{Error, ErrorKind, Result},
    gateway::shared::Shared,
    hooks::{Answer, UplinkAction},
    pure::outbox::{DOWNLINK_MAX_BYTES, Put},
    stats::{LifecycleBooks, Stats},
    tasks::BoxFuture,
    types::{Client, ClientId, CloseReason, DeadLetter, Payload, Sent, State, Ticket},
};

/// Queues a message for a device here, or publishes it for another gateway.
pub(crate) async fn send(shared: &Shared, client_id: &ClientId, payload: Payload) -> Result<Sent> {
    match send_here(shared, client_id, payload)? {
        Ok(sent) => Ok(sent),
        Err(payload) => {
            shared
                .broker
                .publish(client_id.clone(), payload.into_bytes())
                .await
        }
    }
}

/// Queues a message for a device that is here; the inner error gives it back when it is not. Never blocks.
pub(crate) fn send_here(
    shared: &Shared,
    client_id: &ClientId,
    payload: Payload,
) -> Result<Result<Sent, Payload>> {
    match shared.status.state() {
        State::Stopping | State::Stopped => return Err(stopped()),
        _ => {}
    }
    if payload.len() > DOWNLINK_MAX_BYTES {
        let text = format!(
            "the message has {} bytes; at most {DOWNLINK_MAX_BYTES} are allowed",
            payload.len()
        );
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    match shared.registry.put(client_id.as_str(), payload.clone()) {
        None => Ok(Err(payload)),
        Some(Put::Queued | Put::Displaced) => Ok(Ok(Sent::Here)),
        Some(Put::Full) => Err(Error::new(
            ErrorKind::OutboxFull,
            format!("the outbox of {client_id:?} is full"),
        )),
        Some(Put::TooLarge) => unreachable!("the size was checked above"),
    }
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
                "Reload failed; what was loaded before stays"
            );
        })?;
        warnings.iter().for_each(crate::config::Warning::log);
    }
    #[cfg(not(feature = "tls"))]
    let _ = shared; // nothing comes from a file
    tracing::info!("Reloaded");
    Ok(())
}

/// Answers a decision that was put off.
pub(crate) fn resolve(shared: &Shared, ticket: Ticket, answer: Answer) -> Result<()> {
    let is_admission = shared.admissions.lock().contains_key(&ticket);
    let wrong_kind = |needs: &str| {
        Error::new(
            ErrorKind::Argument,
            format!("ticket {} needs the answer of {needs}", ticket.0),
        )
    };
    match answer {
        Answer::Uplink(_) if is_admission => Err(wrong_kind("authenticate")),
        Answer::Admission(_) if !is_admission && shared.lanes.is_pending(ticket) => {
            Err(wrong_kind("on_uplink"))
        }
        Answer::Admission(admission) => admit(shared, ticket, Some(admission)),
        Answer::Failed if is_admission => admit(shared, ticket, None),
        Answer::Failed => {
            decide(shared, ticket, None)?;
            shared.running.hooks_failed.add(1);
            Ok(())
        }
        Answer::Uplink(action) => decide(shared, ticket, Some(action)),
    }
}

/// Lets a task answer a decision. One task gives all answers that come while it runs.
pub(crate) fn resolve_soon(shared: &Arc<Shared>, ticket: Ticket, answer: Answer) {
    let has_task = {
        let mut answers = shared.answers.lock();
        answers.waiting.push((ticket, answer));
        std::mem::replace(&mut answers.has_task, true)
    };
    if !has_task {
        shared.workers.spawn(give_answers(Arc::clone(shared)));
    }
}

async fn give_answers(shared: Arc<Shared>) {
    let mut batch = Vec::new();
    loop {
        {
            let mut answers = shared.answers.lock();
            if answers.waiting.is_empty() {
                answers.has_task = false;
                return;
            }
            std::mem::swap(&mut batch, &mut answers.waiting);
        }
        for (ticket, answer) in batch.drain(..) {
            let _ = resolve(&shared, ticket, answer);
        }
        tokio::task::yield_now().await;
    }
}

fn admit(
    shared: &Shared,
    ticket: Ticket,
    admission: Option<crate::hooks::Admission>,
) -> Result<()> {
    let waiting = shared.admissions.lock().remove(&ticket);
    match waiting.map(|waiting| waiting.send(admission)) {
        Some(Ok(())) => Ok(()),
        _ => Err(no_ticket(ticket)),
    }
}

fn no_ticket(ticket: Ticket) -> Error {
    let text = format!(
        "ticket {} is unknown, answered already, or timed out",
        ticket.0
    );
    Error::new(ErrorKind::Ticket, text)
}

/// Lets an uplink wait until other processes can find its device, whatever is decided about it meanwhile: a second at most.
pub(crate) fn hold(shared: &Arc<Shared>, ticket: Ticket, announced: BoxFuture<'static, ()>) {
    shared.unannounced.lock().insert(ticket, None);
    let shared = Arc::clone(shared);
    // Whoever decides in time must not be late because of this.
    let most = ANNOUNCED_WITHIN.min(shared.config.hook_timeout / 2);
    shared.workers.clone().spawn_until_stopped(async move {
        let _ = timeout(most, announced).await;
        let decided = shared.unannounced.lock().remove(&ticket).flatten();
        if let Some(action) = decided {
            let _ = decide(&shared, ticket, Some(action)); // only one that timed out cannot be
        }
    });
}

/// Decides about an uplink; what is to be forwarded while it is held is forwarded then.
pub(crate) fn decide(shared: &Shared, ticket: Ticket, action: Option<UplinkAction>) -> Result<()> {
    {
        let is_forwarded = matches!(
            action,
            Some(UplinkAction::Forward | UplinkAction::Replace(_))
        );
        let mut unannounced = shared.unannounced.lock();
        match unannounced.get_mut(&ticket) {
            None => {}
            Some(Some(_)) => return Err(no_ticket(ticket)),
            Some(held) if is_forwarded => {
                *held = action;
                return Ok(());
            }
            Some(None) => drop(unannounced.remove(&ticket)),
        }
    }
    if let Some((client_id, reply)) = shared.lanes.decide(ticket, action)? {
        // A device that gets no reply is no failure of the decision.
        match send_here(shared, &client_id, reply) {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => {
                tracing::debug!(%client_id, "the device has left before the hook's reply");
            }
            Err(error) if error.kind() == ErrorKind::OutboxFull => {} // counted and told as any downlink
            Err(error) => {
                tracing::warn!(%client_id, error = error.to_line(), "the hook's reply is lost");
            }
        }
    }
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
    match shared.status.state() {
        State::Stopping | State::Stopped => Err(stopped()),
        _ => shared.lanes.replay_letter(id).await,
    }
}

/// Drops a dead letter for good.
pub(crate) async fn drop_dead_letter(shared: &Shared, id: Uuid) -> Result<bool> {
    shared.lanes.drop_letter(id).await
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "the bridge is stopping or stopped")
}
