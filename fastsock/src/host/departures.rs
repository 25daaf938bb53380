//! How devices have left lately: the last session of each, within a limit.

use std::{collections::BTreeMap, time::SystemTime};

use ahash::HashMap;

use crate::{
    locks::Mutex,
    types::{ClientId, CloseReason, SessionId},
};

/// The newest departures, one a device.
#[derive(Debug, Default)]
pub(crate) struct Departures(Mutex<Inner>);

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    pub(crate) session_id: SessionId,
    pub(crate) reason: CloseReason,
    pub(crate) connected_at: SystemTime,
    pub(crate) left_at: SystemTime,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    by_id: HashMap<ClientId, (u64, Departure)>,
    oldest_first: BTreeMap<u64, ClientId>,
}

impl Departures {
    pub(crate) fn note(&self, client_id: &ClientId, departure: Departure) {
        let mut guard = self.0.lock();
        let inner = &mut *guard;
        let number = inner.next;
        inner.next += 1;
        let before = inner.by_id.insert(client_id.clone(), (number, departure));
        if let Some((before, _)) = before {
            inner.oldest_first.remove(&before);
        }
        inner.oldest_first.insert(number, client_id.clone());
        if inner.oldest_first.len() > MOST
            && let Some((_, oldest)) = inner.oldest_first.pop_first()
        {
            inner.by_id.remove(&oldest);
        }
    }

    pub(crate) fn last(&self, client_id: &str) -> Option<Departure> {
        let inner = self.0.lock();
        inner.by_id.get(client_id).map(|(_, last)| last.clone())
    }
}

/// Some 250 bytes each beside their names.
const MOST: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_device_is_known_and_the_oldest_go() {
        let departures = Departures::default();
        let leave = |n: u64, session: u64| {
            let departure = Departure {
                session_id: SessionId(session),
                reason: CloseReason::Lost,
                connected_at: SystemTime::UNIX_EPOCH,
                left_at: SystemTime::UNIX_EPOCH,
            };
            departures.note(&ClientId::new(format!("dev{n}")).unwrap(), departure);
        };
        (0..MOST as u64).for_each(|n| leave(n, n));
        leave(0, 77);
        leave(MOST as u64, 78);
        let session = |id: &str| departures.last(id).map(|last| last.session_id.0);
        assert_eq!(session("dev0"), Some(77), "it has left again since");
        assert_eq!(session("dev1"), None);
        assert_eq!(session("dev2"), Some(2));
        let inner = departures.0.lock();
        assert_eq!((inner.by_id.len(), inner.oldest_first.len()), (MOST, MOST));
    }
}
