//! Others that train the same model at the same time, as a layer sees them.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::ParamStore;
use crate::Result;

/// Processes that compute one training step of one model together, each on its own rows of the batch: what layers need
/// whose value on a row depends on the other rows.
pub trait Peers: Send + Sync + Debug {
    /// The numbers of all, in one order for all. All call it the same number of times in a step, in the same order.
    ///
    /// # Errors
    /// One that is gone or whose step has failed.
    fn gather(&self, own: &[f64]) -> Result<Vec<Vec<f64>>>;

    /// A step begins.
    fn begin(&self);

    /// Whether the step ended early here because it has failed elsewhere.
    fn interrupted(&self) -> bool;
}

/// Whom the present step is taken with, if it is taken with others.
#[derive(Debug, Default)]
pub(super) struct Place {
    peers: RwLock<Option<Arc<dyn Peers>>>,
    /// Whether there is a layer that asks for them.
    wanted: AtomicBool,
}

impl Place {
    fn swap(&self, peers: Option<Arc<dyn Peers>>) -> Option<Arc<dyn Peers>> {
        std::mem::replace(&mut *self.peers.write().unwrap_or_else(PoisonError::into_inner), peers)
    }
}

/// Computation on rows that all peers have in common; it ends when this is dropped.
#[derive(Debug)]
pub struct Apart {
    place: Arc<Place>,
    peers: Option<Arc<dyn Peers>>,
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.place.swap(self.peers.take());
    }
}

/// A step that is taken together; it ends when this is dropped, and nobody is asked any more.
#[derive(Debug)]
pub(crate) struct Together {
    place: Arc<Place>,
    peers: Option<Arc<dyn Peers>>,
}

impl Together {
    /// Whether the step ended early here because it has failed elsewhere.
    pub(crate) fn interrupted(&self) -> bool {
        self.peers.as_ref().is_some_and(|peers| peers.interrupted())
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        self.place.swap(None);
    }
}

impl ParamStore {
    /// Notes that a layer takes statistics of a batch, which in training together are those of all.
    pub(crate) fn note_statistics(&self) {
        self.peers.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether a layer takes statistics of a batch.
    pub(crate) fn has_statistics(&self) -> bool {
        self.peers.wanted.load(Ordering::Relaxed)
    }

    /// Begins a step with these, or alone.
    pub(crate) fn together(&self, peers: Option<Arc<dyn Peers>>) -> Together {
        if let Some(peers) = &peers {
            peers.begin();
        }
        self.peers.swap(peers.clone());
        Together { place: self.peers.clone(), peers }
    }

    /// For rows of all peers that this one has gathered: until the guard is dropped, layers find the statistics of a batch in the
    /// rows at hand.
    #[must_use = "rows are counted once for each peer again when the guard is dropped"]
    pub fn apart(&self) -> Apart {
        Apart { place: self.peers.clone(), peers: self.peers.swap(None) }
    }

    /// Those with whom the present step is taken; `None` outside of one, and alone.
    pub fn peers(&self) -> Option<Arc<dyn Peers>> {
        self.peers.peers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
