//! How the files of a crate stand to each other.

use std::collections::{BTreeMap, BTreeSet};

use syn::Item;

use super::Violation;
use crate::code::{Code, File};
use crate::product;
use crate::tree::Tree;

/// Returns the files that each file names, with a line where it does.
fn edges(code: &Code) -> BTreeMap<usize, BTreeMap<usize, usize>> {
    let mut edges: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
    for (from, file) in code.files.iter().enumerate() {
        for mention in &file.mentions {
            if let Some(target) = code.target(&mention.full).filter(|to| to.file != from) {
                let lines = edges.entry(from).or_default();
                lines.entry(target.file).or_insert(mention.line);
            }
        }
    }
    edges
}

/// No files of a crate name each other in a circle.
pub(crate) fn circles(code: &Code) -> Vec<Violation> {
    let edges = edges(code);
    let reach = |from: usize| -> BTreeSet<usize> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            for to in edges.get(&at).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(*to) {
                    next.push(*to);
                }
            }
        }
        seen
    };
    let reached: Vec<BTreeSet<usize>> = (0..code.files.len()).map(reach).collect();
    let mut found = Vec::new();
    for (at, file) in code.files.iter().enumerate() {
        for (to, line) in edges.get(&at).into_iter().flatten() {
            if reached[*to].contains(&at) {
                let what = format!("names {}, which leads back", code.files[*to].path);
                found.push(Violation::new("circle", &file.path, *line, what));
            }
        }
    }
    found
}

/// What stands below a face does not import from it, and `lib.rs` only says what there is.
pub(crate) fn faces(code: &Code) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in &code.files {
        let mut seen = BTreeSet::new();
        for mention in &file.mentions {
            let Some(target) = code.target(&mention.full) else {
                continue;
            };
            let is_above =
                target.named.len() < file.module.len() && file.module.starts_with(&target.named);
            let item = mention.full.get(..target.named.len() + 2);
            if is_above && seen.insert(item) {
                let face = code.files.iter().find(|other| other.module == target.named);
                let face = face.map_or_else(String::new, |face| face.path.clone());
                let what = format!(
                    "{} is imported from its face {face}",
                    mention.written.join("::")
                );
                found.push(Violation::new("face", &file.path, mention.line, what));
            }
        }
        if file.path.ends_with("/lib.rs") {
            for item in &file.syntax.items {
                let inline = matches!(item, Item::Mod(module) if module.content.is_some());
                if inline || !matches!(item, Item::Mod(_) | Item::Use(_)) {
                    let line = syn::spanned::Spanned::span(item).start().line;
                    let what = "lib.rs has mod and use only";
                    found.push(Violation::new("face", &file.path, line, what));
                }
            }
        }
    }
    found
}

/// Machines of the allocator do not know each other, and only the step sees what is put out.
/// Holds from the day on which the allocator has them.
pub(crate) fn allocator(code: &Code) -> Vec<Violation> {
    const MACHINES: [&str; 5] = ["operations", "questions", "ring", "reclaim", "replication"];
    let has_cx = |file: &File| file.path.ends_with("src/allocator/cx.rs");
    let mut found = Vec::new();
    if !code.files.iter().any(has_cx) {
        return found;
    }
    let machine = |file: &File| {
        let name = file.module.get(1)?;
        let is_machine = file.module[0] == "allocator" && MACHINES.contains(&name.as_str());
        is_machine.then(|| name.clone())
    };
    for (from, to) in edges(code) {
        let file = &code.files[from];
        for (to, line) in to {
            let target = &code.files[to];
            if let (Some(own), Some(other)) = (machine(file), machine(target)) {
                let asks = own == "operations" && other == "questions";
                if own != other && !asks {
                    let what = format!("machine {own} names machine {other}");
                    found.push(Violation::new("machines", &file.path, line, what));
                }
            }
            let may_see = file.path.ends_with("src/allocator.rs") || file.module.len() < 2;
            if target.path.ends_with("src/allocator/outbox.rs") && !may_see {
                let what = "only the step sees the outbox";
                found.push(Violation::new("machines", &file.path, line, what));
            }
        }
    }
    found
}

/// Returns a module with a folder stands beside it: `x.rs` and `x/`.
pub(crate) fn module_style(code: &Code) -> Vec<Violation> {
    let old = code
        .files
        .iter()
        .filter(|file| file.path.ends_with("/mod.rs"));
    old.map(|file| {
        let what = "stands inside of its folder instead of beside it";
        Violation::new("mod.rs", &file.path, 0, what)
    })
    .collect()
}

/// Returns every file below `src` belongs to something that is built.
pub(crate) fn orphans(tree: &Tree) -> Vec<Violation> {
    let mut reached = BTreeSet::new();
    for package in &tree.packages {
        for root in &package.roots {
            reach(tree, root, &mut reached);
        }
    }
    let mut found = Vec::new();
    for (path, _) in tree.ending(&[".rs"]) {
        let in_src = tree.packages.iter().any(|package| {
            let rest = path.strip_prefix(package.folder.as_str());
            rest.is_some_and(|rest| rest.starts_with("/src/"))
        });
        if in_src && !reached.contains(path) {
            let what = "no module names this file";
            found.push(Violation::new("orphan", path, 0, what));
        }
    }
    found
}

/// Takes a file and all that it names as modules, tests included.
fn reach(tree: &Tree, root: &str, reached: &mut BTreeSet<String>) {
    let mut next = vec![(root.to_owned(), folder_of(root).to_owned())];
    while let Some((path, folder)) = next.pop() {
        let Some(text) = tree.files.get(&path) else {
            continue;
        };
        reached.insert(path.clone());
        let syntax = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        for item in &syntax.items {
            let Item::Mod(module) = item else { continue };
            let name = &module.ident;
            let named = product::path_attribute(&module.attrs);
            let named = named.map(|named| format!("{}/{named}", folder_of(&path)));
            let beside = format!("{folder}/{name}.rs");
            let inside = format!("{folder}/{name}/mod.rs");
            for file in named.into_iter().chain([beside, inside]) {
                next.push((file, format!("{folder}/{name}")));
            }
        }
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
