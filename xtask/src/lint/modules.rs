//! The modules of a crate, and which of them use which, from its `use` lines and paths.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::source::{self, TextFile};

/// A module's path from the crate's root; the root's own is empty.
pub(crate) type ModulePath = Vec<String>;

/// One mention of a path inside the crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The module that mentions it.
    pub(crate) from: ModulePath,
    /// The path that is mentioned, from the crate's root: modules, then items.
    pub(crate) to: ModulePath,
}

/// The modules of a crate without its tests.
#[derive(Debug, Default)]
pub(crate) struct ModuleTree {
    pub(crate) paths: BTreeSet<ModulePath>,
    pub(crate) mentions: Vec<Mention>,
}

impl ModuleTree {
    /// Reads the crate whose root file is `root`, following its `mod` declarations.
    pub(crate) fn read(root: &str, files: &[TextFile]) -> Result<Self> {
        let by_name: BTreeMap<&str, &TextFile> =
            files.iter().map(|file| (file.name.as_str(), file)).collect();
        let mut modules = Self::default();
        let mut open = vec![(ModulePath::new(), root.to_owned())];
        while let Some((path, name)) = open.pop() {
            let file = by_name
                .get(name.as_str())
                .with_context(|| format!("failed to find {name}, a module's file"))?;
            let mut scope = ModuleVisitor {
                modules: &mut modules,
                file: &name,
                path,
                children: Vec::new(),
            };
            scope.modules.paths.insert(scope.path.clone());
            scope.visit_file(&source::parse(file)?);
            let directory = source::children_directory(&name);
            for child in std::mem::take(&mut scope.children) {
                // Inline modules put their own name into the path of a child's file.
                let below = child[scope.path.len()..].join("/");
                let flat = format!("{directory}/{below}.rs");
                let file = if by_name.contains_key(flat.as_str()) {
                    flat
                } else {
                    format!("{directory}/{below}/mod.rs")
                };
                open.push((child, file));
            }
        }
        Ok(modules)
    }

    /// The length of the part of a path that names a module.
    pub(crate) fn module_of<'a>(&self, path: &'a [String]) -> &'a [String] {
        let mut length = path.len();
        while length > 0 && !self.paths.contains(&path[..length]) {
            length -= 1;
        }
        &path[..length]
    }
}

/// A module's items, while they are visited.
struct ModuleVisitor<'a> {
    modules: &'a mut ModuleTree,
    file: &'a str,
    path: ModulePath,
    children: Vec<ModulePath>,
}

impl ModuleVisitor<'_> {
    /// Notes a path that begins with `crate`, `super` or `self`; others name what a `use` brought.
    fn mention(&mut self, segments: &[String], line: usize) {
        let mut to = match segments.first().map(String::as_str) {
            Some("crate") => ModulePath::new(),
            Some("self" | "super") => self.path.clone(),
            _ => return,
        };
        for segment in segments {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => {
                    to.pop();
                }
                name => to.push(name.to_owned()),
            }
        }
        self.modules.mentions.push(Mention {
            file: self.file.to_owned(),
            line,
            from: self.path.clone(),
            to,
        });
    }

    fn use_tree(&mut self, tree: &syn::UseTree, before: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.use_tree(&path.tree, before);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(tree, before);
                }
            }
            syn::UseTree::Name(syn::UseName { ident })
            | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                before.push(ident.to_string());
                self.mention(before, ident.span().start().line);
                before.pop();
            }
            syn::UseTree::Glob(glob) => self.mention(before, source::line(glob)),
        }
    }

    /// Paths in a macro's tokens, which syn does not parse.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut position = 0;
        while position < tokens.len() {
            match &tokens[position] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) if *first == "crate" || *first == "super" => {
                    let line = first.span().start().line;
                    let mut segments = vec![first.to_string()];
                    while let [
                        TokenTree::Punct(one),
                        TokenTree::Punct(two),
                        TokenTree::Ident(segment),
                        ..,
                    ] = &tokens[position + 1..]
                        && one.as_char() == ':'
                        && two.as_char() == ':'
                    {
                        segments.push(segment.to_string());
                        position += 3;
                    }
                    self.mention(&segments, line);
                }
                _ => {}
            }
            position += 1;
        }
    }
}

impl<'ast> Visit<'ast> for ModuleVisitor<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !source::is_test_only(source::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !source::is_test_only(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        self.path.push(module.ident.to_string());
        if let Some((_, items)) = &module.content {
            self.modules.paths.insert(self.path.clone());
            for item in items {
                self.visit_item(item);
            }
        } else {
            self.children.push(self.path.clone());
        }
        self.path.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let segments: Vec<String> = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string())
                .collect();
            self.mention(&segments, source::line(path));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    // `pub(crate)` and `pub(in crate::x)` use nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn files(texts: &[(&str, &str)]) -> Vec<TextFile> {
        texts
            .iter()
            .map(|(name, text)| TextFile::new(name, text))
            .collect()
    }

    fn mentions(texts: &[(&str, &str)]) -> Vec<String> {
        let modules = ModuleTree::read("src/lib.rs", &files(texts)).expect("a crate");
        let mut mentions: Vec<String> = modules
            .mentions
            .iter()
            .map(|mention| {
                format!(
                    "{}:{} {} {}",
                    mention.file,
                    mention.line,
                    mention.from.join("::"),
                    mention.to.join("::")
                )
            })
            .collect();
        mentions.sort();
        mentions
    }

    #[test]
    fn use_lines_and_paths() {
        let found = mentions(&[
            ("src/lib.rs", "mod a;\nmod b;\n"),
            ("src/a.rs", "use crate::b::{self, C};\nuse std::fs;\nmod c;\n"),
            (
                "src/a/c.rs",
                "use super::super::b as other;\nfn f() -> crate::b::D { print!(\"{}\", crate::b::e()) }\n",
            ),
            ("src/b.rs", "pub(crate) fn e() { self::g() }\n"),
        ]);
        assert_eq!(
            found,
            [
                "src/a.rs:1 a b",
                "src/a.rs:1 a b::C",
                "src/a/c.rs:1 a::c b",
                "src/a/c.rs:2 a::c b::D",
                "src/a/c.rs:2 a::c b::e",
                "src/b.rs:1 b b::g",
            ]
        );
    }

    #[test]
    fn tests_are_left_out() {
        let found = mentions(&[
            (
                "src/lib.rs",
                "mod a;\n#[cfg(test)]\nmod nowhere;\n#[cfg(test)]\nuse crate::a::B;\n",
            ),
            (
                "src/a.rs",
                "struct S;\nimpl S {\n#[cfg(test)]\nfn f() { crate::a::g() }\n}\n#[cfg(test)]\nmod tests { use crate::z; }\n",
            ),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn directories_of_modules() {
        let files = files(&[
            ("src/lib.rs", "mod a;\n"),
            ("src/a/mod.rs", "mod b;\nmod inline { pub fn f() {} }\n"),
            ("src/a/b.rs", ""),
        ]);
        let modules = ModuleTree::read("src/lib.rs", &files).expect("a crate");
        let path = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
        assert!(modules.paths.contains(&path("a::b")));
        assert_eq!(modules.module_of(&path("a::inline::f")), path("a::inline"));
        assert!(ModuleTree::read("src/lib.rs", &files[..2]).is_err());
    }
}
