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
        Box::pin(Once(Some(self.0)))
    }
}

/// Its only answer.
struct Once(Option<Resolution>);

impl Stream for Once {
    type Item = Result<Resolution, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take().map(Ok))
    }
}
