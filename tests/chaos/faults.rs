//! Faults, drawn from a seed, and their ends: whatever is done to a node is undone after a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::{Cluster, Dice};
use crate::history::Violation;
use crate::net::Ear;

const TICK: Duration = Duration::from_millis(50);
/// How long it may take until the last fault is undone.
const HEALED_WITHIN: Duration = Duration::from_secs(120);
/// How many nodes something is done to at one time.
const AT_ONCE: usize = 2;

/// How a fault ends.
#[derive(Clone, Copy, Debug)]
enum Undo {
    Start(usize),
    Resume(usize),
    /// A node that runs in bursts: so many are left.
    Stutter(usize, u32),
    Hear,
    Empty,
    /// A manager that was demoted is to be one again.
    Promote(usize),
}

/// Everything that is wrong now, and what was.
pub struct Faults {
    dice: Dice,
    began: Instant,
    due: Vec<(Instant, Undo)>,
    pub timeline: Vec<(Duration, String)>,
    pub counts: BTreeMap<&'static str, u64>,
    pub broken: Vec<Violation>,
}

impl Faults {
    pub fn new(dice: Dice, began: Instant) -> Self {
        Self {
            dice,
            began,
            due: Vec::new(),
            timeline: Vec::new(),
            counts: BTreeMap::new(),
            broken: Vec::new(),
        }
    }

    fn note(&mut self, text: String) {
        let at = self.began.elapsed();
        println!("{at:9.3?} {text}");
        self.timeline.push((at, text));
    }

    fn undo_in(&mut self, from: u64, to: u64, undo: Undo) -> Duration {
        let lasts = self.dice.millis(from, to);
        self.due.push((Instant::now() + lasts, undo));
        lasts
    }

    /// Has faults come and go for a while; all have gone afterwards.
    pub fn rage(&mut self, cluster: &mut Cluster, lasts: Duration) {
        let end = Instant::now() + lasts;
        let mut next = Instant::now() + self.dice.millis(200, 1500);
        while Instant::now() < end {
            if Instant::now() >= next {
                self.strike(cluster);
                next = Instant::now() + self.dice.millis(400, 4000);
            }
            self.end_due(cluster, Instant::now());
            self.watch(cluster);
            std::thread::sleep(TICK);
        }
        let patience = Instant::now() + HEALED_WITHIN;
        while let Some(last) = self.due.iter().map(|(due, _)| *due).max() {
            // A burst is followed by another one, until there are none; a promotion needs a leader.
            self.end_due(cluster, last);
            std::thread::sleep(TICK);
            if Instant::now() > patience {
                let text = format!("never: {:?} can be undone", self.due);
                self.due.clear();
                self.broken.push(Violation { at: self.began.elapsed(), register: None, text });
            }
        }
        self.note("no fault is left".into());
    }

    fn end_due(&mut self, cluster: &mut Cluster, now: Instant) {
        let (ended, left) = self.due.drain(..).partition(|(due, _)| *due <= now);
        self.due = left;
        let ended: Vec<(Instant, Undo)> = ended;
        for (_, undo) in ended {
            self.undo(cluster, undo);
        }
    }

    fn undo(&mut self, cluster: &mut Cluster, undo: Undo) {
        match undo {
            Undo::Start(node) => {
                cluster.hosts[node].launch(&[]);
                self.note(format!("{} is started", cluster.hosts[node].name));
            }
            Undo::Resume(node) => {
                cluster.hosts[node].signal(Signal::CONT);
                self.note(format!("{} goes on", cluster.hosts[node].name));
            }
            Undo::Stutter(node, left) => {
                cluster.hosts[node].signal(if left % 2 == 0 { Signal::CONT } else { Signal::STOP });
                if left > 0 {
                    self.undo_in(50, 200, Undo::Stutter(node, left - 1));
                } else {
                    self.note(format!("{} stutters no more", cluster.hosts[node].name));
                }
            }
            Undo::Hear => {
                let Some(net) = &mut cluster.net else { return };
                for node in 0..net.ears.len() {
                    net.ears[node] = Ear::default();
                    net.apply(node);
                }
                self.note("everybody hears everybody".into());
            }
            Undo::Promote(node) => {
                let name = cluster.hosts[node].name;
                match cluster.set_role(node, "manager") {
                    Some(()) => self.note(format!("{name} is promoted")),
                    // Nobody leads, or nobody answered: until it is done.
                    None => drop(self.undo_in(100, 500, Undo::Promote(node))),
                }
            }
            Undo::Empty => {
                if let Some(disk) = &cluster.disk {
                    disk.empty();
                }
                self.note("the disk has room".into());
            }
        }
    }

    /// Nobody ends without being killed.
    fn watch(&mut self, cluster: &mut Cluster) {
        for node in 0..cluster.hosts.len() {
            let killed =
                self.due.iter().any(|(_, undo)| matches!(undo, Undo::Start(n) if *n == node));
            let host = &mut cluster.hosts[node];
            if !killed && !host.lives() {
                let text = format!("{} ended by itself: {}", host.name, host.tail());
                host.kill();
                host.launch(&[]);
                self.note(format!("{} ended by itself", cluster.hosts[node].name));
                self.broken.push(Violation { at: self.began.elapsed(), register: None, text });
            }
        }
    }

    fn busy(&self, node: usize) -> bool {
        self.due.iter().any(|(_, undo)| match undo {
            Undo::Start(busy) | Undo::Resume(busy) | Undo::Stutter(busy, _) => *busy == node,
            Undo::Hear | Undo::Empty | Undo::Promote(_) => false,
        })
    }

    /// A node that nothing is done to, more often than not the leader or another manager.
    fn victim(&mut self, cluster: &Cluster) -> Option<usize> {
        let all = cluster.hosts.len();
        let node = match self.dice.below(10) {
            0..3 => cluster.leader().unwrap_or(0),
            3..7 => self.dice.below(cluster.managers),
            _ => self.dice.below(all),
        };
        let busy: Vec<_> = (0..all).filter(|node| self.busy(*node)).collect();
        // A majority is seldom to be lost: little happens without one.
        let majority = 2 * busy.iter().filter(|node| **node < cluster.managers).count() + 2;
        let spared = majority >= cluster.managers && node < cluster.managers;
        let spared = spared && self.dice.percent(75);
        (busy.len() < AT_ONCE && !spared && !self.busy(node)).then_some(node)
    }

    fn strike(&mut self, cluster: &mut Cluster) {
        let what = self.dice.below(100);
        let fault = match what {
            0..22 => self.kill(cluster),
            22..40 => self.pause(cluster),
            40..46 => self.stutter(cluster),
            46..49 => self.blackout(cluster),
            49..54 => self.fill(cluster),
            54..60 => self.demote(cluster),
            60..94 => self.network(cluster),
            _ => Some("calm"),
        };
        if let Some(fault) = fault {
            *self.counts.entry(fault).or_default() += 1;
        }
    }

    fn kill(&mut self, cluster: &mut Cluster) -> Option<&'static str> {
        let node = self.victim(cluster)?;
        cluster.hosts[node].kill();
        let lasts = self.undo_in(50, 5000, Undo::Start(node));
        self.note(format!("{} is killed for {lasts:?}", cluster.hosts[node].name));
        Some("kill")
    }

    fn pause(&mut self, cluster: &mut Cluster) -> Option<&'static str> {
        let node = self.victim(cluster)?;
        cluster.hosts[node].signal(Signal::STOP);
        let longest = if self.dice.percent(20) { 15_000 } else { 4_000 };
        let lasts = self.undo_in(100, longest, Undo::Resume(node));
        self.note(format!("{} stands still for {lasts:?}", cluster.hosts[node].name));
        Some("pause")
    }

    fn stutter(&mut self, cluster: &mut Cluster) -> Option<&'static str> {
        let node = self.victim(cluster)?;
        self.note(format!("{} stutters", cluster.hosts[node].name));
        self.undo_in(1, 50, Undo::Stutter(node, 41));
        Some("stutter")
    }

    /// All managers lose power at once.
    fn blackout(&mut self, cluster: &mut Cluster) -> Option<&'static str> {
        if (0..cluster.managers).any(|node| self.busy(node)) {
            return None;
        }
        for node in 0..cluster.managers {
            cluster.hosts[node].kill();
            self.undo_in(50, 2000, Undo::Start(node));
        }
        self.note("all managers are killed".into());
        Some("blackout")
    }

    /// One of the managers is to be a worker for a while.
    fn demote(&mut self, cluster: &mut Cluster) -> Option<&'static str> {
        if self.due.iter().any(|(_, undo)| matches!(undo, Undo::Promote(_))) {
            return None;
        }
        let node = self.dice.below(cluster.managers);
        let lasts = self.undo_in(1000, 12_000, Undo::Promote(node));
        let name = cluster.hosts[node].name;
        let told = cluster.set_role(node, "worker");
        self.note(format!("{name} is demoted for {lasts:?}: {told:?}"));
        told.map(|()| "demotion")
    }

    fn fill(&mut self, cluster: &mut Cluster) -> Option<&'static str> {
        let disk = cluster.disk.as_ref()?;
        if self.due.iter().any(|(_, undo)| matches!(undo, Undo::Empty)) {
            return None;
        }
        disk.fill();
        let lasts = self.undo_in(500, 8000, Undo::Empty);
        self.note(format!("the last manager's disk is full for {lasts:?}"));
        Some("full disk")
    }

    fn network(&mut self, cluster: &mut Cluster) -> Option<&'static str> {
        if cluster.net.is_none() || self.due.iter().any(|(_, undo)| matches!(undo, Undo::Hear)) {
            return None;
        }
        let (all, managers) = (cluster.hosts.len(), cluster.managers);
        let leader = cluster.leader();
        let node = leader.filter(|_| self.dice.percent(40)).unwrap_or_else(|| self.dice.below(all));
        let other = (node + 1 + self.dice.below(managers - 1)) % managers.max(node + 1);
        let name = cluster.hosts[node].name;
        let what = self.dice.below(7);
        let net = cluster.net.as_mut()?;
        let (kind, text) = match what {
            0 => {
                let side: Vec<bool> = (0..all).map(|_| self.dice.percent(50)).collect();
                for (a, ear) in net.ears.iter_mut().enumerate() {
                    ear.deaf_to = (0..all).filter(|b| side[*b] != side[a]).collect();
                }
                let names = cluster.hosts.iter().zip(&side).filter(|(_, side)| **side);
                let names: Vec<_> = names.map(|(host, _)| host.name).collect();
                ("partition", format!("{names:?} and the others do not hear each other"))
            }
            1 => {
                for (a, ear) in net.ears.iter_mut().enumerate() {
                    ear.deaf_to = (0..all).filter(|b| (a == node) != (*b == node)).collect();
                }
                ("isolation", format!("{name} is alone"))
            }
            2 => {
                net.ears[node].deaf_to = (0..all).filter(|other| *other != node).collect();
                ("one way", format!("{name} hears nobody"))
            }
            3 => {
                for (a, ear) in net.ears.iter_mut().enumerate() {
                    ear.deaf_to = (0..all).filter(|b| a != node && *b == node).collect();
                }
                ("one way", format!("nobody hears {name}"))
            }
            4 => {
                net.ears[node].deaf_to.insert(other);
                let text = format!("{name} does not hear {}", cluster.hosts[other].name);
                ("one way", text)
            }
            5 => {
                net.ears[node].loss = 10 + self.dice.next() % 40;
                ("loss", format!("{name} loses {} of 100 packets", net.ears[node].loss))
            }
            _ => {
                net.ears[node].slow = true;
                ("slow link", format!("{name} gets 16 kB in a second, and that late"))
            }
        };
        (0..all).for_each(|node| net.apply(node));
        let lasts = self.undo_in(300, 9000, Undo::Hear);
        self.note(format!("{text} for {lasts:?}"));
        Some(kind)
    }
}
