//! Pure: why tasks found no node, in Swarm's words, which tools parse.

use super::filter::Filter;

/// How many nodes each filter refused, counting every node for the first filter that did. Which node
/// it was, [`Demand::check`](super::filter::Demand::check) says of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals([usize; Filter::ALL.len()]);

impl Refusals {
    /// Counts one node.
    pub fn count(&mut self, filter: Filter) {
        self.0[filter as usize] += 1;
    }

    /// The reasons, the most frequent first: `scheduling constraints not satisfied on 2 nodes;
    /// insufficient resources on 1 node`. Empty when no node was refused.
    #[must_use]
    pub fn reasons(&self) -> String {
        let mut counts: Vec<_> = Filter::ALL.into_iter().zip(self.0).collect();
        counts.retain(|(_, nodes)| *nodes > 0);
        // Stable: equally frequent reasons keep the order of the filters, as in SwarmKit.
        counts.sort_by_key(|(_, nodes)| std::cmp::Reverse(*nodes));
        let texts: Vec<_> = counts.iter().map(|(filter, nodes)| explain(*filter, *nodes)).collect();
        texts.join("; ")
    }

    /// The whole sentence: `no suitable node (…)`.
    #[must_use]
    pub fn no_suitable_node(&self) -> String {
        match self.reasons() {
            none if none.is_empty() => "no suitable node".to_owned(),
            reasons => format!("no suitable node ({reasons})"),
        }
    }
}

/// What it means that a filter refused so many nodes (SwarmKit: `Filter.Explain`).
fn explain(filter: Filter, nodes: usize) -> String {
    let nodes = if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
    match filter {
        Filter::Ready => format!("{nodes} not available for new tasks"),
        Filter::Resource => format!("insufficient resources on {nodes}"),
        Filter::Plugin => format!("missing plugin on {nodes}"),
        Filter::Constraint => format!("scheduling constraints not satisfied on {nodes}"),
        Filter::Platform => format!("unsupported platform on {nodes}"),
        Filter::HostPort => format!("host-mode port already in use on {nodes}"),
        Filter::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        Filter::Volume => format!("cannot fulfill requested CSI volume mounts on {nodes}"),
        Filter::Affinity => format!("affinity not satisfied on {nodes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(counts: &[(Filter, usize)]) -> Refusals {
        let mut refusals = Refusals::default();
        for (filter, nodes) in counts {
            (0..*nodes).for_each(|_| refusals.count(*filter));
        }
        refusals
    }

    #[test]
    fn every_text_is_swarms() {
        let table = [
            (Filter::Ready, 1, "1 node not available for new tasks"),
            (Filter::Ready, 3, "3 nodes not available for new tasks"),
            (Filter::Resource, 1, "insufficient resources on 1 node"),
            (Filter::Resource, 2, "insufficient resources on 2 nodes"),
            (Filter::Plugin, 1, "missing plugin on 1 node"),
            (Filter::Plugin, 2, "missing plugin on 2 nodes"),
            (Filter::Constraint, 1, "scheduling constraints not satisfied on 1 node"),
            (Filter::Constraint, 2, "scheduling constraints not satisfied on 2 nodes"),
            (Filter::Platform, 1, "unsupported platform on 1 node"),
            (Filter::Platform, 2, "unsupported platform on 2 nodes"),
            (Filter::HostPort, 1, "host-mode port already in use on 1 node"),
            (Filter::HostPort, 2, "host-mode port already in use on 2 nodes"),
            (Filter::MaxReplicas, 1, "max replicas per node limit exceed"),
            (Filter::MaxReplicas, 2, "max replicas per node limit exceed"),
            (Filter::Volume, 1, "cannot fulfill requested CSI volume mounts on 1 node"),
            (Filter::Volume, 2, "cannot fulfill requested CSI volume mounts on 2 nodes"),
        ];
        for (filter, nodes, text) in table {
            assert_eq!(refusals(&[(filter, nodes)]).reasons(), text);
        }
    }

    #[test]
    fn the_most_frequent_reason_comes_first() {
        let mixed = refusals(&[(Filter::Resource, 1), (Filter::Constraint, 2)]);
        assert_eq!(
            mixed.no_suitable_node(),
            "no suitable node (scheduling constraints not satisfied on 2 nodes; \
             insufficient resources on 1 node)"
        );
        let even = refusals(&[(Filter::Constraint, 1), (Filter::Ready, 1)]);
        assert_eq!(
            even.reasons(),
            "1 node not available for new tasks; scheduling constraints not satisfied on 1 node"
        );
        assert_eq!(Refusals::default().no_suitable_node(), "no suitable node");
    }
}
