//! `fastsock_dead_letters`: uplinks that were given up and kept, as a list to walk through.

use std::ffi::{c_char, c_void};

use fastsock::DeadLetter;
use macro_rules_attribute::apply;
use safer_ffi::derive_ReprC;
use uuid::Uuid;

use crate::{
    bridge::fastsock_bridge,
    guard::c_abi,
    sized::{whole, write_sized},
    status::{Failure, fastsock_status},
    text::{self, fastsock_kind, fastsock_str, unix_ms},
};

/// A part of the dead letters, as they were at one moment.
#[derive_ReprC]
#[repr(opaque)]
#[derive(Debug)]
pub struct fastsock_dead_letters {
    rows: std::vec::IntoIter<DeadLetter>,
    current: Option<(DeadLetter, String)>,
}

/// One dead letter. What it points to is valid until the next call for the same list.
#[derive_ReprC]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct fastsock_dead_letter {
    /// The UUID of the uplink, which was the Idempotency-Key of every attempt. The other calls take it as the id of the letter.
    pub id: fastsock_str,
    /// The device that sent it.
    pub client_id: fastsock_str,
    /// Why the bridge gave it up: "rejected", "poison" or "too_old".
    pub reason: fastsock_str,
    /// What went wrong in the last attempt, in words.
    pub error: fastsock_str,
    /// The message.
    pub data: fastsock_str,
    /// The fastsock_kind of the message.
    pub kind: u32,
    /// The HTTP status of the last attempt; 0 when the backend did not answer.
    pub status: u32,
    /// POSTs made of it since this process took it or found it in the spool.
    pub attempts: u32,
    /// 0.
    pub reserved: u32,
    /// The session over which it came.
    pub session_id: u64,
    /// Its number within the session, from 1.
    pub seq: u64,
    /// When the bridge read it, in milliseconds since 1970.
    pub received_ms: u64,
    /// When its first attempt began, in milliseconds since 1970; 0 when there was none.
    pub first_attempt_ms: u64,
    /// When its last attempt ended, in milliseconds since 1970; 0 when there was none.
    pub last_attempt_ms: u64,
    /// When the bridge gave it up, in milliseconds since 1970.
    pub given_up_ms: u64,
}

/// Lists dead letters: uplinks that the bridge gave up and keeps, in the order in which it received them. At most `limit` (1 to
/// 1000) after the letter `after`; (NULL, 0) begins with the first. The memory spool keeps the newest 1,000, of at most
/// 1 MiB, until the process ends. Blocks for at most 10 s. IO or BROKER when a durable spool fails or does not answer. Free the
/// list with fastsock_dead_letters_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_dead_letters(
    bridge: Option<&fastsock_bridge>,
    after: *const c_char,
    after_len: usize,
    limit: usize,
    letters: *mut *mut fastsock_dead_letters,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let out = unsafe { text::out(letters, "letters") }?;
    let after = match after.is_null() && after_len == 0 {
        true => None,
        // SAFETY: by contract.
        false => Some(unsafe { letter_id(after, after_len, "after") }?),
    };
    let limit = page(limit)?;
    out.put(boxed(entered.core.dead_letters(after, limit)?));
    Ok(())
}

/// Gives one dead letter as JSON, with the headers of its last POST; BINARY data is base64 with "encoding":"base64" beside it.
/// Blocks and fails as fastsock_bridge_dead_letters, and NOT_FOUND. Free it with fastsock_string_free.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_dead_letter_json(
    bridge: Option<&fastsock_bridge>,
    id: *const c_char,
    id_len: usize,
    json: *mut *mut c_char,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let (out, id) = unsafe { (text::out(json, "json")?, letter_id(id, id_len, "id")?) };
    let letter = entered.core.dead_letter(id)?;
    found(letter.is_some(), id)?;
    let letter = serde_json::to_vec(&letter)
        .map_err(|e| Failure::new(fastsock_status::OTHER, e.to_string()))?;
    out.put(text::give(letter)?);
    Ok(())
}

/// Delivers a dead letter again, behind all that its device has waiting, under the same Idempotency-Key. OK when the spool has
/// it as an uplink. Blocks and fails as fastsock_bridge_dead_letters, and NOT_FOUND, STOPPED.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_replay_dead_letter(
    bridge: Option<&fastsock_bridge>,
    id: *const c_char,
    id_len: usize,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let id = unsafe { letter_id(id, id_len, "id") }?;
    found(entered.core.replay_dead_letter(id)?, id)
}

/// Drops a dead letter for good. Blocks and fails as fastsock_bridge_dead_letters, and NOT_FOUND.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_bridge_drop_dead_letter(
    bridge: Option<&fastsock_bridge>,
    id: *const c_char,
    id_len: usize,
) -> fastsock_status {
    let entered = fastsock_bridge::enter(bridge)?;
    // SAFETY: by contract.
    let id = unsafe { letter_id(id, id_len, "id") }?;
    found(entered.core.drop_dead_letter(id)?, id)
}

/// Gives the next letter; `letter_size` is sizeof(fastsock_dead_letter) in your build. END after the last.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_dead_letters_next(
    letters: Option<&mut fastsock_dead_letters>,
    letter: *mut fastsock_dead_letter,
    letter_size: usize,
) -> fastsock_status {
    let letters = letters.ok_or_else(|| Failure::null("letters"))?;
    if letter.is_null() {
        return Err(Failure::null("letter"));
    }
    whole(letter_size, size_of::<fastsock_dead_letter>(), "letter")?;
    let next = letters.rows.next().ok_or_else(Failure::end)?;
    let id = next.uplink.id.to_string();
    let (next, id) = letters.current.insert((next, id));
    let view = fastsock_dead_letter::of(next, id);
    // SAFETY: by contract `letter_size` bytes can be written.
    unsafe { write_sized(&view, letter, letter_size) };
    Ok(())
}

/// Gives the number of letters that are left in the list.
#[apply(c_abi)]
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_dead_letters_len(
    letters: Option<&fastsock_dead_letters>,
    len: *mut usize,
) -> fastsock_status {
    let letters = letters.ok_or_else(|| Failure::null("letters"))?;
    // SAFETY: by contract.
    let out = unsafe { text::out(len, "len") }?;
    out.put(letters.rows.len());
    Ok(())
}

/// Frees a list. NULL is nothing to free.
#[apply(c_abi)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fastsock_dead_letters_free(
    letters: *mut fastsock_dead_letters,
) -> fastsock_status {
    if !letters.is_null() {
        // SAFETY: by contract it came from `boxed` and is not used again.
        drop(unsafe { Box::from_raw(letters) });
    }
    Ok(())
}

impl fastsock_dead_letter {
    fn of(letter: &DeadLetter, id: &str) -> Self {
        let uplink = &letter.uplink;
        let kind = match uplink.payload.is_text() {
            true => fastsock_kind::TEXT,
            false => fastsock_kind::BINARY,
        };
        Self {
            id: fastsock_str::of(id),
            client_id: fastsock_str::of(uplink.client_id.as_str()),
            reason: fastsock_str::of(letter.reason.as_str()),
            error: fastsock_str::of(&letter.error),
            data: fastsock_str::of(uplink.payload.as_bytes()),
            kind: kind as u32,
            status: letter.status.unwrap_or_default().into(),
            attempts: letter.attempts,
            reserved: 0,
            session_id: uplink.session_id.0,
            seq: uplink.seq,
            received_ms: unix_ms(uplink.received_at),
            first_attempt_ms: letter.first_attempt_at.map_or(0, unix_ms),
            last_attempt_ms: letter.last_attempt_at.map_or(0, unix_ms),
            given_up_ms: unix_ms(letter.given_up_at),
        }
    }
}

fn boxed(letters: Vec<DeadLetter>) -> *mut fastsock_dead_letters {
    Box::into_raw(Box::new(fastsock_dead_letters {
        rows: letters.into_iter(),
        current: None,
    }))
}

/// How many letters one list may have.
fn page(limit: usize) -> Result<usize, Failure> {
    match limit {
        1..=MAX_LISTED => Ok(limit),
        _ => Err(Failure::argument(format!(
            "limit: {limit} is not allowed; give 1 to {MAX_LISTED}"
        ))),
    }
}

/// The id of a letter.
///
/// # Safety
/// As [`text::bytes`].
unsafe fn letter_id(ptr: *const c_char, len: usize, what: &str) -> Result<Uuid, Failure> {
    // SAFETY: the same contract.
    let bytes = unsafe { text::bytes(ptr.cast::<c_void>(), len, what) }?;
    Uuid::try_parse_ascii(bytes)
        .map_err(|_| Failure::argument(format!("{what}: give the UUID of a dead letter")))
}

/// Success if there was such a letter.
fn found(was_there: bool, id: Uuid) -> Result<(), Failure> {
    match was_there {
        true => Ok(()),
        false => Err(Failure::new(
            fastsock_status::NOT_FOUND,
            format!("there is no dead letter {id}"),
        )),
    }
}

const MAX_LISTED: usize = DeadLetter::MAX_LISTED;
