//! Compares what we make of stack files with what the docker CLI 28.2.2 made of them: real files
//! and small ones, each with the requests that `docker stack deploy` sent, or its error.
//!
//! The files belong to others and are not in this repository. They are looked for in
//! `$SWARM_FIXTURES/stacks` and in `../shared/fixtures/stacks` beside the repository.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use swarm_compose::{ComposeError, DeployPlan, Environment, ObjectKind, Request, Stack};

/// How many cases of a directory may differ: numbers to lower, never to raise.
const ALLOWED: [(&str, usize); 3] = [("shared", 0), ("quirks", 0), ("facts", 0)];

#[test]
fn stacks_mean_what_the_docker_cli_makes_of_them() {
    let Some(root) = corpus() else {
        // Past the harness, which hides the output of tests that pass.
        let mut out = std::io::stderr();
        let _ = writeln!(out, "\nskipped: no stack corpus; SWARM_FIXTURES names its place\n");
        return;
    };
    for (directory, allowed) in ALLOWED {
        let cases = cases(&root.join(directory));
        let mut failures = Vec::new();
        for case in &cases {
            if let Err(difference) = Case::read(case).compare() {
                failures.push(format!("{}: {difference}", case.display()));
            }
        }
        let passed = cases.len() - failures.len();
        println!("{directory}: {passed} of {} cases agree", cases.len());
        let list = failures.join("\n");
        assert!(!cases.is_empty(), "{directory} has no cases");
        assert!(failures.len() <= allowed, "{directory}: {passed} agree\n{list}");
    }
}

fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let root = std::env::var_os("SWARM_FIXTURES").map_or(beside, PathBuf::from).join("stacks");
    root.is_dir().then_some(root)
}

fn cases(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut cases: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|case| case.join("result.json").exists())
        // Some cases are about objects that a cluster lacks.
        .filter(|case| !case.join("absent.json").exists())
        .collect();
    cases.sort();
    cases
}

/// The directory in which the docker CLI ran, which its answers name.
const RUN: &str = "/tmp/stackrun/a/b/c/demo";

struct Case {
    directory: PathBuf,
    result: Json,
}

impl Case {
    fn read(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), result: json(&directory.join("result.json")) }
    }

    fn compare(&self) -> Result<(), String> {
        let run = tempfile::tempdir().map_err(|error| error.to_string())?;
        let dir = run.path().join("a/b/c/demo");
        self.prepare(run.path(), &dir);
        let accepted = self.result["deploy"]["rc"] == 0;
        match (self.requests(&dir), accepted) {
            (Ok(requests), true) => {
                let ours =
                    objects(requests.into_iter().map(|r| (r.path(), r.body)).collect(), &dir);
                let posts = json(&self.directory.join("posts.json"));
                let post = |post: &Json| {
                    (post["path"].as_str().unwrap_or_default().to_owned(), post["body"].clone())
                };
                let theirs = objects(posts.as_array().unwrap().iter().map(post).collect(), &dir);
                difference(&theirs, &ours)
            }
            (Ok(_), false) => Err(format!("accepted, but: {}", self.result["deploy"]["stderr"])),
            (Err(error), true) => Err(format!("refused: {error}")),
            (Err(error), false) => self.compare_errors(&error.to_string(), &dir),
        }
    }

    /// Lays the case's files out as they were when the docker CLI ran.
    fn prepare(&self, root: &Path, dir: &Path) {
        copy(&self.directory, dir);
        let outside = self.directory.join("outside.json");
        if outside.exists() {
            for (name, data) in json(&outside).as_object().unwrap() {
                let path = normal(&dir.join(name));
                if path.starts_with(root) && !path.exists() {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, STANDARD.decode(data.as_str().unwrap()).unwrap()).unwrap();
                }
            }
        }
    }

    fn requests(&self, dir: &Path) -> Result<Vec<Request>, ComposeError> {
        let mut env: Environment =
            serde_json::from_value(json(&self.directory.join("env.json"))).unwrap();
        for value in env.values_mut() {
            *value = value.replace(RUN, dir.to_str().unwrap());
        }
        let args = self.result["args"].as_array().unwrap();
        let files: Vec<_> = args.iter().map(|name| dir.join(name.as_str().unwrap())).collect();
        let stack = Stack::load(&files, env, self.result["stack_name"].as_str().unwrap())?;
        stack.to_yaml()?;
        let requests = stack.requests(names)?;
        // The model refuses a few quirks, as the engine would; real stacks fit it without loss.
        match stack.plan() {
            Ok(plan) => self.compare_plan(&plan, &requests),
            Err(error) => assert!(!self.is_real(), "{}: {error}", self.directory.display()),
        }
        Ok(requests)
    }

    fn is_real(&self) -> bool {
        self.directory.parent().is_some_and(|parent| parent.ends_with("shared"))
    }

    /// What the model makes of a service says the same as the request, ids and defaults apart.
    fn compare_plan(&self, plan: &DeployPlan, requests: &[Request]) {
        let services = requests.iter().filter(|request| request.kind == ObjectKind::Service);
        assert_eq!(plan.services.len(), services.clone().count());
        for (service, request) in plan.services.iter().zip(services) {
            let (mut ours, mut body) =
                (serde_json::to_value(service).unwrap(), request.body.clone());
            for body in [&mut ours, &mut body] {
                for list in ["Secrets", "Configs"] {
                    let list = body.pointer_mut(&format!("/TaskTemplate/ContainerSpec/{list}"));
                    for reference in list.and_then(Json::as_array_mut).into_iter().flatten() {
                        reference["SecretID"].take();
                        reference["ConfigID"].take();
                    }
                }
                let ports = body.pointer_mut("/EndpointSpec/Ports").and_then(Json::as_array_mut);
                for port in ports.into_iter().flatten().filter_map(Json::as_object_mut) {
                    port.entry("Protocol").or_insert("tcp".into());
                    port.entry("PublishMode").or_insert("ingress".into());
                }
                body.pointer_mut("/TaskTemplate/ContainerSpec/Privileges").map(Json::take);
                canonical(body, "");
            }
            let name = format!("{}: {}", self.directory.display(), service.name);
            assert_eq!(same(&body, &ours, &name), Ok(()));
        }
    }

    /// The docker CLI's message must be part of ours, which also names file, line and key.
    fn compare_errors(&self, ours: &str, dir: &Path) -> Result<(), String> {
        let ours = squash(&ours.replace(dir.to_str().unwrap(), RUN));
        let mut texts = Vec::new();
        for command in ["deploy", "config"] {
            let command = &self.result[command];
            if command["rc"] != 0 {
                texts.push(command["stderr"].clone());
                texts.extend(
                    command["stderr_alternatives"].as_array().into_iter().flatten().cloned(),
                );
            }
        }
        let known = texts.iter().any(|text| ours.contains(&core(text.as_str().unwrap())));
        if known { Ok(()) } else { Err(format!("expected {}, got {ours}", texts[0])) }
    }
}

fn names(kind: ObjectKind, name: &str) -> Option<String> {
    Some(format!("{}-id:{name}", kind.word()))
}

fn json(path: &Path) -> Json {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Files of a case that are not the stack's.
const ANSWERS: [&str; 8] = [
    "absent.json",
    "config.canon.json",
    "config.txt",
    "env.json",
    "outside.json",
    "posts.json",
    "result.json",
    "source.json",
];

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if !entry.file_name().to_str().is_some_and(|name| ANSWERS.contains(&name)) {
            fs::write(target, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// An error without log lines and warnings, in one line.
fn core(text: &str) -> String {
    let ignored = |line: &&str| {
        let warnings = ["time=", "Ignoring ", "container_name: ", "expose: "];
        !warnings.iter().any(|warning| line.starts_with(warning))
    };
    squash(&text.lines().filter(ignored).collect::<Vec<_>>().join("\n"))
}

fn squash(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Bodies by kind and name, without what the engine reads as absent.
fn objects(posts: Vec<(String, Json)>, dir: &Path) -> BTreeMap<(String, String), Json> {
    let mut objects = BTreeMap::new();
    for (path, body) in posts {
        let path = path.trim_end_matches("/create");
        let kind = path.rsplit('/').next().unwrap_or_default().to_owned();
        let name = body["Name"].as_str().unwrap_or_default().to_owned();
        let mut body = body;
        rename(&mut body, dir.to_str().unwrap());
        canonical(&mut body, "");
        sort(&mut body);
        assert!(objects.insert((kind, name.clone()), body).is_none(), "two objects named {name}");
    }
    objects
}

fn rename(value: &mut Json, dir: &str) {
    match value {
        Json::String(text) => {
            *text = text.replace(dir, RUN);
            // Paths that leave the directory are below the same root.
            let root = dir.trim_end_matches("/a/b/c/demo");
            *text = text.replace(root, RUN.trim_end_matches("/a/b/c/demo"));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| rename(item, dir)),
        Json::Object(map) => map.values_mut().for_each(|value| rename(value, dir)),
        _ => {}
    }
}

/// Members that mean something although they are empty.
const KEPT: [&str; 9] = [
    "Replicated",
    "Global",
    "ReplicatedJob",
    "GlobalJob",
    "RestartPolicy",
    "UpdateConfig",
    "RollbackConfig",
    "Healthcheck",
    "LogDriver",
];

/// Members whose zero is what the engine assumes anyway.
const ZERO: [&str; 9] = [
    "ForceUpdate",
    "MaxFailureRatio",
    "MaxReplicas",
    "Delay",
    "Monitor",
    "NanoCPUs",
    "MemoryBytes",
    "Pids",
    "PublishedPort",
];

/// Drops what is empty, false or an assumed zero. Tables of words are left alone.
fn canonical(value: &mut Json, name: &str) {
    match value {
        Json::Array(items) => items.iter_mut().for_each(|item| canonical(item, name)),
        Json::Object(map) if !matches!(name, "Labels" | "Options" | "DriverOpts" | "Sysctls") => {
            for (name, value) in map.iter_mut() {
                canonical(value, name);
            }
            map.retain(|name, value| match value {
                Json::Null => false,
                Json::Bool(value) => *value || name == "Init",
                Json::String(text) => !text.is_empty(),
                Json::Array(items) => !items.is_empty(),
                Json::Object(map) => !map.is_empty() || KEPT.contains(&name.as_str()),
                Json::Number(number) => {
                    // Numbers compare as floats: the docker CLI writes ratios of 32 bits.
                    number.as_f64() != Some(0.0) || !is_zero(name)
                }
            });
        }
        _ => {}
    }
}

fn is_zero(name: &str) -> bool {
    const HEALTH: [&str; 6] =
        ["Interval", "Timeout", "StartPeriod", "StartInterval", "Retries", "OomScoreAdj"];
    ZERO.contains(&name) || HEALTH.contains(&name) || matches!(name, "TargetPort" | "SizeBytes")
}

/// Sorts lists whose order the docker CLI leaves to chance.
fn sort(body: &mut Json) {
    let key = |item: &Json, names: &[&str]| {
        let text = |name: &&str| match &item[*name] {
            Json::Number(number) => format!("{number:>6}"),
            other => other.to_string(),
        };
        names.iter().map(text).collect::<Vec<_>>()
    };
    let lists = [
        ("/TaskTemplate/ContainerSpec/Secrets", vec!["SecretName", "File"]),
        ("/TaskTemplate/ContainerSpec/Configs", vec!["ConfigName", "File"]),
        ("/EndpointSpec/Ports", vec!["PublishedPort", "TargetPort", "Protocol", "PublishMode"]),
    ];
    for (path, names) in lists {
        if let Some(Json::Array(items)) = body.pointer_mut(path) {
            items.sort_by_key(|item| key(item, &names));
        }
    }
}

fn difference(
    theirs: &BTreeMap<(String, String), Json>,
    ours: &BTreeMap<(String, String), Json>,
) -> Result<(), String> {
    if theirs.keys().ne(ours.keys()) {
        return Err(format!("expected {:?}, got {:?}", theirs.keys(), ours.keys()));
    }
    for (key, theirs) in theirs {
        same(theirs, &ours[key], &key.1)?;
    }
    Ok(())
}

fn same(theirs: &Json, ours: &Json, path: &str) -> Result<(), String> {
    let equal = match (theirs, ours) {
        (Json::Object(theirs), Json::Object(ours)) => {
            for (name, value) in theirs {
                same(value, ours.get(name).unwrap_or(&Json::Null), &format!("{path}.{name}"))?;
            }
            ours.keys().all(|name| theirs.contains_key(name))
        }
        (Json::Array(theirs), Json::Array(ours)) if theirs.len() == ours.len() => {
            for (index, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
                same(theirs, ours, &format!("{path}[{index}]"))?;
            }
            true
        }
        // Numbers compare by value: a ratio may be written with more digits.
        (Json::Number(theirs), Json::Number(ours)) => {
            let (theirs, ours) = (theirs.as_f64().unwrap(), ours.as_f64().unwrap());
            (theirs - ours).abs() <= theirs.abs() * 1e-6
        }
        (theirs, ours) => theirs == ours,
    };
    if equal { Ok(()) } else { Err(format!("{path}: expected {theirs}, got {ours}")) }
}
