//! Spreads the dials of a channel that knows many endpoints.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Dials that begin at once, of all endpoints of a channel together.
///
/// Thousands of handshakes at once take so long that their own time limits end them, and the first one is done when
/// all are: no call can be made before.
const AT_ONCE: usize = 64;

/// How long a dial keeps others from beginning. Endpoints that don't answer must not stand in the way of those that do.
const TURN: Duration = Duration::from_millis(10);

/// Shared by the pools of a channel.
#[derive(Clone, Debug)]
pub(crate) struct DialGate(Arc<Semaphore>);

impl Default for DialGate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl DialGate {
    /// Runs a dial when its turn has come. Turns are taken in the order of asking.
    ///
    /// The dial is made and boxed only then: it is twenty times as large as the wait for it.
    pub(super) async fn pass<F: Future>(&self, dial: impl FnOnce() -> F) -> F::Output {
        // The gate is never closed; if it were, there would be nothing to wait for.
        let turn = self.0.acquire().await.ok();
        let mut dial = Box::pin(dial());
        if let Ok(dialled) = tokio::time::timeout(TURN, &mut dial).await {
            return dialled;
        }
        drop(turn);
        dial.await
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
        for _ in 0..2 * AT_ONCE {
            let gate = gate.clone();
            dials.spawn(async move {
                gate.pass(|| sleep(Duration::from_millis(3))).await;
                start.elapsed().as_millis()
            });
        }
        let mut ended = dials.join_all().await;
        ended.sort_unstable();
        let (first, second) = ended.split_at(AT_ONCE);
        assert!(first.iter().all(|ms| *ms == 3), "{first:?}");
        assert!(second.iter().all(|ms| *ms == 6), "{second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_hang_let_others_pass() {
        let gate = DialGate::default();
        let mut hanging = JoinSet::new();
        for _ in 0..3 * AT_ONCE {
            let gate = gate.clone();
            hanging.spawn(async move { gate.pass(pending::<()>).await });
        }
        let dial = gate.pass(|| async { 7 });
        assert_eq!(timeout(4 * TURN, dial).await, Ok(7));
    }
}
