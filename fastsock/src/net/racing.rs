//! Attempts of which one is enough: the addresses of a name, the sentinels of a Redis.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

/// Makes attempts in their order, each when the one before has failed, or beside it when that takes longer than `head_start`
/// (RFC 8305 §5). Returns the first success.
///
/// # Errors
/// Those of all attempts, in their order; none when there was no attempt.
pub(crate) async fn first_of<T, E>(
    attempts: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>,
    head_start: Duration,
) -> Result<T, Vec<E>> {
    let mut attempts = attempts.into_iter().enumerate().peekable();
    let (mut running, mut errors) = (FuturesUnordered::new(), Vec::new());
    loop {
        if let Some((n, attempt)) = attempts.next() {
            running.push(async move { (n, attempt.await) });
        }
        tokio::select! {
            ended = running.next() => match ended {
                Some((_, Ok(success))) => return Ok(success),
                Some((n, Err(error))) => errors.push((n, error)),
                None => break,
            },
            () = sleep(head_start), if attempts.peek().is_some() => {}
        }
    }
    errors.sort_by_key(|(n, _)| *n); // so that the same trouble has the same words
    Err(errors.into_iter().map(|(_, error)| error).collect())
}

/// How long an address is tried before the next is tried beside it: the "Connection Attempt Delay" of RFC 8305 §8.
pub(crate) const ADDRESS_HEAD_START: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these takes so long and ends so.
    async fn race(
        attempts: &[(u64, Result<u8, &'static str>)],
    ) -> (Result<u8, Vec<&'static str>>, Duration) {
        let attempts = attempts.iter().map(|(ms, end)| async move {
            sleep(Duration::from_millis(*ms)).await;
            *end
        });
        let start = tokio::time::Instant::now();
        let first = first_of(attempts, Duration::from_millis(250)).await;
        (first, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_is_tried_when_one_fails_or_takes_long() {
        let ms = Duration::from_millis;
        let (never, no) = (1_000_000, Err("no"));
        assert_eq!(race(&[(10, Ok(1)), (0, Ok(2))]).await, (Ok(1), ms(10)));
        assert_eq!(race(&[(10, no), (5, Ok(2))]).await, (Ok(2), ms(15)));
        let slow = [(never, Ok(1)), (never, Ok(2)), (100, Ok(3))];
        assert_eq!(race(&slow).await, (Ok(3), ms(600)));
        let first_after_all = [(400, Ok(1)), (never, Ok(2))];
        assert_eq!(race(&first_after_all).await, (Ok(1), ms(400)));
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_is_wrong_is_told_in_the_order_of_the_attempts() {
        let (errors, _) = race(&[(400, Err("one")), (10, Err("two"))]).await;
        assert_eq!(errors.unwrap_err(), ["one", "two"]);
        assert!(race(&[]).await.0.unwrap_err().is_empty());
    }
}
