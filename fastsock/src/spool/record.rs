//! How an uplink and a dead letter become bytes, and bytes become them again; no I/O.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    context::Context,
    types::{ClientId, DeadLetter, LostReason, Payload, SessionId, Uplink},
};

/// Bytes of an uplink before its payload: version, kind, session, seq, id, microseconds since 1970.
pub(crate) const HEAD_BYTES: usize = 1 + 1 + 8 + 8 + 16 + 8;

/// What an uplink takes as bytes. Before its payload come, where it has them, its epoch, the time of its replay, in microseconds, and
/// what is known of its session: the length of that, and JSON.
pub(crate) fn len(uplink: &Uplink) -> usize {
    let epoch = if uplink.epoch == 0 { 0 } else { EPOCH_BYTES };
    let replayed = uplink.replayed_at.map_or(0, |_| TIME_BYTES);
    let context = uplink.context.as_ref();
    let context = context.map_or(0, |context| LENGTH_BYTES + context.record().len());
    HEAD_BYTES + epoch + replayed + context + uplink.payload.len()
}

/// Writes all but the client id, which is its key, into [`len`] bytes.
///
/// # Panics
/// When `out` has another length.
pub(crate) fn write(uplink: &Uplink, out: &mut [u8]) {
    let (head, mut payload) = out.split_at_mut(HEAD_BYTES);
    head[0] = VERSION;
    head[1] = u8::from(uplink.payload.is_text());
    if uplink.epoch != 0 {
        head[1] |= WITH_EPOCH;
        let (epoch, rest) = payload.split_at_mut(EPOCH_BYTES);
        epoch.copy_from_slice(&uplink.epoch.to_be_bytes());
        payload = rest;
    }
    if let Some(at) = uplink.replayed_at {
        head[1] |= REPLAYED;
        let (time, rest) = payload.split_at_mut(TIME_BYTES);
        time.copy_from_slice(&micros(at).to_be_bytes());
        payload = rest;
    }
    if let Some(context) = &uplink.context {
        head[1] |= CONTEXT;
        let record = context.record();
        let length = u32::try_from(record.len()).expect("a request head is short");
        let (start, rest) = payload.split_at_mut(LENGTH_BYTES);
        start.copy_from_slice(&length.to_be_bytes());
        let (context, rest) = rest.split_at_mut(record.len());
        context.copy_from_slice(record);
        payload = rest;
    }
    head[2..10].copy_from_slice(&uplink.session_id.0.to_be_bytes());
    head[10..18].copy_from_slice(&uplink.seq.to_be_bytes());
    head[18..34].copy_from_slice(uplink.id.as_bytes());
    head[34..42].copy_from_slice(&micros(uplink.received_at).to_be_bytes());
    payload.copy_from_slice(uplink.payload.as_bytes());
}

/// Reads what [`write`] wrote; `None` when it is nothing of the kind.
pub(crate) fn read(client_id: ClientId, bytes: &[u8]) -> Option<Uplink> {
    let (head, mut payload) = bytes.split_at_checked(HEAD_BYTES)?;
    if head[0] != VERSION {
        return None;
    }
    let mut epoch = 0;
    if head[1] & WITH_EPOCH != 0 {
        let (of_session, rest) = payload.split_at_checked(EPOCH_BYTES)?;
        epoch = u64::from_be_bytes(of_session.try_into().ok()?);
        (epoch != 0).then_some(())?;
        payload = rest;
    }
    let mut replayed_at = None;
    if head[1] & REPLAYED != 0 {
        let (at, rest) = payload.split_at_checked(TIME_BYTES)?;
        replayed_at = Some(time(u64::from_be_bytes(at.try_into().ok()?)));
        payload = rest;
    }
    let mut context = None;
    if head[1] & CONTEXT != 0 {
        let (length, rest) = payload.split_first_chunk::<LENGTH_BYTES>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (record, rest) = rest.split_at_checked(length)?;
        context = Some(Arc::new(Context::from_record(record)?));
        payload = rest;
    }
    let content = Bytes::copy_from_slice(payload);
    let payload = match head[1] & !(REPLAYED | CONTEXT | WITH_EPOCH) {
        0 => Payload::binary(content),
        1 if std::str::from_utf8(&content).is_ok() => Payload::checked_text(content),
        _ => return None,
    };
    let number = |from: usize| Some(u64::from_be_bytes(head[from..from + 8].try_into().ok()?));
    Some(Uplink {
        client_id,
        session_id: SessionId(number(2)?),
        epoch,
        seq: number(10)?,
        payload,
        id: Uuid::from_bytes(head[18..34].try_into().ok()?),
        received_at: time(number(34)?),
        context,
        replayed_at,
    })
}

/// A dead letter as bytes: the length of its notes, the notes as JSON, its uplink.
pub(crate) fn write_letter(letter: &DeadLetter) -> Vec<u8> {
    let notes = Notes {
        client_id: letter.uplink.client_id.as_str().into(),
        reason: letter.reason.as_str().into(),
        status: letter.status,
        error: letter.error.clone(),
        attempts: letter.attempts,
        first_attempt_us: letter.first_attempt_at.map(micros),
        last_attempt_us: letter.last_attempt_at.map(micros),
        given_up_us: micros(letter.given_up_at),
        headers: letter.headers.clone(),
    };
    let notes = serde_json::to_vec(&notes).expect("texts and numbers are JSON");
    let mut bytes = u32::try_from(notes.len())
        .expect("a client id, an error and some headers")
        .to_be_bytes()
        .to_vec();
    bytes.extend(notes);
    let start = bytes.len();
    bytes.resize(start + len(&letter.uplink), 0);
    write(&letter.uplink, &mut bytes[start..]);
    bytes
}

/// Reads what [`write_letter`] wrote; `None` when it is nothing of the kind.
pub(crate) fn read_letter(bytes: &[u8]) -> Option<DeadLetter> {
    let (count, rest) = bytes.split_at_checked(4)?;
    let count = u32::from_be_bytes(count.try_into().ok()?) as usize;
    let (notes, uplink) = rest.split_at_checked(count)?;
    let notes: Notes = serde_json::from_slice(notes).ok()?;
    Some(DeadLetter {
        uplink: read(ClientId::new(notes.client_id)?, uplink)?,
        reason: LostReason::ALL
            .into_iter()
            .find(|reason| reason.as_str() == notes.reason)?,
        status: notes.status,
        error: notes.error,
        attempts: notes.attempts,
        first_attempt_at: notes.first_attempt_us.map(time),
        last_attempt_at: notes.last_attempt_us.map(time),
        given_up_at: time(notes.given_up_us),
        headers: notes.headers,
    })
}

/// What a dead letter says beside its uplink.
#[derive(Serialize, Deserialize)]
struct Notes {
    client_id: String,
    reason: String,
    status: Option<u16>,
    error: String,
    attempts: u32,
    first_attempt_us: Option<u64>,
    last_attempt_us: Option<u64>,
    given_up_us: u64,
    headers: Vec<(String, String)>,
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn time(micros: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_micros(micros))
        .unwrap_or(UNIX_EPOCH)
}

/// Set in the kind of an uplink that was replayed.
const REPLAYED: u8 = 2;
/// Set in the kind of one with something known of its session.
const CONTEXT: u8 = 4;
const LENGTH_BYTES: usize = 4;
/// Set in the kind of an uplink with an epoch, which is never 0: all but those that an older version wrote.
const WITH_EPOCH: u8 = 8;
const EPOCH_BYTES: usize = 8;
const TIME_BYTES: usize = 8;
/// Of the layout; another one is not read.
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn uplink(payload: Payload) -> Uplink {
        let client_id = ClientId::new("dev:1").unwrap();
        let mut uplink = Uplink::new(client_id, SessionId(7), 9, payload);
        uplink.received_at = time(micros(uplink.received_at)); // to the microsecond
        uplink
    }

    fn assert_same(a: &Uplink, b: &Uplink) {
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
        assert_eq!(a.payload, b.payload);
    }

    #[test]
    fn an_uplink_reads_back() {
        for payload in [
            Payload::text("hé"),
            Payload::text(""),
            Payload::binary(vec![0xff, 0]),
        ] {
            let mut uplink = uplink(payload);
            let mut context =
                Context::new("/ocpp/CP1", std::net::IpAddr::from([127, 0, 0, 1]).into());
            context.connected_at = time(5_000_000);
            context.subprotocol = Some("ocpp1.6".into());
            let context = Some(Arc::new(context));
            for (epoch, replayed_at, context) in [
                (0, None, None),
                (9, Some(time(5_000_000)), None),
                (9, None, context.clone()),
                (9, Some(time(5_000_000)), context),
            ] {
                uplink.epoch = epoch;
                uplink.replayed_at = replayed_at;
                uplink.context = context;
                let mut bytes = vec![0; len(&uplink)];
                write(&uplink, &mut bytes);
                let read = read(uplink.client_id.clone(), &bytes).unwrap();
                assert_same(&read, &uplink);
                assert_eq!(read.context, uplink.context);
            }
        }
    }

    #[test]
    fn other_bytes_are_no_uplink() {
        let uplink = uplink(Payload::text("x"));
        let mut bytes = vec![0; len(&uplink)];
        write(&uplink, &mut bytes);
        for (at, value) in [(0, 2), (1, 7)] {
            let mut other = bytes.clone();
            other[at] = value;
            assert!(read(uplink.client_id.clone(), &other).is_none());
        }
        assert!(read(uplink.client_id.clone(), &bytes[..HEAD_BYTES - 1]).is_none());
    }

    #[test]
    fn a_dead_letter_reads_back() {
        let letter = DeadLetter {
            uplink: uplink(Payload::binary(vec![0, 1, 2])),
            reason: LostReason::Poison,
            status: Some(500),
            error: "Request failed with status code 500".into(),
            attempts: 8,
            first_attempt_at: Some(time(5)),
            last_attempt_at: None,
            given_up_at: time(6),
            headers: vec![("idempotency-key".into(), "x".into())],
        };
        let bytes = write_letter(&letter);
        let read = read_letter(&bytes).unwrap();
        assert_same(&read.uplink, &letter.uplink);
        assert_eq!(format!("{read:?}"), format!("{letter:?}"));
        assert!(read_letter(&bytes[..20]).is_none());
    }
}
