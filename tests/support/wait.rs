//! Waiting for a condition, with a limit. The only place of the tests that sleeps.

use std::fmt::Debug;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(1);

/// How often another process is asked for one, which costs both a connection.
const ASK_STEP: Duration = Duration::from_millis(20);

/// Returns as soon as `condition` holds. Panics with the caller's place when it does not within `limit`.
///
/// Time is the runtime's own: under a paused clock the limit passes as fast as the runtime is idle.
#[track_caller]
pub fn wait_until(
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        if !holds_within(limit, &mut condition).await {
            panic!("the condition at {caller} did not hold within {limit:?}");
        }
    }
}

/// Returns as soon as `value` gives `wanted`. Panics with the last value seen when it does not within `limit`.
#[track_caller]
pub fn wait_equal<T: PartialEq + Debug>(
    limit: Duration,
    wanted: T,
    mut value: impl FnMut() -> T,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let mut last = value();
        let mut equal = || {
            last = value();
            last == wanted
        };
        if !holds_within(limit, &mut equal).await {
            panic!("at {caller}: wanted {wanted:?} within {limit:?}, last saw {last:?}");
        }
    }
}

/// Awaits `future` for at most `limit`. Panics, naming `what` was awaited, when it takes longer.
#[track_caller]
pub fn within<F: Future>(
    limit: Duration,
    what: &str,
    future: F,
) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        match timeout(limit, future).await {
            Ok(output) => output,
            Err(_) => panic!("at {caller}: {what} took longer than {limit:?}"),
        }
    }
}

/// Looks at `condition` until it holds or `limit` is over; tells which.
pub async fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(STEP).await;
    }
}

/// The pauses between questions to another process, with a limit:
///
/// ```ignore
/// let asking = Asking::for_at_most(LIMIT);
/// while !server.says_yes().await {
///     assert!(asking.again().await, "no yes within {LIMIT:?}");
/// }
/// ```
#[derive(Debug)]
pub struct Asking {
    end: Instant,
}

impl Asking {
    pub fn for_at_most(limit: Duration) -> Self {
        Self {
            end: Instant::now() + limit,
        }
    }

    /// Waits for the next question's time. False when the limit is over.
    pub async fn again(&self) -> bool {
        sleep(ASK_STEP).await;
        Instant::now() < self.end
    }
}
