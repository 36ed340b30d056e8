//! The part of Go's text/template that people use in `weft report -f`.
//!
//! Fields (`.Router.Name`), variables (`$x := ...`), pipelines, parentheses, `if`/`else if`,
//! `with`, `range` (also `$i, $v :=`), trimming (`{{-`), comments, literals and the functions
//! `json printf print println len index eq ne lt le gt ge and or not join`. The data is JSON; a
//! field whose name starts in lower case belongs to a map and prints `<no value>` when absent,
//! others are errors, as with Go's structs.

mod budget;
mod error;
mod eval;
mod functions;
mod lex;
mod parse;
mod print;

use budget::Budget;
pub(crate) use error::TemplateError;
use serde_json::Value;

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
