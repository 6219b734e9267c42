//! Pure: scripts as text that a Swarm operator reads at sight: docker's commands, faults and
//! expectations, each at its time.
//!
//! ```
//! use swarm::sim::{Script, World, play};
//!
//! let script: Script = "
//!     ## A rolling update that fails goes back by itself.
//!     managers 1
//!     workers 3
//!      1s  docker service create --name web --replicas 4 --update-failure-action rollback steady:1
//!     20s  docker service update --image crash:2 web
//!     90s  expect web update rollback_completed
//!     90s  expect web 4 running steady:1
//! "
//! .parse()?;
//! let outcome = play(World::new(script));
//! assert!(outcome.violation.is_none(), "{outcome}");
//! # Ok::<(), swarm::sim::ParseError>(())
//! ```
//!
//! Before the first time stand `managers N` and `workers N` (1 each unless said), `seed N` (1),
//! `heal TIME` (when the last entry is over), `lost NODE…`, `rebalance MOVES/TIME`,
//! `preemption TASKS` and `room CHANGES`. Nodes are called `manager1` and `worker1`. A time begins each other line.
//! `expect` must be true then, `always` from then on `for` a while. `docker stack deploy` stands for a new specification of the whole service, with
//! the flags of `docker service create`. What an image does is in its name: see
//! [`Behaviour`](super::machine::Behaviour).

mod docker;
mod fault;
pub(super) mod flags;
mod wanted;
mod words;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use self::words::{duration, duration_text, number};
use super::script::{Action, Entry, Script};

/// A line of a script that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {wrong}")]
pub struct ParseError {
    /// Which, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub wrong: String,
}

/// The nodes of a script and their names.
struct Nodes {
    managers: usize,
    workers: usize,
}

impl Nodes {
    fn of(script: &Script) -> Self {
        Self { managers: script.managers, workers: script.workers }
    }

    fn name(&self, node: usize) -> String {
        match node.checked_sub(self.managers) {
            None => format!("manager{}", node + 1),
            Some(worker) => format!("worker{}", worker + 1),
        }
    }

    fn number(&self, name: &str) -> Result<usize, String> {
        let (manager, worker) = (name.strip_prefix("manager"), name.strip_prefix("worker"));
        let number = manager.or(worker).and_then(|number| number.parse::<usize>().ok());
        let (first, all) =
            if manager.is_some() { (0, self.managers) } else { (self.managers, self.workers) };
        match number {
            Some(number) if (1..=all).contains(&number) => Ok(first + number - 1),
            Some(_) => Err(format!(
                "there is no {name}: this script has {} managers and {} workers",
                self.managers, self.workers
            )),
            None => Err(format!("{name:?} is no node: write manager1 or worker1")),
        }
    }

    fn manager(&self, name: &str) -> Result<usize, String> {
        let number = self.number(name)?;
        let manager = Some(number).filter(|number| *number < self.managers);
        manager.ok_or_else(|| format!("{name} is no manager"))
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "managers {}\nworkers {}\nseed {}", self.managers, self.workers, self.seed)?;
        writeln!(f, "heal {}", duration_text(self.heal_at))?;
        if !self.lost.is_empty() {
            let names: Vec<String> = self.lost.iter().map(|node| self.name_of(*node)).collect();
            writeln!(f, "lost {}", names.join(" "))?;
        }
        if let Some((moves, interval)) = self.rebalance {
            writeln!(f, "rebalance {moves}/{}", duration_text(interval))?;
        }
        if let Some(most) = self.preemption {
            writeln!(f, "preemption {most}")?;
        }
        if let Some(room) = self.room {
            writeln!(f, "room {room}")?;
        }
        for Entry { at, action } in &self.entries {
            let action = self.describe(action);
            writeln!(f, "{:>5}  {action}", duration_text(*at))?;
        }
        Ok(())
    }
}

impl Script {
    /// An action as the script's text has it.
    pub(super) fn describe(&self, action: &Action) -> String {
        let nodes = Nodes::of(self);
        match action {
            Action::Ask(request) => docker::text(request, &nodes),
            Action::Break(fault) => fault::text(fault, &nodes),
            Action::Expect(wanted) => format!("expect {}", wanted::text(wanted, &nodes)),
            Action::Always(wanted, lasts) => {
                let lasts = duration_text(*lasts);
                format!("always {} for {lasts}", wanted::text(wanted, &nodes))
            }
        }
    }

    /// What a node is called.
    pub(super) fn name_of(&self, node: usize) -> String {
        Nodes::of(self).name(node)
    }
}

impl FromStr for Script {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut script = Self::new(1, 1, 1);
        let mut heal_at = None;
        for (number, line) in text.lines().enumerate() {
            let read = words::split(line).and_then(|words| {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                read_line(&mut script, &mut heal_at, &words)
            });
            read.map_err(|wrong| ParseError { line: number + 1, wrong })?;
        }
        let end = |entry: &Entry| match &entry.action {
            Action::Break(fault) => entry.at + fault.lasts,
            Action::Always(_, lasts) => entry.at + *lasts,
            _ => entry.at,
        };
        let last = script.entries.iter().map(end).max();
        script.heal_at = heal_at.or(last).unwrap_or_default();
        Ok(script)
    }
}

fn read_line(
    script: &mut Script,
    heal_at: &mut Option<Duration>,
    words: &[&str],
) -> Result<(), String> {
    let nodes = Nodes::of(script);
    let early = script.entries.is_empty() && script.lost.is_empty();
    match words {
        [] => {}
        ["managers" | "workers", _] if !early => {
            return Err(format!("{:?} must stand before the first time", words[0]));
        }
        ["managers", count] => match number(count)? {
            0 => return Err("a cluster needs a manager".to_owned()),
            managers => script.managers = managers,
        },
        ["workers", count] => script.workers = number(count)?,
        ["seed", seed] => script.seed = number(seed)?,
        ["heal", at] => *heal_at = Some(duration(at)?),
        ["rebalance", rate] => {
            let (moves, interval) = rate.split_once('/').ok_or("MOVES/TIME is expected")?;
            script.rebalance = Some((number(moves)?, duration(interval)?));
        }
        ["preemption", most] => script.preemption = Some(number(most)?),
        ["room", room] => script.room = Some(number(room)?),
        ["lost", names @ ..] => {
            let lost = names.iter().map(|name| nodes.number(name));
            script.lost = lost.collect::<Result<_, _>>()?;
        }
        [at, action @ ..] => {
            let at = duration(at)?;
            script.at(at, read_action(action, &nodes)?);
        }
    }
    Ok(())
}

fn read_action(words: &[&str], nodes: &Nodes) -> Result<Action, String> {
    Ok(match words {
        ["docker", command @ ..] => Action::Ask(docker::parse(command, nodes)?),
        ["expect", wanted @ ..] => Action::Expect(wanted::parse(wanted, nodes)?),
        ["always", wanted @ .., "for", lasts] => {
            Action::Always(wanted::parse(wanted, nodes)?, duration(lasts)?)
        }
        ["always", ..] => return Err("how long? write `always … for 30s`".to_owned()),
        fault => Action::Break(fault::parse(fault, nodes)?),
    })
}

#[cfg(test)]
mod tests;
