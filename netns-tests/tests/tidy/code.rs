//! The product code of one crate: its files in their modules, and which file names which.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, UseTree, Visibility};

use crate::product;
use crate::tree::{Package, Tree};

/// The names that lead from the root of a crate to something in it.
pub(crate) type Names = Vec<String>;

/// A file of product code.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
    /// Its module.
    pub(crate) module: Names,
    pub(crate) syntax: syn::File,
    /// Lines that are product.
    pub(crate) lines: usize,
    /// Whether other files of product code stand below it.
    pub(crate) is_face: bool,
    pub(crate) mentions: Vec<Mention>,
}

/// A path that stands in a file.
#[derive(Clone, Debug)]
pub(crate) struct Mention {
    /// As it is written.
    pub(crate) written: Names,
    /// From `crate`, or from the name of another crate.
    pub(crate) full: Names,
    pub(crate) line: usize,
    /// The module that it stands in, which may be one inside of the file.
    pub(crate) module: Names,
    pub(crate) is_macro: bool,
}

#[derive(Default)]
struct Scope {
    /// What other names stand for.
    aliases: BTreeMap<String, Alias>,
    /// Modules of which everything was imported.
    globs: Vec<Names>,
    /// What is defined here.
    defined: BTreeSet<String>,
}

#[derive(Clone)]
struct Alias {
    written: Names,
    is_public: bool,
}

/// A library or a binary.
pub(crate) struct Code {
    pub(crate) files: Vec<File>,
    /// Which file holds a module.
    modules: BTreeMap<Names, usize>,
    scopes: BTreeMap<Names, Scope>,
}

impl Code {
    /// Reads all that a package's libraries and binaries are made of.
    pub(crate) fn of(tree: &Tree, package: &Package) -> Vec<Code> {
        package
            .roots
            .iter()
            .map(|root| Code::read(tree, root))
            .collect()
    }

    pub(crate) fn read(tree: &Tree, root: &str) -> Code {
        let mut code = Code {
            files: Vec::new(),
            modules: BTreeMap::new(),
            scopes: BTreeMap::new(),
        };
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        code.take(tree, root, folder, &[]);
        for index in 0..code.files.len() {
            let module = code.files[index].module.clone();
            let below = |other: &File| {
                other.module.len() > module.len() && other.module.starts_with(&module)
            };
            code.files[index].is_face = code.files.iter().any(below);
            // What only tests need is no product, whatever it is compiled for.
            if module.iter().any(|name| name == "testing") {
                let file = &mut code.files[index];
                file.mentions.clear();
                file.syntax.items.clear();
                file.lines = 0;
            }
            for mention in 0..code.files[index].mentions.len() {
                let found = &code.files[index].mentions[mention];
                let full = code.full(&found.module, &found.written, 0);
                code.files[index].mentions[mention].full = full;
            }
        }
        code
    }

    /// Takes a file and those of its modules.
    fn take(&mut self, tree: &Tree, path: &str, folder: &str, module: &[String]) {
        let text = tree.files.get(path).cloned().unwrap_or_default();
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (syntax, cut_lines) = product::cut(syntax);
        let index = self.files.len();
        let mut reader = Reader {
            module: module.to_vec(),
            scopes: &mut self.scopes,
            mentions: Vec::new(),
            modules: vec![module.to_vec()],
            files_below: Vec::new(),
        };
        reader.scopes.entry(module.to_vec()).or_default();
        reader.visit_file(&syntax);
        let (modules, files_below) = (reader.modules, reader.files_below);
        let mentions = reader.mentions;
        for module in modules {
            self.modules.insert(module, index);
        }
        self.files.push(File {
            path: path.to_owned(),
            lines: text.lines().count() - cut_lines,
            text,
            module: module.to_vec(),
            syntax,
            is_face: false,
            mentions,
        });
        for (below, named) in files_below {
            let inner = below[module.len()..].join("/");
            let (file, folder) = match named {
                Some(named) => {
                    let beside = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                    let file = format!("{beside}/{named}");
                    let folder = file.trim_end_matches(".rs").to_owned();
                    (file, folder)
                }
                None => {
                    let file = format!("{folder}/{inner}.rs");
                    let file = match tree.files.contains_key(&file) {
                        true => file,
                        false => format!("{folder}/{inner}/mod.rs"),
                    };
                    (file, format!("{folder}/{inner}"))
                }
            };
            if tree.files.contains_key(&file) {
                self.take(tree, &file, &folder, &below);
            }
        }
    }

    /// Returns what a path means that is written in a module: its names from `crate` or from
    /// another crate. What is neither stays as it is written.
    fn full(&self, module: &[String], written: &[String], depth: usize) -> Names {
        let Some(first) = written.first() else {
            return Names::new();
        };
        let (mut base, rest) = match first.as_str() {
            "crate" => (Names::new(), &written[1..]),
            "self" => (module.to_vec(), &written[1..]),
            "super" => {
                let ups = written.iter().take_while(|name| *name == "super").count();
                let base = module[..module.len().saturating_sub(ups)].to_vec();
                (base, &written[ups..])
            }
            name => {
                let alias = self
                    .scopes
                    .get(module)
                    .and_then(|scope| scope.aliases.get(name));
                let child = [module, std::slice::from_ref(first)].concat();
                if self.modules.contains_key(&child) {
                    (child, &written[1..])
                } else if let Some(alias) = alias.filter(|_| depth < 8) {
                    // `use a::a` names what it imports as it is imported.
                    if alias.written.first() == Some(first) && alias.written.len() == 1 {
                        return written.to_vec();
                    }
                    let mut full = match alias.written.first() == Some(first) {
                        true => self.outside(&alias.written, module),
                        false => self.full(module, &alias.written, depth + 1),
                    };
                    full.extend_from_slice(&written[1..]);
                    return full;
                } else {
                    return written.to_vec();
                }
            }
        };
        base.insert(0, "crate".to_owned());
        base.extend_from_slice(rest);
        base
    }

    /// Returns what an import means whose first name is the one that it imports: another crate's,
    /// or a module's below.
    fn outside(&self, written: &[String], module: &[String]) -> Names {
        let child = [module, &written[..1]].concat();
        match self.modules.contains_key(&child) {
            true => [&["crate".to_owned()][..], module, written].concat(),
            false => written.to_vec(),
        }
    }

    /// Returns the file that defines what this path from `crate` means, and the module by which it
    /// was reached in the path itself; `None` if it names nothing but a module.
    pub(crate) fn target(&self, full: &[String]) -> Option<Target> {
        let (first, names) = full.split_first()?;
        if first != "crate" {
            return None;
        }
        let (module, rest) = self.walk(names);
        let item = rest.first()?;
        Some(Target {
            named: module.clone(),
            file: self.definition(&module, item, 0),
        })
    }

    fn walk<'n>(&self, names: &'n [String]) -> (Names, &'n [String]) {
        let mut len = 0;
        while len < names.len() && self.modules.contains_key(&names[..=len]) {
            len += 1;
        }
        (names[..len].to_vec(), &names[len..])
    }

    /// Returns the file that defines a name of a module, through what the module exports again.
    fn definition(&self, module: &[String], item: &str, depth: usize) -> usize {
        let here = self.modules[module];
        let Some(scope) = self.scopes.get(module) else {
            return here;
        };
        if scope.defined.contains(item) || depth == 8 {
            return here;
        }
        if let Some(alias) = scope.aliases.get(item).filter(|alias| alias.is_public) {
            let full = self.full(module, &alias.written, 1);
            if full.first().is_some_and(|first| first == "crate") {
                let (module, rest) = self.walk(&full[1..]);
                if let Some(item) = rest.first() {
                    return self.definition(&module, item, depth + 1);
                }
            }
        }
        for glob in &scope.globs {
            let full = self.full(module, glob, 1);
            if full.first().is_some_and(|first| first == "crate") {
                let (module, rest) = self.walk(&full[1..]);
                let defined = |scope: &Scope| scope.defined.contains(item);
                if rest.is_empty() && self.scopes.get(&module).is_some_and(defined) {
                    return self.modules[&module];
                }
            }
        }
        here
    }
}

/// What a path leads to.
pub(crate) struct Target {
    /// The module that it names.
    pub(crate) named: Names,
    /// The file that defines what is meant.
    pub(crate) file: usize,
}

struct Reader<'c> {
    module: Names,
    scopes: &'c mut BTreeMap<Names, Scope>,
    mentions: Vec<Mention>,
    modules: Vec<Names>,
    /// Modules in files of their own, with the name of the file if it is given.
    files_below: Vec<(Names, Option<String>)>,
}

impl Reader<'_> {
    fn mention(&mut self, written: Names, line: usize, is_macro: bool) {
        self.mentions.push(Mention {
            full: Names::new(),
            written,
            line,
            module: self.module.clone(),
            is_macro,
        });
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.entry(self.module.clone()).or_default()
    }

    fn import(&mut self, tree: &UseTree, before: &[String], is_public: bool) {
        let with = |name: &syn::Ident| {
            // `self` at the end of a list is what stands before it.
            let name = name.to_string();
            match name == "self" && !before.is_empty() {
                true => before.to_vec(),
                false => [before, &[name]].concat(),
            }
        };
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &with(&path.ident), is_public),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, is_public);
                }
            }
            UseTree::Name(name) => {
                let written = with(&name.ident);
                let alias = written.last().cloned().unwrap_or_default();
                self.imported(alias, written, name.ident.span().start().line, is_public);
            }
            UseTree::Rename(rename) => {
                let (written, alias) = (with(&rename.ident), rename.rename.to_string());
                self.imported(alias, written, rename.ident.span().start().line, is_public);
            }
            UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                self.mention([before, &["*".to_owned()]].concat(), line, false);
                self.scope().globs.push(before.to_vec());
            }
        }
    }

    fn imported(&mut self, alias: String, written: Names, line: usize, is_public: bool) {
        self.mention(written.clone(), line, false);
        let alias_of = Alias { written, is_public };
        self.scope().aliases.insert(alias, alias_of);
    }

    /// Takes the paths among the tokens of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Names = Vec::new();
        let (mut line, mut colons) = (0, 0);
        let mut ended: Vec<(Names, usize, bool)> = Vec::new();
        let mut groups = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 && !path.is_empty() {
                        ended.push((std::mem::take(&mut path), line, false));
                    }
                    if path.is_empty() {
                        line = name.span().start().line;
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                token => {
                    if !path.is_empty() {
                        let is_macro = token.to_string() == "!";
                        ended.push((std::mem::take(&mut path), line, is_macro));
                    }
                    colons = 0;
                    if let TokenTree::Group(group) = token {
                        groups.push(group.stream());
                    }
                }
            }
        }
        ended.extend((!path.is_empty()).then_some((path, line, false)));
        for (path, line, is_macro) in ended {
            self.mention(path, line, is_macro);
        }
        for group in groups {
            self.tokens(group);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let name = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Macro(item) => item.ident.as_ref(),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        if let Some(name) = name {
            self.scope().defined.insert(name.to_string());
        }
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_public = !matches!(item.vis, Visibility::Inherited);
        self.import(&item.tree, &[], is_public);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.module.push(module.ident.to_string());
        if let Some((_, items)) = &module.content {
            self.modules.push(self.module.clone());
            self.scope();
            items.iter().for_each(|item| self.visit_item(item));
        } else {
            let named = product::path_attribute(&module.attrs);
            self.files_below.push((self.module.clone(), named));
        }
        self.module.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let written: Names = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        let line = path
            .segments
            .first()
            .map_or(0, |part| part.ident.span().start().line);
        self.mention(written, line, false);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let path = &call.path.segments;
        let written = path.iter().map(|part| part.ident.to_string()).collect();
        let line = path
            .first()
            .map_or(0, |part| part.ident.span().start().line);
        self.mention(written, line, true);
        self.tokens(call.tokens.clone());
    }

    // Who may see a thing is no use of the module that it names.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}
