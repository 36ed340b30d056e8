//! Formatting of values.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;

/// Widest padding that a verb may ask for, in characters; more is cut.
const WIDTH_MAX: usize = 1024;

/// Appends a value as Go prints it.
pub(super) fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        _ => print_inner(value, out),
    }
}

fn print_inner(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => join(out, "[", items.iter(), "]"),
        Value::Object(map) => join(out, "{", map.values(), "}"),
        other => _ = write!(out, "{other}"),
    }
}

fn join<'v>(out: &mut String, open: &str, items: impl Iterator<Item = &'v Value>, close: &str) {
    out.push_str(open);
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(' ');
        }
        print_inner(item, out);
    }
    out.push_str(close);
}

/// Returns a value as Go prints it.
pub(super) fn to_text(value: &Value) -> String {
    let mut out = String::new();
    print(value, &mut out);
    out
}

/// Returns a value as compact JSON, with the characters escaped that Go escapes for HTML.
pub(super) fn json(value: &Value) -> String {
    let text = value.to_string();
    text.replace('&', "\\u0026")
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
}

/// Go's printf for the verbs `%s %d %v %q %t %f %x %%`, with width, precision, `-` and `0`.
pub(super) fn printf(format: &str, args: &[Cow<'_, Value>]) -> String {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = format;
    while let Some((text, after)) = rest.split_once('%') {
        out.push_str(text);
        let (verb, spec, after) = spec(after);
        rest = after;
        match verb {
            Some('%') => out.push('%'),
            None => out.push_str("%!(NOVERB)"),
            Some(verb) => match args.next() {
                Some(value) => put(&mut out, verb, &spec, value),
                None => _ = write!(out, "%!{verb}(MISSING)"),
            },
        }
    }
    out.push_str(rest);
    for extra in args {
        _ = write!(out, "%!(EXTRA {})", to_text(extra));
    }
    out
}

#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

fn spec(text: &str) -> (Option<char>, Spec, &str) {
    let mut spec = Spec::default();
    let chars = text.char_indices();
    for (at, c) in chars {
        match c {
            '-' => spec.left = true,
            '+' | '#' | ' ' => {}
            '0' if spec.width == 0 && spec.precision.is_none() => spec.zero = true,
            '.' => spec.precision = Some(0),
            '0'..='9' => {
                let digit = c as usize - '0' as usize;
                let number = spec.precision.as_mut().unwrap_or(&mut spec.width);
                *number = (*number * 10 + digit).min(WIDTH_MAX);
            }
            verb => return (Some(verb), spec, &text[at + verb.len_utf8()..]),
        }
    }
    (None, spec, "")
}

fn put(out: &mut String, verb: char, spec: &Spec, value: &Value) {
    let mut text = match (verb, value) {
        ('q', value) => Value::from(to_text(value)).to_string(),
        ('f', Value::Number(number)) => {
            let float = number.as_f64().unwrap_or_default();
            format!("{float:.*}", spec.precision.unwrap_or(6))
        }
        ('x', Value::Number(number)) => format!("{:x}", number.as_u64().unwrap_or_default()),
        ('d', Value::Number(number)) => number.to_string(),
        ('t', Value::Bool(bool)) => bool.to_string(),
        ('s' | 'v', value) => to_text(value),
        (verb, value) => format!("%!{verb}({})", to_text(value)),
    };
    if let (Some(precision), 's') = (spec.precision, verb) {
        text = text.chars().take(precision).collect();
    }
    let missing = spec.width.saturating_sub(text.chars().count());
    if spec.left {
        out.push_str(&text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else {
        let pad = if spec.zero && value.is_number() {
            '0'
        } else {
            ' '
        };
        out.extend(std::iter::repeat_n(pad, missing));
        out.push_str(&text);
    }
}
