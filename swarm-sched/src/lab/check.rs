//! Pure: what is wrong with a comparison, said before anything of it is played.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_core::model::{NodeState, ServiceMode, validate};

use super::workload::{Event, Workload};
use crate::place::STRATEGY_LABEL;

/// Why nothing was compared: what is wrong, with what, for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(super) String);

/// Refuses a second one of a name, for what comes out goes by it.
pub(super) fn unique<'a>(
    kind: &str,
    names: impl Iterator<Item = &'a String>,
) -> Result<(), Invalid> {
    let mut known = BTreeSet::new();
    let doubled = names.into_iter().find(|name| !known.insert(*name));
    doubled.map_or(Ok(()), |name| Err(Invalid(format!("there are two {kind} {name:?}"))))
}

impl Workload {
    /// Refuses what could not be played as it is written.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let invalid = |why| Invalid(format!("workload {:?}: {why}", self.name));
        self.check_cluster().map_err(invalid)?;
        let mut there = BTreeMap::new();
        for (at, event) in self.in_order() {
            let named = |why| invalid(format!("{} after {at:?}: {why}", subject(event)));
            self.check_event(at, event, &mut there).map_err(named)?;
        }
        Ok(())
    }

    fn check_cluster(&self) -> Result<(), String> {
        if self.nodes.is_empty() || self.length.is_zero() {
            return Err("it needs a node and a length".to_owned());
        }
        if self.labels.contains_key(STRATEGY_LABEL) {
            return Err(format!("{STRATEGY_LABEL} is not its to set: that is what is compared"));
        }
        let mut known = BTreeSet::new();
        for (place, node) in self.nodes.iter().enumerate() {
            if node.id.is_nil() || !known.insert(node.id) {
                return Err(format!("node {place} needs an id of its own"));
            }
            if node.status.state == NodeState::Unknown {
                let states = "ready, or down if it comes later";
                return Err(format!("node {place} has no state yet: it has to be {states}"));
            }
        }
        Ok(())
    }

    /// `there` are the services that there are by then, and whether each is replicated.
    fn check_event<'a>(
        &self,
        at: Duration,
        event: &'a Event,
        there: &mut BTreeMap<&'a str, bool>,
    ) -> Result<(), String> {
        let missing = || "there is no such service then".to_owned();
        if at > self.length {
            return Err(format!("the workload ends after {:?}", self.length));
        }
        match event {
            Event::Deploy(spec) => {
                validate::service(spec).map_err(|why| why.to_string())?;
                if spec.mode.is_job() {
                    return Err("a job would never end: no task here does by itself".to_owned());
                }
                let replicated = matches!(spec.mode, ServiceMode::Replicated(_));
                let before = there.insert(&spec.name, replicated);
                before.map_or(Ok(()), |_| Err("it is there already".to_owned()))
            }
            Event::Remove(name) => there.remove(name.as_str()).map(drop).ok_or_else(missing),
            Event::Update(name) => there.get(name.as_str()).map(drop).ok_or_else(missing),
            Event::Scale(name, _) => match there.get(name.as_str()) {
                Some(true) => Ok(()),
                Some(false) => Err("only replicated services have a number of tasks".to_owned()),
                None => Err(missing()),
            },
            Event::Lose(node) | Event::Return(node) if *node < self.nodes.len() => Ok(()),
            Event::Lose(_) | Event::Return(_) => {
                Err(format!("there are {} nodes, and the first is node 0", self.nodes.len()))
            }
        }
    }
}

/// Whom an event is about.
fn subject(event: &Event) -> String {
    match event {
        Event::Deploy(spec) => format!("service {:?}", spec.name),
        Event::Remove(name) | Event::Update(name) | Event::Scale(name, _) => {
            format!("service {name:?}")
        }
        Event::Lose(node) | Event::Return(node) => format!("node {node}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::sizes::Size;
    use crate::lab::{Lab, no_clock, workload};

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn deploy() -> Event {
        Event::Deploy(Box::new(workload::service("web", 2, Size::of(1.0, 1.0))))
    }

    fn good() -> Workload {
        Workload {
            name: "mine".to_owned(),
            nodes: vec![workload::node("a", Size::of(8.0, 8.0))],
            events: vec![(seconds(1), deploy())],
            length: seconds(60),
            ..Workload::default()
        }
    }

    fn refused(break_it: impl FnOnce(&mut Workload)) -> String {
        let mut workload = good();
        break_it(&mut workload);
        let lab = Lab::new(no_clock()).samples(2);
        lab.compare(&[workload], 1, |_| panic!("it is played")).expect_err("it is wrong").0
    }

    #[test]
    fn what_cannot_be_played_is_refused_in_words() {
        type Break = fn(&mut Workload);
        let cases: [(Break, &str); 8] = [
            (|it| it.nodes.clear(), "it needs a node and a length"),
            (|it| it.length = Duration::ZERO, "it needs a node and a length"),
            (|it| it.nodes.push(it.nodes[0].clone()), "node 1 needs an id of its own"),
            (|it| it.nodes[0].id = Default::default(), "node 0 needs an id of its own"),
            (
                |it| it.nodes[0].status = Default::default(),
                "node 0 has no state yet: it has to be ready, or down if it comes later",
            ),
            (
                |it| drop(it.labels.insert(STRATEGY_LABEL.to_owned(), "random".to_owned())),
                "swarm.strategy is not its to set: that is what is compared",
            ),
            (
                |it| it.events[0].0 = seconds(61),
                "service \"web\" after 61s: the workload ends after 60s",
            ),
            (
                |it| it.events.push((seconds(2), Event::Lose(1))),
                "node 1 after 2s: there are 1 nodes, and the first is node 0",
            ),
        ];
        for (break_it, why) in cases {
            assert_eq!(refused(break_it), format!("workload \"mine\": {why}"));
        }
    }

    #[test]
    fn an_event_needs_its_service_then() {
        let web = || "web".to_owned();
        let missing = "there is no such service then";
        for (event, why) in [
            (Event::Update("wbe".to_owned()), missing),
            (Event::Scale("wbe".to_owned(), 1), missing),
            (Event::Remove("wbe".to_owned()), missing),
            (deploy(), "it is there already"),
        ] {
            let said = refused(|it| it.events.push((seconds(2), event)));
            assert!(said.ends_with(&format!(" after 2s: {why}")), "{said}");
        }
        // What counts is the time, not the place in the list.
        let said = refused(|it| it.events.push((seconds(0), Event::Remove(web()))));
        assert!(said.ends_with(missing), "{said}");
        let mut again = good();
        again.events.insert(0, (seconds(3), deploy()));
        again.events.push((seconds(2), Event::Remove(web())));
        assert_eq!(again.check(), Ok(()));
        let global = refused(|it| {
            let Event::Deploy(spec) = &mut it.events[0].1 else { panic!("it is deployed first") };
            spec.mode = ServiceMode::Global(Default::default());
            it.events.push((seconds(2), Event::Scale(web(), 3)));
        });
        assert!(global.ends_with("only replicated services have a number of tasks"), "{global}");
    }

    #[test]
    fn a_specification_is_checked_as_a_manager_does() {
        let specify = |edit: fn(&mut swarm_core::model::ServiceSpec)| {
            refused(|it| {
                let mut spec = workload::service("web", 1, Size::of(1.0, 1.0));
                edit(&mut spec);
                it.events = vec![(seconds(0), Event::Deploy(Box::new(spec)))];
            })
        };
        let job = specify(|spec| spec.mode = ServiceMode::ReplicatedJob(Default::default()));
        assert!(job.contains("a job would never end"), "{job}");
        let name = specify(|spec| spec.name = "no name".to_owned());
        assert!(name.contains("must be valid as a DNS name component"), "{name}");
    }

    #[test]
    fn contenders_and_settings_are_checked_too() {
        let said = |lab: Lab| lab.compare(&[good()], 1, |_| {}).expect_err("it is wrong").0;
        let scheduler = || std::sync::Arc::new(crate::place::SpreadScheduler::default()) as _;
        let doubled = Lab::new(no_clock()).with_scheduler("spread", scheduler);
        assert_eq!(said(doubled), "there are two contenders \"spread\"");
        let unknown = Lab::new(no_clock()).with_planners("moving", "sprad", |_| Vec::new());
        assert!(said(unknown).contains("\"sprad\" with more planners, which is not there yet"));
        for lab in [Lab::new(no_clock()).samples(1), Lab::new(no_clock()).report_every(seconds(0))]
        {
            assert!(said(lab).starts_with("a run needs 2 samples"));
        }
        let twice = Lab::new(no_clock()).compare(&[good(), good()], 1, |_| {});
        assert_eq!(twice.expect_err("it is wrong").0, "there are two workloads \"mine\"");
    }
}
