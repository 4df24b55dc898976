//! A place on a call's way.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// What happens to who comes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Act {
    #[default]
    Pass,
    Fail,
    Hold,
}

/// One place. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    act: Act,
    reached: bool,
    held: Vec<Waker>,
}

/// The place lets nobody pass.
#[derive(Debug)]
pub struct Failed;

impl Stop {
    pub fn set(&self, act: Act) {
        let mut inner = self.0.lock().unwrap();
        inner.act = act;
        inner.reached = false;
        let held = std::mem::take(&mut inner.held);
        drop(inner);
        for waker in held {
            waker.wake();
        }
    }

    pub fn act(&self) -> Act {
        self.0.lock().unwrap().act
    }

    /// Notes that somebody is there who can't wait here.
    pub fn reach(&self) {
        self.0.lock().unwrap().reached = true;
    }

    /// Whether somebody came since the act was set.
    pub fn is_reached(&self) -> bool {
        self.0.lock().unwrap().reached
    }

    pub fn poll_pass(&self, cx: &Context<'_>) -> Poll<Result<(), Failed>> {
        let mut inner = self.0.lock().unwrap();
        inner.reached = true;
        match inner.act {
            Act::Pass => Poll::Ready(Ok(())),
            Act::Fail => Poll::Ready(Err(Failed)),
            Act::Hold => {
                if !inner.held.iter().any(|held| held.will_wake(cx.waker())) {
                    inner.held.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    pub async fn pass(&self) -> Result<(), Failed> {
        poll_fn(|cx| self.poll_pass(cx)).await
    }
}
