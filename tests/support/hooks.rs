//! Hosts that note what they are told.

use std::sync::Arc;

use fastsock::{ClientId, Hooks, LostReason, Uplink};
use parking_lot::Mutex;

/// Every uplink that was given up, and why.
#[derive(Debug, Default)]
pub struct LostUplinks(pub Mutex<Vec<(String, LostReason)>>);

impl Hooks for LostUplinks {
    fn on_uplink_lost(&self, uplink: &Uplink, reason: LostReason) {
        let data = uplink.payload.to_text().into_owned();
        self.0.lock().push((data, reason));
    }
}

/// Device, reason and number of the kept messages that were lost.
#[derive(Clone, Debug, Default)]
pub struct LostKept(pub Arc<Mutex<Vec<(String, String, u64)>>>);

impl Hooks for LostKept {
    fn on_mailbox_lost(&self, client_id: &ClientId, reason: &str, count: u64) {
        let told = (client_id.to_string(), reason.to_owned(), count);
        self.0.lock().push(told);
    }
}
