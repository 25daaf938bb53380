//! The port to whoever tells of devices whose gateway died.
#![cfg_attr(
    not(feature = "redis"),
    allow(dead_code, reason = "only Redis knows of other gateways")
)]

use std::time::Duration;

use crate::{
    locks::Mutex,
    types::{ClientId, SessionId},
};

/// Tells a backend of devices whose gateway died.
pub(crate) trait TellLost: Send + Sync {
    /// How long a device has to come back before its loss is told.
    fn grace(&self) -> Duration;

    /// Tells of one, once. Never blocks.
    fn lost(&self, lost: Lost);

    /// Others took this gateway for dead while it was not, and may have told that its devices are lost.
    fn came_back(&self);
}

/// A device whose gateway died, and that is nowhere else.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) client_id: ClientId,
    /// Its session there.
    pub(crate) session_id: SessionId,
    pub(crate) epoch: u64,
    /// Id of the gateway that died.
    pub(crate) node: String,
    pub(crate) receipt: Receipt,
}

/// Says, once, whether a loss was told. Dropped unsaid it was not.
pub(crate) struct Receipt(Mutex<Option<Settle>>);

type Settle = Box<dyn FnOnce(bool) + Send>;

impl Receipt {
    pub(crate) fn new(settle: impl FnOnce(bool) + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(settle))))
    }

    /// It was told, or never will be: nobody else is to try.
    pub(crate) fn told(&self) {
        self.settle(true);
    }

    fn settle(&self, is_told: bool) {
        let settle = self.0.lock().take();
        if let Some(settle) = settle {
            settle(is_told);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.settle(false);
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receipt")
    }
}
