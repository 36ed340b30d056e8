//! Fuzzing reaches everything that has an entry point for it.

use std::collections::BTreeSet;

use super::Violation;
use crate::tree::{Tree, root};

const RULE: &str = "fuzzing";

/// Every entry point has a target of its own, built and with a corpus, and no target has
/// none.
pub(crate) fn targets(tree: &Tree) -> Vec<Violation> {
    let mut wanted = BTreeSet::new();
    for (start, prefix) in [("proto/src/fuzzing", ""), ("ipam/src/fuzzing", "ipam_")] {
        for (path, text) in tree.ending(&[".rs"]) {
            if path.starts_with(start) {
                let names = text.split("pub fn fuzz_").skip(1);
                let names = names.filter_map(|rest| rest.split('(').next());
                wanted.extend(names.map(|name| format!("{prefix}{name}")));
            }
        }
    }
    let targets = tree.ending(&[".rs"]).filter_map(|(path, _)| {
        let name = path.strip_prefix("fuzz/fuzz_targets/")?;
        name.strip_suffix(".rs").map(str::to_owned)
    });
    let targets: BTreeSet<String> = targets.collect();
    let manifest = tree.files.get("fuzz/Cargo.toml").map_or("", String::as_str);
    let corpus = |name: &str| root().join("fuzz/corpus").join(name).is_dir();
    let mut found = Vec::new();
    for name in &wanted {
        let path = format!("fuzz/fuzz_targets/{name}.rs");
        let listed = manifest.contains(&format!("\"fuzz_targets/{name}.rs\""));
        if !targets.contains(name) || !listed {
            let what = "an entry point has no target";
            found.push(Violation::new(RULE, &path, 0, what));
        } else if !corpus(name) {
            let what = "a target has no corpus";
            found.push(Violation::new(RULE, &path, 0, what));
        }
    }
    for name in targets.difference(&wanted) {
        let path = format!("fuzz/fuzz_targets/{name}.rs");
        found.push(Violation::new(
            RULE,
            &path,
            0,
            "a target has no entry point",
        ));
    }
    found
}
