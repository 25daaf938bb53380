//! What all outboxes hold beyond their own bounds: one bound for it together, and who holds the most. No lock and no I/O.
//!
//! Below its own bounds an outbox has nothing here, and nothing here is asked.

use std::collections::BTreeMap;

use ahash::HashMap;

use crate::{
    maps::trim,
    types::{ClientId, Payload, SessionId},
};

/// What all outboxes hold beyond their own bounds.
#[derive(Debug)]
pub(crate) struct Surpluses {
    max_bytes: usize,
    /// A payload that several outboxes hold counts once.
    bytes: usize,
    /// How many outboxes hold a payload, of those that more than one might: by where its bytes are.
    shared: HashMap<(usize, usize), usize>,
    /// Who holds how much, the most last.
    holders: BTreeMap<(usize, SessionId), ClientId>,
}

impl Surpluses {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            bytes: 0,
            shared: HashMap::default(),
            holders: BTreeMap::new(),
        }
    }

    /// Bytes in all of them.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it takes nothing more. Below its bound it takes one more message, whatever its size.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.max_bytes
    }

    /// An outbox holds this beyond its bounds from now on.
    pub(crate) fn enter(&mut self, payload: &Payload) {
        self.bytes += payload.cost();
        // What nobody else holds now stays so: an outbox does not give it to another.
        if !payload.as_bytes().is_unique() {
            let holders = self.shared.entry(place(payload)).or_default();
            *holders += 1;
            if *holders > 1 {
                self.bytes -= payload.len();
            }
        }
    }

    /// An outbox holds this beyond its bounds no more.
    pub(crate) fn leave(&mut self, payload: &Payload) {
        self.bytes -= payload.cost();
        let place = place(payload);
        if let Some(holders) = self.shared.get_mut(&place) {
            *holders -= 1;
            if *holders > 0 {
                self.bytes += payload.len();
            } else {
                self.shared.remove(&place);
                trim(&mut self.shared, ROOM);
            }
        }
    }

    /// What a session holds of it has changed.
    pub(crate) fn resize(
        &mut self,
        client_id: &ClientId,
        session_id: SessionId,
        before: usize,
        after: usize,
    ) {
        if before == after {
            return;
        }
        let client_id = match self.holders.remove(&(before, session_id)) {
            Some(client_id) => client_id,
            None => client_id.clone(),
        };
        if after > 0 {
            self.holders.insert((after, session_id), client_id);
        }
    }

    /// Whether nobody else would hold more than this session with so many bytes.
    pub(crate) fn is_largest(&self, session_id: SessionId, bytes: usize) -> bool {
        let mut others = self.holders.keys().rev();
        others
            .find(|(_, id)| *id != session_id)
            .is_none_or(|(most, _)| *most <= bytes)
    }

    /// Who is to give something up: nobody while it is not full, else whoever holds the most.
    pub(crate) fn debtor(&self) -> Option<(ClientId, SessionId)> {
        let ((_, session_id), client_id) = self.holders.last_key_value()?;
        self.is_full().then(|| (client_id.clone(), *session_id))
    }
}

/// Where the bytes of a payload are. No other payload has the same while this one is held, but for its clones.
fn place(payload: &Payload) -> (usize, usize) {
    (payload.as_bytes().as_ptr().addr(), payload.len())
}

/// Shared payloads that there is always room for.
const ROOM: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_several_hold_counts_once_and_each_of_its_places_for_itself() {
        let mut all = Surpluses::new(10_000);
        let shared = Payload::text("x".repeat(1000));
        let alone = Payload::text("y".repeat(1000));
        let clones = [shared.clone(), shared.clone(), shared];
        for payload in &clones {
            all.enter(payload);
        }
        all.enter(&alone);
        assert_eq!(all.bytes(), 2 * 1000 + 4 * (alone.cost() - 1000));
        for (clone, left) in clones.iter().zip([3, 2, 1]) {
            all.leave(clone);
            let is_gone = left == 1;
            let payloads = if is_gone { 1000 } else { 2000 };
            assert_eq!(all.bytes(), payloads + left * (alone.cost() - 1000));
        }
        all.leave(&alone);
        assert_eq!((all.bytes(), all.shared.len()), (0, 0));
    }

    #[test]
    fn who_holds_the_most_is_the_debtor_of_a_full_total() {
        let mut all = Surpluses::new(1000);
        let id = |n: u64| (ClientId::new(format!("dev{n}")).unwrap(), SessionId(n));
        for n in 1..=3 {
            let (client_id, session_id) = id(n);
            all.resize(&client_id, session_id, 0, 100 * n as usize);
        }
        assert_eq!(all.debtor(), None);
        all.bytes = 1000;
        assert_eq!(all.debtor(), Some(id(3)));
        assert!(all.is_largest(SessionId(1), 300) && !all.is_largest(SessionId(1), 299));
        assert!(all.is_largest(SessionId(3), 200));
        all.resize(&id(3).0, SessionId(3), 300, 50);
        assert_eq!(all.debtor(), Some(id(2)));
        for (n, held) in [(1, 100), (2, 200), (3, 50)] {
            all.resize(&id(n).0, SessionId(n), held, 0);
        }
        assert_eq!(all.debtor(), None);
    }
}
