//! What gateways tell each other, and who has a seat.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::Shared;
use crate::{
    redis::{
        connect::Redis,
        error::{Failure, LinkError},
        glob::escaped,
        trouble::Function,
    },
    types::{CloseReason, Payload, SessionId},
};

/// What gateways tell each other.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Control {
    /// The sender is there from now on. Who does not hear it learns it from the leases.
    Joined { node: String },
    /// The sender has seated a device that `node` has too.
    Replaced {
        node: String,
        client_id: String,
        session: u64,
        /// The session that has it now, if the sender takes what waits for the device.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<Successor>,
    },
    /// What waited for a device that `node` has now: for its session `session`, from the session `from` of the sender.
    PassedOn {
        node: String,
        client_id: String,
        session: u64,
        from: u64,
        messages: Vec<Passed>,
    },
    /// A device of `node` is to be in a group, or out of it.
    Group {
        node: String,
        client_id: String,
        group: String,
        joins: bool,
    },
    /// The sender asks `node`, or any gateway where that is empty, to close a session of a device.
    Kick {
        node: String,
        client_id: String,
        /// 0: any.
        session: u64,
        code: u16,
        reason: String,
    },
    /// Something of a later version.
    #[serde(other)]
    Unknown,
}

/// The session that has a device now.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Successor {
    pub(super) node: String,
    pub(super) session: u64,
}

/// A message that goes from one gateway to another.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Passed {
    /// As Base64.
    data: String,
    #[serde(default)]
    binary: bool,
}

impl Passed {
    fn of(payload: &Payload) -> Self {
        Self {
            data: BASE64.encode(payload.as_bytes()),
            binary: !payload.is_text(),
        }
    }

    fn payload(&self) -> Option<Payload> {
        let bytes = Bytes::from(BASE64.decode(self.data.as_bytes()).ok()?);
        Some(match self.binary {
            true => Payload::binary(bytes),
            false => Payload::text_lossy(bytes),
        })
    }
}

/// Takes what another gateway tells. Never waits.
pub(super) fn on_control(shared: &Shared, message: &[u8]) {
    match serde_json::from_slice(message) {
        Ok(Control::Joined { node }) => {
            shared.has_company.fetch_or(node != *shared.node, Relaxed);
        }
        Ok(Control::Replaced {
            node,
            client_id,
            session,
            by,
        }) if node == *shared.node => {
            let Some(deliver) = shared.deliver.upgrade() else {
                return;
            };
            match by {
                None => deliver.replaced_elsewhere(&client_id, SessionId(session)),
                Some(by) => {
                    let payloads = deliver.pass_on(&client_id, SessionId(session));
                    shared.passing.push(Control::PassedOn {
                        node: by.node,
                        client_id,
                        session: by.session,
                        from: session,
                        messages: payloads.iter().map(Passed::of).collect(),
                    });
                }
            }
        }
        Ok(Control::PassedOn {
            node,
            client_id,
            session,
            from,
            messages,
        }) if node == *shared.node => {
            let payloads: Vec<_> = messages.iter().filter_map(Passed::payload).collect();
            let count = payloads.len() as u64;
            if count > 0 {
                let deliver = shared.deliver.upgrade();
                let session_id = SessionId(session);
                let is_taken =
                    deliver.is_some_and(|d| d.passed_on(&client_id, session_id, payloads));
                tracing::debug!(
                    client_id,
                    session_id = session,
                    from,
                    count,
                    is_taken,
                    "Downlinks came over from the gateway that had the device"
                );
                if !is_taken {
                    shared.tell_not_passed(&client_id, count);
                }
            }
            shared.passing.came(session);
        }
        Ok(Control::Group {
            node,
            client_id,
            group,
            joins,
        }) if node == *shared.node => {
            if let Some(deliver) = shared.deliver.upgrade() {
                deliver.change_group(&client_id, &group, joins);
            }
        }
        Ok(Control::Kick {
            node,
            client_id,
            session,
            code,
            reason,
        }) if node.is_empty() || node == *shared.node => {
            if let (Some(deliver), Some(reason)) =
                (shared.deliver.upgrade(), close_reason(code, reason))
            {
                deliver.kicked_elsewhere(&client_id, SessionId(session), reason);
            }
        }
        Ok(_) => {}
        Err(error) => {
            shared.running.pushes_bad.add(1);
            tracing::debug!(%error, "A control message from Redis is not understood");
        }
    }
}

/// The close code by which another gateway is told a reason.
pub(super) fn close_code(reason: &CloseReason) -> u16 {
    reason.code().unwrap_or(1000)
}

/// The reason that a close code and a text of another gateway stand for, if hosts may give it.
fn close_reason(code: u16, reason: String) -> Option<CloseReason> {
    [CloseReason::Kicked, CloseReason::Drain]
        .into_iter()
        .find(|known| known.code() == Some(code) && known.as_str() == reason)
        .or_else(|| CloseReason::custom(code, reason))
}

/// Tells other gateways whose devices are here now. If that is refused, they learn it when they write next.
pub(super) async fn tell(
    shared: &Shared,
    mut redis: Redis,
    messages: &[Control],
) -> Result<(), LinkError> {
    if messages.is_empty() {
        return Ok(());
    }
    let mut steps = redis::pipe();
    for message in messages {
        let text = serde_json::to_vec(message).expect("texts and a number are always JSON");
        steps.cmd("PUBLISH").arg(&shared.names.control).arg(text);
    }
    match steps.exec_async(&mut redis).await.map_err(Failure::from) {
        Ok(()) => shared.works(Function::Notices),
        Err(failure) => {
            let failure = failure.of_channel(&escaped(&shared.names.control));
            shared.failed(Function::Notices, failure).await?;
        }
    }
    Ok(())
}

/// Whether an owner, written `node:session:epoch`, is this node.
pub(super) fn is_of(owner: &str, node: &str) -> bool {
    owner.split(':').next() == Some(node)
}

/// The epoch of an owner; 0 if it has none.
pub(super) fn epoch_of(owner: &str) -> u64 {
    let epoch = owner.split(':').nth(2);
    epoch.and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
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
            by: None,
        });
        assert_eq!(
            text.unwrap(),
            r#"{"op":"replaced","node":"n","client_id":"dev1","session":7}"#
        );
        let by = Some(Successor {
            node: "m".into(),
            session: 9,
        });
        let text = serde_json::to_string(&Control::Replaced {
            node: "n".into(),
            client_id: "dev1".into(),
            session: 7,
            by,
        });
        assert_eq!(
            text.unwrap(),
            r#"{"op":"replaced","node":"n","client_id":"dev1","session":7,"by":{"node":"m","session":9}}"#
        );
        for payload in [Payload::text("ä"), Payload::binary(vec![0, 255])] {
            assert_eq!(Passed::of(&payload).payload(), Some(payload));
        }
        let text = serde_json::to_string(&Control::Kick {
            node: "n".into(),
            client_id: "dev1".into(),
            session: 7,
            code: 4510,
            reason: "kicked".into(),
        });
        assert_eq!(
            text.unwrap(),
            r#"{"op":"kick","node":"n","client_id":"dev1","session":7,"code":4510,"reason":"kicked"}"#
        );
        let later = serde_json::from_str(r#"{"op":"later","client_id":"x"}"#);
        assert!(matches!(later, Ok(Control::Unknown)));
    }

    #[test]
    fn reasons_of_hosts_stay_what_they_are_on_the_way() {
        let custom = CloseReason::custom(4000, "maintenance");
        for reason in [Some(CloseReason::Kicked), Some(CloseReason::Drain), custom] {
            let reason = reason.unwrap();
            let told = close_reason(close_code(&reason), reason.as_str().to_owned());
            assert_eq!(told, Some(reason));
        }
        assert_eq!(close_reason(1006, "lost".into()), None);
    }
}
