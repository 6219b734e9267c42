//! Pure: what a scenario expects, as sentences: `web 4 running steady:1`.

use super::Nodes;
use super::words::{count, count_text, number, quoted};
use crate::sim::script::Wanted;

const KNOWN: &str = "SERVICE N running [IMAGE | on NODE], SERVICE N alive, SERVICE N containers, \
    SERVICE spread N N…, SERVICE N tasks STATE [\"text\"], SERVICE N completed, \
    SERVICE update STATE [\"text\"], SERVICE waits \"text\", SERVICE stalled \"text\", \
    SERVICE port N, SERVICE gone, node NODE STATE";

pub(super) fn parse(words: &[&str], nodes: &Nodes) -> Result<Wanted, String> {
    let own = |name: &str| name.to_owned();
    Ok(match *words {
        ["node", node, state] => Wanted::Node(nodes.number(node)?, own(state)),
        [service, "update", state] => Wanted::Update(own(service), own(state), String::new()),
        [service, "update", state, text] => Wanted::Update(own(service), own(state), own(text)),
        [service, n, "running"] => Wanted::Running(own(service), count(n)?),
        [service, n, "running", "on", node] => {
            Wanted::RunningOn(own(service), nodes.number(node)?, count(n)?)
        }
        [service, n, "running", image] => Wanted::RunningImage(own(service), own(image), count(n)?),
        [service, n, "alive"] => Wanted::Alive(own(service), count(n)?),
        [service, n, "containers"] => Wanted::Containers(own(service), count(n)?),
        [service, "spread", ref counts @ ..] => {
            let counts = counts.iter().map(|count| number(count)).collect::<Result<_, _>>()?;
            Wanted::Spread(own(service), counts)
        }
        [service, n, "tasks", state] => {
            Wanted::Tasks(own(service), count(n)?, state.parse()?, String::new())
        }
        [service, n, "tasks", state, text] => {
            Wanted::Tasks(own(service), count(n)?, state.parse()?, own(text))
        }
        [service, n, "completed"] => Wanted::Completed(own(service), count(n)?),
        [service, "waits", text] => Wanted::Waiting(own(service), own(text)),
        [service, "stalled", text] => Wanted::Stalled(own(service), own(text)),
        [service, "port", port] => Wanted::Port(own(service), number(port)?),
        [service, "gone"] => Wanted::Gone(own(service)),
        _ => return Err(format!("{:?} cannot be expected: write {KNOWN}", words.join(" "))),
    })
}

pub(super) fn text(wanted: &Wanted, nodes: &Nodes) -> String {
    match wanted {
        Wanted::Running(service, n) => format!("{service} {} running", count_text(*n)),
        Wanted::RunningImage(service, image, n) => {
            format!("{service} {} running {}", count_text(*n), quoted(image))
        }
        Wanted::RunningOn(service, node, n) => {
            format!("{service} {} running on {}", count_text(*n), nodes.name(*node))
        }
        Wanted::Alive(service, n) => format!("{service} {} alive", count_text(*n)),
        Wanted::Containers(service, n) => format!("{service} {} containers", count_text(*n)),
        Wanted::Spread(service, counts) => {
            counts.iter().fold(format!("{service} spread"), |text, n| format!("{text} {n}"))
        }
        Wanted::Tasks(service, n, state, text) => {
            with(format!("{service} {} tasks {state}", count_text(*n)), text)
        }
        Wanted::Completed(service, n) => format!("{service} {} completed", count_text(*n)),
        Wanted::Update(service, state, text) => with(format!("{service} update {state}"), text),
        Wanted::Waiting(service, text) => format!("{service} waits {}", quoted(text)),
        Wanted::Stalled(service, text) => format!("{service} stalled {}", quoted(text)),
        Wanted::Port(service, port) => format!("{service} port {port}"),
        Wanted::Gone(service) => format!("{service} gone"),
        Wanted::Node(node, state) => format!("node {} {state}", nodes.name(*node)),
    }
}

fn with(sentence: String, text: &str) -> String {
    if text.is_empty() { sentence } else { format!("{sentence} {}", quoted(text)) }
}
