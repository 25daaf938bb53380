//! What a POST tells of what is in it, beside the body.

use std::time::SystemTime;

use uuid::Uuid;

use crate::{
    context::Context,
    types::{ClientId, SessionId, Uplink},
};

/// What the headers of a POST tell of what is in it.
#[derive(Clone, Copy)]
pub(crate) struct Stamp<'a> {
    pub(crate) id: Uuid,
    pub(crate) client_id: &'a ClientId,
    pub(crate) session_id: SessionId,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) made_at: SystemTime,
    pub(crate) is_text: bool,
    /// What is known of the session, for headers.
    pub(crate) context: Option<&'a Context>,
}

impl<'a> From<&'a Uplink> for Stamp<'a> {
    fn from(uplink: &'a Uplink) -> Self {
        Self {
            id: uplink.id,
            client_id: &uplink.client_id,
            session_id: uplink.session_id,
            epoch: uplink.epoch,
            seq: uplink.seq,
            made_at: uplink.received_at,
            is_text: uplink.payload.is_text(),
            context: uplink.context.as_deref(),
        }
    }
}
