//! Pure: faults as short sentences: `crash machine worker1 for 1m`, `leader change`.

use std::time::Duration;

use super::Nodes;
use super::words::{decimal, decimal_text, duration, duration_text, number, percent};
use crate::sim::script::{Fault, FaultKind};

/// What each fault is called, for the error of one that does not exist.
const KNOWN: &str = "crash manager|agent|machine NODE, pause NODE, partition NODE…, \
    cut NODE to NODE, slow NODE by TIME, lose|repeat|overtake N% of NODE, clock NODE +1h|-1h|x1.5, \
    executor NODE hangs|fails N%|lies N%, no images on NODE, out of memory NODE, leader change, \
    all agents reconnect, install snapshot MANAGER";

pub(super) fn parse(words: &[&str], nodes: &Nodes) -> Result<Fault, String> {
    let (words, lasts) = match words {
        [words @ .., "for", lasts] => (words, duration(lasts)?),
        words => (words, Duration::ZERO),
    };
    let node = |name| nodes.number(name);
    let manager = |name| nodes.manager(name);
    let kind = match words {
        ["crash", "manager", name] => FaultKind::CrashManager(manager(name)?),
        ["crash", "agent", name] => FaultKind::CrashAgent(node(name)?),
        ["crash", "machine", name] => FaultKind::CrashMachine(node(name)?),
        ["pause", name] => FaultKind::Pause(node(name)?),
        ["partition", names @ ..] => {
            FaultKind::Partition(names.iter().map(|name| node(name)).collect::<Result<_, _>>()?)
        }
        ["cut", from, "to", to] => FaultKind::OneWay(node(from)?, node(to)?),
        ["slow", name, "by", by] => FaultKind::Slow(node(name)?, duration(by)?),
        ["lose", share, "of", name] => FaultKind::Lossy(node(name)?, percent(share)?),
        ["repeat", share, "of", name] => FaultKind::Repeating(node(name)?, percent(share)?),
        ["overtake", share, "of", name] => FaultKind::Reordering(node(name)?, percent(share)?),
        ["clock", name, change] => clock(node(name)?, change)?,
        ["executor", name, "hangs"] => FaultKind::HangExecutor(node(name)?),
        ["executor", name, "fails", share] => {
            FaultKind::ExecutorErrors(node(name)?, percent(share)?)
        }
        ["executor", name, "lies", share] => FaultKind::ExecutorLies(node(name)?, percent(share)?),
        ["no", "images", "on", name] => FaultKind::PullFailure(node(name)?),
        ["out", "of", "memory", name] => FaultKind::OutOfMemory(node(name)?),
        ["leader", "change"] => FaultKind::LeaderChange,
        ["all", "agents", "reconnect"] => FaultKind::MassReconnect,
        ["install", "snapshot", name] => FaultKind::InstallSnapshot(manager(name)?),
        _ => {
            let line = words.join(" ");
            return Err(format!("{line:?} is no command, no expectation and no fault: {KNOWN}"));
        }
    };
    Ok(Fault { kind, lasts })
}

pub(super) fn text(fault: &Fault, nodes: &Nodes) -> String {
    let name = |node: &usize| nodes.name(*node);
    let mut text = match &fault.kind {
        FaultKind::CrashManager(node) => format!("crash manager {}", name(node)),
        FaultKind::CrashAgent(node) => format!("crash agent {}", name(node)),
        FaultKind::CrashMachine(node) => format!("crash machine {}", name(node)),
        FaultKind::Pause(node) => format!("pause {}", name(node)),
        FaultKind::Partition(group) => {
            group.iter().fold("partition".to_owned(), |text, node| text + " " + &name(node))
        }
        FaultKind::OneWay(from, to) => format!("cut {} to {}", name(from), name(to)),
        FaultKind::Slow(node, by) => format!("slow {} by {}", name(node), duration_text(*by)),
        FaultKind::Lossy(node, share) => format!("lose {share}% of {}", name(node)),
        FaultKind::Repeating(node, share) => format!("repeat {share}% of {}", name(node)),
        FaultKind::Reordering(node, share) => format!("overtake {share}% of {}", name(node)),
        FaultKind::ClockJump(node, millis) => {
            let sign = if *millis < 0 { '-' } else { '+' };
            let by = duration_text(Duration::from_millis(millis.unsigned_abs()));
            format!("clock {} {sign}{by}", name(node))
        }
        FaultKind::ClockRate(node, rate) => {
            format!("clock {} x{}", name(node), decimal_text((*rate).into(), 1_000))
        }
        FaultKind::HangExecutor(node) => format!("executor {} hangs", name(node)),
        FaultKind::ExecutorErrors(node, share) => {
            format!("executor {} fails {share}%", name(node))
        }
        FaultKind::ExecutorLies(node, share) => format!("executor {} lies {share}%", name(node)),
        FaultKind::PullFailure(node) => format!("no images on {}", name(node)),
        FaultKind::OutOfMemory(node) => format!("out of memory {}", name(node)),
        FaultKind::LeaderChange => "leader change".to_owned(),
        FaultKind::MassReconnect => "all agents reconnect".to_owned(),
        FaultKind::InstallSnapshot(node) => format!("install snapshot {}", name(node)),
    };
    if !fault.lasts.is_zero() {
        text += &format!(" for {}", duration_text(fault.lasts));
    }
    text
}

/// `+1h`, `-5s` or `x1.5`.
fn clock(node: usize, change: &str) -> Result<FaultKind, String> {
    if let Some(rate) = change.strip_prefix('x') {
        let rate = decimal(rate, 1_000).and_then(|rate| u64::try_from(rate).ok());
        let rate = rate.ok_or_else(|| format!("{change:?} is no speed: write x1.5"))?;
        return Ok(FaultKind::ClockRate(node, rate));
    }
    let (sign, by) = match (change.strip_prefix('+'), change.strip_prefix('-')) {
        (Some(by), _) => (1, by),
        (_, Some(by)) => (-1, by),
        _ => return Err(format!("{change:?} is no change of a clock: write +1h, -1h or x1.5")),
    };
    let millis: i64 = number(&duration(by)?.as_millis().to_string())?;
    Ok(FaultKind::ClockJump(node, sign * millis))
}
