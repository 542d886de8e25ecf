//! What a tree of parts is worth over some data, in counted steps.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use super::data::{Members, Node};
use super::read::{Arithmetic, Constant, Conversion, Order, Part, Quantifier, TextTest};
use super::{MAX_ELEMENTS, Scope, Unmet};

/// What a part is worth: borrowed from the event and the expression.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
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

    pub(super) fn kind(&self) -> &'static str {
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
pub(super) struct Judging<'a> {
    pub(super) scope: &'a Scope,
    /// How many steps are left.
    pub(super) steps: u32,
    /// The elements of enclosing `exists` and `all`, outermost first.
    pub(super) bound: Vec<Value<'a>>,
}

impl<'a> Judging<'a> {
    fn pay(&mut self, steps: usize) -> Result<(), Unmet> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let left = self.steps.checked_sub(steps);
        self.steps = left.unwrap_or(0);
        left.map(|_| ()).ok_or(Unmet::TooManySteps)
    }

    pub(super) fn value(&mut self, part: &'a Part) -> Result<Value<'a>, Unmet> {
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
