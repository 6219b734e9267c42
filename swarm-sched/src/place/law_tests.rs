//! The loads that follow a history are those that are added up from its last view.

use proptest::prelude::*;
use swarm_core::id::IdSource;
use swarm_core::model::*;
use swarm_core::store::{Change, Snapshot};
use swarm_core::time::Timestamp;

use super::loads::Loads;
use crate::world::port;

#[derive(Clone, Debug)]
enum Happens {
    Node,
    Shrink(usize),
    EraseNode(usize),
    Task { node: usize, state: usize, memory: i64, host_port: u16, gpus: usize },
    Advance { task: usize, state: usize },
    Desire { task: usize, state: usize },
    EraseTask(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    prop_oneof![
        1 => Just(Node),
        1 => any::<usize>().prop_map(Shrink),
        1 => any::<usize>().prop_map(EraseNode),
        4 => (any::<usize>(), 1_usize..8, 0_i64..9, 0_u16..3, 0_usize..3).prop_map(
            |(node, state, memory, host_port, gpus)| Task { node, state, memory, host_port, gpus }
        ),
        3 => (any::<usize>(), 0_usize..14).prop_map(|(task, state)| Advance { task, state }),
        2 => (any::<usize>(), 0_usize..14).prop_map(|(task, state)| Desire { task, state }),
        1 => any::<usize>().prop_map(EraseTask),
    ]
}

fn gpu(number: usize) -> GenericResource {
    let (kind, value) = ("gpu".to_owned(), format!("G{number}"));
    let named = NamedResource { kind, value, ..NamedResource::default() };
    GenericResource { named: Some(named), ..GenericResource::default() }
}

fn change(view: &Snapshot, ids: &mut IdSource, happens: &Happens) -> Option<Change> {
    let at = |index: usize, len: usize| index.checked_rem(len);
    let node_at = |index| view.nodes.iter().nth(at(index, view.nodes.len())?);
    let task_at = |index| view.tasks.iter().nth(at(index, view.tasks.len())?);
    Some(match *happens {
        Happens::Node => {
            let mut node = Node { id: ids.next(), ..Node::default() };
            let resources = &mut node.description.get_or_insert_default().resources;
            resources.memory_bytes = 100;
            resources.generic = (0..3).map(gpu).collect();
            Change::create(node)
        }
        Happens::Shrink(index) => {
            let mut node = Node::clone(node_at(index)?);
            let resources = &mut node.description.get_or_insert_default().resources;
            resources.memory_bytes /= 2;
            resources.generic.pop();
            Change::update(node)
        }
        Happens::EraseNode(index) => Change::remove(node_at(index)?.id),
        Happens::Task { node, state, memory, host_port, gpus } => {
            let mut task = Task { id: ids.next(), ..Task::default() };
            task.node_id = Some(node_at(node)?.id);
            task.status.state = TaskState::ALL[state];
            task.desired_state = TaskState::Running;
            let mut spec = TaskSpec::default();
            let resources = spec.resources.get_or_insert_default();
            resources.reservations.get_or_insert_default().memory_bytes = memory;
            task.spec = spec.into();
            let ports = vec![port(80, host_port, PublishMode::Host)];
            task.endpoint = Some(Endpoint { ports, ..Endpoint::default() }.into());
            task.generic_resources = (0..gpus).map(gpu).collect();
            Change::create(task)
        }
        Happens::Advance { task, state } => {
            let status = TaskStatus::new(TaskState::ALL[state], Timestamp::ZERO, "");
            Change::Advance(task_at(task)?.id, Box::new(status))
        }
        Happens::Desire { task, state } => Change::Desire(task_at(task)?.id, TaskState::ALL[state]),
        Happens::EraseTask(index) => Change::remove(task_at(index)?.id),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn following_is_as_good_as_adding_up(
        history in proptest::collection::vec(proptest::collection::vec(happens(), 0..6), 0..12)
    ) {
        let mut ids = IdSource::seeded(9);
        let mut view = Snapshot::default();
        let mut loads = Loads::default();
        for batch in history {
            let seen = view.clone();
            for happens in batch {
                if let Some(change) = change(&view, &mut ids, &happens) {
                    view.stage(change, Timestamp::ZERO).expect("the change is legal");
                }
            }
            loads.follow(&seen, &view);
            prop_assert_eq!(&loads, &Loads::of(&view));
        }
    }
}
