//! Gathers messages of several devices for one POST.
//!
//! Each message is brought by a worker that waits for what becomes of it. One of them makes the POST for all. A lane has one
//! message on its way, so a batch holds one of each device and keeps every order.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::sleep,
};

use super::Attempt;
use crate::types::Uplink;

/// Where messages wait for each other.
pub(super) struct Batches {
    wait: Duration,
    /// By the number of the attempt: each holds half as many as the one before, so that a message that makes its batches
    /// fail comes to be on its own.
    levels: Vec<Mutex<Level>>,
    posts: Mutex<usize>,
    /// With which status each message of a batch was refused, alone too, since when nothing was delivered. Then it is not for
    /// the sake of one of them that a batch is refused, and smaller ones are none the better.
    refuses_all: Mutex<Option<u16>>,
    /// No POST is in flight any more.
    is_quiet: Notify,
}

struct Level {
    most: usize,
    members: Vec<Member>,
    bytes: usize,
    /// How many batches have left.
    departures: u64,
}

/// A message in a batch.
pub(super) struct Member {
    pub(super) uplink: Uplink,
    pub(super) number: u32,
    told: oneshot::Sender<Attempt>,
}

/// What it falls to a worker to do.
pub(super) enum Turn {
    /// POST these; its own message is among them.
    Post(Vec<Member>),
    /// Nothing: another has done it.
    Told(Attempt),
}

/// A POST in flight.
pub(super) struct Posting<'a>(&'a Batches);

impl Batches {
    /// Batches of at most so many messages, gathered for at most so long.
    pub(super) fn new(most: usize, wait: Duration) -> Self {
        let sizes = std::iter::successors(Some(most), |most| (*most > 1).then_some(most / 2));
        let level = |most| {
            Mutex::new(Level {
                most,
                members: Vec::new(),
                bytes: 0,
                departures: 0,
            })
        };
        Self {
            wait,
            levels: sizes.map(level).collect(),
            posts: Mutex::new(0),
            refuses_all: Mutex::default(),
            is_quiet: Notify::new(),
        }
    }

    /// Brings a message, for the attempt of this number. The first one waits for others, but not while nothing is in flight.
    pub(super) async fn join(&self, uplink: &Uplink, number: u32) -> Turn {
        let (told, mut answer) = oneshot::channel();
        let member = Member {
            uplink: uplink.clone(),
            number,
            told,
        };
        let halvings = match *self.refuses_all.lock() {
            None => number.saturating_sub(1) as usize,
            Some(_) => 0,
        };
        let index = halvings.min(self.levels.len() - 1);
        let level = &self.levels[index];
        let departure = {
            let mut level = level.lock();
            level.bytes += uplink.payload.len();
            level.members.push(member);
            let is_first = level.members.len() == 1;
            if level.is_full() || (is_first && *self.posts.lock() == 0) {
                return Turn::Post(level.depart());
            }
            is_first.then_some(level.departures)
        };
        if let Some(departure) = departure {
            tokio::select! {
                answer = &mut answer => return told_of(answer),
                () = self.is_quiet.notified() => {}
                () = sleep(self.wait) => {}
            }
            let mut level = level.lock();
            if level.departures == departure {
                return Turn::Post(level.depart());
            }
        }
        told_of(answer.await)
    }

    /// Whether a batch that came to this is to be tried in halves.
    pub(super) fn is_to_split(&self, attempt: &Attempt) -> bool {
        attempt.is_about_a_message() && *self.refuses_all.lock() != attempt.status()
    }

    /// Learns what became of the parts of a batch: how many messages each had, and what it came to.
    pub(super) fn learn(&self, parts: &[(usize, Attempt)]) {
        let is_any_delivered = parts.iter().any(|(_, attempt)| attempt.is_delivered());
        let status = parts.first().and_then(|(_, attempt)| attempt.status());
        let is_same = |(count, attempt): &(usize, Attempt)| {
            *count == 1 && attempt.may_be_about_all() && attempt.status() == status
        };
        if is_any_delivered {
            *self.refuses_all.lock() = None;
        } else if parts.len() > 1 && parts.iter().all(is_same) {
            *self.refuses_all.lock() = status;
        }
    }

    /// Counts a POST as in flight for as long as what is returned lives.
    pub(super) fn post(&self) -> Posting<'_> {
        *self.posts.lock() += 1;
        Posting(self)
    }
}

impl Level {
    fn is_full(&self) -> bool {
        self.members.len() >= self.most || self.bytes >= MOST_BYTES
    }

    fn depart(&mut self) -> Vec<Member> {
        self.departures += 1;
        self.bytes = 0;
        std::mem::take(&mut self.members)
    }
}

impl Member {
    /// Tells the worker that waits what became of its message.
    pub(super) fn tell(self, attempt: Attempt) {
        let _ = self.told.send(attempt); // whoever is gone wants to know nothing
    }
}

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        let mut posts = self.0.posts.lock();
        *posts -= 1;
        if *posts == 0 {
            self.0.is_quiet.notify_waiters();
        }
    }
}

fn told_of(answer: Result<Attempt, oneshot::error::RecvError>) -> Turn {
    Turn::Told(answer.unwrap_or_else(|_| Attempt::Failed {
        error: "the batch was given up".into(),
    }))
}

/// Payload that a batch does not wait beyond.
const MOST_BYTES: usize = 1 << 20;
