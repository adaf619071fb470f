//! Effects: clock — the one way tests wait: ask again until it is so, and say what was seen last when it is not.

use std::{
    fmt::{self, Display},
    time::{Duration, Instant},
};

/// How long to pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// What one attempt may return: `Ok` or `Some` or `true` ends the waiting, everything else says "not yet".
pub trait Attempt {
    /// What is waited for.
    type Value;

    /// The value, or what was seen instead of it.
    fn settle(self) -> Result<Self::Value, String>;
}

impl<T, E: Display> Attempt for Result<T, E> {
    type Value = T;

    fn settle(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

impl<T> Attempt for Option<T> {
    type Value = T;

    fn settle(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

impl Attempt for bool {
    type Value = ();

    fn settle(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "it is not so".to_owned())
    }
}

/// What was waited for did not come about. `Debug` prints the same as `Display`, so that `unwrap` reads well.
#[derive(Clone, PartialEq, Eq)]
pub struct NotYet {
    what: String,
    waited: Duration,
    last: String,
}

impl Display for NotYet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, waited, last } = self;
        write!(
            formatter,
            "not within {:.1} s: {what}; last seen: {last}",
            waited.as_secs_f32()
        )
    }
}

impl fmt::Debug for NotYet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, formatter)
    }
}

impl std::error::Error for NotYet {}

/// Repeats `attempt` every 50 ms until it succeeds, for as long as `patience`.
///
/// An attempt that hangs is given up at the deadline, so this always returns.
pub async fn eventually<A: Attempt>(
    patience: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> A,
) -> Result<A::Value, NotYet> {
    let started = Instant::now();
    let mut last = "nothing, the first attempt did not end".to_owned();
    loop {
        let left = patience.saturating_sub(started.elapsed());
        if let Ok(outcome) = tokio::time::timeout(left, attempt()).await {
            match outcome.settle() {
                Ok(value) => return Ok(value),
                Err(seen) => last = seen,
            }
        }
        if started.elapsed() >= patience {
            return Err(NotYet {
                what: what.to_owned(),
                waited: started.elapsed(),
                last,
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::eventually;

    #[tokio::test]
    async fn waiting_ends_with_the_first_success() {
        let mut attempts = 0;
        let value = eventually(Duration::from_secs(5), "three attempts", async || {
            attempts += 1;
            (attempts == 3).then_some("there")
        })
        .await;
        assert_eq!(value, Ok("there"));
    }

    #[tokio::test]
    async fn a_deadline_reports_what_was_seen_last() {
        let error = eventually(Duration::from_millis(60), "the impossible", async || {
            Err::<(), _>("a wall")
        })
        .await
        .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("the impossible; last seen: a wall"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_attempt_that_hangs_is_given_up() {
        let error = eventually(Duration::from_millis(60), "silence", async || {
            std::future::pending::<()>().await;
            true
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
    }
}
