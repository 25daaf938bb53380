//! What a device says under the subprotocol `fastsock.v1.ack`.

use crate::{pure::envelope, types::LostReason};

/// A message is opened or refused; what is opened has an id, and each answer to it is JSON that names it.
pub fn ack_envelope(bytes: &[u8]) {
    let Some(opened) = envelope::open(bytes) else {
        return;
    };
    assert!(!opened.id.is_empty());
    let ack = envelope::ack(&opened.id);
    let nack = envelope::nack(&opened.id, LostReason::Full);
    for (answer, field) in [(ack, "ack"), (nack, "nack")] {
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(answer[field], opened.id.as_str());
    }
    let wrapped = envelope::wrap(&opened.payload, None);
    let down: serde_json::Value = serde_json::from_slice(wrapped.as_bytes()).expect("JSON");
    assert!(down["data"].is_string() && wrapped.is_text());
    if opened.payload.is_text() {
        assert_eq!(
            down["data"].as_str().map(str::as_bytes),
            Some(&opened.payload.as_bytes()[..])
        );
    }
}
