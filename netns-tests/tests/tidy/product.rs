//! What of a file is product: everything but the items that only tests are built with.

use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Expr, ImplItem, Item, Meta, Stmt};

/// Cuts all that stands behind `#[cfg(test)]`, or a condition that needs it, out of a file. Returns
/// also how many lines that were.
pub(crate) fn cut(mut file: syn::File) -> (syn::File, usize) {
    let mut cut = Cut { lines: 0 };
    cut.visit_file_mut(&mut file);
    (file, cut.lines)
}

/// Returns true if one of these attributes keeps what it stands at out of the product.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Meta::List(list) = &attribute.meta else {
            return attribute.path().is_ident("test");
        };
        list.path.is_ident("cfg") && needs_test(&list.tokens.to_string())
    })
}

/// Returns true if a condition names `test`, and not only to rule it out.
fn needs_test(condition: &str) -> bool {
    let condition: String = condition.split_whitespace().collect();
    if condition.starts_with("not(") {
        return false;
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '"';
    condition.split(|c| !is_word(c)).any(|word| word == "test")
}

struct Cut {
    lines: usize,
}

impl Cut {
    /// Returns true if what has these attributes is kept.
    fn keeps(&mut self, attributes: &[Attribute], whole: &dyn ToTokens) -> bool {
        let cut = is_test(attributes);
        if cut {
            let span = whole.span();
            self.lines += span.end().line + 1 - span.start().line;
        }
        !cut
    }
}

impl VisitMut for Cut {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| self.keeps(attributes(item), item));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| self.keeps(attributes(item), item));
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut syn::ItemImpl) {
        block.items.retain(|item| match item {
            ImplItem::Const(item) => self.keeps(&item.attrs, item),
            ImplItem::Fn(item) => self.keeps(&item.attrs, item),
            ImplItem::Type(item) => self.keeps(&item.attrs, item),
            _ => true,
        });
        visit_mut::visit_item_impl_mut(self, block);
    }

    fn visit_fields_named_mut(&mut self, fields: &mut syn::FieldsNamed) {
        let kept = std::mem::take(&mut fields.named).into_iter();
        fields.named = kept
            .filter(|field| self.keeps(&field.attrs, field))
            .collect();
        visit_mut::visit_fields_named_mut(self, fields);
    }

    fn visit_expr_struct_mut(&mut self, value: &mut syn::ExprStruct) {
        let kept = std::mem::take(&mut value.fields).into_iter();
        value.fields = kept
            .filter(|field| self.keeps(&field.attrs, field))
            .collect();
        visit_mut::visit_expr_struct_mut(self, value);
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        block.stmts.retain(|statement| match statement {
            Stmt::Item(item) => self.keeps(attributes(item), item),
            Stmt::Local(local) => self.keeps(&local.attrs, local),
            Stmt::Macro(call) => self.keeps(&call.attrs, call),
            Stmt::Expr(Expr::Block(block), _) => self.keeps(&block.attrs, block),
            Stmt::Expr(..) => true,
        });
        visit_mut::visit_block_mut(self, block);
    }
}

/// Returns the attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns the file that `#[path = "..."]` names for a module.
pub(crate) fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        match &pair.value {
            Expr::Lit(value) if pair.path.is_ident("path") => match &value.lit {
                syn::Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        }
    })
}
