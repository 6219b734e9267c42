//! Pure: what was derived from an immutable value, kept beside it.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// At most one value that somebody derived from what this lies in. What changes has none: neither
/// does a copy, which is made in order to be changed.
#[derive(Default)]
pub(super) struct Memo(OnceLock<Arc<dyn Any + Send + Sync>>);

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Memo {
    /// The value that lies here, if it is one of this type; else one that is derived now, and left
    /// here if nothing was.
    pub(super) fn get<T: Any + Send + Sync>(&self, derive: impl FnOnce() -> T) -> Arc<T> {
        if let Some(known) = self.0.get() {
            let known = known.clone().downcast();
            return known.unwrap_or_else(|_| Arc::new(derive()));
        }
        let derived = Arc::new(derive());
        // Who comes second leaves the first, which is equal.
        let _ = self.0.set(derived.clone());
        derived
    }
}
