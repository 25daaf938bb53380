use std::{net::SocketAddr, thread, time::SystemTime};

use super::*;
use crate::types::{ClientId, Payload, SessionId};

fn uplink(session: u64, seq: u64, text: &str) -> Uplink {
    let id = ClientId::new(format!("dev{session}")).unwrap();
    Uplink::new(id, SessionId(session), seq, Payload::text(text))
}

fn client(session: u64) -> Client {
    Client {
        client_id: ClientId::new(format!("dev{session}")).unwrap(),
        session_id: SessionId(session),
        epoch: 0,
        remote_addr: SocketAddr::from(([127, 0, 0, 1], 9)).into(),
        connected_at: SystemTime::UNIX_EPOCH,
        context: None,
        last_seen: SystemTime::UNIX_EPOCH,
    }
}

fn queue(options: EventOptions) -> (Arc<EventHooks>, EventQueue) {
    EventQueue::new(options).unwrap()
}

fn drained(queue: &EventQueue, max: usize) -> Vec<Event> {
    let mut events = Vec::new();
    queue.drain(max, &mut events);
    events
}

/// Who and what: `c1` a connect of session 1, `u1.2` its second uplink, `d1` its end.
fn names(events: &[Event]) -> Vec<String> {
    let name = |event: &Event| match event {
        Event::Connect(c) => format!("c{}", c.session_id),
        Event::Disconnect { client, .. } => format!("d{}", client.session_id),
        Event::Uplink { uplink, .. } => format!("u{}.{}", uplink.session_id, uplink.seq),
        other => format!("{other:?}"),
    };
    events.iter().map(name).collect()
}

fn is_readable(queue: &EventQueue) -> bool {
    queue.wait(Duration::ZERO)
}

#[test]
fn events_come_in_order_over_all_queues() {
    let (hooks, queue) = queue(EventOptions::default().uplinks(Uplinks::Take));
    hooks.on_connect(&client(1));
    for seq in 1..=2 {
        let decision = hooks.on_uplink(&uplink(1, seq, "x"), Ticket(seq));
        assert_eq!(decision, Decision::Now(UplinkAction::Drop));
    }
    hooks.on_disconnect(&client(1), &CloseReason::Lost);
    assert_eq!(names(&drained(&queue, 2)), ["c1", "u1.1"]);
    assert_eq!(names(&drained(&queue, 9)), ["u1.2", "d1"]);
    assert_eq!(drained(&queue, 9).len(), 0);
}

#[test]
fn the_descriptor_is_readable_exactly_while_something_is_there() {
    let (hooks, queue) = queue(EventOptions::default());
    assert!(!is_readable(&queue));
    hooks.on_connect(&client(1));
    hooks.on_connect(&client(2));
    drained(&queue, 1);
    assert!(is_readable(&queue), "one is left");
    drained(&queue, 1);
    assert!(!is_readable(&queue));
    queue.wake();
    assert!(is_readable(&queue));
    assert_eq!(drained(&queue, 1).len(), 0);
    assert!(!is_readable(&queue));
}

#[test]
fn to_who_drains_on_it_stays_readable_until_nothing_is_found() {
    let (hooks, queue) = queue(EventOptions::default());
    hooks.on_connect(&client(1));
    let mut events = Vec::new();
    assert_eq!(queue.drain_on(9, &mut events), 1);
    assert!(is_readable(&queue));
    assert_eq!(queue.drain_on(9, &mut events), 0);
    assert!(!is_readable(&queue));
    hooks.on_connect(&client(2));
    assert!(is_readable(&queue), "what comes later notifies");
    assert_eq!(events.len(), 1);
}

#[test]
fn no_notification_is_lost_between_two_threads() {
    let (hooks, queue) = queue(EventOptions::default().capacity(1 << 20));
    let sender = thread::Builder::new()
        .spawn(move || (0..50_000).for_each(|n| hooks.on_connect(&client(n))))
        .unwrap();
    let mut events = Vec::new();
    while events.len() < 50_000 {
        assert!(queue.wait(Duration::from_secs(20)), "at {}", events.len());
        queue.drain(7, &mut events);
    }
    sender.join().unwrap();
    let order: Vec<u64> = events
        .iter()
        .map(|e| match e {
            Event::Connect(c) => c.session_id.0,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(order.is_sorted());
}

#[test]
fn a_full_queue_makes_sessions_wait_and_draining_accepts_them_in_order() {
    let (hooks, queue) = queue(EventOptions::default().capacity(1).uplinks(Uplinks::Take));
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&accepted);
    queue.attach(move |ticket, answer| {
        assert_eq!(answer, Answer::Uplink(UplinkAction::Drop));
        if ticket == Ticket(3) {
            return Err(Error::new(ErrorKind::Ticket, "timed out"));
        }
        log.lock().push(ticket.0);
        Ok(())
    });
    let decide = |session, ticket| hooks.on_uplink(&uplink(session, 1, "x"), Ticket(ticket));
    assert_eq!(decide(1, 1), Decision::Now(UplinkAction::Drop));
    assert_eq!(decide(2, 2), Decision::Later(Ticket(2)));
    assert_eq!(decide(3, 3), Decision::Later(Ticket(3)));
    assert_eq!(decide(4, 4), Decision::Later(Ticket(4)));
    let events = drained(&queue, 9);
    assert_eq!(names(&events), ["u1.1", "u2.1", "u4.1"], "3 is lost");
    assert!(events.iter().all(|e| e.ticket().is_none()));
    assert_eq!(*accepted.lock(), [2, 4]);
    assert_eq!(decide(1, 5), Decision::Now(UplinkAction::Drop));
}

#[test]
fn bytes_bound_what_is_taken_too() {
    let options = EventOptions::default().capacity_bytes(400);
    let (hooks, queue) = queue(options.uplinks(Uplinks::Take));
    let long = "x".repeat(200);
    let first = hooks.on_uplink(&uplink(1, 1, &long), Ticket(1));
    assert_eq!(first, Decision::Now(UplinkAction::Drop));
    hooks.on_uplink(&uplink(1, 2, &long), Ticket(2));
    let third = hooks.on_uplink(&uplink(1, 3, &long), Ticket(3));
    assert_eq!(third, Decision::Later(Ticket(3)));
    assert_eq!(drained(&queue, 9).len(), 2, "nobody is attached to accept");
    assert_eq!(queue.len(), 1);
    queue.attach(|_, _| Ok(()));
    assert_eq!(drained(&queue, 9).len(), 1);
}

#[test]
fn too_many_notices_cost_the_oldest_and_are_counted() {
    let (hooks, queue) = queue(EventOptions::default().capacity(2));
    (1..=5).for_each(|n| hooks.on_connect(&client(n)));
    assert_eq!(names(&drained(&queue, 9)), ["c4", "c5"]);
    assert_eq!(queue.dropped(), 3);
}

#[test]
fn decisions_beyond_the_capacity_fit_and_dead_ones_make_room() {
    let options = EventOptions::default().capacity(2).uplinks(Uplinks::Decide);
    let (hooks, alive) = queue(options.clone());
    (1..=9).for_each(|n| drop(hooks.on_uplink(&uplink(n, 1, "x"), Ticket(n))));
    assert_eq!(alive.len(), 9);
    let (hooks, dead) = queue(options.decision_time(Duration::ZERO));
    (1..=9).for_each(|n| drop(hooks.on_uplink(&uplink(n, 1, "x"), Ticket(n))));
    assert_eq!(names(&drained(&dead, 99)), ["u9.1"]);
}

#[test]
fn closing_fails_what_is_undecided_and_keeps_what_was_told() {
    let (hooks, queue) = queue(EventOptions::default().uplinks(Uplinks::Decide));
    let failed = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&failed);
    queue.attach(move |ticket, answer| {
        assert_eq!(answer, Answer::Failed);
        log.lock().push(ticket);
        Ok(())
    });
    hooks.on_connect(&client(1));
    hooks.on_uplink(&uplink(1, 1, "x"), Ticket(7));
    queue.close();
    assert_eq!(*failed.lock(), [Ticket(7)]);
    assert_eq!(Arc::strong_count(&failed), 1, "the closure is let go");
    let late = hooks.on_uplink(&uplink(1, 2, "x"), Ticket(8));
    assert_eq!(late, Decision::Failed);
    hooks.on_connect(&client(2));
    assert!(queue.wait(Duration::from_secs(9)), "wait ends at once");
    assert_eq!(names(&drained(&queue, 9)), ["c1"]);
    assert!(is_readable(&queue), "as a socket at its end");
}

#[test]
fn each_send_that_does_not_wait_has_one_result_whatever_becomes_of_it() {
    let (hooks, queue) = queue(EventOptions::default().capacity(2).notices(false));
    let (id, payload) = (ClientId::new("dev1").unwrap(), Payload::text("x"));
    let begin = |tag| queue.begin_send(&id, &payload, tag);
    let (first, second) = (begin(1).unwrap(), begin(2).unwrap());
    assert!(begin(3).is_none(), "there is no place for a third");
    first.tell(Ok(Sent::Elsewhere));
    hooks.on_connect(&client(1));
    assert!(begin(3).is_none(), "the result is not drained");
    queue.close();
    drop(second);
    let told: Vec<_> = drained(&queue, 9)
        .into_iter()
        .map(|event| match event {
            Event::Sent { tag, result, .. } => (tag, result.map_err(|e| e.kind())),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [(1, Ok(Sent::Elsewhere)), (2, Err(ErrorKind::Stopped))]
    );
    assert!(begin(3).is_some(), "now there is");
}

#[test]
fn bytes_bound_what_is_being_sent_too() {
    let (_hooks, queue) = queue(EventOptions::default().capacity_bytes(400));
    let id = ClientId::new("dev1").unwrap();
    let begin = |tag| queue.begin_send(&id, &Payload::text("x".repeat(200)), tag);
    let (first, _second) = (begin(1).unwrap(), begin(2).unwrap());
    assert!(begin(3).is_none());
    first.tell(Ok(Sent::Offline));
    assert!(
        begin(3).is_some(),
        "the message is gone, its result is small"
    );
}

#[test]
fn nothing_is_asked_that_the_host_did_not_want() {
    let (hooks, queue) = queue(EventOptions::default().notices(false));
    hooks.on_connect(&client(1));
    hooks.on_state(&State::Running);
    let decision = hooks.on_uplink(&uplink(1, 1, "x"), Ticket(1));
    assert_eq!(decision, Decision::Now(UplinkAction::Forward));
    assert!(queue.is_empty() && !is_readable(&queue));
}
