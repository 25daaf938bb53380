//! A turn of an event loop: it drains events and calls hooks. What these answer and send at once goes to the threads of the bridge
//! together, at the end of the turn: to wake a thread for each of them costs more than what it then does.

use std::{
    thread::{ThreadId, current},
    time::{Duration, Instant},
};

use fastsock::{Answer, Bridge, Handover, Ticket};

use crate::{locks::Mutex, run::Run};

/// The turn of a loop, while there is one.
#[derive(Default)]
pub(crate) struct Turns(Mutex<Option<Turn>>);

struct Turn {
    thread: ThreadId,
    /// When it began, or handed over last.
    since: Instant,
    handover: Handover,
}

impl Turns {
    /// Begins a turn of this thread, which ends when the result is dropped.
    pub(crate) fn begin<'a>(&'a self, run: &'a Run) -> Begun<'a> {
        let turn = Turn {
            thread: current().id(),
            since: Instant::now(),
            handover: Handover::default(),
        };
        // There is one already if its hook runs the loop, as nest_asyncio does.
        let outer = self.0.lock().replace(turn);
        hand_over(outer, run);
        Begun { turns: self, run }
    }

    /// Makes a call of the bridge that sends.
    pub(crate) fn during<T>(&self, call: impl FnOnce() -> T) -> T {
        self.with(|handover| match handover {
            Some(handover) => handover.during(call),
            None => call(),
        })
    }

    /// Takes an answer about an uplink; gives it back when this thread is in no turn.
    pub(crate) fn take(&self, ticket: Ticket, answer: Answer) -> Option<Answer> {
        self.with(|handover| match handover {
            Some(handover) => {
                handover.answer(ticket, answer);
                None
            }
            None => Some(answer),
        })
    }

    /// Sees to it that devices get what hooks have replied before what is done next.
    pub(crate) fn finish_replies(&self, bridge: &Bridge) {
        if let Some(turn) = &mut *self.0.lock()
            && turn.handover.has_replies()
        {
            bridge.hand_over(&mut turn.handover);
        }
        bridge.finish_replies();
    }

    /// `None` when this thread is in no turn. Nothing in `use_it` comes back here.
    fn with<T>(&self, use_it: impl FnOnce(Option<&mut Handover>) -> T) -> T {
        let mut turn = self.0.lock();
        let own = turn.as_mut().filter(|turn| turn.thread == current().id());
        use_it(own.map(|turn| &mut turn.handover))
    }
}

/// A turn that goes on.
pub(crate) struct Begun<'a> {
    turns: &'a Turns,
    run: &'a Run,
}

impl Begun<'_> {
    /// Hands over when hooks take their time, so that no device waits for the hooks of many others.
    pub(crate) fn look(&self) {
        if let Some(turn) = &mut *self.turns.0.lock()
            && turn.since.elapsed() >= MOST
            && self.run.is_ours()
        {
            self.run.handle.hand_over(&mut turn.handover);
            turn.since = Instant::now();
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let turn = self.turns.0.lock().take();
        hand_over(turn, self.run);
    }
}

/// Not in a child that a hook has forked: a thread that it does not have may hold a lock.
fn hand_over(turn: Option<Turn>, run: &Run) {
    if let Some(mut turn) = turn.filter(|_| run.is_ours()) {
        run.handle.hand_over(&mut turn.handover);
    }
}

/// Hooks of many devices return within that time.
const MOST: Duration = Duration::from_micros(500);
