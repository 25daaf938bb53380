//! What a host hands to the threads of its bridge together, so that they are woken once for all of it.

use std::{cell::Cell, fmt, mem::take, task::Waker};

use crate::{
    hooks::{Answer, UplinkAction},
    types::Ticket,
};

/// What a host answers and sends in one turn of its loop, for [`Bridge::hand_over`](crate::Bridge::hand_over).
///
/// Each answer and each message to a device wakes the task of a session, and to wake a thread for each of them costs more than what
/// the thread then does.
#[derive(Default)]
pub struct Handover {
    pub(crate) answers: Vec<(Ticket, Answer)>,
    /// How many of them go back to the device.
    pub(crate) replies: usize,
    /// Tasks of sessions.
    pub(crate) woken: Vec<Waker>,
}

impl Handover {
    /// Adds an answer. One that comes too late has no effect.
    pub fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let is_reply = matches!(answer, Answer::Uplink(UplinkAction::Reply(_)));
        self.replies += usize::from(is_reply);
        self.answers.push((ticket, answer));
    }

    /// Makes a call that sends or answers at once. Only the tasks that it would wake sleep on until the handover.
    pub fn during<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let outer = set(Some(take(&mut self.woken)));
        let _holding = Holding(&mut self.woken, outer);
        call()
    }

    pub(crate) fn append(&mut self, more: &mut Self) {
        self.answers.append(&mut more.answers);
        self.replies += take(&mut more.replies);
        self.woken.append(&mut more.woken);
    }

    /// Whether an answer in it goes back to a device.
    pub fn has_replies(&self) -> bool {
        self.replies > 0
    }

    /// Whether there is nothing to hand over.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.woken.is_empty()
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answers, woken) = (self.answers.len(), self.woken.len());
        write!(f, "Handover({answers} answers, {woken} tasks)")
    }
}

/// Wakes a task now, or at the handover if this thread is in a call of [`Handover::during`].
pub(crate) fn wake(waker: &Waker) {
    match set(None) {
        None => waker.wake_by_ref(),
        Some(mut woken) => {
            woken.push(waker.clone());
            set(Some(woken));
        }
    }
}

thread_local! {
    /// Tasks that the call of this thread would have woken. Set only while the call is made.
    static WOKEN: Cell<Option<Vec<Waker>>> = const { Cell::new(None) };
}

/// Nothing, too, on a thread that has all but ended.
fn set(woken: Option<Vec<Waker>>) -> Option<Vec<Waker>> {
    WOKEN.try_with(|cell| cell.replace(woken)).ok().flatten()
}

/// Takes back what was held, also when the call panics.
struct Holding<'a>(&'a mut Vec<Waker>, Option<Vec<Waker>>);

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        *self.0 = set(self.1.take()).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn whom_a_call_wakes_sleeps_until_the_handover_also_after_a_panic() {
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        let (mut outer, mut inner) = (Handover::default(), Handover::default());
        outer.during(|| {
            wake(&waker);
            inner.during(|| wake(&waker));
            wake(&waker);
        });
        let panics = || {
            outer.during(|| {
                wake(&waker);
                assert_ne!(task.0.load(Relaxed), 0, "as meant");
            })
        };
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!((outer.woken.len(), inner.woken.len()), (3, 1));
        assert_eq!(task.0.load(Relaxed), 0);
        wake(&waker); // nothing is held any more
        assert_eq!(task.0.load(Relaxed), 1);
    }
}
