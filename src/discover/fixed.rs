//! A list that never changes.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::{Discover, Resolution, Resolutions};

/// The endpoints that were given to the connector.
#[derive(Debug)]
pub(crate) struct Fixed(pub(crate) Resolution);

impl Discover for Fixed {
    fn name(&self) -> String {
        "fixed".to_owned()
    }

    fn resolutions(self: Box<Self>) -> Resolutions {
        Box::pin(Once::new(Ok(self.0)))
    }
}

/// One answer, and no other.
pub(super) struct Once(Option<Answer>);

type Answer = Result<Resolution, Box<dyn std::error::Error + Send + Sync>>;

impl Once {
    pub(super) fn new(answer: Answer) -> Self {
        Self(Some(answer))
    }
}

impl Stream for Once {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Answer>> {
        Poll::Ready(self.0.take())
    }
}
