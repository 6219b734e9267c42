//! The managers and workers of a run: their start, and what their machine says of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::{self, Answer, Host, until};
use crate::net::Net;

const MANAGERS: [&str; 5] = ["m1", "m2", "m3", "m4", "m5"];
const WORKERS: [&str; 3] = ["w1", "w2", "w3"];
/// How often agents are heard: nodes are down, and their tasks elsewhere, within a few seconds.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long each manager is asked for what it shows after a failure.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
/// The variable by which a task's process is known.
pub const MARK: &str = "SWARM_CHAOS_TASK";

/// The next of a row of numbers that the seed decides (splitmix64).
#[derive(Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a small number");
        usize::try_from(self.next() % end).expect("less than it")
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }
}

/// One request whose answer is waited for no longer than this. An error leaves open whether it was
/// carried out.
pub fn ask(
    socket: &Path,
    within: Duration,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: swarm\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    machine::parse(&answer)
}

/// A small file system for one manager's state; unmounted at the end.
pub struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir(at).ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m,mode=0700", "swarm-chaos"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let Ok(mut file) = File::create(self.ballast()) else { return };
        for size in [1 << 18, 1 << 12, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    pub fn empty(&self) {
        let _ = fs::remove_file(self.ballast());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Every node of a swarm; the managers come first.
pub struct Cluster {
    pub hosts: Vec<Host>,
    pub managers: usize,
    /// The disk of the last manager, where the machine allows that.
    pub disk: Option<Disk>,
    pub net: Option<Net>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts all of them and waits until they are ready.
    pub fn start(managers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let net = match Net::new(managers + WORKERS.len()) {
            Ok(net) => Some(net),
            Err(why) => {
                println!("skipped: partitions, for this machine gives no networks: {why}");
                None
            }
        };
        let names = MANAGERS[..managers].iter().map(|name| (*name, "manager"));
        let names = names.chain(WORKERS.map(|name| (name, "worker")));
        let mut hosts: Vec<_> =
            names.map(|(name, binary)| Host::new(dir.path(), binary, name)).collect();
        if let Some(net) = &net {
            for (node, host) in hosts.iter_mut().enumerate() {
                host.namespace = Some(net.namespace(node));
                host.address = net.address(node);
            }
        }
        let disk = Disk::mount(&hosts[managers - 1].state);
        if disk.is_none() {
            println!("skipped: full disks, which need root, to mount a tmpfs");
        }
        let mut cluster = Self { hosts, managers, disk, net, _dir: dir };
        cluster.form();
        cluster
    }

    fn form(&mut self) {
        self.hosts[0].start(&["--init"]);
        self.set_heartbeat();
        let tokens = self.hosts[0].get("/swarm")["JoinTokens"].clone();
        let remote = format!("{}:2377", self.hosts[0].address);
        for node in 1..self.hosts.len() {
            let manager = node < self.managers;
            let token = &tokens[if manager { "Manager" } else { "Worker" }];
            let host = &mut self.hosts[node];
            host.launch(&["--join", &remote, "--token", token.as_str().unwrap()]);
            until(&format!("{} joins", host.name), || {
                let swarm = &host.try_get("/info")?["Swarm"];
                let joined =
                    swarm["LocalNodeState"] == "active" && swarm["ControlAvailable"] == manager;
                if joined { Ok(()) } else { Err(format!("{swarm}; log: {}", host.tail())) }
            });
        }
    }

    fn set_heartbeat(&self) {
        let mut swarm = self.hosts[0].get("/swarm");
        let version = swarm["Version"]["Index"].as_u64().unwrap();
        swarm["Spec"]["Dispatcher"]["HeartbeatPeriod"] =
            json!(u64::try_from(HEARTBEAT.as_nanos()).unwrap());
        let path = format!("/swarm/update?version={version}");
        let answer = self.hosts[0].call("POST", &path, &swarm["Spec"]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    pub fn managers(&self) -> &[Host] {
        &self.hosts[..self.managers]
    }

    /// Which node leads, as far as one of the managers says at once.
    pub fn leader(&self) -> Option<usize> {
        self.managers().iter().find_map(|host| {
            let answer = ask(&host.socket, Duration::from_millis(300), "GET", "/nodes", "").ok()?;
            let nodes: Value = serde_json::from_str(&answer.body).ok()?;
            let mut nodes = nodes.as_array()?.iter();
            let leader = nodes.find(|node| node["ManagerStatus"]["Leader"] == true)?;
            let name = leader["Description"]["Hostname"].as_str()?.to_owned();
            self.managers().iter().position(|host| host.name == name)
        })
    }

    /// Changes a manager's wanted role through whichever manager does it.
    pub fn set_role(&self, node: usize, role: &str) -> Option<()> {
        let within = Duration::from_millis(500);
        let path = format!("/nodes/{}", self.hosts[node].node_id()?);
        self.managers().iter().find_map(|host| {
            let answer = ask(&host.socket, within, "GET", &path, "").ok()?;
            let mut node = (answer.status == 200).then(|| answer.json())?;
            let path = format!("{path}/update?version={}", node["Version"]["Index"]);
            node["Spec"]["Role"] = json!(role);
            let answer =
                ask(&host.socket, within, "POST", &path, &node["Spec"].to_string()).ok()?;
            (answer.status == 200).then_some(())
        })
    }

    /// The tasks that live on this machine as processes, with their process ids.
    pub fn processes(&self) -> BTreeMap<String, Vec<i32>> {
        let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        let own = format!("{MARK}={}:", self.mark());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let (Some(pid), Ok(environ)) = (pid, fs::read(entry.path().join("environ"))) else {
                continue;
            };
            if fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm != "sleep\n") {
                continue;
            }
            let environ = String::from_utf8_lossy(&environ);
            let marks = environ.split('\0').filter_map(|variable| variable.strip_prefix(&own));
            marks.for_each(|task| found.entry(task.to_owned()).or_default().push(pid));
        }
        found
    }

    /// What tells the tasks of this run from all others.
    pub fn mark(&self) -> String {
        std::process::id().to_string()
    }

    /// A service whose tasks sleep, and are known by their environment.
    pub fn service(&self, name: &str, mode: Value) -> Value {
        let mark = format!("{MARK}={}:{{{{.Service.Name}}}} {{{{.Task.ID}}}}", self.mark());
        json!({
            "Name": name,
            "Labels": { "value": "0" },
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "none",
                    "Command": ["sleep", "100000"],
                    "Env": [mark],
                },
                "RestartPolicy": { "Delay": 500_000_000 },
            },
            "UpdateConfig": {
                "Parallelism": 2, "Monitor": 500_000_000, "FailureAction": "continue",
            },
            "Mode": mode,
        })
    }

    /// Keeps the nodes' logs where they can be read after a failure, their directories, and what the
    /// managers show.
    pub fn keep_logs(&self, seed: u64) -> PathBuf {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
        let _ = fs::create_dir_all(&kept);
        for host in &self.hosts {
            let _ = fs::copy(&host.log, kept.join(format!("{}.log", host.name)));
            let _ =
                Command::new("cp").arg("-r").arg(&host.state).arg(kept.join(host.name)).status();
        }
        for manager in self.managers() {
            for what in ["nodes", "services", "tasks"] {
                let shown = ask(&manager.socket, SHOWN_WITHIN, "GET", &format!("/{what}"), "");
                let shown = shown.map_or_else(|error| error.to_string(), |answer| answer.body);
                let _ = fs::write(kept.join(format!("{}-{what}.json", manager.name)), shown);
            }
        }
        let processes = format!("{:#?}", self.processes());
        let _ = fs::write(kept.join("processes"), processes);
        kept
    }

    /// The memory that each node's process holds, in MB.
    pub fn memory(&self) -> Vec<(&'static str, u64)> {
        let resident = |host: &Host| {
            let path = format!("/proc/{}/status", host.pid().as_raw_nonzero());
            let status = fs::read_to_string(path).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim();
            Some(line.split(' ').next()?.parse::<u64>().ok()? / 1024)
        };
        self.hosts.iter().map(|host| (host.name, resident(host).unwrap_or(0))).collect()
    }
}
