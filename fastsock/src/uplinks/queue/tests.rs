use std::time::{Duration, SystemTime};

use super::*;
use crate::config::Config;

#[derive(Clone, Debug)]
struct Note(ClientId);

impl Item for Note {
    fn key(&self) -> &ClientId {
        &self.0
    }

    fn bytes(&self) -> usize {
        100
    }

    fn made_at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

fn id(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

fn queue(change: impl FnOnce(&mut LaneLimits)) -> Queue<Note> {
    let mut limits = LaneLimits::of_uplinks(&Config::default(), false);
    change(&mut limits);
    Queue::new(
        limits,
        Keeping::Memory,
        Signpost::new(["".into()], true),
        [],
    )
}

/// What the next attempt delivers, if there is one to make.
fn begin(queue: &mut Queue<Note>, now: Instant) -> Option<Run<Note>> {
    match queue.begin(0, now, |_| Ok::<_, ()>(())) {
        Turn::Begun(run) => Some(run),
        Turn::Nobody | Turn::Idle(_) | Turn::GivenUp { .. } => None,
        Turn::Refused(()) => unreachable!(),
    }
}

/// What a lane would deliver next.
fn next_in(queue: &Queue<Note>, key: &ClientId) -> Option<u64> {
    let lane = queue.lanes.get(key)?;
    Some(lane.slots[next_of(lane, queue.keeping)?].number)
}

/// Takes so many of these, each decided.
fn say(queue: &mut Queue<Note>, key: &str, count: usize, now: Instant) -> Vec<u64> {
    let push = |_| queue.push(Note(id(key)), None, None, now).0;
    let numbers = (0..count).map(push).collect();
    queue.promote(&id(key));
    numbers
}

#[test]
fn lanes_take_turns_and_each_has_one_attempt_at_a_time() {
    let (mut queue, now) = (queue(|_| ()), Instant::now());
    say(&mut queue, "greedy", 3, now);
    say(&mut queue, "modest", 1, now);
    let mut served = Vec::new();
    while let Some(key) = queue.first_turn(0) {
        let run = begin(&mut queue, now).unwrap();
        queue.promote(&key);
        assert_eq!(run.items.len(), 1);
        assert!(next_in(&queue, &key).is_none(), "one is in flight");
        queue.remove(&key, run.numbers[0]);
        queue.promote(&key);
        served.push(key.as_str().to_owned());
    }
    assert_eq!(served, ["greedy", "modest", "greedy", "greedy"]);
    assert_eq!((queue.count(), queue.held_bytes()), (0, 0));
}

#[test]
fn an_attempt_takes_what_is_ready_at_the_head_and_at_most_a_batch() {
    let start = Instant::now();
    let day = Duration::from_secs(24 * 3600);
    let attempts = |n: u32| move |slot: &mut Slot<Note>| slot.attempts = n;
    let stage = |stage: Stage| move |slot: &mut Slot<Note>| slot.stage = stage;
    type Change = (usize, Box<dyn Fn(&mut Slot<Note>)>);
    let cases: [(&str, Option<Change>, Option<usize>); 8] = [
        ("a batch", None, Some(4)),
        (
            "an undecided one stays where it is",
            Some((2, Box::new(stage(Stage::Undecided(Ticket(1)))))),
            Some(2),
        ),
        (
            "nothing goes past one that backs off",
            Some((0, Box::new(stage(Stage::BackingOff)))),
            None,
        ),
        (
            "the second attempt takes half",
            Some((0, Box::new(attempts(1)))),
            Some(2),
        ),
        ("the third one", Some((0, Box::new(attempts(2)))), Some(1)),
        (
            "one that failed before is not among more than it may be",
            Some((1, Box::new(attempts(2)))),
            Some(1),
        ),
        ("nor behind more", Some((2, Box::new(attempts(1)))), Some(2)),
        (
            "one that is too old is left to be given up",
            Some((
                3,
                Box::new(move |slot: &mut Slot<Note>| slot.taken_at = start),
            )),
            Some(3),
        ),
    ];
    for (name, change, expected) in cases {
        let mut queue = queue(|limits| limits.batch = 4);
        let now = start + day + Duration::from_secs(1);
        let numbers = say(&mut queue, "dev", 6, now);
        if let Some((index, change)) = change {
            change(&mut queue.lanes.get_mut(&id("dev")).unwrap().slots[index]);
        }
        let run = begin(&mut queue, now).map(|run| run.numbers.to_vec());
        assert_eq!(run, expected.map(|n| numbers[..n].to_vec()), "{name}");
    }
}

#[test]
fn what_was_not_tried_is_next_and_its_attempt_does_not_count() {
    let (mut queue, now) = (queue(|limits| limits.batch = 8), Instant::now());
    let numbers = say(&mut queue, "dev", 3, now);
    let run = begin(&mut queue, now).unwrap();
    assert_eq!((&run.numbers[..], run.attempt), (&numbers[..], 1));
    queue.remove(&id("dev"), numbers[0]);
    queue.not_tried(&id("dev"), numbers[1]);
    queue.not_tried(&id("dev"), numbers[2]);
    queue.promote(&id("dev"));
    let run = begin(&mut queue, now).unwrap();
    assert_eq!((&run.numbers[..], run.attempt), (&numbers[1..], 1));
}

#[test]
fn what_a_session_may_do_follows_from_the_limits() {
    use UplinkFull::{DropOldest, Pause};
    let now = Instant::now();
    for (when_full, lane_bytes, total_bytes, room, displaces) in [
        (Pause, 1000, 100_000, Room::More, false),
        (Pause, 300, 100_000, Room::Wait, false),
        (Pause, 1000, 1000, Room::Wait, false),
        (DropOldest, 300, 100_000, Room::More, true),
        (DropOldest, 1000, 1000, Room::Wait, false),
    ] {
        let mut queue = queue(|limits| {
            limits.when_full = when_full;
            limits.lane_bytes = lane_bytes;
            limits.total_bytes = total_bytes;
        });
        let numbers = say(&mut queue, "dev", 3, now);
        assert_eq!(queue.room(&id("dev")), room, "{when_full:?} {lane_bytes}");
        let oldest = displaces.then_some(numbers[0]);
        assert_eq!(queue.displaceable(&id("dev")), oldest, "{when_full:?}");
        let (_, record) = queue.push(Note(id("dev")), None, Some(Ticket(1)), now);
        assert!(record.is_none());
        assert_eq!(queue.room(&id("dev")), Room::Undecided);
    }
}

#[test]
fn with_a_spool_an_item_goes_once_that_has_it() {
    let now = Instant::now();
    for (keeping, goes_past) in [(Keeping::Spool, false), (Keeping::SharedSpool, true)] {
        let mut queue = queue(|_| ());
        queue.keeping = keeping;
        let dev = id("dev");
        let (first, record) = queue.push(Note(dev.clone()), None, None, now);
        assert_eq!(record.map(|record| record.number), Some(first));
        assert_eq!(queue.room(&dev), Room::Undecided);
        assert!(next_in(&queue, &dev).is_none());
        // What the spool brings by itself goes past it only where others share the spool.
        let number = queue.reserve(1);
        let uplink = Note(dev.clone());
        queue.recovered(Record { number, uplink }, (now, SystemTime::UNIX_EPOCH));
        let next = next_in(&queue, &dev);
        assert_eq!(next, goes_past.then_some(number), "{keeping:?}");
        assert!(queue.committed(&dev, first));
        assert!(!queue.committed(&dev, first), "it was told before");
        assert_eq!(next_in(&queue, &dev), Some(first));
    }
}
