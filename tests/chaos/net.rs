//! One network namespace for each node, joined by a bridge, with rules that drop what a node is not to
//! hear, and queues that delay what it does.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs a program with this on its standard input: whether it went well, and what it said.
fn feed(program: &str, args: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let done = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    match (done.status.success(), written) {
        (true, Some(Ok(()))) => Ok(()),
        _ => Err(format!("{program}: {}", String::from_utf8_lossy(&done.stderr))),
    }
}

/// What a node's network does to what arrives.
#[derive(Clone, Debug, Default)]
pub struct Ear {
    /// The nodes that it does not hear.
    pub deaf_to: BTreeSet<usize>,
    /// How many of a hundred packets are lost.
    pub loss: u64,
    /// Whether no more than 16 kB arrive in a second. The rest waits for up to two seconds.
    pub slow: bool,
}

/// The namespaces and the bridge; gone at the end.
pub struct Net {
    tag: String,
    pub ears: Vec<Ear>,
}

impl Net {
    /// A network for so many nodes.
    ///
    /// # Errors
    /// What is missing: most often the right to do it.
    pub fn new(nodes: usize) -> Result<Self, String> {
        let net =
            Self { tag: format!("swch{}", std::process::id()), ears: vec![Ear::default(); nodes] };
        let hub = net.hub();
        feed("ip", &["netns", "add", &hub], "")?;
        let wires = "link add br0 type bridge forward_delay 0\nlink set br0 up\n";
        feed("ip", &["-n", &hub, "-batch", "-"], wires)?;
        for node in 0..nodes {
            let name = net.namespace(node);
            feed("ip", &["netns", "add", &name], "")?;
            let wires = format!(
                "link add p{node} type veth peer name eth0 netns {name}\n\
                 link set p{node} master br0\nlink set p{node} up\n"
            );
            feed("ip", &["-n", &hub, "-batch", "-"], &wires)?;
            let address = net.address(node);
            let wires =
                format!("link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n");
            feed("ip", &["-n", &name, "-batch", "-"], &wires)?;
            net.try_apply(node)?;
        }
        Ok(net)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.tag)
    }

    pub fn namespace(&self, node: usize) -> String {
        format!("{}-{node}", self.tag)
    }

    pub fn address(&self, node: usize) -> String {
        format!("10.97.0.{}", node + 1)
    }

    /// Has a node's ear be what it says.
    pub fn apply(&self, node: usize) {
        self.try_apply(node).unwrap_or_else(|error| panic!("the harness itself: {error}"));
    }

    fn try_apply(&self, node: usize) -> Result<(), String> {
        let ear = &self.ears[node];
        let mut rules: Vec<String> = ear
            .deaf_to
            .iter()
            .map(|other| format!("ip saddr {} drop", self.address(*other)))
            .collect();
        if ear.loss > 0 {
            rules.push(format!("iif eth0 numgen random mod 100 < {} drop", ear.loss));
        }
        let table = format!(
            "flush ruleset\ntable inet chaos {{\nchain hear {{\n\
             type filter hook input priority 0;\n{}\n}}\n}}\n",
            rules.join("\n")
        );
        let namespace = format!("--net=/run/netns/{}", self.namespace(node));
        feed("nsenter", &[&namespace, "nft", "-f", "-"], &table)?;
        let queue = if ear.slow { "tbf rate 128kbit burst 4kb latency 2s" } else { "noqueue" };
        let queue = format!("qdisc replace dev p{node} root {queue}\n");
        feed("tc", &["-n", &self.hub(), "-batch", "-"], &queue)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let nodes = (0..self.ears.len()).map(|node| self.namespace(node));
        for name in nodes.chain([self.hub()]) {
            let _ = feed("ip", &["netns", "del", &name], "");
        }
    }
}
