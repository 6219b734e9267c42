//! Several managers as real processes: what one acknowledged every other shows, and the swarm goes on
//! without any one of them.

#[path = "support/machine.rs"]
mod machine;

use std::path::Path;

use machine::{Answer, Host, Task, gone, is_alive, sleeper, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// What Swarm says without a majority.
const NO_LEADER: &str = "The swarm does not have a leader.";

/// Managers of one swarm; the first began it.
struct Managers {
    all: Vec<Host>,
    _dir: tempfile::TempDir,
}

impl Managers {
    fn start(names: &[&'static str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Host::new(dir.path(), "manager", names[0]);
        first.start(&["--init"]);
        let mut managers = Self { all: vec![first], _dir: dir };
        for name in &names[1..] {
            managers.join(name, "Manager");
        }
        managers
    }

    /// One more node, by the token of a role.
    fn join(&mut self, name: &'static str, role: &str) {
        let mut host = Host::new(self.dir(), "manager", name);
        let token = self.all[0].get("/swarm")["JoinTokens"][role].as_str().unwrap().to_owned();
        let remote = format!("{}:2377", self.all[0].address);
        host.launch(&["--join", &remote, "--token", &token]);
        let manager = role == "Manager";
        until(&format!("{name} joins"), || {
            let swarm = &host.try_get("/info")?["Swarm"];
            let joined =
                swarm["LocalNodeState"] == "active" && swarm["ControlAvailable"] == manager;
            if joined { Ok(()) } else { Err(format!("{swarm}; log: {}", host.tail())) }
        });
        self.all.push(host);
    }

    /// Gives a manager that does not run another address.
    fn moves(&mut self, who: usize) -> String {
        let elsewhere = Host::new(self.dir(), "manager", "x").address.clone();
        assert_ne!(elsewhere, self.all[who].address);
        self.all[who].address.clone_from(&elsewhere);
        elsewhere
    }

    fn dir(&self) -> &Path {
        self._dir.path()
    }

    /// Waits until `docker node ls` at a manager shows these roles: `leader`, `reachable`,
    /// `unreachable`, or nothing for a worker.
    fn shown(&self, at: usize, wanted: &[(&str, &str)]) {
        until(&format!("{wanted:?}"), || {
            let nodes = self.all[at].try_get("/nodes")?;
            let mut found: Vec<(String, String)> = nodes
                .as_array()
                .into_iter()
                .flatten()
                .map(|node| {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    let status = &node["ManagerStatus"];
                    let leads = status["Leader"] == true;
                    let role = if leads { "leader".into() } else { text(&status["Reachability"]) };
                    (text(&node["Description"]["Hostname"]), role)
                })
                .collect();
            found.sort();
            let fits = found.iter().map(|(name, role)| (name.as_str(), role.as_str()));
            if fits.eq(wanted.iter().copied()) { Ok(()) } else { Err(format!("{found:?}")) }
        });
    }

    fn leader(&self, at: usize) -> usize {
        until("somebody leads", || {
            let nodes = self.all[at].try_get("/nodes")?;
            let nodes = nodes.as_array().cloned().unwrap_or_default();
            let leader = nodes.iter().find(|node| node["ManagerStatus"]["Leader"] == true);
            let name = leader.ok_or("nobody")?["Description"]["Hostname"].clone();
            let leader = self.all.iter().position(|host| name == host.name);
            leader.ok_or_else(|| format!("{name} is none of ours"))
        })
    }

    /// Changes a node's wanted role, as `docker node promote` and `demote` do.
    fn set_role(&self, at: usize, who: usize, role: &str) -> Answer {
        let id = self.all[who].node_id().unwrap();
        let node = self.all[at].get(&format!("/nodes/{id}"));
        let version = node["Version"]["Index"].as_u64().unwrap();
        let mut spec = node["Spec"].clone();
        spec["Role"] = json!(role);
        self.all[at].call("POST", &format!("/nodes/{id}/update?version={version}"), spec)
    }

    fn no_panic(&self) {
        self.all.iter().for_each(Host::assert_no_panic);
    }
}

/// What a manager is among the members of raft, as its state directory says.
fn raft_id(host: &Host) -> u64 {
    let text = std::fs::read_to_string(host.state.join("swarm.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["raft_id"].as_u64().unwrap()
}

fn alive(tasks: &[Task]) -> bool {
    tasks.iter().all(|task| is_alive(task.pid))
}

#[test]
fn what_one_manager_acknowledged_every_other_shows_and_a_lost_leader_is_replaced() {
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    swarm.shown(2, &[("m1", "leader"), ("m2", "reachable"), ("m3", "reachable")]);
    let mut acknowledged = Vec::new();
    for number in 0..9 {
        let (writer, reader) = (&swarm.all[number % 3], &swarm.all[(number + 1) % 3]);
        let id = writer.create("services", &sleeper(&format!("s{number}"), 0));
        reader.get(&format!("/services/{id}"));
        acknowledged.push(id);
    }
    swarm.all[1].create("services", &sleeper("kept", 3));
    let kept = swarm.all[2].running("kept", 3);
    // A follower has the leader ask the agents.
    let mut talker = sleeper("talker", 1);
    talker["TaskTemplate"]["ContainerSpec"]["Command"] =
        json!(["sh", "-c", "echo here; sleep 9999"]);
    swarm.all[0].create("services", &talker);
    swarm.all[0].running("talker", 1);
    for host in &swarm.all {
        until("its output is there", || {
            let answer = host.call("GET", "/services/talker/logs?stdout=1", "");
            if answer.body.contains("here") { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }

    swarm.all[0].kill();
    // Whoever writes meanwhile is answered by the next leader, or told that there is none.
    let mut written = None;
    until("a write after the leader's end", || {
        let answer = swarm.all[1].call("POST", "/services/create", sleeper("after", 0));
        written = (answer.status == 201).then(|| machine::id_of(&answer));
        if written.is_some() { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    acknowledged.extend(written);
    let leader = swarm.leader(1);
    assert_ne!(leader, 0);
    for id in &acknowledged {
        swarm.all[3 - leader].get(&format!("/services/{id}"));
    }
    swarm.all[0].start(&[]);
    for id in &acknowledged {
        swarm.all[0].get(&format!("/services/{id}"));
    }
    assert_eq!(swarm.all[0].running("kept", 3), kept, "no task was touched");
    assert!(alive(&kept));
    swarm.no_panic();
}

#[test]
fn a_minority_answers_that_there_is_no_leader_and_goes_on_when_there_is_one() {
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    let mut service = sleeper("kept", 1);
    service["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.hostname==m1"] });
    swarm.all[0].create("services", &service);
    let kept = swarm.all[0].running("kept", 1);
    swarm.all[1].kill();
    swarm.all[2].kill();
    for (method, path) in [("GET", "/services"), ("GET", "/nodes"), ("DELETE", "/services/kept")] {
        until(&format!("{method} {path} says so"), || {
            let answer = swarm.all[0].call(method, path, "");
            let says = answer.status == 500 && answer.body.contains(NO_LEADER);
            if says { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }
    assert_eq!(swarm.all[0].get("/info")["Swarm"]["LocalNodeState"], "active");
    assert!(alive(&kept), "tasks need no leader");
    swarm.all[1].start(&[]);
    assert_eq!(swarm.all[0].running("kept", 1), kept);
    assert_eq!(swarm.all[1].call("DELETE", "/services/kept", "").status, 200);
    kept.iter().for_each(|task| gone(task.pid));
    swarm.no_panic();
}

#[test]
fn nodes_are_promoted_and_demoted_the_leader_too() {
    let mut swarm = Managers::start(&["m1"]);
    swarm.join("m2", "Worker");
    swarm.join("m3", "Worker");
    let alone = swarm.set_role(0, 0, "worker");
    assert_eq!(alone.status, 400);
    assert!(alone.message().contains("attempting to demote the last manager of the swarm"));
    let refused = swarm.all[1].call("GET", "/services", "");
    assert!(refused.message().contains("This node is not a swarm manager"), "{refused:?}");
    for who in [1, 2] {
        assert_eq!(swarm.set_role(0, who, "manager").status, 200);
    }
    swarm.shown(0, &[("m1", "leader"), ("m2", "reachable"), ("m3", "reachable")]);
    until("m2 manages", || swarm.all[1].try_get("/services").map(drop));
    swarm.all[0].create("services", &sleeper("kept", 3));
    let kept = swarm.all[1].running("kept", 3);

    // A leader that is demoted hands over first.
    let was = raft_id(&swarm.all[0]);
    assert_eq!(swarm.set_role(0, 0, "worker").status, 200);
    until("m1 is a worker", || {
        let swarm = &swarm.all[0].try_get("/info")?["Swarm"];
        if swarm["ControlAvailable"] == false { Ok(()) } else { Err(swarm.to_string()) }
    });
    let leader = swarm.leader(1);
    let mut roles = [("m1", ""), ("m2", "reachable"), ("m3", "reachable")];
    roles[leader].1 = "leader";
    swarm.shown(leader, &roles);
    assert_eq!(swarm.all[leader].running("kept", 3), kept, "no task was touched");
    until("a worker keeps nothing of a manager's", || {
        if swarm.all[0].state.join("raft").exists() { Err(swarm.all[0].tail()) } else { Ok(()) }
    });

    // Back again, as another member; and after a restart too.
    assert_eq!(swarm.set_role(leader, 0, "manager").status, 200);
    until("m1 manages again", || swarm.all[0].try_get("/services").map(drop));
    roles[0].1 = "reachable";
    swarm.shown(0, &roles);
    swarm.all[0].kill();
    swarm.all[0].start(&[]);
    assert_eq!(swarm.all[0].running("kept", 3), kept);
    let is = raft_id(&swarm.all[0]);
    assert!(was != 0 && is != 0 && was != is, "raft ids are not used again: {was}, {is}");
    swarm.no_panic();
}

#[test]
fn managers_that_leave_by_force_the_leader_too_are_gone_and_the_others_go_on() {
    let swarm = Managers::start(&["m1", "m2", "m3"]);
    swarm.shown(0, &[("m1", "leader"), ("m2", "reachable"), ("m3", "reachable")]);
    let mut service = sleeper("kept", 1);
    service["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.hostname==m2"] });
    swarm.all[0].create("services", &service);
    let kept = swarm.all[1].running("kept", 1);
    // First the leader, then, when it has joined again, a follower: m2 is there all the time.
    for (who, names) in [(0, ["m1", "m2", "m3"]), (2, ["m1", "m2", "m3"])] {
        let (id, former) = (swarm.all[who].node_id().unwrap(), raft_id(&swarm.all[who]));
        let warned = swarm.all[who].call("POST", "/swarm/leave", "");
        assert_eq!(warned.status, 503, "{warned:?}");
        let left = swarm.all[who].call("POST", "/swarm/leave?force=1", "");
        assert_eq!(left.status, 200, "{left:?}");
        let info = swarm.all[who].get("/info")["Swarm"].clone();
        assert_eq!(info["LocalNodeState"], "inactive", "{info}");
        assert!(swarm.all[who].node_id().is_none(), "nothing of it is left");

        // The others lead on, and know it as a manager that is not there: as Swarm does.
        let shown = until("it is missed", || {
            let node = swarm.all[1].try_get(&format!("/nodes/{id}"))?;
            let gone = node["ManagerStatus"]["Reachability"] == "unreachable";
            if gone { Ok(node) } else { Err(node.to_string()) }
        });
        assert_eq!(shown["Spec"]["Role"], "manager", "{shown}");
        let name = format!("while {} is away", swarm.all[who].name);
        swarm.all[1].create("services", &sleeper(&name.replace(' ', "-"), 0));

        // An operator takes it out.
        let path = format!("/nodes/{id}");
        until("it is demoted", || {
            let node = swarm.all[1].try_get(&path)?;
            let mut spec = node["Spec"].clone();
            spec["Role"] = json!("worker");
            let version = node["Version"]["Index"].as_u64().ok_or("no version")?;
            let answer =
                swarm.all[1].call("POST", &format!("{path}/update?version={version}"), spec);
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        until("it is removed", || {
            let answer = swarm.all[1].call("DELETE", &format!("{path}?force=1"), "");
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        });
        let leader = swarm.leader(1);
        let role = |at: usize| if at == leader { "leader" } else { "reachable" };
        let left: Vec<_> = (0..3).filter(|at| *at != who).map(|at| (names[at], role(at))).collect();
        swarm.shown(1, &left);

        // It may come again, as another node.
        let token = swarm.all[1].get("/swarm")["JoinTokens"]["Manager"].clone();
        let remote = format!("{}:2377", swarm.all[1].address);
        let join = json!({ "RemoteAddrs": [remote], "JoinToken": token });
        let joined = swarm.all[who].call("POST", "/swarm/join", join);
        assert_eq!(joined.status, 200, "{joined:?}");
        assert!(swarm.all[who].node_id().unwrap() != id && raft_id(&swarm.all[who]) != former);
        until("it manages", || swarm.all[who].try_get("/services/kept").map(drop));
        let all: Vec<_> = (0..3).map(|at| (names[at], role(at))).collect();
        swarm.shown(1, &all);
    }
    assert_eq!(swarm.all[1].running("kept", 1), kept, "no task was touched");
    swarm.no_panic();
}

#[test]
fn a_demotion_that_would_cost_the_quorum_is_refused() {
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    swarm.shown(0, &[("m1", "leader"), ("m2", "reachable"), ("m3", "reachable")]);
    swarm.all[1].kill();
    swarm.shown(0, &[("m1", "leader"), ("m2", "unreachable"), ("m3", "reachable")]);
    let lost = swarm.all[1].node_id().unwrap();
    let refused = swarm.all[0].call("DELETE", &format!("/nodes/{lost}?force=1"), "");
    assert!(refused.message().contains("is a member of the raft cluster"), "{refused:?}");
    let warning = swarm.all[0].call("POST", "/swarm/leave", "");
    assert_eq!(warning.status, 503);
    assert!(warning.message().contains("leaves 1 managers out of 3"), "{warning:?}");

    for node in [0, 2] {
        let refused = swarm.set_role(2, node, "worker");
        assert_eq!(refused.status, 400);
        let text = "can't remove member from the raft: this would result in a loss of quorum";
        assert!(refused.message().ends_with(text), "{refused:?}");
    }
    swarm.shown(0, &[("m1", "leader"), ("m2", "unreachable"), ("m3", "reachable")]);
    // The lost one can go; then one of two managers can, for the other one is there.
    assert_eq!(swarm.set_role(0, 1, "worker").status, 200);
    swarm.shown(0, &[("m1", "leader"), ("m2", ""), ("m3", "reachable")]);
    assert_eq!(swarm.set_role(0, 2, "worker").status, 200);
    swarm.shown(0, &[("m1", "leader"), ("m2", ""), ("m3", "")]);
    // What was a manager when it was last heard finds that it is none.
    swarm.all[1].launch(&[]);
    until("m2 is a worker", || {
        let swarm = &swarm.all[1].try_get("/info")?["Swarm"];
        if swarm["ControlAvailable"] == false { Ok(()) } else { Err(swarm.to_string()) }
    });
    swarm.no_panic();
}

#[test]
fn a_manager_whose_address_changed_is_found_again() {
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    swarm.all[1].kill();
    let elsewhere = swarm.moves(1);
    swarm.all[1].start(&[]);
    let id = swarm.all[1].create("services", &sleeper("here", 0));
    swarm.all[2].get(&format!("/services/{id}"));
    until("it is shown where it is", || {
        let node = swarm.all[0].try_get(&format!("/nodes/{}", swarm.all[1].node_id().unwrap()))?;
        let addr = format!("{elsewhere}:2377");
        if node["ManagerStatus"]["Addr"] == addr { Ok(()) } else { Err(node.to_string()) }
    });
    // The only two that are left are it and another one: both are needed now.
    swarm.all[0].kill();
    until("a write", || {
        let answer = swarm.all[2].call("POST", "/services/create", sleeper("there", 0));
        if answer.status == 201 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    swarm.no_panic();
}

#[test]
fn a_manager_that_moved_is_found_where_nobody_can_lead_without_it() {
    let mut swarm = Managers::start(&["m1", "m2"]);
    swarm.shown(0, &[("m1", "leader"), ("m2", "reachable")]);
    swarm.all[1].kill();
    // What the first took and could not commit makes it the only one that can be elected.
    let refused = swarm.all[0].call("POST", "/services/create", sleeper("taken", 0));
    assert_eq!(refused.status, 500, "{refused:?}");
    swarm.moves(1);
    swarm.all[1].start(&[]);
    for (at, name) in [(0, "here"), (1, "there")] {
        swarm.all[at].create("services", &sleeper(name, 0));
    }
    swarm.shown(0, &[("m1", "leader"), ("m2", "reachable")]);
    swarm.no_panic();
}

#[test]
fn a_manager_that_was_demoted_and_promoted_while_it_was_away_is_one_again() {
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    swarm.shown(0, &[("m1", "leader"), ("m2", "reachable"), ("m3", "reachable")]);
    // One that was dead hears of it when it asks for its place; one that stood still believes that it
    // has it.
    for (away, name) in [("dead", "s1"), ("still", "s2")] {
        match away {
            "dead" => swarm.all[1].kill(),
            _ => swarm.all[1].signal(Signal::STOP),
        }
        assert_eq!(swarm.set_role(0, 1, "worker").status, 200);
        swarm.shown(0, &[("m1", "leader"), ("m2", ""), ("m3", "reachable")]);
        assert_eq!(swarm.set_role(0, 1, "manager").status, 200);
        match away {
            "dead" => swarm.all[1].launch(&[]),
            _ => swarm.all[1].signal(Signal::CONT),
        }
        swarm.shown(0, &[("m1", "leader"), ("m2", "reachable"), ("m3", "reachable")]);
        let id = until("it takes a write", || {
            let answer = swarm.all[1].call("POST", "/services/create", sleeper(name, 0));
            let written = (answer.status == 201).then(|| machine::id_of(&answer));
            written.ok_or_else(|| format!("{answer:?}"))
        });
        swarm.all[2].get(&format!("/services/{id}"));
    }
    swarm.no_panic();
}

#[test]
fn a_manager_that_stops_has_another_one_lead_at_once() {
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    swarm.shown(0, &[("m1", "leader"), ("m2", "reachable"), ("m3", "reachable")]);
    swarm.all[0].signal(Signal::TERM);
    until("m1 stops", || if swarm.all[0].lives() { Err("it lives".into()) } else { Ok(()) });
    swarm.all[0].kill();
    assert!(swarm.all[0].tail().contains("leadership now=Follower"), "{}", swarm.all[0].tail());
    swarm.all[1].create("services", &sleeper("after", 0));
    swarm.no_panic();
}

#[test]
fn a_cluster_begins_anew_with_one_manager_and_nobody_follows_what_was_given_up() {
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    swarm.join("w1", "Worker");
    let mut kept = sleeper("kept", 1);
    kept["TaskTemplate"]["Placement"] = json!({ "Constraints": ["node.hostname==w1"] });
    swarm.all[1].create("services", &kept);
    let tasks = swarm.all[0].running("kept", 1);
    swarm.all[1].kill();
    swarm.all[2].kill();
    let refused = swarm.all[3].call("POST", "/swarm/init", json!({ "ForceNewCluster": true }));
    assert_eq!(refused.status, 503, "a worker has nothing to begin anew with: {refused:?}");
    let begun = swarm.all[0].call("POST", "/swarm/init", json!({ "ForceNewCluster": true }));
    assert_eq!(begun.status, 200, "{begun:?}");
    let shown = [("m1", "leader"), ("m2", ""), ("m3", ""), ("w1", "")];
    swarm.shown(0, &shown);
    assert_eq!(swarm.all[0].running("kept", 1), tasks, "no task was touched");
    // It is a cluster like any other: it survives a restart, and takes managers.
    swarm.all[0].kill();
    swarm.all[0].start(&[]);
    swarm.all[0].create("services", &sleeper("new", 0));

    // The two that were given up are a majority of the group that was: they lead again, for a while.
    swarm.all[1].launch(&[]);
    swarm.all[2].launch(&[]);
    for who in [1, 2] {
        until("it is a worker of the new one", || {
            let info = &swarm.all[who].try_get("/info")?["Swarm"];
            let is = info["ControlAvailable"] == false && info["LocalNodeState"] == "active";
            if is { Ok(()) } else { Err(format!("{info}; {}", swarm.all[who].tail())) }
        });
    }
    swarm.shown(0, &shown);
    assert_eq!(swarm.all[0].running("kept", 1), tasks, "its node followed no other group");
    swarm.no_panic();
}

/// Replaces a directory by what is in another one.
fn put_back(copy: &Path, state: &Path) {
    std::fs::remove_dir_all(state).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").args([copy, state]).status();
    assert!(copied.unwrap().success());
}

#[test]
fn a_manager_whose_old_directory_was_copied_back_is_refused_whoever_leads() {
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    swarm.shown(0, &[("m1", "leader"), ("m2", "reachable"), ("m3", "reachable")]);
    swarm.all[1].kill();
    let (state, copy) = (swarm.all[1].state.clone(), swarm.dir().join("copy"));
    std::fs::create_dir(&copy).unwrap();
    put_back(&state, &copy);
    swarm.all[1].start(&[]);
    swarm.shown(0, &[("m1", "leader"), ("m2", "reachable"), ("m3", "reachable")]);
    swarm.all[1].create("services", &sleeper("after", 0));
    swarm.all[1].kill();
    // Another leader knows nothing of what the old one saw of m2.
    swarm.all[0].kill();
    swarm.all[0].launch(&[]);
    until("there is a leader", || swarm.all[2].try_get("/services").map(drop));

    put_back(&copy, &state);
    swarm.all[1].launch(&[]);
    until("it is found out", || {
        let swarm = &swarm.all[1].try_get("/info")?["Swarm"];
        let why = swarm["Error"].as_str().unwrap_or_default();
        let found = swarm["LocalNodeState"] == "error" && why.contains("it is an old copy");
        if found { Ok(()) } else { Err(swarm.to_string()) }
    });
    swarm.all[2].get("/services/after");

    // What the text says to do.
    let leader = swarm.leader(2);
    assert_eq!(swarm.set_role(leader, 1, "worker").status, 200);
    let lost = swarm.all[1].node_id().unwrap();
    until("it is out of the group", || {
        let node = swarm.all[leader].try_get(&format!("/nodes/{lost}"))?;
        if node["ManagerStatus"].is_null() { Ok(()) } else { Err(node.to_string()) }
    });
    swarm.all[1].kill();
    std::fs::remove_dir_all(&state).unwrap();
    swarm.all.swap(0, leader);
    swarm.join("m4", "Manager");
    swarm.all[3].get("/services/after");
    swarm.no_panic();
}

/// What a cluster shows of its root, and what each node holds.
fn roots(host: &Host) -> Result<(Value, Vec<Value>), String> {
    let nodes = host.try_get("/nodes")?;
    let held = |node: &Value| node["Description"]["TLSInfo"].clone();
    Ok((host.try_get("/swarm")?, nodes.as_array().into_iter().flatten().map(held).collect()))
}

#[test]
fn a_rotation_of_the_root_goes_on_with_the_next_leader() {
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    swarm.join("w1", "Worker");
    swarm.all[1].create("services", &sleeper("kept", 3));
    swarm.all[1].running("kept", 3);
    swarm.all[3].kill();
    let (before, _) = roots(&swarm.all[0]).unwrap();
    let mut spec = before["Spec"].clone();
    spec["CAConfig"]["ForceRotate"] = json!(1);
    let version = before["Version"]["Index"].as_u64().unwrap();
    let path = format!("/swarm/update?version={version}");
    assert_eq!(swarm.all[1].call("POST", &path, spec).status, 200);
    let renewed = |host: &Host| {
        let (cluster, held) = roots(host)?;
        let wanted = &cluster["TLSInfo"]["CertIssuerPublicKey"];
        let count = held.iter().filter(|held| held["CertIssuerPublicKey"] == *wanted).count();
        Ok::<_, String>((cluster["RootRotationInProgress"] == true, count))
    };
    until("all but w1 have renewed", || match renewed(&swarm.all[1])? {
        (true, 3) => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let leader = swarm.leader(1);
    swarm.all[leader].kill();
    let other = (leader + 1) % 3;
    until("another one leads in the middle of it", || match renewed(&swarm.all[other])? {
        (true, 3) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    swarm.all[3].launch(&[]);
    swarm.all[leader].launch(&[]);
    let after = until("the rotation ends", || match roots(&swarm.all[other])? {
        (cluster, held)
            if cluster["RootRotationInProgress"] != true
                && held.iter().all(|held| *held == cluster["TLSInfo"]) =>
        {
            Ok(cluster)
        }
        other => Err(format!("{other:?}")),
    });
    assert_ne!(after["TLSInfo"], before["TLSInfo"]);
    assert_ne!(after["JoinTokens"], before["JoinTokens"]);
    // Everyone is in session with the new root alone, and no task was lost but for a node's.
    swarm.all[other].running("kept", 3);
    for host in &swarm.all[..3] {
        until("it answers", || host.try_get("/services/kept").map(drop));
    }
    swarm.no_panic();
}

/// Changes the cluster's settings at a manager.
fn update(host: &Host, query: &str, change: impl Fn(&mut Value)) {
    until("the settings are changed", || {
        let mut cluster = host.try_get("/swarm")?;
        let version = cluster["Version"]["Index"].as_u64().ok_or("no version")?;
        change(&mut cluster["Spec"]);
        let path = format!("/swarm/update?version={version}{query}");
        let answer = host.call("POST", &path, &cluster["Spec"]);
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

#[test]
fn a_kill_at_any_moment_of_a_rotation_of_key_and_root_leaves_a_manager_that_comes_back() {
    const ROUNDS: u64 = 4;
    let mut swarm = Managers::start(&["m1", "m2", "m3"]);
    update(&swarm.all[1], "", |spec| spec["EncryptionConfig"]["AutoLockManagers"] = json!(true));
    let lock = swarm.all[0].state.join("unlock.json");
    until("m1 is locked", || match std::fs::read_to_string(&lock) {
        Ok(text) if text.contains("\"Sealed\":\"") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let key = |host: &Host| {
        until("the key", || {
            let answer = host.try_get("/swarm/unlockkey")?;
            Ok(answer["UnlockKey"].as_str().ok_or("no key")?.to_owned())
        })
    };
    let mut seed = 0x5eed_u64;
    for round in 1..=ROUNDS {
        let old = key(&swarm.all[1]);
        update(&swarm.all[1], "&rotateManagerUnlockKey=true", |spec| {
            spec["CAConfig"]["ForceRotate"] = json!(round);
        });
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(std::time::Duration::from_millis((seed >> 33) % 400));
        swarm.all[0].kill();
        let new = key(&swarm.all[1]);
        assert_ne!(old, new);
        swarm.all[0].launch(&[]);
        until("it comes back with the old or the new key", || {
            let info = &swarm.all[0].try_get("/info")?["Swarm"];
            if info["LocalNodeState"] == "active" {
                return Ok(());
            }
            for key in [&new, &old] {
                swarm.all[0].call("POST", "/swarm/unlock", json!({ "UnlockKey": key }));
            }
            Err(format!("{info}; {}", swarm.all[0].tail()))
        });
        until("the rotation ends", || match roots(&swarm.all[0])? {
            (cluster, held)
                if cluster["RootRotationInProgress"] != true
                    && held.iter().all(|held| *held == cluster["TLSInfo"]) =>
            {
                Ok(())
            }
            other => Err(format!("round {round}: {other:?}")),
        });
    }
    swarm.all[0].create("services", &sleeper("after", 0));
    swarm.no_panic();
}
