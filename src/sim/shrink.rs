//! Pure: makes a script that fails smaller, as long as the same invariant does not hold: fewer
//! entries, fewer nodes, less time, plainer services.
//!
//! Every candidate is played, so the number of plays is the price; it is bounded.

use std::sync::Arc;
use std::time::Duration;

use swarm_core::model::ServiceSpec;

use super::invariant::Violation;
use super::script::{Action, Fault, FaultKind, Request, Script, Wanted};

/// Plays that finding a small script takes at most, unless one says otherwise.
pub const TRIES: usize = 400;

/// A smaller script in which the same invariant does not hold, after at most `tries` plays; and
/// what is seen in it. `found` is what does not hold in `script`; `play` plays one.
pub fn shrink(
    script: &Script,
    found: &Violation,
    tries: usize,
    play: impl FnMut(&Script) -> Option<Violation>,
) -> (Script, Violation) {
    let mut search = Search { best: script.clone(), found: found.clone(), left: tries, play };
    search.cut_the_end();
    let mut before = None;
    while search.left > 0 && before.as_ref() != Some(&search.best) {
        before = Some(search.best.clone());
        search.fewer_entries();
        search.fewer_nodes();
        search.less_time();
        search.plainer_services();
    }
    (search.best, search.found)
}

struct Search<Play> {
    best: Script,
    found: Violation,
    left: usize,
    play: Play,
}

impl<Play: FnMut(&Script) -> Option<Violation>> Search<Play> {
    /// Takes a candidate if the same does not hold in it.
    fn takes(&mut self, candidate: Script) -> bool {
        if self.left == 0 || candidate == self.best {
            return false;
        }
        self.left -= 1;
        let found = (self.play)(&candidate);
        let same = found.filter(|found| found.invariant == self.found.invariant);
        let takes = same.is_some();
        if let Some(found) = same {
            (self.best, self.found) = (candidate, found);
        }
        takes
    }

    /// What comes after the failure has no part in it.
    fn cut_the_end(&mut self) {
        let mut candidate = self.best.clone();
        candidate.entries.retain(|entry| entry.at <= self.found.at);
        self.takes(candidate);
    }

    /// Takes ever smaller pieces out of the entries (Zeller's ddmin).
    fn fewer_entries(&mut self) {
        let mut size = self.best.entries.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < self.best.entries.len() {
                let mut candidate = self.best.clone();
                let to = (from + size).min(candidate.entries.len());
                candidate.entries.drain(from..to);
                if !self.takes(candidate) {
                    from = to;
                }
            }
            size /= 2;
        }
    }

    fn fewer_nodes(&mut self) {
        self.takes(Script { lost: Vec::new(), ..self.best.clone() });
        self.takes(Script { rebalance: None, ..self.best.clone() });
        self.takes(Script { preemption: None, ..self.best.clone() });
        self.takes(Script { room: None, ..self.best.clone() });
        for node in (0..self.best.nodes()).rev() {
            if node > 0 {
                self.takes(without(&self.best, node));
            }
        }
    }

    /// Heals earlier: after the last entry, or in half the time.
    fn less_time(&mut self) {
        let last = self.best.entries.iter().map(|entry| entry.at).max().unwrap_or_default();
        for heal_at in [last + Duration::from_secs(1), self.best.heal_at / 2] {
            if heal_at < self.best.heal_at {
                self.takes(Script { heal_at, ..self.best.clone() });
            }
        }
    }

    fn plainer_services(&mut self) {
        for number in 0..self.best.entries.len() {
            for plainer in PLAINER {
                let mut candidate = self.best.clone();
                if let Action::Ask(Request::CreateService(spec) | Request::DeployService(spec)) =
                    &mut candidate.entries[number].action
                {
                    plainer(spec);
                    self.takes(candidate);
                }
            }
        }
    }
}

/// Parts of a service that a failure may not need.
const PLAINER: [fn(&mut ServiceSpec); 8] = [
    |spec| spec.labels.clear(),
    |spec| (spec.update_config, spec.rollback_config) = (None, None),
    |spec| spec.endpoint = None,
    |spec| Arc::make_mut(&mut spec.task).networks.clear(),
    |spec| Arc::make_mut(&mut spec.task).placement = None,
    |spec| Arc::make_mut(&mut spec.task).resources = None,
    |spec| Arc::make_mut(&mut spec.task).restart_policy = None,
    |spec| {
        if let Some(container) = &mut Arc::make_mut(&mut spec.task).container {
            container.secrets.clear();
            container.configs.clear();
        }
    },
];

/// The script without a node, and without what happens to it; later nodes move up.
fn without(script: &Script, node: usize) -> Script {
    let mut script = script.clone();
    match node < script.managers {
        true => script.managers -= 1,
        false => script.workers -= 1,
    }
    script.entries.retain_mut(|entry| {
        let mut stays = true;
        if let Action::Break(Fault { kind: FaultKind::Partition(group), .. }) = &mut entry.action {
            group.retain(|number| *number != node);
        }
        each_node(&mut entry.action, |number| stays &= moved(number, node));
        stays
    });
    script.lost.retain_mut(|number| moved(number, node));
    script
}

/// Gives a node its number after another is gone; whether it is still there.
fn moved(number: &mut usize, gone: usize) -> bool {
    let stays = *number != gone;
    *number -= usize::from(*number > gone);
    stays
}

/// Shows every node that an action is about.
fn each_node(action: &mut Action, mut show: impl FnMut(&mut usize)) {
    match action {
        Action::Ask(
            Request::SetAvailability(node, _)
            | Request::LabelNode(node, ..)
            | Request::RemoveNode(node),
        )
        | Action::Expect(Wanted::RunningOn(_, node, _) | Wanted::Node(node, _))
        | Action::Always(Wanted::RunningOn(_, node, _) | Wanted::Node(node, _), _) => show(node),
        Action::Ask(_) | Action::Expect(_) | Action::Always(..) => {}
        Action::Break(Fault { kind, .. }) => match kind {
            FaultKind::Partition(group) => group.iter_mut().for_each(show),
            FaultKind::OneWay(from, to) => {
                show(from);
                show(to);
            }
            FaultKind::CrashManager(node)
            | FaultKind::CrashAgent(node)
            | FaultKind::CrashMachine(node)
            | FaultKind::Pause(node)
            | FaultKind::Slow(node, _)
            | FaultKind::Lossy(node, _)
            | FaultKind::Repeating(node, _)
            | FaultKind::Reordering(node, _)
            | FaultKind::ClockJump(node, _)
            | FaultKind::ClockRate(node, _)
            | FaultKind::HangExecutor(node)
            | FaultKind::ExecutorErrors(node, _)
            | FaultKind::ExecutorLies(node, _)
            | FaultKind::PullFailure(node)
            | FaultKind::OutOfMemory(node)
            | FaultKind::InstallSnapshot(node) => show(node),
            FaultKind::LeaderChange | FaultKind::MassReconnect => {}
        },
    }
}

#[cfg(test)]
mod tests;
