//! Items that someone decides about before they go: a hook, or whoever waits for a device to be announced.

use std::sync::Arc;

use super::{Decision, Item, Lanes, keep};
use crate::{
    error::{Error, ErrorKind, Result},
    handover,
    hooks::UplinkAction,
    types::{ClientId, LostReason, Payload, Ticket, Uplink},
};

impl Lanes {
    /// What a hook said of an undecided uplink (`None`: it failed). Returns a reply for the device, if it gave one.
    ///
    /// # Errors
    /// `Ticket` when it is unknown, answered already, or timed out.
    pub(crate) fn decide(
        self: &Arc<Self>,
        ticket: Ticket,
        action: Option<UplinkAction>,
    ) -> Result<Option<(ClientId, Payload)>> {
        let mut reply = None;
        self.settle_ticket(ticket, |uplink: &mut Uplink| match action {
            None => Decision::Fail,
            Some(UplinkAction::Forward) => Decision::Deliver,
            Some(UplinkAction::Replace(payload)) => {
                if self.takes(uplink) {
                    uplink.payload = payload;
                }
                Decision::Deliver
            }
            Some(UplinkAction::Drop) => Decision::Drop,
            Some(UplinkAction::Reply(payload)) => {
                reply = Some((uplink.client_id.clone(), payload));
                Decision::Drop
            }
        })?;
        Ok(reply)
    }
}

impl<I: Item> Lanes<I> {
    /// Decides about an item, which may be changed for it.
    ///
    /// # Errors
    /// `Ticket` when it is unknown, answered already, or timed out.
    pub(crate) fn settle_ticket(
        self: &Arc<Self>,
        ticket: Ticket,
        decide: impl FnOnce(&mut I) -> Decision,
    ) -> Result<()> {
        let (loss, hire) = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let (key, number) = state.tickets.remove(&ticket).ok_or_else(|| {
                Error::new(
                    ErrorKind::Ticket,
                    format!(
                        "ticket {} is unknown, answered already, or timed out",
                        ticket.0
                    ),
                )
            })?;
            let mut way = 0;
            let decide = |item: &mut I| {
                way = self.signpost.way_of(item);
                decide(item)
            };
            let (taken_at, decision) = state
                .queue
                .decide(&key, number, decide)
                .expect("an undecided item stays in its lane");
            let lost = match decision {
                Decision::Deliver if self.ways[way].forward.is_some() => {
                    let record = state.queue.settle(&key, number);
                    if let (Some(spool), Some(record)) = (&self.spool, record) {
                        spool.append(record);
                    }
                    self.note_fullness(state);
                    None
                }
                Decision::Deliver => Some(LostReason::NoRemoteUrl),
                Decision::Drop => {
                    keep(self.remove(state, &key, number));
                    state.books.dropped_by_hook += 1;
                    state.ways[way].books.dropped_by_hook += 1;
                    None
                }
                Decision::Fail => Some(LostReason::HookFailed),
            };
            let due = taken_at + self.decision_timeout;
            state.ways[0].retries.forget_decision(due, number);
            let loss = lost.and_then(|reason| self.lose(state, &key, number, reason, None));
            self.promote(state, &key);
            self.wake(state, &key);
            self.note_quiet(state);
            if let Some(waker) = state.waiters.remove(&key) {
                handover::wake(&waker); // no room yet, but for another reason
            }
            (loss, self.may_hire_any(state))
        };
        self.hire(hire);
        self.tell(loss);
        Ok(())
    }
}
