//! Executing the nodes of a template.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::budget::Budget;
use super::error::{OUTPUT_BYTES_MAX, TemplateError};
use super::functions::WRITERS;
use super::parse::{Node, Operand, Pipe};
use super::print::{json, print, printf, to_text};

type Result<T> = std::result::Result<T, TemplateError>;

const TOO_MUCH: &str = "the template takes too much work";

pub(super) fn run(nodes: &[Node], data: &Value, budget: &Budget, out: &mut String) -> Result<()> {
    let mut scope = Scope {
        variables: vec![(String::new(), data.clone())],
        line: 1,
        budget,
    };
    scope.nodes(nodes, data, out)
}

struct Scope<'b> {
    /// Innermost last; the nameless one is `$`.
    variables: Vec<(String, Value)>,
    line: usize,
    budget: &'b Budget,
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value, out: &mut String) -> Result<()> {
        let outer = self.variables.len();
        for node in nodes {
            self.charge(1)?;
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Print { line, pipe } => {
                    self.line = *line;
                    let value = self.pipe(pipe, dot)?;
                    self.charge_value(&value)?;
                    if let [name] = pipe.declares.as_slice() {
                        self.variables.push((name.clone(), value.into_owned()));
                    } else {
                        print(&value, out);
                    }
                }
                Node::If {
                    line,
                    pipe,
                    then,
                    other,
                } => {
                    self.line = *line;
                    let inner = self.variables.len();
                    let value = self.pipe(pipe, dot)?;
                    let branch = if truth(&value) { then } else { other };
                    self.declare(pipe, &value)?;
                    self.nodes(branch, dot, out)?;
                    self.variables.truncate(inner);
                }
                Node::With {
                    line,
                    pipe,
                    then,
                    other,
                } => {
                    self.line = *line;
                    let inner = self.variables.len();
                    let value = self.pipe(pipe, dot)?;
                    self.charge_value(&value)?;
                    let value = value.into_owned();
                    self.declare(pipe, &value)?;
                    if truth(&value) {
                        self.nodes(then, &value, out)?;
                    } else {
                        self.nodes(other, dot, out)?;
                    }
                    self.variables.truncate(inner);
                }
                Node::Range {
                    line,
                    pipe,
                    then,
                    other,
                } => {
                    self.line = *line;
                    self.range(pipe, then, other, dot, out)?;
                }
            }
            if out.len() > OUTPUT_BYTES_MAX {
                return Err(self.error("output too long"));
            }
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn declare(&mut self, pipe: &Pipe, value: &Value) -> Result<()> {
        if let [name] = pipe.declares.as_slice() {
            self.charge_value(value)?;
            self.variables.push((name.clone(), value.clone()));
        }
        Ok(())
    }

    /// Counts work; an error ends the template.
    fn charge(&self, work: u64) -> Result<()> {
        let allowed = self.budget.take(work);
        allowed.then_some(()).ok_or_else(|| self.error(TOO_MUCH))
    }

    /// Counts a value that is copied or written out.
    fn charge_value(&self, value: &Value) -> Result<()> {
        let allowed = self.budget.take_value(value);
        allowed.then_some(()).ok_or_else(|| self.error(TOO_MUCH))
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        then: &[Node],
        other: &[Node],
        dot: &Value,
        out: &mut String,
    ) -> Result<()> {
        let over = self.pipe(pipe, dot)?;
        self.charge_value(&over)?;
        let items: Vec<(Value, Value)> = match over.as_ref() {
            Value::Null => Vec::new(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(i, v)| (Value::from(i), v.clone()))
                .collect(),
            Value::Object(map) => map
                .iter()
                .map(|(k, v)| (Value::from(k.as_str()), v.clone()))
                .collect(),
            other => return Err(self.error(format!("range can't iterate over {other}"))),
        };
        if items.is_empty() {
            return self.nodes(other, dot, out);
        }
        let inner = self.variables.len();
        drop(over);
        for (key, item) in items {
            if !pipe.declares.is_empty() {
                self.charge_value(&item)?;
            }
            match pipe.declares.as_slice() {
                [value] => self.variables.push((value.clone(), item.clone())),
                [index, value] => {
                    self.variables.push((index.clone(), key));
                    self.variables.push((value.clone(), item.clone()));
                }
                _ => {}
            }
            self.nodes(then, &item, out)?;
            self.variables.truncate(inner);
        }
        Ok(())
    }

    fn pipe<'v>(&self, pipe: &Pipe, dot: &'v Value) -> Result<Cow<'v, Value>> {
        let mut last: Option<Cow<'v, Value>> = None;
        for command in &pipe.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Cow::Owned(Value::Null)))
    }

    fn command<'v>(
        &self,
        command: &[Operand],
        piped: Option<Cow<'v, Value>>,
        dot: &'v Value,
    ) -> Result<Cow<'v, Value>> {
        let Some((first, rest)) = command.split_first() else {
            return Err(self.error("missing value for command"));
        };
        let Operand::Function(name) = first else {
            if !rest.is_empty() || piped.is_some() {
                return Err(self.error("can't give argument to non-function"));
            }
            return self.operand(first, dot);
        };
        let mut args = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            args.push(self.operand(operand, dot)?);
        }
        args.extend(piped);
        self.call(name, &args).map(Cow::Owned)
    }

    fn operand<'v>(&self, operand: &Operand, dot: &'v Value) -> Result<Cow<'v, Value>> {
        Ok(match operand {
            Operand::Dot => Cow::Borrowed(dot),
            Operand::Field(chain) => Cow::Borrowed(self.fields(dot, chain)?),
            Operand::Variable(name, chain) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let Some((_, value)) = found else {
                    return Err(self.error(format!("undefined variable \"${name}\"")));
                };
                let value = self.fields(value, chain)?;
                self.charge_value(value)?;
                Cow::Owned(value.clone())
            }
            Operand::Function(name) => Cow::Owned(self.call(name, &[])?),
            Operand::Text(text) => Cow::Owned(Value::from(text.as_str())),
            Operand::Int(int) => Cow::Owned(Value::from(*int)),
            Operand::Float(float) => Cow::Owned(Value::from(*float)),
            Operand::Bool(bool) => Cow::Owned(Value::from(*bool)),
            Operand::Nil => Cow::Owned(Value::Null),
            Operand::Group(pipe, chain) => {
                let value = self.pipe(pipe, dot)?;
                let value = self.fields(&value, chain)?;
                self.charge_value(value)?;
                Cow::Owned(value.clone())
            }
        })
    }

    fn fields<'v>(&self, mut value: &'v Value, chain: &[String]) -> Result<&'v Value> {
        for name in chain {
            value = match value.get(name) {
                Some(field) => field,
                None if name.starts_with(char::is_lowercase) => &Value::Null,
                None if value.is_null() => {
                    return Err(self.error(format!("nil pointer evaluating field {name}")));
                }
                None => return Err(self.error(format!("can't evaluate field {name}"))),
            };
        }
        Ok(value)
    }

    fn call(&self, name: &str, args: &[Cow<'_, Value>]) -> Result<Value> {
        let wanted = |count: usize| {
            if args.len() == count {
                Ok(())
            } else {
                let message = format!("wrong number of args for {name}: want {count}");
                Err(self.error(message))
            }
        };
        if WRITERS.contains(&name) {
            args.iter().try_for_each(|arg| self.charge_value(arg))?;
        }
        Ok(match name {
            "json" => {
                wanted(1)?;
                Value::from(json(&args[0]))
            }
            "printf" => {
                let Some((format, rest)) = args.split_first() else {
                    return Err(self.error("wrong number of args for printf: want at least 1"));
                };
                Value::from(printf(&to_text(format), rest))
            }
            "print" => Value::from(args.iter().map(|a| to_text(a)).collect::<String>()),
            "println" => {
                let words: Vec<String> = args.iter().map(|a| to_text(a)).collect();
                Value::from(words.join(" ") + "\n")
            }
            "len" => {
                wanted(1)?;
                Value::from(self.len(&args[0])?)
            }
            "index" => self.index(args)?,
            "not" => {
                wanted(1)?;
                Value::from(!truth(&args[0]))
            }
            "and" | "or" => {
                let stop = |value: &&Cow<'_, Value>| truth(value) == (name == "or");
                match args.iter().find(stop).or(args.last()) {
                    Some(value) => {
                        self.charge_value(value)?;
                        value.as_ref().clone()
                    }
                    None => return Err(self.error(format!("wrong number of args for {name}"))),
                }
            }
            "join" => {
                wanted(2)?;
                let items = args[0].as_array().map(Vec::as_slice).unwrap_or_default();
                let words: Vec<String> = items.iter().map(to_text).collect();
                Value::from(words.join(&to_text(&args[1])))
            }
            _ => Value::from(self.compare(name, args)?),
        })
    }

    fn len(&self, value: &Value) -> Result<usize> {
        match value {
            Value::Null => Ok(0),
            Value::String(text) => Ok(text.len()),
            Value::Array(items) => Ok(items.len()),
            Value::Object(map) => Ok(map.len()),
            other => Err(self.error(format!("len of {other}"))),
        }
    }

    fn index(&self, args: &[Cow<'_, Value>]) -> Result<Value> {
        let Some((first, keys)) = args.split_first() else {
            return Err(self.error("wrong number of args for index: want at least 1"));
        };
        let mut value = first.as_ref();
        for key in keys {
            value = match (value, key.as_ref()) {
                (Value::Array(items), Value::Number(at)) => {
                    let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
                    let item = at.and_then(|at| items.get(at));
                    item.ok_or_else(|| self.error(format!("index out of range: {key}")))?
                }
                (Value::Object(map), Value::String(name)) => map.get(name).unwrap_or(&Value::Null),
                (Value::Null, _) => &Value::Null,
                _ => return Err(self.error(format!("can't index with {key}"))),
            };
        }
        self.charge_value(value)?;
        Ok(value.clone())
    }

    fn compare(&self, name: &str, args: &[Cow<'_, Value>]) -> Result<bool> {
        let [first, rest @ ..] = args else {
            return Err(self.error(format!("missing argument for {name}")));
        };
        let Some(second) = rest.first() else {
            return Err(self.error(format!("missing argument for {name}")));
        };
        let order =
            || order(first, second).ok_or_else(|| self.error("incompatible types for comparison"));
        Ok(match name {
            "eq" => rest.iter().any(|other| equal(first, other)),
            "ne" => !equal(first, second),
            "lt" => order()?.is_lt(),
            "le" => order()?.is_le(),
            "gt" => order()?.is_gt(),
            _ => order()?.is_ge(),
        })
    }

    fn error(&self, message: impl Into<String>) -> TemplateError {
        TemplateError::new(self.line, message)
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    a == b || order(a, b) == Some(Ordering::Equal)
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        _ => None,
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
