//! How a simulated cluster comes to be, and how a node that was removed joins it anew.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_core::model::{
    Availability, CaConfig, ClusterSpec, JoinTokens, Node, NodeRole, NodeSpec, RootCa, TlsInfo,
};
use swarm_core::store::{Batch, Change};
use swarm_sched::place::PREEMPTION_LABEL;

use super::consensus::{Author, TICK};
use super::host::{Host, WallClock};
use super::machine::Machine;
use super::manager::Reply;
use super::world::{Event, START, World};
use crate::manager::bootstrap::NewCluster;

impl World {
    pub(super) fn set_up(&mut self) {
        for index in 0..self.script.nodes() {
            let name = match index < self.script.managers {
                true => format!("manager{}", index + 1),
                false => format!("worker{}", index + 1 - self.script.managers),
            };
            self.hosts.push(Host {
                index,
                name,
                id: self.ids.next(),
                machine: Machine::default(),
                journal: BTreeMap::new(),
                agent: None,
                manager: None,
                clock: WallClock::new(self.now),
                paused_until: None,
                off: false,
                lost: false,
                lives: 0,
                wakes: [None; 2],
            });
        }
        for index in 0..self.script.managers {
            self.start_manager(index, None);
        }
        self.elect(Some(0));
        let first = self.first_objects();
        self.submit(first);
        for index in 0..self.script.nodes() {
            let soon = self.dice.millis(20, 500);
            self.schedule(soon, Event::Boot(index));
        }
        self.schedule(TICK, Event::Tick);
        for number in 0..self.script.entries.len() {
            self.schedule_at(START + self.script.entries[number].at, Event::Entry(number));
        }
        self.schedule_at(START + self.script.heal_at, Event::HealAll);
    }

    /// What `docker swarm init` and the joins of the other nodes write.
    fn first_objects(&mut self) -> Vec<Change> {
        let most =
            self.script.preemption.map(|most| (PREEMPTION_LABEL.to_owned(), most.to_string()));
        let labels = most.into_iter().collect();
        let ca_config = CaConfig::default();
        let cluster = NewCluster {
            id: self.ids.next(),
            spec: ClusterSpec { labels, ca_config, ..ClusterSpec::default() },
            addr_pool: Vec::new(),
            subnet_size: 0,
            data_path_port: 0,
            root_ca: RootCa::default(),
            tls_info: TlsInfo::default(),
            join_tokens: JoinTokens::default(),
            unlock_key: None,
            node: self.hosts[0].id,
            raft_id: 1,
            advertise: self.hosts[0].name.clone(),
            availability: Availability::Active,
        };
        let mut changes = cluster.changes(&mut self.ids);
        let nodes = self.hosts.iter().skip(1);
        changes.extend(nodes.map(|host| Change::create(joined(host, self.script.managers))));
        changes
    }

    /// A node that was refused is set up anew and joins with a new identity.
    pub(super) fn rejoin(&mut self, index: usize) {
        if self.hosts[index].off || self.hosts[index].lost {
            return;
        }
        let host = &mut self.hosts[index];
        host.agent = None;
        host.journal.clear();
        host.machine.containers.clear();
        host.id = self.ids.next();
        let node = joined(host, self.script.managers);
        self.note_of(index, format_args!("joins again"));
        self.submit(vec![Change::create(node)]);
        self.schedule(Duration::from_millis(500), Event::Boot(index));
    }

    /// Writes without a client: what the authority does when a node joins.
    fn submit(&mut self, changes: Vec<Change>) {
        let host = self.log.leader.map_or(0, |(host, _)| host);
        let (sender, _) = tokio::sync::oneshot::channel();
        let batch = Batch::new(self.now, changes);
        self.propose(host, self.log.epoch, Author::Client, batch, Reply::Client(sender));
    }
}

/// The node object of a host that joins.
fn joined(host: &Host, managers: usize) -> Node {
    let manager = host.index < managers;
    let role = if manager { NodeRole::Manager } else { NodeRole::Worker };
    let mut node = Node {
        id: host.id,
        role,
        spec: NodeSpec { role, ..NodeSpec::default() },
        ..Node::default()
    };
    if manager {
        node.manager_status = Some(swarm_core::model::ManagerStatus {
            addr: host.name.clone(),
            raft_id: host.index as u64 + 1,
            ..Default::default()
        });
    }
    node
}
