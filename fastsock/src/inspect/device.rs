//! One device: whether it is connected, how it is doing, and how it left.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::{
    gateway::shared::Shared,
    host::departures::Departure,
    registry::{seat::Seat, signs::SignTimes},
    types::{ClientId, CloseReason, Presence, SessionId, unix_ms},
    verbs::fleet::{self, DeviceNode},
};

/// All that a gateway knows of one device. Times are milliseconds since 1970 in JSON, durations milliseconds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DeviceStatus {
    /// Its name.
    #[serde(serialize_with = "as_str")]
    pub client_id: ClientId,
    /// Where it is connected.
    pub presence: Presence,
    /// The gateway that it is connected to, and since which session.
    pub node: Option<DeviceNode>,
    /// Its session, if it is connected here.
    pub session: Option<SessionStatus>,
    /// Messages of it that wait here to be delivered.
    pub uplinks_waiting: u64,
    /// Bytes that they count for.
    pub uplinks_waiting_bytes: u64,
    /// How its last session here ended. A gateway remembers the last 10,000 devices that left.
    pub last_disconnect: Option<Disconnect>,
}

/// A session of a device.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SessionStatus {
    /// Its number.
    #[serde(serialize_with = "number")]
    pub session_id: SessionId,
    /// Where the device connects from.
    pub remote_addr: String,
    /// The subprotocol that the gateway speaks with it; empty: none.
    pub protocol: String,
    /// When it connected.
    #[serde(rename = "connected_ms", serialize_with = "ms")]
    pub connected_at: SystemTime,
    /// When its last message came.
    #[serde(rename = "last_uplink_ms", serialize_with = "maybe_ms")]
    pub last_uplink_at: Option<SystemTime>,
    /// When its socket last took a message.
    #[serde(rename = "last_downlink_ms", serialize_with = "maybe_ms")]
    pub last_downlink_at: Option<SystemTime>,
    /// When its last pong came.
    #[serde(rename = "last_pong_ms", serialize_with = "maybe_ms")]
    pub last_pong_at: Option<SystemTime>,
    /// How long that pong took.
    #[serde(rename = "round_trip_ms", serialize_with = "millis")]
    pub round_trip: Option<Duration>,
    /// Messages that wait for its socket.
    pub outbox_messages: u64,
    /// Bytes that they count for.
    pub outbox_bytes: u64,
    /// How long its socket has taken nothing of them.
    #[serde(rename = "stalled_ms", serialize_with = "millis")]
    pub stalled: Option<Duration>,
}

/// How a session ended.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Disconnect {
    /// Which session.
    #[serde(serialize_with = "number")]
    pub session_id: SessionId,
    /// Why.
    #[serde(serialize_with = "reason")]
    pub reason: CloseReason,
    /// The close code that the gateway or the device gave, if there was one.
    pub code: Option<u16>,
    /// When it connected.
    #[serde(rename = "connected_ms", serialize_with = "ms")]
    pub connected_at: SystemTime,
    /// When it left.
    #[serde(rename = "left_ms", serialize_with = "ms")]
    pub left_at: SystemTime,
}

/// Looks at one device. Asks Redis when it is not here.
pub(crate) async fn device(shared: &Shared, client_id: &ClientId) -> DeviceStatus {
    let session = shared.registry.find(client_id.as_str());
    let session = session.map(|seat| SessionStatus::of(&seat));
    let node = fleet::node_of(shared, client_id).await;
    let presence = match (&session, &node) {
        (Some(_), _) => Presence::Here,
        (None, Some(_)) => Presence::Elsewhere,
        (None, None) => Presence::Offline,
    };
    let (messages, bytes) = shared.lanes.waiting(client_id);
    let departures = &shared.announcements.departures;
    DeviceStatus {
        client_id: client_id.clone(),
        presence,
        node,
        session,
        uplinks_waiting: messages as u64,
        uplinks_waiting_bytes: bytes as u64,
        last_disconnect: departures.last(client_id.as_str()).map(Into::into),
    }
}

impl SessionStatus {
    pub(super) fn of(seat: &Seat) -> Self {
        let (client, books) = (seat.client(), seat.books());
        let SignTimes {
            uplink,
            downlink,
            pong,
            round_trip,
        } = seat.signs.times();
        let at = |since: Option<Duration>| Some(client.connected_at + since?);
        Self {
            session_id: client.session_id,
            remote_addr: client.remote_addr.to_string(),
            protocol: seat.protocol().to_owned(),
            connected_at: client.connected_at,
            last_uplink_at: at(uplink),
            last_downlink_at: at(downlink),
            last_pong_at: at(pong),
            round_trip,
            outbox_messages: books.held,
            outbox_bytes: books.held_bytes,
            stalled: seat.stalled_since().map(|since| since.elapsed()),
        }
    }
}

impl From<Departure> for Disconnect {
    fn from(departure: Departure) -> Self {
        let Departure {
            session_id,
            reason,
            connected_at,
            left_at,
        } = departure;
        let code = match reason {
            CloseReason::ByDevice(code) => Some(code),
            ref reason => reason.code(),
        };
        Self {
            session_id,
            code,
            reason,
            connected_at,
            left_at,
        }
    }
}

fn as_str<S: Serializer>(id: &ClientId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(id.as_str())
}

fn number<S: Serializer>(id: &SessionId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(id.0)
}

fn reason<S: Serializer>(reason: &CloseReason, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(reason.as_str())
}

fn ms<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(unix_ms(*time))
}

fn maybe_ms<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    time.map(unix_ms).serialize(to)
}

/// Milliseconds with their fraction.
pub(super) fn millis<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_micros() as f64 / 1e3).serialize(to)
}
