//! What several threads do at once to the event queue and to a seat, for shuttle to order in many ways.
//!
//! Not part of the API: here only in the package `fastsock-models`, whose locks and threads shuttle schedules.

use std::{sync::Arc, time::Duration};

use shuttle::{
    sync::{Condvar, Mutex},
    thread,
};
use tokio::time::Instant;

use crate::{
    config::Config,
    error::{Error, ErrorKind},
    hooks::{Answer, Decision, Hooks, UplinkAction},
    host::events::{Event, EventHooks, EventOptions, EventQueue, Uplinks},
    registry::{Registry, Seating, seat::Seat},
    status::Status,
    types::{ClientId, CloseReason, Payload, Sent, SessionId, Ticket, Uplink},
};

/// Two devices speak while the host drains in twos, from a queue for two: it hears each of their messages once, those of a device in
/// order, and the descriptor never sleeps on one.
pub fn a_host_that_takes_uplinks_hears_each_once_and_in_order() {
    let options = EventOptions::default().capacity(2).uplinks(Uplinks::Take);
    let (hooks, queue) = EventQueue::new(options).expect("a descriptor");
    let answers = Arc::new(Answers::default());
    let to = Arc::clone(&answers);
    queue.attach(move |ticket, answer| {
        to.put(ticket, answer);
        Ok(())
    });
    let devices = [1, 2].map(|session| {
        let (hooks, answers) = (Arc::clone(&hooks), Arc::clone(&answers));
        thread::spawn(move || (1..=UPLINKS).for_each(|seq| say(&hooks, &answers, session, seq)))
    });
    let mut heard = Vec::new();
    while heard.len() < 2 * UPLINKS as usize {
        if !queue.wait(Duration::ZERO) {
            thread::yield_now(); // for ever, if a notification is lost
            continue;
        }
        queue.drain(2, &mut heard);
    }
    for device in devices {
        device.join().expect("no panic");
    }
    for session in [1, 2] {
        let order = heard.iter().filter_map(|event| match event {
            Event::Uplink { ticket, uplink } => {
                assert_eq!(*ticket, None);
                (uplink.session_id.0 == session).then_some(uplink.seq)
            }
            other => panic!("{other:?}"),
        });
        assert!(order.eq(1..=UPLINKS));
    }
    assert!(queue.is_empty() && !queue.wait(Duration::ZERO));
}

/// A device says one thing and waits, as its session does, until the queue has taken it.
fn say(hooks: &EventHooks, answers: &Answers, session: u64, seq: u64) {
    let id = ClientId::new("dev").expect("a name");
    let ticket = Ticket(session * 100 + seq);
    let uplink = Uplink::new(id, SessionId(session), seq, Payload::text("x"));
    match hooks.on_uplink(&uplink, ticket) {
        Decision::Now(UplinkAction::Drop) => {}
        Decision::Later(ticket) => {
            let answer = answers.wait(ticket);
            assert_eq!(answer, Answer::Uplink(UplinkAction::Drop));
        }
        other => panic!("{other:?}"),
    }
}

/// While devices ask, the host closes the queue: each question fails at once, or is answered once as failed. None hangs.
pub fn closing_leaves_no_question_open() {
    let options = EventOptions::default().uplinks(Uplinks::Decide);
    let (hooks, queue) = EventQueue::new(options).expect("a descriptor");
    let answers = Arc::new(Answers::default());
    let to = Arc::clone(&answers);
    queue.attach(move |ticket, answer| {
        to.put(ticket, answer);
        Ok(())
    });
    let devices = [1, 2].map(|session| {
        let (hooks, answers) = (Arc::clone(&hooks), Arc::clone(&answers));
        thread::spawn(move || {
            let id = ClientId::new("dev").expect("a name");
            let uplink = Uplink::new(id, SessionId(session), 1, Payload::text("x"));
            match hooks.on_uplink(&uplink, Ticket(session)) {
                Decision::Failed => {}
                Decision::Later(ticket) => assert_eq!(answers.wait(ticket), Answer::Failed),
                other => panic!("{other:?}"),
            }
        })
    });
    queue.close();
    for device in devices {
        device.join().expect("no panic");
    }
    assert!(
        queue.wait(Duration::ZERO),
        "a closed queue stays readable, as a socket at its end"
    );
}

/// Three sends that do not wait, one of them dropped, while the queue for two closes: each that began has one result, whatever came first.
pub fn each_send_has_one_result() {
    let options = EventOptions::default().capacity(2).notices(false);
    let (_hooks, queue) = EventQueue::new(options).expect("a descriptor");
    let queue = Arc::new(queue);
    let began = Arc::new(Mutex::new(Vec::new()));
    let senders = [1, 2, 3].map(|tag| {
        let (queue, began) = (Arc::clone(&queue), Arc::clone(&began));
        thread::spawn(move || {
            let id = ClientId::new("dev").expect("a name");
            let Some(pending) = queue.begin_send(&id, &Payload::text("x"), tag) else {
                return;
            };
            began.lock().expect("no poison").push(tag);
            match tag {
                1 => drop(pending),
                2 => pending.tell(Err(Error::new(ErrorKind::Broker, "down"))),
                _ => pending.tell(Ok(Sent::Offline)),
            }
        })
    });
    queue.close();
    let mut events = Vec::new();
    queue.drain(1, &mut events);
    for sender in senders {
        sender.join().expect("no panic");
    }
    queue.drain(9, &mut events);
    let mut told: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Sent { tag, result, .. } => {
                let expected = match tag {
                    1 => Err(ErrorKind::Stopped),
                    2 => Err(ErrorKind::Broker),
                    _ => Ok(Sent::Offline),
                };
                assert_eq!(result.as_ref().map_err(|e| e.kind()).copied(), expected);
                *tag
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let mut began = began.lock().expect("no poison").clone();
    told.sort_unstable();
    began.sort_unstable();
    assert_eq!(told, began);
    assert!(began.len() >= 2, "there is room for two");
}

/// A session writes, another takes its seat over, and messages come all the while: each message is written once, in order, into one
/// of the two sockets.
pub fn a_takeover_loses_and_repeats_nothing() {
    let (registry, old) = seated();
    let sending = send(&registry);
    let writer = {
        let old = Arc::clone(&old);
        thread::spawn(move || {
            let mut written = Vec::new();
            while old.closing().is_none() {
                write(&old, &mut written);
                thread::yield_now();
            }
            write(&old, &mut written);
            written
        })
    };
    let new = seat(&registry, 2);
    assert_eq!(old.closing(), Some(CloseReason::Replaced));
    assert!(
        !registry.unseat(&old, &CloseReason::Lost),
        "it is not its own"
    );
    let accepted = sending.join().expect("no panic");
    assert_eq!(accepted, MESSAGES, "somebody is seated all the time");
    let mut written = writer.join().expect("no panic");
    while write(&new, &mut written) {}
    let order: Vec<u64> = (0..MESSAGES).collect();
    assert_eq!(written, order);
    balanced(&registry, accepted, 0);
}

/// A session ends by itself while another takes its seat over: each message is written, or counted as lost with the session that ended.
pub fn a_takeover_of_a_session_that_ends_balances_the_books() {
    let (registry, old) = seated();
    let sending = send(&registry);
    let ending = {
        let (registry, old) = (Arc::clone(&registry), Arc::clone(&old));
        thread::spawn(move || {
            let mut written = Vec::new();
            write(&old, &mut written);
            let was_its_own = registry.unseat(&old, &CloseReason::Lost);
            registry.forget(&old);
            (written, was_its_own)
        })
    };
    let new = seat(&registry, 2);
    let accepted = sending.join().expect("no panic");
    let (mut written, was_its_own) = ending.join().expect("no panic");
    while write(&new, &mut written) {}
    assert!(written.is_sorted(), "{written:?}");
    let lost = accepted - written.len() as u64;
    assert!(was_its_own || lost == 0, "who takes over inherits all");
    balanced(&registry, accepted, lost);
    assert!(registry.unseat(&new, &CloseReason::Lost) && registry.len() == 0);
}

fn seated() -> (Arc<Registry>, Arc<Seat>) {
    let status = Arc::new(Status::new(None, Arc::default()));
    let registry = Arc::new(Registry::new(&Config::default(), status));
    let old = seat(&registry, 1);
    (registry, old)
}

fn seat(registry: &Registry, session: u64) -> Arc<Seat> {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let id = ClientId::new("dev").expect("a name");
    match registry.seat(id, || SessionId(session), addr.into(), Instant::now()) {
        Seating::Seated(seat, _) => seat,
        _ => panic!("not seated"),
    }
}

/// Says how many messages somebody took.
fn send(registry: &Arc<Registry>) -> thread::JoinHandle<u64> {
    let registry = Arc::clone(registry);
    thread::spawn(move || {
        let put = |n: &u64| registry.put("dev", Payload::text(n.to_string())).is_some();
        (0..MESSAGES).filter(put).count() as u64
    })
}

/// Writes one message, as a session does. `false` when there was none.
fn write(seat: &Seat, written: &mut Vec<u64>) -> bool {
    seat.write(|outbox| {
        let whole = outbox.begin(1, usize::MAX, |payload| {
            written.push(payload.to_text().parse().expect("a number"));
        });
        outbox.wrote(whole, false);
        whole > 0
    })
}

fn balanced(registry: &Registry, received: u64, lost: u64) {
    let books = registry.books();
    assert_eq!(books.received, received);
    assert_eq!((books.held, books.lost.total()), (0, lost));
    assert_eq!(books.delivered, received - lost);
}

/// The answers to tickets.
#[derive(Default)]
struct Answers {
    all: Mutex<Vec<(Ticket, Answer)>>,
    changed: Condvar,
}

impl Answers {
    fn put(&self, ticket: Ticket, answer: Answer) {
        let mut all = self.all.lock().expect("no poison");
        assert!(all.iter().all(|(known, _)| *known != ticket), "only once");
        all.push((ticket, answer));
        self.changed.notify_all();
    }

    fn wait(&self, ticket: Ticket) -> Answer {
        let mut all = self.all.lock().expect("no poison");
        loop {
            if let Some((_, answer)) = all.iter().find(|(known, _)| *known == ticket) {
                return answer.clone();
            }
            all = self.changed.wait(all).expect("no poison");
        }
    }
}

const UPLINKS: u64 = 3;
const MESSAGES: u64 = 4;
