//! The watches of this process, so that each is there once.

use std::sync::{Arc, Mutex, Weak};

use crate::lock::lock;

use super::watch::{Terms, Watch};

/// A handful at most, so a list will do. Those that nobody follows any more are dropped at the next look.
static WATCHES: Mutex<Vec<Weak<Watch>>> = Mutex::new(Vec::new());

/// The watch with these terms: the one that is running, or a new one.
pub(super) fn shared(terms: &Terms) -> Arc<Watch> {
    let mut watches = lock(&WATCHES);
    watches.retain(|watch| watch.strong_count() > 0);
    let mut running = watches.iter().filter_map(Weak::upgrade);
    if let Some(found) = running.find(|watch| watch.terms() == terms) {
        return found;
    }
    let new = Arc::new(Watch::new(terms.clone()));
    watches.push(Arc::downgrade(&new));
    new
}
