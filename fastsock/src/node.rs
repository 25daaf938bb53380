//! The name of a gateway among those that share a Redis or a backend.

use std::ops::Deref;

use uuid::Uuid;

/// Random, so that a restarted gateway is another. Made once for each bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(String);

impl NodeId {
    pub(crate) fn random() -> Self {
        Self(Uuid::now_v7().simple().to_string().split_off(16)) // what is random of it
    }
}

impl Deref for NodeId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
