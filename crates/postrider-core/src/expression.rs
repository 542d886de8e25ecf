//! Conditions over events and actions: CEL, bounded by construction.
//!
//! The `cel` crate reads a source, with its Pratt parser: the other one needs twenty times as long, which a router with
//! many filters would feel at its start, and five times the stack. What was read becomes a [`Part`] tree of our own, which is smaller than CEL: no function
//! that makes large values of small ones, no pattern matching, no clock. Judging it counts steps, and a step takes a few
//! nanoseconds whatever the data: a long text, a long list or a large map costs as many as it takes time. That is why the
//! evaluation is ours; the crate's own has no limit, copies whole values into its errors, and could be held up for
//! seconds by one event. A property test holds the two against each other: what this one answers, that one answers too.
//!
//! Numbers are CEL's: whole numbers of JSON are `int` (`uint` above its range), others `double`; they compare with each
//! other but do not mix in arithmetic.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, operators};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{self, Action, Event};

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

/// JSON, converted: a third of what `serde_json::Value` takes, in space and time.
#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    List(Box<[Node]>),
    Map(Members),
}

/// The members of a map, sorted by name, each name once.
#[derive(Debug)]
struct Members(Box<[(Box<str>, Node)]>);

impl Members {
    /// Of a name that is there twice the last counts, as everywhere.
    fn of(mut members: Vec<(Box<str>, Node)>) -> Self {
        if !members.is_sorted_by(|one, next| one.0 < next.0) {
            members.reverse();
            members.sort_by(|one, other| one.0.cmp(&other.0));
            members.dedup_by(|one, kept| one.0 == kept.0);
        }
        Self(members.into_boxed_slice())
    }

    fn get(&self, name: &str) -> Option<&Node> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        self.0.get(at).map(|(_, node)| node)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Uint(value), Node::Int))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Double(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Node::List(list.into_boxed_slice()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Map(Members::of(members)))
    }
}

/// A part of a condition.
#[derive(Clone, Debug)]
enum Part {
    Constant(Constant),
    Variable(Variable),
    /// The element of the enclosing `exists` or `all`, counted from the outermost.
    Bound(usize),
    Member(Box<Part>, Arc<str>),
    Has(Box<Part>, Arc<str>),
    Index(Box<[Part; 2]>),
    List(Vec<Part>),
    Not(Box<Part>),
    Negate(Box<Part>),
    And(Box<[Part; 2]>),
    Or(Box<[Part; 2]>),
    Conditional(Box<[Part; 3]>),
    Equal(Box<[Part; 2]>),
    Unequal(Box<[Part; 2]>),
    Order(Order, Box<[Part; 2]>),
    In(Box<[Part; 2]>),
    Arithmetic(Arithmetic, Box<[Part; 2]>),
    Size(Box<Part>),
    Text(TextTest, Box<[Part; 2]>),
    Convert(Conversion, Box<Part>),
    /// `exists` or `all`: the range, and what is asked of each element.
    Each(Quantifier, Box<[Part; 2]>),
}

#[derive(Clone, Debug)]
enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Copy, Debug)]
enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Clone, Copy, Debug)]
enum Conversion {
    Text,
    Int,
    Double,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Quantifier {
    Exists,
    All,
}

impl Part {
    /// What it is when it can be nothing else, and is neither true nor false.
    fn never_bool(&self) -> Option<&'static str> {
        match self {
            Self::Constant(Constant::Null) => Some("null"),
            Self::Constant(Constant::Int(_) | Constant::Uint(_) | Constant::Double(_)) => Some("a number"),
            Self::Constant(Constant::Text(_)) | Self::Convert(Conversion::Text, _) => Some("a text"),
            Self::List(_) => Some("a list"),
            Self::Negate(_)
            | Self::Arithmetic(..)
            | Self::Size(_)
            | Self::Convert(Conversion::Int | Conversion::Double, _) => Some("a number"),
            Self::Variable(
                Variable::EventType
                | Variable::EventTime
                | Variable::Action
                | Variable::Time
                | Variable::Id
                | Variable::Tenant
                | Variable::Key,
            ) => Some("a text"),
            Self::Conditional(parts) => parts[1].never_bool().or_else(|| parts[2].never_bool()),
            Self::Constant(Constant::Bool(_))
            | Self::Variable(Variable::Data | Variable::CurrentContext | Variable::Subject)
            | Self::Bound(_)
            | Self::Member(..)
            | Self::Has(..)
            | Self::Index(_)
            | Self::Not(_)
            | Self::And(_)
            | Self::Or(_)
            | Self::Equal(_)
            | Self::Unequal(_)
            | Self::Order(..)
            | Self::In(_)
            | Self::Text(..)
            | Self::Each(..) => None,
        }
    }
}

/// Has the `cel` crate read a source.
fn read(source: &str) -> Result<IdedExpr, BadExpression> {
    let parser = cel::parser::PrattParser::new().max_recursion_depth(MAX_NESTING);
    // No source is known that makes the parser panic; but sources come from strangers, and it is not ours.
    let Ok(read) = catch_unwind(AssertUnwindSafe(|| parser.parse(source))) else {
        let problem = "the parser gave up".to_owned();
        return Err(BadExpression::Syntax { line: 1, column: 1, problem });
    };
    read.map_err(|errors| {
        if errors.errors.iter().any(|error| error.msg.contains("recursion limit")) {
            return BadExpression::TooDeep;
        }
        let first = errors.errors.first();
        let at = |position: isize| u32::try_from(position).unwrap_or(0).max(1);
        let (line, column) = first.map_or((1, 1), |error| (at(error.pos.0), at(error.pos.1)));
        let problem = first.map_or("", |error| error.msg.as_str());
        let problem = problem.strip_prefix("Syntax error: ").unwrap_or(problem);
        let problem = problem.chars().filter(|c| !c.is_control()).take(200).collect();
        BadExpression::Syntax { line, column, problem }
    })
}

/// From the crate's tree to ours.
struct Reading<'e> {
    parts: usize,
    /// The names that enclosing `exists` and `all` bind, outermost first.
    bound: Vec<&'e str>,
    uses: [bool; Variable::ALL.len()],
}

impl<'e> Reading<'e> {
    fn condition(&mut self, tree: &'e IdedExpr, depth: usize) -> Result<Part, BadExpression> {
        let part = self.part(tree, depth)?;
        match part.never_bool() {
            Some(what) => Err(BadExpression::NotACondition { what }),
            None => Ok(part),
        }
    }

    fn part(&mut self, tree: &'e IdedExpr, depth: usize) -> Result<Part, BadExpression> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(BadExpression::TooLarge);
        }
        if depth > MAX_CHAIN {
            return Err(BadExpression::TooDeep);
        }
        match &tree.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                let of = Box::new(self.part(&select.operand, depth + 1)?);
                let member = select.field.as_str().into();
                Ok(if select.test { Part::Has(of, member) } else { Part::Member(of, member) })
            }
            Expr::Call(call) => self.call(call, depth + 1),
            Expr::List(list) if list.optional_indices.is_empty() => {
                let parts = list.elements.iter().map(|element| self.part(element, depth + 1));
                Ok(Part::List(parts.collect::<Result<_, _>>()?))
            }
            Expr::List(_) => Err(unsupported("an optional element", "leave out the `?`")),
            Expr::Comprehension(each) => self.each(each, depth + 1),
            Expr::Map(_) => Err(unsupported("a map", "compare its members one by one")),
            Expr::Struct(_) => Err(unsupported("a message", "compare its members one by one")),
            Expr::Unspecified => {
                Err(BadExpression::Syntax { line: 1, column: 1, problem: "a part is missing".to_owned() })
            }
        }
    }

    fn name(&mut self, name: &str) -> Result<Part, BadExpression> {
        if let Some(at) = self.bound.iter().rposition(|bound| *bound == name) {
            return Ok(Part::Bound(at));
        }
        let Some(variable) = Variable::ALL.into_iter().find(|variable| variable.as_str() == name) else {
            let known = Variable::ALL.map(Variable::as_str).join(", ");
            return Err(BadExpression::UnknownVariable { name: name.to_owned(), known });
        };
        self.uses[variable as usize] = true;
        Ok(Part::Variable(variable))
    }

    fn call(&mut self, call: &'e CallExpr, depth: usize) -> Result<Part, BadExpression> {
        let name = call.func_name.as_str();
        let order = match name {
            operators::LESS => Some(Order::Less),
            operators::LESS_EQUALS => Some(Order::LessOrEqual),
            operators::GREATER => Some(Order::Greater),
            operators::GREATER_EQUALS => Some(Order::GreaterOrEqual),
            _ => None,
        };
        let arithmetic = match name {
            operators::ADD => Some(Arithmetic::Add),
            operators::SUBSTRACT => Some(Arithmetic::Subtract),
            operators::MULTIPLY => Some(Arithmetic::Multiply),
            operators::DIVIDE => Some(Arithmetic::Divide),
            operators::MODULO => Some(Arithmetic::Modulo),
            _ => None,
        };
        match (name, call.target.as_deref(), call.args.as_slice()) {
            (operators::LOGICAL_AND, None, [left, right]) => {
                Ok(Part::And(Box::new([self.condition(left, depth)?, self.condition(right, depth)?])))
            }
            (operators::LOGICAL_OR, None, [left, right]) => {
                Ok(Part::Or(Box::new([self.condition(left, depth)?, self.condition(right, depth)?])))
            }
            (operators::LOGICAL_NOT, None, [of]) => Ok(Part::Not(Box::new(self.condition(of, depth)?))),
            (operators::NEGATE, None, [of]) => Ok(Part::Negate(Box::new(self.part(of, depth)?))),
            (operators::CONDITIONAL, None, [condition, yes, no]) => Ok(Part::Conditional(Box::new([
                self.condition(condition, depth)?,
                self.part(yes, depth)?,
                self.part(no, depth)?,
            ]))),
            (operators::EQUALS, None, [left, right]) => Ok(Part::Equal(self.two(left, right, depth)?)),
            (operators::NOT_EQUALS, None, [left, right]) => Ok(Part::Unequal(self.two(left, right, depth)?)),
            (operators::IN, None, [left, right]) => Ok(Part::In(self.two(left, right, depth)?)),
            (operators::INDEX, None, [of, at]) => Ok(Part::Index(self.two(of, at, depth)?)),
            ("size", None, [of]) | ("size", Some(of), []) => Ok(Part::Size(Box::new(self.part(of, depth)?))),
            ("contains", Some(of), [other]) => {
                Ok(Part::Text(TextTest::Contains, self.two(of, other, depth)?))
            }
            ("startsWith", Some(of), [other]) => {
                Ok(Part::Text(TextTest::StartsWith, self.two(of, other, depth)?))
            }
            ("endsWith", Some(of), [other]) => {
                Ok(Part::Text(TextTest::EndsWith, self.two(of, other, depth)?))
            }
            ("string", None, [of]) => Ok(Part::Convert(Conversion::Text, Box::new(self.part(of, depth)?))),
            ("int", None, [of]) => Ok(Part::Convert(Conversion::Int, Box::new(self.part(of, depth)?))),
            ("double", None, [of]) => Ok(Part::Convert(Conversion::Double, Box::new(self.part(of, depth)?))),
            (_, None, [left, right]) if order.is_some() || arithmetic.is_some() => {
                let two = self.two(left, right, depth)?;
                match (order, arithmetic) {
                    (Some(order), _) => Ok(Part::Order(order, two)),
                    (None, Some(arithmetic)) => Ok(Part::Arithmetic(arithmetic, two)),
                    (None, None) => Err(BadExpression::TooLarge),
                }
            }
            ("matches", ..) => Err(unsupported("matches", "use contains, startsWith or endsWith")),
            _ => {
                let arguments = call.args.len() + usize::from(call.target.is_some());
                Err(BadExpression::UnknownFunction { name: name.to_owned(), arguments })
            }
        }
    }

    fn two(
        &mut self,
        left: &'e IdedExpr,
        right: &'e IdedExpr,
        depth: usize,
    ) -> Result<Box<[Part; 2]>, BadExpression> {
        Ok(Box::new([self.part(left, depth)?, self.part(right, depth)?]))
    }

    /// What the parser makes of `exists` and `all`: a loop that begins with false and ors, or begins with true and ands.
    fn each(&mut self, each: &'e ComprehensionExpr, depth: usize) -> Result<Part, BadExpression> {
        let (quantifier, of_each) = match (&each.accu_init.expr, &each.loop_step.expr) {
            (Expr::Literal(LiteralValue::Boolean(_)), Expr::Call(step)) => {
                match (step.func_name.as_str(), step.args.as_slice()) {
                    (operators::LOGICAL_OR, [_, of_each]) => (Quantifier::Exists, of_each),
                    (operators::LOGICAL_AND, [_, of_each]) => (Quantifier::All, of_each),
                    _ => return Err(unsupported("this loop", "use exists or all")),
                }
            }
            (Expr::Literal(_), _) => return Err(unsupported("exists_one", "use exists")),
            _ => return Err(unsupported("map and filter", "use exists or all")),
        };
        let range = self.part(&each.iter_range, depth)?;
        self.bound.push(&each.iter_var);
        let of_each = self.condition(of_each, depth);
        self.bound.pop();
        Ok(Part::Each(quantifier, Box::new([range, of_each?])))
    }
}

fn unsupported(what: &'static str, instead: &'static str) -> BadExpression {
    BadExpression::Unsupported { what, instead }
}

fn constant(literal: &LiteralValue) -> Result<Part, BadExpression> {
    Ok(Part::Constant(match literal {
        LiteralValue::Null => Constant::Null,
        LiteralValue::Boolean(value) => Constant::Bool(*value.inner()),
        LiteralValue::Int(value) => Constant::Int(*value.inner()),
        LiteralValue::UInt(value) => Constant::Uint(*value.inner()),
        LiteralValue::Double(value) => Constant::Double(*value.inner()),
        LiteralValue::String(value) => Constant::Text(value.inner().into()),
        LiteralValue::Bytes(_) => return Err(unsupported("a text of bytes", "leave out the `b`")),
    }))
}

/// What a part is worth: borrowed from the event and the expression.
#[derive(Clone, Debug)]
enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Array(&'a [Node]),
    Object(&'a Members),
    List(Rc<[Value<'a>]>),
}

impl<'a> Value<'a> {
    fn of(node: &'a Node) -> Self {
        match node {
            Node::Null => Self::Null,
            Node::Bool(value) => Self::Bool(*value),
            Node::Int(value) => Self::Int(*value),
            Node::Uint(value) => Self::Uint(*value),
            Node::Double(value) => Self::Double(*value),
            Node::Text(text) => Self::Text(Cow::Borrowed(text)),
            Node::List(elements) => Self::Array(elements),
            Node::Map(members) => Self::Object(members),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Uint(_) | Self::Double(_) => "a number",
            Self::Text(_) => "a text",
            Self::Array(_) | Self::List(_) => "a list",
            Self::Object(_) => "a map",
        }
    }

    fn length(&self) -> Option<usize> {
        match self {
            Self::Array(elements) => Some(elements.len()),
            Self::List(elements) => Some(elements.len()),
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Object(_) => None,
        }
    }

    fn element(&self, at: usize) -> Option<Value<'a>> {
        match self {
            Self::Array(elements) => elements.get(at).map(Self::of),
            Self::List(elements) => elements.get(at).cloned(),
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Object(_) => None,
        }
    }
}

/// Bytes of text that are compared in the time of one step.
const COMPARED_PER_STEP: usize = 64;

/// Bytes of text that are searched in the time of one step.
const SEARCHED_PER_STEP: usize = 8;

/// What it takes to write a number, or to read one.
const STEPS_OF_CONVERSION: usize = 15;

/// The longest text that is read as a number, bytes.
const MAX_NUMBER_BYTES: usize = 64;

/// One judgement.
struct Judging<'a> {
    scope: &'a Scope,
    /// How many steps are left.
    steps: u32,
    /// The elements of enclosing `exists` and `all`, outermost first.
    bound: Vec<Value<'a>>,
}

impl<'a> Judging<'a> {
    fn pay(&mut self, steps: usize) -> Result<(), Unmet> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let left = self.steps.checked_sub(steps);
        self.steps = left.unwrap_or(0);
        left.map(|_| ()).ok_or(Unmet::TooManySteps)
    }

    fn value(&mut self, part: &'a Part) -> Result<Value<'a>, Unmet> {
        self.pay(1)?;
        match part {
            Part::Constant(constant) => Ok(match constant {
                Constant::Null => Value::Null,
                Constant::Bool(value) => Value::Bool(*value),
                Constant::Int(value) => Value::Int(*value),
                Constant::Uint(value) => Value::Uint(*value),
                Constant::Double(value) => Value::Double(*value),
                Constant::Text(text) => Value::Text(Cow::Borrowed(text)),
            }),
            Part::Variable(variable) => self.scope.get(*variable).map(Value::of),
            Part::Bound(at) => self.bound.get(*at).cloned().ok_or(Unmet::NoElement),
            Part::Member(of, name) => match self.value(of)? {
                Value::Object(members) => {
                    let member = self.look_up(members, name)?;
                    member.map(Value::of).ok_or_else(|| Unmet::Absent(name.clone()))
                }
                other => Err(Unmet::WrongType { what: "a member", to: other.kind() }),
            },
            Part::Has(of, name) => match self.value(of)? {
                Value::Object(members) => Ok(Value::Bool(self.look_up(members, name)?.is_some())),
                other => Err(Unmet::WrongType { what: "has", to: other.kind() }),
            },
            Part::Index(parts) => {
                let (of, at) = self.both(parts)?;
                self.index(&of, &at)
            }
            Part::List(parts) => {
                self.pay(2)?;
                let values: Result<Rc<[Value<'a>]>, Unmet> =
                    parts.iter().map(|part| self.value(part)).collect();
                values.map(Value::List)
            }
            Part::Not(of) => Ok(Value::Bool(!self.truth("!", of)?)),
            Part::Negate(of) => match self.value(of)? {
                Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(Unmet::Overflow),
                Value::Double(value) => Ok(Value::Double(-value)),
                other => Err(Unmet::WrongType { what: "-", to: other.kind() }),
            },
            Part::And(parts) => self.either(Quantifier::All, parts).map(Value::Bool),
            Part::Or(parts) => self.either(Quantifier::Exists, parts).map(Value::Bool),
            Part::Conditional(parts) => {
                let chosen = if self.truth("?", &parts[0])? { &parts[1] } else { &parts[2] };
                self.value(chosen)
            }
            Part::Equal(parts) => {
                let (left, right) = self.both(parts)?;
                self.equal(&left, &right).map(Value::Bool)
            }
            Part::Unequal(parts) => {
                let (left, right) = self.both(parts)?;
                self.equal(&left, &right).map(|equal| Value::Bool(!equal))
            }
            Part::Order(order, parts) => {
                let (left, right) = self.both(parts)?;
                let found = self.order(&left, &right)?;
                Ok(Value::Bool(match order {
                    Order::Less => found.is_lt(),
                    Order::LessOrEqual => found.is_le(),
                    Order::Greater => found.is_gt(),
                    Order::GreaterOrEqual => found.is_ge(),
                }))
            }
            Part::In(parts) => {
                let (wanted, within) = self.both(parts)?;
                self.within(&wanted, &within).map(Value::Bool)
            }
            Part::Arithmetic(operator, parts) => {
                let (left, right) = self.both(parts)?;
                arithmetic(*operator, &left, &right)
            }
            Part::Size(of) => {
                let of = self.value(of)?;
                let size = match &of {
                    Value::Text(text) => {
                        self.pay(text.len() / COMPARED_PER_STEP)?;
                        text.chars().count()
                    }
                    Value::Object(members) => members.0.len(),
                    other => other.length().ok_or(Unmet::WrongType { what: "size", to: other.kind() })?,
                };
                i64::try_from(size).map(Value::Int).map_err(|_| Unmet::Overflow)
            }
            Part::Text(test, parts) => {
                let (of, other) = self.both(parts)?;
                self.text_test(*test, &of, &other).map(Value::Bool)
            }
            Part::Convert(conversion, of) => {
                let of = self.value(of)?;
                if !matches!(of, Value::Text(_)) || !matches!(conversion, Conversion::Text) {
                    self.pay(STEPS_OF_CONVERSION)?;
                }
                convert(*conversion, of)
            }
            Part::Each(quantifier, parts) => {
                let range = self.value(&parts[0])?;
                self.each(*quantifier, range, &parts[1]).map(Value::Bool)
            }
        }
    }

    fn both(&mut self, parts: &'a [Part; 2]) -> Result<(Value<'a>, Value<'a>), Unmet> {
        let left = self.value(&parts[0])?;
        Ok((left, self.value(&parts[1])?))
    }

    fn truth(&mut self, what: &'static str, part: &'a Part) -> Result<bool, Unmet> {
        match self.value(part)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(Unmet::WrongType { what, to: other.kind() }),
        }
    }

    /// `&&` and `||`: what decides wins over an error on the other side, as CEL has it.
    fn either(&mut self, quantifier: Quantifier, parts: &'a [Part; 2]) -> Result<bool, Unmet> {
        let (what, decisive) = match quantifier {
            Quantifier::Exists => ("||", true),
            Quantifier::All => ("&&", false),
        };
        let left = self.truth(what, &parts[0]);
        match left {
            Ok(left) if left == decisive => return Ok(decisive),
            Err(unmet) if unmet.is_final() => return Err(unmet),
            Ok(_) | Err(_) => {}
        }
        let right = self.truth(what, &parts[1])?;
        if right == decisive { Ok(decisive) } else { left }
    }

    fn each(&mut self, quantifier: Quantifier, range: Value<'a>, of_each: &'a Part) -> Result<bool, Unmet> {
        let what = match quantifier {
            Quantifier::Exists => "exists",
            Quantifier::All => "all",
        };
        let wrong = Unmet::WrongType { what, to: range.kind() };
        match range {
            Value::Object(members) => {
                let names = members.0.iter().map(|(name, _)| Value::Text(Cow::Borrowed(name)));
                self.each_of(quantifier, members.0.len(), names, of_each)
            }
            Value::Array(elements) => {
                self.each_of(quantifier, elements.len(), elements.iter().map(Value::of), of_each)
            }
            Value::List(elements) => {
                self.each_of(quantifier, elements.len(), elements.iter().cloned(), of_each)
            }
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::Text(_) => Err(wrong),
        }
    }

    fn each_of(
        &mut self,
        quantifier: Quantifier,
        length: usize,
        elements: impl Iterator<Item = Value<'a>>,
        of_each: &'a Part,
    ) -> Result<bool, Unmet> {
        if length > MAX_ELEMENTS {
            return Err(Unmet::TooManyElements);
        }
        let decisive = quantifier == Quantifier::Exists;
        let mut result = Ok(!decisive);
        for element in elements {
            self.bound.push(element);
            let found = self.truth("exists or all", of_each);
            self.bound.pop();
            match found {
                Ok(found) if found == decisive => return Ok(decisive),
                Ok(_) => {}
                Err(unmet) if unmet.is_final() => return Err(unmet),
                Err(unmet) => result = Err(unmet),
            }
        }
        result
    }

    fn look_up<'m>(&mut self, members: &'m Members, name: &str) -> Result<Option<&'m Node>, Unmet> {
        // A search among sorted names: a comparison for each halving.
        let halvings = members.0.len().checked_ilog2().unwrap_or(0) as usize;
        self.pay(halvings * (1 + name.len() / COMPARED_PER_STEP))?;
        Ok(members.get(name))
    }

    fn index(&mut self, of: &Value<'a>, at: &Value<'a>) -> Result<Value<'a>, Unmet> {
        match (of, at) {
            (Value::Object(members), Value::Text(name)) => {
                self.look_up(members, name)?.map(Value::of).ok_or(Unmet::NoElement)
            }
            (Value::Array(_) | Value::List(_), Value::Int(at)) => {
                usize::try_from(*at).ok().and_then(|at| of.element(at)).ok_or(Unmet::NoElement)
            }
            (Value::Array(_) | Value::List(_), Value::Uint(at)) => {
                usize::try_from(*at).ok().and_then(|at| of.element(at)).ok_or(Unmet::NoElement)
            }
            (Value::Array(_) | Value::List(_), Value::Double(at)) if at.fract() == 0.0 && *at >= 0.0 => {
                // Too large a number becomes the largest index, where nothing is.
                of.element(*at as usize).ok_or(Unmet::NoElement)
            }
            (Value::Object(_) | Value::Array(_) | Value::List(_), at) => {
                Err(Unmet::WrongType { what: "an index", to: at.kind() })
            }
            (of, _) => Err(Unmet::WrongType { what: "[]", to: of.kind() }),
        }
    }

    fn equal(&mut self, left: &Value<'_>, right: &Value<'_>) -> Result<bool, Unmet> {
        self.pay(1)?;
        match (left, right) {
            (Value::Null, Value::Null) => Ok(true),
            (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
            (Value::Text(left), Value::Text(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                self.pay(left.len() / COMPARED_PER_STEP)?;
                Ok(left == right)
            }
            (Value::Object(left), Value::Object(right)) => {
                if left.0.len() != right.0.len() {
                    return Ok(false);
                }
                for ((name, left), (other, right)) in left.0.iter().zip(&right.0) {
                    self.pay(name.len() / COMPARED_PER_STEP)?;
                    if name != other || !self.equal(&Value::of(left), &Value::of(right))? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => {
                if let (Some(length), Some(other)) = (left.length(), right.length()) {
                    if length != other {
                        return Ok(false);
                    }
                    for at in 0..length {
                        if let (Some(left), Some(right)) = (left.element(at), right.element(at))
                            && !self.equal(&left, &right)?
                        {
                            return Ok(false);
                        }
                    }
                    return Ok(true);
                }
                Ok(numbers(left, right).is_some_and(|order| order.is_some_and(Ordering::is_eq)))
            }
        }
    }

    fn order(&mut self, left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, Unmet> {
        match (left, right) {
            (Value::Text(left), Value::Text(right)) => {
                self.pay(left.len().min(right.len()) / COMPARED_PER_STEP)?;
                Ok(left.cmp(right))
            }
            (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(right)),
            _ => match numbers(left, right) {
                Some(Some(order)) => Ok(order),
                Some(None) => Err(Unmet::WrongType { what: "an order", to: "what is not a number" }),
                None => Err(Unmet::Unordered { left: left.kind(), right: right.kind() }),
            },
        }
    }

    fn within(&mut self, wanted: &Value<'a>, within: &Value<'a>) -> Result<bool, Unmet> {
        match (wanted, within) {
            (Value::Text(name), Value::Object(members)) => Ok(self.look_up(members, name)?.is_some()),
            // JSON's maps have no such keys.
            (Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Object(_)) => {
                Ok(false)
            }
            (wanted, Value::Array(elements)) => {
                for element in *elements {
                    if self.equal(&Value::of(element), wanted)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (wanted, Value::List(elements)) => {
                for element in elements.iter() {
                    if self.equal(element, wanted)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            (_, within) => Err(Unmet::WrongType { what: "in", to: within.kind() }),
        }
    }

    fn text_test(&mut self, test: TextTest, of: &Value<'_>, other: &Value<'_>) -> Result<bool, Unmet> {
        let what = match test {
            TextTest::Contains => "contains",
            TextTest::StartsWith => "startsWith",
            TextTest::EndsWith => "endsWith",
        };
        let (Value::Text(of), Value::Text(other)) = (of, other) else {
            let to = if matches!(of, Value::Text(_)) { other.kind() } else { of.kind() };
            return Err(Unmet::WrongType { what, to });
        };
        if other.len() > of.len() {
            return Ok(false);
        }
        match test {
            TextTest::Contains => {
                self.pay((of.len() + other.len()) / SEARCHED_PER_STEP)?;
                Ok(of.contains(other.as_ref()))
            }
            TextTest::StartsWith => {
                self.pay(other.len() / COMPARED_PER_STEP)?;
                Ok(of.starts_with(other.as_ref()))
            }
            TextTest::EndsWith => {
                self.pay(other.len() / COMPARED_PER_STEP)?;
                Ok(of.ends_with(other.as_ref()))
            }
        }
    }
}

/// How two numbers compare: nothing if one of them is none, and nothing within if there is no order, as with NaN.
fn numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Option<Ordering>> {
    #[derive(Clone, Copy)]
    enum Number {
        Whole(i128),
        Double(f64),
    }
    let number = |value: &Value<'_>| match value {
        Value::Int(value) => Some(Number::Whole(i128::from(*value))),
        Value::Uint(value) => Some(Number::Whole(i128::from(*value))),
        Value::Double(value) => Some(Number::Double(*value)),
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::Array(_)
        | Value::Object(_)
        | Value::List(_) => None,
    };
    Some(match (number(left)?, number(right)?) {
        (Number::Whole(left), Number::Whole(right)) => Some(left.cmp(&right)),
        (Number::Whole(left), Number::Double(right)) => (left as f64).partial_cmp(&right),
        (Number::Double(left), Number::Whole(right)) => left.partial_cmp(&(right as f64)),
        (Number::Double(left), Number::Double(right)) => left.partial_cmp(&right),
    })
}

fn arithmetic<'a>(operator: Arithmetic, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Unmet> {
    let what = match operator {
        Arithmetic::Add => "+",
        Arithmetic::Subtract => "-",
        Arithmetic::Multiply => "*",
        Arithmetic::Divide => "/",
        Arithmetic::Modulo => "%",
    };
    let by_zero = matches!(right, Value::Int(0) | Value::Uint(0))
        && matches!(operator, Arithmetic::Divide | Arithmetic::Modulo);
    let wrong = |value: &Value<'_>| Unmet::WrongType { what, to: value.kind() };
    match (left, right) {
        (Value::Int(_), Value::Int(_)) | (Value::Uint(_), Value::Uint(_)) if by_zero => {
            Err(Unmet::DivisionByZero)
        }
        (Value::Int(left), Value::Int(right)) => match operator {
            Arithmetic::Add => left.checked_add(*right),
            Arithmetic::Subtract => left.checked_sub(*right),
            Arithmetic::Multiply => left.checked_mul(*right),
            Arithmetic::Divide => left.checked_div(*right),
            Arithmetic::Modulo => left.checked_rem(*right),
        }
        .map(Value::Int)
        .ok_or(Unmet::Overflow),
        (Value::Uint(left), Value::Uint(right)) => match operator {
            Arithmetic::Add => left.checked_add(*right),
            Arithmetic::Subtract => left.checked_sub(*right),
            Arithmetic::Multiply => left.checked_mul(*right),
            Arithmetic::Divide => left.checked_div(*right),
            Arithmetic::Modulo => left.checked_rem(*right),
        }
        .map(Value::Uint)
        .ok_or(Unmet::Overflow),
        (Value::Double(left), Value::Double(right)) => Ok(Value::Double(match operator {
            Arithmetic::Add => left + right,
            Arithmetic::Subtract => left - right,
            Arithmetic::Multiply => left * right,
            Arithmetic::Divide => left / right,
            Arithmetic::Modulo => return Err(wrong(&Value::Double(*left))),
        })),
        (
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
            Value::Int(_) | Value::Uint(_) | Value::Double(_),
        ) => Err(Unmet::WrongType {
            what,
            to: "a whole number and another kind of number; use double() or int()",
        }),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), right) => Err(wrong(right)),
        (left, _) => Err(wrong(left)),
    }
}

fn convert(conversion: Conversion, of: Value<'_>) -> Result<Value<'_>, Unmet> {
    let name = match conversion {
        Conversion::Text => "string",
        Conversion::Int => "int",
        Conversion::Double => "double",
    };
    let unconvertible = Unmet::Unconvertible(name);
    let number =
        |text: &str| if text.len() <= MAX_NUMBER_BYTES { Ok(()) } else { Err(Unmet::Unconvertible(name)) };
    match (conversion, of) {
        (Conversion::Text, Value::Text(text)) => Ok(Value::Text(text)),
        (Conversion::Text, Value::Int(value)) => Ok(Value::Text(Cow::Owned(value.to_string()))),
        (Conversion::Text, Value::Uint(value)) => Ok(Value::Text(Cow::Owned(value.to_string()))),
        (Conversion::Text, Value::Double(value)) => Ok(Value::Text(Cow::Owned(value.to_string()))),
        (Conversion::Text, Value::Bool(value)) => {
            Ok(Value::Text(Cow::Borrowed(if value { "true" } else { "false" })))
        }
        (Conversion::Int, Value::Int(value)) => Ok(Value::Int(value)),
        (Conversion::Int, Value::Uint(value)) => {
            i64::try_from(value).map(Value::Int).map_err(|_| Unmet::Overflow)
        }
        // Doubles above 2^63 - 1 begin at 2^63.
        (Conversion::Int, Value::Double(value)) => {
            let in_range = value > i64::MIN as f64 && value < i64::MAX as f64;
            if in_range { Ok(Value::Int(value as i64)) } else { Err(Unmet::Overflow) }
        }
        (Conversion::Int, Value::Text(text)) => {
            number(&text)?;
            text.parse().map(Value::Int).map_err(|_| unconvertible)
        }
        (Conversion::Double, Value::Double(value)) => Ok(Value::Double(value)),
        (Conversion::Double, Value::Int(value)) => Ok(Value::Double(value as f64)),
        (Conversion::Double, Value::Uint(value)) => Ok(Value::Double(value as f64)),
        (Conversion::Double, Value::Text(text)) => {
            number(&text)?;
            text.parse().map(Value::Double).map_err(|_| unconvertible)
        }
        (_, other) => Err(Unmet::WrongType { what: name, to: other.kind() }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::event::EventType;
    use crate::id::{EventId, TenantId};
    use crate::time::Timestamp;

    const DATA: &str = r#"{
        "name": "Ada Lovelace", "amount": 120, "rate": 2.5, "paid": true, "nothing": null, "big": 18446744073709551615,
        "list": [1, 2, 3], "mixed": [1, "x", null, {"a": 1}], "empty": [], "a b": 7,
        "items": [{"sku": "A-1", "tags": ["x", "y"]}, {"sku": "B-2", "tags": []}], "nested": {"a": {"b": "c"}}
    }"#;

    fn event(data: &str) -> Event {
        Event {
            tenant: TenantId::default_tenant(),
            id: EventId::from_trusted("evt_1"),
            event_type: EventType::parse("USER_LOGIN").unwrap(),
            event_time: "2026-11-21T20:00:00Z".into(),
            current_context: Arc::from(RawValue::from_string(r#"{"ip":"10.0.0.1"}"#.to_owned()).unwrap()),
            data: Arc::from(RawValue::from_string(data.to_owned()).unwrap()),
            key: None,
            correlation_id: None,
            traceparent: None,
            accepted_at: Timestamp::default(),
        }
    }

    fn judge(source: &str, data: &str) -> Result<bool, Unmet> {
        let expression = Expression::over_events(source).unwrap_or_else(|e| panic!("{source}: {e}"));
        expression.holds(&Scope::of_event(&event(data)).unwrap())
    }

    #[test]
    fn conditions_that_people_write() {
        for holds in [
            r#"event_type == 'USER_LOGIN' && tenant == "default""#,
            "key == null",
            "id.startsWith('evt_') && event_time.endsWith('Z') && data.name.contains('Love')",
            "current_context.ip in ['10.0.0.1', '10.0.0.2']",
            "data.amount > 100 && data.amount >= 120.0 && data.rate < 3 && 2.5 == data.rate",
            "data.amount * 2 - 40 == 200 && data.amount / 7 == 17 && data.amount % 7 == 1",
            "data.big > 9223372036854775807",
            "data.paid && !has(data.refunded) && has(data.nothing) && data.nothing == null",
            "!has(data.x) || data.x > 1",
            "data['a b'] == 7 && 'a b' in data && data.list[1] == 2 && 3 in data.list",
            "size(data.list) == 3 && data.name.size() == 12 && size(data.nested) == 1",
            "data.items.exists(item, item.sku == 'B-2') && !data.items.all(item, size(item.tags) > 0)",
            "data.items.exists(item, item.tags.exists(tag, tag == 'y' && item.sku == 'A-1'))",
            "data.empty.all(x, x > 'a') && !data.empty.exists(x, x > 'a')",
            "data.exists(member, member.startsWith('rat'))",
            "data.mixed.exists(x, x > 0) && data.list == [1, 2.0, 3] && data.nested == data.nested",
            "data.amount > 1000 ? false : data.paid",
            "int('12') + int(2.9) == 14 && double('0.5') == 0.5 && string(data.amount) == '120'",
            "-data.amount < 0 // a comment",
            "true || data.absent.x",
            "data.absent.x || true",
        ] {
            assert_eq!(judge(holds, DATA), Ok(true), "{holds}");
        }
    }

    #[test]
    fn the_examples_of_the_docs_hold() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/filters.md");
        let docs = std::fs::read_to_string(docs).unwrap();
        let examples: Vec<&str> =
            docs.split("```cel\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
        assert_eq!(examples.len(), 5);
        let data = r#"{"currency":"EUR","amount":1000.5,"country":"AT","order total":1,"shop_id":"42",
            "items":[{"sku":"CD-1","quantity":9},{"sku":"BOOK-1","quantity":2}]}"#;
        let mut event = event(data);
        event.key = Some("member-4711".into());
        let scope = Scope::of_event(&event).unwrap();
        for example in examples {
            assert_eq!(Expression::over_events(example).unwrap().holds(&scope), Ok(true), "{example}");
        }
    }

    #[test]
    fn what_cannot_be_said_is_unmet() {
        let unmet = |source: &str| judge(source, DATA).expect_err(source).to_string();
        assert_eq!(unmet("data.absent == 1"), "there is no `absent`; ask with has() first");
        assert_eq!(unmet("has(data.absent.x)"), "there is no `absent`; ask with has() first");
        assert_eq!(unmet("data.list[3] == 1"), "there is no such element; ask with size() or `in` first");
        assert_eq!(unmet("data['x'] == 1 || data.list[-1] == 1"), unmet("data.list[3] == 1"));
        assert_eq!(unmet("data.name > 3"), "an order cannot be applied to a text and a number");
        assert_eq!(unmet("data.name + 'x' == 'y'"), "+ cannot be applied to a text");
        assert_eq!(unmet("data.list + data.list == []"), "+ cannot be applied to a list");
        assert_eq!(
            unmet("data.amount * 1.5 > 1.0"),
            "* cannot be applied to a whole number and another kind of number; use double() or int()"
        );
        assert_eq!(unmet("9223372036854775807 + data.amount > 0"), "a number is too large");
        assert_eq!(unmet("(-9223372036854775807 - 1) / -1 > 0 && data.paid"), "a number is too large");
        assert_eq!(unmet("data.amount / 0 == 1"), "a division by zero");
        assert_eq!(unmet("data.amount % 0 == 1"), "a division by zero");
        assert_eq!(unmet("int(data.name) == 1"), "int() cannot read this value");
        assert_eq!(unmet("data.name"), "the expression is a text, neither true nor false");
        assert_eq!(unmet("data.name && true"), "&& cannot be applied to a text");
        assert_eq!(unmet("data.items.all(i, i.tags[0] == 'x')"), unmet("data.list[3] == 1"));
        assert_eq!(unmet("data.name.exists(c, c == 'A')"), "exists cannot be applied to a text");
        assert_eq!(
            judge("data.paid", r#"{"paid": 1e999}"#).unwrap_err().to_string(),
            "`data` cannot be read as JSON: it has a number out of range or a text that is no Unicode"
        );
        assert_eq!(judge("data == 'x'", r#""\ud800""#), Err(Unmet::Unreadable("data")));
        let expression = Expression::parse("subject == 1 || action == 'x'").unwrap();
        let scope = Scope::of_event(&event("1")).unwrap();
        assert_eq!(expression.holds(&scope), Err(Unmet::NoVariable("action")));
    }

    #[test]
    fn a_bad_expression_is_refused_with_a_reason() {
        let refused = |source: &str| Expression::over_events(source).expect_err(source).to_string();
        for (source, why) in [
            (" ", "the expression is empty; leave it out where everything should match"),
            (
                "data.amount = 1",
                "the expression is not CEL: line 1, column 13: mismatched input '=' expecting <EOF>; texts stand in quotes, \
                 `==` compares, `&&` and `||` combine",
            ),
            (
                "amount > 1",
                "there is no variable `amount`; there are event_type, event_time, action, time, id, key, tenant, data, \
                 current_context, subject; texts stand in quotes",
            ),
            (
                "subject.x > 1",
                "there is no variable `subject`; there are event_type, event_time, id, key, tenant, data, \
                 current_context; texts stand in quotes",
            ),
            (
                "now() > 1",
                "there is no function `now` with 0 arguments; there are has, exists, all, size, contains, startsWith, \
                 endsWith, string, int and double",
            ),
            ("data.name.matches('a+')", "matches cannot be used here; use contains, startsWith or endsWith"),
            ("data.list.map(x, x)", "map and filter cannot be used here; use exists or all"),
            ("data.list.exists_one(x, x == 1)", "exists_one cannot be used here; use exists"),
            ("data == {'a': 1}", "a map cannot be used here; compare its members one by one"),
            ("data == b'a'", "a text of bytes cannot be used here; leave out the `b`"),
            ("'yes'", "a text is never true or false; compare it with something"),
            ("data.amount + 1", "a number is never true or false; compare it with something"),
            ("data.paid && event_type", "a text is never true or false; compare it with something"),
            ("data.paid ? 1 : 2", "a number is never true or false; compare it with something"),
            ("data.list.exists(x, size(x))", "a number is never true or false; compare it with something"),
        ] {
            assert_eq!(refused(source), why, "{source}");
        }
        assert_eq!(
            Expression::over_actions("subject == 1", false).unwrap_err(),
            BadExpression::UnknownVariable {
                name: "subject".into(),
                known: ACTION_VARIABLES[..7].join(", ")
            }
        );
        assert!(Expression::over_actions("subject == 1 && action == 'x'", true).is_ok());
        let used = Expression::parse("data.x == key && data.list.exists(id, id == tenant)").unwrap();
        assert_eq!(used.variables().collect::<Vec<_>>(), ["key", "tenant", "data"]);
    }

    /// Sources made to overflow a stack or to keep a parser busy.
    fn hostile() -> impl Iterator<Item = String> {
        let openings = [
            "(",
            "[",
            "{",
            "{1:",
            "size(",
            "data[",
            "!",
            "-",
            "!-",
            "data ? true : ",
            "data ? ",
            "data.",
            ".",
            "a{",
            "data + ",
            "data && ",
            "data || data && ",
            "data < ",
            "data in ",
            "1,",
            "\"",
            "'''",
            "`",
            "[?",
            "a.?b",
            "\\",
            "é",
            "data.list.all(x, ",
            "data.exists(x,(",
            "([{",
            ")(",
            "0x",
            "1e",
            "r\"",
            "b'",
            "\u{0}",
            "a=b ",
            "//",
        ];
        openings.into_iter().flat_map(|opening| {
            [5, 20, 24, 25, 60, 100, 200, 1024].into_iter().flat_map(move |times| {
                let closing: String = opening
                    .chars()
                    .rev()
                    .filter_map(|c| match c {
                        '(' => Some(')'),
                        '[' => Some(']'),
                        '{' => Some('}'),
                        _ => None,
                    })
                    .collect();
                let whole = format!("{}data{}", opening.repeat(times), closing.repeat(times));
                [opening.repeat(times), whole].map(|source| {
                    let end = source.floor_char_boundary(MAX_SOURCE_BYTES);
                    source[..end].to_owned()
                })
            })
        })
    }

    #[test]
    fn hostile_sources_need_little_stack() {
        // Threads of the program have 2 MiB and more.
        let small = std::thread::Builder::new().stack_size(512 * 1024).spawn(|| {
            let scope = Scope::of_event(&event(DATA)).unwrap();
            for source in hostile() {
                if let Ok(expression) = Expression::parse(&source) {
                    let _unmet_or_not = expression.holds(&scope);
                }
            }
        });
        small.unwrap().join().unwrap();
    }

    #[test]
    fn bounds_on_sources() {
        let refused = |source: &str| Expression::parse(source).unwrap_err();
        assert_eq!(refused(&" 1".repeat(513)), BadExpression::TooLong { bytes: 1026 });
        assert_eq!(
            refused(&format!("{}data{} == 1", "size(".repeat(30), ")".repeat(30))),
            BadExpression::TooDeep
        );
        assert_eq!(refused(&format!("data{} == 1", ".a".repeat(70))), BadExpression::TooDeep);
        assert_eq!(refused(&format!("{}data", "data&&".repeat(150))), BadExpression::TooLarge);
        assert!(Expression::parse(&format!("{}data", "data&&".repeat(99))).is_ok());
        assert!(Expression::parse(&format!("{}data{} == 1", "size(".repeat(20), ")".repeat(20))).is_ok());
    }

    #[test]
    fn bounds_on_data() {
        let list = |length: usize| format!(r#"{{"list":{:?}}}"#, vec![7; length]);
        assert_eq!(judge("data.list.exists(x, x == 8)", &list(MAX_ELEMENTS)), Ok(false));
        assert_eq!(
            judge("data.list.exists(x, x == 8)", &list(MAX_ELEMENTS + 1)),
            Err(Unmet::TooManyElements)
        );
        assert_eq!(judge("data.list.exists(x, x == 8) || true", &list(1001)), Err(Unmet::TooManyElements));
        assert_eq!(judge("true || data.list.exists(x, x == 8)", &list(1001)), Ok(true));
        let nested = "data.list.all(x, data.list.all(y, x == y))";
        assert_eq!(judge(nested, &list(100)), Ok(true));
        for (source, data) in [
            (nested, list(1000)),
            ("data.list.all(x, x in data.list && !(8 in data.list))", list(1000)),
            ("data.list.all(x, !(8 in data.list)) || true", list(1000)),
        ] {
            assert_eq!(judge(source, &data), Err(Unmet::TooManySteps), "{source}");
        }
        let text = format!(r#"{{"list":{:?},"text":"{}"}}"#, vec![7; 1000], "ab".repeat(60_000));
        assert_eq!(judge("data.text.contains('aa')", &text), Ok(false));
        for source in [
            "data.list.exists(x, data.text.contains('aa'))",
            "data.list.exists(x, size(data.text) == x)",
            "data.list.exists(x, data != data)",
            "data.list.exists(x, data.text < data.text)",
        ] {
            assert_eq!(judge(source, &text), Err(Unmet::TooManySteps), "{source}");
        }
    }

    #[test]
    fn of_a_name_that_is_there_twice_the_last_counts() {
        let data = r#"{"b":1,"a":1,"c":{"x":1,"x":2},"a":2,"b":3,"a":4}"#;
        let holds = "data.a == 4 && data.b == 3 && data.c.x == 2 && size(data) == 3 && size(data.c) == 1";
        assert_eq!(judge(holds, data), Ok(true));
    }

    #[test]
    fn a_scope_converts_what_is_used_and_once() {
        let scope = Scope::of_event(&event(DATA)).unwrap();
        let converted = |variable: Variable| scope.variables[variable as usize].as_ref().unwrap().value.get();
        assert!(converted(Variable::Data).is_none());
        Expression::parse("event_type == 'x' || data.paid").unwrap().holds(&scope).unwrap();
        assert!(converted(Variable::CurrentContext).is_none());
        let first: *const Option<Node> = converted(Variable::Data).unwrap();
        let subject = RawValue::from_string("1".to_owned()).unwrap();
        let with_subject = scope.with_subject(&subject).unwrap();
        assert_eq!(Expression::parse("subject == 1 && data.paid").unwrap().holds(&with_subject), Ok(true));
        let again = with_subject.variables[Variable::Data as usize].as_ref().unwrap().value.get().unwrap();
        assert!(std::ptr::eq(first, again));
        let bad = RawValue::from_string("1e999".to_owned()).unwrap();
        assert_eq!(scope.with_subject(&bad).unwrap_err(), Unmet::Unreadable("subject"));
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (-3_i64..4).prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<u64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            Just(Json::from(1.0)),
            "[ab]{0,3}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    /// Sources that are mostly conditions.
    fn source() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("data".to_owned()),
            Just("data.a".to_owned()),
            Just("data.b".to_owned()),
            Just("data.a.b".to_owned()),
            Just("data[0]".to_owned()),
            Just("has(data.a)".to_owned()),
            Just("x".to_owned()),
            Just("key".to_owned()),
            Just("null".to_owned()),
            any::<bool>().prop_map(|value| value.to_string()),
            (-3_i64..4).prop_map(|value| value.to_string()),
            any::<i64>().prop_map(|value| value.to_string()),
            (0_u64..4).prop_map(|value| format!("{value}u")),
            Just("0.0".to_owned()),
            Just("1.5".to_owned()),
            Just("1e300".to_owned()),
            "[ab]{0,2}".prop_map(|text| format!("'{text}'")),
        ];
        let operator = proptest::sample::select(vec![
            "&&", "||", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "in", "&&", "||", "==",
        ]);
        let function = proptest::sample::select(vec!["size", "string", "int", "double", "!", "-"]);
        let method = proptest::sample::select(vec!["contains", "startsWith", "endsWith"]);
        let each = proptest::sample::select(vec!["exists", "all"]);
        let source = leaf.prop_recursive(4, 24, 3, move |inner| {
            let two = (inner.clone(), inner.clone());
            prop_oneof![
                6 => (two.clone(), operator.clone()).prop_map(|((a, b), o)| format!("({a} {o} {b})")),
                2 => (function.clone(), inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
                1 => (two.clone(), method.clone()).prop_map(|((a, b), m)| format!("({a}).{m}({b})")),
                2 => (two.clone(), each.clone()).prop_map(|((a, b), e)| format!("({a}).{e}(x, {b})")),
                1 => (two.clone(), inner.clone()).prop_map(|((a, b), c)| format!("({a} ? {b} : {c})")),
                1 => two.prop_map(|(a, b)| format!("({a})[{b}]")),
                1 => proptest::collection::vec(inner, 0..3).prop_map(|parts| format!("[{}]", parts.join(","))),
            ]
        });
        // A name for `x` wherever it is not bound.
        source.prop_map(|source| format!("[1].exists(x, {source})"))
    }

    fn cel_value(json: &Json) -> cel::Value {
        match json {
            Json::Null => cel::Value::Null,
            Json::Bool(value) => cel::Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => cel::Value::Int(value),
                (None, Some(value)) => cel::Value::UInt(value),
                (None, None) => cel::Value::Float(number.as_f64().unwrap()),
            },
            Json::String(text) => cel::Value::from(text.as_str()),
            Json::Array(elements) => cel::Value::from(elements.iter().map(cel_value).collect::<Vec<_>>()),
            Json::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.clone(), cel_value(value)));
                cel::Value::from(members.collect::<HashMap<_, _>>())
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_answer_is_that_of_the_cel_crate(source in source(), a in json(), b in json()) {
            let data = serde_json::json!({"a": a, "b": b});
            let Ok(expression) = Expression::over_events(&source) else { return Ok(()) };
            let ours = expression.holds(&Scope::of_event(&event(&data.to_string())).unwrap());
            let mut context = cel::Context::default();
            context.add_variable_from_value("data", cel_value(&data));
            context.add_variable_from_value("key", cel::Value::Null);
            let theirs = cel::Program::compile(&source).unwrap().execute(&context);
            match (&ours, &theirs) {
                (Ok(ours), Ok(cel::Value::Bool(theirs))) => prop_assert_eq!(ours, theirs),
                (Err(_), Err(_)) => {}
                // Larger values are not made of smaller ones here.
                (Err(Unmet::WrongType { what: "+", .. }), Ok(_)) => {}
                (ours, theirs) => prop_assert!(false, "{source} over {data}: {ours:?}, {theirs:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn no_source_panics(source in "\\PC{0,200}") {
            let _good_or_bad = Expression::parse(&source);
        }

        #[test]
        fn no_source_of_cel_words_panics(words in proptest::collection::vec(proptest::sample::select(vec![
            "data", "event_type", "(", ")", "[", "]", "{", "}", ",", ".", "?", ":", "+", "-", "!", "==", "&&", "||",
            " in ", "has(", ".exists(x,", "'a'", "\"", "'", "\\", "1", "2u", "1e9", "r'", "b'", "`", "//", "\n", "é",
            "-9223372036854775808", "9223372036854775808", "'\\ud800'", "null", "size(", "x",
        ]), 0..40)) {
            if let Ok(expression) = Expression::parse(&words.concat()) {
                let _unmet_or_not = expression.holds(&Scope::of_event(&event(DATA)).unwrap());
            }
        }

        #[test]
        fn no_json_panics(source in source(), data in json()) {
            if let Ok(expression) = Expression::parse(&source) {
                let _unmet_or_not = expression.holds(&Scope::of_event(&event(&data.to_string())).unwrap());
            }
        }
    }
}
