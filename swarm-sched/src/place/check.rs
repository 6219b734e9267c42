//! Pure: whether what is remembered of the nodes is what the view says, all the time and of a sample.

use swarm_core::model::ServiceId;
use swarm_core::store::Snapshot;

use super::loads::Loads;

/// After so many answers a node is compared with what the view says about it, and so is a service.
pub(super) const ANSWERS_PER_CHECK: u64 = 16;
/// After so many for each task of the node, or each place of the service, if there are more: for all
/// of them are looked at.
const ANSWERS_PER_TASK: u64 = 4;

/// When what was compared last.
#[derive(Default)]
pub(super) struct Checks {
    /// Nodes that were compared, and answers since.
    nodes: usize,
    since_node: u64,
    /// Answers since a service was compared.
    since_service: u64,
}

impl Checks {
    /// Before an answer about so many tasks of a service: compares a node with the view that the loads
    /// have been turned to, and that service, where it is time. If they differ, which would be a bug, that is logged, and
    /// everything is added up anew.
    pub(super) fn sample(
        &mut self,
        loads: &mut Loads,
        view: &Snapshot,
        (service, tasks): (ServiceId, usize),
    ) {
        self.since_node += 1;
        self.since_service += 1;
        let node = self.node(loads, view);
        let Some(wrong) = node.or_else(|| self.service(loads, view, service, tasks)) else {
            return;
        };
        debug_assert!(false, "what is remembered of {wrong} is not what the tasks say");
        tracing::error!(of = wrong, "what was remembered was wrong: a bug; adding up");
        *loads = loads.anew();
        loads.follow(&Snapshot::default(), view);
    }

    /// What is wrong about the next node, if it is time.
    fn node(&mut self, loads: &Loads, view: &Snapshot) -> Option<String> {
        let seat = nth_seat(self.nodes, loads)?;
        if self.since_node < due(loads.at(seat).active()) {
            return None;
        }
        (self.since_node, self.nodes) = (0, self.nodes + 1);
        (!loads.is_right(seat, view)).then(|| format!("node {}", loads.at(seat).id))
    }

    /// What is wrong about the service, if it is time.
    fn service(
        &mut self,
        loads: &Loads,
        view: &Snapshot,
        service: ServiceId,
        tasks: usize,
    ) -> Option<String> {
        if self.since_service < due((loads.places(service) + tasks) as u64) {
            return None;
        }
        self.since_service = 0;
        (!loads.is_right_about(service, view)).then(|| format!("service {service}"))
    }
}

/// The seat that is compared at the nth time: large steps, that meet each in the end, whatever their
/// number.
pub(super) fn nth_seat(nth: usize, loads: &Loads) -> Option<usize> {
    nth.wrapping_mul(2_654_435_761).checked_rem(loads.seats())
}

fn due(size: u64) -> u64 {
    ANSWERS_PER_CHECK.max(ANSWERS_PER_TASK * size)
}
