//! The architecture, enforced: the crate graph, the purity rules, and the sizes of files and
//! functions. A rule that only a document knows is broken within a month.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 6] =
    ["swarm-core", "swarm-raft", "swarm-sched", "swarm-net", "swarm-runtime", "swarm-compose"];
const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of ours, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for dir in CRATES.iter().copied().chain(["src", "examples", "benches", "tests"]) {
        collect(&root().join(dir), &mut files);
    }
    files.sort();
    assert!(files.len() > 40, "only {} files found: the walk is broken", files.len());
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// The names of the crates that a manifest's `[dependencies]` holds.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line.starts_with("[target.");
        } else if inside && let Some((name, _)) = line.split_once(['=', '.']) {
            names.insert(name.trim().to_owned());
        }
    }
    names
}

#[test]
fn the_crate_graph_is_a_star() {
    let mut broken = Vec::new();
    for name in CRATES {
        let ours: BTreeSet<String> = dependencies(&root().join(name).join("Cargo.toml"))
            .into_iter()
            .filter(|dependency| CRATES.contains(&dependency.as_str()))
            .collect();
        let allowed: &[&str] = if name == "swarm-core" { &[] } else { &["swarm-core"] };
        let extra = ours.iter().filter(|dependency| !allowed.contains(&dependency.as_str()));
        broken.extend(extra.map(|dependency| format!("{name} depends on {dependency}")));
    }
    assert_none("siblings never see each other, and the core sees none of them", &broken);
}

#[test]
fn some_crates_stay_where_they_belong() {
    let root = root();
    let of = |name: &str| dependencies(&root.join(name).join("Cargo.toml"));
    let mut broken = Vec::new();
    let mut only = |dependency: &str, allowed: &[&str]| {
        for name in CRATES.iter().filter(|name| !allowed.contains(name)) {
            if of(name).contains(dependency) {
                broken.push(format!("{name} depends on {dependency}"));
            }
        }
    };
    only("openraft", &["swarm-raft"]);
    only("serde_yaml", &["swarm-compose"]);
    only("bollard", &["swarm-runtime", "swarm-net"]);
    for banned in ["tokio", "async-trait"] {
        if of("swarm-sched").contains(banned) {
            broken.push(format!("swarm-sched depends on {banned}: it decides and never waits"));
        }
    }
    assert_none("a dependency is where its purpose is", &broken);
}

/// The text without its `#[cfg(test)] mod … {` tail and without comments.
fn production(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn is_test(path: &Path) -> bool {
    let name = short(path);
    name.contains("/tests") || name.starts_with("tests/") || name.ends_with("tests.rs")
}

#[test]
fn pure_files_are_pure() {
    const BANNED: [&str; 8] = [
        "tokio::",
        "async fn",
        "SystemTime",
        "Instant::now",
        "IdSource::random",
        "rand::rng()",
        "std::fs",
        "HashMap",
    ];
    let mut broken = Vec::new();
    let mut pure = 0;
    for (path, text) in sources() {
        let declared = text.starts_with("//! Pure:");
        let in_sched = short(&path).starts_with("swarm-sched/src/");
        if is_test(&path) || !(declared || in_sched) {
            continue;
        }
        pure += 1;
        let code = production(&text);
        let found = BANNED.iter().filter(|word| code.contains(**word));
        broken.extend(found.map(|word| format!("{} names {word}", short(&path))));
    }
    assert!(pure > 10, "only {pure} pure files found: the rule does not look any more");
    assert_none("what decides has no clock, no randomness of its own and no runtime", &broken);
}

#[test]
fn openraft_and_yaml_are_seen_in_one_place() {
    let mut broken = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let (name, code) = (short(&path), production(&text));
        if code.contains("serde_yaml::") && !name.ends_with("swarm-compose/src/parse.rs") {
            broken.push(format!("{name} names serde_yaml"));
        }
        if code.contains("openraft::") && !name.starts_with("swarm-raft/") {
            broken.push(format!("{name} names openraft"));
        }
    }
    assert_none("a replaceable library has one door", &broken);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{} has {lines} lines", short(&path)));
        }
        if !text.starts_with("//!") && !is_test(&path) {
            broken.push(format!("{} does not begin with what it is", short(&path)));
        }
    }
    assert_none(
        &format!("at most {FILE_LINES_MAX} lines, and a first line that says why"),
        &broken,
    );
}

/// The functions of a file by their first line, with the number of lines each takes. Formatted
/// code closes a function with a brace at its own indentation.
fn functions(text: &str) -> BTreeMap<(usize, String), usize> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = BTreeMap::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words: Vec<&str> = code.split_whitespace().collect();
        let Some(keyword) = words.iter().position(|word| *word == "fn") else { continue };
        let qualifiers = ["pub", "async", "const", "unsafe", "extern", "pub(crate)", "pub(super)"];
        if !words[..keyword].iter().all(|word| qualifiers.contains(word)) || code.ends_with(';') {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let close = format!("{indent}}}");
        if let Some(length) = lines[first..].iter().position(|line| *line == close) {
            let name = words.get(keyword + 1).unwrap_or(&"").split('(').next().unwrap_or("");
            found.insert((first + 1, name.to_owned()), length + 1);
        }
    }
    found
}

#[test]
fn functions_fit_on_a_screen() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for (path, text) in sources() {
        for ((line, name), length) in functions(&text) {
            seen += 1;
            if length > FUNCTION_LINES_MAX {
                broken.push(format!("{}:{line} {name} has {length} lines", short(&path)));
            }
        }
    }
    assert!(seen > 200, "only {seen} functions found: the rule does not look any more");
    assert_none(&format!("at most {FUNCTION_LINES_MAX} lines"), &broken);
}

#[test]
fn nothing_is_left_half_done() {
    const UNFINISHED: [&str; 4] = ["todo!(", "unimplemented!(", "dbg!(", "FIXME"];
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if short(&path) == "tests/tidy.rs" {
            continue;
        }
        let found = UNFINISHED.iter().filter(|word| text.contains(**word));
        broken.extend(found.map(|word| format!("{} has {word}", short(&path))));
    }
    assert_none("what is on main works", &broken);
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_table_of_semantics_is_whole_and_names_what_exists() {
    let table = fs::read_to_string(root().join("docs/semantics.md")).unwrap();
    let sources: String = sources().into_iter().map(|(_, text)| text).collect();
    let mut rows = BTreeSet::new();
    let mut broken = Vec::new();
    for line in table.lines() {
        let cells: Vec<_> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let &[row, _, state, _, shown] = &cells[..] else { continue };
        if row == "#" {
            continue;
        }
        rows.insert(row.to_owned());
        if !["same", "different", "partly", "not yet"].contains(&state) {
            broken.push(format!("{row}: what is {state:?}?"));
        }
        let (code, tests): (Vec<_>, Vec<_>) = quoted(shown).partition(|name| name.contains('/'));
        let absent = code.iter().filter(|path| !root().join(path).is_file());
        broken.extend(absent.map(|path| format!("{row}: there is no {path}")));
        let unknown = tests.iter().filter(|test| !sources.contains(&format!("fn {test}(")));
        broken.extend(unknown.map(|test| format!("{row}: there is no test {test}")));
        if state == "same" && tests.is_empty() {
            broken.push(format!("{row}: who says that it is the same?"));
        }
    }
    for (letter, last) in [('L', 14), ('R', 8), ('D', 6), ('T', 8), ('S', 15), ('P', 9), ('C', 4)] {
        let missing = (1..=last).map(|number| format!("{letter}{number}"));
        broken.extend(missing.filter(|row| !rows.contains(row)).map(|row| format!("no row {row}")));
    }
    assert_none("docs/semantics.md is true", &broken);
}

#[test]
fn the_size_rules_can_fail() {
    let body = "    let x = 1;\n".repeat(FUNCTION_LINES_MAX);
    let text = format!("pub fn long() {{\n{body}}}\n\nfn short() {{\n}}\n");
    let found = functions(&text);
    assert_eq!(found[&(1, "long".to_owned())], FUNCTION_LINES_MAX + 2);
    assert!(found.values().any(|length| *length == 2));
}
