//! The commands that stand in the documents.

use std::fs;
use std::path::Path;

/// Documents for those who use weft; what developers run is what runs this test.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut names = vec!["README.md".to_owned(), "SECURITY.md".to_owned()];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    let read = |name: String| {
        let text = fs::read_to_string(root.join(&name)).unwrap();
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// All commands in blocks of their own: the document, and the command as it is typed.
pub(crate) fn commands() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in pages() {
        found.extend(
            commands_in(&text)
                .into_iter()
                .map(|command| (name.clone(), command)),
        );
    }
    found
}

/// The commands of a page, in the blocks that name no language: without what explains them, with a
/// prompt that names a host as `host2: `.
pub(crate) fn commands_in(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<bool> = None;
    let mut whole = String::new();
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            block = match block {
                None => Some(language.is_empty()),
                Some(_) => None,
            };
            continue;
        }
        if block != Some(true) || line.trim().is_empty() {
            continue;
        }
        whole.push_str(line.trim());
        if whole.ends_with('\\') {
            whole.pop();
            continue;
        }
        found.push(command(&std::mem::take(&mut whole)));
    }
    found
}

fn command(line: &str) -> String {
    let (host, line) = match line.split_once("# ") {
        Some((host @ ("host1" | "host2"), line)) => (format!("{host}: "), line),
        Some(("", line)) => (String::new(), line),
        _ => (String::new(), line),
    };
    let end = line.find("  ").into_iter().chain(line.find(" # ")).min();
    format!("{host}{}", line[..end.unwrap_or(line.len())].trim())
}

/// What a page promises that a command prints: the word behind the arrow on its line.
pub(crate) fn promised(page: &str, wanted: &str) -> String {
    let text = pages()
        .into_iter()
        .find(|(name, _)| name == page)
        .unwrap()
        .1;
    let mut lines = text.lines().filter(|line| line.contains("# -> "));
    let line = lines.find(|line| command(line) == wanted);
    let line = line.unwrap_or_else(|| panic!("{page} promises nothing of {wanted}"));
    let promise = line.split("# -> ").nth(1).unwrap();
    promise.split_whitespace().next().unwrap().to_owned()
}

/// Commands of weft in the middle of a sentence.
pub(crate) fn mentioned() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in pages() {
        let mut in_block = false;
        let mut prose = String::new();
        for line in text.lines() {
            if line.starts_with("```") {
                in_block = !in_block;
            } else if !in_block {
                prose.push_str(line.trim());
                prose.push(' ');
            }
        }
        // Every second part stands between two marks.
        for code in prose.split('`').skip(1).step_by(2) {
            if code.starts_with("weft ") {
                found.push((name.clone(), code.to_owned()));
            }
        }
    }
    found
}
