//! Names of files, modules and types.

use std::collections::BTreeMap;

use syn::Ident;
use syn::visit::{self, Visit};

use super::Violation;
use crate::code::{Code, File};
use crate::table::{NAMES_EMPTY, NAMES_NEVER, NAMES_UNIQUE};

/// Returns every type that a file defines, with its line.
fn types(file: &File) -> Vec<(String, usize)> {
    struct Types(Vec<(String, usize)>);
    impl Types {
        fn take(&mut self, name: &Ident) {
            self.0.push((name.to_string(), name.span().start().line));
        }
    }
    impl<'ast> Visit<'ast> for Types {
        fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
            self.take(&item.ident);
            visit::visit_item_struct(self, item);
        }
        fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
            self.take(&item.ident);
            visit::visit_item_enum(self, item);
        }
        fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
            self.take(&item.ident);
            visit::visit_item_trait(self, item);
        }
        fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
            self.take(&item.ident);
            visit::visit_item_type(self, item);
        }
        fn visit_item_union(&mut self, item: &'ast syn::ItemUnion) {
            self.take(&item.ident);
            visit::visit_item_union(self, item);
        }
    }
    let mut types = Types(Vec::new());
    types.visit_file(&file.syntax);
    types.0
}

/// Returns the words of a name in either style, in small letters.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || letter == '-' {
            words.push(String::new());
            continue;
        }
        if letter.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// No file, module or type is called by a word that says nothing.
pub(crate) fn never(code: &Code) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in &code.files {
        let module = file.module.last().map(|name| (name.clone(), 0));
        for (name, line) in module.into_iter().chain(types(file)) {
            let words = words(&name);
            let is_bad = |word: &&String| {
                // In the name of a type, next to another word, most of them say something.
                let alone = line == 0 || words.len() == 1;
                let word = word.as_str();
                NAMES_NEVER.contains(&word) && (alone || NAMES_EMPTY.contains(&word))
            };
            if let Some(word) = words.iter().find(is_bad) {
                let what = format!("{name}: {word} is a word to avoid");
                found.push(Violation::new("name", &file.path, line, what));
            }
        }
    }
    found
}

/// No two types of a crate have the same name, if it is one that many could have.
pub(crate) fn unique(name: &str, code: &Code) -> Vec<Violation> {
    let mut places: BTreeMap<String, Vec<(&File, usize)>> = BTreeMap::new();
    for file in &code.files {
        for (name, line) in types(file) {
            if NAMES_UNIQUE.contains(&name.as_str()) {
                places.entry(name).or_default().push((file, line));
            }
        }
    }
    let mut found = Vec::new();
    for (defined, places) in places.iter().filter(|(_, places)| places.len() > 1) {
        for (file, line) in places {
            let what = format!("{defined} is the name of {} types of {name}", places.len());
            found.push(Violation::new("unique", &file.path, *line, what));
        }
    }
    found
}

#[test]
fn names_are_cut_into_words() {
    assert_eq!(words("EndpointLocks"), ["endpoint", "locks"]);
    assert_eq!(words("late_identity"), ["late", "identity"]);
    assert_eq!(words("Near"), ["near"]);
    assert_eq!(words("linear"), ["linear"]);
}
