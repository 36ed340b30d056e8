//! What is written, in code and beside it.

use super::Violation;
use crate::table::TEXT_NEVER;
use crate::tree::{Tree, root};

/// Nothing is left for later.
pub(crate) fn unfinished(tree: &Tree) -> Vec<Violation> {
    // In two parts, so that this file does not hold what it looks for.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let ignored = ["#[ign", "ore"].concat();
    let mut found = Vec::new();
    for (path, text) in tree.ending(&[".rs", ".md", ".toml", ".sh", "/run"]) {
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
            let marked = words.any(|word| marks.iter().any(|mark| mark == word));
            if marked || line.contains(&ignored) {
                found.push(Violation::new("unfinished", path, number + 1, line.trim()));
            }
        }
    }
    found
}

/// Links between the documents lead somewhere.
pub(crate) fn links(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.ending(&[".md"]) {
        let folder = root()
            .join(path)
            .parent()
            .map(ToOwned::to_owned)
            .unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            for target in line.split("](").skip(1) {
                let target = target.split(')').next().unwrap_or_default();
                let file = target.split('#').next().unwrap_or_default();
                let elsewhere = file.contains("://") || file.starts_with("mailto:");
                if !file.is_empty() && !elsewhere && !folder.join(file).exists() {
                    found.push(Violation::new("link", path, number + 1, target));
                }
            }
        }
    }
    found
}

/// Some phrases are never written.
pub(crate) fn never(tree: &Tree) -> Vec<Violation> {
    let phrases = TEXT_NEVER.map(|parts| parts.concat());
    let mut found = Vec::new();
    for (path, text) in tree.ending(&[".rs", ".md", ".toml", ".sh", ".txt", ".service", "/run"]) {
        // A phrase may be broken by the end of a line of a comment.
        let mut flat = String::new();
        let mut ends = Vec::new();
        for line in text.lines() {
            let line = line.trim_start().trim_start_matches(['/', '!', '#']).trim();
            flat.push_str(&line.to_lowercase());
            flat.push(' ');
            ends.push(flat.len());
        }
        for phrase in &phrases {
            for (at, _) in flat.match_indices(phrase.as_str()) {
                let line = ends.partition_point(|end| *end <= at) + 1;
                found.push(Violation::new("phrase", path, line, phrase.as_str()));
            }
        }
    }
    found
}
