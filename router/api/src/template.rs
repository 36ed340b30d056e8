//! The part of Go's text/template that people use in `weft report -f`.
//!
//! Fields (`.Router.Name`), variables (`$x := ...`), pipelines, parentheses, `if`/`else if`,
//! `with`, `range` (also `$i, $v :=`), trimming (`{{-`), comments, literals and the functions
//! `json printf print println len index eq ne lt le gt ge and or not join`. The data is JSON; a
//! field whose name starts in lower case belongs to a map and prints `<no value>` when absent,
//! others are errors, as with Go's structs.

mod budget;
mod eval;
mod lex;
mod parse;
mod print;

use budget::Budget;
use serde_json::Value;

/// A template that cannot be parsed or executed; the text is fit for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template: format:{line}: {message}")]
pub(crate) struct TemplateError {
    line: usize,
    message: String,
}

impl TemplateError {
    fn new(line: usize, message: impl Into<String>) -> TemplateError {
        TemplateError {
            line,
            message: message.into(),
        }
    }
}

/// Longest output of a template, in bytes; longer output is an error.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of actions and parentheses; deeper templates are refused.
const DEPTH_MAX: usize = 64;

/// Executes `template` over `data`.
pub(crate) fn render(template: &str, data: &Value) -> Result<String, TemplateError> {
    render_within(template, data, &Budget::full())
}

fn render_within(template: &str, data: &Value, budget: &Budget) -> Result<String, TemplateError> {
    let nodes = parse::parse(&lex::lex(template)?)?;
    let mut out = String::new();
    eval::run(&nodes, data, budget, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests;
