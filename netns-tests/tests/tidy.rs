//! What holds for the whole source tree, so that nobody has to look after it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file of code, tests not counted.
const CODE_LINES_MAX: usize = 700;

fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.parent().unwrap().to_owned()
}

/// All files below a folder with one of these endings, by their paths from the root.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

fn is_test(path: &str) -> bool {
    let path = format!("/{path}");
    [
        "/tests/",
        "/tests.rs",
        "/testing.rs",
        "/vectors.rs",
        "/benches/",
        "/fuzz",
        "/netns-tests/",
    ]
    .iter()
    .any(|part| path.contains(part))
}

/// The lines of product code of a file: those before its module of tests.
fn code(text: &str) -> Vec<&str> {
    text.lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .collect()
}

fn complain(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn files_are_small() {
    let found: Vec<String> = files(".", &[".rs"])
        .iter()
        .filter(|(path, _)| !is_test(path))
        .map(|(path, text)| (path, code(text).len()))
        .filter(|(_, lines)| *lines > CODE_LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    complain("too large to know; make rooms of it", &found);
}

/// An allocator that counts is the one exception outside of the folder.
#[test]
fn unsafe_code_has_its_place() {
    let allowed = |path: &str| {
        path.starts_with("router/kernel/src/sys")
            || path == "router/tests/allocations.rs"
            || path == "netns-tests/tests/tidy.rs"
    };
    let found: Vec<String> = files(".", &[".rs"])
        .iter()
        .filter(|(path, _)| !allowed(path))
        .flat_map(|(path, text)| {
            let lines = text.lines().enumerate();
            let unsafe_lines = lines.filter(|(_, line)| {
                let line = line.trim_start();
                !line.starts_with("//")
                    && ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"]
                        .iter()
                        .any(|word| line.contains(word))
            });
            unsafe_lines.map(move |(number, _)| format!("{path}:{}", number + 1))
        })
        .collect();
    complain("unsafe code outside of router/kernel/src/sys", &found);
}

/// The crates that decide have neither I/O, nor clocks, nor threads, nor randomness of their own.
#[test]
fn what_decides_does_nothing() {
    const WORDS: [&str; 16] = [
        "std::fs",
        "std::io",
        "std::env",
        "std::process",
        "std::thread",
        "std::time::Instant",
        "SystemTime",
        "TcpStream",
        "UdpSocket",
        "TcpListener",
        "tokio",
        "libc::",
        "Mutex",
        "RwLock",
        "getrandom",
        "HashMap",
    ];
    let mut found = Vec::new();
    for folder in ["proto/src", "ipam/src"] {
        for (path, text) in files(folder, &[".rs"]) {
            if is_test(&path) || path == "proto/src/lib.rs" || path == "ipam/src/lib.rs" {
                continue;
            }
            for (number, line) in code(&text).iter().enumerate() {
                let comment = line.trim_start().starts_with("//");
                if let Some(word) = WORDS.iter().find(|word| !comment && line.contains(**word)) {
                    found.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
    }
    complain("code that decides must not do", &found);
}

#[test]
fn decisions_depend_on_little() {
    for (package, forbidden) in [
        (
            "proto",
            &["ipam", "router", "tokio", "libc", "rustix", "socket2"][..],
        ),
        (
            "ipam",
            &["router", "tokio", "libc", "rustix", "socket2", "redb"][..],
        ),
    ] {
        let text = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
        let start = text.find("[dependencies]").expect("dependencies");
        let section = &text[start..];
        let end = section[1..]
            .find("\n[")
            .map_or(section.len(), |end| end + 1);
        for name in forbidden {
            let depends = section[..end]
                .lines()
                .any(|line| line.split(['.', ' ', '=']).next() == Some(name));
            assert!(!depends, "{package} must not depend on {name}");
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    // In two parts, so that this file does not hold what it looks for.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|parts| parts.concat());
    let ignored = ["#[ign", "ore"].concat();
    let mut found = Vec::new();
    for (path, text) in files(".", &[".rs", ".md", ".toml", ".sh"]) {
        for (number, line) in text.lines().enumerate() {
            let words = || line.split(|c: char| !c.is_ascii_alphanumeric());
            if marks.iter().any(|mark| words().any(|word| word == mark)) || line.contains(&ignored)
            {
                found.push(format!("{path}:{}", number + 1));
            }
        }
    }
    complain("marks of unfinished work", &found);
}

/// Links between the documents lead somewhere.
#[test]
fn links_lead_somewhere() {
    let mut found = Vec::new();
    for (path, text) in files(".", &[".md"]) {
        let folder = root().join(&path).parent().unwrap().to_owned();
        for target in text.split("](").skip(1) {
            let target = target.split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            let elsewhere = file.contains("://") || file.starts_with("mailto:");
            if !file.is_empty() && !elsewhere && !folder.join(file).exists() {
                found.push(format!("{path}: {target}"));
            }
        }
    }
    complain("links to what is not there", &found);
}
