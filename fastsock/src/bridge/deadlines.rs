//! How long a stop may take: as long as the most impatient of those who wait for it allows.

use std::{future::Future, pin::pin};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// The deadlines of all who wait.
#[derive(Debug, Default)]
pub(super) struct Deadlines(watch::Sender<Vec<Instant>>);

/// One who waits; its deadline counts until this is dropped.
pub(super) struct Waiter<'a> {
    deadlines: &'a Deadlines,
    by: Instant,
}

impl Deadlines {
    pub(super) fn enter(&self, by: Instant) -> Waiter<'_> {
        self.0.send_modify(|all| all.push(by));
        Waiter {
            deadlines: self,
            by,
        }
    }

    /// The earliest.
    pub(super) fn earliest(&self) -> Instant {
        let earliest = self.0.borrow().iter().min().copied();
        earliest.unwrap_or_else(Instant::now) // nobody waits any more
    }

    /// Waits for this, until the earliest deadline at most.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut changes) = (pin!(work), self.0.subscribe());
        loop {
            changes.mark_unchanged();
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                () = sleep_until(self.earliest()) => return None,
                _ = changes.changed() => {}
            }
        }
    }

    /// Has something stop by the earliest deadline: tells it again when that changes.
    pub(super) async fn stop<T, F: Future<Output = T>>(&self, stop: impl Fn(Instant) -> F) -> T {
        let mut changes = self.0.subscribe();
        loop {
            changes.mark_unchanged();
            let by = self.earliest();
            let changed = async {
                while self.earliest() == by {
                    if changes.changed().await.is_err() {
                        std::future::pending().await
                    }
                }
            };
            tokio::select! {
                biased;
                done = stop(by) => return done,
                () = changed => {}
            }
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.deadlines.0.send_modify(|all| {
            if let Some(at) = all.iter().position(|by| *by == self.by) {
                all.swap_remove(at);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_most_impatient_counts_for_as_long_as_it_waits() {
        let (deadlines, start) = (Deadlines::default(), Instant::now());
        let second = |n| start + Duration::from_secs(n);
        let _patient = deadlines.enter(second(60));
        let others = async {
            sleep_until(second(1)).await;
            let gone = deadlines.enter(second(5));
            sleep_until(second(2)).await;
            drop(gone); // it has given up waiting
            sleep_until(second(8)).await;
            let hasty = deadlines.enter(second(9));
            pending::<()>().await;
            drop(hasty);
        };
        let told = RefCell::new(Vec::new());
        let stopping = deadlines.stop(|by| {
            told.borrow_mut().push(by);
            async move { sleep_until(by).await }
        });
        let work = async { tokio::join!(deadlines.within(pending::<()>()), stopping) };
        tokio::select! {
            _ = others => unreachable!("it never ends"),
            (within, ()) = work => assert_eq!(within, None),
        }
        assert_eq!(start.elapsed().as_secs(), 9);
        assert_eq!(told.into_inner().last(), Some(&second(9)));
        assert_eq!(
            deadlines.within(async { 1 }).await,
            Some(1),
            "what is done at once is done"
        );
    }
}
