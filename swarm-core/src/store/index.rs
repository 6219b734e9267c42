//! Pure: what the store has to know of each kind of object: its name, its stamps, its specification.

use super::Object;
use crate::id::Id;
use crate::model::{Cluster, Config, Network, Node, Secret, Service, Task, Version};
use crate::time::Timestamp;

/// A kind of object that a table holds.
pub trait Kind: Clone + Sized + 'static {
    /// Docker's word for the kind.
    const WORD: &'static str;

    /// The object's id.
    fn id(&self) -> Id<Self>;

    /// The unique name that it holds; an object that is marked for removal holds none.
    fn name(&self) -> Option<&str>;

    /// Whether a client that holds `old` would overwrite something it has not seen by writing its
    /// specification back: whether `version` has to move.
    fn spec_differs(&self, old: &Self) -> bool;

    /// The revision that the object was read at.
    fn revision(&self) -> Version;

    /// Writes the stamps of a commit. `old` is the object before, absent for a creation.
    fn stamp(&mut self, old: Option<&Self>, version: Version, at: Timestamp);

    /// The object as one of any kind.
    fn into_object(self: std::sync::Arc<Self>) -> Object;
}

macro_rules! kinds {
    ($( $kind:ident, $word:literal, $name:expr, $differs:expr; )*) => {$(
        impl Kind for $kind {
            const WORD: &'static str = $word;

            fn id(&self) -> Id<Self> {
                self.id
            }

            fn name(&self) -> Option<&str> {
                let name: fn(&Self) -> Option<&str> = $name;
                name(self)
            }

            fn spec_differs(&self, old: &Self) -> bool {
                let differs: fn(&Self, &Self) -> bool = $differs;
                differs(self, old)
            }

            fn revision(&self) -> Version {
                self.revision
            }

            fn stamp(&mut self, old: Option<&Self>, version: Version, at: Timestamp) {
                self.created_at = old.map_or(at, |old| old.created_at);
                self.updated_at = at;
                self.version = match old {
                    Some(old) if !self.spec_differs(old) => old.version,
                    _ => version,
                };
                self.revision = version;
            }

            fn into_object(self: std::sync::Arc<Self>) -> Object {
                Object::$kind(self)
            }
        }
    )*};
}

kinds! {
    Cluster, "cluster", |_| None, |new, old| new.spec != old.spec || new.join_tokens != old.join_tokens;
    Node, "node", |_| None, |new, old| new.spec != old.spec;
    Service, "service", |s| (!s.pending_delete).then_some(&s.spec.name), |new, old| new.spec != old.spec;
    Task, "task", |_| None, |_, _| true;
    Network, "network", |n| (!n.pending_delete).then_some(&n.spec.name), |new, old| new.spec != old.spec;
    Secret, "secret", |s| Some(&s.spec.name), |new, old| new.spec != old.spec;
    Config, "config", |c| Some(&c.spec.name), |new, old| new.spec != old.spec;
}
