use super::*;

const S1: SessionId = SessionId(1);
const S2: SessionId = SessionId(2);

/// What Redis recorded a seat under.
const EPOCH: u64 = 1_795_000_000_000;

fn id(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

fn seated(text: &str, session_id: SessionId, seen_ms: u64) -> Seated {
    Seated {
        client_id: id(text),
        session_id,
        seen_ms,
    }
}

fn batch(presence: &mut Presence) -> Option<Batch> {
    presence.batch(512, &HashSet::default())
}

/// Takes a batch that must hold exactly these sets and removals, and confirms it.
fn written(presence: &mut Presence) -> (Vec<(String, u64)>, Vec<String>) {
    let batch = batch(presence).expect("something to write");
    let sets = batch.sets.iter();
    let sets = sets.map(|s| (s.client_id.to_string(), s.seen_ms)).collect();
    let dels = batch.dels.iter().map(|d| d.client_id.to_string()).collect();
    for set in &batch.sets {
        if let Some(claim) = set.claim {
            presence.claimed(&set.client_id, claim.session_id, EPOCH, false);
        }
    }
    presence.confirm(batch);
    (sets, dels)
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<Entry>(), 48);
}

#[test]
fn nothing_is_written_before_the_device_was_seen() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    assert_eq!(batch(&mut presence), None);
    assert!(presence.seen(&id("a"), 5));
    assert_eq!(written(&mut presence), (vec![("a".into(), 5)], vec![]));
    assert!(
        !presence.seen(&id("a"), 5),
        "the same value again is no change"
    );
}

#[test]
fn the_hash_has_a_device_from_the_confirmation_until_its_removal_is_on_its_way() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    presence.seen(&id("a"), 5);
    let first = batch(&mut presence).unwrap();
    assert!(!presence.is_there(&id("a")));
    presence.confirm(first);
    presence.seen(&id("a"), 6);
    let second = batch(&mut presence).unwrap();
    assert!(presence.is_there(&id("a")), "with another value");
    presence.give_back(second);
    presence.unseated(&id("a"), S1);
    let removal = batch(&mut presence).unwrap();
    presence.seated(&id("a"), S2, 1000);
    presence.seen(&id("a"), 7);
    assert!(!presence.is_there(&id("a")), "it may be gone any moment");
    presence.confirm(removal);
    assert!(!presence.is_there(&id("a")));
    written(&mut presence);
    assert!(presence.is_there(&id("a")));
    presence.restore(vec![seated("a", S2, 7)], 2000, 2000);
    assert!(!presence.is_there(&id("a")), "Redis may have lost it");
}

#[test]
fn a_failed_handshake_leaves_nothing() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    assert!(!presence.unseated(&id("a"), S1));
    assert_eq!((batch(&mut presence), presence.len()), (None, 0));
}

#[test]
fn who_comes_and_goes_unwritten_leaves_nothing() {
    let mut presence = Presence::default();
    for n in 1..=1000 {
        presence.seated(&id("a"), SessionId(n), 1000);
        assert!(presence.seen(&id("a"), n), "{n}");
        presence.unseated(&id("a"), SessionId(n));
    }
    assert_eq!((presence.waiting(), presence.len()), (0, 0));
    presence.seated(&id("a"), SessionId(1001), 1000);
    presence.seen(&id("a"), 7);
    assert_eq!(batch(&mut presence).map(|b| b.len()), Some(1));
    assert_eq!(batch(&mut presence), None);
}

#[test]
fn who_left_is_removed_alone_when_nobody_else_is_taken() {
    let mut presence = Presence::default();
    for (n, dev) in ["a", "b", "c"].iter().enumerate() {
        presence.seated(&id(dev), SessionId(n as u64 + 1), 1000);
        presence.seen(&id(dev), 5);
    }
    written(&mut presence);
    assert_eq!(presence.removals(512), None);
    presence.seen(&id("a"), 6);
    presence.unseated(&id("b"), SessionId(2));
    presence.unseated(&id("c"), SessionId(3));
    let removals = presence.removals(1).expect("one of two");
    assert!(removals.sets.is_empty() && removals.dels[0].client_id == id("b"));
    presence.confirm(removals);
    assert_eq!(
        written(&mut presence),
        (vec![("a".into(), 6)], vec!["c".into()])
    );
}

#[test]
fn the_newest_change_of_an_id_wins() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    for ms in 1..=9 {
        assert_eq!(presence.seen(&id("a"), ms), ms == 1);
    }
    assert_eq!(written(&mut presence), (vec![("a".into(), 9)], vec![]));
    presence.seen(&id("a"), 10);
    presence.unseated(&id("a"), S1);
    assert_eq!(written(&mut presence), (vec![], vec!["a".into()]));
    assert_eq!(presence.len(), 0);
}

#[test]
fn a_seat_is_claimed_once_and_a_takeover_claims_anew() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    presence.seen(&id("a"), 1);
    let first = batch(&mut presence).unwrap();
    let claim = |batch: &Batch| batch.sets[0].claim.map(|c| (c.session_id, c.seated));
    assert_eq!(claim(&first), Some((S1, SeatTime::since_start(1000))));
    presence.claimed(&id("a"), S1, EPOCH, false);
    presence.confirm(first);
    presence.seen(&id("a"), 2);
    let second = batch(&mut presence).unwrap();
    assert_eq!(claim(&second), None);
    presence.seated(&id("a"), S2, 2000);
    presence.confirm(second);
    presence.seen(&id("a"), 2);
    assert_eq!(
        claim(&batch(&mut presence).unwrap()),
        Some((S2, SeatTime::since_start(2000)))
    );
}

#[test]
fn a_claim_that_was_asked_for_before_the_101_is_taken_back_if_there_never_was_one() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    assert!(!presence.unseated(&id("a"), S1), "nobody was asked");
    assert!(!presence.is_about_to_claim(&id("a"), S1), "it left");
    presence.seated(&id("a"), S2, 1000);
    assert!(
        !presence.is_about_to_claim(&id("a"), S1),
        "an older session"
    );
    assert!(presence.is_about_to_claim(&id("a"), S2));
    assert!(presence.unseated(&id("a"), S2));
    let del = batch(&mut presence).unwrap();
    assert_eq!(del.dels[0].session_id, S2);
    presence.confirm(del);
    assert_eq!(presence.len(), 0);
}

#[test]
fn who_waits_for_its_101_is_not_restored_beside_its_own_claim() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    presence.restore(vec![seated("a", S1, 20)], 2000, 540);
    assert_eq!(batch(&mut presence), None);
    presence.claimed(&id("a"), S1, EPOCH, false);
    presence.seen(&id("a"), 30);
    let set = batch(&mut presence).unwrap().sets.remove(0);
    assert!(set.claim.is_none() && set.is_unlisted);
}

#[test]
fn the_end_of_an_older_session_is_not_the_end_of_the_newer_one() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S2, 1000);
    presence.seen(&id("a"), 1);
    presence.seated(&id("a"), S1, 1000);
    assert!(!presence.unseated(&id("a"), S1));
    assert_eq!(written(&mut presence), (vec![("a".into(), 1)], vec![]));
}

#[test]
fn a_removal_is_kept_until_it_is_confirmed_and_knows_what_may_be_ours() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    presence.seen(&id("a"), 10);
    written(&mut presence);
    presence.seen(&id("a"), 20);
    let lost = batch(&mut presence).unwrap();
    presence.unseated(&id("a"), S1);
    presence.give_back(lost); // 10 or 20, nobody knows
    let del = batch(&mut presence).unwrap();
    assert_eq!((del.dels[0].least_ms, del.dels[0].most_ms), (10, 20));
    presence.give_back(del);
    assert_eq!(presence.waiting(), 1);
    assert_eq!(written(&mut presence), (vec![], vec!["a".into()]));
    assert_eq!(presence.len(), 0);
}

#[test]
fn a_device_that_comes_back_while_its_removal_is_in_flight_is_written_again() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    presence.seen(&id("a"), 1);
    written(&mut presence);
    presence.unseated(&id("a"), S1);
    let del = batch(&mut presence).unwrap();
    presence.seated(&id("a"), S2, 1000);
    presence.seen(&id("a"), 2);
    presence.confirm(del);
    assert_eq!(written(&mut presence), (vec![("a".into(), 2)], vec![]));
    assert!(
        presence.unseated(&id("a"), S2),
        "there is something to remove"
    );
}

#[test]
fn a_restore_writes_everyone_with_the_last_sign_and_the_time_of_the_seat() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    presence.seen(&id("a"), 30);
    written(&mut presence);
    presence.restore(vec![seated("a", S1, 20), seated("b", S2, 40)], 2000, 540);
    let batch = batch(&mut presence).unwrap();
    let sets = batch.sets.iter();
    let sets = sets.map(|s| (s.client_id.as_str(), s.seen_ms, s.claim.unwrap().seated));
    let a = ("a", 30, SeatTime::recorded(EPOCH));
    let b = ("b", 40, SeatTime::since_start(1500));
    assert_eq!(sets.collect::<Vec<_>>(), [a, b]);
}

#[test]
fn a_restore_from_an_old_list_makes_no_ghost() {
    let mut presence = Presence::default();
    presence.seated(&id("a"), S1, 1000);
    presence.seen(&id("a"), 1);
    written(&mut presence);
    let list = vec![seated("a", S1, 1), seated("b", S1, 1)];
    presence.unseated(&id("a"), S1);
    presence.restore(list, 2000, 9);
    let left = presence.claiming(512).into_iter().collect();
    let batch = presence.batch(512, &left).unwrap();
    assert_eq!((batch.sets.len(), batch.dels.len()), (0, 1));
    presence.confirm(batch);
    assert_eq!(presence.len(), 0);
}

#[test]
fn who_is_found_is_removed_unless_it_is_here() {
    let mut presence = Presence::default();
    presence.seated(&id("here"), S1, 1000);
    presence.seen(&id("here"), 5);
    written(&mut presence);
    for text in ["here", "ghost", "back"] {
        presence.found(id(text));
    }
    presence.seated(&id("back"), S2, 2000);
    presence.seen(&id("back"), 6);
    let batch = batch(&mut presence).unwrap();
    assert_eq!((batch.sets.len(), batch.dels.len()), (1, 1));
    assert!(batch.dels[0].is_contested, "nobody knows its value");
    presence.confirm(batch);
    assert_eq!(presence.len(), 2);
}

#[test]
fn batches_are_bounded_and_in_order() {
    let mut presence = Presence::default();
    for n in 0..10 {
        presence.seated(&id(&n.to_string()), S1, 1000);
        presence.seen(&id(&n.to_string()), 1);
    }
    let lens: Vec<_> = std::iter::from_fn(|| presence.batch(4, &HashSet::default())).collect();
    assert_eq!(lens.iter().map(Batch::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(lens[1].sets[0].client_id.as_str(), "4");
}
