//! A session whose device speaks `fastsock.v1.ack`: each uplink in an envelope, and an answer once it is known who has it.

use std::{task::Context, time::SystemTime};

use tokio::time::Instant;

use super::{Reading, Session};
use crate::{
    pure::{
        envelope::{self, Envelope},
        receipts::{self, Offer, Outcome, Receipt},
    },
    types::CloseReason,
};

/// What a device that speaks `fastsock.v1.ack` waits for.
#[derive(Default)]
pub(super) struct Acks {
    /// Its last uplink, until it is told what became of it. It is read no further meanwhile.
    awaited: Option<(String, Receipt)>,
    /// So many answers wait for the socket.
    pub(super) unsent: usize,
}

impl Session {
    /// The device speaks `fastsock.v1.ack`.
    pub(crate) fn acknowledge(&mut self) {
        self.socket.use_envelopes();
        self.acks = Some(Box::default());
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
        let Envelope { id, payload } = envelope::open(message).ok_or(CloseReason::Protocol)?;
        let client_id = self.seat.client_id.clone();
        let offer = self.shared.receipts.offer(&client_id, &id, Instant::now());
        let (receipt, taken) = match offer {
            Offer::New(receipt, pledge) => {
                let key = receipts::key(&client_id, &id);
                (receipt, self.on_uplink(payload, Some((key, pledge))))
            }
            Offer::Again(receipt) => {
                self.shared.running.uplinks_repeated.add(1);
                let now = SystemTime::now();
                self.shared
                    .broker
                    .seen(&client_id, self.seat.mark_seen(now));
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
        acks.unsent += 1;
        self.socket.text(cx, text)
    }
}

/// A device that does not read the answers to so many of its uplinks is not read either.
const UNSENT_MAX: usize = 64;
