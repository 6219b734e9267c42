//! Plays the scenarios of `tests/scripts`: a few lines each that say how the orchestrator behaves,
//! under every invariant. `SCRIPT=drain cargo test --test scripts` plays those with that name.

use std::path::{Path, PathBuf};

use swarm::sim::{Script, World, play};

/// The scripts of a directory, in order.
fn scripts(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(directory);
    let wanted = std::env::var("SCRIPT").unwrap_or_default();
    let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
    let is_script = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".txt") && name.contains(&wanted)
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_script).collect();
    paths.sort();
    paths
}

/// Plays a script; its timeline and what did not hold, if something did not.
fn failure(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.starts_with("# "), "{}: the first line says the rule", path.display());
    let script: Script = match text.parse() {
        Ok(script) => script,
        Err(error) => return Some(format!("{}: {error}", path.display())),
    };
    let outcome = play(World::new(script).traced());
    let violation = outcome.violation?;
    let timeline = outcome.timeline.join("\n");
    Some(format!("{timeline}\n{}: {violation}", path.display()))
}

fn play_all(directory: &str) {
    let scripts = scripts(directory);
    let chosen = std::env::var_os("SCRIPT").is_some();
    assert!(!scripts.is_empty() || chosen, "tests/{directory} has no scripts");
    let failures: Vec<String> = scripts.iter().filter_map(|path| failure(path)).collect();
    assert!(failures.is_empty(), "{}\n{} scripts fail", failures.join("\n\n"), failures.len());
}

#[test]
fn every_scenario_plays_as_it_says() {
    play_all("scripts");
}

/// What once failed, shrunk.
#[test]
fn what_once_failed_holds() {
    play_all("scripts/regressions");
}
