//! Conditions over events and actions: CEL, bounded by construction.
//!
//! The `cel` crate reads a source, with its Pratt parser: the other one needs twenty times as long, which a router with
//! many filters would feel at its start, and five times the stack. What was read becomes a [`Part`] tree of our own
//! (`read`), which is smaller than CEL: no function that makes large values of small ones, no pattern matching, no clock.
//! Judging it (`judge`) counts steps, and a step takes a few nanoseconds whatever the data: a long text, a long list or a
//! large map costs as many as it takes time. That is why the evaluation is ours; the crate's own has no limit, copies
//! whole values into its errors, and could be held up for seconds by one event. A property test holds the two against
//! each other: what this one answers, that one answers too.
//!
//! Numbers are CEL's: whole numbers of JSON are `int` (`uint` above its range), others `double`; they compare with each
//! other but do not mix in arithmetic.

mod data;
mod judge;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::value::RawValue;

use crate::event::{self, Action, Event};

use data::Node;
use judge::{Judging, Value};
use read::{Part, Reading, read};

/// The longest source, bytes.
pub const MAX_SOURCE_BYTES: usize = 1024;

/// The most parts: names, constants, operators and calls.
pub const MAX_PARTS: usize = 200;

/// The deepest nesting: of brackets, conditionals and the like in the source.
pub const MAX_NESTING: u16 = 24;

/// The longest chain of operators and members; `&&` and `||` do not count.
pub const MAX_CHAIN: usize = 32;

/// The largest list or map that `exists` and `all` go through.
pub const MAX_ELEMENTS: usize = 1000;

/// The most steps of one judgement: 1 to 2 ms of work. `benches/expression.rs` measures the dearest steps there are.
pub const MAX_STEPS: u32 = 50_000;

/// The variables of a filter: what is known of an event.
pub const EVENT_VARIABLES: [&str; 7] =
    ["event_type", "event_time", "id", "key", "tenant", "data", "current_context"];

/// The variables of a trigger's conditions: what is known of an action, and the subject of a `for_each`.
pub const ACTION_VARIABLES: [&str; 8] =
    ["action", "time", "id", "key", "tenant", "data", "current_context", "subject"];

/// Which functions there are, for messages.
const FUNCTIONS: &str = "has, exists, all, size, contains, startsWith, endsWith, string, int and double";

/// A condition that was read and checked.
#[derive(Clone)]
pub struct Expression {
    source: Box<str>,
    root: Part,
    uses: [bool; Variable::ALL.len()],
}

/// Why a source is no condition: a closed list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadExpression {
    /// Nothing.
    #[error("the expression is empty; leave it out where everything should match")]
    Empty,
    /// Longer than [`MAX_SOURCE_BYTES`].
    #[error(
        "the expression has {bytes} bytes, and {MAX_SOURCE_BYTES} are allowed; split it over several webhooks"
    )]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// No CEL.
    #[error(
        "the expression is not CEL: line {line}, column {column}: {problem}; texts stand in quotes, `==` compares, \
         `&&` and `||` combine"
    )]
    Syntax {
        /// From 1.
        line: u32,
        /// From 1.
        column: u32,
        /// What the parser says.
        problem: String,
    },
    /// Deeper than [`MAX_NESTING`] or [`MAX_CHAIN`].
    #[error(
        "the expression is nested too deeply: at most {MAX_NESTING} brackets or {MAX_CHAIN} operators in a row"
    )]
    TooDeep,
    /// More than [`MAX_PARTS`].
    #[error("the expression has more than {MAX_PARTS} parts; split it over several webhooks")]
    TooLarge,
    /// A name that stands for nothing.
    #[error("there is no variable `{name}`; there are {known}; texts stand in quotes")]
    UnknownVariable {
        /// The name.
        name: String,
        /// Which there are.
        known: String,
    },
    /// A function that is not there, or not with these arguments.
    #[error("there is no function `{name}` with {arguments} arguments; there are {FUNCTIONS}")]
    UnknownFunction {
        /// Its name.
        name: String,
        /// How many it was given, the value before the dot among them.
        arguments: usize,
    },
    /// Something of CEL that is left out.
    #[error("{what} cannot be used here; {instead}")]
    Unsupported {
        /// What.
        what: &'static str,
        /// What to write.
        instead: &'static str,
    },
    /// Something that can be neither true nor false where it must be one of them.
    #[error("{what} is never true or false; compare it with something")]
    NotACondition {
        /// What is there.
        what: &'static str,
    },
}

/// Why a condition says neither yes nor no of an event: a closed list. No value is quoted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// A member that is not there.
    #[error("there is no `{0}`; ask with has() first")]
    Absent(Arc<str>),
    /// An index beyond the list, or a key that the map does not have.
    #[error("there is no such element; ask with size() or `in` first")]
    NoElement,
    /// Something that this kind of value does not do.
    #[error("{what} cannot be applied to {to}")]
    WrongType {
        /// The operator or function.
        what: &'static str,
        /// A kind of value.
        to: &'static str,
    },
    /// An order of things that have none.
    #[error("an order cannot be applied to {left} and {right}")]
    Unordered {
        /// A kind of value.
        left: &'static str,
        /// A kind of value.
        right: &'static str,
    },
    /// A number outside what can be held.
    #[error("a number is too large")]
    Overflow,
    /// A division by zero.
    #[error("a division by zero")]
    DivisionByZero,
    /// A text or number that is no such number.
    #[error("{0}() cannot read this value")]
    Unconvertible(&'static str),
    /// The whole is neither true nor false.
    #[error("the expression is {0}, neither true nor false")]
    NotBool(&'static str),
    /// A variable that is not there: `subject` without `for_each`, or an event's where there is an action.
    #[error("there is no variable `{0}` here")]
    NoVariable(&'static str),
    /// A variable whose JSON cannot be read: a number beyond all range, or a text that is no Unicode.
    #[error("`{0}` cannot be read as JSON: it has a number out of range or a text that is no Unicode")]
    Unreadable(&'static str),
    /// More than [`MAX_ELEMENTS`].
    #[error("exists and all go through at most {MAX_ELEMENTS} elements")]
    TooManyElements,
    /// More than [`MAX_STEPS`].
    #[error("judging it takes too long with this data; make the expression simpler")]
    TooManySteps,
}

impl Unmet {
    /// Whether it ends the judgement, whatever stands beside it: not even `|| true` helps.
    fn is_final(&self) -> bool {
        matches!(self, Self::TooManyElements | Self::TooManySteps)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    EventType,
    EventTime,
    Action,
    Time,
    Id,
    Key,
    Tenant,
    Data,
    CurrentContext,
    Subject,
}

impl Variable {
    const ALL: [Self; 10] = [
        Self::EventType,
        Self::EventTime,
        Self::Action,
        Self::Time,
        Self::Id,
        Self::Key,
        Self::Tenant,
        Self::Data,
        Self::CurrentContext,
        Self::Subject,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::EventType => "event_type",
            Self::EventTime => "event_time",
            Self::Action => "action",
            Self::Time => "time",
            Self::Id => "id",
            Self::Key => "key",
            Self::Tenant => "tenant",
            Self::Data => "data",
            Self::CurrentContext => "current_context",
            Self::Subject => "subject",
        }
    }
}

impl Expression {
    /// Reads a condition.
    ///
    /// # Errors
    /// [`BadExpression`] when it is no CEL, goes beyond a bound, or uses what is not there.
    pub fn parse(source: &str) -> Result<Self, BadExpression> {
        if source.trim().is_empty() {
            return Err(BadExpression::Empty);
        }
        if source.len() > MAX_SOURCE_BYTES {
            return Err(BadExpression::TooLong { bytes: source.len() });
        }
        let tree = read(source)?;
        let mut reading = Reading { parts: 0, bound: Vec::new(), uses: [false; Variable::ALL.len()] };
        let root = reading.condition(&tree, 0)?;
        Ok(Self { source: source.into(), root, uses: reading.uses })
    }

    /// Reads a condition over events: a filter.
    ///
    /// # Errors
    /// As [`Expression::parse`], and when it uses a variable that events do not have.
    pub fn over_events(source: &str) -> Result<Self, BadExpression> {
        Self::parse(source)?.using(&EVENT_VARIABLES)
    }

    /// Reads a condition over actions, or over actions and a subject.
    ///
    /// # Errors
    /// As [`Expression::parse`], and when it uses a variable that is not there.
    pub fn over_actions(source: &str, with_subject: bool) -> Result<Self, BadExpression> {
        let known = if with_subject { &ACTION_VARIABLES[..] } else { &ACTION_VARIABLES[..7] };
        Self::parse(source)?.using(known)
    }

    fn using(self, known: &[&str]) -> Result<Self, BadExpression> {
        let unknown = self.variables().find(|name| !known.contains(name)).map(str::to_owned);
        match unknown {
            Some(name) => Err(BadExpression::UnknownVariable { name, known: known.join(", ") }),
            None => Ok(self),
        }
    }

    /// What was read.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The variables that it uses.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let used = Variable::ALL.iter().filter(|variable| self.uses[**variable as usize]);
        used.map(|variable| variable.as_str())
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// [`Unmet`] when it can be said neither that it holds nor that it does not.
    pub fn holds(&self, scope: &Scope) -> Result<bool, Unmet> {
        self.holds_within(scope, &mut { MAX_STEPS })
    }

    /// Whether it holds, found in at most this many steps, which are used up.
    ///
    /// # Errors
    /// [`Unmet`] when it can be said neither that it holds nor that it does not.
    pub(crate) fn holds_within(&self, scope: &Scope, steps: &mut u32) -> Result<bool, Unmet> {
        let mut judging = Judging { scope, steps: *steps, bound: Vec::new() };
        let value = judging.value(&self.root);
        *steps = judging.steps;
        match value? {
            Value::Bool(holds) => Ok(holds),
            other => Err(Unmet::NotBool(other.kind())),
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

/// What a condition is judged over. Each variable is converted once, when a condition first uses it.
#[derive(Clone, Debug)]
pub struct Scope {
    variables: [Option<Arc<Root>>; Variable::ALL.len()],
}

#[derive(Debug)]
struct Root {
    json: event::Json,
    value: OnceLock<Option<Node>>,
}

impl Root {
    fn of_json(json: event::Json) -> Arc<Self> {
        Arc::new(Self { json, value: OnceLock::new() })
    }

    fn of_text(text: Option<&str>) -> Arc<Self> {
        let value = OnceLock::from(Some(text.map_or(Node::Null, |text| Node::Text(text.into()))));
        Arc::new(Self { json: event::null(), value })
    }

    fn value(&self) -> Option<&Node> {
        self.value.get_or_init(|| serde_json::from_str(self.json.get()).ok()).as_ref()
    }
}

impl Scope {
    fn new<const N: usize>(variables: [(Variable, Arc<Root>); N]) -> Self {
        let mut scope = Self { variables: [const { None }; Variable::ALL.len()] };
        for (variable, root) in variables {
            scope.variables[variable as usize] = Some(root);
        }
        scope
    }

    /// The variables of an event.
    ///
    /// # Errors
    /// None: what cannot be read is found where a condition uses it.
    pub fn of_event(event: &Event) -> Result<Self, Unmet> {
        Ok(Self::new([
            (Variable::EventType, Root::of_text(Some(event.event_type.as_str()))),
            (Variable::EventTime, Root::of_text(Some(&event.event_time))),
            (Variable::Id, Root::of_text(Some(event.id.as_str()))),
            (Variable::Key, Root::of_text(event.key.as_deref())),
            (Variable::Tenant, Root::of_text(Some(event.tenant.as_str()))),
            (Variable::Data, Root::of_json(event.data.clone())),
            (Variable::CurrentContext, Root::of_json(event.current_context.clone())),
        ]))
    }

    /// The variables of an action.
    ///
    /// # Errors
    /// None: what cannot be read is found where a condition uses it.
    pub fn of_action(action: &Action) -> Result<Self, Unmet> {
        Ok(Self::new([
            (Variable::Action, Root::of_text(Some(action.name.as_str()))),
            (Variable::Time, Root::of_text(Some(&action.time))),
            (Variable::Id, Root::of_text(Some(action.id.as_str()))),
            (Variable::Key, Root::of_text(action.key.as_deref())),
            (Variable::Tenant, Root::of_text(Some(action.tenant.as_str()))),
            (Variable::Data, Root::of_json(action.data.clone())),
            (Variable::CurrentContext, Root::of_json(action.current_context.clone())),
        ]))
    }

    /// These variables, and a subject.
    ///
    /// # Errors
    /// [`Unmet::Unreadable`] when the subject cannot be read.
    pub fn with_subject(&self, subject: &RawValue) -> Result<Self, Unmet> {
        let mut scope = self.clone();
        let root = Root::of_json(Arc::from(subject.to_owned()));
        if root.value().is_none() {
            return Err(Unmet::Unreadable(Variable::Subject.as_str()));
        }
        scope.variables[Variable::Subject as usize] = Some(root);
        Ok(scope)
    }

    fn get(&self, variable: Variable) -> Result<&Node, Unmet> {
        let root = self.variables[variable as usize].as_ref().ok_or(Unmet::NoVariable(variable.as_str()))?;
        root.value().ok_or(Unmet::Unreadable(variable.as_str()))
    }
}
