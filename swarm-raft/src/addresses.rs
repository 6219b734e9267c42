//! Where the other members listen: as the group agreed, or where one was found after it moved.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::link::Peer;

/// The members' addresses; clones share them. openraft keeps a client for as long as its member is
/// one, and a member may move.
#[derive(Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<BTreeMap<u64, Listens>>>);

struct Listens {
    agreed: String,
    /// Good until the group agrees on another address.
    found: Option<String>,
}

impl Addresses {
    /// Takes over what the group agreed.
    pub(crate) fn agree<'a>(&self, members: impl Iterator<Item = (u64, &'a str)>) {
        let mut known = self.known();
        let mut before = std::mem::take(&mut *known);
        *known = members
            .map(|(id, agreed)| {
                let same = before.remove(&id).filter(|listens| listens.agreed == agreed);
                (id, same.unwrap_or_else(|| Listens { agreed: agreed.to_owned(), found: None }))
            })
            .collect();
    }

    /// A member answered there. Nothing is kept of who is not a member.
    pub(crate) fn found(&self, peer: &Peer) {
        if let Some(listens) = self.known().get_mut(&peer.raft_id) {
            listens.found = Some(peer.address.clone());
        }
    }

    /// The peer where it listens now.
    pub(crate) fn present(&self, peer: &Peer) -> Peer {
        let known = self.known();
        let address = known
            .get(&peer.raft_id)
            .map_or(&peer.address, |listens| listens.found.as_ref().unwrap_or(&listens.agreed));
        Peer { address: address.clone(), ..*peer }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, Listens>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(raft_id: u64, address: &str) -> Peer {
        Peer { raft_id, address: address.to_owned() }
    }

    #[test]
    fn where_a_member_was_found_counts_until_the_group_agrees_on_another_address() {
        let addresses = Addresses::default();
        let present = |id| addresses.present(&at(id, "first")).address;
        assert_eq!(present(7), "first", "nothing is known yet");
        addresses.found(&at(7, "elsewhere"));
        assert_eq!(present(7), "first", "it is no member");
        addresses.agree([(7, "a"), (8, "b")].into_iter());
        addresses.found(&at(7, "elsewhere"));
        assert_eq!((present(7), present(8)), ("elsewhere".to_owned(), "b".to_owned()));
        addresses.agree([(7, "a")].into_iter());
        assert_eq!((present(7), present(8)), ("elsewhere".to_owned(), "first".to_owned()));
        addresses.agree([(7, "c")].into_iter());
        assert_eq!(present(7), "c");
    }
}
