//! Every way to embed has a small program in `examples/`; each runs to its end and shows what it
//! says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take on a busy machine before the test gives up on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program beside this test's own, built if it is not there: `cargo test --test examples`
/// alone does not build examples.
fn program(package: &str, name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let profile = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
    let path = profile.join("examples").join(name);
    if !path.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", package, "--example", name]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        build.arg("--target-dir").arg(profile.parent().expect("a profile is in a directory"));
        build.args((!cfg!(debug_assertions)).then_some("--release"));
        assert!(build.status().expect("cargo runs").success(), "example {name} does not build");
    }
    path
}

/// Runs an example to its end and returns what it printed.
fn run(name: &str) -> String {
    run_with("swarm", name, &[])
}

/// The same, of one of the packages, with arguments.
fn run_with(package: &str, name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program(package, name));
    command.args(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().expect("the program can be waited for").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("the program can be killed");
            let output = child.wait_with_output().expect("it has ended");
            panic!("{name} goes on: {}", String::from_utf8_lossy(&output.stdout));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("it has ended");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name} ended with {}: {text}", output.status);
    text
}

fn shows(name: &str, lines: &[&str]) {
    let text = run(name);
    for line in lines {
        assert!(text.contains(line), "{name} does not say {line:?}:\n{text}");
    }
}

#[test]
fn a_cluster_in_one_process_outlives_a_node() {
    let text = run("in_process");
    let spread = "8 tasks run  (manager: 2, worker-1: 2, worker-2: 2, worker-3: 2)";
    assert!(text.contains(spread), "{text}");
    let (_, after) = text.split_once("worker-3 has left:").expect("a node leaves");
    assert!(after.contains("8 tasks run") && after.contains("worker-3: 0"), "{text}");
}

#[test]
fn a_scheduler_of_ones_own_places_all_tasks_or_none() {
    let lines = [
        "Together keeps the scheduler's contract",
        "swarm: 12 of 14 tasks placed, nodes: 3",
        "together: 0 of 14 tasks placed, nodes: 3",
        "together: 14 of 14 tasks placed, nodes: 4",
    ];
    shows("custom_scheduler", &lines);
}

#[test]
fn an_autoscaler_grows_at_once_and_shrinks_slowly() {
    let lines =
        ["  0 s: 5 tasks for load 450", "660 s: 4 tasks", "720 s: 3 tasks", "780 s: 2 tasks"];
    shows("custom_planner", &lines);
}

#[test]
fn an_executor_of_ones_own_refuses_by_policy() {
    let lines = [": Running", ": Rejected image web:latest is not pinned"];
    shows("custom_executor", &lines);
}

#[test]
fn a_vault_keeps_bytes_out_of_the_cluster() {
    let lines = [
        "the vault keeps the contract of secret stores",
        "vault: password is read for task",
        "the task got SecretBytes(7 bytes)",
        "the cluster keeps None",
    ];
    shows("custom_secrets", &lines);
}

#[test]
fn a_stack_file_is_deployed_by_library_calls() {
    shows("library_deploy", &["demo_ticker.1.", "demo_once.1.", ": Complete", "all gone"]);
}

#[test]
fn strategies_are_compared_in_a_table_and_on_a_page() {
    let page = std::env::temp_dir().join(format!("strategies-{}.html", std::process::id()));
    let data = page.with_extension("json");
    let path = |path: &Path| path.to_str().expect("the path is a text").to_owned();
    let (out, json) = (path(&page), path(&data));
    let arguments = ["--quick", "--nodes", "10", "--workload", "losses"];
    let arguments = [&arguments[..], &["--seeds", "2", "--out", &out, "--json", &json]].concat();
    let text = run_with("swarm-sched", "compare_strategies", &arguments);
    let html = std::fs::read_to_string(&page).expect("the page was written");
    let json = std::fs::read_to_string(&data).expect("the data were written");
    let reports: serde_json::Value = serde_json::from_str(&json).expect("they are JSON");
    let drawn = in_browser(&page);
    for path in [&page, &data] {
        std::fs::remove_file(path).expect("it can be removed");
    }
    let strategies = ["spread", "binpack", "random", "least-loaded", "balanced", "spread, moving"];
    for strategy in strategies {
        let row = text.lines().any(|line| line.starts_with(strategy));
        assert!(row && html.contains(&format!("\"{strategy}\"")), "{strategy}:\n{text}");
        for seed in [0, 1] {
            let mut runs = reports[seed]["runs"].as_array().expect("it has runs").iter();
            assert!(runs.any(|run| run["strategy"] == strategy), "{strategy} of seed {seed}");
        }
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("  lowest")).count(), 7);
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    for foreign in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!html.contains(foreign), "the page needs something from elsewhere: {foreign}");
    }
    let Some(drawn) = drawn else { return };
    let count = |what| drawn.matches(what).count();
    assert_eq!(count("<canvas"), strategies.len(), "each has its load on every node");
    // Seven plots through time with a line for each, and two of growth without the last.
    assert!(count("<polyline") >= 9 * strategies.len() - 2, "{} lines", count("<polyline"));
    assert!(count("<td") >= 15 * strategies.len(), "{} cells", count("<td"));
    // The script itself is a part of what comes back.
    assert_eq!((count(">NaN"), count(">undefined"), count("NaN,")), (0, 0, 0));
}

/// What a page becomes in a browser, or nothing where there is none that answers.
fn in_browser(page: &Path) -> Option<String> {
    let profile = page.with_extension("profile");
    let mut browser = Command::new("timeout");
    browser.args(["60", "chromium", "--headless=new", "--no-sandbox", "--disable-gpu"]);
    browser.args(["--virtual-time-budget=5000", "--dump-dom"]);
    browser.arg(format!("--user-data-dir={}", profile.display()));
    let output = browser.arg(format!("file://{}", page.display())).output();
    let _ = std::fs::remove_dir_all(profile);
    let drawn = output.ok().map(|it| String::from_utf8_lossy(&it.stdout).into_owned());
    let drawn = drawn.filter(|text| !text.is_empty());
    if drawn.is_none() {
        println!(
            "skipped: the page was not drawn, for chromium is not installed or does not answer"
        );
    }
    drawn
}

#[test]
fn a_strategy_of_ones_own_takes_less_than_40_lines() {
    let source = include_str!("../examples/compare_strategies/custom_strategy.rs");
    assert!(source.lines().count() <= 40);
    let text = run_with("swarm-sched", "custom_strategy", &[]);
    let packing = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let first = line.and_then(|line| line.split(' ').next());
        first.and_then(|number| number.parse().ok()).expect("each strategy has a line")
    };
    assert!(packing("binpack") < packing("headroom") && packing("headroom") < packing("spread"));
}
