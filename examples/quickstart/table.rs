//! The live table of the quickstart: what `docker service ls` and `docker stack ps` would show.

use swarm::core::model::TaskState;
use swarm::core::store::Snapshot;

/// Running and wanted tasks of each service.
pub(crate) fn progress(view: &Snapshot) -> Vec<(String, usize, usize)> {
    let services = view.services.iter().filter(|service| !service.pending_delete);
    let mut rows: Vec<_> = services
        .map(|service| {
            let tasks = view.tasks_of(service.id).filter(|task| task.is_wanted());
            let (mut running, mut wanted) = (0, 0);
            for task in tasks {
                wanted += 1;
                running += usize::from(task.status.state == TaskState::Running);
            }
            if let Some(replicas) = service.spec.mode.replicas() {
                wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
            }
            (service.spec.name.clone(), running, wanted)
        })
        .collect();
    rows.sort();
    rows
}

/// Whether every service has as many tasks running as it wants, and a global one on every node.
pub(crate) fn is_complete(view: &Snapshot, nodes: usize) -> bool {
    let rows = progress(view);
    let is_global = |name: &str| {
        view.services.named(name).is_some_and(|service| service.spec.mode.name() == "global")
    };
    let complete = |(name, running, wanted): &(String, usize, usize)| {
        *running >= if is_global(name) { nodes } else { *wanted }
    };
    !rows.is_empty() && rows.iter().all(complete)
}

/// One line for each task that is wanted or failed.
pub(crate) fn tasks(view: &Snapshot) -> String {
    let mut rows: Vec<[String; 4]> = view
        .tasks
        .iter()
        .filter(|task| task.is_wanted())
        .map(|task| {
            let name = match task.slot {
                0 => task.annotations.name.clone(),
                slot => format!("{}.{slot}", task.annotations.name),
            };
            let node = task.node_id.and_then(|id| view.nodes.get(id));
            let node = node.map_or("-".to_owned(), |node| node.display_name().to_owned());
            let why =
                if task.status.err.is_empty() { &*task.status.message } else { &*task.status.err };
            [name, node, task.status.state.to_string(), why.to_owned()]
        })
        .collect();
    rows.sort();
    let mut text = format!("{:<24} {:<12} {:<10} {}\n", "TASK", "NODE", "STATE", "");
    for [name, node, state, why] in rows {
        text += &format!("{name:<24} {node:<12} {state:<10} {why}\n");
    }
    text
}
