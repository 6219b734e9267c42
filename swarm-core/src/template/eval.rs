//! Pure: a template's tree carried out for one task.
//!
//! Results may hold secrets, so every text is erased when it is dropped.

use zeroize::Zeroizing;

use super::parse::{Block, Node, NodeKind, Operand, Pipeline, Template};
use super::{Context, Functions, Problem};
use crate::model::Labels;

/// Steps after which a template is given up: nested ranges could go on for ever.
const STEPS: usize = 100_000;
/// Bytes that all values together may have before it is given up: far more than anything that it is
/// used for may have in the end.
const BYTES: usize = 16 * 1024 * 1024;
/// How deep templates may call each other.
const CALLS: usize = 50;

/// Text that may be secret.
pub(super) type Bytes = Zeroizing<Vec<u8>>;

/// What an expression can be.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Text(Bytes),
    Labels(&'a Labels),
    /// A part of the context with members, by its path: `Node.Platform`; the whole is empty.
    Struct(String),
}

pub(super) fn text(text: &str) -> Value<'static> {
    Value::Text(Zeroizing::new(text.as_bytes().to_vec()))
}

/// Carries a template out and returns what it printed.
pub(super) fn run(
    template: &Template,
    context: &Context<'_>,
    functions: Option<&Functions<'_>>,
) -> Result<Bytes, Problem> {
    let root = Value::Struct(String::new());
    let mut run = Run {
        template,
        context,
        functions,
        variables: vec![(String::new(), root.clone())],
        out: Vec::new(),
        steps: 0,
        bytes: 0,
        calls: 0,
    };
    run.nodes(&template.nodes, &root)?;
    // One allocation of the right size: growing would leave copies behind.
    let size = run.out.iter().map(|piece| piece.len()).sum();
    let mut whole = Zeroizing::new(Vec::with_capacity(size));
    run.out.iter().for_each(|piece| whole.extend_from_slice(piece));
    Ok(whole)
}

/// Where to go on after a node.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'a> {
    template: &'a Template,
    context: &'a Context<'a>,
    functions: Option<&'a Functions<'a>>,
    variables: Vec<(String, Value<'a>)>,
    out: Vec<Bytes>,
    steps: usize,
    bytes: usize,
    calls: usize,
}

impl<'a> Run<'a> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value<'a>) -> Result<Flow, Problem> {
        for node in nodes {
            let flow = self.spend(0).and_then(|()| self.node(node, dot));
            match flow.map_err(|problem| problem.or_at(node.line))? {
                Flow::Next => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Next)
    }

    /// Counts a step that made so many bytes.
    fn spend(&mut self, bytes: usize) -> Result<(), Problem> {
        self.steps += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        match self.steps > STEPS || self.bytes > BYTES {
            true => Err("the template does not come to an end".into()),
            false => Ok(()),
        }
    }

    fn node(&mut self, node: &Node, dot: &Value<'a>) -> Result<Flow, Problem> {
        match &node.kind {
            NodeKind::Text(text) => self.print(Zeroizing::new(text.as_bytes().to_vec()))?,
            NodeKind::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.names.is_empty() {
                    self.print(printed(&value)?)?;
                }
            }
            NodeKind::If(block) => {
                return self.scope(|run| {
                    let value = run.pipeline(&block.pipeline, dot)?;
                    let nodes = if is_true(&value) { &block.then } else { &block.otherwise };
                    run.nodes(nodes, dot)
                });
            }
            NodeKind::With(block) => {
                return self.scope(|run| {
                    let value = run.pipeline(&block.pipeline, dot)?;
                    match is_true(&value) {
                        true => run.nodes(&block.then, &value),
                        false => run.nodes(&block.otherwise, dot),
                    }
                });
            }
            NodeKind::Range(block) => return self.scope(|run| run.range(block, dot)),
            NodeKind::Break => return Ok(Flow::Break),
            NodeKind::Continue => return Ok(Flow::Continue),
            NodeKind::Call(name, argument) => self.call(name, argument.as_ref(), dot)?,
        }
        Ok(Flow::Next)
    }

    /// Carries a named template out: it sees its argument and no variables but `$`.
    fn call(
        &mut self,
        name: &str,
        argument: Option<&Pipeline>,
        dot: &Value<'a>,
    ) -> Result<(), Problem> {
        let template = self.template;
        let nodes = template.named.get(name);
        let nodes = nodes.ok_or_else(|| format!("template {name:?} not defined"))?;
        let dot = argument.map_or(Ok(Value::Nil), |argument| self.pipeline(argument, dot))?;
        self.calls += 1;
        if self.calls > CALLS {
            return Err("templates call each other too deep".into());
        }
        let own = vec![(String::new(), dot.clone())];
        let variables = std::mem::replace(&mut self.variables, own);
        self.nodes(nodes, &dot)?;
        self.variables = variables;
        self.calls -= 1;
        Ok(())
    }

    /// Runs a block and forgets the variables that were declared in it.
    fn scope(
        &mut self,
        block: impl FnOnce(&mut Self) -> Result<Flow, Problem>,
    ) -> Result<Flow, Problem> {
        let variables = self.variables.len();
        let done = block(self);
        self.variables.truncate(variables);
        done
    }

    fn range(&mut self, block: &Block, dot: &Value<'a>) -> Result<Flow, Problem> {
        let labels = match self.value(&block.pipeline, dot)? {
            Value::Labels(labels) => labels,
            other => return Err(format!("range can't iterate over {}", kind(&other)).into()),
        };
        if labels.is_empty() {
            return self.nodes(&block.otherwise, dot);
        }
        for (key, value) in labels {
            let value = text(value);
            let flow = self.scope(|run| {
                match &block.pipeline.names[..] {
                    [name] => run.variables.push((name.clone(), value.clone())),
                    [first, second] => {
                        run.variables.push((first.clone(), text(key)));
                        run.variables.push((second.clone(), value.clone()));
                    }
                    _ => {}
                }
                run.nodes(&block.then, &value)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, piece: Bytes) -> Result<(), Problem> {
        let size = piece.len();
        self.out.push(piece);
        self.spend(size)
    }

    /// The result of a pipeline, kept in the variables that it names.
    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value<'a>) -> Result<Value<'a>, Problem> {
        let value = self.value(pipeline, dot)?;
        for name in &pipeline.names {
            if pipeline.assigns {
                let known = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                known.ok_or_else(|| format!("undefined variable \"${name}\""))?.1 = value.clone();
            } else {
                self.variables.push((name.clone(), value.clone()));
            }
        }
        Ok(value)
    }

    fn value(&mut self, pipeline: &Pipeline, dot: &Value<'a>) -> Result<Value<'a>, Problem> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(
        &mut self,
        command: &[Operand],
        last: Option<Value<'a>>,
        dot: &Value<'a>,
    ) -> Result<Value<'a>, Problem> {
        let Operand::Function(name) = &command[0] else { return self.operand(&command[0], dot) };
        let mut args = Vec::with_capacity(command.len());
        for operand in &command[1..] {
            let value = self.operand(operand, dot)?;
            let decided = match name.as_str() {
                "and" => !is_true(&value),
                "or" => is_true(&value),
                _ => false,
            };
            if decided {
                return Ok(value);
            }
            args.push(value);
        }
        args.extend(last);
        let value = super::functions::call(name, args, self.functions)?;
        self.spend(size(&value))?;
        Ok(value)
    }

    fn operand(&mut self, operand: &Operand, dot: &Value<'a>) -> Result<Value<'a>, Problem> {
        let (value, members) = match operand {
            Operand::Dot(members) => (dot.clone(), members),
            Operand::Variable(name, members) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = known.ok_or_else(|| format!("undefined variable \"${name}\""))?;
                (value.clone(), members)
            }
            Operand::Group(pipeline, members) => (self.pipeline(pipeline, dot)?, members),
            Operand::Function(name) => {
                return super::functions::call(name, Vec::new(), self.functions);
            }
            Operand::Text(literal) => return Ok(text(literal)),
            Operand::Int(number) => return Ok(Value::Int(*number)),
            Operand::Bool(truth) => return Ok(Value::Bool(*truth)),
            Operand::Nil => return Ok(Value::Nil),
        };
        let value = members.iter().try_fold(value, |value, member| self.member(value, member))?;
        self.spend(size(&value))?;
        Ok(value)
    }

    fn member(&self, value: Value<'a>, name: &str) -> Result<Value<'a>, Problem> {
        match value {
            Value::Labels(labels) => match labels.get(name) {
                Some(value) => Ok(text(value)),
                None => Err(format!("map has no entry for key {name:?}").into()),
            },
            Value::Struct(path) => {
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                self.context.member(&path).ok_or_else(|| {
                    format!("can't evaluate field {name}: there is no .{path}").into()
                })
            }
            other => Err(format!("can't evaluate field {name} in {}", kind(&other)).into()),
        }
    }
}

fn size(value: &Value<'_>) -> usize {
    if let Value::Text(text) = value { text.len() } else { 0 }
}

/// Go's word for what a value is.
pub(super) fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Bool(_) => "type bool",
        Value::Int(_) => "type int",
        Value::Text(_) => "type string",
        Value::Labels(_) => "type map[string]string",
        Value::Struct(_) => "type struct",
    }
}

pub(super) fn is_true(value: &Value<'_>) -> bool {
    match value {
        Value::Nil => false,
        Value::Bool(truth) => *truth,
        Value::Int(number) => *number != 0,
        Value::Text(text) => !text.is_empty(),
        Value::Labels(labels) => !labels.is_empty(),
        Value::Struct(_) => true,
    }
}

/// A value as Go prints it.
pub(super) fn printed(value: &Value<'_>) -> Result<Bytes, Problem> {
    let text = match value {
        Value::Text(text) => return Ok(text.clone()),
        Value::Nil => "<no value>".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Labels(labels) => {
            let pairs: Vec<_> = labels.iter().map(|(k, v)| format!("{k}:{v}")).collect();
            format!("map[{}]", pairs.join(" "))
        }
        Value::Struct(path) => return Err(format!("can't print .{path}: name a member").into()),
    };
    Ok(Zeroizing::new(text.into_bytes()))
}
