//! Pure: substitutes variables in a stack file, with the docker CLI's grammar and its quirks.
//!
//! `$NAME`, `${NAME}`, and inside or outside of braces `:-default`, `-default`, `:?message` and
//! `?message`; `$$` is a dollar sign. Values are substituted everywhere, keys never. There is no
//! nesting and no `:+`. The quirks that stacks rely on are noted where they are.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{ComposeError, Place};
use crate::value::{Mapping, Node, Value};

/// The variables that a stack may refer to.
pub type Environment = BTreeMap<String, String>;

/// Substitutes variables in every value of a file.
pub(crate) fn interpolate(
    file: &Path,
    root: &Node,
    env: &Environment,
) -> Result<Node, ComposeError> {
    Walk { file, env, path: Vec::new() }.node(root)
}

struct Walk<'a> {
    file: &'a Path,
    env: &'a Environment,
    path: Vec<String>,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node) -> Result<Node, ComposeError> {
        let value = match &node.value {
            Value::Str(text) => self.text(node.line, text)?,
            Value::Map(map) => {
                let mut out = Mapping::new();
                for (key, entry) in map {
                    out.insert(key.clone(), self.within(key, entry)?);
                }
                Value::Map(out)
            }
            Value::List(items) => Value::List(
                items.iter().map(|item| self.within("[]", item)).collect::<Result<_, _>>()?,
            ),
            other => other.clone(),
        };
        Ok(Node::new(node.line, value))
    }

    fn within(&mut self, part: &str, node: &Node) -> Result<Node, ComposeError> {
        self.path.push(part.to_owned());
        let node = self.node(node);
        self.path.pop();
        node
    }

    fn text(&self, line: usize, text: &str) -> Result<Value, ComposeError> {
        let path = || self.path.join(".");
        let error =
            |problem| ComposeError::Interpolation { place: Place::new(self.file, line), problem };
        let new = substitute(text, self.env).map_err(|template| {
            error(format!(
                "invalid interpolation format for {}: {}; you may need to escape any $ with another $",
                path(),
                quoted(&template)
            ))
        })?;
        // A value that substitution did not change keeps its type: `replicas: "3"` stays wrong.
        match cast_for(&self.path) {
            Some(cast) if new != text => cast(&new).map_err(|problem| {
                let path = path();
                error(format!(
                    "error while interpolating {path}: failed to cast to expected type: {problem}"
                ))
            }),
            _ => Ok(Value::Str(new)),
        }
    }
}

/// Substitutes the variables of one text. The error is the template that is wrong.
///
/// As in the docker CLI, a later successful substitution in the same text hides an earlier error.
fn substitute(text: &str, env: &Environment) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut failed = None;
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((expression, after)) = expression(rest) {
            rest = after;
            failed = match evaluate(expression, env) {
                Ok(value) => {
                    out.push_str(&value);
                    None
                }
                Err(template) => Some(template),
            };
        } else {
            failed = Some(text.to_owned());
        }
    }
    out.push_str(rest);
    failed.map_or(Ok(out), Err)
}

/// Splits the expression after a dollar sign from what follows it. Without braces an operator's
/// operand goes on to the end of the text (or a closing brace), as in the docker CLI.
fn expression(rest: &str) -> Option<(&str, &str)> {
    let (body, braced) = rest.strip_prefix('{').map_or((rest, false), |body| (body, true));
    let first = body.chars().next()?;
    if !first.is_ascii_alphabetic() && first != '_' {
        return None;
    }
    let name = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
    let after_name = &body[name..];
    let operator = after_name.strip_prefix(':').unwrap_or(after_name).starts_with(['-', '?']);
    let end = if operator { body.find('}').unwrap_or(body.len()) } else { name };
    if !braced {
        return Some((&body[..end], &body[end..]));
    }
    body[end..].strip_prefix('}').map(|after| (&body[..end], after))
}

/// The value of an expression. The operators are looked for in this order wherever they stand, so
/// `X?a:-b` has the default `b` and the name `X?a`.
fn evaluate(expression: &str, env: &Environment) -> Result<String, String> {
    let get = |name: &str| env.get(name).map(String::as_str);
    if let Some((name, default)) = expression.split_once(":-") {
        return Ok(get(name).filter(|value| !value.is_empty()).unwrap_or(default).to_owned());
    }
    if let Some((name, default)) = expression.split_once('-') {
        return Ok(get(name).unwrap_or(default).to_owned());
    }
    let required = |name: &str, message: &str, value: Option<&str>| {
        let missing = || format!("required variable {name} is missing a value: {message}");
        value.map(str::to_owned).ok_or_else(missing)
    };
    if let Some((name, message)) = expression.split_once(":?") {
        return required(name, message, get(name).filter(|value| !value.is_empty()));
    }
    if let Some((name, message)) = expression.split_once('?') {
        return required(name, message, get(name));
    }
    Ok(get(expression).unwrap_or_default().to_owned())
}

type Cast = fn(&str) -> Result<Value, String>;

/// The keys whose substituted text becomes a number or a truth value; `*` is any one key. The
/// list is the docker CLI's, gaps included.
const CASTS: &[(&str, Cast)] = &[
    ("services.*.configs.[].mode", integer),
    ("services.*.secrets.[].mode", integer),
    ("services.*.healthcheck.retries", integer),
    ("services.*.healthcheck.disable", boolean),
    ("services.*.deploy.replicas", integer),
    ("services.*.deploy.update_config.parallelism", integer),
    ("services.*.deploy.update_config.max_failure_ratio", float),
    ("services.*.deploy.rollback_config.parallelism", integer),
    ("services.*.deploy.rollback_config.max_failure_ratio", float),
    ("services.*.deploy.restart_policy.max_attempts", integer),
    ("services.*.deploy.placement.max_replicas_per_node", integer),
    ("services.*.ports.[].target", integer),
    ("services.*.ports.[].published", integer),
    ("services.*.ulimits.*", integer),
    ("services.*.ulimits.*.hard", integer),
    ("services.*.ulimits.*.soft", integer),
    ("services.*.privileged", boolean),
    ("services.*.oom_score_adj", integer),
    ("services.*.read_only", boolean),
    ("services.*.stdin_open", boolean),
    ("services.*.tty", boolean),
    ("services.*.volumes.[].read_only", boolean),
    ("services.*.volumes.[].volume.nocopy", boolean),
    ("networks.*.external", boolean),
    ("networks.*.internal", boolean),
    ("networks.*.attachable", boolean),
    ("volumes.*.external", boolean),
    ("secrets.*.external", boolean),
    ("configs.*.external", boolean),
];

fn cast_for(path: &[String]) -> Option<Cast> {
    // A key with a dot counts as two parts, as in the docker CLI.
    let path = path.join(".");
    let matches = |pattern: &str| {
        pattern.split('.').count() == path.split('.').count()
            && pattern.split('.').zip(path.split('.')).all(|(want, is)| want == "*" || want == is)
    };
    CASTS.iter().find(|(pattern, _)| matches(pattern)).map(|(_, cast)| *cast)
}

fn integer(text: &str) -> Result<Value, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("strconv.Atoi: parsing {}: invalid syntax", quoted(text)));
    }
    let number = text.parse::<i64>().map(|number| Value::Int(number.into()));
    number.map_err(|_| format!("strconv.Atoi: parsing {}: value out of range", quoted(text)))
}

fn float(text: &str) -> Result<Value, String> {
    let invalid = |_| format!("strconv.ParseFloat: parsing {}: invalid syntax", quoted(text));
    text.parse().map(Value::Float).map_err(invalid)
}

fn boolean(text: &str) -> Result<Value, String> {
    match text.to_lowercase().as_str() {
        "y" | "yes" | "true" | "on" => Ok(Value::Bool(true)),
        "n" | "no" | "false" | "off" => Ok(Value::Bool(false)),
        _ => Err(format!("invalid boolean: {text}")),
    }
}

/// The text as Go quotes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        [("A", "1"), ("EMPTY", ""), ("TAG", "1.2"), ("D", "$A")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn the_grammar_is_the_docker_clis() {
        for (template, text) in [
            ("$A ${A} $$A $${A}", "1 1 $A ${A}"),
            ("${EMPTY:-x} ${EMPTY-x} ${NONE-x} ${NONE:-}", "x  x "),
            ("${NONE} $NONE.", " ."),
            // The form without braces takes operators too, up to the end.
            ("app:$TAG-alpine", "app:1.2"),
            ("app:$NONE-alpine", "app:alpine"),
            ("$A:80", "1:80"),
            // No nesting: the default ends at the first brace.
            ("${NONE:-${A}}", "${A}"),
            // Operators are looked for in a fixed order.
            ("${A?e:-f}", "f"),
            // What a variable holds is not looked at again.
            ("$D", "$A"),
            ("${A:?needed}", "1"),
            ("${EMPTY?needed}", ""),
            // A later success hides an error.
            ("${NONE:?needed} ${B:-x}", " x"),
        ] {
            assert_eq!(substitute(template, &env()).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn malformed_templates_are_refused() {
        for template in ["$1", "5$", "${A:+x}", "${a.b}", "${A", "${}", "$(date)", "${A:-x"] {
            assert_eq!(substitute(template, &env()), Err(template.to_owned()));
        }
        let missing = "required variable NONE is missing a value: needed".to_owned();
        assert_eq!(substitute("${A} ${NONE?needed}", &env()), Err(missing));
    }

    #[test]
    fn only_changed_values_of_listed_keys_are_cast() {
        let read = |text: &str| {
            let root = crate::parse::parse(Path::new("s.yml"), text).unwrap();
            interpolate(Path::new("s.yml"), &root, &env())
                .map(|root| root.value.to_text())
                .map_err(|error| error.to_string())
        };
        let service = |entry: &str| format!("services: {{a: {{{entry}}}}}");
        let tty = |text: &str| read(&service(&format!("tty: {text}")));
        assert_eq!(tty("\"${NONE:-yes}\"").unwrap(), "map[services:map[a:map[tty:true]]]");
        let root = crate::parse::parse(Path::new("s"), "services: {a: {deploy: {replicas: '3'}}}");
        let root = interpolate(Path::new("s"), &root.unwrap(), &env()).unwrap();
        let deploy = root.get("services").unwrap().get("a").unwrap().get("deploy").unwrap();
        assert_eq!(deploy.get("replicas").unwrap().value, Value::Str("3".to_owned()));
        assert_eq!(
            tty("\"${A}\"").unwrap_err(),
            "s.yml:1: error while interpolating services.a.tty: \
             failed to cast to expected type: invalid boolean: 1"
        );
    }
}
