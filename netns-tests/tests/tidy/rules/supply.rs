//! What weft is built from: the rules of `deny.toml`, held from what `cargo metadata` says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Violation;
use crate::tree::Tree;

const RULE: &str = "supply";
const MANIFEST: &str = "deny.toml";

/// Licenses, sources, versions that come twice, and crates that are not wanted.
pub(crate) fn all(tree: &Tree) -> Vec<Violation> {
    let Some(text) = tree.files.get(MANIFEST) else {
        return Vec::new();
    };
    let table: toml::Table = text
        .parse()
        .unwrap_or_else(|error| panic!("{MANIFEST}: {error}"));
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let licenses = texts(&table, "licenses", "allow");
    let sources = texts(&table, "sources", "allow-registry");
    let denied = texts(&table, "bans", "deny");
    for package in tree.metadata["packages"].as_array().into_iter().flatten() {
        let field = |name: &str| package[name].as_str().unwrap_or_default();
        let name = field("name");
        let label = format!("{name} {}", field("version"));
        versions.entry(name).or_default().insert(field("version"));
        let mut complain = |what: String| found.push(Violation::new(RULE, MANIFEST, 0, what));
        if !is_allowed(field("license"), &licenses) {
            complain(format!("{label} has the license {:?}", field("license")));
        }
        if let Some(source) = package["source"].as_str() {
            let registry = source.strip_prefix("registry+").unwrap_or(source);
            if !sources.iter().any(|allowed| allowed == registry) {
                complain(format!("{label} comes from {source}"));
            }
        } else {
            for dependency in package["dependencies"].as_array().into_iter().flatten() {
                if dependency["req"] == "*" && dependency["path"] == Value::Null {
                    complain(format!(
                        "{name} takes any version of {}",
                        dependency["name"]
                    ));
                }
            }
        }
        if denied.iter().any(|denied| denied == name) {
            complain(format!("{label} is not wanted"));
        }
    }
    found.extend(duplicates(&versions, &texts(&table, "bans", "skip")));
    found
}

/// Crates of which more than one version is built, but those that are let pass: `name@version`,
/// of which the version may be only its beginning.
fn duplicates(versions: &BTreeMap<&str, BTreeSet<&str>>, skip: &[String]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for (name, versions) in versions {
        let kept = versions.iter().filter(|version| {
            let passes = skip.iter().find(|skip| {
                let (skipped, start) = skip.split_once('@').unwrap_or((skip, ""));
                skipped == *name && version.starts_with(start)
            });
            used.extend(passes);
            passes.is_none()
        });
        if kept.count() > 1 {
            let what = format!("{name} is built in versions {versions:?}");
            found.push(Violation::new(RULE, MANIFEST, 0, what));
        }
    }
    for skip in skip.iter().filter(|skip| !used.contains(skip)) {
        let what = format!("{skip} is let pass, but is not built");
        found.push(Violation::new(RULE, MANIFEST, 0, what));
    }
    found
}

/// Returns the texts of a list in a section; of an entry that is a table, its `crate`.
fn texts(table: &toml::Table, section: &str, key: &str) -> Vec<String> {
    let list = table.get(section).and_then(|section| section.get(key));
    let list = list
        .and_then(toml::Value::as_array)
        .cloned()
        .unwrap_or_default();
    let text = |value: &toml::Value| {
        let value = value.get("crate").unwrap_or(value);
        value.as_str().map(str::to_owned)
    };
    list.iter().filter_map(text).collect()
}

/// Returns true if what the expression allows can be had under the licenses that are allowed.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    // The old way to say "or".
    let expression = expression.replace('/', " OR ");
    let spaced = expression.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = any_of(&words, &mut at, allowed);
    result && at == words.len() && !words.is_empty()
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut result = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= all_of(words, at, allowed);
    }
    result
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut result = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at, allowed);
    }
    result
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    if words.get(*at) == Some(&"(") {
        *at += 1;
        let result = any_of(words, at, allowed);
        *at += 1;
        return result;
    }
    let mut license = words.get(*at).copied().unwrap_or_default().to_owned();
    *at += 1;
    if words.get(*at) == Some(&"WITH") {
        license = format!(
            "{license} WITH {}",
            words.get(*at + 1).copied().unwrap_or_default()
        );
        *at += 2;
    }
    allowed.contains(&license)
}

#[test]
fn expressions_of_licenses_are_understood() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND ISC", true),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("(MIT OR ISC) AND GPL-3.0", false),
        ("Apache-2.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression:?}");
    }
}

#[test]
fn versions_that_come_twice_are_found() {
    let versions = BTreeMap::from([
        ("one", BTreeSet::from(["1.0.0"])),
        ("two", BTreeSet::from(["1.0.0", "2.0.0"])),
    ]);
    assert_eq!(duplicates(&versions, &[]).len(), 1);
    assert_eq!(duplicates(&versions, &["two@1".to_owned()]), []);
    assert_eq!(
        duplicates(&versions, &["two@1".to_owned(), "three@1".to_owned()]).len(),
        1
    );
}
