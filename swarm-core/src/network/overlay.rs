//! Pure: what an overlay network gets beside addresses: a VXLAN network identifier.

use std::collections::BTreeSet;

use super::{Allocation, InUse, NetError};
use crate::model::{Driver, NetworkSpec};

/// The name of the default driver.
pub const OVERLAY: &str = "overlay";
/// The driver option that holds the identifier, in Docker's spelling.
pub const VXLAN_ID: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// The first identifier (libnetwork: `vxlanIDStart`).
const FIRST: u32 = 4096;
/// The last: 24 bits.
const LAST: u32 = (1 << 24) - 1;

/// The manager's side of an overlay driver: the identifier that the specification asks for, else
/// the lowest free one. The allocator calls it, and drivers that carry overlays from their `allocate`.
///
/// # Errors
/// [`NetError::Missing`] when the identifier asked for is not one or is taken,
/// [`NetError::Exhausted`] when none is left.
pub fn allocate_overlay(spec: &NetworkSpec, in_use: &InUse) -> Result<Allocation, NetError> {
    let id_of = |driver: &Driver| driver.options.get(VXLAN_ID)?.parse::<u32>().ok();
    let taken: BTreeSet<u32> = in_use.states.iter().filter_map(|(_, state)| id_of(state)).collect();
    let id = match spec.driver.options.get(VXLAN_ID) {
        Some(text) => match text.parse::<u32>() {
            Ok(id) if id <= LAST && !taken.contains(&id) => id,
            _ => return Err(NetError::Missing(format!("VXLAN id {text} is not free"))),
        },
        None => (FIRST..=LAST)
            .find(|id| !taken.contains(id))
            .ok_or_else(|| NetError::Exhausted("the range of VXLAN ids".to_owned()))?,
    };
    let mut state = Driver { name: OVERLAY.to_owned(), ..Driver::default() };
    state.options.insert(VXLAN_ID.to_owned(), id.to_string());
    Ok(Allocation { state, wants_addresses: true, ipam: None })
}
