//! The example binaries as processes of their own: what a manager and a worker cost when nothing
//! happens.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Client;

/// After this long something is broken rather than slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that is killed when it is no longer looked at.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Best effort: it may have ended on its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The directory of the example binaries, beside this one's: `target/release/examples`.
pub(crate) fn examples() -> Option<PathBuf> {
    let examples = std::env::current_exe().ok()?.parent()?.parent()?.join("examples");
    let there = ["manager", "worker"].iter().all(|name| examples.join(name).is_file());
    there.then_some(examples)
}

impl Process {
    /// A node with the process executor and its API on `DIR/NAME.sock`.
    pub(crate) fn start(
        binary: &Path,
        dir: &Path,
        name: &str,
        args: &[impl AsRef<OsStr>],
    ) -> Process {
        let child = Command::new(binary)
            .args(["--executor", "process", "--hostname", name, "--state-dir"])
            .arg(dir.join(name))
            .arg("--api")
            .arg(format!("unix://{}", dir.join(name).with_extension("sock").display()))
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("the binary can be started"))
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// Seconds of processor time that it has used so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // The name may hold blanks; what follows its bracket does not.
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..].split(' ').collect();
        let ticks: u32 = [12, 13].iter().map(|at| fields[*at].parse::<u32>().expect("ticks")).sum();
        // Linux reports to programs in hundredths of a second on every architecture of ours.
        f64::from(ticks) / 100.0
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).expect("it runs")
    }
}

/// Waits until the node's API says that it is what it shall be.
pub(crate) async fn until_active(socket: &Path) -> Client {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(mut client) = Client::connect(socket).await {
            let info: serde_json::Value =
                serde_json::from_slice(&client.get("/v1.41/info").await).expect("JSON");
            if info["Swarm"]["LocalNodeState"] == "active" {
                return client;
            }
        }
        assert!(Instant::now() < deadline, "{} is not active", socket.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
