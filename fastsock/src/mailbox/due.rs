//! Which mailboxes are to be visited. Whoever has a reason (a new session, the bell, a confirmation, a gap) says so here; visits to
//! one mailbox come one after the other.

use std::collections::VecDeque;

use ahash::HashMap;
use tokio::sync::Notify;

use super::visit::Owner;
use crate::{locks::Mutex, maps::trim, pure::kept::EntryId, types::ClientId};

/// The mailboxes to be visited.
#[derive(Debug, Default)]
pub(crate) struct Due {
    inner: Mutex<Inner>,
    has_some: Notify,
    /// Notified when nothing is to be removed any more.
    is_settled: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<ClientId>,
    states: HashMap<ClientId, State>,
    /// To be tried again once the mailboxes can be visited.
    put_off: Vec<ClientId>,
    removals: VecDeque<Removal>,
    /// How many are being made.
    removing: usize,
}

/// Where a mailbox is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    /// It is being visited.
    Busy,
    /// It is being visited, and there is a reason to come again.
    BusyAgain,
    PutOff,
}

/// What the device of a session that has ended has, and its mailbox still holds.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) owner: Owner,
    pub(crate) ids: Vec<EntryId>,
}

impl Due {
    /// There is a reason to visit the mailbox of a device.
    pub(crate) fn add(&self, client_id: &ClientId) {
        let mut inner = self.inner.lock();
        match inner.states.get_mut(client_id) {
            Some(State::Queued | State::BusyAgain | State::PutOff) => return,
            Some(state) => *state = State::BusyAgain,
            None => {
                inner.states.insert(client_id.clone(), State::Queued);
                inner.queue.push_back(client_id.clone());
            }
        }
        drop(inner);
        self.has_some.notify_one();
    }

    /// A session has ended with this confirmed.
    pub(crate) fn add_removal(&self, removal: Removal) {
        self.inner.lock().removals.push_back(removal);
        self.has_some.notify_one();
    }

    /// The next mailbox to visit; [`Due::visited`] or [`Due::put_off`] comes after it.
    pub(crate) fn next(&self) -> Option<ClientId> {
        let mut inner = self.inner.lock();
        let client_id = inner.queue.pop_front()?;
        inner.states.insert(client_id.clone(), State::Busy);
        Some(client_id)
    }

    /// The next mailbox of a session that has ended; [`Due::removed`] comes after it.
    pub(crate) fn next_removal(&self) -> Option<Removal> {
        let mut inner = self.inner.lock();
        let removal = inner.removals.pop_front()?;
        inner.removing += 1;
        Some(removal)
    }

    /// Such a visit is over.
    pub(crate) fn removed(&self) {
        let mut inner = self.inner.lock();
        inner.removing -= 1;
        if inner.is_settled() {
            self.is_settled.notify_waiters();
        }
    }

    /// A visit is over.
    pub(crate) fn visited(&self, client_id: &ClientId) {
        let mut inner = self.inner.lock();
        let Some((client_id, state)) = inner.states.remove_entry(client_id) else {
            return;
        };
        if state == State::BusyAgain {
            inner.states.insert(client_id.clone(), State::Queued);
            inner.queue.push_back(client_id);
            drop(inner);
            self.has_some.notify_one();
        } else {
            trim(&mut inner.states, ROOM);
        }
    }

    /// A visit failed: to be tried again when [`Due::resume`] says so.
    pub(crate) fn put_off(&self, client_id: &ClientId) {
        let mut inner = self.inner.lock();
        if let Some(state) = inner.states.get_mut(client_id) {
            *state = State::PutOff;
            inner.put_off.push(client_id.clone());
        }
    }

    /// What was put off is tried again.
    pub(crate) fn resume(&self) {
        let mut inner = self.inner.lock();
        let put_off = std::mem::take(&mut inner.put_off);
        if put_off.is_empty() {
            return;
        }
        for client_id in put_off {
            inner.states.insert(client_id.clone(), State::Queued);
            inner.queue.push_back(client_id);
        }
        drop(inner);
        self.has_some.notify_one();
    }

    /// Resolves when something was added. One waiter.
    pub(crate) async fn added(&self) {
        self.has_some.notified().await;
    }

    /// Resolves once all is removed that sessions which have ended had confirmed.
    pub(crate) async fn settled(&self) {
        let settled = self.is_settled.notified();
        if !self.inner.lock().is_settled() {
            settled.await;
        }
    }
}

impl Inner {
    fn is_settled(&self) -> bool {
        self.removals.is_empty() && self.removing == 0
    }
}

/// Mailboxes that there is always room for.
const ROOM: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_visited_once_at_a_time_and_again_when_there_is_a_new_reason() {
        let due = Due::default();
        let id = ClientId::new("dev").unwrap();
        due.add(&id);
        due.add(&id);
        assert_eq!((due.next(), due.next()), (Some(id.clone()), None));
        due.visited(&id);
        assert_eq!(due.next(), None);
        due.add(&id);
        assert!(due.next().is_some());
        due.add(&id);
        assert_eq!(due.next(), None, "it is being visited");
        due.visited(&id);
        assert!(due.next().is_some());
        due.put_off(&id);
        due.add(&id);
        assert_eq!(due.next(), None, "put off");
        due.resume();
        assert!(due.next().is_some());
    }
}
