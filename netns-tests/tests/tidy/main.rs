//! What holds for the whole source tree, so that nobody has to look after it. The rules stand in
//! `table.rs`, what they look at in `rules/`, and where they do not hold yet in `exceptions.txt`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod code;
mod exceptions;
mod planted;
mod product;
mod rules;
mod table;
mod tree;

use std::io::Write;

use self::code::Code;
use self::exceptions::Exceptions;
use self::table::{
    FACE_LINES, FIELDS, FILE_LINES, FUNCTION_LINES, IMPL_LINES, NAMES_UNIQUE, REASON, RULES,
};
use self::tree::Tree;

#[test]
fn the_rules_hold() {
    let tree = Tree::real();
    let product = rules::product(&tree);
    say_what_is_large(&product);
    let found = rules::all(&tree, &product);
    for found in &found {
        assert!(RULES.contains(&found.rule), "{} has no line", found.rule);
    }
    let exceptions = Exceptions::read();
    if std::env::var_os("WEFT_WRITE_EXCEPTIONS").is_some() {
        return exceptions.write_for(&found);
    }
    let complaints = exceptions.compare(&found);
    let count = complaints.len();
    assert!(count == 0, "{count} to mend:\n{}", complaints.join("\n"));
}

/// What is enforced and what CONTRIBUTING.md says is the same.
#[test]
fn the_rules_are_explained() {
    let tree = Tree::real();
    let text = &tree.files["CONTRIBUTING.md"];
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert_eq!(explained, RULES);
    for name in NAMES_UNIQUE {
        assert!(text.contains(&format!("`{name}`")), "{name} is not named");
    }
    for size in [FILE_LINES, FACE_LINES, FUNCTION_LINES, IMPL_LINES, FIELDS] {
        assert!(text.contains(&format!(" {size}")), "{size} is not named");
    }
    assert!(text.contains(REASON));
}

/// Says what is larger than the habit, where it is read although the test passes.
fn say_what_is_large(product: &[(String, Code)]) {
    let mut text = String::new();
    for (_, code) in product {
        for large in rules::sizes::large(code) {
            let reason = large.reason.as_deref().unwrap_or("no reason given");
            text.push_str(&format!("{}: {}: {reason}\n", large.path, large.what));
        }
    }
    if !text.is_empty() {
        let text = format!("larger than the habit:\n{text}");
        std::io::stdout().write_all(text.as_bytes()).unwrap();
    }
}
