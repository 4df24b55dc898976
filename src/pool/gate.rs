//! Spreads the dials of a channel that knows many endpoints.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Dials that begin at once, of all endpoints of a channel together.
///
/// Thousands of handshakes at once take so long that their own time limits end them, and the first one is done when
/// all are: no call can be made before.
const AT_ONCE: usize = 64;

/// As many to begin with, and one more with each that ends its turn, as TCP opens its window: the first call waits for
/// the first handshake only, and not for those of 63 others, which take a thread some milliseconds.
const FIRST: usize = 4;

/// How long a dial keeps others from beginning. Endpoints that don't answer must not stand in the way of those that do.
const TURN: Duration = Duration::from_millis(10);

/// Shared by the pools of a channel.
#[derive(Clone, Debug)]
pub(crate) struct DialGate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    turns: Semaphore,
    /// How many more there will be at once.
    more: AtomicUsize,
}

impl Default for DialGate {
    fn default() -> Self {
        Self(Arc::new(Inner {
            turns: Semaphore::new(FIRST),
            more: AtomicUsize::new(AT_ONCE - FIRST),
        }))
    }
}

impl DialGate {
    /// Runs a dial when its turn has come. Turns are taken in the order of asking.
    ///
    /// The dial is made and boxed only then: it is twenty times as large as the wait for it.
    pub(super) async fn pass<F: Future>(&self, dial: impl FnOnce() -> F) -> F::Output {
        // The gate is never closed; if it were, there would be nothing to wait for.
        let turn = self.0.turns.acquire().await.ok();
        let mut dial = Box::pin(dial());
        let dialled = tokio::time::timeout(TURN, &mut dial).await;
        drop(turn);
        self.widen();
        match dialled {
            Ok(dialled) => dialled,
            Err(_) => dial.await,
        }
    }

    fn widen(&self) {
        let less = |more: usize| more.checked_sub(1);
        if self.0.more.fetch_update(Relaxed, Relaxed, less).is_ok() {
            self.0.turns.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn no_more_begin_at_once() {
        let (gate, start) = (DialGate::default(), Instant::now());
        let mut dials = JoinSet::new();
        for _ in 0..4 * AT_ONCE {
            let gate = gate.clone();
            dials.spawn(async move {
                gate.pass(|| sleep(Duration::from_millis(3))).await;
                start.elapsed().as_millis()
            });
        }
        let ended = dials.join_all().await;
        let rounds = (1..=7).map(|round| ended.iter().filter(|ms| **ms == 3 * round).count());
        let rounds: Vec<_> = rounds.collect();
        assert_eq!(rounds, [4, 8, 16, 32, AT_ONCE, AT_ONCE, AT_ONCE]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_hang_let_others_pass() {
        let gate = DialGate::default();
        let mut hanging = JoinSet::new();
        for _ in 0..3 * AT_ONCE {
            let gate = gate.clone();
            hanging.spawn(async move { gate.pass(pending::<()>).await });
        }
        // Until all have asked: on the paused clock time passes when nothing else is left to do.
        sleep(TURN / 2).await;
        let dial = gate.pass(|| async { 7 });
        assert_eq!(timeout(8 * TURN, dial).await, Ok(7));
    }
}
