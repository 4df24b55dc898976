//! Following a watch, and leading it when nobody else does.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::watch::Receiver;

use super::registry;
use super::watch::{News, Terms, Watch};

/// One channel's part in a watch.
///
/// Of those who follow a watch, whoever got its lock first asks the agent. When that one is dropped, its connection
/// closes at once and the next one goes on; when the last is dropped, nothing is left. So a watch needs no task of its
/// own, and no runtime that must outlive the others.
pub(super) struct Follow {
    lead: Pin<Box<dyn Future<Output = Infallible> + Send>>,
    next: NextNews,
}

type NextNews = Pin<Box<dyn Future<Output = (News, Receiver<News>)> + Send>>;

impl Follow {
    pub(super) fn start(terms: &Terms) -> Self {
        let watch = registry::shared(terms);
        let news = watch.subscribe();
        Self {
            lead: Box::pin(Watch::lead(Arc::clone(&watch))),
            next: Box::pin(next(news)),
        }
    }

    /// The latest news, once for each change. Several changes may be seen as one.
    pub(super) fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<News> {
        // First, so that what comes of it is seen now.
        match self.lead.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => {}
        }
        self.next.as_mut().poll(cx).map(|(news, receiver)| {
            self.next = Box::pin(next(receiver));
            news
        })
    }
}

async fn next(mut receiver: Receiver<News>) -> (News, Receiver<News>) {
    if receiver.changed().await.is_err() {
        // The watch lives as long as its followers, of which this is one.
        std::future::pending::<()>().await;
    }
    let news = receiver.borrow_and_update().clone();
    (news, receiver)
}
