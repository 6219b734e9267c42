//! Pure: what each fault does to a simulated cluster, and what undoes it.

use std::time::Duration;

use swarm_core::executor::{Exit, Found};
use swarm_core::model::TaskId;

use super::consensus::Replica;
use super::manager::Manager;
use super::script::{Action, Fault, FaultKind};
use super::world::{Event, World};

impl World {
    /// Breaks something; its end is scheduled.
    pub(super) fn break_it(&mut self, fault: &Fault) {
        let line = self.script.describe(&Action::Break(fault.clone()));
        self.note(format_args!("fault: {line}"));
        self.covered(fault.kind.name());
        let now = self.now;
        match &fault.kind {
            FaultKind::CrashManager(host) => self.crash_manager(*host),
            FaultKind::CrashAgent(host) => self.hosts[*host].agent = None,
            FaultKind::CrashMachine(host) => {
                self.crash_manager(*host);
                let host = &mut self.hosts[*host];
                host.agent = None;
                host.off = true;
                host.machine.lose_power();
            }
            FaultKind::Pause(host) => self.hosts[*host].paused_until = Some(now + fault.lasts),
            FaultKind::Partition(group) => self.cut_off(group, true),
            FaultKind::OneWay(from, to) => {
                self.net.cut.insert((*from, *to));
            }
            FaultKind::Slow(host, by) => {
                self.net.slow.insert(*host, *by);
            }
            FaultKind::Lossy(host, percent) => {
                self.net.lossy.insert(*host, *percent);
            }
            FaultKind::Repeating(host, percent) => {
                self.net.repeating.insert(*host, *percent);
            }
            FaultKind::Reordering(host, percent) => {
                self.net.reordering.insert(*host, *percent);
            }
            FaultKind::ClockJump(host, millis) => self.hosts[*host].clock.jump(now, *millis),
            FaultKind::ClockRate(host, rate) => self.hosts[*host].clock.set_rate(now, *rate),
            FaultKind::HangExecutor(host) => self.hosts[*host].machine.hung = true,
            FaultKind::ExecutorErrors(host, percent) => self.hosts[*host].machine.errors = *percent,
            FaultKind::ExecutorLies(host, percent) => self.hosts[*host].machine.lies = *percent,
            FaultKind::PullFailure(host) => self.hosts[*host].machine.offline = true,
            FaultKind::OutOfMemory(host) => self.out_of_memory(*host),
            FaultKind::LeaderChange => self.change_leader(),
            FaultKind::MassReconnect => self.break_streams(),
            FaultKind::InstallSnapshot(host) => self.install_snapshot(*host),
        }
        self.touch_all();
        if !fault.lasts.is_zero() {
            self.schedule(fault.lasts, Event::Heal(Box::new(fault.kind.clone())));
        }
    }

    /// Undoes what a fault did.
    pub(super) fn heal(&mut self, kind: &FaultKind) {
        let fault = Fault { kind: kind.clone(), lasts: Duration::ZERO };
        let line = self.script.describe(&Action::Break(fault));
        self.note(format_args!("healed: {line}"));
        let now = self.now;
        match kind {
            FaultKind::CrashManager(host) => self.restart_manager(*host),
            FaultKind::CrashAgent(host) => self.restart_agent(*host),
            FaultKind::CrashMachine(host) => {
                self.hosts[*host].off = false;
                self.restart_manager(*host);
                self.restart_agent(*host);
            }
            FaultKind::Pause(host) => self.hosts[*host].paused_until = None,
            FaultKind::Partition(group) => self.cut_off(group, false),
            FaultKind::OneWay(from, to) => {
                self.net.cut.remove(&(*from, *to));
            }
            FaultKind::Slow(host, _) => {
                self.net.slow.remove(host);
            }
            FaultKind::Lossy(host, _) => {
                self.net.lossy.remove(host);
            }
            FaultKind::Repeating(host, _) => {
                self.net.repeating.remove(host);
            }
            FaultKind::Reordering(host, _) => {
                self.net.reordering.remove(host);
            }
            FaultKind::ClockJump(host, _) | FaultKind::ClockRate(host, _) => {
                self.hosts[*host].clock.correct(now);
            }
            FaultKind::HangExecutor(host) => {
                self.hosts[*host].machine.hung = false;
                self.resume_work(*host);
            }
            FaultKind::ExecutorErrors(host, _) => self.hosts[*host].machine.errors = 0,
            FaultKind::ExecutorLies(host, _) => self.hosts[*host].machine.lies = 0,
            FaultKind::PullFailure(host) => self.hosts[*host].machine.offline = false,
            FaultKind::OutOfMemory(_)
            | FaultKind::LeaderChange
            | FaultKind::MassReconnect
            | FaultKind::InstallSnapshot(_) => {}
        }
        self.touch_all();
    }

    /// The faults end: everything heals, but for what stays broken for good.
    pub(super) fn heal_all(&mut self) {
        let lost = self.script.lost.clone();
        self.note(format_args!("everything heals but {lost:?}"));
        self.net.cut.clear();
        self.net.slow.clear();
        self.net.lossy.clear();
        self.net.repeating.clear();
        self.net.reordering.clear();
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            host.clock.correct(self.now);
            host.paused_until = None;
            host.machine.errors = 0;
            host.machine.lies = 0;
            host.machine.offline = false;
            if std::mem::take(&mut host.machine.hung) {
                self.resume_work(index);
            }
            if self.script.lost.contains(&index) {
                self.break_it(&Fault {
                    kind: FaultKind::CrashMachine(index),
                    lasts: Duration::ZERO,
                });
                self.hosts[index].lost = true;
                continue;
            }
            self.hosts[index].off = false;
            self.restart_manager(index);
            self.restart_agent(index);
        }
        self.touch_all();
    }

    fn crash_manager(&mut self, host: usize) {
        if let Some(manager) = self.hosts[host].manager.take() {
            let Manager { replica, .. } = manager;
            self.disks.insert(host, replica);
            // A process that comes back follows until it is elected.
            if self.leader() == Some(host) {
                self.log.leader = None;
            }
        }
    }

    fn restart_manager(&mut self, host: usize) {
        let there = &self.hosts[host];
        if there.manager.is_some() || there.off || there.lost {
            return;
        }
        if let Some(disk) = self.disks.remove(&host) {
            self.covered("manager: recovers from its disk");
            let recovered: Replica = disk.recover(&self.log);
            self.start_manager(host, Some(recovered));
        }
    }

    fn restart_agent(&mut self, host: usize) {
        let able = !self.hosts[host].off && !self.hosts[host].lost;
        if able && self.hosts[host].agent.is_none() {
            self.covered("agent: resumes from its journal");
            self.start_agent(host);
        }
    }

    fn cut_off(&mut self, group: &[usize], cut: bool) {
        for inside in group {
            for outside in (0..self.hosts.len()).filter(|host| !group.contains(host)) {
                for pair in [(*inside, outside), (outside, *inside)] {
                    match cut {
                        true => self.net.cut.insert(pair),
                        false => self.net.cut.remove(&pair),
                    };
                }
            }
        }
    }

    fn out_of_memory(&mut self, host: usize) {
        let running = self.hosts[host].machine.containers.iter();
        let running: Vec<TaskId> = running
            .filter(|(_, container)| container.state == Found::Running)
            .map(|(task, _)| *task)
            .take(3)
            .collect();
        let exit = Exit { code: 137, error: Some("OOM killed".to_owned()) };
        running.into_iter().for_each(|task| self.container_ends(host, task, &exit));
    }

    /// Leadership moves on; the old leader learns of it a little later.
    fn change_leader(&mut self) {
        let old = self.log.leader.map(|(host, _)| host);
        let others = (0..self.script.managers).filter(|host| Some(*host) != old);
        let able: Vec<usize> = others.filter(|host| self.has_majority(*host)).collect();
        if !able.is_empty() {
            let new = *self.dice.pick(&able);
            self.elect(Some(new));
        } else if old.is_some_and(|host| self.has_majority(host)) {
            // One manager alone: it loses its leadership and gains it again.
            self.elect(old);
        }
    }

    /// Every stream ends at once.
    fn break_streams(&mut self) {
        let streams: Vec<_> = self.net.streams.keys().copied().collect();
        for stream in streams {
            self.schedule(Duration::from_millis(1), Event::Break(stream));
        }
    }
}

impl FaultKind {
    /// A name for the count of what was covered.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CrashManager(_) => "fault: a manager crashes",
            Self::CrashAgent(_) => "fault: an agent crashes",
            Self::CrashMachine(_) => "fault: a machine loses power",
            Self::Pause(_) => "fault: a machine stands still",
            Self::Partition(_) => "fault: a partition",
            Self::OneWay(..) => "fault: a one-way partition",
            Self::Slow(..) => "fault: a slow link",
            Self::Lossy(..) => "fault: messages are lost",
            Self::Repeating(..) => "fault: messages arrive twice",
            Self::Reordering(..) => "fault: messages are overtaken",
            Self::ClockJump(..) => "fault: a clock jumps",
            Self::ClockRate(..) => "fault: a clock runs wrong",
            Self::HangExecutor(_) => "fault: an executor hangs",
            Self::ExecutorErrors(..) => "fault: an executor fails for a moment",
            Self::ExecutorLies(..) => "fault: an executor lies",
            Self::PullFailure(_) => "fault: images cannot be pulled",
            Self::OutOfMemory(_) => "fault: containers are killed for memory",
            Self::LeaderChange => "fault: the leader changes",
            Self::MassReconnect => "fault: every agent reconnects",
            Self::InstallSnapshot(_) => "fault: a snapshot replaces a state",
        }
    }
}
