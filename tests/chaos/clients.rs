//! Clients that read and write through all managers at once, and note what they were told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Dice, ask};
use crate::history::{Did, Op, Outcome, Violation};
use crate::machine::{Answer, Host};

/// How long a client waits. A manager that stands still answers nobody.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause of a client that got no good answer.
const REFUSED: Duration = Duration::from_millis(40);
/// How many different words of failure are kept.
const FAILURES: usize = 200;
/// How many objects are kept; what is created after them is removed.
const KEPT: usize = 40;

/// A label of a service that clients compare and set.
pub struct Register {
    pub id: String,
    pub name: &'static str,
    /// Whether writes change how many tasks there shall be, too.
    pub works: bool,
}

/// What became of an object that was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nobody asked for its removal.
    Kept,
    /// Its removal was asked for, and not confirmed.
    Maybe,
    /// Its removal was confirmed.
    Gone,
}

/// Everything that clients were told.
#[derive(Default)]
pub struct Told {
    pub ops: Vec<Op>,
    /// Secrets by their ids.
    pub objects: BTreeMap<String, Fate>,
    pub broken: Vec<Violation>,
    /// Why there was no good answer: the manager, the method and its words.
    pub failures: BTreeMap<String, u64>,
    /// Answers by what they were.
    pub counts: BTreeMap<&'static str, u64>,
}

/// The clients of a run.
pub struct Clients {
    pub registers: Vec<Register>,
    managers: Vec<(&'static str, PathBuf)>,
    told: Mutex<Told>,
    values: AtomicU64,
    stop: AtomicBool,
    began: Instant,
}

impl Clients {
    /// Creates what they write to.
    pub fn new(cluster: &Cluster, began: Instant) -> Self {
        let create = |name: &'static str, works: bool| {
            let mode = json!({ "Replicated": { "Replicas": if works { 3 } else { 0 } } });
            let id = cluster.hosts[0].create("services", &cluster.service(name, mode));
            Register { id, name, works }
        };
        let registers = [("r0", false), ("r1", false), ("r2", false), ("web", true), ("api", true)];
        let registers = registers.map(|(name, works)| create(name, works)).into();
        let each = cluster.service("each", json!({ "Global": {} }));
        cluster.hosts[0].create("services", &each);
        let of = |host: &Host| (host.name, host.socket.clone());
        Self {
            registers,
            managers: cluster.managers().iter().map(of).collect(),
            told: Mutex::default(),
            values: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            began,
        }
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Lets all of them work while something else is done.
    pub fn during<T>(&self, seed: u64, work: impl FnOnce() -> T) -> T {
        self.stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for client in 0..7 {
                let dice = Dice(seed ^ (0xc11e << 32) ^ u64::try_from(client).unwrap_or(0));
                scope.spawn(move || self.work(client, dice));
            }
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            self.stop.store(true, Ordering::Relaxed);
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn work(&self, client: usize, mut dice: Dice) {
        let plain = self.registers.iter().filter(|register| !register.works).count();
        while !self.stop.load(Ordering::Relaxed) {
            let answered = match client {
                0..4 => {
                    let register = dice.below(plain);
                    self.compare_and_set(client, register, &mut dice)
                }
                4 => {
                    let register = plain + dice.below(self.registers.len() - plain);
                    std::thread::sleep(dice.millis(200, 1500));
                    self.compare_and_set(client, register, &mut dice)
                }
                _ => self.create_and_remove(client, &mut dice),
            };
            std::thread::sleep(answered.map_or(REFUSED, |()| dice.millis(1, 15)));
        }
    }

    fn call(
        &self,
        manager: usize,
        method: &str,
        path: &str,
        body: &Value,
    ) -> (Duration, Option<Answer>, Duration) {
        let start = self.now();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (name, socket) = &self.managers[manager];
        let answer = ask(socket, PATIENCE, method, path, &body);
        let end = self.now();
        let failure = match &answer {
            Ok(answer) if answer.status < 500 => return (start, Some(answer.clone()), end),
            Ok(answer) => answer.body.trim().to_owned(),
            Err(error) => error.kind().to_string(),
        };
        let known = self.told().failures.len() < FAILURES;
        let failure = if known { failure } else { "others".into() };
        *self.told().failures.entry(format!("{name} {method}: {failure}")).or_default() += 1;
        (start, answer.ok(), end)
    }

    fn count(&self, what: &'static str) {
        *self.told().counts.entry(what).or_default() += 1;
    }

    fn broken(&self, text: String) {
        let at = self.now();
        println!("{at:9.3?} BROKEN: {text}");
        self.told().broken.push(Violation { at, register: None, text });
    }

    /// Reads a register through one manager and, often, writes it through another one.
    fn compare_and_set(&self, client: usize, register: usize, dice: &mut Dice) -> Option<()> {
        let Register { id, name, works } = &self.registers[register];
        let (reader, writer) = (dice.below(self.managers.len()), dice.below(self.managers.len()));
        let path = format!("/services/{id}");
        let (start, answer, end) = self.call(reader, "GET", &path, &Value::Null);
        if answer.as_ref().is_some_and(|answer| answer.status == 404) {
            self.broken(format!("{} says that {name} does not exist", self.managers[reader].0));
        }
        let Some(answer) = answer.filter(|answer| answer.status == 200) else {
            self.count("reads not answered");
            return None;
        };
        self.count("reads");
        let mut service = answer.json();
        let (on_version, on_value) = version_and_value(&service)?;
        let manager = self.managers[reader].0;
        let did = Did::Read { version: on_version, value: on_value };
        self.told().ops.push(Op { register, client, manager, did, start, end });
        if dice.percent(30) {
            return Some(());
        }
        let value = self.values.fetch_add(1, Ordering::Relaxed);
        service["Spec"]["Labels"]["value"] = json!(value.to_string());
        if *works {
            service["Spec"]["Mode"]["Replicated"]["Replicas"] = json!(dice.below(5));
            let forced = service["Spec"]["TaskTemplate"]["ForceUpdate"].as_u64().unwrap_or(0);
            let more = u64::from(dice.percent(30));
            service["Spec"]["TaskTemplate"]["ForceUpdate"] = json!(forced + more);
        }
        let path = format!("/services/{id}/update?version={on_version}");
        let (start, answer, end) = self.call(writer, "POST", &path, &service["Spec"]);
        let outcome = outcome(answer.as_ref());
        self.count(match outcome {
            Outcome::Done => "writes",
            Outcome::Refused => "writes refused",
            Outcome::Unknown => "writes unknown",
        });
        let manager = self.managers[writer].0;
        let did = Did::Wrote { value, on_version, on_value, outcome };
        self.told().ops.push(Op { register, client, manager, did, start, end });
        (outcome != Outcome::Unknown).then_some(())
    }

    /// Creates a secret through one manager and reads it through another; removes it if there are
    /// enough.
    fn create_and_remove(&self, client: usize, dice: &mut Dice) -> Option<()> {
        let name = format!("s{client}-{}", self.values.fetch_add(1, Ordering::Relaxed));
        let body = json!({ "Name": name, "Data": "c2VjcmV0" });
        let manager = dice.below(self.managers.len());
        let (_, answer, _) = self.call(manager, "POST", "/secrets/create", &body);
        let Some(made) = answer.filter(|answer| answer.status == 201) else {
            self.count("creates not answered");
            return None;
        };
        self.count("creates");
        let id = crate::machine::id_of(&made);
        self.told().objects.insert(id.clone(), Fate::Kept);
        self.expect(dice.below(self.managers.len()), &id, 200);
        if dice.percent(10) {
            self.list(dice.below(self.managers.len()));
        }
        let kept = self.told().objects.values().filter(|fate| **fate == Fate::Kept).count();
        if kept <= KEPT {
            return Some(());
        }
        self.told().objects.insert(id.clone(), Fate::Maybe);
        let manager = dice.below(self.managers.len());
        let (_, answer, _) = self.call(manager, "DELETE", &format!("/secrets/{id}"), &Value::Null);
        let Some(answer) = answer.filter(|answer| answer.status < 500) else {
            self.count("removals not answered");
            return None;
        };
        if answer.status >= 300 {
            self.broken(format!("{answer:?} to the removal of {id}, which was created"));
            return None;
        }
        self.told().objects.insert(id.clone(), Fate::Gone);
        self.count("removals");
        self.expect(dice.below(self.managers.len()), &id, 404);
        Some(())
    }

    fn expect(&self, manager: usize, id: &str, status: u16) {
        let path = format!("/secrets/{id}");
        let (_, answer, _) = self.call(manager, "GET", &path, &Value::Null);
        let Some(answer) = answer.filter(|answer| answer.status < 500) else {
            return self.count("reads not answered");
        };
        self.count("reads");
        if answer.status != status {
            let name = self.managers[manager].0;
            self.broken(format!("{name} answers {answer:?} of {id}: {status} is right"));
        }
    }

    /// What was there before and is to stay is in the list, and what was removed is not.
    fn list(&self, manager: usize) {
        let before = self.told().objects.clone();
        let (_, answer, _) = self.call(manager, "GET", "/secrets", &Value::Null);
        let Some(answer) = answer.filter(|answer| answer.status == 200) else { return };
        let listed = ids(&answer.json());
        let after = self.told().objects.clone();
        let name = self.managers[manager].0;
        for (id, fate) in before {
            match (fate, listed.contains(&id)) {
                (Fate::Gone, true) => self.broken(format!("{name} lists {id}, which was removed")),
                (Fate::Kept, false) if after.get(&id) == Some(&Fate::Kept) => {
                    self.broken(format!("{name} does not list {id}, which was created"));
                }
                _ => {}
            }
        }
        self.count("lists");
    }
}

/// The ids in a list.
pub fn ids(list: &Value) -> Vec<String> {
    let id = |object: &Value| object["ID"].as_str().unwrap_or_default().to_owned();
    list.as_array().into_iter().flatten().map(id).collect()
}

/// Where a register stands.
pub fn version_and_value(service: &Value) -> Option<(u64, u64)> {
    let value = service["Spec"]["Labels"]["value"].as_str()?.parse().ok()?;
    Some((service["Version"]["Index"].as_u64()?, value))
}

fn outcome(answer: Option<&Answer>) -> Outcome {
    match answer {
        Some(answer) if answer.status < 300 => Outcome::Done,
        Some(answer) if answer.status < 500 => Outcome::Refused,
        Some(answer) if answer.body.contains("out of sequence") => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}
