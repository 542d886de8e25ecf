//! From a source to a tree of parts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, LiteralValue, operators};

use super::{BadExpression, MAX_CHAIN, MAX_NESTING, MAX_PARTS, Variable};

/// A part of a condition.
#[derive(Clone, Debug)]
pub(super) enum Part {
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
pub(super) enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum TextTest {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Conversion {
    Text,
    Int,
    Double,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Quantifier {
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
pub(super) fn read(source: &str) -> Result<IdedExpr, BadExpression> {
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
pub(super) struct Reading<'e> {
    pub(super) parts: usize,
    /// The names that enclosing `exists` and `all` bind, outermost first.
    pub(super) bound: Vec<&'e str>,
    pub(super) uses: [bool; Variable::ALL.len()],
}

impl<'e> Reading<'e> {
    pub(super) fn condition(&mut self, tree: &'e IdedExpr, depth: usize) -> Result<Part, BadExpression> {
        let part = self.part(tree, depth)?;
        match part.never_bool() {
            Some(what) => Err(BadExpression::NotACondition { what }),
            None => Ok(part),
        }
    }

    pub(super) fn part(&mut self, tree: &'e IdedExpr, depth: usize) -> Result<Part, BadExpression> {
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
