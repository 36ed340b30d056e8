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
use self::tree::Tree;

#[test]
fn the_rules_hold() {
    let tree = Tree::real();
    let product = rules::product(&tree);
    say_what_is_large(&product);
    let found = rules::all(&tree, &product);
    let exceptions = Exceptions::read();
    if std::env::var_os("WEFT_WRITE_EXCEPTIONS").is_some() {
        return exceptions.write_for(&found);
    }
    let complaints = exceptions.compare(&found);
    let count = complaints.len();
    assert!(count == 0, "{count} to mend:\n{}", complaints.join("\n"));
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
