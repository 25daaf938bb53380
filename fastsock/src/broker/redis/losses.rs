//! Devices of gateways that died, of whom this one tells: what is on its way to the backend, and what has come there.
//!
//! Redis keeps a record of each until it is told. What is here outlives the link, so that nothing is told twice because Redis was
//! away between the telling and the removal of the record.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::lost::{Lost, Receipt},
    locks::Mutex,
    types::{ClientId, SessionId},
};

/// What is known of the records of Redis.
#[derive(Clone, Default)]
pub(super) struct Losses(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// Whether each is told, by the node that died.
    records: HashMap<(String, Vec<u8>), Telling>,
    /// One could not be told: until when none is tried.
    rest_until: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Telling {
    OnItsWay,
    /// It was told, or need not be: the record may go.
    Done,
}

/// A record of Redis.
pub(super) struct Record {
    pub(super) client_id: ClientId,
    session_id: SessionId,
    epoch: u64,
    text: Vec<u8>,
}

/// What is recorded of a device, by `node:session:epoch` of its owner.
pub(super) fn record(owner: &str, id: &[u8]) -> Option<Vec<u8>> {
    let mut parts = owner.split(':').skip(1);
    let (session, epoch) = (parts.next()?, parts.next()?);
    Some([format!("{session}:{epoch}:").as_bytes(), id].concat())
}

impl Losses {
    /// Whether more of a node may be on their way.
    pub(super) fn has_room(&self, node: &str) -> bool {
        let known = self.0.lock();
        let is_resting = known.rest_until.is_some_and(|until| Instant::now() < until);
        let of_node = known.records.keys().filter(|(of, _)| of == node);
        !is_resting && of_node.count() < MOST
    }

    /// Another node goes on with one.
    pub(super) fn leave(&self, node: &str) {
        self.0.lock().records.retain(|(of, _), _| of != node);
    }

    /// Those of these records that nothing has been done about.
    pub(super) fn news(&self, node: &str, records: Vec<Vec<u8>>) -> Vec<Record> {
        let mut known = self.0.lock();
        let mut news = Vec::new();
        for text in records {
            let key = (node.to_owned(), text);
            if known.records.contains_key(&key) {
                continue;
            }
            match Record::parse(&key.1) {
                Some(record) => news.push(record),
                None => drop(known.records.insert(key, Telling::Done)), // nobody can make sense of it
            }
        }
        news
    }

    /// Notes that one is on its way, and returns what is to be told.
    pub(super) fn tell(&self, node: &str, record: Record) -> Lost {
        let key = (node.to_owned(), record.text);
        self.0.lock().records.insert(key.clone(), Telling::OnItsWay);
        let known = self.clone();
        Lost {
            client_id: record.client_id,
            session_id: record.session_id,
            epoch: record.epoch,
            node: node.to_owned(),
            receipt: Receipt::new(move |is_told| {
                let mut known = known.0.lock();
                if is_told {
                    if let Some(telling) = known.records.get_mut(&key) {
                        *telling = Telling::Done;
                    }
                } else {
                    // It is tried again, by whoever is there then.
                    known.records.remove(&key);
                    known.rest_until = Some(Instant::now() + REST);
                }
            }),
        }
    }

    /// One need not be told.
    pub(super) fn settled(&self, node: &str, record: Record) {
        let key = (node.to_owned(), record.text);
        self.0.lock().records.insert(key, Telling::Done);
    }

    /// Those whose records may go.
    pub(super) fn told(&self, node: &str) -> Vec<Vec<u8>> {
        let known = self.0.lock();
        let done = known
            .records
            .iter()
            .filter(|((of, _), telling)| of == node && **telling == Telling::Done);
        done.map(|((_, record), _)| record.clone()).collect()
    }

    /// Their records are gone.
    pub(super) fn forget(&self, node: &str, records: &[Vec<u8>]) {
        let mut known = self.0.lock();
        for record in records {
            known.records.remove(&(node.to_owned(), record.clone()));
        }
    }
}

impl Record {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.splitn(3, ':');
        Some(Self {
            session_id: SessionId(parts.next()?.parse().ok()?),
            epoch: parts.next()?.parse().ok()?,
            client_id: ClientId::new(parts.next()?)?,
            text: text.to_owned(),
        })
    }
}

/// Records that may be on their way at once. All of those together are few beside what the lanes of events may hold.
const MOST: usize = 1024;
const REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_once_and_again_only_if_it_was_not() {
        let losses = Losses::default();
        let text = record("n1:7:1764:3:1700", b"a:b").unwrap();
        assert_eq!(text, b"7:1764:a:b");
        let news = |losses: &Losses| losses.news("n1", vec![text.clone()]).pop();
        let lost = losses.tell("n1", news(&losses).unwrap());
        assert_eq!(
            (lost.client_id.as_str(), lost.session_id.0, lost.epoch),
            ("a:b", 7, 1764)
        );
        assert!(news(&losses).is_none(), "it is on its way");
        drop(lost);
        let lost = losses.tell("n1", news(&losses).expect("it was not told"));
        assert!(losses.told("n1").is_empty());
        lost.receipt.told();
        drop(lost);
        assert!(news(&losses).is_none());
        assert_eq!(losses.told("n1"), std::slice::from_ref(&text));
        assert!(losses.told("n2").is_empty());
        losses.forget("n1", std::slice::from_ref(&text));
        assert!(losses.0.lock().records.is_empty());
    }

    #[test]
    fn a_record_that_is_none_is_removed() {
        let losses = Losses::default();
        assert!(losses.news("n1", vec![b"x".to_vec()]).is_empty());
        assert_eq!(losses.told("n1"), [b"x"]);
    }
}
