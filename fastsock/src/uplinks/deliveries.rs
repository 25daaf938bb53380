//! How what lanes carry gets to its destination, for whoever looks.

use std::time::Duration;

use tokio::time::Instant;

use super::{Item, Lanes, RouteBooks};
use crate::{forwarder::breaker::BreakerState, histogram::Durations, types::ClientId};

/// The way to one destination at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Deliveries {
    /// POSTs by what they came to.
    pub(crate) posts: [(&'static str, u64); 5],
    /// What an attempt takes.
    pub(crate) seconds: Durations,
    /// From taking a message to its 2xx.
    pub(crate) delivery: Durations,
    /// Attempts that wait for an answer.
    pub(crate) in_flight: u64,
    pub(crate) breaker: BreakerState,
    /// Times that the breaker has opened.
    pub(crate) breaker_opened: u64,
    /// The age of the oldest that is held in memory; zero when nothing is.
    pub(crate) oldest: Duration,
}

impl<I: Item> Lanes<I> {
    /// What waits of one key: items, and the bytes they count for.
    pub(crate) fn waiting(&self, key: &ClientId) -> (usize, usize) {
        self.state.lock().queue.waiting(key)
    }

    /// How deliveries to the default destination go; the age and the time of deliveries are those of all. Looks at each lane.
    pub(crate) fn deliveries(&self) -> Deliveries {
        let (in_flight, breaker, oldest) = {
            let state = self.state.lock();
            let (oldest, way) = (state.queue.oldest(), &state.ways[0]);
            (way.in_flight, way.retries.breaker_state(), oldest)
        };
        let now = Instant::now();
        let all = &self.running.posts;
        let (posts, breaker_opened) = match &self.ways[..] {
            [_] => (all, &self.running.breaker_opened),
            ways => (&ways[0].posts, &ways[0].breaker_opened),
        };
        Deliveries {
            posts: posts.results(),
            seconds: posts.seconds(),
            delivery: all.delivery(),
            in_flight: in_flight as u64,
            breaker,
            breaker_opened: breaker_opened.load(),
            oldest: oldest.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)),
        }
    }

    /// The same for each route, by its name.
    pub(crate) fn route_deliveries(&self) -> Vec<(String, Deliveries)> {
        let state = self.state.lock();
        let routes = self.ways.iter().zip(&state.ways).skip(1);
        let routes = routes.map(|(way, of_way)| {
            let deliveries = Deliveries {
                posts: way.posts.results(),
                seconds: way.posts.seconds(),
                delivery: way.posts.delivery(),
                in_flight: of_way.in_flight as u64,
                breaker: of_way.retries.breaker_state(),
                breaker_opened: way.breaker_opened.load(),
                oldest: Duration::ZERO,
            };
            (way.name.to_string(), deliveries)
        });
        routes.collect()
    }

    /// The books of each route by its name, those of the default one first, whose name is empty. Looks at all that is held.
    pub(crate) fn route_books(&self) -> Vec<(String, RouteBooks)> {
        let state = self.state.lock();
        let held = state.queue.held_by_way();
        let ways = self.ways.iter().zip(&state.ways).zip(held);
        let books = ways.map(|((way, of_way), held)| {
            let books = RouteBooks {
                held,
                ..of_way.books
            };
            (way.name.to_string(), books)
        });
        books.collect()
    }
}
