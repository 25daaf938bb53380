//! Waiting for something to become true, and never longer than a deadline.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for anything before it fails.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Asks again and again until the answer is there, for at most [`DEADLINE`]. Panics with `what` otherwise.
///
/// ```
/// # tokio_test_block_on(async {
/// let mut n = 0;
/// let ten = fastsock_servers::eventually("n is ten", async || { n += 1; (n == 10).then_some(n) }).await;
/// assert_eq!(ten, 10);
/// # });
/// # fn tokio_test_block_on(f: impl Future<Output = ()>) {
/// #     tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(f);
/// # }
/// ```
pub async fn eventually<S: Settled>(what: &str, check: impl AsyncFnMut() -> S) -> S::Value {
    eventually_within(DEADLINE, what, check).await
}

/// As [`eventually`], with a deadline of its own. A check that hangs counts as a failed one.
pub async fn eventually_within<S: Settled>(
    deadline: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> S,
) -> S::Value {
    until(deadline, &mut check)
        .await
        .unwrap_or_else(|| panic!("not within {deadline:?}: {what}"))
}

/// As [`eventually_within`], for who has more to say of what is not there in time: that is `None`.
pub async fn until<S: Settled>(
    deadline: Duration,
    mut check: impl AsyncFnMut() -> S,
) -> Option<S::Value> {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if let Ok(answer) = timeout(left.max(POLL), check()).await
            && let Some(value) = answer.settled()
        {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        sleep(POLL).await;
    }
}

/// As [`eventually_within`], for tests without a runtime: it blocks the thread.
pub fn wait_until<S: Settled>(
    deadline: Duration,
    what: &str,
    mut check: impl FnMut() -> S,
) -> S::Value {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = check().settled() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(POLL);
    }
}

/// Awaits something for at most [`DEADLINE`]. Panics with `what` otherwise.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// An answer that may not be there yet.
pub trait Settled {
    /// What is there once it is.
    type Value;

    /// The value, or `None` to ask again.
    fn settled(self) -> Option<Self::Value>;
}

impl Settled for bool {
    type Value = ();

    fn settled(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Settled for Option<T> {
    type Value = T;

    fn settled(self) -> Option<T> {
        self
    }
}

impl<T, E> Settled for Result<T, E> {
    type Value = T;

    fn settled(self) -> Option<T> {
        self.ok()
    }
}

/// How often a check is asked again.
pub const POLL: Duration = Duration::from_millis(5);
