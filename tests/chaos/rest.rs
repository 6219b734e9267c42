//! What has to be so once no fault is left: one leader, one state, and every task in one process.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clients::{Clients, Fate, ids, version_and_value};
use crate::cluster::{Cluster, ask};
use crate::history::{Did, Op};

/// How long a cluster may take for any one of these on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until it is so. What is wrong at the end is told.
fn eventually<T>(
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<(T, Duration), String> {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok((found, began.elapsed())),
            Err(why) if began.elapsed() > PATIENCE => return Err(format!("never: {what}: {why}")),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn get(cluster: &Cluster, manager: usize, path: &str) -> Result<Value, String> {
    let host = &cluster.managers()[manager];
    let answer = ask(&host.socket, ANSWER_WITHIN, "GET", path, "")
        .map_err(|error| format!("{} to GET {path}: {error}", host.name))?;
    match answer.status {
        200 => Ok(answer.json()),
        _ => Err(format!("{} to GET {path}: {answer:?}", host.name)),
    }
}

/// Every way in which a cluster at rest is not as it has to be. Says how long things took.
pub fn check(cluster: &Cluster, clients: &Clients) -> Vec<String> {
    let mut broken = Vec::new();
    let mut took = Vec::new();
    let mut note = |what: &str, found: Result<((), Duration), String>| match found {
        Ok(((), lasted)) => took.push(format!("{what} {:.1} s", lasted.as_secs_f64())),
        Err(why) => broken.push(why),
    };
    note("one leader after", eventually("one leader", || one_leader(cluster)));
    note("writes", eventually("writes through every manager", || writes(cluster)));
    note("nodes ready", eventually("every node is ready", || ready(cluster)));
    note("tasks", eventually("each task in one process", || tasks(cluster)));
    note("one state", eventually("all managers show the same", || same(cluster)));
    note("objects", eventually("what was created is there", || objects(cluster, clients)));
    println!("  at rest: {}", took.join(", "));
    broken
}

fn managers(cluster: &Cluster) -> std::ops::Range<usize> {
    0..cluster.managers
}

fn one_leader(cluster: &Cluster) -> Result<(), String> {
    let mut leaders = BTreeSet::new();
    for manager in managers(cluster) {
        let nodes = get(cluster, manager, "/nodes")?;
        let all = nodes.as_array().into_iter().flatten();
        let of_managers: Vec<_> = all.filter(|node| node["Spec"]["Role"] == "manager").collect();
        let reachable =
            of_managers.iter().filter(|node| node["ManagerStatus"]["Reachability"] == "reachable");
        if of_managers.len() != cluster.managers || reachable.count() != cluster.managers {
            return Err(format!("{of_managers:?}"));
        }
        let leads = |node: &&&Value| node["ManagerStatus"]["Leader"] == true;
        let leading = of_managers.iter().filter(leads).map(|node| node["ID"].to_string());
        leaders.insert(leading.collect::<Vec<_>>());
    }
    let leaders: Vec<_> = leaders.into_iter().collect();
    let one = leaders.len() == 1 && leaders[0].len() == 1;
    if one { Ok(()) } else { Err(format!("{leaders:?}")) }
}

fn writes(cluster: &Cluster) -> Result<(), String> {
    for host in cluster.managers() {
        let label = format!("rest-{}-{:?}", host.name, Instant::now());
        let name: String = label.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        let body = json!({ "Name": name, "Data": "c2VjcmV0" }).to_string();
        let told = |error| format!("{}: {error}", host.name);
        let made = ask(&host.socket, ANSWER_WITHIN, "POST", "/secrets/create", &body)
            .map_err(|error| told(error.to_string()))?;
        if made.status != 201 {
            return Err(told(format!("{made:?}")));
        }
        let path = format!("/secrets/{}", crate::machine::id_of(&made));
        let gone = ask(&host.socket, ANSWER_WITHIN, "DELETE", &path, "");
        gone.map_err(|error| told(error.to_string()))?;
    }
    Ok(())
}

fn ready(cluster: &Cluster) -> Result<(), String> {
    let nodes = get(cluster, 0, "/nodes")?;
    let all = nodes.as_array().into_iter().flatten();
    let ready = all.filter(|node| node["Status"]["State"] == "ready").count();
    if ready == cluster.hosts.len() { Ok(()) } else { Err(format!("{ready} are ready: {nodes}")) }
}

/// Every service has as many tasks as it shall, in different slots; each is one process, and there are
/// no other processes.
fn tasks(cluster: &Cluster) -> Result<(), String> {
    let (services, tasks) = (get(cluster, 0, "/services")?, get(cluster, 0, "/tasks")?);
    let processes = cluster.processes();
    let mut expected = BTreeSet::new();
    for service in services.as_array().into_iter().flatten() {
        let name = service["Spec"]["Name"].as_str().unwrap_or_default();
        let replicas = service["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64();
        let of_it = |task: &&Value| {
            let running = task["Status"]["State"] == "running" && task["DesiredState"] == "running";
            task["ServiceID"] == service["ID"] && running
        };
        let running: Vec<_> = tasks.as_array().into_iter().flatten().filter(of_it).collect();
        let wanted = replicas.map_or(cluster.hosts.len(), |n| usize::try_from(n).unwrap());
        let place = |task: &&Value| match replicas {
            Some(_) => task["Slot"].to_string(),
            None => task["NodeID"].to_string(),
        };
        let places: BTreeSet<_> = running.iter().map(place).collect();
        if running.len() != wanted || places.len() != wanted {
            return Err(format!("{name} wants {wanted}, has {} in {places:?}", running.len()));
        }
        let id = |task: &Value| task["ID"].as_str().unwrap_or_default().to_owned();
        expected.extend(running.iter().map(|task| format!("{name} {}", id(task))));
    }
    for (task, pids) in &processes {
        if pids.len() != 1 || !expected.contains(task) {
            return Err(format!("the processes {pids:?} of task {task}"));
        }
    }
    let missing: Vec<_> = expected.iter().filter(|task| !processes.contains_key(*task)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} run as no processes")) }
}

/// Every manager shows the same objects.
fn same(cluster: &Cluster) -> Result<(), String> {
    for kind in ["services", "tasks", "nodes", "secrets", "configs", "networks"] {
        let sorted = |manager| {
            let mut list = get(cluster, manager, &format!("/{kind}"))?;
            let id = |object: &Value| object["ID"].to_string() + &object["Id"].to_string();
            list.as_array_mut().into_iter().for_each(|list| list.sort_by_key(id));
            Ok::<_, String>(list)
        };
        let first = sorted(0)?;
        for manager in managers(cluster).skip(1) {
            let other = sorted(manager)?;
            if first != other {
                return Err(format!("{kind}: {first}\nand\n{other}"));
            }
        }
    }
    Ok(())
}

fn objects(cluster: &Cluster, clients: &Clients) -> Result<(), String> {
    let listed: BTreeSet<_> = ids(&get(cluster, 0, "/secrets")?).into_iter().collect();
    for (id, fate) in &clients.told().objects {
        match (fate, listed.contains(id)) {
            (Fate::Kept, false) => return Err(format!("{id} was created and is lost")),
            (Fate::Gone, true) => return Err(format!("{id} was removed and is back")),
            _ => {}
        }
    }
    Ok(())
}

/// The registers as the first manager shows them, as operations of a last reader.
pub fn last_reads(cluster: &Cluster, clients: &Clients) -> Result<Vec<Op>, String> {
    let read = |register: usize| {
        let start = clients.now();
        let service = get(cluster, 0, &format!("/services/{}", clients.registers[register].id))?;
        let (version, value) =
            version_and_value(&service).ok_or_else(|| format!("no register: {service}"))?;
        let did = Did::Read { version, value };
        let manager = cluster.hosts[0].name;
        Ok(Op { register, client: 99, manager, did, start, end: clients.now() })
    };
    let all = || (0..clients.registers.len()).map(read).collect();
    eventually("every register can be read", all).map(|(reads, _)| reads)
}
