//! Real `manager` and `worker` processes with directories and addresses of their own, driven over
//! their API sockets. Whatever was started is killed at the end, tasks included.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// How long anything may take on a busy machine before a test gives up; nothing is asserted about
/// less.
pub const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

/// One answer of the API.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The error's text.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_else(|| panic!("no message: {self:?}")).to_owned()
    }
}

/// Sends bytes to a Unix socket and returns everything that comes back.
pub fn exchange(socket: &Path, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A server may answer and hang up before it has read everything: its answer counts then.
    let written = stream.write_all(bytes);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        written?;
        read?;
    }
    Ok(answer)
}

/// One request over one connection. An error leaves open whether it was carried out.
pub fn request(socket: &Path, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: swarm\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    parse(&exchange(socket, format!("{head}{body}").as_bytes())?)
}

/// Reads one whole answer.
pub fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let cut_off = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off");
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut_off)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(cut_off)?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| body.len() < length) {
        return Err(cut_off());
    }
    Ok(Answer { status, body: body.to_owned() })
}

/// Asks again until there is an answer that fits.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) if Instant::now() > deadline => panic!("not in time: {what}: {why}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// A task as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    pub id: String,
    pub node: String,
    pub pid: i64,
}

/// One node's process, its directory, and its address.
pub struct Host {
    pub name: &'static str,
    pub state: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
    pub address: String,
    pub env: Vec<(&'static str, String)>,
    pub binary: PathBuf,
    /// The network namespace that it runs in, if not the test's own.
    pub namespace: Option<String>,
    child: Option<Child>,
}

impl Host {
    /// A node that has not been started; its files are below `dir`.
    pub fn new(dir: &Path, binary: &str, name: &'static str) -> Self {
        Self {
            name,
            state: dir.join(name),
            socket: dir.join(format!("{name}.sock")),
            log: dir.join(format!("{name}.log")),
            address: own_address(),
            env: Vec::new(),
            binary: example(binary),
            namespace: None,
            child: None,
        }
    }

    /// Starts the process and waits until it is in the swarm, and leads it if it is a manager.
    pub fn start(&mut self, more: &[&str]) {
        self.launch(more);
        until(&format!("{} is in the swarm", self.name), || {
            let swarm = &self.try_get("/info")?["Swarm"];
            let leads = || {
                let answered = self.try_get("/services").map(drop);
                answered.map_err(|why| format!("{why}; log: {}", self.tail()))
            };
            match (swarm["LocalNodeState"].as_str(), swarm["ControlAvailable"].as_bool()) {
                (Some("active"), Some(false)) => Ok(()),
                (Some("active"), _) => leads(),
                _ => Err(format!("{swarm}; log: {}", self.tail())),
            }
        });
    }

    /// Starts the process.
    pub fn launch(&mut self, more: &[&str]) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let port = format!("{}:2377", self.address);
        let child = self
            .command()
            .args(["--hostname", self.name, "--executor", "process", "--state-dir"])
            .arg(&self.state)
            .args(["--listen", &port, "--advertise", &self.address])
            .args(["--api", &format!("unix://{}", self.socket.display())])
            .args(more)
            .envs(self.env.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be run: {error}", self.binary.display()));
        self.child = Some(child);
    }

    fn command(&self) -> Command {
        let Some(name) = &self.namespace else { return Command::new(&self.binary) };
        // It becomes the node's process, and enters nothing but the network.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{name}")).arg(&self.binary);
        command
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills the process as a power cut does; its tasks go on.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether the process still runs.
    pub fn lives(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub fn call(&self, method: &str, path: &str, body: impl ToString) -> Answer {
        request(&self.socket, method, path, &body.to_string())
            .unwrap_or_else(|e| panic!("{method} {path}: {e}; log: {}", self.tail()))
    }

    pub fn try_get(&self, path: &str) -> Result<Value, String> {
        let answer = request(&self.socket, "GET", path, "").map_err(|error| error.to_string())?;
        match answer.status {
            200 => Ok(answer.json()),
            _ => Err(format!("{answer:?}")),
        }
    }

    pub fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|e| panic!("GET {path}: {e}; log: {}", self.tail()))
    }

    /// Creates something and returns its id.
    pub fn create(&self, kind: &str, body: &Value) -> String {
        let answer = self.call("POST", &format!("/{kind}/create"), body);
        assert_eq!(answer.status, 201, "{answer:?}");
        id_of(&answer)
    }

    /// Waits until exactly `count` tasks of a service run, each as a process that lives.
    pub fn running(&self, service: &str, count: usize) -> Vec<Task> {
        until(&format!("{count} tasks of {service} run"), || {
            let tasks = self.tasks(service)?;
            let alive = tasks.iter().all(|task| is_alive(task.pid));
            match tasks.len() == count && alive {
                true => Ok(tasks),
                false => Err(format!("{tasks:?}; log: {}", self.tail())),
            }
        })
    }

    /// The tasks of a service that run and shall run, in the order of their ids.
    pub fn tasks(&self, service: &str) -> Result<Vec<Task>, String> {
        let filters = format!("%7B%22service%22:%5B%22{service}%22%5D%7D");
        let all = self.try_get(&format!("/tasks?filters={filters}"))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let runs = |task: &&Value| {
            task["Status"]["State"] == "running" && task["DesiredState"] == "running"
        };
        let task = |task: &Value| Task {
            id: text(&task["ID"]),
            node: text(&task["NodeID"]),
            pid: task["Status"]["ContainerStatus"]["PID"].as_i64().unwrap_or_default(),
        };
        let mut tasks: Vec<_> =
            all.as_array().into_iter().flatten().filter(runs).map(task).collect();
        tasks.sort();
        Ok(tasks)
    }

    /// The end of what the process logged.
    pub fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }

    /// No line of the log tells of a panic.
    pub fn assert_no_panic(&self) {
        let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned();
        let panicked: Vec<_> = log.lines().filter(|line| line.contains("panicked")).collect();
        assert_eq!(panicked, [""; 0], "{} panicked", self.name);
    }

    fn kill_tasks(&self) {
        for entry in fs::read_dir(self.state.join("executor/tasks")).into_iter().flatten() {
            let Ok(entry) = entry else { continue };
            for name in ["supervisor", "leader"] {
                let stat = fs::read_to_string(entry.path().join("run").join(name));
                let pid = stat.ok().and_then(|stat| stat.split(' ').next()?.parse().ok());
                if let Some(pid) = pid.and_then(Pid::from_raw) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }

    /// The node's id, as its state directory says.
    pub fn node_id(&self) -> Option<String> {
        let text = fs::read_to_string(self.state.join("swarm.json")).ok()?;
        Some(serde_json::from_str::<Value>(&text).ok()?["node"].as_str()?.to_owned())
    }
}

/// Starts hosts as the managers of one swarm; the first begins it.
pub fn start_managers(mut hosts: Vec<Host>) -> Vec<Host> {
    let (first, others) = hosts.split_first_mut().expect("one at least");
    first.start(&["--init"]);
    let token = first.get("/swarm")["JoinTokens"]["Manager"].as_str().unwrap().to_owned();
    let remote = format!("{}:2377", first.address);
    for host in others {
        host.start(&["--join", &remote, "--token", &token]);
    }
    hosts
}

/// The leader among the managers, once every one of them is reachable.
pub fn leader(managers: &[Host]) -> usize {
    until("a leader, and every manager reachable", || {
        let nodes = managers[0].try_get("/nodes")?;
        let nodes = nodes.as_array().cloned().unwrap_or_default();
        let status = |node: &Value| node["ManagerStatus"].clone();
        let reachable = nodes.iter().filter(|node| status(node)["Reachability"] == "reachable");
        let leads = nodes.iter().find(|node| status(node)["Leader"] == true);
        let name = leads.map(|node| &node["Description"]["Hostname"]);
        let all_are_there = reachable.count() == managers.len();
        let leader = managers.iter().position(|host| name.is_some_and(|name| *name == host.name));
        leader.filter(|_| all_are_there).ok_or_else(|| format!("{} nodes", nodes.len()))
    })
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
        let node = self.node_id();
        self.kill_tasks();
        if let Some(node) = node {
            let _ = fs::remove_dir_all(format!("/dev/shm/swarm-{node}"));
        }
    }
}

/// A directory with one manager of a new swarm.
pub struct Swarm {
    pub manager: Host,
    pub workers: Vec<Host>,
    pub dir: tempfile::TempDir,
}

impl Swarm {
    pub fn start(workers: &[&'static str]) -> Self {
        Self::start_with(workers, &[])
    }

    /// A swarm whose processes have these variables in their environment.
    pub fn start_with(workers: &[&'static str], env: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let mut manager = Host::new(dir.path(), "manager", "manager");
        manager.env.clone_from(&env);
        manager.start(&["--init"]);
        let mut swarm = Self { manager, workers: Vec::new(), dir };
        let token =
            swarm.manager.get("/swarm")["JoinTokens"]["Worker"].as_str().unwrap().to_owned();
        let remote = format!("{}:2377", swarm.manager.address);
        for name in workers {
            let mut worker = Host::new(swarm.dir.path(), "worker", name);
            worker.env.clone_from(&env);
            worker.start(&["--join", &remote, "--token", &token]);
            swarm.workers.push(worker);
        }
        swarm.nodes_are("ready", workers.len() + 1);
        swarm
    }

    /// Waits until so many nodes have a state.
    pub fn nodes_are(&self, state: &str, count: usize) {
        until(&format!("{count} nodes are {state}"), || {
            let nodes = self.manager.try_get("/nodes")?;
            let fits = |node: &&Value| node["Status"]["State"] == state;
            let found = nodes.as_array().into_iter().flatten().filter(fits).count();
            if found == count { Ok(()) } else { Err(nodes.to_string()) }
        });
    }

    /// Changes how often agents are heard.
    pub fn set_heartbeat(&self, period: Duration) {
        let mut swarm = self.manager.get("/swarm");
        let version = swarm["Version"]["Index"].as_u64().unwrap();
        swarm["Spec"]["Dispatcher"]["HeartbeatPeriod"] =
            json!(u64::try_from(period.as_nanos()).unwrap());
        let path = format!("/swarm/update?version={version}");
        let answer = self.manager.call("POST", &path, &swarm["Spec"]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The id in the answer to a create.
pub fn id_of(answer: &Answer) -> String {
    let json = answer.json();
    let id = json.get("ID").or_else(|| json.get("Id")).and_then(Value::as_str);
    id.unwrap_or_else(|| panic!("no id: {answer:?}")).to_owned()
}

/// A service whose tasks sleep.
pub fn sleeper(name: &str, replicas: u64) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": { "Image": "none", "Command": ["sleep", "100000"] },
            "RestartPolicy": { "Delay": 1 },
        },
        "Mode": { "Replicated": { "Replicas": replicas } },
    })
}

/// Whether a process lives.
pub fn is_alive(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// Waits until a process is gone.
pub fn gone(pid: i64) {
    until(&format!("process {pid} is gone"), || match is_alive(pid) {
        true => Err("it lives".to_owned()),
        false => Ok(()),
    });
}

/// A loopback address that no other test uses now.
fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{high}.{}", 64 + NEXT.fetch_add(1, Ordering::Relaxed) % 128, low.clamp(1, 254))
}

/// Where an example's binary is: next to this test's own. Built if it is not there, which is so
/// when cargo was asked for this test alone.
fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST");
    let path = target.join("examples").join(name);
    if !path.exists() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--offline", "--example", "manager", "--example", "worker"]);
        if target.ends_with("release") {
            build.arg("--release");
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(built.success() && path.exists(), "the example {name} was not built");
    }
    path
}
