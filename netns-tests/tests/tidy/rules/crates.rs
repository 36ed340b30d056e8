//! Who may use whom among the crates.

use super::Violation;
use crate::table::{CRATES, DECIDING, DOING, TEST_CRATES, TEST_DEPENDENCIES};
use crate::tree::Tree;

const RULE: &str = "crates";

/// Returns each crate of the product uses only those that stand in its line of the table.
pub(crate) fn edges(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in tree.packages.iter().filter(|package| package.is_product()) {
        let manifest = format!("{}/Cargo.toml", package.folder);
        let line = CRATES.iter().find(|(name, _)| *name == package.name);
        let Some((name, allowed)) = line else {
            let what = format!("crate {} has no line in the table", package.name);
            found.push(Violation::new(RULE, &manifest, 0, what));
            continue;
        };
        for used in &package.uses {
            if !allowed.contains(&used.as_str()) {
                let what = format!("{name} must not use {used}");
                found.push(Violation::new(RULE, &manifest, 0, what));
            }
        }
        for used in &package.foreign {
            if DECIDING.contains(name) && DOING.contains(&used.as_str()) {
                let what = format!("{name} only decides and must not use {used}");
                found.push(Violation::new(RULE, &manifest, 0, what));
            }
        }
        for used in &package.tests_use {
            let used = used.as_str();
            if used != *name && !allowed.contains(&used) && !TEST_DEPENDENCIES.contains(&used) {
                let what = format!("tests of {name} must not use {used}");
                found.push(Violation::new(RULE, &manifest, 0, what));
            }
        }
    }
    found
}

/// The table itself has an order: no line names a crate of a later one, or of tests.
#[test]
fn the_table_goes_down() {
    for (index, (name, allowed)) in CRATES.iter().enumerate() {
        for used in *allowed {
            let before = CRATES[..index].iter().any(|(before, _)| before == used);
            assert!(before, "{name} uses {used}, which does not stand above it");
            assert!(!TEST_CRATES.contains(used));
        }
    }
}
