//! What has no place in some part of the tree.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;

use super::Violation;
use crate::code::{Code, Mention};
use crate::table::{FORBIDDEN, Forbidden, UNSAFE_ALLOWED};
use crate::tree::Tree;

/// No file names what is forbidden where it stands.
pub(crate) fn paths(code: &Code) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in &code.files {
        let holds = |rule: &&Forbidden| {
            let begins = |start: &&str| file.path.starts_with(*start);
            (rule.within.is_empty() || rule.within.iter().any(begins))
                && !rule.except.iter().any(begins)
        };
        for rule in FORBIDDEN.iter().filter(holds) {
            for what in rule.what {
                let line = match what.contains(' ') {
                    true => tokens(&file.syntax.to_token_stream(), what),
                    false => named(&file.mentions, what),
                };
                if let Some(line) = line {
                    let text = format!("{what}: {}", rule.because);
                    found.push(Violation::new("forbidden", &file.path, line, text));
                }
            }
        }
    }
    found
}

/// Returns the line of the first path with these segments.
fn named(mentions: &[Mention], what: &str) -> Option<usize> {
    let (what, is_macro) = match what.strip_suffix('!') {
        Some(name) => (name, true),
        None => (what, false),
    };
    let parts: Vec<&str> = what.split("::").collect();
    let same = |part: &str, name: &String| match part.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => part == name,
    };
    let found = mentions.iter().find(|mention| {
        let fits = |names: &[String]| {
            let mut windows = names.windows(parts.len());
            windows.any(|names| parts.iter().zip(names).all(|(part, name)| same(part, name)))
        };
        (!is_macro || mention.is_macro) && (fits(&mention.full) || fits(&mention.written))
    });
    found.map(|mention| mention.line)
}

/// Returns the line where these tokens begin to follow each other.
fn tokens(all: &TokenStream, what: &str) -> Option<usize> {
    let mut flat = Vec::new();
    flatten(all.clone(), &mut flat);
    let wanted: Vec<&str> = what.split_whitespace().collect();
    let mut windows = flat.windows(wanted.len());
    let found = windows.find(|tokens| tokens.iter().map(|(token, _)| token).eq(&wanted));
    found.map(|tokens| tokens[0].1)
}

/// The tokens one after the other, brackets included, each with its line.
fn flatten(tokens: TokenStream, out: &mut Vec<(String, usize)>) {
    for token in tokens {
        let line = token.span().start().line;
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => ("(", ")"),
                    proc_macro2::Delimiter::Brace => ("{", "}"),
                    proc_macro2::Delimiter::Bracket => ("[", "]"),
                    proc_macro2::Delimiter::None => ("", ""),
                };
                out.push((open.to_owned(), line));
                flatten(group.stream(), out);
                out.push((close.to_owned(), line));
            }
            token => out.push((token.to_string(), line)),
        }
    }
}

/// Unsafe code has its place, in tests as well. Looks at all files, whatever they belong to.
pub(crate) fn unsafe_places(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.ending(&[".rs"]) {
        if UNSAFE_ALLOWED.iter().any(|start| path.starts_with(start)) {
            continue;
        }
        let mut flat = Vec::new();
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        flatten(tokens, &mut flat);
        // The word itself, and the name of the lint that would let it pass.
        let is_unsafe = |token: &String| {
            token
                .strip_prefix("unsafe")
                .is_some_and(|rest| rest.is_empty() || rest == "_code")
        };
        let lines = flat
            .iter()
            .enumerate()
            .filter(|(_, (token, _))| is_unsafe(token));
        for (at, (token, line)) in lines {
            // To forbid it is allowed.
            let before = at.checked_sub(2).map(|before| flat[before].0.as_str());
            if !matches!(before, Some("forbid" | "deny")) {
                found.push(Violation::new("unsafe", path, *line, token.clone()));
            }
        }
    }
    found
}
