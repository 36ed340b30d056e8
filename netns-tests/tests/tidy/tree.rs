//! The source tree as it is looked at: its files, and its packages as cargo sees them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::table::TEST_CRATES;

/// A package of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder, from the root of the tree.
    pub(crate) folder: String,
    /// The files that its library and its binaries begin with, from the root of the tree.
    pub(crate) roots: Vec<String>,
    /// Packages of the workspace that it uses.
    pub(crate) uses: Vec<String>,
    /// Packages from elsewhere that it uses.
    pub(crate) foreign: Vec<String>,
    /// Packages of the workspace that its tests use.
    pub(crate) tests_use: Vec<String>,
}

impl Package {
    pub(crate) fn is_product(&self) -> bool {
        !TEST_CRATES.contains(&self.name.as_str())
    }
}

/// Everything that is looked at.
#[derive(Default)]
pub(crate) struct Tree {
    /// Content by path from the root.
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) packages: Vec<Package>,
    /// What `cargo metadata` says.
    pub(crate) metadata: Value,
}

impl Tree {
    /// Returns the tree that this test stands in.
    pub(crate) fn real() -> Tree {
        let metadata = metadata();
        Tree {
            files: files(),
            packages: packages(&metadata),
            metadata,
        }
    }

    /// Returns the paths of files that end so.
    pub(crate) fn ending<'t>(
        &'t self,
        endings: &'t [&str],
    ) -> impl Iterator<Item = (&'t str, &'t str)> {
        let all = self.files.iter();
        let all = all.filter(|(path, _)| endings.iter().any(|ending| path.ends_with(ending)));
        all.map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// Returns the root of the tree.
pub(crate) fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.parent().unwrap().to_owned()
}

fn files() -> BTreeMap<String, String> {
    let endings = ["rs", "md", "toml", "sh", "txt", "service"];
    let mut found = BTreeMap::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                let skipped = ["target", "corpus", ".git"].contains(&name.as_str());
                if !skipped && !path.is_symlink() {
                    folders.push(path);
                }
                continue;
            }
            let ending = path.extension().map(|ending| ending.to_string_lossy());
            let from_root = path.strip_prefix(root()).unwrap().display().to_string();
            if ending.is_some_and(|ending| endings.contains(&&*ending)) || from_root == ".ci/run" {
                found.insert(from_root, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["metadata", "--format-version=1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn packages(metadata: &Value) -> Vec<Package> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let from_root = |path: String| {
        let path = Path::new(&path).strip_prefix(root()).unwrap().to_owned();
        path.display().to_string()
    };
    let all = list(&metadata["packages"]);
    let own: Vec<&Value> = all.iter().filter(|p| p["source"].is_null()).collect();
    let names: Vec<String> = own.iter().map(|package| text(&package["name"])).collect();
    let mut packages = Vec::new();
    for package in own {
        let manifest = from_root(text(&package["manifest_path"]));
        let mut found = Package {
            name: text(&package["name"]),
            folder: manifest.trim_end_matches("/Cargo.toml").to_owned(),
            ..Package::default()
        };
        for target in list(&package["targets"]) {
            if target["kind"][0] == "lib" || target["kind"][0] == "bin" {
                found.roots.push(from_root(text(&target["src_path"])));
            }
        }
        for dependency in list(&package["dependencies"]) {
            let name = text(&dependency["name"]);
            let is_test = dependency["kind"] == "dev";
            match (names.contains(&name), is_test) {
                (true, true) => found.tests_use.push(name),
                (true, false) => found.uses.push(name),
                (false, true) => {}
                (false, false) => found.foreign.push(name),
            }
        }
        packages.push(found);
    }
    packages
}
