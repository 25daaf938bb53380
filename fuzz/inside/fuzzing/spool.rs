//! What is found in a spool after a restart, or in one that others write to.

use super::choice;
use crate::{spool::record, types::ClientId};

/// A record or a dead letter is read or refused; one that is read is written as the same bytes, and its text is text.
pub fn spool_record(bytes: &[u8]) {
    let (choice, bytes) = choice(bytes);
    if choice & 1 == 1 {
        if let Some(letter) = record::read_letter(bytes) {
            let again = record::read_letter(&record::write_letter(&letter)).expect("a letter");
            assert_eq!(format!("{again:?}"), format!("{letter:?}"));
        }
        return;
    }
    let client_id = ClientId::new("dev1").expect("a name");
    let Some(uplink) = record::read(client_id, bytes) else {
        return;
    };
    assert!(!uplink.payload.is_text() || std::str::from_utf8(uplink.payload.as_bytes()).is_ok());
    let mut again = vec![0; record::len(&uplink)];
    record::write(&uplink, &mut again);
    assert_eq!(again, bytes);
}
