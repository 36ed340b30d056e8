//! Sizes are habits: what is larger says why at its head.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Violation;
use crate::code::{Code, File};
use crate::table::{
    FACE_LINES, FIELDS, FIELDS_IMPL_LINES, FILE_LINES, FUNCTION_LINES, IMPL_LINES, REASON,
};

const RULE: &str = "size";

/// Something that is larger than the habit.
pub(crate) struct Large {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) what: String,
    /// What its head says about it, as far as that stands on the first line.
    pub(crate) reason: Option<String>,
}

/// Returns all that is larger than the habits.
pub(crate) fn large(code: &Code) -> Vec<Large> {
    let mut found = Vec::new();
    let mut impls: BTreeMap<String, usize> = BTreeMap::new();
    let mut types = Vec::new();
    for file in &code.files {
        let is_lib = file.path.ends_with("/lib.rs");
        let limit = if is_lib { FACE_LINES } else { FILE_LINES };
        if file.lines > limit {
            let head = file.text.lines();
            let head = head.take_while(|line| line.starts_with("//!") || line.is_empty());
            found.push(Large {
                path: file.path.clone(),
                line: 0,
                what: format!("{} lines", file.lines),
                reason: reason(file, 1..=head.count()),
            });
        }
        let mut items = Items {
            file,
            found: Vec::new(),
            impls: &mut impls,
            types: Vec::new(),
        };
        items.visit_file(&file.syntax);
        found.extend(items.found);
        types.extend(items.types);
    }
    for (name, fields, large) in types {
        // Two types of one name in a crate are taken for one: the names are to be told apart anyway.
        let lines = impls.get(&name).copied().unwrap_or(0);
        let what = if lines > IMPL_LINES {
            format!("type {name} has {lines} lines of impl and {fields} fields")
        } else if fields > FIELDS && lines > FIELDS_IMPL_LINES {
            format!("type {name} has {fields} fields")
        } else {
            continue;
        };
        found.push(Large { what, ..large });
    }
    found
}

/// Returns the sentence among these lines that says why something is large.
fn reason(file: &File, lines: RangeInclusive<usize>) -> Option<String> {
    let all = file.text.lines().enumerate();
    let mut among = all.filter(|(at, _)| lines.contains(&(at + 1)));
    among.find_map(|(_, line)| Some(line.split_once(REASON)?.1.trim().to_owned()))
}

struct Items<'f> {
    file: &'f File,
    found: Vec<Large>,
    /// Lines of the blocks of each type.
    impls: &'f mut BTreeMap<String, usize>,
    /// Name and number of fields of each type, and the type as if it were large.
    types: Vec<(String, usize, Large)>,
}

impl Items<'_> {
    /// Returns what begins at a line and is called so, with the reason that stands between the
    /// beginning of its documentation and this line.
    fn large(&self, whole: &dyn quote::ToTokens, line: usize, end: usize, what: String) -> Large {
        Large {
            path: self.file.path.clone(),
            line,
            what,
            reason: reason(self.file, whole.span().start().line..=end),
        }
    }

    fn function(&mut self, name: &syn::Ident, whole: &dyn quote::ToTokens, block: &syn::Block) {
        let start = name.span().start().line;
        let lines = block.span().end().line + 1 - start;
        if lines > FUNCTION_LINES {
            let what = format!("function {name} has {lines} lines");
            // A comment may also stand before its first statement.
            let end = block.span().start().line + 3;
            self.found.push(self.large(whole, start, end, what));
        }
    }
}

impl<'ast> Visit<'ast> for Items<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, item, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let (name, line) = (item.ident.to_string(), item.ident.span().start().line);
        let large = self.large(item, line, line, String::new());
        self.types.push((name, item.fields.len(), large));
        visit::visit_item_struct(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let syn::Type::Path(path) = &*item.self_ty
            && let Some(last) = path.path.segments.last()
        {
            let span = item.span();
            let lines = span.end().line + 1 - span.start().line;
            *self.impls.entry(last.ident.to_string()).or_default() += lines;
        }
        visit::visit_item_impl(self, item);
    }
}

/// Everything large says why.
pub(crate) fn sizes(code: &Code) -> Vec<Violation> {
    let silent = large(code)
        .into_iter()
        .filter(|large| large.reason.is_none());
    silent
        .map(|large| {
            let what = format!("{}, and no sentence \"{REASON} ...\" says why", large.what);
            Violation::new(RULE, &large.path, large.line, what)
        })
        .collect()
}
