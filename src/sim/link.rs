//! Pure: what lies between nodes: streams with their latency, and every way of losing what is on
//! its way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_core::protocol::{AgentMessage, ManagerMessage};
use swarm_core::time::Timestamp;

use super::dice::Dice;

/// Which stream.
pub(super) type StreamId = u64;

/// One message on a stream.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "events hold messages in boxes")]
pub(super) enum Message {
    Agent(AgentMessage),
    Manager(ManagerMessage),
    /// The other side has closed the stream, or does not know it.
    Close,
}

/// A stream between an agent's process and a manager's.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) agent: End,
    pub(super) manager: End,
    /// A message was lost, and whatever follows it: to the agent, to the manager.
    lost: [bool; 2],
    /// When the last message arrives: to the agent, to the manager.
    last: [Timestamp; 2],
    /// Its end has been scheduled.
    pub(super) breaking: bool,
}

/// One end of a stream: a process on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) host: usize,
    /// Which life of the process: one that died knows none of its streams.
    pub(super) life: u64,
}

/// What the network makes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives, at these times.
    Arrives(Vec<Timestamp>),
    /// It is lost, and so is the stream, once somebody notices.
    Lost,
}

/// The network.
#[derive(Debug, Default)]
pub(super) struct Net {
    pub(super) streams: BTreeMap<StreamId, Stream>,
    next: StreamId,
    /// Pairs between which nothing goes, in this direction.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) slow: BTreeMap<usize, Duration>,
    pub(super) lossy: BTreeMap<usize, u64>,
    pub(super) repeating: BTreeMap<usize, u64>,
    pub(super) reordering: BTreeMap<usize, u64>,
}

impl Net {
    /// Whether messages go from one host to another.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    /// Whether they go both ways.
    pub(super) fn connected(&self, a: usize, b: usize) -> bool {
        self.reaches(a, b) && self.reaches(b, a)
    }

    pub(super) fn open(&mut self, agent: End, manager: End) -> StreamId {
        self.next += 1;
        let stream = Stream {
            agent,
            manager,
            lost: [false; 2],
            last: [Timestamp::ZERO; 2],
            breaking: false,
        };
        self.streams.insert(self.next, stream);
        self.next
    }

    /// How long a message takes between two hosts.
    pub(super) fn latency(&self, from: usize, to: usize, dice: &mut Dice) -> Duration {
        if from == to {
            return dice.millis(0, 1);
        }
        let extra = |host| self.slow.get(&host).copied().unwrap_or_default();
        dice.millis(1, 15) + extra(from) + extra(to)
    }

    /// Decides what becomes of a message on a stream. Absent when there is no such stream.
    pub(super) fn send(
        &mut self,
        id: StreamId,
        to_manager: bool,
        now: Timestamp,
        dice: &mut Dice,
    ) -> Option<Fate> {
        let stream = self.streams.get(&id)?;
        let (from, to) = match to_manager {
            true => (stream.agent.host, stream.manager.host),
            false => (stream.manager.host, stream.agent.host),
        };
        let way = usize::from(to_manager);
        let chance = |of: &BTreeMap<usize, u64>| {
            let of = |host| of.get(&host).copied().unwrap_or_default();
            if from == to { 0 } else { of(from).max(of(to)) }
        };
        let lost = stream.lost[way] || !self.reaches(from, to) || dice.percent(chance(&self.lossy));
        if lost {
            self.streams.get_mut(&id)?.lost[way] = true;
            return Some(Fate::Lost);
        }
        let latency = self.latency(from, to, dice);
        let overtaken = dice.percent(chance(&self.reordering));
        let twice = dice.percent(chance(&self.repeating));
        let stream = self.streams.get_mut(&id)?;
        let mut at = now + latency;
        if overtaken {
            at = at + dice.millis(5, 200);
        } else {
            at = at.max(stream.last[way] + Duration::from_nanos(1));
            stream.last[way] = at;
        }
        let mut times = vec![at];
        if twice {
            times.push(at + dice.millis(1, 500));
        }
        Some(Fate::Arrives(times))
    }
}
