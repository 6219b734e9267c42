//! Pure: the vocabulary in which [`table`](super::table) describes the format: JSON Schema, as far
//! as stack files need it, with the version in which each thing came.

/// A kind of value. `Number` includes whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Null,
    Bool,
    Integer,
    Number,
    Text,
    List,
    Map,
}

impl Type {
    /// The schema's word for the type.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Text => "string",
            Self::List => "array",
            Self::Map => "object",
        }
    }
}

/// A grammar that a text or number must follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grammar {
    Duration,
    Ports,
}

/// Which keys besides the named ones a mapping takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names {
    /// Names of services, networks and so on.
    Object,
    /// Lower-case letters.
    Lower,
    /// Anything but the empty text.
    NonEmpty,
}

impl Names {
    pub(crate) fn accept(self, name: &str) -> bool {
        let all = |accept: fn(&u8) -> bool| !name.is_empty() && name.bytes().all(|b| accept(&b));
        match self {
            Self::Object => all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b)),
            Self::Lower => all(u8::is_ascii_lowercase),
            Self::NonEmpty => !name.is_empty(),
        }
    }
}

/// No version so far.
pub(crate) const NEVER: u8 = u8::MAX;

/// What one value must be. Empty lists and `None` demand nothing.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The value's type is one of these.
    pub(crate) types: &'static [Type],
    /// Exactly one of these rules holds.
    pub(crate) one_of: &'static [&'static Rule],
    /// A text or number follows this grammar.
    pub(crate) grammar: Option<Grammar>,
    /// The text is one of these.
    pub(crate) words: &'static [&'static str],
    /// The number is not below this.
    pub(crate) minimum: Option<i128>,
    /// Every item of a list keeps this rule.
    pub(crate) items: Option<&'static Rule>,
    /// No two items of a list are equal.
    pub(crate) unique: bool,
    /// The keys of a mapping.
    pub(crate) keys: &'static [Key],
    /// Keys by pattern.
    pub(crate) named: Option<(Names, &'static Rule)>,
    /// Keys that must be there.
    pub(crate) required: &'static [&'static str],
    /// The version from which other keys are accepted.
    pub(crate) open_since: u8,
    /// The version from which keys that begin with `x-` are accepted.
    pub(crate) extensions_since: u8,
}

/// A key of a mapping, in the versions that have it in this form.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) since: u8,
    pub(crate) until: u8,
    pub(crate) rule: &'static Rule,
}

/// A key that every version has.
pub(crate) const fn key(name: &'static str, rule: &'static Rule) -> Key {
    since(0, name, rule)
}

/// A key that came with a version.
pub(crate) const fn since(version: u8, name: &'static str, rule: &'static Rule) -> Key {
    Key { name, since: version, until: NEVER, rule }
}

/// The form that a key had up to a version.
pub(crate) const fn until(version: u8, name: &'static str, rule: &'static Rule) -> Key {
    Key { name, since: 0, until: version, rule }
}

/// Anything.
pub(crate) const ANY: Rule = Rule {
    types: &[],
    one_of: &[],
    grammar: None,
    words: &[],
    minimum: None,
    items: None,
    unique: false,
    keys: &[],
    named: None,
    required: &[],
    open_since: 0,
    extensions_since: NEVER,
};

/// A value of one of some types.
pub(crate) const fn of(types: &'static [Type]) -> Rule {
    Rule { types, ..ANY }
}

/// A text or number that follows a grammar.
pub(crate) const fn grammar(types: &'static [Type], grammar: Grammar) -> Rule {
    Rule { types, grammar: Some(grammar), ..ANY }
}

/// A list.
pub(crate) const fn list(items: &'static Rule) -> Rule {
    Rule { types: &[Type::List], items: Some(items), ..ANY }
}

/// A list without repetitions.
pub(crate) const fn set(items: &'static Rule) -> Rule {
    Rule { types: &[Type::List], items: Some(items), unique: true, ..ANY }
}

/// Exactly one of some rules.
pub(crate) const fn one_of(rules: &'static [&'static Rule]) -> Rule {
    Rule { one_of: rules, ..ANY }
}

/// A mapping with these keys and no others.
pub(crate) const fn map(keys: &'static [Key]) -> Rule {
    Rule { types: &[Type::Map], keys, open_since: NEVER, ..ANY }
}

/// A mapping with these keys and any others.
pub(crate) const fn open_map(keys: &'static [Key]) -> Rule {
    Rule { types: &[Type::Map], keys, ..ANY }
}

/// A mapping with keys of a pattern.
pub(crate) const fn named(names: Names, rule: &'static Rule, open_since: u8) -> Rule {
    Rule { types: &[Type::Map], named: Some((names, rule)), open_since, ..ANY }
}
