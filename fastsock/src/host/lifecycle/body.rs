//! The JSON that tells of an event.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Serialize, Serializer};

use super::debounce::Stay;
use crate::{
    context::{Context, Metadata},
    remote_addr::RemoteAddr,
    types::{ClientId, unix_ms},
};

/// The body of an event's POST.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Body<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remote_addr: Option<RemoteAddr>,
    pub(super) node: &'a str,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sessions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost_node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<&'a str>,
    #[serde(flatten)]
    pub(super) context: Option<ContextFields<'a>>,
}

/// What is known of a session, as fields of its events.
#[derive(Clone, Copy, Serialize)]
pub(super) struct ContextFields<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    connected_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
    #[serde(skip_serializing_if = "Headers::is_empty")]
    headers: Headers<'a>,
}

/// Headers of the device's request, as an object of lists.
#[derive(Clone, Copy)]
pub(super) struct Headers<'a>(&'a [(String, String)]);

impl Headers<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut lists = BTreeMap::<&str, Vec<&str>>::new();
        for (name, value) in self.0 {
            lists.entry(name).or_default().push(value);
        }
        lists.serialize(serializer)
    }
}

impl<'a> From<&'a Context> for ContextFields<'a> {
    fn from(context: &'a Context) -> Self {
        Self {
            path: &context.path,
            protocol: context.subprotocol.as_deref(),
            connected_at: unix_ms(context.connected_at),
            metadata: context.metadata.as_ref(),
            headers: Headers(&context.headers),
        }
    }
}

impl<'a> Body<'a> {
    pub(super) fn of(
        kind: &'a str,
        client_id: &'a ClientId,
        stay: &'a Stay,
        time: SystemTime,
    ) -> Self {
        Self {
            kind,
            client_id: Some(client_id.as_str()),
            session_id: Some(stay.session_id.0),
            remote_addr: Some(stay.remote_addr),
            epoch: stay.epoch,
            route: stay.route.as_deref(),
            context: stay.context.as_deref().map(ContextFields::from),
            time: unix_ms(time),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SessionId;

    fn id(text: &str) -> ClientId {
        ClientId::new(text).unwrap()
    }

    fn stay(session: u64) -> Stay {
        Stay {
            session_id: SessionId(session),
            remote_addr: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            epoch: session,
            route: None,
            context: None,
        }
    }

    #[test]
    fn an_event_has_its_documented_form() {
        let dev = id("dev");
        let stay = stay(7);
        let event = Body {
            node: "n1",
            seq: 4,
            cause: Some("connection_lost"),
            duration_ms: Some(1500),
            sessions: Some(2),
            ..Body::of("disconnect", &dev, &stay, SystemTime::UNIX_EPOCH)
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"type":"disconnect","client_id":"dev","session_id":7,"remote_addr":"127.0.0.1:1","node":"n1","epoch":7,"seq":4,"time":0,"cause":"connection_lost","duration_ms":1500,"sessions":2}"#
        );
    }
}
