//! Pure: checks a value against a [`Rule`], and picks the fault to report.
//!
//! The order of faults and the choice among them follow the library and the code of the docker
//! CLI, because people search for its words: of all faults the deepest is reported, a wrong type
//! before others at the same depth.

use std::fmt;

use super::rules::{Grammar, Key, Rule, Type};
use crate::short::ports;
use crate::units;
use crate::value::{Mapping, Node, Value};

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// The line to blame.
    pub(crate) line: usize,
    field: String,
    kind: FaultKind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    Type,
    OneOf,
    Other,
}

impl Fault {
    /// How deep the fault is. Dots in names count, as in the docker CLI.
    fn depth(&self) -> usize {
        self.field.split('.').count()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.text)
    }
}

/// The fault to report, if there is any.
pub(crate) fn check(root: &Node, rule: &Rule, version: u8) -> Option<Fault> {
    let mut faults = Report::default();
    Check { version, path: Vec::new() }.value(root, rule, &mut faults);
    let faults = faults.faults;
    let mut best = 0;
    for (index, fault) in faults.iter().enumerate() {
        let (depth, most) = (fault.depth(), faults[best].depth());
        let wins_tie = fault.kind == FaultKind::Type && faults[best].kind != FaultKind::Type;
        if depth > most || depth == most && wins_tie {
            best = index;
        }
    }
    let mut fault = faults.get(best)?.clone();
    // Where several forms are possible, the nearest form's first fault tells more.
    if fault.kind == FaultKind::OneOf
        && let Some(next) = faults.get(best + 1)
    {
        fault.text.clone_from(&next.text);
        fault.line = next.line;
    }
    Some(fault)
}

/// Faults, and how far the value matched: to find the nearest of several forms.
#[derive(Default)]
struct Report {
    faults: Vec<Fault>,
    score: i32,
}

impl Report {
    fn absorb(&mut self, other: Self) {
        self.faults.extend(other.faults);
        self.score += other.score;
    }
}

struct Check {
    version: u8,
    path: Vec<String>,
}

impl Check {
    fn fault(&self, report: &mut Report, line: usize, kind: FaultKind, text: String) {
        let field = if self.path.is_empty() { "(root)".to_owned() } else { self.path.join(".") };
        report.faults.push(Fault { line, field, kind, text });
        report.score -= 2;
    }

    fn within(&mut self, part: String, node: &Node, rule: &Rule, report: &mut Report) {
        self.path.push(part);
        self.value(node, rule, report);
        self.path.pop();
    }

    fn value(&mut self, node: &Node, rule: &Rule, report: &mut Report) {
        if let Value::Float(number) = node.value
            && !number.is_finite()
        {
            let text = format!("json: unsupported value: {}", node.value.to_text());
            return self.fault(report, node.line, FaultKind::Other, text);
        }
        if !rule.types.is_empty() && !rule.types.iter().any(|kind| is(*kind, &node.value)) {
            let text = format!("must be a {}", type_names(rule.types));
            return self.fault(report, node.line, FaultKind::Type, text);
        }
        self.one_of(node, rule, report);
        match &node.value {
            Value::List(items) => self.list(node.line, items, rule, report),
            Value::Map(map) => self.map(node.line, map, rule, report),
            Value::Null | Value::Bool(_) => {}
            scalar => self.scalar(node.line, scalar, rule, report),
        }
        report.score += 1;
    }

    fn one_of(&mut self, node: &Node, rule: &Rule, report: &mut Report) {
        if rule.one_of.is_empty() {
            return;
        }
        let mut nearest: Option<Report> = None;
        let mut valid = 0;
        for form in rule.one_of {
            let mut attempt = Report::default();
            self.value(node, form, &mut attempt);
            if attempt.faults.is_empty() {
                valid += 1;
            } else if valid == 0 && nearest.as_ref().is_none_or(|best| attempt.score > best.score) {
                nearest = Some(attempt);
            }
        }
        if valid != 1 {
            let text = "Must validate one and only one schema (oneOf)".to_owned();
            self.fault(report, node.line, FaultKind::OneOf, text);
            if let (0, Some(nearest)) = (valid, nearest) {
                report.absorb(nearest);
            }
        }
    }

    fn scalar(&self, line: usize, value: &Value, rule: &Rule, report: &mut Report) {
        let text = value.to_text();
        if let Some(grammar) = rule.grammar {
            let (name, valid) = match grammar {
                Grammar::Duration => ("duration", units::parse_duration(&text).is_some()),
                Grammar::Ports => ("ports", ports::is_valid(&text)),
            };
            if !valid {
                let problem = format!("Does not match format '{name}'");
                self.fault(report, line, FaultKind::Other, problem);
            }
        }
        if !rule.words.is_empty() && !rule.words.contains(&text.as_str()) {
            let words: Vec<_> = rule.words.iter().map(|word| format!("\"{word}\"")).collect();
            let field = self.path.join(".");
            let words = words.join(", ");
            let problem = format!("{field} must be one of the following: {words}");
            self.fault(report, line, FaultKind::Other, problem);
        }
        if let (Some(minimum), Value::Int(number)) = (rule.minimum, value)
            && *number < minimum
        {
            let problem = format!("Must be greater than or equal to {minimum}");
            self.fault(report, line, FaultKind::Other, problem);
        }
    }

    fn list(&mut self, line: usize, items: &[Node], rule: &Rule, report: &mut Report) {
        if let Some(item_rule) = rule.items {
            for (index, item) in items.iter().enumerate() {
                let mut inner = Report::default();
                self.within(index.to_string(), item, item_rule, &mut inner);
                report.absorb(inner);
            }
        }
        if rule.unique {
            for (index, item) in items.iter().enumerate() {
                if let Some(first) = items[..index].iter().rposition(|other| other == item) {
                    let text = format!("array items[{first},{index}] must be unique");
                    self.fault(report, item.line.max(line), FaultKind::Other, text);
                }
            }
        }
    }

    fn map(&mut self, line: usize, map: &Mapping, rule: &Rule, report: &mut Report) {
        for name in rule.required {
            if !map.contains_key(*name) {
                self.fault(report, line, FaultKind::Other, format!("{name} is required"));
            }
        }
        for (name, node) in map {
            if self.key_of(rule, name).is_some() {
                continue;
            }
            match rule.named {
                Some((names, inner)) if names.accept(name) => {
                    let mut attempt = Report::default();
                    self.within(name.clone(), node, inner, &mut attempt);
                    report.absorb(attempt);
                }
                _ => {
                    let extension = name.starts_with("x-") && self.version >= rule.extensions_since;
                    if !extension && self.version < rule.open_since {
                        let text = format!("Additional property {name} is not allowed");
                        self.fault(report, node.line, FaultKind::Other, text);
                    }
                }
            }
        }
        for (name, node) in map {
            if let Some(key) = self.key_of(rule, name) {
                self.within(name.clone(), node, key.rule, report);
            }
        }
    }

    fn key_of(&self, rule: &Rule, name: &str) -> Option<&'static Key> {
        rule.keys
            .iter()
            .find(|key| key.name == name && (key.since..=key.until).contains(&self.version))
    }
}

fn is(kind: Type, value: &Value) -> bool {
    match (kind, value) {
        (Type::Null, Value::Null)
        | (Type::Bool, Value::Bool(_))
        | (Type::Integer | Type::Number, Value::Int(_))
        | (Type::Number, Value::Float(_))
        | (Type::Text, Value::Str(_))
        | (Type::List, Value::List(_))
        | (Type::Map, Value::Map(_)) => true,
        (Type::Integer, Value::Float(number)) => number.fract() == 0.0,
        _ => false,
    }
}

/// The types in the docker CLI's words: `string, number or null`.
fn type_names(types: &[Type]) -> String {
    let name = |kind: &Type| match kind {
        Type::Map => "mapping",
        Type::List => "list",
        other => other.word(),
    };
    match types {
        [] => String::new(),
        [only] => name(only).to_owned(),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(name).collect();
            format!("{} or {}", first.join(", "), name(last))
        }
    }
}
