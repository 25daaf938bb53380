//! A session whose device speaks `fastsock.v1.ack`: each uplink in an envelope, and an answer once it is known who has it.

use std::{task::Context, time::SystemTime};

use tokio::time::Instant;

use super::{Reading, Session};
use crate::{
    pure::{
        envelope::{self, Envelope, Said},
        kept::Form,
        receipts::{self, Offer, Outcome, Receipt},
    },
    types::CloseReason,
};

/// What a device that speaks `fastsock.v1.ack` or `fastsock.v2.ack` waits for.
#[derive(Default)]
pub(super) struct Acks {
    /// Its last uplink, until it is told what became of it. It is read no further meanwhile.
    awaited: Option<(String, Receipt)>,
    /// So many answers wait for the socket.
    pub(super) unsent: usize,
    /// Which of the two it speaks.
    form: Form,
}

impl Session {
    /// The device speaks `fastsock.v1.ack`, or `fastsock.v2.ack`.
    pub(crate) fn acknowledge(&mut self, form: Form) {
        self.seat.note_ack(if form == Form::Named { 2 } else { 1 });
        self.socket.use_envelopes();
        self.acks = Some(Box::new(Acks {
            form,
            ..Acks::default()
        }));
    }

    /// Sends the answers that wait, if they are many.
    pub(super) fn write_acks(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if self.has_many_acks() {
            self.write(cx, false)?; // pending, it wakes the task
        }
        Ok(())
    }

    /// Whether so many answers wait for the device to read them that it is read no further.
    pub(super) fn has_many_acks(&self) -> bool {
        let acks = self.acks.as_ref();
        acks.is_some_and(|acks| acks.unsent >= UNSENT_MAX)
    }

    /// An uplink that its device waits to hear of, or one it has sent before.
    pub(super) fn on_envelope(
        &mut self,
        message: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), CloseReason> {
        let is_second = self
            .acks
            .as_ref()
            .is_some_and(|acks| acks.form == Form::Named);
        let said = match is_second {
            true => envelope::open_2(message),
            false => envelope::open(message).map(Said::Uplink),
        };
        let Envelope { id, payload } = match said.ok_or(CloseReason::Protocol)? {
            Said::Uplink(envelope) => envelope,
            Said::Ack(id) => return self.on_kept_ack(&id, cx),
            Said::Join(group) => return self.on_join(&group, cx),
            Said::Leave(group) => return self.on_leave(&group, cx),
        };
        let client_id = self.seat.client_id.clone();
        let offer = self.shared.receipts.offer(&client_id, &id, Instant::now());
        let (receipt, taken) = match offer {
            Offer::New(receipt, pledge) => {
                let key = receipts::key(&client_id, &id);
                (receipt, self.on_uplink(payload, Some((key, pledge))))
            }
            Offer::Again(receipt) => {
                self.shared.running.uplinks_repeated.add(1);
                self.mark_seen(SystemTime::now());
                if receipt.outcome() == Outcome::Open {
                    self.set_reading(Reading::Undecided);
                }
                (receipt, Ok(()))
            }
        };
        if let Some(acks) = &mut self.acks {
            acks.awaited = Some((id, receipt));
        }
        self.tell_outcome(cx)?; // also if the device is closed for it
        taken
    }

    /// The device wants to be in a group.
    fn on_join(&mut self, group: &str, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.mark_seen(SystemTime::now());
        let text = match self.shared.registry.join_itself(&self.seat, group) {
            Ok(_) => envelope::joined(group),
            Err(refused) => envelope::not_joined(group, refused.as_str()),
        };
        self.answer(text, cx)
    }

    /// The device wants to be out of a group.
    fn on_leave(&mut self, group: &str, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.mark_seen(SystemTime::now());
        if let Some(groups) = self.shared.registry.groups().filter(|_| !self.is_leaving) {
            groups.leave(&self.seat.client_id, group);
        }
        self.answer(envelope::left(group), cx)
    }

    /// Tells the device what became of its word.
    fn answer(&mut self, text: String, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if self.is_leaving {
            return Ok(()); // nothing follows the close frame
        }
        if let Some(acks) = &mut self.acks {
            acks.unsent += 1;
        }
        self.socket.text(cx, text)
    }

    /// Tells the device what became of its last uplink, once that is known.
    pub(super) fn tell_outcome(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let Some(acks) = &mut self.acks else {
            return Ok(());
        };
        let Some((id, receipt)) = &acks.awaited else {
            return Ok(());
        };
        let text = match receipt.outcome() {
            Outcome::Open => return Ok(()),
            Outcome::Taken => envelope::ack(id),
            Outcome::Lost(reason) => envelope::nack(id, reason),
        };
        acks.awaited = None;
        self.answer(text, cx) // a device that leaves asks again at its next session
    }
}

/// A device that does not read the answers to so many of its uplinks is not read either.
const UNSENT_MAX: usize = 64;
