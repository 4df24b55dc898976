//! Sources of endpoints that are written for tower.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tower::discover::{Change, Discover as Changes};

use crate::endpoint::Endpoint;

use super::{Discover, Resolution, Resolutions};

/// Any [`tower::discover::Discover`] of endpoints, as a source of a channel.
///
/// `Insert` adds an endpoint, or replaces the one of its key; `Remove` takes it out. Changes that are there at the same
/// time become one [`Resolution`]. An error is reported as trouble with discovery and, like the end of the stream, leaves
/// the endpoints in use. Unlike tower's balancers it is polled on after an error, so it has to pause before the next one, as
/// every [`Discover`] does.
///
/// ```
/// use tower::discover::Change;
/// use trunkline::{Connector, Endpoint, TowerDiscover};
///
/// let changes = tokio_stream::iter([
///     Ok::<_, std::io::Error>(Change::Insert("a", Endpoint::tcp("server1.internal:50051"))),
///     Ok(Change::Insert("b", Endpoint::tcp("server2.internal:50051"))),
/// ]);
/// let connector = Connector::discover(TowerDiscover::new("registry", changes));
/// ```
pub struct TowerDiscover<D: Changes> {
    name: String,
    changes: Pin<Box<D>>,
    /// In the order in which they came, but for those that took the place of others.
    known: Vec<(D::Key, Endpoint)>,
    places: HashMap<D::Key, usize>,
    /// To be told after what came before it.
    trouble: Option<Box<dyn StdError + Send + Sync>>,
    is_over: bool,
}

/// Changes that are taken in at once: a source that always has more must not keep others from the thread, nor what is
/// known from the channel.
const AT_ONCE: usize = 1024;

impl<D> TowerDiscover<D>
where
    D: Changes + Send + 'static,
    D::Key: Hash + Eq + Clone + Send,
    D::Service: Into<Endpoint>,
    D::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A source of that name, which status and errors show.
    pub fn new(name: impl Into<String>, changes: D) -> Self {
        Self {
            name: name.into(),
            changes: Box::pin(changes),
            known: Vec::new(),
            places: HashMap::new(),
            trouble: None,
            is_over: false,
        }
    }

    fn insert(&mut self, key: D::Key, endpoint: Endpoint) {
        match self.places.get(&key) {
            Some(place) => self.known[*place].1 = endpoint,
            None => {
                self.places.insert(key.clone(), self.known.len());
                self.known.push((key, endpoint));
            }
        }
    }

    fn remove(&mut self, key: &D::Key) {
        let Some(place) = self.places.remove(key) else {
            return;
        };
        self.known.swap_remove(place);
        if let Some((moved, _)) = self.known.get(place) {
            self.places.insert(moved.clone(), place);
        }
    }

    /// Takes in what is there. Says whether that was anything.
    fn take_in(&mut self, cx: &mut Context<'_>) -> bool {
        for count in 0..AT_ONCE {
            if self.is_over || self.trouble.is_some() {
                return count > 0;
            }
            match self.changes.as_mut().poll_discover(cx) {
                Poll::Ready(Some(Ok(Change::Insert(key, service)))) => {
                    self.insert(key, service.into());
                }
                Poll::Ready(Some(Ok(Change::Remove(key)))) => self.remove(&key),
                Poll::Ready(Some(Err(error))) => {
                    self.trouble = Some(error.into());
                    return count > 0;
                }
                Poll::Ready(None) => {
                    self.is_over = true;
                    return count > 0;
                }
                Poll::Pending => return count > 0,
            }
        }
        true
    }
}

impl<D> Stream for TowerDiscover<D>
where
    D: Changes + Send + 'static,
    D::Key: Hash + Eq + Clone + Send + Unpin,
    D::Service: Into<Endpoint>,
    D::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Item = Result<Resolution, Box<dyn StdError + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.take_in(cx) {
            let endpoints = self.known.iter().map(|(_, endpoint)| endpoint.clone());
            return Poll::Ready(Some(Ok(Resolution::new(endpoints))));
        }
        if let Some(trouble) = self.trouble.take() {
            return Poll::Ready(Some(Err(trouble)));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl<D> Discover for TowerDiscover<D>
where
    D: Changes + Send + 'static,
    D::Key: Hash + Eq + Clone + Send + Unpin,
    D::Service: Into<Endpoint>,
    D::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    fn name(&self) -> String {
        self.name.clone()
    }

    fn resolutions(self: Box<Self>) -> Resolutions {
        Box::into_pin(self)
    }
}

impl<D: Changes> fmt::Debug for TowerDiscover<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerDiscover")
            .field("name", &self.name)
            .field("known", &self.known.len())
            .finish_non_exhaustive()
    }
}
