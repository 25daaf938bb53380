//! What gateways tell each other, and who has a seat.

use serde::{Deserialize, Serialize};

use super::Shared;
use crate::types::SessionId;

/// What gateways tell each other.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Control {
    /// The sender has seated a device that `node` has too.
    Replaced {
        node: String,
        client_id: String,
        session: u64,
    },
    /// Something of a later version.
    #[serde(other)]
    Unknown,
}

/// Takes what another gateway tells. Never waits.
pub(super) fn on_control(shared: &Shared, message: &[u8]) {
    match serde_json::from_slice(message) {
        Ok(Control::Replaced {
            node,
            client_id,
            session,
        }) if node == *shared.node => {
            if let Some(deliver) = shared.deliver.upgrade() {
                deliver.replaced_elsewhere(&client_id, SessionId(session));
            }
        }
        Ok(_) => {}
        Err(error) => {
            shared.running.pushes_bad.add(1);
            tracing::debug!(%error, "A control message from Redis is not understood");
        }
    }
}

/// Whether an owner, written `node:session:epoch`, is this node.
pub(super) fn is_of(owner: &str, node: &str) -> bool {
    owner.split(':').next() == Some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_have_their_documented_form() {
        let text = serde_json::to_string(&Control::Replaced {
            node: "n".into(),
            client_id: "dev1".into(),
            session: 7,
        });
        assert_eq!(
            text.unwrap(),
            r#"{"op":"replaced","node":"n","client_id":"dev1","session":7}"#
        );
        let later = serde_json::from_str(r#"{"op":"kick","client_id":"x"}"#);
        assert!(matches!(later, Ok(Control::Unknown)));
    }
}
