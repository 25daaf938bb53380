use super::*;
use crate::broker::TAKEOVER_SPAN;

fn registry(config: Config) -> Registry {
    Registry::new(&config, Arc::new(Status::new(None, Arc::default())))
}

fn seat(registry: &Registry, session: u64) -> Seating {
    registry.seat(
        ClientId::new("dev").unwrap(),
        || SessionId(session),
        std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        Instant::now(),
    )
}

fn seated(seating: Seating) -> Arc<Seat> {
    match seating {
        Seating::Seated(seat, _) => seat,
        _ => panic!("not seated"),
    }
}

fn balanced(registry: &Registry) -> DownlinkBooks {
    let books = registry.books();
    assert_eq!(
        books.received,
        books.delivered + books.held + books.lost.total(),
        "{books:?}"
    );
    books
}

#[test]
fn the_newest_session_wins_and_inherits_what_was_held() {
    let registry = registry(Config::default());
    let old = seated(seat(&registry, 1));
    assert!(registry.deliver("dev", "one".into()));
    let new = seated(seat(&registry, 2));
    assert_eq!(old.closing(), Some(CloseReason::Replaced));
    assert!(
        !registry.unseat(&old, &CloseReason::Lost),
        "the seat is no longer its own"
    );
    assert_eq!(balanced(&registry).held, 1);
    assert!(registry.unseat(&new, &CloseReason::Lost));
    let books = balanced(&registry);
    assert_eq!((books.received, books.lost.session_ended), (1, 1));
    assert!(!registry.deliver("dev", "two".into()));
}

#[test]
fn a_full_outbox_closes_the_slow_consumer_and_takes_nothing_more() {
    let registry = registry(
        Config::default()
            .outbox_messages(1usize)
            .outbox_total_bytes(0usize),
    );
    let slow = seated(seat(&registry, 1));
    assert!(registry.deliver("dev", "1".into()));
    assert!(
        registry.deliver("dev", "2".into()),
        "received, and lost as full"
    );
    assert!(!registry.deliver("dev", "3".into()), "on its way out");
    assert_eq!(slow.closing(), Some(CloseReason::SlowConsumer));
    assert_eq!(balanced(&registry).lost.full, 1);
}

#[test]
fn a_takeover_lets_no_message_fall_between_the_sessions() {
    let limits = Config::default().outbox_bytes(1usize << 30);
    let registry = registry(limits.outbox_messages(1usize << 20));
    seated(seat(&registry, 1));
    let delivered = std::thread::scope(|scope| {
        let delivering = scope.spawn(|| {
            (0..200_000)
                .filter(|_| registry.deliver("dev", Bytes::new()))
                .count()
        });
        for session in 2.. {
            // So late that it is counted anew.
            let now = Instant::now() + TAKEOVER_SPAN * 2 * session;
            let next = registry.seat(
                ClientId::new("dev").unwrap(),
                || SessionId(session.into()),
                std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
                now,
            );
            seated(next);
            if delivering.is_finished() {
                break;
            }
        }
        delivering.join().unwrap()
    });
    assert_eq!(delivered, 200_000);
    assert_eq!(balanced(&registry).held, 200_000);
}

#[test]
fn a_long_chain_of_takeovers_that_nobody_was_told_of_is_let_go() {
    let registry = registry(Config::default());
    for session in 1..=100_000 {
        let now = Instant::now() + TAKEOVER_SPAN * 2 * session;
        seated(registry.seat(
            ClientId::new("dev").unwrap(),
            || SessionId(session.into()),
            std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
            now,
        ));
    }
    drop(registry);
}

#[test]
fn reject_keeps_the_first() {
    let registry = registry(Config::default().duplicate_policy(DuplicatePolicy::Reject));
    let _first = seated(seat(&registry, 1));
    assert!(matches!(seat(&registry, 2), Seating::Taken));
}

#[test]
fn who_takes_an_id_over_again_and_again_is_told_to_stop() {
    let registry = registry(Config::default());
    for session in 1..=101 {
        assert!(
            matches!(seat(&registry, session), Seating::Seated(..)),
            "{session}"
        );
    }
    assert!(matches!(seat(&registry, 102), Seating::TooMany));
}

#[test]
fn after_close_all_nobody_is_seated() {
    let registry = registry(Config::default());
    let first = seated(seat(&registry, 1));
    registry.close_all(&CloseReason::Shutdown);
    assert_eq!(first.closing(), Some(CloseReason::Shutdown));
    assert!(matches!(seat(&registry, 2), Seating::Stopping));
}
