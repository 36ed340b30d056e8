//! The rules, each from a tree to what it finds there.

pub(crate) mod crates;
pub(crate) mod files;
pub(crate) mod forbidden;
pub(crate) mod fuzzing;
pub(crate) mod names;
#[cfg(test)]
mod no_io;
pub(crate) mod sizes;
pub(crate) mod supply;
pub(crate) mod texts;

use crate::code::Code;
use crate::tree::Tree;

/// A place where a rule does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) path: String,
    /// Zero for what concerns the whole file.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(
        rule: &'static str,
        path: &str,
        line: usize,
        what: impl Into<String>,
    ) -> Violation {
        let (path, what) = (path.to_owned(), what.into());
        Violation {
            rule,
            path,
            line,
            what,
        }
    }
}

/// Returns all product code: one for each library and binary of each crate.
pub(crate) fn product(tree: &Tree) -> Vec<(String, Code)> {
    let mut all = Vec::new();
    for package in tree.packages.iter().filter(|package| package.is_product()) {
        for code in Code::of(tree, package) {
            all.push((package.name.clone(), code));
        }
    }
    all
}

/// Returns what is found in a tree by all rules.
pub(crate) fn all(tree: &Tree, product: &[(String, Code)]) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(crates::edges(tree));
    for (name, code) in product {
        found.extend(files::circles(code));
        found.extend(files::faces(code));
        found.extend(files::allocator(code));
        found.extend(files::module_style(code));
        found.extend(forbidden::paths(code));
        found.extend(names::never(code));
        found.extend(names::unique(name, code));
        found.extend(sizes::sizes(code));
    }
    found.extend(files::orphans(tree));
    found.extend(forbidden::unsafe_places(tree));
    found.extend(texts::unfinished(tree));
    found.extend(texts::links(tree));
    found.extend(texts::never(tree));
    found.extend(fuzzing::targets(tree));
    found.extend(supply::all(tree));
    found.sort();
    found.dedup();
    found
}
