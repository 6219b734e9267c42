//! Pure: Go's `text/template` read into trees: text, actions, `if`, `with`, `range`, and templates
//! that have names.

use std::collections::BTreeMap;

use super::Problem;

/// How deep parentheses and blocks may nest, so that no text can exhaust the stack.
const DEPTH: usize = 50;

/// A piece of a template, with the line that it begins on.
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) kind: NodeKind,
}

#[derive(Debug, PartialEq)]
pub(super) enum NodeKind {
    Text(String),
    Print(Pipeline),
    If(Block),
    With(Block),
    Range(Block),
    Break,
    Continue,
    /// Carries a named template out, with the pipeline's result as its dot.
    Call(String, Option<Pipeline>),
}

/// A text as it was read.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Template {
    pub(super) nodes: Vec<Node>,
    /// What `define` and `block` made.
    pub(super) named: BTreeMap<String, Vec<Node>>,
}

/// What is done where the pipeline holds, and otherwise. `else if` is an `if` in the latter.
#[derive(Debug, PartialEq)]
pub(super) struct Block {
    pub(super) pipeline: Pipeline,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands of which each gets the result of the one before as its last argument.
#[derive(Debug, PartialEq)]
pub(super) struct Pipeline {
    /// Variables that get the result; two where a `range` names keys as well.
    pub(super) names: Vec<String>,
    /// Whether the variable exists already (`=` and not `:=`).
    pub(super) assigns: bool,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Operand {
    /// `.` or `.A.B`.
    Dot(Vec<String>),
    /// `$name` or `$name.A.B`.
    Variable(String, Vec<String>),
    /// A pipeline in parentheses, and members of its result.
    Group(Pipeline, Vec<String>),
    Function(String),
    Text(String),
    Int(i64),
    Bool(bool),
    Nil,
}

/// Reads a template.
pub(super) fn parse(text: &str) -> Result<Template, Problem> {
    let pieces = split(text)?;
    let mut parser = Parser { pieces: &pieces, at: 0, depth: 0, ranges: 0, named: BTreeMap::new() };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(Template { nodes, named: parser.named }),
        Some((line, word, _)) => Err(Problem::at(line, format!("unexpected {{{{{word}}}}}"))),
    }
}

/// Text, or what stands between braces.
enum Piece<'a> {
    Text(usize, &'a str),
    Action(usize, &'a str),
}

/// Cuts the text at its actions; `{{-` and `-}}` trim the text before and after.
fn split(text: &str) -> Result<Vec<Piece<'_>>, Problem> {
    let mut pieces = Vec::new();
    let (mut rest, mut line) = (text, 1);
    let mut trim_next = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let mut shown = if trim_next { before.trim_start() } else { before };
        let begins = line + lines(&before[..before.len() - shown.len()]);
        line += lines(before);
        let Some(after) = after else {
            pieces.push(Piece::Text(begins, shown));
            return Ok(pieces);
        };
        let trims = after.strip_prefix('-').filter(|after| after.starts_with(char::is_whitespace));
        if trims.is_some() {
            shown = shown.trim_end();
        }
        pieces.push(Piece::Text(begins, shown));
        let (inner, next) =
            action_end(trims.unwrap_or(after)).map_err(|text| Problem::at(line, text))?;
        let untrimmed = inner.strip_suffix('-').filter(|it| it.ends_with(char::is_whitespace));
        trim_next = untrimmed.is_some();
        let inner = untrimmed.unwrap_or(inner);
        if !inner.trim_start().starts_with("/*") {
            pieces.push(Piece::Action(line, inner));
        }
        line += lines(&rest[before.len()..rest.len() - next.len()]);
        rest = next;
    }
}

fn lines(text: &str) -> usize {
    text.matches('\n').count()
}

/// Splits at the `}}` that is not inside quotes or a comment.
fn action_end(text: &str) -> Result<(&str, &str), &'static str> {
    if text.trim_start().starts_with("/*") {
        let end = text.find("*/").ok_or("unclosed comment")? + 2;
        let close = text[end..].find("}}").ok_or("comment ends before closing delimiter")? + end;
        let between = text[end..close].trim();
        return match between {
            "" | "-" => Ok((&text[..close], &text[close + 2..])),
            _ => Err("comment ends before closing delimiter"),
        };
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"' | '\''), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), c) if c == open && !escaped => quote = None,
            (None, '"' | '`' | '\'') => quote = Some(c),
            (None, '}') if text[at..].starts_with("}}") => {
                return Ok((&text[..at], &text[at + 2..]));
            }
            _ => {}
        }
        escaped = false;
    }
    Err("unclosed action")
}

/// The keyword that ended a list of nodes, and what followed it.
type End<'a> = Option<(usize, &'a str, &'a str)>;

struct Parser<'p, 'a> {
    pieces: &'p [Piece<'a>],
    at: usize,
    depth: usize,
    /// How many `range`s stand around.
    ranges: usize,
    named: BTreeMap<String, Vec<Node>>,
}

impl<'a> Parser<'_, 'a> {
    /// Nodes up to the end of the text, `{{else…}}` or `{{end}}`.
    fn nodes(&mut self) -> Result<(Vec<Node>, End<'a>), Problem> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.get(self.at) {
            self.at += 1;
            let (line, inner) = match piece {
                Piece::Text(_, "") => continue,
                Piece::Text(line, text) => {
                    let kind = NodeKind::Text((*text).to_owned());
                    nodes.push(Node { line: *line, kind });
                    continue;
                }
                Piece::Action(line, inner) => (*line, inner.trim()),
            };
            let (word, rest) = first_word(inner);
            let kind = match word {
                "else" | "end" => return Ok((nodes, Some((line, word, rest)))),
                "if" => NodeKind::If(self.block(line, rest, word)?),
                "with" => NodeKind::With(self.block(line, rest, word)?),
                "range" => NodeKind::Range(self.range(line, rest)?),
                "break" | "continue" if self.ranges == 0 => {
                    return Err(Problem::at(line, format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                "break" => NodeKind::Break,
                "continue" => NodeKind::Continue,
                "template" => {
                    let (name, rest) = name(line, rest)?;
                    NodeKind::Call(name, argument(line, rest)?)
                }
                "define" | "block" => {
                    let (name, rest) = name(line, rest)?;
                    let argument = argument(line, rest)?;
                    self.define(line, name.clone())?;
                    if word == "define" {
                        continue;
                    }
                    NodeKind::Call(name, argument)
                }
                _ => NodeKind::Print(pipeline(line, inner)?),
            };
            nodes.push(Node { line, kind });
        }
        Ok((nodes, None))
    }

    fn range(&mut self, line: usize, over: &str) -> Result<Block, Problem> {
        self.ranges += 1;
        let block = self.block(line, over, "range");
        self.ranges -= 1;
        block
    }

    /// Reads a named template up to its end.
    fn define(&mut self, line: usize, name: String) -> Result<(), Problem> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Problem::at(line, "blocks nest too deep"));
        }
        let ranges = std::mem::take(&mut self.ranges);
        let (nodes, end) = self.nodes()?;
        (self.ranges, self.depth) = (ranges, self.depth - 1);
        match end {
            Some((_, "end", "")) => {}
            Some((line, word, _)) => {
                return Err(Problem::at(line, format!("unexpected {{{{{word}}}}}")));
            }
            None => return Err(Problem::at(line, "unexpected EOF")),
        }
        self.named.insert(name, nodes);
        Ok(())
    }

    fn block(&mut self, line: usize, condition: &str, word: &str) -> Result<Block, Problem> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Problem::at(line, "blocks nest too deep"));
        }
        let pipeline = pipeline(line, condition)?;
        let (then, end) = self.nodes()?;
        let mut otherwise = Vec::new();
        match end {
            None => return Err(Problem::at(line, "unexpected EOF")),
            Some((line, "else", "")) => {
                let (nodes, end) = self.nodes()?;
                otherwise = nodes;
                match end {
                    Some((_, "end", "")) => {}
                    Some((line, word, _)) => {
                        return Err(Problem::at(line, format!("unexpected {{{{{word}}}}}")));
                    }
                    None => return Err(Problem::at(line, "unexpected EOF")),
                }
            }
            // The `end` of the inner block is the one of the outer, too.
            Some((line, "else", rest)) => {
                let (inner, condition) = first_word(rest);
                let kind = match inner {
                    "if" if word == "if" => NodeKind::If(self.block(line, condition, inner)?),
                    "with" if word == "with" => NodeKind::With(self.block(line, condition, inner)?),
                    _ => return Err(Problem::at(line, format!("unexpected {rest:?} in else"))),
                };
                otherwise.push(Node { line, kind });
            }
            Some((_, _, "")) => {}
            Some((line, _, rest)) => {
                return Err(Problem::at(line, format!("unexpected {rest:?} in end")));
            }
        }
        self.depth -= 1;
        Ok(Block { pipeline, then, otherwise })
    }
}

fn first_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    // `ending` and `.end` are no keywords.
    let whole = rest.chars().next().is_none_or(|c| !is_name(c));
    if whole { (word, rest.trim_start()) } else { ("", text) }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The quoted name of a template, and what follows it.
fn name(line: usize, text: &str) -> Result<(String, &str), Problem> {
    let mut reader = Reader { rest: text, depth: 0 };
    match text.chars().next() {
        Some(quote @ ('"' | '`')) => match reader.quoted(quote) {
            Ok(Operand::Text(name)) => Ok((name, reader.rest.trim_start())),
            Ok(_) => Err(Problem::at(line, "a template's name is a text")),
            Err(text) => Err(Problem::at(line, text)),
        },
        _ => Err(Problem::at(line, "a template's name is a text")),
    }
}

fn argument(line: usize, text: &str) -> Result<Option<Pipeline>, Problem> {
    if text.trim().is_empty() { Ok(None) } else { pipeline(line, text).map(Some) }
}

fn pipeline(line: usize, text: &str) -> Result<Pipeline, Problem> {
    let mut reader = Reader { rest: text.trim(), depth: 0 };
    let read = reader.pipeline().and_then(|pipeline| match reader.rest {
        "" => Ok(pipeline),
        rest => Err(format!("unexpected {:?} in command", rest.chars().next().unwrap_or(' '))),
    });
    read.map_err(|text| Problem::at(line, text))
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn pipeline(&mut self) -> Result<Pipeline, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("parentheses nest too deep".to_owned());
        }
        let (names, assigns) = self.declaration()?;
        let mut commands = vec![self.command()?];
        while self.take('|') {
            let command = self.command()?;
            if !matches!(command[0], Operand::Function(_)) {
                let stage = commands.len() + 1;
                return Err(format!("non executable command in pipeline stage {stage}"));
            }
            commands.push(command);
        }
        self.depth -= 1;
        Ok(Pipeline { names, assigns, commands })
    }

    /// `$x :=`, `$x =` or `$k, $v :=`, if the pipeline begins so.
    fn declaration(&mut self) -> Result<(Vec<String>, bool), String> {
        self.skip_space();
        let begin = self.rest;
        let mut names = Vec::new();
        while names.len() < 2 && self.rest.starts_with('$') {
            names.push(self.name(1).to_owned());
            if !self.take(',') {
                break;
            }
            self.skip_space();
        }
        self.skip_space();
        if !names.is_empty() && self.rest.starts_with(":=") {
            self.rest = self.rest[2..].trim_start();
            return Ok((names, false));
        }
        if names.len() == 1 && self.rest.starts_with('=') {
            self.rest = self.rest[1..].trim_start();
            return Ok((names, true));
        }
        if names.len() == 2 {
            return Err("too many declarations in command".to_owned());
        }
        self.rest = begin;
        Ok((Vec::new(), false))
    }

    fn command(&mut self) -> Result<Vec<Operand>, String> {
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            if self.rest.is_empty() || self.rest.starts_with(['|', ')']) {
                break;
            }
            operands.push(self.operand()?);
            if !self.rest.is_empty()
                && !self.rest.starts_with(char::is_whitespace)
                && !self.rest.starts_with(['|', ')'])
            {
                let next = self.rest.chars().next().unwrap_or(' ');
                return Err(format!("unexpected {next:?} in operand"));
            }
        }
        match operands.first() {
            None => Err("missing value for command".to_owned()),
            Some(Operand::Nil) => Err("nil is not a command".to_owned()),
            Some(Operand::Function(_)) => Ok(operands),
            Some(_) if operands.len() == 1 => Ok(operands),
            Some(_) => Err("can't give argument to non-function".to_owned()),
        }
    }

    fn operand(&mut self) -> Result<Operand, String> {
        let first = self.rest.chars().next().unwrap_or(' ');
        Ok(match first {
            '.' => Operand::Dot(self.members()),
            '$' => Operand::Variable(self.name(1).to_owned(), self.members()),
            '(' => {
                self.take('(');
                let pipeline = self.pipeline()?;
                if !self.take(')') {
                    return Err("unclosed left paren".to_owned());
                }
                Operand::Group(pipeline, self.members())
            }
            '"' | '`' | '\'' => self.quoted(first)?,
            c if c.is_ascii_digit() || c == '-' || c == '+' => self.number()?,
            c if is_name(c) => match self.name(0) {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                "nil" => Operand::Nil,
                name => Operand::Function(name.to_owned()),
            },
            c => return Err(format!("unexpected {c:?} in command")),
        })
    }

    /// `.A.B` and so on, as far as it goes; a lone `.` has no members.
    fn members(&mut self) -> Vec<String> {
        let mut members = Vec::new();
        while let Some(after) = self.rest.strip_prefix('.') {
            if !after.starts_with(is_name) {
                if members.is_empty() {
                    self.rest = after;
                }
                break;
            }
            members.push(self.name(1).to_owned());
        }
        members
    }

    /// A name after `skip` bytes.
    fn name(&mut self, skip: usize) -> &'a str {
        let text = &self.rest[skip..];
        let (name, rest) = text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()));
        self.rest = rest;
        name
    }

    fn quoted(&mut self, quote: char) -> Result<Operand, String> {
        let mut escaped = false;
        let close = self.rest.char_indices().skip(1).find_map(|(at, c)| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && quote != '`' && !escaped;
            closes.then_some(at + 1)
        });
        let (word, rest) = self.rest.split_at(close.ok_or("unterminated quoted string")?);
        self.rest = rest;
        let inner = &word[1..word.len() - 1];
        match quote {
            '`' => Ok(Operand::Text(inner.to_owned())),
            '"' => unquote(word).map(Operand::Text),
            _ => {
                let text = unquote(&format!("\"{}\"", inner.replace("\\'", "'")))?;
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => Ok(Operand::Int(i64::from(u32::from(c)))),
                    _ => Err("malformed character constant".to_owned()),
                }
            }
        }
    }

    fn number(&mut self) -> Result<Operand, String> {
        let end = self.rest.find(|c: char| c.is_whitespace() || "|)".contains(c));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word.parse().map(Operand::Int).map_err(|_| format!("bad number syntax: {word:?}"))
    }

    fn take(&mut self, c: char) -> bool {
        self.skip_space();
        let after = self.rest.strip_prefix(c);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

/// Go's quoted text and JSON's agree on every escape that a label or path has.
fn unquote(word: &str) -> Result<String, String> {
    serde_json::from_str(word).map_err(|_| format!("invalid syntax in {word}"))
}
