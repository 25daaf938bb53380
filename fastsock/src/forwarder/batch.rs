//! Gathers messages for one POST, and finds out what became of each.
//!
//! Each worker brings a run: one device's messages, in their order. It waits for what becomes of them; one of the workers makes the
//! POST for all. A lane has one run on its way, so the messages of a device never overtake each other.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::{
    sync::{Notify, oneshot},
    time::sleep,
};

use super::{MOST_BATCH_BYTES, Outcome, Outcomes, batch_size};
use crate::{locks::Mutex, types::Uplink};

/// Where runs wait for each other.
pub(super) struct Batches {
    wait: Duration,
    /// By the number of the attempt: each holds half as many as the one before, so that a message that makes its batches
    /// fail comes to be on its own.
    levels: Vec<Mutex<Level>>,
    /// With which status each message of a batch was refused, alone too, since when nothing was delivered. Then it is not for
    /// the sake of one of them that a batch is refused, and smaller ones are none the better.
    refuses_all: Mutex<Option<u16>>,
    posts: Mutex<usize>,
    /// No POST is in flight any more.
    is_quiet: Notify,
}

struct Level {
    most: usize,
    members: Vec<Member>,
    messages: usize,
    bytes: usize,
    /// How many batches have left.
    departures: u64,
}

/// A run in a batch.
pub(super) struct Member {
    run: SmallVec<[Uplink; 1]>,
    number: u32,
    told: oneshot::Sender<Outcomes>,
}

/// What it falls to a worker to do.
pub(super) enum Turn {
    /// POST these; its own run is among them, and what became of it comes here.
    Post(Vec<Member>, oneshot::Receiver<Outcomes>),
    /// Nothing: another has done it.
    Told(Outcomes),
}

/// A POST in flight.
pub(super) struct Posting<'a>(&'a Batches);

impl Batches {
    /// Batches of at most so many messages, gathered for at most so long.
    pub(super) fn new(most: usize, wait: Duration) -> Self {
        let sizes = (1..).map(|number| batch_size(most, number));
        let levels = usize::BITS - most.leading_zeros();
        let level = |most| {
            Mutex::new(Level {
                most,
                members: Vec::new(),
                messages: 0,
                bytes: 0,
                departures: 0,
            })
        };
        Self {
            wait,
            levels: sizes.map(level).take(levels as usize).collect(),
            refuses_all: Mutex::default(),
            posts: Mutex::new(0),
            is_quiet: Notify::new(),
        }
    }

    /// Brings a run, for the attempt of this number. The first one waits for others, but not while nothing is in flight. Of a run
    /// that does not fit, the rest is not tried.
    pub(super) async fn join(&self, run: &[Uplink], number: u32) -> Turn {
        let (told, mut answer) = oneshot::channel();
        let halvings = match *self.refuses_all.lock() {
            None => number.saturating_sub(1) as usize,
            Some(_) => 0,
        };
        let index = halvings.min(self.levels.len() - 1);
        let level = &self.levels[index];
        let departure = {
            let mut level = level.lock();
            let fitting = run.len().min(level.most - level.messages);
            let is_first = level.add(Member {
                run: run[..fitting].iter().cloned().collect(),
                number,
                told,
            });
            if level.is_full() || (is_first && *self.posts.lock() == 0) {
                return Turn::Post(level.depart(), answer);
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
                return Turn::Post(level.depart(), answer);
            }
        }
        told_of(answer.await)
    }

    /// Whether a batch that came to this is to be tried in halves.
    pub(super) fn is_to_split(&self, outcome: &Outcome) -> bool {
        outcome.is_about_a_message() && *self.refuses_all.lock() != outcome.status()
    }

    /// Learns what became of the parts of a batch.
    pub(super) fn learn(&self, delivery: &Delivery) {
        let ends = &delivery.ends;
        let is_any_delivered = ends.iter().any(|(_, outcome)| outcome.is_delivered());
        let status = ends.first().and_then(|(_, outcome)| outcome.status());
        let is_same = |(messages, outcome): &(usize, Outcome)| {
            *messages == 1 && outcome.may_be_about_all() && outcome.status() == status
        };
        if is_any_delivered {
            *self.refuses_all.lock() = None;
        } else if ends.len() > 1 && delivery.is_all_tried() && ends.iter().all(is_same) {
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
    /// Whether it is the first.
    fn add(&mut self, member: Member) -> bool {
        self.messages += member.run.len();
        self.bytes += member.run.iter().map(|u| u.payload.len()).sum::<usize>();
        self.members.push(member);
        self.members.len() == 1
    }

    fn is_full(&self) -> bool {
        self.messages >= self.most || self.bytes >= MOST_BATCH_BYTES
    }

    fn depart(&mut self) -> Vec<Member> {
        self.departures += 1;
        self.bytes = 0;
        self.messages = 0;
        std::mem::take(&mut self.members)
    }
}

/// A batch being delivered: what is to be POSTed next, and what became of what was. No I/O.
pub(super) struct Delivery {
    runs: Vec<Progress>,
    /// The last is next.
    parts: Vec<Part>,
    /// The parts that were not split: how many messages each had, and what it came to.
    ends: Vec<(usize, Outcome)>,
}

/// Messages of one POST, each with its run.
pub(super) type Part = Vec<(usize, Uplink)>;

struct Progress {
    messages: usize,
    outcomes: Outcomes,
    /// One of its messages is to be tried again: those behind it wait.
    is_stopped: bool,
    /// Its worker, until it is told.
    told: Option<oneshot::Sender<Outcomes>>,
}

impl Delivery {
    /// The number of the attempt that it is, and the batch.
    pub(super) fn new(batch: Vec<Member>) -> (u32, Self) {
        let number = batch.iter().map(|member| member.number).max();
        let mut whole = Part::new();
        let mut runs = Vec::with_capacity(batch.len());
        for (index, Member { run, told, .. }) in batch.into_iter().enumerate() {
            runs.push(Progress {
                messages: run.len(),
                outcomes: Outcomes::new(),
                is_stopped: false,
                told: Some(told),
            });
            whole.extend(run.into_iter().map(|uplink| (index, uplink)));
        }
        let parts = vec![whole];
        let delivery = Self {
            runs,
            parts,
            ends: Vec::new(),
        };
        (number.unwrap_or(1), delivery)
    }

    /// What to POST next.
    pub(super) fn next(&mut self) -> Option<Part> {
        while let Some(mut part) = self.parts.pop() {
            part.retain(|(run, _)| !self.runs[*run].is_stopped);
            if !part.is_empty() {
                return Some(part);
            }
        }
        None
    }

    /// What that came to. When a part is to be split, its halves are next, until the message is found that the backend does not
    /// want. Workers whose runs are done are told.
    pub(super) fn done(&mut self, mut part: Part, outcome: &Outcome, is_to_split: bool) {
        if part.len() > 1 && is_to_split {
            let second = part.split_off(part.len() / 2);
            self.parts.extend([second, part]); // the first half is next
            return;
        }
        self.ends.push((part.len(), outcome.clone()));
        for (run, _) in &part {
            self.runs[*run].outcomes.push(outcome.clone());
        }
        for (run, _) in &part {
            let run = &mut self.runs[*run];
            run.is_stopped |= !outcome.is_settled();
            if run.is_stopped || run.outcomes.len() == run.messages {
                run.tell();
            }
        }
    }
}

impl Delivery {
    /// Whether each of its messages was in a POST that was not split.
    fn is_all_tried(&self) -> bool {
        let tried: usize = self.ends.iter().map(|(messages, _)| messages).sum();
        tried == self.runs.iter().map(|run| run.messages).sum::<usize>()
    }
}

impl Progress {
    /// Tells the worker that waits what became of its run.
    fn tell(&mut self) {
        if let Some(told) = self.told.take() {
            let _ = told.send(std::mem::take(&mut self.outcomes)); // whoever is gone wants to know nothing
        }
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

fn told_of(answer: Result<Outcomes, oneshot::error::RecvError>) -> Turn {
    let given_up = || Outcome::Failed {
        error: "the batch was given up".into(),
    };
    Turn::Told(answer.unwrap_or_else(|_| smallvec::smallvec![given_up()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClientId, SessionId};

    /// A backend that answers by what is in a POST; what it was POSTed, and what the runs came to.
    fn deliver(runs: &[&[&str]], backend: impl Fn(&[&str]) -> u16) -> (Vec<String>, Vec<Vec<u16>>) {
        let (members, mut answers): (Vec<_>, Vec<_>) = runs
            .iter()
            .enumerate()
            .map(|(index, run)| {
                let (told, answer) = oneshot::channel();
                let id = ClientId::new(format!("dev{index}")).unwrap();
                let uplink = |text: &&str| Uplink::new(id.clone(), SessionId(1), 1, (*text).into());
                let run = run.iter().map(uplink).collect();
                let member = Member {
                    run,
                    number: 1,
                    told,
                };
                (member, answer)
            })
            .unzip();
        let (_, mut delivery) = Delivery::new(members);
        let mut posts = Vec::new();
        while let Some(part) = delivery.next() {
            let texts: Vec<_> = part.iter().map(|(_, u)| u.payload.to_text()).collect();
            let texts: Vec<_> = texts.iter().map(|text| &**text).collect();
            posts.push(texts.concat());
            let outcome = Outcome::Answered {
                status: backend(&texts),
                retry_after: None,
            };
            delivery.done(part, &outcome, outcome.is_about_a_message());
        }
        let status = |outcomes: Outcomes| outcomes.iter().map(|o| o.status().unwrap()).collect();
        let told = answers.iter_mut().map(|a| status(a.try_recv().unwrap()));
        (posts, told.collect())
    }

    #[test]
    fn a_batch_is_split_in_its_order_and_nothing_goes_past_a_message_that_is_to_be_tried_again() {
        for (name, runs, bad, status, posts, told) in [
            (
                "all is well",
                &[&["a", "b"][..], &["c"]][..],
                "-",
                0,
                &["abc"][..],
                &[&[200, 200][..], &[200]][..],
            ),
            (
                "poison in the middle of a run",
                &[&["a", "b", "c", "d"]],
                "b",
                422,
                &["abcd", "ab", "a", "b", "cd"],
                &[&[200, 422, 200, 200]],
            ),
            (
                "one that is refused and tried again",
                &[&["a", "b", "c"], &["d"]],
                "b",
                404,
                &["abcd", "ab", "a", "b", "d"],
                &[&[200, 404], &[200]],
            ),
            (
                "a backend that fails",
                &[&["a", "b"], &["c"]],
                "b",
                503,
                &["abc"],
                &[&[503, 503], &[503]],
            ),
        ] {
            let backend = |texts: &[&str]| match texts.contains(&bad) {
                true => status,
                false => 200,
            };
            let (posted, outcomes) = deliver(runs, backend);
            assert_eq!(posted, posts, "{name}");
            assert_eq!(outcomes, told, "{name}");
        }
    }
}
