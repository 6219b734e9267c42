//! Pure: what lies between nodes: streams with their latency, and every way of losing what is on
//! its way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_core::protocol::{AgentMessage, ManagerMessage};
use swarm_core::time::Timestamp;

use super::dice::Dice;
use super::world::{Event, World};

/// Whoever answers nothing for so long is given up: what HTTP/2's keep-alive does to real streams.
const KEPT_ALIVE: Duration = Duration::from_secs(20);

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

impl World {
    /// Sends a message on a stream.
    pub(super) fn send(&mut self, stream: StreamId, to_manager: bool, message: Message) {
        let Some(fate) = self.net.send(stream, to_manager, self.now, &mut self.dice) else {
            return;
        };
        match fate {
            Fate::Arrives(times) => {
                for at in times {
                    let message = Box::new(message.clone());
                    self.schedule_at(at, Event::Deliver { stream, to_manager, message });
                }
            }
            Fate::Lost => self.lose(stream),
        }
    }

    /// Somebody notices, after a while, that nothing comes through a stream any more.
    fn lose(&mut self, stream: StreamId) {
        if let Some(lost) = self.net.streams.get_mut(&stream)
            && !std::mem::replace(&mut lost.breaking, true)
        {
            let noticed = self.dice.millis(5_000, 15_000);
            self.schedule(noticed, Event::Break(stream));
        }
    }

    /// Closes a stream from one side.
    pub(super) fn close(&mut self, stream: StreamId, to_manager: bool) {
        self.send(stream, to_manager, Message::Close);
    }

    pub(super) fn deliver(&mut self, stream: StreamId, to_manager: bool, message: Box<Message>) {
        let Some(known) = self.net.streams.get(&stream) else { return };
        let end = if to_manager { known.manager } else { known.agent };
        let host = &self.hosts[end.host];
        if let Some(until) = host.paused_until.filter(|until| *until > self.now) {
            if until.since(self.now) > KEPT_ALIVE {
                self.lose(stream);
            }
            return self.schedule_at(until, Event::Deliver { stream, to_manager, message });
        }
        let life = match to_manager {
            true => host.manager.as_ref().map(|manager| manager.life),
            false => host.agent.as_ref().map(|agent| agent.life),
        };
        if host.off {
            return self.lose(stream);
        }
        if life != Some(end.life) {
            match *message {
                Message::Close => drop(self.net.streams.remove(&stream)),
                _ => self.close(stream, !to_manager),
            }
            return;
        }
        match to_manager {
            true => self.manager_hears(end.host, stream, *message),
            false => self.agent_hears(end.host, stream, *message),
        }
    }

    /// Both ends learn that a stream is broken.
    pub(super) fn break_stream(&mut self, stream: StreamId) {
        let Some(known) = self.net.streams.get(&stream) else { return };
        let (agent, manager) = (known.agent, known.manager);
        if self.hosts[manager.host].manager.as_ref().is_some_and(|m| m.life == manager.life) {
            self.manager_hears(manager.host, stream, Message::Close);
        }
        if self.hosts[agent.host].agent.as_ref().is_some_and(|a| a.life == agent.life) {
            self.agent_hears(agent.host, stream, Message::Close);
        }
        self.net.streams.remove(&stream);
    }
}
