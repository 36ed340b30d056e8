//! Citations of `docs/protocol` in the code: each names a section that exists, and no codec is
//! without one.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files that turn bytes into types and back.
const CODECS: [&str; 19] = [
    "proto/src/crypto.rs",
    "proto/src/features.rs",
    "proto/src/framing.rs",
    "proto/src/gob/decode.rs",
    "proto/src/gob/primitive.rs",
    "proto/src/message.rs",
    "proto/src/names/gossip.rs",
    "proto/src/names/message.rs",
    "proto/src/native/keys.rs",
    "proto/src/native/report.rs",
    "proto/src/native/wire.rs",
    "proto/src/sleeve/codec.rs",
    "proto/src/sleeve/icmp.rs",
    "proto/src/sleeve/wire.rs",
    "proto/src/topology/update.rs",
    "ipam/src/bolt.rs",
    "ipam/src/import.rs",
    "ipam/src/leases/wire.rs",
    "ipam/src/messages.rs",
];

/// How the names of functions begin that read or write bytes.
const VERBS: [&str; 16] = [
    "append",
    "bool",
    "bytes",
    "classify",
    "decode",
    "encode",
    "finish",
    "from_file",
    "int",
    "open",
    "parse",
    "read",
    "seal",
    "uint",
    "write",
    "slice",
];

fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.parent().unwrap().to_owned()
}

/// All Rust files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the anchors of a page: those that it names, and those that its titles have.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim();
        if let Some((_, rest)) = title.split_once("<a id=\"") {
            anchors.extend(rest.split('"').next().map(str::to_owned));
        } else {
            let plain = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            anchors.insert(plain.collect::<String>().to_lowercase().replace(' ', "-"));
        }
    }
    anchors
}

/// Returns the pages that may be cited, by path, with their anchors.
fn pages() -> BTreeMap<String, BTreeSet<String>> {
    let mut pages = BTreeMap::new();
    for folder in ["docs", "docs/protocol"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.file_name().unwrap().to_str().unwrap();
                let text = fs::read_to_string(&path).unwrap();
                pages.insert(format!("{folder}/{name}"), anchors(&text));
            }
        }
    }
    pages
}

/// Returns what a line cites: page and anchor.
fn citation(line: &str) -> Option<(&str, &str)> {
    let start = line.find("`docs/")? + 1;
    let cited = line[start..].split('`').next()?;
    cited.split_once('#')
}

#[test]
fn cited_sections_exist() {
    let pages = pages();
    let mut found = Vec::new();
    for crate_ in ["proto/src", "ipam/src"] {
        sources(&root().join(crate_), &mut found);
    }
    let mut cited = BTreeSet::new();
    for path in found {
        let text = fs::read_to_string(&path).unwrap();
        for (page, anchor) in text.lines().filter_map(citation) {
            let known = pages
                .get(page)
                .is_some_and(|anchors| anchors.contains(anchor));
            assert!(known, "{} cites {page}#{anchor}", path.display());
            cited.insert(format!("{page}#{anchor}"));
        }
    }
    assert!(cited.len() > 80, "only {} sections are cited", cited.len());
}

#[test]
fn links_between_pages_lead_somewhere() {
    let pages = pages();
    for page in pages.keys() {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let folder = Path::new(page).parent().unwrap();
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            if path.contains("://") {
                continue;
            }
            let file = match path {
                "" => page.clone(),
                path => plain(&folder.join(path)),
            };
            let exists = root().join(&file).exists();
            let there = anchor.is_empty() || pages.get(&file).is_some_and(|a| a.contains(anchor));
            assert!(exists && there, "{page} links to {target}");
        }
    }
}

/// Returns a path without `..`.
fn plain(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap().split('/') {
        match part {
            ".." => drop(parts.pop()),
            "" | "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn codecs_cite_what_they_fulfil() {
    let mut missing = Vec::new();
    for file in CODECS {
        let text = fs::read_to_string(root().join(file)).unwrap();
        let mut cites = false;
        for line in text.lines().take_while(|line| !line.contains("mod tests")) {
            let line = line.trim_start();
            if line.starts_with("///") {
                cites |= citation(line).is_some();
                continue;
            }
            if line.starts_with('#') {
                continue;
            }
            let name = line
                .starts_with("pub")
                .then(|| line.split_once("fn "))
                .flatten();
            let name = name.map_or("", |(_, rest)| rest.split(['(', '<']).next().unwrap_or(""));
            if VERBS.iter().any(|verb| name.starts_with(verb)) && !cites {
                missing.push(format!("{file}: {name}"));
            }
            cites = false;
        }
    }
    assert!(
        missing.is_empty(),
        "no citation above:\n{}",
        missing.join("\n")
    );
}
