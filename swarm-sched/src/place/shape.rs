//! Pure: what tasks ask of their nodes, remembered for those that ask alike.
//!
//! Of most services the tasks ask for the same: so much memory, a constraint or two. Such a
//! [`Shape`] keeps which nodes may suit, so that the next decision does not ask 100,000 nodes again
//! whether they have the label.

use swarm_core::model::{Platform, PortProtocol, Resources};

use super::bits::Bits;
use super::filter::Demand;
use super::labels::Members;
use super::load::NodeLoad;

/// How many shapes are kept. More are found anew, at the price of one look at every node.
const KEPT: usize = if cfg!(test) { 3 } else { 64 };

/// All that filters look at, apart from the service: tasks with equal needs suit the same nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Needs {
    pub(super) reservation: Option<Resources>,
    pub(super) constraints: Vec<String>,
    pub(super) platforms: Vec<Platform>,
    pub(super) plugins: Vec<(&'static str, String)>,
    pub(super) host_ports: Vec<(PortProtocol, u16)>,
    pub(super) cluster_volumes: bool,
}

/// The nodes that may suit tasks of certain needs.
///
/// Invariants, for every seat: `suits` has it if and only if the node passes every filter that
/// looks at the node alone; `open` is a part of `suits`; a node that passes every filter is in
/// `open`. So what is not in `open` need not be looked at. What is in it may still be full: that
/// is found when the node is tried, and noted, until something on the node ends.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    needs: Needs,
    suits: Bits,
    pub(super) open: Bits,
}

impl Shape {
    /// Whether any of some seats suits.
    pub(super) fn suits_any(&self, members: &Members) -> bool {
        match members {
            Members::All => !self.suits.is_empty(),
            Members::Set(set) => self.suits.next_in(0, Some(set), None, None).is_some(),
            Members::List(list) => list.iter().any(|seat| self.suits.contains(*seat)),
        }
    }
}

/// The shapes that were asked about last, the last one first.
#[derive(Clone, Debug, Default)]
#[expect(clippy::vec_box, reason = "each look moves those before the one that is found")]
pub(super) struct Shapes(Vec<Box<Shape>>);

impl Shapes {
    /// Brings the shape of a demand to the front. O(shapes) where it is known. Where one is known
    /// that only asks for more room or less, or for other ports, nodes suit this one as they suit that:
    /// a copy of a set. Elsewhere O(nodes).
    pub(super) fn find(&mut self, demand: &Demand<'_>, nodes: &[NodeLoad]) {
        let known = self.0.iter().position(|shape| demand.is_for(&shape.needs));
        let at = known.unwrap_or_else(|| {
            let related = self.0.iter().find(|shape| demand.suits_as(&shape.needs));
            let suits = match related {
                Some(shape) => shape.suits.clone(),
                None => Bits::of(nodes.len(), |seat| demand.suits(&nodes[seat])),
            };
            self.0.truncate(KEPT - 1);
            let open = suits.clone();
            self.0.push(Box::new(Shape { needs: demand.needs(), suits, open }));
            self.0.len() - 1
        });
        self.0[..=at].rotate_right(1);
    }

    /// The shape that was looked for last.
    pub(super) fn front(&self) -> &Shape {
        &self.0[0]
    }

    /// A node turned out to be full for the shape that was looked for last.
    pub(super) fn close(&mut self, seat: usize) {
        self.0[0].open.remove(seat);
    }

    /// Something on a node ended: whoever it was full for may fit now. O(shapes).
    pub(super) fn reopen(&mut self, seat: usize) {
        for shape in &mut self.0 {
            if shape.suits.contains(seat) {
                shape.open.insert(seat);
            }
        }
    }

    /// A node is another one than before.
    pub(super) fn renew(&mut self, seat: usize, node: &NodeLoad) {
        for shape in &mut self.0 {
            if Demand::from_needs(&shape.needs).suits(node) {
                shape.suits.insert(seat);
                shape.open.insert(seat);
            } else {
                shape.suits.remove(seat);
                shape.open.remove(seat);
            }
        }
    }

    /// The seats are others than before.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether every shape is right about a node.
    pub(super) fn are_right(&self, seat: usize, node: &NodeLoad) -> bool {
        self.0.iter().all(|shape| {
            let demand = Demand::from_needs(&shape.needs);
            let (suits, open) = (shape.suits.contains(seat), shape.open.contains(seat));
            suits == demand.suits(node)
                && (suits || !open)
                && (open || !demand.suits(node) || !demand.has_room(node))
        })
    }
}
